//! What is measured again and again while a rollout goes, and what the measurements add up to.
//!
//! The rules are those of Argo Rollouts' metrics, and so are the names: [`Check`] is one metric, [`Run`] one run of it.
//! By evenkeel's own rules ([`Rules::Evenkeel`]) its holes are closed: a run that has not measured what it was to measure
//! is no pass, and a source that fails ends nothing: it is no evidence, for which the plan has a policy. [`Checks`] are
//! the runs of one rollout. Nothing here measures: [`Checks::due`] says what is to be measured now, and each measurement
//! comes back as a [`Sighting`], which is counted once however often it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use evenkeel_analysis::Value;
use evenkeel_analysis::condition::{Condition, Conditions, Judged, Rules, Said};
use serde::{Deserialize, Serialize};

use crate::ids::{RolloutId, Timestamp};
use crate::measure::{Measure, SourceError};
use crate::span::span;

/// Time from a measurement that failed to the next attempt, whatever the interval: Argo's `DefaultErrorRetryInterval`.
const ERROR_RETRY: Duration = Duration::from_secs(10);
/// Measurements kept of one run; Argo's default. The counters know all of them.
const KEPT_MAX: usize = 10;
/// Bytes of the longest message that is kept.
const MESSAGE_MAX: usize = 500;
/// Characters of the longest value that is kept.
const VALUE_MAX: usize = 200;

/// One thing that is measured again and again, and judged by conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What people call it; among those that run at the same time, each once.
    pub name: String,
    /// What is measured.
    pub measure: Measure,
    /// When a value is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<String>,
    /// When a value is bad; counts before `success`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// By whose rules.
    #[serde(default)]
    pub rules: Rules,
    /// Time from the end of a measurement to the next one; `None`: there is one.
    #[serde(default)]
    pub interval: Option<Duration>,
    /// Wait before the first one.
    #[serde(default)]
    pub initial_delay: Duration,
    /// How many are taken, those that failed to measure left out; `None`: one without an interval, else without end.
    #[serde(default)]
    pub count: Option<u32>,
    /// So many may be bad; one more and it has failed. `None`: any number.
    #[serde(default)]
    pub failure_limit: Option<u32>,
    /// So many may be neither good nor bad.
    #[serde(default)]
    pub inconclusive_limit: u32,
    /// So many in a row may fail to measure; one more is an error.
    pub consecutive_error_limit: u32,
    /// As soon as so many in a row are good it has passed; 0: that does not matter.
    #[serde(default)]
    pub consecutive_success_limit: u32,
    /// It is measured and shown, and nothing follows from it.
    #[serde(default)]
    pub dry_run: bool,
    /// The step that it begins with, where it goes on beside the steps.
    #[serde(default)]
    pub from_step: usize,
    /// Checks of one pool share their limit of failures: rounds in which any of them was bad count, each once. `None`: it
    /// counts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

impl Check {
    /// A check of one measurement, with every default.
    #[must_use]
    pub fn new(name: &str, measure: Measure) -> Self {
        Self {
            name: name.to_owned(),
            measure,
            success: None,
            failure: None,
            rules: Rules::Evenkeel,
            interval: None,
            initial_delay: Duration::ZERO,
            count: None,
            failure_limit: Some(0),
            inconclusive_limit: 0,
            consecutive_error_limit: 4,
            consecutive_success_limit: 0,
            dry_run: false,
            from_step: 0,
            pool: None,
        }
    }

    /// How many measurements it takes; `None`: it goes on without end.
    #[must_use]
    pub fn effective_count(&self) -> Option<u32> {
        match (self.count.filter(|count| *count > 0), self.interval) {
            (Some(count), _) => Some(count),
            (None, Some(_)) => None,
            (None, None) => Some(1),
        }
    }

    /// What one measurement says.
    #[must_use]
    pub fn judge(&self, measured: &Result<Value, SourceError>) -> Judged {
        self.rules.settle(self.judge_value(measured))
    }

