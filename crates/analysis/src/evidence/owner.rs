//! Which release does a failure belong to? For splits by session, where only each session's first failure may count.

use serde::{Deserialize, Serialize};

use super::bet::{Group, Margin, Seen};
use super::number::{ln, times};
use super::pot::Pot;
use super::rate::BaseRate;
use super::two_arm::TwoArm;

/// A test that looks at failures alone: which arm owns each one?
///
/// Where a session keeps its release, its requests are no independent coins; its arm is one. So a unit is a session, and its
/// first failure is all that counts. Null hypothesis: a session fails first with a hazard of at most ratio + extra / p
/// times that of stable (Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data", 2022).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureOwner {
    margin: Margin,
    eta: f64,
    lifts: Vec<f64>,
    rate: BaseRate,
    pot: Pot,
}

/// The first failures of one tick under one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Owned {
    /// The candidate's share of sessions, 0 to 1.
    pub weight: f64,
    /// First failures of the candidate's sessions.
    pub candidate: u64,
    /// First failures of stable's.
    pub stable: u64,
}

impl FailureOwner {
    /// Bets on these lifts with the part `rho` of the wealth.
    #[must_use]
    pub fn new(margin: Margin, lifts: Vec<f64>, rate: BaseRate, rho: f64) -> Self {
        let mut pot = Pot::even(lifts.len());
        pot.inject(rho);
        Self { margin, eta: 1.0, lifts, rate, pot }
    }

    /// As [`TwoArm::set_eta`].
    pub fn set_eta(&mut self, eta: f64) {
        self.eta = eta;
    }

    /// Bets on whose the first failures of a tick were; `stable_sessions` is for the estimate of the rate only. Gives
    /// ln E.
    pub fn tick(&mut self, groups: &[Owned], stable_sessions: u64, dt_s: f64, rho: f64) -> f64 {
        self.pot.inject(rho);
        let stable = self.rate.value();
        let harmless = self.margin.ratio + self.margin.extra / stable;
        for (expert, lift) in self.lifts.iter().enumerate() {
            let ratio = (stable + (1.0 - stable) * lift) / stable;
            if ratio > harmless {
                let gain: f64 = groups.iter().map(|group| group.gain(ratio, harmless)).sum();
                self.pot.gain(expert, self.eta * gain);
            }
        }
        self.rate.learn(Seen::new(stable_sessions, groups.iter().map(|group| group.stable).sum()), dt_s);
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

    /// The lift whose bets won most.
    #[must_use]
    pub fn leading_lift(&self) -> Option<f64> {
        self.pot.leader().map(|expert| self.lifts[expert])
    }
}

impl Owned {
    fn gain(&self, ratio: f64, harmless: f64) -> f64 {
        // Where one arm has all sessions, whose a failure is says nothing.
        if self.weight <= 0.0 || self.weight >= 1.0 {
            return 0.0;
        }
        // Of failures whose hazards have this ratio, stable has one part in so many.
        let all = |ratio: f64| self.weight * ratio + 1.0 - self.weight;
        let stable = ln(all(harmless) / all(ratio));
        times(self.candidate, ln(ratio / harmless) + stable) + times(self.stable, stable)
    }
}

/// A comparison of failures, by what the split is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Comparison {
    /// A coin per request, or an observed split of requests.
    Requests(TwoArm),
    /// A release per session.
    Sessions(FailureOwner),
}

impl Comparison {
    pub(crate) fn set_eta(&mut self, eta: f64) {
        match self {
            Self::Requests(test) => test.set_eta(eta),
            Self::Sessions(test) => test.set_eta(eta),
        }
    }

    pub(crate) fn tick(&mut self, groups: &[Group], dt_s: f64, rho: f64) -> f64 {
        let test = match self {
            Self::Requests(test) => return test.tick(groups, dt_s, rho),
            Self::Sessions(test) => test,
        };
        let own = |group: &Group| {
            let weight = group.split()?;
            Some(Owned { weight, candidate: group.candidate.bad, stable: group.stable.bad })
        };
        let owned: Vec<Owned> = groups.iter().filter_map(own).collect();
        test.tick(&owned, groups.iter().map(|group| group.stable.requests).sum(), dt_s, rho)
    }

    pub(crate) fn pot(&self) -> &Pot {
        match self {
            Self::Requests(test) => test.pot(),
            Self::Sessions(test) => test.pot(),
        }
    }

    pub(crate) fn pot_mut(&mut self) -> &mut Pot {
        match self {
            Self::Requests(test) => test.pot_mut(),
            Self::Sessions(test) => &mut test.pot,
        }
    }

    pub(crate) fn leading_lift(&self) -> Option<f64> {
        match self {
            Self::Requests(test) => test.leading_lift(),
            Self::Sessions(test) => test.leading_lift(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::two_arm::lifts;

    #[test]
    fn failures_that_all_belong_to_a_tenth_of_the_sessions_are_evidence() {
        let margin = Margin { ratio: 1.2, extra: 0.001 };
        let mut test = FailureOwner::new(margin, lifts(0.001), BaseRate::new(Seen::new(6_000, 60), 300.0), 0.75);
        assert!(test.tick(&[Owned { weight: 0.1, candidate: 1, stable: 9 }], 900, 1.0, 0.0) < 1.0);
        assert!(test.tick(&[Owned { weight: 0.1, candidate: 18, stable: 2 }], 900, 1.0, 0.0) > 100.0_f64.ln());
    }
}
