//! Livelists: every block born in a clone, and every one of those that died again, in the order it happened. What is
//! left when the dead are taken from the born is what only the clone has, so that destroying it does not walk a tree
//! that is mostly shared with its origin.
//!
//! A livelist has the form of a deadlist: lists of blocks by birth, each of at most some hundred thousand live blocks,
//! which are freed list by list in later txgs. One that describes little shared any more is given up; lists of which
//! most died are made one ([`super::condense`]).

use super::deadlist::{Deadlist, hex};
use super::{DatasetState, DirState, DslPool, POOL_DIRECTORY, Sums, UsedBy, mosw};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::BlkPtr;
use zfs_phys::dsl::field;
use zfs_phys::feature::Feature;
use zfs_zio::Error;

/// Table of livelists whose clones are gone (`DMU_POOL_DELETED_CLONES`).
const DELETED: &str = "com.delphix:deleted_clones";

/// How long livelists get.
#[derive(Debug)]
pub(super) struct LivelistLimits {
    /// Births after which another list is begun, and blocks alive from which on two stay two
    /// (`zfs_livelist_max_entries`).
    pub(super) entries: AtomicU64,
    /// A clone that shares no more than this part of what it references keeps no livelist, percent
    /// (`zfs_livelist_min_percent_shared`).
    pub(super) shared: AtomicU64,
}

impl Default for LivelistLimits {
    fn default() -> Self {
        Self { entries: AtomicU64::new(500_000), shared: AtomicU64::new(75) }
    }
}

/// The livelist of a clone that is open.
#[derive(Debug)]
pub(super) struct Livelist {
    pub(super) list: Deadlist,
    /// Blocks of the sync under way, from its workers; those that died are marked.
    pending: Vec<(BlkPtr, bool)>,
    /// The txg that last added to it: blocks of one txg are in one list.
    flushed: u64,
    /// Stands for it as long as it is open.
    pub(super) token: Arc<()>,
}

impl Livelist {
    fn new(list: Deadlist) -> Self {
        Self { list, pending: Vec::new(), flushed: 0, token: Arc::default() }
    }
}

impl DatasetState {
    /// A block was born in, or died for, a head.
    pub(super) fn live(&self, bp: &BlkPtr, died: bool) {
        if let Some(live) = &mut *self.livelist.lock()
            && !bp.is_embedded()
            && bp.birth() > self.dir().origin_txg.load(Relaxed)
        {
            live.pending.push((*bp, died));
        }
    }
}

impl DslPool {
    fn livelist_object(&self, dir: &DirState) -> Result<Option<u64>> {
        match self.mos.dnode(dir.object)?.phys().object_type.is_zap() {
            true => mosw::zap_get(&self.mos, dir.object, field::LIVELIST),
            false => Ok(None),
        }
    }

    /// The livelist of a head, as it is stored.
    pub(super) fn load_livelist(&self, dir: &DirState) -> Result<Option<Livelist>> {
        let Some(object) = self.livelist_object(dir)? else { return Ok(None) };
        Ok(Some(Livelist::new(Deadlist::open(self, object)?)))
    }

    /// Begins the livelist of a clone that was just made.
    pub(super) fn start_livelist(&self, tx: &Tx, clone: &DatasetState) -> Result<()> {
        if !self.ops.feature_enabled(Feature::Livelist) {
            return Ok(());
        }
        let dir = clone.dir();
        self.zapify(tx, dir.object)?;
        let list = Deadlist::create(self, tx)?;
        mosw::zap_add(&self.mos, tx, dir.object, field::LIVELIST, list.object)?;
        self.ops.feature_add(tx, Feature::Livelist, 1)?;
        *clone.livelist.lock() = Some(Livelist::new(list));
        Ok(())
    }

