//! A file, decoded: the attributes of an object, from system attributes or from an old znode.
//!
//! Numbers are shown as OpenZFS's Linux port shows them: owners are the low 32 bits of the stored id (ids of Windows
//! domains appear as their relative id), the device number is Linux's own 32-bit one, link counts are as stored.

use crate::attr::{Attr, AttrMask, FileKind, Time};
use std::sync::Arc;
use zfs_dmu::Dnode;
use zfs_dmu::sa::{SaHandle, SaRegistry, ZplAttr};
use zfs_phys::znode::ZFS_PROJID;
use zfs_zio::{Error, ErrorKind, Result};

/// Longest target of a symbolic link, bytes.
const MAX_TARGET: u64 = 65536;

/// A file's descriptor and decoded attributes. Never changes.
#[derive(Debug)]
pub struct Znode {
    dnode: Arc<Dnode>,
    attr: Attr,
    parent: u64,
    xattr_dir: u64,
    legacy: bool,
}

impl Znode {
    /// Decodes the attributes of an object. Fails with [`ErrorKind::Invalid`] when it has none: it is no file.
    pub(crate) fn load(dnode: Arc<Dnode>, registry: &Arc<SaRegistry>) -> Result<Self> {
        let sa = SaHandle::open(registry, &dnode)?;
        let mode = sa.require_u64(ZplAttr::Mode)? as u32;
        let generation = sa.require_u64(ZplAttr::Gen)?;
        if generation == 0 {
            return Err(Error::corrupt(format!("file {} has no generation", dnode.object())));
        }
        let flags = sa.require_u64(ZplAttr::Flags)?;
        let projid = if flags & ZFS_PROJID != 0 { sa.get_u64(ZplAttr::Projid)? } else { None };
        let device = matches!(FileKind::of_mode(mode), Some(FileKind::BlockDevice | FileKind::CharDevice));
        let rdev = if device { sa.get_u64(ZplAttr::Rdev)?.unwrap_or(0) as u32 } else { 0 };
        let mut valid = AttrMask::BTIME;
        if projid.is_some() {
            valid = valid.and(AttrMask::PROJID);
        }
        if device {
            valid = valid.and(AttrMask::RDEV);
        }
        let attr = Attr {
            valid,
            ino: dnode.object(),
            generation: generation as u32,
            mode,
            nlink: sa.require_u64(ZplAttr::Links)? as u32,
            uid: sa.require_u64(ZplAttr::Uid)? as u32,
            gid: sa.require_u64(ZplAttr::Gid)? as u32,
            rdev: (rdev >> 20, rdev & 0xf_ffff),
            size: sa.require_u64(ZplAttr::Size)?,
            blocks: blocks(&dnode),
            blksize: u32::try_from(dnode.datablksz()).unwrap_or(u32::MAX),
            atime: time(&sa, ZplAttr::Atime)?,
            mtime: time(&sa, ZplAttr::Mtime)?,
            ctime: time(&sa, ZplAttr::Ctime)?,
            btime: time(&sa, ZplAttr::Crtime)?,
            flags,
            projid: projid.unwrap_or(0),
        };
        let parent = sa.require_u64(ZplAttr::Parent)?;
        let xattr_dir = sa.get_u64(ZplAttr::Xattr)?.unwrap_or(0);
        let legacy = sa.is_legacy();
        drop(sa);
        Ok(Self { dnode, attr, parent, xattr_dir, legacy })
    }

    /// The object.
    pub fn dnode(&self) -> &Arc<Dnode> {
        &self.dnode
    }

    /// Attributes.
    pub fn attr(&self) -> &Attr {
        &self.attr
    }

    /// Units of 512 bytes that it takes now: they change when a txg is synced, and the decoded file does not.
    pub(crate) fn blocks_now(&self) -> u64 {
        blocks(&self.dnode)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.attr.size
    }

    /// `ZFS_*` flags.
    pub fn flags(&self) -> u64 {
        self.attr.flags
    }

    /// Object number of the directory it is in; for hard links the one it was last put into.
    pub fn parent(&self) -> u64 {
        self.parent
    }

    /// Object number of the directory of extended attributes; 0 when there is none.
    pub fn xattr_dir(&self) -> u64 {
        self.xattr_dir
    }

    /// Whether its attributes are those of an old znode.
    pub(crate) fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// The packed list of extended attributes that are kept with the file itself.
    pub(crate) fn packed_xattrs(&self, registry: &Arc<SaRegistry>) -> Result<Option<Vec<u8>>> {
        if self.legacy || registry.number(ZplAttr::Dxattr).is_none() {
            return Ok(None);
        }
        let sa = SaHandle::open(registry, &self.dnode)?;
        Ok(sa.get(ZplAttr::Dxattr)?.map(|(bytes, _)| bytes.to_vec()))
    }

    /// The target of a symbolic link. Fails with [`ErrorKind::Invalid`] on other files.
    pub(crate) fn symlink(&self, registry: &Arc<SaRegistry>) -> Result<Vec<u8>> {
        if self.attr.kind() != Some(FileKind::Symlink) {
            return Err(Error::invalid("reading the target of something that is no symbolic link"));
        }
        let sa = SaHandle::open(registry, &self.dnode)?;
        if let Some((target, _)) = sa.get(ZplAttr::Symlink)? {
            return Ok(target.to_vec());
        }
        if self.attr.size > MAX_TARGET {
            return Err(Error::corrupt("a symbolic link with an endless target"));
        }
        self.dnode.read_vec(0, self.attr.size as usize)
    }

    /// Fails with [`ErrorKind::NotDir`] unless it is a directory.
    pub(crate) fn require_dir(&self) -> Result<()> {
        if self.attr.is_dir() { Ok(()) } else { Err(Error::new(ErrorKind::NotDir, "using a file as a directory")) }
    }

    /// Fails unless it is a regular file.
    pub(crate) fn require_data(&self) -> Result<()> {
        match self.attr.kind() {
            Some(FileKind::Regular) => Ok(()),
            Some(FileKind::Directory) => Err(Error::new(ErrorKind::IsDir, "opening a directory as a file")),
            _ => Err(Error::invalid("opening something that is no file")),
        }
    }
}

/// Units of 512 bytes: what the blocks take, rounded to the nearest, and the slots of the dnode itself.
fn blocks(dnode: &Dnode) -> u64 {
    let phys = dnode.phys();
    (phys.used_bytes().saturating_add(256) >> 9).saturating_add(phys.slots() as u64)
}

fn time(sa: &SaHandle, attr: ZplAttr) -> Result<Time> {
    let (sec, nsec) = sa.get_time(attr)?.unwrap_or_default();
    Ok(Time { sec, nsec: u32::try_from(nsec).ok().filter(|&n| n < 1_000_000_000).unwrap_or(0) })
}
