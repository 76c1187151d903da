//! `checks`: what is measured again and again while a rollout goes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_analysis::condition::{Condition, Kind as KindOfValue, Rules};
use evenkeel_core::check::{Call, Check};
use evenkeel_core::measure::{self, Access, FileFormat, Login, Measure, Moment, Query, Range, Secret};

use crate::command;
use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, duration, short, text, written};
use crate::yaml::{Kind, Sort};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const INTERVAL_BOUNDS: RangeInclusive<Duration> = SECOND..=DAY;
const DELAY_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);
const TIMEOUT_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);
/// Longest wait for a measurement when nothing else is said; of a query to Prometheus 30 s, as Argo Rollouts has it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const PROMETHEUS_TIMEOUT: Duration = Duration::from_secs(30);
/// Most checks in one place.
const CHECKS_MAX: usize = 50;
const COUNT_MAX: u32 = 1_000_000;
const SOURCES: &[&str] = &["metrics", "prometheus", "http", "command", "file", "webhook"];
/// Where a webhook is told a rollout stands when nothing is said.
const PHASE: &str = "Progressing";
/// Most calls after a rollout.
const CALLS_MAX: usize = 20;
/// Most attempts of one webhook after the first one.
const RETRIES_MAX: u32 = 10;
/// What evenkeel fills in when it measures.
pub(crate) const KNOWN: &[&str] =
    &["service", "environment", "namespace", "deployment", "version", "release", "stable", "stableVersion"];
const CHECKS_HELP: &str = "write one a line: `- { name: hits, metrics: \"sum(rate(hits_total[1m]))\", success: \"result[0] > 0\", interval: 1m }`";

pub(crate) static CHECK: Section = Section {
    what: "a measured check",
    keys: &[
        "name",
        "metrics",
        "prometheus",
        "http",
        "command",
        "file",
        "webhook",
        "success",
        "failure",
        "interval",
        "initialDelay",
        "count",
        "failureLimit",
        "inconclusiveLimit",
        "consecutiveErrorLimit",
        "consecutiveSuccessLimit",
        "dryRun",
        "timeout",
        "from",
        "compat",
        "secrets",
        "pool",
    ],
    elsewhere: &[
        ("successCondition", "write `success`"),
        ("failureCondition", "write `failure`"),
        ("provider", "write `metrics`, `prometheus`, `http`, `command` or `file` in its place"),
        ("query", "write it below `prometheus`, or as `metrics: \"…\"`"),
        ("web", "write `http`"),
        ("startingStep", "write `from: 1`, the number of the step it begins with"),
        (
            "threshold",
            "write `failureLimit: 4`: one more bad measurement and it has failed; checks with the same `pool` share it",
        ),
        ("tcp", "what is asked once, before anything is touched, is a check below `gates`"),
        ("retry", "what is asked once, before anything is touched, is a check below `gates`"),
    ],
};

pub(crate) static METRICS: Section =
    Section { what: "a query of own metrics", keys: &["query", "range"], elsewhere: &[] };

pub(crate) static PROMETHEUS: Section = Section {
    what: "the mapping `prometheus`",
    keys: &["address", "query", "range", "headers", "bearer", "basic", "oauth2", "authorities", "insecure"],
    elsewhere: &[("url", "write `address`"), ("token", "write `bearer`"), ("rangeQuery", "write `range`")],
};

pub(crate) static HTTP: Section = Section {
    what: "the mapping `http`",
    keys: &["url", "method", "body", "jsonPath", "headers", "bearer", "basic", "oauth2", "authorities", "insecure"],
    elsewhere: &[("token", "write `bearer`"), ("jsonpath", "write `jsonPath`")],
};

pub(crate) static FILE: Section = Section {
    what: "the mapping `file`",
    keys: &["path", "jsonPath", "column", "fresh"],
    elsewhere: &[("field", "write `column`")],
};

