//! The vdev tree: where the bytes of a DVA are, and how to get them in spite of damage.
//!
//! Writing ([`write`]) is the same call tree the other way: bytes go down, parity is added, every copy is written.
//!
//! Life cycle: built once from a configuration and opened devices, then never changed; a pool whose configuration
//! changes builds a new tree. What does change — indirect mappings handed in later, counters — sits behind its own lock
//! or is atomic, so reading needs no lock.
//!
//! Reading is one recursive call, [`Vdev::read`], that carries a verdict function ([`ReadIo::good`]) down: whoever has
//! several ways to produce the bytes tries them until one is good. So a mirror picks the side that matches the
//! checksum and RAID-Z finds silent corruption without either knowing what a checksum is.
//!
//! Counting follows OpenZFS: a leaf counts a read error when the device refuses, and a checksum error when its bytes
//! were wrong; damage found is noted for healing ([`ReadIo::damage`]).
//!
//! Rejected alternative: a completion-driven state machine for every vdev type. Reads here are either one `pread` of
//! cached pages or few and large; a blocking call tree is easier to prove right.

pub mod flush;
pub mod indirect;
pub mod labels;
pub mod leaf;
pub mod mirror;
pub mod raidz;
pub mod state;
pub mod tree;
mod write;

pub use state::{VdevAux, VdevState};
pub use tree::{Vdev, VdevStats, VdevTree};
pub(crate) use write::WriteIo;

use zfs_env::TaskPool;

/// Why a vdev could not produce good bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VdevError {
    /// Bytes came, and they are wrong.
    Checksum,
    /// The device refused.
    Io,
    /// The device is not there.
    NoDevice,
    /// The address makes no sense on this vdev.
    Invalid,
}

/// Something found wrong while reading, that a writable pool would repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Guid of the leaf.
    pub vdev: u64,
    /// Byte offset in the leaf's allocatable area.
    pub offset: u64,
    /// Bytes concerned.
    pub size: u64,
    /// What was wrong.
    pub error: VdevError,
}

/// One read on its way down the tree.
pub struct ReadIo<'a> {
    /// Whether these bytes are the ones wanted.
    pub good: &'a dyn Fn(&[u8]) -> bool,
    /// Txg in which the block was written to disk; RAID-Z geometry and resilvered ranges depend on it.
    pub birth: u64,
    /// Read and judge every copy and column, not just one that suffices.
    pub all_copies: bool,
    /// Do not count what is found wrong: the caller is guessing.
    pub speculative: bool,
    /// What was found wrong.
    pub damage: Vec<Damage>,
    /// Threads for devices that wait for hardware.
    pub(crate) tasks: Option<&'a TaskPool>,
    /// All top-level vdevs, for those that lead elsewhere.
    pub(crate) tops: Option<&'a [Vdev]>,
    /// The dRAID vdev being read, whose children distributed spares stand for.
    pub(crate) draid: Option<&'a Vdev>,
    /// How many detours (distributed spares, indirect mappings) led here.
    pub(crate) depth: u32,
}

impl<'a> ReadIo<'a> {
    /// A plain read of a block born in `birth`.
    pub fn new(birth: u64, good: &'a dyn Fn(&[u8]) -> bool) -> Self {
        Self {
            good,
            birth,
            all_copies: false,
            speculative: false,
            damage: Vec::new(),
            tasks: None,
            tops: None,
            draid: None,
            depth: 0,
        }
    }

    /// The same read for a piece of the block on a child of `vdev`, judged by `good`.
    pub(crate) fn below<'b>(&self, vdev: &'b Vdev, good: &'b dyn Fn(&[u8]) -> bool) -> ReadIo<'b>
    where
        'a: 'b,
    {
        ReadIo {
            good,
            birth: self.birth,
            all_copies: false,
            speculative: self.speculative,
            damage: Vec::new(),
            tasks: self.tasks,
            tops: self.tops,
            draid: Some(vdev),
            depth: self.depth,
        }
    }

    /// Notes and counts damage on leaf `vdev`.
    pub(crate) fn blame(&mut self, vdev: &Vdev, offset: u64, size: u64, error: VdevError) {
        if self.speculative {
            return;
        }
        if error == VdevError::Checksum {
            vdev.stats.count_checksum_error();
        }
        // One block has at most a few hundred columns; more is a loop somewhere.
        if self.damage.len() < 4096 {
            self.damage.push(Damage { vdev: vdev.guid(), offset, size, error });
        }
    }
}
