//! Random changes to a file system, compared with a model in memory: the same seed makes the same run.
//!
//! Every change is made twice, in a pool over an image file and in the model, and must succeed or fail alike. Ever so
//! often the whole tree is compared (names, kinds, contents, sizes, link counts, owners, modes, times, attributes), and the
//! pool is exported, judged by OpenZFS's `zdb` where it is installed, and imported again.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/tree.rs"]
mod tree;

use disk::{Disk, Live};
use std::sync::Arc;
use std::time::Duration;
use tree::{Node, Tree};
use zfs_env::{Clock, SeededRng, SimClock};
use zfs_zio::ErrorKind;
use zfs_zpl::{Allocate, FileKind, NewFile, NodeId, RenameFlags, SetAttr, Time, XattrMode};

/// Sizes around block boundaries, and larger.
const PLACES: [u64; 12] = [0, 1, 511, 512, 513, 4096, 131_071, 131_072, 131_073, 200_000, 262_144, 500_000];

struct Run {
    seed: u64,
    rng: SeededRng,
    clock: Arc<SimClock>,
    live: Option<Live>,
    tree: Tree,
    step: u32,
    trace: Vec<String>,
}

type Outcome = Result<(), ErrorKind>;

impl Run {
    fn pick(&self, n: usize) -> usize {
        (self.rng.next() % n as u64) as usize
    }

    fn live(&self) -> &Live {
        self.live.as_ref().expect("open")
    }

    fn node(object: u64) -> NodeId {
        NodeId::new(0, object)
    }

    fn name(&self) -> Vec<u8> {
        match self.pick(40) {
            0 => vec![b'l'; 255],
            1 => b"n\xff\xfe".to_vec(),
            n => format!("n{}", n % 14).into_bytes(),
        }
    }

    fn place(&self) -> u64 {
        PLACES[self.pick(PLACES.len())] + self.rng.next() % 3 * 1000
    }

    fn bytes(&self) -> Vec<u8> {
        let len = match self.pick(8) {
            0 => 0,
            1 => 200_000 + self.pick(100_000),
            2 | 3 => 4096,
            _ => self.pick(20_000),
        };
        let first = self.rng.next() as u8;
        // Some compress, some do not.
        match self.pick(3) {
            0 => vec![first; len],
            _ => (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ first).collect(),
        }
    }

    fn some(&self, from: &[u64]) -> Option<u64> {
        (!from.is_empty()).then(|| from[self.pick(from.len())])
    }

    /// Both must end alike.
    fn same(&mut self, what: String, real: Result<(), zfs_zio::Error>, model: Outcome) {
        let real_kind = match &real {
            Ok(()) => Ok(()),
            Err(e) => Err(e.kind()),
        };
        assert_eq!(real_kind, model, "seed {} step {}: {what}: {real:?}\n{}", self.seed, self.step, self.tail());
        self.trace.push(format!("{what} = {model:?}"));
    }

    fn tail(&self) -> String {
        self.trace.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n")
    }

    fn now(&self) -> Time {
        let now = self.clock.now();
        Time { sec: now.as_secs() as i64, nsec: now.subsec_nanos() }
    }

    fn one(&mut self) {
        self.clock.sleep(Duration::from_nanos(1_000_007));
        self.step += 1;
        match self.pick(100) {
            0..=19 => self.create(),
            20..=25 => self.link(),
            26..=37 => self.remove(),
            38..=49 => self.rename(),
            50..=67 => self.write(),
            68..=73 => self.truncate(),
            74..=79 => self.allocate(),
            80..=85 => self.setattr(),
            86..=93 => self.xattr(),
            94..=97 => self.hold(),
            _ => self.read(),
        }
    }

    fn create(&mut self) {
        let (dir, name) = (self.some(&self.tree.dirs()).expect("the root"), self.name());
        let kinds = [
            FileKind::Regular,
            FileKind::Regular,
            FileKind::Regular,
            FileKind::Directory,
            FileKind::Directory,
            FileKind::Symlink,
            FileKind::Fifo,
            FileKind::CharDevice,
        ];
        let kind = kinds[self.pick(kinds.len())];
        let target = vec![b't'; if kind == FileKind::Symlink { 1 + self.pick(600) } else { 0 }];
        let mode = u32::from(kind.dirent()) << 12 | (self.rng.next() as u32 & 0o7777);
        let rdev = if kind == FileKind::CharDevice { (259, self.pick(70000) as u32) } else { (0, 0) };
        let new = NewFile { mode, uid: self.pick(3) as u32, gid: self.pick(3) as u32, rdev, target: &target, umask: 0 };
        let what = format!("create {dir} {} {kind:?}", String::from_utf8_lossy(&name));
        let unnamed = kind == FileKind::Regular && self.pick(6) == 0;
        if unnamed {
            let made = self.live().vfs.create_unnamed(Self::node(dir), &new).unwrap();
            self.live().vfs.hold(made);
            self.trace.push(format!("unnamed {} in {dir}", made.object()));
            self.tree.insert(dir, None, made.object(), &new, self.now());
            self.tree.at(made.object()).held += 1;
            return;
        }
        let real = self.live().vfs.create(Self::node(dir), &name, &new);
        let model = if self.tree.find(dir, &name).is_some() { Err(ErrorKind::Exists) } else { Ok(()) };
        if let (Ok(node), Ok(())) = (&real, &model) {
            self.tree.insert(dir, Some(&name), node.object(), &new, self.now());
        }
        self.same(what, real.map(drop), model);
    }

