//! Space and objects that users, groups and projects use in a file system, and their quotas
//! (module/zfs/zfs_quota.c): `userused@`, `userquota@` and so on.

use super::dataset::Dataset;
use crate::pool::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::objset::{GROUPUSED_OBJECT, PROJECTUSED_OBJECT, USERUSED_OBJECT};
use zfs_dmu::{ErrorKind, Objset, Result, Zap};
use zfs_phys::enums::ObjsetType;

/// Whose use is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Users.
    User,
    /// Groups.
    Group,
    /// Projects.
    Project,
}

/// Use and limits of one user, group or project. Quotas of 0 are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes used.
    pub used: u64,
    /// Most bytes.
    pub quota: u64,
    /// Objects used.
    pub objects: u64,
    /// Most objects.
    pub object_quota: u64,
}

/// Names of accounting entries about objects start so.
const OBJECT_PREFIX: &str = "obj-";
/// Object of a file system's master node.
const MASTER_NODE: u64 = 1;

impl Who {
    const fn object(self) -> u64 {
        match self {
            Self::User => USERUSED_OBJECT,
            Self::Group => GROUPUSED_OBJECT,
            Self::Project => PROJECTUSED_OBJECT,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Project => "project",
        }
    }
}

fn used_zap(objset: &Arc<Objset>, who: Who) -> Result<Option<Zap>> {
    match objset.dnode(who.object()) {
        Ok(dnode) => Zap::open_dnode(objset, dnode).map(Some),
        // The accounting may never have been made.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn quota_zap(objset: &Arc<Objset>, name: &str) -> Result<Option<Zap>> {
    match Zap::open(objset, MASTER_NODE)?.lookup_u64(name.as_bytes())? {
        Some(object) => Zap::open(objset, object).map(Some),
        None => Ok(None),
    }
}

/// Everybody's use and limits, by numeric id. Ids above 32 bits stand for foreign identities (FUIDs).
///
/// # Errors
/// [`ErrorKind::KeyUnavailable`] for an encrypted file system without its key.
pub fn usage(objset: &Arc<Objset>, who: Who) -> Result<BTreeMap<u64, Usage>> {
    let mut out: BTreeMap<u64, Usage> = BTreeMap::new();
    let mut add = |zap: Option<Zap>, set: fn(&mut Usage, u64, bool)| -> Result<()> {
        let Some(zap) = zap else { return Ok(()) };
        for entry in zap.iter() {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            let (id, objects) = match name.strip_prefix(OBJECT_PREFIX) {
                Some(id) => (id, true),
                None => (name.as_str(), false),
            };
            if let Ok(id) = u64::from_str_radix(id, 16) {
                set(out.entry(id).or_default(), entry.value.first(), objects);
            }
        }
        Ok(())
    };
    add(used_zap(objset, who)?, |u, v, objects| if objects { u.objects = v } else { u.used = v })?;
    add(quota_zap(objset, &format!("{}quota@", who.word()))?, |u, v, _| u.quota = v)?;
    add(quota_zap(objset, &format!("{}objquota@", who.word()))?, |u, v, _| u.object_quota = v)?;
    Ok(out)
}

/// Value of a property like `userused@1000`; the part behind the `@` must be a number here.
pub(super) fn property(pool: &Pool, ds: &Arc<Dataset>, name: &str) -> Result<Option<u64>> {
    let Some((what, id)) = name.split_once('@') else { return Ok(None) };
    let Ok(id) = id.parse::<u64>() else { return Ok(None) };
    let who = [Who::User, Who::Group, Who::Project].into_iter().find(|w| what.starts_with(w.word()));
    let Some(who) = who else { return Ok(None) };
    let objset = pool.open_objset(ds)?;
    if objset.phys().os_type != ObjsetType::Zfs {
        return Ok(None);
    }
    let of = |zap: Option<Zap>, key: String| -> Result<Option<u64>> {
        match zap {
            Some(zap) => Ok(Some(zap.lookup_u64(key.as_bytes())?.unwrap_or(0))),
            None => Ok(Some(0)),
        }
    };
    match what.strip_prefix(who.word()) {
        Some("used") => of(used_zap(&objset, who)?, format!("{id:x}")),
        Some("objused") => of(used_zap(&objset, who)?, format!("{OBJECT_PREFIX}{id:x}")),
        Some("quota" | "objquota") => of(quota_zap(&objset, &format!("{what}@"))?, format!("{id:x}")),
        _ => Ok(None),
    }
}
