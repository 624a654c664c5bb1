//! Writing gang blocks: a block that fits nowhere is cut into up to three pieces, and pieces that fit nowhere either are
//! gang blocks again (module/zfs/zio.c).
//!
//! Each piece takes the largest range found, at least its even share of what is left. The pointer to the whole leads to
//! the header; in its addresses stand, for each copy, the allocated sizes of the header and all pieces together, and
//! the header itself always takes what 512 bytes take. Headers get one copy more than the data.
//!
//! When there is no room for some piece, everything allocated for the block is given back.

use super::Writer;
use super::gate::Bytes;
use crate::alloc::Ask;
use crate::bookmark::Zbookmark;
use crate::error::{Error, ErrorKind, Result};
use crate::zio::Zio;
use zfs_codec::checksum::{gang_verifier, seal_embedded};
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::gang::{GANG_HEADER_BLKPTRS, GANG_HEADER_SIZE, encode_gang};
use zfs_phys::{BlkPtr, Dva, Endian};

/// Deepest nesting that is written; readers accept a little more.
const MAX_DEPTH: u32 = 12;

fn no_space() -> Error {
    Error::new(ErrorKind::NoSpace, "allocating a block")
}

impl Zio {
    /// Writes a block that no single range can hold. `bp` lacks nothing but its addresses.
    pub(super) fn write_gang(
        &self,
        writer: &Writer,
        bp: &mut BlkPtr,
        bytes: &[u8],
        ask: &Ask,
        depth: u32,
    ) -> Result<()> {
        if ask.psize <= writer.alloc().min_alloc || depth >= MAX_DEPTH {
            return Err(no_space());
        }
        let header = Ask { psize: GANG_HEADER_SIZE as u64, copies: (ask.copies + 1).min(3), gang: true, ..*ask };
        let found = match writer.alloc().alloc(self.vdevs(), &header)? {
            Some(found) => Some(found),
            None => writer.alloc().alloc(self.vdevs(), &Ask { copies: ask.copies, ..header })?,
        };
        let dvas = found.ok_or_else(no_space)?;
        let mut pieces: Vec<BlkPtr> = Vec::with_capacity(GANG_HEADER_BLKPTRS);
        let written = self.write_pieces(writer, bp, bytes, ask, depth, &mut pieces);
        if let Err(e) = written {
            for piece in &pieces {
                self.unalloc(writer, piece, ask.txg)?;
            }
            dvas.iter().try_for_each(|dva| writer.alloc().unalloc(self.vdevs(), dva, ask.txg))?;
            return Err(e);
        }
        for (d, dva) in dvas.iter().enumerate() {
            let asize = dva.asize() + pieces.iter().map(|p| p.dva(d).asize()).sum::<u64>();
            bp.set_dva(d, Dva::new(dva.vdev() as u32, dva.offset(), asize, true));
        }
        self.write_header(bp, &pieces)
    }

