//! Devices that vanish while they join a pool, at every one of their writes: the pool goes on, or waits for them like for
//! any of its devices, and OpenZFS's `zdb` finds nothing wrong afterwards, where it is installed.

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use zfs_dmu::{ObjectSpec, Zap};
use zfs_env::{BlockDevice, FileDevice, SystemClock};
use zfs_phys::enums::DmuObjectType;

use zfs_spa::{Auxiliaries, CreateOptions, NewVdev, Search, Spa, create, discover, import};
use zfs_zio::Vdev;
use zfs_zio::alloc::Class;
use zfs_zio::arc::ArcCache;

const MIB: u64 = 1 << 20;

/// A device that is gone after so many writes and flushes.
struct Vanishing {
    file: FileDevice,
    left: AtomicI64,
}

impl Vanishing {
    fn there(&self) -> io::Result<()> {
        if self.left.load(Ordering::Relaxed) < 0 { Err(io::Error::from_raw_os_error(6)) } else { Ok(()) }
    }

    fn count(&self) -> io::Result<()> {
        self.left.fetch_sub(1, Ordering::Relaxed);
        self.there()
    }
}

impl BlockDevice for Vanishing {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.there()?;
        self.file.read_at(offset, buf)
    }

    fn path(&self) -> String {
        self.file.path()
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.count()?;
        self.file.write_at(offset, data)
    }

    fn flush(&self) -> io::Result<()> {
        self.count()?;
        self.file.flush()
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

fn fresh(dir: &Path) {
    let path = dir.join("d0");
    let device = Arc::new(FileDevice::create(&path, 64 * MIB).unwrap());
    let vdev = NewVdev::Leaf { path: path.to_string_lossy().into_owned(), device, disk: false };
    let options = CreateOptions::new("fresh", vec![(Class::Normal, vdev)], Arc::new(ArcCache::new(64 << 20)));
    let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
        Zap::claim(objset, tx, 1, DmuObjectType::MASTER_NODE)?.add(tx, b"VERSION", &[5])?;
        objset.allocate(tx, &ObjectSpec::default())?;
        Ok(())
    };
    create(&options, &mut init).unwrap();
}

fn open(dir: &Path) -> Arc<Spa> {
    let found = discover(&Search::Paths(vec![PathBuf::from(dir)])).unwrap();
    let pool = found.pools.into_iter().find(|p| p.name == "fresh").unwrap();
    let mut options = common::options();
    options.for_write = true;
    let spa = Spa::open(&import(&pool, &options).unwrap(), 0x1234, Arc::new(SystemClock)).unwrap();
    spa.follow_failmode().unwrap();
    spa
}

