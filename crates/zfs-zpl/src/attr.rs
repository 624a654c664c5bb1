//! What a file is: the attributes that every front end shows, and where a node lives.

use crate::statfs::SpaceFigures;
use std::sync::Arc;

/// A file of a mount: 16 bits of tree (0 the mounted dataset, others snapshots opened under `.zfs`) and 48 bits of
/// object number. It stays valid for the life of the mount, and for tree 0 across mounts: the object number is what
/// directories hold, and no more than 48 bits fit there either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    const OBJECT_BITS: u32 = 48;

    /// The node of `object` in `tree`.
    pub const fn new(tree: u16, object: u64) -> Self {
        Self(((tree as u64) << Self::OBJECT_BITS) | (object & ((1 << Self::OBJECT_BITS) - 1)))
    }

    /// The node that [`NodeId::raw`] gave.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// One number for the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Number of the tree.
    pub const fn tree(self) -> u16 {
        (self.0 >> Self::OBJECT_BITS) as u16
    }

    /// Object number.
    pub const fn object(self) -> u64 {
        self.0 & ((1 << Self::OBJECT_BITS) - 1)
    }
}

/// What kind of file it is (`S_IFMT` of the mode, shifted right by 12: also the `DT_*` of directory entries).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Directory.
    Directory,
    /// Block device.
    BlockDevice,
    /// Regular file.
    Regular,
    /// Symbolic link.
    Symlink,
    /// Socket.
    Socket,
}

impl FileKind {
    /// By the type bits of a mode.
    pub const fn of_mode(mode: u32) -> Option<Self> {
        Self::of_dirent((mode >> 12) as u8 & 0xf)
    }

    /// By the type in a directory entry; nothing when it is unknown or odd (doors, event ports).
    pub const fn of_dirent(dtype: u8) -> Option<Self> {
        Some(match dtype {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::Regular,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return None,
        })
    }

    /// The type in directory entries (`DT_*`).
    pub const fn dirent(self) -> u8 {
        match self {
            Self::Fifo => 1,
            Self::CharDevice => 2,
            Self::Directory => 4,
            Self::BlockDevice => 6,
            Self::Regular => 8,
            Self::Symlink => 10,
            Self::Socket => 12,
        }
    }
}

/// A point in time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub sec: i64,
    /// Nanoseconds, below one second.
    pub nsec: u32,
}

/// Which fields of [`Attr`] a file has besides those that every file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttrMask(pub u32);

impl AttrMask {
    /// The time of creation.
    pub const BTIME: Self = Self(1);
    /// The project id.
    pub const PROJID: Self = Self(2);
    /// The device number.
    pub const RDEV: Self = Self(4);

    /// Whether all of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A file's attributes, as `stat` shows them on Linux under OpenZFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Which optional fields are real.
    pub valid: AttrMask,
    /// Inode number: the object number, or what OpenZFS shows for a snapshot's root and for `.zfs`.
    pub ino: u64,
    /// Low half of the txg of creation: tells apart files that had the same number.
    pub generation: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes: major and minor.
    pub rdev: (u32, u32),
    /// Bytes; entries plus two for a directory.
    pub size: u64,
    /// Space taken, in units of 512 bytes, the dnode's own slots included.
    pub blocks: u64,
    /// Best I/O size, bytes: the file's own block size.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of contents.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// `ZFS_*` flags: immutable, append-only, DOS attributes (see `zfs_phys::znode`).
    pub flags: u64,
    /// Project id.
    pub projid: u64,
}

impl Attr {
    /// What kind of file it is; nothing for types that no Unix knows.
    pub const fn kind(&self) -> Option<FileKind> {
        FileKind::of_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Some(FileKind::Directory)
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name; never empty, without `/` and zero bytes.
    pub name: &'a [u8],
    /// The file.
    pub node: NodeId,
    /// Inode number as `stat` will show it.
    pub ino: u64,
    /// Its kind, if the entry tells.
    pub kind: Option<FileKind>,
    /// Cookie at which reading continues behind this entry. Never 0.
    pub next: u64,
}

/// How names of a directory are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaseMode {
    /// As the dataset's properties say.
    #[default]
    Dataset,
    /// Case does not matter (SMB on a dataset with `casesensitivity=mixed`).
    Ignore,
    /// Case matters, even where the dataset ignores it.
    Exact,
}

/// Which access control lists a dataset shows (its `acltype`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AclType {
    /// None.
    #[default]
    Off,
    /// POSIX lists, kept in extended attributes.
    Posix,
    /// NFSv4 lists: kept in the file's own attributes; Linux shows none.
    Nfs4,
}

/// When times of access are kept (`atime` and `relatime`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Atime {
    /// Never.
    #[default]
    Off,
    /// With every reading.
    On,
    /// When the file changed since, or a day has passed.
    Relative,
}

/// What the properties of a dataset say about its mount.
#[derive(Clone)]
pub struct MountOptions {
    /// Whether `.zfs` is listed in the root (`snapdir=visible`).
    pub snapdir_visible: bool,
    /// `acltype`.
    pub acltype: AclType,
    /// When times of access are kept.
    pub atime: Atime,
    /// Whether `user.` attributes exist (`xattr` is not `off`).
    pub xattr: bool,
    /// Whether attributes that are set are kept with the file (`xattr` is `sa`).
    pub xattr_sa: bool,
    /// `recordsize`, bytes: the unit of [`crate::Statfs`].
    pub recordsize: u32,
    /// Whether names can be longer than 255 bytes (`longname`).
    pub longname: bool,
    /// Whether the objset is a snapshot: its root then shows the inode number of its directory in `.zfs`.
    pub snapshot: bool,
    /// Tells the space figures of the dataset at this moment.
    pub space: Arc<dyn Fn() -> SpaceFigures + Send + Sync>,
    /// Slots of 512 bytes that new files get (`dnodesize`).
    pub dnode_slots: u8,
    /// Most files whose attributes are kept decoded.
    pub cached_files: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            snapdir_visible: false,
            acltype: AclType::Off,
            atime: Atime::Off,
            xattr: true,
            xattr_sa: true,
            recordsize: 128 << 10,
            longname: false,
            snapshot: false,
            space: Arc::new(SpaceFigures::default),
            dnode_slots: 1,
            cached_files: 16384,
        }
    }
}

impl std::fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountOptions")
            .field("snapdir_visible", &self.snapdir_visible)
            .field("acltype", &self.acltype)
            .field("xattr", &self.xattr)
            .field("recordsize", &self.recordsize)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}
