//! ZAP objects: lookup by name or by words, and iteration in hash order.
//!
//! What a table's first block says is decoded once and kept in the object set's cache ([`ZapInner`]): for a micro ZAP
//! the index by hash, for a fat one the header. Leaf blocks are read through the ARC and decoded in place. Lookups
//! never allocate more than the value they return.
//!
//! Invariants that bound the work on corrupt tables: a leaf is used only if its prefix covers the hash that led to
//! it and is no longer than the pointer table's index, so an iteration meets each leaf at most once; chains inside
//! of a leaf are bounded by its chunks.

use crate::dnode::Dnode;
use crate::objset::Objset;
use parking_lot::RwLock;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use zfs_phys::Endian;
use zfs_phys::unicode::{TEXTPREP_TOUPPER, textprep};
use zfs_phys::zap::fat::LeafPointer;
use zfs_phys::zap::leaf::be_words;
use zfs_phys::zap::{FatHeader, HashParams, Leaf, LeafEntry, MicroZap, ZapKind, hash_name, hash_words};
use zfs_zio::{Buf, Error, Result};

pub use cursor::{Cursor, Entries};

mod cursor;
mod write;

pub use write::ZapSpec;

/// Cursor position behind the last entry.
pub const CURSOR_END: u64 = u64::MAX;
/// Largest first block (header or micro ZAP) that is kept decoded.
const KEEP_MICRO: usize = 128 << 10;

/// How a name is compared with those stored (`matchtype_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchMode {
    /// Byte for byte.
    Exact,
    /// After normalization and case folding as the table demands (`MT_NORMALIZE`).
    Normalize,
    /// After normalization but without case folding (`MT_NORMALIZE | MT_MATCH_CASE`).
    NormalizeMatchCase,
}

/// A value: integers of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZapValue {
    /// Bytes of each integer: 1, 2, 4 or 8.
    pub integer_length: u8,
    /// Number of integers.
    pub count: usize,
    first: u64,
    // Big-endian image; left empty when there is at most one integer, which spares directories an allocation.
    image: Vec<u8>,
}

impl ZapValue {
    fn one(v: u64) -> Self {
        Self { integer_length: 8, count: 1, first: v, image: Vec::new() }
    }

    fn of(leaf: &Leaf<'_>, e: &LeafEntry) -> Result<Self> {
        let count = usize::from(e.value_numints);
        let image = if count > 1 { leaf.value_bytes(e)? } else { Vec::new() };
        Ok(Self { integer_length: e.value_intlen, count, first: leaf.first_value(e)?, image })
    }

    /// The first integer; 0 when there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The integer when the value is exactly one.
    pub fn as_u64(&self) -> Option<u64> {
        (self.count == 1).then_some(self.first)
    }

    /// All integers.
    pub fn u64s(&self) -> Vec<u64> {
        match self.count {
            0 => Vec::new(),
            1 => vec![self.first],
            _ => be_words(&self.image, usize::from(self.integer_length)),
        }
    }

    /// The bytes of an array of bytes; of other arrays the big-endian image.
    pub fn bytes(&self) -> Vec<u8> {
        match self.count {
            0 => Vec::new(),
            1 => self.first.to_be_bytes().into_iter().skip(8 - usize::from(self.integer_length.min(8))).collect(),
            _ => self.image.clone(),
        }
    }

    /// A string: bytes up to the first zero.
    pub fn string(&self) -> Vec<u8> {
        let mut b = self.bytes();
        b.truncate(b.iter().position(|&c| c == 0).unwrap_or(b.len()));
        b
    }
}

/// The key of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZapKey {
    /// A name, without terminating zero.
    Name(Vec<u8>),
    /// An array of words.
    Words(Vec<u64>),
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZapEntry {
    /// Its key.
    pub key: ZapKey,
    /// Its value.
    pub value: ZapValue,
    /// Hash of the key.
    pub hash: u64,
    /// Tells entries of equal hash apart.
    pub cd: u32,
    /// Cursor position just behind this entry.
    pub next_cookie: u64,
}

impl ZapEntry {
    /// The name; empty for a table with word keys.
    pub fn name(&self) -> &[u8] {
        match &self.key {
            ZapKey::Name(n) => n,
            ZapKey::Words(_) => &[],
        }
    }

    /// The words of the key; empty for a table with names.
    pub fn words(&self) -> &[u64] {
        match &self.key {
            ZapKey::Name(_) => &[],
            ZapKey::Words(w) => w,
        }
    }
}

/// A hit of [`Zap::lookup_norm`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZapMatch {
    /// The name as stored.
    pub name: Vec<u8>,
    /// The value.
    pub value: ZapValue,
}

