//! Immutable bytes that many holders share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A block's bytes. Cloning shares them; building one from a `Vec` copies nothing.
#[derive(Clone, Default)]
pub struct Buf(Arc<Vec<u8>>);

impl Buf {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self(Arc::new(vec![0; len]))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Whether both share the same memory.
    pub fn same(&self, other: &Buf) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The bytes to be changed: copied first when somebody else holds them too.
    pub fn make_mut(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.0)
    }

    /// The bytes for the caller alone: copied only when somebody else holds them too.
    pub fn into_vec(self) -> Vec<u8> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| shared.to_vec())
    }
}

impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.0.len())
    }
}
