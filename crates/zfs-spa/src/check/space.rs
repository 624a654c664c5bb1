//! An image of the pool's space: which sectors the space maps say are allocated, and which the walk has claimed.
//!
//! Two bits for each sector of each top-level vdev, in chunks that exist only where something is allocated. The
//! allocated bits are filled in before the walk and do not change during it; claiming sets claimed bits with atomic
//! operations, so any number of threads may claim at once without a lock. After the walk, allocated and not claimed
//! is a leak; claiming what is not allocated, or twice, is reported at once with the name of the block.
//!
//! Sizes come from the disk: what lies outside of a vdev is refused, and the number of chunks is bounded.
//!
//! Rejected alternative: range trees, as OpenZFS uses. They need a lock and an allocation for each claim, and are
//! smaller only when the pool is nearly empty, when the chunks here are few as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 512;
/// Sectors of one chunk.
const CHUNK: u64 = WORDS as u64 * 64;
/// Most chunks of one vdev: 2^20 chunks of 8 KiB are 8 GiB of bits, enough for 128 TiB of 4 KiB sectors in use.
const MAX_CHUNKS: usize = 1 << 20;

struct Chunk {
    alloc: [u64; WORDS],
    claimed: [AtomicU64; WORDS],
}

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self { alloc: [0; WORDS], claimed: [const { AtomicU64::new(0) }; WORDS] })
    }
}

/// A run of space on a top-level vdev, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Top-level vdev.
    pub vdev: u64,
    /// Offset.
    pub offset: u64,
    /// Length.
    pub size: u64,
}

/// What was wrong with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimError {
    /// Some of it is free according to the space maps.
    Free,
    /// Some of it belongs to another block too.
    Overlap,
    /// It does not lie on the vdev, or not on sector boundaries.
    Outside,
}

/// Bits of one top-level vdev.
pub struct VdevSpace {
    id: u64,
    ashift: u32,
    sectors: u64,
    chunks: HashMap<u64, Box<Chunk>>,
}

/// The words that sectors `from..to` touch: chunk, word, mask.
fn pieces(from: u64, to: u64) -> impl Iterator<Item = (u64, usize, u64)> {
    let mut at = from;
    std::iter::from_fn(move || {
        if at >= to {
            return None;
        }
        let low = at % 64;
        let n = (64 - low).min(to - at);
        let mask = if n == 64 { u64::MAX } else { ((1u64 << n) - 1) << low };
        let out = (at / CHUNK, (at % CHUNK / 64) as usize, mask);
        at += n;
        Some(out)
    })
}

impl VdevSpace {
    /// An empty image of a vdev of `asize` bytes with sectors of `1 << ashift`.
    pub fn new(id: u64, ashift: u64, asize: u64) -> Self {
        let ashift = ashift.clamp(9, 24) as u32;
        Self { id, ashift, sectors: asize >> ashift, chunks: HashMap::new() }
    }

    fn range(&self, offset: u64, size: u64) -> Option<(u64, u64)> {
        let mask = (1u64 << self.ashift) - 1;
        let end = offset.checked_add(size)?;
        if size == 0 || offset & mask != 0 || size & mask != 0 || end >> self.ashift > self.sectors {
            return None;
        }
        Some((offset >> self.ashift, end >> self.ashift))
    }

    /// Marks space as allocated; false when it lies outside or was allocated already.
    pub fn allocate(&mut self, offset: u64, size: u64) -> bool {
        let Some((from, to)) = self.range(offset, size) else { return false };
        let mut clean = true;
        for (chunk, word, mask) in pieces(from, to) {
            if !self.chunks.contains_key(&chunk) && self.chunks.len() >= MAX_CHUNKS {
                return false;
            }
            let c = self.chunks.entry(chunk).or_insert_with(Chunk::new);
            if let Some(w) = c.alloc.get_mut(word) {
                clean &= *w & mask == 0;
                *w |= mask;
            }
        }
        clean
    }

    /// Marks space as free; false when it lies outside or was free already.
    pub fn free(&mut self, offset: u64, size: u64) -> bool {
        let Some((from, to)) = self.range(offset, size) else { return false };
        let mut clean = true;
        for (chunk, word, mask) in pieces(from, to) {
            match self.chunks.get_mut(&chunk).and_then(|c| c.alloc.get_mut(word)) {
                Some(w) => {
                    clean &= *w & mask == mask;
                    *w &= !mask;
                }
                None => clean = false,
            }
        }
        clean
    }

