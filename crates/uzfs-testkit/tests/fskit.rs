//! FSKit's rules: the module keeps them all, and a module that breaks one is caught by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uzfs_fskit::Module;
use uzfs_fskit::api::*;
use uzfs_testkit::fskit_host::memory::{self, HELLO, Memory};
use uzfs_testkit::fskit_host::{Fskitd, HostItem, Phase, Problem, Rule, StandIn, Wanted};

type Item = Arc<HostItem>;

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NewContainerEveryProbe,
    UnequalIdentifiers,
    NotReadyAtLoad,
    ActiveAtLoad,
    ReadyAfterFailedLoad,
    EarlyCompletion,
    NoCompletion,
    CheckFails,
    RootIsItsObjectNumber,
    NoBirthTime,
    NoTimesInListings,
    MovingTimes,
    NewItemEveryLookup,
    SameNumberTwice,
    ReclaimIgnored,
    ReclaimRefused,
    ZeroVerifier,
    AnyCookie,
    WrongCode,
    LostEntries,
    PushesFullPacker,
    DotsWithAttributes,
    NoDots,
    NoAttributesInListing,
    NoName,
    NoFileSize,
    OtherTypeName,
    ReadsTooMuch,
    ShortReads,
    SetsAnything,
    ConsumesNothing,
    MakesPipes,
    TakesUrls,
    Hangs,
    ReadyAfterUnload,
    HollowResult,
    ResultOfAnother,
    AllowsEverybody,
}

struct Broken {
    inner: Module<StandIn>,
    host: Arc<StandIn>,
    fault: Fault,
    count: AtomicU64,
}

struct BrokenVolume {
    inner: Arc<dyn VolumeOperations<StandIn>>,
    host: Arc<StandIn>,
    fault: Fault,
    count: AtomicU64,
}

impl UnaryFileSystem<StandIn> for Broken {
    fn probe(&self, resource: &Resource) -> FsResult<ProbeResult> {
        if let (Fault::TakesUrls, Resource::Url(_)) = (self.fault, resource) {
            return Ok(ProbeResult { result: Match::Usable, name: "u".into(), container: [1; 16] });
        }
        let mut r = self.inner.probe(resource)?;
        if self.fault == Fault::NewContainerEveryProbe {
            r.container[0] = self.count.fetch_add(1, Ordering::SeqCst) as u8;
        }
        Ok(r)
    }
    fn load(&self, resource: &Resource, options: &[String]) -> FsResult<Arc<dyn VolumeOperations<StandIn>>> {
        let inner = self.inner.load(resource, options)?;
        let state = match self.fault {
            Fault::NotReadyAtLoad => ContainerState::NotReady,
            Fault::ActiveAtLoad => ContainerState::Active,
            _ => ContainerState::Ready,
        };
        self.host.set_container_status(ContainerStatus { state, status: None });
        if self.fault == Fault::ReadyAfterFailedLoad {
            return Err(FsError::Posix(libc::EIO));
        }
        Ok(Arc::new(BrokenVolume { inner, host: self.host.clone(), fault: self.fault, count: AtomicU64::new(0) }))
    }
    fn unload(&self, resource: &Resource, options: &[String]) -> FsResult<()> {
        self.inner.unload(resource, options)?;
        if self.fault == Fault::ReadyAfterUnload {
            self.host.set_container_status(ContainerStatus { state: ContainerState::Ready, status: None });
        }
        Ok(())
    }
    fn start_check(&self, task: Arc<dyn Task>, options: &[String]) -> FsResult<()> {
        match self.fault {
            Fault::EarlyCompletion => task.complete(Ok(())),
            Fault::NoCompletion => {}
            Fault::CheckFails => {
                self.host.later(Box::new(move || task.complete(Err(FsError::FsKit(FsKitCode::ResourceDamaged)))));
            }
            _ => return self.inner.start_check(task, options),
        }
        Ok(())
    }
    fn start_format(&self, task: Arc<dyn Task>, options: &[String]) -> FsResult<()> {
        self.inner.start_format(task, options)
    }
}

