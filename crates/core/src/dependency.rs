//! What a release depends on beyond this machine, and what is done while that fails.
//!
//! A dependency belongs to a release: going back brings back where it was and how it was treated, and a new release
//! that calls something it must not cannot open the breaker of the release that is good. So breakers, caches and
//! addresses are counted per [`EndpointKey`]: a dependency of one release of one service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::{Breaker, Change, Counted, Mode, Policy, State};
use crate::ids::{FencingToken, Revision, ServiceName, Timestamp};
use crate::measure::Secret;

/// Dependencies of one release at most.
pub const DEPENDENCIES_MAX: usize = 50;
/// Places to go instead of the first one, at most.
pub const ALTERNATIVES_MAX: usize = 8;

/// Something that replicas call, reached through evenkeel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What is spoken to it.
    pub kind: Kind,
    /// Where it is.
    pub at: Upstream,
    /// Where else, in this order, while the first place fails: a read replica, another model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Upstream>,
    /// Where secrets are read that its addresses and headers name as `{{secret.NAME}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// The password of a database, most often `{{secret.NAME}}`: replicas find it in their URL, and it is pinged with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether connections to a database are encrypted from here on, those of replicas to here being plain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypt: bool,
    /// Whether HTTP/2 is spoken without encryption and without being asked about; with encryption both sides agree on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
    /// When it is not called any more.
    pub breaker: Policy,
    /// How long is waited.
    pub timeouts: Timeouts,
    /// Calls (HTTP) or connections (TCP) at the same time; what is beyond is refused at once. Default 100.
    pub concurrency: u32,
    /// How calls that failed are repeated; HTTP only.
    pub retry: Retry,
    /// What is kept of its answers; HTTP only, `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What is answered when nothing else is left; HTTP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Fixed>,
    /// How it is asked whether it is well, although nobody calls it; TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<Ping>,
}

/// What is spoken to a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// HTTP/1.1 or HTTP/2, with TLS where the address says `https`.
    Http,
    /// PostgreSQL's protocol.
    Postgres,
    /// Redis' protocol.
    Redis,
    /// Anything else over TCP.
    Tcp,
}

impl Kind {
    /// Its name, as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Tcp => "tcp",
        }
    }
}

/// One place where a dependency is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// A URL; for [`Kind::Tcp`] `tcp://host:port`. No password and no `{{secret.…}}` in it.
    pub url: String,
    /// Set in each request, in place of what the application sent; HTTP only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// A file with authorities to trust beside those of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// Set in the JSON object that is sent, in place of what the application wrote there: another model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, String>,
}

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// For a connection, its TLS included; default 5 s.
    pub connect: Duration,
    /// For the first byte of an answer, in each try; default 30 s.
    pub first_byte: Duration,
    /// Between two parts of an answer; default 30 s. TCP: for any byte in either direction; default 1 h.
    pub idle: Duration,
    /// Until an answer begins, with all tries; default 30 s.
    pub total: Duration,
}

/// How calls that failed are repeated: those with an idempotent method, and those of which nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Tries in all; 1 repeats nothing. Default 3.
    pub attempts: u32,
    /// The longest wait before the second try; twice as long before each further one. The wait is drawn evenly from
    /// nothing to that. Default 50 ms.
    pub base: Duration,
    /// The longest wait before any try; default 1 s.
    pub cap: Duration,
    /// Repeated calls in percent of all calls, over time; default 20. Ten are granted beside that.
    pub budget_percent: u32,
    /// Paths at and below which any method may be repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idempotent: Vec<String>,
}

/// What is kept of answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Answers at most; the one that was used longest ago goes first. Default 1000.
    pub entries: usize,
    /// Bytes of them at most; default 64 MiB. One that takes more than an eighth of that is not kept.
    pub bytes: u64,
    /// How old an answer may be that is given while the dependency fails; default 1 h.
    pub ttl: Duration,
    /// Whether answers that are fresh by RFC 9111 are given without asking; default no: only while it fails.
    pub fresh: bool,
    /// Paths at and below which answers to POST are kept, by their body, for as long as `ttl`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post: Vec<String>,
    /// Headers of the request that tell such answers apart, beside `Authorization` and `Content-Type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_headers: Vec<String>,
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// Its status; default 200.
    pub status: u16,
    /// What its body is; default `application/json`.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

/// How a dependency is asked whether it is well. PostgreSQL runs `SELECT 1`, Redis answers `PING`, any other accepts a
/// connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// How often; default 2 s.
    pub every: Duration,
    /// How long the answer may take; default 1 s.
    pub timeout: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), first_byte: seconds(30), idle: seconds(30), total: seconds(30) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        let (base, cap) = (Duration::from_millis(50), Duration::from_secs(1));
        Self { attempts: 3, base, cap, budget_percent: 20, idempotent: Vec::new() }
    }
}

impl Default for Cache {
    fn default() -> Self {
        let (post, post_headers) = (Vec::new(), Vec::new());
        Self { entries: 1_000, bytes: 64 << 20, ttl: Duration::from_secs(3_600), fresh: false, post, post_headers }
    }
}

impl Default for Ping {
    fn default() -> Self {
        Self { every: Duration::from_secs(2), timeout: Duration::from_secs(1) }
    }
}

impl Upstream {
    /// A place that is no more than its URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), headers: Vec::new(), authorities: None, json: BTreeMap::new() }
    }
}

