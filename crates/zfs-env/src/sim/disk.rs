//! One simulated disk.

use super::pages::{Pages, pieces};
use super::{Sim, Turn};
use crate::clock::Clock;
use crate::device::BlockDevice;
use crate::rng::{Rng, SeededRng};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A disk that keeps writes in a volatile cache until it is flushed.
#[derive(Debug)]
pub struct SimDisk {
    sim: Arc<Sim>,
    number: usize,
    name: String,
    size: u64,
    sector: u32,
    rng: SeededRng,
    state: Mutex<State>,
    resumed: Condvar,
}

/// Everything about a disk that a snapshot keeps.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// What reads see.
    current: Pages,
    /// What survives a crash for certain.
    durable: Pages,
    /// Changes since the last flush.
    pending: Vec<Change>,
    faults: Faults,
    counts: Counts,
    /// Operations that wait for the end of a hang.
    waiting: usize,
}

#[derive(Debug, Clone, Default)]
struct Faults {
    rates: FaultRates,
    unreadable: Vec<Range<u64>>,
    unwritable: Vec<Range<u64>>,
    /// Sectors that cannot be read until they are written again.
    latent: Vec<Range<u64>>,
    lose: u32,
    misdirect: u32,
    fail_flushes: u32,
    /// A flush has failed.
    broken: bool,
    gone: bool,
    hung: bool,
    latency: Duration,
    stall: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    reads: u64,
    writes: u64,
    flushes: u64,
}

/// A change of a disk, as it was asked for.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(u64, Arc<[u8]>),
    Zero(u64, u64),
    Flush,
    /// Lost or failed: nothing changes, but it was an event.
    Nothing,
}

/// How often operations go wrong by chance, in parts per million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// A read fails with an I/O error.
    pub read_error: u32,
    /// A write fails with an I/O error and stores nothing.
    pub write_error: u32,
    /// A write reports success and stores nothing.
    pub lost_write: u32,
    /// A write reports success and lands in another place.
    pub misdirected_write: u32,
    /// A write stores its data with one bit flipped.
    pub rotten_write: u32,
    /// A flush fails, after which the disk takes no more writes until the next restart.
    pub flush_error: u32,
}

/// What a crash leaves of the writes that were not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// None of them.
    Nothing,
    /// All of them, in order.
    Everything,
    /// Any subset, torn and reordered: one of several patterns that real disks show, as the seed decides.
    Random,
}

impl State {
    /// Does what a change that goes well does.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, data) => self.current.write(*offset, data),
            Change::Zero(offset, len) => self.current.zero(*offset, *len),
            Change::Flush => {
                // Everything visible is durable now; pages are shared, not copied.
                self.durable = self.current.clone();
                self.pending.clear();
            }
            Change::Nothing => {}
        }
        if let Change::Write(..) | Change::Zero(..) = change {
            self.pending.push(change.clone());
        }
    }

    /// Stores one change, or the sectors of it that `keep` picks.
    fn store(pages: &mut Pages, change: &Change, sector: u64, mut keep: impl FnMut() -> bool) {
        match change {
            Change::Write(offset, data) => {
                for (start, n) in pieces(*offset, data.len() as u64, sector) {
                    if keep() {
                        pages.write(offset + start, &data[start as usize..(start + n) as usize]);
                    }
                }
            }
            Change::Zero(offset, len) => {
                for (start, n) in pieces(*offset, *len, sector.max(4096)) {
                    if keep() {
                        pages.zero(offset + start, n);
                    }
                }
            }
            Change::Flush | Change::Nothing => {}
        }
    }

    fn settle(&mut self, survival: Survival, rng: &SeededRng, sector: u64) {
        let mut writes = std::mem::take(&mut self.pending);
        let count = writes.len() as u64;
        let all = || true;
        let mut pages = self.durable.clone();
        match (survival, rng.below(6)) {
            (Survival::Nothing, _) | (Survival::Random, 0) => {}
            (Survival::Everything, _) | (Survival::Random, 1) => {
                writes.iter().for_each(|w| Self::store(&mut pages, w, sector, all));
            }
            // In order up to somewhere, the last one torn.
            (Survival::Random, 2) => {
                let whole = rng.below(count + 1) as usize;
                writes.iter().take(whole).for_each(|w| Self::store(&mut pages, w, sector, all));
                writes.iter().skip(whole).take(1).for_each(|w| {
                    Self::store(&mut pages, w, sector, || rng.below(2) == 0);
                });
            }
            // All but one.
            (Survival::Random, 3) => {
                let lost = rng.below(count) as usize;
                let kept = writes.iter().enumerate().filter(|(i, _)| *i != lost);
                kept.for_each(|(_, w)| Self::store(&mut pages, w, sector, all));
            }
            // Any of them in any order, whole or torn.
            (Survival::Random, _) => {
                for i in (1..writes.len()).rev() {
                    writes.swap(i, rng.below(i as u64 + 1) as usize);
                }
                for w in &writes {
                    match rng.below(4) {
                        0 => {}
                        1 => Self::store(&mut pages, w, sector, || rng.below(2) == 0),
                        _ => Self::store(&mut pages, w, sector, all),
                    }
                }
            }
        }
        self.durable = pages.clone();
        self.current = pages;
        self.faults.broken = false;
        self.faults.hung = false;
    }
}

