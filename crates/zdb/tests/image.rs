//! Damaged images, by seed: a short run on every test, longer with `UZFS_FUZZ_SECONDS` (`UZFS_FUZZ_SEED` starts at a
//! given seed). The harness is that of the fuzz target.

#[path = "../fuzz/src/lib.rs"]
mod harness;

use std::sync::Arc;
use std::time::{Duration, Instant};
use uzfs_testkit::corpus;

const SEEDS: u64 = 12;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn damaged_images_are_survived() {
    let Some(spec) = corpus::POOLS.iter().find(|p| p.name == "ashift9") else { return };
    let pool = match corpus::open(spec) {
        Ok(p) => p,
        Err(why) => return println!("skipped: {why}"),
    };
    let image = Arc::new(std::fs::read(pool.devices.join("d0")).unwrap());
    let first = variable("UZFS_FUZZ_SEED").unwrap_or(0);
    let limit = variable("UZFS_FUZZ_SECONDS").map(Duration::from_secs);
    let started = Instant::now();
    let (mut runs, mut walked) = (0u64, 0u64);
    while limit.map_or(runs < SEEDS, |l| started.elapsed() < l) {
        let seed = first + runs;
        println!("seed {seed}");
        walked += u64::from(harness::run(&image, 9, &seed.to_le_bytes()));
        runs += 1;
    }
    println!("{runs} images, {walked} of them imported and walked");
    assert!(walked > 0, "no damaged image could be imported: the harness does not reach the engine");
}
