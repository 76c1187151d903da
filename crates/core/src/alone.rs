//! What can be said of a release that has no other one beside it: after a switch, in bake, after the last batch.
//!
//! There is no coin and so no guarantee. [`Baseline`] is what an earlier release was like while it was judged, recorded when it
//! was promoted; [`Baseline::compare`] says whether a later one is worse by more than chance. [`Samples`] look at the release
//! itself, stretch by stretch, against limits of its own.

use std::time::Duration;

use evenkeel_analysis::{Counts, Histogram};
use serde::{Deserialize, Serialize};

use crate::ids::{BasisPoints, Revision, Timestamp};
use crate::span::span;

/// Requests below which nothing is compared, of either release.
const ENOUGH: u64 = 200;
/// A load that differs by more than this factor from that of the baseline compares nothing.
const LOAD: f64 = 3.0;
/// So many times as many failures and slow answers are no regression.
const TIMES: f64 = 1.2;
/// Nor is so much more: of failures what the spec tolerates; of answers beyond the baseline's percentile this share of them.
const MORE_SLOW: f64 = 0.5;
/// Standard deviations of chance.
const SIGMAS: f64 = 4.0;
/// An answer is slower when it takes longer than this times the baseline's percentile.
const SLOWER: f64 = 1.25;
/// And by less than this it is not, in microseconds: of answers in a millisecond a resting connection is a good part.
const SLOWER_US: u64 = 5_000;
/// Requests of a sample below which nothing is said about its times.
const SAMPLED: u64 = 20;

/// What a release was like while it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The release.
    pub release: Revision,
    /// When the first and the last of it were counted.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
    /// Its requests.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// How long its answers took.
    pub latency: Histogram,
}

/// What a rollout does about a regression against an earlier release's baseline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regression {
    /// It stands still for people.
    #[default]
    Hold,
    /// It goes back.
    Rollback,
    /// Nothing; it is told.
    Tell,
}

/// How a release is looked at, sample by sample, while it has all of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// At least so long; default 15 min.
    pub lasting: Duration,
    /// Time from one sample to the next; default 30 s.
    pub every: Duration,
    /// A sample of which more fail by more than chance is a failure at once; default 5 %.
    pub errors: BasisPoints,
    /// A sample of which one answer in twenty takes longer is an issue; default 1 s.
    pub p95: Duration,
    /// More samples with an issue than this are a failure; `None`: any number is no more than degraded.
    pub issues: Option<u32>,
}

impl Default for Validation {
    fn default() -> Self {
        let errors = BasisPoints::new(500).unwrap_or(BasisPoints::ALL);
        let (lasting, every, p95) = (Duration::from_secs(900), Duration::from_secs(30), Duration::from_secs(1));
        Self { lasting, every, errors, p95, issues: None }
    }
}

/// What is said of a release that is alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alone {
    /// It beside the baseline of an earlier one.
    pub compared: Option<Said>,
    /// It against limits of its own.
    pub validated: Option<Said>,
}

/// A finding in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// What was found.
    pub text: String,
    /// It speaks against the release.
    pub is_bad: bool,
}

impl Alone {
    /// How it failed its validation.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        bad(self.validated.as_ref())
    }

    /// How it is worse than an earlier release.
    #[must_use]
    pub fn regression(&self) -> Option<String> {
        bad(self.compared.as_ref())
    }

    /// All of it, in lines.
    pub(crate) fn told(&self) -> Vec<String> {
        let validated = self.validated.iter().map(|said| format!("validation: {}", said.text));
        validated.chain(self.compared.iter().map(|said| format!("earlier releases: {}", said.text))).collect()
    }
}

fn bad(said: Option<&Said>) -> Option<String> {
    said.filter(|said| said.is_bad).map(|said| said.text.clone())
}

impl Baseline {
    /// Counts of a release from the first to the last of them; `None`: too few to be of use.
    #[must_use]
    pub fn of(release: Revision, counts: &Counts, from: Timestamp, until: Timestamp) -> Option<Self> {
        let (requests, errors) = (counts.requests(), counts.errors());
        let latency = counts.latency.clone();
        (requests >= ENOUGH).then_some(Self { release, from, until, requests, errors, latency })
    }

    fn per_second(&self) -> f64 {
        per_second(self.requests, self.until.since(self.from))
    }

