//! Loads what the pool says of its space: metaslabs, their space maps, the logs of changes not flushed to them yet,
//! what a checkpoint holds, and the mappings of removed vdevs.
//!
//! A space map that cannot be read or makes no sense is reported and its metaslab taken as empty: the walk goes on,
//! and its blocks then show up as not allocated.

use super::Problem;
use super::space::{ClaimError, Segment, VdevSpace};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::{Objset, Zap};
use zfs_phys::indirect::{IndirectMappingEntry, IndirectMappingPhys, MAPPING_ENTRY_SIZE, decode_entries};
use zfs_phys::read::u64_at;
use zfs_phys::spacemap::{MapType, SmEntry, SpaceMapPhys};
use zfs_zio::{Error, Result, VdevConfig, VdevKind, VdevTree};

/// Most metaslabs of a vdev that are believed.
const MAX_METASLABS: u64 = 1 << 24;
/// Metaslabs a vdev must have for one to be set aside for the intent log (`zfs_embedded_slog_min_ms`).
const EMBEDDED_SLOG_MIN_MS: u64 = 64;
/// Mappings that lead to mappings, at most.
const MAX_REMAP: usize = 64;

/// What a vdev's space is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Everything without a class of its own.
    Normal,
    /// Intent log devices.
    Log,
    /// Metadata and small blocks.
    Special,
    /// Deduplication tables.
    Dedup,
    /// Metaslabs of the normal class set aside for the intent log.
    EmbeddedLog,
}

/// Bytes allocated and there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassSpace {
    /// Allocated, according to the headers of the space maps.
    pub alloc: u64,
    /// Size.
    pub space: u64,
}

/// A metaslab.
#[derive(Debug, Clone, Default)]
pub struct Metaslab {
    /// Number within the vdev.
    pub id: u64,
    /// Space map object; 0 when nothing was ever allocated.
    pub object: u64,
    /// Its header.
    pub phys: Option<SpaceMapPhys>,
    /// Changes older than this txg are in the space map already.
    pub unflushed_txg: u64,
}

/// A top-level vdev's space.
pub struct VdevLayout {
    /// Number.
    pub id: u64,
    /// Its configuration.
    pub config: VdevConfig,
    /// Class.
    pub class: Class,
    /// log2 of the metaslab size.
    pub ms_shift: u64,
    /// Metaslabs.
    pub metaslabs: Vec<Metaslab>,
    /// The one set aside for the intent log.
    pub embedded_log: Option<u64>,
    /// Mapping of a removed vdev, or of one that is being removed.
    pub mapping: Vec<IndirectMappingEntry>,
    /// Header of the mapping.
    pub mapping_phys: Option<IndirectMappingPhys>,
    /// Bits.
    pub space: VdevSpace,
}

impl VdevLayout {
    /// Whether it was removed.
    pub fn is_indirect(&self) -> bool {
        self.config.kind == VdevKind::Indirect
    }

    /// First byte and size of a metaslab. On dRAID it begins and ends with whole groups.
    pub fn extent(&self, id: u64) -> (u64, u64) {
        let whole = 1u64.checked_shl(self.ms_shift as u32).unwrap_or(0);
        let start = id.saturating_mul(whole);
        let VdevKind::Draid { nparity, ndata, .. } = self.config.kind else { return (start, whole) };
        let group = ndata.saturating_add(nparity).checked_shl(self.config.ashift as u32).unwrap_or(0);
        match start.checked_next_multiple_of(group) {
            Some(first) if group != 0 => {
                let room = whole.saturating_sub(first - start);
                (first, room - room % group)
            }
            _ => (start, whole),
        }
    }

    /// Number of metaslabs.
    pub fn ms_count(&self) -> u64 {
        match self.ms_shift {
            0 => 0,
            shift => self.config.asize.checked_shr(shift as u32).unwrap_or(0),
        }
    }
}