/// Place of an entry in a micro ZAP, by which they are sorted: upper half of the hash, collision differentiator.
type MicroIndex = Vec<(u32, u32, u32)>;

pub(crate) enum Table {
    Micro { index: MicroIndex },
    Fat { header: FatHeader },
}

/// The decoded first block of a ZAP.
pub(crate) struct ZapInner {
    pub(crate) block: Buf,
    pub(crate) endian: Endian,
    pub(crate) table: Table,
    pub(crate) params: HashParams,
    normflags: u64,
}

/// What all users of one live ZAP share: its first block as it is now, and the lock that makes changes of several
/// blocks one step for readers.
pub(crate) struct ZapShared {
    pub(crate) inner: RwLock<Arc<ZapInner>>,
    /// Changes made so far: what a cursor keeps of a leaf is good for one number.
    pub(crate) version: AtomicU64,
}

/// An open ZAP object.
#[derive(Clone)]
pub struct Zap {
    pub(crate) dnode: Arc<Dnode>,
    /// The first block; of a table that can change, as it was when the table was opened.
    pub(crate) inner: Arc<ZapInner>,
    /// There for objects that can change.
    pub(crate) shared: Option<Arc<ZapShared>>,
}

impl Zap {
    /// Opens object `object`. Fails with [`zfs_zio::ErrorKind::NotFound`] when there is no such object and with
    /// [`zfs_zio::ErrorKind::Invalid`] when it is no ZAP.
    pub fn open(objset: &Arc<Objset>, object: u64) -> Result<Self> {
        Self::open_dnode(objset, objset.dnode(object)?)
    }

    /// Opens the ZAP of a dnode of `objset`.
    pub fn open_dnode(objset: &Arc<Objset>, dnode: Arc<Dnode>) -> Result<Self> {
        if dnode.live().is_some() {
            let shared = Self::share(&dnode)?;
            let inner = shared.inner.read().clone();
            return Ok(Self { dnode, inner, shared: Some(shared) });
        }
        if let Some(inner) = objset.zaps.get(dnode.object()) {
            return Ok(Self { dnode, inner, shared: None });
        }
        let inner = Arc::new(Self::read_first(&dnode)?);
        let inner = match inner.block.len() > KEEP_MICRO {
            true => inner,
            false => objset.zaps.insert(dnode.object(), inner),
        };
        Ok(Self { dnode, inner, shared: None })
    }

    fn read_first(dnode: &Arc<Dnode>) -> Result<ZapInner> {
        let fail = |e: Error| e.at(&dnode.ctx.bookmark(dnode.object(), 0, 0));
        if !dnode.phys().object_type.is_zap() {
            return Err(fail(Error::invalid("opening an object that is no ZAP")));
        }
        let (block, endian) = dnode.read_block_endian(0)?.ok_or_else(|| fail(Error::corrupt("ZAP without header")))?;
        ZapInner::decode(block, endian).map_err(fail)
    }

    /// What the users of a live table share.
    fn share(dnode: &Arc<Dnode>) -> Result<Arc<ZapShared>> {
        let slot = dnode.live().map(|live| &live.zap);
        if let Some(shared) = slot.and_then(|s| s.get()) {
            return Ok(shared.clone());
        }
        let inner = RwLock::new(Arc::new(Self::read_first(dnode)?));
        let shared = Arc::new(ZapShared { inner, version: AtomicU64::new(0) });
        Ok(slot.map_or(shared.clone(), |s| s.get_or_init(|| shared).clone()))
    }

    /// Runs `f` on the table as it is now, which stays so meanwhile.
    fn now<T>(&self, f: impl FnOnce(&Self) -> T) -> T {
        match &self.shared {
            None => f(self),
            Some(shared) => {
                let inner = shared.inner.read();
                f(&Self { dnode: self.dnode.clone(), inner: inner.clone(), shared: None })
            }
        }
    }

    /// The object.
    pub fn dnode(&self) -> &Arc<Dnode> {
        &self.dnode
    }

    /// Number of entries.
    pub fn count(&self) -> u64 {
        self.now(|zap| match &zap.inner.table {
            Table::Micro { index } => index.len() as u64,
            Table::Fat { header } => header.num_entries,
        })
    }

    /// The header, when the ZAP is a fat one; of a table that can change, as it was when the table was opened.
    pub fn fat_header(&self) -> Option<&FatHeader> {
        match &self.inner.table {
            Table::Micro { .. } => None,
            Table::Fat { header } => Some(header),
        }
    }

