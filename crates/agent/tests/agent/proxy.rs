//! The proxy and its listening sockets.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use evenkeel_wire::agent::{Answer, Ask};

use crate::world::{LIMIT, World, is_alive, kill_hard, now, stop, wait_for};

/// The budget for a killed proxy's successor.
const BACK_WITHIN: Duration = Duration::from_millis(300);

#[test]
fn an_address_in_use_is_named_and_the_others_are_served() {
    let world = World::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (other.local_addr().unwrap(), local(free_port()));
    let why = world.must_not(Ask::Listen { addresses: vec![free, taken] });
    assert_eq!(why, format!("{taken} is in use by another program"));
    assert!(served_by(free).is_some());
    // Nobody is sent away once the other program has gone.
    drop(other);
    world.must(Ask::Listen { addresses: vec![free, taken] });
    assert_eq!(served_by(taken), served_by(free));
}

#[test]
fn a_second_evenkeel_does_not_share_the_firsts_port() {
    let (first, second) = (World::new(), World::new());
    let address = local(free_port());
    first.must(Ask::Listen { addresses: vec![address] });
    let why = second.must_not(Ask::Listen { addresses: vec![address] });
    assert_eq!(why, format!("{address} is in use by another program"));
}

#[test]
fn the_proxy_serves_what_is_listened_on_and_drops_what_is_not() {
    let world = World::new();
    let [first, second] = [local(free_port()), local(free_port())];
    world.must(Ask::Listen { addresses: vec![first] });
    world.must(Ask::Listen { addresses: vec![first] });
    let proxy = served_by(first).unwrap();
    world.must(Ask::Listen { addresses: vec![first, second] });
    assert_eq!([served_by(first), served_by(second)], [Some(proxy); 2]);
    world.must(Ask::Listen { addresses: vec![second] });
    wait_for("the first address to close", || TcpStream::connect(first).is_err());
    assert_eq!(served_by(second), Some(proxy));
}

#[test]
fn a_killed_proxy_is_back_at_once_and_no_connection_is_refused() {
    let world = World::new();
    let address = local(free_port());
    world.must(Ask::Listen { addresses: vec![address] });
    let old = served_by(address).unwrap();
    kill_hard(old);
    let killed = now();
    let new = std::iter::from_fn(|| (killed.elapsed() < LIMIT).then(|| served_by_or_reset(address)));
    let new = new.flatten().find(|pid| *pid != old).expect("a new proxy");
    let back = killed.elapsed();
    assert!(back < BACK_WITHIN, "back after {back:?}");
    assert!(is_alive(new) && !is_alive(old));
}

#[test]
fn a_successor_adopts_the_proxy_and_can_replace_it() {
    let mut world = World::new();
    let [first, second] = [local(free_port()), local(free_port())];
    world.must(Ask::Listen { addresses: vec![first, second] });
    let proxy = served_by(first).unwrap();
    world.kill_agent();
    assert_eq!(served_by(second), Some(proxy), "serves without an agent");
    world.start_agent();
    world.must(Ask::Listen { addresses: vec![first, second] });
    assert_eq!([served_by(first), served_by(second)], [Some(proxy); 2], "still the same");

    kill_hard(proxy);
    for address in [first, second] {
        wait_for("a new proxy", || served_by_or_reset(address).is_some_and(|pid| pid != proxy));
    }
}

#[test]
fn a_proxy_is_replaced_by_another_program_on_the_same_sockets() {
    let mut world = World::new();
    let [first, second] = [local(free_port()), local(free_port())];
    world.must(Ask::Listen { addresses: vec![first, second] });
    let old = served_by(first).unwrap();
    let why = world.must_not(Ask::Replace { command: vec!["/no/such/program".to_owned()], drain_ms: 1_000 });
    assert!(why.contains("/no/such/program"), "{why}");
    assert_eq!([served_by(first), served_by(second)], [Some(old); 2], "the one that runs goes on");

    world.must(Ask::Replace { command: crate::stand_in::proxy_command(), drain_ms: 5_000 });
    let new = served_by(first).unwrap();
    assert_ne!(new, old);
    assert_eq!(served_by(second), Some(new));
    wait_for("the end of the one before", || !is_alive(old));
    // It is the one that is adopted, and replaced when it dies.
    world.kill_agent();
    world.start_agent();
    world.must(Ask::Listen { addresses: vec![first, second] });
    assert_eq!(served_by(second), Some(new));
}

#[test]
fn a_proxy_without_a_marker_is_adopted_by_its_socket() {
    let mut world = World::new();
    let address = local(free_port());
    world.must(Ask::Listen { addresses: vec![address] });
    let proxy = served_by(address);
    world.kill_agent();
    std::fs::remove_file(world.state().join("proxy.json")).unwrap();
    world.start_agent();
    world.must(Ask::Listen { addresses: vec![address] });
    assert_eq!(served_by(address), proxy);
}

#[test]
fn a_proxy_that_died_with_its_agent_comes_back_when_listening_is_asked_for() {
    let mut world = World::new();
    let address = local(free_port());
    world.must(Ask::Listen { addresses: vec![address] });
    let old = served_by(address).unwrap();
    world.kill_agent();
    kill_hard(old);
    wait_for("its end", || !is_alive(old));
    world.start_agent();
    world.must(Ask::Listen { addresses: vec![address] });
    assert!(served_by(address).is_some_and(|new| new != old));
}

#[test]
fn a_newer_controller_is_heard_while_an_older_one_waits_for_a_proxy_that_hangs() {
    let world = World::new();
    let [first, second] = [local(free_port()), local(free_port())];
    world.must(Ask::Listen { addresses: vec![first] });
    let proxy = served_by(first).unwrap();
    stop(proxy);
    std::thread::scope(|scope| {
        let old = scope.spawn(|| world.ask_as(1, Ask::Listen { addresses: vec![first, second] }));
        std::thread::sleep(Duration::from_millis(200));
        let asked = now();
        assert!(matches!(world.ask_as(2, Ask::Hello), Answer::Done));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(!old.is_finished());
        // Nothing of the older controller's is begun from here on, and the newer one's wish is what comes true.
        let late = world.ask_as(1, Ask::Listen { addresses: vec![second] });
        assert!(matches!(late, Answer::OldToken { .. }), "{late:?}");
        kill_hard(proxy);
        assert!(matches!(world.ask_as(2, Ask::Listen { addresses: vec![first] }), Answer::Done));
        assert!(served_by(first).is_some_and(|new| new != proxy));
        assert!(TcpStream::connect(second).is_err());
        old.join().unwrap();
    });
}

/// The pid of the proxy that answers at an address; `None` when the connection is refused.
pub(crate) fn served_by(address: SocketAddr) -> Option<u32> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    Some(answer.parse().unwrap())
}

/// The pid of the proxy that answers; `None` when a dying one took the connection and dropped it. Never refused.
fn served_by_or_reset(address: SocketAddr) -> Option<u32> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).expect("no connection is refused");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.read_to_string(&mut answer).ok()?;
    answer.parse().ok()
}

/// A port that nobody listens on, outside the range of replicas.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
