//! An object set: numbered objects, found through the dnode array that its header describes.
//!
//! Life cycle: opened once by its header's block pointer; immutable from then on. Decoded dnodes are kept in a bounded
//! cache. Lock order: none needed, the caches' locks are leaves.

use crate::cache::GenCache;
use crate::ctx::{Ctx, Key};
use crate::dnode::{Dnode, Seek};
use crate::zap::ZapInner;
use std::sync::Arc;
use zfs_phys::dnode::{DNODE_SIZE, DnodePhys};
use zfs_phys::objset::ObjsetPhys;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, Error, Result, Zbookmark, Zio};

/// Object number under which the dnode array is known.
pub const META_DNODE_OBJECT: u64 = 0;
/// Object number of the users' space accounting.
pub const USERUSED_OBJECT: u64 = u64::MAX;
/// Object number of the groups' space accounting.
pub const GROUPUSED_OBJECT: u64 = u64::MAX - 1;
/// Object number of the projects' space accounting.
pub const PROJECTUSED_OBJECT: u64 = u64::MAX - 2;
/// First number that no object has (`DN_MAX_OBJECT`).
pub const MAX_OBJECT: u64 = 1 << 48;

const DNODE_CACHE: usize = 2048;
const ZAP_CACHE: usize = 128;

/// An object set.
pub struct Objset {
    pub(crate) ctx: Arc<Ctx>,
    bp: BlkPtr,
    phys: ObjsetPhys,
    meta: Arc<Dnode>,
    dnodes: GenCache<Arc<Dnode>>,
    pub(crate) zaps: GenCache<Arc<ZapInner>>,
}

impl std::fmt::Debug for Objset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objset({}, {})", self.ctx.objset, self.phys.os_type.name())
    }
}

impl Objset {
    /// Opens the object set whose header `bp` points to. `id` is the dataset's object number in the MOS (0 for the
    /// MOS itself); `key` the unwrapped key of an encrypted dataset, without which names, contents and attributes
    /// fail with [`zfs_zio::ErrorKind::KeyUnavailable`] but descriptors can be walked. With the key the header's MACs are
    /// verified.
    pub fn open(zio: &Arc<Zio>, bp: &BlkPtr, id: u64, key: Option<Arc<Key>>) -> Result<Arc<Self>> {
        let bm = Zbookmark::root(id);
        if bp.is_hole() {
            return Err(Error::not_found("an object set that was never written").at(&bm));
        }
        let encrypted = bp.uses_crypt();
        let key = key.filter(|_| encrypted);
        let buf = zio.read(bp, &bm, key.as_ref())?;
        let phys = ObjsetPhys::decode(&buf, bp.endian()).map_err(|e| Error::from(e).at(&bm))?;
        let ctx = Arc::new(Ctx::new(zio.clone(), id, key, encrypted));
        let meta = Arc::new(Dnode::new(ctx.clone(), META_DNODE_OBJECT, phys.meta_dnode.clone()));
        if meta.datablksz() < DNODE_SIZE as u64 {
            return Err(Error::corrupt("dnode array with blocks of no size").at(&bm));
        }
        let (dnodes, zaps) = (GenCache::new(DNODE_CACHE), GenCache::new(ZAP_CACHE));
        Ok(Arc::new(Self { ctx, bp: *bp, phys, meta, dnodes, zaps }))
    }

    /// The header.
    pub fn phys(&self) -> &ObjsetPhys {
        &self.phys
    }

    /// The pointer to the header.
    pub fn root_bp(&self) -> &BlkPtr {
        &self.bp
    }

    /// The dataset's object number; 0 for the MOS.
    pub fn id(&self) -> u64 {
        self.ctx.objset
    }

    /// Byte order of the header.
    pub fn endian(&self) -> Endian {
        self.phys.endian
    }

    /// Where its blocks are read.
    pub fn zio(&self) -> &Arc<Zio> {
        &self.ctx.zio
    }

