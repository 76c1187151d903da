//! Everything that evenkeel tells in figures, by name.

use evenkeel_series::Labels;
use evenkeel_series::labels::NAME;

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows, and begins at zero again with the controller.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper edges, in seconds.
    Histogram,
}

impl Kind {
    /// Its name in the exposition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($(#[doc = $help:literal])+ $variant:ident, $kind:ident, $name:literal;)+) => {
        /// One family of figures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Family {
            $($(#[doc = $help])+ $variant,)+
        }

        impl Family {
            /// All of them, in the order in which they are told.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, of a counter without `_total`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it is.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)+ }
            }

            /// What it tells, in a sentence.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help),+),)+ }
            }
        }
    };
}

families! {
    /// Requests by release, status and method
    Requests, Counter, "http_requests";
    /// Requests that the release failed and the stable release answered
    Shielded, Counter, "evenkeel_shielded_requests";
    /// Requests that a pin sent to the release, not part of http_requests
    Pinned, Counter, "evenkeel_pinned_requests";
    /// Copies of requests that another release answered; no user saw what came of them
    Mirrored, Counter, "evenkeel_mirrored_requests";
    /// Copies that were not sent, since too many were under way
    MirrorDropped, Counter, "evenkeel_mirror_dropped";
    /// Requests that the limits of a service kept out: bodies too long, too many in a time, too many at once
    Limited, Counter, "evenkeel_limited_requests";
    /// Time to the first byte of the answer
    Durations, Histogram, "http_request_duration_seconds";
    /// Time to the first byte of the answer to a copy
    MirroredDurations, Histogram, "evenkeel_mirrored_request_duration_seconds";
    /// Requests whose answer is not complete yet
    InFlight, Gauge, "http_requests_in_flight";
    /// Replicas that may have traffic
    ReplicaUp, Gauge, "replica_up";
    /// Replicas that the release shall have
    ReplicaWanted, Gauge, "replica_wanted";
    /// Ready replicas that the proxy passes over for a while, since they fail requests or refuse connections
    PassedOver, Gauge, "evenkeel_replicas_passed_over";
    /// Processor time of a replica and everything it started
    ReplicaCpu, Counter, "replica_cpu_seconds";
    /// Resident memory of a replica and everything it started; pages that several of them share count for each
    ReplicaMemory, Gauge, "replica_memory_bytes";
    /// Replicas that were started again since they ended by themselves or failed a probe
    Restarts, Counter, "evenkeel_replica_restarts";
    /// 1 while a replica that was restarted three times has not run for ten minutes since
    CrashLooping, Gauge, "evenkeel_replica_crash_looping";
    /// Share of traffic in units of 0.01 %
    Weight, Gauge, "evenkeel_release_weight";
    /// 1 while a rollout is in flight, 0 when all is stable, -1 when the last one went back
    DeploymentStatus, Gauge, "evenkeel_deployment_status";
    // No counter: the oldest are forgotten.
    /// Ended rollouts that are remembered, by how they ended
    Remembered, Gauge, "evenkeel_rollouts_remembered";
    /// Share of requests that is promised to be good
    SloObjective, Gauge, "evenkeel_slo_objective";
    /// Share of the error budget that is left; below 0 it is overspent
    SloBudget, Gauge, "evenkeel_slo_budget_left";
    /// How many times as fast as it may an error budget is spent, by speed
    SloBurn, Gauge, "evenkeel_slo_burn_rate";
    /// 1 where the last look at a replica's own /metrics succeeded, 0 where it did not
    Up, Gauge, "up";
    /// How long the last look at a replica's own /metrics took
    ScrapeDuration, Gauge, "scrape_duration_seconds";
    /// Series that the last look at a replica's own /metrics found
    ScrapeSamples, Gauge, "scrape_samples_scraped";
    /// Time that this machine's processors spent
    NodeCpu, Counter, "node_cpu_seconds";
    /// Memory of this machine
    NodeMemory, Gauge, "node_memory_MemTotal_bytes";
    /// Memory of this machine that programs could still have
    NodeMemoryAvailable, Gauge, "node_memory_MemAvailable_bytes";
    /// Series that are kept for queries
    SeriesKept, Gauge, "evenkeel_series_kept";
    /// Room that they take in memory
    SeriesBytes, Gauge, "evenkeel_series_bytes";
    /// Room that the store takes, of all sites that share it
    StoreBytes, Gauge, "evenkeel_store_bytes";
    /// What the breaker of a dependency does: 0 closed, 1 open, 2 half-open
    BreakerState, Gauge, "circuit_breaker_state";
    /// Times a breaker opened
    BreakerOpened, Counter, "circuit_breaker_opened";
    /// Calls to a dependency by how they went: successful, failed, ignored
    BreakerCalls, Counter, "circuit_breaker_calls";
    /// Calls that a breaker did not let through
    BreakerRefused, Counter, "circuit_breaker_not_permitted_calls";
    /// Answers that another than the dependency's first place gave, by who; none: there was no answer
    Fallbacks, Counter, "circuit_breaker_fallbacks";
    /// Calls to a dependency that were repeated
    DependencyRetries, Counter, "evenkeel_dependency_retries";
    /// Calls to a dependency that were refused for too many at once
    DependencyLimited, Counter, "evenkeel_dependency_limited";
    /// Calls or connections to a dependency that are under way
    DependencyInFlight, Gauge, "evenkeel_dependency_in_flight";
    /// Calls to a dependency without the token of its release
    DependencyStrangers, Counter, "evenkeel_dependency_strangers";
    /// Room that kept answers of a dependency take
    DependencyCacheBytes, Gauge, "evenkeel_dependency_cache_bytes";
    /// 1 for the state that a breaker is in, 0 for the others, by the names of resilience4j
    Resilience4jState, Gauge, "resilience4j_circuitbreaker_state";
    /// Share of recent calls that failed in percent, -1 before enough were made, by the name of resilience4j
    Resilience4jFailureRate, Gauge, "resilience4j_circuitbreaker_failure_rate";
    /// Share of recent calls that were slow in percent, -1 before enough were made, by the name of resilience4j
    Resilience4jSlowRate, Gauge, "resilience4j_circuitbreaker_slow_call_rate";
    /// Calls that a breaker did not let through, by the name of resilience4j
    Resilience4jRefused, Counter, "resilience4j_circuitbreaker_not_permitted_calls";
    /// Parts of evenkeel that do not answer
    Troubles, Gauge, "evenkeel_troubles";
}

