//! Attributes on the wire: `fuse_attr`, entries, `statx`, file flags.

use crate::abi::{Out, ROOT_ID};
use std::time::Duration;
use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_IMMUTABLE, ZFS_NODUMP, ZFS_PROJINHERIT};
use zfs_zpl::{Attr, AttrMask, NodeId, Statfs, Time, Vfs};

/// How long the kernel may believe what cannot change.
pub const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How long it may believe what `.zfs` shows.
pub const BRIEFLY: Duration = Duration::from_secs(1);
/// Seconds after which a change is on disk, and what it takes is known.
const SETTLED: i64 = 60;

/// Mask of all classic attributes and the time of creation (`STATX_BASIC_STATS | STATX_BTIME`).
const STATX_ALL: u32 = 0xfff;
/// `STATX_ATTR_*` of flags that can be told.
const STATX_ATTRIBUTES: [(u64, u64); 3] = [(ZFS_IMMUTABLE, 0x10), (ZFS_APPENDONLY, 0x20), (ZFS_NODUMP, 0x40)];
/// `FS_*_FL` of the same.
const FS_FLAGS: [(u64, u32); 4] =
    [(ZFS_IMMUTABLE, 0x10), (ZFS_APPENDONLY, 0x20), (ZFS_NODUMP, 0x40), (ZFS_PROJINHERIT, 0x2000_0000)];
/// `FS_XFLAG_*` of the same.
const FS_XFLAGS: [(u64, u32); 4] =
    [(ZFS_IMMUTABLE, 0x8), (ZFS_APPENDONLY, 0x10), (ZFS_NODUMP, 0x80), (ZFS_PROJINHERIT, 0x200)];

/// Node number on the wire: the root is always 1, which no file can be (object 1 is the master node).
pub fn wire_id(vfs: &Vfs, node: NodeId) -> u64 {
    if node == vfs.root() { ROOT_ID } else { node.raw() }
}

/// The node of a number on the wire.
pub fn node_of(vfs: &Vfs, wire: u64) -> NodeId {
    if wire == ROOT_ID { vfs.root() } else { NodeId::from_raw(wire) }
}

/// How long the kernel may keep what it knows of `node`.
pub fn ttl(node: NodeId) -> Duration {
    let control = node.tree() == 0 && matches!(node.object(), zfs_zpl::INO_CTL_ROOT | zfs_zpl::INO_SNAPDIR);
    if control { BRIEFLY } else { FOREVER }
}

/// How long the kernel may keep attributes. The space that a file takes is known when its last change is on disk.
pub fn attr_ttl(vfs: &Vfs, node: NodeId, a: &Attr) -> Duration {
    let now = if vfs.is_writable() { vfs.dataset().now().ok() } else { None };
    match now {
        Some(now) if now.sec.saturating_sub(a.ctime.sec) < SETTLED => BRIEFLY,
        _ => ttl(node),
    }
}

