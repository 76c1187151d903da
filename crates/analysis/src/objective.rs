//! Which limit must hold, and how is it written? `error_rate < 1%`, `latency.p99 < 500ms`, `requests >= 100`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Counts;
use crate::slots::Bad;

/// What can be measured of a release without any help from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of requests that failed: status 5xx or no answer; 0 to 1.
    ErrorRate,
    /// Share of requests that did not fail; 0 to 1.
    SuccessRate,
    /// Share of requests that got any answer at all; 0 to 1.
    Availability,
    /// Time to the first byte that this share of answers, in 0.1 %, did not exceed; in seconds.
    Latency(u16),
    /// Number of requests with a known outcome.
    Requests,
}

/// How the measured value must lie to the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
}

/// One limit on one metric of a release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// What is measured.
    pub metric: Metric,
    /// How it must lie.
    pub relation: Relation,
    /// The limit, in the metric's unit: a share from 0 to 1, seconds, or a count.
    pub limit: f64,
}

/// Why a text is no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadObjective {
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub help: String,
    /// Where in the text, in bytes.
    pub at: std::ops::Range<usize>,
}

const METRICS: [(&str, Metric); 10] = [
    ("error_rate", Metric::ErrorRate),
    ("success_rate", Metric::SuccessRate),
    ("availability", Metric::Availability),
    ("requests", Metric::Requests),
    ("latency.p50", Metric::Latency(500)),
    ("latency.p75", Metric::Latency(750)),
    ("latency.p90", Metric::Latency(900)),
    ("latency.p95", Metric::Latency(950)),
    ("latency.p99", Metric::Latency(990)),
    ("latency.p999", Metric::Latency(999)),
];

const RELATIONS: [(&str, Relation); 4] =
    [("<=", Relation::AtMost), (">=", Relation::AtLeast), ("<", Relation::Below), (">", Relation::Above)];

impl Objective {
    /// The metric's value in these counts; `None` when there is nothing to measure it on.
    #[must_use]
    pub fn measure(&self, counts: &Counts) -> Option<f64> {
        let requests = counts.requests();
        let share = |part: u64| (requests > 0).then(|| part as f64 / requests as f64);
        match self.metric {
            Metric::ErrorRate => share(counts.errors()),
            Metric::SuccessRate => share(requests - counts.errors()),
            Metric::Availability => share(requests - counts.no_answer),
            Metric::Latency(tenths_percent) => {
                counts.latency.quantile_us(f64::from(tenths_percent) / 1_000.0).map(|us| us as f64 / 1e6)
            }
            Metric::Requests => Some(requests as f64),
        }
    }

    /// Tells whether a measured value keeps the limit; NaN never does.
    #[must_use]
    pub fn holds(&self, measured: f64) -> bool {
        match self.relation {
            Relation::Below => measured < self.limit,
            Relation::AtMost => measured <= self.limit,
            Relation::Above => measured > self.limit,
            Relation::AtLeast => measured >= self.limit,
        }
    }

    /// What a request does to be bad by it, and the share of requests that may: `success_rate > 99%` allows .01 to fail.
    ///
    /// `None` of a limit that is no upper limit on a share of requests, such as a number of them.
    #[must_use]
    pub fn may_be_bad(&self) -> Option<(Bad, f64)> {
        let is_upper = matches!(self.relation, Relation::Below | Relation::AtMost);
        match (self.metric, is_upper) {
            (Metric::ErrorRate, true) => Some((Bad::Failed, self.limit)),
            (Metric::SuccessRate, false) => Some((Bad::Failed, 1.0 - self.limit)),
            (Metric::Availability, false) => Some((Bad::Unanswered, 1.0 - self.limit)),
            (Metric::Latency(tenths_percent), true) => Some((Bad::Slow, 1.0 - f64::from(tenths_percent) / 1_000.0)),
            (Metric::ErrorRate | Metric::SuccessRate | Metric::Availability | Metric::Latency(_), _)
            | (Metric::Requests, _) => None,
        }
    }

    /// A value of this metric as people write it: `1.2 %`, `230 ms`, `57`.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        self.metric.show(value)
    }
}

impl Metric {
    /// The name it has in specs: `error_rate`, `latency.p99`.
    #[must_use]
    pub fn name(self) -> &'static str {
        METRICS.iter().find(|(_, metric)| *metric == self).map_or("latency", |(name, _)| name)
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::ErrorRate | Self::SuccessRate | Self::Availability => format!("{} %", short(value * 100.0)),
            Self::Latency(_) if value < 1.0 => format!("{} ms", short(value * 1_000.0)),
            Self::Latency(_) => format!("{} s", short(value)),
            Self::Requests => short(value),
        }
    }
}

/// At most two decimals, without needless zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = RELATIONS.iter().find(|(_, relation)| *relation == self.relation).map_or("?", |(sign, _)| sign);
        write!(f, "{} {sign} {}", self.metric.name(), self.show(self.limit))
    }
}

