//! A scenario: what users and releases do while a rollout is simulated.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::service::Verb;
use evenkeel_foresee::scenario::{Arm, Behaviour, Fault, Latency, Scenario, Trouble};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::strategy::share;
use crate::values::{count, duration, short};
use crate::yaml::{self, Kind};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const AT_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * 86_400);
const LATENCY_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);
/// More than any machine of ours serves.
const RATE_MAX: f64 = 1e7;
/// Entries of a list.
const ENTRIES_MAX: usize = 1_000;
const RATE_HELP: &str = "write a number of requests with its time: `200/s`, `90/m`, `5/h`";
const BEGINNING: &str = "a scenario begins like this:\nrate: 200/s\ncandidate: { errors: 0.1% }";
const WHAT_CAN_BE_DONE: &str = "write `pause`, `resume`, `promote`, `promote-full`, `abort` or `rollback`";
/// How a release answers that is not said to answer otherwise.
const LATENCY: Latency = Latency { p50: Duration::from_millis(20), p99: Duration::from_millis(100) };

pub(crate) static SCENARIO: Section = Section {
    what: "a scenario",
    keys: &[
        "rate",
        "repeatable",
        "matching",
        "stable",
        "candidate",
        "startup",
        "smoke",
        "checks",
        "faults",
        "commands",
        "lasts",
    ],
    elsewhere: &[
        ("traffic", "write `rate: 200/s`"),
        ("service", "the spec is a file of its own: `evenkeel simulate evenkeel.yaml --scenario this.yaml`"),
        ("until", "write `lasts: 2h`"),
        ("duration", "write `lasts: 2h`"),
        ("errors", "write it below `stable` or `candidate`"),
    ],
};

pub(crate) static RATE: Section = Section {
    what: "an item of `rate`",
    keys: &["from", "rate"],
    elsewhere: &[("at", "write `from`: the rate holds from then on")],
};

pub(crate) static BEHAVIOUR: Section = Section {
    what: "a behaviour",
    keys: &["from", "errors", "latency"],
    elsewhere: &[("at", "write `from`: it behaves so from then on"), ("error_rate", "write `errors`")],
};

pub(crate) static TIMES: Section = Section {
    what: "the mapping `latency`",
    keys: &["p50", "p99"],
    elsewhere: &[("p95", "write `p50` and `p99`: a log-normal distribution is laid through these two")],
};

pub(crate) static FAULT: Section = Section {
    what: "a fault",
    keys: &["at", "dies", "replicas", "down", "controller", "for"],
    elsewhere: &[
        ("from", "write `at`"),
        ("replica", "write `dies: candidate`, with `replicas: 1` beside it"),
        ("ready", "write `startup: never` at the top level"),
        ("startup", "write it at the top level"),
    ],
};

pub(crate) static COMMAND: Section =
    Section { what: "a command", keys: &["at", "do"], elsewhere: &[("from", "write `at`")] };

/// Reads a scenario. `name` is what the file is called in messages.
///
/// # Errors
/// [`Problems`] with every mistake of the file.
pub fn read_scenario(name: &str, text: &str) -> Result<Scenario, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = Problems::none(name, text);
    let documents = yaml::documents(&mut problems);
    let read = match documents.as_slice() {
        [node] => scenario(&Value { name: "a scenario".into(), node }, &mut problems),
        [] if problems.is_empty() => {
            problems.add(Mistake::new(Code::MissingKey, 0..0, "this file describes no scenario").help(BEGINNING));
            None
        }
        [] => None,
        [_, second, ..] => {
            let mistake = Mistake::new(Code::Conflict, second.at.clone(), "a file holds one scenario");
            problems.add(mistake.help("leave the line of `---` out, or write the other one into a file of its own"));
            None
        }
    };
    problems.sort();
    match read {
        Some(scenario) if problems.errors() == 0 => Ok(scenario),
        _ => Err(problems),
    }
}

