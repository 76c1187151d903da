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
    std::fs::write(world.folder().join("lax.yaml"), spec.replace("error_rate < 5%", "error_rate < 90%")).unwrap();
    let lax = told(&world, &["replay", "2", "--with", "lax.yaml", "--json"]);
    let happened = lax["happened"]["moments"].as_array().unwrap();
    assert!(happened.iter().any(|moment| moment["text"].as_str().unwrap().starts_with("rolling back: error_rate is")));
    assert_eq!(lax["instead"]["is_decided"], false, "{lax:#}");
    assert_eq!(lax["instead"]["state"], "watching at 20 %");
    let text = world.expect(0, &["replay", "2", "--with", "lax.yaml"]).out;
    assert!(text.contains("it would have gone on: watching at 20 %"), "{text}");
    assert!(text.contains("not at the shares of this spec"), "{text}");
    // By the very spec it was rolled out with, the same comes out at the same moment.
    let as_it_was = told(&world, &["replay", "2", "--with", "evenkeel.yaml", "--json"]);
    let at = |moments: &Value| {
        let found =
            moments.as_array().unwrap().iter().find(|m| m["text"].as_str().unwrap().starts_with("rolling back"));
        found.map(|moment| (moment["at"].clone(), moment["text"].clone()))
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
