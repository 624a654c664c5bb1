//! An object set that is being written: the objects in use, those that changed, and the allocation of numbers.
//!
//! Invariants: there is one live [`Dnode`] per object, found through a map of weak references; whatever changed is held
//! by the lists here until its txg is on disk. A number is free when its slot on disk is (freed objects keep theirs until
//! their txg syncs) and no unsynced object has it.
//!
//! Lock order: allocation, then an object's state, then the dirty list. The allocation lock is held while a block of
//! dnodes is read; nobody who holds another lock takes it.

use crate::accounting::{Accounting, Deltas};
use crate::dnode::Dnode;
use crate::objset::{MAX_OBJECT, META_DNODE_OBJECT, Objset, live_node, slots};
use crate::owner::{ObjsetOwner, Room};
use crate::sa::FileForm;
use crate::txg::{Tx, Txgs};
use crate::zil::Zil;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::{DNODE_CORE_SIZE, DNODE_FLAG_USED_BYTES, DNODE_MAX_SLOTS, DNODE_SIZE, DnodePhys};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::feature::Feature;
use zfs_phys::objset::ZilHeader;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Error, ErrorKind, Result, Zbookmark};

/// log2 of the size of indirect blocks (`DN_MAX_INDBLKSHIFT`).
pub const INDIRECT_SHIFT: u8 = 17;
const SHARDS: usize = 64;
/// Txgs that a transaction waits for, to learn whether there is space for it.
const PATIENCE: u32 = 5;
/// Freed objects that make it worth looking for free numbers from below again.
const WORTH_RESCAN: u64 = 64;

/// What a new object is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectSpec {
    /// Type of its contents.
    pub object_type: DmuObjectType,
    /// Block size, bytes; 0 for 512.
    pub block_size: u32,
    /// log2 of the size of its indirect blocks.
    pub indirect_shift: u8,
    /// Type of its bonus buffer.
    pub bonus_type: DmuObjectType,
    /// Bytes of its bonus buffer, zeros at first. Leaves room for more block pointers when it is short.
    pub bonus_len: usize,
    /// Slots of 512 bytes; 0 for one.
    pub slots: u8,
}

impl Default for ObjectSpec {
    fn default() -> Self {
        Self {
            object_type: DmuObjectType::NONE,
            block_size: 0,
            indirect_shift: INDIRECT_SHIFT,
            bonus_type: DmuObjectType::NONE,
            bonus_len: 0,
            slots: 1,
        }
    }
}

impl ObjectSpec {
    fn slots(&self) -> usize {
        usize::from(self.slots).max(1)
    }

    /// The descriptor of a fresh object. Fails when its parts do not fit.
    pub(crate) fn phys(&self) -> Result<DnodePhys> {
        let size = if self.block_size == 0 { 512 } else { self.block_size };
        let room = (self.slots() * DNODE_SIZE).saturating_sub(DNODE_CORE_SIZE + BLKPTR_SIZE);
        let fits =
            size.is_multiple_of(512) && size <= 16 << 20 && self.slots() <= DNODE_MAX_SLOTS && self.bonus_len <= room;
        if !fits || !(12..=17).contains(&self.indirect_shift) || !self.object_type.is_valid() {
            return Err(Error::invalid("allocating an object whose parts do not fit"));
        }
        // System attributes grow into whatever is left of the slots.
        let pointers = match self.bonus_type {
            DmuObjectType::SA => 1,
            _ => (1 + (room - self.bonus_len) / BLKPTR_SIZE).min(3),
        };
        Ok(DnodePhys {
            endian: Endian::NATIVE,
            object_type: self.object_type,
            indblkshift: self.indirect_shift,
            nlevels: 1,
            nblkptr: pointers as u8,
            bonustype: self.bonus_type,
            checksum: 0,
            compress: 0,
            flags: DNODE_FLAG_USED_BYTES,
            datablkszsec: (size >> 9) as u16,
            extra_slots: (self.slots() - 1) as u8,
            maxblkid: 0,
            used: 0,
            blkptr: [BlkPtr::default(); 3],
            bonus: vec![0; self.bonus_len],
            spill: None,
        })
    }
}

/// What has to be written of an object set in one txg.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) nodes: BTreeMap<u64, Arc<Dnode>>,
    /// The intent log's header, when it changed.
    pub(crate) zil: Option<ZilHeader>,
    pub(crate) flags: Option<u64>,
}

