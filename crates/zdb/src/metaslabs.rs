//! `zdb -m`: metaslabs and their space maps, logs of changes not flushed yet, mappings of removed vdevs, dirty time
//! logs.

use crate::ctx::{Ctx, nice};
use crate::{p, text};
use zfs_dmu::spacemap::SpaceMap;
use zfs_phys::feature::Feature;
use zfs_phys::read::u64_at;
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_spa::Result;
use zfs_spa::check::layout::{Layout, Metaslab, VdevLayout};
use zfs_spa::check::{Class, Problem};
use zfs_zio::{Vdev, VdevKind};

fn layout(c: &mut Ctx<'_>, maps: bool) -> Result<Layout> {
    let bad = std::cell::Cell::new(0u64);
    let note = |_: Problem| bad.set(bad.get() + 1);
    let l = Layout::load(c.pool.mos(), c.pool.zio().vdevs(), maps, &note)?;
    if bad.get() > 0 {
        c.o.flush();
        eprintln!("zdb: {} space maps or entries make no sense", bad.get());
        c.corrupt = true;
    }
    Ok(l)
}

/// What an entry that names no vdev shows for it (`SM_NO_VDEVID`).
const NO_VDEV: u32 = 1 << 24;

/// Vdev and metaslabs asked for on the command line.
fn wanted(c: &Ctx<'_>) -> Vec<u64> {
    if !c.opts.has('m') || c.opts.has('d') {
        return Vec::new();
    }
    c.opts.args.iter().skip(1).filter_map(|a| crate::opts::number(a)).collect()
}

/// Prints all metaslabs, or those asked for.
pub fn dump(c: &mut Ctx<'_>) -> Result<()> {
    p!(c.o, "\nMetaslabs:\n");
    let maps = c.opts.lvl('m') > 2 && !c.opts.has('L');
    let all = layout(c, maps)?;
    let only = wanted(c);
    if let Some(v) = only.first().filter(|v| !all.vdevs.contains_key(v)) {
        c.o.flush();
        eprintln!("zdb: bad vdev id: {v}");
        c.corrupt = true;
        return Ok(());
    }
    for v in all.vdevs.values().filter(|v| only.first().is_none_or(|w| *w == v.id)) {
        header(c, v)?;
        if only.len() > 1 {
            for id in only.iter().skip(1) {
                match usize::try_from(*id).ok().and_then(|i| v.metaslabs.get(i)) {
                    Some(m) => metaslab(c, v, m)?,
                    None => eprintln!("bad metaslab number {id}"),
                }
            }
        } else {
            indirect(c, v)?;
            for m in &v.metaslabs {
                metaslab(c, v, m)?;
            }
        }
        p!(c.o, "\n");
    }
    Ok(())
}

fn header(c: &mut Ctx<'_>, v: &VdevLayout) -> Result<()> {
    let bias = match v.class {
        Class::Log => "log",
        Class::Special => "special",
        Class::Dedup => "dedup",
        _ => "",
    };
    let unflushed = v.top_zap_entry(c.pool.mos(), b"com.delphix:ms_unflushed_phys_txgs")?.filter(|o| *o != 0);
    p!(c.o, "\tvdev {:10}   {bias}", v.id);
    if let Some(o) = unflushed {
        p!(c.o, "   ms_unflushed_phys object {o}");
    }
    let count = if v.is_indirect() { 0 } else { v.metaslabs.len() };
    p!(c.o, "\n\t{:<10}{count:5}   {:<19}   {:<15}   {:<12}\n", "metaslabs", "offset", "spacemap", "free");
    let d = "-".repeat(19);
    p!(c.o, "\t{:>15}   {d}   {:>15}   {:>12}\n", "---------------", "---------------", "------------");
    Ok(())
}

