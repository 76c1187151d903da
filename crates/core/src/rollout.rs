//! Where is a rollout, and which moves are legal?
//!
//! The types are here; `moves` holds the one table of legal moves behind [`Rollout::step`], and `words` what a rollout
//! says to people. What it is told about the world comes whole each time, as an
//! [`Observation`]; so an observation that is lost, late or repeated changes nothing.

use evenkeel_analysis::{Case, Finding, Verdict};
use serde::{Deserialize, Serialize};

use crate::alone::Alone;
use crate::check::{Checks, Sighting};
use crate::evidence::Measured;
use crate::group::{Fellows, Together};
use crate::guard::Cut;
use crate::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use crate::outage::Outage;
use crate::plan::Plan;
use crate::spec::Hold;

mod moves;
mod outages;
mod words;

/// One attempt to make a release stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Counts up within the service.
    pub id: RolloutId,
    /// Whether it tries something new or goes back.
    pub kind: Kind,
    /// The release that shall become stable.
    pub candidate: Revision,
    /// The release that was stable when it started, to which traffic goes back; `None`: the service had none.
    pub stable: Option<Revision>,
    /// What it will do.
    pub plan: Plan,
    /// Where it is.
    pub phase: Phase,
    /// Replicas that the candidate keeps while it is taken back: as many as it had then.
    pub kept: u32,
    /// Replicas of the stable release when it is alone.
    #[serde(default)]
    pub stable_replicas: u32,
    /// Replicas of the stable release on the way back, where its plan took some away; they come back batch by batch.
    #[serde(default)]
    pub returning: u32,
    /// Until when too few ready replicas are no failure: the service was scaled up.
    #[serde(default)]
    pub scaling_until: Option<Timestamp>,
    /// The group whose services are promoted and rolled back together with this one.
    #[serde(default)]
    pub group: Option<Box<Together>>,
    /// It goes to an earlier good release because the stable one could not take the traffic back.
    #[serde(default)]
    pub is_rescue: bool,
    /// When it started.
    pub started: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// What it did so far, oldest first.
    pub moments: Vec<Moment>,
    /// Why its gates were passed by; `None`: they were not.
    #[serde(default)]
    pub skipped_gates: Option<String>,
    /// What is measured while it goes.
    #[serde(default, skip_serializing_if = "Checks::is_empty")]
    pub checks: Checks,
    /// What speaks against a release that has nothing beside it to go back to: it stays, and people decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Box<Why>>,
    /// What the candidate does not reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
}

/// Whether a rollout tries something new or goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A release that has yet to show that it is good.
    Deploy,
    /// A release that was good before.
    Back,
}

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Waits for the other services of its group to begin, and for those it comes after to be through.
    Lining {
        /// When it gives up on those that nothing is known of.
        until: Timestamp,
    },
    /// Waits for the replicas that a step needs.
    Preparing {
        /// The step.
        step: usize,
        /// The candidate's share meanwhile.
        weight: BasisPoints,
        /// When it gives up.
        until: Timestamp,
        /// It skips steps because the stable release has no ready replica.
        #[serde(default)]
        is_urgent: bool,
    },
    /// Waits for the old release's replicas to be gone, and nobody has traffic; or, on the way back, for the new one's.
    Clearing {
        /// Why it goes back; `None`: it does not.
        back: Option<Why>,
        /// When it stops waiting.
        until: Timestamp,
    },
    /// Waits for the smoke checks of a step.
    Smoking {
        /// The step.
        #[serde(default)]
        step: usize,
        /// The candidate's share meanwhile.
        #[serde(default)]
        weight: BasisPoints,
        /// When it gives up.
        until: Timestamp,
    },
    /// Waits for the proxy to confirm a step's share.
    Shifting {
        /// The step.
        step: usize,
        /// When it gives up.
        until: Timestamp,
    },
    /// Watches the candidate at a step's share.
    Holding {
        /// The step.
        step: usize,
        /// When the share was confirmed.
        since: Timestamp,
        /// When the step's time is over; `None`: when somebody promotes.
        until: Option<Timestamp>,
        /// Since when fewer replicas are ready than the step needs.
        short_since: Option<Timestamp>,
    },
    /// Stands still for people; the candidate is watched meanwhile.
    Paused {
        /// The step.
        step: usize,
        /// The candidate's share meanwhile.
        weight: BasisPoints,
        /// What is left of the step's time; `None`: its share was not confirmed yet.
        left: Option<Hold>,
        /// Who paused it, or why it paused itself.
        why: String,
    },
    /// Was watched to its end, and waits for the other services of its group; the way back is still open.
    Gathering {
        /// Since when.
        since: Timestamp,
    },
    /// The candidate is stable now; waits for the replicas of the old release to be gone.
    Retiring {
        /// When it stops waiting.
        until: Timestamp,
    },
    /// Waits for the proxy to confirm that the candidate has no share.
    RollingBack {
        /// Why.
        why: Why,
        /// When it calls for people.
        until: Timestamp,
    },
    /// Traffic is back; waits for the candidate's replicas to be gone.
    Stopping {
        /// Why.
        why: Why,
        /// When it stops waiting.
        until: Timestamp,
    },
    /// Traffic could not be moved back: everything is held still and people are needed.
    Stuck {
        /// Why it wanted to go back.
        why: Why,
    },
    /// It is over.
    Done {
        /// How it ended.
        outcome: Outcome,
        /// When.
        at: Timestamp,
    },
}

