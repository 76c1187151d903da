//! What people and programs are shown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_analysis::slo::{Budget, Speed};
use evenkeel_analysis::{Answers, Counts, Verdict};
use evenkeel_core::alert::{Action, Heard};
use evenkeel_core::breaker::Change;
use evenkeel_core::choice::StickyBy;
use evenkeel_core::dependency::{EndpointKey, EndpointStatus};
use evenkeel_core::evidence::Judging;
use evenkeel_core::gate::{GateStatus, Gated};
use evenkeel_core::ids::{BasisPoints, Generation, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::load::Load;
use evenkeel_core::maintenance::Maintenance;
use evenkeel_core::ports::Limited;
use evenkeel_core::release::Standing;
use evenkeel_core::rollout::{Kind, Moment, Waiting};
use evenkeel_core::spec::Scrape;
use evenkeel_core::trigger::{Resources, Triggers};
use evenkeel_core::{Outcome, Phase, Rollout};
use serde::{Deserialize, Serialize};

/// Everything a controller shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// When this was true.
    pub at: Timestamp,
    /// Generation of the table in force.
    pub generation: Generation,
    /// What does not answer right now, in words; empty when all is well.
    pub troubles: Vec<String>,
    /// What people should see to although everything answers, such as a certificate that ends soon.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The room that the store takes, in bytes; `None` before it was looked at.
    #[serde(default)]
    pub store_bytes: Option<u64>,
    /// Its services.
    pub services: Vec<ServiceStatus>,
    /// What their releases depend on, as far as it is reached through evenkeel.
    #[serde(default)]
    pub dependencies: Vec<EndpointStatus>,
}

/// The same in parts, of which those that change are replaced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) at: Timestamp,
    pub(crate) generation: Generation,
    pub(crate) troubles: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) store_bytes: Option<u64>,
    pub(crate) services: Vec<ShownService>,
    pub(crate) dependencies: Arc<[EndpointStatus]>,
}

/// One service: what changes often, and what does not.
#[derive(Debug, Clone)]
pub(crate) struct ShownService {
    /// Without its history.
    pub(crate) status: Arc<ServiceStatus>,
    /// Ended rollouts, the newest first.
    pub(crate) history: Arc<[RolloutStatus]>,
}

impl ShownService {
    /// The whole of it.
    pub(crate) fn whole(&self) -> ServiceStatus {
        ServiceStatus { history: self.history.to_vec(), ..(*self.status).clone() }
    }
}

impl Shown {
    /// The whole of it.
    pub(crate) fn whole(&self) -> Overview {
        let services = self.services.iter().map(ShownService::whole).collect();
        let (troubles, warnings, store_bytes) = (self.troubles.clone(), self.warnings.clone(), self.store_bytes);
        let (at, generation, dependencies) = (self.at, self.generation, self.dependencies.to_vec());
        Overview { at, generation, troubles, warnings, store_bytes, services, dependencies }
    }
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: ServiceName,
    /// Where it is deployed.
    pub environment: String,
    /// Where users connect; `None` before the first deploy.
    pub listen: Option<SocketAddr>,
    /// Where previews are reached.
    pub preview: Option<SocketAddr>,
    /// How its replicas are asked for metrics of their own; `None`: they are not.
    #[serde(default)]
    pub scrape: Option<Scrape>,
    /// Files of Prometheus rules that are evaluated over its series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PathBuf>,
    /// Which figures take a release back.
    #[serde(default)]
    pub triggers: Triggers,
    /// What each replica may have.
    #[serde(default)]
    pub resources: Resources,
    /// What is sent to it while a release is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// What is promised of it, and what is left of the budgets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<SloStatus>,
    /// The release that has the traffic outside a rollout.
    pub stable: Option<Revision>,
    /// The releases that run or have run, the newest first.
    pub releases: Vec<ReleaseStatus>,
    /// The rollout in flight, or the last one.
    pub rollout: Option<RolloutStatus>,
    /// A rollout that waits for the one in flight to be out of its way.
    pub queued: Option<RolloutId>,
    /// A deploy that waits for its gates.
    #[serde(default)]
    pub gated: Option<GatedStatus>,
    /// Ended rollouts, the newest first.
    pub history: Vec<RolloutStatus>,
    /// Requests that its limits kept out since the proxy started; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited: Option<Limited>,
    /// In which requests of its users wait; `None`: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Alerts that fire, as far as is known, the newest first, and at most ten of them.
    #[serde(default)]
    pub alerts: Vec<AlertStatus>,
}

/// One promise, and its error budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloStatus {
    /// What people call it.
    pub name: String,
    /// What is promised, in words.
    pub promise: String,
    /// The share of requests that must be good.
    pub objective: f64,
    /// What is left of the rest.
    pub budget: Budget,
    /// How fast it is spent over the long stretch of each speed; those without requests are left out.
    pub burn_rates: BTreeMap<String, f64>,
    /// It is spent too fast.
    pub burns: Option<Speed>,
}

