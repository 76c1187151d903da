//! Which kinds of values fit together. Rules as in expr-lang's checker.

use super::BadCondition;
use super::parse::{Expr, Node, Operator};
use crate::value::Value;

/// A kind of value, as far as it is known before there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Not known before it is there.
    Any,
    /// Nothing.
    Nil,
    /// A truth value.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// Text.
    Text,
    /// A list of such values.
    List(Box<Kind>),
    /// Values by name.
    Map,
}

impl Kind {
    /// The kind of a Prometheus vector: a list of numbers.
    #[must_use]
    pub fn numbers() -> Self {
        Self::List(Box::new(Self::Float))
    }

    /// The kind of a Prometheus matrix: a list of lists of numbers.
    #[must_use]
    pub fn matrix() -> Self {
        Self::List(Box::new(Self::numbers()))
    }

    /// The kind of a value as Argo Rollouts has it: what is below a name, or in a mixed list, can be anything.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Float,
            Value::Text(_) => Self::Text,
            Value::Map(_) => Self::Map,
            Value::List(items) => {
                let is_number = |item: &Value| matches!(item, Value::Number(_));
                let is_series = |item: &Value| matches!(item, Value::List(points) if points.iter().all(is_number));
                if !items.is_empty() && items.iter().all(is_number) {
                    Self::numbers()
                } else if !items.is_empty() && items.iter().all(is_series) {
                    Self::matrix()
                } else {
                    Self::List(Box::new(Self::Any))
                }
            }
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Any)
    }

    fn is(&self, kind: &Self) -> bool {
        *self == Self::Any || self == kind
    }

    fn compares_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any | Self::Nil, _) | (_, Self::Any | Self::Nil) => true,
            (Self::Int | Self::Float, Self::Int | Self::Float) => true,
            (Self::List(one), Self::List(other)) => one.compares_with(other),
            _ => self == other,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::Nil => "nil".into(),
            Self::Bool => "a truth value".into(),
            Self::Int | Self::Float => "a number".into(),
            Self::Text => "text".into(),
            Self::List(of) if **of == Self::Any => "a list".into(),
            Self::List(of) if matches!(**of, Self::Int | Self::Float) => "a list of numbers".into(),
            Self::List(_) => "a list of lists".into(),
            Self::Map => "a map".into(),
        }
    }
}

/// A function that conditions can call.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Arguments, besides what is asked of each element.
    args: std::ops::RangeInclusive<usize>,
    /// Whether it asks something of each element of a list; `Some(true)`: it must.
    pub(super) each: Option<bool>,
}

const fn plain(name: &'static str, from: usize, to: usize) -> Function {
    Function { name, args: from..=to, each: None }
}

const fn each(name: &'static str, must: bool) -> Function {
    Function { name, args: 1..=1, each: Some(must) }
}

/// Those of expr-lang that conditions have a use for, and Argo's six.
pub(super) const FUNCTIONS: [Function; 43] = [
    plain("asInt", 1, 1),
    plain("asFloat", 1, 1),
    plain("isNaN", 1, 1),
    plain("isInf", 1, 1),
    plain("isNil", 1, 1),
    plain("default", 2, 2),
    plain("len", 1, 1),
    plain("max", 1, 64),
    plain("min", 1, 64),
    plain("mean", 1, 64),
    plain("median", 1, 64),
    plain("abs", 1, 1),
    plain("ceil", 1, 1),
    plain("floor", 1, 1),
    plain("round", 1, 1),
    plain("int", 1, 1),
    plain("float", 1, 1),
    plain("string", 1, 1),
    plain("type", 1, 1),
    plain("first", 1, 1),
    plain("last", 1, 1),
    plain("take", 2, 2),
    plain("keys", 1, 1),
    plain("values", 1, 1),
    plain("lower", 1, 1),
    plain("upper", 1, 1),
    plain("trim", 1, 1),
    plain("split", 2, 2),
    plain("join", 1, 2),
    plain("hasPrefix", 2, 2),
    plain("hasSuffix", 2, 2),
    plain("indexOf", 2, 2),
    plain("fromJSON", 1, 1),
    each("all", true),
    each("any", true),
    each("one", true),
    each("none", true),
    each("map", true),
    each("filter", true),
    each("find", true),
    each("findIndex", true),
    each("count", false),
    each("sum", false),
];

