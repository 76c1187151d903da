//! What does one request pay a bet that the candidate is worse?
//!
//! The bets are the two-sample e-variables of Turner, Ly and Grünwald ("Generic E-variables for exact sequential k-sample
//! tests that allow for optional stopping", 2024) where a block is one randomised request, with a margin; projecting the
//! alternative on the harmless set is the construction of Grünwald, de Heide and Koolen ("Safe Testing", 2024).

use serde::{Deserialize, Serialize};

use super::number::{ln, ln_1p, relative_entropy, times};

/// Newton's steps that the slowest root may take; each is replaced by a halving where it leaves the bracket.
const STEPS_MAX: usize = 200;
/// A step smaller than this, relative to the root, was the last: Newton's method doubles the digits with each.
const LAST_STEP: f64 = 1e-10;

/// The greatest probability below 1.
const SURE: f64 = 1.0 - f64::EPSILON / 2.0;

/// The line between harmless and harmful: the candidate may fail with probability `ratio` · p + `extra`, where the stable
/// release fails with p.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// So many times stable's failures; more than 0.
    pub ratio: f64,
    /// And so much more; a share of all requests, 0 to 1.
    pub extra: f64,
}

impl Margin {
    /// The greatest harmless probability beside `stable`; may be more than 1.
    #[must_use]
    pub fn line(self, stable: f64) -> f64 {
        self.ratio * stable + self.extra
    }

    /// The harmless explanation that is closest to what a bet believes: its probability of a bad outcome at stable; the
    /// candidate's is on the line.
    ///
    /// It is the p that minimises w·kl(candidate ‖ line(p)) + (1 − w)·kl(stable ‖ p), found between `stable` and the p whose
    /// line is `candidate`, in either order, by Newton's method in a shrinking bracket. `weight` is the candidate's share of
    /// requests, 0 to 1.
    #[must_use]
    pub fn closest(self, candidate: f64, stable: f64, weight: f64) -> f64 {
        let Self { ratio, extra } = self;
        if ratio == 1.0 && extra == 0.0 {
            return weight * candidate + (1.0 - weight) * stable;
        }
        let other = (candidate - extra) / ratio;
        // Where the ratio is below 1, the end of the line may lie beyond certainty.
        let (mut low, mut high) = (stable.min(other).max(0.0), stable.max(other).min(1.0 - f64::EPSILON));
        let start = weight * other + (1.0 - weight) * stable;
        let mut p = if start.is_finite() { start.clamp(low, high) } else { 0.5 * (low + high) };
        for _ in 0..STEPS_MAX {
            let q = self.line(p);
            let slope = weight * ratio * ((1.0 - candidate) / (1.0 - q) - candidate / q)
                + (1.0 - weight) * ((1.0 - stable) / (1.0 - p) - stable / p);
            let curve = weight * ratio * ratio * ((1.0 - candidate) / ((1.0 - q) * (1.0 - q)) + candidate / (q * q))
                + (1.0 - weight) * ((1.0 - stable) / ((1.0 - p) * (1.0 - p)) + stable / (p * p));
            if p <= 0.0 || slope < 0.0 {
                low = p;
            } else {
                high = p;
            }
            let newton = p - slope / curve;
            // Not a number compares as false: then the bracket is halved.
            let next = if newton >= low && newton <= high { newton } else { 0.5 * (low + high) };
            let step = (next - p).abs();
            p = next;
            if step <= LAST_STEP * p {
                break;
            }
        }
        p
    }
}

/// The logs of what each kind of outcome multiplies a wealth with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Factors {
    /// A bad outcome of the candidate.
    pub candidate_bad: f64,
    /// A good outcome of the candidate.
    pub candidate_good: f64,
    /// A bad outcome of the stable release.
    pub stable_bad: f64,
    /// A good outcome of the stable release.
    pub stable_good: f64,
}

impl Factors {
    /// No bet at all.
    pub const NONE: Self = Self { candidate_bad: 0.0, candidate_good: 0.0, stable_bad: 0.0, stable_good: 0.0 };

    /// The factors of a bet that bad outcomes have probability `candidate` and `stable`, against everything harmless.
    #[must_use]
    pub fn new(margin: Margin, candidate: f64, stable: f64, weight: f64) -> Self {
        // No bet is so sure that it is ruined by one outcome.
        let (candidate, stable) = (candidate.min(SURE), stable.min(SURE));
        let p = margin.closest(candidate, stable, weight).min(SURE);
        let q = margin.line(p).min(SURE);
        Self {
            candidate_bad: ln(candidate / q),
            candidate_good: ln_1p(-candidate) - ln_1p(-q),
            stable_bad: ln(stable / p),
            stable_good: ln_1p(-stable) - ln_1p(-p),
        }
    }

    /// What these outcomes add to the log of the wealth.
    #[must_use]
    pub fn gain(&self, candidate: Seen, stable: Seen) -> f64 {
        times(candidate.bad, self.candidate_bad)
            + times(candidate.good(), self.candidate_good)
            + times(stable.bad, self.stable_bad)
            + times(stable.good(), self.stable_good)
    }
}

/// The growth of the best possible bet, in nats per request of both arms, where bad outcomes truly have probability
/// `candidate` and `stable`: no test with the same guarantee needs fewer than ln(1/alpha) divided by it on average (Wald
/// 1945; for composite hypotheses Agrawal and Ramdas, "On Stopping Times of Power-one Sequential Tests", 2025).
#[must_use]
pub fn growth(margin: Margin, candidate: f64, stable: f64, weight: f64) -> f64 {
    if candidate <= margin.line(stable) {
        return 0.0;
    }
    let candidate = candidate.min(1.0 - 1e-12);
    let p = margin.closest(candidate, stable, weight);
    weight * relative_entropy(candidate, margin.line(p)) + (1.0 - weight) * relative_entropy(stable, p)
}

