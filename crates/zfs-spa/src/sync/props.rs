//! Setting properties of the pool itself, and enabling features.
//!
//! The comment and the name of the compatibility set are part of the configuration, so that labels tell them; all others
//! are entries of one table, which is made when the first is set. Whether a value makes sense is the caller's matter.

use super::{Spa, SyncCtx, create};
use crate::config::POOL_DIRECTORY;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, Result, Zap};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::feature::{ACTIVATE_ON_ENABLE, Feature};

/// A value of a pool property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolValue {
    /// Numbers, and those that have names.
    Number(u64),
    /// Text.
    Text(String),
}

impl SyncCtx<'_> {
    /// Sets a property of the pool.
    ///
    /// # Errors
    /// Whatever writing it meets.
    pub fn set_pool_property(&self, name: &str, value: &PoolValue) -> Result<()> {
        self.spa.set_property(self.tx, name, value)?;
        let shown = match value {
            PoolValue::Number(n) => format!("{name}={n}"),
            PoolValue::Text(t) => format!("{name}={t}"),
        };
        self.log("set", &shown)
    }

    /// Enables a feature and those it depends on; nothing happens when it is.
    ///
    /// # Errors
    /// Whatever writing it meets.
    pub fn enable_feature(&self, feature: Feature) -> Result<()> {
        if self.spa.ops.is_enabled(feature) {
            return Ok(());
        }
        self.spa.enable(self.tx, feature)?;
        self.log("set", &format!("feature@{}=enabled", feature.name()))
    }

    /// Gives the pool another identity.
    ///
    /// # Errors
    /// `Busy` where the pool has a checkpoint; whatever the history meets.
    pub fn set_guid(&self, guid: u64) -> Result<()> {
        self.spa.expect_no_checkpoint()?;
        let old = {
            let mut config = self.spa.config.lock();
            config.tree.put("guid", guid);
            std::mem::replace(&mut config.guid, guid)
        };
        *self.spa.root_guid.lock() = Some(guid);
        self.spa.store_config(self.tx)?;
        self.spa.labels_now.store(true, std::sync::atomic::Ordering::Relaxed);
        self.log("guid change", &format!("old={old} new={guid}"))
    }
}

impl Spa {
    pub(super) fn set_property(&self, tx: &Tx, name: &str, value: &PoolValue) -> Result<()> {
        if let ("comment" | "compatibility", PoolValue::Text(text)) = (name, value) {
            let text = Some(text.clone()).filter(|t| !t.is_empty());
            {
                let mut config = self.config.lock();
                match name {
                    "comment" => config.comment = text,
                    _ => config.compatibility = text.filter(|t| t != "off"),
                }
            }
            self.store_config(tx)?;
            self.labels_now.store(true, std::sync::atomic::Ordering::Relaxed);
            return Ok(());
        }
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        let object = match directory.lookup_u64(b"pool_props")? {
            Some(object) => object,
            None => {
                let object = Zap::create(&self.mos, tx, Ot::POOL_PROPS, 0)?;
                directory.add(tx, b"pool_props", &[object])?;
                object
            }
        };
        let table = Zap::open(&self.mos, object)?;
        if let ("failmode", PoolValue::Number(n)) = (name, value) {
            self.failmode_changed(*n);
        }
        match value {
            PoolValue::Number(n) => table.update(tx, name.as_bytes(), &[*n]),
            PoolValue::Text(t) => table.update_ints(tx, name.as_bytes(), 1, &[t.as_bytes(), &[0]].concat()),
        }
    }

    pub(super) fn enable(&self, tx: &Tx, feature: Feature) -> Result<()> {
        if self.ops.is_enabled(feature) {
            return Ok(());
        }
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        if feature == Feature::LogSpacemap && directory.lookup_u64(create::VDEV_ZAPS)?.is_none() {
            return Err(Error::unsupported(format!("{} in a pool whose vdevs have no tables", feature.name())));
        }
        self.to_feature_flags(tx, &directory)?;
        let info = feature.info();
        info.depends.iter().try_for_each(|f| self.enable(tx, *f))?;
        let times = self.feature_times(tx, feature)?;
        let always = info.flags & ACTIVATE_ON_ENABLE != 0 || feature == Feature::EnabledTxg;
        self.ops.enable(tx, feature, u64::from(always))?;
        if feature == Feature::HeadErrlog {
            self.sort_errors_by_head(tx)?;
        }
        if let Some(object) = times {
            Zap::open(&self.mos, object)?.update(tx, info.guid.as_bytes(), &[tx.txg()])?;
        }
        self.ops.config_dirty.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// Makes a pool of an older version one with features (`SPA_VERSION_FEATURES`).
    fn to_feature_flags(&self, tx: &Tx, directory: &Zap) -> Result<()> {
        if directory.lookup_u64(b"features_for_read")?.is_some() {
            return Ok(());
        }
        create::feature_tables(&self.mos, tx, directory)?;
        self.config.lock().version = create::VERSION;
        self.uberblock.lock().version = create::VERSION;
        crate::dslw::PoolOps::log(&*self.ops, tx, "set", None, &format!("version={}", create::VERSION))
    }

    /// The table of txgs in which features were enabled; made when that feature itself is.
    fn feature_times(&self, tx: &Tx, feature: Feature) -> Result<Option<u64>> {
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        let found = directory.lookup_u64(b"feature_enabled_txg")?;
        if found.is_some() || feature != Feature::EnabledTxg {
            return Ok(found);
        }
        let object = Zap::create(&self.mos, tx, create::ZAP_METADATA, 0)?;
        directory.add(tx, b"feature_enabled_txg", &[object])?;
        Ok(Some(object))
    }

    /// The object of a dataset, for properties that name one.
    ///
    /// # Errors
    /// `NotFound` when there is no such dataset.
    pub fn dataset_object(&self, path: &str) -> Result<u64> {
        let found = self.dsl.find(path)?;
        found.map(|ds| ds.object).ok_or_else(|| Error::not_found("looking for a dataset"))
    }
}
