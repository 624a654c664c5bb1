//! Reading RAID-Z and dRAID: columns, parity, and finding out which columns lie.
//!
//! In order: read the data columns; rebuild what is missing from parity, row by row; ask whether the block is good. If
//! not, read everything that was not read yet, also from children known to be stale, and try again. If it still is
//! not, some columns were wrong without saying so: assume every set of up to P children wrong in turn and rebuild
//! without them until the block is good. Whoever turns out to have been wrong is blamed.
//!
//! Cost of the last step is bounded by [`MOST_GUESSES`]. Rejected alternative: guessing per row after an expansion;
//! the number of guesses explodes, and disks fail as disks.

pub mod draid;
pub mod draid_maps;
pub mod map;
mod read;

use super::tree::Vdev;
use super::{ReadIo, VdevError};
use crate::config::VdevKind;
use map::RaidMap;

/// Most sets of children that are assumed wrong before giving up on a block.
const MOST_GUESSES: usize = 200_000;
/// Most distributed spares that stand in for each other.
const MOST_DETOURS: u32 = 6;

impl Vdev {
    /// Reads a block of a RAID-Z or dRAID vdev. Reads whole sectors; the block's size need not be a multiple of them.
    pub(super) fn read_raid(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        let size = buf.len().next_multiple_of(1 << self.ashift);
        let Some(map) = self.raid_map(offset, size, io.birth) else { return Err(VdevError::Invalid) };
        if size == buf.len() {
            return read::RaidRead::new(self, &map, buf, size).run(io);
        }
        let mut padded = vec![0u8; size];
        let result = read::RaidRead::new(self, &map, &mut padded, buf.len()).run(io);
        if result.is_ok() {
            buf.copy_from_slice(&padded[..buf.len()]);
        }
        result
    }

    pub(in crate::vdev) fn raid_map(&self, offset: u64, size: usize, birth: u64) -> Option<RaidMap> {
        // Bounds were checked against the vdev's size; a size that is not the disk's makes child offsets that the
        // leaves refuse.
        if size == 0 || !offset.is_multiple_of(1 << self.ashift) {
            return None;
        }
        match &self.geometry {
            super::tree::Geometry::Raidz(g) => Some(g.map(offset, size, birth, self.reflow())),
            super::tree::Geometry::Draid(g) => g.map(offset, size),
            super::tree::Geometry::None => None,
        }
    }

    /// Reads a distributed spare: the child whose space it is at this offset.
    pub(super) fn read_spare(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        let child = self.spare_target(io.draid, io.depth, offset).ok_or(VdevError::NoDevice)?;
        io.depth += 1;
        let result = child.read(io, offset, buf);
        io.depth -= 1;
        result
    }

    /// The child of `draid` whose space this distributed spare is at `offset`; nothing after too many detours.
    pub(in crate::vdev) fn spare_target<'t>(
        &self,
        draid: Option<&'t Vdev>,
        depth: u32,
        offset: u64,
    ) -> Option<&'t Vdev> {
        let (VdevKind::DraidSpare { spare_id, .. }, Some(draid)) = (&self.config.kind, draid) else { return None };
        let super::tree::Geometry::Draid(geometry) = &draid.geometry else { return None };
        let child = geometry.spare_child(*spare_id, offset).and_then(|c| draid.children.get(c));
        child.filter(|_| depth < MOST_DETOURS && self.state().is_readable())
    }

    /// Whether what was written at `offset` in `birth` is lacking here, as a child of `draid` or below one: a distributed
    /// spare lacks what the child it is on at that offset lacks.
    pub(in crate::vdev) fn is_stale_at(&self, draid: Option<&Vdev>, depth: u32, offset: u64, birth: u64) -> bool {
        let away = |v: &Vdev, depth: u32| !v.state().is_readable() || v.is_stale_at(draid, depth, offset, birth);
        match self.config.kind {
            VdevKind::DraidSpare { .. } => {
                let target = self.spare_target(draid, depth, offset);
                self.is_stale(birth) || target.is_none_or(|t| away(t, depth + 1))
            }
            VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => self.children.iter().all(|c| away(c, depth)),
            _ => self.is_stale(birth),
        }
    }

    /// The leaf below a child of `draid` that a read at `offset` took its bytes from.
    fn leaf_at<'t>(&'t self, draid: &'t Vdev, depth: u32, offset: u64, birth: u64) -> Option<&'t Vdev> {
        match self.config.kind {
            VdevKind::DraidSpare { .. } => {
                self.spare_target(Some(draid), depth, offset)?.leaf_at(draid, depth + 1, offset, birth)
            }
            VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => {
                let side = *self.mirror_order(Some(draid), depth, birth, offset).first()?;
                self.children.get(side)?.leaf_at(draid, depth, offset, birth)
            }
            _ => Some(self),
        }
    }
}
