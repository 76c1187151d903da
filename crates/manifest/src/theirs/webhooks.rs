//! Flagger's webhooks as gates and checks of our own.
//!
//! Each is a `POST` with the name, namespace, phase, checksum and metadata; an answer with a status up to 202 is a yes.
//! Where it is asked, and what a no means, depends on its type.

use std::rc::Rc;

use super::flagger::threshold;
use super::tree::{Entry, below, entry, get, items, scalar, tell_bad, tell_unused, text};
use crate::problem::Problems;
use crate::values::short;
use crate::yaml::Node;

/// How long an answer is waited for when nothing is said; Flagger's own.
const TIMEOUT: &str = "10s";
/// How long a yes is waited for before a rollout.
const GATE_LIMIT: &str = "24h";
/// The phase of a Canary that waits to begin.
const WAITING: &str = "Waiting";
/// The phase of a Canary that has ended; evenkeel fills in which.
const ENDED: &str = "{{outcome}}";
/// How often a yes is asked for in a step before that is given up.
const PATIENCE: &str = "1000000";

/// Webhooks by where they are asked.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Before anything is touched: `confirm-rollout`.
    pub(super) gates: Vec<Rc<Node>>,
    /// Before the first share: `pre-rollout`.
    pub(super) before: Vec<Rc<Node>>,
    /// Beside the steps: `rollout`, `rollback`.
    pub(super) beside: Vec<Rc<Node>>,
    /// In each step, before the next share: `confirm-traffic-increase`.
    pub(super) each_step: Vec<Rc<Node>>,
    /// In the last step before 100 %: `confirm-promotion`.
    pub(super) last_step: Vec<Rc<Node>>,
    /// Once when it has ended: `post-rollout`.
    pub(super) after: Vec<Rc<Node>>,
    /// With everything that happens: `event`.
    pub(super) events: Vec<Rc<Node>>,
}

/// Writes the webhooks of an analysis anew.
pub(super) fn hooks(
    analysis: &Rc<Node>,
    canary: &str,
    interval: &Rc<Node>,
    compat: Option<&Rc<Node>>,
    problems: &mut Problems,
) -> Hooks {
    let mut hooks = Hooks::default();
    for hook in items(get(analysis, "webhooks")) {
        let used = ["type", "name", "url", "timeout", "metadata", "retries", "disableTLS"];
        let reasons: super::tree::Reasons = &[(&["muteAlert"], "messages are not sent for it")];
        tell_unused(Some(hook), &used, reasons, "a webhook", problems);
        let ask = Ask { hook, canary, interval, compat, threshold: threshold(analysis) };
        match text(hook, "type").unwrap_or_default() {
            "" | "rollout" => hooks.beside.push(ask.counted()),
            "rollback" => hooks.beside.push(ask.rollback()),
            "pre-rollout" => hooks.before.push(ask.before()),
            "confirm-traffic-increase" => hooks.each_step.push(ask.confirm()),
            "confirm-promotion" => hooks.last_step.push(ask.confirm()),
            "confirm-rollout" => hooks.gates.push(ask.gate()),
            "post-rollout" => hooks.after.push(ask.after()),
            "event" => hooks.events.push(ask.after()),
            other => {
                let at = get(hook, "type").map_or(&hook.at, |kind| &kind.at);
                let help = "write `confirm-rollout`, `pre-rollout`, `rollout`, `confirm-traffic-increase`, `confirm-promotion`, `rollback`, `post-rollout` or `event`";
                tell_bad(at, format!("there are no webhooks of the type `{}`", short(other)), help, problems);
            }
        }
    }
    hooks
}

/// One webhook.
struct Ask<'a> {
    hook: &'a Rc<Node>,
    canary: &'a str,
    interval: &'a Rc<Node>,
    compat: Option<&'a Rc<Node>>,
    threshold: u32,
}

