//! Requests of evenkeel's own, sent by the whole program while a release is on its way.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use common::{Spec, World, canary};

#[test]
fn a_release_without_users_is_judged_by_requests_that_both_releases_get_and_that_end_with_the_rollout() {
    let world = World::new();
    std::fs::write(world.folder().join("traffic.log"), "1.1.1.1 - - [x] \"GET /one HTTP/1.1\" 200 1\nGET /two 3\n")
        .unwrap();
    world.write_spec(&Spec {
        strategy: canary(&[("50%", "1s")], "500ms"),
        minimum: 20,
        more: "load: { rate: 100, ramp: 0, file: traffic.log }".into(),
        ..Spec::default()
    });
    world.up();
    world.ship("1.0.0");
    assert!(world.answers("1.0.0").is_empty(), "nothing is sent while there is nothing to compare");
    let plan = world.expect(0, &["plan"]).out;
    assert!(plan.contains("100 of them are sent (`load`)"), "{plan}");
    // Nobody but evenkeel asks for anything, and the steps want requests.
    world.build("2.0.0", 0);
    world.expect(0, &["deploy", "--version", "2.0.0"]);
    let (new, old) = (world.answers("2.0.0").len(), world.answers("1.0.0").len());
    assert!(new >= 20 && old >= 5, "{new} and {old}: the coin deals them out");
    world.wait_for("the load to end", || world.logs().contains("no more load is sent"));
    // A bad release is found without users, too.
    world.build("3.0.0", 60);
    world.expect(3, &["deploy", "--version", "3.0.0"]);
    assert_eq!(world.stable().as_deref(), Some("2.0.0"));
    let bad = world.run(&["check", "evenkeel.yaml"]);
    assert_eq!(bad.code, Some(0), "{}", bad.out + &bad.err);
    std::fs::write(world.folder().join("traffic.log"), "GET /one\nPOST /two\n").unwrap();
    let bad = world.expect(2, &["check", "evenkeel.yaml"]);
    let said = bad.out + &bad.err;
    assert!(said.contains("line 2: `POST` is not sent") && said.contains("traffic.log"), "{said}");
}
