//! The program behind `cargo xtask kill`: the real daemon, on image files, is killed under load again and again, and
//! everything that was acknowledged by fsync must be there afterwards.
//!
//! Three kinds of promises are collected by threads that write through the mount: files that were written and fsynced
//! are whole; logs hold every record whose append was fsynced; a file that is replaced by rename is at any time one
//! whole version, not older than the last that was fsynced. Meanwhile snapshots are taken and destroyed. At the end (and
//! now and then between) OpenZFS's `zdb` must find nothing wrong.
//!
//! Needs root and FUSE; nothing else on the machine is touched.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::session::Session;

const USAGE: &str =
    "usage: uzfs-kill [--rounds N] [--minutes N] [--layout mirror|raidz1|raidz2|slog|single] [--seed N]";
const POOL: &str = "killed";
const IMAGE: u64 = 256 << 20;
const WRITERS: u64 = 4;
/// A record of a log: number, and the same scrambled.
const RECORD: usize = 64;
/// `zdb` judges after every so many rounds.
const JUDGE: u64 = 25;

struct Wanted {
    rounds: u64,
    time: Duration,
    layout: String,
    seed: u64,
}

fn parse(args: &[String]) -> Option<Wanted> {
    let mut wanted = Wanted { rounds: 200, time: Duration::from_secs(3600), layout: "mirror".into(), seed: 1 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => wanted.rounds = args.next()?.parse().ok()?,
            "--minutes" => wanted.time = Duration::from_secs(args.next()?.parse::<u64>().ok()? * 60),
            "--layout" => wanted.layout.clone_from(args.next()?),
            "--seed" => wanted.seed = args.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(wanted)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(wanted) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&wanted) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes that a number stands for.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out: Vec<u8> = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&next().to_le_bytes());
    }
    out.truncate(len);
    out
}

fn record(number: u64) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    out.copy_from_slice(&bytes(number, RECORD));
    out[..8].copy_from_slice(&number.to_le_bytes());
    out
}

/// What one writer was promised.
#[derive(Default)]
struct Promises {
    number: u64,
    /// Files by name: what they hold.
    files: BTreeMap<PathBuf, (u64, usize)>,
    /// Records of the log that were fsynced.
    records: u64,
    /// Version that was replaced and fsynced.
    version: u64,
    /// Versions that were begun.
    begun: u64,
    fsyncs: u64,
}