impl BrokenVolume {
    fn spoil(&self, mut a: ItemAttributes) -> ItemAttributes {
        match self.fault {
            Fault::RootIsItsObjectNumber if a.file_id == Some(ROOT_ID) => a.file_id = Some(memory::ROOT),
            Fault::NoBirthTime => a.birth_time = None,
            Fault::MovingTimes => {
                let sec = self.count.fetch_add(1, Ordering::SeqCst) as i64;
                a.modify_time = Some(TimeSpec { sec, nsec: 0 });
            }
            Fault::SameNumberTwice if a.kind == Some(ItemType::File) => a.file_id = Some(77),
            _ => {}
        }
        a
    }
}

impl VolumeOperations<StandIn> for BrokenVolume {
    fn volume_id(&self) -> [u8; 16] {
        let mut id = self.inner.volume_id();
        if self.fault == Fault::UnequalIdentifiers {
            id[15] ^= 1;
        }
        id
    }
    fn volume_name(&self) -> String {
        self.inner.volume_name()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn path_conf(&self) -> PathConf {
        let mut c = self.inner.path_conf();
        if self.fault == Fault::NoFileSize {
            c.file_size_bits = None;
        }
        c
    }
    fn statistics(&self) -> Statistics {
        let mut s = self.inner.statistics();
        if self.fault == Fault::OtherTypeName {
            s.type_name = "openzfs".into();
        }
        s
    }
    fn is_readonly(&self) -> bool {
        self.inner.is_readonly()
    }
    fn activate(&self, options: &[String]) -> FsResult<Item> {
        self.inner.activate(options)
    }
    fn deactivate(&self, force: bool) -> FsResult<()> {
        self.inner.deactivate(force)
    }
    fn mount(&self, options: &[String]) -> FsResult<()> {
        if self.fault == Fault::Hangs {
            std::thread::sleep(Duration::from_secs(2));
        }
        self.inner.mount(options)
    }
    fn unmount(&self) {
        self.inner.unmount();
    }
    fn synchronize(&self, flags: SyncFlags) -> FsResult<()> {
        self.inner.synchronize(flags)
    }
    fn get_attributes(&self, item: &Item) -> FsResult<ItemAttributes> {
        Ok(self.spoil(self.inner.get_attributes(item)?))
    }
    fn set_attributes(&self, request: &mut SetAttributes, item: &Item) -> FsResult<ItemAttributes> {
        match self.fault {
            Fault::SetsAnything | Fault::ConsumesNothing if request.wanted.file_id.is_none() => {
                self.get_attributes(item)
            }
            Fault::SetsAnything => self.get_attributes(item),
            _ => self.inner.set_attributes(request, item),
        }
    }
    fn lookup(&self, name: &[u8], dir: &Item) -> FsResult<(Item, Vec<u8>)> {
        let (item, stored) = self.inner.lookup(name, dir)?;
        match self.fault {
            // As a module does that makes an object for every reply.
            Fault::NewItemEveryLookup => {
                let key = self.host.key_of(&item).unwrap();
                Ok((self.host.new_item(key), stored))
            }
            Fault::NoName => Ok((item, Vec::new())),
            _ => Ok((item, stored)),
        }
    }
    fn reclaim(&self, item: &Item) -> FsResult<()> {
        match self.fault {
            Fault::ReclaimIgnored => Ok(()),
            Fault::ReclaimRefused => Err(FsError::Posix(libc::EBUSY)),
            _ => self.inner.reclaim(item),
        }
    }
    fn read_link(&self, item: &Item) -> FsResult<Vec<u8>> {
        self.inner.read_link(item)
    }
    fn create(&self, name: &[u8], kind: ItemType, dir: &Item, attrs: &mut SetAttributes) -> FsResult<(Item, Vec<u8>)> {
        if self.fault == Fault::MakesPipes {
            return self.inner.lookup(b"file.txt", dir);
        }
        self.inner.create(name, kind, dir, attrs)
    }
    fn create_symlink(
        &self,
        name: &[u8],
        dir: &Item,
        attrs: &mut SetAttributes,
        target: &[u8],
    ) -> FsResult<(Item, Vec<u8>)> {
        self.inner.create_symlink(name, dir, attrs, target)
    }
    fn create_link(&self, item: &Item, name: &[u8], dir: &Item) -> FsResult<Vec<u8>> {
        self.inner.create_link(item, name, dir)
    }
    fn remove(&self, item: &Item, name: &[u8], dir: &Item) -> FsResult<()> {
        self.inner.remove(item, name, dir)
    }
    fn rename(&self, item: &Item, from: (&Item, &[u8]), to: (&Item, &[u8]), over: Option<&Item>) -> FsResult<Vec<u8>> {
        self.inner.rename(item, from, to, over)
    }
    fn enumerate(&self, dir: &Item, cookie: u64, verifier: u64, attributes: bool, packer: Packer<'_>) -> FsResult<u64> {
        let (mut first, fault) = (true, self.fault);
        let mut spoiled = |e: &PackedEntry<'_>| {
            let mut a = e.attributes;
            match fault {
                Fault::NoTimesInListings => a = a.map(|a| ItemAttributes { access_time: None, ..a }),
                Fault::NoAttributesInListing => a = None,
                Fault::NoDots if e.name.starts_with(b".") => return true,
                Fault::LostEntries if cookie != 0 && std::mem::take(&mut first) => return true,
                Fault::DotsWithAttributes if attributes && std::mem::take(&mut first) => {
                    let dot = PackedEntry { name: b".", kind: e.kind, id: ROOT_ID, next_cookie: 1, attributes: a };
                    packer(&dot);
                }
                _ => {}
            }
            let id = if fault == Fault::SameNumberTwice && e.kind == ItemType::File { 77 } else { e.id };
            let kept = PackedEntry { name: e.name, kind: e.kind, id, next_cookie: e.next_cookie, attributes: a };
            let more = packer(&kept);
            if fault == Fault::PushesFullPacker && !more {
                packer(&kept);
            }
            more
        };
        let bad = FsError::FsKit(FsKitCode::InvalidDirectoryCookie);
        match self.inner.enumerate(dir, cookie, verifier, attributes, &mut spoiled) {
            Ok(_) if fault == Fault::ZeroVerifier => Ok(0),
            Err(e) if e == bad && fault == Fault::AnyCookie => Ok(1),
            Err(e) if e == bad && fault == Fault::WrongCode => Err(FsError::Posix(libc::EINVAL)),
            other => other,
        }
    }
    fn read(&self, item: &Item, offset: i64, buf: &mut [u8]) -> FsResult<usize> {
        match self.fault {
            Fault::ReadsTooMuch => Ok(buf.len() + 1),
            Fault::ShortReads => Ok(self.inner.read(item, offset, buf)?.saturating_sub(1)),
            _ => self.inner.read(item, offset, buf),
        }
    }
    fn write(&self, data: &[u8], item: &Item, offset: i64) -> FsResult<usize> {
        self.inner.write(data, item, offset)
    }
    fn get_xattr(&self, name: &[u8], item: &Item) -> FsResult<Vec<u8>> {
        self.inner.get_xattr(name, item)
    }
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, item: &Item, policy: SetXattrPolicy) -> FsResult<()> {
        self.inner.set_xattr(name, value, item, policy)
    }
    fn list_xattrs(&self, item: &Item) -> FsResult<Vec<Vec<u8>>> {
        self.inner.list_xattrs(item)
    }
    fn seek(&self, item: &Item, offset: i64, region: SeekRegion) -> FsResult<i64> {
        self.inner.seek(item, offset, region)
    }
    fn check_access(&self, item: &Item, want: u32, context: Context) -> FsResult<bool> {
        self.inner.check_access(item, want, context)
    }
    fn look(&self, name: &[u8], dir: &Item) -> FsResult<Looked<Item>> {
        let (item, name) = self.lookup(name, dir)?;
        let mut attributes = self.get_attributes(if self.fault == Fault::ResultOfAnother { dir } else { &item })?;
        if self.fault == Fault::HollowResult {
            attributes.change_time = None;
        }
        Ok(Looked { item, name, attributes })
    }
    fn may(&self, item: &Item, mask: u64, who: Context) -> FsResult<bool> {
        if self.fault == Fault::AllowsEverybody { Ok(true) } else { self.inner.may(item, mask, who) }
    }
    fn live_items(&self) -> usize {
        self.inner.live_items()
    }
}

