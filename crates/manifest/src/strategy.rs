//! `strategy`: how a new release takes over.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_analysis::Objective;
use evenkeel_core::ids::BasisPoints;
use evenkeel_core::spec::{Afterwards, Amount, CanaryStep, Hold, Shift, SmokeCheck, Strategy};

use crate::checks::checks;
use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::routing::{matches, sticky};
use crate::values::{count, duration, percentage, short, text, url_path};
use crate::yaml::{Kind, Sort};

const HOUR: Duration = Duration::from_secs(3_600);
const HOLD_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);
const STEPS_MAX: usize = 100;
const BAKE: Duration = Duration::from_secs(300);
/// What may be held back, in units of 0.01 %.
const HOLD_BACK: std::ops::RangeInclusive<u16> = 10..=2_000;
const STEPS_HELP: &str = "write one step a line: `- { weight: 5%, hold: 10m }`";
const OBJECTIVES_HELP: &str = "write a list: `[\"error_rate < 1%\", \"latency.p99 < 500ms\"]`";

pub(crate) static STRATEGY: Section = Section {
    what: "the mapping `strategy`",
    keys: &["canary", "blueGreen", "rolling", "recreate", "ab", "rollout", "flagger"],
    elsewhere: &[
        ("rollingUpdate", "write `rolling: { maxSurge: 25%, maxUnavailable: 25% }`"),
        ("type", "write the strategy as a key with its settings below: `rolling: {}`"),
        ("mirror", "write it in a canary step: `{ weight: 0%, mirror: 10%, hold: 10m }`"),
    ],
};

pub(crate) static CANARY: Section = Section {
    what: "the mapping `canary`",
    keys: &["steps", "bake", "holdBack", "sticky"],
    elsewhere: &[("objectives", "write `objectives` at the top level for all steps, or in a step for that one")],
};

pub(crate) static STEP: Section = Section {
    what: "a canary step",
    keys: &["weight", "hold", "objectives", "checks", "replicas", "smoke", "match", "mirror"],
    elsewhere: &[
        ("setWeight", "write `{ weight: 5%, hold: 10m }`"),
        ("setCanaryScale", "write `replicas: 2` next to the weight"),
        ("setHeaderRoute", "write `match: [{ header: X-Beta, is: \"1\" }]` next to the weight"),
        ("setMirrorRoute", "write `mirror: 10%` next to the weight"),
        ("pause", "write `hold: 10m` next to the weight, or `hold: manual` to wait for a promotion"),
        ("duration", "write `hold`"),
        ("analysis", "write `checks` next to the weight"),
    ],
};

pub(crate) static BLUE_GREEN: Section = Section {
    what: "the mapping `blueGreen`",
    keys: &[
        "smoke",
        "previewReplicas",
        "promotion",
        "steps",
        "sticky",
        "watch",
        "holdBack",
        "prePromotion",
        "postPromotion",
    ],
    elsewhere: &[
        ("previewReplicaCount", "write `previewReplicas`"),
        ("prePromotionAnalysis", "write `prePromotion`, a list of checks"),
        ("postPromotionAnalysis", "write `postPromotion`, a list of checks"),
        ("autoPromotionEnabled", "write `promotion: manual`"),
        ("autoPromotionSeconds", "write `promotion: 30s`"),
        ("scaleDownDelaySeconds", "write `watch: 5m`: the old release is kept warm for that time"),
    ],
};

pub(crate) static SHIFT: Section = Section {
    what: "a blue-green step",
    keys: &["weight", "hold"],
    elsewhere: &[("setWeight", "write `{ weight: 10%, hold: 1m }`")],
};

pub(crate) static ROLLING: Section = Section {
    what: "the mapping `rolling`",
    keys: &["maxSurge", "maxUnavailable", "pause", "smoke", "keep", "bake"],
    elsewhere: &[("minReadySeconds", "write `pause: 10s`: each batch is watched for that time")],
};

pub(crate) static RECREATE: Section =
    Section { what: "the mapping `recreate`", keys: &["smoke", "bake"], elsewhere: &[] };

pub(crate) static AB: Section = Section {
    what: "the mapping `ab`",
    keys: &["share", "by", "match", "for", "then", "bake"],
    elsewhere: &[("weight", "write `share: 50%`"), ("duration", "write `for: 7d`"), ("sticky", "write `by`")],
};

