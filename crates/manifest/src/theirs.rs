//! Analysis as people bring it: `AnalysisTemplate` and `ClusterAnalysisTemplate` of Argo Rollouts, `Canary` and
//! `MetricTemplate` of Flagger.
//!
//! Such documents stand beside services in one file. What they measure is written anew as checks of our own, each value
//! with the place where they wrote it, and takes the place of `{ template: NAME }` in lists of checks: so that there is
//! one reader of checks, and every mistake is shown where it is. A field that is not used is told.

use std::collections::BTreeMap;
use std::rc::Rc;

use evenkeel_core::measure::fill;

use crate::checks;
use crate::fields::Value;
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Kind, Node, documents};

/// The keys of an item that stands for a template's checks.
const ITEM: &[&str] = &["template", "args", "compat", "from", "dryRun"];
/// Lists of checks, by their keys.
const LISTS: &[&str] = &["checks", "prePromotion", "postPromotion"];
const SUCCESS_RATE: &str = "100 * sum(rate(http_requests_total{service=\"{{service}}\",release=\"{{release}}\",status!~\"5..\"}[INTERVAL])) / sum(rate(http_requests_total{service=\"{{service}}\",release=\"{{release}}\"}[INTERVAL]))";
const DURATION: &str = "1000 * histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{service=\"{{service}}\",release=\"{{release}}\"}[INTERVAL])))";
const CPU: &str =
    "100 * avg(rate(replica_cpu_seconds_total{service=\"{{service}}\",release=\"{{release}}\"}[INTERVAL]))";

/// Checks that somebody else's document describes.
#[derive(Debug)]
struct Template {
    /// Arguments, each with its value where it has one.
    args: BTreeMap<String, Option<String>>,
    checks: Vec<Rc<Node>>,
}

/// Tells whether a file has documents of theirs and none of a service.
#[must_use]
pub fn is_analysis(text: &str) -> bool {
    let documents = documents(&mut Problems::none("", text));
    !documents.is_empty() && documents.iter().all(|document| kind_of(document).is_some())
}

/// Reads a file of their documents alone; how many checks they describe.
///
/// # Errors
/// [`Problems`] with every mistake of the file.
pub fn read_analysis(name: &str, text: &str) -> Result<(usize, Problems), Problems> {
    let mut problems = Problems::none(name, text);
    let (_, templates) = apart(documents(&mut problems), &mut problems);
    let mut count = 0;
    for template in templates.values() {
        let given = BTreeMap::new();
        // What is not given yet stands for something: what is around it is looked at all the same.
        for check in &template.checks {
            count += 1;
            let mut with = |text: &str| Ok::<_, std::convert::Infallible>(with_args(text, template, &given, None));
            let Ok(check) = filled(check, &mut with);
            let list = Node::list(check.at.clone(), vec![check]);
            let value = Value { name: "`metrics`".into(), node: &list };
            checks::checks(&value, false, &mut problems);
        }
    }
    problems.sort();
    if problems.errors() > 0 { Err(problems) } else { Ok((count, problems)) }
}

/// The documents of services, with the checks of templates in the place of their names.
pub(crate) fn expand(documents: Vec<Rc<Node>>, problems: &mut Problems) -> Vec<Rc<Node>> {
    let (services, templates) = apart(documents, problems);
    services.into_iter().map(|service| within(&service, &templates, problems)).collect()
}

fn kind_of(document: &Node) -> Option<&str> {
    let kind = scalar(get(document, "kind")?)?;
    let is_theirs = matches!(kind, "AnalysisTemplate" | "ClusterAnalysisTemplate" | "Canary" | "MetricTemplate");
    (is_theirs && get(document, "apiVersion").is_some()).then_some(kind)
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Rc<Node>> {
    let Kind::Map(pairs) = &node.kind else { return None };
    pairs.iter().find(|(known, _)| known.text == key).map(|(_, node)| node).filter(|node| !node.is_null())
}

fn scalar(node: &Node) -> Option<&str> {
    if let Kind::Scalar(scalar) = &node.kind { Some(&scalar.text) } else { None }
}

fn items(node: Option<&Rc<Node>>) -> &[Rc<Node>] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        Some(Kind::Scalar(_) | Kind::Map(_)) | None => &[],
    }
}

