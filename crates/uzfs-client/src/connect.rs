//! Finding the daemon's socket and starting the daemon when nobody listens there.
//!
//! Paths: `UZFS_SOCKET` if set; for root `/run/uzfs/uzfsd.sock`; for others `uzfs/uzfsd.sock` in
//! `XDG_RUNTIME_DIR`, or in `/tmp/uzfs-UID`. The daemon uses the same rules.
//!
//! Starting: the program `uzfsd` beside the calling program (or in `UZFSD`, or in the search path) is
//! run with `--socket PATH --ready-fd N`; it writes one byte to that descriptor when it listens, or
//! closes it if it failed. If two tools start one at the same time, one daemon finds the lock taken
//! and ends, and both tools connect to the other.

use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uzfs_proto::client::Connection;

/// Longest wait for a daemon to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the daemon of this user listens.
pub fn socket_path(uid: u32, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(path) = variable("UZFS_SOCKET").filter(|p| !p.is_empty()) {
        return PathBuf::from(path);
    }
    if uid == 0 {
        return PathBuf::from("/run/uzfs/uzfsd.sock");
    }
    match variable("XDG_RUNTIME_DIR").filter(|d| d.starts_with('/') && Path::new(d).is_dir()) {
        Some(dir) => Path::new(&dir).join("uzfs/uzfsd.sock"),
        None => PathBuf::from(format!("/tmp/uzfs-{uid}/uzfsd.sock")),
    }
}

/// Effective user id of this process.
pub fn euid() -> u32 {
    // SAFETY: the call has no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// The daemon's program.
fn daemon_program() -> PathBuf {
    if let Some(path) = std::env::var_os("UZFSD") {
        return PathBuf::from(path);
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|p| std::fs::canonicalize(p).ok())
        .and_then(|p| p.parent().map(|d| d.join("uzfsd")))
        .filter(|p| p.is_file());
    beside.unwrap_or_else(|| PathBuf::from("uzfsd"))
}

/// Connects to the daemon of this user and starts it if nobody listens. The error is a sentence.
pub fn connect() -> Result<Connection, String> {
    let path = socket_path(euid(), |name| std::env::var(name).ok());
    let shown = path.display();
    let error = match Connection::open(&path) {
        Ok(connection) => return Ok(connection),
        Err(e) => e,
    };
    if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
        return Err(format!("cannot connect to uzfsd at {shown}: {error}"));
    }
    if std::env::var_os("UZFS_NO_AUTOSTART").is_some() {
        return Err(format!("uzfsd is not running: nobody listens at {shown}"));
    }
    start(&path)?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match Connection::open(&path) {
            Ok(connection) => return Ok(connection),
            Err(e) if Instant::now() > deadline => {
                return Err(format!("cannot connect to uzfsd at {shown}: {e}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn start(socket: &Path) -> Result<(), String> {
    let program = daemon_program();
    let cannot = |e: std::io::Error| format!("cannot start {}: {e}", program.display());
    let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
    let fd = theirs.as_raw_fd();
    let mut command = Command::new(&program);
    command.arg("--socket").arg(socket).arg("--ready-fd").arg(fd.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
    // SAFETY: the closure runs between fork and exec and makes only the async-signal-safe calls
    // setsid and fcntl, on a descriptor that stays open in the parent until the spawn returns.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(cannot)?;
    drop(theirs);
    ours.set_read_timeout(Some(START_TIMEOUT)).map_err(cannot)?;
    let mut word = [0u8; 1];
    match (&ours).read(&mut word) {
        Ok(1) => Ok(()),
        Ok(_) => match child.wait() {
            // Another daemon was faster, or this one failed and said why on standard error; the
            // caller's next try to connect tells which.
            Ok(status) if status.code() == Some(ALREADY_RUNNING) => Ok(()),
            Ok(status) => Err(format!("uzfsd did not start: {status}")),
            Err(e) => Err(cannot(e)),
        },
        Err(e) => Err(format!("uzfsd did not get ready: {e}")),
    }
}

/// Exit code of a daemon that found another one running.
pub const ALREADY_RUNNING: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_paths() {
        let none = |_: &str| None;
        assert_eq!(socket_path(0, none), Path::new("/run/uzfs/uzfsd.sock"));
        assert_eq!(socket_path(7, none), Path::new("/tmp/uzfs-7/uzfsd.sock"));
        let set = |n: &str| (n == "UZFS_SOCKET").then(|| "/x/y".to_owned());
        assert_eq!(socket_path(0, set), Path::new("/x/y"));
        let xdg = |n: &str| (n == "XDG_RUNTIME_DIR").then(|| "/tmp".to_owned());
        assert_eq!(socket_path(7, xdg), Path::new("/tmp/uzfs/uzfsd.sock"));
    }
}
