//! A table of counts: one row per arm and interval.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use evenkeel_analysis::evidence::Seen;
use jiff::Timestamp;
use jiff::civil::DateTime;

/// Mistakes that are shown; more are counted.
const SHOWN_MAX: usize = 20;
/// Columns of latencies there may be.
const LATENCIES_MAX: usize = 120;
/// Seconds from 1970 to the end of the year 9999: what dates may be, too.
const TIME_S_MAX: f64 = 253_402_300_799.0;
/// What the arms may be called.
const CANDIDATE: [&str; 4] = ["candidate", "canary", "new", "treatment"];
const STABLE: [&str; 5] = ["stable", "baseline", "old", "control", "primary"];

/// Counts in the order of time, one entry per moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    /// The moments.
    pub(super) moments: Vec<Moment>,
    /// The upper ends of the buckets of latencies, in seconds; the last one is infinity. Empty without any.
    pub(super) limits_s: Vec<f64>,
}

/// What was counted at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Moment {
    /// Seconds since the first one.
    pub(super) at_s: f64,
    /// The candidate.
    pub(super) candidate: Arm,
    /// Stable.
    pub(super) stable: Arm,
}

/// What was counted of an arm.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arm {
    /// Requests and failures.
    pub(super) seen: Seen,
    /// Latencies per bucket.
    pub(super) latencies: Vec<u64>,
}

/// Where the columns are.
struct Columns {
    time: usize,
    arm: usize,
    requests: usize,
    errors: usize,
    /// With their limits in seconds, rising.
    latencies: Vec<(usize, f64)>,
}

/// Everything that is wrong with the file.
struct Mistakes<'a> {
    file: &'a Path,
    found: Vec<String>,
    more: usize,
}

impl Table {
    /// Reads a file; all its mistakes are told at once.
    ///
    /// # Errors
    /// It cannot be read, or has mistakes: lines with file, line, column, and what would be right.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut mistakes = Mistakes { file: path, found: Vec::new(), more: 0 };
        let reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).comment(Some(b'#')).from_path(path);
        let mut reader = reader.map_err(|error| format!("{}: {error}", path.display()))?;
        let header = reader.headers().map_err(|error| format!("{}: {error}", path.display()))?.clone();
        let columns = Columns::find(&header, &mut mistakes);
        let mut rows: Vec<Row> = Vec::new();
        for record in reader.records() {
            match (record, &columns) {
                (Ok(record), Some(columns)) => {
                    let Some(row) = columns.row(&header, &record, &mut mistakes) else { continue };
                    if rows.first().is_some_and(|first| first.is_dated != row.is_dated) {
                        let (line, column) = (record.position().map_or(1, csv::Position::line), columns.time);
                        let what = "some times are in seconds and some are dates; write all of them in one way";
                        mistakes.add(line, column_of(&record, column), what);
                    }
                    rows.push(row);
                }
                (Ok(_), None) => {}
                (Err(error), _) => mistakes.add(error.position().map_or(1, csv::Position::line), 1, error),
            }
        }
        if rows.is_empty() && mistakes.found.is_empty() {
            mistakes.add(2, 1, "no row of counts; write one per arm and interval, such as `0.0,stable,100,1`");
        }
        mistakes.none()?;
        let limits_s =
            columns.map_or_else(Vec::new, |columns| columns.latencies.iter().map(|(_, limit)| *limit).collect());
        Ok(Self { moments: moments(rows), limits_s })
    }
}

/// A row as it was written.
struct Row {
    at: f64,
    /// Whether its time is a date, rather than seconds.
    is_dated: bool,
    is_candidate: bool,
    arm: Arm,
}

fn moments(mut rows: Vec<Row>) -> Vec<Moment> {
    rows.sort_by(|a, b| a.at.total_cmp(&b.at));
    let began = rows.first().map_or(0.0, |row| row.at);
    let mut moments: Vec<Moment> = Vec::new();
    for Row { at, is_candidate, arm, .. } in rows {
        let at_s = at - began;
        if moments.last().is_none_or(|last| last.at_s != at_s) {
            let empty = || Arm { seen: Seen::default(), latencies: vec![0; arm.latencies.len()] };
            moments.push(Moment { at_s, candidate: empty(), stable: empty() });
        }
        let Some(moment) = moments.last_mut() else { continue };
        let into = if is_candidate { &mut moment.candidate } else { &mut moment.stable };
        into.seen.add(arm.seen);
        into.latencies.iter_mut().zip(&arm.latencies).for_each(|(sum, count)| *sum += count);
    }
    moments
}

impl Columns {
    fn find(header: &csv::StringRecord, mistakes: &mut Mistakes<'_>) -> Option<Self> {
        let find = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
        let found = ["time", "arm", "requests", "errors"].map(|name| (name, find(name)));
        if found.iter().all(|(_, at)| at.is_none()) {
            mistakes.add(
                1,
                1,
                "no column is known; the first line names time,arm,requests,errors with commas between them",
            );
            return None;
        }
        for (name, _) in found.iter().filter(|(_, at)| at.is_none()) {
            mistakes.add(1, 1, format_args!("no column `{name}`; the first line names time, arm, requests, errors"));
        }
        let mut latencies = Vec::new();
        for (at, column) in
            header.iter().enumerate().filter(|(at, _)| found.iter().all(|(_, known)| *known != Some(*at)))
        {
            match limit(column) {
                _ if header.iter().take(at).any(|earlier| earlier.eq_ignore_ascii_case(column)) => {
                    mistakes.add(1, column_of(header, at), format_args!("the column `{column}` is there twice"));
                }
                Some(limit) => latencies.push((at, limit)),
                None => mistakes.add(
                    1,
                    column_of(header, at),
                    format_args!(
                        "unknown column `{column}`; latencies up to so many seconds are called `le_0.25` or `le_inf`"
                    ),
                ),
            }
        }
        if latencies.windows(2).any(|pair| pair[0].1 >= pair[1].1) {
            mistakes.add(1, 1, "the limits of the columns `le_…` must rise");
        }
        if latencies.last().is_some_and(|(_, limit)| limit.is_finite()) {
            mistakes.add(1, 1, "the last column of latencies must be `le_inf`: all of them");
        }
        if latencies.len() > LATENCIES_MAX {
            mistakes.add(1, 1, format_args!("{} columns of latencies; at most {LATENCIES_MAX} count", latencies.len()));
        }
        let [(_, Some(time)), (_, Some(arm)), (_, Some(requests)), (_, Some(errors))] = found else { return None };
        Some(Self { time, arm, requests, errors, latencies })
    }

