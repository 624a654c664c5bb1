//! Block pointer lists (include/sys/bpobj.h): the bonus of a list object; its contents are plain block pointers, and
//! an array of 64-bit object numbers in another object names further lists.

use crate::error::Result;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Most levels of lists in lists that are followed. OpenZFS never nests deeper than two.
pub const MAX_DEPTH: usize = 16;

/// The bonus of a block pointer list (`bpobj_phys_t`); fields that its version lacks are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BpobjPhys {
    /// Block pointers in the object itself.
    pub num_blkptrs: u64,
    /// Bytes that all blocks, those of sub-lists included, take on disk.
    pub bytes: u64,
    /// Their compressed size.
    pub comp: u64,
    /// Their logical size.
    pub uncomp: u64,
    /// Object with the array of sub-lists, or 0.
    pub subobjs: u64,
    /// Sub-lists.
    pub num_subobjs: u64,
    /// Block pointers marked as freed (livelists).
    pub num_freed: u64,
    /// Whether `comp` and `uncomp` are kept.
    pub has_comp: bool,
}

impl BpobjPhys {
    /// Decodes the bonus, of 16 (version 0), 32, 48 or 56 bytes.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "bpobj");
        let mut out = Self { num_blkptrs: r.u64()?, bytes: r.u64()?, ..Self::default() };
        out.has_comp = r.remaining() >= 16;
        if out.has_comp {
            [out.comp, out.uncomp] = r.u64s()?;
        }
        if r.remaining() >= 16 {
            [out.subobjs, out.num_subobjs] = r.u64s()?;
        }
        if r.remaining() >= 8 {
            out.num_freed = r.u64()?;
        }
        Ok(out)
    }
}

/// Bytes of the bonus in its newest version.
pub const BPOBJ_SIZE: usize = 56;
/// Bytes of version 2: with sub-lists, without a count of freed pointers.
pub const BPOBJ_SIZE_V2: usize = 48;

impl BpobjPhys {
    /// Encodes a bonus of `size` bytes: 16, 32, 48 or 56. An error when it is none of these.
    pub fn encode(&self, size: usize, endian: Endian) -> Result<Vec<u8>> {
        let mut w = Writer::new(endian, "bpobj", size);
        let words =
            [self.num_blkptrs, self.bytes, self.comp, self.uncomp, self.subobjs, self.num_subobjs, self.num_freed];
        match words.get(..size / 8).filter(|_| matches!(size, 16 | 32 | BPOBJ_SIZE_V2 | BPOBJ_SIZE)) {
            Some(words) => w.u64s(words),
            None => return Err(w.err(format!("bonus of {size} bytes"))),
        };
        Ok(w.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_the_bonus() {
        let all: Vec<u8> = (1..=7u64).flat_map(u64::to_be_bytes).collect();
        let at = |n: usize| BpobjPhys::decode(&all[..n], Endian::Big);
        let v0 = BpobjPhys { num_blkptrs: 1, bytes: 2, ..Default::default() };
        let v1 = BpobjPhys { comp: 3, uncomp: 4, has_comp: true, ..v0 };
        let v2 = BpobjPhys { subobjs: 5, num_subobjs: 6, ..v1 };
        assert_eq!((at(16), at(32), at(48)), (Ok(v0), Ok(v1), Ok(v2)));
        assert_eq!(at(56), Ok(BpobjPhys { num_freed: 7, ..v2 }));
        assert!(at(15).is_err());
        for n in [16, 32, 48, 56] {
            assert_eq!(at(n).unwrap().encode(n, Endian::Big).unwrap(), all[..n]);
        }
        assert!(v0.encode(40, Endian::Big).is_err());
    }
}
