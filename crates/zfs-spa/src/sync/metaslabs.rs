//! Space maps between the pool and the allocator: what was free at import, and what each txg changed.
//!
//! The allocator keeps ranges in memory and hands out deltas; here they are appended, in every pass of a sync that
//! allocated or freed something, until a pass changes nothing: to the txg's log space map where the pool has the feature
//! ([`super::logmaps`] tells what that is good for), otherwise to the metaslabs' own space maps. What is only in logs is
//! kept in `pending`, from where a flush, always in a first pass and before anything of that txg, takes it to the
//! metaslab's own map.
//!
//! A space map that has grown to many times what its metaslab's state takes is written anew, in a first pass, so that its
//! size and the time to read it stay bounded.
//!
//! Lock order: `ledger`, which only the sync takes; a metaslab's lock in the allocator; then `pending`.

use super::logmaps::{LOG_BLOCK, LOG_ZAP, Ledger, Log, MsId, UNFLUSHED};
use crate::pool::Pool;
use crate::space::{AllocClass, LogChange, TopSpace, for_unflushed, load_tops, log_space_maps};
use crate::sync::ops::Ops;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, ObjectSpec, Objset, Result, Zap};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::feature::Feature;
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_zio::alloc::{BUCKETS, Class, Loader, MetaslabDelta, MetaslabSeed, RangeTree, TopSeed};
use zfs_zio::{ErrorKind, Zio};

/// Block size of space maps where log space maps may be in use (`zfs_metaslab_sm_blksz_with_log`).
const BLOCK_WITH_LOG: u32 = 1 << 17;
/// Block size otherwise (`zfs_metaslab_sm_blksz_no_log`).
const BLOCK: u32 = 1 << 12;
/// A space map is written anew from this many blocks on (`zfs_condense_block_threshold`)...
const CONDENSE_BLOCKS: u64 = 4;
/// ...when it has grown to this many times its length after the last time (`zfs_condense_pct`).
const CONDENSE_GROWTH: u64 = 2;
/// Units of log space maps, as a shift (`SPA_MINBLOCKSHIFT`).
const LOG_SHIFT: u32 = 9;
/// Ranges in memory that are in logs only, above which metaslabs are flushed beyond what the logs' length asks for: some
/// 16 MiB of them.
const MAX_PENDING: usize = 1 << 18;
/// An array of words that is metadata (`DMU_OTN_UINT64_METADATA`).
const WORDS_METADATA: DmuObjectType = DmuObjectType(0xc3);
/// A table that is metadata (`DMU_OTN_ZAP_METADATA`).
const ZAP_METADATA: DmuObjectType = DmuObjectType(0xc4);

/// Changes of a metaslab that are in logs only.
#[derive(Default)]
struct Pending {
    alloc: RangeTree,
    free: RangeTree,
    /// The histogram that its own map is to get with them, when it is known.
    histogram: Option<[u64; 32]>,
}

/// One top-level vdev's space maps.
struct Table {
    /// Object of the array that names them.
    array: u64,
    /// Table of the vdev.
    zap: u64,
    ashift: u32,
    /// Range of each metaslab, and the object of its space map (0 none).
    maps: RwLock<Vec<(u64, u64, u64)>>,
}

/// All space maps of a pool.
pub(crate) struct Metaslabs {
    mos: OnceLock<Weak<Objset>>,
    tables: RwLock<BTreeMap<u64, Table>>,
    ledger: Mutex<Ledger>,
    pending: Mutex<HashMap<MsId, Pending>>,
    /// Lengths of space maps when they were last written anew.
    condensed: Mutex<HashMap<u64, u64>>,
}

fn conflict(what: &'static str) -> impl FnOnce(zfs_zio::alloc::RangeConflict) -> Error {
    move |c| Error::corrupt(format!("{what} {:#x} to {:#x}", c.start, c.end))
}

