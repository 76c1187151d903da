//! What people bring from elsewhere: `Rollout`, `AnalysisTemplate` and `ClusterAnalysisTemplate` of Argo Rollouts, `Canary`
//! and `MetricTemplate` of Flagger, and Kubernetes' `Deployment`, `Service`, `HorizontalPodAutoscaler`, `ConfigMap`,
//! `Secret` and `ExternalSecret` (which keys they have, never a value).
//!
//! Such documents stand beside services in one file, or alone. What they say is written anew as a document of our own, each
//! value with the place where they wrote it: so that there is one reader, and every mistake is shown where it is. A field
//! that is not used is told. Modules, in reading order:
//!
//! - `workload`: which services are there, and what does each take from which document?
//! - `pod`, `around`: what runs, and where users connect.
//! - `strategy`, `steps`, `routes`, `analysis`: how an Argo `Rollout` or a `Deployment` takes over.
//! - `canary`, `webhooks`: how a Flagger `Canary` does.
//! - `argo`, `flagger`: what templates and metrics measure, as checks.
//! - `fill`: the checks of a template in the place of its name.
//! - `tree`: what stands where in others' documents.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use evenkeel_core::spec::Spec;

use crate::checks;
use crate::environments;
use crate::fields::Value;
use crate::file::without_marks;
use crate::problem::{Code, Mistake, Problems};
use crate::service::service;
use crate::values::{short, written};
use crate::yaml::{Node, documents};

mod analysis;
mod argo;
mod around;
mod canary;
mod fill;
mod flagger;
mod pod;
mod routes;
mod steps;
mod strategy;
mod tree;
mod webhooks;
mod workload;

use argo::argo;
use fill::{with_args, within};
use flagger::flagger;
use tree::{filled, get, items, name_of, scalar};
#[cfg(test)]
pub(crate) use workload::REFERENCE;

/// Most checks that names of templates may stand for in one file.
const EXPANDED_MAX: usize = 5_000;
/// Kinds that are read; any other document with an `apiVersion` and a `kind` is told.
const KINDS: &[&str] = &[
    "AnalysisTemplate",
    "ClusterAnalysisTemplate",
    "Canary",
    "ConfigMap",
    "Deployment",
    "ExternalSecret",
    "HorizontalPodAutoscaler",
    "MetricTemplate",
    "Rollout",
    "Secret",
    "Service",
];

/// Checks that somebody else's document describes.
#[derive(Debug)]
struct Template {
    /// Arguments, each with its value where it has one.
    args: BTreeMap<String, Option<String>>,
    checks: Vec<Rc<Node>>,
    /// What is told where it is named as no more than a template.
    notes: Vec<Mistake>,
}

/// Documents of theirs.
#[derive(Debug, Default)]
struct Theirs {
    templates: BTreeMap<String, Template>,
    documents: Vec<Rc<Node>>,
    /// Nothing of ours stands beside them: what they need may stand elsewhere.
    is_alone: bool,
    /// How many checks were put in the place of names so far.
    expanded: Cell<usize>,
}

impl Theirs {
    fn of_kind<'a>(&'a self, kind: &'static str) -> impl Iterator<Item = &'a Rc<Node>> {
        self.documents.iter().filter(move |document| kind_of(document) == Some(kind))
    }

    fn named(&self, kinds: &[&str], name: &str) -> Option<&Rc<Node>> {
        let is_kind = |document: &&Rc<Node>| kind_of(document).is_some_and(|kind| kinds.contains(&kind));
        self.documents.iter().filter(is_kind).find(|document| name_of(document).as_deref() == Some(name))
    }

    fn template(&self, name: &str) -> Option<&Template> {
        self.templates.get(name)
    }

    /// Whether so many checks more may stand in the place of names; told when they may not.
    fn may_expand(&self, checks: usize, at: &Range<usize>, problems: &mut Problems) -> bool {
        let all = self.expanded.get().saturating_add(checks);
        self.expanded.set(all);
        if all > EXPANDED_MAX {
            let message = format!("the templates of this file stand for more than {EXPANDED_MAX} checks");
            problems
                .add(Mistake::new(Code::TooLarge, at.clone(), message).help("name fewer of them, or split the file"));
        }
        all <= EXPANDED_MAX
    }

    /// Tells of something that is not here: a mistake; or, where only documents of theirs are looked at, a note.
    fn missing(&self, at: &Range<usize>, message: &str, help: &str, problems: &mut Problems) {
        let code = if self.is_alone { Code::Elsewhere } else { Code::MissingKey };
        problems.add(Mistake::new(code, at.clone(), message).help(help));
    }
}

/// What a file of their documents alone says.
#[derive(Debug)]
pub struct ReadTheirs {
    /// The services that it describes; what it does not say stands for something.
    pub specs: Vec<Spec>,
    /// Each of them as a document of our own.
    pub resolved: Vec<String>,
    /// How many checks its templates describe.
    pub checks: usize,
    /// What is odd about it; may be empty.
    pub warnings: Problems,
}

/// Tells whether a file has documents of theirs and none of a service.
#[must_use]
pub fn is_theirs(text: &str) -> bool {
    let documents = documents(&mut Problems::none("", text));
    !documents.is_empty() && documents.iter().all(|document| kind_of(document).is_some())
}

