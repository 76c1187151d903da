//! What a trial counts through the whole proxy: slots, arms, ages, and what becomes of it until it is kept.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use common::{Proxy, Wire, get, refusing, saying, table, upstream, wait_for};
use evenkeel_analysis::slots::{Answers, Bad, Inquiry, Part, Question, Reveal, Split};
use evenkeel_core::choice::{Mirror, StickyBy};
use evenkeel_core::ids::{BasisPoints, Generation, Revision, RolloutId};
use evenkeel_core::table::{RoutingTable, Trial};
use evenkeel_core::trial::Heard;
use evenkeel_wire::proxy::{Answer, Ask, Report};

const FAILED: Question = Question { bad: Bad::Failed, after_us: 0, age_us: 100_000 };
const FAILED_LATE: Question = Question { bad: Bad::Failed, after_us: 100_000, age_us: 900_000 };
const SLOW: Question = Question { bad: Bad::Slow, after_us: 0, age_us: 150_000 };

/// Revision 2 is on trial beside revision 1.
fn on_trial(mut table: RoutingTable, step: u32) -> RoutingTable {
    let inquiry = Inquiry { questions: vec![FAILED, FAILED_LATE, SLOW], usual_us: 100_000, times_us: 200_000 };
    let (rollout, candidate, stable) = (RolloutId(7), Revision(2), Some(Revision(1)));
    table.services[0].trial = Some(Trial { rollout, candidate, stable, step, inquiry, brief: None, may_cut: false });
    table
}

fn failing() -> SocketAddr {
    upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            if wire.send("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").is_none() {
                return;
            }
        }
    })
}

/// Answers after a while.
fn slow(after: Duration) -> SocketAddr {
    upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            std::thread::sleep(after);
            if wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_none() {
                return;
            }
        }
    })
}

