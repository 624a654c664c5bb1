//! Imports every pool of the corpus and compares what is seen with what OpenZFS's tools printed.

mod common;

use common::{corpus, find, open, options, pools};
use zfs_spa::{DatasetKind, import};

#[test]
fn every_pool_is_imported_and_lists_its_datasets() {
    let Some(corpus) = corpus() else { return };
    let mut failed = Vec::new();
    for name in pools(&corpus) {
        let pool = match import(&find(&corpus, &name), &options()) {
            Ok(pool) => pool,
            Err(e) => {
                failed.push(format!("{name}: {e} {:?}", e.problem));
                continue;
            }
        };
        if let Err(e) = list(&corpus, &pool) {
            failed.push(format!("{name}: {e}"));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

fn list(corpus: &std::path::Path, pool: &std::sync::Arc<zfs_spa::Pool>) -> Result<(), String> {
    let text = |e: zfs_spa::Error| e.to_string();
    let dsl = pool.dsl().map_err(text)?;
    let mut seen = Vec::new();
    for ds in dsl.filesystems().map_err(text)? {
        seen.push((ds.name.clone(), ds.kind().map_err(text)?.name(), ds.phys.guid));
        for snap in ds.snapshots().map_err(text)? {
            assert_eq!(snap.kind().unwrap(), DatasetKind::Snapshot);
            seen.push((snap.name.clone(), "snapshot", snap.phys.guid));
        }
        for mark in ds.bookmarks().map_err(text)? {
            seen.push((mark.name.clone(), "bookmark", mark.phys.guid));
        }
    }
    let expect = std::fs::read_to_string(corpus.join(&**pool.name()).join("expect/zfs-list")).unwrap();
    let rows = expect.lines().map(|l| l.split('\t').collect::<Vec<_>>());
    let mut want: Vec<_> = rows.map(|f| (f[0].to_owned(), f[1], f[2].parse::<u64>().unwrap())).collect();
    want.sort();
    seen.sort();
    if want != seen { Err(format!("\nwant {want:?}\nseen {seen:?}")) } else { Ok(()) }
}

#[test]
fn names_lead_to_datasets() {
    let Some(corpus) = corpus() else { return };
    let pool = open(&corpus, "basic");
    let dsl = pool.dsl().unwrap();
    let snap = dsl.dataset("basic/home/data@one").unwrap().unwrap();
    assert_eq!(dsl.by_object(snap.object).unwrap().unwrap().name, snap.name);
    assert!(dsl.dataset("basic/nothing").unwrap().is_none());
    assert!(dsl.dataset("basic@nothing").unwrap().is_none());
    assert_eq!(dsl.dataset("basic@one").unwrap().unwrap().holds().unwrap()[0].0, "keep");
}
