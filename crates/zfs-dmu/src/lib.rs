//! Transactional objects: object sets, dnodes, ZAP, system attributes, block pointer lists, space maps, intent log.
//!
//! Purpose: give the layers above objects with numbers, whose contents are addressed by byte or by name, out of the
//! blocks that [`zfs_zio::Zio`] reads. This crate knows no dataset names and no POSIX.
//!
//! Life cycle: an [`Objset`] is opened by the block pointer of its header. Opened read-only it never changes, because
//! that block is part of a synced txg; everything decoded from it may therefore be cached without invalidation. Opened
//! writable, its objects collect changes per txg, and [`Objset::sync`] writes those of one. [`Dnode`]s are handed out as
//! `Arc` and keep what they need of the object set alive (zio and key), not the object set itself.
//!
//! Locks of read-only object sets are leaves: no function holds one while it reads a block or calls out. Those of
//! writable ones are ordered: a ZAP's, then the allocation of objects, then an object's state, then the dirty list.
//!
//! Bytes of blocks are hostile even when their checksum matches: all decoding is done by `zfs-phys`, and walks here
//! are bounded by levels, table sizes or visited sets rather than by what the disk says.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod accounting;
mod ahead;
pub mod bpobj;
mod cache;
mod ctx;
pub mod dnode;
mod live;
mod liveset;
pub mod objset;
mod offset;
pub mod ordered;
pub mod owner;
pub mod policy;
mod prefetch;
pub mod sa;
pub mod spacemap;
mod sync;
pub mod traverse;
mod tree;
pub mod txg;
pub mod zap;
pub mod zil;

pub use accounting::{Accounting, FileInfo, FileInfoFn};
pub use ctx::Key;
pub use dnode::{Bonus, Dnode, PhysRef, Seek};
pub use live::TO_END;
pub use liveset::{INDIRECT_SHIFT, ObjectSpec};
pub use objset::Objset;
pub use owner::{BlockKind, LogPolicy, ObjsetOwner, Room, SyncMode};
pub use txg::{Tx, Txgs};
pub use zap::Zap;
pub use zfs_zio::{Buf, Error, ErrorKind, Result, Zbookmark, Zio};
