//! Writing while devices fail: what is degraded, what is lost, what is repaired, and the order of labels.

mod common;

use common::{DISK, Free, Layout, Pool, bytes, subsets};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use zfs_codec::checksum::{label_verifier, verify_embedded};
use zfs_env::{BlockDevice, MemDevice};
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_phys::label::{
    VDEV_LABEL_START_SIZE, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, encode_config, label_offset, uberblock_offset,
};
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::uberblock::{UBERBLOCK_MAGIC, Uberblock};
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, ErrorKind, VdevState, WriteProps, Zbookmark, Zio};

const TXG: u64 = 300;

fn props() -> WriteProps {
    WriteProps { compress: CompressKind::Off, ..WriteProps::new(DmuObjectType::PLAIN_FILE_CONTENTS, 0) }
}

fn bm() -> Zbookmark {
    Zbookmark::new(21, 7, 0, 0)
}

fn try_put(zio: &Zio, data: &[u8]) -> Result<BlkPtr, ErrorKind> {
    zio.write(TXG, &Buf::from(data.to_vec()), &props(), &bm(), None, 1).map_err(|e| e.kind())
}

fn dtl(zio: &Zio, leaf: usize) -> Vec<std::ops::Range<u64>> {
    zio.vdevs().find(100 + leaf as u64).unwrap().dtl()
}

#[test]
fn devices_that_refuse_are_done_without() {
    for layout in [Layout::Mirror(2), Layout::Raidz(6, 2), Layout::Raidz(7, 3), Layout::Draid(3, 1, 1, 6, 5)] {
        for bad in subsets(layout.disks(), layout.may_lose()) {
            let pool = Pool::new(&[layout], 12);
            bad.iter().for_each(|b| pool.disks[*b].fail(VDEV_LABEL_START_SIZE..DISK));
            let data = bytes(layout.disks() * 8192, 0, 1);
            let bp = try_put(&pool.zio, &data).unwrap();
            assert!(pool.zio.is_writable());
            pool.disks.iter().for_each(|d| d.heal());
            assert_eq!(*pool.reopen(&bad).read(&bp, &bm(), None).unwrap(), *data);
            for leaf in 0..layout.disks() {
                let stats = &pool.zio.vdevs().find(100 + leaf as u64).unwrap().stats;
                let hit = bad.contains(&leaf) && stats.write_errors() > 0;
                let want: Vec<_> = hit.then_some(TXG..TXG + 1).into_iter().collect();
                assert_eq!((dtl(&pool.zio, leaf), stats.write_errors() > 0), (want, hit), "{layout:?} {bad:?} {leaf}");
            }
            // What is known to lack the block is not asked for it: nothing to blame, nothing repaired.
            assert_eq!(*pool.zio.read(&bp, &bm(), None).unwrap(), *data);
            assert_eq!(pool.zio.errors().damage(), []);
        }
    }
}

#[test]
fn too_many_failures_suspend_the_pool() {
    for layout in [Layout::Single, Layout::Mirror(2), Layout::Raidz(3, 1), Layout::Draid(4, 2, 2, 9, 7)] {
        let pool = Pool::new(&[layout], 12);
        pool.disks.iter().for_each(|d| d.fail(VDEV_LABEL_START_SIZE..DISK));
        let data = bytes(1 << 20, 0, 1);
        assert_eq!(try_put(&pool.zio, &data), Err(ErrorKind::Io));
        assert!(pool.zio.is_suspended());
        pool.disks.iter().for_each(|d| d.heal());
        let writes: u64 = pool.disks.iter().map(|d| d.writes()).sum();
        assert_eq!(try_put(&pool.zio, &data), Err(ErrorKind::Suspended));
        assert!(pool.zio.flush().is_err() && pool.zio.take_sync_delta(TXG).is_err());
        assert_eq!(pool.disks.iter().map(|d| d.writes()).sum::<u64>(), writes, "nothing is written any more");
        pool.zio.resume().unwrap();
        let bp = try_put(&pool.zio, &data).unwrap();
        assert_eq!(*pool.zio.read(&bp, &bm(), None).unwrap(), *data);
    }
}

#[test]
fn missing_devices_get_a_dirty_time_log() {
    let pool = Pool::new(&[Layout::Raidz(3, 1)], 12);
    let zio = pool.reopen(&[1]);
    common::writable(&zio, &[], &Free::default());
    for txg in [5, 6, 7, 9, 8, 20] {
        zio.write(txg, &Buf::from(bytes(65536, 0, txg)), &props(), &bm(), None, 1).unwrap();
    }
    assert_eq!((dtl(&zio, 0), dtl(&zio, 1)), (vec![], vec![5..10, 20..21]));
}

