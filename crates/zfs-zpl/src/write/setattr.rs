//! Attributes that are set: owner, mode, times, size, flags, project.

use super::{Attrs, acl, stamp, word};
use crate::attr::Time;
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::sa::ZplAttr as A;
use zfs_phys::znode::{ZFS_ACL_TRIVIAL, ZFS_IMMUTABLE, ZFS_NO_EXECS_DENIED, ZFS_PROJID, ZFS_READONLY};
use zfs_zio::{Error, ErrorKind, Result};

/// What to change; nothing stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes of a regular file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of contents.
    pub mtime: Option<Time>,
    /// Last change of attributes; else now.
    pub ctime: Option<Time>,
    /// `ZFS_*` flags to set and to clear.
    pub flags: Option<(u64, u64)>,
    /// Project id.
    pub projid: Option<u64>,
}

impl Zfs {
    /// Changes attributes. Whether the caller may is the front end's question; the flags of the file are ours.
    ///
    /// # Errors
    /// `Permission` for protected files, `IsDir` and `Invalid` for sizes of what has none.
    pub fn setattr(&self, object: u64, set: &SetAttr) -> Result<()> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        let only_flags = *set == SetAttr { flags: set.flags, ..SetAttr::default() };
        if znode.flags() & (ZFS_IMMUTABLE | ZFS_READONLY) != 0 && !only_flags {
            return Err(Error::new(ErrorKind::Permission, "changing attributes of a protected file"));
        }
        if set.projid.is_some() && znode.flags() & ZFS_PROJID == 0 {
            // Its place is fixed by when the file was made.
            return Err(Error::unsupported("giving a file a project that has no room for one"));
        }
        if set.size.is_some() {
            znode.require_data()?;
            self.check_flags(&znode, false)?;
        }
        let tx = match set.size {
            Some(size) => self.begin_to_resize(&znode, size)?,
            None => self.begin()?,
        };
        let now = self.now()?;
        if let Some(size) = set.size {
            self.resize(&tx, &znode, size)?;
        }
        let attrs = self.attrs_of(&znode, set, now);
        self.log_setattr(&tx, &znode, set, now);
        self.set_attrs(&tx, znode.dnode(), &attrs)
    }

    fn attrs_of(&self, znode: &Arc<Znode>, set: &SetAttr, now: Time) -> Attrs {
        let mut out = Attrs::new();
        let mut flags = znode.flags();
        if let Some(mode) = set.mode {
            let mode = (znode.attr().mode & !0o7777) | (mode & 0o7777);
            let list = acl::trivial(mode, znode.attr().is_dir());
            flags |= ZFS_ACL_TRIVIAL;
            flags = if mode & 0o111 == 0o111 { flags | ZFS_NO_EXECS_DENIED } else { flags & !ZFS_NO_EXECS_DENIED };
            out.push((A::Mode, word(u64::from(mode))));
            out.push((A::DaclCount, word(list.count)));
            out.push((A::DaclAces, list.bytes));
        }
        if let Some((on, off)) = set.flags {
            flags = (flags & !off) | on;
        }
        if let Some(projid) = set.projid {
            flags |= ZFS_PROJID;
            out.push((A::Projid, word(projid)));
        }
        let ids = [(A::Uid, set.uid), (A::Gid, set.gid)];
        out.extend(ids.into_iter().filter_map(|(a, id)| Some((a, word(u64::from(id?))))));
        let mtime = set.mtime.or(set.size.map(|_| now));
        let times = [(A::Atime, set.atime), (A::Mtime, mtime), (A::Ctime, set.ctime.or(Some(now)))];
        out.extend(times.into_iter().filter_map(|(a, t)| Some((a, stamp(t?)))));
        if flags != znode.flags() {
            out.push((A::Flags, word(flags)));
        }
        out
    }
}
