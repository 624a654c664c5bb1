//! Space set aside for changes before they are made, so that the sync of a txg never runs out of it
//! (`dsl_dir_tempreserve_space`).
//!
//! Every transaction says about how much it will write. That much counts as taken, by its txg, in the dataset, its
//! directory and all above, until the txg is on disk and the real sums have it. While sums and what is under way
//! together reach a limit, a transaction is put off until a txg later; only sums that reach it by themselves are an
//! error: so quotas are met within what one transaction writes.
//!
//! The pool keeps a part back (slop): what was under-estimated and the meta object set's own growth go into it, and
//! half of it is open to changes that free space, so that a full pool can be emptied.
//!
//! Rejected: worst cases (24 times the size, as OpenZFS assumes). Sums are conservative without, because a syncing txg
//! counts twice for as long as it syncs, and small pools would crawl long before they are full.

use super::{DatasetState, DirState, DslPool};
use std::sync::Arc;
use zfs_dmu::txg::TXG_SIZE;
use zfs_dmu::{Result, Room};
use zfs_zio::{Error, ErrorKind};

/// Bytes under way, by txg modulo `TXG_SIZE`.
pub(super) type UnderWay = [u64; TXG_SIZE as usize];

/// Space of a pool that datasets share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolRoom {
    /// Usable bytes.
    pub size: u64,
    /// Kept back of those.
    pub slop: u64,
    /// Freed, but not to be allocated before some txgs have passed, or a checkpoint is gone.
    pub deferred: u64,
}

/// Share of the pool kept back, as a shift (`spa_slop_shift`), and bounds of it (`spa_min_slop`, `spa_max_slop`).
const SLOP_SHIFT: u32 = 5;
const SLOP_MIN: u64 = 128 << 20;
const SLOP_MAX: u64 = 128 << 30;

impl PoolRoom {
    /// No limit at all.
    pub const ENDLESS: Self = Self { size: u64::MAX, slop: 0, deferred: 0 };

    /// The room of a pool of `size` usable bytes, with `embedded` more set aside for logs (`spa_get_slop_space`).
    pub fn new(size: u64, embedded: u64, deferred: u64) -> Self {
        let slop = (size >> SLOP_SHIFT).min(SLOP_MAX);
        let slop = slop - embedded.min(slop >> 1);
        Self { size, slop: slop.max((size >> 1).min(SLOP_MIN)), deferred }
    }
}

/// What a change asks for.
pub(super) struct Ask {
    /// Bytes, about.
    pub(super) need: u64,
    /// It frees more than it takes.
    pub(super) freeing: bool,
    /// It can wait for what is under way.
    pub(super) patient: bool,
}

impl Ask {
    /// What a limit says: sums stand at `used`, with `under_way` more.
    fn judge(&self, used: u64, under_way: u64, limit: u64, kind: ErrorKind) -> Result<Room> {
        let under_way = if self.patient { under_way } else { 0 };
        if used.saturating_add(under_way) < limit {
            Ok(Room::Fits)
        } else if under_way > 0 {
            // Which may free as well as take.
            Ok(Room::Later)
        } else {
            Err(Error::new(kind, "setting space aside"))
        }
    }

    /// The same for a quota, which does not count for changes that free; 0 is none.
    fn judge_quota(&self, used: u64, under_way: u64, quota: u64) -> Result<Room> {
        if quota == 0 || self.freeing {
            return Ok(Room::Fits);
        }
        self.judge(used, under_way, quota, ErrorKind::Quota)
    }
}

impl DslPool {
    /// Sets space aside for a change of dataset `ds`.
    pub(super) fn reserve(&self, ds: &DatasetState, txg: u64, ask: &Ask) -> Result<Room> {
        let mut all = self.under_way.lock();
        let sum = |object: u64| all.get(&object).map_or(0, |t| t.iter().sum::<u64>());
        let (mut amount, own) = (ask.need, sum(ds.object));
        {
            let inner = ds.inner.lock();
            if ask.judge_quota(inner.phys.referenced_bytes, own, inner.quota)? == Room::Later {
                return Ok(Room::Later);
            }
            // What was promised to it is charged already.
            let promised = inner.reserved.saturating_sub(inner.phys.unique_bytes.saturating_add(own));
            amount = amount.saturating_sub(promised);
        }
        let mut charged: Vec<(Arc<DirState>, u64)> = Vec::new();
        let mut at = Some(ds.dir().clone());
        while let Some(dir) = at.take_if(|_| amount > 0) {
            let (phys, way) = (dir.phys(), sum(dir.object));
            if ask.judge_quota(phys.used_bytes, way, phys.quota)? == Room::Later {
                return Ok(Room::Later);
            }
            let above = dir.parent();
            if above.is_none() && self.judge_pool(phys.used_bytes, way, ask)? == Room::Later {
                return Ok(Room::Later);
            }
            let before = phys.used_bytes.saturating_add(way).max(phys.reserved);
            let after = phys.used_bytes.saturating_add(way).saturating_add(amount).max(phys.reserved);
            charged.push((dir, amount));
            (amount, at) = (after - before, above);
        }
        let mut add = |object: u64, bytes: u64| {
            if let Some(t) = all.entry(object).or_default().get_mut((txg % TXG_SIZE) as usize) {
                *t = t.saturating_add(bytes);
            }
        };
        add(ds.object, ask.need);
        charged.into_iter().for_each(|(dir, bytes)| add(dir.object, bytes));
        Ok(Room::Fits)
    }

    fn judge_pool(&self, used: u64, under_way: u64, ask: &Ask) -> Result<Room> {
        let room = self.ops.room();
        let kept = if ask.freeing { room.slop >> 1 } else { room.slop };
        // What was freed lately is not there yet.
        let waiting = under_way.saturating_add(room.deferred);
        ask.judge(used, waiting, room.size.saturating_sub(kept), ErrorKind::NoSpace)
    }

    /// The sums on disk have what was set aside for a txg.
    pub(super) fn settled(&self, txg: u64) {
        self.under_way.lock().retain(|_, t| {
            if let Some(t) = t.get_mut((txg % TXG_SIZE) as usize) {
                *t = 0;
            }
            t.iter().any(|bytes| *bytes > 0)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_wait_for_what_is_under_way_and_then_refuse() {
        let mut ask = Ask { need: 1, freeing: false, patient: true };
        let kind = |ask: &Ask, used, way| ask.judge_quota(used, way, 100).map_err(|e| e.kind());
        assert_eq!(kind(&ask, 99, 0), Ok(Room::Fits));
        assert_eq!(kind(&ask, 50, 50), Ok(Room::Later));
        assert_eq!(kind(&ask, 100, 1), Ok(Room::Later));
        assert_eq!(kind(&ask, 100, 0), Err(ErrorKind::Quota));
        ask.patient = false;
        assert_eq!(kind(&ask, 50, 50), Ok(Room::Fits));
        assert_eq!(kind(&ask, 100, 10), Err(ErrorKind::Quota));
        ask.freeing = true;
        assert_eq!(kind(&ask, 100, 10), Ok(Room::Fits));
    }

    #[test]
    fn a_part_is_kept_back() {
        assert_eq!(PoolRoom::new(100 << 20, 0, 0).slop, 50 << 20);
        assert_eq!(PoolRoom::new(1 << 40, 1 << 30, 0).slop, (32 << 30) - (1 << 30));
    }
}
