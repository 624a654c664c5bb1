//! Making writes durable, and what it means when that fails.
//!
//! Each leaf knows whether it was written to since its last flush, and since which txg. A device whose flush failed may
//! have dropped anything written before, and would report the next flush as good: it is a failed device. It is faulted,
//! lacks all txgs written since its last good flush, and takes its parents' states along.

use super::state::{VdevAux, VdevState};
use super::tree::{Vdev, VdevTree};
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zfs_env::{BlockDevice, TaskPool};

/// What a leaf was given since its last flush.
#[derive(Debug)]
pub(super) struct Unflushed {
    dirty: AtomicBool,
    /// First and last txg written; first > last when none.
    first: AtomicU64,
    last: AtomicU64,
}

impl Default for Unflushed {
    fn default() -> Self {
        Self { dirty: AtomicBool::new(false), first: AtomicU64::new(u64::MAX), last: AtomicU64::new(0) }
    }
}

impl Unflushed {
    /// Notes a write that is about to happen; txg 0 is no particular one.
    pub(super) fn note(&self, txg: u64) {
        if txg != 0 {
            self.first.fetch_min(txg, Ordering::Relaxed);
            self.last.fetch_max(txg, Ordering::Relaxed);
        }
        self.dirty.store(true, Ordering::Release);
    }

    /// Claims what was noted; gives the txgs, if there was a write at all.
    fn take(&self) -> Option<std::ops::RangeInclusive<u64>> {
        self.dirty.swap(false, Ordering::AcqRel).then(|| {
            let first = self.first.swap(u64::MAX, Ordering::Relaxed);
            first..=self.last.swap(0, Ordering::Relaxed)
        })
    }
}

impl VdevTree {
    /// Flushes every leaf that was written to since its last flush, all at the same time. Leaves that fail are faulted.
    /// Fails when a top-level vdev has lost more leaves than it can do without.
    pub fn flush(&self, tasks: Option<&TaskPool>) -> Result<()> {
        let dirty: Vec<(&Vdev, _, Arc<dyn BlockDevice>)> = self
            .leaves()
            .into_iter()
            .filter_map(|leaf| Some((leaf, leaf.unflushed.take()?, leaf.device()?.clone())))
            .collect();
        let results: Vec<bool> = match tasks {
            Some(tasks) if dirty.len() > 1 => {
                type Job = Box<dyn FnOnce() -> bool + Send>;
                let job = |d: &Arc<dyn BlockDevice>| {
                    let device = d.clone();
                    Box::new(move || flush_one(&*device)) as Job
                };
                let jobs = dirty.iter().map(|(_, _, device)| job(device)).collect();
                tasks.run(jobs).into_iter().map(|done| done == Some(true)).collect()
            }
            _ => dirty.iter().map(|(_, _, device)| flush_one(&**device)).collect(),
        };
        if results.iter().all(|ok| *ok) {
            return Ok(());
        }
        for ((leaf, txgs, _), _) in dirty.into_iter().zip(&results).filter(|(_, ok)| !**ok) {
            leaf.stats.count_write_error();
            leaf.set_state(VdevState::Faulted, VdevAux::ErrExceeded);
            txgs.for_each(|txg| leaf.dtl_add(txg));
        }
        self.root().reevaluate();
        self.check_writable()
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

fn flush_one(device: &dyn BlockDevice) -> bool {
    let result = device.flush();
    if let Err(error) = &result {
        tracing::error!(device = device.path(), %error, "flush failed: the device is out of use");
    }
    result.is_ok()
}
