//! The one place that calls `zfs-codec` for block pointers: checksums, decompression, decryption, MACs.

use crate::error::{Error, ErrorKind, Result};
use zfs_codec::CodecError;
use zfs_codec::checksum;
pub use zfs_codec::crypto::DatasetKey;
use zfs_codec::crypto::{BlockParams, intent_log_mac, verify_indirect};
use zfs_phys::BlkPtr;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};

/// What checksums of a pool depend on besides the data.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChecksumContext {
    /// The pool's salt for skein, edonr and blake3.
    pub salt: Option<[u8; 32]>,
}

impl From<CodecError> for Error {
    fn from(e: CodecError) -> Self {
        let (kind, what) = match &e {
            CodecError::Checksum { .. } | CodecError::Trailer(_) => (ErrorKind::Checksum, "checking a block"),
            CodecError::Malformed { .. } => (ErrorKind::Corrupt, "expanding a block"),
            CodecError::Authentication(_) | CodecError::Key(_) => (ErrorKind::Auth, "authenticating"),
            CodecError::Unsupported(_) => (ErrorKind::Unsupported, "decoding a block"),
            CodecError::Parity(_) => (ErrorKind::Bug, "rebuilding from parity"),
        };
        Self::new(kind, what).because(e)
    }
}

/// Whether half of the checksum gives way to a MAC: so it is in all encrypted datasets' blocks except object sets,
/// which carry their MACs inside.
pub fn checksum_has_mac(bp: &BlkPtr) -> bool {
    bp.uses_crypt() && bp.object_type() != DmuObjectType::OBJSET
}

/// Whether `data` is what `bp` promises.
pub fn checksum_matches(ctx: &ChecksumContext, bp: &BlkPtr, data: &[u8]) -> bool {
    let Some(kind) = bp.checksum_kind() else { return false };
    let mac = checksum_has_mac(bp);
    if checksum::is_embedded(kind) {
        return checksum::verify_embedded(kind, data, bp.checksum(), mac).is_ok();
    }
    if matches!(kind, ChecksumKind::Off | ChecksumKind::Noparity) {
        return true;
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
    let mut out = crate::buf::scratch(lsize);
    zfs_codec::compress::decompress(kind, src, &mut out)?;
    Ok(out)
}

/// Turns stored bytes into the plain ones (still compressed): decrypts, or checks the MAC of bytes that are only
/// authenticated. Without a key authenticated bytes pass unchecked, as they do in OpenZFS while a dataset is locked.
pub fn open(bp: &BlkPtr, stored: Vec<u8>, key: Option<&DatasetKey>) -> Result<Vec<u8>> {
    if bp.is_encrypted() {
        let key = key.ok_or_else(|| Error::new(ErrorKind::KeyUnavailable, "reading an encrypted block"))?;
        let (salt, iv) = bp.crypt_params();
        let mac = match bp.object_type() {
            DmuObjectType::INTENT_LOG => intent_log_mac(&stored).ok_or_else(|| Error::corrupt("intent log block"))?,
            _ => bp.mac(),
        };
        let mut plain = vec![0u8; stored.len()];
        key.decrypt(bp.object_type(), bp.endian(), &BlockParams { salt, iv, mac }, &stored, &mut plain)?;
        return Ok(plain);
    }
    if bp.is_authenticated()
        && bp.object_type() != DmuObjectType::OBJSET
        && let Some(key) = key
    {
        key.verify_mac(&stored, &bp.mac())?;
    }
    Ok(stored)
}

/// Checks the MACs that cover logical bytes: those of indirect blocks, which need no key, and those in object sets.
pub fn check_logical(bp: &BlkPtr, block: &[u8], key: Option<&DatasetKey>) -> Result<()> {
    if bp.has_indirect_mac() {
        verify_indirect(block, bp.endian(), &bp.mac())?;
    }
    match key {
        Some(key) if bp.is_authenticated() && bp.object_type() == DmuObjectType::OBJSET => {
            Ok(key.verify_objset(block, bp.endian())?)
        }
        _ => Ok(()),
    }
}
