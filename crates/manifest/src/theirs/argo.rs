//! Templates of Argo Rollouts as checks of our own.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::tree::{Entry, Reasons, entry, get, items, scalar, tell_unused, text};
use super::{Template, Theirs};
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Kind, Node};

/// Reads a template: its metrics as checks, after those of the templates that it names.
pub(super) fn argo(document: &Rc<Node>, theirs: &Theirs, problems: &mut Problems) -> Template {
    let mut template = Template { args: BTreeMap::new(), checks: Vec::new(), notes: Vec::new() };
    let mut read = vec![Rc::clone(document)];
    take(document, &mut template, &mut read, theirs, problems);
    template
}

/// Adds what a document says, and those that it names, each of them once.
fn take(
    document: &Rc<Node>,
    template: &mut Template,
    read: &mut Vec<Rc<Node>>,
    theirs: &Theirs,
    problems: &mut Problems,
) {
    let Some(spec) = get(document, "spec") else { return };
    let reasons: Reasons =
        &[(&["measurementRetention"], "the last 10 measurements of each check are shown, and all of them count")];
    tell_unused(Some(spec), &["metrics", "args", "dryRun", "templates"], reasons, "an AnalysisTemplate", problems);
    for named in items(get(spec, "templates")) {
        let Some(name) = get(named, "templateName") else { continue };
        let kinds = ["AnalysisTemplate", "ClusterAnalysisTemplate"];
        let Some(other) = scalar(name).and_then(|name| theirs.named(&kinds, name)) else {
            let message = format!("there is no template `{}` here", short(scalar(name).unwrap_or_default()));
            theirs.missing(&name.at, &message, "add its document after a line of `---`", problems);
            continue;
        };
        if !read.iter().any(|known| Rc::ptr_eq(known, other)) {
            read.push(Rc::clone(other));
            take(other, template, read, theirs, problems);
        }
    }
    let secrets = arguments(spec, template, problems);
    let dry = dry_run(spec, problems);
    for metric in items(get(spec, "metrics")) {
        let is_dry = text(metric, "name").is_some_and(|name| dry.iter().any(|rule| rule.is_match(name)));
        template.checks.push(argo_metric(metric, is_dry, &secrets, problems));
    }
}

