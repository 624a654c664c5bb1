//! Requests that change files.

use crate::abi::{Body, FOPEN_KEEP_CACHE, Out, Request};
use crate::attrs;
use crate::server::{Answer, Fail, Result, Server, must};
use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_IMMUTABLE, ZFS_NODUMP, ZFS_PROJINHERIT};
use zfs_zpl::{Allocate, Attr, FileKind, NewFile, NodeId, RenameFlags, SetAttr, Time, XattrMode};

/// Bits of `fuse_setattr_in.valid`.
mod valid {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `FUSE_WRITE_KILL_SUIDGID`: the writer has no privilege to keep set-id bits.
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FUSE_SETXATTR_ACL_KILL_SGID`: the list takes the set-group-id bit away.
const SETXATTR_ACL_KILL_SGID: u32 = 1;
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;
/// Bytes copied at once for `copy_file_range`.
const COPY_PIECE: u64 = 1 << 20;
/// File flags that users can set.
const SETTABLE: u64 = ZFS_IMMUTABLE | ZFS_APPENDONLY | ZFS_NODUMP | ZFS_PROJINHERIT;

/// Device number from the kernel's wire (`new_decode_dev`).
const fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00))
}

impl Server {
    /// A name's node and attributes, as the kernel wants them for everything new.
    fn entry(&self, node: NodeId) -> Result<Out> {
        let mut o = Out::default();
        attrs::push_entry(&mut o, &self.vfs, node, &self.vfs.getattr(node)?);
        Ok(o)
    }

    fn make(&self, dir: NodeId, name: &[u8], new: &NewFile<'_>) -> Result<NodeId> {
        Ok(self.vfs.create(dir, name, new)?)
    }

    pub(crate) fn mknod(&self, dir: NodeId, r: &Request<'_>) -> Result<Answer> {
        let mut b = r.body();
        let (mode, dev) = (must(b.u32())?, must(b.u32())?);
        let umask = must(b.u32())?;
        must(b.u32())?;
        let new = NewFile { mode, uid: r.uid, gid: r.gid, rdev: decode_dev(dev), target: b"", umask };
        let node = self.make(dir, must(b.name())?, &new)?;
        Ok(self.entry(node)?.into())
    }

    pub(crate) fn mkdir(&self, dir: NodeId, r: &Request<'_>) -> Result<Answer> {
        let mut b = r.body();
        let (mode, umask) = (must(b.u32())?, must(b.u32())?);
        let mode = (mode & 0o7777) | (u32::from(FileKind::Directory.dirent()) << 12);
        let new = NewFile { mode, uid: r.uid, gid: r.gid, umask, ..NewFile::default() };
        let node = self.make(dir, must(b.name())?, &new)?;
        Ok(self.entry(node)?.into())
    }

    pub(crate) fn symlink(&self, dir: NodeId, r: &Request<'_>) -> Result<Answer> {
        let mut b = r.body();
        let (name, target) = (must(b.name())?, must(b.name())?);
        let mode = 0o777 | (u32::from(FileKind::Symlink.dirent()) << 12);
        let new = NewFile { mode, uid: r.uid, gid: r.gid, target, ..NewFile::default() };
        let node = self.make(dir, name, &new)?;
        Ok(self.entry(node)?.into())
    }

    /// `CREATE` and `TMPFILE`: makes a regular file and opens it.
    pub(crate) fn create(&self, dir: NodeId, r: &Request<'_>, named: bool) -> Result<Answer> {
        let mut b = r.body();
        must(b.u32())?;
        let (mode, umask) = (must(b.u32())?, must(b.u32())?);
        must(b.u32())?;
        let mode = (mode & 0o7777) | (u32::from(FileKind::Regular.dirent()) << 12);
        let new = NewFile { mode, uid: r.uid, gid: r.gid, umask, ..NewFile::default() };
        let node = if named { self.make(dir, must(b.name())?, &new)? } else { self.vfs.create_unnamed(dir, &new)? };
        self.vfs.hold(node);
        let mut o = self.entry(node)?;
        o.u64(0).u32(FOPEN_KEEP_CACHE).u32(0);
        Ok(o.into())
    }

    pub(crate) fn link(&self, dir: NodeId, mut b: Body<'_>) -> Result<Answer> {
        let node = attrs::node_of(&self.vfs, must(b.u64())?);
        self.vfs.link(node, dir, must(b.name())?)?;
        Ok(self.entry(node)?.into())
    }

    pub(crate) fn remove(&self, dir: NodeId, mut b: Body<'_>, rmdir: bool) -> Result<Answer> {
        self.vfs.remove(dir, must(b.name())?, rmdir)?;
        Ok(Answer::Bytes(Vec::new()))
    }

    pub(crate) fn rename(&self, from: NodeId, r: &Request<'_>, with_flags: bool) -> Result<Answer> {
        let mut b = r.body();
        let to = attrs::node_of(&self.vfs, must(b.u64())?);
        let flags = if with_flags { must(b.u64())? as u32 } else { 0 };
        let how = match flags {
            0 => RenameFlags::Replace,
            RENAME_NOREPLACE => RenameFlags::NoReplace,
            RENAME_EXCHANGE => RenameFlags::Exchange,
            // That the new name is free, which NOREPLACE asks for, was checked by the kernel, which has both directories locked.
            f if f & !RENAME_NOREPLACE == RENAME_WHITEOUT => RenameFlags::Whiteout { uid: r.uid, gid: r.gid },
            _ => return Err(Fail::Errno(libc::EINVAL)),
        };
        let (name, new_name) = (must(b.name())?, must(b.name())?);
        self.vfs.rename(from, name, to, new_name, how)?;
        Ok(Answer::Bytes(Vec::new()))
    }

    pub(crate) fn setattr(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        let which = must(b.u32())?;
        must(b.take(12))?;
        let size = must(b.u64())?;
        must(b.u64())?;
        let (atime, mtime, ctime) = (must(b.u64())?, must(b.u64())?, must(b.u64())?);
        let (atime_ns, mtime_ns, ctime_ns) = (must(b.u32())?, must(b.u32())?, must(b.u32())?);
        let mode = must(b.u32())?;
        must(b.u32())?;
        let (uid, gid) = (must(b.u32())?, must(b.u32())?);
        let has = |bit: u32| which & bit != 0;
        let now = self.vfs.dataset().now()?;
        let time = |bit, now_bit, sec: u64, nsec| match () {
            () if has(now_bit) => Some(now),
            () if has(bit) => Some(Time { sec: sec as i64, nsec }),
            () => None,
        };
        let mut set = SetAttr {
            mode: has(valid::MODE).then_some(mode),
            uid: has(valid::UID).then_some(uid),
            gid: has(valid::GID).then_some(gid),
            size: has(valid::SIZE).then_some(size),
            atime: time(valid::ATIME, valid::ATIME_NOW, atime, atime_ns),
            mtime: time(valid::MTIME, valid::MTIME_NOW, mtime, mtime_ns),
            ctime: time(valid::CTIME, 0, ctime, ctime_ns),
            ..SetAttr::default()
        };
        // A change of owner takes set-id bits away; so does the kernel's own wish. Of `chown(path, -1, -1)` the kernel says
        // nothing but that there was one.
        let kills = has(valid::KILL_SUIDGID) || set.uid.is_some() || set.gid.is_some() || which == 0;
        if set.mode.is_none() && kills {
            set.mode = without_set_ids(&self.vfs.getattr(node)?);
        }
        self.vfs.setattr(node, &set)?;
        self.attributes(node)
    }

    pub(crate) fn write(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        must(b.u64())?;
        let (offset, size) = (must(b.u64())?, must(b.u32())?);
        let flags = must(b.u32())?;
        must(b.u64())?;
        let open_flags = must(b.u32())? as i32;
        let append = open_flags & libc::O_APPEND != 0;
        must(b.u32())?;
        let data = must(b.take(size as usize))?;
        self.vfs.write(node, offset, data, append, flags & WRITE_KILL_SUIDGID == 0)?;
        // Both ways of asking that a write be durable have this bit.
        if open_flags & libc::O_DSYNC != 0 {
            self.vfs.sync(node)?;
        }
        let mut o = Out::default();
        o.u32(size).u32(0);
        Ok(o.into())
    }

    pub(crate) fn fallocate(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        must(b.u64())?;
        let (offset, len, mode) = (must(b.u64())?, must(b.u64())?, must(b.u32())? as i32);
        let (keep, punch, zero) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
        let how = match mode {
            0 => Allocate::Extend,
            m if m == keep => Allocate::KeepSize,
            m if m == keep | punch => Allocate::PunchHole,
            m if m == zero => Allocate::ZeroRange,
            m if m == zero | keep => Allocate::PunchHole,
            _ => return Err(Fail::Errno(libc::EOPNOTSUPP)),
        };
        self.vfs.allocate(node, offset, len, how)?;
        Ok(Answer::Bytes(Vec::new()))
    }

    /// Copies by reading and writing.
    pub(crate) fn copy_range(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        must(b.u64())?;
        let (from, to_node) = (must(b.u64())?, attrs::node_of(&self.vfs, must(b.u64())?));
        must(b.u64())?;
        let (to, len) = (must(b.u64())?, must(b.u64())?);
        let mut done = 0u64;
        while done < len {
            let want = (len - done).min(COPY_PIECE) as usize;
            let mut piece = Vec::with_capacity(want);
            self.vfs.read(node, from + done, want)?.iter().for_each(|s| piece.extend_from_slice(s));
            if piece.is_empty() {
                break;
            }
            self.vfs.write(to_node, to + done, &piece, false, true)?;
            done += piece.len() as u64;
        }
        let mut o = Out::default();
        o.u32(u32::try_from(done).unwrap_or(u32::MAX)).u32(0);
        Ok(o.into())
    }

    pub(crate) fn setxattr(&self, node: NodeId, r: &Request<'_>) -> Result<Answer> {
        let mut b = r.body();
        let (size, flags) = (must(b.u32())? as usize, must(b.u32())? as i32);
        let more = if self.long_setxattr { must(b.u64())? as u32 } else { 0 };
        let name = must(b.name())?;
        let value = must(b.take(size))?;
        let mode = match flags {
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => XattrMode::Any,
        };
        if more & SETXATTR_ACL_KILL_SGID != 0 {
            let mode = self.vfs.getattr(node)?.mode & 0o7777;
            self.vfs.setattr(node, &SetAttr { mode: Some(mode & !0o2000), ..SetAttr::default() })?;
        }
        self.vfs.setxattr(node, name, Some(value), mode, r.uid == 0)?;
        Ok(Answer::Bytes(Vec::new()))
    }

    pub(crate) fn removexattr(&self, node: NodeId, r: &Request<'_>) -> Result<Answer> {
        let name = must(r.body().name())?;
        self.vfs.setxattr(node, name, None, XattrMode::Replace, r.uid == 0)?;
        Ok(Answer::Bytes(Vec::new()))
    }

    /// Sets the file flags of an `FS_IOC_SETFLAGS` argument.
    pub(crate) fn set_flags(&self, node: NodeId, argument: u32) -> Result<()> {
        let on = attrs::flags_of(argument);
        let set = SetAttr { flags: Some((on & SETTABLE, SETTABLE)), ..SetAttr::default() };
        Ok(self.vfs.setattr(node, &set)?)
    }

    /// Sets the flags and the project of an `FS_IOC_FSSETXATTR` argument.
    pub(crate) fn set_project(&self, node: NodeId, flags: u32, projid: u32) -> Result<()> {
        let (attr, on) = (self.vfs.getattr(node)?, attrs::xflags_of(flags) & SETTABLE);
        let set = SetAttr {
            flags: (attr.flags & SETTABLE != on).then_some((on, SETTABLE)),
            projid: (attr.projid != u64::from(projid)).then_some(u64::from(projid)),
            ..SetAttr::default()
        };
        if set == SetAttr::default() { Ok(()) } else { Ok(self.vfs.setattr(node, &set)?) }
    }
}

/// The mode without set-id bits, if something has any that is no directory.
fn without_set_ids(attr: &Attr) -> Option<u32> {
    let bits = 0o4000 | if attr.mode & 0o010 != 0 { 0o2000 } else { 0 };
    (attr.kind() != Some(FileKind::Directory) && attr.mode & bits != 0).then_some(attr.mode & 0o7777 & !bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        assert_eq!(decode_dev(0x103), (1, 3));
        assert_eq!(decode_dev((70000 & 0xff) | (259 << 8) | ((70000 & !0xff) << 12)), (259, 70000));
    }
}
