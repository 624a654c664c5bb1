//! Whole commands against a daemon without an engine: text for people, JSON, exit codes, sentences.
//!
//! Expected output lies in `tests/commands/*.txt`: lines starting with `$` are commands, what follows is
//! standard output, lines starting with `! ` are standard error, and `? N` is an exit code other than
//! zero. `UZFS_BLESS=1` writes what came out; read the difference before you keep it.

mod common;

use common::{Fake, load, run_args};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uzfs_client::{zfs, zpool};
use uzfs_proto::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (i, part) in line.split('"').enumerate() {
        match i % 2 {
            0 => out.extend(part.split_whitespace().map(str::to_owned)),
            _ => out.push(part.to_owned()),
        }
    }
    out
}

fn transcript(fake: Fake, file: &str) {
    let log = fake.log.clone();
    let backend: Arc<dyn Backend> = Arc::new(fake);
    let path = folder("commands").join(file);
    let want = std::fs::read_to_string(&path).unwrap();
    let mut got = String::new();
    for line in want.lines().filter(|l| l.starts_with("$ ") || l.starts_with("# ")) {
        got.push_str(line);
        got.push('\n');
        let Some(command) = line.strip_prefix("$ ") else { continue };
        let args = words(command);
        let program = if args[0] == "zfs" { &zfs::PROGRAM } else { &zpool::PROGRAM };
        let ran = run_args(program, &backend, &args[1..]);
        got.push_str(&ran.out);
        ran.err.lines().for_each(|l| got.push_str(&format!("! {l}\n")));
        for entry in std::mem::take(&mut *log.lock().unwrap()) {
            got.push_str(&format!("> {entry}\n"));
        }
        if ran.code != 0 {
            got.push_str(&format!("? {}\n", ran.code));
        }
    }
    if std::env::var_os("UZFS_BLESS").is_some() {
        std::fs::write(&path, &got).unwrap();
        return;
    }
    common::same(file, &got, &want);
}

fn pools(names: &[&str]) -> Fake {
    common::utc();
    let mut fake = Fake::default();
    for name in names {
        let (pool, datasets, history) = load(name, &folder("openzfs").join(name));
        fake.pools.push(pool);
        fake.datasets.extend(datasets);
        fake.history = history;
    }
    fake
}

#[test]
fn lists() {
    let mut fake = pools(&["classes", "basic"]);
    fake.mounts =
        vec![MountEntry { dataset: "basic".into(), mountpoint: "/basic".into(), options: vec![], frontend: false }];
    transcript(fake, "lists.txt");
}

#[test]
fn nothing() {
    transcript(Fake::default(), "nothing.txt");
}

#[test]
fn usage() {
    transcript(Fake::default(), "usage.txt");
}

#[test]
fn json() {
    transcript(pools(&["basic"]), "json.txt");
}

fn leaf(name: &str, id: u64) -> VdevNode {
    VdevNode { path: Some(format!("/dev/{name}1")), whole_disk: true, ..VdevNode::new("disk", id, 100 + id) }
}

fn group(kind: &str, id: u64, children: Vec<VdevNode>) -> VdevNode {
    VdevNode { children, ..VdevNode::new(kind, id, 200 + id) }
}

