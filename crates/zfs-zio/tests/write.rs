//! What is written is read: every kind of vdev, sector size, block size, compression, checksum and number of copies.

mod common;

use common::{Free, LAYOUTS, Layout, Pool, bytes, subsets};
use std::sync::Arc;
use zfs_phys::BlkPtr;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_zio::alloc::SpaceFigures;
use zfs_zio::{Buf, Class, ErrorKind, RangeTree, WriteProps, Zbookmark, Zio};

const FILE: DmuObjectType = DmuObjectType::PLAIN_FILE_CONTENTS;
const TXG: u64 = 200;

fn props() -> WriteProps {
    WriteProps::new(FILE, 0)
}

fn bm(blkid: u64) -> Zbookmark {
    Zbookmark::new(21, 7, 0, blkid)
}

fn put(zio: &Zio, data: &[u8], props: &WriteProps, blkid: u64) -> BlkPtr {
    zio.write(TXG, &Buf::from(data.to_vec()), props, &bm(blkid), None, 1).unwrap()
}

#[track_caller]
fn check(zio: &Zio, bp: &BlkPtr, data: &[u8]) {
    let got = zio.read(bp, &Zbookmark::default(), None).unwrap_or_else(|e| panic!("{e}"));
    assert!(*got == *data, "other bytes came back");
}

#[test]
fn every_layout_sector_and_size() {
    for layout in LAYOUTS {
        for ashift in [9, 12, 13] {
            let pool = Pool::new(&[layout], ashift);
            let sizes = [512, 1024, 1536, 4096, 4608, 12288, 16384, 65536, 131072, 135168, 1 << 20];
            let mut written = Vec::new();
            for (i, size) in sizes.into_iter().enumerate() {
                for eighths in [0, 4, 7] {
                    let data = bytes(size, eighths, i as u64);
                    let bp = put(&pool.zio, &data, &props(), i as u64);
                    assert_eq!(
                        (bp.lsize(), bp.logical_birth(), bp.endian()),
                        (size as u64, TXG, zfs_phys::Endian::NATIVE)
                    );
                    let unit = pool.zio.vdevs().top(0).unwrap().min_alloc();
                    match bp.compress() {
                        Some(CompressKind::Off) => assert_eq!(bp.psize(), size as u64),
                        _ if bp.is_embedded() => {}
                        _ => assert!(bp.psize().is_multiple_of(unit) && bp.psize() <= size as u64 / 8 * 7),
                    }
                    written.push((bp, data));
                }
            }
            for (bp, data) in &written {
                check(&pool.zio, bp, data);
            }
            // Again, without as many disks as may be missing, whichever they are.
            for lost in subsets(layout.disks(), layout.may_lose()).iter().step_by(if ashift == 12 { 1 } else { 5 }) {
                let zio = pool.reopen(lost);
                for (bp, data) in &written {
                    check(&zio, bp, data);
                }
            }
            let zio = pool.reopen(&[]);
            for (bp, _) in &written {
                zio.verify(bp, &Zbookmark::default(), true).unwrap();
            }
            assert_eq!(zio.errors().damage(), [], "{layout:?} ashift {ashift}");
        }
    }
}

