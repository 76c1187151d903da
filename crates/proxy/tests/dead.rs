//! What users meet of a candidate that is dead from its first request on: it fails everything, or never answers, or closes
//! in the middle of a head.
//!
//! `EVENKEEL_RATE=10000 EVENKEEL_SECONDS=5` sends so many requests a second for so long; the table is printed at the end
//! (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the helpers are test code too, and they keep time")]

mod common;

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Message, Proxy, Wire, saying, table, upstream, wait_for};
use evenkeel_analysis::slots::Part;
use evenkeel_core::evidence::{Brief, History, Terms};
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId};
use evenkeel_core::spec::Analysis;
use evenkeel_core::table::{RoutingTable, Trial};
use evenkeel_core::trial::Ages;

/// Connections of users: so many that those which hang do not hold up the others.
const USERS: u32 = 64;
/// Longest wait for a first byte.
const FIRST_BYTE: Duration = Duration::from_millis(1_500);
/// Requests that cannot be sent again and may fail: eight decide, and a machine that stands still may let two more in.
const FAILED_MAX: u64 = 10;
/// Longest wait for the cut.
const CUT_BY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Death {
    Fails,
    NeverAnswers,
    ClosesInMidHead,
}

/// What became of it, for users and for the candidate.
struct Met {
    death: Death,
    method: &'static str,
    requests: u64,
    failed: u64,
    slowest: Duration,
    candidate: u64,
    /// From the candidate's first request until it was cut off, and how long that took of the proxy.
    cut: Option<(Duration, Duration)>,
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { death, method, requests, failed, slowest, candidate, cut } = self;
        let death = format!("{death:?}");
        write!(f, "| {death:<15} | {method:<4} | {requests:>6} | {failed:>3} | {slowest:>7.0?} | {candidate:>3} |")?;
        match cut {
            Some((after, took)) => write!(f, " {after:>6.0?} | {took:.1?} |"),
            None => write!(f, " not | |"),
        }
    }
}

/// A dead replica, how many requests it met, and when it met the first one.
fn dead(death: Death) -> (SocketAddr, Arc<AtomicU64>, Arc<Mutex<Option<Instant>>>) {
    let (met, first) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
    let (count, began) = (met.clone(), first.clone());
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            began.lock().unwrap().get_or_insert_with(Instant::now);
            let goes_on = match death {
                Death::Fails => wire.send("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").is_some(),
                Death::NeverAnswers => wire.reader.read(&mut [0]).is_ok_and(|read| read > 0),
                Death::ClosesInMidHead => wire.send("HTTP/1.1 200 OK\r\ncontent-le").is_none(),
            };
            if !goes_on {
                return;
            }
        }
    });
    (address, met, first)
}

/// `share` percent for a candidate in a rollout, judged and cut as a controller has it done.
fn routes(
    generation: u64,
    users: SocketAddr,
    stable: SocketAddr,
    candidate: Option<(SocketAddr, u16)>,
) -> RoutingTable {
    let share = candidate.map_or(0, |(_, share)| share);
    let backends: Vec<SocketAddr> = candidate.iter().map(|(address, _)| *address).collect();
    let mut table = table(generation, users, &[(100 - share, &[stable]), (share, &backends)]);
    let service = &mut table.services[0];
    service.first_byte_timeout_ms = FIRST_BYTE.as_millis() as u64;
    (service.fallback, service.relief) = (Some(Revision(1)), Some(Revision(1)));
    let shares = vec![BasisPoints::new(share.max(1) * 100).unwrap()];
    let (objectives, analysis) = (Vec::new(), Analysis::default());
    let terms =
        Terms { candidate: "v2".into(), stable: Some("v1".into()), objectives, analysis, shares, is_sticky: false };
    let history = History { failed: Part { of: 10_000, bad: 0 }, ..History::default() };
    let inquiry = Ages::of(Some(Duration::from_millis(5)), FIRST_BYTE).inquiry(&[]);
    let (rollout, stable, brief) = (RolloutId(7), Some(Revision(1)), Some(Box::new(Brief { terms, history })));
    let trial = Trial { rollout, candidate: Revision(2), stable, step: 0, inquiry, brief, may_cut: true };
    service.trial = candidate.map(|_| trial);
    table
}

/// Sends at a rate of its own, however long answers take: what is late is sent at once.
fn user(listen: SocketAddr, method: &'static str, every: Duration, over: &AtomicBool) -> (u64, u64, Duration) {
    let request = format!("{method} / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n");
    let (mut requests, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    let mut wire = Wire::to(listen);
    let mut due = Instant::now() + every.mul_f64(fastrand::f64());
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += every;
        let sent = Instant::now();
        let answer = wire.send(&request).and_then(|()| wire.read_message());
        requests += 1;
        failed += u64::from(answer.as_ref().is_none_or(|answer| answer.status() != 200));
        slowest = slowest.max(sent.elapsed());
        if answer.is_none_or(|answer: Message| answer.field("connection") == Some("close")) {
            wire = Wire::to(listen);
        }
    }
    (requests, failed, slowest)
}

fn meet(death: Death, method: &'static str, rate: u32, time: Duration) -> Met {
    let mut proxy = Proxy::start(2);
    let (listen, stable) = (proxy.listen(), saying("fine"));
    let (candidate, met, first) = dead(death);
    proxy.apply(routes(1, listen, stable, None));
    let (over, every) = (Arc::new(AtomicBool::new(false)), Duration::from_secs(1) * USERS / rate);
    let users: Vec<_> = (0..USERS)
        .map(|_| {
            let over = over.clone();
            std::thread::spawn(move || user(listen, method, every, &over))
        })
        .collect();
    // Until it is known how long answers of the stable release take.
    wait_for(|| proxy.report().releases.iter().any(|release| release.counts.requests() > 1_000).then_some(()));
    proxy.apply(routes(2, listen, stable, Some((candidate, 50))));
    let until = Instant::now() + time;
    let mut cut = None;
    while Instant::now() < until || (cut.is_none() && Instant::now() < until + CUT_BY) {
        std::thread::sleep(Duration::from_millis(5));
        let told = proxy.report().cuts.into_iter().next().filter(|_| cut.is_none());
        if let Some(told) = told {
            let after = first.lock().unwrap().map(|first| first.elapsed()).unwrap_or_default();
            cut = Some((after, Duration::from_micros(told.took_us)));
        }
    }
    over.store(true, Ordering::Relaxed);
    let all = users.into_iter().map(|user| user.join().unwrap());
    let (requests, failed, slowest) =
        all.fold((0, 0, Duration::ZERO), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2.max(one.2)));
    Met { death, method, requests, failed, slowest, candidate: met.load(Ordering::SeqCst), cut }
}

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).map_or(usual, |said| said.parse().unwrap())
}

#[test]
fn no_user_meets_a_dead_candidate_but_for_a_few_whose_request_cannot_be_sent_again() {
    let (rate, time) = (number("EVENKEEL_RATE", 500), Duration::from_secs(number("EVENKEEL_SECONDS", 1).into()));
    println!("{rate} requests/s");
    println!("| candidate | method | requests | failed | slowest | met | cut after | took |");
    let mut wrong = Vec::new();
    for death in [Death::Fails, Death::NeverAnswers, Death::ClosesInMidHead] {
        for (method, most) in [("GET", 0), ("POST", FAILED_MAX)] {
            let met = meet(death, method, rate, time);
            println!("{met}");
            if met.failed > most || met.cut.is_none() || met.candidate == 0 {
                wrong.push(met.to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
