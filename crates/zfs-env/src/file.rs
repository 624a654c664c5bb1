//! Image files and block devices of the operating system, opened for reading.

use crate::device::BlockDevice;
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// A file or block device read with `pread`.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    size: u64,
    slow: bool,
}

impl FileDevice {
    /// Opens `path` for reading only. Fails with the system's error, or `InvalidInput` for anything that is neither
    /// a regular file nor a block device.
    pub fn open_read_only(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let kind = std::fs::metadata(&path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device"));
        }
        let file = File::open(&path)?;
        // Asked again of what was opened: the name may stand for something else by now.
        let meta = file.metadata()?;
        let slow = meta.file_type().is_block_device();
        let size = if slow { block_device_size(&file)? } else { meta.len() };
        Ok(Self { file, path, size, slow })
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
        self.slow
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

/// Size in bytes as the kernel knows it (`BLKGETSIZE64`).
#[cfg(target_os = "linux")]
fn block_device_size(file: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    let mut size = 0u64;
    // SAFETY: the descriptor is open, and the request writes one u64 to the pointer given.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &mut size as *mut u64) };
    if rc == 0 { Ok(size) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
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
}
