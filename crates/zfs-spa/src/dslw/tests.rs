//! The dataset layer on a disk in memory, judged by walks: what is allocated is what can be reached or waits to be
//! freed, and every directory's sums are those of its blocks.

mod livelist;
mod names;
mod random;

use super::*;
use crate::dslw::create::NewObjset;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use zfs_dmu::owner::{BlockKind, ObjsetOwner};
use zfs_dmu::traverse::{Options, traverse};
use zfs_dmu::{Dnode, ObjectSpec, TO_END};
use zfs_env::{BlockDevice, MemDevice, Rng, SeededRng};
use zfs_phys::enums::{DmuObjectType as Ot, ObjsetType};
use zfs_zio::ErrorKind;
use zfs_zio::alloc::{Class, MetaslabSeed, RangeTree, TopSeed};
use zfs_zio::write::{WriteConfig, WriteProps};
use zfs_zio::{ArcCache, VdevConfig, VdevKind, VdevTree, Zio};

const MS_SHIFT: u64 = 24;

/// The pool's side: features counted in memory, blocks freed at once.
struct Ops {
    zio: Arc<Zio>,
    features: Mutex<HashMap<Feature, i64>>,
    rng: Mutex<SeededRng>,
}

impl PoolOps for Ops {
    fn free(&self, tx: &Tx, bp: &BlkPtr) -> Result<()> {
        if bp.is_embedded() { Ok(()) } else { self.zio.free(tx.txg(), bp) }
    }
    fn note_obsolete(&self, dva: &zfs_phys::Dva) -> Result<()> {
        self.zio.note_obsolete(dva)
    }
    fn dsize(&self, bp: &BlkPtr) -> u64 {
        if bp.is_embedded() { 0 } else { bp.asize() }
    }
    fn has_special(&self) -> bool {
        false
    }
    fn feature_enabled(&self, _: Feature) -> bool {
        true
    }
    fn feature_active(&self, feature: Feature) -> bool {
        self.features.lock().get(&feature).is_some_and(|n| *n > 0)
    }
    fn feature_add(&self, _: &Tx, feature: Feature, delta: i64) -> Result<()> {
        let mut all = self.features.lock();
        let n = all.entry(feature).or_default();
        *n += delta;
        assert!(*n >= 0, "{feature:?} is used {n} times");
        Ok(())
    }
    fn log(&self, _: &Tx, _: &str, _: Option<(&str, u64)>, _: &str) -> Result<()> {
        Ok(())
    }
    fn now(&self) -> (u64, u64) {
        (1_700_000_000, 5)
    }
    fn guid(&self) -> u64 {
        self.rng.lock().u64() | 1
    }
}

struct MosOwner {
    dsl: OnceLock<Weak<DslPool>>,
    early: Mutex<Vec<BlkPtr>>,
    ops: Arc<Ops>,
}

impl MosOwner {
    fn dsl(&self) -> Option<Arc<DslPool>> {
        self.dsl.get()?.upgrade()
    }
}

impl ObjsetOwner for MosOwner {
    fn block_born(&self, bp: &BlkPtr, _: &Tx) -> Result<()> {
        match self.dsl() {
            Some(dsl) => dsl.mos_born(bp),
            None => self.early.lock().push(*bp),
        }
        Ok(())
    }
    fn block_kill(&self, bp: &BlkPtr, tx: &Tx) -> Result<u64> {
        self.dsl().unwrap().mos_kill(tx, bp)
    }
    fn write_props(&self, block: &BlockKind) -> WriteProps {
        mos_write_props(&*self.ops, block)
    }
    fn dsize(&self, bp: &BlkPtr) -> u64 {
        self.ops.dsize(bp)
    }
    fn dirtied(&self, _: u64) {}
}

struct Mini {
    disk: Arc<MemDevice>,
    zio: Arc<Zio>,
    ops: Arc<Ops>,
    mos: Arc<Objset>,
    dsl: Arc<DslPool>,
    /// Lists to be condensed, which are looked through one txg later.
    condensing: Option<Condensing>,
    txg: u64,
}

