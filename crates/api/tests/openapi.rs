//! The description of the API and the API are one.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeSet;

use evenkeel_api::problem::Code;
use evenkeel_api::{openapi, routes};
use serde_json::Value;

fn described() -> Value {
    serde_json::from_str(openapi::TEXT).unwrap()
}

/// Every value below a key, at any depth.
fn below<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| below(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| below(value, key, found)),
        _ => {}
    }
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let described = described();
    let paths = described["paths"].as_object().unwrap();
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())))
        .collect();
    let answered = routes::list().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(described, answered.collect::<BTreeSet<_>>());
}

#[test]
fn every_code_of_a_problem_is_described_and_no_other_is() {
    let described = described();
    let schema = &described["components"]["schemas"]["Code"];
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(schema["enum"], serde_json::json!(names));
    for name in names {
        assert!(schema["description"].as_str().unwrap().contains(&format!("- `{name}`: ")), "{name}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let described = described();
    let mut references = Vec::new();
    below(&described, "$ref", &mut references);
    let references: BTreeSet<&str> = references.into_iter().map(|found| found.as_str().unwrap()).collect();
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(described.pointer(pointer).is_some(), "{reference}");
    }
    for schema in described["components"]["schemas"].as_object().unwrap().keys() {
        assert!(references.contains(format!("#/components/schemas/{schema}").as_str()), "{schema} is not used");
    }
}

#[test]
fn operations_have_names_of_their_own_and_their_paths_parameters() {
    let described = described();
    let mut names = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path}");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let named = parameters.filter(|parameter| parameter["$ref"] == "#/components/parameters/service").count();
            assert_eq!(named, path.matches("{service}").count(), "{path}");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{path}");
        }
    }
}

#[test]
fn only_health_and_metrics_are_described_as_open() {
    let described = described();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let is_open = path.starts_with("/health") || path == "/metrics";
        for operation in methods.as_object().unwrap().values() {
            assert_eq!(operation.get("security").is_some(), is_open, "{path}");
        }
    }
}
