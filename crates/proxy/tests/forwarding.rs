//! Requests and answers on their way, with replicas that are well and replicas that are not.

mod common;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Message, Proxy, Wire, get, refusing, saying, table, upstream, wait_for};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_refused_request_goes_to_another_replica_of_its_release_with_its_body() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let bodies = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(Message { body, .. }) = wire.read_message() {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            wire.send(body);
        }
    });
    proxy.apply(table(1, listen, &[(100, &[refusing(), bodies, refusing()])]));
    for _ in 0..20 {
        let answer = Wire::to(listen).request("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody");
        assert_eq!((answer.status(), answer.text()), (200, "body"));
    }
    let counted = proxy.wait_for_release(|r| r.counts.requests() == 20);
    assert_eq!(counted.counts.classes[1], 20);
}

#[test]
fn a_release_whose_replicas_all_refuse_is_no_answer_and_is_tried_again_the_next_time() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let address = refusing();
    proxy.apply(table(1, listen, &[(100, &[address, refusing()])]));
    assert_eq!(get(listen, "/").status(), 502);
    assert_eq!(proxy.wait_for_release(|r| r.counts.no_answer == 1).counts.requests(), 1);
    let back = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut wire = Wire::over(back.accept().unwrap().0);
        wire.read_message();
        wire.send(OK);
    });
    assert_eq!(get(listen, "/").status(), 200);
}

#[test]
fn requests_are_counted_by_method_and_exact_status() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let as_asked = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(Message { line, .. }) = wire.read_message() {
            let status = line.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
            wire.send(format!("HTTP/1.1 {status} As Asked\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    proxy.apply(table(1, listen, &[(100, &[as_asked])]));
    for asked in ["GET /200", "GET /200", "GET /404", "POST /503", "BREW /418"] {
        Wire::to(listen).request(&format!("{asked} HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n"));
    }
    let counted = proxy.wait_for_release(|r| r.counts.requests() == 5);
    let answers: Vec<String> = counted.answers.iter().map(|(s, m, n)| format!("{} {s} {n}", m.name())).collect();
    assert_eq!(answers, ["GET 200 2", "GET 404 1", "other 418 1", "POST 503 1"]);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let counting = upstream(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send(OK);
        }
    });
    proxy.apply(table(1, listen, &[(100, &[counting])]));
    let mut wire = Wire::to(listen);
    for _ in 0..50 {
        assert_eq!(wire.get("/").text(), "ok");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.report().connections, 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let echo = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            let path = request.line.split(' ').nth(1).unwrap().to_owned();
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len()));
        }
    });
    proxy.apply(table(1, listen, &[(100, &[echo])]));
    let mut wire = Wire::to(listen);
    wire.send(
        "POST /a HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n\
         POST /b HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\n\r\nabcGET /c HTTP/1.1\r\nhost: web\r\n\r\n",
    );
    for path in ["/a", "/b", "/c"] {
        assert_eq!(wire.read_message().unwrap().text(), path);
    }
}

#[test]
fn bodies_stream_both_ways_before_either_is_complete() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let echo = upstream(|stream| {
        let mut wire = Wire::over(stream);
        wire.read_head().unwrap();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while let Some(chunk) = wire.read_chunk() {
            wire.send(format!("{:x}\r\n", chunk.len()));
            wire.send(chunk);
            wire.send("\r\n");
        }
        wire.send("0\r\n\r\n");
    });
    proxy.apply(table(1, listen, &[(100, &[echo])]));
    let mut wire = Wire::to(listen);
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    assert_eq!(wire.read_head().unwrap().field("transfer-encoding"), Some("chunked"));
    assert_eq!(wire.read_chunk().unwrap(), b"first");
    wire.send("6\r\nsecond\r\n");
    assert_eq!(wire.read_chunk().unwrap(), b"second");
    wire.send("0\r\n\r\n");
    assert_eq!(wire.read_chunk(), None);
}

#[test]
fn large_bodies_arrive_whole() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let echo = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(Message { body, .. }) = wire.read_message() {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            wire.send(body);
        }
    });
    proxy.apply(table(1, listen, &[(100, &[echo])]));
    let body: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut wire = Wire::to(listen);
    for _ in 0..2 {
        wire.send(format!("PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n", body.len()));
        wire.send(&body);
        assert!(wire.read_message().unwrap().body == body);
    }
}

#[test]
fn clients_and_replicas_of_http_1_0_are_served() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let old = upstream(|stream| {
        let mut wire = Wire::over(stream);
        wire.read_message();
        wire.send("HTTP/1.0 200 OK\r\nserver: old\r\n\r\nto the end");
    });
    proxy.apply(table(1, listen, &[(100, &[old])]));
    let mut wire = Wire::to(listen);
    for _ in 0..3 {
        assert_eq!(wire.get("/").text(), "to the end", "kept open for a client of HTTP/1.1");
    }
    let mut wire = Wire::to(listen);
    let answer = wire.request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.text(), answer.field("transfer-encoding")), ("to the end", None));
    assert!(wire.is_closed());
}

