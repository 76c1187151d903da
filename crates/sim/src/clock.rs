//! The machine's clock, read once by each controller and carried on by virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_core::ids::Timestamp;
use evenkeel_core::ports::Clock;

use crate::world::{BEGINNING, Yard};

/// What one controller takes for the time.
pub(crate) struct SimClock {
    yard: Arc<Yard>,
    /// Ahead of or behind the world's time when the controller started, as a time at the world's beginning.
    beginning: AtomicU64,
}

impl SimClock {
    pub(crate) fn new(yard: Arc<Yard>) -> Self {
        let beginning = BEGINNING.0.saturating_add_signed(yard.with(|state| state.clock_off));
        Self { yard, beginning: AtomicU64::new(beginning) }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.beginning.load(Ordering::Relaxed)).after(self.yard.now().since(BEGINNING))
    }

    fn not_before(&self, earliest: Timestamp) {
        let behind = u64::try_from(earliest.since(self.now()).as_micros()).unwrap_or(0);
        self.beginning.fetch_add(behind, Ordering::Relaxed);
    }
}
