//! Changing files through the protocol's service, on a pool that OpenZFS made.

use super::*;
use std::path::Path;
use std::process::Command;
use zfs_env::SystemClock;
use zfs_spa::{ImportOptions, Spa};
use zfs_zpl::{MountOptions, Zfs};

/// A golden pool, unpacked into a folder of its own.
fn unpack(pool: &str, to: &Path) {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");
    let line = format!("zstd -dcq --long=27 '{archive}/{pool}.tar.zst' | tar -S -x -C '{}'", to.display());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

/// The pool opened for writing, and the object of its root dataset.
fn spa(dir: &Path, pool: &str) -> (Arc<Spa>, u64) {
    let found = zfs_spa::discover(&zfs_spa::Search::Paths(vec![dir.join(pool)])).unwrap();
    let candidate = found.pools.into_iter().find(|p| p.name == pool).unwrap();
    let mut options = ImportOptions::new(Arc::new(zfs_zio::ArcCache::new(64 << 20)), None);
    (options.force, options.for_write) = (true, true);
    let imported = zfs_spa::import(&candidate, &options).unwrap();
    let head = imported.dsl().unwrap().dataset(pool).unwrap().unwrap().object;
    (Spa::open(&imported, 0x1234, Arc::new(SystemClock)).unwrap(), head)
}

fn service(spa: &Arc<Spa>, dataset: u64) -> VfsService {
    let state = spa.dsl().dataset(dataset).unwrap();
    let objset = spa.dsl().open_objset(&state).unwrap();
    let writer = zfs_zpl::write::Writer::new(spa.txgs().clone(), Arc::new(SystemClock));
    let zfs = Zfs::mount_writable(objset, MountOptions::default(), writer).unwrap();
    VfsService::new(Arc::new(Vfs::new(zfs, None)), VolumeInfo::default())
}

fn who() -> Caller {
    Caller { uid: 501, gid: 20 }
}

fn find(s: &VfsService, dir: u64, name: &[u8]) -> Result<Entry, Code> {
    s.lookup(&who(), Lookup { dir, name: name.to_vec() })
}

fn create(s: &VfsService, dir: u64, name: &[u8], mode: u32) -> Result<Entry, Code> {
    let attrs = SetAttrs { mask: set::MODE, mode, ..SetAttrs::default() };
    s.create(&who(), Create { dir, name: name.to_vec(), attrs, rdev: 0 })
}

fn read(s: &VfsService, node: u64) -> Vec<u8> {
    s.read(&who(), Read { node, offset: 0, len: 1 << 20 }).unwrap().into_vec()
}

#[test]
fn files_are_made_written_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    unpack("hotspare", dir.path());
    let (spa, head) = spa(dir.path(), "hotspare");
    let s = service(&spa, head);
    let root = s.volume().root;
    assert_eq!(s.volume().flags & volume::READONLY, 0);
    assert_eq!(read(&s, find(&s, root, b"file.txt").unwrap().attr.node), b"HelloWorld\n");

    let made = create(&s, root, b"new.txt", 0o100_640).unwrap();
    let node = made.attr.node;
    assert_eq!((made.attr.mode, made.attr.uid, made.attr.gid), (0o100_640, 501, 20));
    assert_eq!(create(&s, root, b"new.txt", 0o100_640).unwrap_err(), Code::Exists);
    let data: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
    let written = s.write(&who(), Write { node, offset: 0, data: data.clone().into() }).unwrap();
    assert_eq!(written as usize, data.len());
    assert!(read(&s, node) == data);

    let attrs = SetAttrs { mask: set::SIZE | set::MODE | set::BTIME, mode: 0o600, size: 1000, ..SetAttrs::default() };
    let done = s.setattr(&who(), SetAttr { node, attrs }).unwrap();
    assert_eq!((done.attr.size, done.attr.mode), (1000, 0o100_600));
    assert_eq!(done.consumed, set::SIZE | set::MODE, "the time of creation stays");

    let sub = create(&s, root, b"sub", 0o040_755).unwrap().attr.node;
    let rename = |from, old: &[u8], to, new: &[u8], flags| {
        s.rename(&who(), Rename { from, old: old.to_vec(), to, new: new.to_vec(), flags })
    };
    assert_eq!(rename(root, b"new.txt", root, b"file.txt", rename_flags::NO_REPLACE), Err(Code::Exists));
    assert_eq!(rename(root, b"new.txt", sub, b"moved", 0), Ok(()));
    assert_eq!(find(&s, root, b"new.txt").unwrap_err(), Code::NotFound);
    assert_eq!(s.link(&who(), Link { node, dir: root, name: b"again".to_vec() }).unwrap().attr.nlink, 2);
    let attrs = SetAttrs::default();
    let link = Symlink { dir: sub, name: b"link".to_vec(), target: b"../file.txt".to_vec(), attrs };
    let link = s.symlink(&who(), link).unwrap().attr.node;
    assert_eq!(s.readlink(&who(), ReadLink { node: link }).unwrap(), b"../file.txt");

    let name = b"user.colour".to_vec();
    let value = Blob::from(b"green".to_vec());
    let policy = XattrPolicy::Create;
    s.setxattr(&who(), SetXattr { node, name: name.clone(), policy, value: value.clone() }).unwrap();
    assert_eq!(s.setxattr(&who(), SetXattr { node, name: name.clone(), policy, value }), Err(Code::Exists));
    let got = s.getxattr(&who(), GetXattr { node, name: name.clone(), privileged: false });
    assert_eq!(got.unwrap().into_vec(), b"green");
    s.removexattr(&who(), RemoveXattr { node, name: name.clone() }).unwrap();
    assert_eq!(s.removexattr(&who(), RemoveXattr { node, name }), Err(Code::NoAttribute));

    // A file whose last name goes lives until the front end gives it back.
    let remove =
        |dir, name: &[u8], node, directory| s.remove(&who(), Remove { dir, name: name.to_vec(), node, directory });
    assert_eq!(remove(root, b"again", node + 1, false), Err(Code::NotFound));
    assert_eq!(remove(root, b"again", node, false), Ok(()));
    assert_eq!(remove(root, b"sub", sub, true), Err(Code::NotEmpty));
    assert_eq!(remove(sub, b"moved", node, false), Ok(()));
    assert!(read(&s, node) == data[..1000]);
    s.sync(&who(), SyncAll { mode: SyncMode::Wait }).unwrap();
    s.reclaim(&who(), Reclaim { node }).unwrap();
    assert_eq!(s.getattr(&who(), GetAttr { node }).unwrap_err(), Code::NotFound);
    assert_eq!(remove(sub, b"link", link, false), Ok(()));
    assert_eq!(remove(root, b"sub", sub, true), Ok(()));
    s.sync(&who(), SyncAll { mode: SyncMode::Durable }).unwrap();
}
