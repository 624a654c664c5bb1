//! Visits the blocks of an object set in one order, children before their parents, and can stop and go on later.
//!
//! This is how destroyed trees are freed: some blocks a txg, and a note of how far it came. The order is part of the
//! on-disk format, because the note may be OpenZFS's (`dmu_traverse.c`): the dnode array with each object's tree
//! after another, the objects that count space, the header of the object set. The note names a block of the lowest level:
//! everything before it is done, it and all after it are not. So a walk stops before such blocks only.
//!
//! Recursion is as deep as trees are: levels are checked to go down by one.

use crate::dnode::SPILL_BLKID;
use crate::objset::{META_DNODE_OBJECT, Objset, slots};
use crate::traverse::Visit;
use zfs_phys::BlkPtr;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::{DNODE_SIZE, DnodePhys};
use zfs_zio::{Error, Result, Zbookmark};

/// Children fetched ahead.
const AHEAD: usize = 32;
/// log2 of a pointer's bytes.
const BLKPTR_SHIFT: u32 = 7;

/// What a visitor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The block was dealt with; go on.
    Next,
    /// The block was not dealt with: stop before it. Only where [`may_pause`] says so.
    Pause,
}

/// How a walk ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything was visited.
    Done,
    /// The visitor paused; the next walk resumes here.
    Paused(Zbookmark),
    /// A block could not be read; another walk may resume here.
    Unreadable(Zbookmark, Error),
}

/// Whether a walk may stop before this block.
pub fn may_pause(bookmark: &Zbookmark) -> bool {
    bookmark.level == 0
}

enum Halt {
    At(Outcome),
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

struct Walk<'a> {
    objset: &'a Objset,
    min_txg: u64,
    resume: Option<Zbookmark>,
    visit: &'a mut dyn FnMut(&Visit<'_>) -> Result<Step>,
    /// Blocks read, against a forged tree without end.
    reads: u64,
}

