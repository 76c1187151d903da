//! How Argo Rollouts and Deployments take over, as strategies of our own.

use std::rc::Rc;

use super::Theirs;
use super::analysis::{Analysed, analysis};
use super::steps;
use super::tree::{
    Entry, Reasons, below, entry, get, items, pairs, scalar, seconds, tell_bad, tell_filled_in, tell_unused, text,
};
use crate::problem::{Code, Mistake, Problems};
use crate::yaml::{Kind, Node};

/// How long Argo Rollouts keeps the old release after a promotion when nothing is said.
const SCALE_DOWN_DELAY: &str = "30s";
/// How long it waits for replicas; the Deployment's default too.
const PROXY: &str = "evenkeel's own proxy makes the split: nothing has to be set up for it";

const CANARY: &[&str] = &[
    "steps",
    "analysis",
    "scaleDownDelaySeconds",
    "stableService",
    "canaryService",
    "maxSurge",
    "maxUnavailable",
    "trafficRouting",
];
const CANARY_UNUSED: Reasons = &[
    (
        &["dynamicStableScale"],
        "the stable release keeps all of its replicas until the end, so that going back takes moving the traffic only; `strategy: { rolling: {} }` gives them up batch by batch",
    ),
    (
        &["abortScaleDownDelaySeconds"],
        "a release that is taken back is drained and stopped at once; its logs are kept, and `evenkeel retry` starts it again",
    ),
    (&["scaleDownDelayRevisionLimit"], "one old release is kept running, and the last 10 can be started again"),
    (
        &["canaryMetadata", "stableMetadata"],
        "replicas have no labels: their release is in `EVENKEEL_REPLICA`, and a label of every series",
    ),
    (&["antiAffinity"], "there is one machine"),
    (&["pingPong"], PROXY),
    (
        &["minPodsPerReplicaSet", "replicaProgressThreshold"],
        "a step waits for all of its replicas; `setCanaryScale` says how many",
    ),
];
const BLUE_GREEN: &[&str] = &[
    "activeService",
    "previewService",
    "previewReplicaCount",
    "autoPromotionEnabled",
    "autoPromotionSeconds",
    "prePromotionAnalysis",
    "postPromotionAnalysis",
    "scaleDownDelaySeconds",
];
const BLUE_GREEN_UNUSED: Reasons = &[
    (
        &["abortScaleDownDelaySeconds"],
        "a release that is taken back is drained and stopped at once; its logs are kept, and `evenkeel retry` starts it again",
    ),
    (&["scaleDownDelayRevisionLimit"], "one old release is kept running, and the last 10 can be started again"),
    (
        &["previewMetadata", "activeMetadata"],
        "replicas have no labels: their release is in `EVENKEEL_REPLICA`, and a label of every series",
    ),
    (&["antiAffinity"], "there is one machine"),
    (&["maxUnavailable"], "all replicas of the new release are ready before the switch"),
];

/// The strategy of a Rollout, and what goes with it: `strategy`, `checks`, `startupLimit`. `beside` stands beside each
/// template that it names.
pub(super) fn of_rollout(
    document: &Rc<Node>,
    beside: &[Entry],
    theirs: &Theirs,
    problems: &mut Problems,
) -> Vec<Entry> {
    let how = Analysed { document, theirs, beside };
    let Some(strategy) = below(document, &["spec", "strategy"]) else {
        let mistake = Mistake::new(Code::MissingKey, document.at.clone(), "this Rollout has no `strategy`");
        problems.add(mistake.help("add `strategy: { canary: { steps: […] } }` below `spec`"));
        return Vec::new();
    };
    tell_unused(Some(strategy), &["canary", "blueGreen"], &[], "the `strategy` of a Rollout", problems);
    let mut ours = match (get(strategy, "canary"), get(strategy, "blueGreen")) {
        (Some(_), Some(second)) => {
            let mistake =
                Mistake::new(Code::Conflict, second.at.clone(), "`canary` and `blueGreen` exclude each other");
            problems.add(mistake.help("keep one of them"));
            Vec::new()
        }
        (Some(canary), None) => of_canary(canary, &how, problems),
        (None, Some(blue_green)) => of_blue_green(blue_green, &how, problems),
        // `canary: {}` is as good as any.
        (None, None) => rolling(strategy, None, problems),
    };
    ours.extend(startup_limit(document));
    ours
}

/// How long replicas may take to become ready, in seconds there.
fn startup_limit(document: &Rc<Node>) -> Option<Entry> {
    below(document, &["spec", "progressDeadlineSeconds"]).map(|limit| entry("startupLimit", &seconds(limit)))
}

