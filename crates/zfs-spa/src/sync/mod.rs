//! A pool that is written: txgs, the tasks that change it, and the sync that brings each txg to disk.
//!
//! Life cycle: [`Spa::open`] takes a pool imported for writing, makes its meta object set live and starts the sync
//! thread; [`Spa::sync_task`] runs changes in the context of one txg's sync and returns when they are on disk;
//! [`Spa::close`] brings everything to disk, marks the pool exported and ends the thread.
//!
//! A sync makes passes until nothing changes any more: object sets of datasets and tasks in the first, then the meta
//! object set, whose blocks move as they are written, so that space maps change, which are blocks of the meta object
//! set. It ends because from the second pass on frees are put off ([`ops`]) and blocks of the same txg are written
//! over in place, and from the eighth on nothing is compressed. Then: flush, labels if the configuration changed,
//! uberblock, flush.
//!
//! Devices that fail beyond redundancy are waited for, where the pool is to ([`suspend`]). Any other error in a sync stops
//! the pool: nothing reachable from the last uberblock was overwritten, so what is on disk is the txg before, whole.
//!
//! Lock order: `changing`, then `dtls`, then `config`; `tasks`, `scan`, `config` and `view` are leaves. Tasks run on the sync thread with no lock held.

mod aside;
mod attach;
mod background;
mod config;
pub mod create;
mod devices;
mod dtl;
mod errors;
mod events;
mod guard;
mod history;
mod logmaps;
mod metaslabs;
mod ops;
mod plan;
mod props;
mod scan;
mod suspend;
mod watch;

pub use events::{EventWord, PoolEvent};
pub(crate) use metaslabs::Metaslabs;
pub(crate) use ops::Ops;
pub use props::PoolValue;
pub use scan::{ScanProgress, ScanRequest};
pub use suspend::Reopen;
pub use watch::Watch;

use crate::config::POOL_DIRECTORY;
use crate::dslw::{DslPool, PoolOps};
use crate::labels::state;
use crate::pool::Pool;
use config::PoolConfig;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use zfs_dmu::txg::{Tx, Txgs};
use zfs_dmu::{Error, ErrorKind, Objset, Result, Zap};
use zfs_env::{Clock, JoinHandle};
use zfs_phys::feature::Feature;
use zfs_phys::uberblock::{MMP_MAGIC, Uberblock};
use zfs_zio::write::WriteConfig;
use zfs_zio::{VdevAux, VdevState, Zio};

/// Passes after which a sync that does not settle is taken for broken.
const MAX_PASSES: u32 = 64;
/// Share of the cache's budget that changes waiting to be written may take, and bounds of it in bytes.
const DIRTY_SHARE: u64 = 4;
const DIRTY_LEAST: u64 = 16 << 20;
const DIRTY_MOST: u64 = 256 << 20;
/// Version written into uberblocks as that of the software.
const SOFTWARE_VERSION: u64 = 5000;

/// What a task of a sync works with.
pub struct SyncCtx<'a> {
    /// The transaction of the txg being synced.
    pub tx: &'a Tx,
    /// The pool.
    pub spa: &'a Spa,
}

impl SyncCtx<'_> {
    /// The dataset layer.
    pub fn dsl(&self) -> &Arc<DslPool> {
        &self.spa.dsl
    }

    /// The meta object set.
    pub fn mos(&self) -> &Arc<Objset> {
        &self.spa.mos
    }

    /// Appends a command of user `uid` to the history, as `zpool history` shows it.
    ///
    /// # Errors
    /// Whatever writing it meets.
    pub fn log_command(&self, command: &str, uid: u32) -> Result<()> {
        let mut record = zfs_phys::NvList::new();
        record.put("history command", command).put("history who", u64::from(uid));
        self.spa.ops.append_history(self.tx, record)
    }

    /// Appends an internal event to the history.
    ///
    /// # Errors
    /// Whatever writing it meets.
    pub fn log(&self, event: &str, text: &str) -> Result<()> {
        PoolOps::log(&*self.spa.ops, self.tx, event, None, text)
    }
}

