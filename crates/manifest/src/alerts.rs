//! `alerts`: what alerts may do.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_core::alert::{Alerts, Sustained};

use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::{duration, percentage, text};

/// Files of one service.
const FILES_MAX: usize = 16;
/// A file of rules as it is written, and its place.
pub(crate) type RuleFile = (PathBuf, Range<usize>);
const WINDOW_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);

const LASTING_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);

pub(crate) static ALERTS: Section = Section {
    what: "the mapping `alerts`",
    keys: &["window", "sustained", "rules"],
    elsewhere: &[
        ("actionWindow", "write `window`"),
        ("groups", "write them into a file of rules, and name that file: `rules: [rules.yaml]`"),
        ("ruleFiles", "write `rules`"),
        ("rule_files", "write `rules`"),
    ],
};

pub(crate) static SUSTAINED: Section = Section {
    what: "the mapping `sustained`",
    keys: &["errors", "for"],
    elsewhere: &[("lasting", "write `for`"), ("error_rate", "write `errors`")],
};

/// Reads `alerts`.
pub(crate) fn alerts(value: &Value<'_>, files: &mut Vec<RuleFile>, problems: &mut Problems) -> Option<Alerts> {
    let fields = Fields::open(value, &ALERTS, problems)?;
    let mut alerts = Alerts::default();
    fields.set("window", &mut alerts.window, problems, duration(WINDOW_BOUNDS));
    fields.set("sustained", &mut alerts.sustained, problems, sustained);
    let rules = fields.read("rules", problems, |value, problems| {
        let items = value.items("name files: `rules: [rules/rollback.yaml]`", problems)?;
        if items.len() > FILES_MAX {
            let help = format!("a service has at most {FILES_MAX} files of rules: put several groups into one");
            value.bad(format!("{} files are too many", items.len()), help, problems);
        }
        Some(items.into_iter().filter_map(|item| Some((PathBuf::from(text(&item, problems)?), item.at()))).collect())
    });
    files.extend(rules.unwrap_or_else(Vec::new));
    alerts.rules = files.iter().map(|(file, _)| file.clone()).collect();
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