pub(crate) static SMOKE: Section = Section {
    what: "a smoke check",
    keys: &["path", "status", "contains", "timeout"],
    elsewhere: &[("http", "write `path`")],
};

/// Reads `strategy`; `default` is what a canary without steps gets.
pub(crate) fn strategy(value: &Value<'_>, default: &Strategy, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &STRATEGY, problems)?;
    fields.only_one_of(STRATEGY.keys, "a release takes over in one way: keep one of them", problems);
    let read = [
        fields.read("canary", problems, |value, problems| canary(value, default, problems)),
        fields.read("blueGreen", problems, blue_green),
        fields.read("rolling", problems, rolling),
        fields.read("recreate", problems, recreate),
        fields.read("ab", problems, ab),
    ];
    if !fields.has_unknown() && STRATEGY.keys.iter().all(|key| fields.key_at(key).is_none()) {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "`strategy` names no strategy");
        let help = "write `canary:`, `blueGreen:`, `rolling:`, `recreate:` or `ab:` below it, or leave `strategy` out";
        problems.add(mistake.help(help));
    }
    read.into_iter().flatten().next()
}

fn canary(value: &Value<'_>, default: &Strategy, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &CANARY, problems)?;
    let (default_steps, mut bake) = match default {
        Strategy::Canary { steps, .. } => {
            (steps.clone(), steps.last().map_or(Hold::For(Duration::ZERO), |step| step.hold))
        }
        _ => (Vec::new(), Hold::For(BAKE)),
    };
    fields.set("bake", &mut bake, problems, hold);
    let sticky = fields.read("sticky", problems, sticky);
    let mut steps = match fields.key_at("steps") {
        Some(_) => fields.read("steps", problems, |value, problems| written_steps(value, &fields, bake, problems))?,
        None => default_steps.into_iter().filter(|step| step.weight < BasisPoints::ALL).collect(),
    };
    if steps.last().is_none_or(|step| step.weight < BasisPoints::ALL) {
        steps.push(CanaryStep::new(BasisPoints::ALL, bake));
    }
    if let Some(share) = fields.read("holdBack", problems, hold_back) {
        keep_back(&mut steps, share, &fields, problems);
    }
    Some(Strategy::Canary { steps, sticky })
}

/// The share that stable keeps while a new release is watched at the end.
fn hold_back(value: &Value<'_>, problems: &mut Problems) -> Option<BasisPoints> {
    let share = percentage(value, problems)?;
    if !HOLD_BACK.contains(&share.get()) {
        value.bad(format!("{share} is out of range"), "write 0.1% to 20%", problems);
        return None;
    }
    Some(share)
}

/// What the new release has while stable keeps a share.
fn beside(share: BasisPoints) -> BasisPoints {
    BasisPoints::new(BasisPoints::ALL.get() - share.get()).unwrap_or(BasisPoints::ALL)
}

/// Makes two of the last step: its time with a share that stable keeps, and then everything.
fn keep_back(steps: &mut Vec<CanaryStep>, share: BasisPoints, fields: &Fields<'_>, problems: &mut Problems) {
    let Some(last) = steps.pop() else { return };
    let weight = beside(share);
    tell_hold_back(steps.last().map(|before| before.weight), weight, fields, problems);
    let (objectives, replicas) = (last.objectives.clone(), last.replicas);
    let all = CanaryStep { objectives, replicas, ..CanaryStep::new(BasisPoints::ALL, Hold::For(Duration::ZERO)) };
    steps.extend([CanaryStep { weight, ..last }, all]);
}

/// Tells when nothing is left to be held back.
fn tell_hold_back(before: Option<BasisPoints>, weight: BasisPoints, fields: &Fields<'_>, problems: &mut Problems) {
    if let (Some(before), Some(at)) = (before.filter(|before| *before >= weight), fields.key_at("holdBack")) {
        let message = format!("shares must rise, but {before} is followed by {weight}");
        let mistake = Mistake::new(Code::WeightsMustRise, at, message).label("which is what this leaves");
        problems.add(mistake.help("hold back less, or leave it out: the step before keeps as much already"));
    }
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
            && (step.weight < before.weight || is_longer(before, step))
        {
            let message = format!("shares must rise, but {} is followed by {}", before.weight, step.weight);
            let mistake = Mistake::new(Code::WeightsMustRise, weight.at(), message).label("not above the step before");
            problems.add(mistake.help("sort the steps by weight; two of the same weight are one with a longer hold"));
        }
    }
    read.into_iter().map(|step| step.map(|(step, _)| step)).collect()
}