/// Where free numbers are looked for.
#[derive(Default)]
struct Alloc {
    /// Block of dnodes that is searched next.
    block: u64,
    /// Objects allocated and not yet in a block of dnodes, with their slots.
    pending: BTreeMap<u64, usize>,
    /// Lowest number freed since the last search from below, and how many were.
    lowest_freed: u64,
    freed: u64,
}

/// What makes an object set writable.
pub(crate) struct LiveObjset {
    pub(crate) owner: Arc<dyn ObjsetOwner>,
    dirty: Mutex<BTreeMap<u64, Dirty>>,
    /// Everything that has a change for a txg, until the txg is on disk.
    held: Mutex<BTreeMap<u64, Vec<Arc<Dnode>>>>,
    nodes: Vec<Mutex<HashMap<u64, Weak<Dnode>>>>,
    alloc: Mutex<Alloc>,
    pub(crate) accounting: OnceLock<Accounting>,
    /// The intent log, once it is opened.
    log: Mutex<Option<Arc<Zil>>>,
    /// What the sync under way changes of the sums of owners.
    pub(crate) deltas: Mutex<Deltas>,
    /// Bytes of the header on disk.
    pub(crate) header_size: AtomicU64,
    /// How often something became dirty.
    changes: AtomicU64,
    /// Of a file system.
    pub(crate) form: Arc<FileForm>,
}

impl LiveObjset {
    pub(crate) fn new(owner: Arc<dyn ObjsetOwner>, header_size: u64) -> Arc<Self> {
        Arc::new(Self {
            owner,
            dirty: Mutex::default(),
            held: Mutex::default(),
            nodes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            alloc: Mutex::new(Alloc { lowest_freed: u64::MAX, ..Alloc::default() }),
            accounting: OnceLock::new(),
            log: Mutex::default(),
            deltas: Mutex::default(),
            header_size: AtomicU64::new(header_size),
            changes: AtomicU64::new(0),
            form: Arc::default(),
        })
    }

    fn with_dirty<T>(&self, txg: u64, f: impl FnOnce(&mut Dirty) -> T) -> T {
        self.changes.fetch_add(1, Relaxed);
        let mut dirty = self.dirty.lock();
        let first = !dirty.contains_key(&txg);
        let done = f(dirty.entry(txg).or_default());
        drop(dirty);
        if first {
            self.owner.dirtied(txg);
        }
        done
    }

    /// Notes that an object has to be written. The array of dnodes itself always is, when any of them changes.
    pub(crate) fn add_dirty(&self, txg: u64, node: Arc<Dnode>) {
        self.held.lock().entry(txg).or_default().push(node.clone());
        if node.object() != META_DNODE_OBJECT {
            self.with_dirty(txg, |d| d.nodes.insert(node.object(), node));
        }
    }

    /// Takes what has to be written in a txg.
    pub(crate) fn take_dirty(&self, txg: u64) -> Option<Dirty> {
        self.dirty.lock().remove(&txg)
    }

    pub(crate) fn is_dirty(&self, txg: u64) -> bool {
        self.dirty.lock().contains_key(&txg)
    }

    pub(crate) fn set_zil(&self, tx: &Tx, header: &ZilHeader) {
        self.with_dirty(tx.txg(), |d| d.zil = Some(*header));
    }

    pub(crate) fn set_flags(&self, tx: &Tx, flags: u64) {
        self.with_dirty(tx.txg(), |d| d.flags = Some(flags));
    }

    pub(crate) fn set_log(&self, log: Arc<Zil>) {
        *self.log.lock() = Some(log);
    }

    pub(crate) fn log(&self) -> Option<Arc<Zil>> {
        self.log.lock().clone()
    }

    pub(crate) fn txg_done(&self, txg: u64) {
        if let Some(log) = self.log() {
            log.txg_done(txg);
        }
        let held = self.held.lock().remove(&txg).unwrap_or_default();
        for node in held {
            if let Some(live) = node.live() {
                live.txg_done(txg);
            }
        }
    }

    fn forget_changes(&self) {
        self.dirty.lock().clear();
        self.held.lock().clear();
    }

