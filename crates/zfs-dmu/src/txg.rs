//! Transaction groups: which changes reach the disk together.
//!
//! Purpose: every change belongs to the txg that was open when its transaction began. A txg is *open* while new
//! transactions join it, *quiescing* until those that hold it are done, then *syncing* until all of it is on disk. At
//! any time one txg is open, at most one quiesces (or waits, quiesced, for the one before), and at most one syncs.
//!
//! Life cycle: [`Txgs::run`] is the sync thread's loop and lives as long as the pool is imported read-write. It closes
//! the open txg when somebody waits for it ([`Txgs::wait_synced`], [`Txgs::kick`]), when much is dirty, or some
//! seconds after its first transaction. An error of the sync function ends everything: no later transaction begins.
//!
//! Throttle: a transaction that begins while more than [`DELAY_PERCENT`] of the allowed dirty bytes are unwritten waits
//! for a time that grows without bound towards the limit, so that writers slow down to what the disks take; at the
//! limit it waits for a sync to end.
//!
//! Lock order: one lock, a leaf. A thread holds at most one transaction, and waits for no txg while it does.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zfs_zio::{Error, ErrorKind, Result, Zio};

/// Txgs that can be in use at the same time, as a power of two (`TXG_SIZE`).
pub const TXG_SIZE: u64 = 4;
/// Default of the longest time that a change stays in the open txg (`zfs_txg_timeout`).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Dirty share of the limit from which on transactions are delayed, percent.
pub const DELAY_PERCENT: u64 = 60;
/// Dirty share of the limit at which the open txg is closed, percent.
const SYNC_PERCENT: u64 = 20;
/// Longest single delay.
const LONGEST_DELAY: Duration = Duration::from_millis(100);
/// Scale of the delay, nanoseconds (`zfs_delay_scale`).
const DELAY_SCALE: u64 = 500_000;
/// Default limit of dirty bytes.
const DIRTY_MAX: u64 = 256 << 20;

#[derive(Debug, Default)]
struct State {
    open: u64,
    /// Transactions that hold each txg, by its number modulo `TXG_SIZE`.
    holds: [u64; TXG_SIZE as usize],
    /// Transactions that ever joined the open txg.
    joined: u64,
    quiescing: Option<u64>,
    quiesced: Option<u64>,
    syncing: Option<u64>,
    synced: u64,
    /// Txgs up to this one shall be closed as soon as possible.
    wanted: u64,
    stop: bool,
    /// Kind and text of what ended everything.
    failed: Option<(ErrorKind, String)>,
}

impl State {
    fn hold(&mut self, txg: u64) -> Option<&mut u64> {
        self.holds.get_mut((txg % TXG_SIZE) as usize)
    }

    /// Moves txgs on that wait for nothing.
    fn advance(&mut self) {
        if let Some(txg) = self.quiescing
            && self.quiesced.is_none()
            && self.hold(txg).is_none_or(|h| *h == 0)
        {
            (self.quiescing, self.quiesced) = (None, Some(txg));
        }
        if self.wanted >= self.open && self.quiescing.is_none() && self.quiesced.is_none() {
            self.quiescing = Some(self.open);
            self.open += 1;
            self.joined = 0;
            self.advance();
        }
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            Some((kind, why)) => Err(Error::new(*kind, format!("the pool stopped writing: {why}"))),
            None => Ok(()),
        }
    }
}

/// The transaction groups of a pool.
#[derive(Debug)]
pub struct Txgs {
    state: Mutex<State>,
    /// The sync thread waits here.
    work: Condvar,
    /// Everybody else waits here.
    done: Condvar,
    dirty: [AtomicU64; TXG_SIZE as usize],
    dirty_max: AtomicU64,
    /// Longest time that a change stays in the open txg, milliseconds.
    timeout: AtomicU64,
    /// What says whether changes may begin.
    zio: OnceLock<Arc<Zio>>,
}

impl Txgs {
    /// Groups of which `first_open_txg` is the first that is open.
    pub fn new(first_open_txg: u64) -> Arc<Self> {
        let open = first_open_txg.max(1);
        Arc::new(Self {
            state: Mutex::new(State { open, synced: open - 1, ..State::default() }),
            work: Condvar::new(),
            done: Condvar::new(),
            dirty: Default::default(),
            dirty_max: AtomicU64::new(DIRTY_MAX),
            timeout: AtomicU64::new(TIMEOUT.as_millis() as u64),
            zio: OnceLock::new(),
        })
    }

    /// Sets the longest time that a change stays in the open txg; holds from the next txg on.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// From now on transactions begin only when `zio` admits them: not, or later, while the pool is suspended.
    pub fn set_gate(&self, zio: &Arc<Zio>) {
        let _ = self.zio.set(zio.clone());
    }

