//! The device, mounting and unmounting.
//!
//! Root mounts with mount(2) itself; others go through `fusermount3`, the setuid helper of libfuse, which hands the
//! opened device back over a socket. A server that was killed leaves a dead mount behind ("transport endpoint is not
//! connected"): [`is_dead`] tells, [`detach`] clears it.

use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

const DEVICE: &str = "/dev/fuse";
/// Names under which distributions install libfuse's mount helper.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// How a mount looks to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// What is mounted, as `mount` shows it: `POOL/DATASET`.
    pub source: String,
    /// Whether device nodes work (`devices=on`).
    pub devices: bool,
    /// Whether set-user-id bits work (`setuid=on`).
    pub setuid: bool,
    /// Whether programs can be run (`exec=on`).
    pub exec: bool,
    /// Whether all users may enter; without root this needs `user_allow_other` in /etc/fuse.conf.
    pub allow_other: bool,
}

impl MountSpec {
    fn options(&self) -> String {
        let mut o = String::from("default_permissions");
        if self.allow_other {
            o.push_str(",allow_other");
        }
        o
    }
}

/// Whether this process may mount by itself.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Opens the device and mounts it at `at`; `readonly` as the kernel shall see it.
pub fn mount(at: &Path, spec: &MountSpec, readonly: bool) -> io::Result<OwnedFd> {
    if is_root() { mount_directly(at, spec, readonly) } else { mount_by_helper(at, spec, readonly) }
}

fn mount_directly(at: &Path, spec: &MountSpec, readonly: bool) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let meta = std::fs::metadata(at)?;
    let data = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,{}",
        device.as_raw_fd(),
        meta.mode() & 0o170_000,
        spec.options()
    );
    let mut flags = MountFlags::empty();
    for (set, flag) in [
        (readonly, MountFlags::RDONLY),
        (!spec.devices, MountFlags::NODEV),
        (!spec.setuid, MountFlags::NOSUID),
        (!spec.exec, MountFlags::NOEXEC),
    ] {
        if set {
            flags |= flag;
        }
    }
    let data = std::ffi::CString::new(data)?;
    rustix::mount::mount(spec.source.as_str(), at, "fuse.zfs", flags, data.as_c_str())?;
    Ok(device)
}

fn mount_by_helper(at: &Path, spec: &MountSpec, readonly: bool) -> io::Result<OwnedFd> {
    let escaped = spec.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("{},fsname={escaped},subtype=zfs", spec.options());
    for (set, word) in [(readonly, ",ro"), (!spec.exec, ",noexec")] {
        if set {
            options.push_str(word);
        }
    }
    let mut missing = io::Error::new(io::ErrorKind::NotFound, "fusermount3 is not installed");
    for helper in HELPERS {
        let (ours, theirs) = UnixStream::pair()?;
        // The helper's end becomes its standard input: no other descriptor needs to survive exec.
        let spawned = Command::new(helper)
            .args(["-o", &options, "--"])
            .arg(at)
            .env("_FUSE_COMMFD", "0")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(e) => {
                missing = e;
                continue;
            }
        };
        let received = receive(&ours);
        let output = child.wait_with_output()?;
        return match received? {
            Some(fd) if output.status.success() => Ok(fd),
            _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        };
    }
    Err(missing)
}

/// Receives the device from the helper; nothing when it hangs up without sending it.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut byte = [0u8; 4];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    loop {
        match recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fd)
}

/// Opens the device once more for the same mount, so that another thread has a queue of its own. Kernels without
/// the call, or a device that refuses, give nothing: the thread then shares the first one.
pub fn clone(device: &OwnedFd) -> Option<OwnedFd> {
    /// `FUSE_DEV_IOC_CLONE`.
    const CLONE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(229, 0);
    let fresh = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut of = u32::try_from(device.as_raw_fd()).ok()?;
    // SAFETY: the call reads one 32-bit descriptor number through the pointer and writes nothing.
    let done = unsafe { rustix::ioctl::ioctl(&fresh, rustix::ioctl::Updater::<CLONE, u32>::new(&mut of)) };
    done.ok().map(|()| fresh)
}

/// Unmounts. `force` lets go even while files are open: they fail from then on.
pub fn unmount(at: &Path, force: bool) -> io::Result<()> {
    if is_root() {
        let flags = if force { UnmountFlags::FORCE | UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
        return Ok(rustix::mount::unmount(at, flags)?);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "fusermount3 is not installed");
    for helper in HELPERS {
        let mut command = Command::new(helper);
        command.arg("-u").args(force.then_some("-z")).arg("--").arg(at);
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let kind = if words.contains("busy") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
                return Err(io::Error::new(kind, words));
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Whether the kernel has ended the connection: nothing comes from the queue any more.
pub fn is_ended(queue: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(queue, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|_| fds.iter().any(|f| f.revents().contains(PollFlags::ERR)))
}

/// Whether a dead FUSE mount lies at `at`: its server is gone.
pub fn is_dead(at: &Path) -> bool {
    matches!(rustix::fs::statfs(at), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Takes a dead mount away. Does nothing where there is none.
pub fn detach(at: &Path) -> io::Result<()> {
    if is_dead(at) { unmount(at, true) } else { Ok(()) }
}

/// Raises the kernel's read-ahead of the mount at `at` to `kib`; best effort, root only.
pub fn raise_read_ahead(at: &Path, kib: u32) {
    let Ok(meta) = std::fs::metadata(at) else { return };
    let dev = meta.dev();
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(e) = std::fs::write(&file, kib.to_string()) {
        tracing::debug!(file, "read-ahead stays as it is: {e}");
    }
}
