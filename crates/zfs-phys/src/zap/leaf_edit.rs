//! Changing leaf blocks of fat ZAPs in place: the write half of [`super::leaf`].
//!
//! Invariants kept by every operation that returns `Ok`, and checked by [`LeafMut::check`]: each chunk is on the free
//! list, is an entry on exactly one hash chain, or is part of exactly one entry's name or value; `nfree` and `nentries`
//! count them; chains are ordered by collision differentiator; all hashes have the leaf's prefix. Free and unused
//! payload bytes are zero, so that blocks compress.
//!
//! A leaf that came from disk may break all of that. No operation panics or loops on such a leaf, but one that fails
//! half-way leaves it changed: callers check a leaf once when they first open it for writing, or work on a copy.
//!
//! Rejected alternative: decoding a leaf into a list of entries and packing it anew on each change. It is simpler, but
//! touches every byte of the block for each name that is added to a directory.

use super::leaf::{ARRAY_BYTES, CHAIN_END, CHUNK_ARRAY, CHUNK_ENTRY, CHUNK_FREE, CHUNK_SIZE, Leaf};
use super::{ZAP_LEAF_MAGIC, ZBT_LEAF};
use crate::error::{DecodeError, Result};
use crate::read::{Endian, u64_at};
use crate::write::put;
use crate::zap::hash::hash_prefix;

/// Leaf flag: chains are ordered by collision differentiator.
pub const ZLF_ENTRIES_CDSORTED: u8 = 1;
/// With fewer free chunks than this a table is worth growing (`ZAP_LEAF_LOW_WATER`).
pub const ZAP_LEAF_LOW_WATER: u16 = 20;
/// Most bytes a value may have.
pub const ZAP_MAXVALUELEN: usize = 8 * 1024;

const AT_PREFIX: usize = 16;
const AT_MAGIC: usize = 24;
const AT_NFREE: usize = 28;
const AT_NENTRIES: usize = 30;
const AT_PREFIX_LEN: usize = 32;
const AT_FREELIST: usize = 34;
const AT_FLAGS: usize = 36;
/// Within an entry chunk.
const E_NEXT: usize = 2;
const E_NAME: usize = 4;
const E_VALUE: usize = 8;
/// Within an array or free chunk.
const A_NEXT: usize = 22;

/// Whether there was room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fit {
    /// Done.
    Done,
    /// Not enough free chunks: the leaf has to be split first. Nothing was changed.
    Full,
    /// No leaf of this size can hold it. Nothing was changed.
    TooBig,
}

/// An entry to be added.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// Hash of the key.
    pub hash: u64,
    /// Collision differentiator, unused among the entries of that hash.
    pub cd: u32,
    /// The key as stored: [`stored_name`] or [`stored_words`].
    pub key: &'a [u8],
    /// Integers in the key: bytes for names, words otherwise.
    pub key_numints: u16,
    /// Bytes of one integer of the value: 1, 2, 4 or 8.
    pub value_intlen: u8,
    /// The value's integers, each in big-endian order.
    pub value: &'a [u8],
}

/// A name as leaves store it: with its terminating zero.
pub fn stored_name(name: &[u8]) -> Vec<u8> {
    [name, &[0]].concat()
}

/// A key of 64-bit words, or a value of such, as leaves store it.
pub fn stored_words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// Chunks that an array of `bytes` bytes takes.
pub const fn array_chunks(bytes: usize) -> usize {
    bytes.div_ceil(ARRAY_BYTES)
}

/// A leaf block open for changes.
#[derive(Debug)]
pub struct LeafMut<'a> {
    buf: &'a mut [u8],
    endian: Endian,
    hash_shift: u32,
    nchunks: u16,
}

