//! Space maps: logs of allocated and freed segments (include/sys/space_map.h), with one-word, two-word and debug
//! entries.

use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader, u64_at};
use crate::write::Writer;

/// Buckets of the histogram.
pub const SPACE_MAP_HISTOGRAM_SIZE: usize = 32;
/// Bytes of the bonus before the histogram was added.
pub const SPACE_MAP_SIZE_V0: usize = 24;
/// Bytes of the bonus with it.
pub const SPACE_MAP_SIZE: usize = (8 + SPACE_MAP_HISTOGRAM_SIZE) * 8;
/// Longest run of a one-word entry.
pub const SM_RUN_MAX: u64 = 1 << 15;
/// Largest offset of a one-word entry.
pub const SM_OFFSET_MAX: u64 = (1 << 47) - 1;
/// Longest run of a two-word entry.
pub const SM2_RUN_MAX: u64 = 1 << 36;
/// Largest offset of a two-word entry.
pub const SM2_OFFSET_MAX: u64 = (1 << 63) - 1;
/// The word that fills the end of a block which a two-word entry does not fit any more.
pub const SM_PAD_WORD: u64 = 2 << 62;

/// The bonus buffer of a space map object (`space_map_phys_t`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceMapPhys {
    /// Its own object number; no longer used.
    pub object: u64,
    /// Bytes of entries in the object.
    pub length: u64,
    /// Bytes allocated, by the sum of all entries.
    pub alloc: i64,
    /// Free segments by size: bucket `i` counts those of `2^(i+shift)` bytes and more. Absent in old maps.
    pub histogram: Option<[u64; SPACE_MAP_HISTOGRAM_SIZE]>,
}

impl SpaceMapPhys {
    /// Decodes the bonus.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "space map");
        let (object, length, alloc) = (r.u64()?, r.u64()?, r.u64()? as i64);
        if length % 8 != 0 {
            return Err(r.err(format!("length of {length} bytes")));
        }
        let histogram = if r.remaining() >= (5 + SPACE_MAP_HISTOGRAM_SIZE) * 8 {
            r.skip(40)?;
            Some(r.u64s()?)
        } else {
            None
        };
        Ok(Self { object, length, alloc, histogram })
    }
}

impl SpaceMapPhys {
    /// Encodes the bonus: [`SPACE_MAP_SIZE`] bytes, or [`SPACE_MAP_SIZE_V0`] without a histogram.
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "space map", SPACE_MAP_SIZE);
        w.u64s(&[self.object, self.length, self.alloc as u64]);
        if let Some(h) = &self.histogram {
            w.zeros(40).u64s(h);
        }
        w.finish()
    }
}

/// What a segment entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapType {
    /// The segment was allocated.
    Alloc,
    /// The segment was freed.
    Free,
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmEntry {
    /// Marks where the entries of a sync pass begin; all zero it is padding.
    Debug {
        /// What the pass recorded; bit 0 as in segments.
        action: u8,
        /// Sync pass.
        sync_pass: u16,
        /// Txg (its low 50 bits).
        txg: u64,
    },
    /// A segment.
    Segment {
        /// Allocated or freed.
        kind: MapType,
        /// Top-level vdev of a two-word entry: only meaningful in a log space map, 0 elsewhere.
        vdev: Option<u32>,
        /// Start, in units of the map's shift, from the start of the map.
        offset: u64,
        /// Length in the same units.
        run: u64,
        /// Words the entry takes.
        words: u8,
    },
}

impl SmEntry {
    /// Decodes the entry at a word; `next` is the word after it, for entries of two. Two-word entries without a
    /// second word are an error.
    pub fn decode(word: u64, next: Option<u64>) -> Option<Self> {
        let kind = |bit: u64| if bit == 0 { MapType::Alloc } else { MapType::Free };
        match word >> 62 {
            2 => Some(Self::Debug {
                action: ((word >> 60) & 3) as u8,
                sync_pass: ((word >> 50) & 0x3ff) as u16,
                txg: word & ((1 << 50) - 1),
            }),
            3 => {
                let next = next?;
                let vdev = (word & 0xff_ffff) as u32;
                Some(Self::Segment {
                    kind: kind(next >> 63),
                    vdev: Some(vdev),
                    offset: next & (u64::MAX >> 1),
                    run: ((word >> 24) & ((1 << 36) - 1)) + 1,
                    words: 2,
                })
            }
            _ => Some(Self::Segment {
                kind: kind((word >> 15) & 1),
                vdev: None,
                offset: (word >> 16) & ((1 << 47) - 1),
                run: (word & 0x7fff) + 1,
                words: 1,
            }),
        }
    }
}

