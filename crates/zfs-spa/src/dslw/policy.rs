//! How the blocks of a dataset are written: what its properties say, and what metadata gets in any case.

use super::{DirState, DslPool, PoolOps};
use std::sync::Arc;
use zfs_dmu::owner::BlockKind;
use zfs_dmu::{Result, Zap};
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType as Ot};
use zfs_phys::feature::Feature;
use zfs_zio::WriteProps;
use zfs_zio::alloc::Class;

/// Bits of a stored compression that name the algorithm; the rest is the level.
const COMPRESS_BITS: u32 = 7;
/// Most copies of a block.
const MAX_COPIES: u8 = 3;

/// Which metadata gets one more copy (`redundant_metadata`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Redundant {
    /// All.
    #[default]
    All,
    /// All but the lowest level of indirect blocks of files.
    Most,
    /// What is critical for more than one file.
    Some,
    /// Only what the copies property asks for.
    None,
}

/// What the properties of a dataset say about its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    checksum: ChecksumKind,
    compress: CompressKind,
    level: u8,
    copies: u8,
    redundant: Redundant,
    /// Blocks of files up to this size go to the special class, bytes.
    special_small: u64,
}

/// What "on" and the default stand for.
const DEFAULT_CHECKSUM: ChecksumKind = ChecksumKind::Fletcher4;

impl Policy {
    /// What the meta object set gets.
    const fn mos() -> Self {
        Self {
            checksum: DEFAULT_CHECKSUM,
            compress: CompressKind::On,
            level: u8::MAX,
            copies: MAX_COPIES,
            redundant: Redundant::All,
            special_small: 0,
        }
    }

    /// The policy of the dataset in `dir`, from the properties set there and above.
    pub(super) fn load(pool: &DslPool, dir: &Arc<DirState>) -> Result<Self> {
        let number = |name: &str, default: u64| Ok::<_, zfs_zio::Error>(pool.inherited(dir, name)?.unwrap_or(default));
        let checksum = ChecksumKind::from_raw((number("checksum", 1)? & 0xff) as u8);
        let compress = number("compression", 1)?;
        let algorithm = CompressKind::from_raw((compress & ((1 << COMPRESS_BITS) - 1)) as u8);
        let level = (compress >> COMPRESS_BITS) as u8;
        Ok(Self {
            checksum: match checksum {
                None | Some(ChecksumKind::Inherit | ChecksumKind::On) => DEFAULT_CHECKSUM,
                Some(kind) => kind,
            },
            compress: algorithm.unwrap_or(CompressKind::On),
            level: if level == 0 { u8::MAX } else { level },
            copies: number("copies", 1)?.clamp(1, u64::from(MAX_COPIES)) as u8,
            redundant: match number("redundant_metadata", 0)? {
                1 => Redundant::Most,
                2 => Redundant::Some,
                3 => Redundant::None,
                _ => Redundant::All,
            },
            special_small: number("special_small_blocks", 0)?,
        })
    }

    /// How a block is written.
    pub(super) fn props(&self, ops: &dyn PoolOps, block: &BlockKind) -> WriteProps {
        let metadata = block.is_metadata();
        let lz4 = ops.feature_enabled(Feature::Lz4Compress);
        let on = if lz4 { CompressKind::Lz4 } else { CompressKind::Lzjb };
        let asked = match CompressKind::from_raw(block.compress) {
            None | Some(CompressKind::Inherit) => self.compress,
            Some(kind) => kind,
        };
        let compress = if metadata || asked == CompressKind::On { on } else { asked };
        let checksum = match ChecksumKind::from_raw(block.checksum) {
            None | Some(ChecksumKind::Inherit | ChecksumKind::On) => self.checksum,
            Some(kind) => kind,
        };
        let checksum = if metadata && !is_strong(checksum) { DEFAULT_CHECKSUM } else { checksum };
        let copies = (self.copies + u8::from(metadata && self.one_more(block))).min(MAX_COPIES);
        let small = !metadata && block.lsize <= self.special_small;
        let special = (small || metadata) && ops.has_special();
        WriteProps {
            object_type: block.object_type,
            level: block.level,
            checksum,
            compress,
            complevel: self.level,
            copies,
            class: if special { Class::Special } else { Class::Normal },
            embed: ops.feature_enabled(Feature::EmbeddedData)
                && block.level == 0
                && !matches!(block.object_type, Ot::DNODE | Ot::OBJSET),
            nopwrite: !metadata && is_cryptographic(checksum),
            ..WriteProps::new(block.object_type, block.level)
        }
    }

    fn one_more(&self, block: &BlockKind) -> bool {
        match self.redundant {
            Redundant::All => true,
            Redundant::Most => block.level > 1 || block.object_type.is_metadata() || block.spill,
            Redundant::Some => block.object_type.is_metadata() && block.object_type != Ot::DIRECTORY_CONTENTS,
            Redundant::None => false,
        }
    }
}

/// Checksums that metadata may have: those that find more than a few flipped bits.
const fn is_strong(kind: ChecksumKind) -> bool {
    matches!(kind, ChecksumKind::Fletcher4) || is_cryptographic(kind)
}

/// Checksums by which two blocks are known to be equal.
const fn is_cryptographic(kind: ChecksumKind) -> bool {
    use ChecksumKind as K;
    matches!(kind, K::Sha256 | K::Sha512 | K::Skein | K::Edonr | K::Blake3)
}

impl DslPool {
    /// The number that a property of the datasets in `dir` has by being set there or above.
    pub(super) fn inherited(&self, dir: &Arc<DirState>, name: &str) -> Result<Option<u64>> {
        let mut at = Some(dir);
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
            at = dir.parent.as_ref();
        }
        Ok(None)
    }
}

/// How a block of the meta object set is written.
pub fn mos_write_props(ops: &dyn PoolOps, block: &BlockKind) -> WriteProps {
    Policy::mos().props(ops, block)
}
