//! Bookmarks while their datasets change: each that counts keeps the sum of what was freed between its snapshot and
//! the next one (or the head), from which `written#mark` is told once the snapshot itself is gone.
//!
//! A head has its bookmarks in memory, in order of their txg; those at or after its newest snapshot change with every
//! block that dies, and are stored once in a pass. A bookmark that counts keeps the key of its txg in deadlists when
//! its snapshot goes: the sums between such keys are what it needs.

use super::{DatasetState, DslPool, Sums, mosw};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::{BookmarkPhys, DslDatasetPhys, ZBM_FLAG_HAS_FBN, ZBM_FLAG_SNAPSHOT_EXISTS, field};
use zfs_phys::feature::Feature;
use zfs_phys::zap::NORM_TOUPPER;
use zfs_zio::{Error, ErrorKind};

/// Words of a bookmark's entry: at first, and since there is more to say.
const WORDS: (usize, usize) = (3, 12);

/// A bookmark of a head.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    name: String,
    phys: BookmarkPhys,
    dirty: bool,
}

impl Mark {
    fn counts(&self) -> bool {
        self.phys.flags & ZBM_FLAG_HAS_FBN != 0
    }

    #[cfg(test)]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    #[cfg(test)]
    pub(super) fn phys(&self) -> &BookmarkPhys {
        &self.phys
    }

    fn grow(&mut self, by: Sums) {
        let by = [by.used, by.comp, by.uncomp];
        for (sum, by) in self.phys.freed_before_next_snap.iter_mut().zip(by) {
            *sum = sum.saturating_add_signed(by);
        }
        self.dirty = true;
    }
}

impl DatasetState {
    /// A block of the head died: bookmarks since the newest snapshot that knew it count it.
    pub(super) fn mark_killed(&self, birth: u64, prev_snap_txg: u64, sums: Sums) {
        for mark in self.marks.lock().iter_mut().rev() {
            if mark.phys.creation_txg < prev_snap_txg {
                break;
            }
            if mark.counts() && birth <= mark.phys.creation_txg {
                mark.grow(sums);
            }
        }
    }
}

impl DslPool {
    /// The bookmarks of a head; none for a snapshot.
    pub(super) fn load_marks(&self, object: u64, phys: &DslDatasetPhys) -> Result<Vec<Mark>> {
        let mut out = Vec::new();
        if phys.is_snapshot() || !self.mos.dnode(object)?.phys().object_type.is_zap() {
            return Ok(out);
        }
        let Some(zap) = mosw::zap_get(&self.mos, object, field::BOOKMARK_NAMES)? else { return Ok(out) };
        for entry in Zap::open(&self.mos, zap)?.iter() {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            out.push(Mark { name, phys: BookmarkPhys::from_words(&entry.value.u64s()), dirty: false });
        }
        out.sort_by(|a, b| (a.phys.creation_txg, &a.name).cmp(&(b.phys.creation_txg, &b.name)));
        Ok(out)
    }

    fn marks_zap(&self, head: &DatasetState) -> Result<Option<u64>> {
        if !self.mos.dnode(head.object)?.phys().object_type.is_zap() {
            return Ok(None);
        }
        mosw::zap_get(&self.mos, head.object, field::BOOKMARK_NAMES)
    }

    /// Stores the bookmarks of a head that changed.
    pub(super) fn store_marks(&self, tx: &Tx, head: &DatasetState) -> Result<()> {
        let dirty: Vec<Mark> = {
            let mut marks = head.marks.lock();
            let dirty = marks.iter().filter(|m| m.dirty).cloned().collect();
            marks.iter_mut().for_each(|m| m.dirty = false);
            dirty
        };
        if dirty.is_empty() {
            return Ok(());
        }
        let zap = self.marks_zap(head)?.ok_or_else(|| Error::corrupt("bookmarks without their table"))?;
        dirty.iter().try_for_each(|m| mosw::zap_set_words(&self.mos, tx, zap, &m.name, &m.phys.to_words()))
    }

