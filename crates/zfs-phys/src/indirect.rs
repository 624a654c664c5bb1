//! Mappings of removed vdevs (include/sys/vdev_indirect_mapping.h, vdev_indirect_births.h).

use crate::blkptr::Dva;
use crate::error::Result;
use crate::read::{Endian, Reader};

/// Bytes of one entry of a mapping object.
pub const MAPPING_ENTRY_SIZE: usize = 24;

/// Bonus of a mapping object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndirectMappingPhys {
    /// End of the last segment, bytes.
    pub max_offset: u64,
    /// Bytes that are mapped.
    pub bytes_mapped: u64,
    /// Entries.
    pub num_entries: u64,
    /// Object with a 32-bit count of obsolete bytes for each entry; 0 in old pools.
    pub counts_object: u64,
}

impl IndirectMappingPhys {
    /// Decodes the bonus (24 or 32 bytes).
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "indirect mapping");
        let [max_offset, bytes_mapped, num_entries] = r.u64s()?;
        let counts_object = if r.remaining() >= 8 { r.u64()? } else { 0 };
        Ok(Self { max_offset, bytes_mapped, num_entries, counts_object })
    }
}

/// One entry: a segment of the removed vdev and where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndirectMappingEntry {
    /// Byte offset on the removed vdev.
    pub src: u64,
    /// Where it lies now; its allocated size is the segment's length.
    pub dst: Dva,
}

/// Decodes whole entries until `buf` ends.
pub fn decode_entries(buf: &[u8], endian: Endian) -> Result<Vec<IndirectMappingEntry>> {
    let mut r = Reader::new(buf, endian, "indirect mapping");
    let mut out = Vec::with_capacity(buf.len() / MAPPING_ENTRY_SIZE);
    while r.remaining() >= MAPPING_ENTRY_SIZE {
        out.push(IndirectMappingEntry { src: (r.u64()? & (u64::MAX >> 1)) << 9, dst: Dva { word: r.u64s()? } });
    }
    Ok(out)
}