/// Bytes found wrong are put right on the disk, whichever column or side they were in.
#[test]
fn what_a_read_finds_wrong_is_repaired() {
    for layout in common::LAYOUTS.into_iter().filter(|l| l.may_lose() > 0) {
        let pool = Pool::new(&[layout], 12);
        let data = bytes(layout.disks() * 12288 + 4096, 0, 1);
        let bp = try_put(&pool.zio, &data).unwrap();
        let whole: Vec<Vec<u8>> = pool.disks.iter().map(|d| front(d)).collect();
        assert!(whole.iter().filter(|w| w.iter().any(|b| *b != 0)).count() > layout.may_lose());
        for (bad, (disk, whole)) in pool.disks.iter().zip(&whole).enumerate() {
            spoil(disk);
            pool.zio.verify(&bp, &bm(), true).unwrap();
            // Everything that was ever written is the same again; the rest was never anybody's.
            let held = front(disk);
            let same = held.iter().zip(whole).all(|(h, w)| h == w || (*w == 0 && *h == 0xff));
            assert!(same, "{layout:?} disk {bad}");
            let parts = whole.chunks_exact(FRONT_LEN as usize);
            FRONT.into_iter().zip(parts).for_each(|(at, part)| disk.poke(at, part));
        }
        assert!(pool.zio.errors().damage_count() > 0);
        // An ordinary read does as much for what it meets.
        let victim = whole.iter().position(|w| w.iter().any(|b| *b != 0)).unwrap();
        spoil(&pool.disks[victim]);
        assert_eq!(*pool.zio.read(&bp, &bm(), None).unwrap(), *data, "{layout:?}");
    }
}

/// Padding is no part of the block, and parity covers it: the disk whose padding rotted is put right, not the parity.
#[test]
fn rotten_padding_is_repaired_where_it_is() {
    for layout in [Layout::Raidz(3, 1), Layout::Raidz(5, 2), Layout::Raidz(7, 3), Layout::Draid(3, 1, 1, 6, 5)] {
        let pool = Pool::new(&[layout], 12);
        let data = bytes(4096 + 512, 0, 1);
        let bp = try_put(&pool.zio, &data).unwrap();
        let whole: Vec<Vec<u8>> = pool.disks.iter().map(|d| front(d)).collect();
        let tail = |w: &Vec<u8>| w.chunks_exact(4096).position(|sector| sector[..512] == data[4096..]);
        let holders: Vec<(usize, usize)> = whole.iter().enumerate().filter_map(|(d, w)| Some((d, tail(w)?))).collect();
        let [(disk, sector)] = holders[..] else { panic!("{layout:?}: {holders:?}") };
        let (part, at) = (sector * 4096 / FRONT_LEN as usize, (sector * 4096) as u64 % FRONT_LEN);
        pool.disks[disk].poke(FRONT[part] + at + 4000, &[7]);
        let before = pool.zio.errors().damage_count();
        pool.zio.verify(&bp, &bm(), true).unwrap();
        let found = pool.zio.errors().damage_count();
        assert_eq!(found, before + 1, "{layout:?}");
        assert!(pool.disks.iter().zip(&whole).all(|(d, w)| front(d) == *w), "{layout:?}");
        pool.zio.verify(&bp, &bm(), true).unwrap();
        assert_eq!(pool.zio.errors().damage_count(), found, "{layout:?}");
    }
}

/// A pointer of an older txg must not have other blocks overwritten that lie where one of its copies was.
#[test]
fn what_was_freed_and_may_be_in_use_again_is_not_repaired() {
    let pool = Pool::new(&[Layout::Single], 12);
    let data = bytes(65536, 0, 1);
    let twice = WriteProps { copies: 2, ..props() };
    let old = pool.zio.write(TXG, &Buf::from(data.clone()), &twice, &bm(), None, 1).unwrap();
    let place = VDEV_LABEL_START_SIZE + old.dva(0).offset();
    let held = || {
        let mut held = vec![0; data.len()];
        pool.disks[0].read_at(place, &mut held).unwrap();
        held
    };
    let other = bytes(65536, 0, 2);
    let done = |txg: u64| {
        pool.zio.take_sync_delta(txg).unwrap();
        pool.zio.metaslab_sync_done(txg).unwrap();
    };
    done(TXG);
    pool.disks[0].poke(place, &other);
    pool.zio.verify(&old, &bm(), true).unwrap();
    assert_eq!(held(), data, "as long as it is allocated, it is repaired");
    pool.zio.free(TXG + 1, &old).unwrap();
    (TXG + 1..TXG + 4).for_each(done);
    pool.disks[0].poke(place, &other);
    pool.zio.verify(&old, &bm(), true).unwrap();
    assert_eq!(held(), other, "it may be another block's");
}

