//! What the evidence decides on the real program under load.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code, and its figures are shown")]

mod common;

use common::{Spec, World, canary};

#[test]
fn a_dead_candidate_has_no_traffic_a_second_after_its_first_bad_answer() {
    let world = World::alone();
    world.write_spec(&Spec { strategy: canary(&[("10%", "30s")], "1s"), minimum: 50, ..Spec::default() });
    world.up();
    world.ship("v1");
    let load = world.load(1_000);
    world.build("v2", 100);
    let ran = world.expect(3, &["deploy", "--version", "v2"]);
    load.end().assert_only_failed_by("v2", &world);
    assert!(ran.out.contains("v2 fail") && ran.out.contains("harmless rollouts (limit 1 of 100)"), "{}", ran.out);
    let answers = world.answers("v2");
    let first = answers.iter().filter(|answer| answer.status >= 500).map(|answer| answer.answered_us).min().unwrap();
    let last = answers.iter().map(|answer| answer.arrived_us).max().unwrap();
    let took_us = last.saturating_sub(first);
    let bad = answers.iter().filter(|answer| answer.status >= 500).count();
    println!("{} ms from the first bad answer to the last request; {bad} bad answers", took_us / 1_000);
    assert!(took_us <= 1_000_000, "{took_us} µs, {bad} bad answers\n{}", ran.out);
}

#[test]
fn a_successor_of_a_controller_goes_on_with_the_evidence_that_there_is() {
    let world = World::alone();
    world.write_spec(&Spec { strategy: canary(&[("20%", "10m")], "1s"), minimum: 50, ..Spec::default() });
    world.up();
    world.ship("v1");
    let load = world.load(300);
    world.begin("v2", 0);
    let told =
        |world: &World| world.rollout().and_then(|rollout| rollout["verdict"]["verdict"].as_str().map(str::to_owned));
    world.wait_for("enough requests for a pass", || told(&world).as_deref() == Some("pass"));
    // What was counted goes to the store once a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    world.kill("controller");
    world.up();
    world.wait_for("the controller to know its rollout", || {
        world.rollout().is_some_and(|rollout| rollout["state"] == "watching")
    });
    assert_eq!(told(&world).as_deref(), Some("pass"), "its requests are known at once");
    load.end();
}

#[test]
fn a_bad_first_release_stays_and_people_are_called() {
    let world = World::alone();
    world.write_spec(&Spec { more: "firstWatch: 10m".into(), ..Spec::default() });
    world.up();
    let load = world.load(100);
    world.build("v1", 20);
    let ran = world.expect(4, &["deploy", "--version", "v1"]);
    println!("{}", ran.out);
    assert!(ran.out.contains("no release to go back to"), "{}", ran.out);
    assert_eq!(world.rollout().map(|rollout| rollout["manual_intervention"].clone()), Some(true.into()));
    // Users are answered all the while, also while its fix takes over.
    world.build("v2", 0);
    world.expect(0, &["deploy", "--version", "v2"]);
    let records = load.end();
    let served = records.0.iter().skip_while(|record| record.status != 200);
    assert!(served.clone().any(|record| record.version == "v2"));
    let lost: Vec<_> = served.filter(|record| record.has_failed() && record.version != "v1").collect();
    assert!(lost.is_empty(), "{lost:?}");
}
