//! Looks at a pool from outside: what its datasets show, and whether its own bookkeeping is right.

use crate::live::XATTR;
use crate::model::{Seen, SeenNode, SeenTree};
use crate::{Outcome, during};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use zfs_dmu::Objset;
use zfs_dmu::traverse::{Options, traverse};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_spa::check::{CheckOptions, CheckReport, Verify};
use zfs_spa::{Dataset, Pool};
use zfs_zpl::{MountOptions, NodeId, Vfs, Zfs};

/// Reads a whole file system.
///
/// # Errors
/// What cannot be read.
pub fn tree(vfs: &Vfs) -> Outcome<SeenTree> {
    let mut out = SeenTree::new();
    below(vfs, vfs.root(), "", &mut out)?;
    Ok(out)
}

fn below(vfs: &Vfs, dir: NodeId, path: &str, out: &mut SeenTree) -> Outcome<()> {
    let mut names = Vec::new();
    vfs.readdir(dir, 0, &mut |e| {
        names.push((e.node, e.name.to_vec()));
        true
    })
    .map_err(during(format!("listing {path}")))?;
    for (_, name) in names.iter().filter(|(_, n)| n != b"." && n != b"..") {
        let text = String::from_utf8_lossy(name).into_owned();
        let path = if path.is_empty() { text } else { format!("{path}/{text}") };
        let node = vfs.lookup(dir, name, zfs_zpl::CaseMode::Dataset).map_err(during(format!("looking up {path}")))?;
        let seen = file(vfs, node).map_err(during(format!("reading {path}")))?;
        let is_dir = seen.mode >> 12 == 4;
        out.insert(path.clone(), seen);
        if is_dir {
            below(vfs, node, &path, out)?;
        }
    }
    Ok(())
}

fn file(vfs: &Vfs, node: NodeId) -> zfs_spa::Result<SeenNode> {
    let attr = vfs.getattr(node)?;
    let mut data = Vec::new();
    match attr.mode >> 12 {
        8 => {
            while (data.len() as u64) < attr.size {
                let slices = vfs.read(node, data.len() as u64, 1 << 20)?;
                let before = data.len();
                slices.iter().for_each(|s| data.extend_from_slice(s.as_slice()));
                if data.len() == before {
                    break;
                }
            }
        }
        10 => data = vfs.readlink(node)?,
        _ => {}
    }
    let has = vfs.listxattr(node, true)?.iter().any(|n| n == XATTR);
    let xattr = if has { Some(vfs.getxattr(node, XATTR, true)?) } else { None };
    Ok(SeenNode { object: node.object(), mode: attr.mode, links: attr.nlink, size: attr.size, data, xattr })
}

/// Reads all file systems and snapshots of a pool that is not written.
///
/// # Errors
/// What cannot be read.
pub fn datasets(pool: &Pool) -> Outcome<Seen> {
    let mut seen = Seen::default();
    for head in pool.dsl().and_then(|d| d.filesystems()).map_err(during("listing file systems"))? {
        let name = short(&head.name);
        seen.heads.insert(name.clone(), dataset(&head, &name)?);
        for snap in head.snapshots().map_err(during(format!("listing snapshots of '{name}'")))? {
            let name = short(&snap.name);
            seen.snaps.insert(name.clone(), dataset(&snap, &name)?);
        }
    }
    Ok(seen)
}

/// A name without the pool's.
fn short(name: &str) -> String {
    let rest = name.strip_prefix(crate::machine::POOL).unwrap_or(name);
    rest.strip_prefix('/').unwrap_or(rest).to_owned()
}

fn dataset(dataset: &Arc<Dataset>, name: &str) -> Outcome<SeenTree> {
    let objset = dataset.open_objset(None).map_err(during(format!("opening '{name}'")))?;
    let options = MountOptions { snapshot: dataset.is_snapshot(), ..MountOptions::default() };
    let zfs = Zfs::mount(objset, options).map_err(during(format!("mounting '{name}'")))?;
    tree(&Vfs::new(zfs, None)).map_err(during(format!("'{name}'")))
}

