//! Copies of requests that another release answers for nobody.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it measures waits")]

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Message, Proxy, Wire, get, refusing, saying, table, upstream, wait_for};
use evenkeel_core::choice::{Match, Mirror, Pin, ValueMatch};
use evenkeel_core::ids::{BasisPoints, Revision};
use evenkeel_core::ports::ReleaseReport;
use evenkeel_core::table::RoutingTable;

const SHADOW: u32 = 2;

/// Stable is revision 1 with all of the traffic; `share` hundredths of its requests are copied to revision 2.
fn mirrored(generation: u64, users: SocketAddr, stable: SocketAddr, shadow: SocketAddr, share: u16) -> RoutingTable {
    let mut table = table(generation, users, &[(100, &[stable]), (0, &[shadow])]);
    table.services[0].mirror = Some(Mirror { to: Revision(SHADOW), share: BasisPoints::new(share * 100).unwrap() });
    table
}

/// Answers everything, and notes what it was sent.
fn noting(notes: &Arc<Mutex<Vec<Message>>>) -> SocketAddr {
    let notes = notes.clone();
    upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            notes.lock().unwrap().push(request);
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nshadow");
        }
    })
}

/// Takes whatever comes and says nothing; counts connections as they come and as they are closed by the other side.
fn hanging(came: &Arc<AtomicUsize>, went: &Arc<AtomicUsize>) -> SocketAddr {
    let (came, went) = (came.clone(), went.clone());
    upstream(move |mut stream| {
        came.fetch_add(1, Ordering::SeqCst);
        let _ = stream.read_to_end(&mut Vec::new());
        went.fetch_add(1, Ordering::SeqCst);
    })
}

fn released(proxy: &mut Proxy, revision: u32) -> ReleaseReport {
    let found = proxy.report().releases.into_iter().find(|release| release.revision == Revision(revision));
    found.unwrap_or_else(|| ReleaseReport::new("web".to_owned().try_into().unwrap(), Revision(revision)))
}

fn wait_for_copies(proxy: &mut Proxy, copies: u64) -> ReleaseReport {
    wait_for(|| {
        Some(released(proxy, SHADOW)).filter(|shadow| shadow.mirrored.requests() + shadow.mirror_dropped >= copies)
    })
}

#[test]
fn a_copy_is_the_request_with_a_mark_and_is_counted_by_itself() {
    let notes = Arc::default();
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    proxy.apply(mirrored(1, users, saying("stable"), noting(&notes), 100));
    let mut wire = Wire::to(users);
    let credentials = "cookie: session=1\r\nauthorization: Bearer x\r\n";
    assert_eq!(wire.request(&format!("GET /a?b=c HTTP/1.1\r\nhost: shop\r\n{credentials}\r\n")).text(), "stable");
    let shadow = wait_for_copies(&mut proxy, 1);
    assert_eq!((shadow.mirrored.classes, shadow.mirrored.latency.total()), ([0, 1, 0, 0, 0], 1));
    assert_eq!((shadow.counts.requests(), shadow.preview.requests(), shadow.pinned.requests()), (0, 0, 0));
    assert_eq!(released(&mut proxy, 1).counts.requests(), 1);
    let copy = notes.lock().unwrap().pop().unwrap();
    assert_eq!(copy.line, "GET /a?b=c HTTP/1.1");
    let told = ["evenkeel-mirrored", "host", "cookie", "authorization", "x-forwarded-for"].map(|name| copy.field(name));
    assert_eq!(told, ["1", "shop", "session=1", "Bearer x", "127.0.0.1"].map(Some));
}

