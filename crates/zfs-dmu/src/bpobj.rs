//! Block pointer lists: the blocks of a deadlist, of deferred frees, of a livelist.
//!
//! A list holds pointers and names further lists. OpenZFS nests them by reference and never shares one, except the
//! pool's one empty list; so a list met twice that is not empty is corruption, and the walk is bounded by the number
//! of objects.

use crate::dnode::Dnode;
use crate::live::TO_END;
use crate::liveset::ObjectSpec;
use crate::objset::Objset;
use crate::txg::Tx;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::bpobj::{BPOBJ_SIZE, BPOBJ_SIZE_V2, BpobjPhys, MAX_DEPTH};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::read::u64_at;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, Error, ErrorKind, Result};

/// An open list.
pub struct Bpobj {
    objset: Arc<Objset>,
    dnode: Arc<Dnode>,
    phys: BpobjPhys,
    /// Bytes that a pointer counts in the sum, as the owner of the list's object set says.
    dsize: DsizeOf,
}

type DsizeOf = Box<dyn Fn(&BlkPtr) -> u64 + Send + Sync>;

impl Bpobj {
    /// Opens the list in object `object` of the MOS.
    pub fn open(mos: &Arc<Objset>, object: u64) -> Result<Self> {
        let dnode = mos.dnode(object)?;
        let phys = BpobjPhys::decode(&dnode.bonus()?, dnode.phys().endian)
            .map_err(|e| Error::from(e).at(&dnode.ctx.bookmark(object, 0, 0)))?;
        let owner = mos.live.as_ref().map(|live| live.owner.clone());
        let dsize: DsizeOf = Box::new(move |bp| owner.as_ref().map_or(bp.asize(), |o| o.dsize(bp)));
        Ok(Self { objset: mos.clone(), dnode, phys, dsize })
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
        each(&dnode, 0..self.phys.num_subobjs, 8, |raw, endian| {
            out.extend(u64_at(raw, 0, endian));
            Ok(())
        })?;
        Ok(out)
    }

    /// Calls `f` for the pointers of this list alone, oldest first, with the mark of freed ones (livelists).
    pub fn iterate_own(&self, f: impl FnMut(&BlkPtr, bool) -> Result<()>) -> Result<()> {
        self.iterate_part(0..u64::MAX, f)
    }

