//! Keys: the user's wrapping key, and the dataset's master and HMAC keys that it wraps.

use super::cipher::{Cipher, IV_LEN, MAC_LEN, key_len};
use crate::error::{CodecError, Result};
use aws_lc_rs::pbkdf2;
use std::num::NonZeroU32;
use zeroize::Zeroizing;
use zfs_phys::enums::CryptSuite;

/// Bytes of a wrapping key, whatever the suite.
pub const WRAPPING_KEY_LEN: usize = 32;
/// Bytes set aside for a master key; suites with shorter keys use the front.
pub const MASTER_KEY_MAX_LEN: usize = 32;
/// Bytes of the HMAC key.
pub const HMAC_KEY_LEN: usize = 64;

/// The key that the user supplies, directly or by a passphrase. Wiped when dropped.
#[derive(Clone)]
pub struct WrappingKey(pub(super) Zeroizing<[u8; WRAPPING_KEY_LEN]>);

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey(..)")
    }
}

impl WrappingKey {
    /// `keyformat=raw`: exactly 32 bytes.
    ///
    /// # Errors
    /// [`CodecError::Key`] for any other length.
    pub fn from_raw(bytes: &[u8]) -> Result<Self> {
        let mut key = Zeroizing::new([0; WRAPPING_KEY_LEN]);
        if bytes.len() < WRAPPING_KEY_LEN {
            return Err(CodecError::Key("raw key too short (expected 32)"));
        }
        if bytes.len() > WRAPPING_KEY_LEN {
            return Err(CodecError::Key("raw key too long (expected 32)"));
        }
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    /// `keyformat=hex`: exactly 64 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`CodecError::Key`] for another length or character.
    pub fn from_hex(text: &[u8]) -> Result<Self> {
        if text.len() < 2 * WRAPPING_KEY_LEN {
            return Err(CodecError::Key("hex key too short (expected 64)"));
        }
        if text.len() > 2 * WRAPPING_KEY_LEN {
            return Err(CodecError::Key("hex key too long (expected 64)"));
        }
        let mut key = Zeroizing::new([0; WRAPPING_KEY_LEN]);
        let digit = |c: u8| char::from(c).to_digit(16).ok_or(CodecError::Key("invalid hex character"));
        for (byte, [high, low]) in key.iter_mut().zip(text.as_chunks::<2>().0) {
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        Ok(Self(key))
    }

    /// `keyformat=passphrase`: PBKDF2 with HMAC-SHA1, from the dataset's `pbkdf2salt` and `pbkdf2iters`.
    ///
    /// The time taken is proportional to `iters` (350,000 unless the user chose otherwise: about 0.2 s).
    ///
    /// # Errors
    /// [`CodecError::Key`] when `iters` is zero or does not fit OpenZFS's `int`.
    pub fn from_passphrase(passphrase: &[u8], salt: u64, iters: u64) -> Result<Self> {
        let iters = i32::try_from(iters).ok().and_then(|n| NonZeroU32::new(n as u32));
        let iters = iters.ok_or(CodecError::Key("iteration count is out of range"))?;
        let mut key = Zeroizing::new([0; WRAPPING_KEY_LEN]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, iters, &salt.to_le_bytes(), passphrase, &mut *key);
        Ok(Self(key))
    }
}

/// A dataset's keys as stored (`DSL_CRYPTO_*` entries of its key object, include/sys/dsl_crypt.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Suite of the dataset.
    pub suite: CryptSuite,
    /// Format version: 0 when the entry is missing, else 1.
    pub version: u64,
    /// Identity of the key.
    pub guid: u64,
    /// Nonce of the wrapping.
    pub iv: [u8; IV_LEN],
    /// MAC of the wrapping.
    pub mac: [u8; MAC_LEN],
    /// The encrypted master key.
    pub master_key: [u8; MASTER_KEY_MAX_LEN],
    /// The encrypted HMAC key.
    pub hmac_key: [u8; HMAC_KEY_LEN],
}

/// The two secrets of a dataset, in the clear.
pub(super) struct Secrets {
    pub(super) master: Zeroizing<Vec<u8>>,
    pub(super) hmac: Zeroizing<[u8; HMAC_KEY_LEN]>,
}

/// What the wrapping authenticates besides the keys, in little-endian words.
fn wrapping_aad(guid: u64, suite: CryptSuite, version: u64) -> Vec<u8> {
    let words = [guid, suite as u64, version];
    let used = if version == 0 { 1 } else { 3 };
    words.iter().take(used).flat_map(|w| w.to_le_bytes()).collect()
}

impl WrappedKey {
    pub(super) fn open(&self, wrapping: &WrappingKey) -> Result<Secrets> {
        if self.version > 1 {
            return Err(CodecError::Unsupported("encryption key version"));
        }
        let len = key_len(self.suite).ok_or(CodecError::Unsupported("cipher suite"))?;
        let cipher = Cipher::new(self.suite, &*wrapping.0)?;
        let wrapped = [&self.master_key[..len], &self.hmac_key[..]].concat();
        let mut plain = Zeroizing::new(vec![0; wrapped.len()]);
        let aad = wrapping_aad(self.guid, self.suite, self.version);
        cipher
            .open(&self.iv, &aad, &wrapped, &self.mac, &mut plain)
            .map_err(|_| CodecError::Authentication("the wrapping key"))?;
        let mut hmac = Zeroizing::new([0; HMAC_KEY_LEN]);
        hmac.copy_from_slice(&plain[len..]);
        Ok(Secrets { master: Zeroizing::new(plain[..len].to_vec()), hmac })
    }

