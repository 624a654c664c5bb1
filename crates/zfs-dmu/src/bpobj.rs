//! Block pointer lists: the blocks of a deadlist, of deferred frees, of a livelist.
//!
//! A list holds pointers and names further lists. OpenZFS nests them by reference and never shares one, except the
//! pool's one empty list; so a list met twice that is not empty is corruption, and the walk is bounded by the number
//! of objects.

use crate::dnode::Dnode;
use crate::objset::Objset;
use crate::txg::Tx;
use std::collections::HashSet;
use std::sync::Arc;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::bpobj::{BpobjPhys, MAX_DEPTH};
use zfs_phys::read::u64_at;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Error, ErrorKind, Result};

/// An open list.
pub struct Bpobj {
    objset: Arc<Objset>,
    dnode: Arc<Dnode>,
    phys: BpobjPhys,
}

impl Bpobj {
    /// Opens the list in object `object` of the MOS.
    pub fn open(mos: &Arc<Objset>, object: u64) -> Result<Self> {
        let dnode = mos.dnode(object)?;
        let phys = BpobjPhys::decode(&dnode.bonus()?, dnode.phys().endian)
            .map_err(|e| Error::from(e).at(&dnode.ctx.bookmark(object, 0, 0)))?;
        Ok(Self { objset: mos.clone(), dnode, phys })
    }

    /// Its header: counts and sums.
    pub fn phys(&self) -> &BpobjPhys {
        &self.phys
    }

    /// The object.
    pub fn dnode(&self) -> &Arc<Dnode> {
        &self.dnode
    }

    /// Object numbers of the lists it names directly.
    pub fn subobjs(&self) -> Result<Vec<u64>> {
        if self.phys.subobjs == 0 || self.phys.num_subobjs == 0 {
            return Ok(Vec::new());
        }
        let dnode = self.objset.dnode(self.phys.subobjs)?;
        let mut out = Vec::new();
        each(&dnode, self.phys.num_subobjs, 8, |raw, endian| {
            out.extend(u64_at(raw, 0, endian));
            Ok(())
        })?;
        Ok(out)
    }

    /// Calls `f` for the pointers of this list alone, oldest first, with the mark of freed ones (livelists).
    pub fn iterate_own(&self, mut f: impl FnMut(&BlkPtr, bool) -> Result<()>) -> Result<()> {
        each(&self.dnode, self.phys.num_blkptrs, BLKPTR_SIZE as u64, |raw, endian| {
            let bp = BlkPtr::decode(raw, endian)?;
            f(&bp, bp.word[11] & 1 != 0)
        })
    }

    /// Calls `f` for the pointers of this list and all below it.
    pub fn iterate(&self, mut f: impl FnMut(&BlkPtr, bool) -> Result<()>) -> Result<()> {
        let mut seen = HashSet::from([self.dnode.object()]);
        self.iterate_own(&mut f)?;
        let mut pending: Vec<(u64, usize)> = self.subobjs()?.into_iter().map(|o| (o, 1)).collect();
        while let Some((object, depth)) = pending.pop() {
            let sub = Self::open(&self.objset, object)?;
            let empty = sub.phys.num_blkptrs == 0 && sub.phys.num_subobjs == 0;
            if !empty && (!seen.insert(object) || depth > MAX_DEPTH) {
                let bm = self.dnode.ctx.bookmark(object, 0, 0);
                return Err(Error::corrupt("block pointer lists that hold each other").at(&bm));
            }
            sub.iterate_own(&mut f)?;
            pending.extend(sub.subobjs()?.into_iter().map(|o| (o, depth + 1)));
        }
        Ok(())
    }
}

impl Bpobj {
    /// Makes an empty list. Gives its object number.
    pub fn create(mos: &Arc<Objset>, tx: &Tx) -> Result<u64> {
        let _ = (mos, tx);
        Err(Error::unsupported("changing a block pointer list"))
    }

    /// Appends a pointer; `dsize` are the bytes it counts in the list's sum.
    pub fn enqueue(&mut self, tx: &Tx, bp: &BlkPtr, freed: bool, dsize: u64) -> Result<()> {
        let _ = (tx, bp, freed, dsize);
        Err(Error::unsupported("changing a block pointer list"))
    }

    /// Hangs another list, which is not empty and hangs nowhere else, below this one.
    pub fn enqueue_subobj(&mut self, tx: &Tx, object: u64) -> Result<()> {
        let _ = (tx, object);
        Err(Error::unsupported("changing a block pointer list"))
    }

    /// Gives pointers to `f`, newest first, and takes them off, those of lists below included, until `f` says that it
    /// has enough. Tells whether the list is empty now.
    pub fn take(&mut self, tx: &Tx, f: &mut dyn FnMut(&BlkPtr, bool) -> Result<Enough>) -> Result<bool> {
        let _ = (tx, f);
        Err(Error::unsupported("changing a block pointer list"))
    }

    /// Frees a list and all below it; not the blocks on it.
    pub fn destroy(mos: &Arc<Objset>, tx: &Tx, object: u64) -> Result<()> {
        let _ = (mos, tx, object);
        Err(Error::unsupported("changing a block pointer list"))
    }
}

/// Whether [`Bpobj::take`] is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// It is.
    No,
    /// The last pointer was taken; no more.
    Yes,
}

/// Calls `f` for `count` items of `size` bytes at the start of an object.
fn each(dnode: &Dnode, count: u64, size: u64, mut f: impl FnMut(&[u8], Endian) -> Result<()>) -> Result<()> {
    let blksz = dnode.datablksz();
    let per_block = blksz / size;
    let fail = |blkid: u64, what: &'static str| Error::corrupt(what).at(&dnode.ctx.bookmark(dnode.object(), 0, blkid));
    if count == 0 {
        return Ok(());
    }
    let most = dnode.phys().maxblkid.saturating_add(1).min(dnode.ctx.block_limit);
    if per_block == 0 || count.div_ceil(per_block) > most {
        return Err(fail(0, "a list longer than its object"));
    }
    for blkid in 0..count.div_ceil(per_block) {
        let (buf, endian) = dnode
            .read_block_endian(blkid)?
            .ok_or_else(|| fail(blkid, "a hole in a list").with_kind(ErrorKind::Corrupt))?;
        let here = (count - blkid * per_block).min(per_block);
        for raw in buf.chunks_exact(size as usize).take(here as usize) {
            f(raw, endian)?;
        }
    }
    Ok(())
}
