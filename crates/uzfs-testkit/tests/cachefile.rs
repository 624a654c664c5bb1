//! Finding pools through a cache file, also when their devices have other names by now, and what is said when the file
//! or a place to search cannot be used.

use std::fs::{self, File};
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

fn says(session: &Session, args: &[&str], code: i32, err: &str) {
    let out = session.run("zpool", args).unwrap();
    assert_eq!((out.code, out.stderr.as_str()), (Some(code), err), "zpool {args:?}: {out}");
}

#[test]
fn places_that_cannot_be_searched() {
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk");
    fs::write(&junk, "junk").unwrap();
    let (junk, inside) = (junk.to_string_lossy().into_owned(), junk.join("x").to_string_lossy().into_owned());
    let gone = dir.path().join("gone").to_string_lossy().into_owned();
    let session = Session::start().unwrap();
    let no_such = "cannot import 'tank': no such pool available\n";
    let opened = "failed to open cache file: No such file or directory\n";
    says(&session, &["import", "-c", &gone, "tank"], 1, &format!("{opened}{no_such}"));
    let bad = "invalid or corrupt cache file contents: invalid or missing cache file\n";
    says(&session, &["import", "-c", &junk, "tank"], 1, &format!("{bad}{no_such}"));
    says(&session, &["import", "-d", &gone, "tank"], 1, no_such);
    let resolved = format!("cannot resolve path '{inside}': Not a directory\n");
    says(&session, &["import", "-d", &inside, "tank"], 1, &format!("{resolved}{no_such}"));
}

#[test]
fn renamed_devices_are_found_beside_where_they_were() {
    if !rustix::process::geteuid().is_root() {
        report::line("SKIPPED a cache file after renaming: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let [a, b, file, kept] = ["a", "b", "cache", "kept"].map(at);
    for path in [&a, &b] {
        File::create(path).unwrap().set_len(128 << 20).unwrap();
    }
    let session = Session::start().unwrap();
    let root = session.root().to_string_lossy().into_owned();
    let property = format!("cachefile={file}");
    session.ok("zpool", &["create", "-R", &root, "-o", &property, "tank", "mirror", &a, &b]).unwrap();
    fs::copy(&file, &kept).unwrap();
    session.ok("zpool", &["export", "tank"]).unwrap();
    fs::rename(&a, at("c")).unwrap();
    fs::rename(&b, at("d")).unwrap();
    let out = session.run("zpool", &["import", "-c", &kept, "-R", &root, "-N", "tank"]).unwrap();
    assert_eq!(out.code, Some(0), "{out}");
    assert!(out.stdout.contains("cachefile import failed, retrying\n"), "{out}");
    let listed = session.run("zpool", &["list", "-vHP", "tank"]).unwrap();
    assert!(listed.stdout.contains(&at("c")) && listed.stdout.contains(&at("d")), "{listed}");
    session.ok("zpool", &["export", "tank"]).unwrap();
}