/// Adds one change to those that are pending: what is allocated and freed again cancels.
fn merge(pending: &mut Pending, kind: MapType, start: u64, end: u64) -> Result<()> {
    let (own, other) = match kind {
        MapType::Alloc => (&mut pending.alloc, &mut pending.free),
        MapType::Free => (&mut pending.free, &mut pending.alloc),
    };
    let mut at = start;
    while at < end {
        let (s, e) = other.overlap(at, end).unwrap_or((end, end));
        own.add(at, s).map_err(conflict("log space maps change twice:"))?;
        other.clear_range(s, e);
        at = e;
    }
    Ok(())
}

impl Metaslabs {
    /// An empty set; [`Metaslabs::set_mos`] must follow.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            mos: OnceLock::new(),
            tables: RwLock::default(),
            ledger: Mutex::default(),
            pending: Mutex::default(),
            condensed: Mutex::default(),
        })
    }

    /// Where the space maps are.
    pub(crate) fn set_mos(&self, mos: &Arc<Objset>) {
        let _ = self.mos.set(Arc::downgrade(mos));
    }

    fn mos(&self) -> Result<Arc<Objset>> {
        let gone = || Error::new(ErrorKind::Stale, "space maps of a pool that is closed");
        self.mos.get().and_then(Weak::upgrade).ok_or_else(gone)
    }

    /// Takes note of the space maps of an imported pool. Gives what the allocator is to know.
    pub(crate) fn load(&self, pool: &Pool) -> Result<Vec<TopSeed>> {
        let tops = load_tops(pool)?;
        let mut pending: HashMap<MsId, Pending> = HashMap::new();
        for_unflushed(pool, &tops, |c: LogChange| {
            let entry = pending.entry((c.vdev, c.metaslab as u64)).or_default();
            merge(entry, c.kind, c.offset, c.offset.saturating_add(c.size))
        })?;
        *self.ledger.lock() = load_ledger(pool, &tops, &pending)?;
        *self.pending.lock() = pending;
        let mut seeds = Vec::new();
        for top in tops.iter().filter(|t| t.concrete && t.ms_shift > 0) {
            seeds.push(self.load_top(pool, top)?);
        }
        Ok(seeds)
    }

    fn load_top(&self, pool: &Pool, top: &TopSpace) -> Result<TopSeed> {
        let vdev = pool.zio().vdevs().top(top.id).ok_or_else(|| Error::corrupt("a vdev that is not there"))?;
        let maps: Vec<_> = top
            .metaslabs
            .iter()
            .zip(0..)
            .map(|(ms, index)| {
                let (start, end) = vdev.metaslab_range(index);
                (start, end, ms.object)
            })
            .collect();
        let mut metaslabs = Vec::new();
        for (ms, index) in top.metaslabs.iter().zip(0..) {
            let histogram = match ms.object {
                0 => None,
                object => SpaceMap::open(pool.mos(), object)?.phys().histogram,
            };
            // A histogram without what the logs freed would hide it.
            let histogram = histogram.filter(|_| !self.pending.lock().contains_key(&(top.id, index)));
            metaslabs.push(MetaslabSeed { index, allocated: ms.alloc.max(0) as u64, histogram });
        }
        let table = Table {
            array: vdev.config.metaslab_array,
            zap: vdev.config.top_zap.unwrap_or(0),
            ashift: vdev.config.ashift as u32,
            maps: RwLock::new(maps),
        };
        self.tables.write().insert(top.id, table);
        let class = match top.class {
            AllocClass::Normal => Class::Normal,
            AllocClass::Log => Class::Log,
            AllocClass::Special => Class::Special,
            AllocClass::Dedup => Class::Dedup,
        };
        Ok(TopSeed { vdev: top.id, class, metaslabs })
    }

    /// Takes note of a new top-level vdev without any space map; where the objects are that tell of them is said later.
    /// Gives what the allocator is to know.
    pub(crate) fn add_top(&self, zio: &Zio, id: u64, class: Class) -> Result<TopSeed> {
        let vdev = zio.vdevs().top(id).ok_or_else(|| Error::invalid("no such vdev"))?;
        let config = &vdev.config;
        let count = config.asize >> config.metaslab_shift;
        let maps = (0..count)
            .map(|index| {
                let (start, end) = vdev.metaslab_range(index);
                (start, end, 0)
            })
            .collect();
        let table = Table { array: 0, zap: 0, ashift: config.ashift as u32, maps: RwLock::new(maps) };
        self.tables.write().insert(id, table);
        let metaslabs = (0..count).map(|index| MetaslabSeed { index, allocated: 0, histogram: None }).collect();
        Ok(TopSeed { vdev: id, class, metaslabs })
    }

    /// Tells the objects of a new vdev: the array that names its space maps, and its table.
    pub(crate) fn set_objects(&self, id: u64, array: u64, zap: u64) {
        if let Some(table) = self.tables.write().get_mut(&id) {
            (table.array, table.zap) = (array, zap);
        }
    }

    /// Reads a metaslab's free space, for the allocator.
    pub(crate) fn loader(self: &Arc<Self>) -> Loader {
        let me = Arc::downgrade(self);
        Arc::new(move |vdev, ms| {
            let gone = || Error::new(ErrorKind::Stale, "space maps of a pool that is closed");
            me.upgrade().ok_or_else(gone)?.free_space(vdev, ms)
        })
    }

    /// Gives `f` the object of a metaslab's space map (0 none) and by how much what is allocated differs from what that
    /// says. While `f` runs nothing is moved into the map. Nothing for a metaslab that is not known.
    pub(crate) fn with_map<T>(&self, vdev: u64, ms: u64, f: impl FnOnce(u64, i64) -> T) -> Option<T> {
        let tables = self.tables.read();
        let (_, _, object) = tables.get(&vdev)?.maps.read().get(ms as usize).copied()?;
        let pending = self.pending.lock();
        let more = pending.get(&(vdev, ms)).map_or(0, |p| p.alloc.space() as i64 - p.free.space() as i64);
        Some(f(object, more))
    }

    fn free_space(&self, vdev: u64, ms: u64) -> Result<RangeTree> {
        let tables = self.tables.read();
        let table = tables.get(&vdev).ok_or_else(|| Error::corrupt("space map of no vdev"))?;
        let found = table.maps.read().get(ms as usize).copied();
        let (start, end, object) = found.ok_or_else(|| Error::corrupt("space map of no metaslab"))?;
        let mut free = RangeTree::new();
        free.add(start, end).map_err(conflict("metaslab"))?;
        // Held while reading, so that logs are not moved into the map meanwhile and counted twice or not at all.
        let pending = self.pending.lock();
        if object != 0 {
            replay(&self.mos()?, object, table, start, &mut free)?;
        }
        if let Some(p) = pending.get(&(vdev, ms)) {
            p.apply(&mut free)?;
        }
        Ok(free)
    }

    /// Whether changes go to logs of space maps.
    fn logs(ops: &Ops) -> bool {
        ops.is_enabled(Feature::LogSpacemap)
    }

    /// Object of the log of a txg, which is made when it is the first time.
    fn log_of(&self, ops: &Ops, tx: &Tx, mos: &Arc<Objset>, ledger: &mut Ledger) -> Result<u64> {
        if let Some(log) = ledger.logs.get(&tx.txg()) {
            return Ok(log.object);
        }
        if ledger.table == 0 {
            ledger.table = Zap::create(mos, tx, ZAP_METADATA, 0)?;
            Zap::open(mos, crate::config::POOL_DIRECTORY)?.add(tx, LOG_ZAP, &[ledger.table])?;
            ops.count(tx, Feature::LogSpacemap, 1)?;
        }
        let object = ops.space_map(mos, tx, LOG_BLOCK)?;
        Zap::open(mos, ledger.table)?.add(tx, format!("{:x}", tx.txg()).as_bytes(), &[object])?;
        ledger.logs.insert(tx.txg(), Log { object, blocks: 0 });
        Ok(object)
    }

    /// In a first pass, before anything of the txg is appended: takes some metaslabs' changes from logs to their own maps,
    /// or with `all` those of all, and destroys the logs that nobody needs any more.
    pub(crate) fn flush(&self, ops: &Ops, tx: &Tx, all: bool) -> Result<()> {
        let mut ledger = self.ledger.lock();
        let oldest_first = ledger.older_than(tx.txg());
        if ledger.table == 0 || oldest_first.is_empty() {
            return Ok(());
        }
        let mos = self.mos()?;
        self.log_of(ops, tx, &mos, &mut ledger)?;
        let mut want = if all { u64::MAX } else { ledger.want(tx.txg()) };
        let mut held: usize = self.pending.lock().values().map(Pending::segments).sum();
        let tables = self.tables.read();
        for ms in oldest_first {
            if want == 0 && held <= MAX_PENDING {
                break;
            }
            let table = tables.get(&ms.0).ok_or_else(|| Error::corrupt("space map of no vdev"))?;
            if ledger.flushed(ms).is_some_and(|f| f.dirty) {
                held = held.saturating_sub(self.flush_one(&mos, ops, tx, table, ms)?);
                want -= 1;
            }
            bump(&mos, tx, table, &mut ledger, ms, false)?;
        }
        drop(tables);
        let names = Zap::open(&mos, ledger.table)?;
        for (txg, log) in ledger.obsolete() {
            names.remove(tx, format!("{txg:x}").as_bytes())?;
            ops.free_space_map(&mos, tx, log.object)?;
        }
        Ok(())
    }

    /// Takes a metaslab's changes to its own map. Gives how many ranges that were.
    fn flush_one(&self, mos: &Arc<Objset>, ops: &Ops, tx: &Tx, table: &Table, ms: MsId) -> Result<usize> {
        // Held until all is moved, so that whoever loads the metaslab sees it either here or there.
        let mut all = self.pending.lock();
        let Some(pending) = all.remove(&ms) else { return Ok(0) };
        let segments = pending.segments();
        if self.condense(mos, ops, tx, table, ms.1, Some(&pending))? {
            return Ok(segments);
        }
        let Pending { alloc, free, histogram } = pending;
        append(mos, ops, tx, 1, table, &MetaslabDelta { vdev: ms.0, ms: ms.1, alloc, free, histogram })?;
        Ok(segments)
    }

    /// Appends what a pass allocated and freed. Gives whether there was anything.
    pub(crate) fn append(&self, ops: &Ops, tx: &Tx, pass: u32, deltas: &[MetaslabDelta]) -> Result<bool> {
        let mos = self.mos()?;
        let mut ledger = self.ledger.lock();
        let tables = self.tables.read();
        for delta in deltas {
            let table = tables.get(&delta.vdev).ok_or_else(|| Error::corrupt("space map of no vdev"))?;
            if Self::logs(ops) && table.zap != 0 {
                self.append_log(&mos, ops, tx, pass, table, &mut ledger, delta)?;
                continue;
            }
            if pass == 1 {
                self.condense(&mos, ops, tx, table, delta.ms, None)?;
            }
            append(&mos, ops, tx, pass, table, delta)?;
        }
        Ok(!deltas.is_empty())
    }

    #[allow(clippy::too_many_arguments, reason = "what one entry consists of, and where it goes")]
    fn append_log(
        &self,
        mos: &Arc<Objset>,
        ops: &Ops,
        tx: &Tx,
        pass: u32,
        table: &Table,
        ledger: &mut Ledger,
        delta: &MetaslabDelta,
    ) -> Result<()> {
        let ms = (delta.vdev, delta.ms);
        let object = self.log_of(ops, tx, mos, ledger)?;
        own_map(mos, ops, tx, table, delta.ms)?;
        if ledger.flushed(ms).is_none_or(|f| !f.dirty) {
            bump(mos, tx, table, ledger, ms, true)?;
        }
        let vdev = u32::try_from(delta.vdev).map_err(|_| Error::corrupt("number of a vdev"))?;
        let mut map = SpaceMap::open(mos, object)?;
        for (kind, ranges) in [(MapType::Alloc, &delta.alloc), (MapType::Free, &delta.free)] {
            map.append(tx, pass, kind, Some(vdev), &mut ranges.iter(), LOG_SHIFT, true)?;
        }
        let blocks = map.phys().length.div_ceil(u64::from(LOG_BLOCK));
        ledger.logs.insert(tx.txg(), Log { object, blocks });
        let mut all = self.pending.lock();
        let pending = all.entry(ms).or_default();
        delta.alloc.iter().try_for_each(|(s, e)| merge(pending, MapType::Alloc, s, e))?;
        delta.free.iter().try_for_each(|(s, e)| merge(pending, MapType::Free, s, e))?;
        pending.histogram = delta.histogram;
        Ok(())
    }

    /// Writes a space map anew when it has grown long, with what is `pending` for it. Gives whether it was.
    fn condense(
        &self,
        mos: &Arc<Objset>,
        ops: &Ops,
        tx: &Tx,
        table: &Table,
        ms: u64,
        pending: Option<&Pending>,
    ) -> Result<bool> {
        let Some((start, end, object)) = table.maps.read().get(ms as usize).copied().filter(|m| m.2 != 0) else {
            return Ok(false);
        };
        let mut map = SpaceMap::open(mos, object)?;
        let (length, block) = (map.phys().length, map.dnode().datablksz());
        let last = self.condensed.lock().get(&object).copied().unwrap_or(0);
        if length <= CONDENSE_BLOCKS * block || length < last.saturating_mul(CONDENSE_GROWTH) {
            return Ok(false);
        }
        let (mut free, mut used) = (RangeTree::new(), RangeTree::new());
        free.add(start, end).map_err(conflict("metaslab"))?;
        used.add(start, end).map_err(conflict("metaslab"))?;
        replay(mos, object, table, start, &mut free)?;
        if let Some(pending) = pending {
            pending.apply(&mut free)?;
        }
        used.subtract(&free);
        let histogram = map.phys().histogram;
        map.truncate(tx)?;
        let mut segments = used.iter().map(|(s, e)| (s - start, e - start));
        let v2 = ops.is_enabled(Feature::SpacemapV2);
        map.append(tx, 1, MapType::Alloc, None, &mut segments, table.ashift, v2)?;
        if histogram.is_some() {
            let mut sum = [0; 32];
            add_histogram(&mut sum, free.histogram(), table.ashift);
            map.set_histogram(tx, &sum)?;
        }
        tracing::debug!(object, before = length, after = map.phys().length, "space map written anew");
        self.condensed.lock().insert(object, map.phys().length);
        Ok(true)
    }
}

