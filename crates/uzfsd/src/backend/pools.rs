//! GetPools: state, devices, properties and errors of imported pools.
//!
//! What cannot be read is left out and said in the log, so that a damaged pool still answers.

use super::{Engine, Imported, datasets, import};
use std::collections::BTreeMap;
use std::sync::Arc;
use uzfs_proto::{
    CheckpointState, CheckpointStats, DedupBucket, DedupStats, ErrorEntry, ExpandStats, Failure, GetPoolsArgs,
    GetPoolsReply, PoolState, Property, RemovalStats, ScanFunction, ScanState, ScanStats, U64,
};
use zfs_phys::feature::Feature;
use zfs_spa::Pool;
use zfs_zio::write::FailMode;

/// Newest file system version.
const ZPL_VERSION: u64 = 5;

impl Engine {
    pub(super) fn get_pools(&self, args: &GetPoolsArgs) -> Result<GetPoolsReply, Failure> {
        let all: Vec<Arc<Imported>> = self.pools.read().values().cloned().collect();
        let mut reply = GetPoolsReply::default();
        if args.pools.is_empty() {
            reply.pools = all.iter().map(|p| self.show(p, args)).collect();
            return Ok(reply);
        }
        for wanted in &args.pools {
            let named = |p: &&Arc<Imported>| p.pool.name().as_ref() == wanted || p.pool.guid().to_string() == *wanted;
            match all.iter().find(named) {
                Some(p) => reply.pools.push(self.show(p, args)),
                None => reply.missing.push(wanted.clone()),
            }
        }
        Ok(reply)
    }

    fn show(&self, imported: &Imported, args: &GetPoolsArgs) -> uzfs_proto::Pool {
        let pool = &imported.view();
        let features = pool.features();
        let mut properties = match &args.properties {
            Some(names) if names.is_empty() => pool_properties(pool, None),
            Some(names) => pool_properties(pool, Some(names)),
            None => BTreeMap::new(),
        };
        if let (Some(file), Some(shown)) = (imported.cachefile(), properties.get_mut("cachefile")) {
            *shown = Property::with(uzfs_proto::Raw::text(&file), uzfs_proto::PropertySource::Local);
        }
        let errors = args.errors.then(|| self.errors(pool));
        uzfs_proto::Pool {
            name: pool.name().to_string(),
            guid: U64(pool.guid()),
            state: PoolState::Active,
            suspended: pool.zio().is_suspended().then(|| "io".into()),
            version: pool.version(),
            zpl_version: ZPL_VERSION,
            txg: U64(pool.uberblock().txg),
            hostid: pool.candidate().hostid,
            readonly: imported.spa.is_none(),
            failmode: failmode(pool).into(),
            disabled_features: features.disabled().into_iter().map(str::to_owned).collect(),
            unsupported_features: features
                .unknown_for_write
                .iter()
                .map(|f| format!("{} ({})", f.guid, f.description))
                .collect(),
            errata: errata(pool),
            properties,
            tree: args.tree.then(|| import::tree(pool)),
            scan: args
                .tree
                .then(|| imported.spa.as_ref().map_or_else(|| scan(pool), |spa| live_scan(pool, spa)))
                .flatten(),
            removal: args.tree.then(|| removal(pool)).flatten(),
            expand: args.tree.then(|| expand(pool)).flatten(),
            checkpoint: args.tree.then(|| checkpoint(pool)).flatten(),
            error_count: or_log(pool, pool.data_error_count()).unwrap_or(0),
            errors,
            dedup: args.dedup.then(|| dedup(pool)).flatten(),
        }
    }

    fn errors(&self, pool: &Pool) -> Vec<ErrorEntry> {
        let found = or_log(pool, pool.data_errors()).unwrap_or_default();
        let entry = |e: zfs_spa::errlog::DataError| {
            let mounted = e.dataset.as_ref().and_then(|d| self.mounts.of(d));
            ErrorEntry {
                objset: U64(e.objset),
                object: U64(e.object),
                dataset: e.dataset,
                path: e.path,
                mountpoint: mounted.map(|m| m.at.to_string_lossy().into_owned()),
            }
        };
        found.into_iter().map(entry).collect()
    }
}

/// What the pool does when too many devices fail.
fn failmode(pool: &Pool) -> &'static str {
    pool.zio().fail_mode().map_or("wait", FailMode::name)
}

/// The known erratum of a pool's contents, 0 if none (`zpool_errata_t`, `sys/fs/zfs.h`): encryption came before
/// bookmarks could name the IV sets of snapshots.
pub(super) fn errata(pool: &Pool) -> u64 {
    let on = |f: Feature| pool.features().is_enabled(f);
    if on(Feature::Encryption) && !on(Feature::BookmarkV2) { 4 } else { 0 }
}

fn or_log<T>(pool: &Pool, result: zfs_spa::Result<T>) -> Option<T> {
    result.inspect_err(|e| tracing::error!("{}: {e}", pool.name())).ok()
}

