//! Checksums, compression, encryption and RAID-Z parity as pure functions over bytes.
//!
//! Purpose: everything in ZFS that turns bytes into other bytes or proves them right, without knowing where they
//! came from. No I/O, no clock, no global state but the CPU's detected abilities. This is the only engine crate
//! that holds SIMD: each vector routine is chosen at run time, has a scalar twin, and is tested equal to it.
//!
//! Invariants: input is hostile (sizes in headers, offsets in streams, lengths of keys are checked, destinations
//! are exactly as large as the caller says and never grow); a failed check returns an error, never a partly
//! trusted result; key material is wiped when dropped.

pub mod checksum;
pub mod compress;
pub mod crypto;
pub mod error;
pub mod raidz;

pub use error::{CodecError, Result};
