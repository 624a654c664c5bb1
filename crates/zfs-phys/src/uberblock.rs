//! Uberblocks: the roots of a pool (`struct uberblock`, include/sys/uberblock_impl.h).

use crate::blkptr::BlkPtr;
use crate::error::{DecodeError, Result};
use crate::label::ECK_SIZE;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// First word of every uberblock.
pub const UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;
/// Marks the multihost fields as present.
pub const MMP_MAGIC: u64 = 0xa11c_ea11;
/// log2 of the smallest uberblock slot.
pub const UBERBLOCK_SHIFT: u32 = 10;
/// log2 of the largest uberblock slot.
pub const MAX_UBERBLOCK_SHIFT: u32 = 13;

/// An uberblock, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uberblock {
    /// Byte order it was written in.
    pub endian: Endian,
    /// On-disk version of the pool: 1-28 or 5000.
    pub version: u64,
    /// Transaction group this root describes.
    pub txg: u64,
    /// Sum of all vdev guids (mod 2^64).
    pub guid_sum: u64,
    /// Seconds since 1970, UTC.
    pub timestamp: u64,
    /// The meta object set.
    pub rootbp: BlkPtr,
    /// Highest version the writing software knew.
    pub software_version: u64,
    /// `MMP_MAGIC` when the next two fields mean something.
    pub mmp_magic: u64,
    /// Nanoseconds since the last multihost write; 0 when multihost is off.
    pub mmp_delay: u64,
    /// Packed multihost interval, sequence and fail count with valid bits.
    pub mmp_config: u64,
    /// Non-zero when this is a checkpointed root: its original txg.
    pub checkpoint_txg: u64,
    /// Offset and scratch state of a RAID-Z expansion.
    pub raidz_reflow_info: u64,
}

impl Uberblock {
    /// Decodes a slot; the magic tells the byte order. The block's embedded checksum is the caller's to verify.
    pub fn decode(buf: &[u8]) -> Result<Self> {
        let magic = Reader::new(buf, Endian::Little, "uberblock").u64()?;
        let endian = match magic {
            UBERBLOCK_MAGIC => Endian::Little,
            m if m.swap_bytes() == UBERBLOCK_MAGIC => Endian::Big,
            _ => return Err(DecodeError::new("uberblock", 0, format!("magic {magic:#x} is wrong"))),
        };
        let r = &mut Reader::new(buf, endian, "uberblock");
        r.skip(8)?;
        Ok(Self {
            endian,
            version: r.u64()?,
            txg: r.u64()?,
            guid_sum: r.u64()?,
            timestamp: r.u64()?,
            rootbp: BlkPtr::read(r)?,
            software_version: r.u64()?,
            mmp_magic: r.u64()?,
            mmp_delay: r.u64()?,
            mmp_config: r.u64()?,
            checkpoint_txg: r.u64()?,
            raidz_reflow_info: r.u64()?,
        })
    }

    /// Encodes a slot of `size` bytes in its own byte order, with a trailer of zeros that the caller seals for the
    /// slot's place on the device. An error when the slot is too small.
    pub fn encode(&self, size: usize) -> Result<Vec<u8>> {
        let mut w = Writer::new(self.endian, "uberblock", size);
        w.u64s(&[UBERBLOCK_MAGIC, self.version, self.txg, self.guid_sum, self.timestamp]);
        w.bp(&self.rootbp);
        w.u64s(&[self.software_version, self.mmp_magic, self.mmp_delay, self.mmp_config]);
        w.u64s(&[self.checkpoint_txg, self.raidz_reflow_info]);
        w.pad_to(size.saturating_sub(ECK_SIZE))?.zeros(ECK_SIZE);
        Ok(w.finish())
    }

    /// Sets the multihost fields: interval in milliseconds, sequence number and fail count, each if known.
    pub fn set_mmp(&mut self, delay_ns: u64, interval_ms: Option<u32>, seq: Option<u16>, fail: Option<u16>) {
        let field = |v: Option<u64>, valid: u64, shift: u32| v.map_or(0, |v| valid | v << shift);
        self.mmp_magic = MMP_MAGIC;
        self.mmp_delay = delay_ns;
        self.mmp_config = field(interval_ms.map(|v| u64::from(v & 0xff_ffff)), 1, 8)
            | field(seq.map(u64::from), 2, 32)
            | field(fail.map(u64::from), 4, 48);
    }

    /// Whether the multihost fields are there.
    pub fn mmp_valid(&self) -> bool {
        self.mmp_magic == MMP_MAGIC
    }

    /// Multihost write interval, milliseconds.
    pub fn mmp_interval_ms(&self) -> Option<u64> {
        (self.mmp_valid() && self.mmp_config & 1 != 0).then_some((self.mmp_config >> 8) & 0xff_ffff)
    }

    /// Multihost sequence number within a second.
    pub fn mmp_seq(&self) -> Option<u16> {
        (self.mmp_valid() && self.mmp_config & 2 != 0).then_some((self.mmp_config >> 32) as u16)
    }

    /// Multihost intervals without a write after which the writer suspends.
    pub fn mmp_fail_intervals(&self) -> Option<u16> {
        (self.mmp_valid() && self.mmp_config & 4 != 0).then_some((self.mmp_config >> 48) as u16)
    }

    /// Bytes of a RAID-Z vdev that an expansion has already moved.
    pub fn reflow_offset(&self) -> u64 {
        (self.raidz_reflow_info & ((1 << 55) - 1)) << 9
    }

    /// Scratch state of an expansion (`raidz_reflow_scratch_state_t`): 1 means the scratch area is the truth.
    pub fn reflow_scratch_state(&self) -> u16 {
        (self.raidz_reflow_info >> 55) as u16
    }

    /// Order in which roots are preferred: txg, then time, then multihost sequence.
    pub fn rank(&self) -> (u64, u64, u16) {
        (self.txg, self.timestamp, self.mmp_seq().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_survive() {
        for endian in [Endian::Little, Endian::Big] {
            let mut u = Uberblock {
                endian,
                version: 5000,
                txg: 4,
                guid_sum: u64::MAX,
                timestamp: 1,
                rootbp: BlkPtr { word: [3; 16] },
                software_version: 5000,
                mmp_magic: 0,
                mmp_delay: 0,
                mmp_config: 0,
                checkpoint_txg: 6,
                raidz_reflow_info: 1 << 55 | 3,
            };
            u.set_mmp(9, Some(1000), None, Some(10));
            let b = u.encode(1024).unwrap();
            assert_eq!((b.len(), Uberblock::decode(&b).unwrap()), (1024, u));
            assert_eq!((u.mmp_interval_ms(), u.mmp_seq(), u.mmp_fail_intervals()), (Some(1000), None, Some(10)));
            assert!(u.encode(200).is_err());
        }
    }
}