/// The pool's space.
pub struct Layout {
    /// Top-level vdevs by number.
    pub vdevs: BTreeMap<u64, VdevLayout>,
    /// Bytes allocated minus bytes freed in the logs that space maps do not have yet.
    pub unflushed: i64,
    /// Bytes that only the checkpoint holds.
    pub checkpoint: u64,
}

/// Reads an array of 64-bit words.
pub fn words(mos: &Arc<Objset>, object: u64, count: u64) -> Result<Vec<u64>> {
    let dnode = mos.dnode(object)?;
    let room = dnode.phys().maxblkid.saturating_add(1).saturating_mul(dnode.datablksz());
    let bytes = count.saturating_mul(8).min(room);
    let mut out = Vec::new();
    let blksz = dnode.datablksz().max(8);
    for blkid in 0..bytes.div_ceil(blksz) {
        let (buf, endian) = match dnode.read_block_endian(blkid)? {
            Some(v) => v,
            None => (zfs_zio::Buf::zeroed(blksz as usize), mos.endian()),
        };
        out.extend((0..buf.len() / 8).map_while(|i| u64_at(&buf, i * 8, endian)));
    }
    out.truncate(count as usize);
    Ok(out)
}

/// Reads the mapping of a removed vdev.
pub fn mapping(mos: &Arc<Objset>, object: u64) -> Result<(IndirectMappingPhys, Vec<IndirectMappingEntry>)> {
    let dnode = mos.dnode(object)?;
    let phys = IndirectMappingPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
    let room = dnode.phys().maxblkid.saturating_add(1).saturating_mul(dnode.datablksz());
    let bytes = phys.num_entries.checked_mul(MAPPING_ENTRY_SIZE as u64).filter(|b| *b <= room);
    let bytes = bytes.ok_or_else(|| Error::corrupt("a mapping longer than its object"))?;
    let raw = dnode.read_vec(0, bytes as usize)?;
    Ok((phys, decode_entries(&raw, dnode.phys().endian)?))
}

impl Layout {
    /// Finds the vdevs and, with `maps`, reads everything there is to read about their space.
    pub fn load(mos: &Arc<Objset>, tree: &VdevTree, maps: bool, problem: &dyn Fn(Problem)) -> Result<Self> {
        let mut out = Self { vdevs: BTreeMap::new(), unflushed: 0, checkpoint: 0 };
        for top in &tree.root().children {
            if matches!(top.config.kind, VdevKind::Hole | VdevKind::Missing) {
                continue;
            }
            let mut v = describe(&top.config);
            if let Err(error) = v.load_headers(mos) {
                problem(Problem::SpaceMap { vdev: v.id, metaslab: None, error });
            }
            out.vdevs.insert(v.id, v);
        }
        if maps {
            for v in out.vdevs.values_mut() {
                v.load_maps(mos, problem);
            }
            if let Err(error) = out.load_logs(mos, problem) {
                problem(Problem::SpaceMap { vdev: 0, metaslab: None, error });
            }
            out.exclude_checkpoint(mos, problem);
        }
        Ok(out)
    }

    /// Calls `f` for every entry of the log space maps, in order: log's txg, entry's vdev, kind, offset, size.
    pub fn each_log_entry(
        &self,
        mos: &Arc<Objset>,
        mut f: impl FnMut(u64, u64, MapType, u64, u64),
    ) -> Result<Vec<(u64, u64)>> {
        let Some(object) = Zap::open(mos, 1)?.lookup_u64(b"com.delphix:log_spacemap_zap")? else { return Ok(vec![]) };
        let mut logs = BTreeMap::new();
        for e in Zap::open(mos, object)?.iter() {
            let e = e?;
            let txg = match e.words().first() {
                Some(w) => Some(*w),
                None => std::str::from_utf8(e.name()).ok().and_then(|n| u64::from_str_radix(n, 16).ok()),
            };
            logs.extend(txg.map(|t| (t, e.value.first())));
        }
        for (txg, object) in &logs {
            SpaceMap::open(mos, *object)?.iterate(|e| {
                if let SmEntry::Segment { kind, vdev: Some(vdev), offset, run, .. } = e {
                    f(*txg, u64::from(vdev), kind, offset.saturating_mul(512), run.saturating_mul(512));
                }
                Ok(())
            })?;
        }
        Ok(logs.into_iter().collect())
    }

