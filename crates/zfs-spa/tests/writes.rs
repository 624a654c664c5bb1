//! Pools that OpenZFS made, written by this software and judged by OpenZFS's own `zdb`.

mod common;
#[path = "writes/livelists.rs"]
mod livelists;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use zfs_dmu::{ObjectSpec, Zap};
use zfs_env::{FileDevice, SystemClock};
use zfs_phys::enums::{DmuObjectType, ObjsetType};
use zfs_phys::feature::{FEATURES, Feature};
use zfs_spa::dslw::NewObjset;
use zfs_spa::{CreateOptions, NewVdev, Pool, Spa, create, discover, import};
use zfs_zio::alloc::Class;
use zfs_zio::arc::ArcCache;

/// A copy of a corpus pool's devices in a folder that goes away.
fn copy_of(name: &str) -> Option<tempfile::TempDir> {
    let corpus = common::corpus()?;
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if file.starts_with('d') && path.is_file() {
            let status = Command::new("cp").arg("--sparse=always").arg(&path).arg(dir.path().join(file)).status();
            assert!(status.unwrap().success());
        }
    }
    Some(dir)
}

fn find(dir: &Path, name: &str) -> zfs_spa::PoolCandidate {
    let found = discover(&zfs_spa::Search::Paths(vec![PathBuf::from(dir)])).unwrap();
    found.pools.into_iter().find(|p| p.name == name).unwrap()
}

fn import_writable(dir: &Path, name: &str) -> Arc<Pool> {
    let mut options = common::options();
    options.for_write = true;
    import(&find(dir, name), &options).unwrap_or_else(|e| panic!("{name}: {e} ({:?})", e.problem))
}

