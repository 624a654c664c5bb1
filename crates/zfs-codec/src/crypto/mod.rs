//! Native encryption: unwrapping a dataset's keys, decrypting and authenticating its blocks (and the way back).
//!
//! Life cycle: the user's secret becomes a [`WrappingKey`]; with it a [`WrappedKey`] (read from the dataset's key
//! object) opens to a [`DatasetKey`], which lives as long as the key is loaded. The master key in it never encrypts
//! blocks: each block names a salt, and HKDF makes a session key of master key and salt. Ready session keys are
//! kept in a small cache.
//!
//! Which function applies to a block of an encrypted dataset, by its pointer:
//! * indirect (level > 0, "authenticated indirect"): [`verify_indirect`], no key needed;
//! * object set: [`DatasetKey::verify_objset`];
//! * other types that are only authenticated: [`DatasetKey::verify_mac`] over the physical bytes;
//! * encrypted: [`DatasetKey::decrypt`] over the physical bytes, before decompression.
//!
//! Lock order: the session cache's lock is a leaf; nothing is called while it is held.
//!
//! Randomness (salts, nonces) comes from the caller: this crate is pure.

mod ccm;
mod cipher;
mod keys;
mod layout;
mod mac;
#[cfg(test)]
mod tests;

pub use cipher::{IV_LEN, MAC_LEN, key_len};
pub use keys::{HMAC_KEY_LEN, MASTER_KEY_MAX_LEN, WRAPPING_KEY_LEN, WrappedKey, WrappingKey};
pub use mac::{OBJSET_MAC_LEN, indirect_mac, verify_indirect};

use crate::error::{CodecError, Result};
use aws_lc_rs::hmac;
use cipher::Cipher;
use keys::Secrets;
use layout::Layout;
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::sync::Arc;
use zeroize::Zeroizing;
use zfs_phys::Endian;
use zfs_phys::enums::{CryptSuite, DmuObjectType};

/// Bytes of a block's salt.
pub const SALT_LEN: usize = 8;
/// Session keys kept ready. A salt serves 400 million blocks or until the pool is exported, so few are hot; only
/// deduplicated blocks have one each.
const SESSIONS: usize = 64;

/// Encryption parameters of a block, from its pointer (salt and nonce in DVA 2 and the fill word, MAC in the
/// checksum; an intent-log block's MAC is in its own header instead).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockParams {
    /// Salt of the session key.
    pub salt: [u8; SALT_LEN],
    /// Nonce.
    pub iv: [u8; IV_LEN],
    /// MAC to check.
    pub mac: [u8; MAC_LEN],
}

/// A dataset's unwrapped keys. Secrets are wiped when dropped.
pub struct DatasetKey {
    suite: CryptSuite,
    version: u64,
    guid: u64,
    secrets: Secrets,
    hmac: mac::HmacKey,
    sessions: RwLock<VecDeque<([u8; SALT_LEN], Arc<Cipher>)>>,
}

impl std::fmt::Debug for DatasetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatasetKey").field("suite", &self.suite).field("guid", &self.guid).finish_non_exhaustive()
    }
}

/// HKDF (RFC 5869) with SHA-512, no salt, and at most 64 bytes out: one round of expansion.
fn hkdf_sha512(material: &[u8], info: &[u8], out: &mut [u8]) {
    let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, &[]), material);
    let mut ctx = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, prk.as_ref()));
    ctx.update(info);
    ctx.update(&[1]);
    let block = ctx.sign();
    out.copy_from_slice(&block.as_ref()[..out.len()]);
}

/// Where an intent-log block keeps its MAC: the last two words of the checksum in its chain header.
const LOG_MAC: std::ops::Range<usize> = 168..184;

/// The MAC that an encrypted intent-log block carries; nothing when the block is too short.
pub fn intent_log_mac(block: &[u8]) -> Option<[u8; MAC_LEN]> {
    block.get(LOG_MAC)?.try_into().ok()
}

