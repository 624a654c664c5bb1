//! Blocks that no dataset has any more but that are still allocated: deferred frees, blocks of destroyed snapshots,
//! datasets being destroyed in the background, livelists of destroyed clones, and what a running removal copied.

use super::space::Segment;
use super::walk::Walk;
use super::{Problem, stats};
use std::collections::HashMap;
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::ordered::{self, Outcome, walk};
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::{Objset, Zap};
use zfs_phys::scan::RemovingPhys;
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_phys::{BlkPtr, Reader};
use zfs_zio::{Result, Zbookmark};

/// Object set number that stands for a destroyed dataset (`ZB_DESTROYED_OBJSET`).
const DESTROYED_OBJSET: u64 = u64::MAX;
/// Bytes of an entry of the list of destroyed datasets (`bptree_entry_phys_t`).
const BPTREE_ENTRY: usize = 168;
/// State of a removal that is running (`DSS_SCANNING`).
const REMOVAL_RUNNING: u64 = 1;

type Step = fn(&Walk<'_>) -> Result<()>;

/// Runs each step; what fails is a problem, and the next step follows.
pub fn visit(w: &Walk<'_>) {
    let steps: [(&'static str, Step); 5] = [
        ("deferred frees", |w| list(w, b"sync_bplist")),
        ("pool snapshot frees", |w| list(w, b"free_bpobj")),
        ("running removal", removing),
        ("destroyed datasets", destroyed),
        ("deleted livelists", livelists),
    ];
    for (what, step) in steps {
        if let Err(error) = step(w) {
            w.problem(Problem::Table { what, error });
        }
    }
}

fn list(w: &Walk<'_>, name: &[u8]) -> Result<()> {
    let Some(object) = w.pool.directory().lookup_u64(name)?.filter(|o| *o != 0) else { return Ok(()) };
    Bpobj::open(w.pool.mos(), object)?.iterate(|bp, _| w.pending(bp))
}

/// Segments that a running removal has copied are allocated at their new place, though nothing points there yet.
fn removing(w: &Walk<'_>) -> Result<()> {
    if !w.options.leaks {
        return Ok(());
    }
    let Some(v) = w.pool.directory().lookup(b"com.delphix:removing")? else { return Ok(()) };
    let Some(r) = RemovingPhys::from_words(&v.u64s()).filter(|r| r.state == REMOVAL_RUNNING) else { return Ok(()) };
    let Some(vdev) = w.layout.vdevs.get(&r.removing_vdev) else { return Ok(()) };
    let Some(phys) = vdev.mapping_phys else { return Ok(()) };
    let mut bytes = 0u64;
    vdev.space.allocated(|s| {
        let end = s.offset.saturating_add(s.size).min(phys.max_offset);
        if s.offset >= end {
            return;
        }
        for m in vdev.mapping.iter().filter(|m| m.src < end && m.src.saturating_add(m.dst.asize()) > s.offset) {
            let from = m.src.max(s.offset);
            let len = m.src.saturating_add(m.dst.asize()).min(end) - from;
            let at = m.dst.offset().saturating_add(from - m.src);
            bytes += len;
            if w.layout.claim(m.dst.vdev(), at, len).is_err() {
                let segment = Segment { vdev: m.dst.vdev(), offset: at, size: len };
                w.problem(Problem::BadEntry { segment, what: "mapping of a running removal" });
            }
        }
    });
    w.add_removing(bytes);
    Ok(())
}

fn destroyed(w: &Walk<'_>) -> Result<()> {
    let Some(object) = w.pool.directory().lookup_u64(b"bptree_obj")?.filter(|o| *o != 0) else { return Ok(()) };
    let dnode = w.pool.mos().dnode(object)?;
    let [begin, end] = Reader::new(&dnode.bonus()?, dnode.phys().endian, "bptree").u64s()?;
    let room = dnode.phys().maxblkid.saturating_add(1).saturating_mul(dnode.datablksz());
    let count = end.saturating_sub(begin).min(room / BPTREE_ENTRY as u64);
    for i in 0..count {
        let raw = dnode.read_vec(begin.saturating_add(i).saturating_mul(BPTREE_ENTRY as u64), BPTREE_ENTRY)?;
        let mut r = Reader::new(&raw, dnode.phys().endian, "bptree entry");
        let (bp, min_txg) = (BlkPtr::read(&mut r)?, r.u64()?);
        let [objset, obj, level, blkid] = r.u64s()?;
        let resume = Zbookmark::new(objset, obj, level as i64, blkid);
        if bp.is_hole() {
            continue;
        }
        let os = Objset::open(w.pool.zio(), &bp, DESTROYED_OBJSET, None)?;
        let resume = (objset != 0).then_some(resume);
        let outcome = walk(&os, min_txg, resume, &mut |v| w.pending(v.bp).map(|()| ordered::Step::Next))?;
        if let Outcome::Unreadable(bm, e) = outcome {
            w.unreadable(&bm, None, e)?;
        }
    }
    Ok(())
}

/// Blocks a destroyed clone had allocated and not freed.
fn livelists(w: &Walk<'_>) -> Result<()> {
    let mos = w.pool.mos();
    let Some(object) = w.pool.directory().lookup_u64(b"com.delphix:deleted_clones")? else { return Ok(()) };
    for livelist in Zap::open(mos, object)?.iter() {
        for sub in Zap::open(mos, livelist?.value.first())?.iter() {
            let mut alive: HashMap<(u64, u64), (BlkPtr, i64)> = HashMap::new();
            Bpobj::open(mos, sub?.value.first())?.iterate(|bp, freed| {
                let e = alive.entry((bp.dva(0).vdev(), bp.dva(0).offset())).or_insert((*bp, 0));
                e.1 += if freed { -1 } else { 1 };
                Ok(())
            })?;
            for (bp, n) in alive.into_values() {
                for _ in 0..n.max(0) {
                    w.pending(&bp)?;
                }
            }
        }
    }
    Ok(())
}

fn add_overlap(counts: &mut [i64], mapping: &[zfs_phys::indirect::IndirectMappingEntry], offset: u64, size: u64) {
    let end = offset.saturating_add(size);
    let first = mapping.partition_point(|m| m.src.saturating_add(m.dst.asize()) <= offset);
    for (m, c) in mapping.iter().zip(counts.iter_mut()).skip(first).take_while(|(m, _)| m.src < end) {
        let overlap = end.min(m.src.saturating_add(m.dst.asize())).saturating_sub(offset.max(m.src));
        *c = c.saturating_add_unsigned(overlap);
    }
}

/// Compares what is unreferenced of each mapping with what was counted as obsolete.
pub fn obsolete(w: &Walk<'_>) -> Result<()> {
    let (mos, dir) = (w.pool.mos(), w.pool.directory());
    let condensing = dir.lookup(b"com.delphix:condensing_indirect")?.map(|v| v.u64s()).unwrap_or_default();
    let bpobj = dir.lookup_u64(b"com.delphix:obsolete_bpobj")?.filter(|o| *o != 0);
    for v in w.layout.vdevs.values().filter(|v| v.is_indirect()) {
        let mut counts = vec![0i64; v.mapping.len()];
        if let Some(object) = v.mapping_phys.map(|p| p.counts_object).filter(|o| *o != 0) {
            let dnode = mos.dnode(object)?;
            let raw = dnode.read_vec(0, counts.len().saturating_mul(4))?;
            let mut r = Reader::new(&raw, dnode.phys().endian, "obsolete counts");
            for c in &mut counts {
                *c = i64::from(r.u32()?);
            }
        }
        let prev = (condensing.first() == Some(&v.id)).then(|| condensing.get(2).copied()).flatten();
        let maps = [v.top_zap_entry(mos, b"com.delphix:indirect_obsolete_sm")?, prev];
        for object in maps.into_iter().flatten().filter(|o| *o != 0) {
            SpaceMap::open(mos, object)?.iterate(|e| {
                if let SmEntry::Segment { kind: MapType::Alloc, offset, run, .. } = e {
                    add_overlap(&mut counts, &v.mapping, offset, run);
                }
                Ok(())
            })?;
        }
        if let Some(object) = bpobj {
            Bpobj::open(mos, object)?.iterate(|bp, _| {
                let d = bp.dva(0);
                if d.vdev() == v.id {
                    add_overlap(&mut counts, &v.mapping, d.offset(), d.asize());
                }
                Ok(())
            })?;
        }
        let precise = v.top_zap_entry(mos, b"com.delphix:obsolete_counts_are_precise")?.is_some_and(|n| n != 0);
        for (m, counted) in v.mapping.iter().zip(counts) {
            let size = m.dst.asize();
            let difference = (v.space.unclaimed(m.src, size) as i64).saturating_sub(counted);
            if difference != 0 {
                let segment = Segment { vdev: v.id, offset: m.src, size };
                w.problem(Problem::Obsolete { segment, difference, precise });
            }
        }
    }
    Ok(())
}

/// The row that blocks to be freed are counted in.
pub const ROW: usize = stats::TYPE_DEFERRED;
