//! When a breaker opens, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rules of one breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What opens it.
    pub trip: Trip,
    /// How long it is open the first time. Defaults: 60 s for an API, 30 s for a database.
    pub open: Duration,
    /// Each time it opens again without having stayed closed, that time is so many percent of the time before.
    /// Default 200.
    pub growth_percent: u32,
    /// The longest it is open. Default 10 min.
    pub open_limit: Duration,
    /// Up to so many percent come on top, by chance, so that many callers do not come back at once. Default 10.
    pub jitter_percent: u32,
    /// How many probes there may be at once while it is half-open, at least 1. Default 1.
    pub probes: u32,
    /// How many must succeed to close it, at least 1. Default 2.
    pub successes: u32,
    /// How long a probe may take before it counts as failed. Default 30 s.
    pub probe_limit: Duration,
    /// The longest a dependency is left alone because it asked for it. Default 60 s.
    pub cooldown_limit: Duration,
}

/// What opens a breaker: any of its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// So many failures without a success between them. Defaults: 5 for an API, 3 for a database.
    pub in_a_row: Option<u32>,
    /// Such a share of recent calls that failed.
    pub failing: Option<Share>,
    /// Such a share of recent calls that took at least so long.
    pub slow: Option<(Share, Duration)>,
    /// Which calls are recent.
    pub over: Span,
    /// Shares are looked at from so many recent calls on. Default 20.
    pub minimum_calls: u32,
}

/// Which calls are recent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// The last so many, 1 to 10 000.
    Calls(u32),
    /// Those of so long ago at most, at least 1 s; older ones are dropped in steps of a tenth.
    Time(Duration),
}

/// A share of calls in percent, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u8);

impl Share {
    /// Returns `None` for 0 and above 100.
    #[must_use]
    pub fn percent(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    /// Whether so many of so many are at least this share.
    #[must_use]
    pub fn is_reached(self, part: u32, whole: u32) -> bool {
        u64::from(part) * 100 >= u64::from(whole) * u64::from(self.0)
    }
}

/// A policy that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct BadPolicy {
    /// Which rule.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub what: &'static str,
}

impl Policy {
    /// For a service that is called over HTTP.
    #[must_use]
    pub fn api() -> Self {
        Self {
            trip: Trip {
                in_a_row: Some(5),
                failing: None,
                slow: None,
                over: Span::Time(Duration::from_secs(30)),
                minimum_calls: 20,
            },
            open: Duration::from_secs(60),
            growth_percent: 200,
            open_limit: Duration::from_secs(600),
            jitter_percent: 10,
            probes: 1,
            successes: 2,
            probe_limit: Duration::from_secs(30),
            cooldown_limit: Duration::from_secs(60),
        }
    }

    /// For a database or a cache.
    #[must_use]
    pub fn database() -> Self {
        let api = Self::api();
        Self { trip: Trip { in_a_row: Some(3), ..api.trip }, open: Duration::from_secs(30), ..api }
    }

    /// Looks at every rule.
    ///
    /// # Errors
    /// All that are wrong.
    pub fn check(&self) -> Result<(), Vec<BadPolicy>> {
        let is_span_good = match self.trip.over {
            Span::Calls(calls) => (1..=10_000).contains(&calls),
            Span::Time(time) => time >= Duration::from_secs(1),
        };
        let trip = &self.trip;
        let has_rule = trip.in_a_row.is_some() || trip.failing.is_some() || trip.slow.is_some();
        let is_enough = match trip.over {
            Span::Calls(calls) => trip.minimum_calls <= calls,
            Span::Time(_) => true,
        };
        let rules = [
            (has_rule, "trip", "nothing would ever open it: write at least one of its rules"),
            (trip.in_a_row != Some(0), "in_a_row", "a breaker that opens after 0 failures never closes: at least 1"),
            (is_span_good, "over", "recent are the last 1 to 10000 calls, or those of at least the last second"),
            (is_enough, "minimum_calls", "more than are ever recent: no share would be looked at"),
            (!self.open.is_zero(), "open", "it would not be open at all: at least 1 ms"),
            (self.open_limit >= self.open, "open_limit", "less than the first time it is open"),
            (self.growth_percent >= 100, "growth_percent", "it would be open for ever shorter times: at least 100"),
            (self.probes > 0, "probes", "without probes it never closes: at least 1"),
            (self.successes > 0, "successes", "at least 1"),
            (!self.probe_limit.is_zero(), "probe_limit", "no probe could succeed: at least 1 ms"),
        ];
        let bad = rules.into_iter().filter(|(is_good, ..)| !is_good);
        let bad: Vec<BadPolicy> = bad.map(|(_, field, what)| BadPolicy { field, what }).collect();
        if bad.is_empty() { Ok(()) } else { Err(bad) }
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.trip.slow.is_some_and(|(_, limit)| took >= limit)
    }

    /// How long it is open when it has opened `before` times without staying closed; `chance` is any number.
    pub(super) fn open_for(&self, before: u32, chance: u64) -> Duration {
        let mut micros = self.open.as_micros();
        let limit = self.open_limit.as_micros();
        for _ in 0..before {
            if micros >= limit {
                break;
            }
            micros = micros * u128::from(self.growth_percent) / 100;
        }
        let micros = micros.min(limit);
        let jitter = (micros * u128::from(self.jitter_percent) / 100 * u128::from(chance >> 32)) >> 32;
        Duration::from_micros(u64::try_from(micros + jitter).unwrap_or(u64::MAX))
    }
}
