//! Making a pool: what its first txg holds.
//!
//! The vdevs get guids, sizes and labels; the first txg (number 4, as OpenZFS has it) holds the meta object set with
//! everything that a pool never lacks: tables of features, the tree of datasets, tables and metaslab arrays of
//! the vdevs, the list of deferred frees, the salt, the history, the configuration. A second txg marks the pool
//! exported; whoever wants to use it imports it, by the same way as any other pool.
//!
//! Nothing counts before the first uberblock is written: a crash leaves devices without a pool.

use super::config::PoolConfig;
use super::{Metaslabs, Opened, Ops, Spa, ops};
use crate::config::POOL_DIRECTORY;
use crate::dslw::{DslPool, NewObjset, PoolOps};
use crate::features::Features;
use crate::labels::{DeviceLabels, state};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, ErrorKind, ObjectSpec, Objset, Result, Zap};
use zfs_env::{BlockDevice, Clock, Rng, SystemClock, SystemRng, TaskPool, host};
use zfs_phys::blkptr::BlkPtr;
use zfs_phys::bpobj::BPOBJ_SIZE_V2;
use zfs_phys::enums::{CompressKind, DmuObjectType as Ot, ObjsetType};
use zfs_phys::feature::{ACTIVATE_ON_ENABLE, FEATURES, Feature};
use zfs_phys::label::{SPA_MINDEVSIZE, VDEV_LABEL_END_SIZE, VDEV_LABEL_SIZE, VDEV_LABEL_START_SIZE, VDEV_PHYS_SIZE};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{Endian, NvList, NvValue};
use zfs_zio::alloc::Class;
use zfs_zio::arc::ArcCache;
use zfs_zio::write::WriteConfig;
use zfs_zio::{VdevAux, VdevConfig, VdevTree, Zio};

/// Number of the first txg.
const TXG_INITIAL: u64 = 4;
/// On-disk version of pools with features.
const VERSION: u64 = 5000;
/// Metaslabs a vdev should have: at least, and by default at most (`zfs_vdev_min_ms_count`, `default_ms_count`).
const METASLABS: (u64, u64) = (16, 200);
/// log2 of a metaslab's size: by default, at least, at most.
const MS_SHIFT: (u64, u64, u64) = (29, 24, 34);
/// Most metaslabs of a vdev (`zfs_vdev_ms_count_limit`).
const METASLABS_LIMIT: u64 = 1 << 17;
/// Block size of the list of deferred frees.
const DEFERRED_BLOCK: u32 = 1 << 14;
/// A table that is metadata (`DMU_OTN_ZAP_METADATA`).
const ZAP_METADATA: Ot = Ot(0xc4);
/// Newer than what pools get that nobody asked for more: older OpenZFS should be able to write them.
const NOT_BY_DEFAULT: [Feature; 4] =
    [Feature::DynamicGangHeader, Feature::BlockCloningEndian, Feature::PhysicalRewrite, Feature::DraidFailureDomains];

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
    /// Each of them holds everything.
    Mirror(Vec<NewVdev>),
    /// With one to three parities.
    Raidz {
        /// Devices that may be lost.
        nparity: u64,
        /// Members.
        children: Vec<NewVdev>,
    },
}

