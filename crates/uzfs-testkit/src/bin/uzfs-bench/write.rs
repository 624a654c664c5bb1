//! `uzfs-bench write`: writing through uzfs, zfs-fuse, the kernel's ext4 and btrfs on a loop device, and a FUSE file
//! system in memory, the ceiling, in the same run, with the same client code, over image files in the same folder.
//!
//! Buffered writes count until the data is on disk (fsync at the end). The best of the rounds counts. Peers of uzfs
//! differ in the layout or in the compression of the one below them; their data is half random, half words, so that
//! compression has something to do and cannot flatter anybody much.

mod parity;
mod places;
mod table;
mod work;

use crate::setup::Setup;
use places::Kind;
use table::Table;

const USAGE: &str = "usage: uzfs-bench write [--small] [--rounds N] [--places NAME,...] [--rows WORD,...]
  places: uzfs-off, uzfs-lz4, uzfs-zstd, uzfs-mirror, uzfs-raidz1, uzfs-raidz2, zfs-fuse, ext4, btrfs, memory
  rows: sequential, random, fsync, create, unlink, untar, memory, parity";

/// What is asked for.
struct Wanted {
    small: bool,
    rounds: usize,
    places: Vec<Kind>,
    rows: Vec<String>,
}

impl Wanted {
    fn parse(args: &[String]) -> Option<Self> {
        let mut wanted = Self { small: false, rounds: 2, places: Kind::ALL.to_vec(), rows: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--small" => wanted.small = true,
                "--rounds" => wanted.rounds = args.next()?.parse().ok().filter(|n| *n > 0)?,
                "--places" => {
                    let named = |name| Kind::ALL.into_iter().find(|k| k.name() == name);
                    wanted.places = args.next()?.split(',').map(named).collect::<Option<_>>()?;
                }
                "--rows" => wanted.rows = args.next()?.split(',').map(str::to_owned).collect(),
                _ => return None,
            }
        }
        Some(wanted)
    }

    fn row(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|w| name.contains(w.as_str()))
    }
}

/// Runs the benchmark; nothing when the arguments make no sense.
pub fn run(args: &[String]) -> Option<Result<(), String>> {
    let Some(wanted) = Wanted::parse(args) else {
        eprintln!("{USAGE}");
        return None;
    };
    Some(measure_all(&wanted))
}

fn measure_all(wanted: &Wanted) -> Result<(), String> {
    let setup = Setup::prepare(wanted.small)?;
    let mut table = Table::default();
    let tree = work::source_tree(&setup.dir)?;
    for round in 1..=wanted.rounds {
        for kind in &wanted.places {
            let place = match kind.open(&setup) {
                Ok(place) => place,
                Err(why) => {
                    if round == 1 {
                        println!("SKIPPED {}: {why}", kind.name());
                    }
                    continue;
                }
            };
            let mut note = |row, unit, figure| table.note(round, *kind, row, unit, figure);
            measure(wanted, &place.at(), setup.bytes, &tree, &mut note)?;
            place.end()?;
        }
    }
    table.print(wanted.rounds);
    if wanted.row("memory") {
        peak_memory(&setup)?;
    }
    if wanted.row("parity") {
        parity::compare()?;
    }
    Ok(())
}

type Note<'a> = &'a mut dyn FnMut(&'static str, &'static str, f64);

fn measure(
    wanted: &Wanted,
    at: &std::path::Path,
    bytes: u64,
    tree: &std::path::Path,
    note: Note<'_>,
) -> Result<(), String> {
    if wanted.row("sequential") {
        note("sequential write 1M", "MB/s", work::sequential(at, bytes)?);
    }
    if wanted.row("random") {
        note("random write 4K", "MB/s", work::random(at, bytes / 4)?);
    }
    for (row, jobs) in [("fsync, 1 job", 1), ("fsync, 8 jobs", 8)] {
        if wanted.row(row) {
            let (rate, latency) = work::fsync(at, jobs)?;
            note(row, "1/s", rate);
            if jobs == 1 {
                note("fsync latency, inverse", "1/ms", 1.0 / latency);
            }
        }
    }
    if wanted.row("create") || wanted.row("unlink") {
        let (created, unlinked) = work::create_unlink(at, 10_000)?;
        note("create", "1/s", created);
        note("unlink", "1/s", unlinked);
    }
    if wanted.row("untar") {
        note("untar of a source tree", "files/s", work::untar(at, tree)?);
    }
    Ok(())
}

/// Peak memory of the daemon that may use 256 MiB for its cache while 8 GB are written.
fn peak_memory(setup: &Setup) -> Result<(), String> {
    let bytes: u64 = if setup.bytes < 1 << 30 { 1 << 30 } else { 8 << 30 };
    let place = places::uzfs_with_memory(setup, "256M", bytes + (4 << 30))?;
    let rate = work::sequential(&place.at(), bytes)?;
    let peak = place.peak_kib()?;
    println!(
        "\npeak memory with --arc-max 256M while {} GB were written: {} MiB ({rate:.0} MB/s)",
        bytes >> 30,
        peak >> 10
    );
    place.end()
}
