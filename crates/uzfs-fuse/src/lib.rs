//! FUSE adapter: the kernel's requests to [`Vfs`] calls, and back.
//!
//! Purpose: mount what a `Vfs` serves. [`Mount::new`] mounts and starts serving; [`Mount::unmount`] or an `umount` from
//! outside ends it. Nothing else is here: no caching (the kernel caches pages, attributes and names of data that
//! cannot change; blocks are the ARC's), no file system logic.
//!
//! The device is spoken to directly rather than through a library, because the libraries for Rust use one number both
//! as node number and as inode number, while a mount here has nodes of several datasets whose inode numbers are the
//! objects' own; they copy replies that consist of several cached blocks; and they know neither `statx` nor
//! file flags. The protocol's part that matters is in `abi`.
//!
//! Life cycle: every thread has a queue of its own (a clone of the device) and answers what it took, so a request
//! never changes threads. Threads end when the kernel reports the mount gone.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(target_os = "linux")]
mod abi;
#[cfg(target_os = "linux")]
mod attrs;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod dir;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
pub mod errno;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod write;

#[cfg(target_os = "linux")]
pub use device::{MountSpec, detach, is_dead, is_root, unmount};
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Mount, MountConfig, MountSpec, detach, is_dead, is_root, unmount};
#[cfg(target_os = "linux")]
pub use session::{Mount, MountConfig};
pub use zfs_zpl::Vfs;
