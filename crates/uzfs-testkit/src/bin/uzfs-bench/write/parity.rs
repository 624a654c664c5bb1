//! Parity: the fastest of OpenZFS's implementations, as its `raidz_test -B` measures them, against ours in the same run.
//!
//! Both do the same work on the same shapes: blocks of each size over eight data columns, and figures are the MiB of one
//! column a second, as `raidz_test` counts them. It tries every implementation it has, so it takes some minutes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};
use uzfs_testkit::process;
use zfs_codec::raidz;

/// How long `raidz_test -B` may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long one of our figures is measured, and how often: the best counts.
const SPAN: Duration = Duration::from_millis(40);
const TRIES: usize = 5;
/// Bytes of a sector in `raidz_test -B` (its `BENCH_ASHIFT` is 12 bits).
const SECTOR: usize = 4096;

/// A row of `raidz_test -B`.
type Cell = (String, usize, usize);

/// What is done: parities made, or parities used for as many lost columns.
fn work(math: &str) -> Option<(bool, Vec<usize>)> {
    let (kind, which) = math.split_once('_')?;
    let parities = which.chars().map(|c| "pqr".find(c)).collect::<Option<Vec<usize>>>()?;
    match kind {
        "gen" => Some((true, parities)),
        "rec" => Some((false, parities)),
        _ => None,
    }
}

/// The best figure of each cell, with the name of the implementation that it is of.
fn parse(text: &str) -> BTreeMap<Cell, (f64, String)> {
    let mut best = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(',').map(str::trim).collect();
        let [name, math, columns, size, rate, ..] = words[..] else { continue };
        let (Ok(columns), Ok(size), Ok(rate)) = (columns.parse(), size.parse(), rate.parse::<f64>()) else { continue };
        let entry = best.entry((math.to_owned(), columns, size)).or_insert((rate, name.to_owned()));
        if rate > entry.0 {
            *entry = (rate, name.to_owned());
        }
    }
    best
}

/// The data columns of a block: whole sectors, the first columns one longer.
fn columns(count: usize, size: usize) -> Vec<Vec<u8>> {
    let sectors = size.div_ceil(SECTOR);
    let lengths = (0..count).map(|c| (sectors / count + usize::from(c < sectors % count)) * SECTOR);
    let fill = |n: usize| (0..n).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8).collect();
    lengths.filter(|n| *n > 0).map(fill).collect()
}

/// Blocks a second.
fn rate(mut once: impl FnMut()) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..TRIES {
        let (start, mut done) = (Instant::now(), 0u32);
        while start.elapsed() < SPAN {
            once();
            done += 1;
        }
        best = best.max(f64::from(done) / start.elapsed().as_secs_f64());
    }
    best
}

/// Up to three columns to write to.
fn slices(columns: &mut [Vec<u8>]) -> [&mut [u8]; raidz::MAX_PARITY] {
    let mut columns = columns.iter_mut();
    std::array::from_fn(|_| columns.next().map_or(&mut [][..], Vec::as_mut_slice))
}

/// Our figure for a cell; nothing when its kind is not known here.
fn ours((math, count, size): &Cell) -> Option<f64> {
    let (generates, parities) = work(math)?;
    let data = columns(*count, *size);
    let longest = data.iter().map(Vec::len).max()?;
    let all: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let made = if generates { parities.len() } else { raidz::MAX_PARITY };
    let mut parity = vec![vec![0u8; longest]; made];
    let mut generate = || {
        raidz::generate(black_box(&mut slices(&mut parity)[..made]), black_box(&all));
    };
    let blocks = if generates {
        rate(generate)
    } else {
        generate();
        let used: Vec<(usize, &[u8])> = parities.iter().map(|p| (*p, parity[*p].as_slice())).collect();
        let left: Vec<Option<&[u8]>> = all.iter().enumerate().map(|(i, d)| (i >= used.len()).then_some(*d)).collect();
        let mut lost: Vec<Vec<u8>> = all.iter().take(used.len()).map(|d| vec![0; d.len()]).collect();
        let found = rate(|| {
            let out = &mut slices(&mut lost)[..used.len()];
            assert!(raidz::reconstruct(black_box(&used), black_box(&left), out), "a request that makes no sense");
        });
        assert!(lost.iter().zip(&data).all(|(l, d)| l == d), "{math} of {size} bytes gave other data");
        found
    };
    Some(blocks * (*size / *count) as f64 / f64::from(1 << 20))
}

/// Measures and prints.
pub fn compare() -> Result<(), String> {
    let out = match process::run(Command::new("raidz_test").arg("-B"), LIMIT) {
        Ok(out) if out.code == Some(0) => out.stdout,
        Ok(out) => return Err(format!("raidz_test: {out}")),
        Err(why) => {
            println!("\nSKIPPED raidz_test: {why}");
            return Ok(());
        }
    };
    println!("\nParity, MiB of one column a second: uzfs against the fastest of raidz_test -B");
    println!("{:>8} {:>8} {:>10} {:>12} {:>12} {:>8}", "", "columns", "bytes", "raidz_test", "uzfs", "");
    let mut worst = f64::INFINITY;
    for (cell, (theirs, name)) in parse(&out) {
        let Some(ours) = ours(&cell) else { continue };
        let (math, count, size) = &cell;
        println!("{math:>8} {count:>8} {size:>10} {theirs:>12.0} {ours:>12.0} {:>7.2}x  {name}", ours / theirs);
        worst = worst.min(ours / theirs);
    }
    println!("least: {worst:.2}x");
    Ok(())
}
