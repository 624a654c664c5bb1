//! Block pointers (`blkptr_t`, 128 bytes; include/sys/spa.h).
//!
//! A block pointer is kept as its sixteen 64-bit words in host order; every field is a view of those words.
//! Words 0-5 are three DVAs, 6 the properties, 7 `prop2`, 8 padding, 9-10 the physical and logical birth txgs, 11
//! the fill count, 12-15 the checksum. Embedded pointers reuse all but words 6 and 10 for up to 112 bytes of payload.

use crate::enums::{ChecksumKind, CompressKind, DmuObjectType};
use crate::error::Result;
use crate::read::{Endian, Reader};

/// Size of a block pointer on disk, bytes.
pub const BLKPTR_SIZE: usize = 128;
/// log2 of the smallest sector and unit of most on-disk sizes.
pub const SPA_MINBLOCKSHIFT: u32 = 9;
/// Largest block, bytes.
pub const SPA_MAXBLOCKSIZE: u64 = 16 << 20;
/// Most bytes an embedded block pointer can carry.
pub const BPE_PAYLOAD_SIZE: usize = 112;
/// Embedded type: compressed file data.
pub const BP_EMBEDDED_TYPE_DATA: u8 = 0;
/// Embedded type: block left out by redacted send.
pub const BP_EMBEDDED_TYPE_REDACTED: u8 = 2;

const fn bits(word: u64, low: u32, len: u32) -> u64 {
    (word >> low) & ((1u64 << len) - 1)
}

/// A data virtual address: a place on a top-level vdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Dva {
    /// The two words as stored, host order.
    pub word: [u64; 2],
}

impl Dva {
    /// Builds an address from its parts; `offset` and `asize` in bytes, multiples of 512.
    pub const fn new(vdev: u32, offset: u64, asize: u64, gang: bool) -> Self {
        let w0 = ((vdev as u64) << 32) | ((asize >> SPA_MINBLOCKSHIFT) & 0xff_ffff);
        let w1 = ((offset >> SPA_MINBLOCKSHIFT) & ((1 << 63) - 1)) | ((gang as u64) << 63);
        Self { word: [w0, w1] }
    }

    /// Top-level vdev id.
    pub const fn vdev(&self) -> u64 {
        bits(self.word[0], 32, 24)
    }

    /// Byte offset within the vdev's allocatable area (which starts 4 MiB into each disk).
    pub const fn offset(&self) -> u64 {
        // Kept at 63 bits on disk; the shift may push absurd values out, which validity checks see as small.
        bits(self.word[1], 0, 63) << SPA_MINBLOCKSHIFT
    }

    /// Allocated bytes, parity and gang headers included.
    pub const fn asize(&self) -> u64 {
        bits(self.word[0], 0, 24) << SPA_MINBLOCKSHIFT
    }

    /// Whether the address holds a gang header instead of data.
    pub const fn is_gang(&self) -> bool {
        self.word[1] >> 63 != 0
    }

    /// Whether this slot is used at all (an unused DVA has an allocated size of zero).
    pub const fn is_valid(&self) -> bool {
        self.asize() != 0
    }

    /// Whether both words are zero.
    pub const fn is_empty(&self) -> bool {
        self.word[0] == 0 && self.word[1] == 0
    }
}

/// A block pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BlkPtr {
    /// The sixteen words, host order.
    pub word: [u64; 16],
}

