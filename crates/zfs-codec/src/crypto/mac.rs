//! Authentication of what is not encrypted: trees of block pointers and object set headers.
//!
//! Level-0 blocks carry MACs in their pointers. An indirect block carries a plain SHA-512 over the MACs below it
//! (so that it can be checked, and sent raw, without key); the two HMACs in the object set header close the tree:
//! the *portable* one over the meta dnode, the *local* one over the accounting dnodes, which never travel.
//! Of each block pointer only what survives a move to another pool is taken: its MAC and part of its properties.

use super::cipher::MAC_LEN;
use super::keys::HMAC_KEY_LEN;
use crate::error::{CodecError, Result};
use aws_lc_rs::{constant_time, hmac};
use sha2::{Digest, Sha512};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::read::u64_at;

/// Bytes of each MAC in an object set header.
pub const OBJSET_MAC_LEN: usize = 32;

/// Bytes of a dnode before its block pointers, and places in them.
pub(super) const DNODE_CORE: usize = 64;
pub(super) const DNODE_FLAGS: usize = 7;
pub(super) const DNODE_USED: usize = 24;
/// Only the spill flag survives a send.
pub(super) const DNODE_PORTABLE_FLAGS: u8 = 4;

const DNODE_SIZE: usize = 512;
const BLKPTR_SIZE: usize = 128;

const PROP_LEVEL: u64 = 0x1f << 56;
const PROP_CHECKSUM: u64 = 0xff << 40;
const PROP_COMPRESS: u64 = 0x7f << 32;
const PROP_PSIZE: u64 = 0xffff << 16;
const PROP_EMBEDDED: u64 = 1 << 39;
const PROP_DEDUP: u64 = 1 << 62;
const PROP_BYTEORDER: u64 = 1 << 63;

/// Gives `sink` the authenticated form of a block pointer that stands in a block of byte order `endian`: properties
/// without what a send may change, then the MAC, then (since version 1) eight zero bytes.
pub(super) fn portable_blkptr(raw: &[u8; BLKPTR_SIZE], endian: Endian, version: u64, mut sink: impl FnMut(&[u8])) {
    let (bytes, _) = raw.as_chunks::<8>();
    let word = |i: usize| endian.u64(bytes[i]);
    let mut prop = word(6);
    let mut out = [0u8; 8 + MAC_LEN + 8];
    if DmuObjectType((prop >> 48) as u8) != DmuObjectType::OBJSET {
        // The MAC is bytes; the words that hold them are in the byte order that the pointer itself names.
        let order = if prop & PROP_BYTEORDER != 0 { Endian::Little } else { Endian::Big };
        out[8..16].copy_from_slice(&order.put_u64(word(14)));
        out[16..24].copy_from_slice(&order.put_u64(word(15)));
    }
    let hole = prop & PROP_EMBEDDED == 0 && word(0) == 0 && word(1) == 0;
    if version == 0 {
        prop &= !(PROP_DEDUP | PROP_CHECKSUM | PROP_PSIZE);
    } else if hole {
        prop = 0;
    } else {
        if prop & PROP_LEVEL != 0 {
            prop &= !(PROP_BYTEORDER | PROP_COMPRESS | PROP_PSIZE);
        }
        prop &= !(PROP_DEDUP | PROP_CHECKSUM);
    }
    out[..8].copy_from_slice(&prop.to_le_bytes());
    sink(if version == 0 { &out[..8 + MAC_LEN] } else { &out });
}

fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The checksum of MACs that the pointer to an indirect block holds; `block` is decompressed.
pub fn indirect_mac(block: &[u8], endian: Endian, version: u64) -> [u8; MAC_LEN] {
    let mut h = Sha512::new();
    for bp in block.as_chunks::<BLKPTR_SIZE>().0 {
        portable_blkptr(bp, endian, version, |b| h.update(b));
    }
    let digest = h.finalize();
    let mut out = [0; MAC_LEN];
    out.copy_from_slice(&digest[..MAC_LEN]);
    out
}

/// Checks a decompressed indirect block (level above 0, or the indirect blocks of dnodes) of an encrypted dataset
/// against the MAC words of its pointer. No key is needed. The key's version is not known here, so both are tried.
///
/// # Errors
/// [`CodecError::Authentication`] on mismatch.
pub fn verify_indirect(block: &[u8], endian: Endian, mac: &[u8; MAC_LEN]) -> Result<()> {
    let good = [1, 0].into_iter().any(|version| same(&indirect_mac(block, endian, version), mac));
    if good { Ok(()) } else { Err(CodecError::Authentication("the MACs of an indirect block")) }
}

/// The HMAC key of a dataset.
pub(super) struct HmacKey(hmac::Key);

impl HmacKey {
    pub(super) fn new(key: &[u8; HMAC_KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA512, key))
    }

    /// HMAC-SHA512 of `data`.
    pub(super) fn sign(&self, data: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(hmac::sign(&self.0, data).as_ref());
        out
    }

    pub(super) fn verify(&self, data: &[u8], mac: &[u8; MAC_LEN]) -> Result<()> {
        if same(&self.sign(data)[..MAC_LEN], mac) {
            Ok(())
        } else {
            Err(CodecError::Authentication("an authenticated block"))
        }
    }
}