    pub(super) fn seal(
        secrets: &Secrets,
        suite: CryptSuite,
        version: u64,
        guid: u64,
        iv: [u8; IV_LEN],
        wrapping: &WrappingKey,
    ) -> Result<Self> {
        let len = key_len(suite).ok_or(CodecError::Unsupported("cipher suite"))?;
        let cipher = Cipher::new(suite, &*wrapping.0)?;
        let plain = Zeroizing::new([&secrets.master[..], &secrets.hmac[..]].concat());
        let mut out = vec![0; plain.len()];
        let mac = cipher.seal(&iv, &wrapping_aad(guid, suite, version), &plain, &mut out)?;
        let (mut master_key, mut hmac_key) = ([0; MASTER_KEY_MAX_LEN], [0; HMAC_KEY_LEN]);
        master_key[..len].copy_from_slice(&out[..len]);
        hmac_key.copy_from_slice(&out[len..]);
        Ok(Self { suite, version, guid, iv, mac, master_key, hmac_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_hex_agree_and_refuse_bad_input() {
        let raw: Vec<u8> = (0..32).map(|i| i * 8 + 3).collect();
        let hex: String = raw.iter().map(|b| format!("{b:02X}")).collect();
        assert_eq!(WrappingKey::from_raw(&raw).unwrap().0, WrappingKey::from_hex(hex.as_bytes()).unwrap().0);
        assert!(WrappingKey::from_raw(&raw[1..]).is_err());
        assert!(WrappingKey::from_hex(&hex.as_bytes()[1..]).is_err());
        assert!(WrappingKey::from_hex(hex.replace('3', "g").as_bytes()).is_err());
    }

    /// RFC 6070's 4096-iteration vector needs the salt "salt"; eight bytes of salt are ZFS's, so this one is
    /// computed with another implementation (Python's hashlib).
    #[test]
    fn passphrase_known_answer() {
        let key = WrappingKey::from_passphrase(b"password", 0x0807_0605_0403_0201, 1000).unwrap();
        let hex: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ed1b5a43d3a86504dd13c9da7606bd355d25993c97977a6f86bbd53baa2741e0");
        assert!(WrappingKey::from_passphrase(b"password", 1, 0).is_err());
        assert!(WrappingKey::from_passphrase(b"password", 1, 1 << 40).is_err());
    }
}
