//! Finding, importing and exporting pools.

use super::{Engine, Imported, failure, vdevs};
use std::path::PathBuf;
use std::sync::Arc;
use uzfs_proto::{
    DiscoverPoolsArgs, DiscoverPoolsReply, Empty, ExportPoolArgs, Failure, FailureCode, ImportPoolArgs,
    ImportPoolReply, ImportablePool, MultihostState, PoolState, RewindInfo, Search, U64, VdevAux, VdevNode, VdevState,
};
use zfs_spa::space::AllocClass;
use zfs_spa::{Dataset, ImportOptions, ImportProblem, Pool, PoolCandidate, Rewind, Spa};

/// A loaded pool, what writes it if it is open for that, and warnings.
type Opened = (Arc<Pool>, Option<Arc<Spa>>, Vec<String>);

fn search(wanted: &Search) -> zfs_spa::Search {
    match (&wanted.cachefile, wanted.paths.is_empty(), wanted.scan) {
        (Some(file), _, false) => zfs_spa::Search::Cachefile(PathBuf::from(file)),
        (Some(file), _, true) => zfs_spa::Search::CachefileDirectories(PathBuf::from(file)),
        (None, false, _) => zfs_spa::Search::Paths(wanted.paths.iter().map(PathBuf::from).collect()),
        (None, true, true) => zfs_spa::Search::DeviceDirectories,
        (None, true, false) => zfs_spa::Search::System,
    }
}

fn pool_state(state: u64) -> PoolState {
    match state {
        0 => PoolState::Active,
        1 => PoolState::Exported,
        2 => PoolState::Destroyed,
        3 => PoolState::Spare,
        4 => PoolState::L2cache,
        _ => PoolState::Unavail,
    }
}

/// The whole tree of an imported pool, spares and cache devices included.
pub fn tree(pool: &Arc<Pool>) -> VdevNode {
    let mut root = vdevs::live(pool.zio().vdevs().root(), 0);
    match pool.vdev_space() {
        Ok(space) => vdevs::add_space(&mut root, &space),
        Err(e) => tracing::error!("reading the space of {}: {e}", pool.name()),
    }
    if let Ok(space) = pool.space() {
        // What a top-level vdev is reserved for is in a table of its own, not in the configuration.
        for (top, node) in space.tops.iter().zip(&mut root.children) {
            node.alloc_bias = match top.class {
                AllocClass::Normal => None,
                AllocClass::Log => Some("log".into()),
                AllocClass::Special => Some("special".into()),
                AllocClass::Dedup => Some("dedup".into()),
            };
        }
    }
    let size = |guid: u64| {
        let found = pool.candidate().auxiliary.get(&guid).or_else(|| pool.candidate().devices.get(&guid));
        found.map(|d| d.device.size())
    };
    // Those that were added since the import were not found by it.
    let added = |guid: u64| {
        let config = pool.spares().iter().chain(pool.l2cache()).find(|c| c.u64("guid") == Some(guid))?;
        let device = zfs_env::FileDevice::open_read_only(config.str("path")?).ok()?;
        Some(zfs_env::BlockDevice::size(&device))
    };
    let size = |guid: u64| size(guid).or_else(|| added(guid).filter(|_| pool.zio().is_writable()));
    root.spares = pool.spares().iter().map(|c| vdevs::spare(c, &root, &size)).collect();
    root.l2cache = pool.l2cache().iter().map(|c| vdevs::cache(c, &size)).collect();
    root
}

/// The tree of a pool that cannot be loaded, with why.
fn unloadable_tree(candidate: &PoolCandidate) -> VdevNode {
    let mut node = match zfs_spa::locate::examine(candidate) {
        Some(devices) => {
            let mut node = vdevs::live(devices.root(), 0);
            node.aux = vdevs::aux(devices.trouble());
            node
        }
        None => {
            let mut node = VdevNode::new("root", 0, candidate.guid);
            node.aux = VdevAux::CorruptData;
            node
        }
    };
    node.state = VdevState::CantOpen;
    vdevs::show_places(&mut node);
    node
}

impl Engine {
    fn import_options(&self) -> ImportOptions {
        ImportOptions::new(self.arc.clone(), Some(self.tasks.clone()))
    }

    pub(super) fn find(&self, wanted: &Search) -> Result<Vec<PoolCandidate>, Failure> {
        let found = zfs_spa::discover(&search(wanted)).map_err(|e| failure::engine(&e))?;
        for (path, why) in &found.failures {
            tracing::info!("{}: {why}", path.display());
        }
        Ok(found.pools)
    }

