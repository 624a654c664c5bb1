//! Logs that are replayed: the one that OpenZFS left in the corpus, and our own after crashes at any moment.

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
            if !model.contains_key(&fresh) {
                vfs.create(root, fresh.as_bytes(), &new_file()).unwrap();
                model.insert(fresh, Vec::new());
            }
        }
        (3..7, Some(old)) => {
            let (at, len) = (step(x) % 300_000, 1 + step(x) % if step(x) % 4 == 0 { 300_000 } else { 9000 });
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
            let judge = |when| if (round + crashes) % 6 == when { zdb_is_clean(crash.path(), disk::POOL) };
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
