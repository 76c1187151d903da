//! Operators, and which series of two sides meet.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_series::Labels;

use crate::call::nameless;
use crate::expr::{Binary, Group, Grouping};
use crate::query::{Failed, Point};
use crate::subset::Operator;

/// Of two numbers; a comparison gives 0 or 1.
pub(crate) fn of_numbers(operator: Operator, left: f64, right: f64) -> f64 {
    match apply(operator, left, right) {
        Applied::Value(value) => value,
        Applied::Holds(holds) => f64::from(u8::from(holds)),
    }
}

/// Of every series and a number. A comparison keeps the series for which it holds as they are.
pub(crate) fn with_number(binary: &Binary, points: Vec<Point>, number: f64, is_on_left: bool) -> Vec<Point> {
    let one = |Point { labels, value }: Point| {
        let (left, right) = if is_on_left { (number, value) } else { (value, number) };
        let applied = apply(binary.operator, left, right).or_keep(value, binary.is_bool)?;
        let drops_name = binary.is_bool || drops_name(binary.operator);
        Some(Point { labels: if drops_name { nameless(&labels) } else { labels }, value: applied })
    };
    points.into_iter().filter_map(one).collect()
}

/// Of the series of two sides that meet.
pub(crate) fn of_vectors(binary: &Binary, left: Vec<Point>, right: Vec<Point>) -> Result<Vec<Point>, Failed> {
    let key = |point: &Point| point.labels.only(|label| binary.matching.labels.has(label));
    let keys = |points: &[Point]| points.iter().map(key).collect::<BTreeSet<Labels>>();
    match binary.operator {
        Operator::And => {
            let there = keys(&right);
            Ok(left.into_iter().filter(|point| there.contains(&key(point))).collect())
        }
        Operator::Unless => {
            let there = keys(&right);
            Ok(left.into_iter().filter(|point| !there.contains(&key(point))).collect())
        }
        Operator::Or => {
            let there = keys(&left);
            let more = right.into_iter().filter(|point| !there.contains(&key(point)));
            Ok(left.into_iter().chain(more).collect())
        }
        _ => meet(binary, left, right),
    }
}

/// One side has at most one series in each group: the right one, unless `group_right` says otherwise.
fn meet(binary: &Binary, left: Vec<Point>, right: Vec<Point>) -> Result<Vec<Point>, Failed> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let is_swapped = matches!(binary.matching.group, Group::OneToMany(_));
    let (many, one) = if is_swapped { (right, left) } else { (left, right) };
    let key = |labels: &Labels| labels.only(|label| binary.matching.labels.has(label));
    let mut ones: BTreeMap<Labels, Point> = BTreeMap::new();
    for point in one {
        let (group, second) = (key(&point.labels), point.labels.clone());
        if let Some(first) = ones.insert(group.clone(), point) {
            let side = if is_swapped { "left" } else { "right" };
            let (operator, first) = (binary.operator.sign(), first.labels);
            return Err(Failed::ManyToMany { side, operator, group, first, second });
        }
    }
    let mut taken: BTreeSet<(Labels, Labels)> = BTreeSet::new();
    let mut met = Vec::new();
    for point in many {
        let group = key(&point.labels);
        let Some(other) = ones.get(&group) else { continue };
        let (left, right) = if is_swapped { (other.value, point.value) } else { (point.value, other.value) };
        let Some(value) = apply(binary.operator, left, right).or_keep(left, binary.is_bool) else { continue };
        let labels = result_labels(binary, &point.labels, &other.labels);
        let operator = binary.operator.sign();
        if binary.matching.group == Group::OneToOne {
            if !taken.insert((group.clone(), Labels::default())) {
                return Err(Failed::ManyToOne { operator, group });
            }
        } else if !taken.insert((group, labels.clone())) {
            return Err(Failed::SameResult { operator, labels });
        }
        met.push(Point { labels, value });
    }
    Ok(met)
}

fn result_labels(binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let drops_name = binary.is_bool || drops_name(binary.operator);
    let mut labels = if drops_name { nameless(many) } else { many.clone() };
    match &binary.matching.group {
        Group::OneToOne => match &binary.matching.labels {
            Grouping::Only(on) => labels.only(|label| on.iter().any(|known| known == label)),
            Grouping::AllBut(ignored) => labels.only(|label| !ignored.iter().any(|known| known == label)),
        },
        Group::ManyToOne(taken) | Group::OneToMany(taken) => {
            for label in taken {
                labels = labels.with(label, one.get(label));
            }
            // The one may bring a name along.
            if binary.is_bool { nameless(&labels) } else { labels }
        }
    }
}

/// What an operator gives: a value, or whether a comparison holds.
enum Applied {
    Value(f64),
    Holds(bool),
}

impl Applied {
    /// A comparison that holds keeps `value`, one that does not leaves it out; with `bool` it gives 1 or 0.
    fn or_keep(self, value: f64, is_bool: bool) -> Option<f64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Holds(holds) if is_bool => Some(f64::from(u8::from(holds))),
            Self::Holds(holds) => holds.then_some(value),
        }
    }
}

fn apply(operator: Operator, left: f64, right: f64) -> Applied {
    Applied::Value(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => libm::fmod(left, right),
        Operator::Power => libm::pow(left, right),
        Operator::Atan2 => libm::atan2(left, right),
        Operator::Equal => return Applied::Holds(left == right),
        Operator::Unequal => return Applied::Holds(left != right),
        Operator::Greater => return Applied::Holds(left > right),
        Operator::Less => return Applied::Holds(left < right),
        Operator::AtLeast => return Applied::Holds(left >= right),
        Operator::AtMost => return Applied::Holds(left <= right),
        // Of sets, not of values: `of_vectors` never asks.
        Operator::And | Operator::Or | Operator::Unless => left,
    })
}

/// `atan2` keeps the name, as it does in Prometheus 2.
fn drops_name(operator: Operator) -> bool {
    use Operator::{Add, Divide, Modulo, Multiply, Power, Subtract};
    matches!(operator, Add | Subtract | Multiply | Divide | Modulo | Power)
}
