//! A set of bytes kept as ranges that never touch: free space, frees that wait, allocations of one txg.
//!
//! Ranges are keyed by start in a B-tree; neighbours coalesce. A tree that allocations are taken from also keeps an
//! index by size, so that the best fit and the largest range are found at once; trees that only collect do without it.
//! A histogram by powers of two is kept along, because space maps store one and weights are made from it.
//!
//! Invariants: ranges are not empty, do not overlap and do not touch; `space`, the histogram and the index always agree
//! with them.
//!
//! Rejected alternative: bitmaps. A metaslab of 512 MiB at 512-byte sectors needs 128 KiB of bits whether it holds one
//! range or a million, and finding a fit in them is a scan.

use std::collections::{BTreeMap, BTreeSet};

/// Buckets of a histogram by powers of two: all a `u64` can need.
pub const BUCKETS: usize = 64;

/// An ordered set of `[start, end)` ranges of bytes.
#[derive(Debug, Clone)]
pub struct RangeTree {
    ranges: BTreeMap<u64, u64>,
    sizes: Option<BTreeSet<(u64, u64)>>,
    space: u64,
    histogram: [u64; BUCKETS],
}

impl Default for RangeTree {
    fn default() -> Self {
        Self { ranges: BTreeMap::new(), sizes: None, space: 0, histogram: [0; BUCKETS] }
    }
}

impl PartialEq for RangeTree {
    fn eq(&self, other: &Self) -> bool {
        self.space == other.space && self.ranges == other.ranges
    }
}

impl Eq for RangeTree {}

/// A caller's mistake about what is in the set: freeing twice, allocating what is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeConflict {
    /// Start of the range asked for.
    pub start: u64,
    /// Its end.
    pub end: u64,
}

impl RangeTree {
    /// An empty set without an index by size.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty set with an index by size.
    pub fn with_sizes() -> Self {
        Self { sizes: Some(BTreeSet::new()), ..Self::default() }
    }

    /// Builds the index by size, if there is none.
    pub fn index_sizes(&mut self) {
        self.sizes.get_or_insert_with(|| self.ranges.iter().map(|(s, e)| (e - s, *s)).collect());
    }

    /// Bytes in the set.
    pub fn space(&self) -> u64 {
        self.space
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.space == 0
    }

    /// Number of ranges.
    pub fn segments(&self) -> usize {
        self.ranges.len()
    }

    /// Number of ranges of `2^i` to `2^(i+1) - 1` bytes, for each `i`.
    pub fn histogram(&self) -> &[u64; BUCKETS] {
        &self.histogram
    }

