//! Workloads of theirs as services: a Rollout, a Deployment, a Canary with what it is of.
//!
//! A service of ours with the name of a workload is that workload: what the service says goes before, and what it does
//! not say is taken from there. A workload that nobody names is a service of its own.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::around::{self, Colours, Door};
use super::canary;
use super::pod::{self, Asked, pod};
use super::strategy;
use super::tree::{Entry, Reasons, below, entry, get, name_of, pairs, scalar, tell_unused, text};
use super::{Theirs, kind_of};
use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{short, text as one_text};
use crate::yaml::{Key, Kind, Node};

/// What `rollout` and `flagger` below `strategy` may say beside a name.
pub(crate) static REFERENCE: Section = Section {
    what: "a strategy of others",
    keys: &["name", "compat", "prometheus"],
    elsewhere: &[("metadata", "write `name`"), ("rules", "write `compat: argo`")],
};

const ROLLOUT: &[&str] = &[
    "replicas",
    "selector",
    "template",
    "workloadRef",
    "strategy",
    "progressDeadlineSeconds",
    "progressDeadlineAbort",
];
const ROLLOUT_UNUSED: Reasons = &[
    (&["minReadySeconds"], "a replica is ready when its readiness probe says so; a step lasts as long as its pause"),
    (&["rollbackWindow"], "`evenkeel rollback` goes to any of the last 10 releases at once: no way back is analysed"),
    (&["revisionHistoryLimit"], "the last 10 releases can be started again"),
    (&["paused"], "`evenkeel pause` holds a rollout still, and `approvals` in `gates` keep one from beginning"),
    (&["restartAt"], "`evenkeel deploy --again` starts new replicas of the same version"),
    (&["analysis"], "the last 20 rollouts of a service are kept, with their measurements"),
];
const DEPLOYMENT: &[&str] =
    &["replicas", "selector", "template", "strategy", "progressDeadlineSeconds", "minReadySeconds"];
const DEPLOYMENT_UNUSED: Reasons = &[
    (&["revisionHistoryLimit"], "the last 10 releases can be started again"),
    (&["paused"], "`evenkeel pause` holds a rollout still, and `approvals` in `gates` keep one from beginning"),
];

/// One workload.
struct Workload<'a> {
    name: String,
    /// Says how a release takes over.
    document: &'a Rc<Node>,
    /// Says how many run.
    spec: Option<&'a Rc<Node>>,
    /// Says what runs.
    template: Option<&'a Rc<Node>>,
    colours: Option<Colours<'a>>,
}

/// The services of a file: ours, with what theirs say where ours do not, and theirs that nobody names.
pub(super) fn services(own: Vec<Rc<Node>>, theirs: &Theirs, problems: &mut Problems) -> Vec<Rc<Node>> {
    let workloads = workloads(theirs, &templates_named(&own), problems);
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let mut services = Vec::new();
    for document in own {
        let mut document = without_manifests(document, problems);
        let same = workloads.iter().position(|workload| text(&document, "service") == Some(&workload.name));
        let reference = strategy::reference(&document).map(|(kind, of)| (kind, Rc::clone(of)));
        if let Some(n) = same {
            taken.insert(n);
            let entries = workloads[n].entries(Some(&document), theirs, problems);
            document = merged(&document, entries);
        }
        if let Some((kind, of)) = reference {
            document = referred(&document, kind, &of, &workloads, &mut taken, theirs, problems);
        }
        services.push(document);
    }
    for (_, workload) in workloads.iter().enumerate().filter(|(n, _)| !taken.contains(n)) {
        let name = Node::quoted(name_at(workload), workload.name.clone());
        let entries = std::iter::once(entry("service", &name)).chain(workload.entries(None, theirs, problems));
        services.push(Node::mapping(workload.document.at.clone(), entries.collect()));
    }
    services
}

fn name_at(workload: &Workload<'_>) -> std::ops::Range<usize> {
    below(workload.document, &["metadata", "name"]).map_or_else(|| workload.document.at.clone(), |name| name.at.clone())
}

