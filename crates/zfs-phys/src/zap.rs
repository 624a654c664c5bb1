//! ZAP objects: name/value tables on disk (include/sys/zap_impl.h, include/sys/zap_leaf.h).
//!
//! Three kinds of block exist, told apart by their first word: a *micro* ZAP is one block of 64-byte entries that
//! map names of up to 49 bytes to one 64-bit value; a *fat* ZAP is a header block with a pointer table (its own
//! second half, or blocks of its own), and *leaf* blocks found by the leading bits of a key's hash.
//!
//! This module knows blocks; which block to read next is the business of the engine.

pub mod fat;
pub mod hash;
pub mod leaf;
pub mod leaf_edit;

pub use fat::FatHeader;
pub use hash::{HashParams, hash_name, hash_words};
pub use leaf::{Leaf, LeafEntry};
pub use leaf_edit::{Fit, LeafMut, NewEntry};

use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader, u64_at};
use crate::write::{Writer, put};

/// First word of a leaf block.
pub const ZBT_LEAF: u64 = 1 << 63;
/// First word of a fat ZAP's header block.
pub const ZBT_HEADER: u64 = (1 << 63) + 1;
/// First word of a micro ZAP.
pub const ZBT_MICRO: u64 = (1 << 63) + 3;
/// Second word of a fat ZAP's header block.
pub const ZAP_MAGIC: u64 = 0x2_F52A_B2AB;
/// Magic of a leaf block.
pub const ZAP_LEAF_MAGIC: u32 = 0x2AB_1EAF;
/// Bytes of a micro ZAP entry and of the header before the first.
pub const MZAP_ENT_LEN: usize = 64;
/// Bytes of a name field in a micro ZAP, terminating zero included.
pub const MZAP_NAME_LEN: usize = 50;
/// Largest micro ZAP block, bytes.
pub const MZAP_MAX_SIZE: usize = 1 << 20;
/// Longest name, terminating zero included, without the `longname` feature.
pub const ZAP_MAXNAMELEN: usize = 256;
/// Longest name, terminating zero included, with the `longname` feature.
pub const ZAP_MAXNAMELEN_NEW: usize = 1024;

/// Hashes have 48 significant bits instead of 28.
pub const ZAP_FLAG_HASH64: u64 = 1;
/// Keys are arrays of 64-bit words instead of names.
pub const ZAP_FLAG_UINT64_KEY: u64 = 2;
/// The first word of a key is its hash.
pub const ZAP_FLAG_PRE_HASHED_KEY: u64 = 4;

/// Names are folded to upper case (`U8_TEXTPREP_TOUPPER`).
pub const NORM_TOUPPER: u64 = 0x2;
/// Names are normalized to form D (`U8_TEXTPREP_NFD`).
pub const NORM_NFD: u64 = 0x10;
/// Names are normalized to form C (`U8_TEXTPREP_NFC`).
pub const NORM_NFC: u64 = 0x50;
/// Names are normalized to form KD (`U8_TEXTPREP_NFKD`).
pub const NORM_NFKD: u64 = 0x20;
/// Names are normalized to form KC (`U8_TEXTPREP_NFKC`).
pub const NORM_NFKC: u64 = 0x60;

/// Which kind of block the first block of a ZAP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZapKind {
    /// Everything is in this block.
    Micro,
    /// The header of a fat ZAP.
    Fat,
}

impl ZapKind {
    /// Tells the kind by the first words of block 0.
    pub fn of(buf: &[u8], endian: Endian) -> Result<Self> {
        match u64_at(buf, 0, endian) {
            Some(ZBT_MICRO) => Ok(Self::Micro),
            Some(ZBT_HEADER) => Ok(Self::Fat),
            Some(w) => Err(DecodeError::new("zap", 0, format!("unknown block type {w:#x}"))),
            None => Err(DecodeError::new("zap", 0, "shorter than one word")),
        }
    }
}

/// A micro ZAP (`mzap_phys_t`): header and entries of one block.
#[derive(Debug, Clone)]
pub struct MicroZap<'a> {
    entries: &'a [u8],
    endian: Endian,
    /// Stirred into every hash.
    pub salt: u64,
    /// `NORM_*` flags under which names are hashed and compared.
    pub normflags: u64,
}

/// One entry of a micro ZAP (`mzap_ent_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroEntry<'a> {
    /// The value.
    pub value: u64,
    /// Collision differentiator: tells entries of equal hash apart.
    pub cd: u32,
    /// The name, without its terminating zero.
    pub name: &'a [u8],
}

impl<'a> MicroZap<'a> {
    /// Decodes the header of a block.
    pub fn decode(buf: &'a [u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "microzap");
        if r.u64()? != ZBT_MICRO {
            return Err(DecodeError::new("microzap", 0, "wrong block type"));
        }
        let (salt, normflags) = (r.u64()?, r.u64()?);
        if buf.len() > MZAP_MAX_SIZE {
            return Err(r.err("larger than a micro ZAP may be"));
        }
        r.seek(MZAP_ENT_LEN)?;
        let entries = r.bytes(r.remaining())?;
        Ok(Self { entries, endian, salt, normflags })
    }

    /// Slots for entries, used or not.
    pub fn chunks(&self) -> usize {
        self.entries.len() / MZAP_ENT_LEN
    }