pub(crate) static RANGE: Section = Section {
    what: "the mapping `range`",
    keys: &["from", "until", "step"],
    elsewhere: &[("start", "write `from: 10m`, so long ago"), ("end", "write `until: 0`, so long ago")],
};

pub(crate) static BASIC: Section =
    Section { what: "the mapping `basic`", keys: &["user", "password"], elsewhere: &[("username", "write `user`")] };

pub(crate) static OAUTH2: Section = Section {
    what: "the mapping `oauth2`",
    keys: &["tokenUrl", "clientId", "clientSecret", "scopes"],
    elsewhere: &[("tokenURL", "write `tokenUrl`")],
};

pub(crate) static WEBHOOK: Section = Section {
    what: "the mapping `webhook`",
    keys: &["url", "name", "phase", "metadata", "retries", "insecure"],
    elsewhere: &[("disableTLS", "write `insecure: true`"), ("timeout", "write it in the check, beside `webhook`")],
};

pub(crate) static SECRET: Section = Section {
    what: "a secret",
    keys: &["env", "file"],
    elsewhere: &[("value", "a secret does not stand in a spec: name where it is, `{ env: NAME }` or `{ file: PATH }`")],
};

pub(crate) static CALL: Section = Section {
    what: "a call afterwards",
    keys: &["name", "http", "command", "webhook", "timeout", "secrets"],
    elsewhere: &[
        ("success", "leave it out: the rollout has ended, and nothing follows from the answer"),
        ("failure", "leave it out: the rollout has ended, and nothing follows from the answer"),
    ],
};

