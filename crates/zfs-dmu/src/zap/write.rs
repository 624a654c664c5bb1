//! Changing ZAPs: adding, setting and removing entries, and the growth from a micro table to a fat one.
//!
//! A change holds the table's lock from its first look to its last block, so that readers never meet a leaf that was
//! split before its pointers were. The decoded first block that readers use is replaced at the end of each change.
//!
//! Growth, as OpenZFS does it: a micro table's one block grows by a sector at a time up to 128 KiB, then (or for an entry
//! that no micro table holds) the table becomes a fat one with blocks of 16 KiB. A full leaf is split by one more bit of
//! the hash; when that bit is not in the pointer table's index, the table doubles, at first out of the header's second
//! half into a block of its own. It doubles at once and not, as there, one block per insertion: a table that is met
//! half-way is finished first. Leaves are not joined again when entries go.

use super::{MatchMode, MicroIndex, Table, Wanted, Zap, ZapInner, ZapShared, normalized};
use crate::dnode::Dnode;
use crate::liveset::ObjectSpec;
use crate::objset::Objset;
use crate::txg::Tx;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::zap::fat::double_pointers;
use zfs_phys::zap::hash::hash_prefix;
use zfs_phys::zap::leaf_edit::{Fit, LeafMut, NewEntry, stored_name, stored_words};
use zfs_phys::zap::{
    FatHeader, HashParams, LeafEntry, MZAP_ENT_LEN, MZAP_NAME_LEN, MicroEntry, MicroZap, ZAP_FLAG_UINT64_KEY,
    ZAP_MAXNAMELEN_NEW, hash_name, hash_words, init_micro, set_micro_entry,
};
use zfs_zio::{Buf, Error, ErrorKind, Result};

/// Largest block of a micro table (`zap_micro_max_size`).
const MICRO_MAX: usize = 128 << 10;
/// Block size of fat tables (`fzap_default_block_shift`).
const FAT_BLOCK: u32 = 16 << 10;
/// Entries of one hash that a micro table may have: a leaf of a fat one must hold them all.
const MICRO_COLLISIONS: usize = 64;

/// What a new ZAP is to be like, besides the object it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZapSpec {
    /// `NORM_*` flags under which names are hashed.
    pub normflags: u64,
    /// `ZAP_FLAG_*`; any makes it a fat one from the start.
    pub flags: u64,
}

/// A start value for the hash: odd, and different for each table.
fn new_salt(dnode: &Dnode, tx: &Tx) -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut x = COUNT.fetch_add(1, Relaxed) ^ (dnode.object() << 20) ^ (dnode.objset_id() << 44) ^ (tx.txg() << 8);
    for _ in 0..3 {
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(29);
    }
    x | 1
}

/// A key to be changed.
#[derive(Clone, Copy)]
enum Key<'a> {
    Name(&'a [u8]),
    Words(&'a [u64]),
}

impl Key<'_> {
    fn hash(self, params: HashParams, normflags: u64) -> u64 {
        match self {
            Key::Name(name) => hash_name(params, &normalized(name, normflags)),
            Key::Words(words) => hash_words(params, words),
        }
    }

    fn stored(self) -> (Vec<u8>, u16) {
        match self {
            Key::Name(name) => (stored_name(name), name.len() as u16 + 1),
            Key::Words(words) => (stored_words(words), words.len() as u16),
        }
    }
}

/// What to do when the key is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Add,
    Update,
}

/// A value to be stored: big-endian integers of one size.
#[derive(Clone, Copy)]
struct Value<'a> {
    int_len: u8,
    image: &'a [u8],
}

impl Value<'_> {
    /// The value when it is one that micro tables hold.
    fn word(self) -> Option<u64> {
        if self.int_len != 8 {
            return None;
        }
        self.image.try_into().ok().map(u64::from_be_bytes)
    }
}

impl Zap {
    /// Allocates an object with an empty table of names. Gives its number.
    pub fn create(objset: &Arc<Objset>, tx: &Tx, object_type: DmuObjectType, normflags: u64) -> Result<u64> {
        let spec = ObjectSpec { object_type, ..ObjectSpec::default() };
        Ok(Self::create_with(objset, tx, &spec, &ZapSpec { normflags, flags: 0 })?.dnode.object())
    }

