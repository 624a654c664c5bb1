//! Devices that go, come back, join and leave pools in use, and pools of every layout: judged by OpenZFS's own `zdb` where
//! it is installed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::report;
use uzfs_testkit::session::Session;

/// Bytes of each image file; sparse.
const IMAGE: u64 = 128 << 20;

fn images(dir: &Path, count: usize) -> Vec<String> {
    let make = |n| {
        let path = dir.join(format!("d{n}"));
        File::create(&path).unwrap().set_len(IMAGE).unwrap();
        path.to_string_lossy().into_owned()
    };
    (0..count).map(make).collect()
}

/// What OpenZFS says of a pool that is exported.
fn zdb(dir: &Path) {
    let Ok(out) = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args(["tank", "-bbcc"]).output() else {
        report::line("SKIPPED zdb: it is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let clean = text.contains("No leaks (block sum matches space maps exactly)") && !text.contains("checksum error");
    assert!(out.status.success() && clean, "{text}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// A pool and its files; nothing where pools cannot be mounted.
struct Case {
    dir: tempfile::TempDir,
    devices: Vec<String>,
    session: Session,
}

impl Case {
    fn new(words: &[&str], count: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            report::line("SKIPPED a pool of devices: needs root and FUSE");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let devices = images(dir.path(), count);
        let case = Self { dir, devices, session: Session::start().unwrap() };
        let root = case.session.root().to_string_lossy().into_owned();
        let mut args = vec!["create".to_owned(), "-R".to_owned(), root, "tank".to_owned()];
        args.extend(words.iter().map(|w| case.word(w)));
        case.session.ok("zpool", &args.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        Some(case)
    }

    /// A device by number, or the word itself.
    fn word(&self, word: &str) -> String {
        word.parse::<usize>().map_or_else(|_| word.to_owned(), |n| self.devices[n].clone())
    }

    fn zpool(&self, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|w| self.word(w)).collect();
        self.session.ok("zpool", &words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().stdout
    }

    fn file(&self, name: &str) -> PathBuf {
        self.session.root().join("tank").join(name)
    }

    fn write(&self, name: &str, seed: u64) {
        fs::write(self.file(name), contents(seed)).unwrap();
    }

    fn check(&self, name: &str, seed: u64) {
        assert!(fs::read(self.file(name)).unwrap() == contents(seed), "{name}");
    }

    /// Waits until `zpool status` says `wanted`.
    fn until(&self, wanted: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let text = self.zpool(&["status", "tank"]);
            if text.contains(wanted) {
                return text;
            }
            assert!(Instant::now() < end, "not '{wanted}': {text}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn import_again(&self) {
        self.zpool(&["export", "tank"]);
        zdb(self.dir.path());
        self.import();
    }

    fn import(&self) {
        let place = self.dir.path().to_string_lossy().into_owned();
        let root = self.session.root().to_string_lossy().into_owned();
        self.zpool(&["import", "-d", &place, "-R", &root, "-o", "readonly=off", "tank"]);
    }

    fn end(self) {
        self.zpool(&["export", "tank"]);
        zdb(self.dir.path());
        self.session.finish().unwrap();
    }
}

/// Contents that do not compress.
fn contents(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..600_001).map(step).collect()
}

#[test]
fn a_device_that_was_away_is_filled() {
    let Some(case) = Case::new(&["mirror", "0", "1"], 2) else { return };
    case.write("before", 1);
    case.zpool(&["offline", "tank", "1"]);
    assert!(case.zpool(&["status", "tank"]).contains("DEGRADED"));
    case.write("meanwhile", 2);
    case.zpool(&["online", "tank", "1"]);
    let text = case.until("scan: resilvered");
    assert!(text.contains("with 0 errors") && !text.contains("resilvered 0B"), "{text}");
    // What was written meanwhile is on the device that was away: the other one may go.
    case.zpool(&["offline", "tank", "0"]);
    case.check("meanwhile", 2);
    case.check("before", 1);
    case.zpool(&["online", "tank", "0"]);
    case.until("scan: resilvered");
    case.end();
}

#[test]
fn devices_missing_at_import_are_filled_later() {
    let Some(case) = Case::new(&["raidz2", "0", "1", "2", "3", "4"], 5) else { return };
    case.write("before", 1);
    case.zpool(&["offline", "tank", "1"]);
    case.zpool(&["offline", "tank", "3"]);
    case.write("meanwhile", 2);
    case.import_again();
    case.write("later", 3);
    case.zpool(&["online", "tank", "1", "3"]);
    let text = case.until("scan: resilvered");
    assert!(text.contains("with 0 errors") && !text.contains("resilvered 0B"), "{text}");
    case.zpool(&["offline", "tank", "0"]);
    case.zpool(&["offline", "tank", "2"]);
    for (name, seed) in [("before", 1), ("meanwhile", 2), ("later", 3)] {
        case.check(name, seed);
    }
    case.end();
}

#[test]
fn a_scrub_repairs() {
    let Some(case) = Case::new(&["raidz1", "0", "1", "2"], 3) else { return };
    (0..8).for_each(|n| case.write(&format!("file{n}"), n));
    case.zpool(&["export", "tank"]);
    let device = OpenOptions::new().write(true).open(&case.devices[1]).unwrap();
    device.write_all_at(&vec![0x5a; 40 << 20], 5 << 20).unwrap();
    let place = case.dir.path().to_string_lossy().into_owned();
    let root = case.session.root().to_string_lossy().into_owned();
    case.zpool(&["import", "-d", &place, "-R", &root, "-o", "readonly=off", "tank"]);
    case.zpool(&["scrub", "-w", "tank"]);
    let text = case.zpool(&["status", "tank"]);
    assert!(text.contains("scrub repaired") && !text.contains("repaired 0B"), "{text}");
    case.zpool(&["clear", "tank"]);
    case.zpool(&["scrub", "-w", "tank"]);
    let text = case.zpool(&["status", "tank"]);
    assert!(text.contains("scrub repaired 0B") && text.contains("No known data errors"), "{text}");
    (0..8).for_each(|n| case.check(&format!("file{n}"), n));
    case.end();
}

#[test]
fn pools_grow() {
    let Some(case) = Case::new(&["0"], 6) else { return };
    case.write("before", 1);
    case.zpool(&["add", "tank", "1"]);
    case.zpool(&["add", "tank", "log", "2", "cache", "3", "spare", "4"]);
    case.zpool(&["add", "tank", "special", "5"]);
    (10..20).for_each(|n| case.write(&format!("after{n}"), n));
    let text = case.zpool(&["status", "tank"]);
    for word in ["logs", "cache", "spares", "AVAIL"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    case.import_again();
    case.check("before", 1);
    (10..20).for_each(|n| case.check(&format!("after{n}"), n));
    case.end();
}

#[test]
fn devices_are_replaced_attached_and_detached() {
    let Some(case) = Case::new(&["raidz1", "0", "1", "2"], 6) else { return };
    case.write("before", 1);
    case.zpool(&["replace", "tank", "1", "3"]);
    case.until("scan: resilvered");
    let end = Instant::now() + Duration::from_secs(30);
    while case.zpool(&["status", "tank"]).contains("replacing") {
        assert!(Instant::now() < end, "{}", case.zpool(&["status", "tank"]));
        thread::sleep(Duration::from_millis(100));
    }
    assert!(case.zpool(&["status", "tank"]).contains(&case.devices[3]));
    assert!(!case.zpool(&["status", "tank"]).contains(&case.devices[1]));
    case.zpool(&["offline", "tank", "0"]);
    case.check("before", 1);
    case.end();

    let Some(case) = Case::new(&["0"], 2) else { return };
    case.write("before", 1);
    case.zpool(&["attach", "tank", "0", "1"]);
    case.until("scan: resilvered");
    case.write("after", 2);
    case.import_again();
    case.zpool(&["detach", "tank", "0"]);
    case.check("before", 1);
    case.check("after", 2);
    case.end();
}

#[test]
fn properties_features_and_identity_change() {
    let words = ["-o", "compatibility=openzfs-2.1-linux", "-o", "comment=first", "0"];
    if !Path::new("/usr/share/zfs/compatibility.d").is_dir() {
        return report::line("SKIPPED compatibility sets: none are installed");
    }
    let Some(case) = Case::new(&words, 1) else { return };
    let get = |name: &str| case.zpool(&["get", "-Ho", "value", name, "tank"]).trim().to_owned();
    assert_eq!((get("comment").as_str(), get("feature@blake3").as_str()), ("first", "disabled"));
    case.zpool(&["set", "comment=second thoughts", "tank"]);
    case.zpool(&["set", "failmode=continue", "tank"]);
    case.zpool(&["set", "compatibility=off", "tank"]);
    let before = get("guid");
    case.zpool(&["reguid", "tank"]);
    case.zpool(&["upgrade", "tank"]);
    case.import_again();
    assert_eq!((get("comment").as_str(), get("failmode").as_str()), ("second thoughts", "continue"));
    assert_eq!(get("feature@blake3"), "enabled");
    assert_ne!(get("guid"), before);
    case.end();
}

#[test]
fn destroyed_pools_come_back_and_labels_go() {
    let Some(case) = Case::new(&["0"], 1) else { return };
    case.write("file", 1);
    let refused = case.session.run("zpool", &["labelclear", "-f", &case.devices[0]]).unwrap();
    assert_ne!(refused.code, Some(0));
    case.zpool(&["destroy", "tank"]);
    let place = case.dir.path().to_string_lossy().into_owned();
    let root = case.session.root().to_string_lossy().into_owned();
    assert!(case.zpool(&["import", "-D", "-d", &place]).contains("DESTROYED"));
    case.zpool(&["import", "-D", "-f", "-d", &place, "-R", &root, "-o", "readonly=off", "tank"]);
    case.check("file", 1);
    case.zpool(&["export", "tank"]);
    zdb(case.dir.path());
    let again = case.session.run("zpool", &["create", "-R", &root, "other", &case.devices[0]]).unwrap();
    assert!(again.stderr.contains("is part of exported pool 'tank'"), "{again}");
    let kept = case.session.run("zpool", &["labelclear", &case.devices[0]]).unwrap();
    assert!(kept.stderr.contains("is a member of exported pool \"tank\""), "{kept}");
    case.zpool(&["labelclear", "-f", "0"]);
    case.zpool(&["create", "-R", &root, "other", "0"]);
    case.zpool(&["destroy", "other"]);
    case.session.finish().unwrap();
}

#[test]
fn every_layout_is_made() {
    let layouts: [(&[&str], usize); 5] = [
        (&["draid1:2d:1s", "0", "1", "2", "3", "4"], 5),
        (&["draid2:4d:1s", "0", "1", "2", "3", "4", "5", "6", "7"], 8),
        (
            &[
                "raidz1", "0", "1", "2", "special", "mirror", "3", "4", "log", "mirror", "5", "6", "cache", "7",
                "spare", "8",
            ],
            9,
        ),
        (&["-o", "ashift=13", "raidz3", "0", "1", "2", "3", "4", "5", "6"], 7),
        (&["0", "dedup", "1", "special", "2", "log", "3"], 4),
    ];
    for (words, count) in layouts {
        let words: Vec<&str> = if words.contains(&"special") { [&["-f"], words].concat() } else { words.to_vec() };
        let Some(case) = Case::new(&words, count) else { return };
        (0..5).for_each(|n| case.write(&format!("file{n}"), n));
        case.import_again();
        (0..5).for_each(|n| case.check(&format!("file{n}"), n));
        case.end();
    }
}

/// The sentence with which a command is refused.
fn refusal(case: &Case, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| case.word(w)).collect();
    let out = case.session.run("zpool", &words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_ne!(out.code, Some(0), "{words:?}");
    out.stderr.trim().to_owned()
}

/// The state that `zpool status` shows of a distributed spare among the spares.
fn spare_state(case: &Case, name: &str) -> String {
    let text = case.zpool(&["status", "tank"]);
    let spares = text.split("spares\n").nth(1).unwrap_or_default().to_owned();
    let line = spares.lines().find(|l| l.contains(name)).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Waits until no resilver is under way.
fn until_filled(case: &Case) {
    let end = Instant::now() + Duration::from_secs(60);
    while case.zpool(&["status", "tank"]).contains("resilver in progress") {
        assert!(Instant::now() < end, "{}", case.zpool(&["status", "tank"]));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until a distributed spare is given back.
fn until_given_back(case: &Case, name: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while spare_state(case, name) != "AVAIL" {
        assert!(Instant::now() < end, "{}", case.zpool(&["status", "tank"]));
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn distributed_spares_stand_in() {
    let Some(case) = Case::new(&["draid1:2d:1s", "0", "1", "2", "3", "4"], 7) else { return };
    (0..6).for_each(|n| case.write(&format!("file{n}"), n));
    case.zpool(&["offline", "tank", "1"]);
    case.write("meanwhile", 7);
    case.zpool(&["replace", "-w", "tank", "1", "draid1-0-0"]);
    let text = case.zpool(&["status", "tank"]);
    assert!(text.contains("scan: resilvered") && text.contains("with 0 errors"), "{text}");
    assert!(text.contains("spare-1") && spare_state(&case, "draid1-0-0") == "INUSE", "{text}");
    // The spare holds what was on the device that is away: another may go now, and come back.
    case.zpool(&["offline", "tank", "3"]);
    let all = |case: &Case| {
        (0..6).for_each(|n| case.check(&format!("file{n}"), n));
        case.check("meanwhile", 7);
    };
    all(&case);
    case.import_again();
    all(&case);
    case.write("with two away", 8);
    case.zpool(&["online", "tank", "3"]);
    until_filled(&case);
    case.zpool(&["scrub", "-w", "tank"]);
    let text = case.zpool(&["status", "tank"]);
    assert!(text.contains("scrub repaired 0B") && text.contains("No known data errors"), "{text}");
    // A new device takes the place of the one that is away, and then of the spare.
    case.zpool(&["replace", "-w", "tank", "1", "5"]);
    until_given_back(&case, "draid1-0-0");
    assert!(!case.zpool(&["status", "tank"]).contains("DEGRADED"));
    case.import_again();
    all(&case);
    // Given back while the device that it stands in for is away.
    case.zpool(&["offline", "tank", "0"]);
    case.zpool(&["replace", "-w", "tank", "0", "draid1-0-0"]);
    case.write("on the spare", 9);
    case.zpool(&["detach", "tank", "draid1-0-0"]);
    assert_eq!(spare_state(&case, "draid1-0-0"), "AVAIL");
    case.import_again();
    for (name, seed) in [("on the spare", 9), ("with two away", 8)] {
        case.check(name, seed);
    }
    all(&case);
    // It stays a spare in use when the device that it stands in for is detached, until a new one takes its place.
    case.zpool(&["replace", "-w", "tank", "0", "draid1-0-0"]);
    case.zpool(&["detach", "tank", "0"]);
    assert_eq!(spare_state(&case, "draid1-0-0"), "INUSE");
    case.import_again();
    all(&case);
    case.zpool(&["replace", "-w", "tank", "draid1-0-0", "6"]);
    until_given_back(&case, "draid1-0-0");
    assert!(!case.zpool(&["status", "tank"]).contains("DEGRADED"));
    case.zpool(&["offline", "tank", "2"]);
    all(&case);
    case.end();
}

#[test]
fn distributed_spares_are_not_taken_wrongly() {
    let words = ["draid1:2d:1s", "0", "1", "2", "3", "draid1:2d:1s", "4", "5", "6", "7"];
    let Some(case) = Case::new(&words, 9) else { return };
    let device = |n: usize| case.devices[n].clone();
    let other = format!("cannot replace {} with draid1-1-0: ", device(1))
        + "dRAID spares can only replace child devices in their parent's dRAID vdev";
    assert_eq!(refusal(&case, &["replace", "tank", "1", "draid1-1-0"]), other);
    let none = format!("cannot replace {} with draid1-0-7: new device must be a single disk", device(1));
    assert_eq!(refusal(&case, &["replace", "tank", "1", "draid1-0-7"]), none);
    let attached = format!("cannot attach draid1-0-0 to {}: draid1-0-0 is busy", device(1));
    assert_eq!(refusal(&case, &["attach", "tank", "1", "draid1-0-0"]), attached);
    let added = "dRAID spares can only be used to replace primary vdevs";
    assert!(refusal(&case, &["add", "tank", "spare", "draid1-0-0"]).contains(added));
    assert!(
        refusal(&case, &["add", "-f", "tank", "draid1-0-0"]).contains("one or more vdevs refer to the same device")
    );
    for words in [["detach", "tank", "draid1-0-0"], ["offline", "tank", "draid1-0-0"]] {
        let said = format!("cannot {} draid1-0-0: device is reserved as a hot spare", words[0]);
        assert_eq!(refusal(&case, &words), said);
    }
    case.zpool(&["replace", "-w", "tank", "1", "draid1-0-0"]);
    let busy = format!("cannot replace {} with draid1-0-0: draid1-0-0 is busy", device(2));
    assert_eq!(refusal(&case, &["replace", "tank", "2", "draid1-0-0"]), busy);
    let forced = refusal(&case, &["offline", "-f", "tank", "draid1-0-0"]);
    assert!(forced.ends_with("device is reserved as a hot spare"), "{forced}");
    let ordinary = format!("cannot replace draid1-0-0 with {}: can only be replaced by another hot spare", device(8));
    assert_eq!(refusal(&case, &["replace", "tank", "draid1-0-0", "8"]), ordinary);
    // It may be away like any device, when the one that it stands in for is there.
    case.zpool(&["offline", "tank", "draid1-0-0"]);
    case.write("meanwhile", 1);
    assert!(case.zpool(&["status", "tank"]).contains("OFFLINE"));
    case.zpool(&["online", "tank", "draid1-0-0"]);
    until_filled(&case);
    case.zpool(&["detach", "tank", "draid1-0-0"]);
    case.check("meanwhile", 1);
    case.end();
}

#[test]
fn hot_spares_are_taken_by_name() {
    let Some(case) = Case::new(&["mirror", "0", "1", "spare", "2"], 4) else { return };
    case.write("before", 1);
    let attached = refusal(&case, &["attach", "tank", "0", "2"]);
    assert!(attached.contains("is reserved as a hot spare for pool tank"), "{attached}");
    case.zpool(&["offline", "tank", "0"]);
    case.zpool(&["replace", "-w", "tank", "0", "2"]);
    let spare = case.devices[2].clone();
    let text = case.zpool(&["status", "tank"]);
    assert!(text.contains("spare-0") && spare_state(&case, &spare) == "INUSE", "{text}");
    let busy = format!("cannot replace {} with {spare}: {spare} is busy", case.devices[1]);
    assert_eq!(refusal(&case, &["replace", "tank", "1", "2"]), busy);
    let other = format!("cannot replace {spare} with {}: can only be replaced by another hot spare", case.devices[3]);
    assert_eq!(refusal(&case, &["replace", "tank", "2", "3"]), other);
    case.import_again();
    case.zpool(&["detach", "tank", "2"]);
    assert_eq!(spare_state(&case, &spare), "AVAIL");
    case.check("before", 1);
    case.end();
}

/// Devices that were found elsewhere stay there for a pool that changes.
#[test]
fn moved_devices_keep_their_new_places() {
    let Some(mut case) = Case::new(&["mirror", "0", "1"], 3) else { return };
    case.zpool(&["export", "tank"]);
    for n in 0..3 {
        let new = case.dir.path().join(format!("new{n}")).to_string_lossy().into_owned();
        fs::rename(&case.devices[n], &new).unwrap();
        case.devices[n] = new;
    }
    case.import();
    case.zpool(&["replace", "-w", "tank", "1", "2"]);
    let text = case.zpool(&["status", "tank"]);
    assert!(text.contains(&case.devices[0]) && text.contains(&case.devices[2]), "{text}");
    // By that path it is opened again.
    case.zpool(&["offline", "tank", "0"]);
    case.write("meanwhile", 1);
    case.zpool(&["online", "tank", "0"]);
    case.until("resilvered");
    assert!(!case.zpool(&["status", "tank"]).contains("OFFLINE"));
    case.end();
}
