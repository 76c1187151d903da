//! The time, which never goes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_core::ids::Timestamp;
use evenkeel_core::ports::Clock;

/// Wall-clock time read once and carried on by the monotonic clock: a jump of the machine's clock moves nothing.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
    began_at: AtomicU64,
}

impl SystemClock {
    /// Starts at the wall-clock time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_at: AtomicU64::new(u64::try_from(wall.as_micros()).unwrap_or(0)) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Timestamp(self.began_at.load(Ordering::Relaxed).saturating_add(passed))
    }

    fn not_before(&self, earliest: Timestamp) {
        let behind = earliest.since(self.now());
        let behind = u64::try_from(behind.as_micros()).unwrap_or(0);
        self.began_at.fetch_add(behind, Ordering::Relaxed);
    }
}
