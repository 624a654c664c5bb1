//! What an fsync covers is found although no txg reached the disk after it: it is in the intent log, which OpenZFS's `zdb`
//! reads, where it is installed, before and after it is claimed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

/// Bytes of each image file; sparse.
const IMAGE: u64 = 128 << 20;

/// Why pools cannot be mounted here; nothing when they can.
fn skipped(test: &str) -> bool {
    let possible = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !possible {
        report::line(&format!("SKIPPED {test}: needs root and FUSE"));
    }
    !possible
}

fn images(dir: &Path, count: usize) -> Vec<String> {
    let make = |n| {
        let path = dir.join(format!("d{n}"));
        File::create(&path).unwrap().set_len(IMAGE).unwrap();
        path.to_string_lossy().into_owned()
    };
    (0..count).map(make).collect()
}

/// What `zdb` prints of a pool that nobody writes; nothing where it is not installed.
fn examined(dir: &Path, how: &str) -> Option<String> {
    let out = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args([how, "tank"]).output().ok()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn zdb(dir: &Path) {
    if let Some(text) = examined(dir, "-bbcc") {
        assert!(text.contains("No leaks (block sum matches space maps exactly)"), "{text}");
        assert!(!text.contains("checksum error"), "{text}");
    }
}

/// Contents that do not compress to nothing and differ from file to file.
fn contents(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(step).collect()
}

fn same(files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, data) in files {
        assert!(fs::read(path).unwrap() == *data, "{}", path.display());
    }
}

fn durable(path: &Path, data: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(data).unwrap();
    file.sync_all().unwrap();
}

fn fsynced_only(name: &str, words: &[&str], count: usize) {
    if skipped(&format!("fsync on {name}")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = images(dir.path(), count);
    let mut session = Session::start().unwrap();
    let root = session.root().to_string_lossy().into_owned();
    let place = dir.path().to_string_lossy().into_owned();
    let mut args = vec!["create", "-R", &root, "tank"];
    let mut next = devices.iter();
    for word in words {
        args.push(if *word == "DEV" { next.next().unwrap() } else { word });
    }
    session.ok("zpool", &args).unwrap();
    let at = session.root().join("tank");
    durable(&at.join("first"), b"the first fsync makes the log");
    session.ok("zpool", &["sync"]).unwrap();
    let mut made: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    fs::create_dir(at.join("d")).unwrap();
    fs::write(at.join("d/gone"), b"x").unwrap();
    for n in 0..12u32 {
        let len = [1, 4096, 100_000, 700_001][(n % 4) as usize];
        let (path, data) = (at.join(format!("d/f{n}")), contents(n, len));
        durable(&path, &data);
        made.insert(path, data);
    }
    symlink("f1", at.join("d/link")).unwrap();
    fs::hard_link(at.join("d/f2"), at.join("d/hard")).unwrap();
    fs::rename(at.join("d/f3"), at.join("moved")).unwrap();
    fs::remove_file(at.join("d/gone")).unwrap();
    fs::set_permissions(at.join("d/f4"), fs::Permissions::from_mode(0o640)).unwrap();
    let mut file = File::options().write(true).open(at.join("d/f1")).unwrap();
    file.write_all(b"new").unwrap();
    file.set_len(2000).unwrap();
    file.sync_all().unwrap();
    File::open(at.join("d/f4")).unwrap().sync_all().unwrap();
    drop(file);
    session.kill();
    let three = made.remove(&at.join("d/f3")).unwrap();
    made.insert(at.join("moved"), three);
    let one = made.get_mut(&at.join("d/f1")).unwrap();
    one.splice(..3, *b"new");
    one.truncate(2000);
    if let Some(text) = examined(dir.path(), "-ivvv") {
        assert!(text.contains("TX_WRITE") && text.contains("TX_RENAME"), "{text}");
    }
    zdb(dir.path());
    session.restart().unwrap();
    session.ok("zpool", &["import", "-f", "-N", "-d", &place, "-R", &root, "-o", "readonly=off", "tank"]).unwrap();
    // Claimed, and not replayed yet.
    zdb(dir.path());
    session.ok("zfs", &["mount", "tank"]).unwrap();
    same(&made);
    assert_eq!(fs::read_link(at.join("d/link")).unwrap(), Path::new("f1"));
    assert_eq!(fs::read(at.join("d/hard")).unwrap(), made[&at.join("d/f2")]);
    assert!(!at.join("d/gone").exists() && !at.join("d/f3").exists());
    assert_eq!(fs::metadata(at.join("d/f4")).unwrap().permissions().mode() & 0o7777, 0o640);
    session.ok("zpool", &["export", "tank"]).unwrap();
    zdb(dir.path());
    if let Some(text) = examined(dir.path(), "-ivvv") {
        assert!(!text.contains("TX_"), "an exported pool has a log:\n{text}");
    }
    session.finish().unwrap();
}

#[test]
fn fsync_on_one_device() {
    fsynced_only("one device", &["DEV"], 1);
}

#[test]
fn fsync_on_raidz_with_a_mirrored_log() {
    let words = ["-f", "raidz", "DEV", "DEV", "DEV", "log", "mirror", "DEV", "DEV"];
    fsynced_only("raidz with a mirrored log", &words, 5);
}
