//! What `zpool status` shows besides devices: scans, removals, expansions, the checkpoint.

use crate::pool::Pool;
use zfs_dmu::{Result, Zap};
use zfs_phys::feature::Feature;
use zfs_phys::indirect::{IndirectMappingPhys, MAPPING_ENTRY_SIZE};
use zfs_phys::scan::{ErrorScrubPhys, RemovingPhys, ScanPhys};
use zfs_zio::VdevKind;

/// State of a scan, a removal or an expansion that was never started (`dsl_scan_state_t`).
pub const STATE_NONE: u64 = 0;

/// Last or running scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStatus {
    /// Scrub or resilver.
    pub scan: ScanPhys,
    /// Scrub of known errors.
    pub error_scrub: ErrorScrubPhys,
}

/// Last or running removal of a top-level vdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalStatus {
    /// What is stored.
    pub phys: RemovingPhys,
    /// Bytes that the mappings of all removed vdevs take in memory.
    pub mapping_memory: u64,
}

/// Last or running expansion of a raidz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpandStatus {
    /// 1 running, 2 finished, 3 canceled.
    pub state: u64,
    /// Number of the vdev.
    pub vdev: u64,
    /// Seconds since 1970.
    pub start_time: u64,
    /// Seconds since 1970.
    pub end_time: u64,
    /// Bytes to move.
    pub to_reflow: u64,
    /// Bytes moved.
    pub reflowed: u64,
}

/// The checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// It is being discarded.
    pub discarding: bool,
    /// When it was made, seconds since 1970.
    pub start_time: u64,
    /// Bytes only it references.
    pub space: u64,
}

impl Pool {
    /// Last or running scan; nothing when there never was one.
    pub fn scan_status(&self) -> Result<Option<ScanStatus>> {
        let words = |name: &str| -> Result<Vec<u64>> {
            Ok(self.directory().lookup(name.as_bytes())?.map(|v| v.u64s()).unwrap_or_default())
        };
        let status = ScanStatus {
            scan: ScanPhys::from_words(&words("scan")?),
            error_scrub: ErrorScrubPhys::from_words(&words("error_scrub")?),
        };
        Ok((status.scan.func != 0 || status.error_scrub.func != 0).then_some(status))
    }

    /// Last or running removal; nothing when there never was one.
    pub fn removal_status(&self) -> Result<Option<RemovalStatus>> {
        let Some(value) = self.directory().lookup(b"com.delphix:removing")? else { return Ok(None) };
        let Some(phys) = RemovingPhys::from_words(&value.u64s()).filter(|p| p.state != STATE_NONE) else {
            return Ok(None);
        };
        let mut mapping_memory = 0u64;
        for vdev in &self.zio().vdevs().root().children {
            let object = vdev.config.indirect_object.filter(|o| *o != 0 && vdev.config.kind == VdevKind::Indirect);
            if let Some(object) = object {
                let dnode = self.mos().dnode(object)?;
                let map = IndirectMappingPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
                mapping_memory =
                    mapping_memory.saturating_add(map.num_entries.saturating_mul(MAPPING_ENTRY_SIZE as u64));
            }
        }
        Ok(Some(RemovalStatus { phys, mapping_memory }))
    }

    /// Last or running expansion of any raidz; nothing when there never was one.
    pub fn expand_status(&self) -> Result<Option<ExpandStatus>> {
        let mut best: Option<ExpandStatus> = None;
        let space = self.space()?;
        for (id, vdev) in self.zio().vdevs().root().children.iter().enumerate() {
            let Some(object) = vdev.config.top_zap.filter(|o| *o != 0) else { continue };
            if !matches!(vdev.config.kind, VdevKind::Raidz { .. }) {
                continue;
            }
            let zap = Zap::open(self.mos(), object)?;
            let word = |name: &str| -> Result<u64> {
                Ok(zap.lookup_u64(format!("org.openzfs:raidz_expand_{name}").as_bytes())?.unwrap_or(0))
            };
            let one = ExpandStatus {
                state: word("state")?,
                vdev: id as u64,
                start_time: word("start_time")?,
                end_time: word("end_time")?,
                to_reflow: space.tops.get(id).map_or(0, |t| t.alloc),
                reflowed: word("bytes_copied")?,
            };
            let running = |e: &ExpandStatus| e.state == 1;
            let newer = best.is_none_or(|b| (running(&one), one.end_time) > (running(&b), b.end_time));
            if one.state != STATE_NONE && newer {
                best = Some(one);
            }
        }
        Ok(best)
    }

    /// The checkpoint; nothing when there is none.
    pub fn checkpoint_status(&self) -> Result<Option<CheckpointStatus>> {
        if !self.features().is_active(Feature::ZpoolCheckpoint) {
            return Ok(None);
        }
        let ub = self.checkpoint_uberblock()?;
        let space = self.space()?.checkpoint;
        Ok(Some(CheckpointStatus { discarding: ub.is_none(), start_time: ub.map_or(0, |u| u.timestamp), space }))
    }
}
