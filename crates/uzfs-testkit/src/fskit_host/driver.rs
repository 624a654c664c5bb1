//! The life of one mount, and the rules along it.

use super::{HostItem, Problem, Rule, StandIn, locked};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use uzfs_fskit::api::{
    ContainerState, Context, FsError, FsKitCode, FsResult, Host, ItemAttributes, ItemType, PARENT_OF_ROOT_ID,
    PackedEntry, ProbeResult, ROOT_ID, Resource, SHORT_NAME, SeekRegion, SetAttributes, Statistics, SyncFlags, System,
    Task, UnaryFileSystem, VolumeOperations, access,
};

/// How long a call of the life cycle may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The error of `unexpected container state`.
const UNEXPECTED: FsError = FsError::Posix(libc::EAGAIN);
const UNUSABLE: FsError = FsError::FsKit(FsKitCode::ResourceUnusable);
pub(super) const FAULT: FsError = FsError::Posix(libc::EFAULT);

/// Somebody who owns nothing.
const STRANGER: u32 = 4_242_424;

pub(super) type Volume = Arc<dyn VolumeOperations<StandIn>>;
pub(super) type Step<T> = Result<T, Problem>;

/// Where a mount stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing happened.
    Fresh,
    /// The resource was recognized.
    Probed,
    /// There is a volume.
    Loaded,
    /// A device was checked; a path needs no check.
    Checked,
    /// The root is known.
    Active,
    /// Mounted.
    Mounted,
    /// No longer mounted.
    Unmounted,
    /// All items were taken back, and the volume is no longer active.
    Inactive,
    /// The volume is gone.
    Unloaded,
}

/// An item that the stand-in knows, as the kernel knows a vnode.
struct Known {
    item: Arc<HostItem>,
    count: u64,
}

/// A task as FSKit gives it.
struct CheckTask {
    returned: AtomicBool,
    early: AtomicBool,
    done: Mutex<mpsc::Sender<FsResult<()>>>,
    lines: Mutex<Vec<String>>,
}

impl Task for CheckTask {
    fn log(&self, line: &str) {
        locked(&self.lines).push(line.to_owned());
    }

    fn complete(&self, result: FsResult<()>) {
        if !self.returned.load(Ordering::SeqCst) {
            self.early.store(true, Ordering::SeqCst);
        }
        // Nobody waits any more for a task that took too long.
        let _ = locked(&self.done).send(result);
    }
}

/// What [`Fskitd::audit`] looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Entries of the directories.
    pub entries: usize,
    /// Files read.
    pub files: usize,
}

/// Drives a module through the life of one mount.
pub struct Fskitd<M> {
    module: Arc<M>,
    host: Arc<StandIn>,
    resource: Resource,
    patience: Duration,
    phase: Mutex<Phase>,
    container: Mutex<Option<[u8; 16]>>,
    volume: Mutex<Option<Volume>>,
    known: Mutex<HashMap<u64, Known>>,
    calls: AtomicUsize,
}

pub(super) fn module_error(what: &str, error: FsError) -> Problem {
    Problem { rule: None, error, text: what.to_owned() }
}

