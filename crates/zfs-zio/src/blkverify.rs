//! Refusing block pointers that cannot be right before anything is done with them (`zfs_blkptr_verify`).

use crate::config::VdevKind;
use crate::error::{Error, Result};
use crate::vdev::VdevTree;
use zfs_phys::BlkPtr;
use zfs_phys::blkptr::{BP_EMBEDDED_TYPE_REDACTED, BPE_PAYLOAD_SIZE, SPA_MAXBLOCKSIZE};

/// Bytes of the smallest gang header (`SPA_OLD_GANGBLOCKSIZE`).
const GANG_HEADER: u64 = 512;

/// Checks sizes, kinds and addresses of a block pointer. Everything a read allocates is bounded by what passes here:
/// 16 MiB logical and physical.
pub fn verify(tree: &VdevTree, bp: &BlkPtr) -> Result<()> {
    let bad = |what: &'static str, value: u64| {
        Err(Error::corrupt(format!("block pointer with invalid {what} {value:#x}")).txg(bp.logical_birth()))
    };
    if !bp.object_type().is_valid() {
        return bad("type", u64::from(bp.object_type().0));
    }
    if bp.compress().is_none() {
        return bad("compression", u64::from(bp.compress_raw()));
    }
    if bp.lsize() > SPA_MAXBLOCKSIZE {
        return bad("logical size", bp.lsize());
    }
    if bp.is_embedded() {
        if bp.embedded_type() > BP_EMBEDDED_TYPE_REDACTED {
            return bad("embedded type", u64::from(bp.embedded_type()));
        }
        if bp.psize() > BPE_PAYLOAD_SIZE as u64 {
            return bad("embedded size", bp.psize());
        }
        return Ok(());
    }
    if bp.is_hole() {
        return Ok(());
    }
    if !bp.dva(0).is_valid() {
        return bad("address", bp.dva(0).word[1]);
    }
    if bp.checksum_kind().is_none() {
        return bad("checksum", u64::from(bp.checksum_raw()));
    }
    if bp.psize() > SPA_MAXBLOCKSIZE {
        return bad("physical size", bp.psize());
    }
    for dva in bp.dvas() {
        let Some(top) = tree.top(dva.vdev()) else { return bad("vdev", dva.vdev()) };
        match top.config.kind {
            VdevKind::Hole => return bad("vdev (a hole)", dva.vdev()),
            VdevKind::Missing => continue,
            _ => {}
        }
        // The size of gang headers in the pointer is the size of what they stand for.
        let asize = if dva.is_gang() { top.psize_to_asize(GANG_HEADER, 0) } else { dva.asize() };
        if dva.offset().checked_add(asize).is_none_or(|end| end > top.config.asize) {
            return bad("offset", dva.offset());
        }
    }
    Ok(())
}

/// Whether `size` bytes at every address of `bp` lie within their vdevs.
pub fn fits(tree: &VdevTree, bp: &BlkPtr, size: u64) -> bool {
    bp.dvas().all(|d| {
        let end = d.offset().checked_add(size);
        tree.top(d.vdev()).zip(end).is_some_and(|(top, end)| end <= top.config.asize)
    })
}
