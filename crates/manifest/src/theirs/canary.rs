//! How Flagger's Canaries take over, as strategies of our own.
//!
//! Flagger gives the share of a step, measures for an interval, and gives the next one; after the last one it copies the
//! new release over the old one. Here the new release takes over itself, so nobody is moved back to fresh replicas.

use std::rc::Rc;
use std::time::Duration;

use super::Theirs;
use super::fill::asked_of;
use super::kind_of;
use super::routes::istio_matches;
use super::tree::{
    Entry, Reasons, below, entry, get, items, name_of, scalar, seconds, tell_bad, tell_filled_in, tell_unused, text,
};
use super::webhooks::{Hooks, hooks};
use crate::problem::{Code, Mistake, Problems};
use crate::values::parse_duration;
use crate::yaml::Node;

const PROXY: &str = "evenkeel's own proxy makes the split: nothing has to be set up for it";
const SPEC: &[&str] =
    &["targetRef", "service", "analysis", "canaryAnalysis", "progressDeadlineSeconds", "skipAnalysis", "autoscalerRef"];
const SPEC_UNUSED: Reasons = &[
    (&["provider", "ingressRef", "routeRef", "upstreamRef", "revertOnDeletion"], PROXY),
    (
        &["metricsServer"],
        "metrics without a template are measured by what evenkeel counts; name a server in a `MetricTemplate`",
    ),
    (&["suspend"], "`evenkeel pause` holds a rollout still, and `approvals` in `gates` keep one from beginning"),
];
const SERVICE: &[&str] = &["name", "port", "targetPort", "portName"];
const SERVICE_UNUSED: Reasons = &[
    (
        &[
            "gateways",
            "gatewayRefs",
            "hosts",
            "delegation",
            "trafficPolicy",
            "meshName",
            "backends",
            "appProtocol",
            "trafficDistribution",
            "portDiscovery",
            "headless",
            "apex",
            "primary",
            "canary",
            "unmanagedMetadata",
        ],
        PROXY,
    ),
    (&["timeout", "backendTimeout"], "write `firstByteTimeout` in a document of your own"),
    (&["retries"], "the stable release answers what the new one fails, where a request may be repeated: `shield`"),
    (&["match", "rewrite", "headers", "mirror", "corsPolicy"], "requests reach replicas as they came"),
];
const ANALYSIS: &[&str] = &[
    "interval",
    "threshold",
    "metrics",
    "webhooks",
    "maxWeight",
    "stepWeight",
    "stepWeights",
    "iterations",
    "match",
    "mirror",
    "mirrorWeight",
    "sessionAffinity",
];
const ANALYSIS_UNUSED: Reasons = &[
    (
        &["stepWeightPromotion"],
        "the new release takes over itself: nobody is moved back to fresh replicas, and there is nothing to shift",
    ),
    (&["primaryReadyThreshold", "canaryReadyThreshold"], "a step waits for all of its replicas"),
    (
        &["alerts"],
        "messages are not sent for it: `evenkeel deploy` tells how it ended by its exit code, and the API by its events",
    ),
];
const AFFINITY: Reasons = &[(
    &["cookieName", "domain", "httpOnly", "maxAge", "partitioned", "path", "sameSite", "secure", "primaryCookieName"],
    "evenkeel sets a cookie of its own, and a visitor stays with a release for as long as the shares stand",
)];
/// How long one interval is when nothing is said; Flagger's own.
const INTERVAL: &str = "1m";

/// The port of containers that a Canary leads to.
pub(super) fn target(document: &Rc<Node>) -> Option<&str> {
    let service = below(document, &["spec", "service"]).filter(|_| kind_of(document) == Some("Canary"))?;
    text(service, "targetPort").or(text(service, "port"))
}

/// The port that users connect to by a Canary.
pub(super) fn port(document: &Rc<Node>) -> Option<&Rc<Node>> {
    below(document, &["spec", "service", "port"]).filter(|_| kind_of(document) == Some("Canary"))
}

