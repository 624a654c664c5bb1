//! Dirty time logs: which txgs a device lacks, kept in the meta object set so that it is known after the next import.
//!
//! A device that fails or is away notes the txgs written without it in memory; here each list that changed is stored in
//! the pass after, as a space map whose units are txgs. A device's first list gets an object, which the vdev tree names,
//! so the configuration is then written with the txg.

use super::Spa;
use std::collections::HashMap;
use std::ops::Range;
use zfs_dmu::Result;
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::txg::Tx;
use zfs_phys::feature::Feature;
use zfs_phys::spacemap::MapType;
use zfs_phys::{NvList, NvValue};
use zfs_zio::VdevTree;

/// Block size of a dirty time log (`zfs_vdev_dtl_sm_blksz`).
const BLOCK: u32 = 1 << 12;

/// A list as it is stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    object: u64,
    ranges: Vec<Range<u64>>,
}

/// The lists as they were at import, by guid of the device.
pub(super) fn stored(tree: &VdevTree) -> HashMap<u64, Stored> {
    let one = |leaf: &&zfs_zio::Vdev| Stored { object: leaf.config.dtl.unwrap_or(0), ranges: leaf.dtl() };
    tree.leaves().iter().map(|leaf| (leaf.guid(), one(leaf))).collect()
}

impl Spa {
    /// Stores the lists that changed. Gives whether the vdev tree changed with that.
    pub(super) fn sync_dtls(&self, tx: &Tx, pass: u32) -> Result<bool> {
        let mut named = false;
        let mut all = self.dtls.lock();
        for leaf in self.zio.vdevs().leaves() {
            let ranges = leaf.dtl();
            let stored = all.entry(leaf.guid()).or_default();
            if stored.ranges == ranges {
                continue;
            }
            if stored.object == 0 {
                stored.object = self.ops.space_map(&self.mos, tx, BLOCK)?;
                set_object(&mut self.config.lock().tree, leaf.guid(), stored.object);
                named = true;
            }
            let mut map = SpaceMap::open(&self.mos, stored.object)?;
            map.truncate(tx)?;
            let mut txgs = ranges.iter().map(|r| (r.start, r.end));
            let v2 = self.ops.is_enabled(Feature::SpacemapV2);
            map.append(tx, pass, MapType::Alloc, None, &mut txgs, 0, v2)?;
            stored.ranges = ranges;
        }
        Ok(named)
    }
}

/// Names the object in the configuration of a device.
fn set_object(tree: &mut NvList, guid: u64, object: u64) {
    if tree.u64("guid") == Some(guid) {
        tree.put("DTL", object);
        return;
    }
    if tree.contains("children") {
        let mut children = tree.lists("children").to_vec();
        children.iter_mut().for_each(|c| set_object(c, guid, object));
        tree.set("children", NvValue::NvListArray(children));
    }
}
