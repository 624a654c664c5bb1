//! The one file-system API that every front end adapts: what a mount serves.
//!
//! A [`Vfs`] is a tree of trees. Tree 0 is the mounted dataset; its root has the hidden directory `.zfs`, below which
//! `snapshot/NAME` is the root of a further tree, opened the first time it is entered and kept until the mount ends.
//! A [`NodeId`] names tree and object, so it is stateless: no table of nodes, nothing to forget, and handles of
//! tree 0 outlive the process. `Attr::ino` is the number that OpenZFS shows; files of a snapshot
//! have the same inode numbers as in the live dataset, and a front end that shows both under one device number should
//! offer to mount snapshots apart ([`ControlDir::on_enter`]).
//!
//! All methods take `&self`, may be called from any number of threads, and block until the data is there. The only
//! lock is the list of trees, a leaf, never held while anything is read.
//!
//! Everything here reads. Operations that change files take the same [`NodeId`]s and live in `vfs_write`.
//! Rejected alternative: a trait with an implementation per kind of node (`.zfs`, snapshot, dataset). Front ends need
//! one object per mount that routes anyway, and a trait with one implementor only hides where a call goes.

use crate::acl::{self, Cred};
use crate::attr::{Attr, AttrMask, CaseMode, DirEntry, FileKind, NodeId, Time};
use crate::statfs::Statfs;
use crate::zfs::{Slice, Zfs};
use crate::znode::Znode;
use parking_lot::RwLock;
use std::sync::Arc;
use zfs_dmu::Seek;
use zfs_zio::{Error, ErrorKind, Result};

/// Inode number of `.zfs`.
pub const INO_CTL_ROOT: u64 = 0xFFFF_FFFF_FFFF;
/// Inode number of `.zfs/snapshot`.
pub const INO_SNAPDIR: u64 = 0xFFFF_FFFF_FFFD;
/// Snapshot roots count down from here by objset number.
pub const INO_SNAPDIRS: u64 = 0xFFFF_FFFF_FFFC;
/// Name of the control directory.
pub const CTL_NAME: &[u8] = b".zfs";
const SNAPSHOT_NAME: &[u8] = b"snapshot";

/// A snapshot as `.zfs/snapshot` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Its name behind the `@`.
    pub name: String,
    /// Number of its objset.
    pub objset: u64,
}

/// Lists the snapshots of the mounted dataset, by name.
pub type ListSnapshots = Box<dyn Fn() -> Result<Vec<SnapshotEntry>> + Send + Sync>;
/// Opens one of them.
pub type OpenSnapshot = Box<dyn Fn(&SnapshotEntry) -> Result<Arc<Zfs>> + Send + Sync>;
/// Is told when a snapshot's directory is entered.
pub type EnterHook = Box<dyn Fn(&SnapshotEntry) + Send + Sync>;

/// What `.zfs` needs from the layer that knows dataset names.
pub struct ControlDir {
    /// Lists the snapshots.
    pub list: ListSnapshots,
    /// Opens one.
    pub open: OpenSnapshot,
    /// Called the first time a snapshot is entered, so that it can also be mounted apart. It must not wait for
    /// anything that goes through this mount.
    pub on_enter: Option<EnterHook>,
    /// When the list last changed.
    pub changed: Time,
}

#[derive(Clone)]
struct Tree {
    zfs: Arc<Zfs>,
    objset: u64,
}

/// A served mount. See the module's description.
pub struct Vfs {
    root: Arc<Zfs>,
    control: Option<ControlDir>,
    // Trees 1, 2, …; only ever grows.
    snapshots: RwLock<Vec<Tree>>,
}

/// A file kept open: its attributes and descriptor stay in memory. Dropping it closes it.
#[derive(Clone)]
pub struct OpenFile {
    zfs: Arc<Zfs>,
    znode: Arc<Znode>,
}

/// A file's name across restarts (an NFS file handle).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fid {
    /// Number of the objset; 0 for the mounted dataset.
    pub objset: u64,
    /// Object number.
    pub object: u64,
    /// Generation; 0 for `.zfs` and below.
    pub generation: u32,
}

