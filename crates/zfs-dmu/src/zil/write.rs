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
//! Data of writes is read from the object when it is committed. Small pieces go into the record; whole blocks of large
//! writes are written to where the txg will have them, and the record holds their pointers ([`Dnode::write_ahead`]), which
//! saves writing them twice.
//!
//! When a block cannot be had, or a change has no record, the txg is waited for instead.
//!
//! Lock order: the state's lock is a leaf. A leader holds a transaction while it allocates, so that the txg it allocates
//! in does not sync before the new blocks are known to the state.

use super::bookmark;
use super::notes::{Itx, Note, Notes};
use crate::dnode::Dnode;
use crate::objset::Objset;
use crate::owner::{LogPolicy, SyncMode};
use crate::txg::{Tx, Txgs};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use zfs_phys::objset::ZilHeader;
use zfs_phys::zil::{LR_WRITE_SIZE, Record, RecordBody, Write, ZIL_CHAIN_SIZE, encode_block, next_sum};
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Error, ErrorKind, Result};

/// Smallest and largest block of the log, bytes.
const SMALLEST: usize = 8 << 10;
const LARGEST: usize = 128 << 10;
/// Record of a write (`TX_WRITE`).
pub(super) const TX_WRITE: u64 = 9;
/// Where in a record its sequence number lies.
const AT_SEQ: usize = 24;
/// Longest data of one record.
const LONGEST_DATA: usize = LARGEST - ZIL_CHAIN_SIZE - LR_WRITE_SIZE - 8;

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
pub(super) struct State {
    notes: Notes,
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
    pub(super) discard: Option<Vec<BlkPtr>>,
    /// Blocks that were allocated for nothing.
    orphans: Vec<BlkPtr>,
    /// The header on disk leads to a log that has to be replayed or discarded first.
    pub(super) stale: bool,
    /// Newest record that was replayed, by txg.
    pub(super) replayed: Vec<(u64, u64)>,
    /// Record that is being replayed: changes are those of the record, and not noted again.
    pub(super) replaying: Option<u64>,
    last_batch: usize,
    /// A batch was lost: neither log nor txg took it.
    broken: bool,
}

/// The intent log of a writable object set.
pub struct Zil {
    objset: Weak<Objset>,
    pub(super) txgs: Arc<Txgs>,
    pub(super) id: u64,
    pub(super) state: Mutex<State>,
    changed: Condvar,
}

impl Zil {
    /// Opens the log of a writable object set. `guid` are random words that tell its chains from others. A log that is
    /// there from before has to be replayed or discarded before anything is committed. An object set has one log:
    /// whoever opens it again gets the same.
    pub fn open(objset: &Arc<Objset>, txgs: &Arc<Txgs>, guid: [u64; 2]) -> Result<Arc<Self>> {
        if let Some(log) = objset.live_set()?.log() {
            return Ok(log);
        }
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

    pub(super) fn objset(&self) -> Result<Arc<Objset>> {
        self.objset.upgrade().ok_or_else(|| Error::new(ErrorKind::Bug, "the log of an object set that is closed"))
    }

    /// How the object set is logged at the moment.
    pub fn policy(&self) -> LogPolicy {
        let policy = |objset: Arc<Objset>| objset.live_set().map(|live| live.owner.log_policy()).ok();
        self.objset.upgrade().and_then(policy).unwrap_or_default()
    }

    /// Whether it has blocks.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.state.lock();
        !state.chain.is_empty() || !state.orphans.is_empty() || (state.discard.is_some() && !state.stale)
    }

    /// Whether a record is being replayed.
    pub fn is_replaying(&self) -> bool {
        self.state.lock().replaying.is_some()
    }

    /// Whether a record is being replayed; then it counts as replayed once `tx` is on disk.
    pub fn replaying(&self, tx: &Tx) -> bool {
        let mut state = self.state.lock();
        let Some(seq) = state.replaying else { return false };
        state.replayed.push((tx.txg(), seq));
        drop(state);
        // The header has to be stored with that txg.
        let _ = self.objset().and_then(|objset| objset.touch(tx));
        true
    }

    fn note(&self, tx: &Tx, about: Option<u64>, note: Note) {
        if !self.replaying(tx) {
            self.state.lock().notes.add(tx.txg(), about, note);
        }
    }

    /// Notes a change made in `tx`; `txtype` is its `TX_*` number, `about` the object whose contents or attributes it
    /// changed, if it is no change of names. Changes of one object are noted in the order they were made.
    pub fn log(&self, tx: &Tx, txtype: u64, about: Option<u64>, body: RecordBody<'_>) {
        let record = Record { txtype, ignore_case: false, reclen: 0, txg: tx.txg(), seq: 0, body };
        match record.encode(Endian::NATIVE) {
            Ok(bytes) if bytes.len() + ZIL_CHAIN_SIZE <= LARGEST => self.note(tx, about, Note::Record(bytes)),
            // What no record can say is durable with its txg.
            _ => self.note(tx, about, Note::Wait),
        }
    }

    /// Notes that bytes of an object were written in `tx`.
    pub fn log_write(&self, tx: &Tx, object: u64, offset: u64, len: u64) {
        self.note(tx, Some(object), Note::Data { object, offset, len });
    }

