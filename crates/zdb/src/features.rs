//! Compares the reference counts of features with what the datasets use.

use crate::ctx::Ctx;
use crate::p;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_phys::dsl::ZBM_FLAG_HAS_FBN;
use zfs_phys::feature::{FEATURES, Feature, PER_DATASET};
use zfs_phys::indirect::IndirectMappingPhys;
use zfs_spa::dsl::Dataset;

/// How many datasets use each feature.
#[derive(Default)]
pub struct Uses {
    datasets: BTreeMap<&'static str, u64>,
    redaction: u64,
    spills: u64,
    written: u64,
    livelists: u64,
}

impl Uses {
    /// Counts one dataset.
    pub fn count(&mut self, c: &Ctx<'_>, ds: &Arc<Dataset>) {
        for f in FEATURES.iter().filter(|f| f.flags & PER_DATASET != 0) {
            if ds.field_words(f.guid).ok().flatten().is_some() {
                *self.datasets.entry(f.guid).or_default() += 1;
            }
        }
        if !ds.is_snapshot() {
            for m in ds.bookmarks().unwrap_or_default() {
                self.written += u64::from(m.phys.flags & ZBM_FLAG_HAS_FBN != 0);
                if m.phys.redaction_obj != 0 {
                    self.redaction += 1;
                    let dn = c.pool.mos().dnode(m.phys.redaction_obj);
                    self.spills += u64::from(dn.is_ok_and(|d| d.phys().spill.is_some()));
                }
            }
            let livelist = ds.dir.field(zfs_phys::dsl::field::LIVELIST).ok().flatten();
            self.livelists += u64::from(livelist.is_some_and(|o| o != 0));
        }
    }

    fn used(&self, f: Feature) -> Option<u64> {
        let info = f.info();
        if info.flags & PER_DATASET != 0 {
            return Some(self.datasets.get(info.guid).copied().unwrap_or(0));
        }
        match info.name {
            "redaction_bookmarks" => Some(self.redaction),
            "redaction_list_spill" => Some(self.spills),
            "bookmark_written" => Some(self.written),
            "livelist" => Some(self.livelists),
            _ => None,
        }
    }

    /// Prints the comparison.
    pub fn verify(&self, c: &mut Ctx<'_>) {
        let pool = c.pool.clone();
        let line = |c: &mut Ctx<'_>, name: &str, used: u64, counted: u64| {
            if used == counted {
                p!(c.o, "Verified {name} feature refcount of {counted} is correct\n");
            } else {
                p!(c.o, "{name} feature refcount mismatch: {used} consumers != {counted} refcount\n");
                c.corrupt = true;
            }
        };
        for info in FEATURES {
            let Some(used) = self.used(info.feature) else { continue };
            let Some(counted) = pool.features().counts().get(info.guid).copied() else { continue };
            line(c, info.name, used, counted);
        }
        let (mut removed, mut counts) = (0u64, 0u64);
        for v in &pool.zio().vdevs().root().children {
            let Some(object) = v.config.indirect_object.filter(|o| *o != 0) else { continue };
            removed += 1;
            let phys =
                pool.mos().dnode(object).and_then(|d| Ok(IndirectMappingPhys::decode(&d.bonus()?, d.phys().endian)?));
            counts += u64::from(phys.is_ok_and(|p| p.counts_object != 0));
        }
        for (name, guid, used) in [
            ("device_removal", Feature::DeviceRemoval.guid(), removed),
            ("indirect_refcount", Feature::ObsoleteCounts.guid(), counts),
        ] {
            line(c, name, used, pool.features().counts().get(guid).copied().unwrap_or(0));
        }
    }
}
