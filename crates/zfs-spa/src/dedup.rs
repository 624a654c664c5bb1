//! Deduplication tables and block references of clones: sums for properties, entries for checking.

use crate::pool::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_codec::compress;
use zfs_dmu::{Error, Objset, Result, Zap};
use zfs_phys::brt::{BRT_OBJECT_VDEV_PREFIX, BrtVdevPhys};
use zfs_phys::ddt::{
    self, DDT_CLASS_NAMES, DDT_FLAG_FLAT, DDT_FLAT_PHYS_SIZE, DDT_HISTOGRAM_SIZE, DDT_TRAD_PHYS_SIZE, DdtKey,
    DdtLogHeader, DdtPacking, DdtPhys, DdtStat,
};
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::read::Endian;

/// Checksums that can have a table.
const DEDUP_CHECKSUMS: [ChecksumKind; 5] =
    [ChecksumKind::Sha256, ChecksumKind::Sha512, ChecksumKind::Skein, ChecksumKind::Edonr, ChecksumKind::Blake3];
/// Bytes a flat entry takes in memory in OpenZFS, which tools print.
const CORE_SIZE_FLAT: u64 = 216;
/// The same for a legacy entry.
const CORE_SIZE_LEGACY: u64 = 400;

/// One stored table: the entries of one class of one checksum.
#[derive(Debug, Clone)]
pub struct DdtObject {
    /// Checksum of its entries.
    pub checksum: ChecksumKind,
    /// Storage class: 0 ditto, 1 duplicate, 2 unique.
    pub class: usize,
    /// Its ZAP.
    pub object: u64,
    /// Entries.
    pub count: u64,
    /// Bytes on disk.
    pub dspace: u64,
    /// Entries are of the fast kind.
    pub flat: bool,
    /// Rows by reference count.
    pub histogram: Vec<DdtStat>,
}

/// All tables of a pool.
#[derive(Debug, Clone, Default)]
pub struct Dedup {
    /// Stored tables.
    pub objects: Vec<DdtObject>,
    /// Logs of fast tables: checksum and object.
    pub logs: Vec<(ChecksumKind, u64)>,
    /// Entries that are only in logs.
    pub logged: u64,
    /// Rows by reference count, all tables together: 1, 2, 4 …
    pub histogram: Vec<DdtStat>,
    /// Sum of the rows.
    pub total: DdtStat,
    /// Entries of all tables.
    pub entries: u64,
    /// Bytes on disk of all tables and logs.
    pub disk_size: u64,
    /// Bytes all entries would take in memory.
    pub core_size: u64,
}

impl Dedup {
    /// Ratio times 100, as the property `dedupratio` shows it.
    pub fn ratio(&self) -> u64 {
        self.total.ref_dsize.saturating_mul(100).checked_div(self.total.dsize).unwrap_or(100)
    }
}

/// Block references of clones.
#[derive(Debug, Clone, Default)]
pub struct Clones {
    /// Bytes of cloned blocks, counted once.
    pub used: u64,
    /// Bytes saved.
    pub saved: u64,
    /// Tables by top-level vdev.
    pub vdevs: BTreeMap<u64, BrtVdevPhys>,
}

impl Clones {
    /// Ratio times 100, as the property `bcloneratio` shows it.
    pub fn ratio(&self) -> u64 {
        self.used.saturating_add(self.saved).saturating_mul(100).checked_div(self.used).unwrap_or(100)
    }
}

/// One entry of a table.
#[derive(Debug, Clone)]
pub struct DdtEntry {
    /// Checksum.
    pub checksum: ChecksumKind,
    /// Key.
    pub key: DdtKey,
    /// Physical variants.
    pub phys: Vec<DdtPhys>,
    /// Storage class.
    pub class: usize,
}

impl DdtEntry {
    /// References to all variants.
    pub fn refcount(&self) -> u64 {
        self.phys.iter().fold(0u64, |n, p| n.saturating_add(p.refcnt))
    }
}

fn load(pool: &Pool) -> Result<Dedup> {
    let (mos, directory) = (pool.mos(), pool.directory());
    let mut out = Dedup { histogram: vec![DdtStat::default(); DDT_HISTOGRAM_SIZE], ..Dedup::default() };
    let statistics = match directory.lookup_u64(b"DDT-statistics")? {
        Some(object) => Some(Zap::open(mos, object)?),
        None => None,
    };
    for checksum in DEDUP_CHECKSUMS {
        let own = directory.lookup_u64(format!("DDT-{}", checksum.name()).as_bytes())?;
        if let Some(object) = own {
            load_directory(mos, checksum, &Zap::open(mos, object)?, statistics.as_ref(), &mut out)?;
        } else if let Some(stats) = &statistics {
            load_objects(mos, checksum, directory, stats, false, &mut out)?;
        }
    }
    let rows: Vec<DdtStat> = out.objects.iter().flat_map(|o| o.histogram.iter().copied()).collect();
    rows.iter().for_each(|row| out.total.add(row));
    for object in &out.objects {
        for (sum, row) in out.histogram.iter_mut().zip(&object.histogram) {
            sum.add(row);
        }
        out.entries += object.count;
        out.disk_size += object.dspace;
        out.core_size += object.count * if object.flat { CORE_SIZE_FLAT } else { CORE_SIZE_LEGACY };
    }
    for (_, object) in &out.logs {
        out.disk_size += mos.dnode(*object)?.phys().used_bytes();
    }
    add_logged(pool, &mut out)?;
    Ok(out)
}

