//! Writing to vdevs: every copy, every column, and the zeros that dRAID wants in its padding.
//!
//! One recursive call, [`Vdev::write`], carries the bytes down. A mirror has written them when one side has; RAID-Z and
//! dRAID when no more columns of a row failed than there are parities. A leaf that refuses, or is not there, notes the
//! txg it lacks in its dirty time log, from which a resilver will fill it; so a success here with a leaf failing is
//! a degraded pool, not a lost block.
//!
//! Data columns are slices of the block as it came: only parity is allocated, and a copy of the block when its size is
//! not whole sectors. Columns are written one after the other from the caller's thread: devices here take writes into
//! the system's cache, parallelism comes from many blocks being written at once, and waiting happens in the flush.
//!
//! Repair is a write that is confined to the places found damaged ([`WriteIo::only`]): the same geometry decides what
//! belongs there, so that parity is repaired by generating it again.

use super::raidz::map::{RaidMap, Row};
use super::tree::{Geometry, Vdev};
use super::{Damage, VdevError};
use crate::config::VdevKind;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use zfs_codec::raidz;

/// Zeros for padding, the largest sector there is.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// One write on its way down the tree.
#[derive(Clone, Copy)]
pub(crate) struct WriteIo<'a> {
    /// Txg that is being written, for dirty time logs; 0 when a leaf that fails lacks nothing that it had.
    pub(crate) txg: u64,
    /// Txg in which the block was written first; the geometry of RAID-Z depends on it.
    pub(crate) birth: u64,
    /// Write only here.
    pub(crate) only: Option<&'a [Damage]>,
    /// Set when a leaf failed, whatever that means for the vdev.
    pub(crate) failed: Option<&'a AtomicBool>,
    draid: Option<&'a Vdev>,
    depth: u32,
}

impl<'a> WriteIo<'a> {
    /// Writes a block that is born in `txg`.
    pub(crate) fn new(txg: u64) -> Self {
        Self { txg, birth: txg, only: None, failed: None, draid: None, depth: 0 }
    }

    /// Puts a block born in `birth` back where it was found damaged.
    pub(crate) fn repair(birth: u64, damage: &'a [Damage]) -> Self {
        Self { txg: 0, birth, only: Some(damage), failed: None, draid: None, depth: 0 }
    }

    fn wants(&self, leaf: u64, offset: u64, len: u64) -> bool {
        let hit = |d: &Damage| d.vdev == leaf && d.offset < offset.saturating_add(len) && offset < d.offset + d.size;
        self.only.is_none_or(|damage| damage.iter().any(hit))
    }
}

impl Vdev {
    /// Writes `data` at `offset` of the vdev's allocatable area. Succeeds when the vdev can give it back, though some
    /// leaves may have failed.
    pub(crate) fn write(&self, io: WriteIo<'_>, offset: u64, data: &[u8]) -> Result<(), VdevError> {
        let sector = 1usize << self.ashift;
        if !data.len().is_multiple_of(sector) {
            let mut padded = Vec::with_capacity(data.len().next_multiple_of(sector));
            padded.extend_from_slice(data);
            padded.resize(data.len().next_multiple_of(sector), 0);
            return self.write_pieces(io, offset, &[&padded]);
        }
        self.write_pieces(io, offset, &[data])
    }

    /// Writes whole sectors given in pieces; RAID vdevs get one piece.
    fn write_pieces(&self, io: WriteIo<'_>, offset: u64, pieces: &[&[u8]]) -> Result<(), VdevError> {
        match self.config.kind {
            VdevKind::Disk | VdevKind::File => self.write_leaf(io, offset, pieces),
            VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => {
                let (mut good, mut worst) = (false, VdevError::NoDevice);
                // All sides, whatever happens to the others.
                for child in &self.children {
                    match child.write_pieces(io, offset, pieces) {
                        Ok(()) => good = true,
                        Err(e) => worst = worst.min(e),
                    }
                }
                if good { Ok(()) } else { Err(worst) }
            }
            VdevKind::Raidz { .. } | VdevKind::Draid { .. } => match pieces {
                [block] => self.write_raid(io, offset, block),
                _ => Err(VdevError::Invalid),
            },
            VdevKind::DraidSpare { .. } => self.write_spare(io, offset, pieces),
            VdevKind::Indirect => Err(VdevError::Invalid),
            VdevKind::Root | VdevKind::Hole | VdevKind::Missing => Err(VdevError::NoDevice),
        }
    }

