//! The pools that are read, and the programs of zfs-fuse that make them.

use crate::peers::ZfsFuse;
use crate::server;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use uzfs_testkit::{paths, process};

/// Name of the pool with data.
pub const POOL: &str = "bench";
/// Name of the pool with many datasets.
pub const MANY: &str = "many";
/// Name of the pool that is written.
pub const WRITTEN: &str = "benchw";
/// Where the pool says it wants to be mounted.
pub const POINT: &str = "/tmp/uzfs-bench";
const LIMIT: Duration = Duration::from_secs(900);

/// The pools, and the programs of zfs-fuse, made once.
pub struct Setup {
    /// Where they are.
    pub dir: PathBuf,
    /// Size of the file `big`.
    pub bytes: u64,
    /// Files in the directory `wide`.
    pub files: u64,
    datasets: u64,
}

impl Setup {
    /// Unpacks zfs-fuse and makes the pools with it, if that has not been done. What is missing shows in
    /// [`Setup::has_zfs_fuse`] and [`Setup::has_pools`].
    pub fn prepare(small: bool) -> Result<Self, String> {
        if let Some(id) = server::running("zfs-fuse") {
            return Err(format!("another zfs-fuse runs already (process {id}); its pools shall not be disturbed"));
        }
        if !server::mounts_below(Path::new(POINT)).is_empty() {
            return Err(format!("something is mounted at {POINT} already"));
        }
        let (bytes, files, datasets) = if small { (64 << 20, 5000, 50) } else { (1 << 30, 100_000, 1000) };
        let dir = paths::repository().join(if small { "target/bench-small" } else { "target/bench" });
        let setup = Self { dir, bytes, files, datasets };
        fs::create_dir_all(setup.pool_dir()).map_err(|e| e.to_string())?;
        fs::create_dir_all(setup.many_dir()).map_err(|e| e.to_string())?;
        if !setup.has_zfs_fuse() {
            setup.fetch().unwrap_or_else(|why| eprintln!("zfs-fuse cannot be had: {why}"));
        }
        if setup.has_zfs_fuse() && !setup.has_pools() {
            setup.fill()?;
            fs::write(setup.dir.join("ready"), "").map_err(|e| e.to_string())?;
        }
        Ok(setup)
    }

    fn fetch(&self) -> Result<(), String> {
        eprintln!("fetching zfs-fuse 0.7");
        self.unpack(&["libfuse2", "libaio1", "libtirpc3", "zfs-fuse"])
    }

    /// Unpacks the program that makes a btrfs, beside those of zfs-fuse, where the system has none.
    pub fn fetch_btrfs(&self) -> Result<(), String> {
        let has = |dir: &Path| dir.join("mkfs.btrfs").is_file();
        let mut places = [self.programs().join("sbin"), "/sbin".into(), "/usr/sbin".into()].into_iter();
        if places.any(|dir| has(&dir)) { Ok(()) } else { self.unpack(&["btrfs-progs", "liblzo2-2"]) }
    }

    fn unpack(&self, packages: &[&str]) -> Result<(), String> {
        for package in packages {
            let script = paths::repository().join("scripts/fetch-deb");
            process::run(Command::new(script).args([package, "main"]).arg(self.programs()), LIMIT)?.ok()?;
        }
        Ok(())
    }

    fn programs(&self) -> PathBuf {
        self.dir.join("zfs-fuse")
    }

    /// Whether zfs-fuse's programs are there.
    pub fn has_zfs_fuse(&self) -> bool {
        self.programs().join("sbin/zfs-fuse").is_file()
    }

    /// Whether the pools are there.
    pub fn has_pools(&self) -> bool {
        self.dir.join("ready").is_file()
    }

    /// Folder of the pool with data.
    pub fn pool_dir(&self) -> PathBuf {
        self.dir.join("pool")
    }

    /// Folder of the pool with many datasets.
    pub fn many_dir(&self) -> PathBuf {
        self.dir.join("many")
    }

    /// A program that was unpacked, or the system's own.
    pub fn command(&self, name: &str) -> Command {
        let home = self.programs();
        let unpacked = home.join("sbin").join(name);
        if !unpacked.is_file() {
            return Command::new(name);
        }
        let mut command = Command::new(unpacked);
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];
        let path: Vec<String> = libraries.iter().map(|l| home.join(l).display().to_string()).collect();
        command.env("LD_LIBRARY_PATH", path.join(":"));
        command
    }

    /// Runs such a program, which must succeed.
    pub fn ok(&self, program: &str, args: &[&str]) -> Result<(), String> {
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
            crate::work::still_wanted()?;
        }
        self.ok("zpool", &["export", POOL])?;
        let image = self.many_dir().join("d0");
        self.ok("zpool", &["create", "-f", "-m", "none", MANY, &image.to_string_lossy()])?;
        for n in 0..self.datasets {
            self.ok("zfs", &["create", &format!("{MANY}/dataset-{n:04}")])?;
            crate::work::still_wanted()?;
        }
        self.ok("zpool", &["export", MANY])?;
        drop(server);
        Ok(())
    }
}
