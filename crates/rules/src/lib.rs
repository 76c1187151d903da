//! Prometheus' rules: queries that are recorded as series, and alerts that go on over time.
//!
//! Start at [`Rulebook`]: it holds groups of rules and, at a moment that it is told, evaluates those that are due over a
//! store of series, records what they give, and answers which alerts changed. How an alert goes from pending to firing
//! and to its end agrees with Prometheus 2, which `tests/promtool.rs` holds it against. Pure: time is an argument.
//! Modules, in reading order:
//!
//! - [`rule`]: a rule and its group, as they are read from a file.
//! - [`alert`]: the states of one alert.
//! - [`book`]: all groups, evaluated when they are due.
//! - [`template`]: texts with `{{ … }}` in labels and annotations.
//! - `number`: numbers as Prometheus prints them.

pub mod alert;
pub mod book;
mod number;
pub mod rule;
pub mod template;

pub use alert::{Alert, State};
pub use book::{Change, Memory, Rulebook, Turn};
pub use rule::{Does, Group, Rule};
pub use template::{BadTemplate, Template};
