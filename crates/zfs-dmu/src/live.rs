//! Changes to an object that are not on disk: the overlay that reads look at first.
//!
//! Life cycle: the first change of an object in a txg opens a [`Change`] for that txg and puts the object on the dirty
//! list of its object set. When the txg syncs, the changed blocks are written, a new [`Tree`] takes the old one's
//! place, and only once the txg is on disk the change is dropped: until then its blocks answer reads.
//!
//! Invariants: contents are what the newest change says, else an older one, else the tree. A block that the syncing txg
//! is writing is never modified: the next txg gets its own copy (buffers are shared until somebody writes). Changes are
//! ordered: a transaction of an older txg that comes after one of a newer txg joins the newer one, so each txg on disk
//! holds the object as it was at one moment. (The older transaction holds its txg, so the newer one cannot be syncing.)
//!
//! Lock order: an object's state, then the dirty list of the object set. Neither is held while a block is read.

use crate::dnode::{Dnode, Seek, copy_padded};
use crate::liveset::LiveObjset;
use crate::sync::Work;
use crate::tree::Tree;
use crate::txg::Tx;
use crate::zap::ZapShared;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock, Weak};
use zfs_phys::BlkPtr;
use zfs_phys::Endian;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::DnodePhys;
use zfs_phys::enums::{ByteswapKind, DmuObjectType};
use zfs_zio::{Buf, Error, ErrorKind, Result};

/// Length that stands for everything behind an offset.
pub const TO_END: u64 = u64::MAX;
/// Largest block, bytes.
const MAX_BLOCK: u64 = 16 << 20;

static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// A number for a tree that no other has.
pub(crate) fn next_epoch() -> u64 {
    NEXT_EPOCH.fetch_add(1, Relaxed)
}

/// A changed block.
pub(crate) struct Block {
    pub(crate) buf: Buf,
    /// It has to be written (again).
    pub(crate) dirty: bool,
    /// Where it was written ahead as it is now.
    pub(crate) ahead: Option<BlkPtr>,
}

/// Ranges of block numbers, `start..end`, that do not touch.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(crate) fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        if let Some((&s, &e)) = self.0.range(..=start).next_back()
            && e >= start
        {
            (start, end) = (s, end.max(e));
        }
        while let Some((&s, &e)) = self.0.range(start..=end).next() {
            self.0.remove(&s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    pub(crate) fn contains(&self, at: u64) -> bool {
        self.end_of(at).is_some()
    }

    /// End of the range that `at` lies in.
    pub(crate) fn end_of(&self, at: u64) -> Option<u64> {
        self.0.range(..=at).next_back().map(|(_, e)| *e).filter(|e| *e > at)
    }

    fn next_start(&self, from: u64) -> Option<u64> {
        if self.contains(from) { Some(from) } else { self.0.range(from..).next().map(|(s, _)| *s) }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(s, e)| (*s, *e))
    }
}

/// What happened to an object in one txg.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// Blocks freed before any of `blocks` were changed, not yet freed on disk.
    pub(crate) frees: Ranges,
    /// What was written ahead and is no longer what the blocks hold.
    pub(crate) dead: Vec<BlkPtr>,
    /// Those that the sync is freeing right now.
    pub(crate) freeing: Ranges,
    pub(crate) bonus: Option<(DmuObjectType, Vec<u8>)>,
    pub(crate) spill: Option<Option<Buf>>,
    /// The spill block has to be written (again).
    pub(crate) spill_dirty: bool,
    pub(crate) blocksize: Option<u32>,
    pub(crate) checksum: Option<u8>,
    pub(crate) object_type: Option<DmuObjectType>,
    pub(crate) compress: Option<u8>,
    /// The object is freed in this txg.
    pub(crate) freed: bool,
    /// The descriptor has to be written (again).
    pub(crate) dirty: bool,
}

pub(crate) struct State {
    /// The descriptor as all changes make it.
    open: Arc<DnodePhys>,
    pub(crate) changes: BTreeMap<u64, Change>,
    freed: bool,
}

