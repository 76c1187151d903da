//! The small traits that adapters implement, and the plain data that crosses them.
//!
//! The controller knows these traits and no adapter; a simulator gives it faulty ones.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_analysis::{Answers, Counts, Value};
use serde::{Deserialize, Serialize};

use crate::balance::Out;
use crate::breaker::Mode;
use crate::dependency::{EgressReport, Endpoint, EndpointKey};
use crate::gate::Check;
use crate::guard::{Cut, CutName};
use crate::ids::{FencingToken, Generation, ReplicaId, Revision, RolloutId, ServiceName, Timestamp};
use crate::measure::{Measure, SourceError};
use crate::release::{Content, Digest, Release};
use crate::service::{Event, Service};
use crate::spec::{ProbeCheck, SmokeCheck};
use crate::table::{RoutingTable, TableRefused};
use crate::trial::{Heard, TrialReport};

/// Tells the time. Never goes back, also across restarts.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// Makes the clock tell at least `earliest` from here on: the newest time in the store.
    fn not_before(&self, earliest: Timestamp);
}

/// Keeps what was decided: an append-only log of events per service, and snapshots to shorten the reading of it.
pub trait Store: Send + Sync {
    /// Takes the next fencing token, higher than any taken before, and the lease with it. Whoever holds an older one
    /// appends nothing from here on, so that what is loaded afterwards stays all there is.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when `after` is given and is not the newest: somebody was quicker.
    fn next_token(&self, after: Option<FencingToken>) -> impl Future<Output = Result<FencingToken, StoreError>> + Send;

