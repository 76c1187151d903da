//! Trees of values, as others write them: what stands where, and what is written anew.

use std::rc::Rc;

use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Kind, Node};

pub(super) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Rc<Node>> {
    let Kind::Map(pairs) = &node.kind else { return None };
    pairs.iter().find(|(known, _)| known.text == key).map(|(_, node)| node).filter(|node| !node.is_null())
}

pub(super) fn scalar(node: &Node) -> Option<&str> {
    if let Kind::Scalar(scalar) = &node.kind { Some(&scalar.text) } else { None }
}

pub(super) fn items(node: Option<&Rc<Node>>) -> &[Rc<Node>] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        Some(Kind::Scalar(_) | Kind::Map(_)) | None => &[],
    }
}

pub(super) fn name_of(document: &Node) -> Option<String> {
    get(document, "metadata")
        .and_then(|metadata| get(metadata, "name"))
        .and_then(|name| scalar(name))
        .map(str::to_owned)
}

/// One entry of ours with the value they wrote.
pub(super) fn entry(key: &str, node: &Rc<Node>) -> (Key, Rc<Node>) {
    (Key { text: key.to_owned(), at: node.at.clone() }, Rc::clone(node))
}

/// A tree with another text in the place of each.
pub(super) fn filled<E>(node: &Rc<Node>, with: &mut impl FnMut(&str) -> Result<String, E>) -> Result<Rc<Node>, E> {
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

/// One entry of a mapping.
pub(super) type Entry = (Key, Rc<Node>);

/// A single value below a key.
pub(super) fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    get(node, key).and_then(|node| scalar(node))
}

/// What stands at the end of a path of keys.
pub(super) fn below<'a>(node: &'a Rc<Node>, path: &[&str]) -> Option<&'a Rc<Node>> {
    path.iter().try_fold(node, |node, key| get(node, key))
}

/// The entries of a mapping; of anything else none.
pub(super) fn pairs(node: Option<&Rc<Node>>) -> &[(Key, Rc<Node>)] {
    match node.map(|node| &node.kind) {
        Some(Kind::Map(pairs)) => pairs,
        Some(Kind::Scalar(_) | Kind::List(_)) | None => &[],
    }
}

/// Keys that nothing is done with, and why.
pub(super) type Reasons = &'static [(&'static [&'static str], &'static str)];

/// Tells which keys of a mapping nothing is done with: one note for all that share a reason. A key that is neither in
/// `used` nor in `reasons` is no key of `what`.
pub(super) fn tell_unused(
    node: Option<&Rc<Node>>,
    used: &[&str],
    reasons: Reasons,
    what: &str,
    problems: &mut Problems,
) {
    let is_known = |key: &Key| used.contains(&key.text.as_str());
    let is_among = |keys: &[&str], key: &Key| keys.contains(&key.text.as_str());
    for (keys, why) in reasons {
        tell_together(pairs(node).iter().map(|(key, _)| key).filter(|key| is_among(keys, key)), why, problems);
    }
    for (key, _) in pairs(node).iter().filter(|(key, _)| !is_known(key)) {
        if reasons.iter().any(|(keys, _)| is_among(keys, key)) {
            continue;
        }
        let known: Vec<&'static str> = reasons.iter().flat_map(|(keys, _)| keys.iter().copied()).collect();
        let near = used.iter().chain(&known).find(|known| known.eq_ignore_ascii_case(&key.text));
        let near = near.or_else(|| used.iter().find(|known| strsim::osa_distance(known, &head(&key.text)) <= 2));
        let help = near.map_or_else(|| "leave it out".to_owned(), |near| format!("write `{near}`"));
        let message = format!("{what} has no key `{}`", short(&key.text));
        problems.add(Mistake::new(Code::UnknownKey, key.at.clone(), message).help(help));
    }
}

/// The beginning of a key, to be compared with others.
fn head(key: &str) -> String {
    key.chars().take(64).collect()
}

/// One note for several keys of one mapping that nothing is done with.
pub(super) fn tell_together<'a>(keys: impl Iterator<Item = &'a Key>, why: &str, problems: &mut Problems) {
    let keys: Vec<&Key> = keys.collect();
    let Some(first) = keys.first() else { return };
    let named: Vec<String> = keys.iter().map(|key| format!("`{}`", short(&key.text))).collect();
    let message = match &named[..] {
        [only] => format!("{only} is not used"),
        [rest @ .., last] => format!("{} and {last} are not used", rest.join(", ")),
        [] => return,
    };
    problems.add(Mistake::new(Code::NotUsed, first.at.clone(), message).help(why));
}

/// Something nobody said, filled in from what evenkeel knows.
pub(super) fn tell_filled_in(
    at: &std::ops::Range<usize>,
    message: String,
    help: impl Into<String>,
    problems: &mut Problems,
) {
    problems.add(Mistake::new(Code::FilledIn, at.clone(), message).help(help));
}

/// Something that cannot be carried out as it is written.
pub(super) fn tell_bad(at: &std::ops::Range<usize>, message: String, help: impl Into<String>, problems: &mut Problems) {
    problems.add(Mistake::new(Code::BadValue, at.clone(), message).help(help));
}

/// A number of seconds as a duration of ours.
pub(super) fn seconds(node: &Rc<Node>) -> Rc<Node> {
    let text = scalar(node).unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Anything else is told by whoever reads durations.
    if is_number { Node::plain(node.at.clone(), format!("{text}s")) } else { Rc::clone(node) }
}