impl State {
    /// What the changes say of a block: its bytes, that it is a hole, or nothing.
    fn changed_block(&self, blkid: u64) -> Option<Option<Buf>> {
        for change in self.changes.values().rev() {
            if let Some(block) = change.blocks.get(&blkid) {
                return Some(Some(block.buf.clone()));
            }
            if change.freed || change.frees.contains(blkid) || change.freeing.contains(blkid) {
                return Some(None);
            }
        }
        None
    }
}

/// The changing half of an object.
pub(crate) struct Live {
    me: Weak<Dnode>,
    pub(crate) shared: Arc<LiveObjset>,
    tree: RwLock<Arc<Tree>>,
    state: Mutex<State>,
    /// Whether there is any change: spares readers the lock.
    changed: AtomicBool,
    /// What those who use the object as a ZAP share.
    pub(crate) zap: OnceLock<Arc<ZapShared>>,
}

impl Live {
    pub(crate) fn new(me: Weak<Dnode>, shared: Arc<LiveObjset>, tree: Tree) -> Self {
        let open = Arc::new(tree.phys.clone());
        Self {
            me,
            shared,
            tree: RwLock::new(Arc::new(tree)),
            state: Mutex::new(State { open, changes: BTreeMap::new(), freed: false }),
            changed: AtomicBool::new(false),
            zap: OnceLock::new(),
        }
    }

    pub(crate) fn tree(&self) -> Arc<Tree> {
        self.tree.read().clone()
    }

