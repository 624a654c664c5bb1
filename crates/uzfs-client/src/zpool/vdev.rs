//! Names, states and classes of devices as OpenZFS's tools print them.

use uzfs_proto::{Pool, VdevAux, VdevNode, VdevState};

/// How devices are named (`-g -L -P` and their environment variables).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Naming {
    /// Guids instead of names.
    pub guid: bool,
    /// Resolve links of paths.
    pub follow: bool,
    /// Full paths.
    pub path: bool,
    /// Number the children of the root: `mirror-0`.
    pub type_id: bool,
}

impl Naming {
    /// The same with numbers.
    pub fn numbered(self) -> Self {
        Naming { type_id: true, ..self }
    }
}

/// Removes the partition ZFS made on a whole disk: `sda1` is `sda`, `nvme0n1p1` is `nvme0n1`,
/// `wwn-0x5-part1` is `wwn-0x5`.
fn strip_partition(name: &str) -> &str {
    if let Some((disk, part)) = name.rsplit_once("-part")
        && !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_digit())
    {
        return disk;
    }
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return name;
    }
    if let Some(disk) = stem.strip_suffix('p')
        && disk.ends_with(|c: char| c.is_ascii_digit())
    {
        return disk;
    }
    let base = stem.rsplit('/').next().unwrap_or(stem);
    let plain = ["sd", "hd", "vd", "xvd"].iter().any(|prefix| {
        let letters = base.strip_prefix(prefix).unwrap_or_default();
        !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())
    });
    if plain { stem } else { name }
}

/// The part of a path that a disk is known by.
fn strip_path(path: &str) -> &str {
    const PLACES: &[&str] = &[
        "/dev/disk/by-vdev/",
        "/dev/mapper/",
        "/dev/disk/by-partlabel/",
        "/dev/disk/by-partuuid/",
        "/dev/disk/by-label/",
        "/dev/disk/by-uuid/",
        "/dev/disk/by-id/",
        "/dev/disk/by-path/",
        "/dev/",
    ];
    PLACES.iter().find_map(|p| path.strip_prefix(p)).unwrap_or(path)
}

/// The name of a device; `pool` is the name of the root.
pub fn name(node: &VdevNode, pool: Option<&str>, naming: Naming) -> String {
    if let (Some(pool), "root") = (pool, node.kind.as_str()) {
        return pool.to_owned();
    }
    if node.not_present || naming.guid {
        return node.guid.to_string();
    }
    if let Some(path) = &node.path {
        let mut path = path.clone();
        if naming.follow
            && let Ok(real) = std::fs::canonicalize(&path)
        {
            path = real.to_string_lossy().into_owned();
        }
        let short = match (node.kind.as_str(), naming.path) {
            ("disk", false) => strip_path(&path),
            _ => &path,
        };
        let whole = node.whole_disk && node.kind != "dspare" && !naming.path;
        return if whole { strip_partition(short).to_owned() } else { short.to_owned() };
    }
    let parity = node.nparity.unwrap_or(0);
    let kind = match node.kind.as_str() {
        "raidz" => format!("raidz{parity}"),
        "draid" => {
            let data = node.draid_ndata.unwrap_or(0);
            let spares = node.draid_nspares.unwrap_or(0);
            format!("draid{parity}:{data}d:{}c:{spares}s", node.children.len())
        }
        other => other.to_owned(),
    };
    if naming.type_id { format!("{kind}-{}", node.id) } else { kind }
}

/// A state as printed.
pub fn state_name(state: VdevState, aux: VdevAux) -> &'static str {
    match (state, aux) {
        (VdevState::Closed | VdevState::Offline, _) => "OFFLINE",
        (VdevState::Removed, _) => "REMOVED",
        (VdevState::CantOpen, VdevAux::CorruptData | VdevAux::BadLog) => "FAULTED",
        (VdevState::CantOpen, VdevAux::SplitPool) => "SPLIT",
        (VdevState::CantOpen, _) => "UNAVAIL",
        (VdevState::Faulted, _) => "FAULTED",
        (VdevState::Degraded, _) => "DEGRADED",
        (VdevState::Online, _) => "ONLINE",
        (VdevState::Unknown, _) => "UNKNOWN",
    }
}

/// The state of a device, with the words for hot spares.
pub fn state_of(node: &VdevNode, spare: bool) -> &'static str {
    match (spare, node.aux, node.state) {
        (true, VdevAux::Spared, _) => "INUSE",
        (true, _, VdevState::Online) => "AVAIL",
        _ => state_name(node.state, node.aux),
    }
}

/// The state of a pool as `zpool list`, `get` and `status` print it.
pub fn pool_state(pool: &Pool) -> &'static str {
    match (&pool.tree, &pool.suspended) {
        _ if pool.state == uzfs_proto::PoolState::Unavail => "FAULTED",
        (_, Some(_)) => "SUSPENDED",
        (Some(tree), None) => state_name(tree.state, tree.aux),
        (None, None) => "ONLINE",
    }
}

