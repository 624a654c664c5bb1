//! Pools that were tampered with: in memory, with checksums put right, so that the code behind them is what refuses.

mod common;

use common::{corpus, find, options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zfs_codec::checksum::{label_verifier, seal_embedded};
use zfs_env::{BlockDevice, MemDevice};
use zfs_phys::enums::ChecksumKind;
use zfs_phys::label::{VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING_OFFSET, label_offset};
use zfs_phys::{Endian, NvList, NvValue};
use zfs_spa::labels::DeviceLabels;
use zfs_spa::{ImportProblem, PoolCandidate, Rewind, Search, discover, import};

fn image(corpus: &Path, name: &str) -> Vec<u8> {
    std::fs::read(corpus.join(name).join("d0")).unwrap()
}

fn candidate(image: Vec<u8>) -> Option<PoolCandidate> {
    let dev: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(image));
    PoolCandidate::from_devices([(PathBuf::from("mem"), dev)]).pop()
}

/// Changes the configuration in all four labels.
fn edit_labels(image: &mut [u8], edit: impl Fn(&mut NvList)) {
    for l in 0..4 {
        let at = (label_offset(image.len() as u64, l).unwrap() + VDEV_SKIP_SIZE) as usize;
        let block = &mut image[at..at + VDEV_PHYS_SIZE as usize];
        let mut config = zfs_phys::label::decode_config(block).unwrap();
        edit(&mut config);
        let packed = config.encode_xdr();
        block.fill(0);
        block[..packed.len()].copy_from_slice(&packed);
        seal_embedded(ChecksumKind::Label, block, label_verifier(at as u64), Endian::Little, None).unwrap();
    }
}

#[test]
fn unknown_features_and_versions_are_refused_by_name() {
    let Some(corpus) = corpus() else { return };
    let mut img = image(&corpus, "longnames");
    edit_labels(&mut img, |config| {
        let mut features = config.list("features_for_read").unwrap().clone();
        features.set("org.example:future", NvValue::Boolean);
        config.set("features_for_read", NvValue::NvList(features));
    });
    let refused = import(&candidate(img).unwrap(), &options()).unwrap_err();
    let ImportProblem::UnknownFeatures { features, can_readonly } = refused.problem else { panic!("{refused:?}") };
    assert_eq!((features[0].guid.as_str(), can_readonly), ("org.example:future", false));
}

#[test]
fn destroyed_pools_need_force() {
    let Some(corpus) = corpus() else { return };
    let mut img = image(&corpus, "longnames");
    edit_labels(&mut img, |config| config.set("state", NvValue::Uint64(2)));
    let found = candidate(img).unwrap();
    let polite = zfs_spa::ImportOptions { force: false, ..options() };
    assert!(matches!(import(&found, &polite).unwrap_err().problem, ImportProblem::Destroyed));
    import(&found, &options()).unwrap();
}

#[test]
fn a_damaged_root_is_left_for_the_one_before_when_asked() {
    let Some(corpus) = corpus() else { return };
    let mut img = image(&corpus, "longnames");
    let newest = find(&corpus, "longnames").best_uberblock().unwrap();
    for dva in newest.rootbp.dvas() {
        let at = (dva.offset() + (4 << 20)) as usize;
        img[at..at + 64].fill(0xa5);
    }
    let found = candidate(img).unwrap();
    let refused = import(&found, &options()).unwrap_err();
    let ImportProblem::Damaged { rewind: hint } = refused.problem else { panic!("{refused:?}") };
    let txgs: Vec<u64> = found.uberblocks().iter().map(|u| u.txg).collect();
    let recover = zfs_spa::ImportOptions { rewind: Rewind::Extreme, ..options() };
    let pool = import(&found, &recover).unwrap_or_else(|e| panic!("{e}, roots {txgs:?}"));
    assert!(pool.uberblock().txg < newest.txg);
    let step = zfs_spa::import::find_rewind(&found, &options(), true);
    assert_eq!(step.unwrap().0, pool.uberblock().txg);
    let safe = zfs_spa::import::find_rewind(&found, &options(), false);
    assert_eq!(hint, safe);
    assert_eq!(safe.is_some(), pool.uberblock().txg + 2 >= newest.txg);
}

#[test]
fn torn_labels_neither_win_nor_hide_others() {
    let Some(corpus) = corpus() else { return };
    let img = image(&corpus, "longnames");
    let whole = DeviceLabels::read(&MemDevice::new(img.clone()));
    assert_eq!(whole.copies.len(), 4);
    for l in 0..4usize {
        let mut torn = img.clone();
        let at = label_offset(img.len() as u64, l).unwrap() as usize;
        torn[at + VDEV_SKIP_SIZE as usize + 100] ^= 1;
        torn[at + VDEV_UBERBLOCK_RING_OFFSET as usize..][..128 << 10].fill(0);
        let labels = DeviceLabels::read(&MemDevice::new(torn));
        assert_eq!(
            labels.copies.iter().map(|c| c.index).collect::<Vec<_>>(),
            (0..4).filter(|i| *i != l).collect::<Vec<_>>()
        );
        assert!(labels.uberblocks.iter().all(|u| u.label != l) && !labels.uberblocks.is_empty());
    }
}

#[test]
fn nonsense_in_labels_is_refused_without_panic() {
    let Some(corpus) = corpus() else { return };
    let img = image(&corpus, "longnames");
    type Edit = fn(&mut NvList, u64);
    let edits: [Edit; 5] = [
        |c, n| c.set("vdev_children", NvValue::Uint64(n)),
        |c, n| c.set("txg", NvValue::Uint64(n)),
        |c, n| c.set("pool_guid", NvValue::Uint64(n)),
        |c, n| {
            let mut tree = c.list("vdev_tree").unwrap().clone();
            tree.set("ashift", NvValue::Uint64(n));
            c.set("vdev_tree", NvValue::NvList(tree));
        },
        |c, n| {
            let mut tree = c.list("vdev_tree").unwrap().clone();
            tree.set("id", NvValue::Uint64(n));
            c.set("vdev_tree", NvValue::NvList(tree));
        },
    ];
    for edit in edits {
        for n in [0, 1, 63, 64, 255, u64::from(u32::MAX), u64::MAX] {
            let mut img = img.clone();
            edit_labels(&mut img, |c| edit(c, n));
            if let Some(found) = candidate(img) {
                let _ = import(&found, &options());
            }
        }
    }
}

#[test]
fn a_cache_file_leads_to_its_pools() {
    let Some(corpus) = corpus() else { return };
    let found = find(&corpus, "m3");
    let mut config = (*found.label).clone();
    config.set("vdev_tree", NvValue::NvList(found.tree.clone()));
    let mut list = NvList::new();
    list.set("m3", NvValue::NvList(config));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("zpool.cache");
    std::fs::write(&file, list.encode_xdr()).unwrap();
    let again = discover(&Search::Cachefile(file)).unwrap();
    assert_eq!(again.pools.len(), 1);
    assert_eq!((again.pools[0].guid, again.pools[0].devices.len()), (found.guid, 3));
    assert!(discover(&Search::Cachefile(dir.path().join("none"))).is_err());
}