/// A canary: share by share, or replica by replica where it has no steps.
fn of_canary(canary: &Rc<Node>, how: &Analysed<'_>, problems: &mut Problems) -> Vec<Entry> {
    tell_unused(Some(canary), CANARY, CANARY_UNUSED, "the `canary` of a Rollout", problems);
    let routing = get(canary, "trafficRouting");
    let routed = pairs(routing).iter().map(|(key, _)| key);
    let routers = routed.filter(|key| !matches!(key.text.as_str(), "managedRoutes" | "maxTrafficWeight"));
    super::tree::tell_together(routers, PROXY, problems);
    let steps = items(get(canary, "steps"));
    let background = |starts: &[usize], problems: &mut Problems| -> Option<Entry> {
        let of = get(canary, "analysis")?;
        let from = steps::from(starts, get(of, "startingStep"), problems);
        let checks = analysis(of, from.as_ref(), how, problems);
        (!checks.is_empty()).then(|| entry("checks", &Node::list(of.at.clone(), checks)))
    };
    if steps.is_empty() {
        let mut ours = rolling(canary, get(canary, "scaleDownDelaySeconds"), problems);
        ours.extend(background(&[0], problems));
        return ours;
    }
    for key in ["maxSurge", "maxUnavailable"] {
        if let Some(node) = get(canary, key) {
            let message = format!("`{key}` is not used: the stable release keeps all of its replicas until the end");
            let help = "leave the steps out for a rolling update, or write `strategy: { rolling: {} }`";
            problems.add(Mistake::new(Code::NotUsed, node.at.clone(), message).help(help));
        }
    }
    let most = routing.and_then(|routing| text(routing, "maxTrafficWeight")).and_then(|most| most.parse::<f64>().ok());
    let walked = steps::walk(steps, most.filter(|most| *most >= 1.0).unwrap_or(100.0), how, problems);
    let mut ours = vec![canary_of(canary, &walked, bake(canary))];
    ours.extend(background(&walked.starts, problems));
    ours
}

fn bake(of: &Rc<Node>) -> Rc<Node> {
    get(of, "scaleDownDelaySeconds").map_or_else(|| Node::plain(of.at.clone(), SCALE_DOWN_DELAY.to_owned()), seconds)
}

/// Our strategy for steps that were written anew.
fn canary_of(canary: &Rc<Node>, walked: &steps::Walked, bake: Rc<Node>) -> Entry {
    let mut steps = walked.steps.clone();
    let mut keys = Vec::new();
    if steps.is_empty() {
        // Nothing takes time before everything.
        let all = Node::plain(canary.at.clone(), "100%".into());
        steps.push(Node::mapping(canary.at.clone(), vec![entry("weight", &all), entry("hold", &bake)]));
    } else if walked.is_full {
        // All traffic is there already: the old release is kept for its delay after what they wrote.
        let all = Node::plain(bake.at.clone(), "100%".into());
        let last = Node::mapping(bake.at.clone(), vec![entry("weight", &all), entry("hold", &bake)]);
        let before = steps.last().and_then(|step| get(step, "hold")).and_then(|hold| scalar(hold));
        let is_time = before.is_some_and(|hold| hold != "manual")
            && steps.last().is_some_and(|step| get(step, "checks").is_none() && get(step, "match").is_none());
        let both = before.zip(scalar(&bake)).map(|(before, after)| format!("{before}{after}"));
        match (is_time, both, steps.pop()) {
            (true, Some(both), Some(step)) => {
                let at = get(&step, "hold").map_or_else(|| step.at.clone(), |hold| hold.at.clone());
                steps.push(steps::with(&step, "hold", Node::plain(at, both)));
            }
            (_, _, step) => steps.extend(step.into_iter().chain([last])),
        }
    } else {
        keys.push(entry("bake", &bake));
    }
    keys.insert(0, entry("steps", &Node::list(canary.at.clone(), steps)));
    let ours = Node::mapping(canary.at.clone(), keys);
    entry("strategy", &Node::mapping(canary.at.clone(), vec![entry("canary", &ours)]))
}

/// A rolling update with their `maxSurge` and `maxUnavailable`.
fn rolling(of: &Rc<Node>, delay: Option<&Rc<Node>>, _problems: &mut Problems) -> Vec<Entry> {
    let mut keys: Vec<Entry> = Vec::new();
    for key in ["maxSurge", "maxUnavailable"] {
        keys.extend(get(of, key).map(|amount| entry(key, amount)));
    }
    keys.extend(delay.map(|delay| entry("bake", &seconds(delay))));
    let ours = Node::mapping(of.at.clone(), keys);
    vec![entry("strategy", &Node::mapping(of.at.clone(), vec![entry("rolling", &ours)]))]
}

