//! `zdb -D`, `-S` and `-T`: deduplication tables, simulated deduplication, the table of clones.

use crate::ctx::{Ctx, nice};
use crate::{bp, p, text};
use std::collections::HashMap;
use zfs_dmu::Zap;
use zfs_phys::brt::{BRT_OBJECT_VDEV_PREFIX, BrtVdevPhys};
use zfs_phys::ddt::{DdtKey, DdtStat};
use zfs_phys::enums::ChecksumKind;
use zfs_phys::feature::Feature;
use zfs_spa::Result;
use zfs_spa::check::dedup::{DdtEntry, DdtTable};
use zfs_spa::check::{self, CheckOptions, Verify};

fn flags(bits: u64, names: &[(u64, &str)]) -> String {
    if bits == 0 {
        return String::new();
    }
    let mut out: Vec<&str> = names.iter().filter(|(b, _)| bits & b != 0).map(|(_, n)| *n).collect();
    if bits & !names.iter().fold(0, |a, (b, _)| a | b) != 0 {
        out.push("UNKNOWN");
    }
    format!(" [{}]", out.join(" "))
}

fn entry(c: &mut Ctx<'_>, t: &DdtTable, e: &DdtEntry, index: u64) {
    for (i, ph) in e.phys.iter().enumerate().filter(|(_, ph)| ph.phys_birth != 0) {
        let ptr = ph.block_pointer(&e.key, t.checksum);
        p!(c.o, "index {index:x} refcnt {} phys {i} {}\n", ph.refcnt, bp::long(&ptr));
    }
}

fn stat_row(c: &mut Ctx<'_>, s: &DdtStat, title: &str) {
    if s.blocks == 0 {
        return;
    }
    let raw = c.opts.has('P');
    let (n, b) = (|v| nice(c.opts, v), |v| text::nicebytes(v, raw));
    let line = format!(
        "{title:>6}   {:>6}   {:>5}   {:>5}   {:>5}   {:>6}   {:>5}   {:>5}   {:>5}\n",
        n(s.blocks),
        b(s.lsize),
        b(s.psize),
        b(s.dsize),
        n(s.ref_blocks),
        b(s.ref_lsize),
        b(s.ref_psize),
        b(s.ref_dsize)
    );
    p!(c.o, "{line}");
}

fn histogram(c: &mut Ctx<'_>, rows: &[DdtStat], total: Option<&DdtStat>) {
    p!(c.o, "\nbucket              allocated                       referenced          \n");
    p!(c.o, "______   ______________________________   ______________________________\n");
    let heads = ["refcnt", "blocks", "LSIZE", "PSIZE", "DSIZE", "blocks", "LSIZE", "PSIZE", "DSIZE"];
    for line in [heads.map(str::to_owned), heads.map(|h| "-".repeat(h.len()))] {
        p!(c.o, "{}\n", line.join("   "));
    }
    for (i, s) in rows.iter().enumerate() {
        let title = nice(c.opts, 1u64.checked_shl(i as u32).unwrap_or(0));
        stat_row(c, s, &title);
    }
    if let Some(t) = total {
        stat_row(c, t, "Total");
    }
    p!(c.o, "\n");
}

fn sum(rows: &[DdtStat]) -> DdtStat {
    let mut t = DdtStat::default();
    rows.iter().for_each(|r| t.add(r));
    t
}

fn dedup_ratio(c: &mut Ctx<'_>, t: &DdtStat) {
    if t.blocks == 0 {
        return;
    }
    let (l, ph, d) = (t.ref_lsize as f64, t.ref_psize as f64, t.ref_dsize as f64);
    let (dedup, compress, copies) = (d / t.dsize as f64, l / ph, d / ph);
    p!(c.o, "dedup = {dedup:.2}, compress = {compress:.2}, copies = {copies:.2}, ");
    p!(c.o, "dedup * compress / copies = {:.2}\n\n", dedup * compress / copies);
}

