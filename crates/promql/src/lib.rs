//! PromQL over series in memory: reads a query, and evaluates it at a moment or over a range of them.
//!
//! Start at [`Query::parse`]; it accepts a declared subset ([`subset`]) and names everything else with its place. A query
//! is evaluated by [`Query::at`] and [`Query::over`] on whatever can [`Select`](evenkeel_series::Select) series. What comes
//! out agrees with Prometheus 2 to the last few bits; `tests/prometheus.rs` holds the two against each other. Pure: time
//! is an argument, and the work of a query is bounded. Modules, in reading order:
//!
//! - [`query`]: what a query is, what it gives, and how it fails.
//! - [`subset`]: which functions, aggregations and operators there are.
//! - `expr`: a query as a tree of what can be evaluated.
//! - `tokens`: where the words of a query stand.
//! - `read`: from text to tree.
//! - `eval`: the tree at one moment.
//! - `window`: functions of a series' samples over a while, such as `rate`.
//! - `aggregate`: many series into one, such as `sum by`.
//! - `binary`: operators, and which series meet.
//! - `histogram`: quantiles from buckets.
//! - `call`: all other functions.
//! - [`advice`]: queries that are right and say nothing.

pub mod advice;
mod aggregate;
mod binary;
mod call;
mod eval;
mod expr;
mod histogram;
pub mod query;
mod read;
pub mod subset;
mod tokens;
mod window;

pub use query::{BadQuery, Failed, Limits, Point, Query, Value};