    /// Whether an entry of a log is not in its metaslab's space map yet.
    pub fn is_unflushed(&self, vdev: u64, offset: u64, txg: u64) -> bool {
        let Some(v) = self.vdevs.get(&vdev).filter(|v| !v.is_indirect()) else { return false };
        let ms = offset.checked_shr(v.ms_shift as u32).unwrap_or(0);
        usize::try_from(ms).ok().and_then(|i| v.metaslabs.get(i)).is_some_and(|m| txg >= m.unflushed_txg)
    }

    fn load_logs(&mut self, mos: &Arc<Objset>, problem: &dyn Fn(Problem)) -> Result<()> {
        let mut changes = Vec::new();
        self.each_log_entry(mos, |txg, vdev, kind, offset, size| {
            if self.is_unflushed(vdev, offset, txg) {
                changes.push((vdev, kind, offset, size));
            }
        })?;
        for (vdev, kind, offset, size) in changes {
            let Some(v) = self.vdevs.get_mut(&vdev) else { continue };
            let clean = match kind {
                MapType::Alloc => {
                    self.unflushed = self.unflushed.saturating_add_unsigned(size);
                    v.space.allocate(offset, size)
                }
                MapType::Free => {
                    self.unflushed = self.unflushed.saturating_sub_unsigned(size);
                    v.space.free(offset, size)
                }
            };
            if !clean {
                problem(Problem::BadEntry { segment: Segment { vdev, offset, size }, what: "log space map" });
            }
        }
        Ok(())
    }

    /// What the checkpoint alone holds is allocated in the space maps, but no block of today's tree claims it.
    fn exclude_checkpoint(&mut self, mos: &Arc<Objset>, problem: &dyn Fn(Problem)) {
        for v in self.vdevs.values_mut() {
            let id = v.id;
            match v.exclude_checkpoint(mos, problem) {
                Ok(bytes) => self.checkpoint += bytes,
                Err(error) => problem(Problem::SpaceMap { vdev: id, metaslab: None, error }),
            }
        }
    }

    /// Calls `f` for the pieces of a segment of a removed vdev where they lie now.
    pub fn remap(&self, vdev: u64, offset: u64, size: u64, f: &mut dyn FnMut(u64, u64, u64)) -> bool {
        let mut pending = vec![(vdev, offset, size, 0usize)];
        let mut whole = true;
        while let Some((vdev, offset, size, depth)) = pending.pop() {
            let Some(v) = self.vdevs.get(&vdev).filter(|_| depth < MAX_REMAP) else {
                whole = false;
                continue;
            };
            if depth > 0 && !v.is_indirect() {
                f(vdev, offset, size);
                continue;
            }
            let mut at = offset;
            let end = offset.saturating_add(size);
            let first = v.mapping.partition_point(|m| m.src.saturating_add(m.dst.asize()) <= offset);
            for m in v.mapping.iter().skip(first).take_while(|m| m.src < end) {
                whole &= m.src <= at;
                let inner = at.saturating_sub(m.src);
                let len = m.dst.asize().saturating_sub(inner).min(end - at);
                pending.push((m.dst.vdev(), m.dst.offset().saturating_add(inner), len, depth + 1));
                at = at.saturating_add(len);
            }
            whole &= at >= end;
        }
        whole
    }