    pub(crate) fn phys(&self) -> Arc<DnodePhys> {
        self.state.lock().open.clone()
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.state.lock().freed
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// What the changes say of a block: its bytes, that it is a hole, or nothing.
    pub(crate) fn changed_block(&self, blkid: u64) -> Option<Option<Buf>> {
        if !self.changed.load(Acquire) {
            return None;
        }
        self.state.lock().changed_block(blkid)
    }

    pub(crate) fn changed_spill(&self) -> Option<Option<Buf>> {
        self.state.lock().changes.values().rev().find_map(|c| c.spill.clone())
    }

    /// The first block from `from` on that is changed, and where ranges that are freed begin.
    fn next_changed(&self, from: u64) -> (Option<u64>, Option<u64>) {
        let state = self.state.lock();
        let block = state.changes.values().filter_map(|c| c.blocks.range(from..).next().map(|(b, _)| *b)).min();
        let free = state.changes.values().flat_map(|c| [&c.frees, &c.freeing]).filter_map(|r| r.next_start(from)).min();
        (block, free)
    }

    /// End of the freed range that `at` lies in, before the next changed block.
    fn freed_until(&self, at: u64) -> u64 {
        let state = self.state.lock();
        let ends = state.changes.values().flat_map(|c| [&c.frees, &c.freeing]).filter_map(|r| r.end_of(at));
        let block = state.changes.values().filter_map(|c| c.blocks.range(at + 1..).next().map(|(b, _)| *b)).min();
        ends.max().unwrap_or(at + 1).min(block.unwrap_or(u64::MAX))
    }

    /// Takes what is to be written for a txg; nothing when that is all done. Blocks keep answering reads.
    pub(crate) fn take_work(&self, txg: u64) -> Option<Work> {
        let mut state = self.state.lock();
        let change = state.changes.get_mut(&txg).filter(|c| c.dirty)?;
        change.dirty = false;
        let (mut blocks, mut ahead) = (Vec::new(), BTreeMap::new());
        for (blkid, block) in &mut change.blocks {
            if std::mem::take(&mut block.dirty) {
                blocks.push((*blkid, block.buf.clone()));
                ahead.extend(block.ahead.take().map(|bp| (*blkid, bp)));
            }
        }
        let dead = std::mem::take(&mut change.dead);
        let frees = std::mem::take(&mut change.frees);
        for (start, end) in frees.iter() {
            change.freeing.add(start, end);
        }
        let spill = if std::mem::take(&mut change.spill_dirty) { change.spill.clone() } else { None };
        Some(Work {
            blocks,
            ahead,
            dead,
            frees,
            bonus: change.bonus.take(),
            spill,
            blocksize: change.blocksize.take(),
            checksum: change.checksum.take(),
            compress: change.compress.take(),
            object_type: change.object_type.take(),
            freed: change.freed,
        })
    }

    /// Puts the tree of a finished sync in the place of the old one.
    pub(crate) fn replace_tree(&self, txg: u64, tree: Tree) {
        let phys = tree.phys.clone();
        *self.tree.write() = Arc::new(tree);
        let mut state = self.state.lock();
        if let Some(change) = state.changes.get_mut(&txg) {
            change.freeing = Ranges::default();
        }
        let newer = state.changes.range(txg + 1..).next().is_some();
        let open = Arc::make_mut(&mut state.open);
        open.blkptr = phys.blkptr;
        (open.nlevels, open.nblkptr, open.used, open.flags) = (phys.nlevels, phys.nblkptr, phys.used, phys.flags);
        if !newer {
            open.spill = phys.spill;
        }
    }

    /// Forgets the change of a txg that is on disk.
    pub(crate) fn txg_done(&self, txg: u64) {
        let mut state = self.state.lock();
        state.changes.remove(&txg);
        if state.changes.is_empty() {
            self.changed.store(false, Relaxed);
        }
    }

    /// A block that was changed in `txg` and is still to be written.
    pub(crate) fn with_block<T>(&self, txg: u64, blkid: u64, f: impl FnOnce(&mut Block) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let change = state.changes.get_mut(&txg).filter(|change| change.dirty && !change.freed)?;
        change.blocks.get_mut(&blkid).filter(|block| block.dirty).map(f)
    }

    /// Has the descriptor written in the txg of `tx`.
    pub(crate) fn touch(&self, tx: &Tx) {
        self.change(tx, |_, _| ());
    }

    /// Changes the object: `f` is given the descriptor with all changes and the change to note it in.
    pub(crate) fn change<T>(&self, tx: &Tx, f: impl FnOnce(&mut Arc<DnodePhys>, &mut Change) -> T) -> T {
        self.change_locked(&mut self.state.lock(), tx, f)
    }

    fn change_locked<T>(&self, state: &mut State, tx: &Tx, f: impl FnOnce(&mut Arc<DnodePhys>, &mut Change) -> T) -> T {
        let newest = state.changes.keys().next_back().copied().unwrap_or(0);
        let txg = tx.txg().max(newest);
        self.changed.store(true, Release);
        let change = state.changes.entry(txg).or_default();
        // Not only the first time: a later pass of the same sync has to look at the object once more.
        if !change.dirty {
            change.dirty = true;
            if let Some(me) = self.me.upgrade() {
                self.shared.add_dirty(txg, me);
            }
        }
        f(&mut state.open, change)
    }

    /// Changes bytes of one block: `f` is given the whole block. `base` says what the tree of that epoch has there;
    /// nothing is done when no change has the block and that is no longer the tree.
    fn change_block(&self, tx: &Tx, blkid: u64, base: &Base, f: &mut dyn FnMut(&mut Vec<u8>)) -> bool {
        let mut state = self.state.lock();
        let start = match state.changed_block(blkid) {
            Some(buf) => buf,
            None if self.tree.read().epoch == base.epoch => base.buf.clone(),
            None => return false,
        };
        self.change_locked(&mut state, tx, |open, change| {
            let size = open.datablksz() as usize;
            open_max(open, blkid);
            let block = change.blocks.entry(blkid).or_insert_with(|| {
                tx.dirtied(size as u64);
                Block { buf: start.unwrap_or_else(|| Buf::zeroed(size)), dirty: true, ahead: None }
            });
            block.dirty = true;
            change.dead.extend(block.ahead.take());
            let bytes = block.buf.make_mut();
            if bytes.len() != size {
                bytes.resize(size, 0);
            }
            f(bytes);
        });
        true
    }
}

/// What the tree of an epoch has in a block; epoch 0 is none's.
#[derive(Default)]
struct Base {
    epoch: u64,
    buf: Option<Buf>,
}

/// Notes that a block exists.
fn open_max(open: &mut Arc<DnodePhys>, blkid: u64) {
    if open.maxblkid < blkid {
        Arc::make_mut(open).maxblkid = blkid;
    }
}

/// Brings the bytes of a block of the other byte order into the machine's, so that it can be modified.
fn to_native(buf: Buf, endian: Endian, ty: DmuObjectType) -> Result<Buf> {
    if endian == Endian::NATIVE {
        return Ok(buf);
    }
    match ty.byteswap() {
        ByteswapKind::Uint8 => Ok(buf),
        ByteswapKind::Uint64 => {
            let mut bytes = buf.into_vec();
            bytes.chunks_exact_mut(8).for_each(<[u8]>::reverse);
            Ok(bytes.into())
        }
        _ => Err(Error::unsupported("changing a block that a machine of the other byte order wrote")),
    }
}

impl Dnode {
    pub(crate) fn writable(&self) -> Result<&Live> {
        let live = self.live().ok_or_else(|| self.at(Error::new(ErrorKind::ReadOnly, "changing an object")))?;
        if live.is_freed() {
            return Err(self.at(Error::not_found("changing an object that was freed")));
        }
        Ok(live)
    }

