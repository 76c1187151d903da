//! Replicas and clients that fail in every way they can: what the other side sees, and that nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the helpers are test code too, and slow peers take their time"
)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{Proxy, Wire, get, refusing, saying, table, upstream, wait_for};
use evenkeel_core::ids::Revision;
use evenkeel_core::table::RoutingTable;

/// Shorter than any fault lasts, and long enough for a replica that is well.
const FIRST_BYTE_MS: u64 = 700;

/// What the client sees of a replica's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// An answer with this status, and a connection that goes on.
    Answer(u16),
    /// An answer that began well and breaks off: the client can tell, for its connection closes before the end.
    BrokenOff,
}

/// A replica that reads a request and then does this with its connection.
fn after_a_request(act: impl Fn(&mut Wire) + Send + Sync + 'static) -> SocketAddr {
    upstream(move |stream| {
        let mut wire = Wire::over(stream);
        if wire.read_head().is_some() {
            act(&mut wire);
        }
    })
}

/// Closes with a reset in place of an end.
fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

fn faults() -> Vec<(&'static str, SocketAddr, Seen)> {
    let says = |bytes: &'static [u8]| {
        after_a_request(move |wire| {
            let _ = wire.send(bytes);
        })
    };
    let then_hangs = |bytes: &'static [u8]| {
        after_a_request(move |wire| {
            wire.send(bytes);
            let _ = wire.reader.read(&mut [0]);
        })
    };
    let endless = |part: &'static [u8]| {
        after_a_request(move |wire| {
            wire.send("HTTP/1.1 200 OK\r\n");
            while wire.send(part).is_some() {}
        })
    };
    vec![
        ("refuses", refusing(), Seen::Answer(502)),
        ("resets when it is connected to", upstream(|stream| reset(&stream)), Seen::Answer(502)),
        ("resets when it is asked", after_a_request(|wire| reset(wire.reader.get_ref())), Seen::Answer(502)),
        ("closes when it is asked", says(b""), Seen::Answer(502)),
        ("closes in the middle of a head", says(b"HTTP/1.1 200 OK\r\ncontent-le"), Seen::Answer(502)),
        ("hangs", then_hangs(b""), Seen::Answer(504)),
        ("hangs in the middle of a head", then_hangs(b"HTTP/1.1 200 OK\r\ncontent-le"), Seen::Answer(504)),
        (
            "says its head byte by byte",
            after_a_request(|wire| {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".chunks(1) {
                    std::thread::sleep(Duration::from_millis(50));
                    wire.send(byte);
                }
            }),
            Seen::Answer(504),
        ),
        (
            "says 100 again and again",
            after_a_request(|wire| while wire.send("HTTP/1.1 100 Continue\r\n\r\n").is_some() {}),
            Seen::Answer(504),
        ),
        ("speaks something else", says(b"220 smtp.example ESMTP\r\n"), Seen::Answer(502)),
        ("speaks TLS", says(b"\x15\x03\x01\0\x02\x02\x0a"), Seen::Answer(502)),
        (
            "has a head without end",
            endless(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
            Seen::Answer(502),
        ),
        (
            "has a field without end",
            endless(b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
            Seen::Answer(502),
        ),
        ("has a status that is none", says(b"HTTP/1.1 20 OK\r\n\r\n"), Seen::Answer(502)),
        (
            "switches protocols unasked",
            says(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            Seen::Answer(502),
        ),
        (
            "says two lengths",
            says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
            Seen::Answer(502),
        ),
        ("says a length that is none", says(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc"), Seen::Answer(502)),
        ("says more than there is", says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), Seen::BrokenOff),
        (
            "ends before the last chunk",
            says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            Seen::BrokenOff,
        ),
        (
            "has a chunk that is none",
            says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n"),
            Seen::BrokenOff,
        ),
        ("says less than there is", says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc"), Seen::Answer(200)),
        (
            "answers before it is told everything",
            says(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno"),
            Seen::Answer(413),
        ),
    ]
}

fn faulty(listen: SocketAddr, replica: SocketAddr) -> RoutingTable {
    let mut table = table(1, listen, &[(100, &[replica])]);
    table.services[0].first_byte_timeout_ms = FIRST_BYTE_MS;
    table
}

fn seen(wire: &mut Wire) -> Option<Seen> {
    let head = wire.read_head()?;
    let whole = match head.field("content-length") {
        Some(length) => wire.reader.read_exact(&mut vec![0; length.parse().unwrap()]).is_ok(),
        None if head.field("transfer-encoding").is_some() => {
            let mut rest = Vec::new();
            // Of a connection that stays open, this would wait for more.
            wire.reader.get_ref().set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            wire.reader.read_to_end(&mut rest).is_err() || rest.ends_with(b"0\r\n\r\n")
        }
        None => true,
    };
    Some(if whole { Seen::Answer(head.status()) } else { Seen::BrokenOff })
}

#[test]
fn each_fault_of_a_replica_has_its_answer_and_counts_once_against_it() {
    let checks: Vec<_> = faults()
        .into_iter()
        .map(|(fault, replica, expected)| {
            std::thread::spawn(move || {
                let mut proxy = Proxy::start(1);
                let listen = proxy.listen();
                proxy.apply(faulty(listen, replica));
                let mut wire = Wire::to(listen);
                // Not to be repeated, so that every fault is met once.
                wire.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n");
                let seen = seen(&mut wire);
                let counted = proxy.wait_for_release(|release| release.counts.requests() == 1).counts;
                let answered = matches!(expected, Seen::Answer(200 | 413) | Seen::BrokenOff);
                let right = seen == Some(expected) && (counted.no_answer == 0) == answered;
                wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
                (!right).then(|| format!("{fault}: {seen:?} in place of {expected:?}, {counted:?}"))
            })
        })
        .collect();
    let wrong: Vec<String> = checks.into_iter().filter_map(|check| check.join().unwrap()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn users_whose_request_may_be_repeated_see_no_fault_of_a_candidate() {
    let checks: Vec<_> = faults()
        .into_iter()
        .filter(|(_, _, seen)| matches!(seen, Seen::Answer(502 | 504)))
        .map(|(fault, replica, _)| {
            std::thread::spawn(move || {
                let mut proxy = Proxy::start(1);
                let listen = proxy.listen();
                let mut routes = table(1, listen, &[(0, &[saying("fine")]), (100, &[replica])]);
                routes.services[0].fallback = Some(Revision(1));
                routes.services[0].first_byte_timeout_ms = FIRST_BYTE_MS;
                proxy.apply(routes);
                let answers: Vec<u16> = (0..2).map(|_| get(listen, "/").status()).collect();
                (answers != [200, 200]).then(|| format!("{fault}: {answers:?}"))
            })
        })
        .collect();
    let wrong: Vec<String> = checks.into_iter().filter_map(|check| check.join().unwrap()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An answer that nobody asked for must not become somebody else's.
#[test]
fn what_a_replica_says_beyond_its_answer_reaches_nobody() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let chatty = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send(
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmineHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
            );
        }
    });
    proxy.apply(table(1, listen, &[(100, &[chatty])]));
    let mut wires: Vec<Wire> = (0..4).map(|_| Wire::to(listen)).collect();
    for round in 0..50 {
        for wire in &mut wires {
            assert_eq!(wire.get("/").text(), "mine", "round {round}");
        }
    }
}

#[test]
fn clients_that_say_their_heads_byte_by_byte_are_ended_and_others_are_served_meanwhile() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[saying("fine")])]));
    let began = Instant::now();
    let slow: Vec<_> = (0..50)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(listen).unwrap();
                let head = b"GET / HTTP/1.1\r\nhost: web\r\nx: ".iter().copied().chain(std::iter::repeat(b'y'));
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                for byte in head {
                    if stream.write_all(&[byte]).is_err() || matches!(stream.read(&mut [0]), Ok(0)) {
                        return;
                    }
                    assert!(began.elapsed() < Duration::from_secs(20), "still open");
                }
            })
        })
        .collect();
    while !slow.iter().all(std::thread::JoinHandle::is_finished) {
        assert_eq!(get(listen, "/").text(), "fine");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}: a client may take its time", began.elapsed());
    slow.into_iter().for_each(|client| client.join().unwrap());
    wait_for(|| (proxy.report().connections == 0).then_some(()));
}

