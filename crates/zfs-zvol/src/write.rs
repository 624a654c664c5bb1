//! Making and changing volumes. Writers of one volume may run at once: blocks are independent of each other.

use crate::{DATA_OBJ, PROPS_OBJ, Zvol};
use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::{ObjectSpec, Objset, TO_END, Zap};
use zfs_phys::enums::DmuObjectType;
use zfs_zio::{Error, Result};

/// Fills a fresh object set: a volume of `size` bytes in blocks of `block_size`.
///
/// # Errors
/// Whatever writing meets.
pub fn create(objset: &Arc<Objset>, tx: &Tx, size: u64, block_size: u32) -> Result<()> {
    let spec = ObjectSpec { object_type: DmuObjectType::ZVOL, block_size, ..ObjectSpec::default() };
    objset.claim(tx, DATA_OBJ, &spec)?;
    Zap::claim(objset, tx, PROPS_OBJ, DmuObjectType::ZVOL_PROP)?.update(tx, b"size", &[size])
}

/// Makes a volume larger or smaller; what lies behind the new end is gone.
///
/// # Errors
/// `Invalid` for a size that is 0 or no multiple of the block size.
pub fn set_size(objset: &Arc<Objset>, tx: &Tx, size: u64) -> Result<()> {
    let volume = Zvol::open(objset)?;
    if size == 0 || !size.is_multiple_of(volume.block_size()) {
        return Err(Error::invalid("a volume's size that is no multiple of its block size"));
    }
    Zap::open(objset, PROPS_OBJ)?.update(tx, b"size", &[size])?;
    if size < volume.size { volume.data.free_range(tx, size, TO_END) } else { Ok(()) }
}

impl Zvol {
    /// Writes at byte `offset`.
    ///
    /// # Errors
    /// `Range` when that reaches behind the end, `ReadOnly` when the volume was not opened for writing.
    pub fn write_at(&self, tx: &Tx, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len() as u64)?;
        self.data.write_at(tx, offset, bytes)
    }

    /// Gives the space of a range back; it reads as zeros then.
    ///
    /// # Errors
    /// As [`Zvol::write_at`].
    pub fn discard(&self, tx: &Tx, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        self.data.free_range(tx, offset, len)
    }
}