/// Names like it, for somebody who mistyped.
pub(super) fn alike(name: &str) -> String {
    let close = |function: &&Function| strsim::damerau_levenshtein(function.name, name) <= 2;
    match FUNCTIONS.iter().find(close) {
        Some(function) => format!("did you mean `{}`?", function.name),
        None => {
            let known: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
            format!("known functions: {}", known.join(", "))
        }
    }
}

/// What is known where an expression stands.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) result: Kind,
    pub(super) element: Kind,
}

/// The kind of an expression's value.
pub(super) fn check(expr: &Expr, around: &Surroundings) -> Result<Kind, BadCondition> {
    let bad = |what: String, help: &str| Err(BadCondition::new(what, help, expr.at.clone()));
    Ok(match &expr.node {
        Node::Nil => Kind::Nil,
        Node::Bool(_) => Kind::Bool,
        Node::Int(_) | Node::Place => Kind::Int,
        Node::Float(_) => Kind::Float,
        Node::Text(_) => Kind::Text,
        Node::Result => around.result.clone(),
        Node::Element => around.element.clone(),
        Node::List(items) => {
            let mut kinds = items.iter().map(|item| check(item, around));
            let first = kinds.next().transpose()?.unwrap_or(Kind::Any);
            let rest = kinds.collect::<Result<Vec<_>, _>>()?;
            Kind::List(Box::new(if rest.iter().all(|kind| *kind == first) { first } else { Kind::Any }))
        }
        Node::Map(fields) => {
            fields.iter().try_for_each(|(_, field)| check(field, around).map(drop))?;
            Kind::Map
        }
        Node::Member { of, key, .. } => {
            let (of, kind) = (check(of, around)?, check(key, around)?);
            let name = if let Node::Text(name) = &key.node { name.as_str() } else { "…" };
            match of {
                Kind::Any | Kind::Map if kind == Kind::Any || kind == Kind::Text || of == Kind::Any => Kind::Any,
                Kind::List(item) if matches!(kind, Kind::Any | Kind::Int) => *item,
                Kind::Text if matches!(kind, Kind::Any | Kind::Int) => Kind::Text,
                Kind::List(_) if kind == Kind::Text => {
                    let what = format!("a list has no `{name}`: its elements have places");
                    return bad(what, &format!("write `result[0].{name}`, or `all(result, .{name} > 0)`"));
                }
                Kind::List(_) => return bad("a place in a list is a whole number".into(), "write `result[0]`"),
                of if kind == Kind::Text => {
                    return bad(format!("{} has no `{name}`", of.words()), "what is measured is `result` itself");
                }
                of => return bad(format!("{} has no places", of.words()), "what is measured is `result` itself"),
            }
        }
        Node::Slice { of, from, to } => {
            for bound in [from, to].into_iter().flatten() {
                if !check(bound, around)?.is(&Kind::Int) {
                    return bad("a place in a list is a whole number".into(), "write `result[0:2]`");
                }
            }
            match check(of, around)? {
                kind @ (Kind::Any | Kind::List(_) | Kind::Text) => kind,
                of => return bad(format!("{} has no parts", of.words()), "only lists and texts have them"),
            }
        }
        Node::Not(of) => match check(of, around)? {
            Kind::Bool | Kind::Any => Kind::Bool,
            of => {
                let what = format!("`!` and `not` want a truth value, and this is {}", of.words());
                return bad(what, "put the comparison in brackets: `!(result > 1)`");
            }
        },
        Node::Minus(of) | Node::Plus(of) => match check(of, around)? {
            kind @ (Kind::Int | Kind::Float | Kind::Any) => kind,
            of => return bad(format!("{} has no sign", of.words()), "only numbers have one"),
        },
        Node::If(condition, yes, no) => {
            if !check(condition, around)?.is(&Kind::Bool) {
                return bad("what stands before `?` is no truth value".into(), "write `result > 1 ? one : other`");
            }
            let (yes, no) = (check(yes, around)?, check(no, around)?);
            if yes == no { yes } else { Kind::Any }
        }
        Node::Binary(operator, left, right) => {
            let kinds = (check(left, around)?, check(right, around)?);
            return binary(expr, *operator, left, &kinds.0, &kinds.1);
        }
        Node::Call { name, args, each } => return call(expr, name, args, each.as_deref(), around),
    })
}

