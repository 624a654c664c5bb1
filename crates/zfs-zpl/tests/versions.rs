//! File systems of every version: made, changed, upgraded while they are in use, and changed again, judged by `zdb`. What
//! is made is left where `UZFS_KEEP` says, for OpenZFS to look at.

#[path = "common/disk.rs"]
#[allow(dead_code)]
mod disk;

use disk::{Disk, Live};
use std::sync::Arc;
use uzfs_testkit::archive;
use zfs_env::{Clock, SystemClock};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_zio::ErrorKind;
use zfs_zpl::write::{NewFilesystem, set_version};
use zfs_zpl::{CaseMode, MountOptions, NewFile, NodeId, RenameFlags, SetAttr, XattrMode};

fn node(live: &Live, path: &str) -> NodeId {
    let parts = path.split('/');
    parts.fold(live.vfs.root(), |dir, name| live.vfs.lookup(dir, name.as_bytes(), CaseMode::Dataset).unwrap())
}

fn make(live: &Live, path: &str, mode: u32, target: &str) -> NodeId {
    let (dir, name) = path.rsplit_once('/').map_or((live.vfs.root(), path), |(dir, name)| (node(live, dir), name));
    let new = NewFile { mode, uid: 10, gid: 20, rdev: (8, 17), target: target.as_bytes(), umask: 0 };
    live.vfs.create(dir, name.as_bytes(), &new).unwrap()
}

/// The form that the attributes of a file have.
fn form(live: &Live, path: &str) -> Ot {
    let head = live.spa.dsl().find("").unwrap().unwrap();
    let objset = live.spa.dsl().open_objset(&head).unwrap();
    objset.dnode(node(live, path).object()).unwrap().phys().bonustype
}

fn read(live: &Live, path: &str) -> Vec<u8> {
    let node = node(live, path);
    let size = live.vfs.getattr(node).unwrap().size as usize;
    live.vfs.read(node, 0, size).unwrap().iter().flat_map(|s| s.to_vec()).collect()
}

