//! What stands around a workload: the Service that users connect to, and the autoscaler.

use std::rc::Rc;

use super::Theirs;
use super::tree::{
    Entry, Reasons, below, entry, get, items, name_of, pairs, scalar, tell_filled_in, tell_together, tell_unused, text,
};
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::Node;

const SERVICE: &[&str] = &["selector", "ports", "type"];
const SERVICE_UNUSED: Reasons = &[
    (&["sessionAffinity", "sessionAffinityConfig"], "write `sticky: address` in the strategy of the service"),
    (
        &[
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "externalTrafficPolicy",
            "internalTrafficPolicy",
            "trafficDistribution",
            "loadBalancerIP",
            "loadBalancerClass",
            "loadBalancerSourceRanges",
            "externalIPs",
            "externalName",
            "allocateLoadBalancerNodePorts",
            "healthCheckNodePort",
            "publishNotReadyAddresses",
        ],
        "evenkeel's own proxy listens on this machine, where `listen` says",
    ),
];

/// Where users connect, as a Service has it.
#[derive(Debug)]
pub(super) struct Door<'a> {
    /// The Service.
    pub(super) service: &'a Rc<Node>,
    /// Its port.
    port: Option<&'a Rc<Node>>,
    /// The port of containers that it leads to: a number or a name.
    pub(super) target: Option<&'a str>,
}

/// The Service of a workload: one of these names, or the first one that takes all of its labels.
pub(super) fn door<'a>(labels: Option<&Rc<Node>>, named: &[&str], theirs: &'a Theirs) -> Option<Door<'a>> {
    let by_name = named.iter().find_map(|name| theirs.named(&["Service"], name));
    let service = by_name.or_else(|| {
        theirs.of_kind("Service").find(|service| {
            let selector = pairs(below(service, &["spec", "selector"]));
            !selector.is_empty() && selector.iter().all(|(key, value)| has_label(labels, &key.text, scalar(value)))
        })
    })?;
    let port = items(below(service, &["spec", "ports"])).first();
    let target = port.and_then(|port| text(port, "targetPort").or(text(port, "port")));
    Some(Door { service, port: port.and_then(|port| get(port, "port")), target })
}

fn has_label(labels: Option<&Rc<Node>>, key: &str, value: Option<&str>) -> bool {
    value.is_some() && labels.and_then(|labels| text(labels, key)) == value
}

impl Door<'_> {
    /// `listen`, and what of the Service is not used.
    pub(super) fn listen(&self, problems: &mut Problems) -> Option<Entry> {
        let spec = get(self.service, "spec");
        tell_unused(spec, SERVICE, SERVICE_UNUSED, "a Service", problems);
        for other in items(spec.and_then(|spec| get(spec, "ports"))).iter().skip(1) {
            let message = format!("the port {} is not listened at", short(text(other, "port").unwrap_or("?")));
            let help = "a service has one address; make a service of its own of any other";
            problems.add(Mistake::new(Code::NotUsed, other.at.clone(), message).help(help));
        }
        let port = self.port?;
        Some(listen(port, problems))
    }
}

/// `listen` at a port of this machine.
pub(super) fn listen(port: &Rc<Node>, problems: &mut Problems) -> Entry {
    let address = format!("127.0.0.1:{}", scalar(port).unwrap_or_default());
    let message = format!("users connect at {}", short(&address));
    let help = "write `listen: 0.0.0.0:8080` in a document of your own for another address, and for other machines";
    tell_filled_in(&port.at, message, help, problems);
    entry("listen", &Node::quoted(port.at.clone(), address))
}

/// Tells of an autoscaler of a workload; the number of replicas it begins with.
pub(super) fn least_replicas(name: &str, theirs: &Theirs, problems: &mut Problems) -> Option<Rc<Node>> {
    let scales = |scaler: &&Rc<Node>| {
        below(scaler, &["spec", "scaleTargetRef", "name"]).and_then(|target| scalar(target)) == Some(name)
    };
    let scaler = theirs.of_kind("HorizontalPodAutoscaler").find(scales)?;
    let spec = get(scaler, "spec")?;
    let keys = pairs(Some(spec)).iter().map(|(key, _)| key).filter(|key| key.text != "scaleTargetRef");
    let why = "the number of replicas is `replicas`, from the beginning `minReplicas` where nothing else says it; \
               `evenkeel scale` changes it at any time";
    tell_together(keys.filter(|key| key.text != "minReplicas"), why, problems);
    get(spec, "minReplicas").cloned()
}

/// Two Deployments that differ in one label alone, of which a Service takes one.
#[derive(Debug)]
pub(super) struct Colours<'a> {
    /// The Service.
    pub(super) service: &'a Rc<Node>,
    /// The label that tells them apart.
    pub(super) label: String,
    /// The one that it does not take: the next release.
    pub(super) idle: &'a Rc<Node>,
    /// The one that it takes.
    pub(super) live: &'a Rc<Node>,
}

/// Finds them.
pub(super) fn colours(theirs: &Theirs) -> Vec<Colours<'_>> {
    let of = |service: &'_ Rc<Node>| -> Option<(String, usize, usize)> {
        let deployments: Vec<&Rc<Node>> = theirs.of_kind("Deployment").collect();
        let selector = pairs(below(service, &["spec", "selector"]));
        let differing = |deployment: &Rc<Node>| -> Vec<String> {
            let labels = below(deployment, &["spec", "template", "metadata", "labels"]);
            let misses = selector.iter().filter(|(key, value)| !has_label(labels, &key.text, scalar(value)));
            misses.map(|(key, _)| key.text.clone()).collect()
        };
        let live =
            deployments.iter().position(|deployment| !selector.is_empty() && differing(deployment).is_empty())?;
        let (idle, label) =
            deployments.iter().enumerate().find_map(|(n, deployment)| match &differing(deployment)[..] {
                [label] if selector.len() > 1 && has_key(deployment, label) => Some((n, label.clone())),
                _ => None,
            })?;
        Some((label, idle, live))
    };
    let deployments: Vec<&Rc<Node>> = theirs.of_kind("Deployment").collect();
    let found = theirs.of_kind("Service").filter_map(|service| {
        let (label, idle, live) = of(service)?;
        name_of(service)?;
        Some(Colours { service, label, idle: deployments[idle], live: deployments[live] })
    });
    found.collect()
}

fn has_key(deployment: &Rc<Node>, label: &str) -> bool {
    below(deployment, &["spec", "template", "metadata", "labels", label]).is_some()
}