fn open(dir: &Path, name: &str) -> Arc<Spa> {
    let pool = import_writable(dir, name);
    Spa::open(&pool, 0x1234, Arc::new(SystemClock)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What `zdb` says of a pool that is not imported; fails the test when it finds anything wrong. Nothing where there is
/// no `zdb`.
fn zdb(dir: &Path, name: &str, flags: &[&str]) -> Option<String> {
    let out = Command::new("zdb").arg("-e").arg("-p").arg(dir).arg(name).args(flags).output();
    let Ok(out) = out else {
        eprintln!("SKIPPED: no zdb");
        return None;
    };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    let bad = ["leaked", "mismatch", "!=", "error", "failed", "ASSERT"];
    // Names of what is examined.
    let fine = ["verify nothing leaked", "error log"];
    let wrong = |l: &&str| bad.iter().any(|b| l.contains(b)) && !fine.iter().any(|f| l.contains(f));
    let found: Vec<&str> = text.lines().filter(wrong).collect();
    assert!(out.status.success(), "zdb {flags:?}: {:?}\n{errors}\n{text}", out.status);
    assert_eq!(found, Vec::<&str>::new(), "zdb {flags:?}\n{errors}");
    Some(text)
}

/// Everything readable, nothing leaked, by this software's own check.
fn check(dir: &Path, name: &str) {
    let pool = import(&find(dir, name), &common::options()).unwrap();
    pool.verify_metadata().unwrap();
}

/// Imports, lets a few txgs pass, exports; returns the last txg.
fn pass_txgs(dir: &Path, name: &str, count: u32) -> u64 {
    let spa = open(dir, name);
    for n in 0..count {
        spa.sync_task("test", move |ctx| ctx.log("test", &format!("number {n}"))).unwrap();
    }
    spa.close(false).unwrap();
    spa.uberblock().txg
}

#[test]
fn txgs_of_a_pool_of_openzfs() {
    let Some(dir) = copy_of("basic") else { return };
    let before = find(dir.path(), "basic").best_uberblock().unwrap().txg;
    let after = pass_txgs(dir.path(), "basic", 5);
    assert!(after >= before + 6, "{before} {after}");
    check(dir.path(), "basic");
    zdb(dir.path(), "basic", &["-bbcc"]);
    zdb(dir.path(), "basic", &["-mmm"]);
    let history = import(&find(dir.path(), "basic"), &common::options()).unwrap().history().unwrap();
    let text = history.records.last().unwrap().str("history internal str").map(str::to_owned);
    assert_eq!(text.as_deref(), Some("number 4"));
    // And once more, on what was written here.
    pass_txgs(dir.path(), "basic", 3);
    zdb(dir.path(), "basic", &["-bbcc"]);
}

/// Pools that are refused, with a word of the reason.
const REFUSED: [(&str, &str); 4] =
    [("dedup", "dedup"), ("legacydedup", "dedup"), ("reflink", "cloned"), ("streams", "")];

/// Every pool is either written so that `zdb` finds nothing wrong, or refused by name.
#[test]
fn every_pool_is_written_or_refused() {
    let Some(corpus) = common::corpus() else { return };
    let only = std::env::var("UZFS_POOL").ok();
    let damaged = ["rotten", "rottenz", "lostdisk"];
    for name in common::pools(&corpus).iter().filter(|n| only.as_ref().is_none_or(|o| o == *n)) {
        if damaged.contains(&name.as_str()) {
            continue;
        }
        let dir = copy_of(name).unwrap();
        let pool = import_writable(dir.path(), name);
        match Spa::open(&pool, 0x1234, Arc::new(SystemClock)) {
            Ok(spa) => {
                for _ in 0..2 {
                    spa.sync_task("test", |ctx| ctx.log("test", "another txg")).unwrap();
                }
                spa.close(false).unwrap();
            }
            Err(e) => {
                let reason = REFUSED.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}: {e}"));
                assert!(e.to_string().contains(reason.1), "{name}: {e}");
                eprintln!("{name} is refused: {e}");
                continue;
            }
        }
        drop(pool);
        check(dir.path(), name);
        zdb(dir.path(), name, &["-bbcc"]);
        eprintln!("{name} is clean");
    }
}

/// Frees all files of a pool's first file system.
fn empty(spa: &Spa) {
    let head = spa.dsl().find("").unwrap().unwrap();
    let objset = spa.dsl().open_objset(&head).unwrap();
    let mut freed = 0;
    let mut at = 0;
    while let Some(object) = objset.next_object(at).unwrap() {
        at = object;
        let dnode = objset.dnode(object).unwrap();
        if dnode.phys().object_type == DmuObjectType::PLAIN_FILE_CONTENTS {
            let tx = spa.txgs().assign().unwrap();
            dnode.free_range(&tx, 0, u64::MAX).unwrap();
            freed += 1;
        }
    }
    spa.txgs().wait_synced(0).unwrap();
    assert!(freed > 0);
}

/// What lay on a removed device is freed where it is now, and noted as obsolete where it was.
#[test]
fn blocks_of_a_removed_device_are_freed() {
    let Some(dir) = copy_of("removed") else { return };
    let spa = open(dir.path(), "removed");
    let before = spa.view().unwrap().space().unwrap().alloc;
    empty(&spa);
    for n in 0..4 {
        spa.sync_task("test", move |ctx| ctx.log("test", &format!("number {n}"))).unwrap();
    }
    let after = spa.view().unwrap().space().unwrap().alloc;
    assert!(after + (3 << 20) < before, "{before} {after}");
    scrub(&spa);
    spa.close(false).unwrap();
    drop(spa);
    check(dir.path(), "removed");
    let text = zdb(dir.path(), "removed", &["-bbcc"]);
    assert!(text.is_none_or(|t| t.contains("indirect vdev id")), "the counts were compared");
    // The next import goes on from what was noted.
    let spa = open(dir.path(), "removed");
    spa.sync_task("test", |ctx| ctx.log("test", "again")).unwrap();
    spa.close(false).unwrap();
    zdb(dir.path(), "removed", &["-bbcc"]);
    keep(dir.path(), "removed");
}

/// A mirror of the device that is left gets what was on the removed one too.
#[test]
fn resilvering_goes_through_mappings() {
    let Some(dir) = copy_of("removed") else { return };
    let spa = open(dir.path(), "removed");
    let old = spa.zio().vdevs().leaves()[0].guid();
    spa.attach(old, &image(dir.path(), "new", 256), false, None).unwrap();
    spa.wait_scan();
    spa.detach(old).unwrap();
    spa.close(false).unwrap();
    drop(spa);
    for gone in ["d0", "d1"] {
        std::fs::remove_file(dir.path().join(gone)).unwrap();
    }
    check(dir.path(), "removed");
    zdb(dir.path(), "removed", &["-bbcc"]);
}

/// A checkpoint keeps what was there when it was made, whatever is freed after it.
#[test]
fn a_checkpoint_outlives_what_is_freed() {
    let Some(dir) = copy_of("checkpoint") else { return };
    let spa = open(dir.path(), "checkpoint");
    let before = spa.view().unwrap().space().unwrap();
    empty(&spa);
    let after = spa.view().unwrap().space().unwrap();
    assert!(after.checkpoint > before.checkpoint, "{} {}", before.checkpoint, after.checkpoint);
    let disk = image(dir.path(), "new", 64);
    let leaf = spa.zio().vdevs().leaves()[0].guid();
    let refused = spa.attach(leaf, &disk, false, None).unwrap_err();
    assert!(refused.to_string().contains("checkpoint exists"), "{refused}");
    std::fs::remove_file(dir.path().join("new")).unwrap();
    for n in 0..4 {
        spa.sync_task("test", move |ctx| ctx.log("test", &format!("number {n}"))).unwrap();
    }
    spa.close(false).unwrap();
    check(dir.path(), "checkpoint");
    zdb(dir.path(), "checkpoint", &["-bbcc"]);
    zdb(dir.path(), "checkpoint", &["-k", "-bbcc"]);
    let mut options = common::options();
    options.rewind = zfs_spa::Rewind::Checkpoint;
    import(&find(dir.path(), "checkpoint"), &options).unwrap().verify_metadata().unwrap();
    keep(dir.path(), "checkpoint");
}

/// Pools are written while a device is away, and know what it lacks when it is back.
#[test]
fn a_missing_device_is_remembered() {
    for (name, away) in [("m3", "d1"), ("z1x3", "d2")] {
        let Some(dir) = copy_of(name) else { return };
        let aside = tempfile::tempdir().unwrap();
        std::fs::rename(dir.path().join(away), aside.path().join(away)).unwrap();
        pass_txgs(dir.path(), name, 3);
        check(dir.path(), name);
        zdb(dir.path(), name, &["-bbcc"]);
        assert!(Command::new("cp").arg(aside.path().join(away)).arg(dir.path()).status().unwrap().success());
        let pool = import(&find(dir.path(), name), &common::options()).unwrap();
        let lacking: Vec<_> = pool.zio().vdevs().leaves().iter().map(|l| l.dtl()).filter(|d| !d.is_empty()).collect();
        assert_eq!(lacking.len(), 1, "{name}: {lacking:?}");
        assert!(lacking[0].iter().any(|r| r.end > pool.uberblock().txg), "{lacking:?}");
        drop(pool);
        zdb(dir.path(), name, &["-bbcc"]);
        eprintln!("{name} is clean");
    }
}

/// A vdev over a new image file.
fn image(dir: &Path, name: &str, mib: u64) -> NewVdev {
    let path = dir.join(name);
    let device = Arc::new(FileDevice::create(&path, mib << 20).unwrap());
    NewVdev::Leaf { path: path.to_string_lossy().into_owned(), device, disk: false }
}

/// `count` of them.
fn images(dir: &Path, name: &str, mib: u64, count: usize) -> Vec<NewVdev> {
    (0..count).map(|i| image(dir, &format!("{name}{i}"), mib)).collect()
}

fn create_pool(vdevs: Vec<(Class, NewVdev)>) {
    create_with(CreateOptions::new("fresh", vdevs, Arc::new(ArcCache::new(64 << 20))));
}

fn create_with(mut options: CreateOptions) {
    options.command = Some("zpool create fresh".into());
    let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
        let master = Zap::claim(objset, tx, 1, DmuObjectType::MASTER_NODE)?;
        master.add(tx, b"VERSION", &[5])?;
        objset.allocate(tx, &ObjectSpec::default())?;
        Ok(())
    };
    create(&options, &mut init).unwrap();
}

