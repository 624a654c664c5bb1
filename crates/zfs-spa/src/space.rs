//! Space of vdevs and of the pool: what metaslabs say is allocated, fragmentation, what is usable.
//!
//! A metaslab's allocation is its space map plus what the log space maps hold that was not flushed into it yet; a pool that
//! is written has that in memory, so that its logs are not read again for every look at it. The
//! usable space ("deflated") of a raidz counts each sector as a fraction, chosen so that 128 KiB blocks come out even
//! (module/zfs/vdev.c, metaslab.c, spa_misc.c).

use crate::pool::Pool;
use crate::sync::Metaslabs;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::{Dnode, Error, Objset, Result, Zap};
use zfs_phys::feature::Feature;
use zfs_phys::read::u64_at;
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_zio::{Vdev, VdevKind};

/// Size blocks are assumed to have when usable space is computed.
const DEFLATE_BLOCK: u64 = 1 << 17;
/// Share of the pool kept back, as a shift (`spa_slop_shift`).
const SLOP_SHIFT: u32 = 5;
/// Least kept back (`spa_min_slop`).
const SLOP_MIN: u64 = 128 << 20;
/// Most kept back (`spa_max_slop`).
const SLOP_MAX: u64 = 128 << 30;
/// Metaslabs a vdev must have before one is set aside for logs (`zfs_embedded_slog_min_ms`).
const EMBEDDED_SLOG_MIN_MS: u64 = 64;
/// Most metaslabs of a vdev accepted.
const MAX_METASLABS: u64 = 1 << 21;
/// Fragmentation of free segments of 2^(9+i) bytes, percent; larger ones are not fragmented.
const FRAG_TABLE: [u64; 21] = [100, 99, 97, 93, 88, 83, 77, 71, 64, 57, 50, 43, 36, 29, 23, 17, 12, 7, 3, 1, 0];

/// What a top-level vdev is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocClass {
    /// Everything.
    Normal,
    /// The intent log.
    Log,
    /// Metadata and small blocks.
    Special,
    /// Deduplication tables.
    Dedup,
}

/// One metaslab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metaslab {
    /// Object of its space map; 0 when nothing was ever allocated.
    pub object: u64,
    /// Bytes allocated.
    pub alloc: i64,
    /// Fragmentation in percent, when known.
    pub fragmentation: Option<u64>,
    /// First txg whose log space map is not part of the space map yet.
    pub unflushed_txg: u64,
}

/// Space of one top-level vdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopSpace {
    /// Number of the vdev.
    pub id: u64,
    /// What it is used for.
    pub class: AllocClass,
    /// log2 of the metaslab size.
    pub ms_shift: u32,
    /// Its metaslabs.
    pub metaslabs: Vec<Metaslab>,
    /// Bytes in metaslabs.
    pub size: u64,
    /// Bytes allocated.
    pub alloc: u64,
    /// Usable bytes for each 512 bytes.
    pub deflate_ratio: u64,
    /// Fragmentation in percent, when known.
    pub fragmentation: Option<u64>,
    /// Bytes by which it could grow.
    pub expandable: u64,
    /// Bytes that only the checkpoint references.
    pub checkpoint: u64,
    /// Number of the metaslab that is set aside for logs.
    pub embedded: Option<usize>,
    /// Its bytes.
    pub embedded_log: u64,
    /// Nothing new is allocated on it.
    pub non_allocating: bool,
    /// It stores data at all: not a hole, not removed.
    pub concrete: bool,
}

impl TopSpace {
    /// Usable bytes of `space` bytes on it.
    pub fn deflate(&self, space: u64) -> u64 {
        (space >> 9) * self.deflate_ratio
    }
}

/// Space of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpace {
    /// By top-level vdev.
    pub tops: Vec<TopSpace>,
    /// Bytes of the normal, special and dedup classes.
    pub size: u64,
    /// Bytes allocated on those.
    pub alloc: u64,
    /// Fragmentation of the normal class in percent, when known.
    pub fragmentation: Option<u64>,
    /// Bytes the normal class could grow by.
    pub expandable: u64,
    /// Bytes that only the checkpoint references.
    pub checkpoint: u64,
    /// Usable bytes of the normal class.
    pub usable: u64,
    /// Usable bytes, plus those that deduplication and cloning let datasets count twice.
    pub dspace: u64,
    /// Usable bytes kept back.
    pub slop: u64,
    /// Usable bytes that datasets may have altogether.
    pub adjusted: u64,
}

