//! Logs that are replayed: the one that OpenZFS left in the corpus, and our own after crashes at any moment.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;
#[path = "common/disk.rs"]
#[allow(dead_code)]
mod disk;

use common::{manifest_of, pools};
use disk::{Disk, zdb_is_clean};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use uzfs_testkit::manifest;
use zfs_env::SystemClock;
use zfs_phys::zil::ZIL_REPLAY_NEEDED;
use zfs_spa::{ImportOptions, Search, Spa, discover, import};
use zfs_zio::ArcCache;
use zfs_zpl::write::{Writer, open_log};
use zfs_zpl::{Allocate, CaseMode, MountOptions, NewFile, RenameFlags, SetAttr, Vfs, XattrMode, Zfs};

fn open(dir: &Path) -> Arc<Spa> {
    let found = discover(&Search::Paths(vec![dir.to_owned()])).unwrap();
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(64 << 20)), None);
    (options.for_write, options.skip_host_checks) = (true, true);
    let pool = import(&found.pools[0], &options).unwrap_or_else(|e| panic!("{e} ({:?})", e.problem));
    Spa::open(&pool, 0x1234, Arc::new(SystemClock)).unwrap()
}

fn mount(spa: &Arc<Spa>) -> Vfs {
    let head = spa.dsl().find("").unwrap().unwrap();
    let objset = spa.dsl().open_objset(&head).unwrap();
    let log = open_log(&objset, spa.txgs()).unwrap();
    let writer = Writer::new(spa.txgs().clone(), Arc::new(SystemClock)).with_log(log);
    let zfs = Zfs::mount_writable(objset, MountOptions::default(), writer).unwrap();
    zfs.drain_unlinked().unwrap();
    Vfs::new(zfs, None)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn the_log_that_openzfs_left_is_replayed() {
    let Some(pool) = pools::corpus().into_iter().find(|p| p.name == "zil") else {
        eprintln!("SKIPPED: no corpus (set UZFS_CORPUS)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    copy(&pool.dir, dir.path());
    // The import claims the log; a crash before anybody mounts leaves it claimed.
    let spa = open(dir.path());
    let head = spa.dsl().find("").unwrap().unwrap();
    let header = spa.dsl().open_objset(&head).unwrap().phys().zil_header;
    assert!(header.claim_txg != 0 && header.flags & ZIL_REPLAY_NEEDED != 0);
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    drop(spa);
    zdb_is_clean(crashed.path(), "zil");
    let spa = open(crashed.path());
    let vfs = mount(&spa);
    let volume = spa.dsl().find("v").unwrap().unwrap();
    let volume = spa.dsl().open_objset(&volume).unwrap();
    assert!(volume.phys().zil_header.claim_txg != 0 || volume.phys().zil_header.log.is_hole());
    let want = manifest::parse(&std::fs::read_to_string(pool.dir.join("expect/files.zil")).unwrap()).unwrap();
    let seen = manifest_of(&vfs, vfs.root(), &["v".to_owned()]);
    let differences = manifest::differences(&want, &seen, &["mtime_ns"]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    drop(vfs);
    spa.close(false).unwrap();
    zdb_is_clean(crashed.path(), "zil");
}

/// One change of every kind that has a record, and some that have none.
fn every_change(vfs: &Vfs) {
    let root = vfs.root();
    let make = |dir, name: &str, mode: u32, target: &str| {
        vfs.create(dir, name.as_bytes(), &NewFile { mode, target: target.as_bytes(), ..new_file() }).unwrap()
    };
    let dir = make(root, "dir", 0o042_755, "");
    let inside = make(dir, "inside", 0o100_600, "");
    make(dir, "link", 0o120_777, "inside");
    make(root, "fifo", 0o010_644, "");
    vfs.create(root, b"device", &NewFile { mode: 0o020_640, rdev: (7, 9), ..NewFile::default() }).unwrap();
    vfs.write(inside, 0, &[7; 5000], false, true).unwrap();
    vfs.write(inside, 200_000, &[8; 300_000], false, true).unwrap();
    vfs.allocate(inside, 1000, 100, Allocate::PunchHole).unwrap();
    vfs.allocate(inside, 600_000, 100, Allocate::Extend).unwrap();
    vfs.link(inside, root, b"hard").unwrap();
    let set = SetAttr { mode: Some(0o4750), uid: Some(77), gid: Some(88), ..SetAttr::default() };
    vfs.setattr(inside, &set).unwrap();
    let time = zfs_zpl::Time { sec: 1000, nsec: 5 };
    let set = SetAttr { atime: Some(time), mtime: Some(time), ..SetAttr::default() };
    vfs.setattr(make(root, "old", 0o100_644, ""), &set).unwrap();
    let flags = zfs_phys::znode::ZFS_NODUMP;
    vfs.setattr(make(root, "flags", 0o100_644, ""), &SetAttr { flags: Some((flags, 0)), ..SetAttr::default() })
        .unwrap();
    let attributes = make(root, "attributes", 0o100_644, "");
    let xattr = |name: &str, value: Option<&[u8]>| {
        vfs.setxattr(attributes, name.as_bytes(), value, XattrMode::Any, true).unwrap();
    };
    xattr("user.small", Some(b"value"));
    xattr("user.gone", Some(b"value"));
    xattr("user.gone", None);
    xattr("user.large", Some(&[5; 60_000]));
    xattr("user.shrinks", Some(&[6; 50_000]));
    xattr("user.shrinks", Some(b"small"));
    for (name, other) in [("a", "b"), ("c", "d")] {
        vfs.write(make(root, name, 0o100_644, ""), 0, name.as_bytes(), false, true).unwrap();
        vfs.write(make(root, other, 0o100_644, ""), 0, other.as_bytes(), false, true).unwrap();
    }
    vfs.rename(root, b"a", root, b"b", RenameFlags::Exchange).unwrap();
    vfs.rename(root, b"c", dir, b"d", RenameFlags::Replace).unwrap();
    vfs.rename(dir, b"d", root, b"d", RenameFlags::Replace).unwrap();
    vfs.rename(root, b"old", dir, b"white", RenameFlags::Whiteout { uid: 3, gid: 4 }).unwrap();
    make(root, "empty", 0o040_755, "");
    vfs.remove(root, b"empty", true).unwrap();
    make(root, "removed", 0o100_644, "");
    vfs.remove(root, b"removed", false).unwrap();
    let unnamed = vfs.create_unnamed(root, &new_file()).unwrap();
    vfs.hold(unnamed);
    vfs.write(unnamed, 0, b"late", false, true).unwrap();
    vfs.link(unnamed, root, b"late").unwrap();
    vfs.release(unnamed).unwrap();
}

/// A crash leaves what every kind of change made, with the numbers the files had.
#[test]
fn every_kind_of_change_is_replayed() {
    let disk = Disk::new(256, Arc::new(SystemClock));
    let crash = tempfile::tempdir().unwrap();
    let spa = open(disk.path());
    let vfs = mount(&spa);
    // The log is there before, so that what follows is in it and in no txg.
    vfs.create(vfs.root(), b"first", &new_file()).unwrap();
    vfs.sync_all().unwrap();
    spa.txgs().wait_synced(0).unwrap();
    every_change(&vfs);
    // What has no record made a txg wait; these have.
    every_change_again(&vfs);
    let synced = spa.txgs().synced_txg();
    vfs.sync_all().unwrap();
    assert_eq!(spa.txgs().synced_txg(), synced, "a commit waited for a txg");
    copy(disk.path(), crash.path());
    let want = manifest_of(&vfs, vfs.root(), &[]);
    let other = open(crash.path());
    let again = mount(&other);
    let seen = manifest_of(&again, again.root(), &[]);
    let differences = manifest::differences(&want, &seen, &["mtime_ns"]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(want.len(), seen.len());
    drop(again);
    other.close(false).unwrap();
    zdb_is_clean(crash.path(), disk::POOL);
    drop(vfs);
    spa.close(false).unwrap();
}

/// The same below another directory, without what has to wait for a txg.
fn every_change_again(vfs: &Vfs) {
    let root = vfs.root();
    let new = |mode| NewFile { mode, ..new_file() };
    let top = vfs.create(root, b"again", &new(0o040_700)).unwrap();
    for n in 0..20u8 {
        let name = format!("f{n}");
        let file = vfs.create(top, name.as_bytes(), &new(0o100_644)).unwrap();
        vfs.write(file, u64::from(n) * 1000, &[n; 40_000], false, true).unwrap();
        let value = vec![n; if n % 3 == 0 { 40_000 } else { 40 }];
        vfs.setxattr(file, b"user.a", Some(&value), XattrMode::Any, true).unwrap();
        match n % 4 {
            0 => vfs.remove(top, name.as_bytes(), false).unwrap(),
            1 => vfs.rename(top, name.as_bytes(), top, b"target", RenameFlags::Replace).unwrap(),
            2 => vfs.setattr(file, &SetAttr { size: Some(12_345), ..SetAttr::default() }).unwrap(),
            _ => vfs.link(file, top, format!("l{n}").as_bytes()).unwrap(),
        }
    }
}

/// What the files of a model hold, by name.
type Model = BTreeMap<String, Vec<u8>>;

fn step(x: &mut u64) -> u64 {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    *x
}

fn new_file() -> NewFile<'static> {
    NewFile { mode: 0o100_644, uid: 7, gid: 8, ..NewFile::default() }
}

/// Makes one change at random, in the pool and in the model; gives the file that was changed.
fn change(vfs: &Vfs, model: &mut Model, x: &mut u64) {
    let root = vfs.root();
    let find = |name: &str| vfs.lookup(root, name.as_bytes(), CaseMode::Dataset).unwrap();
    let fresh = format!("f{}", step(x) % 40);
    let names: Vec<String> = model.keys().cloned().collect();
    let old = names.get(step(x) as usize % names.len().max(1)).cloned();
    match (step(x) % 12, old) {
        (0..3, _) | (_, None) => {
            model.entry(fresh).or_insert_with_key(|fresh| {
                vfs.create(root, fresh.as_bytes(), &new_file()).unwrap();
                Vec::new()
            });
        }
        (3..7, Some(old)) => {
            let (at, len) = (step(x) % 300_000, 1 + step(x) % if step(x).is_multiple_of(4) { 300_000 } else { 9000 });
            let bytes: Vec<u8> = (0..len).map(|k| (k * 7 + *x) as u8).collect();
            vfs.write(find(&old), at, &bytes, false, true).unwrap();
            let file = model.get_mut(&old).unwrap();
            file.resize(file.len().max((at + len) as usize), 0);
            file[at as usize..(at + len) as usize].copy_from_slice(&bytes);
        }
        (7, Some(old)) => {
            vfs.remove(root, old.as_bytes(), false).unwrap();
            model.remove(&old);
        }
        (8, Some(old)) => {
            vfs.rename(root, old.as_bytes(), root, fresh.as_bytes(), RenameFlags::Replace).unwrap();
            let bytes = model.remove(&old).unwrap();
            model.insert(fresh, bytes);
        }
        (9, Some(old)) => {
            let size = step(x) % 200_000;
            vfs.setattr(find(&old), &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
            model.get_mut(&old).unwrap().resize(size as usize, 0);
        }
        (10, Some(old)) => {
            let (at, len) = (step(x) % 100_000, 1 + step(x) % 100_000);
            vfs.allocate(find(&old), at, len, Allocate::PunchHole).unwrap();
            let file = model.get_mut(&old).unwrap();
            let (from, to) = (file.len().min(at as usize), file.len().min((at + len) as usize));
            file[from..to].fill(0);
        }
        (_, Some(old)) => {
            vfs.setxattr(find(&old), b"user.a", Some(old.as_bytes()), XattrMode::Any, true).unwrap();
        }
    }
}

fn contents(vfs: &Vfs) -> Model {
    let mut out = Model::new();
    for (name, node) in common::names_only(vfs, vfs.root()) {
        let size = vfs.getattr(node).unwrap().size as usize;
        let mut bytes = Vec::new();
        vfs.read(node, 0, size).unwrap().iter().for_each(|s| bytes.extend_from_slice(s));
        out.insert(String::from_utf8(name).unwrap(), bytes);
    }
    out
}

/// Crashes are copies of the image files while everything goes on: what was acknowledged is in them.
#[test]
fn what_was_made_durable_survives_crashes_at_any_moment() {
    let disk = Disk::new(256, Arc::new(SystemClock));
    let crash = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let mut x = 0x1234_5678_9abc_def1;
    for round in 0..3 {
        let spa = open(disk.path());
        let vfs = mount(&spa);
        assert!(contents(&vfs) == model, "round {round}: after an export");
        for crashes in 0..4 {
            for _ in 0..40 {
                change(&vfs, &mut model, &mut x);
                match step(&mut x) % 30 {
                    0 => spa.txgs().wait_synced(0).unwrap(),
                    1..8 => vfs.sync_all().unwrap(),
                    _ => {}
                }
            }
            vfs.sync_all().unwrap();
            copy(disk.path(), crash.path());
            // The log as it was left, as it was claimed, and gone: each is judged now and then, for it takes long.
            let judge = |when| {
                if (round + crashes) % 6 == when {
                    zdb_is_clean(crash.path(), disk::POOL)
                }
            };
            judge(0);
            let other = open(crash.path());
            judge(1);
            let seen = mount(&other);
            let found = contents(&seen);
            for (name, bytes) in &model {
                assert!(found.get(name) == Some(bytes), "round {round}: {name} ({} bytes) differs", bytes.len());
            }
            assert_eq!(found.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
            drop(seen);
            other.close(false).unwrap();
            judge(2);
        }
        drop(vfs);
        spa.close(false).unwrap();
        zdb_is_clean(disk.path(), disk::POOL);
    }
}
