//! Where Linux's FUSE is not: nothing can be mounted here, and everything else of the daemon works.
//!
//! On macOS front ends of their own mount (the FSKit extension, over the file-system protocol), so the daemon is asked to
//! mount only by mistake.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use zfs_zpl::Vfs;

/// How a mount looks to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// What is mounted: `POOL/DATASET`.
    pub source: String,
    /// Whether device nodes work (`devices=on`).
    pub devices: bool,
    /// Whether set-user-id bits work (`setuid=on`).
    pub setuid: bool,
    /// Whether programs can be run (`exec=on`).
    pub exec: bool,
    /// Whether all users may enter.
    pub allow_other: bool,
}

/// How a mount is served.
#[derive(Debug, Clone)]
pub struct MountConfig {
    /// How it looks to the kernel.
    pub spec: MountSpec,
    /// Threads that answer.
    pub threads: usize,
}

impl MountConfig {
    /// The usual way to mount `source`.
    pub fn new(source: impl Into<String>) -> Self {
        let root = is_root();
        let spec = MountSpec { source: source.into(), devices: root, setuid: root, exec: true, allow_other: root };
        Self { spec, threads: 0 }
    }
}

/// A mounted file system: there is none.
#[derive(Debug)]
pub struct Mount(Infallible);

impl Mount {
    /// Fails: this system has no FUSE that is spoken here.
    pub fn new(_: Arc<Vfs>, _: &Path, _: &MountConfig) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the daemon cannot mount on this system"))
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        match self.0 {}
    }

    /// Whether it is mounted.
    pub fn is_alive(&self) -> bool {
        match self.0 {}
    }

    /// Calls `f` when the mount ends.
    pub fn on_end(&self, _: impl FnOnce() + Send + 'static) {
        match self.0 {}
    }

    /// Unmounts.
    pub fn unmount(&self, _: bool) -> io::Result<()> {
        match self.0 {}
    }

    /// Waits until the mount ends.
    pub fn wait(&self) {
        match self.0 {}
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Unmounts: nothing of ours is mounted.
pub fn unmount(_: &Path, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::InvalidInput.into())
}

/// Whether a dead mount of ours is there: never.
pub fn is_dead(_: &Path) -> bool {
    false
}

/// Takes a dead mount away, of which there is none.
pub fn detach(_: &Path) -> io::Result<()> {
    Ok(())
}