/// Allocated bytes of a block of `psize` bytes on a top-level vdev, by the width it was made with.
pub fn asize_of(top: &Vdev, psize: u64) -> u64 {
    let ashift = top.config.ashift.clamp(9, 16) as u32;
    let sectors = psize.saturating_sub(1).checked_shr(ashift).unwrap_or(0) + 1;
    match top.config.kind {
        VdevKind::Raidz { nparity } => {
            // What was usable space before an expansion stays the measure.
            let cols = (top.children.len() as u64).saturating_sub(top.config.raidz_expand_txgs.len() as u64);
            let cols = if top.config.raidz_expanding { cols.saturating_sub(1) } else { cols };
            let data = cols.saturating_sub(nparity).max(1);
            let total = sectors + nparity * sectors.div_ceil(data);
            total.next_multiple_of(nparity + 1) << ashift
        }
        VdevKind::Draid { nparity, ndata, .. } => {
            let rows = psize.saturating_sub(1) / (ndata.max(1) << ashift) + 1;
            (rows * (ndata + nparity)) << ashift
        }
        _ => sectors << ashift,
    }
}

/// Reads the space maps of all top-level vdevs.
pub(crate) fn load_tops(pool: &Pool) -> Result<Vec<TopSpace>> {
    let mut tops: Vec<TopSpace> = pool
        .zio()
        .vdevs()
        .root()
        .children
        .iter()
        .enumerate()
        .map(|(id, vdev)| load_top(pool, id as u64, vdev))
        .collect::<Result<_>>()?;
    if pool.metaslabs().is_none() {
        apply_logs(pool, &mut tops)?;
    }
    for top in &mut tops {
        top.alloc = top.metaslabs.iter().map(|m| m.alloc.max(0) as u64).sum();
        top.fragmentation = if top.concrete { fragmentation(top) } else { None };
    }
    Ok(tops)
}

fn load_top(pool: &Pool, id: u64, vdev: &Vdev) -> Result<TopSpace> {
    let (mos, config) = (pool.mos(), &vdev.config);
    let zap = match config.top_zap.filter(|o| *o != 0) {
        Some(object) => Some(Zap::open(mos, object)?),
        None => None,
    };
    let text = |name: &str| -> Result<Option<String>> {
        match &zap {
            Some(zap) => Ok(zap.lookup(name.as_bytes())?.map(|v| String::from_utf8_lossy(&v.string()).into_owned())),
            None => Ok(None),
        }
    };
    let number = |name: &str| -> Result<Option<u64>> {
        match &zap {
            Some(zap) => zap.lookup_u64(name.as_bytes()),
            None => Ok(None),
        }
    };
    let class = match text("org.zfsonlinux:allocation_bias")?.as_deref() {
        _ if config.is_log => AllocClass::Log,
        Some("log") => AllocClass::Log,
        Some("special") => AllocClass::Special,
        Some("dedup") => AllocClass::Dedup,
        _ => AllocClass::Normal,
    };
    let concrete = config.kind.is_concrete();
    let ms_shift = if concrete { config.metaslab_shift.min(63) as u32 } else { 0 };
    let count = if ms_shift == 0 { 0 } else { config.asize >> ms_shift };
    if count > MAX_METASLABS {
        return Err(Error::corrupt(format!("{count} metaslabs")));
    }
    let unflushed = number("com.delphix:ms_unflushed_phys_txgs")?;
    let maps = MapReader {
        mos,
        id,
        live: pool.metaslabs(),
        histograms: pool.features().is_enabled(Feature::SpacemapHistogram),
    };
    let metaslabs = maps.load(vdev, count, unflushed)?;
    let ms_size = if count == 0 { 0 } else { 1u64 << ms_shift };
    // The emptiest metaslab of a vdev without a class of its own, if it has many.
    let sets_aside = class == AllocClass::Normal && count > EMBEDDED_SLOG_MIN_MS;
    let emptiest = (0..metaslabs.len()).min_by_key(|i| metaslabs.get(*i).map(|m| m.alloc));
    let embedded = emptiest.filter(|_| sets_aside);
    let checkpoint = match number("com.delphix:pool_checkpoint_sm")? {
        Some(object) => SpaceMap::open(mos, object)?.phys().alloc.unsigned_abs(),
        None => 0,
    };
    // Pools older than version 3 count parity as usable (`DMU_POOL_DEFLATE`).
    let deflates = pool.directory().lookup_u64(b"deflate")?.unwrap_or(0) != 0;
    let unit = if deflates { asize_of(vdev, DEFLATE_BLOCK) >> 9 } else { DEFLATE_BLOCK >> 9 };
    Ok(TopSpace {
        id,
        class,
        ms_shift,
        size: (0..count).map(|i| metaslab_size(vdev, i * ms_size, ms_size)).sum(),
        alloc: 0,
        deflate_ratio: if concrete { DEFLATE_BLOCK / unit.max(1) } else { 0 },
        fragmentation: None,
        expandable: if count == 0 { 0 } else { vdev_growth(vdev) & !(ms_size - 1) },
        checkpoint,
        embedded,
        embedded_log: if embedded.is_some() { ms_size } else { 0 },
        non_allocating: config.non_allocating || config.removing,
        concrete,
        metaslabs,
    })
}

