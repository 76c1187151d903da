//! `gates`: what must be open before a rollout begins.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::gate::calendar::{Calendar, Dates, Day, Outside, Window, is_time_zone};
use evenkeel_core::gate::{Check, Gates, Look, Retry, Sign, Within, files};

use crate::checks::webhook_body;
use crate::command;
use crate::fields::{Fields, Section, Value};
use crate::placeholder::VERSION;
use crate::problem::{Code, Mistake, Problems};
use crate::service::env;
use crate::values::{count, duration, short, text, written};
use crate::yaml::{Kind, Node, Sort};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const WITHIN_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
const TIMEOUT_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=HOUR;
/// Longest wait for the answer of a request or a connection when nothing else is said; of a command, five minutes.
const TIMEOUT: Duration = Duration::from_secs(10);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Most approvals, windows, exceptions, checks and patterns each.
const ITEMS_MAX: usize = 50;
const DAYS_HELP: &str = "write days and spans of them: `[mon-thu, sat]`, from mon, tue, wed, thu, fri, sat, sun";
const TIME_HELP: &str = "write hours and minutes in quotes: `\"09:00\"`; the end of a day is \"24:00\"";
const DATES_HELP: &str = "write a day or a span of them in quotes: `\"2026-12-24..2027-01-02\"`";
const ZONE_HELP: &str = "write its name in the IANA database, such as `Europe/Berlin` or `UTC`";
const URL_HELP: &str = "write `http://host:port/path`; for https let a command ask: `command: [curl, -fsS, URL]`";
const TCP_HELP: &str = "write `host:port`, such as `db.internal:5432`";
const LOOKS: &[&str] = &["http", "tcp", "command", "webhook"];

pub(crate) static GATES: Section = Section {
    what: "the mapping `gates`",
    keys: &["approvals", "within", "allowSelf", "windows", "except", "outside", "checks", "skipWhenOnly"],
    elsewhere: &[
        ("approval", "write `approvals: [{ role: release-manager }]`"),
        ("window", "write `windows`, a list"),
        ("dependencies", "write each as one of `checks`: `{ name: database, tcp: \"db:5432\" }`"),
        ("startAt", "write `evenkeel deploy --at TIME`, or a window of that time"),
        ("timeout", "write `within` for approvals, or `timeout` in a check"),
        ("timeZone", "write it in each of `windows`"),
    ],
};

pub(crate) static APPROVAL: Section = Section {
    what: "an approval",
    keys: &["role", "count", "from"],
    elsewhere: &[
        ("users", "write `from: [alice, bob]`"),
        ("by", "write `from: [alice, bob]`"),
        ("within", "write it beside `approvals`: it holds for all of them"),
        ("allowSelf", "write it beside `approvals`: it holds for all of them"),
    ],
};

pub(crate) static WINDOW: Section = Section {
    what: "a window",
    keys: &["days", "from", "to", "timeZone"],
    elsewhere: &[
        ("start", "write `from`"),
        ("end", "write `to`"),
        ("tz", "write `timeZone`"),
        ("except", "write it beside `windows`: it holds for all of them"),
        ("outside", "write it beside `windows`: it holds for all of them"),
    ],
};

pub(crate) static CHECK: Section = Section {
    what: "a check",
    keys: &["name", "http", "status", "contains", "tcp", "command", "env", "webhook", "timeout", "retry"],
    elsewhere: &[
        ("url", "write `http`"),
        ("shell", "no shell runs here: write `command: [program, argument]`"),
        ("run", "write `command: [program, argument]`"),
    ],
};

pub(crate) static WEBHOOK: Section = Section {
    what: "a webhook of a gate",
    keys: &["url", "name", "phase", "metadata"],
    elsewhere: &[
        ("retries", "write `retry` in the check, beside `webhook`"),
        ("insecure", URL_HELP),
        ("timeout", "write it in the check, beside `webhook`"),
    ],
};

pub(crate) static RETRY: Section =
    Section { what: "the mapping `retry`", keys: &["every", "within"], elsewhere: &[("count", "write `within`")] };

