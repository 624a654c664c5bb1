//! Encrypted datasets as far as they change without their keys.
//!
//! Their contents are not written yet. What belongs to the dataset layer is: directories share key objects (a clone
//! uses its origin's), each with a count of its users; a directory that is no encryption root of its own must stay
//! below its root; every snapshot gets the number by which raw streams know its initialization vectors; and the intent
//! log in the header of an object set may be claimed or dropped, because no MAC covers it.

use super::dataset::Owner;
use super::{DatasetState, DirState, DslPool, mosw};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Objset, Result};
use zfs_phys::dsl::field;
use zfs_phys::feature::Feature;
use zfs_phys::objset::ZilHeader;
use zfs_zio::{Error, ErrorKind};

/// Field of a key object: directories that use it (`DSL_CRYPTO_KEY_REFCOUNT`, `sys/dsl_crypt.h`).
const REFCOUNT: &str = "DSL_CRYPTO_REFCOUNT";
/// Field of a key object: the directory whose wrapping key it is wrapped with.
const ROOT: &str = "DSL_CRYPTO_ROOT_DDOBJ";

impl DslPool {
    /// The key object of a directory; nothing when it is not encrypted.
    pub(super) fn key_of(&self, dir: &DirState) -> Result<Option<u64>> {
        match self.mos.dnode(dir.object)?.phys().object_type.is_zap() {
            true => mosw::zap_get(&self.mos, dir.object, field::CRYPTO_KEY_OBJ),
            false => Ok(None),
        }
    }

    /// What is made below an encrypted dataset is encrypted as well, and that cannot be written.
    ///
    /// # Errors
    /// `Unsupported` when `parent` is encrypted.
    pub(super) fn check_plain(&self, parent: &DirState) -> Result<()> {
        match self.key_of(parent)? {
            Some(_) => Err(Error::unsupported("making encrypted datasets is not supported yet by uzfs")),
            None => Ok(()),
        }
    }

    /// The directory of a clone uses the key of its origin.
    pub(super) fn share_key(&self, tx: &Tx, from: &DirState, to: &DirState) -> Result<()> {
        let Some(key) = self.key_of(from)? else { return Ok(()) };
        let users = mosw::zap_get(&self.mos, key, REFCOUNT)?.ok_or_else(|| Error::corrupt("a key without a count"))?;
        mosw::zap_set(&self.mos, tx, key, REFCOUNT, users + 1)?;
        self.zapify(tx, to.object)?;
        mosw::zap_add(&self.mos, tx, to.object, field::CRYPTO_KEY_OBJ, key)
    }

    /// A directory that is destroyed needs its key no longer.
    pub(super) fn drop_key(&self, tx: &Tx, dir: &DirState) -> Result<()> {
        let Some(key) = self.key_of(dir)? else { return Ok(()) };
        match mosw::zap_get(&self.mos, key, REFCOUNT)? {
            Some(users) if users > 1 => mosw::zap_set(&self.mos, tx, key, REFCOUNT, users - 1),
            _ => mosw::free(&self.mos, tx, key),
        }
    }

    /// The directory that is the encryption root of another one; nothing when it is not encrypted.
    fn encryption_root(&self, dir: &DirState) -> Result<Option<u64>> {
        match self.key_of(dir)? {
            Some(key) => Ok(Some(mosw::zap_get(&self.mos, key, ROOT)?.unwrap_or(dir.object))),
            None => Ok(None),
        }
    }

    /// What inherits its wrapping key stays below its encryption root.
    ///
    /// # Errors
    /// `Access` when `dir` would leave it.
    pub(super) fn check_key_move(&self, dir: &DirState, parent: &DirState) -> Result<()> {
        let Some(root) = self.encryption_root(dir)? else { return Ok(()) };
        match root == dir.object || self.encryption_root(parent)? == Some(root) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Access, "moving an encrypted dataset out of its encryption root")),
        }
    }

    /// Gives a new snapshot of an encrypted dataset its number for sets of initialization vectors.
    pub(super) fn number_ivset(&self, tx: &Tx, dir: &DirState, snap: u64) -> Result<()> {
        if self.key_of(dir)?.is_none() || !self.ops.feature_enabled(Feature::BookmarkV2) {
            return Ok(());
        }
        self.zapify(tx, snap)?;
        mosw::zap_add(&self.mos, tx, snap, field::IVSET_GUID, self.ops.guid() >> 8)
    }

    /// Writes the header of an encrypted object set anew, with `log` in it.
    pub(super) fn set_sealed_log(
        &self,
        tx: &Tx,
        ds: &Arc<DatasetState>,
        objset: &Objset,
        log: &ZilHeader,
    ) -> Result<()> {
        let owner = Owner { pool: self.me.clone(), dataset: Arc::downgrade(ds) };
        let bp = objset.write_sealed_header(tx, &owner, log)?;
        ds.update(|p| p.bp = bp);
        ds.sync_done(self, tx)
    }
}
