//! Every file of every pool of the corpus, seen through the `Vfs`, must be what OpenZFS showed.

mod common;

use common::manifest_of;
use common::pools::{self, CorpusPool};
use std::sync::Arc;
use uzfs_testkit::manifest::{self, Manifest};
use zfs_spa::Pool;
use zfs_spa::dsl::Dataset;
use zfs_zpl::{CaseMode, Vfs};

/// Paths of the pool `zil` that the intent log speaks of: its expectations are those after replay, which is a write.
const IN_THE_LOG: [&str; 11] = [
    "(root)",
    "a",
    "big",
    "newdir",
    "newdir/f",
    "newdir/hard",
    "newdir/sym",
    "renamed.txt",
    "sizes",
    "sizes/131073",
    "file.txt",
];

/// Whether a difference is one that replaying the intent log would take away.
fn awaits_replay(pool: &CorpusPool, difference: &str) -> bool {
    let removed = difference == "sizes/1: must not exist";
    pool.name == "zil" && (removed || IN_THE_LOG.iter().any(|p| difference.starts_with(&format!("{p}: "))))
}

/// Expected files of a dataset or snapshot.
fn expected(pool: &CorpusPool, dataset: &str) -> Option<Manifest> {
    let file = pool.dir.join("expect").join(format!("files.{}", dataset.replace('/', "%")));
    Some(manifest::parse(&std::fs::read_to_string(file).ok()?).unwrap())
}

fn compare(pool: &CorpusPool, open: &Arc<Pool>, ds: &Arc<Dataset>, failures: &mut Vec<String>) -> usize {
    let Some(want) = expected(pool, &ds.name) else { return 0 };
    let dsl = pools::dsl(open);
    let vfs = match pools::vfs_of(open, ds) {
        Ok(vfs) => vfs,
        Err(e) => {
            failures.push(format!("{}: {e}", ds.name));
            return 0;
        }
    };
    let seen = manifest_of(&vfs, vfs.root(), &pools::foreign(&dsl, ds));
    let mut differences = manifest::differences(&want, &seen, &[]);
    differences.retain(|d| !awaits_replay(pool, d));
    failures.extend(differences.iter().take(20).map(|d| format!("{}: {d}", ds.name)));
    check_handles(&vfs);
    if !ds.is_snapshot() {
        check_control(&vfs, pool, ds, failures);
    }
    seen.len()
}

/// Handles lead back to the file, and only to it.
fn check_handles(vfs: &Vfs) {
    let fid = vfs.fid(vfs.root()).unwrap();
    assert_eq!(vfs.by_fid(&fid).unwrap(), vfs.root());
    assert!(vfs.by_fid(&zfs_zpl::Fid { generation: fid.generation ^ 1, ..fid }).is_err());
    assert!(vfs.by_fid(&zfs_zpl::Fid { object: 1, ..fid }).is_err());
}

/// Snapshots below `.zfs` show the same as when they are mounted by name.
fn check_control(vfs: &Vfs, pool: &CorpusPool, ds: &Dataset, failures: &mut Vec<String>) {
    let find = |dir, name: &str| vfs.lookup(dir, name.as_bytes(), CaseMode::Dataset);
    let snapdir = find(find(vfs.root(), ".zfs").unwrap(), "snapshot").unwrap();
    for (name, node) in common::names_only(vfs, snapdir) {
        let name = String::from_utf8(name).unwrap();
        let Some(want) = expected(pool, &format!("{}@{name}", ds.name)) else { continue };
        let root = find(snapdir, &name).unwrap();
        assert!(node == root || vfs.getattr(node).is_err());
        assert_eq!(find(root, "..").unwrap(), snapdir);
        let seen = vfs.getattr(root).unwrap();
        let root_entry = &want[&Vec::new()];
        if root_entry["ino"] != seen.ino || root_entry["nlink"] != seen.nlink {
            failures.push(format!("{}@{name}: root is shown as inode {}", ds.name, seen.ino));
        }
        let fid = vfs.fid(root).unwrap();
        assert_eq!(vfs.by_fid(&fid).unwrap(), root);
    }
}

#[test]
fn corpus_is_seen_as_openzfs_saw_it() {
    let all = pools::corpus();
    if all.is_empty() {
        eprintln!("SKIPPED: no corpus (set UZFS_CORPUS)");
        return;
    }
    let only = std::env::var("UZFS_POOL").ok();
    let mut failures = Vec::new();
    for pool in all.iter().filter(|p| only.as_ref().is_none_or(|o| *o == p.name)) {
        let open = match pools::import(&pool.dir) {
            Ok(open) => open,
            Err(e) => {
                failures.push(format!("{}: {e}", pool.name));
                continue;
            }
        };
        let (before, mut files) = (failures.len(), 0);
        for ds in pools::dsl(&open).filesystems().unwrap() {
            if pools::is_filesystem(&ds) {
                files += compare(pool, &open, &ds, &mut failures);
                for snap in ds.snapshots().unwrap() {
                    files += compare(pool, &open, &snap, &mut failures);
                }
            }
        }
        let verdict = if failures.len() == before { "ok" } else { "DIFFERENT" };
        eprintln!("{:14} {files:7} files {verdict}", pool.name);
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}