/// Takes the arguments of a document in; answers those that are secrets, each with its place.
fn arguments(spec: &Rc<Node>, template: &mut Template, problems: &mut Problems) -> Vec<Entry> {
    let mut secrets = Vec::new();
    for arg in items(get(spec, "args")) {
        let Some(name) = get(arg, "name").and_then(|name| scalar(name)) else { continue };
        let from = get(arg, "valueFrom");
        let secret = from.and_then(|from| get(from, "secretKeyRef"));
        let value = match (get(arg, "value").and_then(|value| scalar(value)), secret) {
            (Some(value), _) => Some(value.to_owned()),
            (None, Some(secret)) => {
                let part = |key: &str| text(secret, key).unwrap_or_default();
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
        if let Some(field) = from.and_then(|from| get(from, "fieldRef")) {
            let message = format!("the argument `{}` is of a field that a template does not have", short(name));
            let help = "write `valueFrom: { fieldRef: … }` in the `args` of the Rollout, where it is read";
            problems.add(Mistake::new(Code::NotUsed, field.at.clone(), message).help(help));
        }
        // What is said by one of several templates is said for all of them.
        let known = template.args.entry(name.to_owned()).or_insert(None);
        if let (Some(before), Some(value)) = (&known, &value)
            && before != value
        {
            let message = format!("the argument `{}` has two values", short(name));
            problems.add(Mistake::new(Code::Conflict, arg.at.clone(), message).help("give it one, or two names"));
        }
        *known = value.or(known.take());
    }
    secrets
}

/// The rules on names of metrics that nothing follows from.
fn dry_run(spec: &Rc<Node>, problems: &mut Problems) -> Vec<regex::Regex> {
    let names: Vec<&str> = items(get(spec, "metrics")).iter().filter_map(|metric| text(metric, "name")).collect();
    let rule = |rule: &Rc<Node>| {
        let rule = get(rule, "metricName")?;
        let regex = dry_rule(rule, problems)?;
        // One that matches nothing is a mistake, as Argo has it.
        if !names.iter().any(|name| regex.is_match(name)) {
            let message = format!("`dryRun`: no metric is called like `{}`", short(regex.as_str()));
            problems.add(Mistake::new(Code::BadValue, rule.at.clone(), message).help("write `.*` for all metrics"));
        }
        Some(regex)
    };
    items(get(spec, "dryRun")).iter().filter_map(rule).collect()
}

/// One of them, compiled.
pub(super) fn dry_rule(rule: &Rc<Node>, problems: &mut Problems) -> Option<regex::Regex> {
    let written = scalar(rule).unwrap_or_default();
    if let Ok(regex) = regex::RegexBuilder::new(written).size_limit(1 << 16).build() {
        return Some(regex);
    }
    let message = format!("`dryRun`: `{}` is no regular expression", short(written));
    problems.add(Mistake::new(Code::BadValue, rule.at.clone(), message).help("write `.*` for all metrics"));
    None
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
                problems.add(mistake.help("it is not known to Argo Rollouts 1.9 either; leave it out"));
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
                    "job" => {
                        "write a check of your own that runs the program: `{ name: smoke, command: [bin/smoke], success: \"true\" }`"
                    }
                    "kayenta" => {
                        "leave it out: the new release is compared with the stable one from the first request on, `objectives` say what else must hold"
                    }
                    "plugin" => "write a check of your own that runs a program: `command: [program, argument]`",
                    "datadog" | "newRelic" | "wavefront" | "cloudWatch" | "graphite" | "influxdb" | "skywalking" => {
                        "ask its HTTP API: `provider: { web: { url: …, jsonPath: … } }`, or let a check of your own run its program: `command: [program, argument]`"
                    }
                    _ => "write `prometheus` or `web`",
                };
                problems.add(mistake.help(help));
            }
        }
    }
    ours
}

fn prometheus(key: &Key, of: &Rc<Node>, problems: &mut Problems) -> Vec<(Key, Rc<Node>)> {
    let Kind::Map(pairs) = &of.kind else { return vec![entry("prometheus", of)] };
    let used = ["address", "query", "insecure", "timeout", "headers", "rangeQuery", "authentication"];
    tell_unused(Some(of), &used, &[], "the provider `prometheus`", problems);
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
            "authentication" => ours.extend(authentication(node, problems)),
            _ => {}
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

/// `basicAuth` and `oauth2`.
fn authentication(node: &Rc<Node>, problems: &mut Problems) -> Option<Entry> {
    let reasons: Reasons = &[(
        &["sigv4"],
        "requests are not signed for AWS: let a check run `aws` or `awscurl`, `command: [program, argument]`",
    )];
    tell_unused(Some(node), &["basicAuth", "oauth2"], reasons, "`authentication`", problems);
    let renamed = |of: &Rc<Node>, names: &[(&str, &str)]| {
        let keys = names.iter().filter_map(|(theirs, ours)| get(of, theirs).map(|value| entry(ours, value)));
        Node::mapping(of.at.clone(), keys.collect())
    };
    let basic = get(node, "basicAuth")
        .map(|of| entry("basic", &renamed(of, &[("username", "user"), ("password", "password")])));
    let names =
        [("tokenUrl", "tokenUrl"), ("clientId", "clientId"), ("clientSecret", "clientSecret"), ("scopes", "scopes")];
    basic.or_else(|| get(node, "oauth2").map(|of| entry("oauth2", &renamed(of, &names))))
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
    let used =
        ["url", "method", "body", "jsonBody", "jsonPath", "headers", "timeoutSeconds", "insecure", "authentication"];
    tell_unused(Some(of), &used, &[], "the provider `web`", problems);
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
            "authentication" => ours.extend(authentication(node, problems)),
            _ => {}
        }
    }
    beside.push(entry("http", &Node::mapping(of.at.clone(), ours)));
    beside
}
