//! The one error of this crate: what was being decoded, where, and why it could not be.

use std::borrow::Cow;
use std::fmt;

/// Shorthand for results of decoding.
pub type Result<T> = std::result::Result<T, DecodeError>;

/// A structure could not be decoded from bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The structure or field being decoded, e.g. `"nvlist"`.
    pub what: &'static str,
    /// Byte offset from the start of the buffer handed to the decoder.
    pub offset: u64,
    /// Why it was refused.
    pub why: Cow<'static, str>,
}

impl DecodeError {
    /// An error about `what` at byte `offset` of the input.
    pub fn new(what: &'static str, offset: usize, why: impl Into<Cow<'static, str>>) -> Self {
        Self { what, offset: offset as u64, why: why.into() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.what, self.offset, self.why)
    }
}

impl std::error::Error for DecodeError {}