/// How to make a pool.
pub struct CreateOptions {
    /// Name.
    pub name: String,
    /// Top-level vdevs, with what they are for.
    pub vdevs: Vec<(Class, NewVdev)>,
    /// log2 of the sector size, instead of what devices say.
    pub ashift: Option<u64>,
    /// Features to enable; nothing for all that are usual.
    pub features: Option<Vec<Feature>>,
    /// Use devices although they carry labels of another pool (`-f`).
    pub force: bool,
    /// This host's number.
    pub hostid: u32,
    /// The command, for the history.
    pub command: Option<String>,
    /// The cache blocks go through.
    pub arc: Arc<ArcCache>,
    /// Threads.
    pub tasks: Option<Arc<TaskPool>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl CreateOptions {
    /// A pool of that name on these vdevs, with defaults for the rest.
    pub fn new(name: &str, vdevs: Vec<(Class, NewVdev)>, arc: Arc<ArcCache>) -> Self {
        Self {
            name: name.to_owned(),
            vdevs,
            ashift: None,
            features: None,
            force: false,
            hostid: host::hostid(),
            command: None,
            arc,
            tasks: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The features that a pool gets when nobody says which.
pub fn usual_features() -> Vec<Feature> {
    FEATURES.iter().map(|f| f.feature).filter(|f| !NOT_BY_DEFAULT.contains(f)).collect()
}

/// Makes a pool, and leaves it exported. `init` fills the pool's own file system.
///
/// # Errors
/// `Invalid` for vdevs that make no pool, `Busy` for devices that another pool has, whatever writing meets.
pub fn create(options: &CreateOptions, init: &mut dyn FnMut(&Arc<Objset>, &Tx) -> Result<()>) -> Result<()> {
    let rng = SystemRng::new().map_err(Error::from)?;
    let mut plan = Plan { devices: HashMap::new(), rng: &rng, options };
    let tree = plan.tree()?;
    let devices = plan.devices;
    let config = VdevConfig::from_nvlist(&tree)?;
    let mut open = |leaf: &VdevConfig| devices.get(&leaf.guid).cloned().ok_or(VdevAux::OpenFailed);
    let vdevs = VdevTree::build(config, &mut open)?;
    vdevs.check_readable()?;
    let zio = Zio::new(&options.name, vdevs, options.arc.clone(), options.tasks.clone());
    let empty = vec![0; VDEV_PHYS_SIZE as usize];
    zio.vdevs().leaves().into_iter().try_for_each(|leaf| leaf.init_labels(&empty, None))?;
    let spa = first_objects(options, &zio, tree, &rng, init)?;
    spa.sync_txg(TXG_INITIAL)?;
    spa.config.lock().state = state::EXPORTED;
    spa.dirty_config();
    spa.sync_txg(TXG_INITIAL + 1)
}

/// The vdev tree while it is thought out.
struct Plan<'a> {
    devices: HashMap<u64, Arc<dyn BlockDevice>>,
    rng: &'a SystemRng,
    options: &'a CreateOptions,
}

impl Plan<'_> {
    fn tree(&mut self) -> Result<NvList> {
        let options = self.options;
        if !options.vdevs.iter().any(|(class, _)| *class == Class::Normal) {
            return Err(Error::invalid("making a pool without a device for data"));
        }
        let mut tops = Vec::new();
        for ((class, vdev), id) in options.vdevs.iter().zip(0..) {
            tops.push(self.top(id, *class, vdev)?);
        }
        let mut root = NvList::new();
        root.put("type", "root").put("id", 0u64).put("guid", self.rng.guid()).put("create_txg", TXG_INITIAL);
        root.set("children", NvValue::NvListArray(tops));
        Ok(root)
    }

    fn top(&mut self, id: u64, class: Class, vdev: &NewVdev) -> Result<NvList> {
        let mut ashift = 9;
        let (mut nv, asize) = self.vdev(id, vdev, &mut ashift)?;
        let ashift = self.options.ashift.unwrap_or(ashift).max(ashift_floor(vdev));
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
        nv.put("create_txg", TXG_INITIAL);
        if let Some(children) = children {
            nv.set("children", children);
        }
        Ok(nv)
    }

    /// A vdev and its allocatable bytes.
    fn vdev(&mut self, id: u64, vdev: &NewVdev, ashift: &mut u64) -> Result<(NvList, u64)> {
        let guid = self.rng.guid();
        let mut nv = NvList::new();
        let (kind, nparity, children) = match vdev {
            NewVdev::Leaf { path, device, disk } => {
                self.check_free(path, &**device)?;
                *ashift = (*ashift).max(u64::from(device.sector_shifts().1));
                let size = device.size() - device.size() % VDEV_LABEL_SIZE;
                if size < SPA_MINDEVSIZE {
                    return Err(Error::invalid(format!("making a pool: {path} is too small")));
                }
                self.devices.insert(guid, device.clone());
                nv.put("type", if *disk { "disk" } else { "file" }).put("id", id).put("guid", guid);
                nv.put("path", path.as_str());
                if *disk {
                    nv.put("whole_disk", 0u64);
                }
                return Ok((nv, size - VDEV_LABEL_START_SIZE - VDEV_LABEL_END_SIZE));
            }
            NewVdev::Mirror(children) => ("mirror", None, children),
            NewVdev::Raidz { nparity, children } => ("raidz", Some(*nparity), children),
        };
        let fits = nparity.is_none_or(|p| (1..=3).contains(&p) && children.len() as u64 > p && children.len() <= 255);
        if !fits || children.len() < 2 {
            return Err(Error::invalid(format!("making a {kind} of {} devices", children.len())));
        }
        let (mut lists, mut least) = (Vec::new(), u64::MAX);
        for (child, id) in children.iter().zip(0..) {
            let (mut list, asize) = self.vdev(id, child, ashift)?;
            if list.contains("children") {
                return Err(Error::invalid("making a vdev of vdevs that are not devices"));
            }
            list.put("create_txg", TXG_INITIAL);
            least = least.min(asize);
            lists.push(list);
        }
        let asize = if nparity.is_some() { least.saturating_mul(lists.len() as u64) } else { least };
        nv.put("type", kind).put("id", id).put("guid", guid);
        if let Some(nparity) = nparity {
            nv.put("nparity", nparity);
        }
        nv.set("children", NvValue::NvListArray(lists));
        Ok((nv, asize))
    }

    /// Refuses a device that belongs to a pool.
    fn check_free(&self, path: &str, device: &dyn BlockDevice) -> Result<()> {
        let labels = DeviceLabels::read(device);
        match labels.best() {
            Some(label) if !self.options.force && label.u64("state") != Some(state::DESTROYED) => {
                let pool = label.str("name").unwrap_or("?");
                Err(Error::new(ErrorKind::Busy, format!("making a pool: {path} is part of pool '{pool}'")))
            }
            _ => Ok(()),
        }
    }
}

/// log2 of the largest sector that devices of a vdev can only write.
fn ashift_floor(vdev: &NewVdev) -> u64 {
    match vdev {
        NewVdev::Leaf { device, .. } => u64::from(device.sector_shifts().0),
        NewVdev::Mirror(children) | NewVdev::Raidz { children, .. } => {
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

/// The meta object set of the first txg, in memory.
fn first_objects(
    options: &CreateOptions,
    zio: &Arc<Zio>,
    tree: NvList,
    rng: &SystemRng,
    init: &mut dyn FnMut(&Arc<Objset>, &Tx) -> Result<()>,
) -> Result<Arc<Spa>> {
    let tx = Tx::syncing(TXG_INITIAL);
    let metaslabs = Metaslabs::new();
    let classes = options.vdevs.iter().zip(0..);
    let seeds = classes.map(|((class, _), id)| metaslabs.add_top(zio, id, *class)).collect::<Result<Vec<_>>>()?;
    let has_special = options.vdevs.iter().any(|(c, _)| *c == Class::Special);
    let ops = Ops::new(zio, VERSION, &Features::default(), has_special, options.clock.clone())?;
    zio.enable_writes(seeds, metaslabs.loader(), WriteConfig::default())?;
    let mos = Objset::create(zio, 0, ObjsetType::Meta, Arc::new(ops::MosOwner(ops.clone())))?;
    ops.set_mos(&mos, 0);
    metaslabs.set_mos(&mos);
    let directory = Zap::claim(&mos, &tx, POOL_DIRECTORY, Ot::OBJECT_DIRECTORY)?;
    enable_features(&ops, &mos, &tx, &directory, options.features.as_deref())?;
    let root = NewObjset { kind: ObjsetType::Zfs, flags: 0, init };
    let dsl = DslPool::create_tree(&mos, ops.clone(), &tx, root)?;
    let tree = vdev_objects(&ops, &metaslabs, &mos, &tx, &tree, &directory)?;
    directory.add(&tx, b"creation_version", &[VERSION])?;
    directory.add(&tx, b"deflate", &[1])?;
    let deferred = deferred_list(&mos, &tx)?;
    directory.add(&tx, b"sync_bplist", &[deferred])?;
    ops.set_deferred_list(deferred);
    let mut salt = [0u8; 32];
    rng.fill(&mut salt);
    directory.add_ints(&tx, b"org.illumos:checksum_salt", 1, &salt)?;
    zio.set_checksum_salt(salt);
    ops.create_history(&tx, zio.space(Class::Normal).dspace)?;
    PoolOps::log(&*ops, &tx, "create", None, "pool version 5000; made by uzfs")?;
    if let Some(command) = &options.command {
        let mut record = NvList::new();
        record.put("history command", command.as_str()).put("history who", 0u64);
        ops.append_history(&tx, record)?;
    }
    let config = PoolConfig {
        name: options.name.clone(),
        guid: tree.u64("guid").unwrap_or(0),
        version: VERSION,
        state: state::ACTIVE,
        errata: 0,
        comment: None,
        compatibility: None,
        hostid: options.hostid,
        tree,
    };
    ops.config_dirty.store(true, Relaxed);
    Ok(Spa::assemble(zio, Opened { mos, ops, metaslabs }, dsl, config, before_the_first(), None))
}

/// What the uberblock of the first txg follows.
fn before_the_first() -> Uberblock {
    Uberblock {
        endian: Endian::NATIVE,
        version: VERSION,
        txg: TXG_INITIAL - 1,
        guid_sum: 0,
        timestamp: 0,
        rootbp: BlkPtr::default(),
        software_version: VERSION,
        mmp_magic: 0,
        mmp_delay: 0,
        mmp_config: 0,
        checkpoint_txg: 0,
        raidz_reflow_info: 0,
    }
}

/// Makes the tables of features and enables those that are asked for.
fn enable_features(ops: &Ops, mos: &Arc<Objset>, tx: &Tx, directory: &Zap, asked: Option<&[Feature]>) -> Result<()> {
    for name in ["features_for_read", "features_for_write", "feature_descriptions"] {
        let object = Zap::create(mos, tx, ZAP_METADATA, 0)?;
        directory.add(tx, name.as_bytes(), &[object])?;
    }
    let wanted = |f: Feature| match asked {
        Some(list) => list.contains(&f),
        None => !NOT_BY_DEFAULT.contains(&f),
    };
    let mut times = None;
    for info in FEATURES.iter().filter(|f| wanted(f.feature)) {
        let always = info.flags & ACTIVATE_ON_ENABLE != 0 || info.feature == Feature::EnabledTxg;
        ops.enable(tx, info.feature, u64::from(always))?;
        if info.feature == Feature::EnabledTxg {
            let object = Zap::create(mos, tx, ZAP_METADATA, 0)?;
            directory.add(tx, b"feature_enabled_txg", &[object])?;
            times = Some(Zap::open(mos, object)?);
        }
        if let Some(times) = &times {
            times.add(tx, info.guid.as_bytes(), &[tx.txg()])?;
        }
    }
    Ok(())
}

/// Makes tables and metaslab arrays of all vdevs. Gives the tree with their numbers.
fn vdev_objects(
    ops: &Ops,
    metaslabs: &Metaslabs,
    mos: &Arc<Objset>,
    tx: &Tx,
    tree: &NvList,
    directory: &Zap,
) -> Result<NvList> {
    let all = Zap::create(mos, tx, ZAP_METADATA, 0)?;
    directory.add(tx, b"com.delphix:vdev_zap_map", &[all])?;
    let all = Zap::open(mos, all)?;
    let table = || -> Result<u64> {
        let object = Zap::create(mos, tx, ZAP_METADATA, 0)?;
        all.add(tx, format!("{object:x}").as_bytes(), &[object])?;
        Ok(object)
    };
    let mut root = tree.clone();
    if ops.is_enabled(Feature::VdevZapsV2) {
        root.put("com.klarasystems:vdev_zap_root", table()?);
        ops.count(tx, Feature::VdevZapsV2, 1)?;
    }
    let mut tops = Vec::new();
    for (top, id) in tree.lists("children").iter().zip(0..) {
        let mut top = with_leaf_tables(top, &table)?;
        let zap = table()?;
        top.put("com.delphix:vdev_zap_top", zap);
        if let Some(bias) = top.str("alloc_bias") {
            let text = [bias.as_bytes(), &[0]].concat();
            Zap::open(mos, zap)?.add_ints(tx, b"org.zfsonlinux:allocation_bias", 1, &text)?;
            if bias != "log" {
                ops.count(tx, Feature::AllocationClasses, 1)?;
            }
        }
        // Only the vdev's table says it.
        top.remove("alloc_bias");
        let spec = ObjectSpec { object_type: Ot::OBJECT_ARRAY, ..ObjectSpec::default() };
        let array = mos.allocate(tx, &spec)?.object();
        top.put("metaslab_array", array);
        metaslabs.set_objects(id, array, zap);
        tops.push(top);
    }
    root.set("children", NvValue::NvListArray(tops));
    Ok(root)
}

fn with_leaf_tables(tree: &NvList, table: &dyn Fn() -> Result<u64>) -> Result<NvList> {
    let mut out = tree.clone();
    if tree.contains("children") {
        let children = tree.lists("children").iter().map(|c| with_leaf_tables(c, table)).collect::<Result<_>>()?;
        out.set("children", NvValue::NvListArray(children));
    } else {
        out.put("com.delphix:vdev_zap_leaf", table()?);
    }
    Ok(out)
}

/// Makes the list of frees that wait for the next txg: not compressed, so that its size settles soon.
fn deferred_list(mos: &Arc<Objset>, tx: &Tx) -> Result<u64> {
    let spec = ObjectSpec {
        object_type: Ot::BPOBJ,
        block_size: DEFERRED_BLOCK,
        bonus_type: Ot::BPOBJ_HDR,
        bonus_len: BPOBJ_SIZE_V2,
        ..ObjectSpec::default()
    };
    let dnode = mos.allocate(tx, &spec)?;
    dnode.set_compress(tx, CompressKind::Off as u8)?;
    Ok(dnode.object())
}

#[cfg(test)]
mod tests {
    use super::metaslab_shift;

    #[test]
    fn metaslabs_are_as_large_as_those_of_openzfs() {
        // Seen in pools that OpenZFS made.
        for (asize, shift) in [(196_608_000, 24), (287_834_112, 25), (100 << 30, 29), (1 << 40, 33), (1 << 45, 34)] {
            assert_eq!(metaslab_shift(asize), shift, "{asize}");
        }
    }
}
