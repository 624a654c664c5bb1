//! Crashes of the whole sync loop, sampled evenly: small enough for every run of the tests. `cargo xtask swarm` visits
//! all of them.

use ztest::crash::{Plan, enumerate};
use ztest::machine::Layout;
use ztest::ops::Mix;

const FILES: Mix = Mix { datasets: 0, fsyncs: 0, syncs: 12, longest: 20_000, names: 12 };
const DATASETS: Mix = Mix { datasets: 30, fsyncs: 0, syncs: 10, longest: 12_000, names: 10 };
const FSYNCS: Mix = Mix { datasets: 0, fsyncs: 25, syncs: 4, longest: 60_000, names: 10 };
const LOGS: Mix = Mix { datasets: 25, fsyncs: 20, syncs: 6, longest: 12_000, names: 8 };

fn crashes(layout: Layout, seed: u64, mix: Mix) {
    let plan = Plan { layout, seed, ops: 40, mix, boundaries: 30, survivors: 2 };
    match enumerate(&plan) {
        Ok(done) => eprintln!("{layout:?}: {} crashes at {} boundaries", done.crashes, done.events),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn files_on_a_single_disk() {
    crashes(Layout::Single, 1, FILES);
}

#[test]
fn files_on_a_mirror() {
    crashes(Layout::Mirror, 2, FILES);
}

#[test]
fn files_on_raidz() {
    crashes(Layout::Raidz1, 3, FILES);
}

#[test]
fn datasets_on_a_single_disk() {
    crashes(Layout::Single, 4, DATASETS);
}

#[test]
fn datasets_on_a_mirror() {
    crashes(Layout::Mirror, 5, DATASETS);
}

#[test]
fn datasets_on_raidz() {
    crashes(Layout::Raidz1, 6, DATASETS);
}

#[test]
fn fsyncs_on_a_single_disk() {
    crashes(Layout::Single, 7, FSYNCS);
}

#[test]
fn fsyncs_on_raidz() {
    crashes(Layout::Raidz1, 8, FSYNCS);
}

#[test]
fn fsyncs_to_a_log_device() {
    crashes(Layout::Slog, 9, FSYNCS);
}

#[test]
fn fsyncs_between_changes_of_datasets() {
    crashes(Layout::Mirror, 10, LOGS);
}

#[test]
fn fsyncs_on_a_mirror_with_large_sectors() {
    crashes(Layout::Mirror, 12, FSYNCS);
}
