//! Search for the next hole or the next data of an object, by the fill counts of block pointers.
//!
//! The search descends only into subtrees whose fill count says that what is wanted is in them: one with count 0
//! holds no data, one that is full no hole. A wrong count (a corrupt pool) costs time or precision, never
//! termination: each pointer is looked at once, and no more blocks are read than the pool can hold.

use crate::dnode::{Dnode, Seek};
use crate::tree::Tree;
use zfs_phys::BlkPtr;
use zfs_zio::{Error, Result};

impl Dnode {
    /// First byte at or after `offset` that is stored (or is not), at the granularity of blocks. There is always a
    /// hole behind the last block; nothing is returned when no more data follows. The caller compares with the
    /// file's size.
    pub fn next_offset(&self, offset: u64, what: Seek) -> Result<Option<u64>> {
        let blksz = self.datablksz().max(1);
        let from = offset / blksz;
        let next = match self.live().filter(|live| live.is_changed()) {
            Some(live) => self.next_block_live(live, from, what)?,
            None => self.next_block(from, what)?,
        };
        let found = match next {
            Some(blk) => blk,
            None if what == Seek::Data => return Ok(None),
            None => self.tree().addressable().max(from),
        };
        Ok(Some(found.saturating_mul(blksz).max(offset)))
    }

    /// First block at or after `from` that is stored (or is not) among those that can be addressed on disk.
    pub(crate) fn next_block(&self, from: u64, what: Seek) -> Result<Option<u64>> {
        self.tree().next_block(from, what)
    }
}

impl Tree {
    /// Blocks that pointers of `level` 0 can address in all.
    pub(crate) fn addressable(&self) -> u64 {
        let span = u32::from(self.phys.nlevels.saturating_sub(1)) * self.epbs();
        let n = u64::from(self.phys.nblkptr);
        if span >= 60 { u64::MAX } else { n.saturating_mul(1 << span) }
    }

    /// First block at or after `from` that is stored (or is not) among those that can be addressed.
    pub(crate) fn next_block(&self, from: u64, what: Seek) -> Result<Option<u64>> {
        let top = self.phys.nlevels.saturating_sub(1);
        let span = u32::from(top) * self.epbs();
        if span >= 64 {
            return Ok(None);
        }
        let mut at = from;
        let mut budget = self.ctx.block_limit;
        for index in (from >> span)..u64::from(self.phys.nblkptr) {
            let own = self.blkptr_of(top, index)?;
            if let Some(found) = self.search(own.as_ref(), (top, index), at, what, &mut budget)? {
                return Ok(Some(found));
            }
            at = match (index + 1).checked_shl(span) {
                Some(at) => at,
                None => return Ok(None),
            };
        }
        Ok(None)
    }

    /// Searches the subtree of one pointer, from block `at` on.
    fn search(
        &self,
        bp: Option<&BlkPtr>,
        (level, blkid): (u8, u64),
        at: u64,
        what: Seek,
        budget: &mut u64,
    ) -> Result<Option<u64>> {
        let epbs = self.epbs();
        let span = u32::from(level) * epbs;
        let full = 1u64.checked_shl(span).unwrap_or(u64::MAX);
        let fill = bp.map_or(0, |bp| if level == 0 { 1 } else { bp.fill() });
        match what {
            Seek::Data if fill == 0 => return Ok(None),
            // The dnode object counts dnodes, not blocks, and is not searched for holes.
            Seek::Hole if fill >= full => return Ok(None),
            Seek::Hole if fill == 0 => return Ok(Some(at)),
            _ if level == 0 => return Ok(Some(at)),
            _ => {}
        }
        *budget = budget.checked_sub(1).ok_or_else(|| {
            let bm = self.ctx.bookmark(self.object, level, blkid);
            Error::corrupt("a tree of more blocks than the pool can hold").at(&bm)
        })?;
        let Some((buf, endian)) = self.indirect(level, blkid)? else {
            return Ok(if what == Seek::Hole { Some(at) } else { None });
        };
        let below = u32::from(level - 1) * epbs;
        let first_child = blkid << epbs;
        let mut at = at;
        for child in (at >> below)..first_child + (1 << epbs) {
            let index = (child - first_child) as usize;
            let bp = self.pointer_in(&buf, endian, index, level - 1, child)?;
            if let Some(found) = self.search(bp.as_ref(), (level - 1, child), at, what, budget)? {
                return Ok(Some(found));
            }
            at = (child + 1) << below;
        }
        Ok(None)
    }
}