/// Reads what is asked once when a rollout has ended.
pub(crate) fn calls(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Call>> {
    let items =
        value.items("write one a line: `- { name: tell, webhook: \"http://127.0.0.1:9000/done\" }`", problems)?;
    if items.len() > CALLS_MAX {
        let mistake = Mistake::new(Code::OutOfRange, value.at(), format!("{} has {} items", value.name, items.len()));
        problems.add(mistake.help(format!("write at most {CALLS_MAX}")));
        return None;
    }
    items.iter().map(|item| call(item, problems)).collect()
}

/// Reads what is called with every moment of a rollout; a webhook is told the moment in its metadata, as Flagger tells it.
pub(crate) fn event_calls(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Call>> {
    let mut calls = calls(value, problems)?;
    for call in &mut calls {
        if let Query::Webhook { body, .. } = &mut call.measure.query {
            *body = with_moment(body);
        }
    }
    Some(calls)
}

fn with_moment(body: &str) -> String {
    let mut body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    for (key, text) in [("eventMessage", "{{event}}"), ("eventType", "{{eventType}}"), ("timestamp", "{{timestamp}}")] {
        body["metadata"][key] = text.into();
    }
    if body["phase"] == PHASE {
        body["phase"] = "{{outcome}}".into();
    }
    body.to_string()
}

fn call(value: &Value<'_>, problems: &mut Problems) -> Option<Call> {
    let fields = Fields::open(value, &CALL, problems)?;
    let name = fields.required("name", "name: tell", problems, name_of);
    let secrets = fields.read("secrets", problems, secrets).unwrap_or_default();
    let keys = ["http", "command", "webhook"];
    fields.only_one_of(&keys, "a call asks one thing: make two of it", problems);
    if !fields.has_unknown() && keys.iter().all(|key| fields.key_at(key).is_none()) {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "this call asks nobody");
        problems.add(mistake.help("add `webhook: \"http://127.0.0.1:9000/done\"`, `http` or `command`"));
    }
    let http = fields.read("http", problems, |value, problems| http(value, &secrets, problems));
    let command = fields.read("command", problems, program);
    let webhook = fields.read("webhook", problems, |value, problems| webhook(value, &secrets, problems));
    let mut timeout = TIMEOUT;
    fields.set("timeout", &mut timeout, problems, duration(TIMEOUT_BOUNDS));
    let (name, query) = (name?, http.or(command).or(webhook)?);
    Some(Call { name, measure: Measure { timeout: attempts(&query, timeout), query, secrets } })
}

/// The time that all attempts may take, of which one may take so long.
fn attempts(query: &Query, timeout: Duration) -> Duration {
    match query {
        Query::Webhook { retries, .. } => timeout.saturating_mul(retries + 1).saturating_add(measure::waits(*retries)),
        _ => timeout,
    }
}

/// Reads a list of checks. `is_step` tells whether they are of a step: then they must come to an end, and begin with it.
pub(crate) fn checks(value: &Value<'_>, is_step: bool, problems: &mut Problems) -> Option<Vec<Check>> {
    let items = value.items(CHECKS_HELP, problems)?;
    if items.len() > CHECKS_MAX {
        let mistake = Mistake::new(Code::OutOfRange, value.at(), format!("{} has {} items", value.name, items.len()));
        problems.add(mistake.help(format!("write at most {CHECKS_MAX}")));
        return None;
    }
    let read: Vec<Option<Check>> = items.iter().map(|item| check(item, is_step, problems)).collect();
    let mut seen = BTreeSet::new();
    for name in read.iter().flatten().map(|check| check.name.as_str()).filter(|name| !seen.insert(*name)) {
        value.bad(format!("the name `{}` is there twice", short(name)), "give each its own name", problems);
    }
    read.into_iter().collect()
}

fn check(value: &Value<'_>, is_step: bool, problems: &mut Problems) -> Option<Check> {
    let fields = Fields::open(value, &CHECK, problems)?;
    let name = fields.required("name", "name: cache-hits", problems, name_of);
    let secrets = fields.read("secrets", problems, secrets).unwrap_or_default();
    let (query, mut timeout) = source(&fields, &secrets, problems);
    fields.set("timeout", &mut timeout, problems, duration(TIMEOUT_BOUNDS));
    let kind = query.as_ref().map_or(KindOfValue::Any, kind_of);
    let success = condition(&fields, "success", &kind, problems);
    let failure = condition(&fields, "failure", &kind, problems);
    let dry_run = fields.read("dryRun", problems, truth).unwrap_or(false);
    let has_condition = ["success", "failure"].iter().any(|key| fields.key_at(key).is_some() || fields.advises(key));
    if !has_condition && !dry_run {
        tell_no_condition(&fields, problems);
    }
    let timeout = query.as_ref().map_or(timeout, |query| attempts(query, timeout));
    let query = query.unwrap_or(Query::Metrics { query: String::new(), range: None });
    let mut check = Check {
        success,
        failure,
        dry_run,
        ..Check::new(&name.clone().unwrap_or_default(), Measure { query, timeout, secrets })
    };
    check.interval = fields.read("interval", problems, duration(INTERVAL_BOUNDS));
    fields.set("initialDelay", &mut check.initial_delay, problems, duration(DELAY_BOUNDS));
    check.count = fields.read("count", problems, count(1..=COUNT_MAX));
    fields.set("failureLimit", &mut check.failure_limit, problems, failure_limit);
    fields.set("inconclusiveLimit", &mut check.inconclusive_limit, problems, count(0..=COUNT_MAX));
    fields.set("consecutiveErrorLimit", &mut check.consecutive_error_limit, problems, count(0..=COUNT_MAX));
    fields.set("consecutiveSuccessLimit", &mut check.consecutive_success_limit, problems, count(1..=COUNT_MAX));
    fields.set("compat", &mut check.rules, problems, compat);
    check.pool = fields.read("pool", problems, name_of);
    if let (Some(_), None, Some(at)) = (&check.pool, check.failure_limit, fields.key_at("pool")) {
        let mistake = Mistake::new(Code::Conflict, at, "checks of a pool share a `failureLimit`, and there is none");
        problems.add(mistake.help("write a number, such as `failureLimit: 4`"));
    }
    if let Some(from) = fields.read("from", problems, count(1..=100)) {
        check.from_step = from as usize - 1;
    }
    if let (true, Some(at)) = (is_step, fields.key_at("from")) {
        let mistake = Mistake::new(Code::Conflict, at, "`from` means nothing in a step: its checks begin with it");
        problems.add(mistake.help("leave it out, or write the check at the top level"));
    }
    fits(&check, is_step, &|key| fields.key_at(key).unwrap_or_else(|| fields.at()), problems);
    name.map(|_| check)
}

/// Tells of a check without a condition: by Argo's rules it passes, which is said; by ours it is a mistake.
fn tell_no_condition(fields: &Fields<'_>, problems: &mut Problems) {
    let mut hushed = Problems::none("", "");
    let is_argo = fields.read("compat", &mut hushed, compat) == Some(Rules::Argo);
    let code = if is_argo { Code::SaysNothing } else { Code::MissingKey };
    let mistake = Mistake::new(code, fields.at(), "this check has no condition: whatever it measures passes");
    problems.add(
        mistake.help("add `success: \"result[0] >= 0.95\"` or `failure: \"result[0] > 0.05\"`, or `dryRun: true`"),
    );
}

/// Tells what of a check does not fit together, by the rules of Argo's `ValidateMetric`; `at` is where a key stands.
pub(crate) fn fits(check: &Check, is_step: bool, at: &dyn Fn(&str) -> std::ops::Range<usize>, problems: &mut Problems) {
    let mut tell = |key: &str, message: String, help: &str| {
        problems.add(Mistake::new(Code::Conflict, at(key), message).help(help));
    };
    let counted = check.count.unwrap_or(0);
    if counted > 1 && check.interval.is_none() {
        tell("count", "a `count` above 1 needs an `interval`".into(), "add `interval: 1m`");
    }
    if is_step && check.interval.is_some() && check.effective_count().is_none() {
        let message = "this check would go on without end, and its step with it".into();
        tell("interval", message, "add `count: 5`: in a step a check comes to an end");
    }
    if check.failure_limit.is_none() && check.consecutive_success_limit == 0 {
        let message = "without a limit of failures this check can never fail".into();
        tell("failureLimit", message, "add `consecutiveSuccessLimit`, or give `failureLimit` a number");
    }
    let needed = check.failure_limit.unwrap_or(0).saturating_add(check.consecutive_success_limit);
    if counted > 0 && counted < needed {
        let message = format!(
            "of {counted} measurements no more than {counted} can be bad or good in a row, and {needed} are asked for"
        );
        tell("count", message, "raise `count`, or lower `failureLimit` and `consecutiveSuccessLimit`");
    }
    if counted > 0 && counted < check.inconclusive_limit {
        let message = format!("`inconclusiveLimit` is above the {counted} measurements there are");
        tell("inconclusiveLimit", message, "raise `count`, or lower it");
    }
}

fn name_of(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let word = written(value, problems)?;
    if word.is_empty() || word.len() > 64 || word.contains(|c: char| !c.is_ascii_graphic()) {
        let help = "use 1 to 64 letters, digits and signs, without spaces";
        value.bad(format!("{}: `{}` is no name", value.name, short(&word)), help, problems);
        return None;
    }
    Some(word)
}

fn truth(value: &Value<'_>, problems: &mut Problems) -> Option<bool> {
    match value.scalar() {
        Some(scalar) if scalar.sort == Sort::Bool => Some(scalar.text.eq_ignore_ascii_case("true")),
        Some(_) | None => {
            value.wrong_type("true or false", "write `true` or `false`", problems);
            None
        }
    }
}

fn failure_limit(value: &Value<'_>, problems: &mut Problems) -> Option<Option<u32>> {
    if value.scalar().is_some_and(|scalar| scalar.text == "off") {
        return Some(None);
    }
    count(0..=COUNT_MAX)(value, problems).map(Some)
}

fn compat(value: &Value<'_>, problems: &mut Problems) -> Option<Rules> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("argo") => return Some(Rules::Argo),
        Some("flagger") => return Some(Rules::Flagger),
        Some(_) | None => {}
    }
    let help = "write `compat: argo`, or leave it out for evenkeel's own rules";
    value.bad("`compat` takes `argo` or `flagger`", help, problems);
    None
}

