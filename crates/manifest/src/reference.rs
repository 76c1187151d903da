//! Keeps `docs/spec.md` true: every key and code is in it, and its examples mean what they show.

use crate::fields::Section;
use crate::{
    Code, access, alerts, balance, checks, dependencies, edge, gates, limits, load, pages, probes, read, routing,
    scenario, service, slos, strategy, theirs, timeouts, triggers, validation,
};

const REFERENCE: &str = include_str!("../../../docs/spec.md");

/// How an example of a section becomes a whole spec: what stands around it, and what must stand beside it.
struct Place {
    section: &'static Section,
    around: (&'static str, &'static str),
    beside: &'static [(&'static str, &'static str)],
}

const NONE: &[(&str, &str)] = &[];

fn places() -> Vec<Place> {
    let place = |section, around, beside| Place { section, around, beside };
    let required: &[(&str, &str)] =
        &[("service", "service: web"), ("command", "command: [bin/web]"), ("listen", "listen: 1")];
    vec![
        place(&service::SERVICE, ("", ""), required),
        place(&edge::TLS, ("tls: {", "}"), &[("certificates", "certificates: [{ certificate: a, key: b }]")]),
        place(&pages::ERROR_PAGES, ("errorPages: {", "}"), NONE),
        place(&timeouts::TIMEOUT, ("timeouts: [{", "}]"), &[("firstByte idle whole", "whole: 1s")]),
        place(&access::ACCESS_LOG, ("accessLog: {", "}"), NONE),
        place(&balance::BALANCE, ("balance: {", "}"), NONE),
        place(&limits::LIMIT, ("limits: [{", "}]"), &[("body rate atOnce", "rate: 1/s")]),
        place(&limits::PER, ("limits: [{ rate: 1/s, per: {", "}}]"), NONE),
        place(
            &edge::CERTIFICATE,
            ("tls: { certificates: [{", "}]}"),
            &[("certificate", "certificate: a"), ("key", "key: b")],
        ),
        place(
            &checks::CHECK,
            ("checks: [{", "}]"),
            &[
                ("name", "name: a"),
                ("metrics prometheus http command file webhook", "metrics: up"),
                ("success failure", "success: \"true\""),
                ("interval", "interval: 1m"),
            ],
        ),
        place(
            &checks::CALL,
            ("afterwards: [{", "}]"),
            &[("name", "name: a"), ("http command webhook", "webhook: \"http://a\"")],
        ),
        place(
            &checks::METRICS,
            ("checks: [{ name: a, success: \"true\", metrics: {", "}}]"),
            &[("query", "query: up")],
        ),
        place(
            &checks::PROMETHEUS,
            ("checks: [{ name: a, success: \"true\", secrets: { p: { env: P }}, prometheus: {", "}}]"),
            &[("address", "address: \"http://a\""), ("query", "query: up")],
        ),
        place(
            &checks::HTTP,
            ("checks: [{ name: a, success: \"true\", secrets: { p: { env: P }}, http: {", "}}]"),
            &[("url", "url: \"http://a\"")],
        ),
        place(&checks::FILE, ("checks: [{ name: a, success: \"true\", file: {", "}}]"), &[("path", "path: a.json")]),
        place(
            &checks::RANGE,
            ("checks: [{ name: a, success: \"true\", metrics: { query: up, range: {", "}}}]"),
            &[("from", "from: 10m"), ("step", "step: 1m")],
        ),
        place(
            &checks::BASIC,
            (
                "checks: [{ name: a, success: \"true\", secrets: { p: { env: P }}, http: { url: \"http://a\", basic: {",
                "}}}]",
            ),
            &[("user", "user: a"), ("password", "password: \"{{secret.p}}\"")],
        ),
        place(
            &checks::OAUTH2,
            (
                "checks: [{ name: a, success: \"true\", secrets: { p: { env: P }}, http: { url: \"http://a\", oauth2: {",
                "}}}]",
            ),
            &[
                ("tokenUrl", "tokenUrl: \"http://a\""),
                ("clientId", "clientId: a"),
                ("clientSecret", "clientSecret: \"{{secret.p}}\""),
            ],
        ),
        place(
            &checks::WEBHOOK,
            ("checks: [{ name: a, success: \"result == true\", webhook: {", "}}]"),
            &[("url", "url: \"http://a\"")],
        ),
        place(&gates::WEBHOOK, ("gates: { checks: [{ name: a, webhook: {", "}}]}"), &[("url", "url: \"http://a/\"")]),
        place(&theirs::REFERENCE, ("strategy: { rollout: {", "}}"), &[("name", "name: web")]),
        place(&checks::SECRET, ("checks: [{ name: a, success: \"true\", metrics: up, secrets: { p: {", "}}}]"), NONE),
        place(&service::STOP, ("stop: {", "}"), NONE),
        place(&service::GROUP, ("group: {", "}"), &[("name", "name: shop")]),
        place(&service::METRICS, ("strategy: { recreate: {} }, metrics: {", "}"), NONE),
        place(&service::SHIELD, ("shield: {", "}"), NONE),
        place(&service::ANALYSIS, ("analysis: {", "}"), NONE),
        place(&service::ENV_FILE, ("env: { A: {", "}}"), NONE),
        place(&service::LOGS, ("logs: {", "}"), NONE),
        place(&service::NOT_ENOUGH, ("notEnough: {", "}"), NONE),
        place(
            &gates::GATES,
            ("artefact: a, gates: {", "}"),
            &[("approvals", "approvals: [{ role: a }]"), ("windows", "windows: [{ timeZone: UTC }]")],
        ),
        place(&gates::APPROVAL, ("gates: { approvals: [{", "}]}"), &[("role", "role: a")]),
        place(&gates::WINDOW, ("gates: { windows: [{", "}]}"), &[("timeZone", "timeZone: UTC")]),
        place(
            &gates::CHECK,
            ("gates: { checks: [{", "}]}"),
            &[("name", "name: a"), ("http tcp command env webhook", "http: \"http://a/\"")],
        ),
        place(
            &gates::RETRY,
            ("gates: { checks: [{ name: a, tcp: \"a:1\", retry: {", "}}]}"),
            &[("every", "every: 1s"), ("within", "within: 1m")],
        ),
        place(&alerts::ALERTS, ("alerts: {", "}"), NONE),
        place(&alerts::SUSTAINED, ("alerts: { sustained: {", "}}"), NONE),
        place(&slos::SLO, ("slos: [{", "}]"), &[("availability latency", "availability: 99%")]),
        place(&slos::LATENCY, ("slos: [{ latency: {", "}}]"), &[("within", "within: 1s"), ("share", "share: 99%")]),
        place(&slos::WHEN_SPENT, ("slos: [{ availability: 99%, whenSpent: {", "}}]"), NONE),
        place(&validation::VALIDATION, ("validation: {", "}"), NONE),
        place(&load::LOAD, ("load: {", "}"), &[("rate", "rate: 1")]),
        place(&triggers::TRIGGERS, ("triggers: {", "}"), NONE),
        place(&triggers::LEVEL, ("triggers: { cpu: {", "}}"), NONE),
        place(&triggers::RESOURCES, ("resources: {", "}"), NONE),
        place(&probes::PROBES, ("probes: {", "}"), NONE),
        place(
            &probes::PROBE,
            ("probes: { readiness: {", "}}"),
            &[("http tcp httpGet tcpSocket exec grpc", "tcp: true")],
        ),
        place(&probes::HTTP_GET, ("probes: { readiness: { httpGet: {", "}}}"), NONE),
        place(
            &probes::HTTP_HEADER,
            ("probes: { readiness: { httpGet: { httpHeaders: [{", "}]}}}"),
            &[("name", "name: a"), ("value", "value: b")],
        ),
        place(&probes::TCP_SOCKET, ("probes: { readiness: { tcpSocket: {", "}}}"), NONE),
        place(&probes::EXEC, ("probes: { readiness: { exec: {", "}}}"), &[("command", "command: [bin/check]")]),
        place(&probes::GRPC, ("probes: { readiness: { grpc: {", "}}}"), NONE),
        place(&strategy::STRATEGY, ("strategy: {", "}"), NONE),
        place(&strategy::CANARY, ("strategy: { canary: {", "}}"), NONE),
        place(
            &strategy::STEP,
            ("strategy: { canary: { steps: [{", "}]}}"),
            &[("weight", "weight: 5%"), ("hold", "hold: 1m")],
        ),
        place(&strategy::BLUE_GREEN, ("strategy: { blueGreen: {", "}}"), NONE),
        place(
            &strategy::SHIFT,
            ("strategy: { blueGreen: { steps: [{", "}]}}"),
            &[("weight", "weight: 5%"), ("hold", "hold: 1m")],
        ),
        place(&strategy::ROLLING, ("strategy: { rolling: {", "}}"), NONE),
        place(&strategy::RECREATE, ("strategy: { recreate: {", "}}"), NONE),
        place(&strategy::AB, ("strategy: { ab: {", "}}"), &[("by", "by: visitor"), ("for", "for: 1d")]),
        place(
            &routing::MATCH,
            ("strategy: { canary: { steps: [{ weight: 0%, hold: 1m, match: [{", "}]}]}}"),
            &[("header cookie query", "header: X-A")],
        ),
        place(&routing::STICKY, ("strategy: { canary: { sticky: {", "}}}"), NONE),
        place(&strategy::SMOKE, ("strategy: { blueGreen: { smoke: [{", "}]}}"), &[("path", "path: /")]),
        place(
            &dependencies::DEPENDENCY,
            ("dependencies: { a: {", "}}"),
            &[
                ("url password ping tls http2", "url: \"https://a\""),
                ("secrets", "secrets: { key: { env: KEY }, db: { env: DB }}"),
            ],
        ),
        place(
            &dependencies::ALTERNATIVE,
            ("dependencies: { a: { url: \"https://a\", secrets: { key: { env: KEY }}, alternatives: [{", "}]}}"),
            &[("url", "url: \"https://b\"")],
        ),
        place(&dependencies::TIMEOUTS, ("dependencies: { a: { url: \"https://a\", timeouts: {", "}}}"), NONE),
        place(&dependencies::RETRIES, ("dependencies: { a: { url: \"https://a\", retry: {", "}}}"), NONE),
        place(
            &dependencies::BREAKER,
            ("dependencies: { a: { url: \"https://a\", breaker: {", "}}}"),
            &[("slow", "slow: 2s")],
        ),
        place(
            &dependencies::CACHE,
            ("dependencies: { a: { url: \"https://a\", cache: {", "}}}"),
            &[("post", "post: [/a]")],
        ),
        place(
            &dependencies::FIXED,
            ("dependencies: { a: { url: \"https://a\", fixed: {", "}}}"),
            &[("body", "body: a")],
        ),
        place(&dependencies::PING, ("dependencies: { a: { url: \"redis://a\", ping: {", "}}}"), NONE),
    ]
}

