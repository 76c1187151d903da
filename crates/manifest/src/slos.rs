//! `slos`: what is promised of a service over weeks.

use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_analysis::slo::{BadBy, Promise};
use evenkeel_core::slo::{Slo, WhenSpent};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, duration, label};

const DAY: Duration = Duration::from_secs(86_400);
const WINDOW_BOUNDS: RangeInclusive<Duration> = DAY..=Duration::from_secs(90 * 86_400);
const LATENCY_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
/// Promises of one service.
const SLOS_MAX: usize = 10;
const HELP: &str = "write `slos: [{ name: availability, availability: 99.9%, over: 30d }]`";

pub(crate) static SLO: Section = Section {
    what: "an item of `slos`",
    keys: &["name", "availability", "latency", "over", "whenSpent"],
    elsewhere: &[
        ("objective", "write `availability: 99.9%`, or `latency: { within: 300ms, share: 99% }`"),
        ("target", "write `availability: 99.9%`, or `latency: { within: 300ms, share: 99% }`"),
        ("success", "write `availability: 99.9%`"),
        ("window", "write `over: 30d`"),
        ("timeWindow", "write `over: 30d`"),
    ],
};
pub(crate) static LATENCY: Section = Section {
    what: "the mapping `latency` of a promise",
    keys: &["within", "share"],
    elsewhere: &[("threshold", "write `within: 300ms`"), ("objective", "write `share: 99%`")],
};
pub(crate) static WHEN_SPENT: Section =
    Section { what: "the mapping `whenSpent`", keys: &["slow"], elsewhere: &[("refuse", "write `whenSpent: refuse`")] };

/// Reads `slos`.
pub(crate) fn slos(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Slo>> {
    let items = value.items(HELP, problems)?;
    if items.len() > SLOS_MAX {
        value.bad(
            format!("{} promises are too many", items.len()),
            format!("at most {SLOS_MAX} are possible"),
            problems,
        );
    }
    let mut read: Vec<Slo> = Vec::new();
    for item in &items {
        let Some(slo) = slo(item, problems) else { continue };
        if read.iter().any(|known| known.name == slo.name) {
            let message = format!("two promises are called `{}`", slo.name);
            problems.add(Mistake::new(Code::Conflict, item.at(), message).help("give each a name of its own"));
        }
        read.push(slo);
    }
    Some(read)
}

fn slo(value: &Value<'_>, problems: &mut Problems) -> Option<Slo> {
    let fields = Fields::open(value, &SLO, problems)?;
    fields.only_one_of(&["availability", "latency"], "write two promises", problems);
    if fields.key_at("availability").is_none() && fields.key_at("latency").is_none() && !fields.has_unknown() {
        let mistake = Mistake::new(Code::MissingKey, value.at(), "a promise needs `availability` or `latency`");
        problems.add(mistake.help("add `availability: 99.9%`, or `latency: { within: 300ms, share: 99% }`"));
    }
    let availability = fields.read("availability", problems, share);
    let latency = fields.read("latency", problems, latency);
    let mut window = 30 * DAY;
    fields.set("over", &mut window, problems, duration(WINDOW_BOUNDS));
    let mut when_spent = WhenSpent::default();
    fields.set("whenSpent", &mut when_spent, problems, spent);
    let default = if latency.is_some() { "latency" } else { "availability" };
    let name = fields.read("name", problems, label).unwrap_or_else(|| default.to_owned());
    let (bad, objective) = latency.or(availability.map(|objective| (BadBy::Failing, objective)))?;
    Some(Slo { name, promise: Promise { bad, objective, window }, when_spent })
}

fn latency(value: &Value<'_>, problems: &mut Problems) -> Option<(BadBy, f64)> {
    let fields = Fields::open(value, &LATENCY, problems)?;
    let within = fields.required("within", "within: 300ms", problems, duration(LATENCY_BOUNDS));
    let share = fields.required("share", "share: 99%", problems, share);
    let micros = u64::try_from(within?.as_micros()).unwrap_or(u64::MAX);
    Some((BadBy::SlowerThan(micros), share?))
}

/// A share of requests that are good: `99.9%`, `99.995%`.
fn share(value: &Value<'_>, problems: &mut Problems) -> Option<f64> {
    const HELP: &str = "write a percentage of at least 50 % and below 100 %, such as `99.9%`";
    let text = value.scalar().map(|scalar| scalar.text.trim().to_owned());
    let Some(text) = text else {
        value.wrong_type("a percentage", HELP, problems);
        return None;
    };
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match number {
        Some(percent) if (50.0..=99.9999).contains(&percent) => Some(percent / 100.0),
        Some(_) => {
            value.bad(format!("{}: `{text}` leaves no budget, or too much of one", value.name), HELP, problems);
            None
        }
        None => {
            value.bad(format!("{}: `{text}` is no percentage", value.name), HELP, problems);
            None
        }
    }
}

fn spent(value: &Value<'_>, problems: &mut Problems) -> Option<WhenSpent> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("refuse") => Some(WhenSpent::Refuse),
        Some("slow") => Some(WhenSpent::Slow(3)),
        Some("tell") => Some(WhenSpent::Tell),
        Some(_) => {
            value.wrong_type("`refuse`, `slow` or `tell`", "write `whenSpent: refuse`", problems);
            None
        }
        None => {
            let fields = Fields::open(value, &WHEN_SPENT, problems)?;
            fields.required("slow", "slow: 3", problems, count(2..=100)).map(WhenSpent::Slow)
        }
    }
}
