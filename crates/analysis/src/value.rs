//! What a measurement returned: a number, a truth value, text, a list, a map, or nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a measurement returned.
///
/// Numbers are 64-bit floating point, as in JSON and Prometheus, and may be NaN or infinite. Kept as
/// `{"number":0.5}`, `{"number":"NaN"}`, `{"list":[…]}`, since JSON itself has no such numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Nothing: `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(#[serde(with = "number")] f64),
    /// Text.
    Text(String),
    /// Values in order: one for each series of a vector, for each point of a range.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
}

/// Why a value is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is `null`, or holds `null` in the place of a value.
    Null,
    /// It is an empty list, map or text.
    Empty,
    /// It is not a number, or holds one that is none: zero divided by zero, most often.
    NotANumber,
}

impl Value {
    /// Why nothing can be concluded from it; `None`: it says something.
    ///
    /// Looks into lists of lists. Of maps it looks at numbers alone: an empty list or `null` below a name is something
    /// that an API says on purpose.
    #[must_use]
    pub fn missing(&self) -> Option<Missing> {
        match self {
            Self::Null => Some(Missing::Null),
            Self::Number(number) => number.is_nan().then_some(Missing::NotANumber),
            Self::Text(text) => text.trim().is_empty().then_some(Missing::Empty),
            Self::List(items) if items.is_empty() => Some(Missing::Empty),
            Self::List(items) => items.iter().find_map(Self::missing),
            Self::Map(fields) if fields.is_empty() => Some(Missing::Empty),
            Self::Map(fields) => fields.values().any(Self::holds_nan).then_some(Missing::NotANumber),
            Self::Bool(_) => None,
        }
    }

    /// Tells whether it is or holds a number for which `is` is true.
    pub fn any_number(&self, is: impl Fn(f64) -> bool + Copy) -> bool {
        match self {
            Self::Number(number) => is(*number),
            Self::List(items) => items.iter().any(|item| item.any_number(is)),
            Self::Map(fields) => fields.values().any(|field| field.any_number(is)),
            Self::Null | Self::Bool(_) | Self::Text(_) => false,
        }
    }

    fn holds_nan(&self) -> bool {
        self.any_number(f64::is_nan)
    }

    /// What kind of value it is, as people are told: `a number`, `a list`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// It in at most `chars_max` characters, for people.
    #[must_use]
    pub fn brief(&self, chars_max: usize) -> String {
        let whole = self.to_string();
        if whole.chars().count() <= chars_max {
            return whole;
        }
        whole.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Empty => "empty",
            Self::NotANumber => "not a number (NaN)",
        })
    }
}

impl fmt::Display for Value {
    /// As JSON would have it, with `NaN`, `+Inf` and `-Inf`: `[0.99, NaN]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(is) => write!(f, "{is}"),
            Self::Number(number) if number.is_infinite() => f.write_str(if *number > 0.0 { "+Inf" } else { "-Inf" }),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => {
                f.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Map(fields) => {
                f.write_str("{")?;
                for (place, (name, field)) in fields.iter().enumerate() {
                    write!(f, "{}{name:?}: {field}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    /// A list.
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl From<serde_json::Value> for Value {
    /// Numbers become floating point: integers beyond 2⁵³ lose their last digits, as they do in Argo Rollouts.
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(is) => Self::Bool(is),
            serde_json::Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(items) => items.into_iter().collect(),
            serde_json::Value::Object(fields) => {
                Self::Map(fields.into_iter().map(|(name, field)| (name, field.into())).collect())
            }
        }
    }
}

/// A number as JSON can hold it: those it has no words for are text.
mod number {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Finite(f64),
        Word(String),
    }

    // The signature is serde's.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match *number {
            number if number.is_finite() => serializer.serialize_f64(number),
            number if number.is_nan() => serializer.serialize_str("NaN"),
            number if number > 0.0 => serializer.serialize_str("+Inf"),
            _ => serializer.serialize_str("-Inf"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Finite(number) => Ok(number),
            Written::Word(word) => match word.as_str() {
                "NaN" => Ok(f64::NAN),
                "+Inf" => Ok(f64::INFINITY),
                "-Inf" => Ok(f64::NEG_INFINITY),
                _ => Err(D::Error::custom(format!("`{word}` is no number"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_and_prints_as_json_with_the_numbers_that_json_has_not() {
        let value: Value = serde_json::json!({ "a": [1, 2.5, null], "b": "x\"y", "c": true }).into();
        assert_eq!(value.to_string(), r#"{"a": [1, 2.5, null], "b": "x\"y", "c": true}"#);
        let odd: Value = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().collect();
        assert_eq!(odd.to_string(), "[NaN, +Inf, -Inf]");
        assert_eq!(odd.brief(6), "[NaN,…");
    }

    #[test]
    fn a_value_is_kept_to_the_bit() {
        let numbers = [0.1 + 0.2, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300];
        for value in
            [numbers.into_iter().collect(), Value::Null, Value::Map(BTreeMap::from([("a".into(), true.into())]))]
        {
            let kept = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), value, "{kept}");
        }
        let kept = serde_json::to_string(&Value::Number(f64::NAN)).unwrap();
        assert_eq!(kept, r#"{"number":"NaN"}"#);
        assert!(matches!(serde_json::from_str(&kept), Ok(Value::Number(number)) if number.is_nan()));
    }

    #[test]
    fn nothing_can_be_concluded_from_what_is_empty_null_or_not_a_number() {
        let list = |items: Vec<Value>| Value::List(items);
        let map = |field: Value| Value::Map(BTreeMap::from([("a".to_owned(), field)]));
        let cases = [
            (Value::Null, Some(Missing::Null)),
            (Value::Number(f64::NAN), Some(Missing::NotANumber)),
            (Value::Number(f64::INFINITY), None),
            (Value::Number(0.0), None),
            (" \n".into(), Some(Missing::Empty)),
            (false.into(), None),
            (list(vec![]), Some(Missing::Empty)),
            (list(vec![1.0.into(), f64::NAN.into()]), Some(Missing::NotANumber)),
            (list(vec![list(vec![])]), Some(Missing::Empty)),
            (Value::Map(BTreeMap::new()), Some(Missing::Empty)),
            (map(Value::Null), None),
            (map(list(vec![])), None),
            (map(list(vec![f64::NAN.into()])), Some(Missing::NotANumber)),
        ];
        for (value, missing) in cases {
            assert_eq!(value.missing(), missing, "{value}");
        }
    }
}