    fn link(&mut self) {
        let Some(object) = self.some(&self.tree.all()) else { return };
        let (dir, name) = (self.some(&self.tree.dirs()).expect("the root"), self.name());
        let real = self.live().vfs.link(Self::node(object), Self::node(dir), &name);
        let now = self.now();
        let model = self.tree.link(object, dir, &name, now);
        self.same(format!("link {object} {dir} {}", String::from_utf8_lossy(&name)), real, model);
    }

    fn remove(&mut self) {
        let dir = self.some(&self.tree.dirs()).expect("the root");
        let (name, rmdir) = (self.name(), self.pick(2) == 0);
        let real = self.live().vfs.remove(Self::node(dir), &name, rmdir);
        let now = self.now();
        let model = self.tree.remove(dir, &name, rmdir, now);
        self.same(format!("remove {dir} {} {rmdir}", String::from_utf8_lossy(&name)), real, model);
    }

    fn rename(&mut self) {
        let dirs = self.tree.dirs();
        let (from, to) = (self.some(&dirs).expect("the root"), self.some(&dirs).expect("the root"));
        let (name, new_name) = (self.name(), self.name());
        let whiteout = RenameFlags::Whiteout { uid: 1, gid: 2 };
        let how = [RenameFlags::Replace, RenameFlags::Replace, RenameFlags::NoReplace, RenameFlags::Exchange, whiteout]
            [self.pick(5)];
        let (source, target) = (Self::node(from), Self::node(to));
        let what = format!(
            "rename {from} {} {to} {} {how:?}",
            String::from_utf8_lossy(&name),
            String::from_utf8_lossy(&new_name)
        );
        let real = self.live().vfs.rename(source, &name, target, &new_name, how);
        let now = self.now();
        let mut left = None;
        if matches!(how, RenameFlags::Whiteout { .. }) && real.is_ok() {
            left = self.live().vfs.lookup(source, &name, zfs_zpl::CaseMode::Dataset).ok().map(NodeId::object);
        }
        let model = self.tree.rename((from, &name), (to, &new_name), how, left, now);
        self.same(what, real, model);
    }

    fn write(&mut self) {
        let Some(object) = self.some(&self.tree.files()) else { return };
        let (offset, data, append) = (self.place(), self.bytes(), self.pick(5) == 0);
        let privileged = self.pick(2) == 0;
        let real = self.live().vfs.write(Self::node(object), offset, &data, append, privileged);
        let now = self.now();
        let end = self.tree.write(object, offset, &data, append, privileged, now);
        if let Ok(real) = real {
            assert_eq!(real, end, "end of a write");
        }
        self.same(format!("write {object} {offset} {} {append}", data.len()), real.map(drop), Ok(()));
    }

    fn truncate(&mut self) {
        let Some(object) = self.some(&self.tree.files()) else { return };
        let size = self.place();
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let real = self.live().vfs.setattr(Self::node(object), &set);
        let now = self.now();
        let file = self.tree.at(object);
        file.data.resize(size as usize, 0);
        (file.mtime, file.ctime) = (now, now);
        self.same(format!("truncate {object} {size}"), real, Ok(()));
    }

    fn allocate(&mut self) {
        let Some(object) = self.some(&self.tree.files()) else { return };
        let (offset, len) = (self.place(), self.place() + 1);
        let how = [Allocate::Extend, Allocate::KeepSize, Allocate::PunchHole, Allocate::ZeroRange][self.pick(4)];
        let real = self.live().vfs.allocate(Self::node(object), offset, len, how);
        let now = self.now();
        let file = self.tree.at(object);
        let (from, to) = (offset as usize, (offset + len) as usize);
        if matches!(how, Allocate::PunchHole | Allocate::ZeroRange) {
            let size = file.data.len();
            file.data[from.min(size)..to.min(size)].fill(0);
        }
        if matches!(how, Allocate::Extend | Allocate::ZeroRange) && file.data.len() < to {
            file.data.resize(to, 0);
        }
        (file.mtime, file.ctime) = (now, now);
        self.same(format!("allocate {object} {offset} {len} {how:?}"), real, Ok(()));
    }