/// Why a candidate is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// The evidence says that it is harmful.
    Harmful {
        /// What speaks against it.
        case: Box<Case>,
    },
    /// The proxy has cut it off.
    Cut {
        /// Which release.
        revision: Revision,
        /// What speaks against it.
        case: Box<Case>,
    },
    /// It broke an objective, as earlier versions judged it.
    Breach {
        /// Which, with what was measured.
        finding: Finding,
    },
    /// Its replicas did not become ready in time.
    NotReady {
        /// Ready replicas at the end.
        ready: u32,
        /// Replicas that were needed.
        needed: u32,
        /// The last probe answer or exit.
        detail: String,
    },
    /// Its replicas stopped being ready while it had traffic.
    Unready {
        /// Ready replicas at the end.
        ready: u32,
        /// Replicas that were needed.
        needed: u32,
        /// The last probe answer or exit.
        detail: String,
    },
    /// Its replicas end by themselves again and again.
    Crashing {
        /// How often one of them did.
        crashes: u32,
        /// The last exit.
        detail: String,
    },
    /// A smoke check failed before it was given a share.
    Smoke {
        /// Which, and what it answered.
        detail: String,
    },
    /// An alert asked for it.
    Alert {
        /// What the alert is called.
        name: String,
        /// Its own words; may be empty.
        summary: String,
    },
    /// Too few requests to judge it, and the spec says to give up then.
    NotEnough {
        /// Requests there were.
        have: u64,
        /// Requests needed.
        need: u64,
    },
    /// A check failed.
    Check {
        /// Which.
        check: String,
        /// How, in words.
        detail: String,
    },
    /// A check was not measured as often as it should, and the spec says to give up then.
    Unchecked {
        /// Which.
        check: String,
        /// What was waited for, in words.
        detail: String,
    },
    /// With all of the traffic, it broke the limits of its validation.
    Validation {
        /// How, in words.
        detail: String,
    },
    /// It does not reach what the stable release reaches.
    Dependency {
        /// Which, and how, in words.
        detail: String,
    },
    /// It is worse than an earlier release was.
    Regression {
        /// How, in words.
        detail: String,
    },
    /// The proxy did not confirm its share.
    Unconfirmed {
        /// The share.
        weight: BasisPoints,
    },
    /// An operator aborted.
    Aborted {
        /// Who.
        by: String,
    },
    /// An operator asked to go back.
    Asked {
        /// Who.
        by: String,
    },
    /// A newer release takes its place.
    Superseded {
        /// The newer one.
        by: Revision,
    },
    /// Another service of its group goes back.
    Fellow {
        /// Which.
        service: ServiceName,
        /// Why, in words.
        reason: String,
    },
    /// The time of an A/B test is over, and that was to be its end.
    TestOver,
    /// The release whose place it was to take can take the traffic again.
    StableIsBack,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The candidate is the stable release.
    Promoted,
    /// Traffic is back on the stable release.
    RolledBack {
        /// Why.
        why: Why,
    },
    /// The service's first release was stopped: there was nothing to go back to.
    Stopped {
        /// Why.
        why: Why,
    },
    /// It never began: a gate refused, and nothing was touched.
    Refused {
        /// Which gate.
        gate: String,
        /// Why.
        why: String,
    },
}