type Layout = (&'static str, fn(&Path) -> Vec<(Class, NewVdev)>);

#[test]
fn fresh_pools_are_clean() {
    let layouts: [Layout; 5] = [
        ("single", |d| vec![(Class::Normal, image(d, "d0", 64))]),
        ("stripe", |d| vec![(Class::Normal, image(d, "d0", 64)), (Class::Normal, image(d, "d1", 80))]),
        ("mirror", |d| vec![(Class::Normal, NewVdev::Mirror(images(d, "d", 64, 2)))]),
        ("raidz2", |d| vec![(Class::Normal, NewVdev::Raidz { nparity: 2, children: images(d, "d", 64, 5) })]),
        ("classes", |d| {
            let data = (Class::Normal, NewVdev::Raidz { nparity: 1, children: images(d, "d", 64, 3) });
            vec![data, (Class::Special, NewVdev::Mirror(images(d, "s", 64, 2))), (Class::Log, image(d, "l", 64))]
        }),
    ];
    for (layout, vdevs) in layouts {
        let dir = tempfile::tempdir().unwrap();
        create_pool(vdevs(dir.path()));
        check(dir.path(), "fresh");
        zdb(dir.path(), "fresh", &["-bbcc"]);
        zdb(dir.path(), "fresh", &["-mmm"]);
        pass_txgs(dir.path(), "fresh", 3);
        check(dir.path(), "fresh");
        zdb(dir.path(), "fresh", &["-bbcc"]);
        keep(dir.path(), layout);
        eprintln!("{layout} is clean");
    }
}

/// Space maps do not grow without bound.
#[test]
fn long_space_maps_are_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let vdevs = vec![(Class::Normal, image(dir.path(), "d0", 64))];
    let mut options = CreateOptions::new("fresh", vdevs, Arc::new(ArcCache::new(64 << 20)));
    // Without log space maps, space maps have small blocks, and are long soon.
    let all = FEATURES.iter().map(|f| f.feature).filter(|f| *f != Feature::LogSpacemap && !newer(*f)).collect();
    options.features = Some(all);
    create_with(options);
    for _ in 0..2 {
        let spa = open(dir.path(), "fresh");
        for n in 0..150 {
            spa.sync_task("test", move |ctx| ctx.log("test", &format!("txg {n}"))).unwrap();
        }
        spa.close(false).unwrap();
    }
    check(dir.path(), "fresh");
    zdb(dir.path(), "fresh", &["-bbcc"]);
    let pool = import(&find(dir.path(), "fresh"), &common::options()).unwrap();
    let space = pool.space().unwrap();
    let maps = space.tops[0].metaslabs.iter().filter(|m| m.object != 0);
    let lengths: Vec<u64> =
        maps.map(|m| zfs_dmu::spacemap::SpaceMap::open(pool.mos(), m.object).unwrap().phys().length).collect();
    assert!(lengths.iter().all(|l| *l < 24 << 10), "{lengths:?}");
    assert!(lengths.iter().any(|l| *l > 1 << 10), "{lengths:?}");
}

