//! Mappings of removed vdevs (include/sys/vdev_indirect_mapping.h, vdev_indirect_births.h).

use crate::blkptr::Dva;
use crate::error::Result;
use crate::read::{Endian, Reader};
use crate::write::Writer;

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

impl IndirectMappingPhys {
    /// Encodes the bonus (32 bytes).
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "indirect mapping", 32);
        w.u64s(&[self.max_offset, self.bytes_mapped, self.num_entries, self.counts_object]);
        w.finish()
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

/// Encodes entries; a source's lowest 9 bits are not kept.
pub fn encode_entries(entries: &[IndirectMappingEntry], endian: Endian) -> Vec<u8> {
    let mut w = Writer::new(endian, "indirect mapping", entries.len() * MAPPING_ENTRY_SIZE);
    for e in entries {
        w.u64(e.src >> 9).u64s(&e.dst.word);
    }
    w.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive() {
        let e = IndirectMappingEntry { src: 5 << 9, dst: Dva::new(1, 9 << 9, 4096, false) };
        for order in [Endian::Little, Endian::Big] {
            assert_eq!(decode_entries(&encode_entries(&[e, e], order), order).unwrap(), [e, e]);
            let p = IndirectMappingPhys { max_offset: 1, bytes_mapped: 2, num_entries: 3, counts_object: 4 };
            assert_eq!(IndirectMappingPhys::decode(&p.encode(order), order).unwrap(), p);
        }
    }
}
