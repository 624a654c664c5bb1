//! The intent log of an object set: walk along its chain of blocks. Writing it is in [`write`].
//!
//! A log ends where the next block was never written, so a block that does not verify is the normal end of a log that
//! is in use, and an error only for a part that was claimed (the pool was imported and promised to replay it). The
//! chain is bounded by its sequence numbers, which every block must continue.

use crate::objset::Objset;
use zfs_phys::BlkPtr;
use zfs_phys::objset::ZilHeader;
use zfs_phys::zil::{Record, ZIL_CLAIM_LR_SEQ_VALID, ZIL_ZC_OBJSET, ZIL_ZC_SEQ, ZilBlock};
use zfs_zio::{Error, ErrorKind, Result, Zbookmark};

mod notes;
pub mod replay;
pub mod write;

pub use replay::{Replayer, claim, destroy};
pub use write::Zil;

/// Why a walk ended.
#[derive(Debug)]
pub enum ZilEnd {
    /// No block follows.
    Empty,
    /// The end of what was claimed was reached.
    Claimed,
    /// The next block could not be read or does not continue the chain: the usual end of an unclaimed log.
    Unreadable(Error),
}

/// What a walk found.
#[derive(Debug)]
pub struct ZilSummary {
    /// Blocks visited.
    pub blocks: u64,
    /// Records visited.
    pub records: u64,
    /// Highest block sequence number.
    pub max_block_seq: u64,
    /// Highest record sequence number.
    pub max_record_seq: u64,
    /// Why it ended.
    pub end: ZilEnd,
}

fn seq(bp: &BlkPtr) -> u64 {
    bp.checksum().get(ZIL_ZC_SEQ).copied().unwrap_or(0)
}

/// The name of a log block.
pub fn bookmark(bp: &BlkPtr) -> Zbookmark {
    let objset = bp.checksum().get(ZIL_ZC_OBJSET).copied().unwrap_or(0);
    Zbookmark::new(objset, 0, Zbookmark::ZIL_LEVEL, seq(bp))
}

/// Walks the log of `objset`: `on_block` is called for each pointer of the chain (before the block is read, so also
/// for the one block behind the end, which is allocated), `on_record` for each record. An error of theirs ends the
/// walk. Of a claimed log only what was claimed is visited.
pub fn walk(
    objset: &Objset,
    on_block: impl FnMut(&BlkPtr, &Zbookmark) -> Result<()>,
    on_record: impl FnMut(&Record<'_>) -> Result<()>,
) -> Result<ZilSummary> {
    walk_with(objset, false, on_block, on_record)
}

/// [`walk`], but a record that `on_record` cannot read is where the log ends.
fn walk_until(
    objset: &Objset,
    on_block: impl FnMut(&BlkPtr, &Zbookmark) -> Result<()>,
    on_record: impl FnMut(&Record<'_>) -> Result<()>,
) -> Result<ZilSummary> {
    walk_with(objset, true, on_block, on_record)
}

fn walk_with(
    objset: &Objset,
    until_unreadable: bool,
    mut on_block: impl FnMut(&BlkPtr, &Zbookmark) -> Result<()>,
    mut on_record: impl FnMut(&Record<'_>) -> Result<()>,
) -> Result<ZilSummary> {
    let header = objset.phys().zil_header;
    let mut out = ZilSummary { blocks: 0, records: 0, max_block_seq: 0, max_record_seq: 0, end: ZilEnd::Empty };
    let (last_block, last_record) = claimed(&header);
    let mut bp = header.log;
    while !bp.is_hole() {
        if seq(&bp) > last_block {
            out.end = ZilEnd::Claimed;
            break;
        }
        let bm = bookmark(&bp);
        on_block(&bp, &bm)?;
        out.blocks += 1;
        out.max_block_seq = seq(&bp);
        if out.max_block_seq == last_block && out.max_record_seq == last_record {
            out.end = ZilEnd::Claimed;
            break;
        }
        // The block behind the end of a log in use was never written: no device is to be blamed for that.
        let read = match last_block {
            _ if is_sealed(objset, &bp) => objset.zio().read_raw(&bp, &bm),
            u64::MAX => objset.zio().read_speculative(&bp, &bm, objset.key()),
            _ => objset.zio().read(&bp, &bm, objset.key()),
        };
        let buf = match read {
            Ok(buf) => buf,
            Err(e) => {
                out.end = ZilEnd::Unreadable(e);
                break;
            }
        };
        let block = match ZilBlock::decode(&buf, &bp) {
            Ok(block) => block,
            Err(e) => {
                out.end = ZilEnd::Unreadable(Error::from(e).at(&bm));
                break;
            }
        };
        for record in block.iter() {
            let record = match record {
                Ok(r) if r.seq <= last_record => r,
                Ok(_) => {
                    out.end = ZilEnd::Claimed;
                    return Ok(out);
                }
                Err(e) => {
                    out.end = ZilEnd::Unreadable(Error::from(e).at(&bm));
                    return Ok(out);
                }
            };
            match on_record(&record) {
                Err(e) if until_unreadable && matches!(e.kind(), ErrorKind::Io | ErrorKind::Checksum) => {
                    out.end = ZilEnd::Unreadable(e);
                    return Ok(out);
                }
                other => other?,
            }
            out.records += 1;
            out.max_record_seq = record.seq;
        }
        bp = block.next;
    }
    Ok(out)
}

/// Whether a block can only be read as it is stored, for want of the key. The chain, the headers of records and the
/// pointers in them can be read then; what else records say comes as [`zfs_phys::zil::RecordBody::Unknown`] or is
/// meaningless.
fn is_sealed(objset: &Objset, bp: &BlkPtr) -> bool {
    bp.is_encrypted() && objset.key().is_none()
}

/// Highest sequence numbers, of blocks and of records, that belong to a claimed log.
fn claimed(header: &ZilHeader) -> (u64, u64) {
    if header.claim_txg == 0 {
        return (u64::MAX, u64::MAX);
    }
    let record = if header.flags & ZIL_CLAIM_LR_SEQ_VALID != 0 { header.claim_lr_seq } else { u64::MAX };
    (header.claim_blk_seq, record)
}
