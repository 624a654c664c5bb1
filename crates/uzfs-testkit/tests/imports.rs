//! Every way to import a pool and to mount what is in it, on pools made here and on one with encryption that OpenZFS
//! made.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};
use uzfs_testkit::corpus::{self, POOLS, Pool};
use uzfs_testkit::process::Output;
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

/// Bytes of each image file; sparse.
const IMAGE: u64 = 96 << 20;

struct Case {
    dir: tempfile::TempDir,
    session: Session,
}

impl Case {
    /// A pool `tank` with a file system below, imported; nothing where pools cannot be mounted.
    fn new(vdevs: &[&str]) -> Option<Self> {
        if !uzfs_testkit::paths::is_root() || !Path::new("/dev/fuse").exists() {
            report::line("SKIPPED imports: needs root and FUSE");
            return None;
        }
        let case = Self { dir: tempfile::tempdir().unwrap(), session: Session::start().unwrap() };
        let mut words = vec!["create".to_owned(), "-f".to_owned(), "-R".to_owned(), case.root(), "tank".to_owned()];
        for word in vdevs {
            let image = word.len() == 1;
            if image {
                File::create(case.dir.path().join(word)).unwrap().set_len(IMAGE).unwrap();
            }
            words.push(if image { case.place(word) } else { (*word).to_owned() });
        }
        case.ok("zpool", &words.iter().map(String::as_str).collect::<Vec<_>>());
        case.ok("zfs", &["create", "tank/fs"]);
        fs::write(case.session.root().join("tank/fs/file"), b"first").unwrap();
        Some(case)
    }

    fn root(&self) -> String {
        self.session.root().to_string_lossy().into_owned()
    }

    fn place(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn file(&self, pool: &str) -> PathBuf {
        self.session.root().join(pool).join("fs/file")
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        self.session.run(program, words).unwrap()
    }

    fn ok(&self, program: &str, words: &[&str]) -> String {
        self.session.ok(program, words).unwrap().stdout
    }

    /// `zpool import` from the folder of the images, below the session's own root.
    fn import(&self, words: &[&str]) -> Output {
        let (dir, root) = (self.place(""), self.root());
        self.run("zpool", &[&["import", "-d", &dir, "-R", &root], words].concat())
    }

    fn imported(&self, words: &[&str]) {
        let out = self.import(words);
        assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{out}");
    }

    /// What the folder offers.
    fn offered(&self, words: &[&str]) -> Output {
        let dir = self.place("");
        self.run("zpool", &[&["import", "-d", &dir], words].concat())
    }

    fn export(&self, pool: &str) {
        self.ok("zpool", &["export", pool]);
    }

    fn get(&self, property: &str, pool: &str) -> String {
        self.ok("zpool", &["get", "-H", "-o", "value", property, pool]).trim().to_owned()
    }
}

#[track_caller]
fn says(out: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (Some(code), stdout, stderr), "{out}");
}

#[test]
fn by_name_by_guid_and_under_another_name() {
    let Some(case) = Case::new(&["mirror", "a", "b"]) else { return };
    let guid = case.get("guid", "tank");
    case.export("tank");
    says(&case.offered(&["nosuch"]), 1, "", "cannot import 'nosuch': no such pool available\n");
    says(&case.offered(&["12345"]), 1, "", "cannot import '12345': no such pool available\n");
    case.imported(&[&guid]);
    assert_eq!(case.get("altroot", "tank"), case.root());
    assert_eq!(fs::read(case.file("tank")).unwrap(), b"first");
    case.export("tank");
    // A temporary name is for this import, and no datasets are mounted with -N.
    case.imported(&["-t", "-N", "tank", "brief"]);
    assert_eq!(case.ok("zpool", &["list", "-H", "-o", "name"]), "brief\n");
    assert_eq!(case.ok("zfs", &["mount"]), "");
    assert_eq!(case.session.mounts(), Vec::<PathBuf>::new());
    case.ok("zfs", &["create", "brief/made"]);
    case.export("brief");
    assert!(case.offered(&[]).stdout.contains("pool: tank\n"));
    // Another one lasts.
    case.imported(&["tank", "other"]);
    assert!(case.session.root().join("other/made").is_dir());
    assert_eq!(fs::read(case.file("other")).unwrap(), b"first");
    case.export("other");
    assert!(case.offered(&[]).stdout.contains("pool: other\n"));
    says(&case.import(&["tank"]), 1, "", "cannot import 'tank': no such pool available\n");
    case.imported(&["-a"]);
    assert_eq!(case.ok("zpool", &["list", "-H", "-o", "name"]), "other\n");
    says(
        &case.import(&["other"]),
        1,
        "",
        "cannot import 'other': a pool with that name already exists\n\
         use the form 'zpool import <pool | id> <newpool>' to give it a new name\n",
    );
    case.export("other");
    case.session.finish().unwrap();
}