fn apart(documents: Vec<Rc<Node>>, problems: &mut Problems) -> (Vec<Rc<Node>>, BTreeMap<String, Template>) {
    let (theirs, services): (Vec<_>, Vec<_>) = documents.into_iter().partition(|node| kind_of(node).is_some());
    let metric_templates: BTreeMap<String, &Rc<Node>> = theirs
        .iter()
        .filter(|node| kind_of(node) == Some("MetricTemplate"))
        .filter_map(|node| Some((name_of(node)?, node)))
        .collect();
    let mut templates = BTreeMap::new();
    for document in &theirs {
        let Some(name) = name_of(document) else {
            let mistake = Mistake::new(Code::MissingKey, document.at.clone(), "this document has no name");
            problems.add(mistake.help("write `metadata: { name: success-rate }`"));
            continue;
        };
        let template = match kind_of(document) {
            Some("Canary") => flagger(document, &metric_templates, problems),
            Some("MetricTemplate") => continue,
            Some(_) | None => argo(document, problems),
        };
        if templates.insert(name.clone(), template).is_some() {
            let mistake =
                Mistake::new(Code::Conflict, document.at.clone(), format!("`{}` is described twice", short(&name)));
            problems.add(mistake.help("give one of them another name"));
        }
    }
    (services, templates)
}

fn name_of(document: &Node) -> Option<String> {
    get(document, "metadata")
        .and_then(|metadata| get(metadata, "name"))
        .and_then(|name| scalar(name))
        .map(str::to_owned)
}

/// A field of theirs that nothing is done with.
fn unused(key: &Key, help: &str, problems: &mut Problems) {
    let message = format!("`{}` is not used", short(&key.text));
    problems.add(Mistake::new(Code::NotUsed, key.at.clone(), message).help(help));
}

/// One entry of ours with the value they wrote.
fn entry(key: &str, node: &Rc<Node>) -> (Key, Rc<Node>) {
    (Key { text: key.to_owned(), at: node.at.clone() }, Rc::clone(node))
}

fn argo(document: &Node, problems: &mut Problems) -> Template {
    let mut template = Template { args: BTreeMap::new(), checks: Vec::new() };
    let Some(spec) = get(document, "spec") else { return template };
    let dry: Vec<&str> =
        items(get(spec, "dryRun")).iter().filter_map(|rule| scalar(get(rule, "metricName")?)).collect();
    if let Kind::Map(pairs) = &spec.kind {
        for (key, _) in pairs.iter().filter(|(key, _)| !matches!(key.text.as_str(), "metrics" | "args" | "dryRun")) {
            let help = match key.text.as_str() {
                "measurementRetention" => "evenkeel keeps the last 10 measurements of each check",
                "templates" => "name each of them in `checks`: `- { template: NAME }`",
                _ => "evenkeel does not know it",
            };
            unused(key, help, problems);
        }
    }
    let mut secrets = Vec::new();
    for arg in items(get(spec, "args")) {
        let Some(name) = get(arg, "name").and_then(|name| scalar(name)) else { continue };
        let from = get(arg, "valueFrom");
        let secret = from.and_then(|from| get(from, "secretKeyRef"));
        let value = match (get(arg, "value").and_then(|value| scalar(value)), secret) {
            (Some(value), _) => Some(value.to_owned()),
            (None, Some(secret)) => {
                let part = |key: &str| get(secret, key).and_then(|part| scalar(part)).unwrap_or_default();
                let path = Node::quoted(arg.at.clone(), format!("secrets/{}/{}", part("name"), part("key")));
                let place = Node::mapping(arg.at.clone(), vec![entry("file", &path)]);
                secrets.push((Key { text: name.to_owned(), at: arg.at.clone() }, place));
                Some(format!("{{{{secret.{name}}}}}"))
            }
            (None, None) => match from.and_then(|from| get(from, "podTemplateHashValue")).and_then(|hash| scalar(hash))
            {
                Some("Latest") => Some("{{release}}".to_owned()),
                Some(_) => Some("{{stable}}".to_owned()),
                None => None,
            },
        };
        template.args.insert(name.to_owned(), value);
    }
    for metric in items(get(spec, "metrics")) {
        let is_dry = get(metric, "name")
            .and_then(|name| scalar(name))
            .is_some_and(|name| dry.iter().any(|rule| regex::Regex::new(rule).is_ok_and(|rule| rule.is_match(name))));
        template.checks.push(argo_metric(metric, is_dry, &secrets, problems));
    }
    for rule in dry.iter().filter(|rule| regex::Regex::new(rule).is_err()) {
        let mistake = Mistake::new(
            Code::BadValue,
            spec.at.clone(),
            format!("`dryRun`: `{}` is no regular expression", short(rule)),
        );
        problems.add(mistake.help("write `.*` for all metrics"));
    }
    template
}

