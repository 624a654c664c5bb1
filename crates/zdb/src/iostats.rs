//! `zdb -s`: what zdb itself read and wrote, vdev by vdev, since the pool was opened.

use crate::ctx::{Ctx, nice};
use crate::p;
use zfs_spa::Result;
use zfs_spa::check::Class;
use zfs_spa::check::layout::{Layout, VdevLayout};
use zfs_zio::{Vdev, VdevKind};

/// Columns that a name may take, and those of the space of a vdev that has any.
const NAME: usize = 25;
const SPACE: usize = 12;

struct Row {
    /// Bytes allocated and there; inner and lower vdevs have no such figure.
    space: Option<(u64, u64)>,
    /// Reads, writes, bytes read, bytes written.
    done: [u64; 4],
    /// Errors of reading, writing, checksums.
    errors: [u64; 3],
}

/// What passed through a vdev: on inner ones the sum of the leaves below.
fn add(v: &Vdev, row: &mut Row) {
    let s = &v.stats;
    let leaf = v.children.is_empty();
    let done = [s.reads(), s.writes(), s.bytes_read(), s.bytes_written()];
    row.done.iter_mut().zip(done).filter(|_| leaf).for_each(|(sum, n)| *sum = sum.saturating_add(n));
    let errors = [s.read_errors(), s.write_errors(), s.checksum_errors()];
    row.errors.iter_mut().zip(errors).filter(|_| leaf).for_each(|(sum, n)| *sum = sum.saturating_add(n));
    v.children.iter().for_each(|c| add(c, row));
}

fn line(c: &mut Ctx<'_>, indent: usize, name: &str, suffix: &str, row: &Row, seconds: u64) {
    let n = |v: u64| nice(c.opts, v);
    let width = NAME + if row.space.is_some() { 0 } else { SPACE };
    let taken = indent + name.len();
    // A name that is too long pushes what follows as far again as it is too long: so it is printed, and read.
    let gap = width.abs_diff(taken);
    let mut text = if taken < width {
        format!("{:indent$}{name}{suffix:<gap$}", "")
    } else {
        format!("{:indent$}{name}{suffix:>gap$}", "")
    };
    if let Some((alloc, space)) = row.space {
        text.push_str(&format!("{:>6}{:>6}", n(alloc), n(space.saturating_sub(alloc))));
    }
    let rates = row.done.iter().map(|v| n(v / seconds));
    let errors = row.errors.iter().map(|v| n(*v));
    let figures: Vec<String> = rates.chain(errors).map(|v| format!("{v:>5}")).collect();
    p!(c.o, "{text} {}\n", figures.join(" "));
}

fn name_of(v: &Vdev) -> String {
    match (&v.config.path, &v.config.kind) {
        (Some(path), _) => path.clone(),
        (None, VdevKind::Raidz { nparity } | VdevKind::Draid { nparity, .. }) => {
            format!("{}{nparity}", v.config.kind.type_name())
        }
        (None, kind) => kind.type_name().to_owned(),
    }
}

fn tree(c: &mut Ctx<'_>, v: &Vdev, indent: usize, top: Option<&VdevLayout>, seconds: u64) {
    let followed = followed(c);
    let space = top.map(|v| used(v, followed)).filter(|(_, space)| *space > 0);
    let mut row = Row { space, done: [0; 4], errors: [0; 3] };
    add(v, &mut row);
    let suffix = match top.map(|t| t.class) {
        Some(Class::Log) => " (log)",
        Some(Class::Special) => " (special)",
        Some(Class::Dedup) => " (dedup)",
        _ => "",
    };
    line(c, indent, &name_of(v), suffix, &row, seconds);
    for child in &v.children {
        tree(c, child, indent + 2, None, seconds);
    }
}

/// Bytes allocated, by the headers of the space maps as everywhere in zdb, and there. Removed vdevs have their size again
/// once references to them were followed.
fn used(v: &VdevLayout, followed: bool) -> (u64, u64) {
    if v.is_indirect() {
        return (0, if followed { v.ms_count() << v.ms_shift.min(63) } else { 0 });
    }
    let alloc = v.metaslabs.iter().filter_map(|m| m.phys.as_ref()).fold(0i64, |sum, p| sum.saturating_add(p.alloc));
    let space = v.metaslabs.iter().map(|m| v.extent(m.id).1).fold(0u64, u64::saturating_add);
    (alloc.max(0).unsigned_abs(), space)
}

/// Whether a check of the space went before.
fn followed(c: &Ctx<'_>) -> bool {
    (c.opts.has('b') || c.opts.has('c')) && !c.opts.has('L')
}

/// Prints the figures.
pub fn show(c: &mut Ctx<'_>) -> Result<()> {
    let seconds = c.opened.elapsed().as_secs().max(1);
    p!(c.o, "{:28}capacity   operations   bandwidth  ---- errors ----\n", "");
    p!(c.o, "description                used avail  read write  read write  read write cksum\n");
    let pool = c.pool.clone();
    let layout = Layout::load(pool.mos(), pool.zio().vdevs(), false, &|_| {})?;
    let root = pool.zio().vdevs().root();
    let followed = followed(c);
    let counted = layout.vdevs.values().filter(|v| v.class != Class::Log).map(|v| used(v, followed));
    let all = counted.fold((0u64, 0u64), |sum, v| (sum.0.saturating_add(v.0), sum.1.saturating_add(v.1)));
    let mut sum = Row { space: Some(all), done: [0; 4], errors: [0; 3] };
    add(root, &mut sum);
    line(c, 0, pool.name(), "", &sum, seconds);
    for top in &root.children {
        tree(c, top, 2, layout.vdevs.get(&top.config.id), seconds);
    }
    Ok(())
}