    /// Writes to the child that a distributed spare is on there. When that is away the spare lacks nothing for it: the
    /// child's dirty time log tells, and when it is filled, so is this part of it.
    fn write_spare(&self, io: WriteIo<'_>, offset: u64, pieces: &[&[u8]]) -> Result<(), VdevError> {
        let len: usize = pieces.iter().map(|p| p.len()).sum();
        let wanted = io.only.is_some() && io.wants(self.guid(), offset, len as u64);
        let Some(child) = self.spare_target(io.draid, io.depth, offset) else {
            if io.only.is_none() || wanted {
                self.dtl_add(io.txg);
                io.failed.into_iter().for_each(|f| f.store(true, Ordering::Relaxed));
            }
            return Err(VdevError::NoDevice);
        };
        if !wanted {
            return child.write_pieces(WriteIo { depth: io.depth + 1, ..io }, offset, pieces);
        }
        let all = WriteIo { txg: io.birth, only: None, failed: None, depth: io.depth + 1, ..io };
        let written = child.write_pieces(all, offset, pieces);
        if written.is_err_and(|e| e != VdevError::NoDevice) {
            io.failed.into_iter().for_each(|f| f.store(true, Ordering::Relaxed));
        }
        written
    }

    fn write_leaf(&self, io: WriteIo<'_>, offset: u64, pieces: &[&[u8]]) -> Result<(), VdevError> {
        let len: usize = pieces.iter().map(|p| p.len()).sum();
        if !io.wants(self.guid(), offset, len as u64) {
            return Ok(());
        }
        let written = self.place(offset, len).and_then(|(device, at)| {
            let result = match pieces {
                [one] => device.write_at(at, one),
                many => device.write_vectored_at(at, &many.iter().map(|p| IoSlice::new(p)).collect::<Vec<_>>()),
            };
            self.unflushed.note(io.txg);
            result.map_err(|error| {
                tracing::warn!(vdev = self.guid(), offset, len, %error, "write failed");
                self.stats.count_write_error();
                VdevError::Io
            })
        });
        match written {
            Ok(()) => self.stats.count_write(len as u64),
            Err(_) => {
                self.dtl_add(io.txg);
                io.failed.into_iter().for_each(|f| f.store(true, Ordering::Relaxed));
            }
        }
        written
    }

    fn write_raid(&self, io: WriteIo<'_>, offset: u64, block: &[u8]) -> Result<(), VdevError> {
        let map = self.raid_map(offset, block.len(), io.birth).ok_or(VdevError::Invalid)?;
        let io = WriteIo { draid: Some(self), ..io };
        let mut parity = vec![0u8; map.parity_len];
        let mut result = Ok(());
        for row in &map.rows {
            make_parity(&map, row, block, &mut parity);
            result = result.and(self.write_row(io, &map, row, block, &parity));
        }
        result
    }

    fn write_row(
        &self,
        io: WriteIo<'_>,
        map: &RaidMap,
        row: &Row,
        block: &[u8],
        parity: &[u8],
    ) -> Result<(), VdevError> {
        // The rows of dRAID are full: columns that end early end with a sector of zeros.
        let full = matches!(self.geometry, Geometry::Draid(_));
        let height = row.cols.first().map_or(0, |c| c.size);
        let (mut failed, mut worst) = (0, VdevError::NoDevice);
        for (i, col) in row.cols.iter().enumerate() {
            let from = if i < map.nparity { parity } else { block };
            let bytes = &from[col.mem..col.mem + col.size];
            let pad = if full { &ZEROS[..height - col.size] } else { &[] };
            let child = self.children.get(col.child).ok_or(VdevError::Invalid)?;
            let at = col.offset as u64;
            let written = match (bytes.is_empty(), pad.is_empty()) {
                (true, true) => continue,
                (false, true) => child.write_pieces(io, at, &[bytes]),
                (true, false) => child.write_pieces(io, at, &[pad]),
                (false, false) => child.write_pieces(io, at, &[bytes, pad]),
            };
            if let Err(e) = written {
                failed += 1;
                worst = worst.min(e);
            }
        }
        if failed > map.nparity { Err(worst) } else { Ok(()) }
    }
}

/// Fills the parity columns of `row`.
fn make_parity(map: &RaidMap, row: &Row, block: &[u8], parity: &mut [u8]) {
    let (codes, data) = row.cols.split_at(map.nparity.min(row.cols.len()));
    let Some(first) = codes.first() else { return };
    // The parity columns of a row lie one behind the other in memory.
    let all: usize = codes.iter().map(|c| c.size).sum();
    let mut out: Vec<&mut [u8]> = parity[first.mem..first.mem + all].chunks_exact_mut(first.size.max(1)).collect();
    let columns: Vec<&[u8]> = data.iter().map(|c| &block[c.mem..c.mem + c.size]).collect();
    raidz::generate(&mut out, &columns);
}
