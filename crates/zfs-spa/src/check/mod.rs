//! The whole-pool check: every block reachable from the root is visited once, verified, counted by type, and marked
//! in an image of the pool's space; what is marked is then compared with what the space maps say is allocated.
//!
//! A block belongs to exactly one visit: the meta object set is walked whole, each dataset only for blocks born after
//! its previous snapshot, and blocks that no dataset has any more are found in the lists of what is to be freed.
//! Blocks shared on purpose are told apart by the reference counts of the deduplication and clone tables ([`refs`]).
//! What a checkpoint holds, and what a running removal has copied, is taken out or claimed separately.
//!
//! The walk runs on several threads: the traversal of an object set hands out small batches of pointers, and each
//! thread reads and verifies the blocks it was handed, so one large file keeps all of them busy. Nothing is locked for
//! a block but the thread's own statistics; marking space is an atomic operation ([`space`]).
//!
//! Nothing stops the check but the caller: whatever cannot be read or makes no sense becomes a [`Problem`], of which a
//! bounded number is kept.
//!
//! Rejected alternative: checking births against deadlists. It would verify the bookkeeping of snapshots as well, but
//! trusts it to find what is reachable.

pub mod dedup;
mod figures;
pub mod layout;
mod pending;
pub mod refs;
pub mod space;
pub mod stats;
mod walk;

use crate::pool::Pool;
use space::{ClaimError, Segment};
use stats::BlockStats;
use std::collections::HashMap;
use zfs_phys::BlkPtr;
use zfs_phys::dnode::DnodePhys;
use zfs_zio::{Error, ErrorKind, Result, Zbookmark};

pub use figures::Figures;
pub use layout::{Class, ClassSpace, Layout};

/// What to read and compare with checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Nothing besides what must be read to find the other blocks.
    #[default]
    Nothing,
    /// All copies of all metadata.
    Metadata,
    /// All copies of everything.
    Everything,
}

/// Called for every block pointer: its place, itself, and its object when it has one.
pub type OnBlock<'a> = &'a (dyn Fn(Option<&Zbookmark>, &BlkPtr, Option<&DnodePhys>) + Sync);

/// How to check.
#[derive(Clone, Copy)]
pub struct CheckOptions<'a> {
    /// What to verify.
    pub verify: Verify,
    /// Load the space maps, and compare what is allocated with what is reachable.
    pub leaks: bool,
    /// Keep a histogram of physical sizes for every type and level.
    pub histograms: bool,
    /// Threads; 0 for twice the processors.
    pub threads: usize,
    /// Told of every block pointer.
    pub on_block: Option<OnBlock<'a>>,
}

impl Default for CheckOptions<'_> {
    fn default() -> Self {
        Self { verify: Verify::Everything, leaks: true, histograms: false, threads: 0, on_block: None }
    }
}

/// How far a check got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Allocated bytes visited.
    pub bytes: u64,
    /// Allocated bytes of the pool.
    pub total: u64,
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub enum Problem {
    /// A block that no copy can give, or whose contents make no sense.
    Block {
        /// Its place.
        bookmark: Zbookmark,
        /// The pointer, when it was at hand.
        bp: Option<Box<BlkPtr>>,
        /// Why.
        error: Error,
    },
    /// A block whose space is free, belongs to another block, or does not exist.
    Claim {
        /// Its place; nothing for blocks that are to be freed.
        bookmark: Option<Zbookmark>,
        /// The pointer.
        bp: Box<BlkPtr>,
        /// The space.
        segment: Segment,
        /// What is wrong with it.
        why: ClaimError,
    },
    /// A space map that cannot be read.
    SpaceMap {
        /// Top-level vdev.
        vdev: u64,
        /// Metaslab, when it is one's own.
        metaslab: Option<u64>,
        /// Why.
        error: Error,
    },
    /// An entry of a space map that allocates what is allocated, or frees what is free.
    BadEntry {
        /// The space.
        segment: Segment,
        /// Where the entry is.
        what: &'static str,
    },
    /// References to a deduplicated block that nothing holds.
    DedupLeak {
        /// References left.
        refs: u64,
        /// The block.
        bp: Box<BlkPtr>,
    },
    /// References to a cloned block that nothing holds.
    CloneLeak {
        /// Top-level vdev.
        vdev: u64,
        /// Offset.
        offset: u64,
        /// References left.
        refs: u64,
    },
    /// A mapping whose count of obsolete bytes does not match what is unreferenced.
    Obsolete {
        /// The segment of the removed vdev.
        segment: Segment,
        /// Unreferenced bytes minus counted bytes.
        difference: i64,
        /// Whether the counts were kept precisely, so that this is an error.
        precise: bool,
    },
    /// A list or table of the pool that cannot be read.
    Table {
        /// Which.
        what: &'static str,
        /// Why.
        error: Error,
    },
}

/// Most problems and leaks that are kept.
pub const MOST_KEPT: usize = 20_000;

/// What a check found.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// Statistics by type and level.
    pub stats: BlockStats,
    /// Sums that OpenZFS's `zdb -b` prints.
    pub figures: Figures,
    /// Problems, at most [`MOST_KEPT`].
    pub problems: Vec<Problem>,
    /// Problems found.
    pub problem_count: u64,
    /// Blocks in trouble by kind of error.
    pub errors: HashMap<ErrorKind, u64>,
    /// Space that is allocated and that nothing reachable uses, at most [`MOST_KEPT`] runs.
    pub leaks: Vec<Segment>,
    /// Bytes leaked.
    pub leaked_bytes: u64,
}

impl CheckReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0 && self.leaked_bytes == 0 && self.figures.is_balanced()
    }

    /// Whether references were promised to nobody.
    pub fn has_lost_references(&self) -> bool {
        self.problems.iter().any(|p| match p {
            Problem::DedupLeak { .. } | Problem::CloneLeak { .. } => true,
            Problem::Obsolete { precise, .. } => *precise,
            _ => false,
        })
    }
}

/// Checks a pool. `progress` is called now and then from any thread; when it gives false, the check ends.
///
/// # Errors
/// `Interrupted` when `progress` ended it. Damage is no error: it is in the report.
pub fn run(
    pool: &Pool,
    options: &CheckOptions<'_>,
    progress: &(dyn Fn(&Progress) -> bool + Sync),
) -> Result<CheckReport> {
    walk::Walk::prepare(pool, options, progress).run()
}