/// One release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Counts up within the service.
    pub revision: Revision,
    /// What people call it.
    pub version: String,
    /// What is known of it.
    pub standing: Standing,
    /// When it was deployed first.
    pub created: Timestamp,
    /// What was kept of its artefact.
    pub artefact: Option<String>,
    /// Its share in the table in force.
    pub weight: BasisPoints,
    /// Replicas it shall have now.
    pub wanted: u32,
    /// Replicas that may have traffic.
    pub ready: u32,
    /// Restarts of its replicas since the controller started.
    #[serde(default)]
    pub restarts: u64,
    /// Whether one of them was started again for the third time without having run for ten minutes since.
    #[serde(default)]
    pub crash_looping: bool,
    /// Requests whose answer is not complete yet.
    #[serde(default)]
    pub in_flight: u64,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// Requests of the last ten seconds.
    pub recent: Counts,
    /// Requests since the controller started.
    pub total: Counts,
    /// The same by method and exact status.
    #[serde(default)]
    pub answers: Answers,
    /// Those of them that it failed and the stable release answered.
    #[serde(default)]
    pub shielded: u64,
    /// Requests since the controller started that a pin sent to it; not part of `total`.
    #[serde(default)]
    pub pinned: Counts,
    /// Copies of requests since the controller started that another release answered; no user saw what came of them.
    #[serde(default)]
    pub mirrored: Counts,
    /// Copies that were not sent, since too many were under way.
    #[serde(default)]
    pub mirror_dropped: u64,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Its port on the loopback address.
    pub port: u16,
    /// `launching`, `starting`, `ready`, `draining` or `stopping`.
    pub state: String,
    /// Its process, which leads a process group of its own; 0 where it is not known.
    #[serde(default)]
    pub pid: u32,
    /// The last bad probe answer; empty when there was none.
    pub detail: String,
    /// Why the proxy passes it over at the moment: `fails requests`, `refuses connections`; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<String>,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Counts up within the service.
    pub id: RolloutId,
    /// Whether it tries something new or goes back.
    pub kind: Kind,
    /// The release that shall become stable.
    pub candidate: Revision,
    /// Its version.
    pub version: String,
    /// The release that was stable when it started.
    pub stable: Option<Revision>,
    /// Who asked.
    pub by: String,
    /// When it started.
    pub started: Timestamp,
    /// Where it is, in a word or two.
    pub state: String,
    /// How it ended; `None` while it is in flight.
    pub outcome: Option<Outcome>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The share of each step, and how long it is held.
    pub steps: Vec<StepStatus>,
    /// The step being taken or held.
    pub step: Option<usize>,
    /// When the share in force was confirmed, while it is held.
    pub held_since: Option<Timestamp>,
    /// What users stick to their release by, in words; `None`: a coin for each request.
    #[serde(default)]
    pub sticky: Option<String>,
    /// Traffic could not be moved back: everything is held still until people have helped.
    #[serde(default)]
    pub manual_intervention: bool,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// What the counts of the step say right now; `None` when it is over.
    pub verdict: Option<Verdict>,
    /// How each metric is judged right now, and why so; empty when it is over, and before there is anything to judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judging: Vec<Judging>,
    /// What it did, oldest first.
    pub moments: Vec<Moment>,
    /// Why its gates were passed by; `None`: they were not.
    #[serde(default)]
    pub skipped_gates: Option<String>,
}

/// A deploy that waits for its gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatedStatus {
    /// The id its rollout will have.
    pub id: RolloutId,
    /// The release.
    pub revision: Revision,
    /// Its version.
    pub version: String,
    /// Who asked.
    pub by: String,
    /// When.
    pub since: Timestamp,
    /// Its gates, with what each waits for and until when.
    pub gates: Vec<GateStatus>,
    /// What happened so far, oldest first.
    pub moments: Vec<Moment>,
}

/// One alert, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// When it was told of first.
    pub at: Timestamp,
    /// What it is called.
    pub alert: String,
    /// The service that it is about; `None`: no single one could be named.
    pub service: Option<ServiceName>,
    /// What it asks for.
    pub action: Action,
    /// When it began to fire, by the clock of whoever evaluates its rule.
    pub starts_at: Timestamp,
    /// When it was over; `None`: it fires, as far as is known.
    pub resolved: Option<Timestamp>,
    /// `rolled_back`, `held` or `recorded`.
    pub result: String,
    /// The same in words.
    pub detail: String,
    /// The rollout that it acted on, or began.
    pub rollout: Option<RolloutId>,
    /// Whether people should look.
    pub calls_people: bool,
    /// Its own words; may be empty.
    pub summary: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The group it was told in.
    pub group: String,
    /// Of its labels.
    pub fingerprint: String,
}

