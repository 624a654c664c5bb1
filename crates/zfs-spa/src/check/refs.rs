//! Blocks that several pointers share: deduplicated ones and clones.
//!
//! The first pointer that is met claims the space; each further one takes a reference off the count that the table
//! holds, and is no overlap as long as the count lasts. What is left when the walk is over was promised to nobody.
//! The tables are loaded before the walk; only counters change during it, with atomic operations.

use super::dedup::DdtTable;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zfs_dmu::{Objset, Zap};
use zfs_phys::BlkPtr;
use zfs_phys::brt::{BRT_OBJECT_VDEV_PREFIX, BrtVdevPhys};
use zfs_phys::ddt::{DdtKey, DdtPhys};
use zfs_zio::Result;

/// Takes one off a counter unless it is zero.
fn take(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

struct Variant {
    phys: DdtPhys,
    left: AtomicU64,
    seen: AtomicBool,
}

struct DedupEntry {
    variants: Vec<Variant>,
    flat: bool,
}

/// Reference counts of deduplicated blocks, by raw checksum number and key.
#[derive(Default)]
pub struct Dedup {
    entries: HashMap<(u8, DdtKey), DedupEntry>,
}

/// What a pointer to a shared block means.
pub enum Shared {
    /// Not shared after all, or the first sight: it claims its space (with these addresses).
    Claims(BlkPtr),
    /// A further reference: its space is claimed already.
    Again(BlkPtr),
}

impl Dedup {
    /// Loads all tables.
    pub fn load(mos: &Arc<Objset>) -> Result<Self> {
        let mut out = Self::default();
        for table in DdtTable::all(mos)? {
            let flat = table.is_flat();
            for (key, phys) in table.load(mos)? {
                let one = |p: DdtPhys| Variant { phys: p, left: p.refcnt.into(), seen: false.into() };
                let entry = DedupEntry { variants: phys.into_iter().map(one).collect(), flat };
                out.entries.insert((table.checksum as u8, key), entry);
            }
        }
        Ok(out)
    }

    /// Takes a reference for a pointer with the dedup bit.
    pub fn reference(&self, bp: &BlkPtr) -> Shared {
        let Some(entry) = self.entries.get(&(bp.checksum_raw(), DdtKey::of(bp))) else { return Shared::Claims(*bp) };
        let birth = bp.physical_birth();
        let fits = |v: &&Variant| v.phys.dva.first() == Some(&bp.dva(0)) && v.phys.phys_birth == birth;
        let Some(v) = entry.variants.iter().find(fits) else { return Shared::Claims(*bp) };
        let mut full = *bp;
        if entry.flat {
            // The entry may have got more copies since this pointer was written; all of them are allocated.
            let copies = if bp.is_encrypted() { 2 } else { 3 };
            for (pair, d) in full.word.chunks_exact_mut(2).zip(v.phys.dva).take(copies) {
                pair.copy_from_slice(&d.word);
            }
        }
        let seen = v.seen.swap(true, Ordering::Relaxed);
        let had_reference = take(&v.left);
        if seen && had_reference { Shared::Again(full) } else { Shared::Claims(full) }
    }

    /// Calls `f` for each copy that was met, and whose count was not used up: raw checksum, key, copy, left over.
    pub fn left_over(&self, mut f: impl FnMut(u8, &DdtKey, &DdtPhys, u64)) {
        for ((kind, key), entry) in &self.entries {
            for v in entry.variants.iter().filter(|v| v.seen.load(Ordering::Relaxed)) {
                let left = v.left.load(Ordering::Relaxed);
                if left != 0 {
                    f(*kind, key, &v.phys, left);
                }
            }
        }
    }
}

struct CloneEntry {
    left: AtomicU64,
    seen: AtomicBool,
}

/// Reference counts of cloned blocks, by vdev and offset.
#[derive(Default)]
pub struct Clones {
    entries: HashMap<(u64, u64), CloneEntry>,
}

impl Clones {
    /// Loads the tables of all vdevs in `vdevs`.
    pub fn load(mos: &Arc<Objset>, vdevs: impl Iterator<Item = u64>) -> Result<Self> {
        let mut out = Self::default();
        let dir = Zap::open(mos, 1)?;
        for vdev in vdevs {
            let Some(object) = dir.lookup_u64(format!("{BRT_OBJECT_VDEV_PREFIX}{vdev}").as_bytes())? else { continue };
            let dnode = mos.dnode(object)?;
            let phys = BrtVdevPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
            if phys.mos_entries == 0 {
                continue;
            }
            for entry in Zap::open(mos, phys.mos_entries)?.iter() {
                let entry = entry?;
                let Some(offset) = entry.words().first() else { continue };
                let c = CloneEntry { left: entry.value.first().into(), seen: false.into() };
                out.entries.insert((vdev, *offset), c);
            }
        }
        Ok(out)
    }

    /// Takes a reference; true when the space was claimed by an earlier pointer.
    pub fn reference(&self, bp: &BlkPtr) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let dva = bp.dva(0);
        let Some(c) = self.entries.get(&(dva.vdev(), dva.offset())) else { return false };
        c.seen.swap(true, Ordering::Relaxed) && take(&c.left)
    }

    /// Calls `f` with vdev, offset and what is left of each count that was not used up.
    pub fn left_over(&self, mut f: impl FnMut(u64, u64, u64)) {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_unstable_by_key(|(k, _)| **k);
        for ((vdev, offset), c) in all {
            let left = c.left.load(Ordering::Relaxed);
            if left != 0 && c.seen.load(Ordering::Relaxed) {
                f(*vdev, *offset, left);
            }
        }
    }
}