/// Names of templates that services of ours name: a Canary among them is only that.
fn templates_named(own: &[Rc<Node>]) -> BTreeSet<String> {
    fn collect(node: &Node, names: &mut BTreeSet<String>) {
        match &node.kind {
            Kind::Map(entries) => {
                names.extend(text(node, "template").map(str::to_owned));
                entries.iter().for_each(|(_, inner)| collect(inner, names));
            }
            Kind::List(items) => items.iter().for_each(|item| collect(item, names)),
            Kind::Scalar(_) => {}
        }
    }
    let mut names = BTreeSet::new();
    own.iter().for_each(|document| collect(document, &mut names));
    names
}

fn workloads<'a>(theirs: &'a Theirs, templates: &BTreeSet<String>, problems: &mut Problems) -> Vec<Workload<'a>> {
    let mut found: Vec<Workload<'a>> = Vec::new();
    let mut used: Vec<&Rc<Node>> = Vec::new();
    for rollout in theirs.of_kind("Rollout") {
        let Some(name) = name_of(rollout) else { continue };
        let spec = get(rollout, "spec");
        let referred = spec.and_then(|spec| get(spec, "workloadRef")).and_then(|of| text(of, "name"));
        let deployment = referred.and_then(|name| theirs.named(&["Deployment"], name));
        used.extend(deployment);
        let template = spec.and_then(|spec| get(spec, "template"));
        let template = template.or_else(|| deployment.and_then(|of| below(of, &["spec", "template"])));
        found.push(Workload { name, document: rollout, spec, template, colours: None });
    }
    for canary in theirs.of_kind("Canary") {
        let target = below(canary, &["spec", "targetRef", "name"]).and_then(|name| scalar(name));
        let (Some(name), Some(target)) = (name_of(canary), target) else { continue };
        if templates.contains(&name) {
            continue;
        }
        let deployment = theirs.named(&["Deployment"], target);
        used.extend(deployment);
        let spec = deployment.and_then(|of| get(of, "spec"));
        let template = spec.and_then(|spec| get(spec, "template"));
        found.push(Workload { name: target.to_owned(), document: canary, spec, template, colours: None });
    }
    for colours in around::colours(theirs) {
        let is_used = |of: &Rc<Node>| used.iter().any(|known| Rc::ptr_eq(known, of));
        if is_used(colours.idle) || is_used(colours.live) {
            continue;
        }
        used.extend([colours.idle, colours.live]);
        let spec = get(colours.idle, "spec");
        let template = spec.and_then(|spec| get(spec, "template"));
        let name = name_of(colours.service).unwrap_or_default();
        found.push(Workload { name, document: colours.idle, spec, template, colours: Some(colours) });
    }
    for deployment in theirs.of_kind("Deployment") {
        let Some(name) = name_of(deployment) else { continue };
        let is_used = used.iter().any(|known| Rc::ptr_eq(known, deployment));
        if let Some(rollout) = found.iter().find(|known| known.name == name && !is_used) {
            let message = format!(
                "the Deployment `{}` is not used: the {} of that name is",
                short(&name),
                kind_of(rollout.document).unwrap_or_default()
            );
            let help = "leave one of the two out, or give it another name";
            problems.add(Mistake::new(Code::NotUsed, deployment.at.clone(), message).help(help));
            continue;
        }
        if !used.iter().any(|known| Rc::ptr_eq(known, deployment)) {
            let spec = get(deployment, "spec");
            let template = spec.and_then(|spec| get(spec, "template"));
            found.push(Workload { name, document: deployment, spec, template, colours: None });
        }
    }
    found
}

