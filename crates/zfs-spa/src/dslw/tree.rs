//! The pool's table of trees to free: the object sets of destroyed datasets (include/sys/bptree.h).
//!
//! A tree is freed over as many txgs as it takes, children before their parents, so that what is left of it can still be
//! read; the entry's bookmark tells where to go on ([`zfs_dmu::ordered`]), also to OpenZFS, whose unfinished work is
//! taken over in the same way. A crash starts again from the last bookmark, with a tree that is as whole as that says:
//! blocks freed in a txg are not reused before it is on disk.
//!
//! A tree of which something cannot be read keeps its entry, and its place in `freeing`, for a day when it can.

use super::destroy::Budget;
use super::{DslPool, POOL_DIRECTORY, Sums, mosw};
use std::sync::Arc;
use zfs_dmu::ordered::{Outcome, Step, may_pause, walk};
use zfs_dmu::txg::Tx;
use zfs_dmu::{Dnode, Objset, Result};
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::feature::Feature;
use zfs_phys::read::Reader;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Error, ErrorKind, Zbookmark};

/// Bytes of an entry: pointer, txg, and a bookmark of how far an earlier walk came.
const ENTRY: usize = BLKPTR_SIZE + 8 + 32;
/// Object set number under which blocks of destroyed datasets are read (`ZB_DESTROYED_OBJSET`).
const DESTROYED_OBJSET: u64 = u64::MAX;

/// The header of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Header {
    begin: u64,
    end: u64,
    sums: Sums,
}

impl Header {
    fn encode(self) -> Vec<u8> {
        let s = self.sums;
        let words = [self.begin, self.end, s.used as u64, s.comp as u64, s.uncomp as u64];
        words.into_iter().flat_map(|w| Endian::NATIVE.put_u64(w)).collect()
    }

    fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let [begin, end, used, comp, uncomp] = Reader::new(buf, endian, "bptree").u64s()?;
        Ok(Self { begin, end, sums: Sums { used: used as i64, comp: comp as i64, uncomp: uncomp as i64 } })
    }
}

/// A tree to free.
#[derive(Debug, Clone, Copy)]
struct Entry {
    bp: BlkPtr,
    /// Blocks born up to here are somebody else's.
    min_txg: u64,
    /// Where an earlier walk stopped.
    resume: Option<Zbookmark>,
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let bm = self.resume.unwrap_or_default();
        let mut out = self.bp.encode(Endian::NATIVE).to_vec();
        let words = [self.min_txg, bm.objset, bm.object, bm.level as u64, bm.blkid];
        out.extend(words.into_iter().flat_map(|w| Endian::NATIVE.put_u64(w)));
        out
    }

    fn read(dnode: &Dnode, index: u64, endian: Endian) -> Result<Self> {
        let raw = dnode.read_vec(index.saturating_mul(ENTRY as u64), ENTRY)?;
        let mut r = Reader::new(&raw, endian, "bptree entry");
        let bp = BlkPtr::read(&mut r).map_err(Error::from)?;
        let [min_txg, objset, object, level, blkid] = r.u64s().map_err(Error::from)?;
        let resume = (objset != 0).then(|| Zbookmark::new(objset, object, level as i64, blkid));
        Ok(Self { bp, min_txg, resume })
    }

    fn write(&self, dnode: &Dnode, tx: &Tx, index: u64) -> Result<()> {
        dnode.write_at(tx, index.saturating_mul(ENTRY as u64), &self.encode())
    }
}

/// What became of an entry in a txg.
enum Freed {
    All,
    /// The txg has had enough.
    Some,
    /// What is left cannot be read.
    Stuck,
}

impl DslPool {
    /// Puts a tree into the table, which is made when there is none. Pools that know of none are rid of it at once. What is
    /// to be freed was charged before ([`DslPool::charge_free`]).
    pub(super) fn tree_add(&self, tx: &Tx, bp: &BlkPtr, min_txg: u64, sums: Sums) -> Result<()> {
        if !self.ops.feature_enabled(Feature::AsyncDestroy) {
            return self.free_at_once(tx, &Entry { bp: *bp, min_txg, resume: None });
        }
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
        Entry { bp: *bp, min_txg, resume: None }.write(&dnode, tx, header.end)?;
        header.end += 1;
        header.sums = header.sums.plus(sums);
        mosw::set_bonus(&self.mos, tx, table, &header.encode())
    }

