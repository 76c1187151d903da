//! How much of an error budget is left, and how fast is it spent?
//!
//! A promise such as "99.9 % of the requests of 30 days" allows one request in a thousand to be bad: that is its budget. A
//! [`Ledger`] counts requests in bounded buckets. The burn rate is the share of bad requests in units of what the promise
//! allows: at 1 the budget is gone exactly when its time is over. It is told when it is high over a long stretch and still
//! is over a short one, as the SRE workbook of Google describes it (chapter 5, "Alerting on SLOs", sixth approach; the
//! stretches here are parts of the promise's time, which for 30 days gives the stretches of that book).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Counts;
use crate::slots::Part;

const MINUTE: u64 = 60_000_000;
const HOUR: u64 = 60 * MINUTE;
/// Minutes kept: every stretch up to six hours is added up from them.
const MINUTES_KEPT: u64 = 361;
/// Bad requests below which no burn rate is told: of a handful of requests a single one would spend weeks.
const LEAST_BAD: u64 = 5;

/// A promise about the requests of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// What makes a request bad.
    pub bad: BadBy,
    /// The share of requests that must be good; below 1.
    pub objective: f64,
    /// Of the requests of this time, up to the present.
    pub window: Duration,
}

/// What makes a request bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadBy {
    /// Its user got a status of 5xx, or no answer.
    Failing,
    /// It was answered later than after this many microseconds, or not at all.
    SlowerThan(u64),
}

impl BadBy {
    /// What counts say; `shielded` of the failures were answered by another release, so that their users saw none.
    #[must_use]
    pub fn part(self, counts: &Counts, shielded: u64) -> Part {
        let bad = match self {
            Self::Failing => counts.errors().saturating_sub(shielded),
            Self::SlowerThan(us) => counts.requests() - counts.latency.at_most(us).min(counts.requests()),
        };
        Part { of: counts.requests(), bad }
    }
}

/// How fast a budget is spent, when that is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// A tenth of it within a tenth of its time.
    Slow,
    /// A twentieth of it within a 120th of its time.
    Fast,
    /// A fiftieth of it within a 720th of its time.
    Racing,
}

impl Speed {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::Racing, Self::Fast, Self::Slow];

    /// The part of the promise's time that is looked at, as its divisor, and the burn rate that is too much.
    #[must_use]
    pub fn rule(self) -> (u32, f64) {
        match self {
            Self::Racing => (720, 14.4),
            Self::Fast => (120, 6.0),
            Self::Slow => (10, 1.0),
        }
    }

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Racing => "racing",
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

/// A budget that is being spent too fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burn {
    /// How fast.
    pub speed: Speed,
    /// The burn rate over the long stretch.
    pub rate: f64,
    /// What was counted in it.
    pub seen: Part,
    /// The long stretch.
    pub over: Duration,
}

/// What is left of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Requests of the promise's time.
    pub requests: u64,
    /// The bad ones.
    pub bad: u64,
    /// So many may be bad.
    pub allowed: f64,
    /// The share of the budget that is left: 1 all of it, 0 nothing, below 0 it is overspent.
    pub left: f64,
}

impl Budget {
    /// Whether nothing is left of it. Without requests nothing is spent.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.bad > 0 && self.left <= 0.0
    }
}

/// Requests of a service over time, in buckets of a minute and of an hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Number since 1970 began, requests, bad ones; the newest last, those without requests left out.
    minutes: VecDeque<(u64, u64, u64)>,
    hours: VecDeque<(u64, u64, u64)>,
}

impl Ledger {
    /// Counts requests of this moment, in microseconds since 1970 began, which does not go back, and forgets what is older than
    /// `window`.
    pub fn add(&mut self, now_us: u64, part: Part, window: Duration) {
        let hours_kept = micros(window).div_ceil(HOUR) + 1;
        add(&mut self.minutes, now_us / MINUTE, part, MINUTES_KEPT);
        add(&mut self.hours, now_us / HOUR, part, hours_kept);
    }

    /// What was counted in the last so long, rounded up to whole minutes, or hours beyond six of them.
    #[must_use]
    pub fn within(&self, now_us: u64, span: Duration) -> Part {
        let span = micros(span);
        let (buckets, unit) = if span <= 6 * HOUR { (&self.minutes, MINUTE) } else { (&self.hours, HOUR) };
        let first = (now_us / unit + 1).saturating_sub(span.div_ceil(unit).max(1));
        let mut sum = Part::default();
        for (_, of, bad) in buckets.iter().rev().take_while(|(number, ..)| *number >= first) {
            (sum.of, sum.bad) = (sum.of + of, sum.bad + bad);
        }
        sum
    }

    /// What is left of a promise's budget.
    #[must_use]
    pub fn budget(&self, promise: &Promise, now_us: u64) -> Budget {
        let Part { of: requests, bad } = self.within(now_us, promise.window);
        let allowed = (1.0 - promise.objective) * requests as f64;
        let left = if bad == 0 { 1.0 } else { 1.0 - bad as f64 / allowed };
        Budget { requests, bad, allowed, left }
    }

    /// The burn rate of the last so long; `None` without requests.
    #[must_use]
    pub fn burn_rate(&self, promise: &Promise, now_us: u64, span: Duration) -> Option<f64> {
        rate(promise, self.within(now_us, span))
    }