    /// Gives a sign of life: whoever stands by sees that the holder of the newest token lives.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when a newer token than this controller's was taken.
    fn renew(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How much room everything takes, in bytes.
    fn bytes(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Reads every service: its newest snapshot and the events after it.
    fn load(&self) -> impl Future<Output = Result<Vec<Stored>, StoreError>> + Send;

    /// Appends an event to a service's log; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when a newer token than this controller's was taken; [`StoreError::Conflict`] when the
    /// log is not at `append.after`: it holds something that was not known, perhaps this very event from an attempt
    /// whose answer was lost.
    fn append(&self, append: Append<'_>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads the log of a service from an event on, oldest first, at most `limit` of them. The oldest may have been
    /// dropped: see [`Store::beginning`].
    fn events(
        &self,
        service: &ServiceName,
        from: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Recorded>, StoreError>> + Send;

    /// Where the log of a service begins: the oldest state that is kept, and the number of events it includes. `None`:
    /// with the first event.
    fn beginning(
        &self,
        service: &ServiceName,
    ) -> impl Future<Output = Result<Option<(u64, Service)>, StoreError>> + Send;

    /// Keeps what was counted, of all services in one transaction; durable when this returns.
    ///
    /// Repeating it is harmless: a record that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when a newer token than this controller's was taken.
    fn keep_ticks(
        &self,
        batches: &[(ServiceName, Vec<TickRecord>)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads what was counted in a rollout from a sequence number on, oldest first, at most `limit` records.
    fn ticks(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
        from_sequence: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<TickRecord>, StoreError>> + Send;

    /// Keeps notes, all of them in one transaction; durable when this returns. Those of a kind and name that are there
    /// already are replaced.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when a newer token than this controller's was taken.
    fn keep_notes(&self, notes: &[Note]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads the notes of a kind, in the order of their times.
    fn notes(&self, kind: &str) -> impl Future<Output = Result<Vec<Note>, StoreError>> + Send;

    /// Drops the notes of a kind that were written before a moment.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when a newer token than this controller's was taken.
    fn drop_notes(&self, kind: &str, before: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Something small that is remembered beside the logs; the store does not look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind of thing it is: a word.
    pub kind: String,
    /// Its name among those of its kind; a later one of that name takes its place.
    pub name: String,
    /// When it was written.
    pub at: Timestamp,
    /// What is remembered.
    pub body: String,
}

/// One event to append.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// Whose log.
    pub service: &'a ServiceName,
    /// The number of events in that log before this one.
    pub after: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: &'a Event,
    /// The state after it, when it is time to keep one. What it does not remember any more may be dropped from the log.
    pub snapshot: Option<&'a Service>,
    /// What the decision rests on: kept with the event or not at all. Records that are there already stay as they are.
    pub ticks: &'a [TickRecord],
}

/// An exact record of what was counted in a rollout during a stretch of time; the store does not look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickRecord {
    /// The rollout of the service that it was counted for.
    pub rollout: RolloutId,
    /// Its place among the records of the rollout.
    pub sequence: u64,
    /// When the stretch ended.
    pub at: Timestamp,
    /// What was counted.
    pub body: Vec<u8>,
}

/// One event of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its place in the log, from 1.
    pub version: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// What is kept of one service.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The service.
    pub service: ServiceName,
    /// The newest snapshot, and the number of events it includes.
    pub snapshot: Option<(u64, Service)>,
    /// The events after it, oldest first.
    pub events: Vec<Recorded>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The log holds more than was known.
    #[error("the log of `{service}` is not at event {after}: it holds more than was known")]
    Conflict {
        /// Whose log.
        service: ServiceName,
        /// Where it was thought to be.
        after: u64,
    },
    /// A newer controller has taken over; this one must stop.
    #[error("another controller has taken over (fencing token {0})")]
    Superseded(FencingToken),
    /// The store was written by a newer evenkeel.
    #[error(
        "{path} has format {found}, and this evenkeel knows formats up to {known}: use the newer evenkeel that wrote it"
    )]
    NewerFormat {
        /// The store's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// An entry cannot be understood: the file was changed by other hands.
    #[error("event {version} of `{service}` cannot be read: {why}")]
    Damaged {
        /// Whose log.
        service: String,
        /// Which event.
        version: u64,
        /// In words.
        why: String,
    },
    /// It is not what it would have to be for this; trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// Disk full, file locked, or anything else of the environment; trying again may help.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}

/// Prepares, starts, probes and stops replicas, and holds the addresses where users connect.
pub trait Workloads: Send + Sync {
    /// Makes a controller's token known, so that an older one's late commands are refused from here on.
    fn hello(&self, token: FencingToken) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Copies what a release consists of to where later changes of the original cannot reach it.
    ///
    /// `parts` are files and folders below `directory`. The same content gives the same digest.
    fn keep(&self, directory: &Path, parts: &[PathBuf]) -> impl Future<Output = Result<Digest, PlatformError>> + Send;

    /// Drops what was kept of releases that are no more: artefacts that none of `live` runs, and logs.
    ///
    /// `live` holds every release of every service there is. What was kept a short while ago stays: a deploy may be
    /// about to name it.
    fn retain(&self, live: Vec<LiveRelease>) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Starts a replica of a release; an id that was started before is left alone.
    ///
    /// Its log is cut over beyond `log_bytes_max` bytes.
    fn start(
        &self,
        replica: &ReplicaId,
        release: &Release,
        log_bytes_max: u64,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Asks a replica to end (SIGTERM to its whole process group).
    fn terminate(&self, replica: &ReplicaId) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Ends everything a replica started, at once.
    fn kill(&self, replica: &ReplicaId) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Drops the record of a replica that has exited.
    fn forget(&self, replica: &ReplicaId) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Lists the replicas as soon as something differs from version `seen`, or after `wait`.
    fn watch(&self, seen: u64, wait: Duration) -> impl Future<Output = Result<Replicas, PlatformError>> + Send;

    /// Makes users able to connect on exactly these addresses.
    fn listen(&self, addresses: Vec<SocketAddr>) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Probes a replica once.
    fn probe(&self, whom: &Probed, check: &ProbeCheck, limit: Duration) -> impl Future<Output = Answered> + Send;

    /// Smoke-tests a replica once.
    fn smoke(&self, port: u16, check: &SmokeCheck) -> impl Future<Output = Answered> + Send;

    /// Asks a check of a gate once, within its time-out; harmless to repeat.
    fn check(&self, check: &Check, about: &CheckedFor) -> impl Future<Output = Answered> + Send;

    /// The files that are in only one of two kept artefacts, or differ between them, in order.
    fn changed(&self, from: &Digest, to: &Digest) -> impl Future<Output = Result<Vec<PathBuf>, PlatformError>> + Send;

    /// Has these endpoints served, and no others; tells what became of them so far. Cheap to repeat.
    ///
    /// # Errors
    /// [`PlatformError::Refused`] when one cannot be served; the others are.
    fn depend(
        &self,
        endpoints: Vec<Endpoint>,
    ) -> impl Future<Output = Result<Option<EgressReport>, PlatformError>> + Send {
        let is_nothing = endpoints.is_empty();
        async move {
            let no = || PlatformError::Refused("this platform serves no dependencies".into());
            if is_nothing { Ok(None) } else { Err(no()) }
        }
    }

    /// Does with the breakers of a service's dependency, or of all of them, what an operator wants.
    ///
    /// # Errors
    /// [`PlatformError::Refused`] when there is no such dependency.
    fn operate(
        &self,
        service: &ServiceName,
        name: Option<&str>,
        mode: Mode,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send {
        let _ = (service, name, mode);
        async { Err(PlatformError::Refused("this platform serves no dependencies".into())) }
    }

    /// The last lines a replica wrote, oldest first.
    fn log_tail(&self, replica: &ReplicaId, lines: usize) -> impl Future<Output = Vec<String>> + Send;
}

/// A release that must stay startable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRelease {
    /// Its service.
    pub service: ServiceName,
    /// The release.
    pub revision: Revision,
    /// What was kept of it.
    pub artefact: Option<Digest>,
}

/// The deploy that a check is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFor {
    /// Its service.
    pub service: ServiceName,
    /// The release.
    pub revision: Revision,
    /// What people call it.
    pub version: String,
    /// The spec's directory, where commands run.
    pub directory: PathBuf,
}

/// A replica that is probed.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Its name.
    pub replica: ReplicaId,
    /// Its port.
    pub port: u16,
    /// What it runs: a command that asks it runs in the same place with the same environment. Not needed otherwise.
    pub content: Option<Box<Content>>,
}

/// How a probe or a smoke check went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Whether it is as it should be.
    pub good: bool,
    /// What came back, in words: `GET /health: 503 Service Unavailable`, `connection refused`.
    pub detail: String,
}

/// How a replica is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Names it, its log and its launch marker.
    pub replica: ReplicaId,
    /// Program and arguments; `{{port}}` in any of them becomes the port.
    pub argv: Vec<String>,
    /// Added to the environment; `{{port}}` becomes the port. `PORT` is set to the port unless given here.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Where standard output and standard error go, appended.
    pub log: PathBuf,
    /// The log is cut over to `<log>.1` beyond this many bytes.
    pub log_bytes_max: u64,
    /// What it reaches through evenkeel; `{{endpoint.NAME}}` in its environment becomes the port of the one called so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointKey>,
}

/// The replicas a platform knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Grows with every change of the list.
    pub version: u64,
    /// All of them, running or not.
    pub replicas: Vec<Replica>,
}

/// A replica as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Which one.
    pub replica: ReplicaId,
    /// Its process, which leads a process group of its own; 0 when it never started.
    pub pid: u32,
    /// The port it was given.
    pub port: u16,
    /// When it was started.
    pub started: Timestamp,
    /// How it ended; `None` while it runs.
    pub exit: Option<Exit>,
}

/// How a replica's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When the agent saw it.
    pub at: Timestamp,
    /// In words: `exit status 1`, `killed by SIGKILL`, `could not be started: …`, or `exit status unknown`
    /// for a process whose parent, an earlier agent, is dead.
    pub how: String,
}

