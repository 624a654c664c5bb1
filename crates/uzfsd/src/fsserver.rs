//! Serves the file-system protocol over the daemon's [`Vfs`] objects: one function an operation, each a few lines.
//!
//! State: whether a front end says that it has the file system mounted, and which files it knows. A file whose last
//! name goes while a front end knows it lives until it is reclaimed, so known files of a writable file system are held
//! open. Errors become the codes of the wire through the one table from error kinds to error numbers. Operations that
//! change files are refused where the file system cannot be written.
//!
//! What changes a whole dataset from outside, such as a rollback, exchanges the tree: operations wait meanwhile and go
//! on with the new one. A number of a file can stand for another file then. So files that were known keep their
//! generation, and those that are another's now are stale until they are looked up again.
//!
//! Locks: `vfs`, which operations hold for reading, then the sets of files, which are leaves.

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uzfs_fsproto::wire::{self, List};
use uzfs_fsproto::*;
use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_HIDDEN, ZFS_IMMUTABLE, ZFS_NODUMP, ZFS_OPAQUE};
use zfs_zio::{Error, ErrorKind};
use zfs_zpl::acl::Cred;
use zfs_zpl::{CaseMode, CaseSensitivity, NewFile, NodeId, RenameFlags, Vfs, XattrMode};

/// Flags that front ends set; all others stay as they are.
const SETTABLE: u64 = ZFS_NODUMP | ZFS_IMMUTABLE | ZFS_APPENDONLY | ZFS_OPAQUE | ZFS_HIDDEN;
/// Most bytes of a listing.
const LISTING: usize = 512 << 10;
/// Bits of an object number in a node; the tree is above.
const OBJECT_BITS: u32 = 48;

/// A dataset behind the protocol.
pub struct VfsService {
    /// None while it is exchanged, and when that failed.
    vfs: RwLock<Option<Arc<Vfs>>>,
    info: VolumeInfo,
    mounted: AtomicBool,
    /// Files that the front end knows, with their generations.
    known: Mutex<HashMap<u64, u32>>,
    /// Known files that are gone, or others by now.
    stale: Mutex<HashSet<u64>>,
    /// Whether there are any.
    any_stale: AtomicBool,
}

/// A service whose tree is being exchanged.
pub struct Suspended<'a> {
    service: &'a VfsService,
    place: RwLockWriteGuard<'a, Option<Arc<Vfs>>>,
}

impl Suspended<'_> {
    /// Goes on with another tree.
    pub fn resume(mut self, fresh: Arc<Vfs>) {
        let known = self.service.known.lock();
        let mut stale = self.service.stale.lock();
        for (&raw, &generation) in &*known {
            let node = NodeId::from_raw(raw);
            // Trees of snapshots are counted anew.
            let same = raw >> OBJECT_BITS == 0 && fresh.getattr(node).is_ok_and(|a| a.generation == generation);
            if same && fresh.is_writable() {
                fresh.hold(node);
            }
            if !same {
                stale.insert(raw);
            }
        }
        self.service.any_stale.store(!stale.is_empty(), Ordering::Release);
        *self.place = Some(fresh);
    }
}

/// The code of an engine error.
fn code(e: &Error) -> Code {
    let code = Code::from_errno(uzfs_fuse::errno::of(e.kind()));
    if code == Code::Io {
        tracing::warn!("{e}");
    }
    code
}

/// An attribute that is not there has a code of its own.
fn attribute(result: Result<(), Code>) -> Result<(), Code> {
    result.map_err(|c| if matches!(c, Code::NotFound | Code::NoData) { Code::NoAttribute } else { c })
}

fn time(t: zfs_zpl::Time) -> Time {
    Time { sec: t.sec, nsec: t.nsec }
}

fn attr(node: NodeId, a: &zfs_zpl::Attr) -> Attr {
    Attr {
        node: node.raw(),
        ino: a.ino,
        generation: a.generation,
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev_major: a.rdev.0,
        rdev_minor: a.rdev.1,
        size: a.size,
        blocks: a.blocks,
        blksize: a.blksize,
        valid: a.valid.0,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
        btime: time(a.btime),
        flags: a.flags,
        projid: a.projid,
    }
}

