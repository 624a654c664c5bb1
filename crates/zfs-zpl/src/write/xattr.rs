//! Extended attributes that are set: packed with the file while they are small, else files of a hidden directory.

use super::create::{NewFile, Origin};
use super::{Attrs, SetAttr, stamp, word};
use crate::acl;
use crate::attr::FileKind;
use crate::xattr::{Space, space_of};
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::Zap;
use zfs_dmu::sa::ZplAttr as A;
use zfs_dmu::txg::Tx;
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::znode::Dirent;
use zfs_zio::{Error, ErrorKind, Result};

/// Largest value kept with the file (`DXATTR_MAX_ENTRY_SIZE`), and of all of them together (`DXATTR_MAX_SA_SIZE`).
const MAX_ENTRY: usize = 32768;
const MAX_PACKED: usize = 65536;
/// Largest value at all (`XATTR_SIZE_MAX`).
const MAX_VALUE: usize = 65536;

/// Whether a name must be new or must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrMode {
    /// Either.
    #[default]
    Any,
    /// It must be new (`XATTR_CREATE`).
    Create,
    /// It must be there (`XATTR_REPLACE`).
    Replace,
}

impl Zfs {
    /// Sets (or, without a value, removes) an extended attribute by its Linux name. `privileged` callers may use the
    /// `trusted.` and `security.` ones.
    ///
    /// # Errors
    /// `Unsupported` for namespaces that are off, `Access` for privileged ones, else as the mode demands.
    pub fn setxattr(
        &self,
        object: u64,
        name: &[u8],
        value: Option<&[u8]>,
        mode: XattrMode,
        privileged: bool,
    ) -> Result<()> {
        match space_of(name) {
            Space::User if self.options().xattr => {}
            Space::Security => {}
            Space::Trusted if privileged => {}
            Space::Trusted => return Err(Error::new(ErrorKind::Access, "setting a trusted attribute")),
            Space::Acl if self.posix_acls() => return self.set_posix_acl(object, name, value),
            _ => return Err(Error::unsupported("setting an extended attribute of a namespace that is off")),
        }
        self.set_stored_xattr(object, name, value, mode)
    }

    /// A list that says no more than the mode is not kept; one that says more sets the mode's group bits.
    fn set_posix_acl(&self, object: u64, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let entries = value.map(acl::decode).transpose()?;
        let mut value = value;
        if let (true, Some(entries)) = (name == acl::ACCESS.as_bytes(), &entries) {
            let mode = acl::mode_of(entries, self.znode(object)?.attr().mode);
            self.setattr(object, &SetAttr { mode: Some(mode), ..SetAttr::default() })?;
            if entries.len() <= 3 {
                value = None;
            }
        }
        match (value, self.set_stored_xattr(object, name, value, XattrMode::Any)) {
            // Nothing was kept before either.
            (None, Err(e)) if e.kind() == ErrorKind::NoData => Ok(()),
            (_, done) => done,
        }
    }

