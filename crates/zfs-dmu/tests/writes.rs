//! Changing objects, txg by txg, against a model; what is on disk afterwards is read by the reader that knows nothing
//! of changes.

mod common;
#[path = "common/live.rs"]
mod live;

use live::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::bpobj::{Bpobj, Enough};
use zfs_dmu::sa::{SaHandle, SaRegistry};
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::{Dnode, ObjectSpec, Objset, Seek, TO_END, Tx, Zap};
use zfs_phys::enums::{DmuObjectType as T, ObjsetType};
use zfs_phys::spacemap::MapType;

/// A generator of numbers that are the same every time.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let kind = self.below(4);
        let seed = self.next();
        (0..len as u64)
            .map(|i| match kind {
                0 => 0,
                1 => seed as u8,
                2 => (i / 64).wrapping_mul(seed) as u8,
                _ => ((seed ^ i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8,
            })
            .collect()
    }
}

#[derive(Clone, Default)]
struct File {
    data: Vec<u8>,
    bonus: Vec<u8>,
    spill: Option<Vec<u8>>,
}

fn file_spec(rng: &mut Rng) -> ObjectSpec {
    ObjectSpec {
        object_type: T::PLAIN_FILE_CONTENTS,
        block_size: [512, 1024, 4096, 1536, 16384][rng.below(5) as usize],
        indirect_shift: 12,
        bonus_type: T::SA,
        bonus_len: 64,
        slots: 1 + rng.below(3) as u8,
    }
}

fn compare(os: &Arc<Objset>, model: &BTreeMap<u64, File>) {
    let found: Vec<u64> = os.objects().map(|o| o.unwrap().0).collect();
    if !os.is_writable() {
        assert_eq!(found, model.keys().copied().collect::<Vec<_>>());
    }
    for (object, file) in model {
        let d = os.dnode(*object).unwrap();
        let got = d.read_vec(0, file.data.len() + 3000).unwrap();
        let mut want = file.data.clone();
        want.resize(file.data.len() + 3000, 0);
        assert!(got == want, "contents of {object} differ at {:?}", got.iter().zip(&want).position(|(a, b)| a != b));
        assert_eq!(&d.bonus().unwrap()[..], &file.bonus[..]);
        let spill = d.spill().unwrap().map(|(b, _)| b.to_vec());
        assert_eq!(spill, file.spill);
        // What is said to be a hole is one; and every byte of data is found.
        let mut at = 0;
        while let Some(data) = d.next_offset(at, Seek::Data).unwrap() {
            assert!(want.iter().take(data as usize).skip(at as usize).all(|b| *b == 0), "data in a hole of {object}");
            at = d.next_offset(data, Seek::Hole).unwrap().unwrap();
            assert!(at > data);
        }
        assert!(want.iter().skip(at as usize).all(|b| *b == 0), "data behind the last hole of {object}");
    }
}

