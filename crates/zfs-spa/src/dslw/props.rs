//! Properties, quotas and reservations that are set.
//!
//! A property stands in the directory's table (a snapshot's in its own) under its name: a word or a string. What a
//! receive brought stands under `NAME$recvd`; `NAME$inherit` says that a received value does not count.

use super::dataset::{SPA_OLD_MAXBLOCKSIZE, feature_of};
use super::policy::COMPRESS_BITS;
use super::{DatasetState, DirState, DslPool, Sums, UsedBy, mosw};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::field;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType as Ot, ObjsetType};
use zfs_phys::feature::Feature;
use zfs_zio::{Error, ErrorKind};

/// Object of a file system's master node.
const MASTER_NODE: u64 = 1;

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewValue {
    /// A number, or the index of a word.
    Number(u64),
    /// Text.
    Text(String),
    /// None: as the parent, or the default.
    Inherit,
    /// What was received, if anything.
    Received,
}

/// The feature without which a property cannot have a value.
fn needed(name: &str, number: u64) -> Option<Feature> {
    match name {
        "compression" => match CompressKind::from_raw((number & ((1 << COMPRESS_BITS) - 1)) as u8)? {
            CompressKind::Lz4 => Some(Feature::Lz4Compress),
            CompressKind::Zstd => Some(Feature::ZstdCompress),
            _ => None,
        },
        "checksum" => feature_of(ChecksumKind::from_raw((number & 0xff) as u8)?),
        "recordsize" | "volblocksize" => (number > SPA_OLD_MAXBLOCKSIZE).then_some(Feature::LargeBlocks),
        "dnodesize" => (number != 0).then_some(Feature::LargeDnode),
        _ => None,
    }
}

impl DslPool {
    /// Whether the pool has the features that values of properties need; to be asked before any is set.
    ///
    /// # Errors
    /// `Unsupported`, in OpenZFS's words.
    pub fn check_values(&self, values: &[(String, NewValue)]) -> Result<()> {
        let missing = |(name, value): &&(String, NewValue)| match value {
            NewValue::Number(n) => needed(name, *n).is_some_and(|f| !self.ops.feature_enabled(f)),
            _ => false,
        };
        match values.iter().find(missing) {
            Some(_) => Err(Error::unsupported("pool and or dataset must be upgraded to set this property or value")),
            None => Ok(()),
        }
    }

    /// Sets a local value, or takes it away. Numbers that the engine itself obeys (reservations, quotas) take effect.
    ///
    /// # Errors
    /// Whatever writing the table meets.
    pub fn set_prop(&self, tx: &Tx, ds: &Arc<DatasetState>, name: &str, value: &NewValue) -> Result<()> {
        let number = match value {
            NewValue::Number(n) => *n,
            _ => 0,
        };
        match name {
            "quota" => {
                self.set_quota(tx, &ds.dir(), number, value)?;
                return self.log_prop(tx, ds, name, value);
            }
            "reservation" => self.set_reservation(&ds.dir(), number)?,
            "refreservation" => self.set_refreservation(ds, number)?,
            "refquota" => ds.inner.lock().quota = number,
            _ => {}
        }
        if let Some((what, who)) = name.split_once('@').filter(|(what, _)| what.ends_with("quota")) {
            return self.set_quota_of(tx, ds, what, who, number);
        }
        if matches!(name, "filesystem_limit" | "snapshot_limit") && number != u64::MAX {
            self.start_counts(tx, &ds.dir())?;
        }
        let zap = self.props_zap(tx, ds, value)?;
        if zap == 0 {
            return Ok(());
        }
        self.store_prop(tx, zap, name, value)?;
        self.log_prop(tx, ds, name, value)?;
        self.reload_policies()
    }

