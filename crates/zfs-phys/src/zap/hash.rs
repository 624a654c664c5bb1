//! The hash of ZAP keys: reflected CRC-64 (ECMA-182 polynomial) started from the table's salt, of which the leading
//! 28 or 48 bits are kept (`zap_hash`, module/zfs/zap_impl.c).

use super::{ZAP_FLAG_HASH64, ZAP_FLAG_PRE_HASHED_KEY};

/// The ECMA-182 polynomial, bits reversed (`ZFS_CRC64_POLY`, include/sys/spa.h).
pub const CRC64_POLY: u64 = 0xC96C_5795_D787_0F42;

const TABLE: [u64; 256] = table();

#[allow(clippy::indexing_slicing)] // Evaluated at compile time over a fixed range.
const fn table() -> [u64; 256] {
    let mut t = [0u64; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u64;
        let mut bit = 0;
        while bit < 8 {
            c = (c >> 1) ^ (if c & 1 == 1 { CRC64_POLY } else { 0 });
            bit += 1;
        }
        t[i] = c;
        i += 1;
    }
    t
}

#[inline]
fn step(h: u64, byte: u8) -> u64 {
    let index = (h as u8) ^ byte;
    // The index is a byte and the table has 256 entries.
    #[allow(clippy::indexing_slicing)]
    let t = TABLE[usize::from(index)];
    (h >> 8) ^ t
}

/// What a table's header says about hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashParams {
    /// Start value.
    pub salt: u64,
    /// `ZAP_FLAG_*`; 0 for a micro ZAP.
    pub flags: u64,
}

impl HashParams {
    /// Significant leading bits of a hash.
    pub const fn bits(self) -> u32 {
        if self.flags & ZAP_FLAG_HASH64 != 0 { 48 } else { 28 }
    }

    /// First collision differentiator that is not valid.
    pub const fn max_cd(self) -> u32 {
        if self.flags & ZAP_FLAG_HASH64 != 0 { (1 << 16) - 1 } else { u32::MAX }
    }

    const fn mask(self) -> u64 {
        !((1u64 << (64 - self.bits())) - 1)
    }
}

/// Hash of a name, already normalized as the table demands, without terminating zero.
pub fn hash_name(p: HashParams, name: &[u8]) -> u64 {
    name.iter().fold(p.salt, |h, &b| step(h, b)) & p.mask()
}

/// Hash of a key of 64-bit words.
pub fn hash_words(p: HashParams, key: &[u64]) -> u64 {
    let h = if p.flags & ZAP_FLAG_PRE_HASHED_KEY != 0 {
        key.first().copied().unwrap_or(0)
    } else {
        key.iter().flat_map(|w| w.to_le_bytes()).fold(p.salt, step)
    };
    h & p.mask()
}

/// The leading `bits` of a hash (`ZAP_HASH_IDX`).
pub const fn hash_prefix(hash: u64, bits: u32) -> u64 {
    match bits {
        0 => 0,
        1..=64 => hash >> (64 - bits),
        _ => hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_polynomial_where_openzfs_asserts_it() {
        assert_eq!(TABLE[128], CRC64_POLY);
    }

    #[test]
    fn crc_matches_the_check_value_of_crc64_xz() {
        // CRC-64/XZ is the same reflected sum with all-ones start and inversion at the end.
        let h = b"123456789".iter().fold(u64::MAX, |h, &b| step(h, b)) ^ u64::MAX;
        assert_eq!(h, 0x995D_C9BB_DF19_39FA);
    }

    #[test]
    fn significant_bits() {
        let p = HashParams { salt: 0x1234_5678_9abc_def1, flags: 0 };
        assert_eq!(hash_name(p, b"x") & ((1 << 36) - 1), 0);
        let p = HashParams { flags: ZAP_FLAG_HASH64, ..p };
        assert_eq!(hash_name(p, b"x") & 0xffff, 0);
        assert_eq!(hash_words(HashParams { flags: 7, salt: 1 }, &[u64::MAX, 3]), u64::MAX << 16);
        assert_eq!((hash_prefix(u64::MAX, 0), hash_prefix(u64::MAX, 3), hash_prefix(5, 64)), (0, 7, 5));
    }
}