fn change(rng: &mut Rng, os: &Arc<Objset>, tx: &Tx, model: &mut BTreeMap<u64, File>) {
    let pick = rng.below(20);
    let some = model.keys().nth(rng.below(model.len().max(1) as u64) as usize).copied();
    let Some(object) = some.filter(|_| pick > 1) else {
        let spec = file_spec(rng);
        let d = os.allocate(tx, &spec).unwrap();
        let file = File { bonus: vec![0; 64], ..File::default() };
        assert!(model.insert(d.object(), file).is_none(), "a number that is in use");
        return;
    };
    let d: Arc<Dnode> = os.dnode(object).unwrap();
    let enough = model.len() > 3;
    let file = model.get_mut(&object).unwrap();
    let far = if rng.below(10) == 0 { 3_000_000 } else { 60_000 };
    match pick {
        2 if enough => {
            os.free_object(tx, object).unwrap();
            assert!(os.dnode(object).is_err());
            model.remove(&object);
        }
        3 => {
            let len = rng.below(100) as usize;
            file.bonus = rng.bytes(len);
            d.set_bonus(tx, T::SA, &file.bonus).unwrap();
        }
        4 => {
            file.spill = (rng.below(3) > 0).then(|| {
                let sectors = 1 + rng.below(3) as usize;
                let mut v = rng.bytes(512 * sectors);
                v[0] = 1;
                v
            });
            d.set_spill(tx, file.spill.as_deref()).unwrap();
        }
        5..=6 => {
            let size = rng.below(file.data.len() as u64 + 1000);
            d.truncate(tx, size).unwrap();
            file.data.truncate(size as usize);
        }
        7..=9 => {
            let (from, len) = (rng.below(far), rng.below(far));
            let len = if rng.below(8) == 0 { TO_END } else { len };
            d.free_range(tx, from, len).unwrap();
            let end = from.saturating_add(len).min(file.data.len() as u64);
            if from < end {
                file.data[from as usize..end as usize].fill(0);
            }
        }
        10 if d.phys().maxblkid == 0 && d.datablksz() < 8192 => {
            let size = d.datablksz() as u32 + 512 * (1 + rng.below(4) as u32);
            d.set_blocksize(tx, size).unwrap();
        }
        _ => {
            let (at, len) = (rng.below(far) as usize, 1 + rng.below(9000) as usize);
            let bytes = rng.bytes(len);
            d.write_at(tx, at as u64, &bytes).unwrap();
            if file.data.len() < at + len {
                file.data.resize(at + len, 0);
            }
            file.data[at..at + len].copy_from_slice(&bytes);
        }
    }
}

#[test]
fn random_changes_agree_with_a_model() {
    for seed in 1..=2u64 {
        let pool = Pool::new(128, ObjsetType::Zfs, if seed % 2 == 0 { 3 } else { 1 });
        let mut rng = Rng(seed * 7919);
        let mut model = BTreeMap::new();
        for txg in 4..22 {
            let tx = Tx::syncing(txg);
            for _ in 0..rng.below(40) {
                change(&mut rng, &pool.objset, &tx, &mut model);
            }
            compare(&pool.objset, &model);
            // Changes of the next txg come in while this one is written.
            let mut later = model.clone();
            let next = Tx::syncing(txg + 1);
            for _ in 0..rng.below(10) {
                change(&mut rng, &pool.objset, &next, &mut later);
            }
            compare(&pool.objset, &later);
            pool.sync(txg);
            compare(&pool.objset, &later);
            if !pool.objset.root_bp().is_hole() {
                let os = pool.reopen();
                pool.check_used(&os);
                compare(&os, &model);
            }
            model = later;
        }
    }
}

#[test]
fn writers_and_the_sync_do_not_disturb_each_other() {
    let pool = Pool::new(256, ObjsetType::Zfs, 2);
    let tx = Tx::syncing(4);
    let spec = ObjectSpec { object_type: T::PLAIN_FILE_CONTENTS, block_size: 4096, ..ObjectSpec::default() };
    let file = pool.objset.allocate(&tx, &spec).unwrap();
    drop(tx);
    let txgs = zfs_dmu::Txgs::new(4);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            txgs.run(|txg| {
                pool.sync(txg);
                Ok(())
            })
        });
        // Each writer has bytes of its own in blocks that all share, and finds them as it left them.
        let writers: Vec<_> = (0..4u64)
            .map(|w| {
                let (txgs, file) = (&txgs, &file);
                scope.spawn(move || {
                    let mut rng = Rng(w + 1);
                    let mut mine = vec![0u8; 200];
                    for _ in 0..3000 {
                        let slot = rng.below(200);
                        let value = rng.next() as u8;
                        let tx = txgs.assign().unwrap();
                        file.write_at(&tx, slot * 1000 + w * 200, &[value; 200]).unwrap();
                        drop(tx);
                        mine[slot as usize] = value;
                        let probe = rng.below(200);
                        let got = file.read_vec(probe * 1000 + w * 200, 200).unwrap();
                        assert_eq!(got, vec![mine[probe as usize]; 200]);
                        if rng.below(200) == 0 {
                            txgs.wait_synced(0).unwrap();
                        }
                    }
                    mine
                })
            })
            .collect();
        let all: Vec<Vec<u8>> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        txgs.stop();
        runner.join().unwrap().unwrap();
        let os = pool.reopen();
        let disk = os.dnode(file.object()).unwrap();
        for (w, mine) in all.iter().enumerate() {
            for (slot, value) in mine.iter().enumerate() {
                assert_eq!(disk.read_vec(slot as u64 * 1000 + w as u64 * 200, 200).unwrap(), vec![*value; 200]);
            }
        }
    });
}

