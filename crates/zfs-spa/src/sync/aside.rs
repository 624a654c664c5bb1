//! Space that is freed and does not become free, as it is kept in the pool: for a checkpoint, and of removed vdevs.
//!
//! [`zfs_zio::alloc::Aside`] tells which it is. Each vdev's ranges go to a space map of its own, which is made when it is
//! the first time and named in the vdev's table. A checkpoint's counts in units of the vdev's sectors, and its ranges are
//! frees; that of a removed vdev counts in bytes, and its ranges are allocations (`vdev_checkpoint_sm`,
//! `vdev_obsolete_sm`).

use super::Spa;
use super::guard::refuse;
use super::ops::Ops;
use crate::pool::Pool;
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, Result, Zap};
use zfs_phys::feature::Feature;
use zfs_phys::spacemap::MapType;
use zfs_zio::alloc::{Aside, AsideDelta};

/// Block size of these space maps (`zfs_vdev_standard_sm_blksz`).
const BLOCK: u32 = 1 << 17;
/// Name of a checkpoint's space map in the table of a vdev.
const CHECKPOINT: &[u8] = b"com.delphix:pool_checkpoint_sm";
/// Name of the space map of what nothing refers to any more on a removed vdev.
const OBSOLETE: &[u8] = b"com.delphix:indirect_obsolete_sm";

impl Spa {
    /// Writes down what this pass freed that did not become free.
    pub(super) fn sync_aside(&self, tx: &Tx, pass: u32) -> Result<()> {
        for delta in self.zio.take_aside()? {
            match delta.kind {
                Aside::Checkpointed => {
                    let vdev = self.zio.vdevs().top(delta.vdev);
                    let ashift = vdev.map_or(0, |v| v.config.ashift as u32);
                    self.append_aside(tx, pass, &delta, MapType::Free, ashift)?;
                    self.ops.add_checkpointed(delta.ranges.space());
                }
                // Without the feature nobody counts, and the mapping keeps its size.
                Aside::Obsolete if self.ops.is_enabled(Feature::ObsoleteCounts) => {
                    self.append_aside(tx, pass, &delta, MapType::Alloc, 0)?;
                }
                Aside::Obsolete => {}
            }
        }
        Ok(())
    }

    fn append_aside(&self, tx: &Tx, pass: u32, delta: &AsideDelta, kind: MapType, shift: u32) -> Result<()> {
        let table = self.zio.vdevs().top(delta.vdev).and_then(|v| v.config.top_zap).filter(|o| *o != 0);
        let table = Zap::open(&self.mos, table.ok_or_else(|| Error::corrupt("a vdev without a table"))?)?;
        let name = if delta.kind == Aside::Checkpointed { CHECKPOINT } else { OBSOLETE };
        let object = match table.lookup_u64(name)?.filter(|o| *o != 0) {
            Some(object) => object,
            None => {
                let object = self.ops.space_map(&self.mos, tx, BLOCK)?;
                table.add(tx, name, &[object])?;
                if delta.kind == Aside::Obsolete {
                    self.ops.count(tx, Feature::ObsoleteCounts, 1)?;
                }
                object
            }
        };
        let v2 = self.ops.is_enabled(Feature::SpacemapV2);
        SpaceMap::open(&self.mos, object)?.append(tx, pass, kind, None, &mut delta.ranges.iter(), shift, v2)
    }

    /// Fails where the pool has a checkpoint, which knows the devices as they were then.
    ///
    /// # Errors
    /// `Busy`, in OpenZFS's words.
    pub(super) fn expect_no_checkpoint(&self) -> Result<()> {
        use crate::dslw::PoolOps;
        match self.ops.feature_active(Feature::ZpoolCheckpoint) {
            true => Err(Error::new(zfs_dmu::ErrorKind::Busy, "checkpoint exists")),
            false => Ok(()),
        }
    }
}

/// Tells the allocator, and who counts space, of the checkpoint of an imported pool.
pub(super) fn load_checkpoint(pool: &Pool, ops: &Ops) -> Result<()> {
    if let Some(kept) = pool.checkpoint_uberblock()? {
        pool.zio().set_checkpoint(kept.txg)?;
        ops.add_checkpointed(pool.space()?.checkpoint);
    }
    Ok(())
}

/// Refuses a pool whose checkpoint is on its way out.
pub(super) fn check_checkpoint(pool: &Pool) -> Result<()> {
    match pool.features().is_active(Feature::ZpoolCheckpoint) && pool.checkpoint_uberblock()?.is_none() {
        true => Err(refuse("a checkpoint is being discarded (feature zpool_checkpoint)")),
        false => Ok(()),
    }
}

/// Refuses a pool with a removed vdev whose mapping is being made smaller.
pub(super) fn check_removed(pool: &Pool) -> Result<()> {
    match pool.directory().lookup(b"com.delphix:condensing_indirect")? {
        Some(_) => Err(refuse("the mapping of a removed device is being condensed (feature device_removal)")),
        None => Ok(()),
    }
}
