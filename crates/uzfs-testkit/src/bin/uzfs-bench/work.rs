//! The workloads: the same client code for every file system.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long random reads run.
const SPELL: Duration = Duration::from_secs(3);
const PAGE: usize = 4096;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt makes every workload fail, so that its caller cleans up.
pub fn heed_interrupts() -> Result<(), String> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).map_err(|e| e.to_string())
}

/// Fails after an interrupt.
pub fn still_wanted() -> Result<(), String> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}

/// Forgets all clean pages, names and attributes.
pub fn drop_caches() -> Result<(), String> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(|e| format!("drop_caches: {e}"))
}

/// Reads a file from its beginning to its end; megabytes a second.
pub fn sequential(path: &Path, block: usize) -> Result<f64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    read_all(path, &File::open(path).map_err(failed)?, block)
}

/// Reads a file once past the kernel's page cache, so that the server may cache it.
pub fn warm(path: &Path) -> Result<(), String> {
    read_all(path, &open_direct(path)?, 1 << 20).map(drop)
}

fn open_direct(path: &Path) -> Result<File, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map(File::from).map_err(|e| format!("{}: {e}", path.display()))
}

fn read_all(path: &Path, file: &File, block: usize) -> Result<f64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    // Direct reads want aligned memory.
    let mut memory = vec![0; block + PAGE];
    let skip = memory.as_ptr().align_offset(PAGE);
    let buffer = &mut memory[skip..skip + block];
    let (mut at, start) = (0, Instant::now());
    loop {
        still_wanted()?;
        match file.read_at(buffer, at).map_err(failed)? {
            0 => break,
            n => at += n as u64,
        }
    }
    Ok(at as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Reads random pages of a file past the kernel's page cache; reads a second over all jobs.
pub fn random(path: &Path, jobs: u64) -> Result<f64, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    let start = Instant::now();
    let counts: Vec<Result<u64, String>> = thread::scope(|scope| {
        let spawn = |job| scope.spawn(move || random_job(path, size, job));
        let running: Vec<_> = (0..jobs).map(spawn).collect();
        running.into_iter().map(|j| j.join().unwrap_or_else(|_| Err("a job panicked".into()))).collect()
    });
    let total: u64 = counts.into_iter().sum::<Result<u64, String>>()?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

fn random_job(path: &Path, size: u64, job: u64) -> Result<u64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = open_direct(path)?;
    // Direct reads want aligned memory.
    let mut memory = vec![0u8; 2 * PAGE];
    let skip = memory.as_ptr().align_offset(PAGE);
    let page = &mut memory[skip..skip + PAGE];
    let (mut state, mut count) = (0x9e37_79b9_7f4a_7c15 ^ (job + 1), 0);
    let start = Instant::now();
    while start.elapsed() < SPELL {
        still_wanted()?;
        for _ in 0..16 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = state % (size / PAGE as u64) * PAGE as u64;
            file.read_exact_at(page, at).map_err(failed)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Lists a directory; names a second.
pub fn list(dir: &Path) -> Result<f64, String> {
    let start = Instant::now();
    let names = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?.count();
    Ok(names as f64 / start.elapsed().as_secs_f64())
}

/// What a caller of stat wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// What stat(2) gives. The answer to the lookup of the name has all of it.
    Classic,
    /// The time of birth too, for which the kernel asks a second time where the server can tell.
    Birth,
}

/// Stats the files of a directory by name; a second over all jobs.
pub fn stat(dir: &Path, files: u64, jobs: u64, wish: Wish) -> Result<f64, String> {
    let start = Instant::now();
    let done: Vec<Result<(), String>> = thread::scope(|scope| {
        let spawn = |job| scope.spawn(move || stat_job(dir, (job..files).step_by(jobs as usize), wish));
        let running: Vec<_> = (0..jobs).map(spawn).collect();
        running.into_iter().map(|j| j.join().unwrap_or_else(|_| Err("a job panicked".into()))).collect()
    });
    done.into_iter().collect::<Result<(), String>>()?;
    Ok(files as f64 / start.elapsed().as_secs_f64())
}

fn stat_job(dir: &Path, numbers: impl Iterator<Item = u64>, wish: Wish) -> Result<(), String> {
    for n in numbers {
        still_wanted()?;
        let path = dir.join(format!("file-{n:06}"));
        match wish {
            Wish::Classic => rustix::fs::lstat(&path).map(drop).map_err(std::io::Error::from),
            // The standard library asks for the time of birth.
            Wish::Birth => std::fs::symlink_metadata(&path).map(drop),
        }
        .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