    fn log_prop(&self, tx: &Tx, ds: &DatasetState, name: &str, value: &NewValue) -> Result<()> {
        let (event, shown) = match value {
            NewValue::Number(n) => ("set", n.to_string()),
            NewValue::Text(text) => ("set", text.clone()),
            NewValue::Inherit | NewValue::Received => ("inherit", String::new()),
        };
        let text = format!("{name}={shown}");
        match ds.phys().is_snapshot() {
            true => {
                let head = self.dataset(ds.dir().phys().head_dataset_obj)?;
                self.log_of_snap(tx, event, ds, &self.snap_name(&head, ds.object)?, &text)
            }
            false => self.log_of(tx, event, ds, &text),
        }
    }

    /// Limits what a user, group or project may use: `userquota`, `groupobjquota` and so on, by numeric id.
    ///
    /// # Errors
    /// `NotFound` for an id that is no number, `Invalid` for what is no file system.
    pub fn set_quota_of(&self, tx: &Tx, ds: &Arc<DatasetState>, what: &str, who: &str, quota: u64) -> Result<()> {
        let id: u64 = who.parse().map_err(|_| Error::not_found("limiting the space of somebody unknown"))?;
        let objset = self.open_objset(ds)?;
        if objset.phys().os_type != ObjsetType::Zfs {
            return Err(Error::invalid("limiting users of what is no file system"));
        }
        let master = Zap::open(&objset, MASTER_NODE)?;
        let name = format!("{what}@");
        let table = match master.lookup_u64(name.as_bytes())? {
            Some(table) => table,
            None if quota == 0 => return Ok(()),
            None => {
                let table = Zap::create(&objset, tx, Ot::USERGROUP_QUOTA, 0)?;
                master.add(tx, name.as_bytes(), &[table])?;
                table
            }
        };
        let (table, key) = (Zap::open(&objset, table)?, format!("{id:x}"));
        match quota {
            0 if table.lookup_u64(key.as_bytes())?.is_none() => Ok(()),
            0 => table.remove(tx, key.as_bytes()),
            quota => table.update(tx, key.as_bytes(), &[quota]),
        }
    }

    /// File systems and snapshots in `dir` and below are counted from now on. Gives both counts.
    fn start_counts(&self, tx: &Tx, dir: &Arc<DirState>) -> Result<[u64; 2]> {
        if !self.ops.feature_active(Feature::FilesystemLimits) {
            self.ops.feature_add(tx, Feature::FilesystemLimits, 1)?;
        }
        self.zapify(tx, dir.object)?;
        if let Some(known) = mosw::zap_get(&self.mos, dir.object, field::FILESYSTEM_COUNT)? {
            return Ok([known, mosw::zap_get(&self.mos, dir.object, field::SNAPSHOT_COUNT)?.unwrap_or(0)]);
        }
        let mut counts = [0u64; 2];
        let phys = dir.phys();
        for entry in Zap::open(&self.mos, phys.child_dir_zapobj)?.iter() {
            let entry = entry?;
            if !entry.name().starts_with(b"$") {
                let below = self.start_counts(tx, &self.dir(entry.value.first())?)?;
                counts = [counts[0] + 1 + below[0], counts[1] + below[1]];
            }
        }
        let names = self.dataset(phys.head_dataset_obj)?.phys().snapnames_zapobj;
        for entry in Zap::open(&self.mos, names)?.iter() {
            counts[1] += u64::from(!entry?.name().starts_with(b"%"));
        }
        mosw::zap_add(&self.mos, tx, dir.object, field::FILESYSTEM_COUNT, counts[0])?;
        mosw::zap_add(&self.mos, tx, dir.object, field::SNAPSHOT_COUNT, counts[1])?;
        Ok(counts)
    }

    /// Whether `bytes` that move from one directory to another fit the quotas above the new place that are not above
    /// the old one, too.
    pub(super) fn room_for(&self, to: &Arc<DirState>, from: &Arc<DirState>, bytes: i64) -> Result<()> {
        let mut above = Vec::new();
        let mut at = Some(from.clone());
        while let Some(dir) = at {
            above.push(dir.object);
            at = dir.parent();
        }
        let mut at = Some(to.clone());
        while let Some(dir) = at.filter(|d| !above.contains(&d.object)) {
            let phys = dir.phys();
            if phys.quota != 0 && phys.used_bytes.saturating_add_signed(bytes) > phys.quota {
                return Err(Error::new(ErrorKind::Quota, "moving space below a quota"));
            }
            at = dir.parent();
        }
        Ok(())
    }

