//! Writing blocks: from logical bytes to a block pointer and bytes on disks.

use crate::alloc::{Class, Loader, MetaslabDelta, SpaceFigures, TopSeed};
use crate::bookmark::Zbookmark;
use crate::buf::Buf;
use crate::codec::DatasetKey;
use crate::error::{Error, ErrorKind, Result};
use crate::zio::Zio;
use std::sync::Arc;
use zfs_phys::BlkPtr;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};

/// Passes of one txg's sync from which on blocks written in it before are rewritten in place
/// (`zfs_sync_pass_rewrite`).
pub const SYNC_PASS_REWRITE: u32 = 2;
/// Pass from which on nothing is compressed, so that sizes stop changing (`zfs_sync_pass_dont_compress`).
pub const SYNC_PASS_DONT_COMPRESS: u32 = 8;

/// What the features and properties of the pool allow.
#[derive(Debug, Clone)]
pub struct WriteConfig {
    /// Holes record their birth (`com.delphix:hole_birth` is active).
    pub hole_birth: bool,
    /// Small blocks may be kept in pointers (`com.delphix:embedded_data` is active).
    pub embedded_data: bool,
    /// Bytes allocated on one top-level vdev before the next has its turn; vdevs of several data disks get that for
    /// each.
    pub aliquot: u64,
    /// Independent streams of allocation; each uses metaslabs of its own.
    pub allocators: usize,
}

impl Default for WriteConfig {
    fn default() -> Self {
        Self { hole_birth: true, embedded_data: true, aliquot: 2 << 20, allocators: 4 }
    }
}

/// How a block is written.
#[derive(Clone)]
pub struct WriteProps {
    /// Type of the object it belongs to.
    pub object_type: DmuObjectType,
    /// Level: 0 for data.
    pub level: u8,
    /// Checksum; a definite one, not `inherit` or `on`.
    pub checksum: ChecksumKind,
    /// Compression; a definite one.
    pub compress: CompressKind,
    /// Level of zstd, in ZFS's numbers; 255 for its default.
    pub complevel: u8,
    /// Copies on different places, 1 to 3.
    pub copies: u8,
    /// Where it should go; special and dedup spill over into normal.
    pub class: Class,
    /// Whether it may be kept in the pointer.
    pub embed: bool,
    /// Whether a block equal to the one it replaces need not be written.
    pub nopwrite: bool,
    /// Key of an encrypted dataset.
    pub key: Option<Arc<DatasetKey>>,
}

impl WriteProps {
    /// Plain properties: fletcher4, lz4, one copy, normal class, may embed contents.
    pub fn new(object_type: DmuObjectType, level: u8) -> Self {
        Self {
            object_type,
            level,
            checksum: ChecksumKind::Fletcher4,
            compress: CompressKind::Lz4,
            complevel: u8::MAX,
            copies: 1,
            class: Class::Normal,
            embed: level == 0,
            nopwrite: false,
            key: None,
        }
    }
}

impl std::fmt::Debug for WriteProps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteProps")
            .field("type", &self.object_type.0)
            .field("level", &self.level)
            .field("checksum", &self.checksum)
            .field("compress", &self.compress)
            .field("copies", &self.copies)
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "writing to a pool that is not open for writing")
}

impl Zio {
    /// Makes the pool writable: from now on blocks may be allocated on `tops`. Fails when done twice, or with `Corrupt`
    /// when the metaslabs do not fit their vdevs.
    pub fn enable_writes(&self, tops: Vec<TopSeed>, loader: Loader, config: WriteConfig) -> Result<()> {
        let _ = (tops, loader, config);
        Err(Error::unsupported("writing"))
    }

    /// Whether [`Zio::enable_writes`] was called and the pool has not been suspended.
    pub fn is_writable(&self) -> bool {
        false
    }

    /// Writes the logical bytes of a block and gives the pointer to them; its fill count is the caller's to set.
    ///
    /// Depending on `props`: all zeros become a hole, little becomes an embedded pointer, what equals `prev` may be left
    /// alone (the result equals `prev` then). `prev` is the pointer that is replaced; the caller frees it, unless the
    /// result has the same first address: in pass 2 and later of a txg's sync, a block that was written in the same
    /// txg is rewritten where it is. From pass 8 on, nothing is compressed.
    ///
    /// Fails with `NoSpace`, `Io` when too many devices failed (the pool is suspended then), `ReadOnly`.
    pub fn write(
        &self,
        txg: u64,
        data: &Buf,
        props: &WriteProps,
        bm: &Zbookmark,
        prev: Option<&BlkPtr>,
        pass: u32,
    ) -> Result<BlkPtr> {
        let _ = (txg, data, props, bm, prev, pass);
        Err(read_only())
    }

    /// Frees what a pointer occupies, all pieces of a gang block included. Space becomes allocatable again two txgs
    /// after `txg`, which must be the one syncing. Nothing happens for holes and embedded blocks.
    pub fn free(&self, txg: u64, bp: &BlkPtr) -> Result<()> {
        let _ = (txg, bp);
        Err(read_only())
    }

    /// Marks what a pointer occupies as allocated: blocks of intent logs are found to be in use only at import. Fails
    /// with `Corrupt` when some of it is allocated already.
    pub fn claim(&self, txg: u64, bp: &BlkPtr) -> Result<()> {
        let _ = (txg, bp);
        Err(read_only())
    }

    /// Allocates a block of `size` bytes for an intent log: on log vdevs, else on metaslabs set aside, else anywhere.
    /// The pointer has everything but its checksum words, which name log and block.
    pub fn alloc_log(&self, txg: u64, size: u64, bm: &Zbookmark) -> Result<BlkPtr> {
        let _ = (txg, size, bm);
        Err(read_only())
    }

    /// Seals an intent-log block (its header must be filled in, magic and checksum excepted) and writes it.
    pub fn write_log(&self, bp: &BlkPtr, data: &mut [u8]) -> Result<()> {
        let _ = (bp, data);
        Err(read_only())
    }

    /// Makes everything written so far durable. Fails when so many devices fail to flush that data may be lost.
    pub fn flush(&self) -> Result<()> {
        Err(read_only())
    }

    /// What was allocated and freed in `txg` since the last call, for the space maps. Call it again in later passes
    /// until it is empty.
    pub fn take_sync_delta(&self, txg: u64) -> Vec<MetaslabDelta> {
        let _ = txg;
        Vec::new()
    }

    /// `txg` is on stable storage: what was freed two txgs ago becomes allocatable.
    pub fn metaslab_sync_done(&self, txg: u64) {
        let _ = txg;
    }

    /// Figures of a class.
    pub fn space(&self, class: Class) -> SpaceFigures {
        let _ = class;
        SpaceFigures::default()
    }
}
