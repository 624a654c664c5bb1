//! Which bytes of a dnode or intent-log block are encrypted, and what else is authenticated with them.
//!
//! Blocks of dnodes stay readable without key except for bonus buffers of encrypted types; intent-log blocks stay
//! readable as far as claiming the log needs (chain header, record headers, block pointers). What stays readable is
//! authenticated as additional data: raw bytes of the block, except that block pointers inside dnodes are reduced
//! to what survives sending the block to another pool (see [`super::mac`]).

use super::mac::{self, DNODE_PORTABLE_FLAGS};
use crate::error::{CodecError, Result};
use std::ops::Range;
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::read::u64_at;

const DNODE_SIZE: usize = 512;
const BLKPTR_SIZE: usize = 128;
const DNODE_CORE: usize = mac::DNODE_CORE;
const FLAG_SPILL: u8 = 4;

/// `zil_chain_t`, whose last 40 bytes are the checksum.
const CHAIN_SIZE: usize = 184;
const CHAIN_AUTHENTICATED: usize = 144;
const CHAIN_USED: usize = 136;
/// Header of a record: type, length, txg, sequence.
const RECORD_HEADER: usize = 32;
const TX_WRITE: u64 = 9;
const TX_CLONE_RANGE: u64 = 24;
/// Where the block pointer of a write record stands, and where its data begins.
const WRITE_BLKPTR: usize = 64;
const WRITE_SIZE: usize = WRITE_BLKPTR + BLKPTR_SIZE;
/// Where the count and block pointers of a clone record stand.
const CLONE_BLKPTRS: usize = 64;

/// How a block divides.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Additional authenticated data.
    pub(super) aad: Vec<u8>,
    /// Encrypted ranges, ascending and disjoint.
    pub(super) secret: Vec<Range<usize>>,
    /// Bytes from here on are neither: they read as zeros.
    pub(super) end: usize,
}

impl Layout {
    /// Bytes encrypted.
    pub(super) fn secret_len(&self) -> usize {
        self.secret.iter().map(ExactSizeIterator::len).sum()
    }
}

const fn malformed(why: &'static str) -> CodecError {
    CodecError::Malformed { codec: "encrypted block", why }
}

/// Divides a block of dnodes. `version` is the key's.
pub(super) fn dnodes(block: &[u8], endian: Endian, version: u64) -> Result<Layout> {
    let mut l = Layout { aad: Vec::with_capacity(block.len()), secret: Vec::new(), end: block.len() };
    let mut at = 0;
    while let Some(rest) = block.get(at..).filter(|r| r.len() >= DNODE_SIZE) {
        let size = (usize::from(rest[12]) + 1) * DNODE_SIZE;
        let dnode = rest.get(..size).ok_or(malformed("a dnode reaches past its block"))?;
        let (nblkptr, flags) = (usize::from(dnode[3]), dnode[7]);
        let (object_type, bonus_type) = (DmuObjectType(dnode[0]), DmuObjectType(dnode[4]));
        let bonus_len = [dnode[10], dnode[11]];
        let has_spill = flags & FLAG_SPILL != 0;
        let bonus_at = DNODE_CORE + nblkptr * BLKPTR_SIZE;
        let bonus_end = if has_spill { size - BLKPTR_SIZE } else { size };
        let bonus = dnode.get(bonus_at..bonus_end).ok_or(malformed("a dnode has more block pointers than room"))?;

        let core = l.aad.len();
        l.aad.extend_from_slice(&dnode[..DNODE_CORE]);
        l.aad[core + mac::DNODE_FLAGS] &= DNODE_PORTABLE_FLAGS;
        l.aad[core + mac::DNODE_USED..core + mac::DNODE_USED + 8].fill(0);
        for bp in dnode[DNODE_CORE..bonus_at].as_chunks::<BLKPTR_SIZE>().0 {
            mac::portable_blkptr(bp, endian, version, |b| l.aad.extend_from_slice(b));
        }
        if let (true, Some(spill)) = (has_spill, dnode.last_chunk::<BLKPTR_SIZE>()) {
            mac::portable_blkptr(spill, endian, version, |b| l.aad.extend_from_slice(b));
        }
        if object_type != DmuObjectType::NONE && bonus_type.is_encrypted() && bonus_len != [0; 2] {
            l.secret.push(at + bonus_at..at + bonus_end);
        } else {
            l.aad.extend_from_slice(bonus);
        }
        at += size;
    }
    Ok(l)
}

/// Divides an intent-log block (of the `zilog2` kind; older logs are never encrypted).
pub(super) fn intent_log(block: &[u8], endian: Endian) -> Result<Layout> {
    const SHORT: CodecError = malformed("a log block is shorter than it says");
    let used = u64_at(block, CHAIN_USED, endian).and_then(|n| usize::try_from(n).ok()).ok_or(SHORT)?;
    let content = block.get(..used).filter(|c| c.len() >= CHAIN_SIZE).ok_or(SHORT)?;
    let mut l = Layout { aad: content[..CHAIN_AUTHENTICATED].to_vec(), secret: Vec::new(), end: used };
    let mut at = CHAIN_SIZE;
    while at < used {
        let kind = u64_at(content, at, endian).ok_or(SHORT)?;
        let len = u64_at(content, at + 8, endian).and_then(|n| usize::try_from(n).ok());
        let record = len.and_then(|n| content.get(at..at.checked_add(n)?)).ok_or(SHORT)?;
        let header = record.get(..RECORD_HEADER).ok_or(malformed("a log record is shorter than its header"))?;
        l.aad.extend_from_slice(header);
        let end = at + record.len();
        match kind {
            TX_WRITE => {
                let bp = record.get(WRITE_BLKPTR..WRITE_SIZE).ok_or(malformed("a write record is too short"))?;
                l.aad.extend_from_slice(bp);
                l.secret.push(at + RECORD_HEADER..at + WRITE_BLKPTR);
                l.secret.push(at + WRITE_SIZE..end);
            }
            TX_CLONE_RANGE => {
                let bps = record.get(CLONE_BLKPTRS..).ok_or(malformed("a clone record is too short"))?;
                l.aad.extend_from_slice(bps);
                l.secret.push(at + RECORD_HEADER..at + CLONE_BLKPTRS);
            }
            _ => l.secret.push(at + RECORD_HEADER..end),
        }
        at = end;
    }
    Ok(l)
}