    /// Allocates an object with an empty table. A fat one has blocks of the size asked for, or of 16 KiB.
    pub fn create_with(objset: &Arc<Objset>, tx: &Tx, object: &ObjectSpec, zap: &ZapSpec) -> Result<Self> {
        let mut object = *object;
        if zap.flags != 0 && object.block_size == 0 {
            object.block_size = FAT_BLOCK;
        }
        let dnode = objset.allocate(tx, &object)?;
        Self::init_with(objset, tx, &dnode, zap)
    }

    /// Allocates the object of that number with an empty table of names.
    pub fn claim(objset: &Arc<Objset>, tx: &Tx, object: u64, object_type: DmuObjectType) -> Result<Self> {
        let dnode = objset.claim(tx, object, &ObjectSpec { object_type, ..ObjectSpec::default() })?;
        Self::init_with(objset, tx, &dnode, &ZapSpec::default())
    }

    /// Makes an empty table of names in a fresh object.
    pub fn init(objset: &Arc<Objset>, tx: &Tx, dnode: &Arc<Dnode>, normflags: u64) -> Result<Self> {
        Self::init_with(objset, tx, dnode, &ZapSpec { normflags, flags: 0 })
    }

    /// Makes an empty table in a fresh object.
    pub fn init_with(objset: &Arc<Objset>, tx: &Tx, dnode: &Arc<Dnode>, zap: &ZapSpec) -> Result<Self> {
        if !dnode.phys().object_type.is_zap() {
            return Err(Error::invalid("making a ZAP of an object of another type"));
        }
        let salt = new_salt(dnode, tx);
        let mut first = vec![0; dnode.datablksz() as usize];
        if zap.flags == 0 {
            init_micro(&mut first, Endian::NATIVE, salt, zap.normflags)?;
            dnode.write_block(tx, 0, first.into())?;
        } else {
            start_fat(dnode, tx, salt, zap.normflags, zap.flags)?;
        }
        Self::open_dnode(objset, dnode.clone())
    }

    /// Adds a name with a value of 64-bit integers. Fails with `Exists`.
    pub fn add(&self, tx: &Tx, name: &[u8], value: &[u64]) -> Result<()> {
        self.put(tx, Key::Name(name), Value { int_len: 8, image: &stored_words(value) }, Mode::Add)
    }

    /// Adds a name with a value of integers of any size: see [`Zap::update_ints`]. Fails with `Exists`.
    pub fn add_ints(&self, tx: &Tx, name: &[u8], int_len: u8, value: &[u8]) -> Result<()> {
        self.put(tx, Key::Name(name), Value { int_len, image: value }, Mode::Add)
    }

    /// Sets the value of a name to 64-bit integers, whether it is there or not.
    pub fn update(&self, tx: &Tx, name: &[u8], value: &[u64]) -> Result<()> {
        self.put(tx, Key::Name(name), Value { int_len: 8, image: &stored_words(value) }, Mode::Update)
    }

    /// Sets the value of a name to integers of `int_len` bytes: `value` is their image in big-endian byte order (for
    /// strings and byte arrays, `int_len` 1, the bytes).
    pub fn update_ints(&self, tx: &Tx, name: &[u8], int_len: u8, value: &[u8]) -> Result<()> {
        self.put(tx, Key::Name(name), Value { int_len, image: value }, Mode::Update)
    }

    /// Removes a name, compared byte for byte. Fails with `NotFound`.
    pub fn remove(&self, tx: &Tx, name: &[u8]) -> Result<()> {
        self.remove_norm(tx, name, MatchMode::Exact)
    }

    /// Removes a name, compared as `mode` says. Fails with `NotFound`.
    pub fn remove_norm(&self, tx: &Tx, name: &[u8], mode: MatchMode) -> Result<()> {
        let mode = if self.inner.normflags == 0 { MatchMode::Exact } else { mode };
        self.edit(tx, |edit| edit.remove(Key::Name(name), mode))
    }

    /// Adds a delta to the one integer of a name; a sum of 0 removes the name (`zap_increment`).
    pub fn increment(&self, tx: &Tx, name: &[u8], delta: i64) -> Result<()> {
        self.edit(tx, |edit| {
            let old = edit.now.lookup_u64(name)?.unwrap_or(0);
            let new = old.wrapping_add_signed(delta);
            if delta == 0 {
                Ok(())
            } else if new == 0 {
                edit.remove(Key::Name(name), MatchMode::Exact)
            } else {
                edit.put(Key::Name(name), Value { int_len: 8, image: &new.to_be_bytes() }, Mode::Update)
            }
        })
    }

