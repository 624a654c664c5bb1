//! Iteration over a ZAP in the order of hash and collision differentiator.
//!
//! A position is the 64-bit cookie of OpenZFS (`zap_cursor_serialize`): the significant bits of the hash at the bottom
//! and the collision differentiator above them. It stays valid whatever is added to or removed from the table and
//! needs no state between calls: a directory of a million entries is resumed by one leaf read and a binary search.

use super::{CURSOR_END, Table, Zap, ZapEntry, ZapKey, ZapValue};
use std::sync::atomic::Ordering::Relaxed;
use zfs_phys::Endian;
use zfs_phys::zap::{FatHeader, HashParams, Leaf, LeafEntry, MicroZap};
use zfs_zio::{Buf, Result};

/// Leaves fetched ahead of an iteration.
const AHEAD: usize = 16;

/// A position in a ZAP and what is decoded around it.
pub struct Cursor {
    zap: Zap,
    hash: u64,
    cd: u32,
    done: bool,
    leaf: Option<Current>,
    /// Number of changes to the table that `leaf` knows of.
    version: u64,
    /// First hash for whose leaf nothing was fetched ahead yet.
    fetched: u64,
}

struct Current {
    blkid: u64,
    buf: Buf,
    endian: Endian,
    entries: Vec<LeafEntry>,
    at: usize,
}

fn serialize(p: HashParams, hash: u64, cd: u32) -> u64 {
    (hash >> (64 - p.bits())) | (u64::from(cd) << p.bits())
}

impl Cursor {
    pub(super) fn new(zap: Zap, cookie: u64) -> Self {
        let p = zap.inner.params;
        let hash = cookie << (64 - p.bits());
        let mut cd = u32::try_from(cookie >> p.bits()).unwrap_or(0);
        if cd >= p.max_cd() {
            cd = 0;
        }
        Self { zap, hash, cd, done: cookie == CURSOR_END, leaf: None, version: 0, fetched: hash }
    }

    /// Position of the next entry; [`CURSOR_END`] behind the last.
    pub fn cookie(&self) -> u64 {
        if self.done { CURSOR_END } else { serialize(self.zap.inner.params, self.hash, self.cd) }
    }

    /// The next entry; nothing behind the last. After an error the cursor is at the end.
    pub fn next_entry(&mut self) -> Result<Option<ZapEntry>> {
        if self.done {
            return Ok(None);
        }
        let zap = self.zap.clone();
        let got = zap.now(|now| {
            let version = zap.shared.as_ref().map_or(0, |s| s.version.load(Relaxed));
            if version != self.version {
                (self.version, self.leaf) = (version, None);
            }
            match &now.inner.table {
                Table::Micro { index } => self.next_micro(now, index),
                Table::Fat { header } => self.next_fat(now, header),
            }
        });
        match &got {
            Ok(Some(e)) => (self.hash, self.cd) = (e.hash, e.cd.saturating_add(1)),
            Ok(None) | Err(_) => self.done = true,
        }
        got
    }

    fn next_micro(&self, zap: &Zap, index: &[(u32, u32, u32)]) -> Result<Option<ZapEntry>> {
        let from = ((self.hash >> 32) as u32, self.cd);
        let at = index.partition_point(|(h, cd, _)| (*h, *cd) < from);
        // A differentiator that a position cannot hold would be met again and again.
        let possible = |(_, cd, _): &&(u32, u32, u32)| *cd < zap.inner.params.max_cd();
        let Some(&(high, cd, slot)) = index.iter().skip(at).find(possible) else { return Ok(None) };
        let micro = MicroZap::decode(&zap.inner.block, zap.inner.endian)?;
        let Some(e) = micro.entry(slot as usize) else { return Ok(None) };
        let hash = u64::from(high) << 32;
        let next_cookie = serialize(zap.inner.params, hash, cd.saturating_add(1));
        let (key, value) = (ZapKey::Name(e.name.to_vec()), ZapValue::one(e.value));
        Ok(Some(ZapEntry { key, value, hash, cd, next_cookie }))
    }

