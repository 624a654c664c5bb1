//! The intent log found at an import: claimed, so that nothing is put over it, and replayed when its object set is used.
//!
//! Life cycle: in the first txg of an import that writes, [`claim`] marks everything of a log as allocated that the last
//! synced txg did not know, and notes in the header how far it reached. Whoever uses the object set replays what was
//! claimed ([`Zil::replay`]) or gives it up ([`Zil::discard`]); both free it.
//!
//! Replaying must be safe to repeat, for it may be cut off: the header says up to which record it is durable, in the same
//! txg as the change itself. Records of txgs that were synced before the crash are left out.

use super::write::{TX_WRITE, Zil};
use super::{ZilEnd, ZilSummary, is_sealed, walk, walk_until};
use crate::objset::Objset;
use crate::txg::Tx;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use zfs_phys::BlkPtr;
use zfs_phys::objset::ZilHeader;
use zfs_phys::zil::{Record, RecordBody, Write, ZIL_CLAIM_LR_SEQ_VALID, ZIL_REPLAY_NEEDED, ZIL_ZC_OBJSET, tx_name};
use zfs_zio::{Buf, Error, ErrorKind, Result, Zbookmark};

/// Largest block, bytes.
const MAX_BLOCK: u64 = 16 << 20;

/// Claims the log of an object set: marks its blocks as allocated, so that nothing is put over them before it is
/// replayed. `tx` is of the first txg after the import. Gives what its header has to become, when it has to change.
pub fn claim(objset: &Arc<Objset>, tx: &Tx) -> Result<Option<ZilHeader>> {
    let header = objset.phys().zil_header;
    if header.log.is_hole() {
        return Ok(None);
    }
    if is_foreign(&header, objset.id()) {
        return Ok(Some(ZilHeader::default()));
    }
    if header.claim_txg != 0 {
        return Ok(None);
    }
    let (zio, txg) = (objset.zio().clone(), tx.txg());
    let (blocks, summary) = to_claim(objset, txg)?;
    blocks.iter().try_for_each(|bp| zio.claim(txg, bp))?;
    let needed = summary.records > 0 || summary.blocks > 1;
    let flags = ZIL_CLAIM_LR_SEQ_VALID | if needed { ZIL_REPLAY_NEEDED } else { 0 };
    Ok(Some(ZilHeader {
        claim_txg: txg,
        claim_blk_seq: summary.max_block_seq,
        claim_lr_seq: summary.max_record_seq,
        flags: header.flags | flags,
        ..header
    }))
}

/// Frees the log of an object set that is destroyed, or replaced, by the txg being synced. Fails with `Busy` while the
/// log is in use: whoever uses it gives it up first ([`Zil::abandon`]).
pub fn destroy(objset: &Arc<Objset>, tx: &Tx) -> Result<()> {
    if objset.log().is_some_and(|log| log.is_in_use()) {
        return Err(Error::new(ErrorKind::Busy, "destroying a dataset whose intent log is in use"));
    }
    let header = objset.phys().zil_header;
    if !is_own(&header, objset.id()) {
        return Ok(());
    }
    claimed_blocks(objset, header.claim_txg)?.iter().try_for_each(|bp| objset.zio().free(tx.txg(), bp))
}

/// The blocks of a log that are not known to be allocated: those younger than the last synced txg, each once. The log
/// ends at a record whose data, written ahead, is not there: nobody was told that it is durable.
fn to_claim(objset: &Arc<Objset>, first_txg: u64) -> Result<(Vec<BlkPtr>, ZilSummary)> {
    let found = Mutex::new((Vec::new(), BTreeSet::new()));
    let young = |bp: &BlkPtr| !bp.is_hole() && !bp.is_embedded() && bp.birth() >= first_txg;
    let note = |bp: &BlkPtr| {
        let (blocks, seen) = &mut *found.lock();
        if young(bp) && seen.insert(bp.dva(0)) {
            blocks.push(*bp);
        }
    };
    let block = |bp: &BlkPtr, _: &Zbookmark| {
        note(bp);
        Ok(())
    };
    let record = |record: &Record<'_>| match &record.body {
        RecordBody::Write(write) if young(&write.blkptr) => {
            ahead(objset, write)?;
            note(&write.blkptr);
            Ok(())
        }
        RecordBody::CloneRange { .. } => Err(Error::unsupported("claiming an intent log that clones blocks")),
        _ => Ok(()),
    };
    let summary = walk_until(objset, block, record)?;
    Ok((found.into_inner().0, summary))
}

/// Reads what a write record points to.
pub(super) fn ahead(objset: &Objset, write: &Write<'_>) -> Result<Buf> {
    let bm =
        Zbookmark::new(objset.id(), write.object, Zbookmark::ZIL_LEVEL, write.offset / write.blkptr.lsize().max(1));
    match is_sealed(objset, &write.blkptr) {
        true => objset.zio().read_raw(&write.blkptr, &bm),
        false => objset.zio().read_speculative(&write.blkptr, &bm, objset.key()),
    }
}

