//! Making a pool: what its first txg holds.
//!
//! The vdevs get guids, sizes and labels; the first txg (number 4, as OpenZFS has it) holds the meta object set with
//! everything that a pool never lacks: tables of features, the tree of datasets, tables and metaslab arrays of
//! the vdevs, the list of deferred frees, the salt, the history, the configuration. A second txg marks the pool
//! exported; whoever wants to use it imports it, by the same way as any other pool.
//!
//! Nothing counts before the first uberblock is written: a crash leaves devices without a pool.

use super::config::PoolConfig;
pub use super::plan::{Auxiliaries, NewVdev};
use super::plan::{Planner, label_auxiliaries};
use super::props::PoolValue;
use super::{Metaslabs, Opened, Ops, Spa, ops};
use crate::config::POOL_DIRECTORY;
use crate::dslw::{DslPool, NewObjset, PoolOps};
use crate::features::Features;
use crate::labels::state;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Error, ObjectSpec, Objset, Result, Zap};
use zfs_env::{Clock, Rng, SystemClock, SystemRng, TaskPool, host};
use zfs_phys::blkptr::BlkPtr;
use zfs_phys::bpobj::BPOBJ_SIZE_V2;
use zfs_phys::enums::{CompressKind, DmuObjectType as Ot, ObjsetType};
use zfs_phys::feature::{ACTIVATE_ON_ENABLE, FEATURES, Feature};
use zfs_phys::label::VDEV_PHYS_SIZE;
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{Endian, NvList, NvValue};
use zfs_zio::alloc::Class;
use zfs_zio::arc::ArcCache;
use zfs_zio::write::WriteConfig;
use zfs_zio::{VdevAux, VdevConfig, VdevTree, Zio};

/// Number of the first txg.
const TXG_INITIAL: u64 = 4;
/// On-disk version of pools with features.
pub(super) const VERSION: u64 = 5000;
/// Block size of the list of deferred frees.
const DEFERRED_BLOCK: u32 = 1 << 14;
/// A table that is metadata (`DMU_OTN_ZAP_METADATA`).
pub(super) const ZAP_METADATA: Ot = Ot(0xc4);
/// Entry of the pool directory that lists the tables of all vdevs.
pub(super) const VDEV_ZAPS: &[u8] = b"com.delphix:vdev_zap_map";
/// Newer than what pools get that nobody asked for more: older OpenZFS should be able to write them.
const NOT_BY_DEFAULT: [Feature; 4] =
    [Feature::DynamicGangHeader, Feature::BlockCloningEndian, Feature::PhysicalRewrite, Feature::DraidFailureDomains];

