//! `docs/promql.md` lists what there is, and nothing else.

use std::collections::BTreeSet;

use evenkeel_promql::{Query, subset};

const REFERENCE: &str = include_str!("../../../docs/promql.md");

/// What stands in backticks in the rows of a table.
fn told(is_row: impl Fn(&str) -> bool, cell: usize) -> BTreeSet<&'static str> {
    let rows = REFERENCE.lines().filter(|line| line.starts_with("| ") && is_row(line));
    let cells = rows.filter_map(|row| row.split('|').nth(cell));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_function_and_nothing_else_is_in_the_reference() {
    let parts = ["| literals", "| selectors", "| samples", "| moved", "| operators", "| which", "| aggregations"];
    let is_function = |row: &str| row.starts_with("| `") && !parts.iter().any(|part| row.starts_with(part));
    assert_eq!(told(is_function, 1), subset::functions().collect());
}

#[test]
fn every_aggregation_and_operator_is_in_the_reference() {
    let mut aggregations = told(|row| row.starts_with("| aggregations"), 2);
    assert!(aggregations.remove("by (…)") && aggregations.remove("without (…)"));
    assert_eq!(aggregations, subset::aggregations().collect());
    assert_eq!(told(|row| row.starts_with("| operators"), 2), subset::operators().collect());
}

#[test]
fn what_the_reference_says_is_left_out_is_refused_by_name() {
    for (query, name) in [
        ("holt_winters(up[5m], 0.5, 0.5)", "holt_winters"),
        ("up + fill(0) up", "fill"),
        ("up{a=\"b\" or a=\"c\"}", "or"),
        ("histogram_sum(up)", "histogram_sum"),
        ("limitk(1, up)", "limitk"),
    ] {
        let bad = Query::parse(query).expect_err(query);
        assert!(
            bad[0].message.contains(&format!("`{name}`")) && bad[0].message.contains("not evaluated"),
            "{}",
            bad[0]
        );
    }
}
