//! Blocks on simulated disks: written by the map, damaged, read back.

use proptest::prelude::*;
use std::sync::Arc;
use zfs_codec::{checksum::Fletcher4, raidz};
use zfs_env::{MemDevice, TaskPool};
use zfs_phys::enums::ChecksumKind;
use zfs_phys::label::VDEV_LABEL_START_SIZE;
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::{BlkPtr, Dva, Endian};
use zfs_zio::vdev::raidz::draid::DraidGeometry;
use zfs_zio::vdev::raidz::map::{RaidMap, RaidzGeometry, Reflow};
use zfs_zio::{ArcCache, ErrorKind, Vdev, VdevAux, VdevConfig, VdevState, VdevTree, Zbookmark, Zio};

const DISK: u64 = 72 << 20;
const ASHIFT: u32 = 12;
const BIRTH: u64 = 50;

fn nv(pairs: &[(&str, NvValue)]) -> NvList {
    let mut list = NvList::new();
    pairs.iter().for_each(|(n, v)| list.set(*n, v.clone()));
    list
}

struct Rig {
    disks: Vec<Arc<MemDevice>>,
    zio: Arc<Zio>,
    bm: Zbookmark,
}

impl Rig {
    /// A pool of one top-level vdev of `disks` disks; `lost` are not there.
    fn new(top: &[(&str, NvValue)], disks: usize, lost: &[usize], asize: u64) -> Self {
        let devices: Vec<Arc<MemDevice>> =
            (0..disks).map(|_| Arc::new(MemDevice::new(vec![0; DISK as usize]))).collect();
        Self::with(devices, top, lost, asize)
    }

    fn with(devices: Vec<Arc<MemDevice>>, top: &[(&str, NvValue)], lost: &[usize], asize: u64) -> Self {
        let leaf = |i: usize| {
            let guid = NvValue::Uint64(100 + i as u64);
            nv(&[("type", NvValue::String("file".into())), ("id", NvValue::Uint64(i as u64)), ("guid", guid)])
        };
        let mut vdev = nv(top);
        vdev.set("id", NvValue::Uint64(0));
        vdev.set("guid", NvValue::Uint64(7));
        vdev.set("ashift", NvValue::Uint64(u64::from(ASHIFT)));
        vdev.set("asize", NvValue::Uint64(asize));
        vdev.set("children", NvValue::NvListArray((0..devices.len()).map(leaf).collect()));
        let root = nv(&[
            ("type", NvValue::String("root".into())),
            ("guid", NvValue::Uint64(1)),
            ("children", NvValue::NvListArray(vec![vdev])),
        ]);
        let config = VdevConfig::from_nvlist(&root).unwrap();
        let tree = VdevTree::build(config, &mut |leaf| {
            let i = (leaf.guid - 100) as usize;
            if lost.contains(&i) { Err(VdevAux::OpenFailed) } else { Ok(devices[i].clone()) }
        })
        .unwrap();
        let tasks = Arc::new(TaskPool::new("rig", 2).unwrap());
        let zio = Zio::new("rig", tree, Arc::new(ArcCache::new(1 << 20)), Some(tasks));
        Self { disks: devices, zio, bm: Zbookmark::new(21, 5, 0, 0) }
    }

    fn raidz(parity: u64, disks: usize, lost: &[usize]) -> Self {
        let top = [("type", NvValue::String("raidz".into())), ("nparity", NvValue::Uint64(parity))];
        Self::new(&top, disks, lost, (DISK - (5 << 20)) * disks as u64 / 2)
    }

    fn put(&self, disk: usize, offset: i64, bytes: &[u8]) {
        self.disks[disk].poke(VDEV_LABEL_START_SIZE.checked_add_signed(offset).unwrap(), bytes);
    }

    /// Inverts all that a disk holds of a block.
    fn spoil(&self, map: &RaidMap, disk: usize) {
        for col in map.rows.iter().flat_map(|r| &r.cols).filter(|c| c.child == disk) {
            let at = VDEV_LABEL_START_SIZE.checked_add_signed(col.offset).unwrap();
            self.disks[disk].corrupt(at..at + col.size as u64);
        }
    }

    /// Writes a block as its map says, parity and all.
    fn write_raid(&self, map: &RaidMap, data: &[u8]) {
        for row in &map.rows {
            let cols = &row.cols[map.nparity..];
            let columns: Vec<&[u8]> = cols.iter().map(|c| &data[c.mem..c.mem + c.size]).collect();
            let mut parity: Vec<Vec<u8>> = row.cols[..map.nparity].iter().map(|c| vec![0; c.size]).collect();
            raidz::generate(&mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), &columns);
            for (col, bytes) in row.cols.iter().zip(parity.iter().map(Vec::as_slice).chain(columns)) {
                self.put(col.child, col.offset, bytes);
            }
        }
    }

    fn leaf(&self, i: usize) -> &Vdev {
        &self.zio.vdevs().root().children[0].children[i]
    }

    fn checksum_errors(&self) -> Vec<usize> {
        (0..self.disks.len()).filter(|i| self.leaf(*i).stats.checksum_errors() > 0).collect()
    }
}

