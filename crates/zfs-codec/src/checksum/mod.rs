//! Checksums of blocks, as the four 64-bit words that block pointers hold.
//!
//! The words are integers, so what matters is how a digest of bytes becomes integers: the fletchers sum integers
//! read in the block's byte order; SHA-256 is always taken as big-endian words; every other hash is taken in the
//! byte order of the machine that wrote the block. Give [`compute`] the order of the *block* (its block pointer's
//! byte-order bit) and the result compares equal to the decoded words of the block pointer.

mod edonr;
mod embedded;
mod fletcher2;
mod fletcher4;
mod skein;

pub use edonr::Edonr;
pub use embedded::{TRAILER_LEN, ZEC_MAGIC, gang_verifier, label_verifier, seal_embedded, verify_embedded};
pub use fletcher2::Fletcher2;
pub use fletcher4::Fletcher4;
pub use skein::Skein;

use crate::error::{CodecError, Result};
use sha2::{Digest, Sha256, Sha512_256};
use zfs_phys::Endian;
use zfs_phys::enums::ChecksumKind;

/// The first 32 bytes of a digest as words of byte order `endian`.
pub(crate) fn digest_words(digest: &[u8], endian: Endian) -> [u64; 4] {
    let mut out = [0u64; 4];
    for (o, w) in out.iter_mut().zip(digest.as_chunks::<8>().0) {
        *o = endian.u64(*w);
    }
    out
}

/// Whether the pool's salt (`DMU_POOL_CHECKSUM_SALT`) is needed.
pub const fn is_salted(kind: ChecksumKind) -> bool {
    matches!(kind, ChecksumKind::Skein | ChecksumKind::Edonr | ChecksumKind::Blake3)
}

/// Whether the checksum is in the block itself, see [`verify_embedded`].
pub const fn is_embedded(kind: ChecksumKind) -> bool {
    matches!(kind, ChecksumKind::Label | ChecksumKind::GangHeader | ChecksumKind::Zilog | ChecksumKind::Zilog2)
}

/// Whether the checksum is good enough to identify blocks for deduplication; such ones are cut plainly when half
/// of the words give way to a MAC, weak ones are folded.
pub const fn is_dedup_grade(kind: ChecksumKind) -> bool {
    matches!(kind, ChecksumKind::Sha256 | ChecksumKind::Sha512 | ChecksumKind::Skein | ChecksumKind::Blake3)
}

/// Checksum words of `data`, written in byte order `endian`.
///
/// Nothing for the placeholders `inherit` and `on`, and for a salted kind without salt. For the embedded kinds this
/// is the underlying function over all of `data`; use [`verify_embedded`] to check such blocks.
pub fn compute(kind: ChecksumKind, data: &[u8], endian: Endian, salt: Option<&[u8; 32]>) -> Option<[u64; 4]> {
    use ChecksumKind as K;
    Some(match kind {
        K::Inherit | K::On => return None,
        K::Off | K::Noparity => [0; 4],
        K::Label | K::GangHeader | K::Sha256 => digest_words(&Sha256::digest(data), Endian::Big),
        K::Zilog | K::Fletcher2 => {
            let mut f = Fletcher2::default();
            f.update(data, endian);
            f.words()
        }
        K::Fletcher4 | K::Zilog2 => Fletcher4::of(data, endian),
        K::Sha512 => digest_words(&Sha512_256::digest(data), endian),
        K::Skein => digest_words(&Skein::new(256, salt?).digest(data), endian),
        K::Edonr => {
            let mut h = Edonr::salted(salt?);
            h.update(data);
            digest_words(&h.finish(), endian)
        }
        K::Blake3 => digest_words(blake3::keyed_hash(salt?, data).as_bytes(), endian),
    })
}

/// What is left of a checksum in an encrypted block's pointer: words 2 and 3 give way to the MAC (and read as zero
/// here); a weak checksum is folded so that no part of it is lost.
pub const fn truncate_for_mac(kind: ChecksumKind, words: [u64; 4]) -> [u64; 4] {
    if is_dedup_grade(kind) { [words[0], words[1], 0, 0] } else { [words[0] ^ words[2], words[1] ^ words[3], 0, 0] }
}

/// Checks `data` against the words of its block pointer; `mac` as in [`verify_embedded`] (true for encrypted and
/// authenticated blocks except object sets).
///
/// # Errors
/// [`CodecError::Checksum`] on mismatch, [`CodecError::Unsupported`] where [`compute`] gives nothing.
pub fn verify(
    kind: ChecksumKind,
    data: &[u8],
    endian: Endian,
    salt: Option<&[u8; 32]>,
    mut expected: [u64; 4],
    mac: bool,
) -> Result<()> {
    let mut actual = compute(kind, data, endian, salt).ok_or(CodecError::Unsupported("checksum without its salt"))?;
    if mac {
        actual = truncate_for_mac(kind, actual);
        expected[2..].fill(0);
    }
    if actual == expected { Ok(()) } else { Err(CodecError::Checksum { expected, actual }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 examples, read in each order.
    #[test]
    fn sha_words() {
        let sha256 = [0xba7816bf8f01cfea, 0x414140de5dae2223, 0xb00361a396177a9c, 0xb410ff61f20015ad];
        for endian in [Endian::Little, Endian::Big] {
            assert_eq!(compute(ChecksumKind::Sha256, b"abc", endian, None), Some(sha256));
        }
        let sha512 = [0x53048e2681941ef9, 0x9b2e29b76b4c7dab, 0xe4c2d0c634fc6d46, 0xe0e2f13107e7af23u64];
        assert_eq!(compute(ChecksumKind::Sha512, b"abc", Endian::Big, None), Some(sha512));
        assert_eq!(compute(ChecksumKind::Sha512, b"abc", Endian::Little, None), Some(sha512.map(u64::swap_bytes)));
    }

    #[test]
    fn salted_kinds_need_their_salt() {
        for kind in [ChecksumKind::Skein, ChecksumKind::Edonr, ChecksumKind::Blake3] {
            assert!(is_salted(kind));
            assert_eq!(compute(kind, b"x", Endian::Little, None), None);
            let one = compute(kind, b"x", Endian::Little, Some(&[1; 32])).unwrap();
            let two = compute(kind, b"x", Endian::Little, Some(&[2; 32])).unwrap();
            assert_ne!(one, two);
            let big = compute(kind, b"x", Endian::Big, Some(&[1; 32])).unwrap();
            assert_eq!(big, one.map(u64::swap_bytes));
        }
        assert_eq!(compute(ChecksumKind::On, b"x", Endian::Little, None), None);
        assert_eq!(compute(ChecksumKind::Off, b"x", Endian::Little, None), Some([0; 4]));
    }

    #[test]
    fn mac_words_are_not_compared() {
        let data = [7u8; 512];
        for kind in [ChecksumKind::Fletcher4, ChecksumKind::Sha256] {
            let words = compute(kind, &data, Endian::Little, None).unwrap();
            let mut stored = truncate_for_mac(kind, words);
            stored[2..].copy_from_slice(&[0xdead, 0xbeef]);
            assert_eq!(verify(kind, &data, Endian::Little, None, stored, true), Ok(()));
            stored[0] ^= 1;
            assert!(verify(kind, &data, Endian::Little, None, stored, true).is_err());
        }
    }
}
