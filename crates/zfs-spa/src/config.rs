//! Configurations kept in the meta object set: the trusted vdev tree, spares and cache devices.

use std::sync::Arc;
use zfs_dmu::{Error, Objset, Result, Zap};
use zfs_phys::NvList;
use zfs_phys::read::u64_at;

/// Object number of the pool directory in every meta object set.
pub const POOL_DIRECTORY: u64 = 1;
/// Largest packed list accepted.
const PACKED_MAX: u64 = 32 << 20;

/// Reads a packed list whose size is in the object's bonus.
pub fn packed_nvlist(mos: &Arc<Objset>, object: u64) -> Result<NvList> {
    let dnode = mos.dnode(object)?;
    let size = u64_at(&dnode.bonus()?, 0, dnode.phys().endian)
        .filter(|s| *s <= PACKED_MAX)
        .ok_or_else(|| Error::corrupt("packed list without a sensible size"))?;
    let bytes = dnode.read_vec(0, size as usize)?;
    NvList::decode(&bytes).map_err(|e| Error::from(e).context("reading a packed list"))
}

/// The pool's configuration as the pool itself keeps it.
pub fn trusted_config(mos: &Arc<Objset>, directory: &Zap) -> Result<NvList> {
    let object = directory.lookup_u64(b"config")?.ok_or_else(|| Error::corrupt("the pool has no configuration"))?;
    packed_nvlist(mos, object).map_err(|e| e.context("reading the pool's configuration"))
}

/// Configurations of `spares` or `l2cache`.
pub fn auxiliary(mos: &Arc<Objset>, directory: &Zap, which: &str) -> Result<Vec<NvList>> {
    match directory.lookup_u64(which.as_bytes())? {
        Some(object) => Ok(packed_nvlist(mos, object)?.lists(which).to_vec()),
        None => Ok(Vec::new()),
    }
}
