//! A service in maintenance, and what is written down of its requests: from the commands to the users.

mod common;

use common::processes::signal;
use common::{Spec, World, ask};
use rustix::process::Signal;
use serde_json::Value;

fn lines(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.state().join("logs/access.log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn requests_wait_in_a_maintenance_whoever_dies_meanwhile_and_each_has_its_line_in_the_access_log() {
    let world = World::new();
    world.write_spec(&Spec { more: "accessLog: on".into(), ..Spec::default() });
    world.up();
    world.ship("v1");
    world.expect(0, &["maintenance", "--end"]);
    assert!(world.expect(2, &["maintenance", "--for", "2d"]).err.contains("a maintenance lasts 1 ms to 24 h"));
    let told = world.expect(0, &["maintenance", "--for", "10m", "--wait", "5m"]).out;
    assert!(told.contains("new requests of shop wait, each 5 min at most"), "{told}");
    let listen = world.listen;
    world.wait_for("the maintenance in the status", || {
        world.expect(0, &["status"]).out.contains("maintenance, asked for by")
    });
    let in_force = || world.table().is_some_and(|table| table.services[0].edge.maintenance.is_some());
    world.wait_for("the proxy to know of it", in_force);
    let (proxy, controller) = (world.own("proxy"), world.own("controller"));
    let _ = signal(proxy.unwrap(), Signal::KILL);
    world.another("proxy", proxy);
    let _ = signal(controller.unwrap(), Signal::KILL);
    let user = std::thread::spawn(move || ask(listen, "shop.example", &[]));
    world.up();
    assert!(!user.is_finished(), "it waits although controller and proxy are others");
    world.expect(0, &["maintenance", "--end"]);
    assert_eq!(user.join().unwrap().status, 200);
    assert!(!world.expect(0, &["status"]).out.contains("maintenance"));

    world.wait_for("a line in the access log", || !lines(&world).is_empty());
    let line = lines(&world).pop().unwrap();
    assert_eq!(
        (&line["service"], &line["status"], &line["release"]),
        (&"shop".into(), &200.into(), &1.into()),
        "{line}"
    );
    let log = world.state().join("logs/access.log");
    std::fs::rename(&log, log.with_extension("moved")).unwrap();
    let _ = signal(world.own("proxy").unwrap(), Signal::HUP);
    world.wait_for("a new file of the access log", || {
        ask(listen, "shop.example", &[]);
        !lines(&world).is_empty()
    });
    world.down();
}
