//! Times of access: kept as the mount says, when a front end tells that something was read.
//!
//! What a kernel serves from its own cache nobody tells us, so such reads leave no trace.

use super::stamp;
use crate::attr::{Atime, Time};
use crate::zfs::Zfs;
use zfs_dmu::sa::ZplAttr as A;
use zfs_zio::Result;

/// With `relatime`, a time of access is brought up to date at least this often, seconds.
const RELATIME_AGE: i64 = 24 * 3600;

impl Zfs {
    /// Notes that an object was read now. Failing to is no error.
    pub(crate) fn accessed(&self, object: u64) {
        if !self.is_writable() || self.options().atime == Atime::Off {
            return;
        }
        if let Err(e) = self.note_access(object) {
            tracing::debug!(objset = self.objset_id(), object, "noting an access: {e}");
        }
    }

    fn note_access(&self, object: u64) -> Result<()> {
        let now = self.now()?;
        if !self.is_due(object, now)? {
            return Ok(());
        }
        let _locked = self.lock(&[object])?;
        // Somebody else may have noted it.
        if !self.is_due(object, now)? {
            return Ok(());
        }
        let tx = self.begin()?;
        self.set_attrs(&tx, self.znode(object)?.dnode(), &vec![(A::Atime, stamp(now))])
    }

    fn is_due(&self, object: u64, now: Time) -> Result<bool> {
        let znode = self.znode(object)?;
        let a = znode.attr();
        Ok(match self.options().atime {
            Atime::Off => false,
            Atime::On => a.atime != now,
            Atime::Relative => a.atime <= a.mtime || a.atime <= a.ctime || now.sec - a.atime.sec >= RELATIME_AGE,
        })
    }
}