fn init(objset: &Arc<Objset>, tx: &Tx) -> Result<()> {
    objset
        .allocate(tx, &ObjectSpec { object_type: Ot::PLAIN_FILE_CONTENTS, block_size: 4096, ..Default::default() })?;
    Ok(())
}

impl Mini {
    fn new() -> Self {
        let size = 128u64 << 20;
        let disk = Arc::new(MemDevice::new(vec![0; (size + (5 << 20)) as usize]));
        let mut leaf = VdevConfig::empty(VdevKind::File, 0);
        (leaf.guid, leaf.ashift, leaf.asize, leaf.metaslab_shift) = (7, 9, size, MS_SHIFT);
        let mut root = VdevConfig::empty(VdevKind::Root, 0);
        root.children.push(leaf);
        let tree = VdevTree::build(root, &mut |_: &VdevConfig| Ok(disk.clone() as _)).unwrap();
        let zio = Zio::new("mini", tree, Arc::new(ArcCache::new(32 << 20)), None);
        let metaslabs =
            (0..size >> MS_SHIFT).map(|index| MetaslabSeed { index, allocated: 0, histogram: None }).collect();
        let loader = Arc::new(|_, ms: u64| {
            let mut free = RangeTree::new();
            free.add(ms << MS_SHIFT, (ms + 1) << MS_SHIFT).unwrap();
            Ok(free)
        });
        zio.enable_writes(vec![TopSeed { vdev: 0, class: Class::Normal, metaslabs }], loader, WriteConfig::default())
            .unwrap();
        let rng = Mutex::new(SeededRng::new(3));
        let ops = Arc::new(Ops { zio: zio.clone(), features: Mutex::default(), rng });
        let owner = Arc::new(MosOwner { dsl: OnceLock::new(), early: Mutex::default(), ops: ops.clone() });
        let mos = Objset::create(&zio, 0, ObjsetType::Meta, owner.clone()).unwrap();
        let tx = Tx::syncing(4);
        Zap::claim(&mos, &tx, POOL_DIRECTORY, Ot::OBJECT_DIRECTORY).unwrap();
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        let dsl = DslPool::create_tree(&mos, ops.clone(), &tx, new).unwrap();
        owner.dsl.set(Arc::downgrade(&dsl)).unwrap();
        let mut mini = Self { disk, zio, ops, mos, dsl, condensing: None, txg: 4 };
        mini.sync(|_, _| {});
        mini
    }

    /// Syncs the txg that is open, with a task.
    fn sync<T>(&mut self, task: impl FnOnce(&DslPool, &Tx) -> T) -> T {
        let tx = Tx::syncing(self.txg);
        self.dsl.sync_datasets(&tx, 1).unwrap();
        self.dsl.condense(&tx).unwrap();
        self.dsl.free_some(&tx).unwrap();
        let done = task(&self.dsl, &tx);
        self.dsl.account_mos().unwrap();
        let mut pass = 1;
        loop {
            self.dsl.sync_datasets(&tx, pass).unwrap();
            self.dsl.flush(&tx).unwrap();
            if !self.mos.is_dirty(self.txg) {
                break;
            }
            self.mos.sync(&tx, pass).unwrap();
            pass += 1;
            assert!(pass < 20, "does not converge");
        }
        self.zio.take_sync_delta(self.txg).unwrap();
        self.mos.txg_done(self.txg);
        self.dsl.txg_done(self.txg);
        self.zio.metaslab_sync_done(self.txg).unwrap();
        self.txg += 1;
        match self.condensing.take() {
            Some(work) => drop(work.run()),
            None => self.condensing = self.dsl.condensing_due(),
        }
        done
    }

    fn file(&self, path: &str) -> Arc<Dnode> {
        let ds = self.dsl.find(path).unwrap().unwrap();
        self.dsl.open_objset(&ds).unwrap().dnode(1).unwrap()
    }

    fn write(&self, path: &str, block: u64, fill: u8) {
        self.file(path).write_at(&Tx::syncing(self.txg), block * 4096, &pattern(fill)).unwrap();
    }

