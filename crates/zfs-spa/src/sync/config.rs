//! The configuration of a pool that is written: in the meta object set, in labels, in the cache file.
//!
//! The tree in the meta object set is the truth. A label holds the top-level vdev its device belongs to, without the
//! objects that only mean something in the meta object set, and what is needed to find the rest.

use super::Spa;
use super::ops::Ops;
use crate::config::POOL_DIRECTORY;
use crate::labels::state;
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{ObjectSpec, Objset, Result, Zap};
use zfs_env::host;
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::read::Endian;
use zfs_phys::{NvList, NvValue, label};
use zfs_zio::{Error, Vdev, VdevTree};

/// Block size of the configuration object (`SPA_CONFIG_BLOCKSIZE`).
const BLOCK: u32 = 1 << 14;
/// Names in a tree that only mean something in the meta object set.
const MOS_ONLY: [&str; 4] = [
    "com.delphix:vdev_zap_leaf",
    "com.delphix:vdev_zap_top",
    "com.klarasystems:vdev_zap_root",
    "com.delphix:has_per_vdev_zaps",
];

/// What goes into every configuration of a pool.
#[derive(Debug, Clone)]
pub(super) struct PoolConfig {
    pub(super) name: String,
    pub(super) guid: u64,
    pub(super) version: u64,
    pub(super) state: u64,
    pub(super) errata: u64,
    pub(super) comment: Option<String>,
    pub(super) compatibility: Option<String>,
    pub(super) hostid: u32,
    /// The vdevs have tables in the meta object set.
    pub(super) tables: bool,
    /// The vdev tree, from the root down.
    pub(super) tree: NvList,
}

impl PoolConfig {
    /// Takes over the configuration of an imported pool under its present name, with the devices where they are now.
    pub(super) fn of(config: &NvList, name: &str, hostid: u32, vdevs: &VdevTree) -> Result<Self> {
        let tree = config.list("vdev_tree").ok_or_else(|| Error::corrupt("the configuration has no vdev tree"))?;
        Ok(Self {
            name: name.to_owned(),
            guid: config.u64("pool_guid").unwrap_or(0),
            version: config.u64("version").unwrap_or(0),
            state: state::ACTIVE,
            errata: config.u64("errata").unwrap_or(0),
            comment: config.str("comment").map(str::to_owned),
            compatibility: config.str("compatibility").map(str::to_owned),
            hostid,
            tables: config.contains("com.delphix:has_per_vdev_zaps"),
            tree: moved(tree, vdevs),
        })
    }

    /// Beginning of all configurations, in OpenZFS's order.
    fn head(&self, txg: u64) -> NvList {
        let mut nv = NvList::new();
        nv.put("version", self.version).put("name", self.name.as_str()).put("state", self.state);
        nv.put("txg", txg).put("pool_guid", self.guid).put("errata", self.errata);
        if let Some(comment) = &self.comment {
            nv.put("comment", comment.as_str());
        }
        if let Some(compatibility) = &self.compatibility {
            nv.put("compatibility", compatibility.as_str());
        }
        if self.hostid != 0 {
            nv.put("hostid", u64::from(self.hostid));
        }
        nv.put("hostname", host::hostname());
        nv
    }

    /// Number of top-level vdevs, holes among them included.
    fn tops(&self) -> u64 {
        self.tree.lists("children").len() as u64
    }

    /// What the meta object set holds.
    pub(super) fn for_mos(&self, txg: u64, features: &[&str]) -> NvList {
        let mut nv = self.head(txg);
        if self.tables {
            nv.set("com.delphix:has_per_vdev_zaps", NvValue::Boolean);
        }
        nv.put("vdev_children", self.tops());
        nv.set("vdev_tree", NvValue::NvList(self.tree.clone()));
        nv.set("features_for_read", NvValue::NvList(feature_list(features)));
        nv
    }

