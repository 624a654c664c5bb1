//! The one seam towards disks.
//!
//! Invariants every implementation keeps: a write is durable only after a [`BlockDevice::flush`] that began after the
//! write returned has itself returned without error; and a device on which a flush failed once refuses all later
//! writes and flushes, because nobody can tell any more which of the earlier writes the medium has (the system may
//! have dropped the dirty pages and would report the next flush as good).

use std::io;

/// A disk, a partition or an image file. Reads and writes may come from many threads at once; whoever needs an order
/// between overlapping ones makes it.
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

    /// Writes all of `data` at byte `offset`, volatile until the next flush. Fails with `ReadOnlyFilesystem` on a device
    /// opened for reading, with `UnexpectedEof` past its end (nothing is written then); after any other error the
    /// range holds old bytes, new bytes or a mixture.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _ = (offset, data);
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Writes several buffers one behind the other.
    fn write_vectored_at(&self, mut offset: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()> {
        for buf in bufs {
            self.write_at(offset, buf)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    /// Makes every write that has returned durable. Nothing to do on a device opened for reading.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Tells the device that `len` bytes at `offset` hold nothing of interest; they read as anything afterwards. Fails
    /// with `Unsupported` where the device has no such command.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool {
        true
    }

    /// log2 of the smallest unit the device can write, and of the unit it writes without reading first.
    fn sector_shifts(&self) -> (u32, u32) {
        (9, 9)
    }
}