    fn admit(&self) -> Result<()> {
        self.zio.get().map_or(Ok(()), |zio| zio.admit())
    }

    /// Sets the limit of dirty bytes.
    pub fn set_dirty_max(&self, bytes: u64) {
        self.dirty_max.store(bytes.max(1 << 20), Relaxed);
    }

    /// Bytes that were changed and are not on disk.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.iter().map(|d| d.load(Relaxed)).sum()
    }

    /// Begins a transaction in the open txg. Waits while too much is dirty. Fails when the pool stopped writing.
    pub fn assign(self: &Arc<Self>) -> Result<Tx> {
        self.admit()?;
        self.throttle()?;
        self.assign_now()
    }

    /// Begins a small transaction in the open txg without waiting, be the pool suspended or full of what is dirty. Fails
    /// when the pool stopped writing.
    pub fn assign_now(self: &Arc<Self>) -> Result<Tx> {
        let mut state = self.state.lock();
        state.check()?;
        let txg = state.open;
        if let Some(h) = state.hold(txg) {
            *h += 1;
        }
        state.joined += 1;
        let first = state.joined == 1;
        drop(state);
        if first {
            // The sync thread starts to count the seconds.
            self.work.notify_all();
        }
        Ok(Tx { txg, held: Some(self.clone()) })
    }

    /// Waits as long as the amount of dirty data demands.
    fn throttle(&self) -> Result<()> {
        let max = self.dirty_max.load(Relaxed);
        let from = max / 100 * DELAY_PERCENT;
        loop {
            let dirty = self.dirty_bytes();
            if dirty <= from {
                return Ok(());
            }
            self.admit()?;
            let mut state = self.state.lock();
            state.check()?;
            if dirty >= max {
                state.wanted = state.wanted.max(state.open);
                state.advance();
                self.work.notify_all();
                self.done.wait_for(&mut state, LONGEST_DELAY);
                continue;
            }
            drop(state);
            let nanos = DELAY_SCALE.saturating_mul(dirty - from) / (max - dirty).max(1);
            let delay = Duration::from_nanos(nanos).min(LONGEST_DELAY);
            let waiting = Mutex::new(());
            Condvar::new().wait_for(&mut waiting.lock(), delay);
            return Ok(());
        }
    }

    fn dirtied(&self, txg: u64, bytes: u64) {
        if let Some(d) = self.dirty.get((txg % TXG_SIZE) as usize) {
            d.fetch_add(bytes, Relaxed);
        }
        if self.dirty_bytes() > self.dirty_max.load(Relaxed) / 100 * SYNC_PERCENT {
            let mut state = self.state.lock();
            if state.wanted < txg && state.syncing.is_none() && state.quiesced.is_none() {
                state.wanted = txg;
                state.advance();
                self.work.notify_all();
            }
        }
    }

    fn release(&self, txg: u64) {
        let mut state = self.state.lock();
        if let Some(h) = state.hold(txg) {
            *h = h.saturating_sub(1);
        }
        state.advance();
        if state.quiesced.is_some() {
            self.work.notify_all();
        }
    }

    /// The txg that transactions join now.
    pub fn open_txg(&self) -> u64 {
        self.state.lock().open
    }

    /// The txg being synced, if one is.
    pub fn syncing_txg(&self) -> Option<u64> {
        self.state.lock().syncing
    }

    /// The newest txg that is on disk.
    pub fn synced_txg(&self) -> u64 {
        self.state.lock().synced
    }

    /// Has the open txg closed soon.
    pub fn kick(&self) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(state.open);
        state.advance();
        self.work.notify_all();
    }

    /// Waits until `txg` is on disk; 0 stands for the open one. Not to be called while holding a transaction.
    pub fn wait_synced(&self, txg: u64) -> Result<()> {
        let mut state = self.state.lock();
        let txg = if txg == 0 { state.open } else { txg };
        while state.synced < txg {
            state.check()?;
            if state.stop && state.syncing.is_none() && state.quiesced.is_none() && state.quiescing.is_none() {
                return Err(Error::new(ErrorKind::ReadOnly, "waiting for a txg of a pool that is closed"));
            }
            state.wanted = state.wanted.max(txg.min(state.open));
            state.advance();
            self.work.notify_all();
            self.done.wait(&mut state);
        }
        Ok(())
    }

    /// Ends [`Txgs::run`] once everything that was begun is on disk.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_all();
    }

    /// The loop of the sync thread: calls `sync` with each txg in turn, when all its transactions are done. Returns
    /// after [`Txgs::stop`], or with the first error of `sync`, after which no transaction begins any more.
    pub fn run(&self, mut sync: impl FnMut(u64) -> Result<()>) -> Result<()> {
        while let Some(txg) = self.next_to_sync() {
            let result = sync(txg);
            let mut state = self.state.lock();
            state.syncing = None;
            if let Err(e) = result {
                state.failed = Some((e.kind(), e.to_string()));
                self.done.notify_all();
                return Err(e);
            }
            state.synced = txg;
            if let Some(d) = self.dirty.get((txg % TXG_SIZE) as usize) {
                d.store(0, Relaxed);
            }
            state.advance();
            drop(state);
            self.done.notify_all();
        }
        self.done.notify_all();
        Ok(())
    }

    /// Waits for a txg whose transactions are done; nothing after [`Txgs::stop`].
    fn next_to_sync(&self) -> Option<u64> {
        let mut state = self.state.lock();
        loop {
            state.advance();
            if let Some(txg) = state.quiesced.take() {
                state.syncing = Some(txg);
                state.advance();
                return Some(txg);
            }
            if state.stop && state.quiescing.is_none() {
                if state.joined == 0 {
                    return None;
                }
                state.wanted = state.wanted.max(state.open);
                continue;
            }
            if state.joined == 0 || state.quiescing.is_some() {
                self.work.wait(&mut state);
            } else {
                let open = state.open;
                let timeout = Duration::from_millis(self.timeout.load(Relaxed));
                let late = self.work.wait_for(&mut state, timeout).timed_out();
                if late && state.open == open {
                    state.wanted = state.wanted.max(open);
                }
            }
        }
    }
}

