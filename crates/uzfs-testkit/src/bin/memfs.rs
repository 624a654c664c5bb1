//! `memfs MOUNTPOINT BYTES FILES`: a FUSE file system in memory, the ceiling of what FUSE can serve.
//!
//! One file `big` of BYTES, one directory `wide` of FILES empty files. It asks the kernel for the same
//! abilities as uzfs does; nothing is computed, so what it serves is the price of FUSE itself. Ends when
//! unmounted.

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyOpen, Request,
    SessionACL,
};
use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

const TTL: Duration = Duration::from_secs(3600);
const BIG: u64 = 2;
const WIDE: u64 = 3;
const FIRST: u64 = 16;

struct MemFs {
    big: Vec<u8>,
    files: u64,
}

impl MemFs {
    fn attr(&self, ino: u64) -> Option<FileAttr> {
        let (kind, perm, size) = match ino {
            1 | WIDE => (FileType::Directory, 0o755, 0),
            BIG => (FileType::RegularFile, 0o644, self.big.len() as u64),
            n if (FIRST..FIRST + self.files).contains(&n) => (FileType::RegularFile, 0o644, 0),
            _ => return None,
        };
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 131_072,
            flags: 0,
        })
    }

    fn child(&self, parent: u64, name: &str) -> Option<u64> {
        match (parent, name) {
            (1, "big") => Some(BIG),
            (1, "wide") => Some(WIDE),
            (WIDE, name) => {
                let n: u64 = name.strip_prefix("file-")?.parse().ok()?;
                (n < self.files).then_some(FIRST + n)
            }
            _ => None,
        }
    }

    /// Entry number `at` of a directory.
    fn entry(&self, dir: u64, at: u64) -> Option<(u64, String)> {
        match (dir, at) {
            (_, 0) => Some((dir, ".".into())),
            (_, 1) => Some((1, "..".into())),
            (1, 2) => Some((BIG, "big".into())),
            (1, 3) => Some((WIDE, "wide".into())),
            (WIDE, n) if n - 2 < self.files => Some((FIRST + n - 2, format!("file-{:06}", n - 2))),
            _ => None,
        }
    }
}

/// Abilities that uzfs uses too.
const WANTED: [InitFlags; 10] = [
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];
/// Largest write, bytes, from which fuser derives the largest read: 1 MiB as in uzfs.
const MAX_WRITE: u32 = 1 << 20;
/// Background requests in flight, as in uzfs.
const MAX_BACKGROUND: u16 = 64;

impl Filesystem for MemFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for ability in WANTED {
            // What the kernel lacks, uzfs goes without too.
            let _ = config.add_capabilities(ability);
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = name.to_str().and_then(|n| self.child(parent.0, n)).and_then(|i| self.attr(i));
        match found {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Both need no opening, as in uzfs.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
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
        if ino.0 != BIG {
            return reply.data(&[]);
        }
        let start = (offset as usize).min(self.big.len());
        let end = (start + size as usize).min(self.big.len());
        reply.data(&self.big[start..end]);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut at = offset;
        while let Some((child, name)) = self.entry(ino.0, at) {
            let kind = self.attr(child).map_or(FileType::RegularFile, |a| a.kind);
            if reply.add(INodeNo(child), at + 1, kind, name) {
                break;
            }
            at += 1;
        }
        reply.ok();
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let mut at = offset;
        while let Some((child, name)) = self.entry(ino.0, at) {
            let Some(attr) = self.attr(child) else { break };
            if reply.add(INodeNo(child), at + 1, name, &TTL, &attr, Generation(0)) {
                break;
            }
            at += 1;
        }
        reply.ok();
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers = args.get(1).and_then(|a| a.parse().ok()).zip(args.get(2).and_then(|a| a.parse().ok()));
    let (Some(point), Some((bytes, files))) = (args.first(), numbers) else {
        eprintln!("usage: memfs MOUNTPOINT BYTES FILES");
        return ExitCode::from(2);
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::DefaultPermissions, MountOption::FSName("memfs".into())];
    config.acl = SessionACL::Owner;
    config.n_threads = Some(threads);
    config.clone_fd = true;
    let big: Vec<u8> = (0..bytes).map(|n: usize| (n / 4096 * 7 + n % 251) as u8).collect();
    match fuser::mount(MemFs { big, files }, point, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("memfs: {e}");
            ExitCode::FAILURE
        }
    }
}
