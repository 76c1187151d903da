//! A time in which a service's requests wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// The longest that one lasts.
pub const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// The longest that a single request waits.
pub const WAIT_LONGEST: Duration = Duration::from_secs(300);

/// New requests wait, a bounded number of them, until somebody ends it or its time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// When it began.
    pub since: Timestamp,
    /// When it is over by itself: the proxy knows, whoever else is dead.
    pub until: Timestamp,
    /// How long a request waits before it is answered with 503, in milliseconds.
    pub wait_ms: u64,
    /// Who asked for it.
    pub by: String,
}

impl Maintenance {
    /// Tells whether it goes on at a moment.
    #[must_use]
    pub fn is_on(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Tells why one cannot last so long, or its requests cannot wait so long.
    #[must_use]
    pub fn unfit(lasts: Duration, wait: Duration) -> Option<String> {
        if lasts.is_zero() || lasts > LONGEST {
            return Some(format!("a maintenance lasts 1 ms to {} h", LONGEST.as_secs() / 3_600));
        }
        (wait > WAIT_LONGEST).then(|| format!("requests wait {} s at most", WAIT_LONGEST.as_secs()))
    }
}
