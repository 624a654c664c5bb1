//! Bytes to and from block pointers: vdev tree, read pipeline, cache.
//!
//! Purpose: [`Zio::read`] turns a block pointer into the bytes it stands for, whatever redundancy has to be used, and
//! keeps what was read in an [`ArcCache`] that all pools of the process share. This crate knows no objects: where
//! something is needed that lives in the meta object set (indirect mappings, the checksum salt, dirty time logs),
//! the layer above reads it and hands it in.

pub mod alloc;
pub mod arc;
pub mod blkverify;
pub mod bookmark;
pub mod buf;
pub mod codec;
pub mod config;
pub mod error;
mod gang;
pub mod sink;
pub mod vdev;
pub mod write;
pub mod zio;

pub use alloc::{Class, MetaslabDelta, MetaslabSeed, RangeTree, SpaceFigures, TopSeed};
pub use arc::{ArcCache, ArcStats};
pub use bookmark::Zbookmark;
pub use buf::Buf;
pub use codec::DatasetKey;
pub use config::{VdevConfig, VdevKind};
pub use error::{Error, ErrorKind, Result};
pub use sink::ErrorSink;
pub use vdev::{Vdev, VdevAux, VdevState, VdevTree};
pub use write::{WriteConfig, WriteProps};
pub use zio::Zio;
