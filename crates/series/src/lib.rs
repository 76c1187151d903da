//! Time series as Prometheus knows them: labels, samples, matchers, and a store in memory.
//!
//! [`Select`] is what an evaluator of queries needs; [`Store`] is the one that evenkeel fills with what its proxy counts,
//! what it scrapes from replicas, and what they use of the machine. Pure: time is an argument. Modules, in reading
//! order:
//!
//! - [`labels`]: what a series is called.
//! - [`matcher`]: which series are meant.
//! - [`select`]: the small trait between a store and an evaluator.
//! - `packed`: samples in few bytes.
//! - [`store`]: many series, bounded in number, bytes and age.
//! - [`exposition`]: what an application tells of itself, read.

pub mod exposition;
pub mod labels;
pub mod matcher;
mod packed;
pub mod select;
pub mod store;

pub use labels::Labels;
pub use matcher::{BadMatcher, Matcher, Relation};
pub use select::{STALE, Sample, Select, Series, TooMuch, is_stale};
pub use store::{Full, Limits, Store};