#[test]
fn clients_that_go_in_the_middle_leave_nothing_behind() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let slow = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_head().is_some() {
            std::thread::sleep(Duration::from_millis(20));
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
            wire.send(vec![7; 100_000]);
        }
    });
    proxy.apply(table(1, listen, &[(100, &[slow])]));
    for begun in [
        &b""[..],
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: web\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01a",
    ] {
        for gone in [false, true] {
            let mut stream = TcpStream::connect(listen).unwrap();
            stream.write_all(begun).unwrap();
            if gone {
                reset(&stream);
            } else {
                // In the middle of an answer, where there is one.
                stream.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
                let _ = stream.read(&mut [0; 100]);
            }
        }
    }
    wait_for(|| {
        let report = proxy.report();
        (report.connections == 0 && report.in_flight.is_empty()).then_some(())
    });
    assert!(proxy.is_running());
}

#[test]
fn replicas_that_come_and_go_under_load_cost_nobody_an_answer_while_one_is_there() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let steady = saying("fine");
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let fickle = place.local_addr().unwrap();
    drop(place);
    proxy.apply(table(1, listen, &[(100, &[steady, fickle])]));
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let ended = ended.clone();
            std::thread::spawn(move || {
                let mut wire = Wire::to(listen);
                let mut answered = 0;
                while !ended.load(Ordering::SeqCst) {
                    assert_eq!(wire.get("/").status(), 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let (told, lives) = mpsc::channel();
    for _ in 0..5 {
        let listener = wait_for(|| TcpListener::bind(fickle).ok());
        let told = told.clone();
        let life = std::thread::spawn(move || {
            // Each connection gets a few answers and is then closed in order, as by a restart.
            listener.set_nonblocking(true).unwrap();
            let until = Instant::now() + Duration::from_millis(200);
            while Instant::now() < until {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                std::thread::spawn(move || {
                    let mut wire = Wire::over(stream);
                    for _ in 0..3 {
                        if wire.read_message().is_none() {
                            return;
                        }
                        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                    }
                });
            }
            told.send(()).unwrap();
        });
        life.join().unwrap();
        lives.recv().unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(answered > 200, "{answered}");
}