impl Dependency {
    /// A dependency with every default of its kind.
    #[must_use]
    pub fn new(kind: Kind, url: impl Into<String>) -> Self {
        let is_http = kind == Kind::Http;
        let idle = if is_http { Timeouts::default().idle } else { Duration::from_secs(3_600) };
        Self {
            kind,
            at: Upstream::new(url),
            alternatives: Vec::new(),
            secrets: BTreeMap::new(),
            password: None,
            encrypt: false,
            http2: false,
            breaker: if is_http { Policy::api() } else { Policy::database() },
            timeouts: Timeouts { idle, ..Timeouts::default() },
            concurrency: 100,
            retry: Retry::default(),
            cache: None,
            fixed: None,
            ping: (!is_http).then(Ping::default),
        }
    }
}

/// The name of the variable in which a replica finds a dependency: `openrouter` is at `OPENROUTER_URL`.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("{}_URL", name.replace('-', "_").to_ascii_uppercase())
}

/// A dependency of one release of one service. Prints as `web/r3/database`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointKey {
    /// The service.
    pub service: ServiceName,
    /// The release.
    pub revision: Revision,
    /// The dependency's name.
    pub name: String,
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.revision, self.name)
    }
}

/// What replicas of a release shall be able to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Whose it is.
    pub key: EndpointKey,
    /// What is reached.
    pub dependency: Dependency,
    /// The spec's folder, below which files of secrets and authorities are.
    pub directory: String,
}

/// An endpoint and where replicas find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Where it listens, on the loopback address.
    pub address: SocketAddr,
}

/// Everything that an egress process serves, replaced as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressTable {
    /// Who wrote it; a table of an older controller is refused.
    pub token: FencingToken,
    /// Grows with every table of one controller.
    pub generation: u64,
    /// The endpoints.
    pub endpoints: Vec<PlacedEndpoint>,
}

/// What became of one endpoint so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Whose it is.
    pub key: EndpointKey,
    /// What is spoken.
    pub kind: Kind,
    /// Since when it is served, by this process: its breakers knew nothing before. 0 where that was not told.
    #[serde(default)]
    pub since: Timestamp,
    /// The breakers: of the first place, then of the alternatives.
    pub breakers: Vec<BreakerStatus>,
    /// Calls (HTTP) or connections (TCP) since the process started.
    pub calls: u64,
    /// Those under way.
    pub in_flight: u64,
    /// Calls that were repeated.
    pub retries: u64,
    /// Calls that were refused for too many at once.
    pub limited: u64,
    /// Calls that came without the token.
    pub strangers: u64,
    /// Answers that somebody else gave, by who: `alternative`, `cache`, `fixed`, `none`.
    pub fallbacks: BTreeMap<String, u64>,
    /// Answers from the cache while it was well.
    pub hits: u64,
    /// Answers in the cache, and their bytes.
    pub cached: (u64, u64),
    /// What the last failure was; empty when there was none.
    pub trouble: String,
}

/// One breaker as people are shown it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// The place it guards, without user, password and path.
    pub at: String,
    /// Where it is.
    pub state: State,
    /// What an operator wants.
    pub mode: Mode,
    /// The dependency asked to be left alone until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling: Option<Timestamp>,
    /// What was counted.
    pub counted: Counted,
    /// Share of recent calls that failed; `None` before enough were made.
    pub failure_rate: Option<f64>,
    /// Share of recent calls that were slow.
    pub slow_rate: Option<f64>,
    /// When a call succeeded last; `None` when none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// Since when calls have succeeded and none has failed; `None` when the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_since: Option<Timestamp>,
    /// What changed lately, oldest first; bounded.
    pub changes: Vec<Change>,
}

impl BreakerStatus {
    /// A breaker as it is at `now`, which guards the place `at` and did these `changes` lately.
    #[must_use]
    pub fn of(breaker: &Breaker, at: String, changes: Vec<Change>, now: Timestamp) -> Self {
        Self {
            at,
            state: breaker.state(),
            mode: breaker.mode(),
            cooling: breaker.cooling().filter(|until| now < *until),
            counted: breaker.counted(),
            failure_rate: breaker.failure_rate(),
            slow_rate: breaker.slow_rate(),
            succeeded_at: breaker.succeeded_at(),
            well_since: breaker.well_since(),
            changes,
        }
    }
}

impl EndpointStatus {
    /// An endpoint that is served since a moment, with these breakers, and that nobody has called.
    #[must_use]
    pub fn new(key: EndpointKey, kind: Kind, since: Timestamp, breakers: Vec<BreakerStatus>) -> Self {
        Self {
            key,
            kind,
            since,
            breakers,
            calls: 0,
            in_flight: 0,
            retries: 0,
            limited: 0,
            strangers: 0,
            fallbacks: BTreeMap::new(),
            hits: 0,
            cached: (0, 0),
            trouble: String::new(),
        }
    }

    /// Whether the first place is not called, or only by probes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breakers
            .first()
            .is_some_and(|breaker| matches!(breaker.state, State::Open { .. } | State::HalfOpen { .. }))
    }
}

/// What an egress process has to tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EgressReport {
    /// Differs after every start of the process.
    pub boot: u64,
    /// The process.
    pub pid: u32,
    /// The endpoints it serves.
    pub endpoints: Vec<EndpointStatus>,
    /// What people should see to: secrets that cannot be read, addresses that cannot be had.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_finds_a_dependency_by_its_name() {
        assert_eq!(variable("openrouter"), "OPENROUTER_URL");
        assert_eq!(variable("read-replica"), "READ_REPLICA_URL");
    }

    #[test]
    fn databases_have_the_patience_of_databases() {
        let api = Dependency::new(Kind::Http, "https://api.example.com");
        let database = Dependency::new(Kind::Postgres, "postgres://db/app");
        assert_eq!((api.breaker, api.ping), (Policy::api(), None));
        assert_eq!((database.breaker, database.ping), (Policy::database(), Some(Ping::default())));
        assert!(database.timeouts.idle > api.timeouts.idle);
    }
}
