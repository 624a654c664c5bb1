//! The workloads: the same client code for every file system.

use crate::work::still_wanted;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::{paths, process};

/// How long fsyncs are counted.
const SPELL: Duration = Duration::from_secs(4);
const MIB: usize = 1 << 20;

/// Half random, half words.
fn data() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |i: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (i / 2048).is_multiple_of(2) { b"words that come again and again, "[i % 33] } else { (state >> 24) as u8 }
    };
    (0..MIB).map(&mut next).collect()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

/// Writes a file of `bytes` and waits until it is on disk; megabytes a second.
pub fn sequential(at: &Path, bytes: u64) -> Result<f64, String> {
    let path = at.join("big");
    let data = data();
    let start = Instant::now();
    let mut file = File::create(&path).map_err(failed(&path))?;
    for _ in 0..bytes / MIB as u64 {
        still_wanted()?;
        file.write_all(&data).map_err(failed(&path))?;
    }
    file.sync_all().map_err(failed(&path))?;
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Overwrites random 4K pieces of the big file, so many bytes in all, and waits; megabytes a second.
pub fn random(at: &Path, bytes: u64) -> Result<f64, String> {
    let path = at.join("big");
    if !path.exists() {
        sequential(at, bytes * 4)?;
    }
    let file = File::options().write(true).open(&path).map_err(failed(&path))?;
    let pages = file.metadata().map_err(failed(&path))?.len() / 4096;
    let (data, start) = (data(), Instant::now());
    let mut state = 88_172_645_463_325_252u64;
    // Every file system would need minutes for all of it.
    let mut done = 0;
    while done < bytes && start.elapsed() < SPELL * 2 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let from = (state as usize >> 8) % (MIB / 4096) * 4096;
        file.write_all_at(&data[from..from + 4096], state % pages * 4096).map_err(failed(&path))?;
        done += 4096;
        if done % (8 << 20) == 0 {
            still_wanted()?;
        }
    }
    file.sync_all().map_err(failed(&path))?;
    Ok(done as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Appends 4K and fsyncs, in `jobs` files at once: fsyncs a second, and milliseconds that one takes.
pub fn fsync(at: &Path, jobs: u64) -> Result<(f64, f64), String> {
    let (count, data, start) = (AtomicU64::new(0), data(), Instant::now());
    let one = |job: u64| -> Result<(), String> {
        let path = at.join(format!("log{job}"));
        let mut file = File::create(&path).map_err(failed(&path))?;
        while start.elapsed() < SPELL {
            still_wanted()?;
            file.write_all(&data[..4096]).and_then(|()| file.sync_data()).map_err(failed(&path))?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        fs::remove_file(&path).map_err(failed(&path))
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..jobs).map(|job| scope.spawn(move || one(job))).collect();
        all.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err("a job died".into())))
    })?;
    let (n, seconds) = (count.into_inner() as f64, start.elapsed().as_secs_f64());
    Ok((n / seconds, seconds * 1000.0 * jobs as f64 / n.max(1.0)))
}

/// Creates empty files, then unlinks them; each a second.
pub fn create_unlink(at: &Path, files: u64) -> Result<(f64, f64), String> {
    let dir = at.join("wide");
    fs::create_dir_all(&dir).map_err(failed(&dir))?;
    let path = |n: u64| dir.join(format!("file-{n:06}"));
    let start = Instant::now();
    for n in 0..files {
        File::create(path(n)).map_err(failed(&dir))?;
    }
    let created = files as f64 / start.elapsed().as_secs_f64();
    still_wanted()?;
    let start = Instant::now();
    for n in 0..files {
        fs::remove_file(path(n)).map_err(failed(&dir))?;
    }
    Ok((created, files as f64 / start.elapsed().as_secs_f64()))
}

/// An archive of this repository's sources, several times over.
pub fn source_tree(dir: &Path) -> Result<PathBuf, String> {
    let tar = dir.join("tree.tar");
    if !tar.exists() {
        let mut command = Command::new("tar");
        command.arg("-cf").arg(&tar).arg("-C").arg(paths::repository()).args(["crates", "docs", "tests"]);
        process::run(&mut command, Duration::from_secs(120))?.ok()?;
    }
    Ok(tar)
}

/// Unpacks it three times beside each other; files a second until all is on disk.
pub fn untar(at: &Path, tar: &Path) -> Result<f64, String> {
    let start = Instant::now();
    for n in 0..3 {
        let dir = at.join(format!("tree{n}"));
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        process::run(Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(&dir), Duration::from_secs(600))?.ok()?;
    }
    process::run(Command::new("sync").arg("-f").arg(at), Duration::from_secs(300))?.ok()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(count(at)? as f64 / seconds)
}

fn count(dir: &Path) -> Result<u64, String> {
    let mut total = 0;
    for entry in fs::read_dir(dir).map_err(failed(dir))?.flatten() {
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        total += if is_dir { count(&entry.path())? } else { 1 };
    }
    Ok(total)
}
