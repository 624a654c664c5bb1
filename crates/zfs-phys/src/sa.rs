//! System attributes: the packed bonus and spill buffers of ZPL version 5 (include/sys/sa_impl.h).
//!
//! A buffer is a small header that names a *layout* (the ordered list of attribute numbers) and gives the lengths of
//! the attributes of variable size; the values follow, each padded to 8 bytes. Layouts and the attributes' numbers
//! and lengths are kept per object set in two ZAPs, which the engine loads. Values are in the byte order of the block.

use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Magic of a buffer.
pub const SA_MAGIC: u32 = 0x2F_505A;
/// Name of the layouts' ZAP in the SA master node.
pub const SA_LAYOUTS: &str = "LAYOUTS";
/// Name of the attribute registrations' ZAP in the SA master node.
pub const SA_REGISTRY: &str = "REGISTRY";
/// Most attributes one layout can list: more cannot fit any buffer.
pub const SA_MAX_ATTRS: usize = 16384;

/// How the value of an attribute is byte-swapped (`sa_bswap_type_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaSwap {
    /// Array of 64-bit integers.
    U64,
    /// Array of 32-bit integers.
    U32,
    /// Array of 16-bit integers.
    U16,
    /// Bytes.
    U8,
    /// Access control entries.
    Acl,
    /// A number that has no meaning.
    Unknown(u8),
}

/// Registration of one attribute (`ATTR_NUM`, `ATTR_BSWAP`, `ATTR_LENGTH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaAttr {
    /// Number by which layouts name it.
    pub num: u16,
    /// Length in bytes; 0 when variable.
    pub length: u16,
    /// Byte order treatment.
    pub swap: SaSwap,
}

impl SaAttr {
    /// Decodes the value of a registry entry.
    pub const fn decode(raw: u64) -> Self {
        let swap = match (raw >> 16) as u8 {
            0 => SaSwap::U64,
            1 => SaSwap::U32,
            2 => SaSwap::U16,
            3 => SaSwap::U8,
            4 => SaSwap::Acl,
            n => SaSwap::Unknown(n),
        };
        Self { num: raw as u16, length: (raw >> 24) as u16, swap }
    }
}

impl SaAttr {
    /// The value of a registry entry.
    pub const fn encode(&self) -> u64 {
        let swap = match self.swap {
            SaSwap::U64 => 0,
            SaSwap::U32 => 1,
            SaSwap::U16 => 2,
            SaSwap::U8 => 3,
            SaSwap::Acl => 4,
            SaSwap::Unknown(n) => n,
        };
        self.num as u64 | (swap as u64) << 16 | (self.length as u64) << 24
    }
}

/// Names, lengths and byte order of the ZPL's attributes (`zfs_attr_table`, module/zfs/zfs_sa.c). The first sixteen
/// are the fields of the old znode, in its order, and have their index as number even when not registered.
pub const ZPL_ATTRS: [(&str, u16, SaSwap); 23] = [
    ("ZPL_ATIME", 16, SaSwap::U64),
    ("ZPL_MTIME", 16, SaSwap::U64),
    ("ZPL_CTIME", 16, SaSwap::U64),
    ("ZPL_CRTIME", 16, SaSwap::U64),
    ("ZPL_GEN", 8, SaSwap::U64),
    ("ZPL_MODE", 8, SaSwap::U64),
    ("ZPL_SIZE", 8, SaSwap::U64),
    ("ZPL_PARENT", 8, SaSwap::U64),
    ("ZPL_LINKS", 8, SaSwap::U64),
    ("ZPL_XATTR", 8, SaSwap::U64),
    ("ZPL_RDEV", 8, SaSwap::U64),
    ("ZPL_FLAGS", 8, SaSwap::U64),
    ("ZPL_UID", 8, SaSwap::U64),
    ("ZPL_GID", 8, SaSwap::U64),
    ("ZPL_PAD", 32, SaSwap::U64),
    ("ZPL_ZNODE_ACL", 88, SaSwap::U8),
    ("ZPL_DACL_COUNT", 8, SaSwap::U64),
    ("ZPL_SYMLINK", 0, SaSwap::U8),
    ("ZPL_SCANSTAMP", 32, SaSwap::U8),
    ("ZPL_DACL_ACES", 0, SaSwap::Acl),
    ("ZPL_DXATTR", 0, SaSwap::U8),
    ("ZPL_PROJID", 8, SaSwap::U64),
    ("ZPL_SEQ", 8, SaSwap::U64),
];
/// How many of [`ZPL_ATTRS`] have fixed numbers.
pub const SA_LEGACY_ATTRS: usize = 16;