fn newer(feature: Feature) -> bool {
    matches!(
        feature,
        Feature::DynamicGangHeader
            | Feature::BlockCloningEndian
            | Feature::PhysicalRewrite
            | Feature::DraidFailureDomains
    )
}

/// Datasets come, get snapshots, and go.
#[test]
fn datasets_of_a_pool_of_openzfs() {
    let Some(dir) = copy_of("basic") else { return };
    let spa = open(dir.path(), "basic");
    let create = |path: &'static str| {
        spa.sync_task("create", move |ctx| {
            let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
                let spec = ObjectSpec { object_type: DmuObjectType::PLAIN_FILE_CONTENTS, ..ObjectSpec::default() };
                let file = objset.allocate(tx, &ObjectSpec { block_size: 128 << 10, ..spec })?;
                let noise: Vec<u8> = (0u32..3 << 20).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
                file.write_at(tx, 0, &noise[..3 << 20])
            };
            let new = NewObjset { kind: ObjsetType::Other, flags: 0, init: &mut init };
            ctx.dsl().create(ctx.tx, path, new).map(|_| ())
        })
    };
    create("one").unwrap();
    create("one/two").unwrap();
    assert!(create("one/two").is_err());
    for name in ["a", "b"] {
        spa.sync_task("snapshot", move |ctx| {
            let head = ctx.dsl().find("one")?.unwrap();
            ctx.dsl().snapshot(ctx.tx, &head, name, 1_700_000_000).map(|_| ())
        })
        .unwrap();
    }
    spa.sync_task("clone", |ctx| ctx.dsl().clone_of(ctx.tx, "copy", "one@a").map(|_| ())).unwrap();
    // Change what snapshots hold.
    let head = spa.dsl().find("one").unwrap().unwrap();
    let objset = spa.dsl().open_objset(&head).unwrap();
    for round in 0u8..4 {
        let tx = spa.txgs().assign().unwrap();
        let file = objset.dnode(objset.next_object(0).unwrap().unwrap()).unwrap();
        file.write_at(&tx, 512 << 10, &vec![round + 1; 1 << 20]).unwrap();
        drop(tx);
        spa.txgs().wait_synced(0).unwrap();
    }
    spa.sync_task("destroy", |ctx| {
        let snap = ctx.dsl().find("one@b")?.unwrap();
        ctx.dsl().destroy_snapshot(ctx.tx, &snap, "b", false)
    })
    .unwrap();
    spa.sync_task("destroy", |ctx| {
        let head = ctx.dsl().find("one/two")?.unwrap();
        ctx.dsl().destroy_head(ctx.tx, &head, "one/two")
    })
    .unwrap();
    drop(objset);
    for _ in 0..3 {
        spa.sync_task("more", |ctx| ctx.log("test", "one more")).unwrap();
    }
    roll_back(&spa);
    let names: Vec<String> =
        spa.view().unwrap().dsl().unwrap().filesystems().unwrap().iter().map(|d| d.name.clone()).collect();
    assert!(names.iter().any(|n| n == "basic/one") && names.iter().any(|n| n == "basic/copy"), "{names:?}");
    spa.close(false).unwrap();
    check(dir.path(), "basic");
    zdb(dir.path(), "basic", &["-bbcc"]);
    zdb(dir.path(), "basic", &["-dd"]);
    keep(dir.path(), "basic");
}

