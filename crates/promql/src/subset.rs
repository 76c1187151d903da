//! Which functions, aggregations and operators there are; `docs/promql.md` lists them, held by a test.

use crate::call;
use crate::expr::Kind;
use crate::window::{self, Window};

/// A function, and what it is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    /// Of each value by itself.
    Each(fn(f64) -> f64),
    /// Of the samples of a series over a while; `None`: too few of them.
    Over(fn(&Window<'_>) -> Option<f64>),
    /// The same with a number, which is the argument of this index.
    OverWith(fn(&Window<'_>, f64) -> Option<f64>, usize),
    /// Of a time in seconds since 1970 began; of now when there is no argument.
    Date(fn(jiff::civil::DateTime) -> f64),
    LastOverTime,
    AbsentOverTime,
    Absent,
    Clamp,
    ClampMin,
    ClampMax,
    Round,
    Scalar,
    Vector,
    Time,
    Pi,
    Timestamp,
    LabelReplace,
    LabelJoin,
    Sort,
    SortDescending,
    HistogramQuantile,
}

/// How many series become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    CountValues,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
}

/// What stands between two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    Unequal,
    Greater,
    Less,
    AtLeast,
    AtMost,
    And,
    Or,
    Unless,
}

const FUNCTIONS: [(&str, Function); 66] = [
    ("abs", Function::Each(libm::fabs)),
    ("absent", Function::Absent),
    ("absent_over_time", Function::AbsentOverTime),
    ("acos", Function::Each(libm::acos)),
    ("acosh", Function::Each(libm::acosh)),
    ("asin", Function::Each(libm::asin)),
    ("asinh", Function::Each(libm::asinh)),
    ("atan", Function::Each(libm::atan)),
    ("atanh", Function::Each(libm::atanh)),
    ("avg_over_time", Function::Over(window::average)),
    ("ceil", Function::Each(libm::ceil)),
    ("changes", Function::Over(window::changes)),
    ("clamp", Function::Clamp),
    ("clamp_max", Function::ClampMax),
    ("clamp_min", Function::ClampMin),
    ("cos", Function::Each(libm::cos)),
    ("cosh", Function::Each(libm::cosh)),
    ("count_over_time", Function::Over(window::count)),
    ("day_of_month", Function::Date(|date| f64::from(date.day()))),
    ("day_of_week", Function::Date(|date| f64::from(date.weekday().to_sunday_zero_offset()))),
    ("day_of_year", Function::Date(|date| f64::from(date.day_of_year()))),
    ("days_in_month", Function::Date(|date| f64::from(date.days_in_month()))),
    ("deg", Function::Each(call::degrees)),
    ("delta", Function::Over(window::delta)),
    ("deriv", Function::Over(window::slope)),
    ("exp", Function::Each(libm::exp)),
    ("floor", Function::Each(libm::floor)),
    ("histogram_quantile", Function::HistogramQuantile),
    ("hour", Function::Date(|date| f64::from(date.hour()))),
    ("idelta", Function::Over(window::last_delta)),
    ("increase", Function::Over(window::increase)),
    ("irate", Function::Over(window::last_rate)),
    ("label_join", Function::LabelJoin),
    ("label_replace", Function::LabelReplace),
    ("last_over_time", Function::LastOverTime),
    ("ln", Function::Each(libm::log)),
    ("log10", Function::Each(libm::log10)),
    ("log2", Function::Each(libm::log2)),
    ("max_over_time", Function::Over(window::largest)),
    ("min_over_time", Function::Over(window::smallest)),
    ("minute", Function::Date(|date| f64::from(date.minute()))),
    ("month", Function::Date(|date| f64::from(date.month()))),
    ("pi", Function::Pi),
    ("predict_linear", Function::OverWith(window::predict, 1)),
    ("present_over_time", Function::Over(window::present)),
    ("quantile_over_time", Function::OverWith(window::quantile, 0)),
    ("rad", Function::Each(call::radians)),
    ("rate", Function::Over(window::rate)),
    ("resets", Function::Over(window::resets)),
    ("round", Function::Round),
    ("scalar", Function::Scalar),
    ("sgn", Function::Each(call::sign)),
    ("sin", Function::Each(libm::sin)),
    ("sinh", Function::Each(libm::sinh)),
    ("sort", Function::Sort),
    ("sort_desc", Function::SortDescending),
    ("sqrt", Function::Each(libm::sqrt)),
    ("stddev_over_time", Function::Over(window::deviation)),
    ("stdvar_over_time", Function::Over(window::variance)),
    ("sum_over_time", Function::Over(window::sum)),
    ("tan", Function::Each(libm::tan)),
    ("tanh", Function::Each(libm::tanh)),
    ("time", Function::Time),
    ("timestamp", Function::Timestamp),
    ("vector", Function::Vector),
    ("year", Function::Date(|date| f64::from(date.year()))),
];

const AGGREGATIONS: [(&str, Aggregation); 12] = [
    ("avg", Aggregation::Avg),
    ("bottomk", Aggregation::Bottomk),
    ("count", Aggregation::Count),
    ("count_values", Aggregation::CountValues),
    ("group", Aggregation::Group),
    ("max", Aggregation::Max),
    ("min", Aggregation::Min),
    ("quantile", Aggregation::Quantile),
    ("stddev", Aggregation::Stddev),
    ("stdvar", Aggregation::Stdvar),
    ("sum", Aggregation::Sum),
    ("topk", Aggregation::Topk),
];

const OPERATORS: [(&str, Operator); 16] = [
    ("+", Operator::Add),
    ("-", Operator::Subtract),
    ("*", Operator::Multiply),
    ("/", Operator::Divide),
    ("%", Operator::Modulo),
    ("^", Operator::Power),
    ("atan2", Operator::Atan2),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("and", Operator::And),
    ("or", Operator::Or),
    ("unless", Operator::Unless),
];

/// The names of the functions.
pub fn functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, _)| *name)
}

/// The names of the aggregations.
pub fn aggregations() -> impl Iterator<Item = &'static str> {
    AGGREGATIONS.iter().map(|(name, _)| *name)
}

/// The operators as they are written.
pub fn operators() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|(sign, _)| *sign)
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find_map(|(known, what)| (*known == name).then_some(*what))
}

impl Function {
    pub(crate) fn named(name: &str) -> Option<Self> {
        find(&FUNCTIONS, name)
    }

    pub(crate) fn gives(self) -> Kind {
        match self {
            Self::Scalar | Self::Time | Self::Pi => Kind::Scalar,
            _ => Kind::Vector,
        }
    }
}

impl Aggregation {
    pub(crate) fn named(name: &str) -> Option<Self> {
        find(&AGGREGATIONS, name)
    }

    pub(crate) fn name(self) -> &'static str {
        AGGREGATIONS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

impl Operator {
    pub(crate) fn named(sign: &str) -> Option<Self> {
        find(&OPERATORS, sign)
    }

    pub(crate) fn sign(self) -> &'static str {
        OPERATORS.iter().find(|(_, known)| *known == self).map_or("", |(sign, _)| sign)
    }
}