fn binary(expr: &Expr, operator: Operator, left_expr: &Expr, left: &Kind, right: &Kind) -> Result<Kind, BadCondition> {
    let misfit = || {
        let (sign, left, right) = (operator.sign(), left.words(), right.words());
        let what = format!("`{sign}` does not fit between {left} and {right}");
        let first_of_list = left.starts_with("a list") && !right.starts_with("a list");
        let help = match (&left_expr.node, operator) {
            (Node::Result, Operator::In) => "write `2 in result`".to_owned(),
            (Node::Result, _) if first_of_list => {
                format!("compare its first element, `result[0] {sign} …`, or all of them, `all(result, # {sign} …)`")
            }
            _ if left == "text" || right == "text" => "`asFloat(result)` makes a number of text".to_owned(),
            _ => "compare values of the same kind".to_owned(),
        };
        Err(BadCondition::new(what, help, expr.at.clone()))
    };
    let numbers = left.is_number() && right.is_number();
    let texts = left.is(&Kind::Text) && right.is(&Kind::Text);
    let number = || match (left, right) {
        (Kind::Int, Kind::Int) => Kind::Int,
        (Kind::Any, _) | (_, Kind::Any) => Kind::Any,
        _ => Kind::Float,
    };
    match operator {
        Operator::Or | Operator::And if left.is(&Kind::Bool) && right.is(&Kind::Bool) => Ok(Kind::Bool),
        Operator::Equal | Operator::NotEqual if left.compares_with(right) => Ok(Kind::Bool),
        Operator::Below | Operator::AtMost | Operator::Above | Operator::AtLeast if numbers || texts => Ok(Kind::Bool),
        Operator::In | Operator::NotIn => match right {
            Kind::Any | Kind::Nil => Ok(Kind::Bool),
            Kind::List(item) if left.compares_with(item) => Ok(Kind::Bool),
            Kind::Map if matches!(left, Kind::Any | Kind::Nil | Kind::Text) => Ok(Kind::Bool),
            _ => misfit(),
        },
        Operator::Contains | Operator::StartsWith | Operator::EndsWith | Operator::Matches if texts => Ok(Kind::Bool),
        Operator::Add if numbers && texts => Ok(Kind::Any),
        Operator::Add if texts => Ok(Kind::Text),
        Operator::Add | Operator::Subtract | Operator::Multiply if numbers => Ok(number()),
        Operator::Divide | Operator::Power if numbers => Ok(Kind::Float),
        Operator::Remainder if left.is(&Kind::Int) && right.is(&Kind::Int) => Ok(Kind::Int),
        Operator::OrElse if left == right => Ok(left.clone()),
        Operator::OrElse if *left == Kind::Nil => Ok(right.clone()),
        Operator::OrElse => Ok(Kind::Any),
        _ => misfit(),
    }
}