/// Rolls a file system back; the history says so in OpenZFS's words.
fn roll_back(spa: &Spa) {
    let before = spa.dsl().find("one").unwrap().unwrap().phys().prev_snap_txg;
    spa.sync_task("rollback", |ctx| ctx.dsl().rollback(ctx.tx, &ctx.dsl().find("one")?.unwrap())).unwrap();
    let told: Vec<(String, String, String)> = spa
        .view()
        .unwrap()
        .history()
        .unwrap()
        .records
        .iter()
        .rev()
        .take(2)
        .map(|r| {
            let text = |name: &str| r.str(name).unwrap_or_default().to_owned();
            (text("internal_name"), text("dsname"), text("history internal str"))
        })
        .collect();
    let of = |event: &str, what: String| (event.to_owned(), "basic/one/%rollback".to_owned(), what);
    let wanted = [of("destroy", format!("(bptree, mintxg={before})")), of("clone swap", "parent=one".into())];
    assert_eq!(told, wanted);
}

/// Leaves a pool for later examination where `UZFS_KEEP` says.
fn keep(dir: &Path, name: &str) {
    let Some(to) = std::env::var_os("UZFS_KEEP").map(|k| PathBuf::from(k).join(name)) else { return };
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let status = Command::new("cp").arg("--sparse=always").arg(entry.unwrap().path()).arg(&to).status();
        assert!(status.unwrap().success());
    }
}

/// Log space maps of a pool, and the bytes its top-level vdevs have allocated.
fn logs_of(dir: &Path, name: &str) -> (u64, u64) {
    let pool = import(&find(dir, name), &common::options()).unwrap();
    let table = pool.directory().lookup_u64(b"com.delphix:log_spacemap_zap").unwrap();
    let logs = table.map_or(0, |t| Zap::open(pool.mos(), t).unwrap().count());
    assert_eq!(pool.features().is_active(Feature::LogSpacemap), table.is_some());
    (logs, pool.space().unwrap().alloc)
}

/// Changes of space go to logs, which a crash leaves and the next import continues; an export flushes them.
#[test]
fn logs_of_space_maps() {
    let dir = tempfile::tempdir().unwrap();
    let vdevs = vec![(Class::Normal, image(dir.path(), "d0", 512)), (Class::Normal, image(dir.path(), "d1", 512))];
    create_pool(vdevs);
    let spa = open(dir.path(), "fresh");
    for n in 0..12 {
        spa.sync_task("test", move |ctx| ctx.log("test", &format!("txg {n}"))).unwrap();
    }
    // What is in memory says the same as what was written.
    let seen = spa.view().unwrap().space().unwrap();
    let crashed = as_it_is(&spa, dir.path());
    let read = import(&find(crashed.path(), "fresh"), &common::options()).unwrap().space().unwrap();
    assert_eq!(*seen, *read);
    spa.close(false).unwrap();
    let (exported, _) = logs_of(dir.path(), "fresh");
    assert_eq!(exported, 1, "an export leaves the log of its own txg alone");
    let (left, before) = logs_of(crashed.path(), "fresh");
    assert!(left > 1, "{left} logs after a crash");
    zdb(crashed.path(), "fresh", &["-bbcc"]);
    zdb(crashed.path(), "fresh", &["-mmm"]);
    // Nobody may forget what only logs hold: more is written, and crashes again.
    let spa = open(crashed.path(), "fresh");
    for n in 0..5 {
        spa.sync_task("test", move |ctx| ctx.log("test", &format!("more {n}"))).unwrap();
    }
    drop(spa);
    let (_, after) = logs_of(crashed.path(), "fresh");
    assert!(after >= before && after < before + (4 << 20), "{before} {after}");
    check(crashed.path(), "fresh");
    zdb(crashed.path(), "fresh", &["-bbcc"]);
    pass_txgs(crashed.path(), "fresh", 2);
    assert_eq!(logs_of(crashed.path(), "fresh").0, 1);
    check(crashed.path(), "fresh");
    zdb(crashed.path(), "fresh", &["-bbcc"]);
}

/// The devices as they are at some moment, in the midst of a sync.
fn as_it_is(spa: &Spa, dir: &Path) -> tempfile::TempDir {
    let (from, copy) = (dir.to_owned(), tempfile::tempdir().unwrap());
    let to = copy.path().to_owned();
    spa.sync_task("crash", move |_| {
        for entry in std::fs::read_dir(from).unwrap() {
            let status = Command::new("cp").arg("--sparse=always").arg(entry.unwrap().path()).arg(&to).status();
            assert!(status.unwrap().success());
        }
        Ok(())
    })
    .unwrap();
    copy
}

