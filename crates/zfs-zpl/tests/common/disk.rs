//! A pool over an image file that is written, without any front end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use zfs_env::{Clock, FileDevice, SystemClock};
use zfs_spa::{CreateOptions, ImportOptions, NewVdev, Search, Spa, create, discover, import};
use zfs_zio::ArcCache;
use zfs_zio::alloc::Class;
use zfs_zpl::write::{NewFilesystem, Writer, create_fs};
use zfs_zpl::{MountOptions, Vfs, Zfs};

/// Name of the pool.
pub const POOL: &str = "model";

/// The image file of a pool; goes with its folder.
pub struct Disk {
    dir: tempfile::TempDir,
    clock: Arc<dyn Clock>,
}

/// What OpenZFS says of a pool that nobody writes; nothing where its tools are not installed.
pub fn zdb_is_clean(dir: &Path, pool: &str) {
    let Ok(out) = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args([pool, "-bbcc"]).output() else {
        eprintln!("SKIPPED: no zdb");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let clean = text.contains("No leaks (block sum matches space maps exactly)") && !text.contains("checksum error");
    assert!(out.status.success() && clean, "{}\n{text}", String::from_utf8_lossy(&out.stderr));
}

/// Makes a pool of `mib` MiB in a fresh image file.
pub fn make(path: &Path, pool: &str, mib: u64, clock: &Arc<dyn Clock>, root: &NewFilesystem) {
    let device = Arc::new(FileDevice::create(path, mib << 20).unwrap());
    let leaf = NewVdev::Leaf { path: path.to_string_lossy().into_owned(), device, disk: false };
    let options = CreateOptions::new(pool, vec![(Class::Normal, leaf)], Arc::new(ArcCache::new(32 << 20)));
    let txgs = zfs_dmu::txg::Txgs::new(4);
    create(&options, &mut |objset, tx| create_fs(objset, tx, Writer::new(txgs.clone(), clock.clone()), root)).unwrap();
}

/// The pool, imported for writing, with its own file system mounted.
pub struct Live {
    pub spa: Arc<Spa>,
    pub vfs: Vfs,
}

impl Disk {
    /// A fresh pool of `mib` MiB whose files get times of `clock`.
    pub fn new(mib: u64, clock: Arc<dyn Clock>) -> Self {
        Self::with_root(mib, clock, &NewFilesystem::default())
    }

    /// The same whose file system is as `root` says.
    pub fn with_root(mib: u64, clock: Arc<dyn Clock>, root: &NewFilesystem) -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap(), clock };
        make(&disk.dir.path().join("d0"), POOL, mib, &disk.clock, root);
        disk
    }

    /// Imports and mounts.
    pub fn open(&self) -> Live {
        self.open_with(MountOptions::default())
    }

    /// Imports and mounts as `mount` says.
    pub fn open_with(&self, mount: MountOptions) -> Live {
        let found = discover(&Search::Paths(vec![PathBuf::from(self.dir.path())])).unwrap();
        let mut options = ImportOptions::new(Arc::new(ArcCache::new(32 << 20)), None);
        (options.for_write, options.skip_host_checks) = (true, true);
        let pool = import(&found.pools[0], &options).unwrap_or_else(|e| panic!("{e} ({:?})", e.problem));
        let spa = Spa::open(&pool, 0x1234, Arc::new(SystemClock)).unwrap();
        let head = spa.dsl().find("").unwrap().unwrap();
        let objset = spa.dsl().open_objset(&head).unwrap();
        let writer = Writer::new(spa.txgs().clone(), self.clock.clone());
        let zfs = Zfs::mount_writable(objset, mount, writer).unwrap();
        zfs.drain_unlinked().unwrap();
        Live { spa, vfs: Vfs::new(zfs, None) }
    }

    /// What OpenZFS says of the pool, which is exported; nothing where its tools are not installed.
    pub fn judge(&self) {
        zdb_is_clean(self.path(), POOL);
    }

    /// The folder of the image file.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Live {
    /// Exports.
    pub fn close(self) {
        let spa = self.spa.clone();
        drop(self);
        spa.close(false).unwrap();
    }
}
