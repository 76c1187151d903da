//! This program in the place of one that runs, under load.

mod common;

use common::World;

#[test]
fn controller_agent_and_proxy_are_replaced_under_load_and_no_request_fails() {
    let world = World::alone();
    world.up();
    world.ship("v1");
    let replicas = world.replicas();
    let load = world.load(200);
    let mut own = ["controller", "agent", "proxy"].map(|role| world.own(role).map(u64::from));
    for round in 0..3 {
        let done = world.expect(0, &["upgrade", "--drain", "5", "--json"]).json();
        let told: Vec<&str> = done.iter().map(|event| event["what"].as_str().unwrap()).collect();
        assert_eq!(told, ["controller", "agent", "proxy"], "round {round}");
        for (event, own) in done.iter().zip(&mut own) {
            assert_eq!(event["from"].as_u64(), *own, "round {round}");
            *own = event["to"].as_u64();
        }
    }
    assert_eq!(world.replicas(), replicas, "nobody else was touched");
    // What comes after goes its usual way.
    world.ship("v2");
    assert_eq!(world.outcome("v2"), "promoted");
    world.expect(0, &["upgrade", "--proxy-only", "--drain", "5"]);
    world.ship("v3");
    let records = load.end();
    records.assert_none_failed(&world);
    world.down();
}
