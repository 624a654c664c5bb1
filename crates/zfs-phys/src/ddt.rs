//! Deduplication tables, legacy and fast (include/sys/ddt.h, ddt_impl.h).
//!
//! A table is a ZAP per storage class, keyed by the five words of [`DdtKey`]. A value is one byte of compression and
//! byte order, then the physical part: four variants of (three addresses, references, birth) in legacy tables, one
//! with a class start time in fast ones. Fast tables also keep two logs of not yet stored changes.

use crate::blkptr::{BlkPtr, Dva};
use crate::enums::ChecksumKind;
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Bytes of the physical part of a legacy entry.
pub const DDT_TRAD_PHYS_SIZE: usize = 256;
/// Bytes of the physical part of a fast entry.
pub const DDT_FLAT_PHYS_SIZE: usize = 72;
/// Names of the storage classes, by number.
pub const DDT_CLASS_NAMES: [&str; 3] = ["ditto", "duplicate", "unique"];
/// Directory flag: entries are flat.
pub const DDT_FLAG_FLAT: u64 = 1;
/// Directory flag: changes are logged.
pub const DDT_FLAG_LOG: u64 = 2;
/// Buckets of a histogram.
pub const DDT_HISTOGRAM_SIZE: usize = 64;

/// Key of an entry: checksum and sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DdtKey {
    /// Checksum of the block.
    pub checksum: [u64; 4],
    /// Sizes, compression, whether encrypted.
    pub prop: u64,
}

impl DdtKey {
    /// The key of a block.
    pub fn of(bp: &BlkPtr) -> Self {
        let sectors = |bytes: u64| (bytes >> 9).wrapping_sub(1) & 0xffff;
        let prop = sectors(bp.lsize())
            | sectors(bp.psize()) << 16
            | u64::from(bp.compress_raw()) << 32
            | u64::from(bp.uses_crypt()) << 39;
        Self { checksum: bp.checksum(), prop }
    }

    /// From the words of a ZAP key.
    pub fn from_words(w: [u64; 5]) -> Self {
        Self { checksum: [w[0], w[1], w[2], w[3]], prop: w[4] }
    }

    /// The words of a ZAP key.
    pub fn to_words(&self) -> [u64; 5] {
        let [a, b, c, d] = self.checksum;
        [a, b, c, d, self.prop]
    }

    /// Logical bytes.
    pub fn lsize(&self) -> u64 {
        ((self.prop & 0xffff) + 1) << 9
    }

    /// Physical bytes.
    pub fn psize(&self) -> u64 {
        ((self.prop >> 16 & 0xffff) + 1) << 9
    }

    /// Compression (raw).
    pub fn compress_raw(&self) -> u8 {
        (self.prop >> 32 & 0x7f) as u8
    }

    /// Whether the block is encrypted.
    pub fn is_crypt(&self) -> bool {
        self.prop >> 39 & 1 != 0
    }
}

/// One physical variant of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DdtPhys {
    /// Where the block lies.
    pub dva: [Dva; 3],
    /// References to it.
    pub refcnt: u64,
    /// Txg it was written in.
    pub phys_birth: u64,
    /// Fast tables: when it came into its class, seconds since 1970.
    pub class_start: u64,
}

impl DdtPhys {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut dva = [Dva::default(); 3];
        for d in &mut dva {
            d.word = r.u64s()?;
        }
        Ok(Self { dva, refcnt: r.u64()?, phys_birth: r.u64()?, class_start: 0 })
    }

    /// A block pointer to this copy of the block, as far as the table knows it.
    pub fn block_pointer(&self, key: &DdtKey, checksum: ChecksumKind) -> BlkPtr {
        let mut word = [0u64; 16];
        let copies = if key.is_crypt() { 2 } else { 3 };
        for (pair, d) in word.chunks_exact_mut(2).zip(self.dva).take(copies) {
            pair.copy_from_slice(&d.word);
        }
        word[6] = (key.prop & 0xffff_ffff)
            | u64::from(key.compress_raw()) << 32
            | (checksum as u64) << 40
            | u64::from(crate::enums::DmuObjectType::DEDUP.0) << 48
            | u64::from(key.is_crypt()) << 61
            | 1 << 62
            | u64::from(Endian::NATIVE == Endian::Little) << 63;
        word[10] = self.phys_birth;
        word[11] = 1;
        for (w, c) in word.iter_mut().skip(12).zip(key.checksum) {
            *w = c;
        }
        BlkPtr { word }
    }
}

