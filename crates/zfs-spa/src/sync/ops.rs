//! What the dataset layer and the meta object set need from a pool while a txg is synced: frees, features, history.
//!
//! Frees of the first pass reach the space maps in the same txg. From the second pass on that would change space maps
//! for ever, so such blocks go to a list in the meta object set that the next txg's first pass empties
//! (`zfs_sync_pass_deferred_free`). With log space maps they need not: all changes go to the end of one object.
//!
//! Lock order: each lock here is a leaf, except `history`, under which the history object is written.

use crate::config::POOL_DIRECTORY;
use crate::dslw::{DslPool, PoolOps, PoolRoom, mos_write_props};
use crate::features::Features;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use zfs_dmu::bpobj::{Bpobj, Enough};
use zfs_dmu::owner::{BlockKind, ObjsetOwner};
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, ErrorKind, Objset, Result, Zap};
use zfs_env::{Clock, Rng, SystemRng};
use zfs_phys::feature::{Feature, MOS, READONLY_COMPAT};
use zfs_phys::{BlkPtr, NvList};
use zfs_zio::alloc::Class;
use zfs_zio::{WriteProps, Zio};

/// Pass from which on frees wait for the next txg.
const PASS_DEFERRED_FREE: u32 = 2;

/// Who hears of records of the history.
type Hearing = Box<dyn Fn(&NvList) + Send + Sync>;

/// See the module.
pub(crate) struct Ops {
    zio: Arc<Zio>,
    mos: OnceLock<Weak<Objset>>,
    dsl: OnceLock<Weak<DslPool>>,
    /// Uses of each enabled feature.
    features: Mutex<BTreeMap<Feature, u64>>,
    /// Pass of the sync under way.
    pass: AtomicU32,
    /// Blocks to be freed in the next txg.
    deferred: Mutex<Vec<BlkPtr>>,
    /// Object of the list of those.
    deferred_list: AtomicU64,
    /// Bytes that only the checkpoint refers to.
    checkpointed: AtomicU64,
    clock: Arc<dyn Clock>,
    rng: SystemRng,
    pub(super) history: Mutex<()>,
    /// Hears of every record of the history.
    pub(super) heard: OnceLock<Hearing>,
    /// The configuration is to be written with the txg.
    pub(super) config_dirty: AtomicBool,
}

impl Ops {
    pub(crate) fn new(zio: &Arc<Zio>, features: &Features, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let known = |(guid, count): (&String, &u64)| Some((Feature::by_guid(guid)?, *count));
        Ok(Arc::new(Self {
            zio: zio.clone(),
            mos: OnceLock::new(),
            dsl: OnceLock::new(),
            features: Mutex::new(features.counts().iter().filter_map(known).collect()),
            pass: AtomicU32::new(1),
            deferred: Mutex::default(),
            deferred_list: AtomicU64::new(0),
            checkpointed: AtomicU64::new(0),
            clock,
            rng: SystemRng::new().map_err(Error::from)?,
            history: Mutex::default(),
            heard: OnceLock::new(),
            config_dirty: AtomicBool::new(true),
        }))
    }

    pub(super) fn set_mos(&self, mos: &Arc<Objset>, deferred_list: u64) {
        let _ = self.mos.set(Arc::downgrade(mos));
        self.deferred_list.store(deferred_list, Relaxed);
    }

    /// More bytes that only the checkpoint refers to.
    pub(super) fn add_checkpointed(&self, bytes: u64) {
        self.checkpointed.fetch_add(bytes, Relaxed);
    }

    pub(super) fn set_deferred_list(&self, object: u64) {
        self.deferred_list.store(object, Relaxed);
    }

    pub(super) fn set_dsl(&self, dsl: &Arc<DslPool>) {
        let _ = self.dsl.set(Arc::downgrade(dsl));
    }

    pub(super) fn mos(&self) -> Result<Arc<Objset>> {
        self.mos.get().and_then(Weak::upgrade).ok_or_else(closed)
    }

    fn dsl(&self) -> Result<Arc<DslPool>> {
        self.dsl.get().and_then(Weak::upgrade).ok_or_else(closed)
    }