    /// Every dataset and directory, with what is wrong with the space they say.
    fn check(&self) {
        // As a reader finds it: a second dataset layer over the same meta object set.
        let dsl = DslPool::open(&self.mos, self.ops.clone()).unwrap();
        let mut reached: BTreeSet<[u64; 2]> = BTreeSet::new();
        let mut of_dirs: HashMap<u64, i64> = HashMap::new();
        let mut objects = Vec::new();
        for item in self.mos.objects() {
            let (object, phys) = item.unwrap();
            if phys.bonustype == Ot::DSL_DATASET {
                objects.push(object);
            }
        }
        for object in objects {
            let ds = dsl.dataset(object).unwrap();
            let phys = ds.phys();
            if phys.bp.is_hole() {
                assert_eq!(phys.referenced_bytes, 0, "dataset {object}");
                continue;
            }
            let os = Objset::open(&self.zio, &phys.bp, object, None).unwrap();
            let sums = Mutex::new(0u64);
            let new = Mutex::new(Vec::new());
            let options = Options { threads: 1, ..Options::default() };
            traverse(
                &os,
                &options,
                &|v| {
                    *sums.lock() += self.ops.dsize(v.bp);
                    if !v.bp.is_embedded() {
                        new.lock().push(v.bp.dva(0).word);
                    }
                    self.zio.verify(v.bp, &v.bookmark, true)
                },
                &|_, e| Err(e),
            )
            .unwrap();
            assert_eq!(phys.referenced_bytes, sums.into_inner(), "dataset {object} references");
            for word in new.into_inner() {
                if reached.insert(word) {
                    *of_dirs.entry(phys.dir_obj).or_default() += (word[0] & 0xff_ffff) as i64 * 512;
                }
            }
        }
        for item in self.mos.objects() {
            let (object, phys) = item.unwrap();
            if phys.bonustype == Ot::DSL_DIR {
                let p = dsl.dir(object).unwrap().phys();
                let b = p.breakdown;
                assert_eq!(p.used_bytes, b.head + b.snap + b.child + b.child_reserved + b.ref_reserved, "dir {object}");
            }
        }
    }

    fn used(&self, path: &str) -> [u64; 3] {
        let p = self.dsl.find_dir(path).unwrap().unwrap().phys();
        [p.used_bytes, p.breakdown.head, p.breakdown.snap]
    }
}

/// A block that does not compress.
fn pattern(fill: u8) -> Vec<u8> {
    let mut block = vec![0; 4096];
    SeededRng::new(u64::from(fill)).fill(&mut block);
    block
}

#[test]
fn a_fresh_pool_has_its_tree() {
    let mini = Mini::new();
    mini.check();
    assert!(mini.used("")[0] > 0);
    assert!(mini.dsl.find("nothing").unwrap().is_none());
}

#[test]
fn snapshots_hold_what_the_head_lets_go_and_give_it_back() {
    let mut mini = Mini::new();
    mini.sync(|dsl, tx| {
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        dsl.create(tx, "a", new).map(drop).unwrap();
    });
    for block in 0..64 {
        mini.write("a", block, block as u8);
    }
    mini.sync(|_, _| {});
    mini.check();
    let full = mini.used("a");
    let snap = |mini: &mut Mini, name: &str| {
        mini.sync(|dsl, tx| {
            let head = dsl.find("a").unwrap().unwrap();
            dsl.snapshot(tx, &head, name, 5).map(drop).unwrap();
        });
    };
    snap(&mut mini, "one");
    for block in 0..32 {
        mini.write("a", block, 100 + block as u8);
    }
    mini.sync(|_, _| {});
    mini.check();
    let [used, _, held] = mini.used("a");
    assert!(held >= 32 * 4096 && used > full[0], "{used} {held}");
    snap(&mut mini, "two");
    for block in 32..64 {
        mini.write("a", block, 200 + block as u8 % 50);
    }
    mini.sync(|_, _| {});
    mini.check();
    let one = mini.dsl.find("a@one").unwrap().unwrap();
    // Half of it was overwritten before the next snapshot; the rest was shared with that.
    assert!((32 * 4096..40 * 4096).contains(&one.phys().unique_bytes), "{}", one.phys().unique_bytes);
    let mut seen = vec![0; 4096];
    let os = Objset::open(&mini.zio, &one.phys().bp, one.object, None).unwrap();
    os.dnode(1).unwrap().read_at(0, &mut seen).unwrap();
    assert_eq!(seen, pattern(0));
    for name in ["one", "two"] {
        mini.sync(|dsl, tx| {
            let snap = dsl.find(&format!("a@{name}")).unwrap().unwrap();
            dsl.destroy_snapshot(tx, &snap, name, false).unwrap();
        });
        mini.sync(|_, _| {});
        mini.check();
    }
    let [used, head, held] = mini.used("a");
    assert_eq!((held, used), (0, head));
    assert!(used.abs_diff(full[0]) < 64 << 10, "{used} {full:?}");
    assert_eq!(mini.dsl.free_dir.lock().as_ref().unwrap().phys().used_bytes, 0);
}