fn metaslab(c: &mut Ctx<'_>, v: &VdevLayout, m: &Metaslab) -> Result<()> {
    let (start, size) = v.extent(m.id);
    let alloc = m.phys.as_ref().map_or(0, |p| p.alloc);
    let free = nice(c.opts, size.saturating_add_signed(alloc.saturating_neg()));
    p!(c.o, "\tmetaslab {:6}   offset {start:12x}   spacemap {:6}   free    {free:>5}\n", m.id, m.object);
    if c.opts.lvl('m') > 2 && !c.opts.has('L') {
        segments(c, v, start, size);
    }
    let features = c.pool.features();
    if c.opts.lvl('m') > 1
        && features.is_active(Feature::SpacemapHistogram)
        && let Some(h) = m.phys.as_ref().and_then(|p| p.histogram.as_ref())
    {
        p!(c.o, "\tOn-disk histogram:\t\tfragmentation {}\n", fragmentation(h, v.config.ashift as usize));
        text::histogram(c.o, h, v.config.ashift as usize);
    }
    if m.object != 0 {
        space_map(c, m.object, v.config.ashift as u32, start)?;
    }
    if c.pool.features().is_active(Feature::LogSpacemap) {
        p!(c.o, "\tFlush data:\n\tunflushed txg={}\n\n", m.unflushed_txg);
    }
    Ok(())
}

/// How badly free space is cut up, percent: the average over the free bytes of what their segment's size costs
/// (`zfs_frag_table`: 100 for 512 bytes, 0 from 16 MiB).
fn fragmentation(histogram: &[u64], shift: usize) -> u64 {
    const COST: [u64; 21] = [100, 99, 97, 93, 88, 83, 77, 71, 64, 57, 50, 43, 36, 29, 23, 17, 12, 7, 3, 1, 0];
    let (mut total, mut cost) = (0u64, 0u64);
    for (i, n) in histogram.iter().enumerate().filter(|(_, n)| **n != 0) {
        let bits = (i + shift).min(63);
        let bytes = n.saturating_mul(1 << bits);
        let at = bits.saturating_sub(9).min(COST.len() - 1);
        total = total.saturating_add(bytes);
        cost = cost.saturating_add(bytes.saturating_mul(COST.get(at).copied().unwrap_or(0)));
    }
    cost.checked_div(total).unwrap_or(0)
}

fn segments(c: &mut Ctx<'_>, v: &VdevLayout, start: u64, size: u64) {
    let (mut at, end) = (start, start.saturating_add(size));
    let mut histogram = [0u64; 64];
    let (mut count, mut largest, mut space) = (0u64, 0u64, 0u64);
    let mut free = |from: u64, to: u64| {
        let len = to.saturating_sub(from);
        if len > 0 {
            // Smaller ones are not in the tree that is counted (`zfs_metaslab_by_size_min_shift`).
            count += u64::from(len >= 1 << 14);
            largest = largest.max(len);
            space += len;
            histogram.iter_mut().skip(len.ilog2() as usize).take(1).for_each(|n| *n += 1);
        }
    };
    v.space.allocated(|s| {
        let (from, to) = (s.offset.max(start), s.offset.saturating_add(s.size).min(end));
        if from < to {
            free(at, from);
            at = to;
        }
    });
    free(at, end);
    let pct = space.saturating_mul(100).checked_div(size).unwrap_or(0);
    let most = nice(c.opts, largest);
    p!(c.o, "\t {:>25} {count:10}   {:>7}  {most:>6}   {:>4} {pct:4}%\n", "segments", "maxsize", "freepct");
    p!(c.o, "\tIn-memory histogram:\n");
    text::histogram(c.o, &histogram, 0);
}

