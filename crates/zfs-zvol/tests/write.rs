//! A volume is made, written at random, snapshotted, made larger and smaller, and read back after an export; `zdb` finds
//! nothing to complain about.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use zfs_dmu::{Objset, Tx, Zap};
use zfs_env::{FileDevice, Rng, SeededRng, SystemClock};
use zfs_phys::enums::{DmuObjectType, ObjsetType};
use zfs_spa::dslw::NewObjset;
use zfs_spa::{CreateOptions, ImportOptions, NewVdev, Search, Spa, create, discover, import};
use zfs_zio::ArcCache;
use zfs_zio::alloc::Class;
use zfs_zvol::Zvol;

const SIZE: u64 = 4 << 20;

fn arc() -> Arc<ArcCache> {
    Arc::new(ArcCache::new(64 << 20))
}

fn make(dir: &Path) {
    let path = dir.join("d0");
    let device = Arc::new(FileDevice::create(&path, 64 << 20).unwrap());
    let leaf = NewVdev::Leaf { path: path.to_string_lossy().into_owned(), device, disk: false };
    let options = CreateOptions::new("vols", vec![(Class::Normal, leaf)], arc());
    let mut init = |objset: &Arc<Objset>, tx: &Tx| {
        Zap::claim(objset, tx, 1, DmuObjectType::MASTER_NODE)?.add(tx, b"VERSION", &[5])
    };
    create(&options, &mut init).unwrap();
}

fn open(dir: &Path) -> Arc<Spa> {
    let found = discover(&Search::Paths(vec![dir.to_owned()])).unwrap();
    let mut options = ImportOptions::new(arc(), None);
    (options.for_write, options.skip_host_checks) = (true, true);
    let pool = import(&found.pools[0], &options).unwrap_or_else(|e| panic!("{e} ({:?})", e.problem));
    Spa::open(&pool, 0x1234, Arc::new(SystemClock)).unwrap()
}

fn volume(spa: &Spa) -> (Arc<Objset>, Zvol) {
    let ds = spa.dsl().find("v").unwrap().unwrap();
    let objset = spa.dsl().open_objset(&ds).unwrap();
    let volume = Zvol::open(&objset).unwrap();
    (objset, volume)
}

fn read(volume: &Zvol) -> Vec<u8> {
    let mut bytes = vec![0; volume.size() as usize];
    volume.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_volume_keeps_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let spa = open(dir.path());
    spa.sync_task("create", |ctx| {
        let mut init = |objset: &Arc<_>, tx: &_| zfs_zvol::create(objset, tx, SIZE, 16 << 10);
        ctx.dsl().create(ctx.tx, "v", NewObjset { kind: ObjsetType::Zvol, flags: 0, init: &mut init }).map(drop)
    })
    .unwrap();
    let rng = SeededRng::new(11);
    let mut model = vec![0u8; SIZE as usize];
    let (objset, v) = volume(&spa);
    assert_eq!((v.size(), v.block_size()), (SIZE, 16 << 10));
    for round in 0..200 {
        let at = rng.below(SIZE - 70_000) as usize;
        let len = 1 + rng.below(70_000) as usize;
        let tx = spa.txgs().assign().unwrap();
        if round % 5 == 4 {
            v.discard(&tx, at as u64, len as u64).unwrap();
            model[at..at + len].fill(0);
        } else {
            rng.fill(&mut model[at..at + len]);
            v.write_at(&tx, at as u64, &model[at..at + len]).unwrap();
        }
        drop(tx);
        if round % 50 == 0 {
            spa.txgs().wait_synced(0).unwrap();
        }
    }
    let tx = spa.txgs().assign().unwrap();
    assert!(v.write_at(&tx, SIZE - 1, &[1, 2]).is_err());
    drop(tx);
    assert!(read(&v) == model);
    spa.txgs().wait_synced(0).unwrap();
    spa.sync_task("snapshot", |ctx| {
        let ds = ctx.dsl().find("v")?.unwrap();
        ctx.dsl().snapshot(ctx.tx, &ds, "s", 1).map(drop)
    })
    .unwrap();
    for (size, right) in [(2 << 20, true), (6 << 20, true), (1000, false), (0, false)] {
        let tx = spa.txgs().assign().unwrap();
        assert_eq!(zfs_zvol::set_size(&objset, &tx, size).is_ok(), right, "{size}");
    }
    let mut now = model.clone();
    now.truncate(2 << 20);
    now.resize(6 << 20, 0);
    assert!(read(&Zvol::open(&objset).unwrap()) == now);
    spa.close(false).unwrap();
    drop((objset, v, spa));

    let spa = open(dir.path());
    assert!(read(&volume(&spa).1) == now);
    let snap = spa.dsl().find("v@s").unwrap().unwrap();
    let then = Objset::open(spa.zio(), &snap.phys().bp, snap.object, None).unwrap();
    assert!(read(&Zvol::open(&then).unwrap()) == model);
    spa.close(false).unwrap();
    match Command::new("zdb").arg("-e").arg("-p").arg(dir.path()).args(["-bbcc", "vols"]).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success() && text.contains("No leaks"), "{text}");
        }
        Err(_) => eprintln!("SKIPPED: no zdb"),
    }
}
