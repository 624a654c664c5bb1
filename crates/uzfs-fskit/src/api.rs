//! FSKit's shapes without Objective-C: what a module is asked, and what it is given.
//!
//! Names and meanings are those of FSKit in macOS 15.4 and 26 (`FSUnaryFileSystemOperations`, `FSVolumeOperations` and
//! the optional protocols beside it) so that the classes on macOS are one line a method. Replies are return values: the
//! classes put a method on a thread of its own where FSKit wants the answer later.

use crate::handlers;
use std::path::PathBuf;
use std::sync::Arc;

/// The name by which `mount -t` finds the module; also the type that `statfs` shows.
pub const SHORT_NAME: &str = "zfs";

/// Codes of `FSKitErrorDomain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKitCode {
    /// The module failed to load.
    ModuleLoadFailed = 4500,
    /// Nobody recognizes the resource.
    ResourceUnrecognized = 4501,
    /// The resource is damaged.
    ResourceDamaged = 4502,
    /// The resource is recognized and cannot be used.
    ResourceUnusable = 4503,
    /// An operation is in progress.
    StatusOperationInProgress = 4504,
    /// An operation is paused.
    StatusOperationPaused = 4505,
    /// The cookie resolves to no directory entry.
    InvalidDirectoryCookie = 4506,
    /// A task completed before it started.
    TaskNotStarted = 27503,
}

/// An error: of the operating system, or of FSKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsError {
    /// `NSPOSIXErrorDomain`.
    Posix(i32),
    /// `FSKitErrorDomain`.
    FsKit(FsKitCode),
}

impl std::fmt::Display for FsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Posix(n) => write!(f, "{}", std::io::Error::from_raw_os_error(*n)),
            Self::FsKit(c) => write!(f, "FSKitErrorDomain {} ({c:?})", *c as i32),
        }
    }
}

impl std::error::Error for FsError {}

impl From<uzfs_fsproto::Code> for FsError {
    fn from(code: uzfs_fsproto::Code) -> Self {
        Self::Posix(code.errno())
    }
}

/// Result of an operation.
pub type FsResult<T> = Result<T, FsError>;

/// `FSMatchResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Not ours.
    NotRecognized,
    /// Ours, and cannot be used.
    Recognized,
    /// Can be read.
    UsableButLimited,
    /// Can be used.
    Usable,
}

/// `FSProbeResult`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// How well it fits.
    pub result: Match,
    /// Name to show.
    pub name: String,
    /// Identifier of the container.
    pub container: [u8; 16],
}

/// `FSContainerState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Nothing is loaded.
    NotReady,
    /// Something is missing, such as a key.
    Blocked,
    /// A volume can be activated.
    Ready,
    /// A volume is active.
    Active,
}

/// `FSContainerStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerStatus {
    /// The state.
    pub state: ContainerState,
    /// Why.
    pub status: Option<FsError>,
}

/// A device that FSKit hands over.
pub trait BlockDevice: Send + Sync {
    /// Its name, such as `disk4`.
    fn name(&self) -> String;
    /// Bytes.
    fn size(&self) -> u64;
    /// Reads at an offset that is a multiple of the block size.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> FsResult<usize>;
}

/// `FSResource`.
#[derive(Clone)]
pub enum Resource {
    /// `FSBlockDeviceResource`.
    Block(Arc<dyn BlockDevice>),
    /// `FSPathURLResource`.
    Path(PathBuf),
    /// `FSGenericURLResource`, which is not supported: one of its URLs brought `fskitd` down.
    Url(String),
}

/// `FSTask`: something that goes on after the method that started it returned.
pub trait Task: Send + Sync {
    /// A line for whoever watches.
    fn log(&self, line: &str);
    /// The task is done.
    fn complete(&self, result: FsResult<()>);
}

/// Release of macOS, as far as behaviour depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// macOS 15.4 to 15.x.
    V15,
    /// macOS 26.
    V26,
    /// macOS 27: handlers, seek regions, cache invalidation.
    V27,
}

/// How extended attributes are named above the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrNames {
    /// macOS: `NAME` is Linux's `user.NAME`; what Linux keeps for root and for itself is not shown.
    Mac,
    /// Linux's names as they are, for the stand-in.
    Linux,
}

/// Stands for a file in an item object: which file, and which of the objects made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ItemKey {
    /// The file.
    pub node: u64,
    /// Tells apart objects made for the same file at different times.
    pub serial: u64,
}