/// Header of a buffer (`sa_hdr_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaHeader {
    /// Layout number as stored; 0 stands for an empty buffer.
    pub layout: u16,
    /// Header size in bytes, as stored.
    pub size: usize,
    /// Byte order found by the magic.
    pub endian: Endian,
}

impl SaHeader {
    /// Decodes the header. The byte order is told by the magic, because a buffer that was received may differ
    /// from its block; `hint` is tried first.
    pub fn decode(buf: &[u8], hint: Endian) -> Result<Self> {
        for endian in [hint, hint.swapped()] {
            let mut r = Reader::new(buf, endian, "sa header");
            if r.u32()? == SA_MAGIC {
                let info = r.u16()?;
                return Ok(Self { layout: info & 0x3ff, size: usize::from(info >> 10) << 3, endian });
            }
        }
        Err(DecodeError::new("sa header", 0, "wrong magic"))
    }
}

/// Where an attribute lies in its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaPlace {
    /// Attribute number.
    pub num: u16,
    /// Byte offset from the start of the buffer.
    pub offset: usize,
    /// Length, bytes.
    pub len: usize,
}

/// Finds the attributes of a buffer: `layout` lists their numbers, `length_of` tells registered lengths (0 when
/// variable). Attributes that would reach past the end are an error.
pub fn places(
    buf: &[u8],
    endian: Endian,
    layout: &[u16],
    mut length_of: impl FnMut(u16) -> Option<u16>,
) -> Result<Vec<SaPlace>> {
    let fail = |off: usize, why: String| DecodeError::new("sa buffer", off, why);
    if layout.len() > SA_MAX_ATTRS {
        return Err(fail(0, format!("{} attributes", layout.len())));
    }
    let mut lens = Vec::with_capacity(layout.len());
    for &num in layout {
        lens.push(length_of(num).ok_or_else(|| fail(0, format!("attribute {num} is not registered")))?);
    }
    let variable = lens.iter().filter(|&&l| l == 0).count();
    let mut r = Reader::new(buf, endian, "sa buffer");
    r.skip(6)?;
    let mut offset = (6 + 2 * variable).next_multiple_of(8);
    let mut out = Vec::with_capacity(layout.len());
    for (&num, reg) in layout.iter().zip(lens) {
        let len = usize::from(if reg == 0 { r.u16()? } else { reg });
        if offset + len > buf.len() {
            return Err(fail(offset, format!("attribute {num} of {len} bytes reaches past the end")));
        }
        out.push(SaPlace { num, offset, len });
        offset = (offset + len).next_multiple_of(8);
    }
    Ok(out)
}

/// A value to be packed.
#[derive(Debug, Clone, Copy)]
pub struct SaValue<'a> {
    /// The value, in the buffer's byte order.
    pub data: &'a [u8],
    /// Whether its attribute is registered with a length of 0.
    pub variable: bool,
}

/// Bytes of the header of a buffer with `variable` attributes of variable length.
pub const fn header_size(variable: usize) -> usize {
    (6 + 2 * variable).next_multiple_of(8)
}

