//! Serves the file-system protocol over the daemon's [`Vfs`] objects: one function an operation, each a few lines.
//!
//! No state but whether a front end says that it has the file system mounted. Errors become the codes of the wire through
//! the one table from error kinds to error numbers. Operations that change files are refused, because `Vfs` only
//! reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uzfs_fsproto::wire::{self, List};
use uzfs_fsproto::*;
use zfs_zio::{Error, ErrorKind};
use zfs_zpl::acl::Cred;
use zfs_zpl::{CaseMode, CaseSensitivity, NodeId, Vfs};

/// Most bytes of a listing.
const LISTING: usize = 512 << 10;

/// A dataset behind the protocol.
pub struct VfsService {
    vfs: Arc<Vfs>,
    info: VolumeInfo,
    mounted: AtomicBool,
}

/// The code of an engine error.
fn code(e: &Error) -> Code {
    let code = Code::from_errno(uzfs_fuse::errno::of(e.kind()));
    if code == Code::Io {
        tracing::warn!("{e}");
    }
    code
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
        // Nothing can be changed through `Vfs` yet.
        info.flags |= volume::READONLY;
        Self { vfs, info, mounted: AtomicBool::new(false) }
    }

    /// Whether a front end has it mounted.
    pub fn is_mounted(&self) -> bool {
        self.mounted.load(Ordering::Acquire)
    }

    /// No front end has it mounted any more.
    pub fn forget_mount(&self) {
        self.mounted.store(false, Ordering::Release);
    }

    fn attr(&self, node: u64) -> Result<Attr, Code> {
        let node = NodeId::from_raw(node);
        Ok(attr(node, &self.vfs.getattr(node).map_err(|e| code(&e))?))
    }

    /// The name as the directory stores it: another one only where names are normalized or case is ignored.
    fn stored_name(&self, dir: NodeId, node: NodeId, asked: Vec<u8>) -> Vec<u8> {
        if self.vfs.dataset().normflags() == 0 || asked == b"." || asked == b".." {
            return asked;
        }
        let mut found: Option<Vec<u8>> = None;
        let listed = self.vfs.readdir(dir, 0, &mut |e| {
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
        let of = self.vfs.dir_verifier(dir).map_err(|e| code(&e))?;
        Ok((dir.raw().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ of).max(1))
    }
}

macro_rules! read_only {
    ($($f:ident($t:ty) -> $r:ty;)*) => {$(
        fn $f(&self, _: &Caller, _: $t) -> Result<$r, Code> {
            Err(Code::ReadOnly)
        }
    )*};
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
        Ok(())
    }

    fn lookup(&self, _: &Caller, r: Lookup) -> Result<Entry, Code> {
        let dir = NodeId::from_raw(r.dir);
        let node = self.vfs.lookup(dir, &r.name, CaseMode::Dataset).map_err(|e| code(&e))?;
        Ok(Entry { attr: self.attr(node.raw())?, name: self.stored_name(dir, node, r.name) })
    }

    fn getattr(&self, _: &Caller, r: GetAttr) -> Result<Attr, Code> {
        self.attr(r.node)
    }

    fn readdir(&self, _: &Caller, r: ReadDir) -> Result<Listing, Code> {
        let dir = NodeId::from_raw(r.dir);
        let verifier = self.verifier(dir)?;
        if r.cookie != 0 && r.verifier != verifier {
            return Err(Code::Invalid);
        }
        let room = (r.room as usize).min(LISTING);
        let (mut entries, mut used, mut end) = (Vec::new(), 0, true);
        let done = self.vfs.readdir(dir, r.cookie, &mut |e| {
            let attr = if r.attrs { self.attr(e.node.raw()).ok() } else { None };
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
        self.vfs.readlink(NodeId::from_raw(r.node)).map_err(|e| code(&e))
    }

    fn read(&self, _: &Caller, r: Read) -> Result<Blob, Code> {
        let len = (r.len as usize).min(wire::MAX_IO);
        let slices = self.vfs.read(NodeId::from_raw(r.node), r.offset, len).map_err(|e| code(&e))?;
        Ok(Blob::of(slices.into_iter().map(|s| Box::new(Kept(s)) as Piece).collect()))
    }

    fn statfs(&self, _: &Caller, r: StatFs) -> Result<Statfs, Code> {
        let s = self.vfs.statfs(NodeId::from_raw(r.node)).map_err(|e| code(&e))?;
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
        self.vfs.listxattr(NodeId::from_raw(r.node), r.privileged).map(List).map_err(|e| code(&e))
    }

    fn getxattr(&self, _: &Caller, r: GetXattr) -> Result<Blob, Code> {
        match self.vfs.getxattr(NodeId::from_raw(r.node), &r.name, r.privileged) {
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
        self.vfs.seek(NodeId::from_raw(r.node), r.offset, what).map_err(|e| code(&e))
    }

    fn access(&self, _: &Caller, r: Access) -> Result<(), Code> {
        let List(groups) = r.groups;
        let cred = Cred { uid: r.uid, gid: groups.first().copied().unwrap_or(wire::NOBODY_KNOWN), groups };
        let want = u16::try_from(r.want & 7).unwrap_or(7);
        self.vfs.access(NodeId::from_raw(r.node), &cred, want).map_err(|e| code(&e))
    }

    fn fid(&self, _: &Caller, r: GetFid) -> Result<Fid, Code> {
        let f = self.vfs.fid(NodeId::from_raw(r.node)).map_err(|e| code(&e))?;
        Ok(Fid { objset: f.objset, object: f.object, generation: f.generation })
    }

    fn by_fid(&self, _: &Caller, r: ByFid) -> Result<u64, Code> {
        let fid = zfs_zpl::Fid { objset: r.fid.objset, object: r.fid.object, generation: r.fid.generation };
        self.vfs.by_fid(&fid).map(NodeId::raw).map_err(|e| code(&e))
    }

    // Nothing can be unwritten, and nothing can be unlinked.

    fn sync(&self, _: &Caller, _: SyncAll) -> Result<(), Code> {
        Ok(())
    }

    fn fsync(&self, _: &Caller, _: Fsync) -> Result<(), Code> {
        Ok(())
    }

    fn reclaim(&self, _: &Caller, _: Reclaim) -> Result<(), Code> {
        Ok(())
    }

    read_only! {
        setattr(SetAttr) -> SetDone;
        write(Write) -> u32;
        create(Create) -> Entry;
        symlink(Symlink) -> Entry;
        link(Link) -> Entry;
        remove(Remove) -> ();
        rename(Rename) -> ();
        setxattr(SetXattr) -> ();
        removexattr(RemoveXattr) -> ();
        clone_range(CloneRange) -> u64;
        allocate(Allocate) -> ();
    }
}
