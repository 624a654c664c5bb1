//! Transactional objects: object sets, dnodes, ZAP, system attributes, block pointer lists, space maps, intent log.
//!
//! Purpose: give the layers above objects with numbers, whose contents are addressed by byte or by name, out of the
//! blocks that [`zfs_zio::Zio`] reads. This crate knows no dataset names and no POSIX.
//!
//! Life cycle: an [`Objset`] is opened by the block pointer of its header and never changes, because that block is
//! part of a synced txg; everything decoded from it may therefore be cached without invalidation. [`Dnode`]s are
//! handed out as `Arc` and keep what they need of the object set alive (zio and key), not the object set itself.
//!
//! Locks are leaves: no function holds one while it reads a block or calls out, so there is no order among them.
//!
//! Bytes of blocks are hostile even when their checksum matches: all decoding is done by `zfs-phys`, and walks here
//! are bounded by levels, table sizes or visited sets rather than by what the disk says.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod bpobj;
mod cache;
mod ctx;
pub mod dnode;
pub mod objset;
mod offset;
mod prefetch;
pub mod sa;
pub mod spacemap;
pub mod traverse;
pub mod zap;
pub mod zil;

pub use ctx::Key;
pub use dnode::{Dnode, Seek};
pub use objset::Objset;
pub use zap::Zap;
pub use zfs_zio::{Buf, Error, ErrorKind, Result, Zbookmark, Zio};