/// Where a node belongs.
enum Place {
    File(Arc<Zfs>, u64),
    CtlRoot,
    SnapDir,
}

impl Vfs {
    /// A mount of `root`; without `control` it has no `.zfs` (mounted snapshots have none).
    pub fn new(root: Arc<Zfs>, control: Option<ControlDir>) -> Self {
        Self { root, control, snapshots: RwLock::default() }
    }

    /// The dataset that is mounted.
    pub fn dataset(&self) -> &Arc<Zfs> {
        &self.root
    }

    /// The root directory.
    pub fn root(&self) -> NodeId {
        NodeId::new(0, self.root.root())
    }

    fn place(&self, node: NodeId) -> Result<Place> {
        let tree = node.tree();
        if tree == 0 {
            return Ok(match node.object() {
                INO_CTL_ROOT if self.control.is_some() => Place::CtlRoot,
                INO_SNAPDIR if self.control.is_some() => Place::SnapDir,
                object => Place::File(self.root.clone(), object),
            });
        }
        let trees = self.snapshots.read();
        let found = trees.get(usize::from(tree) - 1).ok_or_else(|| Error::new(ErrorKind::Stale, "finding a tree"))?;
        Ok(Place::File(found.zfs.clone(), node.object()))
    }

    fn file(&self, node: NodeId) -> Result<(Arc<Zfs>, u64)> {
        match self.place(node)? {
            Place::File(zfs, object) => Ok((zfs, object)),
            Place::CtlRoot | Place::SnapDir => Err(Error::new(ErrorKind::IsDir, "control directory")),
        }
    }

    /// Whether there is a `.zfs`.
    pub(crate) fn has_control(&self) -> bool {
        self.control.is_some()
    }

    fn control(&self) -> Result<&ControlDir> {
        self.control.as_ref().ok_or_else(|| Error::not_found("finding the control directory"))
    }

    /// Finds `name` in a directory; `.` and `..` are understood, and `.zfs` in the root whether it is listed or not.
    pub fn lookup(&self, dir: NodeId, name: &[u8], case: CaseMode) -> Result<NodeId> {
        match self.place(dir)? {
            Place::CtlRoot => match name {
                b"." => Ok(dir),
                b".." => Ok(self.root()),
                SNAPSHOT_NAME => Ok(NodeId::new(0, INO_SNAPDIR)),
                _ => Err(Error::not_found("looking up a name in .zfs")),
            },
            Place::SnapDir => match name {
                b"." => Ok(dir),
                b".." => Ok(NodeId::new(0, INO_CTL_ROOT)),
                _ => self.enter_snapshot(name),
            },
            Place::File(zfs, object) => {
                let at_root = object == zfs.root();
                if at_root && name == CTL_NAME && dir.tree() == 0 && self.control.is_some() {
                    return Ok(NodeId::new(0, INO_CTL_ROOT));
                }
                if at_root && name == b".." {
                    return Ok(if dir.tree() == 0 { dir } else { NodeId::new(0, INO_SNAPDIR) });
                }
                Ok(NodeId::new(dir.tree(), zfs.lookup(object, name, case)?))
            }
        }
    }

    fn enter_snapshot(&self, name: &[u8]) -> Result<NodeId> {
        let control = self.control()?;
        let snapshot = (control.list)()?
            .into_iter()
            .find(|s| s.name.as_bytes() == name)
            .ok_or_else(|| Error::not_found("looking up a snapshot"))?;
        if let Some(node) = self.snapshot_root(snapshot.objset) {
            return Ok(node);
        }
        let zfs = (control.open)(&snapshot)?;
        let node = {
            let mut trees = self.snapshots.write();
            match trees.iter().position(|t| t.objset == snapshot.objset) {
                // Somebody else was faster.
                Some(index) => tree_root(index, trees.get(index)),
                None => {
                    let index = trees.len();
                    if index + 1 >= usize::from(u16::MAX) {
                        return Err(Error::new(ErrorKind::Busy, "too many snapshots open in one mount"));
                    }
                    trees.push(Tree { zfs, objset: snapshot.objset });
                    tree_root(index, trees.last())
                }
            }
        };
        if let Some(hook) = &control.on_enter {
            hook(&snapshot);
        }
        node.ok_or_else(|| Error::new(ErrorKind::Bug, "opening a snapshot"))
    }

