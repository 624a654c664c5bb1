//! Tests against pools that OpenZFS made: corpus loader, manifests, comparison with what OpenZFS's
//! tools printed, a private daemon for every test, damage.
//!
//! Everything here works from outside: it runs the programs `zpool`, `zfs`, `mount.zfs` and `uzfsd` and
//! looks at mounts with system calls. This library uses no engine crate, so that an error in the engine cannot
//! hide in the judge as well; only the program `zvol-hash` does, because no command reads a volume yet.
//!
//! Deliberately absent: expectations that were produced by uzfs itself. What is compared with comes from
//! OpenZFS, or is written by hand with its reason (`volatile`).

#![warn(missing_docs)]

pub mod archive;
pub mod check;
pub mod corpus;
pub mod encode;
pub mod fskit_host;
pub mod manifest;
pub mod paths;
pub mod process;
pub mod report;
pub mod session;
pub mod tables;
pub mod transcript;
pub mod volatile;
