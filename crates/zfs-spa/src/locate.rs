//! Finding the members of a pool that a search did not see, and showing a pool that cannot be loaded.
//!
//! Any one member leads to the others: labels name the devices of their own top-level vdev, the meta object set those
//! of all of them. Each is looked for where it was last seen (path, device id, physical path) and under the same name
//! beside the members that were found. Where the search was for certain devices only, and names do not lead to all of
//! them, everything is looked at that lies beside a member or beside the place of a missing one: devices get other names.
//! What is found counts only when its own label says that it is that device of
//! that pool; names out of labels are never trusted further than to read a label there.
//!
//! Life cycle: [`complete`] runs once for each pool of a search, before anything is imported. It stops when a round
//! finds nothing; every round adds at least one device of a tree whose size is limited, and no directory is looked
//! through twice.

use crate::config;
use crate::discover::{PoolCandidate, group};
use crate::import::{ImportOptions, open_mos};
use crate::labels::FoundDevice;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zfs_env::{FileDevice, host};
use zfs_phys::NvList;
use zfs_zio::arc::ArcCache;
use zfs_zio::{Vdev, VdevAux, VdevConfig, VdevState, VdevTree, Zio};

/// Most devices looked for in a round, whatever a label claims.
const MAX_WANTED: usize = 4096;
/// Most levels of a tree.
const MAX_DEPTH: usize = 8;
/// Most files and devices looked at for those that have other names, whatever is in the directories of a label.
const MAX_LOOKED_AT: usize = 4096;
/// Memory for reading a configuration out of the meta object set.
const BUDGET: u64 = 16 << 20;

/// Adds the members of a pool that can be found from those that are known. `wide` says that the search was for
/// certain devices only, so that spares and cache devices may be elsewhere too.
pub(crate) fn complete(candidate: PoolCandidate, wide: bool) -> PoolCandidate {
    let mut candidate = candidate;
    let mut tried = BTreeSet::new();
    let mut searched = BTreeSet::new();
    loop {
        let mut wanted = Vec::new();
        absent(&candidate.tree, &candidate, 0, &mut wanted);
        let unknown = candidate.tree.lists("children").iter().any(|top| top.str("type") == Some("missing"));
        if wide || unknown {
            for list in stored_trees(&candidate) {
                absent(&list, &candidate, 0, &mut wanted);
            }
        }
        wanted.truncate(MAX_WANTED);
        let new = wanted.iter().filter(|w| tried.insert(w.guid));
        let mut found: Vec<FoundDevice> = new.filter_map(|w| w.look(&candidate)).collect();
        if found.is_empty() && wide && !wanted.is_empty() {
            found = renamed(&wanted, &candidate, &mut searched);
        }
        if found.is_empty() {
            return candidate;
        }
        let known = candidate.devices.values().chain(candidate.auxiliary.values()).cloned();
        let all: Vec<FoundDevice> = known.chain(found).collect();
        match group(all).into_iter().find(|p| p.guid == candidate.guid) {
            Some(more) => candidate = more,
            None => return candidate,
        }
    }
}

/// A device that is somewhere else.
struct Wanted {
    guid: u64,
    places: Vec<PathBuf>,
    name: Option<String>,
}

impl Wanted {
    fn from_leaf(leaf: &NvList, guid: u64) -> Self {
        let mut places: Vec<PathBuf> = leaf.str("path").map(PathBuf::from).into_iter().collect();
        for (key, dir) in [("devid", "/dev/disk/by-id"), ("phys_path", "/dev/disk/by-path")] {
            // A plain name; anything else in a label could lead anywhere.
            let plain = leaf.str(key).filter(|n| !n.is_empty() && !n.contains('/') && *n != "..");
            places.extend(plain.map(|n| Path::new(dir).join(n)));
        }
        places.retain(|p| p.is_absolute());
        let name = leaf.str("path").and_then(|p| Path::new(p).file_name()).map(|n| n.to_string_lossy().into_owned());
        Self { guid, places, name }
    }

    /// Looks in all places.
    fn look(&self, candidate: &PoolCandidate) -> Option<FoundDevice> {
        let mut places = self.places.clone();
        if let Some(name) = &self.name {
            let beside: BTreeSet<&Path> = candidate.devices.values().filter_map(|d| d.path.parent()).collect();
            places.extend(beside.into_iter().map(|dir| dir.join(name)));
        }
        places.into_iter().find_map(|path| {
            let device = FileDevice::open_read_only(&path).ok()?;
            let found = FoundDevice::examine(path, Arc::new(device))?;
            let pool = found.config.u64("pool_guid");
            (found.guid == self.guid && pool.is_none_or(|p| p == candidate.guid)).then_some(found)
        })
    }
}