/// Something a rollout did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When it was decided.
    pub at: Timestamp,
    /// In words for people.
    pub text: String,
    /// What the decision rested on.
    pub evidence: Option<Verdict>,
    /// The same in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Box<Measured>>,
}

impl Moment {
    /// One that rests on no evidence.
    pub(crate) fn plain(at: Timestamp, text: String) -> Self {
        Self { at, text, evidence: None, measured: None }
    }
}

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutEvent {
    /// The world was looked at.
    Seen(Observation),
    /// Something was measured.
    Checked(Sighting),
    /// Somebody wants something.
    Asked(Ask),
}

/// What can be wanted of a rollout in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Stand still.
    Pause {
        /// Who asks.
        by: String,
    },
    /// Go on after a pause.
    Resume,
    /// End this step or pause as passed.
    Promote,
    /// Give the candidate all traffic as soon as it can carry it, and judge no more.
    PromoteFully,
    /// Give the paused candidate this share.
    Weigh {
        /// The share.
        weight: BasisPoints,
        /// Who asks.
        by: String,
    },
    /// Take the candidate back.
    Back {
        /// Why.
        why: Why,
    },
}

/// The world as a rollout needs to know it, whole each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The candidate's replicas.
    pub candidate: Health,
    /// The stable release's replicas; all zero without one.
    pub stable: Health,
    /// The candidate's share in the table in force; `None` while the proxy has not confirmed one.
    pub weight: Option<BasisPoints>,
    /// What the counts of this step say about the candidate.
    pub verdict: Verdict,
    /// The evidence shows that the candidate is good enough for the next step before this one's time is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_proven: bool,
    /// What is said of the candidate where no other release is beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<Box<Alone>>,
    /// The same in numbers, where a decision rests on this look; nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Box<Measured>>,
    /// The proxy has cut the candidate off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Box<Cut>>,
    /// How the smoke checks ended, once they have.
    pub smoke: Option<Result<(), String>>,
    /// The other services of its group; `None` without a group.
    #[serde(default)]
    pub fellows: Option<Box<Fellows>>,
    /// What the candidate does not reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
}

impl Observation {
    /// The same without what the counts say: what was seen of replicas and traffic.
    #[must_use]
    pub fn unjudged(self) -> Self {
        Self { verdict: Verdict::NotEnough { have: 0, need: 0 }, is_proven: false, alone: None, measured: None, ..self }
    }
}

/// How the replicas of one release are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Replicas that may have traffic.
    pub ready: u32,
    /// Replicas whose process exists, stopping ones included.
    pub alive: u32,
    /// The last bad probe answer, or the last exit; empty when there was none.
    pub detail: String,
    /// How often in a row one of its replicas ended by itself, at the most.
    #[serde(default)]
    pub crashes: u32,
}

/// A move that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {ask} while {phase}")]
pub struct IllegalMove {
    /// Where the rollout is, in words.
    pub phase: &'static str,
    /// What was wanted, in words.
    pub ask: &'static str,
}

/// What a rollout waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// In words for people.
    pub what: String,
    /// When it does something else instead; `None`: it waits for people as long as it takes.
    pub until: Option<Timestamp>,
}

/// What a rollout starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its id.
    pub id: RolloutId,
    /// Whether it tries something new or goes back.
    pub kind: Kind,
    /// The release that shall become stable.
    pub candidate: Revision,
    /// The release that is stable.
    pub stable: Option<Revision>,
    /// What it will do.
    pub plan: Plan,
    /// Replicas of the stable release when it is alone.
    pub stable_replicas: u32,
    /// Its group.
    pub group: Option<Box<Together>>,
    /// Who asks.
    pub by: String,
    /// Whether the stable release could not take the traffic back.
    pub is_rescue: bool,
}
