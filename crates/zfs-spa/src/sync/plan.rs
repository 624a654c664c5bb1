//! Thinking out vdevs that are to be made: guids, sizes, sector sizes and metaslabs, as configurations.
//!
//! Nothing is written here. Making a pool and adding to one share it; what differs is the number of the first top-level
//! vdev and the txg. Hot spares and cache devices are no part of the tree: the pool lists them, and their labels only
//! say what they are.

use crate::labels::{DeviceLabels, state};
use std::collections::HashMap;
use std::sync::Arc;
use zfs_env::{BlockDevice, Rng, SystemRng};
use zfs_phys::label::{SPA_MINDEVSIZE, VDEV_LABEL_END_SIZE, VDEV_LABEL_SIZE, VDEV_LABEL_START_SIZE};
use zfs_phys::{NvList, NvValue, label};
use zfs_zio::alloc::Class;
use zfs_zio::{Error, ErrorKind, Result, Vdev, VdevAux, VdevConfig, VdevTree};

/// Metaslabs a vdev should have: at least, and by default at most (`zfs_vdev_min_ms_count`, `default_ms_count`).
const METASLABS: (u64, u64) = (16, 200);
/// log2 of a metaslab's size: by default, at least, at most.
const MS_SHIFT: (u64, u64, u64) = (29, 24, 34);
/// Most metaslabs of a vdev (`zfs_vdev_ms_count_limit`).
const METASLABS_LIMIT: u64 = 1 << 17;
/// Bytes of each column of a dRAID group (`VDEV_DRAID_ROWHEIGHT`).
const ROW_HEIGHT: u64 = 16 << 20;
/// Most distributed spares.
const MAX_SPARES: u64 = 100;
/// Most devices of a RAID vdev.
const MAX_CHILDREN: usize = 255;

/// A vdev to be made.
pub enum NewVdev {
    /// A device by itself, or in another vdev.
    Leaf {
        /// Where it is.
        path: String,
        /// The device, open for writing.
        device: Arc<dyn BlockDevice>,
        /// It is a block device rather than a file.
        disk: bool,
    },
    /// A distributed spare of the pool, by its name: it stands in for devices of its dRAID, and is not made.
    DistributedSpare(String),
    /// Each of them holds everything.
    Mirror(Vec<NewVdev>),
    /// With one to three parities.
    Raidz {
        /// Devices that may be lost.
        nparity: u64,
        /// Members.
        children: Vec<NewVdev>,
    },
    /// Groups of data and parity dealt over all members.
    Draid {
        /// Parity columns of a group.
        nparity: u64,
        /// Data columns of a group.
        ndata: u64,
        /// Distributed spares.
        nspares: u64,
        /// Members.
        children: Vec<NewVdev>,
    },
}

/// Hot spares and cache devices to be made, in that order: each is a leaf.
#[derive(Default)]
pub struct Auxiliaries {
    /// Hot spares.
    pub spares: Vec<NewVdev>,
    /// Cache devices.
    pub caches: Vec<NewVdev>,
}

/// Vdevs thought out.
pub(super) struct Planned {
    /// Top-level vdevs, numbered.
    pub(super) tops: Vec<NvList>,
    /// Hot spares, distributed ones too, as the pool lists them.
    pub(super) spares: Vec<NvList>,
    /// Cache devices as the pool lists them.
    pub(super) caches: Vec<NvList>,
    /// Devices by guid.
    pub(super) devices: HashMap<u64, Arc<dyn BlockDevice>>,
}

/// A device that is to join a vdev.
pub(super) struct Joining {
    /// Its configuration.
    pub(super) list: NvList,
    /// Allocatable bytes.
    pub(super) asize: u64,
    /// log2 of the smallest sector it can be used with.
    pub(super) sector: u64,
    /// The device by guid.
    pub(super) devices: HashMap<u64, Arc<dyn BlockDevice>>,
}

/// What vdevs are thought out with.
pub(super) struct Planner<'a> {
    pub(super) rng: &'a SystemRng,
    /// log2 of the sector size, instead of what devices say.
    pub(super) ashift: Option<u64>,
    /// Use devices although they carry labels of another pool.
    pub(super) force: bool,
    /// Number of the first top-level vdev.
    pub(super) first: u64,
    /// Txg in which they are made.
    pub(super) txg: u64,
    pub(super) devices: HashMap<u64, Arc<dyn BlockDevice>>,
}