/// A device with a label of the in-memory pool.
struct Disk;

impl BlockDevice for Disk {
    fn name(&self) -> String {
        "disk4".into()
    }
    fn size(&self) -> u64 {
        64 << 20
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
        use zfs_phys::nvlist::{NvList, NvValue};
        buf.fill(0);
        // The first label cannot be read; any of the others will do.
        if offset < 256 << 10 {
            return Err(FsError::Posix(libc::EIO));
        }
        let mut config = NvList::new();
        config.set("version", NvValue::Uint64(5000));
        config.set("name", NvValue::String("mem".into()));
        config.set("state", NvValue::Uint64(0));
        config.set("pool_guid", NvValue::Uint64(0x1111_2222_3333_4444));
        let xdr = config.encode_xdr();
        buf[..xdr.len()].copy_from_slice(&xdr);
        Ok(buf.len())
    }
}

struct Scene {
    dir: tempfile::TempDir,
    memory: Arc<Memory>,
    server: uzfs_fsproto::Server,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::default());
    let server = memory::serve(&memory, dir.path()).unwrap();
    Scene { dir, memory, server }
}

impl Scene {
    fn ticket(&self) -> PathBuf {
        self.dir.path().join("volume.uzfs")
    }
    fn drive(&self, fault: Fault, system: System, resource: Resource) -> Fskitd<Broken> {
        let host = StandIn::new(system, vec![self.dir.path().join("daemon.uzfs")]);
        let inner = Module::new(host.clone());
        let module = Broken { inner, host: host.clone(), fault, count: AtomicU64::new(0) };
        Fskitd::new(module, host, resource).with_patience(Duration::from_millis(800))
    }
}