impl SmEntry {
    /// The entry that introduces the entries of one kind and sync pass.
    pub fn intro(kind: MapType, sync_pass: u32, txg: u64) -> Self {
        Self::Debug { action: kind as u8, sync_pass: (sync_pass & 0x3ff) as u16, txg: txg & ((1 << 50) - 1) }
    }

    /// The words of the entry; the second only of a two-word segment. Nothing when a field does not fit them.
    pub fn encode(&self) -> Option<(u64, Option<u64>)> {
        match *self {
            Self::Debug { action, sync_pass, txg } => {
                let fits = action < 4 && sync_pass < 1 << 10 && txg < 1 << 50;
                fits.then_some((2 << 62 | u64::from(action) << 60 | u64::from(sync_pass) << 50 | txg, None))
            }
            Self::Segment { kind, offset, run, words: 1, .. } => {
                let fits = offset <= SM_OFFSET_MAX && (1..=SM_RUN_MAX).contains(&run);
                fits.then(|| (offset << 16 | (kind as u64) << 15 | (run - 1), None))
            }
            Self::Segment { kind, vdev, offset, run, .. } => {
                let vdev = vdev.unwrap_or(0);
                let fits = offset <= SM2_OFFSET_MAX && (1..=SM2_RUN_MAX).contains(&run) && vdev < 1 << 24;
                fits.then(|| (3 << 62 | (run - 1) << 24 | u64::from(vdev), Some((kind as u64) << 63 | offset)))
            }
        }
    }
}

/// Builds the contents of a space map, block by block: whoever stores it appends the bytes to the object.
#[derive(Debug)]
pub struct SmEncoder {
    out: Writer,
    /// Where in its block the first byte of `out` will lie.
    start: usize,
    block: usize,
    v2: bool,
}

impl SmEncoder {
    /// An encoder whose output will be appended at byte `length` of a map of blocks of `block` bytes; `v2` says whether
    /// the feature `spacemap_v2` is active.
    pub fn new(endian: Endian, length: u64, block: usize, v2: bool) -> Self {
        let block = block.max(16);
        let start = (length % block as u64) as usize;
        Self { out: Writer::new(endian, "space map", 4096), start, block, v2 }
    }

    /// Appends the entry that introduces what follows.
    pub fn intro(&mut self, kind: MapType, sync_pass: u32, txg: u64) {
        if let Some((word, _)) = SmEntry::intro(kind, sync_pass, txg).encode() {
            self.out.u64(word);
        }
    }