fn argo_metric(metric: &Rc<Node>, is_dry: bool, secrets: &[(Key, Rc<Node>)], problems: &mut Problems) -> Rc<Node> {
    let Kind::Map(pairs) = &metric.kind else { return Rc::clone(metric) };
    let mut ours = Vec::new();
    for (key, node) in pairs {
        let text = scalar(node).unwrap_or_default();
        match key.text.as_str() {
            "successCondition" if !text.is_empty() => {
                ours.push(entry("success", &Node::quoted(node.at.clone(), text.to_owned())))
            }
            "failureCondition" if !text.is_empty() => {
                ours.push(entry("failure", &Node::quoted(node.at.clone(), text.to_owned())))
            }
            "failureLimit" if text == "-1" => {
                ours.push(entry("failureLimit", &Node::quoted(node.at.clone(), "off".to_owned())))
            }
            "successCondition" | "failureCondition" => {}
            "count" | "consecutiveSuccessLimit" if text == "0" => {}
            // They may be written as text: they may come from arguments.
            "count" | "failureLimit" | "inconclusiveLimit" | "consecutiveErrorLimit" | "consecutiveSuccessLimit" => {
                ours.push(entry(&key.text, &Node::plain(node.at.clone(), text.to_owned())));
            }
            "name" | "interval" | "initialDelay" => ours.push(entry(&key.text, node)),
            "provider" => ours.extend(provider(node, problems)),
            _ => {
                let mistake = Mistake::new(
                    Code::UnknownKey,
                    key.at.clone(),
                    format!("a metric has no key `{}`", short(&key.text)),
                );
                problems.add(mistake.help("it is not known to Argo Rollouts 1.8 either"));
            }
        }
    }
    if is_dry {
        ours.push(entry("dryRun", &Node::plain(metric.at.clone(), "true".to_owned())));
    }
    if !secrets.is_empty() {
        ours.push(entry("secrets", &Node::mapping(metric.at.clone(), secrets.to_vec())));
    }
    Node::mapping(metric.at.clone(), ours)
}

fn provider(node: &Rc<Node>, problems: &mut Problems) -> Vec<(Key, Rc<Node>)> {
    let Kind::Map(pairs) = &node.kind else { return Vec::new() };
    let mut ours = Vec::new();
    for (key, of) in pairs {
        match key.text.as_str() {
            "prometheus" => ours.extend(prometheus(key, of, problems)),
            "web" => ours.extend(web(of, problems)),
            other => {
                let mistake = Mistake::new(
                    Code::BadValue,
                    key.at.clone(),
                    format!("the provider `{}` is not supported", short(other)),
                );
                let help = match other {
                    "job" => "let a check run the program: `command: [program, argument]`",
                    _ => "ask its HTTP API with `web`, or let a check run a program: `command: [program, argument]`",
                };
                problems.add(mistake.help(help));
            }
        }
    }
    ours
}

fn prometheus(key: &Key, of: &Rc<Node>, problems: &mut Problems) -> Vec<(Key, Rc<Node>)> {
    let Kind::Map(pairs) = &of.kind else { return vec![entry("prometheus", of)] };
    let (mut ours, mut beside) = (Vec::new(), Vec::new());
    for (name, node) in pairs {
        match name.text.as_str() {
            "address" | "query" => ours.push(entry(&name.text, node)),
            "insecure" => ours.push(entry("insecure", node)),
            "timeout" => {
                let seconds = format!("{}s", scalar(node).unwrap_or_default());
                beside.push(entry("timeout", &Node::plain(node.at.clone(), seconds)));
            }
            "headers" => ours.push(entry("headers", &headers(node))),
            "rangeQuery" => ours.push(entry("range", &range(node, problems))),
            _ => unused(name, "headers, `bearer` and `basic` can be written in a check of your own", problems),
        }
    }
    if get(of, "address").is_some() {
        beside.push((Key { text: "prometheus".into(), at: key.at.clone() }, Node::mapping(of.at.clone(), ours)));
    } else {
        let mistake =
            Mistake::new(Code::FilledIn, key.at.clone(), "without an address evenkeel asks what it counts itself");
        problems.add(mistake.help("add `address: http://prometheus:9090` to ask that server"));
        ours.retain(|(key, _)| matches!(key.text.as_str(), "query" | "range"));
        beside.push((Key { text: "metrics".into(), at: key.at.clone() }, Node::mapping(of.at.clone(), ours)));
    }
    beside
}

