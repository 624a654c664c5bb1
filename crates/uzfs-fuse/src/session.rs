//! A mount being served: the first handshake, the threads, the end.
//!
//! Threads block in read(2) on their own clone of the device and write the answer themselves. `unmount` makes the
//! kernel end all of them; dropping a [`Mount`] unmounts, by force if need be, so that no thread outlives it.

use crate::abi::{IN_HEADER, InitIn, InitOut, KERNEL_MINOR, KERNEL_VERSION, OLDEST_MINOR, OUT_HEADER, Request};
use crate::abi::{WRITE_HEAD, flag, op, out_header};
use crate::device::{self, MountSpec};
use crate::server::{Answer, Server};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use zfs_zpl::Vfs;

/// Largest write request.
const MAX_WRITE: u32 = 1 << 20;
/// Bytes that a request can have.
const REQUEST_ROOM: usize = WRITE_HEAD + MAX_WRITE as usize + 4096;
/// Largest read request, pages.
const MAX_PAGES: u16 = 256;
/// Read-ahead of a mount, KiB.
const READ_AHEAD_KIB: u32 = 2048;
/// Background requests in flight, which is what read-ahead consists of.
const MAX_BACKGROUND: u16 = 64;

/// What is used when the kernel has it.
const WANTED: u64 = flag::ASYNC_READ
    | flag::EXPORT_SUPPORT
    | flag::BIG_WRITES
    | flag::DONT_MASK
    | flag::DO_READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::ASYNC_DIO
    | flag::NO_OPEN_SUPPORT
    | flag::PARALLEL_DIROPS
    | flag::MAX_PAGES
    | flag::CACHE_SYMLINKS
    | flag::NO_OPENDIR_SUPPORT
    | flag::HANDLE_KILLPRIV_V2
    | flag::SETXATTR_EXT
    | flag::INIT_EXT
    | flag::DIRECT_IO_ALLOW_MMAP;

/// How a mount is served.
#[derive(Debug, Clone)]
pub struct MountConfig {
    /// How it looks to the kernel.
    pub spec: MountSpec,
    /// Threads that answer; 0 for a number that keeps devices busy: requests wait for them on their thread.
    pub threads: usize,
}

impl MountConfig {
    /// The usual way to mount `source` (`POOL/DATASET`): everybody may enter if root mounts it.
    pub fn new(source: impl Into<String>) -> Self {
        let root = device::is_root();
        let spec = MountSpec { source: source.into(), devices: root, setuid: root, exec: true, allow_other: root };
        Self { spec, threads: 0 }
    }
}

/// What the threads share.
struct Shared {
    server: Server,
    running: AtomicUsize,
    on_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A mounted file system. Dropping it unmounts.
pub struct Mount {
    at: PathBuf,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The first thread's queue. Only the threads own queues: when all have died, whoever waits for answers is told.
    queue: Weak<OwnedFd>,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({})", self.at.display())
    }
}

impl Mount {
    /// Mounts `vfs` on the directory `at`, read-only unless it can be changed, and serves it until it is unmounted. A dead
    /// mount that a killed server left there is taken away first.
    pub fn new(vfs: Arc<Vfs>, at: &Path, config: &MountConfig) -> io::Result<Self> {
        device::detach(at)?;
        let at = at.canonicalize()?;
        let device = device::mount(&at, &config.spec, !vfs.is_writable())?;
        match Self::start(vfs, &at, device, config) {
            Ok(mount) => Ok(mount),
            Err(e) => {
                // Nobody will answer: leave no dead mount.
                if let Err(again) = device::unmount(&at, true) {
                    tracing::warn!("unmounting {}: {again}", at.display());
                }
                Err(e)
            }
        }
    }

    fn start(vfs: Arc<Vfs>, at: &Path, device: OwnedFd, config: &MountConfig) -> io::Result<Self> {
        let flags = handshake(&device, vfs.dataset().posix_acls())?;
        let stateless_files = flags & flag::NO_OPEN_SUPPORT != 0 && !vfs.is_writable();
        let server = Server::new(vfs, stateless_files, flags);
        let count = match config.threads {
            0 => std::thread::available_parallelism().map_or(8, |n| (2 * n.get()).clamp(8, 64)),
            n => n,
        };
        let shared = Arc::new(Shared { server, running: AtomicUsize::new(count), on_end: Mutex::new(None) });
        let device = Arc::new(device);
        let queue = Arc::downgrade(&device);
        let mount = Self { at: at.to_owned(), shared: shared.clone(), threads: Mutex::default(), queue };
        for index in 0..count {
            let queue = match index {
                0 => device.clone(),
                _ => device::clone(&device).map_or_else(|| device.clone(), Arc::new),
            };
            let shared = shared.clone();
            let thread =
                std::thread::Builder::new().name(format!("fuse-{index}")).spawn(move || serve(&shared, &queue))?;
            mount.threads.lock().push(thread);
        }
        drop(device);
        device::raise_read_ahead(&mount.at, READ_AHEAD_KIB);
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.at
    }

    /// Whether the kernel still sends requests: not any more once somebody unmounted it.
    pub fn is_alive(&self) -> bool {
        self.shared.running.load(Ordering::Acquire) > 0
    }

    /// Calls `f` when the mount ends, whoever ended it; at once if it has. `f` runs on a serving thread.
    pub fn on_end(&self, f: impl FnOnce() + Send + 'static) {
        let mut slot = self.shared.on_end.lock();
        if self.is_alive() {
            *slot = Some(Box::new(f));
        } else {
            drop(slot);
            f();
        }
    }

