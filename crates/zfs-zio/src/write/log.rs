//! Blocks of intent logs: allocated before it is known what goes into them, written once, and never ganged.
//!
//! The chain of a log names each next block before that is written; so the block's identity, not its contents, is what
//! its pointer's checksum words hold (which log, which block of it), and the contents are sealed with it.

use super::gate::Bytes;
use crate::alloc::{Ask, Class};
use crate::bookmark::Zbookmark;
use crate::error::{Error, ErrorKind, Result};
use crate::zio::Zio;
use zfs_codec::checksum::seal_embedded;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_phys::{BlkPtr, Endian};

/// Where intent logs go, the best place first.
const CLASSES: [Class; 3] = [Class::Log, Class::EmbeddedLog, Class::Normal];

impl Zio {
    /// Allocates a block of `size` bytes (a multiple of 4096) for an intent log: on log vdevs, else on metaslabs set
    /// aside, else anywhere. The pointer has everything but its checksum words, which name log and block. `txg` must be
    /// held open by the caller.
    ///
    /// Fails with `NoSpace` when there is no range of that size; smaller blocks may still be had.
    pub fn alloc_log(&self, txg: u64, size: u64, bm: &Zbookmark) -> Result<BlkPtr> {
        let writer = self.writer()?;
        for class in CLASSES {
            let ask = Ask { class, psize: size, copies: 1, txg, stream: bm.objset, gang: false };
            let since = self.resumptions();
            let Some(dvas) = self.judge(since, writer.alloc().alloc(self.vdevs(), &ask))? else { continue };
            let mut bp = BlkPtr::default();
            dvas.iter().enumerate().for_each(|(d, dva)| bp.set_dva(d, *dva));
            bp.set_lsize(size);
            bp.set_psize(size);
            bp.set_compress(CompressKind::Off);
            bp.set_checksum_kind(ChecksumKind::Zilog2);
            bp.set_object_type(DmuObjectType::INTENT_LOG);
            bp.set_endian(Endian::NATIVE);
            bp.set_birth(txg, txg);
            return Ok(bp);
        }
        Err(Error::new(ErrorKind::NoSpace, "allocating an intent-log block").pool(self.pool_name()).at(bm))
    }

    /// Seals an intent-log block of `bp.psize()` bytes (its header must be filled in, magic and checksum excepted) and
    /// writes it. Durable after the next flush.
    pub fn write_log(&self, bp: &BlkPtr, data: &mut [u8]) -> Result<()> {
        self.writer()?;
        if data.len() as u64 != bp.psize() || bp.checksum_kind() != Some(ChecksumKind::Zilog2) {
            return Err(Error::invalid("writing an intent-log block of the wrong size or kind").pool(self.pool_name()));
        }
        seal_embedded(ChecksumKind::Zilog2, data, bp.checksum(), Endian::NATIVE, None)?;
        self.judge(self.resumptions(), self.write_copies(bp, Bytes::Slice(data)))
    }
}