/// Prints all deduplication tables.
pub fn ddts(c: &mut Ctx<'_>) -> Result<()> {
    let mos = c.pool.mos().clone();
    let mut all: Vec<DdtStat> = Vec::new();
    for t in DdtTable::all(&mos)? {
        let name = t.checksum.name();
        let version = ["LEGACY", "FDT"].get(t.version as usize).copied().unwrap_or("UNKNOWN");
        let text = flags(t.flags, &[(1, "FLAT"), (2, "LOG")]);
        p!(c.o, "DDT-{name}: version={} [{version}]; flags=0x{:02x}{text}; rootobj={}\n", t.version, t.flags, t.dir);
        for object in t.objects.iter().filter(|o| o.count > 0) {
            let dn = mos.dnode(object.object)?;
            let ph = dn.phys();
            let dspace = (ph.used_bytes().saturating_add(256) >> 9) << 9;
            let fill: u64 = ph.blkptrs().filter(|b| !b.is_hole()).map(zfs_phys::BlkPtr::fill).sum();
            let mspace = fill.saturating_mul(dn.datablksz());
            p!(c.o, "{}: dspace={dspace}; mspace={mspace}; entries={}\n", object.name, object.count);
            all.resize(all.len().max(object.histogram.len()), DdtStat::default());
            all.iter_mut().zip(&object.histogram).for_each(|(a, b)| a.add(b));
            if c.opts.lvl('D') < 3 {
                continue;
            }
            p!(c.o, "{}: object={}\n", object.name, object.object);
            histogram(c, &object.histogram, None);
            if c.opts.lvl('D') < 4 || (c.opts.lvl('D') < 5 && object.class == 2) {
                continue;
            }
            p!(c.o, "{} contents:\n\n", object.name);
            t.iterate(&mos, object, |e| {
                entry(c, &t, &e, e.cookie);
                Ok(())
            })?;
            p!(c.o, "\n");
        }
        logs(c, &t)?;
    }
    let total = sum(&all);
    if total.blocks == 0 {
        p!(c.o, "All DDTs are empty\n");
        return Ok(());
    }
    p!(c.o, "\n");
    if c.opts.lvl('D') > 1 {
        p!(c.o, "DDT histogram (aggregated over all DDTs):\n");
        histogram(c, &all, Some(&total));
    }
    dedup_ratio(c, &total);
    Ok(())
}

fn logs(c: &mut Ctx<'_>, t: &DdtTable) -> Result<()> {
    let mos = c.pool.mos().clone();
    if t.version != 1 || t.flags & 2 == 0 {
        return Ok(());
    }
    let mut logs: Vec<_> = t.logs.iter().collect();
    logs.sort_by_key(|l| l.index);
    for l in logs {
        let mut entries: HashMap<DdtKey, DdtEntry> = HashMap::new();
        t.iterate_log(&mos, l, |e| {
            entries.insert(e.key, e);
        })?;
        let h = &l.header;
        let text = flags(u64::from(h.flags), &[(1, "FLUSHING"), (2, "CHECKPOINT")]);
        p!(c.o, "DDT-log-{}-{}: flags=0x{:02x}{text}; obj={}; ", t.checksum.name(), l.index, h.flags, l.object);
        p!(c.o, "len={}; txg={}; entries={}\n", h.length, h.first_txg, entries.len());
        if let Some(k) = &h.checkpoint {
            let w = k.checksum;
            p!(c.o, "    checkpoint: {:016x}:{:016x}:{:016x}:{:016x}:{:016x}\n", w[0], w[1], w[2], w[3], k.prop);
        }
        if c.opts.lvl('D') >= 4 {
            let mut sorted: Vec<_> = entries.into_values().collect();
            sorted.sort_by_key(|e| e.key);
            (0u64..).zip(&sorted).for_each(|(i, e)| entry(c, t, e, i));
        }
    }
    Ok(())
}

/// Usable bytes that a block takes.
fn dsize(pool: &zfs_spa::Pool, b: &zfs_phys::BlkPtr) -> u64 {
    let tree = pool.zio().vdevs();
    let one = |d: zfs_phys::Dva| {
        let unit = (zfs_spa::space::asize_of(tree.top(d.vdev())?, 1 << 17) >> 9).max(1);
        Some((d.asize() >> 9).saturating_mul((1 << 17) / unit))
    };
    b.dvas().filter_map(one).fold(0, u64::saturating_add)
}