impl Workload<'_> {
    /// Its keys as those of a service, but for the name; `own` is the service of ours that it is.
    fn entries(&self, own: Option<&Node>, theirs: &Theirs, problems: &mut Problems) -> Vec<Entry> {
        let has = |key: &str| own.is_some_and(|own| get(own, key).is_some());
        self.tell_unused(problems);
        let mut entries = Vec::new();
        let least = around::least_replicas(&self.name, theirs, problems);
        let replicas = self.spec.and_then(|spec| get(spec, "replicas")).cloned().or(least);
        entries.extend(replicas.map(|replicas| entry("replicas", &replicas)));
        let labels = self.template.and_then(|template| below(template, &["metadata", "labels"]));
        let door = self.colours.as_ref().map_or_else(
            || around::door(labels, &self.service_names(), theirs),
            |colours| around::door(None, &[&name_of(colours.service).unwrap_or_default()], theirs),
        );
        let target = canary::target(self.document).or(door.as_ref().and_then(|door| door.target));
        let asked = Asked { name: &self.name, document: self.document, target, needs_command: !has("command") };
        let mut port = None;
        match self.template {
            Some(template) => {
                let (of_pod, own_port) = pod(template, &asked, theirs, problems);
                entries.extend(of_pod);
                port = own_port;
            }
            None if asked.needs_command => {
                let at = &self.document.at;
                let message = "nothing says what runs: this document has no pod template beside it";
                theirs.missing(at, message, &pod::command_help(&self.name), problems);
                entries.extend(pod::stand_in(&self.name, at));
            }
            None => {}
        }
        if !has("listen") {
            entries.push(self.listen(door.as_ref(), port, theirs, problems));
        }
        match own.and_then(|own| get(own, "strategy")) {
            None => {
                entries.extend(self.strategy(&[], theirs, problems));
            }
            Some(written) if strategy::reference(own.unwrap_or(written)).is_none() => {
                let theirs_at = below(self.document, &["spec", "strategy"]).map_or(&self.document.at, |node| &node.at);
                let message = "how a release takes over is said by the service's own `strategy`";
                let mistake = Mistake::new(Code::NotUsed, theirs_at.clone(), message);
                problems.add(mistake.also(written.at.clone(), "this one").help("leave one of the two out"));
            }
            Some(_) => {}
        }
        entries
    }

    fn tell_unused(&self, problems: &mut Problems) {
        let spec = get(self.document, "spec");
        if kind_of(self.document) == Some("Rollout") {
            tell_unused(spec, ROLLOUT, ROLLOUT_UNUSED, "a Rollout", problems);
            let reference = spec.and_then(|spec| get(spec, "workloadRef"));
            let reasons: Reasons =
                &[(&["scaleDown"], "the Deployment is not running here: there is nothing to scale down")];
            tell_unused(reference, &["apiVersion", "kind", "name"], reasons, "`workloadRef`", problems);
            let both = reference.zip(spec.and_then(|spec| get(spec, "template")));
            if let Some((reference, template)) = both {
                let mistake = Mistake::new(
                    Code::Conflict,
                    reference.at.clone(),
                    "`workloadRef` and `template` exclude each other",
                );
                problems.add(mistake.also(template.at.clone(), "the other one").help("keep one of them"));
            }
            let abort = spec.and_then(|spec| get(spec, "progressDeadlineAbort"));
            if let Some(abort) = abort.filter(|abort| scalar(abort) == Some("false")) {
                let message =
                    "`progressDeadlineAbort` is not used: a release whose replicas are not ready in time is taken back";
                let help = "leave it out; `progressDeadlineSeconds` is how long it may take";
                problems.add(Mistake::new(Code::NotUsed, abort.at.clone(), message).help(help));
            }
        }
        if let Some(spec) = self.spec.filter(|_| kind_of(self.document) != Some("Rollout")) {
            tell_unused(Some(spec), DEPLOYMENT, DEPLOYMENT_UNUSED, "a Deployment", problems);
        }
    }

    /// Services that it names itself.
    fn service_names(&self) -> Vec<&str> {
        let of = |path: &[&str]| below(self.document, path).and_then(|name| scalar(name));
        let names = [
            of(&["spec", "strategy", "blueGreen", "activeService"]),
            of(&["spec", "strategy", "canary", "stableService"]),
        ];
        names.into_iter().flatten().collect()
    }

    fn listen(
        &self,
        door: Option<&Door<'_>>,
        port: Option<&Rc<Node>>,
        theirs: &Theirs,
        problems: &mut Problems,
    ) -> Entry {
        if let Some(port) = canary::port(self.document) {
            return around::listen(port, problems);
        }
        if let Some(listen) = door.and_then(|door| door.listen(problems)) {
            return listen;
        }
        if let Some(port) = port {
            return around::listen(port, problems);
        }
        let at = &self.document.at;
        let message = "nothing says where users connect: there is no Service, and the container has no port";
        let help = format!(
            "add `listen: 127.0.0.1:8080` or `listen: none` to a document of your own: `service: {}`",
            short(&self.name)
        );
        theirs.missing(at, message, &help, problems);
        entry("listen", &Node::quoted(at.clone(), "127.0.0.1:8080".into()))
    }

    /// How a release takes over; `beside` stands beside each template that is named.
    fn strategy(&self, beside: &[Entry], theirs: &Theirs, problems: &mut Problems) -> Vec<Entry> {
        if let Some(colours) = &self.colours {
            return strategy::of_colours(colours.service, &colours.label, problems);
        }
        match kind_of(self.document) {
            Some("Rollout") => strategy::of_rollout(self.document, beside, theirs, problems),
            Some("Canary") => canary::strategy(self.document, beside, theirs, problems),
            Some(_) | None => strategy::of_deployment(self.document, problems),
        }
    }
}

