//! What a successor makes of that which a killed agent has left.

use std::process::{Command, Stdio};

use evenkeel_wire::agent::Ask;
use serde_json::Value;

use crate::world::{World, id, is_alive, kill_hard, wait_for};

#[test]
fn a_successor_adopts_what_runs_and_sees_its_end() {
    let mut world = World::new();
    world.start(1, "sleep 600 & echo $!; wait");
    let (before, child) = (world.replica(1), world.first_line(1).parse().unwrap());
    world.kill_agent();
    world.start_agent();
    assert_eq!(world.replica(1), before, "same process, port and start");
    world.start(1, "echo again");
    assert_eq!(world.replica(1), before, "and its id is still known");

    world.must(Ask::Kill { replica: id(1) });
    assert_eq!(world.exit(1), "exit status unknown");
    wait_for("everything's end", || !is_alive(before.pid) && !is_alive(child));
}

#[test]
fn an_adopted_replica_that_is_terminated_takes_its_children_along() {
    let mut world = World::new();
    world.start(1, "setsid sh -c 'echo $$; exec sleep 600' & sh -c 'trap \"\" TERM; sleep 600' & wait");
    let stray = world.first_line(1).parse().unwrap();
    world.kill_agent();
    world.start_agent();
    world.must(Ask::Terminate { replica: id(1) });
    assert_eq!(world.exit(1), "exit status unknown");
    wait_for("the stray's end", || !is_alive(stray));
}

#[test]
fn what_ended_while_no_agent_looked_has_an_unknown_status_and_leaves_nothing() {
    let mut world = World::new();
    world.start(1, "sleep 600 & echo $!; wait");
    let (leader, child) = (world.replica(1).pid, world.first_line(1).parse().unwrap());
    world.kill_agent();
    kill_hard(leader);
    wait_for("its end", || !is_alive(leader));
    world.start_agent();
    assert_eq!(world.exit(1), "exit status unknown");
    wait_for("the child's end", || !is_alive(child));
}

#[test]
fn an_exit_that_was_seen_is_still_known_to_the_successor() {
    let mut world = World::new();
    world.start(1, "exit 3");
    assert_eq!(world.exit(1), "exit status 3");
    let before = world.replica(1);
    world.kill_agent();
    world.start_agent();
    assert_eq!(world.replica(1), before);
}

#[test]
fn a_stranger_under_a_reused_pid_is_neither_adopted_nor_harmed() {
    let mut world = World::new();
    let mut stranger = Command::new("sleep").arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.start(1, "exec sleep 600");
    world.kill_agent();
    kill_hard(pid_in_marker(&world));
    world.edit_marker(1, |marker| {
        marker["process"]["pid"] = stranger.id().into();
        // Clock ticks are long: both may have started in the same one.
        marker["process"]["start_time"] = 1.into();
    });
    world.start_agent();
    assert_eq!(world.exit(1), "exit status unknown");
    world.must(Ask::Kill { replica: id(1) });
    assert!(is_alive(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_marker_from_before_a_reboot_names_nobody() {
    let mut world = World::new();
    world.start(1, "exec sleep 600");
    world.kill_agent();
    world.edit_marker(1, |marker| marker["process"]["boot_id"] = "another".into());
    world.start_agent();
    assert_eq!(world.exit(1), "exit status unknown");
}

#[test]
fn a_process_whose_spawn_was_not_written_down_is_found_by_its_environment() {
    let mut world = World::new();
    world.start(1, "setsid sleep 600 & wait");
    let before = world.replica(1);
    world.kill_agent();
    world.edit_marker(1, |marker| marker["process"] = Value::Null);
    world.start_agent();
    assert_eq!(world.replica(1), before);
}

#[test]
fn a_start_the_agent_did_not_come_to_is_reported_as_failed() {
    let mut world = World::new();
    world.start(1, "exec sleep 600");
    world.kill_agent();
    let pid = pid_in_marker(&world);
    kill_hard(pid);
    wait_for("its end", || !is_alive(pid));
    world.edit_marker(1, |marker| marker["process"] = Value::Null);
    world.start_agent();
    assert_eq!(world.exit(1), "could not be started: the agent died while starting it");
    assert_eq!(world.replica(1).pid, 0);
}

#[test]
fn a_marker_that_is_not_understood_stops_nobody() {
    let mut world = World::new();
    world.start(1, "exec sleep 600");
    world.start(2, "exec sleep 600");
    let second = world.replica(2);
    world.kill_agent();
    world.edit_marker(1, |marker| marker["format"] = 99.into());
    std::fs::write(world.state().join("replicas/torn.json"), "{").unwrap();
    world.start_agent();
    assert_eq!(world.watch(0, 0).1, [second]);
}

/// The pid in the marker, for when no agent can be asked.
fn pid_in_marker(world: &World) -> u32 {
    let marker: Value = serde_json::from_slice(&std::fs::read(world.marker(1)).unwrap()).unwrap();
    u32::try_from(marker["process"]["pid"].as_u64().unwrap()).unwrap()
}
