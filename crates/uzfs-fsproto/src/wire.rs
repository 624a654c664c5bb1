//! Frames and fields: how numbers, strings and lists lie in bytes.
//!
//! Everything is little-endian and without padding. Strings and lists begin with a 32-bit count. A decoder takes the
//! whole body or nothing: bytes that are left over are an error, as a wrong count is, so that two versions never
//! silently disagree. A count is believed only as far as the body reaches: nothing is allocated from it.

use std::ops::Deref;

/// Most bytes of a body: 1 MiB of data and what surrounds it.
pub const MAX_BODY: usize = (1 << 20) + (64 << 10);
/// Most bytes of data in one read or write.
pub const MAX_IO: usize = 1 << 20;
/// Most bytes of a body before the token was shown.
pub const MAX_GREETING: usize = 128;
/// Bytes of a request's header.
pub const REQUEST_HEAD: usize = 32;
/// Bytes of a reply's header.
pub const REPLY_HEAD: usize = 16;
/// User or group that the front end does not know.
pub const NOBODY_KNOWN: u32 = u32::MAX;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed message")
    }
}

impl std::error::Error for Malformed {}

/// On whose behalf, and how long the caller will wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User, or [`NOBODY_KNOWN`]: FSKit tells it from macOS 27 on.
    pub uid: u32,
    /// Group, or [`NOBODY_KNOWN`].
    pub gid: u32,
}

impl Default for Caller {
    fn default() -> Self {
        Self { uid: NOBODY_KNOWN, gid: NOBODY_KNOWN }
    }
}

/// Header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Bytes of the body.
    pub len: u32,
    /// Operation.
    pub op: u16,
    /// Chosen by the client; comes back in the reply.
    pub id: u64,
    /// On whose behalf.
    pub caller: Caller,
    /// Milliseconds after which nobody waits any more.
    pub deadline_ms: u32,
}

impl RequestHead {
    /// The bytes.
    pub fn encode(&self) -> [u8; REQUEST_HEAD] {
        let mut out = Frame::default();
        out.u32(self.len).u16(self.op).u16(0).u64(self.id);
        out.u32(self.caller.uid).u32(self.caller.gid).u32(self.deadline_ms).u32(0);
        let mut fixed = [0; REQUEST_HEAD];
        fixed.copy_from_slice(&out.head);
        fixed
    }

    /// Reads a header; bytes that must be zero must be zero.
    pub fn decode(bytes: &[u8; REQUEST_HEAD]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes.to_vec());
        let (len, op, flags, id) = (r.u32()?, r.u16()?, r.u16()?, r.u64()?);
        let caller = Caller { uid: r.u32()?, gid: r.u32()? };
        let (deadline_ms, reserved) = (r.u32()?, r.u32()?);
        if flags != 0 || reserved != 0 || len as usize > MAX_BODY {
            return Err(Malformed);
        }
        Ok(Self { len, op, id, caller, deadline_ms })
    }
}

/// Header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHead {
    /// Bytes of the body; 0 if the operation failed.
    pub len: u32,
    /// Operation that is answered.
    pub op: u16,
    /// 0, or a [`crate::Code`].
    pub code: u16,
    /// Of the request; 0 in a notice.
    pub id: u64,
}

impl ReplyHead {
    /// The bytes.
    pub fn encode(&self) -> [u8; REPLY_HEAD] {
        let mut out = Frame::default();
        out.u32(self.len).u16(self.op).u16(self.code).u64(self.id);
        let mut fixed = [0; REPLY_HEAD];
        fixed.copy_from_slice(&out.head);
        fixed
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8; REPLY_HEAD]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes.to_vec());
        let head = Self { len: r.u32()?, op: r.u16()?, code: r.u16()?, id: r.u64()? };
        if head.len as usize > MAX_BODY || (head.code != 0 && head.len != 0) {
            return Err(Malformed);
        }
        Ok(head)
    }
}

/// Bytes that somebody else keeps, such as a cached block.
pub type Piece = Box<dyn Deref<Target = [u8]> + Send>;

/// Data of a read or write: always the last field, without a count, so that it is never copied.
#[derive(Default)]
pub struct Blob {
    owned: Vec<u8>,
    start: usize,
    pieces: Vec<Piece>,
}

impl Blob {
    /// Data in pieces, to be sent.
    pub fn of(pieces: Vec<Piece>) -> Self {
        Self { pieces, ..Self::default() }
    }

    /// Data that was received, or that is in one piece.
    pub fn bytes(&self) -> &[u8] {
        self.owned.get(self.start..).unwrap_or_default()
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes().len() + self.pieces.iter().map(|p| p.len()).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes in one piece.
    pub fn into_vec(self) -> Vec<u8> {
        let mut all = self.owned;
        all.drain(..self.start.min(all.len()));
        self.pieces.iter().for_each(|p| all.extend_from_slice(p));
        all
    }

    fn whole(&self) -> Vec<u8> {
        let mut all = self.bytes().to_vec();
        self.pieces.iter().for_each(|p| all.extend_from_slice(p));
        all
    }
}

impl From<Vec<u8>> for Blob {
    fn from(owned: Vec<u8>) -> Self {
        Self { owned, ..Self::default() }
    }
}

impl Clone for Blob {
    fn clone(&self) -> Self {
        self.whole().into()
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.whole() == other.whole()
    }
}

impl Eq for Blob {}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}

