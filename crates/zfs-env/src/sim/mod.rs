//! Simulated machines: disks that lose what was not flushed, and fail in every way disks do, driven by one seed.
//!
//! Purpose: tests of what survives a crash. A [`Sim`] is a machine with a power switch; its [`SimDisk`]s are
//! [`crate::BlockDevice`]s. Three ways to crash:
//!
//! * [`Sim::cut_power_at`]: the run itself meets the crash. From the given write or flush on, every operation of every disk
//!   fails; [`Sim::restart`] then decides what the disks kept.
//! * [`Sim::record`] and [`Sim::rewind`]: the run ends unharmed and is recorded; afterwards the machine is taken back to any
//!   boundary between two writes or flushes, as often as wanted, and restarted from there. One run, all crashes, and it does
//!   not matter in which order the run's threads wrote.
//! * [`Sim::snapshot`] and [`Sim::restore`]: by hand.
//!
//! What survives: everything flushed; of the rest any subset, in any order where writes overlap, each perhaps torn at
//! sector boundaries. An operation that was under way when the power failed counts as not flushed.
//!
//! Life cycle of a random choice: every disk has a generator seeded from the machine's seed and its own number, and a
//! restart is given a seed of its own. The same calls in the same order on each disk make the same faults.
//!
//! Locks: a disk's state before the machine's; states of several disks in the order of their numbers.

mod disk;
mod pages;

pub use disk::{FaultRates, SimDisk, Survival};

use crate::clock::SimClock;
use crate::rng::SeededRng;
use disk::{Change, State};
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A simulated machine.
#[derive(Debug)]
pub struct Sim {
    seed: u64,
    clock: Arc<SimClock>,
    machine: Mutex<Machine>,
    disks: Mutex<Vec<Arc<SimDisk>>>,
}

/// What all disks share.
#[derive(Debug)]
struct Machine {
    powered: bool,
    /// Restarts so far.
    boots: u64,
    /// Writes, discards and flushes so far.
    events: u64,
    /// Number of the event at which the power fails.
    cut_at: Option<u64>,
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    /// The state at event `first`.
    base: SimSnapshot,
    first: u64,
    log: Vec<(usize, Change)>,
    /// The state at the boundary last rewound to: later ones are reached from there.
    near: Option<(u64, SimSnapshot)>,
}

/// The state of all disks at one moment. Cheap to make and to keep.
#[derive(Debug, Clone)]
pub struct SimSnapshot {
    disks: Vec<State>,
}

/// An operation's place among all others.
enum Turn {
    /// It happens.
    Done,
    /// The power failed while it was under way.
    Cut,
}

fn no_power() -> io::Error {
    io::Error::other("simulated power failure")
}

impl Sim {
    /// A machine without disks. Its clock stands at a fixed date.
    pub fn new(seed: u64) -> Arc<Self> {
        let machine = Machine { powered: true, boots: 0, events: 0, cut_at: None, recording: None };
        Arc::new(Self {
            seed,
            clock: Arc::new(SimClock::new(Duration::from_secs(1_700_000_000))),
            machine: Mutex::new(machine),
            disks: Mutex::default(),
        })
    }

    /// Adds an empty disk of `size` bytes with sectors of `sector` bytes (512 or 4096). Not while recording.
    pub fn add_disk(self: &Arc<Self>, name: &str, size: u64, sector: u32) -> Arc<SimDisk> {
        assert!(sector.is_power_of_two() && sector >= 512, "sectors of {sector} bytes");
        assert!(self.machine.lock().recording.is_none(), "a disk was added while recording");
        let mut disks = self.disks.lock();
        let rng = SeededRng::new(SeededRng::new(self.seed ^ (disks.len() as u64 + 1)).next());
        let disk = Arc::new(SimDisk::new(self.clone(), disks.len(), name, size, sector, rng));
        disks.push(disk.clone());
        disk
    }

    /// The disks, in the order they were added.
    pub fn disks(&self) -> Vec<Arc<SimDisk>> {
        self.disks.lock().clone()
    }

    /// The seed that decides everything.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The machine's clock. Time passes only by sleeping on it and by slow disks.
    pub fn clock(&self) -> Arc<SimClock> {
        self.clock.clone()
    }

