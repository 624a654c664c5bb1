//! Names of datasets as the history tells them, with that of the pool.
//!
//! Directories do not store their names: those stand in the tables above them, which are searched for what nobody asked for by
//! its name yet.

use super::{DatasetState, DirState, DslPool};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};

impl DslPool {
    /// The whole name of a directory.
    pub(super) fn name_of(&self, dir: &Arc<DirState>) -> Result<String> {
        let (mut parts, mut at) = (Vec::new(), dir.clone());
        while let Some(above) = at.parent() {
            parts.push(at.name().map_or_else(|| self.search_name(&above, &at), Ok)?);
            at = above;
        }
        parts.push(self.mos.zio().pool_name().to_string());
        parts.reverse();
        Ok(parts.join("/"))
    }

    fn search_name(&self, above: &DirState, dir: &DirState) -> Result<String> {
        for entry in Zap::open(&self.mos, above.phys().child_dir_zapobj)?.iter() {
            let entry = entry?;
            if entry.value.first() == dir.object {
                let name = String::from_utf8_lossy(entry.name());
                dir.is_called(&name);
                return Ok(name.into_owned());
            }
        }
        Ok(format!("<{}>", dir.object))
    }

    /// A path with the pool's name before it.
    pub(super) fn full_name(&self, path: &str) -> String {
        let pool = self.mos.zio().pool_name();
        if path.is_empty() { pool.to_string() } else { format!("{pool}/{path}") }
    }

    /// Appends what happened to a file system or volume to the history.
    pub(super) fn log_of(&self, tx: &Tx, event: &str, ds: &DatasetState, text: &str) -> Result<()> {
        let name = self.name_of(&ds.dir())?;
        self.ops.log(tx, event, Some((&name, ds.object)), text)
    }

    /// Appends what happened to a snapshot, whose name may be the short one.
    pub(super) fn log_of_snap(&self, tx: &Tx, event: &str, snap: &DatasetState, name: &str, text: &str) -> Result<()> {
        let short = name.rsplit('@').next().unwrap_or(name);
        let name = format!("{}@{short}", self.name_of(&snap.dir())?);
        self.ops.log(tx, event, Some((&name, snap.object)), text)
    }
}
