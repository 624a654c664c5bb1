//! A directory's sums: what it uses, by whom, and what its ancestors therefore use.

use super::{DslPool, Sums, add, mosw};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use zfs_dmu::Result;
use zfs_dmu::txg::Tx;
use zfs_phys::Endian;
use zfs_phys::dsl::{DD_FLAG_USED_BREAKDOWN, DslDirPhys, UsedBreakdown};

/// What uses space of a directory (`dd_used_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsedBy {
    /// The head dataset.
    Head,
    /// Its snapshots.
    Snap,
    /// Children.
    Child,
    /// Reservations of children that are not used yet.
    ChildReserved,
    /// The refreservation that is not used yet.
    RefReserved,
}

impl UsedBy {
    fn of(self, b: &mut UsedBreakdown) -> &mut u64 {
        match self {
            Self::Head => &mut b.head,
            Self::Snap => &mut b.snap,
            Self::Child => &mut b.child,
            Self::ChildReserved => &mut b.child_reserved,
            Self::RefReserved => &mut b.ref_reserved,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct DirInner {
    pub(super) phys: DslDirPhys,
    pub(super) dirty: bool,
}

impl DirInner {
    /// Adds to the totals; `by` moves between parts: `(part, amount)`. Gives what the parent's share changes by: a
    /// reservation is charged to it in full, used or not.
    fn account(&mut self, sums: Sums, by: &[(UsedBy, i64)]) -> Result<i64> {
        let old = self.phys.used_bytes;
        add(&mut self.phys.used_bytes, sums.used, "a directory uses less than nothing")?;
        add(&mut self.phys.compressed_bytes, sums.comp, "a directory's compressed size is negative")?;
        add(&mut self.phys.uncompressed_bytes, sums.uncomp, "a directory's logical size is negative")?;
        if self.phys.flags & DD_FLAG_USED_BREAKDOWN != 0 {
            for (part, amount) in by {
                add(part.of(&mut self.phys.breakdown), *amount, "a part of a directory uses less than nothing")?;
            }
        }
        self.dirty = true;
        let reserved = self.phys.reserved;
        Ok(self.phys.used_bytes.max(reserved) as i64 - old.max(reserved) as i64)
    }
}

/// A directory in memory.
#[derive(Debug)]
pub struct DirState {
    /// Object number.
    pub object: u64,
    /// The one above; changes when it is renamed.
    pub(super) above: Mutex<Option<Arc<DirState>>>,
    pub(super) inner: Mutex<DirInner>,
    /// Txg of the snapshot it was cloned from; 0 when none.
    pub(super) origin_txg: AtomicU64,
    /// Its own part of its name, once somebody asked for it by that.
    name: Mutex<Option<String>>,
}

impl DirState {
    pub(super) fn new(object: u64, above: Option<Arc<Self>>, inner: DirInner, origin_txg: u64) -> Arc<Self> {
        Arc::new(Self {
            object,
            above: Mutex::new(above),
            inner: Mutex::new(inner),
            origin_txg: AtomicU64::new(origin_txg),
            name: Mutex::default(),
        })
    }

    /// Its own part of its name, where that is known.
    pub(super) fn name(&self) -> Option<String> {
        self.name.lock().clone()
    }

    /// It stands under that name in the directory above.
    pub(super) fn is_called(&self, name: &str) {
        let mut known = self.name.lock();
        if known.as_deref() != Some(name) {
            *known = Some(name.to_owned());
        }
    }

    /// What is stored.
    pub fn phys(&self) -> DslDirPhys {
        self.inner.lock().phys
    }

    /// Space that came to (or went from) part `by`, here and in all ancestors.
    pub(super) fn diduse(&self, by: UsedBy, sums: Sums) -> Result<()> {
        let share = self.inner.lock().account(sums, &[(by, sums.used)])?;
        self.tell_parents(share, sums)
    }

    /// Like [`DirState::diduse`] when `used` of the `tonew` bytes are new and the rest comes from part `from`.
    pub(super) fn diduse_transfer(&self, sums: Sums, tonew: i64, from: UsedBy, to: UsedBy) -> Result<()> {
        let share = self.inner.lock().account(sums, &[(from, sums.used - tonew), (to, tonew)])?;
        self.tell_parents(share, sums)
    }

    /// The directory above; nothing for the pool's own.
    pub fn parent(&self) -> Option<Arc<DirState>> {
        self.above.lock().clone()
    }

    fn tell_parents(&self, share: i64, sums: Sums) -> Result<()> {
        let (mut share, mut tonew) = (share, sums.used);
        let mut at = self.parent();
        while let Some(dir) = at {
            let sums = Sums { used: share, ..sums };
            let next = {
                let by = [(UsedBy::ChildReserved, share - tonew), (UsedBy::Child, tonew)];
                dir.inner.lock().account(sums, &by)?
            };
            (tonew, share) = (share, next);
            at = dir.parent();
        }
        Ok(())
    }

    /// Moves space between parts.
    pub(super) fn transfer(&self, amount: i64, from: UsedBy, to: UsedBy) -> Result<()> {
        if amount == 0 {
            return Ok(());
        }
        self.inner.lock().account(Sums::default(), &[(from, -amount), (to, amount)]).map(drop)
    }

    /// Changes what is stored.
    pub(super) fn update(&self, f: impl FnOnce(&mut DslDirPhys)) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(object: u64, parent: Option<&Arc<DirState>>) -> Arc<DirState> {
        let phys = DslDirPhys { flags: DD_FLAG_USED_BREAKDOWN, ..Default::default() };
        DirState::new(object, parent.cloned(), DirInner { phys, dirty: false }, 0)
    }

    fn parts(d: &DirState) -> [u64; 6] {
        let p = d.phys();
        let b = p.breakdown;
        [p.used_bytes, b.head, b.snap, b.child, b.child_reserved, b.ref_reserved]
    }

    #[test]
    fn space_reaches_all_ancestors_and_a_reservation_is_charged_once() {
        let top = dir(1, None);
        let mid = dir(2, Some(&top));
        let low = dir(3, Some(&mid));
        low.diduse(UsedBy::Head, Sums { used: 100, comp: 90, uncomp: 200 }).unwrap();
        assert_eq!(parts(&low), [100, 100, 0, 0, 0, 0]);
        assert_eq!(parts(&mid), [100, 0, 0, 100, 0, 0]);
        assert_eq!(parts(&top), [100, 0, 0, 100, 0, 0]);
        assert_eq!(top.phys().uncompressed_bytes, 200);

        // A reservation of 500 on the middle one: 400 more are charged to the top.
        mid.update(|p| p.reserved = 500);
        top.diduse(UsedBy::ChildReserved, Sums { used: 400, ..Sums::default() }).unwrap();
        assert_eq!(parts(&top), [500, 0, 0, 100, 400, 0]);
        // Growing inside of it costs the top nothing.
        low.diduse(UsedBy::Head, Sums { used: 300, comp: 300, uncomp: 300 }).unwrap();
        assert_eq!(parts(&mid), [400, 0, 0, 400, 0, 0]);
        assert_eq!(parts(&top), [500, 0, 0, 400, 100, 0]);
        low.diduse(UsedBy::Head, Sums { used: 200, comp: 1, uncomp: 1 }).unwrap();
        assert_eq!(parts(&top), [600, 0, 0, 600, 0, 0]);
        low.transfer(50, UsedBy::Head, UsedBy::Snap).unwrap();
        assert_eq!(parts(&low), [600, 550, 50, 0, 0, 0]);
        assert!(low.diduse(UsedBy::Snap, Sums { used: -51, comp: 0, uncomp: 0 }).is_err());
    }
}