    /// Writes, discards and flushes so far: the number of the boundary the machine stands at.
    pub fn events(&self) -> u64 {
        self.machine.lock().events
    }

    /// Cuts the power when event `event` is under way (now, if it has passed); `None` takes that back.
    pub fn cut_power_at(&self, event: Option<u64>) {
        self.machine.lock().cut_at = event;
    }

    /// Cuts the power.
    pub fn cut_power(&self) {
        self.machine.lock().powered = false;
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.machine.lock().powered
    }

    /// Powers the machine on after a crash (or crashes it here and now): disks keep of their unflushed writes what
    /// `survival` and `seed` say. Failed flushes are forgotten, as a restarted machine forgets them.
    pub fn restart(&self, survival: Survival, seed: u64) {
        let rng = SeededRng::new(seed);
        for disk in self.disks() {
            disk.settle(survival, &rng);
        }
        let mut m = self.machine.lock();
        (m.powered, m.cut_at) = (true, None);
        m.boots += 1;
    }

    fn lock_disks<'a>(disks: &'a [Arc<SimDisk>]) -> Vec<MutexGuard<'a, State>> {
        disks.iter().map(|d| d.lock_state()).collect()
    }

    /// The state of all disks: contents, unflushed writes and faults.
    pub fn snapshot(&self) -> SimSnapshot {
        let disks = self.disks();
        let states = Self::lock_disks(&disks).iter().map(|s| (**s).clone()).collect();
        SimSnapshot { disks: states }
    }

    /// Puts all disks back and powers the machine on. A recording ends.
    pub fn restore(&self, snapshot: &SimSnapshot) {
        self.put_back(snapshot);
        let mut m = self.machine.lock();
        (m.powered, m.cut_at, m.recording) = (true, None, None);
        m.boots += 1;
    }

    fn put_back(&self, snapshot: &SimSnapshot) {
        let disks = self.disks();
        for (state, saved) in Self::lock_disks(&disks).iter_mut().zip(&snapshot.disks) {
            **state = saved.clone();
        }
    }

    /// Records what happens from here on, and gives the number of this boundary.
    pub fn record(&self) -> u64 {
        let base = self.snapshot();
        let mut m = self.machine.lock();
        let first = m.events;
        m.recording = Some(Recording { base, first, log: Vec::new(), near: None });
        first
    }

    /// Takes the disks back (or forward) to boundary `event` of the recording and powers the machine on; false when the
    /// recording does not reach there. What happens next is no part of the recording, which stays as it is (and is
    /// numbered on from where the counter stands): recording is over, rewinding is not.
    pub fn rewind(&self, event: u64) -> bool {
        // Taken out, so that nothing below is recorded or counted.
        let Some(mut rec) = self.machine.lock().recording.take() else { return false };
        let reached = event >= rec.first && event - rec.first <= rec.log.len() as u64;
        if reached {
            let (from, state) = match rec.near.take() {
                Some((at, near)) if at <= event => (at, near),
                _ => (rec.first, rec.base.clone()),
            };
            self.put_back(&state);
            let disks = self.disks();
            for (disk, change) in &rec.log[(from - rec.first) as usize..(event - rec.first) as usize] {
                disks[*disk].lock_state().apply(change);
            }
            rec.near = Some((event, self.snapshot()));
        }
        let mut m = self.machine.lock();
        m.recording = Some(rec);
        (m.powered, m.cut_at) = (true, None);
        m.boots += 1;
        reached
    }

    /// Takes part in the order of events; the caller holds its disk's state.
    fn turn(&self, disk: usize, change: &Change) -> io::Result<Turn> {
        let mut m = self.machine.lock();
        if !m.powered {
            return Err(no_power());
        }
        if m.cut_at.is_some_and(|at| m.events >= at) {
            m.powered = false;
            return Ok(Turn::Cut);
        }
        if let Some(rec) = &mut m.recording
            && rec.near.is_none()
        {
            rec.log.push((disk, change.clone()));
        }
        m.events += 1;
        Ok(Turn::Done)
    }

    /// The number of this boot, or nothing while there is no power.
    fn boot(&self) -> Option<u64> {
        let m = self.machine.lock();
        m.powered.then_some(m.boots)
    }
}

#[cfg(test)]
mod tests;