impl<'a> LeafMut<'a> {
    /// Makes an empty leaf of the whole of `buf`, whose length must be a block size; `sorted` for tables with normalized
    /// names.
    pub fn init(buf: &'a mut [u8], endian: Endian, sorted: bool) -> Result<Self> {
        buf.fill(0);
        let hash_bytes = buf.len() / 16;
        put(buf, 0, &endian.put_u64(ZBT_LEAF));
        put(buf, AT_MAGIC, &endian.put_u32(ZAP_LEAF_MAGIC));
        put(buf, AT_FLAGS, &[if sorted { ZLF_ENTRIES_CDSORTED } else { 0 }]);
        if let Some(hash) = buf.get_mut(2 * CHUNK_SIZE..2 * CHUNK_SIZE + hash_bytes) {
            hash.fill(0xff);
        }
        let mut leaf = Self::open(buf, endian)?;
        for i in 0..leaf.nchunks {
            let next = if i + 1 == leaf.nchunks { CHAIN_END } else { i + 1 };
            let at = leaf.chunk_at(i)?;
            leaf.put(at, &[CHUNK_FREE])?;
            leaf.set16(at + A_NEXT, next)?;
        }
        leaf.set16(AT_NFREE, leaf.nchunks)?;
        Ok(leaf)
    }

    /// Opens a leaf; only its header is examined.
    pub fn open(buf: &'a mut [u8], endian: Endian) -> Result<Self> {
        let nchunks = Leaf::decode(buf, endian)?.num_chunks();
        let hash_shift = buf.len().trailing_zeros() - 5;
        // Blocks of more than 1 MiB have more chunks than 16-bit links can name; OpenZFS makes ZAPs of at most 128 KiB.
        let nchunks = u16::try_from(nchunks)
            .ok()
            .filter(|n| *n < CHAIN_END)
            .ok_or_else(|| DecodeError::new("zap leaf", 0, "block is too large for a leaf"))?;
        Ok(Self { buf, endian, hash_shift, nchunks })
    }

