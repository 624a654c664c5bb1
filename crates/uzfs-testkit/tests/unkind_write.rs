//! What happens to pools that are written while something is wrong below them: the disk under an image file fills up, a
//! device goes away, another daemon wants the same pool. What was fsynced is never lost, the tools keep answering, and
//! OpenZFS's `zdb` finds nothing wrong afterwards, where it is installed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

/// Longest time that a command on a pool in trouble may take.
const PROMPT: Duration = Duration::from_secs(20);

/// Why pools cannot be mounted here; nothing when they can.
fn skipped(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let fuse = Path::new("/dev/fuse").exists();
    if !root || !fuse {
        report::line(&format!("SKIPPED {test}: needs root and FUSE"));
    }
    !root || !fuse
}

fn zdb(dir: &Path) {
    let Ok(out) = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args(["tank", "-bbcc"]).output() else {
        report::line("SKIPPED zdb: it is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let clean = text.contains("No leaks (block sum matches space maps exactly)");
    assert!(out.status.success() && clean, "{text}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// Two megabytes that do not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..1 << 18).flat_map(step).collect()
}

fn image(path: &Path, mib: u64) -> String {
    File::create(path).unwrap().set_len(mib << 20).unwrap();
    path.to_string_lossy().into_owned()
}

fn create(session: &Session, words: &[&str]) {
    let root = session.root().to_string_lossy().into_owned();
    session.ok("zpool", &[&["create", "-R", &root, "tank"], words].concat()).unwrap();
}

fn import(session: &Session, dir: &Path) {
    let (dir, root) = (dir.to_string_lossy().into_owned(), session.root().to_string_lossy().into_owned());
    session.ok("zpool", &["import", "-f", "-d", &dir, "-R", &root, "-o", "readonly=off", "tank"]).unwrap();
}

fn durable(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(data)?;
    file.sync_all()
}

/// Writes and fsyncs files until that fails; gives those that were acknowledged, and the error.
fn write_until_refused(at: &Path, most: u64) -> (Vec<(PathBuf, u64)>, io::Error) {
    let mut done = Vec::new();
    for n in 0..most {
        let path = at.join(format!("file{n}"));
        match durable(&path, &noise(n)) {
            Ok(()) => done.push((path, n)),
            Err(e) => return (done, e),
        }
    }
    panic!("{most} files were written to where nothing can be");
}

fn check(files: &[(PathBuf, u64)]) {
    for (path, seed) in files {
        assert!(
            fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) == noise(*seed),
            "{}",
            path.display()
        );
    }
}

/// The tools answer about a suspended pool, and say what it is.
fn suspended(session: &Session) {
    let begun = Instant::now();
    let status = session.ok("zpool", &["status", "tank"]).unwrap().stdout;
    assert!(status.contains("state: SUSPENDED") && status.contains("IO failures"), "{status}");
    assert!(session.ok("zpool", &["list", "-H", "-o", "health", "tank"]).unwrap().stdout.contains("SUSPENDED"));
    // Without any device it may fail, but it must not wait.
    session.run("zfs", &["list", "-r", "tank"]).unwrap();
    assert_ne!(session.run("zfs", &["snapshot", "tank@late"]).unwrap().code, Some(0));
    let out = session.run("zpool", &["destroy", "-f", "tank"]).unwrap();
    assert!(out.code == Some(1) && out.stderr.contains("pool I/O is currently suspended"), "{out}");
    assert!(begun.elapsed() < PROMPT, "the tools take {:?}", begun.elapsed());
}

/// Scrubs, and takes the pool away clean.
fn end(session: Session, dir: &Path) {
    session.ok("zpool", &["scrub", "-w", "tank"]).unwrap();
    let status = session.ok("zpool", &["status", "-v", "tank"]).unwrap().stdout;
    assert!(status.contains("with 0 errors") && status.contains("No known data errors"), "{status}");
    session.ok("zpool", &["export", "tank"]).unwrap();
    session.finish().unwrap();
    zdb(dir);
}

/// A small file system that is unmounted at the end.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn the_disk_below_a_pool_fills_up() {
    if skipped("a full disk below a pool") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", home.path(), "tmpfs", flags, Some(c"size=96m")).unwrap();
    let small = Small(home.path().to_owned());
    let filler = home.path().join("filler");
    fs::write(&filler, vec![1; 60 << 20]).unwrap();
    let session = Session::start().unwrap();
    create(&session, &[&image(&home.path().join("d0"), 128)]);
    let (files, e) = write_until_refused(&session.root().join("tank"), 60);
    assert!(files.len() > 5, "only {} files, then {e}", files.len());
    suspended(&session);
    // What can be read is right; what is not can be had after the next import.
    check(&files);
    session.ok("zpool", &["export", "tank"]).unwrap();
    fs::remove_file(&filler).unwrap();
    import(&session, home.path());
    check(&files);
    durable(&session.root().join("tank/after"), &noise(99)).unwrap();
    end(session, home.path());
    drop(small);
}

#[test]
fn a_side_of_a_mirror_goes_away_while_files_are_written() {
    if skipped("a mirror that loses a side") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (d0, d1) = (home.path().join("d0"), home.path().join("d1"));
    let session = Session::start().unwrap();
    create(&session, &["mirror", &image(&d0, 256), &image(&d1, 256)]);
    let at = session.root().join("tank");
    let writer = thread::spawn(move || {
        let one = |n| {
            let path = at.join(format!("file{n}"));
            durable(&path, &noise(n)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path, n)
        };
        (0..30).map(one).collect::<Vec<_>>()
    });
    thread::sleep(Duration::from_millis(150));
    File::options().write(true).open(&d1).unwrap().set_len(0).unwrap();
    let files = writer.join().unwrap();
    check(&files);
    let status = session.ok("zpool", &["status", "tank"]).unwrap().stdout;
    assert!(status.contains("state: DEGRADED") || status.contains("unrecoverable error"), "{status}");
    session.ok("zpool", &["export", "tank"]).unwrap();
    // The other side has it all; a new device takes the place of the lost one.
    fs::remove_file(&d1).unwrap();
    import(&session, home.path());
    check(&files);
    let new = image(&home.path().join("new"), 256);
    session.ok("zpool", &["replace", "-f", "tank", &d1.to_string_lossy(), &new]).unwrap();
    let end_at = Instant::now() + PROMPT;
    while !session.ok("zpool", &["status", "tank"]).unwrap().stdout.contains("state: ONLINE") {
        assert!(Instant::now() < end_at, "{}", session.ok("zpool", &["status", "tank"]).unwrap().stdout);
        thread::sleep(Duration::from_millis(100));
    }
    check(&files);
    end(session, home.path());
}

#[test]
fn the_only_device_goes_away_and_comes_back() {
    if skipped("a pool that loses its device") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let d0 = home.path().join("d0");
    let session = Session::start().unwrap();
    create(&session, &[&image(&d0, 256)]);
    let at = session.root().join("tank");
    let before: Vec<_> = (0..5).map(|n| (at.join(format!("before{n}")), n)).collect();
    before.iter().for_each(|(path, n)| durable(path, &noise(*n)).unwrap());
    // The file is cut while nothing is lost: the copy comes back as a disk does whose cable was loose.
    let kept = home.path().join("kept");
    Command::new("cp").arg("--sparse=always").args([&d0, &kept]).status().unwrap();
    File::options().write(true).open(&d0).unwrap().set_len(0).unwrap();
    let (none, e) = write_until_refused(&at, 60);
    assert!(none.is_empty(), "{} files were acknowledged without a device, then {e}", none.len());
    suspended(&session);
    session.ok("zpool", &["export", "tank"]).unwrap();
    fs::rename(&kept, &d0).unwrap();
    import(&session, home.path());
    check(&before);
    end(session, home.path());
}

#[test]
fn two_daemons_and_one_pool() {
    if skipped("two daemons and one pool") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let session = Session::start().unwrap();
    let device = image(&home.path().join("d0"), 256);
    create(&session, &[&device]);
    let file = [(session.root().join("tank/file"), 7)];
    durable(&file[0].0, &noise(7)).unwrap();
    let other = Session::start().unwrap();
    let place = home.path().to_string_lossy().into_owned();
    for words in [&["import", "-f", "-d", &place, "-o", "readonly=off", "tank"][..], &["create", "-f", "mine", &device]]
    {
        let out = other.run("zpool", words).unwrap();
        assert_eq!(out.code, Some(1), "{out}");
        assert!(out.stderr.contains("in use") || out.stderr.contains("open for writing elsewhere"), "{out}");
    }
    other.finish().unwrap();
    check(&file);
    durable(&session.root().join("tank/more"), &noise(8)).unwrap();
    end(session, home.path());
}
