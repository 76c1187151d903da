//! `limits`: how much of a service one client may have, and how much all of them.

use std::time::Duration;

use evenkeel_core::limit::{LIMITS_MAX, Limit, Per, REQUESTS_MAX, Rate};
use evenkeel_core::route::Route;

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, short, size, text};

const BODY_BYTES_MAX: u64 = 1 << 40;
const AT_ONCE_MAX: u32 = 1_000_000;
const HELP: &str = "write a list: `[{ rate: 100/s }]`, or `[{ path: /upload, body: 10MiB }]`";
const RATE_HELP: &str = "write requests per second, minute or hour: `100/s`, `600/m`, `1000/h`";

pub(crate) static LIMIT: Section = Section {
    what: "a limit",
    keys: &["path", "per", "body", "rate", "burst", "atOnce"],
    elsewhere: &[
        ("maxBodySize", "write `body: 10MiB`"),
        ("clientMaxBodySize", "write `body: 10MiB`"),
        ("requestsPerSecond", "write `rate: 100/s`"),
        ("rps", "write `rate: 100/s`"),
        ("average", "write `rate: 100/s`"),
        ("concurrency", "write `atOnce: 50`"),
        ("maxConnections", "write `atOnce: 50`: requests are counted, not connections"),
        ("by", "write `per: client`, `per: service` or `per: { header: X-Api-Key }`"),
        ("key", "write `per: client`, `per: service` or `per: { header: X-Api-Key }`"),
    ],
};

pub(crate) static PER: Section =
    Section { what: "what requests are counted by", keys: &["header"], elsewhere: &[("cookie", "name a header")] };

/// Reads the limits of a service.
pub(crate) fn limits(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Limit>> {
    let items = value.items(HELP, problems)?;
    if items.len() > LIMITS_MAX {
        value.bad(format!("{} limits", items.len()), format!("write at most {LIMITS_MAX}"), problems);
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| limit(item, problems)).collect();
    read.into_iter().collect()
}

fn limit(value: &Value<'_>, problems: &mut Problems) -> Option<Limit> {
    let fields = Fields::open(value, &LIMIT, problems)?;
    let mut limit = Limit::default();
    fields.set("path", &mut limit.path, problems, path);
    fields.set("per", &mut limit.per, problems, per);
    limit.body = fields.read("body", problems, size(0..=BODY_BYTES_MAX));
    limit.rate = fields.read("rate", problems, rate);
    let burst = fields.read("burst", problems, count(1..=REQUESTS_MAX));
    if let (Some(burst), Some(rate)) = (burst, &mut limit.rate) {
        rate.burst = burst;
    }
    limit.at_once = fields.read("atOnce", problems, count(1..=AT_ONCE_MAX));
    let has = |key| fields.key_at(key);
    if let (Some(at), None) = (has("burst"), has("rate")) {
        let mistake =
            Mistake::new(Code::Conflict, at, "`burst` is how many requests of a `rate` may come at one moment");
        problems.add(mistake.help("write `rate: 100/s` beside it, or leave it out"));
    }
    if ["body", "rate", "burst", "atOnce"].iter().all(|key| has(key).is_none()) && !fields.has_unknown() {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "this limit limits nothing");
        problems.add(mistake.help("add `body`, `rate` or `atOnce`"));
    }
    if let (Some(at), None, None) = (has("per"), has("rate"), has("atOnce")) {
        let mistake = Mistake::new(Code::NotUsed, at, "`per` says whose requests `rate` and `atOnce` count together");
        problems.add(mistake.help("leave it out: `body` is for each request by itself"));
    }
    Some(limit)
}

pub(crate) fn path(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let written = text(value, problems)?;
    let route = written.parse::<Route>().ok().filter(|_| written.starts_with('/'));
    if route.is_none() {
        let help = "write whole segments as clients send them, such as `/api/v2`";
        value.bad(format!("{}: `{}` is no path to begin with", value.name, short(&written)), help, problems);
    }
    route.map(|route| route.path().to_owned())
}

fn per(value: &Value<'_>, problems: &mut Problems) -> Option<Per> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("client") => Some(Per::Client),
        Some("service") => Some(Per::Service),
        Some(_) => {
            value.bad(
                format!("{} takes `client`, `service` or `{{ header: NAME }}`", value.name),
                "write `client` for each address by itself, `service` for all of them together",
                problems,
            );
            None
        }
        None => {
            let fields = Fields::open(value, &PER, problems)?;
            fields.required("header", "header: X-Api-Key", problems, header).map(Per::Header)
        }
    }
}

fn header(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = text(value, problems)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_name) {
        value.bad(format!("{}: `{}` is no name of a header", value.name, short(&name)), "write `X-Api-Key`", problems);
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// At one moment may come what comes in a second, or one request.
fn rate(value: &Value<'_>, problems: &mut Problems) -> Option<Rate> {
    let written = text(value, problems)?;
    let read = || {
        let (requests, unit) = written.split_once('/')?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let digits = requests.bytes().all(|byte| byte.is_ascii_digit());
        let requests: u32 = requests.parse().ok().filter(|_| digits)?;
        let burst = (requests / u32::try_from(seconds).ok()?).max(1);
        let rate = Rate { requests, within: Duration::from_secs(seconds), burst };
        (1..=REQUESTS_MAX).contains(&requests).then_some(rate)
    };
    let rate = read();
    if rate.is_none() {
        value.bad(format!("{}: `{}` is no rate", value.name, short(&written)), RATE_HELP, problems);
    }
    rate
}