/// The rows of the table below the heading of a section, cell by cell.
fn rows(reference: &'static str, section: &Section) -> Vec<Vec<&'static str>> {
    let mut lines = reference.lines().skip_while(|line| {
        let heading = line.strip_prefix("## ").unwrap_or_default();
        !heading.eq_ignore_ascii_case(section.what)
    });
    assert!(lines.next().is_some(), "the reference has no heading for {}", section.what);
    let table = lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    table.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()).collect()
}

fn whole(place: &Place, key: &str, example: &str) -> String {
    let beside = |around: &[(&str, &str)], key: &str| -> String {
        let missing = around.iter().filter(|(keys, _)| !keys.split(' ').any(|known| known == key));
        missing.map(|(_, text)| format!("{text}, ")).collect()
    };
    let inner = format!("{}{} {example} {}", place.around.0, beside(place.beside, key), place.around.1);
    match place.around.0 {
        "" => format!("{{ {inner} }}"),
        _ => {
            let listen = if key == "running" { "none" } else { "1" };
            let api = "---\n{ service: api, command: [bin/api], listen: 2, group: shop }\n";
            let fellow = if place.around.0.starts_with("group") { api } else { "" };
            let beside = if place.around.0.starts_with("strategy: { rollout") || key == "rollout" {
                "---\n{ apiVersion: a, kind: Rollout, metadata: { name: web }, spec: { strategy: { canary: {} } } }\n"
            } else if key == "flagger" {
                "---\n{ apiVersion: a, kind: Canary, metadata: { name: web }, spec: { targetRef: { name: web } } }\n"
            } else {
                ""
            };
            format!("{{ service: web, command: [bin/web], listen: {listen}, {inner} }}\n{fellow}{beside}")
        }
    }
}