/// Keys and values of a table as its iteration gives them.
fn entries(zap: &Zap) -> BTreeMap<Vec<u8>, Vec<u64>> {
    zap.iter().map(|e| e.unwrap()).map(|e| (e.name().to_vec(), e.value.u64s())).collect()
}

#[test]
fn tables_grow_and_agree_with_a_map() {
    for (count, long) in [(40, false), (3000, false), (800, true), (100_000, true)] {
        let pool = Pool::new(256, ObjsetType::Meta, 2);
        let mut rng = Rng(count * 31);
        let mut model: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let mut tx = Tx::syncing(4);
        let object = Zap::create(&pool.objset, &tx, T::DIRECTORY_CONTENTS, 0).unwrap();
        let mut txg = 4;
        for i in 0..count {
            let zap = Zap::open(&pool.objset, object).unwrap();
            let n = rng.below(count);
            let name = if long && n.is_multiple_of(5) {
                format!("{n}{}", "x".repeat(n as usize % 150))
            } else {
                format!("n{n}")
            };
            let value = if long && n.is_multiple_of(7) { vec![n, i, i] } else { vec![rng.next()] };
            match rng.below(4) {
                0 => {
                    let got = zap.remove(&tx, name.as_bytes());
                    assert_eq!(got.is_ok(), model.remove(name.as_bytes()).is_some());
                }
                1 => {
                    zap.update(&tx, name.as_bytes(), &value).unwrap();
                    model.insert(name.into_bytes(), value);
                }
                _ => {
                    let got = zap.add(&tx, name.as_bytes(), &value);
                    assert_eq!(got.is_err(), model.contains_key(name.as_bytes()));
                    model.entry(name.into_bytes()).or_insert(value);
                }
            }
            if i % (count / 5) == count / 5 - 1 {
                assert_eq!(entries(&Zap::open(&pool.objset, object).unwrap()), model);
                pool.sync(txg);
                let os = pool.reopen();
                let disk = Zap::open(&os, object).unwrap();
                assert_eq!((disk.count(), entries(&disk)), (model.len() as u64, model.clone()));
                for (name, value) in model.iter().take(2000) {
                    assert_eq!(disk.lookup(name).unwrap().map(|v| v.u64s()).as_ref(), Some(value));
                }
                txg += 1;
                tx = Tx::syncing(txg);
            }
        }
    }
}

#[test]
fn freed_numbers_are_used_again() {
    let pool = Pool::new(64, ObjsetType::Zfs, 1);
    let spec = ObjectSpec { object_type: T::PLAIN_FILE_CONTENTS, ..ObjectSpec::default() };
    let mut highest = 0;
    for txg in 4..24 {
        let tx = Tx::syncing(txg);
        let made: Vec<u64> = (0..200).map(|_| pool.objset.allocate(&tx, &spec).unwrap().object()).collect();
        highest = highest.max(*made.iter().max().unwrap());
        pool.sync(txg);
        let tx = Tx::syncing(txg + 1);
        for object in made {
            pool.objset.free_object(&tx, object).unwrap();
            assert!(pool.objset.claim(&tx, object, &spec).is_err(), "free before its txg is on disk");
        }
        pool.sync(txg + 1);
    }
    assert!(highest < 1000, "{highest}");
    assert_eq!(pool.reopen().objects().count(), 0);
}

