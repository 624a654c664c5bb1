//! Leaf blocks of fat ZAPs (include/sys/zap_leaf.h): a header, a hash table of chain heads, and 24-byte chunks that
//! are entries, pieces of names and values, or free.
//!
//! A [`Leaf`] borrows the block and decodes chunks on demand; chains are followed for no more steps than there are
//! chunks, so a looping chain ends in an error.

use super::hash::hash_prefix;
use super::{ZAP_LEAF_MAGIC, ZBT_LEAF};
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};

/// Bytes of a chunk; the header takes two.
pub const CHUNK_SIZE: usize = 24;
/// Payload bytes of an array chunk.
pub const ARRAY_BYTES: usize = 21;
/// Ends a chain of chunks.
pub const CHAIN_END: u16 = 0xffff;
/// Type byte of a free chunk.
pub const CHUNK_FREE: u8 = 253;
/// Type byte of an entry chunk.
pub const CHUNK_ENTRY: u8 = 252;
/// Type byte of an array chunk.
pub const CHUNK_ARRAY: u8 = 251;

/// A leaf block.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    hash: &'a [u8],
    chunks: &'a [u8],
    endian: Endian,
    hash_shift: u32,
    /// Leading hash bits that all entries share.
    pub prefix: u64,
    /// How many bits those are.
    pub prefix_len: u32,
    /// Entries in the leaf.
    pub nentries: u16,
    /// Free chunks.
    pub nfree: u16,
    /// `ZLF_*` flags; bit 0: chains are sorted by collision differentiator.
    pub flags: u8,
}

/// An entry chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafEntry {
    /// Hash of the key.
    pub hash: u64,
    /// Collision differentiator.
    pub cd: u32,
    /// Bytes of one integer of the value: 1, 2, 4 or 8.
    pub value_intlen: u8,
    /// Integers in the value.
    pub value_numints: u16,
    /// Integers in the key: bytes with the terminating zero for names, words otherwise.
    pub name_numints: u16,
    name_chunk: u16,
    value_chunk: u16,
    next: u16,
}

impl<'a> Leaf<'a> {
    /// Decodes the header; the length of `buf` must be the object's block size.
    pub fn decode(buf: &'a [u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "zap leaf");
        if !buf.len().is_power_of_two() || !(512..=16 << 20).contains(&buf.len()) {
            return Err(r.err(format!("block of {} bytes", buf.len())));
        }
        if r.u64()? != ZBT_LEAF {
            return Err(DecodeError::new("zap leaf", 0, "wrong block type"));
        }
        r.skip(8)?;
        let prefix = r.u64()?;
        if r.u32()? != ZAP_LEAF_MAGIC {
            return Err(DecodeError::new("zap leaf", 24, "wrong magic"));
        }
        let (nfree, nentries, prefix_len, _freelist) = (r.u16()?, r.u16()?, r.u16()?, r.u16()?);
        let flags = r.u8()?;
        r.seek(2 * CHUNK_SIZE)?;
        let hash_shift = buf.len().trailing_zeros() - 5;
        let prefix_len = u32::from(prefix_len);
        if prefix_len + hash_shift > 64 {
            return Err(r.err(format!("prefix of {prefix_len} bits")));
        }
        let hash = r.bytes(2usize << hash_shift)?;
        let count = ((buf.len() - (2usize << hash_shift)) / CHUNK_SIZE).saturating_sub(2);
        let chunks = r.bytes(count * CHUNK_SIZE)?;
        Ok(Self { hash, chunks, endian, hash_shift, prefix, prefix_len, nentries, nfree, flags })
    }

    /// Chunks in the leaf.
    pub fn num_chunks(&self) -> usize {
        self.chunks.len() / CHUNK_SIZE
    }

    /// Whether keys of `hash` belong into this leaf.
    pub fn covers(&self, hash: u64) -> bool {
        hash_prefix(hash, self.prefix_len) == self.prefix
    }

