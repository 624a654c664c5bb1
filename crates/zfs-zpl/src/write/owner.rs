//! Whose a file is, for the sums of users, groups and projects that a dataset keeps.
//!
//! The owner stands at a fixed place behind the header of a file's attributes: files are made with their attributes in
//! an order in which nothing of variable size comes before (`zpl_get_file_info`).

use std::sync::Arc;
use zfs_dmu::{Accounting, FileInfo, Objset, Result};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::objset::{
    OBJSET_FLAG_PROJECTQUOTA_COMPLETE, OBJSET_FLAG_USERACCOUNTING_COMPLETE, OBJSET_FLAG_USEROBJACCOUNTING_COMPLETE,
};
use zfs_phys::read::u64_at;
use zfs_phys::sa::SaHeader;
use zfs_phys::znode::ZFS_PROJID;

/// Places behind the header, bytes (`SA_UID_OFFSET` and so on).
const UID: usize = 24;
const GID: usize = 32;
const FLAGS: usize = 48;
const PROJID: usize = 128;
/// Places in an old znode, bytes.
const OLD_UID: usize = 128;
const OLD_GID: usize = 136;

/// Has the owners of files counted as the flags of the object set say. Sums that are not complete are left alone:
/// OpenZFS completes them when it mounts the dataset.
pub(crate) fn account(objset: &Arc<Objset>, flags: u64) -> Result<()> {
    if flags & OBJSET_FLAG_USERACCOUNTING_COMPLETE == 0 {
        return Ok(());
    }
    objset.set_accounting(Accounting {
        file_info: Box::new(owner_of),
        objects: flags & OBJSET_FLAG_USEROBJACCOUNTING_COMPLETE != 0,
        projects: flags & OBJSET_FLAG_PROJECTQUOTA_COMPLETE != 0,
    })
}

fn owner_of(bonus_type: Ot, bonus: &[u8], hint: Endian) -> Option<FileInfo> {
    if bonus_type == Ot::ZNODE {
        let word = |at: usize| u64_at(bonus, at, hint).unwrap_or(0);
        return Some(FileInfo { uid: word(OLD_UID), gid: word(OLD_GID), projid: 0 });
    }
    if bonus_type != Ot::SA {
        return None;
    }
    // A file whose attributes are not there yet is root's.
    let Ok(header) = SaHeader::decode(bonus, hint) else { return Some(FileInfo { uid: 0, gid: 0, projid: 0 }) };
    let word = |at: usize| u64_at(bonus, header.size + at, header.endian);
    let projid = if word(FLAGS)? & ZFS_PROJID != 0 { word(PROJID)? } else { 0 };
    Some(FileInfo { uid: word(UID)?, gid: word(GID)?, projid })
}