/// The kind of value that a source gives, as far as that is known before it is asked.
pub(crate) fn kind_of(query: &Query) -> KindOfValue {
    match query {
        Query::Metrics { query, range } | Query::Prometheus { query, range, .. } => match range {
            Some(_) => KindOfValue::matrix(),
            // Whether it is a number or a list is the query's to say.
            None if query.trim_start().starts_with("scalar(") || query.trim().parse::<f64>().is_ok() => {
                KindOfValue::Float
            }
            None => KindOfValue::numbers(),
        },
        Query::Webhook { .. } => KindOfValue::Bool,
        Query::Http { .. } | Query::Command { .. } | Query::File { .. } => KindOfValue::Any,
    }
}

fn condition(fields: &Fields<'_>, key: &str, kind: &KindOfValue, problems: &mut Problems) -> Option<String> {
    fields.read(key, problems, |value, problems| {
        let written = match value.scalar() {
            // `success: true` is a condition like any other.
            Some(scalar) if scalar.sort == Sort::Bool => scalar.text.clone(),
            _ => text(value, problems)?,
        };
        tell_condition(value, &written, kind, problems).then_some(written)
    })
}

/// Tells what is wrong with a condition; whether nothing is.
pub(crate) fn tell_condition(value: &Value<'_>, written: &str, kind: &KindOfValue, problems: &mut Problems) -> bool {
    match Condition::on(written, kind) {
        Ok(_) => true,
        Err(bad) => {
            let at = value.node.part(problems.text(), bad.at);
            let message = format!("`{}` is no condition: {}", short(written), bad.what);
            problems.add(Mistake::new(Code::BadCondition, at, message).help(bad.help));
            false
        }
    }
}