fn headers(node: &Rc<Node>) -> Rc<Node> {
    let header = |item: &Rc<Node>| {
        let text = scalar(get(item, "key")?)?.to_owned();
        Some((Key { text, at: item.at.clone() }, Rc::clone(get(item, "value")?)))
    };
    Node::mapping(node.at.clone(), items(Some(node)).iter().filter_map(header).collect())
}

/// `now() - duration("10m")` and `now()`, as times before the measurement.
fn range(node: &Rc<Node>, problems: &mut Problems) -> Rc<Node> {
    let mut ours = Vec::new();
    for (key, name) in [("start", "from"), ("end", "until")] {
        let Some(written) = get(node, key) else { continue };
        let text: String = scalar(written).unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
        let ago = text.strip_prefix("now()-duration(").and_then(|rest| rest.strip_suffix(')'));
        let ago = ago.map(|quoted| quoted.trim_matches(['"', '\'']).to_owned());
        match ago.or((text == "now()").then(|| "0".to_owned())) {
            Some(ago) => ours.push(entry(name, &Node::plain(written.at.clone(), ago))),
            None => {
                let mistake = Mistake::new(Code::BadValue, written.at.clone(), format!("`{key}` cannot be understood"));
                problems.add(mistake.help("write `now() - duration(\"10m\")` or `now()`"));
            }
        }
    }
    ours.extend(get(node, "step").map(|step| entry("step", step)));
    Node::mapping(node.at.clone(), ours)
}

fn web(of: &Rc<Node>, problems: &mut Problems) -> Vec<(Key, Rc<Node>)> {
    let Kind::Map(pairs) = &of.kind else { return vec![entry("http", of)] };
    let (mut ours, mut beside) = (Vec::new(), Vec::new());
    for (name, node) in pairs {
        let text = scalar(node).unwrap_or_default();
        match name.text.as_str() {
            "url" | "method" | "body" | "insecure" => ours.push(entry(&name.text, node)),
            "jsonBody" => ours.push(entry("body", &Node::quoted(node.at.clone(), node.flow()))),
            // Their paths stand in braces.
            "jsonPath" => {
                let path = text.trim().trim_start_matches('{').trim_end_matches('}').to_owned();
                ours.push(entry("jsonPath", &Node::quoted(node.at.clone(), path)));
            }
            "headers" => ours.push(entry("headers", &headers(node))),
            "timeoutSeconds" => beside.push(entry("timeout", &Node::plain(node.at.clone(), format!("{text}s")))),
            _ => unused(name, "headers, `bearer` and `basic` can be written in a check of your own", problems),
        }
    }
    beside.push(entry("http", &Node::mapping(of.at.clone(), ours)));
    beside
}

fn flagger(document: &Node, templates: &BTreeMap<String, &Rc<Node>>, problems: &mut Problems) -> Template {
    let mut template = Template { args: BTreeMap::new(), checks: Vec::new() };
    let Some(analysis) = get(document, "spec").and_then(|spec| get(spec, "analysis").or(get(spec, "canaryAnalysis")))
    else {
        let mistake = Mistake::new(
            Code::MissingKey,
            document.at.clone(),
            "this Canary has no `analysis`, so that nothing is measured",
        );
        problems.add(mistake.help("add `analysis: { metrics: […] }` below `spec`"));
        return template;
    };
    if let Kind::Map(pairs) = &analysis.kind {
        for (key, _) in pairs {
            let help = match key.text.as_str() {
                "interval" | "threshold" | "metrics" => continue,
                "webhooks" => {
                    "write what each asks as a check of your own, `http: URL`; what is asked once, before anything is touched, as a check below `gates`"
                }
                "maxWeight" | "stepWeight" | "stepWeights" | "stepWeightPromotion" | "iterations" => {
                    "shares are steps of the service: `strategy: { canary: { steps: [{ weight: 10%, hold: 1m }] } }`"
                }
                "match" | "mirror" | "mirrorWeight" | "sessionAffinity" => {
                    "write `match`, `mirror` or `sticky` in the strategy of the service"
                }
                "alerts" => "evenkeel does not send messages for it",
                _ => "evenkeel does not know it",
            };
            unused(key, help, problems);
        }
    }
    let interval =
        get(analysis, "interval").map_or_else(|| Node::plain(analysis.at.clone(), "1m".to_owned()), Rc::clone);
    let threshold =
        get(analysis, "threshold").and_then(|threshold| scalar(threshold)?.parse::<u32>().ok()).unwrap_or(1);
    for metric in items(get(analysis, "metrics")) {
        template.checks.extend(flagger_metric(metric, &interval, threshold, templates, problems));
    }
    template
}

