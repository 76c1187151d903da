//! Replicas from start to forgetting.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use evenkeel_core::release::in_file;
use evenkeel_wire::agent::Ask;

use crate::world::{World, id, is_alive, start, wait_for};

#[test]
fn a_replica_gets_its_port_its_environment_and_nothing_of_the_agents_secrets() {
    let world = World::new();
    world.start(1, "echo \"$PORT|{{port}}|$ADDED|$EVENKEEL_REPLICA|$EVENKEEL_TEST_SECRET|${PATH:+path}\"; exit 3");
    assert_eq!(world.exit(1), "exit status 3");
    let port = world.replica(1).port;
    assert!((20_000..30_000).contains(&port));
    assert_eq!(world.first_line(1), format!("{port}|{port}|at {port}|web-r3-1||path"));
    assert_eq!(fs::metadata(world.log(1)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_port_that_the_launch_gives_is_left_alone() {
    let world = World::new();
    let mut launch = world.script(1, "echo $PORT");
    launch.env.insert("PORT".to_owned(), "80".to_owned());
    world.must(start(launch));
    assert_eq!(world.first_line(1), "80");
}

#[test]
fn a_value_in_a_file_is_read_when_a_replica_starts_and_is_in_no_record() {
    let world = World::new();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "of the file\n").unwrap();
    let mut launch = world.script(1, "echo \"$KEY\"; exec sleep 600");
    launch.env.insert("KEY".to_owned(), in_file(secret.path()));
    world.must(start(launch.clone()));
    assert_eq!(world.first_line(1), "of the file");
    let record = fs::read_to_string(world.marker(1)).unwrap();
    assert!(record.contains("{{file:") && !record.contains("of the file"), "{record}");
    // Without the file nothing is started, and it is told why.
    launch.replica = id(2);
    launch.log = world.log(2);
    launch.env.insert("KEY".to_owned(), in_file(std::path::Path::new("/nowhere/at/all")));
    world.must(start(launch));
    let exit = world.exit(2);
    assert!(exit.contains("could not be started: the value of KEY: /nowhere/at/all: No such file"), "{exit}");
}

#[test]
fn an_id_is_started_once_whatever_became_of_it() {
    let world = World::new();
    world.start(1, "echo started");
    assert_eq!(world.exit(1), "exit status 0");
    world.start(1, "echo again");
    assert_eq!(world.watch(0, 0).1.len(), 1);
    assert_eq!(fs::read_to_string(world.log(1)).unwrap(), "started\n");
}

#[test]
fn running_replicas_have_different_ports() {
    let world = World::new();
    (1..=8).for_each(|launch| world.start(launch, "exec sleep 600"));
    let ports: std::collections::BTreeSet<u16> = (1..=8).map(|launch| world.replica(launch).port).collect();
    assert_eq!(ports.len(), 8);
}

#[test]
fn what_cannot_be_started_says_why_and_is_not_tried_again() {
    let world = World::new();
    let mut launch = world.script(1, "");
    launch.argv = vec!["/no/such/program".to_owned()];
    world.must(start(launch.clone()));
    assert_eq!(world.exit(1), "could not be started: /no/such/program: No such file or directory (os error 2)");
    assert_eq!(world.replica(1).pid, 0);
    world.must(start(launch.clone()));
    assert_eq!(world.watch(0, 0).1.len(), 1);

    launch.replica = id(2);
    launch.directory = "/no/such/directory".into();
    world.must(start(launch.clone()));
    assert_eq!(world.exit(2), "could not be started: the working directory /no/such/directory does not exist");

    launch.replica = id(3);
    launch.directory = "/".into();
    launch.argv.clear();
    world.must(start(launch));
    assert_eq!(world.exit(3), "could not be started: no program is given");
}

#[test]
fn a_terminated_replica_may_end_in_its_own_way() {
    let world = World::new();
    world.start(1, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(world.first_line(1), "ready");
    world.must(Ask::Terminate { replica: id(1) });
    assert_eq!(world.exit(1), "exit status 7");
    world.must(Ask::Terminate { replica: id(1) });
    world.must(Ask::Kill { replica: id(1) });
}

#[test]
fn a_kill_ends_the_replica_and_its_children() {
    let world = World::new();
    world.start(1, "sleep 600 & echo $!; wait");
    let child = world.first_line(1).parse().unwrap();
    world.must(Ask::Kill { replica: id(1) });
    assert_eq!(world.exit(1), "killed by SIGKILL");
    wait_for("the child's end", || !is_alive(child));
}

#[test]
fn a_kill_finds_children_that_left_the_process_group() {
    let world = World::new();
    world.start(1, "setsid sh -c 'echo $$; exec sleep 600' & wait");
    let child = world.first_line(1).parse().unwrap();
    world.must(Ask::Kill { replica: id(1) });
    wait_for("the child's end", || !is_alive(child));
}

#[test]
fn nothing_outlives_the_end_of_a_replicas_first_process() {
    let world = World::new();
    world.start(1, "sleep 600 & a=$!; setsid sleep 600 & echo $a $!");
    let left: Vec<u32> = world.first_line(1).split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(world.exit(1), "exit status 0");
    wait_for("the children's end", || !left.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn replicas_that_nobody_started_are_unknown_but_forgotten_all_the_same() {
    let world = World::new();
    assert_eq!(world.must_not(Ask::Terminate { replica: id(1) }), "no replica web-r3-1 is known");
    assert_eq!(world.must_not(Ask::Kill { replica: id(1) }), "no replica web-r3-1 is known");
    world.must(Ask::Forget { replica: id(1) });
}

#[test]
fn only_an_exited_replica_is_forgotten_with_its_marker() {
    let world = World::new();
    world.start(1, "exec sleep 600");
    assert_eq!(world.must_not(Ask::Forget { replica: id(1) }), "replica web-r3-1 is still running");
    world.must(Ask::Kill { replica: id(1) });
    world.exit(1);
    world.must(Ask::Forget { replica: id(1) });
    assert!(world.watch(0, 0).1.is_empty());
    assert!(!world.marker(1).exists());
}

#[test]
fn a_log_beyond_its_limit_is_cut_over_while_its_replica_writes() {
    let world = World::new();
    let mut launch = world.script(1, "yes evenkeel | head -c 5000; exec sleep 600");
    launch.log_bytes_max = 1_000;
    world.must(start(launch));
    wait_for("the cut", || fs::metadata(world.log(1)).is_ok_and(|log| log.len() == 0) && old(&world).is_some());
    assert_eq!(old(&world), Some(5_000));
}

fn old(world: &World) -> Option<u64> {
    fs::metadata(world.log(1).with_extension("log.1")).ok().map(|log| log.len())
}
