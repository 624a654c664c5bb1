//! `uzfs-bench read`: reading through uzfs, through zfs-fuse, and through an in-memory FUSE file system,
//! in the same run, on the same machine, with the same client code.
//!
//! The pool has version 23, so that both can open it, and is made once with zfs-fuse's own tools in
//! `target/bench`. "Cold" is after importing the pool anew and dropping the kernel's caches; the image file
//! itself is dropped from the page cache too. Every peer is measured once a round, in turning order, and the
//! best of the rounds counts: other load on the machine only ever takes away. The ceiling negotiates the same
//! abilities with the kernel as uzfs and has the same read-ahead. Needs root. An interrupt ends the servers
//! and takes the mounts away.

mod peers;
mod server;
mod setup;
mod table;
mod verify;
mod work;
mod write;

use peers::{Kind, Peer};
use setup::Setup;
use std::process::ExitCode;
use table::Table;
use uzfs_testkit::paths;
use work::Wish;

const USAGE: &str = "usage: uzfs-bench read [--small] [--rounds N] [--peers NAME,...] [--rows WORD,...]
  peers: zfs-fuse, uzfs, memory; rows: sequential, random, readdir, stat, import, zdb";
const NOTES: &str = "\
cold: pool imported anew, kernel's caches and the image's pages dropped; warm: the same again.
random: O_DIRECT, so every read goes through the server, which has read the whole file before unless it says cold;
  zfs-fuse as shipped caches 128 MB of it. stat: lookups by name after dropping the kernel's caches;
  with birth time the kernel asks uzfs twice, and does without it where the server cannot tell (the others).
import: `zpool import -d` to its end, with 1000 datasets of mountpoint=none, so that nobody mounts anything;
  zfs-fuse can import read-write only and writes a transaction group, uzfs imports read-only.";

/// What is asked for.
struct Wanted {
    small: bool,
    rounds: usize,
    peers: Vec<Kind>,
    rows: Vec<String>,
}

impl Wanted {
    fn parse(args: &[String]) -> Option<Self> {
        let mut wanted = Self { small: false, rounds: 3, peers: Kind::ALL.to_vec(), rows: Vec::new() };
        let mut args = args.iter();
        if args.next()? != "read" {
            return None;
        }
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--small" => wanted.small = true,
                "--rounds" => wanted.rounds = args.next()?.parse().ok().filter(|n| *n > 0)?,
                "--peers" => {
                    let named = |name| Kind::ALL.into_iter().find(|k| k.name() == name);
                    wanted.peers = args.next()?.split(',').map(named).collect::<Option<_>>()?;
                }
                "--rows" => wanted.rows = args.next()?.split(',').map(str::to_owned).collect(),
                _ => return None,
            }
        }
        Some(wanted)
    }

    /// Whether a row is asked for.
    fn row(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|w| name.contains(w.as_str()))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "write") {
        return ended(match work::heed_interrupts() {
            Ok(()) => write::run(&args[1..]),
            Err(why) => Some(Err(why)),
        });
    }
    let Some(wanted) = Wanted::parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if !paths::is_root() {
        eprintln!("root is needed to mount and to drop caches");
        return ExitCode::FAILURE;
    }
    ended(Some(work::heed_interrupts().and_then(|()| run(&wanted))))
}

/// Tells how it ended; nothing stands for arguments that make no sense.
fn ended(result: Option<Result<(), String>>) -> ExitCode {
    match result {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(why)) => {
            eprintln!("uzfs-bench: {why}");
            ExitCode::FAILURE
        }
        None => ExitCode::from(2),
    }
}

