//! Checks of templates in the place of their names, with their arguments filled in.

use std::collections::BTreeMap;
use std::rc::Rc;

use evenkeel_core::measure::fill;

use super::argo::dry_rule;
use super::tree::{entry, filled, get, scalar, text as text_of};
use super::{Template, Theirs};
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Kind, Node};

/// The keys of an item that stands for a template's checks.
const ITEM: &[&str] = &["template", "args", "compat", "from", "dryRun", "prometheus"];
/// Lists of checks, by their keys.
const LISTS: &[&str] = &["checks", "prePromotion", "postPromotion"];

/// A document with the checks of templates in its lists of checks; what gates ask is something else.
pub(super) fn within(node: &Rc<Node>, theirs: &Theirs, problems: &mut Problems) -> Rc<Node> {
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
                        let each = items.iter().flat_map(|item| named(item, theirs, problems));
                        Node::list(inner.at.clone(), each.collect())
                    }
                    _ => within(inner, theirs, problems),
                };
                is_changed |= !Rc::ptr_eq(&new, inner);
                // Templates that are nowhere were told; a list without them is none.
                let is_lost = matches!((&new.kind, &inner.kind), (Kind::List(new), Kind::List(old)) if new.is_empty() && !old.is_empty());
                if !is_lost {
                    next.push((key.clone(), new));
                }
            }
            if is_changed { Node::mapping(node.at.clone(), next) } else { Rc::clone(node) }
        }
        Kind::List(items) => {
            let next: Vec<Rc<Node>> = items.iter().map(|item| within(item, theirs, problems)).collect();
            let is_changed = next.iter().zip(items).any(|(new, old)| !Rc::ptr_eq(new, old));
            if is_changed { Node::list(node.at.clone(), next) } else { Rc::clone(node) }
        }
        Kind::Scalar(_) => Rc::clone(node),
    }
}

/// The checks that an item stands for.
fn named(item: &Rc<Node>, theirs: &Theirs, problems: &mut Problems) -> Vec<Rc<Node>> {
    let (Some(reference), Kind::Map(pairs)) = (get(item, "template"), &item.kind) else { return vec![Rc::clone(item)] };
    for (key, _) in pairs.iter().filter(|(key, _)| !ITEM.contains(&key.text.as_str())) {
        let mistake = Mistake::new(
            Code::UnknownKey,
            key.at.clone(),
            format!("beside `template` there is no key `{}`", short(&key.text)),
        );
        problems.add(mistake.help(format!("the keys here are: {}", ITEM.join(", "))));
    }
    let Some(template) = scalar(reference).and_then(|name| theirs.template(name)) else {
        tell_lost(reference, theirs, problems);
        return Vec::new();
    };
    if !theirs.may_expand(template.checks.len(), &reference.at, problems) {
        return Vec::new();
    }
    template.notes.iter().cloned().for_each(|note| problems.add(note));
    let mut given = BTreeMap::new();
    if let Some(Kind::Map(args)) = get(item, "args").map(|args| &args.kind) {
        given.extend(args.iter().filter_map(|(key, node)| Some((key.text.clone(), scalar(node)?.to_owned()))));
    }
    let is_argo = get(item, "compat").and_then(|compat| scalar(compat)) == Some("argo");
    let mut told = Told { at: reference.at.clone(), is_argo, is_alone: theirs.is_alone, mistakes: Vec::new() };
    let dry = dry_rules(item, problems);
    let prometheus = get(item, "prometheus");
    let with = |check: &Rc<Node>| {
        let Ok(check) = filled(check, &mut |text| {
            Ok::<_, std::convert::Infallible>(with_args(text, template, &given, Some(&mut told)))
        });
        let check = asked_of(&check, prometheus);
        let Kind::Map(own) = &check.kind else { return check };
        let is_passed_on = |key: &str| match key {
            "compat" | "from" => true,
            "dryRun" => dry.is_none(),
            _ => false,
        };
        let more = pairs.iter().filter(|(key, _)| is_passed_on(&key.text)).cloned();
        let is_dry = dry.as_ref().is_some_and(|rules| {
            text_of(&check, "name").is_some_and(|name| rules.iter().any(|rule| rule.is_match(name)))
        });
        let dry_run = is_dry.then(|| entry("dryRun", &Node::plain(item.at.clone(), "true".into())));
        Node::mapping(check.at.clone(), own.iter().cloned().chain(more).chain(dry_run).collect())
    };
    let checks = template.checks.iter().map(with).collect();
    for mistake in told.mistakes {
        problems.add(mistake);
    }
    checks
}