fn source(
    fields: &Fields<'_>,
    secrets: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> (Option<Query>, Duration) {
    fields.only_one_of(SOURCES, "a check measures one thing: make two of it", problems);
    if !fields.has_unknown() && SOURCES.iter().all(|key| fields.key_at(key).is_none()) {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "this check measures nothing");
        problems.add(mistake.help(
            "add `metrics: \"…\"` (PromQL over what evenkeel counts), `prometheus`, `http`, `command` or `file`",
        ));
    }
    let said = |value: &Value<'_>, problems: &mut Problems| said(value, secrets, problems);
    let metrics = fields.read("metrics", problems, |value, problems| {
        if !matches!(value.node.kind, Kind::Map(_)) {
            return Some(Query::Metrics { query: said(value, problems)?, range: None });
        }
        let fields = Fields::open(value, &METRICS, problems)?;
        let query = fields.required("query", "query: \"sum(rate(hits_total[1m]))\"", problems, said);
        let range = fields.read("range", problems, range);
        Some(Query::Metrics { query: query?, range })
    });
    let prometheus = fields.read("prometheus", problems, |value, problems| {
        let fields = Fields::open(value, &PROMETHEUS, problems)?;
        let address = fields.required("address", "address: \"http://127.0.0.1:9090\"", problems, said);
        let query = fields.required("query", "query: \"sum(rate(hits_total[1m]))\"", problems, said);
        let range = fields.read("range", problems, range);
        let access = access(&fields, secrets, problems);
        check_address(address.as_deref(), &fields, "address", problems);
        Some(Query::Prometheus { address: address?, query: query?, range, access })
    });
    let http = fields.read("http", problems, |value, problems| http(value, secrets, problems));
    let command = fields.read("command", problems, program);
    let webhook = fields.read("webhook", problems, |value, problems| webhook(value, secrets, problems));
    let file = fields.read("file", problems, |value, problems| {
        let fields = Fields::open(value, &FILE, problems)?;
        fields.only_one_of(&["jsonPath", "column"], "the one is of JSON, the other of CSV", problems);
        let path = fields.required("path", "path: quality.json", problems, said);
        let json_path = fields.read("jsonPath", problems, said);
        let column = fields.read("column", problems, said);
        let fresh = fields.read("fresh", problems, duration(INTERVAL_BOUNDS));
        let format = column.map_or(FileFormat::Json { json_path }, |column| FileFormat::Csv { column });
        Some(Query::File { path: path?.into(), format, fresh })
    });
    let timeout = if prometheus.is_some() { PROMETHEUS_TIMEOUT } else { TIMEOUT };
    (metrics.or(prometheus).or(http).or(command).or(file).or(webhook), timeout)
}

