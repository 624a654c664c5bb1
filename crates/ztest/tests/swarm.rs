//! A few rounds of the swarm, and that a seed repeats exactly: rounds with faulty disks, without, and an enumeration.

use ztest::swarm::{Options, round};

#[test]
fn a_seed_repeats() {
    for seed in [4064, 4065, 10] {
        let run = || round(seed, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let (a, b) = (run(), run());
        assert_eq!((a.ops, a.crashes, a.faults, a.events), (b.ops, b.crashes, b.faults, b.events), "seed {seed}");
    }
}
