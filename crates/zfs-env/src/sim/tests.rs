//! The simulated machine tested by a small journal of its own, which a crash at any moment must leave consistent.

use super::*;
use crate::{BlockDevice, Clock, Rng};
use std::io::ErrorKind;

const SIZE: u64 = 4 << 20;

fn machine(seed: u64) -> (Arc<Sim>, Arc<SimDisk>) {
    let sim = Sim::new(seed);
    let disk = sim.add_disk("a", SIZE, 512);
    (sim, disk)
}

/// A journal: record `i` (in block `i`) is flushed before the counter in block 0 says `i`, which is flushed too.
fn journal(disk: &SimDisk, records: u8) -> io::Result<()> {
    for i in 1..=records {
        disk.write_at(u64::from(i) * 8192, &[i; 8192])?;
        disk.flush()?;
        disk.write_at(0, &[i; 512])?;
        disk.flush()?;
    }
    Ok(())
}

/// What the journal promises: all records that the counter counts, and of the next nothing but torn sectors.
fn check_journal(disk: &SimDisk, least: u8) {
    let head = disk.peek(0, 512);
    let count = head[0];
    assert!(head.iter().all(|b| *b == count), "a torn sector");
    assert!(count >= least, "record {least} was acknowledged, {count} are there");
    for i in 1..=count {
        assert!(disk.peek(u64::from(i) * 8192, 8192).iter().all(|b| *b == i), "record {i} of {count}");
    }
    for sector in disk.peek(u64::from(count + 1) * 8192, 8192).chunks(512) {
        assert!(sector.iter().all(|b| *b == 0) || sector.iter().all(|b| *b == count + 1));
    }
    assert!(disk.peek(u64::from(count + 2) * 8192, 8192).iter().all(|b| *b == 0));
}

#[test]
fn a_correct_journal_survives_a_crash_at_every_boundary() {
    let (sim, disk) = machine(1);
    let first = sim.record();
    journal(&disk, 5).unwrap();
    let last = sim.events();
    assert_eq!(last - first, 20);
    let mut torn = 0;
    for event in first..=last {
        for seed in 0..40 {
            assert!(sim.rewind(event));
            sim.restart(Survival::Random, seed);
            check_journal(&disk, ((event - first) / 4) as u8);
            let next = u64::from(disk.peek(0, 1)[0] + 1) * 8192;
            let sectors: Vec<bool> = disk.peek(next, 8192).chunks(512).map(|s| s[0] != 0).collect();
            torn += usize::from(sectors.contains(&true) && sectors.contains(&false));
        }
    }
    assert!(torn > 10, "crashes tear writes: {torn}");
    assert!(!sim.rewind(last + 1));
    // Backwards too, and without chance.
    assert!(sim.rewind(first + 5));
    sim.restart(Survival::Nothing, 0);
    assert_eq!((disk.peek(0, 1)[0], disk.peek(16384, 1)[0]), (1, 0));
    assert!(sim.rewind(first + 5));
    sim.restart(Survival::Everything, 0);
    assert_eq!((disk.peek(0, 1)[0], disk.peek(16384, 1)[0]), (1, 2));
}

#[test]
fn a_journal_without_flushes_is_found_out() {
    let (sim, disk) = machine(2);
    let bad = |disk: &SimDisk| {
        disk.write_at(8192, &[1; 8192]).unwrap();
        disk.write_at(0, &[1; 512]).unwrap();
    };
    let snap = sim.snapshot();
    let broken = (0..50).filter(|seed| {
        sim.restore(&snap);
        bad(&disk);
        sim.restart(Survival::Random, *seed);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check_journal(&disk, 0))).is_err()
    });
    let broken = broken.count();
    assert!(broken > 5, "{broken} of 50 crashes show the missing flush");
}

#[test]
fn power_cuts_during_the_run() {
    for event in 0..20 {
        let (sim, disk) = machine(event);
        sim.cut_power_at(Some(event));
        assert!(journal(&disk, 5).is_err());
        assert!(!sim.is_powered() && disk.read_at(0, &mut [0]).is_err() && disk.flush().is_err());
        sim.restart(Survival::Random, event);
        check_journal(&disk, (event / 4) as u8);
        journal(&disk, 3).unwrap();
    }
}

#[test]
fn the_same_seed_makes_the_same_faults() {
    let run = |seed| {
        let (sim, disk) = machine(seed);
        let rates = FaultRates {
            read_error: 100_000,
            write_error: 50_000,
            lost_write: 100_000,
            misdirected_write: 100_000,
            rotten_write: 100_000,
            flush_error: 10_000,
        };
        disk.set_rates(rates);
        let mut story = Vec::new();
        for i in 0..200u64 {
            story.push(disk.write_at(i % 50 * 4096, &[i as u8; 4096]).is_ok());
            story.push(disk.read_at(i % 50 * 4096, &mut [0; 100]).is_ok());
            if i % 20 == 0 {
                story.push(disk.flush().is_ok());
            }
        }
        sim.restart(Survival::Random, sim.seed());
        (story, disk.peek(0, SIZE as usize))
    };
    assert!(run(5) == run(5));
    assert!(run(5) != run(6));
}

