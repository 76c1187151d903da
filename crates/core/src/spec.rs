//! What people ask for: replicas, probes, strategy, limits. Checked: whatever is in here can be done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_analysis::Objective;
use evenkeel_analysis::evidence::{Margin, Settings};
use serde::{Deserialize, Serialize};

use crate::alert::Alerts;
use crate::alone::{Regression, Validation};
use crate::check::{Call, Check};
use crate::dependency::Dependency;
use crate::edge::Edge;
use crate::gate::Gates;
use crate::group::Membership;
use crate::ids::{BasisPoints, ServiceName};
use crate::load::Load;
use crate::outage::OnOutage;
use crate::slo::Slo;
use crate::table::{Match, StickyBy};
use crate::trigger::{Resources, Triggers};

/// One service, as its spec asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name, with its environment: `web`, `web@staging`.
    pub service: ServiceName,
    /// Where it is deployed, as its name says.
    pub environment: String,
    /// Program and arguments; `{{version}}` and `{{port}}` are filled in.
    pub command: Vec<String>,
    /// Files and folders, below the spec's directory, that make up a release; copied at each deploy. May hold
    /// `{{version}}`. Empty: nothing is copied, the command runs in the spec's directory.
    pub artefact: Vec<PathBuf>,
    /// Added to the environment of each replica; `{{version}}` and `{{port}}` are filled in.
    pub env: BTreeMap<String, String>,
    /// Number of replicas; 1 to 1 000, default 1.
    pub replicas: u32,
    /// Where users connect; `None`: it has no users that connect, a worker.
    pub listen: Option<SocketAddr>,
    /// Where each release can be reached whatever its weight; `None`: nowhere.
    pub preview: Option<SocketAddr>,
    /// What its clients and replicas speak.
    #[serde(default)]
    pub edge: Edge,
    /// How replicas are probed.
    pub probes: Probes,
    /// How replicas are stopped.
    pub stop: Stop,
    /// How a new release takes over.
    pub strategy: Strategy,
    /// Limits that the new release must keep in every step that has none of its own.
    pub objectives: Vec<Objective>,
    /// What is measured beside the steps of a rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// What is asked once when a rollout of something new has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<Call>,
    /// What is called with every moment of a rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Call>,
    /// Requests to the new release below which nothing is said about it; default 50.
    pub minimum_requests: u64,
    /// How the evidence for and against the new release is weighed.
    #[serde(default)]
    pub analysis: Analysis,
    /// What happens when a step's time is over and there were too few requests.
    pub not_enough: NotEnough,
    /// Longest wait for the replicas of a new release to become ready; default 300 s.
    pub startup_limit: Duration,
    /// Longest time a new release may have too few ready replicas before it is taken back; default 120 s.
    pub unready_limit: Duration,
    /// How long the first release of all is judged while it has all of the traffic; default no time.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub first_watch: Duration,
    /// Longest wait for the first byte of an answer; default 30 s.
    pub first_byte_timeout: Duration,
    /// Size at which a replica's log is cut over; default 10 MiB.
    pub log_bytes_max: u64,
    /// Whether the stable release answers what a new one fails.
    #[serde(default)]
    pub shield: Shield,
    /// What must be open before a rollout begins; default: nothing.
    #[serde(default)]
    pub gates: Gates,
    /// The group whose services are promoted and rolled back together; `None`: on its own.
    #[serde(default)]
    pub group: Option<Membership>,
    /// What alerts may do.
    #[serde(default)]
    pub alerts: Alerts,
    /// Which figures take a release back.
    #[serde(default)]
    pub triggers: Triggers,
    /// What is promised of it over weeks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<Slo>,
    /// What is sent to it while a release is on its way; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// How the new release is sampled while it has all of the traffic; `None`: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// What each replica may have.
    #[serde(default)]
    pub resources: Resources,
    /// How its replicas are asked for metrics of their own; `None`: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<Scrape>,
    /// What its replicas reach through evenkeel, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, Dependency>,
}

/// How replicas are asked for metrics of their own, in Prometheus' text format or OpenMetrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    /// Where, with its leading slash; default `/metrics`.
    pub path: String,
    /// At which port; `None`: at the replica's own.
    pub port: Option<u16>,
    /// How often; default 15 s.
    pub interval: Duration,
}

