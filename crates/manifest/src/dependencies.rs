//! `dependencies`: what replicas reach through evenkeel, and what is done while that fails.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::breaker::{Policy, Share, Span};
use evenkeel_core::dependency::{
    ALTERNATIVES_MAX, Cache, DEPENDENCIES_MAX, Dependency, Fixed, Kind, Ping, Retry, Timeouts, Upstream, variable,
};
use evenkeel_core::ids::BasisPoints;
use evenkeel_core::measure::{self, Secret};
use evenkeel_core::outage::OnOutage;

use crate::checks::secrets;
use crate::fields::{Fields, Section, Value};
use crate::gates::truth;
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, duration, label, number, percentage, short, size, text, url_path, written};
use crate::yaml::{self, Key, Node};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const WAIT: RangeInclusive<Duration> = MS..=HOUR;
const CACHE_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 30;
/// The longest answer that can be written into a spec.
const FIXED_BYTES_MAX: usize = 64 << 10;

pub(crate) static DEPENDENCY: Section = Section {
    what: "a dependency",
    keys: &[
        "url",
        "headers",
        "authorities",
        "secrets",
        "password",
        "tls",
        "http2",
        "timeouts",
        "concurrency",
        "retry",
        "breaker",
        "alternatives",
        "cache",
        "fixed",
        "ping",
    ],
    elsewhere: &[
        ("host", "write `url: tcp://host:port`"),
        ("address", "write `url: tcp://host:port`"),
        ("port", "write it into the `url`"),
        ("kind", "leave it out: the `url` begins with `http://`, `https://`, `postgres://`, `redis://` or `tcp://`"),
        ("type", "leave it out: the `url` begins with `http://`, `https://`, `postgres://`, `redis://` or `tcp://`"),
        ("timeout", "write `timeouts: { total: 30s }`"),
        ("ssl", "write `tls: on`"),
        ("sslmode", "write `tls: on`"),
        ("fallback", "write `alternatives`, `cache` or `fixed`: they are tried in this order"),
        ("circuitBreaker", "write `breaker`"),
        ("bulkhead", "write `concurrency: 100`"),
        ("replicas", "write `alternatives: [{ url: postgres://replica/app }]`"),
    ],
};

pub(crate) static ALTERNATIVE: Section = Section {
    what: "an alternative",
    keys: &["url", "headers", "authorities", "json"],
    elsewhere: &[("model", "write `json: { model: NAME }`")],
};

pub(crate) static TIMEOUTS: Section = Section {
    what: "the mapping `timeouts`",
    keys: &["connect", "firstByte", "idle", "total"],
    elsewhere: &[("read", "write `idle`"), ("request", "write `total`")],
};

pub(crate) static RETRIES: Section = Section {
    what: "the mapping `retry` of a dependency",
    keys: &["attempts", "base", "cap", "budget", "idempotent"],
    elsewhere: &[("maxAttempts", "write `attempts`"), ("retries", "write `attempts`, the first try included")],
};

pub(crate) static BREAKER: Section = Section {
    what: "the mapping `breaker`",
    keys: &[
        "failures",
        "failureRate",
        "slowRate",
        "slow",
        "over",
        "minimumCalls",
        "open",
        "growth",
        "openLimit",
        "jitter",
        "probes",
        "successes",
        "probeLimit",
        "cooldownLimit",
    ],
    elsewhere: &[
        ("failureRateThreshold", "write `failureRate: 50%`"),
        ("slowCallRateThreshold", "write `slowRate: 50%`"),
        ("slowCallDurationThreshold", "write `slow: 2s`"),
        ("slidingWindowSize", "write `over: 100` (calls) or `over: 30s`"),
        ("minimumNumberOfCalls", "write `minimumCalls`"),
        ("waitDurationInOpenState", "write `open: 60s`"),
        ("permittedNumberOfCallsInHalfOpenState", "write `probes`, how many at once, and `successes`, how many in all"),
        ("failureThreshold", "write `failures: 5`"),
        ("recoveryTimeout", "write `open: 60s`"),
    ],
};