    /// First hash after all that this leaf covers, or nothing when it covers the last.
    pub fn next_hash(&self, hash: u64) -> Option<u64> {
        if self.prefix_len == 0 {
            return None;
        }
        let span = if self.prefix_len >= 64 { 0 } else { u64::MAX >> self.prefix_len };
        (hash | span).checked_add(1)
    }

    fn err(&self, chunk: u16, why: &'static str) -> DecodeError {
        let offset = 2 * CHUNK_SIZE + self.hash.len() + usize::from(chunk) * CHUNK_SIZE;
        DecodeError::new("zap leaf", offset, why)
    }

    fn chunk(&self, index: u16) -> Result<&'a [u8]> {
        let start = usize::from(index) * CHUNK_SIZE;
        self.chunks.get(start..start + CHUNK_SIZE).ok_or_else(|| self.err(index, "no such chunk"))
    }

    /// Decodes the entry in chunk `index`.
    pub fn entry(&self, index: u16) -> Result<LeafEntry> {
        // The order of the fields: kind, length of the value's integers, next, name, value, differentiator, hash.
        let fixed: Option<&[u8; 24]> = self.chunk(index)?.first_chunk();
        let &[kind, value_intlen, n0, n1, a0, a1, b0, b1, c0, c1, d0, d1, cd @ .., h0, h1, h2, h3, h4, h5, h6, h7] =
            fixed.ok_or_else(|| self.err(index, "no such chunk"))?;
        if kind != CHUNK_ENTRY {
            return Err(self.err(index, "not an entry"));
        }
        let short = |a, b| self.endian.u16([a, b]);
        let (next, name_chunk, name_numints) = (short(n0, n1), short(a0, a1), short(b0, b1));
        let (value_chunk, value_numints) = (short(c0, c1), short(d0, d1));
        let (cd, hash) = (self.endian.u32(cd), self.endian.u64([h0, h1, h2, h3, h4, h5, h6, h7]));
        if !matches!(value_intlen, 1 | 2 | 4 | 8) {
            return Err(self.err(index, "impossible integer length"));
        }
        Ok(LeafEntry { hash, cd, value_intlen, value_numints, name_numints, name_chunk, value_chunk, next })
    }

    /// The entries whose hash leads to the same chain as `hash`, in chain order.
    pub fn chain(&self, hash: u64) -> Chain<'a> {
        let slot = hash_prefix(hash << self.prefix_len.min(63), self.hash_shift);
        self.chain_at(slot as usize)
    }

    fn chain_at(&self, slot: usize) -> Chain<'a> {
        let head = self.hash.get(slot * 2..slot * 2 + 2).and_then(|b| b.try_into().ok());
        Chain { leaf: *self, next: head.map_or(CHAIN_END, |b| self.endian.u16(b)), left: self.num_chunks() }
    }

    /// All entries, sorted by hash and collision differentiator: the order of ZAP cursors.
    pub fn sorted(&self) -> Result<Vec<LeafEntry>> {
        let mut out = Vec::with_capacity(usize::from(self.nentries).min(self.num_chunks()));
        for slot in 0..1usize << self.hash_shift {
            for e in self.chain_at(slot) {
                let e = e?;
                if out.len() >= self.num_chunks() {
                    return Err(self.err(0, "chains share entries"));
                }
                out.push(e);
            }
        }
        out.sort_unstable_by_key(|e| (e.hash, e.cd));
        Ok(out)
    }

    fn pieces(&self, first: u16, bytes: usize) -> Pieces<'a> {
        Pieces { leaf: *self, next: first, left: bytes }
    }

    fn array(&self, first: u16, bytes: usize) -> Result<Vec<u8>> {
        if bytes.div_ceil(ARRAY_BYTES) > self.num_chunks() {
            return Err(self.err(first, "array longer than the leaf"));
        }
        let mut out = Vec::with_capacity(bytes);
        for p in self.pieces(first, bytes) {
            out.extend_from_slice(p?);
        }
        Ok(out)
    }

    /// The name of an entry, without its terminating zero.
    pub fn name(&self, e: &LeafEntry) -> Result<Vec<u8>> {
        let mut n = self.array(e.name_chunk, usize::from(e.name_numints))?;
        let end = n.iter().position(|&b| b == 0).unwrap_or(n.len());
        n.truncate(end);
        Ok(n)
    }

    /// Whether the stored name is exactly `name` (given without terminating zero).
    pub fn name_is(&self, e: &LeafEntry, name: &[u8]) -> Result<bool> {
        if usize::from(e.name_numints) != name.len() + 1 {
            return Ok(false);
        }
        let mut rest = name;
        for p in self.pieces(e.name_chunk, name.len()) {
            let p = p?;
            match rest.strip_prefix(p) {
                Some(tail) => rest = tail,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The key of an entry whose table has word keys.
    pub fn key_words(&self, e: &LeafEntry) -> Result<Vec<u64>> {
        Ok(be_words(&self.array(e.name_chunk, usize::from(e.name_numints) * 8)?, 8))
    }

    /// Bytes of the value: `value_numints` big-endian integers of `value_intlen` bytes.
    pub fn value_bytes(&self, e: &LeafEntry) -> Result<Vec<u8>> {
        self.array(e.value_chunk, usize::from(e.value_numints) * usize::from(e.value_intlen))
    }

    /// First integer of the value; 0 when there is none.
    pub fn first_value(&self, e: &LeafEntry) -> Result<u64> {
        if e.value_numints == 0 {
            return Ok(0);
        }
        let mut v = 0u64;
        for p in self.pieces(e.value_chunk, usize::from(e.value_intlen)) {
            v = p?.iter().fold(v, |v, &b| (v << 8) | u64::from(b));
        }
        Ok(v)
    }
}

/// Splits big-endian integers of `intlen` bytes.
pub fn be_words(bytes: &[u8], intlen: usize) -> Vec<u64> {
    bytes.chunks_exact(intlen.max(1)).map(|c| c.iter().fold(0u64, |v, &b| (v << 8) | u64::from(b))).collect()
}

/// Iterator over the entries of one hash chain.
pub struct Chain<'a> {
    leaf: Leaf<'a>,
    next: u16,
    left: usize,
}

impl Iterator for Chain<'_> {
    type Item = Result<LeafEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == CHAIN_END {
            return None;
        }
        let index = std::mem::replace(&mut self.next, CHAIN_END);
        if self.left == 0 {
            return Some(Err(self.leaf.err(index, "the chain loops")));
        }
        self.left -= 1;
        let e = self.leaf.entry(index);
        if let Ok(e) = &e {
            self.next = e.next;
        }
        Some(e)
    }
}

