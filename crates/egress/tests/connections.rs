//! Connections that are passed on, pings, and what clients meet while a database is down.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Egress, PATIENCE, wait_for};
use evenkeel_core::breaker::State;
use evenkeel_core::dependency::{Dependency, Kind, Ping, Upstream};

/// A server that answers each line with one of its own, or stands still: it takes connections then, and says nothing.
struct Server {
    address: SocketAddr,
    stands_still: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stands_still, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let server = Self { address, stands_still: stands_still.clone(), connections: connections.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let stands_still = stands_still.clone();
                std::thread::spawn(move || converse(stream, answer, &stands_still));
            }
        });
        server
    }

    fn stands_still(&self, stands_still: bool) {
        self.stands_still.store(stands_still, Ordering::SeqCst);
    }
}

fn converse(mut stream: TcpStream, answer: &str, stands_still: &AtomicBool) -> Option<()> {
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        while stands_still.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in buffer[..read].iter().filter(|byte| **byte == b'\n') {
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }
}

/// A dependency that is pinged often and tried again soon.
fn database(kind: Kind, url: &str) -> Dependency {
    let mut dependency = Dependency::new(kind, url);
    dependency.breaker.open = Duration::from_millis(300);
    dependency.breaker.open_limit = Duration::from_millis(300);
    dependency.breaker.jitter_percent = 0;
    dependency.ping = Some(Ping { every: Duration::from_millis(200), timeout: Duration::from_millis(300) });
    dependency
}

fn connect(egress: &Egress) -> TcpStream {
    let stream = TcpStream::connect(egress.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes for one line; empty when the connection is closed.
fn say(stream: &mut TcpStream, line: &str) -> String {
    let mut buffer = [0; 1024];
    let said = stream.write_all(line.as_bytes()).and_then(|()| stream.read(&mut buffer));
    String::from_utf8_lossy(&buffer[..said.unwrap_or(0)]).into_owned()
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn bytes_pass_in_both_directions_and_the_end_of_one_side_is_the_end_of_the_other() {
    let server = Server::new("fine\n");
    let egress = Egress::new(Dependency { ping: None, ..database(Kind::Tcp, &format!("tcp://{}", server.address)) });
    let mut client = connect(&egress);
    assert_eq!(say(&mut client, "hello\n"), "fine\n");
    assert_eq!(say(&mut client, "again\n"), "fine\n");
    assert_eq!(egress.status().in_flight, 1);
    drop(client);
    wait_for("the end", || egress.status().in_flight == 0);
    assert_eq!(egress.status().breakers[0].counted.successes, 1);
}

#[test]
fn a_client_that_has_said_everything_still_gets_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = String::new();
        // Answered once the other side is known to be done.
        stream.read_to_string(&mut heard).unwrap();
        stream.write_all(format!("{} bytes", heard.len()).as_bytes()).unwrap();
    });
    let egress = Egress::new(Dependency { ping: None, ..database(Kind::Tcp, &format!("tcp://{address}")) });
    let mut client = connect(&egress);
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "5 bytes");
    wait_for("the end", || egress.status().breakers[0].counted.successes == 1);
}

#[test]
fn a_name_that_nobody_knows_is_a_failure_that_says_so() {
    let mut dependency = database(Kind::Tcp, "tcp://nobody.invalid:1");
    dependency.ping = None;
    let egress = Egress::new(dependency);
    assert_eq!(say(&mut connect(&egress), "hello"), "");
    let status = egress.status();
    assert_eq!(status.breakers[0].counted.failures, 1);
    assert!(status.trouble.starts_with("no connection: failed to lookup address"), "{}", status.trouble);
}

#[test]
fn after_three_connections_that_cannot_be_made_clients_are_turned_away_at_once() {
    let egress = Egress::new(Dependency {
        ping: None,
        breaker: evenkeel_core::breaker::Policy::database(),
        ..database(Kind::Tcp, &format!("tcp://{}", nobody()))
    });
    for _ in 0..5 {
        assert_eq!(say(&mut connect(&egress), "hello\n"), "");
    }
    let breaker = &egress.status().breakers[0];
    assert!(matches!(breaker.state, State::Open { .. }), "{breaker:?}");
    assert_eq!((breaker.counted.failures, breaker.counted.refused), (3, 2));
    assert_eq!(egress.status().fallbacks["none"], 5);
}

