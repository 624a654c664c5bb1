//! The one place that calls `zfs-codec` for block pointers: checksums, decompression, decryption.

use crate::error::{Error, Result};
use zfs_codec::checksum;
use zfs_phys::BlkPtr;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};

/// An unwrapped dataset key.
pub struct DatasetKey(());

/// What checksums of a pool depend on besides the data.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChecksumContext {
    /// The pool's salt for skein, edonr and blake3.
    pub salt: Option<[u8; 32]>,
}

/// Whether `data` is what `bp` promises.
pub fn checksum_matches(ctx: &ChecksumContext, bp: &BlkPtr, data: &[u8]) -> bool {
    let Some(kind) = bp.checksum_kind() else { return false };
    // Object sets carry their MAC inside; elsewhere it takes the place of half the checksum.
    let mac = bp.uses_crypt() && bp.object_type() != DmuObjectType::OBJSET;
    if checksum::is_embedded(kind) {
        return checksum::verify_embedded(kind, data, bp.checksum(), mac).is_ok();
    }
    checksum::verify(kind, data, bp.endian(), ctx.salt.as_ref(), bp.checksum(), mac).is_ok()
}

/// Refuses what can never be verified, before any device is blamed for it.
pub fn checksum_known(ctx: &ChecksumContext, bp: &BlkPtr) -> Result<()> {
    match bp.checksum_kind() {
        Some(ChecksumKind::Inherit | ChecksumKind::On) | None => {
            Err(Error::corrupt("block pointer with invalid checksum kind"))
        }
        Some(kind) if checksum::is_salted(kind) && ctx.salt.is_none() => {
            Err(Error::unsupported("checksum whose salt is not known yet"))
        }
        Some(_) => Ok(()),
    }
}

/// Decompresses `src` into exactly `lsize` bytes.
pub fn decompress(kind: CompressKind, src: &[u8], lsize: usize) -> Result<Vec<u8>> {
    match kind {
        CompressKind::Off => Ok(src.get(..lsize).ok_or_else(|| Error::corrupt("block is too short"))?.to_vec()),
        CompressKind::Empty => Ok(vec![0; lsize]),
        other => Err(Error::unsupported(format!("compression {}", other.name()))),
    }
}
