//! New files of every kind.

use super::{Attrs, acl, stamp, word};
use crate::attr::{CaseMode, FileKind};
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::sa::{SaHandle, ZplAttr as A};
use zfs_dmu::txg::Tx;
use zfs_dmu::{Dnode, ObjectSpec, Zap};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::znode::{
    ZFS_ACL_AUTO_INHERIT, ZFS_ACL_TRIVIAL, ZFS_ARCHIVE, ZFS_AV_MODIFIED, ZFS_NO_EXECS_DENIED, ZFS_PROJID,
    ZFS_PROJINHERIT, ZFS_XATTR, ZNODE_PHYS_SIZE,
};
use zfs_zio::{Error, ErrorKind, Result};

const S_ISGID: u32 = 0o2000;
/// Longest target of a symbolic link, bytes.
const MAX_TARGET: usize = 4095;

/// A file to make.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewFile<'a> {
    /// Type and permission bits, the process's mask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group; that of the directory when this has the set-group-id bit.
    pub gid: u32,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Target of a symbolic link.
    pub target: &'a [u8],
    /// Permissions that the process does not want its files to have. Counts only for front ends ([`crate::Vfs::create`]),
    /// and there only in directories without a default access list.
    pub umask: u32,
}

/// Where a new file will belong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) parent: u64,
    pub(super) xattr: bool,
    pub(super) projid: Option<u64>,
    pub(super) proj_inherit: bool,
    pub(super) links: u64,
}