fn overlaps(ranges: &[Range<u64>], offset: u64, len: u64) -> bool {
    ranges.iter().any(|r| r.start < offset + len && offset < r.end)
}

/// Takes `offset..end` out of every range.
fn cut_out(ranges: &mut Vec<Range<u64>>, offset: u64, end: u64) {
    let old = std::mem::take(ranges);
    for r in old {
        ranges.extend([r.start..r.end.min(offset), r.start.max(end)..r.end].into_iter().filter(|p| p.start < p.end));
    }
}

fn eio(why: &str) -> io::Error {
    io::Error::other(format!("simulated fault: {why}"))
}

impl SimDisk {
    pub(super) fn new(sim: Arc<Sim>, number: usize, name: &str, size: u64, sector: u32, rng: SeededRng) -> Self {
        let state = State {
            current: Pages::new(size),
            durable: Pages::new(size),
            pending: Vec::new(),
            faults: Faults::default(),
            counts: Counts::default(),
            waiting: 0,
        };
        let (state, resumed) = (Mutex::new(state), Condvar::new());
        Self { sim, number, name: name.to_owned(), size, sector, rng, state, resumed }
    }

    pub(super) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn settle(&self, survival: Survival, rng: &SeededRng) {
        self.state.lock().settle(survival, rng, u64::from(self.sector));
        self.resumed.notify_all();
    }

    /// Sets how often operations go wrong by chance.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state.lock().faults.rates = rates;
    }

    /// Makes reads that touch the range fail for ever.
    pub fn fail_reads(&self, range: Range<u64>) {
        self.state.lock().faults.unreadable.push(range);
    }

    /// Makes writes that touch the range fail for ever.
    pub fn fail_writes(&self, range: Range<u64>) {
        self.state.lock().faults.unwritable.push(range);
    }

    /// Makes sectors of the range unreadable until they are written again.
    pub fn fail_until_written(&self, range: Range<u64>) {
        let sector = u64::from(self.sector);
        let whole = range.start / sector * sector..range.end.next_multiple_of(sector);
        self.state.lock().faults.latent.push(whole);
    }

    /// Forgets all faults but a failed flush: rates, ranges, counts, hangs and delays; a vanished disk comes back.
    pub fn heal(&self) {
        let mut s = self.state.lock();
        s.faults = Faults { broken: s.faults.broken, ..Faults::default() };
        drop(s);
        self.resumed.notify_all();
    }

    /// Inverts every byte of a range, on the medium and in the cache: silent rot.
    pub fn rot(&self, range: Range<u64>) {
        let end = range.end.min(self.size);
        let mut s = self.state.lock();
        let State { current, durable, .. } = &mut *s;
        for pages in [current, durable] {
            let mut buf = vec![0; end.saturating_sub(range.start) as usize];
            pages.read(range.start, &mut buf);
            buf.iter_mut().for_each(|b| *b = !*b);
            pages.write(range.start, &buf);
        }
    }

    /// Rots one sector somewhere in a range, as the disk's generator decides, and tells which.
    pub fn rot_somewhere(&self, range: Range<u64>) -> Range<u64> {
        let sector = u64::from(self.sector);
        let first = range.start.div_ceil(sector);
        let at = (first + self.rng.below((range.end / sector).saturating_sub(first))) * sector;
        self.rot(at..at + sector);
        at..at + sector
    }

    /// Loses the next `n` writes though reporting success.
    pub fn lose_writes(&self, n: u32) {
        self.state.lock().faults.lose = n;
    }

    /// Puts the next `n` writes into wrong places.
    pub fn misdirect_writes(&self, n: u32) {
        self.state.lock().faults.misdirect = n;
    }

    /// Fails the next `n` flushes. The first leaves the disk broken until the next restart.
    pub fn fail_flushes(&self, n: u32) {
        self.state.lock().faults.fail_flushes = n;
    }

    /// Takes the disk away: everything fails, and what was not flushed is at the mercy of the next restart.
    pub fn vanish(&self) {
        self.state.lock().faults.gone = true;
        self.resumed.notify_all();
    }

    /// Brings a vanished disk back as it was: stale, when others were written meanwhile.
    pub fn reappear(&self) {
        self.state.lock().faults.gone = false;
    }

    /// Brings a vanished disk back as a disk that had no power meanwhile: of its unflushed writes it has kept what
    /// `survival` and `seed` say, and a failed flush is forgotten.
    pub fn replug(&self, survival: Survival, seed: u64) {
        self.settle(survival, &SeededRng::new(seed));
        self.reappear();
    }

    /// Lets every operation wait, without time passing, until [`Self::resume`].
    pub fn hang(&self) {
        self.state.lock().faults.hung = true;
    }

    /// Lets operations go on.
    pub fn resume(&self) {
        self.state.lock().faults.hung = false;
        self.resumed.notify_all();
    }

    /// Operations that wait for the end of a hang.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Lets every operation take `each` on the machine's clock.
    pub fn set_latency(&self, each: Duration) {
        self.state.lock().faults.latency = each;
    }

    /// Lets the next operation take `once` on the machine's clock: a hang that ends by itself.
    pub fn stall(&self, once: Duration) {
        self.state.lock().faults.stall = once;
    }

    /// Reads, writes and flushes asked for so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        let c = self.state.lock().counts;
        (c.reads, c.writes, c.flushes)
    }

    /// Writes that a crash could lose.
    pub fn unflushed(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Bytes as they would be read, whatever the faults.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        self.state.lock().current.read(offset, &mut buf);
        buf
    }

    fn chance(&self, rate: u32) -> bool {
        rate != 0 && self.rng.below(1_000_000) < u64::from(rate)
    }

    /// Waits while the disk hangs, lets time pass, and refuses what meets no disk or no power.
    fn enter(&self, offset: u64, len: u64) -> io::Result<MutexGuard<'_, State>> {
        let boot = self.sim.boot().ok_or_else(super::no_power)?;
        let mut s = self.state.lock();
        while s.faults.hung && !s.faults.gone && self.sim.boot() == Some(boot) {
            s.waiting += 1;
            // The power may fail without anybody telling this disk.
            self.resumed.wait_for(&mut s, Duration::from_millis(5));
            s.waiting -= 1;
        }
        if self.sim.boot() != Some(boot) {
            return Err(super::no_power());
        }
        let wait = s.faults.latency + std::mem::take(&mut s.faults.stall);
        if wait != Duration::ZERO {
            self.sim.clock().sleep(wait);
        }
        if s.faults.gone {
            return Err(io::Error::new(io::ErrorKind::NotFound, "simulated fault: no such device"));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(s),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn change(&self, offset: u64, len: u64, change: Change) -> io::Result<()> {
        let mut s = self.enter(offset, len)?;
        s.counts.writes += 1;
        if s.faults.broken {
            return Err(eio("a flush of the device has failed"));
        }
        let refused = overlaps(&s.faults.unwritable, offset, len) || self.chance(s.faults.rates.write_error);
        let actual = if refused { Change::Nothing } else { self.distort(&mut s.faults, change) };
        let turn = self.sim.turn(self.number, &actual)?;
        s.apply(&actual);
        if let Change::Write(at, data) = &actual {
            cut_out(&mut s.faults.latent, *at, at + data.len() as u64);
        }
        match turn {
            Turn::Cut => Err(super::no_power()),
            Turn::Done if refused => Err(eio("write")),
            Turn::Done => Ok(()),
        }
    }

    /// What becomes of a write on its way to the medium.
    fn distort(&self, faults: &mut Faults, change: Change) -> Change {
        let Change::Write(offset, data) = change else { return change };
        let ordered = |left: &mut u32| {
            let now = *left > 0;
            *left = left.saturating_sub(1);
            now
        };
        if ordered(&mut faults.lose) || self.chance(faults.rates.lost_write) {
            return Change::Nothing;
        }
        if ordered(&mut faults.misdirect) || self.chance(faults.rates.misdirected_write) {
            let sector = u64::from(self.sector);
            let places = (self.size - data.len() as u64) / sector;
            return Change::Write(self.rng.below(places + 1) * sector, data);
        }
        if self.chance(faults.rates.rotten_write) && !data.is_empty() {
            let mut data = data.to_vec();
            let at = self.rng.below(data.len() as u64) as usize;
            data[at] ^= 1 << self.rng.below(8);
            return Change::Write(offset, data.into());
        }
        Change::Write(offset, data)
    }
}

