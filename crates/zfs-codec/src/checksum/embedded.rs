//! Blocks that carry their own checksum: labels, uberblocks, gang headers, intent-log blocks.
//!
//! Such a block ends with (or, for `zilog2`, begins with) a magic word and four checksum words. The checksum is
//! taken with a *verifier* in place of those four words: something the reader knows without the block, so that a
//! valid block from elsewhere does not pass (a label's byte offset on the device; a gang header's vdev, offset and
//! txg; an intent-log block's words from the block pointer that led to it). The magic tells the byte order.

use super::{ChecksumKind, Fletcher2, Fletcher4, digest_words, truncate_for_mac};
use crate::error::{CodecError, Result};
use sha2::{Digest, Sha256};
use zfs_phys::Endian;
use zfs_phys::read::u64_at;

/// `zec_magic` (include/sys/zio.h).
pub const ZEC_MAGIC: u64 = 0x0210_da7a_b10c_7a11;
/// Magic and four words.
pub const TRAILER_LEN: usize = 40;
/// Where `zil_chain_t` holds its used size.
const CHAIN_USED: usize = 136;
/// Where `zil_chain_t` holds magic and checksum.
const CHAIN_TRAILER: usize = 144;
/// A `zilog2` checksum covers the used bytes rounded up to this.
const LOG_GRANULE: u64 = 4096;

/// Verifier of a label or uberblock that starts `offset` bytes into its device.
pub fn label_verifier(offset: u64) -> [u64; 4] {
    [offset, 0, 0, 0]
}

/// Verifier of a gang header at its block pointer's first DVA, physically born in `txg`.
pub fn gang_verifier(vdev: u64, offset: u64, txg: u64) -> [u64; 4] {
    [vdev, offset, txg, 0]
}

struct Layout {
    endian: Endian,
    /// Bytes covered.
    size: usize,
    /// Where the four words stand.
    words_at: usize,
}

fn layout(kind: ChecksumKind, data: &[u8]) -> Result<Layout> {
    let at = match kind {
        ChecksumKind::Zilog2 => CHAIN_TRAILER,
        ChecksumKind::Label | ChecksumKind::GangHeader | ChecksumKind::Zilog => {
            data.len().checked_sub(TRAILER_LEN).ok_or(CodecError::Trailer("block too short"))?
        }
        _ => return Err(CodecError::Unsupported("checksum is not embedded")),
    };
    let short = CodecError::Trailer("block too short");
    let magic = u64_at(data, at, Endian::Little).ok_or(short.clone())?;
    let endian = match magic {
        ZEC_MAGIC => Endian::Little,
        m if m == ZEC_MAGIC.swap_bytes() => Endian::Big,
        _ => return Err(CodecError::Trailer("bad magic")),
    };
    let mut size = data.len();
    if kind == ChecksumKind::Zilog2 {
        let used = u64_at(data, CHAIN_USED, endian).ok_or(short.clone())?;
        size = used
            .checked_next_multiple_of(LOG_GRANULE)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= data.len())
            .ok_or(CodecError::Trailer("log block claims more bytes than it has"))?;
        if size < CHAIN_TRAILER + TRAILER_LEN {
            return Err(CodecError::Trailer("log block claims fewer bytes than its header"));
        }
    } else if data.len() < TRAILER_LEN {
        return Err(short);
    }
    Ok(Layout { endian, size, words_at: at + 8 })
}

fn encode(words: [u64; 4], endian: Endian) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (o, w) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *o = endian.put_u64(w);
    }
    out
}

/// Checksum of the covered bytes with `verifier` standing in for the stored words.
fn compute(kind: ChecksumKind, data: &[u8], l: &Layout, verifier: [u64; 4]) -> [u64; 4] {
    let verifier = encode(verifier, l.endian);
    let pieces = [&data[..l.words_at], &verifier[..], &data[l.words_at + 32..l.size]];
    match kind {
        ChecksumKind::Zilog2 => {
            let mut f = Fletcher4::default();
            pieces.iter().for_each(|p| f.update(p, l.endian));
            f.words()
        }
        ChecksumKind::Zilog => {
            let mut f = Fletcher2::default();
            pieces.iter().for_each(|p| f.update(p, l.endian));
            f.words()
        }
        _ => {
            let mut h = Sha256::new();
            pieces.iter().for_each(|p| h.update(p));
            digest_words(&h.finalize(), Endian::Big)
        }
    }
}