impl Pending {
    fn segments(&self) -> usize {
        self.alloc.segments() + self.free.segments()
    }

    /// Makes the change to what is free.
    fn apply(&self, free: &mut RangeTree) -> Result<()> {
        self.alloc.iter().try_for_each(|(s, e)| free.remove(s, e)).map_err(conflict("allocated twice:"))?;
        free.add_all(&self.free).map_err(conflict("freed twice:"))
    }
}

/// The logs of an imported pool.
fn load_ledger(pool: &Pool, tops: &[TopSpace], pending: &HashMap<MsId, Pending>) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    ledger.table = pool.directory().lookup_u64(LOG_ZAP)?.unwrap_or(0);
    for (txg, object) in log_space_maps(pool)? {
        let map = SpaceMap::open(pool.mos(), object)?;
        let blocks = map.phys().length.div_ceil(map.dnode().datablksz().max(1));
        ledger.logs.insert(txg, Log { object, blocks });
    }
    for top in tops.iter().filter(|t| t.concrete) {
        for (metaslab, index) in top.metaslabs.iter().zip(0..).filter(|(m, _)| m.unflushed_txg != 0) {
            if !ledger.logs.contains_key(&metaslab.unflushed_txg) {
                let (vdev, txg) = (top.id, metaslab.unflushed_txg);
                return Err(Error::corrupt(format!("metaslab {index} of vdev {vdev} needs the log of txg {txg}")));
            }
            let ms = (top.id, index);
            ledger.set(ms, metaslab.unflushed_txg, pending.contains_key(&ms));
        }
    }
    Ok(ledger)
}

