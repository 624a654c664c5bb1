//! Block statistics: counts and sizes by type and level, and histograms of sizes.
//!
//! Each thread counts into a part of its own, so counting a block takes an uncontended lock; the parts are added up
//! when the walk is over.

use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use zfs_phys::BlkPtr;

/// Old object types.
pub const TYPES_OLD: usize = 54;
/// Row of blocks in lists of what is to be freed.
pub const TYPE_DEFERRED: usize = 54;
/// Row of additional copies of deduplicated blocks (never used any more).
pub const TYPE_DITTO: usize = 55;
/// Row of object types that are not enumerated.
pub const TYPE_OTHER: usize = 56;
/// Rows.
pub const TYPES: usize = 57;
/// Levels.
pub const LEVELS: usize = 12;
/// Buckets of the histogram of physical sizes: 512-byte sectors up to 128 KiB, and one for all above.
pub const PSIZE_BUCKETS: usize = 258;
/// Buckets by powers of two: up to 16 MiB.
pub const POW2_BUCKETS: usize = 25;
/// Kinds of embedded block pointers told apart.
pub const EMBEDDED_TYPES: usize = 3;
/// Parts to count in.
const PARTS: usize = 32;

/// Sums over some blocks, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Blocks.
    pub count: u64,
    /// Logical size.
    pub lsize: u64,
    /// Compressed size.
    pub psize: u64,
    /// Allocated size.
    pub asize: u64,
    /// Addresses that are gang headers.
    pub gangs: u64,
    /// Blocks with two copies on one vdev.
    pub ditto_same_vdev: u64,
    /// Blocks with two copies in one metaslab.
    pub ditto_same_ms: u64,
}

impl Sums {
    /// Adds other sums.
    pub fn add(&mut self, o: &Sums) {
        self.count += o.count;
        self.lsize += o.lsize;
        self.psize += o.psize;
        self.asize += o.asize;
        self.gangs += o.gangs;
        self.ditto_same_vdev += o.ditto_same_vdev;
        self.ditto_same_ms += o.ditto_same_ms;
    }
}

/// Histogram by powers of two: blocks and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pow2 {
    /// Blocks whose size has its highest bit there.
    pub count: [u64; POW2_BUCKETS],
    /// Their bytes.
    pub bytes: [u64; POW2_BUCKETS],
}

impl Pow2 {
    fn take(&mut self, size: u64) {
        let i = (size.max(1).ilog2() as usize).min(POW2_BUCKETS - 1);
        if let (Some(c), Some(b)) = (self.count.get_mut(i), self.bytes.get_mut(i)) {
            *c += 1;
            *b += size;
        }
    }

    fn add(&mut self, o: &Pow2) {
        self.count.iter_mut().zip(o.count).for_each(|(a, b)| *a += b);
        self.bytes.iter_mut().zip(o.bytes).for_each(|(a, b)| *a += b);
    }
}

/// Statistics over blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockStats {
    /// By level, then type.
    cells: Vec<Sums>,
    /// Histograms of physical size, by level then type, when asked for.
    psizes: Vec<Vec<u64>>,
    /// Embedded pointers by kind.
    pub embedded: [u64; EMBEDDED_TYPES],
    /// Embedded pointers by kind and payload length.
    pub embedded_sizes: Vec<[u64; 113]>,
    /// Physical sizes.
    pub psize: Pow2,
    /// Logical sizes.
    pub lsize: Pow2,
    /// Allocated sizes.
    pub asize: Pow2,
}

impl BlockStats {
    /// Empty statistics, with histograms by type when `detailed`.
    pub fn new(detailed: bool) -> Self {
        let n = LEVELS * TYPES;
        Self {
            cells: vec![Sums::default(); n],
            psizes: if detailed { vec![Vec::new(); n] } else { Vec::new() },
            embedded: [0; EMBEDDED_TYPES],
            embedded_sizes: vec![[0; 113]; EMBEDDED_TYPES],
            psize: Pow2::default(),
            lsize: Pow2::default(),
            asize: Pow2::default(),
        }
    }

    /// Counts a block under row `kind`. `same_ms` tells whether two offsets of a vdev lie in one metaslab.
    pub fn count(&mut self, bp: &BlkPtr, kind: usize, same_ms: impl Fn(u64, u64, u64) -> bool) {
        let level = usize::from(bp.level()).min(LEVELS - 1);
        let at = level * TYPES + kind.min(TYPES - 1);
        let (same_vdev, in_ms) = ditto(bp, same_ms);
        let psize = if bp.is_embedded() { 0 } else { bp.psize() };
        let one = Sums {
            count: 1,
            lsize: bp.lsize(),
            psize,
            asize: bp.asize(),
            gangs: bp.dvas().filter(|d| d.is_gang()).count() as u64,
            ditto_same_vdev: u64::from(same_vdev),
            ditto_same_ms: u64::from(in_ms),
        };
        if let Some(cell) = self.cells.get_mut(at) {
            cell.add(&one);
        }
        if let Some(h) = self.psizes.get_mut(at) {
            h.resize(PSIZE_BUCKETS, 0);
            let i = ((psize >> 9) as usize).min(PSIZE_BUCKETS - 1);
            h.iter_mut().skip(i).take(1).for_each(|v| *v += 1);
        }
        if bp.is_embedded() {
            let e = usize::from(bp.embedded_type()).min(EMBEDDED_TYPES - 1);
            self.embedded.iter_mut().skip(e).take(1).for_each(|v| *v += 1);
            let sizes = self.embedded_sizes.get_mut(e);
            if let Some(v) = sizes.and_then(|s| s.get_mut(bp.psize() as usize)) {
                *v += 1;
            }
            return;
        }
        self.psize.take(psize);
        self.lsize.take(one.lsize);
        self.asize.take(one.asize);
    }

