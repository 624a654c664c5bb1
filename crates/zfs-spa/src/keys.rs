//! Encryption keys: wrapped in the pool, unwrapped with what a person supplies.
//!
//! Each encrypted directory has a key object, wrapped by the key of its *encryption root*: itself or a directory above.
//! Loading a key means handing in the root's wrapping key; the keys of all datasets below follow from it.
//!
//! Locks: the two tables are leaves; no block is read while either is held.

use crate::dsl::dir::Dir;
use crate::dsl::{Dataset, Dsl};
use crate::pool::Pool;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use zfs_codec::crypto::{DatasetKey, WrappedKey, WrappingKey};
use zfs_dmu::{Error, ErrorKind, Result, Zap};
use zfs_phys::enums::CryptSuite;

/// Largest key file accepted.
const KEYFILE_MAX: u64 = 1 << 20;
/// Shortest passphrase (`MIN_PASSPHRASE_LEN`).
const MIN_PASSPHRASE: usize = 8;
/// Longest passphrase (`MAX_PASSPHRASE_LEN`).
const MAX_PASSPHRASE: usize = 512;

/// How a key is given (`zfs_keyformat_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// 32 bytes.
    Raw,
    /// 64 hexadecimal digits.
    Hex,
    /// A passphrase.
    Passphrase,
}

impl KeyFormat {
    /// By its number on disk.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::Raw),
            2 => Some(Self::Hex),
            3 => Some(Self::Passphrase),
            _ => None,
        }
    }

    /// As the property `keyformat` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hex => "hex",
            Self::Passphrase => "passphrase",
        }
    }
}

/// What is known about the encryption of a directory, without any key.
#[derive(Debug, Clone)]
pub struct CryptInfo {
    /// Key object.
    pub object: u64,
    /// Suite (raw).
    pub suite: u64,
    /// Identity of the key.
    pub guid: u64,
    /// How the wrapping key is given; nothing when this is not stored.
    pub format: Option<KeyFormat>,
    /// Salt of a passphrase.
    pub salt: Option<u64>,
    /// Iterations over a passphrase.
    pub iters: Option<u64>,
    /// Directory object of the encryption root.
    pub root: u64,
}

/// Wrapping keys that were loaded, and dataset keys that were unwrapped with them.
#[derive(Default)]
pub struct KeyStore {
    /// By directory object of the encryption root.
    wrapping: RwLock<HashMap<u64, WrappingKey>>,
    /// By key object.
    unwrapped: RwLock<HashMap<u64, Arc<DatasetKey>>>,
}

impl CryptInfo {
    /// Reads what is stored about a directory; nothing when it is not encrypted.
    pub fn of(pool: &Pool, dir: &Dir) -> Result<Option<Self>> {
        let Some(object) = dir.crypto_key_object()? else { return Ok(None) };
        let zap = Zap::open(pool.mos(), object)?;
        let need = |name: &'static str| -> Result<u64> {
            zap.lookup_u64(name.as_bytes())?.ok_or_else(|| Error::corrupt(format!("key object without {name}")))
        };
        Ok(Some(Self {
            object,
            suite: need("DSL_CRYPTO_SUITE")?,
            guid: need("DSL_CRYPTO_GUID")?,
            format: zap.lookup_u64(b"keyformat")?.and_then(KeyFormat::from_raw),
            salt: zap.lookup_u64(b"pbkdf2salt")?,
            iters: zap.lookup_u64(b"pbkdf2iters")?,
            root: zap.lookup_u64(b"DSL_CRYPTO_ROOT_DDOBJ")?.unwrap_or(dir.object),
        }))
    }

    /// Makes the wrapping key out of what was supplied: a file's contents or what was typed. One newline at the end
    /// is not part of a hexadecimal key or a passphrase.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when its length or form is wrong.
    pub fn wrapping_key(&self, material: &[u8]) -> Result<WrappingKey> {
        let line = material.strip_suffix(b"\n").unwrap_or(material);
        let key = match self.format {
            Some(KeyFormat::Raw) => WrappingKey::from_raw(material),
            Some(KeyFormat::Hex) => WrappingKey::from_hex(line),
            Some(KeyFormat::Passphrase) => {
                if line.len() < MIN_PASSPHRASE {
                    return Err(Error::invalid(format!("Passphrase too short (min {MIN_PASSPHRASE}).")));
                }
                if line.len() > MAX_PASSPHRASE {
                    return Err(Error::invalid(format!("Passphrase too long (max {MAX_PASSPHRASE}).")));
                }
                WrappingKey::from_passphrase(line, self.salt.unwrap_or(0), self.iters.unwrap_or(0))
            }
            None => return Err(Error::corrupt("key object without a key format")),
        };
        key.map_err(|e| Error::new(ErrorKind::Invalid, "Invalid key").because(e))
    }
}

fn wrapped_key(pool: &Pool, object: u64) -> Result<WrappedKey> {
    let zap = Zap::open(pool.mos(), object)?;
    let bytes = |name: &'static str| -> Result<Vec<u8>> {
        match zap.lookup(name.as_bytes())? {
            Some(value) => Ok(value.bytes()),
            None => Err(Error::corrupt(format!("key object without {name}"))),
        }
    };
    fn sized<const N: usize>(mut bytes: Vec<u8>) -> Result<[u8; N]> {
        // Keys of shorter suites may be stored without the bytes they do not use.
        bytes.resize(N, 0);
        bytes.try_into().map_err(|_| Error::corrupt("key object"))
    }
    let suite = zap.lookup_u64(b"DSL_CRYPTO_SUITE")?.and_then(|s| CryptSuite::from_raw(u8::try_from(s).ok()?));
    Ok(WrappedKey {
        suite: suite.ok_or_else(|| Error::unsupported("unknown encryption suite"))?,
        version: zap.lookup_u64(b"DSL_CRYPTO_VERSION")?.unwrap_or(0),
        guid: zap.lookup_u64(b"DSL_CRYPTO_GUID")?.ok_or_else(|| Error::corrupt("key object without guid"))?,
        iv: sized(bytes("DSL_CRYPTO_IV")?)?,
        mac: sized(bytes("DSL_CRYPTO_MAC")?)?,
        master_key: sized(bytes("DSL_CRYPTO_MASTER_KEY_1")?)?,
        hmac_key: sized(bytes("DSL_CRYPTO_HMAC_KEY_1")?)?,
    })
}