/// A whole life with everything looked at on the way.
fn live(f: &Fskitd<Broken>) -> Result<(), Problem> {
    f.bring_up()?;
    let root = f.audit(ROOT_ID)?;
    assert_eq!((root.entries, root.files), (4, 2));
    let dir = f.lookup(ROOT_ID, b"dir")?.file_id.unwrap();
    assert_eq!(f.audit(dir)?.files, 100);
    f.take_down()
}

fn block() -> Resource {
    Resource::Block(Arc::new(Disk))
}

#[test]
fn the_module_keeps_every_rule_on_every_system() {
    for system in [System::V15, System::V26, System::V27] {
        let s = scene();
        live(&s.drive(Fault::None, system, Resource::Path(s.ticket()))).unwrap();
        live(&s.drive(Fault::None, system, block())).unwrap();
    }
}

#[test]
fn each_broken_module_is_caught_by_its_rule() {
    use Fault as F;
    let cases = [
        (F::NewContainerEveryProbe, Rule::StableContainer, 4503),
        (F::UnequalIdentifiers, Rule::EqualIdentifiers, 4503),
        (F::NotReadyAtLoad, Rule::ContainerReady, libc::EAGAIN),
        (F::ActiveAtLoad, Rule::ContainerReady, libc::EAGAIN),
        (F::ReadyAfterFailedLoad, Rule::ContainerReady, libc::EAGAIN),
        (F::EarlyCompletion, Rule::TaskStartsFirst, 27503),
        (F::NoCompletion, Rule::TaskCompletes, libc::ETIMEDOUT),
        (F::CheckFails, Rule::CheckPasses, 4502),
        (F::RootIsItsObjectNumber, Rule::RootItem, libc::EFAULT),
        (F::NoBirthTime, Rule::CompleteAttributes, libc::EFAULT),
        (F::NoTimesInListings, Rule::CompleteAttributes, libc::EFAULT),
        (F::MovingTimes, Rule::StableTimes, libc::EFAULT),
        (F::NewItemEveryLookup, Rule::OneItem, libc::EFAULT),
        (F::SameNumberTwice, Rule::UniqueIds, libc::EFAULT),
        (F::ReclaimIgnored, Rule::BalancedReclaims, libc::EBUSY),
        (F::ReclaimRefused, Rule::BalancedReclaims, libc::EBUSY),
        (F::ZeroVerifier, Rule::Verifier, libc::EFAULT),
        (F::AnyCookie, Rule::BadCookie, 4506),
        (F::WrongCode, Rule::BadCookie, 4506),
        (F::LostEntries, Rule::Cookies, libc::EFAULT),
        (F::PushesFullPacker, Rule::FullPacker, libc::EFAULT),
        (F::DotsWithAttributes, Rule::DotEntries, libc::EFAULT),
        (F::NoDots, Rule::DotEntries, libc::EFAULT),
        (F::NoAttributesInListing, Rule::EntryAttributes, libc::EFAULT),
        (F::NoName, Rule::StoredName, libc::EFAULT),
        (F::NoFileSize, Rule::PathConf, libc::EFAULT),
        (F::OtherTypeName, Rule::TypeName, 4503),
        (F::ReadsTooMuch, Rule::Reads, libc::EFAULT),
        (F::ShortReads, Rule::Reads, libc::EFAULT),
        (F::SetsAnything, Rule::Consumed, libc::EFAULT),
        (F::ConsumesNothing, Rule::Consumed, libc::EFAULT),
        (F::MakesPipes, Rule::Creatable, libc::EFAULT),
        (F::TakesUrls, Rule::NoUrls, 4503),
        (F::Hangs, Rule::Answers, libc::ETIMEDOUT),
        (F::ReadyAfterUnload, Rule::ContainerReady, libc::EAGAIN),
        (F::HollowResult, Rule::ResultAttributes, libc::EFAULT),
        (F::ResultOfAnother, Rule::ResultAttributes, libc::EFAULT),
        (F::AllowsEverybody, Rule::AccessChecks, libc::EFAULT),
    ];
    for (fault, rule, code) in cases {
        let s = scene();
        let problem = live(&s.drive(fault, System::V27, block())).expect_err(&format!("{fault:?} was not noticed"));
        let number = match problem.error {
            FsError::Posix(n) => n,
            FsError::FsKit(c) => c as i32,
        };
        assert_eq!((problem.rule, number), (Some(rule), code), "{fault:?}: {problem}");
    }
}