/// Whether a step is the one before it once more, with nothing new but its time.
fn is_longer(before: &CanaryStep, step: &CanaryStep) -> bool {
    // A time after people were asked is no longer hold.
    let is_time = |hold: Hold| matches!(hold, Hold::For(_));
    is_time(before.hold) == is_time(step.hold) && CanaryStep { hold: before.hold, ..step.clone() } == *before
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
        share(value, problems).map(|weight| (weight, value.clone()))
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
    let replicas = fields.read("replicas", problems, amount(1));
    let smoke = fields.read("smoke", problems, smoke_checks).unwrap_or_default();
    let pins = fields.read("match", problems, matches).unwrap_or_default();
    let mirror = fields.read("mirror", problems, percentage).unwrap_or_default();
    if let (true, Some(at)) = (full, fields.key_at("mirror")) {
        let mistake = Mistake::new(Code::Conflict, at, "nothing is left to be copied at 100 %");
        problems.add(mistake.help("leave `mirror` out: it copies requests that the stable release answers"));
    }
    let checks = fields.read("checks", problems, |value, problems| checks(value, true, problems)).unwrap_or_default();
    let (weight, written) = weight?;
    // A bad hold has been told; any other lets the weight be looked at beside its neighbours.
    let step = CanaryStep { weight, hold: hold.unwrap_or(bake), objectives, replicas, smoke, pins, mirror, checks };
    Some((step, written))
}

/// A share that may be nothing: `0%`.
pub(crate) fn share(value: &Value<'_>, problems: &mut Problems) -> Option<BasisPoints> {
    let is_nothing = |text: &str| text.strip_suffix('%').unwrap_or(text).trim_end() == "0";
    if value.scalar().is_some_and(|scalar| scalar.sort != Sort::Bool && is_nothing(&scalar.text)) {
        return Some(BasisPoints::NONE);
    }
    percentage(value, problems)
}

/// A number of replicas, or a part of the wanted number: `2`, `25%`.
fn amount(least: u32) -> impl Fn(&Value<'_>, &mut Problems) -> Option<Amount> {
    move |value, problems| {
        let is_part = |text: &str| text.trim_end().ends_with('%');
        match value.scalar().is_some_and(|scalar| is_part(&scalar.text)) {
            true if least == 0 => share(value, problems).map(Amount::Share),
            true => percentage(value, problems).map(Amount::Share),
            false => count(least..=1_000)(value, problems).map(Amount::Count),
        }
    }
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
    let (mut watch, mut promotion) = (BAKE, Hold::For(Duration::ZERO));
    fields.set("watch", &mut watch, problems, duration(HOLD_BOUNDS));
    fields.set("promotion", &mut promotion, problems, hold);
    let smoke = fields.read("smoke", problems, smoke_checks).unwrap_or_default();
    let preview_replicas = fields.read("previewReplicas", problems, amount(1));
    let mut shift = fields.read("steps", problems, shifts).unwrap_or_default();
    if let Some(share) = fields.read("holdBack", problems, hold_back) {
        tell_hold_back(shift.last().map(|before| before.weight), beside(share), &fields, problems);
        let hold = Hold::For(std::mem::take(&mut watch));
        shift.push(Shift { weight: beside(share), hold });
    }
    let sticky = fields.read("sticky", problems, sticky);
    let mut of =
        |key: &str| fields.read(key, problems, |value, problems| checks(value, true, problems)).unwrap_or_default();
    let (before_switch, after_switch) = (of("prePromotion"), of("postPromotion"));
    Some(Strategy::BlueGreen { smoke, preview_replicas, promotion, shift, sticky, watch, before_switch, after_switch })
}

