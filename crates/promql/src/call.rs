//! Functions of values and labels; those of samples over a while are in `window`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::f64::consts::PI;

use evenkeel_series::{Labels, labels::NAME};
use jiff::{Timestamp, tz::TimeZone};
use regex::Regex;

use crate::expr::{Expr, WindowOf};
use crate::histogram::{self, Bucket};
use crate::query::{Failed, Point};

pub(crate) fn degrees(radians: f64) -> f64 {
    radians * 180.0 / PI
}

pub(crate) fn radians(degrees: f64) -> f64 {
    degrees * PI / 180.0
}

/// -1, 0 or 1; NaN of NaN.
pub(crate) fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// The larger of two; NaN when one is, unless the other is infinity.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// The smaller of two; NaN when one is, unless the other is minus infinity.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    -larger(-a, -b)
}

/// Rounds to a multiple, halves upwards.
pub(crate) fn round(value: f64, to: f64) -> f64 {
    let inverse = 1.0 / to;
    libm::floor(value * inverse + 0.5) / inverse
}

/// A part of the date (UTC) that a time in seconds falls on; NaN beyond the years that there are.
pub(crate) fn date(seconds: f64, part: fn(jiff::civil::DateTime) -> f64) -> f64 {
    let moment = Timestamp::from_second(seconds as i64);
    moment.map_or(f64::NAN, |moment| part(moment.to_zoned(TimeZone::UTC).datetime()))
}

/// The same values in their series without a name.
pub(crate) fn each(points: Vec<Point>, value: impl Fn(f64) -> f64) -> Vec<Point> {
    points.into_iter().map(|point| Point { labels: nameless(&point.labels), value: value(point.value) }).collect()
}

pub(crate) fn nameless(labels: &Labels) -> Labels {
    if labels.name().is_empty() { labels.clone() } else { labels.with(NAME, "") }
}

/// By value, NaN last in either direction.
pub(crate) fn by_value(points: &mut [Point], is_descending: bool) {
    points.sort_by(|a, b| in_order(a.value, b.value, is_descending));
}

fn in_order(a: f64, b: f64, is_descending: bool) -> Ordering {
    let order = a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    if is_descending && !a.is_nan() && !b.is_nan() { order.reverse() } else { order }
}

/// What `absent` calls the series that it gives: labels for which the argument names one value.
pub(crate) fn absent_labels(argument: &Expr) -> Labels {
    let selector = match argument {
        Expr::Instant(selector) => selector,
        Expr::Window(window) => match &window.of {
            WindowOf::Series(selector) => selector,
            WindowOf::Subquery { .. } => return Labels::default(),
        },
        _ => return Labels::default(),
    };
    let mut values: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for matcher in selector.matchers.iter().filter(|matcher| matcher.name() != NAME) {
        let is_new = !values.contains_key(matcher.name());
        values.insert(matcher.name(), matcher.exact().filter(|_| is_new));
    }
    Labels::new(values.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

/// Whether a text can be the name of a label.
pub(crate) fn is_label(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit())
}

/// A label set to what a pattern finds in another one, where the pattern fits.
pub(crate) fn label_replace(points: Vec<Point>, to: &str, with: &str, from: &str, pattern: &Regex) -> Vec<Point> {
    let replaced = |labels: Labels| {
        let Some(found) = pattern.captures(labels.get(from)) else { return labels.clone() };
        let mut value = String::new();
        found.expand(with, &mut value);
        labels.with(to, &value)
    };
    points.into_iter().map(|Point { labels, value }| Point { labels: replaced(labels), value }).collect()
}

/// A label set to others, joined.
pub(crate) fn label_join(points: Vec<Point>, to: &str, separator: &str, from: &[String]) -> Vec<Point> {
    let joined = |labels: &Labels| {
        let values: Vec<&str> = from.iter().map(|name| labels.get(name)).collect();
        labels.with(to, &values.join(separator))
    };
    points.into_iter().map(|Point { labels, value }| Point { labels: joined(&labels), value }).collect()
}

/// The quantile of every histogram among series of buckets, which tell by their label `le` where they end.
pub(crate) fn histogram_quantile(q: f64, points: Vec<Point>) -> Vec<Point> {
    let mut histograms: BTreeMap<Labels, Vec<Bucket>> = BTreeMap::new();
    for Point { labels, value } in points {
        let Ok(below) = labels.get("le").parse::<f64>() else { continue };
        histograms.entry(labels.with("le", "")).or_default().push(Bucket { below, count: value });
    }
    let quantile = |(labels, buckets): (Labels, Vec<Bucket>)| Point {
        labels: nameless(&labels),
        value: histogram::quantile(q, buckets),
    };
    histograms.into_iter().map(quantile).collect()
}

/// A text as the name of a label.
pub(crate) fn label_name<'a>(function: &'static str, text: &'a str) -> Result<&'a str, Failed> {
    if is_label(text) { Ok(text) } else { Err(Failed::BadLabel { function, label: text.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_and_the_smaller_know_no_number_and_infinity() {
        assert!(larger(f64::NAN, 1.0).is_nan() && smaller(1.0, f64::NAN).is_nan());
        assert_eq!(
            (larger(f64::NAN, f64::INFINITY), smaller(f64::NEG_INFINITY, f64::NAN)),
            (f64::INFINITY, f64::NEG_INFINITY)
        );
        assert_eq!((larger(1.0, 2.0), smaller(1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn values_sort_with_nan_last_in_either_direction() {
        let sorted = |is_descending| {
            let mut points: Vec<Point> =
                [2.0, f64::NAN, 1.0, 3.0].map(|value| Point { labels: Labels::default(), value }).into();
            by_value(&mut points, is_descending);
            points.iter().map(|point| point.value.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((sorted(false), sorted(true)), ("1 2 3 NaN".into(), "3 2 1 NaN".into()));
    }
}
