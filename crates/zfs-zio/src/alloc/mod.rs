//! Deciding where new blocks go, in memory: classes, top-level vdevs, metaslabs.

mod range_tree;

pub use range_tree::{BUCKETS, RangeConflict, RangeTree};

use crate::error::Result;

/// What a top-level vdev, or a metaslab of it, is reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Everything that has no better place.
    Normal,
    /// Intent logs, on vdevs of their own.
    Log,
    /// Intent logs, on metaslabs of normal vdevs set aside for them. Chosen here, never named in a [`TopSeed`].
    EmbeddedLog,
    /// Metadata and small blocks.
    Special,
    /// Deduplication tables.
    Dedup,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 5] = [Self::Normal, Self::Log, Self::EmbeddedLog, Self::Special, Self::Dedup];
}

/// What is known of a metaslab before its space map is read. It covers `1 << metaslab_shift` bytes from
/// `index << metaslab_shift`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaslabSeed {
    /// Number within its vdev.
    pub index: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Free ranges by size, as its space map stores them: bucket `i` counts those of `2^(i + ashift)` bytes and more.
    pub histogram: Option<[u64; 32]>,
}

/// A top-level vdev that takes new blocks. Indirect vdevs, holes and vdevs being removed are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopSeed {
    /// Its number.
    pub vdev: u64,
    /// What it is for.
    pub class: Class,
    /// All metaslabs, in order of index, without gaps.
    pub metaslabs: Vec<MetaslabSeed>,
}

/// Reads the space map of a metaslab as it is in the last synced state (plus what was appended to it since) and gives
/// the free ranges, in bytes of the vdev's allocatable area. Called with (vdev, metaslab), at most once for each, with
/// that metaslab locked: it may read blocks and must not allocate or free any.
pub type Loader = Box<dyn Fn(u64, u64) -> Result<RangeTree> + Send + Sync>;

/// What one metaslab allocated and freed in a txg: to be appended to its space map, allocations before frees.
#[derive(Debug, Clone)]
pub struct MetaslabDelta {
    /// Top-level vdev.
    pub vdev: u64,
    /// Metaslab.
    pub ms: u64,
    /// Ranges allocated.
    pub alloc: RangeTree,
    /// Ranges freed; some may have been allocated in the same txg.
    pub free: RangeTree,
    /// Histogram for the space map's header, when the metaslab is loaded: all free ranges, those that wait to become
    /// allocatable included. Otherwise add `free` to what is stored.
    pub histogram: Option<[u64; 32]>,
}

/// Figures of a class or vdev, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceFigures {
    /// Allocated, as of the last finished txg.
    pub alloc: u64,
    /// Freed but not yet allocatable again.
    pub deferred: u64,
    /// Size.
    pub space: u64,
    /// Size as users count it: parity taken off.
    pub dspace: u64,
}