    fn at(&self, e: Error) -> Error {
        e.at(&self.ctx.bookmark(self.object(), 0, 0))
    }

    /// Writes bytes at `offset`. A block that is written in part is read first.
    pub fn write_at(&self, tx: &Tx, offset: u64, data: &[u8]) -> Result<()> {
        self.writable()?;
        let blksz = self.datablksz();
        if blksz == 0 || offset.checked_add(data.len() as u64).is_none() {
            return Err(self.at(Error::invalid("writing behind the end of everything")));
        }
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (blkid, skip) = (at / blksz, (at % blksz) as usize);
            let n = rest.len().min(blksz as usize - skip);
            let (piece, tail) = rest.split_at(n);
            if n as u64 == blksz {
                self.write_block(tx, blkid, Buf::copy_of(piece))?;
            } else {
                self.modify_block(tx, blkid, |block| {
                    if let Some(to) = block.get_mut(skip..skip + n) {
                        to.copy_from_slice(piece);
                    }
                })?;
            }
            (at, rest) = (at + n as u64, tail);
        }
        Ok(())
    }

    /// Writes a whole block; `buf` has the object's block size.
    pub fn write_block(&self, tx: &Tx, blkid: u64, buf: Buf) -> Result<()> {
        let live = self.writable()?;
        let size = self.datablksz();
        if buf.len() as u64 != size {
            return Err(self.at(Error::invalid("writing a block of another size than the object's")));
        }
        live.change(tx, |open, change| {
            open_max(open, blkid);
            match change.blocks.insert(blkid, Block { buf, dirty: true, ahead: None }) {
                Some(old) => change.dead.extend(old.ahead),
                None => tx.dirtied(size),
            }
        });
        Ok(())
    }

