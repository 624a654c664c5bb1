//! Encryption keys: loading and unloading, and what is in the way.

use super::{Engine, Imported, failure, import};
use std::sync::Arc;
use uzfs_proto::{Empty, Failure, FailureCode, LoadKeyArgs};
use zfs_dmu::Key;
use zfs_spa::keys::CryptInfo;
use zfs_spa::{Dataset, Error, ErrorKind};
use zfs_zpl::SpaceFigures;

/// The code that stands for a failure of a key operation on an existing dataset.
fn key_failure(name: &str, error: &Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::NotFound => return failure::no_dataset(name),
        ErrorKind::Unsupported => FailureCode::NotEncrypted,
        ErrorKind::Invalid => FailureCode::KeyInvalid,
        ErrorKind::Exists => FailureCode::KeyLoaded,
        _ => return failure::engine(error).about(name),
    };
    Failure::new(code, error.to_string()).about(name)
}

impl Imported {
    /// The key of a dataset, if it has one; fails when it is encrypted and its key is not loaded.
    pub(super) fn key_of(&self, dataset: &Dataset) -> Result<Option<Arc<Key>>, Failure> {
        self.pool.key_of(dataset).map_err(|e| failure::engine(&e))
    }

    /// The figures that `statfs` shows of a dataset.
    pub(super) fn space(&self, dataset: &Arc<Dataset>) -> zfs_spa::Result<SpaceFigures> {
        let view = self.view();
        let number = |name: &str| {
            let found = view.property(dataset, name)?;
            Ok::<_, Error>(found.and_then(|p| p.value.number()).unwrap_or(0))
        };
        let objset = dataset.open_without_key()?;
        let used_objects = objset.phys().meta_dnode.blkptrs().map(|bp| bp.fill()).sum();
        Ok(SpaceFigures {
            referenced: number("referenced")?,
            available: number("available")?,
            used_objects,
            // `DN_MAX_OBJECT`, less those in use.
            available_objects: (1u64 << 48).saturating_sub(used_objects),
            fsid: dataset.phys.fsid_guid,
        })
    }

    /// Directory object of a dataset's encryption root; nothing when it is not encrypted.
    fn encryption_root(&self, name: &str) -> Option<u64> {
        let head = name.split('@').next().unwrap_or(name);
        let view = self.view();
        let dir = view.dsl().ok()?.dir(head).ok()??;
        CryptInfo::of(&view, &dir).ok()?.map(|info| info.root)
    }
}

impl Engine {
    /// Refuses datasets that have their key from another, naming that.
    fn require_root(&self, imported: &Imported, name: &str) -> Result<(), Failure> {
        let (_, dataset) = self.dataset(name)?;
        let Some(root) = imported.encryption_root(name) else {
            return Err(Failure::new(FailureCode::NotEncrypted, "dataset is not encrypted").about(name));
        };
        if root == dataset.dir.object {
            return Ok(());
        }
        let from = imported.view().dsl().ok().and_then(|dsl| dsl.dir_by_object(root).ok().flatten());
        let text = "keys must be loaded for the encryption root";
        let details = from.map(|d| d.name.clone()).into_iter().collect();
        Err(Failure::new(FailureCode::NotEncryptionRoot, text).about(name).with_details(details))
    }

    pub(super) fn load_key(&self, args: &LoadKeyArgs, key: &[u8]) -> Result<Empty, Failure> {
        let name = &args.dataset;
        let imported = self.pool(import::pool_of(name)).map_err(|_| failure::no_dataset(name))?;
        self.require_root(&imported, name)?;
        let done = if args.dry_run { imported.pool.check_key(name, key) } else { imported.pool.load_key(name, key) };
        done.map(|()| Empty {}).map_err(|e| key_failure(name, &e))
    }

    pub(super) fn unload_key(&self, name: &str) -> Result<Empty, Failure> {
        let imported = self.pool(import::pool_of(name)).map_err(|_| failure::no_dataset(name))?;
        self.require_root(&imported, name)?;
        let root = imported.encryption_root(name);
        let in_use = |m: &Arc<super::mounts::Mounted>| {
            import::pool_of(&m.dataset) == import::pool_of(name) && imported.encryption_root(&m.dataset) == root
        };
        let serves =
            |served: &str| import::pool_of(served) == import::pool_of(name) && imported.encryption_root(served) == root;
        if self.mounts.list().iter().any(in_use) || self.close_idle(serves).is_err() {
            return Err(Failure::new(FailureCode::Busy, "dataset is busy").about(name));
        }
        imported.pool.unload_key(name).map(|()| Empty {}).map_err(|e| key_failure(name, &e))
    }

    /// `zfs unmount -u`: unloads the key of what was unmounted, where it is the root of its encryption.
    pub(super) fn unload_after_unmount(&self, dataset: &str) -> Result<Empty, Failure> {
        match self.unload_key(dataset) {
            Err(f) if matches!(f.code, FailureCode::NotEncrypted | FailureCode::NotEncryptionRoot) => Ok(Empty {}),
            other => other,
        }
    }
}
