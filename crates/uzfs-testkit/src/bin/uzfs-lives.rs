//! The program behind `cargo xtask lives`: pools that somebody else made are imported for writing, their datasets and
//! files changed at random, and OpenZFS's `zdb` counts what is left after every export.
//!
//! What a pool brings along (clones, bookmarks, holds, keys, old versions, devices that are away) meets every change in an
//! order nobody thought of. A command may be refused, by its exit code; it must not hang, and nothing may leak or be lost:
//! the trees of all mounted file systems are the same after an import as before the export. A life is told by its seed.
//!
//! Needs root and FUSE; the pools given are copied first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use uzfs_testkit::manifest::{self, Content, Manifest};
use uzfs_testkit::session::Session;
use uzfs_testkit::{archive, check, corpus, paths};

const USAGE: &str = "usage: uzfs-lives [--seed N] [--lives N] [--steps N] [--keep DIR] [FOLDER ...]
  FOLDER          images d0, d1, ... of a pool that is called like the folder; all pools of the corpus when none is given
  --lives N       lives of each pool, with seeds from --seed on
  --keep DIR      where the images of a life that fails are put";

/// Values that are set at random; some are refused by some datasets.
const VALUES: [&str; 18] = [
    "compression=zstd",
    "compression=off",
    "checksum=sha256",
    "checksum=blake3",
    "copies=2",
    "recordsize=16k",
    "recordsize=1M",
    "dnodesize=auto",
    "xattr=sa",
    "refreservation=1M",
    "reservation=2M",
    "quota=none",
    "redundant_metadata=most",
    "sync=always",
    "logbias=throughput",
    "special_small_blocks=8k",
    "atime=off",
    "user:word=x",
];

struct Wanted {
    seed: u64,
    lives: u64,
    steps: u64,
    keep: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

fn parse(args: &[String]) -> Option<Wanted> {
    let mut wanted = Wanted { seed: 1, lives: 1, steps: 30, keep: None, folders: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => wanted.seed = args.next()?.parse().ok()?,
            "--lives" => wanted.lives = args.next()?.parse().ok()?,
            "--steps" => wanted.steps = args.next()?.parse().ok()?,
            "--keep" => wanted.keep = Some(args.next()?.into()),
            folder if !folder.starts_with('-') => wanted.folders.push(folder.into()),
            _ => return None,
        }
    }
    Some(wanted)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(mut wanted) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if wanted.folders.is_empty() {
        let there = corpus::POOLS.iter().filter(|spec| corpus::skip_reason(spec).is_none());
        wanted.folders = there.filter_map(|spec| corpus::open(spec).ok()).map(|pool| pool.devices).collect();
    }
    let mut failed = 0;
    for seed in wanted.seed..wanted.seed + wanted.lives {
        for folder in &wanted.folders {
            let begun = Instant::now();
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let result = live(folder, &name, seed, &wanted);
            failed += u32::from(result.is_err());
            let text = result.unwrap_or_else(|why| format!("FAILED: {why}"));
            println!("{name}, seed {seed}: {text} ({} s)", begun.elapsed().as_secs());
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Chance, told by a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn one<'a>(&mut self, of: &'a [String]) -> Option<&'a str> {
        let at = self.below(of.len() as u64);
        of.get(at as usize).map(String::as_str)
    }
}

struct Life<'a> {
    session: &'a Session,
    pool: &'a str,
    dir: &'a Path,
    chance: Chance,
    names: u64,
    /// Commands that were done.
    done: u64,
}

