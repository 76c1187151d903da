//! What people see of a rollout before anything runs.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::path::Path;
use std::process::{Command, Stdio};

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
        ("rate: 200/s\ncandidate: { errors: 50% }", 3, "shop (new): rolled back: error_rate is"),
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