#[test]
fn clones_and_destruction_free_everything() {
    let mut mini = Mini::new();
    let before = mini.used("");
    mini.sync(|dsl, tx| {
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        dsl.create(tx, "a", new).map(drop).unwrap();
    });
    for block in 0..500 {
        mini.write("a", block, block as u8);
    }
    mini.sync(|_, _| {});
    mini.sync(|dsl, tx| {
        let head = dsl.find("a").unwrap().unwrap();
        dsl.snapshot(tx, &head, "s", 5).map(drop).unwrap();
    });
    mini.sync(|dsl, tx| dsl.clone_of(tx, "c", "a@s").map(drop).unwrap());
    mini.write("c", 3, 77);
    mini.file("a").free_range(&Tx::syncing(mini.txg), 0, TO_END).unwrap();
    mini.sync(|_, _| {});
    mini.check();
    let refused = mini.sync(|dsl, tx| {
        let snap = dsl.find("a@s").unwrap().unwrap();
        dsl.destroy_snapshot(tx, &snap, "s", false)
    });
    assert_eq!(refused.unwrap_err().kind(), zfs_zio::ErrorKind::Exists);
    for (path, name) in [("c", ""), ("a@s", "s"), ("a", "")] {
        mini.sync(|dsl, tx| {
            let ds = dsl.find(path).unwrap().unwrap();
            match name {
                "" => dsl.destroy_head(tx, &ds, path).unwrap(),
                name => dsl.destroy_snapshot(tx, &ds, name, false).unwrap(),
            }
        });
        mini.sync(|_, _| {});
        mini.check();
    }
    mini.sync(|_, _| {});
    assert!(mini.dsl.find_dir("a").unwrap().is_none());
    let after = mini.used("");
    assert!(after[0].abs_diff(before[0]) < 256 << 10, "{before:?} {after:?}");
    assert!(!mini.ops.feature_active(Feature::AsyncDestroy));
}

#[test]
fn renaming_and_going_back() {
    let mut mini = Mini::new();
    mini.sync(|dsl, tx| {
        for path in ["a", "b", "a/x"] {
            let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
            dsl.create(tx, path, new).map(drop).unwrap();
        }
    });
    for block in 0..32 {
        mini.write("a/x", block, block as u8);
    }
    mini.sync(|_, _| {});
    mini.sync(|dsl, tx| {
        let head = dsl.find("a/x").unwrap().unwrap();
        dsl.snapshot(tx, &head, "s", 5).map(drop).unwrap();
    });
    let then = mini.used("a/x");
    let whole = mini.used("")[0];
    for block in 16..64 {
        mini.write("a/x", block, 100 + block as u8);
    }
    mini.sync(|_, _| {});
    mini.check();
    mini.sync(|dsl, tx| {
        let dir = dsl.find_dir("a/x").unwrap().unwrap();
        assert!(dsl.rename(tx, &dir, "a/x", "a/x/y").is_err());
        dsl.rename(tx, &dir, "a/x", "b/z").unwrap();
        let snap = dsl.find("b/z@s").unwrap().unwrap();
        dsl.rename_snapshot(tx, &snap, "s", "t").unwrap();
    });
    mini.check();
    assert!(mini.dsl.find("a/x").unwrap().is_none() && mini.dsl.find("b/z@t").unwrap().is_some());
    let (a, b, z) = (mini.used("a"), mini.used("b"), mini.used("b/z"));
    assert_eq!(b[0], b[1] + z[0]);
    assert_eq!(a[0], a[1]);
    mini.sync(|dsl, tx| {
        let head = dsl.find("b/z").unwrap().unwrap();
        dsl.rollback(tx, &head).unwrap();
    });
    mini.sync(|_, _| {});
    mini.check();
    assert_eq!(mini.used("b/z"), then);
    let mut seen = vec![0; 4096];
    mini.file("b/z").read_at(20 * 4096, &mut seen).unwrap();
    assert_eq!(seen, pattern(20));
    assert!(mini.used("")[0].abs_diff(whole) < 128 << 10, "{} {whole}", mini.used("")[0]);
}