    /// What is set on a dataset holds for all below it.
    pub(super) fn reload_policies(&self) -> Result<()> {
        let all: Vec<_> = self.datasets.lock().values().cloned().collect();
        for ds in all {
            *ds.policy.lock() = super::policy::load(self, &ds.dir())?;
            *ds.log_policy.lock() = super::log::policy(self, &ds.dir())?;
        }
        Ok(())
    }

    fn store_prop(&self, tx: &Tx, zap: u64, name: &str, value: &NewValue) -> Result<()> {
        mosw::zap_remove_any(&self.mos, tx, zap, &format!("{name}$inherit"))?;
        match value {
            NewValue::Number(n) => mosw::zap_set(&self.mos, tx, zap, name, *n),
            NewValue::Text(text) => mosw::zap_set_text(&self.mos, tx, zap, name, text),
            NewValue::Received => mosw::zap_remove_any(&self.mos, tx, zap, name),
            NewValue::Inherit => {
                mosw::zap_remove_any(&self.mos, tx, zap, name)?;
                mosw::zap_remove_any(&self.mos, tx, zap, &format!("{name}$iuv"))?;
                let received = mosw::zap_has(&self.mos, zap, &format!("{name}$recvd"))?;
                if received { mosw::zap_set(&self.mos, tx, zap, &format!("{name}$inherit"), 0) } else { Ok(()) }
            }
        }
    }

    fn props_zap(&self, tx: &Tx, ds: &Arc<DatasetState>, value: &NewValue) -> Result<u64> {
        let phys = ds.phys();
        if !phys.is_snapshot() {
            return Ok(ds.dir().phys().props_zapobj);
        }
        if phys.props_obj == 0 && !matches!(value, NewValue::Inherit | NewValue::Received) {
            let zap = mosw::zap_create(&self.mos, tx, Ot::DSL_PROPS)?;
            ds.update(|p| p.props_obj = zap);
            return Ok(zap);
        }
        Ok(phys.props_obj)
    }

    fn set_quota(&self, tx: &Tx, dir: &Arc<DirState>, quota: u64, value: &NewValue) -> Result<()> {
        dir.update(|p| p.quota = quota);
        let zap = dir.phys().props_zapobj;
        match value {
            NewValue::Inherit | NewValue::Received => mosw::zap_remove_any(&self.mos, tx, zap, "quota"),
            _ => mosw::zap_set(&self.mos, tx, zap, "quota", quota),
        }
    }

    /// Promises space to a directory and everything below it.
    pub(super) fn set_reservation(&self, dir: &Arc<DirState>, value: u64) -> Result<()> {
        let (used, old) = {
            let p = dir.phys();
            (p.used_bytes, p.reserved)
        };
        let delta = used.max(value) as i64 - used.max(old) as i64;
        dir.update(|p| p.reserved = value);
        match dir.parent() {
            Some(parent) => parent.diduse(UsedBy::ChildReserved, Sums { used: delta, ..Sums::default() }),
            None => Ok(()),
        }
    }

    /// Promises space to what a dataset itself references.
    pub(super) fn set_refreservation(&self, ds: &DatasetState, value: u64) -> Result<()> {
        let delta = {
            let mut inner = ds.inner.lock();
            let unique = inner.phys.unique_bytes;
            let old = inner.reserved;
            inner.reserved = value;
            value.saturating_sub(unique) as i64 - old.saturating_sub(unique) as i64
        };
        match delta {
            0 => Ok(()),
            delta => ds.dir().diduse(UsedBy::RefReserved, Sums { used: delta, ..Sums::default() }),
        }
    }
}