    /// An importable pool in full: its devices' states come from trying to load it.
    fn importable(&self, candidate: &PoolCandidate) -> ImportablePool {
        let options =
            ImportOptions { skip_host_checks: true, allow_missing_logs: true, force: true, ..self.import_options() };
        let mut pool = ImportablePool {
            name: candidate.name.clone(),
            guid: U64(candidate.guid),
            state: pool_state(candidate.state),
            version: candidate.version,
            txg: candidate.txg,
            hostid: candidate.hostid,
            hostname: candidate.hostname.clone(),
            timestamp: candidate.best_uberblock().map_or(0, |u| u.timestamp),
            comment: candidate.comment.clone(),
            compatibility: candidate.compatibility.clone(),
            unsupported_features: Vec::new(),
            can_readonly: false,
            disabled_features: Vec::new(),
            multihost: MultihostState::Inactive,
            multihost_hostid: 0,
            multihost_hostname: None,
            errata: 0,
            tree: VdevNode::new("root", 0, candidate.guid),
        };
        match zfs_spa::import(candidate, &options) {
            Ok(loaded) => {
                pool.tree = tree(&loaded);
                vdevs::show_places(&mut pool.tree);
                pool.errata = super::pools::errata(&loaded);
                pool.disabled_features = loaded.features().disabled().into_iter().map(str::to_owned).collect();
            }
            Err(e) => {
                let details = failure::import(&candidate.name, &e).details;
                pool.tree = unloadable_tree(candidate);
                match &e.problem {
                    ImportProblem::UnknownFeatures { can_readonly, .. } => {
                        pool.unsupported_features = details;
                        pool.can_readonly = *can_readonly;
                        pool.tree.aux = VdevAux::UnsupFeat;
                    }
                    ImportProblem::Version(_) => pool.tree.aux = VdevAux::VersionNewer,
                    _ => {}
                }
            }
        }
        pool
    }

    pub(super) fn discover(&self, args: &DiscoverPoolsArgs) -> Result<DiscoverPoolsReply, Failure> {
        let mut found = self.find(&args.search)?;
        let imported: Vec<u64> = self.pools.read().values().map(|p| p.pool.guid()).collect();
        found.retain(|c| !imported.contains(&c.guid));
        found.retain(|c| args.name.as_ref().is_none_or(|n| *n == c.name));
        found.retain(|c| args.guid.is_none_or(|g| g.0 == c.guid));
        found.sort_by(|a, b| (&a.name, a.guid).cmp(&(&b.name, b.guid)));
        Ok(DiscoverPoolsReply { pools: found.iter().map(|c| self.importable(c)).collect() })
    }

    pub(super) fn import(&self, args: &ImportPoolArgs) -> Result<ImportPoolReply, Failure> {
        let readonly = match args.properties.get("readonly").map(String::as_str) {
            None => None,
            Some("on") => Some(true),
            Some("off") => Some(false),
            Some(other) => {
                let text = format!("readonly must be 'on' or 'off', not '{other}'");
                return Err(Failure::new(FailureCode::InvalidProperty, text));
            }
        };
        let unknown = args.properties.keys().find(|k| !matches!(k.as_str(), "readonly" | "altroot" | "cachefile"));
        if let Some(name) = unknown {
            let text = format!("'{name}' cannot be set: pools are opened read-only");
            return Err(Failure::new(FailureCode::ReadOnly, text));
        }
        let candidates = self.find(&args.search)?;
        let no_such = || failure::no_pool(&args.guid.0.to_string());
        let candidate = candidates.into_iter().find(|c| c.guid == args.guid.0).ok_or_else(no_such)?;
        if candidate.state == 2 && !args.destroyed {
            return Err(no_such());
        }
        let name = args.new_name.clone().unwrap_or_else(|| candidate.name.clone());
        // One import at a time, so that two of the same pool cannot pass the check below together.
        let _one = self.importing.lock();
        let taken = self
            .pools
            .read()
            .values()
            .any(|p| *p.pool.name() == name.as_str().into() || p.pool.guid() == candidate.guid);
        if taken {
            let text = "a pool with that name is already created/imported";
            return Err(Failure::new(FailureCode::PoolExists, text).about(name));
        }
        let options = ImportOptions {
            name: Some(name.clone()),
            temporary_name: args.temporary_name,
            altroot: args.altroot.clone().or_else(|| args.properties.get("altroot").cloned()),
            force: args.force || args.destroyed,
            for_write: readonly != Some(true) && !args.rewind.dry_run,
            allow_missing_logs: args.missing_log,
            rewind: match &args.rewind {
                r if r.checkpoint => Rewind::Checkpoint,
                uzfs_proto::Rewind { txg: Some(txg), .. } => Rewind::To(*txg),
                r if r.extreme => Rewind::Extreme,
                r if r.recover => Rewind::Recover,
                _ => Rewind::None,
            },
            ..self.import_options()
        };
        let (newest_txg, newest) = candidate.best_uberblock().map_or((0, 0), |u| (u.txg, u.timestamp));
        let (pool, spa, warnings) = self.open_pool(&name, &candidate, options, readonly.is_none())?;
        let timestamp = pool.uberblock().timestamp;
        let rewound = pool.uberblock().txg < newest_txg;
        // Going back to the checkpoint is what was asked for, and nothing to be told.
        let told = !args.rewind.checkpoint && rewound;
        let rewind = told.then(|| RewindInfo {
            timestamp,
            lost_seconds: i64::try_from(newest.saturating_sub(timestamp)).unwrap_or(i64::MAX),
            data_errors: 0,
            metadata_errors: 0,
        });
        if !args.rewind.dry_run {
            self.pools.write().insert(name.clone(), Arc::new(Imported::new(pool.clone(), spa)));
            let cachefile = args.cachefile.clone().or_else(|| args.properties.get("cachefile").cloned());
            self.set_cachefile(&self.pool(&name)?, cachefile);
            self.events.pool(&pool, "sysevent.fs.zfs.pool_import");
        }
        Ok(ImportPoolReply { name, rewind, warnings })
    }

