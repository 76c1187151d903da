//! Releases that have all of the traffic: validated by samples, compared with earlier ones, held back by a spent budget.

use std::collections::BTreeMap;

use evenkeel_analysis::Outcome;
use evenkeel_analysis::slo::{BadBy, Promise};
use evenkeel_core::alone::{Regression, Validation};
use evenkeel_core::evidence::{Evidence, Tally, Tick};
use evenkeel_core::gate::Passage;
use evenkeel_core::ids::{BasisPoints, Timestamp};
use evenkeel_core::rollout::Health;
use evenkeel_core::slo::{Slo, Spent, WhenSpent};
use evenkeel_core::spec::{Analysis, CanaryStep, Hold, Spec, Strategy};
use evenkeel_core::{Event, Observation, Phase, Refused, Service, Verb};

use crate::fixtures::{at, canary, deploy, name, seconds};

/// A service of which every release gets all of the traffic at once, a hundred requests a second.
struct House {
    service: Service,
    evidence: Evidence,
    now: Timestamp,
    sequence: u64,
}

/// All of the traffic for a minute.
fn all_at_once(analysis: Analysis, validation: Option<Validation>) -> Spec {
    let steps = vec![CanaryStep::new(BasisPoints::ALL, Hold::For(seconds(60)))];
    let strategy = Strategy::Canary { steps, sticky: None };
    Spec { strategy, analysis, validation, objectives: Vec::new(), ..canary() }
}

impl House {
    fn new(spec: &Spec) -> Self {
        let mut house = Self { service: Service::new(name()), evidence: Evidence::new(), now: at(1), sequence: 0 };
        house.deploy(spec, "1");
        house.pass(5, 0, 20_000);
        house
    }

    fn happen(&mut self, event: &Event) {
        if let Some(step) = self.service.step(event, self.now).unwrap() {
            self.service = step.next;
            self.evidence.follow(&self.service);
        }
    }

    fn deploy(&mut self, spec: &Spec, version: &str) {
        self.happen(&Event::Deploy(Box::new(deploy(spec, version, false))));
    }

    /// So many seconds, in each of which some of a hundred requests fail, and answers take so long.
    fn pass(&mut self, seconds: u32, failed: u64, us: u64) -> &mut Self {
        for _ in 0..seconds {
            let from = self.now;
            self.now = Timestamp(from.0 + 1_000_000);
            let Some(rollout) = self.service.in_flight() else { continue };
            if rollout.weight() > BasisPoints::NONE {
                let mut tally = Tally::default();
                (0..100).for_each(|n| tally.counts.record(Outcome::Answered(if n < failed { 500 } else { 200 }), us));
                self.sequence += 1;
                let counted = BTreeMap::from([(rollout.candidate, tally)]);
                self.evidence.take(&Tick { sequence: self.sequence, from, at: self.now, counted, ..Tick::default() });
            }
            self.look();
        }
        self
    }

    /// The world as it should be, until that changes nothing any more.
    fn look(&mut self) {
        for _ in 0..20 {
            let Some(rollout) = self.service.in_flight() else { return };
            self.evidence.look(self.now);
            let is_leaving = rollout.weight() == BasisPoints::NONE && !matches!(rollout.phase, Phase::Preparing { .. });
            let seen = Observation {
                candidate: Health { ready: 4, alive: if is_leaving { 0 } else { 4 }, ..Health::default() },
                stable: Health { ready: 4, alive: 0, ..Health::default() },
                weight: Some(rollout.weight()),
                verdict: self.evidence.verdict(rollout),
                is_proven: false,
                alone: self.evidence.alone(rollout),
                measured: Some(Box::new(self.evidence.measured(rollout))),
                cut: None,
                smoke: None,
                fellows: None,
                outages: Vec::new(),
            };
            let before = self.service.clone();
            self.happen(&Event::Seen(Box::new(seen)));
            if before == self.service {
                return;
            }
        }
    }

