//! Trees with more than one kind of vdev: states, distributed spares, removed vdevs.

use std::sync::Arc;
use zfs_codec::{checksum::Fletcher4, raidz};
use zfs_env::MemDevice;
use zfs_phys::enums::ChecksumKind;
use zfs_phys::indirect::IndirectMappingEntry;
use zfs_phys::label::VDEV_LABEL_START_SIZE;
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::{BlkPtr, Dva, Endian};
use zfs_zio::vdev::raidz::draid::DraidGeometry;
use zfs_zio::{ArcCache, ErrorKind, VdevAux, VdevConfig, VdevState, VdevTree, Zbookmark, Zio};

const DISK: u64 = 72 << 20;

fn nv(kind: &str, guid: u64, more: &[(&str, u64)], children: Vec<NvList>) -> NvList {
    let mut list = NvList::new();
    list.set("type", NvValue::String(kind.into()));
    list.set("guid", NvValue::Uint64(guid));
    more.iter().for_each(|(n, v)| list.set(*n, NvValue::Uint64(*v)));
    if !children.is_empty() {
        list.set("children", NvValue::NvListArray(children));
    }
    list
}

fn file(guid: u64) -> NvList {
    nv("file", guid, &[], vec![])
}

fn disks(n: usize) -> Vec<Arc<MemDevice>> {
    (0..n).map(|_| Arc::new(MemDevice::new(vec![0; DISK as usize]))).collect()
}

/// Leaves have guids from 100 on; those without a disk are not there.
fn tree(tops: Vec<NvList>, disks: &[Arc<MemDevice>]) -> VdevTree {
    let config = VdevConfig::from_nvlist(&nv("root", 1, &[], tops)).unwrap();
    VdevTree::build(config, &mut |leaf| match disks.get(leaf.guid.wrapping_sub(100) as usize) {
        Some(disk) => Ok(disk.clone()),
        None => Err(VdevAux::OpenFailed),
    })
    .unwrap()
}

fn top(kind: &str, id: u64, more: &[(&str, u64)], children: Vec<NvList>) -> NvList {
    let mut all = vec![("id", id), ("ashift", 12), ("asize", DISK - (5 << 20))];
    all.extend_from_slice(more);
    nv(kind, 10 + id, &all, children)
}

