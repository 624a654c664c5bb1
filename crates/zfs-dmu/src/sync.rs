//! Writing what changed: from the changes of one txg to a new tree on disk.
//!
//! Order within one object set: first the objects (data, then each level of indirect blocks above it), whose new
//! descriptors go into blocks of the array of dnodes; then that array in the same way; last the header. Every block is
//! new, except in later passes over the same txg, where a block born in this txg may be written in place.
//!
//! A tree is rewritten from below by recursion along the paths that lead to something changed: a pointer's new value is
//! what its subtree returns. Siblings are independent, so each level hands them to the pool's threads in batches; a
//! batch bounds how many indirect blocks are in memory at once. Frees are part of the same walk: a subtree that a freed
//! range covers is given back whole, one that it cuts is walked into.
//!
//! Invariants: the owner hears of each block that is born and each that dies exactly once; `dn_used` is the sum of what
//! it says they take; an indirect block without children is a hole; the fill count of a pointer is the sum of those
//! below it, where a block of data counts one and a block of dnodes its objects.

use crate::ctx::Ctx;
use crate::dnode::{Dnode, SPILL_BLKID};
use crate::live::{Live, Ranges, next_epoch};
use crate::liveset::{Dirty, LiveObjset};
use crate::objset::{
    GROUPUSED_OBJECT, MAX_OBJECT, META_DNODE_OBJECT, Objset, PROJECTUSED_OBJECT, USERUSED_OBJECT, slots,
};
use crate::owner::{BlockKind, ObjsetOwner};
use crate::tree::{Tree, epbs};
use crate::txg::Tx;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::{DN_MAX_LEVELS, DNODE_FLAG_SPILL_BLKPTR, DNODE_FLAG_USED_BYTES, DNODE_SIZE, DnodePhys};
use zfs_phys::enums::{ByteswapKind, CompressKind, DmuObjectType};
use zfs_phys::objset::{ObjsetPhys, ZilHeader};
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, Error, Result, WriteProps, Zbookmark};

/// Siblings that are worked on at once.
const BATCH: usize = 64;
/// Bytes of data below which it is not worth to ask other threads.
const WORTH_THREADS: usize = 64 << 10;

/// What a sync takes of an object's change.
pub(crate) struct Work {
    pub(crate) blocks: Vec<(u64, Buf)>,
    /// Those of them that were written ahead.
    pub(crate) ahead: BTreeMap<u64, BlkPtr>,
    /// Blocks that were written ahead for nothing.
    pub(crate) dead: Vec<BlkPtr>,
    pub(crate) frees: Ranges,
    pub(crate) bonus: Option<(DmuObjectType, Vec<u8>)>,
    pub(crate) spill: Option<Option<Buf>>,
    pub(crate) blocksize: Option<u32>,
    pub(crate) checksum: Option<u8>,
    pub(crate) compress: Option<u8>,
    pub(crate) object_type: Option<DmuObjectType>,
    pub(crate) freed: bool,
}

/// One object being written.
struct Job {
    ctx: Arc<Ctx>,
    set: Arc<LiveObjset>,
    object: u64,
    txg: u64,
    pass: u32,
    phys: DnodePhys,
    blocks: Vec<(u64, Buf)>,
    ahead: BTreeMap<u64, BlkPtr>,
    frees: Vec<(u64, u64)>,
    /// Pointers that the dnode itself held before it got more levels, and the level of the block they are in now.
    moved: Option<(u8, Vec<BlkPtr>)>,
    /// Change of the space used, bytes.
    used: AtomicI64,
}

impl Job {
    fn tx(&self) -> Tx {
        Tx::syncing(self.txg)
    }

    fn epbs(&self) -> u32 {
        epbs(&self.phys)
    }