/// Where a disk holds the first blocks of a new pool: its front, and on dRAID one row further.
const FRONT: [u64; 2] = [VDEV_LABEL_START_SIZE, VDEV_LABEL_START_SIZE + (16 << 20)];
const FRONT_LEN: u64 = 2 << 20;

fn front(disk: &MemDevice) -> Vec<u8> {
    let mut held = vec![0; 2 * FRONT_LEN as usize];
    for (at, part) in FRONT.into_iter().zip(held.chunks_exact_mut(FRONT_LEN as usize)) {
        disk.read_at(at, part).unwrap();
    }
    held
}

fn spoil(disk: &MemDevice) {
    FRONT.into_iter().for_each(|at| disk.corrupt(at..at + FRONT_LEN));
}

#[test]
fn latent_sectors_and_lost_copies_are_rewritten() {
    let pool = Pool::new(&[Layout::Single, Layout::Single], 12);
    let twice = WriteProps { copies: 2, ..props() };
    let data = bytes(32768, 0, 1);
    let bp = pool.zio.write(TXG, &Buf::from(data.clone()), &twice, &bm(), None, 1).unwrap();
    let place = |d: usize| VDEV_LABEL_START_SIZE + bp.dva(d).offset();
    let disk = |d: usize| &pool.disks[bp.dva(d).vdev() as usize];
    disk(0).corrupt(place(0)..place(0) + 32768);
    assert_eq!(*pool.zio.read(&bp, &bm(), None).unwrap(), *data);
    let image = disk(0).image();
    assert!(image[place(0) as usize..][..32768] == data[..], "the first copy was made from the second");
    // Read-only pools are left as they are.
    disk(1).corrupt(place(1)..place(1) + 512);
    pool.reopen(&[]).verify(&bp, &bm(), true).unwrap();
    assert!(disk(1).image()[place(1) as usize..][..32768] != data[..]);
}

#[test]
fn a_device_that_returns_is_given_what_it_missed() {
    for layout in [Layout::Mirror(3), Layout::Raidz(3, 1), Layout::Raidz(6, 2), Layout::Draid(3, 1, 1, 6, 5)] {
        for away in 0..layout.disks() {
            let pool = Pool::new(&[layout], 12);
            let zio = pool.reopen(&[away]);
            common::writable(&zio, &[], &Free::default());
            let put = |txg: u64| {
                let data = bytes(36864, 0, txg);
                (zio.write(txg, &Buf::from(data.clone()), &props(), &bm(), None, 1).unwrap(), data)
            };
            let blocks: Vec<_> = (5..12).map(put).collect();
            let missed = dtl(&zio, away);
            drop(zio);
            let zio = pool.reopen(&[]);
            common::writable(&zio, &[], &Free::default());
            let leaf = zio.vdevs().find(100 + away as u64).unwrap();
            leaf.set_dtl(missed.clone());
            let writes = |but: usize| -> u64 {
                pool.disks.iter().enumerate().filter(|(i, _)| *i != but).map(|(_, d)| d.writes()).sum()
            };
            let before = writes(away);
            pool.disks[away].fail(VDEV_LABEL_START_SIZE..DISK);
            let refused = blocks.iter().filter(|(bp, _)| zio.resilver(bp, &bm()).is_err()).count();
            assert_eq!(refused > 0, !missed.is_empty(), "{layout:?} {away}");
            pool.disks[away].heal();
            let done: u64 = blocks.iter().map(|(bp, _)| zio.resilver(bp, &bm()).unwrap()).sum();
            assert_eq!((done > 0, writes(away)), (!missed.is_empty(), before), "others are left alone");
            leaf.dtl_remove_before(8);
            assert!(leaf.dtl().iter().all(|r| r.start >= 8));
            leaf.dtl_remove_before(12);
            assert_eq!((leaf.dtl(), zio.resilver(&blocks[0].0, &bm()).unwrap()), (vec![], 0));
            zio.errors().clear();
            for (bp, data) in &blocks {
                zio.verify(bp, &bm(), true).unwrap();
                let lost: Vec<usize> = (0..layout.disks()).filter(|d| *d != away).take(layout.may_lose()).collect();
                assert_eq!(*pool.reopen(&lost).read(bp, &bm(), None).unwrap(), **data);
            }
            assert_eq!(zio.errors().damage(), []);
        }
    }
}

