//! Block reference tables of cloned blocks (include/sys/brt_impl.h).
//!
//! Each top-level vdev has an object `com.fudosecurity:brt:vdev:ID` whose bonus is [`BrtVdevPhys`], and a ZAP from a
//! block's offset to the number of references beyond the first.

use crate::error::Result;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Name of a vdev's object in the pool directory, without the id.
pub const BRT_OBJECT_VDEV_PREFIX: &str = "com.fudosecurity:brt:vdev:";

/// Bonus of a vdev's object (`brt_vdev_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BrtVdevPhys {
    /// ZAP of entries.
    pub mos_entries: u64,
    /// Ranges the vdev is cut into.
    pub size: u64,
    /// Byte order of the counts: 0 little, 1 big.
    pub byteorder: u64,
    /// Entries.
    pub totalcount: u64,
    /// Bytes of one range.
    pub rangesize: u64,
    /// Bytes of cloned blocks, counted once.
    pub usedspace: u64,
    /// Bytes saved by cloning.
    pub savedspace: u64,
}

impl BrtVdevPhys {
    /// Decodes the bonus.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "brt");
        let [mos_entries, size, byteorder, totalcount, rangesize, usedspace, savedspace] = r.u64s()?;
        Ok(Self { mos_entries, size, byteorder, totalcount, rangesize, usedspace, savedspace })
    }
}

impl BrtVdevPhys {
    /// Encodes the bonus (56 bytes).
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "brt", 56);
        w.u64s(&[self.mos_entries, self.size, self.byteorder, self.totalcount, self.rangesize]);
        w.u64s(&[self.usedspace, self.savedspace]);
        w.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bonus_survives() {
        let bytes: Vec<u8> = (1..=7u64).flat_map(u64::to_le_bytes).collect();
        assert_eq!(BrtVdevPhys::decode(&bytes, Endian::Little).unwrap().encode(Endian::Little), bytes);
    }
}
