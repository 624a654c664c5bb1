//! Pools in memory for tests of writing, and what a pool's layer above would do for them.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use zfs_env::{BlockDevice, MemDevice};
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_zio::alloc::Loader;
use zfs_zio::{ArcCache, Class, MetaslabSeed, RangeTree, TopSeed, VdevAux, VdevConfig, VdevTree, WriteConfig, Zio};

pub const DISK: u64 = 72 << 20;
/// log2 of a metaslab's size.
pub const MS_SHIFT: u64 = 22;

/// What a top-level vdev is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Single,
    Mirror(usize),
    /// Children, parity.
    Raidz(usize, u64),
    /// Children at creation, parity, children added since.
    Expanded(usize, u64, usize),
    /// Data, parity, spares, children, groups.
    Draid(u64, u64, u64, usize, u64),
}

pub const LAYOUTS: [Layout; 10] = [
    Layout::Single,
    Layout::Mirror(2),
    Layout::Mirror(3),
    Layout::Raidz(2, 1),
    Layout::Raidz(3, 1),
    Layout::Raidz(6, 2),
    Layout::Raidz(7, 3),
    Layout::Expanded(3, 1, 2),
    Layout::Draid(3, 1, 1, 6, 5),
    Layout::Draid(4, 2, 2, 9, 7),
];

impl Layout {
    pub fn disks(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Mirror(n) | Self::Raidz(n, _) | Self::Draid(_, _, _, n, _) => n,
            Self::Expanded(n, _, added) => n + added,
        }
    }

    /// Disks that may be lost.
    pub fn may_lose(self) -> usize {
        match self {
            Self::Single => 0,
            Self::Mirror(n) => n - 1,
            Self::Raidz(_, p) | Self::Expanded(_, p, _) | Self::Draid(_, p, ..) => p as usize,
        }
    }

    fn asize(self) -> u64 {
        let disk = DISK - (5 << 20);
        match self {
            Self::Single | Self::Mirror(_) => disk,
            Self::Raidz(..) | Self::Expanded(..) => disk * self.disks() as u64,
            // Slices of 16 MiB for each child, less what expansion keeps.
            Self::Draid(_, _, spares, n, _) => (32 << 20) * (n as u64 - spares),
        }
    }
}

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

/// The configuration of a pool; leaves have guids from 100 on, in order.
pub fn config(tops: &[Layout], ashift: u64) -> VdevConfig {
    let mut guid = 100;
    let tops = tops.iter().enumerate().map(|(id, layout)| {
        let leaves: Vec<NvList> = (0..layout.disks() as u64).map(|i| nv("file", guid + i, &[], vec![])).collect();
        let mut more =
            vec![("id", id as u64), ("ashift", ashift), ("asize", layout.asize()), ("metaslab_shift", MS_SHIFT)];
        let own = 10 + id as u64;
        let mut expansions = Vec::new();
        let mut list = match *layout {
            Layout::Single => nv("file", guid, &more, vec![]),
            Layout::Mirror(_) => nv("mirror", own, &more, leaves),
            Layout::Raidz(_, nparity) => {
                more.push(("nparity", nparity));
                nv("raidz", own, &more, leaves)
            }
            Layout::Expanded(_, nparity, added) => {
                more.push(("nparity", nparity));
                expansions = (0..added as u64).map(|i| 100 + 10 * i).collect();
                nv("raidz", own, &more, leaves)
            }
            Layout::Draid(ndata, nparity, nspares, _, ngroups) => {
                more.extend([
                    ("nparity", nparity),
                    ("draid_ndata", ndata),
                    ("draid_nspares", nspares),
                    ("draid_ngroups", ngroups),
                ]);
                nv("draid", own, &more, leaves)
            }
        };
        if !expansions.is_empty() {
            list.set("raidz_expand_txgs", NvValue::Uint64Array(expansions));
        }
        guid += layout.disks() as u64;
        list
    });
    VdevConfig::from_nvlist(&nv("root", 1, &[], tops.collect())).unwrap()
}

/// A pool whose disks can be reached past it.
pub struct Pool {
    pub layouts: Vec<Layout>,
    pub ashift: u64,
    pub disks: Vec<Arc<MemDevice>>,
    pub zio: Arc<Zio>,
}

pub fn mem_disks(tops: &[Layout]) -> Vec<Arc<MemDevice>> {
    let n = tops.iter().map(|l| l.disks()).sum();
    (0..n).map(|_| Arc::new(MemDevice::new(vec![0; DISK as usize]))).collect()
}

/// Opens a pool on `disks`; those `lost` are not there.
pub fn open<D: BlockDevice + 'static>(tops: &[Layout], ashift: u64, disks: &[Arc<D>], lost: &[usize]) -> Arc<Zio> {
    let tree = VdevTree::build(config(tops, ashift), &mut |leaf| {
        let i = leaf.guid as usize - 100;
        if lost.contains(&i) { Err(VdevAux::OpenFailed) } else { Ok(disks[i].clone()) }
    });
    let zio = Zio::new("tank", tree.unwrap(), Arc::new(ArcCache::new(16 << 20)), None);
    zio.set_checksum_salt([7; 32]);
    zio
}

/// What is free of each metaslab; everything, unless said otherwise.
pub type Free = Arc<Mutex<HashMap<(u64, u64), RangeTree>>>;

/// Makes a pool writable. `free` may hold other free space than everything.
pub fn writable(zio: &Zio, classes: &[Class], free: &Free) {
    let tops: Vec<TopSeed> = (0..zio.vdevs().root().children.len() as u64)
        .map(|vdev| {
            let top = zio.vdevs().top(vdev).unwrap();
            let metaslabs = (0..top.config.asize >> MS_SHIFT).map(|index| {
                let range = top.metaslab_range(index);
                let mut free = free.lock().unwrap();
                let all = free.entry((vdev, index)).or_insert_with(|| [range].into_iter().collect());
                MetaslabSeed { index, allocated: range.1 - range.0 - all.space(), histogram: None }
            });
            let class = classes.get(vdev as usize).copied().unwrap_or(Class::Normal);
            TopSeed { vdev, class, metaslabs: metaslabs.collect() }
        })
        .collect();
    let maps = free.clone();
    let loader: Loader = Arc::new(move |v, m| Ok(maps.lock().unwrap()[&(v, m)].clone()));
    zio.enable_writes(tops, loader, WriteConfig::default()).unwrap();
}

impl Pool {
    pub fn new(tops: &[Layout], ashift: u64) -> Self {
        Self::with(tops, ashift, &[], &Free::default())
    }

    pub fn with(tops: &[Layout], ashift: u64, classes: &[Class], free: &Free) -> Self {
        let disks = mem_disks(tops);
        let zio = open(tops, ashift, &disks, &[]);
        writable(&zio, classes, free);
        Self { layouts: tops.to_vec(), ashift, disks, zio }
    }

    /// The same disks, opened anew without some of them.
    pub fn reopen(&self, lost: &[usize]) -> Arc<Zio> {
        open(&self.layouts, self.ashift, &self.disks, lost)
    }
}

/// All subsets of `0..n` of `k` members.
pub fn subsets(n: usize, k: usize) -> Vec<Vec<usize>> {
    (0u32..1 << n)
        .filter(|m| m.count_ones() as usize == k)
        .map(|m| (0..n).filter(|i| m >> i & 1 == 1).collect())
        .collect()
}

/// Bytes of which compression saves about the share asked for, in eighths.
pub fn bytes(len: usize, eighths: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|i| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if i / 32 % 8 < eighths { 0x2a } else { (x >> 56) as u8 }
        })
        .collect()
}
