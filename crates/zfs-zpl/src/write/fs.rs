//! A fresh file system in a fresh object set, and one that gets a newer version.

use super::Writer;
use super::create::{NewFile, Origin};
use crate::attr::MountOptions;
use crate::zfs::{ZPL_VERSION, Zfs};
use std::sync::Arc;
use zfs_dmu::sa::SaRegistry;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Objset, Zap};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::objset::OBJSET_FLAG_PROJECTQUOTA_COMPLETE;
use zfs_phys::zap::NORM_TOUPPER;
use zfs_phys::znode::MASTER_NODE_OBJ;
use zfs_zio::{Error, ErrorKind, Result};

/// Version from which on files have system attributes (`ZPL_VERSION_SA`).
const SYSTEM_ATTRIBUTES: u64 = 5;

/// What a file system is like for all its life.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewFilesystem {
    /// Whether names are UTF-8 only.
    pub utf8only: bool,
    /// Normalization flags of names (`zfs_phys::zap::NORM_*`), without case folding.
    pub normalization: u64,
    /// `casesensitivity`: 0 sensitive, 1 insensitive, 2 mixed.
    pub case: u64,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// Sums that are kept from the start: `OBJSET_FLAG_*_COMPLETE`.
    pub sums: u64,
    /// Version, 1 to 5; 0 stands for the newest.
    pub version: u64,
}

/// Fills a fresh object set: the master node, the tables it names, and the root directory.
///
/// # Errors
/// What changing objects meets.
pub fn create_fs(objset: &Arc<Objset>, tx: &Tx, writer: Writer, new: &NewFilesystem) -> Result<()> {
    objset.set_flags(tx, new.sums)?;
    super::owner::account(objset, new.sums)?;
    let master = Zap::claim(objset, tx, MASTER_NODE_OBJ, Ot::MASTER_NODE)?;
    let fold = if new.case == 0 { 0 } else { NORM_TOUPPER };
    for (name, value) in
        [("utf8only", u64::from(new.utf8only)), ("normalization", new.normalization), ("casesensitivity", new.case)]
    {
        master.add(tx, name.as_bytes(), &[value])?;
    }
    let version = if new.version == 0 { ZPL_VERSION } else { new.version };
    master.add(tx, b"VERSION", &[version])?;
    let attrs = if version >= SYSTEM_ATTRIBUTES { Zap::create(objset, tx, Ot::SA_MASTER_NODE, 0)? } else { 0 };
    if attrs != 0 {
        master.add(tx, b"SA_ATTRS", &[attrs])?;
    }
    let unlinked = Zap::create(objset, tx, Ot::UNLINKED_SET, 0)?;
    master.add(tx, b"DELETE_QUEUE", &[unlinked])?;
    let registry = Arc::new(SaRegistry::load_from(objset, attrs, version)?);
    let zfs = Zfs::unfinished(objset.clone(), registry, new.normalization | fold, MountOptions::default(), writer);
    let root = NewFile { mode: 0o040_755, uid: new.uid, gid: new.gid, ..NewFile::default() };
    // The root is its own parent, which is known only once it has a number: the first free one.
    let parent = objset.next_free_object()?;
    let origin = Origin {
        parent,
        xattr: false,
        projid: (attrs != 0 && new.sums & OBJSET_FLAG_PROJECTQUOTA_COMPLETE != 0).then_some(0),
        proj_inherit: false,
        links: 1,
    };
    let root = zfs.make_node(tx, &root, &origin)?;
    if root.object() != parent {
        return Err(Error::corrupt("the root directory of a fresh file system has another number"));
    }
    master.add(tx, b"ROOT", &[root.object()])
}

/// Gives a file system a newer version, as `zfs upgrade` does; it may be mounted. Files keep the form that they have until
/// they are changed. Gives the version that it had.
///
/// # Errors
/// `Invalid` for a version that is older or that there is not; what changing objects meets.
pub fn set_version(objset: &Arc<Objset>, tx: &Tx, version: u64) -> Result<u64> {
    let master = Zap::open(objset, MASTER_NODE_OBJ)?;
    let old = master.lookup_u64(b"VERSION")?.unwrap_or(1);
    if version < old || version > ZPL_VERSION {
        return Err(Error::new(ErrorKind::Invalid, format!("a file system of version {old} cannot get {version}")));
    }
    let mut attrs = master.lookup_u64(b"SA_ATTRS")?.unwrap_or(0);
    master.update(tx, b"VERSION", &[version])?;
    if version >= SYSTEM_ATTRIBUTES && attrs == 0 {
        attrs = Zap::create(objset, tx, Ot::SA_MASTER_NODE, 0)?;
        master.add(tx, b"SA_ATTRS", &[attrs])?;
    }
    objset.upgraded(version, attrs);
    Ok(old)
}
