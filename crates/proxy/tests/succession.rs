//! One proxy after another on the same sockets, while requests come and go.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the helpers are test code too, and they wait")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{PATIENCE, Proxy, Wire, saying, table, upstream, wait_for};
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};

/// How long an earlier proxy may finish what it has.
const DRAIN: Duration = Duration::from_secs(6);

/// Starts a successor on the same socket, and has the earlier one retire; gives back both, and the connection to the
/// earlier one.
fn succeed(mut old: Proxy, socket: &TcpListener) -> (Proxy, Proxy, UnixStream) {
    let mut elder = old.control();
    let mut new = Proxy::start_in(old.directory.clone(), 2);
    new.listen_on(socket);
    frame::write(&mut elder, &Ask::Retire { drain_ms: DRAIN.as_millis() as u64 }).unwrap();
    assert!(matches!(frame::read(&mut elder).unwrap(), Some(Answer::Done)));
    let mut control = new.control();
    frame::write(&mut control, &Ask::Elder).unwrap();
    frame::send_descriptors(&control, &[elder.as_fd()]).unwrap();
    assert!(matches!(frame::read(&mut control).unwrap(), Some(Answer::Done)));
    // Whoever asks the earlier one anything is sent away.
    assert!(old.is_unheard());
    (old, new, elder)
}

/// Asks again and again over connections that are kept, one after the other where `kept` says so.
fn client(address: SocketAddr, kept: bool, stop: &AtomicBool, asked: &AtomicU64) -> Result<(), String> {
    let mut wire: Option<Wire> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut own = wire.take().unwrap_or_else(|| Wire::to(address));
        own.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").ok_or("the request was not taken")?;
        let answer = own.read_message().ok_or("no answer")?;
        if answer.status() != 200 {
            return Err(format!("{answer:?}"));
        }
        asked.fetch_add(1, Ordering::Relaxed);
        wire = (kept && answer.field("connection") != Some("close")).then_some(own);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn no_request_fails_while_proxies_succeed_one_another() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = socket.local_addr().unwrap();
    let mut proxy = Proxy::start(2);
    proxy.apply(table(1, listen, &[(100, &[saying("web")])]));
    proxy.listen_on(&socket);
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn({
                    let (stop, asked) = (&stop, &asked);
                    move || client(listen, n % 2 == 0, stop, asked)
                })
            })
            .collect();
        let mut earlier = Vec::new();
        for _ in 0..5 {
            let before = asked.load(Ordering::Relaxed);
            let (old, new, elder) = succeed(proxy, &socket);
            proxy = new;
            earlier.push((old, elder));
            wait_for(|| (asked.load(Ordering::Relaxed) > before + 200).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.join().unwrap(), Ok(()));
        }
    });
}

#[test]
fn what_an_earlier_proxy_has_in_flight_is_told_by_its_successor_and_is_finished() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate");
        }
    });
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = socket.local_addr().unwrap();
    let mut proxy = Proxy::start(1);
    proxy.apply(table(1, listen, &[(100, &[slow])]));
    proxy.listen_on(&socket);
    let mut first = Wire::to(listen);
    first.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    let in_flight = |proxy: &mut Proxy| proxy.report().in_flight.iter().map(|busy| busy.requests).sum::<u64>();
    wait_for(|| (in_flight(&mut proxy) == 1).then_some(()));

    let (old, mut new, elder) = succeed(proxy, &socket);
    drop(elder);
    assert_eq!(in_flight(&mut new), 1, "in the earlier one");
    let mut second = Wire::to(listen);
    second.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    wait_for(|| (in_flight(&mut new) == 2).then_some(()));
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    let answer = first.read_message().unwrap();
    assert_eq!((answer.text(), answer.field("connection")), ("late", Some("close")));
    assert_eq!(second.read_message().unwrap().text(), "late");
    wait_for(|| (in_flight(&mut new) == 0).then_some(()));
    wait_for(|| (!old.is_running()).then_some(()));
    assert_eq!(in_flight(&mut new), 0);
}
