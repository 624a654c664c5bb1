//! Noting changes in the intent log, as OpenZFS would note them (module/zfs/zfs_log.c), so that either can replay them.
//!
//! Each change calls its function here within its transaction and under its locks, which puts the notes of one object
//! into the order of its changes. While a log is replayed nothing is noted: the change counts as replayed instead.
//!
//! Nothing is noted of files without names, which a crash removes anyway, nor of attributes of such files.

use super::SetAttr;
use crate::attr::{FileKind, Time};
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::sa::{SaHandle, ZplAttr as A};
use zfs_dmu::txg::{Tx, Txgs};
use zfs_dmu::zil::Zil;
use zfs_dmu::{Dnode, Objset, SyncMode};
use zfs_env::Rng;
use zfs_phys::zil::{Attrs, Create, RecordBody, Rename, SetAttr as SetAttrRecord, Whiteout};
use zfs_phys::znode as flag;
use zfs_zio::{Error, Result};

/// Numbers of records (`TX_*`, include/sys/zil.h).
pub(super) mod tx {
    pub const CREATE: u64 = 1;
    pub const MKDIR: u64 = 2;
    pub const MKXATTR: u64 = 3;
    pub const SYMLINK: u64 = 4;
    pub const REMOVE: u64 = 5;
    pub const RMDIR: u64 = 6;
    pub const LINK: u64 = 7;
    pub const RENAME: u64 = 8;
    pub const TRUNCATE: u64 = 10;
    pub const SETATTR: u64 = 11;
    pub const WRITE2: u64 = 20;
    pub const SETSAXATTR: u64 = 21;
    pub const EXCHANGE: u64 = 22;
    pub const WHITEOUT: u64 = 23;
}

/// Bits of a change of attributes (`ATTR_*` of Linux's include/linux/fs.h).
pub(super) mod set {
    pub const MODE: u64 = 1;
    pub const UID: u64 = 2;
    pub const GID: u64 = 4;
    pub const SIZE: u64 = 8;
    pub const ATIME: u64 = 16;
    pub const MTIME: u64 = 32;
    pub const CTIME: u64 = 64;
    pub const XVATTR: u64 = 1 << 31;
}

/// Bit of a record's optional attributes that says it has a project id (`XAT0_PROJID`).
pub(super) const HAS_PROJID: u32 = 0x4_0000;
/// Words of the bitmap of optional attributes (`XVA_MAPSIZE`).
const MAP_WORDS: usize = 3;
/// Flags of files and their bits in a record's optional attributes (`XAT0_*`, include/sys/xvattr.h).
pub(super) const FLAG_BITS: [(u64, u32); 14] = [
    (flag::ZFS_ARCHIVE, 0x2),
    (flag::ZFS_SYSTEM, 0x4),
    (flag::ZFS_READONLY, 0x8),
    (flag::ZFS_HIDDEN, 0x10),
    (flag::ZFS_NOUNLINK, 0x20),
    (flag::ZFS_IMMUTABLE, 0x40),
    (flag::ZFS_APPENDONLY, 0x80),
    (flag::ZFS_NODUMP, 0x100),
    (flag::ZFS_AV_QUARANTINED, 0x400),
    (flag::ZFS_AV_MODIFIED, 0x800),
    (flag::ZFS_REPARSE, 0x2000),
    (flag::ZFS_OFFLINE, 0x8000),
    (flag::ZFS_SPARSE, 0x1_0000),
    (flag::ZFS_PROJINHERIT, 0x2_0000),
];

/// What a new file is to be like that is made by a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) object: u64,
    pub(super) slots: u8,
    pub(super) mode: u32,
    pub(super) generation: u64,
    pub(super) time: Time,
}

/// Random words that tell the chains of one log from all others.
///
/// # Errors
/// When there is no randomness to be had.
pub fn log_guid() -> Result<[u64; 2]> {
    let random = zfs_env::SystemRng::new().map_err(Error::from)?;
    Ok([random.guid(), random.guid()])
}

/// Opens the intent log of a file system that is opened for writing.
///
/// # Errors
/// When there is no randomness to be had, or the object set is not writable.
pub fn open_log(objset: &Arc<Objset>, txgs: &Arc<Txgs>) -> Result<Arc<Zil>> {
    Zil::open(objset, txgs, log_guid()?)
}

fn raw(t: Time) -> [u64; 2] {
    [t.sec as u64, u64::from(t.nsec)]
}

impl Zfs {
    fn log(&self) -> Option<&Arc<Zil>> {
        self.writer.as_ref()?.log.as_ref()
    }

    /// Whether changes are those of records.
    pub(super) fn is_replaying(&self) -> bool {
        self.log().is_some_and(|log| log.is_replaying())
    }

    /// What a file that is being made must be like; nothing for one that a caller makes.
    pub(super) fn given(&self) -> Option<Given> {
        self.writer.as_ref()?.given.lock().take()
    }

    /// Returns once what was changed before is on stable storage: all names, and what `object` holds (every file, when
    /// there is none).
    ///
    /// # Errors
    /// When the pool stopped writing.
    pub fn commit(&self, object: Option<u64>) -> Result<()> {
        match self.log() {
            Some(log) => log.commit(object),
            None => self.writer()?.txgs.wait_synced(0),
        }
    }

