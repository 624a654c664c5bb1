//! Full verification (`zdb -bcc`) by our zdb and by OpenZFS's, of the same pool.

use crate::setup::{POOL, Setup};
use crate::work;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use uzfs_testkit::{paths, process};

const LIMIT: Duration = Duration::from_secs(900);

/// Runs both in turn, the first one of a round being the second of the next; each starts with nothing cached. The
/// best of each counts.
pub fn compare(setup: &Setup, rounds: usize) -> Result<(), String> {
    if !setup.has_pools() {
        println!("SKIPPED zdb: the pools are not there");
        return Ok(());
    }
    let installed = ["/usr/sbin/zdb", "/sbin/zdb"].into_iter().map(Path::new).find(|p| p.is_file());
    let mut programs: Vec<(&str, PathBuf, f64)> = vec![("uzfs", paths::program("zdb"), f64::INFINITY)];
    match installed {
        Some(path) => programs.push(("OpenZFS", path.to_owned(), f64::INFINITY)),
        None => println!("SKIPPED OpenZFS's zdb: it is not installed"),
    }
    for round in 1..=rounds {
        for (name, program, best) in &mut programs {
            let seconds = run(program, setup)?;
            println!("round {round}  zdb -bcc, cold ({name}): {seconds:.2} s");
            *best = best.min(seconds);
        }
        programs.reverse();
    }
    let best = |name| programs.iter().find(|(n, _, _)| *n == name).map(|(_, _, best)| *best);
    if let (Some(ours), Some(theirs)) = (best("uzfs"), best("OpenZFS")) {
        println!("zdb -bcc: uzfs {ours:.2} s, OpenZFS {theirs:.2} s: {:.2} times as fast", theirs / ours);
    }
    Ok(())
}

fn run(program: &Path, setup: &Setup) -> Result<f64, String> {
    work::drop_caches()?;
    work::still_wanted()?;
    let start = Instant::now();
    let mut command = Command::new(program);
    process::run(command.args(["-e", "-bcc", "-p"]).arg(setup.pool_dir()).arg(POOL), LIMIT)?.ok()?;
    Ok(start.elapsed().as_secs_f64())
}