impl Promises {
    /// Writes until something fails or it is over.
    fn work(&mut self, at: &Path, id: u64, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.number += 1;
            let done = match self.number % 3 {
                0 => self.whole(at, id),
                1 => self.append(at),
                _ => self.replace(at, id),
            };
            if done.is_err() {
                return;
            }
            self.fsyncs += 1;
        }
    }

    fn whole(&mut self, at: &Path, id: u64) -> io::Result<()> {
        let seed = id << 40 | self.number;
        let len = [100, 4096, 20_000, 150_000][(self.number / 3 % 4) as usize];
        let path = at.join(format!("f{}", self.number));
        let mut file = File::create(&path)?;
        file.write_all(&bytes(seed, len))?;
        file.sync_all()?;
        self.files.insert(path, (seed, len));
        if self.files.len() > 60
            && let Some((old, _)) = self.files.pop_first()
        {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    fn append(&mut self, at: &Path) -> io::Result<()> {
        let mut log = OpenOptions::new().append(true).create(true).open(at.join("log"))?;
        log.write_all(&record(self.records))?;
        log.sync_data()?;
        self.records += 1;
        Ok(())
    }

    fn replace(&mut self, at: &Path, id: u64) -> io::Result<()> {
        self.begun += 1;
        let mut file = File::create(at.join("conf.new"))?;
        file.write_all(&self.begun.to_le_bytes())?;
        file.write_all(&bytes(id << 48 | self.begun, 9000))?;
        file.sync_all()?;
        drop(file);
        fs::rename(at.join("conf.new"), at.join("conf"))?;
        File::open(at)?.sync_all()?;
        self.version = self.begun;
        Ok(())
    }

    /// Compares with what is there; what was begun and not promised is taken as it is.
    fn check(&mut self, at: &Path, id: u64) -> Result<(), String> {
        for (path, (seed, len)) in &self.files {
            let seen = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            if seen != bytes(*seed, *len) {
                return Err(format!("{}: {} bytes, not the {len} that were fsynced", path.display(), seen.len()));
            }
        }
        let log = fs::read(at.join("log")).unwrap_or_default();
        for n in 0..self.records {
            let start = n as usize * RECORD;
            if log.get(start..start + RECORD) != Some(&record(n)[..]) {
                return Err(format!("{}: record {n} of {} is lost", at.join("log").display(), self.records));
            }
        }
        // The one behind may be there whole, in part, or not at all.
        if let Ok(log) = OpenOptions::new().write(true).open(at.join("log")) {
            log.set_len(self.records * RECORD as u64).map_err(|e| e.to_string())?;
        }
        if self.version > 0 || at.join("conf").exists() {
            let seen = fs::read(at.join("conf")).map_err(|e| format!("{}/conf: {e}", at.display()))?;
            let version = seen.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            let whole = seen.get(8..) == Some(&bytes(id << 48 | version, 9000)[..]);
            if !whole || version < self.version || version > self.begun {
                return Err(format!(
                    "{}/conf is version {version} (whole: {whole}), not {}",
                    at.display(),
                    self.version
                ));
            }
            self.version = version;
        }
        Ok(())
    }
}

struct Run {
    session: Session,
    images: PathBuf,
    root: String,
    promises: Vec<Promises>,
}

impl Run {
    fn start(wanted: &Wanted) -> Result<Self, String> {
        let session = Session::start()?;
        let images = session.root().with_file_name("images");
        fs::create_dir_all(&images).map_err(|e| e.to_string())?;
        let words: &[&str] = match wanted.layout.as_str() {
            "single" => &["D"],
            "mirror" => &["mirror", "D", "D"],
            "raidz1" => &["raidz1", "D", "D", "D"],
            "raidz2" => &["raidz2", "D", "D", "D", "D"],
            "slog" => &["mirror", "D", "D", "log", "D"],
            other => return Err(format!("unknown layout {other}")),
        };
        let root = session.root().to_string_lossy().into_owned();
        let mut args: Vec<String> = ["create", "-f", "-R", &root, POOL].map(str::to_owned).to_vec();
        for (n, word) in words.iter().enumerate() {
            args.push(if *word == "D" { image(&images, n)? } else { (*word).to_owned() });
        }
        session.ok("zpool", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
        for id in 0..WRITERS {
            fs::create_dir(session.root().join(POOL).join(format!("w{id}"))).map_err(|e| e.to_string())?;
        }
        session.ok("zpool", &["sync"])?;
        Ok(Self { session, images, root, promises: (0..WRITERS).map(|_| Promises::default()).collect() })
    }

    fn place(&self, id: u64) -> PathBuf {
        self.session.root().join(POOL).join(format!("w{id}"))
    }

    /// Writes for a while, kills the daemon under it, and looks at what is left.
    fn round(&mut self, number: u64, length: Duration) -> Result<(), String> {
        let places: Vec<PathBuf> = (0..WRITERS).map(|id| self.place(id)).collect();
        let stop = AtomicBool::new(false);
        let session = &mut self.session;
        thread::scope(|scope| {
            for ((id, promises), at) in (0..).zip(&mut self.promises).zip(&places) {
                let stop = &stop;
                scope.spawn(move || promises.work(at, id, stop));
            }
            let begun = Instant::now();
            if number.is_multiple_of(3) {
                // Their outcome is not promised when the daemon dies, but they must do no harm.
                let _ = session.run("zfs", &["snapshot", &format!("{POOL}@r{number}")]);
                let _ = session.run("zfs", &["destroy", &format!("{POOL}@r{}", number.wrapping_sub(6))]);
            }
            thread::sleep(length.saturating_sub(begun.elapsed()));
            session.kill();
            stop.store(true, Ordering::Relaxed);
        });
        if number % JUDGE == JUDGE - 1 {
            self.judge("after a kill")?;
        }
        self.session.restart()?;
        let images = self.images.to_string_lossy().into_owned();
        self.session.ok("zpool", &["import", "-f", "-d", &images, "-R", &self.root, "-o", "readonly=off", POOL])?;
        for (id, at) in (0..).zip(&places) {
            self.promises[id as usize].check(at, id)?;
        }
        Ok(())
    }

    fn judge(&self, when: &str) -> Result<(), String> {
        let command =
            Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(&self.images).args([POOL, "-bbcc"]).output();
        let Ok(out) = command else {
            println!("SKIPPED zdb: it is not installed");
            return Ok(());
        };
        let text = String::from_utf8_lossy(&out.stdout);
        if out.status.success() && text.contains("No leaks (block sum matches space maps exactly)") {
            return Ok(());
        }
        Err(format!("zdb {when}: {}\n{text}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
    }

    fn finish(self) -> Result<(u64, u64), String> {
        self.session.ok("zpool", &["export", POOL])?;
        self.judge("at the end")?;
        let fsyncs = self.promises.iter().map(|p| p.fsyncs).sum();
        let records = self.promises.iter().map(|p| p.records).sum();
        self.session.finish()?;
        Ok((fsyncs, records))
    }
}

fn image(dir: &Path, n: usize) -> Result<String, String> {
    let path = dir.join(format!("d{n}"));
    File::create(&path).and_then(|f| f.set_len(IMAGE)).map_err(|e| e.to_string())?;
    Ok(path.to_string_lossy().into_owned())
}

fn run(wanted: &Wanted) -> Result<String, String> {
    let mut run = Run::start(wanted)?;
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < wanted.rounds && start.elapsed() < wanted.time {
        let milliseconds = 20 + bytes(wanted.seed << 32 | rounds, 8).iter().map(|b| u64::from(*b)).sum::<u64>() / 4;
        run.round(rounds, Duration::from_millis(milliseconds)).map_err(|e| format!("round {rounds}: {e}"))?;
        rounds += 1;
        if rounds % 25 == 0 {
            println!("{rounds} rounds, {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    let (fsyncs, records) = run.finish()?;
    let layout = &wanted.layout;
    Ok(format!("ok: {layout}, {rounds} kills, {fsyncs} acknowledged fsyncs ({records} log records), nothing lost"))
}
