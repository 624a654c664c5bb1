//! Uberblocks: the roots of a pool (`struct uberblock`, include/sys/uberblock_impl.h).

use crate::blkptr::BlkPtr;
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};

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
