//! The configuration of vdevs as labels and the meta object set keep it (`vdev_tree` nvlists; include/sys/fs/zfs.h).

use crate::error::{Error, Result};
use zfs_phys::NvList;

/// Deepest tree accepted: root, top-level, spare, replacing and leaf need five.
const MAX_DEPTH: usize = 8;
/// Most vdevs accepted in one tree.
const MAX_VDEVS: usize = 65_536;

/// What a vdev is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VdevKind {
    /// The pool itself.
    Root,
    /// A disk or partition.
    Disk,
    /// An image file.
    File,
    /// All children hold the same.
    Mirror,
    /// A mirror for as long as a disk is being replaced.
    Replacing,
    /// A mirror of a disk and the hot spare that stands in for it.
    Spare,
    /// RAID-Z with that many parity columns.
    Raidz {
        /// Parity columns, 1 to 3.
        nparity: u64,
    },
    /// Distributed RAID.
    Draid {
        /// Parity columns of a group, 1 to 3.
        nparity: u64,
        /// Data columns of a group.
        ndata: u64,
        /// Distributed spares.
        nspares: u64,
        /// Groups of a slice.
        ngroups: u64,
        /// Children of one permutation (a failure group), when that is not all of them.
        nchildren: Option<u64>,
    },
    /// A distributed spare of a dRAID vdev.
    DraidSpare {
        /// Guid of the dRAID vdev.
        top_guid: u64,
        /// Which of its spares.
        spare_id: u64,
    },
    /// A removed vdev, whose contents were moved elsewhere.
    Indirect,
    /// A slot in the pool that nothing occupies.
    Hole,
    /// A vdev whose configuration is not known.
    Missing,
}

impl VdevKind {
    /// The type as stored.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Disk => "disk",
            Self::File => "file",
            Self::Mirror => "mirror",
            Self::Replacing => "replacing",
            Self::Spare => "spare",
            Self::Raidz { .. } => "raidz",
            Self::Draid { .. } => "draid",
            Self::DraidSpare { .. } => "dspare",
            Self::Indirect => "indirect",
            Self::Hole => "hole",
            Self::Missing => "missing",
        }
    }

    /// Whether it is something one opens.
    pub const fn is_leaf(&self) -> bool {
        matches!(self, Self::Disk | Self::File | Self::DraidSpare { .. } | Self::Hole | Self::Missing)
    }

    /// Whether it stands for storage of its own (`vdev_is_concrete`).
    pub const fn is_concrete(&self) -> bool {
        !matches!(self, Self::Indirect | Self::Hole | Self::Missing)
    }
}

