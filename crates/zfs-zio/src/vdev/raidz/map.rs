//! Where the sectors of a block lie on the children of a RAID-Z vdev: pure arithmetic.
//!
//! A block is dealt out in rows of `width` sectors, each row starting with its parity; a block ends wherever it ends,
//! and its allocation is padded to a multiple of parity + 1 sectors. In memory a data column is contiguous, so the
//! sectors of the block run down the columns, not along the rows. With single parity the first two columns change
//! places in every other megabyte of the vdev.
//!
//! After an expansion, blocks keep the row width they were written with, while their sectors were moved to where a wider
//! vdev keeps them: such a map has one [`Row`] for each row of the block. During an expansion a row lies either at
//! its new place, at its old place (not copied yet), or — its first part, if copying was cut short — in the scratch
//! area in front of the data, where the new place's offset is lower by the boot area's size.

/// Bytes of the boot area that expansion uses as scratch (`VDEV_BOOT_SIZE`).
pub const SCRATCH_SIZE: u64 = 7 << 19;

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Which child.
    pub child: usize,
    /// Byte offset in the child's allocatable area. Scratch rows lie in front of it, hence the sign.
    pub offset: i64,
    /// Bytes; 0 for a column that only counts in the parity.
    pub size: usize,
    /// Where its bytes go: in the parity buffer for parity columns, in the block for data columns.
    pub mem: usize,
}

/// Columns that share parity; parity first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The columns.
    pub cols: Vec<Column>,
}

/// A block's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidMap {
    /// Rows with parity of their own.
    pub rows: Vec<Row>,
    /// Parity columns of each row.
    pub nparity: usize,
    /// Bytes of the block, whole sectors.
    pub data_len: usize,
    /// Bytes of all parity columns.
    pub parity_len: usize,
}

/// How far an expansion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reflow {
    /// Bytes of the vdev that have been moved.
    pub offset: u64,
    /// Whether the scratch area holds the truth for what has been moved.
    pub scratch: bool,
}

/// Geometry of a RAID-Z vdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidzGeometry {
    /// log2 of the sector size.
    pub ashift: u32,
    /// Children now.
    pub width: usize,
    /// Parity columns.
    pub nparity: usize,
    /// Children at creation.
    pub original_width: usize,
    /// (txg, width) pairs, ascending: blocks written from that txg on have that width.
    expansions: Vec<(u64, usize)>,
    /// Whether an expansion is under way.
    pub expanding: bool,
}

impl RaidzGeometry {
    /// Geometry from the configuration; nothing when it makes no sense.
    pub fn new(ashift: u32, width: usize, nparity: usize, expand_txgs: &[u64], expanding: bool) -> Option<Self> {
        let newest = width.checked_sub(usize::from(expanding))?;
        let original_width = newest.checked_sub(expand_txgs.len())?;
        if nparity == 0 || nparity > 3 || original_width <= nparity || !(9..=16).contains(&ashift) {
            return None;
        }
        let mut expansions: Vec<_> =
            expand_txgs.iter().enumerate().map(|(i, txg)| (*txg, original_width + 1 + i)).collect();
        expansions.sort_unstable();
        Some(Self { ashift, width, nparity, original_width, expansions, expanding })
    }

    /// Row width of blocks written in `txg`.
    pub fn logical_width(&self, txg: u64) -> usize {
        self.expansions.iter().rev().find(|(t, _)| *t <= txg).map_or(self.original_width, |(_, w)| *w)
    }

    /// Allocated bytes of a block of `psize` bytes written in `txg`.
    pub fn asize(&self, psize: u64, txg: u64) -> u64 {
        let (cols, parity) = (self.logical_width(txg) as u64, self.nparity as u64);
        let sectors = psize.max(1).div_ceil(1 << self.ashift);
        let all = sectors + parity * sectors.div_ceil(cols - parity);
        all.next_multiple_of(parity + 1) << self.ashift
    }