/// Why a platform did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A newer controller has taken over; this one must stop.
    #[error("another controller has taken over (fencing token {0})")]
    Superseded(FencingToken),
    /// The user's mistake: a file that is not there, an address in use.
    #[error("{0}")]
    Refused(String),
    /// The agent or the machine; trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// Measures what checks ask for.
pub trait Gauge: Send + Sync {
    /// Measures once, within the time-out, as of `at`; harmless to repeat, and to drop before it has answered.
    ///
    /// # Errors
    /// [`SourceError`] in words that hold no secret. It is no verdict: what a missing value means is the check's to say.
    fn measure(
        &self,
        measure: &Measure,
        about: &CheckedFor,
        at: Timestamp,
    ) -> impl Future<Output = Result<Value, SourceError>> + Send;
}

/// Moves traffic and counts it.
pub trait Traffic: Send + Sync {
    /// Puts a table in force; when this returns no request is routed by an older one.
    fn apply(&self, table: &RoutingTable) -> impl Future<Output = Result<(), TrafficError>> + Send;

    /// The table in force.
    fn table(&self) -> impl Future<Output = Result<RoutingTable, TrafficError>> + Send;

    /// Counters, requests in flight, and what has become final of trials beyond what was heard of them. Cuts that are
    /// `acknowledged` are forgotten.
    fn report(
        &self,
        heard: &[Heard],
        acknowledged: &[CutName],
    ) -> impl Future<Output = Result<Report, TrafficError>> + Send;
}

