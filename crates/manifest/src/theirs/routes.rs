//! What requests must have, as Argo Rollouts and Flagger (in Istio's words) say it, as matches of our own.

use std::rc::Rc;

use super::tree::{entry, get, items, pairs, scalar, tell_bad, text};
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Node};

/// Signs that mean something in a regular expression.
const SIGNS: &[char] = &['.', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\'];

/// Whether a route is taken away: it has a name and nothing else.
pub(super) fn is_removal(route: &Node) -> bool {
    items(get(route, "match")).is_empty()
}

/// Argo's `match` of a header route: any of its items is enough.
pub(super) fn header_matches(list: Option<&Rc<Node>>, problems: &mut Problems) -> Vec<Rc<Node>> {
    let one = |item: &Rc<Node>, problems: &mut Problems| {
        let Some(name) = get(item, "headerName") else {
            let mistake = Mistake::new(Code::MissingKey, item.at.clone(), "this match names no header");
            problems.add(mistake.help("write `{ headerName: X-Beta, headerValue: { exact: \"1\" } }`"));
            return None;
        };
        let mut keys = vec![entry("header", name)];
        keys.extend(string_match(get(item, "headerValue"), problems)?);
        Some(Node::mapping(item.at.clone(), keys))
    };
    items(list).iter().filter_map(|item| one(item, problems)).collect()
}

/// Flagger's `match`: items of headers, of which any is enough; the headers of one item all have to be there, which ours
/// cannot say.
pub(super) fn istio_matches(list: Option<&Rc<Node>>, problems: &mut Problems) -> Vec<Rc<Node>> {
    let mut matches = Vec::new();
    for item in items(list) {
        for (key, _) in pairs(Some(item)).iter().filter(|(key, _)| key.text != "headers") {
            let message = format!("requests are matched by headers and cookies, not by `{}`", short(&key.text));
            tell_bad(&key.at, message, "write `headers: { x-canary: { exact: always } }`", problems);
        }
        let headers = pairs(get(item, "headers"));
        if let [_, (second, _), ..] = headers {
            let message = "a request has to have one header or another, not several at once".to_owned();
            tell_bad(&second.at, message, "make an item of each, or let the client send one header", problems);
            continue;
        }
        for (name, value) in headers {
            let header = Node::quoted(name.at.clone(), name.text.clone());
            let keys = match cookie(name, value) {
                Some(keys) => keys,
                None => match string_match(Some(value), problems) {
                    Some(of) => std::iter::once(entry("header", &header)).chain(of).collect(),
                    None => continue,
                },
            };
            matches.push(Node::mapping(item.at.clone(), keys));
        }
    }
    matches
}

/// The usual way to ask for a cookie: `cookie: { regex: "^(.*?;)?(canary=always)(;.*)?$" }`.
fn cookie(header: &Key, value: &Node) -> Option<Vec<(Key, Rc<Node>)>> {
    let regex = text(value, "regex").filter(|_| header.text.eq_ignore_ascii_case("cookie"))?;
    let inner = regex.trim_start_matches('^').trim_end_matches('$');
    let ends = ["(.*?;)?", "(.*;)?", ".*?", ".*", "(;.*)?"];
    let inner = ends.iter().fold(inner, |rest, end| rest.strip_prefix(end).unwrap_or(rest).trim_start_matches("\\s*"));
    let inner = ends.iter().fold(inner, |rest, end| rest.strip_suffix(end).unwrap_or(rest));
    let inner = inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(inner);
    let (name, content) = inner.split_once('=')?;
    let is_plain = |text: &str| !text.is_empty() && !text.contains(SIGNS);
    let at = header.at.clone();
    let cookie = entry("cookie", &Node::quoted(at.clone(), name.to_owned()));
    (is_plain(name) && is_plain(content)).then(|| vec![cookie, entry("is", &Node::quoted(at, content.to_owned()))])
}

/// `exact`, `prefix`, or a regular expression that says one of the two or a few values; nothing: it is there.
fn string_match(value: Option<&Rc<Node>>, problems: &mut Problems) -> Option<Vec<(Key, Rc<Node>)>> {
    let Some(value) = value else { return Some(Vec::new()) };
    let said: Vec<&(Key, Rc<Node>)> = pairs(Some(value)).iter().collect();
    let [(kind, of)] = &said[..] else {
        let message = "a value is matched in one way".to_owned();
        tell_bad(&value.at, message, "write `exact`, `prefix` or `regex`, one of them", problems);
        return None;
    };
    let quoted = |text: &str| Node::quoted(of.at.clone(), text.to_owned());
    let written = scalar(of).unwrap_or_default();
    match kind.text.as_str() {
        "exact" => Some(vec![entry("is", &quoted(written))]),
        "prefix" => Some(vec![entry("prefix", &quoted(written))]),
        "regex" => match plain_pattern(written) {
            Some(Pattern::Any) => Some(Vec::new()),
            Some(Pattern::Prefix(start)) => Some(vec![entry("prefix", &quoted(start))]),
            Some(Pattern::OneOf(values)) => {
                let list = values.into_iter().map(quoted).collect();
                Some(vec![entry("oneOf", &Node::list(of.at.clone(), list))])
            }
            None => {
                let message = format!("`{}` is not looked for in every request", short(written));
                let help = "write `exact` or `prefix`, or `regex: \"a|b\"` for a few values";
                tell_bad(&of.at, message, help, problems);
                None
            }
        },
        other => {
            let message = format!("a value is not matched by `{}`", short(other));
            tell_bad(&kind.at, message, "write `exact`, `prefix` or `regex`", problems);
            None
        }
    }
}

/// A regular expression that says something simple.
enum Pattern<'a> {
    Any,
    Prefix(&'a str),
    OneOf(Vec<&'a str>),
}

fn plain_pattern(regex: &str) -> Option<Pattern<'_>> {
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    if matches!(inner, ".*" | ".+") {
        return Some(Pattern::Any);
    }
    if let Some(start) = inner.strip_suffix(".*").filter(|start| !start.is_empty() && !start.contains(SIGNS)) {
        return Some(Pattern::Prefix(start));
    }
    let inner = inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(inner);
    let values: Vec<&str> = inner.split('|').collect();
    values.iter().all(|value| !value.is_empty() && !value.contains(SIGNS)).then_some(Pattern::OneOf(values))
}
