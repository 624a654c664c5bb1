//! `cargo xtask fskit-demo`: the first transcript of the macOS issue, on Linux, through the extension's own code.
//!
//! What stands for what: `fskit-host` for mount(8), `fskitd` and the kernel; the daemon, the protocol and the portable
//! module are those that run on a Mac. The pools were made by OpenZFS's kernel module (`tests/golden`): a mirror, and
//! three disks as raidz with four file systems, which become four mounts of one pool: by mount(8) one by one, and by
//! `zfs mount -a`. A third is made here and rolled back below its mount. Needs root, for FUSE mounts that show every owner.

use crate::{cargo, run, target};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon, its surroundings, and what was started.
struct Stage {
    home: PathBuf,
    programs: PathBuf,
    daemon: Child,
    mounts: Vec<(PathBuf, Child)>,
}

/// Runs the demonstration.
pub fn run_demo(root: &Path) -> Result<(), String> {
    run(root, &cargo(), &["build", "--quiet", "-p", "uzfsd", "-p", "uzfs-cli", "-p", "uzfs-testkit", "--bins"])?;
    let home = std::env::temp_dir().join(format!("uzfs-demo-{}", std::process::id()));
    let failed = |e: std::io::Error| format!("{}: {e}", home.display());
    fs::create_dir_all(home.join("Volumes")).map_err(failed)?;
    let programs = target(root).join("debug");
    let daemon = Command::new(programs.join("uzfsd"))
        .args(["--socket", &home.join("s").to_string_lossy()])
        .spawn()
        .map_err(|e| format!("uzfsd: {e}"))?;
    let mut stage = Stage { home, programs, daemon, mounts: Vec::new() };
    wait_for("the daemon", || stage.home.join("s").exists())?;
    let played = play(root, &mut stage);
    let ended = stage.end();
    played.and(ended)
}

fn play(root: &Path, stage: &mut Stage) -> Result<(), String> {
    for pool in ["tank", "trio"] {
        let archive = root.join(format!("tests/golden/{pool}.tar.zst"));
        let unpack = format!("zstd -dcq --long=27 '{}' | tar -S -x", archive.display());
        stage.quiet("sh", &["-c", &unpack])?;
    }
    println!("# A pool that OpenZFS made, by one of its devices. The daemon finds the other.");
    stage.show("zpool", &["import", "-o", "readonly=on", "-N", "-d", "tank", "tank"])?;
    stage.mount("tank/d0", "tank")?;
    stage.look("tank")?;
    stage.unmount_all()?;
    stage.show("zpool", &["export", "tank"])?;

    println!("\n# Three disks as raidz, one of them missing, four file systems: four mounts of one pool.");
    fs::remove_file(stage.home.join("trio/d1")).map_err(|e| e.to_string())?;
    stage.show("zpool", &["import", "-o", "readonly=on", "-N", "-d", "trio", "trio"])?;
    stage.show("zpool", &["status", "-x", "trio"])?;
    for dataset in ["trio", "trio/home", "trio/photos", "trio/music"] {
        stage.mount(dataset, dataset)?;
    }
    stage.look("trio")?;
    stage.show("cat", &["Volumes/trio/home/readme.txt", "Volumes/trio/home/later.txt"])?;
    stage.show("cat", &["Volumes/trio/home/.zfs/snapshot/monday/readme.txt"])?;
    stage.show("cmp", &["Volumes/trio/photos/sub/data", "Volumes/trio/photos/copy"])?;
    stage.show("ls", &["-la", "Volumes/trio/music/sub"])?;
    stage.show("df", &["Volumes/trio", "Volumes/trio/home", "Volumes/trio/photos", "Volumes/trio/music"])?;
    println!("$ zpool export trio        # while it is mounted");
    let refused = stage.command("zpool", &["export", "trio"]).output().map_err(|e| e.to_string())?;
    print!("{}", String::from_utf8_lossy(&refused.stderr));
    if refused.status.success() {
        return Err("a pool that is mounted was exported".into());
    }
    stage.unmount_all()?;
    stage.show("zpool", &["export", "trio"])?;
    by_the_tools(stage)
}

