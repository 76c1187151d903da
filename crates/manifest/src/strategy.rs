//! `strategy`: canary or blue-green.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_analysis::Objective;
use evenkeel_core::ids::BasisPoints;
use evenkeel_core::spec::{CanaryStep, Hold, SmokeCheck, Strategy};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, duration, percentage, short, text, url_path};
use crate::yaml::Kind;

const HOUR: Duration = Duration::from_secs(3_600);
const HOLD_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);
const STEPS_MAX: usize = 100;
const STEPS_HELP: &str = "write one step a line: `- { weight: 5%, hold: 10m }`";
const OBJECTIVES_HELP: &str = "write a list: `[\"error_rate < 1%\", \"latency.p99 < 500ms\"]`";

pub(crate) static STRATEGY: Section = Section {
    what: "the mapping `strategy`",
    keys: &["canary", "blueGreen"],
    elsewhere: &[
        ("rollingUpdate", "rolling updates are not supported: a canary with `steps` does more"),
        ("type", "write `canary:` or `blueGreen:` with its settings below"),
    ],
};

pub(crate) static CANARY: Section = Section {
    what: "the mapping `canary`",
    keys: &["steps", "bake"],
    elsewhere: &[("objectives", "write `objectives` at the top level for all steps, or in a step for that one")],
};

pub(crate) static STEP: Section = Section {
    what: "a canary step",
    keys: &["weight", "hold", "objectives"],
    elsewhere: &[
        ("setWeight", "write `{ weight: 5%, hold: 10m }`"),
        ("pause", "write `hold: 10m` next to the weight, or `hold: manual` to wait for a promotion"),
        ("duration", "write `hold`"),
    ],
};

pub(crate) static BLUE_GREEN: Section =
    Section { what: "the mapping `blueGreen`", keys: &["smoke", "watch"], elsewhere: &[] };

pub(crate) static SMOKE: Section = Section {
    what: "a smoke check",
    keys: &["path", "status", "contains", "timeout"],
    elsewhere: &[("http", "write `path`")],
};

/// Reads `strategy`; `default` is what a canary without steps gets.
pub(crate) fn strategy(value: &Value<'_>, default: &Strategy, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &STRATEGY, problems)?;
    fields.only_one_of(STRATEGY.keys, "a release takes over in one way: keep one of them", problems);
    let canary = fields.read("canary", problems, |value, problems| canary(value, default, problems));
    let blue_green = fields.read("blueGreen", problems, blue_green);
    if !fields.has_unknown() && STRATEGY.keys.iter().all(|key| fields.key_at(key).is_none()) {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "`strategy` names no strategy");
        problems.add(mistake.help("write `canary:` or `blueGreen:` below it, or leave `strategy` out"));
    }
    canary.or(blue_green)
}

fn canary(value: &Value<'_>, default: &Strategy, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &CANARY, problems)?;
    let (default_steps, mut bake) = match default {
        Strategy::Canary { steps } => (steps.clone(), steps.last().map_or(Hold::For(Duration::ZERO), |step| step.hold)),
        Strategy::BlueGreen { .. } => (Vec::new(), Hold::For(5 * HOUR / 60)),
    };
    fields.set("bake", &mut bake, problems, hold);
    let mut steps = match fields.key_at("steps") {
        Some(_) => fields.read("steps", problems, |value, problems| written_steps(value, &fields, bake, problems))?,
        None => default_steps.into_iter().filter(|step| step.weight < BasisPoints::ALL).collect(),
    };
    if steps.last().is_none_or(|step| step.weight < BasisPoints::ALL) {
        steps.push(CanaryStep { weight: BasisPoints::ALL, hold: bake, objectives: None });
    }
    Some(Strategy::Canary { steps })
}

/// The steps as written, with what is wrong about their order told.
fn written_steps(
    value: &Value<'_>,
    canary: &Fields<'_>,
    bake: Hold,
    problems: &mut Problems,
) -> Option<Vec<CanaryStep>> {
    let items = value.items(STEPS_HELP, problems)?;
    if items.len() > STEPS_MAX {
        let message = format!("`steps` has {} steps", items.len());
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(format!("write at most {STEPS_MAX}")));
        return None;
    }
    let read: Vec<Option<(CanaryStep, Value<'_>)>> =
        items.iter().map(|item| step(item, canary, bake, problems)).collect();
    for pair in read.windows(2) {
        if let [Some((before, _)), Some((step, weight))] = pair
            && step.weight <= before.weight
        {
            let message = format!("shares must rise, but {} is followed by {}", before.weight, step.weight);
            let mistake = Mistake::new(Code::WeightsMustRise, weight.at(), message).label("not above the step before");
            problems.add(mistake.help("sort the steps by weight; two of the same weight are one with a longer hold"));
        }
    }
    read.into_iter().map(|step| step.map(|(step, _)| step)).collect()
}

