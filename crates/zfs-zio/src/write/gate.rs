//! A pool that too many devices have failed: it is suspended, and goes on when they are back.
//!
//! Who writes for the pool itself (the sync of a txg, a commit of an intent log) *insists* ([`zfs_env::pool::insisting`]).
//! What it writes or reads is tried again after [`Zio::resume`], from the very call that failed: a txg whose devices vanish
//! in its middle is written whole once they are back, and nobody above notices but by the time it took. Everybody else
//! is told at once, but for programs that change or read files, which wait unless the pool's mode is to continue
//! ([`zfs_env::pool::waiting`]).
//!
//! A device that was away may have lost what it was given since its last flush. So every block stays in memory until a
//! flush that began after its write has succeeded (`Journal`), and [`Zio::resume`] writes all of them again, in their order,
//! and flushes, before anybody goes on. Rejected: doing the whole sync again, which would have to take back what it allocated.
//!
//! Only a pool that was told how to behave ([`Zio::set_fail_mode`]) waits; others fail for good, as a broken invariant
//! does in any ([`Zio::break_down`]).
//!
//! Lock order: `writing` (shared by those who write and flush, exclusive for resuming), then `journal`, then `state`.
//! Nobody waits for a resumption while holding one.

use super::Writer;
use crate::buf::Buf;
use crate::error::{Error, ErrorKind, Result};
use crate::vdev::{VdevAux, VdevState};
use crate::zio::Zio;
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zfs_env::pool::{Patience, patience};
use zfs_phys::BlkPtr;
use zfs_phys::label::VDEV_PAD_SIZE;

/// Share of the cache's budget that may wait for a flush in memory, and bounds of it in bytes; more begin one.
const JOURNAL_SHARE: u64 = 8;
const JOURNAL_LEAST: u64 = 8 << 20;
const JOURNAL_MOST: u64 = 64 << 20;

/// What a pool does when too many of its devices fail (property `failmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// Whoever changes something waits until the devices are back.
    Wait,
    /// New changes fail; what was begun waits.
    Continue,
    /// The process ends.
    Panic,
}

impl FailMode {
    /// The property's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Continue => "continue",
            Self::Panic => "panic",
        }
    }
}

/// A block that no flush has covered.
struct Entry {
    seq: u64,
    bp: BlkPtr,
    bytes: Buf,
}

#[derive(Default)]
struct Journal {
    entries: Vec<Entry>,
    next: u64,
    bytes: u64,
}

#[derive(Default)]
struct State {
    suspended: bool,
    broken: bool,
    mode: Option<FailMode>,
}

/// The gate that everything to be written passes.
#[derive(Default)]
pub(super) struct Gate {
    /// The state's `suspended`, to be asked without a lock.
    suspended: AtomicBool,
    /// Whether the pool waits for devices.
    patient: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    writing: RwLock<()>,
    journal: Mutex<Journal>,
    /// Bytes that the journal may hold.
    most: AtomicU64,
    /// Somebody makes the flush that a large journal needs.
    flushing: AtomicBool,
    /// How often it was suspended.
    times: AtomicU64,
    /// How often it went on. Whatever failed before it did may be tried again, and says nothing about now.
    resumed: AtomicU64,
    /// Called at each suspension.
    listener: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// The bytes of a block to be written.
#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    /// Those that can be kept as they are.
    Shared(&'a Buf),
    /// Others.
    Slice(&'a [u8]),
}

impl Bytes<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(buf) => buf,
            Self::Slice(bytes) => bytes,
        }
    }
}

impl Gate {
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    fn is_patient(&self) -> bool {
        self.patient.load(Ordering::Acquire)
    }

    /// Whether the caller waits for devices, whatever the mode.
    fn insists(&self) -> bool {
        self.is_patient() && patience() == Patience::Insists
    }

    /// Whether the caller waits for devices that reading needs.
    fn waits(&self) -> bool {
        self.insists()
            || (self.is_patient()
                && patience() == Patience::Waits
                && self.state.lock().mode != Some(FailMode::Continue))
    }