#[test]
fn a_destroyed_pool_comes_back() {
    let Some(case) = Case::new(&["a"]) else { return };
    says(&case.offered(&["-D"]), 0, "", "no pools available to import\n");
    case.ok("zpool", &["destroy", "tank"]);
    says(&case.offered(&[]), 0, "", "no pools available to import\n");
    says(&case.import(&["tank"]), 1, "", "cannot import 'tank': no such pool available\n");
    let out = case.offered(&["-D"]);
    assert!(out.code == Some(0) && out.stdout.contains("state: ONLINE (DESTROYED)\n"), "{out}");
    case.imported(&["-D", "-f", "tank"]);
    assert_eq!(fs::read(case.file("tank")).unwrap(), b"first");
    case.export("tank");
    case.imported(&["tank"]);
    case.export("tank");
    case.session.finish().unwrap();
}

#[test]
fn without_a_log_device() {
    let Some(case) = Case::new(&["a", "log", "b"]) else { return };
    case.export("tank");
    fs::rename(case.place("b"), case.place("away")).unwrap();
    fs::create_dir(case.place("only")).unwrap();
    fs::rename(case.place("a"), case.place("only/a")).unwrap();
    fs::create_dir(case.place("else")).unwrap();
    fs::rename(case.place("away"), case.place("else/b")).unwrap();
    let (only, root) = (case.place("only"), case.root());
    let import = |more: &[&str]| case.run("zpool", &[&["import", "-d", &only, "-R", &root], more].concat());
    says(
        &import(&["tank"]),
        1,
        &format!(
            "The devices below are missing or corrupted, use '-m' to import the pool anyway:\n\t    {} [log]\n\n",
            case.place("b")
        ),
        "cannot import 'tank': one or more devices is currently unavailable\n",
    );
    says(&import(&["-m", "tank"]), 0, "", "");
    assert_eq!(fs::read(case.file("tank")).unwrap(), b"first");
    assert_eq!(case.get("health", "tank"), "DEGRADED");
    case.export("tank");
    case.session.finish().unwrap();
}

#[test]
fn what_needs_no_rewinding() {
    let Some(case) = Case::new(&["a"]) else { return };
    fs::write(case.session.root().join("tank/fs/later"), b"second").unwrap();
    case.export("tank");
    let out = case.import(&["-T", "x", "tank"]);
    assert!(out.code == Some(2) && out.stderr.starts_with("invalid txg value\nusage:"), "{out}");
    let out = case.import(&["-n", "tank"]);
    assert!(out.code == Some(2) && out.stderr.starts_with("-n or -X only meaningful with -F\nusage:"), "{out}");
    // Nothing has to be given up: nothing is said, and with -n nothing is done.
    says(&case.import(&["-F", "-n", "tank"]), 0, "", "");
    assert_eq!(case.ok("zpool", &["list", "-H"]), "");
    case.imported(&["-F", "tank"]);
    assert_eq!(fs::read(case.session.root().join("tank/fs/later")).unwrap(), b"second");
    case.export("tank");
    case.session.finish().unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let Some(case) = Case::new(&["a", "raidz", "b", "c", "d"]) else { return };
    case.export("tank");
    for name in ["c", "d"] {
        fs::remove_file(case.place(name)).unwrap();
    }
    let out = case.import(&["tank"]);
    assert_eq!(out.code, Some(1), "{out}");
    assert!(out.stderr.starts_with("cannot import 'tank': "), "{out}");
    for name in ["c", "d"] {
        assert!(out.stderr.contains(&case.place(name)), "{out}");
    }
    assert!(!out.stderr.contains(&case.place("b")), "{out}");
    case.session.finish().unwrap();
}

