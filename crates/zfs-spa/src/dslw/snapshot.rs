//! Taking snapshots.

use super::dataset::DsInner;
use super::deadlist::{Deadlist, hex};
use super::{DatasetState, DirState, DslPool, Sums, UsedBy, mosw};
use parking_lot::Mutex;
use std::sync::Arc;
use zfs_dmu::Result;
use zfs_dmu::txg::Tx;
use zfs_phys::Endian;
use zfs_phys::dsl::{DS_FLAG_UNIQUE_ACCURATE, DslDatasetPhys, field};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::feature::Feature;
use zfs_zio::{Error, ErrorKind};

impl DslPool {
    /// Takes a snapshot of a head dataset whose blocks of this txg are written. `time` is in seconds since 1970; all
    /// snapshots of one request get the same.
    ///
    /// # Errors
    /// `Exists`, what [`Self::check_snapshot`] says, or `Busy` while the dataset is dirty in this txg.
    pub fn snapshot(&self, tx: &Tx, head: &Arc<DatasetState>, name: &str, time: u64) -> Result<Arc<DatasetState>> {
        if head.objset.lock().as_ref().is_some_and(|os| os.is_dirty(tx.txg())) {
            return Err(Error::new(ErrorKind::Busy, "taking a snapshot of a dataset that is being written"));
        }
        self.check_snapshot(tx, head, name)?;
        let snap = self.snapshot_as(tx, head, name, time, tx.txg())?;
        self.log_of_snap(tx, "snapshot", &snap, name, " ")?;
        Ok(snap)
    }

    /// Whether a snapshot of that name can be taken in this txg: birth times cannot tell two of one txg apart.
    ///
    /// # Errors
    /// `Exists`, `Invalid`, `NameTooLong`, or `Busy` when the dataset's newest snapshot is of this txg.
    pub fn check_snapshot(&self, tx: &Tx, head: &DatasetState, name: &str) -> Result<()> {
        self.check_tail(&head.dir(), name)?;
        if mosw::zap_get(&self.mos, head.phys().snapnames_zapobj, name)?.is_some() {
            return Err(Error::new(ErrorKind::Exists, "taking a snapshot"));
        }
        match head.phys().prev_snap_txg >= tx.txg() {
            true => Err(Error::new(ErrorKind::Busy, "taking a second snapshot in one txg")),
            false => Ok(()),
        }
    }

    pub(super) fn snapshot_as(
        &self,
        tx: &Tx,
        head: &Arc<DatasetState>,
        name: &str,
        time: u64,
        txg: u64,
    ) -> Result<Arc<DatasetState>> {
        self.adjust_count(tx, &head.dir(), field::SNAPSHOT_COUNT, 1)?;
        let from = head.phys();
        let phys = DslDatasetPhys {
            next_snap_obj: head.object,
            num_children: 1,
            creation_time: time,
            creation_txg: txg,
            fsid_guid: self.ops.guid() >> 8,
            guid: self.ops.guid(),
            snapnames_zapobj: 0,
            unique_bytes: 0,
            ..from
        };
        let object = mosw::alloc(&self.mos, tx, Ot::DSL_DATASET, Ot::DSL_DATASET, &phys.encode(Endian::NATIVE))?;
        self.relink_previous(tx, head, object)?;
        self.charge_refreservation(head)?;

        // The snapshot takes the deadlist; the head starts a new one with one more key.
        let mut new = head.deadlist.lock().clone_keys(self, tx, u64::MAX)?;
        new.add_key(self, tx, from.prev_snap_txg)?;
        for key in self.mark_keys(head, from.prev_snap_txg) {
            new.add_key(self, tx, key)?;
        }
        let new_object = new.object;
        let old: Deadlist = std::mem::replace(&mut *head.deadlist.lock(), new);
        let snap = Arc::new(DatasetState {
            object,
            home: Mutex::new(head.dir()),
            inner: Mutex::new(DsInner { phys, dirty: true, ..DsInner::default() }),
            deadlist: Mutex::new(old),
            pending: Mutex::default(),
            prev: Mutex::default(),
            objset: Mutex::default(),
            policy: Mutex::new(*head.policy.lock()),
            log_policy: Mutex::new(*head.log_policy.lock()),
            marks: Mutex::default(),
            livelist: Mutex::default(),
        });
        self.datasets.lock().insert(object, snap.clone());
        self.hand_remaps(tx, head, &snap)?;
        self.number_ivset(tx, &head.dir(), object)?;
        snap.use_features_of(self, tx, head)?;
        head.update(|p| {
            p.deadlist_obj = new_object;
            p.prev_snap_obj = object;
            p.prev_snap_txg = txg;
            p.unique_bytes = 0;
            p.flags |= DS_FLAG_UNIQUE_ACCURATE;
        });
        *head.prev.lock() = Some(snap.clone());
        mosw::zap_add(&self.mos, tx, from.snapnames_zapobj, name, object)?;
        self.snapshots_changed(tx, &head.dir())?;
        Ok(snap)
    }

    /// The snapshot before (or the origin) leads to the new snapshot instead of to the head.
    fn relink_previous(&self, tx: &Tx, head: &Arc<DatasetState>, snap: u64) -> Result<()> {
        let prev = head.prev.lock().clone();
        let Some(prev) = prev else { return Ok(()) };
        let phys = prev.phys();
        if phys.next_snap_obj == head.object {
            prev.update(|p| p.next_snap_obj = snap);
        } else if phys.next_clones_obj != 0 {
            mosw::zap_remove(&self.mos, tx, phys.next_clones_obj, &hex(head.object))?;
            mosw::zap_add(&self.mos, tx, phys.next_clones_obj, &hex(snap), snap)?;
        }
        Ok(())
    }

    /// What was unique is the snapshot's now, so the refreservation is owed in full again.
    fn charge_refreservation(&self, head: &Arc<DatasetState>) -> Result<()> {
        let delta = {
            let inner = head.inner.lock();
            inner.phys.unique_bytes.min(inner.reserved)
        };
        match delta {
            0 => Ok(()),
            delta => head.dir().diduse(UsedBy::RefReserved, Sums { used: delta as i64, ..Sums::default() }),
        }
    }

    /// Keeps the time at which a directory's snapshots last changed.
    pub(super) fn snapshots_changed(&self, tx: &Tx, dir: &Arc<DirState>) -> Result<()> {
        if !self.ops.feature_enabled(Feature::ExtensibleDataset) {
            return Ok(());
        }
        self.zapify(tx, dir.object)?;
        let (seconds, nanoseconds) = self.ops.now();
        mosw::zap_set_words(&self.mos, tx, dir.object, field::SNAPSHOTS_CHANGED, &[seconds, nanoseconds])
    }
}