    /// Waits until the pool goes on; false when it never will.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.suspended && !state.broken {
            self.changed.wait(&mut state);
        }
        !state.broken
    }

    /// Waits, or says that the pool is suspended, as the caller and the pool are.
    pub(super) fn pass(&self) -> Result<()> {
        if !self.is_suspended() || (self.insists() && self.wait()) { Ok(()) } else { Err(suspended()) }
    }

    /// Keeps a block until the next flush.
    fn keep(&self, bp: &BlkPtr, bytes: Bytes<'_>) {
        if !self.is_patient() {
            return;
        }
        let bytes = match bytes {
            Bytes::Shared(buf) => buf.clone(),
            Bytes::Slice(bytes) => Buf::copy_of(bytes),
        };
        let mut journal = self.journal.lock();
        let seq = journal.next;
        journal.next += 1;
        journal.bytes += bytes.len() as u64;
        journal.entries.push(Entry { seq, bp: *bp, bytes });
    }

    fn take(&self) -> Vec<Entry> {
        let mut journal = self.journal.lock();
        journal.bytes = 0;
        std::mem::take(&mut journal.entries)
    }

    fn put_back(&self, entries: Vec<Entry>) {
        let mut journal = self.journal.lock();
        journal.bytes += entries.iter().map(|e| e.bytes.len() as u64).sum::<u64>();
        journal.entries.extend(entries);
    }
}

fn suspended() -> Error {
    Error::new(ErrorKind::Suspended, "writing to a suspended pool")
}

impl Zio {
    fn gate(&self) -> Option<&Gate> {
        self.writer.get().map(|w| &w.gate)
    }

    /// Sets what becomes of the pool when too many devices fail. Without it, failing devices end all writing for good.
    pub fn set_fail_mode(&self, mode: FailMode) {
        if let Some(gate) = self.gate() {
            gate.state.lock().mode = Some(mode);
            let most = (self.arc().stats().budget / JOURNAL_SHARE).clamp(JOURNAL_LEAST, JOURNAL_MOST);
            gate.most.store(most, Ordering::Relaxed);
            gate.patient.store(true, Ordering::Release);
            gate.changed.notify_all();
        }
    }

    /// Whether [`Zio::enable_writes`] was called and the pool is not suspended.
    pub fn is_writable(&self) -> bool {
        self.gate().is_some_and(|g| !g.is_suspended())
    }

    /// Whether writing has stopped because too many devices failed.
    pub fn is_suspended(&self) -> bool {
        self.gate().is_some_and(Gate::is_suspended)
    }

    /// Has each suspension told; the first who asks is heard.
    pub fn on_suspension(&self, listener: impl Fn() + Send + Sync + 'static) {
        if let Some(gate) = self.gate() {
            let _ = gate.listener.set(Box::new(listener));
        }
    }

    /// Whether it can go on when the devices are back.
    pub fn can_resume(&self) -> bool {
        self.gate().is_some_and(|g| g.is_patient() && !g.state.lock().broken)
    }

    /// What it does when too many devices fail, if it was told.
    pub fn fail_mode(&self) -> Option<FailMode> {
        self.gate().and_then(|g| g.state.lock().mode)
    }

    /// Whether a block could not be read because devices are away, which is no damage of the block.
    pub(crate) fn is_away(&self, bp: &BlkPtr, kind: ErrorKind) -> bool {
        let patient = self.gate().is_some_and(Gate::is_patient);
        if !patient || !matches!(kind, ErrorKind::Io | ErrorKind::NoDevice) {
            return false;
        }
        if !self.is_suspended() {
            self.close_gone();
        }
        let top = |dva: zfs_phys::Dva| self.vdevs().top(dva.vdev());
        let dead = |top: &crate::vdev::Vdev| top.config.kind.is_concrete() && !top.state().is_readable();
        self.is_suspended() || bp.dvas().filter_map(top).any(dead)
    }

    /// How often writing has stopped.
    pub fn suspensions(&self) -> u64 {
        self.gate().map_or(0, |g| g.times.load(Ordering::Relaxed))
    }

    /// How often it went on after a suspension: to be asked before something is tried that may fail.
    pub(crate) fn resumptions(&self) -> u64 {
        self.gate().map_or(0, |g| g.resumed.load(Ordering::Acquire))
    }

