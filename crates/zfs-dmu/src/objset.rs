//! An object set: numbered objects, found through the dnode array that its header describes.
//!
//! Life cycle: opened once by its header's block pointer. A read-only one is immutable from then on; a writable one
//! ([`crate::liveset`]) gets a new header with each txg that changed it. Decoded dnodes are kept in a bounded cache.
//! Lock order: none needed, the caches' locks are leaves.

use crate::cache::GenCache;
use crate::ctx::{Ctx, Key};
use crate::dnode::{Dnode, Seek};
use crate::live::{Live, next_epoch};
use crate::liveset::{INDIRECT_SHIFT, LiveObjset, ObjectSpec};
use crate::owner::ObjsetOwner;
use crate::tree::Tree;
use crate::zap::ZapInner;
use parking_lot::RwLock;
use std::sync::Arc;
use zfs_phys::dnode::{DNODE_SIZE, DnodePhys};
use zfs_phys::enums::{DmuObjectType, ObjsetType};
use zfs_phys::objset::{OBJSET_MAC_SIZE, OBJSET_SIZE_V3, ObjsetPhys, ZilHeader};
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

/// Bytes of a block of dnodes in new object sets (`DNODE_BLOCK_SIZE`).
const DNODE_BLOCK_SIZE: u32 = 16 << 10;
const DNODE_CACHE: usize = 2048;
const ZAP_CACHE: usize = 128;

/// An object set.
pub struct Objset {
    pub(crate) ctx: Arc<Ctx>,
    /// Where the header is and what it says; replaced by each sync.
    root: RwLock<(BlkPtr, Arc<ObjsetPhys>)>,
    os_type: ObjsetType,
    meta: Arc<Dnode>,
    pub(crate) live: Option<Arc<LiveObjset>>,
    dnodes: GenCache<Arc<Dnode>>,
    pub(crate) zaps: GenCache<Arc<ZapInner>>,
}

impl std::fmt::Debug for Objset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objset({}, {})", self.ctx.objset, self.os_type.name())
    }
}

impl Objset {
    /// Opens the object set whose header `bp` points to. `id` is the dataset's object number in the MOS (0 for the
    /// MOS itself); `key` the unwrapped key of an encrypted dataset, without which names, contents and attributes
    /// fail with [`zfs_zio::ErrorKind::KeyUnavailable`] but descriptors can be walked. With the key the header's MACs are
    /// verified.
    pub fn open(zio: &Arc<Zio>, bp: &BlkPtr, id: u64, key: Option<Arc<Key>>) -> Result<Arc<Self>> {
        Self::open_with(zio, bp, id, key, None)
    }

    /// Opens an object set that will be changed. Encrypted ones are refused.
    pub fn open_writable(
        zio: &Arc<Zio>,
        bp: &BlkPtr,
        id: u64,
        key: Option<Arc<Key>>,
        owner: Arc<dyn ObjsetOwner>,
    ) -> Result<Arc<Self>> {
        if bp.uses_crypt() {
            return Err(Error::unsupported("writing to encrypted datasets is not supported yet by uzfs"));
        }
        Self::open_with(zio, bp, id, key, Some(owner))
    }

    fn open_with(
        zio: &Arc<Zio>,
        bp: &BlkPtr,
        id: u64,
        key: Option<Arc<Key>>,
        owner: Option<Arc<dyn ObjsetOwner>>,
    ) -> Result<Arc<Self>> {
        let bm = Zbookmark::root(id);
        if bp.is_hole() {
            return Err(Error::not_found("an object set that was never written").at(&bm));
        }
        let encrypted = bp.uses_crypt();
        let key = key.filter(|_| encrypted);
        let buf = zio.read(bp, &bm, key.as_ref())?;
        let phys = ObjsetPhys::decode(&buf, bp.endian()).map_err(|e| Error::from(e).at(&bm))?;
        let ctx = Arc::new(Ctx::new(zio.clone(), id, key, encrypted));
        if phys.meta_dnode.datablksz() < DNODE_SIZE as u64 {
            return Err(Error::corrupt("dnode array with blocks of no size").at(&bm));
        }
        let live = owner.map(|owner| LiveObjset::new(owner, bp.lsize()));
        Ok(Arc::new(Self::build(ctx, *bp, phys, live)))
    }

    /// A fresh object set. Nothing of it is on disk before its first sync, which it gets in the txg of its first change.
    pub fn create(zio: &Arc<Zio>, id: u64, os_type: ObjsetType, owner: Arc<dyn ObjsetOwner>) -> Result<Arc<Self>> {
        let spec = ObjectSpec {
            object_type: DmuObjectType::DNODE,
            block_size: DNODE_BLOCK_SIZE,
            indirect_shift: INDIRECT_SHIFT,
            ..ObjectSpec::default()
        };
        let mut meta_dnode = spec.phys()?;
        if os_type != ObjsetType::Meta {
            // Enough levels for all numbers from the start, as OpenZFS has it.
            let per_block = u64::from(DNODE_BLOCK_SIZE) / DNODE_SIZE as u64;
            let mut most = per_block * u64::from(meta_dnode.nblkptr);
            while most < MAX_OBJECT {
                most <<= INDIRECT_SHIFT - 7;
                meta_dnode.nlevels += 1;
            }
        }
        let phys = ObjsetPhys {
            endian: Endian::NATIVE,
            meta_dnode,
            zil_header: ZilHeader::default(),
            os_type,
            flags: 0,
            portable_mac: [0; OBJSET_MAC_SIZE],
            local_mac: [0; OBJSET_MAC_SIZE],
            userused_dnode: None,
            groupused_dnode: None,
            projectused_dnode: None,
        };
        let ctx = Arc::new(Ctx::new(zio.clone(), id, None, false));
        let live = LiveObjset::new(owner, OBJSET_SIZE_V3 as u64);
        Ok(Arc::new(Self::build(ctx, BlkPtr::default(), phys, Some(live))))
    }

