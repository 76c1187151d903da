//! Requests that wait while their service is in maintenance.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the helpers are test code too")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Message, Proxy, Wire, saying, table, wait_for};
use evenkeel_core::ids::{Generation, Timestamp};
use evenkeel_core::maintenance::Maintenance;
use evenkeel_core::table::RoutingTable;

/// Longer than the test takes.
const LONG: Duration = Duration::from_secs(60);

fn with(mut whole: RoutingTable, lasts: Duration, wait: Duration) -> RoutingTable {
    let now = Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64);
    let wait_ms = wait.as_millis() as u64;
    let maintenance = Maintenance { since: now, until: now.after(lasts), wait_ms, by: "ann".into() };
    whole.services[0].edge.maintenance = Some(maintenance);
    whole
}

/// Sends a request whose answer may be read when it comes.
fn ask(address: SocketAddr, request: &str) -> Wire {
    let mut wire = Wire::to(address);
    wire.send(request).unwrap();
    wire
}

const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";

fn answered(wire: &mut Wire) -> Message {
    wire.read_message().unwrap()
}

#[test]
fn requests_wait_and_go_when_the_maintenance_is_ended_by_the_table_of_that_moment() {
    let mut proxy = Proxy::start(1);
    let (listen, preview) = (proxy.listen(), TcpListener::bind("127.0.0.1:0").unwrap());
    proxy.listen_on(&preview);
    let mut first = table(1, listen, &[(100, &[saying("old")])]);
    first.services[0].preview = Some(preview.local_addr().unwrap());
    proxy.apply(with(first.clone(), LONG, LONG));
    let body = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nab";
    let mut waiting = [GET, body].map(|request| ask(listen, request));
    assert_eq!(Wire::to(preview.local_addr().unwrap()).get("/").text(), "old", "a preview does not wait");
    let mut last = table(2, listen, &[(100, &[saying("new")])]);
    last.services[0].preview = first.services[0].preview;
    proxy.apply(last);
    for wire in &mut waiting {
        assert_eq!(answered(wire).text(), "new");
    }
    assert_eq!(waiting[0].get("/").text(), "new");
    let report = proxy.wait_for_release(|release| release.counts.requests() == 3);
    assert_eq!(report.counts.no_answer, 0);
}

#[test]
fn a_request_that_has_waited_long_enough_is_told_when_to_come_again() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let whole = table(1, listen, &[(100, &[saying("hello")])]);
    proxy.apply(with(whole, LONG, Duration::from_millis(50)));
    let refused = Wire::to(listen).get("/");
    assert_eq!((refused.status(), refused.text()), (503, "the service is in maintenance"));
    let again: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=LONG.as_secs()).contains(&again), "{again}");
}

#[test]
fn a_maintenance_ends_by_itself_and_one_that_is_over_holds_nobody() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let whole = table(1, listen, &[(100, &[saying("hello")])]);
    proxy.apply(with(whole.clone(), Duration::from_millis(300), LONG));
    assert_eq!(Wire::to(listen).get("/").text(), "hello");
    proxy.apply(with(RoutingTable { generation: Generation(2), ..whole }, Duration::ZERO, LONG));
    assert_eq!(Wire::to(listen).get("/").text(), "hello");
}

#[test]
fn where_services_share_an_address_only_those_of_one_wait_and_a_client_that_leaves_makes_room() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mut whole = with(table(1, listen, &[(100, &[saying("api")])]), LONG, LONG);
    whole.services[0].edge.routes = vec!["/api".parse().unwrap()];
    let mut other = table(1, listen, &[(100, &[saying("web")])]).services.remove(0);
    other.service = evenkeel_core::ids::ServiceName::new("other").unwrap();
    whole.services.push(other);
    proxy.apply(whole.clone());
    let wait = ask(listen, "GET /api/a HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(Wire::to(listen).get("/").text(), "web");
    drop(wait);
    wait_for(|| (proxy.report().connections == 0).then_some(()));
    (whole.generation.0, whole.services[0].edge.maintenance) = (2, None);
    proxy.apply(whole);
    assert_eq!(Wire::to(listen).get("/api/a").text(), "api");
}

#[test]
fn a_proxy_that_ends_keeps_nobody_waiting() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(with(table(1, listen, &[(100, &[saying("hello")])]), LONG, LONG));
    let mut wire = ask(listen, GET);
    wait_for(|| (proxy.report().connections == 1).then_some(()));
    proxy.stop(LONG / 4);
    assert_eq!(answered(&mut wire).status(), 503);
}
