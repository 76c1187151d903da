//! A harmful candidate is cut off by the proxy itself, and stays so until the controller has that in its log.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Proxy, Wire, get, saying, table, upstream, wait_for};
use evenkeel_analysis::slots::{Bad, Inquiry, Part, Question};
use evenkeel_core::evidence::{Brief, History, Terms};
use evenkeel_core::guard::{Cut, CutName};
use evenkeel_core::ids::{BasisPoints, Generation, Revision, RolloutId};
use evenkeel_core::spec::Analysis;
use evenkeel_core::table::{RoutingTable, TableRefused, Trial};
use evenkeel_wire::proxy::{Answer, Ask, Report};

const SOON: Question = Question { bad: Bad::Failed, after_us: 0, age_us: 50_000 };

fn brief() -> Brief {
    let (candidate, stable, analysis) = ("v2".to_owned(), Some("v1".to_owned()), Analysis::default());
    let shares = vec![BasisPoints::new(5_000).unwrap()];
    let terms = Terms { candidate, stable, objectives: Vec::new(), analysis, shares, is_sticky: false };
    Brief { terms, history: History { failed: Part { of: 10_000, bad: 0 }, ..History::default() } }
}

/// Half of the traffic for a candidate in a rollout.
fn half(generation: u64, users: SocketAddr, candidate: SocketAddr, rollout: u32) -> RoutingTable {
    let mut table = table(generation, users, &[(50, &[saying("stable")]), (50, &[candidate])]);
    let inquiry = Inquiry { questions: vec![SOON], usual_us: 50_000, times_us: 0 };
    let (candidate, stable, brief) = (Revision(2), Some(Revision(1)), Some(Box::new(brief())));
    let service = &mut table.services[0];
    let rollout = RolloutId(rollout);
    service.trial = Some(Trial { rollout, candidate, stable, step: 0, inquiry, brief, may_cut: true });
    (service.fallback, service.relief) = (Some(Revision(1)), Some(Revision(1)));
    table
}

/// A candidate that fails everything, and counts what it meets.
fn failing() -> (SocketAddr, Arc<AtomicU64>) {
    let met = Arc::new(AtomicU64::new(0));
    let counted = met.clone();
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
            if wire.send("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").is_none() {
                return;
            }
        }
    });
    (address, met)
}

fn report(proxy: &mut Proxy, acknowledged: &[CutName]) -> Report {
    match proxy.ask(&Ask::Report { heard: Vec::new(), acknowledged: acknowledged.to_vec() }) {
        Answer::Report(report) => *report,
        other => panic!("{other:?}"),
    }
}

/// Asks for as long as the candidate meets anything, and a second longer, in which one whose failures do not suffice yet is
/// asked again; without asking the proxy for anything.
fn until_cut_off(users: SocketAddr, met: &AtomicU64) {
    let mut wire = Wire::to(users);
    let mut last = (0, Instant::now());
    wait_for(|| {
        for _ in 0..100 {
            assert_eq!(wire.request("GET / HTTP/1.1\r\nhost: web\r\n\r\n").status(), 200, "it is shielded");
        }
        let now = met.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now >= 2 && last.1.elapsed() > Duration::from_secs(3)).then_some(())
    });
}

fn the_cut(proxy: &mut Proxy) -> Cut {
    wait_for(|| report(proxy, &[]).cuts.into_iter().next())
}

#[test]
fn a_candidate_that_fails_everything_is_cut_off_while_no_controller_asks() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let (candidate, met) = failing();
    proxy.apply(half(1, users, candidate, 7));
    until_cut_off(users, &met);
    let cut = the_cut(&mut proxy);
    assert_eq!((cut.name.rollout, cut.name.revision, cut.to), (RolloutId(7), Revision(2), Revision(1)));
    assert!(cut.case.to_string().contains("v2 failed"), "{}", cut.case);
    let told = report(&mut proxy, &[]);
    assert_eq!(told.generation, Generation(2), "a table of its own is in force");
    let reveals: Vec<_> = told.trials.iter().flat_map(|trial| &trial.reveals).collect();
    let recomputed = cut.recomputed(reveals);
    assert_eq!(recomputed, Some(Some((*cut.case).clone())), "its records lead there to the bit");
}