    fn state(&self) -> String {
        let rollout = self.service.rollout.as_ref().unwrap();
        match &rollout.phase {
            Phase::Paused { why, .. } => format!("paused: {why}"),
            Phase::Done { outcome: evenkeel_core::Outcome::RolledBack { why }, .. } => format!("back: {why}"),
            phase => phase.name().to_owned(),
        }
    }

    fn told(&self) -> Vec<&str> {
        self.service.rollout.as_ref().unwrap().moments.iter().map(|moment| moment.text.as_str()).collect()
    }
}

fn asks(regression: Regression) -> Analysis {
    Analysis { regression, ..Analysis::default() }
}

#[test]
fn a_release_is_recorded_when_it_is_promoted_and_a_later_one_that_is_worse_holds_for_people() {
    let spec = all_at_once(Analysis::default(), None);
    let mut house = House::new(&spec);
    house.deploy(&spec, "2");
    house.pass(70, 0, 20_000);
    assert_eq!((house.state().as_str(), house.service.baselines.len()), ("promoted", 1));
    let baseline = house.service.baselines.values().next().unwrap();
    assert!((6_000..=6_200).contains(&baseline.requests) && baseline.errors == 0, "{baseline:?}");

    house.deploy(&spec, "3");
    house.pass(70, 0, 22_000);
    assert_eq!(house.state(), "promoted");
    assert!(
        house.told().iter().any(|text| text.starts_with("earlier releases: no worse than r2")),
        "{:?}",
        house.told()
    );

    house.deploy(&spec, "4");
    house.pass(70, 0, 60_000);
    let state = house.state();
    assert!(state.starts_with("paused: r4 is slower than r3 of 100"), "{state}");
    assert!(state.ends_with("that is no proof, so people decide"), "{state}");
    house.happen(&Event::Command { verb: Verb::Promote { full: false }, by: "ann".into() });
    house.pass(2, 0, 60_000);
    assert_eq!((house.state().as_str(), house.service.baselines.len()), ("promoted", 3));
}

#[test]
fn a_regression_takes_the_release_back_or_is_told_where_the_spec_says_so() {
    for (regression, expected) in
        [(Regression::Rollback, "back: it fails more than r2 of 100"), (Regression::Tell, "promoted")]
    {
        let spec = all_at_once(asks(regression), None);
        let mut house = House::new(&spec);
        house.deploy(&spec, "2");
        house.pass(70, 0, 20_000);
        house.deploy(&spec, "3");
        house.pass(70, 3, 20_000);
        assert!(house.state().starts_with(expected), "{}", house.state());
    }
}

#[test]
fn a_validation_says_healthy_or_degraded_and_one_that_fails_goes_back_at_once() {
    let validation = Validation { lasting: seconds(300), ..Validation::default() };
    let spec = all_at_once(asks(Regression::Tell), Some(validation));
    let mut house = House::new(&spec);
    house.deploy(&spec, "2");
    house.pass(295, 2, 20_000);
    assert_eq!(house.state(), "watching", "it takes as long as the validation says");
    house.pass(10, 2, 20_000);
    assert_eq!(house.state(), "promoted");
    assert!(house.told().iter().any(|text| text.starts_with("validation: healthy: ")), "{:?}", house.told());

    house.deploy(&spec, "3");
    house.pass(60, 0, 2_000_000).pass(250, 0, 20_000);
    assert_eq!(house.state(), "promoted");
    assert!(house.told().iter().any(|text| text.starts_with("validation: degraded: ")), "{:?}", house.told());

    house.deploy(&spec, "4");
    house.pass(100, 0, 20_000).pass(5, 40, 20_000);
    let state = house.state();
    assert!(state.starts_with("back: validation failed: ") && state.contains("of a sample failed"), "{state}");
}

fn spent(then: WhenSpent) -> Passage {
    let what = "the error budget of `availability` is spent".to_owned();
    Passage { spent: vec![Spent { slo: "availability".into(), what, then }], ..Passage::default() }
}

