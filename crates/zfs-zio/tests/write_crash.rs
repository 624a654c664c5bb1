//! Every crash of a small run: whatever was flushed or not, torn or reordered, the newest uberblock leads to a whole state
//! that is not older than the last commit that returned, and so do the two before it.
//!
//! The pool is a table of blocks: its root lists where each block is and what must be in it. Every txg replaces some
//! blocks, frees the old ones and commits. Space is so scarce that freed blocks are soon used again.

mod common;

use common::{Free, Layout, MS_SHIFT, bytes};
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_codec::checksum::{label_verifier, verify_embedded};
use zfs_env::{BlockDevice, FaultRates, Rng, SeededRng, Sim, SimDisk, Survival};
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_phys::label::{VDEV_LABELS, VDEV_UBERBLOCK_RING, VDEV_UBERBLOCK_RING_OFFSET, encode_config, label_offset};
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::uberblock::{UBERBLOCK_MAGIC, Uberblock};
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, RangeTree, WriteProps, Zbookmark, Zio};

const BLOCKS: usize = 16;
const SIZE: usize = 12288;
const ROOT_SIZE: usize = 4096;
const FIRST_TXG: u64 = 10;
const TXGS: u64 = 12;

/// The state of the pool after a txg.
#[derive(Clone, Default)]
struct Table {
    blocks: [(BlkPtr, u64); BLOCKS],
}

impl Table {
    fn encode(&self, txg: u64) -> Buf {
        let mut out = Vec::with_capacity(ROOT_SIZE);
        out.extend_from_slice(&txg.to_le_bytes());
        for (bp, seed) in &self.blocks {
            out.extend_from_slice(&bp.encode(Endian::NATIVE));
            out.extend_from_slice(&seed.to_le_bytes());
        }
        out.resize(ROOT_SIZE, 0x5a);
        Buf::from(out)
    }

    /// Reads the state below an uberblock, and checks all of it.
    fn check(zio: &Zio, ub: &Uberblock) -> Result<(), String> {
        let bm = Zbookmark::default();
        let root = zio.read(&ub.rootbp, &bm, None).map_err(|e| format!("root of txg {}: {e}", ub.txg))?;
        assert_eq!(root[..8], ub.txg.to_le_bytes());
        for (i, entry) in root[8..].chunks_exact(136).take(BLOCKS).enumerate() {
            let bp = BlkPtr::decode(&entry[..128], Endian::NATIVE).unwrap();
            let seed = u64::from_le_bytes(entry[128..].try_into().unwrap());
            let data = zio.read(&bp, &bm, None).map_err(|e| format!("block {i} of txg {}: {e}", ub.txg))?;
            if bp.is_hole() && seed == 0 {
                continue;
            }
            assert!(*data == bytes(SIZE, 0, seed)[..], "block {i} of txg {} has other contents", ub.txg);
        }
        Ok(())
    }
}

fn props(ty: DmuObjectType) -> WriteProps {
    WriteProps { compress: CompressKind::Off, ..WriteProps::new(ty, 0) }
}

fn uberblock(txg: u64, rootbp: BlkPtr) -> Uberblock {
    let mut blank = vec![0u8; 1024];
    blank[..8].copy_from_slice(&Endian::NATIVE.put_u64(UBERBLOCK_MAGIC));
    let mut ub = Uberblock::decode(&blank).unwrap();
    (ub.version, ub.txg, ub.timestamp, ub.rootbp) = (5000, txg, txg, rootbp);
    ub
}

/// Writes one txg; the new table and root.
fn one_txg(zio: &Zio, table: &mut Table, root: &BlkPtr, txg: u64, rng: &SeededRng) -> BlkPtr {
    let bm = Zbookmark::default();
    for _ in 0..5 {
        let (slot, seed) = (rng.below(BLOCKS as u64) as usize, txg * 1000 + rng.below(1000));
        let data = Buf::from(bytes(SIZE, 0, seed));
        let old = table.blocks[slot].0;
        let new = zio.write(txg, &data, &props(DmuObjectType::PLAIN_FILE_CONTENTS), &bm, Some(&old), 1).unwrap();
        zio.free(txg, &old).unwrap();
        table.blocks[slot] = (new, seed);
    }
    // The root is written twice, as the meta object set is in later passes: the second time in its place.
    let kind = props(DmuObjectType::OBJSET);
    let half_done = zio.write(txg, &table.encode(txg - 1), &kind, &bm, Some(root), 1).unwrap();
    zio.free(txg, root).unwrap();
    let done = zio.write(txg, &table.encode(txg), &kind, &bm, Some(&half_done), 2).unwrap();
    assert_eq!(done.dva(0), half_done.dva(0));
    done
}