/// Places in an object set header.
const OS_TYPE: usize = 704;
const OS_FLAGS: usize = 712;
const OS_PORTABLE_MAC: usize = 720;
const OS_LOCAL_MAC: usize = OS_PORTABLE_MAC + OBJSET_MAC_LEN;
const OS_USERUSED: usize = 1024;
const OS_GROUPUSED: usize = 1536;
const OS_PROJECTUSED: usize = 2048;
const OS_SIZE_V1: usize = 1024;
/// Accounting is complete; without it there is no local MAC.
const FLAG_USERACCOUNTING: u64 = 1;

const SHORT: CodecError = CodecError::Malformed { codec: "object set", why: "header is too short" };

/// Adds a dnode in little-endian form to a MAC.
fn add_dnode(ctx: &mut hmac::Context, dnode: &[u8], endian: Endian, version: u64) -> Result<()> {
    let mut core = *dnode.first_chunk::<DNODE_CORE>().ok_or(SHORT)?;
    if endian == Endian::Big {
        for field in [8..10, 10..12, 16..24] {
            core[field].reverse();
        }
    }
    core[DNODE_FLAGS] &= DNODE_PORTABLE_FLAGS;
    core[DNODE_USED..DNODE_USED + 8].fill(0);
    ctx.update(&core);
    let end = DNODE_CORE + usize::from(core[3]) * BLKPTR_SIZE;
    let pointers = dnode.get(DNODE_CORE..end);
    let pointers = pointers.ok_or(CodecError::Malformed { codec: "object set", why: "too many block pointers" })?;
    for bp in pointers.as_chunks::<BLKPTR_SIZE>().0 {
        portable_blkptr(bp, endian, version, |b| ctx.update(b));
    }
    if let (true, Some(spill)) = (core[DNODE_FLAGS] & DNODE_PORTABLE_FLAGS != 0, dnode.last_chunk::<BLKPTR_SIZE>()) {
        portable_blkptr(spill, endian, version, |b| ctx.update(b));
    }
    Ok(())
}

fn finish(ctx: hmac::Context) -> [u8; OBJSET_MAC_LEN] {
    let mut out = [0; OBJSET_MAC_LEN];
    out.copy_from_slice(&ctx.sign().as_ref()[..OBJSET_MAC_LEN]);
    out
}

/// The portable and local MACs that belong into an object set header. The local one is zero where there is no
/// accounting to protect.
pub(super) fn objset_macs(
    key: &HmacKey,
    version: u64,
    block: &[u8],
    endian: Endian,
) -> Result<([u8; OBJSET_MAC_LEN], [u8; OBJSET_MAC_LEN])> {
    let slot = |at: usize| block.get(at..at + DNODE_SIZE);
    let os_type = u64_at(block, OS_TYPE, endian).ok_or(SHORT)?;
    let flags = u64_at(block, OS_FLAGS, endian).ok_or(SHORT)?;

    let mut ctx = hmac::Context::with_key(&key.0);
    // The type is the one field taken in big-endian order, on every machine.
    ctx.update(&os_type.to_be_bytes());
    // None of the flags is portable so far.
    ctx.update(&0u64.to_le_bytes());
    add_dnode(&mut ctx, slot(0).ok_or(SHORT)?, endian, version)?;
    let portable = finish(ctx);

    let accounting: Vec<&[u8]> = [OS_USERUSED, OS_GROUPUSED, OS_PROJECTUSED]
        .into_iter()
        .filter_map(slot)
        .filter(|d| d.first().is_some_and(|t| DmuObjectType(*t) != DmuObjectType::NONE))
        .collect();
    if flags & FLAG_USERACCOUNTING == 0 || block.len() <= OS_SIZE_V1 || accounting.is_empty() {
        return Ok((portable, [0; OBJSET_MAC_LEN]));
    }
    let mut ctx = hmac::Context::with_key(&key.0);
    ctx.update(&flags.to_le_bytes());
    for dnode in accounting {
        add_dnode(&mut ctx, dnode, endian, version)?;
    }
    Ok((portable, finish(ctx)))
}

/// Checks both MACs of an object set header (decompressed).
pub(super) fn verify_objset(key: &HmacKey, version: u64, block: &[u8], endian: Endian) -> Result<()> {
    let (portable, local) = objset_macs(key, version, block, endian)?;
    let stored = block.get(OS_PORTABLE_MAC..OS_LOCAL_MAC + OBJSET_MAC_LEN).ok_or(SHORT)?;
    let (stored_portable, stored_local) = stored.split_at(OBJSET_MAC_LEN);
    if !same(&portable, stored_portable) {
        return Err(CodecError::Authentication("the portable MAC of an object set"));
    }
    // Releases differ in when they keep a local MAC; where none is due, whatever is stored is not trusted anyway.
    if local != [0; OBJSET_MAC_LEN] && !same(&local, stored_local) {
        return Err(CodecError::Authentication("the local MAC of an object set"));
    }
    Ok(())
}

/// Writes both MACs into an object set header.
pub(super) fn seal_objset(key: &HmacKey, version: u64, block: &mut [u8], endian: Endian) -> Result<()> {
    let (portable, local) = objset_macs(key, version, block, endian)?;
    let stored = block.get_mut(OS_PORTABLE_MAC..OS_LOCAL_MAC + OBJSET_MAC_LEN).ok_or(SHORT)?;
    stored[..OBJSET_MAC_LEN].copy_from_slice(&portable);
    stored[OBJSET_MAC_LEN..].copy_from_slice(&local);
    Ok(())
}