    fn row(&self, header: &csv::StringRecord, record: &csv::StringRecord, mistakes: &mut Mistakes<'_>) -> Option<Row> {
        let line = record.position().map_or(1, csv::Position::line);
        let before = mistakes.count();
        if record.len() > header.len() {
            let what = format_args!("{} fields, and the first line names {}", record.len(), header.len());
            mistakes.add(line, column_of(record, header.len()), what);
        }
        let place =
            |at: usize| (column_of(record, at.min(record.len())), header.get(at).unwrap_or_default().to_owned());
        let text = |at: usize| record.get(at).unwrap_or_default();
        let mut wrong = |at: usize, wanted: &str| {
            let (column, name) = place(at);
            let is = if text(at).is_empty() { "nothing".to_owned() } else { format!("`{}`", text(at)) };
            mistakes.add(line, column, format_args!("{name} is {is}; {wanted}"));
        };
        let time = moment(text(self.time));
        if time.is_none() {
            wrong(self.time, "write seconds, or a time such as 2026-11-21T10:00:00Z");
        }
        if let (Some(requests), Some((last, _))) = (u64::from_str(text(self.requests)).ok(), self.latencies.last())
            && u64::from_str(text(*last)).is_ok_and(|answered| answered > requests)
        {
            wrong(*last, &format!("no more than the {requests} requests can have an answer"));
        }
        let arm = text(self.arm).to_ascii_lowercase();
        let is_candidate = CANDIDATE.contains(&arm.as_str());
        if !is_candidate && !STABLE.contains(&arm.as_str()) {
            wrong(self.arm, &format!("write one of {}, or one of {}", CANDIDATE.join(", "), STABLE.join(", ")));
        }
        let mut count = |at: usize| {
            let count = u64::from_str(text(at)).ok().filter(|count| *count < 1 << 53);
            if count.is_none() {
                wrong(at, "write a whole number, 0 or more");
            }
            count
        };
        let (known_requests, known_errors) = (count(self.requests), count(self.errors));
        let (requests, errors) = (known_requests.unwrap_or(0), known_errors.unwrap_or(0));
        let mut at_most: Vec<u64> = self.latencies.iter().map(|(at, _)| count(*at).unwrap_or(0)).collect();
        if known_requests.is_some() && errors > requests {
            wrong(self.errors, &format!("no more than the {requests} requests can fail"));
        }
        if at_most.windows(2).any(|pair| pair[0] > pair[1]) {
            wrong(self.latencies[0].0, "each `le_…` counts all requests up to its limit, so they never fall");
        }
        for at in (1..at_most.len()).rev() {
            at_most[at] = at_most[at].saturating_sub(at_most[at - 1]);
        }
        let arm = Arm { seen: Seen::new(requests, errors), latencies: at_most };
        let (at, is_dated) = time.unwrap_or_default();
        (mistakes.count() == before).then_some(Row { at, is_dated, is_candidate, arm })
    }
}

/// `le_0.25`
fn limit(column: &str) -> Option<f64> {
    let (le, limit) = column.split_at_checked(3)?;
    let limit = f64::from_str(limit).ok().filter(|limit| *limit > 0.0)?;
    le.eq_ignore_ascii_case("le_").then_some(limit)
}

/// Seconds, or a date, and which of them: a date without a zone is taken as UTC.
fn moment(text: &str) -> Option<(f64, bool)> {
    let seconds = f64::from_str(text).ok().filter(|seconds| seconds.abs() <= TIME_S_MAX);
    let stamp = || text.parse::<Timestamp>().ok();
    let civil = || Some(text.parse::<DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp());
    let dated = || stamp().or_else(civil).map(|time| (time.as_duration().as_secs_f64(), true));
    seconds.map(|seconds| (seconds, false)).or_else(dated)
}

/// The column that a field begins in, as long as nothing before it is quoted.
fn column_of(record: &csv::StringRecord, field: usize) -> usize {
    1 + record.iter().take(field).map(|text| text.chars().count() + 1).sum::<usize>()
}

impl Mistakes<'_> {
    fn add(&mut self, line: u64, column: usize, what: impl fmt::Display) {
        if self.found.len() < SHOWN_MAX {
            self.found.push(format!("{}:{line}:{column}: {what}", self.file.display()));
        } else {
            self.more += 1;
        }
    }

    fn count(&self) -> usize {
        self.found.len() + self.more
    }

    fn none(mut self) -> Result<(), String> {
        if self.more > 0 {
            self.found.push(format!("and {} more", self.more));
        }
        if self.found.is_empty() { Ok(()) } else { Err(self.found.join("\n")) }
    }
}
