//! The three file systems and the pools they serve.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::session::Session;
use uzfs_testkit::{paths, process};

/// Name of the pool with data.
pub const POOL: &str = "bench";
/// Name of the pool with many datasets.
const MANY: &str = "many";
/// Where the pool says it wants to be mounted.
const POINT: &str = "/tmp/uzfs-bench";
const LIMIT: Duration = Duration::from_secs(600);

/// The pools, and the programs of zfs-fuse, made once.
pub struct Setup {
    dir: PathBuf,
    bytes: u64,
    files: u64,
    datasets: u64,
}

impl Setup {
    /// Unpacks zfs-fuse and makes the pools with it, if that has not been done.
    pub fn prepare(small: bool) -> Result<Self, String> {
        let (bytes, files, datasets) = if small { (64 << 20, 5000, 50) } else { (1 << 30, 100_000, 1000) };
        let dir = paths::repository().join(if small { "target/bench-small" } else { "target/bench" });
        let setup = Self { dir, bytes, files, datasets };
        fs::create_dir_all(setup.pool_dir()).map_err(|e| e.to_string())?;
        fs::create_dir_all(setup.many_dir()).map_err(|e| e.to_string())?;
        let programs = setup.dir.join("zfs-fuse");
        if !programs.join("sbin/zfs-fuse").is_file() {
            eprintln!("fetching zfs-fuse 0.7");
            for package in ["zfs-fuse", "libfuse2", "libaio1", "libtirpc3"] {
                let script = paths::repository().join("scripts/fetch-deb");
                process::run(Command::new(script).args([package, "main"]).arg(&programs), LIMIT)?.ok()?;
            }
        }
        if !setup.dir.join("ready").is_file() {
            setup.fill()?;
            fs::write(setup.dir.join("ready"), "").map_err(|e| e.to_string())?;
        }
        Ok(setup)
    }

    /// Folder of the pool with data.
    pub fn pool_dir(&self) -> PathBuf {
        self.dir.join("pool")
    }

    fn many_dir(&self) -> PathBuf {
        self.dir.join("many")
    }

    /// A program of zfs-fuse.
    fn command(&self, name: &str) -> Command {
        let home = self.dir.join("zfs-fuse");
        let mut command = Command::new(home.join("sbin").join(name));
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];
        let path: Vec<String> = libraries.iter().map(|l| home.join(l).display().to_string()).collect();
        command.env("LD_LIBRARY_PATH", path.join(":"));
        command
    }

    fn ok(&self, program: &str, args: &[&str]) -> Result<(), String> {
        process::run(self.command(program).args(args), LIMIT)?.ok().map(drop)
    }

    /// Makes both pools. Data is random, so that no compression flatters anybody.
    fn fill(&self) -> Result<(), String> {
        eprintln!("making the pools with zfs-fuse (some minutes, once)");
        let server = ZfsFuse::start(self)?;
        for (dir, size) in [(self.pool_dir(), self.bytes * 2 + (512 << 20)), (self.many_dir(), 512 << 20)] {
            let image = fs::File::create(dir.join("d0")).map_err(|e| e.to_string())?;
            image.set_len(size).map_err(|e| e.to_string())?;
        }
        let image = self.pool_dir().join("d0");
        self.ok("zpool", &["create", "-f", "-m", POINT, POOL, &image.to_string_lossy()])?;
        let copied = Command::new("head")
            .arg("-c")
            .arg(self.bytes.to_string())
            .arg("/dev/urandom")
            .stdout(fs::File::create(format!("{POINT}/big")).map_err(|e| e.to_string())?)
            .status();
        if !copied.map_err(|e| e.to_string())?.success() {
            return Err("cannot fill the pool".into());
        }
        let wide = Path::new(POINT).join("wide");
        fs::create_dir(&wide).map_err(|e| e.to_string())?;
        for n in 0..self.files {
            fs::File::create(wide.join(format!("file-{n:06}"))).map_err(|e| e.to_string())?;
        }
        self.ok("zpool", &["export", POOL])?;
        let image = self.many_dir().join("d0");
        self.ok("zpool", &["create", "-f", "-m", "none", MANY, &image.to_string_lossy()])?;
        for n in 0..self.datasets {
            self.ok("zfs", &["create", &format!("{MANY}/dataset-{n:04}")])?;
        }
        self.ok("zpool", &["export", MANY])?;
        server.stop()
    }
}

/// A file system to measure.
pub trait Peer {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Makes its own caches cold.
    fn renew(&mut self) -> Result<(), String>;
    /// Where the files `big` and `wide/` are.
    fn mounted(&self) -> PathBuf;
    /// Files in `wide`.
    fn files(&self) -> u64;
    /// Seconds to import the pool with many datasets, where there are pools.
    fn import_many(&mut self) -> Result<Option<f64>, String>;
    /// Unmounts and stops.
    fn end(&mut self) -> Result<(), String>;
}

