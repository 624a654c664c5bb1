//! PostgreSQL on a mount: its benchmark runs, the daemon of uzfs is killed under it, and after the import PostgreSQL must
//! recover with every transaction that it had acknowledged, and with balances that add up.
//!
//! Runs as the user `postgres`, with all defaults that keep data safe (`fsync`, checksums of pages). Nothing of an
//! installed cluster is touched; its socket lies in a folder of its own.

use super::zdb;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::session::Session;

const POOL: &str = "elephant";
/// Longest time until it accepts connections, recovery included.
const READY: Duration = Duration::from_secs(120);
/// The four sums that must agree, and the number of transactions.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), \
                    (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history), \
                    (select count(*) from pgbench_history)";

/// Where the programs are, and who runs them.
struct Elephant {
    programs: PathBuf,
    user: (u32, u32),
    /// Socket, logs.
    place: PathBuf,
    data: PathBuf,
}

impl Elephant {
    /// A program as the user, in a process group of its own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.uid(self.user.0).gid(self.user.1).process_group(0).current_dir(&self.place);
        command.env("HOME", &self.place).env("PGHOST", &self.place).env("PGDATABASE", "postgres").env("LC_ALL", "C");
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let out = self.command(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
        }
        Err(format!("{program} {args:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
    }

    /// Starts the server and waits until it answers.
    fn start(&self) -> Result<Child, String> {
        let log =
            File::options().append(true).create(true).open(self.place.join("log")).map_err(|e| format!("log: {e}"))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.place).args(["-c", "listen_addresses="]);
        command.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
        let mut server = command.spawn().map_err(|e| format!("postgres: {e}"))?;
        let end = Instant::now() + READY;
        while self.output("pg_isready", &[]).is_err() {
            if Instant::now() > end || !matches!(server.try_wait(), Ok(None)) {
                kill(&mut server);
                return Err(format!("PostgreSQL does not start:\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.place.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Transactions that the benchmark was told of as done, by its logs, which are then taken away.
    fn acknowledged(&self) -> Result<u64, String> {
        let mut lines = 0;
        for entry in fs::read_dir(&self.place).map_err(|e| e.to_string())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("pgbench_log") {
                lines += fs::read_to_string(entry.path()).map_err(|e| e.to_string())?.lines().count() as u64;
                fs::remove_file(entry.path()).map_err(|e| e.to_string())?;
            }
        }
        Ok(lines)
    }

    /// Checks the sums; gives the number of transactions in the history.
    fn check(&self) -> Result<u64, String> {
        let line = self.output("psql", &["-AtF", " ", "-c", SUMS])?;
        let sums: Vec<i64> = line.split(' ').filter_map(|w| w.parse().ok()).collect();
        match sums[..] {
            [a, b, c, d, n] if a == b && b == c && c == d => Ok(n.unsigned_abs()),
            _ => Err(format!("the balances do not add up: {line}")),
        }
    }
}

/// Kills a server with all its processes: they are in sessions of their own, and some would wait for others for ever.
fn kill(server: &mut Child) {
    let id = server.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let all = [id].into_iter().chain(children.split_whitespace().filter_map(|w| w.parse().ok()));
    for pid in all.filter_map(|id| i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let _ = server.wait();
}

/// The programs of PostgreSQL, and the user; nothing where they are not installed.
fn installed() -> Option<(PathBuf, (u32, u32))> {
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|e| e.path().join("bin")).collect();
    versions.sort();
    let programs = versions.pop().filter(|p| p.join("pgbench").exists() && p.join("initdb").exists())?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let words: Vec<&str> = users.lines().find(|l| l.starts_with("postgres:"))?.split(':').collect();
    Some((programs, (words.get(2)?.parse().ok()?, words.get(3)?.parse().ok()?)))
}

/// Runs the benchmark `rounds` times, killing the daemon under it each time.
pub fn judge(images: &Path, rounds: u32) -> Result<(), String> {
    let Some((programs, user)) = installed() else {
        println!("SKIPPED PostgreSQL: it is not installed");
        return Ok(());
    };
    let image = images.join("postgres");
    fs::create_dir(&image).map_err(|e| e.to_string())?;
    for name in ["d0", "d1"] {
        File::create(image.join(name)).and_then(|f| f.set_len(2 << 30)).map_err(|e| e.to_string())?;
    }
    let word = |name: &str| image.join(name).to_string_lossy().into_owned();
    let mut session = Session::start()?;
    let root = session.root().to_string_lossy().into_owned();
    session.ok("zpool", &["create", "-R", &root, POOL, "mirror", &word("d0"), &word("d1")])?;
    session.ok("zfs", &["create", "-o", "recordsize=8k", "-o", "compression=lz4", &format!("{POOL}/pg")])?;
    let place = images.join("pg");
    fs::DirBuilder::new().mode(0o700).create(&place).map_err(|e| e.to_string())?;
    let elephant = Elephant { programs, user, data: session.root().join(POOL).join("pg/data"), place };
    for dir in [&elephant.place, &session.root().join(POOL).join("pg")] {
        chown(dir, Some(user.0), Some(user.1)).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    let data = elephant.data.to_string_lossy().into_owned();
    elephant.output("initdb", &["-D", &data, "-k", "-A", "trust"])?;
    let mut server = elephant.start()?;
    let result = benchmark(&elephant, &mut session, &mut server, &image, rounds);
    if result.is_err() {
        kill(&mut server);
    }
    let (transactions, rate) = result?;
    elephant.output("pg_ctl", &["-D", &data, "-m", "fast", "-w", "stop"])?;
    let _ = server.wait();
    elephant.output("pg_checksums", &["--check", "-D", &data])?;
    session.ok("zpool", &["export", POOL])?;
    session.finish()?;
    zdb(&image, POOL)?;
    println!(
        "PostgreSQL: {rounds} kills of the daemon under pgbench, {transactions} transactions, none lost, balances and checksums right; \
         {rate} transactions/s"
    );
    Ok(())
}

/// Gives the number of transactions, and of those in a second of the last, undisturbed run.
fn benchmark(
    elephant: &Elephant,
    session: &mut Session,
    server: &mut Child,
    image: &Path,
    rounds: u32,
) -> Result<(u64, String), String> {
    elephant.output("pgbench", &["-i", "-q", "-s", "4"])?;
    let mut known = 0;
    for round in 0..rounds {
        let mut bench = elephant.command("pgbench");
        bench.args(["-c", "4", "-n", "-T", "120", "-l"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut bench = bench.spawn().map_err(|e| format!("pgbench: {e}"))?;
        thread::sleep(Duration::from_millis(2500 + u64::from(round) * 777 % 4000));
        session.kill();
        kill(server);
        bench.wait().map_err(|e| format!("pgbench: {e}"))?;
        known += elephant.acknowledged()?;
        session.restart()?;
        let (dir, root) = (image.to_string_lossy(), session.root().to_string_lossy().into_owned());
        session.ok("zpool", &["import", "-f", "-d", &dir, "-R", &root, "-o", "readonly=off", POOL])?;
        *server = elephant.start().map_err(|e| format!("round {round}: {e}"))?;
        let found = elephant.check().map_err(|e| format!("round {round}: {e}"))?;
        if found < known {
            return Err(format!("round {round}: {found} transactions of {known} that were acknowledged"));
        }
        known = found;
    }
    let report = elephant.output("pgbench", &["-c", "4", "-n", "-T", "10"])?;
    let rate = report.lines().find_map(|l| l.strip_prefix("tps = ")).unwrap_or_default();
    let rate = rate.split(' ').next().unwrap_or_default().to_owned();
    Ok((elephant.check()?, rate))
}