fn flagger_metric(
    metric: &Rc<Node>,
    interval: &Rc<Node>,
    threshold: u32,
    templates: &BTreeMap<String, &Rc<Node>>,
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
            "target" | "service" => Some("{{service}}".to_owned()),
            "namespace" => Some("{{namespace}}".to_owned()),
            _ => None,
        };
        let Ok(filled) = fill(query, &mut |name| Ok::<_, std::convert::Infallible>(known(name)));
        filled
    };
    let reference = get(metric, "templateRef").and_then(|reference| get(reference, "name"));
    let source = if let Some(reference) = reference {
        let Some(spec) =
            scalar(reference).and_then(|name| templates.get(name)).and_then(|document| get(document, "spec"))
        else {
            let message =
                format!("there is no MetricTemplate `{}` in this file", short(scalar(reference).unwrap_or_default()));
            problems.add(
                Mistake::new(Code::BadValue, reference.at.clone(), message)
                    .help("add its document after a line of `---`"),
            );
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
        match provider.and_then(|provider| get(provider, "address")) {
            Some(address) => {
                entry("prometheus", &Node::mapping(spec.at.clone(), vec![entry("address", address), asked]))
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
        entry("metrics", &Node::quoted(name.at.clone(), query.replace("INTERVAL", window)))
    };
    let limit = Node::plain(at.clone(), threshold.saturating_sub(1).to_string());
    let success = Node::quoted(at.clone(), condition.join(" && "));
    Some(Node::mapping(
        at.clone(),
        vec![
            entry("name", name),
            source,
            entry("success", &success),
            entry("interval", interval),
            entry("failureLimit", &limit),
        ],
    ))
}

/// A document with the checks of templates in its lists of checks; what gates ask is something else.
fn within(node: &Rc<Node>, templates: &BTreeMap<String, Template>, problems: &mut Problems) -> Rc<Node> {
    match &node.kind {
        Kind::Map(pairs) => {
            let mut is_changed = false;
            let mut next = Vec::with_capacity(pairs.len());
            for (key, inner) in pairs {
                let new = match (&inner.kind, key.text.as_str()) {
                    (_, "gates") => Rc::clone(inner),
                    (Kind::List(items), list)
                        if LISTS.contains(&list) && items.iter().any(|item| get(item, "template").is_some()) =>
                    {
                        let each = items.iter().flat_map(|item| named(item, templates, problems));
                        Node::list(inner.at.clone(), each.collect())
                    }
                    _ => within(inner, templates, problems),
                };
                is_changed |= !Rc::ptr_eq(&new, inner);
                next.push((key.clone(), new));
            }
            if is_changed { Node::mapping(node.at.clone(), next) } else { Rc::clone(node) }
        }
        Kind::List(items) => {
            let next: Vec<Rc<Node>> = items.iter().map(|item| within(item, templates, problems)).collect();
            let is_changed = next.iter().zip(items).any(|(new, old)| !Rc::ptr_eq(new, old));
            if is_changed { Node::list(node.at.clone(), next) } else { Rc::clone(node) }
        }
        Kind::Scalar(_) => Rc::clone(node),
    }
}

/// The checks that an item stands for.
fn named(item: &Rc<Node>, templates: &BTreeMap<String, Template>, problems: &mut Problems) -> Vec<Rc<Node>> {
    let (Some(reference), Kind::Map(pairs)) = (get(item, "template"), &item.kind) else { return vec![Rc::clone(item)] };
    for (key, _) in pairs.iter().filter(|(key, _)| !ITEM.contains(&key.text.as_str())) {
        let mistake = Mistake::new(
            Code::UnknownKey,
            key.at.clone(),
            format!("beside `template` there is no key `{}`", short(&key.text)),
        );
        problems.add(mistake.help(format!("the keys here are: {}", ITEM.join(", "))));
    }
    let Some(template) = scalar(reference).and_then(|name| templates.get(name)) else {
        let known: Vec<&str> = templates.keys().map(String::as_str).collect();
        let help = match known.is_empty() {
            true => "add its document to this file, after a line of `---`".to_owned(),
            false => format!("this file describes {}", known.join(", ")),
        };
        let message = format!("there is no template `{}` in this file", short(scalar(reference).unwrap_or_default()));
        problems.add(Mistake::new(Code::BadValue, reference.at.clone(), message).help(help));
        return Vec::new();
    };
    let mut given = BTreeMap::new();
    if let Some(Kind::Map(args)) = get(item, "args").map(|args| &args.kind) {
        given.extend(args.iter().filter_map(|(key, node)| Some((key.text.clone(), scalar(node)?.to_owned()))));
    }
    let is_argo = get(item, "compat").is_some();
    let mut told = (reference.at.clone(), is_argo, Vec::new());
    let with = |check: &Rc<Node>| {
        let Ok(check) = filled(check, &mut |text| {
            Ok::<_, std::convert::Infallible>(with_args(text, template, &given, Some(&mut told)))
        });
        let Kind::Map(own) = &check.kind else { return check };
        let more = pairs.iter().filter(|(key, _)| matches!(key.text.as_str(), "compat" | "from" | "dryRun")).cloned();
        Node::mapping(check.at.clone(), own.iter().cloned().chain(more).collect())
    };
    let checks = template.checks.iter().map(with).collect();
    for mistake in told.2 {
        problems.add(mistake);
    }
    checks
}

/// What is told of arguments: where, whether by Argo's rules, and what.
type Told = (std::ops::Range<usize>, bool, Vec<Mistake>);

fn with_args(text: &str, template: &Template, given: &BTreeMap<String, String>, mut told: Option<&mut Told>) -> String {
    let known = |name: &str| -> Option<String> {
        let name = name.strip_prefix("args.")?;
        if let Some(value) = given.get(name).or(template.args.get(name).and_then(Option::as_ref)) {
            return Some(value.clone());
        }
        let plain = name.to_ascii_lowercase();
        let ours = match plain.as_str() {
            "deployment" | "deployment-name" | "canary-name" => Some("{{deployment}}"),
            "service" | "service-name" | "app" | "app-name" | "name" => Some("{{service}}"),
            "namespace" => Some("{{namespace}}"),
            "version" => Some("{{version}}"),
            _ if plain.contains("hash") && plain.contains("stable") => Some("{{stable}}"),
            _ if plain.contains("hash") => Some("{{release}}"),
            _ => None,
        };
        let Some((at, is_argo, mistakes)) = told.as_deref_mut() else { return Some(ours.unwrap_or("1").to_owned()) };
        match ours.filter(|_| !*is_argo) {
            Some(ours) => {
                let message = format!("nobody gives the argument `{}`: evenkeel fills in {ours}", short(name));
                let help = format!("write `args: {{ {name}: … }}` to say something else");
                mistakes.push(Mistake::new(Code::FilledIn, at.clone(), message).help(help));
                Some(ours.to_owned())
            }
            None => {
                let message = format!("nobody gives the argument `{}`", short(name));
                mistakes.push(
                    Mistake::new(Code::MissingKey, at.clone(), message).help(format!("add `args: {{ {name}: … }}`")),
                );
                Some("1".to_owned())
            }
        }
    };
    let mut known = known;
    let Ok(filled) = fill(text, &mut |name| Ok::<_, std::convert::Infallible>(known(name)));
    filled
}

/// A tree with another text in the place of each.
fn filled<E>(node: &Rc<Node>, with: &mut impl FnMut(&str) -> Result<String, E>) -> Result<Rc<Node>, E> {
    Ok(match &node.kind {
        Kind::Scalar(scalar) => {
            let text = with(&scalar.text)?;
            if text == scalar.text {
                return Ok(Rc::clone(node));
            }
            // An argument that is all of a value may be a number.
            if scalar.text.starts_with("{{") {
                Node::plain(node.at.clone(), text)
            } else {
                Node::quoted(node.at.clone(), text)
            }
        }
        Kind::List(items) => {
            let items = items.iter().map(|item| filled(item, with)).collect::<Result<_, _>>()?;
            Node::list(node.at.clone(), items)
        }
        Kind::Map(pairs) => {
            let pairs =
                pairs.iter().map(|(key, inner)| Ok((key.clone(), filled(inner, with)?))).collect::<Result<_, E>>()?;
            Node::mapping(node.at.clone(), pairs)
        }
    })
}
