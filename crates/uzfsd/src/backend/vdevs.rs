//! Vdevs of the engine as the contract shows them.

use std::collections::BTreeMap;
use uzfs_proto::{VdevAux, VdevNode, VdevState, VdevStats};
use zfs_phys::NvList;
use zfs_spa::pool_props::VdevSpace;
use zfs_zio::{Vdev, VdevConfig, VdevKind};

fn state(of: zfs_zio::VdevState) -> VdevState {
    use zfs_zio::VdevState as S;
    match of {
        S::Unknown => VdevState::Unknown,
        S::Closed => VdevState::Closed,
        S::Offline => VdevState::Offline,
        S::Removed => VdevState::Removed,
        S::CantOpen => VdevState::CantOpen,
        S::Faulted => VdevState::Faulted,
        S::Degraded => VdevState::Degraded,
        S::Healthy => VdevState::Online,
    }
}

pub fn aux(of: zfs_zio::VdevAux) -> VdevAux {
    use zfs_zio::VdevAux as A;
    match of {
        A::None => VdevAux::None,
        A::OpenFailed => VdevAux::OpenFailed,
        A::CorruptData => VdevAux::CorruptData,
        A::NoReplicas => VdevAux::NoReplicas,
        A::BadGuidSum => VdevAux::BadGuidSum,
        A::TooSmall => VdevAux::TooSmall,
        A::BadLabel => VdevAux::BadLabel,
        A::VersionNewer => VdevAux::VersionNewer,
        A::VersionOlder => VdevAux::VersionOlder,
        A::UnsupFeat => VdevAux::UnsupFeat,
        A::Spared => VdevAux::Spared,
        A::ErrExceeded => VdevAux::ErrExceeded,
        A::IoFailure => VdevAux::IoFailure,
        A::BadLog => VdevAux::BadLog,
        A::External => VdevAux::External,
        A::SplitPool => VdevAux::SplitPool,
        A::BadAshift => VdevAux::BadAshift,
        A::ExternalPersist => VdevAux::ExternalPersist,
        A::Active => VdevAux::Active,
        A::ChildrenOffline => VdevAux::ChildrenOffline,
        A::AshiftTooBig => VdevAux::AshiftTooBig,
    }
}

/// What a configuration alone tells.
fn describe(config: &VdevConfig, top: bool) -> VdevNode {
    let mut node = VdevNode::new(config.kind.type_name(), config.id, config.guid);
    node.path.clone_from(&config.path);
    node.devid.clone_from(&config.devid);
    node.phys_path.clone_from(&config.phys_path);
    node.whole_disk = config.whole_disk;
    node.is_log = config.is_log;
    node.alloc_bias.clone_from(&config.alloc_bias);
    node.removing = config.removing;
    node.noalloc = config.non_allocating;
    node.raidz_expanding = config.raidz_expanding;
    if top {
        node.ashift = Some(config.ashift);
        node.asize = Some(config.asize);
    }
    match &config.kind {
        VdevKind::Raidz { nparity } => node.nparity = Some(*nparity),
        VdevKind::Draid { nparity, ndata, nspares, ngroups, .. } => {
            node.nparity = Some(*nparity);
            node.draid_ndata = Some(*ndata);
            node.draid_nspares = Some(*nspares);
            node.draid_ngroups = Some(*ngroups);
        }
        _ => {}
    }
    node
}

/// An opened vdev with all below it. `depth` is 0 for the root.
pub fn live(vdev: &Vdev, depth: usize) -> VdevNode {
    let mut node = describe(&vdev.config, depth == 1);
    node.state = state(vdev.state());
    node.aux = aux(vdev.aux());
    let absent = vdev.config.kind.is_leaf() && vdev.device().is_none() && vdev.config.kind.is_concrete();
    // A device that was taken out of use was not looked for, and a distributed spare has none.
    let taken = node.state == VdevState::Offline || (node.state == VdevState::Faulted && node.aux == VdevAux::External);
    node.not_present = absent && !taken && node.kind != "dspare";
    node.psize = vdev.device().map(|d| d.size());
    // Whether a device can trim is only known of one that is open; a file always can, if it was looked for.
    let file = matches!(vdev.config.kind, VdevKind::File) && node.state != VdevState::Offline;
    node.trim_notsup = vdev.config.kind.is_leaf() && vdev.device().is_none() && !file;
    node.stats = VdevStats {
        ops: vec![0, vdev.stats.reads(), 0, 0, 0, 0, 0],
        bytes: vec![0, vdev.stats.bytes_read(), 0, 0, 0, 0, 0],
        read_errors: vdev.stats.read_errors(),
        write_errors: vdev.stats.write_errors(),
        checksum_errors: vdev.stats.checksum_errors(),
        ..VdevStats::default()
    };
    if depth == 1 && vdev.config.kind.is_concrete() {
        // Whole metaslabs, also where dRAID cannot use all of one.
        let unit = 1u64.checked_shl(u32::try_from(vdev.config.metaslab_shift).unwrap_or(u32::MAX)).unwrap_or(1);
        node.stats.rsize = vdev.config.asize & !(unit - 1);
    }
    node.children = vdev.children.iter().map(|c| live(c, depth + 1)).collect();
    node
}

/// Fills in the space of a vdev and of all below it.
pub fn add_space(node: &mut VdevNode, space: &BTreeMap<u64, VdevSpace>) {
    if let Some(s) = space.get(&node.guid.0) {
        node.stats.alloc = s.alloc;
        node.stats.space = s.space;
        node.stats.dspace = s.dspace;
        node.stats.pspace = s.pspace;
        node.stats.esize = s.expandable;
        node.stats.fragmentation = s.fragmentation;
        node.stats.checkpoint_space = s.checkpoint;
    }
    node.children.iter_mut().for_each(|c| add_space(c, space));
    if node.kind == "root" {
        for top in &mut node.children {
            let size = if top.stats.space == 0 { 0 } else { top.stats.rsize };
            add_replacement_size(top, size);
        }
    }
}