/// A large file system that is destroyed is freed over many txgs. A crash on the way loses nothing, and the next import
/// goes on.
#[test]
fn a_destroyed_file_system_is_freed_over_txgs() {
    let dir = tempfile::tempdir().unwrap();
    create_pool(vec![(Class::Normal, image(dir.path(), "d0", 128))]);
    let spa = open(dir.path(), "fresh");
    spa.sync_task("create", |ctx| {
        let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
            let spec = ObjectSpec { object_type: DmuObjectType::PLAIN_FILE_CONTENTS, ..ObjectSpec::default() };
            for n in 0u32..60 {
                let file = objset.allocate(tx, &ObjectSpec { block_size: 4096, indirect_shift: 12, ..spec })?;
                let noise = (0u32..64 << 10).flat_map(|i| (i ^ (n << 20)).wrapping_mul(0x9e37_79b9).to_le_bytes());
                file.write_at(tx, 0, &noise.take((n as usize % 7) * 30_000).collect::<Vec<u8>>())?;
            }
            Ok(())
        };
        let new = NewObjset { kind: ObjsetType::Other, flags: 0, init: &mut init };
        ctx.dsl().create(ctx.tx, "big", new).map(|_| ())
    })
    .unwrap();
    let freeing = |spa: &Spa| spa.view().unwrap().freeing().unwrap();
    spa.dsl().set_max_frees(40);
    spa.sync_task("destroy", |ctx| {
        let head = ctx.dsl().find("big")?.unwrap();
        ctx.dsl().destroy_head(ctx.tx, &head, "big")
    })
    .unwrap();
    let crashed = as_it_is(&spa, dir.path());
    let left = import(&find(crashed.path(), "fresh"), &common::options()).unwrap();
    let waiting = left.freeing().unwrap();
    assert!(waiting > 1 << 20, "{waiting}");
    assert!(left.features().is_active(Feature::AsyncDestroy));
    drop(left);
    check(crashed.path(), "fresh");
    zdb(crashed.path(), "fresh", &["-bbcc"]);
    for (spa, dir) in [(spa, dir.path()), (open(crashed.path(), "fresh"), crashed.path())] {
        spa.dsl().set_max_frees(100);
        let mut txgs = 0;
        while freeing(&spa) > 0 {
            spa.txgs().wait_synced(0).unwrap();
            txgs += 1;
            assert!(txgs < 200);
        }
        spa.close(false).unwrap();
        check(dir, "fresh");
        zdb(dir, "fresh", &["-bbcc"]);
        assert!(!import(&find(dir, "fresh"), &common::options()).unwrap().features().is_active(Feature::AsyncDestroy));
    }
}

