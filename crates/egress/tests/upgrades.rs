//! Calls that become connections in which something else is spoken.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::{Egress, PATIENCE, http, wait_for};
use evenkeel_core::dependency::Upstream;

const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: yes\r\nkeep-alive: 5\r\n\r\nhello";

/// A dependency that gives this answer and then says again what it hears; on `reset` it leaves without reading on.
struct Echo {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || {
                    let head = read_until(&mut stream, "\r\n\r\n");
                    seen.lock().unwrap().push(head.to_ascii_lowercase());
                    stream.write_all(answer.as_bytes()).ok()?;
                    let mut buffer = [0; 64];
                    loop {
                        let read = stream.peek(&mut buffer).ok().filter(|read| *read > 0)?;
                        if buffer[..read].starts_with(b"reset") {
                            // Closed with something unread: a reset.
                            return Some(());
                        }
                        stream.read_exact(&mut buffer[..read]).ok()?;
                        stream.write_all(&buffer[..read]).ok()?;
                    }
                });
            }
        });
        Self { address, heads }
    }

    fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(end.as_bytes()) && stream.read_exact(&mut byte).is_ok() {
        text.extend(byte);
    }
    String::from_utf8(text).unwrap()
}

/// Asks for another protocol; the connection is left to be read.
fn ask(egress: &Egress, token: &str, protocol: &str) -> TcpStream {
    let mut stream = TcpStream::connect(egress.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "GET /{token}/live?a=1 HTTP/1.1\r\nhost: here\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n\
         sec-websocket-key: k\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn hear(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_both_sides_agree_to_speak_passes_in_both_directions_and_takes_a_seat() {
    let echo = Echo::new(AGREED);
    let mut dependency = http(&echo.url());
    dependency.at.headers = vec![("authorization".into(), "Bearer lent".into())];
    dependency.concurrency = 1;
    let egress = Egress::new(dependency);
    let mut client = ask(&egress, &egress.token, "websocket");
    let head = read_until(&mut client, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: yes"), "{head}");
    assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
    assert!(!head.contains("keep-alive"), "{head}");
    assert_eq!(hear(&mut client, 5), "hello", "what came with the head is not lost");
    for word in ["one", "another"] {
        client.write_all(word.as_bytes()).unwrap();
        assert_eq!(hear(&mut client, word.len()), word);
    }
    let asked = echo.heads().remove(0);
    assert!(asked.starts_with("get /v1/live?a=1 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("upgrade: websocket") && asked.contains("connection: upgrade"), "{asked}");
    assert!(asked.contains("authorization: bearer lent") && asked.contains("sec-websocket-key: k"), "{asked}");
    // It has the only seat until it is over.
    assert_eq!((egress.status().in_flight, egress.get("/").code().as_str()), (1, "too-many-calls"));
    drop(client);
    wait_for("the end", || egress.status().in_flight == 0);
    let counted = egress.status().breakers[0].counted;
    assert_eq!((counted.successes, counted.failures), (1, 0));
}

#[test]
fn a_connection_that_the_dependency_resets_is_a_failure_and_a_breaker_that_is_open_lets_none_begin() {
    let echo = Echo::new(AGREED);
    let mut dependency = http(&echo.url());
    dependency.breaker.trip.in_a_row = Some(2);
    let egress = Egress::new(dependency);
    for failures in 1..=2 {
        let mut client = ask(&egress, &egress.token, "websocket");
        read_until(&mut client, "hello");
        client.write_all(b"reset").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        wait_for("the failure", || egress.status().breakers[0].counted.failures == failures);
    }
    assert!(egress.is_open());
    let head = read_until(&mut ask(&egress, &egress.token, "websocket"), "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(echo.heads().len(), 2);
}

#[test]
fn a_dependency_that_does_not_agree_gives_an_answer_and_another_place_may() {
    let plain = Echo::new("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
    let egress = Egress::new(http(&plain.url()));
    let mut client = ask(&egress, &egress.token, "websocket");
    let head = read_until(&mut client, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.to_ascii_lowercase().contains("upgrade"), "{head}");
    assert_eq!(hear(&mut client, 4), "fine");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let echo = Echo::new(AGREED);
    let mut dependency = http(&format!("http://{nobody}"));
    dependency.alternatives = vec![Upstream::new(echo.url())];
    let egress = Egress::new(dependency);
    let mut client = ask(&egress, &egress.token, "websocket");
    let head = read_until(&mut client, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.contains("evenkeel-fallback: alternative; reason=unreachable"), "{head}");
    assert_eq!(hear(&mut client, 5), "hello");
}

#[test]
fn neither_a_stranger_nor_http_2_gets_through_and_what_was_not_asked_for_is_no_answer() {
    let echo = Echo::new(AGREED);
    let egress = Egress::new(http(&echo.url()));
    let head = read_until(&mut ask(&egress, "0123456789abcdef0123456789abcdef", "websocket"), "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 403 ") && echo.heads().is_empty(), "{head}");
    let head = read_until(&mut ask(&egress, &egress.token, "h2c"), "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let asked = echo.heads().remove(0);
    assert!(!asked.contains("upgrade"), "{asked}");
    assert_eq!(egress.status().breakers[0].counted.failures, 1);
}
