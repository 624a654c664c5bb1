//! The six cipher suites over one contiguous message: AES-128/192/256 in GCM (aws-lc) and CCM (our own mode over
//! RustCrypto's AES).

use super::ccm::{self, Direction};
use crate::error::{CodecError, Result};
use aes::cipher::KeyInit;
use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time;
use zfs_phys::enums::CryptSuite;

/// Bytes of an initialization vector (nonce).
pub const IV_LEN: usize = 12;
/// Bytes of a message authentication code of data.
pub const MAC_LEN: usize = 16;

const TOO_LONG: CodecError = CodecError::Unsupported("a message this long with this cipher");

/// Bytes of the master key and of the keys derived from it; nothing for the placeholders and `off`.
pub const fn key_len(suite: CryptSuite) -> Option<usize> {
    match suite {
        CryptSuite::Inherit | CryptSuite::On | CryptSuite::Off => None,
        CryptSuite::Aes128Ccm | CryptSuite::Aes128Gcm => Some(16),
        CryptSuite::Aes192Ccm | CryptSuite::Aes192Gcm => Some(24),
        CryptSuite::Aes256Ccm | CryptSuite::Aes256Gcm => Some(32),
    }
}

const fn is_ccm(suite: CryptSuite) -> bool {
    matches!(suite, CryptSuite::Aes128Ccm | CryptSuite::Aes192Ccm | CryptSuite::Aes256Ccm)
}

/// A key made ready for one mode. Both libraries wipe their copies when dropped.
pub(super) enum Cipher {
    Gcm(Box<LessSafeKey>),
    Ccm128(Box<Aes128>),
    Ccm192(Box<Aes192>),
    Ccm256(Box<Aes256>),
}

macro_rules! with_ccm {
    ($cipher:expr, $gcm:pat => $on_gcm:expr, $ccm:ident => $on_ccm:expr) => {
        match $cipher {
            Cipher::Gcm($gcm) => $on_gcm,
            Cipher::Ccm128($ccm) => $on_ccm,
            Cipher::Ccm192($ccm) => $on_ccm,
            Cipher::Ccm256($ccm) => $on_ccm,
        }
    };
}

impl Cipher {
    /// A cipher in the mode of `suite`, with AES of the size of `key` (wrapping keys are always 32 bytes).
    pub(super) fn new(suite: CryptSuite, key: &[u8]) -> Result<Self> {
        const BAD: CodecError = CodecError::Key("wrong length for the cipher");
        if key_len(suite).is_none() {
            return Err(CodecError::Unsupported("cipher suite"));
        }
        if is_ccm(suite) {
            return Ok(match key.len() {
                16 => Self::Ccm128(Box::new(Aes128::new_from_slice(key).map_err(|_| BAD)?)),
                24 => Self::Ccm192(Box::new(Aes192::new_from_slice(key).map_err(|_| BAD)?)),
                32 => Self::Ccm256(Box::new(Aes256::new_from_slice(key).map_err(|_| BAD)?)),
                _ => return Err(BAD),
            });
        }
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return Err(BAD),
        };
        UnboundKey::new(algorithm, key).map(|k| Self::Gcm(Box::new(LessSafeKey::new(k)))).map_err(|_| BAD)
    }

    /// Decrypts `src` into `dst` of the same length and checks `mac`.
    pub(super) fn open(
        &self,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        src: &[u8],
        mac: &[u8; MAC_LEN],
        dst: &mut [u8],
    ) -> Result<()> {
        const FAILED: CodecError = CodecError::Authentication("encrypted data");
        with_ccm!(self,
            key => {
                let nonce = Nonce::assume_unique_for_key(*iv);
                key.open_separate_gather(nonce, Aad::from(aad), src, mac, dst).map_err(|_| FAILED)
            },
            key => {
                let tag = ccm::run(&**key, Direction::Decrypt, iv, aad, src, dst).ok_or(TOO_LONG)?;
                constant_time::verify_slices_are_equal(&tag, mac).map_err(|_| {
                    dst.fill(0);
                    FAILED
                })
            }
        )
    }

    /// Encrypts `src` into `dst` of the same length and gives the MAC.
    pub(super) fn seal(&self, iv: &[u8; IV_LEN], aad: &[u8], src: &[u8], dst: &mut [u8]) -> Result<[u8; MAC_LEN]> {
        if src.len() != dst.len() {
            return Err(TOO_LONG);
        }
        with_ccm!(self,
            key => {
                dst.copy_from_slice(src);
                let nonce = Nonce::assume_unique_for_key(*iv);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), dst).map_err(|_| TOO_LONG)?;
                tag.as_ref().try_into().map_err(|_| TOO_LONG)
            },
            key => {
                ccm::run(&**key, Direction::Encrypt, iv, aad, src, dst).ok_or(TOO_LONG)
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(s: &str) -> Vec<u8> {
        (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// GCM test case 4 for AES-128 (McGrew and Viega), and its AES-192 and AES-256 companions 10 and 16.
    #[test]
    fn gcm_known_answers() {
        let plain = unhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let key = unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let aad = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let iv: [u8; 12] = unhex("cafebabefacedbaddecaf888").try_into().unwrap();
        for (suite, len, tag) in [
            (CryptSuite::Aes128Gcm, 16, "5bc94fbc3221a5db94fae95ae7121a47"),
            (CryptSuite::Aes192Gcm, 24, "2519498e80f1478f37ba55bd6d27618c"),
            (CryptSuite::Aes256Gcm, 32, "76fc6ece0f4e1768cddf8853bb2d551b"),
        ] {
            let cipher = Cipher::new(suite, &key[..len]).unwrap();
            let mut out = vec![0; plain.len()];
            let mac = cipher.seal(&iv, &aad, &plain, &mut out).unwrap();
            assert_eq!(mac.to_vec(), unhex(tag));
            let mut back = vec![0; plain.len()];
            cipher.open(&iv, &aad, &out, &mac, &mut back).unwrap();
            assert_eq!(back, plain);
        }
    }

    #[test]
    fn tampering_is_seen_in_every_suite() {
        for raw in 3..=8 {
            let suite = CryptSuite::from_raw(raw).unwrap();
            let cipher = Cipher::new(suite, &[9; 32][..key_len(suite).unwrap()]).unwrap();
            let (plain, mut out, mut back) = ([5u8; 1000], [0u8; 1000], [0u8; 1000]);
            let mac = cipher.seal(&[1; 12], b"aad", &plain, &mut out).unwrap();
            assert_eq!(cipher.open(&[1; 12], b"aad", &out, &mac, &mut back), Ok(()));
            assert_eq!(back, plain);
            assert!(cipher.open(&[2; 12], b"aad", &out, &mac, &mut back).is_err());
            assert!(cipher.open(&[1; 12], b"aae", &out, &mac, &mut back).is_err());
            out[999] ^= 1;
            assert!(cipher.open(&[1; 12], b"aad", &out, &mac, &mut back).is_err());
            assert!(cipher.open(&[1; 12], b"aad", &out[..999], &mac, &mut back).is_err());
        }
    }
}
