//! Rules of POSIX and of OpenZFS about what new files take over, what changes take away, and what flags forbid.

#[path = "common/disk.rs"]
#[allow(dead_code)]
mod disk;

use disk::{Disk, Live};
use std::sync::Arc;
use std::time::Duration;
use zfs_env::{Clock, SimClock};
use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_IMMUTABLE, ZFS_PROJINHERIT};
use zfs_zio::ErrorKind;
use zfs_zpl::acl::{self, Entry, Who};
use zfs_zpl::{AclType, Allocate, Atime, MountOptions, NewFile, NodeId, RenameFlags, SetAttr, XattrMode};

fn mounted(options: MountOptions) -> (Arc<SimClock>, Disk, Live) {
    let clock = Arc::new(SimClock::new(Duration::from_secs(1_700_000_000)));
    let disk = Disk::new(128, clock.clone());
    let live = disk.open_with(options);
    (clock, disk, live)
}

fn ended(disk: &Disk, live: Live) {
    live.close();
    disk.judge();
}

fn make(live: &Live, dir: NodeId, name: &str, mode: u32, umask: u32) -> NodeId {
    live.vfs.create(dir, name.as_bytes(), &NewFile { mode, uid: 10, gid: 20, umask, ..NewFile::default() }).unwrap()
}

fn mode(live: &Live, node: NodeId) -> u32 {
    live.vfs.getattr(node).unwrap().mode
}

