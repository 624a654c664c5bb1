//! Blocks that left a removed device as seen from a dataset, and that its snapshots still see there.
//!
//! OpenZFS replaces addresses on removed devices by those where the blocks are now when it rewrites the block that holds
//! them. What no snapshot has under the old address is obsolete in the mapping at once. The rest goes to the dataset's
//! remap deadlist, which moves with snapshots as the deadlist does: when the last snapshot that has the old address is
//! destroyed, the entries move to the pool's list of obsolete blocks, which is worked off in the txgs after
//! (`ds_remap_deadlist`, `dp_obsolete_bpobj`; theory in `vdev_indirect.c`).
//!
//! Addresses are not replaced here, so no entry is ever added; what is there is kept right. Each of the lists is one
//! use of the feature `obsolete_counts`. An entry is a pointer of which only the first address and the birth mean
//! something.

use super::deadlist::Deadlist;
use super::destroy::Budget;
use super::{DatasetState, DslPool, POOL_DIRECTORY, mosw};
use zfs_dmu::Result;
use zfs_dmu::bpobj::{Bpobj, Enough};
use zfs_dmu::txg::Tx;
use zfs_phys::dsl::field::REMAP_DEADLIST;
use zfs_phys::feature::Feature;

/// Name of the pool's list of obsolete blocks in its directory (`DMU_POOL_OBSOLETE_BPOBJ`).
const OBSOLETE_BPOBJ: &str = "com.delphix:obsolete_bpobj";

impl DslPool {
    /// The object of a dataset's remap deadlist.
    fn remap_object(&self, ds: &DatasetState) -> Result<Option<u64>> {
        if !self.ops.feature_active(Feature::ObsoleteCounts) || !self.mos.dnode(ds.object)?.phys().object_type.is_zap()
        {
            return Ok(None);
        }
        Ok(mosw::zap_get(&self.mos, ds.object, REMAP_DEADLIST)?.filter(|o| *o != 0))
    }

    fn remaps_of(&self, ds: &DatasetState) -> Result<Option<Deadlist>> {
        self.remap_object(ds)?.map(|object| Deadlist::open(self, object)).transpose()
    }

    /// A new snapshot takes its head's remap deadlist.
    pub(super) fn hand_remaps(&self, tx: &Tx, head: &DatasetState, snap: &DatasetState) -> Result<()> {
        let Some(object) = self.remap_object(head)? else { return Ok(()) };
        mosw::zap_remove(&self.mos, tx, head.object, REMAP_DEADLIST)?;
        self.zapify(tx, snap.object)?;
        mosw::zap_add(&self.mos, tx, snap.object, REMAP_DEADLIST, object)
    }

    /// Frees a dataset's remap deadlist: a snapshot has what stands there.
    pub(super) fn destroy_remaps(&self, tx: &Tx, ds: &DatasetState) -> Result<()> {
        let Some(remaps) = self.remaps_of(ds)? else { return Ok(()) };
        remaps.destroy(self, tx)?;
        mosw::zap_remove(&self.mos, tx, ds.object, REMAP_DEADLIST)?;
        self.ops.feature_add(tx, Feature::ObsoleteCounts, -1)
    }

    /// A snapshot goes, and `next` follows it now on what was before: old addresses that only it had are obsolete, the
    /// others are `next`'s.
    pub(super) fn destroy_snapshot_remaps(&self, tx: &Tx, snap: &DatasetState, next: &DatasetState) -> Result<()> {
        let mut of_next = self.remaps_of(next)?;
        if let Some(remaps) = &mut of_next {
            let obsolete = self.obsolete_list(tx)?;
            remaps.move_to(self, tx, obsolete, snap.phys().prev_snap_txg)?;
        }
        let Some(own) = self.remaps_of(snap)? else { return Ok(()) };
        let mut into = match of_next {
            Some(remaps) => remaps,
            None => {
                let new = next.deadlist.lock().clone_keys(self, tx, u64::MAX)?;
                self.zapify(tx, next.object)?;
                mosw::zap_add(&self.mos, tx, next.object, REMAP_DEADLIST, new.object)?;
                self.ops.feature_add(tx, Feature::ObsoleteCounts, 1)?;
                new
            }
        };
        into.merge(self, tx, own)?;
        self.destroy_remaps(tx, snap)
    }

    /// A snapshot's key goes; what it had is told apart by the one before.
    pub(super) fn collapse_remaps(&self, tx: &Tx, ds: &DatasetState, key: u64) -> Result<()> {
        let Some(mut remaps) = self.remaps_of(ds)? else { return Ok(()) };
        if remaps.has_key(self, key)? { remaps.remove_key(self, tx, key) } else { Ok(()) }
    }

    /// The pool's list of obsolete blocks, made when there is none.
    fn obsolete_list(&self, tx: &Tx) -> Result<u64> {
        if let Some(object) = mosw::zap_get(&self.mos, POOL_DIRECTORY, OBSOLETE_BPOBJ)? {
            return Ok(object);
        }
        let object = self.bpobj_create(tx)?;
        mosw::zap_add(&self.mos, tx, POOL_DIRECTORY, OBSOLETE_BPOBJ, object)?;
        self.ops.feature_add(tx, Feature::ObsoleteCounts, 1)?;
        Ok(object)
    }

    /// Notes blocks of the pool's list as obsolete, as many as the txg can bear. Gives whether some are left.
    pub(super) fn note_obsolete(&self, tx: &Tx, budget: &mut Budget) -> Result<bool> {
        if !self.ops.feature_active(Feature::ObsoleteCounts) {
            return Ok(false);
        }
        let Some(object) = mosw::zap_get(&self.mos, POOL_DIRECTORY, OBSOLETE_BPOBJ)? else { return Ok(false) };
        let emptied = Bpobj::open(&self.mos, object)?.take(tx, &mut |bp, _| {
            budget.spend();
            self.ops.note_obsolete(&bp.dva(0))?;
            Ok(if budget.is_spent(&*self.ops) { Enough::Yes } else { Enough::No })
        })?;
        if emptied {
            Bpobj::destroy(&self.mos, tx, object)?;
            mosw::zap_remove(&self.mos, tx, POOL_DIRECTORY, OBSOLETE_BPOBJ)?;
            self.ops.feature_add(tx, Feature::ObsoleteCounts, -1)?;
        }
        Ok(!emptied)
    }
}