/// Attributes to set in the engine's terms. The time of creation stays what it is.
fn to_set(a: &SetAttrs) -> zfs_zpl::SetAttr {
    let has = |bit: u32| a.mask & bit != 0;
    let at = |bit: u32, t: Time| has(bit).then_some(zfs_zpl::Time { sec: t.sec, nsec: t.nsec });
    zfs_zpl::SetAttr {
        mode: has(set::MODE).then_some(a.mode & 0o7777),
        uid: has(set::UID).then_some(a.uid),
        gid: has(set::GID).then_some(a.gid),
        size: has(set::SIZE).then_some(a.size),
        atime: at(set::ATIME, a.atime),
        mtime: at(set::MTIME, a.mtime),
        ctime: at(set::CTIME, a.ctime),
        flags: has(set::FLAGS).then_some((a.flags & SETTABLE, SETTABLE & !a.flags)),
        projid: None,
    }
}

/// A slice of a cached block, sent without being copied.
struct Kept(zfs_zpl::Slice);

impl std::ops::Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl VfsService {
    /// Serves `vfs`. `info` says whose it is; its root and flags are filled in here.
    pub fn new(vfs: Arc<Vfs>, mut info: VolumeInfo) -> Self {
        info.root = vfs.root().raw();
        let zfs = vfs.dataset();
        for (is, flag) in [
            (zfs.case() == CaseSensitivity::Insensitive, volume::CASE_INSENSITIVE),
            (zfs.case() == CaseSensitivity::Mixed, volume::CASE_MIXED),
            (zfs.options().snapshot, volume::SNAPSHOT),
            (zfs.options().longname, volume::LONG_NAMES),
        ] {
            if is {
                info.flags |= flag;
            }
        }
        match vfs.is_writable() {
            true => info.flags &= !volume::READONLY,
            false => info.flags |= volume::READONLY,
        }
        Self {
            vfs: RwLock::new(Some(vfs)),
            info,
            mounted: AtomicBool::new(false),
            known: Mutex::default(),
            stale: Mutex::default(),
            any_stale: AtomicBool::new(false),
        }
    }

