//! The half of the [`Vfs`] API that changes files. Only the mounted dataset can be changed: what is below `.zfs` fails
//! with [`ErrorKind::ReadOnly`].

use crate::attr::NodeId;
use crate::vfs::Vfs;
use crate::write::{Allocate, NewFile, RenameFlags, SetAttr, XattrMode};
use crate::zfs::Zfs;
use zfs_zio::{Error, ErrorKind, Result};

impl Vfs {
    fn changeable(&self, node: NodeId) -> Result<(&Zfs, u64)> {
        let control = matches!(node.object(), crate::INO_CTL_ROOT | crate::INO_SNAPDIR);
        if node.tree() != 0 || control || !self.dataset().is_writable() {
            return Err(Error::new(ErrorKind::ReadOnly, "changing a file"));
        }
        Ok((self.dataset(), node.object()))
    }

    /// Whether files of the mounted dataset can be changed.
    pub fn is_writable(&self) -> bool {
        self.dataset().is_writable()
    }

    fn not_control(&self, dir: NodeId, name: &[u8]) -> Result<()> {
        if dir == self.root() && name == crate::CTL_NAME && self.has_control() {
            return Err(Error::new(ErrorKind::Exists, "using the name of the control directory"));
        }
        Ok(())
    }

    /// Makes a file; see [`Zfs::create_inheriting`].
    pub fn create(&self, dir: NodeId, name: &[u8], new: &NewFile<'_>) -> Result<NodeId> {
        let (zfs, object) = self.changeable(dir)?;
        self.not_control(dir, name)?;
        let made = zfs.create_inheriting(object, Some(name), new)?;
        zfs.commit_always(None)?;
        Ok(NodeId::new(0, made))
    }

    /// Makes a file without a name; see [`Zfs::create_inheriting`].
    pub fn create_unnamed(&self, dir: NodeId, new: &NewFile<'_>) -> Result<NodeId> {
        let (zfs, object) = self.changeable(dir)?;
        Ok(NodeId::new(0, zfs.create_inheriting(object, None, new)?))
    }

    /// Gives a file one more name; see [`Zfs::link`].
    pub fn link(&self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<()> {
        let ((zfs, object), (_, dir_object)) = (self.changeable(node)?, self.changeable(dir)?);
        self.not_control(dir, name)?;
        zfs.link(object, dir_object, name)?;
        zfs.commit_always(None)
    }

    /// Removes a name; see [`Zfs::remove`].
    pub fn remove(&self, dir: NodeId, name: &[u8], rmdir: bool) -> Result<()> {
        let (zfs, object) = self.changeable(dir)?;
        self.not_control(dir, name)?;
        zfs.remove(object, name, rmdir)?;
        zfs.reap_orphans()?;
        zfs.commit_always(None)
    }

    /// Moves a file to another name; see [`Zfs::rename`].
    pub fn rename(&self, from: NodeId, name: &[u8], to: NodeId, new_name: &[u8], how: RenameFlags) -> Result<()> {
        let ((zfs, from_object), (_, to_object)) = (self.changeable(from)?, self.changeable(to)?);
        self.not_control(from, name)?;
        self.not_control(to, new_name)?;
        zfs.rename(from_object, name, to_object, new_name, how)?;
        zfs.reap_orphans()?;
        zfs.commit_always(None)
    }

    /// Changes attributes; see [`Zfs::setattr_with_list`].
    pub fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<()> {
        let (zfs, object) = self.changeable(node)?;
        zfs.setattr_with_list(object, set)?;
        zfs.commit_always(Some(object))
    }

    /// Writes bytes; see [`Zfs::write`].
    pub fn write(&self, node: NodeId, offset: u64, data: &[u8], append: bool, privileged: bool) -> Result<u64> {
        let (zfs, object) = self.changeable(node)?;
        zfs.drop_capability(object)?;
        let end = zfs.write(object, offset, data, append, privileged)?;
        zfs.commit_always(Some(object))?;
        Ok(end)
    }

    /// Allocates or punches; see [`Zfs::allocate`].
    pub fn allocate(&self, node: NodeId, offset: u64, len: u64, how: Allocate) -> Result<()> {
        let (zfs, object) = self.changeable(node)?;
        zfs.allocate(object, offset, len, how)?;
        zfs.commit_always(Some(object))
    }

    /// Sets or (without a value) removes an extended attribute; see [`Zfs::setxattr`].
    pub fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: Option<&[u8]>,
        mode: XattrMode,
        privileged: bool,
    ) -> Result<()> {
        let (zfs, object) = self.changeable(node)?;
        zfs.setxattr(object, name, value, mode, privileged)?;
        zfs.commit_always(Some(object))
    }

    /// Returns once everything that was changed before is on stable storage.
    pub fn sync(&self, node: NodeId) -> Result<()> {
        match self.changeable(node) {
            Ok((zfs, object)) => zfs.sync(object),
            Err(_) => Ok(()),
        }
    }

    /// Returns once everything that was changed before, in whichever file, is on stable storage.
    pub fn sync_all(&self) -> Result<()> {
        if self.is_writable() { self.dataset().commit(None) } else { Ok(()) }
    }

    /// Whether a file may be opened for writing, at its end only (`append`) or anywhere. Fails with
    /// [`ErrorKind::Permission`] when its flags forbid that.
    pub fn may_write(&self, node: NodeId, append: bool) -> Result<()> {
        let (zfs, object) = self.changeable(node)?;
        zfs.check_flags(&*zfs.znode(object)?, append)
    }

    /// Notes that a file was read, a directory listed or a link followed.
    pub fn accessed(&self, node: NodeId) {
        if let Ok((zfs, object)) = self.changeable(node) {
            zfs.accessed(object);
        }
    }

    /// Counts a user of a file: until it is released, it lives on without a name.
    pub fn hold(&self, node: NodeId) {
        if let Ok((zfs, object)) = self.changeable(node) {
            zfs.opened(object);
        }
    }

    /// The other end of [`Vfs::hold`].
    pub fn release(&self, node: NodeId) -> Result<()> {
        match self.changeable(node) {
            Ok((zfs, object)) => zfs.released(object),
            Err(_) => Ok(()),
        }
    }
}
