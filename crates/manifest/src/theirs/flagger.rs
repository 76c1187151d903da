//! Metrics of Flagger's Canaries as checks of our own.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::measure::fill;

use super::tree::{Entry, Reasons, entry, get, items, name_of, pairs, scalar, tell_unused, text};
use super::{Template, Theirs};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{parse_duration, short};
use crate::yaml::Node;

/// A rate needs two samples: of requests there is one every 5 s, of processor time every 15 s.
const WINDOW: (Duration, &str) = (Duration::from_secs(10), "10s");
const CPU_WINDOW: (Duration, &str) = (Duration::from_secs(45), "45s");
const SUCCESS_RATE: &str = "100 * sum(rate(http_requests_total{service=\"{{service}}\",release=\"{{release}}\",status!~\"5..\"}[INTERVAL])) / sum(rate(http_requests_total{service=\"{{service}}\",release=\"{{release}}\"}[INTERVAL]))";
const DURATION: &str = "1000 * histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{service=\"{{service}}\",release=\"{{release}}\"}[INTERVAL])))";
const CPU: &str =
    "100 * avg(rate(replica_cpu_seconds_total{service=\"{{service}}\",release=\"{{release}}\"}[INTERVAL]))";

/// Reads the metrics of a Canary as checks that share its threshold.
pub(super) fn flagger(document: &Rc<Node>, theirs: &Theirs, problems: &mut Problems) -> Template {
    let mut template = Template { args: BTreeMap::new(), checks: Vec::new(), notes: Vec::new() };
    let analysis = get(document, "spec").and_then(|spec| get(spec, "analysis").or(get(spec, "canaryAnalysis")));
    let Some(analysis) = analysis else {
        let message = "this Canary has no `analysis`, so that nothing is measured";
        let mistake = Mistake::new(Code::MissingKey, document.at.clone(), message);
        template.notes.push(mistake.help("add `analysis: { metrics: […] }` below `spec`"));
        return template;
    };
    template.notes = beyond_metrics(analysis);
    let interval =
        get(analysis, "interval").map_or_else(|| Node::plain(analysis.at.clone(), "1m".to_owned()), Rc::clone);
    let pool = Node::quoted(document.at.clone(), name_of(document).unwrap_or_default());
    let shared = Shared { interval: &interval, threshold: threshold(analysis), pool: &pool };
    for metric in items(get(analysis, "metrics")) {
        template.checks.extend(flagger_metric(metric, &shared, theirs, problems));
    }
    template
}

/// How many failed rounds take a release back.
pub(super) fn threshold(analysis: &Node) -> u32 {
    text(analysis, "threshold").and_then(|threshold| threshold.parse().ok()).filter(|n| *n > 0).unwrap_or(1)
}

/// What a Canary says beside its metrics: of no use where it is named as a template.
fn beyond_metrics(analysis: &Rc<Node>) -> Vec<Mistake> {
    let rest = pairs(Some(analysis))
        .iter()
        .filter(|(key, _)| !matches!(key.text.as_str(), "interval" | "threshold" | "metrics"));
    let note = |key: &crate::yaml::Key| {
        let message = format!("`{}` is not used: the Canary is named as a template, for its metrics", short(&key.text));
        let help = "write `strategy: { flagger: NAME }` to take all of it, instead of `{ template: NAME }`";
        Mistake::new(Code::NotUsed, key.at.clone(), message).help(help)
    };
    rest.map(|(key, _)| note(key)).collect()
}

/// What the metrics of one Canary have in common.
struct Shared<'a> {
    interval: &'a Rc<Node>,
    threshold: u32,
    pool: &'a Rc<Node>,
}

