//! An object of the pool that nothing refers to, and a reference to one that is not there: both are named, by OpenZFS's
//! `zdb` alike, and the exit code tells.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use zfs_dmu::{ObjectSpec, Zap};
use zfs_env::{FileDevice, SystemClock};
use zfs_phys::enums::DmuObjectType;
use zfs_spa::{CreateOptions, ImportOptions, NewVdev, Search, Spa, create, discover, import};
use zfs_zio::alloc::Class;
use zfs_zio::arc::ArcCache;

const NAME: &str = "lossy";
const OPENZFS: &str = "/usr/sbin/zdb";

/// A pool on one image, in which `task` has changed something.
fn pool(dir: &Path, task: impl FnOnce(&zfs_spa::SyncCtx<'_>) -> zfs_spa::Result<()> + Send + 'static) {
    let path = dir.join("d0");
    let device = Arc::new(FileDevice::create(&path, 64 << 20).unwrap());
    let leaf = NewVdev::Leaf { path: path.to_string_lossy().into_owned(), device, disk: false };
    let options = CreateOptions::new(NAME, vec![(Class::Normal, leaf)], Arc::new(ArcCache::new(64 << 20)));
    let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
        let master = Zap::claim(objset, tx, 1, DmuObjectType::MASTER_NODE)?;
        master.add(tx, b"VERSION", &[5])?;
        objset.allocate(tx, &ObjectSpec::default())?;
        Ok(())
    };
    create(&options, &mut init).unwrap();
    // It holds the device.
    drop(options);
    let found = discover(&Search::Paths(vec![dir.to_path_buf()])).unwrap();
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(64 << 20)), None);
    (options.force, options.for_write) = (true, true);
    let pool = import(&found.pools[0], &options).unwrap();
    let spa = Spa::open(&pool, 0x1234, Arc::new(SystemClock)).unwrap();
    spa.sync_task("test", task).unwrap();
    spa.close(false).unwrap();
}

fn run(program: &str, dir: &Path) -> (Vec<String>, Option<i32>) {
    let got = Command::new(program).args(["-e", "-p"]).arg(dir).args(["-d", NAME]).output().unwrap();
    let text = String::from_utf8_lossy(&got.stdout).into_owned();
    (text.lines().filter(|l| l.starts_with("MOS object")).map(str::to_owned).collect(), got.status.code())
}

/// What both say of a pool.
fn both(dir: &Path) -> (Vec<String>, Option<i32>) {
    let ours = run(env!("CARGO_BIN_EXE_zdb"), dir);
    if Path::new(OPENZFS).exists() {
        assert_eq!(ours, run(OPENZFS, dir));
    } else {
        println!("skipped: {OPENZFS} is not installed");
    }
    ours
}

#[test]
fn objects_without_references_are_named() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), |_| Ok(()));
    assert_eq!(both(dir.path()), (vec![], Some(0)));

    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), |ctx| {
        let object_type = DmuObjectType::SPACE_MAP;
        ctx.mos().allocate(ctx.tx, &ObjectSpec { object_type, ..ObjectSpec::default() })?;
        Ok(())
    });
    let (lines, code) = both(dir.path());
    assert_eq!((lines.len(), code), (1, Some(2)), "{lines:?}");
    assert!(lines[0].ends_with(" (SPA space map) leaked"), "{lines:?}");
}

/// OpenZFS's prints only the exit code: it counts the missing ones from their number to one.
#[test]
fn references_without_objects_are_named() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), |ctx| {
        let directory = Zap::open(ctx.mos(), 1)?;
        directory.add(ctx.tx, b"tmp_userrefs", &[4242])?;
        Ok(())
    });
    let (lines, code) = run(env!("CARGO_BIN_EXE_zdb"), dir.path());
    assert_eq!((lines, code), (vec!["MOS object 4242 referenced but not allocated".to_owned()], Some(2)));
}