    /// Sets the value of a key of words to 64-bit integers.
    pub fn update_key(&self, tx: &Tx, key: &[u64], value: &[u64]) -> Result<()> {
        self.put(tx, Key::Words(key), Value { int_len: 8, image: &stored_words(value) }, Mode::Update)
    }

    /// Sets the value of a key of words to integers of any size: see [`Zap::update_ints`].
    pub fn update_key_ints(&self, tx: &Tx, key: &[u64], int_len: u8, value: &[u8]) -> Result<()> {
        self.put(tx, Key::Words(key), Value { int_len, image: value }, Mode::Update)
    }

    /// Removes a key of words. Fails with `NotFound`.
    pub fn remove_key(&self, tx: &Tx, key: &[u64]) -> Result<()> {
        self.edit(tx, |edit| edit.remove(Key::Words(key), MatchMode::Exact))
    }

    fn put(&self, tx: &Tx, key: Key<'_>, value: Value<'_>, mode: Mode) -> Result<()> {
        self.edit(tx, |edit| edit.put(key, value, mode))
    }

    /// Makes a change while nobody else looks at the table.
    fn edit<T>(&self, tx: &Tx, f: impl FnOnce(&mut Edit<'_>) -> Result<T>) -> Result<T> {
        let fail = || self.fail(0, "changing a ZAP").with_kind(ErrorKind::ReadOnly);
        let shared: &ZapShared = self.shared.as_ref().ok_or_else(fail)?;
        let mut inner = shared.inner.write();
        let now = Self { dnode: self.dnode.clone(), inner: inner.clone(), shared: None };
        let mut edit = Edit { now, tx };
        let done = f(&mut edit);
        *inner = edit.now.inner;
        shared.version.fetch_add(1, Relaxed);
        done
    }
}

/// A change under way.
struct Edit<'a> {
    /// The table as it is so far.
    now: Zap,
    tx: &'a Tx,
}

