//! The half that runs here: making, filling, comparing, with uzfs's own programs and OpenZFS's `zdb`.

use crate::{logged, populate};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use uzfs_testkit::encode::hex;
use uzfs_testkit::manifest::{self, Content, Manifest};
use uzfs_testkit::paths;
use uzfs_testkit::session::Session;

/// Bytes of an image.
const IMAGE: u64 = 256 << 20;
/// Properties whose values both must tell alike.
pub const FIGURES: &str = "used,referenced,usedbydataset,usedbysnapshots,usedbychildren,usedbyrefreservation,written,\
                           logicalused,logicalreferenced,compressratio,refcompressratio";

/// Which vdevs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Single,
    Stripe,
    Mirror,
    Raidz1,
    Raidz2,
    Raidz3,
    Classes,
    Draid,
    Draid2,
    /// A disk becomes a mirror.
    Attached,
    /// A disk of raidz is replaced.
    Replaced,
    /// A side of a mirror is away while files are written.
    Returned,
    /// Vdevs are added to a pool in use.
    Grown,
    /// The writer goes away and leaves an intent log, on a device of its own.
    Logged,
}

impl Layout {
    pub const ALL: [Self; 14] = [
        Self::Single,
        Self::Stripe,
        Self::Mirror,
        Self::Raidz1,
        Self::Raidz2,
        Self::Raidz3,
        Self::Classes,
        Self::Draid,
        Self::Draid2,
        Self::Attached,
        Self::Replaced,
        Self::Returned,
        Self::Grown,
        Self::Logged,
    ];

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.name() == name)
    }

    /// Words of `zpool create`; `D` stands for an image.
    fn pattern(self) -> &'static str {
        match self {
            Self::Single => "D",
            Self::Stripe => "D D D",
            Self::Mirror => "mirror D D",
            Self::Raidz1 => "raidz1 D D D",
            Self::Raidz2 => "raidz2 D D D D D",
            Self::Raidz3 => "raidz3 D D D D D D D",
            Self::Classes => "raidz1 D D D special mirror D D dedup mirror D D log mirror D D",
            Self::Draid => "draid1:2d:5c:1s D D D D D",
            Self::Draid2 => "-o ashift=12 draid2:4d:8c:1s D D D D D D D D",
            Self::Attached | Self::Grown => "D",
            Self::Replaced => "raidz1 D D D",
            Self::Returned => "mirror D D",
            Self::Logged => "mirror D D log D",
        }
    }

    /// What need not be alike: replaying a log gives the files that it writes the time of the replay.
    fn ignored(self) -> &'static [&'static str] {
        if self == Self::Logged { &["error", "mtime_ns"] } else { &["error"] }
    }

    /// Images that are needed: those of the pattern, and those that come in later.
    pub fn disks(self) -> usize {
        let later = match self {
            Self::Attached | Self::Replaced => 1,
            Self::Grown => 4,
            _ => 0,
        };
        self.pattern().split(' ').filter(|w| *w == "D").count() + later
    }

    /// Commands of `zpool` that change the pool's devices, before (0) and after (1) it is filled. Numbers stand for images.
    pub fn changes(self, when: usize, pool: &str, images: &[String]) -> Vec<Vec<String>> {
        let lines: &[&str] = match (self, when) {
            (Self::Attached, 1) => &["attach P 0 1"],
            (Self::Replaced, 1) => &["replace P 1 3"],
            (Self::Returned, 0) => &["offline P 1"],
            (Self::Returned, 1) => &["online P 1"],
            (Self::Grown, 0) => &["add P 1", "add P log 2"],
            (Self::Grown, 1) => &["add P special 3", "add P 4"],
            _ => &[],
        };
        let word = |word: &str| match (word, word.parse::<usize>()) {
            ("P", _) => pool.to_owned(),
            (_, Ok(number)) => images[number].clone(),
            _ => word.to_owned(),
        };
        lines.iter().map(|line| line.split(' ').map(word).collect()).collect()
    }

    pub fn words(self, images: &[String]) -> Vec<String> {
        let mut images = images.iter();
        let word = |w: &str| if w == "D" { images.next().cloned().unwrap_or_default() } else { w.to_owned() };
        self.pattern().split(' ').map(word).collect()
    }
}

