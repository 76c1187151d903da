//! The stable release answers what another one fails; the failure counts against the one that failed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it measures a wait")]

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Message, Proxy, Wire, get, refusing, saying, table, upstream, wait_for};
use evenkeel_core::ids::Revision;
use evenkeel_core::ports::ReleaseReport;
use evenkeel_core::table::RoutingTable;

/// Stable is revision 1, without a share, so that every request meets the candidate, revision 2, first.
fn candidate(generation: u64, listen: SocketAddr, stable: &[SocketAddr], candidate: &[SocketAddr]) -> RoutingTable {
    let mut table = table(generation, listen, &[(0, stable), (100, candidate)]);
    table.services[0].fallback = Some(Revision(1));
    table
}

/// Reads each request whole, notes it, and answers it so.
fn answering(answer: &'static str, seen: &Arc<AtomicUsize>) -> SocketAddr {
    let seen = seen.clone();
    upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
            wire.send(answer);
        }
    })
}

/// Answers with what it was sent.
fn echoing() -> SocketAddr {
    upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(Message { body, .. }) = wire.read_message() {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            wire.send(body);
        }
    })
}

/// Reads a request's head and goes on as told with the connection.
fn after_head(then: impl Fn(Wire) + Send + Sync + 'static) -> SocketAddr {
    upstream(move |stream| {
        let mut wire = Wire::over(stream);
        if wire.read_head().is_some() {
            then(wire);
        }
    })
}

/// Closes with a reset instead of an end.
fn reset(wire: Wire) {
    let stream = wire.reader.into_inner();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Takes whatever comes and says nothing, until the other side closes.
fn hang(mut wire: Wire) {
    let _ = wire.reader.read_to_end(&mut Vec::new());
}

const FAULT: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nfault";
const POST: &str = "POST /pay HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody";

fn released(proxy: &mut Proxy, revision: u32) -> Option<ReleaseReport> {
    proxy.report().releases.into_iter().find(|release| release.revision == Revision(revision))
}

/// Failures as they were, of the candidate, and how many of them no user saw.
fn failures(proxy: &mut Proxy, requests: u64) -> (u64, u64, u64) {
    let counted = wait_for(|| released(proxy, 2).filter(|release| release.counts.requests() == requests));
    (counted.counts.no_answer, counted.counts.classes[4], counted.shielded)
}

#[test]
fn whatever_a_candidate_does_to_gets_their_users_see_only_good_answers() {
    let seen = Arc::new(AtomicUsize::new(0));
    let cases: [(&str, SocketAddr, bool); 8] = [
        ("refuses", refusing(), true),
        ("closes", after_head(drop), true),
        ("resets", after_head(reset), true),
        (
            "closes in the middle of a head",
            after_head(|mut wire| {
                wire.send("HTTP/1.1 200 OK\r\ncont");
            }),
            true,
        ),
        (
            "speaks something else",
            after_head(|mut wire| {
                wire.send("SSH-2.0-x\r\n\r\n");
            }),
            true,
        ),
        (
            "switches unasked",
            after_head(|mut wire| {
                wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n");
            }),
            true,
        ),
        ("answers 500", answering(FAULT, &seen), false),
        (
            "answers 503 without an end",
            after_head(|mut wire| {
                wire.send("HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n");
                wire.is_closed();
            }),
            false,
        ),
    ];
    for (what, bad, silent) in cases {
        let mut proxy = Proxy::start(1);
        let listen = proxy.listen();
        proxy.apply(candidate(1, listen, &[saying("fine")], &[bad]));
        let mut kept = Wire::to(listen);
        for _ in 0..10 {
            let (on_kept, on_new) = (kept.get("/"), get(listen, "/?q=1"));
            assert_eq!((on_kept.status(), on_kept.text()), (200, "fine"), "{what}");
            assert_eq!((on_new.status(), on_new.text()), (200, "fine"), "{what}");
        }
        kept.send("HEAD / HTTP/1.1\r\nhost: web\r\n\r\n");
        let head = kept.read_head().unwrap();
        assert_eq!((head.status(), head.field("content-length")), (200, Some("4")), "{what}");
        assert_eq!(kept.request("OPTIONS * HTTP/1.1\r\nhost: web\r\n\r\n").status(), 200, "{what}");
        let expected = if silent { (22, 0, 22) } else { (0, 22, 22) };
        assert_eq!(failures(&mut proxy, 22), expected, "{what}");
        assert!(released(&mut proxy, 1).is_none(), "stable's answers count for nobody");
        wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
    }
}

#[test]
fn one_that_answers_500_keeps_its_connection() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let failing = upstream(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send(FAULT);
        }
    });
    proxy.apply(candidate(1, listen, &[saying("fine")], &[failing]));
    let mut wire = Wire::to(listen);
    for n in 1..=50 {
        assert_eq!(wire.get("/").text(), "fine");
        wait_for(|| (proxy.report().in_flight.is_empty()).then_some(n));
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[test]
fn stable_counts_its_own_requests_only() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let seen = Arc::new(AtomicUsize::new(0));
    let mut half = table(1, listen, &[(50, &[saying("fine")]), (50, &[answering(FAULT, &seen)])]);
    half.services[0].fallback = Some(Revision(1));
    proxy.apply(half);
    let mut wire = Wire::to(listen);
    for _ in 0..200 {
        assert_eq!(wire.get("/").text(), "fine");
    }
    let of = |proxy: &mut Proxy, revision| released(proxy, revision).map_or(0, |r| r.counts.requests());
    wait_for(|| (of(&mut proxy, 1) + of(&mut proxy, 2) == 200).then_some(()));
    let (stable, candidate) = (released(&mut proxy, 1).unwrap(), released(&mut proxy, 2).unwrap());
    assert_eq!(candidate.counts.requests(), seen.load(Ordering::SeqCst) as u64);
    assert_eq!((candidate.shielded, stable.shielded), (candidate.counts.classes[4], 0));
    assert_eq!(stable.counts.errors(), 0);
    assert_eq!(candidate.counts.latency.total(), candidate.counts.requests(), "its own latency, not stable's");
}