/// What a destroyed tree still holds, by its entry's bookmark.
fn left_of(mini: &Mini) -> Option<(u64, i64)> {
    let table = mosw::zap_get(&mini.mos, POOL_DIRECTORY, "bptree_obj").unwrap()?;
    let dnode = mini.mos.dnode(table).unwrap();
    let header: Vec<u64> =
        dnode.bonus().unwrap().chunks(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
    let (mut blocks, mut bytes) = (0, 0);
    for index in header[0]..header[1] {
        let raw = dnode.read_vec(index * 168, 168).unwrap();
        let mut r = zfs_phys::Reader::new(&raw, zfs_phys::Endian::Little, "entry");
        let bp = BlkPtr::read(&mut r).unwrap();
        let [min_txg, objset, object, level, blkid] = r.u64s().unwrap();
        assert_eq!(level, 0);
        let resume = (objset != 0).then(|| zfs_zio::Zbookmark::new(objset, object, 0, blkid));
        let os = Objset::open(&mini.zio, &bp, u64::MAX, None).unwrap();
        zfs_dmu::ordered::walk(&os, min_txg, resume, &mut |v| {
            blocks += 1;
            bytes += mini.ops.dsize(v.bp) as i64;
            mini.zio.verify(v.bp, &v.bookmark, true).unwrap();
            Ok(zfs_dmu::ordered::Step::Next)
        })
        .unwrap();
    }
    assert_eq!(header[2] as i64, bytes, "the table's sum");
    Some((blocks, bytes))
}

/// A tree of many objects, large and small, is freed over many txgs; what is left of it is always whole and counted.
#[test]
fn trees_are_freed_over_txgs() {
    let mut mini = Mini::new();
    let free_space = |mini: &Mini| mini.zio.space(Class::Normal).alloc;
    mini.sync(|dsl, tx| {
        let mut init = |objset: &Arc<Objset>, tx: &Tx| {
            let spec = ObjectSpec {
                object_type: Ot::PLAIN_FILE_CONTENTS,
                block_size: 4096,
                indirect_shift: 12,
                ..Default::default()
            };
            for n in 0u64..70 {
                let slots = if n % 5 == 0 { 2 } else { 1 };
                let file = objset.allocate(tx, &ObjectSpec { slots, ..spec })?;
                for block in 0..[1, 3, 40, 0, 2, 300][n as usize % 6] {
                    file.write_at(tx, block * 4096, &pattern((n + block) as u8))?;
                }
            }
            Ok(())
        };
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        dsl.create(tx, "big", new).map(drop).unwrap();
    });
    let used = mini.used("big")[0];
    assert!(used > 10 << 20, "{used}");
    mini.dsl.set_max_frees(29);
    mini.sync(|dsl, tx| {
        let head = dsl.find("big").unwrap().unwrap();
        dsl.destroy_head(tx, &head, "big").unwrap();
    });
    let (mut blocks, mut bytes) = left_of(&mini).unwrap();
    assert_eq!(bytes as u64, used);
    let mut txgs = 0;
    let before = free_space(&mini);
    loop {
        mini.sync(|_, _| {});
        txgs += 1;
        let freeing = mini.dsl.free_dir.lock().as_ref().unwrap().phys().used_bytes;
        let Some((b, n)) = left_of(&mini) else {
            assert_eq!(freeing, 0);
            break;
        };
        assert_eq!(freeing as i64, n);
        assert!(b < blocks && n <= bytes && blocks - b < 40, "{b} {blocks}");
        (blocks, bytes) = (b, n);
    }
    assert!(txgs > 100, "{txgs} txgs");
    assert!(!mini.ops.feature_active(Feature::AsyncDestroy));
    for _ in 0..4 {
        mini.sync(|_, _| {});
    }
    assert!(free_space(&mini) + used < before + (1 << 20), "{} {before} {used}", free_space(&mini));
    mini.check();
}

/// A tree of which a block is lost keeps the rest of itself, and is in nobody's way.
#[test]
fn a_tree_that_cannot_be_read_waits() {
    let mut mini = Mini::new();
    for path in ["bad", "good"] {
        mini.sync(|dsl, tx| {
            let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
            dsl.create(tx, path, new).map(drop).unwrap();
        });
        for block in 0..2000 {
            mini.write(path, block, block as u8);
        }
        mini.sync(|_, _| {});
    }
    let lost = mini.file("bad").phys().blkptr[0];
    assert!(lost.level() > 0);
    mini.disk.write_at((4 << 20) + lost.dva(0).offset(), &[0x5a; 512]).unwrap();
    if lost.ndvas() > 1 {
        mini.disk.write_at((4 << 20) + lost.dva(1).offset(), &[0x5a; 512]).unwrap();
    }
    mini.zio.release(&lost, None);
    let used = [mini.used("bad")[0], mini.used("good")[0]];
    for path in ["bad", "good"] {
        mini.sync(|dsl, tx| {
            let head = dsl.find(path).unwrap().unwrap();
            dsl.destroy_head(tx, &head, path).unwrap();
        });
    }
    for _ in 0..3 {
        mini.sync(|_, _| {});
    }
    let freeing = mini.dsl.free_dir.lock().as_ref().unwrap().phys().used_bytes;
    assert!(freeing > used[0] / 2 && freeing <= used[0], "{freeing} {used:?}");
    assert!(mini.ops.feature_active(Feature::AsyncDestroy));
}

/// Counts are held against limits wherever one is in the way upwards.
#[test]
fn limits_count_what_is_below() {
    let mut mini = Mini::new();
    let make = |dsl: &DslPool, tx: &Tx, path: &str| {
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        dsl.create(tx, path, new).map(drop).unwrap();
    };
    mini.sync(|dsl, tx| {
        for path in ["a", "a/b", "a/b/c", "other"] {
            make(dsl, tx, path);
        }
        let a = dsl.find("a").unwrap().unwrap();
        dsl.set_prop(tx, &a, "filesystem_limit", &NewValue::Number(3)).unwrap();
        dsl.set_prop(tx, &a, "snapshot_limit", &NewValue::Number(2)).unwrap();
    });
    let quota = |r: Result<()>| r.is_err_and(|e| e.kind() == ErrorKind::Quota);
    let more = |path, n| mini.dsl.check_limits(Limit::Filesystems, &[(path, n)]);
    assert!(more("a/b/c", 1).is_ok() && quota(more("a/b/c", 2)) && quota(more("a", 2)));
    assert!(more("", 9).is_ok() && more("other", 9).is_ok());
    let snaps = |list: &[(&str, u64)]| mini.dsl.check_limits(Limit::Snapshots, list);
    assert!(snaps(&[("a", 1), ("a/b", 1)]).is_ok() && quota(snaps(&[("a", 1), ("a/b", 1), ("a/b/c", 1)])));
    mini.sync(|dsl, tx| make(dsl, tx, "a/d"));
    // Moving within counts nothing twice; moving in does.
    assert!(mini.dsl.check_limits_of_move("a/d", "a/b/d").is_ok());
    assert!(mini.dsl.check_limits_of_move("a/d", "d").is_ok());
    assert!(quota(mini.dsl.check_limits_of_move("other", "a/other")));
    mini.sync(|dsl, tx| {
        let head = dsl.find("a/b/c").unwrap().unwrap();
        dsl.destroy_head(tx, &head, "a/b/c").unwrap();
    });
    assert!(mini.dsl.check_limits_of_move("other", "a/other").is_ok());
}
