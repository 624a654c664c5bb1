//! POSIX semantics over an object set: files, directories, attributes, and the one [`Vfs`] API that front ends adapt.
//!
//! Purpose: turn the objects of a dataset into what `stat`, `readdir` and `read` show, exactly as OpenZFS on Linux
//! shows it. A [`Zfs`] is one dataset or snapshot; a [`Vfs`] is what a mount serves: a dataset with its `.zfs`.
//!
//! Life cycle: [`Zfs::mount`] reads the master node once; files are decoded on first use ([`znode`]) and kept in a
//! bounded cache. A read-only dataset does not change under a mount; a writable one ([`write`]) takes what it changed
//! out of the cache.
//!
//! Absent on purpose: dataset names and properties (the caller passes what matters in [`MountOptions`]), error
//! numbers and wire formats (front ends), caching of file data (the ARC below, the kernel's page cache above).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod acl;
pub mod attr;
mod cache;
mod quota;
mod statfs;
mod vfs;
mod vfs_write;
pub mod write;
mod xattr;
mod zfs;
pub mod znode;

pub use attr::{AclType, Atime, Attr, AttrMask, CaseMode, DirEntry, FileKind, MountOptions, NodeId, Time};
pub use statfs::{SpaceFigures, Statfs};
pub use vfs::{
    CTL_NAME, ControlDir, EnterHook, Fid, INO_CTL_ROOT, INO_SNAPDIR, INO_SNAPDIRS, ListSnapshots, OpenFile,
    OpenSnapshot, SnapshotEntry, Vfs,
};
pub use write::{Allocate, NewFile, RenameFlags, SetAttr, XattrMode};
pub use zfs::{CaseSensitivity, Slice, StoredEntry, Zfs};
pub use zfs_dmu::Seek;