/// How to make a pool.
pub struct CreateOptions {
    /// Name.
    pub name: String,
    /// Top-level vdevs, with what they are for.
    pub vdevs: Vec<(Class, NewVdev)>,
    /// Hot spares and cache devices.
    pub auxiliaries: Auxiliaries,
    /// Properties of the pool.
    pub properties: Vec<(String, PoolValue)>,
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
            auxiliaries: Auxiliaries::default(),
            properties: Vec::new(),
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
    if !options.vdevs.iter().any(|(class, _)| *class == Class::Normal) {
        return Err(Error::invalid("making a pool without a device for data"));
    }
    let planner = Planner {
        rng: &rng,
        ashift: options.ashift.filter(|a| *a != 0),
        force: options.force,
        first: 0,
        txg: TXG_INITIAL,
        devices: HashMap::new(),
    };
    let planned = planner.plan(&options.vdevs, &options.auxiliaries)?;
    let mut tree = NvList::new();
    tree.put("type", "root").put("id", 0u64).put("guid", rng.guid()).put("create_txg", TXG_INITIAL);
    tree.set("children", NvValue::NvListArray(planned.tops));
    let devices = planned.devices;
    let config = VdevConfig::from_nvlist(&tree)?;
    let mut open = |leaf: &VdevConfig| devices.get(&leaf.guid).cloned().ok_or(VdevAux::OpenFailed);
    let vdevs = VdevTree::build(config, &mut open)?;
    vdevs.check_readable()?;
    let zio = Zio::new(&options.name, vdevs, options.arc.clone(), options.tasks.clone());
    let empty = vec![0; VDEV_PHYS_SIZE as usize];
    zio.vdevs().leaves().into_iter().try_for_each(|leaf| leaf.init_labels(&empty, None))?;
    label_auxiliaries(&planned.spares, &devices, true)?;
    label_auxiliaries(&planned.caches, &devices, false)?;
    let spa = first_objects(options, &zio, tree, &rng, init)?;
    let tx = Tx::syncing(TXG_INITIAL);
    spa.set_auxiliaries(&tx, "spares", &planned.spares)?;
    spa.set_auxiliaries(&tx, "l2cache", &planned.caches)?;
    options.properties.iter().try_for_each(|(name, value)| spa.set_property(&tx, name, value))?;
    spa.sync_txg(TXG_INITIAL)?;
    spa.config.lock().state = state::EXPORTED;
    spa.dirty_config();
    spa.sync_txg(TXG_INITIAL + 1)
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
    let ops = Ops::new(zio, &Features::default(), options.clock.clone())?;
    zio.enable_writes(seeds, metaslabs.loader(), WriteConfig { hole_birth: false, ..WriteConfig::default() })?;
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
    PoolOps::log(&*ops, &tx, "create", None, &super::history::versions(VERSION))?;
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
        tables: true,
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

/// Adds the features that others depend on.
pub fn with_dependencies(features: &mut Vec<Feature>) {
    let mut next = 0;
    while let Some(feature) = features.get(next).copied() {
        let missing: Vec<Feature> = feature.info().depends.iter().copied().filter(|f| !features.contains(f)).collect();
        features.extend(missing);
        next += 1;
    }
}

/// Makes the tables of features.
pub(super) fn feature_tables(mos: &Arc<Objset>, tx: &Tx, directory: &Zap) -> Result<()> {
    for name in ["features_for_read", "features_for_write", "feature_descriptions"] {
        let object = Zap::create(mos, tx, ZAP_METADATA, 0)?;
        directory.add(tx, name.as_bytes(), &[object])?;
    }
    Ok(())
}

/// Makes the tables of features and enables those that are asked for.
fn enable_features(ops: &Ops, mos: &Arc<Objset>, tx: &Tx, directory: &Zap, asked: Option<&[Feature]>) -> Result<()> {
    feature_tables(mos, tx, directory)?;
    let wanted = |f: Feature| match asked {
        Some(list) => list.contains(&f),
        None => !NOT_BY_DEFAULT.contains(&f),
    };
    let mut wanted: Vec<Feature> = FEATURES.iter().map(|f| f.feature).filter(|f| wanted(*f)).collect();
    with_dependencies(&mut wanted);
    let mut times = None;
    for info in FEATURES.iter().filter(|f| wanted.contains(&f.feature)) {
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

/// Makes the table of tables, and tables and metaslab arrays of all vdevs. Gives the tree with their numbers.
fn vdev_objects(
    ops: &Ops,
    metaslabs: &Metaslabs,
    mos: &Arc<Objset>,
    tx: &Tx,
    tree: &NvList,
    directory: &Zap,
) -> Result<NvList> {
    let all = Zap::create(mos, tx, ZAP_METADATA, 0)?;
    directory.add(tx, VDEV_ZAPS, &[all])?;
    let mut root = tree.clone();
    if ops.is_enabled(Feature::VdevZapsV2) {
        root.put("com.klarasystems:vdev_zap_root", vdev_table(mos, tx, &Zap::open(mos, all)?)?);
        ops.count(tx, Feature::VdevZapsV2, 1)?;
    }
    root.set("children", NvValue::NvListArray(top_objects(ops, metaslabs, mos, tx, tree.lists("children"))?));
    Ok(root)
}

/// Makes a vdev's table and lists it.
pub(super) fn vdev_table(mos: &Arc<Objset>, tx: &Tx, all: &Zap) -> Result<u64> {
    let object = Zap::create(mos, tx, ZAP_METADATA, 0)?;
    all.add(tx, format!("{object:x}").as_bytes(), &[object])?;
    Ok(object)
}

/// Makes tables and metaslab arrays of new top-level vdevs. Gives them with the numbers of those.
pub(super) fn top_objects(
    ops: &Ops,
    metaslabs: &Metaslabs,
    mos: &Arc<Objset>,
    tx: &Tx,
    new: &[NvList],
) -> Result<Vec<NvList>> {
    let all = Zap::open(mos, POOL_DIRECTORY)?.lookup_u64(VDEV_ZAPS)?;
    let all = Zap::open(mos, all.ok_or_else(|| Error::unsupported("a pool whose vdevs have no tables"))?)?;
    let mut tops = Vec::new();
    for top in new {
        let id = top.u64("id").unwrap_or(0);
        let mut top = with_leaf_tables(top, &|| vdev_table(mos, tx, &all))?;
        let zap = vdev_table(mos, tx, &all)?;
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
        if top.str("type") == Some("draid") {
            ops.count(tx, Feature::Draid, 1)?;
        }
        let spec = ObjectSpec { object_type: Ot::OBJECT_ARRAY, ..ObjectSpec::default() };
        let array = mos.allocate(tx, &spec)?.object();
        top.put("metaslab_array", array);
        metaslabs.set_objects(id, array, zap);
        tops.push(top);
    }
    Ok(tops)
}

/// A leaf gets a table; of an inner vdev, all leaves below.
pub(super) fn with_leaf_tables(tree: &NvList, table: &dyn Fn() -> Result<u64>) -> Result<NvList> {
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