fn pointer(data: &[u8], dva: Dva) -> BlkPtr {
    let mut bp = BlkPtr::default();
    bp.word[..2].copy_from_slice(&dva.word);
    let sectors = (data.len() as u64 >> 9) - 1;
    bp.word[6] = sectors | sectors << 16 | 2 << 32 | (ChecksumKind::Fletcher4 as u64) << 40 | 19 << 48 | 1 << 63;
    bp.word[10] = 5;
    bp.word[12..16].copy_from_slice(&Fletcher4::of(data, Endian::Little));
    bp
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn states_follow_from_the_children() {
    let d = disks(2);
    let state = |tops: Vec<NvList>| {
        let t = tree(tops, &d);
        let top = t.top(0).unwrap();
        (t.root().state(), t.root().aux(), top.state().name(top.aux()), top.aux())
    };
    let gone = || file(500);
    let with = |flag: &str, guid: u64| nv("file", guid, &[(flag, 1)], vec![]);
    use VdevState as S;
    let both = state(vec![top("mirror", 0, &[], vec![file(100), file(101)])]);
    assert_eq!(both, (S::Healthy, VdevAux::None, "ONLINE", VdevAux::None));
    let one = state(vec![top("mirror", 0, &[], vec![file(100), gone()])]);
    assert_eq!(one, (S::Degraded, VdevAux::None, "DEGRADED", VdevAux::None));
    let none = state(vec![top("mirror", 0, &[], vec![gone(), gone()])]);
    assert_eq!(none, (S::CantOpen, VdevAux::NoReplicas, "UNAVAIL", VdevAux::NoReplicas));
    let off = state(vec![top("mirror", 0, &[], vec![with("offline", 100), with("offline", 101)])]);
    assert_eq!(off, (S::CantOpen, VdevAux::NoReplicas, "OFFLINE", VdevAux::ChildrenOffline));
    let tired = state(vec![top("mirror", 0, &[], vec![with("degraded", 100), file(101)])]);
    assert_eq!(tired.2, "DEGRADED");
    let log = state(vec![top("file", 0, &[], vec![]), top("file", 1, &[("is_log", 1)], vec![])]);
    assert_eq!(log.0, S::CantOpen, "guids 10 and 11 are no disks");
    let mut data = top("file", 0, &[], vec![]);
    data.set("guid", NvValue::Uint64(100));
    let log = state(vec![data, top("file", 1, &[("is_log", 1)], vec![])]);
    assert_eq!((log.0, log.2), (S::Degraded, "ONLINE"), "a missing log does not take the pool along");
    let t = tree(vec![top("mirror", 0, &[], vec![with("faulted", 100), with("removed", 900)])], &d);
    let names: Vec<_> = t.leaves().iter().map(|l| l.state().name(l.aux())).collect();
    assert_eq!(names, ["FAULTED", "REMOVED"]);
    let nested = nv("spare", 50, &[], vec![gone(), nv("replacing", 51, &[], vec![gone(), file(101)])]);
    let t = tree(vec![top("mirror", 0, &[], vec![file(100), nested])], &d);
    assert_eq!(t.find(50).unwrap().state(), S::Degraded);
    assert_eq!((t.find(51).unwrap().state(), t.root().state()), (S::Degraded, S::Degraded));
}

#[test]
fn a_disk_too_small_is_not_used() {
    let small: Vec<_> = vec![Arc::new(MemDevice::new(vec![0; 32 << 20])), Arc::new(MemDevice::new(vec![0; 65 << 20]))];
    let t = tree(vec![top("mirror", 0, &[], vec![file(100), file(101)])], &small);
    let aux: Vec<_> = t.leaves().iter().map(|l| (l.state(), l.aux())).collect();
    let bad = VdevState::CantOpen;
    assert_eq!(aux, [(bad, VdevAux::TooSmall), (bad, VdevAux::BadLabel)]);
}

#[test]
fn distributed_spares_stand_in() {
    let (ndata, nparity, nspares, n, ngroups) = (3u64, 1u64, 1u64, 6usize, 5u64);
    let g = DraidGeometry::new(12, n as u64, None, (ndata, nparity, nspares, ngroups)).unwrap();
    let d = disks(n);
    let data = noise(9 << 12);
    for victim in 0..n {
        for also in (0..n).filter(|a| *a != victim) {
            for offset in [0, (7 * 4) << 12, 64 << 20] {
                let map = g.map(offset, data.len()).unwrap();
                for row in &map.rows {
                    let columns: Vec<&[u8]> = row.cols[1..].iter().map(|c| &data[c.mem..c.mem + c.size]).collect();
                    let mut parity = vec![0u8; row.cols[0].size];
                    raidz::generate(&mut [&mut parity], &columns);
                    for (col, bytes) in row.cols.iter().zip(std::iter::once(&parity[..]).chain(columns)) {
                        let at = VDEV_LABEL_START_SIZE + col.offset as u64;
                        // What the victim held was rebuilt onto the spare.
                        let on = match col.child == victim {
                            true => g.spare_child(0, col.offset as u64).unwrap(),
                            false => col.child,
                        };
                        d[on].poke(at, bytes);
                    }
                }
                let child = |i: usize| match i {
                    i if i == victim => {
                        let mut spare = nv("dspare", 80, &[("top_guid", 10)], vec![]);
                        spare.set("path", NvValue::String("draid1-0-0".into()));
                        nv("spare", 60, &[], vec![file(900), spare])
                    }
                    i if i == also => file(901),
                    i => file(100 + i as u64),
                };
                let numbers = [
                    ("nparity", nparity),
                    ("draid_ndata", ndata),
                    ("draid_nspares", nspares),
                    ("draid_ngroups", ngroups),
                ];
                let mut vdev = top("draid", 0, &numbers, (0..n).map(child).collect());
                vdev.set("asize", NvValue::Uint64(160 << 20));
                let zio = Zio::new("d", tree(vec![vdev], &d), Arc::new(ArcCache::new(1 << 20)), None);
                let bp = pointer(&data, Dva::new(0, offset, 12 << 12, false));
                let got = zio.read(&bp, &Zbookmark::default(), None);
                // The spare's own columns may lie on the other disk that is lost: then it was one too many.
                let hit = map
                    .rows
                    .iter()
                    .flat_map(|r| &r.cols)
                    .filter(|c| c.size > 0)
                    .any(|c| c.child == victim && g.spare_child(0, c.offset as u64) == Some(also));
                match got {
                    Ok(got) => assert_eq!(got.as_slice(), &data[..]),
                    Err(e) => assert!(hit && e.kind() == ErrorKind::NoDevice, "{victim} {also} {offset}: {e}"),
                }
            }
        }
    }
}

#[test]
fn distributed_spares_stay_out_of_use() {
    let d = disks(6);
    for (flag, state) in [("faulted", VdevState::Faulted), ("offline", VdevState::Offline), ("", VdevState::Healthy)] {
        let child = |i: u64| match i {
            0 => nv("spare", 60, &[], vec![file(900), nv("dspare", 80, &[("top_guid", 10), (flag, 1)], vec![])]),
            i => file(100 + i),
        };
        let numbers = [("nparity", 1), ("draid_ndata", 3), ("draid_nspares", 1), ("draid_ngroups", 5)];
        let mut vdev = top("draid", 0, &numbers, (0..6).map(child).collect());
        vdev.set("asize", NvValue::Uint64(160 << 20));
        assert_eq!(tree(vec![vdev], &d).find(80).unwrap().state(), state, "{flag}");
    }
}

#[test]
fn removed_vdevs_are_followed_through_every_mapping() {
    let d = disks(2);
    let data = noise(32 << 10);
    let entry = |src, vdev, dst, size| IndirectMappingEntry { src, dst: Dva::new(vdev, dst, size, false) };
    let build = || {
        let tops = vec![
            top("indirect", 0, &[], vec![]),
            top("indirect", 1, &[], vec![]),
            top("mirror", 2, &[], vec![file(100), file(101)]),
        ];
        Zio::new("removed", tree(tops, &d), Arc::new(ArcCache::new(1 << 20)), None)
    };
    let bp = pointer(&data, Dva::new(0, 1 << 20, 32 << 10, false));
    let bm = Zbookmark::default();
    let zio = build();
    assert_eq!(zio.read(&bp, &bm, None).unwrap_err().kind(), ErrorKind::NoDevice, "no mapping yet");
    // First half: vdev 0 to vdev 2. Second half: vdev 0 to vdev 1 to two places on vdev 2.
    let first = vec![entry(1 << 20, 2, 5 << 20, 16 << 10), entry((1 << 20) + (16 << 10), 1, 3 << 20, 16 << 10)];
    let second = vec![entry(3 << 20, 2, 7 << 20, 8 << 10), entry((3 << 20) + (8 << 10), 2, 6 << 20, 1 << 20)];
    let places = [(0, 5u64 << 20, 16usize << 10), (16 << 10, 7 << 20, 8 << 10), (24 << 10, 6 << 20, 8 << 10)];
    for (at, offset, len) in places {
        d.iter().for_each(|d| d.poke(VDEV_LABEL_START_SIZE + offset, &data[at..at + len]));
    }
    let map = |zio: &Zio| {
        zio.set_indirect_mapping(0, first.clone()).unwrap();
        zio.set_indirect_mapping(1, second.clone()).unwrap();
    };
    map(&zio);
    assert_eq!(zio.read(&bp, &bm, None).unwrap().as_slice(), &data[..]);
    // Each piece is bad on one side or the other: only one combination of copies is right.
    d[0].corrupt(VDEV_LABEL_START_SIZE + (5 << 20)..VDEV_LABEL_START_SIZE + (5 << 20) + 1);
    d[1].corrupt(VDEV_LABEL_START_SIZE + (7 << 20)..VDEV_LABEL_START_SIZE + (7 << 20) + 1);
    let zio = build();
    map(&zio);
    assert_eq!(zio.read(&bp, &bm, None).unwrap().as_slice(), &data[..]);
    let errors: Vec<_> = zio.vdevs().leaves().iter().map(|l| l.stats.checksum_errors()).collect();
    assert_eq!(errors, [1, 1]);
    // Mappings that run in circles, and gaps.
    let zio = build();
    zio.set_indirect_mapping(0, vec![entry(0, 1, 0, 64 << 20)]).unwrap();
    zio.set_indirect_mapping(1, vec![entry(0, 0, 0, 64 << 20)]).unwrap();
    assert_eq!(zio.read(&bp, &bm, None).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(zio.set_indirect_mapping(2, vec![]).is_err());
}

#[test]
fn a_disk_half_resilvered_is_not_blamed() {
    let d = disks(3);
    let replacing = nv("replacing", 51, &[], vec![file(900), file(100)]);
    let t = tree(vec![top("raidz", 0, &[("nparity", 1)], vec![replacing, file(101), file(102)])], &d);
    t.find(100).unwrap().set_dtl(vec![0..4, 5..6]);
    assert!(t.find(51).unwrap().is_stale(5) && !t.find(51).unwrap().is_stale(4));
    let data = noise(4 << 12);
    let g = zfs_zio::vdev::raidz::map::RaidzGeometry::new(12, 3, 1, &[], false).unwrap();
    let map = g.map(0, data.len(), 5, None);
    let cols = &map.rows[0].cols;
    let columns: Vec<&[u8]> = cols[1..].iter().map(|c| &data[c.mem..c.mem + c.size]).collect();
    let mut parity = vec![0u8; cols[0].size];
    raidz::generate(&mut [&mut parity], &columns);
    for (col, bytes) in cols.iter().zip(std::iter::once(&parity[..]).chain(columns)) {
        if col.child != 0 {
            d[col.child].poke(VDEV_LABEL_START_SIZE + col.offset as u64, bytes);
        }
    }
    let zio = Zio::new("r", t, Arc::new(ArcCache::new(1 << 20)), None);
    let bp = pointer(&data, Dva::new(0, 0, 6 << 12, false));
    assert_eq!(zio.read(&bp, &Zbookmark::default(), None).unwrap().as_slice(), &data[..]);
    assert_eq!(zio.errors().damage(), []);
}
