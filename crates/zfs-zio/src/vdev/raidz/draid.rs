//! dRAID: groups of data and parity columns dealt over all children by fixed permutations, with the spares' share
//! spread among them (module/zfs/vdev_draid.c).
//!
//! The address space is cut into groups of 16 MiB for each column. `ngroups` groups in a row make a slice, which uses
//! one permutation of the children; its last columns are the distributed spares'. A block may run over the end of a
//! group, so its map has one or two rows. Permutations are made from a seed fixed for each number of children and
//! verified by checksum, as every block's place depends on them.
//!
//! With failure groups the children form several equal sets of `children` each, `width` in all; permutations come in
//! batches of as many as there are sets, disks of the same number being shuffled between sets.

use super::draid_maps::MAPS;
use super::map::{Column, RaidMap, Row};
use zfs_codec::checksum::Fletcher4;
use zfs_phys::Endian;

/// Bytes of each column of a group.
const ROW_HEIGHT: u64 = 16 << 20;
/// First half of the generator's seed (`VDEV_DRAID_SEED`).
const SEED: u64 = 0x000d_7a1d_5eed;
/// Most children of a permutation.
const MAX_CHILDREN: u64 = 255;
/// Bytes at the end of each child kept for expansion.
const REFLOW_RESERVE: u64 = 2 * ROW_HEIGHT;

/// Geometry of a dRAID vdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraidGeometry {
    ashift: u32,
    ndata: u64,
    nparity: u64,
    nspares: u64,
    ngroups: u64,
    children: u64,
    width: u64,
    group_width: u64,
    group_size: u64,
    ndisks: u64,
    slice_size: u64,
    nperms: u64,
    perms: Vec<u8>,
}

/// xoroshiro128++ by Blackman and Vigna (public domain).
struct Generator([u64; 2]);

impl Generator {
    fn next(&mut self) -> u64 {
        let [a, b] = self.0;
        let result = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
        let b = b ^ a;
        self.0 = [a.rotate_left(49) ^ b ^ (b << 21), b.rotate_left(28)];
        result
    }
}

/// The permutations of `children` children, one after the other; nothing when they come out wrong.
fn permutations(children: usize) -> Option<Vec<u8>> {
    let (seed, checksum) = *MAPS.get(children.checked_sub(2)?)?;
    let nperms = if children < 32 { 256 } else { 512 };
    let mut generator = Generator([SEED, seed]);
    let mut row: Vec<u8> = (0..children).map(|i| i as u8).collect();
    let mut out = Vec::with_capacity(children * nperms);
    for _ in 0..nperms {
        for j in (1..children).rev() {
            let k = (generator.next() % (j as u64 + 1)) as usize;
            row.swap(j, k);
        }
        out.extend_from_slice(&row);
    }
    // The sum is defined over the bytes as little-endian words.
    let sum = Fletcher4::of(&out, Endian::Little);
    (sum[0] == checksum).then_some(out)
}

/// Mixes disks of the same number between the sets of a wide vdev.
fn shuffle_sets(perms: &mut [u8], children: usize, sets: usize, seed: u64) {
    let batches = perms.len() / children / sets;
    let mut generator = Generator([SEED, seed]);
    for batch in perms.chunks_exact_mut(children * sets).take(batches) {
        for j in 0..children {
            let disk = batch[j];
            // Sets done before this one carry higher numbers already, so the disk is looked for by its plain number.
            let place: Vec<usize> = (0..sets)
                .map(|k| match k {
                    0 => j,
                    _ => (0..children).rev().find(|l| batch[k * children + l] == disk).unwrap_or(0),
                })
                .collect();
            for k in (1..sets).rev() {
                batch[k * children + place[k]] += (k * children) as u8;
            }
            for k in (1..sets).rev() {
                let l = (generator.next() % (k as u64 + 1)) as usize;
                batch.swap(k * children + place[k], l * children + place[l]);
            }
        }
    }
}