fn http(value: &Value<'_>, secrets: &BTreeMap<String, Secret>, problems: &mut Problems) -> Option<Query> {
    let said = |value: &Value<'_>, problems: &mut Problems| said(value, secrets, problems);
    if !matches!(value.node.kind, Kind::Map(_)) {
        let (method, body, json_path, access) = ("GET".to_owned(), None, None, Access::default());
        return Some(Query::Http { method, url: said(value, problems)?, body, json_path, access });
    }
    let fields = Fields::open(value, &HTTP, problems)?;
    let url = fields.required("url", "url: \"http://127.0.0.1:9000/quality\"", problems, said);
    let method = fields.read("method", problems, method).unwrap_or_else(|| "GET".to_owned());
    let body = fields.read("body", problems, said);
    let json_path = fields.read("jsonPath", problems, said);
    let access = access(&fields, secrets, problems);
    check_address(url.as_deref(), &fields, "url", problems);
    Some(Query::Http { method, url: url?, body, json_path, access })
}

fn program(value: &Value<'_>, problems: &mut Problems) -> Option<Query> {
    let command = command::words(value, KNOWN, problems)?;
    Some(Query::Command { command, env: BTreeMap::new(), json_path: None })
}

/// Reads a webhook, in whole or as its URL alone.
fn webhook(value: &Value<'_>, secrets: &BTreeMap<String, Secret>, problems: &mut Problems) -> Option<Query> {
    let said = |value: &Value<'_>, problems: &mut Problems| said(value, secrets, problems);
    if !matches!(value.node.kind, Kind::Map(_)) {
        let url = said(value, problems)?;
        let body = payload(None, PHASE, &[]);
        return Some(Query::Webhook { url, body, retries: 0, access: Access::default() });
    }
    let fields = Fields::open(value, &WEBHOOK, problems)?;
    let url = fields.required("url", "url: \"http://127.0.0.1:9000/gate\"", problems, said);
    check_address(url.as_deref(), &fields, "url", problems);
    let body = webhook_body(&fields, problems);
    let retries = fields.read("retries", problems, count(0..=RETRIES_MAX)).unwrap_or(0);
    let insecure = fields.read("insecure", problems, truth).unwrap_or(false);
    Some(Query::Webhook { url: url?, body, retries, access: Access { insecure, ..Access::default() } })
}

/// What a webhook is sent: name, namespace, phase, checksum and metadata, as Flagger has it.
pub(crate) fn webhook_body(fields: &Fields<'_>, problems: &mut Problems) -> String {
    let name = fields.read("name", problems, written);
    let phase = fields.read("phase", problems, written).unwrap_or_else(|| PHASE.to_owned());
    let metadata = fields.read("metadata", problems, |value, problems| {
        let Kind::Map(pairs) = &value.node.kind else {
            value.wrong_type("a mapping of texts", "write `metadata: { cmd: smoke }`", problems);
            return None;
        };
        let one = |(key, node): &(crate::yaml::Key, std::rc::Rc<crate::yaml::Node>)| {
            let value = Value { name: format!("`{}`", short(&key.text)), node };
            Some((key.text.clone(), written(&value, problems)?))
        };
        Some(pairs.iter().filter_map(one).collect::<Vec<_>>())
    });
    payload(name.as_deref(), &phase, &metadata.unwrap_or_default())
}

