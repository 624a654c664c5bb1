//! Destroying snapshots and datasets, and giving back what they held.
//!
//! A snapshot's blocks that nobody else references stand on the next dataset's deadlist: whole lists of them move to
//! the pool's list of blocks to free. The blocks of a file system are freed by a walk through its tree, in the txgs
//! after, from an entry in the pool's table of trees to free.

use super::deadlist::{Deadlist, hex};
use super::{DatasetState, DirState, DslPool, PoolOps, Sums, UsedBy, mosw};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::bpobj::{Bpobj, Enough};
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::{DS_FLAG_DEFER_DESTROY, field};
use zfs_zio::{Error, ErrorKind};

/// Most blocks freed in one txg: bounds the memory of what it changed.
pub(super) const FREES_PER_TXG: u64 = 200_000;
/// Time a txg may take for it, in milliseconds (`zfs_free_min_time_ms`; OpenZFS takes up to five seconds when nobody
/// waits for the txg).
const FREE_TIME_MS: u64 = 1000;
/// Frees between looks at the clock.
const LOOK_EVERY: u64 = 64;

/// What a txg may spend on freeing what was destroyed.
pub(super) struct Budget {
    spent: u64,
    most: u64,
    began: u64,
    over: bool,
}

fn milliseconds(ops: &dyn PoolOps) -> u64 {
    let (seconds, nanoseconds) = ops.now();
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

impl Budget {
    pub(super) fn new(ops: &dyn PoolOps, most: u64) -> Self {
        Self { spent: 0, most, began: milliseconds(ops), over: false }
    }

    /// Never spent.
    pub(super) fn endless() -> Self {
        Self { spent: 0, most: u64::MAX, began: u64::MAX, over: false }
    }

    /// Counts one block.
    pub(super) fn spend(&mut self) {
        self.spent += 1;
    }

    /// Whether the txg has had enough; never before it has freed anything.
    pub(super) fn is_spent(&mut self, ops: &dyn PoolOps) -> bool {
        if self.spent > 0 && self.spent.is_multiple_of(LOOK_EVERY) {
            // A clock that was set back counts as nothing.
            self.over |= milliseconds(ops).saturating_sub(self.began) > FREE_TIME_MS;
        }
        self.over || self.spent >= self.most
    }
}

impl DslPool {
    /// Destroys a snapshot. With `defer` one that is held or cloned goes when its last hold or clone does.
    ///
    /// # Errors
    /// `Busy` for one that is held, `Exists` for one that has clones.
    pub fn destroy_snapshot(&self, tx: &Tx, snap: &Arc<DatasetState>, name: &str, defer: bool) -> Result<()> {
        let phys = snap.phys();
        if !phys.is_snapshot() {
            return Err(Error::invalid("destroying a snapshot that is none"));
        }
        let held = self.is_held(snap)?;
        if defer && (held || phys.num_children > 1) {
            snap.update(|p| p.flags |= DS_FLAG_DEFER_DESTROY);
            return self.log_of_snap(tx, "defer_destroy", snap, name, " ");
        }
        if held {
            return Err(Error::new(ErrorKind::Busy, "destroying a snapshot that is held"));
        }
        if phys.num_children > 1 {
            return Err(Error::new(ErrorKind::Exists, "destroying a snapshot that has clones"));
        }
        self.log_of_snap(tx, "destroy", snap, name, " ")?;
        self.remove_snapshot(tx, snap, name)
    }

    fn is_held(&self, snap: &DatasetState) -> Result<bool> {
        Ok(self.holds_of(snap)? > 0)
    }

    fn remove_snapshot(&self, tx: &Tx, snap: &Arc<DatasetState>, name: &str) -> Result<()> {
        let phys = snap.phys();
        let marked = self.marks_of_destroyed(tx, snap)?;
        self.deactivate_features(tx, snap)?;
        let prev = self.unlink_previous(tx, snap)?;
        let next = self.dataset(phys.next_snap_obj)?;
        let old_unique = next.phys().unique_bytes;
        next.update(|p| {
            p.prev_snap_obj = phys.prev_snap_obj;
            p.prev_snap_txg = phys.prev_snap_txg;
        });
        self.free_unique(tx, snap, &next, prev.as_deref())?;
        self.destroy_snapshot_remaps(tx, snap, &next)?;
        if !marked {
            self.collapse_clones(tx, &snap.dir(), phys.creation_txg)?;
        }
        if next.phys().is_snapshot() {
            let after = self.dataset(next.phys().next_snap_obj)?;
            let shared = after.deadlist.lock().sums_between(self, phys.prev_snap_txg, phys.creation_txg)?;
            next.update(|p| p.unique_bytes = p.unique_bytes.saturating_add_signed(shared.used));
            let head = self.dataset(snap.dir().phys().head_dataset_obj)?;
            if !marked {
                head.deadlist.lock().remove_key(self, tx, phys.creation_txg)?;
            }
            self.collapse_remaps(tx, &head, phys.creation_txg)?;
        } else {
            *next.prev.lock() = match phys.prev_snap_obj {
                0 => None,
                object => Some(self.dataset(object)?),
            };
            next.recount_unique();
            self.credit_refreservation(&next, old_unique)?;
        }
        let head = self.dataset(snap.dir().phys().head_dataset_obj)?;
        self.snapshots_changed(tx, &snap.dir())?;
        mosw::zap_remove(&self.mos, tx, head.phys().snapnames_zapobj, name)?;
        self.adjust_count(tx, &snap.dir(), field::SNAPSHOT_COUNT, -1)?;
        for object in [phys.next_clones_obj, phys.props_obj, phys.userrefs_obj].into_iter().filter(|o| *o != 0) {
            mosw::free(&self.mos, tx, object)?;
        }
        self.datasets.lock().remove(&snap.object);
        self.free_zapified(tx, snap.object)
    }

    fn deactivate_features(&self, tx: &Tx, ds: &DatasetState) -> Result<()> {
        let features = std::mem::take(&mut ds.inner.lock().features);
        for feature in features {
            mosw::zap_remove(&self.mos, tx, ds.object, feature.guid())?;
            self.ops.feature_add(tx, feature, -1)?;
        }
        Ok(())
    }

    /// Takes a snapshot out of the chain; gives the one before when that is of the same dataset.
    fn unlink_previous(&self, tx: &Tx, snap: &Arc<DatasetState>) -> Result<Option<Arc<DatasetState>>> {
        let phys = snap.phys();
        if phys.prev_snap_obj == 0 {
            return Ok(None);
        }
        let prev = self.dataset(phys.prev_snap_obj)?;
        let of_prev = prev.phys();
        if of_prev.next_snap_obj == snap.object {
            prev.update(|p| p.next_snap_obj = phys.next_snap_obj);
            return Ok(Some(prev));
        }
        if of_prev.next_clones_obj != 0 {
            mosw::zap_remove(&self.mos, tx, of_prev.next_clones_obj, &hex(snap.object))?;
            mosw::zap_add(&self.mos, tx, of_prev.next_clones_obj, &hex(phys.next_snap_obj), phys.next_snap_obj)?;
        }
        Ok(None)
    }

    /// Moves the blocks that only this snapshot references to the pool's list, the rest of its deadlist to the next.
    fn free_unique(
        &self,
        tx: &Tx,
        snap: &Arc<DatasetState>,
        next: &Arc<DatasetState>,
        prev: Option<&DatasetState>,
    ) -> Result<()> {
        let phys = snap.phys();
        let mut dead = next.deadlist.lock();
        if let Some(prev) = prev {
            let to_prev = dead.sums_between(self, prev.phys().prev_snap_txg, phys.prev_snap_txg)?;
            prev.update(|p| p.unique_bytes = p.unique_bytes.saturating_add_signed(to_prev.used));
        }
        let freed = dead.sums_between(self, phys.prev_snap_txg, u64::MAX)?;
        snap.dir().diduse(UsedBy::Snap, freed.minus())?;
        dead.move_to(self, tx, self.free_bpobj.load(Relaxed), phys.prev_snap_txg)?;
        self.charge_free(freed)?;
        let own = Deadlist::open(self, phys.deadlist_obj)?;
        dead.merge(self, tx, own)?.destroy(self, tx)
    }

    /// Takes the key of a destroyed snapshot out of the deadlists of all clones that were made after it.
    pub(super) fn collapse_clones(&self, tx: &Tx, dir: &Arc<DirState>, txg: u64) -> Result<()> {
        let mut pending = vec![dir.clone()];
        while let Some(dir) = pending.pop() {
            let zap = dir.phys().clones;
            if zap == 0 {
                continue;
            }
            let clones: Vec<u64> =
                Zap::open(&self.mos, zap)?.iter().map(|e| e.map(|e| e.value.first())).collect::<Result<_>>()?;
            for clone in clones {
                let clone = self.dataset(clone)?;
                if clone.dir().origin_txg.load(Relaxed) > txg {
                    clone.deadlist.lock().remove_key(self, tx, txg)?;
                    self.collapse_remaps(tx, &clone, txg)?;
                    pending.push(clone.dir());
                }
            }
        }
        Ok(())
    }

    fn credit_refreservation(&self, head: &Arc<DatasetState>, old_unique: u64) -> Result<()> {
        let (unique, reserved) = {
            let inner = head.inner.lock();
            (inner.phys.unique_bytes, inner.reserved)
        };
        if old_unique >= reserved {
            return Ok(());
        }
        let credit = unique.saturating_sub(old_unique).min(reserved - old_unique) as i64;
        head.dir().diduse(UsedBy::RefReserved, Sums { used: -credit, ..Sums::default() })
    }

    /// Destroys a file system or volume that has neither snapshots nor children. Its blocks are freed in later txgs.
    ///
    /// # Errors
    /// `Exists` when it has children, snapshots or clones of them.
    pub fn destroy_head(&self, tx: &Tx, ds: &Arc<DatasetState>, path: &str) -> Result<()> {
        let phys = ds.phys();
        let prev = ds.prev.lock().take();
        if prev.as_ref().is_some_and(|p| p.phys().next_snap_obj == ds.object) {
            *ds.prev.lock() = prev;
            return Err(Error::new(ErrorKind::Exists, "destroying a dataset that has snapshots"));
        }
        let children = Zap::open(&self.mos, ds.dir().phys().child_dir_zapobj)?.iter().next().transpose()?;
        if children.is_some() {
            *ds.prev.lock() = prev;
            return Err(Error::new(ErrorKind::Exists, "destroying a dataset that has children"));
        }
        if let Err(e) = self.destroy_log(tx, ds) {
            *ds.prev.lock() = prev;
            return Err(e);
        }
        self.set_refreservation(ds, 0)?;
        self.deactivate_features(tx, ds)?;
        if let Some(prev) = &prev {
            self.leave_origin(tx, ds, prev)?;
        }
        Deadlist::open(self, phys.deadlist_obj)?.destroy(self, tx)?;
        self.destroy_remaps(tx, ds)?;
        let oldest = self.oldest_alive(ds)?;
        let by_livelist = self.queue_livelist(tx, ds)?;
        let text = match by_livelist {
            true => format!("(livelist, mintxg={oldest})"),
            false => format!("(bptree, mintxg={})", phys.prev_snap_txg),
        };
        self.log_of(tx, "destroy", ds, &text)?;
        if !by_livelist {
            self.queue_tree(tx, ds)?;
        }
        ds.dir().update(|p| p.head_dataset_obj = 0);
        mosw::free(&self.mos, tx, phys.snapnames_zapobj)?;
        self.destroy_marks(tx, ds)?;
        ds.close();
        self.datasets.lock().remove(&ds.object);
        self.free_zapified(tx, ds.object)?;
        self.destroy_dir(tx, &ds.dir(), path)?;
        match prev {
            Some(prev) => self.destroy_deferred(tx, &prev),
            None => Ok(()),
        }
    }

    fn leave_origin(&self, tx: &Tx, ds: &DatasetState, prev: &DatasetState) -> Result<()> {
        let p = prev.phys();
        if p.next_clones_obj != 0 {
            mosw::zap_remove(&self.mos, tx, p.next_clones_obj, &hex(ds.object))?;
        }
        prev.update(|p| p.num_children = p.num_children.saturating_sub(1));
        let clones = prev.dir().phys().clones;
        if clones != 0 {
            mosw::zap_remove(&self.mos, tx, clones, &hex(ds.object))?;
        }
        Ok(())
    }

    /// A snapshot that waited for this clone to go.
    fn destroy_deferred(&self, tx: &Tx, snap: &Arc<DatasetState>) -> Result<()> {
        let phys = snap.phys();
        if phys.flags & DS_FLAG_DEFER_DESTROY == 0 || phys.num_children > 1 || self.is_held(snap)? {
            return Ok(());
        }
        let head = self.dataset(snap.dir().phys().head_dataset_obj)?;
        let name = self.snap_name(&head, snap.object)?;
        self.destroy_snapshot(tx, snap, &name, false)
    }

    /// Puts the tree of a dataset into the table of trees to free.
    fn queue_tree(&self, tx: &Tx, ds: &DatasetState) -> Result<()> {
        let (of_dir, phys) = (ds.dir().phys(), ds.phys());
        let sums = Sums {
            used: of_dir.used_bytes as i64,
            comp: of_dir.compressed_bytes as i64,
            uncomp: of_dir.uncompressed_bytes as i64,
        };
        ds.dir().diduse(UsedBy::Head, sums.minus())?;
        self.charge_free(sums)?;
        self.tree_add(tx, &phys.bp, phys.prev_snap_txg, sums)
    }

    fn destroy_dir(&self, tx: &Tx, dir: &Arc<DirState>, path: &str) -> Result<()> {
        let parent = dir.parent().ok_or_else(|| Error::invalid("destroying the pool's own file system"))?;
        self.adjust_count(tx, &parent, field::FILESYSTEM_COUNT, -1)?;
        self.set_reservation(dir, 0)?;
        let phys = dir.phys();
        if phys.used_bytes != 0 {
            return Err(Error::corrupt("a directory without datasets uses space"));
        }
        for object in [phys.child_dir_zapobj, phys.props_zapobj, phys.clones, phys.deleg_zapobj] {
            if object != 0 {
                mosw::free(&self.mos, tx, object)?;
            }
        }
        self.drop_key(tx, dir)?;
        let name = path.rsplit('/').next().unwrap_or(path);
        mosw::zap_remove(&self.mos, tx, parent.phys().child_dir_zapobj, name)?;
        self.dirs.lock().remove(&dir.object);
        self.free_zapified(tx, dir.object)
    }

    /// Sets how many blocks of what was destroyed may be freed in a txg (`zfs_async_block_max_blocks`).
    pub fn set_max_frees(&self, blocks: u64) {
        self.max_frees.store(blocks, Relaxed);
    }

    /// Frees blocks that wait for it, as many as a txg can bear. Gives whether more can be freed in the next.
    ///
    /// # Errors
    /// Whatever reading and changing the lists meets. Blocks of destroyed trees that cannot be read are left.
    pub fn free_some(&self, tx: &Tx) -> Result<bool> {
        let mut budget = Budget::new(&*self.ops, self.max_frees.load(Relaxed));
        let mut sums = Sums::default();
        let list = self.free_bpobj.load(Relaxed);
        if list != 0 {
            let mut list = Bpobj::open(&self.mos, list)?;
            list.take(tx, &mut |bp, _| {
                budget.spend();
                sums = sums.plus(Sums::of(&*self.ops, bp));
                self.ops.free(tx, bp)?;
                Ok(if budget.is_spent(&*self.ops) { Enough::Yes } else { Enough::No })
            })?;
        }
        self.charge_free(sums.minus())?;
        if budget.is_spent(&*self.ops) {
            return Ok(true);
        }
        if self.free_trees(tx, &mut budget)? || self.free_livelist(tx)? {
            return Ok(true);
        }
        self.note_obsolete(tx, &mut budget)
    }
}
