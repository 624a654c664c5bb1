//! What OpenZFS 2.3.2's tools printed for real pools, turned into the contract's raw values and printed
//! again, is the same byte for byte.

mod common;

use common::{Fake, load, places, run, same};
use std::path::Path;
use std::sync::Arc;
use uzfs_client::{zfs, zpool};
use uzfs_proto::Backend;

fn with(name: &str, place: &Path) -> Arc<dyn Backend> {
    let (pool, datasets, history) = load(name, place);
    Arc::new(Fake { pools: vec![pool], datasets, history, ..Fake::default() })
}

fn each(file: &str, check: impl Fn(&str, &Arc<dyn Backend>, &str)) {
    let mut seen = 0;
    for (name, place) in places() {
        let Ok(want) = std::fs::read_to_string(place.join(file)) else { continue };
        seen += 1;
        check(&name, &with(&name, &place), &want);
    }
    assert!(seen >= 2, "only {seen} fixtures with {file}");
}

#[test]
fn zfs_list() {
    each("zfs-list", |name, backend, want| {
        let columns = "name,type,guid,used,avail,refer,mountpoint,origin,createtxg";
        let ran = run(&zfs::PROGRAM, backend, &format!("list -Hp -r -t all -o {columns} {name}"));
        same(&format!("{name} zfs list"), &ran.out, want);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    });
}

#[test]
fn zfs_get() {
    each("zfs-get", |name, backend, want| {
        let ran = run(&zfs::PROGRAM, backend, &format!("get -Hp -r all {name}"));
        same(&format!("{name} zfs get"), &ran.out, want);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    });
}

#[test]
fn zpool_get() {
    each("zpool-get", |name, backend, want| {
        let ran = run(&zpool::PROGRAM, backend, &format!("get -Hp all {name}"));
        same(&format!("{name} zpool get"), &ran.out, want);
    });
}

#[test]
fn zpool_list() {
    each("zpool-list", |name, backend, want| {
        let ran = run(&zpool::PROGRAM, backend, &format!("list -Hpv {name}"));
        same(&format!("{name} zpool list"), &ran.out, want);
    });
}

#[test]
fn zpool_status() {
    each("zpool-status", |name, backend, want| {
        let ran = run(&zpool::PROGRAM, backend, &format!("status -pv {name}"));
        same(&format!("{name} zpool status"), &ran.out, want);
    });
}

#[test]
fn zpool_history() {
    each("zpool-history", |name, backend, want| {
        let ran = run(&zpool::PROGRAM, backend, &format!("history -il {name}"));
        same(&format!("{name} zpool history"), &ran.out, want);
    });
}
