//! Header block and pointer table of fat ZAPs (`zap_phys_t`, `zap_table_phys_t`).

use super::hash::{HashParams, hash_prefix};
use super::{ZAP_FLAG_UINT64_KEY, ZAP_MAGIC, ZBT_HEADER};
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader, u64_at};
use crate::write::{put, words_to_bytes};

/// Where the pointer table lies (`zap_table_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtrTable {
    /// First block; meaningless when embedded.
    pub blk: u64,
    /// Blocks taken; 0 when the table is embedded in the header block.
    pub numblks: u64,
    /// log2 of the number of entries: bits of the hash that index it.
    pub shift: u32,
    /// First block of the larger copy being made, or 0.
    pub nextblk: u64,
    /// Blocks already copied into it.
    pub blks_copied: u64,
}

/// Header of a fat ZAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FatHeader {
    /// log2 of the block size.
    pub block_shift: u32,
    /// The pointer table.
    pub ptrtbl: PtrTable,
    /// First block never used.
    pub freeblk: u64,
    /// Leaf blocks.
    pub num_leafs: u64,
    /// Entries.
    pub num_entries: u64,
    /// Stirred into every hash.
    pub salt: u64,
    /// `NORM_*` flags under which names are hashed and compared.
    pub normflags: u64,
    /// `ZAP_FLAG_*`.
    pub flags: u64,
}

/// Where the block number of a leaf is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafPointer {
    /// In the header block: this is it.
    Block(u64),
    /// In the word at byte `offset` of block `blkid` of the object.
    InTable {
        /// Block of the object.
        blkid: u64,
        /// Byte offset inside that block.
        offset: usize,
    },
}

impl FatHeader {
    /// Decodes block 0 of a fat ZAP; its length must be the object's block size.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "zap header");
        if r.u64()? != ZBT_HEADER || r.u64()? != ZAP_MAGIC {
            return Err(r.err("wrong block type or magic"));
        }
        let [blk, numblks, shift, nextblk, blks_copied] = r.u64s()?;
        let [freeblk, num_leafs, num_entries, salt, normflags, flags] = r.u64s()?;
        if !buf.len().is_power_of_two() || !(512..=16 << 20).contains(&buf.len()) {
            return Err(r.err(format!("block of {} bytes", buf.len())));
        }
        let block_shift = buf.len().trailing_zeros();
        let most = if numblks == 0 { u64::from(block_shift) - 4 } else { 48 };
        if shift > most {
            return Err(r.err(format!("pointer table of 2^{shift} entries")));
        }
        let ptrtbl = PtrTable { blk, numblks, shift: shift as u32, nextblk, blks_copied };
        Ok(Self { block_shift, ptrtbl, freeblk, num_leafs, num_entries, salt, normflags, flags })
    }

    /// Makes block 0 of a new fat ZAP: an embedded table of which every pointer leads to block 1, the only leaf.
    pub fn init(buf: &mut [u8], endian: Endian, salt: u64, normflags: u64, flags: u64) -> Result<Self> {
        let block_shift = buf.len().max(1).trailing_zeros();
        let shift = block_shift.saturating_sub(4);
        let ptrtbl = PtrTable { blk: 0, numblks: 0, shift, nextblk: 0, blks_copied: 0 };
        let h = Self { block_shift, ptrtbl, freeblk: 2, num_leafs: 1, num_entries: 0, salt, normflags, flags };
        buf.fill(0);
        let half = buf.len() / 2;
        for word in buf.get_mut(half..).unwrap_or_default().chunks_exact_mut(8) {
            word.copy_from_slice(&endian.put_u64(1));
        }
        h.store(buf, endian)?;
        Self::decode(buf, endian)
    }

    /// Writes the header's fields into block 0; an embedded pointer table stays as it is.
    pub fn store(&self, buf: &mut [u8], endian: Endian) -> Result<()> {
        let t = &self.ptrtbl;
        let words = [
            ZBT_HEADER,
            ZAP_MAGIC,
            t.blk,
            t.numblks,
            u64::from(t.shift),
            t.nextblk,
            t.blks_copied,
            self.freeblk,
            self.num_leafs,
            self.num_entries,
            self.salt,
            self.normflags,
            self.flags,
        ];
        if put(buf, 0, &words_to_bytes(&words, endian)) {
            Ok(())
        } else {
            Err(DecodeError::new("zap header", 0, "block is too small"))
        }
    }

    /// Where entry `index` of the pointer table lies: the block of the object, and the byte in it. Of an embedded table
    /// that is block 0.
    pub fn pointer_place(&self, index: u64) -> (u64, usize) {
        let per_block = self.block_shift.saturating_sub(3);
        if self.ptrtbl.numblks == 0 {
            (0, (1usize << self.block_shift) / 2 + (index as usize) * 8)
        } else {
            (self.ptrtbl.blk + (index >> per_block), ((index & ((1 << per_block) - 1)) as usize) * 8)
        }
    }

    /// How keys are hashed.
    pub fn hash_params(&self) -> HashParams {
        HashParams { salt: self.salt, flags: self.flags }
    }

    /// Whether keys are arrays of 64-bit words.
    pub fn has_word_keys(&self) -> bool {
        self.flags & ZAP_FLAG_UINT64_KEY != 0
    }

    /// Where the leaf for `hash` is named; `buf` is block 0.
    pub fn leaf_pointer(&self, buf: &[u8], endian: Endian, hash: u64) -> Result<LeafPointer> {
        let idx = hash_prefix(hash, self.ptrtbl.shift);
        if self.ptrtbl.numblks == 0 {
            let off = (buf.len() / 2).saturating_add((idx as usize).saturating_mul(8));
            let blk = u64_at(buf, off, endian);
            return blk
                .map(LeafPointer::Block)
                .ok_or_else(|| DecodeError::new("zap header", off, "pointer outside of the block"));
        }
        let per_block_shift = self.block_shift.saturating_sub(3);
        let n = idx >> per_block_shift;
        let offset = ((idx & ((1 << per_block_shift) - 1)) as usize) * 8;
        match self.ptrtbl.blk.checked_add(n) {
            Some(blkid) if n < self.ptrtbl.numblks => Ok(LeafPointer::InTable { blkid, offset }),
            _ => Err(DecodeError::new("zap header", 16, format!("pointer block {n} of {}", self.ptrtbl.numblks))),
        }
    }
}

