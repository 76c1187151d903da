//! How often does the stable release fail? Known before each bet, from what came earlier.

use serde::{Deserialize, Serialize};

use super::bet::Seen;
use super::number::half_lives;

/// At most so many requests of history count: a service that has many learns of a change within seconds all the same.
const HISTORY_MAX: f64 = 20_000.0;
/// Requests that the estimate is slow to leave its start for.
const CAUTION: f64 = 50.0;
/// Between these the estimate stays, so that bets on either side of it exist.
const BOUNDS: (f64, f64) = (1e-6, 0.95);

/// A predictable estimate of the stable release's rate of bad outcomes, which forgets with a half-life.
///
/// Any estimate is right, also a poor one: it is fixed before the outcomes it bets on are known. A poor one only gains
/// less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseRate {
    bad: f64,
    requests: f64,
    half_life_s: f64,
}

impl BaseRate {
    /// Starts from what stable showed before the rollout, of which 20 000 requests count at most; from none: 2 %.
    #[must_use]
    pub fn new(history: Seen, half_life_s: f64) -> Self {
        Self::of(history.bad as f64, history.requests as f64, half_life_s)
    }

    /// The same from counts that need not be whole.
    #[must_use]
    pub(crate) fn of(bad: f64, requests: f64, half_life_s: f64) -> Self {
        let scale = if requests > 0.0 { (HISTORY_MAX / requests).min(1.0) } else { 1.0 };
        Self { bad: bad * scale, requests: requests * scale, half_life_s }
    }

    /// The estimate: 10^-6 to 0.95.
    #[must_use]
    pub fn value(&self) -> f64 {
        ((self.bad + 1.0) / (self.requests + CAUTION)).clamp(BOUNDS.0, BOUNDS.1)
    }

    /// Learns what stable showed in a tick, `dt_s` seconds after the one before.
    pub fn learn(&mut self, seen: Seen, dt_s: f64) {
        let kept = half_lives(dt_s, self.half_life_s);
        self.bad = self.bad * kept + seen.bad as f64;
        self.requests = self.requests * kept + seen.requests as f64;
    }
}
