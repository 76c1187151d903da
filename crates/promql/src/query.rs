//! What a query is, what it gives, and how it fails.

use std::collections::BTreeMap;
use std::ops::Range;

use evenkeel_series::{Labels, Sample, Select, Series, TooMuch};

use crate::eval::Evaluation;
use crate::expr::{Expr, Kind};
use crate::read;

/// A query that can be evaluated.
#[derive(Debug, Clone)]
pub struct Query {
    text: String,
    pub(crate) expr: Expr,
    /// Number of selectors in it.
    pub(crate) selectors: usize,
}

/// A mistake in a query, or a part of it that evenkeel does not evaluate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadQuery {
    /// Its bytes in the query.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub help: String,
}

/// What bounds the work of a query.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A sample older than this does not count any more, in milliseconds. Default 300 000, as in Prometheus.
    pub lookback: i64,
    /// Step of subqueries that name none, in milliseconds. Default 60 000, as in Prometheus.
    pub step: i64,
    /// Most samples that are read from the store. Default 2 million.
    pub samples: usize,
    /// Most values that are looked at while evaluating. Default 50 million.
    pub work: u64,
    /// Most moments of a range. Default 11 000, as in Prometheus.
    pub moments: usize,
}

/// What a query gives at a moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(f64),
    /// A value of each of some series; in the order of the query where it sorts.
    Vector(Vec<Point>),
    /// Samples over a while.
    Matrix(Vec<Series>),
    /// A text.
    Text(String),
}

/// The value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// What the series is called.
    pub labels: Labels,
    /// Its value; may be NaN or infinite.
    pub value: f64,
}

/// Why a query has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It reads too much.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// It takes too much work.
    #[error("this query looks at more than {0} values: take fewer series, a shorter range, or a longer step")]
    TooMuchWork(u64),
    /// A range with too many moments.
    #[error("a range of {moments} moments is longer than {max}: take a longer step")]
    TooManyMoments {
        /// How many there would be.
        moments: u64,
        /// The most there may be.
        max: usize,
    },
    /// A range that ends before it begins, or has no step.
    #[error("a range needs an end that is not before its start, and a step of at least a millisecond")]
    NoRange,
    /// A range of something that is neither a number nor a vector.
    #[error("only a number or an instant vector can be evaluated over a range")]
    NotOverRange,
    /// Two series became one.
    #[error("two series became the same one, {0}: keep a label that tells them apart")]
    SameLabels(Labels),
    /// Several series on the side of an operator where there may be but one.
    #[error(
        "on the {side} of `{operator}` both {first} and {second} meet {group}: aggregate that side so that one is left, \
         or match on more labels"
    )]
    ManyToMany {
        /// `left` or `right`.
        side: &'static str,
        /// The operator.
        operator: &'static str,
        /// The labels on which they meet.
        group: Labels,
        /// One of them.
        first: Labels,
        /// Another one.
        second: Labels,
    },
    /// Several series meet one without being told to.
    #[error(
        "several series meet one at `{operator}`, on {group}: aggregate them, or say `group_left` or `group_right`"
    )]
    ManyToOne {
        /// The operator.
        operator: &'static str,
        /// The labels on which they meet.
        group: Labels,
    },
    /// Several results of `group_left` or `group_right` have the same labels.
    #[error("two results of `{operator}` would be {labels}: the labels of the many must tell them apart")]
    SameResult {
        /// The operator.
        operator: &'static str,
        /// What both would be called.
        labels: Labels,
    },
    /// A label that cannot be one.
    #[error("{function}: `{label}` cannot be the name of a label")]
    BadLabel {
        /// Where it was named.
        function: &'static str,
        /// What was named.
        label: String,
    },
    /// The parameter of `topk` or `bottomk` is no count.
    #[error("{function}: {value} is no number of series")]
    BadCount {
        /// `topk` or `bottomk`.
        function: &'static str,
        /// The parameter.
        value: String,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self { lookback: 300_000, step: 60_000, samples: 2_000_000, work: 50_000_000, moments: 11_000 }
    }
}

impl BadQuery {
    pub(crate) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: String::new() }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// All mistakes that were found, at least one; parts of PromQL that evenkeel does not evaluate among them.
    pub fn parse(text: &str) -> Result<Self, Vec<BadQuery>> {
        let (expr, selectors) = read::read(text)?;
        Ok(Self { text: text.to_owned(), expr, selectors })
    }

    /// The query as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it gives an instant vector or a number, as checks and rules need.
    #[must_use]
    pub fn is_instant(&self) -> bool {
        matches!(self.expr.kind(), Kind::Vector | Kind::Scalar)
    }

    /// What it gives at a moment (milliseconds since 1970 began).
    ///
    /// # Errors
    /// [`Failed`]
    pub fn at(&self, series: &impl Select, now: i64, limits: &Limits) -> Result<Value, Failed> {
        Evaluation::new(self, series, (now, now), limits)?.value(&self.expr, now)
    }

    /// What it gives from `start` to `end` at every `step` (milliseconds), in the order of the labels.
    ///
    /// # Errors
    /// [`Failed`]
    pub fn over(
        &self,
        series: &impl Select,
        (start, end): (i64, i64),
        step: i64,
        limits: &Limits,
    ) -> Result<Vec<Series>, Failed> {
        if end < start || step < 1 {
            return Err(Failed::NoRange);
        }
        if !self.is_instant() {
            return Err(Failed::NotOverRange);
        }
        let moments = end.abs_diff(start) / step.unsigned_abs() + 1;
        if moments > limits.moments as u64 {
            return Err(Failed::TooManyMoments { moments, max: limits.moments });
        }
        let evaluation = Evaluation::new(self, series, (start, end), limits)?;
        let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        for at in (0..moments).map_while(|n| start.checked_add_unsigned(n * step.unsigned_abs())) {
            let points = match evaluation.value(&self.expr, at)? {
                Value::Scalar(value) => vec![Point { labels: Labels::default(), value }],
                Value::Vector(points) => points,
                Value::Matrix(_) | Value::Text(_) => return Err(Failed::NotOverRange),
            };
            for Point { labels, value } in points {
                found.entry(labels).or_default().push(Sample { at, value });
            }
        }
        Ok(found.into_iter().map(|(labels, samples)| Series { labels, samples }).collect())
    }
}
