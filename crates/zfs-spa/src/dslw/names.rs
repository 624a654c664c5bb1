//! Names of datasets as the history tells them, with that of the pool.
//!
//! Directories do not know their names: those stand in the tables above them, which are searched.

use super::{DatasetState, DirState, DslPool};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_zio::Error;

impl DslPool {
    /// The whole name of a directory.
    pub(super) fn name_of(&self, dir: &Arc<DirState>) -> Result<String> {
        let (mut parts, mut at) = (Vec::new(), dir.clone());
        while let Some(above) = at.parent() {
            let mut name = None;
            for entry in Zap::open(&self.mos, above.phys().child_dir_zapobj)?.iter() {
                let entry = entry?;
                if entry.value.first() == at.object {
                    name = Some(String::from_utf8_lossy(entry.name()).into_owned());
                    break;
                }
            }
            parts.push(name.ok_or_else(|| Error::corrupt("a dataset without a name"))?);
            at = above;
        }
        parts.push(self.mos.zio().pool_name().to_string());
        parts.reverse();
        Ok(parts.join("/"))
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