    fn judge_value(&self, measured: &Result<Value, SourceError>) -> Judged {
        let value = match measured {
            Ok(value) => value,
            Err(error) => return Judged { phase: Said::Error, message: error.to_string() },
        };
        let read = |text: &Option<String>| text.as_deref().map(Condition::new).transpose();
        match (read(&self.success), read(&self.failure)) {
            (Ok(success), Ok(failure)) => Conditions { success, failure }.judge(value, self.rules),
            (Err(bad), _) | (_, Err(bad)) => Judged { phase: Said::Error, message: bad.what },
        }
    }

    /// How long `measurements` of them take at the most, as long as each of them succeeds.
    fn time_for(&self, measurements: u32) -> Duration {
        let each = self.interval.unwrap_or_default() + self.measure.timeout;
        self.initial_delay.saturating_add(each.saturating_mul(measurements))
    }

    fn retry(&self) -> Duration {
        match self.rules {
            Rules::Argo => ERROR_RETRY,
            Rules::Evenkeel | Rules::Flagger => self.interval.map_or(ERROR_RETRY, |interval| interval.min(ERROR_RETRY)),
        }
    }
}

/// Something that is asked once when a rollout has ended; nothing follows from its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// What people call it.
    pub name: String,
    /// What is asked.
    pub measure: Measure,
}

/// Where a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Beside the steps, from one of them on.
    Background,
    /// In a step, which it must pass.
    Step(usize),
}

/// One measurement, as it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// When it was asked for.
    pub asked: Timestamp,
    /// When it was there.
    pub at: Timestamp,
    /// What it says.
    pub said: Judged,
    /// The value, cut where it is long; empty without one.
    pub value: String,
}

/// A measurement on its way to the run that asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// The rollout.
    pub rollout: RolloutId,
    /// The run, by its number.
    pub run: u32,
    /// Its place among the measurements of that run, from 0.
    pub number: u32,
    /// When it was asked for.
    pub asked: Timestamp,
    /// What it says.
    pub said: Judged,
    /// The value, cut where it is long.
    pub value: String,
}

impl Sighting {
    /// What became of something that was due.
    #[must_use]
    pub fn of(due: &Due, asked: Timestamp, measured: &Result<Value, SourceError>) -> Self {
        let mut said = due.check.judge(measured);
        if said.message.len() > MESSAGE_MAX {
            let end = (0..=MESSAGE_MAX).rev().find(|end| said.message.is_char_boundary(*end)).unwrap_or(0);
            said.message.truncate(end);
            said.message.push('…');
        }
        let value = measured.as_ref().map(|value| value.brief(VALUE_MAX)).unwrap_or_default();
        Self { rollout: due.rollout, run: due.run, number: due.number, asked, said, value }
    }
}

/// Something to be measured now.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// For which rollout.
    pub rollout: RolloutId,
    /// For which run.
    pub run: u32,
    /// Its place among the measurements of that run.
    pub number: u32,
    /// The check.
    pub check: Check,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes on.
    Running,
    /// It has passed.
    Successful,
    /// It has failed.
    Failed,
    /// It could not tell.
    Inconclusive,
    /// It could not measure; by Argo's rules alone, by evenkeel's it goes on trying.
    Error,
    /// It was stopped before it had said anything; by Argo's rules that is a pass.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "runs",
            Self::Successful => "passed",
            Self::Failed => "failed",
            Self::Inconclusive => "is inconclusive",
            Self::Error => "could not measure",
            Self::Stopped => "stopped before its end",
        })
    }
}

/// One run of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number in the rollout.
    pub number: u32,
    /// Where it runs.
    pub place: Place,
    /// What it runs.
    pub check: Check,
    /// Since when.
    pub since: Timestamp,
    /// How it stands.
    pub state: State,
    /// Measurements so far, those that failed to measure included.
    pub taken: u32,
    /// Good ones.
    pub successful: u32,
    /// Bad ones.
    pub failed: u32,
    /// Ones that were neither.
    pub inconclusive: u32,
    /// Ones that failed to measure.
    pub errors: u32,
    /// Good ones in a row, at the end.
    pub consecutive_successes: u32,
    /// Ones in a row, at the end, that failed to measure.
    pub consecutive_errors: u32,
    /// When the last good one was asked for.
    pub good_at: Option<Timestamp>,
    /// The newest ones, oldest first.
    pub last: Vec<Measurement>,
}

