//! What lower layers need out of the meta object set: mappings of removed vdevs, dirty time logs, the state of a RAID-Z
//! expansion.

use std::sync::Arc;
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::{Objset, Result, Zap};
use zfs_phys::indirect::{IndirectMappingEntry, IndirectMappingPhys, MAPPING_ENTRY_SIZE, decode_entries};
use zfs_phys::scan::RemovingPhys;
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_phys::uberblock::Uberblock;
use zfs_zio::{Error, VdevKind, Zio};

/// Most ranges taken from one dirty time log.
const MAX_DTL_RANGES: usize = 1 << 20;
/// Most bytes of a mapping (`vdev_indirect_mapping` limits the memory it may take alike).
const MAX_MAPPING: u64 = 1 << 32;
/// `RRSS_SCRATCH_VALID`: the scratch area holds the truth about the first rows.
const SCRATCH_VALID: u16 = 1;

/// Hands the zio the place up to which an expansion has moved blocks.
pub(crate) fn set_reflow(zio: &Zio, ub: &Uberblock) {
    zio.vdevs().set_reflow(ub.reflow_offset(), ub.reflow_scratch_state() == SCRATCH_VALID);
}

/// Hands the zio the mappings of all removed vdevs, the one removed last first: a mapping may itself lie on a vdev
/// that was removed after it was written.
pub(crate) fn load_mappings(zio: &Zio, mos: &Arc<Objset>, directory: &Zap) -> Result<()> {
    let Some(value) = directory.lookup(b"com.delphix:removing")? else { return Ok(()) };
    let removing = RemovingPhys::from_words(&value.u64s()).ok_or_else(|| Error::corrupt("state of a removal"))?;
    let mut next = removing.prev_indirect_vdev;
    let mut left = zio.vdevs().root().children.len();
    while next != u64::MAX {
        let vdev = zio.vdevs().top(next).filter(|v| v.config.kind == VdevKind::Indirect);
        let vdev = vdev.filter(|_| left > 0).ok_or_else(|| Error::corrupt("list of removed vdevs"))?;
        left -= 1;
        if let Some(object) = vdev.config.indirect_object.filter(|o| *o != 0) {
            zio.set_indirect_mapping(next, read_mapping(mos, object)?)?;
        }
        next = vdev.config.prev_indirect_vdev.unwrap_or(u64::MAX);
    }
    Ok(())
}

/// Entries of a mapping object.
pub fn read_mapping(mos: &Arc<Objset>, object: u64) -> Result<Vec<IndirectMappingEntry>> {
    let dnode = mos.dnode(object)?;
    let phys = IndirectMappingPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
    let bytes = phys.num_entries.checked_mul(MAPPING_ENTRY_SIZE as u64).filter(|b| *b <= MAX_MAPPING);
    let bytes = bytes.ok_or_else(|| Error::corrupt("a mapping that is too large"))? as usize;
    let mut data = Vec::new();
    let mut order = dnode.phys().endian;
    for blkid in 0.. {
        if data.len() >= bytes {
            break;
        }
        // A forged count must not make more memory than there is data.
        let block = dnode.read_block_endian(blkid)?;
        let (buf, endian) = block.ok_or_else(|| Error::corrupt("a mapping longer than its object"))?;
        order = endian;
        data.extend_from_slice(&buf);
    }
    // Pools move between machines, but not while a mapping is being written: one byte order holds for all of it.
    data.truncate(bytes);
    Ok(decode_entries(&data, order)?)
}

/// Hands the zio what each leaf is known to lack.
pub(crate) fn load_dtls(zio: &Zio, mos: &Arc<Objset>) -> Result<()> {
    for leaf in zio.vdevs().leaves() {
        let Some(object) = leaf.config.dtl.filter(|o| *o != 0) else { continue };
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        SpaceMap::open(mos, object)?.iterate(|entry| {
            let SmEntry::Segment { kind, offset, run, .. } = entry else { return Ok(()) };
            let range = offset..offset.saturating_add(run);
            match kind {
                MapType::Alloc => ranges.push(range),
                MapType::Free => ranges.retain(|r| r.start < range.start || r.end > range.end),
            }
            if ranges.len() > MAX_DTL_RANGES {
                return Err(Error::corrupt("a dirty time log with too many ranges"));
            }
            Ok(())
        })?;
        leaf.set_dtl(ranges);
    }
    Ok(())
}
