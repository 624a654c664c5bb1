//! Detection of sequential reads, per object.
//!
//! A handful of streams is kept, each the block expected next and how far ahead was already asked for. A read at the
//! expected block makes the stream reach further ahead, twice as far each time up to a limit; a read elsewhere starts
//! a new stream in place of the least recently used. Nothing is fetched for a stream until its second read. The
//! distances are OpenZFS's in kind (`zfetch`), counted in bytes so that small and large records behave alike.

/// Streams per object.
const STREAMS: usize = 8;
/// First distance, bytes.
const FIRST: u64 = 512 << 10;
/// Longest distance, bytes.
const LONGEST: u64 = 16 << 20;
/// Most blocks asked for at once.
const MOST_BLOCKS: u64 = 256;

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    next: u64,
    ahead: u64,
    distance: u64,
    used: u64,
}

/// The streams of one object.
#[derive(Debug, Default)]
pub(crate) struct Zfetch {
    streams: Vec<Stream>,
    clock: u64,
}

impl Zfetch {
    /// Notes that blocks `first..first + count` (of `blksz` bytes) are being read; gives the range of blocks to fetch
    /// ahead of need, possibly empty.
    pub(crate) fn access(&mut self, first: u64, count: u64, blksz: u64) -> std::ops::Range<u64> {
        self.clock += 1;
        let (clock, end) = (self.clock, first.saturating_add(count));
        let blksz = blksz.max(1);
        // Parallel readers deliver a sequential stream slightly out of order; some slack, as wide as a few of their
        // requests, absorbs that.
        let slack = count.saturating_mul(4).max(4);
        let near = |s: &&mut Stream| first <= s.next.saturating_add(slack) && end.saturating_add(2 * slack) > s.next;
        if let Some(s) = self.streams.iter_mut().find(near) {
            s.used = clock;
            if end <= s.next {
                return 0..0;
            }
            s.next = end;
            s.distance = (s.distance * 2).clamp(FIRST, LONGEST);
            let target = end.saturating_add((s.distance / blksz).clamp(1, MOST_BLOCKS));
            let from = s.ahead.max(end);
            // Asking in bigger pieces: not before half the distance is used up.
            if from < target && (target - from) * 2 * blksz >= s.distance {
                s.ahead = target;
                return from..target;
            }
            return 0..0;
        }
        let fresh = Stream { next: end, ahead: end, distance: 0, used: clock };
        if self.streams.len() < STREAMS {
            self.streams.push(fresh);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|s| s.used) {
            *oldest = fresh;
        }
        0..0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_read_is_fetched_ahead_once() {
        let mut z = Zfetch::default();
        let mut asked = Vec::new();
        for b in 0..1000 {
            asked.extend(z.access(b, 1, 131_072));
        }
        assert!(asked.windows(2).all(|w| w[1] == w[0] + 1), "each block once, in order");
        assert!(asked.first().is_some_and(|&b| b == 2));
        assert!(asked.last().is_some_and(|&b| (1000..1000 + 129).contains(&b)), "{:?}", asked.last());
    }

    #[test]
    fn random_reads_fetch_nothing() {
        let mut z = Zfetch::default();
        let mut b = 1u64;
        for _ in 0..1000 {
            b = b.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            assert!(z.access(b >> 20, 1, 131_072).is_empty());
        }
    }

    #[test]
    fn interleaved_streams_are_told_apart() {
        let mut z = Zfetch::default();
        let mut asked = 0;
        for b in 0..50 {
            for s in 0..4u64 {
                asked += z.access(s * 1_000_000 + b, 1, 131_072).count();
            }
        }
        assert!(asked > 200);
    }

    #[test]
    fn rereading_a_block_asks_for_nothing() {
        let mut z = Zfetch::default();
        z.access(0, 1, 4096);
        z.access(1, 1, 4096);
        assert!(z.access(1, 1, 4096).is_empty());
        assert!(z.access(0, 2, 4096).is_empty());
    }
}