impl Run {
    /// A run at its beginning.
    #[must_use]
    pub fn new(number: u32, place: Place, check: Check, since: Timestamp) -> Self {
        Self {
            number,
            place,
            check,
            since,
            state: State::Running,
            taken: 0,
            successful: 0,
            failed: 0,
            inconclusive: 0,
            errors: 0,
            consecutive_successes: 0,
            consecutive_errors: 0,
            good_at: None,
            last: Vec::new(),
        }
    }

    /// When the next measurement is due; `None`: there is none to come.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        if self.state != State::Running {
            return None;
        }
        match self.last.last() {
            None => Some(self.since.after(self.check.initial_delay)),
            Some(last) if last.said.phase == Said::Error => Some(last.at.after(self.check.retry())),
            Some(last) => self.check.interval.map(|interval| last.at.after(interval)),
        }
    }

    /// Takes a measurement in; one that is not the next one changes nothing. Tells whether it did.
    pub fn take(&mut self, sighting: &Sighting, at: Timestamp) -> bool {
        if self.state != State::Running || sighting.run != self.number || sighting.number != self.taken {
            return false;
        }
        self.taken += 1;
        self.consecutive_successes += 1;
        let is_error = sighting.said.phase == Said::Error;
        self.consecutive_errors = if is_error { self.consecutive_errors + 1 } else { 0 };
        match sighting.said.phase {
            Said::Successful => {
                self.successful += 1;
                self.good_at = Some(sighting.asked);
            }
            Said::Failed => self.failed += 1,
            Said::Inconclusive => self.inconclusive += 1,
            Said::Error => self.errors += 1,
        }
        if sighting.said.phase != Said::Successful {
            self.consecutive_successes = 0;
        }
        if self.last.len() >= KEPT_MAX {
            self.last.remove(0);
        }
        let Sighting { asked, said, value, .. } = sighting.clone();
        self.last.push(Measurement { asked, at, said, value });
        self.state = self.assess();
        true
    }

    /// How it stands, by the rules of Argo's `assessMetricStatus`, in its order: of several limits that are passed the
    /// last one counts.
    fn assess(&self) -> State {
        let Check { failure_limit, inconclusive_limit, consecutive_error_limit, .. } = self.check;
        let is_argo = self.check.rules == Rules::Argo;
        if is_argo && self.consecutive_errors > consecutive_error_limit {
            return State::Error;
        }
        if self.inconclusive > inconclusive_limit {
            return State::Inconclusive;
        }
        let is_alone = self.check.pool.is_none();
        if is_alone && failure_limit.is_some_and(|limit| self.failed > limit) {
            return State::Failed;
        }
        let in_a_row = self.check.consecutive_success_limit;
        if in_a_row > 0 && self.consecutive_successes >= in_a_row {
            return State::Successful;
        }
        let counted = self.successful + self.failed + self.inconclusive;
        match self.check.effective_count() {
            Some(count) if counted >= count && in_a_row == 0 => State::Successful,
            Some(count) if counted >= count && failure_limit.is_none() => State::Failed,
            Some(count) if counted >= count => State::Inconclusive,
            Some(_) | None => State::Running,
        }
    }

    /// Ends it before its time: by Argo's rules with a pass, by evenkeel's with nothing.
    pub fn stop(&mut self) {
        if self.state == State::Running {
            let is_pass = self.check.rules == Rules::Argo;
            self.state = if is_pass { State::Successful } else { State::Stopped };
        }
    }

    /// Whether its source fails to answer for longer than is allowed.
    #[must_use]
    pub fn is_without_data(&self) -> bool {
        self.consecutive_errors > self.check.consecutive_error_limit
    }

    /// How it stands, in a line: `check `errors` failed: 3 of 5 measurements were bad (limit 2); last: …`.
    #[must_use]
    pub fn told(&self) -> String {
        let name = &self.check.name;
        if self.state == State::Running && self.is_without_data() {
            let (count, last) = (self.consecutive_errors, self.last.last().map_or("", |last| &last.said.message));
            return format!("check `{name}` has no data: {count} in a row could not be measured; last: {last}");
        }
        let last = self.last.last().map_or_else(String::new, |last| format!("; last: {}", last.said.message));
        let dry = if self.check.dry_run { " (dry run)" } else { "" };
        let counted = match self.state {
            State::Failed if self.check.pool.is_some() => {
                let limit = self.check.failure_limit.unwrap_or(0);
                let pool = self.check.pool.as_deref().unwrap_or_default();
                format!("more than {limit} rounds of `{pool}` were bad, this one among them")
            }
            State::Failed => {
                let limit = self.check.failure_limit.map_or_else(String::new, |limit| format!(" (limit {limit})"));
                format!("{} of {} measurements were bad{limit}", self.failed, self.taken)
            }
            State::Inconclusive => {
                let limit = self.check.inconclusive_limit;
                format!(
                    "{} of {} measurements were neither good nor bad (limit {limit})",
                    self.inconclusive, self.taken
                )
            }
            State::Error => {
                let limit = self.check.consecutive_error_limit;
                format!("{} in a row could not be measured (limit {limit})", self.consecutive_errors)
            }
            State::Running | State::Successful | State::Stopped => {
                let errors = match self.errors {
                    0 => String::new(),
                    errors => format!(", {errors} could not be measured"),
                };
                format!("{} of {} measurements were good{errors}", self.successful, self.taken)
            }
        };
        let last = if matches!(self.state, State::Successful | State::Stopped) { String::new() } else { last };
        format!("check `{name}`{dry} {}: {counted}{last}", self.state)
    }
}