#[test]
fn a_head_request_gets_a_length_and_no_body() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[saying("four")])]));
    let mut wire = Wire::to(listen);
    wire.send("HEAD / HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(wire.read_head().unwrap().field("content-length"), Some("4"));
    assert_eq!(wire.get("/").text(), "four");
}

#[test]
fn an_expectation_is_answered_before_the_body_is_sent() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[saying("done")])]));
    let mut wire = Wire::to(listen);
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(wire.read_head().unwrap().status(), 100);
    wire.send("abc");
    assert_eq!(wire.read_message().unwrap().text(), "done");
}

#[test]
fn a_replica_sees_who_asked_and_no_field_of_the_hop_before() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (seen, heads) = mpsc::channel();
    let seen = Mutex::new(seen);
    let noting = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            seen.lock().unwrap().send(request).unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x-private\r\nx-private: 1\r\nkeep-alive: 1\r\n\r\n");
        }
    });
    proxy.apply(table(1, listen, &[(100, &[noting])]));
    let answer = Wire::to(listen).request(
        "GET http://web/a?b=c HTTP/1.1\r\nhost: web\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\nx-forwarded-for: 10.1.1.1\r\n\r\n",
    );
    assert_eq!((answer.field("x-private"), answer.field("keep-alive")), (None, None));
    let request = heads.recv().unwrap();
    assert_eq!(request.line, "GET /a?b=c HTTP/1.1");
    let seen = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-hop", "connection"];
    let expected = [Some("web"), Some("10.1.1.1, 127.0.0.1"), Some("http"), Some("web"), None, None];
    assert_eq!(seen.map(|name| request.field(name)), expected);
}

#[test]
fn an_upgrade_becomes_a_tunnel_that_is_in_flight_until_it_ends() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let switching = upstream(|stream| {
        let mut wire = Wire::over(stream);
        let request = wire.read_message().unwrap();
        assert_eq!((request.field("upgrade"), request.field("connection")), (Some("websocket"), Some("upgrade")));
        wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nhello ");
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = wire.reader.read(&mut bytes) {
            wire.send(&bytes[..n]);
        }
    });
    proxy.apply(table(1, listen, &[(100, &[switching])]));
    let mut wire = Wire::to(listen);
    wire.send("GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nearly ");
    let answer = wire.read_head().unwrap();
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("websocket")));
    let mut bytes = [0; 12];
    wire.reader.read_exact(&mut bytes).unwrap();
    wire.send("GET / HTTP/1.1");
    let mut more = [0; 14];
    wire.reader.read_exact(&mut more).unwrap();
    assert_eq!((bytes.as_slice(), more.as_slice()), (b"hello early ".as_slice(), b"GET / HTTP/1.1".as_slice()));
    assert_eq!(proxy.report().in_flight.len(), 1);
    drop(wire);
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}

#[test]
fn a_stale_connection_is_replaced_without_the_client_or_the_counters_noticing() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    // Every connection answers one request, promises more, and breaks at the second.
    let fickle = upstream(|stream| {
        let mut wire = Wire::over(stream);
        wire.read_message();
        wire.send(OK);
        wire.read_head();
    });
    proxy.apply(table(1, listen, &[(100, &[fickle])]));
    let mut wire = Wire::to(listen);
    for _ in 0..20 {
        assert_eq!(wire.get("/").text(), "ok");
    }
    let counts = proxy.wait_for_release(|r| r.counts.requests() == 20).counts;
    assert_eq!((counts.classes[1], counts.no_answer), (20, 0));
}

#[test]
fn a_replica_that_breaks_a_fresh_connection_counts_as_no_answer_even_where_another_helps() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let breaking = upstream(|stream| drop(Wire::over(stream).read_head()));
    proxy.apply(table(1, listen, &[(100, &[breaking, saying("fine")])]));
    for _ in 0..30 {
        assert_eq!(get(listen, "/").text(), "fine");
    }
    let counts = proxy.wait_for_release(|r| r.counts.requests() == 30).counts;
    assert!(counts.no_answer > 3 && counts.classes[1] > 3, "{counts:?}");
}

