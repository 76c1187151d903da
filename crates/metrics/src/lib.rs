//! What every release serves, and what evenkeel does, in figures: for `/metrics`, and for queries of evenkeel's own.
//!
//! Both are made of the same rows, so that a query finds here what it would find in a Prometheus server that reads
//! `/metrics`. Labels are bounded: services and their kept releases, methods that are told apart, and a few dozen statuses.
//! Modules, in reading order:
//!
//! - [`family`]: everything that is told, by name.
//! - [`builtin`]: what is told of services and releases.
//! - [`text`]: the exposition.

pub mod builtin;
pub mod family;
pub mod text;

pub use family::{Family, Row};