/// Files that no name leads to, in a file system whose unlinked set was drained.
///
/// # Errors
/// Their numbers.
pub fn orphans(objset: &Arc<Objset>, root: u64, seen: &SeenTree) -> Outcome<()> {
    let named: BTreeSet<u64> = seen.values().map(|n| n.object).chain([root]).collect();
    let mut object = 0;
    let wrong = during("listing objects");
    let mut lost = Vec::new();
    let mut look = || -> zfs_spa::Result<()> {
        while let Some(next) = objset.next_object(object)? {
            object = next;
            let kind = objset.dnode(object)?.phys().object_type;
            if matches!(kind, Ot::PLAIN_FILE_CONTENTS | Ot::DIRECTORY_CONTENTS) && !named.contains(&object) {
                lost.push(object);
            }
        }
        Ok(())
    };
    look().map_err(wrong)?;
    if lost.is_empty() { Ok(()) } else { Err(format!("files that no name leads to: {lost:?}")) }
}

/// Visits every block of a pool; compares allocated space with reachable space.
///
/// # Errors
/// What is wrong.
pub fn blocks(pool: &Pool, verify: Verify) -> Outcome<CheckReport> {
    let options = CheckOptions { verify, threads: 1, ..CheckOptions::default() };
    let report = zfs_spa::check::run(pool, &options, &|_| true).map_err(during("checking"))?;
    if report.is_clean() {
        return Ok(report);
    }
    Err(format!(
        "{} problems ({:?}), {} bytes leaked ({:?}), {} allocated, {} found",
        report.problem_count,
        report.problems.first(),
        report.leaked_bytes,
        report.leaks.first(),
        report.figures.allocated(),
        report.figures.found(),
    ))
}

/// Compares the sums that datasets and directories keep with what their blocks take.
///
/// # Errors
/// The first that is wrong.
pub fn sums(pool: &Pool) -> Outcome<()> {
    let dsl = pool.dsl().map_err(during("listing file systems"))?;
    for head in dsl.filesystems().map_err(during("listing file systems"))? {
        let snaps = head.snapshots().map_err(during("listing snapshots"))?;
        for dataset in snaps.iter().chain([&head]) {
            referenced(pool, dataset)?;
        }
        let p = &head.dir.phys;
        let b = p.breakdown;
        let parts = b.head + b.snap + b.child + b.child_reserved + b.ref_reserved;
        if parts != p.used_bytes {
            return Err(format!("'{}' uses {} bytes, its parts {parts}", head.name, p.used_bytes));
        }
        let mut children = 0;
        for (name, object) in head.dir.children().map_err(during("listing children"))? {
            let child = dsl.dir_by_object(object).map_err(during(format!("reading {name}")))?;
            children += child.map_or(0, |c| c.phys.used_bytes);
        }
        if children != b.child {
            return Err(format!("'{}': {} bytes in children, which use {children}", head.name, b.child));
        }
    }
    Ok(())
}

fn referenced(pool: &Pool, dataset: &Arc<Dataset>) -> Outcome<()> {
    let name = &dataset.name;
    let objset = dataset.open_objset(None).map_err(during(format!("opening '{name}'")))?;
    let (used, comp) = (AtomicU64::new(0), AtomicU64::new(0));
    let tree = pool.zio().vdevs();
    let visit = |v: &zfs_dmu::traverse::Visit<'_>| {
        let of = |d: zfs_phys::Dva| (d.asize() >> 9) * tree.top(d.vdev()).map_or(1, |t| t.deflate_ratio());
        if !v.bp.is_embedded() {
            used.fetch_add(v.bp.dvas().map(of).sum::<u64>(), Relaxed);
        }
        comp.fetch_add(v.bp.psize_on_disk(), Relaxed);
        Ok(())
    };
    let options = Options { threads: 1, zil: false, ..Options::default() };
    traverse(&objset, &options, &visit, &|_, e| Err(e)).map_err(during(format!("walking '{name}'")))?;
    let (used, comp) = (used.into_inner(), comp.into_inner());
    let p = &dataset.phys;
    if (p.referenced_bytes, p.compressed_bytes) != (used, comp) {
        return Err(format!(
            "'{name}' says it refers to {} bytes ({} compressed); its blocks take {used} ({comp})",
            p.referenced_bytes, p.compressed_bytes
        ));
    }
    Ok(())
}