    /// What is said of counts that took so long, beside this; `tolerate` is the extra share that may fail.
    ///
    /// `None` while too little was counted.
    #[must_use]
    pub fn compare(&self, counts: &Counts, took: Duration, tolerate: f64) -> Option<Said> {
        let requests = counts.requests();
        if requests < ENOUGH || self.requests < ENOUGH {
            return None;
        }
        let load = per_second(requests, took);
        let of = format!("{} of {:.1} requests/s", self.release, self.per_second());
        if load > LOAD * self.per_second() || load * LOAD < self.per_second() {
            let text = format!("not compared with {of}: {load:.1} requests/s is another load");
            return Some(Said { text, is_bad: false });
        }
        let errors = Rates { now: (counts.errors(), requests), then: (self.errors, self.requests) };
        if errors.is_worse(tolerate) {
            return Some(Said { text: format!("fails more than {of}: {}", errors.told("failed")), is_bad: true });
        }
        for (tail, name) in [(0.5, "p50"), (0.05, "p95")] {
            let Some(then) = self.latency.quantile_us(1.0 - tail) else { continue };
            let cut = ((then as f64 * SLOWER) as u64).max(then + SLOWER_US);
            let slower = |times: &Histogram| (times.total() - times.at_most(cut), times.total());
            let rates = Rates { now: slower(&counts.latency), then: slower(&self.latency) };
            if rates.is_worse(tail * MORE_SLOW) {
                let now = counts.latency.quantile_us(1.0 - tail).unwrap_or_default();
                let took = rates.told(&format!("took longer than {}", millis(cut)));
                let text = format!("is slower than {of}: {name} {} instead of {}; {took}", millis(now), millis(then));
                return Some(Said { text, is_bad: true });
            }
        }
        let p95 = |times: &Histogram| times.quantile_us(0.95).map_or_else(|| "-".to_owned(), millis);
        let (now, then) = (p95(&counts.latency), p95(&self.latency));
        let text = format!("no worse than {of}: {}; p95 {now} instead of {then}", errors.told("failed"));
        Some(Said { text, is_bad: false })
    }
}

/// Bad requests of all of them, of a release and of the one it is compared with.
struct Rates {
    now: (u64, u64),
    then: (u64, u64),
}

impl Rates {
    /// More are bad than before, by more than a factor, an extra share, and chance.
    fn is_worse(&self, extra: f64) -> bool {
        let share = |(bad, of): (u64, u64)| bad as f64 / of.max(1) as f64;
        let (now, then) = (share(self.now), share(self.then));
        let limit = (TIMES * then + extra).min(1.0);
        let chance = limit * (1.0 - limit) / self.now.1.max(1) as f64
            + TIMES * TIMES * then * (1.0 - then) / self.then.1.max(1) as f64;
        now - limit > SIGMAS * chance.sqrt() + 1.0 / self.now.1.max(1) as f64
    }

    fn told(&self, what: &str) -> String {
        let ((bad, of), (bad_then, of_then)) = (self.now, self.then);
        format!("{bad} of {of} {what}, {bad_then} of {of_then} of the earlier one")
    }
}

/// The samples of one release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// When the one that is being taken began, and what it has.
    current: Option<(Timestamp, Counts)>,
    taken: u32,
    issues: u32,
    /// The first failure, in words.
    failed: Option<String>,
}

impl Samples {
    /// Counts what came in a stretch of time.
    pub fn take(&mut self, how: &Validation, counts: &Counts, from: Timestamp, at: Timestamp) {
        let (began, sum) = self.current.get_or_insert_with(|| (from, Counts::default()));
        sum.merge(counts);
        let (requests, errors) = (sum.requests(), sum.errors());
        let most = f64::from(how.errors.get()) / 10_000.0 * requests as f64;
        // At once: a sample need not be whole for that.
        if errors as f64 > most + SIGMAS * most.sqrt() + 1.0 && self.failed.is_none() {
            self.failed = Some(format!("{errors} of {requests} requests of a sample failed, more than {}", how.errors));
        }
        if at.since(*began) < how.every {
            return;
        }
        let p95 = sum.latency.quantile_us(0.95).filter(|_| requests >= SAMPLED).unwrap_or_default();
        self.taken += 1;
        self.issues += u32::from(Duration::from_micros(p95) > how.p95);
        self.current = None;
        if let Some(most) = how.issues.filter(|most| self.issues > *most) {
            let issues = self.issues;
            self.failed
                .get_or_insert_with(|| format!("{issues} samples had a p95 above {}, more than {most}", span(how.p95)));
        }
    }

