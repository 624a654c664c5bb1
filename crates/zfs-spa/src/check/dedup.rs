//! Deduplication tables as the meta object set keeps them: which exist, their entries, their logs, their figures.
//!
//! A legacy table's objects are named in the pool directory itself; a fast table has a directory of its own with its
//! version and flags, and two logs whose entries are newer than those of the ZAPs (the active log is the newest).

use std::collections::HashMap;
use std::sync::Arc;
use zfs_dmu::{Objset, Zap};
use zfs_phys::ddt::{
    DDT_CLASS_NAMES, DDT_FLAG_FLAT, DDT_FLAT_PHYS_SIZE, DDT_TRAD_PHYS_SIZE, DdtKey, DdtLogHeader, DdtPacking, DdtPhys,
    DdtStat, decode_log_block, decode_phys, histogram_from_words,
};
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_zio::{Error, Result};

/// Object number of the pool directory.
const POOL_DIRECTORY: u64 = 1;

/// An entry: what is known of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdtEntry {
    /// Its key.
    pub key: DdtKey,
    /// Its copies: one for flat tables, four for legacy ones.
    pub phys: Vec<DdtPhys>,
    /// Position behind it in its ZAP; 0 in logs.
    pub cookie: u64,
}

/// One object of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdtObject {
    /// Name in the directory, e.g. `DDT-sha256-zap-unique`.
    pub name: String,
    /// Storage class: 0 ditto, 1 duplicate, 2 unique.
    pub class: usize,
    /// Object number of the ZAP.
    pub object: u64,
    /// Entries in the ZAP.
    pub count: u64,
    /// Histogram by references.
    pub histogram: Vec<DdtStat>,
}

/// A log of a fast table.
pub struct DdtLog {
    /// 0 or 1.
    pub index: usize,
    /// Object number.
    pub object: u64,
    /// Its header.
    pub header: DdtLogHeader,
}

/// A table.
pub struct DdtTable {
    /// The checksum its keys are made of.
    pub checksum: ChecksumKind,
    /// Directory of its objects; 1 for legacy tables.
    pub dir: u64,
    /// 0 legacy, 1 fast.
    pub version: u64,
    /// `DDT_FLAG_*`.
    pub flags: u64,
    /// Its ZAPs.
    pub objects: Vec<DdtObject>,
    /// Its logs, being flushed first, active last.
    pub logs: Vec<DdtLog>,
}

impl DdtTable {
    /// Whether its entries are flat.
    pub fn is_flat(&self) -> bool {
        self.flags & DDT_FLAG_FLAT != 0
    }

    /// Finds the tables of a pool.
    pub fn all(mos: &Arc<Objset>) -> Result<Vec<Self>> {
        let dir = Zap::open(mos, POOL_DIRECTORY)?;
        let stats = dir.lookup_u64(b"DDT-statistics")?;
        let mut out = Vec::new();
        for checksum in (0..=u8::MAX).map_while(ChecksumKind::from_raw) {
            let own = dir.lookup_u64(format!("DDT-{}", checksum.name()).as_bytes())?;
            let mut t = Self { checksum, dir: POOL_DIRECTORY, version: 0, flags: 0, objects: vec![], logs: vec![] };
            let mut stats = stats;
            if let Some(object) = own {
                let zap = Zap::open(mos, object)?;
                t.dir = object;
                t.version = zap.lookup_u64(b"version")?.unwrap_or(1);
                t.flags = zap.lookup_u64(b"flags")?.unwrap_or(0);
                stats = zap.lookup_u64(b"DDT-statistics")?.or(stats);
                t.find_objects(mos, &zap, stats)?;
                t.find_logs(mos, &zap)?;
            } else {
                t.find_objects(mos, &dir, stats)?;
            }
            if own.is_some() || !t.objects.is_empty() {
                out.push(t);
            }
        }
        Ok(out)
    }

