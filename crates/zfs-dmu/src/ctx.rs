//! What all dnodes of an object set share: the way to its blocks.

use parking_lot::RwLock;
use std::sync::Arc;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, Result, Zbookmark, Zio};

/// The unwrapped keys of an encrypted dataset.
pub type Key = zfs_zio::DatasetKey;

const SLOTS: usize = 8;
/// Bytes that the smallest block takes on disk.
const SMALLEST_BLOCK: u64 = 512;

/// An indirect block in use: epoch of the tree, object, level, block id, contents and their byte order.
type Slot = RwLock<Option<(u64, u64, u8, u64, Buf, Endian)>>;

/// Reads the blocks of one object set.
pub(crate) struct Ctx {
    pub(crate) zio: Arc<Zio>,
    pub(crate) objset: u64,
    pub(crate) key: Option<Arc<Key>>,
    /// The object set is encrypted (its blocks carry MACs).
    pub(crate) encrypted: bool,
    /// More blocks than the pool has room for. Blocks that name others are never shared within an object set, so a
    /// walk that meets more of them is going through a forged tree whose pointers lead to the same block many times;
    /// without this limit that would take for ever.
    pub(crate) block_limit: u64,
    // Direct-mapped: sequential and clustered reads find their indirect block here with one uncontended read lock,
    // without hashing a block pointer in the ARC. Few, since the buffers stay in memory even when the ARC would
    // rather evict them.
    indirect: [Slot; SLOTS],
}

impl Ctx {
    pub(crate) fn new(zio: Arc<Zio>, objset: u64, key: Option<Arc<Key>>, encrypted: bool) -> Self {
        let room = zio.vdevs().root().children.iter().fold(0u64, |sum, top| sum.saturating_add(top.config.asize));
        let block_limit = room / SMALLEST_BLOCK + 1;
        Self { zio, objset, key, encrypted, block_limit, indirect: std::array::from_fn(|_| RwLock::new(None)) }
    }

    pub(crate) fn bookmark(&self, object: u64, level: u8, blkid: u64) -> Zbookmark {
        Zbookmark::new(self.objset, object, i64::from(level), blkid)
    }

    /// Whether the contents of encrypted blocks cannot be had.
    pub(crate) fn is_locked(&self) -> bool {
        self.encrypted && self.key.is_none()
    }

    /// Reads a block. Blocks of dnodes in a dataset whose key is missing are given as they are on disk: they are
    /// never compressed, and only their bonus buffers are encrypted.
    pub(crate) fn read(&self, bp: &BlkPtr, bm: &Zbookmark) -> Result<Buf> {
        if self.key.is_none() && bp.is_encrypted() && bp.object_type() == DmuObjectType::DNODE {
            return self.zio.read_raw(bp, bm);
        }
        self.zio.read(bp, bm, self.key.as_ref())
    }

    fn slot(&self, object: u64, level: u8, blkid: u64) -> Option<&Slot> {
        let h = (object ^ (u64::from(level) << 40) ^ (blkid << 8)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.indirect.get((h >> 56) as usize % SLOTS)
    }

    /// An indirect block kept from the last time.
    pub(crate) fn cached_indirect(&self, epoch: u64, object: u64, level: u8, blkid: u64) -> Option<(Buf, Endian)> {
        let guard = self.slot(object, level, blkid)?.read();
        match &*guard {
            Some((t, o, l, b, buf, e)) if (*t, *o, *l, *b) == (epoch, object, level, blkid) => Some((buf.clone(), *e)),
            _ => None,
        }
    }

    /// Keeps an indirect block for the next time.
    pub(crate) fn keep_indirect(&self, epoch: u64, object: u64, level: u8, blkid: u64, buf: &Buf, endian: Endian) {
        if let Some(slot) = self.slot(object, level, blkid) {
            *slot.write() = Some((epoch, object, level, blkid, buf.clone(), endian));
        }
    }
}
