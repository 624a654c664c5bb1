//! Removed vdevs: their blocks are found through a mapping of segments to other vdevs, which may be removed themselves.
//!
//! A block that lies in one segment is read there as a whole. A block that was split is read piece by piece; as no
//! piece has a checksum of its own, a bad block is put together anew from every combination of the pieces' copies
//! until one is good ([`MOST_COMBINATIONS`] at most), and copies that differ from it are blamed.
//!
//! Changes to the space of a removed vdev, and writes that put right what is there, go to the places its segments are at
//! now ([`VdevTree::places`]).
//!
//! The mapping lives in the meta object set. Until the layer above has handed it in, such a vdev reads as missing: the
//! meta object set has copies elsewhere.

use super::tree::{Vdev, VdevTree};
use super::{ReadIo, VdevError, WriteIo};
use crate::config::VdevKind;
use zfs_phys::indirect::IndirectMappingEntry;

/// Most combinations of copies that are tried for one block (OpenZFS's default).
const MOST_COMBINATIONS: usize = 4096;
/// Most steps in resolving one block; more means the mappings run in circles.
const MOST_STEPS: usize = 100_000;

/// A segment of a block on a vdev that exists.
pub(crate) struct Piece<'t> {
    /// Where it belongs in the block.
    pub(crate) at: usize,
    /// Bytes.
    pub(crate) len: usize,
    /// Top-level vdev.
    pub(crate) vdev: &'t Vdev,
    /// Place on it.
    pub(crate) offset: u64,
}

/// Told of each range of a removed vdev on the way to where it is now: number of the vdev, offset, bytes.
pub(crate) type OnTheWay<'a> = &'a mut dyn FnMut(u64, u64, u64);

impl VdevTree {
    /// Where `len` bytes at `offset` of top-level vdev `id` are: there, or where the mappings of removed vdevs lead.
    pub(crate) fn places(
        &self,
        id: u64,
        offset: u64,
        len: usize,
        through: OnTheWay<'_>,
    ) -> Result<Vec<Piece<'_>>, VdevError> {
        let vdev = self.top(id).ok_or(VdevError::NoDevice)?;
        if vdev.config.kind != VdevKind::Indirect {
            return Ok(vec![Piece { at: 0, len, vdev, offset }]);
        }
        vdev.resolve(&self.root().children, offset, len, through)
    }

    /// Writes `data` where `offset` of top-level vdev `id` is. Of several places all are tried.
    pub(crate) fn write_through(&self, io: WriteIo<'_>, id: u64, offset: u64, data: &[u8]) -> Result<(), VdevError> {
        let places = self.places(id, offset, data.len(), &mut |_, _, _| ())?;
        let one = |p: &Piece<'_>| p.vdev.write(io, p.offset, data.get(p.at..p.at + p.len).ok_or(VdevError::Invalid)?);
        places.iter().map(one).fold(Ok(()), Result::and)
    }
}

/// One copy of a piece.
struct Copy<'t> {
    vdev: &'t Vdev,
    bytes: Vec<u8>,
}

impl Vdev {
    /// Finds the pieces of `len` bytes at `offset` of this removed vdev, in order.
    fn resolve<'t>(
        &self,
        tops: &'t [Vdev],
        offset: u64,
        len: usize,
        through: OnTheWay<'_>,
    ) -> Result<Vec<Piece<'t>>, VdevError> {
        let start = tops.iter().find(|t| t.guid() == self.guid()).ok_or(VdevError::Invalid)?;
        let mut work = vec![Piece { at: 0, len, vdev: start, offset }];
        let mut out: Vec<Piece<'t>> = Vec::new();
        let mut steps = 0;
        while let Some(piece) = work.pop() {
            steps += 1;
            if steps > MOST_STEPS {
                return Err(VdevError::Invalid);
            }
            if piece.vdev.config.kind != VdevKind::Indirect {
                out.push(piece);
                continue;
            }
            let mapping = piece.vdev.mapping.read();
            let entry =
                lookup(mapping.as_deref().ok_or(VdevError::NoDevice)?, piece.offset).ok_or(VdevError::Invalid)?;
            let inner = piece.offset - entry.src;
            let len = (entry.dst.asize() - inner).min(piece.len as u64) as usize;
            let vdev = tops.get(entry.dst.vdev() as usize).ok_or(VdevError::Invalid)?;
            let target = entry.dst.offset().checked_add(inner).ok_or(VdevError::Invalid)?;
            through(piece.vdev.config.id, piece.offset, len as u64);
            if len < piece.len {
                let (at, offset) = (piece.at + len, piece.offset + len as u64);
                work.push(Piece { at, len: piece.len - len, vdev: piece.vdev, offset });
            }
            work.push(Piece { at: piece.at, len, vdev, offset: target });
        }
        out.sort_by_key(|p| p.at);
        Ok(out)
    }

    pub(super) fn read_indirect(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        let tops = io.tops.ok_or(VdevError::NoDevice)?;
        let pieces = self.resolve(tops, offset, buf.len(), &mut |_, _, _| ())?;
        if let [whole] = &pieces[..] {
            return whole.vdev.read(io, whole.offset, buf);
        }
        if !io.all_copies {
            let mut result = Ok(());
            for piece in &pieces {
                let accept = |_: &[u8]| true;
                let mut sub = io.below(piece.vdev, &accept);
                result = result.and(piece.vdev.read(&mut sub, piece.offset, &mut buf[piece.at..piece.at + piece.len]));
                io.damage.append(&mut sub.damage);
            }
            if result.is_ok() && (io.good)(buf) {
                return Ok(());
            }
        }
        combine(io, &pieces, buf)
    }
}

