//! How long each part of a way back took, against what it may take.

use std::time::Duration;

use evenkeel_core::Rollout;
use evenkeel_core::ids::Timestamp;
use evenkeel_core::record::What;
use evenkeel_core::replay::Recording;
use serde::Serialize;

use crate::story::{Decision, Span};

/// A part of a way back, and what it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// `detect`, `traffic`, `stop`, `verify` or `all`.
    pub part: String,
    /// What is measured, in words.
    pub what: String,
    /// How long it took, in microseconds; `None`: it is not over, or cannot be told.
    pub took_us: Option<u64>,
    /// How long it may take, in microseconds.
    pub limit_us: u64,
}

impl Budget {
    /// Whether it took no longer than it may; `None` while that is not known.
    #[must_use]
    pub fn is_kept(&self) -> Option<bool> {
        self.took_us.map(|took| took <= self.limit_us)
    }
}

/// From the first failed answer to the decision.
const DETECT: Duration = Duration::from_secs(10);
/// From the decision to the proxy's word that all traffic is back.
const TRAFFIC: Duration = Duration::from_secs(30);
/// From there until the last replica of the bad release is gone.
const STOP: Duration = Duration::from_secs(60);
/// From there until the stable release was seen to answer well.
const VERIFY: Duration = Duration::from_secs(60);
/// All of it.
const ALL: Duration = Duration::from_secs(300);

/// The budgets of a rollout that went back, from what is recorded of it; empty when it did not.
pub(crate) fn of(
    rollout: &Rollout,
    phases: &[Span],
    decisions: &[Decision],
    recording: &Recording<'_>,
    until: Timestamp,
) -> Vec<Budget> {
    let phase = |name: &str| phases.iter().find(|span| span.phase == name);
    let Some(back) = phase("rolling back") else { return Vec::new() };
    let decided = back.from;
    let stopping = phase("traffic is back, stopping the bad release");
    let returned = stopping.map(|span| span.from);
    let gone = stopping.and_then(|span| span.until);
    let is_asked = decisions.iter().find(|decision| decision.at == decided).is_some_and(|found| found.by.is_some());
    let first_bad = first_failure(recording, rollout, decided);
    let answered = returned.and_then(|returned| first_good_of_stable(recording, rollout, returned));
    let took = |from: Option<Timestamp>, to: Option<Timestamp>| {
        Some(u64::try_from(to?.since(from?).as_micros()).unwrap_or(u64::MAX))
    };
    let budget = |part: &str, what: &str, took_us, limit: Duration| Budget {
        part: part.to_owned(),
        what: what.to_owned(),
        took_us,
        limit_us: u64::try_from(limit.as_micros()).unwrap_or(u64::MAX),
    };
    let detected = took(first_bad, Some(decided)).filter(|_| !is_asked);
    let last = [gone, answered].into_iter().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max());
    let mut all = vec![
        budget("detect", "from its first failed request to the decision", detected, DETECT),
        budget("traffic", "until the proxy confirmed that it has no traffic", took(Some(decided), returned), TRAFFIC),
        budget("stop", "until its last replica was gone", took(returned, gone), STOP),
        budget("verify", "until the stable release was seen to answer well", took(returned, answered), VERIFY),
        budget("all", "from the decision until all of that was done", took(Some(decided), last), ALL),
    ];
    // Whoever asks has detected it himself.
    all.retain(|budget| !(is_asked && budget.part == "detect"));
    debug_assert!(decided <= until);
    all
}

/// The look in which the candidate's first failure was counted, of those since it last had none in a whole look.
fn first_failure(recording: &Recording<'_>, rollout: &Rollout, decided: Timestamp) -> Option<Timestamp> {
    recording.records.iter().filter(|record| record.at <= decided).find_map(|record| match &record.what {
        What::Counted(tick) => {
            let failed = tick.counted.get(&rollout.candidate).is_some_and(|tally| tally.counts.errors() > 0);
            failed.then_some(tick.from)
        }
        _ => None,
    })
}

/// The first look after the traffic was back in which the stable release answered, and failed nobody.
fn first_good_of_stable(recording: &Recording<'_>, rollout: &Rollout, returned: Timestamp) -> Option<Timestamp> {
    let stable = rollout.stable?;
    recording.records.iter().filter(|record| record.at > returned).find_map(|record| match &record.what {
        What::Counted(tick) => {
            let tally = tick.counted.get(&stable)?;
            (tally.counts.requests() > 0 && tally.counts.errors() == 0).then_some(tick.at)
        }
        _ => None,
    })
}