#[test]
fn a_candidate_that_hangs_is_waited_for_as_long_as_stable_never_takes() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (stable, ended) = (saying("fine"), Arc::new(AtomicBool::new(false)));
    // What stable has shown of itself before is what the wait is drawn from.
    proxy.apply(table(1, listen, &[(100, &[stable])]));
    let mut wire = Wire::to(listen);
    (0..120).for_each(|_| drop(wire.get("/")));
    let over = ended.clone();
    let hanging = after_head(move |wire| {
        hang(wire);
        over.store(true, Ordering::SeqCst);
    });
    proxy.apply(candidate(2, listen, &[stable], &[hanging]));
    let began = std::time::Instant::now();
    assert_eq!(wire.get("/").text(), "fine");
    let waited = began.elapsed();
    assert!((Duration::from_millis(850)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    assert_eq!(failures(&mut proxy, 1), (1, 0, 1));
    wait_for(|| ended.load(Ordering::SeqCst).then_some(()));
}

#[test]
fn without_knowledge_of_stable_a_hang_lasts_as_long_as_any_answer_may_take() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mut routes = candidate(1, listen, &[saying("fine")], &[after_head(hang)]);
    routes.services[0].first_byte_timeout_ms = 50;
    proxy.apply(routes);
    assert_eq!(get(listen, "/").text(), "fine");
    assert_eq!(Wire::to(listen).request(POST).status(), 504, "it may have been carried out");
    assert_eq!(failures(&mut proxy, 2), (2, 0, 1));
}

