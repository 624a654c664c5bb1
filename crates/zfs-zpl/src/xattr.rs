//! Extended attributes, kept with the file (a packed list in its system attributes) or as files of a hidden directory.
//!
//! Names on disk are those of Linux with their namespace; other systems store names without one, which Linux shows
//! under `user.`, and FreeBSD's system attributes are hidden. POSIX ACLs are attributes of the `system.` namespace and
//! exist only on datasets with `acltype=posix`.

use crate::acl;
use crate::attr::CaseMode;
use crate::zfs::Zfs;
use crate::znode::Znode;
use zfs_dmu::zap::Zap;
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_zio::{Error, ErrorKind, Result};

const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const SECURITY: &[u8] = b"security.";
const FREEBSD_SYSTEM: &[u8] = b"freebsd:";
/// Largest value, bytes: Linux has no larger ones (`XATTR_SIZE_MAX`), other systems may.
const MAX_VALUE: u64 = 64 << 20;

/// Where a name belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    User,
    Trusted,
    Security,
    Acl,
    /// A name of another system, without namespace.
    Bare,
    Hidden,
}

pub(crate) fn space_of(stored: &[u8]) -> Space {
    match stored {
        n if n.starts_with(USER) => Space::User,
        n if n.starts_with(TRUSTED) => Space::Trusted,
        n if n.starts_with(SECURITY) => Space::Security,
        n if n == acl::ACCESS.as_bytes() || n == acl::DEFAULT.as_bytes() => Space::Acl,
        n if n.starts_with(FREEBSD_SYSTEM) => Space::Hidden,
        _ => Space::Bare,
    }
}

impl Zfs {
    /// Names of a file's extended attributes; see [`crate::Vfs::listxattr`].
    pub fn listxattr(&self, object: u64, privileged: bool) -> Result<Vec<Vec<u8>>> {
        let znode = self.znode(object)?;
        let mut out = Vec::new();
        if let Some(list) = self.kept_with(&znode)? {
            out.extend(list.pairs.iter().filter_map(|(name, _)| self.shown(name.as_bytes(), privileged)));
        }
        if znode.xattr_dir() != 0 {
            let dir = self.znode(znode.xattr_dir())?;
            dir.require_dir()?;
            for entry in Zap::open_dnode(self.objset(), dir.dnode().clone())?.iter() {
                out.extend(self.shown(entry?.name(), privileged));
            }
        }
        Ok(out)
    }

    /// The name that Linux shows for a stored one.
    fn shown(&self, stored: &[u8], privileged: bool) -> Option<Vec<u8>> {
        let options = self.options();
        let visible = match space_of(stored) {
            Space::User | Space::Bare => options.xattr,
            Space::Trusted => privileged,
            Space::Security => true,
            Space::Acl => self.posix_acls(),
            Space::Hidden => false,
        };
        if !visible || stored.is_empty() || stored.contains(&0) {
            return None;
        }
        Some(if space_of(stored) == Space::Bare { [USER, stored].concat() } else { stored.to_vec() })
    }

    /// The value of an extended attribute; see [`crate::Vfs::getxattr`].
    pub fn getxattr(&self, object: u64, name: &[u8], privileged: bool) -> Result<Vec<u8>> {
        let no_such_space = || Error::unsupported("reading an extended attribute of a namespace that is off");
        let znode = self.znode(object)?;
        let found = match space_of(name) {
            Space::User if !self.options().xattr => return Err(no_such_space()),
            Space::User => {
                let plain = name.get(USER.len()..).unwrap_or_default();
                match self.stored_value(&znode, name)? {
                    // A bare name must not reach into another namespace.
                    None if space_of(plain) == Space::Bare => self.stored_value(&znode, plain)?,
                    found => found,
                }
            }
            Space::Trusted if !privileged => return Err(Error::new(ErrorKind::Access, "reading a trusted attribute")),
            Space::Acl if !self.posix_acls() => return Err(no_such_space()),
            Space::Trusted | Space::Security | Space::Acl => self.stored_value(&znode, name)?,
            Space::Bare | Space::Hidden => return Err(no_such_space()),
        };
        found.ok_or_else(|| Error::not_found("reading an extended attribute"))
    }

    /// The list kept with the file itself.
    pub(crate) fn kept_with(&self, znode: &Znode) -> Result<Option<NvList>> {
        match znode.packed_xattrs(self.registry())? {
            Some(packed) => Ok(Some(NvList::decode(&packed)?)),
            None => Ok(None),
        }
    }

    pub(crate) fn stored_value(&self, znode: &Znode, stored: &[u8]) -> Result<Option<Vec<u8>>> {
        if stored.is_empty() {
            return Ok(None);
        }
        if let Some(list) = self.kept_with(znode)? {
            let pair = list.pairs.into_iter().rev().find(|(name, _)| name.as_bytes() == stored);
            if let Some((_, value)) = pair {
                return match value {
                    NvValue::ByteArray(bytes) | NvValue::Uint8Array(bytes) => Ok(Some(bytes)),
                    _ => Err(Error::corrupt("an extended attribute that is no array of bytes")),
                };
            }
        }
        if znode.xattr_dir() == 0 {
            return Ok(None);
        }
        match self.lookup_locked(znode.xattr_dir(), stored, CaseMode::Exact) {
            Ok(object) => self.whole_file(object).map(Some),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NameTooLong) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn whole_file(&self, object: u64) -> Result<Vec<u8>> {
        let znode = self.znode(object)?;
        znode.require_data()?;
        if znode.size() > MAX_VALUE {
            return Err(Error::new(ErrorKind::Range, "reading an extended attribute"));
        }
        znode.dnode().read_vec(0, znode.size() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        assert_eq!(space_of(b"user.x"), Space::User);
        assert_eq!(space_of(b"com.apple.FinderInfo"), Space::Bare);
        assert_eq!(space_of(b"freebsd:system:posix1e.acl_access"), Space::Hidden);
        assert_eq!(space_of(b"system.posix_acl_access"), Space::Acl);
        assert_eq!(space_of(b"system.posix_acl_accessible"), Space::Bare);
    }
}
