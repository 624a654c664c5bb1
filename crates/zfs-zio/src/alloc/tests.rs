//! The allocator against a model: nothing is given out twice, nothing too early, and the sums agree.

use super::*;
use crate::config::VdevConfig;
use crate::vdev::VdevAux;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use zfs_env::MemDevice;
use zfs_phys::nvlist::{NvList, NvValue};

const SHIFT: u64 = 20;
const DISK: u64 = 70 << 20;

/// A pool of vdevs of one disk each, or one raidz1 of three.
fn tree(tops: u64, raidz: bool, ashift: u64) -> VdevTree {
    let nv = |kind: &str, guid: u64, more: &[(&str, u64)], children: Vec<NvList>| {
        let mut list = NvList::new();
        list.set("type", NvValue::String(kind.into()));
        list.set("guid", NvValue::Uint64(guid));
        more.iter().for_each(|(n, v)| list.set(*n, NvValue::Uint64(*v)));
        if !children.is_empty() {
            list.set("children", NvValue::NvListArray(children));
        }
        list
    };
    let tops = (0..tops)
        .map(|id| {
            let asize = if raidz { 3 * (DISK - (5 << 20)) } else { DISK - (5 << 20) };
            let more = [("id", id), ("ashift", ashift), ("asize", asize), ("metaslab_shift", SHIFT), ("nparity", 1)];
            match raidz {
                true => {
                    nv("raidz", 10 + id, &more, (0..3).map(|c| nv("file", 100 + id * 3 + c, &[], vec![])).collect())
                }
                false => nv("file", 100 + id, &more, vec![]),
            }
        })
        .collect();
    let config = VdevConfig::from_nvlist(&nv("root", 1, &[], tops)).unwrap();
    let disk: Arc<MemDevice> = Arc::new(MemDevice::new(vec![0; DISK as usize]));
    VdevTree::build(config, &mut |_| Ok::<_, VdevAux>(disk.clone())).unwrap()
}

/// Space maps as the layer above would keep them: what is free, by (vdev, metaslab).
type Maps = Arc<Mutex<HashMap<(u64, u64), RangeTree>>>;

fn seeds(tree: &VdevTree, metaslabs: u64) -> (Vec<TopSeed>, Maps) {
    let maps: Maps = Arc::default();
    let tops = (0..tree.root().children.len() as u64).map(|vdev| {
        let list = (0..metaslabs).map(|index| {
            let range = tree.top(vdev).unwrap().metaslab_range(index);
            maps.lock().insert((vdev, index), [range].into_iter().collect());
            MetaslabSeed { index, allocated: 0, histogram: None }
        });
        TopSeed { vdev, class: Class::Normal, metaslabs: list.collect() }
    });
    (tops.collect(), maps.clone())
}

fn allocator(tree: &VdevTree, metaslabs: u64, streams: usize) -> (Allocator, Maps) {
    let (tops, maps) = seeds(tree, metaslabs);
    let reader = maps.clone();
    let loader: Loader = Arc::new(move |v, m| Ok(reader.lock()[&(v, m)].clone()));
    (Allocator::new(tree, tops, loader, streams, 1 << 20).unwrap(), maps)
}

/// Writes deltas into the space maps.
fn append(maps: &Maps, deltas: &[MetaslabDelta]) {
    for d in deltas {
        let mut maps = maps.lock();
        let map = maps.get_mut(&(d.vdev, d.ms)).unwrap();
        d.alloc.iter().for_each(|(s, e)| map.remove(s, e).unwrap());
        d.free.iter().for_each(|(s, e)| map.add(s, e).unwrap());
    }
}

fn ask(psize: u64, copies: usize, txg: u64, stream: u64) -> Ask {
    Ask { class: Class::Normal, psize, copies, txg, stream, gang: false }
}

#[derive(Debug, Clone)]
enum Op {
    Alloc { sectors: u64, copies: usize, stream: u64 },
    Free(usize),
    Unalloc,
    Sync,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1u64..400, 1usize..=3, 0u64..4).prop_map(|(sectors, copies, stream)| Op::Alloc { sectors, copies, stream }),
        4 => any::<usize>().prop_map(Op::Free),
        1 => Just(Op::Unalloc),
        2 => Just(Op::Sync),
    ];
    proptest::collection::vec(op, 1..150)
}

/// Everything that may not be given out: (vdev, start) -> (end, txg it was freed in, if it was).
type Busy = BTreeMap<(u64, u64), (u64, Option<u64>)>;