    /// Notes a change that no record can tell: a commit that covers it waits for its txg.
    pub fn log_unknown(&self, tx: &Tx, about: Option<u64>) {
        self.note(tx, about, Note::Wait);
    }

    /// Has what was noted of an object written with the next commit of anything: its name changes now.
    pub fn settle(&self, object: u64) {
        self.state.lock().notes.settle(object);
    }

    /// Drops what was noted of an object that is removed: its number may become another's.
    pub fn forget(&self, object: u64) {
        self.state.lock().notes.forget(object);
    }

    /// Makes durable what was noted so far: all changes of names and attributes, and the contents of `object` (of all
    /// objects when there is none). Not to be called while holding a transaction.
    pub fn commit(&self, object: Option<u64>) -> Result<()> {
        if self.policy().sync == SyncMode::Disabled {
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.notes.is_empty(object) && !state.leading && !state.broken {
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
            let (wanted, all) = (std::mem::take(&mut state.wanted), std::mem::take(&mut state.all));
            let batch = state.notes.take(&wanted, all, self.txgs.synced_txg());
            drop(state);
            // What is to be durable waits for devices that are away.
            let result = zfs_env::pool::insisting(|| self.write_out(batch));
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
        if batch.iter().any(|i| matches!(i.note, Note::Wait)) {
            return self.txgs.wait_synced(newest);
        }
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
        self.start_chain(&objset)?;
        let tx = self.txgs.assign()?;
        objset.touch(&tx)?;
        let records = self.records(&objset, &tx, batch)?;
        if records.is_empty() {
            return Ok(());
        }
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
    fn records(&self, objset: &Arc<Objset>, tx: &Tx, batch: &[Itx]) -> Result<Vec<(u64, Vec<u8>)>> {
        let policy = self.policy();
        let mut out = Vec::new();
        for itx in batch {
            match &itx.note {
                Note::Wait => {}
                Note::Record(bytes) => out.push((itx.txg, bytes.clone())),
                Note::Data { object, offset, len } => match objset.dnode(*object) {
                    // Removed since, and with it what was written.
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                    Ok(dnode) => {
                        let ahead = (itx.txg == tx.txg() && policy.ahead(*len, dnode.datablksz())).then_some(tx);
                        self.data_records(&dnode, ahead, (itx.txg, *offset, *len), &mut out)?;
                    }
                },
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

    /// The records of a write: whole blocks are written ahead where `ahead` allows it, the rest is copied.
    fn data_records(
        &self,
        dnode: &Dnode,
        ahead: Option<&Tx>,
        (txg, offset, len): (u64, u64, u64),
        out: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<()> {
        let mut put = |offset: u64, length: u64, blkptr: BlkPtr, data: &[u8]| {
            let write = Write { object: dnode.object(), offset, length, blkptr, data };
            let body = RecordBody::Write(Box::new(write));
            let record = Record { txtype: TX_WRITE, ignore_case: false, reclen: 0, txg, seq: 0, body };
            out.push((txg, record.encode(Endian::NATIVE)?));
            Ok::<_, Error>(())
        };
        let blksz = dnode.datablksz().max(1);
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let in_block = (blksz - at % blksz).min(end - at);
            if let Some(tx) = ahead {
                let (bp, orphan) = dnode.write_ahead(tx, at / blksz)?;
                self.state.lock().orphans.extend(orphan);
                if let Some(bp) = bp {
                    put(at, in_block, bp, &[])?;
                    at += in_block;
                    continue;
                }
            }
            let most = if ahead.is_some() { in_block } else { end - at };
            let n = most.min(LONGEST_DATA as u64);
            put(at, n, BlkPtr::default(), &dnode.read_vec(at, n as usize)?)?;
            at += n;
        }
        Ok(())
    }

    /// Called by the sync of the object set, in its first pass: frees what the log no longer needs and brings the header
    /// up to date.
    pub(crate) fn sync(&self, objset: &Objset, txg: u64, header: &mut ZilHeader) -> Result<()> {
        let mut dead = Vec::new();
        let empty = header.log.is_hole();
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
        if empty != header.log.is_hole() {
            objset.live_set()?.owner.log_in_use(empty);
        }
        dead.iter().try_for_each(|bp| objset.zio().free(txg, bp))
    }

    /// Drops what was noted for a txg that is on disk.
    pub(crate) fn txg_done(&self, txg: u64) {
        self.state.lock().notes.txg_done(txg);
    }

    /// Brings everything noted to disk and gives the log's blocks back, so that the object set can be closed with a header
    /// that names none. Returns when that is on disk.
    pub fn close(&self) -> Result<()> {
        self.commit(None)?;
        self.give_back()
    }

    /// Gives up what was noted, with the log's blocks: the object set is going to be destroyed or replaced. Returns when
    /// that is on disk.
    pub fn abandon(&self) -> Result<()> {
        self.state.lock().notes.clear();
        self.give_back()
    }

    fn give_back(&self) -> Result<()> {
        let objset = self.objset()?;
        let mut state = self.state.lock();
        while state.leading {
            // A leader may wait for a txg: nothing is held meanwhile.
            self.changed.wait(&mut state);
        }
        let chain: Vec<BlkPtr> = state.chain.drain(..).map(|l| l.bp).collect();
        if chain.is_empty() && state.orphans.is_empty() && state.discard.is_none() {
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
}
