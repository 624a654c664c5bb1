//! LZ4 behind ZFS's length word (big-endian), by the library of its inventor.
//!
//! Its decoder checks every length and distance against both buffers, and has been fuzzed for years by everybody who
//! uses it; it also stops at a limit when compressing, as ZFS wants. Rejected: lz4_flex, whose checked decoder takes
//! 1.2 to 1.4 times as long, and whose encoder wants room for the worst case.

use std::ffi::c_int;

/// Length word in front of a block.
const HEADER: usize = 4;

/// Expands `src` into exactly `dst`; bytes of `src` after what the length word says are ignored (padding).
pub(super) fn decompress(src: &[u8], dst: &mut [u8]) -> Result<(), &'static str> {
    const TOO_LONG: &str = "longer than any block";
    let (head, rest) = src.split_first_chunk::<HEADER>().ok_or("no length word")?;
    let len = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    let block = rest.get(..len).ok_or("length word exceeds the block")?;
    let from = c_int::try_from(block.len()).map_err(|_| TOO_LONG)?;
    let room = c_int::try_from(dst.len()).map_err(|_| TOO_LONG)?;
    // SAFETY: the function reads at most `from` bytes at the first pointer and writes at most `room` bytes at the
    // second, whatever the input is; both are the lengths of live slices, which do not overlap.
    let made = unsafe { lz4_sys::LZ4_decompress_safe(block.as_ptr().cast(), dst.as_mut_ptr().cast(), from, room) };
    match made {
        n if n < 0 => Err("bad sequence"),
        n if n == room => Ok(()),
        _ => Err("output is shorter than the block"),
    }
}

/// Compresses `src` to at most `max` bytes.
pub(super) fn compress(src: &[u8], max: usize) -> Option<Vec<u8>> {
    super::with_room(max, |out| {
        let (head, body) = out.split_first_chunk_mut::<HEADER>()?;
        let (from, room) = (c_int::try_from(src.len()).ok()?, c_int::try_from(body.len()).ok()?);
        // SAFETY: the function reads `from` bytes at the first pointer and writes at most `room` bytes at the second;
        // both are the lengths of live slices, which do not overlap.
        let made = unsafe { lz4_sys::LZ4_compress_default(src.as_ptr().cast(), body.as_mut_ptr().cast(), from, room) };
        // Nothing is made when there is not enough room.
        let made = u32::try_from(made).ok().filter(|n| *n > 0)?;
        *head = made.to_be_bytes();
        Some(HEADER + made as usize)
    })
}
