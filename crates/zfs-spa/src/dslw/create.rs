//! New directories and datasets, and the tree a fresh pool starts with.

use super::dataset::{DsInner, Owner};
use super::deadlist::{Deadlist, hex};
use super::{DatasetState, DirState, DslPool, POOL_DIRECTORY, PoolOps, UsedBy, mosw};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Objset, Result};
use zfs_phys::Endian;
use zfs_phys::dsl::{
    DD_FLAG_USED_BREAKDOWN, DS_FLAG_CI_DATASET, DS_FLAG_INCONSISTENT, DS_FLAG_UNIQUE_ACCURATE, DslDatasetPhys,
    DslDirPhys, field,
};
use zfs_phys::enums::{DmuObjectType as Ot, ObjsetType};
use zfs_phys::feature::Feature;
use zfs_phys::objset::{
    OBJSET_FLAG_PROJECTQUOTA_COMPLETE, OBJSET_FLAG_USERACCOUNTING_COMPLETE, OBJSET_FLAG_USEROBJACCOUNTING_COMPLETE,
};
use zfs_phys::zap::NORM_TOUPPER;
use zfs_zio::{Error, ErrorKind};

/// Txg of the first sync of a pool; what it makes counts as older (`TXG_INITIAL`).
const TXG_INITIAL: u64 = 4;
const ORIGIN: &str = "$ORIGIN";

/// What a new dataset holds.
pub struct NewObjset<'a> {
    /// File system or volume.
    pub kind: ObjsetType,
    /// Flags of the dataset besides the usual ones: `DS_FLAG_CI_DATASET`.
    pub flags: u64,
    /// Fills the fresh object set.
    pub init: &'a mut dyn FnMut(&Arc<Objset>, &Tx) -> Result<()>,
}

impl DslPool {
    /// Makes the tree of datasets of a fresh pool: the pool's own file system, and the hidden directories for the meta
    /// object set's space, for space being freed, and for the empty snapshot that all file systems descend from.
    /// The pool directory and the tables of features are there already.
    ///
    /// # Errors
    /// Whatever writing the meta object set meets.
    pub fn create_tree(mos: &Arc<Objset>, ops: Arc<dyn PoolOps>, tx: &Tx, root: NewObjset<'_>) -> Result<Arc<Self>> {
        let pool = Self::new(mos, ops, 0, 0, 0);
        let top = pool.create_dir(tx, None, "")?;
        pool.root_dir.store(top.object, Relaxed);
        *pool.mos_dir.lock() = Some(pool.create_dir(tx, Some(&top), "$MOS")?);
        *pool.free_dir.lock() = Some(pool.create_dir(tx, Some(&top), "$FREE")?);
        let list = pool.bpobj_create(tx)?;
        mosw::zap_add(mos, tx, POOL_DIRECTORY, "free_bpobj", list)?;
        pool.free_bpobj.store(list, Relaxed);
        let origin = pool.create_dir(tx, Some(&top), ORIGIN)?;
        let head = pool.create_dataset(tx, &origin, None, 0)?;
        let snap = pool.snapshot_as(tx, &head, ORIGIN, pool.ops.now().0, 1)?;
        *pool.origin_snap.lock() = snap.object;
        let ds = pool.create_dataset(tx, &top, None, root.flags)?;
        pool.create_objset(tx, &ds, root)?;
        Ok(pool)
    }

