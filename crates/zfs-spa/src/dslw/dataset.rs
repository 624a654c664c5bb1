//! A dataset's sums, and what becomes of each block born or killed in it.

use super::bookmark::Mark;
use super::deadlist::Deadlist;
use super::livelist::Livelist;
use super::reserve::Ask;
use super::{DirState, DslPool, Sums, UsedBy, add, mosw};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use zfs_dmu::owner::{BlockKind, ObjsetOwner};
use zfs_dmu::policy::WritePolicy;
use zfs_dmu::txg::Tx;
use zfs_dmu::{LogPolicy, Objset, Result, Room, Zap};
use zfs_phys::BlkPtr;
use zfs_phys::Endian;
use zfs_phys::dsl::{DS_FLAG_UNIQUE_ACCURATE, DslDatasetPhys};
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::feature::Feature;
use zfs_zio::{Error, ErrorKind, WriteProps};

#[derive(Debug, Default)]
pub(super) struct DsInner {
    pub(super) phys: DslDatasetPhys,
    pub(super) dirty: bool,
    /// Space promised to it (`refreservation`), bytes.
    pub(super) reserved: u64,
    /// Most it may reference (`refquota`), bytes; 0 is no limit.
    pub(super) quota: u64,
    /// Features its blocks use, as stored.
    pub(super) features: BTreeSet<Feature>,
    /// Features that blocks born in this txg use for the first time.
    pub(super) activate: BTreeSet<Feature>,
    /// Features that it does not use any more.
    pub(super) retire: BTreeSet<Feature>,
}

impl DsInner {
    /// What of a change of unique bytes the directory notices: up to the refreservation it was charged before.
    pub(super) fn parent_delta(&self, delta: i64) -> i64 {
        let old = self.phys.unique_bytes.max(self.reserved);
        let new = self.phys.unique_bytes.saturating_add_signed(delta).max(self.reserved);
        new as i64 - old as i64
    }

    fn reference(&mut self, s: Sums) -> Result<()> {
        add(&mut self.phys.referenced_bytes, s.used, "a dataset references less than nothing")?;
        add(&mut self.phys.compressed_bytes, s.comp, "a dataset's compressed size is negative")?;
        add(&mut self.phys.uncompressed_bytes, s.uncomp, "a dataset's logical size is negative")?;
        self.dirty = true;
        Ok(())
    }
}

/// A dataset in memory: a head or a snapshot.
pub struct DatasetState {
    /// Object number; also the id of its object set.
    pub object: u64,
    /// Its directory; a snapshot's is another after a promotion.
    pub(super) home: Mutex<Arc<DirState>>,
    pub(super) inner: Mutex<DsInner>,
    pub(super) deadlist: Mutex<Deadlist>,
    /// Blocks for the deadlist, from the workers of the sync under way.
    pub(super) pending: Mutex<Vec<BlkPtr>>,
    /// Its newest snapshot, or origin.
    pub(super) prev: Mutex<Option<Arc<DatasetState>>>,
    pub(super) objset: Mutex<Option<Arc<Objset>>>,
    pub(super) policy: Mutex<WritePolicy>,
    pub(super) log_policy: Mutex<LogPolicy>,
    /// Bookmarks of a head, those without the figures of freed space too.
    pub(super) marks: Mutex<Vec<Mark>>,
    /// Of a clone's head: what only it has.
    pub(super) livelist: Mutex<Option<Livelist>>,
}

impl std::fmt::Debug for DatasetState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DatasetState({})", self.object)
    }
}

impl DatasetState {
    /// Its directory.
    pub fn dir(&self) -> Arc<DirState> {
        self.home.lock().clone()
    }

    /// What is stored.
    pub fn phys(&self) -> DslDatasetPhys {
        self.inner.lock().phys
    }

    /// Lets go of the object set, with whatever of it was changed in this txg: it was written, or is to be no more.
    pub(super) fn close(&self) {
        if let Some(objset) = self.objset.lock().take() {
            objset.forget_changes();
        }
    }

    /// Changes what is stored.
    pub(super) fn update(&self, f: impl FnOnce(&mut DslDatasetPhys)) {
        let mut inner = self.inner.lock();
        f(&mut inner.phys);
        inner.dirty = true;
    }

