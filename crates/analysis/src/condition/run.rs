//! What a condition says of a value.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::parse::{Expr, Node, Operator};
use crate::value::Value;

/// So many parts of a condition are worked out for one value; a check is no program.
const STEPS_MAX: u32 = 2_000_000;

/// A value while a condition is worked out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Val {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<Vec<Val>>),
    Map(Rc<BTreeMap<String, Val>>),
}

impl From<&Value> for Val {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Bool(is) => Self::Bool(*is),
            Value::Number(number) => Self::Float(*number),
            Value::Text(text) => Self::Text(text.as_str().into()),
            Value::List(items) => Self::List(Rc::new(items.iter().map(Self::from).collect())),
            Value::Map(fields) => {
                Self::Map(Rc::new(fields.iter().map(|(name, field)| (name.clone(), field.into())).collect()))
            }
        }
    }
}

impl Val {
    fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Nil => "nothing (nil)",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Nil | Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::Bool(is) => is.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => Value::Number(*number).to_string(),
            Self::Text(text) => text.to_string(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::shown).collect::<Vec<_>>().join(" ")),
            Self::Map(fields) => {
                let field = |(name, field): (&String, &Self)| format!("{name}:{}", field.shown());
                format!("map[{}]", fields.iter().map(field).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// One condition at work on one value.
pub(super) struct Run {
    result: Val,
    steps: Cell<u32>,
    vacuous: Cell<bool>,
    by_zero: Cell<bool>,
}

/// The element that a function looks at, and its place.
type Each<'a> = Option<(&'a Val, usize)>;

impl Run {
    pub(super) fn new(value: &Value) -> Self {
        Self { result: value.into(), steps: Cell::new(0), vacuous: Cell::new(false), by_zero: Cell::new(false) }
    }

    /// Whether something was asked of all elements of a list that had none.
    pub(super) fn is_vacuous(&self) -> bool {
        self.vacuous.get()
    }

    /// Whether something was divided by zero.
    pub(super) fn has_divided_by_zero(&self) -> bool {
        self.by_zero.get()
    }

    /// Whether the condition is true; or why that cannot be said.
    pub(super) fn holds(&self, condition: &Expr) -> Result<bool, String> {
        match self.eval(condition, None)? {
            Val::Bool(is) => Ok(is),
            other => Err(format!("expected bool, but got {}", other.kind())),
        }
    }

    fn eval(&self, expr: &Expr, each: Each<'_>) -> Result<Val, String> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return Err("the condition is too much work on this value".to_owned());
        }
        Ok(match &expr.node {
            Node::Nil => Val::Nil,
            Node::Bool(is) => Val::Bool(*is),
            Node::Int(number) => Val::Int(*number),
            Node::Float(number) => Val::Float(*number),
            Node::Text(text) => Val::Text(text.as_str().into()),
            Node::Result => self.result.clone(),
            Node::Element => each.map_or(Val::Nil, |(element, _)| element.clone()),
            Node::Place => each.map_or(Val::Nil, |(_, place)| Val::Int(place as i64)),
            Node::List(items) => {
                Val::List(Rc::new(items.iter().map(|item| self.eval(item, each)).collect::<Result<_, _>>()?))
            }
            Node::Map(fields) => {
                let fields = fields.iter().map(|(name, field)| Ok((name.clone(), self.eval(field, each)?)));
                Val::Map(Rc::new(fields.collect::<Result<_, String>>()?))
            }
            Node::Member { of, key, is_optional } => {
                let of = self.eval(of, each)?;
                if *is_optional && of == Val::Nil {
                    return Ok(Val::Nil);
                }
                member(&of, &self.eval(key, each)?)?
            }
            Node::Slice { of, from, to } => {
                let of = self.eval(of, each)?;
                let bound = |bound: &Option<Box<Expr>>| bound.as_ref().map(|bound| self.eval(bound, each)).transpose();
                slice(&of, bound(from)?.as_ref(), bound(to)?.as_ref())?
            }
            Node::Not(of) => Val::Bool(!truth(&self.eval(of, each)?, "!")?),
            Node::Minus(of) => match self.eval(of, each)? {
                Val::Int(number) => Val::Int(number.wrapping_neg()),
                Val::Float(number) => Val::Float(-number),
                other => return Err(format!("{} has no sign", other.words())),
            },
            Node::Plus(of) => match self.eval(of, each)? {
                number @ (Val::Int(_) | Val::Float(_)) => number,
                other => return Err(format!("{} has no sign", other.words())),
            },
            Node::If(condition, yes, no) => {
                let is = truth(&self.eval(condition, each)?, "?")?;
                self.eval(if is { yes } else { no }, each)?
            }
            Node::Binary(operator, left, right) => self.binary(*operator, left, right, each)?,
            Node::Call { name, args, each: asked } => {
                let args = args.iter().map(|arg| self.eval(arg, each)).collect::<Result<Vec<_>, _>>()?;
                match asked {
                    Some(asked) => self.of_each(name, &args[0], asked)?,
                    None => self.call(name, &args)?,
                }
            }
        })
    }

    fn binary(&self, operator: Operator, left: &Expr, right: &Expr, each: Each<'_>) -> Result<Val, String> {
        let left = self.eval(left, each)?;
        match operator {
            Operator::Or if truth(&left, "||")? => return Ok(Val::Bool(true)),
            Operator::And if !truth(&left, "&&")? => return Ok(Val::Bool(false)),
            Operator::OrElse if left != Val::Nil => return Ok(left),
            _ => {}
        }
        let right = self.eval(right, each)?;
        let misfit =
            || Err(format!("`{}` does not fit between {} and {}", operator.sign(), left.words(), right.words()));
        let numbers = left.number().zip(right.number());
        Ok(match (operator, &left, &right) {
            (Operator::Or | Operator::And, _, right) => Val::Bool(truth(right, operator.sign())?),
            (Operator::OrElse, _, right) => right.clone(),
            (Operator::Equal, _, _) => Val::Bool(self.equal(&left, &right)?),
            (Operator::NotEqual, _, _) => Val::Bool(!self.equal(&left, &right)?),
            (Operator::In, _, _) => Val::Bool(self.is_in(&left, &right)?),
            (Operator::NotIn, _, _) => Val::Bool(!self.is_in(&left, &right)?),
            (Operator::Below, Val::Text(left), Val::Text(right)) => Val::Bool(left < right),
            (Operator::AtMost, Val::Text(left), Val::Text(right)) => Val::Bool(left <= right),
            (Operator::Above, Val::Text(left), Val::Text(right)) => Val::Bool(left > right),
            (Operator::AtLeast, Val::Text(left), Val::Text(right)) => Val::Bool(left >= right),
            (Operator::Contains, Val::Text(left), Val::Text(right)) => Val::Bool(left.contains(&**right)),
            (Operator::StartsWith, Val::Text(left), Val::Text(right)) => Val::Bool(left.starts_with(&**right)),
            (Operator::EndsWith, Val::Text(left), Val::Text(right)) => Val::Bool(left.ends_with(&**right)),
            (Operator::Matches, Val::Text(left), Val::Text(right)) => {
                let pattern = regex::RegexBuilder::new(right).size_limit(1 << 20).build();
                let pattern = pattern.map_err(|error| format!("`{right}` is no regular expression: {error}"))?;
                Val::Bool(pattern.is_match(left))
            }
            (Operator::Add, Val::Text(left), Val::Text(right)) => {
                if left.len() + right.len() > 1 << 20 {
                    return Err("the condition makes a text of more than 1 MiB".to_owned());
                }
                Val::Text(format!("{left}{right}").into())
            }
            (Operator::Add, Val::Int(left), Val::Int(right)) => Val::Int(left.wrapping_add(*right)),
            (Operator::Subtract, Val::Int(left), Val::Int(right)) => Val::Int(left.wrapping_sub(*right)),
            (Operator::Multiply, Val::Int(left), Val::Int(right)) => Val::Int(left.wrapping_mul(*right)),
            (Operator::Remainder, Val::Int(_), Val::Int(0)) => return Err("integer divide by zero".to_owned()),
            (Operator::Remainder, Val::Int(left), Val::Int(right)) => Val::Int(left.wrapping_rem(*right)),
            (operator, _, _) => {
                let Some((left, right)) = numbers else { return misfit() };
                match operator {
                    Operator::Below => Val::Bool(left < right),
                    Operator::AtMost => Val::Bool(left <= right),
                    Operator::Above => Val::Bool(left > right),
                    Operator::AtLeast => Val::Bool(left >= right),
                    Operator::Add => Val::Float(left + right),
                    Operator::Subtract => Val::Float(left - right),
                    Operator::Multiply => Val::Float(left * right),
                    Operator::Divide => {
                        if right == 0.0 {
                            self.by_zero.set(true);
                        }
                        Val::Float(left / right)
                    }
                    Operator::Power => Val::Float(libm::pow(left, right)),
                    _ => return misfit(),
                }
            }
        })
    }

    /// Counted as work, since lists and maps are compared element by element.
    fn equal(&self, left: &Val, right: &Val) -> Result<bool, String> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return Err("the condition is too much work on this value".to_owned());
        }
        if let Some((left, right)) = left.number().zip(right.number()) {
            return Ok(left == right);
        }
        match (left, right) {
            (Val::List(left), Val::List(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right.iter()) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Val::Map(left), Val::Map(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for ((name, left), (other, right)) in left.iter().zip(right.iter()) {
                    if name != other || !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(left == right),
        }
    }

    fn is_in(&self, what: &Val, within: &Val) -> Result<bool, String> {
        match (what, within) {
            (_, Val::Nil) => Ok(false),
            (_, Val::List(items)) => {
                for item in items.iter() {
                    if self.equal(what, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Val::Text(name), Val::Map(fields)) => Ok(fields.contains_key(&**name)),
            (Val::Nil, Val::Map(_)) => Ok(false),
            _ => Err(format!("`in` does not fit between {} and {}", what.words(), within.words())),
        }
    }

    fn of_each(&self, name: &str, list: &Val, asked: &Expr) -> Result<Val, String> {
        let Val::List(items) = list else {
            return Err(format!("`{name}` wants a list, and this is {}", list.words()));
        };
        let value = |place: usize| self.eval(asked, Some((&items[place], place)));
        let is = |place: usize| match value(place)? {
            Val::Bool(is) => Ok(is),
            other => Err(format!("`{name}` should ask for bool (got {})", other.kind())),
        };
        let first = |wanted: bool| {
            for place in 0..items.len() {
                if is(place)? == wanted {
                    return Ok(Some(place));
                }
            }
            Ok::<_, String>(None)
        };
        let those = || {
            let mut found = Vec::new();
            for place in 0..items.len() {
                if is(place)? {
                    found.push(items[place].clone());
                }
            }
            Ok::<_, String>(found)
        };
        Ok(match name {
            "all" => {
                if items.is_empty() {
                    self.vacuous.set(true);
                }
                Val::Bool(first(false)?.is_none())
            }
            "any" => Val::Bool(first(true)?.is_some()),
            "none" => Val::Bool(first(true)?.is_none()),
            "one" => Val::Bool(those()?.len() == 1),
            "count" => Val::Int(those()?.len() as i64),
            "filter" => Val::List(Rc::new(those()?)),
            "find" => first(true)?.map_or(Val::Nil, |place| items[place].clone()),
            "findIndex" => first(true)?.map_or(Val::Nil, |place| Val::Int(place as i64)),
            "map" => Val::List(Rc::new((0..items.len()).map(value).collect::<Result<_, _>>()?)),
            _ => sum((0..items.len()).map(value))?,
        })
    }

    fn call(&self, name: &str, args: &[Val]) -> Result<Val, String> {
        let first = &args[0];
        let wants = |kind: &str| Err(format!("`{name}` wants {kind}, and this is {}", first.words()));
        let texts = match args {
            [Val::Text(one), Val::Text(other)] => Some((&**one, &**other)),
            _ => None,
        };
        Ok(match (name, first) {
            // Both look at the whole result, whatever they are given: as Argo Rollouts has them.
            ("isNil", _) => Val::Bool(self.result == Val::Nil),
            ("default", _) if self.result == Val::Nil => args[1].clone(),
            ("default", _) => self.result.clone(),
            ("isNaN", value) => match value.number() {
                Some(number) => Val::Bool(number.is_nan()),
                None => return wants("a number"),
            },
            ("isInf", value) => match value.number() {
                Some(number) => Val::Bool(number.is_infinite()),
                None => return wants("a number"),
            },
            ("asInt" | "int", Val::Int(number)) => Val::Int(*number),
            ("asInt" | "int", Val::Float(number)) => Val::Int(*number as i64),
            ("asInt" | "int", Val::Text(text)) => match text.parse() {
                Ok(number) => Val::Int(number),
                Err(_) => return Err(format!("\"{text}\" is no whole number")),
            },
            ("asFloat" | "float", Val::Int(number)) => Val::Float(*number as f64),
            ("asFloat" | "float", Val::Float(number)) => Val::Float(*number),
            ("asFloat" | "float", Val::Text(text)) => match text.parse() {
                Ok(number) => Val::Float(number),
                Err(_) => return Err(format!("\"{text}\" is no number")),
            },
            ("asInt" | "int" | "asFloat" | "float", _) => return wants("a number or text"),
            ("len", Val::List(items)) => Val::Int(items.len() as i64),
            ("len", Val::Map(fields)) => Val::Int(fields.len() as i64),
            ("len", Val::Text(text)) => Val::Int(text.chars().count() as i64),
            ("max" | "min", _) => best(name, args)?,
            ("mean", _) => {
                let numbers = numbers(name, args)?;
                Val::Float(if numbers.is_empty() { 0.0 } else { numbers.iter().sum::<f64>() / numbers.len() as f64 })
            }
            ("median", _) => {
                let mut numbers = numbers(name, args)?;
                numbers.sort_by(f64::total_cmp);
                let middle = numbers.len() / 2;
                Val::Float(match numbers.len() {
                    0 => 0.0,
                    odd if odd % 2 == 1 => numbers[middle],
                    _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
                })
            }
            ("abs", Val::Int(number)) => Val::Int(number.wrapping_abs()),
            ("abs", Val::Float(number)) => Val::Float(number.abs()),
            ("ceil" | "floor" | "round", value) => match (name, value.number()) {
                (_, None) => return wants("a number"),
                ("ceil", Some(number)) => Val::Float(number.ceil()),
                ("floor", Some(number)) => Val::Float(number.floor()),
                (_, Some(number)) => Val::Float(number.round()),
            },
            ("string", value) => Val::Text(value.shown().into()),
            ("type", value) => Val::Text(
                match value.kind() {
                    "float64" => "float",
                    "list" => "array",
                    kind => kind,
                }
                .into(),
            ),
            ("first", Val::List(items)) => items.first().cloned().unwrap_or(Val::Nil),
            ("last", Val::List(items)) => items.last().cloned().unwrap_or(Val::Nil),
            ("take", Val::List(items)) => match &args[1] {
                Val::Int(count) if *count >= 0 => {
                    Val::List(Rc::new(items.iter().take(*count as usize).cloned().collect()))
                }
                _ => return Err("`take` wants how many, as a whole number".to_owned()),
            },
            ("keys", Val::Map(fields)) => {
                Val::List(Rc::new(fields.keys().map(|name| Val::Text(name.as_str().into())).collect()))
            }
            ("values", Val::Map(fields)) => Val::List(Rc::new(fields.values().cloned().collect())),
            ("lower", Val::Text(text)) => Val::Text(text.to_lowercase().into()),
            ("upper", Val::Text(text)) => Val::Text(text.to_uppercase().into()),
            ("trim", Val::Text(text)) => Val::Text(text.trim().into()),
            ("fromJSON", Val::Text(text)) => match serde_json::from_str::<serde_json::Value>(text) {
                Ok(json) => Val::from(&Value::from(json)),
                Err(error) => return Err(format!("`fromJSON`: {error}")),
            },
            ("join", Val::List(items)) => {
                let between = match args.get(1) {
                    Some(Val::Text(text)) => text.clone(),
                    Some(_) => return Err("`join` wants text between the elements".to_owned()),
                    None => "".into(),
                };
                let text = |item: &Val| match item {
                    Val::Text(text) => Ok(text.to_string()),
                    other => Err(format!("`join` wants texts, and one is {}", other.words())),
                };
                Val::Text(items.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(&between).into())
            }
            ("sum", Val::List(items)) => sum(items.iter().cloned().map(Ok))?,
            ("count", Val::List(items)) => {
                let mut count = 0;
                for item in items.iter() {
                    count += i64::from(truth(item, "count")?);
                }
                Val::Int(count)
            }
            (_, _) => match (name, texts) {
                ("split", Some((text, at))) => {
                    Val::List(Rc::new(text.split(at).map(|part| Val::Text(part.into())).collect()))
                }
                ("hasPrefix", Some((text, prefix))) => Val::Bool(text.starts_with(prefix)),
                ("hasSuffix", Some((text, suffix))) => Val::Bool(text.ends_with(suffix)),
                ("indexOf", Some((text, part))) => Val::Int(text.find(part).map_or(-1, |place| place as i64)),
                _ => return wants("something else"),
            },
        })
    }
}

fn truth(value: &Val, sign: &str) -> Result<bool, String> {
    match value {
        Val::Bool(is) => Ok(*is),
        other => Err(format!("`{sign}` wants a truth value, and this is {}", other.words())),
    }
}

fn member(of: &Val, key: &Val) -> Result<Val, String> {
    match (of, key) {
        (Val::Map(fields), Val::Text(name)) => Ok(fields.get(&**name).cloned().unwrap_or(Val::Nil)),
        (Val::List(items), Val::Int(place)) => {
            let found = place_in(*place, items.len()).map(|place| items[place].clone());
            found.ok_or_else(|| match items.len() {
                0 => format!("the list is empty: it has no element {place}"),
                length => format!("index out of range: {place} (the list has {length})"),
            })
        }
        (Val::Text(text), Val::Int(place)) => {
            let bytes = text.as_bytes();
            let found = place_in(*place, bytes.len()).map(|place| Val::Text((bytes[place] as char).to_string().into()));
            found.ok_or_else(|| format!("index out of range: {place}"))
        }
        (Val::Nil, Val::Text(name)) => Err(format!("cannot fetch {name} from nil")),
        (Val::Nil, key) => Err(format!("cannot fetch {} from nil", key.shown())),
        (of, Val::Text(name)) => Err(format!("{} has no `{name}`", of.words())),
        (of, key) => Err(format!("{} has no place {}", of.words(), key.shown())),
    }
}

fn place_in(place: i64, length: usize) -> Option<usize> {
    let place = if place < 0 { i64::try_from(length).ok()?.checked_add(place)? } else { place };
    usize::try_from(place).ok().filter(|place| *place < length)
}

fn slice(of: &Val, from: Option<&Val>, to: Option<&Val>) -> Result<Val, String> {
    let bound = |bound: Option<&Val>, default: usize, length: usize| match bound {
        None => Ok(default),
        Some(Val::Int(place)) => {
            let length = length as i64;
            let place = if *place < 0 { length.saturating_add(*place) } else { *place };
            Ok(place.clamp(0, length) as usize)
        }
        Some(other) => Err(format!("a place in a list is a whole number, and this is {}", other.words())),
    };
    match of {
        Val::List(items) => {
            let to = bound(to, items.len(), items.len())?;
            let from = bound(from, 0, items.len())?.min(to);
            Ok(Val::List(Rc::new(items[from..to].to_vec())))
        }
        Val::Text(text) => {
            let bytes = text.as_bytes();
            let to = bound(to, bytes.len(), bytes.len())?;
            let from = bound(from, 0, bytes.len())?.min(to);
            Ok(Val::Text(String::from_utf8_lossy(&bytes[from..to]).into()))
        }
        other => Err(format!("{} has no parts", other.words())),
    }
}

fn sum(mut values: impl Iterator<Item = Result<Val, String>>) -> Result<Val, String> {
    values.try_fold(Val::Int(0), |total, value| match (total, value?) {
        (Val::Int(total), Val::Int(value)) => Ok(Val::Int(total.wrapping_add(value))),
        (total, value) => match total.number().zip(value.number()) {
            Some((total, value)) => Ok(Val::Float(total + value)),
            None => Err(format!("`sum` wants numbers, and one is {}", value.words())),
        },
    })
}

/// The numbers among arguments, those in lists included.
fn numbers(name: &str, args: &[Val]) -> Result<Vec<f64>, String> {
    let mut found = Vec::new();
    for arg in args {
        match arg {
            Val::List(items) => found.extend(numbers(name, items)?),
            value => match value.number() {
                Some(number) => found.push(number),
                None => return Err(format!("`{name}` wants numbers, and one is {}", value.words())),
            },
        }
    }
    Ok(found)
}

/// The largest or the smallest number; nothing of none. A NaN that comes first stays, as it does in expr-lang.
fn best(name: &str, args: &[Val]) -> Result<Val, String> {
    let mut best: Option<Val> = None;
    for arg in args {
        let candidate = match arg {
            Val::List(items) => match best_of(name, items)? {
                Val::Nil => continue,
                value => value,
            },
            value if value.number().is_some() => value.clone(),
            value => return Err(format!("`{name}` wants numbers, and one is {}", value.words())),
        };
        let is_better = match (&best, candidate.number()) {
            (Some(best), Some(new)) => {
                best.number().is_some_and(|old| if name == "max" { old < new } else { old > new })
            }
            _ => true,
        };
        if is_better {
            best = Some(candidate);
        }
    }
    Ok(best.unwrap_or(Val::Nil))
}

fn best_of(name: &str, items: &[Val]) -> Result<Val, String> {
    best(name, items)
}
