//! A disk in memory with faults, for tests of everything above. Writes are durable at once; the disk that loses
//! them at a crash is [`crate::SimDisk`].

use crate::device::BlockDevice;
use parking_lot::{Mutex, RwLock};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A disk in memory. Bytes can be changed behind the reader's back, ranges can fail, the whole disk can vanish.
///
/// Lock order: `bytes` and `faults` are leaf locks and never held together.
#[derive(Debug, Default)]
pub struct MemDevice {
    bytes: RwLock<Vec<u8>>,
    faults: Mutex<Vec<Range<u64>>>,
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    slow: AtomicBool,
}

impl MemDevice {
    /// A disk holding `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), ..Self::default() }
    }

    /// Overwrites bytes behind the engine's back; what lies past the end is dropped.
    pub fn poke(&self, offset: u64, data: &[u8]) {
        let mut bytes = self.bytes.write();
        let start = (offset as usize).min(bytes.len());
        let end = start.saturating_add(data.len()).min(bytes.len());
        bytes[start..end].copy_from_slice(&data[..end - start]);
    }

    /// Inverts every byte of a range: silent corruption.
    pub fn corrupt(&self, range: Range<u64>) {
        let mut bytes = self.bytes.write();
        let end = (range.end as usize).min(bytes.len());
        let start = (range.start as usize).min(end);
        bytes[start..end].iter_mut().for_each(|b| *b = !*b);
    }

    /// Makes reads and writes that touch the range fail with an I/O error.
    pub fn fail(&self, range: Range<u64>) {
        self.faults.lock().push(range);
    }

    /// Forgets all failing ranges.
    pub fn heal(&self) {
        self.faults.lock().clear();
    }

    /// Pretends to wait for hardware, so that callers read in parallel.
    pub fn pretend_slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// Reads served or refused so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Writes served or refused so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// A copy of everything the disk holds.
    pub fn image(&self) -> Vec<u8> {
        self.bytes.read().clone()
    }

    /// The byte range of a request, unless it meets an injected fault or the end.
    fn range(&self, offset: u64, len: usize) -> io::Result<Range<usize>> {
        let end = offset.checked_add(len as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if self.faults.lock().iter().any(|f| f.start < end && offset < f.end) {
            return Err(io::Error::other("injected fault"));
        }
        Ok(offset as usize..end as usize)
    }
}

impl BlockDevice for MemDevice {
    fn size(&self) -> u64 {
        self.bytes.read().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let range = self.range(offset, buf.len())?;
        let bytes = self.bytes.read();
        let src = bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(src);
        Ok(())
    }

    fn path(&self) -> String {
        "memory".into()
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let range = self.range(offset, data.len())?;
        let mut bytes = self.bytes.write();
        bytes.get_mut(range).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_whole_or_refused() {
        let d = MemDevice::new(vec![0; 100]);
        d.write_at(90, &[1; 10]).unwrap();
        assert_eq!(d.write_at(91, &[2; 10]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        d.write_vectored_at(0, &[io::IoSlice::new(&[3; 2]), io::IoSlice::new(&[4; 2])]).unwrap();
        d.fail(50..51);
        assert!(d.write_at(40, &[9; 20]).is_err());
        let img = d.image();
        assert_eq!((&img[..5], img[45], &img[88..]), (&[3, 3, 4, 4, 0][..], 0, &[&[0; 2][..], &[1; 10]].concat()[..]));
        assert_eq!((d.writes(), d.discard(0, 1).unwrap_err().kind()), (5, io::ErrorKind::Unsupported));
    }
}