/// A pool in which everything goes on that `zpool status` has words for.
fn trouble() -> Fake {
    let mut fake = pools(&["basic"]);
    let pool = &mut fake.pools[0];
    pool.name = "tank".into();
    let mut lost = leaf("sdb", 1);
    (lost.state, lost.aux, lost.not_present) = (VdevState::CantOpen, VdevAux::OpenFailed, true);
    let mut bad = leaf("sdc", 2);
    (bad.state, bad.aux) = (VdevState::Faulted, VdevAux::ErrExceeded);
    bad.stats.read_errors = 3;
    bad.stats.checksum_errors = 12_345;
    let mut new = leaf("sdd", 3);
    new.stats.scan_processed = 5 << 20;
    let mut small = leaf("nvme0n1p", 4);
    (small.ashift, small.physical_ashift) = (Some(9), Some(12));
    small.stats.slow_ios = 7;
    let mut off = leaf("sde", 5);
    off.state = VdevState::Offline;
    let mut waiting = leaf("sdh", 6);
    waiting.resilver_deferred = true;
    waiting.trim = Some(LeafJob { state: JobState::Active, action_time: 1_795_305_600, bytes_done: 50, bytes_est: 99 });
    let mut replacing = group("replacing", 1, vec![bad, new]);
    replacing.state = VdevState::Degraded;
    let mut mirror = group("mirror", 0, vec![small, replacing, lost]);
    mirror.state = VdevState::Degraded;
    let mut raidz = group("raidz", 1, vec![off, waiting]);
    (raidz.nparity, raidz.state, raidz.noalloc) = (Some(1), VdevState::Degraded, true);
    let mut log = leaf("sdf", 2);
    log.is_log = true;
    let mut spare = leaf("sdg", 0);
    (spare.aux, spare.spare_pool) = (VdevAux::Spared, Some("other".into()));
    let mut root = group("root", 0, vec![mirror, raidz, log, VdevNode::new("hole", 3, 0)]);
    root.state = VdevState::Degraded;
    root.l2cache = vec![leaf("sdi", 0)];
    root.spares = vec![spare, leaf("sdj", 1)];
    pool.tree = Some(root);
    pool.error_count = 3;
    let entry = |objset: u64, dataset: Option<&str>, path: Option<&str>, at: Option<&str>| ErrorEntry {
        objset: U64(objset),
        object: U64(0x1f),
        dataset: dataset.map(str::to_owned),
        path: path.map(str::to_owned),
        mountpoint: at.map(str::to_owned),
    };
    pool.errors = Some(vec![
        entry(0, None, None, None),
        entry(54, Some("tank/home"), Some("/a/file"), Some("/home")),
        entry(55, Some("tank/home@s"), Some("/a/file"), None),
        entry(56, None, None, None),
        entry(57, Some("tank/x"), None, None),
    ]);
    fake
}

#[test]
fn status_of_a_sick_pool() {
    transcript(trouble(), "sick.txt");
}

fn importable(name: &str, guid: u64, tree: VdevNode) -> ImportablePool {
    ImportablePool {
        name: name.into(),
        guid: U64(guid),
        state: PoolState::Exported,
        version: 5000,
        txg: 9,
        hostid: 0,
        hostname: Some("elsewhere".into()),
        timestamp: 1_795_305_600,
        comment: None,
        compatibility: None,
        unsupported_features: vec![],
        can_readonly: false,
        disabled_features: vec![],
        multihost: MultihostState::Inactive,
        multihost_hostid: 0,
        multihost_hostname: None,
        errata: 0,
        tree,
    }
}

#[test]
fn imports() {
    let mut fake = pools(&["basic"]);
    let good = group("root", 0, vec![group("mirror", 0, vec![leaf("sda", 0), leaf("sdb", 1)])]);
    let mut foreign = importable("foreign", 2, good.clone());
    (foreign.state, foreign.hostid) = (PoolState::Active, 0xbeef);
    let mut gone = leaf("sdc", 0);
    (gone.state, gone.aux) = (VdevState::CantOpen, VdevAux::OpenFailed);
    let mut broken = group("root", 0, vec![gone, leaf("sdd", 1)]);
    (broken.state, broken.aux) = (VdevState::CantOpen, VdevAux::NoReplicas);
    broken.spares = vec![leaf("sde", 0)];
    let mut unknown = importable("newer", 4, good.clone());
    (unknown.tree.state, unknown.tree.aux) = (VdevState::CantOpen, VdevAux::UnsupFeat);
    unknown.unsupported_features = vec!["org.example:thing (does things)".into()];
    let mut dead = importable("dead", 5, good.clone());
    dead.state = PoolState::Destroyed;
    let mut commented = importable("noted", 6, good.clone());
    commented.comment = Some("mine".into());
    commented.disabled_features = vec!["blake3".into()];
    fake.importable = vec![
        importable("good", 1, good.clone()),
        foreign,
        importable("broken", 3, broken),
        unknown,
        dead,
        commented,
        importable("twin", 7, good.clone()),
        importable("twin", 8, good),
    ];
    transcript(fake, "imports.txt");
}

