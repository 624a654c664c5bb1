//! Time, real and simulated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall-clock time and the passing of it.
pub trait Clock: Send + Sync {
    /// Time since 1970, UTC.
    fn now(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&self, how_long: Duration);
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }
}

/// A clock that only moves when somebody sleeps on it.
#[derive(Debug, Default)]
pub struct SimClock(AtomicU64);

impl SimClock {
    /// A clock that stands at `start` since 1970.
    pub fn new(start: Duration) -> Self {
        Self(AtomicU64::new(start.as_nanos() as u64))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, how_long: Duration) {
        self.0.fetch_add(how_long.as_nanos() as u64, Ordering::SeqCst);
    }
}
