//! Deduplication tables and block references of clones: sums for properties. The tables themselves are read by
//! [`crate::check::dedup`].

use crate::check::dedup::DdtTable;
use crate::pool::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::{Error, Objset, Result};
use zfs_phys::brt::{BRT_OBJECT_VDEV_PREFIX, BrtVdevPhys};
use zfs_phys::ddt::{DDT_HISTOGRAM_SIZE, DdtKey, DdtPhys, DdtStat};
use zfs_phys::enums::ChecksumKind;

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

fn load(pool: &Pool) -> Result<Dedup> {
    let mos = pool.mos();
    let mut out = Dedup { histogram: vec![DdtStat::default(); DDT_HISTOGRAM_SIZE], ..Dedup::default() };
    let tables = DdtTable::all(mos)?;
    for table in &tables {
        add_stored(mos, table, &mut out)?;
    }
    for object in &out.objects {
        object.histogram.iter().for_each(|row| out.total.add(row));
        for (sum, row) in out.histogram.iter_mut().zip(&object.histogram) {
            sum.add(row);
        }
        out.entries += object.count;
        out.disk_size += object.dspace;
        out.core_size += object.count * if object.flat { CORE_SIZE_FLAT } else { CORE_SIZE_LEGACY };
    }
    for table in &tables {
        add_logged(pool, table, &mut out)?;
    }
    Ok(out)
}

fn add_stored(mos: &Arc<Objset>, table: &DdtTable, out: &mut Dedup) -> Result<()> {
    for stored in &table.objects {
        out.objects.push(DdtObject {
            checksum: table.checksum,
            class: stored.class,
            object: stored.object,
            count: stored.count,
            dspace: mos.dnode(stored.object)?.phys().used_bytes(),
            flat: table.is_flat(),
            histogram: stored.histogram.clone(),
        });
    }
    Ok(())
}

/// Adds the entries that are only in logs to the sums: the newest of each replaces what is stored under the same key.
fn add_logged(pool: &Pool, table: &DdtTable, out: &mut Dedup) -> Result<()> {
    let mut newest: BTreeMap<DdtKey, Vec<DdtPhys>> = BTreeMap::new();
    for log in &table.logs {
        if log.header.version != 1 {
            return Err(Error::unsupported(format!("dedup log of version {}", log.header.version)));
        }
        out.disk_size += pool.mos().dnode(log.object)?.phys().used_bytes();
        table.iterate_log(pool.mos(), log, |entry| drop(newest.insert(entry.key, entry.phys)))?;
    }
    for (key, copies) in newest {
        out.logged += 1;
        for phys in copies.iter().filter(|p| p.refcnt > 0) {
            let row = row_of(pool, &key, phys);
            out.total.add(&row);
            let bucket = phys.refcnt.checked_ilog2().unwrap_or(0) as usize;
            if let Some(sum) = out.histogram.get_mut(bucket) {
                sum.add(&row);
            }
        }
    }
    Ok(())
}

fn row_of(pool: &Pool, key: &DdtKey, phys: &DdtPhys) -> DdtStat {
    let mut dsize = 0u64;
    for dva in phys.dva.iter().filter(|d| d.is_valid()) {
        if let Some(top) = pool.zio().vdevs().top(dva.vdev()) {
            let unit = (crate::space::asize_of(top, 1 << 17) >> 9).max(1);
            dsize += (dva.asize() >> 9) * ((1 << 17) / unit);
        }
    }
    let (lsize, psize, n) = (key.lsize(), key.psize(), phys.refcnt);
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

impl Pool {
    /// Deduplication tables.
    pub fn dedup(&self) -> Result<Arc<Dedup>> {
        self.dedup_once(|| load(self))
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
}