/// Bytes of labels and boot area on a leaf (`VDEV_LABEL_START_SIZE` and `VDEV_LABEL_END_SIZE`, `sys/vdev_impl.h`).
const LABELS: u64 = (4 << 20) + (512 << 10);
/// Height of a row of a dRAID (`VDEV_DRAID_ROWHEIGHT`, `sys/vdev_draid.h`).
const DRAID_ROW: u64 = 16 << 20;

/// Size that whatever replaces a vdev must have, when the vdev has to hold `size` bytes.
fn add_replacement_size(node: &mut VdevNode, size: u64) {
    node.stats.rsize = 0;
    if size == 0 {
        return;
    }
    node.stats.rsize = if node.children.is_empty() { size + LABELS } else { size };
    let children = node.children.len() as u64;
    let each = match node.kind.as_str() {
        "raidz" => size.div_ceil(children.max(1)),
        "draid" => {
            let disks = children.saturating_sub(node.draid_nspares.unwrap_or(0)).max(1);
            2 * DRAID_ROW + size.div_ceil(disks).div_ceil(DRAID_ROW) * DRAID_ROW
        }
        _ => size,
    };
    node.children.iter_mut().for_each(|c| add_replacement_size(c, each));
}

/// Shows missing devices by where they were and not by their guids: nobody can name a device of a pool that is not
/// imported yet.
pub fn show_places(node: &mut VdevNode) {
    node.not_present = false;
    node.children.iter_mut().chain(&mut node.l2cache).chain(&mut node.spares).for_each(show_places);
}

/// A vdev that is only known from a label, with all below it; `present` tells whether a device was found.
pub fn from_label(tree: &NvList, present: &dyn Fn(u64) -> bool) -> Option<VdevNode> {
    fn convert(config: &VdevConfig, depth: usize, present: &dyn Fn(u64) -> bool) -> VdevNode {
        let mut node = describe(config, depth == 1);
        node.children = config.children.iter().map(|c| convert(c, depth + 1, present)).collect();
        // A distributed spare is part of a dRAID and has no device of its own.
        let device = config.kind.is_leaf() && config.kind.is_concrete() && node.kind != "dspare";
        if device && !present(config.guid) {
            node.state = VdevState::CantOpen;
            node.aux = VdevAux::OpenFailed;
        }
        node
    }
    VdevConfig::from_nvlist(tree).ok().map(|config| convert(&config, 0, present))
}

/// A hot spare or cache device, from its configuration. `size` tells the bytes of devices that were found.
pub fn auxiliary(config: &NvList, size: &dyn Fn(u64) -> Option<u64>) -> VdevNode {
    let found = from_label(config, &|guid| size(guid).is_some());
    let mut node = found.unwrap_or_else(|| {
        let mut node = VdevNode::new("missing", 0, config.u64("guid").unwrap_or(0));
        node.state = VdevState::CantOpen;
        node.aux = VdevAux::CorruptData;
        node
    });
    node.psize = size(node.guid.0);
    node.stats.pspace = node.psize.unwrap_or(0);
    node.trim_notsup = node.psize.is_none() || node.kind == "dspare";
    node
}

/// Smallest block that starts a cache device: its header (`l2arc_dev_hdr_phys_t`, `sys/arc_impl.h`).
const CACHE_HEADER: u64 = 512;

/// A cache device, from its configuration.
pub fn cache(config: &NvList, size: &dyn Fn(u64) -> Option<u64>) -> VdevNode {
    let mut node = auxiliary(config, size);
    let usable = node.stats.pspace.saturating_sub(LABELS);
    let ashift = config.u64("ashift").filter(|a| (9..=16).contains(a)).unwrap_or(9);
    node.stats.space = usable.saturating_sub(CACHE_HEADER.max(1 << ashift));
    node.stats.rsize = usable + LABELS;
    node
}

fn find(node: &VdevNode, guid: u64) -> Option<&VdevNode> {
    if node.guid.0 == guid {
        return Some(node);
    }
    node.children.iter().find_map(|c| find(c, guid))
}

/// A hot spare of a pool with these devices. One in use is where the device in its place is.
pub fn spare(config: &NvList, root: &VdevNode, size: &dyn Fn(u64) -> Option<u64>) -> VdevNode {
    let mut node = auxiliary(config, size);
    if let Some(used) = find(root, node.guid.0) {
        node.path.clone_from(&used.path);
        (node.state, node.aux) = (VdevState::CantOpen, VdevAux::Spared);
        node.trim_notsup = used.trim_notsup;
    }
    if let Some(VdevKind::DraidSpare { top_guid, .. }) = VdevConfig::from_nvlist(config).ok().map(|c| c.kind) {
        // As large as the smallest device that it is spread over.
        let leaves = find(root, top_guid).map(|top| smallest(top, 0)).unwrap_or_default();
        node.stats.pspace = leaves.unwrap_or(0);
    }
    node
}

/// The size of the smallest device at and below a vdev.
fn smallest(node: &VdevNode, depth: usize) -> Option<u64> {
    let own = Some(node.stats.pspace).filter(|s| *s != 0 && node.children.is_empty());
    node.children.iter().filter(|_| depth < 8).filter_map(|c| smallest(c, depth + 1)).chain(own).min()
}
