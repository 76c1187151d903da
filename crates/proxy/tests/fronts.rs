//! Load balancers before the proxy: who is believed about whom they speak for.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};

use common::{Message, Proxy, Wire, table, upstream};
use evenkeel_core::edge::ProxyProtocol;
use evenkeel_core::table::RoutingTable;

const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\nx-forwarded-for: 203.0.113.5\r\nx-forwarded-proto: https\r\n\r\n";

fn noting() -> (SocketAddr, mpsc::Receiver<Message>) {
    let (seen, requests) = mpsc::channel::<Message>();
    let seen = Mutex::new(seen);
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            seen.lock().unwrap().send(request).unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (address, requests)
}

fn announced(mut table: RoutingTable) -> RoutingTable {
    table.services[0].edge.proxy_protocol = ProxyProtocol::On;
    table
}

#[test]
fn a_connection_that_a_front_announces_is_from_whom_it_says() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, requests) = noting();
    let mut routes = announced(table(1, listen, &[(100, &[replica])]));
    routes.services[0].edge.fronts = vec!["198.51.100.0/24".parse().unwrap()];
    proxy.apply(routes);
    let second =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 9, 10, 0, 0, 1, 0x1f, 0x90, 1, 187]].concat();
    for (header, path, scheme) in [
        (&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"[..], "192.0.2.7", "http"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", "2001:db8::7", "http"),
        (&second, "192.0.2.9", "http"),
        // Another front, which is believed in its turn.
        (b"PROXY TCP4 198.51.100.3 10.0.0.1 4711 443\r\n", "203.0.113.5, 198.51.100.3", "https"),
        // A front's own check: it is on this machine.
        (b"PROXY UNKNOWN\r\n", "203.0.113.5, 127.0.0.1", "https"),
    ] {
        for cut in [1, 5, 12, header.len()] {
            let mut wire = Wire::to(listen);
            for part in [header, GET.as_bytes()].concat().chunks(cut) {
                wire.send(part);
            }
            assert_eq!(wire.read_message().unwrap().status(), 200);
            let seen = requests.recv().unwrap();
            let told = [seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")];
            assert_eq!(told, [Some(path), Some(scheme)], "{}", header.escape_ascii());
            assert_eq!(wire.request(GET).status(), 200, "the connection goes on");
            requests.recv().unwrap();
        }
    }
}

#[test]
fn a_connection_without_the_word_of_its_front_is_closed() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, requests) = noting();
    proxy.apply(announced(table(1, listen, &[(100, &[replica])])));
    let too_long = format!("PROXY TCP4 {}\r\n{GET}", "1".repeat(5_000));
    let endless = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 70_000]].concat();
    for begins in [GET.as_bytes(), b"PROXY TCP4 192.0.2.7\r\n", b"\x16\x03\x01\x02\0\n", too_long.as_bytes(), &endless]
    {
        let mut wire = Wire::to(listen);
        wire.send(begins);
        assert!(wire.is_closed());
    }
    drop(Wire::to(listen));
    assert!(requests.try_recv().is_err());
}

#[test]
fn a_word_of_the_protocol_where_none_is_expected_is_a_bad_request() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (replica, requests) = noting();
    proxy.apply(table(1, listen, &[(100, &[replica])]));
    let answer = Wire::to(listen).request(&format!("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n{GET}"));
    assert_eq!(answer.status(), 400);
    assert!(requests.try_recv().is_err());
}
