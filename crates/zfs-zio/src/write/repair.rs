//! Putting right what is on disk: damage that a read met, once it has the right bytes; and what a device that was away
//! has missed.
//!
//! Both are writes of good bytes confined to some leaves, or places on them, through the geometry that put the block
//! there. Resilvering is told which blocks there are by the layer above, which walks the pool; what a leaf lacks is known
//! by txg, so a block is written to a leaf whose dirty time log has the block's birth.

use crate::bookmark::Zbookmark;
use crate::error::{Error, ErrorKind, Result};
use crate::vdev::{Damage, Vdev, VdevError, WriteIo};
use crate::zio::{How, Zio};
use std::sync::atomic::{AtomicBool, Ordering};
use zfs_phys::{BlkPtr, Dva};

/// Deepest nesting of gang blocks that is followed.
const MAX_DEPTH: u32 = 16;

impl Zio {
    /// Notes a block that no copy could give, unless its pointer may lead to another block by now.
    pub(crate) fn note_unreadable(&self, bp: &BlkPtr, bm: &Zbookmark, kind: ErrorKind) {
        let birth = bp.physical_birth();
        let reused = |w: &super::Writer| bp.dvas().any(|dva| w.alloc().may_be_reused(self.vdevs(), &dva, birth));
        if !self.is_away(bp, kind) && !self.writer.get().is_some_and(reused) {
            self.errors().unreadable(bm, birth, kind);
        }
    }

    /// Writes the good bytes of a block back to the places where others were found. Best effort: a device that refuses
    /// keeps its damage, which the next read will find again.
    pub(crate) fn repair(&self, birth: u64, wounds: &[(Dva, Vec<Damage>)], good: &[u8]) {
        if wounds.is_empty() || !self.is_writable() {
            return;
        }
        let Some(writer) = self.writer.get() else { return };
        for (dva, damage) in wounds {
            // Whoever reads may hold a pointer of an older txg: what it takes for damage can be another block, which
            // lies where one copy was while the other copy is still there.
            if writer.alloc().may_be_reused(self.vdevs(), dva, birth) {
                continue;
            }
            match self.vdevs().write_through(WriteIo::repair(birth, damage), dva.vdev(), dva.offset(), good) {
                Ok(()) => {
                    let bytes: u64 = damage.iter().map(|d| d.size).fold(0, u64::saturating_add);
                    self.repaired.fetch_add(bytes, Ordering::Relaxed);
                    tracing::info!(vdev = dva.vdev(), offset = dva.offset(), "repaired a block");
                }
                Err(e) => tracing::warn!(vdev = dva.vdev(), offset = dva.offset(), error = ?e, "repair failed"),
            }
        }
    }

    /// Writes a block to every leaf that missed it. Gives the bytes of the block when there was such a leaf; to the others
    /// nothing is written.
    ///
    /// Fails when no copy of the block is good, and with `Io` when a leaf refused: it still lacks the block then.
    pub fn resilver(&self, bp: &BlkPtr, bm: &Zbookmark) -> Result<u64> {
        if !self.is_writable() {
            return Err(
                Error::new(ErrorKind::ReadOnly, "resilvering a pool that is not writable").pool(self.pool_name())
            );
        }
        self.resilver_below(bp, bm, 0).map_err(|e| e.pool(self.pool_name()).at(bm))
    }

    fn resilver_below(&self, bp: &BlkPtr, bm: &Zbookmark, depth: u32) -> Result<u64> {
        if bp.is_hole() || bp.is_embedded() {
            return Ok(0);
        }
        if !bp.is_gang() {
            return self.resilver_places(bp, &|| self.read_plain(bp, bm, How::default()));
        }
        if depth > MAX_DEPTH {
            return Err(Error::corrupt("gang block is nested too deeply"));
        }
        let header = self.resilver_places(bp, &|| Ok(self.read_gang_header(bp, bm, How::default())?.0))?;
        let pieces = self.gang_pieces(bp, bm)?;
        pieces.iter().try_fold(header, |sum, piece| Ok(sum + self.resilver_below(piece, bm, depth + 1)?))
    }

    /// Writes what `read` gives to the leaves that lack it.
    fn resilver_places(&self, bp: &BlkPtr, read: &dyn Fn() -> Result<Vec<u8>>) -> Result<u64> {
        let birth = bp.physical_birth();
        let mut bytes: Option<Vec<u8>> = None;
        for dva in bp.dvas() {
            let size = usize::try_from(dva.asize()).unwrap_or(usize::MAX);
            let Ok(places) = self.vdevs().places(dva.vdev(), dva.offset(), size, &mut |_, _, _| ()) else { continue };
            let stale: Vec<Damage> = places.iter().flat_map(|p| stale_leaves(p.vdev, birth)).collect();
            if stale.is_empty() {
                continue;
            }
            let bytes = match &mut bytes {
                Some(bytes) => bytes,
                none => none.insert(read()?),
            };
            let failed = AtomicBool::new(false);
            let mut io = WriteIo::repair(birth, &stale);
            io.failed = Some(&failed);
            if self.vdevs().write_through(io, dva.vdev(), dva.offset(), bytes).is_err()
                || failed.load(Ordering::Relaxed)
            {
                return Err(Error::new(ErrorKind::Io, "resilvering a block").offset(dva.offset()).txg(birth));
            }
        }
        Ok(bytes.map_or(0, |b| b.len() as u64))
    }
}

/// The leaves of a top-level vdev that are there and lack what was written in `birth`, as places to write to.
fn stale_leaves(top: &Vdev, birth: u64) -> Vec<Damage> {
    let leaves = top.leaves().into_iter().filter(|l| l.takes_writes());
    let stale = leaves.filter(|l| l.is_stale(birth));
    stale.map(|l| Damage { vdev: l.guid(), offset: 0, size: u64::MAX, error: VdevError::NoDevice }).collect()
}
