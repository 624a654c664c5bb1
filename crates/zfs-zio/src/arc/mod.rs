//! The cache of blocks: one byte budget for all pools of the process.
//!
//! Purpose: a block read once is not read again while there is room. File data is kept as it was stored (compressed),
//! so the budget holds several times its size; metadata is kept decompressed, because it is looked at again and again
//! in small pieces. A small second layer keeps the most recently decompressed data blocks, so that many small reads of
//! one record decompress it once.
//!
//! Policy: S3-FIFO (three FIFO queues: newcomers, residents, ghosts), chosen over OpenZFS's ARC because a hit only
//! sets an atomic counter — no list is touched, so hits take a shard's lock shared, and shards are many — and because
//! a scan passes through the newcomers' tenth of the cache without evicting what is in use. It has what ARC's two
//! lists and their ghosts are for: recency, frequency, and memory of what was evicted too early.
//!
//! Concurrent misses of a block are one read: the first caller loads, the others wait for its result
//! ([`flight`]). Prefetches that wait for a thread are [`announced`]; whoever needs such a block sooner takes it over,
//! and the prefetch finds nothing to do: else it would read again what was read and released meanwhile. Lock order:
//! flight table of a shard, then queues or announcements of a shard; never two shards at once.

mod announced;
mod flight;
mod layer;

use crate::buf::{Buf, keep_share_of};
use crate::codec;
use crate::error::Result;
use announced::Announced;
use flight::Flights;
use layer::{Layer, Stored};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use zfs_phys::BlkPtr;
use zfs_phys::enums::CompressKind;

/// What the decompressed layer may use of the budget: one part in this many.
const HOT_PART: u64 = 8;

/// Identity of a block: the pool's opening, its first address and when it was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKey {
    instance: u64,
    dva: [u64; 2],
    birth: u64,
    /// Hash of the above, made once for all tables.
    hash: u64,
    /// Decrypted contents, to be forgotten when a key is unloaded.
    protected: bool,
    /// Whether MACs were checked with a key: what was read without one must not answer who has one.
    authenticated: bool,
}

impl CacheKey {
    /// Identity of the block that `bp` points to in opening `instance` of a pool, as read by somebody with a key or
    /// without one.
    pub fn new(instance: u64, bp: &BlkPtr, with_key: bool) -> Self {
        let (dva, birth) = (bp.dva(0).word, bp.physical_birth());
        let (protected, authenticated) = (bp.is_encrypted(), with_key && bp.uses_crypt());
        Self { instance, dva, birth, hash: mix([instance, dva[0], dva[1], birth]), protected, authenticated }
    }

    /// Which of `shards` (a power of two) tables; takes other bits of the hash than a table does for its slots.
    fn shard(&self, shards: usize) -> usize {
        (self.hash >> 40) as usize & (shards - 1)
    }
}

/// Hashes four words; seeded, so that nobody can prepare a pool whose blocks all collide.
fn mix(words: [u64; 4]) -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| RandomState::new().hash_one(0u8) | 1);
    words.into_iter().fold(seed, |h, w| {
        let wide = u128::from(h ^ w ^ 0x9e37_79b9_7f4a_7c15) * u128::from(seed ^ 0xd6e8_feb8_6659_fd93 | 1);
        wide as u64 ^ (wide >> 64) as u64
    })
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that the key brings along.
#[derive(Default, Clone, Copy)]
struct Ready(u64);

impl Hasher for Ready {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Table<V> = HashMap<CacheKey, V, BuildHasherDefault<Ready>>;

/// What a loader gives.
pub struct Loaded {
    /// The logical bytes.
    pub plain: Buf,
    /// The decrypted bytes before decompression, and how they are compressed; nothing when they are the logical ones.
    pub packed: Option<(Buf, CompressKind)>,
}

/// Figures of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArcStats {
    /// Lookups that found the block.
    pub hits: u64,
    /// Of those, how many found it decompressed already.
    pub hot_hits: u64,
    /// Lookups that had to read.
    pub misses: u64,
    /// Lookups that waited for somebody else's read of the same block.
    pub coalesced: u64,
    /// Blocks thrown out.
    pub evictions: u64,
    /// Bytes held.
    pub used: u64,
    /// Bytes that may be held.
    pub budget: u64,
    /// Blocks held, both layers.
    pub entries: u64,
}

/// The cache. Shared by all pools through an `Arc`.
pub struct ArcCache {
    cold: Layer,
    hot: Layer,
    flights: Flights,
    announced: Announced,
    hits: AtomicU64,
    hot_hits: AtomicU64,
    misses: AtomicU64,
}