    /// [`Self::iterate_own`] for those of the pointers that `part` has.
    pub fn iterate_part(&self, part: Range<u64>, mut f: impl FnMut(&BlkPtr, bool) -> Result<()>) -> Result<()> {
        let part = part.start..part.end.min(self.phys.num_blkptrs);
        each(&self.dnode, part, BLKPTR_SIZE as u64, |raw, endian| {
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

/// Block size of the lists and of the arrays of lists below them (`SPA_OLD_MAXBLOCKSIZE`).
const BLOCK: u32 = 128 << 10;

impl Bpobj {
    /// Makes an empty list of the version with lists below it, which with `counts_freed` counts those that were freed
    /// again. Gives its object number.
    pub fn create(mos: &Arc<Objset>, tx: &Tx, counts_freed: bool) -> Result<u64> {
        let bonus_len = if counts_freed { BPOBJ_SIZE } else { BPOBJ_SIZE_V2 };
        let (object_type, bonus_type) = (DmuObjectType::BPOBJ, DmuObjectType::BPOBJ_HDR);
        let spec = ObjectSpec { object_type, block_size: BLOCK, bonus_type, bonus_len, ..Default::default() };
        Ok(mos.allocate(tx, &spec)?.object())
    }

    fn store(&mut self, tx: &Tx) -> Result<()> {
        let bonus = self.phys.encode(self.dnode.bonus()?.len(), Endian::NATIVE)?;
        self.dnode.set_bonus(tx, DmuObjectType::BPOBJ_HDR, &bonus)
    }

    /// Appends a pointer; `dsize` are the bytes it counts in the list's sum, `freed` marks one that was freed again
    /// (livelists), which is subtracted.
    pub fn enqueue(&mut self, tx: &Tx, bp: &BlkPtr, freed: bool, dsize: u64) -> Result<()> {
        let at = self.phys.num_blkptrs.saturating_mul(BLKPTR_SIZE as u64);
        self.dnode.write_at(tx, at, &stored(bp, freed))?;
        self.count(bp, freed, dsize);
        self.store(tx)
    }

    /// Appends many pointers, with the bytes that the owner of the list's object set says for each.
    pub fn enqueue_all(&mut self, tx: &Tx, bps: &[BlkPtr], freed: bool) -> Result<()> {
        for some in bps.chunks(BLOCK as usize / BLKPTR_SIZE) {
            let bytes: Vec<u8> = some.iter().flat_map(|bp| stored(bp, freed)).collect();
            let at = self.phys.num_blkptrs.saturating_mul(BLKPTR_SIZE as u64);
            self.dnode.write_at(tx, at, &bytes)?;
            for bp in some {
                self.count(bp, freed, (self.dsize)(bp));
            }
        }
        self.store(tx)
    }

    fn count(&mut self, bp: &BlkPtr, freed: bool, dsize: u64) {
        let uncomp = if bp.is_metadata() { bp.psize_on_disk() } else { bp.lsize() };
        let p = &mut self.phys;
        p.num_blkptrs += 1;
        p.num_freed += u64::from(freed);
        let sum = |sum: &mut u64, by: u64| *sum = if freed { sum.saturating_sub(by) } else { sum.saturating_add(by) };
        sum(&mut p.bytes, dsize);
        if p.has_comp {
            sum(&mut p.comp, bp.psize_on_disk());
            sum(&mut p.uncomp, uncomp);
        }
    }

    /// Hangs another list, which hangs nowhere else, below this one. An empty one is freed; a short one is copied and
    /// freed, so that lists do not nest without need.
    pub fn enqueue_subobj(&mut self, tx: &Tx, object: u64) -> Result<()> {
        let mut sub = Self::open(&self.objset, object)?;
        if sub.phys.num_blkptrs == 0 && sub.phys.num_subobjs == 0 {
            return Self::destroy(&self.objset, tx, object);
        }
        let one_block = |dnode: &Dnode| dnode.phys().maxblkid == 0;
        let mut flat = true;
        if sub.phys.subobjs != 0 {
            let below = self.objset.dnode(sub.phys.subobjs)?;
            flat = one_block(&below);
            if flat {
                let count = sub.phys.num_subobjs;
                let names = native_words(&below, count)?;
                self.append_subobjs(tx, &names)?;
                self.objset.free_object(tx, sub.phys.subobjs)?;
                (sub.phys.subobjs, sub.phys.num_subobjs) = (0, 0);
                sub.store(tx)?;
            }
        }
        if flat && one_block(&sub.dnode) {
            let mut bytes = Vec::new();
            each(&sub.dnode, 0..sub.phys.num_blkptrs, BLKPTR_SIZE as u64, |raw, endian| {
                bytes.extend_from_slice(&BlkPtr::decode(raw, endian)?.encode(Endian::NATIVE));
                Ok(())
            })?;
            self.dnode.write_at(tx, self.phys.num_blkptrs.saturating_mul(BLKPTR_SIZE as u64), &bytes)?;
            self.phys.num_blkptrs += sub.phys.num_blkptrs;
            self.objset.free_object(tx, object)?;
        } else {
            self.append_subobjs(tx, &[object])?;
        }
        let (p, s) = (&mut self.phys, &sub.phys);
        p.bytes = p.bytes.saturating_add(s.bytes);
        p.comp = p.comp.saturating_add(s.comp);
        p.uncomp = p.uncomp.saturating_add(s.uncomp);
        self.store(tx)
    }

    fn append_subobjs(&mut self, tx: &Tx, objects: &[u64]) -> Result<()> {
        if self.phys.subobjs == 0 {
            let object_type = DmuObjectType::BPOBJ_SUBOBJ;
            let spec = ObjectSpec { object_type, block_size: BLOCK, ..Default::default() };
            self.phys.subobjs = self.objset.allocate(tx, &spec)?.object();
        }
        let bytes: Vec<u8> = objects.iter().flat_map(|o| Endian::NATIVE.put_u64(*o)).collect();
        let at = self.phys.num_subobjs.saturating_mul(8);
        self.objset.dnode(self.phys.subobjs)?.write_at(tx, at, &bytes)?;
        self.phys.num_subobjs += objects.len() as u64;
        Ok(())
    }

    /// Gives pointers to `f`, newest first, and takes them off, those of lists below included, until `f` says that it
    /// has enough. Tells whether the list is empty now.
    pub fn take(&mut self, tx: &Tx, f: &mut dyn FnMut(&BlkPtr, bool) -> Result<Enough>) -> Result<bool> {
        self.take_nested(tx, f, 0)
    }

    fn take_nested(
        &mut self,
        tx: &Tx,
        f: &mut dyn FnMut(&BlkPtr, bool) -> Result<Enough>,
        depth: usize,
    ) -> Result<bool> {
        if depth > MAX_DEPTH {
            let bm = self.dnode.ctx.bookmark(self.dnode.object(), 0, 0);
            return Err(Error::corrupt("block pointer lists that hold each other").at(&bm));
        }
        if !self.take_own(tx, f)? {
            return Ok(false);
        }
        while self.phys.num_subobjs > 0 {
            let names = self.objset.dnode(self.phys.subobjs)?;
            let last = self.phys.num_subobjs - 1;
            let raw = names.read_vec(last.saturating_mul(8), 8)?;
            let endian = names.read_block_endian(last * 8 / names.datablksz().max(8))?.map_or(Endian::NATIVE, |b| b.1);
            let object = u64_at(&raw, 0, endian).unwrap_or(0);
            let mut sub = Self::open(&self.objset, object)?;
            let before = sub.phys;
            let emptied = sub.take_nested(tx, f, depth + 1)?;
            let (p, now) = (&mut self.phys, sub.phys);
            p.bytes = p.bytes.saturating_sub(before.bytes.saturating_sub(now.bytes));
            p.comp = p.comp.saturating_sub(before.comp.saturating_sub(now.comp));
            p.uncomp = p.uncomp.saturating_sub(before.uncomp.saturating_sub(now.uncomp));
            if emptied {
                self.objset.free_object(tx, object)?;
                self.phys.num_subobjs = last;
                names.free_range(tx, last * 8, 8)?;
            }
            self.store(tx)?;
            if !emptied {
                return Ok(false);
            }
        }
        if self.phys.subobjs != 0 {
            self.objset.free_object(tx, self.phys.subobjs)?;
            self.phys.subobjs = 0;
        }
        // What rounding of older versions left behind is nobody's.
        (self.phys.bytes, self.phys.comp, self.phys.uncomp) = (0, 0, 0);
        self.store(tx)?;
        Ok(true)
    }

    /// Takes pointers off this list alone. Tells whether none is left.
    fn take_own(&mut self, tx: &Tx, f: &mut dyn FnMut(&BlkPtr, bool) -> Result<Enough>) -> Result<bool> {
        let before = self.phys.num_blkptrs;
        let mut enough = Enough::No;
        let per_block = (self.dnode.datablksz() / BLKPTR_SIZE as u64).max(1);
        let mut block: Option<(u64, Buf, Endian)> = None;
        while self.phys.num_blkptrs > 0 && enough == Enough::No {
            let index = self.phys.num_blkptrs - 1;
            let blkid = index / per_block;
            if block.as_ref().is_none_or(|(b, ..)| *b != blkid) {
                let bm = self.dnode.ctx.bookmark(self.dnode.object(), 0, blkid);
                let read = self.dnode.read_block_endian(blkid)?;
                let (buf, endian) = read.ok_or_else(|| Error::corrupt("a hole in a list").at(&bm))?;
                block = Some((blkid, buf, endian));
            }
            let Some((_, buf, endian)) = &block else { break };
            let at = (index % per_block) as usize * BLKPTR_SIZE;
            let bp = BlkPtr::decode(buf.get(at..).unwrap_or_default(), *endian)?;
            let freed = bp.word[11] & 1 != 0;
            enough = f(&bp, freed)?;
            self.phys.num_blkptrs = index;
            self.phys.num_freed = self.phys.num_freed.saturating_sub(u64::from(freed));
            self.subtract(&bp);
        }
        if self.phys.num_blkptrs != before {
            let at = self.phys.num_blkptrs.saturating_mul(BLKPTR_SIZE as u64);
            self.dnode.free_range(tx, at, TO_END)?;
            self.store(tx)?;
        }
        Ok(self.phys.num_blkptrs == 0)
    }

    fn subtract(&mut self, bp: &BlkPtr) {
        let uncomp = if bp.is_metadata() { bp.psize_on_disk() } else { bp.lsize() };
        let p = &mut self.phys;
        p.bytes = p.bytes.saturating_sub((self.dsize)(bp));
        p.comp = p.comp.saturating_sub(bp.psize_on_disk());
        p.uncomp = p.uncomp.saturating_sub(uncomp);
    }

    /// Frees a list and all below it; not the blocks on it.
    pub fn destroy(mos: &Arc<Objset>, tx: &Tx, object: u64) -> Result<()> {
        let mut pending = vec![object];
        let mut seen = HashSet::new();
        while let Some(object) = pending.pop() {
            if !seen.insert(object) {
                return Err(Error::corrupt("block pointer lists that hold each other"));
            }
            let list = Self::open(mos, object)?;
            pending.extend(list.subobjs()?);
            if list.phys.subobjs != 0 {
                mos.free_object(tx, list.phys.subobjs)?;
            }
            mos.free_object(tx, object)?;
        }
        Ok(())
    }
}

/// The first words of an object.
fn native_words(dnode: &Dnode, count: u64) -> Result<Vec<u64>> {
    let mut out = Vec::new();
    each(dnode, 0..count, 8, |raw, endian| {
        out.extend(u64_at(raw, 0, endian));
        Ok(())
    })?;
    Ok(out)
}

/// Whether [`Bpobj::take`] is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// It is.
    No,
    /// The last pointer was taken; no more.
    Yes,
}

/// A pointer as lists have it: only what is counted and what tells where the block is.
fn stored(bp: &BlkPtr, freed: bool) -> [u8; BLKPTR_SIZE] {
    let mut stored = *bp;
    if bp.is_embedded() {
        stored = BlkPtr::default();
        stored.word[6] = bp.word[6];
        stored.word[10] = bp.word[10];
    } else if !bp.is_dedup() {
        stored.set_checksum([0; 4]);
    }
    stored.word[11] = u64::from(freed);
    stored.encode(Endian::NATIVE)
}

/// Calls `f` for the items of `size` bytes in an object that have these numbers.
fn each(dnode: &Dnode, part: Range<u64>, size: u64, mut f: impl FnMut(&[u8], Endian) -> Result<()>) -> Result<()> {
    let blksz = dnode.datablksz();
    let per_block = blksz / size;
    let fail = |blkid: u64, what: &'static str| Error::corrupt(what).at(&dnode.ctx.bookmark(dnode.object(), 0, blkid));
    if part.is_empty() {
        return Ok(());
    }
    let most = dnode.phys().maxblkid.saturating_add(1).min(dnode.ctx.block_limit);
    if per_block == 0 || part.end.div_ceil(per_block) > most {
        return Err(fail(0, "a list longer than its object"));
    }
    for blkid in part.start / per_block..part.end.div_ceil(per_block) {
        let (buf, endian) = dnode
            .read_block_endian(blkid)?
            .ok_or_else(|| fail(blkid, "a hole in a list").with_kind(ErrorKind::Corrupt))?;
        let first = blkid * per_block;
        let here = (part.end - first).min(per_block) as usize;
        let skip = part.start.saturating_sub(first) as usize;
        for raw in buf.chunks_exact(size as usize).take(here).skip(skip) {
            f(raw, endian)?;
        }
    }
    Ok(())
}