impl Default for Scrape {
    fn default() -> Self {
        Self { path: "/metrics".into(), port: None, interval: Duration::from_secs(15) }
    }
}

/// How the evidence for and against a new release is weighed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Analysis {
    /// The share of harmless releases that are taken back at most, however long one looks; .0001 to .2, default .01.
    pub false_rollbacks: f64,
    /// The extra share of its requests that the new release may fail beside the stable one, on top of 1.2 times as many;
    /// 0 to .5, default .001.
    pub tolerate: f64,
    /// How long after each change of the shares answer times are not compared: new replicas are cold; 0 to 1 h, default
    /// 10 s.
    pub warm_up: Duration,
    /// Whether a step ends before its time as soon as the evidence shows that the next share is safe; default no.
    pub early: bool,
    /// The extra share of all the service's requests that may fail at the next share, for a step to end early; .0001 to
    /// .2, default .005.
    pub harm: f64,
    /// What follows when it is worse than an earlier release was, where no other one is beside it.
    pub regression: Regression,
    /// What follows when it does not reach what it depends on.
    pub dependencies: OnOutage,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            false_rollbacks: 0.01,
            tolerate: 0.001,
            warm_up: Duration::from_secs(10),
            early: false,
            harm: 0.005,
            regression: Regression::default(),
            dependencies: OnOutage::default(),
        }
    }
}

impl Analysis {
    /// The engine's settings that follow from it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Self { false_rollbacks, tolerate, harm, .. } = *self;
        let margin = Margin { extra: tolerate, ..Settings::default().margin };
        Settings { alpha: false_rollbacks, margin, harm, ..Settings::default() }
    }
}

/// Whether the stable release answers what a new one fails before the first byte of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shield", rename_all = "snake_case")]
pub enum Shield {
    /// It does, where the request may be repeated. The default, with no paths.
    On {
        /// Paths at and below which any method may be repeated, not only the safe ones.
        idempotent: Vec<String>,
    },
    /// A new release's failures are its users'.
    Off,
}

impl Default for Shield {
    fn default() -> Self {
        Self::On { idempotent: Vec::new() }
    }
}

/// How a new release takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "snake_case")]
pub enum Strategy {
    /// Share by share.
    Canary {
        /// The shares, rising; the last one is 100 %.
        steps: Vec<CanaryStep>,
        /// What decides which requests are a share's; `None`: a coin for each.
        #[serde(default)]
        sticky: Option<StickyBy>,
    },
    /// All at once, after it was tested without users.
    BlueGreen {
        /// What must be right before any user meets the new release.
        smoke: Vec<SmokeCheck>,
        /// Replicas of the new release until the switch; `None`: all of them.
        #[serde(default)]
        preview_replicas: Option<Amount>,
        /// How long the new release stays on its preview address before the switch; default no time.
        #[serde(default = "no_time")]
        promotion: Hold,
        /// Shares on the way to 100 %, with all replicas running; empty: the switch is at once.
        #[serde(default)]
        shift: Vec<Shift>,
        /// What decides which requests are a share's; `None`: a coin for each.
        #[serde(default)]
        sticky: Option<StickyBy>,
        /// What is measured before the switch, and must have passed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before_switch: Vec<Check>,
        /// What is measured after the switch, and must have passed before the old release goes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after_switch: Vec<Check>,
        /// How long it is watched after the switch, with the old one kept warm; default 300 s.
        watch: Duration,
    },
    /// Replica by replica.
    Rolling {
        /// How many replicas there may be above the wanted number; default 25 %, rounded up.
        surge: Amount,
        /// How many of the wanted number may be missing; default 25 %, rounded down.
        unavailable: Amount,
        /// How long each batch is watched before the next one; default no time.
        pause: Duration,
        /// What must be right of the first batch before any user meets it.
        smoke: Vec<SmokeCheck>,
        /// How many of the old release's replicas stay, without traffic, until the new one has been watched to the end;
        /// default none. They come on top of `surge`.
        warm: Amount,
        /// How long the new release is watched at the end; default 300 s.
        watch: Duration,
    },
    /// The old release is stopped before the new one starts. Users are answered 503 in between.
    Recreate {
        /// What must be right before users meet the new release.
        smoke: Vec<SmokeCheck>,
        /// How long it is watched.
        watch: Duration,
    },
    /// A variant for some users, for a fixed time, to be compared.
    Ab {
        /// The variant's share.
        share: BasisPoints,
        /// What users stick to their variant by.
        sticky: StickyBy,
        /// Requests that get the variant whatever their share says.
        pins: Vec<Match>,
        /// How long the test lasts.
        lasts: Duration,
        /// What happens when it is over.
        then: Afterwards,
        /// How long the release is watched at 100 %, when the variant has won.
        watch: Duration,
    },
}

