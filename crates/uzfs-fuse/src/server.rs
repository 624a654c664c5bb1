//! Answers requests: one function an operation, each a few lines around a [`Vfs`] call.
//!
//! The server has no state of its own. Nodes are stateless, so `FORGET` does nothing. Files of a read-only mount need not be
//! opened, so the kernel is told to leave open and release out where it can; of a writable one they are counted, because a
//! removed file lives until it is closed. What changes files is in [`crate::write`], and fails with `EROFS` where nothing
//! can be changed.

use crate::abi::{Body, FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, Out, Request, flag, op};
use crate::attrs;
use crate::dir;
use crate::errno;
use std::sync::Arc;
use zfs_zio::{Error, ErrorKind};
use zfs_zpl::{CaseMode, NodeId, Seek, Slice, Vfs};

/// `FS_IOC_GETFLAGS` for 64- and 32-bit callers.
const IOC_GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
/// `FS_IOC_FSGETXATTR`.
const IOC_FSGETXATTR: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR`.
const IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `FS_IOC_SETFLAGS` for 64- and 32-bit callers.
const IOC_SETFLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];
/// Slices that go into one vectored write; more are put together first.
const MAX_SLICES: usize = 1000;

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Pieces of cached blocks.
    Slices(Vec<Slice>),
    /// An error number.
    Error(i32),
    /// The kernel expects none.
    None,
}

impl From<Out> for Answer {
    fn from(o: Out) -> Self {
        Self::Bytes(o.0)
    }
}

/// Why a request fails: an error of the engine, or a number by itself.
pub(crate) enum Fail {
    Engine(Error),
    Errno(i32),
}

impl From<Error> for Fail {
    fn from(e: Error) -> Self {
        Self::Engine(e)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Fail>;

/// Gives what a body must have.
pub(crate) fn must<T>(part: Option<T>) -> Result<T> {
    part.ok_or(Fail::Errno(libc::EINVAL))
}

/// Serves one mount.
#[derive(Clone)]
pub struct Server {
    pub(crate) vfs: Arc<Vfs>,
    /// The kernel can do without opening files; and without opening directories.
    stateless: (bool, bool),
    /// The kernel tells with lists it sets whether they take the set-group-id bit away.
    pub(crate) long_setxattr: bool,
}

impl Server {
    /// A server of `vfs`, whose files the kernel may use without opening them, after it agreed to `flags`.
    pub fn new(vfs: Arc<Vfs>, stateless_files: bool, flags: u64) -> Self {
        let has = |bit: u64| flags & bit != 0;
        let stateless = (stateless_files, has(flag::NO_OPENDIR_SUPPORT));
        Self { vfs, stateless, long_setxattr: has(flag::SETXATTR_EXT) }
    }

    /// Answers a request.
    pub fn answer(&self, r: &Request<'_>) -> Answer {
        match self.dispatch(r) {
            Ok(answer) => answer,
            Err(Fail::Errno(n)) => Answer::Error(n),
            Err(Fail::Engine(e)) => {
                let n = match r.opcode {
                    op::GETXATTR | op::SETXATTR | op::REMOVEXATTR => errno::of_xattr(e.kind()),
                    _ => errno::of(e.kind()),
                };
                if n == libc::EIO {
                    tracing::warn!(opcode = r.opcode, node = r.nodeid, "{e}");
                }
                Answer::Error(n)
            }
        }
    }

    fn dispatch(&self, r: &Request<'_>) -> Result<Answer> {
        let node = attrs::node_of(&self.vfs, r.nodeid);
        match r.opcode {
            op::LOOKUP => self.lookup(node, r.body()),
            op::GETATTR => self.attributes(node),
            op::STATX => {
                let attr = self.vfs.getattr(node)?;
                Ok(attrs::statx_out(&attr, attrs::attr_ttl(&self.vfs, node, &attr)).into())
            }
            op::READ => self.read(node, r.body()),
            op::READDIR => self.readdir(node, r.body(), false),
            op::READDIRPLUS => self.readdir(node, r.body(), true),
            op::READLINK => {
                let target = self.vfs.readlink(node)?;
                self.vfs.accessed(node);
                Ok(Answer::Bytes(target))
            }
            op::OPEN => self.open(node, r.body()),
            op::OPENDIR => self.opendir(),
            op::STATFS => Ok(attrs::statfs_out(&self.vfs.statfs(node)?).into()),
            op::GETXATTR => self.getxattr(node, r),
            op::LISTXATTR => self.listxattr(node, r),
            op::LSEEK => self.lseek(node, r.body()),
            op::IOCTL => self.ioctl(node, r.body()),
            op::ACCESS => self.access(r.body()),
            op::RELEASE => self.vfs.release(node).map(|()| Answer::Bytes(Vec::new())).map_err(Fail::from),
            op::FSYNC | op::FSYNCDIR => self.vfs.sync(node).map(|()| Answer::Bytes(Vec::new())).map_err(Fail::from),
            // Nothing is kept back until a file is closed: the kernel need not ask at every close.
            op::FLUSH => Err(Fail::Errno(libc::ENOSYS)),
            op::RELEASEDIR | op::DESTROY => Ok(Answer::Bytes(Vec::new())),
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => Ok(Answer::None),
            _ => self.change(node, r),
        }
    }

    /// `fuse_attr_out` of a node as it is now.
    pub(crate) fn attributes(&self, node: NodeId) -> Result<Answer> {
        let attr = self.vfs.getattr(node)?;
        Ok(attrs::attr_out(&attr, attrs::attr_ttl(&self.vfs, node, &attr)).into())
    }

    /// Requests that change files.
    fn change(&self, node: NodeId, r: &Request<'_>) -> Result<Answer> {
        match r.opcode {
            op::SETATTR => self.setattr(node, r.body()),
            op::SYMLINK => self.symlink(node, r),
            op::MKNOD => self.mknod(node, r),
            op::MKDIR => self.mkdir(node, r),
            op::UNLINK => self.remove(node, r.body(), false),
            op::RMDIR => self.remove(node, r.body(), true),
            op::RENAME => self.rename(node, r, false),
            op::RENAME2 => self.rename(node, r, true),
            op::LINK => self.link(node, r.body()),
            op::WRITE => self.write(node, r.body()),
            op::SETXATTR => self.setxattr(node, r),
            op::REMOVEXATTR => self.removexattr(node, r),
            op::CREATE => self.create(node, r, true),
            op::TMPFILE => self.create(node, r, false),
            op::FALLOCATE => self.fallocate(node, r.body()),
            op::COPY_FILE_RANGE => self.copy_range(node, r.body()),
            _ => Err(Fail::Errno(libc::ENOSYS)),
        }
    }

    fn lookup(&self, dir: NodeId, mut b: Body<'_>) -> Result<Answer> {
        let name = must(b.name())?;
        let mut o = Out::default();
        let found = match name {
            // Asked of files too, to turn an NFS handle into a node again.
            b"." => Ok(dir),
            _ => self.vfs.lookup(dir, name, CaseMode::Dataset),
        };
        match found {
            Ok(node) => attrs::push_entry(&mut o, &self.vfs, node, &self.vfs.getattr(node)?),
            // What is not there will not come either: let the kernel remember that.
            Err(e) if e.kind() == ErrorKind::NotFound => attrs::push_no_entry(&mut o, attrs::ttl(dir)),
            Err(e) => return Err(e.into()),
        }
        Ok(o.into())
    }

    fn read(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        must(b.take(8))?;
        let (offset, size) = (must(b.u64())?, must(b.u32())? as usize);
        must(b.take(12))?;
        // Opened past the page cache, a file is cached here, else there.
        let direct = must(b.u32())? as i32 & libc::O_DIRECT != 0;
        let slices = match direct {
            true => self.vfs.read(node, offset, size)?,
            false => self.vfs.read_once(node, offset, size)?,
        };
        self.vfs.accessed(node);
        if slices.len() > MAX_SLICES {
            let mut all = Vec::with_capacity(size);
            slices.iter().for_each(|s| all.extend_from_slice(s));
            return Ok(Answer::Bytes(all));
        }
        Ok(Answer::Slices(slices))
    }

    fn readdir(&self, dir: NodeId, mut b: Body<'_>, plus: bool) -> Result<Answer> {
        must(b.take(8))?;
        let (cookie, size) = (must(b.u64())?, must(b.u32())? as usize);
        let listed = dir::list(&self.vfs, dir, cookie, size, plus)?;
        self.vfs.accessed(dir);
        Ok(Answer::Bytes(listed))
    }

    fn open(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        let flags = must(b.u32())? as i32;
        if flags & libc::O_ACCMODE != libc::O_RDONLY && !self.vfs.is_writable() {
            return Err(Fail::Errno(libc::EROFS));
        }
        if self.stateless.0 {
            return Err(Fail::Errno(libc::ENOSYS));
        }
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            self.vfs.may_write(node, flags & libc::O_APPEND != 0)?;
        }
        self.vfs.open(node)?;
        self.vfs.hold(node);
        Ok(opened(FOPEN_KEEP_CACHE))
    }

    fn opendir(&self) -> Result<Answer> {
        if self.stateless.1 {
            return Err(Fail::Errno(libc::ENOSYS));
        }
        Ok(opened(FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR))
    }

    fn getxattr(&self, node: NodeId, r: &Request<'_>) -> Result<Answer> {
        let mut b = r.body();
        let room = must(b.u32())?;
        must(b.u32())?;
        sized(self.vfs.getxattr(node, must(b.name())?, r.uid == 0)?, room)
    }

    fn listxattr(&self, node: NodeId, r: &Request<'_>) -> Result<Answer> {
        let room = must(r.body().u32())?;
        let mut all = Vec::new();
        for name in self.vfs.listxattr(node, r.uid == 0)? {
            all.extend_from_slice(&name);
            all.push(0);
        }
        sized(all, room)
    }

    fn lseek(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        must(b.take(8))?;
        let (offset, whence) = (must(b.u64())?, must(b.u32())? as i32);
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(Fail::Errno(libc::EINVAL)),
        };
        let mut o = Out::default();
        o.u64(self.vfs.seek(node, offset, what)?);
        Ok(o.into())
    }

    /// File flags and project ids, which the kernel asks for with the numbers of ioctls.
    fn ioctl(&self, node: NodeId, mut b: Body<'_>) -> Result<Answer> {
        must(b.take(12))?;
        let command = must(b.u32())?;
        let attr = self.vfs.getattr(node)?;
        let mut o = Out::default();
        o.u32(0).u32(0).u32(0).u32(0);
        if IOC_GETFLAGS.contains(&command) {
            o.u32(attrs::fs_flags(&attr));
        } else if IOC_SETFLAGS.contains(&command) {
            must(b.take(16))?;
            self.set_flags(node, must(b.u32())?)?;
        } else if command == IOC_FSSETXATTR {
            must(b.take(16))?;
            let (flags, _) = (must(b.u32())?, must(b.take(8))?);
            self.set_project(node, flags, must(b.u32())?)?;
        } else if command == IOC_FSGETXATTR {
            o.0.extend_from_slice(&attrs::fsxattr(&attr).0);
        } else {
            return Err(Fail::Errno(libc::ENOTTY));
        }
        Ok(o.into())
    }

    /// The kernel checks modes and lists itself (`default_permissions`); what is left is whether anything can be written.
    fn access(&self, mut b: Body<'_>) -> Result<Answer> {
        if must(b.u32())? as i32 & libc::W_OK != 0 && !self.vfs.is_writable() {
            return Err(Fail::Errno(libc::EROFS));
        }
        Ok(Answer::Bytes(Vec::new()))
    }
}

/// `fuse_open_out`.
fn opened(flags: u32) -> Answer {
    let mut o = Out::default();
    o.u64(0).u32(flags).u32(0);
    o.into()
}

/// An extended attribute's answer: its size when there is no room at all, else the bytes if they fit.
fn sized(bytes: Vec<u8>, room: u32) -> Result<Answer> {
    if room == 0 {
        let mut o = Out::default();
        o.u32(bytes.len() as u32).u32(0);
        return Ok(o.into());
    }
    if bytes.len() > room as usize {
        return Err(Fail::Errno(libc::ERANGE));
    }
    Ok(Answer::Bytes(bytes))
}