    /// The entry in slot `index`, if that slot is used.
    pub fn entry(&self, index: usize) -> Option<MicroEntry<'a>> {
        let start = index.checked_mul(MZAP_ENT_LEN)?;
        let chunk = self.entries.get(start..start.checked_add(MZAP_ENT_LEN)?)?;
        let name = chunk.get(MZAP_ENT_LEN - MZAP_NAME_LEN..)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        if end == 0 {
            return None;
        }
        let cd = chunk.get(8..12)?.try_into().ok()?;
        Some(MicroEntry { value: u64_at(chunk, 0, self.endian)?, cd: self.endian.u32(cd), name: name.get(..end)? })
    }

    /// All entries, with their slots, in the order of the block.
    pub fn iter(&self) -> impl Iterator<Item = (usize, MicroEntry<'a>)> + '_ {
        (0..self.chunks()).filter_map(|i| self.entry(i).map(|e| (i, e)))
    }
}

/// Makes an empty micro ZAP of the whole of `buf`.
pub fn init_micro(buf: &mut [u8], endian: Endian, salt: u64, normflags: u64) -> Result<()> {
    buf.fill(0);
    let head = crate::write::words_to_bytes(&[ZBT_MICRO, salt, normflags], endian);
    if put(buf, 0, &head) { Ok(()) } else { Err(DecodeError::new("microzap", 0, "block is too small")) }
}

/// Puts `entry` into slot `index` of a micro ZAP, or clears that slot. An error when there is no such slot, or the name
/// is empty or longer than a slot has room for.
pub fn set_micro_entry(buf: &mut [u8], endian: Endian, index: usize, entry: Option<MicroEntry<'_>>) -> Result<()> {
    let mut w = Writer::new(endian, "microzap entry", MZAP_ENT_LEN);
    if let Some(e) = entry {
        if e.name.is_empty() || e.name.len() >= MZAP_NAME_LEN || e.name.contains(&0) {
            return Err(w.err(format!("a name of {} bytes", e.name.len())));
        }
        w.u64(e.value).u32(e.cd).zeros(2).bytes(e.name);
    }
    w.pad_to(MZAP_ENT_LEN)?;
    let at = index.saturating_add(1).saturating_mul(MZAP_ENT_LEN);
    if put(buf, at, &w.finish()) { Ok(()) } else { Err(DecodeError::new("microzap", at, "no such slot")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micro(endian: Endian, entries: &[(&str, u64, u32)]) -> Vec<u8> {
        let mut b = Vec::new();
        for w in [ZBT_MICRO, 77, NORM_NFD, 0, 0, 0, 0, 0] {
            b.extend(endian.put_u64(w));
        }
        for (name, value, cd) in entries {
            b.extend(endian.put_u64(*value));
            b.extend(if endian == Endian::Big { cd.to_be_bytes() } else { cd.to_le_bytes() });
            b.extend([0, 0]);
            let mut n = name.as_bytes().to_vec();
            n.resize(MZAP_NAME_LEN, 0);
            b.extend(n);
        }
        b
    }

    #[test]
    fn micro_entries_of_both_byte_orders() {
        let longest = "x".repeat(49);
        for e in [Endian::Little, Endian::Big] {
            let buf = micro(e, &[("one", 1, 0), ("", 9, 9), (&longest, u64::MAX, 3)]);
            assert_eq!(ZapKind::of(&buf, e), Ok(ZapKind::Micro));
            let z = MicroZap::decode(&buf, e).unwrap();
            assert_eq!((z.salt, z.normflags, z.chunks()), (77, NORM_NFD, 3));
            let got: Vec<_> = z.iter().collect();
            assert_eq!(got[0], (0, MicroEntry { value: 1, cd: 0, name: b"one" }));
            assert_eq!(got[1], (2, MicroEntry { value: u64::MAX, cd: 3, name: longest.as_bytes() }));
            assert_eq!(got.len(), 2);
        }
    }

    #[test]
    fn micro_entries_are_set_and_cleared() {
        for e in [Endian::Little, Endian::Big] {
            let mut buf = vec![9; 512];
            init_micro(&mut buf, e, 5, 0).unwrap();
            let ent = MicroEntry { value: 8, cd: 2, name: b"name" };
            set_micro_entry(&mut buf, e, 6, Some(ent)).unwrap();
            assert_eq!(MicroZap::decode(&buf, e).unwrap().iter().collect::<Vec<_>>(), [(6, ent)]);
            assert!(set_micro_entry(&mut buf, e, 7, Some(ent)).is_err());
            let long = [b'x'; 50];
            assert!(set_micro_entry(&mut buf, e, 0, Some(MicroEntry { name: &long, ..ent })).is_err());
            set_micro_entry(&mut buf, e, 6, None).unwrap();
            assert_eq!(MicroZap::decode(&buf, e).unwrap().iter().count(), 0);
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(mut buf in proptest::collection::vec(any::<u8>(), 0..700), big: bool) {
            let e = if big { Endian::Big } else { Endian::Little };
            let _ = ZapKind::of(&buf, e);
            if buf.len() > 8 {
                buf[..8].copy_from_slice(&e.put_u64(ZBT_MICRO));
            }
            if let Ok(z) = MicroZap::decode(&buf, e) {
                prop_assert!(z.iter().count() <= z.chunks());
            }
        }
    }
}