impl Edit<'_> {
    fn fail(&self, kind: ErrorKind, what: &'static str) -> Error {
        self.now.fail(0, what).with_kind(kind)
    }

    fn check_key(&self, key: Key<'_>) -> Result<()> {
        let good = match key {
            Key::Name(name) => {
                !self.now.has_word_keys() && !name.is_empty() && name.len() < ZAP_MAXNAMELEN_NEW && !name.contains(&0)
            }
            Key::Words(words) => self.now.has_word_keys() && (1..=32).contains(&words.len()),
        };
        if good { Ok(()) } else { Err(self.fail(ErrorKind::Invalid, "changing a ZAP under a key it cannot have")) }
    }

    fn put(&mut self, key: Key<'_>, value: Value<'_>, mode: Mode) -> Result<()> {
        self.check_key(key)?;
        let whole = usize::from(value.int_len);
        if !matches!(value.int_len, 1 | 2 | 4 | 8) || !value.image.len().is_multiple_of(whole) {
            return Err(self.fail(ErrorKind::Invalid, "storing integers of an impossible size in a ZAP"));
        }
        if let (Table::Micro { .. }, Key::Name(name)) = (&self.now.inner.table, key) {
            if self.put_micro(name, value, mode)? {
                return Ok(());
            }
            self.upgrade()?;
        }
        self.put_fat(key, value, mode, None)
    }

    fn remove(&mut self, key: Key<'_>, mode: MatchMode) -> Result<()> {
        self.check_key(key)?;
        let missing = self.fail(ErrorKind::NotFound, "removing from a ZAP");
        match (&self.now.inner.table, key) {
            (Table::Micro { index }, Key::Name(name)) => {
                let at = self.micro_place(index, name, mode)?.ok_or(missing)?;
                let mut index = index.clone();
                let (_, _, slot) = index.remove(at);
                self.set_micro(slot as usize, None, index)
            }
            _ => {
                let (blkid, e) = self.fat_place(key, mode)?.ok_or(missing)?;
                self.with_leaf(blkid, |mut leaf| leaf.remove(e.hash, e.cd))?;
                let mut header = self.header()?;
                header.num_entries = header.num_entries.saturating_sub(1);
                self.store_header(header)
            }
        }
    }

    /// Place in the index of a name in a micro table.
    fn micro_place(&self, index: &MicroIndex, name: &[u8], mode: MatchMode) -> Result<Option<usize>> {
        let inner = &self.now.inner;
        let wanted = Wanted::new(name, mode, inner.normflags);
        let high = (hash_name(inner.params, &wanted.hashed) >> 32) as u32;
        let zap = MicroZap::decode(&inner.block, inner.endian)?;
        let from = index.partition_point(|(h, _, _)| *h < high);
        let same = index.iter().enumerate().skip(from).take_while(|(_, (h, _, _))| *h == high);
        let hit = |(_, (_, _, slot)): &(usize, &(u32, u32, u32))| {
            zap.entry(*slot as usize).is_some_and(|e| wanted.is(e.name))
        };
        Ok(same.into_iter().find(hit).map(|(at, _)| at))
    }

    /// Puts an entry into a micro table; false when it needs a fat one.
    fn put_micro(&mut self, name: &[u8], value: Value<'_>, mode: Mode) -> Result<bool> {
        let inner = self.now.inner.clone();
        let Table::Micro { index } = &inner.table else { return Ok(false) };
        let place = self.micro_place(index, name, MatchMode::Exact)?;
        if place.is_some() && mode == Mode::Add {
            return Err(self.fail(ErrorKind::Exists, "adding to a ZAP"));
        }
        let Some(word) = value.word().filter(|_| name.len() < MZAP_NAME_LEN) else { return Ok(false) };
        if let Some((_, cd, slot)) = place.and_then(|at| index.get(at)) {
            self.set_micro(*slot as usize, Some(MicroEntry { value: word, cd: *cd, name }), index.clone())?;
            return Ok(true);
        }
        let high = (hash_name(inner.params, &normalized(name, inner.normflags)) >> 32) as u32;
        let from = index.partition_point(|(h, _, _)| *h < high);
        let used: Vec<u32> = index.iter().skip(from).take_while(|(h, _, _)| *h == high).map(|(_, cd, _)| *cd).collect();
        if used.len() >= MICRO_COLLISIONS {
            return Ok(false);
        }
        let cd = (0..).find(|cd| !used.contains(cd)).unwrap_or(0);
        let Some(slot) = self.free_slot(index.len())? else { return Ok(false) };
        let mut index = index.clone();
        let at = index.partition_point(|e| *e < (high, cd, 0));
        index.insert(at, (high, cd, slot as u32));
        self.set_micro(slot, Some(MicroEntry { value: word, cd, name }), index)?;
        Ok(true)
    }

    /// A free slot of a micro table, whose block grows when it has to; nothing when it is as large as it may be.
    fn free_slot(&mut self, used: usize) -> Result<Option<usize>> {
        let size = self.now.inner.block.len();
        let slots = size / MZAP_ENT_LEN - 1;
        if used < slots {
            let zap = MicroZap::decode(&self.now.inner.block, self.now.inner.endian)?;
            // Entries are seldom removed in the middle: the first place to look at is behind the last.
            let found = (used..slots).chain(0..used).find(|i| zap.entry(*i).is_none());
            return Ok(found);
        }
        if size + 512 > MICRO_MAX {
            return Ok(None);
        }
        self.now.dnode.set_blocksize(self.tx, (size + 512) as u32)?;
        Ok(Some(slots))
    }

    fn set_micro(&mut self, slot: usize, entry: Option<MicroEntry<'_>>, index: MicroIndex) -> Result<()> {
        let changed = |block: &mut Vec<u8>| set_micro_entry(block, Endian::NATIVE, slot, entry);
        self.now.dnode.modify_block(self.tx, 0, changed)??;
        let (block, endian) = self.first_block()?;
        let ZapInner { params, normflags, .. } = *self.now.inner;
        self.now.inner = Arc::new(ZapInner { block, endian, table: Table::Micro { index }, params, normflags });
        Ok(())
    }

    fn first_block(&self) -> Result<(Buf, Endian)> {
        let fail = || self.now.fail(0, "ZAP without header");
        self.now.dnode.read_block_endian(0)?.ok_or_else(fail)
    }

    /// Turns a micro table into a fat one.
    fn upgrade(&mut self) -> Result<()> {
        let old = self.now.inner.clone();
        let dnode = self.now.dnode.clone();
        dnode.set_blocksize(self.tx, FAT_BLOCK)?;
        start_fat(&dnode, self.tx, old.params.salt, old.normflags, 0)?;
        let (block, endian) = self.first_block()?;
        self.now.inner = Arc::new(ZapInner::decode(block, endian)?);
        let zap = MicroZap::decode(&old.block, old.endian)?;
        for (_, e) in zap.iter() {
            let image = e.value.to_be_bytes();
            self.put_fat(Key::Name(e.name), Value { int_len: 8, image: &image }, Mode::Add, Some(e.cd))?;
        }
        Ok(())
    }

    fn header(&self) -> Result<FatHeader> {
        match &self.now.inner.table {
            Table::Fat { header } => Ok(*header),
            Table::Micro { .. } => Err(self.fail(ErrorKind::Bug, "a micro ZAP in the place of a fat one")),
        }
    }

    fn store_header(&mut self, header: FatHeader) -> Result<()> {
        self.now.dnode.modify_block(self.tx, 0, |block| header.store(block, Endian::NATIVE))??;
        let (block, endian) = self.first_block()?;
        let ZapInner { params, normflags, .. } = *self.now.inner;
        self.now.inner = Arc::new(ZapInner { block, endian, table: Table::Fat { header }, params, normflags });
        Ok(())
    }

    fn with_leaf<T>(&self, blkid: u64, f: impl FnOnce(LeafMut<'_>) -> zfs_phys::error::Result<T>) -> Result<T> {
        Ok(self.now.dnode.modify_block(self.tx, blkid, |block| LeafMut::open(block, Endian::NATIVE).and_then(f))??)
    }

    /// The leaf and entry of a key in a fat table.
    fn fat_place(&self, key: Key<'_>, mode: MatchMode) -> Result<Option<(u64, LeafEntry)>> {
        let header = self.header()?;
        let inner = &self.now.inner;
        let hash = key.hash(inner.params, inner.normflags);
        let Some((blkid, buf, endian)) = self.now.leaf_for(&header, hash)? else { return Ok(None) };
        let leaf = self.now.decode_leaf(&header, blkid, &buf, endian, hash)?;
        for e in leaf.chain(hash) {
            let e = e?;
            let hit = e.hash == hash
                && match key {
                    Key::Words(words) => usize::from(e.name_numints) == words.len() && leaf.key_words(&e)? == words,
                    Key::Name(name) if mode == MatchMode::Exact => leaf.name_is(&e, name)?,
                    Key::Name(name) => Wanted::new(name, mode, inner.normflags).is(&leaf.name(&e)?),
                };
            if hit {
                return Ok(Some((blkid, e)));
            }
        }
        Ok(None)
    }

    /// Puts an entry into a fat table; `cd` is given for one that comes from a micro table.
    fn put_fat(&mut self, key: Key<'_>, value: Value<'_>, mode: Mode, cd: Option<u32>) -> Result<()> {
        if self.header()?.ptrtbl.nextblk != 0 {
            self.grow_table()?;
        }
        let hash = key.hash(self.now.inner.params, self.now.inner.normflags);
        let (stored, numints) = key.stored();
        loop {
            let fit = match self.fat_place(key, MatchMode::Exact)? {
                Some(_) if mode == Mode::Add => return Err(self.fail(ErrorKind::Exists, "adding to a ZAP")),
                Some((blkid, e)) => {
                    self.with_leaf(blkid, |mut leaf| leaf.update(e.hash, e.cd, value.int_len, value.image))?
                }
                None => {
                    let header = self.header()?;
                    let blkid = self.leaf_block_of(&header, hash)?;
                    let fit = self.with_leaf(blkid, |mut leaf| {
                        let cd = match cd {
                            Some(cd) => cd,
                            None => leaf.unused_cd(hash)?,
                        };
                        leaf.insert(&NewEntry {
                            hash,
                            cd,
                            key: &stored,
                            key_numints: numints,
                            value_intlen: value.int_len,
                            value: value.image,
                        })
                    })?;
                    if fit == Fit::Done {
                        return self.store_header(FatHeader { num_entries: header.num_entries + 1, ..header });
                    }
                    fit
                }
            };
            match fit {
                Fit::Done => return Ok(()),
                Fit::TooBig => return Err(self.fail(ErrorKind::Invalid, "storing an entry that is too big for a ZAP")),
                Fit::Full => self.split(hash)?,
            }
        }
    }

    fn leaf_block_of(&self, header: &FatHeader, hash: u64) -> Result<u64> {
        self.now.leaf_block(header, hash)?.ok_or_else(|| self.now.fail(0, "a ZAP without leaves"))
    }

    /// Splits the leaf that `hash` leads to.
    fn split(&mut self, hash: u64) -> Result<()> {
        let prefix_len = loop {
            let header = self.header()?;
            let fail = || self.now.fail(0, "a hole as ZAP leaf");
            let (blkid, buf, endian) = self.now.leaf_for(&header, hash)?.ok_or_else(fail)?;
            let prefix_len = self.now.decode_leaf(&header, blkid, &buf, endian, hash)?.prefix_len;
            if prefix_len < header.ptrtbl.shift {
                break prefix_len;
            }
            self.grow_table()?;
        };
        let mut header = self.header()?;
        let old = self.leaf_block_of(&header, hash)?;
        let new = header.freeblk;
        header.freeblk += 1;
        header.num_leafs += 1;
        let mut bytes = vec![0; self.now.dnode.datablksz() as usize];
        let sorted = header.normflags != 0;
        self.with_leaf(old, |mut leaf| leaf.split(&mut bytes, sorted).map(|_| ()))?;
        self.now.dnode.write_block(self.tx, new, bytes.into())?;
        let rest = header.ptrtbl.shift - prefix_len - 1;
        let first = (hash_prefix(hash, prefix_len + 1) | 1) << rest;
        self.point(&header, first, 1 << rest, new)?;
        self.store_header(header)
    }

    /// Makes `count` pointers from `first` on lead to leaf `blkid`.
    fn point(&self, header: &FatHeader, first: u64, count: u64, blkid: u64) -> Result<()> {
        let mut index = first;
        while index < first + count {
            let (block, start) = header.pointer_place(index);
            let room = ((1usize << header.block_shift) - start) / 8;
            let n = (first + count - index).min(room as u64);
            self.now.dnode.modify_block(self.tx, block, |bytes| {
                let part = bytes.get_mut(start..start + 8 * n as usize).unwrap_or_default();
                part.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&Endian::NATIVE.put_u64(blkid)));
            })?;
            index += n;
        }
        Ok(())
    }

    /// Doubles the pointer table.
    fn grow_table(&mut self) -> Result<()> {
        let mut header = self.header()?;
        if header.ptrtbl.shift >= header.hash_params().bits() {
            return Err(self.fail(ErrorKind::NoSpace, "a ZAP with too many keys of one hash"));
        }
        let size = 1usize << header.block_shift;
        let (dnode, t) = (self.now.dnode.clone(), &mut header.ptrtbl);
        let old_blocks = t.numblks;
        let count = (old_blocks * 2).max(1);
        if t.nextblk == 0 {
            t.nextblk = header.freeblk;
            header.freeblk += count;
        }
        let (from, to) = (t.blk, t.nextblk);
        for i in 0..count {
            // An embedded table is half a block, as is each piece of the others that fills one new block.
            let source = if old_blocks == 0 { 0 } else { from + i / 2 };
            let at = if old_blocks == 0 || i % 2 == 1 { size / 2 } else { 0 };
            let buf = dnode.read_block(source)?.ok_or_else(|| self.now.fail(source, "a hole as pointer table"))?;
            let mut bytes = vec![0; size];
            double_pointers(buf.get(at..at + size / 2).unwrap_or_default(), &mut bytes);
            dnode.write_block(self.tx, to + i, bytes.into())?;
        }
        (t.blk, t.numblks, t.nextblk, t.blks_copied) = (to, count, 0, 0);
        t.shift += 1;
        self.store_header(header)?;
        if old_blocks > 0 {
            dnode.free_range(self.tx, from * size as u64, old_blocks * size as u64)?;
        }
        Ok(())
    }
}

/// Makes an empty fat table of an object: header and one leaf.
fn start_fat(dnode: &Arc<Dnode>, tx: &Tx, salt: u64, normflags: u64, flags: u64) -> Result<()> {
    let size = dnode.datablksz() as usize;
    let (mut first, mut leaf) = (vec![0; size], vec![0; size]);
    FatHeader::init(&mut first, Endian::NATIVE, salt, normflags, flags)?;
    LeafMut::init(&mut leaf, Endian::NATIVE, normflags != 0 && flags & ZAP_FLAG_UINT64_KEY == 0)?;
    dnode.write_block(tx, 0, first.into())?;
    dnode.write_block(tx, 1, leaf.into())
}