/// The value of a list: `(tag, permissions, id)` each.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0];
    for (tag, perm, id) in entries {
        out.extend_from_slice(&[tag.to_le_bytes(), perm.to_le_bytes()].concat());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

fn perms(entries: &[Entry]) -> Vec<(Who, u16)> {
    entries.iter().map(|e| (e.who, e.perm)).collect()
}

#[test]
fn new_files_start_with_the_default_list_of_their_directory() {
    let (_, disk, live) = mounted(MountOptions { acltype: AclType::Posix, ..MountOptions::default() });
    let root = live.vfs.root();
    assert_eq!(mode(&live, make(&live, root, "plain", 0o100_666, 0o027)), 0o100_640);
    let dir = make(&live, root, "dir", 0o040_777, 0o022);
    assert_eq!(mode(&live, dir), 0o040_755);
    let none = u32::MAX;
    let default = list(&[(1, 7, none), (2, 7, 1234), (4, 5, none), (0x10, 7, none), (0x20, 0, none)]);
    live.vfs.setxattr(dir, acl::DEFAULT.as_bytes(), Some(&default), XattrMode::Any, true).unwrap();
    // The mask of the process does not count there.
    let file = make(&live, dir, "file", 0o100_666, 0o077);
    assert_eq!(mode(&live, file), 0o100_660);
    let own = live.vfs.posix_acl(file, acl::ACCESS).unwrap().unwrap();
    let wanted = [(Who::Owner, 6), (Who::User(1234), 7), (Who::OwningGroup, 5), (Who::Mask, 6), (Who::Other, 0)];
    assert_eq!(perms(&own), wanted);
    assert_eq!(live.vfs.posix_acl(file, acl::DEFAULT).unwrap(), None);
    let below = make(&live, dir, "below", 0o040_777, 0o077);
    assert_eq!(live.vfs.getxattr(below, acl::DEFAULT.as_bytes(), true).unwrap(), default);
    // A new mode is the list's too.
    live.vfs.setattr(file, &SetAttr { mode: Some(0o604), ..SetAttr::default() }).unwrap();
    let own = live.vfs.posix_acl(file, acl::ACCESS).unwrap().unwrap();
    let wanted = [(Who::Owner, 6), (Who::User(1234), 7), (Who::OwningGroup, 5), (Who::Mask, 0), (Who::Other, 4)];
    assert_eq!(perms(&own), wanted);
    // A list that says no more than the mode is none.
    let plain = list(&[(1, 6, none), (4, 4, none), (0x20, 4, none)]);
    live.vfs.setxattr(file, acl::ACCESS.as_bytes(), Some(&plain), XattrMode::Any, true).unwrap();
    assert_eq!((live.vfs.posix_acl(file, acl::ACCESS).unwrap(), mode(&live, file)), (None, 0o100_644));
    ended(&disk, live);
}

#[test]
fn changes_take_privileges_away() {
    let (_, disk, live) = mounted(MountOptions::default());
    let file = make(&live, live.vfs.root(), "file", 0o106_755, 0);
    let capability = b"security.capability";
    let give = || live.vfs.setxattr(file, capability, Some(b"all"), XattrMode::Any, true).unwrap();
    let has = || live.vfs.getxattr(file, capability, true).is_ok();
    give();
    live.vfs.write(file, 0, b"as root", false, true).unwrap();
    assert_eq!((has(), mode(&live, file)), (false, 0o106_755));
    give();
    live.vfs.write(file, 0, b"as somebody", false, false).unwrap();
    assert_eq!((has(), mode(&live, file)), (false, 0o100_755));
    give();
    live.vfs.setattr(file, &SetAttr { uid: Some(11), ..SetAttr::default() }).unwrap();
    assert!(!has());
    ended(&disk, live);
}

#[test]
fn flags_protect_files() {
    let (_, disk, live) = mounted(MountOptions::default());
    let (vfs, root) = (&live.vfs, live.vfs.root());
    let refused = |what: zfs_zio::Result<()>| assert_eq!(what.unwrap_err().kind(), ErrorKind::Permission);
    let set = |node, on, off| vfs.setattr(node, &SetAttr { flags: Some((on, off)), ..SetAttr::default() }).unwrap();
    let write = |node, append| vfs.write(node, 0, b"x", append, true).map(drop);
    let file = make(&live, root, "file", 0o100_644, 0);
    write(file, false).unwrap();
    set(file, ZFS_IMMUTABLE, 0);
    refused(vfs.may_write(file, true));
    refused(write(file, true));
    refused(vfs.remove(root, b"file", false));
    refused(vfs.rename(root, b"file", root, b"other", RenameFlags::Replace));
    refused(vfs.link(file, root, b"other"));
    refused(vfs.setattr(file, &SetAttr { mode: Some(0o600), ..SetAttr::default() }));
    set(file, ZFS_APPENDONLY, ZFS_IMMUTABLE);
    refused(vfs.may_write(file, false));
    refused(write(file, false));
    vfs.may_write(file, true).unwrap();
    write(file, true).unwrap();
    refused(vfs.setattr(file, &SetAttr { size: Some(0), ..SetAttr::default() }));
    refused(vfs.allocate(file, 0, 1, Allocate::PunchHole));
    refused(vfs.remove(root, b"file", false));
    set(file, 0, ZFS_APPENDONLY);
    vfs.remove(root, b"file", false).unwrap();
    ended(&disk, live);
}

#[test]
fn projects_are_passed_on() {
    let (_, disk, live) = mounted(MountOptions::default());
    let (vfs, root) = (&live.vfs, live.vfs.root());
    let dir = make(&live, root, "dir", 0o040_755, 0);
    let stray = make(&live, root, "stray", 0o100_644, 0);
    if let Err(e) = vfs.setattr(dir, &SetAttr { projid: Some(42), ..SetAttr::default() }) {
        // Files of this file system have no room for one.
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        return ended(&disk, live);
    }
    vfs.setattr(dir, &SetAttr { flags: Some((ZFS_PROJINHERIT, 0)), ..SetAttr::default() }).unwrap();
    let file = make(&live, dir, "file", 0o100_644, 0);
    assert_eq!(vfs.getattr(file).unwrap().projid, 42);
    assert_eq!(vfs.link(stray, dir, b"stray").unwrap_err().kind(), ErrorKind::CrossDevice);
    ended(&disk, live);
}

#[test]
fn times_of_access_are_kept_as_the_mount_says() {
    for (kept, twice) in [(Atime::Off, [false, false]), (Atime::On, [true, true]), (Atime::Relative, [true, false])] {
        let (clock, disk, live) = mounted(MountOptions { atime: kept, ..MountOptions::default() });
        let file = make(&live, live.vfs.root(), "file", 0o100_644, 0);
        for expected in twice {
            clock.sleep(Duration::from_secs(1));
            let before = live.vfs.getattr(file).unwrap();
            live.vfs.accessed(file);
            let after = live.vfs.getattr(file).unwrap();
            assert_eq!(after.atime > before.atime, expected, "{kept:?}");
            assert_eq!((after.mtime, after.ctime), (before.mtime, before.ctime));
        }
        clock.sleep(Duration::from_secs(24 * 3600));
        let before = live.vfs.getattr(file).unwrap().atime;
        live.vfs.accessed(file);
        assert_eq!(live.vfs.getattr(file).unwrap().atime > before, kept != Atime::Off, "{kept:?} after a day");
        ended(&disk, live);
    }
}

#[test]
fn long_names_mark_their_file_system() {
    let (_, disk, live) = mounted(MountOptions { longname: true, ..MountOptions::default() });
    let name = "n".repeat(1000);
    let file = make(&live, live.vfs.root(), &name, 0o100_644, 0);
    live.vfs.write(file, 0, b"held by a long name", false, true).unwrap();
    ended(&disk, live);
    // Without the option they are found, but not made.
    let live = disk.open();
    let found = |name: &str| live.vfs.lookup(live.vfs.root(), name.as_bytes(), zfs_zpl::CaseMode::Dataset);
    assert_eq!(found(&name).unwrap(), file);
    assert_eq!(found(&"m".repeat(1000)).unwrap_err().kind(), ErrorKind::NameTooLong);
    let active = live.spa.ops().feature_active(zfs_phys::feature::Feature::Longname);
    assert!(active, "the feature counts as used");
    live.close();
}