    fn find_objects(&mut self, mos: &Arc<Objset>, dir: &Zap, stats: Option<u64>) -> Result<()> {
        for (class, class_name) in DDT_CLASS_NAMES.iter().enumerate() {
            let name = format!("DDT-{}-zap-{class_name}", self.checksum.name());
            let Some(object) = dir.lookup_u64(name.as_bytes())? else { continue };
            let histogram = match stats {
                Some(s) => Zap::open(mos, s)?.lookup(name.as_bytes())?.map(|v| histogram_from_words(&v.u64s())),
                None => None,
            };
            let count = Zap::open(mos, object)?.count();
            self.objects.push(DdtObject { name, class, object, count, histogram: histogram.unwrap_or_default() });
        }
        Ok(())
    }

    fn find_logs(&mut self, mos: &Arc<Objset>, dir: &Zap) -> Result<()> {
        for index in 0..2usize {
            let name = format!("DDT-log-{}-{index}", self.checksum.name());
            let Some(object) = dir.lookup_u64(name.as_bytes())? else { continue };
            let dnode = mos.dnode(object)?;
            let header = DdtLogHeader::decode(&dnode.bonus()?, dnode.phys().endian)?;
            self.logs.push(DdtLog { index, object, header });
        }
        self.logs.sort_by_key(|l| (l.header.flags & 1 == 0, l.header.first_txg));
        Ok(())
    }

    fn unpack(&self, value: &[u8]) -> Result<Vec<DdtPhys>> {
        let (first, rest) = value.split_first().ok_or_else(|| Error::corrupt("an empty dedup entry"))?;
        let packing = DdtPacking::of(*first);
        let size = if self.is_flat() { DDT_FLAT_PHYS_SIZE } else { DDT_TRAD_PHYS_SIZE };
        let mut plain = vec![0u8; size];
        match CompressKind::from_raw(packing.compress_raw) {
            Some(k @ (CompressKind::Zle | CompressKind::Lz4 | CompressKind::Lzjb)) => {
                zfs_codec::compress::decompress(k, rest, &mut plain)
                    .map_err(|e| Error::corrupt("a dedup entry that does not expand").because(e))?;
            }
            _ => plain.iter_mut().zip(rest).for_each(|(a, b)| *a = *b),
        }
        Ok(decode_phys(&plain, packing.endian, self.is_flat())?)
    }

    /// Calls `f` for each entry of one ZAP.
    pub fn iterate(
        &self,
        mos: &Arc<Objset>,
        object: &DdtObject,
        mut f: impl FnMut(DdtEntry) -> Result<()>,
    ) -> Result<()> {
        for entry in Zap::open(mos, object.object)?.iter() {
            let entry = entry?;
            let Some(words) = entry.words().first_chunk::<5>() else {
                return Err(Error::corrupt("a dedup key of the wrong length"));
            };
            let phys = self.unpack(&entry.value.bytes())?;
            f(DdtEntry { key: DdtKey::from_words(*words), phys, cookie: entry.next_cookie })?;
        }
        Ok(())
    }

    /// Calls `f` for each entry of a log, oldest first; those already flushed are left out.
    pub fn iterate_log(&self, mos: &Arc<Objset>, log: &DdtLog, mut f: impl FnMut(DdtEntry)) -> Result<()> {
        let dnode = mos.dnode(log.object)?;
        let blksz = dnode.datablksz().max(512);
        for blkid in 0..log.header.length.div_ceil(blksz).min(dnode.phys().maxblkid.saturating_add(1)) {
            let Some((buf, endian)) = dnode.read_block_endian(blkid)? else { continue };
            for e in decode_log_block(&buf, endian, self.is_flat())? {
                if log.header.checkpoint.is_none_or(|c| e.key > c) {
                    f(DdtEntry { key: e.key, phys: e.phys, cookie: 0 });
                }
            }
        }
        Ok(())
    }

    /// All entries, with what the logs say of them.
    pub fn load(&self, mos: &Arc<Objset>) -> Result<HashMap<DdtKey, Vec<DdtPhys>>> {
        let mut out = HashMap::new();
        for object in &self.objects {
            self.iterate(mos, object, |e| {
                out.insert(e.key, e.phys);
                Ok(())
            })?;
        }
        for log in &self.logs {
            self.iterate_log(mos, log, |e| {
                out.insert(e.key, e.phys);
            })?;
        }
        Ok(out)
    }
}
