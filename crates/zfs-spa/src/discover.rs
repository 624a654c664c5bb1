//! Finding pools: devices are examined, grouped by pool guid, and put together to a tree for each pool.
//!
//! The labels of a top-level vdev describe that vdev only, so a pool's tree is assembled from the newest label of each
//! top-level vdev; any one member tells how many there are, which makes missing ones visible. Labels are hints: the
//! configuration in the meta object set is the truth, which [`crate::import`] reads afterwards.

use crate::labels::{FoundDevice, state};
use crate::locate;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use zfs_env::{BlockDevice, FileDevice, host};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{NvList, NvValue};
use zfs_zio::{Error, Result};

/// Largest cache file accepted.
const CACHEFILE_MAX: u64 = 64 << 20;
/// Most top-level vdevs accepted from a label.
const MAX_TOP: u64 = 4096;

/// Where to look for devices.
#[derive(Debug, Clone)]
pub enum Search {
    /// The block devices of the system.
    System,
    /// Directories, or devices and image files themselves.
    Paths(Vec<PathBuf>),
    /// The devices that a cache file names, e.g. `/etc/zfs/zpool.cache`.
    Cachefile(PathBuf),
    /// All of the directories in which a cache file has devices, for its pools: devices may have got other names.
    CachefileDirectories(PathBuf),
    /// Everything in the directories where a system keeps its devices' names, instead of what the system lists.
    DeviceDirectories,
}

/// Where names of devices are, those that last first; the order breaks ties.
const DEVICE_DIRECTORIES: [&str; 10] = [
    "/dev/disk/by-vdev",
    "/dev/mapper",
    "/dev/disk/by-partlabel",
    "/dev/disk/by-partuuid",
    "/dev/disk/by-label",
    "/dev/disk/by-uuid",
    "/dev/disk/by-id",
    "/dev/disk/by-path",
    "/dev/md",
    "/dev",
];

/// What a search found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Pools by guid, exported, active and destroyed ones.
    pub pools: Vec<PoolCandidate>,
    /// Directories and devices that could not be looked at.
    pub failures: Vec<(PathBuf, String)>,
}

/// A pool put together from labels.
#[derive(Debug, Clone)]
pub struct PoolCandidate {
    /// Name in the newest label.
    pub name: String,
    /// Identity.
    pub guid: u64,
    /// State in the newest label (`labels::state`).
    pub state: u64,
    /// On-disk version.
    pub version: u64,
    /// Txg of the newest label.
    pub txg: u64,
    /// Host that used it last; 0 when none was recorded.
    pub hostid: u64,
    /// Name of that host.
    pub hostname: Option<String>,
    /// Comment property.
    pub comment: Option<String>,
    /// Compatibility property.
    pub compatibility: Option<String>,
    /// Number of the known on-disk erratum, 0 if none.
    pub errata: u64,
    /// The newest label.
    pub label: Arc<NvList>,
    /// Tree of the whole pool as labels tell it; paths are where devices were found.
    pub tree: NvList,
    /// Members found, by leaf guid.
    pub devices: BTreeMap<u64, FoundDevice>,
    /// Spares and cache devices found, of any pool, by guid.
    pub auxiliary: Arc<BTreeMap<u64, FoundDevice>>,
}

impl PoolCandidate {
    /// The newest root over all devices.
    pub fn best_uberblock(&self) -> Option<Uberblock> {
        self.uberblocks().into_iter().next()
    }

    /// Roots of all devices, best first, each txg once.
    pub fn uberblocks(&self) -> Vec<Uberblock> {
        let mut all: Vec<Uberblock> = self.devices.values().flat_map(|d| d.uberblocks.iter().map(|u| u.ub)).collect();
        all.sort_by_key(|u| std::cmp::Reverse(u.rank()));
        all.dedup_by_key(|u| u.txg);
        all
    }

    /// Puts pools together from devices that were opened already.
    pub fn from_devices(devices: impl IntoIterator<Item = (PathBuf, Arc<dyn BlockDevice>)>) -> Vec<Self> {
        group(devices.into_iter().filter_map(|(path, dev)| FoundDevice::examine(path, dev)).collect())
    }
}