    /// [`Zfs::commit`], where every change is to be durable when it returns (`sync=always`).
    ///
    /// # Errors
    /// As [`Zfs::commit`].
    pub fn commit_always(&self, object: Option<u64>) -> Result<()> {
        match self.log() {
            Some(log) if log.policy().sync == SyncMode::Always => log.commit(object),
            _ => Ok(()),
        }
    }

    /// Returns once a change that no record tells is on stable storage, unless nobody wants to wait. Not to be called
    /// within a transaction.
    pub(super) fn wait_for_txg(&self, txg: u64) -> Result<()> {
        match self.log() {
            Some(log) if log.policy().sync == SyncMode::Disabled => Ok(()),
            _ => self.writer()?.txgs.wait_synced(txg),
        }
    }

    /// Whether a file with its attributes goes with the next crash: itself or, for an attribute, the file that has it,
    /// has no name.
    fn is_lost(&self, znode: &Znode) -> bool {
        if znode.flags() & flag::ZFS_XATTR == 0 {
            return znode.attr().nlink == 0;
        }
        self.znode(znode.parent()).map_or(true, |owner| match owner.flags() & flag::ZFS_XATTR {
            0 => owner.attr().nlink == 0,
            _ => self.znode(owner.parent()).map_or(true, |file| file.attr().nlink == 0),
        })
    }

