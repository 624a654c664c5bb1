//! SQLite on a mount: transactions that keep a sum, the daemon of uzfs killed under them, and after the import every
//! transaction that was acknowledged must be there and SQLite's own check content. Both ways it can keep its journal,
//! each with all that keeps data safe (`synchronous=EXTRA`: with less, SQLite does not sync the directory from which it
//! removes a journal, and says that the last transaction may be undone).

use super::zdb;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use uzfs_testkit::session::Session;

const POOL: &str = "feather";
/// Ways to keep the journal.
const MODES: [&str; 2] = ["delete", "wal"];
/// More transactions than a round has time for.
const MOST: u64 = 1_000_000;

/// Runs statements; gives what they print.
fn sqlite(db: &Path, statements: &str) -> Result<String, String> {
    let out = Command::new("sqlite3").arg("-batch").arg(db).arg(statements).stdin(Stdio::null()).output();
    let out = out.map_err(|e| format!("sqlite3: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    Err(format!("sqlite3 {statements:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}

/// Runs transactions from `first` on until the daemon is gone, after `life`. Gives the last one that was acknowledged.
fn write_until_killed(db: &Path, mode: &str, first: u64, session: &mut Session, life: Duration) -> Result<u64, String> {
    let mut child = Command::new("sqlite3");
    child.arg("-batch").arg(db).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().map_err(|e| format!("sqlite3: {e}"))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("sqlite3 without pipes".into());
    };
    let mode = mode.to_owned();
    let writer = thread::spawn(move || {
        // Ends when the other side is gone.
        let _ = writeln!(stdin, ".bail on\npragma journal_mode={mode}; pragma synchronous=extra;");
        for n in first..first + MOST {
            let change = format!(
                "begin; insert into notes values({n}, randomblob({})); update total set sum = sum + {n}; commit; select 'done', {n};",
                n % 5000
            );
            if writeln!(stdin, "{change}").is_err() {
                return;
            }
        }
    });
    let last = Arc::new(AtomicU64::new(first.saturating_sub(1)));
    let seen = last.clone();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("done|").and_then(|n| n.parse().ok()) {
                seen.store(n, Ordering::SeqCst);
            }
        }
    });
    thread::sleep(life);
    session.kill();
    let _ = child.kill();
    let _ = child.wait();
    let _ = (writer.join(), reader.join());
    Ok(last.load(Ordering::SeqCst))
}

/// Checks a database; gives its last transaction.
fn check(db: &Path) -> Result<u64, String> {
    let report =
        sqlite(db, "pragma integrity_check; select max(n), count(*), sum(n) from notes; select sum from total;")?;
    let lines: Vec<&str> = report.lines().collect();
    let ["ok", counts, sum] = lines[..] else { return Err(format!("integrity_check: {report}")) };
    let numbers: Vec<u64> = counts.split('|').map(|n| n.parse().unwrap_or(0)).collect();
    match numbers[..] {
        [last, count, total] if last == count && total.to_string() == sum => Ok(last),
        _ => Err(format!("the sum is wrong: {counts} {sum}")),
    }
}

/// Kills the daemon `rounds` times for each way of keeping the journal.
pub fn judge(images: &Path, rounds: u32) -> Result<(), String> {
    if Command::new("sqlite3").arg("-version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED SQLite: sqlite3 is not installed");
        return Ok(());
    }
    let image = images.join("sqlite");
    fs::create_dir(&image).map_err(|e| e.to_string())?;
    let names: Vec<String> = (0..3).map(|n| image.join(format!("d{n}")).to_string_lossy().into_owned()).collect();
    for name in &names {
        File::create(name).and_then(|f| f.set_len(1 << 30)).map_err(|e| e.to_string())?;
    }
    let mut session = Session::start()?;
    let root = session.root().to_string_lossy().into_owned();
    session.ok("zpool", &["create", "-R", &root, POOL, "raidz1", &names[0], &names[1], &names[2]])?;
    for mode in MODES {
        let db = session.root().join(POOL).join(format!("{mode}.db"));
        sqlite(
            &db,
            "create table notes(n integer primary key, text blob); create table total(sum integer); insert into total values(0);",
        )?;
        let mut known = 0;
        for round in 0..rounds {
            let life = Duration::from_millis(1200 + u64::from(round) * 577 % 2000);
            let told = write_until_killed(&db, mode, known + 1, &mut session, life)?;
            session.restart()?;
            let dir = image.to_string_lossy();
            session.ok("zpool", &["import", "-f", "-d", &dir, "-R", &root, "-o", "readonly=off", POOL])?;
            let found = check(&db).map_err(|e| format!("SQLite, {mode}, round {round}: {e}"))?;
            if found < told {
                return Err(format!(
                    "SQLite, {mode}, round {round}: {found} transactions of {told} that were acknowledged"
                ));
            }
            known = found;
        }
        println!("SQLite: journal {mode}: {rounds} kills of the daemon, {known} transactions, none lost");
    }
    session.ok("zpool", &["export", POOL])?;
    session.finish()?;
    zdb(&image, POOL)
}
