//! Is the candidate worse than the stable release, or surely not much worse?

use serde::{Deserialize, Serialize};

use super::bet::{Factors, Group, Margin, Seen};
use super::pot::Pot;
use super::rate::BaseRate;

/// The smallest extra failure share that a grid of bets is made for.
const FINEST: f64 = 1e-4;

/// The sizes of regression that are bet on where nothing else is said: .98, then 1/2, 1/4 … down to about four times the
/// tolerated extra share, at least 10^-4. A lift of .25 reads "a quarter of the requests that worked fails".
#[must_use]
pub fn lifts(extra: f64) -> Vec<f64> {
    let halvings = (1.0 / (4.0 * extra).max(FINEST)).log2().ceil().max(0.0) as i32;
    std::iter::once(0.98).chain((1..=halvings).map(|k| 2.0_f64.powi(-k))).collect()
}

/// A test whether the candidate fails more often than the margin allows beside what stable does in the same seconds.
///
/// Null hypothesis: for every request, given all before, P(bad | candidate) ≤ ratio · P(bad | stable) + extra. The rates
/// may change from request to request and depend on each other through common causes; only the coin that chose the arm
/// must be independent of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwoArm {
    margin: Margin,
    eta: f64,
    lifts: Vec<f64>,
    rate: BaseRate,
    pot: Pot,
}

impl TwoArm {
    /// Bets on these lifts, each more than 0 and less than 1, with the part `rho` of the wealth; the rest is held back.
    #[must_use]
    pub fn new(margin: Margin, lifts: Vec<f64>, rate: BaseRate, rho: f64) -> Self {
        let mut pot = Pot::even(lifts.len());
        pot.inject(rho);
        Self { margin, eta: 1.0, lifts, rate, pot }
    }

    /// Bets only so boldly from here on, more than 0 and at most 1: one divided by the variance ratio of clustered
    /// failures. A factor to a power of at most 1 stays right (Jensen); that it makes up for the clusters is approximate.
    pub fn set_eta(&mut self, eta: f64) {
        self.eta = eta;
    }

    /// Bets on what a tick showed, `dt_s` seconds after the one before, after handing out the part `rho` of the cash;
    /// gives ln E.
    pub fn tick(&mut self, groups: &[Group], dt_s: f64, rho: f64) -> f64 {
        self.bet(groups, rho);
        self.learn(stable_of(groups), dt_s);
        self.pot.ln_e()
    }

    pub(crate) fn bet(&mut self, groups: &[Group], rho: f64) {
        self.pot.inject(rho);
        let stable = self.rate.value();
        for (expert, lift) in self.lifts.iter().enumerate() {
            let candidate = stable + (1.0 - stable) * lift;
            if candidate > self.margin.line(stable) {
                self.pot.gain(expert, self.eta * gain(self.margin, candidate, stable, groups));
            }
        }
    }

    pub(crate) fn learn(&mut self, stable: Seen, dt_s: f64) {
        self.rate.learn(stable, dt_s);
    }

    /// The wealth.
    #[must_use]
    pub fn pot(&self) -> &Pot {
        &self.pot
    }

    pub(crate) fn pot_mut(&mut self) -> &mut Pot {
        &mut self.pot
    }

    /// Stable's rate, as the next tick will believe it.
    #[must_use]
    pub fn rate(&self) -> &BaseRate {
        &self.rate
    }

    /// The lift whose bets won most: an estimate of the share of requests that fail and would have worked.
    #[must_use]
    pub fn leading_lift(&self) -> Option<f64> {
        self.pot.leader().map(|expert| self.lifts[expert])
    }
}

/// A test whether the candidate is surely better than a line that would not be acceptable: what opens a gate.
///
/// Null hypothesis: P(bad | candidate) ≥ ratio · P(bad | stable) + extra.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NonInferiority {
    margin: Margin,
    eta: f64,
    factors: Vec<f64>,
    rate: BaseRate,
    pot: Pot,
}

impl NonInferiority {
    /// Bets that the candidate fails `factors` times as often as stable; all wealth is bet from the start.
    #[must_use]
    pub fn new(margin: Margin, factors: Vec<f64>, rate: BaseRate) -> Self {
        let mut pot = Pot::even(factors.len());
        pot.inject(1.0);
        Self { margin, eta: 1.0, factors, rate, pot }
    }

