//! Tokens, watches, broken clients, the shutdown.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use evenkeel_core::ids::FencingToken;
use evenkeel_wire::agent::{Answer, Ask};
use evenkeel_wire::frame;

use crate::stand_in;
use crate::world::{World, id, is_alive, now, start, wait_for};

#[test]
fn an_old_token_is_refused_also_by_a_successor() {
    let mut world = World::new();
    assert!(matches!(world.ask_as(7, Ask::Hello), Answer::Done));
    for _ in 0..2 {
        let answer = world.ask_as(6, start(world.script(1, "exec sleep 600")));
        assert!(matches!(answer, Answer::OldToken { highest: FencingToken(7) }), "{answer:?}");
        world.kill_agent();
        world.start_agent();
    }
    let Answer::Replicas { replicas, .. } = world.ask_as(7, Ask::Watch { seen: 0, wait_ms: 0 }) else { panic!() };
    assert!(replicas.is_empty());
}

#[test]
fn a_watch_returns_when_something_changes_and_not_before() {
    let world = World::new();
    let (seen, none) = world.watch(0, 0);
    assert!(none.is_empty());
    let begin = now();
    assert_eq!(world.watch(seen, 50), (seen, none));
    assert!(begin.elapsed().as_millis() >= 50);

    let (version, replicas) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| world.watch(seen, 10_000));
        world.start(1, "exec sleep 600");
        watch.join().unwrap()
    });
    assert!(version > seen && replicas.len() == 1 && replicas[0].exit.is_none());
    let begin = now();
    world.must(Ask::Kill { replica: id(1) });
    let (_, replicas) = world.watch(version, 10_000);
    assert!(replicas[0].exit.is_some() && begin.elapsed().as_secs() < 5);
}

#[test]
fn versions_grow_from_one_agent_to_the_next() {
    let mut world = World::new();
    let (seen, _) = world.watch(0, 0);
    world.kill_agent();
    world.start_agent();
    assert!(world.watch(seen, 10_000).0 > seen);
}

#[test]
fn a_broken_client_loses_its_connection_and_nobody_elses() {
    let world = World::new();
    for nonsense in [&b"\0\0\0\x02{]"[..], &[0xff; 64], b"\0\0\0\x07{\"a\":1}"] {
        let mut client = frame::connect(&world.state(), "agent.sock").unwrap();
        client.write_all(nonsense).unwrap();
        // Closed by the agent, with a reset when it left something unread.
        assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    world.must(Ask::Hello);
}

#[test]
fn idle_connections_beyond_the_limit_are_closed_and_room_is_made_when_they_go() {
    let world = World::new();
    let idle: Vec<_> = (0..100).map(|_| frame::connect(&world.state(), "agent.sock").unwrap()).collect();
    let mut last = idle.last().unwrap();
    assert_eq!(last.read(&mut [0]).unwrap(), 0);
    drop(idle);
    wait_for("room", || {
        let mut client = frame::connect(&world.state(), "agent.sock").unwrap();
        let request = serde_json::json!({"token": 1, "ask": {"ask": "hello"}});
        frame::write(&mut client, &request).is_ok() && matches!(frame::read::<Answer>(&mut client), Ok(Some(_)))
    });
}

#[test]
fn a_second_agent_on_a_state_directory_leaves_with_a_clear_error() {
    let world = World::new();
    let second = stand_in::agent(&world.state()).stdout(Stdio::null()).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.starts_with("another agent works on /"), "{said}");
    world.must(Ask::Hello);
}

#[test]
fn the_socket_is_private() {
    let world = World::new();
    for (path, mode) in [("", 0o700), ("agent.sock", 0o600)] {
        assert_eq!(fs::metadata(world.state().join(path)).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn a_shutdown_leaves_no_process_no_socket_and_no_marker() {
    let mut world = World::new();
    let address = SocketAddr::from(([127, 0, 0, 1], crate::proxy::free_port()));
    world.must(Ask::Listen { addresses: vec![address] });
    world.start(1, "trap '' TERM; setsid sh -c 'echo $$; exec sleep 600' & wait");
    let stray = world.first_line(1).parse().unwrap();
    let (replica, proxy) = (world.replica(1).pid, crate::proxy::served_by(address).unwrap());
    world.must(Ask::Shutdown);
    assert!(world.agent_ends_well());
    wait_for("the end of all", || ![stray, replica, proxy].into_iter().any(is_alive));
    for gone in ["agent.sock", "proxy.sock", "proxy.json", "replicas/web-r3-1.json"] {
        assert!(!world.state().join(gone).exists(), "{gone}");
    }
}
