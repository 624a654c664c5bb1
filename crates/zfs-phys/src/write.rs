//! The opposite of [`crate::read`]: a buffer that integers of either byte order are appended to.

use crate::blkptr::BlkPtr;
use crate::error::{DecodeError, Result};
use crate::read::Endian;

/// A growing buffer of one byte order.
#[derive(Debug, Clone)]
pub struct Writer {
    buf: Vec<u8>,
    endian: Endian,
    what: &'static str,
}

impl Writer {
    /// An empty buffer; `what` names the structure in errors, `room` is its expected size.
    pub fn new(endian: Endian, what: &'static str, room: usize) -> Self {
        Self { buf: Vec::with_capacity(room), endian, what }
    }

    /// The byte order integers are written in.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Bytes written so far.
    pub fn pos(&self) -> usize {
        self.buf.len()
    }

    /// An error at the current position.
    pub fn err(&self, why: impl Into<std::borrow::Cow<'static, str>>) -> DecodeError {
        DecodeError::new(self.what, self.buf.len(), why)
    }

    /// Appends bytes.
    pub fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(b);
        self
    }

    /// Appends `n` zero bytes.
    pub fn zeros(&mut self, n: usize) -> &mut Self {
        self.buf.resize(self.buf.len().saturating_add(n), 0);
        self
    }

    /// Appends zeros up to byte `pos`, behind which nothing may have been written yet.
    pub fn pad_to(&mut self, pos: usize) -> Result<&mut Self> {
        if self.buf.len() > pos {
            return Err(self.err(format!("contents reach past byte {pos}")));
        }
        self.buf.resize(pos, 0);
        Ok(self)
    }

    /// Appends zeros up to a multiple of `unit` bytes.
    pub fn align(&mut self, unit: usize) -> &mut Self {
        let to = self.buf.len().next_multiple_of(unit.max(1));
        self.buf.resize(to, 0);
        self
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.buf.push(v);
        self
    }

    /// Appends a 16-bit integer.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.buf.extend(self.endian.put_u16(v));
        self
    }

    /// Appends a 32-bit integer.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.buf.extend(self.endian.put_u32(v));
        self
    }

    /// Appends a 64-bit integer.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.buf.extend(self.endian.put_u64(v));
        self
    }

    /// Appends 64-bit integers.
    pub fn u64s(&mut self, words: &[u64]) -> &mut Self {
        for w in words {
            self.u64(*w);
        }
        self
    }

    /// Appends a block pointer.
    pub fn bp(&mut self, bp: &BlkPtr) -> &mut Self {
        self.u64s(&bp.word)
    }

    /// The buffer.
    pub fn finish(self) -> Vec<u8> {
        self.buf
    }
}

/// The bytes of 64-bit integers, as ZAP values and word arrays are kept in `endian`.
pub fn words_to_bytes(words: &[u64], endian: Endian) -> Vec<u8> {
    words.iter().flat_map(|w| endian.put_u64(*w)).collect()
}

/// Overwrites the bytes at `at`; false, and nothing written, when they do not fit.
pub(crate) fn put(buf: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    match at.checked_add(bytes.len()).and_then(|end| buf.get_mut(at..end)) {
        Some(dst) => {
            dst.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Reader;

    #[test]
    fn what_is_written_is_read() {
        for e in [Endian::Little, Endian::Big] {
            let mut w = Writer::new(e, "test", 0);
            w.u8(1).u16(0x203).u32(0x405_0607).u64(0x809).align(8).bytes(b"xy").u64s(&[7, 8]);
            assert!(w.pad_to(3).is_err());
            w.pad_to(40).unwrap();
            let b = w.finish();
            let mut r = Reader::new(&b, e, "test");
            assert_eq!((r.u8(), r.u16(), r.u32(), r.u64()), (Ok(1), Ok(0x203), Ok(0x405_0607), Ok(0x809)));
            r.seek(16).unwrap();
            assert_eq!((r.bytes(2).unwrap(), r.u64s::<2>().unwrap(), b.len()), (&b"xy"[..], [7, 8], 40));
        }
    }
}