/// Reads files of their documents alone, each with its name.
///
/// # Errors
/// [`Problems`] with every mistake of the files.
pub fn read_theirs(files: &[(String, String)]) -> Result<ReadTheirs, Problems> {
    let mut problems = Problems::of(&without_marks(files));
    let (_, theirs) = apart(documents(&mut problems), true, &mut problems);
    let mut checks = 0;
    for template in theirs.templates.values() {
        let given = BTreeMap::new();
        // What is not given yet stands for something: what is around it is looked at all the same.
        for check in &template.checks {
            checks += 1;
            let mut with = |text: &str| Ok::<_, std::convert::Infallible>(with_args(text, template, &given, None));
            let Ok(check) = filled(check, &mut with);
            let list = Node::list(check.at.clone(), vec![check]);
            let value = Value { name: "`metrics`".into(), node: &list };
            checks::checks(&value, false, &mut problems);
        }
    }
    let documents = workload::services(Vec::new(), &theirs, &mut problems);
    let documents: Vec<Rc<Node>> = documents.iter().map(|document| within(document, &theirs, &mut problems)).collect();
    if documents.is_empty() && checks == 0 && problems.errors() == 0 {
        tell_nothing(&theirs, &mut problems);
    }
    let services: Vec<_> = documents.iter().filter_map(|document| service(document, &mut problems)).collect();
    problems.sort();
    if problems.errors() > 0 {
        return Err(problems);
    }
    let resolved = documents.iter().map(|document| environments::written(document)).collect();
    let specs = services.into_iter().map(|service| service.spec).collect();
    Ok(ReadTheirs { specs, resolved, checks, warnings: problems })
}

/// Tells that nothing in a file is of any use.
fn tell_nothing(theirs: &Theirs, problems: &mut Problems) {
    let Some(first) = theirs.documents.first() else { return };
    if theirs.documents.iter().any(|document| kind_of(document).is_some_and(|kind| KINDS.contains(&kind))) {
        return;
    }
    let message = format!("nothing is done with `{}`", short(kind_of(first).unwrap_or_default()));
    let help = format!("these kinds are read: {}", KINDS.join(", "));
    problems.add(Mistake::new(Code::NoService, first.at.clone(), message).help(help));
}

/// The documents of services, with what theirs say in its place.
pub(crate) fn expand(documents: Vec<Rc<Node>>, problems: &mut Problems) -> Vec<Rc<Node>> {
    let (own, theirs) = apart(documents, false, problems);
    let services = workload::services(own, &theirs, problems);
    let services: Vec<Rc<Node>> = services.iter().map(|service| within(service, &theirs, problems)).collect();
    if services.is_empty() && problems.errors() == 0 {
        tell_nothing(&theirs, problems);
    }
    services
}

/// Files that services name to stand beside them, each with its place.
#[must_use]
pub fn manifests(text: &str) -> Vec<(String, Range<usize>)> {
    let mut problems = Problems::none("", text);
    let documents = documents(&mut problems);
    let lists = documents.iter().filter(|document| kind_of(document).is_none()).filter_map(|own| get(own, "manifests"));
    lists.flat_map(|list| manifest_paths(list, &mut problems)).collect()
}

/// A path, or a list of them.
fn manifest_paths(list: &Rc<Node>, problems: &mut Problems) -> Vec<(String, Range<usize>)> {
    let help = "name files or folders below the one of this file: `manifests: [kubernetes/rollout.yaml]`";
    let one = std::slice::from_ref(list);
    let nodes = if scalar(list).is_some() { one } else { items(Some(list)) };
    if nodes.is_empty() {
        let value = Value { name: "`manifests`".into(), node: list };
        value.bad("`manifests` names no file", help, problems);
    }
    let read = |node: &Rc<Node>| {
        let value = Value { name: "an item of `manifests`".into(), node };
        let path = written(&value, problems)?;
        let is_below = !path.is_empty() && !path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if !is_below {
            value.bad(format!("`{}` is not below the folder of this file", short(&path)), help, problems);
            return None;
        }
        Some((path, node.at.clone()))
    };
    nodes.iter().filter_map(read).collect()
}

/// The kind of a document of theirs; `None`: it is ours.
fn kind_of(document: &Node) -> Option<&str> {
    let kind = scalar(get(document, "kind")?)?;
    let is_theirs = get(document, "apiVersion").is_some() && get(document, "service").is_none();
    // Rules are read by whoever reads rules.
    (is_theirs && kind != "PrometheusRule").then_some(kind)
}

/// Documents apart by whose they are, and templates read.
fn apart(documents: Vec<Rc<Node>>, is_alone: bool, problems: &mut Problems) -> (Vec<Rc<Node>>, Theirs) {
    let (theirs, own): (Vec<_>, Vec<_>) = documents.into_iter().partition(|node| kind_of(node).is_some());
    let mut theirs = Theirs { documents: theirs, is_alone, ..Theirs::default() };
    for document in &theirs.documents {
        let kind = kind_of(document).unwrap_or_default();
        if !KINDS.contains(&kind) {
            let at = get(document, "kind").map_or(&document.at, |kind| &kind.at);
            let message = format!("nothing is done with `{}`", short(kind));
            problems.add(Mistake::new(Code::NotUsed, at.clone(), message).help("leave it where it is, or out"));
            continue;
        }
        if name_of(document).is_none() {
            let mistake = Mistake::new(Code::MissingKey, document.at.clone(), "this document has no name");
            problems.add(mistake.help("write `metadata: { name: success-rate }`"));
        }
    }
    let mut templates = BTreeMap::new();
    for document in &theirs.documents {
        let Some(name) = name_of(document) else { continue };
        let template = match kind_of(document) {
            Some("Canary") => flagger(document, &theirs, problems),
            Some("AnalysisTemplate" | "ClusterAnalysisTemplate") => argo(document, &theirs, problems),
            Some(_) | None => continue,
        };
        if templates.insert(name.clone(), template).is_some() {
            let mistake =
                Mistake::new(Code::Conflict, document.at.clone(), format!("`{}` is described twice", short(&name)));
            problems.add(mistake.help("give one of them another name"));
        }
    }
    theirs.templates = templates;
    (own, theirs)
}