    /// First and last-plus-one data block below pointer `blkid` of `level`.
    fn span(&self, level: u8, blkid: u64) -> (u64, u64) {
        let bits = u32::from(level) * self.epbs();
        if bits >= 64 {
            return (0, u64::MAX);
        }
        let first = u128::from(blkid) << bits;
        let end = first + (1u128 << bits);
        (first.min(u64::MAX.into()) as u64, end.min(u64::MAX.into()) as u64)
    }

    fn kill(&self, bp: &BlkPtr) -> Result<()> {
        if !bp.is_hole() {
            self.used.fetch_sub(self.set.owner.dsize(bp) as i64, Relaxed);
            self.set.owner.block_kill(bp, &self.tx())?;
        }
        Ok(())
    }

    fn hole(&self, prev: &BlkPtr, level: u8, lsize: u64) -> BlkPtr {
        if prev.is_hole() {
            return *prev;
        }
        let birth = if self.ctx.zio.holes_have_births() { self.txg } else { 0 };
        let lsize = if prev.lsize() == 0 { lsize } else { prev.lsize() };
        BlkPtr::hole(lsize, self.phys.object_type, level, birth)
    }

    fn lsize(&self, level: u8) -> u64 {
        if level == 0 { self.phys.datablksz() } else { 1 << self.phys.indblkshift }
    }

    /// Writes one block in the place of `prev` and tells the owner of both.
    fn write(&self, bm: &Zbookmark, kind: &BlockKind, prev: &BlkPtr, buf: &Buf, fill: u64) -> Result<BlkPtr> {
        let owner = &self.set.owner;
        let props = owner.write_props(kind);
        let known = (prev.birth() != 0).then_some(prev);
        let ahead = self.ahead.get(&bm.blkid).filter(|_| kind.level == 0 && !kind.spill);
        let mut bp = match ahead {
            Some(bp) => *bp,
            None => self.ctx.zio.write(self.txg, buf, &props, bm, known, self.pass)?,
        };
        if bp.is_hole() {
            self.kill(prev)?;
            return Ok(self.hole(prev, kind.level, kind.lsize));
        }
        if !bp.is_embedded() {
            bp.set_fill(fill);
        }
        let in_place = !prev.is_hole() && !prev.is_embedded() && !bp.is_embedded() && bp.dva(0) == prev.dva(0);
        if !in_place {
            self.kill(prev)?;
            self.used.fetch_add(owner.dsize(&bp) as i64, Relaxed);
            owner.block_born(&bp, &self.tx())?;
        }
        Ok(bp)
    }

    fn kind(&self, level: u8, object_type: DmuObjectType, lsize: u64) -> BlockKind {
        let (checksum, compress) = (self.phys.checksum, self.phys.compress);
        BlockKind { object: self.object, object_type, level, spill: false, checksum, compress, lsize }
    }

    /// The pointers of an indirect block, as they were before this sync.
    fn load(&self, level: u8, blkid: u64, bp: &BlkPtr) -> Result<Vec<BlkPtr>> {
        let count = 1usize << self.epbs();
        if let Some((at, moved)) = &self.moved
            && (*at, 0) == (level, blkid)
        {
            let mut entries = moved.clone();
            entries.resize(count, BlkPtr::default());
            return Ok(entries);
        }
        if bp.is_hole() {
            return Ok(vec![BlkPtr::default(); count]);
        }
        let bm = self.ctx.bookmark(self.object, level, blkid);
        if bp.level() != level {
            return Err(Error::corrupt("block pointer of the wrong level").at(&bm));
        }
        let buf = self.ctx.read(bp, &bm)?;
        let entries: std::result::Result<Vec<_>, _> =
            buf.chunks_exact(BLKPTR_SIZE).map(|raw| BlkPtr::decode(raw, bp.endian())).collect();
        let entries = entries.map_err(|e| Error::from(e).at(&bm))?;
        if entries.len() != count {
            return Err(Error::corrupt("an indirect block of the wrong size").at(&bm));
        }
        Ok(entries)
    }