fn pointer(data: &[u8], dvas: &[Dva]) -> BlkPtr {
    let mut bp = BlkPtr::default();
    for (i, d) in dvas.iter().enumerate() {
        bp.word[2 * i..2 * i + 2].copy_from_slice(&d.word);
    }
    let sectors = (data.len() as u64 >> 9) - 1;
    // Sizes, no compression, fletcher4, plain file, little-endian.
    bp.word[6] = sectors | sectors << 16 | 2 << 32 | (ChecksumKind::Fletcher4 as u64) << 40 | 19 << 48 | 1 << 63;
    bp.word[10] = BIRTH;
    bp.word[11] = 1;
    bp.word[12..16].copy_from_slice(&Fletcher4::of(data, Endian::Little));
    bp
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

fn subset(n: usize, bits: u32) -> Vec<usize> {
    (0..n).filter(|i| bits >> i & 1 == 1).collect()
}

/// Disks that hold data or parity of the block.
fn used(map: &RaidMap) -> Vec<usize> {
    let mut out: Vec<usize> =
        map.rows.iter().flat_map(|r| r.cols.iter().filter(|c| c.size > 0).map(|c| c.child)).collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn has_data(map: &RaidMap, disk: usize) -> bool {
    map.rows.iter().any(|r| r.cols[map.nparity..].iter().any(|c| c.child == disk && c.size > 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever mix of lost and lying disks parity covers, the block comes back and the liars are named.
    #[test]
    fn raidz_survives_what_it_promises(
        parity in 1u64..=3, extra in 1usize..4, size512 in 1usize..200, at in 0u64..600, gone: u32, lying: u32, slow: bool
    ) {
        let disks = parity as usize + extra;
        let lost: Vec<usize> = subset(disks, gone).into_iter().take(parity as usize).collect();
        let liars: Vec<usize> = subset(disks, lying).into_iter().filter(|i| !lost.contains(i)).collect();
        let rig = Rig::raidz(parity, disks, &lost);
        if slow {
            rig.disks.iter().for_each(|d| d.pretend_slow());
        }
        let data = noise(size512 * 512, u64::from(gone) << 32 | u64::from(lying));
        let sectors = data.len().next_multiple_of(1 << ASHIFT);
        let g = RaidzGeometry::new(ASHIFT, disks, parity as usize, &[], false).unwrap();
        let map = g.map(at << ASHIFT, sectors, BIRTH, None);
        let mut padded = data.clone();
        padded.resize(sectors, 0);
        rig.write_raid(&map, &padded);
        let concerned = used(&map);
        let (lost, liars): (Vec<usize>, Vec<usize>) = (
            lost.into_iter().filter(|i| concerned.contains(i)).collect(),
            liars.into_iter().filter(|i| concerned.contains(i)).collect(),
        );
        let liars: Vec<usize> = liars.into_iter().take(parity as usize - lost.len()).collect();
        liars.iter().for_each(|i| rig.spoil(&map, *i));
        let bp = pointer(&data, &[Dva::new(0, at << ASHIFT, g.asize(data.len() as u64, BIRTH), false)]);
        let got = rig.zio.read(&bp, &rig.bm, None).unwrap();
        prop_assert_eq!(got.as_slice(), &data[..]);
        let blamed = rig.checksum_errors();
        prop_assert!(blamed.iter().all(|i| liars.contains(i)), "{:?} blamed, {:?} lied", blamed, liars);
        let must: Vec<usize> = liars.iter().copied().filter(|i| has_data(&map, *i)).collect();
        prop_assert!(must.iter().all(|i| blamed.contains(i)), "{:?} blamed, {:?} lied about data", blamed, must);
        prop_assert!(rig.zio.errors().lost().is_empty());
    }

    /// One disk more than parity covers: an error, never wrong bytes.
    #[test]
    fn raidz_never_returns_wrong_bytes(parity in 1u64..=3, extra in 2usize..4, at in 0u64..600, lying: u32) {
        let disks = parity as usize + extra;
        let rig = Rig::raidz(parity, disks, &[]);
        let data = noise((disks * 3) << ASHIFT, u64::from(lying) + 3);
        let g = RaidzGeometry::new(ASHIFT, disks, parity as usize, &[], false).unwrap();
        let map = g.map(at << ASHIFT, data.len(), BIRTH, None);
        rig.write_raid(&map, &data);
        let liars: Vec<usize> = (0..=parity as usize).map(|i| (i + lying as usize % disks) % disks).collect();
        liars.iter().for_each(|i| rig.spoil(&map, *i));
        let bp = pointer(&data, &[Dva::new(0, at << ASHIFT, g.asize(data.len() as u64, BIRTH), false)]);
        match rig.zio.read(&bp, &rig.bm, None) {
            // Lies about parity alone do no harm.
            Ok(got) => prop_assert_eq!(got.as_slice(), &data[..]),
            Err(e) => {
                prop_assert_eq!(e.kind(), ErrorKind::Checksum);
                prop_assert_eq!(rig.checksum_errors().len(), disks, "all are suspects");
                prop_assert_eq!(rig.zio.errors().lost(), vec![(rig.bm, ErrorKind::Checksum)]);
            }
        }
    }

    /// Blocks older than an expansion, wholly, partly or not at all moved, also with a disk lost or lying.
    #[test]
    fn expansion_in_every_stage(
        parity in 1u64..=2, extra in 1usize..4, sectors in 1usize..60, at in 0u64..200, moved in 0u64..300,
        scratch: bool, done: bool, victim: u32, lies: bool
    ) {
        let old = parity as usize + extra;
        let disks = old + 1;
        let txgs: Vec<u64> = if done { vec![100] } else { vec![] };
        let g = RaidzGeometry::new(ASHIFT, disks, parity as usize, &txgs, !done).unwrap();
        let reflow = Reflow { offset: moved << ASHIFT, scratch };
        let map = g.map(at << ASHIFT, sectors << ASHIFT, BIRTH, Some(reflow));
        // A crash in mid-copy with single parity may have rows in both places; a lying disk then is out of scope.
        let victim = victim as usize % disks;
        let mixed = !done && map != g.map(at << ASHIFT, sectors << ASHIFT, BIRTH, Some(Reflow { offset: 0, scratch: false }));
        let lost: &[usize] = if lies { &[] } else { &[victim] };
        let mut top = vec![("type", NvValue::String("raidz".into())), ("nparity", NvValue::Uint64(parity))];
        top.push(if done { ("raidz_expand_txgs", NvValue::Uint64Array(txgs)) } else { ("raidz_expanding", NvValue::Boolean) });
        let rig = Rig::new(&top, disks, lost, (DISK - (5 << 20)) * disks as u64 / 2);
        rig.zio.vdevs().set_reflow(reflow.offset, reflow.scratch);
        let data = noise(sectors << ASHIFT, u64::from(victim as u32) + moved);
        rig.write_raid(&map, &data);
        if lies && !(mixed && scratch) {
            rig.spoil(&map, victim);
        }
        let bp = pointer(&data, &[Dva::new(0, at << ASHIFT, g.asize(data.len() as u64, BIRTH), false)]);
        let got = rig.zio.read(&bp, &rig.bm, None).unwrap();
        prop_assert_eq!(got.as_slice(), &data[..]);
    }
}

#[test]
fn draid_survives_what_it_promises() {
    let (ndata, nparity, nspares, disks) = (3u64, 2u64, 1u64, 7usize);
    let ngroups = 6;
    let g = DraidGeometry::new(ASHIFT, disks as u64, None, (ndata, nparity, nspares, ngroups)).unwrap();
    let top = [
        ("type", NvValue::String("draid".into())),
        ("nparity", NvValue::Uint64(nparity)),
        ("draid_ndata", NvValue::Uint64(ndata)),
        ("draid_nspares", NvValue::Uint64(nspares)),
        ("draid_ngroups", NvValue::Uint64(ngroups)),
    ];
    // The last stripes of the first group, running over into the second.
    let stripe = (ndata + nparity) << ASHIFT;
    let group = (ndata + nparity) * (16 << 20);
    for (offset, len) in [(0, 5usize), (group - 2 * stripe, 9), (group - stripe, 40), (group + 3 * stripe, 1)] {
        for a in 0..disks {
            for b in a + 1..disks {
                let rig = Rig::new(&top, disks, &[a], 96 << 20);
                let data = noise(len << ASHIFT, offset + a as u64);
                let map = g.map(offset, data.len()).unwrap();
                rig.write_raid(&map, &data);
                rig.spoil(&map, b);
                let bp = pointer(&data, &[Dva::new(0, offset, stripe * len as u64, false)]);
                if offset + stripe * len as u64 > 96 << 20 {
                    assert_eq!(rig.zio.read(&bp, &rig.bm, None).unwrap_err().kind(), ErrorKind::Corrupt);
                    continue;
                }
                assert_eq!(rig.zio.read(&bp, &rig.bm, None).unwrap().as_slice(), &data[..], "{offset} {len} {a} {b}");
            }
        }
    }
}

fn mirror(lost: &[usize]) -> Rig {
    Rig::new(&[("type", NvValue::String("mirror".into()))], 3, lost, DISK - (5 << 20))
}

#[test]
fn mirrors_take_the_side_that_is_right() {
    let data = noise(131_072, 9);
    let dva = Dva::new(0, 3 << 20, 131_072, false);
    let rig = mirror(&[2]);
    assert_eq!(rig.zio.vdevs().root().state(), VdevState::Degraded);
    rig.put(0, 3 << 20, &data);
    rig.put(1, 3 << 20, &data);
    rig.disks[0].corrupt(VDEV_LABEL_START_SIZE + (3 << 20) + 100_000..VDEV_LABEL_START_SIZE + (3 << 20) + 100_001);
    let bp = pointer(&data, &[dva]);
    rig.zio.verify(&bp, &rig.bm, true).unwrap();
    assert_eq!((rig.checksum_errors(), rig.zio.errors().damage_count()), (vec![0], 1));
    assert_eq!(rig.zio.read(&bp, &rig.bm, None).unwrap().as_slice(), &data[..]);
    // The good side refuses to be read at all.
    let rig = mirror(&[]);
    rig.put(1, 3 << 20, &data);
    rig.disks[1].fail(0..DISK);
    let err = rig.zio.read(&bp, &rig.bm, None).unwrap_err();
    assert_eq!((err.kind(), err.bookmark()), (ErrorKind::Checksum, Some(rig.bm)));
    assert_eq!(rig.leaf(1).stats.read_errors(), 1);
    assert_eq!(rig.checksum_errors(), [0, 2]);
    // Speculative reads leave no trace.
    let rig = mirror(&[]);
    rig.zio.read_speculative(&bp, &rig.bm, None).unwrap_err();
    assert_eq!((rig.checksum_errors(), rig.zio.errors().lost().len()), (vec![], 0));
}

#[test]
fn stale_sides_are_asked_last() {
    let data = noise(4096, 1);
    let bp = pointer(&data, &[Dva::new(0, 0, 4096, false)]);
    let rig = mirror(&[]);
    rig.put(2, 0, &data);
    rig.leaf(0).set_dtl(vec![10..60, 70..80]);
    rig.leaf(1).set_dtl(vec![20..21, 50..51]);
    rig.zio.read(&bp, &rig.bm, None).unwrap();
    assert_eq!(rig.checksum_errors(), [0usize; 0]);
    // When the good side is gone the stale ones are all there is.
    rig.disks[2].fail(0..DISK);
    rig.put(1, 0, &data);
    let other = pointer(&data, &[Dva::new(0, 0, 8192, false)]);
    rig.zio.read(&other, &rig.bm, None).unwrap();
}

#[test]
fn ditto_copies_stand_in() {
    let data = noise(8192, 4);
    let rig = mirror(&[]);
    (0..3).for_each(|i| rig.put(i, 2 << 20, &data));
    let bp = pointer(&data, &[Dva::new(0, 1 << 20, 8192, false), Dva::new(0, 2 << 20, 8192, false)]);
    assert_eq!(rig.zio.read(&bp, &rig.bm, None).unwrap().as_slice(), &data[..]);
    assert_eq!(rig.checksum_errors(), [0, 1, 2]);
}

proptest! {
    /// Hostile pointers: an error or a verified block, never a panic, never a huge allocation.
    #[test]
    fn hostile_pointers_do_no_harm(words: [u64; 16], tame: bool) {
        let rig = small_rig();
        let mut bp = BlkPtr { word: words };
        if tame {
            // Somewhere on the vdev, so that reading starts at all.
            bp.word[0] = 8;
            bp.word[1] &= 1 << 63 | 0xffff;
            bp.word[6] &= !(0xff << 40) & !(1 << 39);
            bp.word[6] |= 7 << 40;
        }
        if let Ok(block) = rig.read(&bp, &Zbookmark::default(), None) {
            prop_assert!(block.len() as u64 == bp.lsize());
        }
        let _ = rig.read_raw(&bp, &Zbookmark::default());
        let _ = rig.verify(&bp, &Zbookmark::default(), true);
    }
}

/// Small enough to be made for every case: leaves too small to open.
fn small_rig() -> Arc<Zio> {
    static RIG: std::sync::OnceLock<Arc<Zio>> = std::sync::OnceLock::new();
    RIG.get_or_init(|| Rig::raidz(2, 4, &[]).zio).clone()
}