impl Zfs {
    /// Makes a file called `name` in directory `dir`; gives its object number.
    ///
    /// # Errors
    /// `Exists`, `NotFound` when the directory was removed, and what the name or the flags of the directory forbid.
    pub fn create(&self, dir: u64, name: &[u8], new: &NewFile<'_>) -> Result<u64> {
        self.check_name(name)?;
        let kind = FileKind::of_mode(new.mode).ok_or_else(|| Error::invalid("making a file of no kind"))?;
        if new.target.len() > MAX_TARGET {
            return Err(Error::new(ErrorKind::NameTooLong, "making a symbolic link"));
        }
        let _locked = self.lock(&[dir])?;
        let parent = self.living(dir)?;
        parent.require_dir()?;
        self.check_flags(&parent, true)?;
        match self.lookup_locked(dir, name, CaseMode::Dataset) {
            Ok(_) => return Err(Error::new(ErrorKind::Exists, "making a file")),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let (new, origin) = (inherit(new, &parent, kind), origin_of(&parent, 1));
        self.within_quotas((new.uid, new.gid, origin.projid.unwrap_or(0)), true)?;
        let tx = self.begin()?;
        let dnode = self.make_node(&tx, &new, &origin)?;
        self.link_in(&tx, &parent, name, dnode.object(), kind)?;
        self.log_create(&tx, &parent, name, &dnode)?;
        Ok(dnode.object())
    }

    /// Makes a file without a name (`O_TMPFILE`), which goes unless it is linked while open.
    ///
    /// # Errors
    /// As [`Zfs::create`].
    pub fn create_unnamed(&self, dir: u64, new: &NewFile<'_>) -> Result<u64> {
        let _locked = self.lock(&[dir])?;
        let parent = self.living(dir)?;
        parent.require_dir()?;
        let (new, origin) = (inherit(new, &parent, FileKind::Regular), origin_of(&parent, 0));
        self.within_quotas((new.uid, new.gid, origin.projid.unwrap_or(0)), true)?;
        let tx = self.begin()?;
        let dnode = self.make_node(&tx, &new, &origin)?;
        self.unlinked_add(&tx, dnode.object())?;
        Ok(dnode.object())
    }

    /// Allocates the object of a new file and stores its attributes.
    pub(super) fn make_node(&self, tx: &Tx, new: &NewFile<'_>, origin: &Origin) -> Result<Arc<Dnode>> {
        let kind = FileKind::of_mode(new.mode).ok_or_else(|| Error::invalid("making a file of no kind"))?;
        let dir = kind == FileKind::Directory;
        let ty = if dir { Ot::DIRECTORY_CONTENTS } else { Ot::PLAIN_FILE_CONTENTS };
        let old = self.registry().is_legacy();
        let spec = ObjectSpec {
            object_type: ty,
            bonus_type: if old { Ot::ZNODE } else { Ot::SA },
            bonus_len: if old { ZNODE_PHYS_SIZE } else { 0 },
            slots: self.options().dnode_slots,
            ..ObjectSpec::default()
        };
        let given = self.given();
        let dnode = match given {
            Some(given) => self.objset().claim(tx, given.object, &ObjectSpec { slots: given.slots, ..spec })?,
            None => self.objset().allocate(tx, &spec)?,
        };
        let new = &NewFile { mode: given.map_or(new.mode, |given| given.mode), ..*new };
        if dir {
            Zap::init(self.objset(), tx, &dnode, self.normflags())?;
        }
        let list = acl::trivial(new.mode, dir);
        let now = stamp(given.map_or(self.now()?, |given| given.time));
        let flags = self.new_flags(new.mode, dir, origin);
        let mut attrs: Attrs = vec![
            (A::Mode, word(u64::from(new.mode))),
            (A::Size, word(if dir { 2 } else { new.target.len() as u64 })),
            (A::Gen, word(given.map_or(tx.txg(), |given| given.generation))),
            (A::Uid, word(u64::from(new.uid))),
            (A::Gid, word(u64::from(new.gid))),
            (A::Parent, word(origin.parent)),
            (A::Flags, word(flags)),
            (A::Atime, now.clone()),
            (A::Mtime, now.clone()),
            (A::Ctime, now.clone()),
            (A::Crtime, now),
            (A::Links, word(if dir { 2 } else { origin.links })),
        ];
        if let Some(projid) = origin.projid {
            attrs.push((A::Projid, word(projid)));
        }
        if matches!(kind, FileKind::BlockDevice | FileKind::CharDevice) {
            attrs.push((A::Rdev, word(device_number(new.rdev))));
        }
        attrs.push((A::DaclCount, word(list.count)));
        attrs.push((A::DaclAces, list.bytes));
        if kind == FileKind::Symlink {
            attrs.push((A::Symlink, new.target.to_vec()));
        }
        SaHandle::create(self.registry(), &dnode)?.update(tx, self.objset(), &attrs)?;
        Ok(dnode)
    }

    fn new_flags(&self, mode: u32, dir: bool, origin: &Origin) -> u64 {
        let mut flags = ZFS_ARCHIVE | ZFS_AV_MODIFIED | ZFS_ACL_TRIVIAL;
        if dir {
            flags |= ZFS_ACL_AUTO_INHERIT;
        }
        if mode & 0o111 == 0o111 {
            flags |= ZFS_NO_EXECS_DENIED;
        }
        if origin.xattr {
            flags |= ZFS_XATTR;
        }
        if origin.projid.is_some() {
            flags |= ZFS_PROJID;
        }
        if origin.proj_inherit {
            flags |= ZFS_PROJINHERIT;
        }
        flags
    }
}

/// What a new file takes over from its directory.
pub(super) fn inherit<'a>(new: &NewFile<'a>, parent: &Znode, kind: FileKind) -> NewFile<'a> {
    let mut new = *new;
    if parent.attr().mode & S_ISGID != 0 {
        new.gid = parent.attr().gid;
        if kind == FileKind::Directory {
            new.mode |= S_ISGID;
        }
    }
    new
}

pub(super) fn origin_of(parent: &Znode, links: u64) -> Origin {
    let flags = parent.flags();
    let inherits = flags & ZFS_PROJINHERIT != 0;
    Origin {
        parent: parent.dnode().object(),
        xattr: flags & ZFS_XATTR != 0,
        // A project id is stored wherever its directory has one.
        projid: (flags & ZFS_PROJID != 0).then_some(if inherits { parent.attr().projid } else { 0 }),
        proj_inherit: inherits,
        links,
    }
}

/// Linux's 32-bit device number: 12 bits of major and 20 of minor.
fn device_number((major, minor): (u32, u32)) -> u64 {
    (u64::from(major) << 20) | u64::from(minor & 0xf_ffff)
}
