//! `zdb -y`: lists of the blocks of clones that were destroyed and are not freed yet, against the space maps.
//!
//! Each list must pair its frees with allocations. What is left allocated in the lists must not have been freed in a
//! space map, or in a log of them, at or after its birth. Space maps themselves must not allocate what is allocated
//! nor free what is free. As in OpenZFS, entries of logs that cancelled each other before a flush are not seen.

use crate::bp;
use crate::ctx::Ctx;
use crate::p;
use std::collections::BTreeMap;
use zfs_dmu::Zap;
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::spacemap::SpaceMap;
use zfs_phys::BlkPtr;
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_spa::Result;
use zfs_spa::check::layout::{Layout, VdevLayout};
use zfs_spa::dsl::figures::deadlist_entries;
use zfs_zio::RangeTree;

/// Most block pointers of one list that are held in memory.
const MAX_ENTRIES: u64 = 1 << 24;

/// Blocks still allocated by vdev and offset: size and birth.
type Left = BTreeMap<(u64, u64), (u64, u64)>;

fn error(c: &mut Ctx<'_>, text: &str) {
    p!(c.o, "{text}\n");
    c.corrupt = true;
}

/// Pairs the frees of one list with its allocations; allocations without one go to `left`.
fn pair(c: &mut Ctx<'_>, object: u64, left: &mut Left) -> Result<()> {
    let list = Bpobj::open(c.pool.mos(), object)?;
    if list.phys().num_blkptrs > MAX_ENTRIES {
        return Err(zfs_zio::Error::corrupt(format!("{} block pointers in a livelist", list.phys().num_blkptrs)));
    }
    let mut entries: Vec<(BlkPtr, bool)> = Vec::new();
    list.iterate(|bp, freed| {
        entries.push((*bp, freed));
        Ok(())
    })?;
    let mut frees: BTreeMap<(u64, u64), (u64, BlkPtr)> = BTreeMap::new();
    // Frees come behind their allocations, so from the end each finds its own.
    for (bp, freed) in entries.into_iter().rev() {
        let key = (bp.dva(0).vdev(), bp.dva(0).offset());
        if freed {
            frees.entry(key).or_insert((0, bp)).0 += 1;
            continue;
        }
        if let Some((count, _)) = frees.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                frees.remove(&key);
            }
            continue;
        }
        for i in 0..bp.ndvas() {
            let dva = bp.dva(i);
            left.entry((dva.vdev(), dva.offset())).or_insert((dva.asize(), bp.logical_birth()));
        }
    }
    for (count, bp) in frees.into_values() {
        let text = bp::compact(&bp, true, c.opts.lvl('d'), c.opts.lvl('b'));
        error(c, &format!("\tERROR: {count} unmatched FREE(s): {text}"));
    }
    Ok(())
}

/// One metaslab while its space map is followed.
struct Metaslab<'a> {
    vdev: u64,
    id: u64,
    live: Left,
    allocated: RangeTree,
    errors: &'a mut Vec<String>,
}

impl Metaslab<'_> {
    fn entry(&mut self, kind: MapType, offset: u64, size: u64, txg: u64) {
        let end = offset.saturating_add(size);
        let where_ = format!("{txg} [{offset:x}:{size:x}] {}:{} LOG_SM", self.vdev, self.id);
        match kind {
            MapType::Alloc => {
                if self.allocated.add(offset, end).is_err() {
                    self.errors.push(format!("ERROR: DOUBLE ALLOC: {where_}"));
                }
            }
            MapType::Free => {
                if self.allocated.remove(offset, end).is_err() {
                    self.errors.push(format!("ERROR: DOUBLE FREE: {where_}"));
                }
                for ((_, at), (asize, birth)) in self.live.range((self.vdev, offset)..(self.vdev, end)) {
                    if *birth <= txg {
                        let text = format!("[{at:x}:{asize:x}] from TXG {birth:x} FREED at TXG {txg:x}");
                        self.errors.push(format!("ERROR: Livelist ALLOC {text}"));
                    }
                }
            }
        }
    }
}