    /// The key it was opened with.
    pub fn key(&self) -> Option<&Arc<Key>> {
        self.ctx.key.as_ref()
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.ctx.encrypted
    }

    /// The object that holds all dnodes.
    pub fn meta_dnode(&self) -> &Arc<Dnode> {
        &self.meta
    }

    fn dnodes_per_block(&self) -> u64 {
        self.meta.datablksz() / DNODE_SIZE as u64
    }

    /// The special objects that the header describes itself, besides the dnode array.
    pub fn accounting_dnodes(&self) -> impl Iterator<Item = (u64, &DnodePhys)> {
        let p = &self.phys;
        let all = [
            (USERUSED_OBJECT, &p.userused_dnode),
            (GROUPUSED_OBJECT, &p.groupused_dnode),
            (PROJECTUSED_OBJECT, &p.projectused_dnode),
        ];
        all.into_iter().filter_map(|(object, d)| d.as_ref().map(|d| (object, d)))
    }

    /// The object numbered `object`. Fails with [`zfs_zio::ErrorKind::NotFound`] when it is not allocated or the number lies
    /// inside of a dnode of several slots.
    pub fn dnode(&self, object: u64) -> Result<Arc<Dnode>> {
        if object == META_DNODE_OBJECT {
            return Ok(self.meta.clone());
        }
        if let Some(d) = self.dnodes.get(object) {
            return Ok(d);
        }
        let phys = if object >= MAX_OBJECT {
            let special = self.accounting_dnodes().find(|(n, _)| *n == object);
            special.map(|(_, d)| d.clone())
        } else {
            match self.meta.read_block_endian(object / self.dnodes_per_block())? {
                Some((buf, endian)) => self.find_slot(&buf, endian, object)?,
                None => None,
            }
        };
        let phys = phys.ok_or_else(|| {
            let bm = Zbookmark::new(self.ctx.objset, object, 0, 0);
            Error::not_found("looking up an object").at(&bm)
        })?;
        Ok(self.dnodes.insert(object, Arc::new(Dnode::new(self.ctx.clone(), object, phys))))
    }

    fn find_slot(&self, block: &[u8], endian: Endian, object: u64) -> Result<Option<DnodePhys>> {
        let wanted = (object % self.dnodes_per_block()) as usize;
        match slots(block, 0).find(|(slot, _)| *slot >= wanted) {
            Some((slot, raw)) if slot == wanted => self.decode_dnode(raw, endian, object).map(Some),
            _ => Ok(None),
        }
    }

    fn decode_dnode(&self, raw: &[u8], endian: Endian, object: u64) -> Result<DnodePhys> {
        let bm = Zbookmark::new(self.ctx.objset, object, 0, 0);
        match DnodePhys::decode(raw, endian) {
            Ok(Some(d)) => Ok(d),
            Ok(None) => Err(Error::not_found("looking up an object").at(&bm)),
            Err(e) => Err(Error::from(e).at(&bm)),
        }
    }

    /// The smallest allocated object number above `after`; start with 0. Regions without objects are skipped without
    /// being read.
    pub fn next_object(&self, after: u64) -> Result<Option<u64>> {
        let per_block = self.dnodes_per_block();
        let mut object = after.saturating_add(1);
        while object < MAX_OBJECT {
            let Some(blkid) = self.meta.next_block(object / per_block, Seek::Data)? else { return Ok(None) };
            let first = blkid.saturating_mul(per_block);
            object = object.max(first);
            if let Some(buf) = self.meta.read_block(blkid)? {
                let from = (object - first) as usize;
                if let Some((slot, _)) = slots(&buf, 0).find(|(slot, _)| *slot >= from) {
                    return Ok(Some(first + slot as u64));
                }
            }
            object = first.saturating_add(per_block);
        }
        Ok(None)
    }

    /// All allocated objects with their descriptors, in order. A block of dnodes that cannot be read gives its error
    /// and is skipped.
    pub fn objects(&self) -> Objects<'_> {
        Objects { objset: self, blkid: 0, block: None, slot: 0, left: self.ctx.block_limit, done: false }
    }
}

