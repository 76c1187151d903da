//! The time, read as seldom as will do.

use std::cell::Cell;

use tokio::time::Instant;

/// A worker's clock: exact where latency is measured, at most a tick stale where only timeouts hang on it.
#[derive(Debug)]
pub(crate) struct Clock(Cell<Instant>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Cell::new(Instant::now()))
    }

    /// Reads the machine's clock.
    pub(crate) fn exact(&self) -> Instant {
        let now = Instant::now();
        self.0.set(now);
        now
    }

    /// The time of the last reading; the worker takes one at least every [`crate::limits::TICK`].
    pub(crate) fn coarse(&self) -> Instant {
        self.0.get()
    }
}
