//! Deadlists that change: blocks of the previous snapshot that a dataset no longer references, grouped by birth.
//!
//! A deadlist is a ZAP from a txg to a list of blocks born after it (and not after the next key). Every snapshot adds
//! the key of its predecessor, so that destroying a snapshot frees whole lists without looking at their blocks. Lists
//! without blocks share the pool's one empty list, which a feature counts the uses of.
//!
//! Invariant: the header's sums are those of all lists. Pools before version 26 keep one plain list instead of the
//! table; they are not written.

use super::{DslPool, Sums, add, mosw};
use std::collections::BTreeMap;
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::BlkPtr;
use zfs_phys::Endian;
use zfs_phys::dsl::DeadlistPhys;
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_zio::Error;

/// An open deadlist.
#[derive(Debug)]
pub(super) struct Deadlist {
    pub(super) object: u64,
    phys: DeadlistPhys,
    /// Key to list, once loaded.
    tree: Option<BTreeMap<u64, u64>>,
}

impl Deadlist {
    pub(super) fn create(pool: &DslPool, tx: &Tx) -> Result<Self> {
        let header = DeadlistPhys::default().encode(Endian::NATIVE);
        let object = mosw::zap_create_bonus(&pool.mos, tx, Ot::DEADLIST, Ot::DEADLIST_HDR, &header)?;
        Ok(Self { object, phys: DeadlistPhys::default(), tree: Some(BTreeMap::new()) })
    }

    pub(super) fn open(pool: &DslPool, object: u64) -> Result<Self> {
        let dnode = pool.mos.dnode(object)?;
        let phys = dnode.phys();
        if phys.object_type != Ot::DEADLIST {
            return Err(Error::unsupported("writing to a pool with deadlists of the old form"));
        }
        let header = DeadlistPhys::decode(&dnode.bonus()?, phys.endian).map_err(Error::from)?;
        Ok(Self { object, phys: header, tree: None })
    }

    /// Sums of all blocks.
    pub(super) fn sums(&self) -> Sums {
        Sums { used: self.phys.used as i64, comp: self.phys.comp as i64, uncomp: self.phys.uncomp as i64 }
    }

    fn tree(&mut self, pool: &DslPool) -> Result<&mut BTreeMap<u64, u64>> {
        if self.tree.is_none() {
            let mut tree = BTreeMap::new();
            for entry in Zap::open(&pool.mos, self.object)?.iter() {
                let entry = entry?;
                tree.insert(key_of(entry.name())?, entry.value.first());
            }
            self.tree = Some(tree);
        }
        self.tree.as_mut().ok_or_else(|| Error::corrupt("deadlist without table"))
    }

    fn change(&mut self, pool: &DslPool, tx: &Tx, by: Sums) -> Result<()> {
        add(&mut self.phys.used, by.used, "a deadlist's size is negative")?;
        add(&mut self.phys.comp, by.comp, "a deadlist's compressed size is negative")?;
        add(&mut self.phys.uncomp, by.uncomp, "a deadlist's logical size is negative")?;
        mosw::set_bonus(&pool.mos, tx, self.object, &self.phys.encode(Endian::NATIVE))
    }

    /// Puts blocks on it.
    pub(super) fn insert(&mut self, pool: &DslPool, tx: &Tx, blocks: &[BlkPtr]) -> Result<()> {
        self.insert_marked(pool, tx, blocks, false)
    }

    /// Puts blocks on it; those of a livelist that died again are marked and taken from the sums.
    pub(super) fn insert_marked(&mut self, pool: &DslPool, tx: &Tx, blocks: &[BlkPtr], died: bool) -> Result<()> {
        let mut groups: BTreeMap<u64, Vec<BlkPtr>> = BTreeMap::new();
        let mut sums = Sums::default();
        let tree = self.tree(pool)?;
        for bp in blocks {
            let below = tree.range(..bp.birth()).next_back();
            let key = below.map(|(key, _)| *key);
            let key = key.ok_or_else(|| Error::corrupt("a dead block older than every snapshot"))?;
            groups.entry(key).or_default().push(*bp);
            sums = sums.plus(Sums::of(&*pool.ops, bp));
        }
        for (key, blocks) in groups {
            let list = self.own_list(pool, tx, key)?;
            Bpobj::open(&pool.mos, list)?.enqueue_all(tx, &blocks, died)?;
        }
        self.change(pool, tx, if died { sums.minus() } else { sums })
    }

