//! Pools made and written through the programs, and judged by OpenZFS's own `zdb` where it is installed: nothing leaks, every
//! block verifies. A daemon that is killed loses nothing that was synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use uzfs_testkit::corpus::{self, POOLS};
use uzfs_testkit::session::Session;
use uzfs_testkit::{archive, check, report};

/// Bytes of each image file; sparse.
const IMAGE: u64 = 128 << 20;

/// Why pools cannot be mounted here; nothing when they can.
fn skipped(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let fuse = Path::new("/dev/fuse").exists();
    if !root || !fuse {
        report::line(&format!("SKIPPED {test}: needs root and FUSE"));
    }
    !root || !fuse
}

fn images(dir: &Path, count: usize) -> Vec<String> {
    let make = |n| {
        let path = dir.join(format!("d{n}"));
        File::create(&path).unwrap().set_len(IMAGE).unwrap();
        path.to_string_lossy().into_owned()
    };
    (0..count).map(make).collect()
}

fn zdb(dir: &Path, pool: &str) {
    check::zdb_clean(dir, pool).unwrap();
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

/// Writes a small tree; gives what every file holds.
fn fill(at: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    for dir in 0..4u32 {
        let place = at.join(format!("dir{dir}"));
        fs::create_dir(&place).unwrap();
        for n in 0..20u32 {
            let len = [0, 1, 511, 4096, 100_000, 300_001][(n % 6) as usize];
            let (path, data) = (place.join(format!("file{n}")), contents(dir * 100 + n, len));
            fs::write(&path, &data).unwrap();
            out.insert(path, data);
        }
    }
    symlink("dir0/file1", at.join("link")).unwrap();
    fs::set_permissions(at.join("dir1"), fs::Permissions::from_mode(0o750)).unwrap();
    out
}

fn same(files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, data) in files {
        assert_eq!(fs::read(path).unwrap(), *data, "{}", path.display());
    }
}

fn layout(name: &str, words: &[&str], count: usize) {
    workload(name, &[], words, count, "zstd");
}

