//! The rules of docs/lifecycle.md: their table is true, and those that take real processes hold.

#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{EVENKEEL, Spec, World, canary, processes};
use serde_json::json;

/// Every test of the workspace with how often there is one of that name, but for those that are not run.
fn tests_below(folder: &Path, found: &mut BTreeMap<String, u32>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for (mark, rest) in text.match_indices("#[test]").map(|(at, mark)| (mark, &text[at + mark.len()..])) {
                let head = rest.split_once('{').map_or("", |(head, _)| head);
                let name =
                    head.split_once("fn ").and_then(|(_, name)| name.split_once('(')).map_or("", |(name, _)| name);
                assert!(!head.contains("#[ignore"), "{name} is not run, {mark} or not");
                *found.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}

#[test]
fn every_rule_names_tests_that_exist_and_are_run() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(top.join("docs/lifecycle.md")).unwrap();
    let mut tests = BTreeMap::new();
    tests_below(&top.join("crates"), &mut tests);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule") && !line.starts_with("| ---"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 15, "the table is not read");
    let mut seen = BTreeSet::new();
    for row in rows {
        let (rule, named) = (row[1], row[3]);
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test holds `{rule}`");
        assert!(seen.insert(rule), "`{rule}` stands there twice");
        for name in named {
            assert_eq!(tests.get(name), Some(&1), "`{rule}` names the test {name}");
        }
    }
}

#[test]
fn going_back_brings_back_the_environment_too() {
    let world = World::new();
    let records = |folder: &str| {
        std::fs::create_dir_all(world.folder().join(folder)).unwrap();
        let path = world.folder().join("evenkeel.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let of = |folder: &str| json!(world.folder().join(folder)).to_string();
        std::fs::write(path, text.replace(&of("records"), &of(folder))).unwrap();
    };
    world.write_spec(&Spec { replicas: 1, strategy: canary(&[("50%", "0")], "0"), minimum: 1, ..Spec::default() });
    world.up();
    world.ship("v1");
    records("elsewhere");
    let load = world.load(100);
    world.ship("v2");
    world.expect(0, &["rollback"]);
    load.end().assert_none_failed(&world);
    let environment = |revision| {
        let pid = *world.replicas_of(revision).values().next().unwrap();
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let all = String::from_utf8(bytes).unwrap();
        all.split('\0').find_map(|entry| entry.strip_prefix("DEMO_RECORDS=").map(str::to_owned)).unwrap()
    };
    assert_eq!(environment(1), world.records().to_str().unwrap());
    assert!(world.folder().join("elsewhere").read_dir().unwrap().flatten().count() > 0, "v2 had another environment");
    world.down();
}

/// The stable release is killed and cannot start any more while the candidate turns out to be bad: there is no way back.
#[test]
fn a_way_back_that_cannot_be_gone_calls_people_and_ends_with_four() {
    let world = World::alone();
    let broken = |version: &str| world.folder().join(format!("broken-{version}"));
    let script = format!("test ! -e '{}' || exit 9; exec \"$0\" demo-service", broken("{{version}}").display());
    world.write_spec(&Spec {
        command: json!(["sh", "-c", script, EVENKEEL]).to_string(),
        replicas: 1,
        // Nearly all to the candidate: it is judged before there is enough of stable to say that it fails too.
        strategy: canary(&[("95%", "60s")], "1s"),
        minimum: 10,
        more: "shield: off".into(),
        ..Spec::default()
    });
    world.up();
    world.ship("v1");
    world.build("v2", 100);
    let mut follower = world.spawn(&["deploy", "--version", "v2"]);
    world.wait_for_state("watching", Some(0));
    std::fs::write(broken("v1"), "").unwrap();
    world.replicas_of(1).into_values().for_each(processes::kill);
    world.wait_for("v1 to be down", || world.replicas_of(1).is_empty());
    let load = world.load(50);
    assert_eq!(follower.wait().unwrap().code(), Some(4), "{}", world.logs());
    let rollout = world.rollout().unwrap();
    assert_eq!(rollout["manual_intervention"], true, "{rollout:#}");
    assert_eq!(rollout["waiting"]["until"], serde_json::Value::Null);
    let told = world.expect(0, &["status"]).out;
    assert!(told.contains("people are needed") && told.contains("evenkeel promote --full"), "{told}");

    // What people can do: give the candidate everything, bad as it is, or ship the fix.
    world.ship("v3");
    assert_eq!(world.stable().as_deref(), Some("v3"));
    drop(load);
    world.down();
}