    pub(super) fn set_pass(&self, pass: u32) {
        self.pass.store(pass, Relaxed);
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(&self) -> u64 {
        self.clock.now().as_secs()
    }

    /// Whether a feature is enabled.
    pub(crate) fn is_enabled(&self, feature: Feature) -> bool {
        self.features.lock().contains_key(&feature)
    }

    /// Features without which the meta object set cannot be read, for labels.
    pub(super) fn label_features(&self) -> Vec<&'static str> {
        let features = self.features.lock();
        let needed = |(f, n): &(&Feature, &u64)| **n > 0 && f.info().flags & MOS != 0;
        features.iter().filter(needed).map(|(f, _)| f.guid()).collect()
    }

    /// Counts uses of a feature, when it is enabled.
    pub(crate) fn count(&self, tx: &Tx, feature: Feature, delta: i64) -> Result<()> {
        let value = {
            let mut features = self.features.lock();
            let Some(count) = features.get_mut(&feature) else {
                return Err(Error::invalid(format!("feature {} is not enabled", feature.name())));
            };
            let before = *count;
            let below = || Error::corrupt(format!("uses of feature {} below zero", feature.name()));
            *count = count.checked_add_signed(delta).ok_or_else(below)?;
            if feature.info().flags & MOS != 0 && (before == 0) != (*count == 0) {
                self.config_dirty.store(true, Relaxed);
            }
            *count
        };
        let mos = self.mos()?;
        self.table(&mos, feature)?.update(tx, feature.guid().as_bytes(), &[value])
    }

    fn table(&self, mos: &Arc<Objset>, feature: Feature) -> Result<Zap> {
        let name: &[u8] = match feature.info().flags & READONLY_COMPAT {
            0 => b"features_for_read",
            _ => b"features_for_write",
        };
        let object = Zap::open(mos, POOL_DIRECTORY)?.lookup_u64(name)?;
        Zap::open(mos, object.ok_or_else(|| Error::corrupt("a pool without features"))?)
    }

    /// Makes an empty space map of the kind that the pool has.
    pub(super) fn space_map(&self, mos: &Arc<Objset>, tx: &Tx, block_size: u32) -> Result<u64> {
        let histogram = self.is_enabled(Feature::SpacemapHistogram);
        if histogram {
            self.count(tx, Feature::SpacemapHistogram, 1)?;
        }
        SpaceMap::create(mos, tx, block_size, histogram)
    }

    /// Frees a space map.
    pub(super) fn free_space_map(&self, mos: &Arc<Objset>, tx: &Tx, object: u64) -> Result<()> {
        if SpaceMap::open(mos, object)?.phys().histogram.is_some() {
            self.count(tx, Feature::SpacemapHistogram, -1)?;
        }
        mos.free_object(tx, object)
    }

    /// Enables a feature, with its first uses.
    pub(super) fn enable(&self, tx: &Tx, feature: Feature, uses: u64) -> Result<()> {
        self.features.lock().insert(feature, uses);
        if feature == Feature::HoleBirth {
            self.zio.let_holes_have_births();
        }
        let mos = self.mos()?;
        self.table(&mos, feature)?.update(tx, feature.guid().as_bytes(), &[uses])?;
        let directory = Zap::open(&mos, POOL_DIRECTORY)?;
        let texts = directory.lookup_u64(b"feature_descriptions")?;
        let texts = Zap::open(&mos, texts.ok_or_else(|| Error::corrupt("a pool without features"))?)?;
        let text = [feature.info().description.as_bytes(), &[0]].concat();
        texts.update_ints(tx, feature.guid().as_bytes(), 1, &text)
    }

    /// Frees what earlier txgs had to defer.
    pub(super) fn free_deferred(&self, tx: &Tx) -> Result<()> {
        let mut list = Bpobj::open(&self.mos()?, self.deferred_list.load(Relaxed))?;
        if list.phys().num_blkptrs == 0 && list.phys().num_subobjs == 0 {
            return Ok(());
        }
        list.take(tx, &mut |bp, _| {
            self.zio.free(tx.txg(), bp)?;
            Ok(Enough::No)
        })?;
        Ok(())
    }