impl Ask<'_> {
    /// Names of checks have no spaces.
    fn name(&self) -> String {
        let name = text(self.hook, "name").unwrap_or("webhook");
        name.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).take(64).collect()
    }

    fn plain(&self, text: &str) -> Rc<Node> {
        Node::plain(self.hook.at.clone(), text.to_owned())
    }

    fn quoted(&self, text: &str) -> Rc<Node> {
        Node::quoted(self.hook.at.clone(), text.to_owned())
    }

    /// What all of them have in common.
    fn keys(&self, phase: &str) -> Vec<Entry> {
        let url = get(self.hook, "url").cloned().unwrap_or_else(|| self.quoted(""));
        let mut of =
            vec![entry("url", &url), entry("phase", &self.quoted(phase)), entry("name", &self.quoted(self.canary))];
        of.extend(get(self.hook, "metadata").map(|metadata| entry("metadata", metadata)));
        // A gate is asked again and again as it is.
        if phase != WAITING {
            of.extend(get(self.hook, "retries").map(|retries| entry("retries", retries)));
            of.extend(get(self.hook, "disableTLS").map(|insecure| entry("insecure", insecure)));
        }
        let name = below(self.hook, &["name"]).map_or_else(|| self.hook.at.clone(), |name| name.at.clone());
        let timeout = get(self.hook, "timeout").filter(|timeout| scalar(timeout).is_some_and(|text| text.len() > 1));
        vec![
            entry("name", &Node::quoted(name, self.name())),
            entry("webhook", &Node::mapping(self.hook.at.clone(), of)),
            entry("timeout", &timeout.cloned().unwrap_or_else(|| self.plain(TIMEOUT))),
        ]
    }

    fn check(&self, more: Vec<Entry>) -> Rc<Node> {
        let mut keys = self.keys("Progressing");
        keys.push(entry("interval", self.interval));
        keys.extend(more);
        Node::mapping(self.hook.at.clone(), keys)
    }

    /// A no counts with those of the metrics.
    fn counted(&self) -> Rc<Node> {
        let mut keys = vec![
            entry("success", &self.quoted("result == true")),
            entry("pool", &self.quoted(self.canary)),
            entry("failureLimit", &self.plain(&self.threshold.saturating_sub(1).to_string())),
        ];
        keys.extend(self.compat.map(|compat| entry("compat", compat)));
        self.check(keys)
    }

    /// Asked until it says yes, and as often as the threshold allows it to say no.
    fn before(&self) -> Rc<Node> {
        let mut keys = vec![
            entry("success", &self.quoted("result == true")),
            entry("count", &self.plain(&self.threshold.max(1).to_string())),
            entry("consecutiveSuccessLimit", &self.plain("1")),
            entry("failureLimit", &self.plain(&self.threshold.saturating_sub(1).to_string())),
        ];
        keys.extend(self.compat.map(|compat| entry("compat", compat)));
        self.check(keys)
    }

    /// Asked until it says yes; a no means to wait.
    fn confirm(&self) -> Rc<Node> {
        self.check(vec![
            entry("success", &self.quoted("result == true")),
            entry("count", &self.plain(PATIENCE)),
            entry("consecutiveSuccessLimit", &self.plain("1")),
            entry("failureLimit", &self.quoted("off")),
        ])
    }

    /// A yes takes the release back.
    fn rollback(&self) -> Rc<Node> {
        self.check(vec![entry("failure", &self.quoted("result == true"))])
    }

    /// Called with what has happened, or once when it is known how it ended.
    fn after(&self) -> Rc<Node> {
        Node::mapping(self.hook.at.clone(), self.keys(ENDED))
    }

    /// Asked before anything is touched, until it says yes.
    fn gate(&self) -> Rc<Node> {
        let mut keys = self.keys(WAITING);
        let limit = self.plain(GATE_LIMIT);
        let again = Node::mapping(self.hook.at.clone(), vec![entry("every", self.interval), entry("within", &limit)]);
        keys.push(entry("retry", &again));
        Node::mapping(self.hook.at.clone(), keys)
    }
}