#[test]
fn a_replica_that_dies_in_the_middle_of_a_repeated_request_loses_none_that_another_can_answer() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    // Its first connection answers one request and breaks at the second; every later one breaks at its first.
    let is_dying = AtomicBool::new(false);
    let dying = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        wire.read_head();
        if !is_dying.swap(true, Ordering::SeqCst) {
            wire.send(OK);
            wire.read_head();
        }
    });
    proxy.apply(table(1, listen, &[(100, &[dying, saying("ok")])]));
    let mut wire = Wire::to(listen);
    for _ in 0..30 {
        assert_eq!(wire.get("/").text(), "ok");
    }
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let breaking = upstream(move |stream| {
        if Wire::over(stream).read_message().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    proxy.apply(table(1, listen, &[(100, &[breaking, breaking])]));
    for body in ["", "abc"] {
        let post = format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(Wire::to(listen).request(&post).status(), 502);
    }
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[test]
fn a_replica_without_a_first_byte_in_time_is_answered_for() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mute = upstream(|stream| while Wire::over(stream.try_clone().unwrap()).read_message().is_some() {});
    let mut routes = table(1, listen, &[(100, &[mute])]);
    routes.services[0].first_byte_timeout_ms = 50;
    proxy.apply(routes);
    let mut wire = Wire::to(listen);
    for _ in 0..2 {
        assert_eq!(wire.get("/").status(), 504);
    }
    assert_eq!(proxy.wait_for_release(|r| r.counts.requests() == 2).counts.no_answer, 2);
}

#[test]
fn a_client_that_leaves_says_nothing_about_the_release() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mute = upstream(|stream| while Wire::over(stream.try_clone().unwrap()).read_message().is_some() {});
    proxy.apply(table(1, listen, &[(100, &[mute])]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    drop(wire);
    let counts = proxy.wait_for_release(|r| r.counts.client_gone == 1).counts;
    assert_eq!(counts.requests(), 0);
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}

#[test]
fn connections_to_a_replica_close_when_it_leaves_the_table() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (closed, closings) = mpsc::channel();
    let closed = Mutex::new(closed);
    let leaving = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send(OK);
        }
        closed.lock().unwrap().send(()).unwrap();
    });
    proxy.apply(table(1, listen, &[(100, &[leaving])]));
    get(listen, "/");
    proxy.apply(table(2, listen, &[(0, &[]), (100, &[saying("two")])]));
    closings.recv_timeout(Duration::from_secs(2)).expect("closed before the idle limit would have");
}

#[test]
fn stopping_finishes_what_is_in_flight_and_closes_what_rests() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let (finish, finished) = mpsc::channel::<()>();
    let finished = Mutex::new(finished);
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        wire.read_message();
        finished.lock().unwrap().recv().unwrap();
        wire.send(OK);
    });
    proxy.apply(table(1, listen, &[(100, &[slow])]));
    let mut resting = Wire::to(listen);
    let mut busy = Wire::to(listen);
    busy.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    let stopped = std::thread::spawn(move || proxy.stop(Duration::from_secs(20)));
    assert!(resting.is_closed());
    finish.send(()).unwrap();
    let answer = busy.read_message().unwrap();
    assert_eq!((answer.text(), answer.field("connection")), ("ok", Some("close")));
    stopped.join().unwrap();
}

#[test]
fn a_proxy_that_stops_loses_no_request_of_clients_that_heed_its_answers() {
    let mut first = Proxy::start(2);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    first.listen_on(&socket);
    let listen = socket.local_addr().unwrap();
    let side = saying("fine");
    first.apply(table(1, listen, &[(100, &[side])]));
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let ended = ended.clone();
            std::thread::spawn(move || {
                let mut sent = 0;
                while !ended.load(Ordering::SeqCst) {
                    let mut wire = Wire::to(listen);
                    // Some keep their connection as long as they may, some open a new one each time.
                    while wire.get("/").field("connection") != Some("close") && client % 2 == 0 {
                        sent += 1;
                        if ended.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    for _ in 0..5 {
        let mut second = Proxy::start(2);
        second.apply(table(1, listen, &[(100, &[side])]));
        second.listen_on(&socket);
        std::mem::replace(&mut first, second).stop(Duration::from_secs(20));
    }
    ended.store(true, Ordering::SeqCst);
    let sent: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(sent > 100, "{sent}");
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mute = upstream(|stream| while Wire::over(stream.try_clone().unwrap()).read_message().is_some() {});
    proxy.apply(table(1, listen, &[(100, &[mute])]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    proxy.stop(Duration::from_millis(100));
    assert!(wire.is_closed());
}

#[test]
fn a_slow_reader_slows_its_sender() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let endless = upstream(move |mut stream| {
        Wire::over(stream.try_clone().unwrap()).read_message();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        while let Ok(n @ 1..) = stream.write(&[7; 65536]) {
            count.fetch_add(n, Ordering::SeqCst);
        }
        count.fetch_add(1 << 40, Ordering::SeqCst);
    });
    proxy.apply(table(1, listen, &[(100, &[endless])]));
    let mut wire = Wire::to(listen);
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    wire.read_head().unwrap();
    wait_for(|| (sent.load(Ordering::SeqCst) >= 1 << 40).then_some(()));
    let held = sent.load(Ordering::SeqCst) - (1 << 40);
    assert!(held < 32 << 20, "the proxy and the kernel took {held} bytes");
}
