//! Triggers of a spec, watched by the whole program.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use common::{Spec, World, canary};

#[test]
fn a_release_that_takes_too_much_memory_is_told_of_and_then_goes_back() {
    let world = World::new();
    world.write_spec(&Spec {
        strategy: canary(&[("50%", "1h")], "1s"),
        replicas: 1,
        more: "resources: { memory: 200MiB }\ntriggers: { memory: { above: 90%, for: 5s } }".into(),
        ..Spec::default()
    });
    world.up();
    world.ship("1.0.0");
    world.build_hoarding("2.0.0", 250);
    world.expect(0, &["deploy", "--version", "2.0.0", "--detach"]);
    assert_eq!(world.outcome("2.0.0"), "rolled_back");
    assert_eq!(world.stable().as_deref(), Some("1.0.0"));
    let why = &world.rollout_of("2.0.0").unwrap()["outcome"]["why"];
    assert_eq!((&why["why"], &why["name"]), (&"alert".into(), &"SustainedMemory".into()), "{why:#}");
    let summary = why["summary"].as_str().unwrap();
    assert!(summary.starts_with("r2 of shop takes 1") && summary.ends_with("above 90 % for 5 s"), "{summary}");
    let explained = world.expect(0, &["explain"]).out;
    assert!(explained.contains("alert SustainedMemory: r2 of shop takes"), "{explained}");
    let told = world.expect(0, &["history", "--json"]).out;
    assert!(told.contains("SustainedMemory"), "{told}");
}
