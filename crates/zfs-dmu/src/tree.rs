//! The tree of an object's blocks as it is on disk: the walk from the descriptor through indirect blocks.
//!
//! Invariants: a tree never changes; an object that is written gets a new one with each sync. Block pointers found in
//! an indirect block are believed only if their level is one below; levels are bounded by the decoder, so the walk ends
//! whatever the disk says.

use crate::ctx::Ctx;
use std::sync::Arc;
use zfs_phys::BlkPtr;
use zfs_phys::Endian;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::DnodePhys;
use zfs_zio::{Buf, Error, Result};

/// A descriptor and what it leads to.
pub(crate) struct Tree {
    pub(crate) ctx: Arc<Ctx>,
    pub(crate) object: u64,
    pub(crate) phys: DnodePhys,
    /// Tells the trees that an object had apart; 0 for one that never changes.
    pub(crate) epoch: u64,
}

impl Tree {
    /// log2 of the number of pointers in an indirect block.
    pub(crate) fn epbs(&self) -> u32 {
        epbs(&self.phys)
    }

    pub(crate) fn corrupt(&self, level: u8, blkid: u64, what: &'static str) -> Error {
        Error::corrupt(what).at(&self.ctx.bookmark(self.object, level, blkid))
    }

    /// The pointer to block `blkid` of `level`; nothing where the tree has no such block (a hole).
    pub(crate) fn blkptr_of(&self, level: u8, blkid: u64) -> Result<Option<BlkPtr>> {
        let top = self.phys.nlevels.saturating_sub(1);
        if level >= top {
            let own = usize::try_from(blkid).ok().filter(|_| level == top).and_then(|b| self.phys.blkptr.get(b));
            let own = own.filter(|_| blkid < u64::from(self.phys.nblkptr) && !self.phys_bp_is_hole(blkid));
            return own.map(|bp| self.check(bp, level, blkid)).transpose();
        }
        let epbs = self.epbs();
        let Some(parent) = self.indirect(level + 1, blkid >> epbs)? else { return Ok(None) };
        let (buf, endian) = parent;
        let index = (blkid & ((1 << epbs) - 1)) as usize;
        self.pointer_in(&buf, endian, index, level, blkid)
    }

    fn phys_bp_is_hole(&self, index: u64) -> bool {
        self.phys.blkptrs().nth(index as usize).is_none_or(BlkPtr::is_hole)
    }

    fn check(&self, bp: &BlkPtr, level: u8, blkid: u64) -> Result<BlkPtr> {
        if bp.level() != level && !bp.is_embedded() {
            return Err(self.corrupt(level, blkid, "block pointer of the wrong level"));
        }
        Ok(*bp)
    }

    /// The pointer at `index` of an indirect block; nothing for a hole.
    pub(crate) fn pointer_in(
        &self,
        buf: &[u8],
        endian: Endian,
        index: usize,
        level: u8,
        blkid: u64,
    ) -> Result<Option<BlkPtr>> {
        let raw = index.checked_mul(BLKPTR_SIZE).and_then(|at| buf.get(at..)).unwrap_or_default();
        let bp = BlkPtr::decode(raw, endian)
            .map_err(|e| Error::from(e).at(&self.ctx.bookmark(self.object, level, blkid)))?;
        if bp.is_hole() { Ok(None) } else { self.check(&bp, level, blkid).map(Some) }
    }

    /// The indirect block `blkid` of `level` with its byte order; nothing for a hole.
    pub(crate) fn indirect(&self, level: u8, blkid: u64) -> Result<Option<(Buf, Endian)>> {
        if let Some(hit) = self.ctx.cached_indirect(self.epoch, self.object, level, blkid) {
            return Ok(Some(hit));
        }
        let Some(bp) = self.blkptr_of(level, blkid)? else { return Ok(None) };
        let buf = self.ctx.read(&bp, &self.ctx.bookmark(self.object, level, blkid))?;
        self.ctx.keep_indirect(self.epoch, self.object, level, blkid, &buf, bp.endian());
        Ok(Some((buf, bp.endian())))
    }

    pub(crate) fn read_block(&self, blkid: u64) -> Result<Option<(Buf, Endian)>> {
        let Some(bp) = self.blkptr_of(0, blkid)? else { return Ok(None) };
        let buf = self.ctx.read(&bp, &self.ctx.bookmark(self.object, 0, blkid))?;
        Ok(Some((buf, bp.endian())))
    }
}

/// log2 of the number of pointers in an indirect block of such an object.
pub(crate) fn epbs(phys: &DnodePhys) -> u32 {
    u32::from(phys.indblkshift).saturating_sub(BLKPTR_SIZE.trailing_zeros()).min(31)
}