/// The pool as it lies there is whole.
fn judge(dir: &Path) {
    let found = discover(&Search::Paths(vec![PathBuf::from(dir)])).unwrap();
    let pool = found.pools.into_iter().find(|p| p.name == "fresh").unwrap();
    import(&pool, &common::options()).unwrap().verify_metadata().unwrap();
    let Ok(out) = Command::new("zdb").arg("-e").arg("-p").arg(dir).args(["fresh", "-bbcc"]).output() else {
        eprintln!("SKIPPED: no zdb");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let clean = text.contains("No leaks (block sum matches space maps exactly)");
    assert!(out.status.success() && clean, "{text}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// What the new device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    Add,
    Attach,
    Replace,
}

fn join(spa: &Arc<Spa>, how: Join, path: &Path, device: &Arc<Vanishing>) -> zfs_spa::Result<()> {
    let path = path.to_string_lossy().into_owned();
    let new = NewVdev::Leaf { path, device: device.clone(), disk: false };
    let old = spa.zio().vdevs().leaves()[0].guid();
    match how {
        Join::Add => spa.add(&[(Class::Normal, new)], &Auxiliaries::default(), None),
        Join::Attach => spa.attach(old, &new, false, None),
        Join::Replace => spa.attach(old, &new, true, None),
    }
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was refused, and nothing changed.
    Refused,
    /// The pool waited for it.
    Waited,
    /// It is a member that failed.
    Failed,
    /// It did not vanish early enough.
    Joined,
}

fn one(how: Join, after: i64, let_go: bool) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    fresh(dir.path());
    let spa = open(dir.path());
    let path = dir.path().join("d1");
    let file = FileDevice::create(&path, 64 * MIB).unwrap();
    let device = Arc::new(Vanishing { file, left: AtomicI64::new(after) });
    let (mut waited, mut ended, mut resumed) = (false, false, Ok(()));
    let result = std::thread::scope(|scope| {
        let joining = scope.spawn(|| join(&spa, how, &path, &device));
        let until = Instant::now() + Duration::from_secs(30);
        while !joining.is_finished() {
            if Instant::now() > until {
                spa.give_up();
                panic!("{how:?} after {after} writes hangs");
            }
            if spa.zio().is_suspended() && !ended {
                waited = true;
                if let_go {
                    spa.give_up();
                    ended = true;
                } else {
                    device.left.store(i64::MAX, Ordering::Relaxed);
                    let reopen = |leaf: &Vdev| {
                        assert_eq!(leaf.config.path.as_deref(), path.to_str());
                        Some(device.clone() as Arc<dyn BlockDevice>)
                    };
                    resumed = spa.resume_io(&reopen).map(drop);
                    if resumed.is_err() {
                        spa.give_up();
                        ended = true;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        joining.join().unwrap()
    });
    resumed.unwrap();
    spa.wait_scan();
    let gone = device.there().is_err();
    let leaves = spa.zio().vdevs().leaves().len();
    if !ended {
        if result.is_err() {
            assert_eq!((leaves, waited), (1, false), "{how:?} after {after} writes: {result:?}");
        }
        assert!(!spa.zio().is_suspended());
        spa.sync_task("test", |ctx| ctx.log("test", "it goes on")).unwrap();
    }
    let _ = spa.close(false);
    drop(spa);
    drop(device);
    judge(dir.path());
    let outcome = match (&result, waited, gone) {
        (_, true, _) => Outcome::Waited,
        (Err(_), ..) => Outcome::Refused,
        (Ok(()), _, true) => Outcome::Failed,
        (Ok(()), ..) => Outcome::Joined,
    };
    eprintln!("{how:?} after {after} writes: {outcome:?}, {result:?}");
    outcome
}

#[test]
fn a_device_vanishes_while_it_is_added() {
    let seen = [5, 13, 15, 28, 500].map(|n| one(Join::Add, n, false));
    assert!(seen.contains(&Outcome::Refused) && seen.contains(&Outcome::Waited), "{seen:?}");
    assert_eq!(seen.last(), Some(&Outcome::Joined));
    // The pool is let go of instead.
    let seen = [13, 20].map(|n| one(Join::Add, n, true));
    assert_eq!(seen, [Outcome::Waited, Outcome::Waited]);
}

#[test]
fn a_device_vanishes_while_it_is_attached() {
    for how in [Join::Attach, Join::Replace] {
        let seen = [5, 13, 21].map(|n| one(how, n, false));
        assert!(seen.contains(&Outcome::Refused) && seen.contains(&Outcome::Failed), "{seen:?}");
        assert!(!seen.contains(&Outcome::Waited), "the others have it all: {seen:?}");
        assert_eq!(one(how, 100_000, false), Outcome::Joined);
    }
}

/// A device is attached at the very moment at which a resilver has ended and the old one is let go of.
#[test]
fn devices_come_while_others_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    fresh(dir.path());
    let spa = open(dir.path());
    let (done, ended) = std::sync::mpsc::channel();
    let work = {
        let (spa, dir) = (spa.clone(), dir.path().to_owned());
        move || {
            let image = |n: u32| {
                let path = dir.join(format!("new{n}"));
                let device = Arc::new(FileDevice::create(&path, 64 * MIB).unwrap());
                NewVdev::Leaf { path: path.to_string_lossy().into_owned(), device, disk: false }
            };
            for n in 0..30 {
                let old = spa.zio().vdevs().leaves()[0].guid();
                spa.attach(old, &image(2 * n), true, None).unwrap();
                std::thread::sleep(Duration::from_micros(u64::from(n) * 700));
                // The one that is let go of may be gone by now, or be one that is being replaced.
                let at = spa.zio().vdevs().leaves().last().unwrap().guid();
                let _ = spa.attach(at, &image(2 * n + 1), false, None);
                spa.wait_scan();
                while let [_, .., last] = spa.zio().vdevs().leaves().as_slice() {
                    spa.detach(last.guid()).unwrap();
                }
            }
            done.send(()).unwrap();
        }
    };
    let worker = std::thread::spawn(work);
    if ended.recv_timeout(Duration::from_secs(60)).is_err() {
        assert!(worker.is_finished(), "attaching waits for what waits for it");
    }
    worker.join().unwrap();
    spa.close(false).unwrap();
    drop(spa);
    judge(dir.path());
}
