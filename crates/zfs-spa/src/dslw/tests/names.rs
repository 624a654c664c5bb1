//! Names that cannot be, and what must not happen twice in one txg.

use super::*;
use zfs_zio::ErrorKind as K;

fn create(dsl: &DslPool, tx: &Tx, path: &str) -> Result<()> {
    let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
    dsl.create(tx, path, new).map(drop)
}

fn kind<T>(result: Result<T>) -> Option<K> {
    result.err().map(|e| e.kind())
}

#[test]
fn names_that_the_tools_could_not_spell_do_not_come_to_be() {
    let mut mini = Mini::new();
    let long = "x".repeat(200);
    mini.sync(|dsl, tx| {
        for path in ["a", "b", "b/child"] {
            create(dsl, tx, path).unwrap();
        }
    });
    mini.sync(|dsl, tx| {
        let head = dsl.find("b/child").unwrap().unwrap();
        dsl.snapshot(tx, &head, &"s".repeat(100), 5).map(drop).unwrap();
    });
    mini.sync(|dsl, tx| {
        let a = dsl.find("a").unwrap().unwrap();
        for bad in ["a@x", "a#x", "a/b%c", "a/", "", "a/..", "./c", "a//b", "a/ü", "a/x\0"] {
            assert!(matches!(kind(create(dsl, tx, bad)), Some(K::Invalid | K::NotFound)), "{bad}");
            let snap = format!("b/child@{}", "s".repeat(100));
            assert!(matches!(kind(dsl.clone_of(tx, bad, &snap)), Some(K::Invalid | K::NotFound)), "{bad}");
            assert!(matches!(kind(dsl.rename(tx, &a.dir(), "a", bad)), Some(K::Invalid | K::NotFound)), "{bad}");
        }
        for bad in ["x/y", "x@y", "x#y", "", ".", "..", "x%y"] {
            assert_eq!(kind(dsl.snapshot(tx, &a, bad, 5)), Some(K::Invalid), "{bad}");
            let from = "s".repeat(100);
            assert_eq!(kind(dsl.rename_snapshots(tx, "b/child", &from, bad, false)), Some(K::Invalid), "{bad}");
        }
        assert_eq!(kind(create(dsl, tx, &format!("a/{}", "x".repeat(255)))), Some(K::NameTooLong));
        assert_eq!(kind(dsl.snapshot(tx, &a, &"y".repeat(255), 5)), Some(K::NameTooLong));
        // The directory itself would fit, what is below it would not.
        let b = dsl.find("b").unwrap().unwrap();
        assert_eq!(kind(dsl.rename(tx, &b.dir(), "b", &long)), Some(K::NameTooLong));
        let deep = vec!["d"; 51].join("/");
        assert_eq!(kind(create(dsl, tx, &deep)), Some(K::Loop));
        for path in ["a", "b", "b/child"] {
            assert!(dsl.find_dir(path).unwrap().is_some(), "{path} is still there");
        }
        create(dsl, tx, "a b-c_d.e:f").unwrap();
    });
    mini.check();
}

#[test]
fn two_snapshots_of_one_dataset_are_of_two_txgs() {
    let mut mini = Mini::new();
    mini.sync(|dsl, tx| create(dsl, tx, "a").unwrap());
    mini.sync(|dsl, tx| {
        let head = dsl.find("a").unwrap().unwrap();
        dsl.snapshot(tx, &head, "one", 5).map(drop).unwrap();
        assert_eq!(kind(dsl.snapshot(tx, &head, "two", 5)), Some(K::Busy));
        assert_eq!(kind(dsl.clone_of(tx, "c", "a@one")), Some(K::Busy));
        assert_eq!(kind(dsl.rollback(tx, &head)), Some(K::Busy));
    });
    mini.sync(|dsl, tx| {
        let head = dsl.find("a").unwrap().unwrap();
        dsl.snapshot(tx, &head, "two", 5).map(drop).unwrap();
    });
    mini.check();
}