impl DraidGeometry {
    /// Geometry from the configuration; nothing when it makes no sense.
    pub fn new(
        ashift: u32,
        width: u64,
        nchildren: Option<u64>,
        (ndata, nparity, nspares, ngroups): (u64, u64, u64, u64),
    ) -> Option<Self> {
        let children = nchildren.unwrap_or(width);
        let sane = (2..=MAX_CHILDREN).contains(&children)
            && width <= MAX_CHILDREN
            && width.is_multiple_of(children)
            && (1..=3).contains(&nparity)
            && (1..=MAX_CHILDREN).contains(&ndata)
            && nspares <= 100
            && (1..=MAX_CHILDREN).contains(&ngroups)
            && (9..=16).contains(&ashift);
        if !sane {
            return None;
        }
        let sets = width / children;
        if children < ndata + nparity + nspares.div_ceil(sets) {
            return None;
        }
        let (group_width, ndisks) = (ndata + nparity, width - nspares);
        let group_size = group_width * ROW_HEIGHT;
        if !(group_width * ngroups).is_multiple_of(ndisks) || ngroups < sets {
            return None;
        }
        let mut perms = permutations(children as usize)?;
        if sets > 1 {
            shuffle_sets(&mut perms, children as usize, sets as usize, MAPS[children as usize - 2].0);
        }
        Some(Self {
            ashift,
            ndata,
            nparity,
            nspares,
            ngroups,
            children,
            width,
            group_width,
            group_size,
            ndisks,
            slice_size: group_size * ngroups / ndisks,
            nperms: if children < 32 { 256 } else { 512 },
            perms,
        })
    }

    /// Smallest size of a child of a vdev of `asize` bytes.
    pub fn min_child_asize(&self, asize: u64) -> u64 {
        REFLOW_RESERVE + asize.div_ceil(self.ndisks).next_multiple_of(ROW_HEIGHT)
    }

    /// Allocated bytes of a block of `psize` bytes: whole stripes.
    pub fn asize(&self, psize: u64) -> u64 {
        psize.max(1).div_ceil(self.min_alloc()) * (self.group_width << self.ashift)
    }

    /// Smallest allocation, bytes of data.
    pub fn min_alloc(&self) -> u64 {
        self.ndata << self.ashift
    }

    /// Allocations start at multiples of this and take multiples of it.
    pub fn stripe(&self) -> u64 {
        self.group_width << self.ashift
    }

    /// Distributed spares.
    pub fn nspares(&self) -> u64 {
        self.nspares
    }

    fn sets(&self) -> u64 {
        self.width / self.children
    }

    /// The child at `index` of permutation number `perm`.
    fn child(&self, perm: u64, index: u64) -> usize {
        let (sets, children) = (self.sets(), self.children);
        let nperms = self.nperms / sets * sets;
        let place = perm % (nperms * children);
        let base = (place / (children * sets) * (children * sets)) as usize;
        let iter = place % children + perm % sets * children;
        let at = |i: u64| u64::from(self.perms.get(base + i as usize).copied().unwrap_or(0));
        let child = if sets > 1 {
            at((index + iter) % children + iter / children * children)
        } else {
            (at(index) + iter) % children
        };
        child as usize
    }

    /// The child whose space stands in for spare `spare` at byte `offset` of a child.
    pub fn spare_child(&self, spare: u64, offset: u64) -> Option<usize> {
        if spare >= self.nspares {
            return None;
        }
        let perm = offset / self.slice_size * self.sets() + spare % self.sets();
        Some(self.child(perm, self.children - 1 - spare / self.sets()))
    }

    /// Where a group's stripe starts: permutation, first index in it, columns in use, byte offset on the children.
    fn locate(&self, offset: u64) -> (u64, u64, u64, u64) {
        let (sets, height) = (self.sets(), ROW_HEIGHT >> self.ashift);
        let group = offset / self.group_size;
        let slice = group / self.ngroups;
        let group = group % self.ngroups;
        // Sets before `few` carry one spare more than the others, hence one group fewer.
        let few = self.nspares % sets;
        let per_set = self.ngroups / sets;
        let set = if few == 0 || group < few * per_set {
            group / per_set
        } else {
            few + (group - few * per_set) / (per_set + 1)
        };
        let larger = few != 0 && set >= few;
        let ndisks = self.ndisks / sets + u64::from(larger);
        let before = if few == 0 || set <= few { set * per_set } else { few * per_set + (set - few) * (per_set + 1) };
        let group = group - before;
        let sector = (offset >> self.ashift) % (height * self.group_width);
        let slice_rows = self.group_width * self.ngroups / self.ndisks;
        let in_set = per_set + u64::from(larger);
        let row = slice * slice_rows + (group % in_set) * self.group_width / ndisks;
        let start = group * self.group_width % ndisks;
        (slice * sets + set, start, ndisks, (height * row + sector / self.group_width) << self.ashift)
    }

