//! Every pool of the corpus through the extension's module: the stand-in for `fskitd` mounts each dataset and snapshot
//! with a ticket of the daemon, and what is seen is what OpenZFS saw.
//!
//! Differences that FSKit itself makes, and no others, are taken into account: the root has number 2 (and a file that
//! has 2 in ZFS has the root's), device nodes have no device numbers, and below `.zfs` numbers are unique in the mount.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use uzfs_testkit::check;
use uzfs_testkit::corpus::{self, POOLS, Pool, Spec};
use uzfs_testkit::manifest::{self, Content, Manifest};
use uzfs_testkit::report::{self, Report};
use uzfs_testkit::session::Session;
use uzfs_testkit::{paths, process};

/// Three disks as raidz with four file systems, made by OpenZFS for the demonstration.
const TRIO: Spec = Spec { name: "trio", keys: &[], import: &[], redundancy: &[], golden: true };
/// FSKit's number of a root.
const ROOT: u64 = 2;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = POOLS.iter().map(|spec| Trial::test(spec.name, move || pool(spec))).collect();
    trials.push(Trial::test("trio", || pool(&TRIO)));
    trials.push(Trial::test("any_member_claims_its_pool", claim));
    trials.push(Trial::test("what_is_written_is_what_fuse_shows", written));
    trials.push(Trial::test("a_killed_daemon_fails_everything_at_once", killed));
    trials.push(Trial::test("a_dataset_without_its_key_is_blocked", blocked));
    libtest_mimic::run(&arguments, trials).exit();
}

/// A mount by `fskit-host`.
struct Mount {
    child: Child,
    point: PathBuf,
}

impl Mount {
    /// Mounts apart.
    fn new(session: &Session, resource: &str, name: &str) -> Result<Self, String> {
        let point = session.root().join(format!("fskit-{}", name.replace(['/', '@'], "-")));
        Self::at(session, resource, name, point)
    }