fn scenario(value: &Value<'_>, problems: &mut Problems) -> Option<Scenario> {
    if !matches!(value.node.kind, Kind::Map(_)) {
        value.wrong_type("a mapping", BEGINNING, problems);
        return None;
    }
    let fields = Fields::open(value, &SCENARIO, problems)?;
    let mut scenario = Scenario::calm(0.0, 0.0, LATENCY);
    if let Some(rate) = fields.required("rate", "rate: 200/s", problems, rates) {
        scenario.rate = rate;
    }
    let stable = fields.read("stable", problems, |value, problems| match value.scalar() {
        Some(scalar) if scalar.text == "none" => Some(None),
        _ => behaviours(value, Behaviour { from: Duration::ZERO, errors: 0.0, latency: LATENCY }, problems).map(Some),
    });
    if let Some(stable) = stable {
        scenario.stable = stable;
    }
    // A candidate that nothing else is said of answers as the stable release does.
    let first = scenario.stable.as_ref().and_then(|stable| stable.first()).copied();
    let like = first.unwrap_or(Behaviour { from: Duration::ZERO, errors: 0.0, latency: LATENCY });
    scenario.candidate = vec![like];
    fields.set("candidate", &mut scenario.candidate, problems, |value, problems| behaviours(value, like, problems));
    for (key, into) in [("repeatable", &mut scenario.repeatable), ("matching", &mut scenario.matching)] {
        fields.set(key, into, problems, part);
    }
    fields.set("startup", &mut scenario.startup, problems, |value, problems| match value.scalar() {
        Some(scalar) if scalar.text == "never" => Some(None),
        _ => duration(Duration::ZERO..=DAY)(value, problems).map(Some),
    });
    let passes = |value: &Value<'_>, problems: &mut Problems| {
        word(value, &[("passes", true), ("fails", false)], "write `passes` or `fails`", problems)
    };
    fields.set("smoke", &mut scenario.smoke_passes, problems, passes);
    fields.set("checks", &mut scenario.checks_pass, problems, passes);
    fields.set("faults", &mut scenario.faults, problems, |value, problems| {
        let faults = entries(value, "write one fault a line: `- { at: 5m, dies: candidate }`", fault, problems)?;
        in_order(faults.iter().map(|fault| fault.at), value, problems).then_some(faults)
    });
    fields.set("commands", &mut scenario.commands, problems, |value, problems| {
        let commands = entries(value, "write one command a line: `- { at: 3m, do: promote }`", command, problems)?;
        in_order(commands.iter().map(|(at, _)| *at), value, problems).then_some(commands)
    });
    fields.set("lasts", &mut scenario.lasts, problems, duration(SECOND..=*AT_BOUNDS.end()));
    Some(scenario)
}

/// A list of one thing, or what stands for a list of one.
fn entries<T>(
    value: &Value<'_>,
    help: &str,
    read: impl Fn(&Value<'_>, &mut Problems) -> Option<T>,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    let items = value.items(help, problems)?;
    if items.len() > ENTRIES_MAX {
        let message = format!("{} has {} entries", value.name, items.len());
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(format!("write at most {ENTRIES_MAX}")));
        return None;
    }
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, problems)).collect();
    read.into_iter().collect()
}

fn in_order(times: impl Iterator<Item = Duration>, value: &Value<'_>, problems: &mut Problems) -> bool {
    let is_so = times.is_sorted();
    if !is_so {
        value.bad(format!("the entries of {} are not in order of time", value.name), "sort them by time", problems);
    }
    is_so
}

fn rates(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<(Duration, f64)>> {
    if !matches!(value.node.kind, Kind::List(_)) {
        return rate(value, problems).map(|rate| vec![(Duration::ZERO, rate)]);
    }
    let help = "write one rate a line: `- { from: 10m, rate: 500/s }`";
    let entry = |value: &Value<'_>, problems: &mut Problems| {
        let fields = Fields::open(value, &RATE, problems)?;
        let from = fields.required("from", "from: 0s", problems, duration(AT_BOUNDS));
        let rate = fields.required("rate", "rate: 200/s", problems, rate);
        Some((from?, rate?))
    };
    let rates = entries(value, help, entry, problems)?;
    in_order(rates.iter().map(|(from, _)| *from), value, problems).then_some(rates)
}

/// So many requests in a second, minute or hour.
fn rate(value: &Value<'_>, problems: &mut Problems) -> Option<f64> {
    let Some(scalar) = value.scalar() else {
        value.wrong_type("a rate", RATE_HELP, problems);
        return None;
    };
    let rate = parse_rate(&scalar.text);
    if rate.is_none() {
        value.bad(format!("{}: `{}` is no rate", value.name, short(&scalar.text)), RATE_HELP, problems);
    }
    rate
}

/// Requests per second from `200/s`, `90/m` or `5/h`; `None`: the text says something else.
#[must_use]
pub fn parse_rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    let number = number.trim();
    let is_plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate = number.parse::<f64>().ok().filter(|_| is_plain)? / seconds;
    (rate <= RATE_MAX).then_some(rate)
}

fn behaviours(value: &Value<'_>, like: Behaviour, problems: &mut Problems) -> Option<Vec<Behaviour>> {
    if !matches!(value.node.kind, Kind::List(_)) {
        return behaviour(value, like, problems).map(|behaviour| vec![behaviour]);
    }
    let help = "write one behaviour a line: `- { from: 12m, errors: 8% }`";
    let before = std::cell::Cell::new(like);
    let next = |value: &Value<'_>, problems: &mut Problems| {
        let read = behaviour(value, before.get(), problems)?;
        before.set(read);
        Some(read)
    };
    let behaviours = entries(value, help, next, problems)?;
    in_order(behaviours.iter().map(|behaviour| behaviour.from), value, problems).then_some(behaviours)
}