/// A disk that keeps a list of what was done to it, and can be told to fail flushes.
struct Recorder {
    disk: MemDevice,
    index: usize,
    log: Arc<Mutex<Vec<(usize, Op)>>>,
    flush_fails: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Write(u64, usize),
    Flush,
}

impl BlockDevice for Recorder {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }

    fn path(&self) -> String {
        format!("recorder {}", self.index)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.log.lock().unwrap().push((self.index, Op::Write(offset, data.len())));
        self.disk.write_at(offset, data)
    }

    fn flush(&self) -> io::Result<()> {
        self.log.lock().unwrap().push((self.index, Op::Flush));
        if self.flush_fails.load(Ordering::Relaxed) { Err(io::Error::other("no")) } else { Ok(()) }
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

type Log = Arc<Mutex<Vec<(usize, Op)>>>;

fn recorded(layout: Layout) -> (Arc<Zio>, Vec<Arc<Recorder>>, Log) {
    let log = Log::default();
    let disks: Vec<Arc<Recorder>> = (0..layout.disks())
        .map(|index| {
            let disk = MemDevice::new(vec![0; DISK as usize]);
            Arc::new(Recorder { disk, index, log: log.clone(), flush_fails: AtomicBool::new(false) })
        })
        .collect();
    let zio = common::open(&[layout], 12, &disks, &[]);
    common::writable(&zio, &[], &Free::default());
    (zio, disks, log)
}

#[test]
fn a_failed_flush_fails_the_device() {
    let (zio, disks, log) = recorded(Layout::Raidz(3, 1));
    try_put(&zio, &bytes(65536, 0, 1)).unwrap();
    zio.write(TXG + 2, &Buf::from(bytes(65536, 0, 2)), &props(), &bm(), None, 1).unwrap();
    zio.flush().unwrap();
    let flushes = || log.lock().unwrap().iter().filter(|(_, op)| *op == Op::Flush).count();
    assert_eq!(flushes(), 3);
    zio.flush().unwrap();
    assert_eq!(flushes(), 3, "nothing was written since");
    for txg in [TXG + 3, TXG + 5] {
        zio.write(txg, &Buf::from(bytes(65536, 0, 2)), &props(), &bm(), None, 1).unwrap();
    }
    disks[1].flush_fails.store(true, Ordering::Relaxed);
    zio.flush().unwrap();
    assert_eq!(zio.vdevs().find(101).unwrap().state(), VdevState::Faulted);
    assert_eq!(zio.vdevs().root().state(), VdevState::Degraded);
    assert_eq!(dtl(&zio, 1), vec![TXG + 3..TXG + 6]);
    let bp = try_put(&zio, &bytes(65536, 0, 3)).unwrap();
    assert_eq!(*zio.read(&bp, &bm(), None).unwrap(), *bytes(65536, 0, 3));
    disks[0].flush_fails.store(true, Ordering::Relaxed);
    assert_eq!(zio.flush().unwrap_err().kind(), ErrorKind::Io);
    assert!(zio.is_suspended());
    assert_eq!(zio.vdevs().root().state(), VdevState::CantOpen);
}

/// A disk that knows which of its writes a flush has covered, and takes its time for it.
#[derive(Default)]
struct Lazy {
    unflushed: Mutex<Vec<u64>>,
    durable: Mutex<std::collections::HashSet<u64>>,
    flushes: std::sync::atomic::AtomicU64,
}

impl BlockDevice for Lazy {
    fn size(&self) -> u64 {
        DISK
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn path(&self) -> String {
        "lazy".into()
    }

    fn write_at(&self, offset: u64, _: &[u8]) -> io::Result<()> {
        std::thread::yield_now();
        self.unflushed.lock().unwrap().push(offset);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let covered = std::mem::take(&mut *self.unflushed.lock().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.durable.lock().unwrap().extend(covered);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

#[test]
fn flushes_are_shared_and_cover_what_was_written() {
    let disks: Vec<Arc<Lazy>> = (0..2).map(|_| Arc::default()).collect();
    let zio = common::open(&[Layout::Mirror(2)], 12, &disks, &[]);
    common::writable(&zio, &[], &Free::default());
    zfs_env::pool::run_scoped("test", 8, |thread| {
        for i in 0..25 {
            let data = Buf::from(bytes(4096, 0, i));
            let bm = Zbookmark::new(1, thread as u64, 0, i);
            let bp = zio.write(TXG, &data, &props(), &bm, None, 1).unwrap();
            zio.flush().unwrap();
            let at = VDEV_LABEL_START_SIZE + bp.dva(0).offset();
            assert!(disks.iter().all(|d| d.durable.lock().unwrap().contains(&at)), "flushed before it was written");
        }
    });
    let flushes = disks[0].flushes.load(Ordering::Relaxed);
    // How many requests one flush serves depends on the scheduler; that none is shared is a fault.
    assert!((25..200).contains(&flushes), "{flushes} flushes for 200 requests");
}

fn uberblock(txg: u64) -> Uberblock {
    let mut blank = vec![0u8; 1024];
    blank[..8].copy_from_slice(&Endian::NATIVE.put_u64(UBERBLOCK_MAGIC));
    let mut ub = Uberblock::decode(&blank).unwrap();
    (ub.version, ub.txg) = (5000, txg);
    ub
}

#[test]
fn labels_and_uberblocks_are_written_in_the_order_that_survives() {
    let (zio, disks, log) = recorded(Layout::Mirror(2));
    let mut list = NvList::new();
    list.set("name", NvValue::String("tank".into()));
    let config = encode_config(&list).unwrap();
    for leaf in zio.vdevs().leaves() {
        leaf.init_labels(&config, None).unwrap();
    }
    zio.flush().unwrap();
    log.lock().unwrap().clear();
    try_put(&zio, &bytes(4096, 0, 1)).unwrap();
    let ub = uberblock(TXG);
    zio.commit(&ub, false, Some(&|_| Ok(Some(config.clone())))).unwrap();
    let mine: Vec<Op> = log.lock().unwrap().iter().filter(|(i, _)| *i == 0).map(|(_, op)| *op).collect();
    let label = |n: usize| label_offset(DISK, n).unwrap();
    let area = |n| Op::Write(label(n) + VDEV_SKIP_SIZE, VDEV_PHYS_SIZE as usize);
    let root = |n| Op::Write(label(n) + uberblock_offset(TXG, 12, false), 4096);
    let f = Op::Flush;
    let data = mine[0];
    assert_eq!(mine, [data, f, area(0), area(2), f, root(0), root(1), root(2), root(3), f, area(1), area(3), f]);
    // All disks have passed one step before any takes the next.
    let all = log.lock().unwrap().clone();
    let first_root = all.iter().position(|(_, op)| *op == root(0)).unwrap();
    assert_eq!(all[..first_root].iter().filter(|(_, op)| *op == f).count(), 4);
    for disk in &disks {
        let image = disk.disk.image();
        for n in 0..4 {
            let at = label(n) + VDEV_SKIP_SIZE;
            let area = &image[at as usize..][..VDEV_PHYS_SIZE as usize];
            verify_embedded(ChecksumKind::Label, area, label_verifier(at), false).unwrap();
            let at = label(n) + uberblock_offset(TXG, 12, false);
            let slot = &image[at as usize..][..4096];
            verify_embedded(ChecksumKind::Label, slot, label_verifier(at), false).unwrap();
            assert_eq!(Uberblock::decode(slot).unwrap().txg, TXG);
        }
    }
    for leaf in zio.vdevs().leaves() {
        leaf.clear_labels().unwrap();
    }
    assert!(disks.iter().all(|d| d.disk.image()[..VDEV_LABEL_START_SIZE as usize].iter().all(|b| *b == 0)));
}

#[test]
fn a_pool_whose_uberblock_reaches_no_disk_has_not_moved() {
    let pool = Pool::new(&[Layout::Mirror(2)], 12);
    let commit = || pool.zio.commit(&uberblock(TXG), false, None);
    let half = DISK / 2;
    pool.disks[0].fail(0..half);
    pool.disks[1].fail(0..DISK);
    commit().unwrap();
    pool.disks[0].fail(half..DISK);
    assert_eq!(commit().unwrap_err().kind(), ErrorKind::Io);
    let labels = encode_config(&NvList::new()).unwrap();
    assert!(pool.zio.is_suspended());
    pool.zio.resume().unwrap();
    assert!(pool.zio.commit(&uberblock(TXG), false, Some(&|_| Ok(Some(labels.clone())))).is_err());
}