/// Bytes that [`encode`] gives for these values.
pub fn encoded_size(values: &[SaValue<'_>]) -> usize {
    let header = header_size(values.iter().filter(|v| v.variable).count());
    values.iter().fold(header, |at, v| at.saturating_add(v.data.len().next_multiple_of(8)))
}

/// Packs a buffer: `values` in the order of layout number `layout`. An error when the layout's number or a variable
/// length do not fit their fields.
pub fn encode(layout: u16, values: &[SaValue<'_>], endian: Endian) -> Result<Vec<u8>> {
    let mut w = Writer::new(endian, "sa buffer", encoded_size(values));
    let header = header_size(values.iter().filter(|v| v.variable).count());
    let units = u16::try_from(header / 8).ok().filter(|u| *u < 64 && layout < 1 << 10);
    let Some(units) = units else {
        return Err(w.err(format!("layout {layout} with a header of {header} bytes")));
    };
    w.u32(SA_MAGIC).u16(layout | units << 10);
    for v in values.iter().filter(|v| v.variable) {
        let len = u16::try_from(v.data.len()).map_err(|_| w.err(format!("attribute of {} bytes", v.data.len())))?;
        w.u16(len);
    }
    for v in values {
        w.align(8).bytes(v.data);
    }
    w.align(8);
    Ok(w.finish())
}

/// Finds the fields of an old znode (`znode_phys_t`), which is the same thing without header.
pub fn legacy_places(buf: &[u8]) -> Vec<SaPlace> {
    let mut offset = 0usize;
    let mut out = Vec::with_capacity(SA_LEGACY_ATTRS);
    for (num, (_, len, _)) in (0u16..).zip(ZPL_ATTRS.iter().take(SA_LEGACY_ATTRS)) {
        let len = usize::from(*len);
        if offset + len > buf.len() {
            break;
        }
        out.push(SaPlace { num, offset, len });
        offset += len;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths(n: u16) -> Option<u16> {
        [Some(8), Some(0), Some(16), Some(0)].get(usize::from(n)).copied().flatten()
    }

    #[test]
    fn variable_lengths_are_taken_in_order() {
        let mut buf = vec![0u8; 64];
        buf[..4].copy_from_slice(&SA_MAGIC.to_be_bytes());
        buf[4..6].copy_from_slice(&(7u16 | (2 << 10)).to_be_bytes());
        buf[6..8].copy_from_slice(&5u16.to_be_bytes());
        buf[8..10].copy_from_slice(&9u16.to_be_bytes());
        let h = SaHeader::decode(&buf, Endian::Little).unwrap();
        assert_eq!(h, SaHeader { layout: 7, size: 16, endian: Endian::Big });
        let p = places(&buf, h.endian, &[1, 0, 3], lengths).unwrap();
        let want = [(1, 16, 5), (0, 24, 8), (3, 32, 9)].map(|(num, offset, len)| SaPlace { num, offset, len });
        assert_eq!(p, want);
        assert!(places(&buf, h.endian, &[2, 2, 2, 2], lengths).is_err());
        assert!(places(&buf, h.endian, &[9], lengths).is_err());
    }

    #[test]
    fn old_znode_offsets() {
        let p = legacy_places(&[0; 320]);
        assert_eq!((p.len(), p[5].offset, p[15].offset, p[15].len), (16, 72, 176, 88));
        assert_eq!(legacy_places(&[0; 100]).len(), 8);
    }

    #[test]
    fn registration() {
        let a = SaAttr::decode((88 << 24) | (3 << 16) | 15);
        assert_eq!(a.encode(), (88 << 24) | (3 << 16) | 15);
        assert_eq!(a, SaAttr { num: 15, length: 88, swap: SaSwap::U8 });
    }

    proptest! {
        #[test]
        fn packed_values_are_found(
            layout in 0u16..1024, big: bool,
            values in proptest::collection::vec((0u16..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
        ) {
            let e = if big { Endian::Big } else { Endian::Little };
            let fixed: Vec<(u16, Vec<u8>)> = values.into_iter().map(|(n, mut v)| {
                if lengths(n) != Some(0) { v.resize(lengths(n).unwrap().into(), 1) }
                (n, v)
            }).collect();
            let list: Vec<SaValue> = fixed.iter().map(|(n, v)| SaValue { data: v, variable: lengths(*n) == Some(0) }).collect();
            let buf = encode(layout, &list, e).unwrap();
            prop_assert_eq!(buf.len(), encoded_size(&list));
            let h = SaHeader::decode(&buf, e).unwrap();
            let variable = list.iter().filter(|v| v.variable).count();
            prop_assert_eq!(h, SaHeader { layout, size: header_size(variable), endian: e });
            let nums: Vec<u16> = fixed.iter().map(|(n, _)| *n).collect();
            let found = places(&buf, e, &nums, lengths).unwrap();
            for (p, (n, v)) in found.iter().zip(&fixed) {
                prop_assert_eq!((p.num, &buf[p.offset..p.offset + p.len]), (*n, &v[..]));
            }
        }

        #[test]
        fn no_input_panics(buf in proptest::collection::vec(any::<u8>(), 0..200), layout in proptest::collection::vec(0u16..6, 0..30)) {
            let _ = SaHeader::decode(&buf, Endian::Big);
            if let Ok(p) = places(&buf, Endian::Little, &layout, lengths) {
                prop_assert!(p.iter().all(|p| p.offset + p.len <= buf.len()));
            }
            legacy_places(&buf);
        }
    }
}
