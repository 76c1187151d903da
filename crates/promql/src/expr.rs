//! A query as a tree of what can be evaluated.

use std::fmt::{self, Display, Formatter};

use evenkeel_series::{Matcher, labels::NAME};

use crate::subset::{Aggregation, Function, Operator};

/// A part of a query.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Number(f64),
    Text(String),
    /// The newest samples of some series.
    Instant(Selector),
    /// Samples over a while; only functions of [`Function::over`](crate::subset::Function) take it.
    Window(Window),
    Negated(Box<Expr>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    Call(Call),
}

/// What a part of a query gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Vector,
    Matrix,
    Text,
}

/// Which series, and when.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    /// Counts the selectors of a query.
    pub(crate) id: usize,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) when: When,
}

/// A moment other than that of the evaluation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct When {
    pub(crate) at: Option<At>,
    /// How much earlier, in milliseconds.
    pub(crate) offset: i64,
}

/// The modifier `@`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    /// Milliseconds since 1970 began.
    Moment(i64),
    /// The first moment of the query.
    Start,
    /// The last moment of the query.
    End,
}

/// Samples over a while.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// How long, in milliseconds.
    pub(crate) range: i64,
    pub(crate) of: WindowOf,
}

/// Where the samples of a window come from.
#[derive(Debug, Clone)]
pub(crate) enum WindowOf {
    Series(Selector),
    /// A query evaluated again and again.
    Subquery {
        expr: Box<Expr>,
        step: Option<i64>,
        when: When,
    },
}

/// An operator and what it stands between.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) operator: Operator,
    pub(crate) left: Expr,
    pub(crate) right: Expr,
    /// A comparison answers 0 or 1 and leaves nothing out.
    pub(crate) is_bool: bool,
    pub(crate) matching: Matching,
}

/// Which series of two sides meet.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    pub(crate) labels: Grouping,
    pub(crate) group: Group,
}

/// Whether several series of one side may meet the same of the other; with labels to take from the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Group {
    OneToOne,
    /// `group_left`
    ManyToOne(Vec<String>),
    /// `group_right`
    OneToMany(Vec<String>),
}

/// Some labels, or all but some.
#[derive(Debug, Clone)]
pub(crate) enum Grouping {
    /// `by`, `on`
    Only(Vec<String>),
    /// `without`, `ignoring`; the name of a series is never looked at.
    AllBut(Vec<String>),
}

/// Many series into one of each group.
#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub(crate) aggregation: Aggregation,
    pub(crate) grouping: Grouping,
    pub(crate) parameter: Option<Expr>,
    pub(crate) expr: Expr,
}

/// A function and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) function: Function,
    pub(crate) arguments: Vec<Expr>,
}

impl Expr {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Scalar,
            Self::Text(_) => Kind::Text,
            Self::Instant(_) | Self::Aggregate(_) => Kind::Vector,
            Self::Window(_) => Kind::Matrix,
            Self::Negated(inner) => inner.kind(),
            Self::Binary(binary) => match (binary.left.kind(), binary.right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            Self::Call(call) => call.function.gives(),
        }
    }
}

impl When {
    /// The moment that is meant at `now` by a query from `start` to `end`.
    pub(crate) fn of(self, now: i64, (start, end): (i64, i64)) -> i64 {
        let moment = match self.at {
            None => now,
            Some(At::Moment(moment)) => moment,
            Some(At::Start) => start,
            Some(At::End) => end,
        };
        moment.saturating_sub(self.offset)
    }
}

impl Grouping {
    /// Whether a label is looked at.
    pub(crate) fn has(&self, label: &str) -> bool {
        match self {
            Self::Only(labels) => labels.iter().any(|known| known == label),
            Self::AllBut(labels) => label != NAME && !labels.iter().any(|known| known == label),
        }
    }
}

/// As a query that reads the same.
impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) if value.is_infinite() => f.write_str(if *value > 0.0 { "Inf" } else { "-Inf" }),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Instant(selector) => write!(f, "{selector}{}", selector.when),
            Self::Window(window) => window.fmt(f),
            Self::Negated(inner) => write!(f, "-{}", Part(inner)),
            Self::Binary(binary) => {
                let bool = if binary.is_bool { " bool" } else { "" };
                let sign = binary.operator.sign();
                write!(f, "{} {sign}{bool}{} {}", Part(&binary.left), binary.matching, Part(&binary.right))
            }
            Self::Aggregate(parts) => {
                let grouping = match &parts.grouping {
                    Grouping::Only(labels) if labels.is_empty() => String::new(),
                    Grouping::Only(labels) => format!(" by ({})", labels.join(", ")),
                    Grouping::AllBut(labels) => format!(" without ({})", labels.join(", ")),
                };
                write!(f, "{}{grouping} (", parts.aggregation.name())?;
                parts.parameter.iter().try_for_each(|parameter| write!(f, "{parameter}, "))?;
                write!(f, "{})", parts.expr)
            }
            Self::Call(call) => {
                let arguments: Vec<String> = call.arguments.iter().map(Self::to_string).collect();
                write!(f, "{}({})", call.name, arguments.join(", "))
            }
        }
    }
}

/// A part of an operator, in parentheses where it needs them.
struct Part<'a>(&'a Expr);

impl Display for Part<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if matches!(self.0, Expr::Binary(_) | Expr::Negated(_)) { write!(f, "({})", self.0) } else { self.0.fmt(f) }
    }
}

/// Without the moment that it is moved to.
impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let is_name = |matcher: &&Matcher| matcher.name() == NAME && matcher.exact().is_some();
        let name = self.matchers.iter().find(is_name).and_then(Matcher::exact);
        f.write_str(name.unwrap_or_default())?;
        let rest = self.matchers.iter().filter(|matcher| name.is_none() || !is_name(matcher));
        let rest: Vec<String> = rest.map(Matcher::to_string).collect();
        if rest.is_empty() { Ok(()) } else { write!(f, "{{{}}}", rest.join(",")) }
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let range = shown(self.range);
        match &self.of {
            WindowOf::Series(selector) => write!(f, "{selector}[{range}]{}", selector.when),
            WindowOf::Subquery { expr, step, when } => {
                write!(f, "{}[{range}:{}]{when}", Part(expr), step.map(shown).unwrap_or_default())
            }
        }
    }
}

impl Display for When {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.at {
            None => {}
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
            Some(At::Moment(moment)) => write!(f, " @ {}", moment as f64 / 1e3)?,
        }
        match self.offset {
            0 => Ok(()),
            later if later < 0 => write!(f, " offset -{}", shown(-later)),
            earlier => write!(f, " offset {}", shown(earlier)),
        }
    }
}

impl Display for Matching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.labels {
            Grouping::Only(labels) => write!(f, " on ({})", labels.join(", "))?,
            Grouping::AllBut(labels) if labels.is_empty() && self.group == Group::OneToOne => {}
            Grouping::AllBut(labels) => write!(f, " ignoring ({})", labels.join(", "))?,
        }
        match &self.group {
            Group::OneToOne => Ok(()),
            Group::ManyToOne(labels) => write!(f, " group_left ({})", labels.join(", ")),
            Group::OneToMany(labels) => write!(f, " group_right ({})", labels.join(", ")),
        }
    }
}

/// A duration in the largest unit that it is a whole number of.
fn shown(milliseconds: i64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, length)| milliseconds % length == 0);
    unit.map_or_else(|| format!("{milliseconds}ms"), |(unit, length)| format!("{}{unit}", milliseconds / length))
}