/// The allocated dnodes of a block, from slot `from` on: slot and bytes to the end of the block. The inner slots of
/// large dnodes are stepped over.
pub(crate) fn slots(block: &[u8], from: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut slot = from;
    std::iter::from_fn(move || {
        loop {
            let raw = block.get(slot.checked_mul(DNODE_SIZE)?..).filter(|raw| raw.len() >= DNODE_SIZE)?;
            let here = slot;
            // Type is the first byte, the count of extra slots the thirteenth; both hold in either byte order.
            if raw.first().is_some_and(|&t| t == 0) {
                slot += 1;
                continue;
            }
            slot += 1 + raw.get(12).copied().map_or(0, usize::from);
            return Some((here, raw));
        }
    })
}

/// Iterator over all objects of an object set.
pub struct Objects<'a> {
    objset: &'a Objset,
    blkid: u64,
    block: Option<(Buf, Endian)>,
    slot: usize,
    /// Blocks that may still be read: see `Ctx::block_limit`.
    left: u64,
    done: bool,
}

impl Objects<'_> {
    fn next_block(&mut self) -> Result<bool> {
        let meta = &self.objset.meta;
        let found = match meta.next_block(self.blkid, Seek::Data) {
            Ok(Some(blkid)) if blkid < MAX_OBJECT => blkid,
            Ok(_) => return Ok(false),
            Err(e) => {
                // An indirect block is lost, and everything below it; the error names it.
                let lost = e.bookmark().filter(|bm| bm.level > 0 && bm.object == META_DNODE_OBJECT);
                let (level, blkid) = lost.map_or((1, self.blkid >> meta.epbs()), |bm| (bm.level as u32, bm.blkid));
                let next = blkid.saturating_add(1).checked_shl(level * meta.epbs()).unwrap_or(u64::MAX);
                self.blkid = next.max(self.blkid.saturating_add(1));
                return Err(e);
            }
        };
        let Some(left) = self.left.checked_sub(1) else {
            self.blkid = u64::MAX;
            return Err(Error::corrupt("more blocks of dnodes than the pool can hold"));
        };
        self.left = left;
        self.blkid = found + 1;
        self.slot = 0;
        self.block = meta.read_block_endian(found)?;
        Ok(true)
    }
}

impl Iterator for Objects<'_> {
    type Item = Result<(u64, DnodePhys)>;

    fn next(&mut self) -> Option<Self::Item> {
        let per_block = self.objset.dnodes_per_block();
        loop {
            if self.done {
                return None;
            }
            if let Some((buf, endian)) = &self.block {
                let hit = slots(buf, self.slot).next();
                if let Some((slot, raw)) = hit {
                    let object = (self.blkid - 1).saturating_mul(per_block).saturating_add(slot as u64);
                    let got = self.objset.decode_dnode(raw, *endian, object);
                    self.slot = slot + 1 + raw.get(12).copied().map_or(0, usize::from);
                    return Some(got.map(|d| (object, d)));
                }
                self.block = None;
            }
            match self.next_block() {
                Ok(true) => {}
                Ok(false) => self.done = true,
                Err(e) => {
                    self.done = self.blkid > self.objset.meta.phys().maxblkid;
                    return Some(Err(e));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_step_over_large_dnodes() {
        let mut block = vec![0u8; 16 * DNODE_SIZE];
        for (slot, extra) in [(1, 0), (3, 3), (8, 0), (14, 7)] {
            block[slot * DNODE_SIZE] = 19;
            block[slot * DNODE_SIZE + 12] = extra;
        }
        block[4 * DNODE_SIZE] = 99; // bonus bytes of the dnode in slot 3
        let got: Vec<_> = slots(&block, 0).map(|(s, _)| s).collect();
        assert_eq!(got, [1, 3, 8, 14]);
    }
}
