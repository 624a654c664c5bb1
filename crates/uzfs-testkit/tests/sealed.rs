//! Encrypted datasets in a pool that is written, without their keys: their logs are claimed and left to who has the keys,
//! and what happens to datasets as a whole happens to them too. OpenZFS made the pool (two datasets with logs that
//! nobody replayed; a snapshot with the header of a log that is long gone; a clone) and counts what we leave.

use std::fs;
use std::path::Path;
use std::process::Command;
use uzfs_testkit::session::Session;
use uzfs_testkit::{archive, check, paths, report};

const ZDB: &str = "/usr/sbin/zdb";

struct Life {
    session: Session,
    dir: tempfile::TempDir,
}

impl Life {
    fn start() -> Option<Self> {
        if !paths::is_root() {
            report::line("SKIPPED encrypted datasets in a pool that is written: only root may mount");
            return None;
        }
        let from = archive::unpack(&paths::golden().join("sealed.tar.zst"), &paths::cache()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        archive::copy_device(&from.join("d0"), &dir.path().join("d0")).unwrap();
        for file in ["key", "live.sha256", "other.sha256"] {
            fs::copy(from.join(file), dir.path().join(file)).unwrap();
        }
        Some(Self { session: Session::start().unwrap(), dir })
    }

    fn import(&self) {
        let root = self.session.root().to_string_lossy().into_owned();
        let place = self.dir.path().to_string_lossy();
        self.session.ok("zpool", &["import", "-d", &place, "-R", &root, "sealed"]).unwrap();
    }

    fn export(&self) {
        self.session.ok("zpool", &["export", "sealed"]).unwrap();
        check::zdb_clean(self.dir.path(), "sealed").unwrap();
    }

    fn zfs(&self, command: &str) {
        self.session.ok("zfs", &command.split(' ').collect::<Vec<_>>()).unwrap();
    }

    fn refused(&self, command: &str, why: &str) {
        let out = self.session.run("zfs", &command.split(' ').collect::<Vec<_>>()).unwrap();
        assert!(out.code != Some(0) && out.stderr.contains(why), "{command}: {out}");
    }

    fn unlock(&self, roots: [&str; 2]) {
        let key = format!("file://{}", self.dir.path().join("key").display());
        for root in roots {
            self.session.ok("zfs", &["load-key", "-L", &key, root]).unwrap();
        }
        self.zfs("mount -a");
    }

    /// Every file that `list` (made by sha256sum) names is below `at` as it was.
    fn is_as(&self, at: &str, list: &str) {
        let at = self.session.root().join("tmp/m").join(at);
        for line in fs::read_to_string(self.dir.path().join(list)).unwrap().lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            assert_eq!(archive::hash_file(&at.join(name)).unwrap(), sum, "{}", at.join(name).display());
        }
    }

    fn get(&self, property: &str, dataset: &str) -> String {
        self.session.ok("zfs", &["get", "-Hpo", "value", property, dataset]).unwrap().stdout.trim().to_owned()
    }
}

/// The lines about a dataset's log, as OpenZFS's `zdb` sees it; nothing when that is not here.
fn log_of(dir: &Path, dataset: &str) -> Option<Vec<String>> {
    let out = Command::new(ZDB).args(["-e", "-p"]).arg(dir).args(["-iiii", "-d", dataset]).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout);
    Some(text.lines().filter(|l| l.contains("ZIL header") || l.contains("TX_")).map(|l| l.trim().to_owned()).collect())
}

#[test]
fn logs_of_encrypted_datasets_are_claimed_and_kept() {
    let Some(life) = Life::start() else { return };
    let before = ["sealed/enc/frozen", "sealed/enc/thru"].map(|d| log_of(life.dir.path(), d));
    life.import();
    fs::write(life.session.root().join("tmp/m/plain/file"), [5; 1 << 20]).unwrap();
    life.export();
    for (dataset, before) in ["sealed/enc/frozen", "sealed/enc/thru"].into_iter().zip(before) {
        let Some((before, after)) = before.zip(log_of(life.dir.path(), dataset)) else { continue };
        let records = |lines: &[String]| lines.iter().filter(|l| l.contains("TX_")).count();
        assert!(records(&before) > 5 && before[0].contains("claim_txg 0"), "{dataset}: {before:?}");
        assert!(records(&after) == records(&before) && !after[0].contains("claim_txg 0,"), "{dataset}: {after:?}");
    }
    // Once more: what is claimed stays so, and reads.
    life.import();
    life.session.ok("zpool", &["scrub", "-w", "sealed"]).unwrap();
    check::no_data_errors(&life.session, "sealed").unwrap();
    life.unlock(["sealed/enc", "sealed/other"]);
    life.is_as("other", "other.sha256");
    life.export();
}

#[test]
fn encrypted_datasets_live_on_without_their_keys() {
    let Some(life) = Life::start() else { return };
    life.import();
    life.refused("create sealed/enc/new", "not supported yet");
    life.refused("rename sealed/enc/frozen sealed/out", "cannot move encrypted child outside of its encryption root");
    life.refused("promote sealed/copy", "not supported yet");
    life.refused("set userquota@root=1g sealed/enc", "not supported yet");
    life.zfs("snapshot -r sealed@ours");
    assert_ne!(life.get("ivsetguid", "sealed/enc@ours"), "-");
    assert_eq!(life.get("ivsetguid", "sealed/plain@ours"), "-");
    life.zfs("bookmark sealed/other@ours sealed/other#mark");
    assert_eq!(life.get("ivsetguid", "sealed/other#mark"), life.get("ivsetguid", "sealed/other@ours"));
    life.zfs("clone sealed/enc@live sealed/two");
    life.zfs("clone sealed/other@first sealed/plain/three");
    life.zfs("destroy -r sealed/copy");
    life.zfs("destroy -r sealed/enc/child");
    life.zfs("rename sealed/other sealed/plain/other");
    life.zfs("destroy sealed/enc@ours");
    life.zfs("rollback sealed/enc@live");
    assert_eq!(life.get("encryptionroot", "sealed/two"), "sealed/enc");
    life.export();
    // The snapshot has the header of the log that there was when it was taken.
    for dataset in ["sealed/enc", "sealed/two"] {
        assert!(log_of(life.dir.path(), dataset).is_none_or(|lines| lines.is_empty()), "{dataset}");
    }
    life.import();
    life.unlock(["sealed/enc", "sealed/plain/other"]);
    life.is_as("enc", "live.sha256");
    life.is_as("two", "live.sha256");
    life.is_as("plain/three", "other.sha256");
    life.is_as("plain/other", "other.sha256");
    // The last user of a key takes it along.
    life.zfs("destroy -R sealed/enc");
    life.zfs("destroy -R sealed/plain/other");
    life.export();
    life.import();
    let feature = life.session.ok("zpool", &["get", "-Ho", "value", "feature@encryption", "sealed"]).unwrap();
    assert_eq!(feature.stdout.trim(), "enabled");
    life.export();
}
