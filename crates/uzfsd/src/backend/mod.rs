//! The engine behind the contract: pools, mounts, keys and events of one daemon.
//!
//! Lock order: `importing`, then `pools`, then the table of mounts. None of them is held while a dataset is read for a
//! mount; pools are shared by `Arc`, so an export waits for nobody and a reader never sees a pool half gone.

mod agents;
mod cachefile;
mod change;
mod contract;
mod datasets;
mod devices;
mod events;
mod failure;
mod files;
mod history;
mod import;
mod keys;
mod mounts;
mod poolprops;
mod pools;
mod poolw;
mod publish;
mod relations;
mod vdevs;
mod watch;

use agents::Agents;
pub use contract::Service;
use events::EventLog;
use mounts::Mounts;
use parking_lot::{Mutex, RwLock};
pub use publish::FrontDoor;
use publish::Published;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uzfs_proto::{Failure, FailureCode};
use zfs_env::TaskPool;
use zfs_spa::{Dataset, Pool, Spa};
use zfs_zio::ArcCache;

/// An imported pool and what the daemon keeps for it.
pub struct Imported {
    /// As it was imported; keeps the keys that are loaded.
    pool: Arc<Pool>,
    /// What writes it, when it was imported for writing.
    spa: Option<Arc<Spa>>,
    /// Property `cachefile`.
    cachefile: Mutex<Option<String>>,
}

impl Imported {
    fn new(pool: Arc<Pool>, spa: Option<Arc<Spa>>) -> Self {
        Self { pool, spa, cachefile: Mutex::default() }
    }

    /// The pool as it is now: of one that is written, as the newest txg on disk left it.
    fn view(&self) -> Arc<Pool> {
        let Some(spa) = &self.spa else { return self.pool.clone() };
        spa.view().unwrap_or_else(|e| {
            tracing::error!("{}: {e}", self.pool.name());
            self.pool.clone()
        })
    }

    /// What writes the pool.
    fn writer(&self) -> Result<&Arc<Spa>, Failure> {
        self.spa.as_ref().ok_or_else(|| Failure::new(FailureCode::ReadOnly, "pool is read-only"))
    }

    /// Tells those who wait for devices of a suspended pool that they failed.
    fn give_up(&self) {
        self.spa.iter().for_each(|spa| spa.give_up());
    }

    /// Ends writing: everything reaches the disk, and the labels say that nobody uses the pool.
    fn close(&self) -> Result<(), Failure> {
        self.spa.as_ref().map_or(Ok(()), |spa| spa.close(false)).map_err(|e| failure::engine(&e))
    }
}

/// How the daemon's engine is set up.
pub struct EngineOptions {
    /// Bytes that cached blocks of all pools may take.
    pub arc_max: u64,
    /// File that lists the mount points, for the next daemon.
    pub mount_record: Option<PathBuf>,
}

/// The engine.
pub struct Engine {
    arc: Arc<ArcCache>,
    tasks: Arc<TaskPool>,
    importing: Mutex<()>,
    pools: RwLock<BTreeMap<String, Arc<Imported>>>,
    mounts: Mounts,
    published: Published,
    agents: Agents,
    events: Arc<EventLog>,
    stop: AtomicBool,
}

impl Engine {
    /// An engine without pools. Fails when no threads can be started.
    pub fn new(options: EngineOptions) -> std::io::Result<Arc<Self>> {
        // Half of them wait for devices when there is much to read.
        let threads = std::thread::available_parallelism().map_or(4, |n| 2 * n.get().max(2));
        let engine = Arc::new(Self {
            arc: Arc::new(ArcCache::new(options.arc_max)),
            tasks: Arc::new(TaskPool::new("zio", threads)?),
            importing: Mutex::new(()),
            pools: RwLock::default(),
            mounts: Mounts::new(options.mount_record),
            published: Published::default(),
            agents: Agents::default(),
            events: Arc::default(),
            stop: AtomicBool::new(false),
        });
        let me = Arc::downgrade(&engine);
        // It ends with the engine, and nobody waits for it.
        drop(zfs_env::spawn("watch", move || watch::run(&me))?);
        Ok(engine)
    }

    /// Asks the daemon to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it was asked to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Unmounts everything and closes all pools.
    pub fn close_all(&self, force: bool) -> Result<(), Failure> {
        self.pools.read().values().for_each(|imported| imported.give_up());
        self.mounts.remove_all(force, |_| true)?;
        self.withdraw(force, |_| true)?;
        let all = std::mem::take(&mut *self.pools.write());
        let mut done = Ok(());
        for imported in all.values() {
            // One that fails must not keep the others from reaching the disk.
            done = done.and(imported.close());
        }
        done
    }

    /// An imported pool by name.
    fn pool(&self, name: &str) -> Result<Arc<Imported>, Failure> {
        self.pools.read().get(name).cloned().ok_or_else(|| failure::no_pool(name))
    }

    /// A file system, volume or snapshot by name, and its pool.
    fn dataset(&self, name: &str) -> Result<(Arc<Imported>, Arc<Dataset>), Failure> {
        let imported = self.pool(import::pool_of(name)).map_err(|_| failure::no_dataset(name))?;
        let dsl = imported.view().dsl().map_err(|e| failure::engine(&e))?;
        let found = dsl.dataset(name).map_err(|e| failure::engine(&e).about(name))?;
        Ok((imported, found.ok_or_else(|| failure::no_dataset(name))?))
    }
}
