//! Finds and opens the pool to examine, without a daemon and without asking whether another host uses it.

use crate::opts::Opts;
use crate::recording;
use crate::tunable::Tunables;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zfs_phys::{NvList, NvValue};
use zfs_spa::{ImportOptions, Pool, PoolCandidate, Rewind, Search, discover, import};
use zfs_zio::ArcCache;

/// Policies for going back to an older state (`ZPOOL_*_REWIND`).
const NEVER: u32 = 2;
const DO_REWIND: u32 = 8;
const EXTREME: u32 = 16;
const CACHEFILE: &str = "/etc/zfs/zpool.cache";

/// A failure to open: the sentence to print behind `zdb: can't open 'NAME': `.
pub struct Failed(pub String);

fn search(opts: &Opts) -> Search {
    if opts.has('e') {
        return match opts.paths.as_slice() {
            [] => Search::System,
            paths => Search::Paths(paths.iter().map(PathBuf::from).collect()),
        };
    }
    let env = std::env::var("SPA_CONFIG_PATH").ok();
    let path = opts.cachefile.clone().or(env).unwrap_or_else(|| CACHEFILE.to_owned());
    Search::Cachefile(path.into())
}

/// The pool called `name`, or with that guid.
pub fn candidate(opts: &Opts, name: &str) -> Result<PoolCandidate, Failed> {
    let found = discover(&search(opts)).map_err(|_| Failed("No such file or directory".into()))?;
    let guid: Option<u64> = name.parse().ok();
    let fits = |c: &PoolCandidate| c.name == name || Some(c.guid) == guid;
    let best = found.pools.into_iter().filter(fits).max_by_key(|c| c.txg);
    best.ok_or_else(|| Failed("No such file or directory".into()))
}

/// What an import would begin with: the pool's figures out of the newest label, and the tree of all its devices where
/// they were found.
pub fn import_config(opts: &Opts, found: &PoolCandidate) -> NvList {
    let mut out = NvList::new();
    for name in [
        "vdev_children",
        "hole_array",
        "version",
        "pool_guid",
        "name",
        "comment",
        "compatibility",
        "state",
        "hostid",
        "hostname",
    ] {
        if let Some(value) = found.label.get(name) {
            out.set(name, value.clone());
        }
    }
    out.set("vdev_tree", NvValue::NvList(found.tree.clone()));
    let mut policy = NvList::new();
    policy.set("load-request-txg", NvValue::Uint64(opts.txg.unwrap_or(u64::MAX)));
    let rewind = match (opts.has('F') || opts.has('X'), opts.has('X')) {
        (false, _) => NEVER,
        (true, false) => DO_REWIND,
        (true, true) => DO_REWIND | EXTREME,
    };
    policy.set("load-rewind-policy", NvValue::Uint32(rewind));
    out.set("load-policy", NvValue::NvList(policy));
    out
}

/// Opens it.
pub fn pool(opts: &Opts, tunables: &Tunables, name: &str) -> Result<Arc<Pool>, Failed> {
    let mut candidate = candidate(opts, name)?;
    if let Some(dir) = &opts.copies {
        recording::record(&mut candidate, Path::new(dir)).map_err(|e| Failed(format!("{dir}: {e}")))?;
    }
    tracing::info!(pool = candidate.name, txg = candidate.txg, devices = candidate.devices.len(), "opening");
    let rewind = match opts.txg {
        _ if opts.has('k') => Rewind::Checkpoint,
        Some(txg) => Rewind::To(txg),
        None if opts.has('X') => Rewind::Extreme,
        None if opts.has('F') => Rewind::Recover,
        None => Rewind::None,
    };
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(tunables.arc)), None);
    options.force = true;
    options.allow_missing_logs = true;
    options.skip_host_checks = true;
    options.rewind = rewind;
    let pool = import(&candidate, &options).map_err(|e| Failed(e.to_string()))?;
    tracing::info!(pool = candidate.name, txg = pool.uberblock().txg, "opened");
    Ok(pool)
}