    /// The newest key and its list.
    pub(super) fn newest(&mut self, pool: &DslPool) -> Result<Option<(u64, u64)>> {
        Ok(self.tree(pool)?.last_key_value().map(|(key, list)| (*key, *list)))
    }

    /// Keys and their lists, oldest first.
    pub(super) fn lists(&mut self, pool: &DslPool) -> Result<Vec<(u64, u64)>> {
        Ok(self.tree(pool)?.iter().map(|(key, list)| (*key, *list)).collect())
    }

    /// Removes a key with its list, whose blocks are free.
    pub(super) fn drop_key(&mut self, pool: &DslPool, tx: &Tx, key: u64) -> Result<()> {
        let Some(list) = self.tree(pool)?.remove(&key) else { return Ok(()) };
        mosw::zap_remove(&pool.mos, tx, self.object, &hex(key))?;
        let sums = pool.bpobj_sums(list)?;
        self.change(pool, tx, sums.minus())?;
        if pool.is_empty_bpobj(list) { pool.empty_bpobj_release(tx) } else { Bpobj::destroy(&pool.mos, tx, list) }
    }

    /// The list of `key`, one of its own in place of the shared empty one.
    fn own_list(&mut self, pool: &DslPool, tx: &Tx, key: u64) -> Result<u64> {
        let object = self.object;
        let slot = self.tree(pool)?.get_mut(&key).ok_or_else(|| Error::corrupt("deadlist without that key"))?;
        if pool.is_empty_bpobj(*slot) {
            *slot = pool.bpobj_create(tx)?;
            mosw::zap_set(&pool.mos, tx, object, &hex(key), *slot)?;
            let made = *slot;
            pool.empty_bpobj_release(tx)?;
            return Ok(made);
        }
        Ok(*slot)
    }

    /// Hangs a whole list into the one of `key`.
    fn enqueue_list(&mut self, pool: &DslPool, tx: &Tx, key: u64, list: u64) -> Result<()> {
        let object = self.object;
        let slot = self.tree(pool)?.get_mut(&key).ok_or_else(|| Error::corrupt("deadlist without that key"))?;
        if pool.is_empty_bpobj(*slot) {
            *slot = list;
            mosw::zap_set(&pool.mos, tx, object, &hex(key), list)?;
            return pool.empty_bpobj_release(tx);
        }
        let slot = *slot;
        pool.enqueue_subobj(tx, slot, list)
    }

    /// Adds a key that there is not.
    pub(super) fn add_key(&mut self, pool: &DslPool, tx: &Tx, key: u64) -> Result<()> {
        let list = pool.empty_bpobj_hold(tx)?;
        mosw::zap_add(&pool.mos, tx, self.object, &hex(key), list)?;
        self.tree(pool)?.insert(key, list);
        Ok(())
    }

    pub(super) fn has_key(&mut self, pool: &DslPool, key: u64) -> Result<bool> {
        Ok(self.tree(pool)?.contains_key(&key))
    }

    /// Removes a key; its blocks go to the key before.
    pub(super) fn remove_key(&mut self, pool: &DslPool, tx: &Tx, key: u64) -> Result<()> {
        let object = self.object;
        let tree = self.tree(pool)?;
        let list = tree.get(&key).copied().ok_or_else(|| Error::corrupt("deadlist without a snapshot's key"))?;
        let before = tree.range(..key).next_back().map(|(k, _)| *k);
        let before = before.ok_or_else(|| Error::corrupt("deadlist without an older key"))?;
        self.enqueue_list(pool, tx, before, list)?;
        self.tree(pool)?.remove(&key);
        mosw::zap_remove(&pool.mos, tx, object, &hex(key))
    }

