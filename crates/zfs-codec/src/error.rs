//! The one error of this crate.

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, CodecError>;

/// Bytes did not check, decode, decrypt or rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// The computed checksum differs from the stored one.
    Checksum {
        /// Words that were stored.
        expected: [u64; 4],
        /// Words computed from the data.
        actual: [u64; 4],
    },
    /// A block that carries its own checksum has no valid trailer (magic or length).
    Trailer(&'static str),
    /// A compressed stream cannot be expanded to exactly the destination.
    Malformed {
        /// The codec that refused.
        codec: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Decryption or a MAC check failed: wrong key, or bytes changed.
    Authentication(&'static str),
    /// A key, passphrase or key parameter is unusable.
    Key(&'static str),
    /// The algorithm cannot be used here (e.g. a salted checksum without salt).
    Unsupported(&'static str),
    /// Parity arithmetic was asked for an impossible shape or too many missing columns.
    Parity(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { expected: e, actual: a } => write!(
                f,
                "checksum is {:x}:{:x}:{:x}:{:x}, {:x}:{:x}:{:x}:{:x} expected",
                a[0], a[1], a[2], a[3], e[0], e[1], e[2], e[3]
            ),
            Self::Trailer(why) => write!(f, "checksum trailer: {why}"),
            Self::Malformed { codec, why } => write!(f, "{codec} data: {why}"),
            Self::Authentication(what) => write!(f, "{what} failed authentication"),
            Self::Key(why) => write!(f, "key: {why}"),
            Self::Unsupported(what) => write!(f, "unsupported: {what}"),
            Self::Parity(why) => write!(f, "parity: {why}"),
        }
    }
}

impl std::error::Error for CodecError {}
