//! Features of a pool: which are enabled and active, and which this software does not know.

use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::{Objset, Result, Zap};
use zfs_phys::NvList;
use zfs_phys::feature::{FEATURES, Feature};

/// A feature that this software does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFeature {
    /// Name on disk.
    pub guid: String,
    /// What the pool says about it, if anything.
    pub description: String,
}

/// State of one known feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureState {
    /// Not enabled.
    Disabled,
    /// Enabled, not in use.
    Enabled,
    /// In use.
    Active,
}

impl FeatureState {
    /// As `zpool get` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Active => "active",
        }
    }
}

/// Features of one pool.
#[derive(Debug, Clone, Default)]
pub struct Features {
    counts: BTreeMap<String, u64>,
    enabled_txg: BTreeMap<String, u64>,
    /// Unknown features in use without which nothing can be read.
    pub unknown_for_read: Vec<UnknownFeature>,
    /// Unknown features in use without which nothing can be written.
    pub unknown_for_write: Vec<UnknownFeature>,
}

impl Features {
    /// Reads the features out of the pool directory; pools of old versions have none.
    pub fn load(mos: &Arc<Objset>, directory: &Zap) -> Result<Self> {
        let mut out = Self::default();
        let descriptions = match directory.lookup_u64(b"feature_descriptions")? {
            Some(obj) => Some(Zap::open(mos, obj)?),
            None => None,
        };
        for (entry, for_read) in [(&b"features_for_read"[..], true), (&b"features_for_write"[..], false)] {
            let Some(obj) = directory.lookup_u64(entry)? else { continue };
            for item in Zap::open(mos, obj)?.iter() {
                let item = item?;
                let guid = String::from_utf8_lossy(item.name()).into_owned();
                let count = item.value.first();
                if Feature::by_guid(&guid).is_none() && count != 0 {
                    let text = match &descriptions {
                        Some(zap) => zap.lookup(guid.as_bytes())?.map(|v| v.string()).unwrap_or_default(),
                        None => Vec::new(),
                    };
                    let unknown =
                        UnknownFeature { guid: guid.clone(), description: String::from_utf8_lossy(&text).into_owned() };
                    if for_read { out.unknown_for_read.push(unknown) } else { out.unknown_for_write.push(unknown) }
                }
                out.counts.insert(guid, count);
            }
        }
        out.unknown_for_read.sort_by(|a, b| a.guid.cmp(&b.guid));
        out.unknown_for_write.sort_by(|a, b| a.guid.cmp(&b.guid));
        if let Some(obj) = directory.lookup_u64(b"feature_enabled_txg")? {
            for item in Zap::open(mos, obj)?.iter() {
                let item = item?;
                out.enabled_txg.insert(String::from_utf8_lossy(item.name()).into_owned(), item.value.first());
            }
        }
        Ok(out)
    }

    /// State of a known feature.
    pub fn state(&self, feature: Feature) -> FeatureState {
        match self.counts.get(feature.guid()) {
            None => FeatureState::Disabled,
            Some(0) => FeatureState::Enabled,
            Some(_) => FeatureState::Active,
        }
    }

    /// Whether a known feature is in use.
    pub fn is_active(&self, feature: Feature) -> bool {
        self.state(feature) == FeatureState::Active
    }

    /// Whether a known feature is enabled, in use or not.
    pub fn is_enabled(&self, feature: Feature) -> bool {
        self.state(feature) != FeatureState::Disabled
    }

    /// Txg in which a feature was enabled, where the pool keeps that.
    pub fn enabled_txg(&self, feature: Feature) -> Option<u64> {
        self.enabled_txg.get(feature.guid()).copied()
    }

    /// All features of the pool with their reference counts, known or not, by guid.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Short names of known features that are not enabled.
    pub fn disabled(&self) -> Vec<&'static str> {
        FEATURES.iter().filter(|f| !self.counts.contains_key(f.guid)).map(|f| f.name).collect()
    }
}

/// Features that a label says are needed to read the meta object set and that are unknown.
pub fn unknown_in_label(label: &NvList) -> Vec<UnknownFeature> {
    let Some(list) = label.list("features_for_read") else { return Vec::new() };
    let unknown = list.pairs.iter().filter(|(guid, _)| Feature::by_guid(guid).is_none());
    unknown.map(|(guid, _)| UnknownFeature { guid: guid.clone(), description: String::new() }).collect()
}
