//! Changing files: what every change needs, whichever kind it is.
//!
//! Life cycle: [`Zfs::mount_writable`] gives a file system a [`Writer`]; each change takes the locks of the objects it
//! touches, then a transaction, changes objects and attributes, drops the decoded attributes of what it changed, and
//! ends the transaction. Attributes are read back from the object, so there is one truth.
//!
//! Invariants: a directory's size is its entries plus two, its links two plus its subdirectories; a file without links
//! is in the unlinked set until its last user is gone, so that a crash cannot leak it. All checks come before the first
//! change, because a transaction has no way back.
//!
//! Lock order: object locks by stripe, in ascending order and each once; then the transaction. Nobody who holds a
//! transaction waits for an object lock: the txg could not end, and with it nobody's.
//!
//! Rejected: a lock in each decoded file. Files come and go from the cache; a fixed array of locks needs no owner.

mod access;
mod acl;
mod create;
mod data;
mod dir;
mod fs;
mod lists;
mod log;
pub(crate) mod owner;
mod replay;
mod setattr;
mod unlinked;
mod xattr;

pub use create::NewFile;
pub use data::Allocate;
pub use dir::RenameFlags;
pub use fs::{NewFilesystem, create_fs, set_version};
pub use log::{log_guid, open_log};
pub use setattr::SetAttr;
pub use xattr::XattrMode;

use crate::attr::Time;
use crate::zfs::Zfs;
use crate::znode::Znode;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::HashMap;
use std::sync::Arc;
use zfs_dmu::Dnode;
use zfs_dmu::sa::{SaHandle, ZplAttr};
use zfs_dmu::txg::{Tx, Txgs};
use zfs_dmu::zil::Zil;
use zfs_env::Clock;
use zfs_zio::{Error, ErrorKind, Result};

/// Locks that objects share; more than threads ever write at once.
const STRIPES: usize = 1024;
/// Longest name that every version of OpenZFS knows, bytes.
const LONG_NAME: usize = 255;
/// How many times its size a block may take, about: copies, and the padding of small blocks on raidz.
const WORST: u64 = 3;
/// What a change takes besides contents, about, bytes.
const OVERHEAD: u64 = 16 << 10;

/// What makes a file system writable.
pub struct Writer {
    txgs: Arc<Txgs>,
    clock: Arc<dyn Clock>,
    locks: Box<[RwLock<()>]>,
    /// How often each file is open; files that are not have no entry.
    open: Mutex<HashMap<u64, u32>>,
    /// Renames go one at a time: a directory must not move while another looks at its way up.
    renames: Mutex<()>,
    /// Files whose names and users are gone, which their transaction could not free.
    orphans: Mutex<Vec<u64>>,
    /// Whether there are quotas of owners, as of a txg on disk.
    quotas: Mutex<Option<(u64, bool)>>,
    /// The intent log, if changes can be made durable before their txg is.
    log: Option<Arc<Zil>>,
    /// What the next new file has to be like, while a log is replayed.
    given: Mutex<Option<log::Given>>,
}

impl Writer {
    /// A writer whose changes go into the txgs of `txgs`, with times of `clock`.
    pub fn new(txgs: Arc<Txgs>, clock: Arc<dyn Clock>) -> Self {
        let locks = (0..STRIPES).map(|_| RwLock::new(())).collect();
        Self {
            txgs,
            clock,
            locks,
            open: Mutex::default(),
            renames: Mutex::default(),
            orphans: Mutex::default(),
            quotas: Mutex::default(),
            log: None,
            given: Mutex::default(),
        }
    }

    /// The same with an intent log, which mounting replays first.
    #[must_use]
    pub fn with_log(self, log: Arc<Zil>) -> Self {
        Self { log: Some(log), ..self }
    }
}

/// Exclusive use of some objects.
pub(crate) struct Locked<'a> {
    _guards: Vec<RwLockWriteGuard<'a, ()>>,
}

/// Attributes to store, in order.
pub(crate) type Attrs = Vec<(ZplAttr, Vec<u8>)>;