    /// Writes the pieces of `bytes`; those written are in `pieces` also when it fails.
    fn write_pieces(
        &self,
        writer: &Writer,
        bp: &BlkPtr,
        bytes: &[u8],
        ask: &Ask,
        depth: u32,
        pieces: &mut Vec<BlkPtr>,
    ) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = GANG_HEADER_BLKPTRS - pieces.len();
            let share = writer.alloc().round_up(rest.len().div_ceil(left) as u64);
            // Gang blocks of rounded sizes can end in a piece smaller than any allocation unit.
            let share = share.min(rest.len() as u64);
            let (size, dvas) = match self.largest_piece(writer, ask, share, rest.len() as u64)? {
                Some((size, dvas)) => (size, Some(dvas)),
                None => (share, None),
            };
            let (mine, others) = rest.split_at(size as usize);
            let mut piece = BlkPtr::default();
            piece.set_lsize(size);
            piece.set_psize(size);
            piece.set_compress(CompressKind::Off);
            let kind = bp.checksum_kind().unwrap_or(ChecksumKind::Fletcher4);
            piece.set_checksum_kind(kind);
            piece.set_endian(Endian::NATIVE);
            piece.set_birth(ask.txg, ask.txg);
            piece.set_checksum(self.sum(kind, mine)?);
            match dvas {
                Some(dvas) => {
                    dvas.iter().enumerate().for_each(|(d, dva)| piece.set_dva(d, *dva));
                    pieces.push(piece);
                    self.write_copies(&piece, Bytes::Slice(mine))?;
                }
                None => {
                    self.write_gang(writer, &mut piece, mine, &Ask { psize: size, ..*ask }, depth + 1)?;
                    pieces.push(piece);
                }
            }
            rest = others;
        }
        Ok(())
    }

    /// Allocates as much of `most` bytes as can be had in one range (by halves), at least `least`.
    fn largest_piece(&self, writer: &Writer, ask: &Ask, least: u64, most: u64) -> Result<Option<(u64, Vec<Dva>)>> {
        let mut size = most;
        loop {
            if let Some(dvas) = writer.alloc().alloc(self.vdevs(), &Ask { psize: size, gang: false, ..*ask })? {
                return Ok(Some((size, dvas)));
            }
            if size <= least {
                return Ok(None);
            }
            let half = writer.alloc().round_up(size / 2).max(least);
            size = if half < size { half } else { least };
        }
    }

    /// Seals and writes the header that `bp` leads to.
    fn write_header(&self, bp: &BlkPtr, pieces: &[BlkPtr]) -> Result<()> {
        let mut header = encode_gang(pieces, GANG_HEADER_SIZE, Endian::NATIVE)?;
        let at = bp.dva(0);
        let verifier = gang_verifier(at.vdev(), at.offset(), bp.physical_birth());
        seal_embedded(ChecksumKind::GangHeader, &mut header, verifier, Endian::NATIVE, None)?;
        self.write_copies(bp, Bytes::Slice(&header))
    }

    /// Writes other bytes over a gang block of the same txg and size.
    pub(super) fn rewrite_gang(&self, bp: &BlkPtr, bytes: &[u8], bm: &Zbookmark, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::corrupt("gang block is nested too deeply"));
        }
        let mut pieces = self.gang_pieces(bp, bm)?;
        let mut rest = bytes;
        for piece in &mut pieces {
            let size = piece.psize() as usize;
            let (mine, others) =
                rest.split_at_checked(size).ok_or_else(|| Error::corrupt("gang block whose pieces do not add up"))?;
            piece.set_checksum(self.sum(piece.checksum_kind().unwrap_or(ChecksumKind::Fletcher4), mine)?);
            if piece.is_gang() {
                self.rewrite_gang(piece, mine, bm, depth + 1)?;
            } else {
                self.write_copies(piece, Bytes::Slice(mine))?;
            }
            rest = others;
        }
        if !rest.is_empty() {
            return Err(Error::corrupt("gang block whose pieces do not add up"));
        }
        self.write_header(bp, &pieces)
    }

    /// Calls `act` for every piece below a gang block, headers' own addresses included, deepest first.
    ///
    /// A header that cannot be read any more hides its pieces: they stay allocated, which costs space but nothing else.
    pub(super) fn each_piece(&self, bp: &BlkPtr, act: &mut dyn FnMut(&BlkPtr) -> Result<()>, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH + 4 {
            return Err(Error::corrupt("gang block is nested too deeply"));
        }
        let pieces = self.gang_pieces(bp, &Zbookmark::default()).unwrap_or_else(|error| {
            tracing::error!(%error, "the pieces of a gang block stay allocated: its header is lost");
            Vec::new()
        });
        for piece in pieces.iter().filter(|p| !p.is_embedded()) {
            if piece.is_gang() {
                self.each_piece(piece, act, depth + 1)?;
            }
            act(piece)?;
        }
        Ok(())
    }

    /// Gives back all that was just allocated for a piece.
    fn unalloc(&self, writer: &Writer, piece: &BlkPtr, txg: u64) -> Result<()> {
        let mut back = |p: &BlkPtr| p.dvas().try_for_each(|dva| writer.alloc().unalloc(self.vdevs(), &dva, txg));
        if piece.is_gang() {
            self.each_piece(piece, &mut back, 0)?;
        }
        back(piece)
    }
}