    /// The map of `size` bytes (whole sectors) at `offset`; nothing when the offset cannot be a block's.
    pub fn map(&self, offset: u64, size: usize) -> Option<RaidMap> {
        if !(offset >> self.ashift).is_multiple_of(self.group_width) {
            return None;
        }
        let stripe = self.ndata << self.ashift;
        let left = (self.group_size - offset % self.group_size) / (self.group_width << self.ashift) * stripe;
        let first = (size as u64).min(left) as usize;
        let mut map = RaidMap { rows: Vec::new(), nparity: self.nparity as usize, data_len: 0, parity_len: 0 };
        self.add_row(&mut map, offset, first);
        if first < size {
            let next = (offset / self.group_size + 1) * self.group_size;
            self.add_row(&mut map, next, size - first);
        }
        Some(map)
    }

    fn add_row(&self, map: &mut RaidMap, offset: u64, size: usize) {
        let (perm, start, ndisks, mut physical) = self.locate(offset);
        let sectors = size as u64 >> self.ashift;
        let (quotient, rest) = (sectors / self.ndata, sectors % self.ndata);
        let big = if rest == 0 { 0 } else { rest + self.nparity };
        let mut cols = Vec::with_capacity(self.group_width as usize);
        for i in 0..self.group_width {
            // A group that runs over the last column continues one row down.
            if start + i == ndisks {
                physical += ROW_HEIGHT;
            }
            let size = ((quotient + u64::from(i < big)) << self.ashift) as usize;
            let mem = if i < self.nparity { &mut map.parity_len } else { &mut map.data_len };
            let child = self.child(perm, (start + i) % ndisks);
            cols.push(Column { child, offset: physical as i64, size, mem: *mem });
            *mem += size;
        }
        map.rows.push(Row { cols });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn every_permutation_map_has_its_checksum() {
        for children in 2..=255 {
            let perms = permutations(children).unwrap_or_else(|| panic!("{children} children"));
            for row in perms.chunks(children) {
                assert_eq!(row.iter().collect::<HashSet<_>>().len(), children);
            }
        }
    }

    proptest! {
        #[test]
        fn columns_never_share_a_place(
            ndata in 1u64..6, nparity in 1u64..=3, nspares in 0u64..3, extra in 0u64..5, sets in 1u64..4,
            stripe in 0u64..100_000, sectors in 1usize..200
        ) {
            let children = ndata + nparity + nspares + extra;
            let (width, ndisks) = (children * sets, children * sets - nspares);
            // As OpenZFS computes it: in each set the least number of groups that fills whole rows.
            prop_assume!(nspares.is_multiple_of(sets));
            let mut groups = 1;
            while !((ndata + nparity) * groups).is_multiple_of(ndisks / sets) { groups += 1; }
            let ngroups = groups * sets;
            prop_assume!(ngroups <= 255);
            let nchildren = (sets > 1).then_some(children);
            let g = DraidGeometry::new(12, width, nchildren, (ndata, nparity, nspares, ngroups)).unwrap();
            let group_width = ndata + nparity;
            let map = g.map((stripe * group_width) << 12, sectors << 12).unwrap();
            prop_assert_eq!(map.data_len, sectors << 12);
            let mut places = HashSet::new();
            for row in &map.rows {
                let on: HashSet<_> = row.cols.iter().map(|c| c.child).collect();
                prop_assert_eq!(on.len() as u64, group_width);
                for col in &row.cols {
                    prop_assert!((col.child as u64) < width);
                    // The spares' share is left alone.
                    for spare in 0..nspares {
                        prop_assert_ne!(g.spare_child(spare, col.offset as u64), Some(col.child));
                    }
                    for s in 0..col.size >> 12 {
                        prop_assert!(places.insert((col.child, col.offset + (s as i64) * 4096)));
                    }
                }
            }
            prop_assert!(map.rows.len() == 1 || map.rows.len() == 2);
        }
    }
}
