//! Which release a request meets for what it is: pins, and shares that stick.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use common::{Message, Proxy, Wire, get, refusing, saying, table, upstream, wait_for};
use evenkeel_core::choice::{Match, Pin, StickyBy, ValueMatch};
use evenkeel_core::ids::Revision;
use evenkeel_core::ports::ReleaseReport;
use evenkeel_core::table::RoutingTable;
use evenkeel_wire::proxy::{Answer, Ask};

fn pin(when: Match, to: u32) -> Pin {
    Pin { when, to: Revision(to) }
}

fn header(name: &str, value: &str) -> Match {
    Match::Header { name: name.into(), value: ValueMatch::Exact(value.into()) }
}

fn cookie(name: &str, value: &str) -> Match {
    Match::Cookie { name: name.into(), value: ValueMatch::Exact(value.into()) }
}

fn with_pins(mut table: RoutingTable, pins: &[Pin]) -> RoutingTable {
    table.services[0].pins = pins.to_vec();
    table
}

fn sticking(mut table: RoutingTable, by: StickyBy) -> RoutingTable {
    table.services[0].sticky = Some(by);
    table
}

fn ask(address: SocketAddr, target: &str, fields: &str) -> Message {
    Wire::to(address).request(&format!("GET {target} HTTP/1.1\r\nhost: web\r\n{fields}\r\n"))
}

fn released(proxy: &mut Proxy, revision: u32) -> ReleaseReport {
    let found = proxy.report().releases.into_iter().find(|release| release.revision == Revision(revision));
    found.unwrap_or_else(|| ReleaseReport::new("web".to_owned().try_into().unwrap(), Revision(revision)))
}

fn wait_until_counted(proxy: &mut Proxy, requests: u64) {
    let all = |report: &ReleaseReport| report.counts.requests() + report.pinned.requests();
    wait_for(|| (proxy.report().releases.iter().map(all).sum::<u64>() == requests).then_some(()));
}

#[test]
fn a_pinned_request_meets_its_release_whatever_the_shares_and_is_counted_apart() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let releases = table(1, users, &[(100, &[saying("stable")]), (0, &[saying("candidate")])]);
    let query = Match::Query { name: "preview".into(), value: ValueMatch::Any };
    proxy.apply(with_pins(releases, &[pin(header("X-Beta", "1"), 2), pin(cookie("beta", "in"), 2), pin(query, 2)]));
    for fields in ["x-BETA: 1\r\n", "X-Beta: 0\r\nx-beta: 1\r\n", "cookie: a=b\r\nCookie: c=d; beta=\"in\"\r\n"] {
        assert_eq!(ask(users, "/", fields).text(), "candidate", "{fields}");
    }
    assert_eq!(ask(users, "/a?b=c&preview", "").text(), "candidate");
    for fields in ["", "x-beta: 2\r\n", "cookie: beta=out\r\n", "cookie: beta=%69n\r\n", "x-betas: 1\r\n"] {
        assert_eq!(ask(users, "/preview?b=preview", fields).text(), "stable", "{fields}");
    }
    wait_until_counted(&mut proxy, 9);
    let [stable, candidate] = [1, 2].map(|revision| released(&mut proxy, revision));
    assert_eq!((stable.counts.requests(), stable.pinned.requests()), (5, 0));
    assert_eq!((candidate.counts.requests(), candidate.pinned.requests()), (0, 4));
    assert_eq!(candidate.pinned.latency.total(), 4);
}

#[test]
fn the_first_pin_that_matches_decides_and_one_to_nobody_leaves_it_to_the_shares() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let pins = [pin(header("x-tenant", "acme"), 1), pin(header("x-beta", "1"), 2), pin(header("x-beta", "1"), 1)];
    let stable = saying("stable");
    proxy.apply(with_pins(table(1, users, &[(0, &[stable]), (100, &[saying("candidate")])]), &pins));
    assert_eq!(ask(users, "/", "x-beta: 1\r\nx-tenant: acme\r\n").text(), "stable");
    assert_eq!(ask(users, "/", "x-beta: 1\r\n").text(), "candidate");
    proxy.apply(with_pins(table(2, users, &[(100, &[stable]), (0, &[])]), &pins));
    assert_eq!(ask(users, "/", "x-beta: 1\r\n").text(), "stable");
    wait_until_counted(&mut proxy, 3);
    assert_eq!(released(&mut proxy, 1).counts.requests(), 1, "chosen by share");
}

#[test]
fn who_is_pinned_to_a_candidate_sees_its_failures() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let failing = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let tables = [
        table(1, users, &[(0, &[saying("stable")]), (100, &[failing])]),
        table(2, users, &[(0, &[saying("stable")]), (100, &[refusing()])]),
    ];
    for (mut releases, status) in tables.into_iter().zip([500, 502]) {
        releases.services[0].fallback = Some(Revision(1));
        proxy.apply(with_pins(releases, &[pin(header("x-beta", "1"), 2)]));
        assert_eq!(ask(users, "/", "x-beta: 1\r\n").status(), status);
        assert_eq!(ask(users, "/", "").text(), "stable");
    }
    wait_until_counted(&mut proxy, 4);
    let candidate = released(&mut proxy, 2);
    assert_eq!((candidate.counts.errors(), candidate.pinned.errors(), candidate.shielded), (2, 2, 2));
}