#[test]
fn every_compression_checksum_and_number_of_copies() {
    use ChecksumKind as S;
    use CompressKind as C;
    let pool = Pool::new(&[Layout::Single, Layout::Mirror(2), Layout::Raidz(3, 1)], 12);
    let sums = [S::Off, S::Fletcher2, S::Fletcher4, S::Sha256, S::Sha512, S::Skein, S::Edonr, S::Blake3, S::Noparity];
    let mut n = 0;
    for compress in [C::Off, C::Lzjb, C::Gzip1, C::Gzip6, C::Gzip9, C::Zle, C::Lz4, C::Zstd] {
        for checksum in sums {
            for copies in 1..=3 {
                let data = bytes(40960, 5, n);
                let props = WriteProps { compress, checksum, copies, ..props() };
                let bp = put(&pool.zio, &data, &props, n);
                n += 1;
                assert_eq!((bp.ndvas(), bp.checksum_kind()), (copies as usize, Some(checksum)));
                let mut on: Vec<u64> = bp.dvas().map(|d| d.vdev()).collect();
                on.sort_unstable();
                on.dedup();
                assert_eq!(on.len(), copies as usize, "copies share a vdev");
                check(&pool.zio, &bp, &data);
                // Any copy will do: each disk of the mirror and one of the raidz may be missing.
                if copies == 3 {
                    check(&pool.reopen(&[0, 1, 2]), &bp, &data);
                    check(&pool.reopen(&[0, 4, 5]), &bp, &data);
                    check(&pool.reopen(&[1, 2, 3, 4]), &bp, &data);
                }
            }
        }
    }
    for level in [1, 9, 19, 104, 255] {
        let data = bytes(131072, 5, 1);
        let bp = put(&pool.zio, &data, &WriteProps { compress: C::Zstd, complevel: level, ..props() }, 1);
        assert_eq!(bp.compress(), Some(C::Zstd));
        check(&pool.zio, &bp, &data);
    }
}

#[test]
fn zeros_are_holes_and_little_is_embedded() {
    let pool = Pool::new(&[Layout::Mirror(2)], 12);
    let zero = Buf::zeroed(131072);
    let hole = pool.zio.write(TXG, &zero, &props(), &bm(0), None, 1).unwrap();
    assert_eq!(hole, BlkPtr::default());
    let data = bytes(8192, 0, 5);
    let old = put(&pool.zio, &data, &props(), 0);
    let hole = pool.zio.write(TXG + 1, &zero, &props(), &bm(0), Some(&old), 1).unwrap();
    assert!(hole.is_hole() && hole.logical_birth() == TXG + 1 && hole.lsize() == 131072 && hole.object_type() == FILE);
    let off = WriteProps { compress: CompressKind::Off, ..props() };
    assert_eq!(pool.zio.write(TXG, &zero, &off, &bm(0), None, 1).unwrap().psize(), 131072);

    let mut little = vec![0u8; 4096];
    little[..40].copy_from_slice(&bytes(40, 0, 9));
    let bp = put(&pool.zio, &little, &props(), 0);
    assert!(bp.is_embedded() && bp.logical_birth() == TXG && bp.object_type() == FILE && bp.psize() <= 112);
    check(&pool.zio, &bp, &little);
    for (no, why) in [
        (WriteProps { embed: false, ..props() }, "not asked for"),
        (WriteProps { level: 1, ..props() }, "indirect"),
        (WriteProps { object_type: DmuObjectType::DNODE, ..props() }, "dnodes have fill counts"),
    ] {
        let bp = put(&pool.zio, &little, &no, 0);
        assert!(!bp.is_embedded(), "{why}");
        // Four kilobytes are the least that is allocated: nothing is gained by compressing.
        assert_eq!((bp.psize(), bp.compress()), (4096, Some(CompressKind::Off)));
        check(&pool.zio, &bp, &little);
    }
    assert_eq!(pool.zio.space(Class::Normal).alloc, 0, "counted when the txg is done");
}

#[test]
fn compression_must_be_worth_it() {
    let pool = Pool::new(&[Layout::Single], 9);
    // One part in eight gone, with some overhead: not enough. Two: enough.
    let size = |eighths| put(&pool.zio, &bytes(131072, eighths, 3), &props(), 0).psize();
    assert_eq!((size(0), size(1)), (131072, 131072));
    assert!(size(2) < 131072 / 8 * 7 && size(2) > 131072 / 8 * 6);
}