type Task = Box<dyn FnOnce(&SyncCtx<'_>) -> Result<()> + Send>;

/// A pool that is written.
pub struct Spa {
    zio: Arc<Zio>,
    mos: Arc<Objset>,
    dsl: Arc<DslPool>,
    ops: Arc<Ops>,
    metaslabs: Arc<Metaslabs>,
    txgs: Arc<Txgs>,
    tasks: Mutex<BTreeMap<u64, Vec<Task>>>,
    config: Mutex<PoolConfig>,
    /// Dirty time logs as they are stored.
    dtls: Mutex<HashMap<u64, dtl::Stored>>,
    /// The labels are to be written with the txg that is being synced.
    labels_now: AtomicBool,
    /// The txg being synced is to leave as little as possible in log space maps.
    flush_all: AtomicBool,
    /// Who is told what happens.
    telling: events::Telling,
    /// Failing devices are waited for as property `failmode` says.
    follows_failmode: AtomicBool,
    /// Held by whoever changes devices or scans.
    changing: Mutex<()>,
    /// Spares that were put beside devices that lack nothing: they stay until such a device was away.
    kept: Mutex<std::collections::HashSet<u64>>,
    scan: Mutex<scan::Scan>,
    /// Number of the root vdev, when it is another than at import.
    root_guid: Mutex<Option<u64>>,
    /// The root of the newest txg on disk.
    uberblock: Mutex<Uberblock>,
    /// The pool as it was imported; what is read of it stays readable only as long as nothing of it is freed.
    imported: Option<Arc<Pool>>,
    /// A view of the pool as of some txg.
    view: Mutex<Option<(u64, Arc<Pool>)>>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
    /// Condenses livelists.
    condensing: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Spa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spa({}, txg {})", self.zio.pool_name(), self.txgs.synced_txg())
    }
}

/// Makes the zio of an imported pool writable and its meta object set live.
struct Opened {
    mos: Arc<Objset>,
    ops: Arc<Ops>,
    metaslabs: Arc<Metaslabs>,
}

impl Spa {
    /// Makes a pool that was imported for writing writable: its labels say at once that it is in use.
    ///
    /// # Errors
    /// `Unsupported`, naming the reason, for pools with something in use that cannot be kept consistent yet; whatever
    /// reading space maps or writing the first txg meets.
    pub fn open(pool: &Arc<Pool>, hostid: u32, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        guard::check(pool)?;
        let config = PoolConfig::of(pool.config(), pool.stored_name(), hostid, pool.zio().vdevs())?;
        let opened = Self::open_parts(pool, clock)?;
        let dsl = DslPool::open(&opened.mos, opened.ops.clone())?;
        let logs = with_logs(pool)?;
        let spa = Self::start(pool, opened, dsl, config)?;
        // Nothing is allocated before this, so the blocks of logs are still where they were written.
        spa.sync_task("import", move |ctx| {
            for object in logs {
                ctx.dsl().claim_log(ctx.tx, &ctx.dsl().dataset(object)?)?;
            }
            ctx.log("import", &history::versions(ctx.spa.uberblock().version))
        })?;
        spa.load_scan()?;
        Ok(spa)
    }

    fn open_parts(pool: &Arc<Pool>, clock: Arc<dyn Clock>) -> Result<Opened> {
        let zio = pool.zio();
        let metaslabs = Metaslabs::new();
        let seeds = metaslabs.load(pool)?;
        let ops = Ops::new(zio, pool.features(), clock)?;
        let hole_birth = ops.feature_active(Feature::HoleBirth);
        zio.enable_writes(seeds, metaslabs.loader(), WriteConfig { hole_birth, ..WriteConfig::default() })?;
        let owner = Arc::new(ops::MosOwner(ops.clone()));
        let mos = Objset::open_writable(zio, &pool.uberblock().rootbp, 0, None, owner)?;
        let list = Zap::open(&mos, POOL_DIRECTORY)?.lookup_u64(b"sync_bplist")?;
        ops.set_mos(&mos, list.ok_or_else(|| Error::corrupt("a pool without a list of deferred frees"))?);
        metaslabs.set_mos(&mos);
        aside::load_checkpoint(pool, &ops)?;
        Ok(Opened { mos, ops, metaslabs })
    }

    fn start(pool: &Arc<Pool>, opened: Opened, dsl: Arc<DslPool>, config: PoolConfig) -> Result<Arc<Self>> {
        let spa = Self::assemble(pool.zio(), opened, dsl, config, *pool.uberblock(), Some(pool.clone()));
        let (me, txgs) = (Arc::downgrade(&spa), spa.txgs.clone());
        let gone = || Error::new(ErrorKind::Stale, "syncing a pool that is closed");
        let run = move || zfs_env::pool::insisting(|| txgs.run(|txg| me.upgrade().ok_or_else(gone)?.sync_txg(txg)));
        *spa.thread.lock() = Some(zfs_env::spawn("txg_sync", run).map_err(Error::from)?);
        Ok(spa)
    }