    /// The tree. Operations within operations ask again, so a waiting exchange must not stop them.
    fn vfs(&self) -> Result<MappedRwLockReadGuard<'_, Arc<Vfs>>, Code> {
        RwLockReadGuard::try_map(self.vfs.read_recursive(), Option::as_ref).map_err(|_| Code::Io)
    }

    /// A file that the front end names, unless it is another by now.
    fn at(&self, raw: u64) -> Result<NodeId, Code> {
        if self.any_stale.load(Ordering::Acquire) && self.stale.lock().contains(&raw) {
            return Err(Code::Stale);
        }
        Ok(NodeId::from_raw(raw))
    }

    /// Waits for operations that are under way, lets go of the tree, and keeps others waiting until it is resumed. What
    /// is not resumed fails from then on.
    pub fn suspend(&self) -> Suspended<'_> {
        let mut place = self.vfs.write();
        *place = None;
        Suspended { service: self, place }
    }

    /// Whether a front end has it mounted.
    pub fn is_mounted(&self) -> bool {
        self.mounted.load(Ordering::Acquire)
    }

    /// No front end has it mounted any more.
    pub fn forget_mount(&self) {
        self.mounted.store(false, Ordering::Release);
        self.forget_all();
    }

    /// Lets go of every file that the front end knew.
    fn forget_all(&self) {
        let (known, stale) = (std::mem::take(&mut *self.known.lock()), std::mem::take(&mut *self.stale.lock()));
        self.any_stale.store(false, Ordering::Release);
        let Ok(vfs) = self.vfs() else { return };
        for node in known.into_keys().filter(|n| !stale.contains(n)) {
            if let Err(e) = vfs.release(NodeId::from_raw(node)) {
                tracing::warn!("letting go of a file: {e}");
            }
        }
    }

    /// The front end knows a file from now on.
    fn learn(&self, found: &Attr) -> Result<(), Code> {
        let vfs = self.vfs()?;
        if !vfs.is_writable() {
            return Ok(());
        }
        let mut known = self.known.lock();
        let fresh = known.insert(found.node, found.generation).is_none();
        let again = self.any_stale.load(Ordering::Acquire) && self.stale.lock().remove(&found.node);
        if fresh || again {
            vfs.hold(NodeId::from_raw(found.node));
        }
        Ok(())
    }

    /// Does something that changes files.
    fn change<T>(&self, what: impl FnOnce(&Vfs) -> zfs_zio::Result<T>) -> Result<T, Code> {
        let vfs = self.vfs()?;
        if !vfs.is_writable() {
            return Err(Code::ReadOnly);
        }
        what(&vfs).map_err(|e| code(&e))
    }

    /// Makes a file; what cannot be said while making it is set afterwards.
    fn make(&self, caller: &Caller, dir: u64, name: Vec<u8>, a: &SetAttrs, new: &NewFile<'_>) -> Result<Entry, Code> {
        let parent = self.at(dir)?;
        let node = self.change(|vfs| {
            let up = vfs.getattr(parent)?;
            let who = |bit: u32, given: u32, caller: u32, up: u32| match (a.mask & bit != 0, caller) {
                (true, _) => given,
                (false, wire::NOBODY_KNOWN) => up,
                (false, caller) => caller,
            };
            let (uid, gid) = (who(set::UID, a.uid, caller.uid, up.uid), who(set::GID, a.gid, caller.gid, up.gid));
            let node = vfs.create(parent, &name, &NewFile { uid, gid, ..*new })?;
            let rest = SetAttrs { mask: a.mask & !(set::UID | set::GID | set::MODE), ..a.clone() };
            if rest.mask != 0 {
                vfs.setattr(node, &to_set(&rest))?;
            }
            Ok(node)
        })?;
        let attr = self.attr(node)?;
        self.learn(&attr)?;
        Ok(Entry { attr, name })
    }

    fn attr(&self, node: NodeId) -> Result<Attr, Code> {
        Ok(attr(node, &self.vfs()?.getattr(node).map_err(|e| code(&e))?))
    }

    /// The name as the directory stores it: another one only where names are normalized or case is ignored.
    fn stored_name(&self, vfs: &Vfs, dir: NodeId, node: NodeId, asked: Vec<u8>) -> Vec<u8> {
        if vfs.dataset().normflags() == 0 || asked == b"." || asked == b".." {
            return asked;
        }
        let mut found: Option<Vec<u8>> = None;
        let listed = vfs.readdir(dir, 0, &mut |e| {
            if e.node == node && e.name != b"." && e.name != b".." {
                // Several names of one file: the one that was asked for, if it is among them.
                if found.is_none() || e.name == asked {
                    found = Some(e.name.to_vec());
                }
            }
            found.as_ref() != Some(&asked)
        });
        // The file was found; a directory that cannot be listed is no reason to say that it was not.
        if let Err(e) = listed {
            tracing::warn!("looking for a stored name: {e}");
        }
        found.unwrap_or(asked)
    }

    /// A number that is not 0 and tells the cookies of one directory from those of another. Cookies stay valid for the
    /// life of the dataset, so it does not move when the directory changes: a listing during deletions goes on.
    fn verifier(&self, dir: NodeId) -> Result<u64, Code> {
        let of = self.vfs()?.dir_verifier(dir).map_err(|e| code(&e))?;
        Ok((dir.raw().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ of).max(1))
    }
}

impl Drop for VfsService {
    fn drop(&mut self) {
        self.forget_all();
    }
}

impl uzfs_fsproto::Service for VfsService {
    fn volume(&self) -> VolumeInfo {
        self.info.clone()
    }

    fn ping(&self, _: &Caller, _: Ping) -> Result<(), Code> {
        Ok(())
    }

    fn mounted(&self, _: &Caller, r: Mounted) -> Result<(), Code> {
        self.mounted.store(r.on, Ordering::Release);
        if !r.on {
            self.forget_all();
        }
        Ok(())
    }

    fn lookup(&self, _: &Caller, r: Lookup) -> Result<Entry, Code> {
        let (vfs, dir) = (self.vfs()?, self.at(r.dir)?);
        let node = vfs.lookup(dir, &r.name, CaseMode::Dataset).map_err(|e| code(&e))?;
        let attr = self.attr(node)?;
        self.learn(&attr)?;
        Ok(Entry { attr, name: self.stored_name(&vfs, dir, node, r.name) })
    }

    fn getattr(&self, _: &Caller, r: GetAttr) -> Result<Attr, Code> {
        self.attr(self.at(r.node)?)
    }

