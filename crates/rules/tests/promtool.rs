//! What rules make of series over time is what `promtool test rules` makes of them: every alert at every minute with its
//! labels and annotations, and every series that is recorded.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of it is test code")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel_promql::{Limits, Query};
use evenkeel_rules::{Does, Group, Rule, Rulebook, State, Template};
use evenkeel_series::labels::NAME;
use evenkeel_series::{Labels, Sample, Select, Store};
use fastrand::Rng;

const MINUTE: i64 = 60_000;
const MINUTES: i64 = 60;

/// Names and texts.
type Texts = &'static [(&'static str, &'static str)];

/// A rule as it is written: name, query, labels, and for an alert how long it holds and is kept, and its annotations.
struct Written {
    name: &'static str,
    query: &'static str,
    labels: Texts,
    alert: Option<(u64, u64, Texts)>,
}

const RULES: [Written; 9] = [
    Written {
        name: "service:errors:ratio",
        query: "sum by (service) (errors) / sum by (service) (requests)",
        labels: &[],
        alert: None,
    },
    Written { name: "twice", query: "service:errors:ratio * 2", labels: &[("from", "record")], alert: None },
    Written { name: "High", query: "errors > 50", labels: &[("severity", "critical")], alert: Some((0, 0, &[])) },
    Written {
        name: "HighForAWhile",
        query: "errors > 40",
        labels: &[("action", "rollback"), ("who", "{{ $labels.service }}")],
        alert: Some((
            3,
            0,
            &[("summary", "{{ $labels.service }} has {{ $value | humanize }} errors"), ("raw", "{{ $value }}")],
        )),
    },
    Written {
        name: "Kept",
        query: "errors > 60",
        labels: &[],
        alert: Some((0, 4, &[("share", "{{ printf \"%.3f\" $value }}")])),
    },
    Written { name: "HeldAndKept", query: "errors > 30", labels: &[], alert: Some((2, 3, &[])) },
    Written {
        name: "Ratio",
        query: "service:errors:ratio > 0.3",
        labels: &[],
        alert: Some((1, 0, &[("text", "{{ $value | humanizePercentage }} since {{ humanizeDuration 90 }}")])),
    },
    Written { name: "Gone", query: "absent(errors{service=\"api\"})", labels: &[], alert: Some((1, 1, &[])) },
    Written { name: "Many", query: "count(ALERTS{alertstate=\"firing\"}) > 2", labels: &[], alert: Some((1, 0, &[])) },
];

fn group() -> Group {
    let templates = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Template::parse(text).unwrap())).collect()
    };
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let rule = |written: &Written| Rule {
        name: written.name.to_owned(),
        query: Query::parse(written.query).unwrap(),
        labels: templates(written.labels),
        does: match written.alert {
            None => Does::Record,
            Some((hold, keep, texts)) => {
                Does::Alert { hold: minutes(hold), keep: minutes(keep), annotations: templates(texts) }
            }
        },
    };
    Group { name: "all".to_owned(), interval: None, limit: 0, rules: RULES.iter().map(rule).collect() }
}

/// The same rules as a file.
fn file() -> String {
    let mut text = "groups:\n- name: all\n  rules:\n".to_owned();
    let pairs = |pairs: &[(&str, &str)]| {
        let pairs: Vec<String> = pairs.iter().map(|(name, text)| format!("{name}: {text:?}")).collect();
        format!("{{ {} }}", pairs.join(", "))
    };
    for Written { name, query, labels, alert } in &RULES {
        let kind = if alert.is_some() { "alert" } else { "record" };
        let _ = write!(text, "  - {kind}: {name}\n    expr: {query:?}\n    labels: {}\n", pairs(labels));
        if let Some((hold, keep, annotations)) = alert {
            let _ = write!(
                text,
                "    for: {hold}m\n    keep_firing_for: {keep}m\n    annotations: {}\n",
                pairs(annotations)
            );
        }
    }
    text
}

/// A value each minute; `None` where there is no sample, NaN where the series ends.
fn values(rng: &mut Rng) -> Vec<Option<f64>> {
    let mut level = rng.f64() * 100.0;
    let one = |_| {
        level = (level + rng.f64() * 60.0 - 30.0).clamp(1.0, 100.0);
        match rng.u8(0..20) {
            0 => Some(f64::NAN),
            1 | 2 => None,
            _ => Some((level * 8.0).round() / 8.0),
        }
    };
    (0..=MINUTES).map(one).collect()
}

fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> =
        labels.iter().filter(|(name, _)| *name != NAME).map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{}{{{}}}", labels.name(), pairs.join(","))
}

/// What our rules make of some series, as what `promtool` is to expect.
fn expectations(seed: u64) -> String {
    let rng = &mut Rng::with_seed(seed);
    let names = [("errors", "web"), ("errors", "api"), ("requests", "web"), ("requests", "api")];
    let series: Vec<(Labels, Vec<Option<f64>>)> =
        names.map(|(name, service)| (Labels::new([(NAME, name), ("service", service)]), values(rng))).into();
    let mut text = format!("- name: seed {seed}\n  interval: 1m\n  input_series:\n");
    for (labels, values) in &series {
        let written = |value: &Option<f64>| match value {
            None => "_".to_owned(),
            Some(value) if value.is_nan() => "stale".to_owned(),
            Some(value) => value.to_string(),
        };
        let values: Vec<String> = values.iter().map(written).collect();
        let _ = write!(text, "  - series: {:?}\n    values: {:?}\n", shown(labels), values.join(" "));
    }
    let (mut store, mut book) = (Store::default(), Rulebook::new(vec![group()], Duration::from_secs(60)));
    let (mut alerts, mut queries) = (String::new(), String::new());
    for minute in 0..=MINUTES {
        let now = minute * MINUTE;
        for (labels, values) in &series {
            match values[minute as usize] {
                Some(value) if value.is_nan() => store.end(labels, now),
                Some(value) => store.push(labels, Sample { at: now, value }).unwrap(),
                None => {}
            }
        }
        let turn = book.evaluate(&mut store, now, &Limits::default());
        assert_eq!(turn.failed, []);
        for rule in RULES.iter().filter(|rule| rule.alert.is_some()) {
            let _ = write!(alerts, "  - eval_time: {minute}m\n    alertname: {}\n    exp_alerts:\n", rule.name);
            let firing = book.alerts().filter(|(_, alert)| {
                alert.labels.get("alertname") == rule.name && matches!(alert.state, State::Firing { .. })
            });
            for (_, alert) in firing {
                let labels = alert.labels.iter().filter(|(name, _)| *name != "alertname");
                let labels: Vec<String> = labels.map(|(name, value)| format!("{name}: {value:?}")).collect();
                let texts: Vec<String> =
                    alert.annotations.iter().map(|(name, text)| format!("{name}: {text:?}")).collect();
                let (labels, texts) = (labels.join(", "), texts.join(", "));
                let _ = writeln!(alerts, "    - {{ exp_labels: {{ {labels} }}, exp_annotations: {{ {texts} }} }}");
            }
        }
        for query in
            ["ALERTS", "service:errors:ratio", "twice", "errors", "rate(errors[5m])", "avg_over_time(errors[4m])"]
        {
            let found = Query::parse(query).unwrap().at(&store, now, &Limits::default()).unwrap();
            let evenkeel_promql::Value::Vector(points) = found else { panic!("{query}") };
            let _ = write!(queries, "  - expr: {query:?}\n    eval_time: {minute}m\n    exp_samples:\n");
            for point in points {
                let _ = writeln!(queries, "    - {{ labels: {:?}, value: {} }}", shown(&point.labels), point.value);
            }
        }
    }
    assert!(!store.select(&[], 0, i64::MAX, 1_000_000).unwrap().is_empty());
    format!("{text}  alert_rule_test:\n{alerts}  promql_expr_test:\n{queries}")
}

#[test]
fn rules_over_time_are_what_promtool_expects() {
    if !has("promtool", "rules_over_time_are_what_promtool_expects") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), file()).unwrap();
    let tests: String = (1..=20).map(expectations).collect();
    assert!(tests.matches("exp_labels").count() > 500, "alerts fire");
    let tests = format!("rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n{tests}");
    std::fs::write(folder.path().join("tests.yaml"), tests).unwrap();
    let told =
        Command::new("promtool").args(["test", "rules", "tests.yaml"]).current_dir(folder.path()).output().unwrap();
    let all = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    let beginning: String = all.chars().take(6_000).collect();
    assert!(told.status.success(), "{beginning}");
}

/// Whether a program is there; without it a test is skipped loudly, and fails where CI is set.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    let why = format!("{test}: {program} is missing");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{why}, and CI is set");
    eprintln!("\n*** SKIPPED: {why} ***\n");
    if let Some(list) = std::env::var_os("EVENKEEL_SKIPPED") {
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{why}").unwrap();
    }
    false
}
