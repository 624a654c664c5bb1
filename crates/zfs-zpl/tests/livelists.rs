//! Livelists of clones with files in them: those that OpenZFS made and condensed (`zfs_livelist_max_entries` was 100) are
//! condensed further here, and the clones destroyed. What is made here is left where `UZFS_KEEP` says, for OpenZFS to do
//! the same.

#[path = "common/disk.rs"]
#[allow(dead_code)]
mod disk;

use disk::zdb_is_clean;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use uzfs_testkit::{archive, paths, report};
use zfs_dmu::Zap;
use zfs_dmu::bpobj::Bpobj;
use zfs_env::{Clock, Rng, SeededRng, SystemClock};
use zfs_phys::enums::ObjsetType;
use zfs_phys::feature::Feature;
use zfs_spa::dslw::NewObjset;
use zfs_spa::{ImportOptions, Pool, Search, Spa, discover, import};
use zfs_zio::ArcCache;
use zfs_zpl::write::{NewFile, NewFilesystem, Writer, create_fs};
use zfs_zpl::{CaseMode, MountOptions, Zfs};

const BLOCK: usize = 4096;

fn opened(dir: &Path, for_write: bool) -> Arc<Pool> {
    let found = discover(&Search::Paths(vec![PathBuf::from(dir)])).unwrap();
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(32 << 20)), None);
    (options.for_write, options.skip_host_checks) = (for_write, true);
    import(&found.pools[0], &options).unwrap_or_else(|e| panic!("{e} ({:?})", e.problem))
}

fn live(dir: &Path) -> Arc<Spa> {
    let spa = Spa::open(&opened(dir, true), 0x1234, Arc::new(SystemClock)).unwrap();
    spa.dsl().set_livelist_limits(100, 0);
    spa
}

fn mount(spa: &Spa, path: &str) -> Arc<Zfs> {
    let head = spa.dsl().find(path).unwrap().unwrap();
    let objset = spa.dsl().open_objset(&head).unwrap();
    let options = MountOptions { recordsize: BLOCK as u32, ..MountOptions::default() };
    let writer = Writer::new(spa.txgs().clone(), Arc::new(SystemClock));
    Zfs::mount_writable(objset, options, writer).unwrap()
}

/// Entries and dead ones of each list of a clone.
fn lists(dir: &Path, path: &str) -> Vec<(u64, u64)> {
    let pool = opened(dir, false);
    let datasets = pool.dsl().unwrap().filesystems().unwrap();
    let clone = datasets.iter().find(|d| d.name.ends_with(path)).unwrap();
    let object = clone.dir.field(zfs_phys::dsl::field::LIVELIST).unwrap().unwrap();
    let table = Zap::open(pool.mos(), object).unwrap();
    let phys = |list: u64| *Bpobj::open(pool.mos(), list).unwrap().phys();
    table.iter().map(|e| phys(e.unwrap().value.first())).map(|p| (p.num_blkptrs, p.num_freed)).collect()
}

/// Bytes that do not compress: what fits into its pointer is in no livelist.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRng::new(seed).fill(&mut bytes);
    bytes
}

/// Writes parts of a file of a clone again, in txgs of their own.
fn overwrite(spa: &Spa, path: &str, rounds: std::ops::Range<u64>) {
    let zfs = mount(spa, path);
    let file = zfs.lookup(zfs.root(), b"file", CaseMode::Dataset).unwrap();
    for round in rounds {
        for part in 0..6 {
            let bytes = noise(10 * BLOCK, round * 10 + part);
            zfs.write(file, (round * 7 + part * 60) % 400 * BLOCK as u64, &bytes, false, true).unwrap();
        }
        spa.txgs().wait_synced(0).unwrap();
    }
}

fn destroy(spa: &Spa, path: &'static str) {
    spa.sync_task("destroy", move |ctx| {
        let head = ctx.dsl().find(path)?.unwrap();
        ctx.dsl().destroy_head(ctx.tx, &head, path)
    })
    .unwrap();
    while spa.view().unwrap().directory().lookup_u64(b"com.delphix:deleted_clones").unwrap().is_some() {
        spa.txgs().wait_synced(0).unwrap();
    }
}