fn pool_properties(pool: &Pool, wanted: Option<&[String]>) -> BTreeMap<String, Property> {
    let all = or_log(pool, pool.pool_properties()).unwrap_or_default();
    let chosen = all.iter().filter(|(name, _)| wanted.is_none_or(|w| w.contains(name)));
    chosen.map(|(name, p)| (name.clone(), datasets::property(p))).collect()
}

fn function(of: u64) -> ScanFunction {
    match of {
        1 => ScanFunction::Scrub,
        2 => ScanFunction::Resilver,
        3 => ScanFunction::ErrorScrub,
        _ => ScanFunction::None,
    }
}

fn state(of: u64) -> ScanState {
    match of {
        1 => ScanState::Scanning,
        2 => ScanState::Finished,
        3 => ScanState::Canceled,
        4 => ScanState::ErrorScrubbing,
        _ => ScanState::None,
    }
}

fn scan(pool: &Pool) -> Option<ScanStats> {
    let status = or_log(pool, pool.scan_status())??;
    let (s, e) = (&status.scan, &status.error_scrub);
    Some(ScanStats {
        function: function(s.func),
        state: state(s.state),
        start_time: s.start_time,
        end_time: s.end_time,
        to_examine: s.to_examine,
        examined: s.examined,
        skipped: s.skipped,
        processed: s.processed,
        errors: s.errors,
        // Nothing scans while a pool is read-only, so a pass has examined nothing yet.
        pass_exam: 0,
        pass_start: pool.imported_at().as_secs(),
        pass_scrub_pause: if s.flags & 2 != 0 { pool.imported_at().as_secs() } else { 0 },
        pass_scrub_spent_paused: 0,
        pass_issued: 0,
        issued: s.examined.saturating_sub(s.skipped),
        error_scrub_function: function(e.func),
        error_scrub_state: state(e.state),
        error_scrub_start: e.start_time,
        error_scrub_end: e.end_time,
        error_scrub_examined: e.examined,
        error_scrub_to_be_examined: e.to_examine,
        pass_error_scrub_pause: e.paused_flags,
    })
}

/// The scan of a pool that is written, with the counts of now.
fn live_scan(pool: &Pool, spa: &zfs_spa::Spa) -> Option<ScanStats> {
    let now = spa.scan_progress()?;
    let mut shown = scan(pool)?;
    let s = &now.phys;
    (shown.function, shown.state) = (function(s.func), state(s.state));
    (shown.start_time, shown.end_time) = (s.start_time, s.end_time);
    (shown.to_examine, shown.examined, shown.skipped) = (s.to_examine, s.examined, s.skipped);
    (shown.processed, shown.errors) = (s.processed, s.errors);
    (shown.pass_exam, shown.pass_issued, shown.issued) = (now.pass_examined, now.pass_examined, s.examined);
    (shown.pass_start, shown.pass_scrub_pause) = (now.pass_start, now.paused_at);
    Some(shown)
}

fn removal(pool: &Pool) -> Option<RemovalStats> {
    let r = or_log(pool, pool.removal_status())??;
    Some(RemovalStats {
        state: state(r.phys.state),
        removing_vdev: r.phys.removing_vdev,
        start_time: r.phys.start_time,
        end_time: r.phys.end_time,
        to_copy: r.phys.to_copy,
        copied: r.phys.copied,
        mapping_memory: r.mapping_memory,
    })
}

fn expand(pool: &Pool) -> Option<ExpandStats> {
    let e = or_log(pool, pool.expand_status())??;
    Some(ExpandStats {
        state: state(e.state),
        expanding_vdev: e.vdev,
        start_time: e.start_time,
        end_time: e.end_time,
        to_reflow: e.to_reflow,
        reflowed: e.reflowed,
        waiting_for_resilver: false,
    })
}

fn checkpoint(pool: &Pool) -> Option<CheckpointStats> {
    let c = or_log(pool, pool.checkpoint_status())??;
    let state = if c.discarding { CheckpointState::Discarding } else { CheckpointState::Exists };
    Some(CheckpointStats { state, start_time: c.start_time, space: c.space })
}

fn dedup(pool: &Pool) -> Option<DedupStats> {
    let d = or_log(pool, pool.dedup())?;
    let bucket = |s: &zfs_phys::ddt::DdtStat| DedupBucket {
        blocks: s.blocks,
        lsize: s.lsize,
        psize: s.psize,
        dsize: s.dsize,
        ref_blocks: s.ref_blocks,
        ref_lsize: s.ref_lsize,
        ref_psize: s.ref_psize,
        ref_dsize: s.ref_dsize,
    };
    Some(DedupStats {
        entries: d.entries,
        disk_size: d.disk_size,
        core_size: d.core_size,
        cached_size: 0,
        histogram: d.histogram.iter().map(bucket).collect(),
    })
}