/// Whoever drives the module.
pub trait Host: Send + Sync + 'static {
    /// The object that FSKit holds for a file (`FSItem`).
    type Item: Clone + Send + Sync;

    /// Makes an item object.
    fn new_item(&self, key: ItemKey) -> Self::Item;
    /// The key that an item was made with; nothing for items of somebody else.
    fn key_of(&self, item: &Self::Item) -> Option<ItemKey>;
    /// Sets `containerStatus`.
    fn set_container_status(&self, status: ContainerStatus);
    /// Runs something after the current method returned.
    fn later(&self, what: Box<dyn FnOnce() + Send>);
    /// Tickets of daemons in the container that extension and daemon share.
    fn daemon_tickets(&self) -> Vec<Vec<u8>>;
    /// The release that is running.
    fn system(&self) -> System;
    /// How extended attributes are named.
    fn xattr_names(&self) -> XattrNames;
    /// All groups of a caller, his own among them.
    fn groups(&self, context: Context) -> Vec<u32>;
    /// Makes the kernel forget what it caches of files (`setCacheState`, from macOS 27 on).
    fn forget_cached(&self, items: &[Self::Item]);
    /// A line for the log.
    fn log(&self, line: &str);
}

/// `FSItemType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemType {
    /// Not known.
    Unknown = 0,
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Character device.
    CharDevice = 5,
    /// Block device.
    BlockDevice = 6,
    /// Socket.
    Socket = 7,
}

/// `FSItemIDRootDirectory`.
pub const ROOT_ID: u64 = 2;
/// `FSItemIDParentOfRoot`.
pub const PARENT_OF_ROOT_ID: u64 = 1;

/// A point in time (`struct timespec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeSpec {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds.
    pub nsec: i64,
}

/// `FSItemAttributes`: what is none was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemAttributes {
    /// Type.
    pub kind: Option<ItemType>,
    /// Permissions and type bits.
    pub mode: Option<u32>,
    /// Hard links.
    pub link_count: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// BSD flags.
    pub flags: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Bytes taken.
    pub alloc_size: Option<u64>,
    /// Number of the file.
    pub file_id: Option<u64>,
    /// Number of its directory.
    pub parent_id: Option<u64>,
    /// Last access.
    pub access_time: Option<TimeSpec>,
    /// Last change of contents.
    pub modify_time: Option<TimeSpec>,
    /// Last change of attributes.
    pub change_time: Option<TimeSpec>,
    /// Creation.
    pub birth_time: Option<TimeSpec>,
}

impl ItemAttributes {
    /// Names of what FSKit demands and is not set.
    pub fn missing(&self) -> Vec<&'static str> {
        [
            ("type", self.kind.is_none()),
            ("mode", self.mode.is_none()),
            ("linkCount", self.link_count.is_none()),
            ("uid", self.uid.is_none()),
            ("gid", self.gid.is_none()),
            ("flags", self.flags.is_none()),
            ("size", self.size.is_none()),
            ("allocSize", self.alloc_size.is_none()),
            ("fileID", self.file_id.is_none()),
            ("parentID", self.parent_id.is_none()),
            ("accessTime", self.access_time.is_none()),
            ("modifyTime", self.modify_time.is_none()),
            ("changeTime", self.change_time.is_none()),
            ("birthTime", self.birth_time.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect()
    }
}

/// `FSItemSetAttributesRequest`: what is to be set; FSKit looks afterwards at what was consumed.
#[derive(Debug, Clone, Default)]
pub struct SetAttributes {
    /// What to set.
    pub wanted: ItemAttributes,
    /// Bits of `FSItemAttribute` that were used.
    pub consumed: u64,
}

/// Bits of `FSItemAttribute`.
pub mod attribute {
    /// `FSItemAttributeMode`.
    pub const MODE: u64 = 1 << 1;
    /// `FSItemAttributeLinkCount`.
    pub const LINK_COUNT: u64 = 1 << 2;
    /// `FSItemAttributeUID`.
    pub const UID: u64 = 1 << 3;
    /// `FSItemAttributeGID`.
    pub const GID: u64 = 1 << 4;
    /// `FSItemAttributeFlags`.
    pub const FLAGS: u64 = 1 << 5;
    /// `FSItemAttributeSize`.
    pub const SIZE: u64 = 1 << 6;
    /// `FSItemAttributeAllocSize`.
    pub const ALLOC_SIZE: u64 = 1 << 7;
    /// `FSItemAttributeFileID`.
    pub const FILE_ID: u64 = 1 << 8;
    /// `FSItemAttributeParentID`.
    pub const PARENT_ID: u64 = 1 << 9;
    /// `FSItemAttributeAccessTime`.
    pub const ACCESS_TIME: u64 = 1 << 10;
    /// `FSItemAttributeModifyTime`.
    pub const MODIFY_TIME: u64 = 1 << 11;
    /// `FSItemAttributeChangeTime`.
    pub const CHANGE_TIME: u64 = 1 << 12;
    /// `FSItemAttributeBirthTime`.
    pub const BIRTH_TIME: u64 = 1 << 13;
}

/// `FSVolumeCaseFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseFormat {
    /// Case matters.
    Sensitive = 0,
    /// Case does not matter and is kept.
    InsensitivePreserving = 2,
}

