//! Files of Prometheus rules as people write them: what is read, and what is said of mistakes.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use evenkeel_manifest::{is_rules, read_rules};
use evenkeel_rules::Does;

const GOOD: &str = r#"# What takes a release back.
groups:
- name: rollback
  interval: 15s
  limit: 10
  rules:
  - record: service:errors:ratio
    expr: sum by (service) (rate(http_requests_total{status=~"5.."}[5m])) / sum by (service) (rate(http_requests_total[5m]))
    labels: { team: blue }
  # Errors.
  - alert: HighErrorRate
    expr: |
      (
        service:errors:ratio
      ) > 0.01
    for: 1m
    keep_firing_for: 5m
    labels:
      severity: critical
      action: rollback
    annotations:
      summary: "Errors of {{ $labels.service }}"
      description: "The error rate is {{ $value | humanizePercentage }}."
- name: empty
  rules: []
"#;

#[test]
fn a_file_of_rules_is_read_whole() {
    assert!(is_rules(GOOD) && !is_rules("service: web\n"));
    let read = read_rules("rules.yaml", GOOD).unwrap();
    assert!(read.warnings.is_empty(), "{}", read.warnings.render(100, false));
    let [rollback, empty] = read.groups.as_slice() else { panic!("two groups") };
    assert_eq!((rollback.name.as_str(), rollback.limit, empty.rules.len()), ("rollback", 10, 0));
    assert_eq!(rollback.interval.map(|interval| interval.as_secs()), Some(15));
    let [record, alert] = rollback.rules.as_slice() else { panic!("two rules") };
    assert!(matches!(record.does, Does::Record) && record.name == "service:errors:ratio");
    let Does::Alert { hold, keep, annotations } = &alert.does else { panic!("an alert") };
    assert_eq!((hold.as_secs(), keep.as_secs(), annotations.len(), alert.labels.len()), (60, 300, 2, 2));
}

#[test]
fn the_custom_resource_of_kubernetes_holds_the_same() {
    let inner = GOOD.lines().skip(1).map(|line| format!("  {line}\n")).collect::<String>();
    let text = format!(
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {{ name: rules, labels: {{ a: b }} }}\nspec:\n{inner}"
    );
    assert!(is_rules(&text));
    let read = read_rules("rules.yaml", &text).unwrap();
    assert_eq!(read.groups.iter().map(|group| group.rules.len()).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_with_their_places() {
    let text = r#"groups:
- name: one
  intervall: 15s
  rules:
  - alert: A
    expr: |
      sum(rate(up[5m])) > 0
        and holt_winters(up[5m], 0.5, 0.5) > 1
    for: soon
    annotations: { summary: "{{ $valu }} is high", other: "{{ if $value }}x{{ end }}" }
  - record: "no name"
    expr: up[5m]
    for: 5m
  - alert: B
    record: b
    expr: "rte(up[5m])"
  - expr: up
    severity: critical
  - alert: C
    labels: { "a-b": c, __name__: d }
- name: one
  query_offset: 1m
"#;
    let problems = read_rules("rules.yaml", text).unwrap_err();
    let told: Vec<String> = problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.line_and_column();
            format!("{line}:{column} {problem} ({})", problem.help())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    3:3 a group of rules has no key `intervall` (write `interval`)
    8:13 `holt_winters` is not evaluated by evenkeel (docs/promql.md lists what is; a Prometheus server evaluates all of it)
    9:10 `for`: `soon` is no duration (write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`)
    10:33 `$valu` is not filled in by evenkeel (what can be filled in: `$value`, `$labels.NAME`, and with `|` humanize, humanize1024, humanizeDuration, humanizePercentage, printf, toUpper, toLower, title, stripPort)
    10:63 `if` is not filled in by evenkeel (what can be filled in: `$value`, `$labels.NAME`, and with `|` humanize, humanize1024, humanizeDuration, humanizePercentage, printf, toUpper, toLower, title, stripPort)
    11:13 `no name` cannot be the name of a series (use letters, digits, `_` and `:`, and no digit first)
    12:11 a rule needs a vector or a number (give samples over a while to a function such as `rate`)
    13:5 a series that is recorded has no `for` (leave it out, or write `alert` in place of `record`)
    15:5 `alert` and `record` exclude each other (make two rules of it)
    16:12 there is no function `rte` (did you mean `rate`?)
    17:5 a rule needs the key `alert` or `record` (add `alert: NAME`, or `record: NAME` to keep its values)
    18:5 a rule has no key `severity` (write it below `labels`)
    19:5 a rule needs the key `expr` (add `expr: up == 0`)
    20:15 `a-b` cannot be a name here (use letters, digits and `_`, and no digit first)
    20:25 `__name__` cannot be a name here (use letters, digits and `_`, and no digit first)
    21:9 there are two groups `one` (give one of them another name)
    22:3 a group of rules has no key `query_offset` (write `offset` in the queries; evenkeel's own series are there at once)
    "#);
}

#[test]
fn a_ratio_that_is_always_one_is_a_warning_with_what_was_meant() {
    let text = r#"groups:
- name: one
  rules:
  - alert: HighErrorRate
    expr: |
      (
        rate(http_requests_total{status=~"5.."}[5m]) /
        rate(http_requests_total[5m])
      ) > 0.01
  - alert: Slow
    expr: histogram_quantile(0.95, http_request_duration_seconds) > 0.5
"#;
    let read = read_rules("rules.yaml", text).unwrap();
    let told: Vec<String> = read.warnings.iter().map(|warning| format!("{warning}\n{}", warning.help())).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    both sides have the same `status` where they meet, so this is 1 for every series that it has
    it is evaluated as it is; this is what was meant:
    (sum without (status) (rate(http_requests_total{status=~"5.."}[5m])) / sum without (status) (rate(http_requests_total[5m]))) > 0.01
    `http_request_duration_seconds` has no buckets, so this never has a value
    it is evaluated as it is; this is what was meant:
    histogram_quantile(0.95, rate(http_request_duration_seconds_bucket[5m])) > 0.5
    "#);
}