    /// Ranges as (start, end), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(s, e)| (*s, *e))
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        let sizes = self.sizes.is_some().then(BTreeSet::new);
        *self = Self { sizes, ..Self::default() };
    }

    /// Takes everything out, leaving the set empty.
    pub fn take(&mut self) -> Self {
        let empty = Self { sizes: self.sizes.is_some().then(BTreeSet::new), ..Self::default() };
        std::mem::replace(self, empty)
    }

    fn insert_range(&mut self, start: u64, end: u64) {
        self.ranges.insert(start, end);
        self.note(start, end, true);
    }

    fn note(&mut self, start: u64, end: u64, add: bool) {
        let size = end - start;
        let bucket = &mut self.histogram[size.ilog2() as usize];
        if add {
            self.space += size;
            *bucket += 1;
        } else {
            self.space -= size;
            *bucket -= 1;
        }
        if let Some(sizes) = &mut self.sizes {
            if add {
                sizes.insert((size, start))
            } else {
                sizes.remove(&(size, start))
            };
        }
    }

    fn remove_range(&mut self, start: u64, end: u64) {
        self.ranges.remove(&start);
        self.note(start, end, false);
    }

    /// The range that reaches past `at` first: the one that holds it, or the next.
    fn range_at(&self, at: u64) -> Option<(u64, u64)> {
        let before = self.ranges.range(..=at).next_back().map(|(s, e)| (*s, *e)).filter(|r| r.1 > at);
        before.or_else(|| self.ranges.range(at..).next().map(|(s, e)| (*s, *e)))
    }

    /// The first part of a range that is in the set.
    pub fn overlap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let (s, e) = self.range_at(start).filter(|r| r.0 < end && start < end)?;
        Some((s.max(start), e.min(end)))
    }

    /// Whether any byte of `[start, end)` is in the set.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        start < end && self.range_at(start).is_some_and(|r| r.0 < end)
    }

    /// Whether all bytes of `[start, end)` are in the set.
    pub fn contains(&self, start: u64, end: u64) -> bool {
        start >= end || self.range_at(start).is_some_and(|r| r.0 <= start && r.1 >= end)
    }

    /// Adds a range none of which is in the set yet. Fails, changing nothing, when some of it is.
    pub fn add(&mut self, start: u64, end: u64) -> Result<(), RangeConflict> {
        if start >= end {
            return Ok(());
        }
        if self.overlaps(start, end) {
            return Err(RangeConflict { start, end });
        }
        let (mut from, mut to) = (start, end);
        if let Some((s, e)) = self.ranges.range(..start).next_back().map(|(s, e)| (*s, *e)).filter(|r| r.1 == start) {
            self.remove_range(s, e);
            from = s;
        }
        if let Some(e) = self.ranges.get(&end).copied() {
            self.remove_range(end, e);
            to = e;
        }
        self.insert_range(from, to);
        Ok(())
    }

    /// Removes a range all of which is in the set. Fails, changing nothing, when some of it is not.
    pub fn remove(&mut self, start: u64, end: u64) -> Result<(), RangeConflict> {
        if start >= end {
            return Ok(());
        }
        let Some((s, e)) = self.range_at(start).filter(|r| r.0 <= start && r.1 >= end) else {
            return Err(RangeConflict { start, end });
        };
        self.remove_range(s, e);
        if s < start {
            self.insert_range(s, start);
        }
        if end < e {
            self.insert_range(end, e);
        }
        Ok(())
    }

    /// Removes whatever of `[start, end)` is in the set; gives the bytes removed.
    pub fn clear_range(&mut self, start: u64, end: u64) -> u64 {
        let before = self.space;
        while let Some((s, e)) = self.range_at(start).filter(|r| r.0 < end && start < end) {
            self.remove_range(s, e);
            if s < start {
                self.insert_range(s, start);
            }
            if end < e {
                self.insert_range(end, e);
            }
        }
        before - self.space
    }

    /// Removes everything that is in `other`.
    pub fn subtract(&mut self, other: &RangeTree) {
        other.iter().for_each(|(s, e)| {
            self.clear_range(s, e);
        });
    }

    /// Adds everything of `other`. Fails at the first range that is in the set already; those before it stay added.
    pub fn add_all(&mut self, other: &RangeTree) -> Result<(), RangeConflict> {
        other.iter().try_for_each(|(s, e)| self.add(s, e))
    }

    /// Size of the largest range; 0 when empty.
    pub fn largest(&self) -> u64 {
        match &self.sizes {
            Some(sizes) => sizes.last().map_or(0, |(size, _)| *size),
            None => self.iter().map(|(s, e)| e - s).max().unwrap_or(0),
        }
    }

    /// Start of the first room for `size` bytes at or behind `from`, looking at no more than `most` ranges.
    pub fn first_fit(&self, from: u64, size: u64, most: usize) -> Option<u64> {
        let (first, _) = self.range_at(from)?;
        self.ranges.range(first..).take(most).find_map(|(s, e)| {
            let start = (*s).max(from);
            (e.checked_sub(start)? >= size).then_some(start)
        })
    }

    /// Start of the smallest range that has room for `size` bytes, the lowest of equals.
    pub fn best_fit(&self, size: u64) -> Option<u64> {
        match &self.sizes {
            Some(sizes) => sizes.range((size, 0)..).next().map(|(_, start)| *start),
            None => self.iter().map(|(s, e)| (e - s, s)).filter(|r| r.0 >= size).min().map(|r| r.1),
        }
    }

    /// The largest range as (start, end), the lowest of equals.
    pub fn largest_range(&self) -> Option<(u64, u64)> {
        let size = self.largest();
        let start = self.best_fit(size).filter(|_| size > 0)?;
        Some((start, start + size))
    }
}