    /// Sets (or, without a value, removes) an extended attribute by its name on disk; which names a caller may use is
    /// checked before.
    ///
    /// # Errors
    /// `Exists` and `NoData` as `mode` demands; `Range` for values that are too large.
    pub(crate) fn set_stored_xattr(
        &self,
        object: u64,
        name: &[u8],
        value: Option<&[u8]>,
        mode: XattrMode,
    ) -> Result<()> {
        if value.is_some_and(|v| v.len() > MAX_VALUE) {
            return Err(Error::new(ErrorKind::Range, "setting an extended attribute"));
        }
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        let there = self.stored_value(&znode, name)?.is_some();
        match (mode, there, value) {
            (XattrMode::Create, true, _) => return Err(Error::new(ErrorKind::Exists, "setting an extended attribute")),
            (XattrMode::Replace, false, _) | (_, false, None) => {
                return Err(Error::new(ErrorKind::NoData, "changing an extended attribute that is not there"));
            }
            _ => {}
        }
        let text = std::str::from_utf8(name).ok();
        let tx = self.begin()?;
        let by_record = self.is_replaying();
        let mut list = self.kept_with(&znode)?.unwrap_or_else(NvList::new);
        let packed = list.pairs.iter().any(|(n, _)| n.as_bytes() == name);
        list.pairs.retain(|(n, _)| n.as_bytes() != name);
        // Old znodes have no room for them.
        let may = (self.options().xattr_sa || by_record) && !znode.is_legacy();
        let fits = may && text.is_some() && value.is_some_and(|v| v.len() <= MAX_ENTRY);
        let mut kept = false;
        if let (true, Some(text), Some(value)) = (fits, text, value) {
            list.pairs.push((text.to_owned(), NvValue::ByteArray(value.to_vec())));
            kept = list.encode_xdr().len() <= MAX_PACKED;
            if !kept {
                list.pairs.pop();
            }
        }
        if kept || packed {
            self.set_attrs(&tx, znode.dnode(), &vec![(A::Dxattr, list.encode_xdr())])?;
            self.log_xattr(&tx, &znode, name, value.filter(|_| kept));
        }
        // A value in the directory is the old one, or one that does not fit beside the file.
        if znode.xattr_dir() != 0 {
            self.remove_attribute_file(&tx, &znode, name)?;
        }
        if let (false, Some(value)) = (kept, value) {
            self.make_attribute_file(&tx, &znode, name, value)?;
        }
        let znode = self.znode(object)?;
        self.set_attrs(&tx, znode.dnode(), &vec![(A::Ctime, stamp(self.now()?))])
    }

    fn remove_attribute_file(&self, tx: &Tx, znode: &Arc<Znode>, name: &[u8]) -> Result<()> {
        let dir = self.znode(znode.xattr_dir())?;
        let zap = Zap::open_dnode(self.objset(), dir.dnode().clone())?;
        let Some(entry) = zap.lookup(name)? else { return Ok(()) };
        zap.remove(tx, name)?;
        let object = Dirent::decode(entry.first()).object;
        self.free_object(tx, object)?;
        self.log_remove(tx, &dir, name, object, false);
        let now = stamp(self.now()?);
        let size = dir.size().saturating_sub(1);
        self.set_attrs(tx, dir.dnode(), &vec![(A::Size, word(size)), (A::Mtime, now.clone()), (A::Ctime, now)])
    }

    fn make_attribute_file(&self, tx: &Tx, znode: &Arc<Znode>, name: &[u8], value: &[u8]) -> Result<()> {
        let (uid, gid) = (znode.attr().uid, znode.attr().gid);
        let dir = match znode.xattr_dir() {
            0 => self.attribute_dir(tx, znode)?,
            dir => dir,
        };
        let new = NewFile { mode: 0o100_644, uid, gid, ..NewFile::default() };
        let file = self.make_node(tx, &new, &in_attribute_dir(dir))?;
        let dir = self.znode(dir)?;
        self.link_in(tx, &dir, name, file.object(), FileKind::Regular)?;
        self.log_create(tx, &dir, name, &file)?;
        let znode = self.znode(file.object())?;
        self.put_contents(tx, &znode, value)
    }

    /// Makes the directory of a file's extended attributes; gives its number.
    fn attribute_dir(&self, tx: &Tx, znode: &Arc<Znode>) -> Result<u64> {
        let (uid, gid) = (znode.attr().uid, znode.attr().gid);
        let new = NewFile { mode: 0o041_777, uid, gid, ..NewFile::default() };
        let dir = self.make_node(tx, &new, &in_attribute_dir(znode.dnode().object()))?;
        let attrs: Attrs = vec![(A::Xattr, word(dir.object()))];
        self.set_attrs(tx, znode.dnode(), &attrs)?;
        self.log_create(tx, znode, b"", &dir)?;
        Ok(dir.object())
    }

    /// Makes the directory of a file's extended attributes, unless it is there.
    pub(super) fn make_attribute_dir(&self, object: u64) -> Result<()> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        if znode.xattr_dir() == 0 {
            let tx = self.begin()?;
            self.attribute_dir(&tx, &znode)?;
        }
        Ok(())
    }
}

/// Where what belongs to a file's extended attributes comes from.
fn in_attribute_dir(parent: u64) -> Origin {
    Origin { parent, xattr: true, projid: None, proj_inherit: false, links: 1 }
}