#[test]
fn mounting_and_unmounting() {
    let Some(case) = Case::new(&["a"]) else { return };
    case.ok("zfs", &["create", "tank/fs/below"]);
    case.ok("zfs", &["create", "-o", "canmount=noauto", "tank/aside"]);
    case.ok("zfs", &["create", "-o", "mountpoint=legacy", "tank/old"]);
    let mounted = || -> Vec<String> {
        let text = case.ok("zfs", &["mount"]);
        text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
    };
    assert_eq!(mounted(), ["tank", "tank/fs", "tank/fs/below"]);
    case.ok("zfs", &["unmount", "-a"]);
    assert_eq!(mounted(), Vec::<String>::new());
    case.ok("zfs", &["mount", "tank"]);
    case.ok("zfs", &["mount", "-R", "tank/fs"]);
    assert_eq!(mounted(), ["tank", "tank/fs", "tank/fs/below"]);
    case.ok("zfs", &["mount", "-a"]);
    case.ok("zfs", &["mount", "tank/aside"]);
    assert_eq!(mounted().len(), 4);
    says(
        &case.run("zfs", &["mount", "tank/old"]),
        1,
        "",
        "cannot mount 'tank/old': legacy mountpoint\nuse mount(8) to mount this filesystem\n",
    );
    says(&case.run("zfs", &["mount", "tank/fs"]), 1, "", "cannot mount 'tank/fs': filesystem already mounted\n");
    // By mount point, and by force.
    let at = case.session.root().join("tank/aside").to_string_lossy().into_owned();
    case.ok("zfs", &["unmount", &at]);
    let open = File::open(case.file("tank")).unwrap();
    let out = case.run("zfs", &["unmount", "tank/fs"]);
    assert!(out.code == Some(1) && out.stderr.contains("pool or dataset is busy"), "{out}");
    case.ok("zfs", &["unmount", "-f", "tank/fs"]);
    drop(open);
    assert_eq!(mounted(), ["tank"]);
    // Read-only for this mount, over a directory with something in it.
    fs::write(case.session.root().join("tank/fs/hidden"), b"").unwrap();
    case.ok("zfs", &["mount", "-O", "-o", "ro", "tank/fs"]);
    assert!(!case.session.root().join("tank/fs/hidden").exists());
    assert!(fs::write(case.session.root().join("tank/fs/new"), b"").is_err());
    let row = case.ok("zfs", &["get", "-H", "-o", "property,value,source", "readonly", "tank/fs"]);
    assert_eq!(row, "readonly\ton\ttemporary\n");
    case.ok("zfs", &["unmount", "tank/fs"]);
    let out = case.run("zfs", &["mount", "-v", "-a"]);
    assert_eq!(out.code, Some(0), "{out}");
    case.export("tank");
    case.session.finish().unwrap();
}

#[test]
fn times_of_access_are_kept_as_a_mount_says() {
    let Some(case) = Case::new(&["a"]) else { return };
    case.ok("zfs", &["unmount", "-a"]);
    let file = case.session.root().join("tank/fs/read");
    let long_ago = UNIX_EPOCH + Duration::from_secs(1000);
    let read_with = |options: &str| {
        case.ok("zfs", &["mount", "-O", "-o", options, "tank/fs"]);
        fs::write(&file, b"contents").unwrap();
        File::open(&file).unwrap().set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
        case.ok("zfs", &["unmount", "tank/fs"]);
        case.ok("zfs", &["mount", "-O", "-o", options, "tank/fs"]);
        fs::read(&file).unwrap();
        let changed = fs::metadata(&file).unwrap().accessed().unwrap() != long_ago;
        let rows = case.ok("zfs", &["get", "-H", "-o", "property,value,source", "atime,relatime", "tank/fs"]);
        case.ok("zfs", &["unmount", "tank/fs"]);
        (changed, rows)
    };
    assert_eq!(read_with("noatime"), (false, "atime\toff\ttemporary\nrelatime\ton\tdefault\n".to_owned()));
    assert_eq!(read_with("norelatime"), (true, "atime\ton\tdefault\nrelatime\toff\ttemporary\n".to_owned()));
    assert_eq!(read_with("atime,relatime"), (true, "atime\ton\tdefault\nrelatime\ton\tdefault\n".to_owned()));
    case.export("tank");
    case.session.finish().unwrap();
}

