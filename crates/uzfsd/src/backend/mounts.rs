//! What is mounted: one table for all pools, and the file that lets the next daemon clean up after a killed one.
//!
//! A mount that somebody ended from outside (`umount`) leaves the table when it is looked at the next time. The list
//! of mount points is written beside the socket at every change; a daemon that finds it at its start takes dead mounts
//! away, and only dead ones. The list is exchanged as a whole: a full disk leaves the one before, and the paths end
//! with a NUL byte, for they may hold anything else.

use parking_lot::Mutex;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uzfs_fuse::{Mount, MountConfig, Vfs};
use uzfs_proto::{Failure, FailureCode, MountEntry};

/// One mount.
pub struct Mounted {
    /// Dataset or snapshot.
    pub dataset: String,
    /// Where.
    pub at: PathBuf,
    /// Options in force.
    pub options: Vec<String>,
    /// Properties that hold for this mount only.
    pub temporary: Vec<(&'static str, u64)>,
    mount: Mount,
}

/// The table of mounts, in the order they were made.
pub struct Mounts {
    table: Mutex<Vec<Arc<Mounted>>>,
    record: Option<PathBuf>,
}

/// What to mount and how.
pub struct Request {
    /// Dataset or snapshot.
    pub dataset: String,
    /// Absolute path.
    pub at: PathBuf,
    /// Options in force, as `mount` shows them.
    pub options: Vec<String>,
    /// Properties that hold for this mount only.
    pub temporary: Vec<(&'static str, u64)>,
    /// How it looks to the kernel.
    pub config: MountConfig,
    /// Also where the directory is not empty.
    pub overlay: bool,
    /// Make missing directories.
    pub create: bool,
}

impl Mounts {
    /// An empty table. Dead mounts that `record` names are taken away first.
    pub fn new(record: Option<PathBuf>) -> Self {
        if let Some(file) = &record {
            let bytes = std::fs::read(file).unwrap_or_default();
            for at in bytes.split(|&b| b == 0).filter(|p| !p.is_empty()) {
                let at = Path::new(OsStr::from_bytes(at));
                if let Err(e) = uzfs_fuse::detach(at) {
                    tracing::warn!("a mount of a daemon that is gone stays at {}: {e}", at.display());
                }
            }
        }
        Self { table: Mutex::default(), record }
    }

    fn living(&self) -> Vec<Arc<Mounted>> {
        let mut table = self.table.lock();
        table.retain(|m| m.mount.is_alive());
        table.clone()
    }

    fn write_record(&self) {
        let Some(file) = &self.record else { return };
        let mut list = Vec::new();
        for m in self.living() {
            list.extend_from_slice(m.at.as_os_str().as_bytes());
            list.push(0);
        }
        let fresh = file.with_extension("mounts.new");
        if let Err(e) = std::fs::write(&fresh, list).and_then(|()| std::fs::rename(&fresh, file)) {
            let _ = std::fs::remove_file(&fresh);
            tracing::warn!("{}: {e}", file.display());
        }
    }

    /// All mounts, oldest first.
    pub fn list(&self) -> Vec<Arc<Mounted>> {
        self.living()
    }

    /// The mount of a dataset or snapshot.
    pub fn of(&self, dataset: &str) -> Option<Arc<Mounted>> {
        self.living().into_iter().find(|m| m.dataset == dataset)
    }

    /// The mount that serves `path`: the last one whose mount point is above it.
    pub fn above(&self, path: &Path) -> Option<Arc<Mounted>> {
        let inside = self.living().into_iter().filter(|m| path.starts_with(&m.at));
        inside.max_by_key(|m| m.at.components().count())
    }

    /// Mounts what `open` gives.
    pub fn add(&self, request: Request, open: impl FnOnce() -> Result<Arc<Vfs>, Failure>) -> Result<(), Failure> {
        let fail = |code, text: String| Failure::new(code, text).about(request.dataset.clone());
        if self.of(&request.dataset).is_some() {
            return Err(fail(FailureCode::AlreadyMounted, "filesystem already mounted".into()));
        }
        let invalid = |e: io::Error| fail(FailureCode::MountpointInvalid, format!("{}: {e}", request.at.display()));
        if !request.at.is_absolute() {
            return Err(fail(FailureCode::MountpointInvalid, "the mount point is not absolute".into()));
        }
        if !uzfs_fuse::is_root() && self.above(&request.at).is_some_and(|m| m.at != request.at) {
            // FUSE shows a user's mount to nobody else, and the helper that mounts runs as root.
            let text = "it lies inside another mount, where only root may mount";
            return Err(fail(FailureCode::MountFailed, text.into()));
        }
        uzfs_fuse::detach(&request.at).map_err(invalid)?;
        if request.create {
            std::fs::create_dir_all(&request.at).map_err(invalid)?;
        }
        let empty = std::fs::read_dir(&request.at).map_err(invalid)?.next().is_none();
        if !empty && !request.overlay {
            return Err(fail(FailureCode::MountpointNotEmpty, "directory is not empty".into()));
        }
        let vfs = open()?;
        let mount = Mount::new(vfs, &request.at, &request.config)
            .map_err(|e| fail(FailureCode::MountFailed, format!("{}: {e}", request.at.display())))?;
        let Request { dataset, options, temporary, .. } = request;
        let at = mount.mountpoint().to_owned();
        self.table.lock().push(Arc::new(Mounted { dataset, at, options, temporary, mount }));
        self.write_record();
        Ok(())
    }

    /// Ends the mount of a dataset, snapshot or mount point and tells what it was.
    pub fn remove(&self, target: &str, force: bool) -> Result<String, Failure> {
        let matches = |m: &Arc<Mounted>| m.dataset == target || m.at == Path::new(target);
        let Some(found) = self.living().into_iter().rev().find(matches) else {
            return Err(Failure::new(FailureCode::NotMounted, "not currently mounted").about(target));
        };
        found.mount.unmount(force).map_err(|e| {
            let busy = e.kind() == io::ErrorKind::ResourceBusy;
            let code = if busy { FailureCode::Busy } else { FailureCode::MountFailed };
            Failure::new(code, format!("{}: {e}", found.at.display())).about(target)
        })?;
        self.table.lock().retain(|m| !Arc::ptr_eq(m, &found));
        self.write_record();
        Ok(found.dataset.clone())
    }

    /// Ends all mounts that `which` chooses, the newest first; stops at the first that is busy.
    pub fn remove_all(&self, force: bool, which: impl Fn(&Mounted) -> bool) -> Result<(), Failure> {
        for m in self.living().into_iter().rev().filter(|m| which(m)) {
            self.remove(&m.dataset, force)?;
        }
        Ok(())
    }
}

impl From<&Mounted> for MountEntry {
    fn from(m: &Mounted) -> Self {
        MountEntry {
            dataset: m.dataset.clone(),
            mountpoint: m.at.to_string_lossy().into_owned(),
            options: m.options.clone(),
            frontend: false,
        }
    }
}