#[test]
fn what_may_have_been_done_is_not_done_again_and_what_was_not_sent_is() {
    let seen = Arc::new(AtomicUsize::new(0));
    let stable = echoing();
    let cases = [(answering(FAULT, &seen), 500), (after_head(drop), 502), (refusing(), 200)];
    for (bad, status) in cases {
        let mut proxy = Proxy::start(1);
        let listen = proxy.listen();
        proxy.apply(candidate(1, listen, &[stable], &[bad]));
        let answer = Wire::to(listen).request(POST);
        assert_eq!(answer.status(), status);
        if status == 200 {
            assert_eq!(answer.text(), "body");
            let long = "x".repeat(300_000);
            let put = format!("PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n{long}", long.len());
            assert_eq!(Wire::to(listen).request(&put).text(), long, "nothing was sent, so all of it is here");
        }
    }
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn a_body_of_a_repeatable_request_is_sent_again_up_to_64_kib_however_it_comes() {
    let seen = Arc::new(AtomicUsize::new(0));
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mut routes = candidate(1, listen, &[echoing()], &[answering(FAULT, &seen)]);
    routes.services[0].idempotent = vec!["/search".into()];
    proxy.apply(routes);
    let sized = |method: &str, path: &str, size: usize| {
        format!("{method} {path} HTTP/1.1\r\nhost: web\r\ncontent-length: {size}\r\n\r\n{}", "x".repeat(size))
    };
    let chunked = |size: usize| {
        let chunk = format!("{size:x}\r\n{}\r\n", "y".repeat(size));
        format!("GET / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")
    };
    let mut wire = Wire::to(listen);
    for (request, status, length) in [
        (sized("GET", "/", 10), 200, 10),
        (sized("GET", "/", 64 << 10), 200, 64 << 10),
        (sized("GET", "/", (64 << 10) + 1), 500, 5),
        (chunked(1000), 200, 2000),
        (chunked(40_000), 500, 5),
        (sized("POST", "/search", 10), 200, 10),
        (sized("POST", "/search/../pay", 10), 500, 5),
        (sized("POST", "/pay", 10), 500, 5),
        (sized("GET", "/", 0), 200, 0),
    ] {
        let answer = wire.request(&request);
        assert_eq!((answer.status(), answer.body.len()), (status, length), "{}", &request[..40]);
    }
    assert_eq!(failures(&mut proxy, 9), (0, 9, 5));
}

#[test]
fn a_body_that_is_still_coming_goes_on_to_stable() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let early = after_head(|mut wire| {
        wire.send(FAULT);
        hang(wire);
    });
    proxy.apply(candidate(1, listen, &[echoing()], &[early]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nfirst");
    wait_for(|| released(&mut proxy, 2).filter(|release| release.counts.classes[4] == 1));
    wire.send("other");
    assert_eq!(wire.read_message().unwrap().text(), "firstother");
    assert_eq!(wire.request("GET / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").text(), "hi");
}

#[test]
fn an_answer_that_has_begun_stays_the_candidates() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let breaking = after_head(|mut wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    proxy.apply(candidate(1, listen, &[saying("fine")], &[breaking]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(wire.read_head().unwrap().status(), 200);
    let mut rest = String::new();
    let _ = wire.reader.read_to_string(&mut rest);
    assert_eq!(rest, "half");
    assert_eq!(failures(&mut proxy, 1), (0, 0, 0));
}

#[test]
fn without_a_fallback_and_in_previews_the_candidates_answer_is_shown() {
    let seen = Arc::new(AtomicUsize::new(0));
    let mut proxy = Proxy::start(1);
    let (listen, preview) = (proxy.listen(), proxy.listen());
    let (stable, bad) = (saying("fine"), answering(FAULT, &seen));
    let mut routes = candidate(1, listen, &[stable], &[bad]);
    routes.services[0].preview = Some(preview);
    proxy.apply(routes.clone());
    assert_eq!(get(listen, "/").status(), 200);
    let shown = Wire::to(preview).request("GET / HTTP/1.1\r\nhost: r2.web\r\n\r\n");
    assert_eq!((shown.status(), shown.text(), shown.field("evenkeel-release")), (500, "fault", Some("r2")));
    for (generation, fallback) in [(2, None), (3, Some(Revision(2))), (4, Some(Revision(9)))] {
        routes.generation.0 = generation;
        routes.services[0].fallback = fallback;
        proxy.apply(routes.clone());
        assert_eq!((get(listen, "/").status(), generation), (500, generation));
    }
    let mut bare = candidate(5, listen, &[], &[bad]);
    bare.services[0].releases[0].backends.clear();
    proxy.apply(bare);
    assert_eq!(get(listen, "/").status(), 500, "stable has no replica");
    assert_eq!(failures(&mut proxy, 5), (0, 5, 1));
}

#[test]
fn a_share_without_a_replica_is_answered_by_stable_and_counts_as_no_answer() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(candidate(1, listen, &[echoing()], &[]));
    assert_eq!(Wire::to(listen).request(POST).text(), "body");
    proxy.apply(table(2, listen, &[(0, &[]), (100, &[])]));
    assert_eq!(get(listen, "/").status(), 503);
    assert_eq!(failures(&mut proxy, 2), (2, 0, 1));
}

#[test]
fn stable_answers_also_when_the_candidate_fails_after_it_was_taken_back() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let late = after_head(move |mut wire| {
        let _ = told.lock().unwrap().recv();
        wire.send(FAULT);
    });
    let stable = saying("fine");
    proxy.apply(candidate(1, listen, &[stable], &[late]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    let mut back = table(2, listen, &[(100, &[stable])]);
    back.services[0].fallback = Some(Revision(1));
    proxy.apply(back);
    go_on.send(()).unwrap();
    assert_eq!(wire.read_message().unwrap().text(), "fine");
    assert_eq!(failures(&mut proxy, 1), (0, 1, 1));
    assert!(released(&mut proxy, 1).is_none());
}

#[test]
fn stable_is_tried_at_all_its_replicas_and_its_own_failure_is_shown() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(candidate(1, listen, &[refusing(), saying("fine"), after_head(drop)], &[refusing()]));
    for _ in 0..10 {
        assert_eq!(get(listen, "/").text(), "fine");
    }
    let seen = Arc::new(AtomicUsize::new(0));
    proxy.apply(candidate(2, listen, &[answering(FAULT, &seen)], &[after_head(drop)]));
    assert_eq!(get(listen, "/").status(), 500);
    proxy.apply(candidate(3, listen, &[refusing()], &[refusing()]));
    assert_eq!(get(listen, "/").status(), 502);
    assert_eq!(failures(&mut proxy, 12), (12, 0, 10), "what users saw failing was not spared them");
}

#[test]
fn stable_takes_on_no_more_than_it_can() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            let _ = gate.lock().unwrap().recv();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
        }
    });
    let seen = Arc::new(AtomicUsize::new(0));
    proxy.apply(candidate(1, listen, &[slow], &[answering(FAULT, &seen)]));
    let mut waiting: Vec<Wire> = (0..64).map(|_| Wire::to(listen)).collect();
    for wire in &mut waiting {
        wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    }
    let at_stable = |proxy: &mut Proxy| {
        let busy = proxy.report().in_flight;
        busy.iter().filter(|busy| busy.replica.revision == Revision(1)).map(|busy| busy.requests).sum::<u64>()
    };
    wait_for(|| (at_stable(&mut proxy) == 64).then_some(()));
    assert_eq!(get(listen, "/").status(), 500);
    (0..64).for_each(|_| go_on.send(()).unwrap());
    waiting.iter_mut().for_each(|wire| assert_eq!(wire.read_message().unwrap().text(), "fine"));
    wait_for(|| (at_stable(&mut proxy) == 0).then_some(()));
    go_on.send(()).unwrap();
    assert_eq!(get(listen, "/").text(), "fine");
    assert_eq!(failures(&mut proxy, 66), (0, 66, 65));
}