    /// Makes a directory. The root has no parent and no name.
    fn create_dir(&self, tx: &Tx, parent: Option<&Arc<DirState>>, name: &str) -> Result<Arc<DirState>> {
        let mut phys = DslDirPhys {
            creation_time: self.ops.now().0,
            parent_obj: parent.map_or(0, |p| p.object),
            flags: DD_FLAG_USED_BREAKDOWN,
            ..DslDirPhys::default()
        };
        let object = mosw::alloc(&self.mos, tx, Ot::DSL_DIR, Ot::DSL_DIR, &phys.encode(Endian::NATIVE))?;
        match parent {
            Some(parent) => {
                mosw::zap_add(&self.mos, tx, parent.phys().child_dir_zapobj, name, object)?;
                if !name.starts_with('$') {
                    self.adjust_count(tx, parent, field::FILESYSTEM_COUNT, 1)?;
                }
            }
            None => mosw::zap_add(&self.mos, tx, POOL_DIRECTORY, "root_dataset", object)?,
        }
        phys.props_zapobj = mosw::zap_create(&self.mos, tx, Ot::DSL_PROPS)?;
        phys.child_dir_zapobj = mosw::zap_create(&self.mos, tx, Ot::DSL_DIR_CHILD_MAP)?;
        let state = DirState::new(object, parent.cloned(), super::dir::DirInner { phys, dirty: true }, 0);
        self.dirs.lock().insert(object, state.clone());
        Ok(state)
    }

    /// Makes a dataset in an empty directory: a clone of `origin`, else one that starts from the empty snapshot.
    fn create_dataset(
        &self,
        tx: &Tx,
        dir: &Arc<DirState>,
        origin: Option<&Arc<DatasetState>>,
        flags: u64,
    ) -> Result<Arc<DatasetState>> {
        let empty = *self.origin_snap.lock();
        let origin = match origin {
            Some(origin) => Some(origin.clone()),
            None if empty != 0 => Some(self.dataset(empty)?),
            None => None,
        };
        let txg = tx.txg();
        let mut phys = DslDatasetPhys {
            dir_obj: dir.object,
            flags: flags | DS_FLAG_UNIQUE_ACCURATE,
            // 56 bits: the kernel puts it into a file system id beside a type.
            fsid_guid: self.ops.guid() >> 8,
            guid: self.ops.guid(),
            creation_time: self.ops.now().0,
            creation_txg: if txg == TXG_INITIAL { 1 } else { txg },
            ..DslDatasetPhys::default()
        };
        phys.snapnames_zapobj = mosw::zap_create_norm(&self.mos, tx, Ot::DSL_DS_SNAP_MAP, NORM_TOUPPER)?;
        let object = mosw::alloc(&self.mos, tx, Ot::DSL_DATASET, Ot::DSL_DATASET, &phys.encode(Endian::NATIVE))?;
        let deadlist = match &origin {
            None => Deadlist::create(self, tx)?,
            Some(origin) => self.start_from(tx, &mut phys, object, dir, origin)?,
        };
        phys.deadlist_obj = deadlist.object;
        dir.update(|p| p.head_dataset_obj = object);
        let state = Arc::new(DatasetState {
            object,
            home: Mutex::new(dir.clone()),
            inner: Mutex::new(DsInner { phys, dirty: true, ..DsInner::default() }),
            deadlist: Mutex::new(deadlist),
            pending: Mutex::default(),
            prev: Mutex::new(origin.clone()),
            objset: Mutex::default(),
            policy: Mutex::new(super::policy::load(self, dir)?),
            log_policy: Mutex::new(super::log::policy(self, dir)?),
            marks: Mutex::default(),
            livelist: Mutex::default(),
        });
        self.datasets.lock().insert(object, state.clone());
        if let Some(origin) = origin {
            state.use_features_of(self, tx, &origin)?;
        }
        Ok(state)
    }