#[test]
fn a_pinned_request_goes_to_another_replica_of_its_release() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let releases = table(1, users, &[(100, &[saying("stable")]), (0, &[refusing(), saying("candidate")])]);
    proxy.apply(with_pins(releases, &[pin(header("x-beta", "1"), 2)]));
    assert!((0..20).all(|_| ask(users, "/", "x-beta: 1\r\n").text() == "candidate"));
    wait_until_counted(&mut proxy, 20);
    assert_eq!(released(&mut proxy, 2).pinned.requests(), 20);
}

#[test]
fn a_table_with_a_pin_to_nowhere_is_refused_and_the_one_in_force_stays() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    proxy.apply(table(1, users, &[(100, &[saying("stable")])]));
    let bad = with_pins(table(2, users, &[(100, &[refusing()])]), &[pin(header("x-beta", "1"), 9)]);
    match proxy.ask(&Ask::Apply { table: Box::new(bad) }) {
        Answer::Refused { why } => assert_eq!(why.to_string(), "`web` pins requests to r9, which is not in the table"),
        other => panic!("{other:?}"),
    }
    assert_eq!(get(users, "/").text(), "stable");
}

fn halves(generation: u64, users: SocketAddr, sides: [SocketAddr; 2], candidate: u16) -> RoutingTable {
    table(generation, users, &[(100 - candidate, &sides[..1]), (candidate, &sides[1..])])
}

/// The users, of a few hundred, that meet the candidate.
fn moved(users: SocketAddr) -> BTreeSet<u32> {
    let mut wire = Wire::to(users);
    let mut meets = |n: &u32| {
        wire.request(&format!("GET / HTTP/1.1\r\nhost: web\r\ncookie: a=b; session=user-{n}\r\n\r\n")).text()
            == "candidate"
    };
    (0..300).filter(|n| meets(n)).collect()
}

#[test]
fn a_session_stays_on_its_side_over_workers_restarts_and_changes_of_the_share() {
    let by = || StickyBy::Cookie("session".into());
    let sides = [saying("stable"), saying("candidate")];
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    proxy.apply(sticking(halves(1, users, sides, 20), by()));
    let fifth = moved(users);
    assert!((30..90).contains(&fifth.len()), "{}", fifth.len());
    assert_eq!(moved(users), fifth, "over another connection, perhaps of another worker");
    proxy.apply(sticking(halves(2, users, sides, 60), by()));
    let most = moved(users);
    assert!(most.is_superset(&fifth) && (140..220).contains(&most.len()), "{}", most.len());
    proxy.apply(sticking(halves(3, users, sides, 20), by()));
    assert_eq!(moved(users), fifth);
    let directory = proxy.directory.clone();
    proxy.stop(common::PATIENCE);
    let mut successor = Proxy::start_in(directory, 1);
    let socket = std::net::TcpListener::bind(users).unwrap();
    successor.listen_on(&socket);
    assert_eq!(moved(users), fifth, "by the table on disk");
}

#[test]
fn without_the_key_each_request_is_decided_by_itself() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let sides = [saying("stable"), saying("candidate")];
    proxy.apply(sticking(halves(1, users, sides, 50), StickyBy::Header("X-User".into())));
    let mut wire = Wire::to(users);
    let met: BTreeSet<String> = (0..60).map(|_| wire.get("/").text().to_owned()).collect();
    assert_eq!(met.len(), 2);
    wait_until_counted(&mut proxy, 60);
    assert_eq!([1, 2].map(|revision| released(&mut proxy, revision).pinned.requests()), [0, 0]);
}

#[test]
fn an_address_sticks() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let sides = [saying("stable"), saying("candidate")];
    proxy.apply(sticking(halves(1, users, sides, 50), StickyBy::ClientAddress));
    let first = get(users, "/").body;
    assert!((0..40).all(|_| get(users, "/").body == first));
    let told = |n: u32| ask(users, "/", &format!("x-forwarded-for: 192.0.2.{n}\r\n")).body;
    assert_eq!((0..40).map(told).collect::<BTreeSet<_>>().len(), 2, "those behind a front on this machine");
}

#[test]
fn a_visitor_is_given_a_cookie_once_and_stays_where_the_first_request_was() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let sides = [saying("stable"), saying("candidate")];
    proxy.apply(sticking(halves(1, users, sides, 50), StickyBy::Visitor));
    let mut met = BTreeSet::new();
    for _ in 0..30 {
        let first = get(users, "/");
        let given = first.field("set-cookie").expect("a cookie").to_owned();
        let (name, rules) = given.split_once("; ").unwrap();
        assert_eq!(rules, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");
        let again = ask(users, "/", &format!("cookie: {name}\r\n"));
        assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
        met.insert((first.text().to_owned(), name.to_owned()));
    }
    assert_eq!(met.len(), 30, "each has a cookie of their own");
    assert_eq!(met.iter().map(|(release, _)| release).collect::<BTreeSet<_>>().len(), 2);
    proxy.apply(sticking(halves(2, users, sides, 100), StickyBy::Visitor));
    assert_eq!(get(users, "/").field("set-cookie"), None, "nothing is to be decided");
}

#[test]
fn a_cookie_of_the_service_stays_beside_that_of_a_visitor() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let setting = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send("HTTP/1.1 200 OK\r\nset-cookie: own=1\r\ncontent-length: 0\r\n\r\n");
        }
    });
    proxy.apply(sticking(halves(1, users, [setting, setting], 50), StickyBy::Visitor));
    let answer = get(users, "/");
    let set: Vec<&str> =
        answer.fields.iter().filter(|(name, _)| name == "set-cookie").map(|(_, v)| v.as_str()).collect();
    assert_eq!((set.len(), set[0]), (2, "own=1"));
}
