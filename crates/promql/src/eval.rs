//! A query's tree at one moment.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use evenkeel_series::{Labels, Sample, Select, Series, is_stale};
use regex::Regex;

use crate::aggregate::{Parameter, aggregate};
use crate::binary;
use crate::call::{self, each, nameless};
use crate::expr::{Aggregate, Binary, Call, Expr, Kind, Selector, When, Window, WindowOf};
use crate::query::{Failed, Limits, Point, Query, Value};
use crate::subset::Function;
use crate::window;

/// A query, and every series it may look at, read once.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    /// By the number of the selector.
    series: Vec<Vec<Series>>,
    /// First and last moment.
    span: (i64, i64),
    limits: &'a Limits,
    /// How many more values may be looked at.
    left: Cell<u64>,
}

/// Samples of a series over a while.
struct Seen<'a> {
    labels: &'a Labels,
    samples: Cow<'a, [Sample]>,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn new(
        query: &'a Query,
        series: &impl Select,
        span: (i64, i64),
        limits: &'a Limits,
    ) -> Result<Self, Failed> {
        let mut found = vec![Vec::new(); query.selectors];
        let mut left = limits.samples;
        let mut reached = Vec::new();
        reach(&query.expr, span, span, limits, &mut reached);
        for (Selector { id, matchers, .. }, (from, to)) in reached {
            let selected = series.select(matchers, from, to, left);
            let selected = selected.map_err(|_| evenkeel_series::TooMuch { max: limits.samples })?;
            left = left.saturating_sub(selected.iter().map(|series| series.samples.len()).sum());
            found[*id] = selected;
        }
        Ok(Self { series: found, span, limits, left: Cell::new(limits.work) })
    }

    /// What a part of the query gives at a moment.
    pub(crate) fn value(&self, expr: &Expr, now: i64) -> Result<Value, Failed> {
        self.work(1)?;
        Ok(match expr {
            Expr::Number(value) => Value::Scalar(*value),
            Expr::Text(text) => Value::Text(text.clone()),
            Expr::Instant(selector) => Value::Vector(
                self.newest(selector, now)?.into_iter().map(|(labels, s)| point(labels, s.value)).collect(),
            ),
            Expr::Window(window) => {
                let owned = |seen: Seen<'_>| Series { labels: seen.labels.clone(), samples: seen.samples.into_owned() };
                Value::Matrix(self.windows(window, now, |_, seen| Some(owned(seen)))?)
            }
            Expr::Negated(inner) => match self.value(inner, now)? {
                Value::Vector(points) => Value::Vector(told_apart(each(points, |value| -value))?),
                Value::Scalar(value) => Value::Scalar(-value),
                other => other,
            },
            Expr::Binary(binary) => self.binary(binary, now)?,
            Expr::Aggregate(aggregate) => Value::Vector(self.aggregate(aggregate, now)?),
            Expr::Call(call) => match call.function.gives() {
                Kind::Scalar => Value::Scalar(self.call_number(call, now)?),
                _ => Value::Vector(told_apart(self.call(call, now)?)?),
            },
        })
    }

    fn work(&self, values: usize) -> Result<(), Failed> {
        let left = self.left.get().checked_sub(values as u64).ok_or(Failed::TooMuchWork(self.limits.work))?;
        self.left.set(left);
        Ok(())
    }

    /// A part that gives a vector; the reader has seen to it that it does.
    fn vector(&self, expr: &Expr, now: i64) -> Result<Vec<Point>, Failed> {
        match self.value(expr, now)? {
            Value::Vector(points) => Ok(points),
            Value::Scalar(value) => Ok(vec![point(&Labels::default(), value)]),
            Value::Matrix(_) | Value::Text(_) => Ok(Vec::new()),
        }
    }

    fn number(&self, expr: &Expr, now: i64) -> Result<f64, Failed> {
        match self.value(expr, now)? {
            Value::Scalar(value) => Ok(value),
            Value::Vector(_) | Value::Matrix(_) | Value::Text(_) => Ok(f64::NAN),
        }
    }

    /// The newest sample of each series, unless it is too old or marks the series' end.
    fn newest(&self, selector: &Selector, now: i64) -> Result<Vec<(&Labels, Sample)>, Failed> {
        let at = selector.when.of(now, self.span);
        let series = &self.series[selector.id];
        self.work(series.len())?;
        let newest = |series: &'_ Series| {
            let after = series.samples.partition_point(|sample| sample.at <= at);
            series.samples[..after].last().copied()
        };
        let is_fresh =
            |sample: &Sample| sample.at >= at.saturating_sub(self.limits.lookback) && !is_stale(sample.value);
        Ok(series.iter().filter_map(|series| Some((&series.labels, newest(series).filter(is_fresh)?))).collect())
    }

    /// Something of each series that has samples in a window.
    fn windows<T>(
        &self,
        Window { range, of }: &Window,
        now: i64,
        take: impl Fn((i64, i64), Seen<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failed> {
        let span = |when: &When| {
            let to = when.of(now, self.span);
            (to.saturating_sub(*range), to)
        };
        match of {
            WindowOf::Series(selector) => {
                let (from, to) = span(&selector.when);
                let mut taken = Vec::new();
                for Series { labels, samples } in &self.series[selector.id] {
                    let after = samples.partition_point(|sample| sample.at <= to);
                    let before = samples.partition_point(|sample| sample.at < from);
                    let samples = without_ends(samples.get(before..after).unwrap_or_default());
                    self.work(1 + samples.len())?;
                    if !samples.is_empty() {
                        taken.extend(take((from, to), Seen { labels, samples }));
                    }
                }
                Ok(taken)
            }
            WindowOf::Subquery { expr, step, when } => {
                let (from, to) = span(when);
                let found = self.subquery(expr, (from, to), step.unwrap_or(self.limits.step))?;
                let seen = |(labels, samples): &(Labels, Vec<Sample>)| {
                    take((from, to), Seen { labels, samples: Cow::Borrowed(samples) })
                };
                Ok(found.iter().filter_map(seen).collect())
            }
        }
    }

    /// Values of a query at every multiple of a step in a while.
    fn subquery(&self, expr: &Expr, (from, to): (i64, i64), step: i64) -> Result<Vec<(Labels, Vec<Sample>)>, Failed> {
        let step = step.max(1);
        let aligned = step.saturating_mul(from / step);
        let first = if aligned < from { aligned.saturating_add(step) } else { aligned };
        let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        let mut next = Some(first);
        while let Some(at) = next.filter(|at| *at <= to) {
            for Point { labels, value } in self.vector(expr, at)? {
                found.entry(labels).or_default().push(Sample { at, value });
            }
            next = at.checked_add(step);
        }
        Ok(found.into_iter().collect())
    }

    fn binary(&self, binary: &Binary, now: i64) -> Result<Value, Failed> {
        let points = match (self.value(&binary.left, now)?, self.value(&binary.right, now)?) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                return Ok(Value::Scalar(binary::of_numbers(binary.operator, left, right)));
            }
            (Value::Vector(left), Value::Vector(right)) => {
                self.work(left.len() + right.len())?;
                binary::of_vectors(binary, left, right)?
            }
            (Value::Vector(left), Value::Scalar(right)) => binary::with_number(binary, left, right, false),
            (Value::Scalar(left), Value::Vector(right)) => binary::with_number(binary, right, left, true),
            _ => Vec::new(),
        };
        Ok(Value::Vector(told_apart(points)?))
    }

    fn aggregate(&self, parts: &Aggregate, now: i64) -> Result<Vec<Point>, Failed> {
        let parameter = match &parts.parameter {
            None => Parameter::None,
            Some(Expr::Text(label)) => Parameter::Text(label.clone()),
            Some(number) => Parameter::Number(self.number(number, now)?),
        };
        let points = self.vector(&parts.expr, now)?;
        self.work(points.len())?;
        told_apart(aggregate(parts.aggregation, &parts.grouping, &parameter, points)?)
    }

    fn call_number(&self, call: &Call, now: i64) -> Result<f64, Failed> {
        Ok(match (call.function, call.arguments.as_slice()) {
            (Function::Time, _) => now as f64 / 1e3,
            (Function::Pi, _) => std::f64::consts::PI,
            (Function::Scalar, [vector]) => match self.vector(vector, now)?.as_slice() {
                [only] => only.value,
                _ => f64::NAN,
            },
            _ => f64::NAN,
        })
    }

    fn call(&self, call: &Call, now: i64) -> Result<Vec<Point>, Failed> {
        let arguments = call.arguments.as_slice();
        let argument = |index: usize| arguments.get(index).unwrap_or(&Expr::Number(f64::NAN));
        let vector = |index: usize| self.vector(argument(index), now);
        let number = |index: usize| self.number(argument(index), now);
        let text = |index: usize| match argument(index) {
            Expr::Text(text) => text.as_str(),
            _ => "",
        };
        Ok(match call.function {
            Function::Each(function) => each(vector(0)?, function),
            Function::Over(function) => self.over(argument(0), now, function)?,
            Function::OverWith(function, parameter) => {
                let number = number(parameter)?;
                self.over(argument(1 - parameter), now, |window| function(window, number))?
            }
            Function::LastOverTime => {
                let Expr::Window(window) = argument(0) else { return Ok(Vec::new()) };
                self.windows(window, now, |_, seen| Some(point(seen.labels, seen.samples.last()?.value)))?
            }
            Function::AbsentOverTime => {
                let found = self.over(argument(0), now, |_| Some(1.0))?;
                absent(argument(0), found.is_empty())
            }
            Function::Absent => absent(argument(0), vector(0)?.is_empty()),
            Function::Date(part) => match arguments {
                [] => vec![point(&Labels::default(), call::date(now.div_euclid(1_000) as f64, part))],
                _ => each(vector(0)?, |seconds| call::date(seconds, part)),
            },
            Function::Clamp => {
                let (least, most) = (number(1)?, number(2)?);
                let points = vector(0)?;
                let clamp = |value| call::larger(least, call::smaller(most, value));
                if most < least { Vec::new() } else { each(points, clamp) }
            }
            Function::ClampMin => {
                let least = number(1)?;
                each(vector(0)?, |value| call::larger(least, value))
            }
            Function::ClampMax => {
                let most = number(1)?;
                each(vector(0)?, |value| call::smaller(most, value))
            }
            Function::Round => {
                let to = if arguments.len() > 1 { number(1)? } else { 1.0 };
                each(vector(0)?, |value| call::round(value, to))
            }
            Function::Vector => vec![point(&Labels::default(), number(0)?)],
            Function::Timestamp => match argument(0) {
                Expr::Instant(selector) => {
                    let at = |(labels, sample): (&Labels, Sample)| point(&nameless(labels), sample.at as f64 / 1e3);
                    self.newest(selector, now)?.into_iter().map(at).collect()
                }
                _ => each(vector(0)?, |_| now as f64 / 1e3),
            },
            Function::LabelReplace => {
                let to = call::label_name("label_replace", text(1))?;
                let pattern = pattern(text(4))
                    .ok_or_else(|| Failed::BadLabel { function: "label_replace", label: text(4).to_owned() })?;
                call::label_replace(vector(0)?, to, text(2), text(3), &pattern)
            }
            Function::LabelJoin => {
                let to = call::label_name("label_join", text(1))?;
                let from: Vec<String> = (3..arguments.len()).map(|index| text(index).to_owned()).collect();
                for label in &from {
                    call::label_name("label_join", label)?;
                }
                call::label_join(vector(0)?, to, text(2), &from)
            }
            Function::Sort | Function::SortDescending => {
                let mut points = vector(0)?;
                call::by_value(&mut points, matches!(call.function, Function::SortDescending));
                points
            }
            Function::HistogramQuantile => call::histogram_quantile(number(0)?, vector(1)?),
            // Those that give a number are asked for in `call_number`.
            Function::Scalar | Function::Time | Function::Pi => Vec::new(),
        })
    }

    /// A function of each series' samples over a while.
    fn over(
        &self,
        argument: &Expr,
        now: i64,
        function: impl Fn(&window::Window<'_>) -> Option<f64>,
    ) -> Result<Vec<Point>, Failed> {
        let Expr::Window(window) = argument else { return Ok(Vec::new()) };
        self.windows(window, now, |(from, to), seen| {
            let value = function(&window::Window { samples: &seen.samples, from, to, now })?;
            Some(point(&nameless(seen.labels), value))
        })
    }
}

