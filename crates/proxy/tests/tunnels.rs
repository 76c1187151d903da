//! WebSockets and other protocols after a switch: carried as they are, and ended with a word.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it measures")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Proxy, Wire, saying, table, upstream, wait_for};
use evenkeel_core::table::RoutingTable;

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
const OTHER: &str = "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: other\r\n\r\n";

/// A replica that switches to whatever it is asked to, and hands its side of the tunnel to the test.
fn switching() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let (made, tunnels) = mpsc::channel();
    let made = Mutex::new(made);
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        let request = wire.read_message().unwrap();
        let to = request.field("upgrade").unwrap().to_owned();
        wire.send(format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: {to}\r\nconnection: Upgrade\r\n\r\n"));
        assert!(wire.reader.buffer().is_empty());
        made.lock().unwrap().send(wire.reader.into_inner()).unwrap();
    });
    (address, tunnels)
}

fn open(listen: SocketAddr, request: &str) -> TcpStream {
    let mut wire = Wire::to(listen);
    wire.send(request);
    assert_eq!(wire.read_head().unwrap().status(), 101);
    wire.reader.into_inner()
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn with_drain(mut table: RoutingTable, drain: Duration) -> RoutingTable {
    table.services[0].edge.drain = Some(drain);
    table
}

/// A close frame from a client, without its mask.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    let (head, mask) = (&frame[..2], &frame[2..6]);
    let content = frame[6..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    head.iter().copied().chain(content).collect()
}

#[test]
fn a_websocket_is_closed_between_two_messages_on_both_sides_when_the_proxy_stops() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, tunnels) = switching();
    proxy.apply(table(1, listen, &[(100, &[replica])]));
    let mut client = open(listen, WEBSOCKET);
    let mut server = tunnels.recv().unwrap();
    // In the middle of a message of five bytes.
    server.write_all(b"\x82\x05hel").unwrap();
    assert_eq!(read(&mut client, 5), b"\x82\x05hel");
    let stopped = std::thread::spawn(move || proxy.stop(Duration::from_secs(3)));
    client.write_all(b"\x82\x81\0\0\0\0x").unwrap();
    assert_eq!(read(&mut server, 7), b"\x82\x81\0\0\0\0x");
    let mut waiting = server.try_clone().unwrap();
    let told = std::thread::spawn(move || rest(&mut waiting));
    // The time is over after half of the drain, and the proxy waits for the end of the message.
    client.set_read_timeout(Some(Duration::from_millis(1_800))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "nothing may stand within a message");
    client.set_read_timeout(None).unwrap();
    server.write_all(b"lo").unwrap();
    assert_eq!(rest(&mut client), b"lo\x88\x02\x03\xe9");
    drop(client);
    assert_eq!(unmasked(&told.join().unwrap()), b"\x88\x82\x03\xe9");
    stopped.join().unwrap();
}

#[test]
fn a_websocket_is_given_the_drain_time_of_its_replica_and_then_closed() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, tunnels) = switching();
    let drain = Duration::from_secs(1);
    proxy.apply(with_drain(table(1, listen, &[(100, &[replica])]), drain));
    let (mut client, mut server) = (open(listen, WEBSOCKET), tunnels.recv().unwrap());
    // A new table with the same replica says nothing.
    proxy.apply(with_drain(table(2, listen, &[(100, &[replica])]), drain));
    server.write_all(b"\x81\x02hi").unwrap();
    assert_eq!(read(&mut client, 4), b"\x81\x02hi");
    let began = std::time::Instant::now();
    proxy.apply(with_drain(table(3, listen, &[(0, &[]), (100, &[saying("two")])]), drain));
    server.write_all(b"\x81\x03bye").unwrap();
    assert_eq!(rest(&mut client), b"\x81\x03bye\x88\x02\x03\xe9");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    drop(client);
    assert_eq!(unmasked(&rest(&mut server)), b"\x88\x82\x03\xe9");
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}

#[test]
fn what_is_no_websocket_is_closed_without_a_word_and_one_that_said_goodbye_gets_none() {
    for (request, last) in [(OTHER, &b"\x81\x02hi"[..]), (WEBSOCKET, b"\x88\x00")] {
        let mut proxy = Proxy::start(1);
        let listen = proxy.listen();
        let (replica, tunnels) = switching();
        proxy.apply(table(1, listen, &[(100, &[replica])]));
        let (mut client, mut server) = (open(listen, request), tunnels.recv().unwrap());
        server.write_all(last).unwrap();
        assert_eq!(read(&mut client, last.len()), last);
        let stopped = std::thread::spawn(move || proxy.stop(Duration::from_millis(200)));
        assert_eq!(rest(&mut client), b"");
        drop((client, server));
        stopped.join().unwrap();
    }
}

#[test]
fn a_side_that_has_said_everything_still_hears_the_other_one() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, tunnels) = switching();
    proxy.apply(table(1, listen, &[(100, &[replica])]));
    let (mut client, mut server) = (open(listen, OTHER), tunnels.recv().unwrap());
    client.write_all(b"all I have").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), b"all I have");
    server.write_all(b"heard").unwrap();
    drop(server);
    assert_eq!(rest(&mut client), b"heard");
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}

#[test]
fn much_passes_whole_in_both_directions_at_once_and_a_slow_reader_slows_its_sender() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, tunnels) = switching();
    proxy.apply(table(1, listen, &[(100, &[replica])]));
    let (client, server) = (open(listen, OTHER), tunnels.recv().unwrap());
    let bytes: Arc<Vec<u8>> = Arc::new((0..8_000_000_u32).map(|n| (n % 251) as u8).collect());
    let both = [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server.try_clone().unwrap(), client.try_clone().unwrap()),
    ];
    let carried: Vec<_> = both
        .into_iter()
        .flat_map(|(mut from, mut to)| {
            let (sent, expected) = (bytes.clone(), bytes.clone());
            let sender = std::thread::spawn(move || from.write_all(&sent).unwrap());
            let reader = std::thread::spawn(move || assert!(read(&mut to, expected.len()) == *expected));
            [sender, reader]
        })
        .collect();
    for thread in carried {
        thread.join().unwrap();
    }
    let taken = Arc::new(AtomicUsize::new(0));
    let (mut sender, count) = (server.try_clone().unwrap(), taken.clone());
    sender.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    std::thread::spawn(move || {
        while let Ok(n @ 1..) = sender.write(&[7; 65536]) {
            count.fetch_add(n, Ordering::SeqCst);
        }
        count.fetch_add(1 << 40, Ordering::SeqCst);
    });
    wait_for(|| (taken.load(Ordering::SeqCst) >= 1 << 40).then_some(()));
    let held = taken.load(Ordering::SeqCst) - (1 << 40);
    assert!(held < 32 << 20, "the proxy and the kernel took {held} bytes");
    drop((client, server));
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}