pub(crate) fn word(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub(crate) fn stamp(t: Time) -> Vec<u8> {
    [t.sec.to_le_bytes(), u64::from(t.nsec).to_le_bytes()].concat()
}

impl Zfs {
    pub(crate) fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| Error::new(ErrorKind::ReadOnly, "changing a read-only file system"))
    }

    /// Whether it can be changed.
    pub fn is_writable(&self) -> bool {
        self.writer.is_some()
    }

    /// The time that changes get.
    pub fn now(&self) -> Result<Time> {
        let now = self.writer()?.clock.now();
        Ok(Time { sec: now.as_secs() as i64, nsec: now.subsec_nanos() })
    }

    /// Starts a transaction; waits while too much is unwritten.
    pub(crate) fn begin(&self) -> Result<Tx> {
        self.begin_for(0)
    }

    /// Starts a transaction that writes `bytes` of contents.
    pub(crate) fn begin_for(&self, bytes: u64) -> Result<Tx> {
        let need = bytes.saturating_mul(WORST).saturating_add(OVERHEAD);
        // What the log says had space once.
        self.objset().assign(&self.writer()?.txgs, need, self.is_replaying())
    }

    /// Fails when the owner of what is to be written has reached a quota. Whether there are any is looked up once a txg.
    pub(crate) fn within_quotas(&self, owner: (u32, u32, u64), objects: bool) -> Result<()> {
        let writer = self.writer()?;
        let txg = writer.txgs.synced_txg();
        let known = *writer.quotas.lock();
        let any = match known {
            Some((at, any)) if at == txg => any,
            _ => {
                let any = self.has_quotas()?;
                *writer.quotas.lock() = Some((txg, any));
                any
            }
        };
        if any && !self.is_replaying() { self.check_quotas(owner.0, owner.1, owner.2, objects) } else { Ok(()) }
    }

    /// Starts a transaction that frees more than it takes: it also works where nothing fits any more.
    pub(crate) fn begin_freeing(&self) -> Result<Tx> {
        self.objset().assign(&self.writer()?.txgs, OVERHEAD, true)
    }

    /// Locks objects against each other's changes.
    pub(crate) fn lock(&self, objects: &[u64]) -> Result<Locked<'_>> {
        let writer = self.writer()?;
        let mut stripes: Vec<usize> = objects.iter().map(|o| stripe(*o)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        Ok(Locked { _guards: stripes.into_iter().filter_map(|s| writer.locks.get(s)).map(RwLock::write).collect() })
    }

    /// Keeps an object as it is while it is read.
    pub(crate) fn lock_shared(&self, object: u64) -> Option<RwLockReadGuard<'_, ()>> {
        self.writer.as_ref()?.locks.get(stripe(object)).map(RwLock::read)
    }

    /// Stores attributes of a file and forgets the decoded ones.
    pub(crate) fn set_attrs(&self, tx: &Tx, dnode: &Arc<Dnode>, attrs: &Attrs) -> Result<()> {
        SaHandle::open(self.registry(), dnode)?.update(tx, self.objset(), attrs)?;
        self.cache.remove(dnode.object());
        Ok(())
    }

    /// The file as it is now. Fails with [`ErrorKind::NotFound`] when it has been removed.
    pub(crate) fn living(&self, object: u64) -> Result<Arc<Znode>> {
        let znode = self.znode(object)?;
        if znode.attr().nlink == 0 {
            return Err(Error::not_found("changing a file that was removed"));
        }
        Ok(znode)
    }

    /// Fails when flags forbid changing what the file holds; `append` says that it only grows.
    pub(crate) fn check_flags(&self, znode: &Znode, append: bool) -> Result<()> {
        use zfs_phys::znode::{ZFS_APPENDONLY, ZFS_IMMUTABLE, ZFS_READONLY};
        let flags = znode.flags();
        let forbidden =
            if append { ZFS_IMMUTABLE | ZFS_READONLY } else { ZFS_IMMUTABLE | ZFS_READONLY | ZFS_APPENDONLY };
        if flags & forbidden != 0 {
            return Err(Error::new(ErrorKind::Permission, "changing a file that its flags protect"));
        }
        Ok(())
    }

    /// Fails when the dataset cannot hold such a name.
    pub(crate) fn check_name(&self, name: &[u8]) -> Result<()> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(Error::invalid("making a name that is none"));
        }
        let longest = if self.options().longname { 1023 } else { LONG_NAME };
        if name.len() > longest {
            return Err(Error::new(ErrorKind::NameTooLong, "making a name"));
        }
        if name.len() > LONG_NAME {
            self.objset().uses(zfs_phys::feature::Feature::Longname)?;
        }
        if self.utf8only() && std::str::from_utf8(name).is_err() {
            return Err(Error::new(ErrorKind::IllegalSequence, "making a name that is not UTF-8"));
        }
        Ok(())
    }
}

fn stripe(object: u64) -> usize {
    (object.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize % STRIPES
}