impl Planner<'_> {
    pub(super) fn plan(mut self, vdevs: &[(Class, NewVdev)], auxiliaries: &Auxiliaries) -> Result<Planned> {
        let mut tops = Vec::new();
        for ((class, vdev), id) in vdevs.iter().zip(self.first..) {
            tops.push(self.top(id, *class, vdev)?);
        }
        let mut spares = Vec::new();
        for vdev in &auxiliaries.spares {
            spares.push(self.auxiliary(vdev, true)?);
        }
        for top in &tops {
            distributed_spares(top, self.rng, &mut spares);
        }
        let mut caches = Vec::new();
        for vdev in &auxiliaries.caches {
            caches.push(self.auxiliary(vdev, false)?);
        }
        Ok(Planned { tops, spares, caches, devices: self.devices })
    }

    /// One device that joins a vdev.
    pub(super) fn single(mut self, vdev: &NewVdev) -> Result<Joining> {
        let mut ashift = 9;
        let (list, asize) = self.leaf(vdev, &mut ashift)?;
        let sector = self.ashift.unwrap_or(9).max(ashift_floor(vdev));
        Ok(Joining { list: numbered(&list, 0), asize, sector, devices: self.devices })
    }

    fn top(&mut self, id: u64, class: Class, vdev: &NewVdev) -> Result<NvList> {
        let mut ashift = 9;
        let (mut nv, asize) = self.vdev(id, vdev, &mut ashift)?;
        let ashift = self.ashift.unwrap_or(ashift).max(ashift_floor(vdev));
        if !(9..=16).contains(&ashift) {
            return Err(Error::invalid(format!("making a vdev with an ashift of {ashift}")));
        }
        let children = nv.remove("children");
        nv.put("metaslab_array", 0u64).put("metaslab_shift", metaslab_shift(asize)).put("ashift", ashift);
        nv.put("asize", asize).put("is_log", u64::from(class == Class::Log));
        match class {
            Class::Log => drop(nv.put("alloc_bias", "log")),
            Class::Special => drop(nv.put("alloc_bias", "special")),
            Class::Dedup => drop(nv.put("alloc_bias", "dedup")),
            Class::Normal | Class::EmbeddedLog => {}
        }
        nv.put("create_txg", self.txg);
        if let Some(children) = children {
            nv.set("children", children);
        }
        Ok(nv)
    }

    /// A device and its allocatable bytes.
    fn leaf(&mut self, vdev: &NewVdev, ashift: &mut u64) -> Result<(NvList, u64)> {
        let NewVdev::Leaf { path, device, disk } = vdev else {
            return Err(Error::invalid("making a vdev of vdevs that are not devices"));
        };
        self.check_free(path, &**device)?;
        *ashift = (*ashift).max(u64::from(device.sector_shifts().1));
        let size = device.size() - device.size() % VDEV_LABEL_SIZE;
        if size < SPA_MINDEVSIZE {
            return Err(Error::new(ErrorKind::Range, format!("{path} is too small")));
        }
        let guid = self.rng.guid();
        self.devices.insert(guid, device.clone());
        let mut nv = NvList::new();
        nv.put("type", if *disk { "disk" } else { "file" }).put("guid", guid).put("path", path.as_str());
        if *disk {
            nv.put("whole_disk", 0u64);
        }
        Ok((nv, size - VDEV_LABEL_START_SIZE - VDEV_LABEL_END_SIZE))
    }

    fn auxiliary(&mut self, vdev: &NewVdev, spare: bool) -> Result<NvList> {
        let mut ashift = 9;
        let (mut nv, _) = self.leaf(vdev, &mut ashift)?;
        if spare {
            nv.put("is_spare", 1u64);
        }
        nv.put("ashift", self.ashift.unwrap_or(ashift).max(ashift_floor(vdev)));
        Ok(nv)
    }

    /// A vdev and its allocatable bytes.
    fn vdev(&mut self, id: u64, vdev: &NewVdev, ashift: &mut u64) -> Result<(NvList, u64)> {
        let (kind, children) = match vdev {
            NewVdev::Leaf { .. } | NewVdev::DistributedSpare(_) => {
                let (nv, asize) = self.leaf(vdev, ashift)?;
                return Ok((numbered(&nv, id), asize));
            }
            NewVdev::Mirror(children) => ("mirror", children),
            NewVdev::Raidz { children, .. } => ("raidz", children),
            NewVdev::Draid { children, .. } => ("draid", children),
        };
        let (mut lists, mut least) = (Vec::new(), u64::MAX);
        for (child, id) in children.iter().zip(0..) {
            let (list, asize) = self.leaf(child, ashift)?;
            let mut list = numbered(&list, id);
            list.put("create_txg", self.txg);
            least = least.min(asize);
            lists.push(list);
        }
        let mut nv = NvList::new();
        nv.put("type", kind).put("id", id).put("guid", self.rng.guid());
        let asize = geometry(vdev, &mut nv, lists.len(), least)?;
        nv.set("children", NvValue::NvListArray(lists));
        Ok((nv, asize))
    }

    /// Refuses a device that belongs to a pool.
    fn check_free(&self, path: &str, device: &dyn BlockDevice) -> Result<()> {
        let labels = DeviceLabels::read(device);
        match labels.best() {
            Some(label) if !self.force && label.u64("state") != Some(state::DESTROYED) => {
                let pool = label.str("name").unwrap_or("?");
                Err(Error::new(ErrorKind::Busy, format!("making a pool: {path} is part of pool '{pool}'")))
            }
            _ => Ok(()),
        }
    }
}