#[test]
fn refused_imports() {
    let tree = group("root", 0, vec![leaf("sda", 0)]);
    let cases = [
        (FailureCode::MissingDevices, vec!["/dev/sdb1", "/dev/sdc1"]),
        (FailureCode::ForeignHost, vec!["box", "beef", "1795305600"]),
        (FailureCode::ActiveElsewhere, vec!["box", "beef"]),
        (FailureCode::UnsupportedFeaturesWrite, vec!["org.example:thing (does things)"]),
        (FailureCode::BadLog, vec!["/dev/sdd1"]),
        (FailureCode::PoolCorrupt, vec![]),
    ];
    for (i, (code, details)) in cases.into_iter().enumerate() {
        let details = details.into_iter().map(str::to_owned).collect();
        let fake = Fake {
            importable: vec![importable("tank", 1, tree.clone())],
            refuse: Some(Failure::new(code, "no").with_details(details)),
            ..Fake::default()
        };
        transcript(fake, &format!("refused-{i}.txt"));
    }
}

#[test]
fn mounts_and_keys() {
    let mut fake = pools(&["basic", "crypt"]);
    let mounted = |dataset: &str, at: &str, options: &[&str]| MountEntry {
        dataset: dataset.into(),
        mountpoint: at.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        frontend: false,
    };
    fake.mounts = vec![
        mounted("basic", "/basic", &[]),
        mounted("basic/home", "/basic/home", &["busy"]),
        mounted("basic/home@one", "/basic/home/.zfs/snapshot/one", &[]),
    ];
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "correct horse\n").unwrap();
    for ds in &mut fake.datasets {
        let set = |ds: &mut Dataset, name: &str, text: &str| {
            ds.properties.insert(name.into(), Property::with(Raw::text(text), PropertySource::Local));
        };
        match ds.name.as_str() {
            "basic/clone" => set(ds, "mountpoint", "legacy"),
            "basic/home/data" => set(ds, "canmount", "off"),
            "crypt/gcm" | "crypt/gcm/child" => {
                set(ds, "keystatus", "unavailable");
                set(ds, "keylocation", "file:///nonexistent");
            }
            "crypt/aes-128-ccm" => {
                set(ds, "keystatus", "unavailable");
                set(ds, "keyformat", "passphrase");
                set(ds, "keylocation", &format!("file://{}", dir.path().join("key").display()));
            }
            _ => {}
        }
    }
    transcript(fake, "mounts.txt");
}

#[test]
fn events() {
    let value = |name: &str| EventValue {
        name: name.into(),
        flag: None,
        number: None,
        text: None,
        numbers: None,
        texts: None,
        nested: None,
    };
    let event = Event {
        eid: 1,
        class: "sysevent.fs.zfs.pool_import".into(),
        pool: Some("basic".into()),
        seconds: 1_795_305_600,
        nanoseconds: 5,
        values: vec![
            EventValue { number: Some(U64(7)), ..value("vdev_state") },
            EventValue { text: Some("basic".into()), ..value("pool") },
            EventValue { numbers: Some(vec![U64(1), U64(255)]), ..value("time") },
            EventValue { nested: Some(vec![EventValue { flag: Some(true), ..value("yes") }]), ..value("detector") },
        ],
    };
    let mut fake = pools(&["basic"]);
    fake.events = vec![event];
    transcript(fake, "events.txt");
}

/// Thousands of datasets are listed in a time that nobody notices.
#[test]
fn many_datasets() {
    let mut fake = pools(&["basic"]);
    let model = fake.datasets.iter().find(|d| d.name == "basic/home").unwrap().clone();
    for i in 0..5000 {
        fake.datasets.push(Dataset { name: format!("basic/home/u{i}"), ..model.clone() });
    }
    let backend: Arc<dyn Backend> = Arc::new(fake);
    let start = std::time::Instant::now();
    let ran = run_args(&zfs::PROGRAM, &backend, &words("list -Hp -r basic"));
    assert_eq!((ran.code, ran.out.lines().count()), (0, 5004));
    let took = start.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    eprintln!("5000 datasets in {took:?}");
}
