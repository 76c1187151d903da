//! What people see of a rollout before anything runs.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{Spec, World};
use serde_json::Value;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a command in a folder of its own, without any controller.
fn typed(folder: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(words).current_dir(folder).stdin(Stdio::null()).env_remove("EVENKEEL_STATE").env_remove("NO_COLOR");
    let done = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

fn folder(spec: &str, scenario: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("evenkeel-test.").tempdir().unwrap();
    std::fs::write(folder.path().join("evenkeel.yaml"), spec).unwrap();
    std::fs::write(folder.path().join("s.yaml"), scenario).unwrap();
    folder
}

const SPEC: &str = "
service: shop
command: [/bin/shop]
replicas: 4
listen: 8080
strategy: { canary: { steps: [{ weight: 25%, hold: 1m }], bake: 30s } }
objectives: [\"error_rate < 5%\"]
minimumRequests: 200
";

#[test]
fn one_seed_is_one_story_down_to_the_last_byte() {
    let folder = folder(SPEC, "rate: 200/s\ncandidate: [{ errors: 1% }, { from: 30s, errors: 6% }]");
    let run = |seed, more: &[&str]| {
        let words = ["simulate", "--scenario", "s.yaml", "--seed", seed];
        typed(folder.path(), &[&words[..], more].concat())
    };
    let (first, again, other) = (run("1", &[]), run("1", &[]), run("2", &[]));
    assert_eq!((first.code, &first.out), (again.code, &again.out), "{}", first.err);
    assert_ne!(first.out, other.out);
    let many = run("1", &["--runs", "30"]);
    assert_eq!((many.code, &many.out), (Some(0), &run("1", &["--runs", "30"]).out), "{}", many.err);
    assert!(many.out.contains("30 runs") && many.out.contains("95 % sure"), "{}", many.out);
}

#[test]
fn the_exit_code_and_the_last_line_agree_with_how_it_ended() {
    let cases = [
        ("rate: 200/s", 0, "done: shop (new): promoted: r2 is live after"),
        ("rate: 200/s\ncandidate: { errors: 50% }", 3, "shop (new): rolled back: new failed "),
        ("rate: 200/s\ncommands: [{ at: 10s, do: pause }]", 5, "open: shop (new): paused after"),
        ("rate: 200/s\nlasts: 20s", 5, "open: shop (new): still open after"),
    ];
    for (scenario, code, last) in cases {
        let ran = typed(folder(SPEC, scenario).path(), &["simulate", "--scenario", "s.yaml"]);
        assert_eq!(ran.code, Some(code), "{scenario}\n{}{}", ran.out, ran.err);
        assert!(ran.out.lines().last().unwrap().starts_with(last), "{scenario}\n{}", ran.out);
    }
}

#[test]
fn programs_are_told_the_same_as_people() {
    let folder = folder(SPEC, "rate: 200/s\ncandidate: { errors: 50% }");
    let ran = typed(folder.path(), &["simulate", "--scenario", "s.yaml", "--json", "--svg", "s.svg"]);
    let told: Value = serde_json::from_str(ran.out.trim()).unwrap();
    let story = &told["story"];
    assert_eq!((told["event"].as_str(), story["end"].as_str()), (Some("simulated"), Some("rolled_back")));
    assert!(story["users"]["failed_by_candidate"].as_u64().unwrap() > 0, "{story}");
    assert!(!story["points"].as_array().unwrap().is_empty() && !story["timeline"].as_array().unwrap().is_empty());
    assert!(std::fs::read_to_string(folder.path().join("s.svg")).unwrap().contains("</svg>"));
    let many = typed(folder.path(), &["simulate", "--scenario", "s.yaml", "--json", "--runs", "10"]);
    let many: Value = serde_json::from_str(many.out.trim()).unwrap();
    let ends = &many["many"]["ends"]["rolled_back"];
    assert_eq!((ends["times"].as_u64(), ends["share"].as_f64(), ends["to"].as_f64()), (Some(10), Some(1.0), Some(1.0)));
}

#[test]
fn mistakes_of_a_scenario_are_pointed_at_and_nothing_is_simulated() {
    let folder = folder(SPEC, "rate: 200\ncandidat: { errors: 5% }\n");
    let ran = typed(folder.path(), &["simulate", "--scenario", "s.yaml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    for part in ["s.yaml:1:7", "`rate`: `200` is no rate", "did you mean `candidate`?", "2 mistakes"] {
        assert!(ran.err.contains(part), "`{part}` is not in\n{}", ran.err);
    }
    let none = typed(folder.path(), &["simulate", "--scenario", "none.yaml"]);
    assert_eq!(none.code, Some(2), "{}", none.err);
}

fn planned(strategy: &str, more: &[&str]) -> Ran {
    let kept: String =
        SPEC.lines().filter(|line| !line.starts_with("strategy")).map(|line| format!("{line}\n")).collect();
    let folder = folder(&format!("{kept}strategy: {{ {strategy} }}\n"), "");
    typed(folder.path(), &[&["plan", "--version", "v2"], more].concat())
}

#[test]
fn a_plan_is_told_step_by_step_for_each_strategy() {
    let cases = [
        ("canary: { steps: [{ weight: 25%, hold: 1m }, { weight: 50%, hold: manual }], bake: 30s }", "canary"),
        ("blueGreen: { smoke: [{ path: /ready }], previewReplicas: 1, promotion: 1m, watch: 10m }", "blue-green"),
        ("rolling: { maxSurge: 1, maxUnavailable: 1, pause: 10s, bake: 1m }", "rolling"),
        ("recreate: { bake: 1m }", "recreate"),
        ("ab: { by: visitor, for: 1d }", "ab"),
    ];
    let mut all = String::new();
    for (strategy, name) in cases {
        let ran = planned(strategy, &["--rate", "40/s"]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.err);
        all.push_str(&format!("{name}\n{}\n", ran.out));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans.txt");
    if std::env::var_os("EVENKEEL_GOLDEN").is_some() {
        std::fs::write(&golden, &all).unwrap();
    }
    assert_eq!(std::fs::read_to_string(golden).unwrap(), all, "EVENKEEL_GOLDEN=1 writes it anew");
}

#[test]
fn a_plan_says_where_the_traffic_is_not_enough_and_what_would_be() {
    let canary = "canary: { steps: [{ weight: 5%, hold: 1m }], bake: 30s }";
    let ran = planned(canary, &["--rate", "60/h"]);
    let wanted =
        "step 1 needs 200 requests, which take 66 h 40 min at this traffic: after 1 h 1 min it pauses for people";
    assert!(ran.out.contains(wanted), "{}", ran.out);
    assert!(ran.out.contains("`hold: 4000m` would do"), "{}", ran.out);
    let unknown = planned(canary, &[]);
    assert!(unknown.out.contains("unknown; say it with `--rate 200/s`"), "{}", unknown.out);
    assert!(unknown.out.contains("no controller answers"), "{}", unknown.out);
    assert_eq!(planned(canary, &["--rate", "fast"]).code, Some(2));
}

#[test]
fn programs_are_told_the_plan_too() {
    let ran = planned("canary: { steps: [{ weight: 25%, hold: 1m }], bake: 30s }", &["--rate", "40/s", "--json"]);
    let told: Value = serde_json::from_str(ran.out.trim()).unwrap();
    let plan = &told["plan"];
    assert_eq!((told["is_known"].as_bool(), plan["change"]["kind"].as_str()), (Some(false), Some("update")));
    assert_eq!((plan["steps"][0]["replicas"].as_u64(), plan["steps"][1]["replicas"].as_u64()), (Some(1), Some(4)));
    assert_eq!(
        (plan["steps"][0]["enough_after_ms"].as_u64(), plan["at_least_ms"].as_u64()),
        (Some(20_000), Some(90_000))
    );
    // One more for a minute, four more for half a minute.
    assert!((plan["extra_replica_hours"].as_f64().unwrap() - (1.0 + 2.0) / 60.0).abs() < 1e-9);
}

#[test]
fn a_plan_knows_what_runs_and_touches_nothing() {
    let world = World::new();
    world.up();
    world.build("v1", 0);
    let first = world.expect(0, &["plan", "--version", "v1"]);
    assert!(
        first.out.contains("r1 (v1): the first release; it has all traffic as soon as it is ready"),
        "{}",
        first.out
    );
    world.ship("v1");
    let before = world.service().unwrap();
    let same = world.expect(0, &["plan", "--version", "v1"]);
    assert!(same.out.contains("v1: nothing to do: r1 (v1) is live already"), "{}", same.out);
    world.write_spec(&Spec { replicas: 3, ..Spec::default() });
    let scaled = world.expect(0, &["plan", "--version", "v1"]);
    assert!(scaled.out.contains("the same release goes from 2 to 3 replica(s), without a rollout"), "{}", scaled.out);
    world.write_spec(&Spec::default());
    world.build("v2", 0);
    let load = world.load(100);
    let planned = || world.run(&["plan", "--version", "v2", "--json"]).json().remove(0);
    world.wait_for("traffic to be known", || planned()["plan"]["requests_per_second"].as_f64() > Some(20.0));
    let told = planned();
    assert_eq!((told["is_known"].as_bool(), told["plan"]["revision"].as_u64()), (Some(true), Some(2)), "{told}");
    load.end().assert_none_failed(&world);
    // It was the engine's own plan.
    world.expect(0, &["deploy", "--version", "v2", "--detach"]);
    let rollout = world.rollout_of("v2").unwrap();
    let shares =
        |steps: &Value| steps.as_array().unwrap().iter().map(|step| step["weight"].clone()).collect::<Vec<_>>();
    assert_eq!(shares(&rollout["steps"]), shares(&told["plan"]["steps"]));
    assert_eq!((before["releases"].as_array().unwrap().len(), &before["stable"]), (1, &Value::from(1)));
    world.expect(0, &["abort"]);
    world.down();
}