/// A service with keys of a workload: its own go before; checks are joined, and environments name by name.
fn merged(own: &Rc<Node>, entries: Vec<Entry>) -> Rc<Node> {
    let mut merged: Vec<Entry> = pairs(Some(own)).to_vec();
    for (key, node) in entries {
        let Some((_, known)) = merged.iter_mut().find(|(known, _)| known.text == key.text) else {
            merged.push((key, node));
            continue;
        };
        let joined = match (key.text.as_str(), &known.kind, &node.kind) {
            ("checks" | "afterwards" | "events", Kind::List(own), Kind::List(theirs)) => {
                Node::list(known.at.clone(), own.iter().chain(theirs).cloned().collect())
            }
            ("env" | "gates" | "stop" | "probes", Kind::Map(own), Kind::Map(theirs)) => {
                let is_own = |key: &Key| own.iter().any(|(known, _)| known.text == key.text);
                let kept = theirs.iter().filter(|(key, _)| !is_own(key)).cloned();
                Node::mapping(known.at.clone(), own.iter().cloned().chain(kept).collect())
            }
            _ => continue,
        };
        *known = joined;
    }
    Node::mapping(own.at.clone(), merged)
}

/// A service whose `strategy` names a document of theirs, with that strategy in its place.
fn referred(
    own: &Rc<Node>,
    kind: &str,
    of: &Rc<Node>,
    workloads: &[Workload<'_>],
    taken: &mut BTreeSet<usize>,
    theirs: &Theirs,
    problems: &mut Problems,
) -> Rc<Node> {
    let value = Value { name: format!("`{kind}`"), node: of };
    let is_map = matches!(of.kind, Kind::Map(_));
    let fields = is_map.then(|| Fields::open(&value, &REFERENCE, problems)).flatten();
    let name = match &fields {
        Some(fields) => fields.required("name", "name: web", problems, one_text),
        None => one_text(&value, problems),
    };
    let is_beside = |(key, _): &&Entry| matches!(key.text.as_str(), "compat" | "prometheus");
    let beside: Vec<Entry> = pairs(Some(of)).iter().filter(is_beside).cloned().collect();
    let what = if kind == "rollout" { "Rollout" } else { "Canary" };
    let is_it = |workload: &Workload<'_>| {
        kind_of(workload.document) == Some(what)
            && name.as_deref().is_some_and(|name| name_of(workload.document).as_deref() == Some(name))
    };
    let plain = pairs(Some(own)).iter().filter(|(key, _)| key.text != "strategy").cloned();
    let plain = Node::mapping(own.at.clone(), plain.collect());
    let Some(n) = workloads.iter().position(is_it) else {
        if let Some(name) = name {
            let message = format!("there is no {what} `{}` in this file", short(&name));
            let help = "add its document after a line of `---`, or name its file: `manifests: [rollout.yaml]`";
            problems.add(Mistake::new(Code::BadValue, of.at.clone(), message).help(help));
        }
        return plain;
    };
    taken.insert(n);
    merged(&plain, workloads[n].strategy(&beside, theirs, problems))
}

/// A service without the key that names files beside it: whoever can look has read them.
fn without_manifests(document: Rc<Node>, problems: &mut Problems) -> Rc<Node> {
    let Some(list) = get(&document, "manifests") else { return document };
    super::manifest_paths(list, problems);
    let keys = pairs(Some(&document)).iter().filter(|(key, _)| key.text != "manifests").cloned();
    Node::mapping(document.at.clone(), keys.collect())
}