fn run(wanted: &Wanted) -> Result<(), String> {
    let setup = Setup::prepare(wanted.small)?;
    let mut peers = wanted.peers.clone();
    peers.retain(|peer| match peer.absent(&setup) {
        Some(why) => {
            println!("SKIPPED {}: {why}", peer.name());
            false
        }
        None => true,
    });
    let mut table = Table::default();
    let mut image = 0.0f64;
    for round in 1..=wanted.rounds {
        if wanted.row("sequential") && setup.has_pools() {
            work::drop_caches()?;
            image = image.max(work::sequential(&setup.pool_dir().join("d0"), 1 << 20)?);
        }
        for &kind in &peers {
            let mut peer = kind.start(&setup)?;
            let mut note = |name, unit, figure| table.note(round, kind, name, unit, figure);
            measure(wanted, &setup, &mut *peer, &mut note)?;
            peer.end()?;
        }
        let turn = peers.len().min(1);
        peers.rotate_left(turn);
    }
    table.print(wanted.rounds);
    println!("{NOTES}");
    if image > 0.0 {
        println!("the pool's image itself, read cold in pieces of 1M, best of the rounds: {image:.0} MB/s");
    }
    if wanted.row("zdb") {
        verify::compare(&setup, wanted.rounds)?;
    }
    Ok(())
}

/// Takes a figure: name of the row, unit, figure.
type Note<'a> = &'a mut dyn FnMut(&'static str, &'static str, f64);

/// Everything that is measured through a mount, and how fast the pool with many datasets is imported.
fn measure(wanted: &Wanted, setup: &Setup, peer: &mut dyn Peer, note: Note<'_>) -> Result<(), String> {
    if ["sequential", "random", "readdir", "stat"].into_iter().any(|r| wanted.row(r)) {
        peer.renew()?;
    }
    sequential(wanted, peer, note)?;
    random(wanted, peer, note)?;
    let wide = peer.mounted().join("wide");
    if wanted.row("readdir") {
        work::drop_caches()?;
        note("readdir", "names/s", work::list(&wide)?);
    }
    let stats = [
        ("stat, 1 job", 1, Wish::Classic),
        ("stat, 8 jobs", 8, Wish::Classic),
        ("stat with birth time, 8 jobs", 8, Wish::Birth),
    ];
    for (name, jobs, wish) in stats {
        if wanted.row(name) {
            work::drop_caches()?;
            note(name, "1/s", work::stat(&wide, setup.files, jobs, wish)?);
        }
    }
    if wanted.row("import") {
        work::drop_caches()?;
        if let Some(seconds) = peer.import_many()? {
            note("import of 1000 datasets", "1/s", 1.0 / seconds);
        }
    }
    Ok(())
}

fn random(wanted: &Wanted, peer: &mut dyn Peer, note: Note<'_>) -> Result<(), String> {
    let cold = "random read 4K, cold, 8 jobs";
    if wanted.row(cold) {
        peer.renew()?;
        work::drop_caches()?;
        note(cold, "1/s", work::random(&peer.mounted().join("big"), 8)?);
    }
    let rows = [("random read 4K, 1 job", 1), ("random read 4K, 8 jobs", 8)];
    if rows.iter().any(|(name, _)| wanted.row(name)) {
        work::warm(&peer.mounted().join("big"))?;
    }
    for (name, jobs) in rows {
        if wanted.row(name) {
            note(name, "1/s", work::random(&peer.mounted().join("big"), jobs)?);
        }
    }
    Ok(())
}

fn sequential(wanted: &Wanted, peer: &mut dyn Peer, note: Note<'_>) -> Result<(), String> {
    let rows = [
        ("sequential read 128K, cold", "sequential read 128K, warm", 128 << 10),
        ("sequential read 1M, cold", "sequential read 1M, warm", 1 << 20),
    ];
    for (cold, warm, block) in rows {
        if !wanted.row(cold) && !wanted.row(warm) {
            continue;
        }
        peer.renew()?;
        let big = peer.mounted().join("big");
        work::drop_caches()?;
        let figure = work::sequential(&big, block)?;
        if wanted.row(cold) {
            note(cold, "MB/s", figure);
        }
        if wanted.row(warm) {
            note(warm, "MB/s", work::sequential(&big, block)?);
        }
    }
    Ok(())
}
