//! Leaves: disks and image files. Allocatable space starts behind two labels and the boot area.

use super::tree::Vdev;
use super::{ReadIo, VdevError};
use std::sync::Arc;
use zfs_env::BlockDevice;
use zfs_phys::label::{VDEV_LABEL_SIZE, VDEV_LABEL_START_SIZE};

impl Vdev {
    /// Where on which device `len` bytes at `offset` of a leaf's allocatable area are.
    pub(super) fn place(&self, offset: u64, len: usize) -> Result<(Arc<dyn BlockDevice>, u64), VdevError> {
        let device = self.device().filter(|_| self.state().is_readable()).ok_or(VdevError::NoDevice)?;
        // Offsets are of the allocatable area; only the scratch area of a RAID-Z expansion lies in front of it, and its
        // offsets come as negative numbers.
        let start = VDEV_LABEL_START_SIZE.checked_add_signed(offset as i64).ok_or(VdevError::Invalid)?;
        let end = start.checked_add(len as u64).ok_or(VdevError::Invalid)?;
        if start < 2 * VDEV_LABEL_SIZE || end > VDEV_LABEL_START_SIZE + self.leaf_asize() {
            return Err(VdevError::Invalid);
        }
        Ok((device, start))
    }

    /// The place of bytes on a leaf that waits for hardware; nothing for other leaves and inner vdevs.
    pub(super) fn slow_place(&self, offset: u64, len: usize) -> Option<(Arc<dyn BlockDevice>, u64)> {
        self.place(offset, len).ok().filter(|(d, _)| d.is_slow())
    }

    /// Counts the outcome of a read of a leaf, and blames it for a failure.
    pub(super) fn account(&self, io: &mut ReadIo<'_>, offset: u64, size: u64, result: Result<(), VdevError>) {
        match result {
            Ok(()) => self.stats.count_read(size),
            // What is not there is no news, and nothing there can be repaired.
            Err(VdevError::NoDevice) => {}
            Err(e) => {
                if e == VdevError::Io && !io.speculative {
                    self.stats.count_read_error();
                }
                io.blame(self, offset, size, e);
            }
        }
    }

    pub(super) fn read_leaf(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        let size = buf.len() as u64;
        let read = self.place(offset, buf.len()).and_then(|(device, at)| {
            device.read_at(at, buf).map_err(|error| {
                tracing::debug!(vdev = self.guid(), offset, size, %error, "read failed");
                VdevError::Io
            })
        });
        self.account(io, offset, size, read);
        read?;
        if (io.good)(buf) {
            return Ok(());
        }
        io.blame(self, offset, size, VdevError::Checksum);
        Err(VdevError::Checksum)
    }
}