#[test]
fn attributes_find_their_layouts_and_spill_over() {
    use zfs_dmu::sa::ZplAttr as A;
    let pool = Pool::new(64, ObjsetType::Zfs, 1);
    let os = &pool.objset;
    let mut rng = Rng(99);
    let mut model: BTreeMap<u64, BTreeMap<u16, (A, Vec<u8>)>> = BTreeMap::new();
    let tx = Tx::syncing(4);
    let master = Zap::create(os, &tx, T::SA_MASTER_NODE, 0).unwrap();
    let registry = Arc::new(SaRegistry::load_from(os, master, 5).unwrap());
    for slots in [1, 1, 2, 4] {
        let (object_type, bonus_type) = (T::PLAIN_FILE_CONTENTS, T::SA);
        let spec = ObjectSpec { object_type, bonus_type, slots, ..ObjectSpec::default() };
        let d = os.allocate(&tx, &spec).unwrap();
        SaHandle::create(&registry, &d).unwrap().update(&tx, os, &[(A::Mode, vec![1; 8])]).unwrap();
        model.insert(d.object(), BTreeMap::from([(A::Mode as u16, (A::Mode, vec![1; 8]))]));
    }
    drop(tx);
    for txg in 4..20 {
        let tx = Tx::syncing(txg);
        for (object, attrs) in &mut model {
            let d = os.dnode(*object).unwrap();
            let len = rng.below(700) as usize;
            let changes = match rng.below(6) {
                0 => vec![(A::Dxattr, rng.bytes(len))],
                1 => vec![(A::Symlink, rng.bytes(len / 4)), (A::Size, rng.bytes(8))],
                2 => vec![(A::DaclAces, rng.bytes(len & !7)), (A::DaclCount, rng.bytes(8))],
                3 => {
                    attrs.remove(&(A::Dxattr as u16));
                    SaHandle::open(&registry, &d).unwrap().remove(&tx, os, A::Dxattr).unwrap();
                    Vec::new()
                }
                _ => vec![(A::Mtime, rng.bytes(16)), (A::Projid, rng.bytes(8))],
            };
            SaHandle::open(&registry, &d).unwrap().update(&tx, os, &changes).unwrap();
            attrs.extend(changes.into_iter().map(|(a, v)| (a as u16, (a, v))));
        }
        pool.sync(txg);
        let disk = pool.reopen();
        let fresh = Arc::new(SaRegistry::load_from(&disk, master, 5).unwrap());
        for (os, registry) in [(&disk, &fresh), (os, &registry)] {
            for (object, attrs) in &model {
                let h = SaHandle::open(registry, &os.dnode(*object).unwrap()).unwrap();
                assert_eq!(h.numbers().unwrap().len(), attrs.len());
                for (attr, value) in attrs.values() {
                    assert_eq!(h.get(*attr).unwrap().map(|(v, _)| v.to_vec()).as_ref(), Some(value), "{attr:?}");
                }
            }
        }
    }
}

