//! A query as a tree of what can be evaluated.

use evenkeel_series::Matcher;

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
            Self::AllBut(labels) => {
                label != evenkeel_series::labels::NAME && !labels.iter().any(|known| known == label)
            }
        }
    }
}
