//! The three file systems.

use crate::server::{self, Server};
use crate::setup::{MANY, POINT, POOL, Setup, WRITTEN};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::paths;
use uzfs_testkit::session::Session;

/// Read-ahead that uzfs gives its mounts, KiB; the ceiling gets the same.
const READ_AHEAD_KIB: u32 = 2048;
/// How long a server may take to serve.
const START: Duration = Duration::from_secs(60);

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// zfs-fuse 0.7, as Debian ships it.
    ZfsFuse,
    /// uzfs.
    Uzfs,
    /// A FUSE file system in memory: the ceiling.
    Memory,
}

impl Kind {
    /// In the order of the table's columns.
    pub const ALL: [Kind; 3] = [Kind::ZfsFuse, Kind::Uzfs, Kind::Memory];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ZfsFuse => "zfs-fuse",
            Kind::Uzfs => "uzfs",
            Kind::Memory => "memory",
        }
    }

    /// Why it cannot be measured here, if so.
    pub fn absent(self, setup: &Setup) -> Option<String> {
        let program = |name: &str| {
            let path = paths::program(name);
            (!path.is_file()).then(|| format!("{} is not built", path.display()))
        };
        let pools = || (!setup.has_pools()).then(|| "the pools are not there: zfs-fuse makes them".to_owned());
        match self {
            Kind::ZfsFuse if !setup.has_zfs_fuse() => Some("zfs-fuse 0.7 is not there".into()),
            Kind::ZfsFuse => pools(),
            Kind::Uzfs => program("uzfsd").or_else(pools),
            Kind::Memory => program("memfs"),
        }
    }

    /// Starts its server.
    pub fn start(self, setup: &Setup) -> Result<Box<dyn Peer + '_>, String> {
        Ok(match self {
            Kind::ZfsFuse => Box::new(ZfsFuse::new(setup)?),
            Kind::Uzfs => Box::new(Uzfs::new(setup)?),
            Kind::Memory => Box::new(Memory::new(setup)?),
        })
    }
}

/// A file system to measure. Dropping it unmounts and ends its server.
pub trait Peer {
    /// Makes its own caches cold.
    fn renew(&mut self) -> Result<(), String>;
    /// Where the files `big` and `wide/` are.
    fn mounted(&self) -> PathBuf;
    /// Seconds to import the pool with many datasets, where there are pools.
    fn import_many(&mut self) -> Result<Option<f64>, String>;
    /// Unmounts and stops in order.
    fn end(&mut self) -> Result<(), String>;
}

/// zfs-fuse: imports read-write (its only way), as its tool does, mounting what says so.
pub struct ZfsFuse<'a> {
    setup: &'a Setup,
    server: Option<Server>,
    imported: bool,
}

impl<'a> ZfsFuse<'a> {
    fn new(setup: &'a Setup) -> Result<Self, String> {
        Ok(Self { setup, server: Some(Self::start(setup)?), imported: false })
    }