/// The sums of what is in files, by their names below the pool, as md5sum prints them.
fn sums_are(dir: &Path, sums: &str) {
    let spa = live(dir);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let (dataset, file) = name.split_once('/').unwrap();
        let zfs = mount(&spa, dataset);
        let object = zfs.lookup(zfs.root(), file.as_bytes(), CaseMode::Dataset).unwrap();
        let size = zfs.getattr(object).unwrap().size as usize;
        let mut bytes = vec![0; size];
        zfs.znode(object).unwrap().dnode().read_at(0, &mut bytes).unwrap();
        let path = dir.join("content");
        std::fs::write(&path, &bytes).unwrap();
        let out = Command::new("md5sum").arg(&path).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).starts_with(sum), "{name}");
    }
    spa.close(false).unwrap();
}

/// What happens to a pool with the clones `copy`, which has many lists, and `grown`, which has one.
fn live_on(dir: &Path) {
    let before = lists(dir, "copy");
    let spa = live(dir);
    overwrite(&spa, "copy", 100..140);
    overwrite(&spa, "grown", 100..110);
    spa.close(false).unwrap();
    drop(spa);
    zdb_is_clean(dir, "livelist");
    for clone in ["copy", "grown"] {
        let after = lists(dir, clone);
        let (all, died) = after.iter().fold((0, 0), |sum, l| (sum.0 + l.0, sum.1 + l.1));
        assert!(all < 1500 && all - 2 * died < 800, "{clone}: {before:?} {after:?}");
    }
    let spa = live(dir);
    destroy(&spa, "copy");
    spa.close(false).unwrap();
    drop(spa);
    zdb_is_clean(dir, "livelist");
    let spa = live(dir);
    destroy(&spa, "grown");
    spa.close(false).unwrap();
    drop(spa);
    zdb_is_clean(dir, "livelist");
    assert!(!opened(dir, false).features().is_active(Feature::Livelist));
}

#[test]
fn of_openzfs() {
    let from = archive::unpack(&paths::golden().join("livelist.tar.zst"), &paths::cache()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    archive::copy_device(&from.join("d0"), &dir.path().join("d0")).unwrap();
    let sums = std::fs::read_to_string(from.join("sums")).unwrap();
    sums_are(dir.path(), &sums);
    assert!(lists(dir.path(), "copy").len() > 2);
    live_on(dir.path());
    sums_are(dir.path(), sums.lines().find(|l| l.ends_with("fs/file")).unwrap());
}

#[test]
fn of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    disk::make(&dir.path().join("d0"), "livelist", 64, &clock, &NewFilesystem::default());
    let spa = live(dir.path());
    let txgs = spa.txgs().clone();
    spa.sync_task("create", move |ctx| {
        let clock = Arc::new(SystemClock);
        let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::txg::Tx| {
            create_fs(objset, tx, Writer::new(txgs.clone(), clock.clone()), &NewFilesystem::default())
        };
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        ctx.dsl().create(ctx.tx, "fs", new).map(|_| ())
    })
    .unwrap();
    let zfs = mount(&spa, "fs");
    let file = zfs.create(zfs.root(), b"file", &NewFile { mode: 0o100_644, ..NewFile::default() }).unwrap();
    for block in 0..600u64 {
        zfs.write(file, block * BLOCK as u64, &noise(BLOCK, block << 32), false, true).unwrap();
    }
    drop(zfs);
    spa.txgs().wait_synced(0).unwrap();
    spa.sync_task("snapshot", |ctx| {
        ctx.dsl().snapshot(ctx.tx, &ctx.dsl().find("fs")?.unwrap(), "s", 1_700_000_000).map(|_| ())
    })
    .unwrap();
    for name in ["copy", "grown"] {
        spa.sync_task("clone", move |ctx| ctx.dsl().clone_of(ctx.tx, name, "fs@s").map(|_| ())).unwrap();
    }
    overwrite(&spa, "copy", 0..30);
    overwrite(&spa, "grown", 0..1);
    spa.close(false).unwrap();
    drop(spa);
    zdb_is_clean(dir.path(), "livelist");
    if let Some(to) = std::env::var_os("UZFS_KEEP") {
        std::fs::create_dir_all(&to).unwrap();
        archive::copy_device(&dir.path().join("d0"), &Path::new(&to).join("d0")).unwrap();
    }
    report::line(&format!("lists of the clone: {:?}", lists(dir.path(), "copy")));
    live_on(dir.path());
}
