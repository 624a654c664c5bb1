//! What changed and is not in the log yet, in memory.
//!
//! Changes of names are wanted by every commit; changes of what one file holds only by a commit of that file. Each note
//! has a number, by which a batch is put into the order the changes were made in. A file's notes join the others when
//! the order among files matters (a rename), and are dropped when the file goes.

use std::collections::{HashMap, HashSet, VecDeque};

/// A change that is noted.
pub(super) enum Note {
    /// The record as it will be, but for its sequence number.
    Record(Vec<u8>),
    /// A write whose data is still to be read.
    Data { object: u64, offset: u64, len: u64 },
    /// No record says what was changed: its txg has to be waited for.
    Wait,
}

/// A note with the txg it was made in.
pub(super) struct Itx {
    order: u64,
    pub(super) txg: u64,
    pub(super) note: Note,
}

/// All notes of a log.
#[derive(Default)]
pub(super) struct Notes {
    made: u64,
    names: VecDeque<Itx>,
    contents: HashMap<u64, VecDeque<Itx>>,
}

impl Notes {
    /// Adds a note; `about` is the object whose contents it tells of.
    pub(super) fn add(&mut self, txg: u64, about: Option<u64>, note: Note) {
        self.made += 1;
        let itx = Itx { order: self.made, txg, note };
        let Some(object) = about else { return self.names.push_back(itx) };
        let list = self.contents.entry(object).or_default();
        // A file that is written from front to end needs one note.
        if let (Some(last), Note::Data { offset, len, .. }) = (list.back_mut(), &itx.note)
            && let Note::Data { offset: from, len: so_far, .. } = &mut last.note
            && (last.txg, from.saturating_add(*so_far)) == (txg, *offset)
        {
            *so_far += len;
            return;
        }
        list.push_back(itx);
    }

    /// Has the notes of an object written with the next batch, whatever it is for.
    pub(super) fn settle(&mut self, object: u64) {
        self.names.extend(self.contents.remove(&object).into_iter().flatten());
    }

    /// Drops the notes of an object.
    pub(super) fn forget(&mut self, object: u64) {
        self.contents.remove(&object);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        (self.names, self.contents) = (VecDeque::new(), HashMap::new());
    }

    /// Whether a commit of `object` (of everything, when there is none) would write nothing.
    pub(super) fn is_empty(&self, object: Option<u64>) -> bool {
        let contents = match object {
            Some(object) => self.contents.get(&object).is_none_or(VecDeque::is_empty),
            None => self.contents.values().all(VecDeque::is_empty),
        };
        self.names.is_empty() && contents
    }

    /// Takes what a batch for these objects writes, but for what is on disk.
    pub(super) fn take(&mut self, wanted: &HashSet<u64>, all: bool, synced: u64) -> Vec<Itx> {
        let mut out: Vec<Itx> = std::mem::take(&mut self.names).into();
        if all {
            out.extend(std::mem::take(&mut self.contents).into_values().flatten());
        } else {
            out.extend(wanted.iter().filter_map(|object| self.contents.remove(object)).flatten());
        }
        out.retain(|itx| itx.txg > synced);
        out.sort_by_key(|itx| itx.order);
        out
    }

    /// Drops what was noted for a txg that is on disk.
    pub(super) fn txg_done(&mut self, txg: u64) {
        self.names.retain(|itx| itx.txg > txg);
        self.contents.retain(|_, list| {
            list.retain(|itx| itx.txg > txg);
            !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(object: u64, offset: u64) -> Note {
        Note::Data { object, offset, len: 10 }
    }

    fn ids(batch: &[Itx]) -> Vec<u64> {
        batch.iter().map(|i| i.order).collect()
    }

    #[test]
    fn a_batch_has_names_and_what_was_asked_for_in_order() {
        let mut notes = Notes::default();
        notes.add(5, Some(7), data(7, 0));
        notes.add(5, None, Note::Record(Vec::new()));
        notes.add(5, Some(8), data(8, 0));
        notes.add(5, Some(7), data(7, 10));
        notes.add(6, Some(7), data(7, 20));
        assert!(!notes.is_empty(Some(9)) && !notes.is_empty(None));
        let batch = notes.take(&HashSet::from([7]), false, 0);
        // The second write of 7 joined the first, the third is of another txg.
        assert_eq!(ids(&batch), [1, 2, 5]);
        assert!(matches!(batch[0].note, Note::Data { len: 20, .. }));
        assert!(notes.is_empty(Some(7)) && !notes.is_empty(Some(8)));
        notes.settle(8);
        assert!(!notes.is_empty(Some(7)));
        notes.txg_done(5);
        assert!(notes.is_empty(None));
    }

    #[test]
    fn what_is_gone_or_on_disk_is_not_written() {
        let mut notes = Notes::default();
        notes.add(5, Some(7), data(7, 0));
        notes.add(6, Some(8), Note::Wait);
        notes.forget(7);
        assert_eq!(notes.take(&HashSet::new(), true, 5).len(), 1);
        notes.add(5, None, Note::Wait);
        assert!(notes.take(&HashSet::new(), true, 5).is_empty());
    }
}