    /// Unmounts and waits for the threads. Fails with `ResourceBusy` while files are open, unless `force` is set: then
    /// those files fail from now on.
    pub fn unmount(&self, force: bool) -> io::Result<()> {
        if self.is_alive()
            && let Err(e) = device::unmount(&self.at, force)
        {
            if e.kind() != io::ErrorKind::InvalidInput {
                return Err(e);
            }
            // It is not mounted there any more: somebody has unmounted it.
            if !self.ends_soon() {
                let text = "unmounted, but still in use, or mounted in another mount namespace";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
        }
        self.wait();
        Ok(())
    }

    /// Whether the kernel has ended the mount, or does within moments. Threads may have old requests to finish yet.
    fn ends_soon(&self) -> bool {
        let step = std::time::Duration::from_millis(10);
        (0..200).any(|n| {
            if n > 0 {
                std::thread::sleep(step);
            }
            self.queue.upgrade().is_none_or(|queue| device::is_ended(&queue))
        })
    }

    /// Waits until the mount ends.
    pub fn wait(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        let me = std::thread::current().id();
        // Called from `on_end`, this is one of them.
        for t in threads.into_iter().filter(|t| t.thread().id() != me) {
            if t.join().is_err() {
                tracing::error!("a thread serving {} panicked", self.at.display());
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.unmount(false).is_err()
            && let Err(e) = self.unmount(true)
        {
            tracing::error!("unmounting {}: {e}", self.at.display());
        }
    }
}

/// Counts a thread down even when it panics, and tells who waits for the last one.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut slot = self.0.on_end.lock();
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(f) = slot.take()
        {
            drop(slot);
            f();
        }
    }
}

/// Serves one queue until the mount ends.
fn serve(shared: &Shared, queue: &OwnedFd) {
    let _running = Running(shared);
    let mut buf = vec![0u8; REQUEST_ROOM];
    loop {
        let got = match rustix::io::read(queue, &mut buf) {
            Ok(n) => buf.get(..n).unwrap_or_default(),
            // A request that was withdrawn while being read, or a signal.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::NODEV | Errno::CONNABORTED) => return,
            Err(e) => {
                tracing::error!("reading from the FUSE device: {e}");
                return;
            }
        };
        let Some(request) = Request::parse(got) else {
            tracing::error!("a FUSE request of {} bytes makes no sense", got.len());
            continue;
        };
        // Whoever uses a mount waits for devices that are away, as with any disk.
        let answer = zfs_env::pool::waiting(|| shared.server.answer(&request));
        if let Err(e) = send(queue, request.unique, &answer) {
            // ENOENT: the caller was killed meanwhile.
            if e != Errno::NOENT {
                tracing::warn!(opcode = request.opcode, "answering a FUSE request: {e}");
            }
        }
        if request.opcode == op::DESTROY {
            return;
        }
    }
}

fn send(queue: &OwnedFd, unique: u64, answer: &Answer) -> rustix::io::Result<()> {
    let (errno, len) = match answer {
        Answer::None => return Ok(()),
        Answer::Error(n) => (*n, 0),
        Answer::Bytes(b) => (0, b.len()),
        Answer::Slices(s) => (0, s.iter().map(|s| s.len()).sum()),
    };
    let header = out_header(OUT_HEADER + len, errno, unique);
    let mut parts = vec![IoSlice::new(&header)];
    match answer {
        Answer::Bytes(b) => parts.push(IoSlice::new(b)),
        Answer::Slices(s) => parts.extend(s.iter().map(|s| IoSlice::new(s))),
        Answer::Error(_) | Answer::None => {}
    }
    rustix::io::writev(queue, &parts).map(|_| ())
}

/// Agrees with the kernel on version and abilities; gives the abilities.
fn handshake(device: &OwnedFd, posix_acls: bool) -> io::Result<u64> {
    let mut buf = vec![0u8; REQUEST_ROOM];
    loop {
        let n = match rustix::io::read(device, &mut buf) {
            Ok(n) => n,
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
            Err(e) => return Err(e.into()),
        };
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the FUSE handshake makes no sense");
        let request = buf.get(..n).and_then(Request::parse).filter(|_| n >= IN_HEADER).ok_or_else(bad)?;
        if request.opcode != op::INIT {
            send(device, request.unique, &Answer::Error(libc::EIO))?;
            continue;
        }
        let init = InitIn::parse(request.body()).ok_or_else(bad)?;
        if init.major > KERNEL_VERSION {
            // The kernel starts again with the version named here.
            let out = InitOut {
                minor: KERNEL_MINOR,
                max_readahead: 0,
                flags: 0,
                max_background: 0,
                max_write: 0,
                max_pages: 0,
            };
            send(device, request.unique, &Answer::Bytes(out.encode()))?;
            continue;
        }
        if init.major < KERNEL_VERSION || init.minor < OLDEST_MINOR {
            send(device, request.unique, &Answer::Error(libc::EPROTO))?;
            let (major, minor) = (init.major, init.minor);
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the kernel speaks FUSE {major}.{minor}; 7.{OLDEST_MINOR} is needed"),
            ));
        }
        let wanted = if posix_acls { WANTED | flag::POSIX_ACL } else { WANTED };
        let out = InitOut {
            minor: KERNEL_MINOR.min(init.minor),
            max_readahead: init.max_readahead.max(READ_AHEAD_KIB << 10),
            flags: wanted & init.flags,
            max_background: MAX_BACKGROUND,
            max_write: MAX_WRITE,
            max_pages: MAX_PAGES,
        };
        send(device, request.unique, &Answer::Bytes(out.encode()))?;
        return Ok(out.flags);
    }
}