fn load_directory(
    mos: &Arc<Objset>,
    checksum: ChecksumKind,
    zap: &Zap,
    stats: Option<&Zap>,
    out: &mut Dedup,
) -> Result<()> {
    let flat = zap.lookup_u64(b"flags")?.unwrap_or(0) & DDT_FLAG_FLAT != 0;
    if let Some(stats) = stats {
        load_objects(mos, checksum, zap, stats, flat, out)?;
    }
    for n in 0..2 {
        if let Some(object) = zap.lookup_u64(format!("DDT-log-{}-{n}", checksum.name()).as_bytes())? {
            out.logs.push((checksum, object));
        }
    }
    Ok(())
}

fn load_objects(
    mos: &Arc<Objset>,
    checksum: ChecksumKind,
    names: &Zap,
    stats: &Zap,
    flat: bool,
    out: &mut Dedup,
) -> Result<()> {
    for (class, text) in DDT_CLASS_NAMES.iter().enumerate() {
        let name = format!("DDT-{}-zap-{text}", checksum.name());
        let Some(object) = names.lookup_u64(name.as_bytes())? else { continue };
        let histogram = match stats.lookup(name.as_bytes())? {
            Some(value) => ddt::histogram_from_words(&value.u64s()),
            None => Vec::new(),
        };
        let zap = Zap::open(mos, object)?;
        let dspace = zap.dnode().phys().used_bytes();
        out.objects.push(DdtObject { checksum, class, object, count: zap.count(), dspace, flat, histogram });
    }
    Ok(())
}

/// Adds the entries that are only in logs to the sums: they replace what is stored under the same key.
fn add_logged(pool: &Pool, out: &mut Dedup) -> Result<()> {
    for (_, entry) in read_logs(pool, out)? {
        out.logged += 1;
        let copies = entry.phys.iter().filter(|p| p.refcnt > 0);
        for phys in copies {
            let row = row_of(pool, &entry, phys);
            out.total.add(&row);
            let bucket = phys.refcnt.checked_ilog2().unwrap_or(0) as usize;
            if let Some(sum) = out.histogram.get_mut(bucket) {
                sum.add(&row);
            }
        }
    }
    Ok(())
}

fn row_of(pool: &Pool, entry: &DdtEntry, phys: &DdtPhys) -> DdtStat {
    let mut dsize = 0u64;
    for dva in phys.dva.iter().filter(|d| d.is_valid()) {
        if let Some(top) = pool.zio().vdevs().top(dva.vdev()) {
            let unit = (crate::space::asize_of(top, 1 << 17) >> 9).max(1);
            dsize += (dva.asize() >> 9) * ((1 << 17) / unit);
        }
    }
    let (lsize, psize, n) = (entry.key.lsize(), entry.key.psize(), phys.refcnt);
    DdtStat {
        blocks: 1,
        lsize,
        psize,
        dsize,
        ref_blocks: n,
        ref_lsize: lsize.saturating_mul(n),
        ref_psize: psize.saturating_mul(n),
        ref_dsize: dsize.saturating_mul(n),
    }
}

/// Newest state of the entries in logs, by checksum and key. The log that is being flushed is older than the other.
fn read_logs(pool: &Pool, dedup: &Dedup) -> Result<BTreeMap<(u8, DdtKey), DdtEntry>> {
    let mut headers = Vec::new();
    for (checksum, object) in &dedup.logs {
        let dnode = pool.mos().dnode(*object)?;
        let header = DdtLogHeader::decode(&dnode.bonus()?, dnode.phys().endian)?;
        if header.version != 1 {
            return Err(Error::unsupported(format!("dedup log of version {}", header.version)));
        }
        headers.push((*checksum, dnode, header));
    }
    headers.sort_by_key(|(_, _, h)| h.flags & 1 == 0);
    let mut out = BTreeMap::new();
    for (checksum, dnode, header) in headers {
        let block = dnode.datablksz().max(1);
        if header.length.div_ceil(block) > dnode.phys().maxblkid.saturating_add(1) {
            return Err(Error::corrupt("dedup log longer than its object"));
        }
        for blkid in 0..header.length.div_ceil(block) {
            let Some((buf, endian)) = dnode.read_block_endian(blkid)? else { continue };
            for e in ddt::decode_log_block(&buf, endian, true)? {
                if header.checkpoint.is_some_and(|c| compare(&e.key, &c).is_le()) {
                    continue;
                }
                let class = usize::from(e.class);
                out.insert((checksum as u8, e.key), DdtEntry { checksum, key: e.key, phys: e.phys, class });
            }
        }
    }
    Ok(out)
}

