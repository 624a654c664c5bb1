//! Where things are: the repository, the programs under test, the corpus, scratch space.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The folder of the programs under test: `UZFS_BIN_DIR`, or where cargo put this test's programs.
pub fn programs() -> PathBuf {
    if let Some(dir) = std::env::var_os("UZFS_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new("."));
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() }
}

/// A program under test by its name.
pub fn program(name: &str) -> PathBuf {
    programs().join(name)
}

/// The folder of the corpus archives: `UZFS_CORPUS`, or `shared/corpus` beside the repository.
pub fn corpus() -> Option<PathBuf> {
    let dir = match std::env::var_os("UZFS_CORPUS") {
        Some(dir) => PathBuf::from(dir),
        None => repository().parent()?.join("shared/corpus"),
    };
    dir.is_dir().then_some(dir)
}

/// Pools that ship with the repository, and what OpenZFS printed about others.
pub fn golden() -> PathBuf {
    repository().join("tests/golden")
}

/// Scratch space on disk that is kept between runs.
pub fn cache() -> PathBuf {
    match std::env::var_os("UZFS_TEST_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => {
            programs().parent().map_or_else(|| std::env::temp_dir().join("uzfs-test-cache"), |t| t.join("test-cache"))
        }
    }
}

/// Whether this process is root: mounts that show every owner and device need it.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