impl FromStr for Objective {
    type Err = BadObjective;

    fn from_str(text: &str) -> Result<Self, BadObjective> {
        let found = RELATIONS.iter().filter_map(|(sign, r)| text.find(sign).map(|at| (at, *sign, *r)));
        // The first sign in the text; of two at the same place the longer one, which stands first in the list.
        let (at, sign, relation) = found
            .min_by_key(|(at, sign, _)| (*at, 2 - sign.len()))
            .ok_or_else(|| bad(text, 0..text.len(), "no comparison".into(), "write it as `error_rate < 1%`".into()))?;
        let metric = parse_metric(text, 0..at)?;
        let limit = parse_limit(text, at + sign.len()..text.len(), metric)?;
        Ok(Self { metric, relation, limit })
    }
}

fn parse_metric(text: &str, range: std::ops::Range<usize>) -> Result<Metric, BadObjective> {
    let name = text[range.clone()].trim();
    METRICS.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric).ok_or_else(|| {
        let known: Vec<&str> = METRICS.iter().map(|(known, _)| *known).collect();
        bad(text, range, format!("unknown metric `{name}`"), format!("known metrics: {}", known.join(", ")))
    })
}

fn parse_limit(text: &str, range: std::ops::Range<usize>, metric: Metric) -> Result<f64, BadObjective> {
    let written = text[range.clone()].trim();
    let split = written.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(written.len());
    let (number, unit) = (&written[..split], written[split..].trim());
    let fail = |what: String, help: &str| Err(bad(text, range.clone(), what, help.into()));
    let Ok(number) = number.parse::<f64>() else {
        return fail(format!("`{written}` is not a number"), "write a number with a unit, such as `1%` or `500ms`");
    };
    match (metric, unit) {
        (Metric::ErrorRate | Metric::SuccessRate | Metric::Availability, unit) => {
            let share = match unit {
                "%" => number / 100.0,
                "" => number,
                _ => return fail(format!("`{unit}` is no unit for {}", metric.name()), "write a percentage: `1%`"),
            };
            if share > 1.0 {
                let text = if unit.is_empty() { "write a percentage: `1%`" } else { "a share is at most 100%" };
                return fail(format!("`{written}` is more than everything"), text);
            }
            Ok(share)
        }
        (Metric::Latency(_), "ms") => Ok(number / 1_000.0),
        (Metric::Latency(_), "s") => Ok(number),
        (Metric::Latency(_), "us" | "µs") => Ok(number / 1e6),
        (Metric::Latency(_), _) => fail(format!("`{written}` has no unit of time"), "write `500ms` or `2s`"),
        (Metric::Requests, "") => Ok(number),
        (Metric::Requests, _) => fail(format!("`{unit}` is no unit for requests"), "write a plain number: `100`"),
    }
}

fn bad(text: &str, range: std::ops::Range<usize>, what: String, help: String) -> BadObjective {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    let end = (start + part.trim().len()).max(start);
    BadObjective { what, help, at: start..end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_objective_reads_and_prints_as_people_write_it() {
        let cases = [
            ("error_rate < 1%", "error_rate < 1 %"),
            ("error_rate<0.01", "error_rate < 1 %"),
            ("success_rate >= 99.5 %", "success_rate >= 99.5 %"),
            ("latency.p99 <= 0.5s", "latency.p99 <= 500 ms"),
            ("latency.p999 < 1500ms", "latency.p999 < 1.5 s"),
            ("requests > 100", "requests > 100"),
        ];
        for (written, printed) in cases {
            assert_eq!(written.parse::<Objective>().map(|o| o.to_string()), Ok(printed.to_owned()));
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let cases = [
            ("error_rat < 1%", "unknown metric `error_rat`", 0..9),
            ("error_rate < 1", "`1` is more than everything", 0..0),
            ("error_rate < 5", "`5` is more than everything", 13..14),
            ("latency.p99 < 500", "`500` has no unit of time", 14..17),
            ("error_rate below 1%", "no comparison", 0..19),
            ("error_rate < lots", "`lots` is not a number", 13..17),
        ];
        for (written, what, at) in cases {
            match written.parse::<Objective>() {
                Err(error) => assert_eq!((error.what.as_str(), error.at), (what, at), "{written}"),
                Ok(objective) => assert_eq!(objective.limit, 1.0, "{written}"),
            }
        }
    }

    #[test]
    fn a_value_that_is_not_a_number_keeps_no_limit() {
        for text in ["error_rate < 100%", "requests >= 0"] {
            assert!(!text.parse::<Objective>().unwrap().holds(f64::NAN));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_places_lie_on_characters(text in "\\PC{0,40}") {
            if let Err(error) = text.parse::<Objective>() {
                prop_assert!(text.get(error.at).is_some());
            }
        }
    }
}
