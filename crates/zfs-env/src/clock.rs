//! Time, real and simulated.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time and the passing of it.
pub trait Clock: Send + Sync {
    /// Time since 1970, UTC. May jump when somebody sets the machine's clock.
    fn now(&self) -> Duration;
    /// Time since some moment in the past; never goes back. For intervals and deadlines.
    fn monotonic(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&self, how_long: Duration);
    /// Whole seconds since 1970.
    fn seconds(&self) -> u64 {
        self.now().as_secs()
    }
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        START.elapsed()
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }
}

/// A clock that only moves when somebody sleeps on it.
#[derive(Debug, Default)]
pub struct SimClock {
    start: u64,
    passed: AtomicU64,
}

impl SimClock {
    /// A clock that stands at `start` since 1970.
    pub fn new(start: Duration) -> Self {
        Self { start: start.as_nanos() as u64, passed: AtomicU64::new(0) }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.start) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::SeqCst))
    }

    fn sleep(&self, how_long: Duration) {
        self.passed.fetch_add(how_long.as_nanos() as u64, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_time_moves_only_by_sleeping() {
        let c = SimClock::new(Duration::from_secs(1000));
        assert_eq!((c.seconds(), c.monotonic()), (1000, Duration::ZERO));
        c.sleep(Duration::from_millis(2500));
        assert_eq!((c.seconds(), c.monotonic()), (1002, Duration::from_millis(2500)));
        let s = SystemClock;
        let before = s.monotonic();
        s.sleep(Duration::from_millis(1));
        assert!(s.monotonic() > before);
    }
}
