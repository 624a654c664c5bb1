//! Writing the intent log: what makes a change durable before its txg is.
//!
//! Life cycle: changes are noted with [`Zil::log`] and [`Zil::log_write`] inside their transactions, in memory only.
//! [`Zil::commit`] writes what is noted and not yet on disk into blocks of the log's chain and flushes once. When a txg
//! is on disk, its notes are dropped, and blocks of the chain that hold nothing newer are freed by the sync of the
//! object set, which also stores where the chain begins ([`Zil::sync`], called from there).
//!
//! The chain always ends in a block that is allocated and not written: its address had to be in the block before it.
//! The first block is made durable by a whole txg, since the header that names it is part of the object set.
//!
//! Batching: one caller at a time leads. It takes what all who wait want written, writes it, flushes, and wakes them;
//! those that came meanwhile are the next batch. So a hundred threads that sync share few flushes.
//!
//! Data of writes is read from the object when it is committed, and goes into the record. Rejected for now: writing large
//! pieces ahead to where the txg would put them (`WR_INDIRECT`), which saves writing them twice.
//!
//! When a block cannot be had, the txg is waited for instead, and the chain starts anew.
//!
//! Lock order: the state's lock is a leaf. A leader holds a transaction while it allocates, so that the txg it allocates
//! in does not sync before the new blocks are known to the state.

use super::{ZilEnd, ZilSummary, bookmark, walk};
use crate::objset::Objset;
use crate::txg::{Tx, Txgs};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use zfs_phys::objset::ZilHeader;
use zfs_phys::zil::{
    LR_WRITE_SIZE, Record, RecordBody, Write, ZIL_CHAIN_SIZE, ZIL_CLAIM_LR_SEQ_VALID, ZIL_REPLAY_NEEDED, ZIL_ZC_OBJSET,
    encode_block, next_sum,
};
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Error, ErrorKind, Result};

/// Smallest and largest block of the log, bytes.
const SMALLEST: usize = 8 << 10;
const LARGEST: usize = 128 << 10;
/// Record of a write (`TX_WRITE`).
const TX_WRITE: u64 = 9;
/// Where in a record its sequence number lies.
const AT_SEQ: usize = 24;
/// Longest data of one record.
const LONGEST_DATA: usize = LARGEST - ZIL_CHAIN_SIZE - LR_WRITE_SIZE - 8;

/// A change that is noted.
enum Note {
    /// The record as it will be, but for its sequence number.
    Record(Vec<u8>),
    /// A write whose data is still to be read.
    Data { object: u64, offset: u64, len: u64 },
}

struct Itx {
    txg: u64,
    note: Note,
}

impl Itx {
    /// Object whose contents it is about; nothing for what every commit writes.
    fn contents_of(&self) -> Option<u64> {
        match self.note {
            Note::Data { object, .. } => Some(object),
            Note::Record(_) => None,
        }
    }
}

/// A block of the chain.
#[derive(Debug, Clone, Copy)]
struct Lwb {
    bp: BlkPtr,
    alloc_txg: u64,
    /// Highest txg of its records.
    max_txg: u64,
    /// It is written and flushed.
    done: bool,
}

#[derive(Default)]
struct State {
    notes: VecDeque<Itx>,
    chain: VecDeque<Lwb>,
    /// Sequence number of the newest record.
    lr_seq: u64,
    /// Numbers of commits: asked for, and done.
    asked: u64,
    done: u64,
    leading: bool,
    /// Objects that the next batch has to write; all when `all` is set.
    wanted: HashSet<u64>,
    all: bool,
    /// Guid of the next chain.
    guid: [u64; 2],
    /// Blocks that the next sync frees, clearing the header.
    discard: Option<Vec<BlkPtr>>,
    /// Blocks that were allocated for nothing.
    orphans: Vec<BlkPtr>,
    /// The header on disk leads to a log that has to be replayed or discarded first.
    stale: bool,
    /// Newest record that was replayed, by txg.
    replayed: Vec<(u64, u64)>,
    last_batch: usize,
    /// A batch was lost: neither log nor txg took it.
    broken: bool,
}

