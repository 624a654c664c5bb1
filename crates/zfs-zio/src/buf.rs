//! Immutable bytes that many holders share, and the memory they leave behind.
//!
//! Large blocks come from the system page by page: a fault and a cleared page for every 4 KiB, which was a quarter of
//! the daemon's time in streaming reads. So the memory of large blocks is kept when their last holder lets go, and
//! given out again by [`scratch`] as it is: whoever takes it overwrites all of it or throws it away. What is kept is
//! bounded by a share of the cache's budget ([`keep_share_of`]): a transaction group lets go of all its blocks at once,
//! and the next one wants as many. Rejected: a different allocator, which recycles memory too but must clear it, since only
//! here it is known that it will be overwritten.

use parking_lot::Mutex;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// log2 of the smallest and largest size that is kept.
const CLASSES: std::ops::RangeInclusive<u32> = 15..=24;
/// Bounds of what is kept, bytes, and what part of the cache's budget it is between them.
const KEPT_LEAST: u64 = 16 << 20;
const KEPT_MOST: u64 = 256 << 20;
const KEPT_PART: u64 = 16;

struct Kept {
    classes: [Mutex<Vec<Vec<u8>>>; 10],
    bytes: AtomicUsize,
    /// Bytes kept at most, all sizes together.
    most: AtomicUsize,
}

static KEPT: Kept = Kept {
    classes: [const { Mutex::new(Vec::new()) }; 10],
    bytes: AtomicUsize::new(0),
    most: AtomicUsize::new(KEPT_LEAST as usize),
};

/// Sets how much is kept, by the budget of the cache. The last cache of the process to say so decides.
pub(crate) fn keep_share_of(budget: u64) {
    let most = (budget / KEPT_PART).clamp(KEPT_LEAST, KEPT_MOST);
    KEPT.most.store(usize::try_from(most).unwrap_or(usize::MAX), Ordering::Relaxed);
}

impl Kept {
    /// The list of memory of exactly `size` bytes, if that size is kept.
    fn list(&self, size: usize) -> Option<&Mutex<Vec<Vec<u8>>>> {
        let shift = size.trailing_zeros();
        let class = shift.checked_sub(*CLASSES.start())?;
        self.classes.get(class as usize).filter(|_| size.is_power_of_two() && CLASSES.contains(&shift))
    }
}

/// `len` bytes to be overwritten: what they contain is left over from anywhere.
pub(crate) fn scratch(len: usize) -> Vec<u8> {
    let size = len.next_power_of_two();
    let Some(list) = KEPT.list(size) else { return vec![0; len] };
    let Some(mut bytes) = list.lock().pop() else {
        // The whole size, so that it can be kept later.
        let mut fresh = vec![0; size];
        fresh.truncate(len);
        return fresh;
    };
    KEPT.bytes.fetch_sub(size, Ordering::Relaxed);
    bytes.resize(len, 0);
    bytes
}

/// Keeps memory for [`scratch`] while there is room.
pub(crate) fn recycle(bytes: Vec<u8>) {
    let size = bytes.capacity();
    let Some(list) = KEPT.list(size) else { return };
    if KEPT.bytes.fetch_add(size, Ordering::Relaxed) + size > KEPT.most.load(Ordering::Relaxed) {
        KEPT.bytes.fetch_sub(size, Ordering::Relaxed);
        return;
    }
    list.lock().push(bytes);
}

#[derive(Default)]
struct Block(Vec<u8>);

impl Clone for Block {
    fn clone(&self) -> Self {
        let mut copy = scratch(self.0.len());
        copy.copy_from_slice(&self.0);
        Self(copy)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        recycle(std::mem::take(&mut self.0));
    }
}

/// A block's bytes. Cloning shares them; building one from a `Vec` copies nothing.
#[derive(Clone, Default)]
pub struct Buf(Arc<Block>);

impl Buf {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self(Arc::new(Block(vec![0; len])))
    }

    /// A copy of `bytes`, in memory that is used again where there is some.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = scratch(bytes.len());
        copy.copy_from_slice(bytes);
        Self::from(copy)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0.0
    }

    /// Whether both share the same memory.
    pub fn same(&self, other: &Buf) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The bytes to be changed: copied first when somebody else holds them too.
    pub fn make_mut(&mut self) -> &mut Vec<u8> {
        &mut Arc::make_mut(&mut self.0).0
    }

    /// The bytes for the caller alone: copied only when somebody else holds them too.
    pub fn into_vec(self) -> Vec<u8> {
        match Arc::try_unwrap(self.0) {
            Ok(mut alone) => std::mem::take(&mut alone.0),
            Err(shared) => shared.0.clone(),
        }
    }
}

impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Block(bytes)))
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.0
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.0.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, since what is kept is shared by all threads of the process.
    #[test]
    fn memory_comes_back_in_the_length_asked_for_and_within_bounds() {
        const SIZE: usize = 1 << 24;
        keep_share_of((KEPT_PART * 48) << 20);
        let mut first = scratch(SIZE - 5);
        assert_eq!((first.len(), first.capacity()), (SIZE - 5, SIZE));
        first.fill(7);
        let at = first.as_ptr();
        let shared = Buf::from(first);
        let other = shared.clone();
        drop(shared);
        assert!(other.iter().all(|b| *b == 7), "memory that somebody holds is not given out");
        drop(other);
        let again = scratch(SIZE);
        assert_eq!((again.as_ptr(), again.len()), (at, SIZE));
        let many: Vec<_> = (0..8).map(|_| scratch(SIZE)).collect();
        many.into_iter().for_each(recycle);
        assert!(KEPT.bytes.load(Ordering::Relaxed) <= 48 << 20);
        assert_eq!(Buf::from(again).into_vec().len(), SIZE);
        assert_eq!(scratch(0).len(), 0);
    }
}
