//! How the blocks of a dataset are written: what its properties, set on it or above, make of the engine's policy.

use super::{DirState, DslPool, PoolOps};
use std::sync::Arc;
use zfs_dmu::owner::BlockKind;
use zfs_dmu::policy::{RedundantMetadata, WritePolicy};
use zfs_dmu::{Result, Zap};
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::feature::Feature;
use zfs_zio::WriteProps;

/// Bits of a stored compression that name the algorithm; the rest is the level.
pub(super) const COMPRESS_BITS: u32 = 7;

/// What holds for every object set of the pool.
fn pool_policy(ops: &dyn PoolOps, from: WritePolicy) -> WritePolicy {
    WritePolicy {
        has_special: ops.has_special(),
        embed: ops.feature_enabled(Feature::EmbeddedData),
        lz4: ops.feature_enabled(Feature::Lz4Compress),
        ..from
    }
}

/// How a block of the meta object set is written.
pub fn mos_write_props(ops: &dyn PoolOps, block: &BlockKind) -> WriteProps {
    pool_policy(ops, WritePolicy::meta()).props(block)
}

/// The policy of the dataset in `dir`, from the properties set there and above.
pub(super) fn load(pool: &DslPool, dir: &Arc<DirState>) -> Result<WritePolicy> {
    let number = |name: &str, default: u64| Ok::<_, zfs_zio::Error>(pool.inherited(dir, name)?.unwrap_or(default));
    let compress = number("compression", CompressKind::On as u64)?;
    let algorithm = CompressKind::from_raw((compress & ((1 << COMPRESS_BITS) - 1)) as u8);
    let level = (compress >> COMPRESS_BITS) as u8;
    let checksum = number("checksum", ChecksumKind::On as u64)?;
    Ok(WritePolicy {
        checksum: ChecksumKind::from_raw((checksum & 0xff) as u8).unwrap_or(ChecksumKind::On),
        compress: algorithm.unwrap_or(CompressKind::On),
        complevel: if level == 0 { u8::MAX } else { level },
        copies: number("copies", 1)?.clamp(1, 3) as u8,
        redundant_metadata: match number("redundant_metadata", 0)? {
            1 => RedundantMetadata::Most,
            2 => RedundantMetadata::Some,
            3 => RedundantMetadata::None,
            _ => RedundantMetadata::All,
        },
        special_small_blocks: u32::try_from(number("special_small_blocks", 0)?).unwrap_or(0),
        ..pool_policy(&*pool.ops, WritePolicy::default())
    })
}

impl DslPool {
    /// The number that a property of the datasets in `dir` has by being set there or above.
    pub(super) fn inherited(&self, dir: &Arc<DirState>, name: &str) -> Result<Option<u64>> {
        let mut at = Some(dir.clone());
        while let Some(dir) = at {
            let zap = dir.phys().props_zapobj;
            if zap != 0 {
                let zap = Zap::open(&self.mos, zap)?;
                if let Some(local) = zap.lookup_u64(name.as_bytes())? {
                    return Ok(Some(local));
                }
                let inherits = zap.lookup_u64(format!("{name}$inherit").as_bytes())?.is_some();
                let received = zap.lookup_u64(format!("{name}$recvd").as_bytes())?;
                if let (false, Some(received)) = (inherits, received) {
                    return Ok(Some(received));
                }
            }
            at = dir.parent();
        }
        Ok(None)
    }
}