/// zfs-fuse 0.7, as Debian ships it.
pub struct ZfsFuse<'a> {
    setup: &'a Setup,
    server: Option<Server>,
    imported: bool,
}

/// A server program that is ended by its process id.
struct Server(Child);

impl Server {
    fn stop(mut self) -> Result<(), String> {
        terminate(&self.0);
        match process::wait(&mut self.0, Duration::from_secs(20)) {
            Some(_) => Ok(()),
            None => self.0.kill().and_then(|()| self.0.wait()).map(drop).map_err(|e| e.to_string()),
        }
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

impl<'a> ZfsFuse<'a> {
    pub fn new(setup: &'a Setup) -> Result<Self, String> {
        Ok(Self { setup, server: Some(Self::start(setup)?), imported: false })
    }

    fn start(setup: &Setup) -> Result<Server, String> {
        fs::create_dir_all("/var/run/zfs").map_err(|e| e.to_string())?;
        fs::create_dir_all(POINT).map_err(|e| e.to_string())?;
        let mut command = setup.command("zfs-fuse");
        command.arg("-n").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(command.spawn().map_err(|e| format!("cannot run zfs-fuse: {e}"))?);
        let deadline = Instant::now() + Duration::from_secs(20);
        while setup.ok("zpool", &["list"]).is_err() {
            if Instant::now() > deadline {
                server.stop()?;
                return Err("zfs-fuse does not answer".into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    fn export(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.imported) {
            self.setup.ok("zpool", &["export", POOL])?;
        }
        Ok(())
    }
}

impl Peer for ZfsFuse<'_> {
    fn name(&self) -> &'static str {
        "zfs-fuse 0.7"
    }

    fn renew(&mut self) -> Result<(), String> {
        self.export()?;
        self.setup.ok("zpool", &["import", "-d", &self.setup.pool_dir().to_string_lossy(), POOL])?;
        self.imported = true;
        Ok(())
    }

    fn mounted(&self) -> PathBuf {
        PathBuf::from(POINT)
    }

    fn files(&self) -> u64 {
        self.setup.files
    }

    fn import_many(&mut self) -> Result<Option<f64>, String> {
        let start = Instant::now();
        self.setup.ok("zpool", &["import", "-d", &self.setup.many_dir().to_string_lossy(), MANY])?;
        let seconds = start.elapsed().as_secs_f64();
        self.setup.ok("zpool", &["export", MANY])?;
        Ok(Some(seconds))
    }

    fn end(&mut self) -> Result<(), String> {
        self.export()?;
        self.server.take().map_or(Ok(()), Server::stop)
    }
}

impl Drop for ZfsFuse<'_> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// uzfs.
pub struct UzfsPeer<'a> {
    setup: &'a Setup,
    session: Option<Session>,
    imported: bool,
}

impl<'a> UzfsPeer<'a> {
    pub fn new(setup: &'a Setup) -> Result<Self, String> {
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

impl Peer for UzfsPeer<'_> {
    fn name(&self) -> &'static str {
        "uzfs"
    }

    fn renew(&mut self) -> Result<(), String> {
        self.export()?;
        self.session()?.import(POOL, &self.setup.pool_dir(), &[])?;
        self.imported = true;
        self.session()?.ok("zfs", &["mount", "-a"]).map(drop)
    }

    fn mounted(&self) -> PathBuf {
        self.session.as_ref().map_or_else(PathBuf::new, |s| PathBuf::from(format!("{}{POINT}", s.root().display())))
    }

    fn files(&self) -> u64 {
        self.setup.files
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
        self.export()?;
        self.session.take().map_or(Ok(()), Session::finish)
    }
}

/// The ceiling: a file system in memory.
pub struct Memfs<'a> {
    setup: &'a Setup,
    point: PathBuf,
    server: Option<Server>,
}

impl<'a> Memfs<'a> {
    pub fn new(setup: &'a Setup) -> Result<Self, String> {
        let point = setup.dir.join("memfs");
        fs::create_dir_all(&point).map_err(|e| e.to_string())?;
        let mut command = Command::new(paths::program("memfs"));
        command.arg(&point).arg(setup.bytes.to_string()).arg(setup.files.to_string());
        let server = Server(command.spawn().map_err(|e| format!("cannot run memfs: {e}"))?);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !point.join("big").is_file() {
            if Instant::now() > deadline {
                server.stop()?;
                return Err("memfs is not mounted".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { setup, point, server: Some(server) })
    }
}

impl Peer for Memfs<'_> {
    fn name(&self) -> &'static str {
        "an in-memory file system"
    }

    fn renew(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn mounted(&self) -> PathBuf {
        self.point.clone()
    }

    fn files(&self) -> u64 {
        self.setup.files
    }

    fn import_many(&mut self) -> Result<Option<f64>, String> {
        Ok(None)
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH).map_err(|e| e.to_string())?;
        match process::wait(&mut server.0, Duration::from_secs(10)) {
            Some(_) => Ok(()),
            None => server.stop(),
        }
    }
}

impl Drop for Memfs<'_> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