/// How an entry's value is packed: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdtPacking {
    /// Compression of the rest (raw; 2 is none, else zle).
    pub compress_raw: u8,
    /// Byte order of the words inside.
    pub endian: Endian,
}

impl DdtPacking {
    /// Reads the first byte of a value.
    pub fn of(version: u8) -> Self {
        let endian = if version & 0x80 != 0 { Endian::Little } else { Endian::Big };
        Self { compress_raw: version & 0x7f, endian }
    }
}

/// Decodes the unpacked physical part: one variant for a flat table, four for a legacy one.
pub fn decode_phys(buf: &[u8], endian: Endian, flat: bool) -> Result<Vec<DdtPhys>> {
    let mut r = Reader::new(buf, endian, "ddt entry");
    if flat {
        let mut p = DdtPhys::read(&mut r)?;
        p.class_start = r.u64()?;
        return Ok(vec![p]);
    }
    (0..4).map(|_| DdtPhys::read(&mut r)).collect()
}

/// Encodes the physical part: the first variant for a flat table, four (missing ones empty) for a legacy one.
pub fn encode_phys(phys: &[DdtPhys], endian: Endian, flat: bool) -> Vec<u8> {
    let mut w = Writer::new(endian, "ddt entry", DDT_TRAD_PHYS_SIZE);
    let none = DdtPhys::default();
    for i in 0..if flat { 1 } else { 4 } {
        let p = phys.get(i).unwrap_or(&none);
        for d in &p.dva {
            w.u64s(&d.word);
        }
        w.u64(p.refcnt).u64(p.phys_birth);
        if flat {
            w.u64(p.class_start);
        }
    }
    w.finish()
}

/// One row of a histogram, or a sum of rows (`ddt_stat_t`). Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DdtStat {
    /// Blocks.
    pub blocks: u64,
    /// Logical size.
    pub lsize: u64,
    /// Physical size.
    pub psize: u64,
    /// Allocated size, deflated.
    pub dsize: u64,
    /// References.
    pub ref_blocks: u64,
    /// Logical size times references.
    pub ref_lsize: u64,
    /// Physical size times references.
    pub ref_psize: u64,
    /// Allocated size times references.
    pub ref_dsize: u64,
}

impl DdtStat {
    /// Adds another row.
    pub fn add(&mut self, o: &DdtStat) {
        self.blocks = self.blocks.wrapping_add(o.blocks);
        self.lsize = self.lsize.wrapping_add(o.lsize);
        self.psize = self.psize.wrapping_add(o.psize);
        self.dsize = self.dsize.wrapping_add(o.dsize);
        self.ref_blocks = self.ref_blocks.wrapping_add(o.ref_blocks);
        self.ref_lsize = self.ref_lsize.wrapping_add(o.ref_lsize);
        self.ref_psize = self.ref_psize.wrapping_add(o.ref_psize);
        self.ref_dsize = self.ref_dsize.wrapping_add(o.ref_dsize);
    }
}

/// The words of an entry of `DDT-statistics`; missing rows are empty.
pub fn histogram_to_words(rows: &[DdtStat]) -> Vec<u64> {
    let mut out = Vec::with_capacity(DDT_HISTOGRAM_SIZE * 8);
    for s in rows.iter().take(DDT_HISTOGRAM_SIZE) {
        out.extend([s.blocks, s.lsize, s.psize, s.dsize, s.ref_blocks, s.ref_lsize, s.ref_psize, s.ref_dsize]);
    }
    out.resize(DDT_HISTOGRAM_SIZE * 8, 0);
    out
}