/// Runs a program that reads `input`.
fn with_input(session: &Session, program: &str, words: &[&str], input: &str) -> Output {
    let mut command = session.command(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = child.wait_with_output().unwrap();
    Output {
        line: words.join(" "),
        code: out.status.code(),
        stdout: String::from_utf8(out.stdout).unwrap(),
        stderr: String::from_utf8(out.stderr).unwrap(),
    }
}

fn crypt() -> Option<Pool> {
    let spec = POOLS.iter().find(|s| s.name == "crypt").expect("the pool is in the table");
    if let Some(why) = corpus::skip_reason(spec) {
        report::line(&format!("SKIPPED keys: {why}"));
        return None;
    }
    Some(corpus::open(spec).unwrap())
}

#[test]
fn keys() {
    let Some(pool) = crypt() else { return };
    let session = Session::start().unwrap();
    let passphrase = fs::read_to_string(pool.devices.join("passphrase")).unwrap();
    let hex = format!("file://{}", pool.devices.join("hexkey").display());
    let (devices, root) = (pool.devices.to_string_lossy().into_owned(), session.root().to_string_lossy().into_owned());
    let status = |name: &str| {
        let out = session.ok("zfs", &["get", "-H", "-o", "value", "keystatus", name]).unwrap();
        out.stdout.trim().to_owned()
    };
    let import = ["import", "-o", "readonly=on", "-d", &devices, "-R", &root, "-l", "crypt"];
    // Every key is tried. They are in files of the machine that made the pool.
    let out = with_input(&session, "zpool", &import, "");
    assert_eq!((out.code, out.stdout.as_str()), (Some(1), "0 / 8 keys successfully loaded\n"), "{out}");
    let why = "Key load error: Failed to open key material file: No such file or directory\n";
    assert_eq!(out.stderr, why.repeat(8), "{out}");
    assert_eq!(session.ok("zfs", &["mount"]).unwrap().stdout.lines().count(), 1);
    let out = with_input(&session, "zfs", &["load-key", "-L", "prompt", "crypt/gcm"], "wrong, of course\n");
    assert_eq!(
        (out.code, out.stderr.as_str()),
        (Some(255), "Key load error: Incorrect key provided for 'crypt/gcm'.\n")
    );
    let out = with_input(&session, "zfs", &["load-key", "-L", "prompt", "crypt/gcm"], &passphrase);
    assert_eq!((out.code, status("crypt/gcm/child")), (Some(0), "available".into()), "{out}");
    session.ok("zfs", &["mount", "crypt/gcm"]).unwrap();
    session.ok("zfs", &["mount", "crypt/gcm/child"]).unwrap();
    // With -n a key is only tried, with -L it comes from elsewhere.
    let out = session.ok("zfs", &["load-key", "-n", "-L", &hex, "crypt/hex"]).unwrap();
    assert_eq!(
        (out.stdout.as_str(), status("crypt/hex")),
        ("1 / 1 key(s) successfully verified\n", "unavailable".into())
    );
    session.ok("zfs", &["load-key", "-L", &hex, "crypt/hex"]).unwrap();
    assert_eq!(status("crypt/hex"), "available");
    let out = session.run("zfs", &["load-key", "-r", "-L", &hex, "crypt"]).unwrap();
    let refused = "alternate keylocation may only be 'prompt' with -r or -a\nusage:";
    assert!(out.code == Some(2) && out.stderr.starts_with(refused), "{out}");
    // In use it stays; -u unloads it with the last mount.
    says(
        &session.run("zfs", &["unload-key", "crypt/gcm"]).unwrap(),
        255,
        "",
        "Key unload error: 'crypt/gcm' is busy.\n",
    );
    session.ok("zfs", &["unmount", "crypt/gcm/child"]).unwrap();
    session.ok("zfs", &["unmount", "-u", "crypt/gcm"]).unwrap();
    assert_eq!((status("crypt/gcm"), status("crypt/gcm/child")), ("unavailable".into(), "unavailable".into()));
    // Tried on the way to a mount.
    let out = session.run("zfs", &["mount", "-l", "crypt/gcm"]).unwrap();
    assert!(out.code == Some(1) && out.stderr.starts_with(why), "{out}");
    let out = with_input(&session, "zfs", &["load-key", "-r", "-L", "prompt", "crypt/gcm"], &passphrase);
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), "1 / 1 key(s) successfully loaded\n"), "{out}");
    let out = session.ok("zfs", &["unload-key", "-r", "crypt"]).unwrap();
    assert_eq!(out.stdout, "2 / 2 key(s) successfully unloaded\n");
    session.ok("zfs", &["load-key", "-L", &hex, "crypt/hex"]).unwrap();
    let out = session.ok("zfs", &["unload-key", "-a"]).unwrap();
    assert_eq!(out.stdout, "1 / 1 key(s) successfully unloaded\n");
    session.ok("zpool", &["export", "crypt"]).unwrap();
    session.finish().unwrap();
}

