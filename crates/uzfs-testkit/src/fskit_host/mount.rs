//! A volume in the file system tree: FUSE in the place of macOS's kernel.
//!
//! The kernel's requests become calls of [`Fskitd`], which asks the module as FSKit would. Numbers of files are FSKit's,
//! so the root shows number 2. FSKit has no device numbers, so device nodes show 0. What can be written is refused by
//! the mount itself when the volume is read-only.

use super::{Fskitd, Problem, StandIn, Wanted};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow,
    WriteFlags,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uzfs_fskit::api::{
    FsError, ItemAttributes, ItemType, ROOT_ID, SeekRegion, SetXattrPolicy, TimeSpec, UnaryFileSystem,
};

/// How long the kernel may believe what it was told: FSKit's kernel believes it until the vnode goes.
const TTL: Duration = Duration::from_secs(60);

struct Front<M> {
    fskitd: Arc<Fskitd<M>>,
    /// Verifier of the last listing of a directory.
    verifiers: Mutex<HashMap<u64, u64>>,
    broken: Arc<Mutex<Vec<Problem>>>,
}

/// A mount through the stand-in.
pub struct Mounted {
    session: BackgroundSession,
    broken: Arc<Mutex<Vec<Problem>>>,
}

impl Mounted {
    /// Unmounts and waits; gives the rules that were broken meanwhile.
    pub fn unmount(self) -> io::Result<Vec<Problem>> {
        self.session.umount_and_join()?;
        Ok(super::locked(&self.broken).clone())
    }

    /// Waits until somebody unmounts; gives the rules that were broken meanwhile.
    pub fn wait(self) -> io::Result<Vec<Problem>> {
        self.session.join()?;
        Ok(super::locked(&self.broken).clone())
    }
}

/// Mounts what `fskitd` brought up on `at`.
pub fn mount<M: UnaryFileSystem<StandIn> + 'static>(
    fskitd: Arc<Fskitd<M>>,
    at: &Path,
    source: &str,
) -> io::Result<Mounted> {
    let readonly = fskitd.is_readonly().map_err(|p| io::Error::other(p.to_string()))?;
    let broken = Arc::new(Mutex::default());
    let front = Front { fskitd: fskitd.clone(), verifiers: Mutex::default(), broken: broken.clone() };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.to_owned()),
        MountOption::Subtype("fskit".into()),
        MountOption::DefaultPermissions,
    ];
    if readonly {
        config.mount_options.push(MountOption::RO);
    }
    if crate::paths::is_root() {
        config.mount_options.extend([MountOption::Dev, MountOption::Suid]);
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(4);
    config.clone_fd = true;
    let session = fuser::spawn_mount(front, at, &config)?;
    let (notifier, known) = (session.notifier(), Arc::downgrade(&fskitd));
    fskitd.host().set_kernel(Some(Box::new(move |nodes| {
        let Some(fskitd) = known.upgrade() else { return };
        for id in fskitd.known_of(nodes) {
            let ino = if id == ROOT_ID { INodeNo::ROOT } else { INodeNo(id) };
            // A file that the kernel forgot by itself is not there.
            let _ = notifier.inval_inode(ino, 0, 0);
        }
    })));
    Ok(Mounted { session, broken })
}

