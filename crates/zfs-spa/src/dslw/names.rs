//! Names of datasets: which there can be, and how the history tells them, with that of the pool.
//!
//! A name that the tools of OpenZFS could not spell must not come to be, whoever asks for it: so it is here that names are
//! checked (`entity_namecheck` in `zfs_namecheck.c`, `dsl_dir_create_sync`, `dsl_valid_rename`). Directories do not store their names: those stand in the tables above them, which are searched for what nobody asked for by
//! its name yet.

use super::{DatasetState, DirState, DslPool};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_zio::{Error, ErrorKind};

/// Most bytes of a whole name (one less than `ZFS_MAX_DATASET_NAME_LEN`).
const MAX_NAME: usize = 255;
/// Most levels below the pool's own file system (`zfs_max_dataset_nesting`).
const MAX_NESTING: usize = 50;

/// Fails for what cannot be one part of a name.
pub(super) fn check_part(name: &str) -> Result<()> {
    let bad = |c: &u8| !(c.is_ascii_alphanumeric() || b"-_.: ".contains(c));
    match name.bytes().find(bad) {
        Some(c) => Err(Error::invalid(format!("invalid character '{}' in name", c.escape_ascii()))),
        None if matches!(name, "" | "." | "..") => Err(Error::invalid(format!("no name: '{name}'"))),
        None => Ok(()),
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::NameTooLong, "naming a dataset")
}

impl DslPool {
    /// Fails for a path that no file system or volume can have.
    pub(super) fn check_path(&self, path: &str) -> Result<()> {
        path.split('/').try_for_each(check_part)?;
        if self.full_name(path).len() > MAX_NAME { Err(too_long()) } else { check_depth(path.split('/').count()) }
    }

    /// Fails for what cannot be the name of a snapshot or bookmark of what is in a directory.
    pub(super) fn check_tail(&self, dir: &Arc<DirState>, name: &str) -> Result<()> {
        check_part(name)?;
        if self.name_of(dir)?.len() + 1 + name.len() > MAX_NAME { Err(too_long()) } else { Ok(()) }
    }

    /// Fails when something below a directory, which gets another path, could not be named any more.
    pub(super) fn check_below(&self, dir: &Arc<DirState>, path: &str) -> Result<()> {
        let mut pending = vec![(dir.clone(), self.full_name(path).len(), path.split('/').count())];
        while let Some((dir, length, depth)) = pending.pop() {
            check_depth(depth)?;
            let phys = dir.phys();
            for entry in Zap::open(&self.mos, phys.child_dir_zapobj)?.iter() {
                let entry = entry?;
                pending.push((self.dir(entry.value.first())?, length + 1 + entry.name().len(), depth + 1));
            }
            let mut longest = length;
            if phys.head_dataset_obj != 0 {
                let head = self.dataset(phys.head_dataset_obj)?;
                for entry in Zap::open(&self.mos, head.phys().snapnames_zapobj)?.iter() {
                    longest = longest.max(length + 1 + entry?.name().len());
                }
            }
            if longest > MAX_NAME {
                return Err(too_long());
            }
        }
        Ok(())
    }

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
    ///
    /// # Errors
    /// Whatever writing it meets.
    pub fn log_of(&self, tx: &Tx, event: &str, ds: &DatasetState, text: &str) -> Result<()> {
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

fn check_depth(depth: usize) -> Result<()> {
    if depth > MAX_NESTING { Err(Error::new(ErrorKind::Loop, "too many levels of datasets")) } else { Ok(()) }
}