/// The same by `zfs mount`, which calls mount(8) with tickets, and a rollback below a mount.
fn by_the_tools(stage: &Stage) -> Result<(), String> {
    println!("\n# The four again, by zfs mount -a, which calls mount -F -t zfs TICKET DIR for each.");
    stage.quiet("sh", &["-c", "mkdir -p Volumes/all"])?;
    let volumes = stage.home.join("Volumes/all").to_string_lossy().into_owned();
    stage.quiet("zpool", &["import", "-o", "readonly=on", "-N", "-d", "trio", "-R", &volumes, "trio"])?;
    stage.show("zfs", &["mount", "-a"])?;
    stage.show("zfs", &["mount"])?;
    let mounts = stage.points().len();
    if mounts != 4 {
        return Err(format!("{mounts} mounts"));
    }
    stage.show("cat", &["Volumes/all/trio/file.txt"])?;
    stage.show("zfs", &["unmount", "-a"])?;
    stage.show("zpool", &["export", "trio"])?;

    println!("\n# A pool that is made here, and a rollback below its mount.");
    stage.quiet("sh", &["-c", "truncate -s 128M disk1 disk2 disk3"])?;
    let disks = ["disk1", "disk2", "disk3"].map(|d| stage.home.join(d).to_string_lossy().into_owned());
    let create = ["create", "-R", &volumes, "mine", "raidz", &disks[0], &disks[1], &disks[2]];
    stage.quiet("zpool", &create)?;
    stage.show("sh", &["-c", "echo before > Volumes/all/mine/file.txt"])?;
    stage.show("zfs", &["snapshot", "mine@one"])?;
    stage.show("sh", &["-c", "echo something else, after the snapshot > Volumes/all/mine/file.txt"])?;
    stage.show("cat", &["Volumes/all/mine/file.txt"])?;
    stage.show("zfs", &["rollback", "mine@one"])?;
    let file = stage.home.join("Volumes/all/mine/file.txt");
    wait_for("the notice", || fs::read_to_string(&file).is_ok_and(|t| t == "before\n"))?;
    stage.show("cat", &["Volumes/all/mine/file.txt"])?;
    stage.show("zpool", &["export", "mine"])?;
    if stage.points().is_empty() { Ok(()) } else { Err("something stays mounted".into()) }
}

fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    while !done() {
        if Instant::now() > end {
            return Err(format!("{what} did not come"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Stage {
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let own = self.programs.join(program);
        let mut command = Command::new(if own.is_file() { own } else { PathBuf::from(program) });
        command
            .args(args)
            .current_dir(&self.home)
            .env("UZFS_SOCKET", self.home.join("s"))
            .env("UZFS_NO_AUTOSTART", "1")
            .env("UZFS_MOUNT", self.programs.join("fskit-mount"));
        command
    }

    /// Mounts below the stage.
    fn points(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|p| p.starts_with(&self.home)).collect()
    }

    fn quiet(&self, program: &str, args: &[&str]) -> Result<(), String> {
        let status = self.command(program, args).status().map_err(|e| format!("{program}: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("{program} {}: {status}", args.join(" "))) }
    }

    /// Prints a command and what it says.
    fn show(&self, program: &str, args: &[&str]) -> Result<(), String> {
        println!("$ {program} {}", args.join(" "));
        self.quiet(program, args)
    }

    /// Mounts as `mount -F -t zfs` does.
    fn mount(&mut self, resource: &str, at: &str) -> Result<(), String> {
        let point = self.home.join("Volumes").join(at);
        if !point.is_dir() {
            println!("$ mkdir Volumes/{at}");
            fs::create_dir_all(&point).map_err(|e| format!("{}: {e}", point.display()))?;
        }
        println!("$ mount -F -t zfs {resource} Volumes/{at}");
        let mut command = self.command("fskit-host", &["-F", "-t", "zfs", resource]);
        let mut child = command.arg(&point).stdin(Stdio::piped()).spawn().map_err(|e| format!("fskit-host: {e}"))?;
        let end = Instant::now() + LIMIT;
        while !mounted(&point) {
            if child.try_wait().is_ok_and(|s| s.is_some()) || Instant::now() > end {
                return Err(format!("{resource} was not mounted"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.mounts.push((point, child));
        // What it prints is on the same terminal.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// The commands of the transcript, and that they show what they must.
    fn look(&self, at: &str) -> Result<(), String> {
        self.show("ls", &["-la", &format!("Volumes/{at}")])?;
        let file = format!("Volumes/{at}/file.txt");
        self.show("cat", &[&file])?;
        match fs::read_to_string(self.home.join(&file)) {
            Ok(text) if text == "HelloWorld\n" => Ok(()),
            other => Err(format!("{file} says {other:?}")),
        }
    }

    fn unmount_all(&mut self) -> Result<(), String> {
        while let Some((point, mut child)) = self.mounts.pop() {
            let shown = point.strip_prefix(&self.home).unwrap_or(&point).display().to_string();
            self.show("umount", &[&shown])?;
            let status = child.wait().map_err(|e| e.to_string())?;
            if !status.success() {
                return Err(format!("{shown}: a rule of FSKit was broken: {status}"));
            }
        }
        Ok(())
    }

    /// Ends everything, whatever happened before.
    fn end(mut self) -> Result<(), String> {
        while let Some((_, mut child)) = self.mounts.pop() {
            // It unmounts when its input ends.
            drop(child.stdin.take());
            let _ = child.wait();
        }
        let id = self.daemon.id().to_string();
        let _ = Command::new("kill").arg(&id).status();
        let ended = self.daemon.wait().map_err(|e| e.to_string())?;
        for point in self.points().iter().rev() {
            // Only after a failure is something left.
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
        // Never through a mount.
        if self.points().is_empty() {
            let _ = fs::remove_dir_all(&self.home);
        }
        if ended.success() { Ok(()) } else { Err(format!("uzfsd: {ended}")) }
    }
}

fn mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|l| l.split(' ').nth(4).is_some_and(|p| Path::new(p) == point))
}