#[test]
fn a_read_replica_takes_connections_while_the_first_place_is_down() {
    let (gone, replica) = (nobody(), Server::new("replica\n"));
    let mut dependency = database(Kind::Tcp, &format!("tcp://{gone}"));
    dependency.alternatives = vec![Upstream::new(format!("tcp://{}", replica.address))];
    let egress = Egress::new(dependency);
    assert_eq!(say(&mut connect(&egress), "hello\n"), "replica\n");
    wait_for("the breaker", || egress.is_open());
    assert_eq!(say(&mut connect(&egress), "hello\n"), "replica\n");
    assert!(egress.status().fallbacks["alternative"] >= 2);
}

#[test]
fn a_server_that_stands_still_is_noticed_and_who_waits_for_it_is_let_go() {
    let server = Server::new("+PONG\r\n");
    let egress = Egress::new(database(Kind::Redis, &format!("redis://{}", server.address)));
    let [mut waiting, mut resting] = [connect(&egress), connect(&egress)];
    for client in [&mut waiting, &mut resting] {
        assert_eq!(say(client, "PING\r\n"), "+PONG\r\n");
    }
    server.stands_still(true);
    // Answered by nobody, until the pings have noticed.
    assert_eq!(say(&mut waiting, "GET a\r\n"), "");
    wait_for("the breaker", || egress.status().breakers[0].counted.opened > 0);
    assert!(egress.status().trouble.starts_with("no answer to a ping within"), "{}", egress.status().trouble);
    server.stands_still(false);
    wait_for("the breaker to close", || egress.state() == State::Closed);
    assert_eq!(say(&mut resting, "PING\r\n"), "+PONG\r\n", "who did not wait keeps its connection");
    assert_eq!(say(&mut connect(&egress), "PING\r\n"), "+PONG\r\n");
}

#[test]
fn pings_are_the_only_probes() {
    let server = Server::new("+PONG\r\n");
    let mut dependency = database(Kind::Redis, &format!("redis://{}", server.address));
    dependency.breaker.open = Duration::from_secs(3_600);
    dependency.breaker.open_limit = Duration::from_secs(3_600);
    let egress = Egress::new(dependency);
    server.stands_still(true);
    wait_for("the breaker", || egress.is_open());
    server.stands_still(false);
    let connections = server.connections.load(Ordering::SeqCst);
    assert_eq!(say(&mut connect(&egress), "PING\r\n"), "");
    assert_eq!(server.connections.load(Ordering::SeqCst), connections);
}

#[test]
fn a_server_that_answers_that_it_cannot_yet_is_not_well_and_one_that_wants_a_password_is() {
    let loading = Server::new("-LOADING Redis is loading the dataset in memory\r\n");
    let egress = Egress::new(database(Kind::Redis, &format!("redis://{}", loading.address)));
    wait_for("the breaker", || egress.is_open());
    assert!(egress.status().trouble.contains("-LOADING"), "{}", egress.status().trouble);
    let locked = Server::new("-NOAUTH Authentication required.\r\n");
    let egress = Egress::new(database(Kind::Redis, &format!("redis://{}", locked.address)));
    wait_for("some pings", || egress.status().breakers[0].counted.successes >= 3);
    assert_eq!(egress.status().breakers[0].counted.failures, 0);
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let server = Server::new("fine\n");
    let mut dependency = database(Kind::Tcp, &format!("tcp://{}", server.address));
    dependency.concurrency = 2;
    let egress = Egress::new(dependency);
    let mut held = [connect(&egress), connect(&egress)];
    held.iter_mut().for_each(|client| assert_eq!(say(client, "a\n"), "fine\n"));
    assert_eq!(say(&mut connect(&egress), "a\n"), "");
    assert_eq!((egress.status().limited, egress.status().breakers[0].counted.failures), (1, 0));
}

#[test]
fn a_client_of_postgresql_is_told_in_its_own_protocol() {
    let mut dependency = database(Kind::Postgres, &format!("postgres://app@{}/shop", nobody()));
    dependency.breaker.open = Duration::from_secs(3_600);
    dependency.breaker.open_limit = Duration::from_secs(3_600);
    let egress = Egress::new(dependency);
    wait_for("the breaker", || egress.is_open());
    let mut client = connect(&egress);
    client.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N", "no encryption here");
    let parameters = b"user\0app\0database\0shop\0\0";
    let mut startup = u32::try_from(8 + parameters.len()).unwrap().to_be_bytes().to_vec();
    startup.extend([0, 3, 0, 0]);
    startup.extend(parameters);
    client.write_all(&startup).unwrap();
    let mut told = Vec::new();
    client.read_to_end(&mut told).unwrap();
    let text = String::from_utf8_lossy(&told);
    assert!(told[0] == b'E' && text.contains("C57P03\0"), "{text}");
    assert!(text.contains("dependency \"api\" is not available"), "{text}");
}
