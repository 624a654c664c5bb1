//! One load at a time for each block: later callers wait for the first one's result.
//!
//! Invariant: a flight is always landed, also when its loader panics, so nobody waits for ever.

use super::{CacheKey, Table};
use crate::buf::Buf;
use crate::error::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: usize = 64;

struct Flight {
    /// Its failure says nothing to those who really want the block: it was not counted.
    speculative: bool,
    result: Mutex<Option<Result<Buf>>>,
    landed: Condvar,
}

pub(super) struct Flights {
    shards: Vec<Mutex<Table<Arc<Flight>>>>,
    coalesced: AtomicU64,
}

impl Default for Flights {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), coalesced: AtomicU64::new(0) }
    }
}

/// Lands the flight when the loader is left, however that happens.
struct Landing<'a> {
    flights: &'a Flights,
    key: CacheKey,
    flight: Arc<Flight>,
    result: Option<Result<Buf>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let result = self
            .result
            .take()
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Bug, "the thread reading a block panicked")));
        // Off the table first: whoever comes now looks into the cache again.
        self.flights.shard(&self.key).lock().remove(&self.key);
        *self.flight.result.lock() = Some(result);
        self.flight.landed.notify_all();
    }
}

impl Flights {
    fn shard(&self, key: &CacheKey) -> &Mutex<Table<Arc<Flight>>> {
        &self.shards[key.shard(SHARDS)]
    }

    pub(super) fn coalesced(&self) -> u64 {
        self.coalesced.load(Ordering::Relaxed)
    }

    /// Runs `load`, or waits for the one that runs already. Somebody in earnest does not take a failure from a
    /// speculative load, but tries again, so that the failure is noted.
    pub(super) fn join(&self, key: CacheKey, speculative: bool, load: impl FnOnce() -> Result<Buf>) -> Result<Buf> {
        loop {
            let flight = {
                let mut table = self.shard(&key).lock();
                match table.get(&key) {
                    Some(flight) => flight.clone(),
                    None => {
                        let (result, landed) = (Mutex::new(None), Condvar::new());
                        let flight = Arc::new(Flight { speculative, result, landed });
                        table.insert(key, flight.clone());
                        drop(table);
                        let mut landing = Landing { flights: self, key, flight, result: None };
                        let result = load();
                        landing.result = Some(result.clone());
                        return result;
                    }
                }
            };
            self.coalesced.fetch_add(1, Ordering::Relaxed);
            let mut slot = flight.result.lock();
            let result = loop {
                match &*slot {
                    Some(result) => break result.clone(),
                    None => flight.landed.wait(&mut slot),
                }
            };
            if result.is_ok() || speculative || !flight.speculative {
                return result;
            }
        }
    }
}
