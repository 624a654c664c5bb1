//! One metaslab: what of it is free, and the stations that freed space passes before it is allocatable again.
//!
//! Life of a range: allocatable -> `allocating[txg]` (until that txg's delta is taken) -> in use -> `freeing[txg]` (until
//! the delta is taken) -> `freed` (until the txg is on stable storage) -> `defer[txg % 2]` (until the txg after next is)
//! -> allocatable. So nothing is reused that one of the last two uberblocks may still lead to.
//!
//! A metaslab is loaded — its space map read into a tree — when it is first allocated from. Until then frees pass
//! through the stations all the same; when it is loaded, whatever is under way in them is taken out of what the space
//! map calls free.
//!
//! Locking: everything is behind the metaslab's own mutex; what the choice among metaslabs needs ([`Metaslab::largest`],
//! [`Metaslab::free`]) is kept in atomics beside it, as hints.

use super::range_tree::{RangeConflict, RangeTree};
use super::{Loader, MetaslabSeed};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Txgs that may be under way at a time (`TXG_SIZE`).
pub(super) const TXG_SIZE: usize = 4;
/// Txgs that frees wait (`TXG_DEFER_SIZE`).
const TXG_DEFER_SIZE: usize = 2;
/// Ranges that are looked at behind the cursor before the best fit is taken.
const MOST_LOOKED_AT: usize = 128;
/// Below this share of free space (percent), ranges are chosen by size at once (`metaslab_df_free_pct`).
const LOW_FREE_PERCENT: u64 = 4;
/// When the largest range is smaller than this, ranges are chosen by size at once (`metaslab_df_alloc_threshold`).
const SMALL_LARGEST: u64 = 128 << 10;

pub(super) fn slot(txg: u64) -> usize {
    (txg % TXG_SIZE as u64) as usize
}

fn broken(what: &'static str, c: RangeConflict) -> Error {
    Error::new(ErrorKind::Bug, format!("{what} {:#x} to {:#x}", c.start, c.end)).offset(c.start)
}

/// See the module.
pub(super) struct Metaslab {
    pub(super) index: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    /// log2 of the vdev's sectors, the unit of stored histograms.
    ashift: u32,
    state: Mutex<State>,
    /// What became allocatable again since the import, and when. A leaf lock: it is asked while blocks are read, which
    /// loading does with `state` held.
    released: Mutex<Released>,
    largest: AtomicU64,
    free: AtomicU64,
    /// Stream that allocates here; 0 none.
    pub(super) owner: AtomicU32,
    loaded: AtomicBool,
}

/// Ranges with the txg in which each became allocatable again last: start to end and txg, without overlaps.
#[derive(Default)]
struct Released(BTreeMap<u64, (u64, u64)>);

impl Released {
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let before = self.0.range(..end).rev().map(|(s, (e, txg))| (*s, *e, *txg));
        before.take_while(move |(_, e, _)| *e > start)
    }

    fn add(&mut self, start: u64, end: u64, txg: u64) {
        let old: Vec<_> = self.overlapping(start, end).collect();
        for (s, e, t) in old {
            self.0.remove(&s);
            if s < start {
                self.0.insert(s, (start, t));
            }
            if e > end {
                self.0.insert(end, (e, t));
            }
        }
        self.0.insert(start, (end, txg));
    }

    fn since(&self, start: u64, end: u64, birth: u64) -> bool {
        self.overlapping(start, end).any(|(_, _, txg)| txg >= birth)
    }
}

#[derive(Default)]
struct State {
    allocatable: Option<RangeTree>,
    /// Its space map could not be read.
    unreadable: bool,
    allocating: [RangeTree; TXG_SIZE],
    freeing: [RangeTree; TXG_SIZE],
    freed: RangeTree,
    defer: [RangeTree; TXG_DEFER_SIZE],
    /// Ready to be used again, but held back.
    held: RangeTree,
    /// Where the last block of each alignment was placed.
    cursors: [u64; 16],
    /// Net bytes allocated in deltas taken of the txg that is syncing.
    pending: i64,
}

/// What became of a metaslab's figures at the end of a txg.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub(super) alloc: i64,
    pub(super) deferred: i64,
    /// Whether something still waits.
    pub(super) waits: bool,
}

/// Ranges allocated and freed, and a histogram for the space map's header.
pub(super) type Taken = (RangeTree, RangeTree, Option<[u64; 32]>);