#[test]
fn what_did_not_change_is_left_alone() {
    let pool = Pool::new(&[Layout::Single], 12);
    let data = bytes(65536, 4, 1);
    let strong = WriteProps { checksum: ChecksumKind::Sha256, nopwrite: true, ..props() };
    let old = put(&pool.zio, &data, &strong, 0);
    let again = |props: &WriteProps, data: &[u8]| {
        let new = pool.zio.write(TXG + 1, &Buf::from(data.to_vec()), props, &bm(0), Some(&old), 1).unwrap();
        new == old
    };
    assert!(again(&strong, &data));
    assert!(!again(&strong, &bytes(65536, 4, 2)));
    assert!(!again(&WriteProps { nopwrite: false, ..strong.clone() }, &data));
    assert!(!again(&WriteProps { copies: 2, ..strong.clone() }, &data));
    assert!(!again(&WriteProps { compress: CompressKind::Zstd, ..strong.clone() }, &data));
    assert!(!again(&WriteProps { checksum: ChecksumKind::Fletcher4, ..strong.clone() }, &data));
}

#[test]
fn later_passes_write_in_place() {
    let pool = Pool::new(&[Layout::Raidz(3, 1)], 12);
    let write = |data: &[u8], prev: &BlkPtr, txg: u64, pass: u32| {
        pool.zio.write(txg, &Buf::from(data.to_vec()), &props(), &bm(0), Some(prev), pass).unwrap()
    };
    let first = put(&pool.zio, &bytes(16384, 0, 1), &props(), 0);
    // It is in the cache under the same name as what comes to its place.
    check(&pool.zio, &first, &bytes(16384, 0, 1));
    let second = bytes(16384, 0, 2);
    let moved = write(&second, &first, TXG, 1);
    assert_ne!(moved.dva(0), first.dva(0));
    let stays = write(&second, &first, TXG, 2);
    assert_eq!((stays.dva(0), stays.logical_birth()), (first.dva(0), TXG));
    check(&pool.zio, &stays, &second);
    let next = write(&second, &first, TXG + 1, 2);
    assert_ne!(next.dva(0), first.dva(0), "a block of another txg is never written over");
    let smaller = write(&bytes(16384, 6, 2), &first, TXG, 2);
    assert!(smaller.dva(0) != first.dva(0) && smaller.psize() < 16384);
    let last = write(&bytes(16384, 6, 3), &first, TXG, 8);
    assert_eq!((last.dva(0), last.psize()), (first.dva(0), 16384), "nothing is compressed any more");
    check(&pool.zio, &last, &bytes(16384, 6, 3));
    let fresh = write(&bytes(16384, 6, 3), &BlkPtr::default(), TXG, 9);
    assert!(fresh.psize() < 16384, "a block that is new in this txg still is");
}

/// Free space only in pieces of `piece` bytes, every other one, `count` of them in the first metaslab.
fn pieces(free: &Free, vdev: u64, all: u64, piece: u64, count: u64) {
    let mut free = free.lock().unwrap();
    for m in 0..all {
        free.insert((vdev, m), RangeTree::new());
    }
    free.insert((vdev, 0), (0..count).map(|i| (2 * i * piece, 2 * i * piece + piece)).collect());
}

