//! Many runs, as probabilities.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::run::{End, Story};
use crate::world::Users;

/// The quantile of the standard normal distribution that leaves 2.5 % on either side.
const Z: f64 = 1.959_963_984_540_054;

/// What many runs of one scenario, each with a seed of its own, add up to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Many {
    /// How many there were.
    pub runs: u64,
    /// How often each end came.
    pub ends: BTreeMap<End, Probability>,
    /// Reasons of the runs that were not promoted, the most frequent first; numbers in them are left out.
    pub reasons: Vec<(String, u64)>,
    /// How long it took to find a bad candidate, in microseconds; `None` where it never was found.
    pub detected_after_us: Option<Spread>,
    /// When it was decided, in microseconds since the deploy.
    pub decided_us: Option<Spread>,
    /// Users who saw an error of the candidate, per run.
    pub hurt_by_candidate: Option<Spread>,
    /// Users whose failed request the stable release answered, per run.
    pub spared: Option<Spread>,
    /// Requests to the candidate, per run.
    pub to_candidate: Option<Spread>,
}

/// How often something happened.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Probability {
    /// How many times.
    pub times: u64,
    /// That part of the runs.
    pub share: f64,
    /// Between these two lies the probability, with 95 % confidence (Wilson 1927).
    pub from: f64,
    /// The upper one.
    pub to: f64,
}

/// How values lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many there are.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: u64,
    /// 5 % of them are at most this.
    pub p5: u64,
    /// Half of them are at most this.
    pub p50: u64,
    /// 95 % of them are at most this.
    pub p95: u64,
    /// The greatest.
    pub max: u64,
}

/// What is kept of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    end: End,
    reason: String,
    detected_after_us: Option<u64>,
    decided_us: Option<u64>,
    users: Users,
}

impl Run {
    /// What is kept of a story.
    #[must_use]
    pub fn of(story: &Story) -> Self {
        let Story { end, detected_after_us, decided_us, users, .. } = *story;
        Self { end, reason: without_numbers(&story.reason), detected_after_us, decided_us, users }
    }
}

/// The seed of one of many runs: neighbours have nothing in common (SplitMix64, Steele, Lea and Flood 2014).
#[must_use]
pub fn seed_of(seed: u64, run: u64) -> u64 {
    let mut mixed = seed.wrapping_add(run.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Many {
    /// Adds runs up; their order does not matter.
    #[must_use]
    pub fn of(runs: &[Run]) -> Self {
        let count = runs.len() as u64;
        let mut ends: BTreeMap<End, u64> = BTreeMap::new();
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for run in runs {
            *ends.entry(run.end).or_default() += 1;
            if run.end != End::Promoted {
                *reasons.entry(&run.reason).or_default() += 1;
            }
        }
        let mut reasons: Vec<(String, u64)> = reasons.into_iter().map(|(why, n)| (why.to_owned(), n)).collect();
        reasons.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let all = |value: fn(&Run) -> Option<u64>| Spread::of(runs.iter().filter_map(value).collect());
        Self {
            runs: count,
            ends: ends.into_iter().map(|(end, times)| (end, Probability::of(times, count))).collect(),
            reasons,
            detected_after_us: all(|run| run.detected_after_us),
            decided_us: all(|run| run.decided_us),
            hurt_by_candidate: all(|run| Some(run.users.hurt_by_candidate)),
            spared: all(|run| Some(run.users.spared)),
            to_candidate: all(|run| Some(run.users.to_candidate)),
        }
    }
}

impl Probability {
    /// So many times of so many, at least one.
    #[must_use]
    pub fn of(times: u64, runs: u64) -> Self {
        let (n, share) = (runs.max(1) as f64, times as f64 / runs.max(1) as f64);
        let middle = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        let (from, to) = (((middle - half) / scale).clamp(0.0, share), ((middle + half) / scale).clamp(share, 1.0));
        Self { times, share, from, to }
    }
}

impl Spread {
    fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let (min, max, count) = (*values.first()?, *values.last()?, values.len());
        let at = |share: f64| values[((share * count as f64).ceil() as usize).clamp(1, count) - 1];
        let mean = values.iter().map(|value| *value as f64).sum::<f64>() / count as f64;
        Some(Self { count: count as u64, mean, min, p5: at(0.05), p50: at(0.5), p95: at(0.95), max })
    }
}

/// The same text whatever was measured: `error_rate is … % (limit < 5 %)` up to its first number.
fn without_numbers(reason: &str) -> String {
    let mut text = String::new();
    let mut is_in_number = false;
    for word in reason.split(' ') {
        let is_number = word.trim_start_matches('(').starts_with(|c: char| c.is_ascii_digit());
        if !(is_number && is_in_number) {
            text.push_str(if text.is_empty() { "" } else { " " });
            text.push_str(if is_number { "…" } else { word });
        }
        is_in_number = is_number;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_what_it_should_and_never_more_than_everything() {
        let close = |found: f64, wanted: f64| (found - wanted).abs() < 5e-4;
        // Newcombe 1998, table I, method 3.
        for (times, of, from, to) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = Probability::of(times, of);
            assert!(close(found.from, from) && close(found.to, to), "{times} of {of}: {found:?}");
        }
        assert_eq!((Probability::of(7, 7).to, Probability::of(0, 7).from), (1.0, 0.0));
    }

    #[test]
    fn quantiles_are_values_that_there_were() {
        assert_eq!(Spread::of(Vec::new()), None);
        let spread = Spread::of((1..=100).collect()).unwrap();
        assert_eq!((spread.min, spread.p5, spread.p50, spread.p95, spread.max), (1, 5, 50, 95, 100));
    }

    #[test]
    fn reasons_are_the_same_whatever_was_measured() {
        let told = [
            "rolled back: error_rate is 7.1 % (limit < 1 %): 3 of 42 requests",
            "rolled back: error_rate is 8 % (limit < 1 %): 40 of 500 requests",
        ];
        assert_eq!(without_numbers(told[0]), without_numbers(told[1]));
    }
}