    /// The map of `size` bytes (whole sectors) at `offset`, written in `txg`.
    pub fn map(&self, offset: u64, size: usize, txg: u64, reflow: Option<Reflow>) -> RaidMap {
        let logical = self.logical_width(txg);
        if logical == self.width {
            self.map_one_row(offset, size)
        } else {
            let reflow = reflow.filter(|_| self.expanding).unwrap_or(Reflow { offset: u64::MAX, scratch: false });
            self.map_rows(offset, size, logical, reflow)
        }
    }

    fn map_one_row(&self, offset: u64, size: usize) -> RaidMap {
        let (width, nparity, shift) = (self.width, self.nparity, self.ashift);
        let first = offset >> shift;
        let sectors = size >> shift;
        let (quotient, rest) = (sectors / (width - nparity), sectors % (width - nparity));
        let big = if rest == 0 { 0 } else { rest + nparity };
        let count = if quotient == 0 { big } else { width };
        let (mut data, mut parity) = (0usize, 0usize);
        let mut cols = Vec::with_capacity(count);
        for c in 0..count {
            let place = first + c as u64;
            let size = (quotient + usize::from(c < big)) << shift;
            let mem = if c < nparity { &mut parity } else { &mut data };
            let child = (place % width as u64) as usize;
            let down = place / width as u64;
            cols.push(Column { child, offset: (down << shift) as i64, size, mem: *mem });
            *mem += size;
        }
        swap_parity(&mut cols, nparity, offset);
        RaidMap { rows: vec![Row { cols }], nparity, data_len: data, parity_len: parity }
    }

    fn map_rows(&self, offset: u64, size: usize, logical: usize, reflow: Reflow) -> RaidMap {
        let (nparity, shift) = (self.nparity, self.ashift);
        let sectors = size >> shift;
        let (quotient, rest) = (sectors / (logical - nparity), sectors % (logical - nparity));
        let big = if rest == 0 { 0 } else { rest + nparity };
        let total = sectors + nparity * (quotient + usize::from(rest != 0));
        let nrows = total.div_ceil(logical);
        let ncols = total.min(logical);
        let sector = 1usize << shift;
        let rows = (0..nrows)
            .map(|row| {
                let first = (offset >> shift) + (row * logical) as u64;
                let moved = first + ncols as u64 <= reflow.offset >> shift;
                let width = (self.width - usize::from(!moved)) as u64;
                let mut cols: Vec<Column> = (0..ncols)
                    .map(|c| {
                        let place = first + c as u64;
                        let mut at = ((place / width) << shift) as i64;
                        if moved && reflow.scratch {
                            at -= SCRATCH_SIZE as i64;
                        }
                        let past_end = row == nrows - 1 && big != 0 && c >= big;
                        let mem = if c < nparity {
                            row * nparity + c
                        } else if c < big || rest == 0 {
                            (c - nparity) * nrows + row
                        } else {
                            rest * nrows + (c - nparity - rest) * (nrows - 1) + row
                        };
                        let size = if past_end { 0 } else { sector };
                        Column { child: (place % width) as usize, offset: at, size, mem: mem << shift }
                    })
                    .collect();
                swap_parity(&mut cols, nparity, offset);
                Row { cols }
            })
            .collect();
        RaidMap { rows, nparity, data_len: size, parity_len: (nrows * nparity) << shift }
    }
}