/// Runs a scrub to its end.
fn scrub(spa: &Arc<Spa>) {
    spa.scan(zfs_spa::sync::ScanRequest::Scrub).unwrap();
    while spa.scan_progress().is_none_or(|s| s.phys.state == 1) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// What a scrub finds lost is told by the next import, and forgotten when a later scrub finds it whole; with the new form of
/// the log and with the old one.
#[test]
fn lost_blocks_are_remembered() {
    for by_head in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let vdevs = vec![(Class::Normal, image(dir.path(), "d0", 64))];
        let mut options = CreateOptions::new("fresh", vdevs, Arc::new(ArcCache::new(64 << 20)));
        let wanted = |f: &Feature| !newer(*f) && (by_head || *f != Feature::HeadErrlog);
        options.features = Some(FEATURES.iter().map(|f| f.feature).filter(wanted).collect());
        create_with(options);
        let spa = open(dir.path(), "fresh");
        spa.sync_task("create", |ctx| {
            let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
                let spec = ObjectSpec { object_type: DmuObjectType::PLAIN_FILE_CONTENTS, ..ObjectSpec::default() };
                let file = objset.allocate(tx, &ObjectSpec { block_size: 128 << 10, ..spec })?;
                let noise: Vec<u8> =
                    (0u32..128 << 10).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
                file.write_at(tx, 0, &noise)
            };
            let new = NewObjset { kind: ObjsetType::Other, flags: 0, init: &mut init };
            ctx.dsl().create(ctx.tx, "some", new).map(|_| ())
        })
        .unwrap();
        let head = spa.dsl().find("some").unwrap().unwrap();
        let objset = spa.dsl().open_objset(&head).unwrap();
        let object = objset.next_object(0).unwrap().unwrap();
        let bp = objset.dnode(object).unwrap().blkptr_of(0, 1).unwrap().unwrap();
        drop((objset, head));
        spa.close(false).unwrap();
        drop(spa);
        let at = (4 << 20) + bp.dva(0).offset();
        let disk = std::fs::File::options().read(true).write(true).open(dir.path().join("d0")).unwrap();
        let mut good = vec![0; 4096];
        disk.read_exact_at(&mut good, at).unwrap();
        disk.write_all_at(&[0x77; 4096], at).unwrap();
        let spa = open(dir.path(), "fresh");
        scrub(&spa);
        spa.close(false).unwrap();
        drop(spa);
        let told = || {
            let pool = import(&find(dir.path(), "fresh"), &common::options()).unwrap();
            assert!(pool.zio().errors().lost().is_empty());
            pool.data_errors().unwrap().iter().map(|e| (e.dataset.clone(), e.object)).collect::<Vec<_>>()
        };
        let lost = [(Some("fresh/some".to_owned()), object)];
        assert_eq!(told(), lost);
        check_space(dir.path(), "fresh");
        // What is known is still known with the feature. A reader meets it again: nothing new. Then it is whole.
        let spa = open(dir.path(), "fresh");
        spa.sync_task("upgrade", |ctx| ctx.enable_feature(Feature::HeadErrlog)).unwrap();
        assert_eq!(spa.view().unwrap().data_errors().unwrap().len(), 1);
        let head = spa.dsl().find("some").unwrap().unwrap();
        let file = spa.dsl().open_objset(&head).unwrap().dnode(object).unwrap();
        assert!(file.read_vec(128 << 10, 10).is_err());
        drop((file, head));
        spa.close(false).unwrap();
        drop(spa);
        assert_eq!(told(), lost);
        disk.write_all_at(&good, at).unwrap();
        let spa = open(dir.path(), "fresh");
        scrub(&spa);
        spa.close(false).unwrap();
        drop(spa);
        assert_eq!(told(), []);
        check(dir.path(), "fresh");
        zdb(dir.path(), "fresh", &["-bbcc"]);
    }
}

/// Nothing leaked, whatever cannot be read.
fn check_space(dir: &Path, name: &str) {
    zdb(dir, name, &["-bb"]);
}

/// A hot spare takes the place of a device that failed, and goes back when that is whole again; or stays, when it is
/// detached.
#[test]
fn hot_spares_come_and_go() {
    for stays in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let vdevs = vec![(Class::Normal, NewVdev::Raidz { nparity: 1, children: images(dir.path(), "d", 64, 3) })];
        let mut options = CreateOptions::new("fresh", vdevs, Arc::new(ArcCache::new(64 << 20)));
        options.auxiliaries.spares = images(dir.path(), "s", 64, 1);
        create_with(options);
        let spa = open(dir.path(), "fresh");
        let reopen =
            |path: &str| -> Arc<dyn zfs_env::BlockDevice> { Arc::new(FileDevice::open_read_write(path).unwrap()) };
        let by_config = |nv: &zfs_phys::NvList| Some(reopen(nv.str("path").unwrap()));
        let mut watch = zfs_spa::sync::Watch::default();
        let looks = |watch: &mut zfs_spa::sync::Watch| {
            spa.watch(watch, &by_config).unwrap();
            spa.wait_scan();
            spa.watch(watch, &by_config).unwrap();
            spa.wait_scan();
        };
        looks(&mut watch);
        let kinds = || -> Vec<String> {
            let top = &spa.zio().vdevs().root().children[0];
            top.children.iter().map(|c| c.config.kind.type_name().to_owned()).collect()
        };
        assert_eq!(kinds(), ["file", "file", "file"]);
        let leaf = spa.zio().vdevs().root().children[0].children[1].guid();
        let path = spa.zio().vdevs().find(leaf).unwrap().config.path.clone().unwrap();
        spa.offline(leaf, false, true).unwrap();
        spa.sync_task("more", |ctx| ctx.log("test", "while it is away")).unwrap();
        looks(&mut watch);
        assert_eq!(kinds(), ["file", "spare", "file"]);
        let lacking =
            || spa.zio().vdevs().leaves().iter().filter(|l| l.state().is_readable() && !l.dtl().is_empty()).count();
        assert_eq!(lacking(), 0, "the spare was filled");
        let taken = as_it_is(&spa, dir.path());
        zdb(taken.path(), "fresh", &["-bbcc"]);
        assert_eq!(import(&find(taken.path(), "fresh"), &common::options()).unwrap().spares().len(), 1);
        if stays {
            spa.detach(leaf).unwrap();
        } else {
            spa.online(leaf, Some(reopen(&path))).unwrap();
            spa.wait_scan();
            looks(&mut watch);
        }
        assert_eq!(kinds(), ["file", "file", "file"]);
        assert_eq!(spa.zio().vdevs().find(leaf).is_none(), stays);
        spa.sync_task("more", |ctx| ctx.log("test", "afterwards")).unwrap();
        spa.close(false).unwrap();
        drop(spa);
        let pool = import(&find(dir.path(), "fresh"), &common::options()).unwrap();
        assert_eq!(pool.spares().len(), usize::from(!stays));
        let state = zfs_spa::labels::DeviceLabels::read(&FileDevice::open_read_only(dir.path().join("s0")).unwrap());
        assert_eq!(state.best().and_then(|l| l.u64("state")), Some(if stays { 1 } else { 3 }), "the spare's label");
        drop(pool);
        check(dir.path(), "fresh");
        zdb(dir.path(), "fresh", &["-bbcc"]);
    }
}