pub(crate) static CACHE: Section = Section {
    what: "the mapping `cache`",
    keys: &["entries", "size", "ttl", "fresh", "post", "postHeaders"],
    elsewhere: &[("maxSize", "write `size: 64MiB`"), ("staleIfError", "write `ttl`")],
};

pub(crate) static FIXED: Section = Section {
    what: "the mapping `fixed`",
    keys: &["status", "contentType", "body"],
    elsewhere: &[("text", "write `body`")],
};

pub(crate) static PING: Section = Section {
    what: "the mapping `ping`",
    keys: &["every", "timeout"],
    elsewhere: &[("interval", "write `every: 2s`"), ("query", "leave it out: PostgreSQL runs `SELECT 1`")],
};

/// Reads what follows when a new release does not reach what it depends on.
pub(crate) fn on_outage(value: &Value<'_>, problems: &mut Problems) -> Option<OnOutage> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("rollback") => Some(OnOutage::Rollback),
        Some("hold") => Some(OnOutage::Hold),
        Some("tell") => Some(OnOutage::Tell),
        _ => {
            value.wrong_type("`rollback`, `hold` or `tell`", "write `dependencies: rollback`", problems);
            None
        }
    }
}

/// Reads all dependencies of a service.
pub(crate) fn dependencies(value: &Value<'_>, problems: &mut Problems) -> Option<BTreeMap<String, Dependency>> {
    let yaml::Kind::Map(pairs) = &value.node.kind else {
        let help = "write them by name: `dependencies: { openrouter: { url: https://openrouter.ai/api/v1 } }`";
        value.wrong_type("a mapping of names to dependencies", help, problems);
        return None;
    };
    if pairs.len() > DEPENDENCIES_MAX {
        let message = format!("{} has {} entries", value.name, pairs.len());
        let mistake = Mistake::new(Code::OutOfRange, value.at(), message);
        problems.add(mistake.help(format!("write at most {DEPENDENCIES_MAX}")));
        return None;
    }
    let mut read = BTreeMap::new();
    for (key, node) in pairs {
        let name = name(key, problems);
        let value = Value { name: format!("`{}`", short(&key.text)), node };
        let dependency = dependency(&value, problems);
        if let (Some(name), Some(dependency)) = (name, dependency) {
            read.insert(name, dependency);
        }
    }
    Some(read)
}

/// A dependency's name, a DNS label that begins with a letter: a variable is made of it.
fn name(key: &Key, problems: &mut Problems) -> Option<String> {
    let is_name = (1..=40).contains(&key.text.len())
        && key.text.starts_with(|c: char| c.is_ascii_lowercase())
        && !key.text.ends_with('-')
        && key.text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_name {
        let message = format!("`{}` is no name of a dependency", short(&key.text));
        let help = format!(
            "use 1 to 40 lower-case letters, digits and dashes, beginning with a letter: `read-replica` is found at `{}`",
            variable("read-replica")
        );
        problems.add(Mistake::new(Code::BadValue, key.at.clone(), message).help(help));
    }
    is_name.then(|| key.text.clone())
}