    /// Stops all writing because too many devices failed. Those that do not answer are closed.
    pub fn suspend(&self, why: &Error) {
        self.suspend_since(self.resumptions(), why);
    }

    /// Does so because of something that was begun after as many [`Zio::resumptions`]; false when it has gone on since, and
    /// devices are back.
    pub(super) fn suspend_since(&self, since: u64, why: &Error) -> bool {
        let Some(gate) = self.gate() else { return true };
        let first = {
            let mut state = gate.state.lock();
            if gate.resumed.load(Ordering::Acquire) != since {
                return false;
            }
            let first = !std::mem::replace(&mut state.suspended, true);
            gate.suspended.store(true, Ordering::Release);
            if first && state.mode == Some(FailMode::Panic) {
                tracing::error!(pool = &**self.pool_name(), error = %why, "pool failed, and its failmode is panic");
                zfs_env::host::panic_now();
            }
            first
        };
        if first {
            gate.times.fetch_add(1, Ordering::Relaxed);
            tracing::error!(pool = &**self.pool_name(), error = %why, "pool is suspended");
            if gate.is_patient() {
                self.close_gone();
            }
            gate.listener.get().into_iter().for_each(|tell| tell());
        }
        true
    }

    /// Stops all writing for good: going on would make things worse, or nobody wants it any more.
    pub fn break_down(&self, why: &Error) {
        self.suspend(why);
        if let Some(gate) = self.gate() {
            gate.state.lock().broken = true;
            gate.changed.notify_all();
        }
    }

    /// Closes the leaves that do not answer, which the tools then show.
    pub fn close_gone(&self) {
        for leaf in self.vdevs().leaves() {
            if leaf.state().is_readable() && leaf.device().is_some() && !leaf.answers() {
                tracing::error!(pool = &**self.pool_name(), vdev = leaf.guid(), "device does not answer");
                leaf.close(VdevState::CantOpen, VdevAux::OpenFailed);
            }
        }
        self.vdevs().reevaluate();
    }

    /// Lets a change begin: waits while the pool is suspended, or fails, as its mode says.
    pub fn admit(&self) -> Result<()> {
        let Some(gate) = self.gate().filter(|g| g.is_suspended() && g.is_patient()) else { return Ok(()) };
        let mode = gate.state.lock().mode;
        let waits = mode != Some(FailMode::Continue) || gate.insists();
        if waits && gate.wait() { Ok(()) } else { Err(suspended().pool(self.pool_name())) }
    }

    /// Lets a suspended pool go on after devices have come back (`zpool clear`): what they may have lost is written again,
    /// then everybody who waits tries again.
    ///
    /// # Errors
    /// `Io` when too many devices still fail, `Suspended` when it cannot go on at all. It stays suspended then.
    pub fn resume(&self) -> Result<()> {
        let Some(gate) = self.gate().filter(|g| g.is_suspended()) else { return Ok(()) };
        if gate.state.lock().broken {
            return Err(suspended().pool(self.pool_name()));
        }
        let _alone = gate.writing.write();
        self.vdevs().check_writable()?;
        // What they lacked since the last flush, they get now.
        self.vdevs().leaves().into_iter().filter(|l| l.state().is_readable()).for_each(|l| l.forget_unflushed_dtl());
        let mut entries = gate.take();
        entries.sort_by_key(|e| e.seq);
        let again = entries.iter().try_for_each(|e| self.write_copies_once(&e.bp, &e.bytes));
        let flushed = again.and_then(|()| self.vdevs().flush(self.tasks().map(|t| &**t)));
        if let Err(e) = flushed {
            gate.put_back(entries);
            self.close_gone();
            return Err(e.pool(self.pool_name()));
        }
        self.confirm();
        tracing::info!(pool = &**self.pool_name(), blocks = entries.len(), "pool goes on");
        let mut state = gate.state.lock();
        state.suspended = false;
        gate.suspended.store(false, Ordering::Release);
        gate.resumed.fetch_add(1, Ordering::AcqRel);
        gate.changed.notify_all();
        Ok(())
    }