    fn setattr(&mut self) {
        let Some(object) = self.some(&self.tree.all()) else { return };
        let mut set = SetAttr::default();
        let random = self.rng.next();
        match self.pick(4) {
            0 => set.mode = Some(random as u32 & 0o7777),
            1 => (set.uid, set.gid) = (Some(random as u32 % 5), Some(random as u32 % 7)),
            2 => set.mtime = Some(Time { sec: random as i64 % 5_000_000_000, nsec: random as u32 % 1_000_000_000 }),
            _ => set.atime = Some(Time { sec: -(random as i64 % 1000).abs(), nsec: 999_999_999 }),
        }
        let real = self.live().vfs.setattr(Self::node(object), &set);
        let now = self.now();
        let file = self.tree.at(object);
        file.mode = set.mode.map_or(file.mode, |m| (file.mode & !0o7777) | m);
        file.uid = set.uid.unwrap_or(file.uid);
        file.gid = set.gid.unwrap_or(file.gid);
        file.mtime = set.mtime.unwrap_or(file.mtime);
        file.atime = set.atime.unwrap_or(file.atime);
        file.ctime = now;
        self.same(format!("setattr {object} {set:?}"), real, Ok(()));
    }

    fn xattr(&mut self) {
        let Some(object) = self.some(&self.tree.all()) else { return };
        let name = format!("user.x{}", self.pick(6)).into_bytes();
        let len = [0, 5, 100, 3000, 40_000, 65_536][self.pick(6)];
        let value = vec![self.rng.next() as u8; len];
        let value = (self.pick(4) > 0).then_some(value);
        let mode = [XattrMode::Any, XattrMode::Any, XattrMode::Create, XattrMode::Replace][self.pick(4)];
        let real = self.live().vfs.setxattr(Self::node(object), &name, value.as_deref(), mode, false);
        let now = self.now();
        let what =
            format!("xattr {object} {} {:?} {mode:?}", String::from_utf8_lossy(&name), value.as_ref().map(Vec::len));
        let file = self.tree.at(object);
        let there = file.xattrs.contains_key(&name);
        let model = match (mode, there, &value) {
            (XattrMode::Create, true, _) => Err(ErrorKind::Exists),
            (XattrMode::Replace, false, _) | (_, false, None) => Err(ErrorKind::NoData),
            _ => Ok(()),
        };
        if model.is_ok() {
            match value {
                Some(value) => drop(file.xattrs.insert(name, value)),
                None => drop(file.xattrs.remove(&name)),
            }
            file.ctime = now;
        }
        self.same(what, real, model);
    }

    fn hold(&mut self) {
        let held: Vec<u64> = self.tree.held();
        if let (Some(object), true) = (self.some(&held), self.pick(2) == 0) {
            self.live().vfs.release(Self::node(object)).unwrap();
            self.tree.at(object).held -= 1;
            self.trace.push(format!("release {object}"));
            self.tree.collect(object);
        } else if let Some(object) = self.some(&self.tree.files()) {
            self.live().vfs.hold(Self::node(object));
            self.tree.at(object).held += 1;
            self.trace.push(format!("hold {object}"));
        }
    }

    fn read(&mut self) {
        let Some(object) = self.some(&self.tree.files()) else { return };
        let (offset, len) = (self.place(), self.place() as usize);
        let slices = self.live().vfs.read(Self::node(object), offset, len).unwrap();
        let real: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
        let data = &self.tree.at(object).data;
        let from = (offset as usize).min(data.len());
        let model = &data[from..(from + len).min(data.len())];
        assert!(real == model, "seed {} step {}: reading {object}\n{}", self.seed, self.step, self.tail());
    }

    fn compare(&mut self) {
        let tail = format!("seed {} step {}\n{}", self.seed, self.step, self.tail());
        self.tree.compare(&self.live().vfs, &tail);
    }

    /// Exports and imports; files without names are gone then.
    fn reopen(&mut self, disk: &Disk) {
        self.live.take().expect("open").close();
        disk.judge();
        self.tree.forget_held();
        self.live = Some(disk.open());
        self.trace.push("reopened".into());
    }
}