    /// Loads a pool, for writing if `options` say so. One that cannot be written yet is loaded for reading where the
    /// caller did not insist (`may_read`), with a warning that says what stands in the way.
    fn open_pool(
        &self,
        name: &str,
        candidate: &PoolCandidate,
        mut options: ImportOptions,
        may_read: bool,
    ) -> Result<Opened, Failure> {
        let load = |options: &ImportOptions| zfs_spa::import(candidate, options).map_err(|e| failure::import(name, &e));
        let pool = load(&options)?;
        if !options.for_write {
            return Ok((pool, None, Vec::new()));
        }
        match open_spa(&pool) {
            Ok(spa) => {
                replay_volumes(&spa, &pool)?;
                self.attend(&spa, &pool).map_err(|e| failure::engine(&e).about(name))?;
                Ok((pool, Some(spa), Vec::new()))
            }
            // Nothing was written: this is found out before the first transaction group.
            Err(e) if may_read && e.kind() == zfs_spa::ErrorKind::Unsupported => {
                drop(pool);
                options.for_write = false;
                Ok((load(&options)?, None, vec![format!("'{name}' is imported read-only: {e}")]))
            }
            Err(e) => Err(failure::engine(&e).about(name)),
        }
    }

    pub(super) fn open_for_writing(&self, name: &str, pool: &Arc<Pool>) -> Result<Arc<Spa>, Failure> {
        let spa = open_spa(pool).map_err(|e| failure::engine(&e).about(name))?;
        replay_volumes(&spa, pool)?;
        self.attend(&spa, pool).map_err(|e| failure::engine(&e).about(name))?;
        Ok(spa)
    }

    /// From now on the pool's devices are waited for, and what happens to it is told.
    fn attend(&self, spa: &Arc<Spa>, pool: &Arc<Pool>) -> zfs_spa::Result<()> {
        spa.follow_failmode()?;
        let (events, name, guid) = (self.events.clone(), pool.name().to_string(), pool.guid());
        spa.listen(move |event| events.told(&name, guid, event));
        Ok(())
    }

    pub(super) fn export(&self, args: &ExportPoolArgs) -> Result<Empty, Failure> {
        let imported = self.pool(&args.pool)?;
        // Whoever waits for its devices would never let go of the mounts.
        imported.give_up();
        self.mounts.remove_all(args.force, |m| pool_of(&m.dataset) == args.pool)?;
        self.withdraw(args.force, |dataset| pool_of(dataset) == args.pool)?;
        self.pools.write().remove(&args.pool);
        imported.cachefile().into_iter().for_each(|f| self.write_cachefile(&f));
        imported.close()?;
        self.events.pool(&imported.pool, "sysevent.fs.zfs.pool_export");
        Ok(Empty {})
    }
}

fn open_spa(pool: &Arc<Pool>) -> zfs_spa::Result<Arc<Spa>> {
    Spa::open(pool, zfs_env::host::hostid(), Arc::new(zfs_env::SystemClock))
}

/// Nobody mounts a volume before using it, so logs of volumes are replayed when their pool is opened.
fn replay_volumes(spa: &Arc<Spa>, pool: &Arc<Pool>) -> Result<(), Failure> {
    let name = pool.name().to_string();
    for dataset in pool.dsl().and_then(|dsl| dsl.filesystems()).map_err(|e| failure::engine(&e).about(name))? {
        replay_volume(spa, &dataset).map_err(|e| failure::engine(&e).about(dataset.name.clone()))?;
    }
    Ok(())
}

/// Replays the intent log of a volume, if it has one that an import claimed.
fn replay_volume(spa: &Arc<Spa>, dataset: &Dataset) -> zfs_spa::Result<()> {
    if dataset.is_encrypted()? || dataset.objset_type()? != zfs_phys::enums::ObjsetType::Zvol {
        return Ok(());
    }
    if dataset.open_without_key()?.phys().zil_header.log.is_hole() {
        return Ok(());
    }
    let objset = spa.dsl().open_objset(&spa.dsl().dataset(dataset.object)?)?;
    let records = zfs_zvol::replay(&objset, spa.txgs(), zfs_zpl::write::log_guid()?)?;
    tracing::info!(dataset = dataset.name, records, "intent log of a volume replayed");
    Ok(())
}

/// Name of the pool that a dataset belongs to.
pub fn pool_of(dataset: &str) -> &str {
    dataset.split(['/', '@', '#']).next().unwrap_or(dataset)
}
