//! A recorded rollout, run once more: the same way, by a log that was changed, and by another spec.

use std::collections::BTreeMap;

use evenkeel_analysis::Outcome;
use evenkeel_analysis::slots::{Answers, Bad, Group, Part, Question, Reveal, Shares, Split};
use evenkeel_core::evidence::{Evidence, Tally, Tick};
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, Timestamp};
use evenkeel_core::ports::Recorded;
use evenkeel_core::record::{Decided, Record, What};
use evenkeel_core::replay::{Agreement, Instead, Recording, Replayed, instead, replay};
use evenkeel_core::rollout::Health;
use evenkeel_core::spec::{Analysis, Spec};
use evenkeel_core::{Event, Observation, Phase, Service};

use crate::fixtures::{at, canary, deploy, name};

/// Writes down what a controller would, of a service whose replicas are always ready.
struct Book {
    service: Service,
    now: Timestamp,
    evidence: Evidence,
    events: Vec<Recorded>,
    records: BTreeMap<RolloutId, Vec<Record>>,
    seen: Option<(RolloutId, Observation)>,
    sequence: u64,
}

impl Book {
    /// A service with 1 live and 2 on its way.
    fn new(spec: &Spec) -> Self {
        let (service, records) = (Service::new(name()), BTreeMap::new());
        let (evidence, events) = (Evidence::new(), Vec::new());
        let mut book = Self { service, now: at(1), evidence, events, records, seen: None, sequence: 0 };
        for version in ["1", "2"] {
            book.happen(Event::Deploy(Box::new(deploy(spec, version, false))));
            book.look(0);
        }
        book
    }

    fn write(&mut self, rollout: RolloutId, what: What) {
        self.sequence += 1;
        let record = Record { sequence: self.sequence, at: self.now, what };
        self.records.entry(rollout).or_default().push(record);
    }

    fn happen(&mut self, event: Event) {
        let next = self.service.step(&event, self.now).unwrap().unwrap().next;
        let version = self.events.len() as u64 + 1;
        for (rollout, decided) in Decided::of(version, &self.service, &next) {
            self.write(rollout, What::Decided(Box::new(decided)));
        }
        self.events.push(Recorded { version, at: self.now, event });
        self.service = next;
        self.evidence.follow(&self.service);
    }

    /// Half a second goes by with a hundred requests for each release, of which the candidate fails some.
    fn look(&mut self, failed: u64) {
        let from = self.now;
        self.now = Timestamp(from.0 + 500_000);
        let mut counted = None;
        while let Some(rollout) = self.service.in_flight() {
            let (id, candidate, weight) = (rollout.id, rollout.candidate, rollout.weight());
            let ready =
                Health { ready: 4, alive: if weight == BasisPoints::NONE { 0 } else { 4 }, ..Health::default() };
            let seen = Observation {
                candidate: ready,
                stable: Health { ready: 4, alive: 0, ..Health::default() },
                weight: Some(weight),
                verdict: evenkeel_analysis::Verdict::NotEnough { have: 0, need: 0 },
                is_proven: false,
                alone: None,
                measured: None,
                cut: None,
                smoke: None,
                fellows: None,
                outages: Vec::new(),
            };
            if self.seen.as_ref() != Some(&(id, seen.clone())) {
                self.seen = Some((id, seen.clone()));
                self.write(id, What::Seen(Box::new(seen.clone())));
            }
            if counted.is_none() && weight > BasisPoints::NONE {
                let tallies = BTreeMap::from([(Revision(1), requests(0)), (candidate, requests(failed))]);
                let sequence = self.sequence + 1;
                let reveals = vec![reveal(sequence, self.now, weight, failed)];
                let tick = Tick { sequence, from, at: self.now, counted: tallies, reveals, history: None };
                self.evidence.take(&tick);
                self.write(id, What::Counted(tick));
                counted = Some(());
            }
            self.evidence.look(self.now);
            let rollout = self.service.in_flight().unwrap();
            let (verdict, measured) = (self.evidence.verdict(rollout), self.evidence.measured(rollout));
            let (is_proven, measured) = (self.evidence.is_proven(rollout), Some(Box::new(measured)));
            let event = Event::Seen(Box::new(Observation {
                verdict,
                is_proven,
                alone: self.evidence.alone(rollout),
                measured,
                ..seen
            }));
            if self.service.step(&event, self.now).unwrap().is_none() {
                break;
            }
            self.happen(event);
        }
    }

    fn recording<'a>(&'a self, before: &'a Service) -> Recording<'a> {
        let rollout = RolloutId(2);
        Recording { before: (0, before), events: &self.events, records: &self.records[&rollout], rollout }
    }

    fn replay(&self) -> Replayed {
        replay(&self.recording(&Service::new(name())))
    }

    fn instead(&self, spec: &Spec) -> Instead {
        instead(&self.recording(&Service::new(name())), spec).unwrap()
    }
}

fn requests(failed: u64) -> Tally {
    let mut tally = Tally::default();
    (0..100).for_each(|n| tally.counts.record(Outcome::Answered(if n < failed { 500 } else { 200 }), 2_000));
    tally
}

