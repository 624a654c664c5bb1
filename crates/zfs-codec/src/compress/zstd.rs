//! Zstandard behind ZFS's eight-byte header.
//!
//! The header is the compressed length (big-endian) and a word of level and library version. That word was a C
//! bit field once, so its byte order on disk depends on the machine that wrote it; the version never needs all of
//! its 24 bits, so the byte that is zero tells which layout it is. Frames have no magic number, no checksum and no
//! content size.

use std::cell::RefCell;
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, ResetDirective};

const HEADER: usize = 8;

/// Level that `compression=zstd` means.
pub const DEFAULT_LEVEL: u8 = 3;
/// First of the numbers that stand for negative ("fast") levels.
const FAST_FIRST: u8 = 103;
/// The fast levels, in order of their numbers.
const FAST: [i32; 21] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 500, 1000];
/// OpenZFS tries lz4 and then level 1 before it spends time at this level or above on a block of
/// [`EARLY_ABORT_SIZE`] or more.
const EARLY_ABORT_LEVEL: i32 = 3;
const EARLY_ABORT_SIZE: usize = 128 << 10;

/// What the header of a zstd block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZstdHeader {
    /// Bytes of the frame after the header.
    pub len: u32,
    /// Version of the library that compressed, e.g. 10405 for 1.4.5.
    pub version: u32,
    /// Level as ZFS numbers it, see [`zstd_level`].
    pub level: u8,
}

/// The library's level (negative for fast ones) for a level numbered as in ZFS's properties and headers:
/// 1 to 19, or 103 and up for `zstd-fast-*`.
pub fn zstd_level(level: u8) -> Option<i32> {
    match level {
        1..=19 => Some(i32::from(level)),
        _ => FAST.get(usize::from(level.checked_sub(FAST_FIRST)?)).map(|l| -l),
    }
}

/// ZFS's number for a library level; the opposite of [`zstd_level`].
pub fn zstd_level_number(level: i32) -> Option<u8> {
    match level {
        1..=19 => Some(level as u8),
        _ => FAST.iter().position(|l| -l == level).map(|i| FAST_FIRST + i as u8),
    }
}

/// Reads the header of a zstd block.
pub fn zstd_header(src: &[u8]) -> Option<ZstdHeader> {
    let len = u32::from_be_bytes(*src.first_chunk::<4>()?);
    let word = *src.get(4..)?.first_chunk::<4>()?;
    // Bytes in order of the disk; a zero byte is the version's highest. OpenZFS looks for it from the end.
    let (level, version) = match word {
        [level, v_low, v_mid, 0] => (level, [v_mid, v_low]),
        [v_low, v_mid, 0, level] => (level, [v_mid, v_low]),
        [level, 0, v_mid, v_low] => (level, [v_mid, v_low]),
        [0, v_mid, v_low, level] => (level, [v_mid, v_low]),
        _ => return None,
    };
    let version = u32::from(u16::from_be_bytes(version));
    Some(ZstdHeader { len, version, level })
}

fn decoder() -> Option<DCtx<'static>> {
    let mut d = DCtx::try_create()?;
    d.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
    Some(d)
}

thread_local! {
    static DECODER: RefCell<Option<DCtx<'static>>> = RefCell::new(decoder());
    static ENCODER: RefCell<Option<CCtx<'static>>> = RefCell::new(CCtx::try_create());
}

/// Expands `src` into exactly `dst`.
pub(super) fn decompress(src: &[u8], dst: &mut [u8]) -> Result<(), &'static str> {
    let header = zstd_header(src).ok_or("bad header")?;
    zstd_level(header.level).ok_or("bad level in header")?;
    let frame = src
        .get(HEADER..)
        .and_then(|s| s.get(..usize::try_from(header.len).ok()?))
        .ok_or("header claims more bytes than there are")?;
    let want = dst.len();
    let n = DECODER.with_borrow_mut(|d| {
        d.as_mut().ok_or("no memory for a decoder")?.decompress(dst, frame).map_err(|_| "bad frame")
    })?;
    if n == want { Ok(()) } else { Err("output is shorter than the block") }
}

fn encode(level: u8, src: &[u8], max: usize) -> Option<Vec<u8>> {
    super::with_room(max, |out| {
        let (head, body) = out.split_at_mut_checked(HEADER)?;
        let n = ENCODER.with_borrow_mut(|c| {
            let c = c.as_mut()?;
            c.reset(ResetDirective::SessionAndParameters).ok()?;
            c.set_parameter(CParameter::CompressionLevel(zstd_level(level)?)).ok()?;
            c.set_parameter(CParameter::Format(FrameFormat::Magicless)).ok()?;
            c.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
            c.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
            c.compress2(body, src).ok()
        })?;
        head[..4].copy_from_slice(&u32::try_from(n).ok()?.to_be_bytes());
        // Level above version, as a big-endian word: what little-endian machines have always written.
        head[4..].copy_from_slice(&((u32::from(level) << 24) | zstd_safe::version_number()).to_be_bytes());
        Some(HEADER + n)
    })
}

/// Compresses `src` to at most `max` bytes at ZFS's level number `level`.
pub(super) fn compress(level: u8, src: &[u8], max: usize) -> Option<Vec<u8>> {
    if zstd_level(level)? >= EARLY_ABORT_LEVEL
        && src.len() >= EARLY_ABORT_SIZE
        && super::lz4::compress(src, max).is_none()
        && encode(1, src, max).is_none()
    {
        return None;
    }
    encode(level, src, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_numbered_as_in_openzfs() {
        for (number, level) in [(1, 1), (19, 19), (103, -1), (112, -10), (113, -20), (121, -100), (123, -1000)] {
            assert_eq!(zstd_level(number), Some(level));
            assert_eq!(zstd_level_number(level), Some(number));
        }
        for bad in [0, 20, 101, 102, 124, 251, 255] {
            assert_eq!(zstd_level(bad), None);
        }
    }

    /// Version 1.4.5 (0x0028a5) and level 3 as little- and big-endian machines wrote them.
    #[test]
    fn both_header_layouts() {
        let want = ZstdHeader { len: 7, version: 10405, level: 3 };
        assert_eq!(zstd_header(&[0, 0, 0, 7, 3, 0, 0x28, 0xa5]), Some(want));
        assert_eq!(zstd_header(&[0, 0, 0, 7, 0, 0x28, 0xa5, 3]), Some(want));
        assert_eq!(zstd_header(&[0, 0, 0, 7, 3, 1, 0x28, 0xa5]), None);
        assert_eq!(zstd_header(&[0, 0, 0, 7, 3, 0, 0x28]), None);
    }
}