/// Reads `gates`; `has_artefact` tells whether files of a release are kept.
pub(crate) fn gates(value: &Value<'_>, has_artefact: bool, problems: &mut Problems) -> Option<Gates> {
    let fields = Fields::open(value, &GATES, problems)?;
    let mut gates = Gates::default();
    fields.set("approvals", &mut gates.approvals, problems, approvals);
    fields.set("within", &mut gates.within, problems, |value, problems| {
        duration(WITHIN_BOUNDS)(value, problems).map(Within)
    });
    fields.set("allowSelf", &mut gates.allow_self, problems, truth);
    gates.calendar = calendar(&fields, problems);
    fields.set("checks", &mut gates.checks, problems, checks);
    fields.set("skipWhenOnly", &mut gates.skip_when_only, problems, |value, problems| {
        if !has_artefact {
            let message = "`skipWhenOnly` compares what is kept of releases, and nothing is kept";
            let mistake = Mistake::new(Code::Conflict, value.at(), message);
            problems.add(mistake.help("name the files of a release in `artefact`, or leave `skipWhenOnly` out"));
        }
        few(value, "write a list of patterns: `[\"docs/**\", \"*.md\"]`", pattern, problems)
    });
    for (key, needed) in
        [("within", "approvals"), ("allowSelf", "approvals"), ("except", "windows"), ("outside", "windows")]
    {
        if let (Some(at), None) = (fields.key_at(key), fields.key_at(needed)) {
            let mistake = Mistake::new(Code::Conflict, at, format!("`{key}` means nothing without `{needed}`"));
            problems.add(mistake.help(format!("add `{needed}`, or leave `{key}` out")));
        }
    }
    Some(gates)
}

/// The items of a list, of which there may not be too many.
fn few<T>(
    value: &Value<'_>,
    help: &str,
    read: fn(&Value<'_>, &mut Problems) -> Option<T>,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    let items = value.items(help, problems)?;
    if items.len() > ITEMS_MAX {
        let mistake = Mistake::new(Code::OutOfRange, value.at(), format!("{} has {} items", value.name, items.len()));
        problems.add(mistake.help(format!("write at most {ITEMS_MAX}")));
        return None;
    }
    Some(items.iter().filter_map(|item| read(item, problems)).collect())
}

pub(crate) fn truth(value: &Value<'_>, problems: &mut Problems) -> Option<bool> {
    match value.scalar() {
        Some(scalar) if scalar.sort == Sort::Bool => Some(scalar.text.eq_ignore_ascii_case("true")),
        Some(_) | None => {
            value.wrong_type("true or false", "write `true` or `false`", problems);
            None
        }
    }
}

fn approvals(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Sign>> {
    let signs = few(value, "write one a line: `- { role: release-manager, from: [alice, bob] }`", approval, problems)?;
    once(value, signs.iter().map(|sign| sign.role.as_str()), "role", problems);
    Some(signs)
}

fn approval(value: &Value<'_>, problems: &mut Problems) -> Option<Sign> {
    let fields = Fields::open(value, &APPROVAL, problems)?;
    let role = fields.required("role", "role: release-manager", problems, word);
    let mut number = 1;
    fields.set("count", &mut number, problems, count(1..=20));
    let from = fields
        .read("from", problems, |value, problems| few(value, "write a list of names: `[alice, bob]`", word, problems));
    if let (Some(from), Some(at)) = (&from, fields.key_at("count"))
        && from.iter().collect::<BTreeSet<_>>().len() < number as usize
    {
        let message = format!("{number} of {} people cannot approve", from.len());
        problems.add(Mistake::new(Code::OutOfRange, at, message).help("lower `count`, or name more people in `from`"));
    }
    Some(Sign { role: role?, count: number, from: from.unwrap_or_default() })
}

/// A name without spaces: of a role, a person, a check.
fn word(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let word = written(value, problems)?;
    if word.is_empty() || word.len() > 64 || word.contains(|c: char| !c.is_ascii_graphic()) {
        let help = "use 1 to 64 letters, digits and signs, without spaces";
        value.bad(format!("{}: `{}` is no name", value.name, short(&word)), help, problems);
        return None;
    }
    Some(word)
}

/// Tells a name that is given twice.
fn once<'a>(value: &Value<'_>, names: impl Iterator<Item = &'a str>, what: &str, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for name in names.filter(|name| !seen.insert(*name)) {
        let help = format!("give each its own {what}");
        value.bad(format!("the {what} `{}` is there twice", short(name)), help, problems);
    }
}

