//! Compares the reference counts of features with what the datasets use.

use crate::ctx::Ctx;
use crate::p;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::Zap;
use zfs_phys::dsl::ZBM_FLAG_HAS_FBN;
use zfs_phys::feature::{FEATURES, Feature, PER_DATASET};
use zfs_phys::indirect::IndirectMappingPhys;
use zfs_spa::dsl::Dataset;
use zfs_zio::{Error, Result};

/// How many datasets use each feature.
#[derive(Default)]
pub struct Uses {
    datasets: BTreeMap<&'static str, u64>,
    redaction: u64,
    spills: u64,
    written: u64,
    livelists: u64,
    remaps: u64,
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
        let remap = ds.field(zfs_phys::dsl::field::REMAP_DEADLIST).ok().flatten();
        self.remaps += u64::from(remap.is_some_and(|o| o != 0));
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

    /// Counts the lists of clones that are gone.
    pub fn count_deleted(&mut self, c: &Ctx<'_>) -> Result<()> {
        if let Some(table) = c.pool.directory().lookup_u64(b"com.delphix:deleted_clones")? {
            for entry in Zap::open(c.pool.mos(), table)?.iter() {
                entry?;
                self.livelists += 1;
            }
        }
        Ok(())
    }

    /// Prints the comparison; whether all is as it should be. What removed vdevs left is compared only where nothing is
    /// `lost` so far, as with OpenZFS.
    pub fn verify(&self, c: &mut Ctx<'_>, lost: bool) -> bool {
        let pool = c.pool.clone();
        let line = |c: &mut Ctx<'_>, name: &str, used: u64, counted: u64| {
            if used == counted {
                p!(c.o, "Verified {name} feature refcount of {counted} is correct\n");
            } else {
                p!(c.o, "{name} feature refcount mismatch: {used} consumers != {counted} refcount\n");
            }
            used == counted
        };
        let mut same = !lost;
        for info in FEATURES {
            let Some(used) = self.used(info.feature) else { continue };
            let Some(counted) = pool.features().counts().get(info.guid).copied() else { continue };
            same &= line(c, info.name, used, counted);
        }
        if !same {
            return false;
        }
        self.removals(c).unwrap_or_else(|e| {
            c.complain(Err(e));
            true
        })
    }

    /// What removed vdevs left behind: their mappings, and what tells which parts of those nobody needs any more.
    fn removals(&self, c: &mut Ctx<'_>) -> Result<bool> {
        let pool = c.pool.clone();
        let (mos, dir) = (pool.mos(), pool.directory());
        let (mut mappings, mut counts, mut precise, mut maps) = (0u64, 0u64, 0u64, 0u64);
        for v in &pool.zio().vdevs().root().children {
            if let Some(object) = v.config.indirect_object.filter(|o| *o != 0) {
                mappings += 1;
                let dn = mos.dnode(object)?;
                let phys = IndirectMappingPhys::decode(&dn.bonus()?, dn.phys().endian)?;
                counts += u64::from(phys.counts_object != 0);
            }
            let Some(zap) = v.config.top_zap.filter(|z| *z != 0) else { continue };
            let zap = Zap::open(mos, zap)?;
            let there = |name: &[u8]| Ok::<_, Error>(zap.lookup_u64(name)?.is_some_and(|v| v != 0));
            precise += u64::from(there(b"com.delphix:obsolete_counts_are_precise")?);
            maps += u64::from(there(b"com.delphix:indirect_obsolete_sm")?);
        }
        let condensing = dir.lookup(b"com.delphix:condensing_indirect")?.map(|v| v.u64s()).unwrap_or_default();
        // The new mapping's counts and the map of the old one.
        let condensing = if condensing.get(1).is_some_and(|o| *o != 0) { 2 } else { 0 };
        let list = u64::from(dir.lookup(b"com.delphix:obsolete_bpobj")?.is_some());
        let objects = precise + maps + counts + condensing + list + self.remaps;
        let rows = [
            (Feature::DeviceRemoval, "device_removal", "indirect vdevs", mappings),
            (Feature::ObsoleteCounts, "indirect_refcount", "obsolete counts objects", objects),
        ];
        let mut same = true;
        for (feature, name, what, found) in rows {
            let counted = pool.features().counts().get(feature.guid()).copied().unwrap_or(0);
            if found == counted {
                p!(c.o, "Verified {name} feature refcount of {counted} is correct\n");
                continue;
            }
            same = false;
            p!(c.o, "Number of {what} ({found}) does not match feature count ({counted})\n");
            if feature == Feature::ObsoleteCounts {
                let rd = self.remaps;
                p!(c.o, "pv:{precise} os:{maps} oc:{counts} sc:{condensing} ob:{list} rd:{rd}\n");
            }
        }
        Ok(same)
    }
}
