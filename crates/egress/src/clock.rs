//! The time, as breakers count it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_core::ids::Timestamp;

/// Goes on evenly from the time of day at its start: a clock that is set does not open or close breakers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    began: u64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "whoever waits for others measures time")]
    pub(crate) fn new() -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), began: u64::try_from(began.as_micros()).unwrap_or(u64::MAX) }
    }

    /// The present moment, in microseconds of Unix time.
    pub(crate) fn now(&self) -> Timestamp {
        let since = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Timestamp(self.began.saturating_add(since))
    }
}