/// Prints what deduplication of all data would save.
pub fn simulate(c: &mut Ctx<'_>) {
    let seen: parking_lot::Mutex<HashMap<DdtKey, DdtStat>> = parking_lot::Mutex::new(HashMap::new());
    let pool = c.pool.clone();
    let add = |bm: Option<&zfs_zio::Zbookmark>, b: &zfs_phys::BlkPtr, _: Option<&zfs_phys::dnode::DnodePhys>| {
        let off = b.checksum_kind() == Some(ChecksumKind::Off);
        if bm.is_none() || b.is_hole() || b.is_embedded() || off || b.is_metadata() {
            return;
        }
        let mut seen = seen.lock();
        let s = seen.entry(DdtKey::of(b)).or_default();
        s.ref_blocks += 1;
        s.ref_lsize += b.lsize();
        s.ref_psize += b.psize();
        s.ref_dsize += dsize(&pool, b);
    };
    let options =
        CheckOptions { verify: Verify::Nothing, leaks: false, histograms: false, threads: 0, on_block: Some(&add) };
    if let Err(e) = check::run(&c.pool, &options, &|_| true) {
        eprintln!("zdb: {e}");
    }
    let mut rows = vec![DdtStat::default(); 64];
    for s in seen.into_inner().values() {
        let refs = s.ref_blocks.max(1);
        let mut one = *s;
        one.blocks = 1;
        one.lsize = s.ref_lsize / refs;
        one.psize = s.ref_psize / refs;
        one.dsize = s.ref_dsize / refs;
        if let Some(row) = rows.get_mut(refs.ilog2() as usize) {
            row.add(&one);
        }
    }
    let total = sum(&rows);
    p!(c.o, "Simulated DDT histogram:\n");
    histogram(c, &rows, Some(&total));
    dedup_ratio(c, &total);
}

/// Prints the tables of clones.
pub fn brt(c: &mut Ctx<'_>) -> Result<()> {
    if !c.pool.features().is_enabled(Feature::BlockCloning) {
        p!(c.o, "BRT: unsupported on this pool\n");
        return Ok(());
    }
    if !c.pool.features().is_active(Feature::BlockCloning) {
        p!(c.o, "BRT: empty\n");
        return Ok(());
    }
    let mos = c.pool.mos().clone();
    let mut vdevs = Vec::new();
    for v in &c.pool.zio().vdevs().root().children {
        let name = format!("{BRT_OBJECT_VDEV_PREFIX}{}", v.config.id);
        let phys = match c.pool.directory().lookup_u64(name.as_bytes())? {
            Some(object) => {
                let dn = mos.dnode(object)?;
                Some(BrtVdevPhys::decode(&dn.bonus()?, dn.phys().endian)?)
            }
            None => None,
        };
        vdevs.push((v.config.id, phys));
    }
    let raw = c.opts.has('P');
    let bytes = |v| text::nicebytes(v, raw);
    let used: u64 = vdevs.iter().filter_map(|(_, p)| p.map(|p| p.usedspace)).sum();
    let saved: u64 = vdevs.iter().filter_map(|(_, p)| p.map(|p| p.savedspace)).sum();
    let ratio = ((u128::from(used) + u128::from(saved)) * 100).checked_div(u128::from(used)).unwrap_or(100);
    p!(c.o, "BRT: used {}; saved {}; ratio {}.{:02}x\n", bytes(used), bytes(saved), ratio / 100, ratio % 100);
    if c.opts.lvl('T') < 2 {
        return Ok(());
    }
    for (id, phys) in &vdevs {
        match phys {
            None => p!(c.o, "BRT: vdev {id}: empty\n"),
            Some(b) => {
                let n = nice(c.opts, b.totalcount);
                p!(c.o, "BRT: vdev {id}: refcnt {n}; used {}; saved {}\n", bytes(b.usedspace), bytes(b.savedspace));
            }
        }
    }
    if c.opts.lvl('T') < 3 {
        return Ok(());
    }
    let entries = c.opts.lvl('T') > 3;
    if entries {
        p!(c.o, "\n{:<16} {:<10}\n", "DVA", "REFCNT");
    }
    for (id, phys) in &vdevs {
        let Some(b) = phys.filter(|b| b.mos_entries != 0) else { continue };
        let mut counts = [0u64; 65];
        for e in Zap::open(&mos, b.mos_entries)?.iter() {
            let e = e?;
            let (offset, refs) = (e.words().first().copied().unwrap_or(0), e.value.first());
            if entries {
                p!(c.o, "{:<16} {refs:<10}\n", format!("{id}:{offset:x}"));
            } else {
                let at = (64 - refs.leading_zeros()) as usize;
                counts.iter_mut().skip(at).take(1).for_each(|n| *n += 1);
            }
        }
        if !entries {
            p!(c.o, "\nBRT: vdev {id}: DVAs with 2^n refcnts:\n");
            text::histogram(c.o, &counts, 0);
        }
    }
    Ok(())
}
