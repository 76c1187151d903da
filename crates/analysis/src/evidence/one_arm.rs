//! Does a release break an absolute limit, whatever another one does?

use serde::{Deserialize, Serialize};

use super::bet::Seen;
use super::number::{ln, ln_1p, times};
use super::pot::Pot;
use super::two_arm::lifts;

/// The grid of lifts where nothing else is said: as fine as that of an error rate with a margin of .1 %.
#[must_use]
pub fn default_lifts() -> Vec<f64> {
    lifts(0.001)
}

/// A test whether more than the share `limit` of a release's requests is bad.
///
/// Null hypothesis: for every request, given all before, P(bad) ≤ limit. No windows; right under any drift. The bets are
/// Wald's likelihood ratios (1945), mixed over sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OneArm {
    eta: f64,
    limit: f64,
    lifts: Vec<f64>,
    pot: Pot,
}

impl OneArm {
    /// Bets on these lifts above the limit, a share more than 0 and less than 1, with the part `rho` of the wealth.
    #[must_use]
    pub fn new(limit: f64, lifts: Vec<f64>, rho: f64, eta: f64) -> Self {
        let mut pot = Pot::even(lifts.len());
        pot.inject(rho);
        Self { eta, limit, lifts, pot }
    }

    /// Bets on what a tick showed, after handing out the part `rho` of the cash; gives ln E.
    pub fn tick(&mut self, seen: Seen, rho: f64) -> f64 {
        self.tick_at(self.limit, seen, rho)
    }

    /// The same where the limit of this tick is another one.
    pub(crate) fn tick_at(&mut self, limit: f64, seen: Seen, rho: f64) -> f64 {
        self.pot.inject(rho);
        for (expert, lift) in self.lifts.iter().enumerate() {
            let believed = limit + (1.0 - limit) * lift;
            let good = ln_1p(-believed) - ln_1p(-limit);
            let gain = times(seen.bad, ln(believed / limit)) + times(seen.good(), good);
            self.pot.gain(expert, self.eta * gain);
        }
        self.pot.ln_e()
    }

    /// The wealth.
    #[must_use]
    pub fn pot(&self) -> &Pot {
        &self.pot
    }

    pub(crate) fn pot_mut(&mut self) -> &mut Pot {
        &mut self.pot
    }

    /// The limit, a share.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// The lift whose bets won most.
    #[must_use]
    pub fn leading_lift(&self) -> Option<f64> {
        self.pot.leader().map(|expert| self.lifts[expert])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_break_a_limit_of_one_percent_and_a_failure_in_a_hundred_does_not() {
        let mut dead = OneArm::new(0.01, default_lifts(), 0.75, 1.0);
        assert!(dead.tick(Seen::new(2, 2), 0.0) > 200.0_f64.ln());
        assert_eq!(dead.leading_lift(), Some(0.98));
        let mut fine = OneArm::new(0.01, default_lifts(), 0.75, 1.0);
        for _ in 0..1_000 {
            assert!(fine.tick(Seen::new(100, 1), 0.0) < 1.0);
        }
    }
}