impl Metaslab {
    pub(super) fn new(seed: &MetaslabSeed, start: u64, end: u64, ashift: u32) -> Self {
        let free = (end - start).saturating_sub(seed.allocated);
        // The highest bucket in use bounds the largest range; without a histogram nothing does but the free space.
        let top = seed.histogram.map(|h| h.iter().rposition(|n| *n > 0).map_or(0, |i| i as u32 + ashift + 1));
        let largest = match top {
            Some(0) | None => free,
            Some(bits) => free.min(1u64.checked_shl(bits).map_or(u64::MAX, |n| n - 1)),
        };
        Self {
            index: seed.index,
            start,
            end,
            ashift,
            state: Mutex::default(),
            released: Mutex::default(),
            largest: AtomicU64::new(largest),
            free: AtomicU64::new(free),
            owner: AtomicU32::new(0),
            loaded: AtomicBool::new(false),
        }
    }

    /// Bytes of the largest range that can be allocated; an upper bound while it is not loaded.
    pub(super) fn largest(&self) -> u64 {
        self.largest.load(Ordering::Relaxed)
    }

    /// Bytes that can be allocated; while it is not loaded, those that were free at import.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Relaxed)
    }

    /// The higher, the better a metaslab to start allocating from: large ranges first, by powers of two, because
    /// within one power fragmentation hardly differs.
    pub(super) fn weight(&self) -> u32 {
        self.largest().checked_ilog2().unwrap_or(0)
    }

    fn publish(&self, state: &State) {
        if let Some(tree) = &state.allocatable {
            self.largest.store(tree.largest(), Ordering::Relaxed);
            self.free.store(tree.space(), Ordering::Relaxed);
        }
    }

    /// Locks it with its space map loaded.
    fn loaded_state(&self, vdev: u64, loader: &Loader) -> Result<MutexGuard<'_, State>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.unreadable {
            return Err(Error::corrupt("space map that cannot be read"));
        }
        if state.allocatable.is_none() {
            let tree = loader(vdev, self.index).inspect_err(|_| {
                state.unreadable = true;
                self.largest.store(0, Ordering::Relaxed);
                self.free.store(0, Ordering::Relaxed);
            })?;
            let mut tree = tree;
            tree.clear_range(0, self.start);
            tree.clear_range(self.end, u64::MAX);
            let busy =
                state.allocating.iter().chain(&state.freeing).chain(&state.defer).chain([&state.freed, &state.held]);
            busy.for_each(|b| tree.subtract(b));
            tree.index_sizes();
            state.allocatable = Some(tree);
            self.loaded.store(true, Ordering::Relaxed);
            self.publish(state);
        }
        Ok(guard)
    }

    /// Reads its space map, unless that is done or has failed.
    pub(super) fn load(&self, vdev: u64, loader: &Loader) -> Result<()> {
        self.loaded_state(vdev, loader).map(drop)
    }

    /// Allocates `size` bytes, if there is a range for them.
    pub(super) fn alloc(&self, vdev: u64, size: u64, txg: u64, loader: &Loader) -> Result<Option<u64>> {
        let mut guard = self.loaded_state(vdev, loader)?;
        let state = &mut *guard;
        let Some(tree) = &mut state.allocatable else { return Ok(None) };
        if tree.largest() < size {
            return Ok(None);
        }
        // Blocks of like alignment go next to each other, so that each region's holes stay usable for its kind.
        let kind = size.trailing_zeros().saturating_sub(9).min(15) as usize;
        let by_size = tree.largest() < SMALL_LARGEST || tree.space() * 100 < (self.end - self.start) * LOW_FREE_PERCENT;
        let from = state.cursors[kind].max(self.start);
        let near = if by_size { None } else { tree.first_fit(from, size, MOST_LOOKED_AT) };
        let Some(at) = near.or_else(|| tree.best_fit(size)) else { return Ok(None) };
        let end = at + size;
        tree.remove(at, end).map_err(|c| broken("allocating what is not free:", c))?;
        state.allocating[slot(txg)].add(at, end).map_err(|c| broken("allocated twice:", c))?;
        state.cursors[kind] = end;
        self.publish(state);
        Ok(Some(at))
    }

    /// Takes an allocation of `txg` back; nothing has been written there that anybody will look for.
    pub(super) fn unalloc(&self, start: u64, end: u64, txg: u64) -> Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.allocating[slot(txg)].remove(start, end).is_err() {
            // Its delta was taken: the space map says allocated, so it goes the way of all frees.
            return Self::add_free(state, start, end, txg);
        }
        if let Some(tree) = &mut state.allocatable {
            tree.add(start, end).map_err(|c| broken("giving back what is free:", c))?;
        }
        self.publish(state);
        Ok(())
    }

    /// Allocates a particular range.
    pub(super) fn claim(&self, vdev: u64, start: u64, end: u64, txg: u64, loader: &Loader) -> Result<()> {
        let mut guard = self.loaded_state(vdev, loader)?;
        let state = &mut *guard;
        let free = state.allocatable.as_mut().is_some_and(|tree| tree.remove(start, end).is_ok());
        if !free {
            return Err(Error::corrupt("claiming a block that is allocated already").offset(start));
        }
        state.allocating[slot(txg)].add(start, end).map_err(|c| broken("allocated twice:", c))?;
        self.publish(state);
        Ok(())
    }

    pub(super) fn free_range(&self, start: u64, end: u64, txg: u64) -> Result<()> {
        Self::add_free(&mut self.state.lock(), start, end, txg)
    }

    /// Fails when some of a range is free, or another txg has yet to allocate it.
    pub(super) fn expect_allocated(&self, start: u64, end: u64, txg: u64) -> Result<()> {
        Self::check_free(&self.state.lock(), start, end, txg)
    }

    fn add_free(state: &mut State, start: u64, end: u64, txg: u64) -> Result<()> {
        Self::check_free(state, start, end, txg)?;
        state.freeing[slot(txg)].add(start, end).map_err(|c| broken("freeing what is free:", c))
    }

    fn check_free(state: &State, start: u64, end: u64, txg: u64) -> Result<()> {
        // A block of a txg that has not synced yet cannot be freed by an earlier one: its space map would say so before
        // it says that the block was allocated.
        let open = (0..TXG_SIZE).filter(|i| *i != slot(txg)).map(|i| &state.allocating[i]);
        if open.into_iter().any(|a| a.overlaps(start, end)) {
            return Err(broken("freeing what another txg has yet to allocate:", RangeConflict { start, end }));
        }
        let stations =
            state.freeing.iter().chain(&state.defer).chain([&state.freed, &state.held]).chain(&state.allocatable);
        if stations.into_iter().any(|s| s.overlaps(start, end)) {
            return Err(broken("freeing what is free:", RangeConflict { start, end }));
        }
        Ok(())
    }

    /// Whether some of a range may hold another block by now than the one born there in `birth`.
    pub(super) fn may_be_reused(&self, start: u64, end: u64, birth: u64) -> bool {
        self.released.lock().since(start, end, birth)
    }

    /// What was allocated and freed in `txg` since the last call.
    pub(super) fn take_delta(&self, txg: u64) -> Result<Option<Taken>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (alloc, free) = (state.allocating[slot(txg)].take(), state.freeing[slot(txg)].take());
        if alloc.is_empty() && free.is_empty() {
            return Ok(None);
        }
        state.freed.add_all(&free).map_err(|c| broken("freed twice:", c))?;
        state.pending += alloc.space() as i64 - free.space() as i64;
        let histogram = state.allocatable.as_ref().map(|tree| {
            let mut sum = [0u64; 32];
            for part in [tree, &state.freed, &state.held].into_iter().chain(&state.defer) {
                for (bits, n) in part.histogram().iter().enumerate() {
                    let bucket = bits.saturating_sub(self.ashift as usize).min(31);
                    sum[bucket] += n;
                }
            }
            sum
        });
        Ok(Some((alloc, free, histogram)))
    }

    /// `txg` is on stable storage. With `held` nothing becomes allocatable.
    pub(super) fn sync_done(&self, txg: u64, held: bool) -> Result<Settled> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let freed = state.freed.take();
        let mut settled = Settled { alloc: std::mem::take(&mut state.pending), ..Settled::default() };
        let defer = &mut state.defer[(txg % TXG_DEFER_SIZE as u64) as usize];
        settled.deferred = freed.space() as i64;
        state.held.add_all(&std::mem::replace(defer, freed)).map_err(|c| broken("freed twice:", c))?;
        let ripe = if held { RangeTree::new() } else { state.held.take() };
        settled.deferred -= ripe.space() as i64;
        for (start, end) in ripe.iter() {
            self.released.lock().add(start, end, txg);
        }
        if let Some(tree) = &mut state.allocatable {
            tree.add_all(&ripe).map_err(|c| broken("released twice:", c))?;
        } else if !state.unreadable {
            let free = self.free.fetch_add(ripe.space(), Ordering::Relaxed) + ripe.space();
            // Its ranges may have joined with any others: only the free space bounds the largest.
            if !ripe.is_empty() {
                self.largest.store(free, Ordering::Relaxed);
            }
        }
        settled.waits = state.defer.iter().chain([&state.held]).any(|d| !d.is_empty());
        self.publish(state);
        Ok(settled)
    }
}
