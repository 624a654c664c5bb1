//! Blocks that OpenZFS wrote, written again where they are: every byte that goes to a disk must be there already.
//!
//! The devices compare instead of storing. The blocks are those of the meta object set and of all data sets it names, read
//! as OpenZFS stored them and rewritten in place, so that geometry, parity and padding are ours and nothing else is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zfs_env::{BlockDevice, FileDevice};
use zfs_phys::dnode::DnodePhys;
use zfs_phys::dsl::DslDatasetPhys;
use zfs_phys::enums::{CompressKind, DmuObjectType};
use zfs_phys::label::{self, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING, VDEV_UBERBLOCK_RING_OFFSET};
use zfs_phys::nvlist::{NvList, NvValue};
use zfs_phys::objset::ObjsetPhys;
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::vdev::tree::OpenLeaf;
use zfs_zio::{
    ArcCache, Class, TopSeed, VdevAux, VdevConfig, VdevKind, VdevTree, WriteConfig, WriteProps, Zbookmark, Zio,
};

/// A disk that only accepts what it holds.
struct Comparing {
    file: FileDevice,
    compared: AtomicU64,
    different: AtomicU64,
}

impl BlockDevice for Comparing {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn path(&self) -> String {
        self.file.path()
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut held = vec![0; data.len()];
        self.file.read_at(offset, &mut held)?;
        self.compared.fetch_add(data.len() as u64, Ordering::Relaxed);
        let wrong = held.iter().zip(data).filter(|(a, b)| a != b).count();
        self.different.fetch_add(wrong as u64, Ordering::Relaxed);
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

fn corpus(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../corpus");
    let dir = std::env::var_os("UZFS_CORPUS").map_or(beside, PathBuf::from).join(name);
    if !dir.join("d0").is_file() {
        eprintln!("SKIPPED: no corpus pool {}", dir.display());
        return None;
    }
    Some(dir)
}

struct Disk {
    config: NvList,
    device: Arc<Comparing>,
    uberblock: Uberblock,
}

fn probe(path: &Path) -> Option<Disk> {
    let file = FileDevice::open_read_only(path).ok()?;
    let mut phys = vec![0u8; VDEV_PHYS_SIZE as usize];
    file.read_at(VDEV_SKIP_SIZE, &mut phys).ok()?;
    let config = label::decode_config(&phys).ok()?;
    let ashift = config.list("vdev_tree")?.u64("ashift")?;
    let mut ring = vec![0u8; VDEV_UBERBLOCK_RING as usize];
    file.read_at(VDEV_UBERBLOCK_RING_OFFSET, &mut ring).ok()?;
    let slots = ring.chunks_exact(1 << label::uberblock_shift(ashift)).filter_map(|b| Uberblock::decode(b).ok());
    let uberblock = slots.max_by_key(Uberblock::rank)?;
    let device = Arc::new(Comparing { file, compared: AtomicU64::new(0), different: AtomicU64::new(0) });
    Some(Disk { config, device, uberblock })
}

fn open(dir: &Path) -> Option<(Arc<Zio>, Vec<Disk>)> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    paths.sort();
    let disks: Vec<Disk> = paths.iter().filter_map(|p| probe(p)).collect();
    let newest = disks.iter().max_by_key(|d| d.config.u64("txg"))?;
    let mut tops: BTreeMap<u64, NvList> = BTreeMap::new();
    for disk in &disks {
        let tree = disk.config.list("vdev_tree")?;
        tops.insert(tree.u64("id")?, tree.clone());
    }
    let mut root = NvList::new();
    root.set("type", NvValue::String("root".into()));
    root.set("guid", NvValue::Uint64(newest.config.u64("pool_guid")?));
    let mut config = VdevConfig::from_nvlist(&root).ok()?;
    for id in 0..newest.config.u64("vdev_children")? {
        config.children.push(match tops.get(&id) {
            Some(tree) => VdevConfig::from_nvlist(tree).ok()?,
            None => VdevConfig::empty(VdevKind::Hole, id),
        });
    }
    let leaf: OpenLeaf<'_> = &mut |leaf| {
        let mine = disks.iter().find(|d| d.config.u64("guid") == Some(leaf.guid));
        mine.map(|d| d.device.clone() as Arc<dyn BlockDevice>).ok_or(VdevAux::OpenFailed)
    };
    let tree = VdevTree::build(config, leaf).ok()?;
    let zio = Zio::new("corpus", tree, Arc::new(ArcCache::new(64 << 20)), None);
    let seeds = zio.vdevs().root().children.iter().filter(|t| t.config.kind.is_concrete());
    let seeds = seeds.map(|t| TopSeed { vdev: t.config.id, class: Class::Normal, metaslabs: vec![] }).collect();
    zio.enable_writes(seeds, Arc::new(|_, _| unreachable!("nothing is allocated")), WriteConfig::default()).unwrap();
    Some((zio, disks))
}

