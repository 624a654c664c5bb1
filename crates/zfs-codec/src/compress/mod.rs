//! Compression of blocks.
//!
//! Expanding always fills a destination whose size the block pointer gave; a stream that makes fewer or more bytes
//! is an error, and nothing is ever allocated on a stream's word. Sources may be followed by padding (a block's
//! physical size is rounded up to sectors): lz4 and zstd carry their length in front, the others end by themselves.
//!
//! Compressing yields nothing when the result would exceed the limit, and the caller stores the block as it is.
//! Output is not byte for byte what OpenZFS's compressors make (except lzjb and zle); any reader expands it.

mod lz4;
mod lzjb;
mod zle;
mod zstd;

pub use zstd::{DEFAULT_LEVEL as ZSTD_DEFAULT_LEVEL, ZstdHeader, zstd_header, zstd_level, zstd_level_number};

use crate::error::{CodecError, Result};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use std::cell::RefCell;
use zfs_phys::enums::CompressKind;

thread_local! {
    // The tables are several kilobytes: one set a thread rather than one a block.
    static INFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Expands `src`, a block's physical bytes, into exactly `dst`, its logical bytes.
///
/// # Errors
/// [`CodecError::Malformed`] when the stream is damaged or does not make exactly `dst.len()` bytes (what `dst` then
/// holds is unspecified); [`CodecError::Unsupported`] for `inherit` and `on`, which no block pointer holds.
pub fn decompress(kind: CompressKind, src: &[u8], dst: &mut [u8]) -> Result<()> {
    use CompressKind as K;
    let done = match kind {
        K::Inherit | K::On => return Err(CodecError::Unsupported("compression of a block must be definite")),
        K::Off if src.len() == dst.len() => {
            dst.copy_from_slice(src);
            Ok(())
        }
        K::Off => Err("physical and logical sizes differ"),
        K::Empty => {
            dst.fill(0);
            Ok(())
        }
        K::Lzjb => lzjb::decompress(src, dst),
        K::Zle => zle::decompress(src, dst),
        K::Lz4 => lz4::decompress(src, dst),
        K::Zstd => zstd::decompress(src, dst),
        K::Gzip1 | K::Gzip2 | K::Gzip3 | K::Gzip4 | K::Gzip5 | K::Gzip6 | K::Gzip7 | K::Gzip8 | K::Gzip9 => {
            gzip_decompress(src, dst)
        }
    };
    done.map_err(|why| CodecError::Malformed { codec: kind.name(), why })
}

/// Compresses `src` to at most `max_dst` bytes, without padding.
///
/// `level` matters for zstd only (ZFS's numbers, see [`zstd_level`]; 255 means the default); gzip's levels are in
/// the kind. Nothing when the result would be longer, the level is unknown, or the kind does not compress
/// (`off`, `inherit`, `on`; `empty` for anything but zeros).
pub fn compress(kind: CompressKind, level: u8, src: &[u8], max_dst: usize) -> Option<Vec<u8>> {
    use CompressKind as K;
    let out = match kind {
        K::Inherit | K::On | K::Off => return None,
        K::Empty => return src.iter().all(|b| *b == 0).then(Vec::new),
        K::Lzjb => lzjb::compress(src, max_dst)?,
        K::Zle => zle::compress(src, max_dst)?,
        K::Lz4 => lz4::compress(src, max_dst)?,
        K::Zstd => zstd::compress(if level == u8::MAX { ZSTD_DEFAULT_LEVEL } else { level }, src, max_dst)?,
        K::Gzip1 | K::Gzip2 | K::Gzip3 | K::Gzip4 | K::Gzip5 | K::Gzip6 | K::Gzip7 | K::Gzip8 | K::Gzip9 => {
            gzip_compress(i32::from(kind as u8 - K::Gzip1 as u8) + 1, src, max_dst)?
        }
    };
    (out.len() <= max_dst).then_some(out)
}

fn gzip_decompress(src: &[u8], dst: &mut [u8]) -> std::result::Result<(), &'static str> {
    match INFLATE.with_borrow_mut(|d| d.zlib_decompress(src, dst)) {
        Ok(n) if n == dst.len() => Ok(()),
        Ok(_) => Err("output is shorter than the block"),
        Err(_) => Err("bad zlib stream"),
    }
}

fn gzip_compress(level: i32, src: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut c = Compressor::new(CompressionLvl::new(level).ok()?);
    with_room(max, |out| c.zlib_compress(src, out).ok())
}