fn flagger_metric(
    metric: &Rc<Node>,
    shared: &Shared<'_>,
    theirs: &Theirs,
    problems: &mut Problems,
) -> Option<Rc<Node>> {
    let name = get(metric, "name")?;
    let at = &metric.at;
    let of = scalar(name).unwrap_or_default();
    let window = get(metric, "interval").and_then(|window| scalar(window)).unwrap_or("1m");
    let limit =
        |key: &str| get(metric, "thresholdRange").and_then(|range| get(range, key)).and_then(|limit| scalar(limit));
    let old = get(metric, "threshold").and_then(|threshold| scalar(threshold));
    let is_rate = of == "request-success-rate";
    let least = limit("min").or(old.filter(|_| is_rate)).map(|limit| format!("last(result) >= {limit}"));
    let most = limit("max").or(old.filter(|_| !is_rate)).map(|limit| format!("last(result) <= {limit}"));
    let condition: Vec<String> = least.into_iter().chain(most).collect();
    if condition.is_empty() {
        let mistake = Mistake::new(Code::MissingKey, at.clone(), format!("the metric `{}` has no limit", short(of)));
        problems.add(mistake.help("add `thresholdRange: { min: 99 }`"));
        return None;
    }
    let fill_theirs = |query: &str| {
        let known = |name: &str| match name {
            "interval" => Some(window.to_owned()),
            "target" | "service" | "name" => Some("{{service}}".to_owned()),
            "namespace" => Some("{{namespace}}".to_owned()),
            name => name
                .strip_prefix("variables.")
                .and_then(|name| get(metric, "templateVariables").and_then(|all| text(all, name)).map(str::to_owned)),
        };
        let Ok(filled) = fill(query, &mut |name| Ok::<_, std::convert::Infallible>(known(name)));
        filled
    };
    let mut beside: Vec<Entry> = Vec::new();
    let reference = get(metric, "templateRef").and_then(|reference| get(reference, "name"));
    let source = if let Some(reference) = reference {
        let Some(spec) = scalar(reference)
            .and_then(|name| theirs.named(&["MetricTemplate"], name))
            .and_then(|document| get(document, "spec"))
        else {
            let message =
                format!("there is no MetricTemplate `{}` in this file", short(scalar(reference).unwrap_or_default()));
            let help = "add its document after a line of `---`, or name its file: `manifests: [metrics.yaml]`";
            theirs.missing(&reference.at, &message, help, problems);
            return None;
        };
        let provider = get(spec, "provider");
        let kind = provider.and_then(|provider| get(provider, "type")).and_then(|kind| scalar(kind));
        if kind != Some("prometheus") {
            let at = provider.map_or(spec.at.clone(), |provider| provider.at.clone());
            let mistake = Mistake::new(
                Code::BadValue,
                at,
                format!("the provider `{}` is not supported", short(kind.unwrap_or("?"))),
            );
            problems.add(mistake.help(
                "evenkeel asks `prometheus`; write anything else as a check of your own, with `http` or `command`",
            ));
            return None;
        }
        let query = get(spec, "query")?;
        let asked = entry("query", &Node::quoted(query.at.clone(), fill_theirs(scalar(query)?)));
        let used = ["type", "address", "headers", "secretRef", "insecureSkipVerify"];
        let reasons: Reasons = &[(&["region"], "it is of CloudWatch: leave it out")];
        tell_unused(provider, &used, reasons, "the `provider` of a MetricTemplate", problems);
        let server = provider.and_then(|provider| Some((provider, get(provider, "address")?)));
        match server {
            Some((provider, address)) => {
                let mut keys = vec![entry("address", address), asked];
                keys.extend(access(provider, &mut beside));
                entry("prometheus", &Node::mapping(spec.at.clone(), keys))
            }
            None => entry("metrics", &asked.1),
        }
    } else if let Some(query) = get(metric, "query") {
        entry("metrics", &Node::quoted(query.at.clone(), fill_theirs(scalar(query)?)))
    } else {
        let query = match of {
            "request-success-rate" => SUCCESS_RATE,
            "request-duration" => DURATION,
            "cpu-usage" => CPU,
            _ => {
                let message = format!("nothing says how `{}` is measured", short(of));
                let help = "add a `templateRef` or a `query`; `request-success-rate`, `request-duration` and `cpu-usage` are known";
                problems.add(Mistake::new(Code::MissingKey, name.at.clone(), message).help(help));
                return None;
            }
        };
        let message = format!("`{of}` is measured by what evenkeel counts of the new release");
        problems.add(
            Mistake::new(Code::FilledIn, name.at.clone(), message).help("add a `templateRef` to measure it elsewhere"),
        );
        let least = if of == "cpu-usage" { CPU_WINDOW } else { WINDOW };
        let window = if parse_duration(window).is_some_and(|window| window < least.0) { least.1 } else { window };
        entry("metrics", &Node::quoted(name.at.clone(), query.replace("INTERVAL", window)))
    };
    let limit = Node::plain(at.clone(), shared.threshold.saturating_sub(1).to_string());
    let success = Node::quoted(at.clone(), condition.join(" && "));
    let keys = [
        entry("name", name),
        source,
        entry("success", &success),
        entry("interval", shared.interval),
        entry("failureLimit", &limit),
        entry("pool", shared.pool),
    ];
    Some(Node::mapping(at.clone(), keys.into_iter().chain(beside).collect()))
}

/// How the server of a template is reached; `beside` are the check's secrets.
fn access(provider: &Rc<Node>, beside: &mut Vec<Entry>) -> Vec<Entry> {
    let mut keys = Vec::new();
    if let Some(headers) = get(provider, "headers") {
        let first = |(key, values): &Entry| Some((key.clone(), Rc::clone(items(Some(values)).first()?)));
        keys.push(entry(
            "headers",
            &Node::mapping(headers.at.clone(), pairs(Some(headers)).iter().filter_map(first).collect()),
        ));
    }
    keys.extend(get(provider, "insecureSkipVerify").map(|insecure| entry("insecure", insecure)));
    if let Some(name) = get(provider, "secretRef").and_then(|secret| get(secret, "name")) {
        let (at, of) = (&name.at, scalar(name).unwrap_or_default());
        let secret = |part: &str| {
            let path = Node::quoted(at.clone(), format!("secrets/{of}/{part}"));
            entry(part, &Node::mapping(at.clone(), vec![entry("file", &path)]))
        };
        beside.push(entry("secrets", &Node::mapping(at.clone(), vec![secret("username"), secret("password")])));
        let part = |key: &str, part: &str| entry(key, &Node::quoted(at.clone(), format!("{{{{secret.{part}}}}}")));
        keys.push(entry(
            "basic",
            &Node::mapping(at.clone(), vec![part("user", "username"), part("password", "password")]),
        ));
    }
    keys
}