/// `FSVolumeSupportedCapabilities`, those that are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Case of names.
    pub case: CaseFormat,
    /// Hard links.
    pub hard_links: bool,
    /// Symbolic links.
    pub symbolic_links: bool,
    /// Numbers of files stay.
    pub persistent_ids: bool,
    /// They have 64 bits.
    pub wide_ids: bool,
    /// Files with holes.
    pub sparse_files: bool,
    /// Files of 2 TB and more.
    pub large_files: bool,
    /// Space is shared with other volumes.
    pub shared_space: bool,
    /// `statfs` is quick.
    pub fast_statfs: bool,
}

/// `FSVolumePathConfOperations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathConf {
    /// Most links; -1 for no limit.
    pub max_links: i64,
    /// Longest name, bytes.
    pub max_name: i64,
    /// Only root may give files away.
    pub restricts_ownership: bool,
    /// Long names are cut.
    pub truncates_names: bool,
    /// Bits of a file's size; one of this and the largest size itself is required.
    pub file_size_bits: Option<i64>,
    /// Bits of an attribute's size; likewise.
    pub xattr_size_bits: Option<i64>,
}

/// `FSStatFSResult`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Must be the module's short name.
    pub type_name: String,
    /// Bytes of a block.
    pub block_size: u64,
    /// Best size of I/O.
    pub io_size: u64,
    /// Blocks in all.
    pub total_blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Files in all.
    pub total_files: u64,
    /// Files that can be made.
    pub free_files: u64,
}

/// `FSSyncFlags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFlags {
    /// Until everything is on stable storage.
    Wait = 1,
    /// Without waiting.
    NoWait = 2,
    /// Until everything is on stable storage and nothing is in flight.
    DWait = 4,
}

/// `FSSetXattrPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetXattrPolicy {
    /// Whether it exists or not.
    Always = 0,
    /// Only a new one.
    MustCreate = 1,
    /// Only one that exists.
    MustReplace = 2,
    /// Take it away.
    Delete = 3,
}

/// `FSSeekRegion` (macOS 27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekRegion {
    /// A hole.
    Hole = 1,
    /// Data.
    Data = 2,
}

/// `FSContext` (macOS 27): on whose behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// `FSAccessMask`. For directories, some bits have other names.
pub mod access {
    /// Read a file, list a directory.
    pub const READ_DATA: u64 = 1 << 1;
    /// Write a file, add a file.
    pub const WRITE_DATA: u64 = 1 << 2;
    /// Execute a file, search a directory.
    pub const EXECUTE: u64 = 1 << 3;
    /// Delete it.
    pub const DELETE: u64 = 1 << 4;
    /// Append to a file, add a directory.
    pub const APPEND_DATA: u64 = 1 << 5;
    /// Delete what is in a directory.
    pub const DELETE_CHILD: u64 = 1 << 6;
    /// Read attributes.
    pub const READ_ATTRIBUTES: u64 = 1 << 7;
    /// Change attributes such as times.
    pub const WRITE_ATTRIBUTES: u64 = 1 << 8;
    /// Read extended attributes.
    pub const READ_XATTR: u64 = 1 << 9;
    /// Change extended attributes.
    pub const WRITE_XATTR: u64 = 1 << 10;
    /// Read the mode and the ACL.
    pub const READ_SECURITY: u64 = 1 << 11;
    /// Change the mode and the ACL.
    pub const WRITE_SECURITY: u64 = 1 << 12;
    /// Change the owner.
    pub const TAKE_OWNERSHIP: u64 = 1 << 13;
}

/// `FSLookupItemResult` (macOS 27).
#[derive(Debug, Clone)]
pub struct Looked<I> {
    /// The file.
    pub item: I,
    /// Its name as stored.
    pub name: Vec<u8>,
    /// Its attributes.
    pub attributes: ItemAttributes,
}

