//! `timeouts`: how long requests may take, by path.

use std::ops::Range;
use std::time::Duration;

use evenkeel_core::timeout::{TIMEOUTS_MAX, Timeout};

use crate::fields::{Fields, Section, Value};
use crate::limits::path;
use crate::problem::{Code, Mistake, Problems};
use crate::values::{duration, show_duration};

const HELP: &str = "write a list: `[{ path: /search, firstByte: 2s, whole: 10s }]`";

pub(crate) static TIMEOUT: Section = Section {
    what: "a timeout",
    keys: &["path", "firstByte", "idle", "whole"],
    elsewhere: &[
        ("timeout", "write `whole: 10s`"),
        ("total", "write `whole: 10s`"),
        ("request", "write `whole: 10s`"),
        ("response", "write `firstByte: 2s`"),
        ("read", "write `idle: 30s`"),
        ("connect", "leave it out: a replica that does not accept within a second has refused"),
    ],
};

/// A wait for a first byte, with its place.
pub(crate) type FirstByte = (Duration, Range<usize>);

/// Reads the timeouts of a service.
pub(crate) fn timeouts(
    value: &Value<'_>,
    first_bytes: &mut Vec<FirstByte>,
    problems: &mut Problems,
) -> Option<Vec<Timeout>> {
    let items = value.items(HELP, problems)?;
    if items.len() > TIMEOUTS_MAX {
        value.bad(format!("{} timeouts", items.len()), format!("write at most {TIMEOUTS_MAX}"), problems);
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| timeout(item, first_bytes, problems)).collect();
    read.into_iter().collect()
}

/// Tells of waits for a first byte that are longer than the service's: a rollout's evidence does not wait for them.
pub(crate) fn within(longest: Duration, first_bytes: &[FirstByte], problems: &mut Problems) {
    for (wait, at) in first_bytes.iter().filter(|(wait, _)| *wait > longest) {
        let (wait, longest) = (show_duration(*wait), show_duration(longest));
        let message = format!("`firstByte`: {wait} is longer than the service's `firstByteTimeout` of {longest}");
        let help = format!("write `firstByteTimeout: {wait}`, and shorter ones for other paths");
        problems.add(Mistake::new(Code::Conflict, at.clone(), message).help(help));
    }
}

fn timeout(value: &Value<'_>, first_bytes: &mut Vec<FirstByte>, problems: &mut Problems) -> Option<Timeout> {
    let bounds = || duration(Duration::from_millis(1)..=Duration::from_secs(86_400));
    let fields = Fields::open(value, &TIMEOUT, problems)?;
    let mut timeout = Timeout::default();
    fields.set("path", &mut timeout.path, problems, path);
    let read = |value: &Value<'_>, problems: &mut Problems| bounds()(value, problems).map(|wait| (wait, value.at()));
    let first_byte = fields.read("firstByte", problems, read);
    timeout.first_byte = first_byte.as_ref().map(|(wait, _)| *wait);
    first_bytes.extend(first_byte);
    timeout.idle = fields.read("idle", problems, bounds());
    timeout.whole = fields.read("whole", problems, bounds());
    if ["firstByte", "idle", "whole"].iter().all(|key| fields.key_at(key).is_none()) && !fields.has_unknown() {
        let mistake = Mistake::new(Code::SaysNothing, fields.at(), "this timeout has no time");
        problems.add(mistake.help("write `firstByte: 2s`, `idle: 30s` or `whole: 10s`"));
    }
    Some(timeout)
}