    /// Makes a bookmark of a snapshot or of another bookmark. Names have no pool name.
    ///
    /// # Errors
    /// `Exists`, `NotFound` for either dataset, `CrossDevice` when the source is not older than the new one's dataset,
    /// `Unsupported` without the feature.
    pub fn bookmark(&self, tx: &Tx, source: &str, name: &str) -> Result<()> {
        if !self.ops.feature_enabled(Feature::Bookmarks) {
            return Err(Error::unsupported("making a bookmark"));
        }
        let missing = || Error::not_found("making a bookmark");
        let (path, short) = name.split_once('#').ok_or_else(|| Error::invalid("a bookmark without a name"))?;
        let head = self.find(path)?.ok_or_else(missing)?;
        self.check_tail(&head.dir(), short)?;
        if head.marks.lock().iter().any(|m| m.name == short) {
            return Err(Error::new(ErrorKind::Exists, "making a bookmark"));
        }
        let (mut phys, of, text) = match source.split_once('#') {
            Some((path, from)) => {
                let of = self.find(path)?.ok_or_else(missing)?;
                let mark = of.marks.lock().iter().find(|m| m.name == from).cloned().ok_or_else(missing)?;
                let text = format!("source_guid={}", mark.phys.guid);
                (mark.phys, of, text)
            }
            None => {
                let snap = self.find(source)?.filter(|s| s.phys().is_snapshot()).ok_or_else(missing)?;
                let text = format!("target_snap={} redact_obj=0", snap.object);
                (self.mark_of(&snap)?, snap, text)
            }
        };
        if !self.is_before(&head, &of, phys.creation_txg)? {
            return Err(Error::new(ErrorKind::CrossDevice, "making a bookmark of something that is no ancestor"));
        }
        phys.redaction_obj = 0;
        if phys.flags & ZBM_FLAG_HAS_FBN != 0 {
            self.ops.feature_add(tx, Feature::BookmarkWritten, 1)?;
        }
        let txg = phys.creation_txg;
        self.mark_add(tx, &head, Mark { name: short.to_owned(), phys, dirty: false }, true)?;
        let text = format!("name={short} creation_txg={txg} {text}");
        self.log_of(tx, "bookmark", &head, &text)
    }

    /// What a bookmark of `snap` says.
    fn mark_of(&self, snap: &DatasetState) -> Result<BookmarkPhys> {
        let s = snap.phys();
        let mut phys = BookmarkPhys {
            guid: s.guid,
            creation_txg: s.creation_txg,
            creation_time: s.creation_time,
            words: WORDS.0,
            ..BookmarkPhys::default()
        };
        if snap.features_lists(self, field::IVSET_GUID)? && self.ops.feature_enabled(Feature::BookmarkV2) {
            phys.ivset_guid = mosw::zap_get(&self.mos, snap.object, field::IVSET_GUID)?.unwrap_or(0);
        }
        if self.ops.feature_enabled(Feature::BookmarkWritten) {
            let dead = self.dataset(s.next_snap_obj)?.deadlist.lock().sums();
            phys.flags = ZBM_FLAG_SNAPSHOT_EXISTS | ZBM_FLAG_HAS_FBN;
            phys.referenced = [s.referenced_bytes, s.compressed_bytes, s.uncompressed_bytes];
            phys.freed_before_next_snap = [dead.used as u64, dead.comp as u64, dead.uncomp as u64];
        }
        Ok(phys)
    }

    /// Whether what `earlier` was in `txg` is part of the history of `later`.
    fn is_before(&self, later: &DatasetState, earlier: &DatasetState, txg: u64) -> Result<bool> {
        let of = earlier.dir().object;
        let mut at = later.dir();
        let mut limit = if later.phys().is_snapshot() { later.phys().creation_txg } else { u64::MAX };
        loop {
            if txg >= limit && at.object != of {
                return Ok(false);
            }
            if at.object == of {
                return Ok(txg <= limit);
            }
            let origin = at.phys().origin_obj;
            if origin == 0 || origin == *self.origin_snap.lock() {
                return Ok(false);
            }
            let origin = self.dataset(origin)?;
            limit = origin.phys().creation_txg;
            if origin.object == earlier.object {
                return Ok(true);
            }
            at = origin.dir();
        }
    }