/// Bytes of the metaslab of `size` bytes at `start` that can be allocated: on dRAID only whole groups.
fn metaslab_size(vdev: &Vdev, start: u64, size: u64) -> u64 {
    let VdevKind::Draid { nparity, ndata, .. } = vdev.config.kind else { return size };
    let unit = (nparity + ndata) << vdev.config.ashift.clamp(9, 16);
    let skipped = start.next_multiple_of(unit) - start;
    let left = size.saturating_sub(skipped);
    left - left % unit
}

/// Bytes by which the devices of a vdev exceed what it uses.
fn vdev_growth(vdev: &Vdev) -> u64 {
    let most = match vdev.config.kind {
        // A disk that data is still being moved to does not count yet.
        VdevKind::Raidz { .. } => {
            let width = vdev.children.len().saturating_sub(usize::from(vdev.config.raidz_expanding)) as u64;
            vdev.children.iter().map(Vdev::leaf_asize).min().unwrap_or(0).saturating_mul(width)
        }
        VdevKind::Disk | VdevKind::File => vdev.leaf_asize(),
        VdevKind::Mirror => vdev.children.iter().map(Vdev::leaf_asize).min().unwrap_or(0),
        _ => 0,
    };
    most.saturating_sub(vdev.config.asize)
}

/// The first `count` words of an array object; each block has a byte order of its own.
fn read_words(dnode: &Dnode, count: usize) -> Result<Vec<u64>> {
    let per_block = (dnode.datablksz() / 8).max(1) as usize;
    let mut out = Vec::new();
    while out.len() < count {
        let want = per_block.min(count - out.len());
        match dnode.read_block_endian((out.len() / per_block) as u64)? {
            Some((buf, endian)) => out.extend((0..want).map(|i| u64_at(&buf, i * 8, endian).unwrap_or(0))),
            None => out.resize(out.len() + want, 0),
        }
    }
    Ok(out)
}

/// How the headers of a vdev's space maps are read.
struct MapReader<'a> {
    mos: &'a Arc<Objset>,
    /// Number of the vdev.
    id: u64,
    live: Option<&'a Arc<Metaslabs>>,
    histograms: bool,
}