fn payload(name: Option<&str>, phase: &str, metadata: &[(String, String)]) -> String {
    let metadata: serde_json::Map<String, serde_json::Value> =
        metadata.iter().map(|(key, text)| (key.clone(), text.clone().into())).collect();
    let mut payload = serde_json::json!({
        "name": name.unwrap_or("{{service}}"),
        "namespace": "{{namespace}}",
        "phase": phase,
        "checksum": "{{release}}",
    });
    // Left out where there is none.
    if !metadata.is_empty() {
        payload["metadata"] = metadata.into();
    }
    payload.to_string()
}

fn check_address(address: Option<&str>, fields: &Fields<'_>, key: &str, problems: &mut Problems) {
    let is_good = |address: &str| ["http://", "https://", "{{"].iter().any(|start| address.starts_with(start));
    if let (Some(address), Some(at)) = (address.filter(|address| !is_good(address)), fields.key_at(key)) {
        let message = format!("`{key}`: `{}` cannot be asked", short(address));
        problems.add(Mistake::new(Code::BadValue, at, message).help("write `http://host:port` or `https://host`"));
    }
}

/// A text whose placeholders are known.
fn said(value: &Value<'_>, secrets: &BTreeMap<String, Secret>, problems: &mut Problems) -> Option<String> {
    let text = text(value, problems)?;
    let mut unknown = None;
    let filled = measure::fill(&text, &mut |name: &str| -> Result<Option<String>, ()> {
        let is_word = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let is_secret = name.strip_prefix("secret.").is_some_and(|name| secrets.contains_key(name));
        if !name.is_empty() && is_word && !name.starts_with('.') && !is_secret && !KNOWN.contains(&name) {
            unknown = Some(name.to_owned());
        }
        Ok(None)
    });
    if let Some(name) = unknown {
        let message = format!("nothing is known to fill in for `{{{{{}}}}}`", short(&name));
        let known: Vec<String> = KNOWN.iter().map(|known| format!("`{{{{{known}}}}}`")).collect();
        let help = match name.strip_prefix("secret.") {
            Some(name) => format!("say where it is: `secrets: {{ {name}: {{ env: NAME }} }}`"),
            None => format!("here {} can be filled in, and secrets", known.join(", ")),
        };
        problems.add(Mistake::new(Code::UnknownPlaceholder, value.at(), message).help(help));
        return None;
    }
    filled.ok()
}

fn method(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let method = text(value, problems)?;
    if !matches!(method.as_str(), "GET" | "POST" | "PUT") {
        value.bad(format!("`method`: `{}` is not supported", short(&method)), "write `GET`, `POST` or `PUT`", problems);
        return None;
    }
    Some(method)
}

fn access(fields: &Fields<'_>, secrets: &BTreeMap<String, Secret>, problems: &mut Problems) -> Access {
    fields.only_one_of(&["bearer", "basic", "oauth2"], "a request has one `Authorization`", problems);
    let headers = fields.read("headers", problems, |value, problems| {
        let Kind::Map(pairs) = &value.node.kind else {
            value.wrong_type("a mapping", "write `headers: { X-Scope-OrgID: shop }`", problems);
            return None;
        };
        let header = |(key, node): &(crate::yaml::Key, std::rc::Rc<crate::yaml::Node>)| {
            let value = Value { name: format!("`{}`", short(&key.text)), node };
            Some((key.text.clone(), said(&value, secrets, problems)?))
        };
        pairs.iter().map(header).collect::<Option<Vec<_>>>()
    });
    let bearer = fields.read("bearer", problems, |value, problems| said(value, secrets, problems)).map(Login::Bearer);
    let basic = fields.read("basic", problems, |value, problems| {
        let fields = Fields::open(value, &BASIC, problems)?;
        let user =
            fields.required("user", "user: evenkeel", problems, |value, problems| said(value, secrets, problems));
        let password = fields.required("password", "password: \"{{secret.password}}\"", problems, |value, problems| {
            said(value, secrets, problems)
        });
        Some(Login::Basic { user: user?, password: password? })
    });
    let oauth2 = fields.read("oauth2", problems, |value, problems| client_credentials(value, secrets, problems));
    Access {
        headers: headers.unwrap_or_default(),
        login: bearer.or(basic).or(oauth2),
        authorities: fields.read("authorities", problems, text).map(Into::into),
        insecure: fields.read("insecure", problems, truth).unwrap_or(false),
    }
}

