//! How much traffic does a judgement need? Said before a rollout begins, so that nobody waits for what cannot come.

use super::bet::{Margin, growth};
use super::design::Settings;
use super::engine::{CUTS, EXTRA_MAX};
use super::number::{exp, ln, relative_entropy};

/// How many times the least possible number of requests the engine needs to find a regression, on average: it does not
/// know its size, keeps a reserve and pays for the other metrics. Measured: 1.35 to 1.76 (`make evidence`).
const DETECT: f64 = 1.65;
/// The same for answer times, beside the best single cut: measured 1.3 to 2.2.
const NOTICE: f64 = 1.9;
/// The part of the wealth that belongs to failures where nothing is left out; [`DETECT`] holds for it.
const OF_FAILURES: f64 = 0.5;
/// The shares of stable's answers beyond the cuts that answer times are looked at.
const BEYOND: [f64; 3] = [0.5, 0.1, 0.01];

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

/// How long stable's answers take, as the log-normal distribution through two of its quantiles, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerTimes {
    /// Half of them take at most this long; more than 0.
    pub p50_s: f64,
    /// 99 % of them; not less.
    pub p99_s: f64,
}

/// What is tolerated of a candidate's answer times before they are compared: it is taken off, then divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerated {
    /// Seconds.
    pub seconds: f64,
    /// A factor, 1 or more.
    pub factor: f64,
}

impl AnswerTimes {
    /// The share of the answers of a candidate that takes `times` as long, less what is tolerated, beyond the time that
    /// the share `beyond` of stable's exceeds.
    fn share_beyond(&self, beyond: f64, times: f64, tolerated: Tolerated) -> f64 {
        let spread = (ln(self.p99_s / self.p50_s) / P99_AT).max(1e-3);
        let cut_s = self.p50_s * exp(normal_quantile(1.0 - beyond) * spread);
        let must_exceed_s = (cut_s * tolerated.factor + tolerated.seconds) / times;
        normal_beyond(ln(must_exceed_s / self.p50_s) / spread)
    }
}

/// 99 % of a standard normal distribution lie below.
const P99_AT: f64 = 2.326_347_874_040_841;

/// The part of a standard normal distribution that lies above.
fn normal_beyond(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

/// Where the share `share` of a standard normal distribution lies below, by halving.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if 1.0 - normal_beyond(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

impl Settings {
    /// What it takes to find, beside a limit alone, that more than the share `limit` of the candidate's requests is bad,
    /// where `candidate` is; `None` when that keeps the limit. `share` is that of the wealth that the limit has.
    #[must_use]
    pub fn to_break(&self, traffic: Traffic, limit: f64, share: f64, candidate: f64) -> Option<Needed> {
        let growth = relative_entropy(candidate.min(1.0 - 1e-12), limit);
        let is_broken = candidate > limit && growth > 0.0;
        is_broken.then(|| traffic.takes((self.cost(DETECT, share) / growth).max(2.0 / candidate)))
    }

    /// What it takes to find that the candidate's answers take `times` as long as stable's; `None` when that is tolerated.
    #[must_use]
    pub fn to_notice(
        &self,
        traffic: Traffic,
        answers: AnswerTimes,
        tolerated: Tolerated,
        times: f64,
    ) -> Option<Needed> {
        let margin = Margin { ratio: 1.0, extra: self.latency_extra };
        let grows =
            |beyond: f64| growth(margin, answers.share_beyond(beyond, times, tolerated), beyond, traffic.weight);
        let most = BEYOND.map(grows).into_iter().fold(0.0, f64::max);
        (most > 0.0).then(|| traffic.takes(self.cost(NOTICE, self.shares.latency) * traffic.weight / most))
    }

    /// The evidence that has to be won by a metric with a part of the wealth.
    fn cost(&self, times: f64, share: f64) -> f64 {
        times * self.line() + ln(OF_FAILURES / share).max(0.0)
    }

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
    /// With `times`, the gates of answer times are opened too.
    #[must_use]
    pub fn to_pass(&self, traffic: Traffic, next: f64, times: bool) -> Option<Needed> {
        let Traffic { weight, stable, .. } = traffic;
        let margin = Margin { ratio: self.gate_ratio, extra: (self.harm / next).min(EXTRA_MAX) };
        if stable >= 0.5 || margin.line(stable) >= 1.0 {
            return None;
        }
        let requests = |margin: Margin, bad: f64| {
            let p = margin.closest(bad, bad, weight);
            let growth = weight * relative_entropy(bad, margin.line(p)) + (1.0 - weight) * relative_entropy(bad, p);
            -ln(self.alpha_gate) * weight / growth
        };
        let of_times = CUTS.map(|(beyond, extra)| requests(Margin { ratio: 1.0, extra }, beyond));
        let slowest = of_times.into_iter().filter(|_| times).fold(0.0, f64::max);
        let need = requests(margin, stable).max(slowest);
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
    fn a_limit_alone_finds_what_is_well_beyond_it_and_nothing_within() {
        let (settings, all) = (Settings::default(), Traffic { rate: 100.0, weight: 1.0, stable: 0.001 });
        assert_eq!(settings.to_break(all, 0.02, 0.1, 0.02), None);
        let requests = [1.0, 0.2, 0.05].map(|bad| settings.to_break(all, 0.02, 0.1, bad).unwrap().candidate_requests);
        assert!(requests[0] < 4.0 && requests[1] < 40.0 && (200.0..700.0).contains(&requests[2]), "{requests:?}");
    }

    #[test]
    fn slow_answers_are_noticed_unless_they_are_too_quick_to_tell() {
        let (settings, tolerated) = (Settings::default(), Tolerated { seconds: 0.005, factor: 1.1 });
        let traffic = Traffic { rate: 100.0, weight: 0.1, stable: 0.001 };
        let needs = |p50_s, times| {
            let answers = AnswerTimes { p50_s, p99_s: 3.2 * p50_s };
            settings.to_notice(traffic, answers, tolerated, times).map(|needed| needed.candidate_requests)
        };
        // All answers half as slow again: 58 requests were measured at this share with the factor alone; 5 ms more are tolerated.
        assert!((30.0..150.0).contains(&needs(0.1, 1.5).unwrap()), "{:?}", needs(0.1, 1.5));
        assert!(needs(0.1, 2.0) < needs(0.1, 1.5));
        assert_eq!(needs(0.1, 1.05), None);
        assert_eq!(needs(0.001, 2.0), None, "5 ms are tolerated");
    }

    #[test]
    fn a_gate_that_cannot_open_is_told() {
        let settings = Settings::default();
        assert_eq!(settings.to_pass(Traffic { stable: 0.7, ..SLOW }, 1.0, false), None);
        let small = settings.to_pass(SLOW, 0.05, false).unwrap();
        let all = settings.to_pass(SLOW, 1.0, false).unwrap();
        assert!(small.candidate_requests < 60.0 && all.candidate_requests > 400.0, "{small:?} {all:?}");
        let fast = Traffic { rate: 10_000.0, ..SLOW };
        assert_eq!(settings.to_pass(fast, 0.05, false).unwrap().seconds, settings.gate_s);
    }
}