    /// Gives a whole subtree back.
    fn free_tree(&self, level: u8, blkid: u64, bp: &BlkPtr) -> Result<()> {
        if bp.is_hole() {
            return Ok(());
        }
        if level > 0 {
            for (i, child) in (0u64..).zip(self.load(level, blkid, bp)?) {
                self.free_tree(level - 1, (blkid << self.epbs()) + i, &child)?;
            }
        }
        self.kill(bp)
    }

    fn freed(&self, span: (u64, u64)) -> Freed {
        let at = self.frees.partition_point(|(_, end)| *end <= span.0);
        match self.frees.get(at) {
            Some((start, end)) if *start <= span.0 && *end >= span.1 => Freed::Whole,
            Some((start, _)) if *start < span.1 => Freed::Part,
            _ => Freed::No,
        }
    }

    /// The changed blocks of a range.
    fn dirty(&self, span: (u64, u64)) -> &[(u64, Buf)] {
        let from = self.blocks.partition_point(|(b, _)| *b < span.0);
        let to = self.blocks.partition_point(|(b, _)| *b < span.1);
        self.blocks.get(from..to).unwrap_or_default()
    }

    fn is_moved_path(&self, level: u8, blkid: u64) -> bool {
        blkid == 0 && self.moved.as_ref().is_some_and(|(at, _)| level >= *at)
    }

    /// What has to be done below a pointer.
    fn task(&self, level: u8, blkid: u64) -> Task {
        let span = self.span(level, blkid);
        let dirty = !self.dirty(span).is_empty();
        match self.freed(span) {
            _ if self.is_moved_path(level, blkid) => Task::Walk,
            // Freed and then written again in places: each child decides for itself.
            Freed::Whole if dirty => Task::Walk,
            Freed::Whole => Task::Free,
            Freed::Part if level > 0 => Task::Walk,
            _ if dirty => Task::Walk,
            _ => Task::Nothing,
        }
    }

    /// Does what has to be done below a pointer; gives its new value.
    fn subtree(self: &Arc<Self>, level: u8, blkid: u64, prev: &BlkPtr) -> Result<BlkPtr> {
        match self.task(level, blkid) {
            Task::Nothing => Ok(*prev),
            Task::Free => {
                self.free_tree(level, blkid, prev)?;
                Ok(self.hole(prev, level, self.lsize(level)))
            }
            Task::Walk if level == 0 => self.leaf(blkid, prev),
            Task::Walk => self.branch(level, blkid, prev),
        }
    }

    fn leaf(&self, blkid: u64, prev: &BlkPtr) -> Result<BlkPtr> {
        let bm = self.ctx.bookmark(self.object, 0, blkid);
        let Some((_, buf)) = self.dirty((blkid, blkid + 1)).first() else { return Ok(*prev) };
        let fill = if self.phys.object_type == DmuObjectType::DNODE { slots(buf, 0).count() as u64 } else { 1 };
        self.write(&bm, &self.kind(0, self.phys.object_type, buf.len() as u64), prev, buf, fill)
    }

    /// Rewrites an indirect block.
    fn branch(self: &Arc<Self>, level: u8, blkid: u64, prev: &BlkPtr) -> Result<BlkPtr> {
        let mut entries = self.load(level, blkid, prev)?;
        let first = blkid << self.epbs();
        let children: Vec<(usize, BlkPtr)> = entries
            .iter()
            .enumerate()
            .filter(|(i, _)| self.task(level - 1, first + *i as u64) != Task::Nothing)
            .map(|(i, bp)| (i, *bp))
            .collect();
        let mut changed = self.moved.as_ref().is_some_and(|(at, _)| (*at, 0) == (level, blkid));
        for batch in children.chunks(BATCH) {
            for (i, bp) in self.children(level - 1, first, batch)? {
                if let Some(entry) = entries.get_mut(i) {
                    changed |= *entry != bp;
                    *entry = bp;
                }
            }
        }
        if !changed {
            return Ok(*prev);
        }
        if entries.iter().all(BlkPtr::is_hole) {
            self.kill(prev)?;
            return Ok(self.hole(prev, level, self.lsize(level)));
        }
        let fill = entries.iter().filter(|bp| !bp.is_hole()).fold(0u64, |sum, bp| sum.saturating_add(bp.fill()));
        let mut bytes = Vec::with_capacity(entries.len() * BLKPTR_SIZE);
        for bp in &entries {
            bytes.extend_from_slice(&bp.encode(Endian::NATIVE));
        }
        let bm = self.ctx.bookmark(self.object, level, blkid);
        let kind = self.kind(level, self.phys.object_type, bytes.len() as u64);
        self.write(&bm, &kind, prev, &bytes.into(), fill)
    }

