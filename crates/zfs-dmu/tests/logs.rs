//! The intent log, written and found again after a crash.

mod common;
#[path = "common/live.rs"]
mod live;

use live::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use zfs_dmu::Zbookmark;
use zfs_dmu::zil::{self, Zil};
use zfs_dmu::{Dnode, ObjectSpec, Objset, Tx, Txgs};
use zfs_phys::enums::{DmuObjectType as T, ObjsetType};
use zfs_phys::zil::{RecordBody, Write};

const SIZE: usize = 400_000;
const BLOCK: u64 = 4096;

/// Numbers that are the same every time.
fn next(x: &mut u64) -> u64 {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    *x
}

/// Writes to one file and makes each write durable; gives what the file holds then.
fn write_durably(file: &Arc<Dnode>, txgs: &Arc<Txgs>, log: &Zil, seed: u64) -> Vec<u8> {
    let mut x = seed;
    let mut mine = vec![0u8; SIZE];
    for i in 0..150u64 {
        let most = if i % 40 == 0 { 190_000 } else { 9000 };
        let (at, len) = (next(&mut x) % 200_000, 1 + next(&mut x) % most);
        let bytes: Vec<u8> = (0..len).map(|k| (k * 31 + i) as u8).collect();
        let tx = txgs.assign().unwrap();
        file.write_at(&tx, at, &bytes).unwrap();
        log.log_write(&tx, file.object(), at, len);
        if i % 3 == 0 {
            log.log(&tx, 5, None, RecordBody::Remove { dir: file.object(), name: b"name" });
        }
        drop(tx);
        mine[at as usize..(at + len) as usize].copy_from_slice(&bytes);
        log.commit(Some(file.object())).unwrap();
        if next(&mut x).is_multiple_of(40) {
            txgs.wait_synced(0).unwrap();
        }
    }
    mine
}

/// Where the data of a write record belongs: that of a pointer is a whole block's.
fn start_of(w: &Write<'_>) -> u64 {
    if w.blkptr.is_hole() { w.offset } else { w.offset - w.offset % BLOCK }
}

/// What a crash now would leave: what the newest synced header leads to, and what its log says.
fn after_a_crash(pool: &Pool, objects: impl Iterator<Item = u64>) -> (BTreeMap<u64, Vec<u8>>, usize) {
    let disk = Objset::open(&pool.zio, &pool.objset.root_bp(), 5, None).unwrap();
    let mut found: BTreeMap<u64, Vec<u8>> =
        objects.map(|o| (o, disk.dnode(o).unwrap().read_vec(0, SIZE).unwrap())).collect();
    let (mut seq, mut ahead) = (0, 0);
    let record = |r: &zfs_phys::zil::Record<'_>| {
        assert!(r.seq > seq, "records out of order");
        seq = r.seq;
        if let RecordBody::Write(w) = &r.body {
            let file = found.get_mut(&w.object).unwrap();
            let (at, data) = match w.blkptr.is_hole() {
                true => (w.offset as usize, w.data.to_vec()),
                false => {
                    ahead += 1;
                    let bm = Zbookmark::new(5, w.object, 0, w.offset / BLOCK);
                    (start_of(w) as usize, pool.zio.read(&w.blkptr, &bm, None)?.to_vec())
                }
            };
            file[at..at + data.len()].copy_from_slice(&data);
        }
        Ok(())
    };
    zil::walk(&disk, |_, _| Ok(()), record).unwrap();
    (found, ahead)
}

/// Imports the pool again with `next` as its first txg: the log is claimed, replayed and gone, and its blocks are free.
fn import_again(pool: &Pool, first: u64, model: &BTreeMap<u64, Vec<u8>>) {
    let txgs = Txgs::new(first);
    if let Some(header) = zil::claim(&pool.objset, &Tx::syncing(first)).unwrap() {
        pool.objset.set_zil_header(&Tx::syncing(first), &header).unwrap();
    }
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            txgs.run(|txg| {
                pool.sync(txg);
                Ok(())
            })
        });
        let log = Zil::open(&pool.objset, &txgs, [99, 1]).unwrap();
        txgs.wait_synced(first).unwrap();
        log.replay(&mut |r, mark| {
            let RecordBody::Write(w) = &r.body else { return Ok(()) };
            let tx = txgs.assign()?;
            pool.objset.dnode(w.object)?.write_at(&tx, start_of(w), w.data)?;
            mark(&tx);
            Ok(())
        })
        .unwrap();
        assert!(pool.objset.phys().zil_header.log.is_hole());
        // The log can be used anew, and closed without a trace.
        let (file, bytes) = model.iter().next().unwrap();
        for _ in 0..5 {
            let tx = txgs.assign().unwrap();
            pool.objset.dnode(*file).unwrap().write_at(&tx, 0, &bytes[..5000]).unwrap();
            log.log_write(&tx, *file, 0, 5000);
            drop(tx);
            log.commit(None).unwrap();
        }
        assert!(!pool.objset.phys().zil_header.log.is_hole());
        log.close().unwrap();
        assert!(pool.objset.phys().zil_header.log.is_hole());
        txgs.stop();
        runner.join().unwrap().unwrap();
    });
}

#[test]
fn what_is_committed_is_found_after_a_crash() {
    let pool = Pool::new(128, ObjsetType::Zfs, 2);
    let spec = ObjectSpec { object_type: T::PLAIN_FILE_CONTENTS, block_size: BLOCK as u32, ..ObjectSpec::default() };
    let txgs = Txgs::new(4);
    let files: Vec<_> = (0..3).map(|_| pool.objset.allocate(&Tx::syncing(4), &spec).unwrap()).collect();
    let last = AtomicU64::new(0);
    let log = Zil::open(&pool.objset, &txgs, [77, 88]).unwrap();
    let mut model = BTreeMap::new();
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            txgs.run(|txg| {
                pool.sync(txg);
                last.store(txg, SeqCst);
                Ok(())
            })
        });
        let writers: Vec<_> = (3u64..)
            .zip(&files)
            .map(|(seed, file)| {
                let (txgs, log) = (&txgs, &log);
                scope.spawn(move || (file.object(), write_durably(file, txgs, log, seed)))
            })
            .collect();
        model.extend(writers.into_iter().map(|w| w.join().unwrap()));
        let (found, ahead) = after_a_crash(&pool, model.keys().copied());
        assert!(found == model);
        println!("{ahead} blocks were written ahead");
        txgs.stop();
        runner.join().unwrap().unwrap();
    });
    pool.reopen_with_log();
    let again = pool.again();
    import_again(&again, last.load(SeqCst) + 1, &model);
    let disk = again.reopen();
    for (object, bytes) in &model {
        assert!(disk.dnode(*object).unwrap().read_vec(0, bytes.len()).unwrap() == *bytes);
    }
}