/// Tells of a template that is not here.
pub(super) fn tell_lost(name: &Rc<Node>, theirs: &Theirs, problems: &mut Problems) {
    let known: Vec<&str> = theirs.templates.keys().map(String::as_str).collect();
    let help = match known.is_empty() {
        true => "add its document after a line of `---`, or name its file: `manifests: [templates.yaml]`".to_owned(),
        false => format!("this file describes {}", known.join(", ")),
    };
    let message = format!("there is no template `{}` in this file", short(scalar(name).unwrap_or_default()));
    theirs.missing(&name.at, &message, &help, problems);
}

/// A check that asks another Prometheus server than it says, or, for `own`, evenkeel's own series.
pub(super) fn asked_of(check: &Rc<Node>, prometheus: Option<&Rc<Node>>) -> Rc<Node> {
    let (Some(server), Kind::Map(keys)) = (prometheus, &check.kind) else { return Rc::clone(check) };
    let is_own = scalar(server) == Some("own");
    let asked = |(key, node): &(Key, Rc<Node>)| match (key.text.as_str(), &node.kind) {
        ("prometheus", Kind::Map(of)) if is_own => {
            let kept = of.iter().filter(|(key, _)| matches!(key.text.as_str(), "query" | "range")).cloned();
            (Key { text: "metrics".into(), at: key.at.clone() }, Node::mapping(node.at.clone(), kept.collect()))
        }
        ("prometheus", Kind::Map(of)) => {
            let kept = of.iter().filter(|(key, _)| key.text != "address").cloned();
            (key.clone(), Node::mapping(node.at.clone(), kept.chain([entry("address", server)]).collect()))
        }
        _ => (key.clone(), Rc::clone(node)),
    };
    Node::mapping(check.at.clone(), keys.iter().map(asked).collect())
}

/// The rules on names of an item that has a list of them in `dryRun`.
fn dry_rules(item: &Rc<Node>, problems: &mut Problems) -> Option<Vec<regex::Regex>> {
    let Kind::List(rules) = &get(item, "dryRun")?.kind else { return None };
    Some(rules.iter().filter_map(|rule| dry_rule(rule, problems)).collect())
}

/// What is told of arguments: where, whether by Argo's rules, and what.
#[derive(Debug)]
pub(super) struct Told {
    at: std::ops::Range<usize>,
    is_argo: bool,
    is_alone: bool,
    mistakes: Vec<Mistake>,
}

/// A text with arguments in the place of their names.
pub(super) fn with_args(
    text: &str,
    template: &Template,
    given: &BTreeMap<String, String>,
    mut told: Option<&mut Told>,
) -> String {
    let mut known = |name: &str| -> Option<String> {
        let name = name.strip_prefix("args.")?;
        let is_argo = told.as_ref().is_some_and(|told| told.is_argo);
        // What a template does not declare is left aside there.
        let is_taken = !is_argo || template.args.contains_key(name);
        let own = template.args.get(name).and_then(Option::as_ref);
        if let Some(value) = given.get(name).filter(|_| is_taken).or(own) {
            return Some(value.clone());
        }
        let ours = ours_for(name);
        let Some(told) = told.as_deref_mut() else { return Some(ours.unwrap_or("1").to_owned()) };
        Some(told.filled_in(name, ours))
    };
    let Ok(filled) = fill(text, &mut |name| Ok::<_, std::convert::Infallible>(known(name)));
    filled
}

/// What evenkeel knows under a name that people give to an argument.
fn ours_for(name: &str) -> Option<&'static str> {
    let plain = name.to_ascii_lowercase();
    match plain.as_str() {
        "deployment" | "deployment-name" | "canary-name" => Some("{{deployment}}"),
        "service" | "service-name" | "app" | "app-name" | "name" => Some("{{service}}"),
        "namespace" => Some("{{namespace}}"),
        "version" => Some("{{version}}"),
        _ if plain.contains("hash") && plain.contains("stable") => Some("{{stable}}"),
        _ if plain.contains("hash") => Some("{{release}}"),
        _ => None,
    }
}

impl Told {
    /// What stands for an argument that nobody gives, which is told.
    fn filled_in(&mut self, name: &str, ours: Option<&str>) -> String {
        if let Some(ours) = ours.filter(|_| !self.is_argo) {
            let message = format!("nobody gives the argument `{}`: evenkeel fills in {ours}", short(name));
            let help = format!("write `args: {{ {}: … }}` to say something else", short(name));
            self.mistakes.push(Mistake::new(Code::FilledIn, self.at.clone(), message).help(help));
            return ours.to_owned();
        }
        let code = if self.is_alone { Code::Elsewhere } else { Code::MissingKey };
        let message = format!("nobody gives the argument `{}`", short(name));
        let help = format!("add `args: {{ {}: … }}`", short(name));
        self.mistakes.push(Mistake::new(code, self.at.clone(), message).help(help));
        "1".to_owned()
    }
}