impl MapReader<'_> {
    fn load(&self, vdev: &Vdev, count: u64, unflushed: Option<u64>) -> Result<Vec<Metaslab>> {
        if count == 0 || vdev.config.metaslab_array == 0 {
            return Ok(Vec::new());
        }
        let words = |object: u64| self.mos.dnode(object).and_then(|dnode| read_words(&dnode, count as usize));
        let objects = words(vdev.config.metaslab_array)?;
        let flushed = match unflushed {
            Some(object) => words(object)?,
            None => vec![0; objects.len()],
        };
        let shift = vdev.config.ashift as usize;
        let one = |(index, (object, unflushed_txg)): (u64, (u64, u64))| {
            let now = self.live.and_then(|live| {
                live.with_map(self.id, index, |object, more| self.header(object, more, shift, unflushed_txg))
            });
            now.unwrap_or_else(|| self.header(object, 0, shift, unflushed_txg))
        };
        (0..).zip(objects.into_iter().zip(flushed)).map(one).collect()
    }

    /// What a space map says, whose metaslab has `more` bytes allocated than that.
    fn header(&self, object: u64, more: i64, shift: usize, unflushed_txg: u64) -> Result<Metaslab> {
        if object == 0 {
            let fragmentation = self.histograms.then_some(0);
            return Ok(Metaslab { object, alloc: more, fragmentation, unflushed_txg });
        }
        let map = SpaceMap::open(self.mos, object)?;
        let fragmentation = map.phys().histogram.filter(|_| self.histograms).map(|h| frag_of(&h, shift));
        Ok(Metaslab { object, alloc: map.phys().alloc.wrapping_add(more), fragmentation, unflushed_txg })
    }
}

fn frag_of(histogram: &[u64], shift: usize) -> u64 {
    let (mut total, mut sum) = (0u128, 0u128);
    for (i, n) in histogram.iter().enumerate().filter(|(_, n)| **n != 0) {
        let idx = (shift.saturating_sub(9) + i).min(FRAG_TABLE.len() - 1);
        let space = u128::from(*n) << (i + shift).min(63);
        total += space;
        sum += space * u128::from(FRAG_TABLE.get(idx).copied().unwrap_or(0));
    }
    sum.checked_div(total).unwrap_or(0) as u64
}

/// Fragmentation of a vdev: of its metaslabs, weighted by their free space, without the one set aside for logs.
fn fragmentation(top: &TopSpace) -> Option<u64> {
    let ms_size = 1u64 << top.ms_shift;
    let (mut all, mut known, mut free, mut sum) = (0usize, 0usize, 0u128, 0u128);
    for (_, ms) in top.metaslabs.iter().enumerate().filter(|(i, _)| top.embedded != Some(*i)) {
        all += 1;
        let Some(fragmentation) = ms.fragmentation else { continue };
        known += 1;
        let left = u128::from(ms_size.saturating_sub(ms.alloc.max(0) as u64) >> 9);
        free += left;
        sum += left * u128::from(fragmentation);
    }
    if known < all.div_ceil(2) {
        return None;
    }
    sum.checked_div(free).map(|f| f as u64)
}

/// Log space maps by txg: what was allocated and freed since metaslabs were last flushed.
pub(crate) fn log_space_maps(pool: &Pool) -> Result<BTreeMap<u64, u64>> {
    let Some(object) = pool.directory().lookup_u64(b"com.delphix:log_spacemap_zap")? else {
        return Ok(BTreeMap::new());
    };
    let mut out = BTreeMap::new();
    for entry in Zap::open(pool.mos(), object)?.iter() {
        let entry = entry?;
        let name = String::from_utf8_lossy(entry.name()).into_owned();
        let txg = u64::from_str_radix(&name, 16).map_err(|_| Error::corrupt("name of a log space map"))?;
        out.insert(txg, entry.value.first());
    }
    Ok(out)
}

/// One change from a log space map, in bytes from the vdev's start.
pub(crate) struct LogChange {
    pub vdev: u64,
    pub metaslab: usize,
    pub offset: u64,
    pub size: u64,
    pub kind: MapType,
}