    fn shard(&self, object: u64) -> Option<&Mutex<HashMap<u64, Weak<Dnode>>>> {
        self.nodes.get((object.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize % SHARDS)
    }

    pub(crate) fn find(&self, object: u64) -> Option<Arc<Dnode>> {
        self.shard(object)?.lock().get(&object)?.upgrade()
    }

    /// Makes `node` the object's one, unless another thread was first.
    pub(crate) fn publish(&self, node: Arc<Dnode>) -> Arc<Dnode> {
        let Some(shard) = self.shard(node.object()) else { return node };
        let mut shard = shard.lock();
        if let Some(known) = shard.get(&node.object()).and_then(Weak::upgrade) {
            return known;
        }
        if shard.len() > 4096 {
            shard.retain(|_, n| n.strong_count() > 0);
        }
        shard.insert(node.object(), Arc::downgrade(&node));
        node
    }

    /// Forgets a freed object, whose number may be given to another.
    pub(crate) fn forget(&self, object: u64) {
        if let Some(shard) = self.shard(object) {
            shard.lock().remove(&object);
        }
        let mut alloc = self.alloc.lock();
        alloc.lowest_freed = alloc.lowest_freed.min(object);
        alloc.freed += 1;
    }

    /// A fresh object is in its block of dnodes now.
    pub(crate) fn settled(&self, object: u64) {
        self.alloc.lock().pending.remove(&object);
    }
}

impl Objset {
    pub(crate) fn live_set(&self) -> Result<&Arc<LiveObjset>> {
        let fail = || Error::new(ErrorKind::ReadOnly, "changing an object set").at(&Zbookmark::root(self.id()));
        self.live.as_ref().ok_or_else(fail)
    }

    /// Allocates an object under a free number.
    pub fn allocate(&self, tx: &Tx, spec: &ObjectSpec) -> Result<Arc<Dnode>> {
        let live = self.live_set()?;
        let phys = spec.phys()?;
        let mut alloc = live.alloc.lock();
        let object = self.find_free(&mut alloc, spec.slots())?;
        alloc.pending.insert(object, spec.slots());
        drop(alloc);
        self.start_object(live, tx, object, phys)
    }

    /// Tells that something of it is about to use a feature.
    ///
    /// # Errors
    /// `Unsupported` where the feature is not enabled.
    pub fn uses(&self, feature: Feature) -> Result<()> {
        self.live_set()?.owner.uses(feature)
    }

    /// Begins a transaction that will write about `need` bytes; one that frees more than it takes (`freeing`) also when
    /// there is little space left. Waits while nobody knows whether there is space.
    ///
    /// # Errors
    /// `NoSpace` and `Quota`, and what [`Txgs::assign`] meets.
    pub fn assign(&self, txgs: &Arc<Txgs>, need: u64, freeing: bool) -> Result<Tx> {
        let live = self.live_set()?;
        for waited in 0..=PATIENCE {
            let tx = txgs.assign()?;
            match live.owner.reserve(tx.txg(), need, freeing, waited < PATIENCE)? {
                Room::Fits => return Ok(tx),
                Room::Later => {
                    let txg = tx.txg();
                    drop(tx);
                    txgs.wait_synced(txg)?;
                }
            }
        }
        Err(Error::new(ErrorKind::NoSpace, "waiting for space"))
    }

    /// The number that the next object of one slot would get.
    pub fn next_free_object(&self) -> Result<u64> {
        self.find_free(&mut self.live_set()?.alloc.lock(), 1)
    }

    /// Allocates the object of a given number. Fails with [`ErrorKind::Exists`] when it is taken.
    pub fn claim(&self, tx: &Tx, object: u64, spec: &ObjectSpec) -> Result<Arc<Dnode>> {
        let live = self.live_set()?;
        let phys = spec.phys()?;
        if object == META_DNODE_OBJECT || object >= MAX_OBJECT {
            return Err(Error::invalid("claiming an object that cannot be"));
        }
        let per_block = self.dnodes_per_block();
        let mut alloc = live.alloc.lock();
        let used = self.used_slots(&alloc, object / per_block)?;
        let first = (object % per_block) as usize;
        let taken = used.iter().skip(first).take(spec.slots()).any(|u| *u);
        if taken || first + spec.slots() > per_block as usize {
            let bm = Zbookmark::new(self.id(), object, 0, 0);
            return Err(Error::new(ErrorKind::Exists, "claiming an object").at(&bm));
        }
        alloc.pending.insert(object, spec.slots());
        drop(alloc);
        self.start_object(live, tx, object, phys)
    }