/// Prints a space map: its figures and, with enough verbosity, its entries.
pub fn space_map(c: &mut Ctx<'_>, object: u64, shift: u32, start: u64) -> Result<()> {
    let sm = SpaceMap::open(c.pool.mos(), object)?;
    let h = sm.phys();
    p!(c.o, "space map object {object}:\n  smp_length = 0x{:x}\n  smp_alloc = 0x{:x}\n", h.length, h.alloc);
    if c.opts.lvl('d') < 6 && c.opts.lvl('m') < 4 {
        return Ok(());
    }
    const ACTIONS: [&str; 4] = ["ALLOC", "FREE", "CONDENSE", "INVALID"];
    let (mut id, mut alloc) = (0u64, 0i64);
    sm.iterate(|e| {
        match e {
            SmEntry::Debug { txg: 0, .. } => p!(c.o, "\t    [{id:6}] PADDING\n"),
            SmEntry::Debug { action, sync_pass, txg } => {
                let what = ACTIONS.get(usize::from(action)).copied().unwrap_or("INVALID");
                p!(c.o, "\t    [{id:6}] {what}: txg {txg} pass {sync_pass}\n");
            }
            SmEntry::Segment { kind, vdev, offset, run, words } => {
                let letter = if kind == MapType::Alloc { 'A' } else { 'F' };
                let at = offset.checked_shl(shift).unwrap_or(0).wrapping_add(start);
                let len = run.checked_shl(shift).unwrap_or(0);
                let end = at.wrapping_add(len);
                let vdev = vdev.unwrap_or(NO_VDEV);
                p!(c.o, "\t    [{id:6}]    {letter}  range: {at:010x}-{end:010x}  size: {len:06x} ");
                p!(c.o, "vdev: {vdev:06} words: {words}\n");
                alloc = if letter == 'A' { alloc.wrapping_add_unsigned(len) } else { alloc.wrapping_sub_unsigned(len) };
            }
        }
        id += 1;
        Ok(())
    })?;
    if alloc != h.alloc {
        p!(c.o, "space_map_object alloc ({}) INCONSISTENT with space map summary ({alloc})\n", h.alloc);
    }
    Ok(())
}

/// Prints the logs of changes that space maps do not have yet, and how much of them is still needed.
pub fn logs(c: &mut Ctx<'_>) -> Result<()> {
    if !c.pool.features().is_active(Feature::LogSpacemap) {
        return Ok(());
    }
    let all = layout(c, false)?;
    let mut counts: std::collections::BTreeMap<u64, (u64, u64)> = std::collections::BTreeMap::new();
    let logs = all.each_log_entry(c.pool.mos(), |txg, vdev, _, offset, _| {
        let n = counts.entry(txg).or_default();
        n.0 += u64::from(all.is_unflushed(vdev, offset, txg));
        n.1 += 1;
    })?;
    p!(c.o, "\nLog Space Maps in Pool:\n");
    for (txg, object) in &logs {
        p!(c.o, "Log Spacemap object {object} txg {txg}\n");
        space_map(c, *object, 9, 0)?;
    }
    p!(c.o, "\nLog Space Map Obsolete Entry Statistics:\n");
    let mut sum = (0, 0);
    for (txg, (valid, entries)) in &counts {
        p!(c.o, "{valid:<8} valid entries out of {entries:<8} - txg {txg}\n");
        sum = (sum.0 + valid, sum.1 + entries);
    }
    if counts.is_empty() {
        p!(c.o, "{:<8} valid entries out of {:<8} - txg 0\n", 0, 0);
    }
    p!(c.o, "{:<8} valid entries out of {:<8} - total\n\n", sum.0, sum.1);
    Ok(())
}

fn indirect(c: &mut Ctx<'_>, v: &VdevLayout) -> Result<()> {
    let (Some(phys), Some(object)) = (v.mapping_phys, v.config.indirect_object) else { return Ok(()) };
    if let Some(births) = v.config.indirect_births {
        let dn = c.pool.mos().dnode(births)?;
        let count = u64_at(&dn.bonus()?, 0, dn.phys().endian).unwrap_or(0);
        p!(c.o, "indirect births obj {births}:\n    vib_count = {count}\n");
        let words = zfs_spa::check::layout::words(c.pool.mos(), births, count.saturating_mul(2))?;
        for pair in words.chunks_exact(2) {
            p!(c.o, "\toffset {:x} -> txg {}\n", pair[0], pair[1]);
        }
        p!(c.o, "\n");
    }
    p!(c.o, "indirect mapping obj {object}:\n    vim_max_offset = 0x{:x}\n", phys.max_offset);
    p!(c.o, "    vim_bytes_mapped = 0x{:x}\n    vim_count = {}\n", phys.bytes_mapped, v.mapping.len());
    if c.opts.lvl('d') <= 5 && c.opts.lvl('m') <= 3 {
        return Ok(());
    }
    let counts = match phys.counts_object {
        0 => Vec::new(),
        o => {
            let dn = c.pool.mos().dnode(o)?;
            let raw = dn.read_vec(0, v.mapping.len() * 4)?;
            raw.chunks_exact(4).map(|b| dn.phys().endian.u32([b[0], b[1], b[2], b[3]])).collect()
        }
    };
    for (i, m) in v.mapping.iter().enumerate() {
        let (len, d) = (m.dst.asize(), &m.dst);
        let gone = counts.get(i).copied().unwrap_or(0);
        p!(
            c.o,
            "\t<{:x}:{:x}:{len:x}> -> <{:x}:{:x}:{len:x}> ({gone:x} obsolete)\n",
            v.id,
            m.src,
            d.vdev(),
            d.offset()
        );
    }
    p!(c.o, "\n");
    if let Some(sm) = v.top_zap_entry(c.pool.mos(), b"com.delphix:indirect_obsolete_sm")?.filter(|o| *o != 0) {
        p!(c.o, "obsolete space map object {sm}:\n");
        space_map(c, sm, 0, 0)?;
        p!(c.o, "\n");
    }
    Ok(())
}

