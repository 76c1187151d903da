//! Answers that come bit by bit, and bodies that are large: passed on at once, and never gathered.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};

use common::{Proxy, Wire, table, upstream};

const LARGE: usize = 100 << 20;

/// The most memory that this process has had since [`forget_peak`], in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Both in one: what is measured is the memory of the whole process.
#[test]
fn events_pass_one_by_one_and_a_hundred_megabytes_take_no_memory_either_way() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let replica = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_head() {
            if request.line.starts_with("GET /events") {
                wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n");
                told.lock().unwrap().recv().unwrap();
                wire.send("data: second\n\n");
                return;
            }
            if request.line.starts_with("GET /large") {
                wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
                let part = vec![7; 1 << 16];
                for _ in 0..LARGE / part.len() {
                    wire.send(&part);
                }
                continue;
            }
            let mut part = vec![0; 1 << 16];
            for _ in 0..LARGE / part.len() {
                wire.reader.read_exact(&mut part).unwrap();
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ntaken");
        }
    });
    proxy.apply(table(1, listen, &[(100, &[replica])]));

    let mut wire = Wire::to(listen);
    wire.send("GET /events HTTP/1.1\r\nhost: web\r\naccept: text/event-stream\r\n\r\n");
    assert_eq!(wire.read_head().unwrap().field("content-type"), Some("text/event-stream"));
    assert_eq!(wire.read_chunk().unwrap(), b"data: first\n\n");
    go_on.send(()).unwrap();
    assert_eq!(wire.read_chunk().unwrap(), b"data: second\n\n");
    assert_eq!(wire.read_chunk(), None);

    let mut part = vec![7; 1 << 16];
    forget_peak();
    let before = peak();
    let mut wire = Wire::to(listen);
    wire.send("GET /large HTTP/1.1\r\nhost: web\r\n\r\n");
    wire.read_head().unwrap();
    for _ in 0..LARGE / part.len() {
        wire.reader.read_exact(&mut part).unwrap();
        assert!(part.iter().all(|byte| *byte == 7));
    }
    wire.send(format!("PUT /large HTTP/1.1\r\nhost: web\r\ncontent-length: {LARGE}\r\n\r\n"));
    for _ in 0..LARGE / part.len() {
        wire.reader.get_mut().write_all(&part).unwrap();
    }
    assert_eq!(wire.read_message().unwrap().text(), "taken");
    let grown = peak().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}