    fn at(session: &Session, resource: &str, name: &str, point: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&point).map_err(|e| e.to_string())?;
        let mut command: Command = session.command("fskit-host");
        command.args(["-F", "-t", "zfs", resource]).arg(&point);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut mount = Self { child: child.map_err(|e| format!("fskit-host: {e}"))?, point };
        let limit = Instant::now() + Duration::from_secs(30);
        while !session.mounts().contains(&mount.point) {
            if mount.child.try_wait().is_ok_and(|s| s.is_some()) || Instant::now() > limit {
                return Err(format!("{name}: {}", mount.end().err().unwrap_or_else(|| "not mounted".into())));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(mount)
    }

    /// Takes it down in order.
    fn end(&mut self) -> Result<(), String> {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::empty());
        drop(self.child.stdin.take());
        let code = process::wait(&mut self.child, Duration::from_secs(90));
        if code == Some(0) {
            return Ok(());
        }
        let _ = self.child.kill();
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        }
        Err(format!("fskit-host gave {code:?}: {}", text.trim()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What a mount by FSKit shows of what OpenZFS shows.
fn as_fskit(expected: &Manifest, root: u64, below_zfs: bool) -> Manifest {
    let mut all = expected.clone();
    for (path, entry) in &mut all {
        entry.remove("rdev");
        if below_zfs {
            entry.remove("ino");
            continue;
        }
        let ino = entry.get("ino").and_then(Value::as_u64);
        let shown = match ino {
            _ if path.is_empty() => ROOT,
            Some(ROOT) => root,
            Some(n) => n,
            None => continue,
        };
        entry.insert("ino".into(), json!(shown));
    }
    all
}

fn compare(report: &mut Report, name: &str, expected: &Manifest, seen: Result<Manifest, String>, below_zfs: bool) {
    let ignored: &[&str] = if below_zfs { &["ino", "rdev", "sha256", "sparse_sha256"] } else { &["rdev"] };
    // Object number of the root: what the live dataset's root shows; snapshots of it have the same.
    let root = 34;
    check::compare(name, &as_fskit(expected, root, below_zfs), seen, ignored, report);
}

fn pool(spec: &'static Spec) -> Result<(), Failed> {
    if let Some(why) = corpus::skip_reason(spec) {
        report::line(&format!("SKIPPED fskit {}: {why}", spec.name));
        return Ok(());
    }
    let pool = corpus::open(spec)?;
    let mut report = Report::default();
    let session = Session::start()?;
    let (mut trees, mut files) = (0, 0);
    let walked = walk_all(&session, &pool, &mut report, &mut trees, &mut files);
    report.step("pool", walked);
    let exported = session.ok("zpool", &["export", spec.name]).map(drop);
    report.step("export", exported);
    report.step("session", session.finish());
    let outcome = if report.is_empty() { "ok" } else { "WRONG" };
    report::line(&format!("fskit {}: {trees} trees, {files} files: {outcome}", spec.name));
    Ok(report.finish()?)
}

fn walk_all(
    session: &Session,
    pool: &Pool,
    report: &mut Report,
    trees: &mut usize,
    files: &mut usize,
) -> Result<(), String> {
    session.import(pool.spec.name, &pool.devices, pool.spec.import)?;
    check::load_keys(session, pool, &pool.devices)?;
    // Every file system in its place, as `zfs mount -a` would, so that each hides what was hidden from OpenZFS.
    let args = ["list", "-H", "-o", "name,mountpoint,canmount", "-t", "filesystem", "-r", pool.spec.name];
    let listed = session.ok("zfs", &args)?;
    let mut places: Vec<(PathBuf, String)> = Vec::new();
    for row in listed.stdout.lines() {
        if let [name, point, canmount] = row.split('\t').collect::<Vec<_>>()[..]
            && point.starts_with('/')
            && canmount != "off"
        {
            places.push((PathBuf::from(point), name.to_owned()));
        }
    }
    places.sort();
    let mut mounts: BTreeMap<String, Mount> = BTreeMap::new();
    let mut order = Vec::new();
    for (point, name) in places {
        // A directory that is missing cannot be made in a file system that cannot be written.
        let mount = match std::fs::create_dir_all(&point) {
            Ok(()) => Mount::at(session, &name, &name, point),
            Err(_) => Mount::new(session, &name, &name),
        };
        if let Some(mount) = report.step("mount", mount) {
            order.push(name.clone());
            mounts.insert(name, mount);
        }
    }
    for (dataset, text) in pool.trees()? {
        let expected = manifest::parse(&text)?;
        (*trees, *files) = (*trees + 1, *files + expected.len());
        let Some((file_system, snapshot)) = dataset.split_once('@') else {
            match mounts.get(&dataset) {
                Some(m) => compare(report, &dataset, &expected, manifest::walk(&m.point, Content::Hash), false),
                None => report.add("mount", format!("{dataset} is not mounted")),
            }
            continue;
        };
        if let Some(live) = mounts.get(file_system) {
            // The contents are compared on the snapshot's own mount.
            let below = manifest::walk(&live.point.join(".zfs/snapshot").join(snapshot), Content::Skip);
            compare(report, &format!("{dataset} below .zfs"), &expected, below, true);
        }
        if let Some(mut mount) = report.step("mount", Mount::new(session, &dataset, &dataset)) {
            compare(report, &dataset, &expected, manifest::walk(&mount.point, Content::Hash), false);
            report.step(&dataset, mount.end());
        }
    }
    for name in order.iter().rev() {
        if let Some(mut mount) = mounts.remove(name) {
            report.step(name, mount.end());
        }
    }
    Ok(())
}

/// The golden raidz pool by one of its devices: the daemon finds the others.
fn claim() -> Result<(), Failed> {
    if !paths::is_root() {
        report::line("SKIPPED fskit claim: only root may mount");
        return Ok(());
    }
    let spec = POOLS.iter().find(|s| s.name == "tank").ok_or("no golden pool")?;
    let pool = corpus::open(spec)?;
    let session = Session::start()?;
    session.import(spec.name, &pool.devices, spec.import)?;
    let expected = pool.expected("files.tank").ok_or("nothing is expected")?;
    let expected = manifest::parse(&expected)?;
    let mut report = Report::default();
    for device in ["d0", "d1"] {
        let mut mount = Mount::new(&session, &pool.devices.join(device).to_string_lossy(), device)?;
        let mut seen = manifest::walk(&mount.point, Content::Hash)?;
        // Where the pool's other file systems would be mounted.
        seen.retain(|path, _| !matches!(path.as_slice(), b"home" | b"clone"));
        compare(&mut report, device, &expected, Ok(seen), false);
        // While a front end has it mounted, the pool stays.
        let refused = session.run("zpool", &["export", "tank"])?;
        if refused.code == Some(0) {
            report.add("export", "a pool that is mounted was exported");
        }
        report.step(device, mount.end());
    }
    let exported = session.ok("zpool", &["export", "tank"]).map(drop);
    report.step("export", exported);
    report.step("session", session.finish());
    Ok(report.finish()?)
}

/// Changes of every kind that FSKit asks for.
fn change(at: &Path, seed: u8) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom, Write};
    let data = |n: usize| (0..n).map(|i| (i / 9) as u8 ^ seed ^ (i % 251) as u8).collect::<Vec<u8>>();
    for dir in ["one", "two", "two/deep", "empty"] {
        fs::create_dir(at.join(dir))?;
    }
    for (n, len) in [0, 1, 511, 4096, 131_072, 700_001].into_iter().enumerate() {
        fs::write(at.join(format!("one/file{n}")), data(len))?;
        fs::write(at.join(format!("two/deep/file{n}")), data(len / 2))?;
    }
    let mut big = fs::File::options().read(true).write(true).open(at.join("one/file5"))?;
    big.seek(SeekFrom::Start(200_000))?;
    big.write_all(b"in the middle")?;
    big.set_len(2_000_000)?;
    big.sync_all()?;
    fs::File::options().write(true).open(at.join("one/file4"))?.set_len(1000)?;
    fs::rename(at.join("one/file1"), at.join("two/moved"))?;
    fs::rename(at.join("one/file2"), at.join("one/file3"))?;
    fs::rename(at.join("two/deep"), at.join("one/deeper"))?;
    fs::hard_link(at.join("two/moved"), at.join("linked"))?;
    symlink("one/deeper/file2", at.join("symbolic"))?;
    fs::set_permissions(at.join("one"), fs::Permissions::from_mode(0o711))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    big.set_modified(time)?;
    rustix::fs::setxattr(at.join("linked"), "user.colour", b"red", rustix::fs::XattrFlags::empty())?;
    rustix::fs::setxattr(at.join("linked"), "user.gone", b"soon", rustix::fs::XattrFlags::empty())?;
    rustix::fs::removexattr(at.join("linked"), "user.gone")?;
    fs::remove_dir(at.join("empty"))?;
    // A file without a name lives until it is closed.
    let mut open = fs::File::open(at.join("one/deeper/file5"))?;
    fs::remove_file(at.join("one/deeper/file5"))?;
    let mut all = Vec::new();
    open.read_to_end(&mut all)?;
    if all == data(350_000) { Ok(()) } else { Err(std::io::Error::other("an open file lost its contents")) }
}

/// A pool made here, two of its file systems changed through the extension, and compared with what FUSE shows of them.
fn written() -> Result<(), Failed> {
    if !paths::is_root() {
        report::line("SKIPPED fskit writing: only root may mount");
        return Ok(());
    }
    let images = tempfile::tempdir()?;
    let devices: Vec<String> =
        (0..3).map(|n| images.path().join(format!("d{n}")).to_string_lossy().into_owned()).collect();
    for device in &devices {
        fs::File::create(device)?.set_len(128 << 20)?;
    }
    let session = Session::start()?;
    let root = session.root().to_string_lossy().into_owned();
    let create = ["create", "-R", &root, "mine", "raidz"].into_iter().chain(devices.iter().map(String::as_str));
    session.ok("zpool", &create.collect::<Vec<_>>())?;
    session.ok("zfs", &["create", "mine/a"])?;
    // What is mounted cannot be had, and neither can what a front end has.
    if Mount::new(&session, "mine", "refused").is_ok() {
        return Err("a front end got a file system that is mounted".into());
    }
    session.ok("zfs", &["unmount", "mine"])?;
    let mut report = Report::default();
    let mut seen = Vec::new();
    {
        let mut mounts = [("mine", 1), ("mine/a", 2)].map(|(name, seed)| (Mount::new(&session, name, name), seed));
        for (mount, seed) in &mounts {
            change(&mount.as_ref().map_err(Clone::clone)?.point, *seed).map_err(|e| e.to_string())?;
        }
        for (name, args) in [("zfs", ["mount", "mine"]), ("zpool", ["export", "mine"])] {
            if session.run(name, &args)?.code == Some(0) {
                report.add("busy", format!("{name} took what a front end has"));
            }
        }
        for (mount, _) in &mut mounts {
            let mount = mount.as_mut().map_err(|e| e.clone())?;
            seen.push(manifest::walk(&mount.point, Content::Hash)?);
            report.step("end", mount.end());
        }
    }
    session.ok("zfs", &["mount", "-a"])?;
    for (name, seen) in ["mine", "mine/a"].into_iter().zip(seen) {
        let mut expected = manifest::walk(&session.root().join(name), Content::Hash)?;
        // The place of the file system below.
        expected.retain(|path, _| !(name == "mine" && path == b"a"));
        let mut seen = seen;
        seen.retain(|path, _| !(name == "mine" && path == b"a"));
        if expected.len() != 16 {
            report.add(name, format!("{} files", expected.len()));
        }
        compare(&mut report, name, &expected, Ok(seen), false);
    }
    session.ok("zpool", &["export", "mine"])?;
    report.step("session", session.finish());
    report.step("zdb", check::zdb_clean(images.path(), "mine"));
    Ok(report.finish()?)
}

/// Operations on a mount whose daemon was killed fail with EIO, at once, and the mount can be taken away.
fn killed() -> Result<(), Failed> {
    if !paths::is_root() {
        report::line("SKIPPED fskit killed: only root may mount");
        return Ok(());
    }
    let spec = POOLS.iter().find(|s| s.name == "tank").ok_or("no golden pool")?;
    let pool = corpus::open(spec)?;
    let session = Session::start()?;
    session.import(spec.name, &pool.devices, spec.import)?;
    let mut mount = Mount::new(&session, "tank", "tank")?;
    let file = mount.point.join("file.txt");
    std::fs::metadata(&file).map_err(|e| e.to_string())?;
    let daemon = session.daemon_id().and_then(|id| i32::try_from(id).ok()).ok_or("no daemon")?;
    let daemon = rustix::process::Pid::from_raw(daemon).ok_or("no daemon")?;
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).map_err(|e| e.to_string())?;
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    let seen = std::fs::read_dir(mount.point.join("photos")).map(drop).map_err(|e| e.raw_os_error());
    if seen != Err(Some(libc::EIO)) || begun.elapsed() > Duration::from_secs(1) {
        return Err(format!("a dead daemon gave {seen:?} after {:?}", begun.elapsed()).into());
    }
    Ok(mount.end()?)
}

fn blocked() -> Result<(), Failed> {
    let spec = POOLS.iter().find(|s| s.name == "crypt").ok_or("no encrypted pool")?;
    if let Some(why) = corpus::skip_reason(spec) {
        report::line(&format!("SKIPPED fskit blocked: {why}"));
        return Ok(());
    }
    let pool = corpus::open(spec)?;
    let session = Session::start()?;
    session.import(spec.name, &pool.devices, spec.import)?;
    match Mount::new(&session, "crypt/gcm", "gcm") {
        Ok(_) => return Err("mounted without its key".into()),
        Err(e) if e.contains(&uzfs_fsproto::Code::KeyNeeded.to_string()) => {}
        Err(e) => return Err(e.into()),
    }
    check::load_keys(&session, &pool, &pool.devices)?;
    let mut mount = Mount::new(&session, "crypt/gcm", "gcm")?;
    mount.end()?;
    session.ok("zpool", &["export", "crypt"])?;
    Ok(session.finish()?)
}