    /// Claims a segment; a segment of a removed vdev both there and where it lies now.
    pub fn claim(&self, vdev: u64, offset: u64, size: u64) -> std::result::Result<(), (ClaimError, Segment)> {
        let seg = Segment { vdev, offset, size };
        let Some(v) = self.vdevs.get(&vdev) else { return Err((ClaimError::Outside, seg)) };
        if !v.is_indirect() {
            return v.space.claim(offset, size).map_err(|e| (e, seg));
        }
        let mut result = Ok(());
        let whole = self.remap(vdev, offset, size, &mut |vdev, offset, size| {
            let seg = Segment { vdev, offset, size };
            let claimed = self.vdevs.get(&vdev).map_or(Err(ClaimError::Outside), |v| v.space.claim(offset, size));
            if let Err(e) = claimed {
                result = Err((e, seg));
            }
        });
        if !whole {
            return Err((ClaimError::Free, seg));
        }
        // Unlike concrete space, a mapping may be claimed piecemeal by blocks that were one segment; overlap there is
        // what the concrete claim has found already.
        let _ = v.space.claim(offset, size);
        result
    }

    /// Whether two offsets of a vdev lie in one metaslab.
    pub fn same_metaslab(&self, vdev: u64, a: u64, b: u64) -> bool {
        let Some(v) = self.vdevs.get(&vdev) else { return false };
        let ms = |o: u64| o.checked_shr(v.ms_shift as u32);
        ms(a) == ms(b)
    }

    /// Figures of each class. Removed vdevs count as space of their class, with nothing allocated.
    pub fn classes(&self) -> HashMap<Class, ClassSpace> {
        let mut out: HashMap<Class, ClassSpace> = HashMap::new();
        for v in self.vdevs.values() {
            let s = out.entry(v.class).or_default();
            if v.is_indirect() {
                s.space = s.space.saturating_add(v.ms_count() << v.ms_shift.min(63));
            }
            for m in &v.metaslabs {
                let class = if v.embedded_log == Some(m.id) { Class::EmbeddedLog } else { v.class };
                let s = out.entry(class).or_default();
                s.space = s.space.saturating_add(v.extent(m.id).1);
                s.alloc = s.alloc.saturating_add_signed(m.phys.as_ref().map_or(0, |p| p.alloc));
            }
        }
        out
    }
}

fn describe(config: &VdevConfig) -> VdevLayout {
    let class = match config.alloc_bias.as_deref() {
        _ if config.is_log => Class::Log,
        Some("special") => Class::Special,
        Some("dedup") => Class::Dedup,
        Some("log") => Class::Log,
        _ => Class::Normal,
    };
    VdevLayout {
        id: config.id,
        class,
        ms_shift: config.metaslab_shift,
        metaslabs: Vec::new(),
        embedded_log: None,
        mapping: Vec::new(),
        mapping_phys: None,
        space: VdevSpace::new(config.id, config.ashift, config.asize),
        config: config.clone(),
    }
}

impl VdevLayout {
    fn load_headers(&mut self, mos: &Arc<Objset>) -> Result<()> {
        if let Some(object) = self.config.indirect_object.filter(|o| *o != 0) {
            let (phys, entries) = mapping(mos, object)?;
            self.mapping_phys = Some(phys);
            self.mapping = entries;
        }
        self.load_bias(mos)?;
        if self.is_indirect() || self.config.metaslab_array == 0 {
            return Ok(());
        }
        let count = self.ms_count();
        if self.ms_shift == 0 || count > MAX_METASLABS {
            return Err(Error::corrupt(format!("{count} metaslabs")));
        }
        let objects = words(mos, self.config.metaslab_array, count)?;
        let unflushed = match self.top_zap_entry(mos, b"com.delphix:ms_unflushed_phys_txgs")? {
            Some(o) => words(mos, o, count)?,
            None => Vec::new(),
        };
        for id in 0..count {
            let at = |v: &[u64]| v.get(id as usize).copied().unwrap_or(0);
            let object = at(&objects);
            let mut m = Metaslab { id, object, phys: None, unflushed_txg: at(&unflushed) };
            if object != 0 {
                m.phys = SpaceMap::open(mos, object).ok().map(|s| s.phys().clone());
            }
            self.metaslabs.push(m);
        }
        if self.class == Class::Normal && count > EMBEDDED_SLOG_MIN_MS {
            let alloc = |m: &&Metaslab| m.phys.as_ref().map_or(0, |p| p.alloc);
            self.embedded_log = self.metaslabs.iter().min_by_key(alloc).map(|m| m.id);
        }
        Ok(())
    }