/// Looks for pools.
///
/// # Errors
/// When the cache file cannot be read. Directories and devices that cannot are listed in the result.
pub fn discover(search: &Search) -> Result<Discovery> {
    let mut out = Discovery::default();
    let (paths, only) = match search {
        Search::System => (host::system_devices(), None),
        Search::Paths(places) => (list_places(places, &mut out.failures), None),
        Search::DeviceDirectories => {
            let there: Vec<PathBuf> =
                DEVICE_DIRECTORIES.iter().map(PathBuf::from).filter(|d| host::is_dir(d)).collect();
            (list_places(&there, &mut out.failures), None)
        }
        Search::Cachefile(file) | Search::CachefileDirectories(file) => {
            let pools = read_cachefile(file)?;
            let guids: Vec<u64> = pools.iter().filter_map(|p| p.u64("pool_guid")).collect();
            let mut paths = Vec::new();
            for tree in pools.iter().filter_map(|p| p.list("vdev_tree")) {
                leaf_paths(tree, &mut paths);
            }
            if matches!(search, Search::CachefileDirectories(_)) {
                let dirs: BTreeSet<PathBuf> = paths.iter().filter_map(|p| p.parent()).map(PathBuf::from).collect();
                let dirs: Vec<PathBuf> = dirs.into_iter().filter(|d| host::is_dir(d)).collect();
                paths = list_places(&dirs, &mut out.failures);
            }
            (paths, Some(guids))
        }
    };
    let found = examine_all(paths, &mut out.failures);
    let wide = matches!(search, Search::Paths(places) if places.iter().any(|p| !host::is_dir(p)));
    out.pools = group(found).into_iter().map(|pool| locate::complete(pool, wide)).collect();
    if let Some(guids) = only {
        out.pools.retain(|p| guids.contains(&p.guid));
    }
    Ok(out)
}

fn list_places(places: &[PathBuf], failures: &mut Vec<(PathBuf, String)>) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for place in places {
        match host::devices_in(place) {
            Ok(found) => out.extend(found),
            Err(e) => failures.push((place.clone(), e.to_string())),
        }
    }
    out
}

fn examine_all(paths: Vec<PathBuf>, failures: &mut Vec<(PathBuf, String)>) -> Vec<FoundDevice> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = parking_lot::Mutex::new(Vec::new());
    let threads = paths.len().min(8);
    // Disks answer in parallel; a search over many of them is all waiting.
    zfs_env::pool::run_scoped("labels", threads.max(1), |_| {
        while let Some(path) = paths.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let one = FileDevice::open_read_only(path)
                .map(|dev| FoundDevice::examine(path.clone(), Arc::new(dev)))
                .map_err(|e| e.to_string());
            results.lock().push((path.clone(), one));
        }
    });
    let mut out = Vec::new();
    let mut results = results.into_inner();
    results.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, result) in results {
        match result {
            Ok(found) => out.extend(found),
            Err(e) => failures.push((path, e)),
        }
    }
    out
}

/// Configurations of the pools in a cache file, in its order.
pub fn read_cachefile(path: &std::path::Path) -> Result<Vec<NvList>> {
    let bytes = host::read_file(path, CACHEFILE_MAX)?;
    let list = NvList::decode(&bytes).map_err(|e| Error::from(e).context("reading the cache file"))?;
    Ok(list
        .pairs
        .into_iter()
        .filter_map(|(_, v)| match v {
            NvValue::NvList(config) => Some(config),
            _ => None,
        })
        .collect())
}

fn leaf_paths(tree: &NvList, out: &mut Vec<PathBuf>) {
    if let Some(path) = tree.str("path") {
        out.push(path.into());
    }
    for name in ["children", "spares", "l2cache"] {
        tree.lists(name).iter().for_each(|c| leaf_paths(c, out));
    }
}

