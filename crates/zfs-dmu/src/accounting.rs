//! Space and objects by user, group and project.
//!
//! Each object whose descriptor is synced is taken out of the sums of its owners as it was and put into those as it is
//! now: 512 bytes for the descriptor plus what it uses, and one object. Flags in the descriptor tell whether it was
//! counted before, so that objects from times without accounting enter when they are first changed. The sums are kept
//! in three ZAPs that the header describes, under the numbers of the owners in hexadecimal, objects with a prefix.

use crate::liveset::{LiveObjset, ObjectSpec};
use crate::objset::{GROUPUSED_OBJECT, Objset, PROJECTUSED_OBJECT, USERUSED_OBJECT};
use crate::txg::Tx;
use crate::zap::{Zap, ZapSpec};
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_phys::Endian;
use zfs_phys::dnode::{DNODE_FLAG_USEROBJUSED_ACCOUNTED, DNODE_FLAG_USERUSED_ACCOUNTED, DNODE_SIZE, DnodePhys};
use zfs_phys::enums::DmuObjectType;
use zfs_zio::{ErrorKind, Result};

/// Prefix of the sums of objects (`DMU_OBJACCT_PREFIX`).
const OBJECTS: &str = "obj-";

/// Whose an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// User.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Project.
    pub projid: u64,
}

/// Tells whose an object is by type, bytes and byte order of its bonus buffer; nothing for objects that are nobody's.
pub type FileInfoFn = Box<dyn Fn(DmuObjectType, &[u8], Endian) -> Option<FileInfo> + Send + Sync>;

/// How an object set is accounted for.
pub struct Accounting {
    /// Whose an object is.
    pub file_info: FileInfoFn,
    /// Objects are counted too (feature `userobj_accounting`).
    pub objects: bool,
    /// Projects are (feature `project_quota`).
    pub projects: bool,
}

/// Changes of sums: by ZAP and name.
pub(crate) type Deltas = BTreeMap<(u64, String), i64>;

impl Accounting {
    /// Marks a descriptor as counted.
    pub(crate) fn mark(&self, phys: &mut DnodePhys) {
        phys.flags |= DNODE_FLAG_USERUSED_ACCOUNTED;
        if self.objects {
            phys.flags |= DNODE_FLAG_USEROBJUSED_ACCOUNTED;
        }
    }

    /// Puts a descriptor into the sums (`sign` 1) or takes it out (-1).
    pub(crate) fn count(&self, phys: &DnodePhys, sign: i64, deltas: &mut Deltas) {
        let Some(info) = (self.file_info)(phys.bonustype, &phys.bonus, phys.endian) else { return };
        let bytes = sign * (phys.used_bytes() as i64).saturating_add(DNODE_SIZE as i64);
        let mut add = |zap: u64, id: u64| {
            if phys.flags & DNODE_FLAG_USERUSED_ACCOUNTED != 0 {
                *deltas.entry((zap, format!("{id:x}"))).or_default() += bytes;
            }
            if phys.flags & DNODE_FLAG_USEROBJUSED_ACCOUNTED != 0 {
                *deltas.entry((zap, format!("{OBJECTS}{id:x}"))).or_default() += sign;
            }
        };
        add(USERUSED_OBJECT, info.uid);
        add(GROUPUSED_OBJECT, info.gid);
        if self.projects {
            add(PROJECTUSED_OBJECT, info.projid);
        }
    }
}

impl Objset {
    /// Has owners of objects accounted for from now on. Only the first call counts.
    pub fn set_accounting(&self, accounting: Accounting) -> Result<()> {
        let _ = self.live_set()?.accounting.set(accounting);
        Ok(())
    }

    /// Adds up what a sync changed. The ZAPs are made when there are none.
    pub(crate) fn store_deltas(self: &Arc<Self>, set: &Arc<LiveObjset>, tx: &Tx) -> Result<()> {
        let deltas = std::mem::take(&mut *set.deltas.lock());
        for ((object, name), delta) in deltas.into_iter().filter(|(_, delta)| *delta != 0) {
            let zap = match Zap::open(self, object) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let object_type = DmuObjectType::USERGROUP_USED;
                    let phys = ObjectSpec { object_type, ..ObjectSpec::default() }.phys()?;
                    let node = self.start_object(set, tx, object, phys)?;
                    Zap::init_with(self, tx, &node, &ZapSpec::default())?
                }
                other => other?,
            };
            zap.increment(tx, name.as_bytes(), delta)?;
        }
        Ok(())
    }
}
