//! `evenkeel replay`: a recorded rollout once more, the same way or by another spec.

use std::path::{Path, PathBuf};

use evenkeel_core::Rollout;
use evenkeel_core::ids::Timestamp;
use evenkeel_core::replay::{self, Agreement, Instead, Replayed};
use evenkeel_core::rollout::Moment;
use serde_json::json;

use crate::commands::{read_spec, say};
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::place::Place;
use crate::recording::{self, Recording, Which};

/// `evenkeel replay`
///
/// # Errors
/// There is no such rollout, nothing is recorded of it, or the other spec has mistakes.
pub(crate) async fn run(
    place: Place,
    which: &[String],
    with: Option<&PathBuf>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let recording = recording::read(place, &Which::of(which)?).await?;
    if recording.records.is_empty() {
        let (name, rollout) = (&recording.service.name, recording.rollout);
        let why = format!("nothing is recorded of {name} {rollout}: it was rolled out by an older evenkeel");
        return Err(Failure::Usage(format!("{why}\n  next: evenkeel history {name} --rollout {}", rollout.0)));
    }
    match with {
        None => Ok(same(&recording, is_json)),
        Some(path) => other(&recording, path, is_json),
    }
}

fn same(recording: &Recording, is_json: bool) -> Exit {
    let replayed = replay::replay(&recording.as_core());
    let exit = if replayed.is_same() { Exit::Done } else { Exit::Internal };
    let (service, rollout) = (&recording.service.name, recording.rollout);
    if is_json {
        say(json!({"event": "replayed", "service": service, "rollout": rollout, "same": replayed.is_same(),
            "decisions": replayed.decisions, "missed": replayed.missed, "records": recording.records.len()}));
        return exit;
    }
    let paint = Paint::stdout();
    let started = rollout_of(recording).map_or(Timestamp::default(), |rollout| rollout.started);
    for line in differences(&replayed, started) {
        say(paint.warn(line));
    }
    let (all, unknown) = (replayed.decisions.len(), replayed.unknown());
    let known = all - unknown;
    let unknown = match unknown {
        0 => String::new(),
        some => format!("; {some} cannot be recomputed"),
    };
    let records = recording.records.len();
    let decisions = |count: usize| if count == 1 { "1 decision".to_owned() } else { format!("{count} decisions") };
    if replayed.is_same() {
        let same = if known == 1 { "the same" } else { "all the same" };
        say(paint.good(format!("{service} {rollout}: {}, {same}{unknown} ({records} records)", decisions(known))));
    } else {
        let (differ, missed) = (replayed.differing().count(), replayed.missed.len());
        let text =
            format!("{service} {rollout}: {differ} of {} differ, and {missed} more would be taken", decisions(known));
        say(paint.bad(format!("{text}{unknown} ({records} records)")));
    }
    exit
}

fn differences(replayed: &Replayed, started: Timestamp) -> Vec<String> {
    let after = |at: Timestamp| format!("{:>9.3} s", at.since(started).as_secs_f64());
    let mut lines = Vec::new();
    for checked in &replayed.decisions {
        let told = checked.told.last().map_or("(nothing told)", String::as_str);
        match &checked.outcome {
            Agreement::Same => {}
            Agreement::Unknown { why } => lines.push(format!("{}  unknown: {told}: {why}", after(checked.at))),
            Agreement::Different { differences } => {
                lines.push(format!("{}  differs: {told}", after(checked.at)));
                for difference in differences {
                    lines.push(format!("{:13}{}, as recorded: {}", "", difference.what, difference.recorded));
                    lines.push(format!("{:13}{}, recomputed:  {}", "", difference.what, difference.recomputed));
                }
            }
        }
    }
    lines.extend(replayed.missed.iter().map(|missed| format!("{}  would decide: {}", after(missed.at), missed.told)));
    lines
}

fn rollout_of(recording: &Recording) -> Option<&Rollout> {
    recording.service.rollouts().find(|rollout| rollout.id == recording.rollout)
}

fn other(recording: &Recording, path: &Path, is_json: bool) -> Result<Exit, Failure> {
    let (name, rollout) = (&recording.service.name, recording.rollout);
    let file = read_spec(path)?;
    let spec = file.specs.iter().find(|spec| spec.service == *name);
    let none = || Failure::Usage(format!("{} has no service `{name}`", path.display()));
    let spec = spec.ok_or_else(none)?;
    let incomplete = || Failure::Usage(format!("the beginning of {name} {rollout} is not recorded"));
    let instead = replay::instead(&recording.as_core(), spec).ok_or_else(incomplete)?;
    let happened = rollout_of(recording).ok_or_else(incomplete)?;
    if is_json {
        say(json!({"event": "replayed", "service": name, "rollout": rollout, "with": path,
            "happened": {"state": happened.phase.name(), "moments": happened.moments}, "instead": instead}));
        return Ok(Exit::Done);
    }
    show_both(happened, &instead, path);
    Ok(Exit::Done)
}

fn show_both(happened: &Rollout, instead: &Instead, path: &Path) {
    let paint = Paint::stdout();
    let after = |at: Timestamp| format!("{:>9.1} s", at.since(happened.started).as_secs_f64());
    let list = |moments: &[Moment]| {
        for moment in moments {
            say(format!("{}  {}", after(moment.at), moment.text));
        }
    };
    let Rollout { id, candidate, .. } = happened;
    say(paint.bold(format!("rollout {id} of {candidate}, as it happened:")));
    list(&happened.moments);
    say(paint.bold(format!("with {}:", path.display())));
    list(&instead.moments);
    let until = after(instead.known_until).trim().to_owned();
    if instead.is_decided {
        say(paint.bold(format!("it would have been {} after {until}", instead.state)));
    } else {
        say(paint.bold(format!("after {until} it would have gone on: {}", instead.state)));
        say(format!(
            "  from then on nothing can be known: {candidate} had no more traffic, or nothing more is recorded"
        ));
    }
    say(paint.dim("what could not be known, and was taken to be so:"));
    instead.assumed.iter().for_each(|assumed| say(paint.dim(format!("  - {assumed}"))));
}