/// Syncs a txg and compares the figures.
fn sync(alloc: &Allocator, maps: &Maps, busy: &mut Busy, txg: u64) {
    append(maps, &alloc.take_deltas(txg).unwrap());
    assert!(alloc.take_deltas(txg).unwrap().is_empty());
    alloc.sync_done(txg).unwrap();
    // What was freed in txg may be given out once txg + 2 is on disk.
    busy.retain(|_, b| b.1.is_none_or(|freed| freed + 2 > txg));
    let figures = alloc.figures(Class::Normal);
    let sum = |freed: bool| -> u64 {
        busy.iter().filter(|(_, b)| b.1.is_some() == freed).map(|((_, s), (e, _))| e - s).sum()
    };
    assert_eq!((figures.alloc, figures.deferred), (sum(false), sum(true)));
    let free: u64 = maps.lock().values().map(RangeTree::space).sum();
    assert_eq!(figures.space - figures.alloc, free);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_twice_and_nothing_too_early(ops in ops(), raidz: bool, tops in 1u64..4, small: bool) {
        let tree = tree(tops, raidz, 12);
        let metaslabs = if small { 2 } else { 20 };
        let (alloc, maps) = allocator(&tree, metaslabs, 2);
        let mut txg = 10u64;
        let mut busy = Busy::new();
        let mut live: Vec<(u64, Vec<Dva>)> = Vec::new();
        for op in ops {
            match op {
                Op::Alloc { sectors, copies, stream } => {
                    let found = alloc.alloc(&tree, &ask(sectors * 512, copies, txg, stream)).unwrap();
                    let Some(dvas) = found else { prop_assert!(small); continue };
                    prop_assert_eq!(dvas.len(), copies);
                    for (i, dva) in dvas.iter().enumerate() {
                        let (start, end) = (dva.offset(), dva.offset() + dva.asize());
                        prop_assert_eq!(dva.asize(), tree.top(dva.vdev()).unwrap().psize_to_asize(sectors * 512, txg));
                        let over = busy.iter().find(|((v, s), (e, _))| *v == dva.vdev() && *s < end && start < *e);
                        prop_assert!(over.is_none(), "{:?} overlaps {:?}", dva, over);
                        prop_assert!(end <= metaslabs << SHIFT && start >> SHIFT == (end - 1) >> SHIFT);
                        busy.insert((dva.vdev(), start), (end, None));
                        let apart = dvas[..i].iter().all(|d| d.vdev() != dva.vdev());
                        prop_assert!(apart || small || copies as u64 > tops, "copies share a vdev");
                    }
                    live.push((txg, dvas));
                }
                Op::Free(which) if !live.is_empty() => {
                    let (_, dvas) = live.swap_remove(which % live.len());
                    for dva in &dvas {
                        alloc.free(&tree, dva, 1, txg).unwrap();
                        prop_assert_eq!(alloc.free(&tree, dva, 1, txg).unwrap_err().kind(), ErrorKind::Bug);
                        busy.get_mut(&(dva.vdev(), dva.offset())).unwrap().1 = Some(txg);
                    }
                }
                Op::Unalloc => if live.last().is_some_and(|l| l.0 == txg) {
                    for dva in &live.pop().unwrap().1 {
                        alloc.unalloc(&tree, dva, txg).unwrap();
                        busy.remove(&(dva.vdev(), dva.offset()));
                    }
                },
                Op::Free(_) => {}
                Op::Sync => {
                    sync(&alloc, &maps, &mut busy, txg);
                    txg += 1;
                }
            }
        }
        // Given up entirely, everything comes back.
        for (_, dvas) in &live {
            dvas.iter().for_each(|d| alloc.free(&tree, d, 1, txg).unwrap());
        }
        for _ in 0..3 {
            append(&maps, &alloc.take_deltas(txg).unwrap());
            alloc.sync_done(txg).unwrap();
            txg += 1;
        }
        let figures = alloc.figures(Class::Normal);
        prop_assert_eq!((figures.alloc, figures.deferred), (0, 0));
        prop_assert!(maps.lock().values().all(|m| m.segments() == 1));
    }
}

