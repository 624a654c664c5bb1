//! The seam upwards: who owns the blocks of an object set that is being written.

use crate::txg::Tx;
use zfs_phys::BlkPtr;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::feature::Feature;
use zfs_zio::{Result, WriteProps};

/// Which kind of block is to be written; decides how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockKind {
    /// Object it belongs to; 0 is the array of dnodes. The header of the object set has type `OBJSET`.
    pub object: u64,
    /// Type that the pointer to it will have: the object's, or for spill blocks the bonus's.
    pub object_type: DmuObjectType,
    /// Level: 0 for contents.
    pub level: u8,
    /// It is a spill block.
    pub spill: bool,
    /// Checksum the dnode asks for (raw; 0 inherits).
    pub checksum: u8,
    /// Compression the dnode asks for (raw; 0 inherits).
    pub compress: u8,
    /// Logical size, bytes.
    pub lsize: u64,
}

impl BlockKind {
    /// Whether it is metadata: an indirect block, a spill block, or of an object that is.
    pub fn is_metadata(&self) -> bool {
        self.level > 0 || self.spill || self.object_type.is_metadata()
    }
}

/// The `sync` property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// What is asked to be durable is.
    #[default]
    Standard,
    /// Every change is durable when it returns.
    Always,
    /// Nothing is durable before its txg, whoever asks.
    Disabled,
}

/// How changes of an object set are made durable before their txg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPolicy {
    /// `sync`.
    pub sync: SyncMode,
    /// `logbias` is `throughput`.
    pub throughput: bool,
    /// The pool has devices for logs.
    pub slog: bool,
    /// The pool has devices for metadata and small blocks; with the largest block of data that goes there.
    pub special: Option<u32>,
    /// Records may tell of extended attributes kept with files (`zilsaxattr` is enabled).
    pub xattrs: bool,
}

/// Smallest write that is not copied into the log (`zfs_immediate_write_sz`), bytes.
const IMMEDIATE_WRITE: u64 = 32 << 10;

impl LogPolicy {
    /// Whether a write of `size` bytes to blocks of `blksz` goes to where it will stay, instead of into the log
    /// (`zil_write_state`).
    pub fn ahead(&self, size: u64, blksz: u64) -> bool {
        if self.throughput {
            return true;
        }
        let fast = match self.special {
            _ if self.slog => true,
            // The log is on the special devices, and the data would not be.
            Some(small) => blksz > u64::from(small),
            None => false,
        };
        size >= IMMEDIATE_WRITE && !fast
    }
}

/// Whether there is space for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is; it counts as taken until the txg is on disk.
    Fits,
    /// Nobody knows before what is under way is on disk.
    Later,
}

/// What an object set tells about its blocks, and asks before it writes them. Called in syncing context by the threads
/// that write blocks, several at a time.
pub trait ObjsetOwner: Send + Sync {
    /// A block was written and is now part of the object set.
    fn block_born(&self, bp: &BlkPtr, tx: &Tx) -> Result<()>;

    /// A block is no longer part of the object set. Gives the bytes that come free.
    fn block_kill(&self, bp: &BlkPtr, tx: &Tx) -> Result<u64>;

    /// How a block is to be written; [`crate::policy`] turns a dataset's properties into the answer.
    fn write_props(&self, block: &BlockKind) -> WriteProps;

    /// Bytes a block takes of the usable space, as `dn_used` counts them.
    fn dsize(&self, bp: &BlkPtr) -> u64 {
        bp.asize()
    }

    /// How changes are made durable before their txg is.
    fn log_policy(&self) -> LogPolicy {
        LogPolicy::default()
    }

    /// The object set has an intent log from the txg being synced on, or none any more.
    fn log_in_use(&self, _in_use: bool) {}

    /// The object set has something to write in `txg`: called at the first change.
    fn dirtied(&self, txg: u64);

    /// Something of the object set is about to use a feature: from the next sync on it counts as used.
    ///
    /// # Errors
    /// `Unsupported` where the feature is not enabled.
    fn uses(&self, _feature: Feature) -> Result<()> {
        Ok(())
    }

    /// Sets space aside for a change of about `need` bytes in the open `txg`; changes that free more than they take
    /// (`freeing`) may use some of what is kept back. What is under way only counts for the `patient`, who have not
    /// waited for some txgs yet. Called in open context.
    ///
    /// # Errors
    /// `NoSpace` and `Quota`.
    fn reserve(&self, _txg: u64, _need: u64, _freeing: bool, _patient: bool) -> Result<Room> {
        Ok(Room::Fits)
    }
}