fn ask(proxy: &mut Proxy, heard: &[Heard]) -> Report {
    match proxy.ask(&Ask::Report { heard: heard.to_vec(), acknowledged: Vec::new() }) {
        Answer::Report(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn reveals(report: Report) -> Vec<Reveal> {
    report.trials.into_iter().flat_map(|trial| trial.reveals).collect()
}

/// The sums of all answers to a question.
fn sum(reveals: &[Reveal], question: Question) -> (Part, Part) {
    let groups = reveals.iter().flat_map(|reveal| &reveal.groups);
    let answers: Vec<&Answers> = groups.flat_map(|g| &g.answers).filter(|a| a.question == question).collect();
    let part = |of: fn(&Answers) -> Part| Part {
        of: answers.iter().map(|answers| of(answers).of).sum(),
        bad: answers.iter().map(|answers| of(answers).bad).sum(),
    };
    (part(|answers| answers.candidate), part(|answers| answers.stable))
}

/// Waits until so many requests have been told of for a question.
fn wait_until_told(proxy: &mut Proxy, question: Question, requests: u64) -> Vec<Reveal> {
    wait_for(|| {
        let all = reveals(proxy.report());
        let (candidate, stable) = sum(&all, question);
        assert!(candidate.of + stable.of <= requests, "{candidate:?} {stable:?}");
        (candidate.of + stable.of == requests).then_some(all)
    })
}

#[test]
fn failures_are_the_candidates_whoever_answers_in_its_place_and_add_up_over_all_workers() {
    let mut proxy = Proxy::start(3);
    let users = proxy.listen();
    let mut releases = on_trial(table(1, users, &[(50, &[saying("stable")]), (50, &[failing()])]), 0);
    releases.services[0].fallback = Some(Revision(1));
    proxy.apply(releases);
    for _ in 0..100 {
        assert_eq!(get(users, "/").status(), 200, "the stable release shields");
    }
    let all = wait_until_told(&mut proxy, FAILED, 100);
    let (candidate, stable) = sum(&all, FAILED);
    assert_eq!((candidate.bad, stable.bad), (candidate.of, 0));
    assert!((20..=80).contains(&candidate.of), "{candidate:?}");
    let all = wait_until_told(&mut proxy, FAILED_LATE, 100);
    assert_eq!(sum(&all, FAILED_LATE).0, Part { of: candidate.of, bad: 0 }, "they were not late");
    let group = &all[0].groups[0];
    assert_eq!((group.epoch, group.shares.candidate, group.shares.stable), (3, 5_000, 5_000));
    assert_eq!(group.split, Split::Coin);
    let sequences: Vec<u64> = all.iter().map(|reveal| reveal.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<u64>>());
}

#[test]
fn who_does_not_answer_in_time_is_slow_and_who_is_refused_has_failed() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let hangs = slow(Duration::from_millis(400));
    proxy.apply(on_trial(table(1, users, &[(50, &[refusing()]), (50, &[hangs])]), 0));
    let asked: Vec<_> = (0..30).map(|_| std::thread::spawn(move || get(users, "/").status())).collect();
    let answered = asked.into_iter().map(|thread| thread.join().unwrap()).filter(|status| *status == 200).count();
    let all = wait_until_told(&mut proxy, FAILED, 30);
    let (candidate, stable) = sum(&all, FAILED);
    assert_eq!((candidate, stable.bad), (Part { of: answered as u64, bad: 0 }, stable.of));
    let all = wait_until_told(&mut proxy, SLOW, candidate.of);
    assert_eq!(
        sum(&all, SLOW),
        (Part { of: candidate.of, bad: candidate.of }, Part::default()),
        "failures are left out"
    );
    // Who still waits has taken as long as was waited: (200 ms - 5 ms) / 1.1.
    let times = wait_for(|| reveals(proxy.report()).into_iter().flat_map(|r| r.groups).find_map(|group| group.times));
    assert!(times.candidate.iter().all(|(bucket, _)| *bucket == 59) && times.stable.is_empty(), "{times:?}");
}

#[test]
fn another_share_is_another_epoch_and_the_same_share_is_not() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let (stable, candidate) = (saying("stable"), saying("candidate"));
    let split = |generation, step, share: u16| {
        on_trial(table(generation, users, &[(100 - share, &[stable]), (share, &[candidate])]), step)
    };
    for (requests, table) in [(20, split(1, 0, 30)), (20, split(2, 0, 30)), (20, split(3, 1, 60)), (20, split(4, 1, 0))]
    {
        proxy.apply(table);
        (0..requests).for_each(|_| drop(get(users, "/")));
    }
    let all = wait_until_told(&mut proxy, FAILED, 80);
    let mut by_epoch: BTreeMap<(u64, u16, Split), u64> = BTreeMap::new();
    for group in all.iter().flat_map(|reveal| &reveal.groups) {
        let of = group.answers.iter().filter(|answers| answers.question == FAILED);
        let requests: u64 = of.map(|answers| answers.candidate.of + answers.stable.of).sum();
        *by_epoch.entry((group.epoch, group.shares.candidate, group.split)).or_default() += requests;
    }
    let expected = [((3, 3_000, Split::Coin), 40), ((7, 6_000, Split::Coin), 20), ((9, 0, Split::Alone), 20)];
    assert_eq!(by_epoch, BTreeMap::from(expected));
}

#[test]
fn what_is_heard_is_not_told_again_and_what_is_kept_is_forgotten() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    proxy.apply(on_trial(table(1, users, &[(50, &[saying("stable")]), (50, &[saying("candidate")])]), 0));
    (0..10).for_each(|_| drop(get(users, "/")));
    let all = wait_until_told(&mut proxy, FAILED_LATE, 10);
    let last = all.last().unwrap().clone();
    let heard = |heard, kept| {
        let service = "web".to_owned().try_into().unwrap();
        [Heard { service, rollout: RolloutId(7), boot: last.boot, heard, kept }]
    };
    assert_eq!(reveals(ask(&mut proxy, &heard(last.sequence - 1, 0))), std::slice::from_ref(&last));
    assert_eq!(reveals(ask(&mut proxy, &[])), all, "a new controller is told everything that is not kept");
    assert_eq!(reveals(ask(&mut proxy, &heard(last.sequence, last.sequence - 1))), []);
    assert_eq!(reveals(ask(&mut proxy, &[])), [last], "what is kept is forgotten");
}

#[test]
fn nothing_is_lost_while_no_controller_asks() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let mut releases = on_trial(table(1, users, &[(50, &[saying("stable")]), (50, &[saying("candidate")])]), 0);
    // Answers are told soon, so that the counters have room for a few seconds only.
    releases.services[0].trial.as_mut().unwrap().inquiry =
        Inquiry { questions: vec![FAILED], usual_us: 100_000, times_us: 0 };
    proxy.apply(releases);
    (0..10).for_each(|_| drop(get(users, "/")));
    std::thread::sleep(Duration::from_secs(7));
    (0..10).for_each(|_| drop(get(users, "/")));
    wait_until_told(&mut proxy, FAILED, 20);
}