/// `FSCreateItemResult`, `FSCreateSymlinkResult` (macOS 27).
#[derive(Debug, Clone)]
pub struct Made<I> {
    /// The file.
    pub item: I,
    /// Its name as stored.
    pub name: Vec<u8>,
    /// Its attributes.
    pub attributes: ItemAttributes,
    /// Its directory's.
    pub directory: ItemAttributes,
}

/// `FSCreateLinkResult` (macOS 27).
#[derive(Debug, Clone)]
pub struct Linked {
    /// The new name as stored.
    pub name: Vec<u8>,
    /// Attributes of the file.
    pub attributes: ItemAttributes,
    /// Its new directory's.
    pub directory: ItemAttributes,
}

/// `FSRemoveItemResult` (macOS 27).
#[derive(Debug, Clone, Copy)]
pub struct Removed {
    /// Attributes of the file, which may have other names.
    pub attributes: ItemAttributes,
    /// Its directory's.
    pub directory: ItemAttributes,
}

/// `FSRenameItemResult` (macOS 27).
#[derive(Debug, Clone)]
pub struct Renamed {
    /// The new name as stored.
    pub name: Vec<u8>,
    /// Attributes of the file.
    pub attributes: ItemAttributes,
    /// Attributes of the directory it was in.
    pub from: ItemAttributes,
    /// Attributes of the directory it is in.
    pub to: ItemAttributes,
    /// Attributes of the file whose name it took.
    pub over: Option<ItemAttributes>,
}

/// An entry for `FSDirectoryEntryPacker`.
#[derive(Debug)]
pub struct PackedEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Its type.
    pub kind: ItemType,
    /// Number of the file.
    pub id: u64,
    /// Where to go on behind it.
    pub next_cookie: u64,
    /// Attributes, if they were asked for.
    pub attributes: Option<ItemAttributes>,
}

