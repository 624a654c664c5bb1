//! Finding the daemon's socket and starting the daemon when nobody listens there.
//!
//! Where the daemon listens is [`uzfs_proto::place`]'s to say. Keys go through the socket, so whoever
//! listens must be root or this user.
//!
//! Starting: the program `uzfsd` beside the calling program (or in `UZFSD`, or in the search path) is
//! run with `--socket PATH --ready-fd N`; it writes one byte to that descriptor when it listens, or
//! closes it if it failed. If two tools start one at the same time, one daemon finds the lock taken
//! and ends, and both tools connect to the other.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uzfs_proto::client::Connection;
use uzfs_proto::place::socket_path;

/// Longest wait for a daemon to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before the next try while another daemon is starting or ending.
const RETRY: Duration = Duration::from_millis(50);

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
///
/// A daemon that is just ending still holds its lock, so that a new one finds the place taken and
/// ends; then this waits a moment and starts another.
pub fn connect() -> Result<Connection, String> {
    let path = socket_path(euid(), |name| std::env::var(name).ok());
    let shown = path.display();
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let error = match UnixStream::connect(&path) {
            Ok(stream) => return trusted(stream, &path),
            Err(e) => e,
        };
        let absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        if !absent || Instant::now() > deadline {
            return Err(format!("cannot connect to uzfsd at {shown}: {error}"));
        }
        if std::env::var_os("UZFS_NO_AUTOSTART").is_some() {
            return Err(format!("uzfsd is not running: nobody listens at {shown}"));
        }
        if !start(&path)? {
            std::thread::sleep(RETRY);
        }
    }
}

/// Uses the socket if its other end is root's or this user's.
fn trusted(stream: UnixStream, path: &Path) -> Result<Connection, String> {
    let shown = path.display();
    let cannot = |e: std::io::Error| format!("cannot use the socket {shown}: {e}");
    let uid = uzfs_proto::server::peer(&stream).map_err(cannot)?.uid;
    if uid != 0 && uid != euid() {
        return Err(format!("cannot use the socket {shown}: it belongs to user {uid}"));
    }
    Connection::from_stream(stream).map_err(cannot)
}

/// Where a daemon that was started by a tool writes what it has to say: beside its socket. Gives the
/// file and its length so far.
fn open_log(socket: &Path) -> std::io::Result<(File, u64)> {
    if let Some(dir) = socket.parent().filter(|d| !d.is_dir()) {
        let mode = if euid() == 0 { 0o755 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    }
    if let Some(dir) = socket.parent() {
        uzfs_proto::place::check_dir(dir, euid())?;
    }
    let path = socket.with_extension("log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let length = log.metadata()?.len();
    Ok((log, length))
}

/// What the daemon wrote from `begin` on.
fn said(socket: &Path, begin: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(socket.with_extension("log")).and_then(|mut log| {
        log.seek(SeekFrom::Start(begin))?;
        log.take(4096).read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// Starts a daemon and waits until it listens; false if another one has the place.
fn start(socket: &Path) -> Result<bool, String> {
    let program = daemon_program();
    let cannot = |e: std::io::Error| format!("cannot start {}: {e}", program.display());
    let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
    let fd = theirs.as_raw_fd();
    let mut command = Command::new(&program);
    command.arg("--socket").arg(socket).arg("--ready-fd").arg(fd.to_string());
    // The daemon outlives this program and must not hold its streams open: whoever reads them would
    // wait for the daemon's end.
    let (log, begin) = open_log(socket).map_err(cannot)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
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
        Ok(1) => Ok(true),
        Ok(_) => match child.wait() {
            Ok(status) if status.code() == Some(ALREADY_RUNNING) => Ok(false),
            Ok(status) => Err(format!("{}uzfsd did not start: {status}", said(socket, begin))),
            Err(e) => Err(cannot(e)),
        },
        Err(e) => Err(format!("uzfsd did not get ready: {e}")),
    }
}

/// Exit code of a daemon that found another one running.
pub const ALREADY_RUNNING: i32 = 3;