    pub(super) fn flush(&self, pool: &DslPool, tx: &Tx) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.dirty {
            mosw::set_bonus(&pool.mos, tx, self.object, &inner.phys.encode(Endian::NATIVE))?;
            inner.dirty = false;
        }
        Ok(())
    }

    /// A block was written for it.
    pub(super) fn born(&self, pool: &DslPool, bp: &BlkPtr) -> Result<()> {
        if bp.is_hole() || bp.is_redacted() {
            return Ok(());
        }
        let s = Sums::of(&*pool.ops, bp);
        let delta = {
            let mut inner = self.inner.lock();
            if bp.birth() <= inner.phys.prev_snap_txg {
                return Err(Error::corrupt("a block was born before the newest snapshot"));
            }
            let delta = inner.parent_delta(s.used);
            inner.reference(s)?;
            add(&mut inner.phys.unique_bytes, s.used, "a dataset's unique space is negative")?;
            for feature in features_of(bp) {
                if !inner.features.contains(&feature) {
                    inner.activate.insert(feature);
                }
            }
            delta
        };
        self.live(bp, false);
        self.dir().diduse_transfer(Sums { used: delta, ..s }, s.used, UsedBy::RefReserved, UsedBy::Head)
    }

    /// A block is no longer part of it. Gives the bytes that come free.
    pub(super) fn kill(&self, pool: &DslPool, tx: &Tx, bp: &BlkPtr) -> Result<u64> {
        if bp.is_hole() || bp.is_redacted() {
            return Ok(0);
        }
        let s = Sums::of(&*pool.ops, bp);
        let prev_snap_txg = self.inner.lock().phys.prev_snap_txg;
        let own = bp.birth() > prev_snap_txg;
        self.live(bp, true);
        if own {
            pool.ops.free(tx, bp)?;
            let delta = {
                let mut inner = self.inner.lock();
                let delta = inner.parent_delta(-s.used);
                add(&mut inner.phys.unique_bytes, -s.used, "a dataset's unique space is negative")?;
                delta
            };
            let less = s.minus();
            self.dir().diduse_transfer(Sums { used: delta, ..less }, less.used, UsedBy::RefReserved, UsedBy::Head)?;
        } else {
            self.pending.lock().push(*bp);
            let prev = self.prev.lock().clone().ok_or_else(|| Error::corrupt("an old block, and no snapshot"))?;
            {
                let mut p = prev.inner.lock();
                if p.phys.next_snap_obj == self.object && bp.birth() > p.phys.prev_snap_txg {
                    p.phys.unique_bytes = p.phys.unique_bytes.saturating_add(s.used as u64);
                    p.dirty = true;
                }
            }
            if bp.birth() > self.dir().origin_txg.load(Relaxed) {
                self.dir().transfer(s.used, UsedBy::Head, UsedBy::Snap)?;
            }
        }
        self.mark_killed(bp.birth(), prev_snap_txg, s);
        self.inner.lock().reference(s.minus())?;
        Ok(s.used as u64)
    }

    /// Recounts a head's unique bytes from its deadlist, after its newest snapshot changed.
    pub(super) fn recount_unique(&self) {
        let prev = self.prev.lock().as_ref().map_or(0, |p| p.phys().referenced_bytes);
        let dead = self.deadlist.lock().sums().used as u64;
        self.update(|p| {
            p.unique_bytes = p.referenced_bytes.saturating_sub(prev.saturating_sub(dead));
            p.flags |= DS_FLAG_UNIQUE_ACCURATE;
        });
    }

    /// After its blocks of a txg were written: dead blocks go to the deadlist, features that are new are counted.
    pub(super) fn sync_done(&self, pool: &DslPool, tx: &Tx) -> Result<()> {
        let mut dead = std::mem::take(&mut *self.pending.lock());
        if !dead.is_empty() {
            // The order in which workers freed them is chance; the order on disk shall not be.
            dead.sort_unstable_by_key(|bp| (bp.birth(), bp.word));
            self.deadlist.lock().insert(pool, tx, &dead)?;
        }
        pool.flush_livelist(tx, self)?;
        pool.store_marks(tx, self)?;
        let new = std::mem::take(&mut self.inner.lock().activate);
        for feature in new {
            self.activate(pool, tx, feature)?;
        }
        let old = std::mem::take(&mut self.inner.lock().retire);
        for feature in old {
            if self.inner.lock().features.remove(&feature) {
                mosw::zap_remove(&pool.mos, tx, self.object, feature.guid())?;
                pool.ops.feature_add(tx, feature, -1)?;
            }
        }
        Ok(())
    }

    /// Marks a feature as used by this dataset, with one more use in the pool.
    pub(super) fn activate(&self, pool: &DslPool, tx: &Tx, feature: Feature) -> Result<()> {
        self.activate_with(pool, tx, feature, &[0])
    }

    fn activate_with(&self, pool: &DslPool, tx: &Tx, feature: Feature, value: &[u64]) -> Result<()> {
        if self.inner.lock().features.insert(feature) {
            pool.zapify(tx, self.object)?;
            mosw::zap_set_words(&pool.mos, tx, self.object, feature.guid(), value)?;
            pool.ops.feature_add(tx, feature, 1)?;
        }
        Ok(())
    }

    /// A new snapshot or clone uses what it comes from does, in the same way: redacted datasets say from which snapshots.
    pub(super) fn use_features_of(&self, pool: &DslPool, tx: &Tx, from: &Self) -> Result<()> {
        let features = from.inner.lock().features.clone();
        for feature in features {
            let value = Zap::open(&pool.mos, from.object)?.lookup(feature.guid().as_bytes())?;
            self.activate_with(pool, tx, feature, &value.map_or_else(|| vec![0], |v| v.u64s()))?;
        }
        Ok(())
    }
}