/// One vdev and those below it.
#[derive(Debug, Clone, PartialEq)]
pub struct VdevConfig {
    /// What it is.
    pub kind: VdevKind,
    /// Place among its siblings; for top-level vdevs the number that DVAs use.
    pub id: u64,
    /// Unique number.
    pub guid: u64,
    /// Where it was last seen.
    pub path: Option<String>,
    /// Physical path.
    pub phys_path: Option<String>,
    /// Device id.
    pub devid: Option<String>,
    /// Whether the pool owns the whole disk and its partition table.
    pub whole_disk: bool,
    /// log2 of the sector size (top-level vdevs).
    pub ashift: u64,
    /// Allocatable bytes (top-level vdevs).
    pub asize: u64,
    /// Whether it is a separate intent log.
    pub is_log: bool,
    /// Class the vdev is reserved for: "log", "special" or "dedup".
    pub alloc_bias: Option<String>,
    /// Txg it was added in.
    pub create_txg: u64,
    /// Object of the metaslab array.
    pub metaslab_array: u64,
    /// log2 of the metaslab size.
    pub metaslab_shift: u64,
    /// Whether nothing new is placed on it.
    pub non_allocating: bool,
    /// Whether it is being removed.
    pub removing: bool,
    /// Object of the dirty time log.
    pub dtl: Option<u64>,
    /// Txgs of finished RAID-Z expansions, one for each added disk.
    pub raidz_expand_txgs: Vec<u64>,
    /// Whether a RAID-Z expansion is under way.
    pub raidz_expanding: bool,
    /// Object of the indirect mapping.
    pub indirect_object: Option<u64>,
    /// Object of the indirect births.
    pub indirect_births: Option<u64>,
    /// Vdev removed before this one.
    pub prev_indirect_vdev: Option<u64>,
    /// Taken offline by the administrator.
    pub offline: bool,
    /// Faulted.
    pub faulted: bool,
    /// Degraded.
    pub degraded: bool,
    /// Was unplugged.
    pub removed: bool,
    /// Was not there when the pool was last imported.
    pub not_present: bool,
    /// Why it was faulted: "external" or "err_exceeded".
    pub aux_state: Option<String>,
    /// Txg from which it is still being resilvered.
    pub resilver_txg: Option<u64>,
    /// Whether it is a hot spare in use.
    pub is_spare: bool,
    /// Object of the per-vdev ZAP (top-level).
    pub top_zap: Option<u64>,
    /// Object of the per-vdev ZAP (leaf).
    pub leaf_zap: Option<u64>,
    /// Object of the per-vdev ZAP (root).
    pub root_zap: Option<u64>,
    /// Everything as stored, without the children.
    pub raw: NvList,
    /// Vdevs below.
    pub children: Vec<VdevConfig>,
}

impl VdevConfig {
    /// Reads a `vdev_tree`. Fails on unknown types, nonsensical geometry, and trees too deep or too large.
    pub fn from_nvlist(nv: &NvList) -> Result<Self> {
        Self::parse(nv, 0, &mut 0)
    }

    /// A vdev of a kind with nothing known about it.
    pub fn empty(kind: VdevKind, id: u64) -> Self {
        Self {
            kind,
            id,
            guid: 0,
            path: None,
            phys_path: None,
            devid: None,
            whole_disk: false,
            ashift: 0,
            asize: 0,
            is_log: false,
            alloc_bias: None,
            create_txg: 0,
            metaslab_array: 0,
            metaslab_shift: 0,
            non_allocating: false,
            removing: false,
            dtl: None,
            raidz_expand_txgs: Vec::new(),
            raidz_expanding: false,
            indirect_object: None,
            indirect_births: None,
            prev_indirect_vdev: None,
            offline: false,
            faulted: false,
            degraded: false,
            removed: false,
            not_present: false,
            aux_state: None,
            resilver_txg: None,
            is_spare: false,
            top_zap: None,
            leaf_zap: None,
            root_zap: None,
            raw: NvList::new(),
            children: Vec::new(),
        }
    }