/// Takes the blocks of a metaslab out of `left`; those across its borders are errors.
fn of_metaslab(left: &mut Left, vdev: u64, start: u64, end: u64, errors: &mut Vec<String>) -> Left {
    let crossing: Vec<(u64, u64)> = left
        .range((vdev, 0)..(vdev, end))
        .filter(|((_, at), (size, _))| {
            let last = at.saturating_add(*size);
            (*at < start && last > start) || (*at >= start && last > end)
        })
        .map(|(key, _)| *key)
        .collect();
    for (_, at) in crossing {
        let size = left.get(&(vdev, at)).map_or(0, |(size, _)| *size);
        errors.push(format!("ERROR: Found block that crosses metaslab boundary: <{vdev}:{at:x}:{size:x}>"));
    }
    let keys: Vec<(u64, u64)> = left
        .range((vdev, start)..(vdev, end))
        .filter(|((_, at), (size, _))| at.saturating_add(*size) <= end)
        .map(|(key, _)| *key)
        .collect();
    keys.into_iter().filter_map(|key| left.remove_entry(&key)).collect()
}

/// Changes of the logs by vdev and metaslab, oldest first: kind, offset, size, txg.
type Logged = BTreeMap<(u64, u64), Vec<(MapType, u64, u64, u64)>>;

fn logged(c: &Ctx<'_>, layout: &Layout) -> Result<Logged> {
    let mut out = Logged::new();
    layout.each_log_entry(c.pool.mos(), |txg, vdev, kind, offset, size| {
        if layout.is_unflushed(vdev, offset, txg)
            && let Some(v) = layout.vdevs.get(&vdev)
        {
            let ms = offset.checked_shr(v.ms_shift as u32).unwrap_or(0);
            out.entry((vdev, ms)).or_default().push((kind, offset, size, txg));
        }
    })?;
    Ok(out)
}

fn metaslabs(c: &mut Ctx<'_>, v: &VdevLayout, left: &mut Left, logs: &Logged) -> Result<()> {
    let count = v.metaslabs.len();
    for m in &v.metaslabs {
        c.o.flush();
        eprint!("\rverifying concrete vdev {}, metaslab {} of {count} ...", v.id, m.id);
        let (start, size) = v.extent(m.id);
        let mut errors = Vec::new();
        let live = of_metaslab(left, v.id, start, start.saturating_add(size), &mut errors);
        let mut one = Metaslab { vdev: v.id, id: m.id, live, allocated: RangeTree::new(), errors: &mut errors };
        if m.object != 0 {
            let mut txg = 0;
            SpaceMap::open(c.pool.mos(), m.object)?.iterate(|e| {
                match e {
                    SmEntry::Debug { txg: now, .. } if now != 0 => txg = now,
                    SmEntry::Segment { kind, offset, run, .. } => {
                        let unit = v.config.ashift.min(16) as u32;
                        let at = start.saturating_add(offset.checked_shl(unit).unwrap_or(u64::MAX));
                        one.entry(kind, at, run.checked_shl(unit).unwrap_or(u64::MAX), txg);
                    }
                    SmEntry::Debug { .. } => {}
                }
                Ok(())
            })?;
        }
        for (kind, offset, size, txg) in logs.get(&(v.id, m.id)).into_iter().flatten() {
            one.entry(*kind, *offset, *size, *txg);
        }
        errors.iter().for_each(|text| error(c, text));
    }
    Ok(())
}

/// Checks them all.
pub fn check(c: &mut Ctx<'_>) -> Result<()> {
    p!(c.o, "Verifying deleted livelist entries\n");
    let mut left = Left::new();
    let mos = c.pool.mos().clone();
    if let Some(table) = c.pool.directory().lookup_u64(b"com.delphix:deleted_clones")? {
        for entry in Zap::open(&mos, table)?.iter() {
            for (_, list) in deadlist_entries(&mos, entry?.value.first())? {
                pair(c, list, &mut left)?;
            }
        }
    }
    p!(c.o, "Verifying metaslab entries\n");
    let layout = Layout::load(&mos, c.pool.zio().vdevs(), false, &|_| {})?;
    let logs = logged(c, &layout)?;
    for v in layout.vdevs.values().filter(|v| !v.is_indirect()) {
        metaslabs(c, v, &mut left, &logs)?;
    }
    eprintln!();
    if !left.is_empty() {
        error(c, "ERROR: Found livelist blocks marked as allocated for indirect vdevs:");
        left.iter().for_each(|((v, at), (size, birth))| p!(c.o, "<{v}:{at:x}:{size:x}> TXG {birth:x}\n"));
        p!(c.o, "\n");
    }
    Ok(())
}
