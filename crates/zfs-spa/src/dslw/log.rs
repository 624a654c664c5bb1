//! Intent logs as far as datasets are concerned: how they are kept, and that none outlives what it belongs to.
//!
//! A header of a log lies in the header of the object set, so whatever copies that copies the log's as well: a snapshot
//! holds one that nobody looks at, and what becomes a head again (a clone, a dataset rolled back) must lose it, for its
//! blocks belong to others or are free.

use super::dataset::{DatasetState, DsInner};
use super::{DirState, DslPool};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{LogPolicy, Objset, Result, SyncMode, zil};
use zfs_phys::enums::ObjsetType;
use zfs_phys::feature::Feature;
use zfs_phys::objset::ZilHeader;
use zfs_zio::alloc::Class;

/// The policy of the dataset in `dir`, from the properties set there and above.
pub(super) fn policy(pool: &DslPool, dir: &Arc<DirState>) -> Result<LogPolicy> {
    let number = |name: &str| Ok::<_, zfs_zio::Error>(pool.inherited(dir, name)?.unwrap_or(0));
    let small = u32::try_from(number("special_small_blocks")?).unwrap_or(0);
    Ok(LogPolicy {
        sync: match number("sync")? {
            1 => SyncMode::Always,
            2 => SyncMode::Disabled,
            _ => SyncMode::Standard,
        },
        throughput: number("logbias")? == 1,
        slog: pool.mos.zio().space(Class::Log).space > 0,
        special: pool.ops.has_special().then_some(small),
        xattrs: pool.ops.feature_enabled(Feature::Zilsaxattr),
    })
}

impl DatasetState {
    /// A log of a file system may hold records of extended attributes, which older software does not know.
    pub(super) fn log_in_use(&self, pool: &DslPool, in_use: bool) {
        let zfs = self.objset.lock().as_ref().is_some_and(|os| os.phys().os_type == ObjsetType::Zfs);
        let mut inner = self.inner.lock();
        let DsInner { activate, retire, .. } = &mut *inner;
        match in_use {
            true if zfs && pool.ops.feature_enabled(Feature::Zilsaxattr) => {
                retire.remove(&Feature::Zilsaxattr);
                activate.insert(Feature::Zilsaxattr);
            }
            true => {}
            false => {
                activate.remove(&Feature::Zilsaxattr);
                retire.insert(Feature::Zilsaxattr);
            }
        }
    }
}

impl DslPool {
    fn open_log_of(ds: &DatasetState) -> Option<Arc<zil::Zil>> {
        ds.objset.lock().as_ref().and_then(|objset| objset.log())
    }

    /// Brings to disk what the intent log of a dataset has, and gives its blocks back. Not to be called by the sync.
    ///
    /// # Errors
    /// When the pool stopped writing.
    pub fn close_log(&self, ds: &DatasetState) -> Result<()> {
        Self::open_log_of(ds).map_or(Ok(()), |log| log.close())
    }

    /// Gives up the intent log of a dataset that is going to be destroyed or rolled back. Not to be called by the sync.
    ///
    /// # Errors
    /// When the pool stopped writing.
    pub fn abandon_log(&self, ds: &DatasetState) -> Result<()> {
        Self::open_log_of(ds).map_or(Ok(()), |log| log.abandon())
    }

    /// [`DslPool::close_log`] for every dataset.
    ///
    /// # Errors
    /// When the pool stopped writing.
    pub fn close_logs(&self) -> Result<()> {
        let mut all: Vec<_> = self.datasets.lock().values().cloned().collect();
        // Always in the same order, for simulations.
        all.sort_unstable_by_key(|ds| ds.object);
        all.iter().try_for_each(|ds| self.close_log(ds))
    }

    /// Frees the log of a dataset that goes, or becomes what it was before. `Busy` while it is in use.
    pub(super) fn destroy_log(&self, tx: &Tx, ds: &DatasetState) -> Result<()> {
        let open = ds.objset.lock().clone();
        let bp = ds.phys().bp;
        let objset = match open {
            Some(objset) => objset,
            None if bp.is_hole() => return Ok(()),
            None => Objset::open(self.mos.zio(), &bp, ds.object, None)?,
        };
        zil::destroy(&objset, tx)
    }

    /// Takes the header of a log away that a head got from a snapshot.
    pub(super) fn zero_log(&self, tx: &Tx, ds: &Arc<DatasetState>) -> Result<()> {
        if ds.phys().bp.is_hole() {
            return Ok(());
        }
        let objset = Objset::open(self.mos.zio(), &ds.phys().bp, ds.object, None)?;
        match objset.phys().zil_header == ZilHeader::default() {
            true => Ok(()),
            false => self.set_log(tx, ds, &objset, &ZilHeader::default()),
        }
    }

    /// Claims the intent log that a head had when the pool was opened for writing: in the first txg of that.
    ///
    /// # Errors
    /// `Unsupported` for a log that clones blocks; whatever reading it and noting its blocks meets.
    pub fn claim_log(&self, tx: &Tx, ds: &Arc<DatasetState>) -> Result<()> {
        let objset = Objset::open(self.mos.zio(), &ds.phys().bp, ds.object, None)?;
        match zil::claim(&objset, tx)? {
            Some(header) => self.set_log(tx, ds, &objset, &header),
            None => Ok(()),
        }
    }

    fn set_log(&self, tx: &Tx, ds: &Arc<DatasetState>, now: &Objset, header: &ZilHeader) -> Result<()> {
        match now.is_encrypted() {
            true => self.set_sealed_log(tx, ds, now, header),
            false => self.open_objset(ds)?.set_zil_header(tx, header),
        }
    }
}