/// What an auxiliary state means in `zpool status`.
pub fn aux_sentence(node: &VdevNode, pool: &str) -> String {
    let fixed = match node.aux {
        VdevAux::OpenFailed => "cannot open",
        VdevAux::BadGuidSum => "missing device",
        VdevAux::NoReplicas => "insufficient replicas",
        VdevAux::VersionNewer => "newer version",
        VdevAux::UnsupFeat => "unsupported feature(s)",
        VdevAux::AshiftTooBig => "unsupported minimum blocksize",
        VdevAux::Spared => match &node.spare_pool {
            Some(other) if other != pool => return format!("in use by pool '{other}'"),
            _ => "currently in use",
        },
        VdevAux::ErrExceeded => {
            let s = &node.stats;
            let none = s.read_errors + s.write_errors + s.checksum_errors == 0;
            if none && node.is_leaf() && s.slow_ios > 0 { "too many slow I/Os" } else { "too many errors" }
        }
        VdevAux::IoFailure => "experienced I/O failures",
        VdevAux::BadLog => "bad intent log",
        VdevAux::External => "external device fault",
        VdevAux::SplitPool => "split into new pool",
        VdevAux::Active => "currently in use",
        VdevAux::ChildrenOffline => "all children offline",
        VdevAux::BadLabel => "invalid label",
        _ => "corrupted data",
    };
    fixed.into()
}

/// The same in listings of importable pools, which know fewer words.
pub fn import_aux_sentence(aux: VdevAux) -> &'static str {
    match aux {
        VdevAux::OpenFailed => "cannot open",
        VdevAux::BadGuidSum => "missing device",
        VdevAux::NoReplicas => "insufficient replicas",
        VdevAux::VersionNewer => "newer version",
        VdevAux::UnsupFeat => "unsupported feature(s)",
        VdevAux::ErrExceeded => "too many errors",
        VdevAux::Active => "currently in use",
        VdevAux::ChildrenOffline => "all children offline",
        VdevAux::BadLabel => "invalid label",
        _ => "corrupted data",
    }
}

/// Sections of top-level devices that are printed apart, in the order of `zpool status`.
pub const STATUS_CLASSES: &[&str] = &["dedup", "special", "logs"];
/// The same in the order of `zpool list -v`.
pub const LIST_CLASSES: &[&str] = &["dedup", "special", "logs"];

/// The section a top-level device is printed in; none for normal ones.
pub fn class_of(node: &VdevNode) -> Option<&str> {
    match node.is_log {
        true => Some("logs"),
        false => node.alloc_bias.as_deref(),
    }
}

/// Devices that stand for something gone.
pub fn is_hole(node: &VdevNode) -> bool {
    node.kind == "hole"
}

/// Width of the name column for a tree.
pub fn max_width(node: &VdevNode, pool: Option<&str>, depth: usize, least: usize, n: Naming) -> usize {
    let mut width = least.max(name(node, pool, n).len() + depth);
    for child in node.spares.iter().chain(&node.l2cache).chain(&node.children) {
        width = width.max(max_width(child, pool, depth + 2, width, n));
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, whole: bool) -> VdevNode {
        VdevNode { path: Some(path.into()), whole_disk: whole, ..VdevNode::new("disk", 0, 7) }
    }

    #[test]
    fn names() {
        let n = Naming::default();
        let of = |v: &VdevNode, n: Naming| name(v, Some("tank"), n);
        assert_eq!(of(&disk("/dev/sda1", true), n), "sda");
        assert_eq!(of(&disk("/dev/sda1", false), n), "sda1");
        assert_eq!(of(&disk("/dev/nvme0n1p1", true), n), "nvme0n1");
        assert_eq!(of(&disk("/dev/disk/by-id/wwn-0x5-part1", true), n), "wwn-0x5");
        assert_eq!(of(&disk("/dev/sda1", true), Naming { path: true, ..n }), "/dev/sda1");
        assert_eq!(of(&disk("/dev/sda1", true), Naming { guid: true, ..n }), "7");
        let mut lost = disk("/dev/sda1", true);
        lost.not_present = true;
        assert_eq!(of(&lost, n), "7");
        let z = VdevNode { nparity: Some(2), ..VdevNode::new("raidz", 3, 1) };
        assert_eq!(of(&z, n.numbered()), "raidz2-3");
        let mut d = VdevNode::new("draid", 0, 1);
        (d.nparity, d.draid_ndata, d.draid_nspares) = (Some(2), Some(4), Some(1));
        d.children = vec![disk("a", false); 9];
        assert_eq!(of(&d, n.numbered()), "draid2:4d:9c:1s-0");
        assert_eq!(of(&VdevNode::new("root", 0, 1), n), "tank");
    }
}