    /// Frees trees of the table until the txg has had enough. Gives whether more can be freed in the next.
    pub(super) fn free_trees(&self, tx: &Tx, budget: &mut Budget) -> Result<bool> {
        let Some(table) = mosw::zap_get(&self.mos, POOL_DIRECTORY, "bptree_obj")? else { return Ok(false) };
        let dnode = self.mos.dnode(table)?;
        let before = Header::decode(&dnode.bonus()?, dnode.phys().endian)?;
        let (mut header, mut stuck, mut more) = (before, false, false);
        for index in before.begin..before.end {
            match self.free_entry(tx, &dnode, index, &mut header, budget)? {
                Freed::All if stuck => {
                    // Entries go from the front: this one stays, as one that has nothing to free.
                    let mut entry = Entry::read(&dnode, index, dnode.phys().endian)?;
                    (entry.min_txg, entry.resume) = (u64::MAX, None);
                    entry.write(&dnode, tx, index)?;
                }
                Freed::All => {
                    header.begin = index + 1;
                    dnode.free_range(tx, index.saturating_mul(ENTRY as u64), ENTRY as u64)?;
                }
                Freed::Some => {
                    more = true;
                    break;
                }
                Freed::Stuck => stuck = true,
            }
        }
        if header.begin == header.end {
            self.ops.feature_add(tx, Feature::AsyncDestroy, -1)?;
            mosw::zap_remove(&self.mos, tx, POOL_DIRECTORY, "bptree_obj")?;
            mosw::free(&self.mos, tx, table)?;
            return Ok(false);
        }
        if header != before {
            mosw::set_bonus(&self.mos, tx, table, &header.encode())?;
        }
        Ok(more)
    }

    fn free_at_once(&self, tx: &Tx, entry: &Entry) -> Result<()> {
        let (freed, outcome) = self.free_tree(tx, entry, &mut Budget::endless())?;
        self.charge_free(freed.minus())?;
        if let Outcome::Unreadable(_, error) = outcome {
            tracing::warn!(%error, "what was destroyed cannot be freed, and nothing refers to it any more");
        }
        Ok(())
    }

    fn free_entry(
        &self,
        tx: &Tx,
        dnode: &Arc<Dnode>,
        index: u64,
        header: &mut Header,
        budget: &mut Budget,
    ) -> Result<Freed> {
        let mut entry = Entry::read(dnode, index, dnode.phys().endian)?;
        let (freed, outcome) = self.free_tree(tx, &entry, budget)?;
        self.charge_free(freed.minus())?;
        header.sums = header.sums.plus(freed.minus());
        let (at, result) = match outcome {
            Outcome::Done => return Ok(Freed::All),
            Outcome::Paused(at) => (at, Freed::Some),
            Outcome::Unreadable(at, error) => {
                tracing::warn!(%error, "what was destroyed cannot be freed");
                (at, Freed::Stuck)
            }
        };
        if entry.resume != Some(at) {
            entry.resume = Some(at);
            entry.write(dnode, tx, index)?;
        }
        Ok(result)
    }

    /// Frees blocks of a tree; tells what they took and how it ended.
    fn free_tree(&self, tx: &Tx, entry: &Entry, budget: &mut Budget) -> Result<(Sums, Outcome)> {
        if entry.bp.is_hole() || entry.bp.birth() <= entry.min_txg {
            return Ok((Sums::default(), Outcome::Done));
        }
        let objset = match Objset::open(self.mos.zio(), &entry.bp, DESTROYED_OBJSET, None) {
            Ok(objset) => objset,
            Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Checksum) => {
                let from = entry.resume.unwrap_or(Zbookmark::new(DESTROYED_OBJSET, 0, 0, 0));
                return Ok((Sums::default(), Outcome::Unreadable(from, e)));
            }
            Err(e) => return Err(e),
        };
        let mut sums = Sums::default();
        let outcome = walk(&objset, entry.min_txg, entry.resume, &mut |v| {
            if may_pause(&v.bookmark) && budget.is_spent(&*self.ops) {
                return Ok(Step::Pause);
            }
            budget.spend();
            sums = sums.plus(Sums::of(&*self.ops, v.bp));
            self.ops.free(tx, v.bp).map(|()| Step::Next)
        })?;
        Ok((sums, outcome))
    }
}