/// Order in which logs are flushed: first word of the checksum first.
fn compare(a: &DdtKey, b: &DdtKey) -> std::cmp::Ordering {
    (a.checksum, a.prop).cmp(&(b.checksum, b.prop))
}

/// Unpacks the value of a stored entry.
fn unpack(value: &[u8], flat: bool) -> Result<Vec<DdtPhys>> {
    let (first, rest) = value.split_first().ok_or_else(|| Error::corrupt("empty dedup entry"))?;
    let packing = DdtPacking::of(*first);
    let size = if flat { DDT_FLAT_PHYS_SIZE } else { DDT_TRAD_PHYS_SIZE };
    let mut plain = vec![0u8; size];
    match CompressKind::from_raw(packing.compress_raw) {
        Some(CompressKind::Off) | None => {
            plain.copy_from_slice(rest.get(..size).ok_or_else(|| Error::corrupt("short dedup entry"))?);
            // What is not compressed was copied in the byte order of the machine that wrote it.
        }
        Some(kind) => {
            compress::decompress(kind, rest, &mut plain).map_err(|e| Error::corrupt("dedup entry").because(e))?
        }
    }
    Ok(ddt::decode_phys(&plain, packing.endian, flat)?)
}

impl Pool {
    /// Deduplication tables.
    pub fn dedup(&self) -> Result<Arc<Dedup>> {
        self.dedup_once(|| load(self))
    }

    /// Calls `f` for every entry of the deduplication tables, newest state of each.
    pub fn for_each_ddt_entry(&self, mut f: impl FnMut(DdtEntry) -> Result<()>) -> Result<()> {
        let dedup = self.dedup()?;
        let mut logged = read_logs(self, &dedup)?;
        for object in &dedup.objects {
            for item in Zap::open(self.mos(), object.object)?.iter() {
                let item = item?;
                let words: [u64; 5] = item.words().try_into().map_err(|_| Error::corrupt("key of a dedup entry"))?;
                let key = DdtKey::from_words(words);
                // A newer state in a log replaces the stored one.
                let entry = match logged.remove(&(object.checksum as u8, key)) {
                    Some(newer) => newer,
                    None => {
                        let phys = unpack(&item.value.bytes(), object.flat)?;
                        DdtEntry { checksum: object.checksum, key, phys, class: object.class }
                    }
                };
                f(entry)?;
            }
        }
        logged.into_values().try_for_each(f)
    }

    /// Block references of clones: sums.
    pub fn clones(&self) -> Result<Arc<Clones>> {
        self.clones_once(|| {
            let mut out = Clones::default();
            for id in 0..self.zio().vdevs().root().children.len() as u64 {
                let name = format!("{BRT_OBJECT_VDEV_PREFIX}{id}");
                let Some(object) = self.directory().lookup_u64(name.as_bytes())? else { continue };
                let dnode = self.mos().dnode(object)?;
                let phys = BrtVdevPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
                out.used += phys.usedspace;
                out.saved += phys.savedspace;
                out.vdevs.insert(id, phys);
            }
            Ok(out)
        })
    }

    /// Calls `f` for every cloned block: top-level vdev, byte offset, references beyond the first.
    pub fn for_each_clone(&self, mut f: impl FnMut(u64, u64, u64) -> Result<()>) -> Result<()> {
        for (id, phys) in &self.clones()?.vdevs {
            if phys.mos_entries == 0 {
                continue;
            }
            for item in Zap::open(self.mos(), phys.mos_entries)?.iter() {
                let item = item?;
                let offset = item.words().first().copied().ok_or_else(|| Error::corrupt("key of a clone entry"))?;
                let count = match item.value.integer_length {
                    // Counts were stored as bytes at first, in the order of the machine.
                    1 => {
                        let bytes: [u8; 8] = item.value.bytes().try_into().unwrap_or_default();
                        let endian = if phys.byteorder == 0 { Endian::Little } else { Endian::Big };
                        endian.u64(bytes)
                    }
                    _ => item.value.first(),
                };
                f(*id, offset, count)?;
            }
        }
        Ok(())
    }
}