    /// Does siblings, on several threads when there is enough to do.
    fn children(self: &Arc<Self>, level: u8, first: u64, batch: &[(usize, BlkPtr)]) -> Result<Vec<(usize, BlkPtr)>> {
        let size: usize = match (batch.first(), batch.last()) {
            (Some((a, _)), Some((b, _))) => {
                let span = (self.span(level, first + *a as u64).0, self.span(level, first + *b as u64).1);
                self.dirty(span).iter().map(|(_, buf)| buf.len()).sum()
            }
            _ => 0,
        };
        let Some(pool) = self.ctx.zio.tasks().filter(|_| batch.len() > 1 && size >= WORTH_THREADS) else {
            return batch.iter().map(|(i, bp)| Ok((*i, self.subtree(level, first + *i as u64, bp)?))).collect();
        };
        type Run = Box<dyn FnOnce() -> Result<(usize, BlkPtr)> + Send>;
        let jobs: Vec<Run> = batch
            .iter()
            .map(|&(i, bp)| {
                let job = self.clone();
                Box::new(move || Ok((i, job.subtree(level, first + i as u64, &bp)?))) as Run
            })
            .collect();
        pool.run(jobs).into_iter().map(|r| r.unwrap_or_else(|| Err(panicked()))).collect()
    }

    /// All the blocks of the object. Gives its new pointers.
    fn run(self: &Arc<Self>) -> Result<[BlkPtr; 3]> {
        let mut blkptr = self.phys.blkptr;
        let top = self.phys.nlevels - 1;
        let own: Vec<(usize, BlkPtr)> =
            blkptr.iter().copied().enumerate().take(usize::from(self.phys.nblkptr)).collect();
        for (i, bp) in self.children(top, 0, &own)? {
            if let Some(slot) = blkptr.get_mut(i) {
                *slot = bp;
            }
        }
        Ok(blkptr)
    }
}

enum Freed {
    No,
    Part,
    Whole,
}

#[derive(PartialEq, Eq)]
enum Task {
    Nothing,
    Free,
    Walk,
}

fn panicked() -> Error {
    Error::new(zfs_zio::ErrorKind::Bug, "a thread that wrote blocks ended")
}

/// Gives an object enough levels for block `last`. Pointers that move down are returned with the level of their block.
fn grow(phys: &mut DnodePhys, last: u64) -> Result<Option<(u8, Vec<BlkPtr>)>> {
    let before = phys.nlevels;
    let reach = |levels: u8| {
        let bits = u32::from(levels - 1) * epbs(phys);
        if bits >= 64 { u128::MAX } else { u128::from(phys.nblkptr) << bits }
    };
    let mut levels = before;
    while reach(levels) <= u128::from(last) {
        levels += 1;
        if levels > DN_MAX_LEVELS {
            return Err(Error::invalid("writing behind the last block an object can have"));
        }
    }
    phys.nlevels = levels;
    let moved: Vec<BlkPtr> = phys.blkptrs().copied().collect();
    if levels == before || moved.iter().all(|bp| *bp == BlkPtr::default()) {
        return Ok(None);
    }
    phys.blkptr = [BlkPtr::default(); 3];
    Ok(Some((before, moved)))
}