    /// The configuration may lack what the vdev is for; its ZAP does not.
    fn load_bias(&mut self, mos: &Arc<Objset>) -> Result<()> {
        let Some(zap) = self.config.top_zap.filter(|z| *z != 0 && self.class == Class::Normal) else { return Ok(()) };
        if let Some(bias) = Zap::open(mos, zap)?.lookup(b"org.zfsonlinux:allocation_bias")? {
            self.class = match bias.string().as_slice() {
                b"special" => Class::Special,
                b"dedup" => Class::Dedup,
                b"log" => Class::Log,
                _ => Class::Normal,
            };
        }
        Ok(())
    }

    /// An object named in the vdev's own ZAP.
    pub fn top_zap_entry(&self, mos: &Arc<Objset>, name: &[u8]) -> Result<Option<u64>> {
        match self.config.top_zap.filter(|z| *z != 0) {
            Some(zap) => Zap::open(mos, zap)?.lookup_u64(name),
            None => Ok(None),
        }
    }

    fn load_maps(&mut self, mos: &Arc<Objset>, problem: &dyn Fn(Problem)) {
        if self.is_indirect() {
            for m in &self.mapping {
                if !self.space.allocate(m.src, m.dst.asize()) {
                    let segment = Segment { vdev: self.id, offset: m.src, size: m.dst.asize() };
                    problem(Problem::BadEntry { segment, what: "indirect mapping" });
                }
            }
            return;
        }
        let shift = self.config.ashift.min(63) as u32;
        for i in 0..self.metaslabs.len() {
            let Some(m) = self.metaslabs.get(i).filter(|m| m.object != 0).cloned() else { continue };
            let ((start, size), vdev) = (self.extent(m.id), self.id);
            let space = &mut self.space;
            let read = SpaceMap::open(mos, m.object).and_then(|sm| {
                sm.iterate(|e| {
                    let SmEntry::Segment { kind, offset, run, .. } = e else { return Ok(()) };
                    let scale = |v: u64| v.checked_mul(1 << shift);
                    let (Some(at), Some(len)) = (scale(offset), scale(run)) else {
                        return Err(Error::corrupt("a space map entry beyond every vdev"));
                    };
                    let inside = at.checked_add(len).is_some_and(|e| e <= size);
                    let clean = inside
                        && match kind {
                            MapType::Alloc => space.allocate(start + at, len),
                            MapType::Free => space.free(start + at, len),
                        };
                    if !clean {
                        let segment = Segment { vdev, offset: start.saturating_add(at), size: len };
                        problem(Problem::BadEntry { segment, what: "space map" });
                    }
                    Ok(())
                })
            });
            if let Err(error) = read {
                problem(Problem::SpaceMap { vdev: self.id, metaslab: Some(m.id), error });
            }
        }
    }

    fn exclude_checkpoint(&mut self, mos: &Arc<Objset>, problem: &dyn Fn(Problem)) -> Result<u64> {
        let Some(object) = self.top_zap_entry(mos, b"com.delphix:pool_checkpoint_sm")?.filter(|o| *o != 0) else {
            return Ok(0);
        };
        let (shift, vdev) = (self.config.ashift.min(63) as u32, self.id);
        let mut bytes = 0u64;
        let space = &mut self.space;
        SpaceMap::open(mos, object)?.iterate(|e| {
            let SmEntry::Segment { kind: MapType::Free, offset, run, .. } = e else { return Ok(()) };
            let (offset, size) = (offset.checked_shl(shift).unwrap_or(u64::MAX), run.checked_shl(shift).unwrap_or(0));
            if !space.free(offset, size) {
                problem(Problem::BadEntry { segment: Segment { vdev, offset, size }, what: "checkpoint space map" });
            }
            bytes = bytes.saturating_add(size);
            Ok(())
        })?;
        Ok(bytes)
    }
}
