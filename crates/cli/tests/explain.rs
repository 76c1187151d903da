//! What is written down of a rollout: explained, reported, and run once more, on the real program.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod common;

use common::{SERVICE, Spec, World, canary};
use serde_json::Value;

/// A world with 1.0.0 live and 2.0.0 rolled back under load, half of whose answers were errors.
fn with_a_bad_release() -> World {
    let world = World::alone();
    world.write_spec(&Spec { strategy: canary(&[("20%", "2s"), ("50%", "2s")], "1s"), ..Spec::default() });
    world.up();
    world.ship("1.0.0");
    let load = world.load(200);
    world.build("2.0.0", 50);
    world.expect(3, &["deploy", "--version", "2.0.0"]);
    load.end();
    world
}

fn told(world: &World, arguments: &[&str]) -> Value {
    world.expect(0, arguments).json().remove(0)
}

#[test]
fn a_rollout_that_went_back_replays_to_the_bit_also_when_nothing_runs() {
    let world = with_a_bad_release();
    let same = world.expect(0, &["replay", SERVICE, "2"]);
    assert!(same.out.contains("decisions, all the same"), "{}", same.out);
    let while_up = told(&world, &["replay", "2", "--json"]);
    assert_eq!((&while_up["same"], while_up["missed"].as_array().map(Vec::len)), (&Value::Bool(true), Some(0)));
    world.down();
    let while_down = told(&world, &["replay", "#2", "--json"]);
    assert_eq!(while_down, while_up);
}

#[test]
fn a_laxer_objective_would_have_gone_on_and_the_same_spec_comes_out_as_it_happened() {
    let world = with_a_bad_release();
    let spec = std::fs::read_to_string(world.folder().join("evenkeel.yaml")).unwrap();
    let lax = spec.replace("error_rate < 5%", "error_rate < 99%") + "analysis: { tolerate: 50% }\n";
    std::fs::write(world.folder().join("lax.yaml"), lax).unwrap();
    let lax = told(&world, &["replay", "2", "--with", "lax.yaml", "--json"]);
    let happened = lax["happened"]["moments"].as_array().unwrap();
    assert!(happened.iter().any(|moment| moment["text"].as_str().unwrap().starts_with("rolling back: 2.0.0 failed")));
    assert_eq!(lax["instead"]["is_decided"], false, "{lax:#}");
    assert_eq!(lax["instead"]["state"], "watching at 20 %");
    let text = world.expect(0, &["replay", "2", "--with", "lax.yaml"]).out;
    assert!(text.contains("it would have gone on: watching at 20 %"), "{text}");
    assert!(text.contains("not at the shares of this spec"), "{text}");
    // By the very spec it was rolled out with, the same comes out at the same moment; who carried it out first, the proxy
    // or the controller, is nothing that a spec decides.
    let as_it_was = told(&world, &["replay", "2", "--with", "evenkeel.yaml", "--json"]);
    let at = |moments: &Value| {
        let found =
            moments.as_array().unwrap().iter().find(|m| m["text"].as_str().unwrap().starts_with("rolling back"));
        found.map(|moment| {
            (moment["at"].clone(), moment["text"].as_str().unwrap().replace("; the proxy cut r2 off", ""))
        })
    };
    assert_eq!(at(&as_it_was["instead"]["moments"]), at(&as_it_was["happened"]["moments"]));
}

#[test]
fn a_rollout_replays_to_the_bit_although_its_controller_was_killed_in_the_middle() {
    let world = World::alone();
    world.write_spec(&Spec { strategy: canary(&[("20%", "2s"), ("50%", "3s")], "1s"), ..Spec::default() });
    world.up();
    world.ship("1.0.0");
    let load = world.load(200);
    world.begin("2.0.0", 0);
    world.wait_for_state("watching", Some(1));
    world.kill("controller");
    world.up();
    assert_eq!(world.outcome("2.0.0"), "promoted");
    load.end();
    let replayed = told(&world, &["replay", "2", "--json"]);
    assert_eq!(replayed["same"], true, "{replayed:#}");
    let decisions = replayed["decisions"].as_array().unwrap();
    assert!(decisions.iter().all(|decision| decision["outcome"]["agreement"] == "same"), "{replayed:#}");
    assert!(decisions.len() >= 8, "{replayed:#}");
}

