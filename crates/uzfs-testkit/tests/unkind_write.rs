//! What happens to pools that are written while something is wrong below them: the disk under an image file fills up, a
//! device goes away, another daemon wants the same pool. What was fsynced is never lost, the tools keep answering, and
//! OpenZFS's `zdb` finds nothing wrong afterwards, where it is installed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
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

/// Writes and fsyncs files on a thread of its own.
struct Writing {
    thread: thread::JoinHandle<io::Result<()>>,
    done: Arc<Mutex<Vec<(PathBuf, u64)>>>,
}

impl Writing {
    fn start(at: PathBuf, name: &'static str, count: u64) -> Self {
        let done: Arc<Mutex<Vec<(PathBuf, u64)>>> = Arc::default();
        let list = done.clone();
        let thread = thread::spawn(move || {
            for n in 0..count {
                let path = at.join(format!("{name}{n}"));
                durable(&path, &noise(n))?;
                list.lock().unwrap().push((path, n));
            }
            Ok(())
        });
        Self { thread, done }
    }

    /// What was acknowledged so far.
    fn done(&self) -> Vec<(PathBuf, u64)> {
        self.done.lock().unwrap().clone()
    }

    /// Everything, in the end.
    fn finish(self) -> (Vec<(PathBuf, u64)>, io::Result<()>) {
        let result = self.thread.join().unwrap();
        (self.done.lock().unwrap().clone(), result)
    }
}

