//! Several services that are promoted and rolled back together, as their users meet them: the real program under load.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use common::load::Load;
use common::{EVENKEEL, World};
use serde_json::{Value, json};

/// `api` on the world's address and `web`, which comes after it, where previews would be.
fn write_spec(world: &World) {
    let records = json!(world.records());
    let service = |name: &str, listen, group: &str| {
        format!(
            "service: {name}\ncommand: [{}, demo-service]\nartefact: {name}/release.json\nenv: {{ DEMO_RECORDS: {records}, DEMO_RELEASE: {name}/release.json }}\n\
             replicas: 2\nlisten: {listen}\nprobes: {{ readiness: {{ http: /health, periodSeconds: 1 }} }}\n\
             strategy: {{ canary: {{ steps: [{{ weight: 50%, hold: 500ms }}], bake: 500ms }} }}\n\
             objectives: [error_rate < 5%]\nminimumRequests: 5\nstop: {{ drain: 5s, grace: 5s }}\n\
             group: {group}\n",
            json!(EVENKEEL)
        )
    };
    let api = service("api", world.listen, "market");
    let web = service("web", world.preview, "{ name: market, after: [api] }");
    std::fs::write(world.folder().join("evenkeel.yaml"), format!("{api}---\n{web}")).unwrap();
}

fn build(world: &World, service: &str, version: &str, fail_percent: u8) {
    let folder = world.folder().join(service);
    std::fs::create_dir_all(&folder).unwrap();
    let behaviour = json!({"version": version, "fail_percent": fail_percent, "delay_ms": 2});
    std::fs::write(folder.join("release.json"), behaviour.to_string()).unwrap();
}

/// The services' stable versions, and how their last rollouts stand.
fn standing(world: &World) -> Vec<(String, String)> {
    let overview = world.overview().unwrap();
    let of = |service: &Value| {
        let stable = &service["stable"];
        let releases = service["releases"].as_array().unwrap();
        let version = releases.iter().find(|release| release["revision"] == *stable).unwrap()["version"].clone();
        (version.as_str().unwrap().to_owned(), service["rollout"]["state"].as_str().unwrap().to_owned())
    };
    overview["services"].as_array().unwrap().iter().map(of).collect()
}

/// Both services live at 1.0, with users.
fn market() -> (World, [Load; 2]) {
    let world = World::alone();
    write_spec(&world);
    ["api", "web"].iter().for_each(|service| build(&world, service, "1.0", 0));
    world.up();
    world.expect(0, &["deploy", "--group", "market", "--version", "1.0"]);
    let load = [world.listen, world.preview].map(|address| Load::at(&world, address, 100));
    (world, load)
}

#[test]
fn a_group_is_promoted_together_in_order_and_taken_back_together() {
    let (world, load) = market();
    ["api", "web"].iter().for_each(|service| build(&world, service, "1.1", 0));
    let ran = world.expect(0, &["deploy", "--group", "market", "--version", "1.1"]);
    let at = |what: &str| ran.out.find(what).unwrap_or_else(|| panic!("no `{what}` in\n{}", ran.out));
    assert!(at("api  r2 is through") < at("web  starting r2"), "{}", ran.out);
    assert!(at("web  r2 is through") < at("api  r2 is stable"), "{}", ran.out);
    let live = |version: &str| vec![(version.to_owned(), "promoted".to_owned()); 2];
    assert_eq!(standing(&world), live("1.1"));

    let again = world.expect(0, &["deploy", "--group", "market", "--version", "1.1"]);
    assert!(again.err.is_empty() && again.out.contains("live already"), "{}{}", again.out, again.err);

    let back = world.expect(0, &["rollback", "--group", "market"]);
    assert!(back.out.contains("done"), "{}", back.out);
    let begun = |name: &str| {
        let overview = world.overview().unwrap();
        let services = overview["services"].as_array().unwrap().clone();
        let service = services.into_iter().find(|service| service["service"] == name).unwrap();
        assert_eq!(service["rollout"]["kind"], "back", "{service:#}");
        service["rollout"]["started"].as_u64().unwrap()
    };
    assert!(begun("web") < begun("api"), "who comes after others goes back before them");
    assert_eq!(standing(&world), live("1.0"));
    for load in load {
        load.end().assert_none_failed(&world);
    }
}

#[test]
fn when_one_service_of_a_group_is_bad_none_is_promoted() {
    let (world, load) = market();
    build(&world, "api", "1.1", 0);
    build(&world, "web", "1.1", 50);
    let ran = world.expect(3, &["deploy", "--group", "market", "--version", "1.1"]);
    let (_, why) = ran.out.split_once("`web` of the same group goes back: ").unwrap_or_else(|| panic!("{}", ran.out));
    // Its share of failures is over the limit, and as soon as that is known, more fail than beside it: either comes first.
    assert!(why.starts_with("error_rate") || why.lines().next().unwrap().contains("1.1 failed"), "{}", ran.out);
    assert!(ran.out.contains("explain web"), "the one that is bad is named: {}", ran.out);
    let nothing = world.expect(2, &["rollback", "--group", "market"]);
    assert!(nothing.err.contains("nothing to go back to"), "{}", nothing.err);
    let back: Vec<String> = standing(&world).into_iter().map(|(version, _)| version).collect();
    assert_eq!(back, ["1.0", "1.0"]);
    for load in load {
        // The good release of `api` failed nobody, and what the bad one of `web` failed was its own doing.
        load.end().assert_only_failed_by("1.1", &world);
    }
}

#[test]
fn a_controller_that_dies_in_the_middle_of_a_group_goes_on_with_it() {
    let (world, load) = market();
    ["api", "web"].iter().for_each(|service| build(&world, service, "1.1", 0));
    world.expect(0, &["deploy", "--group", "market", "--version", "1.1", "--detach"]);
    let state = |name: &str| {
        let overview = world.overview()?;
        let services = overview["services"].as_array()?.clone();
        let service = services.into_iter().find(|service| service["service"] == name)?;
        Some(service["rollout"]["state"].as_str()?.to_owned())
    };
    world.wait_for("api to wait for web", || {
        state("api").is_some_and(|state| state.starts_with("waiting for its group to be"))
    });
    world.kill("controller");
    world.up();
    world.wait_for("both to be promoted", || {
        ["api", "web"].iter().all(|name| state(name).is_some_and(|state| state == "promoted"))
    });
    for load in load {
        load.end().assert_none_failed(&world);
    }
}