    /// The first block with its byte order, as read.
    pub fn first_block(&self) -> (&Buf, Endian) {
        (&self.inner.block, self.inner.endian)
    }

    /// `NORM_*` flags under which names are hashed.
    pub fn normflags(&self) -> u64 {
        self.inner.normflags
    }

    /// Start value of the hash.
    pub fn salt(&self) -> u64 {
        self.inner.params.salt
    }

    /// Whether keys are arrays of words.
    pub fn has_word_keys(&self) -> bool {
        self.fat_header().is_some_and(FatHeader::has_word_keys)
    }

    fn fail(&self, blkid: u64, what: &'static str) -> Error {
        Error::corrupt(what).at(&self.dnode.ctx.bookmark(self.dnode.object(), 0, blkid))
    }

    /// The value of a name, compared byte for byte.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<ZapValue>> {
        Ok(self.now(|zap| zap.find(name, MatchMode::Exact))?.map(|m| m.value))
    }

    /// The one integer that a name stands for. A value of another shape is an error.
    pub fn lookup_u64(&self, name: &[u8]) -> Result<Option<u64>> {
        let Some(v) = self.lookup(name)? else { return Ok(None) };
        v.as_u64().map(Some).ok_or_else(|| self.fail(0, "a ZAP value that should be one integer"))
    }

    /// Looks up a name as `mode` says; in a table without normalization every mode is exact.
    pub fn lookup_norm(&self, name: &[u8], mode: MatchMode) -> Result<Option<ZapMatch>> {
        let mode = if self.inner.normflags == 0 { MatchMode::Exact } else { mode };
        self.now(|zap| zap.find(name, mode))
    }

    /// The value of a key of words.
    pub fn lookup_key(&self, key: &[u64]) -> Result<Option<ZapValue>> {
        self.now(|zap| zap.find_key(key))
    }

    fn find_key(&self, key: &[u64]) -> Result<Option<ZapValue>> {
        let Table::Fat { header } = &self.inner.table else { return Ok(None) };
        if !header.has_word_keys() {
            return Err(self.fail(0, "a lookup by words in a ZAP of names").with_kind(zfs_zio::ErrorKind::Invalid));
        }
        let hash = hash_words(self.inner.params, key);
        let Some((blkid, buf, endian)) = self.leaf_for(header, hash)? else { return Ok(None) };
        let leaf = self.decode_leaf(header, blkid, &buf, endian, hash)?;
        for e in leaf.chain(hash) {
            let e = e?;
            if e.hash == hash && usize::from(e.name_numints) == key.len() && leaf.key_words(&e)? == key {
                return ZapValue::of(&leaf, &e).map(Some);
            }
        }
        Ok(None)
    }

    fn find(&self, name: &[u8], mode: MatchMode) -> Result<Option<ZapMatch>> {
        if name.is_empty() || name.contains(&0) || self.has_word_keys() {
            return Ok(None);
        }
        let wanted = Wanted::new(name, mode, self.inner.normflags);
        let hash = hash_name(self.inner.params, &wanted.hashed);
        match &self.inner.table {
            Table::Micro { index } => self.find_micro(index, hash, &wanted),
            Table::Fat { header } => self.find_fat(header, hash, &wanted),
        }
    }

    fn find_micro(&self, index: &MicroIndex, hash: u64, wanted: &Wanted<'_>) -> Result<Option<ZapMatch>> {
        let high = (hash >> 32) as u32;
        let zap = MicroZap::decode(&self.inner.block, self.inner.endian)?;
        let from = index.partition_point(|(h, _, _)| *h < high);
        for (_, _, slot) in index.iter().skip(from).take_while(|(h, _, _)| *h == high) {
            if let Some(e) = zap.entry(*slot as usize).filter(|e| wanted.is(e.name)) {
                return Ok(Some(ZapMatch { name: e.name.to_vec(), value: ZapValue::one(e.value) }));
            }
        }
        Ok(None)
    }

    fn find_fat(&self, header: &FatHeader, hash: u64, wanted: &Wanted<'_>) -> Result<Option<ZapMatch>> {
        let Some((blkid, buf, endian)) = self.leaf_for(header, hash)? else { return Ok(None) };
        let leaf = self.decode_leaf(header, blkid, &buf, endian, hash)?;
        for e in leaf.chain(hash) {
            let e = e?;
            if e.hash != hash {
                continue;
            }
            if wanted.compare.is_none() {
                if leaf.name_is(&e, wanted.name)? {
                    let value = ZapValue::of(&leaf, &e)?;
                    return Ok(Some(ZapMatch { name: wanted.name.to_vec(), value }));
                }
                continue;
            }
            let name = leaf.name(&e)?;
            if wanted.is(&name) {
                return Ok(Some(ZapMatch { name, value: ZapValue::of(&leaf, &e)? }));
            }
        }
        Ok(None)
    }

    /// Block number of the leaf that `hash` leads to; nothing for an empty table being torn down.
    pub(crate) fn leaf_block(&self, header: &FatHeader, hash: u64) -> Result<Option<u64>> {
        let blkid = match header.leaf_pointer(&self.inner.block, self.inner.endian, hash)? {
            LeafPointer::Block(b) => b,
            LeafPointer::InTable { blkid, offset } => {
                let (buf, endian) =
                    self.dnode.read_block_endian(blkid)?.ok_or_else(|| self.fail(blkid, "a hole as pointer table"))?;
                zfs_phys::read::u64_at(&buf, offset, endian)
                    .ok_or_else(|| self.fail(blkid, "pointer table block too short"))?
            }
        };
        Ok((blkid != 0).then_some(blkid))
    }

    pub(crate) fn leaf_for(&self, header: &FatHeader, hash: u64) -> Result<Option<(u64, Buf, Endian)>> {
        let Some(blkid) = self.leaf_block(header, hash)? else { return Ok(None) };
        let (buf, endian) =
            self.dnode.read_block_endian(blkid)?.ok_or_else(|| self.fail(blkid, "a hole as ZAP leaf"))?;
        Ok(Some((blkid, buf, endian)))
    }

    pub(crate) fn decode_leaf<'a>(
        &self,
        header: &FatHeader,
        blkid: u64,
        buf: &'a [u8],
        endian: Endian,
        hash: u64,
    ) -> Result<Leaf<'a>> {
        let leaf = Leaf::decode(buf, endian)
            .map_err(|e| Error::from(e).at(&self.dnode.ctx.bookmark(self.dnode.object(), 0, blkid)))?;
        if !leaf.covers(hash) || leaf.prefix_len > header.ptrtbl.shift {
            return Err(self.fail(blkid, "a ZAP leaf in the wrong place"));
        }
        Ok(leaf)
    }

    /// A cursor at a position that an earlier one gave; 0 is the start.
    pub fn cursor(&self, cookie: u64) -> Cursor {
        Cursor::new(self.clone(), cookie)
    }

    /// All entries in the order of cursors. An error ends the iteration.
    pub fn iter(&self) -> Entries {
        Entries(self.cursor(0))
    }
}

