//! Files without names: open ones live on until their last user is gone, and a table keeps them from being lost.

use super::{Attrs, word};
use crate::attr::FileKind;
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::Zap;
use zfs_dmu::sa::{SaHandle, ZplAttr as A};
use zfs_dmu::txg::Tx;
use zfs_phys::znode::{Dirent, ZFS_XATTR};
use zfs_zio::{Error, ErrorKind, Result};

impl Zfs {
    fn key(object: u64) -> String {
        format!("{object:x}")
    }

    pub(super) fn unlinked_add(&self, tx: &Tx, object: u64) -> Result<()> {
        Zap::open(self.objset(), self.unlinked_set())?.add(tx, Self::key(object).as_bytes(), &[object])
    }

    pub(super) fn unlinked_remove(&self, tx: &Tx, object: u64) -> Result<()> {
        match Zap::open(self.objset(), self.unlinked_set())?.remove(tx, Self::key(object).as_bytes()) {
            // A rollback may have taken it out.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Counts a user of a file; until [`Zfs::released`] it is not freed.
    pub fn opened(&self, object: u64) {
        if let Some(writer) = &self.writer {
            *writer.open.lock().entry(object).or_default() += 1;
        }
    }

    /// A user of a file is gone; a file without names goes with the last.
    ///
    /// # Errors
    /// What freeing meets; the file then goes at the next mount.
    pub fn released(&self, object: u64) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        {
            let mut open = writer.open.lock();
            let Some(count) = open.get_mut(&object) else { return Ok(()) };
            *count -= 1;
            if *count > 0 {
                return Ok(());
            }
            open.remove(&object);
        }
        let _locked = self.lock(&[object])?;
        match self.znode(object) {
            Ok(znode) if znode.attr().nlink == 0 => self.reap(&znode),
            _ => Ok(()),
        }
    }

    pub(super) fn is_open(&self, object: u64) -> Result<bool> {
        Ok(self.writer()?.open.lock().contains_key(&object))
    }

    /// What becomes of a file that just lost its last name, in the same transaction.
    pub(super) fn forget(&self, tx: &Tx, znode: &Arc<Znode>) -> Result<()> {
        let object = znode.dnode().object();
        // Attribute directories have files of their own, which take transactions of their own.
        if self.is_open(object)? || znode.xattr_dir() != 0 {
            self.unlinked_add(tx, object)?;
            if !self.is_open(object)? {
                self.writer()?.orphans.lock().push(object);
            }
            return Ok(());
        }
        self.free_object(tx, object)
    }

    /// Frees the object of a file, with the list that an old one has outside of it.
    pub(super) fn free_object(&self, tx: &Tx, object: u64) -> Result<()> {
        let list = SaHandle::open(self.registry(), &self.objset().dnode(object)?)?.external_acl()?;
        if let Some(list) = list {
            self.objset().free_object(tx, list)?;
        }
        self.objset().free_object(tx, object)?;
        self.cache.remove(object);
        Ok(())
    }

    /// Frees a file that is in the table, with its attributes.
    fn reap(&self, znode: &Arc<Znode>) -> Result<()> {
        let object = znode.dnode().object();
        if znode.flags() & ZFS_XATTR != 0 && znode.attr().is_dir() {
            self.purge_attributes(znode)?;
        }
        let xattrs = znode.xattr_dir();
        {
            let tx = self.begin_freeing()?;
            if xattrs != 0 {
                let dir = self.znode(xattrs)?;
                let attrs: Attrs = vec![(A::Links, word(0))];
                self.set_attrs(&tx, dir.dnode(), &attrs)?;
                self.unlinked_add(&tx, xattrs)?;
            }
            self.unlinked_remove(&tx, object)?;
            self.free_object(&tx, object)?;
        }
        if xattrs != 0 {
            let dir = self.znode(xattrs)?;
            self.reap(&dir)?;
        }
        Ok(())
    }

    /// Frees the files of a directory of extended attributes.
    fn purge_attributes(&self, dir: &Arc<Znode>) -> Result<()> {
        let zap = Zap::open_dnode(self.objset(), dir.dnode().clone())?;
        let entries: Vec<_> = zap.iter().collect::<Result<_>>()?;
        for entry in entries {
            let object = Dirent::decode(entry.value.first()).object;
            let znode = self.znode(object)?;
            if !matches!(znode.attr().kind(), Some(FileKind::Regular | FileKind::Symlink)) {
                return Err(Error::corrupt("a directory of extended attributes holds something else"));
            }
            let tx = self.begin_freeing()?;
            zap.remove(&tx, entry.name())?;
            self.free_object(&tx, object)?;
        }
        Ok(())
    }

    /// Frees files whose names and users are gone, after whatever removed them.
    ///
    /// # Errors
    /// What freeing meets.
    pub fn reap_orphans(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        loop {
            let Some(object) = writer.orphans.lock().pop() else { return Ok(()) };
            let _locked = self.lock(&[object])?;
            let znode = self.znode(object)?;
            self.reap(&znode)?;
        }
    }

    /// Frees what a crash left without names. Called once after mounting.
    ///
    /// # Errors
    /// What reading the table meets; a file that cannot be freed stays in it.
    pub fn drain_unlinked(&self) -> Result<()> {
        let entries: Vec<_> = Zap::open(self.objset(), self.unlinked_set())?.iter().collect::<Result<_>>()?;
        for entry in entries {
            let object = entry.value.first();
            let _locked = self.lock(&[object])?;
            let done = self.znode(object).and_then(|znode| self.reap(&znode));
            if let Err(e) = done {
                tracing::warn!(objset = self.objset().id(), object, "a removed file stays: {e}");
            }
        }
        Ok(())
    }
}