#[derive(Default)]
struct Walk {
    blocks: u64,
    datasets: Vec<BlkPtr>,
}

impl Walk {
    fn objset(&mut self, zio: &Zio, bp: &BlkPtr) {
        if bp.is_hole() {
            return;
        }
        self.rewrite(zio, bp);
        let Ok(block) = zio.read(bp, &Zbookmark::default(), None) else { return };
        let objset = ObjsetPhys::decode(&block, bp.endian()).unwrap();
        let accounts = [&objset.userused_dnode, &objset.groupused_dnode, &objset.projectused_dnode];
        for dnode in [Some(&objset.meta_dnode)].into_iter().chain(accounts.map(Option::as_ref)).flatten() {
            self.dnode(zio, dnode);
        }
    }

    fn dnode(&mut self, zio: &Zio, dnode: &DnodePhys) {
        for bp in dnode.blkptrs().chain(dnode.spill.as_ref()) {
            self.block(zio, bp);
        }
        if dnode.bonustype == DmuObjectType::DSL_DATASET
            && let Ok(ds) = DslDatasetPhys::decode(&dnode.bonus, dnode.endian)
        {
            self.datasets.push(ds.bp);
        }
    }

    fn block(&mut self, zio: &Zio, bp: &BlkPtr) {
        if bp.is_hole() || bp.is_embedded() || self.blocks > 6000 {
            return;
        }
        self.rewrite(zio, bp);
        let dnodes = bp.object_type() == DmuObjectType::DNODE;
        if (bp.level() == 0 && !dnodes) || bp.is_encrypted() {
            return;
        }
        let Ok(block) = zio.read(bp, &Zbookmark::default(), None) else { return };
        if bp.level() > 0 {
            block.chunks_exact(128).for_each(|b| self.block(zio, &BlkPtr::decode(b, bp.endian()).unwrap()));
            return;
        }
        let mut at = 0;
        while at < block.len() {
            let dnode = DnodePhys::decode(&block[at..], bp.endian()).unwrap();
            at += 512 * dnode.as_ref().map_or(1, DnodePhys::slots);
            if let Some(dnode) = dnode {
                self.dnode(zio, &dnode);
            }
        }
    }

    fn rewrite(&mut self, zio: &Zio, bp: &BlkPtr) {
        let ours = bp.endian() == Endian::NATIVE && !bp.is_gang() && bp.physical_birth() == bp.logical_birth();
        let vdevs: Vec<_> = bp.dvas().map(|d| (d, zio.vdevs().top(d.vdev()).unwrap())).collect();
        if !ours || vdevs.iter().any(|(_, top)| !top.config.kind.is_concrete()) {
            return;
        }
        for (dva, top) in &vdevs {
            assert_eq!(top.psize_to_asize(bp.psize(), bp.physical_birth()), dva.asize(), "{dva:?}");
        }
        let data = zio.read_raw(bp, &Zbookmark::default()).unwrap();
        let props = WriteProps {
            compress: CompressKind::Off,
            checksum: zfs_phys::enums::ChecksumKind::Fletcher4,
            copies: vdevs.len() as u8,
            ..WriteProps::new(bp.object_type(), bp.level())
        };
        let new = zio.write(bp.logical_birth(), &data, &props, &Zbookmark::default(), Some(bp), 2).unwrap();
        assert!((0..3).all(|d| new.dva(d) == bp.dva(d)) || bp.is_encrypted());
        self.blocks += 1;
    }
}

#[test]
fn what_openzfs_wrote_is_what_we_write() {
    for (name, least) in [
        ("basic", 100),
        ("ashift9", 100),
        ("m3", 100),
        ("stripe3", 100),
        ("z1x3", 100),
        ("z2x6", 100),
        ("z3x7", 100),
        ("dr1", 100),
        ("dr2", 100),
        ("expanded", 100),
        ("classes", 100),
    ] {
        let Some(dir) = corpus(name) else { continue };
        let (zio, disks) = open(&dir).unwrap_or_else(|| panic!("{name}: not a pool"));
        let ub = disks.iter().map(|d| d.uberblock).max_by_key(Uberblock::rank).unwrap();
        let mut walk = Walk::default();
        walk.objset(&zio, &ub.rootbp);
        for bp in std::mem::take(&mut walk.datasets) {
            walk.objset(&zio, &bp);
        }
        let sum = |f: fn(&Disk) -> u64| disks.iter().map(f).sum::<u64>();
        let compared = sum(|d| d.device.compared.load(Ordering::Relaxed));
        let different = sum(|d| d.device.different.load(Ordering::Relaxed));
        eprintln!("{name}: {} blocks, {compared} bytes written, {different} different", walk.blocks);
        assert_eq!(different, 0, "{name}");
        assert!(walk.blocks >= least, "{name}: only {} blocks", walk.blocks);
    }
}