/// Larger blocks need a feature (`SPA_OLD_MAXBLOCKSIZE`).
pub(super) const SPA_OLD_MAXBLOCKSIZE: u64 = 128 << 10;

/// The feature that a checksum is (`zio_checksum_to_feature`).
pub(super) fn feature_of(checksum: ChecksumKind) -> Option<Feature> {
    match checksum {
        ChecksumKind::Sha512 => Some(Feature::Sha512),
        ChecksumKind::Skein => Some(Feature::Skein),
        ChecksumKind::Edonr => Some(Feature::Edonr),
        ChecksumKind::Blake3 => Some(Feature::Blake3),
        _ => None,
    }
}

/// Features that datasets with such a block are marked with.
fn features_of(bp: &BlkPtr) -> impl Iterator<Item = Feature> {
    let checksum = bp.checksum_kind().and_then(feature_of);
    let compress = (bp.compress() == Some(CompressKind::Zstd)).then_some(Feature::ZstdCompress);
    let large = (bp.lsize() > SPA_OLD_MAXBLOCKSIZE).then_some(Feature::LargeBlocks);
    checksum.into_iter().chain(compress).chain(large)
}

/// What the object set of a dataset tells about its blocks. Holds it weakly, as the dataset holds the object set.
pub(super) struct Owner {
    pub(super) pool: Weak<DslPool>,
    pub(super) dataset: Weak<DatasetState>,
}

impl Owner {
    fn both(&self) -> Result<(Arc<DslPool>, Arc<DatasetState>)> {
        self.pool
            .upgrade()
            .zip(self.dataset.upgrade())
            .ok_or_else(|| Error::new(ErrorKind::Stale, "writing to a dataset that was closed"))
    }
}

impl ObjsetOwner for Owner {
    fn block_born(&self, bp: &BlkPtr, _tx: &Tx) -> Result<()> {
        let (pool, ds) = self.both()?;
        ds.born(&pool, bp)
    }

    fn block_kill(&self, bp: &BlkPtr, tx: &Tx) -> Result<u64> {
        let (pool, ds) = self.both()?;
        ds.kill(&pool, tx, bp)
    }

    fn write_props(&self, block: &BlockKind) -> WriteProps {
        match self.both() {
            Ok((_, ds)) => {
                let policy = *ds.policy.lock();
                policy.props(block)
            }
            // The block will not be accounted for, and the txg fails; how it is written no longer matters.
            Err(_) => WriteProps::new(block.object_type, block.level),
        }
    }

    fn log_policy(&self) -> LogPolicy {
        self.dataset.upgrade().map_or_else(LogPolicy::default, |ds| *ds.log_policy.lock())
    }

    fn log_in_use(&self, in_use: bool) {
        if let Ok((pool, ds)) = self.both() {
            ds.log_in_use(&pool, in_use);
        }
    }

    fn dsize(&self, bp: &BlkPtr) -> u64 {
        self.pool.upgrade().map_or(0, |pool| pool.ops.dsize(bp))
    }

    fn uses(&self, feature: Feature) -> Result<()> {
        let (pool, ds) = self.both()?;
        let mut inner = ds.inner.lock();
        if inner.features.contains(&feature) {
            return Ok(());
        }
        if !pool.ops.feature_enabled(feature) {
            return Err(Error::unsupported(format!("feature {} is not enabled", feature.name())));
        }
        inner.activate.insert(feature);
        Ok(())
    }

    fn reserve(&self, txg: u64, need: u64, freeing: bool, patient: bool) -> Result<Room> {
        let (pool, ds) = self.both()?;
        pool.reserve(&ds, txg, &Ask { need, freeing, patient })
    }

    fn dirtied(&self, txg: u64) {
        if let Ok((pool, ds)) = self.both() {
            pool.dirtied(&ds, txg);
        }
    }
}