fn no_time() -> Hold {
    Hold::For(Duration::ZERO)
}

/// One share of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The new release's share; nothing, for a step that only has pins, copies or time.
    pub weight: BasisPoints,
    /// How long it is watched at this share; at 100 % the old release is kept warm meanwhile.
    pub hold: Hold,
    /// Limits of this step; `None`: the spec's.
    pub objectives: Option<Vec<Objective>>,
    /// Replicas of the new release; `None`: as many as the share needs.
    #[serde(default)]
    pub replicas: Option<Amount>,
    /// What must be right before the share is given.
    #[serde(default)]
    pub smoke: Vec<SmokeCheck>,
    /// Requests that go to the new release in this step whatever the share.
    #[serde(default)]
    pub pins: Vec<Match>,
    /// Share of stable's requests that the new release gets copies of.
    #[serde(default)]
    pub mirror: BasisPoints,
    /// What is measured in this step, and must have passed before it ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl CanaryStep {
    /// A step with nothing but a share and its time.
    #[must_use]
    pub fn new(weight: BasisPoints, hold: Hold) -> Self {
        let (smoke, pins, checks) = (Vec::new(), Vec::new(), Vec::new());
        Self { weight, hold, objectives: None, replicas: None, smoke, pins, mirror: BasisPoints::NONE, checks }
    }
}

/// One share of a gradual switch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// The new release's share.
    pub weight: BasisPoints,
    /// How long it is watched at this share.
    pub hold: Hold,
}

/// What happens when the time of an A/B test is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Afterwards {
    /// Both go on until people say which one stays. The default.
    Ask,
    /// The variant takes over.
    Promote,
    /// The variant is taken back; nothing bad is said of it.
    End,
}

/// A number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// A part of the wanted number.
    Share(BasisPoints),
}

impl Amount {
    /// So many of `replicas`, parts rounded up.
    #[must_use]
    pub fn rounded_up(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => share.of_replicas(replicas),
        }
    }

    /// So many of `replicas`, parts rounded down.
    #[must_use]
    pub fn rounded_down(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => (u64::from(replicas) * u64::from(share.get()) / 10_000) as u32,
        }
    }
}

/// How long a step lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// This long, and then on by itself.
    For(Duration),
    /// Until somebody promotes.
    UntilPromoted,
}

/// What happens when a step's time is over and there were too few requests. Never a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "snake_case")]
pub enum NotEnough {
    /// Goes on waiting for requests, then pauses for people. The default, with one hour.
    Hold {
        /// How long it waits beyond the step's time.
        at_most: Duration,
    },
    /// Rolls back.
    Fail,
}

/// The probes of a replica. With none at all, a replica is ready when its port accepts connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Holds the other two off until it has succeeded; failing restarts.
    pub startup: Option<Probe>,
    /// Failing restarts.
    pub liveness: Option<Probe>,
    /// Failing takes out of traffic.
    pub readiness: Option<Probe>,
    /// For a service without a port: a replica without a readiness probe counts as ready when it has run this long.
    #[serde(default)]
    pub running: Option<Duration>,
}

/// One probe, with Kubernetes' fields, meaning and defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub check: ProbeCheck,
    /// Wait before the first one; default 0.
    pub initial_delay: Duration,
    /// Time between two; default 10 s.
    pub period: Duration,
    /// Longest wait for an answer; default 1 s.
    pub timeout: Duration,
    /// Successes in a row after which it counts as succeeding; default 1.
    pub success_threshold: u32,
    /// Failures in a row after which it counts as failing; default 3.
    pub failure_threshold: u32,
}

