//! Gang headers (`zio_gbh_phys_t`, include/sys/zio_impl.h): a block that could not be allocated in one piece is a small
//! block of pointers to its pieces, which ends with a checksum trailer. The classic form is one 512-byte sector with
//! three pointers; with the feature `dynamic_gang_header` it fills the vdev's smallest allocation.

use crate::blkptr::{BLKPTR_SIZE, BlkPtr};
use crate::error::Result;
use crate::label::ECK_SIZE;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Bytes of a header without the feature `dynamic_gang_header`.
pub const GANG_HEADER_SIZE: usize = 512;
/// Pointers such a header has room for.
pub const GANG_HEADER_BLKPTRS: usize = gang_blkptrs(GANG_HEADER_SIZE);

/// Pointers that a header of `size` bytes has room for.
pub const fn gang_blkptrs(size: usize) -> usize {
    size.saturating_sub(ECK_SIZE) / BLKPTR_SIZE
}

/// Decodes all pointers of a header, holes included; the caller verifies the checksum.
pub fn decode_gang(buf: &[u8], endian: Endian) -> Result<Vec<BlkPtr>> {
    let mut r = Reader::new(buf, endian, "gang header");
    (0..gang_blkptrs(buf.len())).map(|_| BlkPtr::read(&mut r)).collect()
}

/// Encodes a header of `size` bytes with a trailer of zeros, which the caller seals. An error when there are more
/// pointers than fit.
pub fn encode_gang(bps: &[BlkPtr], size: usize, endian: Endian) -> Result<Vec<u8>> {
    let mut w = Writer::new(endian, "gang header", size);
    bps.iter().for_each(|bp| {
        w.bp(bp);
    });
    w.pad_to(size.saturating_sub(ECK_SIZE))?.zeros(ECK_SIZE);
    Ok(w.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_pointers_in_a_sector() {
        assert_eq!((GANG_HEADER_BLKPTRS, gang_blkptrs(4096)), (3, 31));
        for e in [Endian::Little, Endian::Big] {
            let bps: Vec<BlkPtr> = (1..=3).map(|i| BlkPtr { word: [i; 16] }).collect();
            let b = encode_gang(&bps, GANG_HEADER_SIZE, e).unwrap();
            assert_eq!((b.len(), decode_gang(&b, e).unwrap()), (512, bps.clone()));
            assert_eq!(decode_gang(&encode_gang(&bps[..1], 512, e).unwrap(), e).unwrap()[1], BlkPtr::default());
            assert!(encode_gang(&[bps[0]; 4], 512, e).is_err());
        }
    }
}