#[test]
fn a_spent_budget_refuses_what_is_new_and_lets_fixes_and_ways_back_through() {
    let promise = Promise { bad: BadBy::Failing, objective: 0.999, window: seconds(30 * 86_400) };
    let slos = vec![Slo { name: "availability".into(), promise, when_spent: WhenSpent::Refuse }];
    let spec = Spec { slos, ..all_at_once(Analysis::default(), None) };
    let mut house = House::new(&spec);
    house.deploy(&spec, "2");
    house.pass(70, 0, 20_000);

    let wish = |version: &str, how: Passage| evenkeel_core::release::Deploy { how, ..deploy(&spec, version, false) };
    let refused = house.service.step(&Event::Deploy(Box::new(wish("3", spent(WhenSpent::Refuse)))), house.now);
    let Err(Refused::BudgetSpent { what }) = refused else { panic!("{refused:?}") };
    assert_eq!(what, "the error budget of `availability` is spent");
    // A fix says why; the way back to what was good needs no words.
    let fix = Passage { skip: Some("fixes the outage".into()), ..spent(WhenSpent::Refuse) };
    assert!(house.service.step(&Event::Deploy(Box::new(wish("3", fix))), house.now).unwrap().is_some());
    let back = house.service.step(&Event::Deploy(Box::new(wish("1", spent(WhenSpent::Refuse)))), house.now);
    assert!(back.unwrap().is_some());
    let told = house.service.step(&Event::Deploy(Box::new(wish("3", spent(WhenSpent::Tell)))), house.now);
    assert!(told.unwrap().is_some());
    // The first release of a service has nothing to spare.
    let first = Service::new(name());
    assert!(first.step(&Event::Deploy(Box::new(wish("1", spent(WhenSpent::Refuse)))), at(1)).unwrap().is_some());
}

#[test]
fn a_spent_budget_may_slow_a_rollout_down_instead() {
    let spec = all_at_once(Analysis { early: true, ..Analysis::default() }, None);
    let mut house = House::new(&spec);
    let how = spent(WhenSpent::Slow(3));
    house.happen(&Event::Deploy(Box::new(evenkeel_core::release::Deploy { how, ..deploy(&spec, "2", false) })));
    house.pass(170, 0, 20_000);
    assert_eq!(house.state(), "watching");
    let plan = &house.service.in_flight().unwrap().plan;
    assert!(!plan.analysis.early && plan.steps.iter().all(|step| step.hold == Hold::For(seconds(180))));
    assert!(house.told()[0].starts_with("each step takes 3 times as long: the error budget"), "{:?}", house.told());
    house.pass(15, 0, 20_000);
    assert_eq!(house.state(), "promoted");
}

#[test]
fn a_retry_finds_the_budgets_that_are_spent_by_then() {
    let mut house = House::new(&all_at_once(Analysis::default(), None));
    house.deploy(&all_at_once(Analysis::default(), None), "2");
    house.pass(5, 0, 20_000);
    house.happen(&Event::Command { verb: Verb::Abort, by: "bob".into() });
    house.pass(5, 0, 20_000);
    let retry = |spent: Vec<Spent>| Event::Command { verb: Verb::Retry { spent }, by: "bob".into() };
    let refused = house.service.step(&retry(spent(WhenSpent::Refuse).spent), house.now);
    let Err(Refused::BudgetSpent { what }) = refused else { panic!("{refused:?}") };
    assert_eq!(what, "the error budget of `availability` is spent");
    let slowed = |spent: Vec<Spent>| {
        let next = house.service.step(&retry(spent), house.now).unwrap().unwrap().next;
        next.in_flight().unwrap().plan.slowed
    };
    assert_eq!((slowed(spent(WhenSpent::Slow(3)).spent), slowed(spent(WhenSpent::Tell).spent)), (3, 1));
}