/// Visits blocks born after `min_txg`, from `resume` on.
///
/// # Errors
/// What the visitor returned, and `Corrupt` for a tree that is none.
pub fn walk(
    objset: &Objset,
    min_txg: u64,
    resume: Option<Zbookmark>,
    visit: &mut dyn FnMut(&Visit<'_>) -> Result<Step>,
) -> Result<Outcome> {
    let mut walk = Walk { objset, min_txg, resume, visit, reads: 0 };
    match walk.all() {
        Ok(()) => Ok(Outcome::Done),
        Err(Halt::At(outcome)) => Ok(outcome),
        Err(Halt::Failed(e)) => Err(e),
    }
}

impl Walk<'_> {
    fn all(&mut self) -> std::result::Result<(), Halt> {
        let root = self.objset.root_bp();
        if !self.is_wanted(&root) {
            return Ok(());
        }
        let phys = self.objset.phys();
        self.object(META_DNODE_OBJECT, &phys.meta_dnode)?;
        let mut accounting: Vec<_> = self.objset.accounting_dnodes().collect();
        accounting.sort_unstable_by_key(|(object, _)| *object);
        for (object, phys) in &accounting {
            self.object(*object, phys)?;
        }
        self.one(&Zbookmark::root(self.objset.id()), &root, None)
    }

    fn is_wanted(&self, bp: &BlkPtr) -> bool {
        !bp.is_hole() && bp.birth() > self.min_txg
    }

    fn one(&mut self, bookmark: &Zbookmark, bp: &BlkPtr, dnode: Option<&DnodePhys>) -> std::result::Result<(), Halt> {
        match (self.visit)(&Visit { bookmark: *bookmark, bp, dnode })? {
            Step::Next => Ok(()),
            Step::Pause => Err(Halt::At(Outcome::Paused(*bookmark))),
        }
    }

    /// Blocks of the lowest level below one of `level`, as a shift.
    fn span(phys: &DnodePhys, level: u8) -> u32 {
        u32::from(phys.indblkshift).saturating_sub(BLKPTR_SHIFT).saturating_mul(u32::from(level)).min(63)
    }

    /// Whether a block and all below it come before where this walk began.
    fn completed(&self, object: u64, phys: &DnodePhys, level: u8, blkid: u64) -> bool {
        let Some(from) = &self.resume else { return false };
        let end = (u128::from(blkid) + 1) << Self::span(phys, level);
        if object == META_DNODE_OBJECT {
            return match from.object {
                META_DNODE_OBJECT => end <= u128::from(from.blkid),
                object => end * u128::from(self.objset.dnodes_per_block().max(1)) <= u128::from(object),
            };
        }
        object < from.object || (object == from.object && end <= u128::from(from.blkid))
    }

    fn object(&mut self, object: u64, phys: &DnodePhys) -> std::result::Result<(), Halt> {
        if object != META_DNODE_OBJECT && self.resume.is_some_and(|from| object < from.object) {
            return Ok(());
        }
        let top = phys.nlevels.saturating_sub(1);
        for (blkid, bp) in (0u64..).zip(phys.blkptrs()) {
            self.tree(object, phys, top, blkid, bp)?;
        }
        match phys.spill.as_ref().filter(|bp| self.is_wanted(bp)) {
            Some(bp) => self.one(&self.bookmark(object, 0, SPILL_BLKID), bp, Some(phys)),
            None => Ok(()),
        }
    }

    fn bookmark(&self, object: u64, level: u8, blkid: u64) -> Zbookmark {
        self.objset.ctx.bookmark(object, level, blkid)
    }

    fn tree(
        &mut self,
        object: u64,
        phys: &DnodePhys,
        level: u8,
        blkid: u64,
        bp: &BlkPtr,
    ) -> std::result::Result<(), Halt> {
        if !self.is_wanted(bp) || self.completed(object, phys, level, blkid) {
            return Ok(());
        }
        let bm = self.bookmark(object, level, blkid);
        let reached = level == 0 && self.resume.is_some_and(|from| (from.object, from.blkid) == (object, blkid));
        if !reached && !bp.is_embedded() && (level > 0 || object == META_DNODE_OBJECT) {
            if bp.level() != level {
                return Err(Error::corrupt("block pointer of the wrong level").at(&bm).into());
            }
            self.below(object, phys, &bm, bp)?;
        }
        self.one(&bm, bp, Some(phys))
    }

    fn below(&mut self, object: u64, phys: &DnodePhys, bm: &Zbookmark, bp: &BlkPtr) -> std::result::Result<(), Halt> {
        self.reads += 1;
        if self.reads > self.objset.ctx.block_limit {
            return Err(Error::corrupt("a tree of more blocks than the pool can hold").at(bm).into());
        }
        let level = bm.level.clamp(0, i64::from(u8::MAX)) as u8;
        let buf = self.objset.ctx.read(bp, bm).map_err(|e| {
            let first = bm.blkid.checked_shl(Self::span(phys, level)).unwrap_or(u64::MAX);
            Halt::At(Outcome::Unreadable(self.bookmark(object, 0, first), e))
        })?;
        if level == 0 {
            let first = bm.blkid.saturating_mul((buf.len() / DNODE_SIZE) as u64);
            for (slot, raw) in slots(&buf, 0) {
                if let Some(phys) = DnodePhys::decode(raw, bp.endian()).map_err(Error::from)? {
                    self.object(first.saturating_add(slot as u64), &phys)?;
                }
            }
            return Ok(());
        }
        let first = bm.blkid.saturating_mul((buf.len() / BLKPTR_SIZE) as u64);
        let leads_on = level > 1 || object == META_DNODE_OBJECT;
        for (i, raw) in buf.chunks_exact(BLKPTR_SIZE).enumerate() {
            if leads_on && i % AHEAD == 0 {
                self.fetch(object, level - 1, first + i as u64, buf.get(i * BLKPTR_SIZE..).unwrap_or_default(), bp);
            }
            let child = BlkPtr::decode(raw, bp.endian()).map_err(Error::from)?;
            self.tree(object, phys, level - 1, first.saturating_add(i as u64), &child)?;
        }
        Ok(())
    }

    /// Fetches some blocks that will be read soon.
    fn fetch(&self, object: u64, level: u8, first: u64, raws: &[u8], parent: &BlkPtr) {
        for (blkid, raw) in (first..).zip(raws.chunks_exact(BLKPTR_SIZE)).take(AHEAD) {
            match BlkPtr::decode(raw, parent.endian()) {
                Ok(bp) if self.is_wanted(&bp) && !bp.is_encrypted() => {
                    self.objset.zio().prefetch(&bp, &self.bookmark(object, level, blkid), self.objset.key());
                }
                _ => {}
            }
        }
    }
}
