//! Leaves: disks and image files. Allocatable space starts behind two labels and the boot area.

use super::tree::Vdev;
use super::{ReadIo, VdevError};
use zfs_phys::label::{VDEV_LABEL_SIZE, VDEV_LABEL_START_SIZE};

impl Vdev {
    /// Reads raw bytes of a leaf at `offset` of its allocatable area and counts; judges nothing.
    pub(crate) fn leaf_read(&self, offset: u64, buf: &mut [u8], speculative: bool) -> Result<(), VdevError> {
        let Some(device) = self.device().filter(|_| self.state().is_readable()) else {
            return Err(VdevError::NoDevice);
        };
        // Offsets are of the allocatable area; only the scratch area of a RAID-Z expansion lies in front of it, and its
        // offsets come as negative numbers.
        let start = VDEV_LABEL_START_SIZE.checked_add_signed(offset as i64).ok_or(VdevError::Invalid)?;
        let end = start.checked_add(buf.len() as u64).ok_or(VdevError::Invalid)?;
        if start < 2 * VDEV_LABEL_SIZE || end > VDEV_LABEL_START_SIZE + self.leaf_asize() {
            return Err(VdevError::Invalid);
        }
        let result = device.read_at(start, buf);
        match result {
            Ok(()) => {
                self.stats.count_read(buf.len() as u64);
                Ok(())
            }
            Err(error) => {
                tracing::debug!(vdev = self.guid(), offset, size = buf.len(), %error, "read failed");
                if !speculative {
                    self.stats.count_read_error();
                }
                Err(VdevError::Io)
            }
        }
    }

    pub(super) fn read_leaf(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        let size = buf.len() as u64;
        if let Err(e) = self.leaf_read(offset, buf, io.speculative) {
            // What is not there is no news, and nothing there can be repaired.
            if e != VdevError::NoDevice {
                io.blame(self, offset, size, e);
            }
            return Err(e);
        }
        if (io.good)(buf) {
            return Ok(());
        }
        io.blame(self, offset, size, VdevError::Checksum);
        Err(VdevError::Checksum)
    }
}