    fn parse(nv: &NvList, depth: usize, count: &mut usize) -> Result<Self> {
        *count += 1;
        if depth > MAX_DEPTH || *count > MAX_VDEVS {
            return Err(Error::corrupt("vdev tree is too large"));
        }
        let mut raw = nv.clone();
        raw.pairs.retain(|(name, _)| name != "children");
        let string = |name: &str| nv.str(name).map(str::to_owned);
        let flag = |name: &str| nv.u64(name).is_some_and(|v| v != 0);
        let number = |name: &str| nv.u64(name).unwrap_or(0);
        let children = nv.lists("children").iter().map(|c| Self::parse(c, depth + 1, count)).collect::<Result<_>>()?;
        Ok(Self {
            kind: parse_kind(nv)?,
            id: number("id"),
            guid: number("guid"),
            path: string("path"),
            phys_path: string("phys_path"),
            devid: string("devid"),
            whole_disk: nv.u64("whole_disk") == Some(1),
            ashift: number("ashift"),
            asize: number("asize"),
            is_log: flag("is_log"),
            alloc_bias: string("alloc_bias"),
            create_txg: number("create_txg"),
            metaslab_array: number("metaslab_array"),
            metaslab_shift: number("metaslab_shift"),
            non_allocating: flag("non_allocating"),
            removing: flag("removing"),
            dtl: nv.u64("DTL"),
            raidz_expand_txgs: nv.u64s("raidz_expand_txgs").map(<[u64]>::to_vec).unwrap_or_default(),
            raidz_expanding: nv.contains("raidz_expanding"),
            indirect_object: nv.u64("com.delphix:indirect_object"),
            indirect_births: nv.u64("com.delphix:indirect_births"),
            prev_indirect_vdev: nv.u64("com.delphix:prev_indirect_vdev"),
            offline: flag("offline"),
            faulted: flag("faulted"),
            degraded: flag("degraded"),
            removed: flag("removed"),
            not_present: flag("not_present"),
            aux_state: string("aux_state"),
            resilver_txg: nv.u64("resilver_txg"),
            is_spare: flag("is_spare"),
            top_zap: nv.u64("com.delphix:vdev_zap_top"),
            leaf_zap: nv.u64("com.delphix:vdev_zap_leaf"),
            root_zap: nv.u64("com.klarasystems:vdev_zap_root"),
            raw,
            children,
        })
    }

    /// The vdev of that guid in this tree.
    pub fn find(&self, guid: u64) -> Option<&VdevConfig> {
        if self.guid == guid { Some(self) } else { self.children.iter().find_map(|c| c.find(guid)) }
    }

    /// All leaves, left to right.
    pub fn leaves(&self) -> Vec<&VdevConfig> {
        if self.kind.is_leaf() { vec![self] } else { self.children.iter().flat_map(VdevConfig::leaves).collect() }
    }
}

fn parse_kind(nv: &NvList) -> Result<VdevKind> {
    let children = nv.lists("children").len() as u64;
    let need = |name: &'static str| {
        nv.u64(name).ok_or_else(|| Error::corrupt(format!("vdev configuration has no \"{name}\"")))
    };
    let kind = match nv.str("type") {
        Some("root") => VdevKind::Root,
        Some("disk") => VdevKind::Disk,
        Some("file") => VdevKind::File,
        Some("mirror") => VdevKind::Mirror,
        Some("replacing") => VdevKind::Replacing,
        Some("spare") => VdevKind::Spare,
        // Pools older than double parity do not store the number.
        Some("raidz") => VdevKind::Raidz { nparity: nv.u64("nparity").unwrap_or(1) },
        Some("draid") => VdevKind::Draid {
            nparity: need("nparity")?,
            ndata: need("draid_ndata")?,
            nspares: need("draid_nspares")?,
            ngroups: need("draid_ngroups")?,
            nchildren: nv.u64("draid_nchildren"),
        },
        Some("dspare") => VdevKind::DraidSpare {
            top_guid: nv.u64("top_guid").unwrap_or(0),
            // In a tree the number may only be in the name: draid<parity>-<top-level vdev>-<spare>.
            spare_id: nv.u64("spareid").or_else(|| nv.str("path")?.rsplit('-').next()?.parse().ok()).unwrap_or(0),
        },
        Some("indirect") => VdevKind::Indirect,
        Some("hole") => VdevKind::Hole,
        Some("missing") => VdevKind::Missing,
        Some(other) => return Err(Error::unsupported(format!("vdev type \"{other}\""))),
        None => return Err(Error::corrupt("vdev configuration has no type")),
    };
    let sane = match kind {
        VdevKind::Raidz { nparity } => (1..=3).contains(&nparity) && children > nparity && children <= 255,
        VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => children > 0,
        VdevKind::Draid { nparity, .. } => (1..=3).contains(&nparity) && children > nparity,
        _ => true,
    };
    if !sane {
        return Err(Error::corrupt(format!("vdev of type {} with {children} children", kind.type_name())));
    }
    Ok(kind)
}
