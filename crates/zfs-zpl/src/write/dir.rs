//! Names: linking, unlinking, renaming.

use super::create::{NewFile, inherit, origin_of};
use super::{Attrs, stamp, word};
use crate::attr::{CaseMode, FileKind};
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::sa::ZplAttr as A;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Dnode, Zap};
use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_IMMUTABLE, ZFS_NOUNLINK, ZFS_PROJINHERIT};
use zfs_zio::{Error, ErrorKind, Result};

/// Deepest nesting of directories followed upwards.
const MAX_DEPTH: usize = 65536;

/// What [`Zfs::rename`] does when the new name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RenameFlags {
    /// The file that has it is replaced.
    #[default]
    Replace,
    /// It fails (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two files swap names (`RENAME_EXCHANGE`).
    Exchange,
    /// The file that has it is replaced, and the old name goes to a device 0:0 (`RENAME_WHITEOUT`) of this owner.
    Whiteout {
        /// Owner of the device.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl Zfs {
    /// Puts a file under a name that is free; the directory is locked.
    pub(super) fn link_in(&self, tx: &Tx, dir: &Znode, name: &[u8], object: u64, kind: FileKind) -> Result<()> {
        let zap = Zap::open_dnode(self.objset(), dir.dnode().clone())?;
        zap.add(tx, name, &[self.dirent(object, kind)])?;
        self.entries_changed(tx, dir.dnode().object(), 1, kind)
    }

    /// The value of a directory entry: object number, with the type where the version keeps it.
    fn dirent(&self, object: u64, kind: FileKind) -> u64 {
        if self.version() >= 2 { object | u64::from(kind.dirent()) << 60 } else { object }
    }

    /// Counts an entry more or less in a directory.
    fn entries_changed(&self, tx: &Tx, dir: u64, delta: i64, kind: FileKind) -> Result<()> {
        let znode = self.znode(dir)?;
        let now = stamp(self.now()?);
        let links = u64::from(znode.attr().nlink);
        let links = if kind == FileKind::Directory { links.saturating_add_signed(delta) } else { links };
        let attrs: Attrs = vec![
            (A::Size, word(znode.size().saturating_add_signed(delta))),
            (A::Links, word(links)),
            (A::Mtime, now.clone()),
            (A::Ctime, now),
        ];
        self.set_attrs(tx, znode.dnode(), &attrs)
    }

    fn drop_name(&self, tx: &Tx, dir: &Znode, name: &[u8]) -> Result<()> {
        let zap = Zap::open_dnode(self.objset(), dir.dnode().clone())?;
        match self.norm_mode(CaseMode::Dataset) {
            Some(mode) => zap.remove_norm(tx, name, mode),
            None => zap.remove(tx, name),
        }
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// `Exists`, `IsDir` for directories, `NotFound` for a file that was removed.
    pub fn link(&self, object: u64, dir: u64, name: &[u8]) -> Result<()> {
        self.check_name(name)?;
        let _locked = self.lock(&[object, dir])?;
        let (znode, parent) = (self.znode(object)?, self.living(dir)?);
        parent.require_dir()?;
        let kind = kind_of(&znode)?;
        if kind == FileKind::Directory {
            return Err(Error::new(ErrorKind::Permission, "linking a directory"));
        }
        let unnamed = znode.attr().nlink == 0;
        if unnamed && !self.is_open(object)? {
            return Err(Error::not_found("linking a file that was removed"));
        }
        self.check_flags(&parent, true)?;
        if znode.flags() & (ZFS_IMMUTABLE | ZFS_APPENDONLY) != 0 {
            return Err(Error::new(ErrorKind::Permission, "linking a file that its flags protect"));
        }
        self.same_project(&parent, &znode)?;
        if self.lookup_locked(dir, name, CaseMode::Dataset).is_ok() {
            return Err(Error::new(ErrorKind::Exists, "linking a file"));
        }
        let tx = self.begin()?;
        if unnamed {
            self.unlinked_remove(&tx, object)?;
        }
        let attrs: Attrs = vec![
            (A::Links, word(u64::from(znode.attr().nlink) + 1)),
            (A::Parent, word(dir)),
            (A::Ctime, stamp(self.now()?)),
        ];
        self.set_attrs(&tx, znode.dnode(), &attrs)?;
        self.link_in(&tx, &parent, name, object, kind)?;
        if !unnamed {
            self.log_link(&tx, dir, object, name);
            return Ok(());
        }
        // What was written to a file without a name is in no log.
        let txg = tx.txg();
        drop(tx);
        self.wait_for_txg(txg)
    }

    /// A directory that passes its project on holds only files of that project.
    fn same_project(&self, parent: &Znode, znode: &Znode) -> Result<()> {
        if parent.flags() & ZFS_PROJINHERIT != 0 && parent.attr().projid != znode.attr().projid {
            return Err(Error::new(ErrorKind::CrossDevice, "moving a file into another project"));
        }
        Ok(())
    }

    /// Removes a name: of a directory with `rmdir`, of anything else without. Gives the object number.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`, `IsDir`, `NotDir`.
    pub fn remove(&self, dir: u64, name: &[u8], rmdir: bool) -> Result<u64> {
        loop {
            let object = self.lookup(dir, name, CaseMode::Dataset)?;
            let _locked = self.lock(&[dir, object])?;
            if self.lookup_locked(dir, name, CaseMode::Dataset)? != object {
                // Somebody put another file there before the locks were taken.
                continue;
            }
            let (parent, znode) = (self.living(dir)?, self.znode(object)?);
            let is_dir = znode.attr().is_dir();
            match (is_dir, rmdir) {
                (true, false) => return Err(Error::new(ErrorKind::IsDir, "unlinking a directory")),
                (false, true) => return Err(Error::new(ErrorKind::NotDir, "removing a file as a directory")),
                _ => {}
            }
            self.may_remove(&parent, &znode)?;
            let tx = self.begin_freeing()?;
            self.drop_name(&tx, &parent, name)?;
            self.entries_changed(&tx, dir, -1, kind_of(&znode)?)?;
            self.drop_link(&tx, &znode)?;
            self.log_remove(&tx, &parent, name, object, rmdir);
            return Ok(object);
        }
    }

    fn may_remove(&self, parent: &Znode, znode: &Znode) -> Result<()> {
        let protected = ZFS_IMMUTABLE | ZFS_APPENDONLY | ZFS_NOUNLINK;
        if znode.flags() & protected != 0 || parent.flags() & (ZFS_IMMUTABLE | ZFS_APPENDONLY) != 0 {
            return Err(Error::new(ErrorKind::Permission, "removing a file that flags protect"));
        }
        if znode.attr().is_dir() {
            let zap = Zap::open_dnode(self.objset(), znode.dnode().clone())?;
            if zap.iter().next().transpose()?.is_some() {
                return Err(Error::new(ErrorKind::NotEmpty, "removing a directory"));
            }
        }
        Ok(())
    }

    /// Counts one name less; without any left the file goes as soon as nobody has it open.
    fn drop_link(&self, tx: &Tx, znode: &Arc<Znode>) -> Result<()> {
        let left = if znode.attr().is_dir() { 0 } else { znode.attr().nlink.saturating_sub(1) };
        let attrs: Attrs = vec![(A::Links, word(u64::from(left))), (A::Ctime, stamp(self.now()?))];
        self.set_attrs(tx, znode.dnode(), &attrs)?;
        if left > 0 {
            return Ok(());
        }
        self.forget(tx, znode)
    }

    /// Moves a file to another name.
    ///
    /// # Errors
    /// `Exists` and `NotFound` as the flags demand, `Invalid` for a directory into itself, `NotEmpty`, `IsDir`,
    /// `NotDir` for what is replaced.
    pub fn rename(&self, from: u64, name: &[u8], to: u64, new_name: &[u8], how: RenameFlags) -> Result<()> {
        self.check_name(name)?;
        self.check_name(new_name)?;
        let _renames = self.writer()?.renames.lock();
        loop {
            let object = self.lookup(from, name, CaseMode::Dataset)?;
            let target = found(self.lookup(to, new_name, CaseMode::Dataset))?;
            let mut touched = vec![from, to, object];
            touched.extend(target);
            let _locked = self.lock(&touched)?;
            if self.lookup_locked(from, name, CaseMode::Dataset)? != object || self.find(to, new_name)? != target {
                continue;
            }
            return self.rename_locked((from, name, object), (to, new_name, target), how);
        }
    }

    fn find(&self, dir: u64, name: &[u8]) -> Result<Option<u64>> {
        found(self.lookup_locked(dir, name, CaseMode::Dataset))
    }

    fn rename_locked(
        &self,
        (from, name, object): (u64, &[u8], u64),
        (to, new_name, target): (u64, &[u8], Option<u64>),
        how: RenameFlags,
    ) -> Result<()> {
        let (source, dest, znode) = (self.living(from)?, self.living(to)?, self.znode(object)?);
        dest.require_dir()?;
        let replaced = target.map(|t| self.znode(t)).transpose()?;
        match (&replaced, how) {
            (Some(_), RenameFlags::NoReplace) => return Err(Error::new(ErrorKind::Exists, "renaming")),
            (None, RenameFlags::Exchange) => return Err(Error::not_found("exchanging names")),
            _ => {}
        }
        // The same file under both names: POSIX has nothing happen, unless only the spelling changes.
        let respelled = target == Some(object) && from == to && name != new_name && self.normflags() != 0;
        if target == Some(object) && !respelled {
            return Ok(());
        }
        let kind = kind_of(&znode)?;
        self.may_move(&source, &znode)?;
        self.check_flags(&dest, true)?;
        self.same_project(&dest, &znode)?;
        if kind == FileKind::Directory {
            self.not_below(object, to)?;
        }
        let replaced = replaced.filter(|_| !respelled);
        if let (Some(old), RenameFlags::Exchange) = (&replaced, how) {
            return self.exchange((&source, name, &znode), (&dest, new_name, old));
        }
        if let Some(old) = &replaced {
            match (kind == FileKind::Directory, old.attr().is_dir()) {
                (true, false) => return Err(Error::new(ErrorKind::NotDir, "replacing a file by a directory")),
                (false, true) => return Err(Error::new(ErrorKind::IsDir, "replacing a directory by a file")),
                _ => self.may_remove(&dest, old)?,
            }
        }
        let tx = self.begin()?;
        if let Some(old) = &replaced {
            self.drop_name(&tx, &dest, new_name)?;
            self.entries_changed(&tx, to, -1, kind_of(old)?)?;
            self.drop_link(&tx, old)?;
        }
        self.drop_name(&tx, &source, name)?;
        self.entries_changed(&tx, from, -1, kind)?;
        self.link_in(&tx, &dest, new_name, object, kind)?;
        let attrs: Attrs = vec![(A::Parent, word(to)), (A::Ctime, stamp(self.now()?))];
        self.set_attrs(&tx, znode.dnode(), &attrs)?;
        let replaced = replaced.map(|old| old.dnode().object());
        let (old, new) = ((from, name, object), (to, new_name, replaced));
        match how {
            RenameFlags::Whiteout { uid, gid } => {
                let device = self.whiteout(&tx, &source, name, (uid, gid))?;
                self.log_whiteout(&tx, old, new, &device)
            }
            _ => {
                self.log_rename(&tx, old, new, false);
                Ok(())
            }
        }
    }

    /// Leaves a device 0:0 where a file was, which hides the name in file systems laid below.
    fn whiteout(&self, tx: &Tx, dir: &Znode, name: &[u8], (uid, gid): (u32, u32)) -> Result<Arc<Dnode>> {
        let kind = FileKind::CharDevice;
        let new = NewFile { mode: u32::from(kind.dirent()) << 12, uid, gid, ..NewFile::default() };
        let new = inherit(&new, dir, kind);
        let dnode = self.make_node(tx, &new, &origin_of(dir, 1))?;
        self.link_in(tx, dir, name, dnode.object(), kind)?;
        Ok(dnode)
    }

    fn may_move(&self, source: &Znode, znode: &Znode) -> Result<()> {
        let protected = ZFS_IMMUTABLE | ZFS_APPENDONLY;
        if (znode.flags() | source.flags()) & protected != 0 || znode.flags() & ZFS_NOUNLINK != 0 {
            return Err(Error::new(ErrorKind::Permission, "renaming a file that flags protect"));
        }
        Ok(())
    }

    fn exchange(&self, a: (&Znode, &[u8], &Znode), b: (&Znode, &[u8], &Znode)) -> Result<()> {
        let ((a_dir, a_name, a_node), (b_dir, b_name, b_node)) = (a, b);
        self.may_move(b_dir, b_node)?;
        self.same_project(a_dir, b_node)?;
        let (a_object, b_object) = (a_node.dnode().object(), b_node.dnode().object());
        let (a_parent, b_parent) = (a_dir.dnode().object(), b_dir.dnode().object());
        let (a_kind, b_kind) = (kind_of(a_node)?, kind_of(b_node)?);
        if b_kind == FileKind::Directory {
            self.not_below(b_object, a_parent)?;
        }
        let tx = self.begin()?;
        self.drop_name(&tx, a_dir, a_name)?;
        self.entries_changed(&tx, a_parent, -1, a_kind)?;
        self.drop_name(&tx, b_dir, b_name)?;
        self.entries_changed(&tx, b_parent, -1, b_kind)?;
        self.link_in(&tx, b_dir, b_name, a_object, a_kind)?;
        self.link_in(&tx, a_dir, a_name, b_object, b_kind)?;
        let now = stamp(self.now()?);
        let attrs: Attrs = vec![(A::Parent, word(b_parent)), (A::Ctime, now.clone())];
        self.set_attrs(&tx, a_node.dnode(), &attrs)?;
        let attrs: Attrs = vec![(A::Parent, word(a_parent)), (A::Ctime, now)];
        self.set_attrs(&tx, b_node.dnode(), &attrs)?;
        self.log_rename(&tx, (a_parent, a_name, a_object), (b_parent, b_name, Some(b_object)), true);
        Ok(())
    }

    /// Fails when directory `to` is `object` or lies below it. Renames are serialized, so the way up is stable.
    fn not_below(&self, object: u64, to: u64) -> Result<()> {
        let mut at = to;
        for _ in 0..MAX_DEPTH {
            if at == object {
                return Err(Error::invalid("moving a directory into itself"));
            }
            if at == self.root() {
                return Ok(());
            }
            at = self.znode(at)?.parent();
        }
        Err(Error::new(ErrorKind::Loop, "following parents"))
    }
}

fn kind_of(znode: &Znode) -> Result<FileKind> {
    znode.attr().kind().ok_or_else(|| Error::corrupt("a file of no kind"))
}

/// A name that is not there is no error here.
fn found(looked_up: Result<u64>) -> Result<Option<u64>> {
    match looked_up {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
