//! What users and machines do to a daemon that they should not: kill it, take its devices away, give it things that
//! are no devices, wrong keys, full disks, and talk nonsense at its socket.
//!
//! `UZFS_KILL_ROUNDS` sets how often the daemon is killed (4 by default).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::corpus::{self, POOLS, Pool};
use uzfs_testkit::process;
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

/// Longest time that a command or an access to a dead mount may take.
const PROMPT: Duration = Duration::from_secs(20);

/// A pool, or nothing and a line that says why.
fn open(name: &str) -> Option<Pool> {
    let spec = POOLS.iter().find(|s| s.name == name).expect("the pool is in the table");
    match corpus::skip_reason(spec) {
        Some(why) => {
            report::line(&format!("SKIPPED unkindness to {name}: {why}"));
            None
        }
        None => {
            // Unpacking is for one at a time in a process.
            static UNPACKING: Mutex<()> = Mutex::new(());
            let _alone = UNPACKING.lock();
            Some(corpus::open(spec).unwrap())
        }
    }
}

/// Copies of a pool's devices that may be damaged. Holes stay holes.
fn copy(pool: &Pool, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in pool.device_names() {
        let mut cp = Command::new("cp");
        process::run(cp.arg("--sparse=always").arg(pool.devices.join(&name)).arg(to.join(&name)), PROMPT)
            .and_then(process::Output::ok)
            .unwrap();
    }
}

fn files_below(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(t) if t.is_dir() => files_below(&entry.path(), out),
            Ok(t) if t.is_file() && entry.metadata().is_ok_and(|m| m.len() < 16 << 20) => out.push(entry.path()),
            _ => {}
        }
    }
}

/// Every file of moderate size below `dir`, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    files_below(dir, &mut out);
    out.sort();
    out
}

/// Runs `work` on a thread of its own; nothing if it did not come back in time.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(work()));
    receive.recv_timeout(PROMPT).ok()
}

fn import_all(session: &Session, pools: &[&Pool]) {
    for pool in pools {
        session.import(pool.spec.name, &pool.devices, &[]).unwrap();
    }
    session.ok("zfs", &["mount", "-a"]).unwrap();
}

#[test]
fn killed_while_mounts_are_read() {
    let (Some(first), Some(second)) = (open("tank"), open("midexp")) else { return };
    let pools = [&first, &second];
    let rounds = std::env::var("UZFS_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let mut session = Session::start().unwrap();
    let mut mounts = 0;
    let mut before: Option<BTreeMap<PathBuf, Vec<u8>>> = None;
    for round in 0..rounds {
        import_all(&session, &pools);
        let points = session.mounts();
        mounts = points.len();
        let all = files(&session.root());
        assert!(!all.is_empty(), "nothing is mounted");
        let now: BTreeMap<_, _> = all.iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect();
        assert!(before.as_ref().is_none_or(|b| *b == now), "round {round}: the files differ after a crash");
        before = Some(now);
        let stop = Arc::new(AtomicBool::new(false));
        let (done, ended) = mpsc::channel();
        for _ in 0..4 {
            let (all, stop, done) = (all.clone(), stop.clone(), done.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for file in &all {
                        let _ = fs::read(file);
                    }
                }
                done.send(())
            });
        }
        thread::sleep(Duration::from_millis(20 * (round % 7) + 5));
        session.kill();
        stop.store(true, Ordering::Relaxed);
        for _ in 0..4 {
            ended.recv_timeout(PROMPT).expect("a reader of a dead mount hangs");
        }
        for point in points {
            let shown = point.display().to_string();
            let error = in_time(move || rustix::fs::statfs(&point)).expect("statfs of a dead mount hangs").err();
            let dead = matches!(error, Some(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED));
            assert!(dead, "{shown}: {error:?}");
        }
        assert!(session.socket().exists(), "a killed daemon leaves its socket");
        session.restart().unwrap();
        assert_eq!(session.mounts(), Vec::<PathBuf>::new(), "round {round}: mounts are left");
    }
    session.finish().unwrap();
    report::line(&format!("killed {rounds} times with {mounts} mounts: all cleaned"));
}

