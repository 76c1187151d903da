//! What callers wait for while a dependency hangs, and what kept answers take. For `bench/`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a tool for benchmarks"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Does, Egress, Stub, http, says, wait_for};
use evenkeel_core::dependency::{Cache, Fixed};

/// Calls per second, and for how long.
const RATE: u32 = 1_000;
const LASTING: Duration = Duration::from_secs(10);
const CALLERS: u32 = 20;

fn main() {
    hang();
    keep();
}

/// An upstream that hangs: what a thousand callers a second get once the breaker is open.
fn hang() {
    let stub = Stub::new(Does::Hangs);
    let mut dependency = http(&stub.url());
    dependency.timeouts.first_byte = Duration::from_millis(500);
    dependency.fixed = Some(Fixed { status: 200, content_type: "text/plain".into(), body: "later".into() });
    let egress = Arc::new(Egress::new(dependency));
    let began = Instant::now();
    wait_for("the breaker", || {
        egress.get("/");
        egress.is_open()
    });
    println!("hanging: open after {:?} of calls one after the other, each given up after 500 ms", began.elapsed());
    let before = resident();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let egress = egress.clone();
            std::thread::spawn(move || {
                let (begun, mut took) = (Instant::now(), Vec::new());
                let pause = Duration::from_secs(1) * CALLERS / RATE;
                while begun.elapsed() < LASTING {
                    let asked = Instant::now();
                    assert_eq!(egress.get("/").body, "later");
                    took.push(asked.elapsed());
                    std::thread::sleep(pause.saturating_sub(asked.elapsed()));
                }
                took
            })
        })
        .collect();
    let mut took: Vec<Duration> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    took.sort();
    let at = |share: f64| took[(share * (took.len() - 1) as f64) as usize];
    println!(
        "  {} calls, each over a connection of its own: p50 {:?}, p99 {:?}, longest {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    println!(
        "  resident memory: {before} KiB before, {} KiB after; calls to the dependency: {}",
        resident(),
        stub.calls()
    );
}

/// A hundred thousand answers of 1 KiB.
fn keep() {
    let stub = Arc::new(Stub::new(says(200, "", &"x".repeat(1_024))));
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache { entries: 1_000_000, bytes: 64 << 20, ..Cache::default() });
    let egress = Arc::new(Egress::new(dependency));
    let before = resident();
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let egress = egress.clone();
            let stub = stub.clone();
            std::thread::spawn(move || {
                for n in 0..25_000 {
                    egress.get(&format!("/{caller}/{n}"));
                    if n % 1_000 == 0 {
                        stub.forget();
                    }
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let (entries, bytes) = egress.status().cached;
    println!("kept: of 100 000 answers {entries}, counted as {bytes} bytes of {}", 64 << 20);
    println!(
        "  resident memory of everything, callers and stub included: {before} KiB before, {} KiB after",
        resident()
    );
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