#[test]
fn streams_and_upgrades_go_on_as_without_a_shield() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let talking = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(head) = wire.read_head() {
            if head.field("upgrade").is_some() {
                wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n");
                let mut bytes = [0; 4];
                wire.reader.read_exact(&mut bytes).unwrap();
                wire.send(bytes);
                return;
            }
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while let Some(chunk) = wire.read_chunk() {
                wire.send(format!("{:x}\r\n", chunk.len()));
                wire.send(chunk);
                wire.send("\r\n");
            }
            wire.send("0\r\n\r\n");
        }
    });
    proxy.apply(candidate(1, listen, &[saying("fine")], &[talking]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    assert_eq!(wire.read_head().unwrap().status(), 200);
    assert_eq!(wire.read_chunk().unwrap(), b"first");
    wire.send("6\r\nsecond\r\n");
    assert_eq!(wire.read_chunk().unwrap(), b"second");
    wire.send("0\r\n\r\n");
    assert_eq!(wire.read_chunk(), None);
    let upgrade = "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    wire.send(upgrade);
    assert_eq!(wire.read_head().unwrap().status(), 101);
    wire.send("ping");
    let mut back = [0; 4];
    wire.reader.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");

    let seen = Arc::new(AtomicUsize::new(0));
    proxy.apply(candidate(2, listen, &[saying("fine")], &[answering(FAULT, &seen)]));
    assert_eq!(Wire::to(listen).request(upgrade).status(), 500, "an upgrade is not tried again");
}

#[test]
fn many_clients_of_a_release_that_is_thoroughly_bad_meet_no_error() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let seen = Arc::new(AtomicUsize::new(0));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bad = [closed, answering(FAULT, &seen), after_head(reset), after_head(drop)];
    let mut half = table(1, listen, &[(50, &[saying("fine")]), (50, &bad)]);
    half.services[0].fallback = Some(Revision(1));
    proxy.apply(half);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut wire = Wire::to(listen);
                (0..200).filter(|_| wire.get("/").text() != "fine").count()
            })
        })
        .collect();
    assert_eq!(clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>(), 0);
    let counted = released(&mut proxy, 2).unwrap();
    assert_eq!((counted.counts.errors(), counted.shielded), (counted.counts.requests(), counted.counts.requests()));
}