#[test]
fn every_key_has_a_row_in_the_reference_and_no_row_is_of_a_key_that_nobody_reads() {
    for Place { section, .. } in places() {
        let told: Vec<&str> = rows(REFERENCE, section).into_iter().map(|row| row[0]).collect();
        let mut known = section.keys.to_vec();
        let mut sorted = told.clone();
        known.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(sorted, known, "the table below `{}` in docs/spec.md", section.what);
    }
}

#[test]
fn every_example_of_the_reference_is_a_good_spec() {
    for place in places() {
        for row in rows(REFERENCE, place.section) {
            let [key, _type, _default, _range, meaning, example] = row[..] else { panic!("six cells: {row:?}") };
            assert!(!meaning.is_empty() && example.starts_with(key), "{row:?}");
            let text = whole(&place, key, example);
            assert!(
                read("docs/spec.md", &text).is_ok(),
                "{}",
                read("docs/spec.md", &text).unwrap_err().render(100, false)
            );
        }
    }
    let blocks: Vec<&str> = REFERENCE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        assert!(read("docs/spec.md", block).is_ok(), "{}", read("docs/spec.md", block).unwrap_err().render(100, false));
    }
}

#[test]
fn every_code_is_in_the_reference() {
    for code in Code::ALL {
        assert!(REFERENCE.contains(&format!("| `{}` | ", code.as_str())), "{code:?}");
    }
}

