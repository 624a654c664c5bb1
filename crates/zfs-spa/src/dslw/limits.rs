//! Limits on how many file systems and snapshots there may be below a directory (`filesystem_limit`, `snapshot_limit`).
//!
//! Directories below one that has a limit count what is in them; here a request is held against the counts before it
//! changes anything. Whom limits are for is the caller's to know: whoever may lift them is not bound by them.

use super::{DirState, DslPool, mosw};
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::Result;
use zfs_phys::dsl::field;
use zfs_zio::{Error, ErrorKind};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// File systems and volumes.
    Filesystems,
    /// Snapshots.
    Snapshots,
}

impl Limit {
    fn property(self) -> &'static str {
        match self {
            Self::Filesystems => "filesystem_limit",
            Self::Snapshots => "snapshot_limit",
        }
    }

    fn count(self) -> &'static str {
        match self {
            Self::Filesystems => field::FILESYSTEM_COUNT,
            Self::Snapshots => field::SNAPSHOT_COUNT,
        }
    }
}

impl DslPool {
    /// Fails when so many more below these directories, by path, exceed a limit there or above.
    ///
    /// # Errors
    /// `Quota`; `NotFound` for no directory.
    pub fn check_limits(&self, what: Limit, more: &[(&str, u64)]) -> Result<()> {
        let mut sums: BTreeMap<u64, (Arc<DirState>, u64)> = BTreeMap::new();
        for (path, count) in more.iter().filter(|(_, count)| *count > 0) {
            let found = self.find_dir(path)?.ok_or_else(|| Error::not_found("counting below no dataset"))?;
            let mut at = Some(found);
            while let Some(dir) = at {
                at = dir.parent();
                let sum = sums.entry(dir.object).or_insert((dir, 0));
                sum.1 = sum.1.saturating_add(*count);
            }
        }
        sums.values().try_for_each(|(dir, count)| self.check_limit(what, dir, *count))
    }

    /// The same for a directory and all below it that get another parent: what both paths have in common counts them
    /// already.
    ///
    /// # Errors
    /// `Quota`; `NotFound` for no directory.
    pub fn check_limits_of_move(&self, from: &str, to: &str) -> Result<()> {
        let dir = self.find_dir(from)?.ok_or_else(|| Error::not_found("renaming no dataset"))?;
        let (target, _) = self.parent_of(to)?;
        for what in [Limit::Filesystems, Limit::Snapshots] {
            let below = self.counted(what, &dir)?.unwrap_or(0);
            let moved = below + u64::from(what == Limit::Filesystems);
            let mut common = Vec::new();
            let mut at = dir.parent();
            while let Some(above) = at {
                common.push(above.object);
                at = above.parent();
            }
            let mut at = Some(target.clone());
            while let Some(above) = at.filter(|d| moved > 0 && !common.contains(&d.object)) {
                self.check_limit(what, &above, moved)?;
                at = above.parent();
            }
        }
        Ok(())
    }

    /// What a directory counts, if it does.
    fn counted(&self, what: Limit, dir: &DirState) -> Result<Option<u64>> {
        match self.mos.dnode(dir.object)?.phys().object_type.is_zap() {
            true => mosw::zap_get(&self.mos, dir.object, what.count()),
            false => Ok(None),
        }
    }

    fn check_limit(&self, what: Limit, dir: &DirState, more: u64) -> Result<()> {
        let Some(count) = self.counted(what, dir)? else { return Ok(()) };
        let values = dir.phys().props_zapobj;
        if values == 0 {
            return Ok(());
        }
        match mosw::zap_get(&self.mos, values, what.property())? {
            Some(limit) if count.saturating_add(more) > limit => {
                Err(Error::new(ErrorKind::Quota, format!("exceeding {}", what.property())))
            }
            _ => Ok(()),
        }
    }
}
