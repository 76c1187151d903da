//! Alertmanager's configuration: who is told of alerts that take a release back?
//!
//! evenkeel does not run it; it says whether alerts would reach evenkeel, and what Alertmanager itself would refuse.

use std::rc::Rc;

use crate::problem::{Code, Mistake, Problems};
use crate::values::{parse_duration, short};
use crate::yaml::{Kind, Node, documents};

/// Paths at which evenkeel takes posts of Alertmanager.
const PATHS: &[&str] = &["/api/v1/alerts/alertmanager", "/trigger"];
const BEGINNING: &str = "begin with `route: { receiver: evenkeel }` and `receivers: [{ name: evenkeel }]`";

/// Whether a text is meant as a configuration of Alertmanager: it says `route` and `receivers`.
#[must_use]
pub fn is_alertmanager(text: &str) -> bool {
    let begins = |key: &str| text.lines().any(|line| line.starts_with(key));
    begins("route:") && begins("receivers:") && !begins("service:")
}

/// Reads a configuration of Alertmanager; the receivers that evenkeel may be, as they are called.
///
/// # Errors
/// [`Problems`] with what cannot be read.
pub fn read_alertmanager(name: &str, text: &str) -> Result<(Vec<String>, Problems), Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = Problems::none(name, text);
    let documents = documents(&mut problems);
    let Some(document) = documents.first() else {
        problems.add(Mistake::new(Code::NoService, 0..0, "this file says nothing").help(BEGINNING));
        return Err(problems);
    };
    let mut reached = Vec::new();
    match get(document, "route") {
        Some(route) => {
            let receivers = items(get(document, "receivers"));
            let mut told = Vec::new();
            walk(route, None, &mut told, &mut problems);
            for (node, receiver) in told {
                reached.extend(look(&node, &receiver, receivers, &mut problems));
            }
        }
        None => {
            problems.add(Mistake::new(Code::MissingKey, document.at.clone(), "there is no `route`").help(BEGINNING))
        }
    }
    if reached.is_empty() && problems.errors() == 0 {
        let message = "no route sends alerts with `action: rollback` to a webhook";
        let help = "add a route: `- { matchers: ['action = \"rollback\"'], receiver: evenkeel }`";
        let at = get(document, "route").map_or(&document.at, |route| &route.at);
        problems.add(Mistake::new(Code::SaysNothing, at.clone(), message).help(help));
    }
    problems.sort();
    if problems.errors() > 0 { Err(problems) } else { Ok((reached, problems)) }
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Rc<Node>> {
    let Kind::Map(pairs) = &node.kind else { return None };
    pairs.iter().find(|(known, _)| known.text == key).map(|(_, node)| node).filter(|node| !node.is_null())
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match &get(node, key)?.kind {
        Kind::Scalar(scalar) => Some(&scalar.text),
        Kind::List(_) | Kind::Map(_) => None,
    }
}

fn items(node: Option<&Rc<Node>>) -> &[Rc<Node>] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        Some(Kind::Scalar(_) | Kind::Map(_)) | None => &[],
    }
}

/// Collects the routes that alerts with `action: rollback` may take, each with its receiver; it has that of the route
/// above where it names none.
fn walk(route: &Rc<Node>, above: Option<&str>, told: &mut Vec<(Rc<Node>, String)>, problems: &mut Problems) {
    let receiver = text(route, "receiver").or(above);
    for key in ["group_interval", "repeat_interval"] {
        let is_nothing = text(route, key).and_then(parse_duration).is_some_and(|time| time.is_zero());
        if let (true, Some(node)) = (is_nothing, get(route, key)) {
            let message = format!("Alertmanager does not start with a `{key}` of nothing");
            problems.add(Mistake::new(Code::SaysNothing, node.at.clone(), message).help(format!("write `{key}: 1s`")));
        }
    }
    if let (Some(receiver), true) = (receiver, asks_for_rollback(route)) {
        told.push((Rc::clone(route), receiver.to_owned()));
    }
    items(get(route, "routes")).iter().for_each(|inner| walk(inner, receiver, told, problems));
}

/// Whether a route is for alerts labelled `action: rollback`: by `match`, `match_re` or `matchers`.
fn asks_for_rollback(route: &Node) -> bool {
    let old = ["match", "match_re"].iter().filter_map(|key| get(route, key));
    let old = old.filter_map(|labels| text(labels, "action")).any(|action| action.contains("rollback"));
    let is_action = |matcher: &Rc<Node>| match &matcher.kind {
        Kind::Scalar(scalar) => scalar.text.trim_start().starts_with("action") && scalar.text.contains("rollback"),
        Kind::List(_) | Kind::Map(_) => false,
    };
    old || items(get(route, "matchers")).iter().any(is_action)
}

/// What of a receiver's webhooks evenkeel may be.
fn look(route: &Node, name: &str, receivers: &[Rc<Node>], problems: &mut Problems) -> Option<String> {
    let Some(receiver) = receivers.iter().find(|receiver| text(receiver, "name") == Some(name)) else {
        let at = get(route, "receiver").map_or(&route.at, |node| &node.at);
        let message = format!("there is no receiver `{}`", short(name));
        problems.add(Mistake::new(Code::BadValue, at.clone(), message).help("name one of `receivers`"));
        return None;
    };
    let hooks = items(get(receiver, "webhook_configs"));
    let is_ours = |hook: &&Rc<Node>| {
        let url = text(hook, "url").unwrap_or_default();
        PATHS.iter().any(|path| url.split('?').next().unwrap_or_default().ends_with(path))
    };
    let Some(hook) = hooks.iter().find(is_ours) else {
        let message =
            format!("the receiver `{}` of alerts with `action: rollback` does not post to evenkeel", short(name));
        let help = "add `webhook_configs: [{ url: http://127.0.0.1:7717/api/v1/alerts/alertmanager }]` to it";
        problems.add(Mistake::new(Code::SaysNothing, receiver.at.clone(), message).help(help));
        return None;
    };
    let url = text(hook, "url").unwrap_or_default();
    let has_login = get(hook, "http_config").is_some() || url.contains("token=");
    if !has_login {
        let message = "evenkeel wants its token, and this webhook brings none";
        let help = "add `http_config: { authorization: { credentials_file: …/.evenkeel/token } }`, and the address of \
                    evenkeel's API, 127.0.0.1:7717, to its `url`";
        let at = get(hook, "url").map_or(&hook.at, |url| &url.at);
        problems.add(Mistake::new(Code::Elsewhere, at.clone(), message).help(help));
    }
    if text(hook, "send_resolved") == Some("false") {
        let at = get(hook, "send_resolved").map_or(&hook.at, |node| &node.at);
        let message = "evenkeel is not told when an alert is over, and goes on showing it";
        problems.add(Mistake::new(Code::SaysNothing, at.clone(), message).help("write `send_resolved: true`"));
    }
    Some(name.to_owned())
}