    /// The root of a snapshot that is open.
    fn snapshot_root(&self, objset: u64) -> Option<NodeId> {
        let trees = self.snapshots.read();
        let index = trees.iter().position(|t| t.objset == objset)?;
        tree_root(index, trees.get(index))
    }

    /// Attributes.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        match self.place(node)? {
            Place::File(zfs, object) => {
                let mut attr = zfs.getattr(object)?;
                if node.tree() == 0 && object == zfs.root() && zfs.options().snapdir_visible && self.control.is_some() {
                    attr.nlink = attr.nlink.saturating_add(1);
                }
                Ok(attr)
            }
            Place::CtlRoot => Ok(self.control_attr(INO_CTL_ROOT, 1, 0)),
            Place::SnapDir => {
                let count = (self.control()?.list)()?.len();
                Ok(self.control_attr(INO_SNAPDIR, u32::try_from(count).unwrap_or(u32::MAX - 2).saturating_add(2), 2))
            }
        }
    }

    fn control_attr(&self, ino: u64, nlink: u32, size: u64) -> Attr {
        let at = self.control.as_ref().map(|c| c.changed).unwrap_or_default();
        Attr {
            valid: AttrMask::default(),
            ino,
            generation: 0,
            mode: 0o040_777,
            nlink,
            uid: 0,
            gid: 0,
            rdev: (0, 0),
            size,
            blocks: 0,
            blksize: 512,
            atime: at,
            mtime: at,
            ctime: at,
            btime: at,
            flags: 0,
            projid: 0,
        }
    }

    /// Lists a directory from `cookie` (0: from the start), `.` and `..` included, until the end or until `emit`
    /// gives false. The entry that was refused is the first to come next time at the same cookie as before.
    ///
    /// Cookies stay valid for the life of the dataset, whatever is added or removed meanwhile.
    pub fn readdir(&self, dir: NodeId, cookie: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        match self.place(dir)? {
            Place::File(zfs, object) => self.read_files(&zfs, dir.tree(), object, cookie, emit),
            Place::CtlRoot => {
                let at = |object| NodeId::new(0, object);
                let fixed = [
                    (&b"."[..], at(INO_CTL_ROOT), INO_CTL_ROOT),
                    (b"..", self.root(), self.root.root()),
                    (SNAPSHOT_NAME, at(INO_SNAPDIR), INO_SNAPDIR),
                ];
                emit_fixed(&fixed, cookie, emit);
                Ok(())
            }
            Place::SnapDir => self.read_snapdir(cookie, emit),
        }
    }

    fn read_files(
        &self,
        zfs: &Zfs,
        tree: u16,
        object: u64,
        cookie: u64,
        emit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let at_root = object == zfs.root();
        let listed = at_root && tree == 0 && zfs.options().snapdir_visible && self.control.is_some();
        let parent = match (at_root, tree) {
            (true, 0) => self.root(),
            (true, _) => NodeId::new(0, INO_SNAPDIR),
            _ => NodeId::new(tree, zfs.znode(object)?.parent()),
        };
        let own_ino = zfs.shown_ino(object);
        let parent_ino = if parent.tree() == tree { zfs.shown_ino(parent.object()) } else { parent.object() };
        let ctl = NodeId::new(0, INO_CTL_ROOT);
        let mut fixed = vec![(&b"."[..], NodeId::new(tree, object), own_ino), (&b".."[..], parent, parent_ino)];
        if listed {
            fixed.push((CTL_NAME, ctl, INO_CTL_ROOT));
        }
        // Cookies 0 to 2 are the entries that no ZAP holds; the ZAP starts at cookie 3, listed or not.
        if cookie < 3 && !emit_fixed(&fixed, cookie, emit) {
            return Ok(());
        }
        zfs.readdir(object, cookie.max(3), &mut |e| {
            let node = NodeId::new(tree, e.object);
            emit(&DirEntry { name: e.name, node, ino: e.object, kind: e.kind, next: e.next })
        })
    }

    fn read_snapdir(&self, cookie: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let fixed = [
            (&b"."[..], NodeId::new(0, INO_SNAPDIR), INO_SNAPDIR),
            (b"..", NodeId::new(0, INO_CTL_ROOT), INO_CTL_ROOT),
        ];
        if cookie < 2 && !emit_fixed(&fixed, cookie, emit) {
            return Ok(());
        }
        // Objset numbers make cookies that survive the destruction of other snapshots.
        let mut snapshots = (self.control()?.list)()?;
        snapshots.sort_by_key(|s| s.objset);
        for s in snapshots.iter().filter(|s| s.objset.saturating_add(3) > cookie) {
            let ino = INO_SNAPDIRS.wrapping_sub(s.objset);
            let entry = DirEntry {
                name: s.name.as_bytes(),
                // A snapshot that is not open yet has no node: entering it by name opens it.
                node: self.snapshot_root(s.objset).unwrap_or(NodeId::new(0, ino)),
                ino,
                kind: Some(FileKind::Directory),
                next: s.objset.saturating_add(3),
            };
            if !emit(&entry) {
                break;
            }
        }
        Ok(())
    }

    /// A number that changes when the cookies of a directory become invalid. They never do.
    pub fn dir_verifier(&self, dir: NodeId) -> Result<u64> {
        Ok(match self.place(dir)? {
            Place::File(zfs, _) => zfs.objset_id(),
            Place::CtlRoot | Place::SnapDir => 0,
        })
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let (zfs, object) = self.file(node)?;
        zfs.readlink(object)
    }

    /// Opens a regular file. Fails with [`ErrorKind::IsDir`] on directories, [`ErrorKind::Invalid`] on other things.
    pub fn open(&self, node: NodeId) -> Result<OpenFile> {
        let (zfs, object) = self.file(node)?;
        let znode = zfs.znode(object)?;
        znode.require_data()?;
        Ok(OpenFile { zfs, znode })
    }

    /// Reads up to `len` bytes at `offset` as slices of cached blocks: nothing is copied. Short only at the end.
    pub fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Vec<Slice>> {
        self.open(node)?.read(offset, len)
    }

    /// As [`Vfs::read`], for a caller that keeps what it reads in a cache of its own, as the kernel does for mounts:
    /// nothing shall be cached twice.
    pub fn read_once(&self, node: NodeId, offset: u64, len: usize) -> Result<Vec<Slice>> {
        self.open(node)?.read_how(offset, len, true)
    }

    /// The first byte at or behind `offset` that is data or hole. Fails with [`ErrorKind::NoData`] at and behind the
    /// end of the file, and when no data follows.
    pub fn seek(&self, node: NodeId, offset: u64, what: Seek) -> Result<u64> {
        self.open(node)?.seek(offset, what)
    }

    /// Space of the dataset that `node` belongs to, or of its project.
    pub fn statfs(&self, node: NodeId) -> Result<Statfs> {
        match self.place(node)? {
            Place::File(zfs, object) => zfs.statfs(object),
            Place::CtlRoot | Place::SnapDir => self.root.statfs(self.root.root()),
        }
    }

    /// Names of the extended attributes, as Linux shows them. `privileged` callers see `trusted.` ones too.
    pub fn listxattr(&self, node: NodeId, privileged: bool) -> Result<Vec<Vec<u8>>> {
        match self.place(node)? {
            Place::File(zfs, object) => zfs.listxattr(object, privileged),
            Place::CtlRoot | Place::SnapDir => Ok(Vec::new()),
        }
    }

    /// The value of an extended attribute by its Linux name. Fails with [`ErrorKind::NotFound`] when there is none,
    /// [`ErrorKind::Unsupported`] when the dataset has no such namespace.
    pub fn getxattr(&self, node: NodeId, name: &[u8], privileged: bool) -> Result<Vec<u8>> {
        match self.place(node)? {
            Place::File(zfs, object) => zfs.getxattr(object, name, privileged),
            Place::CtlRoot | Place::SnapDir => Err(Error::unsupported("extended attributes of .zfs")),
        }
    }

    /// A POSIX access control list ([`acl::ACCESS`] or [`acl::DEFAULT`]), if the file has one.
    pub fn posix_acl(&self, node: NodeId, which: &str) -> Result<Option<Vec<acl::Entry>>> {
        match self.getxattr(node, which.as_bytes(), true) {
            Ok(value) => acl::decode(&value).map(Some),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Checks a caller against mode and list; for front ends that no kernel checks for. Fails with
    /// [`ErrorKind::Access`]; `want` is 4 read, 2 write, 1 execute.
    pub fn access(&self, node: NodeId, cred: &Cred, want: u16) -> Result<()> {
        let attr = self.getattr(node)?;
        if want & 2 != 0 && matches!(attr.kind(), Some(FileKind::Regular | FileKind::Directory | FileKind::Symlink)) {
            return Err(Error::new(ErrorKind::ReadOnly, "checking access"));
        }
        let list = self.posix_acl(node, acl::ACCESS)?;
        if acl::permits(cred, want, attr.uid, attr.gid, attr.mode, list.as_deref()) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Access, "checking access"))
        }
    }

    /// The lasting name of a file.
    pub fn fid(&self, node: NodeId) -> Result<Fid> {
        let attr = self.getattr(node)?;
        let objset = match self.place(node)? {
            Place::File(zfs, _) if node.tree() != 0 => zfs.objset_id(),
            _ => 0,
        };
        Ok(Fid { objset, object: node.object(), generation: attr.generation })
    }

    /// The file of a lasting name. Fails with [`ErrorKind::Stale`] when the file is gone, even if its number is used
    /// by another file now.
    pub fn by_fid(&self, fid: &Fid) -> Result<NodeId> {
        let stale = || Error::new(ErrorKind::Stale, "finding a file by its handle");
        let tree = if fid.objset == 0 {
            0
        } else {
            let snapshots = (self.control()?.list)()?;
            let snapshot = snapshots.into_iter().find(|s| s.objset == fid.objset).ok_or_else(stale)?;
            self.enter_snapshot(snapshot.name.as_bytes())?.tree()
        };
        let node = NodeId::new(tree, fid.object);
        match self.getattr(node) {
            Ok(attr) if attr.generation == fid.generation => Ok(node),
            Ok(_) => Err(stale()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => Err(stale()),
            Err(e) => Err(e),
        }
    }
}