/// Iterator over the payload of a chain of array chunks.
struct Pieces<'a> {
    leaf: Leaf<'a>,
    next: u16,
    left: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let n = self.left.min(ARRAY_BYTES);
        let got = self.leaf.chunk(self.next).and_then(|c| match (c.first(), c.get(1..1 + n), c.get(22..24)) {
            (Some(&CHUNK_ARRAY), Some(data), Some(&[a, b])) => Ok((data, self.leaf.endian.u16([a, b]))),
            _ => Err(self.leaf.err(self.next, "not an array")),
        });
        match got {
            Ok((data, next)) => {
                self.next = next;
                self.left -= n;
                Some(Ok(data))
            }
            Err(e) => {
                self.left = 0;
                Some(Err(e))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(endian: Endian, b: &mut Vec<u8>, v: u64, n: usize) {
        let w = endian.put_u64(v);
        b.extend(if endian == Endian::Big { &w[8 - n..] } else { &w[..n] });
    }

    /// A 512-byte leaf with one entry in slot `slot`, its name in two chunks and its value in one.
    fn leaf(endian: Endian, name: &[u8], value: u64, hash: u64) -> Vec<u8> {
        let mut b = Vec::new();
        for (v, n) in [(ZBT_LEAF, 8), (0, 8), (1, 8), (u64::from(ZAP_LEAF_MAGIC), 4), (0, 2), (1, 2), (1, 2), (0, 2)] {
            put(endian, &mut b, v, n);
        }
        b.resize(48, 0);
        let slot = ((hash << 1) >> 60) as usize;
        for i in 0..16 {
            put(endian, &mut b, if i == slot { 3 } else { 0xffff }, 2);
        }
        let array = |b: &mut Vec<u8>, data: &[u8], next: u64| {
            let mut d = data.to_vec();
            d.resize(ARRAY_BYTES, 0);
            b.push(CHUNK_ARRAY);
            b.extend(d);
            put(endian, b, next, 2);
        };
        array(&mut b, &name[..name.len().min(21)], 1);
        array(&mut b, &name[name.len().min(21)..], 0xffff);
        array(&mut b, &value.to_be_bytes(), 0xffff);
        b.extend([CHUNK_ENTRY, 8]);
        for (v, n) in [(0xffff, 2), (0, 2), (name.len() as u64 + 1, 2), (2, 2), (1, 2), (7, 4), (hash, 8)] {
            put(endian, &mut b, v, n);
        }
        b.resize(512, 0);
        b
    }

    #[test]
    fn finds_names_and_values() {
        let hash = (1 << 63) | (5 << 59) | (1 << 40);
        for e in [Endian::Little, Endian::Big] {
            let name = b"a name of more than twenty-one";
            let buf = leaf(e, name, 0x0102_0304_0506_0708, hash);
            let l = Leaf::decode(&buf, e).unwrap();
            assert!(l.covers(hash) && !l.covers(1));
            assert_eq!((l.next_hash(hash), l.num_chunks()), (None, 18));
            let got: Vec<_> = l.chain(hash).map(Result::unwrap).collect();
            assert_eq!(got.len(), 1);
            let ent = got[0];
            assert_eq!((ent.hash, ent.cd, ent.value_intlen), (hash, 7, 8));
            assert_eq!(l.name(&ent).unwrap(), name);
            assert!(l.name_is(&ent, name).unwrap());
            assert!(!l.name_is(&ent, b"a name of more than twenty-two").unwrap());
            assert_eq!(l.first_value(&ent), Ok(0x0102_0304_0506_0708));
            assert_eq!(be_words(&l.value_bytes(&ent).unwrap(), 8), [0x0102_0304_0506_0708]);
            assert_eq!(l.sorted().unwrap(), got);
            assert!(l.chain(1 << 63).next().is_none());
        }
    }

    #[test]
    fn next_hash_steps_over_the_leaf() {
        let mut buf = leaf(Endian::Little, b"x", 1, 1 << 63);
        buf[16] = 0; // prefix 0 of one bit
        let l = Leaf::decode(&buf, Endian::Little).unwrap();
        assert_eq!(l.next_hash(5), Some(1 << 63));
    }

    #[test]
    fn a_loop_is_an_error() {
        let hash = 1 << 63;
        let mut buf = leaf(Endian::Little, b"x", 1, hash);
        let at = 48 + 32 + 3 * CHUNK_SIZE + 2;
        buf[at..at + 2].copy_from_slice(&3u16.to_le_bytes());
        let l = Leaf::decode(&buf, Endian::Little).unwrap();
        assert!(l.chain(hash).any(|e| e.is_err()));
        assert!(l.sorted().is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(
            mut buf in proptest::collection::vec(prop_oneof![any::<u8>(), 250u8..=253, 0u8..20], 512),
            big: bool, hash: u64, plen in 0u16..70,
        ) {
            let e = if big { Endian::Big } else { Endian::Little };
            let mut head = Vec::new();
            let magic = u64::from(ZAP_LEAF_MAGIC);
            for (v, n) in [(ZBT_LEAF, 8), (0, 8), (1, 8), (magic, 4), (0, 2), (1, 2), (u64::from(plen), 2)] {
                put(e, &mut head, v, n);
            }
            buf[..head.len()].copy_from_slice(&head);
            if let Ok(l) = Leaf::decode(&buf, e) {
                let _ = (l.covers(hash), l.next_hash(hash), l.sorted());
                for ent in l.chain(hash).flatten() {
                    let _ = (l.name(&ent), l.name_is(&ent, b"x"), l.key_words(&ent), l.value_bytes(&ent), l.first_value(&ent));
                }
            }
        }
    }
}
