//! LZJB: a byte of eight flags, then eight items, each a literal byte or two bytes of match length and offset.

/// Bits of a match item that hold its length; the other ten of sixteen hold the offset.
const MATCH_BITS: u32 = 6;
const MATCH_MIN: usize = 3;
const MATCH_MAX: usize = (1 << MATCH_BITS) + MATCH_MIN - 1;
const OFFSET_MASK: usize = (1 << (16 - MATCH_BITS)) - 1;
/// Entries of the compressor's table of last positions.
const TABLE: usize = 1024;
/// Flags byte and eight matches: the most one round of items may add.
const ROUND_MAX: usize = 17;

/// Expands `src` into exactly `dst`; bytes of `src` after that are ignored (padding).
pub(super) fn decompress(src: &[u8], dst: &mut [u8]) -> Result<(), &'static str> {
    const SHORT: &str = "input ends early";
    let mut input = src.iter().copied();
    let mut at = 0;
    while at < dst.len() {
        let flags = input.next().ok_or(SHORT)?;
        for bit in 0..8 {
            if at == dst.len() {
                break;
            }
            let first = input.next().ok_or(SHORT)?;
            if flags & (1 << bit) == 0 {
                dst[at] = first;
                at += 1;
                continue;
            }
            let second = input.next().ok_or(SHORT)?;
            let len = usize::from(first >> (8 - MATCH_BITS)) + MATCH_MIN;
            let offset = usize::from(u16::from_be_bytes([first, second])) & OFFSET_MASK;
            if offset > at {
                return Err("match before the start");
            }
            let len = len.min(dst.len() - at);
            if offset >= len {
                dst.copy_within(at - offset..at - offset + len, at);
            } else if offset == 0 {
                // A compressor never makes this; OpenZFS leaves the bytes as they were, which is nothing to rely on.
                return Err("match with itself");
            } else {
                for i in at..at + len {
                    dst[i] = dst[i - offset];
                }
            }
            at += len;
        }
    }
    Ok(())
}

/// Compresses `src` to at most `max` bytes.
pub(super) fn compress(src: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(max.min(src.len()));
    let mut last = [0u16; TABLE];
    let mut at = 0;
    while at < src.len() {
        // As OpenZFS, give up when a whole round might not fit any more.
        if out.len() + ROUND_MAX >= max {
            return None;
        }
        let flags_at = out.len();
        out.push(0);
        for bit in 0..8 {
            if at >= src.len() {
                break;
            }
            if at + MATCH_MAX > src.len() {
                out.push(src[at]);
                at += 1;
                continue;
            }
            let key = (usize::from(src[at]) << 16) + (usize::from(src[at + 1]) << 8) + usize::from(src[at + 2]);
            let key = key + (key >> 9);
            let key = key + (key >> 5);
            let slot = &mut last[key % TABLE];
            // Positions are kept modulo 2^16: only their low ten bits matter.
            let offset = at.wrapping_sub(usize::from(*slot)) & OFFSET_MASK;
            *slot = at as u16;
            let matches = |n: usize| src[at + n] == src[at - offset + n];
            if offset != 0 && offset <= at && (0..MATCH_MIN).all(matches) {
                let len = (MATCH_MIN..MATCH_MAX).find(|n| !matches(*n)).unwrap_or(MATCH_MAX);
                out[flags_at] |= 1 << bit;
                out.push((((len - MATCH_MIN) << (8 - MATCH_BITS)) | (offset >> 8)) as u8);
                out.push(offset as u8);
                at += len;
            } else {
                out.push(src[at]);
                at += 1;
            }
        }
    }
    Some(out)
}