    /// A new deadlist with the keys below `max`, all without blocks.
    pub(super) fn clone_keys(&mut self, pool: &DslPool, tx: &Tx, max: u64) -> Result<Self> {
        let keys: Vec<u64> = self.tree(pool)?.range(..max).map(|(k, _)| *k).collect();
        let mut new = Self::create(pool, tx)?;
        for key in keys {
            new.add_key(pool, tx, key)?;
        }
        Ok(new)
    }

    /// Sums of the blocks born after `min` and not after `max`; both are keys (or `max` is [`u64::MAX`]).
    pub(super) fn sums_between(&mut self, pool: &DslPool, min: u64, max: u64) -> Result<Sums> {
        if min >= max {
            return Ok(Sums::default());
        }
        let lists: Vec<u64> = self.tree(pool)?.range(min..max).map(|(_, list)| *list).collect();
        let mut sums = Sums::default();
        for list in lists {
            sums = sums.plus(pool.bpobj_sums(list)?);
        }
        Ok(sums)
    }

    /// Moves the blocks born after `min` to the list `to`.
    pub(super) fn move_to(&mut self, pool: &DslPool, tx: &Tx, to: u64, min: u64) -> Result<()> {
        let object = self.object;
        let moved: Vec<(u64, u64)> = self.tree(pool)?.range(min..).map(|(k, l)| (*k, *l)).collect();
        let mut sums = Sums::default();
        for (key, list) in moved {
            sums = sums.plus(pool.bpobj_sums(list)?);
            pool.enqueue_subobj(tx, to, list)?;
            mosw::zap_remove(&pool.mos, tx, object, &hex(key))?;
            self.tree(pool)?.remove(&key);
        }
        self.change(pool, tx, sums.minus())
    }

    /// Takes over all blocks of `other`, which is left empty.
    pub(super) fn merge(&mut self, pool: &DslPool, tx: &Tx, mut other: Self) -> Result<Self> {
        let lists: Vec<(u64, u64)> = other.tree(pool)?.iter().map(|(k, l)| (*k, *l)).collect();
        let mut sums = Sums::default();
        for (key, list) in lists {
            sums = sums.plus(pool.bpobj_sums(list)?);
            let at = self.tree(pool)?.range(..=key).next_back().map(|(k, _)| *k);
            let at = at.ok_or_else(|| Error::corrupt("deadlist without an older key"))?;
            self.enqueue_list(pool, tx, at, list)?;
            mosw::zap_remove(&pool.mos, tx, other.object, &hex(key))?;
        }
        self.change(pool, tx, sums)?;
        other.tree = Some(BTreeMap::new());
        other.phys = DeadlistPhys::default();
        mosw::set_bonus(&pool.mos, tx, other.object, &other.phys.encode(Endian::NATIVE))?;
        Ok(other)
    }

    /// Frees the deadlist and its lists; not the blocks on them, which somebody else references.
    pub(super) fn destroy(mut self, pool: &DslPool, tx: &Tx) -> Result<()> {
        let lists: Vec<u64> = self.tree(pool)?.values().copied().collect();
        for list in lists {
            if pool.is_empty_bpobj(list) {
                pool.empty_bpobj_release(tx)?;
            } else {
                Bpobj::destroy(&pool.mos, tx, list)?;
            }
        }
        mosw::free(&pool.mos, tx, self.object)
    }
}

/// Integer keys are spelled in hexadecimal.
pub(super) fn hex(key: u64) -> String {
    format!("{key:x}")
}

fn key_of(name: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(name).ok();
    text.and_then(|t| u64::from_str_radix(t, 16).ok())
        .ok_or_else(|| Error::corrupt("deadlist with a key that is no txg"))
}
