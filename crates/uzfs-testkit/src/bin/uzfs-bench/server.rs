//! A server program and its mounts, taken away whatever happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use uzfs_testkit::process;

/// How long a server may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child that is ended by its process id, and the folder at or below which it mounts. Dropping it does both.
pub struct Server {
    child: Child,
    point: PathBuf,
}

impl Server {
    /// Starts `command`, whose mounts will lie at or below `point`.
    pub fn start(command: &mut Command, point: &Path) -> Result<Self, String> {
        use std::os::unix::process::CommandExt;
        // Its own group: an interrupt from the terminal reaches only the benchmark, which ends it in order.
        let child = command.process_group(0).spawn();
        let child = child.map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
        // The table of mounts has real paths.
        Ok(Self { child, point: point.canonicalize().unwrap_or_else(|_| point.to_owned()) })
    }

    /// Whether it ended by itself.
    pub fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for point in mounts_below(&self.point).iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let (Some(pid), false) = (pid, self.is_gone()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if process::wait(&mut self.child, PATIENCE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Mount points at or below a folder, deepest last.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from).filter(|p| p.starts_with(folder)).collect()
}

/// The process id of a program of this name, whoever started it. One that has ended and was not waited for has no
/// command line any more.
pub fn running(name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|c| c.trim_end() == name)
            && fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
    })
}

/// Raises the kernel's read-ahead of a mount to what uzfs sets for its own.
pub fn raise_read_ahead(point: &Path, kib: u32) {
    use std::os::unix::fs::MetadataExt;
    let Ok(dev) = fs::metadata(point).map(|m| m.dev()) else { return };
    let bdi = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let _ = fs::write(format!("/sys/class/bdi/{bdi}/read_ahead_kb"), kib.to_string());
}