thread_local! {
    /// Where compressors of this thread write.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Has `make` write up to `max` bytes and say how many they are; gives a copy of those. Most blocks turn out to be much
/// smaller than they may be, or not worth it at all: room for the largest, taken from the system each time, would cost
/// more than a fast compressor does.
fn with_room(max: usize, make: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
    ROOM.with_borrow_mut(|room| {
        if room.len() < max {
            room.resize(max, 0);
        }
        let made = make(room.get_mut(..max)?)?;
        room.get(..made).map(<[u8]>::to_vec)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [CompressKind; 13] = [
        CompressKind::Lzjb,
        CompressKind::Zle,
        CompressKind::Lz4,
        CompressKind::Zstd,
        CompressKind::Gzip1,
        CompressKind::Gzip2,
        CompressKind::Gzip3,
        CompressKind::Gzip4,
        CompressKind::Gzip5,
        CompressKind::Gzip6,
        CompressKind::Gzip7,
        CompressKind::Gzip8,
        CompressKind::Gzip9,
    ];

    fn round_trip(kind: CompressKind, level: u8, data: &[u8]) -> Option<usize> {
        let mut packed = compress(kind, level, data, data.len() * 2 + 64)?;
        let size = packed.len();
        packed.resize(size.next_multiple_of(512), 0);
        let mut back = vec![0x55; data.len()];
        assert_eq!(decompress(kind, &packed, &mut back), Ok(()), "{kind:?} level {level}");
        assert_eq!(back, data, "{kind:?} level {level}");
        Some(size)
    }

    /// Runs, zeros, text-like repetition and noise in turn.
    fn mixture() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            (1usize..400).prop_map(|n| vec![0u8; n]),
            (any::<u8>(), 1usize..400).prop_map(|(b, n)| vec![b; n]),
            (proptest::collection::vec(any::<u8>(), 1..9), 1usize..60).prop_map(|(p, n)| p.repeat(n)),
            proptest::collection::vec(any::<u8>(), 1..300),
        ];
        proptest::collection::vec(part, 1..8).prop_map(|v| v.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_compressed_comes_back(data in mixture()) {
            for kind in KINDS {
                prop_assert!(round_trip(kind, 3, &data).is_some());
            }
        }

        #[test]
        fn limits_hold(data in mixture(), max in 0usize..1500) {
            for kind in KINDS {
                if let Some(out) = compress(kind, 3, &data, max) {
                    prop_assert!(out.len() <= max);
                }
            }
        }

        #[test]
        fn hostile_streams_do_not_panic(src in proptest::collection::vec(any::<u8>(), 0..300), n in 0usize..3000) {
            let mut dst = vec![0u8; n];
            for kind in KINDS {
                let _ = decompress(kind, &src, &mut dst);
            }
        }

        /// Memory is used again without being cleared: nothing of it may show, whatever the stream says.
        #[test]
        fn what_was_there_before_does_not_show(data in mixture(), changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
            for kind in KINDS {
                let mut packed = compress(kind, 3, &data, data.len() * 2 + 64).unwrap();
                for (at, to) in &changes {
                    let at = at % packed.len();
                    packed[at] = *to;
                }
                let (mut clear, mut set) = (vec![0u8; data.len()], vec![0xffu8; data.len()]);
                let results = (decompress(kind, &packed, &mut clear), decompress(kind, &packed, &mut set));
                prop_assert_eq!(&results.0, &results.1);
                prop_assert!(results.0.is_err() || clear == set, "{:?}", kind);
            }
        }

        /// A valid stream with one byte changed, or cut short, or with another destination size.
        #[test]
        fn damaged_streams_do_not_panic(data in mixture(), at: usize, flip in 1u8.., delta in 0usize..3) {
            for kind in KINDS {
                let mut packed = compress(kind, 3, &data, data.len() * 2 + 64).unwrap();
                let mut dst = vec![0u8; data.len() - 1 + delta];
                let full = decompress(kind, &packed, &mut dst);
                if delta == 2 {
                    prop_assert!(full.is_err(), "{:?} made more than there was", kind);
                }
                let i = at % packed.len();
                packed[i] ^= flip;
                let _ = decompress(kind, &packed, &mut dst);
                packed.truncate(i);
                let _ = decompress(kind, &packed, &mut dst);
            }
        }
    }

    #[test]
    fn every_zstd_level() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        for level in (1..=19).chain(103..=123).chain([255]) {
            let size = round_trip(CompressKind::Zstd, level, &data).unwrap();
            assert!(size < data.len());
        }
        assert_eq!(compress(CompressKind::Zstd, 0, &data, data.len()), None);
    }

    /// Noise must be refused at ZFS's limit of seven eighths by all.
    #[test]
    fn noise_is_refused() {
        let mut x = 1u64;
        let noise: Vec<u8> = (0..128 << 10)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (x >> 56) as u8
            })
            .collect();
        for kind in KINDS {
            assert_eq!(compress(kind, 9, &noise, noise.len() / 8 * 7), None, "{kind:?}");
        }
    }

    /// A match at distance nought copies what no sequence made.
    #[test]
    fn lz4_matches_at_no_distance_show_nothing() {
        for len in [1u8, 4, 12, 14] {
            let block = [0x10 | len, b'a', 0, 0, 0x50, b'v', b'w', b'x', b'y', b'z'];
            let src = [&(block.len() as u32).to_be_bytes()[..], &block].concat();
            let made = [0x00u8, 0xff].map(|before| {
                let mut dst = vec![before; usize::from(len) + 4 + 6];
                decompress(CompressKind::Lz4, &src, &mut dst).map(|()| dst)
            });
            assert_eq!(made[0], made[1]);
        }
    }

    #[test]
    fn known_streams() {
        let mut dst = [0u8; 8];
        // Three literals, then a match of five at offset three.
        decompress(CompressKind::Lzjb, &[0b1000, b'a', b'b', b'c', 2 << 2, 3], &mut dst).unwrap();
        assert_eq!(&dst, b"abcabcab");
        // Two literals, six zeros.
        decompress(CompressKind::Zle, &[1, b'x', b'y', 64 + 5], &mut dst).unwrap();
        assert_eq!(&dst, b"xy\0\0\0\0\0\0");
        decompress(CompressKind::Empty, &[], &mut dst).unwrap();
        assert_eq!(dst, [0; 8]);
        assert!(decompress(CompressKind::Off, &[1; 9], &mut dst).is_err());
        assert!(decompress(CompressKind::On, &[1; 8], &mut dst).is_err());
    }
}
