//! `memfs-write MOUNTPOINT`: a writable FUSE file system in memory, the ceiling of what FUSE lets anybody write.
//!
//! Files, directories and links, and nothing else: no times, no owners, nothing durable. What it does is the price of FUSE
//! itself and of one copy. Ends when unmounted.

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TTL: Duration = Duration::from_secs(3600);
/// Largest write, bytes, as in uzfs.
const MAX_WRITE: u32 = 1 << 20;
const ROOT: u64 = 1;

enum Content {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, u64>),
    Link(Vec<u8>),
}

struct Node {
    ino: u64,
    mode: u16,
    content: Mutex<Content>,
}

impl Node {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attr(&self) -> FileAttr {
        let (kind, size) = match &*self.content() {
            Content::File(bytes) => (FileType::RegularFile, bytes.len()),
            Content::Directory(names) => (FileType::Directory, names.len()),
            Content::Link(target) => (FileType::Symlink, target.len()),
        };
        FileAttr {
            ino: INodeNo(self.ino),
            size: size as u64,
            blocks: size.div_ceil(512) as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: self.mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 131_072,
            flags: 0,
        }
    }
}

struct MemFs {
    nodes: RwLock<HashMap<u64, Arc<Node>>>,
    next: AtomicU64,
}

impl MemFs {
    fn new() -> Self {
        let root = Node { ino: ROOT, mode: 0o755, content: Mutex::new(Content::Directory(BTreeMap::new())) };
        Self { nodes: RwLock::new(HashMap::from([(ROOT, Arc::new(root))])), next: AtomicU64::new(ROOT + 1) }
    }

    fn node(&self, ino: u64) -> Result<Arc<Node>, Errno> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&ino).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, dir: u64, name: &OsStr) -> Result<Arc<Node>, Errno> {
        let ino = match &*self.node(dir)?.content() {
            Content::Directory(names) => names.get(name).copied().ok_or(Errno::ENOENT)?,
            _ => return Err(Errno::ENOTDIR),
        };
        self.node(ino)
    }

    fn make(&self, dir: u64, name: &OsStr, mode: u32, content: Content) -> Result<FileAttr, Errno> {
        let ino = self.next.fetch_add(1, Relaxed);
        let node = Arc::new(Node { ino, mode: (mode & 0o7777) as u16, content: Mutex::new(content) });
        match &mut *self.node(dir)?.content() {
            Content::Directory(names) if names.contains_key(name) => return Err(Errno::EEXIST),
            Content::Directory(names) => drop(names.insert(name.to_owned(), ino)),
            _ => return Err(Errno::ENOTDIR),
        }
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(ino, node.clone());
        Ok(node.attr())
    }

    fn remove(&self, dir: u64, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.node(dir).map(|dir| match &mut *dir.content() {
            Content::Directory(names) => names.remove(name),
            _ => None,
        });
        match gone {
            Ok(Some(ino)) => {
                self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(&ino);
                reply.ok();
            }
            Ok(None) => reply.error(Errno::ENOENT),
            Err(e) => reply.error(e),
        }
    }
}

fn entry(made: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match made {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for MemFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for ability in [InitFlags::FUSE_MAX_PAGES, InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_NO_OPENDIR_SUPPORT]
        {
            // What the kernel lacks, uzfs goes without too.
            let _ = config.add_capabilities(ability);
        }
        let _ = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.child(parent.0, name).map(|n| n.attr()), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(ino.0) {
            Ok(node) => reply.attr(&TTL, &node.attr()),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = match self.node(ino.0) {
            Ok(node) => node,
            Err(e) => return reply.error(e),
        };
        if let (Some(size), Content::File(bytes)) = (size, &mut *node.content()) {
            bytes.resize(size as usize, 0);
        }
        reply.attr(&TTL, &node.attr());
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.node(ino.0).as_ref().map(|n| n.content()).as_deref() {
            Ok(Content::Link(target)) => reply.data(target),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(self.make(parent.0, name, mode, Content::Directory(BTreeMap::new())), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = Content::Link(target.as_os_str().as_bytes().to_vec());
        entry(self.make(parent.0, name, 0o777, target), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent.0, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent.0, name, reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make(parent.0, name, mode, Content::File(Vec::new())) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(e) => reply.error(e),
        }
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
        match self.node(ino.0).as_ref().map(|n| n.content()).as_deref_mut() {
            Ok(Content::File(bytes)) => {
                let (at, end) = (offset as usize, offset as usize + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(data);
                reply.written(data.len() as u32);
            }
            _ => reply.error(Errno::EINVAL),
        }
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
        match self.node(ino.0).as_ref().map(|n| n.content()).as_deref() {
            Ok(Content::File(bytes)) => {
                let start = (offset as usize).min(bytes.len());
                reply.data(&bytes[start..(start + size as usize).min(bytes.len())]);
            }
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Ok(node) = self.node(ino.0) else { return reply.error(Errno::ENOENT) };
        if let Content::Directory(names) = &*node.content() {
            for (at, (name, child)) in names.iter().enumerate().skip(offset as usize) {
                let kind = self.node(*child).map_or(FileType::RegularFile, |n| n.attr().kind);
                if reply.add(INodeNo(*child), at as u64 + 1, kind, name) {
                    break;
                }
            }
        }
        reply.ok();
    }
}

fn main() -> ExitCode {
    let Some(point) = std::env::args().nth(1) else {
        eprintln!("usage: memfs-write MOUNTPOINT");
        return ExitCode::from(2);
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::DefaultPermissions, MountOption::FSName("memfs-write".into())];
    config.acl = SessionACL::Owner;
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, usize::from));
    config.clone_fd = true;
    match fuser::mount(MemFs::new(), point, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("memfs-write: {e}");
            ExitCode::FAILURE
        }
    }
}
