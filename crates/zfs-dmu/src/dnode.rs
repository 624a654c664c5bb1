//! An object: its descriptor and the walk through its indirect blocks.
//!
//! Invariants: a dnode never changes. Block pointers found in an indirect block are believed only if their level is
//! one below; levels are bounded by the decoder, so the walk ends whatever the disk says.

use crate::ctx::Ctx;
use crate::prefetch::Zfetch;
use parking_lot::Mutex;
use std::sync::Arc;
use zfs_phys::BlkPtr;
use zfs_phys::Endian;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::DnodePhys;
use zfs_zio::{Buf, Error, ErrorKind, Result, Zbookmark};

/// Block id under which spill blocks are named (`DMU_SPILL_BLKID`).
pub const SPILL_BLKID: u64 = u64::MAX - 1;
/// Longest single read into a fresh buffer, bytes.
const MAX_READ: usize = 1 << 30;

/// What [`Dnode::next_offset`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not.
    Hole,
}

/// An object of an object set.
pub struct Dnode {
    pub(crate) ctx: Arc<Ctx>,
    object: u64,
    phys: DnodePhys,
    zfetch: Mutex<Zfetch>,
}

impl std::fmt::Debug for Dnode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dnode({}:{})", self.ctx.objset, self.object)
    }
}

impl Dnode {
    pub(crate) fn new(ctx: Arc<Ctx>, object: u64, phys: DnodePhys) -> Self {
        Self { ctx, object, phys, zfetch: Mutex::default() }
    }

    /// Object number.
    pub fn object(&self) -> u64 {
        self.object
    }

    /// Number of the object set it belongs to.
    pub fn objset_id(&self) -> u64 {
        self.ctx.objset
    }

    /// The descriptor. Its bonus bytes are ciphertext when the dataset's key is missing: see [`Dnode::bonus`].
    pub fn phys(&self) -> &DnodePhys {
        &self.phys
    }

    /// The bonus buffer; its byte order is `phys().endian`. Fails with [`ErrorKind::KeyUnavailable`] when it is
    /// encrypted and the key is missing.
    pub fn bonus(&self) -> Result<&[u8]> {
        if self.ctx.is_locked() && self.phys.bonustype.is_encrypted() {
            let e = Error::new(ErrorKind::KeyUnavailable, "reading a bonus buffer");
            return Err(e.at(&self.ctx.bookmark(self.object, 0, 0)));
        }
        Ok(&self.phys.bonus)
    }

    /// Data block size, bytes.
    pub fn datablksz(&self) -> u64 {
        self.phys.datablksz()
    }

    /// Levels of the tree: 1 when the dnode's own pointers address data.
    pub fn nlevels(&self) -> u8 {
        self.phys.nlevels
    }

    /// log2 of the number of pointers in an indirect block.
    pub(crate) fn epbs(&self) -> u32 {
        u32::from(self.phys.indblkshift).saturating_sub(BLKPTR_SIZE.trailing_zeros()).min(31)
    }

    fn corrupt(&self, level: u8, blkid: u64, what: &'static str) -> Error {
        Error::corrupt(what).at(&self.ctx.bookmark(self.object, level, blkid))
    }

    /// The pointer to block `blkid` of `level`; nothing where the tree has no such block (a hole).
    pub fn blkptr_of(&self, level: u8, blkid: u64) -> Result<Option<BlkPtr>> {
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
        if let Some(hit) = self.ctx.cached_indirect(self.object, level, blkid) {
            return Ok(Some(hit));
        }
        let Some(bp) = self.blkptr_of(level, blkid)? else { return Ok(None) };
        let buf = self.ctx.read(&bp, &self.ctx.bookmark(self.object, level, blkid))?;
        self.ctx.keep_indirect(self.object, level, blkid, &buf, bp.endian());
        Ok(Some((buf, bp.endian())))
    }

    /// Block `blkid` of data; nothing for a hole. Notices sequential reads and fetches ahead.
    pub fn read_block(&self, blkid: u64) -> Result<Option<Buf>> {
        Ok(self.read_block_endian(blkid)?.map(|(buf, _)| buf))
    }

    /// [`Dnode::read_block`] together with the block's byte order.
    pub fn read_block_endian(&self, blkid: u64) -> Result<Option<(Buf, Endian)>> {
        self.note_access(blkid, 1);
        self.read_block_only(blkid)
    }

