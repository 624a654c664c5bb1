//! Block pointers (`blkptr_t`, 128 bytes; include/sys/spa.h).
//!
//! A block pointer is kept as its sixteen 64-bit words in host order; every field is a view of those words.
//! Words 0-5 are three DVAs, 6 the properties, 7 `prop2`, 8 padding, 9-10 the physical and logical birth txgs, 11
//! the fill count, 12-15 the checksum. Embedded pointers reuse all but words 6 and 10 for up to 112 bytes of payload.

use crate::enums::{ChecksumKind, CompressKind, DmuObjectType};
use crate::error::{DecodeError, Result};
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

/// Replaces the bits that [`bits`] reads; `value` must fit them.
const fn put_bits(word: &mut u64, low: u32, len: u32, value: u64) {
    let mask = ((1u64 << len) - 1) << low;
    debug_assert!(value >> len == 0);
    *word = (*word & !mask) | ((value << low) & mask);
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

/// Building pointers. Sizes are in bytes and must be multiples of 512 within their fields' ranges, which the engine's own
/// limits (blocks of 512 bytes to 16 MiB) keep; debug builds assert it.
impl BlkPtr {
    /// A hole that records when it was punched, as pools with the feature `hole_birth` keep it. Without a birth, a hole
    /// is all zeros.
    pub fn hole(lsize: u64, object_type: DmuObjectType, level: u8, birth: u64) -> Self {
        let mut bp = Self::default();
        if birth != 0 {
            bp.set_lsize(lsize);
            bp.set_object_type(object_type);
            bp.set_level(level);
            bp.set_birth(birth, birth);
        }
        bp
    }

    /// A pointer that carries `payload` itself: `lsize` bytes compressed by `compress` (or as they are, with
    /// [`CompressKind::Off`]). Type, level and birth are the caller's to set. An error when the payload is empty or
    /// longer than [`BPE_PAYLOAD_SIZE`], or `lsize` does not fit.
    pub fn embedded(payload: &[u8], lsize: u64, compress: CompressKind, etype: u8) -> Result<Self> {
        let fail = |why: String| Err(DecodeError::new("embedded blkptr", 0, why));
        if payload.is_empty() || payload.len() > BPE_PAYLOAD_SIZE || lsize == 0 || lsize > 1 << 25 {
            return fail(format!("{} bytes of payload for {lsize}", payload.len()));
        }
        let mut bp = Self::default();
        let prop = bp.prop_mut();
        put_bits(prop, 0, 25, lsize - 1);
        put_bits(prop, 25, 7, payload.len() as u64 - 1);
        put_bits(prop, 32, 7, compress as u64);
        put_bits(prop, 39, 1, 1);
        put_bits(prop, 40, 8, u64::from(etype));
        put_bits(prop, 63, 1, u64::from(Endian::NATIVE == Endian::Little));
        let words = bp.word.iter_mut().enumerate().filter(|(i, _)| *i != 6 && *i != 10).map(|(_, w)| w);
        for (word, chunk) in words.zip(payload.chunks(8)) {
            *word = chunk.iter().rev().fold(0, |w, b| (w << 8) | u64::from(*b));
        }
        Ok(bp)
    }

    fn prop_mut(&mut self) -> &mut u64 {
        let [_, _, _, _, _, _, prop, ..] = &mut self.word;
        prop
    }

    /// Sets address `d` of 0 to 2 (others are ignored).
    pub fn set_dva(&mut self, d: usize, dva: Dva) {
        if let Some(pair) = self.word.chunks_exact_mut(2).take(3).nth(d) {
            pair.copy_from_slice(&dva.word);
        }
    }

    /// Sets the logical size.
    pub fn set_lsize(&mut self, lsize: u64) {
        debug_assert!(lsize.is_multiple_of(512) && lsize != 0 && !self.is_embedded());
        put_bits(self.prop_mut(), 0, 16, ((lsize >> SPA_MINBLOCKSHIFT).wrapping_sub(1)) & 0xffff);
    }

    /// Sets the physical size.
    pub fn set_psize(&mut self, psize: u64) {
        debug_assert!(psize.is_multiple_of(512) && psize != 0 && !self.is_embedded());
        put_bits(self.prop_mut(), 16, 16, ((psize >> SPA_MINBLOCKSHIFT).wrapping_sub(1)) & 0xffff);
    }

    /// Sets the compression.
    pub fn set_compress(&mut self, kind: CompressKind) {
        put_bits(self.prop_mut(), 32, 7, kind as u64);
    }

    /// Sets the kind of checksum.
    pub fn set_checksum_kind(&mut self, kind: ChecksumKind) {
        debug_assert!(!self.is_embedded());
        put_bits(self.prop_mut(), 40, 8, kind as u64);
    }

    /// Sets the type of the object the block belongs to.
    pub fn set_object_type(&mut self, t: DmuObjectType) {
        put_bits(self.prop_mut(), 48, 8, u64::from(t.0));
    }

    /// Sets the level.
    pub fn set_level(&mut self, level: u8) {
        put_bits(self.prop_mut(), 56, 5, u64::from(level & 0x1f));
    }

    /// Sets or clears the "crypt" bit.
    pub fn set_crypt(&mut self, on: bool) {
        put_bits(self.prop_mut(), 61, 1, u64::from(on));
    }

    /// Sets or clears the dedup bit.
    pub fn set_dedup(&mut self, on: bool) {
        put_bits(self.prop_mut(), 62, 1, u64::from(on));
    }

    /// Sets the byte order of the contents.
    pub fn set_endian(&mut self, e: Endian) {
        put_bits(self.prop_mut(), 63, 1, u64::from(e == Endian::Little));
    }

    /// Sets both birth txgs. The physical one is stored only where it differs; embedded pointers have none.
    pub fn set_birth(&mut self, logical: u64, physical: u64) {
        let embedded = self.is_embedded();
        let [_, _, _, _, _, _, _, _, _, phys, log, ..] = &mut self.word;
        *log = logical;
        if !embedded {
            *phys = if logical == physical { 0 } else { physical };
        }
    }

    /// Sets the fill count; type, level and crypt bit must be set already, since an encrypted block's count is narrower.
    pub fn set_fill(&mut self, fill: u64) {
        debug_assert!(!self.is_embedded());
        let encrypted = self.is_encrypted();
        let [_, _, _, _, _, _, _, _, _, _, _, word, ..] = &mut self.word;
        if encrypted {
            put_bits(word, 0, 32, fill & 0xffff_ffff);
        } else {
            *word = fill;
        }
    }

    /// Sets the checksum words.
    pub fn set_checksum(&mut self, sum: [u64; 4]) {
        let [.., a, b, c, d] = &mut self.word;
        [*a, *b, *c, *d] = sum;
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

    proptest! {
        #[test]
        fn what_is_set_is_read(
            lsize in 1u64..=1 << 15, psize in 1u64..=1 << 15, level in 0u8..32, t in 0u8..54, crypt: bool, dedup: bool,
            big: bool, births in any::<(u32, u32)>(), fill in any::<u32>(), sum: [u64; 4], dirty: [u64; 16],
        ) {
            let mut bp = BlkPtr { word: dirty };
            bp.word[6] &= !(1 << 39);
            bp.word[7] = 0;
            let dvas: Vec<Dva> = (0..3u32).map(|i| Dva::new(i, u64::from(fill) << 9, 4096, i == 0)).collect();
            dvas.iter().enumerate().for_each(|(i, d)| bp.set_dva(i, *d));
            bp.set_dva(3, Dva::new(9, 9, 512, true));
            bp.set_lsize(lsize << 9);
            bp.set_psize(psize << 9);
            bp.set_compress(CompressKind::Zstd);
            bp.set_checksum_kind(ChecksumKind::Blake3);
            bp.set_object_type(DmuObjectType(t));
            bp.set_level(level);
            bp.set_crypt(crypt);
            bp.set_dedup(dedup);
            bp.set_endian(if big { Endian::Big } else { Endian::Little });
            bp.set_birth(births.0.into(), births.1.into());
            bp.set_fill(fill.into());
            bp.set_checksum(sum);
            prop_assert_eq!((bp.lsize(), bp.psize(), bp.level(), bp.object_type().0), (lsize << 9, psize << 9, level, t));
            prop_assert_eq!((bp.compress(), bp.checksum_kind()), (Some(CompressKind::Zstd), Some(ChecksumKind::Blake3)));
            prop_assert_eq!((bp.uses_crypt(), bp.is_dedup(), bp.endian() == Endian::Big), (crypt, dedup, big));
            prop_assert_eq!((bp.logical_birth(), bp.fill(), bp.checksum()), (births.0.into(), fill.into(), sum));
            prop_assert_eq!((bp.word[9] == 0, bp.is_gang()), (births.0 == births.1 || births.1 == 0, true));
            prop_assert_eq!((0..3).map(|i| bp.dva(i)).collect::<Vec<_>>(), dvas);
        }

        #[test]
        fn embedded_payloads_survive(payload in proptest::collection::vec(any::<u8>(), 1..=BPE_PAYLOAD_SIZE), lsize in 1u64..1 << 25) {
            let mut bp = BlkPtr::embedded(&payload, lsize, CompressKind::Lz4, BP_EMBEDDED_TYPE_DATA).unwrap();
            bp.set_object_type(DmuObjectType::PLAIN_FILE_CONTENTS);
            bp.set_birth(77, 77);
            prop_assert_eq!((bp.lsize(), bp.embedded_payload()), (lsize, payload));
            prop_assert_eq!((bp.logical_birth(), bp.is_hole(), bp.compress()), (77, false, Some(CompressKind::Lz4)));
        }
    }

    #[test]
    fn holes_remember_their_birth() {
        let t = DmuObjectType::PLAIN_FILE_CONTENTS;
        assert_eq!(BlkPtr::hole(131072, t, 1, 0), BlkPtr::default());
        let h = BlkPtr::hole(131072, t, 1, 9);
        assert!(h.is_hole() && h.lsize() == 131072 && h.level() == 1 && h.birth() == 9 && h.object_type() == t);
        assert!(BlkPtr::embedded(&[0; 113], 512, CompressKind::Lz4, 0).is_err());
    }

    #[test]
    fn short_input_is_refused() {
        assert_eq!(BlkPtr::decode(&[0; 127], Endian::Little).unwrap_err().offset, 120);
    }
}