fn status(session: &Session) -> String {
    session.ok("zpool", &["status", "tank"]).unwrap().stdout
}

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + PROMPT;
    while !is() {
        assert!(Instant::now() < until, "{what} takes longer than {PROMPT:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn wait_suspended(session: &Session) {
    wait_for("the suspension", || status(session).contains("state: SUSPENDED"));
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--sparse=always").args([from, to]).status().unwrap().success());
}

/// Makes an image file lose its contents under whoever has it open.
fn cut(image: &Path) {
    File::options().write(true).open(image).unwrap().set_len(0).unwrap();
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
    let writing = Writing::start(session.root().join("tank"), "file", 22);
    wait_suspended(&session);
    let before = writing.done();
    assert!(before.len() > 3 && before.len() < 22, "{} files", before.len());
    suspended(&session);
    check(&before);
    // Without room it does not get far.
    session.run("zpool", &["clear", "tank"]).unwrap();
    wait_suspended(&session);
    fs::remove_file(&filler).unwrap();
    session.ok("zpool", &["clear", "tank"]).unwrap();
    assert!(status(&session).contains("state: ONLINE"), "{}", status(&session));
    let (files, result) = writing.finish();
    result.unwrap();
    check(&files);
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

/// A pool on one image file, with some files that are on disk for certain.
fn one_device(home: &Path, session: &Session, words: &[&str]) -> (PathBuf, Vec<(PathBuf, u64)>) {
    let d0 = home.join("d0");
    create(session, &[words, &[&image(&d0, 256)]].concat());
    let writing = Writing::start(session.root().join("tank"), "before", 5);
    let (before, result) = writing.finish();
    result.unwrap();
    session.ok("zpool", &["sync", "tank"]).unwrap();
    (d0, before)
}

#[test]
fn the_only_device_goes_away_and_comes_back() {
    if skipped("a pool that loses its device") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let session = Session::start().unwrap();
    let (d0, before) = one_device(home.path(), &session, &[]);
    let (older, kept) = (home.path().join("older"), home.path().join("kept"));
    copy(&d0, &older);
    let at = session.root().join("tank");
    durable(&at.join("newest"), &noise(77)).unwrap();
    session.ok("zpool", &["sync", "tank"]).unwrap();
    // The file is cut while nothing is lost: the copy comes back as a disk does whose cable was loose.
    copy(&d0, &kept);
    cut(&d0);
    let writing = Writing::start(at.clone(), "file", 10);
    wait_suspended(&session);
    suspended(&session);
    assert!(status(&session).contains("UNAVAIL"), "{}", status(&session));
    assert!(writing.done().is_empty(), "{} files were acknowledged without a device", writing.done().len());
    let events = session.ok("zpool", &["events", "-H"]).unwrap().stdout;
    assert!(events.contains("ereport.fs.zfs.io_failure"), "{events}");
    // An older state is not what the pool was.
    fs::rename(&older, &d0).unwrap();
    let out = session.run("zpool", &["clear", "tank"]).unwrap();
    assert!(out.code == Some(1) && out.stderr.contains("cannot clear errors for tank: I/O error"), "{out}");
    wait_suspended(&session);
    fs::rename(&kept, &d0).unwrap();
    session.ok("zpool", &["clear", "tank"]).unwrap();
    let (files, result) = writing.finish();
    result.unwrap();
    assert!(status(&session).contains("state: ONLINE"), "{}", status(&session));
    check(&before);
    check(&files);
    check(&[(at.join("newest"), 77)]);
    end(session, home.path());
}

#[test]
fn a_suspended_pool_that_is_to_continue() {
    if skipped("failmode=continue") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let session = Session::start().unwrap();
    let (d0, before) = one_device(home.path(), &session, &["-o", "failmode=continue"]);
    let kept = home.path().join("kept");
    copy(&d0, &kept);
    cut(&d0);
    let at = session.root().join("tank");
    let writing = Writing::start(at.clone(), "file", 3);
    wait_suspended(&session);
    suspended(&session);
    // What is new is refused at once.
    let begun = Instant::now();
    let error = File::create(at.join("new")).unwrap_err();
    assert!(error.raw_os_error() == Some(5) && begun.elapsed() < PROMPT, "{error} after {:?}", begun.elapsed());
    fs::rename(&kept, &d0).unwrap();
    session.ok("zpool", &["clear", "tank"]).unwrap();
    let (files, _) = writing.finish();
    check(&before);
    check(&files);
    durable(&at.join("new"), &noise(12)).unwrap();
    check(&[(at.join("new"), 12)]);
    end(session, home.path());
}

#[test]
fn a_pool_that_is_to_panic_ends_the_daemon() {
    if skipped("failmode=panic") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut session = Session::start().unwrap();
    let (d0, mut before) = one_device(home.path(), &session, &["-o", "failmode=panic"]);
    let at = session.root().join("tank");
    // Fsynced and in no transaction group yet.
    durable(&at.join("newest"), &noise(78)).unwrap();
    before.push((at.join("newest"), 78));
    let kept = home.path().join("kept");
    copy(&d0, &kept);
    cut(&d0);
    let writing = Writing::start(at, "file", 3);
    let id = session.daemon_id().unwrap();
    // Ended, and waited for by nobody yet.
    let ended = || fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|s| s.contains(") Z "));
    wait_for("the end of the daemon", ended);
    assert!(session.log().contains("its failmode is panic"), "{}", session.log());
    let (none, result) = writing.finish();
    assert!(none.is_empty() && result.is_err(), "{none:?} {result:?}");
    for point in session.mounts().iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    session.restart().unwrap();
    fs::rename(&kept, &d0).unwrap();
    import(&session, home.path());
    assert_eq!(session.ok("zpool", &["get", "-H", "-o", "value", "failmode", "tank"]).unwrap().stdout, "panic\n");
    check(&before);
    durable(&session.root().join("tank/more"), &noise(9)).unwrap();
    end(session, home.path());
}

#[test]
fn a_suspended_pool_is_let_go_of() {
    if skipped("exporting a suspended pool") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let session = Session::start().unwrap();
    let (d0, before) = one_device(home.path(), &session, &[]);
    let kept = home.path().join("kept");
    copy(&d0, &kept);
    cut(&d0);
    let writing = Writing::start(session.root().join("tank"), "file", 3);
    wait_suspended(&session);
    // Whoever waited is told, and the mount is free.
    session.ok("zpool", &["export", "-f", "tank"]).unwrap();
    let (none, result) = writing.finish();
    assert!(none.is_empty() && result.is_err());
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