#[test]
fn calls_out_of_turn_are_refused() {
    let s = scene();
    let f = s.drive(Fault::None, System::V26, block());
    let order = |r: Result<(), Problem>| assert_eq!(r.unwrap_err().rule, Some(Rule::Order));
    order(f.load());
    order(f.mount());
    order(f.unload());
    f.probe().unwrap();
    order(f.activate());
    f.load().unwrap();
    // A device is not mounted before its check passed.
    order(f.activate());
    order(f.lookup(ROOT_ID, b"dir").map(drop));
    f.check().unwrap();
    order(f.mount());
    f.activate().unwrap();
    order(f.unload());
    f.mount().unwrap();
    order(f.deactivate());
    order(f.probe().map(drop));
    f.take_down().unwrap();
    order(f.attributes(ROOT_ID).map(drop));
    assert_eq!(f.phase(), Phase::Unloaded);
}

#[test]
fn identifiers_are_those_of_the_guids() {
    let s = scene();
    let by_path = s.drive(Fault::None, System::V26, Resource::Path(s.ticket())).probe().unwrap();
    assert_eq!(by_path.container, *b"\x11\x11\x22\x22\x33\x33\x44\x44\x55\x55\x66\x66\x77\x77\x88\x88");
    assert_eq!((by_path.result, by_path.name.as_str()), (Match::UsableButLimited, "mem/ory"));
    let by_device = s.drive(Fault::None, System::V26, block()).probe().unwrap();
    assert_eq!(by_device.container[..8], by_path.container[..8]);
    assert_eq!((by_device.result, by_device.name.as_str()), (Match::Usable, "mem"));
}

