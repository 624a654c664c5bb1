//! The management contract between `uzfsd` and its clients: types, methods and wire.
//!
//! The contract is [varlink](https://varlink.org): JSON messages ended by a NUL byte over a Unix
//! socket, described by `io.uzfs.Manage1.varlink` beside this source, which the daemon also serves
//! through `org.varlink.service`. The crate contains no engine type and knows no file format, so
//! that a client needs nothing else to manage pools.
//!
//! # Why the wire is our own
//!
//! zlink 0.8, the varlink library first chosen, is asynchronous only: it does not build without
//! tokio or smol. Our tools make one blocking call and exit, and the engine below the daemon's
//! contract is blocking threads, so a runtime would be carried for nothing; and bounding the memory
//! of a hostile peer needs control of the reader anyway. The protocol itself is small: [`wire`] is all of it. The library is behind
//! the traits [`Backend`], [`Sink`] and [`contract::Method`], so it can be exchanged without
//! touching the daemon or the tools.
//!
//! # Trust
//!
//! Bytes from the socket are hostile on both sides: messages have a size limit, JSON a depth limit,
//! and who may call what is decided from the peer's credentials, never from what it says.

#![cfg_attr(target_os = "linux", forbid(unsafe_code))]
#![deny(unsafe_code)]

mod dataset;
mod failure;
mod ops;
mod ops_dataset;
mod ops_write;
mod pool;
mod scalar;
mod vdev;

pub mod client;
pub mod contract;
pub mod passing;
pub mod place;
pub mod schema;
pub mod server;
pub mod wire;

pub use contract::{Backend, INTERFACE, INTERFACE_TEXT, Method, PROTOCOL, Sink, method};
pub use dataset::*;
pub use failure::*;
pub use ops::*;
pub use ops_dataset::*;
pub use ops_write::*;
pub use pool::*;
pub use scalar::{Secret, U64};
pub use vdev::*;

/// Who calls, from the credentials the kernel attests, and what came with the call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id, zero if the system does not tell.
    pub pid: u32,
    /// Root, or the user the daemon runs as: may change things.
    pub owner: bool,
    /// Descriptors that came with the call.
    pub passed: passing::Passed,
}