#[test]
fn a_cut_outlives_the_proxy_and_every_table_of_its_rollout_until_it_is_acknowledged() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut proxy = Proxy::start_in(directory.clone(), 2);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let users = socket.local_addr().unwrap();
    proxy.listen_on(&socket);
    let (candidate, met) = failing();
    proxy.apply(half(1, users, candidate, 7));
    until_cut_off(users, &met);
    let cut = the_cut(&mut proxy);
    // It is on disk although nobody waited for that.
    wait_for(|| {
        std::fs::read_to_string(directory.path().join("table.json")).unwrap().contains("\"cuts\":[{").then_some(())
    });
    proxy.stop(Duration::ZERO);
    let mut proxy = Proxy::start_in(directory, 2);
    proxy.listen_on(&socket);
    let refused = |proxy: &mut Proxy, table: RoutingTable| match proxy.ask(&Ask::Apply { table: Box::new(table) }) {
        Answer::Applied { .. } => None,
        Answer::Refused { why } => Some(why),
        other => panic!("{other:?}"),
    };
    let CutName { service, rollout, revision } = cut.name.clone();
    let why = TableRefused::CutOff { service, rollout, revision };
    assert_eq!(refused(&mut proxy, half(10, users, candidate, 7)), Some(why));
    assert_eq!(the_cut(&mut proxy).case, cut.case);
    let met_before = met.load(Ordering::SeqCst);
    assert!((0..50).all(|_| get(users, "/").status() == 200));
    assert_eq!(met.load(Ordering::SeqCst), met_before);
    let other = CutName { rollout: RolloutId(6), ..cut.name.clone() };
    assert_eq!(report(&mut proxy, &[other]).cuts.len(), 1, "another one is acknowledged");
    assert_eq!(report(&mut proxy, std::slice::from_ref(&cut.name)).cuts, []);
    assert_eq!(refused(&mut proxy, half(11, users, candidate, 7)), None);
}

#[test]
fn nobody_is_cut_off_while_nobody_can_take_the_traffic_and_the_verdict_stands_until_somebody_can() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let (candidate, met) = failing();
    let alone = |generation| {
        let mut alone = half(generation, users, candidate, 7);
        (alone.services[0].fallback, alone.services[0].relief) = (None, None);
        alone
    };
    proxy.apply(alone(1));
    let mut asked = 0;
    // A failure is told 50 ms later, in the next tenth of a second or two.
    let reveals = |proxy: &mut Proxy| {
        let trials = report(proxy, &[]).trials;
        trials.iter().flat_map(|trial| &trial.reveals).count()
    };
    wait_for(|| {
        (0..20).for_each(|_| drop(get(users, "/")));
        asked += 20;
        (reveals(&mut proxy) >= 5).then_some(())
    });
    assert!(met.load(Ordering::SeqCst) > asked / 5 && report(&mut proxy, &[]).cuts.is_empty());
    proxy.apply(half(2, users, candidate, 7));
    let told = report(&mut proxy, &[]);
    assert_eq!((told.generation, told.cuts.len()), (Generation(3), 1), "at once");
}

#[test]
fn the_same_release_may_be_tried_again_in_another_rollout() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let (candidate, met) = failing();
    proxy.apply(half(1, users, candidate, 7));
    until_cut_off(users, &met);
    let met_before = met.load(Ordering::SeqCst);
    proxy.apply(half(3, users, candidate, 8));
    wait_for(|| {
        assert_eq!(get(users, "/").status(), 200);
        (met.load(Ordering::SeqCst) > met_before).then_some(())
    });
}
