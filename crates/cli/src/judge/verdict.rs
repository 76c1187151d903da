//! What the engine says of a table of counts.

use std::path::Path;

use evenkeel_analysis::evidence::latency::{BUCKETS, Scale};
use evenkeel_analysis::evidence::{
    Compared, Decision, Design, Engine, History, MetricState, Name, Question, Seen, Settings, Shown, ShownLatency,
    Split, State, one_in,
};
use evenkeel_report::evidence::{Line, Moment as Drawn, seconds, svg};
use serde_json::json;

use super::table::{Arm, Moment, Table};
use crate::args::JudgeArgs;
use crate::commands::say;
use crate::exit::{Exit, Failure};
use crate::paint::Paint;

/// An observed split is right as far as rates are alike within a row; longer rows deserve a word.
const ROW_S_MAX: f64 = 10.0;
/// So much of what stable showed before counts.
const HISTORY_S: f64 = 600.0;
/// Evidence beyond one in so many is told as that much.
const SHOWN_MOST: f64 = 1e9;
/// Slots in a second.
const SLOTS: f64 = 10.0;

/// What came out.
struct Judged {
    table: Table,
    engine: Engine,
    drawn: Vec<Drawn>,
    /// Seconds until the line was crossed.
    decided_s: Option<f64>,
    /// Seconds between rows, as a rule.
    row_s: f64,
}

/// Judges a table.
///
/// # Errors
/// The table or a share has mistakes, or the picture cannot be written.
pub(super) fn judge(path: &Path, args: &JudgeArgs, is_json: bool) -> Result<Exit, Failure> {
    let weight = args.weight.as_deref().map(|text| share("--weight", text)).transpose()?;
    let alpha = share("--false-alarms", &args.false_alarms)?;
    let table = Table::read(path).map_err(Failure::Usage)?;
    let judged = Judged::of(table, alpha, weight);
    let (exit, sentence) = judged.verdict();
    if let Some(file) = &args.svg {
        let lines = [Line { one_in: 10.0, label: "a rollout is held" }, Line { one_in: 1.0 / alpha, label: "harmful" }];
        let (verdict, because) = sentence.split_once(": ").unwrap_or((&sentence, ""));
        let drawn = svg(verdict, because, &judged.drawn, &lines, judged.decided_s);
        std::fs::write(file, drawn).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    }
    judged.tell(exit, &sentence, is_json);
    Ok(exit)
}

fn share(option: &str, text: &str) -> Result<f64, Failure> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / unit);
    share.filter(|share| *share > 0.0 && *share < 1.0).ok_or_else(|| {
        Failure::Usage(format!("{option} is `{text}`; write a share between 0 and 1, such as `10%` or `0.1`"))
    })
}

impl Judged {
    fn of(mut table: Table, alpha: f64, weight: Option<f64>) -> Self {
        let latency = !table.limits_s.is_empty();
        let history = before(&mut table);
        let design = Design {
            settings: Settings { alpha, alpha_pause: (10.0 * alpha).min(0.5), ..Settings::default() },
            compared: Compared { errors: true, late: false, latency },
            next_shares: vec![1.0],
            history,
            ..Design::default()
        };
        let mut gaps: Vec<f64> = table.moments.windows(2).map(|pair| pair[1].at_s - pair[0].at_s).collect();
        gaps.sort_by(f64::total_cmp);
        let row_s = gaps.get(gaps.len() / 2).copied().unwrap_or(0.0);
        let mut judged = Self { engine: Engine::new(design), table, drawn: Vec::new(), decided_s: None, row_s };
        for moment in judged.table.moments.clone() {
            judged.take(&moment, weight, latency);
        }
        judged
    }