#[test]
fn devices_go_away_under_readers() {
    let Some(pool) = open("midexp") else { return };
    let home = tempfile::tempdir().unwrap();
    copy(&pool, home.path());
    let session = Session::start().unwrap();
    session.import("midexp", &pool.devices, &[]).unwrap();
    session.ok("zfs", &["mount", "-a"]).unwrap();
    let right: Vec<_> = files(&session.root()).iter().map(|f| fs::read(f).unwrap()).collect();
    session.ok("zpool", &["export", "midexp"]).unwrap();

    session.import("midexp", home.path(), &[]).unwrap();
    session.ok("zfs", &["mount", "-a"]).unwrap();
    File::options().write(true).open(home.path().join("d1")).unwrap().set_len(0).unwrap();
    let all = files(&session.root());
    let read: Vec<_> = all.iter().map(|f| fs::read(f).unwrap()).collect();
    assert!(read == right, "a lost device changed what is read");
    let status = session.ok("zpool", &["status", "midexp"]).unwrap().stdout;
    let row = status.lines().find(|l| l.contains("/d1")).expect("the device is listed");
    let errors: Vec<&str> = row.split_whitespace().skip(2).take(3).collect();
    assert!(row.contains("ONLINE") && errors != ["0", "0", "0"] || !row.contains("ONLINE"), "{status}");

    // Beyond what parity can do: errors, and answers.
    session.ok("zpool", &["export", "midexp"]).unwrap();
    copy(&pool, home.path());
    session.import("midexp", home.path(), &[]).unwrap();
    session.ok("zfs", &["mount", "-a"]).unwrap();
    for name in pool.device_names() {
        File::options().write(true).open(home.path().join(name)).unwrap().set_len(1 << 20).unwrap();
    }
    let failed = in_time(move || all.iter().filter(|f| fs::read(f).is_err()).count()).expect("reads hang");
    assert!(failed > 0, "files are read from nowhere");
    for args in [&["status", "-v", "midexp"][..], &["list"], &["events"], &["export", "-f", "midexp"]] {
        assert_eq!(session.run("zpool", args).unwrap().code, Some(0), "zpool {args:?}");
    }
    session.finish().unwrap();
}

#[test]
fn things_that_are_no_devices() {
    let Some(pool) = open("tank") else { return };
    let session = Session::start().unwrap();
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).to_string_lossy().into_owned();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("short"), vec![7u8; 300 << 10]).unwrap();
    let noise: Vec<u8> = (0..4u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(at("noise"), noise).unwrap();
    fs::create_dir(at("folder")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    std::os::unix::fs::symlink("round", at("round")).unwrap();
    for name in ["empty", "short", "noise", "folder", "pipe", "dangling", "round"] {
        let out = limited(&session, "zpool", &["import", "-d", &at(name)]);
        assert!(out.code.is_some() && out.stdout.is_empty(), "{out}");
        let out = limited(&session, "zpool", &["import", "-c", &at(name)]);
        assert_eq!(out.code, Some(1), "{out}");
    }
    let out = limited(&session, "zpool", &["import", "-c", "/dev/zero"]);
    assert_eq!(out.code, Some(1), "{out}");
    // In one folder with a pool they do not disturb it.
    copy(&pool, home.path());
    session.import("tank", home.path(), &[]).unwrap();
    session.ok("zpool", &["export", "tank"]).unwrap();
    session.finish().unwrap();
}

/// A command that must end soon.
fn limited(session: &Session, program: &str, args: &[&str]) -> process::Output {
    process::run(session.command(program).args(args), PROMPT).unwrap()
}

#[test]
fn wrong_keys() {
    let Some(pool) = open("crypt") else { return };
    let session = Session::start().unwrap();
    session.import("crypt", &pool.devices, &[]).unwrap();
    let home = tempfile::tempdir().unwrap();
    let key = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).unwrap();
        format!("file://{}", path.display())
    };
    let none = format!("file://{}/none", home.path().display());
    let folder = format!("file://{}", home.path().display());
    let (raw, pass, hex) = ("crypt/aes-256-ccm", "crypt/gcm", "crypt/hex");
    let cases = [
        (pass, key("p", b"not the passphrase\n"), "Incorrect key provided for 'crypt/gcm'."),
        (raw, key("r", &[7; 32]), "Incorrect key provided for 'crypt/aes-256-ccm'."),
        (raw, key("short", &[7; 31]), "Raw key too short (expected 32)."),
        (raw, key("long", &[7; 33]), "Raw key too long (expected 32)."),
        (hex, key("hshort", b"00ff"), "Hex key too short (expected 64)."),
        (hex, key("hbad", &[b'x'; 64]), "Invalid hex character detected."),
        (pass, key("empty", b""), ""),
        (pass, none, "Failed to open key material file: No such file or directory"),
        (pass, folder, ""),
        (pass, "https://localhost/key".to_owned(), ""),
    ];
    for (dataset, location, sentence) in cases {
        let out = limited(&session, "zfs", &["load-key", "-L", &location, dataset]);
        assert!(matches!(out.code, Some(1 | 255)), "{out}");
        assert!(out.stderr.contains(sentence) && out.stderr.contains("error"), "{out}");
        let status = session.ok("zfs", &["get", "-H", "-o", "value", "keystatus", dataset]).unwrap().stdout;
        assert_eq!(status.trim(), "unavailable", "{dataset} after {location}");
        assert_ne!(limited(&session, "zfs", &["mount", dataset]).code, Some(0), "mounted without a key");
    }
    let right = format!("file://{}", pool.devices.join("passphrase").display());
    session.ok("zfs", &["load-key", "-L", &right, pass]).unwrap();
    session.ok("zpool", &["export", "crypt"]).unwrap();
    session.finish().unwrap();
}

