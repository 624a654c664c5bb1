//! Longer runs: crashes, and disks that err, lie, lose, misplace, vanish and stall, as far as the redundancy must
//! survive it, so that whatever goes wrong is a bug. In the end everything is healed, and the check must be clean.
//!
//! A round is decided by its seed alone: the machine, the operations, the faults, the crashes, and (with
//! [`zfs_env::simulate_randomness`]) every guid and salt. So that the sync thread takes no part in the decisions, an
//! operation waits for the txgs on their way; with `overlap` it does not, and a seed is then only nearly reproducible.
//! Rounds of one process must therefore go one after the other.
//!
//! The same disks are bad for the whole round: what a bad disk silently lost is known only when it is read, and until
//! then another disk's fault would be one too many.

use crate::crash::{self, Plan};
use crate::inspect;
use crate::live::Live;
use crate::machine::{Layout, Machine};
use crate::model::{Mark, Model};
use crate::ops::{self, Mix, Op};
use crate::{Outcome, during};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zfs_env::{FaultRates, Rng, SeededRng, SimDisk, Survival};
use zfs_phys::BlkPtr;
use zfs_spa::check::{CheckOptions, Verify};
use zfs_zio::Zbookmark;

/// Rounds with this remainder of 32 enumerate crashes of a small run instead.
const ENUMERATES: u64 = 7;

/// How to swarm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only this layout.
    pub layout: Option<Layout>,
    /// Let operations and syncs overlap.
    pub overlap: bool,
    /// Tell every operation before it is done.
    pub verbose: bool,
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Operations.
    pub ops: u64,
    /// Crashes.
    pub crashes: u64,
    /// Faults that were ordered; those by chance are not counted.
    pub faults: u64,
    /// Writes and flushes of all disks; the same whenever a seed is run.
    pub events: u64,
}

/// One round.
///
/// # Errors
/// What went wrong; the seed is in it.
pub fn round(seed: u64, options: &Options) -> Outcome<Done> {
    zfs_env::simulate_randomness(seed);
    let layout = options.layout.unwrap_or(Layout::ALL[(seed % Layout::ALL.len() as u64) as usize]);
    if seed % 32 == ENUMERATES {
        let mix = Mix { datasets: 25, fsyncs: 10, syncs: 10, longest: 9000, names: 8 };
        let plan = Plan { layout, seed, ops: 12, mix, boundaries: 250, survivors: 2 };
        let done = crash::enumerate(&plan)?;
        return Ok(Done { ops: 12, crashes: done.crashes, faults: 0, events: done.events });
    }
    let mut round = Round::new(layout, seed, *options)?;
    let result = round.episodes().and_then(|()| round.heal());
    match result {
        Ok(()) => Ok(Done { events: round.machine.sim.events(), ..round.done }),
        Err(e) => Err(format!("seed {seed}, {layout:?}, bad disks {:?}: {e}", round.bad)),
    }
}

struct Round {
    machine: Machine,
    model: Model,
    rng: SeededRng,
    options: Options,
    mix: Mix,
    bad: Vec<usize>,
    done: Done,
}

impl Round {
    fn new(layout: Layout, seed: u64, options: Options) -> Outcome<Self> {
        let rng = SeededRng::new(seed);
        let mix = Mix {
            datasets: 4 + rng.below(25),
            fsyncs: rng.below(2) * rng.below(15),
            syncs: 5 + rng.below(12),
            longest: [3000, 20_000, 200_000][rng.below(3) as usize],
            names: 6 + rng.below(60) as usize,
        };
        let mut bad = Vec::new();
        for (disks, failing) in layout.redundant() {
            let mut these: Vec<usize> = disks.collect();
            for _ in 0..rng.below(failing as u64 + 1) {
                bad.push(these.remove(rng.below(these.len() as u64) as usize));
            }
        }
        let (machine, model) = (Machine::new(layout, seed)?, Model::new());
        Ok(Self { machine, model, rng, options, mix, bad, done: Done::default() })
    }

    fn episodes(&mut self) -> Outcome<()> {
        for n in 0..2 + self.rng.below(4) {
            self.worsen();
            self.episode().map_err(during(format!("episode {n}")))?;
        }
        Ok(())
    }

    /// Sets how bad the bad disks are this time.
    fn worsen(&self) {
        for disk in self.bad_disks() {
            let one = |n: u64| self.rng.below(n) as u32;
            let rates = match self.rng.below(4) {
                0 => FaultRates::default(),
                1 => FaultRates { read_error: one(50_000), write_error: one(50_000), ..FaultRates::default() },
                2 => FaultRates {
                    lost_write: one(60_000),
                    misdirected_write: one(20_000),
                    rotten_write: one(60_000),
                    ..FaultRates::default()
                },
                _ => FaultRates {
                    read_error: one(100_000),
                    write_error: one(100_000),
                    lost_write: one(100_000),
                    misdirected_write: one(10_000),
                    rotten_write: one(100_000),
                    flush_error: one(2000),
                },
            };
            disk.set_rates(rates);
        }
    }

    fn bad_disks(&self) -> impl Iterator<Item = &Arc<SimDisk>> {
        self.bad.iter().filter_map(|n| self.machine.disks.get(*n))
    }

