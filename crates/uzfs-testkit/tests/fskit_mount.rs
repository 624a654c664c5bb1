//! `zfs mount` and what mounts by itself, the way macOS does it: tickets of the daemon, `mount -F -t zfs TICKET DIR`, a
//! mount agent for root, and rollbacks below mounts. `fskit-mount` stands for `/sbin/mount`, `fskit-host` for FSKit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use uzfs_testkit::corpus::{self, POOLS, Spec};
use uzfs_testkit::process::{self, Output};
use uzfs_testkit::session::Session;
use uzfs_testkit::{check, paths, report};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Three disks as raidz with four file systems, made by OpenZFS.
const TRIO: Spec = Spec { name: "trio", keys: &[], import: &[], redundancy: &[], golden: true };
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon, and tools that mount as on macOS.
struct Mac {
    session: Session,
    images: tempfile::TempDir,
    /// Broken rules of FSKit that mounts found.
    problems: PathBuf,
}

impl Mac {
    /// None where nothing can be mounted.
    fn start() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        if !paths::is_root() {
            report::line("SKIPPED fskit mounts: only root may mount");
            return Ok(None);
        }
        let images = tempfile::tempdir()?;
        let problems = images.path().join("problems");
        Ok(Some(Self { session: Session::start()?, images, problems }))
    }

    /// Runs a tool that mounts by `mount`.
    fn run_by(&self, mount: &str, program: &str, args: &[&str]) -> Result<Output, String> {
        let mut command = self.session.command(program);
        command.args(args).env("UZFS_MOUNT", mount).env("UZFS_FSKIT_PROBLEMS", &self.problems);
        process::run(&mut command, Duration::from_secs(120))
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<Output, String> {
        self.run_by(&paths::program("fskit-mount").to_string_lossy(), program, args)
    }

    fn ok(&self, program: &str, args: &[&str]) -> Result<String, String> {
        Ok(self.run(program, args)?.ok().map_err(|e| format!("{e}\ndaemon: {}", self.session.log()))?.stdout)
    }

    /// A new pool of three disks, mounted below the session's folder.
    fn create(&self, pool: &str) -> Result<(), Box<dyn std::error::Error>> {
        let mut args: Vec<String> = ["create", "-R"].map(str::to_owned).to_vec();
        args.extend([self.session.root().to_string_lossy().into_owned(), pool.into(), "raidz".into()]);
        for n in 0..3 {
            let device = self.images.path().join(format!("d{n}"));
            fs::File::create(&device)?.set_len(128 << 20)?;
            args.push(device.to_string_lossy().into_owned());
        }
        self.ok("zpool", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(())
    }

    /// Mount points below the session's folder that the stand-in serves, without the folder.
    fn served(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = self.session.root();
        let mine = |l: &str| {
            let fskit = l.contains(" - fuse ") && l.contains(".tickets/");
            let at = l.split(' ').nth(4).map(PathBuf::from).filter(|_| fskit)?;
            Some(at.strip_prefix(&root).ok()?.to_string_lossy().into_owned())
        };
        let mut all: Vec<String> = table.lines().filter_map(mine).collect();
        all.sort();
        all
    }

    fn at(&self, path: &str) -> PathBuf {
        self.session.root().join(path)
    }

    /// Ends in order.
    fn finish(self) -> Outcome {
        let broken = fs::read_to_string(&self.problems).unwrap_or_default();
        if !broken.is_empty() {
            return Err(format!("rules of FSKit were broken: {broken}").into());
        }
        Ok(self.session.finish()?)
    }
}

/// Waits for something.
fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    while !done() {
        if Instant::now() > end {
            return Err(format!("{what} did not come"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[test]
fn mount_a_mounts_four_datasets_of_one_pool() -> Outcome {
    let Some(mac) = Mac::start()? else { return Ok(()) };
    let pool = corpus::open(&TRIO)?;
    mac.session.import("trio", &pool.devices, &[])?;
    mac.ok("zfs", &["mount", "-a"])?;
    let four = ["trio", "trio/home", "trio/music", "trio/photos"];
    assert_eq!(mac.served(), four);
    assert_eq!(text(&mac.at("trio/file.txt"))?, "HelloWorld\n");
    assert!(mac.at("trio/home/.zfs/snapshot/monday/readme.txt").is_file());
    let listed: Vec<String> =
        mac.ok("zfs", &["mount"])?.lines().filter_map(|l| l.split(' ').next().map(str::to_owned)).collect();
    assert_eq!(listed, four);
    assert_eq!(mac.ok("zfs", &["list", "-H", "-o", "mounted", "-r", "trio"])?, "yes\nyes\nyes\nyes\n");
    // Nothing is left to mount, and what is mounted is not mounted again.
    mac.ok("zfs", &["mount", "-a"])?;
    assert_eq!(mac.served(), four);
    let again = mac.run("zfs", &["mount", "trio/home"])?;
    assert_eq!(
        (again.code, again.stderr.as_str()),
        (Some(1), "cannot mount 'trio/home': filesystem already mounted\n")
    );
    // One that is in use stays, and the others below it went.
    let open = fs::File::open(mac.at("trio/music"))?;
    let busy = mac.run("zfs", &["unmount", "trio/music"])?;
    assert_eq!(busy.code, Some(1));
    assert!(busy.stderr.contains("pool or dataset is busy"), "{}", busy.stderr);
    drop(open);
    mac.ok("zfs", &["unmount", "-a"])?;
    assert_eq!(mac.served(), [""; 0]);
    mac.ok("zpool", &["export", "trio"])?;
    mac.finish()
}

#[test]
fn what_is_made_renamed_moved_and_imported_is_mounted_where_it_belongs() -> Outcome {
    let Some(mac) = Mac::start()? else { return Ok(()) };
    mac.create("mine")?;
    assert_eq!(mac.served(), ["mine"]);
    mac.ok("zfs", &["create", "-p", "mine/a/b"])?;
    mac.ok("zfs", &["create", "-o", "mountpoint=/apart/deep", "mine/c"])?;
    assert_eq!(mac.served(), ["apart/deep", "mine", "mine/a", "mine/a/b"]);
    fs::write(mac.at("mine/a/b/file"), "below")?;
    fs::write(mac.at("apart/deep/file"), "apart")?;
    // A directory that is not empty is no place, as in OpenZFS.
    fs::create_dir(mac.at("mine/full"))?;
    fs::write(mac.at("mine/full/file"), "x")?;
    let full = mac.run("zfs", &["create", "-o", "overlay=off", "mine/full"])?;
    assert!(full.stderr.contains("directory is not empty"), "{full}");
    mac.ok("zfs", &["destroy", "mine/full"])?;
    mac.ok("zfs", &["rename", "mine/a", "mine/e"])?;
    assert_eq!(mac.served(), ["apart/deep", "mine", "mine/e", "mine/e/b"]);
    mac.ok("zfs", &["set", "mountpoint=/moved", "mine/c"])?;
    assert_eq!(mac.served(), ["mine", "mine/e", "mine/e/b", "moved"]);
    assert_eq!(text(&mac.at("moved/file"))?, "apart");
    mac.ok("zpool", &["export", "mine"])?;
    assert_eq!(mac.served(), [""; 0]);
    let (devices, root) = (mac.images.path().to_string_lossy().into_owned(), mac.session.root());
    mac.ok("zpool", &["import", "-d", &devices, "-R", &root.to_string_lossy(), "mine"])?;
    assert_eq!(mac.served(), ["mine", "mine/e", "mine/e/b", "moved"]);
    assert_eq!(text(&mac.at("mine/e/b/file"))?, "below");
    mac.ok("zfs", &["destroy", "-r", "mine/e"])?;
    assert_eq!(mac.served(), ["mine", "moved"]);
    mac.ok("zpool", &["destroy", "mine"])?;
    assert_eq!(mac.served(), [""; 0]);
    mac.finish()
}

#[test]
fn an_encrypted_dataset_is_blocked_until_its_key_is_loaded() -> Outcome {
    let spec = POOLS.iter().find(|s| s.name == "crypt").ok_or("no encrypted pool")?;
    let Some(mac) = Mac::start()? else { return Ok(()) };
    if let Some(why) = corpus::skip_reason(spec) {
        report::line(&format!("SKIPPED fskit mounts of encrypted datasets: {why}"));
        return Ok(());
    }
    let pool = corpus::open(spec)?;
    mac.session.import(spec.name, &pool.devices, spec.import)?;
    let refused = mac.run("zfs", &["mount", "crypt/gcm"])?;
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (Some(1), "cannot mount 'crypt/gcm': encryption key not loaded\n")
    );
    // What needs no key is mounted, and nothing is said of the others.
    let all = mac.run("zfs", &["mount", "-a"])?;
    assert!(!mac.served().contains(&"crypt/gcm".to_owned()), "{all}");
    check::load_keys(&mac.session, &pool, &pool.devices)?;
    mac.ok("zfs", &["mount", "crypt/gcm"])?;
    assert!(mac.served().contains(&"crypt/gcm".to_owned()));
    let busy = mac.run("zfs", &["unload-key", "crypt/gcm"])?;
    assert!(busy.code != Some(0) && busy.stderr.contains("busy"), "the key of a mounted dataset was unloaded: {busy}");
    mac.ok("zfs", &["unmount", "-u", "crypt/gcm"])?;
    assert_eq!(mac.run("zfs", &["mount", "crypt/gcm"])?.code, Some(1));
    mac.ok("zpool", &["export", "crypt"])?;
    mac.finish()
}

/// The agent of a user, until it is dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent(mac: &Mac) -> Result<Agent, String> {
    let mut command = mac.session.command("zfs");
    command.arg("agent").env("UZFS_MOUNT", paths::program("fskit-mount")).env("UZFS_FSKIT_PROBLEMS", &mac.problems);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(Agent).map_err(|e| format!("zfs agent: {e}"))
}

#[test]
fn an_agent_mounts_for_root() -> Outcome {
    let Some(mac) = Mac::start()? else { return Ok(()) };
    let pool = corpus::open(&TRIO)?;
    mac.session.import("trio", &pool.devices, &[])?;
    let none = mac.run_by("agent", "zfs", &["mount", "-a"])?;
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("no mount agent"), "{none}");
    // What is there when the agent comes, as at login, is mounted at once.
    let first = agent(&mac)?;
    let four = ["trio", "trio/home", "trio/music", "trio/photos"];
    until("four mounts", || mac.served() == four)?;
    // Root mounts and unmounts through it.
    mac.ok("zfs", &["unmount", "-a"])?;
    until("no mounts", || mac.served().is_empty())?;
    mac.run_by("agent", "zfs", &["mount", "-a"])?.ok()?;
    assert_eq!(mac.served(), four);
    let again = mac.run_by("agent", "zfs", &["mount", "trio"])?;
    assert_eq!(again.stderr, "cannot mount 'trio': filesystem already mounted\n");
    // Mounts outlive their agent; without it root is told so.
    drop(first);
    assert_eq!(mac.served(), four);
    mac.run_by("agent", "zfs", &["unmount", "trio/music"])?.ok()?;
    until("an agent that is gone", || {
        mac.run_by("agent", "zfs", &["mount", "trio/music"]).is_ok_and(|o| o.stderr.contains("no mount agent"))
    })?;
    let _second = agent(&mac)?;
    until("the mount that was missing", || mac.served() == four)?;
    mac.run_by("agent", "zpool", &["export", "trio"])?.ok()?;
    mac.finish()
}

/// A user of the machine who is not root.
const USER: u32 = 4711;

/// A program that stands for `/sbin/mount`: it writes down who called it, and what he could read of the ticket.
fn recorder(dir: &Path) -> std::io::Result<PathBuf> {
    let (program, out) = (dir.join("record"), dir.join("calls"));
    fs::write(&program, format!("#!/bin/sh\nid -u >> {0}\ncat \"$4\" >> {0}\n", out.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::write(&out, "")?;
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666))?;
    Ok(program)
}

#[test]
fn tickets_go_to_the_user_whose_folder_it_is_and_to_no_stranger() -> Outcome {
    if !paths::is_root() {
        report::line("SKIPPED fskit tickets: only root may become others");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let folder = dir.path().join("container");
    fs::create_dir(&folder)?;
    std::os::unix::fs::chown(&folder, Some(USER), None)?;
    let session = Session::start_with(&["--fs-dir", &folder.to_string_lossy()])?;
    let pool = corpus::open(&TRIO)?;
    session.import("trio", &pool.devices, &[])?;
    std::os::unix::fs::chown(session.root(), Some(USER), None)?;
    let record = recorder(dir.path())?;
    let calls = || fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
    let tool = |uid: u32, args: &[&str]| {
        let mut command = session.command("zfs");
        command.args(args).uid(uid).env("UZFS_MOUNT", &record);
        command
    };
    let limit = Duration::from_secs(60);
    // A stranger gets no ticket, and cannot be an agent.
    let stranger = process::run(&mut tool(USER + 1, &["mount", "trio"]), limit)?;
    assert!(stranger.code != Some(0) && stranger.stderr.contains("ermission denied"), "{stranger}");
    let agent = process::run(&mut tool(USER + 1, &["agent"]), limit)?;
    assert!(agent.code == Some(1) && agent.stderr.contains("ermission denied"), "{agent}");
    assert_eq!(calls(), "");
    // The user mounts himself: his own program, his own ticket.
    process::run(&mut tool(USER, &["mount", "trio"]), limit)?.ok()?;
    assert!(calls().starts_with("4711\nuzfs-volume 1\ndataset trio\n"), "{}", calls());
    // And for root, by his agent.
    fs::write(dir.path().join("calls"), "")?;
    let mut command = tool(USER, &["agent"]);
    let _agent = Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    until("everything that mounts by itself", || calls().matches("4711\nuzfs-volume 1").count() == 4)?;
    fs::write(dir.path().join("calls"), "")?;
    let mut root = session.command("zfs");
    until("the agent", || {
        let done = process::run(root.args(["mount", "trio/home"]).env("UZFS_MOUNT", "agent"), limit);
        root = session.command("zfs");
        done.is_ok_and(|o| o.code == Some(0))
    })?;
    assert!(calls().starts_with("4711\nuzfs-volume 1\ndataset trio/home\n"), "{}", calls());
    session.ok("zpool", &["export", "trio"])?;
    Ok(session.finish()?)
}

#[test]
fn a_rollback_is_seen_through_the_mount() -> Outcome {
    use std::io::{Read, Seek, SeekFrom};
    let Some(mac) = Mac::start()? else { return Ok(()) };
    mac.create("mine")?;
    mac.ok("zfs", &["create", "mine/a"])?;
    let (file, later) = (mac.at("mine/a/file"), mac.at("mine/a/later"));
    fs::write(&file, "before")?;
    fs::create_dir(mac.at("mine/a/dir"))?;
    mac.ok("zfs", &["snapshot", "mine/a@one"])?;
    fs::write(&file, "something longer, after the snapshot")?;
    fs::write(&later, "gone soon")?;
    // Known to the kernel, with its contents.
    let mut open = fs::File::open(&file)?;
    let mut seen = String::new();
    open.read_to_string(&mut seen)?;
    assert_eq!(seen, "something longer, after the snapshot");
    let mut gone = fs::File::open(&later)?;
    mac.ok("zfs", &["rollback", "mine/a@one"])?;
    assert_eq!(mac.served(), ["mine", "mine/a"], "the mount stays");
    // The notice travels by itself.
    until("the contents of before", || fs::read_to_string(&file).is_ok_and(|t| t == "before"))?;
    assert_eq!(fs::metadata(&file)?.len(), 6);
    open.seek(SeekFrom::Start(0))?;
    seen.clear();
    open.read_to_string(&mut seen)?;
    assert_eq!(seen, "before", "a file that was open all the time");
    let stale = gone.read_to_string(&mut seen).map_err(|e| e.raw_os_error());
    assert_eq!(stale, Err(Some(libc::ESTALE)), "a file that is gone");
    // It can be written on, and again rolled back.
    fs::write(mac.at("mine/a/dir/new"), "after")?;
    fs::write(&file, "after")?;
    fs::File::open(&file)?.sync_all()?;
    mac.ok("zfs", &["snapshot", "mine/a@two"])?;
    fs::remove_file(&file)?;
    let newer = mac.run("zfs", &["rollback", "mine/a@one"])?;
    assert_eq!(newer.code, Some(1), "a newer snapshot exists");
    mac.ok("zfs", &["rollback", "mine/a@two"])?;
    until("the file that was removed", || fs::read_to_string(&file).is_ok_and(|t| t == "after"))?;
    mac.ok("zfs", &["rollback", "-r", "mine/a@one"])?;
    until("the contents of before", || fs::read_to_string(&file).is_ok_and(|t| t == "before"))?;
    drop((open, gone));
    mac.ok("zpool", &["export", "mine"])?;
    check::zdb_clean(mac.images.path(), "mine")?;
    mac.finish()
}
