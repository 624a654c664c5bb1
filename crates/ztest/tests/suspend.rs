//! Pools all of whose disks vanish while they are written, again and again: each time the disks come back, having lost any
//! part of what was not flushed, and the pool is let go on. Nothing that was done may be missing at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zfs_env::{BlockDevice, Rng, SeededRng, Survival};
use zfs_spa::Spa;
use zfs_spa::check::Verify;
use zfs_zio::Vdev;
use ztest::inspect;
use ztest::live::Live;
use ztest::machine::{Layout, Machine};
use ztest::model::{Mark, Model};
use ztest::ops::{self, Mix};

const FILES: Mix = Mix { datasets: 0, fsyncs: 0, syncs: 12, longest: 60_000, names: 12 };
const FSYNCS: Mix = Mix { datasets: 0, fsyncs: 30, syncs: 6, longest: 60_000, names: 10 };

/// Takes all disks away now and then, and brings them back.
fn trouble(machine: &Machine, spa: &Arc<Spa>, seed: u64, over: &AtomicBool, times: &AtomicU64) {
    let rng = SeededRng::new(seed);
    let open = |leaf: &Vdev| {
        let found = machine.disks.iter().find(|d| Some(d.path()) == leaf.config.path);
        found.map(|d| d.clone() as Arc<dyn BlockDevice>)
    };
    let go_on = || {
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(e) = spa.resume_io(&open) {
            assert!(Instant::now() < until, "the pool does not go on: {e}");
        }
    };
    let mut next = machine.sim.events() + rng.below(40);
    while !over.load(Ordering::Relaxed) {
        if spa.zio().is_suspended() {
            // Whoever failed while the disks were away may say so only after they have come back.
            go_on();
        }
        if machine.sim.events() < next {
            std::thread::yield_now();
            continue;
        }
        machine.disks.iter().for_each(|d| d.vanish());
        let until = Instant::now() + Duration::from_millis(200);
        while !spa.zio().is_suspended() && !over.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if spa.zio().is_suspended() {
            times.fetch_add(1, Ordering::Relaxed);
            // Not even one disk is there: it stays as it is.
            assert!(spa.resume_io(&open).is_err() && spa.zio().is_suspended());
        }
        let came_back = |(i, disk): (usize, &Arc<zfs_env::SimDisk>)| {
            // Whoever was not asked to write anything has lost nothing either.
            let suspended = spa.zio().is_suspended();
            let lost = if suspended { Survival::Random } else { Survival::Everything };
            disk.replug(lost, rng.next() ^ i as u64);
        };
        machine.disks.iter().enumerate().for_each(came_back);
        go_on();
        next = machine.sim.events() + 1 + rng.below(120);
    }
}

/// Gives how often the pool was suspended.
fn run(layout: Layout, seed: u64, mix: &Mix, ops: usize) -> u64 {
    let machine = Machine::new(layout, seed).unwrap();
    let (rng, mut model) = (SeededRng::new(seed), Model::new());
    let mut live = Live::open(&machine).unwrap();
    live.spa.follow_failmode().unwrap();
    let (over, times) = (AtomicBool::new(false), AtomicU64::new(0));
    let spa = live.spa.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| trouble(&machine, &spa, seed, &over, &times));
        for _ in 0..ops {
            let op = ops::invent(&rng, model.now(), mix);
            let done = zfs_env::pool::waiting(|| live.run(&machine, &mut model, &op));
            if done.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            done.unwrap();
        }
        let synced = live.spa.txgs().wait_synced(0);
        over.store(true, Ordering::Relaxed);
        synced.unwrap();
    });
    drop(spa);
    let times = times.load(Ordering::Relaxed);
    eprintln!("{layout:?} {seed}: {ops} operations, suspended {times} times");
    // What the pool says, and what is on the disks if the power fails now.
    live.close().unwrap();
    let all = model.ops();
    model.marks.push(Mark { events: machine.sim.events(), begun: all, synced: all });
    let pool = machine.import(false).unwrap();
    inspect::blocks(&pool, Verify::Everything).unwrap();
    inspect::sums(&pool).unwrap();
    let seen = inspect::datasets(&pool).unwrap();
    drop(pool);
    model.explain(model.window(machine.sim.events()), &seen).unwrap();
    times
}

fn rounds(layouts: [Layout; 2], seed: u64) {
    let round = |n: u64| run(layouts[0], seed + 2 * n, &FILES, 150) + run(layouts[1], seed + 2 * n + 1, &FSYNCS, 150);
    let times: u64 = (0..8).map(round).sum();
    assert!(times > 30, "the pools were suspended only {times} times");
}

#[test]
fn a_single_disk() {
    rounds([Layout::Single, Layout::Single], 100);
}

#[test]
fn a_mirror() {
    rounds([Layout::Mirror, Layout::Mirror], 200);
}

#[test]
fn raidz() {
    rounds([Layout::Raidz1, Layout::Raidz2], 300);
}

#[test]
fn separate_log_and_classes() {
    rounds([Layout::Classes, Layout::Slog], 400);
    rounds([Layout::Slog, Layout::Classes], 500);
}