/// What is left out is as it was before.
fn behaviour(value: &Value<'_>, like: Behaviour, problems: &mut Problems) -> Option<Behaviour> {
    let fields = Fields::open(value, &BEHAVIOUR, problems)?;
    let mut read = Behaviour { from: Duration::ZERO, ..like };
    fields.set("from", &mut read.from, problems, duration(AT_BOUNDS));
    fields.set("errors", &mut read.errors, problems, part);
    fields.set("latency", &mut read.latency, problems, latency);
    Some(read)
}

fn latency(value: &Value<'_>, problems: &mut Problems) -> Option<Latency> {
    let fields = Fields::open(value, &TIMES, problems)?;
    let p50 = fields.required("p50", "p50: 20ms", problems, duration(LATENCY_BOUNDS));
    let p99 = fields.required("p99", "p99: 120ms", problems, duration(LATENCY_BOUNDS));
    let latency = Latency { p50: p50?, p99: p99? };
    if latency.p99 < latency.p50 {
        let at = fields.key_at("p99").unwrap_or_else(|| fields.at());
        let mistake = Mistake::new(Code::BadValue, at, "`p99` is below `p50`");
        problems.add(mistake.help("99 % of the answers take at most `p99`: write it at least as long as `p50`"));
        return None;
    }
    Some(latency)
}

fn part(value: &Value<'_>, problems: &mut Problems) -> Option<f64> {
    share(value, problems).map(|share| f64::from(share.get()) / 10_000.0)
}

fn word<T: Clone>(value: &Value<'_>, words: &[(&str, T)], help: &str, problems: &mut Problems) -> Option<T> {
    let Some(scalar) = value.scalar() else {
        value.wrong_type("a word", help, problems);
        return None;
    };
    let known = words.iter().find(|(word, _)| *word == scalar.text).map(|(_, meant)| meant.clone());
    if known.is_none() {
        value.bad(format!("{}: `{}` means nothing here", value.name, short(&scalar.text)), help, problems);
    }
    known
}

fn arm(value: &Value<'_>, problems: &mut Problems) -> Option<Arm> {
    word(value, &[("stable", Arm::Stable), ("candidate", Arm::Candidate)], "write `stable` or `candidate`", problems)
}

fn fault(value: &Value<'_>, problems: &mut Problems) -> Option<Fault> {
    let fields = Fields::open(value, &FAULT, problems)?;
    let kinds = ["dies", "down", "controller"];
    fields.only_one_of(&kinds, "write one fault an entry", problems);
    let at = fields.required("at", "at: 5m", problems, duration(AT_BOUNDS));
    let dying = fields.read("dies", problems, arm);
    let down = fields.read("down", problems, arm);
    let crash =
        fields.read("controller", problems, |value, problems| word(value, &[("crash", ())], "write `crash`", problems));
    let mut replicas = 1;
    fields.set("replicas", &mut replicas, problems, count(1..=1_000));
    let lasts = fields.read("for", problems, duration(Duration::from_millis(1)..=DAY));
    if !fields.has_unknown() && kinds.iter().all(|kind| fields.key_at(kind).is_none()) {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "this fault does not say what goes wrong");
        problems.add(mistake.help("write `dies: candidate`, `down: stable` with `for`, or `controller: crash`"));
    }
    if let (Some(needless), false) = (fields.key_at("replicas"), dying.is_some() || fields.key_at("dies").is_some()) {
        let mistake = Mistake::new(Code::Conflict, needless, "`replicas` belongs to `dies`");
        problems.add(mistake.help("leave it out: the other faults concern all of them"));
    }
    if let (Some(needless), true) = (fields.key_at("for"), dying.is_some()) {
        let mistake = Mistake::new(Code::Conflict, needless, "`for` does not belong to `dies`");
        problems.add(mistake.help("leave it out: a replica that ended is started anew, as in production"));
    }
    if down.is_some() && fields.key_at("for").is_none() {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "`down` needs the key `for`");
        problems.add(mistake.help("add `for: 2m`"));
        return None;
    }
    let what = match (dying, down, crash) {
        (Some(arm), ..) => Trouble::Dies { arm, replicas },
        (_, Some(arm), _) => Trouble::Down { arm, lasts: lasts? },
        (_, _, Some(())) => Trouble::ControllerDies { lasts: lasts.unwrap_or(SECOND) },
        (None, None, None) => return None,
    };
    Some(Fault { at: at?, what })
}

fn command(value: &Value<'_>, problems: &mut Problems) -> Option<(Duration, Verb)> {
    let fields = Fields::open(value, &COMMAND, problems)?;
    let at = fields.required("at", "at: 3m", problems, duration(AT_BOUNDS));
    let asked = fields.required("do", "do: promote", problems, |value, problems| {
        let words: [(&str, Verb); 6] = [
            ("pause", Verb::Pause),
            ("resume", Verb::Resume),
            ("promote", Verb::Promote { full: false }),
            ("promote-full", Verb::Promote { full: true }),
            ("abort", Verb::Abort),
            ("rollback", Verb::Rollback { to: None }),
        ];
        word(value, &words, WHAT_CAN_BE_DONE, problems)
    });
    Some((at?, asked?))
}
