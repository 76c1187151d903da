//! `alerts`: what alerts may do.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::alert::Alerts;

use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::duration;

const WINDOW_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);

pub(crate) static ALERTS: Section = Section {
    what: "the mapping `alerts`",
    keys: &["window"],
    elsewhere: &[
        ("actionWindow", "write `window`"),
        (
            "rules",
            "name a file of Prometheus rules where Prometheus reads them; evenkeel takes what Alertmanager sends",
        ),
    ],
};

/// Reads `alerts`.
pub(crate) fn alerts(value: &Value<'_>, problems: &mut Problems) -> Option<Alerts> {
    let fields = Fields::open(value, &ALERTS, problems)?;
    let mut alerts = Alerts::default();
    fields.set("window", &mut alerts.window, problems, duration(WINDOW_BOUNDS));
    Some(alerts)
}