    /// Puts what this pass freed on the list for the next txg.
    pub(super) fn defer(&self, tx: &Tx) -> Result<()> {
        let blocks = std::mem::take(&mut *self.deferred.lock());
        if blocks.is_empty() {
            return Ok(());
        }
        let mut list = Bpobj::open(&self.mos()?, self.deferred_list.load(Relaxed))?;
        blocks.iter().try_for_each(|bp| list.enqueue(tx, bp, false, self.dsize(bp)))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Stale, "writing to a pool that is closed")
}

impl PoolOps for Ops {
    fn free(&self, tx: &Tx, bp: &BlkPtr) -> Result<()> {
        if bp.is_hole() || bp.is_embedded() {
            return Ok(());
        }
        if self.pass.load(Relaxed) >= PASS_DEFERRED_FREE && !self.feature_active(Feature::LogSpacemap) {
            self.deferred.lock().push(*bp);
            return Ok(());
        }
        self.zio.free(tx.txg(), bp)
    }

    fn note_obsolete(&self, dva: &zfs_phys::Dva) -> Result<()> {
        self.zio.note_obsolete(dva)
    }

    fn dsize(&self, bp: &BlkPtr) -> u64 {
        if bp.is_embedded() {
            return 0;
        }
        let of = |dva: zfs_phys::Dva| {
            let ratio = self.zio.vdevs().top(dva.vdev()).map_or(1, |top| top.deflate_ratio());
            (dva.asize() >> 9).saturating_mul(ratio)
        };
        bp.dvas().map(of).fold(0, u64::saturating_add)
    }

    fn room(&self) -> PoolRoom {
        let (normal, logs) = (self.zio.space(Class::Normal), self.zio.space(Class::EmbeddedLog));
        let deferred = u128::from(normal.deferred) * u128::from(normal.dspace) / u128::from(normal.space.max(1));
        let deferred = u64::try_from(deferred).unwrap_or(u64::MAX);
        PoolRoom::new(normal.dspace, logs.dspace, deferred.saturating_add(self.checkpointed.load(Relaxed)))
    }

    fn has_special(&self) -> bool {
        self.zio.space(Class::Special).space > 0
    }

    fn feature_enabled(&self, feature: Feature) -> bool {
        self.is_enabled(feature)
    }

    fn feature_active(&self, feature: Feature) -> bool {
        self.features.lock().get(&feature).is_some_and(|n| *n > 0)
    }

    fn feature_add(&self, tx: &Tx, feature: Feature, delta: i64) -> Result<()> {
        self.count(tx, feature, delta)
    }

    fn log(&self, tx: &Tx, event: &str, dataset: Option<(&str, u64)>, text: &str) -> Result<()> {
        let mut record = NvList::new();
        if let Some((name, id)) = dataset {
            record.put("dsname", name).put("dsid", id);
        }
        record.put("internal_name", event).put("history internal str", text);
        record.put("history txg", tx.txg());
        self.append_history(tx, record)
    }

    fn now(&self) -> (u64, u64) {
        let now = self.clock.now();
        (now.as_secs(), u64::from(now.subsec_nanos()))
    }

    fn guid(&self) -> u64 {
        self.rng.guid()
    }
}

/// Who owns the blocks of the meta object set.
pub(super) struct MosOwner(pub(super) Arc<Ops>);

impl ObjsetOwner for MosOwner {
    fn block_born(&self, bp: &BlkPtr, _tx: &Tx) -> Result<()> {
        self.0.dsl()?.mos_born(bp);
        Ok(())
    }

    fn block_kill(&self, bp: &BlkPtr, tx: &Tx) -> Result<u64> {
        self.0.dsl()?.mos_kill(tx, bp)
    }

    fn write_props(&self, block: &BlockKind) -> WriteProps {
        mos_write_props(&*self.0, block)
    }

    fn dsize(&self, bp: &BlkPtr) -> u64 {
        PoolOps::dsize(&*self.0, bp)
    }

    fn dirtied(&self, _txg: u64) {}
}
