//! What survives a crash: small pools on simulated disks, changed by generated workloads, crashed at every write
//! boundary, opened again and compared with a model.
//!
//! Life cycle: a [`machine::Machine`] makes a pool on simulated disks; a [`live::Live`] is that pool opened for writing
//! with its file systems mounted; [`ops`] invents operations, [`live`] does them to the pool, [`model`] to the model;
//! [`crash`] takes the machine back to boundaries of the run and has [`inspect`] look at what is left; [`swarm`] runs
//! longer ones with faulty disks.
//!
//! What must hold after a crash: the pool imports; every dataset shows a state of the model that is not older than
//! the last sync that returned, plus every acknowledged fsync; every reachable block verifies; allocated space is
//! reachable space; the sums of datasets agree; a second import changes nothing.
//!
//! Rejected: comparing with exactly one expected state. Which operations reached a txg depends on when the sync thread
//! closed it; the model keeps the state after each operation and accepts any that the promises allow.

#![warn(missing_docs)]

pub mod crash;
pub mod inspect;
pub mod live;
pub mod machine;
pub mod model;
pub mod ops;
pub mod swarm;

/// What went wrong, in words.
pub type Outcome<T> = Result<T, String>;

/// Puts what was being done in front of an error.
pub fn during<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |e| format!("{what}: {e}")
}