    fn assemble(
        zio: &Arc<Zio>,
        opened: Opened,
        dsl: Arc<DslPool>,
        config: PoolConfig,
        uberblock: Uberblock,
        imported: Option<Arc<Pool>>,
    ) -> Arc<Self> {
        opened.ops.set_dsl(&dsl);
        // After going back to an older root the numbers go on behind the newest one there is, which would win otherwise.
        let newest = imported.as_ref().and_then(|p| p.candidate().best_uberblock()).map_or(0, |u| u.txg);
        let txgs = Txgs::new(uberblock.txg.max(newest) + 1);
        // Changes are part of what the cache's budget bounds.
        txgs.set_dirty_max((zio.arc().stats().budget / DIRTY_SHARE).clamp(DIRTY_LEAST, DIRTY_MOST));
        Arc::new(Self {
            zio: zio.clone(),
            mos: opened.mos,
            dsl,
            ops: opened.ops,
            metaslabs: opened.metaslabs,
            txgs,
            tasks: Mutex::default(),
            config: Mutex::new(config),
            dtls: Mutex::new(dtl::stored(zio.vdevs())),
            labels_now: AtomicBool::new(false),
            flush_all: AtomicBool::new(false),
            telling: events::Telling::default(),
            follows_failmode: AtomicBool::new(false),
            changing: Mutex::default(),
            kept: Mutex::default(),
            scan: Mutex::default(),
            root_guid: Mutex::default(),
            uberblock: Mutex::new(uberblock),
            imported,
            view: Mutex::default(),
            thread: Mutex::default(),
            condensing: Mutex::default(),
        })
    }

    /// Transaction groups.
    pub fn txgs(&self) -> &Arc<Txgs> {
        &self.txgs
    }

    /// The dataset layer.
    pub fn dsl(&self) -> &Arc<DslPool> {
        &self.dsl
    }

    /// The meta object set, live.
    pub fn mos(&self) -> &Arc<Objset> {
        &self.mos
    }

    /// The way to blocks.
    pub fn zio(&self) -> &Arc<Zio> {
        &self.zio
    }

    /// What the dataset layer asks of the pool.
    pub fn ops(&self) -> Arc<dyn PoolOps> {
        self.ops.clone()
    }

    /// The root of the newest txg on disk.
    pub fn uberblock(&self) -> Uberblock {
        *self.uberblock.lock()
    }

    /// The configuration as a cache file holds it.
    pub fn configuration(&self) -> zfs_phys::NvList {
        let txg = self.uberblock().txg;
        self.config.lock().for_mos(txg, &self.ops.label_features())
    }

    /// The pool for reading, as the newest txg on disk left it. Each txg has a view of its own; an older one stays
    /// usable only until the blocks it knows are used again.
    ///
    /// # Errors
    /// When the pool directory cannot be read.
    pub fn view(&self) -> Result<Arc<Pool>> {
        let ub = self.uberblock();
        let mut view = self.view.lock();
        if let Some((txg, pool)) = &*view
            && *txg == ub.txg
        {
            return Ok(pool.clone());
        }
        let config = self.config.lock().for_mos(ub.txg, &self.ops.label_features());
        let base = self.imported.as_ref().ok_or_else(|| Error::invalid("reading a pool that is being made"))?;
        let pool = base.as_of(&self.mos, &self.metaslabs, ub, config)?;
        *view = Some((ub.txg, pool.clone()));
        Ok(pool)
    }

    /// Runs `task` in the sync of a txg and waits until that is on disk. A task that fails with an error a person can
    /// cause (`NotFound`, `Exists`, `Invalid` and the like) must not have changed anything; any other error stops the
    /// pool.
    ///
    /// # Errors
    /// What the task returned, or why the txg did not reach the disk.
    pub fn sync_task<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl FnOnce(&SyncCtx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.zio.is_suspended() {
            // Tools are told at once, whatever writers do.
            return Err(Error::new(ErrorKind::Suspended, name));
        }
        let (send, receive) = mpsc::channel();
        let tx = self.txgs.assign()?;
        let txg = tx.txg();
        self.add_task(&tx, name, task, move |result| drop(send.send(result)));
        drop(tx);
        let synced = self.txgs.wait_synced(txg);
        match receive.try_recv() {
            Ok(Err(e)) => Err(e),
            Ok(Ok(value)) => synced.map(|()| value),
            Err(_) => Err(synced.err().unwrap_or_else(|| Error::new(ErrorKind::Interrupted, name))),
        }
    }