/// The entry that maps `offset`.
fn lookup(mapping: &[IndirectMappingEntry], offset: u64) -> Option<IndirectMappingEntry> {
    let after = mapping.partition_point(|e| e.src <= offset);
    let entry = *mapping.get(after.checked_sub(1)?)?;
    (offset - entry.src < entry.dst.asize()).then_some(entry)
}

/// Reads all copies of all pieces and looks for a combination that is good.
fn combine(io: &mut ReadIo<'_>, pieces: &[Piece<'_>], buf: &mut [u8]) -> Result<(), VdevError> {
    let mut copies: Vec<Vec<Copy<'_>>> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        // Only mirrors hold copies that are meant to be equal.
        let sides: Vec<&Vdev> = match piece.vdev.config.kind {
            VdevKind::Mirror => piece.vdev.children.iter().collect(),
            _ => vec![piece.vdev],
        };
        let mut found = Vec::new();
        for vdev in sides {
            let accept = |_: &[u8]| true;
            let mut sub = io.below(piece.vdev, &accept);
            let mut bytes = vec![0u8; piece.len];
            if vdev.read(&mut sub, piece.offset, &mut bytes).is_ok() {
                found.push(Copy { vdev, bytes });
            }
            io.damage.append(&mut sub.damage);
        }
        copies.push(found);
    }
    if copies.iter().any(Vec::is_empty) {
        return Err(VdevError::Io);
    }
    // Which copies differ at all.
    let unique: Vec<Vec<usize>> = copies
        .iter()
        .map(|c| (0..c.len()).filter(|i| !c[..*i].iter().any(|o| o.bytes == c[*i].bytes)).collect())
        .collect();
    let mut pick = vec![0usize; pieces.len()];
    for _ in 0..MOST_COMBINATIONS {
        for (piece, (copies, (unique, pick))) in pieces.iter().zip(copies.iter().zip(unique.iter().zip(&pick))) {
            buf[piece.at..piece.at + piece.len].copy_from_slice(&copies[unique[*pick]].bytes);
        }
        if (io.good)(buf) {
            for (piece, copies) in pieces.iter().zip(&copies) {
                for copy in copies.iter().filter(|c| c.bytes != buf[piece.at..piece.at + piece.len]) {
                    io.blame(copy.vdev, piece.offset, piece.len as u64, VdevError::Checksum);
                }
            }
            return Ok(());
        }
        if !next_pick(&mut pick, &unique) {
            break;
        }
    }
    for (piece, copies) in pieces.iter().zip(&copies) {
        for copy in copies {
            io.blame(copy.vdev, piece.offset, piece.len as u64, VdevError::Checksum);
        }
    }
    Err(VdevError::Checksum)
}

/// Counts up; false when all combinations have been seen.
fn next_pick(pick: &mut [usize], unique: &[Vec<usize>]) -> bool {
    for (p, u) in pick.iter_mut().zip(unique) {
        *p += 1;
        if *p < u.len() {
            return true;
        }
        *p = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use zfs_phys::Dva;

    #[test]
    fn lookup_respects_gaps() {
        let e = |src, dst, len| IndirectMappingEntry { src, dst: Dva::new(1, dst, len, false) };
        let mapping = [e(4096, 8192, 4096), e(16384, 0, 8192)];
        assert_eq!(lookup(&mapping, 0), None);
        assert_eq!(lookup(&mapping, 4608).unwrap().src, 4096);
        assert_eq!(lookup(&mapping, 8192), None);
        assert_eq!(lookup(&mapping, 24575).unwrap().src, 16384);
        assert_eq!(lookup(&mapping, 24576), None);
    }
}
