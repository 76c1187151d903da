//! What a tick of evidence costs: taken, judged, written and read. Run with `--release`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use evenkeel_analysis::Outcome;
use evenkeel_analysis::slots::{Answers, Bad, Group, Part, Question, Reveal, Shares, Split, Times};
use evenkeel_core::evidence::{Evidence, Standing, Tally, Tick};
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::plan::Plan;
use evenkeel_core::rollout::{Kind, Start};
use evenkeel_core::spec::Spec;
use evenkeel_core::{Phase, Rollout, Service};

/// An hour of ticks, ten a second.
const TICKS: u64 = 36_000;
/// Those of ten seconds: so often it is remembered where the evidence stands.
const SINCE: u64 = 100;
/// Requests of each release in a tick.
const REQUESTS: u64 = 50;

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]
fn main() {
    let service = held();
    let rollout = service.in_flight().expect("it is held");
    let ticks: Vec<Tick> = (1..=TICKS).map(tick).collect();
    let report = |what: &str, began: Instant| {
        println!("{what:<42} {:>7.0} ns per tick", began.elapsed().as_secs_f64() * 1e9 / TICKS as f64);
    };
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    let began = Instant::now();
    ticks.iter().for_each(|tick| evidence.take(tick));
    report("counted", began);
    let began = Instant::now();
    ticks.iter().for_each(|_| drop(black_box(evidence.verdict(rollout))));
    report("judged (two objectives)", began);
    let began = Instant::now();
    ticks.iter().for_each(|_| assert!(black_box(evidence.measured(rollout)).tick > 0));
    report("told in numbers (when something is decided)", began);
    let began = Instant::now();
    let written: Vec<Vec<u8>> = ticks.iter().map(Tick::to_bytes).collect();
    report("written", began);
    let began = Instant::now();
    for (tick, bytes) in ticks.iter().zip(&written) {
        assert_eq!(Tick::from_bytes(tick.sequence, tick.at, bytes).as_ref(), Ok(tick));
    }
    report("read and compared", began);
    println!("{:<42} {:>7} bytes per tick", "size", written.iter().map(Vec::len).sum::<usize>() as u64 / TICKS);
    let began = Instant::now();
    let whole = Evidence::recalled(&service, &ticks);
    report("recalled by a new controller, all of it", began);
    let before = usize::try_from(TICKS - SINCE).expect("ticks in memory");
    let stood = Evidence::recalled(&service, &ticks[..before]).standing().expect("it was fed");
    let began = Instant::now();
    let bytes = stood.to_bytes();
    println!("{:<42} {:>7.0} µs, {} bytes", "where it stands, written", micros(began), bytes.len());
    let began = Instant::now();
    let read = Standing::from_bytes(&bytes).expect("it was written here");
    let resumed = Evidence::resumed(&service, read, &ticks[before..]).expect("of this rollout");
    println!("{:<42} {:>7.0} µs", "recalled from where it stood 10 s before", micros(began));
    assert_eq!(resumed.measured(rollout), whole.measured(rollout));
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6
}

fn held() -> Service {
    let name = ServiceName::new("web").expect("a name");
    let mut spec = Spec::new(name.clone(), vec!["app".into()], ([127, 0, 0, 1], 8080).into());
    spec.objectives = ["error_rate < 5%", "latency.p99 < 500ms"].map(|text| text.parse().expect("an objective")).into();
    let (candidate, stable, plan) = (Revision(2), Some(Revision(1)), Plan::of(&spec, 1));
    let start = Start {
        id: RolloutId(1),
        kind: Kind::Deploy,
        candidate,
        stable,
        plan,
        stable_replicas: 1,
        group: None,
        is_rescue: false,
        by: "bench".into(),
    };
    let mut rollout = Rollout::new(start, Timestamp(0));
    assert!(rollout.plan.steps[0].weight > BasisPoints::NONE);
    rollout.phase = Phase::Holding { step: 0, since: Timestamp(0), until: None, short_since: None };
    Service { spec: Some(Box::new(spec)), rollout: Some(rollout), ..Service::new(name) }
}

/// Latencies spread over some thirty buckets.
fn tick(sequence: u64) -> Tick {
    let tally = |revision: u64| {
        let mut tally = Tally::default();
        for request in 0..REQUESTS {
            let spread = (sequence * 31 + request * 7_919 + revision * 104_729) % 4_000;
            tally.counts.record(Outcome::Answered(200), 1_000 + spread);
        }
        tally
    };
    let counted = [1_u32, 2].map(|revision| (Revision(revision), tally(revision.into())));
    let (from, at) = (Timestamp((sequence - 1) * 100_000), Timestamp(sequence * 100_000));
    let reveals = vec![reveal(sequence)];
    Tick { sequence, from, at, counted: BTreeMap::from(counted), reveals, ..Tick::default() }
}

/// What became final in it: failures of both releases, some of them late, and how long answers took.
fn reveal(sequence: u64) -> Reveal {
    let part = |of, salt: u64| Part { of, bad: u64::from((sequence * 7 + salt * 13).is_multiple_of(41)) };
    let asked = [(Bad::Failed, 0, 50_000), (Bad::Failed, 50_000, 2_000_000), (Bad::Unanswered, 0, 10_000_000)];
    let answers = asked.into_iter().enumerate().map(|(n, (bad, after_us, age_us))| {
        let (candidate, stable) = (part(REQUESTS, n as u64), part(REQUESTS, n as u64 + 3));
        let question = Question { bad, after_us, age_us };
        Answers { question, slot: sequence, candidate, stable, firsts: [candidate.bad, stable.bad] }
    });
    let times = |salt: u64| (0..20).map(|bucket| (20 + bucket, (sequence + salt + u64::from(bucket)) % 5)).collect();
    let times = Some(Times { candidate: times(1), stable: times(2) });
    let shares = Shares { candidate: 5_000, stable: 5_000 };
    let group = Group { epoch: 1, shares, split: Split::Coin, answers: answers.collect(), times };
    Reveal { boot: 1, sequence, slot: sequence, groups: vec![group] }
}