    /// All that was written is on stable storage, or known to be lacking.
    fn confirm(&self) {
        self.vdevs().leaves().into_iter().for_each(|l| l.confirm_dtl());
    }

    /// After a failure of what was begun after as many [`Zio::resumptions`]: waits until it may be tried again, or passes
    /// it on.
    fn go_on_after(&self, since: u64, e: Error) -> Result<()> {
        let Some(gate) = self.gate().filter(|g| g.insists()) else { return Err(e) };
        if !matches!(e.kind(), ErrorKind::Io | ErrorKind::Suspended) {
            return Err(e);
        }
        if !self.suspend_since(since, &e) || gate.wait() { Ok(()) } else { Err(e) }
    }

    /// Whether a read that failed is worth trying again: it was begun after as many [`Zio::resumptions`], failed because
    /// devices were away, and they are back.
    pub(crate) fn read_again(&self, since: u64, bp: &BlkPtr, e: &Error) -> bool {
        let Some(gate) = self.gate().filter(|g| g.waits()) else { return false };
        let away = self.is_away(bp, e.kind());
        let back = || self.resumptions() != since && matches!(e.kind(), ErrorKind::Io | ErrorKind::NoDevice);
        if away { !self.suspend_since(since, e) || gate.wait() } else { back() }
    }

    /// Whether an allocation that failed is worth trying again: there was no device to allocate on.
    pub(super) fn allocate_again(&self, since: u64, e: &Error) -> bool {
        let gone = e.kind() == ErrorKind::NoSpace && self.vdevs().check_writable().is_err();
        gone && self.go_on_after(since, Error::new(ErrorKind::Io, "allocating a block")).is_ok()
    }

    /// Writes `bytes` to every address of `bp`; one that takes them is enough.
    pub(super) fn write_copies(&self, bp: &BlkPtr, bytes: Bytes<'_>) -> Result<()> {
        let gate = &self.writer()?.gate;
        loop {
            let since = self.resumptions();
            let written = {
                let _writing = gate.writing.read();
                let written = self.write_copies_once(bp, bytes.as_slice());
                if written.is_ok() {
                    gate.keep(bp, bytes);
                }
                written
            };
            match written {
                Ok(()) => break,
                Err(e) => self.go_on_after(since, e)?,
            }
        }
        let full = || gate.journal.lock().bytes > gate.most.load(Ordering::Relaxed);
        if gate.is_patient() && full() && !gate.flushing.swap(true, Ordering::AcqRel) {
            let flushed = self.flush();
            gate.flushing.store(false, Ordering::Release);
            flushed?;
        }
        Ok(())
    }

    /// Runs what flushes; when it goes well, nothing written before needs to be kept any more.
    pub(super) fn flushing(&self, flush: &dyn Fn() -> Result<()>) -> Result<()> {
        loop {
            let gate = &self.writer()?.gate;
            let since = self.resumptions();
            let flushed = {
                let _writing = gate.writing.read();
                let entries = gate.take();
                // A flush that did not find devices, because somebody else has just closed them, was none.
                let flushed = flush().and_then(|()| if gate.is_suspended() { Err(suspended()) } else { Ok(()) });
                match &flushed {
                    Ok(()) => self.confirm(),
                    Err(_) => gate.put_back(entries),
                }
                flushed
            };
            match flushed {
                Ok(()) => return Ok(()),
                Err(e) => self.go_on_after(since, e)?,
            }
        }
    }
}

impl crate::vdev::Vdev {
    /// Whether the device of a leaf can be read at all: one of its labels, where nothing changes.
    pub fn answers(&self) -> bool {
        let Some(device) = self.device() else { return false };
        let mut probe = [0; VDEV_PAD_SIZE as usize / 2];
        (0..zfs_phys::label::VDEV_LABELS)
            .filter_map(|n| zfs_phys::label::label_offset(device.size(), n))
            .any(|at| device.read_at(at + VDEV_PAD_SIZE, &mut probe).is_ok())
    }
}

impl Writer {
    /// Passes when the pool is not suspended, or is not any more.
    pub(super) fn passed(&self) -> Result<&Self> {
        self.gate.pass().map(|()| self)
    }
}