fn call(
    expr: &Expr,
    name: &'static str,
    args: &[Expr],
    each: Option<&Expr>,
    around: &Surroundings,
) -> Result<Kind, BadCondition> {
    let function = FUNCTIONS.iter().find(|function| function.name == name).expect("the parser knows no others");
    let bad = |what: String, help: &str| Err(BadCondition::new(what, help, expr.at.clone()));
    if !function.args.contains(&args.len()) || (function.each == Some(true) && each.is_none()) {
        let wants = match (function.each, function.args.end()) {
            (Some(_), _) => "a list and what is asked of each element, as in `all(result, # < 1)`",
            (None, 1) => "one argument",
            (None, 2) if *function.args.start() == 2 => "two arguments",
            (None, _) => "at least one argument",
        };
        return bad(format!("`{name}` has the wrong number of arguments"), &format!("it wants {wants}"));
    }
    let kinds = args.iter().map(|arg| check(arg, around)).collect::<Result<Vec<_>, _>>()?;
    let first = &kinds[0];
    let wants = |kind: &str| {
        let what = format!("`{name}` wants {kind}, and this is {}", first.words());
        let help = match first {
            Kind::List(_) => "take an element, `result[0]`, or ask something of each: `all(result, # > 0)`",
            _ => "what is measured is `result`",
        };
        Err(BadCondition::new(what, help, args[0].at.clone()))
    };
    let list = |kind: &Kind| match kind {
        Kind::List(item) => Some((**item).clone()),
        Kind::Any => Some(Kind::Any),
        Kind::Nil | Kind::Bool | Kind::Int | Kind::Float | Kind::Text | Kind::Map => None,
    };
    if function.each.is_some() {
        let Some(element) = list(first) else { return wants("a list") };
        let inner = Surroundings { element: element.clone(), ..around.clone() };
        let asked = each.map(|each| check(each, &inner)).transpose()?;
        return match (name, asked) {
            ("map", Some(kind)) => Ok(Kind::List(Box::new(kind))),
            ("sum", asked) => match asked.unwrap_or(element) {
                kind if kind.is_number() => Ok(kind),
                kind => bad(
                    format!("`sum` wants numbers, and these are {}", kind.words()),
                    "sum a field: `sum(result, .n)`",
                ),
            },
            (_, Some(kind)) if !kind.is(&Kind::Bool) => {
                let what = format!("what `{name}` asks of each element is no truth value but {}", kind.words());
                bad(what, &format!("compare it: `{name}(result, # > 0)`"))
            }
            ("filter", _) => Ok(first.clone()),
            ("find", _) => Ok(element),
            ("findIndex", _) => Ok(Kind::Any),
            ("count", _) => Ok(Kind::Int),
            _ => Ok(Kind::Bool),
        };
    }
    let is_text = |kind: &Kind| kind.is(&Kind::Text);
    match name {
        "asInt" | "int" | "asFloat" | "float" => match first {
            Kind::Any | Kind::Int | Kind::Float | Kind::Text => {
                Ok(if matches!(name, "asInt" | "int") { Kind::Int } else { Kind::Float })
            }
            // Argo's pair takes anything, and fails when it has it.
            _ if name.starts_with("as") => Ok(if name == "asInt" { Kind::Int } else { Kind::Float }),
            _ => wants("a number or text"),
        },
        "isNaN" | "isInf" if first.is_number() => Ok(Kind::Bool),
        "abs" if first.is_number() => Ok(first.clone()),
        "ceil" | "floor" | "round" if first.is_number() => Ok(Kind::Float),
        "isNaN" | "isInf" | "abs" | "ceil" | "floor" | "round" => wants("a number"),
        "isNil" => Ok(Kind::Bool),
        "default" | "fromJSON" => Ok(Kind::Any),
        "len" => match first {
            Kind::Any | Kind::List(_) | Kind::Text | Kind::Map => Ok(Kind::Int),
            _ => wants("a list, a map or text"),
        },
        "max" | "min" | "mean" | "median" => {
            let numbers =
                |kind: &Kind| list(kind).map_or(kind.is_number(), |item| item.is_number() || list(&item).is_some());
            if !kinds.iter().all(numbers) {
                return wants("numbers");
            }
            Ok(if kinds.len() == 1 && matches!(name, "max" | "min") {
                list(first).unwrap_or(first.clone())
            } else {
                Kind::Any
            })
        }
        "string" | "type" => Ok(Kind::Text),
        "first" | "last" => list(first).map_or_else(|| wants("a list"), Ok),
        "take" if list(first).is_some() => Ok(first.clone()),
        "keys" | "values" if first.is(&Kind::Map) => Ok(Kind::List(Box::new(Kind::Any))),
        "keys" | "values" => wants("a map"),
        "lower" | "upper" | "trim" if is_text(first) => Ok(Kind::Text),
        "split" if kinds.iter().all(is_text) => Ok(Kind::List(Box::new(Kind::Text))),
        "hasPrefix" | "hasSuffix" if kinds.iter().all(is_text) => Ok(Kind::Bool),
        "indexOf" if kinds.iter().all(is_text) => Ok(Kind::Int),
        "lower" | "upper" | "trim" | "split" | "hasPrefix" | "hasSuffix" | "indexOf" => wants("text"),
        "join" if list(first).is_some() => Ok(Kind::Text),
        _ => wants("a list"),
    }
}