fn dependency(value: &Value<'_>, problems: &mut Problems) -> Option<Dependency> {
    // `database: postgres://db/app` is all that many of them need.
    if value.scalar().is_some() {
        let (kind, url) = url(value, problems)?;
        return Some(Dependency::new(kind, url));
    }
    let fields = Fields::open(value, &DEPENDENCY, problems)?;
    let secrets = fields.read("secrets", problems, secrets).unwrap_or_default();
    let place = fields.required("url", "url: https://api.example.com", problems, url);
    let (kind, url) = place.clone().unwrap_or((Kind::Http, "http://unnamed".to_owned()));
    let mut read = Dependency::new(kind, url);
    fields.set("headers", &mut read.at.headers, problems, |value, problems| headers(value, &secrets, problems));
    read.at.authorities = fields.read("authorities", problems, text);
    read.password = fields.read("password", problems, |value, problems| secret_text(value, &secrets, problems));
    fields.set("tls", &mut read.encrypt, problems, |value, problems| {
        switch(value, "write `tls: on`; whom to trust is said by `authorities: ca.pem`", problems)
    });
    fields.set("http2", &mut read.http2, problems, |value, problems| switch(value, "write `http2: on`", problems));
    fields.set("timeouts", &mut read.timeouts, problems, |value, problems| {
        timeouts(value, Dependency::new(kind, "").timeouts, problems)
    });
    fields.set("concurrency", &mut read.concurrency, problems, count(1..=10_000));
    fields.set("retry", &mut read.retry, problems, retry);
    fields.set("breaker", &mut read.breaker, problems, |value, problems| breaker(value, kind, problems));
    fields.set("alternatives", &mut read.alternatives, problems, |value, problems| {
        alternatives(value, kind, &secrets, problems)
    });
    read.cache = fields.read("cache", problems, cache).flatten();
    read.fixed = fields.read("fixed", problems, fixed);
    fields.set("ping", &mut read.ping, problems, ping);
    read.secrets = secrets;
    fits(&fields, kind, problems);
    agreed(&fields, &read, problems);
    encrypted(&fields, &read, problems);
    place.map(|_| read)
}

/// Reads `on` or `off`.
fn switch(value: &Value<'_>, help: &str, problems: &mut Problems) -> Option<bool> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("on") => Some(true),
        Some("off") => Some(false),
        _ => {
            value.wrong_type("`on` or `off`", help, problems);
            None
        }
    }
}

/// Tells what contradicts itself about connections of a database that are encrypted, or are not.
fn encrypted(fields: &Fields<'_>, read: &Dependency, problems: &mut Problems) {
    if read.kind == Kind::Http {
        return;
    }
    let is_rediss = |place: &Upstream| place.url.starts_with("rediss://");
    let is_any = read.encrypt || is_rediss(&read.at) || read.alternatives.iter().any(is_rediss);
    if let Some(at) = fields.key_at("authorities").filter(|_| !is_any) {
        let mistake = Mistake::new(Code::Conflict, at, "`authorities` means nothing where nothing is encrypted");
        problems
            .add(mistake.help("add `tls: on`, or leave it out: what the application encrypts itself, it also checks"));
    }
    let asks = |place: &Upstream| place.url.split_once('?').is_some_and(|(_, options)| options.contains("sslmode="));
    if let Some(at) = fields.key_at("url").filter(|_| read.encrypt && asks(&read.at)) {
        let mistake = Mistake::new(Code::Conflict, at, "`sslmode` contradicts `tls: on`");
        problems.add(
            mistake.help(
                "leave `sslmode` out: evenkeel encrypts and checks, and the application's own way to it is plain",
            ),
        );
    }
}

/// Over TLS both sides agree on what is spoken, so that nothing is to be said about it.
fn agreed(fields: &Fields<'_>, read: &Dependency, problems: &mut Problems) {
    let is_https = |place: &Upstream| place.url.starts_with("https://");
    let is_all = is_https(&read.at) && read.alternatives.iter().all(is_https);
    if let Some(at) = fields.key_at("http2").filter(|_| is_all) {
        let mistake = Mistake::new(Code::Conflict, at, "`http2` means nothing where the URL begins with `https://`");
        problems.add(mistake.help("leave it out: HTTP/2 is spoken where the dependency agrees to it"));
    }
}

/// Tells which keys mean nothing for what is spoken.
fn fits(fields: &Fields<'_>, kind: Kind, problems: &mut Problems) {
    let (keys, why): (&[&str], _) = match kind {
        Kind::Http => (
            &["ping", "password", "tls"],
            "an HTTP dependency is judged by its calls, has `headers`, and is encrypted where its URL begins with `https://`",
        ),
        Kind::Postgres | Kind::Redis => (
            &["headers", "http2", "retry", "cache", "fixed"],
            "connections are passed on byte by byte: only calls over HTTP are repeated, kept or answered",
        ),
        Kind::Tcp => (
            &["headers", "http2", "retry", "cache", "fixed", "password"],
            "connections are passed on byte by byte: only calls over HTTP are repeated, kept or answered",
        ),
    };
    for key in keys {
        if let Some(at) = fields.key_at(key) {
            let message = format!("`{key}` means nothing for {} dependency", article(kind));
            problems.add(Mistake::new(Code::Conflict, at, message).help(format!("leave it out: {why}")));
        }
    }
}