    /// Starts the server and waits until it answers.
    pub fn start(setup: &Setup) -> Result<Server, String> {
        fs::create_dir_all("/var/run/zfs").map_err(|e| e.to_string())?;
        fs::create_dir_all(POINT).map_err(|e| e.to_string())?;
        let mut command = setup.command("zfs-fuse");
        command.arg("-n").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server::start(&mut command, Path::new(POINT))?;
        let deadline = Instant::now() + START;
        while setup.ok("zpool", &["list"]).is_err() {
            if server.is_gone() || Instant::now() > deadline {
                return Err("zfs-fuse does not answer".into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        // It opens by itself what an earlier run left imported.
        for pool in [POOL, MANY, WRITTEN] {
            let _ = setup.ok("zpool", &["export", pool]);
        }
        Ok(server)
    }

    fn export(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.imported) {
            // It hears of the last closing of a file a little later, and is busy until then.
            let deadline = Instant::now() + START;
            while let Err(why) = self.setup.ok("zpool", &["export", POOL]) {
                if Instant::now() > deadline {
                    return Err(why);
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }
}

impl Peer for ZfsFuse<'_> {
    fn renew(&mut self) -> Result<(), String> {
        self.export()?;
        self.imported = true;
        self.setup.ok("zpool", &["import", "-f", "-d", &self.setup.pool_dir().to_string_lossy(), POOL])
    }

    fn mounted(&self) -> PathBuf {
        PathBuf::from(POINT)
    }

    fn import_many(&mut self) -> Result<Option<f64>, String> {
        let start = Instant::now();
        self.setup.ok("zpool", &["import", "-f", "-d", &self.setup.many_dir().to_string_lossy(), MANY])?;
        let seconds = start.elapsed().as_secs_f64();
        self.setup.ok("zpool", &["export", MANY])?;
        Ok(Some(seconds))
    }

    fn end(&mut self) -> Result<(), String> {
        let exported = self.export();
        self.server = None;
        exported
    }
}

impl Drop for ZfsFuse<'_> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// uzfs: imports read-only.
struct Uzfs<'a> {
    setup: &'a Setup,
    session: Option<Session>,
    imported: bool,
}

impl<'a> Uzfs<'a> {
    fn new(setup: &'a Setup) -> Result<Self, String> {
        Ok(Self { setup, session: Some(Session::start()?), imported: false })
    }

    fn session(&self) -> Result<&Session, String> {
        self.session.as_ref().ok_or_else(|| "the daemon has ended".to_owned())
    }

    fn export(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.imported) {
            self.session()?.ok("zpool", &["export", POOL])?;
        }
        Ok(())
    }
}

impl Peer for Uzfs<'_> {
    fn renew(&mut self) -> Result<(), String> {
        self.export()?;
        self.session()?.import(POOL, &self.setup.pool_dir(), &[])?;
        self.imported = true;
        self.session()?.ok("zfs", &["mount", "-a"]).map(drop)
    }

    fn mounted(&self) -> PathBuf {
        self.session.as_ref().map_or_else(PathBuf::new, |s| PathBuf::from(format!("{}{POINT}", s.root().display())))
    }

    fn import_many(&mut self) -> Result<Option<f64>, String> {
        let start = Instant::now();
        let dir = self.setup.many_dir();
        self.session()?.ok("zpool", &["import", "-o", "readonly=on", "-d", &dir.to_string_lossy(), MANY])?;
        let seconds = start.elapsed().as_secs_f64();
        self.session()?.ok("zpool", &["export", MANY])?;
        Ok(Some(seconds))
    }

    fn end(&mut self) -> Result<(), String> {
        let exported = self.export();
        // Dropping a session unmounts and ends the daemon; finishing it also complains of leftovers.
        exported.and_then(|()| self.session.take().map_or(Ok(()), Session::finish))
    }
}

/// The ceiling: a file system in memory.
struct Memory {
    point: PathBuf,
    server: Option<Server>,
}

impl Memory {
    fn new(setup: &Setup) -> Result<Self, String> {
        let point = setup.dir.join("memfs");
        fs::create_dir_all(&point).map_err(|e| e.to_string())?;
        let mut command = Command::new(paths::program("memfs"));
        command.arg(&point).arg(setup.bytes.to_string()).arg(setup.files.to_string()).stdin(Stdio::null());
        let mut server = Server::start(&mut command, &point)?;
        let deadline = Instant::now() + START;
        while !point.join("big").is_file() {
            if server.is_gone() || Instant::now() > deadline {
                return Err("memfs is not mounted".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        server::raise_read_ahead(&point, READ_AHEAD_KIB);
        Ok(Self { point, server: Some(server) })
    }
}

impl Peer for Memory {
    fn renew(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn mounted(&self) -> PathBuf {
        self.point.clone()
    }

    fn import_many(&mut self) -> Result<Option<f64>, String> {
        Ok(None)
    }

    fn end(&mut self) -> Result<(), String> {
        self.server = None;
        Ok(())
    }
}
