//! Making writes durable, and what it means when that fails.
//!
//! Each leaf knows whether it was written to since its last flush, and since which txg. A device whose flush failed may
//! have dropped anything written before, and would report the next flush as good: it is a failed device. It is faulted,
//! lacks all txgs written since its last good flush, and takes its parents' states along.
//!
//! Flushes of a leaf take turns: whoever asks while one is under way waits for it, because it may be the one that covers
//! his writes, and then finds nothing left to flush or flushes for all who wait with him. So many that ask at the same
//! time share one flush.

use super::state::{VdevAux, VdevState};
use super::tree::{Vdev, VdevTree};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zfs_env::{BlockDevice, TaskPool};

/// What a leaf was given since its last flush.
#[derive(Debug)]
pub(super) struct Unflushed {
    /// Something was written. Set only when the write has returned: a flush that began before covers nothing of it.
    dirty: AtomicBool,
    /// A flush is under way.
    busy: AtomicBool,
    /// A flush has failed.
    failed: AtomicBool,
    /// First and last txg written; first > last when none.
    first: AtomicU64,
    last: AtomicU64,
    turn: Mutex<()>,
}

impl Default for Unflushed {
    fn default() -> Self {
        Self {
            dirty: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
            turn: Mutex::new(()),
        }
    }
}

impl Unflushed {
    /// Notes a write that has returned, well or not; txg 0 is no particular one.
    pub(super) fn note(&self, txg: u64) {
        if txg != 0 {
            self.first.fetch_min(txg, Ordering::Relaxed);
            self.last.fetch_max(txg, Ordering::Relaxed);
        }
        self.dirty.store(true, Ordering::SeqCst);
    }

    /// The device is another, or open again.
    pub(super) fn renew(&self) {
        let _turn = self.turn.lock();
        self.failed.store(false, Ordering::SeqCst);
        self.dirty.store(true, Ordering::SeqCst);
    }

    /// Whether a flush has to be made or waited for, or its failure to be dealt with.
    fn is_due(&self) -> bool {
        // In this order: a flush is busy before it makes the leaf clean.
        self.dirty.load(Ordering::SeqCst) || self.busy.load(Ordering::SeqCst) || self.failed.load(Ordering::SeqCst)
    }

    /// Flushes unless that has been done by the time it is our turn. Fails with the txgs that are lost.
    fn flush(&self, device: &dyn BlockDevice) -> std::result::Result<(), Range<u64>> {
        let _turn = self.turn.lock();
        if self.failed.load(Ordering::SeqCst) {
            return Err(0..0);
        }
        self.busy.store(true, Ordering::SeqCst);
        let mut result = Ok(());
        if self.dirty.swap(false, Ordering::SeqCst) {
            let first = self.first.swap(u64::MAX, Ordering::Relaxed);
            let last = self.last.swap(0, Ordering::Relaxed);
            if let Err(error) = device.flush() {
                tracing::error!(device = device.path(), %error, "flush failed: the device is out of use");
                self.failed.store(true, Ordering::SeqCst);
                result = Err(first..last + 1);
            }
        }
        self.busy.store(false, Ordering::SeqCst);
        result
    }
}

/// Outcome of the flush of one leaf.
type Flushed = std::result::Result<(), Range<u64>>;

impl VdevTree {
    /// Flushes every leaf that was written to since its last flush, all at the same time. Leaves that fail are faulted.
    /// Fails when a top-level vdev has lost more leaves than it can do without.
    pub fn flush(&self, tasks: Option<&TaskPool>) -> Result<()> {
        let due = |l: &&Vdev| l.state().is_readable() && l.unflushed.is_due();
        let leaves: Vec<(&Vdev, Arc<dyn BlockDevice>)> =
            self.leaves().into_iter().filter(due).filter_map(|l| Some((l, l.device()?))).collect();
        let results: Vec<Flushed> = match tasks {
            Some(tasks) if leaves.len() > 1 => {
                type Job = Box<dyn FnOnce() -> Flushed + Send>;
                let job = |(leaf, device): &(&Vdev, Arc<dyn BlockDevice>)| {
                    let (unflushed, device) = (leaf.unflushed.clone(), device.clone());
                    Box::new(move || unflushed.flush(&*device)) as Job
                };
                let done = tasks.run(leaves.iter().map(job).collect());
                done.into_iter().map(|r| r.unwrap_or(Err(0..0))).collect()
            }
            _ => leaves.iter().map(|(leaf, device)| leaf.unflushed.flush(&**device)).collect(),
        };
        if results.iter().all(std::result::Result::is_ok) {
            return self.check_flushed();
        }
        for ((leaf, _), result) in leaves.iter().zip(results) {
            let Err(txgs) = result else { continue };
            leaf.stats.count_write_error();
            leaf.set_state(VdevState::Faulted, VdevAux::ErrExceeded);
            txgs.for_each(|txg| leaf.dtl_add(txg));
        }
        self.root().reevaluate();
        self.check_writable()
    }

    /// Fails when a top-level vdev is out of use with something unflushed, because others' flushes of its leaves have failed
    /// or somebody has just closed them: there was nothing left to flush, and nothing is durable.
    fn check_flushed(&self) -> Result<()> {
        let lost = |top: &&Vdev| top.leaves().into_iter().any(|l| l.unflushed.is_due());
        let dead = |top: &&Vdev| top.config.kind.is_concrete() && !top.state().is_readable();
        if self.root().children.iter().filter(dead).any(|top| lost(&top)) { self.check_writable() } else { Ok(()) }
    }

    /// Fails when a top-level vdev cannot take what is written to it.
    pub fn check_writable(&self) -> Result<()> {
        let dead = |top: &&Vdev| top.config.kind.is_concrete() && !top.state().is_readable();
        match self.root().children.iter().find(dead) {
            Some(top) => Err(Error::new(ErrorKind::Io, "too many devices of a vdev have failed").on_vdev(top.guid())),
            None => Ok(()),
        }
    }
}
