//! The pool's table of trees to free: the object sets of destroyed datasets (include/sys/bptree.h).
//!
//! An entry is freed in one txg; nothing of it is written twice, so a crash on the way starts the walk again from a
//! tree that is still whole: blocks freed in a txg are not reused before it is on disk.

use super::{DslPool, POOL_DIRECTORY, Sums, mosw};
use parking_lot::Mutex;
use zfs_dmu::traverse::{Options, traverse};
use zfs_dmu::txg::Tx;
use zfs_dmu::{Objset, Result};
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::feature::Feature;
use zfs_phys::read::Reader;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::Error;

/// Bytes of an entry: pointer, txg, and a bookmark of how far an earlier walk came.
const ENTRY: usize = BLKPTR_SIZE + 8 + 32;
/// Object set number under which blocks of destroyed datasets are read (`ZB_DESTROYED_OBJSET`).
const DESTROYED_OBJSET: u64 = u64::MAX - 1;

/// The header of the table.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    begin: u64,
    end: u64,
    sums: Sums,
}

impl Header {
    fn encode(self) -> Vec<u8> {
        let s = self.sums;
        let words = [self.begin, self.end, s.used as u64, s.comp as u64, s.uncomp as u64];
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let [begin, end, used, comp, uncomp] = Reader::new(buf, endian, "bptree").u64s()?;
        Ok(Self { begin, end, sums: Sums { used: used as i64, comp: comp as i64, uncomp: uncomp as i64 } })
    }
}

impl DslPool {
    /// Puts a tree into the table, which is made when there is none.
    pub(super) fn tree_add(&self, tx: &Tx, bp: &BlkPtr, min_txg: u64, sums: Sums) -> Result<()> {
        let table = match mosw::zap_get(&self.mos, POOL_DIRECTORY, "bptree_obj")? {
            Some(table) => table,
            None => {
                self.ops.feature_add(tx, Feature::AsyncDestroy, 1)?;
                let header = Header::default().encode();
                let ty = mosw::UINT64_METADATA;
                let table = mosw::alloc_sized(&self.mos, tx, ty, 128 << 10, ty, &header)?;
                mosw::zap_add(&self.mos, tx, POOL_DIRECTORY, "bptree_obj", table)?;
                table
            }
        };
        let dnode = self.mos.dnode(table)?;
        let mut header = Header::decode(&dnode.bonus()?, dnode.phys().endian)?;
        let mut entry = bp.encode(Endian::NATIVE).to_vec();
        entry.extend_from_slice(&min_txg.to_le_bytes());
        entry.resize(ENTRY, 0);
        dnode.write_at(tx, header.end.saturating_mul(ENTRY as u64), &entry)?;
        header.end += 1;
        header.sums = header.sums.plus(sums);
        mosw::set_bonus(&self.mos, tx, table, &header.encode())
    }

    /// Frees the first tree of the table. Gives whether more are waiting.
    pub(super) fn free_tree(&self, tx: &Tx) -> Result<bool> {
        let Some(table) = mosw::zap_get(&self.mos, POOL_DIRECTORY, "bptree_obj")? else { return Ok(false) };
        let dnode = self.mos.dnode(table)?;
        let endian = dnode.phys().endian;
        let mut header = Header::decode(&dnode.bonus()?, endian)?;
        if header.begin < header.end {
            let at = header.begin.saturating_mul(ENTRY as u64);
            let raw = dnode.read_vec(at, ENTRY)?;
            let mut r = Reader::new(&raw, endian, "bptree entry");
            let bp = BlkPtr::read(&mut r).map_err(Error::from)?;
            let min_txg = r.u64().map_err(Error::from)?;
            let sums = self.free_one(tx, &bp, min_txg)?;
            self.charge_free(sums.minus())?;
            header.sums = header.sums.plus(sums.minus());
            header.begin += 1;
            mosw::set_bonus(&self.mos, tx, table, &header.encode())?;
            dnode.free_range(tx, at, ENTRY as u64)?;
        }
        if header.begin < header.end {
            return Ok(true);
        }
        self.ops.feature_add(tx, Feature::AsyncDestroy, -1)?;
        mosw::zap_remove(&self.mos, tx, POOL_DIRECTORY, "bptree_obj")?;
        mosw::free(&self.mos, tx, table)?;
        Ok(false)
    }

    /// Frees the blocks of a tree that were born after `min_txg`; tells what they took.
    pub(super) fn free_one(&self, tx: &Tx, root: &BlkPtr, min_txg: u64) -> Result<Sums> {
        if root.is_hole() || root.birth() <= min_txg {
            return Ok(Sums::default());
        }
        let objset = Objset::open(self.mos.zio(), root, DESTROYED_OBJSET, None)?;
        let sums = Mutex::new(Sums::default());
        let options = Options { min_txg, zil: false, ..Options::default() };
        let visit = |v: &zfs_dmu::traverse::Visit<'_>| {
            let s = Sums::of(&*self.ops, v.bp);
            let mut total = sums.lock();
            *total = total.plus(s);
            drop(total);
            self.ops.free(tx, v.bp)
        };
        traverse(&objset, &options, &visit, &|_, e| Err(e))?;
        Ok(sums.into_inner())
    }
}