/// A transaction: changes that reach the disk together. Its txg stays open for it until it is dropped.
#[derive(Debug)]
pub struct Tx {
    txg: u64,
    held: Option<Arc<Txgs>>,
}

impl Tx {
    /// The transaction of the sync thread itself, for changes that belong to the txg being synced.
    pub fn syncing(txg: u64) -> Self {
        Self { txg, held: None }
    }

    /// Its txg.
    pub fn txg(&self) -> u64 {
        self.txg
    }

    /// Whether it is one of the sync thread.
    pub fn is_syncing(&self) -> bool {
        self.held.is_none()
    }

    /// Counts bytes that have to be written for it.
    pub(crate) fn dirtied(&self, bytes: u64) {
        if let Some(txgs) = &self.held {
            txgs.dirtied(self.txg, bytes);
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(txgs) = &self.held {
            txgs.release(self.txg);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_overlap_and_nothing_is_synced_while_held() {
        let txgs = Txgs::new(10);
        let synced = Arc::new(Mutex::new(Vec::new()));
        let (t, s) = (txgs.clone(), synced.clone());
        std::thread::scope(|scope| {
            let runner = scope.spawn(move || {
                t.run(|txg| {
                    s.lock().push(txg);
                    Ok(())
                })
            });
            let held = txgs.assign().unwrap();
            txgs.kick();
            // The open txg moves on although the one before is held.
            let next = txgs.assign().unwrap();
            assert_eq!((held.txg(), next.txg(), txgs.synced_txg()), (10, 11, 9));
            drop(next);
            drop(held);
            txgs.wait_synced(11).unwrap();
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            let tx = txgs.assign().unwrap();
                            assert!(txgs.synced_txg() < tx.txg());
                        }
                    })
                })
                .collect();
            for _ in 0..20 {
                txgs.wait_synced(0).unwrap();
            }
            writers.into_iter().for_each(|w| w.join().unwrap());
            txgs.stop();
            runner.join().unwrap().unwrap();
        });
        let synced = synced.lock();
        assert!(synced.windows(2).all(|w| w[1] == w[0] + 1), "{synced:?}");
        assert_eq!(synced.first(), Some(&10));
    }

    #[test]
    fn an_error_stops_writers() {
        let txgs = Txgs::new(1);
        std::thread::scope(|scope| {
            let runner = scope.spawn(|| txgs.run(|_| Err(Error::corrupt("broken"))));
            drop(txgs.assign().unwrap());
            assert!(txgs.wait_synced(0).is_err());
            assert!(txgs.assign().is_err());
            assert!(runner.join().unwrap().is_err());
        });
    }

    #[test]
    fn dirty_data_is_bounded() {
        let txgs = Txgs::new(1);
        txgs.set_dirty_max(4 << 20);
        std::thread::scope(|scope| {
            let runner = scope.spawn(|| {
                txgs.run(|_| {
                    std::thread::sleep(Duration::from_millis(2));
                    Ok(())
                })
            });
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..100 {
                            let tx = txgs.assign().unwrap();
                            tx.dirtied(128 << 10);
                            drop(tx);
                            // Those already past the throttle may go over the limit by what one transaction dirties.
                            assert!(txgs.dirty_bytes() <= (4 << 20) + 3 * (128 << 10));
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|w| w.join().unwrap());
            txgs.stop();
            runner.join().unwrap().unwrap();
        });
    }
}