/// Device number as the kernel's wire has it (`new_encode_dev`).
fn encode_dev((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Appends `fuse_attr`.
pub fn push_attr(o: &mut Out, a: &Attr) {
    o.u64(a.ino).u64(a.size).u64(a.blocks);
    o.u64(a.atime.sec as u64).u64(a.mtime.sec as u64).u64(a.ctime.sec as u64);
    o.u32(a.atime.nsec).u32(a.mtime.nsec).u32(a.ctime.nsec);
    o.u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid).u32(encode_dev(a.rdev)).u32(a.blksize).u32(0);
}

/// Appends `fuse_entry_out`: a name's node and attributes.
pub fn push_entry(o: &mut Out, vfs: &Vfs, node: NodeId, a: &Attr) {
    let (name_ttl, attr_ttl) = (ttl(node).as_secs(), attr_ttl(vfs, node, a).as_secs());
    o.u64(wire_id(vfs, node)).u64(u64::from(a.generation)).u64(name_ttl).u64(attr_ttl).u32(0).u32(0);
    push_attr(o, a);
}

/// Appends a `fuse_entry_out` that stands for no node: the name does not exist, or is only listed.
pub fn push_no_entry(o: &mut Out, ttl: Duration) {
    o.u64(0).u64(0).u64(ttl.as_secs()).u64(0).u32(0).u32(0);
    o.0.extend_from_slice(&[0; 88]);
}

/// `fuse_attr_out`.
pub fn attr_out(a: &Attr, ttl: Duration) -> Out {
    let mut o = Out::default();
    o.u64(ttl.as_secs()).u32(0).u32(0);
    push_attr(&mut o, a);
    o
}

/// `fuse_statx_out`.
pub fn statx_out(a: &Attr, ttl: Duration) -> Out {
    let mut o = Out::default();
    o.u64(ttl.as_secs()).u32(0).u32(0).u64(0).u64(0);
    let mask = if a.valid.has(AttrMask::BTIME) { STATX_ALL } else { STATX_ALL & !0x800 };
    let told = |(_, attribute): &(u64, u64)| *attribute;
    let set = STATX_ATTRIBUTES.iter().filter(|(flag, _)| a.flags & flag != 0).map(told).sum();
    o.u32(mask).u32(a.blksize).u64(set).u32(a.nlink).u32(a.uid).u32(a.gid).u16(a.mode as u16).u16(0);
    o.u64(a.ino).u64(a.size).u64(a.blocks).u64(STATX_ATTRIBUTES.iter().map(told).sum());
    for Time { sec, nsec } in [a.atime, a.btime, a.ctime, a.mtime] {
        o.u64(sec as u64).u32(nsec).u32(0);
    }
    o.u32(a.rdev.0).u32(a.rdev.1).u32(0).u32(0);
    o.0.extend_from_slice(&[0; 14 * 8]);
    o
}

/// `fuse_statfs_out`.
pub fn statfs_out(s: &Statfs) -> Out {
    let mut o = Out::default();
    o.u64(s.blocks).u64(s.bfree).u64(s.bfree).u64(s.files).u64(s.ffree);
    o.u32(s.bsize).u32(s.namelen).u32(s.bsize);
    o.0.resize(80, 0);
    o
}

/// The value of `FS_IOC_GETFLAGS`.
pub fn fs_flags(a: &Attr) -> u32 {
    FS_FLAGS.iter().filter(|(flag, _)| a.flags & flag != 0).map(|(_, bit)| bit).sum()
}

/// The file flags that the argument of `FS_IOC_SETFLAGS` asks for.
pub fn flags_of(argument: u32) -> u64 {
    FS_FLAGS.iter().filter(|(_, bit)| argument & bit != 0).map(|(flag, _)| flag).sum()
}

/// The file flags that the argument of `FS_IOC_FSSETXATTR` asks for.
pub fn xflags_of(argument: u32) -> u64 {
    FS_XFLAGS.iter().filter(|(_, bit)| argument & bit != 0).map(|(flag, _)| flag).sum()
}

/// The value of `FS_IOC_FSGETXATTR` (`struct fsxattr`): flags and project id.
pub fn fsxattr(a: &Attr) -> Out {
    let mut o = Out::default();
    let flags: u32 = FS_XFLAGS.iter().filter(|(flag, _)| a.flags & flag != 0).map(|(_, bit)| bit).sum();
    o.u32(flags).u32(0).u32(0).u32(a.projid as u32).u32(0);
    o.0.resize(28, 0);
    o
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_attr() -> Attr {
        let t = |sec| Time { sec, nsec: 7 };
        Attr {
            valid: AttrMask::BTIME,
            ino: 34,
            generation: 1,
            mode: 0o100_644,
            nlink: 1,
            uid: 2,
            gid: 3,
            rdev: (259, 70000),
            size: 5,
            blocks: 6,
            blksize: 512,
            atime: t(1),
            mtime: t(2),
            ctime: t(3),
            btime: t(-1),
            flags: ZFS_IMMUTABLE | ZFS_PROJINHERIT,
            projid: 42,
        }
    }

    #[test]
    fn sizes_are_those_of_the_wire() {
        let a = some_attr();
        assert_eq!(attr_out(&a, FOREVER).0.len(), 104);
        assert_eq!(statx_out(&a, FOREVER).0.len(), 32 + 256);
        assert_eq!(statfs_out(&Statfs::default()).0.len(), 80);
        let mut o = Out::default();
        push_no_entry(&mut o, FOREVER);
        assert_eq!(o.0.len(), 128);
        assert_eq!((fs_flags(&a), fsxattr(&a).0[12]), (0x2000_0010, 42));
    }

    #[test]
    fn device_numbers() {
        assert_eq!(encode_dev((1, 3)), 0x103);
        assert_eq!(encode_dev((259, 70000)), (70000 & 0xff) | (259 << 8) | ((70000 & !0xff) << 12));
    }
}
