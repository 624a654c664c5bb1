//! `zdb -b` and `-c`: the check of the whole pool, printed as OpenZFS prints it.

use crate::opts::Opts;
use crate::out::Out;
use crate::{bp, p, text};
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::{BlkPtr, dnode::DnodePhys};
use zfs_spa::check::stats::{BlockStats, LEVELS, Pow2, Sums, TYPES_OLD};
use zfs_spa::check::{self, CheckOptions, CheckReport, Class, Problem, Progress, Verify};
use zfs_spa::{ErrorKind, Pool};
use zfs_zio::Zbookmark;

const ROWS: [&str; 3] = ["deferred free", "dedup ditto", "other"];

/// The number OpenZFS would give for a failure.
pub fn errno(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Checksum => libc::EBADE,
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::NoDevice => libc::ENXIO,
        ErrorKind::KeyUnavailable => libc::EACCES,
        ErrorKind::Unsupported => libc::ENOTSUP,
        _ => libc::EIO,
    }
}

struct Meter {
    started: Instant,
    last: Mutex<Instant>,
}

impl Meter {
    fn tick(&self, p: &Progress) {
        let now = Instant::now();
        {
            let mut last = self.last.lock();
            if now.duration_since(*last) < Duration::from_secs(1) {
                return;
            }
            *last = now;
        }
        let ms = u64::try_from(now.duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        let kb_per_sec = 1 + p.bytes / (1 + ms);
        let left = p.total.saturating_sub(p.bytes) / 1024 / kb_per_sec;
        eprint!(
            "\r{:>5} completed ({:4}MB/s) estimated time remaining: {}hr {:02}min {:02}sec        ",
            text::nicebytes(p.bytes, false),
            kb_per_sec / 1024,
            left / 3600,
            left / 60 % 60,
            left % 60
        );
    }
}

/// Offset within its object of what a block pointer covers.
fn offset_of(bm: &Zbookmark, bp: &BlkPtr, dnode: Option<&DnodePhys>) -> u64 {
    match dnode {
        None if bm.object == 0 => bm.blkid,
        None => bm.blkid.wrapping_mul(bp.lsize()),
        Some(d) => {
            let shift = (bm.level.max(0) as u32).saturating_mul(u32::from(d.indblkshift.saturating_sub(7)));
            bm.blkid.checked_shl(shift).unwrap_or(0).wrapping_mul(d.datablksz())
        }
    }
}

/// Runs the check and prints what it found; the result is the exit code.
pub fn run(o: &mut Out, opts: &Opts, pool: &Pool, threads: usize) -> i32 {
    let (c, leaks) = (opts.lvl('c'), !opts.has('L'));
    let verb = if c > 0 || leaks { "to verify " } else { "" };
    let meta = if c == 1 { "metadata " } else { "" };
    let sums = if c > 0 { "checksums " } else { "" };
    let and = if c > 0 && leaks { "and verify " } else { "" };
    let leak = if leaks { "nothing leaked " } else { "" };
    p!(o, "\nTraversing all blocks {verb}{meta}{sums}{and}{leak}...\n\n");
    o.flush();
    let verify = match c {
        0 => Verify::Nothing,
        1 => Verify::Metadata,
        _ => Verify::Everything,
    };
    let shared = Mutex::new(o);
    let print = |bm: Option<&Zbookmark>, b: &BlkPtr, dnode: Option<&DnodePhys>| {
        let o = &mut **shared.lock();
        match bm {
            None => p!(o, "[deferred free] {}\n", bp::long(b)),
            Some(bm) if b.birth() > 0 => {
                let at = offset_of(bm, b, dnode);
                let (objset, object, level) = (bm.objset, bm.object, bm.level);
                p!(o, "objset {objset} object {object} level {level} offset 0x{at:x} {}\n", bp::long(b));
            }
            Some(_) => {}
        }
    };
    let histograms = opts.lvl('b') >= 4;
    let on_block: Option<check::OnBlock<'_>> = if opts.lvl('b') >= 5 { Some(&print) } else { None };
    let options = CheckOptions { verify, leaks, histograms, threads, on_block };
    let meter = Meter { started: Instant::now(), last: Mutex::new(Instant::now()) };
    let quiet = opts.lvl('b') >= 5;
    let got = check::run(pool, &options, &|p| {
        if !quiet {
            meter.tick(p);
        }
        true
    });
    let o = shared.into_inner();
    match got {
        Ok(report) => print_report(o, opts, &report),
        Err(e) => {
            eprintln!("zdb: {e}");
            3
        }
    }
}

fn problems(o: &mut Out, opts: &Opts, r: &CheckReport) {
    for problem in &r.problems {
        match problem {
            Problem::Block { bookmark: b, bp: ptr, error } => {
                let text = match ptr {
                    Some(ptr) if opts.lvl('b') >= 2 => bp::long(ptr),
                    _ => String::new(),
                };
                let n = errno(error.kind());
                p!(o, "zdb_blkptr_cb: Got error {n} reading ");
                p!(o, "<{}, {}, {}, {:x}> {text} -- skipping\n", b.objset, b.object, b.level, b.blkid);
            }
            Problem::Claim { bp: ptr, segment, why, .. } => {
                p!(o, "block claim error {}: {}\n", libc::ENOENT, bp::long(ptr));
                let what = match why {
                    check::space::ClaimError::Free => "is free",
                    check::space::ClaimError::Overlap => "belongs to another block too",
                    check::space::ClaimError::Outside => "does not exist",
                };
                p!(o, "\tvdev {}, offset 0x{:x}, size {} {what}\n", segment.vdev, segment.offset, segment.size);
            }
            Problem::SpaceMap { vdev, metaslab: Some(ms), error } => {
                p!(o, "space map of vdev {vdev}, metaslab {ms}: {error}\n");
            }
            Problem::SpaceMap { vdev, metaslab: None, error } => p!(o, "space maps of vdev {vdev}: {error}\n"),
            Problem::BadEntry { segment: s, what } => {
                p!(o, "inconsistent {what} entry: vdev {}, offset 0x{:x}, size {}\n", s.vdev, s.offset, s.size);
            }
            Problem::DedupLeak { refs, bp: ptr } => p!(o, "DDT leak: refcount {refs} {}\n", bp::long(ptr)),
            Problem::CloneLeak { vdev, offset, refs } => {
                p!(o, "BRT leak: vdev {vdev}, offset 0x{offset:x}, refcount {refs}\n");
            }
            Problem::Obsolete { segment: s, difference, precise } => {
                if *precise || opts.lvl('d') >= 5 {
                    p!(o, "obsolete indirect mapping count mismatch on ");
                    p!(o, "{}:{:x}:{:x} : {difference:x} bytes leaked\n", s.vdev, s.offset, s.size);
                }
            }
            Problem::Table { what, error } => p!(o, "{what}: {error}\n"),
        }
    }
    let left = r.problem_count.saturating_sub(r.problems.len() as u64);
    if left > 0 {
        p!(o, "{left} more problems not shown\n");
    }
}

fn print_report(o: &mut Out, opts: &Opts, r: &CheckReport) -> i32 {
    problems(o, opts, r);
    if !r.errors.is_empty() {
        p!(o, "\nError counts:\n\n\t{:>5}  {}\n", "errno", "count");
        let mut by_number: Vec<(i32, u64)> = r.errors.iter().map(|(k, n)| (errno(*k), *n)).collect();
        by_number.sort_unstable();
        by_number.iter().for_each(|(e, n)| p!(o, "\t{e:5}  {n}\n"));
    }
    for s in &r.leaks {
        p!(o, "leaked space: vdev {}, offset 0x{:x}, size {}\n", s.vdev, s.offset, s.size);
    }
    let f = &r.figures;
    let (found, alloc) = (f.found(), f.allocated());
    if f.compared {
        if found == alloc {
            p!(o, "\n\tNo leaks (block sum matches space maps exactly)\n");
        } else {
            let leaked = alloc.wrapping_sub(found) as i64;
            p!(o, "block traversal size {found} != alloc {alloc} (leaked {leaked})\n");
        }
    }
    let all = r.stats.sums(None, None);
    if all.count == 0 {
        return 2;
    }
    totals(o, r, &all);
    embedded(o, opts, &r.stats);
    if all.ditto_same_vdev != 0 {
        p!(o, "\tDittoed blocks on same vdev: {}\n", all.ditto_same_vdev);
    }
    if all.ditto_same_ms != 0 {
        p!(o, "\tDittoed blocks in same metaslab: {}\n", all.ditto_same_ms);
    }
    for (id, n) in &f.indirect {
        let mem = text::nicenum(*n, opts.has('P'));
        p!(o, "\tindirect vdev id {id} has {n} segments ({mem} in memory)\n");
    }
    if opts.lvl('b') >= 2 {
        table(o, opts, &r.stats, &all);
        sizes(o, opts, &r.stats);
    }
    p!(o, "\n");
    if r.has_lost_references() {
        2
    } else if r.is_clean() {
        0
    } else {
        3
    }
}

fn totals(o: &mut Out, r: &CheckReport, all: &Sums) {
    let f = &r.figures;
    let avg = |n: u64| n / all.count;
    p!(o, "\n\t{:<16} {:14}\n", "bp count:", all.count);
    p!(o, "\t{:<16} {:14}\n", "ganged count:", all.gangs);
    p!(o, "\t{:<16} {:14}      avg: {:6}\n", "bp logical:", all.lsize, avg(all.lsize));
    for (title, size) in [("bp physical:", all.psize), ("bp allocated:", all.asize)] {
        let comp = text::ratio(all.lsize as f64, size as f64, 6);
        p!(o, "\t{title:<16} {size:14}      avg: {:6}     compression: {comp}\n", avg(size));
    }
    let dedup = f.dedup_asize as f64 / all.asize as f64 + 1.0;
    p!(o, "\t{:<16} {:14}    ref>1: {:6}   deduplication: {dedup:6.2}\n", "bp deduped:", f.dedup_asize, f.dedup_blocks);
    p!(o, "\t{:<16} {:14}    count: {:6}\n", "bp cloned:", f.clone_asize, f.clone_blocks);
    let classes = [
        (Class::Normal, "Normal class:", true),
        (Class::Special, "Special class", false),
        (Class::Dedup, "Dedup class", false),
        (Class::EmbeddedLog, "Embedded log class", true),
    ];
    for (class, title, always) in classes {
        if !always && f.class(class).is_none() {
            continue;
        }
        let c = f.class(class).unwrap_or_default();
        let used = text::ratio(100.0 * c.alloc as f64, c.space as f64, 5);
        p!(o, "\t{title:<16} {:14}     used: {used}%\n", c.alloc);
    }
}

fn embedded(o: &mut Out, opts: &Opts, s: &BlockStats) {
    for (i, n) in s.embedded.iter().enumerate().filter(|(_, n)| **n != 0) {
        p!(o, "\n\tadditional, non-pointer bps of type {i}: {n:10}\n");
        if opts.lvl('b') >= 3 {
            p!(o, "\t number of (compressed) bytes:  number of bps\n");
            if let Some(sizes) = s.embedded_sizes.get(i) {
                text::histogram(o, sizes, 0);
            }
        }
    }
}

fn row(o: &mut Out, opts: &Opts, s: &Sums, all: &Sums, title: &str) {
    let n = |v: u64| text::nicenum(v, opts.has('P'));
    let (count, l, p, a) = (n(s.count), n(s.lsize), n(s.psize), n(s.asize));
    let avg = n(s.asize.checked_div(s.count).unwrap_or(0));
    let comp = text::ratio(s.lsize as f64, s.psize as f64, 5);
    let part = text::ratio(100.0 * s.asize as f64, all.asize as f64, 6);
    p!(o, "{count:>6}\t{l:>5}\t{p:>5}\t{a:>5}\t{avg:>5}\t{comp}\t{part}\t{title}\n");
}

fn table(o: &mut Out, opts: &Opts, stats: &BlockStats, all: &Sums) {
    p!(o, "\nBlocks\tLSIZE\tPSIZE\tASIZE\t  avg\t comp\t%Total\tType\n");
    let mut metadata = Sums::default();
    for t in 0..=TYPES_OLD + ROWS.len() {
        let kind = (t < TYPES_OLD + ROWS.len()).then_some(t);
        let name = match t.checked_sub(TYPES_OLD) {
            None => DmuObjectType(t as u8).name(),
            Some(i) => ROWS.get(i).copied().unwrap_or("Total").to_owned(),
        };
        let sum = stats.sums(None, kind);
        if sum.asize == 0 {
            let d = "-";
            p!(o, "{d:>6}\t{d:>5}\t{d:>5}\t{d:>5}\t{d:>5}\t{d:>5}\t{d:>6}\t{name}\n");
            continue;
        }
        for level in (0..LEVELS).rev().map(Some).chain([None]) {
            let s = stats.sums(level, kind);
            if s.asize == 0 {
                continue;
            }
            let is_meta = level.is_some_and(|l| l > 0) || DmuObjectType(t as u8).is_metadata();
            if level.is_some() && t < TYPES_OLD && is_meta {
                metadata.add(&s);
            }
            if (opts.lvl('b') < 3 && level.is_some()) || (level == Some(0) && s.asize == sum.asize) {
                continue;
            }
            match level {
                Some(l) => row(o, opts, &s, all, &format!("    L{l} {name}")),
                None => row(o, opts, &s, all, &name),
            }
            if opts.lvl('b') >= 3 && s.gangs > 0 {
                p!(o, "\t number of ganged blocks: {}\n", text::nicenum(s.gangs, opts.has('P')));
            }
            if opts.lvl('b') >= 4 {
                p!(o, "psize (in 512-byte sectors): number of blocks\n");
                text::histogram(o, &stats.psize_histogram(level, kind), 0);
            }
        }
    }
    row(o, opts, &metadata, all, "Metadata Total");
}

fn sizes(o: &mut Out, opts: &Opts, s: &BlockStats) {
    let raw = opts.has('P');
    p!(o, "\nBlock Size Histogram\n");
    if raw {
        p!(o, "\nblock\tpsize\t\t\tlsize\t\t\t  asize\nsize\t");
        (0..3).for_each(|_| p!(o, "Count\tSize\tCum.\t"));
    } else {
        p!(o, "\n{:>7}   {:<7}              {:<7}              asize\n{:>7} ", "block", "psize", "lsize", "size");
        (0..3).for_each(|_| p!(o, "{:>7}{:>7}{:>7}", "Count", "Size", "Cum."));
    }
    p!(o, "\n");
    let columns: [&Pow2; 3] = [&s.psize, &s.lsize, &s.asize];
    let mut sums = [0u64; 3];
    for i in 9..=24usize {
        let size = text::nicenum(1 << i, raw);
        if raw {
            p!(o, "{size}");
        } else {
            p!(o, "{size:>7}:");
        }
        for (c, sum) in columns.iter().zip(&mut sums) {
            let at = |v: &[u64]| v.get(i).copied().unwrap_or(0);
            let bytes = at(&c.bytes);
            *sum += bytes;
            for v in [at(&c.count), bytes, *sum] {
                let v = text::nicenum(v, raw);
                if raw {
                    p!(o, "\t{v}");
                } else {
                    p!(o, "{v:>7}");
                }
            }
        }
        p!(o, "\n");
    }
}
