//! Labels of one device: four copies of a configuration and four rings of uberblocks.
//!
//! Everything counts only when its checksum matches: a label torn by a power loss must neither win nor hide the
//! others. Reading never fails as a whole; a device without labels simply has none.

use std::path::PathBuf;
use std::sync::Arc;
use zfs_codec::checksum::{label_verifier, verify_embedded};
use zfs_env::BlockDevice;
use zfs_phys::enums::ChecksumKind;
use zfs_phys::label::{
    self, VDEV_LABELS, VDEV_PAD_SIZE, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING, VDEV_UBERBLOCK_RING_OFFSET,
};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{NvList, bootenv::BootEnv};

/// Pool states as labels store them (`pool_state_t`).
pub mod state {
    /// In use.
    pub const ACTIVE: u64 = 0;
    /// Exported.
    pub const EXPORTED: u64 = 1;
    /// Destroyed.
    pub const DESTROYED: u64 = 2;
    /// A hot spare's label.
    pub const SPARE: u64 = 3;
    /// A cache device's label.
    pub const L2CACHE: u64 = 4;
}

/// One copy of the label.
#[derive(Debug, Clone)]
pub struct LabelCopy {
    /// 0 to 3.
    pub index: usize,
    /// Byte offset on the device.
    pub offset: u64,
    /// The configuration.
    pub config: NvList,
}

/// A root found in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundUberblock {
    /// Label it lies in, 0 to 3.
    pub label: usize,
    /// Slot of the ring.
    pub slot: usize,
    /// The root.
    pub ub: Uberblock,
}

/// All labels of a device.
#[derive(Debug, Clone, Default)]
pub struct DeviceLabels {
    /// Copies whose checksum matches, by index.
    pub copies: Vec<LabelCopy>,
    /// Valid uberblocks of all copies.
    pub uberblocks: Vec<FoundUberblock>,
}

impl DeviceLabels {
    /// Reads the labels of `dev`.
    pub fn read(dev: &dyn BlockDevice) -> Self {
        let mut out = Self::default();
        for index in 0..VDEV_LABELS {
            if let Some(offset) = label::label_offset(dev.size(), index)
                && let Some(config) = read_config(dev, offset)
            {
                out.copies.push(LabelCopy { index, offset, config });
            }
        }
        let Some(best) = out.best() else { return out };
        let ashift = best.list("vdev_tree").and_then(|t| t.u64("ashift")).unwrap_or(0);
        for index in 0..VDEV_LABELS {
            if let Some(offset) = label::label_offset(dev.size(), index) {
                read_ring(dev, offset, index, ashift, &mut out.uberblocks);
            }
        }
        out
    }

    /// The configuration of the highest txg; labels of spares and cache devices have none and rank lowest.
    pub fn best(&self) -> Option<&NvList> {
        let mut best: Option<&NvList> = None;
        for copy in &self.copies {
            if best.is_none_or(|b| copy.config.u64("txg") > b.u64("txg")) {
                best = Some(&copy.config);
            }
        }
        best
    }
}

/// Reads and verifies `len` bytes at `at`, whose checksum trailer was made for that offset.
fn read_verified(dev: &dyn BlockDevice, at: u64, len: u64) -> Option<Vec<u8>> {
    let mut buf = vec![0u8; usize::try_from(len).ok()?];
    dev.read_at(at, &mut buf).ok()?;
    verify_embedded(ChecksumKind::Label, &buf, label_verifier(at), false).ok()?;
    Some(buf)
}

fn read_config(dev: &dyn BlockDevice, label_offset: u64) -> Option<NvList> {
    let at = label_offset.checked_add(VDEV_SKIP_SIZE)?;
    label::decode_config(&read_verified(dev, at, VDEV_PHYS_SIZE)?).ok()
}

fn read_ring(dev: &dyn BlockDevice, label_offset: u64, label: usize, ashift: u64, out: &mut Vec<FoundUberblock>) {
    let Some(start) = label_offset.checked_add(VDEV_UBERBLOCK_RING_OFFSET) else { return };
    let mut ring = vec![0u8; VDEV_UBERBLOCK_RING as usize];
    if dev.read_at(start, &mut ring).is_err() {
        return;
    }
    let size = 1usize << label::uberblock_shift(ashift);
    for (slot, block) in ring.chunks_exact(size).enumerate() {
        let Ok(ub) = Uberblock::decode(block) else { continue };
        let verifier = label_verifier(start + (slot * size) as u64);
        if verify_embedded(ChecksumKind::Label, block, verifier, false).is_ok() {
            out.push(FoundUberblock { label, slot, ub });
        }
    }
}

/// Wipes the labels of a device, so that nobody takes it for a pool's.
///
/// # Errors
/// Whatever writing meets.
pub fn clear(dev: &dyn BlockDevice) -> std::io::Result<()> {
    for at in (0..VDEV_LABELS).filter_map(|n| label::label_offset(dev.size(), n)) {
        dev.write_at(at, &vec![0; label::VDEV_LABEL_SIZE as usize])?;
    }
    dev.flush()
}

/// The boot environment of a device: of the first label whose block is valid.
pub fn read_bootenv(dev: &dyn BlockDevice) -> Option<BootEnv> {
    (0..VDEV_LABELS).find_map(|index| {
        let at = label::label_offset(dev.size(), index)?.checked_add(VDEV_PAD_SIZE)?;
        BootEnv::decode(&read_verified(dev, at, VDEV_PAD_SIZE)?).ok()
    })
}

/// A device that carries labels of a pool.
#[derive(Clone)]
pub struct FoundDevice {
    /// Where it was found.
    pub path: PathBuf,
    /// Guid of the leaf.
    pub guid: u64,
    /// Txg of its best label, 0 for spares and cache devices.
    pub txg: u64,
    /// Its best label.
    pub config: Arc<NvList>,
    /// Its uberblocks.
    pub uberblocks: Arc<Vec<FoundUberblock>>,
    /// The device, opened for reading.
    pub device: Arc<dyn BlockDevice>,
}

impl std::fmt::Debug for FoundDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FoundDevice({}, {}, txg {})", self.path.display(), self.guid, self.txg)
    }
}

impl FoundDevice {
    /// Reads the labels of a device; nothing when it carries none.
    pub fn examine(path: PathBuf, device: Arc<dyn BlockDevice>) -> Option<Self> {
        let labels = DeviceLabels::read(&*device);
        let config = labels.best()?.clone();
        Some(Self {
            path,
            guid: config.u64("guid")?,
            txg: config.u64("txg").unwrap_or(0),
            config: Arc::new(config),
            uberblocks: Arc::new(labels.uberblocks),
            device,
        })
    }

    /// Whether it was found where its label says it lives.
    pub fn at_home(&self) -> bool {
        let tree = self.config.list("vdev_tree");
        let home = tree.and_then(|t| path_of(t, self.guid)).or_else(|| self.config.str("path"));
        home.is_some_and(|p| self.path.as_os_str() == p)
    }
}

fn path_of(tree: &NvList, guid: u64) -> Option<&str> {
    if tree.u64("guid") == Some(guid) {
        return tree.str("path");
    }
    tree.lists("children").iter().find_map(|c| path_of(c, guid))
}
