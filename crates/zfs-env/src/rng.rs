//! Randomness: guids, salts, initialization vectors; real and seeded.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands in for the system's generator in a process that simulates.
static SIMULATED: OnceLock<SeededRng> = OnceLock::new();

/// Has every [`SystemRng`] of this process give the same bytes for the same seed from here on, so that a simulation can
/// be repeated. For programs that do nothing but simulate: keys made afterwards are no secrets.
pub fn simulate_randomness(seed: u64) {
    SIMULATED.get_or_init(|| SeededRng::new(seed)).0.store(seed, Ordering::Relaxed);
}

/// A source of random bytes, usable from many threads.
pub trait Rng: Send + Sync {
    /// Fills `buf`.
    fn fill(&self, buf: &mut [u8]);

    /// A random word.
    fn u64(&self) -> u64 {
        let mut b = [0u8; 8];
        self.fill(&mut b);
        u64::from_le_bytes(b)
    }

    /// A random guid: any word but zero, which everywhere in the format means "none".
    fn guid(&self) -> u64 {
        loop {
            match self.u64() {
                0 => {}
                g => return g,
            }
        }
    }

    /// A number below `n` (0 when `n` is 0). Not exactly even for huge `n`, which nothing here needs.
    fn below(&self, n: u64) -> u64 {
        self.u64().checked_rem(n).unwrap_or(0)
    }
}

/// The system's generator, fit for keys.
#[derive(Debug, Clone, Copy)]
pub struct SystemRng(());

impl SystemRng {
    /// Fails when the system has no generator, which is the only moment it can be reported.
    pub fn new() -> io::Result<Self> {
        entropy(&mut [0u8; 8]).map(|()| Self(()))
    }
}

impl Rng for SystemRng {
    fn fill(&self, buf: &mut [u8]) {
        if let Some(simulated) = SIMULATED.get() {
            return simulated.fill(buf);
        }
        // It gave bytes when this value was made, and neither kernel ever stops doing so: going on with anything else
        // than random bytes would be worse than stopping.
        entropy(buf).expect("the system's random generator stopped working");
    }
}

fn entropy(buf: &mut [u8]) -> io::Result<()> {
    /// Most bytes the call gives at once.
    const AT_ONCE: usize = 256;
    for part in buf.chunks_mut(AT_ONCE) {
        // SAFETY: the pointer and length are those of a live, writable slice of at most 256 bytes.
        if unsafe { libc::getentropy(part.as_mut_ptr().cast(), part.len()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A generator that gives the same bytes for the same seed (splitmix64). For simulations only.
#[derive(Debug)]
pub struct SeededRng(AtomicU64);

impl SeededRng {
    /// A generator started at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next word.
    pub fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Rng for SeededRng {
    fn fill(&self, buf: &mut [u8]) {
        for part in buf.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_repeat_and_the_system_does_not() {
        let (mut a, mut b) = ([0u8; 1001], [0u8; 1001]);
        SeededRng::new(7).fill(&mut a);
        SeededRng::new(7).fill(&mut b);
        assert_eq!(a, b);
        // First word of splitmix64 from seed 0, as its author's code gives it.
        assert_eq!(SeededRng::new(0).u64(), 0xe220_a839_7b1d_cdaf);
        let rng = SystemRng::new().unwrap();
        rng.fill(&mut a);
        rng.fill(&mut b);
        assert_ne!(a, b);
        assert!(rng.below(3) < 3 && rng.below(0) == 0 && rng.guid() != 0);
    }
}
