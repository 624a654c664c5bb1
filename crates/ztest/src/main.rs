//! The program behind `cargo xtask swarm`: rounds with consecutive seeds until a number of rounds or minutes is over,
//! or one fails. A failing seed is printed; the same seed fails the same way.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use ztest::machine::Layout;
use ztest::swarm::{Done, Options, round};

const USAGE: &str = "usage: uzfs-swarm [--seed N] [--rounds N] [--minutes N] [--layout NAME] [--overlap] [--verbose]
  --seed N     the first round's seed; without it the clock decides
  --rounds N   how many rounds (1 with --seed, else until the minutes are over)
  --minutes N  begin no round after that (10)
  --layout L   single, stripe, mirror, raidz1, raidz2, slog, classes; else the seed decides
  --overlap    operations go on while a txg is synced; such a seed is only nearly reproducible";

struct Wanted {
    seed: u64,
    rounds: u64,
    time: Duration,
    options: Options,
}

fn parse(args: &[String]) -> Option<Wanted> {
    let (mut seed, mut rounds, mut minutes, mut options) = (None, None, 10, Options::default());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => seed = Some(args.next()?.parse().ok()?),
            "--rounds" => rounds = Some(args.next()?.parse().ok()?),
            "--minutes" => minutes = args.next()?.parse().ok()?,
            "--layout" => options.layout = Some(Layout::by_name(args.next()?)?),
            "--overlap" => options.overlap = true,
            "--verbose" => options.verbose = true,
            _ => return None,
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rounds = rounds.unwrap_or(if seed.is_some() { 1 } else { u64::MAX });
    let seed = seed.unwrap_or(now.as_millis() as u64 % 1_000_000_000);
    Some(Wanted { seed, rounds, time: Duration::from_secs(minutes * 60), options })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(wanted) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (start, mut total, mut rounds) = (Instant::now(), Done::default(), 0);
    while rounds < wanted.rounds && (rounds == 0 || start.elapsed() < wanted.time) {
        let seed = wanted.seed + rounds;
        match std::panic::catch_unwind(|| round(seed, &wanted.options)) {
            Ok(Ok(done)) => {
                total.ops += done.ops;
                total.crashes += done.crashes;
                total.faults += done.faults;
                total.events += done.events;
            }
            Ok(Err(e)) => {
                println!("FAILED seed {seed}: {e}\nagain: cargo xtask swarm --seed {seed} --verbose");
                return ExitCode::FAILURE;
            }
            Err(_) => {
                println!("FAILED seed {seed}: panic\nagain: cargo xtask swarm --seed {seed} --verbose");
                return ExitCode::FAILURE;
            }
        }
        rounds += 1;
        if rounds % 25 == 0 {
            println!("{rounds} rounds, {} operations, {} crashes, {} faults", total.ops, total.crashes, total.faults);
        }
    }
    let first = wanted.seed;
    println!(
        "ok: {rounds} rounds from seed {first}, {} operations, {} crashes, {} faults, {} writes and flushes, {:.0} s",
        total.ops,
        total.crashes,
        total.faults,
        total.events,
        start.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