    /// Whether the budget is being spent too fast; the fastest speed that is.
    #[must_use]
    pub fn burns(&self, promise: &Promise, now_us: u64) -> Option<Burn> {
        Speed::ALL.into_iter().find_map(|speed| {
            let (part, limit) = speed.rule();
            let over = promise.window / part;
            let seen = self.within(now_us, over);
            let long = rate(promise, seen).filter(|rate| *rate >= limit && seen.bad >= LEAST_BAD)?;
            let is_still = self.burn_rate(promise, now_us, over / 12).is_some_and(|rate| rate >= limit);
            is_still.then_some(Burn { speed, rate: long, seen, over })
        })
    }
}

fn rate(promise: &Promise, Part { of, bad }: Part) -> Option<f64> {
    (of > 0).then(|| bad as f64 / of as f64 / (1.0 - promise.objective))
}

fn add(buckets: &mut VecDeque<(u64, u64, u64)>, number: u64, part: Part, kept: u64) {
    while buckets.front().is_some_and(|(old, ..)| old + kept <= number) {
        buckets.pop_front();
    }
    if part.of == 0 {
        return;
    }
    match buckets.back_mut() {
        // A clock that was set back counts into what is there.
        Some((last, of, bad)) if *last >= number => (*of, *bad) = (*of + part.of, *bad + part.bad),
        _ => buckets.push_back((number, part.of, part.bad)),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Outcome;

    const DAY: u64 = 24 * HOUR;

    fn promise() -> Promise {
        Promise { bad: BadBy::Failing, objective: 0.999, window: Duration::from_secs(30 * 86_400) }
    }

    /// A service with 1 000 requests a minute, of which so many are bad in each minute of so many.
    fn ledger(parts: &[(u64, u64)]) -> (Ledger, u64) {
        let (mut ledger, mut now) = (Ledger::default(), 1_000 * DAY);
        for (minutes, bad) in parts {
            for _ in 0..*minutes {
                ledger.add(now, Part { of: 1_000, bad: *bad }, promise().window);
                now += MINUTE;
            }
        }
        (ledger, now - 1)
    }

    #[test]
    fn a_budget_is_what_the_promise_allows_and_what_is_older_than_its_time_is_forgotten() {
        let (ledger, now) = ledger(&[(60, 10), (30 * 1_440, 0), (60, 1)]);
        let budget = ledger.budget(&promise(), now);
        assert_eq!(budget.bad, 60, "what was spent 30 days ago is not: {budget:?}");
        assert!((budget.allowed - budget.requests as f64 / 1_000.0).abs() < 1e-6);
        assert!((budget.left - (1.0 - 60.0 / budget.allowed)).abs() < 1e-9 && !budget.is_spent());
        let empty = Ledger::default().budget(&promise(), now);
        assert!(empty.left >= 1.0 && !empty.is_spent());
        let (bad, now) = super::tests::ledger(&[(10, 2)]);
        assert!(bad.budget(&promise(), now).is_spent());
    }

    #[test]
    fn the_room_is_bounded_whatever_comes() {
        let (ledger, _) = ledger(&[(60 * 1_440, 1)]);
        assert!(ledger.minutes.len() <= 361 && ledger.hours.len() <= 721);
        let kept = serde_json::to_string(&ledger).unwrap();
        assert!(kept.len() < 30_000, "{}", kept.len());
        assert_eq!(serde_json::from_str::<Ledger>(&kept).unwrap(), ledger);
    }

    #[test]
    fn a_budget_that_burns_is_told_by_how_fast_it_does() {
        let speed = |parts: &[(u64, u64)]| {
            let (ledger, now) = ledger(parts);
            ledger.burns(&promise(), now).map(|burn| burn.speed)
        };
        let well = (4 * 1_440, 0);
        assert_eq!(speed(&[well]), None);
        // 2 % of the requests for an hour: twenty times what is allowed.
        assert_eq!(speed(&[well, (60, 20)]), Some(Speed::Racing));
        assert_eq!(speed(&[well, (60, 13)]), None, "below 14.4 for an hour is no race, and no six hours yet");
        assert_eq!(speed(&[well, (360, 7)]), Some(Speed::Fast));
        assert_eq!(speed(&[well, (3 * 1_440, 2)]), Some(Speed::Slow));
        // What is over is not told although the hour is still bad.
        assert_eq!(speed(&[well, (60, 20), (6, 0)]), None);
    }

    #[test]
    fn a_few_bad_requests_of_few_are_not_told() {
        let mut ledger = Ledger::default();
        ledger.add(DAY, Part { of: 4, bad: 4 }, promise().window);
        assert_eq!(ledger.burns(&promise(), DAY), None);
        ledger.add(DAY, Part { of: 1, bad: 1 }, promise().window);
        assert_eq!(ledger.burns(&promise(), DAY).map(|burn| burn.speed), Some(Speed::Racing));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut ledger = Ledger::default();
        for now in [10 * DAY, 9 * DAY, 10 * DAY] {
            ledger.add(now, Part { of: 10, bad: 1 }, promise().window);
        }
        assert_eq!(ledger.within(10 * DAY, Duration::from_secs(3_600)), Part { of: 30, bad: 3 });
    }

    #[test]
    fn what_users_saw_counts() {
        let mut counts = Counts::default();
        counts.record(Outcome::Answered(200), 100_000);
        counts.record(Outcome::Answered(500), 900_000);
        counts.record(Outcome::NoAnswer, 0);
        assert_eq!(BadBy::Failing.part(&counts, 1), Part { of: 3, bad: 1 });
        assert_eq!(BadBy::SlowerThan(500_000).part(&counts, 0), Part { of: 3, bad: 2 });
    }
}