/// A body being made: bytes, then pieces.
#[derive(Default)]
pub struct Frame {
    /// The bytes.
    pub head: Vec<u8>,
    /// What follows them.
    pub tail: Vec<Piece>,
}

impl Frame {
    /// Appends 16 bits.
    pub fn u16(&mut self, n: u16) -> &mut Self {
        self.head.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// Appends 32 bits.
    pub fn u32(&mut self, n: u32) -> &mut Self {
        self.head.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// Appends 64 bits.
    pub fn u64(&mut self, n: u64) -> &mut Self {
        self.head.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.iter().map(|p| p.len()).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A body being read.
pub struct Reader {
    buf: Vec<u8>,
    at: usize,
}

impl Reader {
    /// Reads `buf` from its start.
    pub fn new(buf: Vec<u8>) -> Self {
        Self { buf, at: 0 }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&[u8], Malformed> {
        let end = self.at.checked_add(n).ok_or(Malformed)?;
        let found = self.buf.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(found)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// 8 bits.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.fixed()?))
    }

    /// 16 bits.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.fixed()?))
    }

    /// 32 bits.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    /// 64 bits.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.buf.len() - self.at
    }
}

/// What can stand in a message.
pub trait Field: Sized {
    /// Appends it.
    fn put(self, out: &mut Frame);
    /// Reads it.
    fn take(r: &mut Reader) -> Result<Self, Malformed>;
}

macro_rules! number_fields {
    ($($t:ty),*) => {$(
        impl Field for $t {
            fn put(self, out: &mut Frame) {
                out.head.extend_from_slice(&self.to_le_bytes());
            }
            fn take(r: &mut Reader) -> Result<Self, Malformed> {
                Ok(<$t>::from_le_bytes(r.fixed()?))
            }
        }
    )*};
}
number_fields!(u8, u16, u32, u64, i64);

impl Field for bool {
    fn put(self, out: &mut Frame) {
        u8::from(self).put(out);
    }
    fn take(r: &mut Reader) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

impl Field for () {
    fn put(self, _: &mut Frame) {}
    fn take(_: &mut Reader) -> Result<Self, Malformed> {
        Ok(())
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(self, out: &mut Frame) {
        out.head.extend_from_slice(&self);
    }
    fn take(r: &mut Reader) -> Result<Self, Malformed> {
        r.fixed()
    }
}

/// A string of bytes: names, targets, values.
pub type Bytes = Vec<u8>;

impl Field for Bytes {
    fn put(self, out: &mut Frame) {
        out.u32(self.len() as u32);
        out.head.extend_from_slice(&self);
    }
    fn take(r: &mut Reader) -> Result<Self, Malformed> {
        let len = r.u32()? as usize;
        Ok(r.take(len)?.to_vec())
    }
}

/// A list of fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List<T>(pub Vec<T>);

impl<T: Field> Field for List<T> {
    fn put(self, out: &mut Frame) {
        out.u32(self.0.len() as u32);
        self.0.into_iter().for_each(|t| t.put(out));
    }
    fn take(r: &mut Reader) -> Result<Self, Malformed> {
        let count = r.u32()? as usize;
        // Every entry has at least four bytes, so a count that is larger is a lie.
        if count > r.left() / 4 {
            return Err(Malformed);
        }
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(T::take(r)?);
        }
        Ok(Self(all))
    }
}

impl<T: Field> Field for Option<T> {
    fn put(self, out: &mut Frame) {
        self.is_some().put(out);
        if let Some(t) = self {
            t.put(out);
        }
    }
    fn take(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(if bool::take(r)? { Some(T::take(r)?) } else { None })
    }
}

impl Field for Blob {
    fn put(self, out: &mut Frame) {
        out.head.extend_from_slice(self.bytes());
        out.tail.extend(self.pieces);
    }
    fn take(r: &mut Reader) -> Result<Self, Malformed> {
        let start = std::mem::take(&mut r.at);
        Ok(Self { owned: std::mem::take(&mut r.buf), start, pieces: Vec::new() })
    }
}

/// Encodes a body.
pub fn encode<T: Field>(message: T) -> Frame {
    let mut out = Frame::default();
    message.put(&mut out);
    out
}

/// Decodes a whole body.
pub fn decode<T: Field>(body: Vec<u8>) -> Result<T, Malformed> {
    let mut r = Reader::new(body);
    let message = T::take(&mut r)?;
    if r.left() == 0 { Ok(message) } else { Err(Malformed) }
}

/// Makes a structure whose fields lie one behind the other.
macro_rules! record {
    ($(#[$m:meta])* $name:ident { $( $(#[$d:meta])* $f:ident : $t:ty ),* $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name { $( $(#[$d])* pub $f: $t ),* }

        impl $crate::wire::Field for $name {
            fn put(self, out: &mut $crate::wire::Frame) {
                $( $crate::wire::Field::put(self.$f, out); )*
                let _ = out;
            }
            fn take(r: &mut $crate::wire::Reader) -> Result<Self, $crate::wire::Malformed> {
                let _ = &r;
                Ok(Self { $( $f: $crate::wire::Field::take(r)? ),* })
            }
        }
    };
}
pub(crate) use record;