    /// Appends a segment, in units of the map's shift from its start, in as many entries as it takes. `vdev` is given in
    /// log space maps only, which always have two-word entries. An error when the offset fits no entry of this map.
    pub fn segment(&mut self, kind: MapType, vdev: Option<u32>, mut offset: u64, mut run: u64) -> Result<()> {
        while run > 0 {
            let wide = self.v2 && (vdev.is_some() || run > SM_RUN_MAX || offset > SM_OFFSET_MAX);
            if wide && self.block - (self.start + self.out.pos()) % self.block == 8 {
                self.out.u64(SM_PAD_WORD);
            }
            let now = run.min(if wide { SM2_RUN_MAX } else { SM_RUN_MAX });
            let entry = SmEntry::Segment { kind, vdev, offset, run: now, words: 1 + u8::from(wide) };
            let (first, second) = entry.encode().ok_or_else(|| self.out.err("a segment that fits no entry"))?;
            self.out.u64(first).u64s(second.as_slice());
            offset = offset.saturating_add(now);
            run -= now;
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.pos()
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes to append.
    pub fn finish(self) -> Vec<u8> {
        self.out.finish()
    }
}

/// Iterates over the entries of one block (or any run of whole entries).
pub fn entries(buf: &[u8], endian: Endian) -> impl Iterator<Item = Result<SmEntry>> + '_ {
    let mut pos = 0usize;
    std::iter::from_fn(move || {
        let word = u64_at(buf, pos, endian)?;
        let got = SmEntry::decode(word, u64_at(buf, pos + 8, endian));
        let at = pos;
        pos += if word >> 62 == 3 { 16 } else { 8 };
        Some(got.ok_or_else(|| DecodeError::new("space map", at, "an entry of two words ends after one")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_kinds_of_entry() {
        let one = (5 << 16) | (1 << 15) | 9;
        let dbg = (2 << 62) | (1 << 60) | (3 << 50) | 1234;
        let two = [(3u64 << 62) | (99 << 24) | 7, (1 << 63) | 4096];
        for e in [Endian::Little, Endian::Big] {
            let buf: Vec<u8> = [one, dbg, two[0], two[1]].iter().flat_map(|w| e.put_u64(*w)).collect();
            let got: Vec<_> = entries(&buf, e).map(Result::unwrap).collect();
            let free = MapType::Free;
            assert_eq!(
                got,
                [
                    SmEntry::Segment { kind: free, vdev: None, offset: 5, run: 10, words: 1 },
                    SmEntry::Debug { action: 1, sync_pass: 3, txg: 1234 },
                    SmEntry::Segment { kind: free, vdev: Some(7), offset: 4096, run: 100, words: 2 },
                ]
            );
            assert!(entries(&buf[..24], e).last().unwrap().is_err());
        }
    }

    proptest! {
        #[test]
        fn segments_come_back(
            segs in proptest::collection::vec((any::<bool>(), 0u64..1 << 46, prop_oneof![1u64..100, 1u64..1 << 20]), 0..60),
            v2: bool, log: bool, big: bool, length in 0u64..64,
        ) {
            let e = if big { Endian::Big } else { Endian::Little };
            let (block, vdev) = (512, (log && v2).then_some(7));
            let mut enc = SmEncoder::new(e, length * 8, block, v2);
            enc.intro(MapType::Free, 2, 99);
            let mut want = Vec::new();
            for (free, offset, run) in segs {
                let kind = if free { MapType::Free } else { MapType::Alloc };
                enc.segment(kind, vdev, offset, run).unwrap();
                let most = if v2 { run } else { SM_RUN_MAX };
                want.extend((0..run).step_by(most as usize).map(|at| (kind, offset + at, most.min(run - at))));
            }
            let mut whole = vec![0; (length * 8 % 512) as usize];
            whole.extend(enc.finish());
            let mut got: Vec<(MapType, u64, u64)> = Vec::new();
            // Read block by block, as maps are: no entry may cross a boundary.
            for (i, b) in whole.chunks(block).enumerate() {
                let skip = if i == 0 { (length * 8 % 512) as usize } else { 0 };
                for entry in entries(&b[skip..], e) {
                    match entry.unwrap() {
                        SmEntry::Segment { kind, vdev: v, offset, run, words } => {
                            prop_assert!(words == 1 || (v2 && v == Some(vdev.unwrap_or(0))));
                            got.push((kind, offset, run));
                        }
                        e => prop_assert!(matches!(e.encode(), Some((_, None)))),
                    }
                }
            }
            prop_assert_eq!(got, want);
        }

        #[test]
        fn words_survive(a: u64, b: u64) {
            if let Some(e) = SmEntry::decode(a, Some(b)) {
                let (x, y) = e.encode().unwrap();
                prop_assert_eq!(SmEntry::decode(x, y), Some(e));
                if a >> 62 != 3 { prop_assert_eq!(x, a) }
            }
            let p = SpaceMapPhys { object: a, length: b & !7, alloc: a as i64, histogram: Some([b; 32]) };
            prop_assert_eq!(SpaceMapPhys::decode(&p.encode(Endian::Big), Endian::Big).unwrap(), p);
        }

        #[test]
        fn no_input_panics(buf in proptest::collection::vec(any::<u8>(), 0..400), big: bool) {
            let e = if big { Endian::Big } else { Endian::Little };
            prop_assert!(entries(&buf, e).count() <= buf.len() / 8);
            let _ = SpaceMapPhys::decode(&buf, e);
        }
    }
}
