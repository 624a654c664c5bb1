//! Space figures of datasets: what is available to them, what was written since a snapshot (module/zfs/dsl_dir.c,
//! dsl_dataset.c).

use super::dataset::Dataset;
use super::dir::Dir;
use crate::pool::Pool;
use std::sync::Arc;
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::{Error, Objset, Result, Zap};
use zfs_phys::dsl::{DeadlistPhys, DslDatasetPhys};
use zfs_phys::enums::DmuObjectType;

/// Most snapshots walked for one figure.
const MAX_CHAIN: usize = 1 << 20;

/// Sizes of a set of blocks: on disk, compressed, logical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Bytes on disk.
    pub used: u64,
    /// Compressed bytes.
    pub comp: u64,
    /// Logical bytes.
    pub uncomp: u64,
}

impl Sizes {
    fn add(&mut self, o: Sizes) {
        self.used = self.used.wrapping_add(o.used);
        self.comp = self.comp.wrapping_add(o.comp);
        self.uncomp = self.uncomp.wrapping_add(o.uncomp);
    }
}

/// What a directory may still use: the least of what its quota, those above it and the pool leave, with reservations
/// that it has not used yet.
pub fn available(pool: &Pool, dir: &Arc<Dir>) -> Result<u64> {
    let mut chain = vec![dir.clone()];
    let mut above = dir.parent.clone();
    while let Some(d) = above {
        above = d.parent.clone();
        chain.push(d);
    }
    let mut parent_space = u64::MAX;
    for d in chain.into_iter().rev() {
        let (used, reserved) = (d.phys.used_bytes, d.phys.reserved);
        let mut quota = if d.phys.quota == 0 { u64::MAX } else { d.phys.quota };
        if d.parent.is_none() {
            quota = quota.min(pool.space()?.adjusted);
        }
        if reserved > used && parent_space != u64::MAX {
            parent_space = parent_space.saturating_add(reserved - used);
        }
        parent_space = if used > quota { 0 } else { parent_space.min(quota - used) };
    }
    Ok(parent_space)
}

/// Sums of a deadlist of either form.
pub fn deadlist(mos: &Arc<Objset>, object: u64) -> Result<Sizes> {
    if object == 0 {
        return Ok(Sizes::default());
    }
    let dnode = mos.dnode(object)?;
    if dnode.phys().object_type == DmuObjectType::BPOBJ {
        return bpobj_sizes(mos, object);
    }
    let phys = DeadlistPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
    Ok(Sizes { used: phys.used, comp: phys.comp, uncomp: phys.uncomp })
}

fn bpobj_sizes(mos: &Arc<Objset>, object: u64) -> Result<Sizes> {
    let list = Bpobj::open(mos, object)?;
    let phys = list.phys();
    if phys.has_comp {
        return Ok(Sizes { used: phys.bytes, comp: phys.comp, uncomp: phys.uncomp });
    }
    let mut sum = Sizes { used: phys.bytes, ..Sizes::default() };
    list.iterate(|bp, _| {
        sum.comp = sum.comp.wrapping_add(bp.psize_on_disk());
        sum.uncomp = sum.uncomp.wrapping_add(bp.lsize());
        Ok(())
    })?;
    Ok(sum)
}

/// Lists of a deadlist: the txg after which their blocks were born, and their object.
pub fn deadlist_entries(mos: &Arc<Objset>, object: u64) -> Result<Vec<(u64, u64)>> {
    let mut out = Vec::new();
    for entry in Zap::open(mos, object)?.iter() {
        let entry = entry?;
        let name = String::from_utf8_lossy(entry.name()).into_owned();
        let txg = u64::from_str_radix(&name, 16).map_err(|_| Error::corrupt("name of a deadlist entry"))?;
        out.push((txg, entry.value.first()));
    }
    out.sort_unstable();
    Ok(out)
}

/// Sums of the blocks of a deadlist that were born before `txg`.
fn deadlist_before(mos: &Arc<Objset>, object: u64, txg: u64) -> Result<Sizes> {
    let mut sum = Sizes::default();
    if object == 0 {
        return Ok(sum);
    }
    if mos.dnode(object)?.phys().object_type == DmuObjectType::BPOBJ {
        Bpobj::open(mos, object)?.iterate(|bp, _| {
            if bp.birth() < txg {
                sum.add(Sizes { used: bp.asize(), comp: bp.psize_on_disk(), uncomp: bp.lsize() });
            }
            Ok(())
        })?;
        return Ok(sum);
    }
    for (min, list) in deadlist_entries(mos, object)? {
        if min < txg {
            sum.add(bpobj_sizes(mos, list)?);
        }
    }
    Ok(sum)
}

/// What `new` references that the snapshot of `txg`, which referenced `old`, did not. `freed` is what had been freed
/// before the snapshot's successor, when the snapshot itself is gone (bookmarks).
pub fn written_since(new: &Dataset, txg: u64, old: Sizes, freed: Option<Sizes>) -> Result<Sizes> {
    let mos = new.mos();
    let of =
        |p: &DslDatasetPhys| Sizes { used: p.referenced_bytes, comp: p.compressed_bytes, uncomp: p.uncompressed_bytes };
    let mut sum = of(&new.phys);
    sum.used = sum.used.wrapping_sub(old.used);
    sum.comp = sum.comp.wrapping_sub(old.comp);
    sum.uncomp = sum.uncomp.wrapping_sub(old.uncomp);
    let mut at = new.phys;
    for _ in 0..MAX_CHAIN {
        if at.prev_snap_txg <= txg {
            break;
        }
        sum.add(deadlist_before(mos, at.deadlist_obj, txg)?);
        at = phys_of(mos, at.prev_snap_obj)?;
    }
    match freed {
        Some(freed) => sum.add(freed),
        None => sum.add(deadlist(mos, at.deadlist_obj)?),
    }
    Ok(sum)
}

/// What is stored about the dataset in `object`.
pub fn phys_of(mos: &Arc<Objset>, object: u64) -> Result<DslDatasetPhys> {
    let dnode = mos.dnode(object)?;
    Ok(DslDatasetPhys::decode(&dnode.bonus()?, dnode.phys().endian)?)
}

impl Dataset {
    /// Bytes written since the previous snapshot, or since the origin; nothing when there is none.
    pub fn written(&self) -> Result<Option<u64>> {
        if self.phys.prev_snap_obj == 0 {
            return Ok(None);
        }
        let prev = phys_of(self.mos(), self.phys.prev_snap_obj)?;
        let old = Sizes { used: prev.referenced_bytes, comp: prev.compressed_bytes, uncomp: prev.uncompressed_bytes };
        written_since(self, prev.creation_txg, old, None).map(|s| Some(s.used))
    }
}