    /// Frees an object with all it holds. From now on it is not found; its number is free when the txg has synced.
    pub fn free_object(&self, tx: &Tx, object: u64) -> Result<()> {
        self.live_set()?;
        if object == META_DNODE_OBJECT || object >= MAX_OBJECT {
            return Err(Error::invalid("freeing an object that cannot be"));
        }
        let node = self.dnode(object)?;
        node.free(tx)
    }

    pub(crate) fn start_object(
        &self,
        live: &Arc<LiveObjset>,
        tx: &Tx,
        object: u64,
        phys: DnodePhys,
    ) -> Result<Arc<Dnode>> {
        let node = live.publish(live_node(&self.ctx, live, object, phys));
        if let Some(l) = node.live() {
            l.touch(tx);
        }
        Ok(self.remember(node))
    }

    /// Which slots of a block of dnodes are taken.
    fn used_slots(&self, alloc: &Alloc, block: u64) -> Result<Vec<bool>> {
        let per_block = self.dnodes_per_block();
        let mut used = vec![false; per_block as usize];
        let mut take = |slot: usize, count: usize| used.iter_mut().skip(slot).take(count).for_each(|u| *u = true);
        if block == 0 {
            take(0, 1);
        }
        if let Some(buf) = self.meta_dnode().read_block(block)? {
            for (slot, raw) in slots(&buf, 0) {
                take(slot, raw.get(12).copied().map_or(0, usize::from) + 1);
            }
        }
        let first = block.saturating_mul(per_block);
        for (object, count) in alloc.pending.range(first..first.saturating_add(per_block)) {
            take((object - first) as usize, *count);
        }
        Ok(used)
    }

    /// Whether a block of dnodes may have room, without reading it.
    fn may_have_room(&self, block: u64) -> Result<bool> {
        let meta = self.meta_dnode();
        if meta.live().is_some_and(|l| l.changed_block(block).is_some()) {
            return Ok(true);
        }
        Ok(meta.blkptr_of(0, block)?.is_none_or(|bp| bp.fill() < self.dnodes_per_block()))
    }

    fn find_free(&self, alloc: &mut Alloc, wanted: usize) -> Result<u64> {
        let per_block = self.dnodes_per_block();
        loop {
            let block = alloc.block;
            if block.saturating_mul(per_block) >= MAX_OBJECT {
                return Err(Error::new(ErrorKind::NoSpace, "allocating an object: all numbers are taken"));
            }
            if self.may_have_room(block)? {
                let used = self.used_slots(alloc, block)?;
                let free = used.windows(wanted).position(|w| w.iter().all(|u| !u));
                if let Some(slot) = free {
                    return Ok(block * per_block + slot as u64);
                }
            }
            if alloc.freed >= WORTH_RESCAN {
                alloc.block = alloc.lowest_freed / per_block;
                (alloc.freed, alloc.lowest_freed) = (0, u64::MAX);
            } else {
                alloc.block += 1;
            }
        }
    }

    /// Whether something has to be written in a txg.
    pub fn is_dirty(&self, txg: u64) -> bool {
        self.live.as_ref().is_some_and(|l| l.is_dirty(txg))
    }

    /// A number that grows when an object becomes dirty in a txg.
    pub fn changes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.changes.load(Relaxed))
    }

    /// Forgets the changes of a txg that is on disk.
    pub fn txg_done(&self, txg: u64) {
        if let Some(live) = &self.live {
            live.txg_done(txg);
        }
    }

    /// Forgets all changes: the object set was destroyed. What changed holds the object set, which nobody else does now.
    pub fn forget_changes(&self) {
        if let Some(live) = &self.live {
            live.forget_changes();
        }
    }

    /// Stores another header of the intent log with the txg of `tx`.
    pub fn set_zil_header(&self, tx: &Tx, header: &ZilHeader) -> Result<()> {
        self.live_set()?.set_zil(tx, header);
        Ok(())
    }

    /// The intent log, if it was opened.
    pub fn log(&self) -> Option<Arc<Zil>> {
        self.live.as_ref()?.log()
    }

    /// Has the header written in the txg of `tx`, whatever else changes.
    pub fn touch(&self, tx: &Tx) -> Result<()> {
        self.live_set()?.with_dirty(tx.txg(), |_| ());
        Ok(())
    }

    /// Stores other `OBJSET_FLAG_*`.
    pub fn set_flags(&self, tx: &Tx, flags: u64) -> Result<()> {
        self.live_set()?.set_flags(tx, flags);
        Ok(())
    }
}