/// Why the proxy did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// The table breaks a rule.
    #[error(transparent)]
    Refused(#[from] TableRefused),
    /// The proxy does not answer; trying again may help.
    #[error("the proxy does not answer: {0}")]
    Unavailable(String),
}

/// What the proxy has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Differs after every start of the proxy; the counters then begin at zero again.
    pub boot: u64,
    /// The proxy's process.
    pub pid: u32,
    /// Generation of the table in force.
    pub generation: Generation,
    /// Counters of releases that had a request since the start.
    pub releases: Vec<ReleaseReport>,
    /// Replicas with requests in flight, in the table or not.
    pub in_flight: Vec<InFlight>,
    /// Replicas of the table that are passed over at the moment.
    #[serde(default)]
    pub passed_over: Vec<PassedOver>,
    /// Requests answered by the proxy itself: 400 (refused head), 404 (no such service), 503 (no release can take it).
    pub refused: u64,
    /// Connections of users open right now.
    pub connections: u64,
    /// What has become final of rollouts in flight.
    #[serde(default)]
    pub trials: Vec<TrialReport>,
    /// Releases that it has cut off, until that is acknowledged.
    #[serde(default)]
    pub cuts: Vec<Cut>,
    /// What people should know: certificates that cannot be read, or end soon.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Requests that a service's limits kept out, of services that have some.
    #[serde(default)]
    pub limited: BTreeMap<ServiceName, Limited>,
}

/// Requests that a service's limits kept out, by what there was too much of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// The body was too long (413).
    pub body: u64,
    /// They came too fast (429).
    pub rate: u64,
    /// Too many were under way (429 for one client, 503 for all).
    pub at_once: u64,
}

/// Counters of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// Its service.
    pub service: ServiceName,
    /// The release.
    pub revision: Revision,
    /// Requests of users, chosen by weight.
    pub counts: Counts,
    /// The same by method and exact status.
    #[serde(default)]
    pub answers: Answers,
    /// Requests to its preview address; never part of a judgement.
    pub preview: Counts,
    /// Requests of users that it failed and the stable release answered; `counts` has the failures.
    #[serde(default)]
    pub shielded: u64,
    /// Requests of users that a pin sent to it; never part of a judgement: nobody drew them by chance.
    #[serde(default)]
    pub pinned: Counts,
    /// Copies of requests that another release answered; no user saw what came of them.
    #[serde(default)]
    pub mirrored: Counts,
    /// Copies that were not sent, since too many were under way.
    #[serde(default)]
    pub mirror_dropped: u64,
}

impl ReleaseReport {
    /// A release of which nothing was counted yet.
    #[must_use]
    pub fn new(service: ServiceName, revision: Revision) -> Self {
        let [counts, preview, pinned, mirrored] = std::array::from_fn(|_| Counts::default());
        let answers = Answers::default();
        Self { service, revision, counts, answers, preview, shielded: 0, pinned, mirrored, mirror_dropped: 0 }
    }

    /// Adds everything that was counted of the same release elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.answers.merge(&other.answers);
        self.preview.merge(&other.preview);
        self.shielded += other.shielded;
        self.pinned.merge(&other.pinned);
        self.mirrored.merge(&other.mirrored);
        self.mirror_dropped += other.mirror_dropped;
    }

    /// Tells whether it had no request of any kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let kinds = [&self.counts, &self.preview, &self.pinned, &self.mirrored];
        self.mirror_dropped == 0 && kinds.into_iter().all(|counts| *counts == Counts::default())
    }
}

/// A replica that others come before for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The replica.
    pub replica: ReplicaId,
    /// Why: what most of the workers say.
    pub why: Out,
    /// With how many of the proxy's workers, each of which finds out by itself.
    pub workers: u32,
}

/// Requests in flight at one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The replica.
    pub replica: ReplicaId,
    /// Requests whose answer is not complete yet; never 0 here.
    pub requests: u64,
}