/// Checks a block against the checksum in its trailer and gives the byte order it was written in.
///
/// `mac` says that the block is encrypted, so the last two stored words are a MAC that decryption checks.
/// For [`ChecksumKind::Zilog`] the length of `data` must be a multiple of 16, as all blocks are.
///
/// # Errors
/// [`CodecError::Trailer`] when there is no trailer, [`CodecError::Checksum`] on mismatch,
/// [`CodecError::Unsupported`] when `kind` is not an embedded checksum.
pub fn verify_embedded(kind: ChecksumKind, data: &[u8], verifier: [u64; 4], mac: bool) -> Result<Endian> {
    let l = layout(kind, data)?;
    let mut expected = [0u64; 4];
    for (i, w) in expected.iter_mut().enumerate() {
        *w = u64_at(data, l.words_at + 8 * i, l.endian).ok_or(CodecError::Trailer("block too short"))?;
    }
    let mut actual = compute(kind, data, &l, verifier);
    if mac {
        actual = truncate_for_mac(kind, actual);
        expected[2..].fill(0);
    }
    if actual == expected { Ok(l.endian) } else { Err(CodecError::Checksum { expected, actual }) }
}

/// Writes magic and checksum into a block, the opposite of [`verify_embedded`]. With `mac`, those two words end up
/// as the last stored ones. For `zilog2` the used size must already be in place.
///
/// # Errors
/// As for [`verify_embedded`], when the block is too short or `kind` does not fit.
pub fn seal_embedded(
    kind: ChecksumKind,
    data: &mut [u8],
    verifier: [u64; 4],
    endian: Endian,
    mac: Option<[u64; 2]>,
) -> Result<()> {
    let at = if kind == ChecksumKind::Zilog2 { Some(CHAIN_TRAILER) } else { data.len().checked_sub(TRAILER_LEN) };
    let magic = at.and_then(|at| data.get_mut(at..at.checked_add(8)?)).ok_or(CodecError::Trailer("block too short"))?;
    magic.copy_from_slice(&endian.put_u64(ZEC_MAGIC));
    let l = layout(kind, data)?;
    let mut words = compute(kind, data, &l, verifier);
    if let Some(mac) = mac {
        words = truncate_for_mac(kind, words);
        words[2..].copy_from_slice(&mac);
    }
    data[l.words_at..l.words_at + 32].copy_from_slice(&encode(words, endian));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [ChecksumKind; 4] =
        [ChecksumKind::Label, ChecksumKind::GangHeader, ChecksumKind::Zilog, ChecksumKind::Zilog2];

    #[test]
    fn seals_verify_in_both_orders_and_changes_are_seen() {
        for kind in KINDS {
            for endian in [Endian::Little, Endian::Big] {
                for mac in [None, Some([5, 6])] {
                    let mut block: Vec<u8> = (0..8192u32).map(|i| ((i * 31) >> 3) as u8).collect();
                    block[CHAIN_USED..CHAIN_USED + 8].copy_from_slice(&endian.put_u64(5000));
                    seal_embedded(kind, &mut block, [1, 2, 3, 4], endian, mac).unwrap();
                    assert_eq!(verify_embedded(kind, &block, [1, 2, 3, 4], mac.is_some()), Ok(endian));
                    let wrong = verify_embedded(kind, &block, [9, 2, 3, 4], mac.is_some());
                    assert!(matches!(wrong, Err(CodecError::Checksum { .. })), "{kind:?} {wrong:?}");
                    block[700] ^= 1;
                    assert!(verify_embedded(kind, &block, [1, 2, 3, 4], mac.is_some()).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_blocks_do_not_panic(mut data in proptest::collection::vec(any::<u8>(), 0..600), used: u64, k in 0usize..4) {
            for at in [data.len().checked_sub(TRAILER_LEN), Some(CHAIN_TRAILER)].into_iter().flatten() {
                if let Some(m) = data.get_mut(at..at + 8) {
                    m.copy_from_slice(&ZEC_MAGIC.to_le_bytes());
                }
            }
            if let Some(u) = data.get_mut(CHAIN_USED..CHAIN_USED + 8) {
                u.copy_from_slice(&used.to_le_bytes());
            }
            let _ = verify_embedded(KINDS[k], &data, [0; 4], false);
        }
    }
}