impl AlertStatus {
    /// An alert as people are shown it.
    #[must_use]
    pub fn of(heard: &Heard, service: Option<&ServiceName>) -> Self {
        let Heard { alert, at, became, resolved } = heard;
        Self {
            at: *at,
            alert: alert.name.clone(),
            service: service.cloned(),
            action: alert.action,
            starts_at: alert.key.starts_at,
            resolved: *resolved,
            result: became.code().to_owned(),
            detail: became.to_string(),
            rollout: became.rollout(),
            calls_people: heard.calls_people(),
            summary: alert.summary.clone(),
            labels: alert.labels.clone(),
            group: alert.key.group.clone(),
            fingerprint: alert.key.fingerprint.clone(),
        }
    }
}

/// One step of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepStatus {
    /// The candidate's share.
    pub weight: BasisPoints,
    /// How long it is held, in milliseconds; `None`: until somebody promotes.
    pub hold_ms: Option<u64>,
    /// What must hold meanwhile.
    pub objectives: Vec<String>,
    /// Replicas of the candidate.
    #[serde(default)]
    pub replicas: u32,
    /// Share of the stable release's requests that the candidate gets copies of.
    #[serde(default)]
    pub mirror: BasisPoints,
    /// Whether some requests go to the candidate for what they are.
    #[serde(default)]
    pub has_testers: bool,
}

/// Something that was decided, as it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The service.
    pub service: ServiceName,
    /// The rollout.
    pub rollout: RolloutId,
    /// Its candidate.
    pub candidate: Revision,
    /// Where the rollout is now.
    pub state: String,
    /// What was decided, when and on what.
    pub moment: Moment,
}

/// A breaker of a dependency went from one state to another, as it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakerTold {
    /// Whose dependency it is, and which.
    pub key: EndpointKey,
    /// The place that the breaker guards.
    pub at: String,
    /// Which place that is: 0 is the dependency itself, then its alternatives.
    pub place: usize,
    /// What became of the breaker, when and why.
    pub change: Change,
}

/// What is told to whoever listens.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Something was decided.
    Decided(Told),
    /// A breaker has changed.
    Breaker(BreakerTold),
}

impl RolloutStatus {
    /// A rollout as people are shown it; `verdict` is what the counts say right now.
    #[must_use]
    pub fn of(rollout: &Rollout, version: String, verdict: Option<Verdict>) -> Self {
        let (outcome, ended) = match &rollout.phase {
            Phase::Done { outcome, at } => (Some(outcome.clone()), Some(*at)),
            _ => (None, None),
        };
        let held_since = match rollout.phase {
            Phase::Holding { since, .. } => Some(since),
            _ => None,
        };
        Self {
            id: rollout.id,
            kind: rollout.kind,
            candidate: rollout.candidate,
            version,
            stable: rollout.stable,
            by: rollout.by.clone(),
            started: rollout.started,
            state: rollout.phase.name().to_owned(),
            outcome,
            ended,
            steps: rollout.plan.steps.iter().map(StepStatus::of).collect(),
            step: rollout.at_step(),
            held_since,
            sticky: rollout.plan.sticky.as_ref().map(sticky),
            manual_intervention: rollout.needs_people(),
            waiting: rollout.waiting(),
            verdict: verdict.filter(|_| !rollout.is_done()),
            judging: Vec::new(),
            moments: rollout.moments.clone(),
            skipped_gates: rollout.skipped_gates.clone(),
        }
    }
}

impl GatedStatus {
    /// A waiting deploy as people are shown it at `now`.
    #[must_use]
    pub fn of(gated: &Gated, version: String, now: Timestamp) -> Self {
        Self {
            id: gated.id,
            revision: gated.revision,
            version,
            by: gated.by.clone(),
            since: gated.since,
            gates: gated.status(now),
            moments: gated.moments.clone(),
        }
    }
}

/// What decides who is in a share, for people.
fn sticky(by: &StickyBy) -> String {
    match by {
        StickyBy::Header(name) => format!("the header {name}"),
        StickyBy::Cookie(name) => format!("the cookie {name}"),
        StickyBy::ClientAddress => "their address".into(),
        StickyBy::Visitor => "a cookie of evenkeel's own".into(),
    }
}

impl StepStatus {
    fn of(step: &evenkeel_core::plan::Step) -> Self {
        let hold_ms = match step.hold {
            evenkeel_core::spec::Hold::For(time) => Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            evenkeel_core::spec::Hold::UntilPromoted => None,
        };
        Self {
            weight: step.weight,
            hold_ms,
            objectives: step.objectives.iter().map(ToString::to_string).collect(),
            replicas: step.replicas,
            mirror: step.mirror,
            has_testers: !step.pins.is_empty(),
        }
    }
}
