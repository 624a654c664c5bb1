//! Blocks whose prefetch waits for a thread.
//!
//! Invariant: who announced a block takes it back, or finds that a reader did; so nothing stays here for ever.

use super::{CacheKey, Ready};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::BuildHasherDefault;

const SHARDS: usize = 16;

type Keys = HashSet<CacheKey, BuildHasherDefault<Ready>>;

#[derive(Default)]
pub(super) struct Announced {
    shards: [Mutex<Keys>; SHARDS],
}

impl Announced {
    /// Adds a block; false when it was there.
    pub(super) fn add(&self, key: CacheKey) -> bool {
        self.shards[key.shard(SHARDS)].lock().insert(key)
    }

    /// Takes a block out; false when it was not there.
    pub(super) fn take(&self, key: &CacheKey) -> bool {
        self.shards[key.shard(SHARDS)].lock().remove(key)
    }
}
