//! The environment of the engine: block devices, clock, randomness, task pool.
//!
//! Purpose: the only crate of the engine that touches the operating system. Everything above it uses disks through
//! [`BlockDevice`], tells time through [`Clock`], draws guids and salts from an [`Rng`] and runs background work on a [`TaskPool`], so that tests can put a
//! simulated disk ([`MemDevice`], [`SimDisk`]) or clock in their place.
//!
//! Rejected alternative: an async runtime. Reads of cached data never leave the caller's thread, and reads of disks
//! are few and large; threads that block are simpler and, on files in the page cache, faster.

pub mod clock;
pub mod device;
pub mod file;
pub mod host;
pub mod mem;
pub mod pool;
pub mod rng;
pub mod sim;

pub use clock::{Clock, SimClock, SystemClock};
pub use device::BlockDevice;
pub use file::FileDevice;
pub use mem::MemDevice;
pub use pool::{JoinHandle, TaskPool, spawn};
pub use rng::{Rng, SeededRng, SystemRng, simulate_randomness};
pub use sim::{FaultRates, Sim, SimDisk, SimSnapshot, Survival};
