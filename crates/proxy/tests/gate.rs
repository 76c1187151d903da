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

/// What becomes of a probe.
enum Fate {
    /// 400 or 431, nothing goes upstream, and the connection closes.
    Refused,
    /// This, and nothing else, goes upstream; the connection goes on.
    Sent(&'static str),
    /// A body that began well breaks: no upstream gets it whole, and the connection closes.
    Broken,
}

/// The permutations of the public lists, by what they try to make two programs disagree about.
const PUBLIC: &[(&str, &[u8], Fate)] = &[
    // Where the body ends: Content-Length.
    ("length in hexadecimal", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x2\r\n\r\nhi", Fate::Refused),
    ("negative length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -2\r\n\r\nhi", Fate::Refused),
    ("length beyond 64 bits", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551618\r\n\r\nhi", Fate::Refused),
    ("length with a leading zero", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 02\r\n\r\nhi", Fate::Refused),
    ("two lengths in one", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2 3\r\n\r\nhi", Fate::Refused),
    ("length without a number", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nhi", Fate::Refused),
    ("length as a fraction", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2.0\r\n\r\nhi", Fate::Refused),
    ("length in quotes", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \"2\"\r\n\r\nhi", Fate::Refused),
    ("length behind a vertical tab", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \x0b2\r\n\r\nhi", Fate::Refused),
    ("a list with an empty member", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: ,2\r\n\r\nhi", Fate::Refused),
    ("space before the colon", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 2\r\n\r\nhi", Fate::Refused),
    ("tab before the colon", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length\t: 2\r\n\r\nhi", Fate::Refused),
    ("a first length and a folded second", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\tx\r\n\r\nhi", Fate::Refused),
    (
        "white space around a length",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \t 2 \t\r\n\r\nhi",
        Fate::Sent("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    (
        "an underscore in place of the dash",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent_length: 9\r\n\r\nhi",
        Fate::Sent("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    // Where the body ends: Transfer-Encoding.
    ("a coding with a prefix", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a coding with a suffix", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunkedx\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a coding in quotes", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a coding behind a vertical tab", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a coding behind a form feed", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0cchunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a coding with a parameter", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("an empty coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("identity", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("gzip, chunked", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("chunked, then a list", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked,\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("chunked twice in a list", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a line break in the name", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\r\n: chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a folded coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a space before the name", b"POST / HTTP/1.1\r\nhost: a\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("a bare CR before the name", b"POST / HTTP/1.1\r\nhost: a\r\nx: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("NUL within the name", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\0: chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    ("0x80 within the name", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\x80: chunked\r\n\r\n0\r\n\r\n", Fate::Refused),
    (
        "length beside a coding that a tab hides",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding:\tchunked\r\n\r\n0\r\n\r\n",
        Fate::Refused,
    ),
    (
        "length beside a coding behind a bare line feed",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nx: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Fate::Refused,
    ),
    (
        "a coding that Connection names",
        b"POST / HTTP/1.1\r\nhost: a\r\nconnection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Fate::Sent("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    (
        "a length that Connection names",
        b"POST / HTTP/1.1\r\nhost: a\r\nconnection: content-length\r\ncontent-length: 2\r\n\r\nhi",
        Fate::Sent("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    (
        "an underscore in the coding's name",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer_encoding: chunked\r\n\r\nhi",
        Fate::Sent("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    (
        "a body where none belongs",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        Fate::Sent("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    // The chunks themselves.
    ("a chunk size in other notation", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", Fate::Broken),
    ("a signed chunk size", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n", Fate::Broken),
    ("a negative chunk size", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nhi\r\n0\r\n\r\n", Fate::Broken),
    ("no chunk size", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\nhi\r\n0\r\n\r\n", Fate::Broken),
    ("a chunk size with an underscore", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0_2\r\nhi\r\n0\r\n\r\n", Fate::Broken),
    ("a chunk that ends without CR", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\n0\r\n\r\n", Fate::Broken),
    ("a chunk that ends with another byte", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n", Fate::Broken),
    ("a size line that ends with CR alone", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\rhi\r\n0\r\n\r\n", Fate::Broken),
    ("a line feed within an extension", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\nhi\r\n0\r\n\r\n", Fate::Broken),
    (
        "trailers that belong into a head",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ncontent-length: 9\r\nhost: b\r\n\r\n",
        Fate::Sent("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    // The request line.
    ("two spaces", b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a tab in place of a space", b"GET /\tHTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a space at the end", b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n", Fate::Refused),
    ("a space before the method", b" GET / HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a space in the path", b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a control character in the path", b"GET /a\x01 HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a bare CR in the path", b"GET /a\rHTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a version in lower case", b"GET / http/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a version that is none", b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", Fate::Refused),
    ("a version of two digits", b"GET / HTTP/01.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("HTTP/0.9", b"GET /\r\n\r\n", Fate::Refused),
    ("a method that is no token", b"G<ET / HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("CONNECT", b"CONNECT b:80 HTTP/1.1\r\nhost: b:80\r\n\r\n", Fate::Refused),
    (
        "empty lines before it",
        b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        Fate::Sent("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    (
        "an absolute target",
        b"GET http://a/b?c HTTP/1.1\r\nhost: a\r\n\r\n",
        Fate::Sent("GET /b?c HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    ("an absolute target with a user", b"GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    ("an absolute target with another port", b"GET http://a:81/ HTTP/1.1\r\nhost: a\r\n\r\n", Fate::Refused),
    (
        "a path that looks like a host",
        b"GET //b/c HTTP/1.1\r\nhost: a\r\n\r\n",
        Fate::Sent("GET //b/c HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    (
        "a fragment",
        b"GET /b#c HTTP/1.1\r\nhost: a\r\n\r\n",
        Fate::Sent("GET /b HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    // Whom it is for.
    ("a host with a comma", b"GET / HTTP/1.1\r\nhost: a,b\r\n\r\n", Fate::Refused),
    ("a host with a user", b"GET / HTTP/1.1\r\nhost: b@a\r\n\r\n", Fate::Refused),
    ("a host with a path", b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", Fate::Refused),
    ("a host with a space", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", Fate::Refused),
    ("a second host behind a space", b"GET / HTTP/1.1\r\nhost: a\r\n host: b\r\n\r\n", Fate::Refused),
    ("two hosts of different case", b"GET / HTTP/1.1\r\nhost: a\r\nHOST: b\r\n\r\n", Fate::Refused),
    (
        "a host that Connection names",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: host, close\r\n\r\n",
        Fate::Sent("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    // Fields.
    ("a name with a space", b"GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n", Fate::Refused),
    ("a name in parentheses", b"GET / HTTP/1.1\r\nhost: a\r\n(x): z\r\n\r\n", Fate::Refused),
    ("no name", b"GET / HTTP/1.1\r\nhost: a\r\n: z\r\n\r\n", Fate::Refused),
    ("no colon", b"GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", Fate::Refused),
    ("a folded first field", b"GET / HTTP/1.1\r\n host: a\r\n\r\n", Fate::Refused),
    // Another protocol within.
    (
        "an upgrade to HTTP/2",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        Fate::Sent("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    ("half the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\n", Fate::Refused),
];

#[test]
fn the_permutations_of_public_lists_are_refused_or_sent_on_in_one_form() {
    let mut wrong = Vec::new();
    for (name, raw, fate) in PUBLIC {
        let Seen { status, closed, upstream } = probe(raw);
        let right = match fate {
            Fate::Refused => status == Some(400) && closed && upstream.is_empty(),
            Fate::Sent(expected) => status == Some(200) && upstream == *expected,
            Fate::Broken => status.is_none_or(|status| status == 400) && closed && !upstream.contains("\r\n0\r\n"),
        };
        if !right {
            wrong.push(format!("{name}: {status:?}, closed: {closed}, upstream: {upstream:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn heads_that_are_too_long_or_have_too_many_fields_are_refused() {
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    let path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    for raw in [long, path, many] {
        let seen = probe(raw.as_bytes());
        let refused = matches!(seen.status, Some(414 | 431)) && seen.closed && seen.upstream.is_empty();
        assert!(refused, "{:?} for {} bytes", seen.status, raw.len());
    }
}