impl FromIterator<(u64, u64)> for RangeTree {
    /// Ranges may overlap here: the union counts.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(iter: I) -> Self {
        let mut tree = Self::new();
        for (s, e) in iter.into_iter().filter(|r| r.0 < r.1) {
            tree.clear_range(s, e);
            // Nothing of it is left in the set, so it can be added.
            let _ = tree.add(s, e);
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOP: usize = 128;

    fn check(tree: &RangeTree, model: &[bool]) {
        let mut want = Vec::new();
        let mut at = 0;
        while at < TOP {
            if model[at] {
                let end = (at..TOP).find(|i| !model[*i]).unwrap_or(TOP);
                want.push((at as u64, end as u64));
                at = end;
            } else {
                at += 1;
            }
        }
        assert_eq!(tree.iter().collect::<Vec<_>>(), want);
        assert_eq!(tree.space(), model.iter().filter(|b| **b).count() as u64);
        assert_eq!(tree.largest(), want.iter().map(|r| r.1 - r.0).max().unwrap_or(0));
        assert_eq!(tree.largest_range().map(|r| r.1 - r.0), want.iter().map(|r| r.1 - r.0).max());
        let mut histogram = [0u64; BUCKETS];
        want.iter().for_each(|r| histogram[(r.1 - r.0).ilog2() as usize] += 1);
        assert_eq!(*tree.histogram(), histogram);
        for size in 1..TOP as u64 {
            let best = want.iter().filter(|r| r.1 - r.0 >= size).min_by_key(|r| (r.1 - r.0, r.0)).map(|r| r.0);
            assert_eq!(tree.best_fit(size), best);
        }
        for from in [0, 40, 100] {
            let first = want.iter().find(|r| r.1.saturating_sub(r.0.max(from)) >= 5).map(|r| r.0.max(from));
            assert_eq!(tree.first_fit(from, 5, usize::MAX), first);
        }
    }

    proptest! {
        #[test]
        fn a_set_of_bytes(sizes: bool, ops in proptest::collection::vec((0usize..3, 0usize..TOP, 1usize..40), 1..80)) {
            let mut tree = if sizes { RangeTree::with_sizes() } else { RangeTree::new() };
            let mut model = vec![false; TOP];
            for (op, start, len) in ops {
                let end = (start + len).min(TOP);
                let (all, any) = (model[start..end].iter().all(|b| *b), model[start..end].iter().any(|b| *b));
                let (s, e) = (start as u64, end as u64);
                prop_assert_eq!((tree.contains(s, e), tree.overlaps(s, e)), (all, any));
                let first = (start..end).find(|i| model[*i]);
                let part = first.map(|f| (f as u64, (f..end).find(|i| !model[*i]).unwrap_or(end) as u64));
                prop_assert_eq!(tree.overlap(s, e), part);
                match op {
                    0 => {
                        prop_assert_eq!(tree.add(s, e).is_ok(), !any);
                        if !any { model[start..end].fill(true); }
                    }
                    1 => {
                        prop_assert_eq!(tree.remove(s, e).is_ok(), all);
                        if all { model[start..end].fill(false); }
                    }
                    _ => {
                        let had = model[start..end].iter().filter(|b| **b).count() as u64;
                        prop_assert_eq!(tree.clear_range(s, e), had);
                        model[start..end].fill(false);
                    }
                }
                check(&tree, &model);
            }
            let copy: RangeTree = tree.iter().collect();
            prop_assert_eq!(&copy, &tree);
            let mut less = tree.clone();
            less.subtract(&copy);
            prop_assert!(less.is_empty() && tree.take() == copy && tree.is_empty());
        }
    }
}
