//! A stand-in for `fskitd` on Linux: drives a file-system module as macOS does and holds it to FSKit's rules.
//!
//! [`StandIn`] is what the module sees of its host; [`Fskitd`] is the life of one mount: probe, load, check, activate,
//! mount, operations, unmount, reclaim, deactivate, unload, each allowed only in its turn. Whatever macOS would refuse,
//! misbehave on or silently suffer from is a [`Problem`] that names the rule and carries the error that FSKit would
//! show. [`mount::mount`] puts the volume into the file system tree through FUSE.
//!
//! The rules come from Apple's documentation and from what other modules ran into; where it is not known which code
//! FSKit shows, the nearest one is used. Nothing here was compared with a Mac.

mod change;
mod driver;
pub mod memory;
pub mod mount;

pub use change::{Place, Wanted};
pub use driver::{Audit, Fskitd, Phase};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use uzfs_fskit::api::{
    BlockDevice, ContainerState, ContainerStatus, Context, FsError, FsResult, Host, ItemKey, Resource, System,
    XattrNames,
};

/// A rule of FSKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Calls come in the order of the life cycle.
    Order,
    /// Every probe of a resource gives the same identifier.
    StableContainer,
    /// The volume's identifier is the container's.
    EqualIdentifiers,
    /// The container is ready, and not active, when load replies; not ready after a failed load and after unload.
    ContainerReady,
    /// A task completes after the method that started it returned.
    TaskStartsFirst,
    /// A task completes.
    TaskCompletes,
    /// A check passes before a device is mounted.
    CheckPasses,
    /// The root is a directory with FSKit's number for it.
    RootItem,
    /// Every attribute is answered.
    CompleteAttributes,
    /// Times do not change by themselves.
    StableTimes,
    /// One item object a file.
    OneItem,
    /// Numbers of files are unique and not 0.
    UniqueIds,
    /// Every item that was given is taken back, once.
    BalancedReclaims,
    /// A verifier is not 0.
    Verifier,
    /// A cookie that is none is refused with FSKit's own code.
    BadCookie,
    /// Listing goes on where it stopped, without loss and without repetition.
    Cookies,
    /// A packer that is full is not asked again.
    FullPacker,
    /// `.` and `..` stand in listings without attributes, on macOS 27; nowhere before it.
    DotEntries,
    /// Entries have attributes when they were asked for, and only then.
    EntryAttributes,
    /// Lookup gives the name as stored.
    StoredName,
    /// One of size and bits is answered for files and for attributes, and names have a limit.
    PathConf,
    /// `statfs` shows the module's short name.
    TypeName,
    /// A read gives no more than was asked for, and less only at the end.
    Reads,
    /// What cannot be set is refused; what was set is said to be consumed.
    Consumed,
    /// Only files and directories are made.
    Creatable,
    /// URLs are not recognized.
    NoUrls,
    /// A result of macOS 27 has all attributes, of the file and of the directories it changed, and they are theirs.
    ResultAttributes,
    /// Whoever asks is checked where the system leaves that to the module (macOS 27).
    AccessChecks,
    /// Every call ends.
    Answers,
}

/// What went wrong: a broken rule, or an error of the module that is allowed to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The rule that was broken; none for an error that the module gave rightly.
    pub rule: Option<Rule>,
    /// The error that FSKit shows.
    pub error: FsError,
    /// In words.
    pub text: String,
}

impl Problem {
    fn new(rule: Rule, error: FsError, text: impl Into<String>) -> Self {
        Self { rule: Some(rule), error, text: text.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rule {
            Some(rule) => write!(f, "{} ({}; rule {rule:?})", self.error, self.text),
            None => write!(f, "{}: {}", self.text, self.error),
        }
    }
}

impl std::error::Error for Problem {}

/// An item object: `FSItem` with the module's key in it.
#[derive(Debug)]
pub struct HostItem {
    key: ItemKey,
}

/// What a module is told to run later, and what it says of itself.
pub struct StandIn {
    system: System,
    names: XattrNames,
    tickets: Vec<PathBuf>,
    status: Mutex<ContainerStatus>,
    forgotten: Mutex<Vec<Vec<u64>>>,
    kernel: Mutex<Option<Forget>>,
    lines: Mutex<Vec<String>>,
}

/// What makes the kernel forget what it caches of files, which are told by their nodes.
type Forget = Box<dyn Fn(&[u64]) + Send>;

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StandIn {
    /// A host as macOS `system` is. `tickets` are the daemons' tickets that its container would hold.
    pub fn new(system: System, tickets: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            system,
            names: XattrNames::Linux,
            tickets,
            status: Mutex::new(ContainerStatus { state: ContainerState::NotReady, status: None }),
            forgotten: Mutex::default(),
            kernel: Mutex::default(),
            lines: Mutex::default(),
        })
    }

    /// The container's status.
    pub fn status(&self) -> ContainerStatus {
        *locked(&self.status)
    }

    /// Files whose cached state the module had forgotten (`setCacheState`), call by call.
    pub fn forgotten(&self) -> Vec<Vec<u64>> {
        locked(&self.forgotten).clone()
    }

    /// Who forgets what the module had forgotten.
    pub(super) fn set_kernel(&self, kernel: Option<Forget>) {
        *locked(&self.kernel) = kernel;
    }

    /// What the module logged.
    pub fn lines(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }
}

impl Host for StandIn {
    type Item = Arc<HostItem>;

    fn new_item(&self, key: ItemKey) -> Arc<HostItem> {
        Arc::new(HostItem { key })
    }

    fn key_of(&self, item: &Arc<HostItem>) -> Option<ItemKey> {
        Some(item.key)
    }

    fn set_container_status(&self, status: ContainerStatus) {
        *locked(&self.status) = status;
    }

    fn later(&self, what: Box<dyn FnOnce() + Send>) {
        // As on macOS, on another thread and not at once.
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(2));
            what();
        });
    }

    fn daemon_tickets(&self) -> Vec<Vec<u8>> {
        self.tickets.iter().filter_map(|p| std::fs::read(p).ok()).collect()
    }

    fn system(&self) -> System {
        self.system
    }

    fn xattr_names(&self) -> XattrNames {
        self.names
    }

    fn groups(&self, context: Context) -> Vec<u32> {
        vec![context.gid]
    }

    fn forget_cached(&self, items: &[Arc<HostItem>]) {
        let mut nodes: Vec<u64> = items.iter().map(|i| i.key.node).collect();
        nodes.sort_unstable();
        if let Some(kernel) = &*locked(&self.kernel) {
            kernel(&nodes);
        }
        locked(&self.forgotten).push(nodes);
    }

    fn log(&self, line: &str) {
        locked(&self.lines).push(line.to_owned());
    }
}

/// A device or image file as `FSBlockDeviceResource` shows it.
pub struct ImageFile {
    name: String,
    file: std::fs::File,
    size: u64,
}

impl ImageFile {
    /// Opens a device.
    pub fn open(path: &std::path::Path) -> std::io::Result<Resource> {
        use std::io::{Seek, SeekFrom};
        let mut file = std::fs::File::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Resource::Block(Arc::new(Self { name, file, size })))
    }
}

impl BlockDevice for ImageFile {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
        use std::os::unix::fs::FileExt;
        if !offset.is_multiple_of(512) || !buf.len().is_multiple_of(512) {
            return Err(FsError::Posix(libc::EINVAL));
        }
        self.file.read_at(buf, offset).map_err(|e| FsError::Posix(e.raw_os_error().unwrap_or(libc::EIO)))
    }
}