fn unwrap(pool: &Pool, object: u64, wrapping: &WrappingKey) -> Result<Arc<DatasetKey>> {
    let wrapped = wrapped_key(pool, object)?;
    let key = DatasetKey::unwrap(&wrapped, wrapping);
    key.map(Arc::new).map_err(|e| Error::new(ErrorKind::Auth, "unwrapping the key").because(e))
}

impl Pool {
    /// Loads the key of encryption root `name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such dataset, [`ErrorKind::Unsupported`] when it is not encrypted,
    /// [`ErrorKind::Invalid`] when it is not an encryption root or the key has the wrong form, [`ErrorKind::Exists`]
    /// when the key is loaded already, [`ErrorKind::Auth`] when it is the wrong key.
    pub fn load_key(&self, name: &str, material: &[u8]) -> Result<()> {
        let (dir, info) = self.encryption_root(name)?;
        if self.keys().wrapping.read().contains_key(&dir.object) {
            return Err(Error::new(ErrorKind::Exists, "key already loaded"));
        }
        let wrapping = info.wrapping_key(material)?;
        let key = unwrap(self, info.object, &wrapping)?;
        self.keys().unwrapped.write().insert(info.object, key);
        self.keys().wrapping.write().insert(dir.object, wrapping);
        Ok(())
    }

    /// Whether `material` is the key of encryption root `name` (`zfs load-key -n`).
    ///
    /// # Errors
    /// As for [`Pool::load_key`], but a key that is loaded already is fine.
    pub fn check_key(&self, name: &str, material: &[u8]) -> Result<()> {
        let (_, info) = self.encryption_root(name)?;
        unwrap(self, info.object, &info.wrapping_key(material)?).map(drop)
    }

    /// Forgets the key of encryption root `name` and what was decrypted with it. Object sets that are open keep theirs.
    ///
    /// # Errors
    /// As for [`Pool::load_key`]; [`ErrorKind::KeyUnavailable`] when it is not loaded.
    pub fn unload_key(&self, name: &str) -> Result<()> {
        let (dir, _) = self.encryption_root(name)?;
        if self.keys().wrapping.write().remove(&dir.object).is_none() {
            return Err(Error::new(ErrorKind::KeyUnavailable, "key already unloaded"));
        }
        // Others are unwrapped again when they are asked for next.
        self.keys().unwrapped.write().clear();
        self.zio().purge_decrypted();
        Ok(())
    }

    fn encryption_root(&self, name: &str) -> Result<(Arc<Dir>, CryptInfo)> {
        let dir = self.dsl()?.dir(name)?.ok_or_else(|| Error::not_found("dataset does not exist"))?;
        let info = CryptInfo::of(self, &dir)?.ok_or_else(|| Error::unsupported("dataset is not encrypted"))?;
        if info.root != dir.object {
            return Err(Error::invalid("dataset is not an encryption root"));
        }
        Ok((dir, info))
    }

    /// Key of a dataset; nothing when it is not encrypted.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`] when its encryption root's key is not loaded.
    pub fn key_of(&self, ds: &Dataset) -> Result<Option<Arc<DatasetKey>>> {
        let Some(info) = CryptInfo::of(self, &ds.dir)? else { return Ok(None) };
        if let Some(key) = self.keys().unwrapped.read().get(&info.object) {
            return Ok(Some(key.clone()));
        }
        let wrapping = self.keys().wrapping.read().get(&info.root).cloned();
        let wrapping = wrapping
            .ok_or_else(|| Error::new(ErrorKind::KeyUnavailable, format!("key of {} is not loaded", ds.name)))?;
        let key = unwrap(self, info.object, &wrapping)?;
        Ok(Some(self.keys().unwrapped.write().entry(info.object).or_insert(key).clone()))
    }

    /// Whether the key that a directory's encryption needs is loaded.
    pub fn key_is_loaded(&self, info: &CryptInfo) -> bool {
        self.keys().wrapping.read().contains_key(&info.root)
    }

    /// Name of a directory's encryption root.
    pub fn encryption_root_name(&self, dsl: &Dsl, info: &CryptInfo) -> Result<Option<String>> {
        Ok(dsl.dir_by_object(info.root)?.map(|d| d.name.clone()))
    }

    /// The object set of a dataset, with its key when it is encrypted.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`] when the key is not loaded.
    pub fn open_objset(&self, ds: &Dataset) -> Result<Arc<zfs_dmu::Objset>> {
        ds.open_objset(self.key_of(ds)?)
    }
}

/// Reads the key that a `keylocation` of the form `file:///path` names.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for other locations (a prompt is the client's to ask); the system's error for files.
pub fn read_key_file(location: &str) -> Result<Vec<u8>> {
    let path = location.strip_prefix("file://").ok_or_else(|| Error::unsupported("key location is not a file"))?;
    Ok(zfs_env::host::read_file(path, KEYFILE_MAX)?)
}