    fn take(&mut self, moment: &Moment, weight: Option<f64>, has_latencies: bool) {
        let Moment { at_s, candidate, stable } = moment;
        let slot = (at_s * SLOTS).round() as u64;
        let split = if weight.is_some() { Split::Coin } else { Split::Observed };
        let all = (candidate.seen.requests + stable.seen.requests).max(1);
        let weight = weight.unwrap_or(candidate.seen.requests as f64 / all as f64);
        let (mine, other) = (candidate.seen, stable.seen);
        self.engine.reveal(
            slot,
            Question::Errors,
            &[Shown { epoch: 1, weight, split, candidate: mine, stable: other }],
        );
        if has_latencies {
            let full = |arm: &Arm| {
                let mut buckets = arm.latencies.clone();
                buckets.resize(BUCKETS, 0);
                buckets
            };
            let (candidate, stable) = (full(candidate), full(stable));
            let shown = ShownLatency { epoch: 1, weight, split, candidate: &candidate, stable: &stable };
            self.engine.reveal_latency(slot, &[shown]);
        }
        if self.engine.verdict().is_some() && self.decided_s.is_none() {
            self.decided_s = Some(*at_s);
        }
        let (ln_e, pair) = (self.engine.state().ln_e, |seen: Seen| (seen.requests, seen.bad));
        self.drawn.push(Drawn { at_s: *at_s, ln_e, candidate: pair(mine), stable: pair(other) });
    }

    /// The state that the verdict rests on.
    fn state(&self) -> State {
        let mut state = self.engine.verdict().map_or_else(|| self.engine.state(), |verdict| verdict.state.clone());
        // The buckets are the table's own.
        for leading in state.metrics.iter_mut().filter_map(|metric| metric.leading.as_mut()) {
            leading.slower_than_us = leading.slower_than_us.and_then(|us| self.limit_us(us));
        }
        state
    }

    /// The table's own limit for the end of a bucket of the engine's.
    fn limit_us(&self, end_us: u64) -> Option<u64> {
        let bucket = Scale::new(1.0).bucket(end_us).checked_sub(1)?;
        let limit_s = self.table.limits_s.get(bucket).filter(|limit_s| limit_s.is_finite())?;
        Some((limit_s * 1e6).round() as u64)
    }

    fn verdict(&self) -> (Exit, String) {
        let state = self.state();
        let limit = 1.0 / self.engine.design().settings.alpha;
        let strength = |ln_e: f64| format!("{:.0}", one_in(ln_e).floor().min(SHOWN_MOST));
        if let Some(missing) = self.missing() {
            return (Exit::Open, format!("undecided: {missing}"));
        }
        let what = state.leading().map_or_else(String::new, |leading| self.found(leading));
        match self.engine.decision() {
            Decision::Rollback => {
                let sentence = format!(
                    "harmful: {what}; evidence this strong would come up in fewer than 1 of {} harmless rollouts (limit 1 of {limit:.0}), {} after its first request",
                    strength(state.ln_e),
                    self.decided_s.map_or_else(String::new, seconds),
                );
                (Exit::RolledBack, sentence)
            }
            Decision::Hold(_) => {
                (Exit::Open, format!("undecided: {what}, but stable disagrees with itself from row to row"))
            }
            decision => {
                let gate = self.engine.gate(1.0);
                // A table has no steps; of what a gate waits for, only evidence counts.
                let is_shown = gate.waits.iter().all(|wait| wait.is_of_a_step()) && decision == Decision::Continue;
                if is_shown {
                    return (
                        Exit::Done,
                        format!("not harmful: {what}; that it fails little enough for all traffic is shown"),
                    );
                }
                let mut waits: Vec<String> =
                    gate.waits.iter().filter(|wait| !wait.is_of_a_step()).map(ToString::to_string).collect();
                // Two gates of answer times may be as far.
                waits.dedup();
                let need = if waits.is_empty() {
                    String::new()
                } else {
                    format!("; for a pass there is {}", waits.join(", "))
                };
                let against = match one_in(state.most).floor() {
                    ..2.0 => "nothing speaks against it".to_owned(),
                    most if most >= limit => {
                        format!(
                            "evidence of 1 of {} speaks against it, and it takes failures in two rows",
                            strength(state.most)
                        )
                    }
                    _ => format!(
                        "evidence against it as strong as it was at most would come up in 1 of {} harmless rollouts (limit 1 of {limit:.0})",
                        strength(state.most)
                    ),
                };
                (Exit::Open, format!("undecided: {what}; {against}{need}"))
            }
        }
    }

