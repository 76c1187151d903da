//! Many series into one of each group.

use std::collections::BTreeMap;

use evenkeel_series::Labels;

use crate::call;
use crate::expr::Grouping;
use crate::query::{Failed, Point};
use crate::subset::Aggregation;
use crate::window;

/// What an aggregation is told beside the series.
#[derive(Debug, Clone)]
pub(crate) enum Parameter {
    None,
    Number(f64),
    Text(String),
}

/// Aggregates in each group, in the order in which the groups were met.
pub(crate) fn aggregate(
    aggregation: Aggregation,
    grouping: &Grouping,
    parameter: &Parameter,
    points: Vec<Point>,
) -> Result<Vec<Point>, Failed> {
    match (aggregation, parameter) {
        (Aggregation::Topk | Aggregation::Bottomk, Parameter::Number(count)) => {
            let count = whole(aggregation, *count)?;
            let is_descending = aggregation == Aggregation::Topk;
            let first = |(_, mut points): (Labels, Vec<Point>)| {
                call::by_value(&mut points, is_descending);
                points.truncate(count);
                points
            };
            Ok(if count == 0 { Vec::new() } else { groups(grouping, points).into_iter().flat_map(first).collect() })
        }
        (Aggregation::CountValues, Parameter::Text(label)) => {
            let label = call::label_name("count_values", label)?;
            let told = |point: Point| Point { labels: point.labels.with(label, &shown(point.value)), ..point };
            let grouping = match grouping {
                Grouping::Only(labels) => Grouping::Only(labels.iter().cloned().chain([label.to_owned()]).collect()),
                Grouping::AllBut(_) => grouping.clone(),
            };
            Ok(one_each(&grouping, points.into_iter().map(told).collect(), |values| values.len() as f64))
        }
        (Aggregation::Quantile, Parameter::Number(q)) => {
            Ok(one_each(grouping, points, |values| window::quantile_of(*q, values.to_vec())))
        }
        _ => Ok(one_each(grouping, points, |values| of_values(aggregation, values))),
    }
}

/// The number of series that is wanted; none below one.
fn whole(aggregation: Aggregation, count: f64) -> Result<usize, Failed> {
    let fits = -9_223_372_036_854_775_808.0..=9_223_372_036_854_774_784.0;
    if !fits.contains(&count) {
        return Err(Failed::BadCount { function: aggregation.name(), value: shown(count) });
    }
    Ok(count.max(0.0) as usize)
}

/// A value as the text that Prometheus makes of it.
fn shown(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string().replace("inf", "Inf") }
}

fn one_each(grouping: &Grouping, points: Vec<Point>, value: impl Fn(&[f64]) -> f64) -> Vec<Point> {
    let one = |(labels, points): (Labels, Vec<Point>)| {
        let values: Vec<f64> = points.into_iter().map(|point| point.value).collect();
        Point { labels, value: value(&values) }
    };
    groups(grouping, points).into_iter().map(one).collect()
}

fn groups(grouping: &Grouping, points: Vec<Point>) -> Vec<(Labels, Vec<Point>)> {
    let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
    let mut groups: Vec<(Labels, Vec<Point>)> = Vec::new();
    for point in points {
        let labels = point.labels.only(|label| grouping.has(label));
        let place = *places.entry(labels).or_insert_with_key(|labels| {
            groups.push((labels.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(point);
    }
    groups
}

/// Of at least one value; in the order of additions of Prometheus 2.
fn of_values(aggregation: Aggregation, values: &[f64]) -> f64 {
    match aggregation {
        Aggregation::Sum => values.iter().copied().reduce(|sum, value| sum + value).unwrap_or(0.0),
        Aggregation::Avg => mean(values),
        Aggregation::Min => {
            let smallest = |min: f64, value: f64| if min > value || min.is_nan() { value } else { min };
            values.iter().copied().reduce(smallest).unwrap_or(f64::NAN)
        }
        Aggregation::Max => {
            let largest = |max: f64, value: f64| if max < value || max.is_nan() { value } else { max };
            values.iter().copied().reduce(largest).unwrap_or(f64::NAN)
        }
        Aggregation::Stdvar => variance(values),
        Aggregation::Stddev => libm::sqrt(variance(values)),
        Aggregation::Group => 1.0,
        // Those with a parameter never come here without one: the query is checked when it is read.
        Aggregation::Count
        | Aggregation::CountValues
        | Aggregation::Topk
        | Aggregation::Bottomk
        | Aggregation::Quantile => values.len() as f64,
    }
}

fn mean(values: &[f64]) -> f64 {
    let Some((first, rest)) = values.split_first() else { return f64::NAN };
    rest.iter().zip(2_u32..).fold(*first, |mean, (value, count)| {
        if mean.is_infinite() && (*value == mean || value.is_finite()) {
            return mean;
        }
        let count = f64::from(count);
        mean + (value / count - mean / count)
    })
}

/// Welford's running variance of all values, not of a sample of them.
fn variance(values: &[f64]) -> f64 {
    let Some((first, rest)) = values.split_first() else { return f64::NAN };
    let (mut mean, mut squares) = (*first, 0.0);
    for (value, count) in rest.iter().zip(2_u32..) {
        let off = value - mean;
        mean += off / f64::from(count);
        squares += off * (value - mean);
    }
    squares / values.len() as f64
}