    fn readdir(&self, _: &Caller, r: ReadDir) -> Result<Listing, Code> {
        let dir = self.at(r.dir)?;
        let verifier = self.verifier(dir)?;
        if r.cookie != 0 && r.verifier != verifier {
            return Err(Code::Invalid);
        }
        let room = (r.room as usize).min(LISTING);
        let (mut entries, mut used, mut end) = (Vec::new(), 0, true);
        let done = self.vfs()?.readdir(dir, r.cookie, &mut |e| {
            let attr = if r.attrs { self.attr(e.node).ok() } else { None };
            used += 30 + e.name.len() + if attr.is_some() { 144 } else { 0 };
            // One entry always fits, or nothing would ever move.
            if used > room && !entries.is_empty() {
                end = false;
                return false;
            }
            let kind = e.kind.map_or(0, |k| k.dirent());
            let (node, name) = (e.node.raw(), e.name.to_vec());
            entries.push(Listed { node, ino: e.ino, kind, next: e.next, name, attr });
            true
        });
        done.map_err(|e| code(&e))?;
        Ok(Listing { verifier, end, entries: List(entries) })
    }

    fn readlink(&self, _: &Caller, r: ReadLink) -> Result<Vec<u8>, Code> {
        self.vfs()?.readlink(self.at(r.node)?).map_err(|e| code(&e))
    }

    fn read(&self, _: &Caller, r: Read) -> Result<Blob, Code> {
        let len = (r.len as usize).min(wire::MAX_IO);
        let slices = self.vfs()?.read(self.at(r.node)?, r.offset, len).map_err(|e| code(&e))?;
        Ok(Blob::of(slices.into_iter().map(|s| Box::new(Kept(s)) as Piece).collect()))
    }

    fn statfs(&self, _: &Caller, r: StatFs) -> Result<Statfs, Code> {
        let s = self.vfs()?.statfs(self.at(r.node)?).map_err(|e| code(&e))?;
        Ok(Statfs {
            bsize: s.bsize,
            blocks: s.blocks,
            bfree: s.bfree,
            files: s.files,
            ffree: s.ffree,
            namelen: s.namelen,
            fsid: s.fsid,
        })
    }

    fn listxattr(&self, _: &Caller, r: ListXattr) -> Result<List<Vec<u8>>, Code> {
        self.vfs()?.listxattr(self.at(r.node)?, r.privileged).map(List).map_err(|e| code(&e))
    }

