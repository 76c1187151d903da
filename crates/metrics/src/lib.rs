//! What every release serves, and what evenkeel does, in figures: for `/metrics`, and for queries of evenkeel's own.
//!
//! Both are made of the same rows, so that a query finds here what it would find in a Prometheus server that reads
//! `/metrics`. Labels are bounded: services and their kept releases, methods that are told apart, and a few dozen statuses.
//! Modules, in reading order:
//!
//! - [`family`]: everything that is told, by name.
//! - [`builtin`]: what is told of services and releases.
//! - [`text`]: the exposition.
//! - [`observer`]: writes everything down, every few seconds, and asks replicas for their own `/metrics`.
//! - `scrape`: one look at a replica's own `/metrics`.
//! - `usage`: what replicas and the machine use.

mod breakers;
pub mod builtin;
pub mod family;
pub mod observer;
mod scrape;
pub mod text;
mod usage;

pub use family::{Family, Row};
pub use observer::{Observed, Observer, TargetStatus};
