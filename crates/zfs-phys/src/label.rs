//! Places of labels on a device (`vdev_label_t`, include/sys/vdev_impl.h).
//!
//! Each device carries four copies of a 256 KiB label: two at its front, two at its end. A label is 8 KiB of padding,
//! 8 KiB of boot environment, 112 KiB of configuration nvlist and 128 KiB of uberblock slots. 3.5 MiB behind the
//! front labels are left to boot loaders; allocatable space starts at 4 MiB.

use crate::error::Result;
use crate::nvlist::NvList;
use crate::read::Endian;
use crate::uberblock::{MAX_UBERBLOCK_SHIFT, UBERBLOCK_SHIFT};
use crate::write::Writer;

/// Copies of the label on a device.
pub const VDEV_LABELS: usize = 4;
/// Bytes of one label.
pub const VDEV_LABEL_SIZE: u64 = 256 << 10;
/// Bytes of padding and boot environment before the configuration.
pub const VDEV_SKIP_SIZE: u64 = 16 << 10;
/// Bytes of padding; the boot environment block starts here.
pub const VDEV_PAD_SIZE: u64 = 8 << 10;
/// Bytes of the configuration area, checksum trailer included.
pub const VDEV_PHYS_SIZE: u64 = 112 << 10;
/// Bytes of the uberblock ring.
pub const VDEV_UBERBLOCK_RING: u64 = 128 << 10;
/// Offset of the ring within a label.
pub const VDEV_UBERBLOCK_RING_OFFSET: u64 = VDEV_SKIP_SIZE + VDEV_PHYS_SIZE;
/// Bytes at the front of a device that are never allocated: two labels and the boot area.
pub const VDEV_LABEL_START_SIZE: u64 = 4 << 20;
/// Bytes at the end of a device that are never allocated: two labels.
pub const VDEV_LABEL_END_SIZE: u64 = 2 * VDEV_LABEL_SIZE;
/// Bytes of the checksum trailer (`zio_eck_t`) of labels, uberblocks and gang headers.
pub const ECK_SIZE: usize = 40;
/// Smallest device that can hold labels and anything else (`SPA_MINDEVSIZE`).
pub const SPA_MINDEVSIZE: u64 = 64 << 20;

/// Byte offset of label `l` on a device of `psize` bytes (already rounded down to the label size).
pub fn label_offset(psize: u64, l: usize) -> Option<u64> {
    let psize = psize - psize % VDEV_LABEL_SIZE;
    let front = (l as u64).checked_mul(VDEV_LABEL_SIZE)?;
    match l {
        0 | 1 => Some(front),
        2 | 3 => psize.checked_sub(VDEV_LABELS as u64 * VDEV_LABEL_SIZE)?.checked_add(front),
        _ => None,
    }
}

/// log2 of the uberblock slot size for a top-level ashift.
pub fn uberblock_shift(ashift: u64) -> u32 {
    (ashift.min(64) as u32).clamp(UBERBLOCK_SHIFT, MAX_UBERBLOCK_SHIFT)
}

/// Decodes the configuration of a label from its 112 KiB area (trailer included).
pub fn decode_config(phys: &[u8]) -> Result<NvList> {
    NvList::decode(phys.get(..phys.len().saturating_sub(ECK_SIZE)).unwrap_or(phys))
}

/// Encodes the configuration area of a label, with a trailer of zeros that the caller seals for its place on the
/// device. An error when the list is too large.
pub fn encode_config(config: &NvList) -> Result<Vec<u8>> {
    let size = VDEV_PHYS_SIZE as usize;
    let mut w = Writer::new(Endian::NATIVE, "label", size);
    w.bytes(&config.encode_xdr()).pad_to(size - ECK_SIZE)?.zeros(ECK_SIZE);
    Ok(w.finish())
}

/// Slots of the uberblock ring of a top-level vdev's ashift.
pub fn uberblock_slots(ashift: u64) -> u64 {
    VDEV_UBERBLOCK_RING >> uberblock_shift(ashift)
}

/// Offset within a label of the slot that the root of `txg` goes to. With multihost the last slot of the ring is left to
/// its heartbeat.
pub fn uberblock_offset(txg: u64, ashift: u64, multihost: bool) -> u64 {
    let slot = txg % (uberblock_slots(ashift) - u64::from(multihost));
    VDEV_UBERBLOCK_RING_OFFSET + (slot << uberblock_shift(ashift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_at_both_ends() {
        let psize = (100 << 20) + 12345;
        let whole = psize - psize % VDEV_LABEL_SIZE;
        assert_eq!(label_offset(psize, 0), Some(0));
        assert_eq!(label_offset(psize, 1), Some(VDEV_LABEL_SIZE));
        assert_eq!(label_offset(psize, 2), Some(whole - 2 * VDEV_LABEL_SIZE));
        assert_eq!(label_offset(psize, 3), Some(whole - VDEV_LABEL_SIZE));
        assert_eq!(label_offset(1000, 3), None);
        let config = NvList { flags: 1, pairs: vec![("name".into(), crate::NvValue::String("tank".into()))] };
        let area = encode_config(&config).unwrap();
        assert_eq!((area.len() as u64, decode_config(&area).unwrap()), (VDEV_PHYS_SIZE, config.clone()));
        let huge = NvList { flags: 1, pairs: vec![("x".into(), crate::NvValue::ByteArray(vec![0; 112 << 10]))] };
        assert!(encode_config(&huge).is_err());
        assert_eq!((uberblock_slots(9), uberblock_slots(12), uberblock_slots(20)), (128, 32, 16));
        assert_eq!(uberblock_offset(33, 12, false), VDEV_UBERBLOCK_RING_OFFSET + 4096);
        assert_eq!(uberblock_offset(31, 12, true), VDEV_UBERBLOCK_RING_OFFSET);
        assert_eq!((uberblock_shift(9), uberblock_shift(12), uberblock_shift(16)), (10, 12, 13));
    }
}
