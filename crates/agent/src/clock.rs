//! The only place where the agent reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_core::ids::Timestamp;

/// The time of day, for records that people and the controller read.
#[expect(clippy::disallowed_methods, reason = "the agent is a shell: it notes when processes start and end")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// A moment for measuring waits.
#[expect(clippy::disallowed_methods, reason = "the agent is a shell: it waits for processes, with limits")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