fn chmod(live: &Live, path: &str, mode: u32) {
    live.vfs.setattr(node(live, path), &SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
}

const LONG: usize = 900;

/// Files of every kind.
fn fill(live: &Live) {
    make(live, "dir", 0o040_755, "");
    for name in ["dir/a", "dir/b", "dir/gone"] {
        let file = make(live, name, 0o100_644, "");
        live.vfs.write(file, 0, name.repeat(3000).as_bytes(), false, true).unwrap();
    }
    make(live, "short", 0o120_777, "dir/a");
    make(live, "long", 0o120_777, &"x".repeat(LONG));
    make(live, "device", 0o060_600, "");
    make(live, "pipe", 0o010_600, "");
    chmod(live, "dir/a", 0o607);
    live.vfs.setattr(node(live, "dir/b"), &SetAttr { uid: Some(77), ..SetAttr::default() }).unwrap();
    live.vfs.setxattr(node(live, "dir/b"), b"user.note", Some(b"of old"), XattrMode::Any, true).unwrap();
    live.vfs.remove(node(live, "dir"), b"gone", false).unwrap();
    make(live, "dir/sub", 0o040_755, "");
    let (dir, root) = (node(live, "dir"), live.vfs.root());
    live.vfs.rename(dir, b"sub", root, b"moved", RenameFlags::default()).unwrap();
}

fn look(live: &Live) {
    assert_eq!(read(live, "dir/a"), "dir/a".repeat(3000).as_bytes());
    assert_eq!(live.vfs.readlink(node(live, "short")).unwrap(), b"dir/a");
    assert_eq!(live.vfs.readlink(node(live, "long")).unwrap(), "x".repeat(LONG).as_bytes());
    let device = live.vfs.getattr(node(live, "device")).unwrap();
    assert_eq!((device.mode, device.rdev), (0o060_600, (8, 17)));
    assert_eq!(live.vfs.getattr(node(live, "dir/a")).unwrap().mode, 0o100_607);
    let b = live.vfs.getattr(node(live, "dir/b")).unwrap();
    assert_eq!((b.uid, b.gid, b.nlink), (77, 20, 1));
    assert_eq!(live.vfs.getxattr(node(live, "dir/b"), b"user.note", true).unwrap(), b"of old");
    assert_eq!(live.vfs.getattr(node(live, "dir")).unwrap().nlink, 2);
    assert_eq!(live.vfs.getattr(live.vfs.root()).unwrap().nlink, 4);
}

fn upgrade(live: &Live, version: u64) -> Result<u64, ErrorKind> {
    let head = live.spa.dsl().find("").unwrap().unwrap();
    let objset = live.spa.dsl().open_objset(&head).unwrap();
    let tx = live.spa.txgs().assign().unwrap();
    let old = set_version(&objset, &tx, version).map_err(|e| e.kind());
    drop(tx);
    live.spa.txgs().wait_synced(0).unwrap();
    old
}

fn keep(disk: &Disk, name: &str) {
    if let Some(to) = std::env::var_os("UZFS_KEEP") {
        let to = std::path::Path::new(&to).join(name);
        std::fs::create_dir_all(&to).unwrap();
        archive::copy_device(&disk.path().join("d0"), &to.join("d0")).unwrap();
    }
}

#[test]
fn old_file_systems_are_made_changed_and_upgraded() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for version in [1, 3, 4] {
        let disk = Disk::with_root(64, clock.clone(), &NewFilesystem { version, ..NewFilesystem::default() });
        let live = disk.open();
        fill(&live);
        look(&live);
        live.close();
        disk.judge();
        keep(&disk, &format!("version{version}"));
        let live = disk.open_with(MountOptions { xattr_sa: true, ..MountOptions::default() });
        look(&live);
        assert_eq!(form(&live, "dir/a"), Ot::ZNODE);
        assert_eq!(upgrade(&live, version - 1), Err(ErrorKind::Invalid));
        assert_eq!(upgrade(&live, 6), Err(ErrorKind::Invalid));
        if version < 4 {
            assert_eq!(upgrade(&live, 4), Ok(version));
            chmod(&live, "dir/a", 0o607);
            assert_eq!(form(&live, "dir/a"), Ot::ZNODE);
        }
        assert_eq!(upgrade(&live, 5), Ok(4));
        look(&live);
        assert_eq!(form(&live, "dir/a"), Ot::ZNODE);
        // Changes bring the new form; links keep the old one.
        for path in ["dir/a", "device", "pipe"] {
            chmod(&live, path, if path == "dir/a" { 0o607 } else { 0o600 });
            assert_eq!(form(&live, path), Ot::SA, "{path}");
        }
        for path in ["short", "long"] {
            live.vfs.setattr(node(&live, path), &SetAttr { uid: Some(5), ..SetAttr::default() }).unwrap();
            assert_eq!(form(&live, path), Ot::ZNODE, "{path}");
        }
        make(&live, "dir/new", 0o100_640, "");
        assert_eq!((form(&live, "dir/new"), form(&live, "dir")), (Ot::SA, Ot::SA));
        live.vfs.remove(node(&live, "dir"), b"new", false).unwrap();
        live.vfs.setxattr(node(&live, "dir/a"), b"user.more", Some(b"of new"), XattrMode::Any, true).unwrap();
        look(&live);
        live.close();
        disk.judge();
        keep(&disk, &format!("upgraded{version}"));
        let live = disk.open();
        look(&live);
        assert_eq!(live.vfs.getxattr(node(&live, "dir/a"), b"user.more", true).unwrap(), b"of new");
        for (dir, name, rmdir) in [("dir", "a", false), ("dir", "b", false), ("", "dir", true), ("", "moved", true)] {
            let dir = if dir.is_empty() { live.vfs.root() } else { node(&live, dir) };
            live.vfs.remove(dir, name.as_bytes(), rmdir).unwrap();
        }
        for name in ["short", "long", "device", "pipe"] {
            live.vfs.remove(live.vfs.root(), name.as_bytes(), false).unwrap();
        }
        live.close();
        disk.judge();
    }
}