/// Brings a descriptor into the machine's byte order.
fn make_native(phys: &mut DnodePhys) -> Result<()> {
    if phys.endian == Endian::NATIVE {
        return Ok(());
    }
    match phys.bonustype.byteswap() {
        _ if phys.bonus.is_empty() => {}
        ByteswapKind::Uint8 => {}
        ByteswapKind::Uint64 => phys.bonus.chunks_exact_mut(8).for_each(<[u8]>::reverse),
        _ => return Err(Error::unsupported("changing an object that a machine of the other byte order wrote")),
    }
    phys.endian = Endian::NATIVE;
    Ok(())
}

/// Writes what changed of an object. Gives its new descriptor; nothing when it was freed.
fn sync_node(set: &Arc<LiveObjset>, node: &Dnode, live: &Live, txg: u64, pass: u32) -> Result<Option<DnodePhys>> {
    let Some(work) = live.take_work(txg) else { return Ok(Some(live.tree().phys.clone())) };
    let mut phys = live.tree().phys.clone();
    let accounting = set.accounting.get().filter(|_| node.object() != META_DNODE_OBJECT && node.object() < MAX_OBJECT);
    if let Some(accounting) = accounting {
        accounting.count(&phys, -1, &mut set.deltas.lock());
    }
    if let Some((bonustype, bonus)) = work.bonus {
        (phys.bonustype, phys.bonus, phys.endian) = (bonustype, bonus, Endian::NATIVE);
    }
    make_native(&mut phys)?;
    if let Some(size) = work.blocksize {
        phys.datablkszsec = (size >> 9) as u16;
    }
    phys.checksum = work.checksum.unwrap_or(phys.checksum);
    phys.compress = work.compress.unwrap_or(phys.compress);
    phys.object_type = work.object_type.unwrap_or(phys.object_type);
    let mut frees: Vec<(u64, u64)> = work.frees.iter().collect();
    if work.freed {
        frees = vec![(0, u64::MAX)];
    }
    for (start, end) in frees.iter().rev() {
        if *end > phys.maxblkid && *start <= phys.maxblkid {
            phys.maxblkid = start.saturating_sub(1);
        }
    }
    // No part of the object ever: nobody has counted them.
    work.dead.iter().try_for_each(|bp| node.ctx.zio.free(txg, bp))?;
    let mut moved = None;
    if let Some((last, _)) = work.blocks.last() {
        phys.maxblkid = phys.maxblkid.max(*last);
        moved = grow(&mut phys, *last)?;
    }
    let job = Arc::new(Job {
        ctx: node.ctx.clone(),
        set: set.clone(),
        object: node.object(),
        txg,
        pass,
        phys: phys.clone(),
        blocks: work.blocks,
        ahead: work.ahead,
        frees,
        moved,
        used: AtomicI64::new(0),
    });
    phys.blkptr = job.run()?;
    if work.freed {
        if let Some(bp) = &phys.spill {
            job.kill(bp)?;
        }
        return Ok(None);
    }
    if let Some(spill) = work.spill {
        sync_spill(&job, &mut phys, spill)?;
    }
    phys.used = phys.used_bytes().saturating_add_signed(job.used.load(Relaxed));
    phys.flags |= DNODE_FLAG_USED_BYTES;
    if let Some(accounting) = accounting {
        accounting.mark(&mut phys);
        accounting.count(&phys, 1, &mut set.deltas.lock());
    }
    Ok(Some(phys))
}

fn sync_spill(job: &Job, phys: &mut DnodePhys, spill: Option<Buf>) -> Result<()> {
    let prev = phys.spill.unwrap_or_default();
    match spill {
        None => {
            job.kill(&prev)?;
            phys.spill = None;
            phys.flags &= !DNODE_FLAG_SPILL_BLKPTR;
        }
        Some(buf) => {
            let bm = Zbookmark::new(job.ctx.objset, job.object, 0, SPILL_BLKID);
            let kind = BlockKind { spill: true, ..job.kind(0, phys.bonustype, buf.len() as u64) };
            phys.spill = Some(job.write(&bm, &kind, &prev, &buf, 1)?);
            phys.flags |= DNODE_FLAG_SPILL_BLKPTR;
        }
    }
    Ok(())
}