impl BlkPtr {
    /// Decodes 128 bytes.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        Self::read(&mut Reader::new(buf, endian, "blkptr"))
    }

    /// Decodes the next 128 bytes of a cursor.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { word: r.u64s()? })
    }

    /// Encodes into 128 bytes.
    pub fn encode(&self, endian: Endian) -> [u8; BLKPTR_SIZE] {
        let mut out = [0u8; BLKPTR_SIZE];
        for (chunk, w) in out.chunks_exact_mut(8).zip(self.word) {
            chunk.copy_from_slice(&endian.put_u64(w));
        }
        out
    }

    const fn prop(&self) -> u64 {
        self.word[6]
    }

    /// Address `d` of 0 to 2 (others are empty).
    pub fn dva(&self, d: usize) -> Dva {
        match d {
            0 => Dva { word: [self.word[0], self.word[1]] },
            1 => Dva { word: [self.word[2], self.word[3]] },
            2 => Dva { word: [self.word[4], self.word[5]] },
            _ => Dva::default(),
        }
    }

    /// Whether the payload lies in the pointer itself.
    pub const fn is_embedded(&self) -> bool {
        bits(self.prop(), 39, 1) != 0
    }

    /// Embedded type (only meaningful for embedded pointers): 0 data, 2 redacted.
    pub const fn embedded_type(&self) -> u8 {
        bits(self.prop(), 40, 8) as u8
    }

    /// Whether it is an embedded pointer that stands for redacted data.
    pub const fn is_redacted(&self) -> bool {
        self.is_embedded() && self.embedded_type() == BP_EMBEDDED_TYPE_REDACTED
    }

    /// Logical size, bytes.
    pub const fn lsize(&self) -> u64 {
        if self.is_embedded() {
            if self.embedded_type() == BP_EMBEDDED_TYPE_DATA { bits(self.prop(), 0, 25) + 1 } else { 0 }
        } else {
            (bits(self.prop(), 0, 16) + 1) << SPA_MINBLOCKSHIFT
        }
    }

    /// Physical (compressed) size, bytes; for embedded pointers the payload's length.
    pub const fn psize(&self) -> u64 {
        if self.is_embedded() {
            bits(self.prop(), 25, 7) + 1
        } else {
            (bits(self.prop(), 16, 16) + 1) << SPA_MINBLOCKSHIFT
        }
    }

    /// Physical size as `BP_GET_PSIZE` counts it: zero for embedded pointers.
    pub const fn psize_on_disk(&self) -> u64 {
        if self.is_embedded() { 0 } else { self.psize() }
    }

    /// Sum of the allocated sizes of all copies, bytes.
    pub fn asize(&self) -> u64 {
        self.dvas().map(|d| d.asize()).sum()
    }

    /// Raw compression number.
    pub const fn compress_raw(&self) -> u8 {
        bits(self.prop(), 32, 7) as u8
    }

    /// Compression, when it is one that exists.
    pub fn compress(&self) -> Option<CompressKind> {
        CompressKind::from_raw(self.compress_raw())
    }

    /// Raw checksum number (embedded pointers have none: 2 = off).
    pub const fn checksum_raw(&self) -> u8 {
        if self.is_embedded() { 2 } else { bits(self.prop(), 40, 8) as u8 }
    }

    /// Checksum, when it is one that exists.
    pub fn checksum_kind(&self) -> Option<ChecksumKind> {
        ChecksumKind::from_raw(self.checksum_raw())
    }

    /// Type of the object the block belongs to.
    pub const fn object_type(&self) -> DmuObjectType {
        DmuObjectType(bits(self.prop(), 48, 8) as u8)
    }

    /// Level: 0 for data, above for indirect blocks.
    pub const fn level(&self) -> u8 {
        bits(self.prop(), 56, 5) as u8
    }

    /// Whether the "crypt" bit is set (encrypted or authenticated, or an indirect of such).
    pub const fn uses_crypt(&self) -> bool {
        bits(self.prop(), 61, 1) != 0
    }

    /// Whether the contents are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.uses_crypt() && self.level() == 0 && self.object_type().is_encrypted()
    }

    /// Whether the contents are plain but carry a MAC.
    pub fn is_authenticated(&self) -> bool {
        self.uses_crypt() && self.level() == 0 && !self.object_type().is_encrypted()
    }

    /// Whether it is an indirect block whose checksum holds a MAC of MACs.
    pub fn has_indirect_mac(&self) -> bool {
        self.uses_crypt() && self.level() > 0
    }

    /// Whether the block is in a dedup table.
    pub const fn is_dedup(&self) -> bool {
        bits(self.prop(), 62, 1) != 0
    }

    /// Byte order in which the block's contents were written.
    pub const fn endian(&self) -> Endian {
        if bits(self.prop(), 63, 1) != 0 { Endian::Little } else { Endian::Big }
    }

    /// Whether `zfs rewrite` moved the block (its physical birth then counts as its birth).
    pub const fn is_rewrite(&self) -> bool {
        !self.is_embedded() && self.word[7] >> 63 != 0
    }

    /// Txg in which the contents were last logically modified.
    pub const fn logical_birth(&self) -> u64 {
        self.word[10]
    }

    /// Txg in which the block was written to disk.
    pub const fn physical_birth(&self) -> u64 {
        if self.is_embedded() {
            0
        } else if self.word[9] != 0 {
            self.word[9]
        } else {
            self.word[10]
        }
    }

    /// Txg in which the block was allocated, for comparing against snapshots.
    pub const fn birth(&self) -> u64 {
        if self.is_rewrite() { self.physical_birth() } else { self.logical_birth() }
    }

    /// Non-zero blocks (or dnodes) below this pointer.
    pub fn fill(&self) -> u64 {
        if self.is_embedded() {
            1
        } else if self.is_encrypted() {
            bits(self.word[11], 0, 32)
        } else {
            self.word[11]
        }
    }

    /// Upper half of the initialization vector of an encrypted block.
    pub const fn iv2(&self) -> u32 {
        bits(self.word[11], 32, 32) as u32
    }

    /// The checksum words.
    pub fn checksum(&self) -> [u64; 4] {
        [self.word[12], self.word[13], self.word[14], self.word[15]]
    }

    /// The addresses in use: up to three, up to two when the third holds salt and IV.
    pub fn dvas(&self) -> impl Iterator<Item = Dva> + '_ {
        let most = if self.is_embedded() {
            0
        } else if self.is_encrypted() {
            2
        } else {
            3
        };
        (0..most).map(|d| self.dva(d)).filter(Dva::is_valid)
    }

    /// Number of copies.
    pub fn ndvas(&self) -> usize {
        self.dvas().count()
    }

    /// Whether nothing is stored: the block reads as zeros. A hole may have a birth txg.
    pub fn is_hole(&self) -> bool {
        !self.is_embedded() && self.dva(0).is_empty()
    }

    /// Whether the first address holds a gang header.
    pub fn is_gang(&self) -> bool {
        !self.is_embedded() && self.dva(0).is_gang()
    }

    /// Whether the block is metadata (an indirect, or of a metadata object type).
    pub fn is_metadata(&self) -> bool {
        self.level() > 0 || self.object_type().is_metadata()
    }

    /// Salt and 96-bit initialization vector of an encrypted block, as `zio_crypt_decode_params_bp` reads them:
    /// they are byte strings, kept in words of the byte order that the pointer itself names.
    pub fn crypt_params(&self) -> ([u8; 8], [u8; 12]) {
        let order = self.endian();
        let mut iv = [0u8; 12];
        let (low, high) = iv.split_at_mut(8);
        low.copy_from_slice(&order.put_u64(self.word[5]));
        high.copy_from_slice(&match order {
            Endian::Little => self.iv2().to_le_bytes(),
            Endian::Big => self.iv2().to_be_bytes(),
        });
        (order.put_u64(self.word[4]), iv)
    }

    /// The 128-bit MAC of an encrypted or authenticated block: a byte string in the last two checksum words, which are
    /// of the byte order that the pointer itself names.
    pub fn mac(&self) -> [u8; 16] {
        let mut out = [0u8; 16];
        let (low, high) = out.split_at_mut(8);
        low.copy_from_slice(&self.endian().put_u64(self.word[14]));
        high.copy_from_slice(&self.endian().put_u64(self.word[15]));
        out
    }

    /// Payload bytes of an embedded pointer, still compressed; empty for any other.
    pub fn embedded_payload(&self) -> Vec<u8> {
        if !self.is_embedded() {
            return Vec::new();
        }
        let words = self.word.iter().enumerate().filter(|(i, _)| *i != 6 && *i != 10).map(|(_, w)| *w);
        let mut out: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        out.truncate(self.psize() as usize);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_survive_both_byte_orders(word in any::<[u64; 16]>()) {
            let bp = BlkPtr { word };
            for e in [Endian::Little, Endian::Big] {
                prop_assert_eq!(BlkPtr::decode(&bp.encode(e), e).unwrap(), bp);
            }
            let _ = (bp.lsize(), bp.psize(), bp.fill(), bp.embedded_payload().len(), bp.ndvas());
        }

        #[test]
        fn dva_parts_survive(vdev in 0u32..1 << 24, off in 0u64..1 << 54, asize in 1u64..1 << 24, gang: bool) {
            let d = Dva::new(vdev, off << 9, asize << 9, gang);
            prop_assert_eq!((d.vdev(), d.offset(), d.asize(), d.is_gang()), (u64::from(vdev), off << 9, asize << 9, gang));
        }
    }

    /// Salt, nonce and MAC are bytes: a machine of either byte order stores them unswapped.
    #[test]
    fn crypt_fields_are_byte_strings() {
        for e in [Endian::Little, Endian::Big] {
            let mut raw: Vec<u8> = (0..128).collect();
            let order = if e == Endian::Little { 1 << 63 } else { 0 };
            raw[48..56].copy_from_slice(&e.put_u64(order));
            let bp = BlkPtr::decode(&raw, e).unwrap();
            let (salt, iv) = bp.crypt_params();
            assert_eq!((&salt[..], &iv[..8], &bp.mac()[..]), (&raw[32..40], &raw[40..48], &raw[112..128]));
            // The last four bytes of the nonce are the upper half of the fill word, wherever that lies.
            let half = if e == Endian::Little { &raw[92..96] } else { &raw[88..92] };
            assert_eq!(&iv[8..], half);
        }
    }

    #[test]
    fn short_input_is_refused() {
        assert_eq!(BlkPtr::decode(&[0; 127], Endian::Little).unwrap_err().offset, 120);
    }
}
