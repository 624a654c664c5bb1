//! What the fuzz targets do with their input. The property is that nothing panics, hangs or allocates without bound;
//! where there is a way back, that it gives the input again.

use std::sync::OnceLock;
use zfs_codec::checksum::{compute, seal_embedded, verify_embedded};
use zfs_codec::compress;
use zfs_codec::crypto::{BlockParams, DatasetKey, verify_indirect};
use zfs_phys::Endian;
use zfs_phys::enums::{ChecksumKind, CompressKind, CryptSuite, DmuObjectType};

fn endian(choice: u8) -> Endian {
    if choice & 1 == 0 { Endian::Little } else { Endian::Big }
}

/// First byte: the compression; second and third: the logical size in units of 16 bytes; the rest: the stream.
pub fn decompress(data: &[u8]) {
    let [kind, low, high, src @ ..] = data else { return };
    let Some(kind) = CompressKind::from_raw(kind % 17) else { return };
    let mut dst = vec![0; usize::from(u16::from_le_bytes([*low, *high])) * 16];
    let _ = compress::decompress(kind, src, &mut dst);
    let _ = compress::zstd_header(src);
}

/// First byte: the compression; second: the zstd level; the rest: what to compress and expand again.
pub fn recompress(data: &[u8]) {
    let [kind, level, src @ ..] = data else { return };
    let Some(kind) = CompressKind::from_raw(kind % 17) else { return };
    let Some(mut packed) = compress::compress(kind, *level, src, src.len() * 2 + 64) else { return };
    packed.resize(packed.len().next_multiple_of(512), 0);
    let mut back = vec![0xa5; src.len()];
    assert_eq!(compress::decompress(kind, &packed, &mut back), Ok(()));
    assert_eq!(back, src);
}

/// First byte: byte order and type; the rest: a block that is encrypted (when it can be divided) and decrypted.
pub fn encrypted(data: &[u8]) {
    static KEY: OnceLock<DatasetKey> = OnceLock::new();
    let key = KEY.get_or_init(|| DatasetKey::new(CryptSuite::Aes256Gcm, 1, &[2; 32], &[3; 64]).unwrap());
    let Some((&choice, block)) = data.split_first() else { return };
    let e = endian(choice);
    let ot = [DmuObjectType::DNODE, DmuObjectType::INTENT_LOG, DmuObjectType::ZVOL][usize::from(choice >> 1) % 3];
    let mut out = vec![0; block.len()];
    if let Ok(mac) = key.encrypt(ot, e, &[4; 8], &[5; 12], block, &mut out) {
        let mut back = vec![0; block.len()];
        let params = BlockParams { salt: [4; 8], iv: [5; 12], mac };
        assert_eq!(key.decrypt(ot, e, &params, &out, &mut back), Ok(()));
        if ot != DmuObjectType::INTENT_LOG {
            assert_eq!(back, block);
        }
    }
    let _ = verify_indirect(block, e, &[0; 16]);
    let mut header = block.to_vec();
    if key.seal_objset(&mut header, e).is_ok() {
        assert_eq!(key.verify_objset(&header, e), Ok(()));
    }
}

/// First byte: kind and byte order; the rest: a block, checked as it is, then sealed and checked again.
pub fn checksum(data: &[u8]) {
    let Some((&choice, block)) = data.split_first() else { return };
    let Some(kind) = ChecksumKind::from_raw((choice >> 1) % 15) else { return };
    let e = endian(choice);
    let _ = compute(kind, block, e, Some(&[7; 32]));
    let _ = verify_embedded(kind, block, [0; 4], false);
    let mut sealed = block.to_vec();
    // Blocks are multiples of 16 bytes; the sums of a piecewise fletcher rely on it.
    sealed.truncate(block.len() / 16 * 16);
    if seal_embedded(kind, &mut sealed, [1, 2, 3, 4], e, None).is_ok() {
        assert_eq!(verify_embedded(kind, &sealed, [1, 2, 3, 4], false), Ok(e));
    }
}