    /// Ties a new dataset to the snapshot it starts from.
    fn start_from(
        &self,
        tx: &Tx,
        phys: &mut DslDatasetPhys,
        object: u64,
        dir: &Arc<DirState>,
        origin: &Arc<DatasetState>,
    ) -> Result<Deadlist> {
        let from = origin.phys();
        phys.prev_snap_obj = origin.object;
        phys.prev_snap_txg = from.creation_txg;
        phys.referenced_bytes = from.referenced_bytes;
        phys.compressed_bytes = from.compressed_bytes;
        phys.uncompressed_bytes = from.uncompressed_bytes;
        phys.bp = from.bp;
        phys.flags |= from.flags & (DS_FLAG_INCONSISTENT | DS_FLAG_CI_DATASET);
        let clones = match from.next_clones_obj {
            0 => mosw::zap_create(&self.mos, tx, Ot::NEXT_CLONES)?,
            zap => zap,
        };
        mosw::zap_add(&self.mos, tx, clones, &hex(object), object)?;
        origin.update(|p| {
            p.num_children += 1;
            p.next_clones_obj = clones;
        });
        let head = self.dataset(origin.dir().phys().head_dataset_obj)?;
        let deadlist = head.deadlist.lock().clone_keys(self, tx, from.creation_txg)?;
        let of_dir = match origin.dir().phys().clones {
            0 => mosw::zap_create(&self.mos, tx, Ot::DSL_CLONES)?,
            zap => zap,
        };
        mosw::zap_add(&self.mos, tx, of_dir, &hex(object), object)?;
        origin.dir().update(|p| p.clones = of_dir);
        dir.update(|p| p.origin_obj = origin.object);
        dir.origin_txg.store(from.creation_txg, Relaxed);
        Ok(deadlist)
    }

    fn create_objset(&self, tx: &Tx, ds: &Arc<DatasetState>, new: NewObjset<'_>) -> Result<()> {
        let owner = Arc::new(Owner { pool: self.me.clone(), dataset: Arc::downgrade(ds) });
        let objset = Objset::create(self.mos.zio(), ds.object, new.kind, owner)?;
        *ds.objset.lock() = Some(objset.clone());
        if new.kind == ObjsetType::Zfs {
            for feature in [Feature::UserobjAccounting, Feature::ProjectQuota] {
                if self.ops.feature_enabled(feature) {
                    ds.activate(self, tx, feature)?;
                }
            }
        }
        (new.init)(&objset, tx)?;
        self.dirtied(ds, tx.txg());
        Ok(())
    }