/// Calls `f` for every change in the log space maps that is not part of its metaslab's space map yet, oldest first.
pub(crate) fn for_unflushed(pool: &Pool, tops: &[TopSpace], mut f: impl FnMut(LogChange) -> Result<()>) -> Result<()> {
    for (txg, object) in log_space_maps(pool)? {
        SpaceMap::open(pool.mos(), object)?.iterate(|entry| {
            let SmEntry::Segment { kind, vdev: Some(vdev), offset, run, .. } = entry else { return Ok(()) };
            let bad = || Error::corrupt("entry of a log space map");
            let top = tops.get(vdev as usize).ok_or_else(bad)?;
            // Entries about a vdev that was removed later mean nothing any more.
            if top.metaslabs.is_empty() {
                return Ok(());
            }
            let offset = offset.checked_shl(9).ok_or_else(bad)?;
            let size = run.checked_shl(9).ok_or_else(bad)?;
            let metaslab = usize::try_from(offset >> top.ms_shift).map_err(|_| bad())?;
            let ms = top.metaslabs.get(metaslab).ok_or_else(bad)?;
            if txg < ms.unflushed_txg {
                return Ok(());
            }
            f(LogChange { vdev: u64::from(vdev), metaslab, offset, size, kind })
        })?;
    }
    Ok(())
}

fn apply_logs(pool: &Pool, tops: &mut [TopSpace]) -> Result<()> {
    let mut deltas: BTreeMap<(u64, usize), i64> = BTreeMap::new();
    for_unflushed(pool, tops, |c| {
        let sum = deltas.entry((c.vdev, c.metaslab)).or_default();
        let size = c.size as i64;
        *sum = sum.wrapping_add(if c.kind == MapType::Alloc { size } else { -size });
        Ok(())
    })?;
    for ((vdev, metaslab), delta) in deltas {
        if let Some(ms) = tops.get_mut(vdev as usize).and_then(|t| t.metaslabs.get_mut(metaslab)) {
            ms.alloc = ms.alloc.wrapping_add(delta);
        }
    }
    Ok(())
}

impl Pool {
    /// Space of the pool.
    ///
    /// # Errors
    /// When space maps cannot be read.
    pub fn space(&self) -> Result<Arc<PoolSpace>> {
        self.space_once(|| {
            let tops = load_tops(self)?;
            let dedup = self.dedup()?;
            let cloned = self.clones()?;
            let deferred = match self.directory().lookup_u64(b"sync_bplist")? {
                Some(object) => zfs_dmu::bpobj::Bpobj::open(self.mos(), object)?.phys().bytes,
                None => 0,
            };
            Ok(summarize(tops, dedup.total.ref_dsize.saturating_sub(dedup.total.dsize), cloned.saved, deferred))
        })
    }
}

fn summarize(tops: Vec<TopSpace>, dedup_saved: u64, clone_saved: u64, deferred: u64) -> PoolSpace {
    let live = || tops.iter().filter(|t| t.concrete);
    let normal = || live().filter(|t| t.class == AllocClass::Normal);
    let pooled = || live().filter(|t| t.class != AllocClass::Log);
    let normal_size: u64 = normal().map(|t| t.size - t.embedded_log).sum();
    let weight = |t: &TopSpace| u128::from(t.size.saturating_sub(t.embedded_log));
    let frag = normal().try_fold(0u128, |sum, t| Some(sum + u128::from(t.fragmentation?) * weight(t)));
    let usable: u64 = normal().map(|t| t.deflate(t.size - t.embedded_log)).sum();
    let fixed: u64 = normal().filter(|t| t.non_allocating).map(|t| t.deflate(t.size)).sum();
    let usable = usable.saturating_sub(fixed);
    let embedded: u64 = live().map(|t| t.deflate(t.embedded_log)).sum();
    let mut slop = (usable >> SLOP_SHIFT).min(SLOP_MAX);
    slop -= embedded.min(slop >> 1);
    let slop = slop.max((usable >> 1).min(SLOP_MIN));
    let checkpoint = live().map(|t| t.checkpoint).sum();
    let dspace = usable + dedup_saved + clone_saved;
    PoolSpace {
        size: pooled().map(|t| t.size).sum(),
        alloc: pooled().map(|t| t.alloc).sum(),
        fragmentation: frag.filter(|_| normal_size > 0).map(|f| (f / u128::from(normal_size.max(1))) as u64),
        expandable: normal().map(|t| t.expandable).sum(),
        checkpoint,
        usable,
        dspace,
        slop,
        adjusted: dspace.saturating_sub(checkpoint).saturating_sub(deferred).saturating_sub(slop),
        tops,
    }
}