#[test]
fn only_what_changes_nothing_and_is_short_is_copied() {
    let notes = Arc::default();
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    proxy.apply(mirrored(1, users, saying("stable"), noting(&notes), 100));
    let mut wire = Wire::to(users);
    let body = |bytes: usize| "x".repeat(bytes);
    let sized = |method: &str, bytes: usize| {
        format!("{method} /{method}-{bytes} HTTP/1.1\r\nhost: web\r\ncontent-length: {bytes}\r\n\r\n{}", body(bytes))
    };
    let chunked = "OPTIONS /chunked HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for request in [
        sized("POST", 4),
        sized("PUT", 4),
        sized("DELETE", 0),
        sized("GET", 65_537),
        sized("GET", 65_536),
        chunked.into(),
    ] {
        assert_eq!(wire.request(&request).text(), "stable");
    }
    wire.send("HEAD /head HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(wire.read_head().unwrap().status(), 200);
    wait_for_copies(&mut proxy, 3);
    let mut copies: Vec<(String, usize)> =
        notes.lock().unwrap().iter().map(|copy| (copy.line.clone(), copy.body.len())).collect();
    copies.sort();
    let expected = [("GET /GET-65536 HTTP/1.1", 65_536), ("HEAD /head HTTP/1.1", 0), ("OPTIONS /chunked HTTP/1.1", 3)];
    assert_eq!(copies, expected.map(|(line, bytes)| (line.to_owned(), bytes)));
}

#[test]
fn a_share_of_the_requests_is_copied_and_none_that_a_pin_or_the_target_itself_took() {
    let notes = Arc::default();
    let shadow = noting(&notes);
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    proxy.apply(mirrored(1, users, saying("stable"), shadow, 25));
    let mut wire = Wire::to(users);
    (0..1_000).for_each(|_| assert_eq!(wire.get("/").text(), "stable"));
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
    let copied = notes.lock().unwrap().len();
    let counted = released(&mut proxy, SHADOW);
    assert_eq!(counted.mirrored.requests(), copied as u64, "at both ends");
    let drawn = copied as u64 + counted.mirror_dropped;
    // Five standard deviations of a binomial count: √(n·p·(1−p)) is 13.7.
    assert!(drawn.abs_diff(250) < 70, "{drawn}");

    let mut pinned = mirrored(2, users, saying("stable"), shadow, 100);
    let when = Match::Header { name: "x-tenant".into(), value: ValueMatch::Any };
    pinned.services[0].pins = vec![Pin { when, to: Revision(1) }];
    proxy.apply(pinned);
    assert_eq!(wire.request("GET /pinned HTTP/1.1\r\nhost: web\r\nx-tenant: a\r\n\r\n").text(), "stable");
    let mut all = mirrored(3, users, saying("stable"), shadow, 100);
    all.services[0].releases[0].weight = BasisPoints::NONE;
    all.services[0].releases[1].weight = BasisPoints::ALL;
    proxy.apply(all);
    assert_eq!(wire.get("/own").text(), "shadow");
    wait_for(|| (released(&mut proxy, SHADOW).counts.requests() == 1).then_some(()));
    let lines: Vec<String> = notes.lock().unwrap().iter().skip(copied).map(|copy| copy.line.clone()).collect();
    assert_eq!(lines, ["GET /own HTTP/1.1"]);
}

/// The slowest of many requests over one connection.
fn slowest(users: SocketAddr, requests: usize) -> Duration {
    let mut wire = Wire::to(users);
    let mut timed = || {
        let began = Instant::now();
        assert_eq!(wire.get("/").text(), "stable");
        began.elapsed()
    };
    (0..requests).map(|_| timed()).max().unwrap()
}

