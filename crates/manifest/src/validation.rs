//! `validation`, and what follows on a regression: what is said of a release once it is alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::alone::{Regression, Validation};

use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::{count, duration, percentage};

const SECOND: Duration = Duration::from_secs(1);
const LASTING_BOUNDS: RangeInclusive<Duration> = SECOND..=Duration::from_secs(7 * 86_400);
const EVERY_BOUNDS: RangeInclusive<Duration> = SECOND..=Duration::from_secs(3_600);
const P95_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);

pub(crate) static VALIDATION: Section = Section {
    what: "the mapping `validation`",
    keys: &["for", "every", "errors", "p95", "issues"],
    elsewhere: &[
        ("duration", "write `for: 15m`"),
        ("window", "write `for: 15m`"),
        ("interval", "write `every: 30s`"),
        ("errorRate", "write `errors: 5%`"),
        ("latency", "write `p95: 1s`"),
        ("smoke", "write it below `strategy`, with the step before which it must be right"),
    ],
};

/// Reads `validation`; what is not said has its default.
pub(crate) fn validation(value: &Value<'_>, problems: &mut Problems) -> Option<Validation> {
    let fields = Fields::open(value, &VALIDATION, problems)?;
    let mut validation = Validation::default();
    fields.set("for", &mut validation.lasting, problems, duration(LASTING_BOUNDS));
    fields.set("every", &mut validation.every, problems, duration(EVERY_BOUNDS));
    fields.set("errors", &mut validation.errors, problems, percentage);
    fields.set("p95", &mut validation.p95, problems, duration(P95_BOUNDS));
    validation.issues = fields.read("issues", problems, count(0..=1_000_000));
    Some(validation)
}

/// Reads what follows on a regression.
pub(crate) fn regression(value: &Value<'_>, problems: &mut Problems) -> Option<Regression> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("hold") => Some(Regression::Hold),
        Some("rollback") => Some(Regression::Rollback),
        Some("tell") => Some(Regression::Tell),
        _ => {
            value.wrong_type("`hold`, `rollback` or `tell`", "write `regression: hold`", problems);
            None
        }
    }
}
