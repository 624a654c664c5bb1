//! Reads the root block of every pool of the corpus, whatever lies under it.
//!
//! The corpus is found through `UZFS_CORPUS` (a directory of unpacked pools) or next to the workspace; without one the
//! tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zfs_codec::checksum::{label_verifier, verify_embedded};
use zfs_env::{BlockDevice, FileDevice};
use zfs_phys::enums::ChecksumKind;
use zfs_phys::label::{self, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING, VDEV_UBERBLOCK_RING_OFFSET};
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::uberblock::Uberblock;
use zfs_zio::{ArcCache, ErrorKind, VdevAux, VdevConfig, VdevKind, VdevState, VdevTree, Zbookmark, Zio};

fn corpus() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../corpus");
    let dir = std::env::var_os("UZFS_CORPUS").map_or(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&dir) else {
        eprintln!("SKIPPED: no corpus at {}; set UZFS_CORPUS to a directory of unpacked pools", dir.display());
        return Vec::new();
    };
    let mut pools: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.join("d0").is_file()).collect();
    pools.sort();
    if pools.is_empty() {
        eprintln!("SKIPPED: no unpacked pools in {}", dir.display());
    }
    pools
}

struct Found {
    config: NvList,
    device: Arc<dyn BlockDevice>,
    uberblock: Option<Uberblock>,
}

fn probe(path: &Path) -> Option<Found> {
    let device = FileDevice::open_read_only(path).ok()?;
    let mut best: Option<(u64, NvList)> = None;
    let mut uberblock: Option<Uberblock> = None;
    for l in 0..label::VDEV_LABELS {
        let Some(base) = label::label_offset(device.size(), l) else { continue };
        let mut phys = vec![0u8; VDEV_PHYS_SIZE as usize];
        device.read_at(base + VDEV_SKIP_SIZE, &mut phys).ok()?;
        let at = label_verifier(base + VDEV_SKIP_SIZE);
        if verify_embedded(ChecksumKind::Label, &phys, at, false).is_err() {
            continue;
        }
        let Ok(config) = label::decode_config(&phys) else { continue };
        let ashift = config.list("vdev_tree").and_then(|t| t.u64("ashift")).unwrap_or(9);
        let slot = 1usize << label::uberblock_shift(ashift);
        let mut ring = vec![0u8; VDEV_UBERBLOCK_RING as usize];
        device.read_at(base + VDEV_UBERBLOCK_RING_OFFSET, &mut ring).ok()?;
        for (i, bytes) in ring.chunks_exact(slot).enumerate() {
            let at = label_verifier(base + VDEV_UBERBLOCK_RING_OFFSET + (i * slot) as u64);
            if let Ok(ub) = Uberblock::decode(bytes)
                && verify_embedded(ChecksumKind::Label, bytes, at, false).is_ok()
                && uberblock.is_none_or(|u| u.rank() < ub.rank())
            {
                uberblock = Some(ub);
            }
        }
        let txg = config.u64("txg").unwrap_or(0);
        if best.as_ref().is_none_or(|(t, _)| *t < txg) {
            best = Some((txg, config));
        }
    }
    Some(Found { config: best?.1, device: Arc::new(device), uberblock })
}

