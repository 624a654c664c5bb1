//! Space of a file system, from the dataset's figures to what `statfs` shows (`zfs_statvfs`).
//!
//! In a directory that hands its project id on to new files, the project's quotas take the place of the dataset's
//! figures, so that `df` shows what can be written there.

use crate::quota::Of;
use crate::zfs::Zfs;
use crate::znode::Znode;
use zfs_phys::znode::ZFS_PROJINHERIT;
use zfs_zio::Result;

/// The dataset's figures, which the layer above objects keeps (`dmu_objset_space`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceFigures {
    /// Bytes the dataset refers to.
    pub referenced: u64,
    /// Bytes that can still be written, quotas and reservations considered.
    pub available: u64,
    /// Objects in use.
    pub used_objects: u64,
    /// Objects that can still be made.
    pub available_objects: u64,
    /// The id by which the file system is told from others (`fsid_guid`).
    pub fsid: u64,
}

/// What `statfs` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statfs {
    /// Unit of the block counts, bytes.
    pub bsize: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks; nothing is kept back for root.
    pub bfree: u64,
    /// Files that exist or could.
    pub files: u64,
    /// Files that could be made.
    pub ffree: u64,
    /// Longest name, bytes.
    pub namelen: u32,
    /// Id of the file system.
    pub fsid: u64,
}

impl Statfs {
    /// Computes the shown figures in units of `recordsize` bytes (a power of two). `longname` tells whether the
    /// dataset has names of more than 255 bytes.
    pub fn of(space: &SpaceFigures, recordsize: u32, longname: bool) -> Self {
        let bsize = u64::from(recordsize.max(512));
        let referenced = space.referenced.checked_next_multiple_of(bsize).unwrap_or(space.referenced);
        let ffree = space.available_objects.min(space.available >> 9);
        Self {
            bsize: recordsize.max(512),
            blocks: referenced.saturating_add(space.available) / bsize,
            bfree: space.available / bsize,
            files: ffree.saturating_add(space.used_objects),
            ffree,
            namelen: if longname { 1023 } else { 255 },
            fsid: space.fsid,
        }
    }
}

impl Zfs {
    /// Space figures as seen from a file.
    pub fn statfs(&self, object: u64) -> Result<Statfs> {
        let options = self.options();
        let mut shown = Statfs::of(&(options.space)(), options.recordsize, options.longname);
        let znode = self.znode(object)?;
        if znode.flags() & ZFS_PROJINHERIT != 0 && znode.attr().projid != 0 {
            self.limit_to_project(&znode, &mut shown)?;
        }
        Ok(shown)
    }

    /// Puts a project's quotas in the place of the dataset's figures (`zfs_statfs_project`).
    fn limit_to_project(&self, znode: &Znode, shown: &mut Statfs) -> Result<()> {
        let id = format!("{:x}", znode.attr().projid);
        if let Some(quota) = self.quota_of(Of::Project, false, &id)? {
            let own = u64::from(znode.attr().blksize).saturating_mul(znode.attr().blocks);
            let used = self.use_of(Of::Project, false, &id)?.unwrap_or(own);
            shown.blocks = quota / u64::from(shown.bsize);
            shown.bfree = quota.saturating_sub(used) / u64::from(shown.bsize);
        }
        if let Some(quota) = self.quota_of(Of::Project, true, &id)? {
            let used = self.use_of(Of::Project, true, &id)?.unwrap_or(1);
            shown.files = quota;
            shown.ffree = quota.saturating_sub(used);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_dataset_still_has_a_block() {
        let s = SpaceFigures { referenced: 1, available: 10 << 20, used_objects: 6, available_objects: 99, fsid: 5 };
        let f = Statfs::of(&s, 128 << 10, false);
        assert_eq!((f.blocks, f.bfree, f.files, f.ffree, f.namelen), (81, 80, 105, 99, 255));
        assert_eq!(Statfs::of(&s, 1 << 20, true).blocks, 11);
    }
}
