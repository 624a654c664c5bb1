//! Quotas of users, groups and projects, in bytes and in objects: tables that the master node names, and the sums that
//! the object set keeps of its owners (module/zfs/zfs_quota.c).
//!
//! Sums are those of the last txg on disk, so that a quota is met some seconds late, as in OpenZFS.

use crate::zfs::Zfs;
use zfs_dmu::objset::{GROUPUSED_OBJECT, PROJECTUSED_OBJECT, USERUSED_OBJECT};
use zfs_dmu::zap::Zap;
use zfs_phys::znode::MASTER_NODE_OBJ;
use zfs_zio::{Error, ErrorKind, Result};

/// Whose quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    User,
    Group,
    Project,
}

impl Of {
    /// Table of quotas, default quota, table of object quotas, their default: entries of the master node.
    const fn names(self) -> [&'static str; 4] {
        match self {
            Self::User => ["userquota@", "defaultuserquota", "userobjquota@", "defaultuserobjquota"],
            Self::Group => ["groupquota@", "defaultgroupquota", "groupobjquota@", "defaultgroupobjquota"],
            Self::Project => ["projectquota@", "defaultprojectquota", "projectobjquota@", "defaultprojectobjquota"],
        }
    }

    const fn sums(self) -> u64 {
        match self {
            Self::User => USERUSED_OBJECT,
            Self::Group => GROUPUSED_OBJECT,
            Self::Project => PROJECTUSED_OBJECT,
        }
    }
}

impl Zfs {
    /// The quota of an id: its own, or the default.
    pub(crate) fn quota_of(&self, of: Of, objects: bool, id: &str) -> Result<Option<u64>> {
        let [space, space_default, count, count_default] = of.names();
        let (table, default) = if objects { (count, count_default) } else { (space, space_default) };
        let master = Zap::open(self.objset(), MASTER_NODE_OBJ)?;
        if let Some(object) = master.lookup_u64(table.as_bytes())?
            && let Some(quota) = Zap::open(self.objset(), object)?.lookup_u64(id.as_bytes())?
        {
            return Ok(Some(quota));
        }
        Ok(master.lookup_u64(default.as_bytes())?.filter(|&quota| quota != 0))
    }

    /// What an id uses by the dataset's accounting.
    pub(crate) fn use_of(&self, of: Of, objects: bool, id: &str) -> Result<Option<u64>> {
        let key = if objects { format!("obj-{id}") } else { id.to_owned() };
        match Zap::open(self.objset(), of.sums()) {
            Ok(zap) => zap.lookup_u64(key.as_bytes()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether there are quotas at all.
    pub(crate) fn has_quotas(&self) -> Result<bool> {
        let master = Zap::open(self.objset(), MASTER_NODE_OBJ)?;
        for name in [Of::User, Of::Group, Of::Project].iter().flat_map(|of| of.names()) {
            if master.lookup_u64(name.as_bytes())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails with [`ErrorKind::Quota`] when the owner of a file may have no more of bytes or objects.
    pub(crate) fn check_quotas(&self, uid: u32, gid: u32, projid: u64, objects: bool) -> Result<()> {
        for (of, id) in [(Of::User, u64::from(uid)), (Of::Group, u64::from(gid)), (Of::Project, projid)] {
            let id = format!("{id:x}");
            let Some(quota) = self.quota_of(of, objects, &id)? else { continue };
            if self.use_of(of, objects, &id)?.unwrap_or(0) >= quota {
                return Err(Error::new(ErrorKind::Quota, "an owner has what its quota allows"));
            }
        }
        Ok(())
    }
}
