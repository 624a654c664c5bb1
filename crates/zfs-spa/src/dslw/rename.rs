//! Renaming datasets and snapshots, and going back to a snapshot.

use super::{DatasetState, DirState, DslPool, Sums, UsedBy, mosw};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::{DS_FLAG_UNIQUE_ACCURATE, field};
use zfs_zio::{Error, ErrorKind};

impl DslPool {
    /// Gives a snapshot another short name.
    ///
    /// # Errors
    /// `Exists`.
    pub fn rename_snapshot(&self, tx: &Tx, snap: &Arc<DatasetState>, from: &str, to: &str) -> Result<()> {
        self.check_tail(&snap.dir(), to)?;
        let head = self.dataset(snap.dir().phys().head_dataset_obj)?;
        let names = head.phys().snapnames_zapobj;
        if mosw::zap_has(&self.mos, names, to)? {
            return Err(Error::new(ErrorKind::Exists, "renaming a snapshot"));
        }
        self.log_of_snap(tx, "rename", snap, from, &format!("-> @{to}"))?;
        mosw::zap_remove(&self.mos, tx, names, from)?;
        mosw::zap_add(&self.mos, tx, names, to, snap.object)?;
        self.snapshots_changed(tx, &snap.dir())
    }

    /// Gives the snapshot `from` of the dataset at `path` (with `below`, of everything below it that has one) the short
    /// name `to`, all or none.
    ///
    /// # Errors
    /// `NotFound` for the snapshot at `path`, `Exists`.
    pub fn rename_snapshots(&self, tx: &Tx, path: &str, from: &str, to: &str, below: bool) -> Result<()> {
        let missing = || Error::not_found("renaming a snapshot");
        let mut pending = vec![self.find_dir(path)?.ok_or_else(missing)?];
        let mut all = Vec::new();
        while let Some(dir) = pending.pop() {
            let phys = dir.phys();
            if phys.head_dataset_obj != 0 {
                let names = self.dataset(phys.head_dataset_obj)?.phys().snapnames_zapobj;
                if let Some(object) = mosw::zap_get(&self.mos, names, from)? {
                    if mosw::zap_has(&self.mos, names, to)? {
                        return Err(Error::new(ErrorKind::Exists, "renaming a snapshot"));
                    }
                    self.check_tail(&dir, to)?;
                    all.push(object);
                } else if all.is_empty() {
                    return Err(missing());
                }
            }
            if below {
                for entry in Zap::open(&self.mos, phys.child_dir_zapobj)?.iter() {
                    pending.push(self.dir(entry?.value.first())?);
                }
            }
        }
        all.into_iter().try_for_each(|snap| self.rename_snapshot(tx, &self.dataset(snap)?, from, to))
    }

    /// Bytes that come free when the snapshots from `first` to `last`, which is the same or newer, are destroyed.
    ///
    /// # Errors
    /// `Invalid` when they are not of one dataset and in that order.
    pub fn space_of_snapshots(&self, first: &Arc<DatasetState>, last: &Arc<DatasetState>) -> Result<u64> {
        let since = first.phys().prev_snap_txg;
        let (mut at, mut bytes) = (last.clone(), 0u64);
        loop {
            let phys = at.phys();
            if !phys.is_snapshot() || phys.creation_txg < first.phys().creation_txg {
                return Err(Error::invalid("snapshots that are not in a row"));
            }
            let next = self.dataset(phys.next_snap_obj)?;
            let freed = next.deadlist.lock().sums_between(self, since, u64::MAX)?;
            bytes = bytes.saturating_add_signed(freed.used);
            if at.object == first.object {
                return Ok(bytes);
            }
            at = self.dataset(phys.prev_snap_obj)?;
        }
    }

    /// Moves a file system or volume with everything below it. Paths have no pool name.
    ///
    /// # Errors
    /// `Exists`, `NotFound` for the new parent, `Invalid` for a place below itself.
    pub fn rename(&self, tx: &Tx, dir: &Arc<DirState>, from: &str, to: &str) -> Result<()> {
        self.check_path(to)?;
        self.check_below(dir, to)?;
        if self.find_dir(to)?.is_some() {
            return Err(Error::new(ErrorKind::Exists, "renaming a dataset"));
        }
        let (parent, name) = self.parent_of(to)?;
        let old = dir.parent().ok_or_else(|| Error::invalid("renaming the pool's own file system"))?;
        let mut at = Some(parent.clone());
        while let Some(above) = at {
            if above.object == dir.object {
                return Err(Error::invalid("moving a dataset below itself"));
            }
            at = above.parent();
        }
        self.check_key_move(dir, &parent)?;
        let phys = dir.phys();
        self.room_for(&parent, &old, phys.used_bytes.max(phys.reserved) as i64)?;
        let head = dir.phys().head_dataset_obj;
        let text = format!("-> {}/{to}", self.mos.zio().pool_name());
        self.ops.log(tx, "rename", Some((&self.name_of(dir)?, head)), &text)?;
        let short = from.rsplit('/').next().unwrap_or(from);
        mosw::zap_remove(&self.mos, tx, old.phys().child_dir_zapobj, short)?;
        mosw::zap_add(&self.mos, tx, parent.phys().child_dir_zapobj, name, dir.object)?;
        dir.is_called(name);
        if old.object != parent.object {
            self.move_space(tx, dir, &old, &parent)?;
        }
        self.reload_policies()
    }

