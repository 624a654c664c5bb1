//! One S3-FIFO cache with a byte budget, in shards.
//!
//! Newcomers enter `small`; those used again before they reach its end move to `main`, others leave and are remembered
//! as ghosts; a block that returns while its ghost is remembered enters `main` at once. Blocks at the end of `main`
//! that were used since get another round. Bytes are counted across shards; whoever inserts evicts, from its own shard
//! first.
//!
//! A block that is removed leaves its place in a queue behind. Places carry the number of the insertion they belong
//! to, so an old one says nothing about a block that came back; they are swept when they outnumber the blocks.

use super::{CacheKey, Table};
use crate::buf::Buf;
use parking_lot::RwLock;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use zfs_phys::enums::CompressKind;

const SHARDS: usize = 64;
/// Bookkeeping bytes of an entry, about.
const OVERHEAD: u64 = 200;
/// Uses that are remembered.
const MOST_USES: u8 = 3;

/// What is kept of a block.
#[derive(Clone)]
pub(super) enum Stored {
    /// Its logical bytes.
    Plain(Buf),
    /// Compressed bytes, how, and the logical size.
    Packed(Buf, CompressKind, usize),
}

impl Stored {
    fn weight(&self) -> u64 {
        match self {
            Stored::Plain(b) | Stored::Packed(b, _, _) => b.len() as u64 + OVERHEAD,
        }
    }
}

struct Entry {
    stored: Stored,
    uses: AtomicU8,
    /// Number of its insertion.
    number: u64,
    /// Whether it is queued in `main`.
    resident: bool,
}

/// A place in a queue: the block and the number of its insertion.
type Place = (CacheKey, u64);

#[derive(Default)]
struct Queues {
    index: Table<Entry>,
    small: VecDeque<Place>,
    main: VecDeque<Place>,
    inserted: u64,
    small_bytes: u64,
    main_bytes: u64,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
}

impl Queues {
    /// Throws out one block; tells how many bytes that freed (0 when there is none).
    fn evict(&mut self) -> u64 {
        loop {
            let from_small = self.main.is_empty() || self.small_bytes * 10 > self.small_bytes + self.main_bytes;
            let key = if from_small { self.small.pop_front() } else { self.main.pop_front() };
            let Some(place @ (key, number)) = key.or_else(|| self.main.pop_front()) else { return 0 };
            let Some(entry) = self.index.get_mut(&key).filter(|e| e.number == number) else { continue };
            let weight = entry.stored.weight();
            let uses = *entry.uses.get_mut();
            match (from_small, uses) {
                (true, 0) => {
                    self.small_bytes = self.small_bytes.saturating_sub(weight);
                    self.remember(key.hash);
                }
                (true, _) => {
                    *entry.uses.get_mut() = 0;
                    entry.resident = true;
                    self.small_bytes = self.small_bytes.saturating_sub(weight);
                    self.main_bytes += weight;
                    self.main.push_back(place);
                    continue;
                }
                (false, 0) => self.main_bytes = self.main_bytes.saturating_sub(weight),
                (false, _) => {
                    *entry.uses.get_mut() -= 1;
                    self.main.push_back(place);
                    continue;
                }
            }
            self.index.remove(&key);
            return weight;
        }
    }

    /// Takes a block out; its weight.
    fn remove(&mut self, key: &CacheKey) -> Option<u64> {
        let entry = self.index.remove(key)?;
        let weight = entry.stored.weight();
        let bytes = if entry.resident { &mut self.main_bytes } else { &mut self.small_bytes };
        *bytes = bytes.saturating_sub(weight);
        if self.small.len() + self.main.len() > 2 * self.index.len() + 256 {
            let index = &self.index;
            let alive = |(key, number): &Place| index.get(key).is_some_and(|e| e.number == *number);
            self.small.retain(alive);
            self.main.retain(alive);
        }
        Some(weight)
    }

    fn remember(&mut self, ghost: u64) {
        if self.ghost_set.insert(ghost) {
            self.ghosts.push_back(ghost);
        }
        // As many ghosts as blocks held, so their memory is a small part of the blocks'.
        while self.ghosts.len() > self.index.len().max(64) {
            if let Some(old) = self.ghosts.pop_front() {
                self.ghost_set.remove(&old);
            }
        }
    }
}