fn live(from: &Path, pool: &str, seed: u64, wanted: &Wanted) -> Result<String, String> {
    let dir = paths::cache().join(format!("lives-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let result = live_in(&dir, from, pool, seed, wanted.steps);
    if let (Err(_), Some(keep)) = (&result, &wanted.keep) {
        let to = keep.join(format!("{pool}-{seed}"));
        fs::create_dir_all(&to).map_err(|e| e.to_string())?;
        images(&dir, &to)?;
    }
    let _ = fs::remove_dir_all(&dir);
    result
}

/// Copies the images d0, d1 and so on.
fn images(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", from.display());
    for entry in fs::read_dir(from).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix('d').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())) {
            archive::copy_device(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

fn live_in(dir: &Path, from: &Path, pool: &str, seed: u64, steps: u64) -> Result<String, String> {
    images(from, dir)?;
    let session = Session::start()?;
    let chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut life = Life { session: &session, pool, dir, chance, names: 0, done: 0 };
    if !life.import()? {
        return session.finish().map(|()| "is not written".into());
    }
    for _ in 0..steps {
        life.step()?;
    }
    life.export()?;
    let done = life.done;
    session.finish()?;
    Ok(format!("{done} changes"))
}

impl Life<'_> {
    /// Imports the pool; false when it can only be read.
    fn import(&self) -> Result<bool, String> {
        let (place, root) = (self.dir.to_string_lossy(), self.session.root());
        let words = ["import", "-f", "-o", "readonly=off", "-d", &place, "-R", &root.to_string_lossy(), self.pool];
        self.session.run("zpool", &words)?;
        Ok(self.session.run("zpool", &["list", self.pool])?.code == Some(0))
    }

    fn export(&self) -> Result<(), String> {
        self.session.ok("zpool", &["export", self.pool])?;
        check::zdb_clean(self.dir, self.pool)
    }

    /// Names and attributes of all that is mounted.
    fn trees(&self) -> Result<BTreeMap<String, Manifest>, String> {
        let all = check::mounted(self.session, self.pool)?;
        all.into_iter().map(|(name, at)| Ok((name, manifest::walk(&at, Content::Skip)?))).collect()
    }

    fn again(&mut self) -> Result<(), String> {
        let before = self.trees()?;
        self.export()?;
        if !self.import()? {
            return Err("cannot be imported again".into());
        }
        let after = self.trees()?;
        for (name, tree) in before {
            // What was unmounted by hand, or lies below that, may be mounted differently.
            let Some(now) = after.get(&name) else { continue };
            let differ = manifest::differences(&tree, now, &["atime"]);
            if !differ.is_empty() {
                return Err(format!("{name} is another after an import: {differ:?}"));
            }
        }
        Ok(())
    }

    fn zfs(&mut self, words: &[&str]) -> Result<(), String> {
        self.done += u64::from(self.session.run("zfs", words)?.code == Some(0));
        Ok(())
    }

    fn list(&self, kinds: &str) -> Result<Vec<String>, String> {
        let out = self.session.run("zfs", &["list", "-Hro", "name", "-t", kinds, self.pool])?.stdout;
        Ok(out.lines().map(str::to_owned).collect())
    }

    fn step(&mut self) -> Result<(), String> {
        self.names += 1;
        let new = format!("n{}", self.names);
        let (all, snaps) = (self.list("filesystem,volume")?, self.list("snapshot")?);
        let below = all.iter().skip(1).cloned().collect::<Vec<_>>();
        match self.chance.below(20) {
            0..=3 => self.write(),
            4 => self.again(),
            5 => self.session.ok("zpool", &["scrub", "-w", self.pool]).map(drop),
            6..=9 => self.make(&new, &all, &snaps),
            10..=13 => self.destroy(&below, &snaps),
            14..=16 => self.relate(&new, &all, &below, &snaps),
            _ => self.set(&all),
        }
    }

    fn make(&mut self, new: &str, all: &[String], snaps: &[String]) -> Result<(), String> {
        let Some(at) = self.chance.one(all).map(str::to_owned) else { return Ok(()) };
        let (below, snap) = (format!("{at}/{new}"), format!("{at}@{new}"));
        match (self.chance.below(6), self.chance.one(snaps).map(str::to_owned)) {
            (0, _) => self.zfs(&["snapshot", &snap]),
            (1, _) => self.zfs(&["snapshot", "-r", &snap]),
            (2, _) => self.zfs(&["create", &below]),
            (3, _) => self.zfs(&["create", "-s", "-V", "8M", &below]),
            (4, Some(origin)) => self.zfs(&["clone", &origin, &below]),
            (_, Some(of)) => self.zfs(&["bookmark", &of, &format!("{}#{new}", head(&of))]),
            _ => Ok(()),
        }
    }

    fn destroy(&mut self, below: &[String], snaps: &[String]) -> Result<(), String> {
        let (dataset, snap) = (self.chance.one(below).map(str::to_owned), self.chance.one(snaps).map(str::to_owned));
        match (self.chance.below(8), dataset, snap) {
            (0, Some(dataset), _) => self.zfs(&["destroy", &dataset]),
            (1, Some(dataset), _) => self.zfs(&["destroy", "-r", &dataset]),
            (2, Some(dataset), _) if self.chance.once_in(4) => self.zfs(&["destroy", "-R", &dataset]),
            (3, _, Some(snap)) => self.zfs(&["destroy", "-d", &snap]),
            (4, _, Some(snap)) => self.zfs(&["destroy", &format!("{snap}%")]),
            (5, _, Some(snap)) => self.zfs(&["rollback", "-R", &snap]),
            (6, _, Some(snap)) => self.zfs(&["rollback", "-r", &snap]),
            (_, _, Some(snap)) => self.zfs(&["destroy", &snap]),
            _ => Ok(()),
        }
    }

    fn relate(&mut self, new: &str, all: &[String], below: &[String], snaps: &[String]) -> Result<(), String> {
        let Some(to) = self.chance.one(all).map(|at| format!("{at}/{new}")) else { return Ok(()) };
        let (dataset, snap) = (self.chance.one(below).map(str::to_owned), self.chance.one(snaps).map(str::to_owned));
        match (self.chance.below(6), dataset, snap) {
            (0, Some(dataset), _) => self.zfs(&["rename", &dataset, &to]),
            (1 | 2, Some(dataset), _) => self.zfs(&["promote", &dataset]),
            (3, _, Some(snap)) => self.zfs(&["rename", "-r", &snap, &format!("@{new}")]),
            (4, _, Some(snap)) => self.zfs(&["hold", "tag", &snap]),
            (_, _, Some(snap)) => self.zfs(&["release", "tag", &snap]),
            _ => Ok(()),
        }
    }

    fn set(&mut self, all: &[String]) -> Result<(), String> {
        let Some(at) = self.chance.one(all).map(str::to_owned) else { return Ok(()) };
        let value = VALUES[self.chance.below(VALUES.len() as u64) as usize];
        match self.chance.below(6) {
            0 => self.zfs(&["inherit", value.split('=').next().unwrap_or(value), &at]),
            1 => self.zfs(&["upgrade", &at]),
            2 => self.zfs(&["mount", "-a"]),
            _ => self.zfs(&["set", value, &at]),
        }
    }

    /// Changes a few files of a file system. Whatever is not allowed there is left.
    fn write(&mut self) -> Result<(), String> {
        let mounted: Vec<PathBuf> = check::mounted(self.session, self.pool)?.into_values().collect();
        let at = self.chance.below(mounted.len() as u64);
        let Some(root) = mounted.get(at as usize) else { return Ok(()) };
        let there: Vec<PathBuf> = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()).collect();
        for file in there.iter().filter(|f| f.symlink_metadata().is_ok_and(|m| m.is_file())) {
            let _ = match self.chance.below(12) {
                0 => fs::remove_file(file),
                1 => fs::rename(file, file.with_extension("moved")),
                2 => File::options().write(true).open(file).and_then(|f| f.set_len(self.chance.below(200_000))),
                3 => {
                    let (place, len) = (self.chance.below(4 << 20), self.chance.below(70_000) as usize);
                    File::options().write(true).open(file).and_then(|f| f.write_all_at(&vec![7; len], place))
                }
                _ => Ok(()),
            };
        }
        for _ in 0..=self.chance.below(4) {
            let (name, byte) = (format!("new{}", self.chance.below(40)), self.chance.next() as u8);
            let len = self.chance.below(200_000) as usize;
            let made = fs::write(root.join(&name), vec![byte; len]).and_then(|()| File::open(root.join(&name)));
            if self.chance.once_in(3) {
                let _ = made.and_then(|f| f.sync_all());
            }
        }
        let _ = fs::create_dir(root.join(format!("dir{}", self.chance.below(9))));
        Ok(())
    }
}

/// The dataset that a snapshot is of.
fn head(snapshot: &str) -> &str {
    snapshot.split('@').next().unwrap_or(snapshot)
}
