//! A fresh candidate has few requests of which nothing is known yet, and more as they turn out well.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Proxy, Wire, get, saying, table, upstream, wait_for};
use evenkeel_analysis::slots::{Bad, Inquiry, Question};
use evenkeel_core::choice::{Match, Pin, ValueMatch};
use evenkeel_core::ids::{Revision, RolloutId};
use evenkeel_core::table::{RoutingTable, Trial};

const SOON: Question = Question { bad: Bad::Failed, after_us: 0, age_us: 50_000 };
const LATE: Question = Question { bad: Bad::Failed, after_us: 50_000, age_us: 60_000_000 };

/// Half of the traffic for a candidate, and a stable release that can take all of it.
fn half(users: SocketAddr, candidate: SocketAddr) -> RoutingTable {
    let mut table = table(1, users, &[(50, &[saying("stable")]), (50, &[candidate])]);
    let inquiry = Inquiry { questions: vec![SOON, LATE], usual_us: 50_000, times_us: 0 };
    let (rollout, candidate, stable) = (RolloutId(7), Revision(2), Some(Revision(1)));
    let service = &mut table.services[0];
    service.trial = Some(Trial { rollout, candidate, stable, step: 0, inquiry, brief: None, may_cut: false });
    (service.fallback, service.relief) = (Some(Revision(1)), Some(Revision(1)));
    table
}

/// An upstream that counts what it meets and answers with this, or with nothing.
fn counting(answer: Option<&'static str>) -> (SocketAddr, Arc<AtomicU64>) {
    let met = Arc::new(AtomicU64::new(0));
    let counted = met.clone();
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
            if answer.is_some_and(|answer| wire.send(answer).is_none()) {
                return;
            }
        }
    });
    (address, met)
}

const FAILS: &str = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n";
const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_candidate_that_fails_everything_meets_eight_requests_and_as_many_with_every_second() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let (candidate, met) = counting(Some(FAILS));
    let began = Instant::now();
    proxy.apply(half(users, candidate));
    let connections = 8;
    let posts: Vec<_> = (0..connections)
        .map(|_| {
            std::thread::spawn(move || {
                let mut wire = Wire::to(users);
                let post = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi";
                (0..200).filter(|_| wire.request(post).status() != 200).count() as u64
            })
        })
        .collect();
    let failed: u64 = posts.into_iter().map(|posts| posts.join().unwrap()).sum();
    let met = met.load(Ordering::SeqCst);
    assert_eq!(failed, met, "what could not be sent again failed for its user");
    assert!(met >= 1 && met <= 8 * (2 + began.elapsed().as_secs()), "{met} of {}", connections * 200);
}

/// The candidate's requests and the stable release's, by the shares that they were assigned under.
fn by_share(proxy: &mut Proxy) -> BTreeMap<(u16, u16), (u64, u64)> {
    let mut by_share: BTreeMap<(u16, u16), (u64, u64)> = BTreeMap::new();
    let groups = proxy.report().trials.into_iter().flat_map(|told| told.reveals).flat_map(|reveal| reveal.groups);
    for group in groups {
        let sums = by_share.entry((group.shares.candidate, group.shares.stable)).or_default();
        for answers in group.answers.iter().filter(|answers| answers.question == SOON) {
            *sums = (sums.0 + answers.candidate.of, sums.1 + answers.stable.of);
        }
    }
    by_share
}

#[test]
fn a_candidate_of_which_nothing_good_is_known_has_a_tenth_and_then_its_share() {
    const COLD: (u16, u16) = (1_000, 9_000);
    for (answer, is_well) in [(FAILS, false), (WELL, true)] {
        let mut proxy = Proxy::start(1);
        let users = proxy.listen();
        let (candidate, _) = counting(Some(answer));
        proxy.apply(half(users, candidate));
        let mut wire = Wire::to(users);
        let mut sent = 0_u64;
        let told = wait_for(|| {
            (0..50).for_each(|_| drop(wire.request("GET / HTTP/1.1\r\nhost: web\r\n\r\n")));
            sent += 50;
            let told = by_share(&mut proxy);
            let whole = told.get(&(5_000, 5_000)).map_or(0, |(candidate, _)| *candidate);
            (if is_well { whole > 100 } else { sent > 3_000 }).then_some(told)
        });
        let (of_candidate, of_stable) = told[&COLD];
        assert!(of_candidate > 0 && of_stable > 2 * of_candidate, "{told:?}");
        assert_eq!(told.contains_key(&(5_000, 5_000)), is_well, "{told:?}");
    }
}

#[test]
fn a_candidate_that_never_answers_meets_eight_requests() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let (candidate, met) = counting(None);
    proxy.apply(half(users, candidate));
    // Who has waited in vain is gone: its request keeps its place all the same.
    for _ in 0..200 {
        let mut user = TcpStream::connect(users).unwrap();
        user.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        user.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        let _ = user.read(&mut [0; 64]);
    }
    let met = met.load(Ordering::SeqCst);
    assert!((1..=8).contains(&met), "{met}");
}

#[test]
fn a_candidate_that_is_well_has_its_share_soon_and_only_what_the_coin_decided_is_counted_in_the_trial() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let (candidate, met) = counting(Some(WELL));
    proxy.apply(half(users, candidate));
    let mut wire = Wire::to(users);
    let mut asked = 0_u64;
    let mut of_the_last = |proxy: &mut Proxy, requests: u64| {
        let before = met.load(Ordering::SeqCst);
        (0..requests).for_each(|_| drop(wire.request("GET / HTTP/1.1\r\nhost: web\r\n\r\n")));
        asked += requests;
        drop(proxy.report());
        met.load(Ordering::SeqCst) - before
    };
    wait_for(|| (of_the_last(&mut proxy, 200) >= 70).then_some(()));
    let told = wait_for(|| {
        let trials = proxy.report().trials;
        let groups = || trials.iter().flat_map(|trial| &trial.reveals).flat_map(|reveal| &reveal.groups);
        let answers = || groups().flat_map(|group| &group.answers).filter(|answers| answers.question == SOON);
        let [candidate, stable] =
            [answers().map(|a| a.candidate.of).sum(), answers().map(|a| a.stable.of).sum::<u64>()];
        (candidate == met.load(Ordering::SeqCst)).then_some([candidate, stable])
    });
    let [candidate, stable] = told;
    assert!(candidate + stable <= asked);
    let (sum, difference) = ((candidate + stable) as f64, candidate.abs_diff(stable) as f64);
    assert!(difference < 5.0 * sum.sqrt(), "a coin decided between {candidate} and {stable}");
}

#[test]
fn who_is_pinned_to_a_candidate_reaches_it_whether_it_answers_or_not() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let (candidate, met) = counting(Some(FAILS));
    let mut table = half(users, candidate);
    let when = Match::Header { name: "x-tester".into(), value: ValueMatch::Any };
    table.services[0].pins = vec![Pin { when, to: Revision(2) }];
    proxy.apply(table);
    for _ in 0..50 {
        let answer = Wire::to(users).request("GET / HTTP/1.1\r\nhost: web\r\nx-tester: 1\r\n\r\n");
        assert_eq!(answer.status(), 500);
    }
    assert_eq!(met.load(Ordering::SeqCst), 50);
    assert_eq!(get(users, "/").status(), 200);
}
