//! The macOS file-system extension, in two parts: a portable module with all the logic, and Objective-C classes that
//! only turn FSKit's objects into the module's types and back.
//!
//! Purpose: macOS mounts file systems through FSKit: a process a mount, in a sandbox, driven by `fskitd`. The module
//! forwards every operation over the file-system protocol to the daemon, which holds the engine and all devices.
//! [`api`] is the boundary with FSKit's own shapes; [`Module`] implements it; whoever drives it is a [`api::Host`]. On
//! macOS that is the class `ZFSFileSystem`; on Linux the stand-in for `fskitd` in the test kit, which enforces
//! FSKit's rules, so that what macOS would refuse fails in a test.
//!
//! Rules that other file systems learned the hard way, and where they are kept:
//! * a task completes after the method that started it returned: [`api::Host::later`] is the only way to complete one;
//! * container and volume identifier are equal and derived from guids alone: one function makes both ([`probe`]);
//! * the container is ready before the reply to load: `Module::load` sets it as its last act;
//! * every attribute that FSKit demands is answered, all four times included: there is one function that makes them;
//! * a file has one item object as long as FSKit knows it, and every reclaim takes exactly that one away: [`items`];
//! * loading may fail, activating should not: everything that can be missing is looked for while loading.
//!
//! Absent on purpose: caches (the kernel has them), the engine, other devices, anything that could block for ever.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod api;
mod convert;
mod handlers;
pub mod items;
mod module;
#[cfg(target_os = "macos")]
pub mod objc;
pub mod probe;
mod volume;

pub use module::Module;
pub use volume::Volume;
