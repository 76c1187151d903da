//! Does every objective hold? Pass, fail, or not enough data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Case, Counts, Objective};

/// What the counts say about a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every objective holds, on enough requests.
    Pass {
        /// One per objective.
        findings: Vec<Finding>,
    },
    /// The evidence says that the candidate is harmful.
    Harmful {
        /// What speaks against it.
        case: Box<Case>,
    },
    /// Enough speaks against the candidate that it should get no more traffic, and too little to take it back; or what
    /// speaks against it is in doubt.
    Suspect {
        /// What speaks against it.
        case: Box<Case>,
    },
    /// What was counted is beyond a limit, but nothing shows that it is more than chance.
    Unsettled {
        /// The limit.
        finding: Finding,
    },
    /// An objective is broken, and not by the stable release too. Earlier versions decided by this.
    Fail {
        /// The broken one.
        finding: Finding,
    },
    /// The stable release breaks the same objective in the same seconds: going back would not help. Earlier versions
    /// decided by this.
    Shared {
        /// The one both break.
        finding: Finding,
    },
    /// Too few requests to say anything. Never a pass.
    NotEnough {
        /// Requests so far.
        have: u64,
        /// Requests needed.
        need: u64,
    },
}

/// One objective and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The limit.
    pub objective: Objective,
    /// The candidate's value, in the metric's unit; `None` when there was nothing to measure.
    pub measured: Option<f64>,
    /// The stable release's value in the same seconds; `None` without a stable release or without requests to it.
    pub stable: Option<f64>,
    /// The candidate's requests in these seconds.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
}

/// Says whether a candidate's counts keep its objectives, beside the stable release's counts of the same seconds.
///
/// `need` is the number of requests below which nothing is said, at least 1. Without objectives nothing can be
/// broken, and enough requests are a pass. That something is beyond its limit is no proof of anything: evidence is.
#[must_use]
pub fn judge(objectives: &[Objective], candidate: &Counts, stable: Option<&Counts>, need: u64) -> Verdict {
    let have = candidate.requests();
    let need = need.max(1);
    if have < need {
        return Verdict::NotEnough { have, need };
    }
    let findings: Vec<Finding> =
        objectives.iter().map(|objective| Finding::of(*objective, candidate, stable)).collect();
    // A latency of nothing but missing answers cannot be measured: it does not hold, and error_rate says more.
    let broken = |f: &&Finding| !f.measured.is_some_and(|value| f.objective.holds(value));
    match findings.iter().find(broken) {
        Some(finding) => Verdict::Unsettled { finding: finding.clone() },
        None => Verdict::Pass { findings },
    }
}

impl Finding {
    fn of(objective: Objective, candidate: &Counts, stable: Option<&Counts>) -> Self {
        Self {
            objective,
            measured: objective.measure(candidate),
            stable: stable.filter(|counts| counts.requests() > 0).and_then(|counts| objective.measure(counts)),
            requests: candidate.requests(),
            errors: candidate.errors(),
        }
    }
}

impl fmt::Display for Finding {
    /// `error_rate is 21.4 % (limit < 5 %; stable 0 %): 12 of 56 requests failed`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Option<f64>| value.map_or("unknown".into(), |v| self.objective.show(v));
        let limit = self.objective.to_string();
        let limit = limit.strip_prefix(self.objective.metric.name()).unwrap_or(&limit).trim();
        write!(f, "{} is {} (limit {limit}", self.objective.metric.name(), show(self.measured))?;
        if self.stable.is_some() {
            write!(f, "; stable {}", show(self.stable))?;
        }
        write!(f, "): {} of {} requests failed", self.errors, self.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    fn counts(good: u64, bad: u64) -> Counts {
        let mut counts = Counts::default();
        (0..good).for_each(|_| counts.record(Outcome::Answered(200), 1_000));
        (0..bad).for_each(|_| counts.record(Outcome::Answered(500), 1_000));
        counts
    }

    fn verdict(candidate: &Counts, stable: Option<&Counts>) -> Verdict {
        judge(&["error_rate < 5%".parse().unwrap(), "latency.p99 < 1s".parse().unwrap()], candidate, stable, 20)
    }

    #[test]
    fn too_few_requests_are_no_pass_however_good() {
        assert_eq!(verdict(&counts(19, 0), None), Verdict::NotEnough { have: 19, need: 20 });
        assert_eq!(judge(&[], &counts(0, 0), None, 0), Verdict::NotEnough { have: 0, need: 1 });
    }

    #[test]
    fn a_broken_objective_is_unsettled_and_says_so_in_numbers() {
        let Verdict::Unsettled { finding } = verdict(&counts(44, 12), Some(&counts(312, 0))) else { panic!() };
        assert_eq!(finding.to_string(), "error_rate is 21.43 % (limit < 5 %; stable 0 %): 12 of 56 requests failed");
    }

    #[test]
    fn missing_answers_keep_no_limit_although_no_latency_was_measured() {
        let mut dead = Counts::default();
        (0..20).for_each(|_| dead.record(Outcome::NoAnswer, 0));
        let only_latency = judge(&["latency.p99 < 1s".parse().unwrap()], &dead, None, 20);
        assert!(matches!(only_latency, Verdict::Unsettled { .. }));
    }

    #[test]
    fn an_objective_that_holds_passes() {
        assert!(matches!(verdict(&counts(100, 1), Some(&counts(100, 0))), Verdict::Pass { .. }));
    }
}