/// Names and values of labels, in the order in which they are told.
pub type Pairs = Vec<(&'static str, String)>;

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is of.
    pub family: Family,
    /// Whose.
    pub labels: Pairs,
    /// How much.
    pub value: Value,
}

/// How much.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// Requests by time.
    Histogram {
        /// Upper edges in seconds, rising, and how many requests took at most that long.
        at_most: Vec<(f64, u64)>,
        /// All times together, in seconds.
        sum: f64,
        /// Requests.
        count: u64,
    },
}

impl Row {
    /// A row with a number.
    pub fn number(family: Family, labels: Pairs, value: f64) -> Self {
        Self { family, labels, value: Value::Number(value) }
    }

    /// The samples that it consists of: the end of the name, a label of their own, and the value.
    pub(crate) fn samples(&self) -> Vec<(&'static str, Option<String>, f64)> {
        match &self.value {
            Value::Number(number) if self.family.kind() == Kind::Counter => vec![("_total", None, *number)],
            Value::Number(number) => vec![("", None, *number)],
            Value::Histogram { at_most, sum, count } => {
                let edges = at_most.iter().copied().chain([(f64::INFINITY, *count)]);
                let buckets = edges.map(|(edge, below)| ("_bucket", Some(written(edge)), below as f64));
                buckets.chain([("_sum", None, *sum), ("_count", None, *count as f64)]).collect()
            }
        }
    }

    /// The series that it consists of.
    pub fn series(&self) -> impl Iterator<Item = (Labels, f64)> {
        self.samples().into_iter().map(|(end, edge, value)| {
            let own = [(NAME, format!("{}{end}", self.family.name())), ("le", edge.unwrap_or_default())];
            (Labels::new(own.into_iter().chain(self.labels.iter().cloned())), value)
        })
    }
}

impl Family {
    /// Whether a series of evenkeel's own has this name.
    #[must_use]
    pub fn owns(name: &str) -> bool {
        let is_of = |family: &Self| {
            let end = name.strip_prefix(family.name());
            match family.kind() {
                Kind::Counter => end == Some("_total"),
                Kind::Gauge => end == Some(""),
                Kind::Histogram => matches!(end, Some("_bucket" | "_sum" | "_count")),
            }
        };
        Self::ALL.iter().any(is_of)
    }
}

/// An upper edge as Prometheus' libraries write it: `0.5`, `1.0`, `+Inf`.
fn written(edge: f64) -> String {
    if edge.is_infinite() { "+Inf".into() } else { format!("{edge:?}") }
}
