//! Mounts datasets of the corpus through the kernel and looks at them with system calls.

#[path = "../../zfs-zpl/tests/common/pools.rs"]
#[allow(dead_code)]
mod pools;

use rustix::fs::{AtFlags, StatxFlags};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use uzfs_fuse::{Mount, MountConfig};
use uzfs_testkit::manifest::{self, Content};
use zfs_spa::Pool;

/// Why mounts cannot be tested here, said loudly.
fn cannot() -> bool {
    let why = if fs::metadata("/dev/fuse").is_err() {
        "there is no /dev/fuse"
    } else if !uzfs_fuse::is_root() {
        "only root sees every owner and device through a mount"
    } else if pools::corpus().is_empty() {
        "there is no corpus (set UZFS_CORPUS)"
    } else {
        return false;
    };
    eprintln!("SKIPPED: {why}");
    true
}

fn open(name: &str) -> (pools::CorpusPool, Arc<Pool>) {
    let pool = pools::corpus().into_iter().find(|p| p.name == name).expect("in the corpus");
    let open = pools::import(&pool.dir).unwrap();
    (pool, open)
}

fn mount(pool: &Arc<Pool>, dataset: &str, at: &Path) -> Mount {
    let ds = pools::dsl(pool).dataset(dataset).unwrap().expect("exists");
    let vfs = Arc::new(pools::vfs_of(pool, &ds).unwrap());
    Mount::new(vfs, at, &MountConfig::new(dataset)).unwrap()
}

fn expect(pool: &pools::CorpusPool, dataset: &str) -> manifest::Manifest {
    let file = pool.dir.join("expect").join(format!("files.{}", dataset.replace('/', "%")));
    manifest::parse(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn a_mount_shows_what_openzfs_showed() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, dataset) in [("m3", "m3"), ("acls", "acls"), ("longnames", "longnames/l")] {
        let (pool, open) = open(name);
        let mount = mount(&open, dataset, dir.path());
        let seen = manifest::walk(dir.path(), Content::Hash).unwrap();
        let ds = pools::dsl(&open).dataset(dataset).unwrap().unwrap();
        let foreign = pools::foreign(&pools::dsl(&open), &ds);
        let seen = seen.into_iter().filter(|(p, _)| !foreign.iter().any(|f| f.as_bytes() == &p[..])).collect();
        let differences = manifest::differences(&expect(&pool, dataset), &seen, &[]);
        assert!(differences.is_empty(), "{dataset}:\n{}", differences.join("\n"));
        let line = mounted(dir.path()).expect("in the mount table");
        assert!(
            line.contains(" fuse.zfs ") && line.contains(&format!(" {dataset} ")) && line.contains(" ro,"),
            "{line}"
        );
        mount.unmount(false).unwrap();
        assert_eq!(mounted(dir.path()), None);
    }
}

/// The line of the mount table for `at`.
fn mounted(at: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().find(|l| l.contains(&format!(" {} ", at.display()))).map(str::to_owned)
}

#[test]
fn snapshots_are_below_zfs() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (pool, open) = open("basic");
    let mount = mount(&open, "basic", dir.path());
    assert!(!fs::read_dir(dir.path()).unwrap().any(|e| e.unwrap().file_name() == ".zfs"));
    let snapdir = dir.path().join(".zfs/snapshot");
    assert_eq!(fs::metadata(dir.path().join(".zfs")).unwrap().ino(), 0xFFFF_FFFF_FFFF);
    let mut names: Vec<_> = fs::read_dir(&snapdir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    for name in ["one", "two"] {
        let seen = manifest::walk(&snapdir.join(name), Content::Hash).unwrap();
        let differences = manifest::differences(&expect(&pool, &format!("basic@{name}")), &seen, &[]);
        assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    }
    mount.unmount(false).unwrap();
}