#[test]
fn fragments_are_ganged() {
    for (layout, ashift, piece) in [
        (Layout::Single, 9, 512u64),
        (Layout::Single, 12, 4096),
        (Layout::Mirror(2), 12, 8192),
        (Layout::Raidz(3, 1), 12, 32768),
    ] {
        for (size, copies) in [(3 * 4096, 1u8), (131072, 1), (131072, 2), (1 << 19, 1)] {
            let free = Free::default();
            pieces(&free, 0, 100, piece, (1 << 22) / piece / 2);
            let pool = Pool::with(&[layout], ashift, &[], &free);
            let off = WriteProps { compress: CompressKind::Off, copies, ..props() };
            let data = bytes(size, 0, 4);
            let bp = match pool.zio.write(TXG, &Buf::from(data.clone()), &off, &bm(0), None, 1) {
                Ok(bp) => bp,
                Err(e) => panic!("{layout:?} {piece} {size} {copies}: {e}"),
            };
            if !bp.is_gang() {
                assert!(size as u64 <= piece, "{size} in pieces of {piece}");
                continue;
            }
            assert_eq!(bp.ndvas(), copies as usize + 1, "headers have one copy more");
            check(&pool.reopen(&[]), &bp, &data);
            let deltas = pool.zio.take_sync_delta(TXG).unwrap();
            let taken: u64 = deltas.iter().map(|d| d.alloc.space()).sum();
            assert_eq!(bp.asize(), taken, "the pointer's sizes are all there is");
            // In place, in a later pass.
            let other = bytes(size, 0, 5);
            let again = pool.zio.write(TXG, &Buf::from(other.clone()), &off, &bm(0), Some(&bp), 3).unwrap();
            assert_eq!((0..3).map(|d| again.dva(d)).collect::<Vec<_>>(), (0..3).map(|d| bp.dva(d)).collect::<Vec<_>>());
            check(&pool.reopen(&[]), &again, &other);
            assert!(pool.zio.take_sync_delta(TXG).unwrap().is_empty());
            pool.zio.metaslab_sync_done(TXG).unwrap();
            assert_eq!(pool.zio.space(Class::Normal).alloc, pool.zio.space(Class::Normal).space - (1 << 21) + taken);
            // Freed, everything comes back.
            pool.zio.free(TXG + 1, &again).unwrap();
            let back: u64 = pool.zio.take_sync_delta(TXG + 1).unwrap().iter().map(|d| d.free.space()).sum();
            assert_eq!(back, taken);
        }
    }
}

#[test]
fn a_full_pool_says_so_and_keeps_nothing() {
    let free = Free::default();
    pieces(&free, 0, 100, 4096, 20);
    let pool = Pool::with(&[Layout::Single], 12, &[], &free);
    let off = WriteProps { compress: CompressKind::Off, ..props() };
    let e = pool.zio.write(TXG, &Buf::from(bytes(131072, 0, 1)), &off, &bm(0), None, 1).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NoSpace);
    assert!(pool.zio.is_writable(), "that is no reason to stop");
    assert!(pool.zio.take_sync_delta(TXG).unwrap().is_empty(), "what it got was given back");
    for i in 0..20 {
        put(&pool.zio, &bytes(4096, 0, i), &off, i);
    }
    let e = pool.zio.write(TXG, &Buf::from(bytes(512, 0, 1)), &off, &bm(0), None, 1).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NoSpace);
}

#[test]
fn classes_spill_into_the_normal_one() {
    let free = Free::default();
    pieces(&free, 1, 100, 4096, 3);
    let pool = Pool::with(
        &[Layout::Single, Layout::Single, Layout::Single],
        12,
        &[Class::Normal, Class::Special, Class::Log],
        &free,
    );
    let special = WriteProps { class: Class::Special, compress: CompressKind::Off, ..props() };
    let on: Vec<u64> = (0..5).map(|i| put(&pool.zio, &bytes(4096, 0, i), &special, i).dva(0).vdev()).collect();
    assert_eq!(on, [1, 1, 1, 0, 0]);
    let log = pool.zio.alloc_log(TXG, 65536, &bm(0)).unwrap();
    assert_eq!(log.dva(0).vdev(), 2);
    let figures = pool.zio.space(Class::Log);
    assert!(figures.space > 0 && figures.dspace == figures.space);
    assert_eq!(pool.zio.space(Class::Dedup), SpaceFigures::default());
}