    /// The parent directory of `path` and its last part.
    pub(super) fn parent_of<'a>(&self, path: &'a str) -> Result<(Arc<DirState>, &'a str)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let missing = || Error::new(ErrorKind::NotFound, "making a dataset: its parent does not exist");
        let parent = self.find_dir(above)?.ok_or_else(missing)?;
        let head = parent.phys().head_dataset_obj;
        if head == 0 || name.is_empty() {
            return Err(missing());
        }
        Ok((parent, name))
    }

    /// Makes a file system or volume. `path` has no pool name.
    ///
    /// # Errors
    /// `Exists`, `NotFound` for the parent, `Invalid` for a name that cannot be, `NameTooLong`, `Loop` below too many others,
    /// or `Unsupported` for one that would inherit encryption.
    pub fn create(&self, tx: &Tx, path: &str, new: NewObjset<'_>) -> Result<Arc<DatasetState>> {
        self.check_path(path)?;
        let (parent, name) = self.parent_of(path)?;
        if self.find_dir(path)?.is_some() {
            return Err(Error::new(ErrorKind::Exists, "making a dataset"));
        }
        self.check_plain(&parent)?;
        let dir = self.create_dir(tx, Some(&parent), name)?;
        self.init_counts(tx, &dir)?;
        let ds = self.create_dataset(tx, &dir, None, new.flags)?;
        self.create_objset(tx, &ds, new)?;
        self.log_of(tx, "create", &ds, " ")?;
        Ok(ds)
    }

    /// Makes a clone of a snapshot. Both paths have no pool name.
    ///
    /// # Errors
    /// `Exists`, or `NotFound` for the parent or the snapshot.
    pub fn clone_of(&self, tx: &Tx, path: &str, origin: &str) -> Result<Arc<DatasetState>> {
        self.check_path(path)?;
        let (parent, name) = self.parent_of(path)?;
        if self.find_dir(path)?.is_some() {
            return Err(Error::new(ErrorKind::Exists, "making a clone"));
        }
        let missing = || Error::new(ErrorKind::NotFound, "making a clone: no such snapshot");
        let named = origin.rsplit('@').next().unwrap_or(origin);
        let origin = self.find(origin)?.filter(|o| o.phys().is_snapshot()).ok_or_else(missing)?;
        if origin.phys().creation_txg >= tx.txg() {
            return Err(Error::new(ErrorKind::Busy, "making a clone of a snapshot of this txg"));
        }
        let dir = self.create_dir(tx, Some(&parent), name)?;
        self.init_counts(tx, &dir)?;
        let ds = self.create_dataset(tx, &dir, Some(&origin), 0)?;
        self.share_key(tx, &origin.dir(), &dir)?;
        self.start_livelist(tx, &ds)?;
        self.zero_log(tx, &ds)?;
        let text = format!("origin={}@{named} ({})", self.name_of(&origin.dir())?, origin.object);
        self.log_of(tx, "clone", &ds, &text)?;
        Ok(ds)
    }

    /// Sums of users, groups and projects that a new file system keeps: `OBJSET_FLAG_*_COMPLETE`.
    pub fn new_sums(&self) -> u64 {
        sums_with(|feature| self.ops.feature_enabled(feature))
    }

    fn init_counts(&self, tx: &Tx, dir: &Arc<DirState>) -> Result<()> {
        if self.ops.feature_active(Feature::FilesystemLimits) {
            self.zapify(tx, dir.object)?;
            mosw::zap_add(&self.mos, tx, dir.object, field::FILESYSTEM_COUNT, 0)?;
            mosw::zap_add(&self.mos, tx, dir.object, field::SNAPSHOT_COUNT, 0)?;
        }
        Ok(())
    }

    /// Counts file systems or snapshots in a directory and its ancestors, as far as they are counted.
    pub(super) fn adjust_count(&self, tx: &Tx, dir: &Arc<DirState>, what: &str, delta: i64) -> Result<()> {
        let mut at = Some(dir.clone());
        while let Some(dir) = at {
            if !self.mos.dnode(dir.object)?.phys().object_type.is_zap() {
                return Ok(());
            }
            let Some(count) = mosw::zap_get(&self.mos, dir.object, what)? else { return Ok(()) };
            mosw::zap_set(&self.mos, tx, dir.object, what, count.saturating_add_signed(delta))?;
            at = dir.parent();
        }
        Ok(())
    }

    /// The object set of a head dataset, opened for writing; the same one for everybody.
    ///
    /// # Errors
    /// `ReadOnly` for snapshots.
    pub fn open_objset(&self, ds: &Arc<DatasetState>) -> Result<Arc<Objset>> {
        let mut slot = ds.objset.lock();
        if let Some(open) = &*slot {
            return Ok(open.clone());
        }
        if ds.phys().is_snapshot() {
            return Err(Error::new(ErrorKind::ReadOnly, "opening a snapshot for writing"));
        }
        let owner = Arc::new(Owner { pool: self.me.clone(), dataset: Arc::downgrade(ds) });
        let objset = Objset::open_writable(self.mos.zio(), &ds.phys().bp, ds.object, None, owner)?;
        *slot = Some(objset.clone());
        Ok(objset)
    }

    /// Charges the space of a whole list of blocks to the directory of space being freed.
    pub(super) fn charge_free(&self, sums: super::Sums) -> Result<()> {
        let dir = self.free_dir.lock().clone();
        dir.map_or(Ok(()), |dir| dir.diduse(UsedBy::Head, sums))
    }
}

/// The sums that a new file system keeps in a pool with such features.
pub fn sums_with(enabled: impl Fn(Feature) -> bool) -> u64 {
    let with = |feature, flag| if enabled(feature) { flag } else { 0 };
    OBJSET_FLAG_USERACCOUNTING_COMPLETE
        | with(Feature::UserobjAccounting, OBJSET_FLAG_USEROBJACCOUNTING_COMPLETE)
        | with(Feature::ProjectQuota, OBJSET_FLAG_PROJECTQUOTA_COMPLETE)
}