impl OpenFile {
    /// As [`Vfs::read`].
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<Slice>> {
        self.read_how(offset, len, false)
    }

    fn read_how(&self, offset: u64, len: usize, once: bool) -> Result<Vec<Slice>> {
        let _unchanged = self.zfs.lock_shared(self.znode.dnode().object());
        self.zfs.read(&*self.current()?, offset, len, once)
    }

    /// Reads into the caller's memory; gives the number of bytes, short only at the end of the file.
    pub fn read_into(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let _unchanged = self.zfs.lock_shared(self.znode.dnode().object());
        self.zfs.read_into(&*self.current()?, offset, buf)
    }

    /// As [`Vfs::seek`].
    pub fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        self.zfs.seek(&*self.current()?, offset, what)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.current().map_or(0, |znode| znode.size())
    }

    /// The file as it is now: one that can change is decoded anew after each change.
    fn current(&self) -> Result<Arc<Znode>> {
        if self.zfs.is_writable() { self.zfs.znode(self.znode.dnode().object()) } else { Ok(self.znode.clone()) }
    }
}

fn tree_root(index: usize, tree: Option<&Tree>) -> Option<NodeId> {
    Some(NodeId::new(u16::try_from(index + 1).ok()?, tree?.zfs.root()))
}

/// Emits the entries that no ZAP holds, from the one numbered `cookie`; gives false when `emit` did.
fn emit_fixed(fixed: &[(&[u8], NodeId, u64)], cookie: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> bool {
    (1u64..).zip(fixed).filter(|(next, _)| *next > cookie).all(|(next, (name, node, ino))| {
        emit(&DirEntry { name, node: *node, ino: *ino, kind: Some(FileKind::Directory), next })
    })
}