/// Single parity changes places with the first data column in odd megabytes.
fn swap_parity(cols: &mut [Column], nparity: usize, offset: u64) {
    if let [a, b, ..] = cols
        && nparity == 1
        && offset & (1 << 20) != 0
    {
        std::mem::swap(&mut a.child, &mut b.child);
        std::mem::swap(&mut a.offset, &mut b.offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Every sector of the block and its parity has a place of its own on the vdev, in memory and on disk.
    fn check(map: &RaidMap, size: usize, width: usize, shift: u32) {
        let sector = 1usize << shift;
        let (mut places, mut memory, mut parity) = (HashSet::new(), HashSet::new(), HashSet::new());
        for row in &map.rows {
            let children: HashSet<_> = row.cols.iter().map(|c| c.child).collect();
            assert_eq!(children.len(), row.cols.len(), "two columns of a row on one child");
            for (i, col) in row.cols.iter().enumerate() {
                assert!(col.child < width);
                for s in 0..col.size / sector {
                    assert!(places.insert((col.child, col.offset + (s * sector) as i64)));
                    let mem = if i < map.nparity { &mut parity } else { &mut memory };
                    assert!(mem.insert(col.mem + s * sector));
                }
            }
        }
        assert_eq!(memory.len() * sector, size);
        assert!(memory.iter().all(|m| m + sector <= size));
        assert_eq!(parity.len() * sector, map.parity_len);
    }

    proptest! {
        #[test]
        fn one_row_maps_cover_the_block(
            parity in 1usize..=3, extra in 1usize..20, shift in 9u32..=13, first in 0u64..100_000, sectors in 1usize..300
        ) {
            let width = parity + extra;
            let g = RaidzGeometry::new(shift, width, parity, &[], false).unwrap();
            let map = g.map(first << shift, sectors << shift, 5, None);
            check(&map, sectors << shift, width, shift);
            let used = (sectors << shift) + map.parity_len;
            prop_assert!(used as u64 <= g.asize((sectors << shift) as u64, 5));
            // Nothing outside the rows the allocation covers.
            let asize = g.asize((sectors << shift) as u64, 5) >> shift;
            for col in &map.rows[0].cols {
                for s in 0..(col.size >> shift) as u64 {
                    let id = ((col.offset as u64 >> shift) + s) * width as u64 + col.child as u64;
                    prop_assert!(id >= first && id < first + asize);
                }
            }
        }

        #[test]
        fn expanded_maps_cover_the_block(
            parity in 1usize..=3, extra in 1usize..10, grown in 1usize..4, first in 0u64..100_000, sectors in 1usize..300,
            reflow in 0u64..100_500, expanding: bool, scratch: bool
        ) {
            let (shift, old) = (12, parity + extra);
            let width = old + grown;
            let txgs: Vec<u64> = (0..(grown - usize::from(expanding)) as u64).map(|i| 100 + i * 10).collect();
            let g = RaidzGeometry::new(shift, width, parity, &txgs, expanding).unwrap();
            prop_assert_eq!(g.logical_width(99), old);
            prop_assert_eq!(g.logical_width(1000), width - usize::from(expanding));
            // Only a vdev that grew by one at a time can be half moved from what `check` calls one place.
            let reflow = Reflow { offset: reflow << shift, scratch };
            let map = g.map(first << shift, sectors << shift, 50, Some(reflow));
            if !expanding {
                check(&map, sectors << shift, width, shift);
            } else {
                for row in &map.rows {
                    let children: HashSet<_> = row.cols.iter().map(|c| c.child).collect();
                    prop_assert_eq!(children.len(), row.cols.len());
                }
            }
        }
    }

    #[test]
    fn known_geometry() {
        // Five data sectors on three disks: two full columns of three and two, parity of three.
        let g = RaidzGeometry::new(12, 3, 1, &[], false).unwrap();
        let map = g.map(0, 5 << 12, 1, None);
        let cols = &map.rows[0].cols;
        assert_eq!(cols.iter().map(|c| c.size >> 12).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(cols.iter().map(|c| c.child).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(g.asize(5 << 12, 1), 8 << 12);
        let odd = g.map(1 << 20, 4096, 1, None);
        let even = g.map(2 << 20, 4096, 1, None);
        assert_eq!((1u64 << 20 >> 12) % 3, 1);
        assert_eq!(odd.rows[0].cols.iter().map(|c| c.child).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(even.rows[0].cols.iter().map(|c| c.child).collect::<Vec<_>>(), [2, 0]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(RaidzGeometry::new(12, 3, 3, &[], false).is_none());
        assert!(RaidzGeometry::new(12, 3, 1, &[1, 2], false).is_none());
        assert!(RaidzGeometry::new(12, 4, 0, &[], false).is_none());
        assert!(RaidzGeometry::new(40, 4, 1, &[], false).is_none());
    }
}
