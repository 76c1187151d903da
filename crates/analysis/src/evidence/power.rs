//! How much traffic does a judgement need? Said before a rollout begins, so that nobody waits for what cannot come.

use super::bet::{Margin, growth};
use super::design::Settings;
use super::number::{ln, relative_entropy};

/// How many times the least possible number of requests the engine needs to find a regression, on average: it does not
/// know its size, keeps a reserve and pays for the other metrics. Measured: 1.35 to 1.76 (`make evidence`).
const DETECT: f64 = 1.65;

/// What a judgement needs, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needed {
    /// Requests to the candidate; nine in ten rollouts need less than about two and a half times as many.
    pub candidate_requests: f64,
    /// And the time that takes, in seconds.
    pub seconds: f64,
}

/// The traffic of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Requests per second to both releases.
    pub rate: f64,
    /// The candidate's share of them, more than 0 and less than 1.
    pub weight: f64,
    /// The share of stable's requests that fails.
    pub stable: f64,
}

impl Settings {
    /// What it takes to find that the share `candidate` of the candidate's requests fails; `None` when that is harmless, so
    /// that it is never found.
    ///
    /// The least number of requests of any test with the same guarantee, times 1.65; at least two failures.
    #[must_use]
    pub fn to_detect(&self, traffic: Traffic, candidate: f64) -> Option<Needed> {
        let Traffic { weight, stable, .. } = traffic;
        let growth = growth(self.margin, candidate, stable, weight);
        let fewest = 2.0 / candidate;
        (growth > 0.0).then(|| traffic.takes((DETECT * self.line() * weight / growth).max(fewest)))
    }

    /// The smallest share of failing requests that is found within so many seconds, on average; `None` when not even a dead
    /// candidate is.
    #[must_use]
    pub fn smallest_found(&self, traffic: Traffic, within_s: f64) -> Option<f64> {
        let is_found = |candidate| self.to_detect(traffic, candidate).is_some_and(|needed| needed.seconds <= within_s);
        if !is_found(1.0) {
            return None;
        }
        let (mut low, mut high) = (self.margin.line(traffic.stable).min(1.0), 1.0);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if is_found(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }

    /// What it takes a candidate that fails as often as stable to open the gate to the share `next` of the traffic; `None`
    /// when stable fails so often that no gate opens.
    ///
    /// Of the gate's two beliefs, that the candidate is like stable wins on average; the least number of requests for it.
    #[must_use]
    pub fn to_pass(&self, traffic: Traffic, next: f64) -> Option<Needed> {
        let Traffic { weight, stable, .. } = traffic;
        let margin = Margin { ratio: self.gate_ratio, extra: (self.harm / next).min(0.3) };
        if stable >= 0.5 || margin.line(stable) >= 1.0 {
            return None;
        }
        let p = margin.closest(stable, stable, weight);
        let growth = weight * relative_entropy(stable, margin.line(p)) + (1.0 - weight) * relative_entropy(stable, p);
        let need = -ln(self.alpha_gate) * weight / growth;
        let step = traffic.takes(need.max(self.gate_requests as f64));
        Some(Needed { seconds: step.seconds.max(self.gate_s), ..step })
    }
}

impl Traffic {
    fn takes(&self, candidate_requests: f64) -> Needed {
        Needed { candidate_requests, seconds: candidate_requests / (self.rate * self.weight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Traffic = Traffic { rate: 10.0, weight: 0.01, stable: 0.01 };

    #[test]
    fn what_nobody_can_find_honestly_is_told_in_hours() {
        let needed = Settings::default().to_detect(SLOW, 0.02).unwrap();
        assert!((4_200.0..5_200.0).contains(&needed.candidate_requests), "{needed:?}");
        assert!((11.0..15.0).contains(&(needed.seconds / 3_600.0)), "{needed:?}");
    }

    #[test]
    fn what_is_harmless_is_never_found() {
        assert_eq!(Settings::default().to_detect(SLOW, 0.013), None);
        assert_eq!(Settings::default().to_detect(SLOW, 0.0), None);
    }

    #[test]
    fn the_smallest_regression_that_is_found_shrinks_with_time() {
        let settings = Settings::default();
        let fast = Traffic { rate: 100.0, weight: 0.1, stable: 0.001 };
        let found = [10.0, 60.0, 3_600.0].map(|within_s| settings.smallest_found(fast, within_s).unwrap());
        assert!(found[0] > found[1] && found[1] > found[2] && found[2] > 0.002, "{found:?}");
        assert!((settings.to_detect(fast, found[1]).unwrap().seconds - 60.0).abs() < 0.1);
        assert_eq!(settings.smallest_found(SLOW, 10.0), None);
    }

    #[test]
    fn a_gate_that_cannot_open_is_told() {
        let settings = Settings::default();
        assert_eq!(settings.to_pass(Traffic { stable: 0.7, ..SLOW }, 1.0), None);
        let small = settings.to_pass(SLOW, 0.05).unwrap();
        let all = settings.to_pass(SLOW, 1.0).unwrap();
        assert!(small.candidate_requests < 60.0 && all.candidate_requests > 400.0, "{small:?} {all:?}");
        let fast = Traffic { rate: 10_000.0, ..SLOW };
        assert_eq!(settings.to_pass(fast, 0.05).unwrap().seconds, settings.gate_s);
    }
}
