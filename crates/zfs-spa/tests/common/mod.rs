//! Where the corpus of pools made by OpenZFS lies, and how to open one of them.
#![allow(dead_code)]

pub mod names;

use std::path::PathBuf;
use std::sync::Arc;
use zfs_spa::{ImportOptions, Pool, PoolCandidate, Search, discover, import};
use zfs_zio::arc::ArcCache;

/// The corpus, if it is there: `UZFS_CORPUS`, or `corpus` beside the workspace.
pub fn corpus() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let places = [std::env::var_os("UZFS_CORPUS").map(PathBuf::from), Some(beside.join("corpus"))];
    let found = places.into_iter().flatten().find(|p| p.join("basic/d0").exists());
    if found.is_none() {
        eprintln!("SKIPPED: no unpacked corpus; set UZFS_CORPUS to a folder with basic/d0");
    }
    found
}

/// Names of all pools of the corpus.
pub fn pools(corpus: &std::path::Path) -> Vec<String> {
    let mut out: Vec<String> = std::fs::read_dir(corpus)
        .unwrap()
        .filter_map(|e| e.ok())
        .filter(|e| e.path().join("d0").exists())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    out.sort();
    out
}

pub fn options() -> ImportOptions {
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(256 << 20)), None);
    options.force = true;
    options
}

pub fn find(corpus: &std::path::Path, name: &str) -> PoolCandidate {
    let found = discover(&Search::Paths(vec![corpus.join(name)])).unwrap();
    let mut pools: Vec<_> = found.pools.into_iter().filter(|p| p.name == name).collect();
    assert_eq!(pools.len(), 1, "{name}: one pool expected");
    pools.remove(0)
}

pub fn open(corpus: &std::path::Path, name: &str) -> Arc<Pool> {
    import(&find(corpus, name), &options()).unwrap_or_else(|e| panic!("{name}: {e} ({:?})", e.problem))
}
