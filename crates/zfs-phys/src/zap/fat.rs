//! Header block and pointer table of fat ZAPs (`zap_phys_t`, `zap_table_phys_t`).

use super::hash::{HashParams, hash_prefix};
use super::{ZAP_FLAG_UINT64_KEY, ZAP_MAGIC, ZBT_HEADER};
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader, u64_at};

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
