//! Full pools and datasets: writers get `ENOSPC` and `EDQUOT`, never a pool that stops; whatever is full can be emptied and
//! written again, and OpenZFS's `zdb` finds nothing wrong, where it is installed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

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

/// A megabyte that does not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..1 << 17).flat_map(step).collect()
}

/// Writes files of 8 MiB until something refuses; gives the megabytes written and the error.
fn fill(at: &Path, most: u64) -> (u64, io::Error) {
    let mut written = 0;
    for n in 0.. {
        let result = File::create(at.join(format!("big{n}"))).and_then(|mut file| {
            for _ in 0..8 {
                file.write_all(&noise(written + 1))?;
                written += 1;
            }
            Ok(())
        });
        assert!(written <= most, "{written} MiB fit where {most} should not");
        if let Err(e) = result {
            return (written, e);
        }
    }
    unreachable!("nothing is endless");
}

fn empty(at: &Path) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

fn pool(words: &[&str], count: usize, test: impl FnOnce(&Session, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let session = Session::start().unwrap();
    let root = session.root().to_string_lossy().into_owned();
    let mut args: Vec<String> = ["create", "-R", &root, "tank"].map(str::to_owned).into();
    args.extend(words.iter().map(|w| (*w).to_owned()));
    for n in 0..count {
        let path = dir.path().join(format!("d{n}"));
        File::create(&path).unwrap().set_len(384 << 20).unwrap();
        args.push(path.to_string_lossy().into_owned());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    session.ok("zpool", &args).unwrap();
    test(&session, &session.root().join("tank"));
    session.ok("zpool", &["export", "tank"]).unwrap();
    zdb(dir.path());
    session.finish().unwrap();
}

/// Fills, empties, and fills again.
fn twice(session: &Session, at: &Path, most: u64) {
    let mut written = Vec::new();
    for _ in 0..2 {
        let (mib, e) = fill(at, most);
        assert_eq!(e.kind(), io::ErrorKind::StorageFull, "{e}");
        assert_eq!(fs::write(at.join("small"), noise(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        written.push(mib);
        empty(at);
        session.ok("zpool", &["sync", "tank"]).unwrap();
    }
    // What was there once fits again, about.
    assert!(written[0].abs_diff(written[1]) * 10 < written[0], "{written:?}");
    fs::write(at.join("after"), noise(7)).unwrap();
    assert_eq!(fs::read(at.join("after")).unwrap(), noise(7));
}

#[test]
fn a_full_pool_can_be_emptied() {
    if !skipped("a full pool") {
        pool(&[], 1, |session, at| twice(session, at, 384));
    }
}

#[test]
fn a_full_raidz_pool_can_be_emptied() {
    if !skipped("a full raidz pool") {
        pool(&["raidz"], 3, |session, at| twice(session, at, 768));
    }
}

#[test]
fn quotas_are_met_within_what_is_under_way() {
    if skipped("quotas") {
        return;
    }
    pool(&[], 1, |session, at| {
        for (name, value, child) in [("quota", "40M", "q"), ("refquota", "30M", "r")] {
            let dataset = format!("tank/{child}");
            session.ok("zfs", &["create", "-o", &format!("{name}={value}"), &dataset]).unwrap();
            let limit = if child == "q" { 40 } else { 30 };
            let (mib, e) = fill(&at.join(child), limit + 8);
            assert_eq!(e.kind(), io::ErrorKind::QuotaExceeded, "{name}: {e}");
            assert!(mib + 4 >= limit, "{name}: only {mib} MiB of {limit} fit");
            // Others still can, and this one after something went.
            fs::write(at.join("other"), noise(3)).unwrap();
            empty(&at.join(child));
            session.ok("zpool", &["sync", "tank"]).unwrap();
            fs::write(at.join(child).join("again"), noise(4)).unwrap();
        }
    });
}
