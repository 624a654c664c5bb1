//! The dataset layer while a pool is written: who owns which space, and what becomes of a freed block.
//!
//! Life cycle: [`DslPool::open`] takes the meta object set of a pool that is to be written; datasets and directories
//! are loaded when first needed and stay in memory, since their sums change with every block. Once in every pass of a
//! sync [`DslPool::sync`] writes the object sets that are dirty, moves what they freed to deadlists, runs the tasks of
//! the txg (first pass only) and stores the changed sums in the meta object set, which the caller then syncs.
//!
//! Invariants: a directory's `used` is the sum of its breakdown; a dataset's `unique` are the bytes born after its
//! newest snapshot; a block born at or before the newest snapshot is never freed but put on the deadlist. All changes
//! happen in syncing context, by the sync thread and the workers that write blocks for it.
//!
//! Lock order: the maps of the pool, then a dataset, its previous snapshot, then directories from below upwards. No
//! lock is held while blocks are read or written, except the deadlist's, which only the sync thread takes.
//!
//! Rejected: changing the stored form in place with each block. The sums of a busy dataset change many thousand times
//! a second; they are kept decoded and stored once per pass.

mod bookmark;
mod condense;
mod create;
mod crypt;
mod dataset;
mod deadlist;
mod destroy;
mod dir;
mod hold;
mod limits;
mod livelist;
mod log;
mod mosw;
mod names;
mod policy;
mod promote;
mod props;
mod remap;
mod rename;
mod reserve;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;

pub use condense::Condensing;
pub use create::{NewObjset, sums_with};
pub use dataset::DatasetState;
pub use dir::{DirState, UsedBy};
pub use limits::Limit;
pub use policy::mos_write_props;
pub use props::NewValue;
pub use reserve::PoolRoom;

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Objset, Result, Zap};
use zfs_phys::dsl::{DslDatasetPhys, DslDirPhys};
use zfs_phys::feature::{Feature, PER_DATASET};
use zfs_phys::{BlkPtr, Dva};
use zfs_zio::Error;

/// Object of the pool directory.
const POOL_DIRECTORY: u64 = 1;
/// Deepest nesting of datasets followed.
const MAX_DEPTH: usize = 256;

/// What the dataset layer asks of the pool it belongs to, all in syncing context.
pub trait PoolOps: Send + Sync {
    /// Frees a block nothing refers to any more: now, or deferred where the pass of the sync demands it.
    fn free(&self, tx: &Tx, bp: &BlkPtr) -> Result<()>;
    /// Notes that nothing refers to an address on a removed device any more; the block itself may live on elsewhere.
    fn note_obsolete(&self, dva: &Dva) -> Result<()>;
    /// Bytes a block takes of the pool's usable space (`bp_get_dsize_sync`).
    fn dsize(&self, bp: &BlkPtr) -> u64;
    /// Space that datasets share, now.
    fn room(&self) -> PoolRoom {
        PoolRoom::ENDLESS
    }
    /// Whether the pool has devices for metadata and small blocks.
    fn has_special(&self) -> bool;
    /// Whether a feature is enabled.
    fn feature_enabled(&self, feature: Feature) -> bool;
    /// Whether a feature is in use.
    fn feature_active(&self, feature: Feature) -> bool;
    /// Counts one more (or, negative, fewer) uses of a feature.
    fn feature_add(&self, tx: &Tx, feature: Feature, delta: i64) -> Result<()>;
    /// Appends an internal event to the history.
    fn log(&self, tx: &Tx, event: &str, dataset: Option<(&str, u64)>, text: &str) -> Result<()>;
    /// Wall clock, seconds and nanoseconds since 1970.
    fn now(&self) -> (u64, u64);
    /// A random number that is not 0.
    fn guid(&self) -> u64;
}

/// Sums of blocks: on disk, compressed, logical; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Usable space taken.
    pub used: i64,
    /// Compressed size.
    pub comp: i64,
    /// Logical size.
    pub uncomp: i64,
}

impl Sums {
    /// What one block adds.
    fn of(ops: &dyn PoolOps, bp: &BlkPtr) -> Self {
        let comp = bp.psize_on_disk();
        let uncomp = if bp.is_metadata() { comp } else { bp.lsize() };
        Self { used: ops.dsize(bp) as i64, comp: comp as i64, uncomp: uncomp as i64 }
    }

