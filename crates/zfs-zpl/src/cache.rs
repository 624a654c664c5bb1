//! Recently used files, decoded: object number to [`Znode`].
//!
//! What changes a file takes its entry out, under the file's lock; the next reader decodes it again.
//! Sixteen shards keep parallel readers apart; each evicts by second chance. A shard's lock is a leaf and is never
//! held while anything is read: two threads that miss together both decode, and the first to insert wins.

use crate::znode::Znode;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

const SHARDS: usize = 16;

#[derive(Default)]
struct Shard {
    entries: HashMap<u64, (Arc<Znode>, bool)>,
    order: VecDeque<u64>,
    changes: u64,
}

/// The cache.
pub(crate) struct ZnodeCache {
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
}

impl ZnodeCache {
    /// A cache of about `capacity` files.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { shards: Default::default(), per_shard: (capacity / SHARDS).max(4) }
    }

    fn shard(&self, object: u64) -> Option<&Mutex<Shard>> {
        // Object numbers come in runs of allocation chunks, so neighbours go to different shards.
        self.shards.get(object as usize % SHARDS)
    }

    /// The file, if it is cached.
    pub(crate) fn get(&self, object: u64) -> Option<Arc<Znode>> {
        let mut shard = self.shard(object)?.lock();
        let (znode, used) = shard.entries.get_mut(&object)?;
        *used = true;
        Some(znode.clone())
    }

    /// Takes a file out, because it changed. What is being decoded meanwhile is not put in.
    pub(crate) fn remove(&self, object: u64) {
        if let Some(shard) = self.shard(object) {
            let mut shard = shard.lock();
            shard.entries.remove(&object);
            shard.changes += 1;
        }
    }

    /// How often files that share a shard with this one changed; to be asked before one is read.
    pub(crate) fn changes(&self, object: u64) -> u64 {
        self.shard(object).map_or(0, |shard| shard.lock().changes)
    }

    /// Puts a file in that was read since [`ZnodeCache::changes`] gave `changes`; gives back the one that counts.
    pub(crate) fn put(&self, object: u64, znode: Arc<Znode>, changes: u64) -> Arc<Znode> {
        let Some(shard) = self.shard(object) else { return znode };
        let mut shard = shard.lock();
        if shard.changes != changes {
            return znode;
        }
        if let Some((first, _)) = shard.entries.get(&object) {
            return first.clone();
        }
        while shard.entries.len() >= self.per_shard {
            let Some(victim) = shard.order.pop_front() else { break };
            match shard.entries.get_mut(&victim) {
                Some((_, used)) if *used => {
                    *used = false;
                    shard.order.push_back(victim);
                }
                _ => {
                    shard.entries.remove(&victim);
                }
            }
        }
        shard.entries.insert(object, (znode.clone(), false));
        shard.order.push_back(object);
        znode
    }
}