impl Probe {
    /// A probe with the default times and thresholds.
    #[must_use]
    pub fn new(check: ProbeCheck) -> Self {
        Self {
            check,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }

    /// How long a replica may take to start by this probe.
    #[must_use]
    pub fn time_to_start(&self) -> Duration {
        self.initial_delay + self.period * self.failure_threshold
    }
}

/// What a probe asks of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProbeCheck {
    /// `GET path`: good with a status from 200 to 399.
    Http {
        /// The path, with its leading slash.
        path: String,
        /// Another port than the replica's own.
        port: Option<u16>,
        /// Headers to send.
        headers: Vec<(String, String)>,
    },
    /// Good when the port accepts a connection.
    Tcp {
        /// Another port than the replica's own.
        port: Option<u16>,
    },
    /// Good when the command ends with exit status 0; it runs where the replica runs, with the same environment.
    Exec {
        /// Program and arguments; `{{version}}` and `{{port}}` are filled in. No shell.
        command: Vec<String>,
    },
    /// `grpc.health.v1.Health/Check`: good when it answers SERVING.
    Grpc {
        /// Another port than the replica's own.
        port: Option<u16>,
        /// What is asked for; empty asks for the server as a whole.
        service: String,
    },
}

/// One thing that must be right before a blue-green switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeCheck {
    /// `GET` this path of each new replica.
    pub path: String,
    /// The status it must answer with; default 200.
    pub status: u16,
    /// A text its body must hold (looked for in the first 64 KiB).
    pub contains: Option<String>,
    /// Longest wait for the answer; default 5 s.
    pub timeout: Duration,
}

/// How replicas are stopped: out of traffic, drain, SIGTERM, grace, SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Longest wait for requests in flight; default 15 s.
    pub drain: Duration,
    /// Longest wait between SIGTERM and SIGKILL; default 30 s, as Kubernetes.
    pub grace: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { drain: Duration::from_secs(15), grace: Duration::from_secs(30) }
    }
}

impl Spec {
    /// Its triggers, with the number of requests that they want.
    #[must_use]
    pub fn watched(&self) -> Triggers {
        let minimum_requests = self.triggers.minimum_requests.or(Some(self.minimum_requests));
        Triggers { minimum_requests, ..self.triggers.clone() }
    }

    /// A spec with every default, for a service, its command and the address of its users.
    ///
    /// The default strategy is a canary of 5, 20, 50 and 100 %, of 10, 20, 30 and 5 minutes.
    #[must_use]
    pub fn new(service: ServiceName, command: Vec<String>, listen: SocketAddr) -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let step = |percent: u16, hold| {
            CanaryStep::new(BasisPoints::new(percent * 100).unwrap_or(BasisPoints::ALL), Hold::For(hold))
        };
        let environment = service.environment().to_owned();
        Self {
            service,
            environment,
            command,
            artefact: Vec::new(),
            env: BTreeMap::new(),
            replicas: 1,
            listen: Some(listen),
            preview: None,
            edge: Edge::default(),
            probes: Probes::default(),
            stop: Stop::default(),
            strategy: Strategy::Canary {
                steps: vec![step(5, minutes(10)), step(20, minutes(20)), step(50, minutes(30)), step(100, minutes(5))],
                sticky: None,
            },
            objectives: Vec::new(),
            checks: Vec::new(),
            afterwards: Vec::new(),
            events: Vec::new(),
            minimum_requests: 50,
            analysis: Analysis::default(),
            not_enough: NotEnough::Hold { at_most: minutes(60) },
            startup_limit: minutes(5),
            unready_limit: minutes(2),
            first_watch: Duration::ZERO,
            first_byte_timeout: Duration::from_secs(30),
            log_bytes_max: 10 << 20,
            shield: Shield::default(),
            gates: Gates::default(),
            group: None,
            scrape: None,
            dependencies: BTreeMap::new(),
            alerts: Alerts::default(),
            triggers: Triggers::default(),
            resources: Resources::default(),
            slos: Vec::new(),
            validation: None,
            load: None,
        }
    }
}
