//! Space maps: logs of allocated and freed segments (include/sys/space_map.h), with one-word, two-word and debug
//! entries.

use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader, u64_at};

/// Buckets of the histogram.
pub const SPACE_MAP_HISTOGRAM_SIZE: usize = 32;
/// Bytes of the bonus before the histogram was added.
pub const SPACE_MAP_SIZE_V0: usize = 24;

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
        fn no_input_panics(buf in proptest::collection::vec(any::<u8>(), 0..400), big: bool) {
            let e = if big { Endian::Big } else { Endian::Little };
            prop_assert!(entries(&buf, e).count() <= buf.len() / 8);
            let _ = SpaceMapPhys::decode(&buf, e);
        }
    }
}