    /// What there is nothing of, so that nothing can be compared.
    fn missing(&self) -> Option<&'static str> {
        let of = |arm: fn(&Moment) -> &Arm| self.table.moments.iter().any(|moment| arm(moment).seen.requests > 0);
        if !of(|moment| &moment.candidate) {
            Some("no row has requests of the candidate")
        } else if !of(|moment| &moment.stable) {
            Some(
                "no row from the candidate's first request on has requests of stable, so there is nothing to compare with",
            )
        } else {
            None
        }
    }

    /// `the candidate failed 3 of 17 requests while stable failed 0 of 312 at the same times`
    fn found(&self, leading: &MetricState) -> String {
        let state = self.state();
        let errors = state.metrics.iter().find(|metric| metric.name == Name::Errors);
        let since = |metric: &MetricState| {
            metric.lately_s().map_or_else(String::new, |lately| format!("in the last {} ", seconds(lately)))
        };
        let is_slower = leading.name == Name::Latency && state.ln_e > 0.0;
        if let (true, (candidate, stable)) = (is_slower, leading.telling()) {
            let Seen { requests, bad } = candidate;
            let than = match leading.slower_than() {
                Some(us) => format!("than {} s", us as f64 / 1e6),
                None => "than half of stable's".to_owned(),
            };
            return format!(
                "{}{bad} of the candidate's {requests} requests were slower {than}, where {} of stable's {} were",
                since(leading),
                stable.bad,
                stable.requests
            );
        }
        let Some((errors, (candidate, stable))) = errors.map(|errors| (errors, errors.telling())) else {
            return String::new();
        };
        format!(
            "{}the candidate failed {} of {} requests while stable failed {} of {} at the same times",
            since(errors),
            candidate.bad,
            candidate.requests,
            stable.bad,
            stable.requests
        )
    }

    fn tell(&self, exit: Exit, sentence: &str, is_json: bool) {
        let state = self.state();
        let name = match exit {
            Exit::RolledBack => "harmful",
            Exit::Done => "not_harmful",
            _ => "undecided",
        };
        if is_json {
            say(json!({
                "event": "judged", "verdict": name, "sentence": sentence, "ln_e": state.ln_e, "one_in": state.one_in(),
                "alpha": self.engine.design().settings.alpha, "decided_s": self.decided_s, "moments": self.table.moments.len(),
                "state": state,
            }));
            return;
        }
        let paint = Paint::stdout();
        say(match exit {
            Exit::RolledBack => paint.bad(sentence),
            Exit::Done => paint.good(sentence),
            _ => paint.warn(sentence),
        });
        if self.row_s > ROW_S_MAX {
            say(paint.dim(format!(
                "note: rows are {} apart, and the test takes rates as alike within a row: where they move faster than that, shorter rows say more",
                seconds(self.row_s)
            )));
        }
        if state.eta < 1.0 {
            say(paint.dim("note: stable's failures come in clusters; they are counted as fewer"));
        }
        if state.split_is_off {
            say(paint.dim("note: the split is surely not as --weight says; the observed one was used"));
        }
    }
}

/// Takes off what stable showed before the candidate had its first request; of that the last ten minutes count.
fn before(table: &mut Table) -> History {
    let first = table.moments.iter().position(|moment| moment.candidate.seen.requests > 0);
    let rest = table.moments.split_off(first.unwrap_or(0));
    let early = std::mem::replace(&mut table.moments, rest);
    let began_s = table.moments.first().map_or(0.0, |moment| moment.at_s);
    let mut history = History { latency: vec![0; table.limits_s.len()], ..History::default() };
    for moment in early.iter().filter(|moment| moment.at_s >= began_s - HISTORY_S) {
        history.errors.add(moment.stable.seen);
        history.latency.iter_mut().zip(&moment.stable.latencies).for_each(|(sum, count)| *sum += count);
    }
    table.moments.iter_mut().for_each(|moment| moment.at_s -= began_s);
    history
}
