//! POSIX access lists that follow other changes: new files start with the default list of their directory, and a new
//! mode changes the list that says more than it.
//!
//! These are transactions of their own behind the change itself, as in OpenZFS. Nobody sees the moment between: a front
//! end answers only then.

use super::{NewFile, SetAttr, XattrMode};
use crate::acl::{self, Entry};
use crate::attr::FileKind;
use crate::zfs::Zfs;
use zfs_zio::{ErrorKind, Result};

/// Name of the attribute that holds a program's privileges.
const CAPABILITY: &[u8] = b"security.capability";

impl Zfs {
    /// Makes a file, without a name when `name` is nothing. Which bits of the mode are left is up to the default list of
    /// the directory, or without one to the process's mask.
    ///
    /// # Errors
    /// As [`Zfs::create`].
    pub fn create_inheriting(&self, dir: u64, name: Option<&[u8]>, new: &NewFile<'_>) -> Result<u64> {
        let kind = FileKind::of_mode(new.mode);
        let symlink = kind == Some(FileKind::Symlink);
        let default = if symlink { None } else { self.list_of(dir, acl::DEFAULT)? };
        let mut new = *new;
        let own = default.as_ref().map(|list| acl::inherited(list, &mut new.mode));
        if default.is_none() && !symlink {
            new.mode &= !(new.umask & 0o777);
        }
        let object = match name {
            Some(name) => self.create(dir, name, &new)?,
            None => self.create_unnamed(dir, &new)?,
        };
        let is_dir = kind == Some(FileKind::Directory);
        let keep = |which: &str, list: &Option<Vec<Entry>>| match list {
            Some(list) => self.set_stored_xattr(object, which.as_bytes(), Some(&acl::encode(list)), XattrMode::Any),
            None => Ok(()),
        };
        let own = own.filter(|list| list.len() > 3);
        let kept = keep(acl::ACCESS, &own).and_then(|()| keep(acl::DEFAULT, &default.filter(|_| is_dir)));
        if let (Err(e), Some(name)) = (&kept, name) {
            tracing::debug!(objset = self.objset_id(), object, "a new file cannot have its list: {e}");
            self.remove(dir, name, is_dir)?;
        }
        kept.map(|()| object)
    }

    /// A list that a file has.
    fn list_of(&self, object: u64, which: &str) -> Result<Option<Vec<Entry>>> {
        if !self.posix_acls() {
            return Ok(None);
        }
        let value = self.stored_value(&*self.znode(object)?, which.as_bytes())?;
        value.map(|value| acl::decode(&value)).transpose()
    }

    /// Changes attributes as [`Zfs::setattr`] does, and the access list with the mode.
    ///
    /// # Errors
    /// As [`Zfs::setattr`].
    pub fn setattr_with_list(&self, object: u64, set: &SetAttr) -> Result<()> {
        self.setattr(object, set)?;
        if set.size.is_some() || set.uid.is_some() || set.gid.is_some() {
            self.drop_capability(object)?;
        }
        let Some(mode) = set.mode else { return Ok(()) };
        let Some(mut list) = self.list_of(object, acl::ACCESS)? else { return Ok(()) };
        acl::follow_mode(&mut list, mode);
        self.set_stored_xattr(object, acl::ACCESS.as_bytes(), Some(&acl::encode(&list)), XattrMode::Any)
    }

    /// Takes a program's privileges away, because it changed.
    pub(crate) fn drop_capability(&self, object: u64) -> Result<()> {
        if self.stored_value(&*self.znode(object)?, CAPABILITY)?.is_none() {
            return Ok(());
        }
        match self.set_stored_xattr(object, CAPABILITY, None, XattrMode::Any) {
            Err(e) if e.kind() == ErrorKind::NoData => Ok(()),
            other => other,
        }
    }
}
