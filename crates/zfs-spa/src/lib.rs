//! A pool: finding it, importing it, and everything above objects that it consists of.
//!
//! Purpose: [`discover`] finds pools on devices, [`import()`] opens one, and [`Pool`] leads to its datasets
//! ([`dsl`]), properties, keys, history, errors, figures and the check of all its blocks. This crate is the only one that
//! knows dataset names and the contents of the pool directory.
//!
//! A [`Pool`] is read-only: a fixed root, so whatever is decoded never goes stale. [`Spa`] is a pool that is written.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod check;
pub mod config;
pub mod dedup;
pub mod discover;
pub mod dsl;
pub mod dslw;
pub mod errlog;
pub mod features;
pub mod history;
pub mod import;
mod indirect;
pub mod keys;
pub mod labels;
pub mod locate;
mod mmp;
pub mod pool;
pub mod pool_props;
pub mod space;
pub mod status;
pub mod sync;

pub use discover::{Discovery, PoolCandidate, Search, discover};
pub use dsl::{Dataset, DatasetKind, Dsl};
pub use import::{ImportError, ImportOptions, ImportProblem, Rewind, import};
pub use pool::Pool;
pub use sync::create::{Auxiliaries, CreateOptions, NewVdev, create};
pub use sync::{PoolValue, ScanProgress, ScanRequest, Spa, SyncCtx};
pub use zfs_zio::{Error, ErrorKind, Result};