    fn next_fat(&mut self, zap: &Zap, header: &FatHeader) -> Result<Option<ZapEntry>> {
        loop {
            if self.leaf.is_none() {
                let Some((blkid, buf, endian)) = zap.leaf_for(header, self.hash)? else { return Ok(None) };
                let leaf = zap.decode_leaf(header, blkid, &buf, endian, self.hash)?;
                let mut entries = leaf.sorted()?;
                // An entry whose hash belongs to another leaf cannot be looked up, and would lead the cursor back.
                let max_cd = zap.inner.params.max_cd();
                entries.retain(|e| leaf.covers(e.hash) && e.cd < max_cd);
                let at = entries.partition_point(|e| (e.hash, e.cd) < (self.hash, self.cd));
                self.leaf = Some(Current { blkid, buf, endian, entries, at });
                self.fetch_ahead(zap, header);
            }
            let Some(current) = &mut self.leaf else { return Ok(None) };
            let leaf = zap.decode_leaf(header, current.blkid, &current.buf, current.endian, self.hash)?;
            if let Some(e) = current.entries.get(current.at) {
                current.at += 1;
                return entry(zap, &leaf, e).map(Some);
            }
            let next = leaf.next_hash(self.hash);
            self.leaf = None;
            match next {
                Some(next) => (self.hash, self.cd) = (next, 0),
                None => return Ok(None),
            }
        }
    }

    /// Keeps the next leaves coming while this one is handed out.
    fn fetch_ahead(&mut self, zap: &Zap, header: &FatHeader) {
        let shift = header.ptrtbl.shift;
        if shift == 0 || self.fetched == CURSOR_END {
            return;
        }
        let step = 1u64 << (64 - shift);
        let here = self.hash & !(step - 1);
        // Pointers are looked at in batches, when half of the last one is used up.
        if self.fetched > here.saturating_add(step.saturating_mul(AHEAD as u64 / 2)) {
            return;
        }
        let mut last = None;
        let mut hash = self.fetched.max(here.saturating_add(step));
        for _ in 0..AHEAD {
            match zap.leaf_block(header, hash) {
                Ok(Some(blkid)) if last != Some(blkid) => {
                    let size = zap.dnode.datablksz();
                    zap.dnode.prefetch(blkid.saturating_mul(size), size);
                    last = Some(blkid);
                }
                Ok(_) => {}
                Err(_) => break,
            }
            match hash.checked_add(step) {
                Some(next) => hash = next,
                None => {
                    self.fetched = CURSOR_END;
                    return;
                }
            }
        }
        self.fetched = hash;
    }
}

fn entry(zap: &Zap, leaf: &Leaf<'_>, e: &LeafEntry) -> Result<ZapEntry> {
    let key = if zap.has_word_keys() { ZapKey::Words(leaf.key_words(e)?) } else { ZapKey::Name(leaf.name(e)?) };
    let next_cookie = serialize(zap.inner.params, e.hash, e.cd.saturating_add(1));
    Ok(ZapEntry { key, value: ZapValue::of(leaf, e)?, hash: e.hash, cd: e.cd, next_cookie })
}

/// Iterator over all entries.
pub struct Entries(pub(super) Cursor);

impl Iterator for Entries {
    type Item = Result<ZapEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_entry().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_fit_32_bits_for_small_differentiators() {
        let p = HashParams { salt: 1, flags: 0 };
        assert_eq!(serialize(p, 0xabcd_ef10_0000_0000, 3), 0xabc_def1 | (3 << 28));
        let p = HashParams { salt: 1, flags: zfs_phys::zap::ZAP_FLAG_HASH64 };
        assert_eq!(serialize(p, u64::MAX << 16, 5), (u64::MAX >> 16) | (5 << 48));
    }
}