    /// Puts a bookmark into a head's table, which is made when there is none. One that only moves is counted already.
    fn mark_add(&self, tx: &Tx, head: &DatasetState, mut mark: Mark, new: bool) -> Result<()> {
        let zap = match self.marks_zap(head)? {
            Some(zap) => zap,
            None => {
                let zap = mosw::zap_create_norm(&self.mos, tx, mosw::ZAP_METADATA, NORM_TOUPPER)?;
                self.ops.feature_add(tx, Feature::Bookmarks, 1)?;
                self.zapify(tx, head.object)?;
                mosw::zap_add(&self.mos, tx, head.object, field::BOOKMARK_NAMES, zap)?;
                zap
            }
        };
        let p = &mark.phys;
        if new {
            let more = p.ivset_guid != 0 || p.flags & ZBM_FLAG_HAS_FBN != 0 || p.redaction_obj != 0;
            mark.phys.words = WORDS.0;
            if more && self.ops.feature_enabled(Feature::BookmarkV2) {
                mark.phys.words = WORDS.1;
                self.ops.feature_add(tx, Feature::BookmarkV2, 1)?;
            }
        }
        mosw::zap_set_words(&self.mos, tx, zap, &mark.name, &mark.phys.to_words())?;
        let mut marks = head.marks.lock();
        marks.push(mark);
        marks.sort_by(|a, b| (a.phys.creation_txg, &a.name).cmp(&(b.phys.creation_txg, &b.name)));
        Ok(())
    }

    /// Destroys a bookmark; one that does not exist is no error.
    ///
    /// # Errors
    /// Whatever writing the meta object set meets.
    pub fn destroy_bookmark(&self, tx: &Tx, head: &Arc<DatasetState>, path: &str, name: &str) -> Result<()> {
        let mark = {
            let mut marks = head.marks.lock();
            let Some(at) = marks.iter().position(|m| m.name == name) else { return Ok(()) };
            marks.remove(at)
        };
        let zap = self.marks_zap(head)?.ok_or_else(|| Error::corrupt("bookmarks without their table"))?;
        self.mark_uncount(tx, &mark)?;
        let txg = mark.phys.creation_txg;
        let others = head.marks.lock().iter().any(|m| m.counts() && m.phys.creation_txg == txg);
        let alone = mark.counts() && mark.phys.flags & ZBM_FLAG_SNAPSHOT_EXISTS == 0 && !others;
        if alone && txg < head.phys().prev_snap_txg {
            self.collapse_clones(tx, &head.dir(), txg)?;
            head.deadlist.lock().remove_key(self, tx, txg)?;
        }
        mosw::zap_remove(&self.mos, tx, zap, name)?;
        if head.marks.lock().is_empty() {
            mosw::free(&self.mos, tx, zap)?;
            self.ops.feature_add(tx, Feature::Bookmarks, -1)?;
            mosw::zap_remove(&self.mos, tx, head.object, field::BOOKMARK_NAMES)?;
        }
        self.ops.log(tx, "remove bookmark", Some((&self.full_name(path), head.object)), &format!("name={name}"))
    }

    /// Takes back the uses of features of a bookmark that goes, with its redaction list.
    fn mark_uncount(&self, tx: &Tx, mark: &Mark) -> Result<()> {
        if mark.phys.words > WORDS.0 {
            self.ops.feature_add(tx, Feature::BookmarkV2, -1)?;
        }
        if mark.counts() {
            self.ops.feature_add(tx, Feature::BookmarkWritten, -1)?;
        }
        if mark.phys.redaction_obj != 0 {
            if self.mos.dnode(mark.phys.redaction_obj)?.spill()?.is_some() {
                self.ops.feature_add(tx, Feature::RedactionListSpill, -1)?;
            }
            mosw::free(&self.mos, tx, mark.phys.redaction_obj)?;
            self.ops.feature_add(tx, Feature::RedactionBookmarks, -1)?;
        }
        Ok(())
    }

    /// The head of these bookmarks goes.
    pub(super) fn destroy_marks(&self, tx: &Tx, head: &DatasetState) -> Result<()> {
        let Some(zap) = self.marks_zap(head)? else { return Ok(()) };
        let marks = std::mem::take(&mut *head.marks.lock());
        marks.iter().try_for_each(|m| self.mark_uncount(tx, m))?;
        mosw::free(&self.mos, tx, zap)?;
        self.ops.feature_add(tx, Feature::Bookmarks, -1)
    }