impl DatasetKey {
    /// Unwraps a dataset's keys.
    ///
    /// # Errors
    /// [`CodecError::Authentication`] when the wrapping key is not the right one; [`CodecError::Unsupported`] for
    /// an unknown suite or version.
    pub fn unwrap(wrapped: &WrappedKey, wrapping: &WrappingKey) -> Result<Self> {
        Ok(Self::build(wrapped.open(wrapping)?, wrapped.suite, wrapped.version, wrapped.guid))
    }

    /// A key of current version made of random bytes that the caller supplies.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`] when `suite` is not a definite one.
    pub fn new(
        suite: CryptSuite,
        guid: u64,
        master: &[u8; MASTER_KEY_MAX_LEN],
        hmac_key: &[u8; HMAC_KEY_LEN],
    ) -> Result<Self> {
        let len = key_len(suite).ok_or(CodecError::Unsupported("cipher suite"))?;
        let secrets = Secrets { master: Zeroizing::new(master[..len].to_vec()), hmac: Zeroizing::new(*hmac_key) };
        Ok(Self::build(secrets, suite, 1, guid))
    }

    fn build(secrets: Secrets, suite: CryptSuite, version: u64, guid: u64) -> Self {
        let hmac = mac::HmacKey::new(&secrets.hmac);
        Self { suite, version, guid, secrets, hmac, sessions: RwLock::default() }
    }

    /// Wraps the keys again, under `wrapping` with the fresh nonce `iv`.
    ///
    /// # Errors
    /// None for a key that exists; the type is shared with the other operations.
    pub fn wrap(&self, wrapping: &WrappingKey, iv: [u8; IV_LEN]) -> Result<WrappedKey> {
        WrappedKey::seal(&self.secrets, self.suite, self.version, self.guid, iv, wrapping)
    }

    /// Suite of the dataset.
    pub fn suite(&self) -> CryptSuite {
        self.suite
    }

    /// Identity of the key.
    pub fn guid(&self) -> u64 {
        self.guid
    }

    fn session(&self, salt: &[u8; SALT_LEN]) -> Result<Arc<Cipher>> {
        if let Some((_, c)) = self.sessions.read().iter().find(|(s, _)| s == salt) {
            return Ok(Arc::clone(c));
        }
        let mut key = Zeroizing::new(vec![0; self.secrets.master.len()]);
        hkdf_sha512(&self.secrets.master, salt, &mut key);
        let cipher = Arc::new(Cipher::new(self.suite, &key)?);
        let mut sessions = self.sessions.write();
        if !sessions.iter().any(|(s, _)| s == salt) {
            sessions.truncate(SESSIONS - 1);
            sessions.push_front((*salt, Arc::clone(&cipher)));
        }
        Ok(cipher)
    }

    /// How a block of type `ot` divides; nothing when all of it is encrypted.
    fn layout(&self, ot: DmuObjectType, endian: Endian, block: &[u8]) -> Result<Option<Layout>> {
        match ot {
            DmuObjectType::DNODE => layout::dnodes(block, endian, self.version).map(Some),
            DmuObjectType::INTENT_LOG => layout::intent_log(block, endian).map(Some),
            _ => Ok(None),
        }
    }

    /// Decrypts the physical bytes `src` of a block into `dst` of the same length.
    ///
    /// `ot` is the type and `endian` the byte order in the block's pointer. Dnode blocks must be decompressed by
    /// then (OpenZFS never compresses them when encrypted).
    ///
    /// # Errors
    /// [`CodecError::Authentication`] when the MAC does not fit (`dst` is then unspecified);
    /// [`CodecError::Malformed`] when a dnode or log block cannot be divided, or lengths differ.
    pub fn decrypt(
        &self,
        ot: DmuObjectType,
        endian: Endian,
        params: &BlockParams,
        src: &[u8],
        dst: &mut [u8],
    ) -> Result<()> {
        if src.len() != dst.len() {
            return Err(CodecError::Malformed { codec: "encrypted block", why: "source and destination differ" });
        }
        let cipher = self.session(&params.salt)?;
        let Some(l) = self.layout(ot, endian, src)? else {
            return cipher.open(&params.iv, &[], src, &params.mac, dst);
        };
        let secret: Vec<u8> = l.secret.iter().flat_map(|r| &src[r.clone()]).copied().collect();
        let mut plain = Zeroizing::new(vec![0; secret.len()]);
        cipher.open(&params.iv, &l.aad, &secret, &params.mac, &mut plain)?;
        scatter(&l, src, &plain, dst);
        Ok(())
    }