fn label(txg: u64) -> Vec<u8> {
    let mut list = NvList::new();
    list.set("txg", NvValue::Uint64(txg));
    encode_config(&list).unwrap()
}

/// The newest uberblocks that are whole, by txg.
fn uberblocks(disks: &[Arc<SimDisk>]) -> BTreeMap<u64, Uberblock> {
    let mut found = BTreeMap::new();
    for disk in disks {
        for n in 0..VDEV_LABELS {
            let base = label_offset(disk.size(), n).unwrap() + VDEV_UBERBLOCK_RING_OFFSET;
            let mut ring = vec![0; VDEV_UBERBLOCK_RING as usize];
            disk.read_at(base, &mut ring).unwrap();
            for (i, slot) in ring.chunks_exact(4096).enumerate() {
                let at = label_verifier(base + 4096 * i as u64);
                if verify_embedded(ChecksumKind::Label, slot, at, false).is_ok() {
                    let ub = Uberblock::decode(slot).unwrap();
                    found.insert(ub.txg, ub);
                }
            }
        }
    }
    found
}

/// What is checked after one crash.
fn check(layout: Layout, disks: &[Arc<SimDisk>], acknowledged: u64) -> Result<(), String> {
    let zio = common::open(&[layout], 12, disks, &[]);
    let found = uberblocks(disks);
    let newest = found.keys().next_back().copied().unwrap_or(0);
    if newest < acknowledged {
        return Err(format!("txg {acknowledged} is lost: the newest is {newest}"));
    }
    // Frees wait two txgs, so that the pool can be rewound that far.
    found.range(newest.saturating_sub(2)..).try_for_each(|(_, ub)| Table::check(&zio, ub))
}

/// A new pool on simulated disks, in which space is so scarce that freed blocks are soon used again.
fn machine(layout: Layout, seed: u64) -> (Arc<Sim>, Vec<Arc<SimDisk>>, Arc<Zio>) {
    let sim = Sim::new(seed);
    let disks: Vec<Arc<SimDisk>> =
        (0..layout.disks()).map(|i| sim.add_disk(&format!("d{i}"), common::DISK, 4096)).collect();
    let zio = common::open(&[layout], 12, &disks, &[]);
    let free = Free::default();
    let count = zio.vdevs().top(0).unwrap().config.asize >> MS_SHIFT;
    for m in 0..count {
        let (start, _) = zio.vdevs().top(0).unwrap().metaslab_range(m);
        // What is in use and what waits fills most of it, parity included.
        let room = [0, 512 << 10, 512 << 10, 1 << 20].get(layout.disks()).copied().unwrap_or(3 << 19);
        // Large vdevs set one metaslab aside for logs.
        let some = if m == 0 || (m == 1 && count > 64) { start..start + room } else { start..start };
        free.lock().unwrap().insert((0, m), [(some.start, some.end)].into_iter().collect::<RangeTree>());
    }
    common::writable(&zio, &[], &free);
    zio.vdevs().leaves().iter().for_each(|l| l.init_labels(&label(0), None).unwrap());
    zio.flush().unwrap();
    (sim, disks, zio)
}

