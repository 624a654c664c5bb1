//! Image files and block devices of the operating system.
//!
//! Writes go through the system's page cache and are made durable by [`BlockDevice::flush`]. The system is asked to begin
//! with them long before, every [`BEGIN_EVERY`] bytes, so that a flush finds little left to do: it would otherwise leave
//! the device idle for most of a transaction group and then make everybody wait. Rejected: `O_DIRECT`, which is as fast
//! in pieces of 1 MiB and several times slower in those of 16 to 64 KiB that RAID-Z columns are. A device opened for writing
//! is locked against a second writer: `O_EXCL` on a block device (Linux then refuses other exclusive openers and mounts),
//! an advisory lock on an image file. Readers are never kept out, so that `zdb` works beside a daemon.

use crate::device::BlockDevice;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
#[cfg(any(target_os = "linux", target_os = "macos"))]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes written after which the system is asked to bring them to the device.
const BEGIN_EVERY: u64 = 8 << 20;

/// A file or block device, read with `pread` and written with `pwrite`.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    size: u64,
    is_block: bool,
    read_only: bool,
    /// Set by the first failed flush, or the first that finds the file cut, and never cleared.
    failed: AtomicBool,
    /// Bytes written since the system was last asked to begin with them.
    waiting: AtomicU64,
}

impl FileDevice {
    /// Opens `path` for reading only. Fails with the system's error, or `InvalidInput` for anything that is neither
    /// a regular file nor a block device.
    pub fn open_read_only(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        check_kind(path)?;
        Self::opened(File::open(path)?, path, true)
    }

    /// Opens `path` for reading and writing and keeps every other writer out until it is dropped. Fails as
    /// [`Self::open_read_only`] does, and with `ResourceBusy` when somebody else has it open for writing.
    pub fn open_read_write(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let is_block = check_kind(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if is_block && cfg!(target_os = "linux") {
            options.custom_flags(libc::O_EXCL);
        }
        let dev = Self::opened(options.open(path)?, path, false)?;
        dev.lock()?;
        Ok(dev)
    }

    /// Makes a new image file of `size` bytes, all holes, and opens it for writing. Fails with `AlreadyExists` rather
    /// than touch a file that is there.
    pub fn create(path: impl AsRef<Path>, size: u64) -> io::Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(size)?;
        let dev = Self::opened(file, path, false)?;
        dev.lock()?;
        Ok(dev)
    }

    fn opened(file: File, path: &Path, read_only: bool) -> io::Result<Self> {
        // Asked again of what was opened: the name may stand for something else by now.
        let meta = file.metadata()?;
        let is_block = meta.file_type().is_block_device();
        let size = if is_block { block_device_size(&file)? } else { meta.len() };
        let (path, failed, waiting) = (path.to_path_buf(), AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { file, path, size, is_block, read_only, failed, waiting })
    }

    fn lock(&self) -> io::Result<()> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "device is open for writing elsewhere"))
            }
            // Some file systems know no locks; block devices are kept by O_EXCL already.
            Err(TryLockError::Error(e)) if self.is_block || e.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Counts bytes written, and has the system begin with them when they are many.
    fn written(&self, len: u64) {
        if self.waiting.fetch_add(len, Ordering::Relaxed) + len >= BEGIN_EVERY {
            self.waiting.store(0, Ordering::Relaxed);
            begin_writing(&self.file);
        }
    }

    /// An image file that somebody cut has lost what was there, though it takes writes as if nothing had happened.
    fn check_length(&self) -> io::Result<()> {
        if !self.is_block && self.file.metadata()?.len() < self.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the image file was cut"));
        }
        Ok(())
    }

    /// Refuses what may not be written: read-only devices, failed devices, ranges past the end.
    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("a flush of the device has failed"));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Asks the system to begin writing what it holds of a file, without waiting for it. No promise, so no error.
