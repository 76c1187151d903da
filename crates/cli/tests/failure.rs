//! The whole program under failure: real processes, real load, and something that dies at the worst moment.

mod common;

use common::World;

#[test]
fn twenty_good_releases_go_live_under_load_and_no_request_fails() {
    let world = World::alone();
    world.up();
    world.ship("v0");
    let load = world.load(400);
    for number in 1..=20 {
        let version = format!("v{number}");
        world.ship(&version);
        assert_eq!(world.outcome(&version), "promoted");
    }
    let records = load.end();
    records.assert_none_failed(&world);
    eprintln!("20 deploys: {} requests, none failed", records.0.len());
    world.down();
}