fn point(labels: &Labels, value: f64) -> Point {
    Point { labels: labels.clone(), value }
}

fn absent(argument: &Expr, is_absent: bool) -> Vec<Point> {
    if is_absent { vec![point(&call::absent_labels(argument), 1.0)] } else { Vec::new() }
}

/// A pattern that fits a whole value; the reader has compiled it once to see that it can be.
pub(crate) fn pattern(text: &str) -> Option<Regex> {
    regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build().ok()
}

fn without_ends(samples: &[Sample]) -> Cow<'_, [Sample]> {
    if samples.iter().any(|sample| is_stale(sample.value)) {
        samples.iter().filter(|sample| !is_stale(sample.value)).copied().collect()
    } else {
        Cow::Borrowed(samples)
    }
}

/// No two series have the same labels.
fn told_apart(points: Vec<Point>) -> Result<Vec<Point>, Failed> {
    let mut seen = BTreeSet::new();
    match points.iter().find(|point| !seen.insert(&point.labels)) {
        Some(twice) => Err(Failed::SameLabels(twice.labels.clone())),
        None => Ok(points),
    }
}

/// The selectors of a part that is evaluated in a while, and from when to when each needs samples.
fn reach<'e>(
    expr: &'e Expr,
    (from, to): (i64, i64),
    query: (i64, i64),
    limits: &Limits,
    found: &mut Vec<(&'e Selector, (i64, i64))>,
) {
    let back = |when: &When, more: i64| (when.of(from, query).saturating_sub(more), when.of(to, query));
    let parts: Vec<&'e Expr> = match expr {
        Expr::Number(_) | Expr::Text(_) => return,
        Expr::Instant(selector) => return found.push((selector, back(&selector.when, limits.lookback))),
        Expr::Window(Window { range, of: WindowOf::Series(selector) }) => {
            return found.push((selector, back(&selector.when, *range)));
        }
        Expr::Window(Window { range, of: WindowOf::Subquery { expr, when, .. } }) => {
            return reach(expr, back(when, *range), query, limits, found);
        }
        Expr::Negated(expr) => vec![expr],
        Expr::Binary(binary) => vec![&binary.left, &binary.right],
        Expr::Aggregate(parts) => parts.parameter.iter().chain([&parts.expr]).collect(),
        Expr::Call(call) => call.arguments.iter().collect(),
    };
    parts.into_iter().for_each(|part| reach(part, (from, to), query, limits, found));
}