    /// What the labels of a leaf hold; nothing for a leaf that is no part of the tree.
    pub(super) fn for_label(&self, leaf: &Vdev, txg: u64, features: &[&str]) -> Result<Option<Vec<u8>>> {
        let tops = self.tree.lists("children");
        let Some(top) = tops.iter().find(|t| holds(t, leaf.guid())) else { return Ok(None) };
        let mut nv = self.head(txg);
        nv.put("top_guid", top.u64("guid").unwrap_or(0)).put("guid", leaf.guid());
        if top.u64("is_log") == Some(1) {
            nv.put("is_log", 1u64);
        }
        if leaf.config.is_spare {
            nv.put("is_spare", 1u64);
        }
        nv.put("vdev_children", self.tops());
        let holes: Vec<u64> =
            tops.iter().zip(0u64..).filter(|(t, _)| t.str("type") == Some("hole")).map(|(_, id)| id).collect();
        if !holes.is_empty() {
            nv.set("hole_array", NvValue::Uint64Array(holes));
        }
        nv.set("vdev_tree", NvValue::NvList(stripped(top)));
        nv.set("features_for_read", NvValue::NvList(feature_list(features)));
        label::encode_config(&nv).map(Some).map_err(Error::from)
    }
}

fn feature_list(features: &[&str]) -> NvList {
    let mut list = NvList::new();
    features.iter().for_each(|f| list.set(*f, NvValue::Boolean));
    list
}

fn holds(tree: &NvList, guid: u64) -> bool {
    tree.u64("guid") == Some(guid) || tree.lists("children").iter().any(|c| holds(c, guid))
}

/// A tree whose leaves have the paths of those of the same guids in `vdevs`.
fn moved(tree: &NvList, vdevs: &VdevTree) -> NvList {
    let mut out = tree.clone();
    let live = tree.u64("guid").and_then(|g| vdevs.find(g));
    if let Some(path) = live.filter(|v| v.config.kind.is_leaf()).and_then(|v| v.config.path.as_deref()) {
        out.set("path", NvValue::String(path.to_owned()));
    }
    if out.contains("children") {
        let children = tree.lists("children").iter().map(|c| moved(c, vdevs)).collect();
        out.set("children", NvValue::NvListArray(children));
    }
    out
}

/// A tree without what only means something in the meta object set.
fn stripped(tree: &NvList) -> NvList {
    let mut out = tree.clone();
    for name in MOS_ONLY {
        out.remove(name);
    }
    if out.contains("children") {
        let children = tree.lists("children").iter().map(stripped).collect();
        out.set("children", NvValue::NvListArray(children));
    }
    out
}

/// Writes a list into an object whose bonus is its size.
fn store_packed(mos: &Arc<Objset>, tx: &Tx, object: u64, list: &NvList) -> Result<()> {
    let bytes = list.encode_xdr();
    let dnode = mos.dnode(object)?;
    dnode.write_at(tx, 0, &bytes)?;
    let block = dnode.datablksz().max(1);
    dnode.truncate(tx, (bytes.len() as u64).next_multiple_of(block))?;
    dnode.set_bonus(tx, Ot::PACKED_NVLIST_SIZE, &Endian::NATIVE.put_u64(bytes.len() as u64))
}

impl Spa {
    /// Stores the list of hot spares (`which` is "spares") or cache devices ("l2cache"); an empty one only where there
    /// was one before.
    pub(super) fn set_auxiliaries(&self, tx: &Tx, which: &str, lists: &[NvList]) -> Result<()> {
        let directory = Zap::open(&self.mos, POOL_DIRECTORY)?;
        let object = match directory.lookup_u64(which.as_bytes())? {
            Some(object) => object,
            None if lists.is_empty() => return Ok(()),
            None => {
                let object = new_packed(&self.mos, tx)?;
                directory.add(tx, which.as_bytes(), &[object])?;
                object
            }
        };
        let mut nv = NvList::new();
        nv.set(which, NvValue::NvListArray(lists.to_vec()));
        store_packed(&self.mos, tx, object, &nv)
    }
}

fn new_packed(mos: &Arc<Objset>, tx: &Tx) -> Result<u64> {
    let spec = ObjectSpec {
        object_type: Ot::PACKED_NVLIST,
        block_size: BLOCK,
        bonus_type: Ot::PACKED_NVLIST_SIZE,
        bonus_len: 8,
        ..ObjectSpec::default()
    };
    Ok(mos.allocate(tx, &spec)?.object())
}

impl Ops {
    /// Stores the configuration in the meta object set.
    pub(super) fn store_config(&self, tx: &Tx, config: &PoolConfig) -> Result<()> {
        let mos = self.mos()?;
        let directory = Zap::open(&mos, POOL_DIRECTORY)?;
        let object = match directory.lookup_u64(b"config")? {
            Some(object) => object,
            None => {
                let object = new_packed(&mos, tx)?;
                directory.update(tx, b"config", &[object])?;
                object
            }
        };
        store_packed(&mos, tx, object, &config.for_mos(tx.txg(), &self.label_features()))
    }
}
