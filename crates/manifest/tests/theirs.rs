//! Analysis of Argo Rollouts and Flagger beside a service, and alone.

use evenkeel_analysis::condition::Rules;
use evenkeel_core::check::Check;
use evenkeel_core::measure::{Query, Secret};
use evenkeel_manifest::{is_analysis, read, read_analysis};

const TEMPLATE: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: quality }
spec:
  args:
  - name: deployment
  - name: limit
    value: "0.95"
  - name: token
    valueFrom: { secretKeyRef: { name: quality, key: token } }
  dryRun:
  - metricName: slow.*
  metrics:
  - name: success
    interval: 1m
    count: "5"
    successCondition: result[0] >= {{args.limit}}
    failureLimit: 2
    provider:
      prometheus:
        address: http://127.0.0.1:9090
        query: sum(rate(ok{deployment="{{ args.deployment }}"}[1m]))
        timeout: 7
  - name: slowest
    successCondition: asFloat(result) < 2
    provider:
      web:
        url: http://127.0.0.1:9000/slowest
        jsonPath: "{$.seconds}"
        headers: [{ key: Authorization, value: "Bearer {{args.token}}" }]
"#;

fn service(checks: &str) -> String {
    format!("service: web\ncommand: [bin/web]\nlisten: 8080\n{checks}\n---{TEMPLATE}")
}

fn checks_of(text: &str) -> Vec<Check> {
    let mut read = read("evenkeel.yaml", text).unwrap_or_else(|problems| panic!("{}", problems.render(100, false)));
    read.specs.remove(0).checks
}

fn told(text: &str) -> String {
    match read("evenkeel.yaml", text) {
        Ok(read) => read.warnings.render(200, false),
        Err(problems) => problems.render(200, false),
    }
}

#[test]
fn a_template_becomes_checks_with_its_arguments_filled_in() {
    let text = service("checks: [{ template: quality, args: { limit: 0.99 }, from: 2 }]");
    let checks = checks_of(&text);
    let [success, slowest] = &checks[..] else { panic!("{checks:?}") };
    let Query::Prometheus { query, .. } = &success.measure.query else { panic!() };
    assert_eq!(query, "sum(rate(ok{deployment=\"{{deployment}}\"}[1m]))");
    assert_eq!(success.success.as_deref(), Some("result[0] >= 0.99"));
    assert_eq!((success.count, success.failure_limit, success.from_step), (Some(5), Some(2), 1));
    assert_eq!((success.measure.timeout.as_secs(), success.dry_run, success.rules), (7, false, Rules::Evenkeel));
    let Query::Http { json_path, access, .. } = &slowest.measure.query else { panic!() };
    assert_eq!(json_path.as_deref(), Some("$.seconds"));
    assert_eq!(access.headers, [("Authorization".to_owned(), "Bearer {{secret.token}}".to_owned())]);
    assert_eq!(slowest.measure.secrets["token"], Secret::File("secrets/quality/token".into()));
    assert!(slowest.dry_run && slowest.effective_count() == Some(1));
    // What nobody says is filled in with a note; by Argo's rules that is the mistake it is there.
    assert!(told(&text).contains("nobody gives the argument `deployment`: evenkeel fills in {{deployment}}"));
    let argo = told(&service("checks: [{ template: quality, compat: argo }]"));
    assert!(argo.contains("nobody gives the argument `deployment`") && argo.contains("spec::missing_key"), "{argo}");
    let given = checks_of(&service("checks: [{ template: quality, compat: argo, args: { deployment: web-canary } }]"));
    assert!(given.iter().all(|check| check.rules == Rules::Argo));
}

#[test]
fn what_cannot_be_used_is_told_where_it_stands() {
    let cases = [
        ("result[0] >= {{args.limit}}", "results[0] >= 1", "unknown name `results`"),
        ("      web:", "      datadog:", "the provider `datadog` is not supported"),
        ("  dryRun:", "  measurementRetention: []\n  dryRun:", "`measurementRetention` is not used"),
        ("count: \"5\"", "count: \"1\"", "of 1 measurements"),
    ];
    for (from, to, expected) in cases {
        let text = service("checks: [{ template: quality }]").replacen(from, to, 1);
        assert!(told(&text).contains(expected), "{to}: {}", told(&text));
    }
    let unknown = told(&service("checks: [{ template: qualit }]"));
    assert!(unknown.contains("there is no template `qualit`") && unknown.contains("this file describes quality"));
}

#[test]
fn a_file_of_templates_alone_is_checked_too() {
    assert!(is_analysis(TEMPLATE) && !is_analysis(&service("")));
    assert_eq!(read_analysis("quality.yaml", TEMPLATE).unwrap().0, 2);
    let bad = TEMPLATE.replacen("asFloat(result) < 2", "asFloat(result) < ", 1);
    let problems = read_analysis("quality.yaml", &bad).unwrap_err();
    assert!(problems.render(200, false).contains("the condition ends where a value belongs"));
}

const CANARY: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: { name: shop }
spec:
  analysis:
    interval: 30s
    threshold: 5
    maxWeight: 50
    metrics:
    - name: request-success-rate
      thresholdRange: { min: 99 }
    - name: request-duration
      thresholdRange: { max: 500 }
      interval: 2m
    - name: cpu-usage
      thresholdRange: { max: 90 }
    - name: own
      templateRef: { name: own }
      thresholdRange: { min: 1, max: 10 }
---
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: { name: own }
spec:
  provider: { type: prometheus, address: "http://127.0.0.1:9090" }
  query: sum(rate(own{app="{{ target }}"}[{{ interval }}]))
"#;

#[test]
fn a_canary_of_flagger_becomes_checks_and_what_is_no_check_is_named() {
    let text = format!("service: web\ncommand: [bin/web]\nlisten: 8080\nchecks: [{{ template: shop }}]\n---{CANARY}");
    let checks = checks_of(&text);
    assert_eq!(checks.len(), 4);
    assert!(checks.iter().all(|check| check.failure_limit == Some(4) && check.interval.unwrap().as_secs() == 30));
    let said: Vec<&str> = checks.iter().filter_map(|check| check.success.as_deref()).collect();
    assert_eq!(
        said,
        ["last(result) >= 99", "last(result) <= 500", "last(result) <= 90", "last(result) >= 1 && last(result) <= 10"]
    );
    let Query::Metrics { query, .. } = &checks[1].measure.query else { panic!() };
    assert!(query.contains("[2m]") && query.contains("{{release}}"), "{query}");
    let Query::Prometheus { query, .. } = &checks[3].measure.query else { panic!() };
    assert_eq!(query, "sum(rate(own{app=\"{{service}}\"}[1m]))");
    let told = told(&text);
    for expected in ["`maxWeight` is not used", "`cpu-usage` is measured by what evenkeel counts", "request-duration"] {
        assert!(told.contains(expected), "{told}");
    }
    let lost = text.replace("templateRef: { name: own }", "templateRef: { name: lost }");
    assert!(self::told(&lost).contains("there is no MetricTemplate `lost`"));
}