/// What a proxy reveals of half a second with a hundred requests for each release.
fn reveal(sequence: u64, now: Timestamp, share: BasisPoints, failed: u64) -> Reveal {
    let slot = now.0 / 100_000;
    let answers = |slot: u64| Answers {
        question: Question { bad: Bad::Failed, after_us: 0, age_us: 100_000 },
        slot,
        candidate: Part { of: 20, bad: failed / 5 + u64::from(slot % 5 < failed % 5) },
        stable: Part { of: 20, bad: 0 },
        firsts: [0; 2],
    };
    let shares = Shares { candidate: share.get(), stable: 10_000 - share.get() };
    let split = if shares.weight().is_some() { Split::Coin } else { Split::Alone };
    let answers = (slot - 6..slot - 1).map(answers).collect();
    let group = Group { epoch: u64::from(share.get()), shares, split, answers, times: None };
    Reveal { boot: 1, sequence, slot, groups: vec![group] }
}

fn limit(objective: &str) -> Spec {
    Spec { objectives: vec![objective.parse().unwrap()], ..canary() }
}

/// Half of the requests may fail.
fn lax() -> Spec {
    Spec { analysis: Analysis { tolerate: 0.5, ..Analysis::default() }, ..limit("error_rate < 50%") }
}

/// A rollout that breaks its limit a few looks into the first step.
fn bad() -> Book {
    let mut book = Book::new(&limit("error_rate < 5%"));
    (0..6).for_each(|_| book.look(1));
    (0..8).for_each(|_| book.look(4));
    assert!(book.service.rollouts().any(|r| r.id == RolloutId(2) && matches!(r.phase, Phase::Done { .. })));
    book
}

#[test]
fn what_is_recorded_comes_out_as_it_was() {
    let replayed = bad().replay();
    assert!(replayed.is_same(), "{replayed:#?}");
    assert_eq!(replayed.unknown(), 0);
    assert!(replayed.decisions.len() >= 5);
}

#[test]
fn a_rollout_decided_by_another_limit_than_the_log_has_differs_where_that_matters() {
    let mut book = bad();
    let Event::Deploy(deploy) =
        &mut book.events.iter_mut().rev().find(|e| matches!(e.event, Event::Deploy(_))).unwrap().event
    else {
        panic!()
    };
    (deploy.spec.analysis, deploy.spec.objectives) = (lax().analysis, lax().objectives);
    let replayed = book.replay();
    let mut differing = replayed.differing();
    let is_way_back = |told: &String| told.starts_with("rolling back: 2 failed ");
    let found = differing.find(|checked| checked.told.iter().any(is_way_back)).unwrap();
    let Agreement::Different { differences } = &found.outcome else { panic!() };
    let what: Vec<&str> = differences.iter().map(|difference| difference.what.as_str()).collect();
    assert_eq!(what, ["verdict", "numbers", "phase", "wanted", "told"]);
}

#[test]
fn a_tick_that_was_changed_or_a_decision_that_was_not_taken_is_found() {
    let mut changed = bad();
    let ticks =
        changed.records.get_mut(&RolloutId(2)).unwrap().iter_mut().filter_map(|record| match &mut record.what {
            What::Counted(tick) => Some(tick),
            _ => None,
        });
    // One failed request more, in the first look of the step.
    let first = ticks.into_iter().next().unwrap();
    first.counted.get_mut(&Revision(2)).unwrap().counts.record(Outcome::Answered(500), 2_000);
    assert!(!changed.replay().is_same());

    let mut quiet = bad();
    let records = quiet.records.get_mut(&RolloutId(2)).unwrap();
    let way_back =
        |record: &Record| matches!(&record.what, What::Decided(d) if matches!(d.phase, Phase::RollingBack { .. }));
    let at = records.iter().position(way_back).unwrap();
    records.truncate(at);
    let replayed = quiet.replay();
    assert_eq!(replayed.missed.len(), 1, "{replayed:#?}");
    assert!(replayed.missed[0].told.starts_with("rolling back: 2 failed "));
}

#[test]
fn what_could_not_be_written_or_was_dropped_is_not_taken_for_a_difference() {
    let mut book = bad();
    let records = book.records.get_mut(&RolloutId(2)).unwrap();
    let way_back =
        |record: &Record| matches!(&record.what, What::Decided(d) if matches!(d.phase, Phase::RollingBack { .. }));
    let at = records.iter().position(way_back).unwrap();
    // The store did not take the way back; a record of the time before was dropped.
    let mark = |what| Record { what, ..records[at - 1].clone() };
    let (unwritten, lost) = (mark(What::Unwritten), mark(What::Lost { records: 1 }));
    let mut unsaved: Vec<Record> = records[..at].to_vec();
    unsaved.push(unwritten);
    let mut dropped = records.clone();
    dropped[at - 1] = lost;
    *records = unsaved;
    assert!(book.replay().is_same());
    *book.records.get_mut(&RolloutId(2)).unwrap() = dropped;
    let replayed = book.replay();
    assert!(replayed.is_same() && replayed.unknown() > 0, "{replayed:#?}");
}

#[test]
fn another_spec_is_run_by_the_same_records_up_to_where_they_tell_nothing() {
    let book = bad();
    let lax = book.instead(&lax());
    assert_eq!((lax.is_decided, lax.state.as_str()), (false, "watching at 5 %"));
    let analysis = Analysis { false_rollbacks: 0.2, ..Analysis::default() };
    let strict = book.instead(&Spec { analysis, ..limit("error_rate < 5%") });
    let happened = book.service.rollouts().find(|rollout| rollout.id == RolloutId(2)).unwrap();
    let back = |moments: &[evenkeel_core::rollout::Moment]| {
        moments.iter().find(|moment| moment.text.starts_with("rolling back")).map(|moment| moment.at).unwrap()
    };
    assert!(strict.is_decided && back(&strict.moments) < back(&happened.moments), "{strict:#?}");
    assert!(lax.assumed.iter().any(|assumed| assumed.contains("not at the shares of this spec")));
}
