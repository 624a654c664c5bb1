//! Where is written to. Everything lies over image files in one folder, and is taken away again.

use crate::peers::ZfsFuse;
use crate::server::{self, Server};
use crate::setup::{POINT, Setup, WRITTEN as POOL};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::session::Session;
use uzfs_testkit::{paths, process};

const LIMIT: Duration = Duration::from_secs(300);

/// A file system and how it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    UzfsOff,
    UzfsLz4,
    UzfsZstd,
    UzfsMirror,
    UzfsRaidz1,
    UzfsRaidz2,
    ZfsFuse,
    Ext4,
    Btrfs,
    Memory,
}

impl Kind {
    /// In the order of the table's columns.
    pub const ALL: [Self; 10] = [
        Self::UzfsOff,
        Self::UzfsLz4,
        Self::UzfsZstd,
        Self::UzfsMirror,
        Self::UzfsRaidz1,
        Self::UzfsRaidz2,
        Self::ZfsFuse,
        Self::Ext4,
        Self::Btrfs,
        Self::Memory,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::UzfsOff => "uzfs-off",
            Self::UzfsLz4 => "uzfs-lz4",
            Self::UzfsZstd => "uzfs-zstd",
            Self::UzfsMirror => "uzfs-mirror",
            Self::UzfsRaidz1 => "uzfs-raidz1",
            Self::UzfsRaidz2 => "uzfs-raidz2",
            Self::ZfsFuse => "zfs-fuse",
            Self::Ext4 => "ext4",
            Self::Btrfs => "btrfs",
            Self::Memory => "memory",
        }
    }

    /// Makes it; an error is a reason to leave it out.
    pub fn open(self, setup: &Setup) -> Result<Place, String> {
        let size = setup.bytes * 2 + (2 << 30);
        match self {
            Self::UzfsOff => uzfs(setup, &[], 1, "off", None, size),
            Self::UzfsLz4 => uzfs(setup, &[], 1, "lz4", None, size),
            Self::UzfsZstd => uzfs(setup, &[], 1, "zstd", None, size),
            Self::UzfsMirror => uzfs(setup, &["mirror"], 2, "lz4", None, size),
            Self::UzfsRaidz1 => uzfs(setup, &["raidz1"], 3, "lz4", None, size),
            Self::UzfsRaidz2 => uzfs(setup, &["raidz2"], 5, "lz4", None, size),
            Self::ZfsFuse => zfs_fuse(setup, size),
            Self::Ext4 => kernel(setup, "ext4", &["-q", "-F"], size),
            Self::Btrfs => {
                setup.fetch_btrfs()?;
                kernel(setup, "btrfs", &["-q", "-f"], size)
            }
            Self::Memory => memory(setup),
        }
    }
}

/// A mounted file system.
pub struct Place {
    at: PathBuf,
    images: PathBuf,
    held: Held,
}

enum Held {
    Uzfs(Session),
    ZfsFuse(Server),
    Memory(Server),
    Kernel,
}

fn images(setup: &Setup, count: usize, size: u64) -> Result<(PathBuf, Vec<String>), String> {
    let dir = setup.dir.join("written");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let make = |n| {
        let path = dir.join(format!("d{n}"));
        File::create(&path).and_then(|f| f.set_len(size)).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(path.to_string_lossy().into_owned())
    };
    let all = (0..count).map(make).collect::<Result<_, _>>()?;
    Ok((dir, all))
}

fn uzfs(
    setup: &Setup,
    words: &[&str],
    disks: usize,
    compression: &str,
    arc: Option<&str>,
    size: u64,
) -> Result<Place, String> {
    let (dir, all) = images(setup, disks, size)?;
    let session = match arc {
        Some(max) => Session::start_with(&["--arc-max", max])?,
        None => Session::start()?,
    };
    let root = session.root().to_string_lossy().into_owned();
    let compression = format!("compression={compression}");
    let mut args = vec!["create", "-f", "-R", &root, "-O", &compression, POOL];
    args.extend(words);
    args.extend(all.iter().map(String::as_str));
    session.ok("zpool", &args)?;
    Ok(Place { at: session.root().join(POOL), images: dir, held: Held::Uzfs(session) })
}

/// uzfs on one device, with a bound on its cache.
pub fn uzfs_with_memory(setup: &Setup, arc: &str, size: u64) -> Result<Place, String> {
    uzfs(setup, &[], 1, "off", Some(arc), size)
}

fn zfs_fuse(setup: &Setup, size: u64) -> Result<Place, String> {
    if !setup.has_zfs_fuse() {
        return Err("zfs-fuse 0.7 is not there".into());
    }
    let (dir, all) = images(setup, 1, size)?;
    let server = ZfsFuse::start(setup)?;
    setup.ok("zpool", &["create", "-f", "-m", POINT, POOL, &all[0]])?;
    Ok(Place { at: PathBuf::from(POINT), images: dir, held: Held::ZfsFuse(server) })
}

/// The ceiling: a FUSE file system in memory.
fn memory(setup: &Setup) -> Result<Place, String> {
    let (dir, _) = images(setup, 0, 0)?;
    let at = dir.join("mnt");
    fs::create_dir_all(&at).map_err(|e| e.to_string())?;
    let server = Server::start(Command::new(paths::program("memfs-write")).arg(&at).stdin(Stdio::null()), &at)?;
    let deadline = Instant::now() + LIMIT;
    while !server::mounts_below(&at).contains(&at) {
        if Instant::now() > deadline {
            return Err("memfs-write is not mounted".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(Place { at, images: dir, held: Held::Memory(server) })
}

fn kernel(setup: &Setup, kind: &str, args: &[&str], size: u64) -> Result<Place, String> {
    let (dir, all) = images(setup, 1, size)?;
    setup.ok(&format!("mkfs.{kind}"), &[args, &[all[0].as_str()]].concat())?;
    let at = dir.join("mnt");
    fs::create_dir_all(&at).map_err(|e| e.to_string())?;
    process::run(Command::new("mount").args(["-o", "loop"]).arg(&all[0]).arg(&at), LIMIT)?.ok()?;
    Ok(Place { at, images: dir, held: Held::Kernel })
}

impl Place {
    /// Where it is mounted.
    pub fn at(&self) -> PathBuf {
        self.at.clone()
    }

    /// Most memory its server ever had, KiB.
    pub fn peak_kib(&self) -> Result<u64, String> {
        let Held::Uzfs(session) = &self.held else { return Err("no server of uzfs".into()) };
        let id = session.daemon_id().ok_or("the daemon has ended")?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).map_err(|e| e.to_string())?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).ok_or_else(|| "no VmHWM".into())
    }

    /// Takes it away.
    pub fn end(self) -> Result<(), String> {
        match self.held {
            Held::Uzfs(session) => {
                session.ok("zpool", &["export", POOL])?;
                session.finish()?;
            }
            Held::ZfsFuse(server) | Held::Memory(server) => drop(server),
            Held::Kernel => unmount(&self.at)?,
        }
        fs::remove_dir_all(&self.images).map_err(|e| e.to_string())
    }
}

fn unmount(at: &Path) -> Result<(), String> {
    process::run(Command::new("umount").arg(at), LIMIT)?.ok().map(drop)
}