/// Builds histogram rows from the words of an entry of `DDT-statistics`.
pub fn histogram_from_words(words: &[u64]) -> Vec<DdtStat> {
    let row = |c: &[u64]| {
        let w = |i: usize| c.get(i).copied().unwrap_or(0);
        DdtStat {
            blocks: w(0),
            lsize: w(1),
            psize: w(2),
            dsize: w(3),
            ref_blocks: w(4),
            ref_lsize: w(5),
            ref_psize: w(6),
            ref_dsize: w(7),
        }
    };
    words.chunks_exact(8).take(DDT_HISTOGRAM_SIZE).map(row).collect()
}

/// Bonus of a log object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdtLogHeader {
    /// Version; 1 is known.
    pub version: u8,
    /// Bit 0: being flushed; bit 1: `checkpoint` is valid.
    pub flags: u8,
    /// Bytes of records.
    pub length: u64,
    /// Txg in which it became the active one.
    pub first_txg: u64,
    /// Entries up to this key are flushed already.
    pub checkpoint: Option<DdtKey>,
}

impl DdtLogHeader {
    /// Decodes the bonus.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "ddt log header");
        let [info, length, first_txg] = r.u64s()?;
        let key = DdtKey::from_words(r.u64s()?);
        let flags = (info >> 8) as u8;
        Ok(Self { version: info as u8, flags, length, first_txg, checkpoint: (flags & 2 != 0).then_some(key) })
    }
}

/// A record of a log: the entry's newest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdtLogEntry {
    /// Key.
    pub key: DdtKey,
    /// Storage class.
    pub class: u8,
    /// Physical variants.
    pub phys: Vec<DdtPhys>,
}

/// Decodes the records of one block of a log.
pub fn decode_log_block(buf: &[u8], endian: Endian, flat: bool) -> Result<Vec<DdtLogEntry>> {
    let mut out = Vec::new();
    let mut pos = 0usize;
    while let Some(rest) = buf.get(pos..).filter(|r| r.len() >= 8) {
        let mut r = Reader::new(rest, endian, "ddt log");
        let info = r.u64()?;
        match info & 0xff {
            0 => break,
            1 => {}
            other => return Err(DecodeError::new("ddt log", pos, format!("record type {other}"))),
        }
        let len = (info >> 8 & 0xffff) as usize;
        let key = DdtKey::from_words(r.u64s()?);
        let body =
            rest.get(48..len).ok_or_else(|| DecodeError::new("ddt log", pos, format!("record of {len} bytes")))?;
        out.push(DdtLogEntry { key, class: (info >> 56) as u8, phys: decode_phys(body, endian, flat)? });
        pos += len;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_input_panics(buf in proptest::collection::vec(any::<u8>(), 0..600), flat: bool) {
            let _ = decode_log_block(&buf, Endian::Little, flat);
            if let Ok(p) = decode_phys(&buf, Endian::Big, flat) {
                let size = if flat { DDT_FLAT_PHYS_SIZE } else { DDT_TRAD_PHYS_SIZE };
                prop_assert_eq!(&encode_phys(&p, Endian::Big, flat)[..], &buf[..size]);
            }
            let _ = DdtLogHeader::decode(&buf, Endian::Big);
        }

        #[test]
        fn a_key_gives_the_block_back(w in any::<[u64; 16]>()) {
            let mut bp = BlkPtr { word: w };
            bp.word[6] &= !(1 << 39);
            let key = DdtKey::of(&bp);
            let back = DdtPhys::default().block_pointer(&key, ChecksumKind::Sha256);
            prop_assert_eq!(DdtKey::of(&back), key);
            prop_assert_eq!(DdtKey::from_words(key.to_words()), key);
            prop_assert_eq!((key.lsize(), key.psize()), (bp.lsize(), bp.psize()));
        }
    }

    #[test]
    fn histograms_survive() {
        let words: Vec<u64> = (0..512).collect();
        assert_eq!(histogram_to_words(&histogram_from_words(&words)), words);
    }

    #[test]
    fn one_log_record() {
        let mut words = vec![0u64; 64];
        words[0] = 1 | (120 << 8) | (2 << 56);
        words[1] = 77;
        words[12] = 3;
        let buf: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let got = decode_log_block(&buf, Endian::Little, true).unwrap();
        assert_eq!((got.len(), got[0].key.checksum[0], got[0].class, got[0].phys[0].refcnt), (1, 77, 2, 3));
    }
}
