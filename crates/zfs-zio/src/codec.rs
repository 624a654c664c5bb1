//! The one place that calls `zfs-codec` for block pointers: checksums, decompression, decryption.

use crate::error::{Error, Result};
use zfs_phys::BlkPtr;
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::read::Endian;

/// An unwrapped dataset key.
pub struct DatasetKey(());

/// What checksums of a pool depend on besides the data.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChecksumContext {
    /// The pool's salt for skein, edonr and blake3.
    pub salt: Option<[u8; 32]>,
}

fn fletcher4(data: &[u8], endian: Endian) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = [0u64; 4];
    for w in data.chunks_exact(4) {
        a = a.wrapping_add(u64::from(endian.u32([w[0], w[1], w[2], w[3]])));
        b = b.wrapping_add(a);
        c = c.wrapping_add(b);
        d = d.wrapping_add(c);
    }
    [a, b, c, d]
}

/// Whether `data` is what `bp` promises.
pub fn checksum_matches(_ctx: &ChecksumContext, bp: &BlkPtr, data: &[u8]) -> bool {
    match bp.checksum_kind() {
        Some(ChecksumKind::Off | ChecksumKind::Noparity) => true,
        Some(ChecksumKind::Fletcher4 | ChecksumKind::On) => fletcher4(data, bp.endian()) == bp.checksum(),
        _ => false,
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
