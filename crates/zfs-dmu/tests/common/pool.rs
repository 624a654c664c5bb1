//! Opens pools of the corpus just far enough for objects: labels, best uberblock, vdev tree, meta object set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use zfs_dmu::{Objset, Zio};
use zfs_env::{BlockDevice, FileDevice};
use zfs_phys::label::{VDEV_LABEL_SIZE, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING_OFFSET, decode_config};
use zfs_phys::uberblock::Uberblock;
use zfs_zio::vdev::VdevAux;
use zfs_zio::{ArcCache, VdevConfig, VdevKind, VdevTree};

/// The corpus, or nothing (said loudly) when it is not here.
pub fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../corpus");
    let named = std::env::var_os("UZFS_CORPUS").map(PathBuf::from);
    let found = named.into_iter().chain([unpacked, beside]).find(|p| p.join("basic/d0").exists());
    if found.is_none() {
        eprintln!("SKIPPED: no corpus of pools; set UZFS_CORPUS to the folder with them unpacked");
    }
    found
}

pub struct Opened {
    pub mos: Arc<Objset>,
    pub zio: Arc<Zio>,
}

/// Opens the pool in `dir`. Nothing when its vdevs need what only a whole import can do.
pub fn open(dir: &Path) -> Option<Opened> {
    let mut disks: Vec<(u64, Arc<dyn BlockDevice>)> = Vec::new();
    let mut tops: Vec<VdevConfig> = Vec::new();
    let mut best: Option<Uberblock> = None;
    let mut children = 0;
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names.into_iter().filter(|p| p.is_file()) {
        let disk: Arc<dyn BlockDevice> = Arc::new(FileDevice::open_read_only(&path).unwrap());
        let mut label = vec![0; VDEV_LABEL_SIZE as usize];
        if disk.read_at(0, &mut label).is_err() {
            continue;
        }
        let phys = VDEV_SKIP_SIZE as usize;
        let Ok(config) = decode_config(&label[phys..phys + VDEV_PHYS_SIZE as usize]) else { continue };
        let (Some(guid), Some(tree)) = (config.u64("guid"), config.list("vdev_tree")) else { continue };
        children = config.u64("vdev_children").unwrap_or(1);
        let top = VdevConfig::from_nvlist(tree).unwrap();
        if !tops.iter().any(|t| t.id == top.id) {
            tops.push(top);
        }
        disks.push((guid, disk));
        for slot in label[VDEV_UBERBLOCK_RING_OFFSET as usize..].chunks_exact(1024) {
            let newer = |u: &Uberblock| best.as_ref().is_none_or(|b| b.rank() < u.rank());
            if let Some(u) = Uberblock::decode(slot).ok().filter(newer) {
                best = Some(u);
            }
        }
    }
    let mut root = VdevConfig::empty(VdevKind::Root, 0);
    for id in 0..children {
        let at = tops.iter().position(|t| t.id == id);
        root.children.push(at.map_or(VdevConfig::empty(VdevKind::Hole, id), |at| tops.swap_remove(at)));
    }
    let mut find = |c: &VdevConfig| {
        let disk = disks.iter().find(|(guid, _)| *guid == c.guid).map(|(_, d)| d.clone());
        disk.ok_or(VdevAux::OpenFailed)
    };
    let tree = VdevTree::build(root, &mut find).ok()?;
    let zio = Zio::new("corpus", tree, Arc::new(ArcCache::new(64 << 20)), None);
    let uberblock = best?;
    let mos = Objset::open(&zio, &uberblock.rootbp, 0, None).ok()?;
    if let Some(salt) = zfs_dmu::Zap::open(&mos, 1).ok()?.lookup(b"org.illumos:checksum_salt").ok()? {
        zio.set_checksum_salt(salt.bytes().try_into().ok()?);
    }
    Some(Opened { mos, zio })
}
