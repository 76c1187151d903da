//! Judges a release from what was counted about it.
//!
//! Pure: no clock, no I/O, no async. The proxy fills [`Counts`], the controller collects them in a [`Window`], and
//! [`judge::judge`] turns windows and [`Objective`]s into a [`Verdict`]. Modules, in reading order:
//!
//! - [`histogram`]: how long did requests take, in mergeable buckets?
//! - [`counts`]: what happened to the requests of one release?
//! - [`answers`]: with which status did it answer which method?
//! - [`slots`]: what became of requests, told at fixed ages?
//! - [`window`]: what happened lately?
//! - [`objective`]: which limit must hold, and how is it written?
//! - [`judge`]: does it hold? Pass, fail, or not enough data.
//! - [`case`]: what speaks against a candidate, in words.
//! - [`evidence`]: is a candidate harmful? Evidence that is right at every moment, however often one looks.
//! - [`slo`]: how much of an error budget is left, and how fast is it spent?
//! - [`value`]: what did a measurement of anything else return?
//! - [`condition`]: is that value good, bad, or neither?
//! - [`interval`]: between which values does a share lie? For describing, not for deciding.

pub mod answers;
pub mod case;
pub mod condition;
pub mod counts;
pub mod evidence;
pub mod histogram;
pub mod interval;
pub mod judge;
pub mod objective;
pub mod slo;
pub mod slots;
pub mod value;
pub mod window;

pub use answers::{Answers, Method};
pub use case::{Case, Subject};
pub use counts::{Counts, Outcome};
pub use histogram::Histogram;
pub use judge::{Finding, Verdict};
pub use objective::{Metric, Objective};
pub use value::Value;
pub use window::Window;
