//! A daemon of its own for a test: private socket, private folder for mounts, nothing left behind.
//!
//! A session starts `uzfsd` itself and ends it by its process id. Mounts lie below the session's
//! folder (pools are imported with `-R`), so whatever is left there can be found and taken away without
//! touching anything else on the machine. `finish` is the orderly end and complains about leftovers;
//! dropping a session only cleans up.

use crate::paths;
use crate::process::{self, Output};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Limit on one command of a tool.
const COMMAND: Duration = Duration::from_secs(180);
/// Limit on starting and on ending the daemon.
const DAEMON: Duration = Duration::from_secs(20);

/// A running daemon and its surroundings.
pub struct Session {
    home: PathBuf,
    /// More arguments of the daemon.
    more: Vec<String>,
    daemon: Option<Child>,
}

impl Session {
    /// Starts a daemon.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// Starts a daemon with more arguments.
    pub fn start_with(more: &[&str]) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for name in ["uzfsd", "zpool", "zfs"] {
            if !paths::program(name).is_file() {
                return Err(format!("{} is not built", paths::program(name).display()));
            }
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because the path of a socket may have only 107 bytes.
        let home = std::env::temp_dir().join(format!("uzfs-t-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        for dir in ["run", "root", "snap"] {
            fs::create_dir_all(home.join(dir)).map_err(|e| format!("{}: {e}", home.display()))?;
        }
        let more = more.iter().map(|a| (*a).to_owned()).collect();
        let mut session = Self { home, more, daemon: None };
        session.spawn_daemon()?;
        Ok(session)
    }

    /// The folder below which pools are mounted (`-R`).
    pub fn root(&self) -> PathBuf {
        self.home.join("root")
    }

    /// A folder to mount single snapshots on.
    pub fn snapshot_point(&self) -> PathBuf {
        self.home.join("snap")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("run/uzfsd.sock")
    }

    /// The daemon's process id.
    pub fn daemon_id(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// What the daemon wrote on its standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("uzfsd.log")).unwrap_or_default()
    }

    fn spawn_daemon(&mut self) -> Result<(), String> {
        let log = File::create(self.home.join("uzfsd.log")).map_err(|e| format!("uzfsd.log: {e}"))?;
        let mut command = self.command("uzfsd");
        command
            .arg("--socket")
            .arg(self.socket())
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.daemon = Some(command.spawn().map_err(|e| format!("cannot run uzfsd: {e}"))?);
        let deadline = Instant::now() + DAEMON;
        while UnixStream::connect(self.socket()).is_err() {
            let ended = self.daemon.as_mut().is_some_and(|d| !matches!(d.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                return Err(format!("uzfsd does not listen: {}", self.log().trim()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills the daemon as a crash would; what is mounted stays.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Starts another daemon after [`Session::kill`].
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.spawn_daemon()
    }

    /// A program under test in the session's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(paths::program(program));
        command
            .env("UZFS_SOCKET", self.socket())
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("UZFS_NO_AUTOSTART", "1")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(&self.home);
        command
    }

    /// Runs a program under test to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output, String> {
        let out = process::run(self.command(program).args(args), COMMAND)?;
        if out.code.is_none() {
            return Err(format!("{out}\ndaemon: {}", tail(&self.log())));
        }
        Ok(out)
    }

    /// Runs a program that must succeed.
    pub fn ok(&self, program: &str, args: &[&str]) -> Result<Output, String> {
        self.run(program, args)?.ok().map_err(|e| format!("{e}\ndaemon: {}", tail(&self.log())))
    }

    /// Imports a pool read-only from a folder and mounts nothing yet.
    pub fn import(&self, pool: &str, devices: &Path, more: &[&str]) -> Result<Output, String> {
        let (devices, root) = (devices.to_string_lossy().into_owned(), self.root().to_string_lossy().into_owned());
        let mut args = vec!["import", "-o", "readonly=on", "-N", "-d", &devices, "-R", &root];
        args.extend(more);
        args.push(pool);
        self.ok("zpool", &args)
    }

    /// Mount points below the session's folder, deepest last.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape).map(PathBuf::from);
        points.filter(|p| p.starts_with(&self.home)).collect()
    }

    /// Ends the daemon in order. Anything left behind is an error.
    pub fn finish(mut self) -> Result<(), String> {
        let left = self.mounts();
        if !left.is_empty() {
            return Err(format!("still mounted after export: {left:?}"));
        }
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        if let Some(status) = daemon.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("uzfsd ended by itself: {status}\n{}", tail(&self.log())));
        }
        terminate(&daemon);
        match process::wait(&mut daemon, DAEMON) {
            Some(0) => Ok(()),
            other => {
                let _ = daemon.kill();
                let _ = daemon.wait();
                Err(format!("uzfsd did not end in order ({other:?})\n{}", tail(&self.log())))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
        if let Some(mut daemon) = self.daemon.take() {
            terminate(&daemon);
            if process::wait(&mut daemon, Duration::from_secs(5)).is_none() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
        }
        // A mount that could not be taken away makes this fail, and must not be deleted through.
        if self.mounts().is_empty() {
            let _ = fs::remove_dir_all(&self.home);
        }
    }
}

/// Asks a child to end.
fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n  ")
}

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