#[test]
fn lists_and_maps_are_kept() {
    let pool = Pool::new(64, ObjsetType::Meta, 1);
    let os = &pool.objset;
    let bp = |i: u64| {
        let mut bp = zfs_phys::BlkPtr::default();
        bp.set_lsize(4096);
        bp.set_psize(1024);
        bp.set_object_type(T::PLAIN_FILE_CONTENTS);
        bp.set_dva(0, zfs_phys::Dva::new(0, i * 512, 1024, false));
        bp.set_birth(3, 3);
        bp
    };
    let tx = Tx::syncing(4);
    let lists: Vec<u64> = (0..4).map(|_| Bpobj::create(os, &tx, false).unwrap()).collect();
    let mut next = 0;
    for (list, count) in lists.iter().zip([3u64, 2500, 10, 1]) {
        let mut list = Bpobj::open(os, *list).unwrap();
        for _ in 0..count {
            list.enqueue(&tx, &bp(next), false, 1024).unwrap();
            next += 1;
        }
    }
    // A long list hangs below, short ones are copied; their own objects are gone.
    let mut top = Bpobj::open(os, lists[0]).unwrap();
    top.enqueue_subobj(&tx, lists[1]).unwrap();
    top.enqueue_subobj(&tx, lists[2]).unwrap();
    let mut upper = Bpobj::open(os, lists[3]).unwrap();
    upper.enqueue_subobj(&tx, lists[0]).unwrap();
    let map = SpaceMap::create(os, &tx, 4096, true).unwrap();
    let mut sm = SpaceMap::open(os, map).unwrap();
    for i in 0..600u64 {
        let mut segments = [(i << 20, (i << 20) + 4096), ((i << 20) + 65536, (i << 20) + (1 << 19))].into_iter();
        sm.append(&tx, 1, MapType::Alloc, None, &mut segments, 9, true).unwrap();
    }
    sm.append(&tx, 1, MapType::Free, None, &mut [(0, 4096)].into_iter(), 9, true).unwrap();
    pool.sync(4);
    let disk = pool.reopen();
    let list = Bpobj::open(&disk, lists[3]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    list.iterate(|bp, _| {
        seen.insert(bp.dva(0).offset() / 512);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, (0..next).collect());
    let p = list.phys();
    assert_eq!((p.bytes, p.comp, p.uncomp, p.num_blkptrs), (next * 1024, next * 1024, next * 4096, 14));
    let sm = SpaceMap::open(&disk, map).unwrap();
    let mut space = 0i64;
    sm.iterate(|e| {
        if let zfs_phys::spacemap::SmEntry::Segment { kind, run, .. } = e {
            space += if kind == MapType::Alloc { run as i64 * 512 } else { -(run as i64 * 512) };
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((sm.phys().alloc, space), (space, 600 * (4096 + (1 << 19) - 65536) - 4096));
    take_all(&pool, lists[3], next);
}

/// Takes everything off a list of `count` pointers, a part in each txg from 5 on.
fn take_all(pool: &Pool, list: u64, count: u64) {
    let os = &pool.objset;
    let mut taken = std::collections::BTreeSet::new();
    for txg in 5.. {
        let tx = Tx::syncing(txg);
        let mut left = 700;
        let empty = Bpobj::open(os, list).unwrap().take(&tx, &mut |bp, _| {
            assert!(taken.insert(bp.dva(0).offset() / 512), "taken twice");
            left -= 1;
            Ok(if left == 0 { Enough::Yes } else { Enough::No })
        });
        let empty = empty.unwrap();
        pool.sync(txg);
        let disk = pool.reopen();
        let p = *Bpobj::open(&disk, list).unwrap().phys();
        assert_eq!(p.bytes, (count - taken.len() as u64) * 1024);
        if empty {
            assert_eq!(taken.len() as u64, count);
            assert_eq!(disk.objects().count(), 2, "the list and the map");
            return;
        }
    }
}

#[test]
fn owners_are_accounted_for() {
    use zfs_dmu::objset::{GROUPUSED_OBJECT, PROJECTUSED_OBJECT, USERUSED_OBJECT};
    use zfs_dmu::{Accounting, FileInfo};
    let pool = Pool::new(64, ObjsetType::Zfs, 1);
    let os = &pool.objset;
    // The owner is the first byte of the bonus; 0 stands for nobody.
    let file_info = |_: T, bonus: &[u8], _: zfs_phys::Endian| {
        let id = u64::from(*bonus.first()?);
        (id != 0).then_some(FileInfo { uid: id, gid: id % 3, projid: 7 })
    };
    os.set_accounting(Accounting { file_info: Box::new(file_info), objects: true, projects: true }).unwrap();
    let mut rng = Rng(5);
    let mut model: BTreeMap<u64, File> = BTreeMap::new();
    for txg in 4..30 {
        let tx = Tx::syncing(txg);
        for _ in 0..20 {
            change(&mut rng, os, &tx, &mut model);
        }
        for (object, file) in &mut model {
            if file.bonus.first().is_none_or(|b| *b == 0) || rng.below(9) == 0 {
                file.bonus = vec![(rng.below(20) * 16) as u8; 8];
                os.dnode(*object).unwrap().set_bonus(&tx, T::SA, &file.bonus).unwrap();
            }
        }
        pool.sync(txg);
        let disk = pool.reopen();
        let mut want: BTreeMap<(u64, String), i64> = BTreeMap::new();
        for o in disk.objects() {
            let (_, phys) = o.unwrap();
            let Some(info) = file_info(T::SA, &phys.bonus, phys.endian) else { continue };
            for (zap, id) in [(USERUSED_OBJECT, info.uid), (GROUPUSED_OBJECT, info.gid), (PROJECTUSED_OBJECT, 7)] {
                *want.entry((zap, format!("{id:x}"))).or_default() += phys.used_bytes() as i64 + 512;
                *want.entry((zap, format!("obj-{id:x}"))).or_default() += 1;
            }
        }
        let mut got = BTreeMap::new();
        for zap in [USERUSED_OBJECT, GROUPUSED_OBJECT, PROJECTUSED_OBJECT] {
            let Ok(table) = Zap::open(&disk, zap) else { continue };
            for (name, value) in entries(&table) {
                got.insert((zap, String::from_utf8(name).unwrap()), value[0] as i64);
            }
        }
        assert_eq!(got, want);
    }
}

/// The pool's own object set changes while it is being written, so that one txg takes several passes, and blocks that
/// were written in an earlier pass are written again in their place.
#[test]
fn later_passes_write_the_same_blocks_again() {
    let pool = Pool::new(64, ObjsetType::Meta, 2);
    let mut rng = Rng(4711);
    let mut model = BTreeMap::new();
    let mut table: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    let object = Zap::create(&pool.objset, &Tx::syncing(4), T::DIRECTORY_CONTENTS, 0).unwrap();
    let is_file = |o: &u64| *o != object;
    for txg in 4..14 {
        let tx = Tx::syncing(txg);
        for pass in 1..=5 {
            for _ in 0..if pass == 1 { 30 } else { 6 } {
                change(&mut rng, &pool.objset, &tx, &mut model);
                let name = format!("{}", rng.below(4000)).into_bytes();
                let value = vec![rng.next()];
                Zap::open(&pool.objset, object).unwrap().update(&tx, &name, &value).unwrap();
                table.insert(name, value);
            }
            assert!(model.keys().all(is_file));
            pool.objset.sync(&tx, pass).unwrap();
            compare(&pool.objset, &model);
            assert_eq!(entries(&Zap::open(&pool.objset, object).unwrap()), table);
        }
        pool.sync(txg);
        let os = pool.reopen();
        pool.check_used(&os);
        assert_eq!(entries(&Zap::open(&os, object).unwrap()), table);
        for (o, file) in &model {
            assert!(os.dnode(*o).unwrap().read_vec(0, file.data.len()).unwrap() == file.data);
        }
    }
}

/// Many threads add to and look into one table while txgs sync.
#[test]
fn a_table_has_many_users() {
    let pool = Pool::new(128, ObjsetType::Zfs, 2);
    let object = Zap::create(&pool.objset, &Tx::syncing(4), T::DIRECTORY_CONTENTS, 0).unwrap();
    let txgs = zfs_dmu::Txgs::new(4);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            txgs.run(|txg| {
                pool.sync(txg);
                Ok(())
            })
        });
        let users: Vec<_> = (0..4u64)
            .map(|u| {
                let (txgs, pool) = (&txgs, &pool);
                scope.spawn(move || {
                    for i in 0..4000u64 {
                        let name = format!("{u}-{i}");
                        let tx = txgs.assign().unwrap();
                        let zap = Zap::open(&pool.objset, object).unwrap();
                        zap.add(&tx, name.as_bytes(), &[i]).unwrap();
                        if i % 3 == 2 {
                            zap.remove(&tx, format!("{u}-{}", i - 1).as_bytes()).unwrap();
                        }
                        drop(tx);
                        assert_eq!(zap.lookup_u64(name.as_bytes()).unwrap(), Some(i));
                        if i % 3 == 2 {
                            assert_eq!(zap.lookup_u64(format!("{u}-{}", i - 2).as_bytes()).unwrap(), Some(i - 2));
                        }
                        if i % 1000 == u * 200 {
                            txgs.kick();
                            let mine = zap
                                .iter()
                                .filter(|e| e.as_ref().unwrap().name().starts_with(format!("{u}-").as_bytes()));
                            assert_eq!(mine.count() as u64, i + 1 - (i + 1) / 3);
                        }
                    }
                })
            })
            .collect();
        users.into_iter().for_each(|u| u.join().unwrap());
        txgs.stop();
        runner.join().unwrap().unwrap();
    });
    let disk = Zap::open(&pool.reopen(), object).unwrap();
    assert_eq!((disk.count(), disk.iter().count()), (4 * (4000 - 1333), 4 * (4000 - 1333)));
}
