//! Space maps: the logs of allocations and frees that metaslabs and logs keep.

use crate::dnode::Dnode;
use crate::live::TO_END;
use crate::liveset::{INDIRECT_SHIFT, ObjectSpec};
use crate::objset::Objset;
use crate::txg::Tx;
use std::sync::Arc;
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::spacemap::{MapType, SPACE_MAP_HISTOGRAM_SIZE, SmEncoder, SmEntry, SpaceMapPhys, entries};

/// Bytes of the bonus without and with its histogram.
const BONUS_PLAIN: usize = 3 * 8;
const BONUS: usize = (8 + SPACE_MAP_HISTOGRAM_SIZE) * 8;

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

    /// Makes an empty space map with blocks of `block_size` bytes. Gives its object number. One with a histogram is a use of
    /// feature `spacemap_histogram`, which the caller counts.
    pub fn create(mos: &Arc<Objset>, tx: &Tx, block_size: u32, histogram: bool) -> Result<u64> {
        let spec = ObjectSpec {
            object_type: DmuObjectType::SPACE_MAP,
            block_size,
            indirect_shift: INDIRECT_SHIFT,
            bonus_type: DmuObjectType::SPACE_MAP_HEADER,
            bonus_len: if histogram { BONUS } else { BONUS_PLAIN },
            slots: 1,
        };
        Ok(mos.allocate(tx, &spec)?.object())
    }

    fn store(&mut self, tx: &Tx) -> Result<()> {
        self.phys.object = self.dnode.object();
        let bonus = self.phys.encode(Endian::NATIVE);
        self.dnode.set_bonus(tx, DmuObjectType::SPACE_MAP_HEADER, &bonus)
    }

    /// Appends segments of one kind: starts and ends in bytes from the start of the map; the map's entries have units of
    /// `1 << shift`. `vdev` is given in log space maps. `v2` says whether the feature `spacemap_v2` is active. Nothing is
    /// written when there are no segments.
    #[allow(clippy::too_many_arguments)] // What one entry consists of.
    pub fn append(
        &mut self,
        tx: &Tx,
        pass: u32,
        kind: MapType,
        vdev: Option<u32>,
        segments: &mut dyn Iterator<Item = (u64, u64)>,
        shift: u32,
        v2: bool,
    ) -> Result<()> {
        let blksz = self.dnode.datablksz();
        let mut encoder = SmEncoder::new(Endian::NATIVE, self.phys.length, blksz as usize, v2);
        let mut segments = segments.peekable();
        if segments.peek().is_none() {
            return Ok(());
        }
        encoder.intro(kind, pass, tx.txg());
        let mut space = 0u64;
        for (start, end) in segments {
            let run = end.saturating_sub(start);
            encoder.segment(kind, vdev, start >> shift, run >> shift)?;
            space = space.saturating_add(run);
        }
        let bytes = encoder.finish();
        self.dnode.write_at(tx, self.phys.length, &bytes)?;
        self.phys.length += bytes.len() as u64;
        self.phys.alloc = match kind {
            MapType::Alloc => self.phys.alloc.saturating_add_unsigned(space),
            MapType::Free => self.phys.alloc.saturating_sub_unsigned(space),
        };
        self.store(tx)
    }

    /// Sets the histogram of free segments, when the map has one.
    pub fn set_histogram(&mut self, tx: &Tx, histogram: &[u64; SPACE_MAP_HISTOGRAM_SIZE]) -> Result<()> {
        if self.phys.histogram.is_some() {
            self.phys.histogram = Some(*histogram);
            self.store(tx)?;
        }
        Ok(())
    }

    /// Removes all entries.
    pub fn truncate(&mut self, tx: &Tx) -> Result<()> {
        self.dnode.free_range(tx, 0, TO_END)?;
        (self.phys.length, self.phys.alloc) = (0, 0);
        if let Some(h) = &mut self.phys.histogram {
            h.fill(0);
        }
        self.store(tx)
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
