//! What would a rollout do? Told before anything runs, and tried in virtual time.
//!
//! Start at [`Forecast::of`], which says step by step what a deploy would do, and at [`simulate`], which lets a rollout
//! happen in a world that a [`Scenario`] describes. Neither decides anything: that is left to core's `Service::step`, `Fleet`,
//! `Evidence`, `Plan` and `Guard`, the very ones that a controller and a proxy run. Pure: no clock, no I/O, no async; chance comes from a
//! seed. Modules, in reading order:
//!
//! - [`forecast`]: what a deploy would do, how long it takes, what it costs, and whether the traffic is enough for it.
//! - [`power`]: what the evidence would find, and when.
//! - [`scenario`]: what users and releases do, and what goes wrong.
//! - [`run`]: one rollout in virtual time.
//! - `proxy`: the table in force, and the guard that cuts a harmful candidate off by itself.
//! - `trial`: what the proxy tells of the requests on trial.
//! - `world`: the replicas, the proxy and the users around it.
//! - `dice`: numbers of requests and latencies from a seed.
//! - [`many`]: many runs, as probabilities.
//! - [`picture`]: one run as an SVG timeline.

pub mod forecast;
pub mod many;
pub mod picture;
pub mod power;
pub mod run;
pub mod scenario;

mod dice;
mod proxy;
mod trial;
mod world;

pub use forecast::Forecast;
pub use many::Many;
pub use power::Traffic;
pub use run::{Story, simulate};
pub use scenario::Scenario;