#[test]
fn users_that_stick_are_counted_by_their_first_failure() {
    let mut proxy = Proxy::start(2);
    let users = proxy.listen();
    let mut releases = on_trial(table(1, users, &[(50, &[failing()]), (50, &[failing()])]), 0);
    releases.services[0].sticky = Some(StickyBy::Header("x-user".into()));
    proxy.apply(releases);
    let ask = |fields: String| Wire::to(users).request(&format!("GET / HTTP/1.1\r\nhost: web\r\n{fields}\r\n"));
    for n in 0..60 {
        ask(format!("x-user: {}\r\n", n % 20));
        // Nobody knows who this is: a coin decides, and it is no part of the trial.
        ask(String::new());
    }
    let all = wait_until_told(&mut proxy, FAILED, 60);
    let groups = || all.iter().flat_map(|reveal| &reveal.groups);
    assert!(groups().all(|group| group.split == Split::Sticky));
    let firsts: u64 =
        groups().flat_map(|group| &group.answers).map(|answers| answers.firsts[0] + answers.firsts[1]).sum();
    assert_eq!(firsts, 20);
}

#[test]
fn users_with_cookies_carry_that_they_are_counted_past_the_end_of_the_proxy() {
    let (directory, socket) = (Arc::new(tempfile::tempdir().unwrap()), TcpListener::bind("127.0.0.1:0").unwrap());
    let users = socket.local_addr().unwrap();
    let mut releases = on_trial(table(1, users, &[(50, &[failing()]), (50, &[failing()])]), 0);
    releases.services[0].sticky = Some(StickyBy::Cookie("session".into()));
    let ask =
        |cookies: &str| Wire::to(users).request(&format!("GET / HTTP/1.1\r\nhost: web\r\ncookie: {cookies}\r\n\r\n"));
    let firsts = |all: &[Reveal]| {
        let answers = all.iter().flat_map(|reveal| &reveal.groups).flat_map(|group| &group.answers);
        answers.map(|answers| answers.firsts[0] + answers.firsts[1]).sum::<u64>()
    };
    let mut proxy = Proxy::start_in(directory.clone(), 1);
    proxy.listen_on(&socket);
    proxy.apply(releases.clone());
    let first = ask("session=ada");
    let mark = first.field("set-cookie").unwrap().split_once(';').unwrap().0.to_owned();
    assert!(mark.starts_with("evenkeel-counted=7."), "{mark}");
    assert_eq!(ask(&format!("session=ada; {mark}")).field("set-cookie"), None, "once is enough");
    assert_eq!(firsts(&wait_until_told(&mut proxy, FAILED, 2)), 1);
    proxy.stop(Duration::ZERO);

    let mut proxy = Proxy::start_in(directory, 1);
    proxy.listen_on(&socket);
    releases.generation = Generation(2);
    proxy.apply(releases);
    ask(&format!("session=ada; {mark}"));
    let stolen = ask(&format!("session=grace; {mark}"));
    assert!(stolen.field("set-cookie").is_some(), "it is ada's");
    assert_eq!(firsts(&wait_until_told(&mut proxy, FAILED, 2)), 1, "grace, and not ada again");
}

#[test]
fn a_candidate_without_a_share_is_known_by_its_copies() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let mut releases = on_trial(table(1, users, &[(100, &[saying("stable")]), (0, &[failing()])]), 0);
    releases.services[0].mirror = Some(Mirror { to: Revision(2), share: BasisPoints::ALL });
    proxy.apply(releases);
    (0..20).for_each(|_| drop(get(users, "/")));
    let all = wait_until_told(&mut proxy, FAILED, 40);
    assert_eq!(sum(&all, FAILED), (Part { of: 20, bad: 20 }, Part { of: 20, bad: 0 }));
}

#[test]
fn a_client_that_leaves_at_once_counts_for_nobody_and_one_that_has_waited_does() {
    let mut proxy = Proxy::start(1);
    let users = proxy.listen();
    let hangs = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {}
    });
    proxy.apply(on_trial(table(1, users, &[(0, &[saying("stable")]), (100, &[hangs])]), 0));
    let leave_after = |wait: Duration| {
        let mut wire = Wire::to(users);
        wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        std::thread::sleep(wait);
    };
    leave_after(Duration::from_millis(20));
    leave_after(Duration::from_millis(400));
    let all = wait_until_told(&mut proxy, FAILED_LATE, 1);
    assert_eq!(sum(&all, FAILED_LATE).0, Part { of: 1, bad: 1 });
    assert_eq!(sum(&all, FAILED).0, Part { of: 1, bad: 0 }, "it was still waiting when that was answered");
}
