//! Space maps: the logs of allocations and frees that metaslabs and logs keep.

use crate::dnode::Dnode;
use crate::objset::Objset;
use std::sync::Arc;
use zfs_phys::spacemap::{SmEntry, SpaceMapPhys, entries};
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
        let phys = SpaceMapPhys::decode(dnode.bonus()?, dnode.phys().endian)
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
