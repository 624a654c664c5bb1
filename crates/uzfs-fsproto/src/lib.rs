//! The file-system protocol: what a thin front end without an engine says to the daemon, and how.
//!
//! Purpose: an FSKit extension lives in a sandbox, one process a mount, and may not hold the engine. It forwards every
//! operation over a socket: one request, one reply, in fixed little-endian frames (docs/FSPROTO.md has the bytes).
//! [`Client`] is the front end's side, [`Server`] the daemon's; what the daemon does is behind [`Service`].
//!
//! Invariants: every call has a deadline; requests overlap and are told apart by ids; when the connection dies, every
//! outstanding call fails with [`Code::Io`] at once and so does every later one; nothing is served before the token
//! of a mount was shown; no length from the wire makes more than [`wire::MAX_BODY`] bytes of memory be taken.
//!
//! Absent on purpose: types of the engine, error numbers of one operating system on the wire, retries (a front end
//! whose daemon died must fail at once: a hung call makes processes that cannot be killed).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod client;
mod code;
mod ops;
mod server;
mod ticket;
mod transport;
pub mod types;
pub mod wire;

pub use client::Client;
pub use code::Code;
pub use ops::{Op, Operation, Service, *};
pub use server::{Gate, Server};
pub use ticket::{Ticket, TicketKind, volume_uuid};
pub use transport::Endpoint;
pub use types::*;
/// First number of every connection: `uzfs-fs` and a zero byte.
pub const MAGIC: u64 = u64::from_le_bytes(*b"uzfs-fs\0");

pub use wire::{Blob, Caller, Malformed, Piece};
