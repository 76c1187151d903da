//! Decides what a service and its rollout do next.
//!
//! Start at [`Service::step`]: give it an [`Event`] and the time, store what it returns, then carry out the effects.
//! Knows no clock, network, disk or task; the controller drives it. Modules, in reading order:
//!
//! - [`ids`]: names, numbers and units.
//! - [`release`]: what is deployed, immutable once made.
//! - [`spec`]: what people ask for: replicas, probes, strategy, limits.
//! - [`gate`]: what must be open before a rollout begins: approvals, windows, checks.
//! - [`plan`]: which steps does a strategy ask for?
//! - [`ratio`]: how many replicas stand for a share where nobody splits requests?
//! - [`rollout`]: where is a rollout, and which moves are legal?
//! - [`measure`]: what is measured for a check, and where?
//! - [`trial`]: what is counted of the requests, so that the candidate can be judged?
//! - [`check`]: what do its measurements add up to?
//! - [`evidence`]: what do the requests say about the candidate?
//! - [`alone`]: what can be said of a release that has no other one beside it?
//! - [`guard`]: whom does the proxy cut off by itself?
//! - [`group`]: several services that are promoted and rolled back together.
//! - [`alert`]: which service is an alert about, which release of it, and what is remembered of it?
//! - [`trigger`]: which figures take a release back?
//! - [`slo`]: what is promised of a service, and what becomes of a deploy when its budget is spent?
//! - [`watch`]: does the stable release go on being good?
//! - [`service`]: releases, the stable one, the rollout in flight; deploys, supersedes, rolls back.
//! - [`record`]: what is written down of a rollout beside its events.
//! - [`replay`]: runs a recorded rollout once more, the same way or by another spec.
//! - [`probe`]: is a replica started, alive, ready?
//! - [`fleet`]: which replica to start, route to, drain or stop next, and in which order.
//! - [`table`]: what the proxy is told.
//! - [`breaker`]: may the next call to a dependency be made?
//! - [`dependency`]: what a release depends on, and what is done while that fails.
//! - [`outage`]: what the releases of a rollout cannot reach, and whose doing that is.
//! - [`balance`]: how requests are spread over replicas.
//! - [`edge`]: what clients and replicas speak, and whom the proxy believes.
//! - [`route`]: which requests of an address are whose.
//! - [`access`]: what is written down of a service's requests.
//! - [`maintenance`]: a time in which requests wait.
//! - [`timeout`]: how long a request may take.
//! - [`limit`]: how much of a service one client may have.
//! - [`choice`]: which requests go where for what they are.
//! - [`load`]: what evenkeel sends to a service itself while a release is on its way.
//! - [`lease`]: who of several controllers leads, and when another one takes over.
//! - [`span`]: spans of time as people read them.
//! - [`ports`]: the small traits that adapters implement.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod access;
pub mod alert;
pub mod alone;
pub mod balance;
pub mod breaker;
pub mod check;
pub mod choice;
pub mod dependency;
pub mod edge;
pub mod evidence;
pub mod fleet;
pub mod gate;
pub mod group;
pub mod guard;
pub mod ids;
pub mod lease;
pub mod limit;
pub mod load;
pub mod maintenance;
pub mod measure;
pub mod outage;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod ratio;
pub mod record;
pub mod release;
pub mod replay;
pub mod rollout;
pub mod route;
pub mod service;
pub mod slo;
pub mod span;
pub mod spec;
pub mod table;
pub mod timeout;
pub mod trial;
pub mod trigger;
pub mod watch;

pub use evidence::{Evidence, Measured, Tick};
pub use rollout::{Observation, Outcome, Phase, Rollout};
pub use service::{Effect, Event, Refused, Service, Step, Verb, Wanted};