fn calendar(fields: &Fields<'_>, problems: &mut Problems) -> Option<Calendar> {
    let windows = fields.read("windows", problems, |value, problems| {
        let help = "write one a line: `- { days: [mon-thu], from: \"09:00\", to: \"16:00\", timeZone: Europe/Berlin }`";
        few(value, help, window, problems)
    });
    let except = fields.read("except", problems, |value, problems| few(value, DATES_HELP, dates, problems));
    let mut outside = Outside::Wait;
    fields.set("outside", &mut outside, problems, |value, problems| {
        match value.scalar().map(|scalar| scalar.text.as_str()) {
            Some("wait") => Some(Outside::Wait),
            Some("refuse") => Some(Outside::Refuse),
            Some(_) | None => {
                value.bad("`outside` takes `wait` or `refuse`", "write `outside: wait`, the default", problems);
                None
            }
        }
    });
    Some(Calendar { windows: windows?, except: except.unwrap_or_default(), outside })
}

fn window(value: &Value<'_>, problems: &mut Problems) -> Option<Window> {
    let fields = Fields::open(value, &WINDOW, problems)?;
    let all = || Day::WEEK.into_iter().collect();
    let days = fields.read("days", problems, days);
    let (mut from, mut to) = (0, 24 * 60);
    fields.set("from", &mut from, problems, |value, problems| time(value, 0..=24 * 60 - 1, problems));
    fields.set("to", &mut to, problems, |value, problems| time(value, 1..=24 * 60, problems));
    if let (true, Some(at)) = (from == to, fields.key_at("to")) {
        let mistake = Mistake::new(Code::BadValue, at, "`from` and `to` are the same time");
        problems.add(mistake.help("leave both out for the whole day; an earlier `to` is on the next day"));
    }
    let time_zone = fields.required("timeZone", "timeZone: Europe/Berlin", problems, |value, problems| {
        let zone = text(value, problems)?;
        if !is_time_zone(&zone) {
            value.bad(format!("there is no time zone `{}`", short(&zone)), ZONE_HELP, problems);
            return None;
        }
        Some(zone)
    });
    Some(Window { days: days.unwrap_or_else(all), from, to, time_zone: time_zone? })
}

fn days(value: &Value<'_>, problems: &mut Problems) -> Option<BTreeSet<Day>> {
    let mut days = BTreeSet::new();
    for span in few(value, DAYS_HELP, day_span, problems)? {
        days.extend(span);
    }
    Some(days)
}

