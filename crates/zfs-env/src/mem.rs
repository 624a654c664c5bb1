//! A simulated disk with faults, for tests of everything above.

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
    slow: AtomicBool,
}

impl MemDevice {
    /// A disk holding `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), ..Self::default() }
    }

    /// Overwrites bytes; what lies past the end is dropped.
    pub fn write_at(&self, offset: u64, data: &[u8]) {
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

    /// Makes reads that touch the range fail with an I/O error.
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
}

impl BlockDevice for MemDevice {
    fn size(&self) -> u64 {
        self.bytes.read().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if self.faults.lock().iter().any(|f| f.start < end && offset < f.end) {
            return Err(io::Error::other("injected fault"));
        }
        let bytes = self.bytes.read();
        let src = bytes.get(offset as usize..end as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(src);
        Ok(())
    }

    fn path(&self) -> String {
        "memory".into()
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }
}