    fn add(&mut self, o: &BlockStats) {
        self.cells.iter_mut().zip(&o.cells).for_each(|(a, b)| a.add(b));
        for (a, b) in self.psizes.iter_mut().zip(&o.psizes).filter(|(_, b)| !b.is_empty()) {
            a.resize(PSIZE_BUCKETS, 0);
            a.iter_mut().zip(b).for_each(|(x, y)| *x += y);
        }
        self.embedded.iter_mut().zip(o.embedded).for_each(|(a, b)| *a += b);
        for (a, b) in self.embedded_sizes.iter_mut().zip(&o.embedded_sizes) {
            a.iter_mut().zip(b).for_each(|(x, y)| *x += y);
        }
        self.psize.add(&o.psize);
        self.lsize.add(&o.lsize);
        self.asize.add(&o.asize);
    }

    fn matching(level: Option<usize>, kind: Option<usize>) -> impl Fn(usize) -> bool {
        move |i| level.is_none_or(|l| i / TYPES == l) && kind.is_none_or(|k| i % TYPES == k)
    }

    /// Sums of one level or all, and one type or all.
    pub fn sums(&self, level: Option<usize>, kind: Option<usize>) -> Sums {
        let wanted = Self::matching(level, kind);
        let mut out = Sums::default();
        self.cells.iter().enumerate().filter(|(i, _)| wanted(*i)).for_each(|(_, c)| out.add(c));
        out
    }

    /// Histogram of physical sizes of one level or all, and one type or all.
    pub fn psize_histogram(&self, level: Option<usize>, kind: Option<usize>) -> Vec<u64> {
        let wanted = Self::matching(level, kind);
        let mut out = vec![0; PSIZE_BUCKETS];
        for (_, h) in self.psizes.iter().enumerate().filter(|(i, _)| wanted(*i)) {
            out.iter_mut().zip(h).for_each(|(a, b)| *a += b);
        }
        out
    }
}

/// Whether two copies share a vdev, and whether two share a metaslab.
fn ditto(bp: &BlkPtr, same_ms: impl Fn(u64, u64, u64) -> bool) -> (bool, bool) {
    let n = bp.ndvas();
    let (mut vdev, mut ms) = (false, false);
    for a in 0..n {
        for b in a + 1..n {
            let (x, y) = (bp.dva(a), bp.dva(b));
            if x.vdev() == y.vdev() {
                vdev = true;
                ms |= same_ms(x.vdev(), x.offset(), y.offset());
            }
        }
    }
    (vdev, ms)
}

/// Statistics that many threads add to.
pub struct SharedStats {
    parts: Vec<Mutex<BlockStats>>,
}

impl SharedStats {
    /// Empty ones.
    pub fn new(detailed: bool) -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::new(BlockStats::new(detailed))).collect() }
    }

    /// Runs `f` on this thread's part.
    pub fn with(&self, f: impl FnOnce(&mut BlockStats)) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed)));
        if let Some(part) = self.parts.get(MINE.get() % PARTS) {
            f(&mut part.lock());
        }
    }

    /// The sum of all parts.
    pub fn total(&self) -> BlockStats {
        let mut parts = self.parts.iter();
        let mut out = parts.next().map(|p| p.lock().clone()).unwrap_or_else(|| BlockStats::new(false));
        parts.for_each(|p| out.add(&p.lock()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_histograms() {
        let mut bp = BlkPtr::default();
        bp.word[0] = 2;
        bp.word[1] = 8;
        bp.word[2] = 2;
        bp.word[3] = 800;
        bp.word[6] = (19 << 48) | (2 << 40) | (2 << 32) | (1 << 16) | 7;
        let shared = SharedStats::new(true);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| shared.with(|st| st.count(&bp, 19, |_, a, b| a >> 12 == b >> 12)));
            }
        });
        let t = shared.total();
        let want =
            Sums { count: 4, lsize: 16384, psize: 4096, asize: 8192, gangs: 0, ditto_same_vdev: 4, ditto_same_ms: 0 };
        assert_eq!((t.sums(None, None), t.sums(Some(0), Some(19)), t.sums(Some(1), None).count), (want, want, 0));
        assert_eq!((t.psize_histogram(None, None)[2], t.psize.count[10], t.lsize.bytes[12]), (4, 4, 16384));
    }
}