/// The strategy of a Canary, and what goes with it: `strategy`, `checks`, `gates`, `startupLimit`.
pub(super) fn strategy(document: &Rc<Node>, beside: &[Entry], theirs: &Theirs, problems: &mut Problems) -> Vec<Entry> {
    let of = |key: &str| beside.iter().find(|(known, _)| known.text == key).map(|(_, node)| node);
    let (compat, prometheus) = (of("compat"), of("prometheus"));
    let Some(spec) = get(document, "spec") else { return Vec::new() };
    tell_unused(Some(spec), SPEC, SPEC_UNUSED, "a Canary", problems);
    tell_unused(get(spec, "service"), SERVICE, SERVICE_UNUSED, "the `service` of a Canary", problems);
    let mut ours = Vec::new();
    ours.extend(get(spec, "progressDeadlineSeconds").map(|limit| entry("startupLimit", &seconds(limit))));
    let analysis = get(spec, "analysis").or(get(spec, "canaryAnalysis"));
    let skips = get(spec, "skipAnalysis").filter(|skips| scalar(skips) == Some("true"));
    let (Some(analysis), None) = (analysis, skips) else {
        let at = skips.map_or_else(|| spec.at.clone(), |skips| skips.at.clone());
        let message = "nothing is analysed: a new release gets all traffic as soon as it is ready".to_owned();
        tell_filled_in(&at, message, "leave `skipAnalysis` out, and say what is measured below `analysis`", problems);
        let none = Node::mapping(at.clone(), vec![entry("watch", &Node::plain(at.clone(), "0s".into()))]);
        ours.push(entry("strategy", &Node::mapping(at, vec![entry("blueGreen", &none)])));
        return ours;
    };
    tell_unused(Some(analysis), ANALYSIS, ANALYSIS_UNUSED, "the `analysis` of a Canary", problems);
    let name = name_of(document).unwrap_or_default();
    let interval = get(analysis, "interval").cloned();
    let interval = interval.unwrap_or_else(|| Node::plain(analysis.at.clone(), INTERVAL.to_owned()));
    let hooks = hooks(analysis, &name, &interval, compat, problems);
    let steps = Steps { analysis, interval: &interval, hooks: &hooks }.written(problems);
    let mut canary = vec![entry("bake", &interval)];
    if steps.is_empty() {
        // Nothing comes before everything: what evenkeel would do by default is not what was asked for.
        let watch = Node::mapping(analysis.at.clone(), vec![entry("watch", &interval)]);
        ours.push(entry("strategy", &Node::mapping(analysis.at.clone(), vec![entry("blueGreen", &watch)])));
    } else {
        canary.push(entry("steps", &Node::list(analysis.at.clone(), steps)));
        if let Some(affinity) = get(analysis, "sessionAffinity") {
            tell_unused(Some(affinity), &[], AFFINITY, "`sessionAffinity`", problems);
            canary.push(entry("sticky", &Node::quoted(affinity.at.clone(), "visitor".into())));
        }
        let canary = Node::mapping(analysis.at.clone(), canary);
        ours.push(entry("strategy", &Node::mapping(analysis.at.clone(), vec![entry("canary", &canary)])));
    }
    let metrics = theirs.template(&name).map(|template| template.checks.clone()).unwrap_or_default();
    // In the step of `pre-rollout` nobody reaches the new release: there is nothing to measure yet.
    let from = Node::plain(analysis.at.clone(), if hooks.before.is_empty() { "1" } else { "2" }.to_owned());
    let beside = |check: Rc<Node>| {
        let check = asked_of(&super::steps::with(&check, "from", Rc::clone(&from)), prometheus);
        compat.map_or_else(|| Rc::clone(&check), |compat| super::steps::with(&check, "compat", Rc::clone(compat)))
    };
    let measured = metrics.into_iter().map(beside);
    let asked = hooks.beside.iter().map(|hook| super::steps::with(hook, "from", Rc::clone(&from)));
    let checks: Vec<Rc<Node>> = measured.chain(asked).collect();
    if !checks.is_empty() {
        ours.push(entry("checks", &Node::list(analysis.at.clone(), checks)));
    }
    if !hooks.after.is_empty() {
        ours.push(entry("afterwards", &Node::list(analysis.at.clone(), hooks.after.clone())));
    }
    if !hooks.events.is_empty() {
        ours.push(entry("events", &Node::list(analysis.at.clone(), hooks.events.clone())));
    }
    if !hooks.gates.is_empty() {
        let gates = Node::list(analysis.at.clone(), hooks.gates.clone());
        ours.push(entry("gates", &Node::mapping(analysis.at.clone(), vec![entry("checks", &gates)])));
    }
    ours
}

/// The steps that Flagger makes of its numbers.
struct Steps<'a> {
    analysis: &'a Rc<Node>,
    interval: &'a Rc<Node>,
    hooks: &'a Hooks,
}