fn every_crash(layout: Layout, seed: u64) {
    let (sim, disks, zio) = machine(layout, seed);
    let (rng, first) = (SeededRng::new(seed), sim.record());
    let (mut table, mut root) = (Table::default(), BlkPtr::default());
    let mut acknowledged = vec![(first, 0)];
    for txg in FIRST_TXG..FIRST_TXG + TXGS {
        root = one_txg(&zio, &mut table, &root, txg, &rng);
        zio.take_sync_delta(txg).unwrap();
        let labels = label(txg);
        let config = |_: &zfs_zio::Vdev| Ok(Some(labels.clone()));
        zio.commit(&uberblock(txg, root), false, txg.is_multiple_of(3).then_some(&config)).unwrap();
        acknowledged.push((sim.events(), txg));
        zio.metaslab_sync_done(txg).unwrap();
        assert!(zio.take_sync_delta(txg).unwrap().is_empty());
    }
    let last = sim.events();
    drop(zio);
    let mut crashes = 0;
    for event in first..=last {
        let promised = acknowledged.iter().rev().find(|(at, _)| *at <= event).map_or(0, |(_, txg)| *txg);
        let fates = [(Survival::Nothing, 0), (Survival::Everything, 0), (Survival::Random, 1), (Survival::Random, 2)];
        for (survival, n) in fates {
            assert!(sim.rewind(event));
            sim.restart(survival, seed ^ (event * 4 + n));
            crashes += 1;
            if let Err(e) = check(layout, &disks, promised) {
                panic!(
                    "{layout:?} seed {seed}: crash at event {} of {}, {survival:?} {n}: {e}",
                    event - first,
                    last - first
                );
            }
        }
    }
    eprintln!("{layout:?}: {crashes} crashes");
}

#[test]
fn every_crash_of_a_single_disk() {
    every_crash(Layout::Single, 1);
}

#[test]
fn every_crash_of_a_mirror() {
    every_crash(Layout::Mirror(2), 2);
}

#[test]
fn every_crash_of_raidz() {
    every_crash(Layout::Raidz(3, 1), 3);
}

/// One disk of a redundant pool lies, loses and refuses writes all the time: nothing is lost, and in the end it holds
/// what it should. Tells whether the disk missed anything.
fn swarm(layout: Layout, seed: u64) -> bool {
    let (_sim, disks, zio) = machine(layout, seed);
    let rng = SeededRng::new(seed);
    let bad = rng.below(disks.len() as u64) as usize;
    let often = 1_000_000 / 12;
    disks[bad].set_rates(FaultRates {
        read_error: often,
        write_error: often,
        lost_write: often,
        misdirected_write: often,
        rotten_write: often,
        flush_error: 0,
    });
    let (mut table, mut root) = (Table::default(), BlkPtr::default());
    for txg in FIRST_TXG..FIRST_TXG + 30 {
        root = one_txg(&zio, &mut table, &root, txg, &rng);
        zio.take_sync_delta(txg).unwrap();
        zio.commit(&uberblock(txg, root), false, None).unwrap();
        zio.metaslab_sync_done(txg).unwrap();
        for (bp, seed) in table.blocks.iter().filter(|(bp, _)| !bp.is_hole()) {
            let data = zio.read(bp, &Zbookmark::default(), None).unwrap();
            assert!(*data == bytes(SIZE, 0, *seed)[..], "seed {seed}: wrong data at txg {txg}");
        }
    }
    disks[bad].heal();
    let all: Vec<BlkPtr> = table.blocks.iter().map(|b| b.0).chain([root]).collect();
    for bp in &all {
        zio.resilver(bp, &Zbookmark::default()).unwrap();
    }
    let leaf = zio.vdevs().leaves()[bad];
    let missed = !leaf.dtl().is_empty();
    leaf.dtl_remove_before(u64::MAX);
    all.iter().for_each(|bp| zio.verify(bp, &Zbookmark::default(), true).unwrap());
    zio.errors().clear();
    all.iter().for_each(|bp| zio.verify(bp, &Zbookmark::default(), true).unwrap());
    assert_eq!(zio.errors().damage(), [], "{layout:?} seed {seed}: repaired");
    for lost in (0..disks.len()).filter(|d| *d != bad) {
        let reader = common::open(&[layout], 12, &disks, &[lost]);
        Table::check(&reader, &uberblock(FIRST_TXG + 29, root)).unwrap();
    }
    missed
}

#[test]
fn a_bad_disk_is_healed() {
    let mut missed = 0;
    for seed in 0..12 {
        for layout in [Layout::Mirror(2), Layout::Raidz(3, 1), Layout::Raidz(6, 2), Layout::Draid(3, 1, 1, 6, 5)] {
            missed += u32::from(swarm(layout, seed));
        }
    }
    assert!(missed > 36, "{missed}");
}