#[test]
fn what_is_no_resource_is_not_recognized() {
    let s = scene();
    let other = s.dir.path().join("other.txt");
    std::fs::write(&other, "uzfs-volume 2\n").unwrap();
    for resource in
        [Resource::Path(other), Resource::Path(s.dir.path().join("daemon.uzfs")), Resource::Url("x:".into())]
    {
        let problem = s.drive(Fault::None, System::V26, resource).probe().unwrap_err();
        assert_eq!(problem.error, FsError::FsKit(FsKitCode::ResourceUnrecognized));
    }
    let gone = s.drive(Fault::None, System::V26, Resource::Path("/nonexistent".into())).probe().unwrap_err();
    assert_eq!((gone.rule, gone.error), (None, FsError::Posix(libc::ENOENT)));
}

#[test]
fn a_dataset_without_its_key_is_blocked() {
    let s = scene();
    s.memory.locked.store(true, Ordering::SeqCst);
    let host = StandIn::new(System::V26, Vec::new());
    let f = Fskitd::new(Module::new(host.clone()), host.clone(), Resource::Path(s.ticket()));
    f.probe().unwrap();
    let problem = f.load().unwrap_err();
    assert_eq!((problem.rule, problem.error), (None, FsError::from(uzfs_fsproto::Code::KeyNeeded)));
    assert_eq!(host.status().state, ContainerState::Blocked);
    // With the key it loads; nothing has to be undone first.
    s.memory.locked.store(false, Ordering::SeqCst);
    f.load().unwrap();
    assert_eq!(host.status().state, ContainerState::Ready);
}

#[test]
fn a_ticket_of_another_time_is_not_used() {
    let s = scene();
    let text = std::fs::read_to_string(s.ticket()).unwrap();
    std::fs::write(s.ticket(), text.replace("5555666677778888", "5555666677778889")).unwrap();
    let f = s.drive(Fault::None, System::V26, Resource::Path(s.ticket()));
    f.probe().unwrap();
    assert_eq!(f.load().unwrap_err().error, FsError::FsKit(FsKitCode::ResourceUnusable));
}

#[test]
fn everything_fails_when_the_daemon_is_gone_and_unmounting_still_works() {
    let s = scene();
    let f = s.drive(Fault::None, System::V27, Resource::Path(s.ticket()));
    f.bring_up().unwrap();
    let file = f.lookup(ROOT_ID, b"file.txt").unwrap().file_id.unwrap();
    let mut buf = [0; 64];
    assert_eq!(f.read(file, 0, &mut buf).unwrap(), HELLO.len());
    s.server.disconnect(&memory::TOKEN);
    let begun = std::time::Instant::now();
    assert_eq!(f.read(file, 0, &mut buf).unwrap_err().error, FsError::Posix(libc::EIO));
    assert_eq!(f.attributes(ROOT_ID).unwrap_err().error, FsError::Posix(libc::EIO));
    f.take_down().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn changes_behind_the_kernel_reach_it() {
    let s = scene();
    let host = StandIn::new(System::V27, Vec::new());
    let f = Fskitd::new(Module::new(host.clone()), host.clone(), Resource::Path(s.ticket()));
    f.bring_up().unwrap();
    f.lookup(ROOT_ID, b"dir").unwrap();
    let wait = |what: &dyn Fn() -> bool| {
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while !what() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait(&|| s.server.notify(&memory::TOKEN, &uzfs_fsproto::Notice { node: 40 }) == 1);
    s.server.notify(&memory::TOKEN, &uzfs_fsproto::Notice { node: 999 });
    s.server.notify(&memory::TOKEN, &uzfs_fsproto::Notice { node: 0 });
    wait(&|| host.forgotten().len() >= 2);
    // Files that the kernel does not know need not be forgotten.
    assert_eq!(host.forgotten(), [vec![40], vec![memory::ROOT, 40]]);
    f.take_down().unwrap();
}

#[test]
fn writing_is_refused_with_the_systems_own_error() {
    let s = scene();
    let f = s.drive(Fault::None, System::V26, Resource::Path(s.ticket()));
    f.bring_up().unwrap();
    for kind in [ItemType::File, ItemType::Directory] {
        let refused =
            f.create((ROOT_ID, b"new"), kind, &Wanted { mode: Some(0o644), ..Wanted::default() }).unwrap_err();
        assert_eq!((refused.rule, refused.error), (None, FsError::Posix(libc::EROFS)));
    }
    assert!(f.is_readonly().unwrap());
    f.take_down().unwrap();
}