impl Steps<'_> {
    fn written(&self, problems: &mut Problems) -> Vec<Rc<Node>> {
        let mut steps = Vec::new();
        let at = &self.analysis.at;
        if !self.hooks.before.is_empty() {
            steps.push(self.step("0%", Node::plain(at.clone(), "0s".into()), Vec::new(), self.hooks.before.clone()));
        }
        let mirror = self.mirror(problems);
        match self.iterations() {
            Some(count) => steps.push(self.tested(count, mirror, problems)),
            None => {
                if let Some(list) = get(self.analysis, "match") {
                    let help = "add `iterations: 10`: how many intervals the requests that match go to the new release";
                    tell_bad(&list.at, "`match` without `iterations` is not A/B testing".into(), help, problems);
                }
                if let Some(mirror) = mirror {
                    steps.push(self.step("0%", Rc::clone(self.interval), vec![mirror], Vec::new()));
                }
                for weight in self.weights(problems) {
                    let checks = self.hooks.each_step.clone();
                    steps.push(self.step(&format!("{weight}%"), Rc::clone(self.interval), Vec::new(), checks));
                }
            }
        }
        if let (Some(last), false) = (steps.last().cloned(), self.hooks.last_step.is_empty()) {
            let known = items(get(&last, "checks")).iter().cloned();
            let all = known.chain(self.hooks.last_step.iter().cloned()).collect();
            steps.pop();
            steps.push(super::steps::with(&last, "checks", Node::list(at.clone(), all)));
        }
        steps
    }

    fn step(&self, weight: &str, hold: Rc<Node>, more: Vec<Entry>, checks: Vec<Rc<Node>>) -> Rc<Node> {
        let at = &self.analysis.at;
        let mut keys = vec![entry("weight", &Node::plain(at.clone(), weight.to_owned())), entry("hold", &hold)];
        keys.extend(more);
        if !checks.is_empty() {
            keys.push(entry("checks", &Node::list(at.clone(), checks)));
        }
        Node::mapping(at.clone(), keys)
    }

    /// How many intervals are tested without a share: A/B testing with `match`, else blue-green.
    fn iterations(&self) -> Option<u32> {
        text(self.analysis, "iterations").and_then(|count| count.parse().ok()).filter(|count| *count > 0)
    }

    fn tested(&self, count: u32, mirror: Option<Entry>, problems: &mut Problems) -> Rc<Node> {
        let each = scalar(self.interval).and_then(parse_duration).unwrap_or(Duration::from_secs(60));
        let at = get(self.analysis, "iterations").map_or_else(|| self.analysis.at.clone(), |node| node.at.clone());
        let hold = Node::plain(at.clone(), format!("{}ms", each.saturating_mul(count).as_millis()));
        let matches = istio_matches(get(self.analysis, "match"), problems);
        let mut more: Vec<Entry> = mirror.into_iter().collect();
        if !matches.is_empty() {
            more.push(entry("match", &Node::list(at.clone(), matches)));
        }
        // All of it is there before the switch.
        more.push(entry("replicas", &Node::plain(at, "100%".into())));
        self.step("0%", hold, more, Vec::new())
    }

    fn mirror(&self, problems: &mut Problems) -> Option<Entry> {
        let mirror = get(self.analysis, "mirror").filter(|mirror| scalar(mirror) == Some("true"));
        let weight = get(self.analysis, "mirrorWeight");
        if let (None, Some(weight)) = (mirror, weight) {
            let mistake =
                Mistake::new(Code::NotUsed, weight.at.clone(), "`mirrorWeight` means nothing without `mirror`");
            problems.add(mistake.help("add `mirror: true`"));
        }
        let at = mirror?.at.clone();
        let share = weight.and_then(|weight| scalar(weight)).filter(|weight| *weight != "0").unwrap_or("100");
        Some(entry("mirror", &Node::plain(at, format!("{share}%"))))
    }

    /// The shares below 100 %: `stepWeights`, or `stepWeight` after `stepWeight` until `maxWeight` is reached or passed.
    fn weights(&self, problems: &mut Problems) -> Vec<u32> {
        let number = |node: &Rc<Node>, problems: &mut Problems| {
            let number = scalar(node).and_then(|text| text.parse::<u32>().ok()).filter(|number| *number <= 100);
            if number.is_none() {
                tell_bad(&node.at, "a weight is a whole number of percent".into(), "write 1 to 100", problems);
            }
            number
        };
        let of = |key: &str, problems: &mut Problems| get(self.analysis, key).and_then(|node| number(node, problems));
        let most = of("maxWeight", problems).filter(|most| *most > 0).unwrap_or(100);
        let each = of("stepWeight", problems).filter(|each| *each > 0);
        let list = items(get(self.analysis, "stepWeights"));
        let weights: Vec<u32> = match each {
            _ if !list.is_empty() => list.iter().filter_map(|node| number(node, problems)).collect(),
            Some(each) => (1..=most.div_ceil(each)).map(|n| n * each).collect(),
            None => Vec::new(),
        };
        weights.into_iter().filter(|weight| (1..100).contains(weight)).collect()
    }
}