/// A login by client credentials of OAuth 2.0.
fn client_credentials(value: &Value<'_>, secrets: &BTreeMap<String, Secret>, problems: &mut Problems) -> Option<Login> {
    let said = |value: &Value<'_>, problems: &mut Problems| said(value, secrets, problems);
    let fields = Fields::open(value, &OAUTH2, problems)?;
    let token_url = fields.required("tokenUrl", "tokenUrl: \"https://login.example.com/token\"", problems, said);
    check_address(token_url.as_deref(), &fields, "tokenUrl", problems);
    let client_id = fields.required("clientId", "clientId: evenkeel", problems, said);
    let example = "clientSecret: \"{{secret.password}}\"";
    let client_secret = fields.required("clientSecret", example, problems, said);
    let scopes = fields.read("scopes", problems, |value, problems| {
        let items = value.items("write a list: `[metrics.read]`", problems)?;
        items.iter().map(|item| text(item, problems)).collect::<Option<Vec<_>>>()
    });
    let scopes = scopes.unwrap_or_default();
    Some(Login::ClientCredentials {
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        scopes,
    })
}

fn range(value: &Value<'_>, problems: &mut Problems) -> Option<Range> {
    let fields = Fields::open(value, &RANGE, problems)?;
    let from = fields.required("from", "from: 10m", problems, duration(SECOND..=30 * DAY));
    let mut until = Duration::ZERO;
    fields.set("until", &mut until, problems, duration(Duration::ZERO..=30 * DAY));
    let step = fields.required("step", "step: 1m", problems, duration(SECOND..=DAY));
    if let (Some(from), Some(at)) = (from.filter(|from| *from <= until), fields.key_at("until")) {
        let message = format!("the range ends {} s ago and begins {} s ago", until.as_secs(), from.as_secs());
        problems.add(Mistake::new(Code::Conflict, at, message).help("let it end later than it begins"));
    }
    Some(Range { from: Moment::Ago(from?), until: Moment::Ago(until), step: step? })
}

/// Reads where secrets are, by name.
pub(crate) fn secrets(value: &Value<'_>, problems: &mut Problems) -> Option<BTreeMap<String, Secret>> {
    let Kind::Map(pairs) = &value.node.kind else {
        value.wrong_type("a mapping", "write `secrets: { token: { env: TOKEN } }`", problems);
        return None;
    };
    let mut secrets = BTreeMap::new();
    for (key, node) in pairs {
        let value = Value { name: format!("`{}`", short(&key.text)), node };
        let Some(fields) = Fields::open(&value, &SECRET, problems) else { continue };
        fields.only_one_of(SECRET.keys, "a secret is in one place", problems);
        let env = fields.read("env", problems, text).map(Secret::Env);
        let file = fields.read("file", problems, text).map(|path| Secret::File(path.into()));
        match env.or(file) {
            Some(secret) => {
                secrets.insert(key.text.clone(), secret);
            }
            None if !fields.has_unknown() && SECRET.keys.iter().all(|key| fields.key_at(key).is_none()) => {
                let mistake = Mistake::new(Code::MissingKey, fields.at(), "this secret is nowhere");
                problems.add(mistake.help("write `{ env: NAME }` or `{ file: PATH }`"));
            }
            None => {}
        }
    }
    Some(secrets)
}