/// What was seen of one arm for a yes/no question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Requests (or sessions, where those are counted).
    pub requests: u64,
    /// Those of them whose outcome was bad; at most `requests`.
    pub bad: u64,
}

impl Seen {
    /// So many, of which so many were bad.
    #[must_use]
    pub const fn new(requests: u64, bad: u64) -> Self {
        Self { requests, bad }
    }

    /// Those that were not bad.
    #[must_use]
    pub fn good(self) -> u64 {
        self.requests.saturating_sub(self.bad)
    }

    /// Adds what another one has seen.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bad += other.bad;
    }
}

/// What both arms showed under one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// The candidate's share under which the coin chose, 0 to 1; `None`: the share that was observed in this very group,
    /// for splits that are not an independent coin per request. Such a group says nothing while an arm is empty.
    pub weight: Option<f64>,
    /// The candidate.
    pub candidate: Seen,
    /// The stable release.
    pub stable: Seen,
}

impl Group {
    /// The weight to bet with; `None` where there is nothing to bet on.
    #[must_use]
    pub fn split(&self) -> Option<f64> {
        split(self.weight, self.candidate.requests, self.stable.requests)
    }
}

/// The weight to bet with, where so many requests went to each arm.
pub(crate) fn split(weight: Option<f64>, candidate: u64, stable: u64) -> Option<f64> {
    match weight {
        Some(weight) => Some(weight),
        None if candidate == 0 || stable == 0 => None,
        None => Some(candidate as f64 / (candidate + stable) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of [`Margin::closest`], by halving alone.
    fn halved(margin: Margin, candidate: f64, stable: f64, weight: f64) -> f64 {
        let Margin { ratio, extra } = margin;
        let other = (candidate - extra) / ratio;
        let (mut low, mut high) = (stable.min(other).max(0.0), stable.max(other));
        loop {
            let p = 0.5 * (low + high);
            if p <= low || p >= high {
                return p;
            }
            let q = margin.line(p);
            let slope = weight * ratio * ((1.0 - candidate) / (1.0 - q) - candidate / q)
                + (1.0 - weight) * ((1.0 - stable) / (1.0 - p) - stable / p);
            if slope < 0.0 { low = p } else { high = p }
        }
    }

    fn a_share() -> impl Strategy<Value = f64> {
        (-6.0..-0.05_f64).prop_map(|power| 10.0_f64.powf(power))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn the_closest_harmless_explanation_is_the_one_found_by_halving(
            stable in a_share(), lift in a_share(), weight in 0.0001..0.9999_f64, ratio in 1.0..2.0_f64, extra in 0.0..0.1_f64
        ) {
            let margin = Margin { ratio, extra };
            let line = margin.line(stable);
            if line >= 1.0 {
                return Ok(());
            }
            let candidate = line + (1.0 - line) * lift;
            let (found, wanted) = (margin.closest(candidate, stable, weight), halved(margin, candidate, stable, weight));
            prop_assert!((found - wanted).abs() <= 1e-12 * wanted, "{found} is not {wanted}");
        }

        #[test]
        fn so_it_is_where_the_candidate_is_better(
            stable in a_share(), factor in 0.1..1.0_f64, weight in 0.0001..0.9999_f64, ratio in 1.0..2.0_f64, extra in 0.0..0.3_f64
        ) {
            let margin = Margin { ratio, extra };
            let candidate = stable * factor;
            if stable >= 0.5 || candidate >= margin.line(stable) || margin.line(stable) >= 1.0 {
                return Ok(());
            }
            let (found, wanted) = (margin.closest(candidate, stable, weight), halved(margin, candidate, stable, weight));
            prop_assert!((found - wanted).abs() <= 1e-12 * wanted, "{found} is not {wanted}");
        }

        #[test]
        fn no_harmless_candidate_lets_a_bet_win_on_average(
            believed in a_share(), lift in a_share(), weight in 0.001..0.999_f64, ratio in 1.0..2.0_f64, extra in 0.0..0.1_f64,
            p in 0.0..1.0_f64, of_line in 0.0..=1.0_f64
        ) {
            let margin = Margin { ratio, extra };
            let line = margin.line(believed);
            if line >= 1.0 {
                return Ok(());
            }
            let candidate = line + (1.0 - line) * lift;
            let q = margin.line(p).min(1.0) * of_line;
            let pays = Factors::new(margin, candidate, believed, weight);
            let mean = weight * (q * pays.candidate_bad.exp() + (1.0 - q) * pays.candidate_good.exp())
                + (1.0 - weight) * (p * pays.stable_bad.exp() + (1.0 - p) * pays.stable_good.exp());
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }
    }

    #[test]
    fn a_ratio_below_one_asks_for_a_better_candidate() {
        let margin = Margin { ratio: 0.5, extra: 0.0 };
        let p = margin.closest(0.99, 0.1, 0.5);
        assert!(p > 0.1 && p < 1.0, "{p}");
        assert!(growth(margin, 0.1, 0.1, 0.5) > 0.0);
        assert_eq!(growth(Margin { ratio: 1.2, extra: 0.001 }, 0.1, 0.1, 0.5), 0.0);
    }

    #[test]
    fn no_single_outcome_ruins_even_the_surest_bet() {
        let pays = Factors::new(Margin { ratio: 1.0, extra: 0.0 }, 1.0, 0.5, 0.5);
        assert!(pays.gain(Seen::new(1, 0), Seen::default()) > -40.0);
        assert_eq!(pays.gain(Seen::new(1, 1), Seen::default()), pays.candidate_bad);
    }
}
