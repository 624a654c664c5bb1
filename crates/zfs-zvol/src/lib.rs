//! A block volume: one object of data, and one small table that tells its size.
//!
//! Object 1 of the object set holds the bytes, object 2 is a ZAP whose `size` is the volume's size (`ZVOL_OBJ` and
//! `ZVOL_ZAP_OBJ`, include/sys/zvol.h). The dataset never changes under a reader, so a [`Zvol`] holds no lock.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod replay;
mod write;

pub use replay::replay;
pub use write::{create, set_size};

use std::sync::Arc;
use zfs_dmu::{Dnode, Objset, Seek, Zap};
use zfs_phys::enums::ObjsetType;
use zfs_zio::{Buf, Error, ErrorKind, Result};

/// Object that holds the data.
const DATA_OBJ: u64 = 1;
/// Object that holds the properties.
const PROPS_OBJ: u64 = 2;

/// An open volume.
pub struct Zvol {
    data: Arc<Dnode>,
    size: u64,
}

impl std::fmt::Debug for Zvol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zvol(objset {}, {} bytes)", self.data.objset_id(), self.size)
    }
}

impl Zvol {
    /// Opens the volume of an object set. Fails with [`ErrorKind::Invalid`] when it holds none.
    pub fn open(objset: &Arc<Objset>) -> Result<Self> {
        if objset.phys().os_type != ObjsetType::Zvol {
            return Err(Error::invalid("opening a dataset that is no volume as one"));
        }
        let size = Zap::open(objset, PROPS_OBJ)?
            .lookup_u64(b"size")?
            .ok_or_else(|| Error::corrupt("a volume without size"))?;
        let data = objset.dnode(DATA_OBJ)?;
        if data.datablksz() == 0 {
            return Err(Error::corrupt("a volume with blocks of no size"));
        }
        Ok(Self { data, size })
    }

    /// Size, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `volblocksize`, bytes: the best unit of I/O.
    pub fn block_size(&self) -> u64 {
        self.data.datablksz()
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::new(ErrorKind::Range, "reading behind the end of a volume")),
        }
    }

    /// Fills `buf` from byte `offset`. Fails with [`ErrorKind::Range`] when that reaches behind the end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.data.read_at(offset, buf)
    }

    /// The block that holds byte `offset`, shared with the cache; nothing for a hole.
    pub fn read_block(&self, offset: u64) -> Result<Option<Buf>> {
        self.check(offset, 1)?;
        self.data.read_block(offset / self.block_size())
    }

    /// The first byte at or behind `offset` that is data or hole; the end of the volume when there is none.
    pub fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        self.check(offset, 0)?;
        Ok(self.data.next_offset(offset, what)?.map_or(self.size, |at| at.clamp(offset, self.size)))
    }

    /// Asks for a range to be fetched in the background; best effort.
    pub fn prefetch(&self, offset: u64, len: u64) {
        self.data.prefetch(offset, len);
    }
}
