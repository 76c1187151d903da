//! What really happened in worlds: each fault, phase, outcome and command, and how often.

use std::collections::BTreeMap;

use evenkeel_core::rollout::Why;
use evenkeel_core::spec::Strategy;
use evenkeel_core::{Event, Outcome, Phase, Rollout, Service, Verb};

use crate::weather::FAULTS;

/// How often each kind of thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(Group, &'static str), u64>);

/// What kind of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Something went wrong, or people did something.
    Fault,
    /// A rollout got into a phase.
    Phase,
    /// A rollout ended.
    Outcome,
    /// A command was carried out.
    Command,
    /// A rollout began by a strategy.
    Strategy,
    /// Something else that only some worlds bring about.
    Other,
}

/// Everything that worlds must bring about besides faults.
const EXPECTED: [(Group, &[&str]); 5] = [
    (
        Group::Phase,
        &[
            "lining up",
            "gathering",
            "clearing",
            "preparing",
            "smoking",
            "shifting",
            "holding",
            "paused",
            "retiring",
            "rolling back",
            "stopping",
            "stuck",
            "done",
        ],
    ),
    (
        Group::Outcome,
        &[
            "promoted",
            "rolled back: harmful",
            "rolled back: cut off by the proxy",
            "rolled back: not ready",
            "rolled back: unready",
            "rolled back: dependency",
            "rolled back: smoke checks",
            "rolled back: not enough requests",
            "rolled back: share not confirmed",
            "rolled back: aborted",
            "rolled back: alert",
            "rolled back: check",
            "rolled back: check without data",
            "rolled back: asked",
            "rolled back: superseded",
            "rolled back: fellow",
            "rolled back: test over",
            "rolled back: stable is back",
            "first release stopped",
            "refused by a gate",
        ],
    ),
    (
        Group::Command,
        &[
            "pause",
            "resume",
            "promote",
            "promote fully",
            "abort",
            "retry",
            "rollback",
            "scale",
            "weigh",
            "approve",
            "reject",
        ],
    ),
    (
        Group::Strategy,
        &["canary", "blue-green", "rolling", "recreate", "A/B", "rolling worker", "canary worker", "recreate worker"],
    ),
    (Group::Other, &[GROUP_BEGUN, GROUP_PROMOTED, SET_TIME, OLD_DECISION, OLD_DEED, OLD_TABLE]),
];

/// A group of services has a rollout in each of them.
pub(crate) const GROUP_BEGUN: &str = "group is deployed";
/// The first of a group is promoted, and with it all of them.
pub(crate) const GROUP_PROMOTED: &str = "group is promoted";
/// A rollout began at the time that was set for it.
pub(crate) const SET_TIME: &str = "rollout waits for a set time";
/// What a controller did after another one had taken over from it.
pub(crate) const OLD_DECISION: &str = "late decision is refused by the store";
pub(crate) const OLD_DEED: &str = "late command is refused by the agent";
pub(crate) const OLD_TABLE: &str = "late table is refused by the proxy";

impl Coverage {
    /// One more of a kind.
    pub(crate) fn count(&mut self, group: Group, name: &'static str) {
        *self.0.entry((group, name)).or_default() += 1;
    }

    /// What an event brought about.
    pub(crate) fn note(&mut self, before: &Service, event: &Event, after: &Service) {
        if let Event::Command { verb, .. } = event {
            self.count(Group::Command, name_of(verb));
        }
        let is_new = |last: &&Rollout| before.past.iter().all(|past| past.id != last.id);
        let refused = after.past.iter().rev().take(2).filter(is_new);
        for rollout in refused {
            if let Phase::Done { outcome: outcome @ Outcome::Refused { .. }, .. } = &rollout.phase {
                self.count(Group::Outcome, outcome_of(outcome));
            }
        }
        let known = |id| before.rollout.as_ref().filter(|rollout| rollout.id == id);
        let ended = after.past.last().into_iter().filter(|last| known(last.id).is_some());
        for rollout in ended.chain(&after.rollout) {
            let was = known(rollout.id).map(|before| before.phase.name());
            if was.is_none()
                && let Some(spec) = &after.spec
            {
                self.count(Group::Strategy, strategy(&spec.strategy, spec.listen.is_none()));
            }
            if was != Some(rollout.phase.name()) {
                self.count(Group::Phase, phase(&rollout.phase));
                if let Phase::Done { outcome, .. } = &rollout.phase {
                    self.count(Group::Outcome, outcome_of(outcome));
                }
            }
        }
    }