/// One run; `UZFS_MODEL_STEPS` makes it longer.
fn run(seed: u64) {
    let steps = std::env::var("UZFS_MODEL_STEPS").ok().and_then(|s| s.parse().ok()).unwrap_or(600);
    let clock = Arc::new(SimClock::new(Duration::from_secs(1_700_000_000)));
    let disk = Disk::new(512, clock.clone());
    let live = disk.open();
    let root = live.vfs.root().object();
    let tree = Tree::new(root, Node::of(&live.vfs.getattr(live.vfs.root()).unwrap()));
    let rng = SeededRng::new(seed);
    let mut run = Run { seed, rng, clock, live: Some(live), tree, step: 0, trace: Vec::new() };
    for step in 1..=steps {
        run.one();
        match step {
            n if n % 300 == 0 => {
                run.compare();
                run.reopen(&disk);
                run.compare();
            }
            n if n % 100 == 0 => {
                run.live().spa.txgs().wait_synced(0).unwrap();
                run.compare();
            }
            n if n % 37 == 0 => run.live().spa.txgs().kick(),
            _ => {}
        }
    }
    run.compare();
    run.reopen(&disk);
    run.compare();
    run.live.take().unwrap().close();
}

/// `UZFS_MODEL_SEED` runs one seed alone.
fn seeds(usual: std::ops::Range<u64>) {
    match std::env::var("UZFS_MODEL_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => run(seed),
        None => usual.for_each(run),
    }
}

#[test]
fn random_changes_are_those_of_the_model() {
    seeds(1..3);
}

#[test]
fn and_with_other_seeds() {
    seeds(100..102);
}

/// Threads that make, move and remove names of one directory, and write one file: each its own names and ranges.
#[test]
fn threads_share_a_directory_and_a_file() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 150;
    let clock = Arc::new(SimClock::new(Duration::from_secs(1_700_000_000)));
    let disk = Disk::new(256, clock);
    let live = disk.open();
    let (root, vfs) = (live.vfs.root(), &live.vfs);
    let file = |name: &[u8]| vfs.create(root, name, &NewFile { mode: 0o100_644, ..NewFile::default() }).unwrap();
    let (ranges, appended) = (file(b"ranges"), file(b"appended"));
    std::thread::scope(|scope| {
        for t in 0..THREADS {
            let txgs = live.spa.txgs().clone();
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    let name = |k: u64| format!("t{t}-{k}").into_bytes();
                    let new = NewFile { mode: 0o100_600, ..NewFile::default() };
                    let node = vfs.create(root, &name(n), &new).unwrap();
                    vfs.write(node, 0, &name(n), false, true).unwrap();
                    vfs.write(ranges, (n * THREADS + t) * 1000, &[t as u8 + 1; 1000], false, true).unwrap();
                    vfs.write(appended, 0, &[[t as u8; 4], (n as u32).to_le_bytes()].concat(), true, true).unwrap();
                    match n % 4 {
                        1 => vfs.remove(root, &name(n - 1), false).unwrap(),
                        2 => vfs.rename(root, &name(n), root, &name(n + 1000), RenameFlags::NoReplace).unwrap(),
                        3 => vfs.link(node, root, &name(n + 2000)).unwrap(),
                        _ => {}
                    }
                    if n % 50 == 0 {
                        txgs.kick();
                    }
                }
            });
        }
    });
    live.close();
    disk.judge();
    let live = disk.open();
    let vfs = &live.vfs;
    let all = |node| -> Vec<u8> { vfs.read(node, 0, 64 << 20).unwrap().iter().flat_map(|s| s.to_vec()).collect() };
    let data = all(ranges);
    assert_eq!(data.len() as u64, THREADS * ROUNDS * 1000);
    for (n, piece) in data.chunks(1000).enumerate() {
        assert!(piece.iter().all(|b| *b == (n as u64 % THREADS) as u8 + 1), "range {n}");
    }
    let mut next = [0u32; THREADS as usize];
    for record in all(appended).chunks(8) {
        let (t, n) = (record[0] as usize, u32::from_le_bytes(record[4..].try_into().unwrap()));
        assert_eq!(next[t], n, "records of a thread come in its order");
        next[t] += 1;
    }
    assert_eq!(next, [ROUNDS as u32; THREADS as usize]);
    let mut names = 0u64;
    vfs.readdir(root, 0, &mut |_| {
        names += 1;
        true
    })
    .unwrap();
    let per_thread: u64 = (0..ROUNDS)
        .map(|n| match n % 4 {
            1 => 0,
            3 => 2,
            _ => 1,
        })
        .sum();
    assert_eq!(names - 4, THREADS * per_thread);
    assert_eq!(vfs.getattr(root).unwrap().size, names);
    live.close();
}