/// Groups devices by pool.
pub(crate) fn group(found: Vec<FoundDevice>) -> Vec<PoolCandidate> {
    let mut pools: BTreeMap<u64, BTreeMap<u64, FoundDevice>> = BTreeMap::new();
    let mut auxiliary: BTreeMap<u64, FoundDevice> = BTreeMap::new();
    for dev in found {
        // A device that was being added when everything stopped has a label of txg 0: it is no member yet.
        let spare = matches!(dev.config.u64("state"), Some(state::SPARE | state::L2CACHE));
        if dev.txg == 0 && !spare {
            continue;
        }
        let into = match (dev.config.u64("state"), dev.config.u64("pool_guid")) {
            (Some(state::SPARE | state::L2CACHE), _) => &mut auxiliary,
            (_, Some(pool)) => pools.entry(pool).or_default(),
            _ => continue,
        };
        // The same disk shows under several names, and a copy of a disk under another: newest first, then at home.
        let rank = |d: &FoundDevice| (d.txg, d.at_home());
        match into.get(&dev.guid) {
            Some(have) if rank(have) >= rank(&dev) => {}
            _ => {
                into.insert(dev.guid, dev);
            }
        }
    }
    let auxiliary = Arc::new(auxiliary);
    pools.into_iter().filter_map(|(guid, devices)| candidate(guid, devices, &auxiliary)).collect()
}

fn candidate(
    guid: u64,
    devices: BTreeMap<u64, FoundDevice>,
    auxiliary: &Arc<BTreeMap<u64, FoundDevice>>,
) -> Option<PoolCandidate> {
    let newest = devices.values().max_by_key(|d| d.txg)?;
    let label = newest.config.clone();
    // A device that was just added or is being initialised has txg 0; alone it is no pool.
    if newest.txg == 0 {
        return None;
    }
    Some(PoolCandidate {
        name: label.str("name")?.to_owned(),
        guid,
        state: label.u64("state").unwrap_or(state::ACTIVE),
        version: label.u64("version").unwrap_or(0),
        txg: newest.txg,
        hostid: label.u64("hostid").unwrap_or(0),
        hostname: label.str("hostname").map(str::to_owned),
        comment: label.str("comment").map(str::to_owned),
        compatibility: label.str("compatibility").map(str::to_owned),
        errata: label.u64("errata").unwrap_or(0),
        tree: assemble(guid, &label, &devices),
        label,
        devices,
        auxiliary: auxiliary.clone(),
    })
}

fn placeholder(kind: &str, id: u64) -> NvList {
    let mut nv = NvList::new();
    nv.set("type", NvValue::String(kind.into()));
    nv.set("id", NvValue::Uint64(id));
    nv.set("guid", NvValue::Uint64(0));
    nv
}

/// The root vdev's configuration out of the newest label of each top-level vdev.
fn assemble(guid: u64, newest: &NvList, devices: &BTreeMap<u64, FoundDevice>) -> NvList {
    let mut tops: BTreeMap<u64, (u64, &NvList)> = BTreeMap::new();
    for dev in devices.values() {
        let Some(tree) = dev.config.list("vdev_tree") else { continue };
        let id = tree.u64("id").unwrap_or(0);
        match tops.get(&id) {
            Some((txg, _)) if *txg >= dev.txg => {}
            _ => {
                tops.insert(id, (dev.txg, tree));
            }
        }
    }
    let most = tops.keys().next_back().map_or(0, |id| id.saturating_add(1));
    let count = newest.u64("vdev_children").unwrap_or(most).min(MAX_TOP);
    let holes = newest.u64s("hole_array").unwrap_or_default();
    let children = (0..count)
        .map(|id| match tops.get(&id) {
            _ if holes.contains(&id) => placeholder("hole", id),
            Some((_, tree)) => relocate(tree, devices),
            None => placeholder("missing", id),
        })
        .collect();
    let mut root = NvList::new();
    root.set("type", NvValue::String("root".into()));
    root.set("id", NvValue::Uint64(0));
    root.set("guid", NvValue::Uint64(guid));
    root.set("children", NvValue::NvListArray(children));
    root
}

/// A copy of `tree` in which every leaf's path is where its device was found.
pub(crate) fn relocate(tree: &NvList, devices: &BTreeMap<u64, FoundDevice>) -> NvList {
    let mut out = tree.clone();
    let found = tree.u64("guid").and_then(|g| devices.get(&g));
    if let Some(dev) = found {
        out.set("path", NvValue::String(dev.path.to_string_lossy().into_owned()));
    }
    for name in ["children", "spares", "l2cache"] {
        if tree.contains(name) {
            let moved = tree.lists(name).iter().map(|c| relocate(c, devices)).collect();
            out.set(name, NvValue::NvListArray(moved));
        }
    }
    out
}
