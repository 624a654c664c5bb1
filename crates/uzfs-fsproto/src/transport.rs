//! Where the daemon listens: a Unix socket, or TCP on this machine where a sandbox allows no other.

use crate::wire::Malformed;
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Path of a socket. At most 103 bytes of it work everywhere.
    Unix(PathBuf),
    /// TCP, loopback only; port 0 lets the system choose.
    Tcp(SocketAddr),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let address: SocketAddr = address.parse().map_err(|_| Malformed)?;
                if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(Malformed) }
            }
            _ => Err(Malformed),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Stream {
    /// Connects.
    pub fn connect(to: &Endpoint) -> io::Result<Self> {
        match to {
            Endpoint::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Another handle of the same connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(s) => Self::Unix(s.try_clone()?),
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
        })
    }

    /// Ends the connection: both sides see it at once.
    pub fn shutdown(&self) {
        // A connection that is gone already is what is wanted.
        let _ = match self {
            Self::Unix(s) => s.shutdown(Shutdown::Both),
            Self::Tcp(s) => s.shutdown(Shutdown::Both),
        };
    }

    /// Limits how long one write may hang on a peer that does not read.
    pub fn limit_writes(&self, limit: std::time::Duration) -> io::Result<()> {
        match self {
            Self::Unix(s) => s.set_write_timeout(Some(limit)),
            Self::Tcp(s) => s.set_write_timeout(Some(limit)),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(s) => s.as_fd(),
            Self::Tcp(s) => s.as_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(s) => (&*s).read(buf),
            Stream::Tcp(s) => (&*s).read(buf),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

/// How long a reader looks again before it sleeps. Putting a thread to sleep and waking it costs more than a small
/// operation does (26 microseconds each on a virtual machine), so whoever is in the middle of a conversation stays
/// awake for a moment; an idle connection costs nothing.
const AWAKE: std::time::Duration = std::time::Duration::from_micros(40);

/// Looks for a short while whether something can be read.
pub fn linger(stream: &Stream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    static ALONE: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|n| n.get() < 2));
    if *ALONE {
        return false;
    }
    let begun = std::time::Instant::now();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&now)) {
            Ok(0) if begun.elapsed() < AWAKE => std::hint::spin_loop(),
            found => return !matches!(found, Ok(0)),
        }
    }
}

/// Writes all of `parts`, in as few calls as possible.
pub fn write_all(stream: &Stream, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let some = parts.get(..parts.len().min(512)).unwrap_or_default();
        let written = match stream {
            Stream::Unix(s) => (&*s).write_vectored(some),
            Stream::Tcp(s) => (&*s).write_vectored(some),
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A place to accept connections at.
pub enum Listener {
    /// A Unix socket and its path.
    Unix(UnixListener, PathBuf),
    /// TCP.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens. A Unix socket that is in the way is replaced; only its owner may connect.
    pub fn bind(at: &Endpoint) -> io::Result<Self> {
        match at {
            Endpoint::Unix(path) => {
                use std::os::unix::fs::PermissionsExt;
                match std::fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone()))
            }
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
        }
    }

    /// Where it listens now.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(match self {
            Self::Unix(_, path) => Endpoint::Unix(path.clone()),
            Self::Tcp(l) => Endpoint::Tcp(l.local_addr()?),
        })
    }

    /// Takes a connection if one waits.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        let stream = match self {
            Self::Unix(l, _) => l.accept().map(|(s, _)| Stream::Unix(s)),
            Self::Tcp(l) => l.accept().map(|(s, _)| Stream::Tcp(s)),
        };
        match stream {
            Ok(stream) => {
                match &stream {
                    Stream::Unix(s) => s.set_nonblocking(false)?,
                    Stream::Tcp(s) => {
                        s.set_nonblocking(false)?;
                        s.set_nodelay(true)?;
                    }
                }
                Ok(Some(stream))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Waits for a connection, or for `stop` to become readable; gives whether it was a connection.
    pub fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let fd = match self {
            Self::Unix(l, _) => l.as_fd(),
            Self::Tcp(l) => l.as_fd(),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(fds.last().is_none_or(|f| f.revents().is_empty()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // It may be gone with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}
