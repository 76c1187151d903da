//! The small trait between a store of series and whoever evaluates queries.

use crate::labels::Labels;
use crate::matcher::Matcher;

/// A value at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When, in milliseconds since 1970 began (UTC).
    pub at: i64,
    /// What was measured; may be NaN or infinite, and [`STALE`] where the series ended.
    pub value: f64,
}

/// A series and its samples, oldest first, no two at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it is called.
    pub labels: Labels,
    /// What was measured.
    pub samples: Vec<Sample>,
}

/// The mark at the end of a series: its target is gone, or does not tell of it any more. It is the NaN that Prometheus
/// uses for this (`value.StaleNaN`), so that what is read from there means the same.
pub const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether a value is the mark at the end of a series; other NaNs are values.
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE.to_bits()
}

/// More than a reader wants to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this needs more than {max} samples: name fewer series, or look back less far")]
pub struct TooMuch {
    /// The most that was wanted.
    pub max: usize,
}

/// A place where series can be looked up.
pub trait Select {
    /// The series that every matcher accepts, in the order of their labels, with their samples of `from ..= to`
    /// (milliseconds since 1970 began), the marks of their ends ([`STALE`]) among them. A series without a sample in that time is left out.
    ///
    /// # Errors
    /// [`TooMuch`] when they have more than `samples_max` samples together.
    fn select(&self, matchers: &[Matcher], from: i64, to: i64, samples_max: usize) -> Result<Vec<Series>, TooMuch>;
}

impl<S: Select + ?Sized> Select for &S {
    fn select(&self, matchers: &[Matcher], from: i64, to: i64, samples_max: usize) -> Result<Vec<Series>, TooMuch> {
        (**self).select(matchers, from, to, samples_max)
    }
}