    /// As [`TwoArm::set_eta`].
    pub fn set_eta(&mut self, eta: f64) {
        self.eta = eta;
    }

    /// Bets on what a tick showed, `dt_s` seconds after the one before; gives ln E.
    ///
    /// While stable fails half of the time, or so often that the line is beyond certainty, nothing is bet.
    pub fn tick(&mut self, groups: &[Group], dt_s: f64) -> f64 {
        let stable = self.rate.value();
        let line = self.margin.line(stable);
        for (expert, factor) in self.factors.iter().enumerate() {
            let candidate = stable * factor;
            if stable < 0.5 && candidate < line && line < 1.0 {
                self.pot.gain(expert, self.eta * gain(self.margin, candidate, stable, groups));
            }
        }
        self.rate.learn(stable_of(groups), dt_s);
        self.pot.ln_e()
    }

    /// The wealth.
    #[must_use]
    pub fn pot(&self) -> &Pot {
        &self.pot
    }

    /// Stable's rate, as the next tick will believe it.
    #[must_use]
    pub fn rate(&self) -> &BaseRate {
        &self.rate
    }
}

fn gain(margin: Margin, candidate: f64, stable: f64, groups: &[Group]) -> f64 {
    let of = |group: &Group| {
        let weight = group.split()?;
        Some(Factors::new(margin, candidate, stable, weight).gain(group.candidate, group.stable))
    };
    groups.iter().filter_map(of).sum()
}

fn stable_of(groups: &[Group]) -> Seen {
    let mut seen = Seen::default();
    groups.iter().for_each(|group| seen.add(group.stable));
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Margin = Margin { ratio: 1.2, extra: 0.001 };

    fn test(history: Seen) -> TwoArm {
        TwoArm::new(MARGIN, lifts(MARGIN.extra), BaseRate::new(history, 300.0), 0.75)
    }

    #[test]
    fn the_grid_reaches_down_to_what_is_tolerated() {
        assert_eq!((lifts(0.001).len(), lifts(0.001)[8]), (9, 0.003_906_25));
        assert_eq!((lifts(0.0).len(), lifts(1.0).len()), (15, 1));
    }

    #[test]
    fn three_failures_of_a_dead_candidate_are_enough_beside_a_good_stable_release() {
        let mut test = test(Seen::new(6_000, 6));
        let group = Group { weight: Some(0.1), candidate: Seen::new(3, 3), stable: Seen::new(27, 0) };
        assert!(test.tick(&[group], 0.1, 0.0) > 200.0_f64.ln());
        assert_eq!(test.leading_lift(), Some(0.98));
    }

    #[test]
    fn bets_idle_where_stable_fails_nearly_always() {
        let mut test = TwoArm::new(MARGIN, vec![0.004], BaseRate::new(Seen::new(1_000, 1_000), 300.0), 0.75);
        let group = Group { weight: Some(0.5), candidate: Seen::new(100, 100), stable: Seen::new(100, 0) };
        assert!(test.tick(&[group], 1.0, 0.0).abs() < 1e-14);
    }

    #[test]
    fn an_observed_split_says_nothing_while_an_arm_is_empty_but_teaches_the_rate() {
        let mut test = test(Seen::default());
        let group = Group { weight: None, candidate: Seen::default(), stable: Seen::new(100, 10) };
        assert!(test.tick(&[group], 1.0, 0.0).abs() < 1e-14);
        assert_eq!(test.rate().value(), 11.0 / (50.0 + 100.0));
    }

    #[test]
    fn a_gate_holds_while_stable_itself_is_down() {
        let rate = BaseRate::new(Seen::new(100, 90), 300.0);
        let mut gate = NonInferiority::new(Margin { ratio: 1.5, extra: 0.005 }, vec![1.0, 0.5], rate);
        let group = Group { weight: Some(0.5), candidate: Seen::new(1_000, 0), stable: Seen::new(1_000, 900) };
        assert!(gate.tick(&[group], 1.0).abs() < 1e-14);
    }
}