fn images(dir: &Path, count: usize) -> Result<Vec<String>, String> {
    images_named(dir, count, |n| format!("d{n}"))
}

/// Image files of any names.
pub fn images_named(dir: &Path, count: usize, name: impl Fn(usize) -> String) -> Result<Vec<String>, String> {
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let make = |n| {
        let path = dir.join(name(n));
        File::create(&path).and_then(|f| f.set_len(IMAGE)).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    };
    (0..count).map(make).collect()
}

/// What OpenZFS's `zdb` says of an exported pool.
pub fn zdb(dir: &Path, pool: &str) -> Result<(), String> {
    let out = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args([pool, "-bbcc"]).output();
    let out = out.map_err(|e| format!("zdb: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    if out.status.success() && text.contains("No leaks (block sum matches space maps exactly)") {
        return Ok(());
    }
    Err(format!("zdb of {pool}: {}\n{text}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}

fn list(session: &Session, pool: &str, kind: &str) -> Result<Vec<String>, String> {
    let out = session.ok("zfs", &["list", "-H", "-o", "name", "-t", kind, "-r", pool])?;
    Ok(out.stdout.lines().map(str::to_owned).collect())
}

/// What is seen of every file system and snapshot of a pool.
pub fn manifests(session: &Session, pool: &str) -> Result<BTreeMap<String, Manifest>, String> {
    let mut out = BTreeMap::new();
    for fs in list(session, pool, "filesystem")? {
        out.insert(fs.clone(), manifest::walk(&session.root().join(&fs), Content::Hash)?);
    }
    for snap in list(session, pool, "snapshot")? {
        let (fs, short) = snap.split_once('@').ok_or_else(|| format!("{snap} is no snapshot"))?;
        if !out.contains_key(fs) {
            // Of a volume.
            continue;
        }
        let at = session.root().join(fs).join(".zfs/snapshot").join(short);
        out.insert(snap.clone(), manifest::walk(&at, Content::Hash)?);
    }
    Ok(out)
}

fn file_of(dir: &Path, prefix: &str, dataset: &str) -> PathBuf {
    dir.join(format!("{prefix}.{}", dataset.replace('/', "%")))
}

pub fn store(dir: &Path, prefix: &str, all: &BTreeMap<String, Manifest>) -> Result<(), String> {
    for (dataset, manifest) in all {
        let text: String = manifest.values().map(|e| format!("{}\n", serde_json::Value::Object(e.clone()))).collect();
        fs::write(file_of(dir, prefix, dataset), text).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn load(dir: &Path, prefix: &str) -> Result<BTreeMap<String, Manifest>, String> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(dataset) = name.strip_prefix(prefix).and_then(|r| r.strip_prefix('.')) {
            let text = fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
            out.insert(dataset.replace('%', "/"), manifest::parse(&text)?);
        }
    }
    Ok(out)
}

/// Compares what two saw; the first is the judge.
pub fn same(what: &str, want: &BTreeMap<String, Manifest>, have: &BTreeMap<String, Manifest>) -> Result<(), String> {
    same_but(what, want, have, &["error"])
}

fn same_but(
    what: &str,
    want: &BTreeMap<String, Manifest>,
    have: &BTreeMap<String, Manifest>,
    ignored: &[&str],
) -> Result<(), String> {
    if !want.keys().eq(have.keys()) {
        return Err(format!("{what}: datasets {:?} instead of {:?}", have.keys(), want.keys()));
    }
    let mut wrong = Vec::new();
    for (dataset, manifest) in want {
        let lines = manifest::differences(manifest, &have[dataset], ignored);
        wrong.extend(lines.into_iter().map(|l| format!("{dataset}: {l}")));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let first: Vec<&String> = wrong.iter().take(10).collect();
    Err(format!("{what}: {} differences: {first:#?}", wrong.len()))
}

pub fn import(session: &Session, dir: &Path, pool: &str) -> Result<(), String> {
    let (dir, root) = (dir.to_string_lossy(), session.root().to_string_lossy().into_owned());
    session.ok("zpool", &["import", "-f", "-d", &dir, "-R", &root, "-o", "readonly=off", pool]).map(drop)
}

/// Changes a pool's devices, and waits until they are filled.
fn change_devices(session: &Session, layout: Layout, when: usize, pool: &str, images: &[String]) -> Result<(), String> {
    for words in layout.changes(when, pool, images) {
        session.ok("zpool", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
        settle(session, pool).map_err(|e| format!("{words:?}: {e}"))?;
    }
    Ok(())
}

/// Waits until nothing is scrubbed, filled or replaced.
pub fn settle(session: &Session, pool: &str) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let status = session.ok("zpool", &["status", pool])?.stdout;
        if !status.contains("in progress") && !status.contains("replacing") {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{pool} does not come to rest: {status}"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Makes, fills and exports a pool; false when uzfs cannot make such a one.
pub fn make(dir: &Path, layout: Layout) -> Result<bool, String> {
    let (dir, pool) = (dir.join(layout.name()), format!("p{}", layout.name()));
    let images = images(&dir, layout.disks())?;
    let session = Session::start()?;
    let root = session.root().to_string_lossy().into_owned();
    let mut args: Vec<String> = ["create", "-f", "-R", &root, &pool].map(str::to_owned).to_vec();
    args.extend(layout.words(&images));
    let made = session.run("zpool", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    if made.code != Some(0) {
        if made.stderr.contains("not supported") {
            println!("SKIPPED {}: {}", layout.name(), made.stderr.trim());
            return Ok(false);
        }
        return Err(made.to_string());
    }
    let zfs = |args: &[&str]| session.ok("zfs", args).map(drop);
    let at = |name: &str| session.root().join(&pool).join(name);
    let fill = |name: &str, seed: u64, acls: bool| {
        populate::fill(&at(name), seed, acls).map_err(|e| format!("filling {pool}/{name}: {e}"))
    };
    zfs(&["create", "-o", "compression=zstd", &format!("{pool}/data")])?;
    zfs(&["create", "-o", "recordsize=1M", "-o", "checksum=sha256", &format!("{pool}/big")])?;
    zfs(&["create", "-o", "acltype=posixacl", "-o", "copies=2", "-o", "compression=off", &format!("{pool}/acl")])?;
    change_devices(&session, layout, 0, &pool, &images)?;
    fill("data", 1, false)?;
    fill("big", 2, false)?;
    fill("acl", 3, true)?;
    zfs(&["snapshot", &format!("{pool}/data@one"), &format!("{pool}/big@one")])?;
    populate::change(&at("data"), 9).map_err(|e| format!("changing {pool}/data: {e}"))?;
    zfs(&["snapshot", &format!("{pool}/data@two")])?;
    zfs(&["clone", &format!("{pool}/data@one"), &format!("{pool}/copy")])?;
    populate::change(&at("copy"), 10).map_err(|e| format!("changing {pool}/copy: {e}"))?;
    zfs(&["create", &format!("{pool}/gone")])?;
    fill("gone", 4, false)?;
    zfs(&["destroy", &format!("{pool}/gone")])?;
    populate::change(&at("big"), 11).map_err(|e| format!("changing {pool}/big: {e}"))?;
    zfs(&["rollback", &format!("{pool}/big@one")])?;
    zfs(&["rename", &format!("{pool}/acl"), &format!("{pool}/lists")])?;
    session.ok("zfs", &["mount", "-a"])?;
    // It fails in the end, at the mount point itself.
    let _ = fs::remove_dir_all(at("data"));
    fill("data", 12, false)?;
    change_devices(&session, layout, 1, &pool, &images)?;
    if layout == Layout::Logged {
        return logged::leave(session, &dir, &pool).map(|()| true);
    }
    store(&dir, "ours", &manifests(&session, &pool)?)?;
    // Reading changed times of access.
    session.ok("zpool", &["sync"])?;
    let got = session.ok("zfs", &figures_of(&pool))?;
    session.ok("zpool", &["export", &pool])?;
    fs::write(dir.join("get.ours"), got.stdout).map_err(|e| e.to_string())?;
    session.finish()?;
    zdb(&dir, &pool)?;
    Ok(true)
}

fn figures_of(pool: &str) -> [&str; 9] {
    ["get", "-Hp", "-r", "-t", "filesystem,snapshot,volume", "-o", "name,property,value", FIGURES, pool]
}

/// Compares the space figures; those of the pool's own file system hold the meta object set, which an export changes.
fn same_figures(dir: &Path, pool: &str, ours: &str, kernel: &str) -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|e| format!("{name}: {e}"));
    let (ours, kernel) = (read(ours)?, read(kernel)?);
    let figures = |text: &str| -> BTreeMap<String, String> {
        let of_root = format!("{pool}\t");
        let lines = text.lines().filter(|l| !l.starts_with(&of_root)).filter_map(|l| l.rsplit_once('\t'));
        lines.map(|(what, value)| (what.to_owned(), value.to_owned())).collect()
    };
    let (ours, kernel) = (figures(&ours), figures(&kernel));
    let mut wrong = Vec::new();
    for (what, want) in &kernel {
        let have = ours.get(what).map_or("nothing", String::as_str);
        if have != want {
            wrong.push(format!("{what}: {have} instead of {want}"));
        }
    }
    if wrong.is_empty() && ours.len() == kernel.len() && !ours.is_empty() {
        return Ok(());
    }
    Err(format!("{pool}: {wrong:#?} ({} and {} figures)", ours.len(), kernel.len()))
}

/// After the kernel judged and changed our pool.
pub fn compare(dir: &Path, layout: Layout) -> Result<(), String> {
    let (dir, pool) = (dir.join(layout.name()), format!("p{}", layout.name()));
    let name = layout.name();
    let (ours, kernel) = (load(&dir, "ours")?, load(&dir, "kernel")?);
    same_but(&format!("{name}, as the kernel sees it"), &ours, &kernel, layout.ignored())?;
    if layout != Layout::Logged {
        same_figures(&dir, &pool, "get.ours", "get.kernel")?;
    }
    zdb(&dir, &pool)?;
    let session = Session::start()?;
    import(&session, &dir, &pool)?;
    let seen = manifests(&session, &pool)?;
    same(&format!("{name}, after the kernel changed it"), &load(&dir, "kernel2")?, &seen)?;
    session.ok("zpool", &["export", &pool])?;
    session.finish()?;
    zdb(&dir, &pool)
}

/// Whether volumes, read from the devices, are as [`populate::fill_volume`] fills so many bytes.
fn same_volumes(dir: &Path, pool: &str, volumes: &[&str], seed: u64, size: u64) -> Result<(), String> {
    let image = dir.join("volume");
    File::create(&image).and_then(|f| f.set_len(size)).map_err(|e| e.to_string())?;
    populate::fill_volume(&image, seed).map_err(|e| e.to_string())?;
    let want = hex(&Sha256::digest(fs::read(&image).map_err(|e| e.to_string())?));
    fs::remove_file(&image).map_err(|e| e.to_string())?;
    for volume in volumes {
        let program = Command::new(paths::program("zvol-hash")).arg(dir).arg(format!("{pool}/{volume}")).output();
        let out = program.map_err(|e| format!("zvol-hash: {e}"))?;
        let have = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if have != want {
            let why = String::from_utf8_lossy(&out.stderr);
            return Err(format!("{pool}/{volume}: {have} instead of {want}: {why}"));
        }
    }
    Ok(())
}

/// Compares a pool of the kernel, and changes it.
pub fn change_foreign(dir: &Path, layout: Layout) -> Result<(), String> {
    let (dir, pool) = (dir.join(format!("k{}", layout.name())), format!("k{}", layout.name()));
    // What a log holds is not in the volume yet.
    same_volumes(&dir, &pool, &["vol", "vol@one"], 31, 16 << 20)?;
    if layout == Layout::Logged {
        logged::must_be_left(&dir, &pool)?;
    }
    let session = Session::start()?;
    // An import for writing ends the intent logs that the kernel had begun, or replays them, which changes figures.
    session.import(&pool, &dir, &["-f"])?;
    let got = session.ok("zfs", &figures_of(&pool))?;
    session.ok("zpool", &["export", &pool])?;
    fs::write(dir.join("get.seen"), got.stdout).map_err(|e| e.to_string())?;
    same_figures(&dir, &pool, "get.seen", "get.made")?;
    import(&session, &dir, &pool)?;
    let (kernel, seen) = (load(&dir, "kernel")?, manifests(&session, &pool)?);
    same_but(&format!("{pool}, as uzfs sees it"), &kernel, &seen, layout.ignored())?;
    let at = |name: &str| session.root().join(&pool).join(name);
    let zfs = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|w| w.replace("P/", &format!("{pool}/"))).collect();
        session.ok("zfs", &words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    };
    let change =
        |name: &str, seed| populate::change(&at(name), seed).map_err(|e| format!("changing {pool}/{name}: {e}"));
    change("data", 21)?;
    zfs("snapshot P/data@uzfs")?;
    zfs("create P/uzfs")?;
    populate::fill(&at("uzfs"), 22, false).map_err(|e| format!("filling {pool}: {e}"))?;
    zfs("destroy P/big@two")?;
    zfs("release keep P/data@one")?;
    zfs("hold mine P/data@uzfs")?;
    zfs("rollback P/copy@c")?;
    fs::remove_dir_all(at("copy/fresh")).map_err(|e| format!("{pool}/copy: {e}"))?;
    fs::write(at("copy/later"), populate::data(5, 3 << 20)).map_err(|e| format!("{pool}/copy: {e}"))?;
    zfs("destroy P/other")?;
    zfs("rename P/lists P/renamed")?;
    zfs("clone P/renamed@y P/cloned")?;
    change("cloned", 23)?;
    zfs("promote P/cloned")?;
    fs::remove_dir_all(at("small/many")).map_err(|e| format!("{pool}/small: {e}"))?;
    change("renamed", 24)?;
    zfs("snapshot -r P/renamed@last")?;
    zfs("set quota=none P/data")?;
    zfs("set userquota@4321=5M P/big")?;
    zfs("set volsize=20M P/vol")?;
    store(&dir, "ours", &manifests(&session, &pool)?)?;
    // Reading changed times of access.
    session.ok("zpool", &["sync"])?;
    let got = session.ok("zfs", &figures_of(&pool))?;
    session.ok("zpool", &["export", &pool])?;
    fs::write(dir.join("get.ours"), got.stdout).map_err(|e| e.to_string())?;
    session.finish()?;
    if layout == Layout::Logged {
        same_volumes(&dir, &pool, &["vol"], logged::SEED, 20 << 20)?;
    }
    zdb(&dir, &pool)
}

/// After the kernel judged its own pool again, and emptied it.
pub fn compare_again(dir: &Path, layout: Layout) -> Result<(), String> {
    let (dir, pool) = (dir.join(format!("k{}", layout.name())), format!("k{}", layout.name()));
    same(&format!("{pool}, as the kernel sees it"), &load(&dir, "ours")?, &load(&dir, "kernel2")?)?;
    same_figures(&dir, &pool, "get.ours", "get.kernel")?;
    zdb(&dir, &pool)
}