/// The list of a leaf with its place among its siblings.
fn numbered(leaf: &NvList, id: u64) -> NvList {
    let mut nv = NvList::new();
    for (n, (name, value)) in leaf.pairs.iter().enumerate() {
        if n == 1 {
            nv.put("id", id);
        }
        nv.set(name.as_str(), value.clone());
    }
    nv
}

/// Writes the geometry of a vdev of `count` devices of at least `least` bytes. Gives its allocatable bytes.
fn geometry(vdev: &NewVdev, nv: &mut NvList, count: usize, least: u64) -> Result<u64> {
    let width = count as u64;
    match vdev {
        NewVdev::Leaf { .. } => Ok(least),
        NewVdev::Mirror(_) if count >= 2 => Ok(least),
        NewVdev::Raidz { nparity, .. }
            if (1..=3).contains(nparity) && width > *nparity && (2..=MAX_CHILDREN).contains(&count) =>
        {
            nv.put("nparity", *nparity);
            Ok(least.saturating_mul(width))
        }
        NewVdev::Draid { nparity, ndata, nspares, .. }
            if (1..=3).contains(nparity)
                && *ndata > 0
                && *nspares <= MAX_SPARES
                && count <= MAX_CHILDREN
                && ndata.saturating_add(nparity + nspares) <= width =>
        {
            let (group, disks) = (ndata + nparity, width - nspares);
            let ngroups = draid_groups(group, disks);
            nv.put("nparity", *nparity).put("draid_ndata", *ndata).put("draid_nspares", *nspares);
            nv.put("draid_ngroups", ngroups);
            let rows = least.saturating_sub(2 * ROW_HEIGHT) / ROW_HEIGHT * ROW_HEIGHT;
            let group_size = group * ROW_HEIGHT;
            Ok(rows.saturating_mul(disks) / group_size * group_size)
        }
        _ => Err(Error::invalid(format!("making a {} of {count} devices", nv.str("type").unwrap_or("vdev")))),
    }
}

/// Groups that fill whole rows over `disks` disks.
fn draid_groups(group: u64, disks: u64) -> u64 {
    (1..=disks).find(|n| (n * group).is_multiple_of(disks)).unwrap_or(disks)
}

/// Lists the distributed spares of a dRAID vdev.
fn distributed_spares(top: &NvList, rng: &SystemRng, out: &mut Vec<NvList>) {
    let number = |name: &str| top.u64(name).unwrap_or(0);
    for spare in 0..number("draid_nspares") {
        let mut nv = NvList::new();
        nv.put("type", "dspare").put("guid", rng.guid());
        nv.put("path", format!("draid{}-{}-{spare}", number("nparity"), number("id")).as_str());
        nv.put("top_guid", number("guid")).put("spareid", spare).put("whole_disk", 1u64).put("is_spare", 1u64);
        nv.put("ashift", number("ashift"));
        out.push(nv);
    }
}

