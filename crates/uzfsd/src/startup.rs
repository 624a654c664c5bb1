//! Starting and ending: one daemon a socket, nothing left behind that the next one cannot clean.
//!
//! A lock file beside the socket is held for as long as the daemon lives; the kernel lets it go when the process dies,
//! however it dies. Whoever holds the lock owns the socket's path and may therefore remove a stale socket.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The place a daemon owns.
pub struct Home {
    /// Where it listens.
    pub socket: PathBuf,
    _lock: File,
}

/// Why there is no place.
pub enum Refusal {
    /// Another daemon has it.
    Taken,
    /// It cannot be made.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        Refusal::Io(e)
    }
}

/// A file beside the socket.
pub fn beside(socket: &Path, extension: &str) -> PathBuf {
    socket.with_extension(extension)
}

impl Home {
    /// Takes the place around `socket`.
    pub fn take(socket: &Path) -> Result<Self, Refusal> {
        if let Some(dir) = socket.parent().filter(|d| !d.is_dir()) {
            DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        if let Some(dir) = socket.parent() {
            uzfs_proto::place::check_dir(dir, rustix::process::geteuid().as_raw())?;
        }
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(beside(socket, "lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { socket: socket.to_owned(), _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Refusal::Taken),
            Err(std::fs::TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// Listens. Everybody may connect to root's socket and look, since what changes anything is decided from the
    /// peer's credentials; another user's socket is that user's alone.
    pub fn listen(&self) -> io::Result<UnixListener> {
        match std::fs::remove_file(&self.socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket)?;
        let mode = if uzfs_fuse::is_root() { 0o666 } else { 0o600 };
        std::fs::set_permissions(&self.socket, Permissions::from_mode(mode))?;
        Ok(listener)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The lock file stays: removing it would let two daemons lock two files of one name.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Tells the program that started us that we listen.
pub fn tell_ready(fd: Option<RawFd>) {
    let Some(fd) = fd.filter(|fd| *fd > 2) else { return };
    // SAFETY: the number was handed to this process for this purpose and nothing else here uses it.
    let mut starter = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if let Err(e) = starter.write_all(b"1") {
        tracing::debug!("whoever started this daemon is gone: {e}");
    }
}

/// Bytes that the cache may take when nobody says: a quarter of what the machine, or this control group, has. The
/// kernel's page cache holds file data a second time, which is why it is not more.
pub fn default_arc_max() -> u64 {
    let number = |text: String| text.trim().parse::<u64>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    let group = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|l| l.strip_prefix("0::"))?.to_owned();
        number(std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?)
    });
    let have = machine.unwrap_or(1 << 30).min(group.unwrap_or(u64::MAX));
    (have / 4).max(64 << 20)
}

/// Reads `64M`, `2G` or a plain number of bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is no size: give bytes, or a number with K, M, G or T");
    let upper = text.to_ascii_uppercase();
    let (digits, shift) = match upper.trim_end_matches('B').strip_suffix(['K', 'M', 'G', 'T']) {
        Some(d) => (d, upper.trim_end_matches('B').chars().last()),
        None => (upper.as_str(), None),
    };
    let unit = match shift {
        Some('K') => 1u64 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        Some('T') => 1 << 40,
        _ => 1,
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("1gb"), Ok(1 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert!(parse_size("lots").is_err() && parse_size("99999999999T").is_err());
        assert!(default_arc_max() >= 64 << 20);
    }

    #[test]
    fn a_second_daemon_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/uzfsd.sock");
        let first = Home::take(&socket).ok().unwrap();
        let _listener = first.listen().unwrap();
        assert!(matches!(Home::take(&socket), Err(Refusal::Taken)));
        drop(first);
        assert!(!socket.exists());
        // A socket that a killed daemon left is no obstacle.
        std::fs::write(&socket, b"").unwrap();
        assert!(Home::take(&socket).ok().unwrap().listen().is_ok());
    }
}