impl BlockDevice for SimDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut s = self.enter(offset, buf.len() as u64)?;
        s.counts.reads += 1;
        let len = buf.len() as u64;
        let f = &s.faults;
        if overlaps(&f.unreadable, offset, len) || overlaps(&f.latent, offset, len) || self.chance(f.rates.read_error) {
            return Err(eio("read"));
        }
        s.current.read(offset, buf);
        Ok(())
    }

    fn path(&self) -> String {
        self.name.clone()
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(offset, data.len() as u64, Change::Write(offset, data.into()))
    }

    fn write_vectored_at(&self, offset: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()> {
        // One event: to the disk it is one command.
        let data: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        self.write_at(offset, &data)
    }

    fn flush(&self) -> io::Result<()> {
        let mut s = self.enter(0, 0)?;
        s.counts.flushes += 1;
        if s.faults.broken {
            return Err(eio("a flush of the device has failed"));
        }
        let fails = s.faults.fail_flushes > 0 || self.chance(s.faults.rates.flush_error);
        s.faults.fail_flushes = s.faults.fail_flushes.saturating_sub(1);
        let change = if fails { Change::Nothing } else { Change::Flush };
        match self.sim.turn(self.number, &change)? {
            Turn::Cut => Err(super::no_power()),
            Turn::Done => {
                s.apply(&change);
                s.faults.broken = fails;
                if fails { Err(eio("flush")) } else { Ok(()) }
            }
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, Change::Zero(offset, len))
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn sector_shifts(&self) -> (u32, u32) {
        (self.sector.trailing_zeros(), self.sector.trailing_zeros())
    }
}