fn article(kind: Kind) -> String {
    match kind {
        Kind::Http => "an `http`".into(),
        Kind::Postgres | Kind::Redis | Kind::Tcp => format!("a `{}`", kind.name()),
    }
}

/// Reads where a dependency is, and what is spoken there.
fn url(value: &Value<'_>, problems: &mut Problems) -> Option<(Kind, String)> {
    const HELP: &str =
        "write `https://host/path`, `postgres://user@host:5432/name`, `redis://host:6379` or `tcp://host:port`";
    let text = text(value, problems)?;
    let Some((scheme, rest)) = text.split_once("://") else {
        value.bad(format!("{}: `{}` is no URL", value.name, short(&text)), HELP, problems);
        return None;
    };
    let kind = match scheme {
        "http" | "https" => Kind::Http,
        "postgres" | "postgresql" => Kind::Postgres,
        "redis" | "rediss" => Kind::Redis,
        "tcp" => Kind::Tcp,
        _ => {
            value.bad(format!("{}: `{}://` is not spoken", value.name, short(scheme)), HELP, problems);
            return None;
        }
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| user.contains(':')) {
        let help = match kind {
            Kind::Http => "write it as a header: `headers: { Authorization: \"Basic {{secret.login}}\" }`",
            Kind::Postgres | Kind::Redis | Kind::Tcp => {
                "write `password: \"{{secret.db}}\"` and say where it is: `secrets: { db: { file: db.password } }`"
            }
        };
        value.bad(format!("{}: a password does not stand in a spec", value.name), help, problems);
        return None;
    }
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map(|(_, port)| port);
    let is_port = port.map_or(kind != Kind::Tcp, |port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_host = !host.is_empty() && !host.starts_with(':') && rest.chars().all(|c| c.is_ascii_graphic());
    let is_plain = match kind {
        Kind::Http => !rest.contains(['#', '?']) && user.is_none(),
        Kind::Tcp => rest.trim_end_matches('/') == host,
        Kind::Postgres | Kind::Redis => !rest.contains('#'),
    };
    if !is_port || !is_host || !is_plain || text.contains("{{") {
        value.bad(format!("{}: `{}` cannot be called", value.name, short(&text)), HELP, problems);
        return None;
    }
    Some((kind, text))
}

fn headers(
    value: &Value<'_>,
    secrets: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> Option<Vec<(String, String)>> {
    let yaml::Kind::Map(pairs) = &value.node.kind else {
        let help = "write `headers: { Authorization: \"Bearer {{secret.key}}\" }`";
        value.wrong_type("a mapping", help, problems);
        return None;
    };
    let read: Vec<_> = pairs.iter().map(|(key, node)| header(key, node, secrets, problems)).collect();
    read.into_iter().collect()
}

fn header(
    key: &Key,
    node: &Node,
    secrets: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> Option<(String, String)> {
    let name = key.text.to_ascii_lowercase();
    let is_token =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let is_ours = ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer"];
    if !is_token || is_ours.contains(&name.as_str()) {
        let message = format!("`{}` cannot be set", short(&key.text));
        let help = "name a header of the dependency's own, such as `Authorization`";
        problems.add(Mistake::new(Code::BadValue, key.at.clone(), message).help(help));
        return None;
    }
    let value = Value { name: format!("`{}`", short(&key.text)), node };
    Some((name, secret_text(&value, secrets, problems)?))
}

/// A text in which secrets may be named, and nothing else.
fn secret_text(value: &Value<'_>, secrets: &BTreeMap<String, Secret>, problems: &mut Problems) -> Option<String> {
    let text = text(value, problems)?;
    let mut unknown = None;
    let _ = measure::fill(&text, &mut |name: &str| -> Result<Option<String>, ()> {
        if !name.strip_prefix("secret.").is_some_and(|name| secrets.contains_key(name)) {
            unknown = Some(name.to_owned());
        }
        Ok(None)
    });
    if let Some(name) = unknown {
        let message = format!("nothing is known to fill in for `{{{{{}}}}}`", short(&name));
        let help = match name.strip_prefix("secret.") {
            Some(name) => format!("say where it is: `secrets: {{ {name}: {{ file: PATH }} }}`"),
            None => "here only secrets can be filled in: `{{secret.NAME}}`".to_owned(),
        };
        problems.add(Mistake::new(Code::UnknownPlaceholder, value.at(), message).help(help));
        return None;
    }
    if text.bytes().any(|b| b.is_ascii_control()) {
        value.bad(format!("{} holds a control character", value.name), "leave it out", problems);
        return None;
    }
    Some(text)
}

fn alternatives(
    value: &Value<'_>,
    kind: Kind,
    secrets: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> Option<Vec<Upstream>> {
    let items = value.items("write one a line: `- { url: https://other.example.com }`", problems)?;
    if items.len() > ALTERNATIVES_MAX {
        let message = format!("{} has {} items", value.name, items.len());
        let mistake = Mistake::new(Code::OutOfRange, value.at(), message);
        problems.add(mistake.help(format!("write at most {ALTERNATIVES_MAX}")));
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| alternative(item, kind, secrets, problems)).collect();
    read.into_iter().collect()
}

fn alternative(
    value: &Value<'_>,
    kind: Kind,
    secrets: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> Option<Upstream> {
    let fields = Fields::open(value, &ALTERNATIVE, problems)?;
    let place = fields.required("url", "url: https://other.example.com", problems, url);
    if let (Some((other, _)), Some(at)) = (place.as_ref().filter(|(other, _)| *other != kind), fields.key_at("url")) {
        let message = format!("the alternative speaks `{}`, and the dependency `{}`", other.name(), kind.name());
        let help = "an application that speaks one cannot go on in the other: name a place that speaks the same";
        problems.add(Mistake::new(Code::Conflict, at, message).help(help));
    }
    let mut upstream = Upstream::new(place?.1);
    fields.set("headers", &mut upstream.headers, problems, |value, problems| headers(value, secrets, problems));
    upstream.authorities = fields.read("authorities", problems, text);
    fields.set("json", &mut upstream.json, problems, texts);
    for key in ["headers", "json"] {
        if let Some(at) = fields.key_at(key).filter(|_| kind != Kind::Http) {
            let message = format!("`{key}` means nothing for {} dependency", article(kind));
            problems.add(Mistake::new(Code::Conflict, at, message).help("leave it out"));
        }
    }
    Some(upstream)
}

fn texts(value: &Value<'_>, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let yaml::Kind::Map(pairs) = &value.node.kind else {
        value.wrong_type("a mapping", "write `json: { model: NAME }`", problems);
        return None;
    };
    let pair = |(key, node): &(Key, std::rc::Rc<Node>)| {
        let value = Value { name: format!("`{}`", short(&key.text)), node };
        Some((key.text.clone(), text(&value, problems)?))
    };
    pairs.iter().map(pair).collect()
}

fn timeouts(value: &Value<'_>, default: Timeouts, problems: &mut Problems) -> Option<Timeouts> {
    let fields = Fields::open(value, &TIMEOUTS, problems)?;
    let mut read = default;
    fields.set("connect", &mut read.connect, problems, duration(WAIT));
    fields.set("firstByte", &mut read.first_byte, problems, duration(WAIT));
    fields.set("idle", &mut read.idle, problems, duration(MS..=DAY));
    fields.set("total", &mut read.total, problems, duration(WAIT));
    Some(read)
}

fn retry(value: &Value<'_>, problems: &mut Problems) -> Option<Retry> {
    let mut read = Retry::default();
    if is_off(value) {
        read.attempts = 1;
        return Some(read);
    }
    let fields = Fields::open(value, &RETRIES, problems)?;
    fields.set("attempts", &mut read.attempts, problems, count(1..=10));
    fields.set("base", &mut read.base, problems, duration(MS..=60 * SECOND));
    fields.set("cap", &mut read.cap, problems, duration(MS..=60 * SECOND));
    fields.set("budget", &mut read.budget_percent, problems, |value, problems| {
        percentage(value, problems).map(|share| u32::from(share.get()).div_ceil(100))
    });
    fields.set("idempotent", &mut read.idempotent, problems, paths);
    Some(read)
}

fn paths(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let items = value.items("write a list of paths: `[/search]`", problems)?;
    items.iter().map(|item| url_path(item, problems)).collect()
}

fn is_off(value: &Value<'_>) -> bool {
    value.scalar().is_some_and(|scalar| scalar.text == "off")
}

fn breaker(value: &Value<'_>, kind: Kind, problems: &mut Problems) -> Option<Policy> {
    let fields = Fields::open(value, &BREAKER, problems)?;
    let mut read = Dependency::new(kind, "").breaker;
    if let Some(failures) = fields.read("failures", problems, |value, problems| {
        if is_off(value) { Some(None) } else { count(1..=1_000)(value, problems).map(Some) }
    }) {
        read.trip.in_a_row = failures;
    }
    read.trip.failing = fields.read("failureRate", problems, share);
    let slow_rate = fields.read("slowRate", problems, share);
    let slow = fields.read("slow", problems, duration(WAIT));
    match (slow_rate, slow) {
        (None, Some(slow)) => read.trip.slow = Share::percent(100).map(|all| (all, slow)),
        (Some(rate), Some(slow)) => read.trip.slow = Some((rate, slow)),
        (Some(_), None) if fields.key_at("slow").is_none() => {
            let mistake = Mistake::new(Code::MissingKey, fields.at(), "nothing says which calls are slow");
            problems.add(mistake.help("add `slow: 2s`"));
        }
        (Some(_) | None, None) => {}
    }
    fields.set("over", &mut read.trip.over, problems, over);
    if let (Span::Calls(calls), None) = (read.trip.over, fields.key_at("minimumCalls")) {
        read.trip.minimum_calls = read.trip.minimum_calls.min(calls);
    }
    fields.set("minimumCalls", &mut read.trip.minimum_calls, problems, count(1..=10_000));
    fields.set("open", &mut read.open, problems, duration(MS..=DAY));
    read.open_limit = read.open_limit.max(read.open);
    fields.set("growth", &mut read.growth_percent, problems, |value, problems| {
        percent_number(value, 100..=1_000, problems)
    });
    fields.set("openLimit", &mut read.open_limit, problems, duration(MS..=DAY));
    fields
        .set("jitter", &mut read.jitter_percent, problems, |value, problems| percent_number(value, 0..=100, problems));
    fields.set("probes", &mut read.probes, problems, count(1..=100));
    fields.set("successes", &mut read.successes, problems, count(1..=100));
    fields.set("probeLimit", &mut read.probe_limit, problems, duration(WAIT));
    fields.set("cooldownLimit", &mut read.cooldown_limit, problems, duration(Duration::ZERO..=DAY));
    for bad in read.check().err().unwrap_or_default() {
        let message = format!("this breaker cannot work: {bad}");
        problems.add(Mistake::new(Code::Conflict, fields.at(), message).help("change what is named"));
    }
    Some(read)
}

fn share(value: &Value<'_>, problems: &mut Problems) -> Option<Share> {
    let read: BasisPoints = percentage(value, problems)?;
    let share = u8::try_from(read.get() / 100).ok().filter(|_| read.get().is_multiple_of(100)).and_then(Share::percent);
    if share.is_none() {
        value.bad(format!("{}: whole percents, please", value.name), "write 1% to 100%", problems);
    }
    share
}

/// A number of percent that may be above a hundred: `200%`.
fn percent_number(value: &Value<'_>, bounds: RangeInclusive<u32>, problems: &mut Problems) -> Option<u32> {
    let text = written(value, problems)?;
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    let number = number.filter(|number| bounds.contains(number));
    if number.is_none() {
        let (low, high) = (bounds.start(), bounds.end());
        let help = format!("write a whole percentage from {low}% to {high}%");
        value.bad(format!("{}: `{}` cannot be used", value.name, short(&text)), help, problems);
    }
    number
}

fn over(value: &Value<'_>, problems: &mut Problems) -> Option<Span> {
    let is_count = value.scalar().is_some_and(|scalar| scalar.text.bytes().all(|b| b.is_ascii_digit()));
    if is_count {
        return count(1..=10_000)(value, problems).map(Span::Calls);
    }
    duration(SECOND..=HOUR)(value, problems).map(Span::Time)
}

fn cache(value: &Value<'_>, problems: &mut Problems) -> Option<Option<Cache>> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("on") => return Some(Some(Cache::default())),
        Some("off") => return Some(None),
        Some(_) => {
            value.bad("`cache` takes `on` or `off`", "write `on`, `off`, or `{ ttl: 1h }`", problems);
            return None;
        }
        None => {}
    }
    let fields = Fields::open(value, &CACHE, problems)?;
    let mut read = Cache::default();
    if let Some(entries) = fields.read("entries", problems, number(1..=1_000_000)) {
        read.entries = usize::try_from(entries).unwrap_or(read.entries);
    }
    fields.set("size", &mut read.bytes, problems, size(CACHE_BYTES));
    fields.set("ttl", &mut read.ttl, problems, duration(SECOND..=30 * DAY));
    fields.set("fresh", &mut read.fresh, problems, truth);
    fields.set("post", &mut read.post, problems, paths);
    fields.set("postHeaders", &mut read.post_headers, problems, |value, problems| {
        let items = value.items("write a list of headers: `[accept-language]`", problems)?;
        items.iter().map(|item| label(item, problems)).collect()
    });
    if let Some(at) = fields.key_at("postHeaders").filter(|_| read.post.is_empty()) {
        let mistake = Mistake::new(Code::Conflict, at, "`postHeaders` means nothing without `post`");
        problems.add(mistake.help("add `post: [/path]`, or leave it out"));
    }
    Some(Some(read))
}

fn fixed(value: &Value<'_>, problems: &mut Problems) -> Option<Fixed> {
    let fields = Fields::open(value, &FIXED, problems)?;
    let mut read = Fixed { status: 200, content_type: "application/json".into(), body: String::new() };
    if let Some(status) = fields.read("status", problems, number(200..=599)) {
        read.status = u16::try_from(status).unwrap_or(read.status);
    }
    fields.set("contentType", &mut read.content_type, problems, |value, problems| {
        let content_type = text(value, problems)?;
        if content_type.is_empty() || content_type.contains(|c: char| !(c.is_ascii_graphic() || c == ' ')) {
            value.bad(format!("{} cannot be sent", value.name), "write `application/json`", problems);
            return None;
        }
        Some(content_type)
    });
    let body = fields.required("body", "body: '{\"answer\": null}'", problems, text);
    if body.as_ref().is_some_and(|body| body.len() > FIXED_BYTES_MAX) {
        value.bad(format!("the body has more than {FIXED_BYTES_MAX} bytes"), "write a shorter one", problems);
    }
    Some(Fixed { body: body?, ..read })
}

fn ping(value: &Value<'_>, problems: &mut Problems) -> Option<Option<Ping>> {
    if is_off(value) {
        return Some(None);
    }
    let fields = Fields::open(value, &PING, problems)?;
    let mut read = Ping::default();
    fields.set("every", &mut read.every, problems, duration(100 * MS..=HOUR));
    fields.set("timeout", &mut read.timeout, problems, duration(10 * MS..=60 * SECOND));
    Some(Some(read))
}
