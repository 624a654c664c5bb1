//! Space maps: the logs of allocations and frees that metaslabs and logs keep.

use crate::dnode::Dnode;
use crate::objset::Objset;
use crate::txg::Tx;
use std::sync::Arc;
use zfs_phys::spacemap::{MapType, SPACE_MAP_HISTOGRAM_SIZE, SmEntry, SpaceMapPhys, entries};
use zfs_zio::{Error, Result};

/// An open space map.
pub struct SpaceMap {
    dnode: Arc<Dnode>,
    phys: SpaceMapPhys,
}

impl SpaceMap {
    /// Opens the space map in object `object` of the MOS.
    pub fn open(mos: &Arc<Objset>, object: u64) -> Result<Self> {
        let dnode = mos.dnode(object)?;
        let phys = SpaceMapPhys::decode(&dnode.bonus()?, dnode.phys().endian)
            .map_err(|e| Error::from(e).at(&dnode.ctx.bookmark(object, 0, 0)))?;
        Ok(Self { dnode, phys })
    }

    /// Its header.
    pub fn phys(&self) -> &SpaceMapPhys {
        &self.phys
    }

    /// The object.
    pub fn dnode(&self) -> &Arc<Dnode> {
        &self.dnode
    }

    /// Makes an empty space map with blocks of `block_size` bytes. Gives its object number.
    pub fn create(mos: &Arc<Objset>, tx: &Tx, block_size: u32) -> Result<u64> {
        let _ = (mos, tx, block_size);
        Err(Error::unsupported("changing a space map"))
    }

    /// Appends segments of one kind: starts and ends in bytes from the start of the map; the map's entries have units of
    /// `1 << shift`. `vdev` is stored in log space maps.
    pub fn append(
        &mut self,
        tx: &Tx,
        pass: u32,
        kind: MapType,
        vdev: Option<u32>,
        segments: &mut dyn Iterator<Item = (u64, u64)>,
        shift: u32,
    ) -> Result<()> {
        let _ = (tx, pass, kind, vdev, segments, shift);
        Err(Error::unsupported("changing a space map"))
    }

    /// Sets the histogram of free segments.
    pub fn set_histogram(&mut self, tx: &Tx, histogram: &[u64; SPACE_MAP_HISTOGRAM_SIZE]) -> Result<()> {
        let _ = (tx, histogram);
        Err(Error::unsupported("changing a space map"))
    }

    /// Removes all entries.
    pub fn truncate(&mut self, tx: &Tx) -> Result<()> {
        let _ = tx;
        Err(Error::unsupported("changing a space map"))
    }

    /// Calls `f` for every entry in order of writing; its error ends the walk.
    pub fn iterate(&self, mut f: impl FnMut(SmEntry) -> Result<()>) -> Result<()> {
        let blksz = self.dnode.datablksz().max(8);
        let blocks = self.phys.length.div_ceil(blksz);
        let fail = |blkid| move |e: Error| e.at(&self.dnode.ctx.bookmark(self.dnode.object(), 0, blkid));
        let most = self.dnode.phys().maxblkid.saturating_add(1).min(self.dnode.ctx.block_limit);
        if blocks > most {
            return Err(fail(0)(Error::corrupt("space map longer than its object")));
        }
        for blkid in 0..blocks {
            let left = self.phys.length - blkid * blksz;
            let (buf, endian) = self
                .dnode
                .read_block_endian(blkid)?
                .ok_or_else(|| fail(blkid)(Error::corrupt("a hole in a space map")))?;
            let used = buf.get(..usize::try_from(left).unwrap_or(usize::MAX).min(buf.len())).unwrap_or_default();
            for e in entries(used, endian) {
                f(e.map_err(|e| fail(blkid)(Error::from(e)))?)?;
            }
        }
        Ok(())
    }
}