    /// What a dataset references.
    fn referenced(phys: &DslDatasetPhys) -> Self {
        let (used, comp, uncomp) = (phys.referenced_bytes, phys.compressed_bytes, phys.uncompressed_bytes);
        Self { used: used as i64, comp: comp as i64, uncomp: uncomp as i64 }
    }

    fn plus(self, o: Self) -> Self {
        Self { used: self.used + o.used, comp: self.comp + o.comp, uncomp: self.uncomp + o.uncomp }
    }

    fn minus(self) -> Self {
        Self { used: -self.used, comp: -self.comp, uncomp: -self.uncomp }
    }
}

/// Adds a signed amount to an unsigned sum; a sum below zero is broken bookkeeping and stops the pool.
fn add(sum: &mut u64, delta: i64, what: &'static str) -> Result<()> {
    *sum = sum.checked_add_signed(delta).ok_or_else(|| Error::corrupt(what))?;
    Ok(())
}

/// The dataset layer of a writable pool.
pub struct DslPool {
    me: Weak<Self>,
    ops: Arc<dyn PoolOps>,
    mos: Arc<Objset>,
    root_dir: AtomicU64,
    /// Directory that stands for the meta object set's own space.
    mos_dir: Mutex<Option<Arc<DirState>>>,
    /// Directory that stands for space waiting to be freed.
    free_dir: Mutex<Option<Arc<DirState>>>,
    /// List of blocks waiting to be freed.
    free_bpobj: AtomicU64,
    /// Blocks freed in a txg at most.
    max_frees: AtomicU64,
    livelist: livelist::LivelistLimits,
    condense: condense::Condense,
    /// The list without blocks that deadlists share; 0 while there is none.
    empty_bpobj: AtomicU64,
    origin_snap: Mutex<u64>,
    dirs: Mutex<HashMap<u64, Arc<DirState>>>,
    datasets: Mutex<HashMap<u64, Arc<DatasetState>>>,
    /// Datasets whose object sets were dirtied, by txg.
    dirty: Mutex<BTreeMap<u64, BTreeMap<u64, Arc<DatasetState>>>>,
    /// What syncing the meta object set added to its own size; accounted in the next txg.
    mos_delta: Mutex<Sums>,
    /// Space set aside for changes, by dataset and by directory.
    under_way: Mutex<HashMap<u64, reserve::UnderWay>>,
}

impl DslPool {
    /// Loads what is needed to account for space. `directory` is the pool directory.
    ///
    /// # Errors
    /// When the tree of datasets cannot be read or is of a form that is not written.
    pub fn open(mos: &Arc<Objset>, ops: Arc<dyn PoolOps>) -> Result<Arc<Self>> {
        let directory = Zap::open(mos, POOL_DIRECTORY)?;
        let entry = |name: &str| Ok::<_, Error>(directory.lookup_u64(name.as_bytes())?.unwrap_or(0));
        let root_dir = entry("root_dataset")?;
        let pool = Self::new(mos, ops, root_dir, entry("free_bpobj")?, entry("empty_bpobj")?);
        let root = pool.dir(root_dir)?;
        *pool.mos_dir.lock() = pool.child(&root, "$MOS")?;
        *pool.free_dir.lock() = pool.child(&root, "$FREE")?;
        if let Some(origin) = pool.child(&root, "$ORIGIN")? {
            let head = pool.dataset(origin.phys().head_dataset_obj)?;
            *pool.origin_snap.lock() = head.phys().prev_snap_obj;
        }
        Ok(pool)
    }

