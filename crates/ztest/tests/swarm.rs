//! A few rounds of the swarm, and that a seed repeats exactly: rounds with faulty disks and without.

use std::process::Command;

/// What a round says of itself, without the time it took.
fn round(seed: &str) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_uzfs-swarm")).args(["--seed", seed]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    text.rsplit_once(',').unwrap().0.to_owned()
}

#[test]
fn a_seed_repeats() {
    for seed in ["4064", "4065", "10"] {
        assert_eq!(round(seed), round(seed));
    }
}