/// Writes `src`, words of a pointer table, twice each into `dst`: how a table doubles.
pub fn double_pointers(src: &[u8], dst: &mut [u8]) {
    for (pair, word) in dst.chunks_exact_mut(16).zip(src.chunks_exact(8)) {
        let (a, b) = pair.split_at_mut(8);
        a.copy_from_slice(word);
        b.copy_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(endian: Endian, numblks: u64, shift: u64) -> Vec<u8> {
        let words = [ZBT_HEADER, ZAP_MAGIC, 5, numblks, shift, 0, 0, 9, 2, 3, 11, 0, 0];
        let mut b: Vec<u8> = words.iter().flat_map(|w| endian.put_u64(*w)).collect();
        b.resize(512, 0);
        for i in 0..32u64 {
            b.extend(endian.put_u64(100 + i));
        }
        b.resize(1024, 0);
        b
    }

    #[test]
    fn embedded_and_external_tables() {
        for e in [Endian::Little, Endian::Big] {
            let b = header(e, 0, 5);
            let h = FatHeader::decode(&b, e).unwrap();
            assert_eq!((h.block_shift, h.freeblk, h.num_leafs, h.num_entries, h.salt), (10, 9, 2, 3, 11));
            assert_eq!(h.leaf_pointer(&b, e, 3 << 59), Ok(LeafPointer::Block(103)));
            let b = header(e, 4, 9);
            let h = FatHeader::decode(&b, e).unwrap();
            assert_eq!(h.leaf_pointer(&b, e, 129 << 55), Ok(LeafPointer::InTable { blkid: 6, offset: 8 }));
            assert!(FatHeader::decode(&header(e, 0, 7), e).is_err());
            let h = FatHeader::decode(&header(e, 1, 9), e).unwrap();
            assert!(h.leaf_pointer(&b, e, u64::MAX).is_err());
        }
    }

    #[test]
    fn new_tables_lead_to_their_leaf() {
        for e in [Endian::Little, Endian::Big] {
            let mut b = vec![7; 1024];
            let mut h = FatHeader::init(&mut b, e, 11, 0, 1).unwrap();
            assert_eq!((h.ptrtbl.shift, h.freeblk, h.block_shift), (6, 2, 10));
            for hash in [0, u64::MAX, 1 << 63] {
                assert_eq!(h.leaf_pointer(&b, e, hash), Ok(LeafPointer::Block(1)));
            }
            let (blk, at) = h.pointer_place(63);
            assert_eq!(blk, 0);
            put(&mut b, at, &e.put_u64(5));
            assert_eq!(h.leaf_pointer(&b, e, u64::MAX), Ok(LeafPointer::Block(5)));
            let mut table = vec![0; 1024];
            double_pointers(&b[512..], &mut table);
            h.ptrtbl = PtrTable { blk: 2, numblks: 1, shift: 7, nextblk: 0, blks_copied: 0 };
            h.store(&mut b, e).unwrap();
            assert_eq!(FatHeader::decode(&b, e).unwrap(), h);
            assert_eq!(h.leaf_pointer(&b, e, u64::MAX), Ok(LeafPointer::InTable { blkid: 2, offset: 127 * 8 }));
            assert_eq!(
                (h.pointer_place(127), u64_at(&table, 127 * 8, e), u64_at(&table, 125 * 8, e)),
                ((2, 1016), Some(5), Some(1))
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(mut b in proptest::collection::vec(any::<u8>(), 0..1100), h: u64, cut: bool) {
            if cut { b.truncate(512) }
            for e in [Endian::Little, Endian::Big] {
                if b.len() >= 16 {
                    b[..8].copy_from_slice(&e.put_u64(ZBT_HEADER));
                    b[8..16].copy_from_slice(&e.put_u64(ZAP_MAGIC));
                }
                if let Ok(z) = FatHeader::decode(&b, e) {
                    let _ = z.leaf_pointer(&b, e, h);
                }
            }
        }
    }
}
