//! A bounded cache that many threads use: sharded maps of two generations.
//!
//! A shard fills its young generation; when that is full it becomes the old one and the previous old one is dropped.
//! A hit in the old generation moves the entry to the young one, so what is used survives. This approximates least
//! recently used order with no list to maintain. Rejected: a linked list per shard, which needs unsafe code or
//! indices, for no better hit rate on directory walks.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

const SHARDS: usize = 16;

/// Hashes one 64-bit key by multiplication: keys are object numbers, which no attacker profits from choosing.
#[derive(Default, Clone)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }

    fn write_u64(&mut self, v: u64) {
        let x = (self.0 ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = x ^ (x >> 32);
    }
}

#[derive(Default, Clone)]
struct MixBuild;

impl BuildHasher for MixBuild {
    type Hasher = Mix;

    fn build_hasher(&self) -> Mix {
        Mix::default()
    }
}

struct Generations<V> {
    young: HashMap<u64, V, MixBuild>,
    old: HashMap<u64, V, MixBuild>,
}

/// Maps object numbers to cheaply cloned values.
pub(crate) struct GenCache<V> {
    shards: [Mutex<Generations<V>>; SHARDS],
    per_generation: usize,
}

impl<V: Clone> GenCache<V> {
    /// A cache of at most `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        let shard = || Mutex::new(Generations { young: HashMap::default(), old: HashMap::default() });
        Self { shards: std::array::from_fn(|_| shard()), per_generation: (capacity / SHARDS / 2).max(1) }
    }

    fn shard(&self, key: u64) -> Option<&Mutex<Generations<V>>> {
        let h = MixBuild.hash_one(key);
        self.shards.get((h >> 57) as usize % SHARDS)
    }

    /// The value of `key`, if it is still there.
    pub(crate) fn get(&self, key: u64) -> Option<V> {
        let mut g = self.shard(key)?.lock();
        if let Some(v) = g.young.get(&key) {
            return Some(v.clone());
        }
        let v = g.old.remove(&key)?;
        self.put(&mut g, key, v.clone());
        Some(v)
    }

    /// Stores a value. When another thread stored one meanwhile, that one stays and is returned.
    pub(crate) fn insert(&self, key: u64, value: V) -> V {
        let Some(shard) = self.shard(key) else { return value };
        let mut g = shard.lock();
        if let Some(v) = g.young.get(&key).or_else(|| g.old.get(&key)) {
            return v.clone();
        }
        self.put(&mut g, key, value.clone());
        value
    }

    /// Stores a value in the place of any there is.
    pub(crate) fn replace(&self, key: u64, value: V) {
        let Some(shard) = self.shard(key) else { return };
        let mut g = shard.lock();
        g.old.remove(&key);
        self.put(&mut g, key, value);
    }

    /// Drops the value of `key`.
    pub(crate) fn remove(&self, key: u64) {
        let Some(shard) = self.shard(key) else { return };
        let mut g = shard.lock();
        g.old.remove(&key);
        g.young.remove(&key);
    }

    fn put(&self, g: &mut Generations<V>, key: u64, value: V) {
        if g.young.len() >= self.per_generation {
            g.old = std::mem::take(&mut g.young);
        }
        g.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let c = GenCache::new(320);
        for i in 0..10_000u64 {
            c.insert(i, i);
            assert_eq!(c.get(3.min(i)), Some(3.min(i)));
        }
        let held = (0..10_000).filter(|&i| c.get(i).is_some()).count();
        assert!((1..=320).contains(&held), "{held}");
    }

    #[test]
    fn the_first_value_wins() {
        let c = GenCache::new(100);
        assert_eq!(c.insert(1, 10), 10);
        assert_eq!(c.insert(1, 11), 10);
    }
}