impl<M: UnaryFileSystem<StandIn> + 'static> Fskitd<M> {
    /// A mount of `resource` by `module`, which was made for `host`.
    pub fn new(module: M, host: Arc<StandIn>, resource: Resource) -> Self {
        Self {
            module: Arc::new(module),
            host,
            resource,
            patience: PATIENCE,
            phase: Mutex::new(Phase::Fresh),
            container: Mutex::default(),
            volume: Mutex::default(),
            known: Mutex::default(),
            calls: AtomicUsize::new(0),
        }
    }

    /// Changes how long a call may take.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where the mount stands.
    pub fn phase(&self) -> Phase {
        *locked(&self.phase)
    }

    /// Operations that the module was asked for.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn expect(&self, wanted: &[Phase], what: &str) -> Step<()> {
        let now = self.phase();
        if wanted.contains(&now) {
            return Ok(());
        }
        Err(Problem::new(Rule::Order, UNEXPECTED, format!("{what} in phase {now:?}")))
    }

    /// Runs a call that must end.
    fn within<T: Send + 'static>(&self, what: &str, call: impl FnOnce() -> T + Send + 'static) -> Step<T> {
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || done.send(call()));
        result.recv_timeout(self.patience).map_err(|_| {
            Problem::new(Rule::Answers, FsError::Posix(libc::ETIMEDOUT), format!("{what} was not answered"))
        })
    }

    fn volume(&self) -> Step<Volume> {
        let none = || Problem::new(Rule::Order, UNEXPECTED, "no volume is loaded");
        locked(&self.volume).clone().ok_or_else(none)
    }

    /// Asks whether the resource is the module's, twice.
    pub fn probe(&self) -> Step<ProbeResult> {
        self.expect(&[Phase::Fresh, Phase::Probed], "probe")?;
        let ask = || {
            let (module, resource) = (self.module.clone(), self.resource.clone());
            self.within("probe", move || module.probe(&resource))?.map_err(|e| module_error("probe", e))
        };
        let (first, second) = (ask()?, ask()?);
        if first.container != second.container {
            return Err(Problem::new(Rule::StableContainer, UNUSABLE, "two probes gave two identifiers"));
        }
        if self.module.probe(&Resource::Url("zfs://x".into())).is_ok_and(|r| r.result as u8 != 0) {
            return Err(Problem::new(Rule::NoUrls, UNUSABLE, "a URL was recognized"));
        }
        match first.result {
            uzfs_fskit::api::Match::NotRecognized => {
                return Err(module_error("probe", FsError::FsKit(FsKitCode::ResourceUnrecognized)));
            }
            uzfs_fskit::api::Match::Recognized => return Err(module_error("probe", UNUSABLE)),
            _ => {}
        }
        *locked(&self.container) = Some(first.container);
        *locked(&self.phase) = Phase::Probed;
        Ok(first)
    }

    /// Makes the volume.
    pub fn load(&self) -> Step<()> {
        self.expect(&[Phase::Probed], "load")?;
        let (module, resource) = (self.module.clone(), self.resource.clone());
        let loaded = self.within("load", move || module.load(&resource, &[]))?;
        let state = self.host.status().state;
        let volume = match loaded {
            Ok(volume) => volume,
            Err(e) if matches!(state, ContainerState::Ready | ContainerState::Active) => {
                let text = format!("the container is {state:?} though load failed with {e}");
                return Err(Problem::new(Rule::ContainerReady, UNEXPECTED, text));
            }
            Err(e) => return Err(module_error("load", e)),
        };
        if state != ContainerState::Ready {
            let text = format!("unexpected container state {state:?} at the reply of load");
            return Err(Problem::new(Rule::ContainerReady, UNEXPECTED, text));
        }
        if Some(volume.volume_id()) != *locked(&self.container) {
            return Err(Problem::new(Rule::EqualIdentifiers, UNUSABLE, "volume and container differ"));
        }
        *locked(&self.volume) = Some(volume);
        *locked(&self.phase) = Phase::Loaded;
        Ok(())
    }

    /// Checks a device; a path resource needs none. Gives what the module said.
    pub fn check(&self) -> Step<Vec<String>> {
        self.expect(&[Phase::Loaded], "check")?;
        let mut lines = Vec::new();
        if matches!(self.resource, Resource::Block(_)) {
            let (done, completed) = mpsc::channel();
            let task = Arc::new(CheckTask {
                returned: AtomicBool::new(false),
                early: AtomicBool::new(false),
                done: Mutex::new(done),
                lines: Mutex::default(),
            });
            let (module, given) = (self.module.clone(), task.clone());
            let started = self.within("check", move || module.start_check(given, &[]))?;
            task.returned.store(true, Ordering::SeqCst);
            if task.early.load(Ordering::SeqCst) {
                let error = FsError::FsKit(FsKitCode::TaskNotStarted);
                return Err(Problem::new(Rule::TaskStartsFirst, error, "Task didn't start yet"));
            }
            started.map_err(|e| module_error("check", e))?;
            let never = |_| Problem::new(Rule::TaskCompletes, FsError::Posix(libc::ETIMEDOUT), "the check never ended");
            let passed = completed.recv_timeout(self.patience).map_err(never)?;
            passed.map_err(|e| Problem::new(Rule::CheckPasses, e, "the device did not pass its check"))?;
            lines = locked(&task.lines).clone();
        }
        *locked(&self.phase) = Phase::Checked;
        Ok(lines)
    }

    /// Gets the root, and looks at what the volume says of itself.
    pub fn activate(&self) -> Step<()> {
        self.expect(&[Phase::Checked], "activate")?;
        let volume = self.volume()?;
        let asked = volume.clone();
        let root = self.within("activate", move || asked.activate(&[]))?.map_err(|e| module_error("activate", e))?;
        let asked = (volume.clone(), root.clone());
        let attributes = self.within("getAttributes", move || asked.0.get_attributes(&asked.1))?;
        let attributes = attributes.map_err(|e| module_error("attributes of the root", e))?;
        self.complete(&attributes)?;
        let wanted = (Some(ItemType::Directory), Some(ROOT_ID), Some(PARENT_OF_ROOT_ID));
        if (attributes.kind, attributes.file_id, attributes.parent_id) != wanted {
            return Err(Problem::new(Rule::RootItem, FAULT, format!("the root is {attributes:?}")));
        }
        locked(&self.known).insert(ROOT_ID, Known { item: root, count: 1 });
        let conf = volume.path_conf();
        if conf.file_size_bits.is_none() || conf.xattr_size_bits.is_none() || conf.max_name <= 0 {
            return Err(Problem::new(Rule::PathConf, FAULT, format!("{conf:?}")));
        }
        let statistics = volume.statistics();
        if statistics.type_name != SHORT_NAME {
            return Err(Problem::new(Rule::TypeName, UNUSABLE, format!("statfs shows {:?}", statistics.type_name)));
        }
        *locked(&self.phase) = Phase::Active;
        Ok(())
    }

    /// Tells the module that it is mounted.
    pub fn mount(&self) -> Step<()> {
        self.expect(&[Phase::Active], "mount")?;
        let volume = self.volume()?;
        self.within("mount", move || volume.mount(&[]))?.map_err(|e| module_error("mount", e))?;
        *locked(&self.phase) = Phase::Mounted;
        Ok(())
    }

    /// Everything up to the mount.
    pub fn bring_up(&self) -> Step<()> {
        self.probe()?;
        self.load()?;
        self.check()?;
        self.activate()?;
        self.mount()
    }

    /// Tells the module that it is no longer mounted.
    pub fn unmount(&self) -> Step<()> {
        self.expect(&[Phase::Mounted], "unmount")?;
        let volume = self.volume()?;
        let asked = volume.clone();
        // A daemon that is gone cannot be synchronized with, and unmounting goes on.
        let _ = self.within("synchronize", move || asked.synchronize(SyncFlags::Wait))?;
        self.within("unmount", move || volume.unmount())?;
        *locked(&self.phase) = Phase::Unmounted;
        Ok(())
    }

    /// Takes all items back and ends the volume's activity.
    pub fn deactivate(&self) -> Step<()> {
        self.expect(&[Phase::Unmounted], "deactivate")?;
        let volume = self.volume()?;
        let items: Vec<Known> = locked(&self.known).drain().map(|(_, k)| k).collect();
        // In batches, each with the patience of one call.
        let mut items = items.into_iter().map(|k| k.item).peekable();
        while items.peek().is_some() {
            let batch: Vec<Arc<HostItem>> = items.by_ref().take(256).collect();
            let asked = volume.clone();
            let all = move || batch.iter().map(|item| asked.reclaim(item)).collect::<Vec<_>>();
            for reclaimed in self.within("reclaim", all)? {
                Self::reclaimed(reclaimed)?;
            }
        }
        let left = volume.live_items();
        if left > 0 {
            let text = format!("the module holds {left} items that were reclaimed");
            return Err(Problem::new(Rule::BalancedReclaims, FsError::Posix(libc::EBUSY), text));
        }
        let asked = volume.clone();
        let done = self.within("deactivate", move || asked.deactivate(false))?;
        done.map_err(|e| module_error("deactivate", e))?;
        *locked(&self.phase) = Phase::Inactive;
        Ok(())
    }

    fn reclaimed(result: FsResult<()>) -> Step<()> {
        match result {
            // The daemon may be gone; the module's own table is what counts.
            Ok(()) | Err(FsError::Posix(libc::EIO)) => Ok(()),
            Err(e) => Err(Problem::new(Rule::BalancedReclaims, e, "an item could not be given back")),
        }
    }

    /// Lets the volume go.
    pub fn unload(&self) -> Step<()> {
        self.expect(&[Phase::Inactive, Phase::Loaded, Phase::Checked], "unload")?;
        *locked(&self.volume) = None;
        let (module, resource) = (self.module.clone(), self.resource.clone());
        let done = self.within("unload", move || module.unload(&resource, &[]))?;
        done.map_err(|e| module_error("unload", e))?;
        let state = self.host.status().state;
        if state != ContainerState::NotReady {
            return Err(Problem::new(Rule::ContainerReady, UNEXPECTED, format!("{state:?} after unload")));
        }
        *locked(&self.phase) = Phase::Unloaded;
        Ok(())
    }

    /// Everything after the mount.
    pub fn take_down(&self) -> Step<()> {
        self.unmount()?;
        self.deactivate()?;
        self.unload()
    }

    pub(super) fn complete(&self, a: &ItemAttributes) -> Step<()> {
        let missing = a.missing();
        if !missing.is_empty() {
            let text = format!("not answered: {}", missing.join(", "));
            return Err(Problem::new(Rule::CompleteAttributes, FAULT, text));
        }
        if a.file_id == Some(0) {
            return Err(Problem::new(Rule::UniqueIds, FAULT, "the number of a file is 0"));
        }
        Ok(())
    }

    /// The volume and an item by its number, while mounted.
    pub(super) fn item(&self, id: u64) -> Step<(Volume, Arc<HostItem>)> {
        self.expect(&[Phase::Mounted], "an operation")?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let gone = || module_error("finding an item", FsError::Posix(libc::ESTALE));
        let item = locked(&self.known).get(&id).map(|k| k.item.clone()).ok_or_else(gone)?;
        Ok((self.volume()?, item))
    }

    /// Finds a name; the file is known from now on, once more.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Step<ItemAttributes> {
        let (volume, parent) = self.item(dir)?;
        let (item, stored) = if self.handles() {
            let found = volume.look(name, &parent).map_err(|e| module_error("lookup", e))?;
            self.result(&[&found.attributes])?;
            let known = locked(&self.known);
            let same = known.iter().find(|(_, k)| Arc::ptr_eq(&k.item, &found.item));
            if same.is_some_and(|(id, _)| found.attributes.file_id != Some(*id)) {
                return Err(Problem::new(
                    Rule::ResultAttributes,
                    FAULT,
                    "attributes of another file came with an item",
                ));
            }
            (found.item, found.name)
        } else {
            volume.lookup(name, &parent).map_err(|e| module_error("lookup", e))?
        };
        if stored.is_empty() {
            return Err(Problem::new(Rule::StoredName, FAULT, "no name came with the item"));
        }
        self.learn(&volume, item)
    }

    /// Attributes that came with a result: FSKit keeps them, and never asks for what is missing.
    pub(super) fn result(&self, all: &[&ItemAttributes]) -> Step<()> {
        match all.iter().find(|a| !a.missing().is_empty()) {
            None => Ok(()),
            Some(a) => {
                let text = format!("a result lacks {}", a.missing().join(", "));
                Err(Problem::new(Rule::ResultAttributes, FAULT, text))
            }
        }
    }

    /// Whether the system uses macOS 27's protocols.
    pub(super) fn handles(&self) -> bool {
        self.host.system() >= System::V27
    }

    /// Notes an item that the module gave.
    pub(super) fn learn(&self, volume: &Volume, item: Arc<HostItem>) -> Step<ItemAttributes> {
        let a = volume.get_attributes(&item).map_err(|e| module_error("getAttributes", e))?;
        self.complete(&a)?;
        let id = a.file_id.unwrap_or(0);
        let mut known = locked(&self.known);
        match known.get_mut(&id) {
            Some(k) if Arc::ptr_eq(&k.item, &item) => k.count += 1,
            Some(k) if k.item.key.node != item.key.node => {
                return Err(Problem::new(Rule::UniqueIds, FAULT, format!("two files have number {id}")));
            }
            Some(_) => return Err(Problem::new(Rule::OneItem, FAULT, format!("file {id} has two item objects"))),
            None => {
                known.insert(id, Known { item, count: 1 });
            }
        }
        Ok(a)
    }

    /// The kernel forgot a file `count` times; at the last one the item goes back.
    pub fn forget(&self, id: u64, count: u64) -> Step<()> {
        let gone = {
            let mut known = locked(&self.known);
            let Some(k) = known.get_mut(&id) else { return Ok(()) };
            k.count = k.count.saturating_sub(count);
            if k.count > 0 || id == ROOT_ID {
                return Ok(());
            }
            known.remove(&id)
        };
        match (gone, self.volume()) {
            (Some(k), Ok(volume)) => Self::reclaimed(volume.reclaim(&k.item)),
            _ => Ok(()),
        }
    }

    /// Numbers of those files that the kernel knows among `nodes`.
    pub(super) fn known_of(&self, nodes: &[u64]) -> Vec<u64> {
        let known = locked(&self.known);
        known.iter().filter(|(_, k)| nodes.contains(&k.item.key.node)).map(|(id, _)| *id).collect()
    }

    /// The host that the module was made for.
    pub(super) fn host(&self) -> &Arc<StandIn> {
        &self.host
    }

    /// Attributes of a file.
    pub fn attributes(&self, id: u64) -> Step<ItemAttributes> {
        let (volume, item) = self.item(id)?;
        let a = volume.get_attributes(&item).map_err(|e| module_error("getAttributes", e))?;
        self.complete(&a)?;
        Ok(a)
    }

    /// One call of `enumerateDirectory`. Gives the verifier.
    pub fn enumerate(
        &self,
        dir: u64,
        at: (u64, u64),
        attributes: bool,
        take: &mut dyn FnMut(&PackedEntry<'_>) -> bool,
    ) -> Step<u64> {
        let (volume, item) = self.item(dir)?;
        let (mut broken, mut full) = (None, false);
        let dots = !attributes && self.host.system() >= System::V27;
        let mut packer = |e: &PackedEntry<'_>| {
            let dot = e.name == b"." || e.name == b"..";
            if full {
                broken.get_or_insert((Rule::FullPacker, "a full packer was asked again"));
            } else if dot && !dots {
                broken.get_or_insert((Rule::DotEntries, "`.` or `..` in a listing that has none"));
            } else if e.attributes.is_some() != attributes {
                broken.get_or_insert((Rule::EntryAttributes, "attributes not as asked for"));
            } else if e.attributes.as_ref().is_some_and(|a| !a.missing().is_empty()) {
                broken.get_or_insert((Rule::CompleteAttributes, "an entry without all attributes"));
            } else if e.id == 0 || e.next_cookie == 0 {
                broken.get_or_insert((Rule::Cookies, "a number or cookie that is 0"));
            }
            full = full || !take(e);
            !full
        };
        let verifier = volume.enumerate(&item, at.0, at.1, attributes, &mut packer);
        if let Some((rule, text)) = broken {
            return Err(Problem::new(rule, FAULT, text));
        }
        let verifier = verifier.map_err(|e| module_error("enumerateDirectory", e))?;
        if verifier == 0 {
            return Err(Problem::new(Rule::Verifier, FAULT, "the verifier is 0"));
        }
        Ok(verifier)
    }

    /// Reads.
    pub fn read(&self, id: u64, offset: i64, buf: &mut [u8]) -> Step<usize> {
        let (volume, item) = self.item(id)?;
        let n = volume.read(&item, offset, buf).map_err(|e| module_error("read", e))?;
        if n > buf.len() {
            return Err(Problem::new(Rule::Reads, FAULT, format!("{n} bytes read of {}", buf.len())));
        }
        Ok(n)
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, id: u64) -> Step<Vec<u8>> {
        let (volume, item) = self.item(id)?;
        volume.read_link(&item).map_err(|e| module_error("readSymbolicLink", e))
    }

    /// Value of an extended attribute.
    pub fn get_xattr(&self, id: u64, name: &[u8]) -> Step<Vec<u8>> {
        let (volume, item) = self.item(id)?;
        volume.get_xattr(name, &item).map_err(|e| module_error("getXattr", e))
    }

    /// Names of extended attributes.
    pub fn list_xattrs(&self, id: u64) -> Step<Vec<Vec<u8>>> {
        let (volume, item) = self.item(id)?;
        volume.list_xattrs(&item).map_err(|e| module_error("listXattrs", e))
    }

    /// The next data or hole; what macOS has from 27 on.
    pub fn seek(&self, id: u64, offset: i64, region: SeekRegion) -> Step<i64> {
        let (volume, item) = self.item(id)?;
        volume.seek(&item, offset, region).map_err(|e| module_error("seek", e))
    }

    /// Space.
    pub fn statistics(&self) -> Step<(Statistics, i64)> {
        let (volume, _) = self.item(ROOT_ID)?;
        Ok((volume.statistics(), volume.path_conf().max_name))
    }

    /// Whether nothing can be changed.
    pub fn is_readonly(&self) -> Step<bool> {
        Ok(self.volume()?.is_readonly())
    }

    /// Holds a directory and what is in it to the rules, as the kernel would only over time.
    pub fn audit(&self, dir: u64) -> Step<Audit> {
        let mut audit = Audit::default();
        self.audit_attributes(dir)?;
        let names = self.audit_listing(dir)?;
        audit.entries = names.len();
        let mut seen = HashMap::new();
        for (name, id) in names {
            let found = self.lookup(dir, &name)?;
            // Two names of one number are two links, or two files with the same number.
            let repeated = *seen.entry(id).and_modify(|n| *n += 1).or_insert(1u32) > found.link_count.unwrap_or(0);
            if found.file_id != Some(id) || repeated {
                let text = format!("{} has numbers {id} and {:?}", String::from_utf8_lossy(&name), found.file_id);
                return Err(Problem::new(Rule::UniqueIds, FAULT, text));
            }
            let again = self.lookup(dir, &name)?;
            if again.modify_time != found.modify_time {
                return Err(Problem::new(Rule::StableTimes, FAULT, "a time changed by itself"));
            }
            if found.kind == Some(ItemType::File) {
                self.audit_reads(id, found.size.unwrap_or(0))?;
                audit.files += 1;
            }
            self.forget(id, 2)?;
        }
        Ok(audit)
    }

    fn audit_attributes(&self, id: u64) -> Step<()> {
        let (volume, item) = self.item(id)?;
        let mut request = SetAttributes::default();
        request.wanted.file_id = Some(9);
        if volume.set_attributes(&mut request, &item) != Err(FsError::Posix(libc::EINVAL)) {
            return Err(Problem::new(Rule::Consumed, FAULT, "the number of a file could be set"));
        }
        let first = self.attributes(id)?;
        let mut request = SetAttributes::default();
        request.wanted.mode = first.mode;
        if volume.set_attributes(&mut request, &item).is_ok() && request.consumed != 2 {
            return Err(Problem::new(Rule::Consumed, FAULT, "a mode was set and not consumed"));
        }
        let mut request = SetAttributes::default();
        let made = volume.create(b"audit", ItemType::Fifo, &item, &mut request).map(drop);
        if made != Err(FsError::Posix(libc::EINVAL)) {
            return Err(Problem::new(Rule::Creatable, FAULT, "a pipe could be asked for"));
        }
        if self.attributes(id)?.modify_time != first.modify_time {
            return Err(Problem::new(Rule::StableTimes, FAULT, "a time changed by itself"));
        }
        let stranger = Context { uid: STRANGER, gid: STRANGER };
        let closed = first.mode.is_some_and(|m| m & 0o002 == 0) && first.uid != Some(STRANGER);
        if self.handles() && closed && volume.may(&item, access::WRITE_DATA, stranger) != Ok(false) {
            return Err(Problem::new(Rule::AccessChecks, FAULT, "a stranger may write"));
        }
        Ok(())
    }

    /// Lists at once, and entry by entry, and compares. Gives names and numbers.
    fn audit_listing(&self, dir: u64) -> Step<Vec<(Vec<u8>, u64)>> {
        let mut whole = Vec::new();
        let verifier = self.enumerate(dir, (0, 0), true, &mut |e| {
            whole.push((e.name.to_vec(), e.id, e.next_cookie));
            true
        })?;
        let mut plain = Vec::new();
        self.enumerate(dir, (0, 0), false, &mut |e| {
            plain.push(e.name.to_vec());
            true
        })?;
        let dots = plain.iter().filter(|n| *n == b"." || *n == b"..").count();
        if self.host.system() >= System::V27 && dots != 2 {
            return Err(Problem::new(Rule::DotEntries, FAULT, "`.` and `..` are not listed"));
        }
        let (mut at, mut seen) = ((0, 0), Vec::new());
        // One entry a call, up to a number that shows what it must.
        for _ in 0..=whole.len().min(64) {
            let mut one = None;
            let verifier = self.enumerate(dir, at, true, &mut |e| {
                let first = one.is_none();
                if first {
                    one = Some((e.name.to_vec(), e.id, e.next_cookie));
                }
                first
            })?;
            let Some(entry) = one else { break };
            at = (entry.2, verifier);
            seen.push(entry);
        }
        if seen != whole.get(..seen.len()).unwrap_or_default() || seen.len() < whole.len().min(64) {
            return Err(Problem::new(Rule::Cookies, FAULT, "listing in pieces gives something else"));
        }
        let bad = self.enumerate(dir, (7, !verifier), true, &mut |_| true);
        let code = FsError::FsKit(FsKitCode::InvalidDirectoryCookie);
        if !matches!(&bad, Err(p) if p.error == code) {
            return Err(Problem::new(Rule::BadCookie, code, "a cookie of another listing was taken"));
        }
        Ok(whole.into_iter().map(|(name, id, _)| (name, id)).collect())
    }

    fn audit_reads(&self, id: u64, size: u64) -> Step<()> {
        let end = i64::try_from(size).unwrap_or(i64::MAX);
        let mut buf = [0; 4096];
        if self.read(id, end, &mut buf)? != 0 {
            return Err(Problem::new(Rule::Reads, FAULT, "there is something behind the end"));
        }
        let want = size.min(4096) as usize;
        if self.read(id, 0, &mut buf)? != want {
            return Err(Problem::new(Rule::Reads, FAULT, "a read is short though more follows"));
        }
        Ok(())
    }
}