#[test]
fn a_late_load_leaves_out_what_is_under_way() {
    let tree = tree(1, false, 9);
    let (tops, maps) = seeds(&tree, 1);
    // Allocated at import; freed before the metaslab was ever loaded.
    maps.lock().get_mut(&(0, 0)).unwrap().remove(0, 1 << 20).unwrap();
    let reader = maps.clone();
    let loader: Loader = Arc::new(move |v, m| Ok(reader.lock()[&(v, m)].clone()));
    let mut tops = tops;
    tops[0].metaslabs[0].allocated = 1 << 20;
    let alloc = Allocator::new(&tree, tops, loader, 1, 1 << 20).unwrap();
    let whole = Dva::new(0, 0, 1 << 20, false);
    alloc.free(&tree, &whole, 1, 5).unwrap();
    append(&maps, &alloc.take_deltas(5).unwrap());
    for txg in 5..7 {
        assert_eq!(alloc.alloc(&tree, &ask(4096, 1, txg + 1, 0)).unwrap(), None, "txg {txg}");
        alloc.sync_done(txg).unwrap();
    }
    alloc.sync_done(7).unwrap();
    assert!(alloc.alloc(&tree, &ask(4096, 1, 8, 0)).unwrap().is_some());
    let claimed = Dva::new(0, 512 << 10, 4096, false);
    alloc.claim(&tree, &claimed, 8).unwrap();
    assert_eq!(alloc.claim(&tree, &claimed, 8).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(alloc.free(&tree, &Dva::new(0, 1 << 20, 512, false), 1, 8).unwrap_err().kind(), ErrorKind::Corrupt);
    let early = alloc.free(&tree, &claimed, 1, 7).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Bug, "its allocation is not in any space map yet");
    assert_eq!(alloc.free(&tree, &Dva::new(7, 0, 512, false), 1, 8).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn unreadable_space_maps_are_avoided() {
    let tree = tree(1, false, 9);
    let (tops, maps) = seeds(&tree, 4);
    let loader: Loader = Arc::new(move |v, m| match m {
        2 => Ok(maps.lock()[&(v, m)].clone()),
        _ => Err(Error::corrupt("space map")),
    });
    let alloc = Allocator::new(&tree, tops, loader, 1, 1 << 20).unwrap();
    for i in 0..2048 {
        let dvas = alloc.alloc(&tree, &ask(512, 1, 5, i)).unwrap().unwrap();
        assert_eq!(dvas[0].offset() >> SHIFT, 2);
    }
    assert!(alloc.alloc(&tree, &ask(512, 1, 5, 0)).map_or(true, |a| a.is_none()));
}

#[test]
fn logs_get_a_metaslab_of_their_own() {
    let tree = tree(1, false, 9);
    let (tops, maps) = seeds(&tree, 65);
    let loader: Loader = Arc::new(move |v, m| Ok(maps.lock()[&(v, m)].clone()));
    let alloc = Allocator::new(&tree, tops, loader, 2, 1 << 20).unwrap();
    let log = alloc.alloc(&tree, &Ask { class: Class::EmbeddedLog, ..ask(4096, 1, 5, 0) }).unwrap().unwrap();
    let mut taken = 0;
    while let Some(dvas) = alloc.alloc(&tree, &ask(1 << 20, 1, 5, taken)).unwrap() {
        assert_ne!(dvas[0].offset() >> SHIFT, log[0].offset() >> SHIFT);
        taken += 1;
    }
    assert_eq!(taken, 64);
    assert_eq!(alloc.figures(Class::EmbeddedLog).space, 1 << SHIFT);
}

#[test]
fn vdevs_take_turns_and_emptier_ones_longer() {
    let tree = tree(2, false, 12);
    let (mut tops, maps) = seeds(&tree, 32);
    for index in 0..24 {
        maps.lock().get_mut(&(0, index)).unwrap().clear();
        tops[0].metaslabs[index as usize].allocated = 1 << SHIFT;
    }
    let loader: Loader = Arc::new(move |v, m| Ok(maps.lock()[&(v, m)].clone()));
    let alloc = Allocator::new(&tree, tops, loader, 1, 256 << 10).unwrap();
    let mut on = [0u32; 2];
    for _ in 0..128 {
        on[alloc.alloc(&tree, &ask(128 << 10, 1, 5, 0)).unwrap().unwrap()[0].vdev() as usize] += 1;
    }
    assert!(on[0] >= 10 && on[1] > 2 * on[0], "{on:?}");
}

#[test]
fn writers_do_not_meet() {
    let tree = tree(1, false, 12);
    let (alloc, _) = allocator(&tree, 32, 4);
    let counter = AtomicU64::new(0);
    let all = Mutex::new(RangeTree::new());
    zfs_env::pool::run_scoped("test", 4, |thread| {
        for _ in 0..1500 {
            counter.fetch_add(1, Ordering::Relaxed);
            let Some(dvas) = alloc.alloc(&tree, &ask(4096, 1, 5, thread as u64)).unwrap() else { return };
            all.lock().add(dvas[0].offset(), dvas[0].offset() + 4096).unwrap();
        }
    });
    assert_eq!(all.lock().space(), 6000 * 4096);
    let deltas = alloc.take_deltas(5).unwrap();
    assert_eq!(deltas.iter().map(|d| d.alloc.space()).sum::<u64>(), 6000 * 4096);
    assert!(
        deltas.iter().all(|d| d.histogram.is_some_and(|h| h.iter().sum::<u64>() == 1 || d.alloc.space() == 1 << 20))
    );
}
