//! The one seam towards disks.

use std::io;

/// A disk, a partition or an image file. Reads may come from many threads at once.
pub trait BlockDevice: Send + Sync {
    /// Bytes the device holds.
    fn size(&self) -> u64;

    /// Fills `buf` from byte `offset`; a short read is an error (`UnexpectedEof`).
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Fills several buffers that lie one behind the other on the device.
    fn read_vectored_at(&self, mut offset: u64, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<()> {
        for buf in bufs {
            self.read_at(offset, buf)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    /// Path the device was opened by, for messages.
    fn path(&self) -> String;

    /// Whether reads wait for hardware, so that several at once finish sooner than one after the other.
    fn is_slow(&self) -> bool {
        false
    }
}