/// Notes that a metaslab's own map has everything before this txg.
fn bump(mos: &Arc<Objset>, tx: &Tx, table: &Table, ledger: &mut Ledger, ms: MsId, dirty: bool) -> Result<()> {
    ledger.set(ms, tx.txg(), dirty);
    let of_vdev = Zap::open(mos, table.zap)?;
    let object = match of_vdev.lookup_u64(UNFLUSHED)? {
        Some(object) => object,
        None => {
            let spec = ObjectSpec { object_type: WORDS_METADATA, block_size: LOG_BLOCK, ..ObjectSpec::default() };
            let object = mos.allocate(tx, &spec)?.object();
            of_vdev.add(tx, UNFLUSHED, &[object])?;
            object
        }
    };
    mos.dnode(object)?.write_at(tx, ms.1.saturating_mul(8), &Endian::NATIVE.put_u64(tx.txg()))
}

/// Range and object of a metaslab's own map, which is made when there is none.
fn own_map(mos: &Arc<Objset>, ops: &Ops, tx: &Tx, table: &Table, ms: u64) -> Result<(u64, u64)> {
    let mut maps = table.maps.write();
    let slot = maps.get_mut(ms as usize).ok_or_else(|| Error::corrupt("space map of no metaslab"))?;
    if slot.2 == 0 {
        let block = if Metaslabs::logs(ops) { BLOCK_WITH_LOG } else { BLOCK };
        slot.2 = ops.space_map(mos, tx, block)?;
        let word = Endian::NATIVE.put_u64(slot.2);
        mos.dnode(table.array)?.write_at(tx, ms.saturating_mul(8), &word)?;
    }
    Ok((slot.0, slot.2))
}