    /// Adds what happened elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (kind, times) in &other.0 {
            *self.0.entry(*kind).or_default() += times;
        }
    }

    /// Everything that can happen, with how often it did.
    pub fn iter(&self) -> impl Iterator<Item = (Group, &'static str, u64)> {
        let faults = FAULTS.iter().map(|(_, name, _)| (Group::Fault, *name));
        let others = EXPECTED.iter().flat_map(|(group, names)| names.iter().map(|name| (*group, *name)));
        faults.chain(others).map(|(group, name)| (group, name, self.0.get(&(group, name)).copied().unwrap_or(0)))
    }
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Lining { .. } => "lining up",
        Phase::Gathering { .. } => "gathering",
        Phase::Clearing { .. } => "clearing",
        Phase::Preparing { .. } => "preparing",
        Phase::Smoking { .. } => "smoking",
        Phase::Shifting { .. } => "shifting",
        Phase::Holding { .. } => "holding",
        Phase::Paused { .. } => "paused",
        Phase::Retiring { .. } => "retiring",
        Phase::RollingBack { .. } => "rolling back",
        Phase::Stopping { .. } => "stopping",
        Phase::Stuck { .. } => "stuck",
        Phase::Done { .. } => "done",
    }
}

fn outcome_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Promoted => "promoted",
        Outcome::Refused { .. } => "refused by a gate",
        Outcome::Stopped { .. } => "first release stopped",
        Outcome::RolledBack { why } => match why {
            Why::Harmful { .. } => "rolled back: harmful",
            Why::Cut { .. } => "rolled back: cut off by the proxy",
            Why::Breach { .. } => "rolled back: harmful",
            Why::NotReady { .. } => "rolled back: not ready",
            Why::Unready { .. } => "rolled back: unready",
            Why::Crashing { .. } => "rolled back: crashing",
            Why::Fellow { .. } => "rolled back: fellow",
            Why::TestOver => "rolled back: test over",
            Why::StableIsBack => "rolled back: stable is back",
            Why::Alert { .. } => "rolled back: alert",
            Why::Smoke { .. } => "rolled back: smoke checks",
            Why::Check { .. } => "rolled back: check",
            Why::Validation { .. } => "rolled back: validation",
            Why::Regression { .. } => "rolled back: regression",
            Why::Dependency { .. } => "rolled back: dependency",
            Why::Unchecked { .. } => "rolled back: check without data",
            Why::NotEnough { .. } => "rolled back: not enough requests",
            Why::Unconfirmed { .. } => "rolled back: share not confirmed",
            Why::Aborted { .. } => "rolled back: aborted",
            Why::Asked { .. } => "rolled back: asked",
            Why::Superseded { .. } => "rolled back: superseded",
        },
    }
}

fn name_of(verb: &Verb) -> &'static str {
    match verb {
        Verb::Pause => "pause",
        Verb::Resume => "resume",
        Verb::Promote { full: false } => "promote",
        Verb::Promote { full: true } => "promote fully",
        Verb::Abort => "abort",
        Verb::Retry { .. } => "retry",
        Verb::Rollback { .. } => "rollback",
        Verb::Scale { .. } => "scale",
        Verb::Hold { .. } => "hold",
        Verb::LetGo => "let go",
        Verb::Weigh { .. } => "weigh",
        Verb::Approve { .. } => "approve",
        Verb::Reject { .. } => "reject",
    }
}

fn strategy(strategy: &Strategy, is_worker: bool) -> &'static str {
    match (strategy, is_worker) {
        (Strategy::Canary { .. }, false) => "canary",
        (Strategy::Canary { .. }, true) => "canary worker",
        (Strategy::BlueGreen { .. }, _) => "blue-green",
        (Strategy::Rolling { .. }, false) => "rolling",
        (Strategy::Rolling { .. }, true) => "rolling worker",
        (Strategy::Recreate { .. }, false) => "recreate",
        (Strategy::Recreate { .. }, true) => "recreate worker",
        (Strategy::Ab { .. }, _) => "A/B",
    }
}
