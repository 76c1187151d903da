use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

fn json(text: &str) -> Value {
    match text {
        "NaN" => Value::Number(f64::NAN),
        "+Inf" => Value::Number(f64::INFINITY),
        "-Inf" => Value::Number(f64::NEG_INFINITY),
        "[NaN]" => Value::List(vec![Value::Number(f64::NAN)]),
        "[0.99, NaN]" => Value::List(vec![Value::Number(0.99), Value::Number(f64::NAN)]),
        text => serde_json::from_str::<serde_json::Value>(text).unwrap().into(),
    }
}

fn conditions(success: &str, failure: &str) -> Conditions {
    let condition = |text: &str| (!text.is_empty()).then(|| Condition::new(text).unwrap());
    Conditions { success: condition(success), failure: condition(failure) }
}

/// `true`, `false` or `error`, as Argo Rollouts has it.
fn argo(condition: &str, value: &str) -> &'static str {
    let value = json(value);
    match Condition::new(condition).map_err(|bad| bad.what).and_then(|c| c.holds(&value, &Run::new(&value))) {
        Ok(true) => "true",
        Ok(false) => "false",
        Err(_) => "error",
    }
}

/// Every condition of Argo Rollouts' examples, documentation and tests, on values of the kind that its provider gives.
#[test]
fn what_argos_users_wrote_means_what_it_means_there() {
    let table = [
        ("true", "1", "true"),
        ("false", "1", "false"),
        ("1", "1", "error"),
        ("invalidVar == true", "true", "error"),
        ("invalidVariable", "true", "error"),
        ("a == true", "true", "error"),
        ("result.Name() == 'hi'", r#"{"Name":"hi"}"#, "error"),
        ("result == true", "true", "true"),
        ("result == true", "false", "false"),
        ("result == true", "1", "error"),
        ("result == false", "false", "true"),
        ("result == 10", "10", "true"),
        ("result != 10", "10", "false"),
        ("result > 0", "1", "true"),
        ("result > 1", "1", "false"),
        ("result > 1", "\"2\"", "error"),
        ("result <= 0", "0", "true"),
        ("result < 0.001", "0", "true"),
        ("result >= 0.001", "0", "false"),
        ("result < 0.05", "0.05", "false"),
        ("result <= 0.01", "0.01", "true"),
        ("result >= 0.95", "0.95", "true"),
        ("result >= 0.95", "[0.95]", "error"),
        ("result >= 0.95", "null", "error"),
        ("result >= 0.95", "NaN", "false"),
        ("result >= 0.95", "+Inf", "true"),
        ("result >= 0.9 || isNaN(result)", "NaN", "true"),
        ("isNaN(result) || result >= 0.95", "0.9", "false"),
        ("isInf(result)", "-Inf", "true"),
        ("isInf(result)", "\"Inf\"", "error"),
        ("result == \"true\"", "\"true\"", "true"),
        ("result == 'true'", "true", "error"),
        ("result == \"true\"", "1", "error"),
        ("result == \"I am OK\"", "\"I am OK\"", "true"),
        ("result == 'It worked!'", "\"no\"", "false"),
        ("result == 'test: notJson'", "\"test: notJson\"", "true"),
        ("asInt(result) > 0", "\"1\"", "true"),
        ("asInt(result) == 1", "1.9", "true"),
        ("asInt(result) == 1.1", "1.1", "false"),
        ("asInt(result) > 0", "\"1.5\"", "error"),
        ("asInt(result) > 0", "null", "error"),
        ("asFloat(result) > 1.1", "\"1.2\"", "true"),
        ("asFloat(result) == \"1.1\"", "\"1.1\"", "error"),
        ("asFloat(result) == 1", "\"1\"", "true"),
        ("asFloat(result) >= 1", "true", "error"),
        ("default(result, 0) < 0.05", "null", "true"),
        ("default(result, 1) < 0.05", "null", "false"),
        ("default(result, 1) < 0.05", "0.01", "true"),
        ("default(7, 1) < 0.05", "0.01", "true"),
        ("isNil(3)", "null", "true"),
        ("result[0] > 0", "[1]", "true"),
        ("result[0] >= 0.90", "[]", "error"),
        ("result[0] >= 0.95", "[0.94, 1]", "false"),
        ("result[1] <  20", "[1, 19]", "true"),
        ("result[-1] <  20", "[1, 21]", "false"),
        ("result[0] 10.000000", "[1]", "error"),
        ("results[0] >= 90.000000", "[1]", "error"),
        ("len(result) == 0 || result[0] >= 0.95", "[]", "true"),
        ("len(result) > 0 && result[0] >= 0.95", "[]", "false"),
        ("len(result) != 2", "[1, 2]", "false"),
        ("len(result) > 2", "1", "error"),
        ("2 in result", "[1, 2]", "true"),
        ("10.000000 in result", "[10]", "true"),
        ("10.000000 not in result", "[10]", "false"),
        ("all(result, # > 10)", "[11, 12]", "true"),
        ("all(result, # < 10)", "[9, 10]", "false"),
        ("all(result, # < 10)", "[]", "true"),
        ("all(result, # + 1)", "[1]", "error"),
        ("any(result, {# > 5})", "[1, 6]", "true"),
        ("any(result, {# > 6})", "[]", "false"),
        ("max(result) < 0.05", "[0.01, 0.04]", "true"),
        ("max(result) < 5", "[]", "error"),
        (
            "all(result.service_apdex.values.values, {# > 1})",
            r#"{"service_apdex":{"values":{"values":[2,3]}}}"#,
            "true",
        ),
        (
            "all(result.service_apdex.values.values, {asFloat(.value) >= 9900})",
            r#"{"service_apdex":{"values":{"values":[{"value":"9900"},{"value":9899}]}}}"#,
            "false",
        ),
        ("len(result[0].Values) >= 5 and all(result[0].Values, {# <= 0.01})", r#"[{"Values":[0,0,0,0,0]}]"#, "true"),
        ("result[0].Values[0] == 0.1", r#"[{"Values":[0.1]}]"#, "true"),
        ("result[0].Values[0] == 0.1", r#"[{"Values":[]}]"#, "error"),
        (
            "result.a > 0 && result.b && all(result.c, {# < 5}) && result.d == nil",
            r#"{"a":1,"b":true,"c":[1,4],"d":null}"#,
            "true",
        ),
        ("result.a >= 2 && result.b", r#"{"a":1,"b":true}"#, "false"),
        ("result.a > 0 && result.b", r#"{"a":1}"#, "error"),
        ("result.a > 0", r#"{"b":1}"#, "error"),
        (
            "result.num > 1.1 && result.bool && result.mapfield.foo == \"bar\"",
            r#"{"num":1.2,"bool":true,"mapfield":{"foo":"bar"}}"#,
            "true",
        ),
        ("result.ok && result.successPercent >= 0.90", r#"{"ok":true,"successPercent":0.9}"#, "true"),
        ("result.major == '1'", r#"{"major":1}"#, "false"),
        ("result.Status == -1", r#"{"Status":-1}"#, "true"),
        ("result.count == 10 and result['average.duration'] < 15.0", r#"{"count":10,"average.duration":14}"#, "true"),
        ("result.count != 10 or result['average.duration'] >= 15.0", r#"{"count":10,"average.duration":14}"#, "false"),
        ("result[2].count < 20", r#"[{},{},{"count":19}]"#, "true"),
        ("result.missing.deeper > 1", r#"{"a":1}"#, "error"),
        ("result?.missing?.deeper == nil", r#"{"a":1}"#, "true"),
        ("result matches '^v[0-9]+$'", "\"v12\"", "true"),
        ("result > 1 ? result < 3 : false", "2", "true"),
        ("not (result > 1)", "2", "false"),
        ("!(result > 1) || result == 2", "2", "true"),
        ("result | asFloat() > 1", "\"2\"", "error"),
        ("filter(result, # > 1) | len() == 1", "[1, 2]", "error"),
        ("len(filter(result, # > 1)) == 1", "[1, 2]", "true"),
        ("result[0] + 1 * 2 ** 3 == 9", "[1]", "true"),
        ("-result[0] < 0", "[1]", "true"),
        ("result[0:2] == [1, 2]", "[1, 2, 3]", "true"),
        ("count(result, # > 0.5) >= 2", "[0.6, 0.7, 0.1]", "true"),
        ("sum(result) / len(result) < 0.5", "[0.2, 0.4]", "true"),
        ("'a' in result", r#"{"a":1}"#, "true"),
        ("5 in result", r#"{"a":1}"#, "error"),
    ];
    for (condition, value, expected) in table {
        assert_eq!(argo(condition, value), expected, "{condition} of {value}");
    }
}

#[test]
fn one_measurement_is_judged_as_argo_does_and_missing_data_is_never_a_pass_by_our_rules() {
    use Said::{Error, Failed, Inconclusive, Successful};
    let table = [
        // success, failure, value, Argo's, ours
        ("", "", "1", Successful, Successful),
        ("", "", "null", Successful, Error),
        ("result > 1", "", "2", Successful, Successful),
        ("result > 1", "", "1", Failed, Failed),
        ("", "result > 1", "2", Failed, Failed),
        ("", "result > 1", "1", Successful, Successful),
        ("result > 1", "result > 5", "6", Failed, Failed),
        ("result > 1", "result > 5", "2", Successful, Successful),
        ("result > 1", "result < 0", "0.5", Inconclusive, Inconclusive),
        ("result > 1", "nope > 5", "2", Error, Error),
        // NaN
        ("result >= 0.95", "", "NaN", Failed, Error),
        ("", "result < 0.95", "NaN", Successful, Error),
        ("result >= 0.95", "result < 0.9", "NaN", Inconclusive, Error),
        ("isNaN(result) || result >= 0.95", "", "NaN", Successful, Error),
        ("", "isNaN(result)", "NaN", Failed, Failed),
        ("result[0] >= 0.95", "", "[0.99, NaN]", Successful, Error),
        // No data, empty results.
        ("result[0] >= 0.95", "", "[]", Error, Error),
        ("all(result, # < 1)", "", "[]", Successful, Error),
        ("len(result) == 0 || result[0] >= 0.95", "", "[]", Successful, Error),
        ("len(result) > 0 && result[0] >= 0.95", "", "[]", Failed, Error),
        ("", "len(result) == 0", "[]", Failed, Failed),
        ("default(result, 0) < 0.05", "", "null", Successful, Error),
        ("result == \"\"", "", "\"\"", Successful, Error),
        ("all(result.values, # < 1)", "", r#"{"values":[],"ok":true}"#, Successful, Error),
        ("len(result.errors) == 0", "", r#"{"errors":[]}"#, Successful, Successful),
        // Infinity.
        ("result >= 0.95", "", "+Inf", Successful, Error),
        ("result < 5", "", "+Inf", Failed, Failed),
        ("isInf(result)", "", "+Inf", Successful, Successful),
    ];
    for (success, failure, value, argos, ours) in table {
        let conditions = conditions_or_none(success, failure);
        let Some(conditions) = conditions else {
            assert_eq!((argos, ours), (Error, Error), "{success} / {failure}");
            continue;
        };
        assert_eq!(conditions.judge(&json(value), Rules::Argo).phase, argos, "Argo: {success} / {failure} of {value}");
        assert_eq!(
            conditions.judge(&json(value), Rules::Evenkeel).phase,
            ours,
            "ours: {success} / {failure} of {value}"
        );
    }
}

fn conditions_or_none(success: &str, failure: &str) -> Option<Conditions> {
    let is_good = |text: &str| text.is_empty() || Condition::new(text).is_ok();
    (is_good(success) && is_good(failure)).then(|| conditions(success, failure))
}

#[test]
fn a_verdict_says_what_it_rests_on() {
    let said = |success: &str, failure: &str, value: &str| {
        conditions(success, failure).judge(&json(value), Rules::Evenkeel).message
    };
    let cases = [
        (said("result[0] >= 0.95", "", "[0.9]"), "`result[0] >= 0.95` is false: result is [0.9]"),
        (said("result > 2", "result < 1", "1.5"), "neither `result > 2` nor `result < 1` is true: result is 1.5"),
        (said("result[0] > 1", "", "[]"), "no data: the result is empty: []"),
        (said("", "result > 1", "NaN"), "no data: the result is not a number (NaN), which is never a pass: NaN"),
        (said("result == 'a'", "", "1"), "`==` does not fit between a number and text"),
    ];
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
}

#[test]
fn a_mistake_is_named_with_its_place_and_what_would_be_right_before_anything_is_measured() {
    let numbers = Kind::numbers();
    let cases = [
        ("results[0] >= 0.95", &numbers, "unknown name `results`", 0..7),
        ("result >= 0.95", &numbers, "`>=` does not fit between a list of numbers and a number", 0..14),
        ("result[0].value > 1", &numbers, "a number has no `value`", 0..15),
        ("result.value > 1", &numbers, "a list has no `value`: its elements have places", 0..12),
        ("result[0] 10.5", &numbers, "`10.5` is not expected here", 10..14),
        ("result[0]", &numbers, "a condition is true or false, and this is neither", 0..9),
        ("al(result, # > 1)", &numbers, "unknown function `al`", 0..2),
        ("all(result)", &numbers, "`all` has the wrong number of arguments", 0..11),
        ("all(result, #)", &numbers, "what `all` asks of each element is no truth value but a number", 0..14),
        ("isNaN(result)", &numbers, "`isNaN` wants a number, and this is a list of numbers", 6..12),
        ("result[0] = 1", &numbers, "`=` is not expected here", 10..11),
        ("result[0] > 1 &", &numbers, "`&` means nothing here", 14..15),
        ("result[0] > 'x", &numbers, "this text does not end", 12..13),
        ("result[0] > ", &numbers, "the condition ends where a value belongs", 12..12),
        ("# > 1", &numbers, "`#` stands for an element of a list, and this is inside of no function", 0..1),
        ("result[0] > 0.9.5", &numbers, "`0.5` is not expected here", 15..17),
        ("not result[0] > 1", &numbers, "`!` and `not` want a truth value, and this is a number", 0..13),
        ("1..3 == result", &numbers, "`..` is not expected here", 1..3),
        ("repeat('x', 1e9) == ''", &numbers, "unknown function `repeat`", 0..6),
    ];
    for (text, kind, what, at) in cases {
        match Condition::on(text, kind) {
            Err(bad) => assert_eq!((bad.what.as_str(), bad.at), (what, at), "{text}"),
            Ok(_) => panic!("{text} was taken"),
        }
    }
}

#[test]
fn a_condition_that_passes_without_data_is_known_beforehand() {
    let passes =
        |success: &str, failure: &str| conditions(success, failure).passes_without_data(&Kind::numbers()).is_some();
    assert!(passes("all(result, # < 1)", ""));
    assert!(passes("", "result[0] > 0.05"));
    assert!(!passes("result[0] >= 0.95", ""));
    assert!(!passes("len(result) > 0 && result[0] >= 0.95", ""));
}

#[test]
fn no_nesting_takes_long_or_overflows_anything() {
    let deep = ["(", "[", "{a:", "a[", "all(result,", "!", "-", "1?", "result[", "result|all("];
    for part in deep {
        for count in [10, 60, 400] {
            let text = part.repeat(count);
            assert!(Condition::new(&text).is_err(), "{part}");
        }
    }
    let work = format!("all(result, all(result, any(result, {})))", "# > 1 || ".repeat(20) + "false");
    let value: Value = (0..1_000).map(f64::from).collect();
    let judged = Conditions { success: Some(Condition::new(&work).unwrap()), failure: None }.judge(&value, Rules::Argo);
    assert_eq!((judged.phase, judged.message.as_str()), (Said::Error, "the condition is too much work on this value"));
}

/// The same condition and value by the crate `expr-lang`; `None` where it does not say.
///
/// It is not asked where it is otherwise than the language: NaN equals NaN there, and an element that a list does not
/// have is nothing in place of an error.
fn by_the_crate(condition: &str, value: &Value) -> Option<bool> {
    fn convert(value: &Value) -> expr::Value {
        match value {
            Value::Null => expr::Value::Nil,
            Value::Bool(is) => expr::Value::Bool(*is),
            Value::Number(number) => expr::Value::Float(*number),
            Value::Text(text) => expr::Value::String(text.clone()),
            Value::List(items) => expr::Value::Array(items.iter().map(convert).collect()),
            Value::Map(fields) => fields.iter().map(|(name, field)| (name.clone(), convert(field))).collect(),
        }
    }
    let mut context = expr::Context::default();
    context.insert("result", convert(value));
    match expr::eval(condition, &context) {
        Ok(expr::Value::Bool(is)) => Some(is),
        Ok(_) | Err(_) => None,
    }
}

fn operand() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("result[0]".to_owned()),
        Just("result[1]".to_owned()),
        Just("len(result)".to_owned()),
        Just("max(result)".to_owned()),
        Just("min(result)".to_owned()),
        Just("sum(result)".to_owned()),
        (0_u32..20).prop_map(|number| number.to_string()),
        (0_u32..40).prop_map(|number| format!("{}.5", number)),
    ]
}

fn arithmetic() -> impl Strategy<Value = String> {
    let sign = prop::sample::select(vec!["+", "-", "*", "/"]);
    operand().prop_recursive(3, 8, 2, move |inner| {
        (inner.clone(), sign.clone(), inner).prop_map(|(left, sign, right)| format!("{left} {sign} {right}"))
    })
}

fn truth() -> impl Strategy<Value = String> {
    let compare = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let join = prop::sample::select(vec!["&&", "||", "and", "or"]);
    let ask = prop::sample::select(vec!["all", "any", "none", "one"]);
    let leaf = prop_oneof![
        (arithmetic(), compare.clone(), arithmetic()).prop_map(|(left, sign, right)| format!("{left} {sign} {right}")),
        (ask, compare, operand()).prop_map(|(ask, sign, right)| format!("{ask}(result, # {sign} {right})")),
        operand().prop_map(|left| format!("{left} in result")),
        operand().prop_map(|left| format!("{left} not in result")),
    ];
    leaf.prop_recursive(3, 12, 2, move |inner| {
        prop_oneof![
            (inner.clone(), join.clone(), inner.clone())
                .prop_map(|(left, sign, right)| format!("{left} {sign} {right}")),
            inner.clone().prop_map(|of| format!("!({of})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(of, yes, no)| format!("(({of}) ? ({yes}) : ({no}))")),
        ]
    })
}

proptest! {
    #[test]
    fn where_the_crate_expr_lang_says_something_it_says_the_same(
        condition in truth(),
        value in prop::collection::vec((-3_i32..20).prop_map(|n| f64::from(n) / 2.0), 2..5),
    ) {
        let value: Value = value.into_iter().collect();
        if let Some(theirs) = by_the_crate(&condition, &value) {
            let ours = Condition::new(&condition).map_err(|bad| bad.what).and_then(|c| c.holds(&value, &Run::new(&value)));
            prop_assert_eq!(ours, Ok(theirs), "{} of {}", condition, value);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic_and_places_lie_on_characters(text in "[a-z#.()\\[\\]{}|&!<>=?:,'\"0-9 \\-ä]{0,60}") {
        match Condition::new(&text) {
            Err(bad) => prop_assert!(text.get(bad.at).is_some()),
            Ok(condition) => {
                let map = Value::Map(BTreeMap::from([("a".to_owned(), Value::Null)]));
                for value in [Value::Null, Value::Number(1.0), Value::List(vec![Value::Number(2.0)]), map, "x".into()] {
                    let _ = condition.holds(&value, &Run::new(&value));
                }
            }
        }
    }
}