#[test]
fn explain_says_why_first_and_its_numbers_are_those_of_the_release_itself() {
    let world = with_a_bad_release();
    let text = world.expect(0, &["explain"]).out;
    let first = text.lines().next().unwrap();
    assert!(first.contains("shop rollout #2, r2 (2.0.0) was taken back"), "{text}");
    assert!(first.contains("2.0.0 failed") && first.contains("harmless rollouts (limit 1 of 100)"), "{text}");
    for part in ["it would have stayed with", "this step: ", "asked for by tester", "detect", "traffic", "verify"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let story = told(&world, &["explain", "--json"])["story"].clone();
    let candidate = &story["whole"][0];
    let answers = world.answers("2.0.0");
    assert_eq!(candidate["requests"].as_u64().unwrap(), answers.len() as u64);
    let failed = answers.iter().filter(|answer| answer.status >= 500).count();
    assert_eq!(candidate["errors"].as_u64().unwrap(), failed as u64);
    let budgets = story["budgets"].as_array().unwrap();
    let parts: Vec<&str> = budgets.iter().map(|budget| budget["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["detect", "traffic", "stop", "verify", "all"]);
    for budget in budgets {
        let (took, limit) = (budget["took_us"].as_u64().unwrap(), budget["limit_us"].as_u64().unwrap());
        assert!(took <= limit, "{budget:#}");
    }
    // The rollback that people see is the one that is explained.
    let rollout = world.rollout().unwrap();
    let moments = rollout["moments"].as_array().unwrap();
    let decided: Vec<&Value> =
        story["decisions"].as_array().unwrap().iter().map(|decision| &decision["text"]).collect();
    assert_eq!(decided, moments.iter().map(|moment| &moment["text"]).collect::<Vec<_>>());
}

#[test]
fn a_report_is_text_json_and_a_page_that_loads_nothing() {
    let world = with_a_bad_release();
    let text = world.expect(0, &["report", SERVICE]).out;
    for part in
        ["both releases while both had a share", "points (95 %:", "It is not the test", "canary, asked for by tester"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let story = told(&world, &["report", "2", "-o", "json"])["story"].clone();
    let arms = story["comparison"]["arms"].as_array().unwrap();
    let rates = [0, 1].map(|arm| arms[arm]["error_rate"].as_f64().unwrap());
    let interval = &story["comparison"]["error_rate"];
    let [low, value, high] = ["low", "value", "high"].map(|end| interval[end].as_f64().unwrap());
    assert!((value - (rates[0] - rates[1])).abs() < 1e-12 && low < value && value < high, "{interval}");
    let page = world.expect(0, &["report", "-o", "html"]).out;
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    for part in ["<svg", "prefers-color-scheme: dark", "rolling back: 2.0.0 failed"] {
        assert!(page.contains(part), "no `{part}` in the page");
    }
    for part in ["<script", "http://", "https://", "<link", "<img", "url("] {
        assert!(!page.contains(part), "`{part}` in the page");
    }
    let other = world.expect(2, &["status", "-o", "html"]);
    assert!(other.err.contains("only `evenkeel report` has a page"), "{}", other.err);
}

#[test]
fn whoever_ends_an_ab_test_is_told_where_its_two_releases_are_compared() {
    let world = World::alone();
    let strategy = "{ ab: { by: visitor, share: 50%, for: 3s, then: promote, bake: 300ms } }".to_owned();
    world.write_spec(&Spec { strategy, ..Spec::default() });
    world.up();
    world.ship("1.0.0");
    let load = world.load(200);
    world.build_slow("1.1.0", 0, 12);
    let ran = world.expect(0, &["deploy", "--version", "1.1.0"]);
    assert_eq!(ran.out.lines().last(), Some("  compare the two: evenkeel report shop 2"), "{}", ran.out);
    load.end().assert_none_failed(&world);

    let text = world.expect(0, &["report", "shop", "2"]).out;
    for part in ["A/B test, asked for by tester", "the two variants, side by side", "r2         r1   difference", "p99"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let comparison = told(&world, &["report", "shop", "2", "-o", "json"])["story"]["comparison"].clone();
    assert_eq!(comparison["is_ab"], true, "{comparison:#}");
    let of = |arm: usize, what: &str| comparison["arms"][arm][what].as_u64().unwrap();
    assert_eq!([0, 1].map(|arm| comparison["arms"][arm]["release"]["version"].clone()), ["1.1.0", "1.0.0"]);
    // Both had users, and each of them was a new visitor: about as many.
    let (ours, theirs) = (of(0, "requests"), of(1, "requests"));
    assert!(ours + theirs >= 300 && ours * 2 > theirs && theirs * 2 > ours, "{comparison:#}");
    // What differs between them is what was built so: ten milliseconds.
    let slower = comparison["latency_us"][0].as_i64().unwrap();
    assert!(slower >= 5_000, "{comparison:#}");
    assert_eq!(slower, of(0, "p50_us").cast_signed() - of(1, "p50_us").cast_signed());
    world.down();
}

#[test]
fn unknown_rollouts_end_with_two_and_say_where_to_look() {
    let world = World::new();
    world.up();
    world.ship("1.0.0");
    for arguments in [["explain", "7"], ["report", "7"], ["replay", "7"]] {
        let ran = world.expect(2, &arguments);
        assert!(ran.err.contains("no rollout #7") && ran.err.contains("evenkeel history shop"), "{}", ran.err);
    }
    let ran = world.expect(2, &["explain", SERVICE, "last"]);
    assert!(ran.err.contains("`last` is no rollout"), "{}", ran.err);
}
