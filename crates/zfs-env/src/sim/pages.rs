//! Contents of a simulated disk: pages that copies share until one of them is written.
//!
//! A copy costs one pointer for each MiB of the disk, so that a test can keep one for every write boundary of a run.

use std::sync::Arc;

const PAGE: usize = 4096;
const PAGES_PER_CHUNK: usize = 256;
const CHUNK: u64 = (PAGE * PAGES_PER_CHUNK) as u64;

type Page = Arc<[u8; PAGE]>;

#[derive(Debug, Clone)]
struct Chunk(Vec<Option<Page>>);

/// Bytes of a disk; what was never written is zero and takes no memory.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    chunks: Vec<Option<Arc<Chunk>>>,
}

/// Cuts `[offset, offset + len)` at multiples of `unit`: start of each piece in the range, and its length.
pub(super) fn pieces(offset: u64, len: u64, unit: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = offset;
    let end = offset + len;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let n = (unit - at % unit).min(end - at);
        let piece = (at - offset, n);
        at += n;
        Some(piece)
    })
}

impl Pages {
    pub(super) fn new(size: u64) -> Self {
        Self { chunks: vec![None; size.div_ceil(CHUNK) as usize] }
    }

    fn page(&self, at: u64) -> Option<&Page> {
        let chunk = self.chunks.get((at / CHUNK) as usize)?.as_ref()?;
        chunk.0.get((at % CHUNK) as usize / PAGE)?.as_ref()
    }

    /// The slot of the page that holds byte `at`, no longer shared.
    fn slot(&mut self, at: u64) -> &mut Option<Page> {
        let chunk =
            self.chunks[(at / CHUNK) as usize].get_or_insert_with(|| Arc::new(Chunk(vec![None; PAGES_PER_CHUNK])));
        &mut Arc::make_mut(chunk).0[(at % CHUNK) as usize / PAGE]
    }

    /// Fills `buf`; the caller has checked the range.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        for (start, n) in pieces(offset, buf.len() as u64, PAGE as u64) {
            let at = offset + start;
            let dst = &mut buf[start as usize..(start + n) as usize];
            match self.page(at) {
                Some(page) => dst.copy_from_slice(&page[at as usize % PAGE..][..n as usize]),
                None => dst.fill(0),
            }
        }
    }

    /// Stores `data`; the caller has checked the range.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for (start, n) in pieces(offset, data.len() as u64, PAGE as u64) {
            let at = offset + start;
            let page = self.slot(at).get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at as usize % PAGE..][..n as usize]
                .copy_from_slice(&data[start as usize..(start + n) as usize]);
        }
    }

    /// Stores zeros; the caller has checked the range.
    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        for (start, n) in pieces(offset, len, PAGE as u64) {
            let at = offset + start;
            if n as usize == PAGE {
                *self.slot(at) = None;
            } else {
                self.write(at, &vec![0; n as usize]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_independent() {
        let mut a = Pages::new(3 << 20);
        a.write(4090, &[1; 20]);
        let b = a.clone();
        a.zero(4095, 4097);
        a.write((3 << 20) - 1, &[9]);
        let (mut x, mut y) = (vec![7; 24], vec![7; 24]);
        a.read(4088, &mut x);
        b.read(4088, &mut y);
        assert_eq!(x, [[0; 2].as_slice(), &[1; 5], &[0; 17]].concat());
        assert_eq!(y, [[0; 2].as_slice(), &[1; 20], &[0; 2]].concat());
        assert_eq!(pieces(10, 20, 8).collect::<Vec<_>>(), [(0, 6), (6, 8), (14, 6)]);
    }
}
