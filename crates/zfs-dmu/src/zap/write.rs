//! Changing ZAPs.

use super::{MatchMode, Zap};
use crate::dnode::Dnode;
use crate::liveset::ObjectSpec;
use crate::objset::Objset;
use crate::txg::Tx;
use std::sync::Arc;
use zfs_phys::enums::DmuObjectType;
use zfs_zio::{Error, Result};

fn later<T>() -> Result<T> {
    Err(Error::unsupported("changing a ZAP"))
}

/// What a new ZAP is to be like, besides the object it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZapSpec {
    /// `NORM_*` flags under which names are hashed.
    pub normflags: u64,
    /// `ZAP_FLAG_*`; any makes it a fat one from the start.
    pub flags: u64,
}

impl Zap {
    /// Allocates an object with an empty table of names. Gives its number.
    pub fn create(objset: &Arc<Objset>, tx: &Tx, object_type: DmuObjectType, normflags: u64) -> Result<u64> {
        let spec = ObjectSpec { object_type, ..ObjectSpec::default() };
        Ok(Self::create_with(objset, tx, &spec, &ZapSpec { normflags, flags: 0 })?.dnode.object())
    }

    /// Allocates an object with an empty table.
    pub fn create_with(objset: &Arc<Objset>, tx: &Tx, object: &ObjectSpec, zap: &ZapSpec) -> Result<Self> {
        let dnode = objset.allocate(tx, object)?;
        Self::init_with(objset, tx, &dnode, zap)
    }

    /// Allocates the object of that number with an empty table of names.
    pub fn claim(objset: &Arc<Objset>, tx: &Tx, object: u64, object_type: DmuObjectType) -> Result<Self> {
        let dnode = objset.claim(tx, object, &ObjectSpec { object_type, ..ObjectSpec::default() })?;
        Self::init_with(objset, tx, &dnode, &ZapSpec::default())
    }

    /// Makes an empty table of names in a fresh object.
    pub fn init(objset: &Arc<Objset>, tx: &Tx, dnode: &Arc<Dnode>, normflags: u64) -> Result<Self> {
        Self::init_with(objset, tx, dnode, &ZapSpec { normflags, flags: 0 })
    }

    /// Makes an empty table in a fresh object.
    pub fn init_with(_objset: &Arc<Objset>, _tx: &Tx, _dnode: &Arc<Dnode>, _zap: &ZapSpec) -> Result<Self> {
        later()
    }

    /// Adds a name with a value of 64-bit integers. Fails with `Exists`.
    pub fn add(&self, tx: &Tx, name: &[u8], value: &[u64]) -> Result<()> {
        let _ = (tx, name, value);
        later()
    }

    /// Sets the value of a name to 64-bit integers, whether it is there or not.
    pub fn update(&self, tx: &Tx, name: &[u8], value: &[u64]) -> Result<()> {
        let _ = (tx, name, value);
        later()
    }

    /// Sets the value of a name to integers of `int_len` bytes: `value` is their image in big-endian byte order (for
    /// strings and byte arrays, `int_len` 1, the bytes).
    pub fn update_ints(&self, tx: &Tx, name: &[u8], int_len: u8, value: &[u8]) -> Result<()> {
        let _ = (tx, name, int_len, value);
        later()
    }

    /// Removes a name, compared byte for byte. Fails with `NotFound`.
    pub fn remove(&self, tx: &Tx, name: &[u8]) -> Result<()> {
        self.remove_norm(tx, name, MatchMode::Exact)
    }

    /// Removes a name, compared as `mode` says. Fails with `NotFound`.
    pub fn remove_norm(&self, tx: &Tx, name: &[u8], mode: MatchMode) -> Result<()> {
        let _ = (tx, name, mode);
        later()
    }

    /// Adds a delta to the one integer of a name; a sum of 0 removes the name (`zap_increment`).
    pub fn increment(&self, tx: &Tx, name: &[u8], delta: i64) -> Result<()> {
        let _ = (tx, name, delta);
        later()
    }

    /// Sets the value of a key of words to 64-bit integers.
    pub fn update_key(&self, tx: &Tx, key: &[u64], value: &[u64]) -> Result<()> {
        let _ = (tx, key, value);
        later()
    }

    /// Removes a key of words. Fails with `NotFound`.
    pub fn remove_key(&self, tx: &Tx, key: &[u64]) -> Result<()> {
        let _ = (tx, key);
        later()
    }
}