    /// Sets after how many births another list of a livelist is begun (`zfs_livelist_max_entries`), and what share of a
    /// clone has to be its origin's for it to keep one, percent (`zfs_livelist_min_percent_shared`).
    pub fn set_livelist_limits(&self, entries: u64, shared: u64) {
        self.livelist.entries.store(entries, Relaxed);
        self.livelist.shared.store(shared, Relaxed);
    }

    /// Gives up the livelist of a directory's head, which is then destroyed by walking its tree.
    pub(super) fn remove_livelist(&self, tx: &Tx, dir: &DirState) -> Result<()> {
        let Some(object) = self.livelist_object(dir)? else { return Ok(()) };
        let open = self.dataset(dir.phys().head_dataset_obj)?.livelist.lock().take();
        if let Some(open) = &open {
            self.quit_condensing(open);
        }
        mosw::zap_remove(&self.mos, tx, dir.object, field::LIVELIST)?;
        let list = open.map_or_else(|| Deadlist::open(self, object), |open| Ok(open.list))?;
        list.destroy(self, tx)?;
        self.ops.feature_add(tx, Feature::Livelist, -1)
    }

    /// After a clone's blocks of a txg were written: what was born and died goes to its livelist.
    pub(super) fn flush_livelist(&self, tx: &Tx, ds: &DatasetState) -> Result<()> {
        let mut slot = ds.livelist.lock();
        let Some(live) = &mut *slot else { return Ok(()) };
        let mut pending = std::mem::take(&mut live.pending);
        if pending.is_empty() {
            return Ok(());
        }
        // Births first; the order in which workers came is chance and shall not be that on disk.
        pending.sort_unstable_by_key(|(bp, died)| (*died, bp.birth(), bp.word));
        let key = tx.txg() - 1;
        let begin = match live.list.newest(self)? {
            None => true,
            Some((newest, list)) => {
                let full = self.births(list)? > self.livelist.entries.load(Relaxed);
                newest < key && live.flushed < tx.txg() && full
            }
        };
        live.flushed = tx.txg();
        if begin {
            live.list.add_key(self, tx, key)?;
        }
        let (born, died): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(_, died)| !died);
        let blocks = |of: Vec<(BlkPtr, bool)>| of.into_iter().map(|(bp, _)| bp).collect::<Vec<_>>();
        live.list.insert_marked(self, tx, &blocks(born), false)?;
        live.list.insert_marked(self, tx, &blocks(died), true)?;
        self.seek_condense(ds, live)?;
        drop(slot);
        let referenced = ds.phys().referenced_bytes;
        let own = ds.dir().phys().breakdown.head;
        let shared = referenced.saturating_sub(own).saturating_mul(100).checked_div(referenced);
        match shared {
            Some(percent) if percent <= self.livelist.shared.load(Relaxed) => self.remove_livelist(tx, &ds.dir()),
            _ => Ok(()),
        }
    }

    fn births(&self, list: u64) -> Result<u64> {
        let list = Bpobj::open(&self.mos, list)?;
        Ok(list.phys().num_blkptrs.saturating_sub(list.phys().num_freed))
    }

    /// The key of the oldest list of a clone's livelist, or 0.
    pub(super) fn oldest_alive(&self, ds: &DatasetState) -> Result<u64> {
        match &mut *ds.livelist.lock() {
            Some(live) => Ok(live.list.lists(self)?.first().map_or(0, |list| list.0)),
            None => Ok(0),
        }
    }

    /// Queues what only a clone has, by its livelist. Gives whether it has one that tells all.
    pub(super) fn queue_livelist(&self, tx: &Tx, ds: &Arc<DatasetState>) -> Result<bool> {
        let dir = ds.dir();
        let phys = dir.phys();
        let Some(live) = ds.livelist.lock().take() else { return Ok(false) };
        self.quit_condensing(&live);
        let sums = live.list.sums();
        let all = (sums.used, sums.comp) == (phys.used_bytes as i64, phys.compressed_bytes as i64);
        if !all || !live.pending.is_empty() || !self.ops.feature_active(Feature::Livelist) {
            *ds.livelist.lock() = Some(live);
            self.remove_livelist(tx, &dir)?;
            return Ok(false);
        }
        let table = match mosw::zap_get(&self.mos, POOL_DIRECTORY, DELETED)? {
            Some(table) => table,
            None => {
                let table = mosw::zap_create(&self.mos, tx, mosw::ZAP_METADATA)?;
                mosw::zap_add(&self.mos, tx, POOL_DIRECTORY, DELETED, table)?;
                table
            }
        };
        mosw::zap_add(&self.mos, tx, table, &hex(live.list.object), live.list.object)?;
        // Blocks inside of their pointers are in no livelist, and count as logical bytes.
        let gone = Sums { uncomp: phys.uncompressed_bytes as i64, ..sums };
        dir.diduse(UsedBy::Head, gone.minus())?;
        self.charge_free(sums)?;
        mosw::zap_remove(&self.mos, tx, dir.object, field::LIVELIST)?;
        Ok(true)
    }

    /// Frees one list of a clone that is gone. Gives whether more are waiting.
    pub(super) fn free_livelist(&self, tx: &Tx) -> Result<bool> {
        let Some(table) = mosw::zap_get(&self.mos, POOL_DIRECTORY, DELETED)? else { return Ok(false) };
        let first = Zap::open(&self.mos, table)?.iter().next().transpose()?.map(|entry| entry.value.first());
        if let Some(object) = first {
            let mut list = Deadlist::open(self, object)?;
            if let Some((key, blocks)) = list.newest(self)? {
                let freed = self.free_live(tx, blocks)?;
                list.drop_key(self, tx, key)?;
                self.charge_free(freed.minus())?;
                return Ok(true);
            }
            list.destroy(self, tx)?;
            mosw::zap_remove(&self.mos, tx, table, &hex(object))?;
            self.ops.feature_add(tx, Feature::Livelist, -1)?;
        }
        if Zap::open(&self.mos, table)?.iter().next().transpose()?.is_some() {
            return Ok(true);
        }
        mosw::zap_remove(&self.mos, tx, POOL_DIRECTORY, DELETED)?;
        mosw::free(&self.mos, tx, table)?;
        Ok(false)
    }

    /// Frees the blocks of a list that were born more often than they died; tells what they took.
    fn free_live(&self, tx: &Tx, list: u64) -> Result<Sums> {
        let list = Bpobj::open(&self.mos, list)?;
        let mut left = Vec::new();
        alive(&list, list.phys().num_blkptrs, &mut left, &|| Ok(()))?;
        left.sort_unstable_by_key(|bp| (bp.birth(), bp.word));
        let mut sums = Sums::default();
        for bp in &left {
            sums = sums.plus(Sums::of(&*self.ops, bp));
            self.ops.free(tx, bp)?;
        }
        Ok(sums)
    }
}

/// Adds those of the first `length` blocks of a list to `keep` that were born more often than they died; duplicates come
/// from blocks that several references share. `go_on` is asked again and again whether to.
pub(super) fn alive(list: &Bpobj, length: u64, keep: &mut Vec<BlkPtr>, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let key = |bp: &BlkPtr| (bp.dva(0).word, bp.birth());
    let mut dead: HashMap<([u64; 2], u64), u64> = HashMap::new();
    list.iterate_part(0..length, |bp, died| {
        if died {
            *dead.entry(key(bp)).or_default() += 1;
        }
        go_on()
    })?;
    let mut unmatched: u64 = dead.values().sum();
    list.iterate_part(0..length, |bp, died| {
        match dead.get_mut(&key(bp)).filter(|n| **n > 0) {
            _ if died => {}
            Some(times) => {
                *times -= 1;
                unmatched -= 1;
            }
            None => keep.push(*bp),
        }
        go_on()
    })?;
    match unmatched {
        0 => Ok(()),
        _ => Err(Error::corrupt("a livelist with blocks that died without being born")),
    }
}
