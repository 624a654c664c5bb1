//! A pool whose heads know blocks of a removed device under their new addresses, while snapshots have the old ones: what is
//! destroyed, taken, rolled back and promoted in it leaves the lists of old addresses right, as OpenZFS's own `zdb` counts.

use std::fs;
use std::path::Path;
use uzfs_testkit::corpus::{self, POOLS};
use uzfs_testkit::session::Session;
use uzfs_testkit::{archive, check, manifest, report};

/// Commands of one life of the pool, `zfs` but where a word says otherwise.
const LIVES: [&[&str]; 7] = [
    // The oldest first: nothing is obsolete until the last that has the old addresses goes.
    &["destroy remapped@one", "destroy remapped/fs@one", "destroy remapped@two", "destroy remapped@three"],
    // The newest first: the lists move into the heads.
    &["destroy -r remapped@four", "write", "destroy -r remapped@three", "destroy remapped@two"],
    &[
        "destroy remapped@two",
        "destroy remapped@three",
        "snapshot -r remapped@five",
        "write",
        "snapshot -r remapped@six",
    ],
    &[
        "write",
        "rollback remapped/fs@four",
        "rollback remapped@four",
        "destroy -r remapped@three",
        "destroy remapped@two",
    ],
    &["promote remapped/clone", "destroy -r remapped/fs", "destroy remapped/clone@one", "write"],
    &[
        "destroy -r remapped/clone",
        "destroy remapped/fs@two",
        "destroy remapped/fs@one",
        "write",
        "destroy -r remapped@four",
    ],
    // All that had old addresses.
    &[
        "destroy -r remapped/fs@one",
        "destroy -R remapped/fs@two",
        "destroy remapped@one%four",
        "destroy remapped/fs@three,four",
    ],
];

struct Life {
    session: Session,
    dir: tempfile::TempDir,
}

impl Life {
    fn import(&self) {
        let root = self.session.root().to_string_lossy().into_owned();
        let place = self.dir.path().to_string_lossy();
        self.session.ok("zpool", &["import", "-d", &place, "-R", &root, "remapped"]).unwrap();
    }

    fn export(&self) {
        self.session.ok("zpool", &["export", "remapped"]).unwrap();
        check::zdb_clean(self.dir.path(), "remapped").unwrap();
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.session.root().join("mnt/r").join(path)
    }

    fn act(&self, command: &str) {
        match command {
            "write" => {
                for file in ["a", "b", "fs/c", "clone/c"].map(|f| self.at(f)).iter().filter(|f| f.exists()) {
                    let file = fs::File::options().write(true).open(file).unwrap();
                    for block in [5, 77, 311] {
                        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 700], block * 512).unwrap();
                    }
                    file.sync_all().unwrap();
                }
            }
            command => {
                self.session.ok("zfs", &command.split(' ').collect::<Vec<_>>()).unwrap();
            }
        }
    }
}

fn tree(at: &Path) -> manifest::Manifest {
    manifest::walk(at, manifest::Content::Hash).unwrap()
}

fn live(lives: &[&[&str]]) {
    let spec = POOLS.iter().find(|p| p.name == "remapped").unwrap();
    if let Some(reason) = corpus::skip_reason(spec) {
        return report::line(&format!("SKIPPED remapped blocks: {reason}"));
    }
    let pool = corpus::open(spec).unwrap();
    for life in lives {
        let dir = tempfile::tempdir().unwrap();
        archive::copy_device(&pool.devices.join("d0"), &dir.path().join("d0")).unwrap();
        let it = Life { session: Session::start().unwrap(), dir };
        it.import();
        for command in *life {
            it.act(command);
        }
        let before = tree(&it.at(""));
        it.export();
        it.import();
        let differ = manifest::differences(&before, &tree(&it.at("")), &[]);
        assert!(differ.is_empty(), "{life:?}: {differ:?}");
    }
}

#[test]
fn old_addresses_are_accounted_for() {
    live(&LIVES[..3]);
}

#[test]
fn old_addresses_are_accounted_for_in_clones_and_after_rollbacks() {
    live(&LIVES[3..]);
}
