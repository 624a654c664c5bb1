//! Which files hold data that cannot be read: the persistent error logs, and what was met since the import.
//!
//! With the feature `head_errlog` the logs name file systems and the birth of the damaged block; which snapshots are
//! affected too is found by looking whether they have the very same block.

use crate::dsl::Dataset;
use crate::pool::Pool;
use std::collections::BTreeSet;
use std::sync::Arc;
use zfs_dmu::sa::{SaHandle, SaRegistry, ZplAttr};
use zfs_dmu::{Objset, Result, Zap};
use zfs_phys::errlog::ErrorKey;
use zfs_phys::feature::Feature;

/// Most errors that are listed.
const MAX_ERRORS: usize = 1 << 20;
/// Deepest path followed.
const MAX_PATH_DEPTH: usize = 1024;
/// Object number of a directory entry; the rest is the type.
const ENTRY_OBJECT: u64 = (1 << 48) - 1;

/// An object with permanent errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataError {
    /// Object set; 0 for the pool's own metadata.
    pub objset: u64,
    /// Object.
    pub object: u64,
    /// Name of the dataset or snapshot, when it still exists.
    pub dataset: Option<String>,
    /// Path inside of it, when the object is a file that still has a name and can be read.
    pub path: Option<String>,
}

impl DataError {
    /// As `zpool status -v` prints it for a dataset that is not mounted.
    pub fn text(&self) -> String {
        match (&self.dataset, &self.path) {
            _ if self.objset == 0 => format!("<metadata>:<0x{:x}>", self.object),
            (None, _) => format!("<0x{:x}>:<0x{:x}>", self.objset, self.object),
            (Some(ds), Some(path)) => format!("{ds}:{path}"),
            (Some(ds), None) => format!("{ds}:<0x{:x}>", self.object),
        }
    }
}

impl Pool {
    /// Objects with permanent errors, each once: from the logs, and what was met since the import.
    pub fn data_errors(&self) -> Result<Vec<DataError>> {
        let mut found = BTreeSet::new();
        for log in ["errlog_last", "errlog_scrub"] {
            if let Some(object) = self.directory().lookup_u64(log.as_bytes())?.filter(|o| *o != 0) {
                self.read_error_log(object, &mut found)?;
            }
        }
        found.extend(self.zio().errors().lost().iter().map(|(bm, _)| (bm.objset, bm.object)));
        let dsl = self.dsl()?;
        let mut out = Vec::new();
        for (objset, object) in found {
            let ds = if objset == 0 { None } else { dsl.by_object(objset)? };
            let path = ds.as_ref().and_then(|ds| self.path_in(ds, object));
            out.push(DataError { objset, object, dataset: ds.map(|d| d.name.clone()), path });
        }
        Ok(out)
    }

    /// Number of objects with permanent errors.
    pub fn data_error_count(&self) -> Result<u64> {
        let mut found = BTreeSet::new();
        for log in ["errlog_last", "errlog_scrub"] {
            if let Some(object) = self.directory().lookup_u64(log.as_bytes())?.filter(|o| *o != 0) {
                self.read_error_log(object, &mut found)?;
            }
        }
        found.extend(self.zio().errors().lost().iter().map(|(bm, _)| (bm.objset, bm.object)));
        Ok(found.len() as u64)
    }

    fn read_error_log(&self, object: u64, out: &mut BTreeSet<(u64, u64)>) -> Result<()> {
        let by_head = self.features().is_enabled(Feature::HeadErrlog);
        for entry in Zap::open(self.mos(), object)?.iter() {
            let entry = entry?;
            if out.len() >= MAX_ERRORS {
                return Ok(());
            }
            if !by_head {
                out.extend(ErrorKey::from_name(entry.name()).map(|k| (k.objset, k.object)));
                continue;
            }
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            let Ok(head) = u64::from_str_radix(name.trim_end_matches('\0'), 16) else { continue };
            for block in Zap::open(self.mos(), entry.value.first())?.iter() {
                if let Some(key) = ErrorKey::from_head_name(block?.name()) {
                    self.add_affected(head, &key, out)?;
                }
            }
        }
        Ok(())
    }

    /// The head and those of its snapshots that have the damaged block.
    fn add_affected(&self, head: u64, key: &ErrorKey, out: &mut BTreeSet<(u64, u64)>) -> Result<()> {
        if head == 0 || key.birth == 0 {
            out.insert((head, key.object));
            return Ok(());
        }
        let Some(ds) = self.dsl()?.by_object(head)? else { return Ok(()) };
        let mut all = vec![ds.clone()];
        all.extend(ds.snapshots()?);
        for ds in all {
            if birth_of(&ds, key) == Some(key.birth) {
                out.insert((ds.object, key.object));
            }
        }
        Ok(())
    }

    fn path_in(&self, ds: &Arc<Dataset>, object: u64) -> Option<String> {
        let objset = self.open_objset(ds).ok()?;
        path_of(&objset, object).ok().flatten()
    }
}

/// When the block that `key` names was written, as `ds` has it.
fn birth_of(ds: &Dataset, key: &ErrorKey) -> Option<u64> {
    let dnode = ds.open_without_key().ok()?.dnode(key.object).ok()?;
    let bp = dnode.blkptr_of(u8::try_from(key.level).ok()?, key.blkid).ok()??;
    (!bp.is_hole()).then(|| bp.physical_birth())
}

/// Path of a file in its file system: upwards by parents, looking each name up in its directory. Nothing for objects
/// that are no files or have no name any more.
pub fn path_of(objset: &Arc<Objset>, object: u64) -> Result<Option<String>> {
    let registry = Arc::new(SaRegistry::load(objset)?);
    let Some(root) = Zap::open(objset, 1)?.lookup_u64(b"ROOT")? else { return Ok(None) };
    let mut parts = Vec::new();
    let mut at = object;
    while at != root {
        let Ok(dnode) = objset.dnode(at) else { return Ok(None) };
        let Ok(handle) = SaHandle::open(&registry, &dnode) else { return Ok(None) };
        let Some(parent) = handle.get_u64(ZplAttr::Parent)? else { return Ok(None) };
        if parent == at || parts.len() > MAX_PATH_DEPTH {
            return Ok(None);
        }
        let mut name = None;
        for entry in Zap::open(objset, parent)?.iter() {
            let entry = entry?;
            if entry.value.first() & ENTRY_OBJECT == at {
                name = Some(String::from_utf8_lossy(entry.name()).into_owned());
                break;
            }
        }
        let Some(name) = name else { return Ok(None) };
        parts.push(name);
        at = parent;
    }
    parts.reverse();
    Ok(Some(format!("/{}", parts.join("/"))))
}