    /// Claims space for a block.
    pub fn claim(&self, offset: u64, size: u64) -> Result<(), ClaimError> {
        let (from, to) = self.range(offset, size).ok_or(ClaimError::Outside)?;
        let mut result = Ok(());
        for (chunk, word, mask) in pieces(from, to) {
            let c = self.chunks.get(&chunk).and_then(|c| Some((c.alloc.get(word)?, c.claimed.get(word)?)));
            let Some((alloc, claimed)) = c else {
                result = Err(ClaimError::Free);
                continue;
            };
            let before = claimed.fetch_or(mask, Ordering::Relaxed);
            if alloc & mask != mask {
                result = Err(ClaimError::Free);
            } else if before & mask != 0 && result.is_ok() {
                result = Err(ClaimError::Overlap);
            }
        }
        result
    }

    /// Bytes of `offset..offset + size` that are allocated and nobody claimed.
    pub fn unclaimed(&self, offset: u64, size: u64) -> u64 {
        let Some((from, to)) = self.range(offset, size) else { return 0 };
        let bits = |(chunk, word, mask): (u64, usize, u64)| {
            let c = self.chunks.get(&chunk)?;
            Some(u64::from((c.alloc.get(word)? & !c.claimed.get(word)?.load(Ordering::Relaxed) & mask).count_ones()))
        };
        pieces(from, to).filter_map(bits).sum::<u64>() << self.ashift
    }

    fn runs(&self, wanted: impl Fn(u64, u64) -> u64, mut f: impl FnMut(Segment)) {
        let mut keys: Vec<u64> = self.chunks.keys().copied().collect();
        keys.sort_unstable();
        let mut open: Option<(u64, u64)> = None;
        let mut emit = |run: (u64, u64)| {
            f(Segment { vdev: self.id, offset: run.0 << self.ashift, size: (run.1 - run.0) << self.ashift });
        };
        for key in keys {
            let Some(c) = self.chunks.get(&key) else { continue };
            for (i, (alloc, claimed)) in c.alloc.iter().zip(&c.claimed).enumerate() {
                let base = key * CHUNK + i as u64 * 64;
                let mut bits = wanted(*alloc, claimed.load(Ordering::Relaxed));
                while bits != 0 {
                    let start = u64::from(bits.trailing_zeros());
                    let len = u64::from((!(bits >> start)).trailing_zeros());
                    let run = (base + start, base + start + len);
                    match &mut open {
                        Some(o) if o.1 == run.0 => o.1 = run.1,
                        _ => {
                            if let Some(o) = open.replace(run) {
                                emit(o);
                            }
                        }
                    }
                    bits = if start + len >= 64 { 0 } else { bits & (u64::MAX << (start + len)) };
                }
            }
        }
        if let Some(o) = open {
            emit(o);
        }
    }

    /// Calls `f` for every run that is allocated and not claimed, in order.
    pub fn leaks(&self, f: impl FnMut(Segment)) {
        self.runs(|alloc, claimed| alloc & !claimed, f);
    }

    /// Calls `f` for every allocated run, in order.
    pub fn allocated(&self, f: impl FnMut(Segment)) {
        self.runs(|alloc, _| alloc, f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn claims_are_checked() {
        let mut v = VdevSpace::new(3, 12, 64 << 20);
        assert!(v.allocate(4096, 40 << 20) && !v.allocate(8192, 4096));
        assert!(v.free(8192, 4096) && !v.free(8192, 4096));
        assert_eq!(v.claim(4096, 4096), Ok(()));
        assert_eq!(v.claim(4096, 4096), Err(ClaimError::Overlap));
        assert_eq!(v.claim(8192, 4096), Err(ClaimError::Free));
        assert_eq!(v.claim(50 << 20, 4096), Err(ClaimError::Free));
        assert_eq!(v.claim(100, 4096), Err(ClaimError::Outside));
        assert_eq!(v.claim(u64::MAX - 4095, 4096), Err(ClaimError::Outside));
        assert_eq!(v.claim(12288, (40 << 20) - 8192), Ok(()));
        let mut left = Vec::new();
        v.leaks(|s| left.push(s));
        assert_eq!(left, []);
    }

    proptest! {
        #[test]
        fn leaks_are_what_was_not_claimed(all in proptest::collection::btree_set(0u64..100_000, 1..60), skip in 0usize..60) {
            let mut v = VdevSpace::new(0, 9, 100_001 << 9);
            all.iter().for_each(|s| assert!(v.allocate(s << 9, 512)));
            let left: Vec<u64> = all.iter().copied().skip(skip).collect();
            all.iter().take(skip).for_each(|s| assert_eq!(v.claim(s << 9, 512), Ok(())));
            let mut got = Vec::new();
            v.leaks(|s| got.extend((0..s.size >> 9).map(|i| (s.offset >> 9) + i)));
            prop_assert_eq!(got, left);
            prop_assert_eq!(v.unclaimed(0, 100_001 << 9), (all.len().saturating_sub(skip) as u64) << 9);
        }
    }
}