#[test]
fn every_fault_shows_once() {
    let (_, d) = machine(3);
    let mut buf = [0; 512];
    d.write_at(0, &[1; 4096]).unwrap();
    d.fail_until_written(600..601);
    assert!(d.read_at(512, &mut buf).is_err() && d.read_at(0, &mut buf).is_ok() && d.read_at(1024, &mut buf).is_ok());
    d.write_at(512, &[2; 512]).unwrap();
    assert!(d.read_at(512, &mut buf).is_ok());

    d.lose_writes(1);
    d.write_at(0, &[9; 512]).unwrap();
    assert_eq!(d.peek(0, 1), [1]);
    d.misdirect_writes(1);
    d.write_at(0, &[9; 512]).unwrap();
    assert_eq!(d.peek(0, 1), [1]);
    let all = d.peek(0, SIZE as usize);
    assert_eq!(all.iter().filter(|b| **b == 9).count(), 512);

    d.rot(0..2);
    assert_eq!(d.peek(0, 3), [0xfe, 0xfe, 1]);
    let where_ = d.rot_somewhere(8192..16384);
    assert!(where_.start >= 8192 && where_.end <= 16384 && d.peek(where_.start, 1) == [0xff]);

    d.fail_reads(100..200);
    d.fail_writes(300..400);
    assert!(d.read_at(0, &mut buf).is_err() && d.write_at(0, &[0; 512]).is_err() && d.write_at(512, &[0; 512]).is_ok());
    d.heal();
    assert!(d.read_at(0, &mut buf).is_ok() && d.write_at(0, &[0; 512]).is_ok());
    assert_eq!(d.write_at(SIZE - 1, &[0; 2]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    d.discard(512, 3584).unwrap();
    assert_eq!(d.peek(512, 3584), vec![0; 3584]);
}

#[test]
fn a_failed_flush_breaks_the_disk_and_loses_its_writes() {
    let (sim, d) = machine(4);
    d.write_at(0, &[1; 512]).unwrap();
    d.fail_flushes(1);
    assert!(d.flush().is_err() && d.flush().is_err() && d.write_at(0, &[2; 512]).is_err());
    assert_eq!((d.peek(0, 1), d.unflushed()), (vec![1], 1));
    sim.restart(Survival::Nothing, 0);
    assert_eq!(d.peek(0, 1), [0]);
    d.write_at(0, &[3; 512]).unwrap();
    d.flush().unwrap();
    assert_eq!((d.unflushed(), d.counts()), (0, (0, 3, 3)));
}

#[test]
fn stale_disks_and_slow_ones() {
    let (sim, d) = machine(5);
    let e = sim.add_disk("b", SIZE, 4096);
    for disk in [&d, &e] {
        disk.write_at(0, &[1; 512]).unwrap();
    }
    e.vanish();
    d.write_at(0, &[2; 512]).unwrap();
    assert_eq!(e.write_at(0, &[2; 512]).unwrap_err().kind(), ErrorKind::NotFound);
    e.reappear();
    assert_eq!((d.peek(0, 1), e.peek(0, 1), e.sector_shifts()), (vec![2], vec![1], (12, 12)));
    let before = sim.clock().monotonic();
    d.set_latency(Duration::from_millis(5));
    d.stall(Duration::from_secs(60));
    d.flush().unwrap();
    d.flush().unwrap();
    assert_eq!(sim.clock().monotonic() - before, Duration::from_millis(60_010));
}

fn until_waiting(disk: &SimDisk) {
    while disk.waiting() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_hung_disk_waits_and_a_crash_ends_the_wait() {
    let (sim, d) = machine(6);
    d.hang();
    std::thread::scope(|s| {
        let waiter = s.spawn(|| d.write_at(0, &[1; 512]));
        until_waiting(&d);
        assert!(!waiter.is_finished());
        d.resume();
        assert!(waiter.join().unwrap().is_ok());
        d.hang();
        let waiter = s.spawn(|| d.write_at(0, &[2; 512]));
        until_waiting(&d);
        sim.restart(Survival::Everything, 0);
        assert!(waiter.join().unwrap().is_err(), "an operation from before the crash reached the disk after it");
    });
    assert_eq!(d.peek(0, 1), [1]);
}

#[test]
fn random_writes_match_a_model() {
    let (_, d) = machine(7);
    let rng = SeededRng::new(9);
    let mut model = vec![0u8; SIZE as usize];
    for i in 0..500 {
        let at = rng.below(SIZE - 20_000);
        let len = 1 + rng.below(20_000);
        let range = at as usize..(at + len) as usize;
        match i % 5 {
            0 => d.discard(at, len).map(|()| model[range].fill(0)).unwrap(),
            1 => d.flush().unwrap(),
            _ => {
                let mut data = vec![0; len as usize];
                rng.fill(&mut data);
                d.write_vectored_at(at, &[io::IoSlice::new(&data[..1]), io::IoSlice::new(&data[1..])]).unwrap();
                model[range].copy_from_slice(&data);
            }
        }
    }
    let mut got = vec![0; SIZE as usize];
    d.read_at(0, &mut got).unwrap();
    assert!(got == model);
}