    fn move_space(&self, tx: &Tx, dir: &Arc<DirState>, old: &Arc<DirState>, new: &Arc<DirState>) -> Result<()> {
        for what in [field::FILESYSTEM_COUNT, field::SNAPSHOT_COUNT] {
            let below = if dir_is_counted(self, dir)? { mosw::zap_get(&self.mos, dir.object, what)? } else { None };
            let own = i64::from(what == field::FILESYSTEM_COUNT);
            let moved = below.map_or(0, |n| n as i64) + own;
            self.adjust_count(tx, old, what, -moved)?;
            self.adjust_count(tx, new, what, moved)?;
        }
        let phys = dir.phys();
        let sums = Sums {
            used: phys.used_bytes as i64,
            comp: phys.compressed_bytes as i64,
            uncomp: phys.uncompressed_bytes as i64,
        };
        let owed = Sums { used: phys.reserved.saturating_sub(phys.used_bytes) as i64, ..Sums::default() };
        old.diduse(UsedBy::Child, sums.minus())?;
        old.diduse(UsedBy::ChildReserved, owed.minus())?;
        dir.update(|p| p.parent_obj = new.object);
        *dir.above.lock() = Some(new.clone());
        new.diduse(UsedBy::Child, sums)?;
        new.diduse(UsedBy::ChildReserved, owed)
    }

    /// Throws away what a dataset became since its newest snapshot. Its object set must not be in use; it is opened
    /// anew by who needs it.
    ///
    /// # Errors
    /// `Busy` while the dataset is dirty, `NotFound` when it has no snapshot.
    pub fn rollback(&self, tx: &Tx, head: &Arc<DatasetState>) -> Result<()> {
        if head.objset.lock().as_ref().is_some_and(|os| os.is_dirty(tx.txg()) || os.is_dirty(tx.txg() + 1)) {
            return Err(Error::new(ErrorKind::Busy, "rolling back a dataset that is being written"));
        }
        if head.phys().prev_snap_txg >= tx.txg() {
            return Err(Error::new(ErrorKind::Busy, "rolling back to a snapshot of this txg"));
        }
        let snap = head.prev.lock().clone().filter(|p| p.phys().next_snap_obj == head.object);
        let snap = snap.ok_or_else(|| Error::not_found("rolling back a dataset that has no snapshot"))?;
        if self.newest_mark(head) > snap.phys().creation_txg {
            return Err(Error::new(ErrorKind::Exists, "rolling back to before a bookmark"));
        }
        self.destroy_log(tx, head)?;
        self.remove_livelist(tx, &head.dir())?;
        let (now, then) = (head.phys(), snap.phys());
        let mut dead = head.deadlist.lock();
        let mut freed = Sums::default();
        if now.bp.birth() > now.prev_snap_txg {
            // What was written since: the difference, and what the snapshot has and the head let go.
            freed = Sums::referenced(&now).plus(Sums::referenced(&then).minus()).plus(dead.sums());
            self.charge_free(freed)?;
            self.tree_add(tx, &now.bp, now.prev_snap_txg, freed)?;
        }
        let moved = dead.sums_between(self, head.dir().origin_txg.load(Relaxed), u64::MAX)?;
        let shared = dead.sums_between(self, then.prev_snap_txg, u64::MAX)?;
        let fresh = dead.clone_keys(self, tx, u64::MAX)?;
        let deadlist_obj = fresh.object;
        std::mem::replace(&mut *dead, fresh).destroy(self, tx)?;
        drop(dead);
        self.destroy_remaps(tx, head)?;
        let delta = {
            let mut inner = head.inner.lock();
            let delta = inner.parent_delta(-freed.used);
            inner.phys = zfs_phys::dsl::DslDatasetPhys {
                deadlist_obj,
                referenced_bytes: then.referenced_bytes,
                compressed_bytes: then.compressed_bytes,
                uncompressed_bytes: then.uncompressed_bytes,
                unique_bytes: 0,
                bp: then.bp,
                flags: now.flags | DS_FLAG_UNIQUE_ACCURATE,
                ..now
            };
            inner.dirty = true;
            delta
        };
        let less = freed.minus();
        head.dir().diduse_transfer(Sums { used: delta, ..less }, less.used, UsedBy::RefReserved, UsedBy::Head)?;
        head.dir().transfer(moved.used, UsedBy::Snap, UsedBy::Head)?;
        snap.update(|p| p.unique_bytes = p.unique_bytes.saturating_add_signed(-shared.used));
        head.close();
        self.marks_next_changed(tx, head, &snap)?;
        self.log_rollback(tx, head, now.prev_snap_txg)?;
        self.zero_log(tx, head)
    }
}

impl DslPool {
    /// Says what OpenZFS says, which swaps the head with a clone of the snapshot and destroys that.
    fn log_rollback(&self, tx: &Tx, head: &DatasetState, min_txg: u64) -> Result<()> {
        let name = self.name_of(&head.dir())?;
        let short = name.rsplit('/').next().unwrap_or(&name);
        let of = format!("{name}/%rollback");
        self.ops.log(tx, "clone swap", Some((&of, head.object)), &format!("parent={short}"))?;
        self.ops.log(tx, "destroy", Some((&of, head.object)), &format!("(bptree, mintxg={min_txg})"))
    }
}

/// Whether a directory has a table of its own fields.
fn dir_is_counted(pool: &DslPool, dir: &DirState) -> Result<bool> {
    Ok(pool.mos.dnode(dir.object)?.phys().object_type.is_zap())
}