#[test]
fn status_with_scripts() {
    let Some(case) = Case::new(&["mirror", "a", "b"]) else { return };
    let scripts = case.dir.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    let text = "#!/bin/sh\n[ \"$1\" = -h ] && { echo \"Shows the size.\"; exit; }\n\
        echo \"size=$(stat -c %s \"$VDEV_UPATH\")\"\necho \"pool=$POOL_NAME\"\n";
    fs::write(scripts.join("size"), text).unwrap();
    fs::set_permissions(scripts.join("size"), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |root: &str, words: &[&str]| {
        let mut command = case.session.command("zpool");
        command.env("ZPOOL_SCRIPTS_PATH", &scripts).env("ZPOOL_SCRIPTS_AS_ROOT", root).args(words);
        uzfs_testkit::process::run(&mut command, std::time::Duration::from_secs(30)).unwrap()
    };
    let refused = "Can't run -c with root privileges unless ZPOOL_SCRIPTS_AS_ROOT is set.\n";
    says(&run("0", &["status", "-c", "size", "tank"]), 1, "", refused);
    says(
        &run("1", &["status", "-c"]),
        0,
        "Available 'zpool status -c' commands:\n  size            Shows the size.\n",
        "",
    );
    let out = run("1", &["status", "-c", "size,none", "tank"]);
    let rows: Vec<Vec<&str>> = out.stdout.lines().map(|l| l.split_whitespace().collect()).collect();
    let row = |name: &str| rows.iter().find(|r| r.first().is_some_and(|f| *f == name)).cloned().unwrap_or_default();
    assert_eq!(row("NAME"), ["NAME", "STATE", "READ", "WRITE", "CKSUM", "size", "pool"], "{out}");
    let image = IMAGE.to_string();
    for name in ["a", "b"] {
        assert_eq!(row(&case.place(name))[5..], [image.as_str(), "tank"], "{out}");
    }
    assert_eq!(row("mirror-0").len(), 5, "{out}");
    let out = run("1", &["status", "-j", "-c", "size", "tank"]);
    assert!(out.stdout.contains(&format!("\"size\":\"{image}\"")), "{out}");
    case.export("tank");
    case.session.finish().unwrap();
}

#[test]
fn versions_take_no_names() {
    let session = Session::start().unwrap();
    for program in ["zpool", "zfs"] {
        let out = session.run(program, &["version", "x"]).unwrap();
        assert!(out.code == Some(2) && out.stderr.starts_with("too many arguments\nusage:"), "{out}");
    }
    session.finish().unwrap();
}