/// Whether a log belongs to another object set: a clone begins with the header of the snapshot it comes from, whose
/// blocks are not its to read or free.
fn is_foreign(header: &ZilHeader, id: u64) -> bool {
    header.log.checksum().get(ZIL_ZC_OBJSET).is_none_or(|owner| *owner != id)
}

/// Whether the blocks of a log are this object set's to read and free. A header that was not claimed by this import is
/// an old one that came back, as a rollback brings it: its blocks were freed long ago.
fn is_own(header: &ZilHeader, id: u64) -> bool {
    !header.log.is_hole() && header.claim_txg != 0 && !is_foreign(header, id)
}

impl Zil {
    /// Replays a log that was claimed: `f` is given each record that was not replayed before, in order, and a function
    /// to call within the last transaction of each, which makes the replay of that record durable with it. Afterwards
    /// the log is discarded and can be used anew.
    pub fn replay(&self, f: &mut Replayer<'_>) -> Result<ZilSummary> {
        let objset = self.objset()?;
        let header = objset.phys().zil_header;
        let done = header.replay_seq;
        if !is_own(&header, self.id) {
            self.discard()?;
            let (blocks, records, max_block_seq, max_record_seq) = (0, 0, 0, 0);
            return Ok(ZilSummary { blocks, records, max_block_seq, max_record_seq, end: ZilEnd::Empty });
        }
        let summary = walk(
            &objset,
            |_, _| Ok(()),
            |record| {
                // What was written for a txg that is on disk is part of it.
                if record.seq <= done || record.txg < header.claim_txg {
                    return Ok(());
                }
                let mark = |tx: &Tx| {
                    self.replaying(tx);
                };
                self.state.lock().replaying = Some(record.seq);
                let replayed = self.replay_record(&objset, record, &mut |r| f(r, &mark));
                self.state.lock().replaying = None;
                replayed
            },
        )?;
        if let ZilEnd::Unreadable(e) = summary.end {
            return Err(e.context("replaying an intent log"));
        }
        self.discard()?;
        Ok(summary)
    }

    fn replay_record(
        &self,
        objset: &Objset,
        record: &Record<'_>,
        f: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let RecordBody::Write(write) = &record.body else { return self.retried(record, f) };
        if !write.data.is_empty() || record.txtype != TX_WRITE {
            return self.retried(record, f);
        }
        // The data is where the txg would have had it; a hole stands for zeros.
        let data = match write.blkptr.is_hole() {
            true => vec![0; write.blkptr.lsize().max(write.length).min(MAX_BLOCK) as usize].into(),
            false => ahead(objset, write)?,
        };
        let write = Write { data: &data, ..(**write).clone() };
        self.retried(&Record { body: RecordBody::Write(Box::new(write)), ..record.clone() }, f)
    }

    /// A number that was freed can be given again only after the txg that freed it: then the second try succeeds.
    fn retried(&self, record: &Record<'_>, f: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        let Err(first) = f(record) else { return Ok(()) };
        self.txgs.wait_synced(0)?;
        f(record).map_err(|e| {
            tracing::warn!(
                objset = self.id,
                seq = record.seq,
                txtype = record.txtype,
                "replaying: {first}; again: {e}"
            );
            e.context(format!("replaying {} of an intent log", tx_name(record.txtype)))
        })
    }

    /// Frees a claimed log. Returns when that is on disk.
    pub fn discard(&self) -> Result<()> {
        let objset = self.objset()?;
        let header = objset.phys().zil_header;
        if header.log.is_hole() || !self.state.lock().stale {
            return Ok(());
        }
        let own = is_own(&header, self.id);
        let blocks = if own { claimed_blocks(&objset, header.claim_txg)? } else { Vec::new() };
        self.state.lock().discard = Some(blocks);
        // Blocks that were allocated in a txg after the last synced one are freed in none before theirs.
        while self.state.lock().stale {
            let tx = self.txgs.assign()?;
            objset.touch(&tx)?;
            let txg = tx.txg();
            drop(tx);
            self.txgs.wait_synced(txg)?;
        }
        Ok(())
    }
}

/// All blocks of a log, each once, with those that its records point to as far as they were claimed.
fn claimed_blocks(objset: &Objset, claim_txg: u64) -> Result<Vec<BlkPtr>> {
    let mut blocks = Vec::new();
    let mut indirect = Vec::new();
    walk(
        objset,
        |bp, _| {
            blocks.push(*bp);
            Ok(())
        },
        |record| {
            let claimed =
                |bp: &&BlkPtr| claim_txg != 0 && !bp.is_hole() && !bp.is_embedded() && bp.birth() >= claim_txg;
            indirect.extend(record.blkptrs().iter().filter(claimed).copied());
            Ok(())
        },
    )?;
    let mut seen = BTreeSet::new();
    blocks.extend(indirect);
    blocks.retain(|bp| seen.insert(bp.dva(0)));
    Ok(blocks)
}

/// Does the change of a record; the function it is given is called in the last transaction of it.
pub type Replayer<'a> = dyn FnMut(&Record<'_>, &dyn Fn(&Tx)) -> Result<()> + 'a;