#[test]
fn every_section_of_the_reader_is_looked_at_here() {
    let sources = [
        include_str!("checks.rs"),
        include_str!("dependencies.rs"),
        include_str!("edge.rs"),
        include_str!("alerts.rs"),
        include_str!("gates.rs"),
        include_str!("load.rs"),
        include_str!("access.rs"),
        include_str!("balance.rs"),
        include_str!("pages.rs"),
        include_str!("timeouts.rs"),
        include_str!("limits.rs"),
        include_str!("probes.rs"),
        include_str!("routing.rs"),
        include_str!("service.rs"),
        include_str!("slos.rs"),
        include_str!("strategy.rs"),
        include_str!("theirs/workload.rs"),
        include_str!("triggers.rs"),
        include_str!("validation.rs"),
    ];
    let written: usize = sources.iter().map(|source| source.matches(": Section =").count()).sum();
    assert_eq!(places().len(), written);
}

const SCENARIOS: &str = include_str!("../../../docs/plan-and-simulate.md");

/// The sections of a scenario, each with what stands around an example of it.
fn scenario_places() -> [(&'static Section, &'static str, &'static str); 6] {
    [
        (&scenario::SCENARIO, "", ""),
        (&scenario::RATE, "rate: [{ from: 0s, rate: 1/s, ", "}]"),
        (&scenario::BEHAVIOUR, "candidate: {", "}"),
        (&scenario::TIMES, "candidate: { latency: { p50: 1ms, p99: 2m, ", "}}"),
        (&scenario::FAULT, "faults: [{", "}]"),
        (&scenario::COMMAND, "commands: [{ at: 1s, do: pause, ", "}]"),
    ]
}

/// An example with what must stand beside it; what the example says itself is left out there.
fn whole_scenario(around: (&str, &str), key: &str, example: &str) -> String {
    let beside = |text: &str| -> String {
        let parts = text
            .split_inclusive(", ")
            .filter(|part| !part.trim_start_matches(['[', '{', ' ']).starts_with(&format!("{key}: ")));
        parts.collect()
    };
    let is_fault = around.0.starts_with("faults");
    let more = match key {
        "at" if is_fault => ", dies: stable",
        "dies" | "controller" if is_fault => ", at: 1m",
        "replicas" => ", at: 1m, dies: stable",
        "down" => ", at: 1m, for: 1m",
        "for" => ", at: 1m, down: stable",
        _ => "",
    };
    let (open, inner) = around.0.rfind("{ ").map_or((around.0, ""), |at| around.0.split_at(at + 2));
    let rate = if key == "rate" && around.0.is_empty() || around.0.starts_with("rate") { "" } else { "rate: 1/s, " };
    format!("{{ {rate}{open}{}{example}{more}{} }}", beside(inner), around.1)
}

#[test]
fn every_key_of_a_scenario_has_a_row_with_an_example_that_can_be_read() {
    for (section, before, after) in scenario_places() {
        let rows = rows(SCENARIOS, section);
        let mut told: Vec<&str> = rows.iter().map(|row| row[0]).collect();
        let mut known = section.keys.to_vec();
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known, "the table below `{}` in docs/plan-and-simulate.md", section.what);
        for row in rows {
            let [key, _type, _default, _range, meaning, example] = row[..] else { panic!("six cells: {row:?}") };
            assert!(!meaning.is_empty() && example.starts_with(key), "{row:?}");
            let text = whole_scenario((before, after), key, example);
            let read = crate::read_scenario("docs/plan-and-simulate.md", &text);
            assert!(read.is_ok(), "{text}\n{}", read.unwrap_err().render(100, false));
        }
    }
    let written = include_str!("scenario.rs").matches(": Section =").count();
    assert_eq!(scenario_places().len(), written);
}