/// Those of `wanted` that lie under any name beside a member, or beside where one of them was last seen.
fn renamed(wanted: &[Wanted], candidate: &PoolCandidate, searched: &mut BTreeSet<PathBuf>) -> Vec<FoundDevice> {
    let beside = candidate.devices.values().map(|d| d.path.as_path());
    let last_seen = wanted.iter().flat_map(|w| w.places.iter().map(PathBuf::as_path));
    let dirs: BTreeSet<PathBuf> = beside.chain(last_seen).filter_map(Path::parent).map(PathBuf::from).collect();
    let mut paths: Vec<PathBuf> = Vec::new();
    for dir in dirs.into_iter().filter(|d| searched.insert(d.clone())) {
        // A place that is gone holds nothing.
        paths.extend(host::devices_in(dir).unwrap_or_default());
    }
    paths.truncate(MAX_LOOKED_AT);
    let known: BTreeSet<&Path> = candidate.devices.values().map(|d| d.path.as_path()).collect();
    let looked = paths.into_iter().filter(|p| !known.contains(p.as_path())).filter_map(|path| {
        let device = FileDevice::open_read_only(&path).ok()?;
        let found = FoundDevice::examine(path, Arc::new(device))?;
        let pool = found.config.u64("pool_guid");
        let one = wanted.iter().any(|w| w.guid == found.guid) && pool.is_none_or(|p| p == candidate.guid);
        one.then_some(found)
    });
    looked.collect()
}

/// Leaves of a tree that were not found.
fn absent(tree: &NvList, candidate: &PoolCandidate, depth: usize, out: &mut Vec<Wanted>) {
    if depth > MAX_DEPTH || out.len() >= MAX_WANTED {
        return;
    }
    let leaf = matches!(tree.str("type"), Some("disk" | "file"));
    if let Some(guid) = tree.u64("guid").filter(|_| leaf) {
        let known = candidate.devices.contains_key(&guid) || candidate.auxiliary.contains_key(&guid);
        if !known && !out.iter().any(|w| w.guid == guid) {
            out.push(Wanted::from_leaf(tree, guid));
        }
    }
    for name in ["children", "spares", "l2cache"] {
        tree.lists(name).iter().for_each(|c| absent(c, candidate, depth + 1, out));
    }
}

fn reading() -> ImportOptions {
    let options = ImportOptions::new(Arc::new(ArcCache::new(BUDGET)), None);
    ImportOptions { force: true, skip_host_checks: true, allow_missing_logs: true, ..options }
}

/// The trees in the meta object set: of the pool, its spares and its cache devices. None if it cannot be read.
fn stored_trees(candidate: &PoolCandidate) -> Vec<NvList> {
    let Some(ub) = candidate.best_uberblock() else { return Vec::new() };
    let read = || -> Option<Vec<NvList>> {
        let first = VdevConfig::from_nvlist(&candidate.tree).ok()?;
        let (_, mos, directory) = open_mos(&candidate.name, first, candidate, &reading(), &ub).ok()?;
        let config = config::trusted_config(&mos, &directory).ok()?;
        let mut out: Vec<NvList> = config.list("vdev_tree").cloned().into_iter().collect();
        for which in ["spares", "l2cache"] {
            out.extend(config::auxiliary(&mos, &directory, which).unwrap_or_default());
        }
        Some(out)
    };
    read().unwrap_or_default()
}

/// The devices of a pool that could not be loaded, as far as they can be told.
pub enum Devices {
    /// As labels tell.
    Labels(Box<VdevTree>),
    /// As the pool's own configuration tells.
    Trusted(Arc<Zio>),
}

impl Devices {
    /// The root of the tree.
    pub fn root(&self) -> &Vdev {
        match self {
            Self::Labels(tree) => tree.root(),
            Self::Trusted(zio) => zio.vdevs().root(),
        }
    }

    /// Why the pool cannot be opened: its devices do not suffice, or what they hold is damaged.
    pub fn trouble(&self) -> VdevAux {
        if is_dead(self.root()) { VdevAux::NoReplicas } else { VdevAux::CorruptData }
    }
}

/// Whether a top-level vdev that is known cannot be read. Those that no label told of do not count: only reading the
/// pool's configuration shows whether it can be had without them.
fn is_dead(root: &Vdev) -> bool {
    let unreadable = |v: &&Vdev| !matches!(v.state(), VdevState::Healthy | VdevState::Degraded);
    root.children.iter().filter(|v| v.config.kind.is_concrete() && !v.config.is_log).any(|v| unreadable(&v))
}

/// The devices of a pool with their states, for showing why it cannot be imported. None if its labels make no tree.
pub fn examine(candidate: &PoolCandidate) -> Option<Devices> {
    let mut open = |leaf: &VdevConfig| {
        let found = candidate.devices.get(&leaf.guid).or_else(|| candidate.auxiliary.get(&leaf.guid));
        found.map(|d| d.device.clone()).ok_or(VdevAux::OpenFailed)
    };
    let first = VdevConfig::from_nvlist(&candidate.tree).ok()?;
    let labels = VdevTree::build(first.clone(), &mut open).ok()?;
    if is_dead(labels.root()) {
        return Some(Devices::Labels(Box::new(labels)));
    }
    let trusted = || -> Option<Arc<Zio>> {
        let ub = candidate.best_uberblock()?;
        let (_, mos, directory) = open_mos(&candidate.name, first, candidate, &reading(), &ub).ok()?;
        let config = config::trusted_config(&mos, &directory).ok()?;
        let tree = crate::discover::relocate(config.list("vdev_tree")?, &candidate.devices);
        let tree = VdevTree::build(VdevConfig::from_nvlist(&tree).ok()?, &mut open).ok()?;
        Some(Zio::new(&candidate.name, tree, Arc::new(ArcCache::new(BUDGET)), None))
    };
    Some(trusted().map_or_else(|| Devices::Labels(Box::new(labels)), Devices::Trusted))
}