fn time(t: Option<TimeSpec>) -> SystemTime {
    let t = t.unwrap_or_default();
    let nanos = Duration::from_nanos(t.nsec.unsigned_abs());
    let seconds = Duration::from_secs(t.sec.unsigned_abs());
    let base = if t.sec < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    base.and_then(|b| b.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

fn spec(t: TimeOrNow) -> TimeSpec {
    let t = match t {
        TimeOrNow::SpecificTime(t) => t,
        TimeOrNow::Now => SystemTime::now(),
    };
    let (sign, d) = t.duration_since(UNIX_EPOCH).map_or_else(|e| (-1, e.duration()), |d| (1, d));
    let (sec, nsec) = (sign * i64::try_from(d.as_secs()).unwrap_or(i64::MAX), i64::from(d.subsec_nanos()));
    // Nanoseconds count forwards also before 1970.
    if sign < 0 && nsec > 0 { TimeSpec { sec: sec - 1, nsec: 1_000_000_000 - nsec } } else { TimeSpec { sec, nsec } }
}

/// Owner and permissions of what a caller makes.
fn made_by(who: &Request, mode: u32) -> Wanted {
    Wanted { mode: Some(mode & 0o7777), uid: Some(who.uid()), gid: Some(who.gid()), ..Wanted::default() }
}

fn file_type(kind: ItemType) -> FileType {
    match kind {
        ItemType::Directory => FileType::Directory,
        ItemType::Symlink => FileType::Symlink,
        ItemType::Fifo => FileType::NamedPipe,
        ItemType::CharDevice => FileType::CharDevice,
        ItemType::BlockDevice => FileType::BlockDevice,
        ItemType::Socket => FileType::Socket,
        ItemType::File | ItemType::Unknown => FileType::RegularFile,
    }
}

fn attr(a: &ItemAttributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.file_id.unwrap_or(0)),
        size: a.size.unwrap_or(0),
        blocks: a.alloc_size.unwrap_or(0) / 512,
        atime: time(a.access_time),
        mtime: time(a.modify_time),
        ctime: time(a.change_time),
        crtime: time(a.birth_time),
        kind: file_type(a.kind.unwrap_or(ItemType::Unknown)),
        perm: (a.mode.unwrap_or(0) & 0o7777) as u16,
        nlink: a.link_count.unwrap_or(0),
        uid: a.uid.unwrap_or(0),
        gid: a.gid.unwrap_or(0),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// FUSE has its own number for the root.
fn id(ino: INodeNo) -> u64 {
    if ino == INodeNo::ROOT { ROOT_ID } else { ino.0 }
}

impl<M: UnaryFileSystem<StandIn> + 'static> Front<M> {
    /// The error for the kernel; broken rules are kept.
    fn error(&self, p: Problem) -> Errno {
        let number = match p.error {
            FsError::Posix(n) => n,
            FsError::FsKit(_) => libc::EIO,
        };
        if p.rule.is_some() {
            super::locked(&self.broken).push(p);
        }
        Errno::from_i32(number)
    }

    fn entry(&self, found: Result<ItemAttributes, Problem>, reply: ReplyEntry) {
        match found {
            Ok(a) => reply.entry(&TTL, &attr(&a), Generation(0)),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn done(&self, result: Result<(), Problem>, reply: ReplyEmpty) {
        match result {
            Ok(()) => reply.ok(),
            Err(p) => reply.error(self.error(p)),
        }
    }
}

fn sized(value: Vec<u8>, room: u32, reply: ReplyXattr) {
    match room as usize {
        0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        n if n < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(&value),
    }
}

impl<M: UnaryFileSystem<StandIn> + 'static> Filesystem for Front<M> {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.fskitd.lookup(id(parent), name.as_bytes()), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        if let Err(p) = self.fskitd.forget(id(ino), count) {
            self.error(p);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.fskitd.attributes(id(ino)) {
            Ok(a) => reply.attr(&TTL, &attr(&a)),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fskitd.read_link(id(ino)) {
            Ok(target) => reply.data(&target),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_ACCMODE != libc::O_RDONLY && self.fskitd.is_readonly().unwrap_or(true) {
            return reply.error(Errno::EROFS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; size as usize];
        match self.fskitd.read(id(ino), i64::try_from(offset).unwrap_or(i64::MAX), &mut buf) {
            Ok(n) => reply.data(buf.get(..n).unwrap_or_default()),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let dir = id(ino);
        let verifier = if offset == 0 { 0 } else { super::locked(&self.verifiers).get(&dir).copied().unwrap_or(0) };
        let listed = self.fskitd.enumerate(dir, (offset, verifier), false, &mut |e| {
            !reply.add(INodeNo(e.id), e.next_cookie, file_type(e.kind), OsStr::from_bytes(e.name))
        });
        match listed {
            Ok(verifier) => {
                super::locked(&self.verifiers).insert(dir, verifier);
                reply.ok();
            }
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.fskitd.statistics() {
            Ok((s, name)) => {
                let (bsize, name) = (u32::try_from(s.block_size).unwrap_or(512), u32::try_from(name).unwrap_or(255));
                let (all, free) = (s.total_blocks, s.free_blocks);
                reply.statfs(all, free, free, s.total_files, s.free_files, bsize, name, bsize);
            }
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.fskitd.get_xattr(id(ino), name.as_bytes()) {
            Ok(value) => sized(value, size, reply),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.fskitd.list_xattrs(id(ino)) {
            Ok(names) => sized(names.iter().flat_map(|n| [n.as_slice(), b"\0"].concat()).collect(), size, reply),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let region = match whence {
            libc::SEEK_DATA => SeekRegion::Data,
            libc::SEEK_HOLE => SeekRegion::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        match self.fskitd.seek(id(ino), offset, region) {
            Ok(at) => reply.offset(at),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (access_time, modify_time) = (atime.map(spec), mtime.map(spec));
        let wanted = Wanted { mode: mode.map(|m| m & 0o7777), uid, gid, size, access_time, modify_time };
        match self.fskitd.set_attributes(id(ino), &wanted) {
            Ok(a) => reply.attr(&TTL, &attr(&a)),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn create(&self, who: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.fskitd.create((id(parent), name.as_bytes()), ItemType::File, &made_by(who, mode)) {
            Ok(a) => reply.created(&TTL, &attr(&a), Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn mkdir(&self, who: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let at = (id(parent), name.as_bytes());
        self.entry(self.fskitd.create(at, ItemType::Directory, &made_by(who, mode)), reply);
    }

    fn mknod(&self, who: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            // FSKit makes no pipes, sockets and devices.
            return reply.error(Errno::ENOTSUP);
        }
        self.entry(self.fskitd.create((id(parent), name.as_bytes()), ItemType::File, &made_by(who, mode)), reply);
    }

    fn symlink(&self, who: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let at = (id(parent), name.as_bytes());
        self.entry(self.fskitd.symlink(at, target.as_os_str().as_bytes(), &made_by(who, 0o777)), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.fskitd.link(id(ino), (id(parent), name.as_bytes())), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(self.fskitd.remove((id(parent), name.as_bytes()), false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(self.fskitd.remove((id(parent), name.as_bytes()), true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        self.done(self.fskitd.rename((id(parent), name.as_bytes()), (id(to), new.as_bytes())), reply);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.fskitd.write(id(ino), i64::try_from(offset).unwrap_or(i64::MAX), data) {
            Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
            Err(p) => reply.error(self.error(p)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // FSKit has no other call for this.
        self.done(self.fskitd.synchronize(), reply);
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        let policy = match flags {
            libc::XATTR_CREATE => SetXattrPolicy::MustCreate,
            libc::XATTR_REPLACE => SetXattrPolicy::MustReplace,
            _ => SetXattrPolicy::Always,
        };
        self.done(self.fskitd.set_xattr(id(ino), name.as_bytes(), Some(value), policy), reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(self.fskitd.set_xattr(id(ino), name.as_bytes(), None, SetXattrPolicy::Delete), reply);
    }
}
