//! Where Argo Rollouts names templates, as items of our lists of checks.

use std::rc::Rc;

use super::Theirs;
use super::fill::tell_lost;
use super::tree::{Entry, below, entry, get, items, pairs, scalar, tell_bad, tell_unused, text};
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Kind, Node};

/// Most templates and arguments of one analysis.
const ITEMS_MAX: usize = 100;

/// What the analyses of one rollout have in common.
#[derive(Debug)]
pub(super) struct Analysed<'a> {
    /// The document that names them: its fields may be arguments.
    pub(super) document: &'a Rc<Node>,
    /// Where its templates are.
    pub(super) theirs: &'a Theirs,
    /// What stands beside each template: `compat`, `prometheus`.
    pub(super) beside: &'a [Entry],
}

/// Writes `templates` with their arguments as items; `from` is the step that they begin with, where they run beside them.
pub(super) fn analysis(
    of: &Rc<Node>,
    from: Option<&Rc<Node>>,
    how: &Analysed<'_>,
    problems: &mut Problems,
) -> Vec<Rc<Node>> {
    let used = ["templates", "args", "dryRun", "startingStep", "templateName"];
    let reasons: super::tree::Reasons = &[
        (&["measurementRetention"], "evenkeel shows the last 10 measurements of each check, and counts all of them"),
        (&["analysisRunMetadata"], "a run has no labels: it is told with its rollout"),
    ];
    tell_unused(Some(of), &used, reasons, "an analysis", problems);
    let args = few(get(of, "args"), problems).iter().filter_map(|arg| argument(arg, how, problems)).collect();
    let args = Node::mapping(of.at.clone(), args);
    let dry = items(get(of, "dryRun")).iter().filter_map(|rule| get(rule, "metricName").cloned()).collect();
    let dry = Node::list(of.at.clone(), dry);
    // One name without a list is how it was written once.
    let old = get(of, "templateName").map(|_| Rc::clone(of));
    let each: Vec<Rc<Node>> = few(get(of, "templates"), problems).iter().cloned().chain(old).collect();
    let mut names = 0;
    let written: Vec<Rc<Node>> = each
        .into_iter()
        .filter_map(|template| {
            let name = get(&template, "templateName")?;
            names += 1;
            if how.theirs.template(scalar(name)?).is_none() {
                tell_lost(name, how.theirs, problems);
                return None;
            }
            let mut keys = vec![entry("template", name)];
            if !pairs(Some(&args)).is_empty() {
                keys.push(entry("args", &args));
            }
            if !items(Some(&dry)).is_empty() {
                keys.push(entry("dryRun", &dry));
            }
            keys.extend(from.map(|from| entry("from", from)));
            keys.extend(how.beside.iter().cloned());
            Some(Node::mapping(template.at.clone(), keys))
        })
        .collect();
    if names == 0 {
        let mistake = Mistake::new(Code::MissingKey, of.at.clone(), "this analysis names no template");
        problems.add(mistake.help("add `templates: [{ templateName: success-rate }]`"));
    }
    written
}

/// The items of a list, as long as there are not too many.
fn few<'a>(list: Option<&'a Rc<Node>>, problems: &mut Problems) -> &'a [Rc<Node>] {
    let all = items(list);
    if all.len() <= ITEMS_MAX {
        return all;
    }
    let at = list.map_or(0..0, |list| list.at.clone());
    let message = format!("this list has {} items", all.len());
    problems.add(Mistake::new(Code::OutOfRange, at, message).help(format!("write at most {ITEMS_MAX}")));
    &[]
}

fn argument(arg: &Rc<Node>, how: &Analysed<'_>, problems: &mut Problems) -> Option<(Key, Rc<Node>)> {
    let name = get(arg, "name")?;
    let key = Key { text: scalar(name)?.to_owned(), at: name.at.clone() };
    if let Some(value) = get(arg, "value") {
        return Some((key, Rc::clone(value)));
    }
    let from = get(arg, "valueFrom")?;
    if let Some(hash) = get(from, "podTemplateHashValue") {
        let of = if scalar(hash) == Some("Stable") { "{{stable}}" } else { "{{release}}" };
        return Some((key, Node::quoted(hash.at.clone(), of.to_owned())));
    }
    let path = below(from, &["fieldRef", "fieldPath"])?;
    match field(how.document, scalar(path)?) {
        Some(value) => Some((key, Node::quoted(path.at.clone(), value.to_owned()))),
        None => {
            let message = format!("this document has no value at `{}`", short(scalar(path)?));
            tell_bad(
                &path.at,
                message,
                "name a field that is there, such as `metadata.name`, or write `value`",
                problems,
            );
            None
        }
    }
}

/// The value at a path as their field references have it: `metadata.labels['app']`, `spec.replicas`.
pub(super) fn field<'a>(document: &'a Rc<Node>, path: &str) -> Option<&'a str> {
    let plain = path.trim().trim_start_matches(['{', '.', '$']).trim_end_matches('}');
    let mut node = document;
    let mut rest = plain;
    while !rest.is_empty() {
        let (part, after) = match rest.strip_prefix('[') {
            Some(quoted) => quoted.split_once(']')?,
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        let part = part.trim_matches(['\'', '"']);
        node = match (&node.kind, part.parse::<usize>()) {
            (Kind::List(items), Ok(number)) => items.get(number)?,
            (Kind::List(_) | Kind::Map(_) | Kind::Scalar(_), _) => get(node, part)?,
        };
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    scalar(node)
}

/// What a document says it is called, and where.
pub(super) fn namespace(document: &Node) -> Option<&str> {
    get(document, "metadata").and_then(|metadata| text(metadata, "namespace"))
}
