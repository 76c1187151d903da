//! How long requests may take where their path has times of its own.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the helpers are test code too")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{Proxy, Wire, saying, table, upstream};
use evenkeel_core::ids::Revision;
use evenkeel_core::timeout::Timeout;

/// Longer than any wait of the test may be.
const LONG: Duration = Duration::from_secs(15);
const SHORT: Option<Duration> = Some(Duration::from_millis(200));

fn timeout(path: &str) -> Timeout {
    Timeout { path: path.to_owned(), ..Timeout::default() }
}

/// Answers `/silent` never, `/stalling` in part and then no more, `/endless` with a byte again and again.
fn slow() -> SocketAddr {
    upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
            if request.line.contains("/silent") {
                continue;
            }
            wire.send(head);
            while request.line.contains("/endless") && wire.send("1\r\na\r\n").is_some() {
                std::thread::sleep(Duration::from_millis(10));
            }
            if request.line.contains("/whole") {
                wire.send("0\r\n\r\n");
            }
        }
    })
}

#[test]
fn a_path_has_a_first_byte_a_pause_and_an_end_of_its_own() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mut whole = table(1, listen, &[(100, &[slow()])]);
    whole.services[0].edge.timeouts = vec![
        Timeout { first_byte: SHORT, ..timeout("/silent/a") },
        Timeout { whole: SHORT, ..timeout("/silent/b") },
        Timeout { idle: SHORT, ..timeout("/stalling") },
        Timeout { whole: SHORT, ..timeout("/endless") },
    ];
    proxy.apply(whole);
    let began = Instant::now();
    for path in ["/silent/a", "/silent/b"] {
        assert_eq!(Wire::to(listen).get(path).status(), 504, "{path}");
    }
    for path in ["/stalling", "/endless"] {
        let mut wire = Wire::to(listen);
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n")).unwrap();
        assert_eq!(wire.read_head().unwrap().status(), 200, "{path}");
        while wire.read_chunk().is_some() {}
        assert!(wire.is_closed(), "{path}: the answer is cut off, and that can be seen");
    }
    assert!(began.elapsed() < LONG);
    let mut wire = Wire::to(listen);
    assert_eq!((wire.get("/whole").text(), wire.get("/whole").text()), ("a", "a"), "others are not limited");
}

#[test]
fn a_first_byte_that_is_late_is_answered_by_the_stable_release_but_not_when_all_the_time_is_over() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mut whole = table(1, listen, &[(0, &[saying("fine")]), (100, &[slow()])]);
    whole.services[0].fallback = Some(Revision(1));
    whole.services[0].edge.timeouts =
        vec![Timeout { first_byte: SHORT, ..timeout("/silent/a") }, Timeout { whole: SHORT, ..timeout("/silent/b") }];
    proxy.apply(whole);
    assert_eq!(Wire::to(listen).get("/silent/a").text(), "fine");
    assert_eq!(Wire::to(listen).get("/silent/b").status(), 504);
    let failed = |release: &evenkeel_wire::proxy::ReleaseReport| release.counts.no_answer == 2;
    common::wait_for(|| proxy.report().releases.into_iter().find(|r| r.revision == Revision(2)).filter(failed));
}