    /// Txg of the newest bookmark of a head; 0 without any.
    pub(super) fn newest_mark(&self, head: &DatasetState) -> u64 {
        head.marks.lock().last().map_or(0, |m| m.phys.creation_txg)
    }

    /// Txgs after `after` at which bookmarks that count need a key in the deadlist of a head that was snapshotted.
    pub(super) fn mark_keys(&self, head: &DatasetState, after: u64) -> Vec<u64> {
        let marks = head.marks.lock();
        let mut keys: Vec<u64> = marks.iter().filter(|m| m.counts()).map(|m| m.phys.creation_txg).collect();
        keys.retain(|txg| *txg > after);
        keys.dedup();
        keys
    }

    /// A snapshot goes: bookmarks before it have another next snapshot, those of it no snapshot. Gives whether the key
    /// of its txg is needed still.
    pub(super) fn marks_of_destroyed(&self, tx: &Tx, snap: &DatasetState) -> Result<bool> {
        let phys = snap.phys();
        let head = self.dataset(snap.dir().phys().head_dataset_obj)?;
        let next = self.dataset(phys.next_snap_obj)?;
        let mut needed = false;
        {
            let mut marks = head.marks.lock();
            for mark in marks.iter_mut().filter(|m| m.counts()) {
                let txg = mark.phys.creation_txg;
                if (phys.prev_snap_txg..phys.creation_txg).contains(&txg) {
                    let more = next.deadlist.lock().sums_between(self, 0, txg)?;
                    mark.grow(more);
                } else if txg == phys.creation_txg {
                    mark.phys.flags &= !ZBM_FLAG_SNAPSHOT_EXISTS;
                    mark.dirty = true;
                    needed = true;
                }
            }
        }
        self.store_marks(tx, &head)?;
        Ok(needed)
    }

    /// What follows `origin` in the dataset `head` is another now.
    pub(super) fn marks_next_changed(&self, tx: &Tx, head: &DatasetState, origin: &DatasetState) -> Result<()> {
        let txg = origin.phys().creation_txg;
        let fresh = self.mark_of(origin)?;
        for mark in head.marks.lock().iter_mut().filter(|m| m.counts() && m.phys.creation_txg == txg) {
            mark.phys = BookmarkPhys { redaction_obj: mark.phys.redaction_obj, words: mark.phys.words, ..fresh };
            mark.dirty = true;
        }
        self.store_marks(tx, head)
    }

    /// Moves the bookmarks up to `txg` from one head to another.
    pub(super) fn move_marks(&self, tx: &Tx, from: &DatasetState, to: &DatasetState, txg: u64) -> Result<()> {
        let moved: Vec<Mark> = {
            let mut marks = from.marks.lock();
            let at = marks.partition_point(|m| m.phys.creation_txg <= txg);
            marks.drain(..at).collect()
        };
        if moved.is_empty() {
            return Ok(());
        }
        let zap = self.marks_zap(from)?.ok_or_else(|| Error::corrupt("bookmarks without their table"))?;
        for mark in moved {
            mosw::zap_remove(&self.mos, tx, zap, &mark.name)?;
            self.mark_add(tx, to, mark, false)?;
        }
        Ok(())
    }

    /// Names of a head's bookmarks up to `txg` that another head has, too.
    pub(super) fn marks_in_conflict(&self, from: &DatasetState, to: &DatasetState, txg: u64) -> Vec<String> {
        let there: Vec<String> = to.marks.lock().iter().map(|m| m.name.clone()).collect();
        let marks = from.marks.lock();
        let moved = marks.iter().filter(|m| m.phys.creation_txg <= txg).map(|m| m.name.clone());
        moved.filter(|n| there.contains(n)).collect()
    }
}

impl DatasetState {
    fn features_lists(&self, pool: &DslPool, name: &str) -> Result<bool> {
        let is_table = pool.mos.dnode(self.object)?.phys().object_type.is_zap();
        Ok(is_table && mosw::zap_has(&pool.mos, self.object, name)?)
    }
}
