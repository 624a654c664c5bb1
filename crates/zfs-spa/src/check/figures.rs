//! The sums a check ends with, and how they must balance.

use super::layout::{Class, ClassSpace, Layout};
use super::stats::BlockStats;
use std::collections::HashMap;

/// Sums over the whole pool, bytes unless said otherwise.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Allocated by references to deduplicated blocks beyond the first.
    pub dedup_asize: u64,
    /// Those references.
    pub dedup_blocks: u64,
    /// Allocated by references to cloned blocks beyond the first.
    pub clone_asize: u64,
    /// Those references.
    pub clone_blocks: u64,
    /// Copied by a running removal.
    pub removing: u64,
    /// Held by the checkpoint only.
    pub checkpoint: u64,
    /// Allocated minus freed in logs that space maps do not have yet.
    pub unflushed: i64,
    /// Space by class, as the space maps' headers tell.
    pub classes: HashMap<Class, ClassSpace>,
    /// Removed vdevs: number and segments of the mapping.
    pub indirect: Vec<(u64, u64)>,
    /// Allocated by all blocks visited, shared ones counted for every reference.
    pub visited: u64,
    /// Whether space maps were loaded.
    pub compared: bool,
}

impl Figures {
    /// Starts from what the layout tells.
    pub fn of(layout: &Layout, stats: &BlockStats, compared: bool) -> Self {
        let indirect = layout.vdevs.values().filter(|v| v.mapping_phys.is_some());
        Self {
            checkpoint: layout.checkpoint,
            unflushed: layout.unflushed,
            classes: layout.classes(),
            indirect: indirect.map(|v| (v.id, v.mapping.len() as u64)).collect(),
            visited: stats.sums(None, None).asize,
            compared,
            ..Self::default()
        }
    }

    /// Figures of one class.
    pub fn class(&self, class: Class) -> Option<ClassSpace> {
        self.classes.get(&class).copied()
    }

    /// Allocated, according to the space maps.
    pub fn allocated(&self) -> u64 {
        self.classes.values().map(|c| c.alloc).fold(0, u64::saturating_add).saturating_add_signed(self.unflushed)
    }

    /// Allocated, according to what was visited.
    pub fn found(&self) -> u64 {
        let shared = self.dedup_asize.saturating_add(self.clone_asize);
        self.visited.saturating_sub(shared).saturating_add(self.removing).saturating_add(self.checkpoint)
    }

    /// Whether both agree.
    pub fn is_balanced(&self) -> bool {
        !self.compared || self.allocated() == self.found()
    }
}