/// The intent log of a writable object set.
pub struct Zil {
    objset: Weak<Objset>,
    txgs: Arc<Txgs>,
    id: u64,
    state: Mutex<State>,
    changed: Condvar,
}

/// Claims the log of an object set that is opened for writing: marks its blocks as allocated, so that nothing is put
/// over them before it is replayed. `tx` is of the first txg after the import. Gives whether there is anything to
/// replay.
pub fn claim(objset: &Arc<Objset>, tx: &Tx) -> Result<bool> {
    let header = objset.phys().zil_header;
    if header.log.is_hole() {
        return Ok(false);
    }
    if is_foreign(&header, objset.id()) {
        objset.set_zil_header(tx, &ZilHeader::default())?;
        return Ok(false);
    }
    if header.claim_txg != 0 {
        return Ok(header.flags & ZIL_REPLAY_NEEDED != 0);
    }
    let (zio, txg) = (objset.zio().clone(), tx.txg());
    let mut seen = BTreeSet::new();
    // What is older than this import is allocated as of the txg it was allocated in.
    let mut one = |bp: &BlkPtr| match bp.birth() >= txg && seen.insert(bp.dva(0)) {
        true => zio.claim(txg, bp),
        false => Ok(()),
    };
    let mut indirect = Vec::new();
    let mut blocks = Vec::new();
    let summary = walk(
        objset,
        |bp, _| {
            blocks.push(*bp);
            Ok(())
        },
        |record| {
            indirect.extend(record.blkptrs().iter().filter(|bp| !bp.is_hole() && bp.birth() >= txg).copied());
            Ok(())
        },
    )?;
    for bp in blocks.iter().chain(&indirect) {
        one(bp)?;
    }
    let needed = summary.records > 0 || summary.blocks > 1;
    let flags = ZIL_CLAIM_LR_SEQ_VALID | if needed { ZIL_REPLAY_NEEDED } else { 0 };
    let claimed = ZilHeader {
        claim_txg: txg,
        claim_blk_seq: summary.max_block_seq,
        claim_lr_seq: summary.max_record_seq,
        flags: header.flags | flags,
        ..header
    };
    objset.set_zil_header(tx, &claimed)?;
    Ok(needed)
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
    /// Opens the log of a writable object set. `guid` are random words that tell its chains from others. A log that is
    /// there from before has to be replayed or discarded before anything is committed.
    pub fn open(objset: &Arc<Objset>, txgs: &Arc<Txgs>, guid: [u64; 2]) -> Result<Arc<Self>> {
        let stale = !objset.phys().zil_header.log.is_hole();
        let state = State { guid, stale, ..State::default() };
        let zil = Arc::new(Self {
            objset: Arc::downgrade(objset),
            txgs: txgs.clone(),
            id: objset.id(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        objset.live_set()?.set_log(zil.clone());
        Ok(zil)
    }

    fn objset(&self) -> Result<Arc<Objset>> {
        self.objset.upgrade().ok_or_else(|| Error::new(ErrorKind::Bug, "the log of an object set that is closed"))
    }

    /// Notes a change made in `tx`; `txtype` is its `TX_*` number. Changes of one object are noted in the order they
    /// were made.
    pub fn log(&self, tx: &Tx, txtype: u64, ignore_case: bool, body: RecordBody<'_>) -> Result<()> {
        let record = Record { txtype, ignore_case, reclen: 0, txg: tx.txg(), seq: 0, body };
        let bytes = record.encode(Endian::NATIVE)?;
        if bytes.len() + ZIL_CHAIN_SIZE > LARGEST {
            return Err(Error::invalid("a change too large for the intent log"));
        }
        self.state.lock().notes.push_back(Itx { txg: tx.txg(), note: Note::Record(bytes) });
        Ok(())
    }

    /// Notes that bytes of an object were written in `tx`.
    pub fn log_write(&self, tx: &Tx, object: u64, offset: u64, len: u64) {
        self.state.lock().notes.push_back(Itx { txg: tx.txg(), note: Note::Data { object, offset, len } });
    }

    /// Makes durable what was noted so far: all changes of names and attributes, and the contents of `object` (of all
    /// objects when there is none). Not to be called while holding a transaction.
    pub fn commit(&self, object: Option<u64>) -> Result<()> {
        let mut state = self.state.lock();
        if state.notes.is_empty() && !state.leading {
            return Ok(());
        }
        match object {
            Some(object) => drop(state.wanted.insert(object)),
            None => state.all = true,
        }
        state.asked += 1;
        let mine = state.asked;
        while state.done < mine {
            if state.broken {
                return Err(Error::new(ErrorKind::Io, "making changes durable"));
            }
            if state.leading {
                self.changed.wait(&mut state);
                continue;
            }
            state.leading = true;
            let upto = state.asked;
            let batch = take_batch(&mut state, self.txgs.synced_txg());
            drop(state);
            let result = self.write_out(batch);
            state = self.state.lock();
            state.leading = false;
            match &result {
                Ok(()) => state.done = state.done.max(upto),
                // Those who wait for the same batch must not think it done.
                Err(_) => state.broken = true,
            }
            self.changed.notify_all();
            result?;
        }
        Ok(())
    }

    /// Writes a batch; when the log cannot take it, waits for its txg.
    fn write_out(&self, batch: Vec<Itx>) -> Result<()> {
        let Some(newest) = batch.iter().map(|i| i.txg).max() else { return Ok(()) };
        let mut allocated = Vec::new();
        let written = self.write_batch(&batch, &mut allocated);
        if written.is_err() {
            self.state.lock().orphans.append(&mut allocated);
        }
        match written {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::NoSpace | ErrorKind::Invalid | ErrorKind::Busy) => {
                self.txgs.wait_synced(newest)
            }
            Err(e) => {
                // What of the chain is on disk is unknown: it ends here.
                let mut state = self.state.lock();
                let chain: Vec<BlkPtr> = state.chain.drain(..).map(|l| l.bp).collect();
                state.discard.get_or_insert_default().extend(chain);
                drop(state);
                self.txgs.wait_synced(newest).map_err(|_| e)
            }
        }
    }

    fn write_batch(&self, batch: &[Itx], allocated: &mut Vec<BlkPtr>) -> Result<()> {
        let objset = self.objset()?;
        let records = self.records(&objset, batch)?;
        if records.is_empty() {
            return Ok(());
        }
        self.start_chain(&objset)?;
        let tx = self.txgs.assign()?;
        objset.touch(&tx)?;
        let Some(mut current) = self.state.lock().chain.back().copied() else {
            return Err(Error::new(ErrorKind::Busy, "a log that is being discarded"));
        };
        let total: usize = records.iter().map(|(_, r)| r.len()).sum();
        let mut made = Vec::new();
        let mut packed = Vec::new();
        let mut rest = records.into_iter().peekable();
        let mut left = total;
        while rest.peek().is_some() {
            let room = (current.bp.psize() as usize).saturating_sub(ZIL_CHAIN_SIZE);
            let mut bytes = Vec::with_capacity(room);
            while let Some((txg, record)) = rest.next_if(|(_, r)| bytes.len() + r.len() <= room) {
                current.max_txg = current.max_txg.max(txg);
                left -= record.len();
                bytes.extend_from_slice(&record);
            }
            // Behind the last record the guess is that the next batch will be like this one.
            let wanted = if left > 0 { left } else { total.max(self.state.lock().last_batch / 2) };
            let next = self.alloc(&objset, &tx, wanted, rest.peek().map_or(0, |(_, r)| r.len()), &current.bp)?;
            allocated.push(next.bp);
            packed.push((current, bytes, next.bp));
            made.push(current);
            current = next;
        }
        let zio = objset.zio();
        for (lwb, bytes, next) in packed {
            let mut block = encode_block(&bytes, &next, lwb.bp.psize() as usize, true, Endian::NATIVE)?;
            zio.write_log(&lwb.bp, &mut block)?;
        }
        zio.flush()?;
        let mut state = self.state.lock();
        state.last_batch = total;
        state.chain.pop_back();
        state.chain.extend(made.into_iter().map(|l| Lwb { done: true, ..l }));
        state.chain.push_back(current);
        drop(state);
        drop(tx);
        Ok(())
    }

    /// Allocates the block that follows `before`, of `wanted` bytes for records but at least `least`.
    fn alloc(&self, objset: &Objset, tx: &Tx, wanted: usize, least: usize, before: &BlkPtr) -> Result<Lwb> {
        let sum = next_sum(before.checksum());
        let mut named = BlkPtr::default();
        named.set_checksum(sum);
        let size = |bytes: usize| (bytes + ZIL_CHAIN_SIZE).next_multiple_of(4096).clamp(SMALLEST, LARGEST);
        let bm = bookmark(&named);
        let got = objset.zio().alloc_log(tx.txg(), size(wanted) as u64, &bm);
        let mut bp = match got {
            Err(e) if e.kind() == ErrorKind::NoSpace && size(least) < size(wanted) => {
                objset.zio().alloc_log(tx.txg(), size(least) as u64, &bm)?
            }
            other => other?,
        };
        bp.set_checksum(sum);
        Ok(Lwb { bp, alloc_txg: tx.txg(), max_txg: 0, done: false })
    }

    /// Makes the first block of a chain, when there is none, and waits until the header that names it is on disk.
    fn start_chain(&self, objset: &Arc<Objset>) -> Result<()> {
        let mut state = self.state.lock();
        if state.stale || state.discard.is_some() {
            return Err(Error::new(ErrorKind::Busy, "a log that was not replayed yet"));
        }
        if !state.chain.is_empty() {
            return Ok(());
        }
        state.guid = [state.guid[0], state.guid[1].wrapping_add(1)];
        let mut before = BlkPtr::default();
        before.set_checksum([state.guid[0], state.guid[1], self.id, 0]);
        drop(state);
        let tx = self.txgs.assign()?;
        objset.touch(&tx)?;
        let first = self.alloc(objset, &tx, SMALLEST, SMALLEST, &before)?;
        self.state.lock().chain.push_back(first);
        let txg = tx.txg();
        drop(tx);
        self.txgs.wait_synced(txg)
    }

    /// The records of a batch with their txgs; data is read now.
    fn records(&self, objset: &Arc<Objset>, batch: &[Itx]) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut out = Vec::new();
        for itx in batch {
            match &itx.note {
                Note::Record(bytes) => out.push((itx.txg, bytes.clone())),
                Note::Data { object, offset, len } => {
                    let dnode = match objset.dnode(*object) {
                        // Removed since, and with it what was written.
                        Err(e) if e.kind() == ErrorKind::NotFound => continue,
                        other => other?,
                    };
                    let mut at = 0;
                    while at < *len {
                        let n = (*len - at).min(LONGEST_DATA as u64);
                        let data = dnode.read_vec(offset + at, n as usize)?;
                        let write = Write {
                            object: *object,
                            offset: offset + at,
                            length: n,
                            blkptr: BlkPtr::default(),
                            data: &data,
                        };
                        let body = RecordBody::Write(Box::new(write));
                        let record =
                            Record { txtype: TX_WRITE, ignore_case: false, reclen: 0, txg: itx.txg, seq: 0, body };
                        out.push((itx.txg, record.encode(Endian::NATIVE)?));
                        at += n;
                    }
                }
            }
        }
        let mut state = self.state.lock();
        for (_, record) in &mut out {
            state.lr_seq += 1;
            let seq = Endian::NATIVE.put_u64(state.lr_seq);
            if let Some(place) = record.get_mut(AT_SEQ..AT_SEQ + 8) {
                place.copy_from_slice(&seq);
            }
        }
        Ok(out)
    }

    /// Called by the sync of the object set, in its first pass: frees what the log no longer needs and brings the header
    /// up to date.
    pub(crate) fn sync(&self, objset: &Objset, txg: u64, header: &mut ZilHeader) -> Result<()> {
        let mut dead = Vec::new();
        let mut state = self.state.lock();
        if let Some((_, seq)) = state.replayed.iter().filter(|(t, _)| *t <= txg).max() {
            header.replay_seq = header.replay_seq.max(*seq);
        }
        state.replayed.retain(|(t, _)| *t > txg);
        // What was allocated in a later txg is freed in that or a later one.
        dead.extend(state.orphans.extract_if(.., |bp| bp.birth() <= txg));
        if let Some(blocks) = state.discard.take_if(|blocks| blocks.iter().all(|bp| bp.birth() <= txg)) {
            dead.extend(blocks);
            *header = ZilHeader::default();
            state.stale = false;
        }
        if !state.stale {
            while let Some(front) = state.chain.front().copied() {
                header.log = front.bp;
                if !front.done || front.alloc_txg > txg || front.max_txg > txg {
                    break;
                }
                state.chain.pop_front();
                dead.push(front.bp);
            }
        }
        drop(state);
        dead.iter().try_for_each(|bp| objset.zio().free(txg, bp))
    }

    /// Drops what was noted for a txg that is on disk.
    pub(crate) fn txg_done(&self, txg: u64) {
        self.state.lock().notes.retain(|i| i.txg > txg);
    }

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
                if record.seq <= done {
                    return Ok(());
                }
                let mark = |tx: &Tx| {
                    let _ = objset.touch(tx);
                    self.state.lock().replayed.push((tx.txg(), record.seq));
                };
                f(record, &mark)
            },
        )?;
        if let ZilEnd::Unreadable(e) = summary.end {
            return Err(e.context("replaying an intent log"));
        }
        self.discard()?;
        Ok(summary)
    }

    /// Brings everything noted to disk and gives the log's blocks back, so that the object set can be closed with a header
    /// that names none. Returns when that is on disk.
    pub fn close(&self) -> Result<()> {
        self.commit(None)?;
        let objset = self.objset()?;
        let mut state = self.state.lock();
        while state.leading {
            // A leader may wait for a txg: nothing is held meanwhile.
            self.changed.wait(&mut state);
        }
        let chain: Vec<BlkPtr> = state.chain.drain(..).map(|l| l.bp).collect();
        if chain.is_empty() {
            return Ok(());
        }
        state.discard.get_or_insert_default().extend(chain);
        drop(state);
        let tx = self.txgs.assign()?;
        objset.touch(&tx)?;
        let txg = tx.txg();
        drop(tx);
        self.txgs.wait_synced(txg)
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
        let tx = self.txgs.assign()?;
        objset.touch(&tx)?;
        self.state.lock().discard = Some(blocks);
        let txg = tx.txg();
        drop(tx);
        self.txgs.wait_synced(txg)
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
            let claimed = |bp: &&BlkPtr| claim_txg != 0 && !bp.is_hole() && bp.birth() >= claim_txg;
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

/// Takes what the next batch writes off the notes.
fn take_batch(state: &mut State, synced: u64) -> Vec<Itx> {
    let (all, wanted) = (std::mem::take(&mut state.all), std::mem::take(&mut state.wanted));
    let mut batch = Vec::new();
    let mut keep = VecDeque::new();
    for itx in std::mem::take(&mut state.notes) {
        if itx.txg <= synced {
            continue;
        }
        match itx.contents_of() {
            Some(object) if !all && !wanted.contains(&object) => keep.push_back(itx),
            _ => batch.push(itx),
        }
    }
    state.notes = keep;
    batch
}