#[cfg(target_os = "linux")]
fn begin_writing(file: &File) {
    // SAFETY: the descriptor is open; no memory is involved.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn begin_writing(_: &File) {}

/// Whether `path` is a block device; an error when it is neither one nor a regular file.
fn check_kind(path: &Path) -> io::Result<bool> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_block_device() {
        Ok(kind.is_block_device())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device"))
    }
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_vectored_at(&self, offset: u64, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<()> {
        read_vectored(&self.file, offset, bufs)
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn is_slow(&self) -> bool {
        self.is_block
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write(offset, data.len() as u64)?;
        self.file.write_all_at(data, offset)?;
        self.written(data.len() as u64);
        Ok(())
    }

    fn write_vectored_at(&self, offset: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()> {
        let len = bufs.iter().map(|b| b.len() as u64).sum();
        self.check_write(offset, len)?;
        write_vectored(&self.file, offset, bufs)?;
        self.written(len);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.check_write(0, 0)?;
        let flushed = self.check_length().and_then(|()| sync(&self.file, self.is_block));
        flushed.inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, len)?;
        discard(&self.file, self.is_block, offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn sector_shifts(&self) -> (u32, u32) {
        if self.is_block { block_device_shifts(&self.file) } else { (9, 9) }
    }
}

#[cfg(target_os = "linux")]
fn read_vectored(file: &File, mut offset: u64, mut bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<()> {
    const IOV_MAX: usize = 1024;
    io::IoSliceMut::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        let count = bufs.len().min(IOV_MAX);
        // SAFETY: IoSliceMut has the layout of iovec, the slices are writable and outlive the call, and `count` does
        // not exceed their number.
        let got = unsafe {
            libc::preadv(file.as_raw_fd(), bufs.as_mut_ptr().cast(), count as libc::c_int, offset as libc::off_t)
        };
        match got {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n if n < 0 => {
                let err = io::Error::last_os_error();
                if err.kind() != io::ErrorKind::Interrupted {
                    return Err(err);
                }
            }
            n => {
                offset += n as u64;
                io::IoSliceMut::advance_slices(&mut bufs, n as usize);
            }
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn read_vectored(file: &File, mut offset: u64, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<()> {
    for buf in bufs {
        file.read_exact_at(buf, offset)?;
        offset += buf.len() as u64;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn write_vectored(file: &File, mut offset: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()> {
    const IOV_MAX: usize = 1024;
    for group in bufs.chunks(IOV_MAX) {
        let mut copy = [io::IoSlice::new(&[]); IOV_MAX];
        let copy = &mut copy[..group.len()];
        copy.copy_from_slice(group);
        let mut rest = copy;
        io::IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            // SAFETY: IoSlice has the layout of iovec, the slices outlive the call, and the count is their number.
            let put = unsafe {
                let (base, count) = (rest.as_ptr().cast(), rest.len() as libc::c_int);
                libc::pwritev(file.as_raw_fd(), base, count, offset as libc::off_t)
            };
            match put {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n if n < 0 => {
                    let err = io::Error::last_os_error();
                    if err.kind() != io::ErrorKind::Interrupted {
                        return Err(err);
                    }
                }
                n => {
                    offset += n as u64;
                    io::IoSlice::advance_slices(&mut rest, n as usize);
                }
            }
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_vectored(file: &File, mut offset: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()> {
    for buf in bufs {
        file.write_all_at(buf, offset)?;
        offset += buf.len() as u64;
    }
    Ok(())
}

/// Punches a hole into a file, or sends a block device its discard command.
#[cfg(target_os = "linux")]
fn discard(file: &File, is_block: bool, offset: u64, len: u64) -> io::Result<()> {
    const BLKDISCARD: libc::c_ulong = 0x1277;
    const MODE: libc::c_int = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    if len == 0 {
        return Ok(());
    }
    let range = [offset, len];
    // SAFETY: the descriptor is open; the ioctl reads two u64 from the pointer given.
    let rc = unsafe {
        if is_block {
            libc::ioctl(file.as_raw_fd(), BLKDISCARD as _, range.as_ptr())
        } else {
            libc::fallocate(file.as_raw_fd(), MODE, offset as libc::off_t, len as libc::off_t)
        }
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn discard(_: &File, _: bool, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// log2 of the logical and physical sector sizes (`BLKSSZGET`, `BLKPBSZGET`).
#[cfg(target_os = "linux")]
fn block_device_shifts(file: &File) -> (u32, u32) {
    let ask = |request: libc::c_ulong| {
        let mut size = 0u32;
        // SAFETY: the descriptor is open, and both requests write one 32-bit integer to the pointer given.
        let rc = unsafe { libc::ioctl(file.as_raw_fd(), request as _, &mut size as *mut u32) };
        if rc == 0 && size.is_power_of_two() { size.trailing_zeros().max(9) } else { 9 }
    };
    let logical = ask(0x1268);
    (logical, ask(0x127b).max(logical))
}

#[cfg(target_os = "macos")]
fn block_device_shifts(file: &File) -> (u32, u32) {
    let ask = |request: libc::c_ulong| {
        let mut size = 0u32;
        // SAFETY: the descriptor is open, and both requests write one 32-bit integer to the pointer given.
        let rc = unsafe { libc::ioctl(file.as_raw_fd(), request, &mut size as *mut u32) };
        if rc == 0 && size.is_power_of_two() { size.trailing_zeros().max(9) } else { 9 }
    };
    let logical = ask(mac::DKIOCGETBLOCKSIZE);
    (logical, ask(mac::DKIOCGETPHYSICALBLOCKSIZE).max(logical))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn block_device_shifts(_: &File) -> (u32, u32) {
    (9, 12)
}

/// Requests of macOS's disks (`sys/disk.h`).
#[cfg(target_os = "macos")]
mod mac {
    pub const DKIOCSYNCHRONIZECACHE: libc::c_ulong = 0x2000_6416;
    pub const DKIOCGETBLOCKSIZE: libc::c_ulong = 0x4004_6418;
    pub const DKIOCGETBLOCKCOUNT: libc::c_ulong = 0x4008_6419;
    pub const DKIOCGETPHYSICALBLOCKSIZE: libc::c_ulong = 0x4004_644d;
}

/// Brings everything written to stable storage.
#[cfg(not(target_os = "macos"))]
fn sync(file: &File, _: bool) -> io::Result<()> {
    file.sync_data()
}

/// Brings everything written to stable storage. A file is flushed with its device; a device is told itself.
#[cfg(target_os = "macos")]
fn sync(file: &File, is_block: bool) -> io::Result<()> {
    if !is_block {
        return file.sync_data();
    }
    // SAFETY: the descriptor is open; neither call takes memory of ours.
    let done = unsafe {
        libc::fsync(file.as_raw_fd()) == 0
            && libc::ioctl(file.as_raw_fd(), mac::DKIOCSYNCHRONIZECACHE, std::ptr::null_mut::<u8>()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Size in bytes as the kernel knows it (`BLKGETSIZE64`).
#[cfg(target_os = "linux")]
fn block_device_size(file: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    let mut size = 0u64;
    // SAFETY: the descriptor is open, and the request writes one u64 to the pointer given.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &mut size as *mut u64) };
    if rc == 0 { Ok(size) } else { Err(io::Error::last_os_error()) }
}

/// Size in bytes: macOS does not tell by the end of a device, but by its blocks.
#[cfg(target_os = "macos")]
fn block_device_size(file: &File) -> io::Result<u64> {
    let (mut size, mut count) = (0u32, 0u64);
    // SAFETY: the descriptor is open, and the requests write one u32 and one u64 to the pointers given.
    let done = unsafe {
        libc::ioctl(file.as_raw_fd(), mac::DKIOCGETBLOCKSIZE, &mut size as *mut u32) == 0
            && libc::ioctl(file.as_raw_fd(), mac::DKIOCGETBLOCKCOUNT, &mut count as *mut u64) == 0
    };
    let large = || io::Error::from(io::ErrorKind::FileTooLarge);
    if done { count.checked_mul(size.into()).ok_or_else(large) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn block_device_size(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    (&*file).seek(SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_ranges_or_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let data: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        std::fs::write(&path, &data).unwrap();
        let dev = FileDevice::open_read_only(&path).unwrap();
        assert_eq!(dev.size(), 10_000);
        let mut buf = [0u8; 100];
        dev.read_at(9_900, &mut buf).unwrap();
        assert_eq!(&buf[..], &data[9_900..]);
        assert_eq!(dev.read_at(9_901, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut a, mut b) = (vec![0u8; 7], vec![0u8; 4000]);
        dev.read_vectored_at(3, &mut [io::IoSliceMut::new(&mut a), io::IoSliceMut::new(&mut b)]).unwrap();
        assert_eq!((&a[..], &b[..]), (&data[3..10], &data[10..4010]));
        assert!(FileDevice::open_read_only(dir.path()).is_err());
    }
    #[test]
    fn one_writer_at_a_time_and_readers_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let dev = FileDevice::create(&path, 1 << 20).unwrap();
        assert!(FileDevice::create(&path, 1).is_err());
        assert_eq!(FileDevice::open_read_write(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        let many: Vec<[u8; 3]> = (0..2500u32).map(|i| [i as u8, (i >> 8) as u8, 7]).collect();
        let slices: Vec<_> = many.iter().map(|b| io::IoSlice::new(b)).collect();
        dev.write_vectored_at(100, &slices).unwrap();
        dev.write_at((1 << 20) - 2, b"ab").unwrap();
        assert_eq!(dev.write_at((1 << 20) - 1, b"ab").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        dev.flush().unwrap();
        let reader = FileDevice::open_read_only(&path).unwrap();
        assert_eq!(reader.write_at(0, b"x").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        let mut buf = vec![0u8; 7500];
        reader.read_at(100, &mut buf).unwrap();
        assert_eq!(buf, many.concat());
        if dev.discard(0, 4096).is_ok() {
            reader.read_at(0, &mut buf[..4096]).unwrap();
            assert!(buf[..4096].iter().all(|b| *b == 0));
        }
        dev.failed.store(true, Ordering::Release);
        assert!(dev.flush().is_err() && dev.write_at(0, b"x").is_err() && dev.read_at(0, &mut buf).is_ok());
        drop(dev);
        assert!(!FileDevice::open_read_write(&path).unwrap().is_read_only());
    }

    #[test]
    fn a_file_that_was_cut_is_a_failed_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let dev = FileDevice::create(&path, 1 << 20).unwrap();
        dev.flush().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        dev.write_at(4096, b"as if nothing had happened").unwrap();
        assert!(dev.flush().is_err());
        dev.write_at((1 << 20) - 1, b"x").unwrap_err();
        assert!(dev.flush().is_err());
    }
}
