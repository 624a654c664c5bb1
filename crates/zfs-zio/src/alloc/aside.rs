//! Space that is freed and does not become free: what a checkpoint still refers to, and what lay on a removed vdev.
//!
//! Blocks that were there when the checkpoint was made stay allocated on their metaslab; the vdev's checkpoint space map
//! notes that only the checkpoint has them (`com.delphix:pool_checkpoint_sm`). Of a removed vdev the ranges that nothing
//! refers to any more are noted, so that its mapping can be made smaller some day (`com.delphix:indirect_obsolete_sm`).
//! Both are collected here while a txg syncs, and written down by the layer above.

use super::RangeTree;
use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a freed range is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aside {
    /// The checkpoint refers to it.
    Checkpointed,
    /// It lies on a removed vdev.
    Obsolete,
}

/// Ranges freed in a txg that did not become free.
#[derive(Debug, Clone)]
pub struct AsideDelta {
    /// Top-level vdev.
    pub vdev: u64,
    /// Why.
    pub kind: Aside,
    /// Which, in bytes of the vdev's allocatable area.
    pub ranges: RangeTree,
}

/// What was set aside and not yet taken.
#[derive(Default)]
pub(super) struct SetAside {
    /// Txg of the checkpoint; 0 when there is none.
    checkpoint: AtomicU64,
    ranges: Mutex<BTreeMap<(u64, Aside), RangeTree>>,
}

impl SetAside {
    pub(super) fn set_checkpoint(&self, txg: u64) {
        self.checkpoint.store(txg, Ordering::Relaxed);
    }

    /// Whether the checkpoint refers to a block born in `birth` that is freed in `txg`.
    pub(super) fn is_checkpointed(&self, birth: u64, txg: u64) -> bool {
        let checkpoint = self.checkpoint.load(Ordering::Relaxed);
        birth <= checkpoint && txg > checkpoint
    }

    pub(super) fn add(&self, vdev: u64, kind: Aside, start: u64, size: u64) -> Result<()> {
        let mut ranges = self.ranges.lock();
        let added = ranges.entry((vdev, kind)).or_default().add(start, start.saturating_add(size));
        added.map_err(|c| {
            let text = format!("freeing what was freed: {:#x} to {:#x} of vdev {vdev}", c.start, c.end);
            Error::new(ErrorKind::Bug, text)
        })
    }

    pub(super) fn take(&self) -> Vec<AsideDelta> {
        let all = std::mem::take(&mut *self.ranges.lock());
        all.into_iter().map(|((vdev, kind), ranges)| AsideDelta { vdev, kind, ranges }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_keeps_what_is_older() {
        let aside = SetAside::default();
        assert!(!aside.is_checkpointed(5, 20));
        aside.set_checkpoint(10);
        assert!(aside.is_checkpointed(10, 11) && !aside.is_checkpointed(11, 12));
        assert!(!aside.is_checkpointed(9, 10), "the checkpoint's own txg frees as usual");
    }

    #[test]
    fn ranges_are_taken_once_and_not_freed_twice() {
        let aside = SetAside::default();
        aside.add(1, Aside::Obsolete, 4096, 4096).unwrap();
        aside.add(1, Aside::Checkpointed, 4096, 4096).unwrap();
        assert_eq!(aside.add(1, Aside::Obsolete, 0, 8192).unwrap_err().kind(), ErrorKind::Bug);
        let taken = aside.take();
        assert_eq!(taken.iter().map(|t| t.kind).collect::<Vec<_>>(), [Aside::Checkpointed, Aside::Obsolete]);
        assert!(aside.take().is_empty());
    }
}