/// Takes entries; gives false when there is no more room.
pub type Packer<'a> = &'a mut dyn FnMut(&PackedEntry<'_>) -> bool;

/// `FSUnaryFileSystemOperations` and `FSManageableResourceMaintenanceOperations`.
pub trait UnaryFileSystem<H: Host>: Send + Sync {
    /// Says whether a resource is ours.
    fn probe(&self, resource: &Resource) -> FsResult<ProbeResult>;
    /// Makes the one volume of a resource.
    fn load(&self, resource: &Resource, options: &[String]) -> FsResult<Arc<dyn VolumeOperations<H>>>;
    /// Lets it go.
    fn unload(&self, resource: &Resource, options: &[String]) -> FsResult<()>;
    /// Begins to check a block device.
    fn start_check(&self, task: Arc<dyn Task>, options: &[String]) -> FsResult<()>;
    /// Begins to make a file system.
    fn start_format(&self, task: Arc<dyn Task>, options: &[String]) -> FsResult<()>;
}

/// `FSVolumeOperations` and the optional protocols that a volume here has.
pub trait VolumeOperations<H: Host>: Send + Sync {
    /// Identifier of the volume; equal to its container's.
    fn volume_id(&self) -> [u8; 16];
    /// Name to show.
    fn volume_name(&self) -> String;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// Limits.
    fn path_conf(&self) -> PathConf;
    /// Space.
    fn statistics(&self) -> Statistics;
    /// Nothing can be changed (`requestedMountOptions`, macOS 26.4).
    fn is_readonly(&self) -> bool;

    /// Gives the root.
    fn activate(&self, options: &[String]) -> FsResult<H::Item>;
    /// Ends what `activate` began; no I/O.
    fn deactivate(&self, force: bool) -> FsResult<()>;
    /// The volume is mounted.
    fn mount(&self, options: &[String]) -> FsResult<()>;
    /// The volume is no longer mounted. Cannot fail.
    fn unmount(&self);
    /// Puts everything on stable storage.
    fn synchronize(&self, flags: SyncFlags) -> FsResult<()>;

    /// Attributes of a file: always all of them.
    fn get_attributes(&self, item: &H::Item) -> FsResult<ItemAttributes>;
    /// Changes attributes and gives all of them.
    fn set_attributes(&self, request: &mut SetAttributes, item: &H::Item) -> FsResult<ItemAttributes>;
    /// Finds a name; gives the file and the name as it is stored.
    fn lookup(&self, name: &[u8], dir: &H::Item) -> FsResult<(H::Item, Vec<u8>)>;
    /// FSKit no longer knows an item.
    fn reclaim(&self, item: &H::Item) -> FsResult<()>;
    /// Target of a symbolic link.
    fn read_link(&self, item: &H::Item) -> FsResult<Vec<u8>>;
    /// Makes a file or directory; FSKit asks for nothing else.
    fn create(
        &self,
        name: &[u8],
        kind: ItemType,
        dir: &H::Item,
        attrs: &mut SetAttributes,
    ) -> FsResult<(H::Item, Vec<u8>)>;
    /// Makes a symbolic link.
    fn create_symlink(
        &self,
        name: &[u8],
        dir: &H::Item,
        attrs: &mut SetAttributes,
        target: &[u8],
    ) -> FsResult<(H::Item, Vec<u8>)>;
    /// Gives a file another name.
    fn create_link(&self, item: &H::Item, name: &[u8], dir: &H::Item) -> FsResult<Vec<u8>>;
    /// Takes a name away.
    fn remove(&self, item: &H::Item, name: &[u8], dir: &H::Item) -> FsResult<()>;
    /// Renames.
    fn rename(
        &self,
        item: &H::Item,
        from: (&H::Item, &[u8]),
        to: (&H::Item, &[u8]),
        over: Option<&H::Item>,
    ) -> FsResult<Vec<u8>>;
    /// Lists a directory; gives the verifier. `attributes` tells whether entries must have them.
    fn enumerate(
        &self,
        dir: &H::Item,
        cookie: u64,
        verifier: u64,
        attributes: bool,
        packer: Packer<'_>,
    ) -> FsResult<u64>;

    /// Reads; short only at the end.
    fn read(&self, item: &H::Item, offset: i64, buf: &mut [u8]) -> FsResult<usize>;
    /// Writes.
    fn write(&self, data: &[u8], item: &H::Item, offset: i64) -> FsResult<usize>;
    /// Value of an extended attribute.
    fn get_xattr(&self, name: &[u8], item: &H::Item) -> FsResult<Vec<u8>>;
    /// Sets or takes away an extended attribute.
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, item: &H::Item, policy: SetXattrPolicy) -> FsResult<()>;
    /// Names of extended attributes.
    fn list_xattrs(&self, item: &H::Item) -> FsResult<Vec<Vec<u8>>>;
    /// The next data or hole (macOS 27).
    fn seek(&self, item: &H::Item, offset: i64, region: SeekRegion) -> FsResult<i64>;
    /// Checks a caller (macOS 27 tells who); `want` is 4 read, 2 write, 1 execute.
    fn check_access(&self, item: &H::Item, want: u32, context: Context) -> FsResult<bool>;

    /// [`VolumeOperations::lookup`] for macOS 27, with attributes.
    fn look(&self, name: &[u8], dir: &H::Item) -> FsResult<Looked<H::Item>> {
        handlers::look(self, name, dir)
    }
    /// [`VolumeOperations::create`] for macOS 27: for a caller, and with attributes.
    fn make(
        &self,
        name: &[u8],
        kind: ItemType,
        dir: &H::Item,
        attrs: &mut SetAttributes,
        who: Context,
    ) -> FsResult<Made<H::Item>> {
        handlers::make(self, name, kind, dir, attrs, who)
    }
    /// [`VolumeOperations::create_symlink`] for macOS 27: for a caller, and with attributes.
    fn make_symlink(
        &self,
        name: &[u8],
        dir: &H::Item,
        attrs: &mut SetAttributes,
        target: &[u8],
        who: Context,
    ) -> FsResult<Made<H::Item>> {
        handlers::make_symlink(self, name, dir, attrs, target, who)
    }
    /// [`VolumeOperations::create_link`] for macOS 27, with attributes.
    fn make_link(&self, item: &H::Item, name: &[u8], dir: &H::Item) -> FsResult<Linked> {
        handlers::make_link(self, item, name, dir)
    }
    /// [`VolumeOperations::remove`] for macOS 27, with attributes.
    fn take_away(&self, item: &H::Item, name: &[u8], dir: &H::Item) -> FsResult<Removed> {
        handlers::take_away(self, item, name, dir)
    }
    /// [`VolumeOperations::rename`] for macOS 27, with attributes.
    fn move_to(
        &self,
        item: &H::Item,
        from: (&H::Item, &[u8]),
        to: (&H::Item, &[u8]),
        over: Option<&H::Item>,
    ) -> FsResult<Renamed> {
        handlers::move_to(self, item, from, to, over)
    }
    /// Whether a caller may do what `mask` says (bits of [`access`], macOS 27).
    fn may(&self, item: &H::Item, mask: u64, who: Context) -> FsResult<bool> {
        handlers::may(self, item, mask, who)
    }

    /// Items that FSKit knows and did not give back.
    fn live_items(&self) -> usize;
}
