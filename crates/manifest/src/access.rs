//! `accessLog`: what is written down of a service's requests.

use std::time::Duration;

use evenkeel_core::access::AccessLog;
use evenkeel_core::ids::BasisPoints;

use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::{duration, percentage};
use crate::yaml::Kind;

pub(crate) static ACCESS_LOG: Section = Section {
    what: "the mapping `accessLog`",
    keys: &["share", "errors", "slow", "query"],
    elsewhere: &[
        ("sample", "write `share: 10%`"),
        ("sampling", "write `share: 10%`"),
        ("format", "leave it out: lines are JSON, with the fields that docs/protocols.md lists"),
        ("path", "leave it out: it is `.evenkeel/logs/access.log`"),
        ("headers", "leave it out: fields of a head are never written down, since some of them are secrets"),
    ],
};

const HELP: &str = "write `on`, `off`, or `{ share: 10%, errors: on }`";

/// Reads an access log; `None` inside for `off`.
pub(crate) fn access_log(value: &Value<'_>, problems: &mut Problems) -> Option<Option<AccessLog>> {
    if let Kind::Map(_) = value.node.kind {
        return mapping(value, problems).map(Some);
    }
    switch(value, HELP, problems).map(|is_on| is_on.then(AccessLog::default))
}

fn mapping(value: &Value<'_>, problems: &mut Problems) -> Option<AccessLog> {
    let fields = Fields::open(value, &ACCESS_LOG, problems)?;
    let mut log = AccessLog::default();
    fields.set("share", &mut log.share, problems, share);
    fields.set("errors", &mut log.errors, problems, on_or_off);
    log.slow = fields.read("slow", problems, duration(Duration::from_millis(1)..=Duration::from_secs(3_600)));
    fields.set("query", &mut log.query, problems, on_or_off);
    Some(log)
}

/// Nothing but what failed or was slow is a share too.
fn share(value: &Value<'_>, problems: &mut Problems) -> Option<BasisPoints> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("0%") => Some(BasisPoints::NONE),
        _ => percentage(value, problems),
    }
}

fn on_or_off(value: &Value<'_>, problems: &mut Problems) -> Option<bool> {
    switch(value, "write `on` or `off`", problems)
}

/// Reads `on` or `off`.
pub(crate) fn switch(value: &Value<'_>, help: &str, problems: &mut Problems) -> Option<bool> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("on") => Some(true),
        Some("off") => Some(false),
        _ => {
            value.bad(format!("{} takes `on` or `off`", value.name), help, problems);
            None
        }
    }
}