    /// Has `task` run in the sync of the open txg, like [`Self::sync_task`], and does not wait for that.
    ///
    /// # Errors
    /// When the pool stopped writing.
    pub fn sync_task_later(
        &self,
        name: &'static str,
        task: impl FnOnce(&SyncCtx<'_>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let tx = self.txgs.assign_now()?;
        self.add_task(&tx, name, task, drop);
        Ok(())
    }

    fn add_task<T: Send + 'static>(
        &self,
        tx: &Tx,
        name: &'static str,
        task: impl FnOnce(&SyncCtx<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let run: Task = Box::new(move |ctx| {
            let before = ctx.spa.mos.changes();
            let result = task(ctx);
            let fatal = match &result {
                Err(e) if !is_harmless(e.kind()) => Some(e.clone()),
                // Half of a request must not reach the disk: the last txg is whole.
                Err(e) if ctx.spa.mos.changes() != before => {
                    Some(Error::new(ErrorKind::Bug, "a refused request that changed the pool").because(e.clone()))
                }
                _ => None,
            };
            done(result);
            fatal.map_or(Ok(()), |e| Err(e.context(name)))
        });
        self.tasks.lock().entry(tx.txg()).or_default().push(run);
    }

    /// Has the labels and the configuration object written with the next txg.
    pub fn dirty_config(&self) {
        self.ops.config_dirty.store(true, Relaxed);
    }

    /// Brings everything to disk, marks the pool exported or destroyed, and ends its sync thread, which it does in any
    /// case. Nobody may be writing. A suspended pool is left as it is on disk, and the next import finds it as after a
    /// crash.
    ///
    /// # Errors
    /// When something did not reach the disk, or when a suspended pool should be destroyed.
    pub fn close(&self, destroy: bool) -> Result<()> {
        self.give_up();
        self.end_scans();
        self.end_condensing();
        let last = match self.zio.is_suspended() {
            true if destroy => Err(Error::new(ErrorKind::Io, "destroying a suspended pool")),
            true => Ok(()),
            false => self.write_last(destroy),
        };
        let suspended = self.zio.is_suspended();
        self.txgs.stop();
        let thread = self.thread.lock().take();
        let ended = thread.map_or(Ok(()), |t| t.join().unwrap_or_else(|_| Err(Error::corrupt("the sync thread died"))));
        if !suspended {
            return last.and(ended);
        }
        // What could not be written may be held on to by what refers to it; the devices must be free for others.
        for leaf in self.zio.vdevs().leaves() {
            leaf.close(VdevState::Closed, VdevAux::None);
        }
        last
    }

    /// The last transaction groups, and the labels of a pool that nobody uses any more.
    fn write_last(&self, destroy: bool) -> Result<()> {
        self.dsl.close_logs()?;
        self.txgs.wait_synced(0)?;
        self.config.lock().state = if destroy { state::DESTROYED } else { state::EXPORTED };
        self.dirty_config();
        self.sync_task("export", move |ctx| {
            ctx.spa.flush_all.store(!destroy, Relaxed);
            Ok(())
        })
    }

    /// Brings one txg to disk.
    fn sync_txg(&self, txg: u64) -> Result<()> {
        self.sync_passes(txg).inspect_err(|e| {
            tracing::error!(pool = &**self.zio.pool_name(), txg, error = %e, "sync failed, the pool is suspended");
            self.zio.break_down(e);
        })
    }

    fn sync_passes(&self, txg: u64) -> Result<()> {
        let tx = Tx::syncing(txg);
        let mut write_config = self.ops.config_dirty.swap(false, Relaxed);
        let mut rootbp = self.mos.root_bp();
        let mut pass = 0;
        loop {
            pass += 1;
            if pass > MAX_PASSES {
                return Err(Error::new(ErrorKind::Bug, "a sync that does not settle").txg(txg));
            }
            self.ops.set_pass(pass);
            self.sync_datasets(&tx, pass, write_config)?;
            if let Some(bp) = self.mos.sync(&tx, pass)? {
                rootbp = bp;
            }
            self.ops.defer(&tx)?;
            let deltas = self.zio.take_sync_delta(txg)?;
            self.metaslabs.append(&self.ops, &tx, pass, &deltas)?;
            self.sync_aside(&tx, pass)?;
            if self.sync_dtls(&tx, pass)? {
                write_config = true;
                self.store_config(&tx)?;
            }
            if !self.mos.is_dirty(txg) && !self.dsl.is_dirty(txg) {
                break;
            }
        }
        tracing::debug!(txg, pass, "synced");
        self.commit(txg, rootbp, write_config | self.labels_now.swap(false, Relaxed))?;
        self.zio.metaslab_sync_done(txg)?;
        self.dsl.txg_done(txg);
        self.mos.txg_done(txg);
        self.condense();
        Ok(())
    }

    /// The part of a pass that is above the meta object set.
    fn sync_datasets(&self, tx: &Tx, pass: u32, write_config: bool) -> Result<()> {
        if pass == 1 {
            self.ops.free_deferred(tx)?;
        }
        self.dsl.sync_datasets(tx, pass)?;
        if pass == 1 {
            let tasks = self.tasks.lock().remove(&tx.txg()).unwrap_or_default();
            let ctx = SyncCtx { tx, spa: self };
            tasks.into_iter().try_for_each(|task| task(&ctx))?;
            while self.dsl.is_dirty(tx.txg()) {
                self.dsl.sync_datasets(tx, pass)?;
            }
            self.sync_errors(tx)?;
            self.dsl.condense(tx)?;
            if self.dsl.free_some(tx)? {
                // More waits to be freed, even if nobody writes.
                self.txgs.kick();
            }
            self.dsl.account_mos()?;
            if write_config {
                self.store_config(tx)?;
            }
        }
        self.dsl.flush(tx)?;
        let all = self.flush_all.load(Relaxed);
        if pass == 1 && (all || self.mos.is_dirty(tx.txg())) {
            self.metaslabs.flush(&self.ops, tx, all)?;
        }
        Ok(())
    }

    fn store_config(&self, tx: &Tx) -> Result<()> {
        let config = self.config.lock().clone();
        self.ops.store_config(tx, &config)
    }

    /// Sum of the guids of all vdevs, which says whether all are there.
    fn guid_sum(&self) -> u64 {
        fn sum(vdev: &zfs_zio::Vdev) -> u64 {
            vdev.children.iter().fold(vdev.guid(), |total, child| total.wrapping_add(sum(child)))
        }
        let root = self.zio.vdevs().root();
        let other = self.root_guid.lock().unwrap_or(root.guid());
        sum(root).wrapping_sub(root.guid()).wrapping_add(other)
    }

    /// Makes what was written the pool's state.
    fn commit(&self, txg: u64, rootbp: zfs_phys::BlkPtr, write_config: bool) -> Result<()> {
        let ub = Uberblock {
            endian: zfs_phys::Endian::NATIVE,
            txg,
            guid_sum: self.guid_sum(),
            timestamp: self.ops.seconds(),
            rootbp,
            software_version: SOFTWARE_VERSION,
            mmp_magic: MMP_MAGIC,
            mmp_delay: 0,
            mmp_config: 0,
            checkpoint_txg: 0,
            ..*self.uberblock.lock()
        };
        let config = self.config.lock().clone();
        let features = self.ops.label_features();
        let label = |leaf: &zfs_zio::Vdev| config.for_label(leaf, txg, &features);
        let labels: Option<zfs_zio::vdev::labels::LeafConfig<'_>> = if write_config { Some(&label) } else { None };
        self.zio.commit(&ub, false, labels)?;
        *self.uberblock.lock() = ub;
        self.tell_states();
        if write_config {
            self.tell("sysevent.fs.zfs.config_sync", Vec::new());
        }
        Ok(())
    }
}

/// Datasets whose intent log may have to be replayed.
fn with_logs(pool: &Pool) -> Result<Vec<u64>> {
    let mut out = Vec::new();
    for dataset in pool.dsl()?.filesystems()? {
        let header = dataset.open_without_key()?.phys().zil_header;
        if !header.log.is_hole() && header.claim_txg == 0 {
            out.push(dataset.object);
        }
    }
    Ok(out)
}

/// Whether an error says something about the request rather than about the pool. Tasks check before they change.
fn is_harmless(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    !matches!(
        kind,
        K::Io | K::Suspended | K::Checksum | K::Corrupt | K::Auth | K::NoDevice | K::TooManyMissing | K::Bug
    )
}

impl Drop for Spa {
    fn drop(&mut self) {
        self.dsl.end_condensing();
        self.txgs.stop();
    }
}
