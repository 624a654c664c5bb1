//! Attributes between the protocol and FSKit, in one place so that none is ever left out.

use crate::api::{FsError, FsResult, ItemAttributes, ItemType, SetAttributes, TimeSpec, attribute};
use uzfs_fsproto::{Attr, SetAttrs, Time, set};
use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_HIDDEN, ZFS_IMMUTABLE, ZFS_NODUMP, ZFS_OPAQUE};

/// ZFS's flags and the BSD flags that stand for them.
const FLAGS: [(u64, u32); 5] =
    [(ZFS_NODUMP, 0x1), (ZFS_IMMUTABLE, 0x2), (ZFS_APPENDONLY, 0x4), (ZFS_OPAQUE, 0x8), (ZFS_HIDDEN, 0x8000)];

/// Type from the type bits of a mode, shifted right by 12.
pub fn item_type(kind: u32) -> ItemType {
    match kind & 0xf {
        1 => ItemType::Fifo,
        2 => ItemType::CharDevice,
        4 => ItemType::Directory,
        6 => ItemType::BlockDevice,
        8 => ItemType::File,
        10 => ItemType::Symlink,
        12 => ItemType::Socket,
        _ => ItemType::Unknown,
    }
}

fn to_spec(t: Time) -> TimeSpec {
    TimeSpec { sec: t.sec, nsec: i64::from(t.nsec) }
}

fn from_spec(t: TimeSpec) -> FsResult<Time> {
    match u32::try_from(t.nsec) {
        Ok(nsec) if nsec < 1_000_000_000 => Ok(Time { sec: t.sec, nsec }),
        _ => Err(FsError::Posix(libc::EINVAL)),
    }
}

/// Attributes that can be set: the bit on the wire, and FSKit's.
const SETTABLE: [(u32, u64); 9] = [
    (set::MODE, attribute::MODE),
    (set::UID, attribute::UID),
    (set::GID, attribute::GID),
    (set::SIZE, attribute::SIZE),
    (set::ATIME, attribute::ACCESS_TIME),
    (set::MTIME, attribute::MODIFY_TIME),
    (set::CTIME, attribute::CHANGE_TIME),
    (set::BTIME, attribute::BIRTH_TIME),
    (set::FLAGS, attribute::FLAGS),
];

/// FSKit's bits of what the daemon set.
pub fn consumed(mask: u32) -> u64 {
    SETTABLE.iter().filter(|(wire, _)| mask & wire != 0).map(|(_, bit)| bit).sum()
}

/// All attributes of a file. Numbers of file and parent are FSKit's.
pub fn attributes(a: &Attr, file_id: u64, parent_id: u64) -> ItemAttributes {
    let flags = FLAGS.iter().filter(|(zfs, _)| a.flags & zfs != 0).map(|(_, bsd)| bsd).sum();
    // Old files have no time of creation; FSKit wants one, and what changed last existed by then.
    let birth = if a.valid & uzfs_fsproto::attr_valid::BTIME != 0 { a.btime } else { a.mtime.min(a.ctime) };
    ItemAttributes {
        kind: Some(item_type(a.mode >> 12)),
        mode: Some(a.mode),
        link_count: Some(a.nlink),
        uid: Some(a.uid),
        gid: Some(a.gid),
        flags: Some(flags),
        size: Some(a.size),
        alloc_size: Some(a.blocks.saturating_mul(512)),
        file_id: Some(file_id),
        parent_id: Some(parent_id),
        access_time: Some(to_spec(a.atime)),
        modify_time: Some(to_spec(a.mtime)),
        change_time: Some(to_spec(a.ctime)),
        birth_time: Some(to_spec(birth)),
    }
}

/// What is to be set, and the bits of FSKit that this consumes. Numbers, links and types cannot be set; sizes of
/// directories and symbolic links are ignored, as FSKit wants.
pub fn to_set(request: &SetAttributes, kind: Option<ItemType>) -> FsResult<(SetAttrs, u64)> {
    let w = &request.wanted;
    if w.link_count.is_some() || w.alloc_size.is_some() || w.file_id.is_some() || w.parent_id.is_some() {
        return Err(FsError::Posix(libc::EINVAL));
    }
    let mut out = SetAttrs::default();
    let mut used = 0;
    let mut note = |mask: u32, bit: u64| {
        out.mask |= mask;
        used |= bit;
    };
    let size = w.size.filter(|_| kind == Some(ItemType::File));
    for (given, mask, bit) in [
        (w.mode.is_some(), set::MODE, attribute::MODE),
        (w.uid.is_some(), set::UID, attribute::UID),
        (w.gid.is_some(), set::GID, attribute::GID),
        (size.is_some(), set::SIZE, attribute::SIZE),
        (w.access_time.is_some(), set::ATIME, attribute::ACCESS_TIME),
        (w.modify_time.is_some(), set::MTIME, attribute::MODIFY_TIME),
        (w.change_time.is_some(), set::CTIME, attribute::CHANGE_TIME),
        (w.birth_time.is_some(), set::BTIME, attribute::BIRTH_TIME),
        (w.flags.is_some(), set::FLAGS, attribute::FLAGS),
    ] {
        if given {
            note(mask, bit);
        }
    }
    out.mode = w.mode.unwrap_or(0);
    out.uid = w.uid.unwrap_or(0);
    out.gid = w.gid.unwrap_or(0);
    out.size = size.unwrap_or(0);
    out.atime = w.access_time.map(from_spec).transpose()?.unwrap_or_default();
    out.mtime = w.modify_time.map(from_spec).transpose()?.unwrap_or_default();
    out.ctime = w.change_time.map(from_spec).transpose()?.unwrap_or_default();
    out.btime = w.birth_time.map(from_spec).transpose()?.unwrap_or_default();
    if let Some(bsd) = w.flags {
        out.flags = FLAGS.iter().filter(|(_, bit)| bsd & bit != 0).map(|(zfs, _)| zfs).sum();
    }
    Ok((out, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out() {
        let a = attributes(&Attr { mode: 0o100_644, flags: ZFS_IMMUTABLE, ..Attr::default() }, 5, 2);
        assert_eq!(a.missing(), Vec::<&str>::new());
        assert_eq!((a.kind, a.flags), (Some(ItemType::File), Some(2)));
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let mut r = SetAttributes::default();
        r.wanted.mode = Some(0o600);
        r.wanted.size = Some(9);
        assert_eq!(to_set(&r, Some(ItemType::Directory)).unwrap().1, attribute::MODE);
        assert_eq!(to_set(&r, Some(ItemType::File)).unwrap().1, attribute::MODE | attribute::SIZE);
        r.wanted.file_id = Some(3);
        assert_eq!(to_set(&r, None), Err(FsError::Posix(libc::EINVAL)));
        let mut r = SetAttributes::default();
        r.wanted.modify_time = Some(TimeSpec { sec: 0, nsec: 1_000_000_000 });
        assert!(to_set(&r, None).is_err());
    }
}
