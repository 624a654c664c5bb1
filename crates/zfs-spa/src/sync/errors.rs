//! The pool's error logs: which blocks could not be read, kept over exports (module/zfs/spa_errlog.c).
//!
//! What is met while a scrub runs goes to the scrub's log, everything else to that of the last scrub. When a scrub has
//! ended its log becomes the last one and the one before goes: so an error is forgotten when a whole scrub did not meet it
//! again. With the feature `head_errlog` a log has a table for each file system, whose names say when the block was
//! written, so that one entry tells of all snapshots that share it.

use super::Spa;
use crate::config::POOL_DIRECTORY;
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Objset, Result, Zap};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::errlog::ErrorKey;
use zfs_phys::feature::Feature;
use zfs_zio::Zbookmark;

/// Entries of the pool directory: the log of the last scrub, and of the one that runs.
const LAST: &[u8] = b"errlog_last";
const SCRUB: &[u8] = b"errlog_scrub";
/// An entry's value: a name that nothing is said about, with its end.
const NO_NAME: &[u8] = &[0];

impl Spa {
    /// In a sync: stores the errors met since the last one.
    pub(super) fn sync_errors(&self, tx: &Tx) -> Result<()> {
        let fresh = self.zio.errors().take_unstored();
        if fresh.is_empty() {
            return Ok(());
        }
        let which = if self.is_scrubbing() { SCRUB } else { LAST };
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        let log = match directory.lookup_u64(which)?.filter(|o| *o != 0) {
            Some(object) => object,
            None => {
                let object = Zap::create(&self.mos, tx, Ot::ERROR_LOG, 0)?;
                directory.update(tx, which, &[object])?;
                object
            }
        };
        let log = Zap::open(&self.mos, log)?;
        fresh.iter().try_for_each(|(bm, birth)| self.store_error(tx, &log, bm, *birth))
    }

    fn store_error(&self, tx: &Tx, log: &Zap, bm: &Zbookmark, birth: u64) -> Result<()> {
        let key = ErrorKey { objset: bm.objset, object: bm.object, level: bm.level, blkid: bm.blkid, birth };
        if !self.ops.is_enabled(Feature::HeadErrlog) {
            return log.update_ints(tx, key.name().as_bytes(), 1, NO_NAME);
        }
        let head = match bm.objset {
            0 => 0,
            // One that is gone by now is named itself.
            id => self.dsl.dataset(id).map_or(id, |ds| ds.dir().phys().head_dataset_obj),
        };
        let name = format!("{head:x}");
        let table = match log.lookup_u64(name.as_bytes())? {
            Some(table) => table,
            None => {
                let table = Zap::create(&self.mos, tx, Ot::ERROR_LOG, 0)?;
                log.update(tx, name.as_bytes(), &[table])?;
                table
            }
        };
        Zap::open(&self.mos, table)?.update_ints(tx, key.head_name().as_bytes(), 1, NO_NAME)
    }

    /// In a sync: the feature `head_errlog` was enabled. What the logs name by object set they name by file system and birth
    /// from now on.
    pub(super) fn sort_errors_by_head(&self, tx: &Tx) -> Result<()> {
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        for which in [LAST, SCRUB] {
            let Some(old) = directory.lookup_u64(which)?.filter(|o| *o != 0) else { continue };
            let mut keys = Vec::new();
            for entry in Zap::open(&self.mos, old)?.iter() {
                keys.extend(ErrorKey::from_name(entry?.name()));
            }
            delete_log(&self.mos, tx, old, false)?;
            let object = Zap::create(&self.mos, tx, Ot::ERROR_LOG, 0)?;
            directory.update(tx, which, &[object])?;
            let log = Zap::open(&self.mos, object)?;
            for key in keys {
                let bm = Zbookmark::new(key.objset, key.object, key.level, key.blkid);
                self.store_error(tx, &log, &bm, self.birth_of(&key))?;
            }
        }
        Ok(())
    }

    /// When a block was written; 0 when that cannot be found out any more.
    fn birth_of(&self, key: &ErrorKey) -> u64 {
        let found = || {
            let level = u8::try_from(key.level).unwrap_or(0);
            let objset = match key.objset {
                0 => self.mos.clone(),
                id => self.dsl.open_objset(&self.dsl.dataset(id)?)?,
            };
            objset.dnode(key.object)?.blkptr_of(level, key.blkid)
        };
        found().ok().flatten().map_or(0, |bp| bp.birth())
    }

    /// In a sync: a scrub has visited everything. What it met is what is wrong.
    pub(super) fn rotate_errors(&self, tx: &Tx) -> Result<()> {
        self.sync_errors(tx)?;
        self.zio.errors().scrub_ended();
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        let of = |which| Ok::<_, zfs_zio::Error>(directory.lookup_u64(which)?.unwrap_or(0));
        let (last, scrub) = (of(LAST)?, of(SCRUB)?);
        if (last, scrub) == (0, 0) {
            return Ok(());
        }
        if last != 0 {
            delete_log(&self.mos, tx, last, self.ops.is_enabled(Feature::HeadErrlog))?;
        }
        directory.update(tx, LAST, &[scrub])?;
        directory.update(tx, SCRUB, &[0])
    }
}

/// Frees a log and the tables in it.
fn delete_log(mos: &Arc<Objset>, tx: &Tx, log: u64, by_head: bool) -> Result<()> {
    if by_head {
        for entry in Zap::open(mos, log)?.iter() {
            mos.free_object(tx, entry?.value.first())?;
        }
    }
    mos.free_object(tx, log)
}