impl ArcCache {
    /// A cache that holds at most `budget` bytes.
    pub fn new(budget: u64) -> Self {
        keep_share_of(budget);
        Self {
            cold: Layer::new(budget - budget / HOT_PART),
            hot: Layer::new(budget / HOT_PART),
            flights: Flights::default(),
            announced: Announced::default(),
            hits: AtomicU64::new(0),
            hot_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Changes the budget and evicts down to it at once.
    pub fn set_budget(&self, budget: u64) {
        keep_share_of(budget);
        self.cold.set_budget(budget - budget / HOT_PART);
        self.hot.set_budget(budget / HOT_PART);
    }

    /// Whether the block is there.
    pub fn contains(&self, key: CacheKey) -> bool {
        self.cold.contains(&key) || self.hot.contains(&key)
    }

    /// Notes that the block is about to be prefetched; false when it is there or on its way already.
    pub fn announce(&self, key: CacheKey) -> bool {
        !self.contains(key) && self.announced.add(key)
    }

    /// Takes an announcement back; false when somebody took the block over.
    pub fn take_announced(&self, key: CacheKey) -> bool {
        self.announced.take(&key)
    }

    /// The block's logical bytes, loading them with `load` when nobody has them yet. An error goes to all who waited,
    /// and is not cached; one of a `speculative` load only to those who speculate too.
    pub fn get_or_load(
        &self,
        key: CacheKey,
        metadata: bool,
        speculative: bool,
        load: impl FnOnce() -> Result<Loaded>,
    ) -> Result<Buf> {
        if let Some(found) = self.lookup(&key) {
            return found;
        }
        self.flights.join(key, speculative, || {
            // It may have landed between the lookup and taking off.
            if let Some(found) = self.lookup(&key) {
                return found;
            }
            self.misses.fetch_add(1, Ordering::Relaxed);
            if !speculative {
                self.announced.take(&key);
            }
            let Loaded { plain, packed } = load()?;
            match packed {
                Some((bytes, compress)) if !metadata => {
                    self.cold.insert(key, Stored::Packed(bytes, compress, plain.len()));
                    self.hot.insert(key, Stored::Plain(plain.clone()));
                }
                _ => self.cold.insert(key, Stored::Plain(plain.clone())),
            }
            Ok(plain)
        })
    }

    fn lookup(&self, key: &CacheKey) -> Option<Result<Buf>> {
        if let Some(Stored::Plain(plain)) = self.hot.get(key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            self.hot_hits.fetch_add(1, Ordering::Relaxed);
            return Some(Ok(plain));
        }
        let stored = self.cold.get(key)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        match stored {
            Stored::Plain(plain) => {
                self.hot_hits.fetch_add(1, Ordering::Relaxed);
                Some(Ok(plain))
            }
            Stored::Packed(bytes, compress, lsize) => Some(codec::decompress(compress, &bytes, lsize).map(|plain| {
                let plain = Buf::from(plain);
                self.hot.insert(*key, Stored::Plain(plain.clone()));
                plain
            })),
        }
    }

    /// Forgets one block: its place is about to hold something else that goes by the same key.
    pub fn forget(&self, key: CacheKey) {
        self.cold.remove(&key, |_| true);
        self.hot.remove(&key, |_| true);
    }

    /// Lets go of a block whose reader has it in a cache of its own. Compressed bytes stay: they are a smaller copy.
    pub fn release(&self, key: CacheKey) {
        self.hot.remove(&key, |_| true);
        self.cold.remove(&key, |stored| matches!(stored, Stored::Plain(_)));
    }

    /// Forgets all blocks of an opening of a pool.
    pub fn purge(&self, instance: u64) {
        self.cold.retain(|k| k.instance != instance);
        self.hot.retain(|k| k.instance != instance);
    }

    /// Forgets all decrypted blocks of an opening of a pool; called when a key is unloaded.
    pub fn purge_decrypted(&self, instance: u64) {
        self.cold.retain(|k| k.instance != instance || !k.protected);
        self.hot.retain(|k| k.instance != instance || !k.protected);
    }

    /// Figures.
    pub fn stats(&self) -> ArcStats {
        ArcStats {
            hits: self.hits.load(Ordering::Relaxed),
            hot_hits: self.hot_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            coalesced: self.flights.coalesced(),
            evictions: self.cold.evictions() + self.hot.evictions(),
            used: self.cold.used() + self.hot.used(),
            budget: self.cold.budget() + self.hot.budget(),
            entries: self.cold.entries() + self.hot.entries(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zfs_phys::Dva;

    fn key(n: u64) -> CacheKey {
        let dva = Dva::new(0, n << 12, 4096, false).word;
        CacheKey {
            instance: 1,
            dva,
            birth: n,
            hash: mix([1, dva[0], dva[1], n]),
            protected: n & 1 == 0,
            authenticated: false,
        }
    }

    fn put(arc: &ArcCache, n: u64, len: usize) -> Buf {
        arc.get_or_load(key(n), true, false, || Ok(Loaded { plain: vec![n as u8; len].into(), packed: None })).unwrap()
    }

    #[test]
    fn budget_holds_and_scans_pass_by() {
        let arc = ArcCache::new(4 << 20);
        for _ in 0..4 {
            for n in 0..64 {
                put(&arc, n, 8192);
            }
        }
        let misses = arc.stats().misses;
        assert_eq!(misses, 64);
        for n in 1000..5000 {
            put(&arc, n, 8192);
            assert!(arc.stats().used <= 4 << 20);
        }
        let before = arc.stats().misses;
        for n in 0..64 {
            put(&arc, n, 8192);
        }
        let lost = arc.stats().misses - before;
        assert!(lost < 16, "a scan threw out {lost} of 64 blocks in use");
    }

    #[test]
    fn purging_forgets_by_opening_and_by_secrecy() {
        let arc = ArcCache::new(1 << 20);
        put(&arc, 1, 100);
        put(&arc, 2, 100);
        arc.purge_decrypted(1);
        assert!(arc.contains(key(1)) && !arc.contains(key(2)));
        arc.purge(1);
        assert_eq!((arc.stats().entries, arc.stats().used), (0, 0));
    }

    #[test]
    fn released_blocks_leave_and_may_come_back() {
        let arc = ArcCache::new(1 << 20);
        for round in 0..1000 {
            put(&arc, 5, 1000);
            put(&arc, 6 + round, 1000);
            arc.release(key(5));
            assert!(!arc.contains(key(5)) && arc.contains(key(6 + round)));
            arc.release(key(6 + round));
        }
        assert_eq!((arc.stats().entries, arc.stats().used), (0, 0));
        let packed = || Ok(Loaded { plain: vec![1; 9].into(), packed: Some((vec![0; 3].into(), CompressKind::Zle)) });
        arc.get_or_load(key(1), false, false, packed).unwrap();
        arc.release(key(1));
        assert!(arc.contains(key(1)), "a compressed copy stays");
        // Released and inserted again, a block is evicted in its new turn, and counted once.
        for n in 10..3010 {
            put(&arc, n, 1000);
            if n % 3 == 0 {
                arc.release(key(n));
                put(&arc, n, 1000);
            }
            assert!(arc.stats().used <= 1 << 20);
        }
        arc.purge(1);
        assert_eq!((arc.stats().entries, arc.stats().used), (0, 0));
    }

    #[test]
    fn announced_blocks_are_taken_once() {
        let arc = ArcCache::new(1 << 20);
        assert!(arc.announce(key(1)) && !arc.announce(key(1)));
        assert!(arc.take_announced(key(1)) && !arc.take_announced(key(1)));
        assert!(arc.announce(key(2)));
        arc.get_or_load(key(2), false, false, || Ok(Loaded { plain: vec![2].into(), packed: None })).unwrap();
        assert!(!arc.take_announced(key(2)), "the reader took it over");
        assert!(!arc.announce(key(2)), "it is there");
    }

    #[test]
    fn shrinking_evicts_at_once() {
        let arc = ArcCache::new(8 << 20);
        for n in 0..500 {
            put(&arc, n, 8192);
        }
        arc.set_budget(1 << 20);
        assert!(arc.stats().used <= 1 << 20);
    }

    #[test]
    fn concurrent_misses_read_once() {
        let arc = ArcCache::new(1 << 20);
        let loads = AtomicU64::new(0);
        let gate = std::sync::Barrier::new(8);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    gate.wait();
                    let got = arc.get_or_load(key(7), false, false, || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(Loaded { plain: vec![7; 10].into(), packed: None })
                    });
                    assert_eq!(got.unwrap().len(), 10);
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn earnest_readers_do_not_take_speculative_failures() {
        let arc = ArcCache::new(1 << 20);
        let gate = std::sync::Barrier::new(2);
        std::thread::scope(|s| {
            s.spawn(|| {
                let got = arc.get_or_load(key(3), false, true, || {
                    gate.wait();
                    std::thread::sleep(std::time::Duration::from_millis(30));
                    Err(crate::Error::not_found("speculative"))
                });
                assert!(got.is_err());
            });
            gate.wait();
            let load = || Ok(Loaded { plain: vec![1].into(), packed: None });
            assert_eq!(arc.get_or_load(key(3), false, false, load).unwrap().len(), 1);
        });
    }

    #[test]
    fn a_loader_that_panics_leaves_no_waiter_behind() {
        let arc = ArcCache::new(1 << 20);
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = arc.get_or_load(key(1), false, false, || panic!("loader"));
        }));
        assert!(gone.is_err());
        assert_eq!(put(&arc, 1, 5).len(), 5);
    }
}