    /// The leaf, for reading.
    pub fn leaf(&self) -> Result<Leaf<'_>> {
        Leaf::decode(self.buf, self.endian)
    }

    fn err(&self, at: usize, why: &'static str) -> DecodeError {
        DecodeError::new("zap leaf", at, why)
    }

    fn get16(&self, at: usize) -> Result<u16> {
        let b = self.buf.get(at..at.saturating_add(2)).and_then(|b| b.try_into().ok());
        b.map(|b| self.endian.u16(b)).ok_or_else(|| self.err(at, "outside of the block"))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        if put(self.buf, at, bytes) { Ok(()) } else { Err(self.err(at, "outside of the block")) }
    }

    fn set16(&mut self, at: usize, v: u16) -> Result<()> {
        let bytes = self.endian.put_u16(v);
        self.put(at, &bytes)
    }

    fn chunk_at(&self, index: u16) -> Result<usize> {
        if index >= self.nchunks {
            return Err(self.err(0, "no such chunk"));
        }
        Ok(2 * CHUNK_SIZE + (2usize << self.hash_shift) + usize::from(index) * CHUNK_SIZE)
    }

    fn chunk_type(&self, index: u16) -> Result<u8> {
        let at = self.chunk_at(index)?;
        self.buf.get(at).copied().ok_or_else(|| self.err(at, "outside of the block"))
    }

    fn typed(&self, index: u16, kind: u8) -> Result<usize> {
        let at = self.chunk_at(index)?;
        if self.chunk_type(index)? == kind { Ok(at) } else { Err(self.err(at, "a link to a chunk of another kind")) }
    }

    fn entry_hash(&self, at: usize) -> Result<u64> {
        u64_at(self.buf, at + 16, self.endian).ok_or_else(|| self.err(at, "outside of the block"))
    }

    fn entry_cd(&self, at: usize) -> Result<u32> {
        let b = self.buf.get(at + 12..at + 16).and_then(|b| b.try_into().ok());
        b.map(|b| self.endian.u32(b)).ok_or_else(|| self.err(at, "outside of the block"))
    }

    fn prefix(&self) -> Result<(u64, u16)> {
        let p = u64_at(self.buf, AT_PREFIX, self.endian).ok_or_else(|| self.err(AT_PREFIX, "outside of the block"))?;
        Ok((p, self.get16(AT_PREFIX_LEN)?))
    }

    /// Byte of the hash table's head for `hash`.
    fn head_at(&self, hash: u64) -> Result<usize> {
        let (_, len) = self.prefix()?;
        let slot = hash_prefix(hash << len.min(63), self.hash_shift);
        Ok(2 * CHUNK_SIZE + 2 * slot as usize)
    }

    /// Free chunks.
    pub fn nfree(&self) -> Result<u16> {
        self.get16(AT_NFREE)
    }

    fn alloc(&mut self) -> Result<u16> {
        let chunk = self.get16(AT_FREELIST)?;
        let at = self.typed(chunk, CHUNK_FREE)?;
        let next = self.get16(at + A_NEXT)?;
        let nfree =
            self.nfree()?.checked_sub(1).ok_or_else(|| self.err(AT_NFREE, "the count of free chunks is wrong"))?;
        self.set16(AT_FREELIST, next)?;
        self.set16(AT_NFREE, nfree)?;
        self.put(at, &[0; CHUNK_SIZE])?;
        Ok(chunk)
    }

    fn free_chunk(&mut self, chunk: u16) -> Result<()> {
        let at = self.chunk_at(chunk)?;
        let head = self.get16(AT_FREELIST)?;
        let nfree = self.nfree()?;
        if nfree >= self.nchunks {
            return Err(self.err(AT_NFREE, "the count of free chunks is wrong"));
        }
        self.put(at, &[0; CHUNK_SIZE])?;
        self.put(at, &[CHUNK_FREE])?;
        self.set16(at + A_NEXT, head)?;
        self.set16(AT_FREELIST, chunk)?;
        self.set16(AT_NFREE, nfree + 1)
    }

    /// Chunks of a chain of array chunks, in order.
    fn array_links(&self, first: u16) -> Result<Vec<u16>> {
        let (mut out, mut next) = (Vec::new(), first);
        while next != CHAIN_END {
            let at = self.typed(next, CHUNK_ARRAY)?;
            if out.len() >= usize::from(self.nchunks) {
                return Err(self.err(at, "the chain loops"));
            }
            out.push(next);
            next = self.get16(at + A_NEXT)?;
        }
        Ok(out)
    }

    /// Frees a chain so that its chunks are used again in the same order.
    fn free_array(&mut self, first: u16) -> Result<()> {
        for chunk in self.array_links(first)?.into_iter().rev() {
            self.free_chunk(chunk)?;
        }
        Ok(())
    }

    fn write_array(&mut self, bytes: &[u8]) -> Result<u16> {
        let (mut first, mut link) = (CHAIN_END, None);
        for piece in bytes.chunks(ARRAY_BYTES) {
            let chunk = self.alloc()?;
            let at = self.chunk_at(chunk)?;
            self.put(at, &[CHUNK_ARRAY])?;
            self.put(at + 1, piece)?;
            self.set16(at + A_NEXT, CHAIN_END)?;
            match link {
                Some(prev) => self.set16(prev, chunk)?,
                None => first = chunk,
            }
            link = Some(at + A_NEXT);
        }
        Ok(first)
    }

    /// Puts an entry chunk into its chain, before the first of a greater differentiator.
    fn link_entry(&mut self, chunk: u16) -> Result<()> {
        let at = self.typed(chunk, CHUNK_ENTRY)?;
        let (hash, cd) = (self.entry_hash(at)?, self.entry_cd(at)?);
        let mut link = self.head_at(hash)?;
        for _ in 0..=self.nchunks {
            let next = self.get16(link)?;
            let behind = match next {
                CHAIN_END => true,
                n => self.entry_cd(self.typed(n, CHUNK_ENTRY)?)? > cd,
            };
            if behind {
                self.set16(at + E_NEXT, next)?;
                return self.set16(link, chunk);
            }
            link = self.chunk_at(next)? + E_NEXT;
        }
        Err(self.err(link, "the chain loops"))
    }

    /// Link that leads to the entry, and its chunk.
    fn find(&self, hash: u64, cd: u32) -> Result<Option<(usize, u16)>> {
        let mut link = self.head_at(hash)?;
        for _ in 0..=self.nchunks {
            let chunk = self.get16(link)?;
            if chunk == CHAIN_END {
                return Ok(None);
            }
            let at = self.typed(chunk, CHUNK_ENTRY)?;
            if self.entry_hash(at)? == hash && self.entry_cd(at)? == cd {
                return Ok(Some((link, chunk)));
            }
            link = at + E_NEXT;
        }
        Err(self.err(link, "the chain loops"))
    }

    /// The lowest differentiator that no entry of `hash` has.
    pub fn unused_cd(&self, hash: u64) -> Result<u32> {
        let mut used = Vec::new();
        for e in self.leaf()?.chain(hash) {
            let e = e?;
            if e.hash == hash {
                used.push(e.cd);
            }
        }
        used.sort_unstable();
        Ok(used.into_iter().fold(0, |cd, u| if u == cd { cd.saturating_add(1) } else { cd }))
    }

    /// Adds an entry. An equal key or an equal pair of hash and differentiator must not be there, and the hash must belong
    /// to this leaf.
    pub fn insert(&mut self, e: &NewEntry<'_>) -> Result<Fit> {
        let numints = e.value.len() / usize::from(e.value_intlen.max(1));
        let Ok(value_numints) = u16::try_from(numints) else { return Ok(Fit::TooBig) };
        let need = 1 + array_chunks(e.key.len()) + array_chunks(e.value.len());
        if need > usize::from(self.nchunks) || e.value.len() > ZAP_MAXVALUELEN {
            return Ok(Fit::TooBig);
        }
        if need > usize::from(self.nfree()?) {
            return Ok(Fit::Full);
        }
        if !self.leaf()?.covers(e.hash) {
            return Err(self.err(AT_PREFIX, "an entry that belongs to another leaf"));
        }
        let nentries = self.get16(AT_NENTRIES)?;
        let chunk = self.alloc()?;
        let at = self.chunk_at(chunk)?;
        self.put(at, &[CHUNK_ENTRY, e.value_intlen])?;
        let name = self.write_array(e.key)?;
        let value = self.write_array(e.value)?;
        for (i, v) in [CHAIN_END, name, e.key_numints, value, value_numints].into_iter().enumerate() {
            self.set16(at + E_NEXT + 2 * i, v)?;
        }
        let (cd, hash) = (self.endian.put_u32(e.cd), self.endian.put_u64(e.hash));
        self.put(at + 12, &cd)?;
        self.put(at + 16, &hash)?;
        self.link_entry(chunk)?;
        self.set16(AT_NENTRIES, nentries.saturating_add(1))?;
        Ok(Fit::Done)
    }

    /// Replaces the value of the entry with that hash and differentiator.
    pub fn update(&mut self, hash: u64, cd: u32, value_intlen: u8, value: &[u8]) -> Result<Fit> {
        let Some((_, chunk)) = self.find(hash, cd)? else {
            return Err(self.err(0, "no such entry"));
        };
        let Ok(numints) = u16::try_from(value.len() / usize::from(value_intlen.max(1))) else { return Ok(Fit::TooBig) };
        let at = self.chunk_at(chunk)?;
        let old = self.get16(at + E_VALUE)?;
        let free = usize::from(self.nfree()?) + self.array_links(old)?.len();
        if array_chunks(value.len()) + 2 > usize::from(self.nchunks) || value.len() > ZAP_MAXVALUELEN {
            return Ok(Fit::TooBig);
        }
        if array_chunks(value.len()) > free {
            return Ok(Fit::Full);
        }
        self.free_array(old)?;
        let new = self.write_array(value)?;
        self.put(at + 1, &[value_intlen])?;
        self.set16(at + E_VALUE, new)?;
        self.set16(at + E_VALUE + 2, numints)?;
        Ok(Fit::Done)
    }

    /// Removes the entry with that hash and differentiator; false when there is none.
    pub fn remove(&mut self, hash: u64, cd: u32) -> Result<bool> {
        let Some((link, chunk)) = self.find(hash, cd)? else { return Ok(false) };
        let at = self.chunk_at(chunk)?;
        let (next, name, value) = (self.get16(at + E_NEXT)?, self.get16(at + E_NAME)?, self.get16(at + E_VALUE)?);
        let nentries = self.get16(AT_NENTRIES)?;
        let left = nentries.checked_sub(1).ok_or_else(|| self.err(AT_NENTRIES, "the count of entries is wrong"))?;
        self.set16(link, next)?;
        self.free_array(value)?;
        self.free_array(name)?;
        self.free_chunk(chunk)?;
        self.set16(AT_NENTRIES, left)?;
        Ok(true)
    }

    /// Lengthens the prefix by one bit: entries whose next hash bit is set move to `new`, which becomes a leaf. Both have
    /// room for any entry that the old one had room for, but all entries may end on one side.
    pub fn split<'b>(&mut self, new: &'b mut [u8], sorted: bool) -> Result<LeafMut<'b>> {
        let (prefix, len) = self.prefix()?;
        if new.len() != self.buf.len() || u32::from(len) + 1 + self.hash_shift > 64 {
            return Err(self.err(AT_PREFIX_LEN, "cannot be split further"));
        }
        let flags = self.leaf()?.flags;
        let sorted = sorted || flags & ZLF_ENTRIES_CDSORTED != 0;
        let mut other = LeafMut::init(new, self.endian, sorted)?;
        self.set_prefix(prefix << 1, len + 1)?;
        other.set_prefix(prefix << 1 | 1, len + 1)?;
        self.put(AT_FLAGS, &[if sorted { flags | ZLF_ENTRIES_CDSORTED } else { flags }])?;
        let heads = 2usize << self.hash_shift;
        if let Some(h) = self.buf.get_mut(2 * CHUNK_SIZE..2 * CHUNK_SIZE + heads) {
            h.fill(0xff);
        }
        for chunk in 0..self.nchunks {
            if self.chunk_type(chunk)? != CHUNK_ENTRY {
                continue;
            }
            let hash = self.entry_hash(self.chunk_at(chunk)?)?;
            if hash >> (63 - u32::from(len)) & 1 == 0 {
                self.link_entry(chunk)?;
            } else {
                self.move_entry(chunk, &mut other)?;
            }
        }
        Ok(other)
    }

    fn move_entry(&mut self, chunk: u16, to: &mut LeafMut<'_>) -> Result<()> {
        let at = self.chunk_at(chunk)?;
        let (name, value) = (self.get16(at + E_NAME)?, self.get16(at + E_VALUE)?);
        let new = to.alloc()?;
        let new_at = to.chunk_at(new)?;
        let copy: Vec<u8> = self.buf.get(at..at + CHUNK_SIZE).unwrap_or_default().to_vec();
        to.put(new_at, &copy)?;
        for (first, field) in [(name, E_NAME), (value, E_VALUE)] {
            let links = self.array_links(first)?;
            let mut link = new_at + field;
            for l in links {
                let from = self.chunk_at(l)?;
                let piece: Vec<u8> = self.buf.get(from..from + CHUNK_SIZE).unwrap_or_default().to_vec();
                let c = to.alloc()?;
                let c_at = to.chunk_at(c)?;
                to.put(c_at, &piece)?;
                to.set16(link, c)?;
                link = c_at + A_NEXT;
            }
            to.set16(link, CHAIN_END)?;
        }
        to.link_entry(new)?;
        self.free_array(value)?;
        self.free_array(name)?;
        self.free_chunk(chunk)?;
        let (n, m) = (self.get16(AT_NENTRIES)?, to.get16(AT_NENTRIES)?);
        self.set16(AT_NENTRIES, n.saturating_sub(1))?;
        to.set16(AT_NENTRIES, m.saturating_add(1))
    }

    fn set_prefix(&mut self, prefix: u64, len: u16) -> Result<()> {
        let bytes = self.endian.put_u64(prefix);
        self.put(AT_PREFIX, &bytes)?;
        self.set16(AT_PREFIX_LEN, len)
    }

    /// Takes an empty leaf back to the prefix it had before its last split, so that it covers its empty sibling's hashes
    /// too. An error when it has entries or was never split.
    pub fn unsplit(&mut self) -> Result<()> {
        let (prefix, len) = self.prefix()?;
        if self.get16(AT_NENTRIES)? != 0 || len == 0 {
            return Err(self.err(AT_PREFIX_LEN, "cannot be joined with its sibling"));
        }
        self.set_prefix(prefix >> 1, len - 1)
    }

    /// Examines every link and count of the leaf.
    pub fn check(&self) -> Result<()> {
        let mut seen = vec![false; usize::from(self.nchunks)];
        let mut take = |chunk: u16| match seen.get_mut(usize::from(chunk)) {
            Some(s) if !*s => {
                *s = true;
                Ok(())
            }
            _ => Err(self.err(usize::from(chunk), "a chunk has two places")),
        };
        let (mut free, mut next) = (0u16, self.get16(AT_FREELIST)?);
        while self.nfree()? != 0 && next != CHAIN_END {
            let at = self.typed(next, CHUNK_FREE)?;
            take(next)?;
            free += 1;
            next = self.get16(at + A_NEXT)?;
        }
        if free != self.nfree()? {
            return Err(self.err(AT_NFREE, "the count of free chunks is wrong"));
        }
        let (prefix, len) = self.prefix()?;
        let mut entries = 0u16;
        for slot in 0..1usize << self.hash_shift {
            let mut next = self.get16(2 * CHUNK_SIZE + 2 * slot)?;
            let mut last_cd = 0;
            while next != CHAIN_END {
                let at = self.typed(next, CHUNK_ENTRY)?;
                take(next)?;
                let (hash, cd) = (self.entry_hash(at)?, self.entry_cd(at)?);
                let here = self.head_at(hash)? == 2 * CHUNK_SIZE + 2 * slot;
                if !here || hash_prefix(hash, u32::from(len)) != prefix {
                    return Err(self.err(at, "an entry in the wrong chain"));
                }
                if cd < last_cd && self.leaf()?.flags & ZLF_ENTRIES_CDSORTED != 0 {
                    return Err(self.err(at, "a chain out of order"));
                }
                last_cd = cd;
                let e = self.leaf()?.entry(next)?;
                self.leaf()?.value_bytes(&e)?;
                for field in [E_NAME, E_VALUE] {
                    for l in self.array_links(self.get16(at + field)?)? {
                        take(l)?;
                    }
                }
                entries += 1;
                next = self.get16(at + E_NEXT)?;
            }
        }
        if entries != self.get16(AT_NENTRIES)? {
            return Err(self.err(AT_NENTRIES, "the count of entries is wrong"));
        }
        match seen.iter().position(|s| !s) {
            Some(lost) => Err(self.err(lost, "a chunk has no place")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zap::hash::{HashParams, hash_name};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Vec<u8>, (u64, u32, Vec<u64>)>;

    fn contents(l: &LeafMut<'_>) -> Model {
        let leaf = l.leaf().unwrap();
        let entries = leaf.sorted().unwrap();
        let read = |e: &crate::zap::LeafEntry| {
            let value = crate::zap::leaf::be_words(&leaf.value_bytes(e).unwrap(), usize::from(e.value_intlen));
            (leaf.name(e).unwrap(), (e.hash, e.cd, value))
        };
        entries.iter().map(read).collect()
    }

    proptest! {
        #[test]
        fn edits_keep_every_invariant(
            ops in proptest::collection::vec((0u8..4, 0u32..60, 0usize..12), 1..200), big: bool, sorted: bool, collide: bool,
        ) {
            let endian = if big { Endian::Big } else { Endian::Little };
            let mut block = vec![0xaa; 4096];
            let mut l = LeafMut::init(&mut block, endian, sorted).unwrap();
            let mut model = Model::new();
            for (op, n, len) in ops {
                let name = format!("{n}-{}", "n".repeat(n as usize)).into_bytes();
                let hash = if collide { u64::from(n % 3) << 60 } else { hash_name(HashParams { salt: 1, flags: 0 }, &name) };
                let value: Vec<u64> = (0..len as u64).collect();
                let bytes = stored_words(&value);
                match (op, model.get(&name).cloned()) {
                    (0 | 1, None) => {
                        let cd = l.unused_cd(hash).unwrap();
                        let key = stored_name(&name);
                        let e = NewEntry { hash, cd, key: &key, key_numints: key.len() as u16, value_intlen: 8, value: &bytes };
                        if l.insert(&e).unwrap() == Fit::Done {
                            model.insert(name, (hash, cd, value));
                        }
                    }
                    (2, Some((_, cd, _))) => {
                        if l.update(hash, cd, 8, &bytes).unwrap() == Fit::Done {
                            model.insert(name, (hash, cd, value));
                        }
                    }
                    (3, Some((_, cd, _))) => {
                        prop_assert!(l.remove(hash, cd).unwrap());
                        model.remove(&name);
                    }
                    _ => prop_assert!(!l.remove(hash, 999).unwrap()),
                }
                l.check().unwrap();
            }
            prop_assert_eq!(&contents(&l), &model);
            let mut second = vec![0x55; 4096];
            let other = l.split(&mut second, sorted).unwrap();
            l.check().unwrap();
            other.check().unwrap();
            let (low, high) = (contents(&l), contents(&other));
            prop_assert!(low.values().all(|v| v.0 >> 63 == 0) && high.values().all(|v| v.0 >> 63 == 1));
            prop_assert_eq!(low.into_iter().chain(high).collect::<Model>(), model);
        }

        #[test]
        fn no_leaf_panics(
            mut block in proptest::collection::vec(prop_oneof![any::<u8>(), 250u8..=253, 0u8..20], 512), hash: u64, plen in 0u16..70,
        ) {
            let mut good = vec![0; 512];
            LeafMut::init(&mut good, Endian::Little, false).unwrap();
            block[..26].copy_from_slice(&good[..26]);
            block[26..28].copy_from_slice(&good[26..28]);
            block[32..34].copy_from_slice(&plen.to_le_bytes());
            let mut new = vec![0; 512];
            if let Ok(mut l) = LeafMut::open(&mut block, Endian::Little) {
                let e = NewEntry { hash, cd: 1, key: b"abc", key_numints: 3, value_intlen: 8, value: &[0; 64] };
                let _ = (l.check().is_ok(), l.unused_cd(hash), l.insert(&e), l.update(hash, 0, 8, &[]), l.remove(hash, 0));
                let _ = (l.split(&mut new, true).is_ok(), l.unsplit());
            }
        }
    }

    #[test]
    fn full_leaves_say_so() {
        let mut block = vec![0; 1024];
        let mut l = LeafMut::init(&mut block, Endian::Little, false).unwrap();
        let mut e = NewEntry { hash: 0, cd: 0, key: &[0; 100], key_numints: 100, value_intlen: 8, value: &[0; 8] };
        assert_eq!(l.insert(&NewEntry { value: &[0; 2048], ..e }).unwrap(), Fit::TooBig);
        while l.insert(&e).unwrap() == Fit::Done {
            e.cd += 1;
        }
        assert!(e.cd > 3 && l.nfree().unwrap() < 7 && l.unsplit().is_err());
        for cd in 0..e.cd {
            assert!(l.remove(0, cd).unwrap());
        }
        let mut new = vec![0; 1024];
        l.split(&mut new, false).unwrap();
        assert_eq!(l.leaf().unwrap().prefix_len, 1);
        l.unsplit().unwrap();
        l.check().unwrap();
        assert_eq!(l.leaf().unwrap().prefix_len, 0);
    }
}