    fn build(ctx: Arc<Ctx>, bp: BlkPtr, phys: ObjsetPhys, live: Option<Arc<LiveObjset>>) -> Self {
        let (dnodes, zaps) = (GenCache::new(DNODE_CACHE), GenCache::new(ZAP_CACHE));
        let meta = match &live {
            None => Arc::new(Dnode::new(ctx.clone(), META_DNODE_OBJECT, phys.meta_dnode.clone())),
            Some(live) => live_node(&ctx, live, META_DNODE_OBJECT, phys.meta_dnode.clone()),
        };
        let os_type = phys.os_type;
        Self { ctx, root: RwLock::new((bp, Arc::new(phys))), os_type, meta, live, dnodes, zaps }
    }

    /// The header, as the newest sync left it.
    pub fn phys(&self) -> Arc<ObjsetPhys> {
        self.root.read().1.clone()
    }

    /// The pointer to the header; a hole before the first sync.
    pub fn root_bp(&self) -> BlkPtr {
        self.root.read().0
    }

    /// Whether it can be changed.
    pub fn is_writable(&self) -> bool {
        self.live.is_some()
    }

    pub(crate) fn set_root(&self, bp: BlkPtr, phys: ObjsetPhys) {
        *self.root.write() = (bp, Arc::new(phys));
    }

    /// The dataset's object number; 0 for the MOS.
    pub fn id(&self) -> u64 {
        self.ctx.objset
    }

    /// Byte order of the header.
    pub fn endian(&self) -> Endian {
        self.root.read().1.endian
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

    pub(crate) fn dnodes_per_block(&self) -> u64 {
        self.meta.datablksz() / DNODE_SIZE as u64
    }

    /// The special objects that the header describes itself, besides the dnode array.
    pub fn accounting_dnodes(&self) -> impl Iterator<Item = (u64, DnodePhys)> {
        let p = self.phys();
        let all = [
            (USERUSED_OBJECT, p.userused_dnode.clone()),
            (GROUPUSED_OBJECT, p.groupused_dnode.clone()),
            (PROJECTUSED_OBJECT, p.projectused_dnode.clone()),
        ];
        all.into_iter().filter_map(|(object, d)| d.map(|d| (object, d)))
    }

    /// The object numbered `object`. Fails with [`zfs_zio::ErrorKind::NotFound`] when it is not allocated or the number lies
    /// inside of a dnode of several slots.
    pub fn dnode(&self, object: u64) -> Result<Arc<Dnode>> {
        if object == META_DNODE_OBJECT {
            return Ok(self.meta.clone());
        }
        if let Some(d) = self.dnodes.get(object) {
            if self.still_there(d.clone()).is_ok() {
                return Ok(d);
            }
            // A freed object, until its txg has synced; from then on the number may be another's.
            self.dnodes.remove(object);
        }
        if let Some(d) = self.live.as_ref().and_then(|l| l.find(object)) {
            return self.still_there(d).map(|d| self.remember(d));
        }
        let phys = if object >= MAX_OBJECT {
            let special = self.accounting_dnodes().find(|(n, _)| *n == object);
            special.map(|(_, d)| d)
        } else {
            match self.meta.read_block_endian(object / self.dnodes_per_block())? {
                Some((buf, endian)) => self.find_slot(&buf, endian, object)?,
                None => None,
            }
        };
        let phys = phys.ok_or_else(|| self.no_object(object))?;
        match &self.live {
            None => Ok(self.dnodes.insert(object, Arc::new(Dnode::new(self.ctx.clone(), object, phys)))),
            Some(live) => {
                let node = live.publish(live_node(&self.ctx, live, object, phys));
                self.still_there(node).map(|d| self.remember(d))
            }
        }
    }

    fn no_object(&self, object: u64) -> Error {
        Error::not_found("looking up an object").at(&Zbookmark::new(self.ctx.objset, object, 0, 0))
    }

    fn still_there(&self, node: Arc<Dnode>) -> Result<Arc<Dnode>> {
        if node.live().is_some_and(Live::is_freed) { Err(self.no_object(node.object())) } else { Ok(node) }
    }

    /// Keeps a live object in memory for a while.
    pub(crate) fn remember(&self, node: Arc<Dnode>) -> Arc<Dnode> {
        self.dnodes.replace(node.object(), node.clone());
        node
    }

    /// Drops what is kept of an object that was freed.
    pub(crate) fn forget_object(&self, object: u64) {
        self.dnodes.remove(object);
        self.zaps.remove(object);
        if let Some(live) = &self.live {
            live.forget(object);
        }
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

/// The live object of a descriptor.
pub(crate) fn live_node(ctx: &Arc<Ctx>, live: &Arc<LiveObjset>, object: u64, phys: DnodePhys) -> Arc<Dnode> {
    let tree = Tree { ctx: ctx.clone(), object, phys, epoch: next_epoch() };
    Dnode::new_live(ctx.clone(), object, |me| Live::new(me, live.clone(), tree))
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
                    self.done = self.blkid > self.objset.meta.tree().phys.maxblkid;
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