/// Applies a space map to a metaslab that was all free.
fn replay(mos: &Arc<Objset>, object: u64, table: &Table, base: u64, free: &mut RangeTree) -> Result<()> {
    SpaceMap::open(mos, object)?.iterate(|entry| {
        let SmEntry::Segment { kind, offset, run, .. } = entry else { return Ok(()) };
        let bytes = |units: u64| units.checked_mul(1 << table.ashift);
        let range = bytes(offset).and_then(|o| o.checked_add(base)).zip(bytes(run));
        let range = range.and_then(|(start, len)| Some((start, start.checked_add(len)?)));
        let (start, end) = range.ok_or_else(|| Error::corrupt("entry of a space map"))?;
        match kind {
            MapType::Alloc => free.remove(start, end).map_err(conflict("allocated twice:")),
            MapType::Free => free.add(start, end).map_err(conflict("freed twice:")),
        }
    })
}

/// Appends a delta to its space map, which is made when it is the first.
fn append(mos: &Arc<Objset>, ops: &Ops, tx: &Tx, pass: u32, table: &Table, delta: &MetaslabDelta) -> Result<()> {
    // Offsets count from the first whole stripe where that is not the beginning (dRAID).
    let (base, object) = own_map(mos, ops, tx, table, delta.ms)?;
    let v2 = ops.is_enabled(Feature::SpacemapV2);
    let mut map = SpaceMap::open(mos, object)?;
    for (kind, ranges) in [(MapType::Alloc, &delta.alloc), (MapType::Free, &delta.free)] {
        let mut segments = ranges.iter().map(|(s, e)| (s - base, e - base));
        map.append(tx, pass, kind, None, &mut segments, table.ashift, v2)?;
    }
    let histogram = match &delta.histogram {
        Some(all) => *all,
        None => {
            let mut sum = map.phys().histogram.unwrap_or_default();
            add_histogram(&mut sum, delta.free.histogram(), table.ashift);
            sum
        }
    };
    map.set_histogram(tx, &histogram)
}

/// Adds counts of ranges by size to those stored in units of sectors.
fn add_histogram(sum: &mut [u64; 32], ranges: &[u64; BUCKETS], ashift: u32) {
    for (bits, n) in ranges.iter().enumerate() {
        let bucket = bits.saturating_sub(ashift as usize).min(31);
        if let Some(slot) = sum.get_mut(bucket) {
            *slot = slot.saturating_add(*n);
        }
    }
}