    /// Changes a block in place; a hole starts as zeros. Gives what `f` returns.
    pub fn modify_block<T>(&self, tx: &Tx, blkid: u64, f: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T> {
        let live = self.writable()?;
        let mut f = Some(f);
        let mut done = None;
        let mut call = |bytes: &mut Vec<u8>| done = f.take().map(|f| f(bytes));
        loop {
            let mut base = Base::default();
            if live.changed_block(blkid).is_none() {
                let tree = live.tree();
                let read = tree.read_block(blkid)?;
                let buf = read.map(|(buf, endian)| to_native(buf, endian, tree.phys.object_type)).transpose()?;
                base = Base { epoch: tree.epoch, buf };
            }
            if live.change_block(tx, blkid, &base, &mut call) {
                break;
            }
        }
        done.ok_or_else(|| self.at(Error::new(ErrorKind::Bug, "a change of a block was not made")))
    }

    /// Frees `len` bytes from `offset` ([`TO_END`]: all that follow). Blocks that are covered become holes, the rest of
    /// the blocks at the edges becomes zeros.
    pub fn free_range(&self, tx: &Tx, offset: u64, len: u64) -> Result<()> {
        let live = self.writable()?;
        let phys = self.phys();
        let blksz = phys.datablksz().max(1);
        let end = offset.saturating_add(len);
        let to_end = end / blksz > phys.maxblkid || len == TO_END;
        let first = offset.div_ceil(blksz);
        let last = if to_end { u64::MAX } else { end / blksz };
        let (head, tail) = (offset % blksz, end % blksz);
        if head != 0 {
            let blkid = offset / blksz;
            let stop = if end / blksz == blkid { tail } else { blksz };
            self.zero_part(
                tx,
                blkid,
                head as usize,
                if to_end && blkid >= phys.maxblkid { blksz } else { stop } as usize,
            )?;
        }
        if !to_end && tail != 0 && last >= first {
            self.zero_part(tx, last, 0, tail as usize)?;
        }
        if first < last {
            live.change(tx, |open, change| {
                let gone: Vec<u64> = change.blocks.range(first..last).map(|(b, _)| *b).collect();
                for b in gone {
                    change.dead.extend(change.blocks.remove(&b).and_then(|block| block.ahead));
                }
                change.frees.add(first, last);
                if to_end && first <= open.maxblkid {
                    Arc::make_mut(open).maxblkid = first.saturating_sub(1);
                }
            });
        }
        Ok(())
    }

    /// Zeroes bytes of a block, unless it is a hole.
    fn zero_part(&self, tx: &Tx, blkid: u64, from: usize, to: usize) -> Result<()> {
        let hole = match self.writable()?.changed_block(blkid) {
            Some(changed) => changed.is_none(),
            None => self.blkptr_of(0, blkid)?.is_none(),
        };
        if hole || from >= to {
            return Ok(());
        }
        self.modify_block(tx, blkid, |block| {
            let to = to.min(block.len());
            if let Some(part) = block.get_mut(from..to) {
                part.fill(0);
            }
        })
    }

    /// Frees everything from `size` on.
    pub fn truncate(&self, tx: &Tx, size: u64) -> Result<()> {
        self.free_range(tx, size, TO_END)
    }

    /// Sets type and bytes of the bonus buffer, in the machine's byte order. Fails when they do not fit.
    pub fn set_bonus(&self, tx: &Tx, bonustype: DmuObjectType, bytes: &[u8]) -> Result<()> {
        let live = self.writable()?;
        let phys = self.phys();
        if bytes.len() > phys.max_bonus() {
            return Err(self.at(Error::invalid("a bonus that does not fit its dnode")));
        }
        live.change(tx, |open, change| {
            let open = Arc::make_mut(open);
            open.bonus = bytes.to_vec();
            (open.bonustype, open.endian) = (bonustype, Endian::NATIVE);
            change.bonus = Some((bonustype, bytes.to_vec()));
        });
        Ok(())
    }

    /// Changes the bytes of the bonus buffer; one atomic step among threads.
    pub fn update_bonus<T>(&self, tx: &Tx, f: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T> {
        let live = self.writable()?;
        if self.phys().endian != Endian::NATIVE {
            return Err(self.at(Error::unsupported("changing a bonus that a machine of the other byte order wrote")));
        }
        live.change(tx, |open, change| {
            let open = Arc::make_mut(open);
            let before = open.bonus.clone();
            let done = f(&mut open.bonus);
            if open.bonus.len() > open.max_bonus() {
                open.bonus = before;
                return Err(self.at(Error::invalid("a bonus that does not fit its dnode")));
            }
            change.bonus = Some((open.bonustype, open.bonus.clone()));
            Ok(done)
        })
    }

    /// Sets or removes the spill block; its length becomes a whole number of sectors.
    pub fn set_spill(&self, tx: &Tx, bytes: Option<&[u8]>) -> Result<()> {
        let live = self.writable()?;
        let phys = self.phys();
        if bytes.is_some() && phys.spill.is_none() && phys.bonus.len() + BLKPTR_SIZE > phys.max_bonus() {
            return Err(self.at(Error::invalid("a spill block beside a bonus that leaves no room for its pointer")));
        }
        let buf = bytes.map(|b| {
            let mut v = b.to_vec();
            v.resize(b.len().max(1).next_multiple_of(512), 0);
            Buf::from(v)
        });
        live.change(tx, |open, change| {
            if buf.is_some() != open.spill.is_some() {
                Arc::make_mut(open).spill = buf.as_ref().map(|_| BlkPtr::default());
            }
            tx.dirtied(buf.as_ref().map_or(0, |b| b.len() as u64));
            change.spill = Some(buf);
            change.spill_dirty = true;
        });
        Ok(())
    }

    /// Sets the block size of an object that has at most one block.
    pub fn set_blocksize(&self, tx: &Tx, size: u32) -> Result<()> {
        let live = self.writable()?;
        let phys = self.phys();
        if size == 0 || !size.is_multiple_of(512) || u64::from(size) > MAX_BLOCK || phys.maxblkid > 0 {
            return Err(self.at(Error::invalid("setting the block size of an object of several blocks")));
        }
        if u64::from(size) == phys.datablksz() {
            return Ok(());
        }
        let content = self.read_block(0)?;
        live.change(tx, |open, change| {
            Arc::make_mut(open).datablkszsec = (size >> 9) as u16;
            change.blocksize = Some(size);
        });
        if let Some(old) = content {
            let mut bytes = vec![0; size as usize];
            copy_padded(&old, &mut bytes);
            self.write_block(tx, 0, bytes.into())?;
        }
        Ok(())
    }

    /// Changes the type of the contents, as giving an object of the dataset layer a table of fields does.
    pub fn set_object_type(&self, tx: &Tx, ty: DmuObjectType) -> Result<()> {
        self.writable()?.change(tx, |open, change| {
            Arc::make_mut(open).object_type = ty;
            change.object_type = Some(ty);
        });
        Ok(())
    }

    /// Sets the compression of blocks written from now on (raw; 0 inherits).
    pub fn set_compress(&self, tx: &Tx, raw: u8) -> Result<()> {
        self.writable()?.change(tx, |open, change| {
            Arc::make_mut(open).compress = raw;
            change.compress = Some(raw);
        });
        Ok(())
    }

    /// Sets the checksum of blocks written from now on (raw; 0 inherits).
    pub fn set_checksum(&self, tx: &Tx, raw: u8) -> Result<()> {
        self.writable()?.change(tx, |open, change| {
            Arc::make_mut(open).checksum = raw;
            change.checksum = Some(raw);
        });
        Ok(())
    }

    /// Frees the object with everything in it. Its number can be had again after the txg is on disk.
    pub(crate) fn free(&self, tx: &Tx) -> Result<()> {
        let live = self.writable()?;
        live.change(tx, |_, change| {
            let blocks = std::mem::take(&mut change.blocks);
            change.dead.extend(blocks.into_values().filter_map(|block| block.ahead));
            change.frees = Ranges::default();
            (change.bonus, change.spill, change.spill_dirty) = (None, None, false);
            change.freed = true;
        });
        live.state.lock().freed = true;
        Ok(())
    }

    /// [`Dnode::next_block`] with changes taken into account.
    pub(crate) fn next_block_live(&self, live: &Live, from: u64, what: Seek) -> Result<Option<u64>> {
        let mut at = from;
        loop {
            let (block, free) = live.next_changed(at);
            match (what, live.changed_block(at)) {
                (Seek::Data, Some(Some(_))) | (Seek::Hole, Some(None)) => return Ok(Some(at)),
                (Seek::Data, Some(None)) => {
                    at = live.freed_until(at);
                    if at == u64::MAX {
                        return Ok(None);
                    }
                    continue;
                }
                (Seek::Hole, Some(Some(_))) => {
                    at += 1;
                    continue;
                }
                (_, None) => {}
            }
            // Nothing is changed here: the tree decides, up to the next place where something is.
            let tree = self.tree();
            let found = match tree.next_block(at, what)? {
                Some(found) => found,
                // A changed block may be freed by a newer change: it is looked at like any other.
                None if what == Seek::Data => match block.filter(|b| *b > at) {
                    Some(block) => {
                        at = block;
                        continue;
                    }
                    None => return Ok(None),
                },
                None => tree.addressable().max(at),
            };
            let change = [block, free].into_iter().flatten().filter(|b| *b > at).min();
            match change {
                Some(change) if change <= found => at = change,
                _ => return Ok(Some(found)),
            }
        }
    }
}