/// Distributed spares take the place of failed devices before ordinary ones do, only in their own dRAID, and go back when
/// the device is whole again. A resilver that ends early, as in a crash, goes on at the next import.
#[test]
fn distributed_spares_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let draid = |prefix: &str, nspares: u64| {
        let children = images(dir.path(), prefix, 128, 5);
        (Class::Normal, NewVdev::Draid { nparity: 1, ndata: 2, nspares, children })
    };
    let vdevs = vec![draid("a", 1), draid("b", 1)];
    let mut options = CreateOptions::new("fresh", vdevs, Arc::new(ArcCache::new(64 << 20)));
    options.auxiliaries.spares = images(dir.path(), "s", 128, 1);
    create_with(options);
    let spa = open(dir.path(), "fresh");
    let reopen = |path: &str| -> Arc<dyn zfs_env::BlockDevice> { Arc::new(FileDevice::open_read_write(path).unwrap()) };
    let by_config = |nv: &zfs_phys::NvList| Some(reopen(nv.str("path").unwrap()));
    let mut watch = zfs_spa::sync::Watch::default();
    let path = |guid: u64| spa.zio().vdevs().find(guid).and_then(|v| v.config.path.clone()).unwrap_or_default();
    let leaf = |top: usize, n: usize| spa.zio().vdevs().root().children[top].children[n].guid();
    let (first, second) = (leaf(1, 1), leaf(1, 3));
    let beside = |guid: u64| {
        let tops = &spa.zio().vdevs().root().children;
        let holder = tops.iter().flat_map(|t| &t.children).find(|h| h.children.iter().any(|c| c.guid() == guid));
        holder.and_then(|h| h.children.last()).and_then(|s| s.config.path.clone()).unwrap_or_default()
    };
    // Nothing is done before the pool was in use; the first to fail gets the spare of its own dRAID.
    (0..20).for_each(|n| spa.sync_task("more", move |ctx| ctx.log("test", &format!("before {n}"))).unwrap());
    spa.offline(first, false, true).unwrap();
    spa.watch(&mut watch, &by_config).unwrap();
    let crashed = as_it_is(&spa, dir.path());
    assert_eq!(beside(first), "draid1-1-0");
    spa.wait_scan();
    let lacking =
        || spa.zio().vdevs().leaves().iter().filter(|l| l.state().is_readable() && !l.dtl().is_empty()).count();
    assert_eq!(lacking(), 0, "the spare was filled");
    // The second gets the ordinary one: that of the other dRAID is of no use there.
    spa.offline(second, false, true).unwrap();
    spa.watch(&mut watch, &by_config).unwrap();
    spa.wait_scan();
    assert!(beside(second).ends_with("/s0"), "{}", beside(second));
    assert_eq!(lacking(), 0, "the spares were filled");
    let taken = as_it_is(&spa, dir.path());
    zdb(taken.path(), "fresh", &["-bbcc"]);
    for guid in [first, second] {
        spa.online(guid, Some(reopen(&path(guid)))).unwrap();
        spa.wait_scan();
        spa.watch(&mut watch, &by_config).unwrap();
        assert_eq!(beside(guid), "");
    }
    spa.close(false).unwrap();
    drop(spa);
    assert_eq!(import(&find(dir.path(), "fresh"), &common::options()).unwrap().spares().len(), 3);
    check(dir.path(), "fresh");
    zdb(dir.path(), "fresh", &["-bbcc"]);
    // What a crash left.
    let spa = open(crashed.path(), "fresh");
    spa.wait_scan();
    assert!(spa.zio().vdevs().leaves().iter().all(|l| !l.state().is_readable() || l.dtl().is_empty()));
    spa.close(false).unwrap();
    drop(spa);
    zdb(crashed.path(), "fresh", &["-bbcc"]);
}