fn workload(name: &str, flags: &[&str], words: &[&str], count: usize, compression: &str) {
    let test = format!("writing a pool of {name}");
    if skipped(&test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = images(dir.path(), count);
    let session = Session::start().unwrap();
    let root = session.root().to_string_lossy().into_owned();
    let mut args = [&["create", "-R", &root], flags, &["tank"]].concat();
    let mut next = devices.iter();
    for word in words {
        args.push(if *word == "DEV" { next.next().unwrap() } else { word });
    }
    session.ok("zpool", &args).unwrap();
    let at = session.root().join("tank");
    let files = fill(&at);
    session.ok("zfs", &["snapshot", "tank@one"]).unwrap();
    session.ok("zfs", &["create", "-o", &format!("compression={compression}"), "tank/sub"]).unwrap();
    let below = fill(&at.join("sub"));
    // Things that go, so that blocks are freed, kept by the snapshot, or shared with it.
    for n in 0..10 {
        fs::remove_file(at.join(format!("dir2/file{n}"))).unwrap();
    }
    fs::rename(at.join("dir3/file1"), at.join("dir0/moved")).unwrap();
    let mut big = File::options().write(true).open(at.join("dir1/file5")).unwrap();
    big.write_all(&contents(9999, 70_000)).unwrap();
    big.sync_all().unwrap();
    drop(big);
    same(&below);
    let kept: BTreeMap<PathBuf, Vec<u8>> = files
        .iter()
        .map(|(path, data)| (at.join(".zfs/snapshot/one").join(path.strip_prefix(&at).unwrap()), data.clone()))
        .collect();
    same(&kept);
    session.ok("zpool", &["export", "tank"]).unwrap();
    zdb(dir.path(), "tank");
    let place = dir.path().to_string_lossy().into_owned();
    session.ok("zpool", &["import", "-d", &place, "-R", &root, "-o", "readonly=off", "tank"]).unwrap();
    same(&below);
    same(&kept);
    assert!(at.join("dir0/moved").exists() && !at.join("dir2/file3").exists());
    assert_eq!(fs::metadata(at.join("dir1")).unwrap().permissions().mode() & 0o777, 0o750);
    session.ok("zfs", &["destroy", "tank@one"]).unwrap();
    session.ok("zfs", &["destroy", "tank/sub"]).unwrap();
    session.ok("zpool", &["sync"]).unwrap();
    session.ok("zpool", &["export", "tank"]).unwrap();
    zdb(dir.path(), "tank");
    session.finish().unwrap();
    report::line(&format!("{name}: made, written, destroyed in part, clean"));
}

#[test]
fn one_device() {
    layout("one device", &["DEV"], 1);
}

/// Nothing that needs a feature is written into a pool that has none.
#[test]
fn no_features() {
    workload("no features", &["-d"], &["mirror", "DEV", "DEV"], 2, "gzip");
}

#[test]
fn a_mirror() {
    layout("a mirror", &["mirror", "DEV", "DEV"], 2);
}

#[test]
fn raidz1() {
    layout("raidz1", &["raidz", "DEV", "DEV", "DEV"], 3);
}

#[test]
fn raidz2_with_log_and_special() {
    let words = ["-f", "raidz2", "DEV", "DEV", "DEV", "DEV", "special", "DEV", "log", "DEV"];
    layout("raidz2 with a log and a special device", &words, 6);
}

#[test]
fn a_killed_daemon_keeps_what_was_synced() {
    if skipped("killing a daemon that writes") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = images(dir.path(), 2);
    let mut session = Session::start().unwrap();
    let root = session.root().to_string_lossy().into_owned();
    let place = dir.path().to_string_lossy().into_owned();
    session.ok("zpool", &["create", "-R", &root, "tank", "mirror", &devices[0], &devices[1]]).unwrap();
    let at = session.root().join("tank");
    let mut synced: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for round in 0..4u32 {
        for n in 0..8 {
            let (path, data) = (at.join(format!("r{round}-{n}")), contents(round * 50 + n, 20_000));
            let mut file = File::create(&path).unwrap();
            file.write_all(&data).unwrap();
            file.sync_all().unwrap();
            synced.insert(path, data);
        }
        fs::write(at.join(format!("unsynced{round}")), contents(round, 50_000)).unwrap();
        session.kill();
        zdb(dir.path(), "tank");
        session.restart().unwrap();
        session.ok("zpool", &["import", "-f", "-d", &place, "-R", &root, "-o", "readonly=off", "tank"]).unwrap();
        same(&synced);
    }
    session.ok("zpool", &["export", "tank"]).unwrap();
    zdb(dir.path(), "tank");
    session.finish().unwrap();
}

/// A pool that OpenZFS made without features is written as such, and becomes one with features when it is told to.
#[test]
fn version_28() {
    let spec = POOLS.iter().find(|p| p.name == "v28").unwrap();
    if skipped("writing a pool of version 28") {
        return;
    }
    if let Some(reason) = corpus::skip_reason(spec) {
        return report::line(&format!("SKIPPED writing a pool of version 28: {reason}"));
    }
    let (pool, dir) = (corpus::open(spec).unwrap(), tempfile::tempdir().unwrap());
    for name in pool.device_names() {
        archive::copy_device(&pool.devices.join(&name), &dir.path().join(&name)).unwrap();
    }
    let session = Session::start().unwrap();
    let place = dir.path().to_string_lossy().into_owned();
    let root = session.root().to_string_lossy().into_owned();
    let import = || session.ok("zpool", &["import", "-d", &place, "-R", &root, "v28"]).unwrap();
    let zfs = |words: &[&str]| session.ok("zfs", words).unwrap();
    let at = session.root().join("v28");
    import();
    let refused = session.run("zfs", &["set", "compression=zstd", "v28"]).unwrap();
    assert_eq!(refused.code, Some(255), "{refused}");
    assert!(refused.stderr.contains("pool and or dataset must be upgraded to set this property or value"), "{refused}");
    zfs(&["create", "v28/sub"]);
    let below = fill(&at.join("sub"));
    zfs(&["snapshot", "v28/sub@one"]);
    zfs(&["clone", "v28/sub@one", "v28/clone"]);
    fs::write(at.join("clone/dir0/file5"), b"changed").unwrap();
    fs::remove_dir_all(at.join("sub/dir1")).unwrap();
    zfs(&["rollback", "v28/sub@one"]);
    same(&below);
    zfs(&["create", "-V", "8M", "v28/volume"]);
    let sparse = File::options().create_new(true).write(true).open(at.join("sub/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &contents(1, 3 << 20), 1 << 20).unwrap();
    sparse.set_len(2 << 20).unwrap();
    drop(sparse);
    session.ok("zpool", &["export", "v28"]).unwrap();
    zdb(dir.path(), "v28");
    import();
    same(&below);
    zfs(&["destroy", "v28/clone"]);
    zfs(&["destroy", "-r", "v28/sub"]);
    session.ok("zpool", &["export", "v28"]).unwrap();
    zdb(dir.path(), "v28");
    import();
    let said = session.ok("zpool", &["upgrade", "v28"]).unwrap();
    assert!(said.stdout.contains("Successfully upgraded 'v28' from version 28 to feature flags."), "{said}");
    zfs(&["create", "-o", "compression=zstd", "v28/new"]);
    let new = fill(&at.join("new"));
    session.ok("zpool", &["export", "v28"]).unwrap();
    zdb(dir.path(), "v28");
    import();
    same(&new);
    zfs(&["destroy", "v28/new"]);
    session.ok("zpool", &["export", "v28"]).unwrap();
    zdb(dir.path(), "v28");
    session.finish().unwrap();
}
