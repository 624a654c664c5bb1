//! What of a block is stored: nothing, a few bytes in the pointer, the compressed bytes, or the bytes as they are.
//!
//! The sizes decided here are on disk for ever, and figures such as compressratio come from them, so the rules are
//! OpenZFS's: compression must save an eighth; the result is rounded up to what would be allocated anyway, and that
//! must still be less than the block (`zio_write_compress`, `zio_get_compression_max_size`).

use super::{WriteProps, Writer};
use crate::buf::Buf;
use zfs_codec::compress;
use zfs_phys::BlkPtr;
use zfs_phys::blkptr::{BP_EMBEDDED_TYPE_DATA, BPE_PAYLOAD_SIZE};
use zfs_phys::enums::{CompressKind, DmuObjectType};

/// See the module.
pub(super) enum Packed {
    /// All zeros.
    Hole,
    /// In the pointer, which lacks its birth.
    Embedded(BlkPtr),
    /// These bytes, or the block's own; compressed like this.
    Stored(Option<Vec<u8>>, CompressKind),
}

/// Whether all bytes are zero.
pub(super) fn is_zero(data: &[u8]) -> bool {
    // Pieces, so that the sum over each can be formed many bytes at a time, and data that is not zero is seen soon.
    data.chunks(256).all(|piece| piece.iter().fold(0, |sum, b| sum | b) == 0)
}

/// Most bytes that a compressed block of `lsize` bytes may have.
fn most(kind: CompressKind, lsize: u64, writer: &Writer) -> u64 {
    let saving = lsize - lsize / 8;
    if kind == CompressKind::Zle {
        return saving;
    }
    let whole = saving - saving % writer.alloc().gcd_alloc;
    if whole < writer.alloc().min_alloc { BPE_PAYLOAD_SIZE as u64 } else { whole }
}

/// Decides; `may_compress` is off in late passes of a sync.
pub(super) fn pack(writer: &Writer, data: &Buf, props: &WriteProps, may_compress: bool) -> Packed {
    let plain = Packed::Stored(None, CompressKind::Off);
    if props.compress == CompressKind::Off || !may_compress {
        return plain;
    }
    if is_zero(data) {
        return Packed::Hole;
    }
    let (kind, lsize) = (props.compress, data.len() as u64);
    if kind == CompressKind::Empty {
        return plain;
    }
    let Some(mut packed) = compress::compress(kind, props.complevel, data, most(kind, lsize, writer) as usize) else {
        return plain;
    };
    let filled = matches!(props.object_type, DmuObjectType::DNODE | DmuObjectType::OBJSET);
    if packed.len() <= BPE_PAYLOAD_SIZE
        && props.embed
        && props.level == 0
        && !filled
        && let Ok(mut bp) = BlkPtr::embedded(&packed, lsize, kind, BP_EMBEDDED_TYPE_DATA)
    {
        bp.set_object_type(props.object_type);
        bp.set_level(props.level);
        return Packed::Embedded(bp);
    }
    let rounded = writer.alloc().round_up(packed.len() as u64);
    if rounded >= lsize {
        return plain;
    }
    packed.resize(rounded as usize, 0);
    Packed::Stored(Some(packed), kind)
}