/// `mon`, `mon-thu`, `fri-mon`.
fn day_span(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Day>> {
    let written = text(value, problems)?;
    let (first, last) = written.split_once('-').unwrap_or((&written, &written));
    let place = |name: &str| Day::WEEK.iter().position(|day| day.name() == name.trim().to_ascii_lowercase());
    let (Some(first), Some(last)) = (place(first), place(last)) else {
        value.bad(format!("`{}` is no day of the week", short(&written)), DAYS_HELP, problems);
        return None;
    };
    let length = (last + 7 - first) % 7;
    Some((0..=length).map(|n| Day::WEEK[(first + n) % 7]).collect())
}

/// A time of day in minutes.
fn time(value: &Value<'_>, bounds: RangeInclusive<u16>, problems: &mut Problems) -> Option<u16> {
    let written = text(value, problems)?;
    let digits = |part: &str| (part.len() == 2).then(|| part.parse::<u16>().ok()).flatten();
    let minutes = written.split_once(':').and_then(|(hours, minutes)| Some((digits(hours)?, digits(minutes)?)));
    let minutes = minutes.filter(|(_, minutes)| *minutes < 60).map(|(hours, minutes)| hours * 60 + minutes);
    let Some(minutes) = minutes.filter(|minutes| bounds.contains(minutes)) else {
        value.bad(format!("{}: `{}` is no time of day", value.name, short(&written)), TIME_HELP, problems);
        return None;
    };
    Some(minutes)
}

fn dates(value: &Value<'_>, problems: &mut Problems) -> Option<Dates> {
    let written = text(value, problems)?;
    let dates = Dates::parse(&written);
    if dates.is_none() {
        value.bad(format!("`{}` is no span of days", short(&written)), DATES_HELP, problems);
    }
    dates
}

fn checks(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Check>> {
    let checks = few(value, "write one a line: `- { name: database, tcp: \"db.internal:5432\" }`", check, problems)?;
    once(value, checks.iter().map(|check| check.name.as_str()), "name", problems);
    Some(checks)
}

fn check(value: &Value<'_>, problems: &mut Problems) -> Option<Check> {
    let fields = Fields::open(value, &CHECK, problems)?;
    let name = fields.required("name", "name: database", problems, word);
    fields.only_one_of(LOOKS, "a check looks at one thing: make two of it", problems);
    if !fields.has_unknown() && LOOKS.iter().all(|key| fields.key_at(key).is_none()) {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "this check looks at nothing");
        problems.add(
            mistake.help("add `http: URL`, `tcp: \"host:port\"`, `webhook: URL` or `command: [program, argument]`"),
        );
    }
    let status = fields.read("status", problems, count(100..=599)).and_then(|status| u16::try_from(status).ok());
    let contains = fields.read("contains", problems, text);
    let own_env = fields.read("env", problems, |value, problems| env(value, &[VERSION], problems)).unwrap_or_default();
    let http = fields.read("http", problems, url);
    let tcp = fields.read("tcp", problems, host_and_port);
    let command = fields.read("command", problems, |value, problems| command::words(value, &[VERSION], problems));
    let is_command = fields.key_at("command").is_some();
    for (key, needed) in [("status", "http"), ("contains", "http"), ("env", "command")] {
        if let (Some(at), None) = (fields.key_at(key), fields.key_at(needed)) {
            let mistake = Mistake::new(Code::Conflict, at, format!("`{key}` means nothing without `{needed}`"));
            problems.add(mistake.help(format!("leave `{key}` out, or make it a check of `{needed}`")));
        }
    }
    let mut timeout = if is_command { COMMAND_TIMEOUT } else { TIMEOUT };
    fields.set("timeout", &mut timeout, problems, duration(TIMEOUT_BOUNDS));
    let retry = fields.read("retry", problems, retry);
    let look = http.map(|url| Look::Http { url, status, contains });
    let look = look.or(tcp.map(|address| Look::Tcp { address }));
    let look = look.or(command.map(|command| Look::Command { command, env: own_env }));
    let look = look.or(fields.read("webhook", problems, webhook));
    Some(Check { name: name?, look: look?, timeout, retry })
}

/// A webhook, in whole or as its URL alone.
fn webhook(value: &Value<'_>, problems: &mut Problems) -> Option<Look> {
    if !matches!(value.node.kind, Kind::Map(_)) {
        let none = Node::mapping(value.at(), Vec::new());
        let of = Value { name: value.name.clone(), node: &none };
        let body = webhook_body(&Fields::open(&of, &WEBHOOK, problems)?, problems);
        return Some(Look::Webhook { url: url(value, problems)?, body });
    }
    let fields = Fields::open(value, &WEBHOOK, problems)?;
    let url = fields.required("url", "url: \"http://127.0.0.1:9000/gate\"", problems, url);
    let body = webhook_body(&fields, problems);
    Some(Look::Webhook { url: url?, body })
}

fn retry(value: &Value<'_>, problems: &mut Problems) -> Option<Retry> {
    let fields = Fields::open(value, &RETRY, problems)?;
    let every = fields.required("every", "every: 10s", problems, duration(SECOND..=HOUR));
    let within = fields.required("within", "within: 5m", problems, duration(SECOND..=24 * HOUR));
    Some(Retry { every: every?, within: within? })
}

fn url(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let url = text(value, problems)?;
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_plain = url.bytes().all(|b| b.is_ascii_graphic()) && !url.contains(['#', '@']);
    if authority.is_empty() || !has_port || !is_plain {
        value.bad(format!("{}: `{}` cannot be asked", value.name, short(&url)), URL_HELP, problems);
        return None;
    }
    Some(url)
}

fn host_and_port(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let address = text(value, problems)?;
    let parts =
        address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()));
    if parts.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
        value.bad(format!("{}: `{}` is no address", value.name, short(&address)), TCP_HELP, problems);
        return None;
    }
    Some(address)
}

fn pattern(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let written = text(value, problems)?;
    match files::pattern(&written) {
        Ok(_) => Some(written),
        Err(why) => {
            let help = "write `docs/**` for a folder, `*.md` for names in any folder";
            value.bad(format!("`{}` is no pattern: {why}", short(&written)), help, problems);
            None
        }
    }
}