#[test]
fn log_blocks_are_sealed_and_found() {
    for layout in [Layout::Single, Layout::Mirror(2), Layout::Raidz(6, 2)] {
        let pool = Pool::new(&[layout], 12);
        let mut bp = pool.zio.alloc_log(TXG, 131072, &bm(0)).unwrap();
        bp.set_checksum([0x1111, 0x2222, 21, 1]);
        let mut block = bytes(131072, 0, 1);
        // The used size stands behind the next pointer (`zil_chain_t`).
        block[136..144].copy_from_slice(&zfs_phys::Endian::NATIVE.put_u64(20000));
        pool.zio.write_log(&bp, &mut block).unwrap();
        pool.zio.flush().unwrap();
        assert!(pool.disks.iter().any(|d| d.flushes() == 1));
        let zil = Zbookmark::new(21, 0, Zbookmark::ZIL_LEVEL, 1);
        assert_eq!(*pool.reopen(&[]).read(&bp, &zil, None).unwrap(), *block);
        let mut other = bp;
        other.set_checksum([0x1111, 0x2222, 21, 2]);
        assert!(pool.reopen(&[]).read(&other, &zil, None).is_err(), "another block of the log");
        let mut claimant = Pool { zio: pool.reopen(&[]), ..Pool::new(&[layout], 12) };
        common::writable(&claimant.zio, &[], &Free::default());
        claimant.zio.claim(TXG + 1, &bp).unwrap();
        assert_eq!(claimant.zio.claim(TXG + 1, &bp).unwrap_err().kind(), ErrorKind::Corrupt);
        claimant.zio.free(TXG + 1, &bp).unwrap();
        claimant.disks.clear();
        assert!(pool.zio.write_log(&bp, &mut [0; 4096]).is_err());
    }
}

#[test]
fn nonsense_is_refused() {
    let pool = Pool::new(&[Layout::Single], 12);
    let write = |data: Vec<u8>, props: &WriteProps| {
        pool.zio.write(TXG, &Buf::from(data), props, &bm(0), None, 1).map_err(|e| e.kind())
    };
    assert_eq!(write(vec![1; 100], &props()), Err(ErrorKind::Invalid));
    assert_eq!(write(vec![], &props()), Err(ErrorKind::Invalid));
    assert_eq!(write(vec![1; 512], &WriteProps { copies: 4, ..props() }), Err(ErrorKind::Invalid));
    assert_eq!(write(vec![1; 512], &WriteProps { checksum: ChecksumKind::On, ..props() }), Err(ErrorKind::Invalid));
    let reader = pool.reopen(&[]);
    assert!(!reader.is_writable());
    let e = reader.write(TXG, &Buf::zeroed(512), &props(), &bm(0), None, 1).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ReadOnly);
    let bp = put(&pool.zio, &bytes(4096, 0, 1), &props(), 0);
    pool.zio.free(TXG, &bp).unwrap();
    assert_eq!(pool.zio.free(TXG, &bp).unwrap_err().kind(), ErrorKind::Bug);
    assert!(pool.zio.is_suspended() && !pool.zio.is_writable(), "a broken invariant stops all writing");
    assert_eq!(write(bytes(4096, 0, 1), &props()), Err(ErrorKind::Suspended));
}

#[test]
fn many_threads_write_at_once() {
    let pool = Pool::new(&[Layout::Raidz(6, 2), Layout::Mirror(2)], 12);
    let zio: &Arc<Zio> = &pool.zio;
    let all = std::sync::Mutex::new(Vec::new());
    zfs_env::pool::run_scoped("test", 4, |thread| {
        for i in 0..60 {
            let n = thread as u64 * 1000 + i;
            let data = bytes(512 * (1 + n as usize * 7 % 300), n as usize % 7, n);
            let bp = put(zio, &data, &WriteProps { copies: 1 + (n % 3) as u8, ..props() }, n << 10);
            all.lock().unwrap().push((bp, data));
        }
    });
    let all = all.into_inner().unwrap();
    let (reader, mut places) = (pool.reopen(&[0, 3, 7]), [RangeTree::new(), RangeTree::new()]);
    for (bp, data) in &all {
        check(&reader, bp, data);
        for dva in bp.dvas() {
            places[dva.vdev() as usize].add(dva.offset(), dva.offset() + dva.asize()).unwrap();
        }
    }
    let deltas = pool.zio.take_sync_delta(TXG).unwrap();
    let taken: u64 = deltas.iter().map(|d| d.alloc.space()).sum();
    assert_eq!(taken, places.iter().map(RangeTree::space).sum::<u64>());
}
