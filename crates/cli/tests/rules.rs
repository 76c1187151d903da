//! Files of Prometheus rules that a spec names, evaluated by the whole program without a Prometheus.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use common::{Spec, World, canary};
use serde_json::{Value, json};

const RULES: &str = r#"groups:
- name: fast
  interval: 1s
  rules:
  - record: release:requests:rate20s
    expr: |
      sum by (service, release, role) (
        rate(http_requests_total[20s])
      )
  - alert: TooBusy
    expr: release:requests:rate20s{role="canary"} > 10
    for: 2s
    labels: { action: rollback }
    annotations: { summary: "{{ $labels.release }} of {{ $labels.service }} is too busy" }
  - alert: Busy
    expr: sum(rate(http_requests_total[20s])) > 20
    labels: { action: investigate }
"#;

/// A world whose releases nothing but a rule finds bad.
fn world(rules: &str) -> World {
    let world = World::new();
    world.write_spec(&Spec {
        strategy: canary(&[("50%", "1h")], "1s"),
        minimum: 1_000_000,
        more: "alerts: { rules: [rules.yaml] }".into(),
        ..Spec::default()
    });
    std::fs::write(world.folder().join("rules.yaml"), rules).unwrap();
    world
}

fn values(world: &World, query: &str) -> Vec<Value> {
    let answer = world.expect(0, &["query", query, "--json"]).json().remove(0);
    answer["data"]["result"].as_array().unwrap().clone()
}

#[test]
fn an_alert_of_a_rule_file_takes_a_release_back_without_a_prometheus() {
    let world = world(RULES);
    world.up();
    world.ship("1.0.0");
    let load = world.load(100);
    world.begin("2.0.0", 0);
    assert_eq!(world.outcome("2.0.0"), "rolled_back");
    load.end();
    assert_eq!(world.stable().as_deref(), Some("1.0.0"));
    let why = &world.rollout_of("2.0.0").unwrap()["outcome"]["why"];
    assert_eq!(*why, json!({"why": "alert", "name": "TooBusy", "summary": "r2 of shop is too busy"}));
    let alerts = world.service().unwrap()["alerts"].as_array().unwrap().clone();
    let busy =
        alerts.iter().find(|alert| alert["alert"] == "Busy").expect("an alert that names no service is the spec's");
    assert_eq!(busy["result"], "recorded", "{busy:#}");
    // What was recorded, and the alerts themselves, can be asked for.
    assert!(!values(&world, "last_over_time(release:requests:rate20s{role=\"canary\"}[5m]) > 10").is_empty());
    assert!(!values(&world, "last_over_time(ALERTS{alertname=\"TooBusy\",alertstate=\"firing\"}[5m])").is_empty());
    // A file that is mended takes effect without a deploy; what fired by the one before is over.
    std::fs::write(world.folder().join("rules.yaml"), RULES.replace("20\n", "1e9\n").replace("> 10\n", "> 1e9\n"))
        .unwrap();
    world.wait_for("the alerts to be over", || world.service().unwrap()["alerts"] == json!([]));
}

#[test]
fn a_spec_with_a_rule_file_that_has_mistakes_is_refused_before_anything_is_touched() {
    let world = world(&RULES.replace("rate(", "rte("));
    for arguments in [&["check", "evenkeel.yaml"][..], &["deploy", "--version", "1.0.0"]] {
        let ran = world.run(arguments);
        let said = ran.out + &ran.err;
        assert_eq!(ran.code, Some(2), "{said}");
        assert!(said.contains("rules.yaml: 2 mistakes") && said.contains("evenkeel check rules.yaml"), "{said}");
    }
    let told = world.expect(2, &["check", "rules.yaml"]).out;
    assert!(told.contains("there is no function `rte`") && told.contains("did you mean `rate`?"), "{told}");
}
