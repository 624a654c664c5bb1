//! Cache files: configurations of the pools that are imported, for programs that look for pools there and not on devices.
//!
//! A file is kept for pools that were given one (property `cachefile`), never by default: OpenZFS on the same machine
//! imports what its own file names.

use super::{Engine, Imported};
use std::sync::Arc;
use zfs_phys::{NvList, NvValue};

impl Imported {
    /// The file that remembers the pool, if any.
    pub(super) fn cachefile(&self) -> Option<String> {
        self.cachefile.lock().clone().filter(|f| !f.is_empty() && f != "none")
    }
}

impl Engine {
    /// Gives a pool its cache file, and writes that and the one it had before.
    pub(super) fn set_cachefile(&self, imported: &Arc<Imported>, file: Option<String>) {
        let before = imported.cachefile();
        *imported.cachefile.lock() = file;
        for file in before.into_iter().chain(imported.cachefile()) {
            self.write_cachefile(&file);
        }
    }

    /// Writes the cache file of a pool after it changed or left; failing to is no reason to fail what was done.
    pub(super) fn write_cachefile(&self, file: &str) {
        let pools: Vec<Arc<Imported>> = self.pools.read().values().cloned().collect();
        let mut all = NvList::new();
        for imported in pools.iter().filter(|p| p.cachefile().as_deref() == Some(file)) {
            if let Some(spa) = &imported.spa {
                all.set(imported.pool.name().to_string(), NvValue::NvList(spa.configuration()));
            }
        }
        let done = if all.pairs.is_empty() {
            std::fs::remove_file(file)
        } else {
            // Whoever reads it meanwhile finds the old one whole.
            let fresh = format!("{file}.tmp");
            std::fs::write(&fresh, all.encode_xdr()).and_then(|()| std::fs::rename(&fresh, file))
        };
        if let Err(e) = done {
            tracing::warn!("{file}: {e}");
        }
    }
}