fn shifts(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Shift>> {
    let items = value.items("write one step a line: `- { weight: 10%, hold: 1m }`", problems)?;
    if items.len() > STEPS_MAX {
        let message = format!("`steps` has {} steps", items.len());
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(format!("write at most {STEPS_MAX}")));
        return None;
    }
    let mut shifts: Vec<Shift> = Vec::new();
    for item in &items {
        let Some(fields) = Fields::open(item, &SHIFT, problems) else { continue };
        let weight = fields.required("weight", "weight: 10%", problems, percentage);
        let hold = fields.required("hold", "hold: 1m` or `hold: manual", problems, hold);
        let (Some(weight), Some(hold)) = (weight, hold) else { continue };
        if let Some(before) = shifts.last().filter(|before| weight <= before.weight) {
            let message = format!("shares must rise, but {} is followed by {weight}", before.weight);
            let mistake = Mistake::new(Code::WeightsMustRise, item.at(), message).label("not above the step before");
            problems.add(mistake.help("sort the steps by weight"));
        }
        if weight == BasisPoints::ALL {
            let mistake = Mistake::new(Code::Conflict, item.at(), "the step of 100 % is the switch itself");
            problems.add(
                mistake.help("leave it out: after the last step all traffic is switched, and watched for `watch`"),
            );
        }
        shifts.push(Shift { weight, hold });
    }
    Some(shifts)
}

fn rolling(value: &Value<'_>, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &ROLLING, problems)?;
    let quarter = Amount::Share(BasisPoints::new(2_500)?);
    let (mut surge, mut unavailable, mut warm) = (quarter, quarter, Amount::Count(0));
    let (mut pause, mut watch) = (Duration::ZERO, BAKE);
    fields.set("maxSurge", &mut surge, problems, amount(0));
    fields.set("maxUnavailable", &mut unavailable, problems, amount(0));
    fields.set("keep", &mut warm, problems, amount(0));
    fields.set("pause", &mut pause, problems, duration(HOLD_BOUNDS));
    fields.set("bake", &mut watch, problems, duration(HOLD_BOUNDS));
    let smoke = fields.read("smoke", problems, smoke_checks).unwrap_or_default();
    let is_nothing = |amount| matches!(amount, Amount::Count(0) | Amount::Share(BasisPoints::NONE));
    if is_nothing(surge) && is_nothing(unavailable) {
        let at = fields.key_at("maxUnavailable").unwrap_or_else(|| fields.at());
        let mistake =
            Mistake::new(Code::Conflict, at, "`maxSurge` and `maxUnavailable` are both 0: nothing could move");
        problems.add(mistake.help("let one replica be more, `maxSurge: 1`, or one be missing, `maxUnavailable: 1`"));
    }
    Some(Strategy::Rolling { surge, unavailable, pause, smoke, warm, watch })
}

fn recreate(value: &Value<'_>, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &RECREATE, problems)?;
    let mut watch = Duration::ZERO;
    fields.set("bake", &mut watch, problems, duration(HOLD_BOUNDS));
    let smoke = fields.read("smoke", problems, smoke_checks).unwrap_or_default();
    Some(Strategy::Recreate { smoke, watch })
}

fn ab(value: &Value<'_>, problems: &mut Problems) -> Option<Strategy> {
    let fields = Fields::open(value, &AB, problems)?;
    let (mut share, mut then, mut watch) = (BasisPoints::new(5_000)?, Afterwards::Ask, BAKE);
    fields.set("share", &mut share, problems, percentage);
    fields.set("then", &mut then, problems, afterwards);
    fields.set("bake", &mut watch, problems, duration(HOLD_BOUNDS));
    if let (BasisPoints::ALL, Some(at)) = (share, fields.key_at("share")) {
        let mistake = Mistake::new(Code::OutOfRange, at, "with 100 % there is nobody left to compare with");
        problems.add(mistake.help("write a share below 100%, such as `share: 50%`"));
    }
    let pins = fields.read("match", problems, matches).unwrap_or_default();
    let sticky = fields.required("by", "by: visitor", problems, sticky);
    let least = Duration::from_secs(1);
    let lasts = fields.required("for", "for: 7d", problems, duration(least..=*HOLD_BOUNDS.end()));
    Some(Strategy::Ab { share, sticky: sticky?, pins, lasts: lasts?, then, watch })
}

fn afterwards(value: &Value<'_>, problems: &mut Problems) -> Option<Afterwards> {
    let help = "write `ask`, `promote` or `end`";
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("ask") => Some(Afterwards::Ask),
        Some("promote") => Some(Afterwards::Promote),
        Some("end") => Some(Afterwards::End),
        Some(_) => {
            value.bad("`then` takes `ask`, `promote` or `end`", help, problems);
            None
        }
        None => {
            value.wrong_type("`ask`, `promote` or `end`", help, problems);
            None
        }
    }
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