    /// Notes a new file with its first name.
    pub(super) fn log_create(&self, tx: &Tx, dir: &Znode, name: &[u8], dnode: &Arc<Dnode>) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        if log.replaying(tx) || self.is_lost(dir) {
            return Ok(());
        }
        let znode = self.znode(dnode.object())?;
        let attr = znode.attr();
        let target = match attr.kind() {
            Some(FileKind::Symlink) => Some(znode.symlink(self.registry())?),
            _ => None,
        };
        let in_xattr_dir = dir.flags() & flag::ZFS_XATTR != 0;
        let txtype = match attr.kind() {
            Some(FileKind::Symlink) => tx::SYMLINK,
            Some(FileKind::Directory) if znode.flags() & flag::ZFS_XATTR != 0 && !in_xattr_dir => tx::MKXATTR,
            Some(FileKind::Directory) => tx::MKDIR,
            _ => tx::CREATE,
        };
        let new = self.made(dnode, &znode)?;
        let create = Create {
            dir: dir.dnode().object(),
            object: new.object,
            slots: new.slots,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            gen_: new.gen_,
            crtime: new.crtime,
            rdev: new.rdev,
            attrs: None,
            aces: None,
            acl_flags: 0,
            fuids: Vec::new(),
            domains: Vec::new(),
            name,
            target: target.as_deref(),
        };
        log.log(tx, txtype, None, RecordBody::Create(Box::new(create)));
        Ok(())
    }

    /// What records tell of a file that was just made.
    fn made(&self, dnode: &Arc<Dnode>, znode: &Znode) -> Result<Whiteout> {
        let sa = SaHandle::open(self.registry(), dnode)?;
        let attr = znode.attr();
        Ok(Whiteout {
            object: dnode.object(),
            slots: dnode.phys().slots() as u8,
            mode: u64::from(attr.mode),
            uid: u64::from(attr.uid),
            gid: u64::from(attr.gid),
            gen_: sa.require_u64(A::Gen)?,
            crtime: raw(attr.btime),
            rdev: sa.get_u64(A::Rdev)?.unwrap_or(0),
        })
    }

    /// Notes that a name is gone; `object` had it.
    pub(super) fn log_remove(&self, tx: &Tx, dir: &Znode, name: &[u8], object: u64, rmdir: bool) {
        let Some(log) = self.log() else { return };
        if log.replaying(tx) || self.is_lost(dir) {
            return;
        }
        // Without any name left it goes, and its number may be given to another file.
        if self.znode(object).map_or(true, |znode| znode.attr().nlink == 0) {
            log.forget(object);
        }
        let body = RecordBody::Remove { dir: dir.dnode().object(), name };
        log.log(tx, if rmdir { tx::RMDIR } else { tx::REMOVE }, None, body);
    }

    /// Notes one more name of a file.
    pub(super) fn log_link(&self, tx: &Tx, dir: u64, object: u64, name: &[u8]) {
        if let Some(log) = self.log() {
            log.log(tx, tx::LINK, None, RecordBody::Link { dir, object, name });
        }
    }

    /// Notes another name of a file; `replaced` had that before, and `exchange` says that it has the old one now.
    pub(super) fn log_rename(
        &self,
        tx: &Tx,
        (src_dir, src, object): (u64, &[u8], u64),
        (dst_dir, dst, replaced): (u64, &[u8], Option<u64>),
        exchange: bool,
    ) {
        let Some(log) = self.log() else { return };
        log.settle(object);
        match replaced {
            Some(other) if exchange => log.settle(other),
            Some(old) if self.znode(old).map_or(true, |znode| znode.attr().nlink == 0) => log.forget(old),
            _ => {}
        }
        let body = RecordBody::Rename(Rename { src_dir, dst_dir, src, dst });
        log.log(tx, if exchange { tx::EXCHANGE } else { tx::RENAME }, None, body);
    }

    /// Notes another name of a file whose old one went to a fresh device.
    pub(super) fn log_whiteout(
        &self,
        tx: &Tx,
        (src_dir, src, object): (u64, &[u8], u64),
        (dst_dir, dst, replaced): (u64, &[u8], Option<u64>),
        device: &Arc<Dnode>,
    ) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        log.settle(object);
        if let Some(old) = replaced
            && self.znode(old).map_or(true, |znode| znode.attr().nlink == 0)
        {
            log.forget(old);
        }
        let left = self.made(device, &*self.znode(device.object())?)?;
        let body = RecordBody::RenameWhiteout(Rename { src_dir, dst_dir, src, dst }, left);
        log.log(tx, tx::WHITEOUT, None, body);
        Ok(())
    }

    /// Notes that bytes of a file were written.
    pub(super) fn log_write(&self, tx: &Tx, znode: &Znode, offset: u64, len: u64) {
        let Some(log) = self.log() else { return };
        if log.replaying(tx) || self.is_lost(znode) || len == 0 {
            return;
        }
        let object = znode.dnode().object();
        log.log_write(tx, object, offset, len);
        // Attributes are made durable with whatever is: nobody opens them to ask for it.
        if znode.flags() & flag::ZFS_XATTR != 0 {
            log.settle(object);
        }
    }

    /// Notes that bytes of a file were freed; `length` 0 sets the size to `offset`.
    pub(super) fn log_truncate(&self, tx: &Tx, znode: &Znode, offset: u64, length: u64) {
        let Some(log) = self.log() else { return };
        if log.replaying(tx) || self.is_lost(znode) {
            return;
        }
        let object = znode.dnode().object();
        log.log(tx, tx::TRUNCATE, Some(object), RecordBody::Truncate { object, offset, length });
    }

    /// Notes changed attributes.
    pub(super) fn log_setattr(&self, tx: &Tx, znode: &Znode, what: &SetAttr, now: Time) {
        let Some(log) = self.log() else { return };
        if log.replaying(tx) || znode.attr().nlink == 0 {
            return;
        }
        let object = znode.dnode().object();
        let mtime = what.mtime.or(what.size.map(|_| now));
        let bit = |there: bool, bit: u64| if there { bit } else { 0 };
        let optional = what.flags.is_some() || what.projid.is_some();
        let mask = bit(what.mode.is_some(), set::MODE)
            | bit(what.uid.is_some(), set::UID)
            | bit(what.gid.is_some(), set::GID)
            | bit(what.size.is_some(), set::SIZE)
            | bit(what.atime.is_some(), set::ATIME)
            | bit(mtime.is_some(), set::MTIME)
            | bit(optional, set::XVATTR)
            | set::CTIME;
        let mode = (znode.attr().mode & !0o7777) | (what.mode.unwrap_or(0) & 0o7777);
        let record = SetAttrRecord {
            object,
            mask,
            mode: u64::from(mode),
            uid: u64::from(what.uid.unwrap_or(0)),
            gid: u64::from(what.gid.unwrap_or(0)),
            size: what.size.unwrap_or(0),
            atime: what.atime.map_or([0; 2], raw),
            mtime: mtime.map_or([0; 2], raw),
            attrs: optional.then(|| optional_attributes(what)),
        };
        log.log(tx, tx::SETATTR, Some(object), RecordBody::SetAttr(Box::new(record)));
    }

    /// Notes that an extended attribute kept with its file was set or (without a value) removed.
    pub(super) fn log_xattr(&self, tx: &Tx, znode: &Znode, name: &[u8], value: Option<&[u8]>) {
        let Some(log) = self.log() else { return };
        if log.replaying(tx) || znode.attr().nlink == 0 {
            return;
        }
        let object = znode.dnode().object();
        // An empty value means removal in a record.
        if !log.policy().xattrs || value.is_some_and(<[u8]>::is_empty) {
            return log.log_unknown(tx, Some(object));
        }
        let body = RecordBody::SetSaXattr { object, name, value: value.unwrap_or_default() };
        log.log(tx, tx::SETSAXATTR, Some(object), body);
    }
}

fn optional_attributes(what: &SetAttr) -> Attrs {
    let mut mask = vec![0u32; MAP_WORDS];
    let (mut asked, mut attrs) = (0u32, 0u64);
    let (on, off) = what.flags.unwrap_or((0, 0));
    for (flag, bit) in FLAG_BITS {
        if (on | off) & flag != 0 {
            asked |= bit;
        }
        if on & flag != 0 {
            attrs |= u64::from(bit);
        }
    }
    let mut scanstamp = [0; 32];
    if let Some(projid) = what.projid {
        asked |= HAS_PROJID;
        for (to, from) in scanstamp.iter_mut().zip(projid.to_ne_bytes()) {
            *to = from;
        }
    }
    if let Some(first) = mask.first_mut() {
        *first = asked;
    }
    Attrs { mask, attrs, crtime: [0; 2], scanstamp }
}
