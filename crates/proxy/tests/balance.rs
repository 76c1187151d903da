//! Replicas of one release: which of them are passed over, for how long, and what that does to figures.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Proxy, Wire, saying, table, upstream, wait_for};
use evenkeel_analysis::slots::{Bad, Inquiry, Question};
use evenkeel_core::balance::{Ejection, Out};
use evenkeel_core::ids::{Revision, RolloutId};
use evenkeel_core::table::{RoutingTable, Trial};

/// A replica that answers 500 while it is ill, and how many requests it has had.
struct Patient {
    address: SocketAddr,
    ill: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Patient {
    fn start(ill: bool) -> Self {
        let (ill, asked) = (Arc::new(AtomicBool::new(ill)), Arc::new(AtomicU64::new(0)));
        let (state, count) = (ill.clone(), asked.clone());
        let address = upstream(move |stream| {
            let mut wire = Wire::over(stream);
            while wire.read_message().is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                let status = if state.load(Ordering::SeqCst) { "500 Ill" } else { "200 OK" };
                wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
            }
        });
        Self { address, ill, asked }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// So many requests that must not be sent twice, over one connection; gives how many failed.
fn post(listen: SocketAddr, times: usize) -> usize {
    let mut wire = Wire::to(listen);
    let mut ask = || wire.request("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n").status();
    (0..times).filter(|_| ask() >= 500).count()
}

/// The second release is on trial, whatever its share.
fn on_trial(mut table: RoutingTable) -> RoutingTable {
    let (rollout, candidate, stable) = (RolloutId(1), Revision(2), Some(Revision(1)));
    let failed = Question { bad: Bad::Failed, after_us: 0, age_us: 100_000 };
    let inquiry = Inquiry { questions: vec![failed], usual_us: 100_000, times_us: 0 };
    table.services[0].trial = Some(Trial { rollout, candidate, stable, step: 0, inquiry, brief: None, may_cut: false });
    table
}

#[test]
fn a_replica_that_fails_what_its_fellows_answer_is_passed_over_and_comes_back_when_it_is_well() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (ill, well) = (Patient::start(true), [saying("fine"), saying("fine"), saying("fine")]);
    proxy.apply(table(1, listen, &[(100, &[ill.address, well[0], well[1], well[2]])]));
    let failed = post(listen, 400);
    // Six, and one more for each pause that has ended meanwhile.
    assert!((6..=12).contains(&failed) && ill.asked() == failed as u64, "{failed}");
    let counts = proxy.wait_for_release(|release| release.counts.requests() == 400).counts;
    assert_eq!(counts.errors(), failed as u64, "what it failed counts against its release");
    ill.ill.store(false, Ordering::SeqCst);
    let before = ill.asked();
    wait_for(|| {
        post(listen, 20);
        (ill.asked() > before + 50).then_some(())
    });
    assert!(proxy.report().passed_over.is_empty());
}

#[test]
fn the_operators_side_is_told_who_is_passed_over_and_why() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let ill = Patient::start(true);
    proxy.apply(table(1, listen, &[(100, &[ill.address, saying("fine"), common::refusing()])]));
    let told = wait_for(|| {
        post(listen, 20);
        Some(proxy.report().passed_over).filter(|told| told.len() == 2)
    });
    let mut whys: Vec<(u16, Out, u32)> =
        told.iter().map(|out| (out.replica.launch as u16, out.why, out.workers)).collect();
    whys.sort_by_key(|(_, why, _)| *why);
    assert_eq!(whys[0], (ill.address.port(), Out::Fails, 1));
    assert_eq!((whys[1].1, whys[1].2), (Out::Refuses, 1));
}

#[test]
fn what_every_replica_fails_makes_none_of_them_be_passed_over() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let all = [Patient::start(true), Patient::start(true), Patient::start(true)];
    proxy.apply(table(1, listen, &[(100, &[all[0].address, all[1].address, all[2].address])]));
    assert_eq!(post(listen, 300), 300);
    assert!(all.iter().all(|replica| replica.asked() > 50), "{:?}", all.iter().map(Patient::asked).collect::<Vec<_>>());
}

#[test]
fn a_service_may_say_that_nobody_is_passed_over() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let ill = Patient::start(true);
    let mut table = table(1, listen, &[(100, &[ill.address, saying("fine")])]);
    table.services[0].edge.balance.ejection = Ejection::Off;
    proxy.apply(table);
    assert!(post(listen, 300) > 100);
}

#[test]
fn a_candidate_on_trial_is_judged_by_all_of_its_replicas() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let ill = Patient::start(true);
    let routes = table(1, listen, &[(0, &[saying("fine")]), (100, &[ill.address, saying("fine"), saying("fine")])]);
    proxy.apply(on_trial(routes));
    let failed = post(listen, 600);
    assert!(failed > 100, "{failed}: a third of 600 are 200");
    assert!(proxy.report().passed_over.is_empty());
}