/// One step, and its weight as it was written.
fn step<'a>(
    value: &Value<'a>,
    canary: &Fields<'_>,
    bake: Hold,
    problems: &mut Problems,
) -> Option<(CanaryStep, Value<'a>)> {
    let fields = Fields::open(value, &STEP, problems)?;
    let weight = fields.required("weight", "weight: 5%", problems, |value, problems| {
        percentage(value, problems).map(|weight| (weight, value.clone()))
    });
    let full = weight.as_ref().is_some_and(|(weight, _)| *weight == BasisPoints::ALL);
    let hold = if full && fields.key_at("hold").is_none() {
        Some(bake)
    } else {
        fields.required("hold", "hold: 10m` or `hold: manual", problems, hold)
    };
    if let (true, Some(hold_at), Some(bake_at)) = (full, fields.key_at("hold"), canary.key_at("bake")) {
        let message = "the hold of the step at 100 % is the bake, and `bake` is written too";
        let mistake = Mistake::new(Code::Conflict, bake_at, message).also(hold_at, "the hold of that step");
        problems.add(mistake.help("leave `bake` out, or that `hold`"));
    }
    let objectives = fields.read("objectives", problems, objectives);
    let (weight, written) = weight?;
    // A bad hold has been told; any other lets the weight be looked at beside its neighbours.
    Some((CanaryStep { weight, hold: hold.unwrap_or(bake), objectives }, written))
}

fn hold(value: &Value<'_>, problems: &mut Problems) -> Option<Hold> {
    if value.scalar().is_some_and(|scalar| scalar.text == "manual") {
        return Some(Hold::UntilPromoted);
    }
    duration(HOLD_BOUNDS)(value, problems).map(Hold::For)
}

/// Reads a list of objectives.
pub(crate) fn objectives(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Objective>> {
    let items = value.items(OBJECTIVES_HELP, problems)?;
    Some(items.iter().filter_map(|item| objective(item, problems)).collect())
}

fn objective(value: &Value<'_>, problems: &mut Problems) -> Option<Objective> {
    let written = text(value, problems)?;
    match written.parse::<Objective>() {
        Ok(objective) => Some(objective),
        Err(bad) => {
            let at = value.node.part(problems.text(), bad.at);
            let message = format!("`{}` is no objective: {}", short(&written), bad.what);
            problems.add(Mistake::new(Code::BadValue, at, message).help(bad.help));
            None
        }
    }
}

fn blue_green(value: &Value<'_>, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &BLUE_GREEN, problems)?;
    let mut watch = HOUR / 12;
    fields.set("watch", &mut watch, problems, duration(HOLD_BOUNDS));
    let smoke = fields.read("smoke", problems, smoke_checks).unwrap_or_default();
    Some(Strategy::BlueGreen { smoke, watch })
}

fn smoke_checks(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<SmokeCheck>> {
    if matches!(&value.node.kind, Kind::List(items) if items.is_empty()) {
        return None;
    }
    let items = value.items("write one check a line: `- { path: /health }`", problems)?;
    Some(items.iter().filter_map(|item| smoke_check(item, problems)).collect())
}

fn smoke_check(value: &Value<'_>, problems: &mut Problems) -> Option<SmokeCheck> {
    let fields = Fields::open(value, &SMOKE, problems)?;
    let path = fields.required("path", "path: /health", problems, url_path);
    let (mut status, mut timeout) = (200, Duration::from_secs(5));
    fields.set("status", &mut status, problems, count(200..=599));
    fields.set("timeout", &mut timeout, problems, duration(Duration::from_millis(1)..=HOUR / 12));
    let contains = fields.read("contains", problems, text);
    Some(SmokeCheck { path: path?, status: u16::try_from(status).ok()?, contains, timeout })
}