impl ZapInner {
    fn decode(block: Buf, endian: Endian) -> Result<Self> {
        if ZapKind::of(&block, endian)? == ZapKind::Fat {
            let header = FatHeader::decode(&block, endian)?;
            let (params, normflags) = (header.hash_params(), header.normflags);
            return Ok(Self { block, endian, table: Table::Fat { header }, params, normflags });
        }
        let zap = MicroZap::decode(&block, endian)?;
        let (params, normflags) = (HashParams { salt: zap.salt, flags: 0 }, zap.normflags);
        let mut index = MicroIndex::new();
        for (slot, e) in zap.iter() {
            let hash = hash_name(params, &normalized(e.name, normflags));
            index.push(((hash >> 32) as u32, e.cd, slot as u32));
        }
        index.sort_unstable();
        Ok(Self { block, endian, table: Table::Micro { index }, params, normflags })
    }
}

fn normalized(name: &[u8], flags: u64) -> Cow<'_, [u8]> {
    if flags == 0 { Cow::Borrowed(name) } else { Cow::Owned(textprep(name, flags)) }
}

/// A name being looked for.
struct Wanted<'a> {
    name: &'a [u8],
    /// Form that is hashed: always under the table's own flags.
    hashed: Cow<'a, [u8]>,
    /// Form and flags under which names are compared; nothing for byte by byte.
    compare: Option<(Cow<'a, [u8]>, u64)>,
}

impl<'a> Wanted<'a> {
    fn new(name: &'a [u8], mode: MatchMode, normflags: u64) -> Self {
        let flags = match mode {
            MatchMode::Exact => None,
            MatchMode::Normalize => Some(normflags),
            MatchMode::NormalizeMatchCase => Some(normflags & !TEXTPREP_TOUPPER),
        };
        let compare = flags.map(|f| (normalized(name, f), f));
        Self { name, hashed: normalized(name, normflags), compare }
    }

    fn is(&self, stored: &[u8]) -> bool {
        match &self.compare {
            None => stored == self.name,
            Some((form, flags)) => *form == normalized(stored, *flags),
        }
    }
}