    fn new(mos: &Arc<Objset>, ops: Arc<dyn PoolOps>, root_dir: u64, free_bpobj: u64, empty_bpobj: u64) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            ops,
            mos: mos.clone(),
            root_dir: AtomicU64::new(root_dir),
            mos_dir: Mutex::default(),
            free_dir: Mutex::default(),
            free_bpobj: AtomicU64::new(free_bpobj),
            max_frees: AtomicU64::new(destroy::FREES_PER_TXG),
            livelist: livelist::LivelistLimits::default(),
            condense: condense::Condense::default(),
            empty_bpobj: AtomicU64::new(empty_bpobj),
            origin_snap: Mutex::default(),
            dirs: Mutex::default(),
            datasets: Mutex::default(),
            dirty: Mutex::default(),
            mos_delta: Mutex::default(),
            under_way: Mutex::default(),
        })
    }

    /// The meta object set.
    pub fn mos(&self) -> &Arc<Objset> {
        &self.mos
    }

    /// The directory in object `object`.
    pub fn dir(&self, object: u64) -> Result<Arc<DirState>> {
        // From the first known directory down: parents are needed before their children.
        let mut chain = Vec::new();
        let mut at = object;
        let mut parent = loop {
            if let Some(known) = self.dirs.lock().get(&at) {
                break Some(known.clone());
            }
            let dnode = self.mos.dnode(at)?;
            let phys = DslDirPhys::decode(&dnode.bonus()?, dnode.phys().endian).map_err(Error::from)?;
            chain.push((at, phys));
            if chain.len() > MAX_DEPTH {
                return Err(Error::corrupt("directories of datasets that hold each other"));
            }
            at = phys.parent_obj;
            if at == 0 {
                break None;
            }
        };
        for (object, phys) in chain.into_iter().rev() {
            let origin_txg = match phys.origin_obj {
                0 => 0,
                origin => self.dataset_phys(origin)?.creation_txg,
            };
            let state = DirState::new(object, parent.take(), dir::DirInner { phys, dirty: false }, origin_txg);
            parent = Some(self.dirs.lock().entry(object).or_insert(state).clone());
        }
        parent.ok_or_else(|| Error::corrupt("a directory of datasets is missing"))
    }

    fn dataset_phys(&self, object: u64) -> Result<DslDatasetPhys> {
        if let Some(known) = self.datasets.lock().get(&object) {
            return Ok(known.phys());
        }
        let dnode = self.mos.dnode(object)?;
        DslDatasetPhys::decode(&dnode.bonus()?, dnode.phys().endian).map_err(Error::from)
    }

    /// The dataset in object `object`.
    pub fn dataset(&self, object: u64) -> Result<Arc<DatasetState>> {
        if let Some(known) = self.datasets.lock().get(&object) {
            return Ok(known.clone());
        }
        let phys = self.dataset_phys(object)?;
        let dir = self.dir(phys.dir_obj)?;
        // A head knows its newest snapshot, which its blocks' deaths change; snapshots are found by number.
        let prev =
            if phys.is_snapshot() || phys.prev_snap_obj == 0 { None } else { Some(self.dataset(phys.prev_snap_obj)?) };
        let policy = policy::load(self, &dir)?;
        let log_policy = log::policy(self, &dir)?;
        let is_head = dir.phys().head_dataset_obj == object;
        let livelist = if is_head { self.load_livelist(&dir)? } else { None };
        let inner = dataset::DsInner {
            phys,
            reserved: if phys.is_snapshot() { 0 } else { self.own_prop(&dir, "refreservation")? },
            quota: if phys.is_snapshot() { 0 } else { self.own_prop(&dir, "refquota")? },
            features: self.features_of(object)?,
            ..Default::default()
        };
        let state = Arc::new(DatasetState {
            object,
            home: Mutex::new(dir),
            inner: Mutex::new(inner),
            deadlist: Mutex::new(deadlist::Deadlist::open(self, phys.deadlist_obj)?),
            pending: Mutex::default(),
            prev: Mutex::new(prev),
            objset: Mutex::default(),
            log_policy: Mutex::new(log_policy),
            policy: Mutex::new(policy),
            marks: Mutex::new(self.load_marks(object, &phys)?),
            livelist: Mutex::new(livelist),
        });
        Ok(self.datasets.lock().entry(object).or_insert(state).clone())
    }

    /// A number that is set on the directory itself; 0 when it is not.
    fn own_prop(&self, dir: &DirState, name: &str) -> Result<u64> {
        match dir.phys().props_zapobj {
            0 => Ok(0),
            zap => Ok(Zap::open(&self.mos, zap)?.lookup_u64(name.as_bytes())?.unwrap_or(0)),
        }
    }

    /// The features a dataset uses. Not every entry that is called like a feature is one: that of bookmarks is their table.
    fn features_of(&self, object: u64) -> Result<BTreeSet<Feature>> {
        let dnode = self.mos.dnode(object)?;
        if !dnode.phys().object_type.is_zap() {
            return Ok(BTreeSet::new());
        }
        let mut out = BTreeSet::new();
        for entry in Zap::open_dnode(&self.mos, dnode)?.iter() {
            let entry = entry?;
            let feature = std::str::from_utf8(entry.name()).ok().and_then(Feature::by_guid);
            out.extend(feature.filter(|f| f.info().flags & PER_DATASET != 0));
        }
        Ok(out)
    }

    fn child(&self, dir: &Arc<DirState>, short: &str) -> Result<Option<Arc<DirState>>> {
        let zap = dir.phys().child_dir_zapobj;
        match Zap::open(&self.mos, zap)?.lookup_u64(short.as_bytes())? {
            Some(object) => {
                let found = self.dir(object)?;
                found.is_called(short);
                Ok(Some(found))
            }
            None => Ok(None),
        }
    }

    /// The directory of that path below the pool's own; `path` has no pool name.
    pub fn find_dir(&self, path: &str) -> Result<Option<Arc<DirState>>> {
        let mut dir = self.dir(self.root_dir.load(Relaxed))?;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            match self.child(&dir, part)? {
                Some(next) => dir = next,
                None => return Ok(None),
            }
        }
        Ok(Some(dir))
    }

    /// The dataset of that name (`a/b` or `a/b@s`, without the pool's name).
    pub fn find(&self, path: &str) -> Result<Option<Arc<DatasetState>>> {
        let (head, snap) = path.split_once('@').map_or((path, None), |(h, s)| (h, Some(s)));
        let Some(dir) = self.find_dir(head)? else { return Ok(None) };
        let head = match dir.phys().head_dataset_obj {
            0 => return Ok(None),
            object => self.dataset(object)?,
        };
        let Some(snap) = snap else { return Ok(Some(head)) };
        match Zap::open(&self.mos, head.phys().snapnames_zapobj)?.lookup_u64(snap.as_bytes())? {
            Some(object) => self.dataset(object).map(Some),
            None => Ok(None),
        }
    }

    /// Tells that the object set of a dataset has something to write in `txg`.
    pub(crate) fn dirtied(&self, dataset: &Arc<DatasetState>, txg: u64) {
        self.dirty.lock().entry(txg).or_default().insert(dataset.object, dataset.clone());
    }

    /// Whether any dataset has something to write in `txg`.
    pub fn is_dirty(&self, txg: u64) -> bool {
        self.dirty.lock().get(&txg).is_some_and(|d| !d.is_empty())
    }

    /// Forgets the changes of a txg that is on disk.
    pub fn txg_done(&self, txg: u64) {
        let all: Vec<_> = self.datasets.lock().values().cloned().collect();
        for objset in all.iter().filter_map(|ds| ds.objset.lock().clone()) {
            objset.txg_done(txg);
        }
        self.settled(txg);
    }

    /// Writes the object sets that are dirty in this txg.
    pub fn sync_datasets(&self, tx: &Tx, pass: u32) -> Result<()> {
        let dirty = self.dirty.lock().remove(&tx.txg()).unwrap_or_default();
        for ds in dirty.values() {
            let objset = ds.objset.lock().clone();
            let Some(objset) = objset else { continue };
            if let Some(root) = objset.sync(tx, pass)? {
                ds.update(|p| p.bp = root);
            }
            ds.sync_done(self, tx)?;
        }
        Ok(())
    }

    /// A block of the meta object set was written.
    pub fn mos_born(&self, bp: &BlkPtr) {
        if !bp.is_hole() {
            let s = Sums::of(&*self.ops, bp);
            let mut delta = self.mos_delta.lock();
            *delta = delta.plus(s);
        }
    }

    /// A block of the meta object set is no longer part of it.
    pub fn mos_kill(&self, tx: &Tx, bp: &BlkPtr) -> Result<u64> {
        if bp.is_hole() {
            return Ok(0);
        }
        let s = Sums::of(&*self.ops, bp);
        self.ops.free(tx, bp)?;
        let mut delta = self.mos_delta.lock();
        *delta = delta.plus(s.minus());
        Ok(s.used as u64)
    }

    /// Accounts for what the meta object set grew by since the last time. Once in a txg, before it is synced.
    ///
    /// What the last txg before an export or a crash added is never accounted for, so that later the meta object set
    /// may seem to give back more than it has: the sum ends at zero then.
    pub fn account_mos(&self) -> Result<()> {
        let delta = std::mem::take(&mut *self.mos_delta.lock());
        let dir = self.mos_dir.lock().clone();
        match dir {
            Some(dir) if delta != Sums::default() => {
                let has = dir.phys();
                let at_most = |delta: i64, has: u64| delta.max(-i64::try_from(has).unwrap_or(i64::MAX));
                let delta = Sums {
                    used: at_most(delta.used, has.used_bytes),
                    comp: at_most(delta.comp, has.compressed_bytes),
                    uncomp: at_most(delta.uncomp, has.uncompressed_bytes),
                };
                dir.diduse(UsedBy::Head, delta)
            }
            _ => Ok(()),
        }
    }

    /// Stores all sums that changed in the meta object set.
    pub fn flush(&self, tx: &Tx) -> Result<()> {
        let mut datasets: Vec<_> = self.datasets.lock().values().cloned().collect();
        // Always in the same order, for simulations.
        datasets.sort_unstable_by_key(|ds| ds.object);
        for ds in datasets {
            ds.flush(self, tx)?;
        }
        let mut dirs: Vec<_> = self.dirs.lock().values().cloned().collect();
        dirs.sort_unstable_by_key(|dir| dir.object);
        dirs.iter().try_for_each(|dir| dir.flush(self, tx))
    }

    fn is_empty_bpobj(&self, list: u64) -> bool {
        list == self.empty_bpobj.load(Relaxed)
    }

    /// A list for blocks, which counts those that died where there are livelists.
    fn bpobj_create(&self, tx: &Tx) -> Result<u64> {
        Bpobj::create(&self.mos, tx, self.ops.feature_active(Feature::Livelist))
    }

    /// The shared empty list (made when first needed), with one more use; a list of its own where the feature is off.
    fn empty_bpobj_hold(&self, tx: &Tx) -> Result<u64> {
        if !self.ops.feature_enabled(Feature::EmptyBpobj) {
            return self.bpobj_create(tx);
        }
        if !self.ops.feature_active(Feature::EmptyBpobj) {
            let list = self.bpobj_create(tx)?;
            mosw::zap_add(&self.mos, tx, POOL_DIRECTORY, "empty_bpobj", list)?;
            self.empty_bpobj.store(list, Relaxed);
        }
        self.ops.feature_add(tx, Feature::EmptyBpobj, 1)?;
        Ok(self.empty_bpobj.load(Relaxed))
    }

    fn empty_bpobj_release(&self, tx: &Tx) -> Result<()> {
        self.ops.feature_add(tx, Feature::EmptyBpobj, -1)?;
        if !self.ops.feature_active(Feature::EmptyBpobj) {
            let list = self.empty_bpobj.swap(0, Relaxed);
            mosw::zap_remove(&self.mos, tx, POOL_DIRECTORY, "empty_bpobj")?;
            mosw::free(&self.mos, tx, list)?;
        }
        Ok(())
    }

    fn bpobj_sums(&self, list: u64) -> Result<Sums> {
        let list = Bpobj::open(&self.mos, list)?;
        let p = list.phys();
        Ok(Sums { used: p.bytes as i64, comp: p.comp as i64, uncomp: p.uncomp as i64 })
    }

    /// Hangs list `sub` into list `into`; the shared empty one just loses a use.
    fn enqueue_subobj(&self, tx: &Tx, into: u64, sub: u64) -> Result<()> {
        if self.is_empty_bpobj(sub) {
            return self.empty_bpobj_release(tx);
        }
        Bpobj::open(&self.mos, into)?.enqueue_subobj(tx, sub)
    }

    /// Gives an object of the dataset layer a table for extensible fields.
    fn zapify(&self, tx: &Tx, object: u64) -> Result<()> {
        if self.mos.dnode(object)?.phys().object_type.is_zap() {
            return Ok(());
        }
        let dnode = self.mos.dnode(object)?;
        dnode.set_object_type(tx, mosw::ZAP_METADATA)?;
        Zap::init(&self.mos, tx, &dnode, 0)?;
        self.ops.feature_add(tx, Feature::ExtensibleDataset, 1)
    }

    /// Frees an object of the dataset layer, with its table if it has one.
    fn free_zapified(&self, tx: &Tx, object: u64) -> Result<()> {
        if self.mos.dnode(object)?.phys().object_type.is_zap() {
            self.ops.feature_add(tx, Feature::ExtensibleDataset, -1)?;
        }
        mosw::free(&self.mos, tx, object)
    }
}
