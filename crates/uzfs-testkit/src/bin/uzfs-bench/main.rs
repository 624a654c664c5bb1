//! `uzfs-bench read`: reading through uzfs, through zfs-fuse, and through an in-memory FUSE file system,
//! in the same run, on the same machine, with the same client code.
//!
//! The pool has version 23, so that both can open it, and is made once with zfs-fuse's own tools in
//! `target/bench`. "Cold" is after importing the pool anew and dropping the kernel's caches; the image file
//! itself is dropped from the page cache too. Needs root.

mod peers;
mod work;

use peers::{Memfs, Peer, Setup, UzfsPeer, ZfsFuse};
use std::process::{Command, ExitCode};
use std::time::Instant;
use uzfs_testkit::paths;

/// A measurement of one peer: name of the row, unit, figure (higher is better).
type Row = (String, &'static str, f64);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().map(String::as_str) != Some("read") {
        eprintln!("usage: uzfs-bench read [--small]");
        return ExitCode::from(2);
    }
    if !paths::is_root() {
        eprintln!("root is needed to mount and to drop caches");
        return ExitCode::FAILURE;
    }
    match run(args.iter().any(|a| a == "--small")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("uzfs-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(small: bool) -> Result<(), String> {
    let setup = Setup::prepare(small)?;
    let theirs = measure(&mut ZfsFuse::new(&setup)?)?;
    let ours = measure(&mut UzfsPeer::new(&setup)?)?;
    let ceiling = measure(&mut Memfs::new(&setup)?)?;
    println!("\n{:<34} {:>8} {:>11} {:>11} {:>8} {:>11} {:>8}", "", "", "zfs-fuse", "uzfs", "ratio", "memory", "ratio");
    for (name, unit, figure) in &ours {
        let other = |rows: &[Row]| rows.iter().find(|(n, _, _)| n == name).map(|(_, _, f)| *f);
        println!(
            "{name:<34} {unit:>8} {:>11} {:>11} {:>8} {:>11} {:>8}",
            shown(other(&theirs)),
            shown(Some(*figure)),
            ratio(*figure, other(&theirs)),
            shown(other(&ceiling)),
            ratio(*figure, other(&ceiling)),
        );
    }
    verify(&setup)
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| if f < 100.0 { format!("{f:.2}") } else { format!("{f:.0}") })
}

fn ratio(ours: f64, other: Option<f64>) -> String {
    other.map_or_else(|| "-".to_owned(), |o| format!("{:.2}x", ours / o))
}

/// Everything that is measured through a mount, and how fast the pool with many datasets is imported.
fn measure(peer: &mut dyn Peer) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    eprintln!("measuring {}", peer.name());
    for (label, block) in [("128K", 128 << 10), ("1M", 1 << 20)] {
        peer.renew()?;
        let big = peer.mounted().join("big");
        work::drop_caches()?;
        rows.push((format!("sequential read {label}, cold"), "MB/s", work::sequential(&big, block)?));
        rows.push((format!("sequential read {label}, warm"), "MB/s", work::sequential(&big, block)?));
    }
    let big = peer.mounted().join("big");
    for jobs in [1, 8] {
        rows.push((format!("random read 4K, {jobs} jobs"), "1/s", work::random(&big, jobs)?));
    }
    let wide = peer.mounted().join("wide");
    work::drop_caches()?;
    rows.push(("readdir".into(), "names/s", work::list(&wide)?));
    work::drop_caches()?;
    rows.push(("stat".into(), "1/s", work::stat(&wide, peer.files(), 1)?));
    work::drop_caches()?;
    rows.push(("stat, 8 jobs".into(), "1/s", work::stat(&wide, peer.files(), 8)?));
    if let Some(seconds) = peer.import_many()? {
        rows.push(("import of 1000 datasets".into(), "1/s", 1.0 / seconds));
    }
    peer.end()?;
    Ok(rows)
}

/// Full verification by our zdb and by OpenZFS's.
fn verify(setup: &Setup) -> Result<(), String> {
    let theirs = ["/usr/sbin/zdb", "/sbin/zdb"].into_iter().find(|p| std::path::Path::new(p).is_file());
    let ours = paths::program("zdb");
    let mut seconds = Vec::new();
    for program in [Some(ours.as_path()), theirs.map(std::path::Path::new)].into_iter().flatten() {
        work::drop_caches()?;
        let start = Instant::now();
        let out = Command::new(program)
            .args(["-e", "-bcc", "-p"])
            .arg(setup.pool_dir())
            .arg(peers::POOL)
            .output()
            .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
        if !out.status.success() {
            return Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&out.stderr)));
        }
        seconds.push(start.elapsed().as_secs_f64());
        println!("zdb -bcc, cold: {:.2} s ({})", start.elapsed().as_secs_f64(), program.display());
    }
    match seconds[..] {
        [ours, theirs] => println!("zdb: {:.2} times as fast as OpenZFS's", theirs / ours),
        _ => println!("OpenZFS's zdb is not installed"),
    }
    Ok(())
}
