//! Space maps between the pool and the allocator: what was free at import, and what each txg changed.
//!
//! The allocator keeps ranges in memory and hands out deltas; here they are appended to the metaslabs' own space maps, in
//! every pass of a sync that allocated or freed something, until a pass changes nothing.
//!
//! Log space maps, which OpenZFS writes to touch fewer blocks in each txg, are read and in the first txg appended to the
//! space maps they are about, and then destroyed together with everything that tells of them: afterwards the pool looks
//! like one in which the feature is enabled and not yet in use.
//!
//! A space map that has grown to many times what its metaslab's state takes is written anew, in a first pass, so that its
//! size and the time to read it stay bounded.
//!
//! Lock order: a metaslab's lock in the allocator, then `pending`.

use crate::pool::Pool;
use crate::space::{AllocClass, LogChange, TopSpace, for_unflushed, load_tops, log_space_maps};
use crate::sync::ops::Ops;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, Objset, Result, Zap};
use zfs_phys::Endian;
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
/// Entry of the pool directory that lists log space maps.
const LOG_ZAP: &str = "com.delphix:log_spacemap_zap";
/// Entry of a top-level vdev's table: since which txg logs count, for each metaslab.
const UNFLUSHED: &str = "com.delphix:ms_unflushed_phys_txgs";

/// Changes of a metaslab that are in logs only.
#[derive(Default)]
struct Pending {
    alloc: RangeTree,
    free: RangeTree,
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
    pending: Mutex<HashMap<(u64, u64), Pending>>,
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
    let mut fresh = RangeTree::new();
    fresh.add(start, end).map_err(conflict("log space map"))?;
    fresh.subtract(other);
    other.clear_range(start, end);
    own.add_all(&fresh).map_err(conflict("log space maps change twice:"))
}

impl Metaslabs {
    /// An empty set; [`Metaslabs::set_mos`] must follow.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            mos: OnceLock::new(),
            tables: RwLock::default(),
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
        let mut pending: HashMap<(u64, u64), Pending> = HashMap::new();
        for_unflushed(pool, &tops, |c: LogChange| {
            let entry = pending.entry((c.vdev, c.metaslab as u64)).or_default();
            merge(entry, c.kind, c.offset, c.offset.saturating_add(c.size))
        })?;
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
            p.alloc.iter().try_for_each(|(s, e)| free.remove(s, e)).map_err(conflict("allocated twice:"))?;
            free.add_all(&p.free).map_err(conflict("freed twice:"))?;
        }
        Ok(free)
    }

    /// Whether log space maps are still to be moved into the metaslabs' own.
    pub(crate) fn has_logs(&self, directory: &Zap) -> Result<bool> {
        Ok(directory.lookup_u64(LOG_ZAP.as_bytes())?.is_some())
    }

    /// Moves everything in log space maps into the metaslabs' own, and removes the logs.
    pub(crate) fn flush_logs(&self, ops: &Ops, tx: &Tx, pool: &Pool) -> Result<()> {
        let mos = self.mos()?;
        let mut pending = self.pending.lock();
        let tables = self.tables.read();
        let mut all: Vec<_> = pending.drain().collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        for ((vdev, ms), p) in all {
            let table = tables.get(&vdev).ok_or_else(|| Error::corrupt("space map of no vdev"))?;
            let delta = MetaslabDelta { vdev, ms, alloc: p.alloc, free: p.free, histogram: None };
            append(&mos, ops, tx, 1, table, &delta)?;
        }
        let directory = Zap::open(&mos, crate::config::POOL_DIRECTORY)?;
        let Some(zap) = directory.lookup_u64(LOG_ZAP.as_bytes())? else { return Ok(()) };
        for object in log_space_maps(pool)?.into_values() {
            if SpaceMap::open(&mos, object)?.phys().histogram.is_some() {
                ops.count(tx, Feature::SpacemapHistogram, -1)?;
            }
            mos.free_object(tx, object)?;
        }
        directory.remove(tx, LOG_ZAP.as_bytes())?;
        mos.free_object(tx, zap)?;
        ops.count(tx, Feature::LogSpacemap, -1)?;
        for table in tables.values().filter(|t| t.zap != 0) {
            let of_vdev = Zap::open(&mos, table.zap)?;
            if let Some(object) = of_vdev.lookup_u64(UNFLUSHED.as_bytes())? {
                of_vdev.remove(tx, UNFLUSHED.as_bytes())?;
                mos.free_object(tx, object)?;
            }
        }
        Ok(())
    }

    /// Appends what a pass allocated and freed. Gives whether there was anything.
    pub(crate) fn append(&self, ops: &Ops, tx: &Tx, pass: u32, deltas: &[MetaslabDelta]) -> Result<bool> {
        let mos = self.mos()?;
        let tables = self.tables.read();
        for delta in deltas {
            let table = tables.get(&delta.vdev).ok_or_else(|| Error::corrupt("space map of no vdev"))?;
            if pass == 1 {
                self.condense(&mos, ops, tx, table, delta.ms)?;
            }
            append(&mos, ops, tx, pass, table, delta)?;
        }
        Ok(!deltas.is_empty())
    }

    /// Writes a space map anew when it has grown long.
    fn condense(&self, mos: &Arc<Objset>, ops: &Ops, tx: &Tx, table: &Table, ms: u64) -> Result<()> {
        let Some((start, end, object)) = table.maps.read().get(ms as usize).copied().filter(|m| m.2 != 0) else {
            return Ok(());
        };
        let mut map = SpaceMap::open(mos, object)?;
        let (length, block) = (map.phys().length, map.dnode().datablksz());
        let last = self.condensed.lock().get(&object).copied().unwrap_or(0);
        if length <= CONDENSE_BLOCKS * block || length < last.saturating_mul(CONDENSE_GROWTH) {
            return Ok(());
        }
        let (mut free, mut used) = (RangeTree::new(), RangeTree::new());
        free.add(start, end).map_err(conflict("metaslab"))?;
        used.add(start, end).map_err(conflict("metaslab"))?;
        replay(mos, object, table, start, &mut free)?;
        used.subtract(&free);
        let histogram = map.phys().histogram;
        map.truncate(tx)?;
        let mut segments = used.iter().map(|(s, e)| (s - start, e - start));
        let v2 = ops.is_enabled(Feature::SpacemapV2);
        map.append(tx, 1, MapType::Alloc, None, &mut segments, table.ashift, v2)?;
        if let Some(histogram) = &histogram {
            map.set_histogram(tx, histogram)?;
        }
        tracing::debug!(object, before = length, after = map.phys().length, "space map written anew");
        self.condensed.lock().insert(object, map.phys().length);
        Ok(())
    }
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
    let mut maps = table.maps.write();
    let slot = maps.get_mut(delta.ms as usize).ok_or_else(|| Error::corrupt("space map of no metaslab"))?;
    if slot.2 == 0 {
        let block = if ops.is_enabled(Feature::LogSpacemap) { BLOCK_WITH_LOG } else { BLOCK };
        slot.2 = SpaceMap::create(mos, tx, block)?;
        ops.count(tx, Feature::SpacemapHistogram, 1)?;
        let word = Endian::NATIVE.put_u64(slot.2);
        mos.dnode(table.array)?.write_at(tx, delta.ms.saturating_mul(8), &word)?;
    }
    // Offsets count from the first whole stripe where that is not the beginning (dRAID).
    let (base, object) = (slot.0, slot.2);
    drop(maps);
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
