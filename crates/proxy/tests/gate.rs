//! Requests meant to be understood differently by two programs: refused, or sent on in one meaning only.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};

use common::{Proxy, Wire, get, table, upstream, wait_for};

/// An upstream that answers every head it sees, and notes all bytes.
fn noting() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = noted.clone();
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = wire.reader.read(&mut bytes) {
            let mut noted = notes.lock().unwrap();
            noted.extend_from_slice(&bytes[..n]);
            let complete = noted.ends_with(b"\r\n\r\n") || noted.ends_with(b"hi");
            drop(noted);
            if complete {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    (address, noted)
}

/// What came of a probe.
struct Seen {
    status: Option<u16>,
    closed: bool,
    /// What the upstream got, without the fields the proxy adds.
    upstream: String,
}

fn probe(raw: &[u8]) -> Seen {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (address, noted) = noting();
    proxy.apply(table(1, listen, &[(100, &[address])]));
    let mut wire = Wire::to(listen);
    wire.send(raw);
    let status = wire.read_head().map(|answer| answer.status());
    // Only a connection that is still open answers a second request.
    wire.send("GET /second HTTP/1.1\r\nhost: a\r\n\r\n");
    let closed = loop {
        match wire.read_head() {
            Some(answer) if answer.line.starts_with("HTTP/1.1 200") => break false,
            Some(_) => {}
            None => break true,
        }
    };
    let _ = wire.reader.get_ref().shutdown(Shutdown::Both);
    drop(proxy);
    let noted = String::from_utf8_lossy(&noted.lock().unwrap()).into_owned();
    let noted = noted.split("GET /second").next().unwrap_or_default().to_owned();
    let kept = noted.split_inclusive("\r\n").filter(|line| !line.starts_with("x-forwarded-"));
    Seen { status, closed, upstream: kept.collect() }
}

#[test]
fn doubtful_framing_is_refused_and_the_connection_closed() {
    let probes: [(&str, &[u8]); 19] = [
        (
            "length with coding",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "coding with length",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        ),
        ("two different lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi"),
        ("two equal lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi"),
        ("a list of lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2, 2\r\n\r\nhi"),
        ("a signed length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +2\r\n\r\nhi"),
        ("an unknown coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n"),
        ("chunked not last", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("chunked last of two", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked twice",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("space before colon", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a folded field", b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n"),
        ("NUL in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n"),
        ("CR in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n"),
        ("no host", b"GET / HTTP/1.1\r\nx: 1\r\n\r\n"),
        ("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("a host that is none", b"GET / HTTP/1.1\r\nhost: a/b, c\r\n\r\n"),
        ("a target against the host", b"GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ];
    for (name, raw) in probes {
        let seen = probe(raw);
        assert_eq!((seen.status, seen.closed, seen.upstream.as_str()), (Some(400), true, ""), "{name}");
    }
}

#[test]
fn broken_chunks_are_the_clients_fault_and_reach_no_upstream_as_a_whole_request() {
    let start = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for (name, body) in [
        ("bad size", "xyz\r\nhi\r\n0\r\n\r\n"),
        ("overflow", "fffffffffffffffff\r\nhi\r\n0\r\n\r\n"),
        ("longer than said", "2\r\nhigh\r\n0\r\n\r\n"),
    ] {
        let seen = probe(format!("{start}{body}").as_bytes());
        assert_eq!((seen.status, seen.closed), (Some(400), true), "{name}");
        assert!(!seen.upstream.contains("\r\n0\r\n"), "{name}: {:?}", seen.upstream);
    }
    let seen = probe(format!("{start}2\nhi\n0\n\n").as_bytes());
    assert!(
        seen.closed && !seen.upstream.contains("\n0\n"),
        "line ends without CR: {:?} {:?}",
        seen.status,
        seen.upstream
    );
}

#[test]
fn what_has_one_meaning_is_sent_on_in_one_form() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\n";
    let probes = [
        ("line ends without CR", "GET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "chunk extension",
            &format!("{head}transfer-encoding: chunked\r\n\r\n2;x=\"y\"\r\nhi\r\n0\r\n\r\n"),
            &format!("{head}transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        ),
        ("length", &format!("{head}content-length: 2\r\n\r\nhi"), &format!("{head}content-length: 2\r\n\r\nhi")),
        (
            "chunked GET",
            "GET / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    for (name, raw, expected) in probes {
        let seen = probe(raw.as_bytes());
        assert_eq!((seen.status, seen.closed, seen.upstream.as_str()), (Some(200), false, expected), "{name}");
    }
}

#[test]
fn refusals_of_doubtful_requests_are_counted_by_the_proxy_and_not_by_a_release() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[noting().0])]));
    Wire::to(listen).request("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    Wire::to(listen).request("GET / HTTP/1.1\r\nhost : a\r\n\r\n");
    wait_for(|| (proxy.report().refused == 2).then_some(()));
    assert_eq!(proxy.report().releases.len(), 0);
    assert_eq!(get(listen, "/").status(), 200);
}
