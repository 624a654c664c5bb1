//! How blocks are written: from a dataset's properties and a block's kind to checksum, compression and copies.
//!
//! Metadata is always compressed and always checksummed by a function strong enough for it, and has one copy more than
//! data as `redundant_metadata` asks (`dmu_write_policy`, module/zfs/dmu.c). The pool's own object set has three copies.

use crate::owner::BlockKind;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_zio::WriteProps;
use zfs_zio::alloc::Class;

/// `redundant_metadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedundantMetadata {
    /// One more copy of all metadata.
    #[default]
    All,
    /// One more copy of what much depends on.
    Most,
    /// One more copy of what is not a file's own indirect blocks of any level.
    Some,
    /// None.
    None,
}

/// The properties of a dataset that decide how its blocks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WritePolicy {
    /// `checksum`.
    pub checksum: ChecksumKind,
    /// `compression`.
    pub compress: CompressKind,
    /// Level of zstd; 255 for its default.
    pub complevel: u8,
    /// `copies`.
    pub copies: u8,
    /// `redundant_metadata`.
    pub redundant_metadata: RedundantMetadata,
    /// Largest block of data that goes to the special class; 0 for none.
    pub special_small_blocks: u32,
    /// Whether the pool has special vdevs.
    pub has_special: bool,
    /// Small blocks may be kept in pointers (`embedded_data` is enabled).
    pub embed: bool,
    /// lz4 is enabled; metadata is compressed by lzjb otherwise.
    pub lz4: bool,
    /// The object set is the pool's own.
    pub meta: bool,
}

impl Default for WritePolicy {
    fn default() -> Self {
        Self {
            checksum: ChecksumKind::Fletcher4,
            compress: CompressKind::Lz4,
            complevel: u8::MAX,
            copies: 1,
            redundant_metadata: RedundantMetadata::All,
            special_small_blocks: 0,
            has_special: false,
            embed: true,
            lz4: true,
            meta: false,
        }
    }
}

/// Whether a checksum may protect metadata: old and weak ones may not (`ZCHECKSUM_FLAG_METADATA`).
fn good_for_metadata(kind: ChecksumKind) -> bool {
    use ChecksumKind as C;
    matches!(kind, C::Fletcher4 | C::Sha256 | C::Sha512 | C::Skein | C::Edonr | C::Blake3)
}

/// Whether equal checksums mean equal contents (`ZCHECKSUM_FLAG_NOPWRITE`).
fn proves_equality(kind: ChecksumKind) -> bool {
    use ChecksumKind as C;
    matches!(kind, C::Sha256 | C::Sha512 | C::Skein | C::Edonr | C::Blake3)
}

impl WritePolicy {
    /// The policy of the pool's own object set.
    pub fn meta() -> Self {
        Self { copies: 3, meta: true, ..Self::default() }
    }

    fn extra_copy(&self, block: &BlockKind) -> bool {
        let file = !block.object_type.is_metadata() && !block.spill;
        match self.redundant_metadata {
            RedundantMetadata::All => true,
            RedundantMetadata::Most => block.level >= 2 || !file,
            RedundantMetadata::Some => !file,
            RedundantMetadata::None => false,
        }
    }

    fn lz4_or_older(&self) -> CompressKind {
        if self.lz4 { CompressKind::Lz4 } else { CompressKind::Lzjb }
    }

    fn chosen(&self, own: CompressKind) -> CompressKind {
        match own {
            CompressKind::On => self.lz4_or_older(),
            kind => kind,
        }
    }

    /// How a block of that kind is written.
    pub fn props(&self, block: &BlockKind) -> WriteProps {
        let mut props = WriteProps::new(block.object_type, block.level);
        props.complevel = self.complevel;
        let own_sum = match self.checksum {
            ChecksumKind::On | ChecksumKind::Inherit => ChecksumKind::Fletcher4,
            kind => kind,
        };
        if block.is_metadata() {
            props.compress = self.lz4_or_older();
            props.checksum = if good_for_metadata(own_sum) { own_sum } else { ChecksumKind::Fletcher4 };
            props.copies =
                if self.meta { self.copies } else { (self.copies + u8::from(self.extra_copy(block))).min(3) };
        } else {
            let asked = ChecksumKind::from_raw(block.checksum).filter(|k| *k != ChecksumKind::Inherit);
            props.checksum = match asked.unwrap_or(own_sum) {
                ChecksumKind::On => ChecksumKind::Fletcher4,
                kind => kind,
            };
            let asked = CompressKind::from_raw(block.compress).filter(|k| *k != CompressKind::Inherit);
            props.compress = self.chosen(asked.unwrap_or(self.compress));
            props.copies = self.copies.clamp(1, 3);
            props.nopwrite = proves_equality(props.checksum) && props.compress != CompressKind::Off;
        }
        let special = block.is_metadata() || block.lsize <= u64::from(self.special_small_blocks);
        if self.has_special && special {
            props.class = Class::Special;
        }
        // Blocks of dnodes and headers are looked up by address; everything else of level 0 may live in its pointer.
        let own_block = matches!(block.object_type, DmuObjectType::DNODE | DmuObjectType::OBJSET);
        props.embed = self.embed && block.level == 0 && !own_block;
        props
    }
}