    fn read_block_only(&self, blkid: u64) -> Result<Option<(Buf, Endian)>> {
        let Some(bp) = self.blkptr_of(0, blkid)? else { return Ok(None) };
        let buf = self.ctx.read(&bp, &self.ctx.bookmark(self.object, 0, blkid))?;
        Ok(Some((buf, bp.endian())))
    }

    /// Tells the read-ahead that blocks are about to be read. Never waits for another thread doing the same.
    fn note_access(&self, first: u64, count: u64) {
        if self.phys.maxblkid == 0 {
            return;
        }
        let Some(mut zfetch) = self.zfetch.try_lock() else { return };
        let ahead = zfetch.access(first, count, self.datablksz());
        drop(zfetch);
        if !ahead.is_empty() {
            self.prefetch_blocks(ahead.start, ahead.end);
        }
    }

    fn prefetch_blocks(&self, start: u64, end: u64) {
        let end = end.min(self.phys.maxblkid.saturating_add(1));
        for blkid in start..end {
            match self.blkptr_of(0, blkid) {
                Ok(Some(bp)) => {
                    self.ctx.zio.prefetch(&bp, &self.ctx.bookmark(self.object, 0, blkid), self.ctx.key.as_ref());
                }
                Ok(None) => {}
                // Whoever really reads the block will meet and report the error.
                Err(_) => return,
            }
        }
        let epbs = self.epbs();
        if self.phys.nlevels > 1 && end <= self.phys.maxblkid && (end >> epbs) != (start >> epbs) {
            // The stream enters the next indirect block: have the one after it on its way too.
            let next = (end >> epbs) + 1;
            if let Ok(Some(bp)) = self.blkptr_of(1, next) {
                self.ctx.zio.prefetch(&bp, &self.ctx.bookmark(self.object, 1, next), self.ctx.key.as_ref());
            }
        }
    }

    /// Asks for a range of bytes to be fetched in the background; best effort, bounded to 32 MiB.
    pub fn prefetch(&self, offset: u64, len: u64) {
        let blksz = self.datablksz().max(1);
        let end = offset.saturating_add(len.min(32 << 20));
        self.prefetch_blocks(offset / blksz, end.div_ceil(blksz).min((offset / blksz).saturating_add(4096)));
    }

    /// Fills `buf` from byte `offset`. Holes and everything behind the last block read as zeros.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let blksz = self.datablksz();
        if buf.is_empty() {
            return Ok(());
        }
        if blksz == 0 {
            return Err(self.corrupt(0, 0, "object with blocks of no size"));
        }
        let last = offset.saturating_add(buf.len() as u64 - 1) / blksz;
        let first = offset / blksz;
        self.note_access(first, last - first + 1);
        if last > first {
            // All blocks of one request are wanted at once, whatever was read before.
            self.prefetch_blocks(first + 1, last + 1);
        }
        let mut skip = (offset - first * blksz) as usize;
        let mut rest = buf;
        let mut blkid = first;
        while !rest.is_empty() {
            let n = rest.len().min(blksz as usize - skip);
            let (piece, tail) = rest.split_at_mut(n);
            match self.read_block_only(blkid)? {
                Some((block, _)) => copy_padded(block.get(skip..).unwrap_or_default(), piece),
                None => piece.fill(0),
            }
            rest = tail;
            skip = 0;
            blkid += 1;
        }
        Ok(())
    }

    /// Reads `len` bytes from `offset` into a fresh buffer. Fails with [`ErrorKind::Invalid`] above 1 GiB.
    pub fn read_vec(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if len > MAX_READ {
            return Err(Error::invalid("reading more than 1 GiB at once"));
        }
        let mut out = vec![0; len];
        self.read_at(offset, &mut out)?;
        Ok(out)
    }

    /// The spill block with its byte order; nothing when there is none.
    pub fn spill(&self) -> Result<Option<(Buf, Endian)>> {
        let Some(bp) = self.phys.spill.filter(|bp| !bp.is_hole()) else { return Ok(None) };
        let bm = Zbookmark::new(self.ctx.objset, self.object, 0, SPILL_BLKID);
        Ok(Some((self.ctx.read(&bp, &bm)?, bp.endian())))
    }
}

/// Copies what is there and zeroes the rest.
fn copy_padded(from: &[u8], to: &mut [u8]) {
    let n = from.len().min(to.len());
    let (head, tail) = to.split_at_mut(n);
    if let Some(from) = from.get(..n) {
        head.copy_from_slice(from);
    }
    tail.fill(0);
}