/// Puts the pool's tree together from its disks' labels, as an import does before it can read the pool's own.
fn open(pool: &Path, leave_out: &[&str]) -> Option<(VdevTree, Uberblock)> {
    let mut disks: Vec<_> = std::fs::read_dir(pool).ok()?.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    disks.sort();
    let found: Vec<Found> = disks
        .iter()
        .filter(|d| !leave_out.iter().any(|l| d.ends_with(l)))
        .filter_map(|d| probe(d))
        .filter(|f| f.config.list("vdev_tree").is_some() && f.config.contains("pool_guid"))
        .collect();
    let newest = found.iter().max_by_key(|f| f.config.u64("txg"))?;
    let mut tops: BTreeMap<u64, (u64, NvList)> = BTreeMap::new();
    for f in &found {
        let (tree, txg) = (f.config.list("vdev_tree")?, f.config.u64("txg")?);
        let entry = tops.entry(tree.u64("id")?).or_insert((txg, tree.clone()));
        if entry.0 < txg {
            *entry = (txg, tree.clone());
        }
    }
    let holes = newest.config.u64s("hole_array").unwrap_or(&[]).to_vec();
    let mut root = NvList::new();
    root.set("type", NvValue::String("root".into()));
    root.set("guid", NvValue::Uint64(newest.config.u64("pool_guid")?));
    let mut config = VdevConfig::from_nvlist(&root).ok()?;
    for id in 0..newest.config.u64("vdev_children")? {
        config.children.push(match tops.get(&id) {
            Some((_, tree)) => VdevConfig::from_nvlist(tree).expect("label's tree"),
            None if holes.contains(&id) => VdevConfig::empty(VdevKind::Hole, id),
            None => VdevConfig::empty(VdevKind::Missing, id),
        });
    }
    let tree = VdevTree::build(config, &mut |leaf| {
        let mine = found.iter().find(|f| f.config.u64("guid") == Some(leaf.guid));
        mine.map(|f| f.device.clone()).ok_or(VdevAux::OpenFailed)
    })
    .expect("tree");
    let uberblock = found.iter().filter_map(|f| f.uberblock).max_by_key(Uberblock::rank)?;
    tree.set_reflow(uberblock.reflow_offset(), uberblock.reflow_scratch_state() == 1);
    Some((tree, uberblock))
}

fn zio(pool: &Path, leave_out: &[&str]) -> Option<(Arc<Zio>, Uberblock)> {
    let (tree, ub) = open(pool, leave_out)?;
    let name = pool.file_name()?.to_string_lossy().into_owned();
    Some((Zio::new(&name, tree, Arc::new(ArcCache::new(64 << 20)), None), ub))
}

#[test]
fn every_pool_gives_its_root_block() {
    for pool in corpus() {
        let Some((zio, ub)) = zio(&pool, &[]) else {
            panic!("{}: no labels", pool.display());
        };
        let bp = ub.rootbp;
        let block = zio.read(&bp, &Zbookmark::root(0), None).unwrap_or_else(|e| panic!("{e}\n{:?}", zio.vdevs()));
        assert_eq!(block.len() as u64, bp.lsize());
        zio.verify(&bp, &Zbookmark::root(0), true).unwrap();
        if !pool.ends_with("rotten") && !pool.ends_with("rottenz") {
            assert_eq!(zio.errors().damage(), [], "{}", pool.display());
        }
        eprintln!("{}: txg {} {:?} {} bytes", pool.display(), ub.txg, zio.vdevs().root().state(), block.len());
    }
}

#[test]
fn pools_with_redundancy_do_without_disks() {
    for (name, lost, state) in [
        ("z1x3", &["d1"][..], VdevState::Degraded),
        ("z2x6", &["d0", "d4"], VdevState::Degraded),
        ("z3x7", &["d1", "d2", "d6"], VdevState::Degraded),
        ("dr1", &["d3"], VdevState::Degraded),
        ("dr2", &["d0", "d8"], VdevState::Degraded),
        ("m3", &["d0", "d2"], VdevState::Degraded),
        ("expanded", &["d2"], VdevState::Degraded),
        ("twomirrors", &["d0", "d3"], VdevState::Degraded),
        ("z1x3", &["d0", "d1"], VdevState::CantOpen),
        ("stripe3", &["d1"], VdevState::CantOpen),
    ] {
        let Some(pool) = corpus().into_iter().find(|p| p.ends_with(name)) else { continue };
        let (zio, ub) = zio(&pool, lost).expect("labels");
        assert_eq!(zio.vdevs().root().state(), state, "{name} without {lost:?}: {:?}", zio.vdevs());
        let result = zio.read(&ub.rootbp, &Zbookmark::root(0), None);
        match state {
            VdevState::Degraded => assert!(result.is_ok(), "{name} without {lost:?}: {result:?}"),
            // A small block may still be whole on what is left; the pool is not.
            _ => assert_eq!(zio.vdevs().check_readable().unwrap_err().kind(), ErrorKind::TooManyMissing),
        }
    }
}
