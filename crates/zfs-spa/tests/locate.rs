//! Finding all members of a pool from some of them, among files of every kind.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use zfs_spa::{PoolCandidate, Search, discover, import};

/// Bytes of one label.
const LABEL: u64 = 256 << 10;

struct Place {
    corpus: PathBuf,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Option<Self> {
        Some(Self { corpus: common::corpus()?, dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn link(&self, device: &str, name: &str) {
        symlink(self.corpus.join(device), self.path(name)).unwrap();
    }

    fn copy(&self, device: &str, name: &str) -> PathBuf {
        fs::copy(self.corpus.join(device), self.path(name)).unwrap();
        self.path(name)
    }

    /// Zeroes labels of a copy.
    fn wipe(&self, device: &Path, labels: &[u64]) {
        let file = OpenOptions::new().write(true).open(device).unwrap();
        let size = file.metadata().unwrap().len() / LABEL * LABEL;
        let zeroes = vec![0; LABEL as usize];
        for label in labels {
            let at = [0, LABEL, size - 2 * LABEL, size - LABEL][*label as usize];
            file.write_all_at(&zeroes, at).unwrap();
        }
    }
}

fn pools(place: &Path) -> Vec<PoolCandidate> {
    discover(&Search::Paths(vec![place.to_path_buf()])).unwrap().pools
}

#[test]
fn one_member_finds_the_others() {
    let Some(place) = Place::new() else { return };
    for i in 0..4 {
        place.link(&format!("twomirrors/d{i}"), &format!("d{i}"));
    }
    // Its own mirror is in its label, the other one only in the meta object set, which has two copies.
    let found = pools(&place.path("d1"));
    assert_eq!((found.len(), found[0].devices.len()), (1, 4));
    assert!(found[0].devices.values().all(|d| d.path.starts_with(place.dir.path())));
    import(&found[0], &common::options()).unwrap();
}

#[test]
fn renamed_and_swapped_members_are_found_in_their_folder() {
    let Some(place) = Place::new() else { return };
    place.link("z1x3/d0", "d1");
    place.link("z1x3/d1", "d0");
    place.link("z1x3/d2", "quite another name");
    let found = pools(place.dir.path());
    assert_eq!((found.len(), found[0].devices.len()), (1, 3));
    import(&found[0], &common::options()).unwrap();
    // So do those that one member leads to: the names that its label tells lead to others or to nothing.
    for name in ["d0", "d1", "quite another name"] {
        let found = pools(&place.path(name));
        assert_eq!((found.len(), found[0].devices.len()), (1, 3), "{name}");
        import(&found[0], &common::options()).unwrap();
    }
}

#[test]
fn renamed_members_of_other_vdevs_are_found_beside_one_member() {
    let Some(place) = Place::new() else { return };
    for (i, name) in ["red", "green", "blue", "white"].iter().enumerate() {
        place.link(&format!("twomirrors/d{i}"), name);
    }
    let found = pools(&place.path("blue"));
    assert_eq!((found.len(), found[0].devices.len()), (1, 4));
    import(&found[0], &common::options()).unwrap();
}

#[test]
fn a_member_of_another_pool_at_the_place_is_not_taken() {
    let Some(place) = Place::new() else { return };
    place.link("m3/d0", "d0");
    place.link("z1x3/d1", "d1");
    place.link("stripe3/d2", "d2");
    let found = pools(&place.path("d0"));
    assert_eq!((found.len(), found[0].devices.len()), (1, 1));
    assert_eq!(pools(place.dir.path()).len(), 3);
}

#[test]
fn the_same_device_by_two_names_is_one() {
    let Some(place) = Place::new() else { return };
    place.link("m3/d0", "a");
    place.link("m3/d0", "b");
    place.copy("m3/d0", "copy");
    let found = pools(place.dir.path());
    assert_eq!((found.len(), found[0].devices.len()), (1, 1));
}

#[test]
fn any_label_is_enough() {
    let Some(place) = Place::new() else { return };
    for kept in 0..4 {
        let device = place.copy("basic/d0", &format!("label{kept}"));
        place.wipe(&device, &(0..4).filter(|l| *l != kept).collect::<Vec<_>>());
        let found = pools(&device);
        assert_eq!(found.len(), 1, "label {kept}");
        import(&found[0], &common::options()).unwrap_or_else(|e| panic!("label {kept}: {e}"));
        fs::remove_file(device).unwrap();
    }
    let device = place.copy("basic/d0", "none");
    place.wipe(&device, &[0, 1, 2, 3]);
    assert!(pools(&device).is_empty());
}

#[test]
fn a_truncated_member_is_shown_and_not_used() {
    let Some(place) = Place::new() else { return };
    place.link("m3/d0", "d0");
    let device = place.copy("m3/d1", "d1");
    OpenOptions::new().write(true).open(&device).unwrap().set_len(20 << 20).unwrap();
    let found = pools(place.dir.path());
    let pool = import(&found[0], &common::options()).unwrap();
    let states: Vec<String> = pool.zio().vdevs().root().leaves().iter().map(|l| format!("{:?}", l.aux())).collect();
    assert_eq!(states, ["None", "TooSmall", "OpenFailed"]);
}

#[test]
fn odd_files_neither_hang_nor_hide_a_pool() {
    let Some(place) = Place::new() else { return };
    place.link("basic/d0", "d0");
    for i in 0..3000 {
        fs::write(place.path(&format!("file{i}")), [i as u8; 700]).unwrap();
    }
    let fifo = place.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    symlink("/dev/zero", place.path("zero")).unwrap();
    symlink("/nonexistent", place.path("nowhere")).unwrap();
    symlink(place.dir.path(), place.path("around")).unwrap();
    assert_eq!(pools(place.dir.path()).len(), 1);
    for odd in ["fifo", "zero", "nowhere"] {
        assert!(pools(&place.path(odd)).is_empty());
    }
}

#[test]
fn what_is_missing_is_told_apart() {
    let Some(place) = Place::new() else { return };
    let trouble = |devices: &[&str]| {
        let dir = tempfile::tempdir_in(place.dir.path()).unwrap();
        for device in devices {
            symlink(place.corpus.join(device), dir.path().join(device.replace('/', "-"))).unwrap();
        }
        let found = pools(dir.path());
        let seen = zfs_spa::locate::examine(&found[0]).unwrap();
        format!("{:?}", seen.trouble())
    };
    assert_eq!(trouble(&["z1x3/d0"]), "NoReplicas");
    assert_eq!(trouble(&["stripe3/d0", "stripe3/d1"]), "NoReplicas");
    // Without the special class the meta object set cannot be read, and nothing tells what is missing.
    assert_eq!(trouble(&["classes/d0", "classes/d1", "classes/d2"]), "CorruptData");
}