/// A daemon that must not start: its exit code and what it says.
fn refused(session: &Session, socket: &Path) -> process::Output {
    let mut command = session.command("uzfsd");
    process::run(command.arg("--socket").arg(socket), PROMPT).unwrap()
}

#[test]
fn sockets_and_their_folders() {
    let session = Session::start().unwrap();
    let second = refused(&session, &session.socket());
    assert_eq!(second.code, Some(3), "{second}");
    assert!(second.stderr.contains("another daemon is running"), "{second}");
    let home = tempfile::tempdir().unwrap();
    let open_to_all = home.path().join("all");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::create_dir(home.path().join("taken.sock")).unwrap();
    let places = [
        PathBuf::from("/proc/none/uzfsd.sock"),
        home.path().join("x".repeat(120)).join("uzfsd.sock"),
        open_to_all.join("uzfsd.sock"),
        home.path().join("taken.sock"),
    ];
    for place in places {
        let out = refused(&session, &place);
        assert_eq!(out.code, Some(1), "{}: {out}", place.display());
        assert!(out.stderr.starts_with("uzfsd: "), "{out}");
        let out = process::run(
            session.command("zpool").env_remove("UZFS_NO_AUTOSTART").env("UZFS_SOCKET", &place).arg("list"),
            PROMPT,
        );
        let out = out.unwrap();
        assert_eq!(out.code, Some(1), "{}: {out}", place.display());
        assert!(!out.stderr.is_empty(), "{out}");
    }
    session.ok("zpool", &["list"]).unwrap();
    session.finish().unwrap();
}

/// Without an environment a user still gets a daemon, in a folder that is that user's alone.
#[test]
fn a_user_with_no_environment() {
    use uzfs_testkit::paths;
    if !paths::is_root() {
        report::line("SKIPPED a user with no environment: only root may become another user");
        return;
    }
    let uid = 61_234;
    let home = PathBuf::from(format!("/tmp/uzfs-{uid}"));
    let _ = fs::remove_dir_all(&home);
    // The folder of the build may be closed to others.
    let programs = tempfile::tempdir().unwrap();
    fs::set_permissions(programs.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["uzfsd", "zpool"] {
        // Not copied here: a program that is open for writing, if only in the child of another test's thread, does not run.
        let mut cp = Command::new("cp");
        process::run(cp.arg(paths::program(name)).arg(programs.path()), PROMPT).and_then(process::Output::ok).unwrap();
    }
    let run = |args: &[&str]| {
        let mut command = Command::new(programs.path().join("zpool"));
        process::run(command.env_clear().uid(uid).gid(uid).current_dir("/").args(args), PROMPT).unwrap()
    };
    // Somebody else was there first: nothing of this user may be put there.
    fs::create_dir(&home).unwrap();
    rustix::fs::chown(&home, Some(rustix::fs::Uid::from_raw(uid + 1)), None).unwrap();
    let out = run(&["list"]);
    assert!(out.code == Some(1) && out.stderr.contains("belongs to user 61235"), "{out}");
    fs::remove_dir_all(&home).unwrap();

    let out = run(&["list"]);
    assert_eq!((out.code, out.stdout.trim()), (Some(0), "no pools available"), "{out}");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&home).unwrap()) & 0o777;
    assert_eq!(mode, 0o700);
    let stream = UnixStream::connect(home.join("uzfsd.sock")).unwrap();
    let mut connection = uzfs_proto::client::Connection::from_stream(stream).unwrap();
    connection.call::<uzfs_proto::method::Shutdown>(&uzfs_proto::ShutdownArgs { force: true }).unwrap();
    let deadline = Instant::now() + PROMPT;
    while home.join("uzfsd.sock").exists() {
        assert!(Instant::now() < deadline, "the daemon does not end");
        thread::sleep(Duration::from_millis(20));
    }
    fs::remove_dir_all(&home).unwrap();
}