/// log2 of the largest sector that devices of a vdev can only write.
fn ashift_floor(vdev: &NewVdev) -> u64 {
    match vdev {
        NewVdev::Leaf { device, .. } => u64::from(device.sector_shifts().0),
        NewVdev::DistributedSpare(_) => 9,
        NewVdev::Mirror(children) | NewVdev::Raidz { children, .. } | NewVdev::Draid { children, .. } => {
            children.iter().map(ashift_floor).max().unwrap_or(9)
        }
    }
}

/// log2 of the metaslab size of a vdev (`vdev_metaslab_set_size`).
fn metaslab_shift(asize: u64) -> u64 {
    let bits = |n: u64| u64::from(u64::BITS - n.leading_zeros());
    let (usual, least, most) = MS_SHIFT;
    let count = asize >> usual;
    let shift = match count {
        n if n < METASLABS.0 => bits(asize / METASLABS.0),
        n if n > METASLABS.1 => bits(asize / METASLABS.1),
        _ => usual,
    };
    if shift <= most {
        return shift.max(least);
    }
    if asize >> most > METASLABS_LIMIT { bits(asize / METASLABS_LIMIT) } else { most }
}

/// Writes labels on hot spares (`spare`) or cache devices: they only say what the device is.
pub(super) fn label_auxiliaries(
    lists: &[NvList],
    devices: &HashMap<u64, Arc<dyn BlockDevice>>,
    spare: bool,
) -> Result<()> {
    for list in lists {
        let Some(device) = list.u64("guid").and_then(|g| devices.get(&g)) else { continue };
        let state = if spare { state::SPARE } else { state::L2CACHE };
        let mut nv = NvList::new();
        nv.put("version", super::SOFTWARE_VERSION).put("state", state).put("guid", list.u64("guid").unwrap_or(0));
        if !spare {
            nv.put("ashift", list.u64("ashift").unwrap_or(9));
            // What an earlier cache left must not be taken for contents.
            device.write_at(VDEV_LABEL_START_SIZE, &[0; 1 << 16]).map_err(Error::from)?;
        }
        nv.put("path", list.str("path").unwrap_or(""));
        with_leaf(list, device, &mut |leaf| leaf.init_labels(&label::encode_config(&nv)?, None))?;
        device.flush().map_err(Error::from)?;
    }
    Ok(())
}

/// Empties the labels of all devices of vdevs that are to join a pool, before anything of the pool changes.
pub(super) fn init_labels(lists: &[NvList], devices: &HashMap<u64, Arc<dyn BlockDevice>>) -> Result<()> {
    for list in lists {
        if let Some(device) = list.u64("guid").and_then(|g| devices.get(&g)) {
            let empty = vec![0; label::VDEV_PHYS_SIZE as usize];
            with_leaf(list, device, &mut |leaf| leaf.init_labels(&empty, None))?;
            device.flush().map_err(Error::from)?;
        }
        init_labels(list.lists("children"), devices)?;
    }
    Ok(())
}

/// Runs `act` on a device that is in no tree as if it were a leaf.
pub(super) fn with_leaf(
    list: &NvList,
    device: &Arc<dyn BlockDevice>,
    act: &mut dyn FnMut(&Vdev) -> Result<()>,
) -> Result<()> {
    let mut leaf = numbered(list, 0);
    leaf.put("id", 0u64);
    leaf.put("ashift", list.u64("ashift").unwrap_or(9));
    let mut root = NvList::new();
    root.put("type", "root").put("id", 0u64).put("guid", 0u64);
    root.set("children", NvValue::NvListArray(vec![leaf]));
    let mut open = |_: &VdevConfig| Ok::<_, VdevAux>(device.clone());
    let tree = VdevTree::build(VdevConfig::from_nvlist(&root)?, &mut open)?;
    tree.leaves().into_iter().try_for_each(act)
}

#[cfg(test)]
mod tests {
    use super::{draid_groups, metaslab_shift};

    #[test]
    fn metaslabs_are_as_large_as_those_of_openzfs() {
        // Seen in pools that OpenZFS made.
        for (asize, shift) in [(196_608_000, 24), (287_834_112, 25), (100 << 30, 29), (1 << 40, 33), (1 << 45, 34)] {
            assert_eq!(metaslab_shift(asize), shift, "{asize}");
        }
    }

    #[test]
    fn groups_of_draid_fill_rows() {
        // Seen in pools that OpenZFS made.
        assert_eq!(draid_groups(6, 8), 4);
        assert_eq!(draid_groups(5, 5), 1);
    }
}
