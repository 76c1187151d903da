//! `environments`: one service in several places, each with what differs there.
//!
//! A service with environments becomes one document for each of them before it is read: the keys of the environment in
//! place of the service's own, `env` name by name. Every value keeps the place where it is written, so that a mistake
//! is shown there.

use std::rc::Rc;

use crate::fields::Value;
use crate::problem::{Code, Mistake, Problems};
use crate::values::{label, short};
use crate::yaml::{Key, Kind, Node};

/// What is the same wherever a service is: a release goes from one environment to the next as it is.
const SHARED: &[&str] = &["service", "environment", "environments", "command", "artefact"];
/// Most environments of one service.
const ENVIRONMENTS_MAX: usize = 20;
const HELP: &str = "write what differs in each: `environments: { staging: { listen: 9080 }, production: {} }`";

/// The documents that a document stands for: itself, or one for each of its environments.
pub(crate) fn expand(document: &Rc<Node>, problems: &mut Problems) -> Vec<Rc<Node>> {
    let Kind::Map(pairs) = &document.kind else { return vec![Rc::clone(document)] };
    let Some((at, written)) = pairs.iter().find(|(key, _)| key.text == "environments") else {
        return vec![Rc::clone(document)];
    };
    let base: Vec<(Key, Rc<Node>)> = pairs.iter().filter(|(key, _)| key.text != "environments").cloned().collect();
    if let Some((other, _)) = base.iter().find(|(key, _)| key.text == "environment") {
        let mistake =
            Mistake::new(Code::Conflict, other.at.clone(), "`environment` and `environments` exclude each other");
        problems.add(mistake.also(at.at.clone(), "the other one").help("leave `environment` out: each is named below"));
    }
    let value = Value { name: "`environments`".into(), node: written };
    let Kind::Map(environments) = &written.kind else {
        value.wrong_type("a mapping of names to what differs there", HELP, problems);
        return vec![Node::mapping(document.at.clone(), base)];
    };
    if environments.is_empty() || environments.len() > ENVIRONMENTS_MAX {
        let message = format!("`environments` names {} environments", environments.len());
        let mistake = Mistake::new(Code::OutOfRange, at.at.clone(), message);
        problems.add(mistake.help(format!("name 1 to {ENVIRONMENTS_MAX} of them, or leave `environments` out")));
        return vec![Node::mapping(document.at.clone(), base)];
    }
    environments.iter().filter_map(|(key, own)| merged(&base, key, own, problems)).collect()
}

/// The document of one environment.
fn merged(base: &[(Key, Rc<Node>)], name: &Key, own: &Node, problems: &mut Problems) -> Option<Rc<Node>> {
    let node = Node::text(name);
    label(&Value { name: "an environment".into(), node: &node }, problems)?;
    let value = Value { name: format!("`{}`", short(&name.text)), node: own };
    let Kind::Map(overrides) = &own.kind else {
        value.wrong_type("a mapping of what differs there", "write `{}` when nothing does", problems);
        return None;
    };
    let mut pairs: Vec<(Key, Rc<Node>)> = base.iter().filter(|(key, _)| key.text != "environment").cloned().collect();
    for (key, node) in overrides {
        if SHARED.contains(&key.text.as_str()) {
            let message = format!("`{}` is the same in every environment", key.text);
            let help = "write it at the top of the service; what differs goes into `env`, where the program finds it";
            problems.add(Mistake::new(Code::Conflict, key.at.clone(), message).help(help));
            continue;
        }
        match pairs.iter_mut().find(|(known, _)| known.text == key.text) {
            Some((place, known)) => {
                *known = if key.text == "env" { by_name(known, node) } else { Rc::clone(node) };
                *place = key.clone();
            }
            None => pairs.push((key.clone(), Rc::clone(node))),
        }
    }
    let environment = Key { text: "environment".into(), at: name.at.clone() };
    pairs.push((environment, Rc::new(node)));
    Some(Node::mapping(name.at.clone(), pairs))
}

/// One mapping over another, name by name.
fn by_name(base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
    let (Kind::Map(base_pairs), Kind::Map(own)) = (&base.kind, &over.kind) else { return Rc::clone(over) };
    let is_own = |key: &Key| own.iter().any(|(known, _)| known.text == key.text);
    let kept = base_pairs.iter().filter(|(key, _)| !is_own(key)).cloned();
    Node::mapping(over.at.clone(), kept.chain(own.iter().cloned()).collect())
}

/// A document as YAML: a key a line, everything below it in the flow style.
pub(crate) fn written(document: &Node) -> String {
    let Kind::Map(pairs) = &document.kind else { return format!("{}\n", document.flow()) };
    pairs.iter().map(|(key, node)| format!("{}: {}\n", key.text, node.flow())).collect()
}