    fn getxattr(&self, _: &Caller, r: GetXattr) -> Result<Blob, Code> {
        match self.vfs()?.getxattr(self.at(r.node)?, &r.name, r.privileged) {
            Ok(value) => Ok(value.into()),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Code::NoAttribute),
            Err(e) => Err(code(&e)),
        }
    }

    fn seek(&self, _: &Caller, r: Seek) -> Result<u64, Code> {
        let what = match r.what {
            SeekTo::Data => zfs_zpl::Seek::Data,
            SeekTo::Hole => zfs_zpl::Seek::Hole,
        };
        self.vfs()?.seek(self.at(r.node)?, r.offset, what).map_err(|e| code(&e))
    }

    fn access(&self, _: &Caller, r: Access) -> Result<(), Code> {
        let List(groups) = r.groups;
        let cred = Cred { uid: r.uid, gid: groups.first().copied().unwrap_or(wire::NOBODY_KNOWN), groups };
        let want = u16::try_from(r.want & 7).unwrap_or(7);
        self.vfs()?.access(self.at(r.node)?, &cred, want).map_err(|e| code(&e))
    }

    fn fid(&self, _: &Caller, r: GetFid) -> Result<Fid, Code> {
        let f = self.vfs()?.fid(self.at(r.node)?).map_err(|e| code(&e))?;
        Ok(Fid { objset: f.objset, object: f.object, generation: f.generation })
    }

    fn by_fid(&self, _: &Caller, r: ByFid) -> Result<u64, Code> {
        let fid = zfs_zpl::Fid { objset: r.fid.objset, object: r.fid.object, generation: r.fid.generation };
        self.vfs()?.by_fid(&fid).map(NodeId::raw).map_err(|e| code(&e))
    }

    fn sync(&self, _: &Caller, _: SyncAll) -> Result<(), Code> {
        self.vfs()?.sync_all().map_err(|e| code(&e))
    }

    fn fsync(&self, _: &Caller, r: Fsync) -> Result<(), Code> {
        self.vfs()?.sync(self.at(r.node)?).map_err(|e| code(&e))
    }

    fn reclaim(&self, _: &Caller, r: Reclaim) -> Result<(), Code> {
        let known = self.known.lock().remove(&r.node).is_some();
        let stale = self.any_stale.load(Ordering::Acquire) && self.stale.lock().remove(&r.node);
        if known && !stale {
            self.vfs()?.release(NodeId::from_raw(r.node)).map_err(|e| code(&e))?;
        }
        Ok(())
    }

    fn setattr(&self, _: &Caller, r: SetAttr) -> Result<SetDone, Code> {
        let node = self.at(r.node)?;
        self.change(|vfs| vfs.setattr(node, &to_set(&r.attrs)))?;
        Ok(SetDone { attr: self.attr(node)?, consumed: r.attrs.mask & !set::BTIME })
    }

    fn write(&self, caller: &Caller, r: Write) -> Result<u32, Code> {
        let node = self.at(r.node)?;
        let end = self.change(|vfs| vfs.write(node, r.offset, r.data.bytes(), false, caller.uid == 0))?;
        Ok(u32::try_from(end.saturating_sub(r.offset)).unwrap_or(u32::MAX))
    }

    fn create(&self, caller: &Caller, r: Create) -> Result<Entry, Code> {
        if r.attrs.mask & set::MODE == 0 {
            return Err(Code::Invalid);
        }
        let rdev = ((r.rdev >> 32) as u32, r.rdev as u32);
        let new = NewFile { mode: r.attrs.mode, uid: 0, gid: 0, rdev, target: b"", umask: 0 };
        self.make(caller, r.dir, r.name, &r.attrs, &new)
    }

    fn symlink(&self, caller: &Caller, r: Symlink) -> Result<Entry, Code> {
        let new = NewFile { mode: 0o120_777, uid: 0, gid: 0, rdev: (0, 0), target: &r.target, umask: 0 };
        self.make(caller, r.dir, r.name, &r.attrs, &new)
    }

    fn link(&self, _: &Caller, r: Link) -> Result<Entry, Code> {
        let (node, dir) = (self.at(r.node)?, self.at(r.dir)?);
        self.change(|vfs| vfs.link(node, dir, &r.name))?;
        Ok(Entry { attr: self.attr(node)?, name: r.name })
    }

    fn remove(&self, _: &Caller, r: Remove) -> Result<(), Code> {
        let dir = self.at(r.dir)?;
        // The name may stand for another file by now.
        if r.node != 0 {
            let found = self.vfs()?.lookup(dir, &r.name, CaseMode::Dataset).map_err(|e| code(&e))?;
            if found.raw() != r.node {
                return Err(Code::NotFound);
            }
        }
        self.change(|vfs| vfs.remove(dir, &r.name, r.directory))
    }

    fn rename(&self, _: &Caller, r: Rename) -> Result<(), Code> {
        let how = match r.flags {
            0 => RenameFlags::Replace,
            rename_flags::NO_REPLACE => RenameFlags::NoReplace,
            rename_flags::EXCHANGE => RenameFlags::Exchange,
            _ => return Err(Code::Invalid),
        };
        let (from, to) = (self.at(r.from)?, self.at(r.to)?);
        self.change(|vfs| vfs.rename(from, &r.old, to, &r.new, how))
    }

    fn setxattr(&self, caller: &Caller, r: SetXattr) -> Result<(), Code> {
        let mode = match r.policy {
            XattrPolicy::Always => XattrMode::Any,
            XattrPolicy::Create => XattrMode::Create,
            XattrPolicy::Replace => XattrMode::Replace,
        };
        let (node, root) = (self.at(r.node)?, caller.uid == 0);
        attribute(self.change(|vfs| vfs.setxattr(node, &r.name, Some(r.value.bytes()), mode, root)))
    }

    fn removexattr(&self, caller: &Caller, r: RemoveXattr) -> Result<(), Code> {
        let (node, root) = (self.at(r.node)?, caller.uid == 0);
        attribute(self.change(|vfs| vfs.setxattr(node, &r.name, None, XattrMode::Any, root)))
    }

    fn clone_range(&self, _: &Caller, _: CloneRange) -> Result<u64, Code> {
        Err(if self.vfs()?.is_writable() { Code::Unsupported } else { Code::ReadOnly })
    }

    fn allocate(&self, _: &Caller, r: Allocate) -> Result<(), Code> {
        let how = if r.punch { zfs_zpl::Allocate::PunchHole } else { zfs_zpl::Allocate::Extend };
        let node = self.at(r.node)?;
        self.change(|vfs| vfs.allocate(node, r.offset, r.len, how))
    }
}

#[cfg(test)]
mod tests;
