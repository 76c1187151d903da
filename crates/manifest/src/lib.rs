//! Reads what people write: `evenkeel.yaml`, one or more services, into core's [`Spec`](evenkeel_core::spec::Spec).
//!
//! Start at [`read`]: it gives the specs of a file, or all of its mistakes at once as [`Problems`], each with file,
//! line, column and what would be right. `docs/spec.md` is the reference of every key; a test keeps it complete.
//! Knows no file system: the caller reads the file. Modules, in reading order:
//!
//! - `file`: all services of a file, and whether they get in one another's way.
//! - `environments`: one service in several places, each with what differs there.
//! - `service`, `command`, `probes`, `strategy`: what do the keys of each part mean?
//! - `routes`: which requests of its address are a service's.
//! - `timeouts`, `pages`: how long requests may take, and what the proxy says in its own name.
//! - `access`: what is written down of requests.
//! - `limits`: how much of a service one client may have.
//! - `balance`: how requests are spread over replicas.
//! - `edge`: what clients and replicas speak, and whom the proxy believes.
//! - `alerts`: what alerts may do.
//! - `triggers`: which figures take a release back, and the rules that watch them ([`trigger_rules`]) and
//!   breakers ([`breaker_rules`]).
//! - `slos`: what is promised of a service over weeks.
//! - `validation`: how a new release is sampled once it has all of the traffic.
//! - `load`: requests that evenkeel sends itself; [`read_traffic`] reads recorded ones.
//! - `checks`: what is measured again and again while a rollout goes.
//! - `theirs`: what people bring from Argo Rollouts, Flagger and Kubernetes; [`read_theirs`] reads it alone.
//! - `dependencies`: what replicas reach through evenkeel.
//! - `gates`: what must be open before a rollout begins.
//! - `routing`: which requests go to a release for what they are, and what a share sticks to.
//! - `scenario`: what users and releases do while a rollout is simulated; [`read_scenario`] reads such a file.
//! - `condition`: conditions and measured values; [`read_condition`] and [`read_value`] read them alone.
//! - `alertmanager`: whom Alertmanager tells; [`read_alertmanager`] reads its configuration.
//! - `rules`: files of Prometheus rules; [`read_rules`] reads one.
//! - `fields`: a mapping with known keys; unknown and missing ones are told.
//! - `values`: durations, percentages, sizes, addresses, names.
//! - `placeholder`: what stands between double braces.
//! - `yaml`: the text as values that know where they stand.
//! - `problem`: what is wrong, and how it is shown.

mod access;
mod alertmanager;
mod alerts;
mod balance;
mod checks;
mod command;
mod condition;
mod dependencies;
mod edge;
mod environments;
mod fields;
mod file;
mod gates;
mod limits;
mod load;
mod pages;
mod placeholder;
mod probes;
mod problem;
#[cfg(test)]
mod reference;
mod routes;
mod routing;
mod rules;
mod scenario;
mod service;
mod slos;
mod strategy;
mod theirs;
mod timeouts;
mod triggers;
mod validation;
mod values;
mod yaml;

pub use alertmanager::{is_alertmanager, read_alertmanager};
pub use condition::{read_condition, read_value};
pub use file::{Read, joined, read, read_files};
pub use load::{ReadTraffic, read_traffic};
pub use problem::{Code, Problem, Problems};
pub use rules::{ReadRules, is_rules, read_rules};
pub use scenario::{parse_rate, read_scenario};
pub use theirs::{ReadTheirs, is_theirs, manifests, read_theirs};
pub use triggers::{breaker_rules, trigger_rules};
pub use values::parse_duration;
