//! Limits: what is too much is answered by the proxy, and counts for no release.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Proxy, Wire, get, saying, table, upstream, wait_for};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::limit::{Limit, Per, Rate};
use evenkeel_core::table::RoutingTable;
use evenkeel_wire::proxy::Limited;

fn limited(mut whole: RoutingTable, limits: &[Limit]) -> RoutingTable {
    whole.services[0].edge.limits = limits.to_vec();
    whole
}

fn told(proxy: &mut Proxy) -> Limited {
    proxy.report().limited.remove(&ServiceName::new("web").unwrap()).unwrap()
}

/// So many, and no further one for an hour.
fn only(requests: u32) -> Option<Rate> {
    Some(Rate { requests: 1, within: Duration::from_secs(3_600), burst: requests })
}

#[test]
fn a_client_that_comes_too_fast_is_told_when_to_come_again_and_no_release_is_to_blame() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let limits = [Limit { path: "/api".into(), per: Per::Header("x-key".into()), rate: only(3), ..Limit::default() }];
    proxy.apply(limited(table(1, listen, &[(100, &[saying("web")])]), &limits));
    let ask = |key: &str, path: &str| {
        // Connections of its own, and so both workers.
        Wire::to(listen).request(&format!("GET {path} HTTP/1.1\r\nhost: web\r\nx-key: {key}\r\n\r\n"))
    };
    assert_eq!([ask("a", "/api"), ask("a", "/api/x"), ask("a", "/api?y")].map(|answer| answer.status()), [200; 3]);
    let refused = ask("a", "/api");
    assert_eq!((refused.status(), refused.text()), (429, "too many requests"));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    assert_eq!([ask("a", "/apis"), ask("b", "/api")].map(|answer| answer.status()), [200; 2]);
    // Another table, and the count goes on.
    proxy.apply(limited(table(2, listen, &[(100, &[saying("web")])]), &limits));
    assert_eq!(ask("a", "/api").status(), 429);
    let release = proxy.wait_for_release(|release| release.counts.requests() == 5);
    assert_eq!(release.counts.classes[4], 0, "{:?}", release.counts);
    assert_eq!(told(&mut proxy), Limited { rate: 2, ..Limited::default() });
}

#[test]
fn a_body_that_is_too_long_is_refused_whether_its_length_is_announced_or_not() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let limits = [
        Limit { body: Some(10), ..Limit::default() },
        Limit { path: "/upload".into(), body: Some(100), ..Limit::default() },
    ];
    proxy.apply(limited(table(1, listen, &[(100, &[saying("web")])]), &limits));
    let post = |path: &str, length: usize| {
        let body = "x".repeat(length);
        Wire::to(listen)
            .request(&format!("POST {path} HTTP/1.1\r\nhost: web\r\ncontent-length: {length}\r\n\r\n{body}"))
    };
    assert_eq!(post("/", 10).status(), 200);
    assert_eq!(post("/upload/x", 100).status(), 200);
    let refused = post("/", 11);
    assert_eq!(
        (refused.status(), refused.text(), refused.field("connection")),
        (413, "the body is too long", Some("close"))
    );
    assert_eq!(post("/upload", 101).status(), 413);
    let mut wire = Wire::to(listen);
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n").unwrap();
    wire.send("8\r\n12345678\r\n").unwrap();
    assert_eq!(wire.read_message().unwrap().status(), 413);
    assert!(wire.is_closed());
    assert_eq!(told(&mut proxy), Limited { body: 3, ..Limited::default() });
    let release = proxy.wait_for_release(|release| release.counts.requests() >= 2);
    assert_eq!((release.counts.no_answer, release.counts.classes[4]), (0, 0), "{:?}", release.counts);
}

#[test]
fn so_many_requests_are_under_way_and_no_more_until_one_has_its_answer() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha");
            let _ = wait.lock().unwrap().recv();
            wire.send("lf");
        }
    });
    let limit = |per| Limit { per, at_once: Some(2), ..Limit::default() };
    proxy.apply(limited(table(1, listen, &[(100, &[slow])]), &[limit(Per::Client)]));
    let mut first: Vec<Wire> = (0..2).map(|_| Wire::to(listen)).collect();
    for wire in &mut first {
        wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        assert_eq!(wire.read_head().unwrap().status(), 200);
    }
    let refused = get(listen, "/");
    assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("1")));
    proxy.apply(limited(table(2, listen, &[(100, &[slow])]), &[limit(Per::Service)]));
    let mut more: Vec<Wire> = (0..2).map(|_| Wire::to(listen)).collect();
    for wire in &mut more {
        wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        assert_eq!(wire.read_head().unwrap().status(), 200);
    }
    assert_eq!(get(listen, "/").status(), 503);
    // One that goes away makes room as well as one that is answered.
    drop(more.pop());
    let mut again = wait_for(|| {
        let mut wire = Wire::to(listen);
        wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        (wire.read_head().unwrap().status() == 200).then_some(wire)
    });
    (0..9).for_each(|_| go_on.send(()).unwrap());
    let mut rest = [0; 4];
    std::io::Read::read_exact(&mut again.reader, &mut rest).unwrap();
    assert_eq!(&rest, b"half");
    assert!(told(&mut proxy).at_once >= 2);
}