#[test]
fn a_target_that_hangs_costs_users_nothing_and_a_bounded_number_of_copies() {
    let (came, went) = (Arc::default(), Arc::default());
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let mut table = mirrored(1, users, saying("stable"), hanging(&came, &went), 100);
    table.services[0].first_byte_timeout_ms = 3_000;
    proxy.apply(table);
    let slowest = slowest(users, 200);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let report = proxy.report();
    let busy: u64 =
        report.in_flight.iter().filter(|busy| busy.replica.revision == Revision(SHADOW)).map(|b| b.requests).sum();
    let dropped = released(&mut proxy, SHADOW).mirror_dropped;
    assert_eq!((busy, dropped), (64, 136), "so that a drain waits for them");
    let shadow = wait_for_copies(&mut proxy, 200);
    assert_eq!((shadow.mirrored.no_answer, shadow.mirrored.latency.total()), (64, 0));
    wait_for(|| (proxy.report().in_flight.is_empty() && went.load(Ordering::SeqCst) == 64).then_some(()));
    assert_eq!(came.load(Ordering::SeqCst), 64, "none is kept once its time is over");
    let stable = released(&mut proxy, 1);
    assert_eq!((stable.counts.requests(), stable.counts.errors()), (200, 0));
}

#[test]
fn a_target_that_is_dead_is_asked_now_and_then_and_counts_as_giving_no_answer() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    proxy.apply(mirrored(1, users, saying("stable"), refusing(), 100));
    let slowest = slowest(users, 500);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let shadow = wait_for_copies(&mut proxy, 500);
    assert_eq!((shadow.mirrored.requests(), shadow.mirrored.no_answer, shadow.mirror_dropped), (500, 500, 0));
    assert_eq!(released(&mut proxy, 1).counts.errors(), 0);
}

#[test]
fn an_answer_to_a_copy_that_has_no_end_is_cut_off() {
    let cut = Arc::new(AtomicUsize::new(0));
    let endless = upstream({
        let cut = cut.clone();
        move |stream| {
            let mut wire = Wire::over(stream);
            wire.read_message();
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while wire.send(format!("1000\r\n{}\r\n", "x".repeat(0x1000))).is_some() {}
            cut.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    proxy.apply(mirrored(1, users, saying("stable"), endless, 100));
    assert_eq!(get(users, "/").text(), "stable");
    wait_for(|| (cut.load(Ordering::SeqCst) == 1 && proxy.report().in_flight.is_empty()).then_some(()));
    assert_eq!(wait_for_copies(&mut proxy, 1).mirrored.classes[1], 1);
}

/// Answers so many requests over each connection and closes it on the next one; counts the connections.
fn answering(requests: usize, accepted: &Arc<AtomicUsize>) -> SocketAddr {
    let accepted = accepted.clone();
    upstream(move |stream| {
        accepted.fetch_add(1, Ordering::SeqCst);
        let mut wire = Wire::over(stream);
        for _ in 0..requests {
            if wire.read_message().is_none() {
                return;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        wire.read_message();
    })
}

#[test]
fn copies_use_their_connections_again_and_one_that_closes_meanwhile_is_no_failure() {
    for (per_connection, connections) in [(1_000, 1), (1, 20)] {
        let accepted = Arc::default();
        let mut proxy = Proxy::start(1);
        let users = proxy.listen();
        proxy.apply(mirrored(1, users, saying("stable"), answering(per_connection, &accepted), 100));
        let mut wire = Wire::to(users);
        for copies in 1..=20 {
            assert_eq!(wire.get("/").text(), "stable");
            assert_eq!(wait_for_copies(&mut proxy, copies).mirrored.classes[1], copies);
            wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
        }
        assert_eq!(accepted.load(Ordering::SeqCst), connections);
    }
}

#[test]
fn nothing_is_copied_once_the_table_says_so() {
    let notes: Arc<Mutex<Vec<Message>>> = Arc::default();
    let shadow = noting(&notes);
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            gone.lock().unwrap().recv().unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstable");
        }
    });
    proxy.apply(mirrored(1, users, slow, shadow, 100));
    let mut wire = Wire::to(users);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    proxy.apply(mirrored(2, users, slow, shadow, 0));
    go.send(()).unwrap();
    assert_eq!(wire.read_message().unwrap().text(), "stable");
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
    assert_eq!(notes.lock().unwrap().len(), 0);
}
