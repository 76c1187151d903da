//! Promises and their budgets, counted and kept by the whole program.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use common::{Spec, World};
use serde_json::Value;

fn budget(world: &World) -> Option<Value> {
    Some(world.service()?["slos"][0]["budget"].clone()).filter(|budget| !budget.is_null())
}

fn bad(world: &World) -> u64 {
    budget(world).and_then(|budget| budget["bad"].as_u64()).unwrap_or(0)
}

#[test]
fn a_spent_budget_refuses_a_deploy_and_a_fix_goes_through_and_a_restart_forgets_nothing() {
    let world = World::new();
    world.write_spec(&Spec {
        more: "slos: [{ availability: 99%, over: 1d }]\ntriggers: off\nshield: off".into(),
        ..Spec::default()
    });
    world.up();
    world.build("1.0.0", 50);
    world.expect(0, &["deploy", "--version", "1.0.0"]);
    let load = world.load(100);
    world.wait_for("the budget to be spent", || bad(&world) >= 50);
    load.end();

    world.build("2.0.0", 0);
    let refused = world.expect(2, &["deploy", "--version", "2.0.0"]);
    let said = refused.out + &refused.err;
    assert!(said.contains("the error budget of `availability` is spent") && said.contains("--skip-gates"), "{said}");
    let service = world.service().unwrap();
    assert_eq!((&service["rollout"]["id"], &service["stable"]), (&1.into(), &1.into()), "nothing was touched");
    let status = world.expect(0, &["status"]).out;
    assert!(status.contains("slo availability: the budget is spent"), "{status}");
    let alerts = service["alerts"].as_array().unwrap();
    assert!(alerts.iter().any(|alert| alert["alert"] == "BudgetBurns" && alert["calls_people"] == true), "{alerts:#?}");
    world.wait_for("the series", || {
        let told = world.run(&["query", "evenkeel_slo_budget_left{slo=\"availability\"} < 0"]).out;
        told.contains("service=\"shop\"")
    });

    let before = bad(&world);
    world.kill("controller");
    world.up();
    world.wait_for("what was counted before", || (1..=before).contains(&bad(&world)));

    let load = world.load(100);
    world.expect(0, &["deploy", "--version", "2.0.0", "--skip-gates", "fixes the outage"]);
    load.end();
    assert_eq!(world.stable().as_deref(), Some("2.0.0"));
    world.expect(0, &["rollback"]);
    assert_eq!(world.stable().as_deref(), Some("1.0.0"), "a way back is never refused");
}

#[test]
fn a_release_that_spent_the_budget_is_not_tried_again() {
    let world = World::new();
    world.write_spec(&Spec {
        more: "slos: [{ availability: 99.9%, over: 1d }]\ntriggers: off\nshield: off".into(),
        ..Spec::default()
    });
    world.up();
    world.ship("1.0.0");
    let load = world.load(100);
    world.build("2.0.0", 50);
    world.expect(3, &["deploy", "--version", "2.0.0"]);
    load.end();
    world.wait_for("the budget to be spent", || {
        world.run(&["status"]).out.contains("availability: the budget is spent")
    });
    let refused = world.expect(2, &["retry"]);
    let said = refused.out + &refused.err;
    assert!(said.contains("the error budget of `availability` is spent"), "{said}");
    let service = world.service().unwrap();
    assert_eq!((&service["rollout"]["id"], &service["stable"]), (&2.into(), &1.into()), "nothing was touched");
}
