//! Holds of snapshots by users: a table from a tag to the time of the hold. What is held is not destroyed.

use super::{DatasetState, DslPool, mosw};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::DS_FLAG_DEFER_DESTROY;
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_zio::{Error, ErrorKind};

impl DslPool {
    /// Holds of a snapshot.
    pub(super) fn holds_of(&self, snap: &DatasetState) -> Result<u64> {
        match snap.phys().userrefs_obj {
            0 => Ok(0),
            zap => Zap::open(&self.mos, zap)?.iter().try_fold(0, |n, entry| entry.map(|_| n + 1)),
        }
    }

    /// Holds a snapshot; `time` in seconds since 1970.
    ///
    /// # Errors
    /// `Exists` for a tag that holds it already, `Invalid` for what is no snapshot.
    pub fn hold(&self, tx: &Tx, snap: &Arc<DatasetState>, name: &str, tag: &str, time: u64) -> Result<()> {
        self.check_hold(snap, tag)?;
        let zap = match snap.phys().userrefs_obj {
            0 => {
                let zap = mosw::zap_create(&self.mos, tx, Ot::USERREFS)?;
                snap.update(|p| p.userrefs_obj = zap);
                zap
            }
            zap => zap,
        };
        mosw::zap_add(&self.mos, tx, zap, tag, time)?;
        let text = format!("tag={tag} temp=0 refs={}", self.holds_of(snap)?);
        self.log_of_snap(tx, "hold", snap, name, &text)
    }

    /// Whether [`DslPool::hold`] would do.
    ///
    /// # Errors
    /// As that.
    pub fn check_hold(&self, snap: &DatasetState, tag: &str) -> Result<()> {
        let phys = snap.phys();
        if !phys.is_snapshot() {
            return Err(Error::invalid("holding what is no snapshot"));
        }
        if phys.userrefs_obj != 0 && mosw::zap_has(&self.mos, phys.userrefs_obj, tag)? {
            return Err(Error::new(ErrorKind::Exists, "holding a snapshot"));
        }
        Ok(())
    }

    /// Whether a tag holds a snapshot.
    ///
    /// # Errors
    /// Whatever reading the table meets.
    pub fn is_held_by(&self, snap: &DatasetState, tag: &str) -> Result<bool> {
        match snap.phys().userrefs_obj {
            0 => Ok(false),
            zap => mosw::zap_has(&self.mos, zap, tag),
        }
    }

    /// Lets a snapshot go; one that waited for its last hold to end is destroyed.
    ///
    /// # Errors
    /// `NotFound` for a tag that does not hold it.
    pub fn release(&self, tx: &Tx, snap: &Arc<DatasetState>, name: &str, tag: &str) -> Result<()> {
        if !self.is_held_by(snap, tag)? {
            return Err(Error::not_found("releasing a snapshot"));
        }
        let phys = snap.phys();
        mosw::zap_remove(&self.mos, tx, phys.userrefs_obj, tag)?;
        let left = self.holds_of(snap)?;
        self.log_of_snap(tx, "release", snap, name, &format!("tag={tag} refs={left}"))?;
        if left == 0 && phys.num_children == 1 && phys.flags & DS_FLAG_DEFER_DESTROY != 0 {
            return self.destroy_snapshot(tx, snap, name, false);
        }
        Ok(())
    }
}
