//! `alerts`: what alerts may do.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::alert::{Alerts, Sustained};

use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::{duration, percentage};

const WINDOW_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);

const LASTING_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);

pub(crate) static ALERTS: Section = Section {
    what: "the mapping `alerts`",
    keys: &["window", "sustained"],
    elsewhere: &[
        ("actionWindow", "write `window`"),
        (
            "rules",
            "name a file of Prometheus rules where Prometheus reads them; evenkeel takes what Alertmanager sends",
        ),
    ],
};

pub(crate) static SUSTAINED: Section = Section {
    what: "the mapping `sustained`",
    keys: &["errors", "for"],
    elsewhere: &[("lasting", "write `for`"), ("error_rate", "write `errors`")],
};

/// Reads `alerts`.
pub(crate) fn alerts(value: &Value<'_>, problems: &mut Problems) -> Option<Alerts> {
    let fields = Fields::open(value, &ALERTS, problems)?;
    let mut alerts = Alerts::default();
    fields.set("window", &mut alerts.window, problems, duration(WINDOW_BOUNDS));
    fields.set("sustained", &mut alerts.sustained, problems, sustained);
    Some(alerts)
}

/// `off`, or a limit and a time.
fn sustained(value: &Value<'_>, problems: &mut Problems) -> Option<Option<Sustained>> {
    if value.scalar().is_some_and(|scalar| scalar.text == "off") {
        return Some(None);
    }
    if value.scalar().is_some() {
        value.wrong_type(
            "`off` or a mapping",
            "write `sustained: { errors: 0.1%, for: 1h }`, or `sustained: off`",
            problems,
        );
        return None;
    }
    let fields = Fields::open(value, &SUSTAINED, problems)?;
    let mut sustained = Sustained::default();
    fields.set("errors", &mut sustained.errors, problems, percentage);
    fields.set("for", &mut sustained.lasting, problems, duration(LASTING_BOUNDS));
    Some(Some(sustained))
}