impl Objset {
    /// Writes what is dirty in the txg of `tx`, a syncing one. Gives the pointer to the new header when there is one.
    /// May be called again in later passes of the same txg.
    ///
    /// # Errors
    /// Whatever reading or writing blocks met. Part of the changes may be written then; the txg must not be committed.
    pub fn sync(self: &Arc<Self>, tx: &Tx, pass: u32) -> Result<Option<BlkPtr>> {
        let live = self.live_set()?.clone();
        let Some(dirty) = live.take_dirty(tx.txg()) else { return Ok(None) };
        let mut header = (*self.phys()).clone();
        header.endian = Endian::NATIVE;
        header.zil_header = dirty.zil.unwrap_or(header.zil_header);
        header.flags = dirty.flags.unwrap_or(header.flags);
        if let Some(log) = live.log().filter(|_| pass == 1) {
            log.sync(self, tx.txg(), &mut header.zil_header)?;
        }
        self.sync_objects(&live, tx, pass, &dirty, &mut header)?;
        self.store_deltas(&live, tx)?;
        if let Some(sums) = live.take_dirty(tx.txg()) {
            self.sync_objects(&live, tx, pass, &sums, &mut header)?;
        }
        let meta = self.meta_dnode();
        if let Some(l) = meta.live() {
            let phys =
                sync_node(&live, meta, l, tx.txg(), pass)?.ok_or_else(|| Error::corrupt("no array of dnodes"))?;
            header.meta_dnode = phys.clone();
            l.replace_tree(tx.txg(), self.tree_of(0, phys));
        }
        let size = live.header_size.load(Relaxed) as usize;
        let bp = self.write_header(&*live.owner, tx, pass, &header, size)?;
        self.set_root(bp, header);
        Ok(Some(bp))
    }

    fn tree_of(&self, object: u64, phys: DnodePhys) -> Tree {
        Tree { ctx: self.ctx.clone(), object, phys, epoch: next_epoch() }
    }

    /// Writes the dirty objects and puts their descriptors into the array of dnodes.
    fn sync_objects(
        &self,
        set: &Arc<LiveObjset>,
        tx: &Tx,
        pass: u32,
        dirty: &Dirty,
        header: &mut ObjsetPhys,
    ) -> Result<()> {
        let nodes: Vec<Arc<Dnode>> = dirty.nodes.values().cloned().collect();
        for batch in nodes.chunks(BATCH * 4) {
            for (node, phys) in batch.iter().zip(self.sync_batch(set, tx.txg(), pass, batch)?) {
                self.finish_object(set, tx, node, phys, header)?;
            }
        }
        Ok(())
    }

    fn sync_batch(
        &self,
        set: &Arc<LiveObjset>,
        txg: u64,
        pass: u32,
        batch: &[Arc<Dnode>],
    ) -> Result<Vec<Option<DnodePhys>>> {
        let run = move |set: &Arc<LiveObjset>, node: &Dnode| match node.live() {
            Some(live) => sync_node(set, node, live, txg, pass),
            None => Err(Error::corrupt("a dirty object that cannot change")),
        };
        let Some(pool) = self.ctx.zio.tasks().filter(|_| batch.len() > 1) else {
            return batch.iter().map(|node| run(set, node)).collect();
        };
        type Run = Box<dyn FnOnce() -> Result<Vec<Option<DnodePhys>>> + Send>;
        // Most objects are small: a few per thread at a time.
        let jobs: Vec<Run> = batch
            .chunks(8)
            .map(|part| {
                let (set, part) = (set.clone(), part.to_vec());
                Box::new(move || part.iter().map(|node| run(&set, node)).collect()) as Run
            })
            .collect();
        let mut out = Vec::with_capacity(batch.len());
        for part in pool.run(jobs) {
            out.append(&mut part.unwrap_or_else(|| Err(panicked()))?);
        }
        Ok(out)
    }