    /// Encrypts a block, the opposite of [`DatasetKey::decrypt`], and gives its MAC. An intent-log block gets the
    /// MAC written into its header too.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] when a dnode or log block cannot be divided or lengths differ;
    /// [`CodecError::Unsupported`] when CCM cannot hold so much.
    pub fn encrypt(
        &self,
        ot: DmuObjectType,
        endian: Endian,
        salt: &[u8; SALT_LEN],
        iv: &[u8; IV_LEN],
        src: &[u8],
        dst: &mut [u8],
    ) -> Result<[u8; MAC_LEN]> {
        if src.len() != dst.len() {
            return Err(CodecError::Malformed { codec: "encrypted block", why: "source and destination differ" });
        }
        let cipher = self.session(salt)?;
        let Some(l) = self.layout(ot, endian, src)? else {
            return cipher.seal(iv, &[], src, dst);
        };
        let plain: Vec<u8> = l.secret.iter().flat_map(|r| &src[r.clone()]).copied().collect();
        let plain = Zeroizing::new(plain);
        let mut secret = vec![0; plain.len()];
        let mac = cipher.seal(iv, &l.aad, &plain, &mut secret)?;
        scatter(&l, src, &secret, dst);
        if let (DmuObjectType::INTENT_LOG, Some(stored)) = (ot, dst.get_mut(LOG_MAC)) {
            stored.copy_from_slice(&mac);
        }
        Ok(mac)
    }

    /// Salt and nonce of a block that is to be deduplicated: derived from its contents, so that equal blocks
    /// encrypt equally.
    pub fn dedup_params(&self, plain: &[u8]) -> ([u8; SALT_LEN], [u8; IV_LEN]) {
        let digest = self.hmac.sign(plain);
        let (mut salt, mut iv) = ([0; SALT_LEN], [0; IV_LEN]);
        salt.copy_from_slice(&digest[..SALT_LEN]);
        iv.copy_from_slice(&digest[SALT_LEN..SALT_LEN + IV_LEN]);
        (salt, iv)
    }

    /// The MAC of a block that is authenticated but not encrypted, over its physical bytes.
    pub fn mac(&self, block: &[u8]) -> [u8; MAC_LEN] {
        let mut out = [0; MAC_LEN];
        out.copy_from_slice(&self.hmac.sign(block)[..MAC_LEN]);
        out
    }

    /// Checks a block that is authenticated but not encrypted, over its physical bytes.
    ///
    /// # Errors
    /// [`CodecError::Authentication`] on mismatch.
    pub fn verify_mac(&self, block: &[u8], mac: &[u8; MAC_LEN]) -> Result<()> {
        self.hmac.verify(block, mac)
    }

    /// Checks both MACs in an object set header, decompressed.
    ///
    /// # Errors
    /// [`CodecError::Authentication`] on mismatch, [`CodecError::Malformed`] when it is too short.
    pub fn verify_objset(&self, block: &[u8], endian: Endian) -> Result<()> {
        mac::verify_objset(&self.hmac, self.version, block, endian)
    }

    /// Writes both MACs into an object set header.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] when it is too short.
    pub fn seal_objset(&self, block: &mut [u8], endian: Endian) -> Result<()> {
        mac::seal_objset(&self.hmac, self.version, block, endian)
    }
}

/// Puts the readable bytes of `src` and the converted bytes together.
fn scatter(l: &Layout, src: &[u8], mut converted: &[u8], dst: &mut [u8]) {
    debug_assert_eq!(l.secret_len(), converted.len());
    dst[..l.end].copy_from_slice(&src[..l.end]);
    dst[l.end..].fill(0);
    for range in &l.secret {
        let (head, tail) = converted.split_at(range.len());
        dst[range.clone()].copy_from_slice(head);
        converted = tail;
    }
}
