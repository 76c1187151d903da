//! Conditions and measured values, as people write them.

use std::rc::Rc;

use evenkeel_analysis::Value as Measured;
use evenkeel_analysis::condition::{Condition, Kind as KindOfValue};

use crate::problem::{Code, Mistake, Problems};
use crate::yaml::{Kind, Node, Scalar, Sort, documents};

/// Reads a condition that stands alone, called `name`.
///
/// # Errors
/// What is wrong with it, with line and column.
pub fn read_condition(name: &str, text: &str) -> Result<Condition, Problems> {
    Condition::on(text, &KindOfValue::Any).map_err(|bad| {
        let mut problems = Problems::none(name, text);
        problems.add(Mistake::new(Code::BadCondition, bad.at.clone(), bad.what).help(bad.help));
        problems
    })
}

/// Reads a measured value from YAML, called `name`: `.nan`, `.inf`, `null`, numbers, texts, lists, maps. An empty text
/// is `null`.
///
/// # Errors
/// What is wrong with it, with line and column.
pub fn read_value(name: &str, text: &str) -> Result<Measured, Problems> {
    let mut problems = Problems::none(name, text);
    let documents = documents(&mut problems);
    if let Some(second) = documents.get(1) {
        let mistake =
            Mistake::new(Code::BadValue, second.at.clone(), "a measurement is one value, and this is another");
        problems.add(mistake.help("put several values into a list: `[0.9, 0.95]`"));
    }
    if problems.errors() > 0 {
        problems.sort();
        return Err(problems);
    }
    Ok(documents.first().map_or(Measured::Null, value))
}

/// A value of YAML's core schema.
pub(crate) fn value(node: &Rc<Node>) -> Measured {
    match &node.kind {
        Kind::Scalar(scalar) => scalar_value(scalar),
        Kind::List(items) => Measured::List(items.iter().map(value).collect()),
        Kind::Map(pairs) => Measured::Map(pairs.iter().map(|(key, node)| (key.text.clone(), value(node))).collect()),
    }
}

fn scalar_value(scalar: &Scalar) -> Measured {
    let text = scalar.text.as_str();
    let number = |number: Option<f64>| number.map_or_else(|| Measured::from(text), Measured::Number);
    match scalar.sort {
        Sort::Null => Measured::Null,
        Sort::Bool => Measured::Bool(text.eq_ignore_ascii_case("true")),
        Sort::Text => text.into(),
        Sort::Integer | Sort::Decimal => {
            let based = |prefix: &str, radix| {
                text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok()).map(|n| n as f64)
            };
            let (is_negative, unsigned) = (text.starts_with('-'), text.trim_start_matches(['-', '+']));
            match unsigned.to_ascii_lowercase().as_str() {
                ".nan" => Measured::Number(f64::NAN),
                ".inf" => Measured::Number(if is_negative { f64::NEG_INFINITY } else { f64::INFINITY }),
                _ => number(based("0x", 16).or_else(|| based("0o", 8)).or_else(|| text.parse().ok())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_that_yaml_can_write_is_read() {
        let cases = [
            ("", "null"),
            ("~", "null"),
            ("0.99", "0.99"),
            ("-3", "-3"),
            ("0x10", "16"),
            ("1e3", "1000"),
            (".nan", "NaN"),
            (".inf", "+Inf"),
            ("-.INF", "-Inf"),
            ("[0.9, .nan, null]", "[0.9, NaN, null]"),
            ("\"1\"", "\"1\""),
            ("yes", "\"yes\""),
            ("{a: {b: [true]}}", r#"{"a": {"b": [true]}}"#),
            ("[]", "[]"),
            ("- 1\n- x", "[1, \"x\"]"),
        ];
        for (text, expected) in cases {
            assert_eq!(read_value("stdin", text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_or_no_condition_is_told_with_its_place() {
        assert!(
            read_value("stdin", "1\n---\n2").unwrap_err().render(100, false).contains("a measurement is one value")
        );
        assert!(read_value("stdin", "[1").unwrap_err().render(100, false).contains("stdin:1:"));
        let bad = read_condition("--success", "result > 0 &&\nresults < 1").unwrap_err();
        assert_eq!(bad.iter().next().unwrap().line_and_column(), (2, 1));
    }
}