/// What the runs of a rollout say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sum {
    /// Nothing against the candidate.
    Fine,
    /// One failed, or could not measure where Argo's rules count that the same.
    Failed {
        /// Which.
        check: String,
        /// How, in words.
        detail: String,
    },
    /// One could not tell: people are needed.
    Inconclusive {
        /// How, in words.
        detail: String,
    },
}

/// What a step waits for before it is passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldUp {
    /// The check.
    pub check: String,
    /// In words.
    pub what: String,
    /// When that would be there, as long as every measurement succeeds.
    pub until: Timestamp,
}

/// The runs of one rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checks {
    /// Those of the step that is held or was held last, and those beside the steps.
    pub runs: Vec<Run>,
    /// The step that the runs of a step are of.
    pub step: Option<usize>,
    /// Since when it is held.
    pub held: Timestamp,
    /// The number of the next run.
    pub next: u32,
    /// Rounds in which a check of a pool was bad, by the pool: the run where it is one of a step, and the number of the
    /// round. No more than it takes to fail.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_rounds: BTreeMap<String, BTreeSet<(Option<u32>, u32)>>,
}

impl Checks {
    /// Whether there is nothing to write down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.step.is_none()
    }

    /// A step is held from `now` on: begins what runs in it, and what runs beside the steps from this one on. What could
    /// not tell before begins anew once people have let it go on (`is_let`).
    pub(crate) fn begin(&mut self, background: &[Check], of_step: &[Check], step: usize, is_let: bool, now: Timestamp) {
        if self.is_empty() && background.is_empty() && of_step.is_empty() {
            return;
        }
        if self.step != Some(step) {
            (self.step, self.held) = (Some(step), now);
            self.runs.retain(|run| run.place == Place::Background);
            for check in of_step {
                self.start(Place::Step(step), check.clone(), now);
            }
        }
        for check in background.iter().filter(|check| check.from_step <= step) {
            let runs = |run: &Run| run.place == Place::Background && run.check.name == check.name;
            if !self.runs.iter().any(runs) {
                self.start(Place::Background, check.clone(), now);
            }
        }
        let is_unclear = |run: &mut Run| is_let && run.state == State::Inconclusive;
        let unclear: Vec<Run> = self.runs.extract_if(.., is_unclear).collect();
        unclear.into_iter().for_each(|run| self.start(run.place, run.check, now));
    }

    fn start(&mut self, place: Place, check: Check, now: Timestamp) {
        self.runs.push(Run::new(self.next, place, check, now));
        self.next += 1;
    }

    /// Ends what still runs.
    pub(crate) fn stop(&mut self) {
        self.runs.iter_mut().for_each(Run::stop);
    }

    /// Takes a measurement in; the run when that has changed something.
    pub(crate) fn take(&mut self, sighting: &Sighting, at: Timestamp) -> Option<&Run> {
        let run = self.runs.iter_mut().find(|run| run.number == sighting.run)?;
        if !run.take(sighting, at) {
            return None;
        }
        if let (Some(pool), Some(limit), Said::Failed) = (&run.check.pool, run.check.failure_limit, sighting.said.phase)
        {
            let rounds = self.bad_rounds.entry(pool.clone()).or_default();
            let of_step = matches!(run.place, Place::Step(_)).then_some(run.number);
            // Those beside the steps go round together.
            rounds.insert((of_step, sighting.number));
            if rounds.len() > limit as usize {
                run.state = State::Failed;
            }
        }
        Some(&*run)
    }

    /// What they say together: as soon as one has failed, it counts before those that could not tell.
    #[must_use]
    pub fn sum(&self) -> Sum {
        let real = || self.runs.iter().filter(|run| !run.check.dry_run);
        if let Some(run) = real().find(|run| matches!(run.state, State::Failed | State::Error)) {
            return Sum::Failed { check: run.check.name.clone(), detail: run.told() };
        }
        real()
            .find(|run| run.state == State::Inconclusive)
            .map_or(Sum::Fine, |run| Sum::Inconclusive { detail: run.told() })
    }

    /// What the step that is held waits for, its own time aside; `None`: it may end.
    ///
    /// A run of the step must have passed. By evenkeel's rules one beside the steps has been good once in each step that
    /// does not end by its time alone (`on_time`), and where it takes a number of measurements it has passed before the
    /// last step ends.
    #[must_use]
    pub fn hold_up(&self, is_last: bool, on_time: bool) -> Option<HoldUp> {
        self.runs.iter().filter(|run| !run.check.dry_run).find_map(|run| {
            let count = run.check.effective_count();
            let must_pass = matches!(run.place, Place::Step(_)) || (is_last && count.is_some());
            let is_argo_beside = run.place == Place::Background && run.check.rules == Rules::Argo;
            if run.state != State::Running || is_argo_beside {
                return None;
            }
            let held_up = |what: String, until| Some(HoldUp { check: run.check.name.clone(), what, until });
            let trouble = match run.last.last() {
                Some(last) if last.said.phase == Said::Error => format!("; last: {}", last.said.message),
                Some(_) | None => String::new(),
            };
            if let (true, Some(count)) = (must_pass, count) {
                let counted = run.successful + run.failed + run.inconclusive;
                let what =
                    format!("check `{}` to take {count} measurements, it has {counted}{trouble}", run.check.name);
                return held_up(what, run.since.after(run.check.time_for(count)));
            }
            let is_fresh = run.good_at.is_some_and(|good| good >= self.held);
            if is_fresh || (on_time && !is_last) {
                return None;
            }
            let what = format!("check `{}` to be good once in this step{trouble}", run.check.name);
            held_up(what, self.held.max(run.since).after(run.check.time_for(1)))
        })
    }

    /// What is to be measured now.
    pub fn due(&self, rollout: RolloutId, now: Timestamp) -> impl Iterator<Item = Due> {
        let due = move |run: &&Run| run.next_at().is_some_and(|next| now >= next);
        self.runs.iter().filter(due).map(move |run| Due {
            rollout,
            run: run.number,
            number: run.taken,
            check: run.check.clone(),
        })
    }

    /// When the next measurement is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.runs.iter().filter_map(Run::next_at).min()
    }

    /// What is waited for: `check `errors`: 3 of 5 measurements`, and sources that do not answer.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        let running = self.runs.iter().filter(|run| run.state == State::Running);
        let words: Vec<String> = running
            .map(|run| {
                let counted = run.successful + run.failed + run.inconclusive;
                let of = run.check.effective_count().map_or_else(String::new, |count| format!(" of {count}"));
                let every = run.check.interval.map_or_else(String::new, |every| format!(", one every {}", span(every)));
                let trouble = run.last.last().filter(|last| last.said.phase == Said::Error);
                let trouble = trouble.map_or_else(String::new, |last| format!(" ({})", last.said.message));
                format!("check `{}`: {counted}{of} measurements{every}{trouble}", run.check.name)
            })
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

#[cfg(test)]
mod tests;
