//! A checked cursor over bytes of either byte order.

use crate::error::{DecodeError, Result};

/// Byte order in which a block was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Least significant byte first (x86, arm64).
    Little,
    /// Most significant byte first (sparc, XDR).
    Big,
}

impl Endian {
    /// The byte order of this machine.
    pub const NATIVE: Endian = if cfg!(target_endian = "big") { Endian::Big } else { Endian::Little };

    /// The other byte order.
    pub const fn swapped(self) -> Endian {
        match self {
            Endian::Little => Endian::Big,
            Endian::Big => Endian::Little,
        }
    }

    /// Decodes a 16-bit integer.
    #[inline]
    pub const fn u16(self, b: [u8; 2]) -> u16 {
        match self {
            Endian::Little => u16::from_le_bytes(b),
            Endian::Big => u16::from_be_bytes(b),
        }
    }

    /// Decodes a 32-bit integer.
    #[inline]
    pub const fn u32(self, b: [u8; 4]) -> u32 {
        match self {
            Endian::Little => u32::from_le_bytes(b),
            Endian::Big => u32::from_be_bytes(b),
        }
    }

    /// Decodes a 64-bit integer.
    #[inline]
    pub const fn u64(self, b: [u8; 8]) -> u64 {
        match self {
            Endian::Little => u64::from_le_bytes(b),
            Endian::Big => u64::from_be_bytes(b),
        }
    }

    /// Encodes a 16-bit integer.
    pub const fn put_u16(self, v: u16) -> [u8; 2] {
        match self {
            Endian::Little => v.to_le_bytes(),
            Endian::Big => v.to_be_bytes(),
        }
    }

    /// Encodes a 32-bit integer.
    pub const fn put_u32(self, v: u32) -> [u8; 4] {
        match self {
            Endian::Little => v.to_le_bytes(),
            Endian::Big => v.to_be_bytes(),
        }
    }

    /// Encodes a 64-bit integer.
    pub const fn put_u64(self, v: u64) -> [u8; 8] {
        match self {
            Endian::Little => v.to_le_bytes(),
            Endian::Big => v.to_be_bytes(),
        }
    }
}

/// A cursor that never reads past its buffer.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
    endian: Endian,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `buf`; `what` names the structure in errors.
    #[inline]
    pub fn new(buf: &'a [u8], endian: Endian, what: &'static str) -> Self {
        Self { buf, pos: 0, endian, what }
    }

    /// The byte order integers are read in.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Bytes consumed so far.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.buf.len().saturating_sub(self.pos)
    }

    /// Moves the cursor to an absolute position, which may not lie past the end.
    pub fn seek(&mut self, pos: usize) -> Result<()> {
        if pos > self.buf.len() {
            return Err(self.err(format!("offset {pos} lies past the end ({} bytes)", self.buf.len())));
        }
        self.pos = pos;
        Ok(())
    }

    /// An error at the current position.
    pub fn err(&self, why: impl Into<std::borrow::Cow<'static, str>>) -> DecodeError {
        DecodeError::new(self.what, self.pos, why)
    }

    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.pos.checked_add(n);
        match end.and_then(|e| self.buf.get(self.pos..e)) {
            Some(s) => {
                self.pos += n;
                Ok(s)
            }
            None => Err(self.too_short(n)),
        }
    }

    #[cold]
    fn too_short(&self, n: usize) -> DecodeError {
        self.err(format!("{n} bytes wanted, {} left", self.remaining()))
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0u8; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// Skips `n` bytes.
    pub fn skip(&mut self, n: usize) -> Result<()> {
        self.bytes(n).map(|_| ())
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A 16-bit integer.
    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        let e = self.endian;
        self.array().map(|b| e.u16(b))
    }

    /// A 32-bit integer.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        let e = self.endian;
        self.array().map(|b| e.u32(b))
    }

    /// A 64-bit integer.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        let e = self.endian;
        self.array().map(|b| e.u64(b))
    }

    /// `N` consecutive 64-bit integers.
    pub fn u64s<const N: usize>(&mut self) -> Result<[u64; N]> {
        let mut out = [0u64; N];
        for w in &mut out {
            *w = self.u64()?;
        }
        Ok(out)
    }
}

/// Reads one 64-bit integer at byte `off` of `buf`, or nothing when it does not fit.
pub fn u64_at(buf: &[u8], off: usize, endian: Endian) -> Option<u64> {
    let b = buf.get(off..off.checked_add(8)?)?;
    Some(endian.u64(b.try_into().ok()?))
}