/// Prints the fragmentation of each vdev of the normal class (and the special one) and of the pool.
pub fn groups(c: &mut Ctx<'_>) -> Result<()> {
    let all = layout(c, false)?;
    let mut pool = vec![0u64; 64];
    let shown = |v: &&VdevLayout| {
        !v.is_indirect() && (v.class == Class::Normal || (c.opts.lvl('M') > 1 && v.class == Class::Special))
    };
    // Weighted by free space, and without metaslabs that are set aside for the intent log.
    let space = c.pool.space()?;
    let percent = |f: Option<u64>| f.map_or_else(|| "  -".to_owned(), |f| format!("{f:3}%"));
    for v in all.vdevs.values().filter(shown) {
        let mut group = vec![0u64; 64];
        let ours = v.metaslabs.iter().filter(|m| v.embedded_log != Some(m.id));
        for h in ours.filter_map(|m| m.phys.as_ref()?.histogram.as_ref()) {
            let shifted = group.iter_mut().skip(v.config.ashift as usize);
            shifted.zip(h).for_each(|(a, b)| *a += b);
        }
        let average = space.tops.iter().find(|t| t.id == v.id).and_then(|t| t.fragmentation);
        let (id, count) = (v.id, v.metaslabs.len());
        p!(c.o, "\tvdev {id:10}\t\tmetaslabs{count:5}\t\tfragmentation{}\n", percent(average));
        text::histogram(c.o, &group, 0);
        if v.class == Class::Normal {
            pool.iter_mut().zip(&group).for_each(|(a, b)| *a += b);
        }
    }
    let name = c.pool.name().clone();
    p!(c.o, "\tpool {name}\tfragmentation\t{}\n", percent(space.fragmentation));
    text::histogram(c.o, &pool, 0);
    Ok(())
}

/// Prints which vdevs the pool needs.
pub fn dtls(c: &mut Ctx<'_>) {
    p!(c.o, "\nDirty time logs:\n\n");
    let pool = c.pool.clone();
    dtl(c, pool.zio().vdevs().root(), 0, None);
}

/// Whether nothing else has what a vdev has: it is alone, or its parent needs it.
fn required(v: &Vdev, parent: Option<(&Vdev, bool)>) -> bool {
    let Some((parent, above)) = parent else { return true };
    match parent.config.kind {
        VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => {
            let others = parent.children.iter().filter(|s| s.guid() != v.guid() && s.state().is_readable());
            above && others.count() == 0
        }
        VdevKind::Raidz { nparity } | VdevKind::Draid { nparity, .. } => {
            let lost = parent.children.iter().filter(|s| !s.state().is_readable()).count() as u64;
            above && v.state().is_readable() && lost >= nparity
        }
        _ => true,
    }
}

fn dtl(c: &mut Ctx<'_>, v: &Vdev, indent: usize, parent: Option<(&Vdev, bool)>) {
    let need = required(v, parent);
    let name = match (&v.config.path, parent) {
        (Some(path), _) => path.clone(),
        (None, Some(_)) => v.config.kind.type_name().to_owned(),
        (None, None) => c.pool.name().to_string(),
    };
    p!(c.o, "\t{:indent$}{name} [DTL-{}]\n", "", if need { "required" } else { "expendable" });
    for child in &v.children {
        dtl(c, child, indent + 4, Some((v, need)));
    }
}
