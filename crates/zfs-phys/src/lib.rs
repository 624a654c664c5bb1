//! On-disk and stream formats of ZFS: decode and encode only.
//!
//! Purpose: turn bytes that came from a disk, a stream or a file into plain values, and back. This crate does
//! no I/O, reads no clock, allocates no more than the input can justify, and treats every byte as hostile: all
//! decoding goes through [`read::Reader`], whose accessors are checked, so no input can panic it.
//!
//! Both byte orders are decoded by the same code; the caller says which one a block was written in (a block
//! pointer, an uberblock's magic or an nvlist header tells).
//!
//! Rejected alternative: casting `#[repr(C)]` structs over buffers. It is faster for one byte order only, needs
//! alignment, and lets unchecked fields escape as if they were trusted.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod acl;
pub mod blkptr;
pub mod bootenv;
pub mod bpobj;
pub mod brt;
pub mod checkpoint;
pub mod ddt;
pub mod dnode;
pub mod dsl;
pub mod enums;
pub mod errlog;
pub mod error;
pub mod feature;
pub mod gang;
pub mod history;
pub mod indirect;
pub mod label;
pub mod nvlist;
pub mod nvlist_native;
pub mod objset;
pub mod read;
pub mod sa;
pub mod scan;
pub mod spacemap;
pub mod uberblock;
pub mod unicode;
pub mod write;
pub mod zap;
pub mod zil;
pub mod znode;

pub use blkptr::{BlkPtr, Dva};
pub use error::{DecodeError, Result};
pub use nvlist::{NvList, NvValue};
pub use read::{Endian, Reader};
pub use write::Writer;
