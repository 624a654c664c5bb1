//! Gang blocks: blocks that found no contiguous space and were written in pieces (module/zfs/zio.c).
//!
//! The pointer leads to a header: an array of pointers to the pieces, which may be gang blocks themselves, and a SHA-256
//! trailer whose verifier is the header's own address and birth. Old headers are 512 bytes; with the feature
//! `dynamic_gang_header` they are as large as the smallest allocation of the vdev, and old ones remain. So both sizes
//! are tried, largest first.
//!
//! Bounds: pieces may not exceed the block's size, nesting [`MAX_DEPTH`], headers [`MAX_HEADERS`].

use crate::bookmark::Zbookmark;
use crate::error::{Error, ErrorKind, Result};
use crate::zio::{How, Zio};
use crate::{blkverify, codec};
use std::cell::Cell;
use zfs_codec::checksum::{TRAILER_LEN, gang_verifier, verify_embedded};
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::enums::ChecksumKind;
use zfs_phys::{BlkPtr, Endian};

/// Size of headers before they could be larger.
const OLD_HEADER: usize = 512;
/// Largest header read.
const MAX_HEADER: usize = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: u32 = 16;
/// Most headers of one block.
const MAX_HEADERS: u32 = 8192;

impl Zio {
    /// Puts a gang block together; `bp.psize()` bytes, verified as a whole too.
    pub(crate) fn read_gang(&self, bp: &BlkPtr, bm: &Zbookmark, how: How) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(bp.psize() as usize);
        let mut headers = 0;
        self.collect(bp, bm, how, 0, &mut headers, bp.psize() as usize, &mut out)?;
        let ctx = self.checksum_context();
        if out.len() as u64 != bp.psize() || !codec::checksum_matches(&ctx, bp, &out) {
            return Err(Error::new(ErrorKind::Checksum, "reading a gang block").offset(bp.dva(0).offset()));
        }
        Ok(out)
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one recursion")]
    fn collect(
        &self,
        bp: &BlkPtr,
        bm: &Zbookmark,
        how: How,
        depth: u32,
        headers: &mut u32,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        *headers += 1;
        if depth >= MAX_DEPTH || *headers > MAX_HEADERS {
            return Err(Error::corrupt("gang block is nested too deeply"));
        }
        let (header, endian) = self.read_gang_header(bp, bm, how)?;
        let room = header.len().saturating_sub(TRAILER_LEN);
        for piece in header[..room].chunks_exact(BLKPTR_SIZE) {
            let piece = BlkPtr::decode(piece, endian)?;
            if piece.is_hole() {
                continue;
            }
            if piece.is_embedded() || out.len() + piece.psize() as usize > limit {
                return Err(Error::corrupt("gang block whose pieces do not add up"));
            }
            blkverify::verify(self.vdevs(), &piece)?;
            if piece.is_gang() {
                self.collect(&piece, bm, how, depth + 1, headers, limit, out)?;
            } else {
                out.extend_from_slice(&self.read_plain(&piece, bm, how)?);
            }
        }
        Ok(())
    }

    /// The pieces of a gang block, holes left out; pieces may be gang blocks themselves. For accounting of space.
    pub fn gang_pieces(&self, bp: &BlkPtr, bm: &Zbookmark) -> Result<Vec<BlkPtr>> {
        let found = loop {
            let since = self.resumptions();
            let found =
                blkverify::verify(self.vdevs(), bp).and_then(|()| self.read_gang_header(bp, bm, How::default()));
            if !found.as_ref().is_err_and(|e| self.read_again(since, bp, e)) {
                break found;
            }
        };
        let (header, endian) = found.map_err(|e| e.pool(self.pool_name()).at(bm))?;
        let room = header.len().saturating_sub(TRAILER_LEN);
        let mut pieces = Vec::new();
        for piece in header[..room].chunks_exact(BLKPTR_SIZE) {
            let piece = BlkPtr::decode(piece, endian)?;
            if !piece.is_hole() {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    /// Reads and verifies a header; its bytes and the byte order it was written in.
    pub(crate) fn read_gang_header(&self, bp: &BlkPtr, bm: &Zbookmark, how: How) -> Result<(Vec<u8>, Endian)> {
        let tops = bp.dvas().filter_map(|d| self.vdevs().top(d.vdev()));
        let large = tops.map(|t| t.min_alloc() as usize).min().unwrap_or(OLD_HEADER).clamp(OLD_HEADER, MAX_HEADER);
        let dva = bp.dva(0);
        let verifier = gang_verifier(dva.vdev(), dva.offset(), bp.physical_birth());
        let mac = codec::checksum_has_mac(bp);
        let found = Cell::new(None);
        let good = |data: &[u8]| {
            [large, OLD_HEADER].into_iter().filter(|n| *n <= data.len()).any(|n| {
                let verdict = verify_embedded(ChecksumKind::GangHeader, &data[..n], verifier, mac);
                if let (Ok(endian), None) = (&verdict, found.get()) {
                    found.set(Some((n, *endian)));
                }
                verdict.is_ok()
            })
        };
        // The large size may reach past the end of the vdev.
        let fits = blkverify::fits(self.vdevs(), bp, large as u64);
        let mut header = self.read_dvas(bp, if fits { large } else { OLD_HEADER }, bm, how, &good)?;
        let (size, endian) = found.get().ok_or_else(|| Error::new(ErrorKind::Bug, "gang header without verdict"))?;
        header.truncate(size);
        Ok((header, endian))
    }
}