pub(super) struct Layer {
    shards: Vec<RwLock<Queues>>,
    used: AtomicU64,
    budget: AtomicU64,
    evictions: AtomicU64,
}

impl Layer {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            used: AtomicU64::new(0),
            budget: AtomicU64::new(budget),
            evictions: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<Stored> {
        let shard = self.shards[key.shard(SHARDS)].read();
        let entry = shard.index.get(key)?;
        // A lost update among racing readers costs nothing.
        let uses = entry.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            entry.uses.store(uses + 1, Ordering::Relaxed);
        }
        Some(entry.stored.clone())
    }

    pub(super) fn contains(&self, key: &CacheKey) -> bool {
        self.shards[key.shard(SHARDS)].read().index.contains_key(key)
    }

    pub(super) fn insert(&self, key: CacheKey, stored: Stored) {
        let weight = stored.weight();
        if weight > self.budget() {
            return;
        }
        let home = key.shard(SHARDS);
        // Room first, so that the budget is not exceeded even for a moment.
        self.make_room(home, weight);
        let mut shard = self.shards[home].write();
        if shard.index.contains_key(&key) {
            self.used.fetch_sub(weight, Ordering::Relaxed);
            return;
        }
        shard.inserted += 1;
        let (number, resident) = (shard.inserted, shard.ghost_set.contains(&key.hash));
        if resident {
            shard.main_bytes += weight;
            shard.main.push_back((key, number));
        } else {
            shard.small_bytes += weight;
            shard.small.push_back((key, number));
        }
        shard.index.insert(key, Entry { stored, uses: AtomicU8::new(0), number, resident });
    }

    /// Drops one block, if `which` says so of what is kept of it.
    pub(super) fn remove(&self, key: &CacheKey, which: impl FnOnce(&Stored) -> bool) {
        let mut shard = self.shards[key.shard(SHARDS)].write();
        if shard.index.get(key).is_some_and(|e| which(&e.stored))
            && let Some(weight) = shard.remove(key)
        {
            self.used.fetch_sub(weight, Ordering::Relaxed);
        }
    }

    /// Reserves `weight` bytes of the budget, evicting from shard `home` and then from its neighbours.
    fn make_room(&self, home: usize, weight: u64) {
        self.used.fetch_add(weight, Ordering::Relaxed);
        for i in 0..SHARDS {
            if self.used() <= self.budget() {
                return;
            }
            let mut shard = self.shards[(home + i) % SHARDS].write();
            while self.used() > self.budget() {
                let freed = shard.evict();
                if freed == 0 {
                    break;
                }
                self.used.fetch_sub(freed, Ordering::Relaxed);
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn set_budget(&self, budget: u64) {
        self.budget.store(budget, Ordering::Relaxed);
        self.make_room(0, 0);
    }

    /// Drops all blocks whose key is not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&CacheKey) -> bool) {
        for shard in &self.shards {
            let mut guard = shard.write();
            let q = &mut *guard;
            let mut freed = 0;
            let (mut small, mut main) = (0, 0);
            let index = &mut q.index;
            q.small.retain(|p| sift(index, p, &keep, &mut small, &mut freed));
            q.main.retain(|p| sift(index, p, &keep, &mut main, &mut freed));
            (q.small_bytes, q.main_bytes) = (small, main);
            self.used.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    pub(super) fn entries(&self) -> u64 {
        self.shards.iter().map(|s| s.read().index.len() as u64).sum()
    }
}

/// Keeps or removes one queued key, adding its weight to what stays or what is freed.
fn sift(
    index: &mut Table<Entry>,
    (key, number): &Place,
    keep: &impl Fn(&CacheKey) -> bool,
    stays: &mut u64,
    freed: &mut u64,
) -> bool {
    let entry = index.get(key).filter(|e| e.number == *number);
    let Some(weight) = entry.map(|e| e.stored.weight()) else { return false };
    if keep(key) {
        *stays += weight;
        return true;
    }
    index.remove(key);
    *freed += weight;
    false
}