    fn finish_object(
        &self,
        set: &LiveObjset,
        tx: &Tx,
        node: &Arc<Dnode>,
        phys: Option<DnodePhys>,
        header: &mut ObjsetPhys,
    ) -> Result<()> {
        let (object, per_block) = (node.object(), self.dnodes_per_block());
        let live = node.live().ok_or_else(|| Error::corrupt("a dirty object that cannot change"))?;
        let special = match object {
            USERUSED_OBJECT => Some(&mut header.userused_dnode),
            GROUPUSED_OBJECT => Some(&mut header.groupused_dnode),
            PROJECTUSED_OBJECT => Some(&mut header.projectused_dnode),
            _ => None,
        };
        if let (Some(place), Some(phys)) = (special, &phys) {
            *place = Some(phys.clone());
            live.replace_tree(tx.txg(), self.tree_of(object, phys.clone()));
            return Ok(());
        }
        let bytes = match &phys {
            Some(phys) => phys.encode()?,
            None => vec![0; live.tree().phys.slots() * DNODE_SIZE],
        };
        let at = (object % per_block) as usize * DNODE_SIZE;
        self.meta_dnode().modify_block(tx, object / per_block, |block| {
            if let Some(to) = block.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(&bytes);
            }
        })?;
        set.settled(object);
        match phys {
            Some(phys) => live.replace_tree(tx.txg(), self.tree_of(object, phys)),
            None => self.forget_object(object),
        }
        Ok(())
    }

    /// Writes the header of an encrypted object set anew, with another intent log in it. No MAC covers that, so no key
    /// is needed. Gives the new pointer. For the sync only.
    ///
    /// # Errors
    /// `Invalid` for one that is not encrypted; whatever writing a block meets.
    pub fn write_sealed_header(&self, tx: &Tx, owner: &dyn ObjsetOwner, log: &ZilHeader) -> Result<BlkPtr> {
        let prev = self.root_bp();
        if !prev.uses_crypt() {
            return Err(Error::invalid("sealing an object set that is not encrypted"));
        }
        let header = ObjsetPhys { zil_header: *log, endian: Endian::NATIVE, ..(*self.phys()).clone() };
        let bp = self.write_header(owner, tx, 1, &header, prev.lsize() as usize)?;
        self.set_root(bp, header);
        Ok(bp)
    }

    fn write_header(
        &self,
        owner: &dyn ObjsetOwner,
        tx: &Tx,
        pass: u32,
        header: &ObjsetPhys,
        size: usize,
    ) -> Result<BlkPtr> {
        let bytes: Buf = header.encode(size)?.into();
        let fill = header.meta_dnode.blkptrs().fold(0u64, |sum, bp| sum.saturating_add(bp.fill()));
        let prev = self.root_bp();
        let (object_type, lsize) = (DmuObjectType::OBJSET, bytes.len() as u64);
        let kind = BlockKind { object: 0, object_type, level: 0, spill: false, checksum: 0, compress: 0, lsize };
        let mut props = owner.write_props(&kind);
        if prev.uses_crypt() {
            props = WriteProps { authenticated: true, compress: CompressKind::Off, ..props };
        }
        let known = (!prev.is_hole()).then_some(&prev);
        let mut bp = self.ctx.zio.write(tx.txg(), &bytes, &props, &Zbookmark::root(self.id()), known, pass)?;
        bp.set_fill(fill);
        if prev.is_hole() || bp.dva(0) != prev.dva(0) {
            if !prev.is_hole() {
                owner.block_kill(&prev, tx)?;
            }
            owner.block_born(&bp, tx)?;
        }
        Ok(bp)
    }
}
