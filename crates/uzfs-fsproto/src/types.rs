//! What messages are made of: attributes, entries, figures.

use crate::wire::{Bytes, Field, Frame, List, Malformed, Reader, record};

/// Secret of a mount.
pub type Token = [u8; 32];

/// Type bits of a mode, as everywhere on Unix.
pub const S_IFMT: u32 = 0o170_000;

record! {
    /// A point in time since 1970.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    Time {
        /// Seconds; negative before 1970.
        sec: i64,
        /// Nanoseconds below one second.
        nsec: u32,
    }
}

record! {
    /// Attributes of a file, as `Vfs` has them.
    Attr {
        /// Number to ask for the file by.
        node: u64,
        /// Number to show.
        ino: u64,
        /// Tells apart files that had the same number.
        generation: u32,
        /// Type and permissions.
        mode: u32,
        /// Hard links.
        nlink: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Major number of a device node.
        rdev_major: u32,
        /// Minor number of a device node.
        rdev_minor: u32,
        /// Bytes.
        size: u64,
        /// Units of 512 bytes taken.
        blocks: u64,
        /// Best size of I/O, bytes.
        blksize: u32,
        /// [`attr_valid`]: which of the optional fields are real.
        valid: u32,
        /// Last access.
        atime: Time,
        /// Last change of contents.
        mtime: Time,
        /// Last change of attributes.
        ctime: Time,
        /// Creation.
        btime: Time,
        /// ZFS's flags: immutable, append-only and others.
        flags: u64,
        /// Project.
        projid: u64,
    }
}

/// Bits of [`Attr::valid`].
pub mod attr_valid {
    /// The time of creation.
    pub const BTIME: u32 = 1;
    /// The project.
    pub const PROJID: u32 = 2;
    /// The device numbers.
    pub const RDEV: u32 = 4;
}

record! {
    /// Attributes to set; those whose bit of [`set`] is not in `mask` are zero and mean nothing.
    SetAttrs {
        /// Which.
        mask: u32,
        /// Permissions (and type, when a file is made).
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Bytes.
        size: u64,
        /// Last access.
        atime: Time,
        /// Last change of contents.
        mtime: Time,
        /// Last change of attributes.
        ctime: Time,
        /// Creation.
        btime: Time,
        /// ZFS's flags.
        flags: u64,
    }
}

/// Bits of [`SetAttrs::mask`].
pub mod set {
    /// Permissions.
    pub const MODE: u32 = 1;
    /// Owner.
    pub const UID: u32 = 2;
    /// Group.
    pub const GID: u32 = 4;
    /// Size.
    pub const SIZE: u32 = 8;
    /// Last access.
    pub const ATIME: u32 = 16;
    /// Last change of contents.
    pub const MTIME: u32 = 32;
    /// Last change of attributes.
    pub const CTIME: u32 = 64;
    /// Creation.
    pub const BTIME: u32 = 128;
    /// Flags.
    pub const FLAGS: u32 = 256;
}

record! {
    /// A file by name.
    Entry {
        /// Its attributes.
        attr: Attr,
        /// Its name as the directory stores it.
        name: Bytes,
    }
}

record! {
    /// An entry of a listing.
    Listed {
        /// Number to ask for the file by.
        node: u64,
        /// Number to show.
        ino: u64,
        /// Type bits of the mode shifted right by 12; 0 if the directory does not tell.
        kind: u8,
        /// Where reading continues behind this entry. Never 0.
        next: u64,
        /// The name.
        name: Bytes,
        /// Its attributes, if they were asked for and could be read.
        attr: Option<Attr>,
    }
}

record! {
    /// A part of a directory.
    Listing {
        /// Changes when cookies become invalid. Never 0.
        verifier: u64,
        /// Nothing follows.
        end: bool,
        /// Entries in the directory's order.
        entries: List<Listed>,
    }
}

record! {
    /// Space of a file system.
    Statfs {
        /// Unit of the block counts, bytes.
        bsize: u32,
        /// Blocks in all.
        blocks: u64,
        /// Free blocks.
        bfree: u64,
        /// Files that exist or could.
        files: u64,
        /// Files that could be made.
        ffree: u64,
        /// Longest name, bytes.
        namelen: u32,
        /// Id of the file system.
        fsid: u64,
    }
}

record! {
    /// What was set.
    SetDone {
        /// The attributes now.
        attr: Attr,
        /// Bits of [`set`] that were used.
        consumed: u32,
    }
}

record! {
    /// A file's name across restarts.
    Fid {
        /// Snapshot's objset; 0 for the mounted dataset.
        objset: u64,
        /// Object number.
        object: u64,
        /// Generation; 0 for `.zfs` and below.
        generation: u32,
    }
}

record! {
    /// What a mount is of.
    VolumeInfo {
        /// Guid of the pool.
        pool_guid: u64,
        /// Guid of the dataset or snapshot.
        dataset_guid: u64,
        /// Number of the root directory.
        root: u64,
        /// Bits of [`volume`].
        flags: u32,
        /// Name of the dataset.
        name: Bytes,
    }
}

/// Bits of [`VolumeInfo::flags`].
pub mod volume {
    /// Nothing can be changed.
    pub const READONLY: u32 = 1;
    /// Names that differ in case are the same.
    pub const CASE_INSENSITIVE: u32 = 2;
    /// Names differ in case but can be asked for without regard to it.
    pub const CASE_MIXED: u32 = 4;
    /// A snapshot.
    pub const SNAPSHOT: u32 = 8;
    /// Names can be longer than 255 bytes.
    pub const LONG_NAMES: u32 = 16;
}

record! {
    /// Answer to a greeting.
    Welcome {
        /// Version of the protocol from now on.
        version: u16,
        /// What the token stands for.
        volume: VolumeInfo,
    }
}

record! {
    /// A mount made for a pool that a device belongs to.
    Claimed {
        /// To be shown in a greeting.
        token: Token,
        /// What it stands for.
        volume: VolumeInfo,
    }
}

macro_rules! words {
    ($(#[$m:meta])* $name:ident { $( $(#[$d:meta])* $v:ident = $n:literal ),* $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name { $( $(#[$d])* $v = $n ),* }

        impl Field for $name {
            fn put(self, out: &mut Frame) {
                (self as u8).put(out);
            }
            fn take(r: &mut Reader) -> Result<Self, Malformed> {
                match r.u8()? { $( $n => Ok(Self::$v), )* _ => Err(Malformed) }
            }
        }
    };
}

words! {
    /// How long a caller of `sync` waits.
    SyncMode {
        /// Until everything is on stable storage.
        #[default]
        Wait = 1,
        /// Not at all.
        NoWait = 2,
        /// Until everything is on stable storage and the transaction group is closed.
        Durable = 3,
    }
}

words! {
    /// When an extended attribute may be set.
    XattrPolicy {
        /// Whether it exists or not.
        #[default]
        Always = 0,
        /// Only a new one.
        Create = 1,
        /// Only one that exists.
        Replace = 2,
    }
}

words! {
    /// What to look for in a file.
    SeekTo {
        /// Data.
        #[default]
        Data = 0,
        /// A hole.
        Hole = 1,
    }
}