    /// A fault that is ordered, for one bad disk.
    fn mishap(&mut self) {
        let Some(disk) = self.bad.get(self.rng.below(self.bad.len() as u64) as usize) else { return };
        let disk = self.machine.disks[*disk].clone();
        let area = 4 << 20..20 << 20;
        self.done.faults += 1;
        match self.rng.below(8) {
            0 => disk.vanish(),
            1 => disk.reappear(),
            2 => drop(disk.rot_somewhere(area)),
            3 => disk.fail_until_written(4 << 20..(4 << 20) + self.rng.below(1 << 20)),
            4 => disk.stall(Duration::from_secs(self.rng.below(90))),
            5 => disk.lose_writes(self.rng.below(20) as u32),
            6 => {
                disk.hang();
                // It ends by itself; no time passes for the machine.
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(3));
                    disk.resume();
                });
            }
            _ => disk.misdirect_writes(self.rng.below(3) as u32),
        }
    }

    /// Opens the pool, works, and ends with a crash or in order; then looks at what is there.
    fn episode(&mut self) -> Outcome<()> {
        let crash = self.rng.below(10) < 7;
        let mut live = Live::open(&self.machine)?;
        if crash {
            let later = self.rng.below(if self.rng.below(3) == 0 { 200 } else { 4000 });
            self.machine.sim.cut_power_at(Some(self.machine.sim.events() + later));
        }
        let result = self.work(&mut live);
        let has_power = self.machine.sim.is_powered();
        let events = self.machine.sim.events();
        if let (Err(e), true) = (&result, has_power) {
            self.machine.sim.cut_power();
            drop(live.abandon());
            return Err(e.clone());
        }
        if crash {
            self.machine.sim.cut_power();
            live.abandon()?;
            self.machine.sim.restart(Survival::Random, self.rng.u64());
            self.done.crashes += 1;
        } else {
            live.close()?;
            let ops = self.model.ops();
            self.model.marks.push(Mark { events, begun: ops, synced: ops });
        }
        self.bad_disks().for_each(|d| d.reappear());
        let pool = self.machine.import(false)?;
        inspect::blocks(&pool, Verify::Nothing).map_err(during("before opening"))?;
        drop(pool);
        let seen = crash::reopen(&self.machine)?;
        let window = self.model.window(events);
        let state = self
            .model
            .explain(window, &seen)
            .map_err(|e| format!("{} {window:?}: {e}", if crash { "after a crash" } else { "after an export" }))?;
        self.model.restart(state);
        Ok(())
    }

    fn work(&mut self, live: &mut Live) -> Outcome<()> {
        for _ in 0..20 + self.rng.below(60) {
            if self.rng.below(12) == 0 {
                self.mishap();
            }
            let mut op = ops::invent(&self.rng, self.model.now(), &self.mix);
            if op == Op::Kick && !self.options.overlap {
                op = Op::Sync;
            }
            if self.options.verbose {
                eprintln!("{} {op:?}", self.model.ops());
            }
            self.done.ops += 1;
            if !self.options.overlap {
                live.settle();
            }
            live.run(&self.machine, &mut self.model, &op)?;
        }
        Ok(())
    }

    /// Makes all disks good, has everything on them repaired, and requires that nothing is wrong any more.
    fn heal(&self) -> Outcome<()> {
        self.machine.disks.iter().for_each(|d| d.heal());
        // A disk whose flush failed takes writes again after a restart only.
        self.machine.sim.restart(Survival::Everything, 0);
        let live = Live::open(&self.machine).map_err(during("healing"))?;
        let zio = live.spa.zio().clone();
        let found: Mutex<Vec<(BlkPtr, Zbookmark)>> = Mutex::default();
        let view = live.spa.view().map_err(during("healing"))?;
        let note = |bm: Option<&Zbookmark>, bp: &BlkPtr, _: Option<&zfs_phys::dnode::DnodePhys>| {
            // What only waits to be freed need not be readable any more.
            if let Some(bm) = bm.filter(|_| !bp.is_hole() && !bp.is_embedded()) {
                found.lock().unwrap_or_else(PoisonError::into_inner).push((*bp, *bm));
            }
        };
        let options = CheckOptions {
            verify: Verify::Nothing,
            leaks: false,
            threads: 1,
            on_block: Some(&note),
            ..Default::default()
        };
        zfs_spa::check::run(&view, &options, &|_| true).map_err(during("healing"))?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (bp, bm) in &found {
            zio.resilver(bp, bm).map_err(during("resilvering"))?;
            zio.verify(bp, bm, true).map_err(during("scrubbing"))?;
        }
        zio.vdevs().leaves().iter().for_each(|l| l.dtl_remove_before(u64::MAX));
        live.spa.dirty_config();
        drop(view);
        live.close().map_err(during("healing"))?;
        let pool = self.machine.import(false).map_err(during("after healing"))?;
        inspect::blocks(&pool, Verify::Everything).map_err(during("after healing"))?;
        inspect::sums(&pool).map_err(during("after healing"))?;
        let damage = pool.zio().errors().damage();
        if !damage.is_empty() {
            return Err(format!("damage after healing: {damage:?}"));
        }
        let seen = inspect::datasets(&pool).map_err(during("after healing"))?;
        self.model.explain(self.model.window(u64::MAX), &seen).map(drop).map_err(during("after healing"))
    }
}