fn of_blue_green(of: &Rc<Node>, how: &Analysed<'_>, problems: &mut Problems) -> Vec<Entry> {
    tell_unused(Some(of), BLUE_GREEN, BLUE_GREEN_UNUSED, "the `blueGreen` of a Rollout", problems);
    let mut keys: Vec<Entry> = Vec::new();
    keys.extend(get(of, "previewReplicaCount").map(|count| entry("previewReplicas", count)));
    let after = get(of, "autoPromotionSeconds").filter(|after| scalar(after) != Some("0"));
    match (after, text(of, "autoPromotionEnabled")) {
        (Some(after), _) => keys.push(entry("promotion", &seconds(after))),
        (None, Some("false")) => {
            let at = get(of, "autoPromotionEnabled").map_or_else(|| of.at.clone(), |node| node.at.clone());
            keys.push(entry("promotion", &Node::quoted(at, "manual".into())));
        }
        (None, _) => {}
    }
    for (theirs, our) in [("prePromotionAnalysis", "prePromotion"), ("postPromotionAnalysis", "postPromotion")] {
        let Some(of) = get(of, theirs) else { continue };
        if let Some(step) = get(of, "startingStep") {
            tell_bad(&step.at, "`startingStep` is of a canary's analysis".into(), "leave it out", problems);
        }
        let checks = analysis(of, None, how, problems);
        if !checks.is_empty() {
            keys.push(entry(our, &Node::list(of.at.clone(), checks)));
        }
    }
    keys.push(entry("watch", &bake(of)));
    let ours = Node::mapping(of.at.clone(), keys);
    vec![entry("strategy", &Node::mapping(of.at.clone(), vec![entry("blueGreen", &ours)]))]
}

/// The strategy of a Deployment: replica by replica, or everything at once.
pub(super) fn of_deployment(document: &Rc<Node>, problems: &mut Problems) -> Vec<Entry> {
    let strategy = below(document, &["spec", "strategy"]);
    tell_unused(strategy, &["type", "rollingUpdate"], &[], "the `strategy` of a Deployment", problems);
    let mut ours = match strategy.and_then(|strategy| text(strategy, "type")) {
        Some("Recreate") => {
            let at = strategy.map_or_else(|| document.at.clone(), |strategy| strategy.at.clone());
            let recreate = Node::mapping(at.clone(), Vec::new());
            vec![entry("strategy", &Node::mapping(at, vec![entry("recreate", &recreate)]))]
        }
        Some("RollingUpdate") | None => {
            let update = strategy.and_then(|strategy| get(strategy, "rollingUpdate"));
            rolling(update.unwrap_or(document), None, problems)
        }
        Some(other) => {
            let at = strategy.and_then(|strategy| get(strategy, "type")).map_or(0..0, |node| node.at.clone());
            let message = format!("`{}` is no type of a strategy", crate::values::short(other));
            tell_bad(&at, message, "write `RollingUpdate` or `Recreate`", problems);
            Vec::new()
        }
    };
    let pause = below(document, &["spec", "minReadySeconds"]).filter(|pause| scalar(pause) != Some("0"));
    if let (Some(pause), Some((_, strategy))) = (pause, ours.last_mut())
        && let Some(rolling) = get(strategy, "rolling").map(|of| steps::with(of, "pause", seconds(pause)))
    {
        *strategy = Node::mapping(strategy.at.clone(), vec![entry("rolling", &rolling)]);
    }
    ours.extend(startup_limit(document));
    ours
}

/// Two Deployments of which a Service takes one: blue-green.
pub(super) fn of_colours(service: &Rc<Node>, label: &str, problems: &mut Problems) -> Vec<Entry> {
    let message = format!("two Deployments differ in `{label}` alone, and this Service takes one of them: blue-green");
    let help = "`evenkeel deploy` starts the idle one, switches all traffic, and stops the other one";
    tell_filled_in(&service.at, message, help, problems);
    let at = service.at.clone();
    let ours = Node::mapping(at.clone(), Vec::new());
    vec![entry("strategy", &Node::mapping(at, vec![entry("blueGreen", &ours)]))]
}

/// Whether a strategy of ours can be seen in a document: `strategy: { rollout: NAME }` is none.
pub(super) fn reference(document: &Node) -> Option<(&'static str, &Rc<Node>)> {
    let strategy = get(document, "strategy")?;
    let Kind::Map(pairs) = &strategy.kind else { return None };
    let key = pairs.iter().find_map(|(key, _)| match key.text.as_str() {
        "rollout" => Some("rollout"),
        "flagger" => Some("flagger"),
        _ => None,
    })?;
    Some((key, get(strategy, key)?))
}
