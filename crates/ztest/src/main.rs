//! The program behind `cargo xtask swarm`: rounds with consecutive seeds until a number of rounds or minutes is over,
//! or one fails. A failing seed is printed; the same seed fails the same way.

use std::process::{Command, ExitCode};
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

/// One round in this process.
fn single(seed: u64, options: &Options) -> ExitCode {
    let start = Instant::now();
    let failed = match std::panic::catch_unwind(|| round(seed, options)) {
        Ok(Ok(done)) => {
            let Done { ops, crashes, faults, events } = done;
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "ok: seed {seed}: {ops} operations, {crashes} crashes, {faults} faults, {events} events, {seconds:.0} s"
            );
            return ExitCode::SUCCESS;
        }
        Ok(Err(e)) => e,
        Err(_) => "panic".to_owned(),
    };
    println!("FAILED seed {seed}: {failed}\nagain: cargo xtask swarm --seed {seed} --verbose");
    ExitCode::FAILURE
}

/// Rounds in processes of their own, so that nothing an earlier one left behind can change a later one.
fn many(wanted: &Wanted, args: &[String]) -> Result<ExitCode, std::io::Error> {
    let (start, mut rounds) = (Instant::now(), 0);
    let mut totals = [0u64; 4];
    while rounds < wanted.rounds && (rounds == 0 || start.elapsed() < wanted.time) {
        let seed = (wanted.seed + rounds).to_string();
        let out =
            Command::new(std::env::current_exe()?).args(args).args(["--seed", &seed, "--rounds", "1"]).output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() {
            println!("{}{text}", String::from_utf8_lossy(&out.stderr));
            return Ok(ExitCode::FAILURE);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let numbers = words.iter().skip(3).filter_map(|w| w.parse::<u64>().ok());
        totals.iter_mut().zip(numbers).for_each(|(total, n)| *total += n);
        rounds += 1;
        if rounds % 25 == 0 {
            println!("{rounds} rounds, {} operations, {} crashes, {} faults", totals[0], totals[1], totals[2]);
        }
    }
    let ([ops, crashes, faults, _], seconds) = (totals, start.elapsed().as_secs_f64());
    let first = wanted.seed;
    println!(
        "ok: {rounds} rounds from seed {first}, {ops} operations, {crashes} crashes, {faults} faults, {seconds:.0} s"
    );
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(wanted) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if wanted.rounds == 1 {
        return single(wanted.seed, &wanted.options);
    }
    many(&wanted, &args).unwrap_or_else(|e| {
        eprintln!("uzfs-swarm: {e}");
        ExitCode::FAILURE
    })
}
