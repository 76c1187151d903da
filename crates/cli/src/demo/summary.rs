//! What the demo's records add up to.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::load::Record;
use crate::exit::Failure;

/// The end of the demo, as DESIGN's outside contract has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Always `summary`.
    pub(crate) event: String,
    /// Requests the load generator sent.
    pub(crate) requests: u64,
    /// Those that failed for it: any status from 500 on, or a connection error.
    pub(crate) failed: u64,
    /// Versions that were promoted.
    pub(crate) promoted: Vec<String>,
    /// Versions that were rolled back.
    pub(crate) rolled_back: Vec<String>,
    /// From the bad release's first bad answer to the decision.
    pub(crate) detect_ms: u64,
    /// From the decision to the last request that the bad release got.
    pub(crate) traffic_back_ms: u64,
    /// Bad answers the bad release gave.
    pub(crate) bad_requests: u64,
    /// How many of those no user saw.
    pub(crate) shielded: u64,
    /// Requests the bad release got in all.
    pub(crate) bad_release_requests: u64,
    /// Why it was rolled back.
    pub(crate) reason: String,
}

/// What the commands of the demo led to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decisions {
    /// Versions that were promoted.
    pub(crate) promoted: Vec<String>,
    /// Versions that were rolled back.
    pub(crate) rolled_back: Vec<String>,
    /// When the last way back was decided, in µs since 1970.
    pub(crate) back_at_us: u64,
    /// Why.
    pub(crate) reason: String,
}

/// Adds up the load generator's records and the bad release's own.
///
/// # Errors
/// The records cannot be read.
pub(crate) fn add_up(load: &Path, releases: &Path, bad: &str, decisions: &Decisions) -> Result<Summary, Failure> {
    let text = std::fs::read_to_string(load)?;
    let records: Vec<Record> = text.lines().filter_map(Record::parse).collect();
    let answers = answers_of(releases, bad)?;
    let bad_answers = || answers.iter().filter(|answer| answer.status >= 500).map(|answer| answer.answered_us);
    let seen = records.iter().filter(|record| record.version == bad && record.has_failed()).count() as u64;
    let bad_requests = bad_answers().count() as u64;
    let millis = |from: u64, to: u64| to.saturating_sub(from).div_ceil(1_000);
    let last = answers.iter().map(|answer| answer.arrived_us).max().unwrap_or(0);
    Ok(Summary {
        event: "summary".into(),
        requests: records.len() as u64,
        failed: records.iter().filter(|record| record.has_failed()).count() as u64,
        promoted: decisions.promoted.clone(),
        rolled_back: decisions.rolled_back.clone(),
        detect_ms: bad_answers().min().map_or(0, |first| millis(first, decisions.back_at_us)),
        traffic_back_ms: millis(decisions.back_at_us, last),
        bad_requests,
        shielded: bad_requests.saturating_sub(seen),
        bad_release_requests: answers.len() as u64,
        reason: decisions.reason.clone(),
    })
}

/// What a release wrote down of one request.
#[derive(Debug, Clone, Copy)]
struct Answer {
    arrived_us: u64,
    answered_us: u64,
    status: u16,
}

impl Answer {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(',');
        let arrived_us = parts.next()?.parse().ok()?;
        let answered_us = parts.next()?.parse().ok()?;
        Some(Self { arrived_us, answered_us, status: parts.next()?.parse().ok()? })
    }
}

/// Every answer that the replicas of a version gave.
fn answers_of(releases: &Path, version: &str) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    for entry in std::fs::read_dir(releases)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.strip_prefix(version).is_some_and(|rest| rest.starts_with('.')) {
            let text = std::fs::read_to_string(&path)?;
            answers.extend(text.lines().filter_map(Answer::parse));
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_what_the_records_say() {
        let folder = tempfile::tempdir().unwrap();
        let releases = folder.path().join("releases");
        std::fs::create_dir(&releases).unwrap();
        let load = folder.path().join("load.csv");
        std::fs::write(&load, "1000,200,900,v1\n2000,500,900,v3\n3000,0,900,\n4000,200,900,v3\n").unwrap();
        std::fs::write(releases.join("v3.17.csv"), "2000,2500,500\n4000,4500,200\n").unwrap();
        std::fs::write(releases.join("v3.18.csv"), "4600,5000,500\n109000,149000,200\n").unwrap();
        std::fs::write(releases.join("v33.1.csv"), "1,1,500\n").unwrap();
        let decisions = Decisions {
            back_at_us: 102_500,
            rolled_back: vec!["v3".into()],
            reason: "bad".into(),
            ..Decisions::default()
        };
        let summary = add_up(&load, &releases, "v3", &decisions).unwrap();
        assert_eq!((summary.requests, summary.failed), (4, 2));
        assert_eq!((summary.detect_ms, summary.traffic_back_ms), (100, 7));
        assert_eq!((summary.bad_requests, summary.shielded, summary.bad_release_requests), (2, 1, 4));
    }
}