#[test]
fn a_full_disk_for_the_daemons_files() {
    let Some(pool) = open("tank") else { return };
    let mut session = Session::start().unwrap();
    session.kill();
    let run = session.socket().parent().unwrap().to_owned();
    let small = rustix::mount::mount("tmpfs", &run, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=64k"));
    small.unwrap();
    session.restart().unwrap();
    let mut filler = File::create(run.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    session.import("tank", &pool.devices, &[]).unwrap();
    session.ok("zfs", &["mount", "-a"]).unwrap();
    assert!(!files(&session.root()).is_empty());
    session.ok("zpool", &["export", "tank"]).unwrap();
    session.kill();
    rustix::mount::unmount(&run, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(session.mounts(), Vec::<PathBuf>::new());
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn clients_that_talk_nonsense() {
    let session = Session::start().unwrap();
    session.ok("zpool", &["list"]).unwrap();
    let pid = session.daemon_id().unwrap();
    let before = resident(pid);
    let taken = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, taken) = (UnixStream::connect(session.socket()).unwrap(), taken.clone());
            thread::spawn(move || {
                let block = vec![b'x'; 1 << 20];
                for _ in 0..256 {
                    if stream.write_all(&block).is_err() {
                        return;
                    }
                    taken.fetch_add(block.len(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    floods.into_iter().for_each(|f| f.join().unwrap());
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 64 << 20, "{taken} bytes of garbage were taken");
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 64 << 10, "the daemon grew by {grown} KiB");
    for text in [&b"{\"method\":\"io.uzfs.Manage1.GetPools\""[..], b"{}\0", b"\0\0\0\0", b"null\0", b"\xff\xfe\0"] {
        let mut stream = UnixStream::connect(session.socket()).unwrap();
        stream.write_all(text).unwrap();
    }
    // A caller who leaves in the middle of a stream of replies.
    let mut leaver = UnixStream::connect(session.socket()).unwrap();
    leaver
        .write_all(b"{\"method\":\"io.uzfs.Manage1.WatchEvents\",\"more\":true,\"parameters\":{\"follow\":true}}\0")
        .unwrap();
    drop(leaver);
    // Many who say nothing, as long as they are not too many, keep nobody out.
    let silent: Vec<_> = (0..200).map(|_| UnixStream::connect(session.socket()).unwrap()).collect();
    session.ok("zpool", &["list"]).unwrap();
    drop(silent);
    session.finish().unwrap();
}

/// Other users who fill the root daemon's socket do not keep root out.
#[test]
fn strangers_do_not_keep_the_owner_out() {
    if !uzfs_testkit::paths::is_root() {
        report::line("SKIPPED strangers: only root may become another user");
        return;
    }
    let session = Session::start().unwrap();
    let mut connections = Vec::new();
    // Each thread has credentials of its own.
    let socket = session.socket();
    let held = thread::spawn(move || {
        // SAFETY: the raw call changes the user of this thread alone, which ends with this closure.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 61_234, 61_234, 61_234) };
        assert_eq!(changed, 0);
        (0..400).filter_map(|_| UnixStream::connect(&socket).ok()).collect::<Vec<_>>()
    });
    connections.extend(held.join().unwrap());
    assert!(connections.len() >= 64);
    session.ok("zpool", &["list"]).unwrap();
    let mut last = connections.pop().unwrap();
    last.set_read_timeout(Some(PROMPT)).unwrap();
    assert_eq!(last.read(&mut [0; 8]).unwrap(), 0, "one too many is closed at once");
    drop(connections);
    session.finish().unwrap();
}

#[test]
fn mount_points_that_will_not_do() {
    let Some(pool) = open("tank") else { return };
    let session = Session::start().unwrap();
    session.import("tank", &pool.devices, &[]).unwrap();
    let point = session.root().join("tank");
    let fails = |what: &str| {
        let out = limited(&session, "zfs", &["mount", "tank"]);
        assert!(out.code == Some(1) && out.stderr.starts_with("cannot mount '"), "{what}: {out}");
    };
    fs::write(&point, b"a file").unwrap();
    fails("a file");
    fs::remove_file(&point).unwrap();
    std::os::unix::fs::symlink("nowhere", &point).unwrap();
    fails("a link to nothing");
    fs::remove_file(&point).unwrap();
    // Not empty: as on Linux with OpenZFS, mounted over.
    fs::create_dir(&point).unwrap();
    fs::write(point.join("below"), b"").unwrap();
    session.ok("zfs", &["mount", "tank"]).unwrap();
    assert!(!point.join("below").exists());
    // Busy: refused, and let go with force while a file is open.
    let busy = File::open(files(&point).first().unwrap()).unwrap();
    let out = limited(&session, "zpool", &["export", "tank"]);
    assert!(out.code == Some(1) && out.stderr.contains("busy"), "{out}");
    session.ok("zpool", &["export", "-f", "tank"]).unwrap();
    drop(busy);
    assert!(point.join("below").exists());
    session.finish().unwrap();
}