    /// What they say together: `healthy`, `degraded` or `failed`, and why.
    #[must_use]
    pub fn said(&self, how: &Validation) -> Said {
        let Self { taken, issues, failed, .. } = self;
        match (failed, issues) {
            (Some(why), _) => Said { text: format!("failed: {why}"), is_bad: true },
            (None, 0) => Said { text: format!("healthy: {taken} samples without an issue"), is_bad: false },
            (None, issues) => {
                let text = format!("degraded: {issues} of {taken} samples had a p95 above {}", span(how.p95));
                Said { text, is_bad: false }
            }
        }
    }
}

fn per_second(requests: u64, took: Duration) -> f64 {
    requests as f64 / took.as_secs_f64().max(1.0)
}

fn millis(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1_000.0),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_analysis::counts::Outcome;

    use super::*;

    fn counts(requests: u64, failed: u64, us: u64) -> Counts {
        let mut counts = Counts::default();
        (0..requests).for_each(|n| {
            let status = if n < failed { 500 } else { 200 };
            // One answer in ten takes three times as long.
            counts.record(Outcome::Answered(status), if n % 10 == 0 { 3 * us } else { us });
        });
        counts
    }

    fn baseline(requests: u64, failed: u64, us: u64) -> Baseline {
        Baseline::of(Revision(1), &counts(requests, failed, us), Timestamp(0), Timestamp(100_000_000)).unwrap()
    }

    #[test]
    fn a_release_is_compared_with_what_an_earlier_one_was_like() {
        let took = Duration::from_secs(100);
        let said = |now: Counts| baseline(10_000, 10, 20_000).compare(&now, took, 0.001).unwrap();
        for fine in [counts(10_000, 10, 20_000), counts(10_000, 25, 20_000), counts(8_000, 0, 22_000)] {
            assert!(!said(fine.clone()).is_bad, "{:?}", said(fine));
        }
        let fails = said(counts(10_000, 100, 20_000));
        assert!(
            fails.is_bad
                && fails.text.starts_with("fails more than r1 of 100.0 requests/s: 100 of 10000 failed, 10 of")
        );
        let slow = said(counts(10_000, 10, 40_000));
        assert!(slow.is_bad && slow.text.contains("is slower than r1") && slow.text.contains("p50 "), "{slow:?}");
        // Few requests, or another load, say nothing.
        assert_eq!(baseline(10_000, 10, 20_000).compare(&counts(199, 199, 1), took, 0.001), None);
        assert!(said(counts(1_000, 500, 20_000)).text.contains("is another load"));
        assert_eq!(Baseline::of(Revision(1), &counts(199, 0, 1), Timestamp(0), Timestamp(1)), None);
    }

    #[test]
    fn samples_tell_healthy_degraded_and_failed_apart() {
        let how = Validation { issues: Some(2), ..Validation::default() };
        let mut samples = Samples::default();
        let mut now = Timestamp(0);
        let mut take = |samples: &mut Samples, seconds: u64, failed: u64, us: u64| {
            for _ in 0..seconds {
                let from = now;
                now = now.after(Duration::from_secs(1));
                samples.take(&how, &counts(50, failed, us), from, now);
            }
        };
        take(&mut samples, 90, 2, 20_000);
        assert_eq!(samples.said(&how).text, "healthy: 3 samples without an issue");
        take(&mut samples, 60, 2, 500_000);
        let said = samples.said(&how);
        assert_eq!((said.text.as_str(), said.is_bad), ("degraded: 2 of 5 samples had a p95 above 1 s", false));
        let mut worse = samples.clone();
        take(&mut worse, 30, 0, 500_000);
        assert_eq!(worse.said(&how).text, "failed: 3 samples had a p95 above 1 s, more than 2");
        // Errors fail it at once, in the middle of a sample.
        take(&mut samples, 2, 30, 20_000);
        let said = samples.said(&how);
        assert!(said.is_bad && said.text == "failed: 30 of 50 requests of a sample failed, more than 5 %", "{said:?}");
    }
}