#[test]
fn what_changes_files_is_refused() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, open) = open("m3");
    let mount = mount(&open, "m3", dir.path());
    let file = dir.path().join("file.txt");
    let refused = |r: std::io::Result<()>| assert_eq!(r.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    refused(fs::write(&file, "x"));
    refused(fs::create_dir(dir.path().join("d")));
    refused(fs::remove_file(&file));
    refused(fs::rename(&file, dir.path().join("g")));
    assert_eq!(fs::read(&file).unwrap(), b"HelloWorld\n");
    assert_eq!(fs::metadata(dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::metadata(file.join("x")).unwrap_err().kind(), ErrorKind::NotADirectory);
    mount.unmount(false).unwrap();
}

#[test]
fn creation_time_and_space_are_told() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, open) = open("m3");
    let mount = mount(&open, "m3", dir.path());
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let s = rustix::fs::statx(rustix::fs::CWD, dir.path().join("file.txt"), AtFlags::empty(), mask).unwrap();
    assert!(StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::BTIME));
    assert!(s.stx_btime.tv_sec > 1_700_000_000 && s.stx_btime.tv_sec <= s.stx_mtime.tv_sec);
    let v = rustix::fs::statvfs(dir.path()).unwrap();
    assert_eq!((v.f_bsize, v.f_namemax), (128 << 10, 255));
    mount.unmount(false).unwrap();
}

#[test]
fn holes_are_found() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, open) = open("m3");
    let mount = mount(&open, "m3", dir.path());
    let file = fs::File::open(dir.path().join("sparse/s3")).unwrap();
    use rustix::fs::{SeekFrom, seek};
    assert_eq!(seek(&file, SeekFrom::Data(0)), Ok(0));
    let hole = seek(&file, SeekFrom::Hole(0)).unwrap();
    let data = seek(&file, SeekFrom::Data(hole)).unwrap();
    assert!(hole <= 128 << 10 && data > 1 << 39);
    assert_eq!(seek(&file, SeekFrom::Data(1 << 41)), Err(rustix::io::Errno::NXIO));
    let mut zeros = [1; 4096];
    file.read_exact_at(&mut zeros, 1 << 30).unwrap();
    assert_eq!(zeros, [0; 4096]);
    drop(file);
    mount.unmount(false).unwrap();
}

#[test]
fn the_end_is_noticed_whoever_unmounts() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, open) = open("m3");
    let mount = mount(&open, "m3", dir.path());
    let busy = fs::File::open(dir.path().join("file.txt")).unwrap();
    assert_eq!(mount.unmount(false).unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert!(mount.is_alive());
    let (tell, told) = mpsc::channel();
    mount.on_end(move || tell.send(()).unwrap());
    drop(busy);
    uzfs_fuse::unmount(dir.path(), false).unwrap();
    told.recv_timeout(Duration::from_secs(10)).unwrap();
    mount.wait();
    assert!(!mount.is_alive());
    assert_eq!(mounted(dir.path()), None);
}

#[test]
fn a_mount_that_somebody_took_away_and_others_still_see_is_busy() {
    if cannot() {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, open) = open("m3");
    let mount = mount(&open, "m3", dir.path());
    rustix::mount::mount_bind(dir.path(), other.path()).unwrap();
    uzfs_fuse::unmount(dir.path(), false).unwrap();
    assert_eq!(mount.unmount(false).unwrap_err().kind(), ErrorKind::ResourceBusy);
    uzfs_fuse::unmount(other.path(), false).unwrap();
    mount.unmount(false).unwrap();
    assert!(!mount.is_alive());
}

#[test]
fn dropping_a_busy_mount_leaves_nothing() {
    if cannot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, open) = open("m3");
    let mount = mount(&open, "m3", dir.path());
    let busy = fs::File::open(dir.path().join("sizes/393217")).unwrap();
    drop(mount);
    assert_eq!(mounted(dir.path()), None);
    assert!(busy.read_at(&mut [0; 10], 200_000).is_err());
}
