//! One rollout in virtual time.
//!
//! A turn is the controller's: look, decide, act, move traffic. Turns come ten times a second while something is to be
//! judged or under way, as a controller looks at the counters, and else only when something may change: the time between
//! is passed in one.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::Verdict;
use evenkeel_analysis::condition::{Judged, Said};
use evenkeel_core::check::{Due, Sighting};
use evenkeel_core::evidence::{History, Tally};
use evenkeel_core::fleet::{self, Fleet};
use evenkeel_core::gate::{Gates, Passage};
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, RolloutId, Timestamp};
use evenkeel_core::plan;
use evenkeel_core::release::{Deploy, Release, Standing};
use evenkeel_core::rollout::{Health, Moment, RolloutEvent, Why};
use evenkeel_core::spec::{Shield, Spec};
use evenkeel_core::table::{Mirror, Pin, ServiceRoutes, Trial};
use evenkeel_core::{Event, Evidence, Observation, Outcome, Phase, Rollout, Service, Tick, Wanted};
use serde::Serialize;

use crate::dice::Dice;
use crate::proxy::Proxy;
use crate::scenario::{Arm, Scenario, Trouble};
use crate::trial::Ends;
pub use crate::world::Users;
use crate::world::{Calm, Platform, Serving, Stretch, Traffic, arm, starts_in};

/// A turn comes this often while something is under way, as a controller's.
const TICK: Duration = Duration::from_millis(100);
/// A service in which nothing is new is looked at again after this long, as a controller does it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A new controller looks this long before it decides.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// How long smoke checks take.
const SMOKE_TAKES: Duration = Duration::from_millis(500);
/// Longest time until the stable release runs, before anything is simulated.
const WARM_UP_MAX: Duration = Duration::from_secs(3_600);
/// Decisions in one turn; more would mean that two of them undo each other.
const DECISIONS_PER_TURN: usize = 8;
/// Rounds of deciding and moving traffic in one turn.
const ROUNDS_PER_TURN: usize = 4;
/// The candidate before there is one.
const NOBODY: Revision = Revision(u32::MAX);
/// Points that are kept for a picture.
const POINTS_MAX: usize = 600;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The spec of both releases.
    pub spec: &'a Spec,
    /// What the new release is called.
    pub version: &'a str,
    /// What happens around it.
    pub scenario: &'a Scenario,
    /// One seed gives one story.
    pub seed: u64,
    /// Whether to keep what a picture shows.
    pub keeps_points: bool,
}

/// What happened. Times count from the deploy, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// How it ended.
    pub end: End,
    /// Why, in words for people.
    pub reason: String,
    /// When nothing more was to happen.
    pub ended_us: u64,
    /// When the candidate was promoted, was cut off by the proxy, or began to be taken back.
    pub decided_us: Option<u64>,
    /// From when the candidate was as bad as it was in the end, for its users, until that decision; `None` when its
    /// requests or its replicas were not the reason.
    pub detected_after_us: Option<u64>,
    /// What became of the users' requests.
    pub users: Users,
    /// What was decided, and what happened around it.
    pub timeline: Vec<Line>,
    /// Turns that were taken.
    pub turns: u64,
    /// Shares and errors over time, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Point>,
}

/// How a simulated rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The candidate is the stable release.
    Promoted,
    /// The candidate was taken back, or stopped where there was nothing to go back to.
    RolledBack,
    /// It stands still and waits for people, as it was asked to or by itself.
    Paused,
    /// Traffic could not be moved back: people are needed.
    Stuck,
    /// The scenario's time was over before it ended.
    Open,
}

/// A line of a timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// When.
    pub at_us: u64,
    /// Whether the engine decided it; otherwise the scenario had it happen.
    pub is_decision: bool,
    /// In words.
    pub text: String,
}

/// A stretch of time, for a picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Point {
    /// Its end.
    pub at_us: u64,
    /// The candidate's share at its end, in units of 0.01 %.
    pub share: u16,
    /// The candidate's requests and how many of them failed.
    pub candidate: (u64, u64),
    /// The other release's requests and how many of them failed.
    pub stable: (u64, u64),
}

impl End {
    /// In a word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Paused => "paused",
            Self::Stuck => "people are needed",
            Self::Open => "still open",
        }
    }
}

/// Lets a rollout happen in virtual time.
#[must_use]
pub fn simulate(question: &Question<'_>) -> Story {
    let mut run = Run::new(question);
    if question.scenario.stable.is_some() {
        run.warm_up();
    }
    run.deploy();
    while let Some(next) = run.next() {
        run.pass(next);
        run.happen();
        run.turn();
    }
    run.told()
}

/// A service whose stable release is `version` of a spec: what an update starts from.
#[must_use]
pub fn running(spec: &Spec, version: &str, now: Timestamp) -> Service {
    let deploy = deploy(spec, version);
    let (first, spec) = (Revision(1), Some(deploy.spec.clone()));
    let (content, replicas) = (deploy.content(), deploy.spec.replicas);
    let version = version.to_owned();
    let release = Release { revision: first, version, content, replicas, created: now, standing: Standing::Good };
    Service {
        spec,
        releases: BTreeMap::from([(first, release)]),
        stable: Some(first),
        promoted: vec![first],
        next_revision: Revision(2),
        next_rollout: RolloutId(2),
        ..Service::new(deploy.spec.service)
    }
}

fn deploy(spec: &Spec, version: &str) -> Deploy {
    let (directory, by) = (String::new(), "you".to_owned());
    Deploy {
        version: version.to_owned(),
        // Gates are for people and calendars: time counts from when they are open.
        spec: Box::new(Spec { gates: Gates::default(), ..spec.clone() }),
        artefact: None,
        directory,
        by,
        again: false,
        how: Passage::default(),
        group: None,
    }
}

struct Run<'a> {
    question: &'a Question<'a>,
    service: Service,
    fleet: Fleet,
    evidence: Evidence,
    platform: Platform,
    calm: Calm,
    traffic: Traffic<'a>,
    dice: Dice,
    proxy: Proxy,
    wanted: Wanted,
    now: Timestamp,
    /// The moment of the deploy.
    began: Timestamp,
    candidate: Revision,
    /// Moments at which the scenario changes, rising; those before `at_change` have been.
    changes: Vec<Duration>,
    at_change: usize,
    /// The fleet has something to do whatever it says.
    is_restless: bool,
    /// Until when it has nothing to do otherwise.
    rests_until: Timestamp,
    /// What the rollout waits for, as far as it is known without looking.
    pace: Pace,
    /// Nobody controls anything before then, and nothing is decided for `FIRST_LOOK` longer.
    gone_until: Timestamp,
    smoke: Option<(RolloutId, Timestamp)>,
    looked: Timestamp,
    has_new_counts: bool,
    counted_from: Timestamp,
    sequence: u64,
    users: Users,
    happened: Vec<Line>,
    first_audience: Option<Timestamp>,
    decided: Option<(Timestamp, Option<Why>)>,
    turns: u64,
    points: Points,
    /// What the stable release was like before, once somebody had to know.
    history: Option<History>,
    /// Something of the requests on trial has become final.
    has_revealed: bool,
}

impl<'a> Run<'a> {
    fn new(question: &'a Question<'a>) -> Self {
        let spec = question.spec;
        let began = Timestamp(0);
        let service = match question.scenario.stable {
            Some(_) => running(spec, "stable", began),
            None => Service::new(spec.service.clone()),
        };
        let listen = spec.listen.unwrap_or_else(|| ServiceRoutes::nowhere().listen);
        Self {
            question,
            fleet: Fleet::new(spec.service.clone()),
            evidence: Evidence::new(),
            platform: Platform::default(),
            calm: Calm::default(),
            traffic: Traffic::new(question.scenario, matches!(spec.shield, Shield::On { .. })),
            dice: Dice::new(question.seed),
            proxy: Proxy::new(spec.service.clone(), listen),
            wanted: service.wanted(),
            service,
            now: began,
            began,
            candidate: NOBODY,
            changes: question.scenario.changes(),
            at_change: 0,
            is_restless: true,
            rests_until: began,
            pace: Pace::default(),
            gone_until: began,
            smoke: None,
            looked: began,
            has_new_counts: false,
            counted_from: began,
            sequence: 0,
            users: Users::default(),
            happened: Vec::new(),
            first_audience: None,
            decided: None,
            turns: 0,
            points: Points::new(question.keeps_points),
            history: None,
            has_revealed: false,
        }
    }

    /// The stable release starts and has the traffic before anything is asked for.
    fn warm_up(&mut self) {
        let stable = Revision(1);
        let is_there = |run: &Self| {
            let ready = run.fleet.health(stable).ready >= run.wanted.replicas.get(&stable).copied().unwrap_or(0);
            ready && (run.wanted.shut || run.proxy.routes().weight_of(stable) == BasisPoints::ALL)
        };
        while !is_there(self) && self.now.since(Timestamp(0)) < WARM_UP_MAX {
            if self.act() {
                self.move_traffic();
            }
            self.now = self.now.after(TICK);
            self.platform.pass(self.now);
        }
    }

    fn deploy(&mut self) {
        (self.began, self.gone_until, self.looked, self.counted_from) = (self.now, Timestamp(0), self.now, self.now);
        self.candidate = self.service.next_revision;
        let deploy = deploy(self.question.spec, self.question.version);
        self.event(&Event::Deploy(Box::new(deploy)));
        self.happen();
        self.turn();
    }

    /// The time since the deploy.
    fn at(&self) -> Duration {
        self.now.since(self.began)
    }

    /// What the scenario has happen at this moment.
    fn happen(&mut self) {
        let scenario = self.question.scenario;
        let due = |at: Duration, run: &Self| run.began.after(at) <= run.now;
        let first = self.at_change;
        while self.changes.get(self.at_change).is_some_and(|at| due(*at, self)) {
            self.at_change += 1;
        }
        let over: Vec<Duration> = self.changes[first..self.at_change].to_vec();
        if !over.is_empty() {
            for (replica, kind, answer, at) in self.calm.give_back(self.now) {
                self.fleet.answered(&replica, kind, &answer, at);
            }
        }
        for at in over {
            self.is_restless = true;
            self.tell_changes(at);
            for fault in scenario.faults.iter().filter(|fault| fault.at == at) {
                match fault.what {
                    Trouble::Dies { arm, replicas } => {
                        if let Some(revision) = self.revision(arm) {
                            self.platform.die(revision, replicas, self.now);
                        }
                    }
                    Trouble::ControllerDies { lasts } => {
                        self.gone_until = self.now.after(lasts);
                        (self.fleet, self.calm) = (Fleet::new(self.service.name.clone()), Calm::default());
                    }
                    Trouble::Down { .. } => {}
                }
            }
            for (_, verb) in scenario.commands.iter().filter(|(when, _)| *when == at) {
                self.event(&Event::Command { verb: verb.clone(), by: "you".to_owned() });
            }
        }
    }

    fn revision(&self, arm: Arm) -> Option<Revision> {
        match arm {
            Arm::Candidate => Some(self.candidate),
            Arm::Stable => self.service.rollout.as_ref().and_then(|rollout| rollout.stable),
        }
    }

    fn tell_changes(&mut self, at: Duration) {
        let told = crate::scenario::told(self.question.scenario, at);
        let at_us = micros(at);
        self.happened.extend(told.into_iter().map(|text| Line { at_us, is_decision: false, text }));
    }

    fn event(&mut self, event: &Event) {
        match self.service.step(event, self.now) {
            Ok(Some(step)) => self.becomes(step.next),
            Ok(None) => {}
            Err(refused) => {
                let at_us = micros(self.at());
                self.happened.push(Line { at_us, is_decision: false, text: format!("refused: {refused}") });
            }
        }
    }

    fn becomes(&mut self, next: Service) {
        self.service = next;
        self.wanted = self.service.wanted();
        self.evidence.follow(&self.service);
        self.is_restless = true;
        self.pace = self.service.in_flight().map(Pace::of).unwrap_or_default();
        let smoking = self.service.in_flight().filter(|rollout| matches!(rollout.phase, Phase::Smoking { .. }));
        match (smoking, &self.smoke) {
            (Some(rollout), Some((known, _))) if *known == rollout.id => {}
            (Some(rollout), _) => self.smoke = Some((rollout.id, self.now.after(SMOKE_TAKES))),
            (None, _) => self.smoke = None,
        }
        let rollout = self.service.rollout.as_ref().filter(|_| self.decided.is_none());
        self.decided = rollout
            .and_then(|rollout| match &rollout.phase {
                Phase::RollingBack { why, .. } | Phase::Clearing { back: Some(why), .. } => {
                    Some((self.now, Some(why.clone())))
                }
                _ if rollout.is_promoted() => Some((self.now, None)),
                _ => None,
            })
            .or(self.decided.take());
    }

    /// One turn of a controller's loop.
    fn turn(&mut self) {
        self.turns += 1;
        if self.platform.pass(self.now) {
            self.is_restless = true;
        }
        self.guard();
        if self.now < self.gone_until {
            return;
        }
        self.count_tick();
        self.measure();
        for _ in 0..ROUNDS_PER_TURN {
            if self.now >= self.gone_until.after(FIRST_LOOK) || self.gone_until == Timestamp(0) {
                self.decide();
            }
            if !self.act() || !self.move_traffic() {
                break;
            }
        }
    }

    /// The proxy judges what has become final, whoever controls.
    fn guard(&mut self) {
        let Some(cut) = self.proxy.judge(self.now) else { return };
        let (revision, case, to) = (cut.name.revision, cut.case.clone(), cut.to);
        self.is_restless = true;
        // Otherwise the controller says so in the same moment.
        if self.now < self.gone_until {
            let text = format!("the proxy cuts {revision} off, all traffic is on {to}: {case}");
            let at_us = micros(self.at());
            self.happened.push(Line { at_us, is_decision: true, text });
        }
        self.decided.get_or_insert((self.now, Some(Why::Cut { revision, case })));
    }

    /// Hands the evidence what was counted since the turn before.
    fn count_tick(&mut self) {
        let (from, counted) = self.points.take_counted();
        let reveals = self.proxy.hear();
        if counted.is_empty() && reveals.is_empty() {
            return;
        }
        let is_first = !self.has_revealed && !reveals.is_empty();
        self.has_revealed |= is_first;
        let has_stable = self.question.scenario.stable.is_some();
        let history = (is_first && has_stable).then(|| self.history());
        self.sequence += 1;
        let from = from.max(self.counted_from);
        self.evidence.take(&Tick { sequence: self.sequence, from, at: self.now, counted, reveals, history });
        (self.counted_from, self.has_new_counts) = (self.now, true);
    }

    /// What the stable release was like before.
    fn history(&mut self) -> History {
        let Self { history, traffic, dice, .. } = self;
        history.get_or_insert_with(|| traffic.history(dice).unwrap_or_default()).clone()
    }

    fn decide(&mut self) {
        let is_stale = self.now.since(self.looked) >= LOOK_AGAIN;
        if !(self.is_restless || self.has_new_counts || is_stale || self.is_due()) {
            return;
        }
        (self.looked, self.has_new_counts) = (self.now, false);
        self.evidence.look(self.now);
        for _ in 0..DECISIONS_PER_TURN {
            let Some(seen) = self.observe() else { return };
            // Most looks at the world change nothing.
            let event = RolloutEvent::Seen(seen);
            let changes = |rollout: &Rollout| rollout.step(&event, self.now).ok().flatten().is_some();
            if !self.service.in_flight().is_some_and(changes) {
                return;
            }
            let RolloutEvent::Seen(seen) = event else { return };
            self.event(&Event::Seen(Box::new(seen)));
        }
    }

    /// Whether a limit that the rollout has set itself is over.
    fn is_due(&self) -> bool {
        self.pace.limits.iter().flatten().any(|until| *until <= self.now)
    }

    /// Measures what checks ask for, in no time.
    fn measure(&mut self) {
        let (phase, what) = match self.question.scenario.checks_pass {
            true => (Said::Successful, "good, as the scenario has it"),
            false => (Said::Failed, "bad, as the scenario has it"),
        };
        for due in self.service.due_checks(self.now) {
            let said = Judged { phase, message: what.to_owned() };
            let Due { rollout, run, number, .. } = due;
            let sighting = Sighting { rollout, run, number, asked: self.now, said, value: String::new() };
            self.event(&Event::Checked(Box::new(sighting)));
        }
    }

    fn observe(&self) -> Option<Observation> {
        let rollout = self.service.in_flight()?;
        let health = |revision: Option<Revision>| revision.map_or_else(Health::default, |r| self.fleet.health(r));
        let is_worker = self.question.spec.listen.is_none();
        let in_force = if is_worker { rollout.weight() } else { self.proxy.routes().weight_of(rollout.candidate) };
        let smoked = self.smoke.filter(|(id, at)| *id == rollout.id && self.now >= *at);
        let result = if self.question.scenario.smoke_passes { Ok(()) } else { Err("GET /: 500".to_owned()) };
        Some(Observation {
            candidate: health(Some(rollout.candidate)),
            stable: health(rollout.stable),
            weight: Some(in_force),
            verdict: if self.pace.is_judged {
                self.evidence.verdict(rollout)
            } else {
                Verdict::NotEnough { have: 0, need: 1 }
            },
            is_proven: self.pace.is_judged && self.evidence.is_proven(rollout),
            alone: if self.pace.is_judged { self.evidence.alone(rollout) } else { None },
            measured: None,
            cut: self.proxy.cut_in(rollout.id).map(|cut| Box::new(cut.clone())),
            smoke: smoked.map(|_| result),
            fellows: None,
            outages: Vec::new(),
        })
    }

    /// Lets the fleet say what is to be done, and does it.
    ///
    /// Tells whether it had anything to say.
    fn act(&mut self) -> bool {
        if !std::mem::take(&mut self.is_restless) && self.now < self.rests_until {
            return false;
        }
        let (idle, nowhere) = (BTreeMap::<ReplicaId, u64>::new(), ServiceRoutes::nowhere());
        let in_force = if self.question.spec.listen.is_some() { self.proxy.routes() } else { &nowhere };
        let world = fleet::World {
            wanted: &self.wanted,
            releases: &self.service.releases,
            replicas: Some(self.platform.list()),
            in_force: Some(in_force),
            in_flight: Some(&idle),
        };
        for action in self.fleet.step(&world, self.now) {
            if let fleet::Action::Probe { replica, kind, probe, .. } = &action {
                let is_down = self.question.scenario.is_down(arm(replica.revision, self.candidate), self.at());
                let is_down = is_down && self.candidate != NOBODY;
                let answer = self.platform.probe(replica, is_down, self.now);
                if !self.calm.keeps(replica, *kind, probe, &answer, self.now) {
                    self.is_restless |= self.fleet.answered(replica, *kind, &answer, self.now);
                }
                continue;
            }
            self.is_restless = true;
            let starting = match &action {
                fleet::Action::Start(id) => starts_in(self.question.scenario, arm(id.revision, self.candidate)),
                _ => None,
            };
            self.platform.act(&action, starting, self.now);
        }
        self.rests_until = self.fleet.rests_until();
        true
    }

    /// Puts the table in force that is wanted; tells whether it is another one.
    fn move_traffic(&mut self) -> bool {
        if self.question.spec.listen.is_none() {
            return false;
        }
        let routes = self.routes();
        let moved = self.proxy.apply(routes, self.service.in_flight().map(|rollout| rollout.id));
        self.is_restless |= moved;
        moved
    }

    /// The table that is wanted, as a controller makes it.
    fn routes(&mut self) -> ServiceRoutes {
        let idle = BTreeMap::<ReplicaId, u64>::new();
        let in_force = self.proxy.routes();
        let world = fleet::World {
            wanted: &self.wanted,
            releases: &self.service.releases,
            replicas: Some(self.platform.list()),
            in_force: Some(in_force),
            in_flight: Some(&idle),
        };
        let (releases, fallback) = (self.fleet.releases(&world), self.fleet.fallback(&world));
        let relief = self.service.in_flight().and_then(|rollout| self.fleet.relief(&world, rollout));
        let is_there = |revision: &Revision| releases.iter().any(|r| r.revision == *revision && !r.backends.is_empty());
        let candidate = self.wanted.candidate.map(|(candidate, _)| candidate).filter(is_there);
        let pins =
            candidate.iter().flat_map(|to| self.wanted.pins.iter().map(|when| Pin { when: when.clone(), to: *to }));
        let pins = pins.collect();
        let mirror = candidate.filter(|_| self.wanted.mirror > BasisPoints::NONE);
        let mirror = mirror.map(|to| Mirror { to, share: self.wanted.mirror });
        let ServiceRoutes { listen, trial: known, .. } = in_force;
        let (listen, known) = (*listen, known.clone());
        let p99 = |_| self.question.scenario.behaviour(Arm::Stable, Duration::ZERO).map(|stable| stable.latency.p99);
        let (history, traffic, dice) = (&mut self.history, &mut self.traffic, &mut self.dice);
        let history = |_| history.get_or_insert_with(|| traffic.history(dice).unwrap_or_default()).clone();
        let trial = Trial::wanted(&self.service, known.as_ref(), p99, history);
        let (service, sticky) = (self.service.name.clone(), self.wanted.sticky.clone());
        ServiceRoutes {
            service,
            listen,
            releases,
            fallback,
            relief,
            pins,
            mirror,
            sticky,
            trial,
            ..ServiceRoutes::nowhere()
        }
    }

    /// The next moment at which anything may change; `None` when nothing will.
    fn next(&mut self) -> Option<Timestamp> {
        let horizon = self.began.after(self.question.scenario.lasts);
        self.service.in_flight()?;
        if self.now >= horizon {
            return None;
        }
        let tick = self.now.after(TICK);
        let change = self.changes.get(self.at_change).map(|at| self.began.after(*at));
        let rate = self.question.scenario.rate_at(self.at());
        if self.now < self.gone_until {
            let looks = (rate > 0.0 && self.proxy.guards()).then_some(tick);
            return change.into_iter().chain(looks).chain([self.gone_until]).min();
        }
        let Pace { is_for_people, is_judged, limits } = self.pace;
        let has_requests = is_judged && rate > 0.0;
        let has_happened = self.at_change + 1 >= self.changes.len();
        // People are waited for, and none come: what the requests say may still take it back, but not for ever.
        if is_for_people && has_happened && !(has_requests && self.at() < self.last_change() + WARM_UP_MAX) {
            return None;
        }
        if self.is_restless || has_requests {
            return Some(change.map_or(tick, |change| change.min(tick)));
        }
        let own = limits.into_iter().flatten().chain([self.rests_until]).chain(self.smoke.map(|(_, at)| at));
        let own = own.chain(self.service.in_flight().and_then(|rollout| rollout.checks.next_at()));
        let next = own.chain(self.platform.next_end()).chain(change).min()?;
        // Turns stand on a grid of ticks, as far as the scenario's own moments allow.
        let ticks = next.since(self.now).as_micros().div_ceil(TICK.as_micros()).max(1);
        let grid = self.now.after(TICK * u32::try_from(ticks).unwrap_or(u32::MAX));
        Some(change.map_or(grid, |change| change.max(tick).min(grid)))
    }

    fn last_change(&self) -> Duration {
        self.changes.iter().rev().nth(1).copied().unwrap_or_default()
    }

    /// Lets the users' requests of the time up to a moment happen.
    fn pass(&mut self, until: Timestamp) {
        let from = self.now;
        let routes = self.proxy.routes();
        let serving = Serving {
            table: routes,
            candidate: self.candidate,
            has_pins: !routes.pins.is_empty(),
            mirror: routes.mirror.as_ref().map_or(0.0, |mirror| f64::from(mirror.share.get()) / 10_000.0),
        };
        let reaches = routes.weight_of(self.candidate) > BasisPoints::NONE || serving.has_pins || serving.mirror > 0.0;
        if reaches && self.first_audience.is_none() {
            self.first_audience = Some(from);
        }
        let stretch = Stretch { at: until.since(self.began), lasts: until.since(from), now: from };
        let counted = if self.question.spec.listen.is_some() {
            let mut ends = <[Ends; 2]>::default();
            let (users, dice) = (&mut self.users, &mut self.dice);
            let counted = self.traffic.pass(stretch, &serving, &self.platform, dice, users, &mut ends);
            self.proxy.count(from, ends);
            counted
        } else {
            BTreeMap::new()
        };
        let share = self.proxy.routes().weight_of(self.candidate);
        self.points.add(stretch.at, share, self.candidate, from, counted);
        self.now = until;
    }

    fn told(mut self) -> Story {
        let rollout = self.service.rollouts().last().cloned();
        let moments: Vec<Moment> = rollout.as_ref().map_or_else(Vec::new, |rollout| rollout.moments.clone());
        let end = rollout.as_ref().map_or(End::Open, end_of);
        let decisions = moments.iter().map(|moment| Line {
            at_us: micros(moment.at.since(self.began)),
            is_decision: true,
            text: moment.text.clone(),
        });
        let mut timeline: Vec<Line> = std::mem::take(&mut self.happened).into_iter().chain(decisions).collect();
        let ended_us = micros(self.at());
        timeline.retain(|line| line.at_us <= ended_us);
        timeline.sort_by_key(|line| (line.at_us, line.is_decision));
        let reason = moments.last().map_or_else(String::new, |moment| moment.text.clone());
        Story {
            end,
            reason,
            ended_us,
            decided_us: self.decided.as_ref().map(|(at, _)| micros(at.since(self.began))),
            detected_after_us: self.detected_after(),
            users: self.users,
            timeline,
            turns: self.turns,
            points: self.points.kept,
        }
    }

    fn detected_after(&self) -> Option<u64> {
        let (
            at,
            Some(
                Why::Harmful { .. } | Why::Cut { .. } | Why::Breach { .. } | Why::Unready { .. } | Why::Crashing { .. },
            ),
        ) = self.decided.as_ref()?
        else {
            return None;
        };
        let changed = self.began.after(self.question.scenario.candidate_changed(at.since(self.began)));
        let since = self.first_audience.map_or(changed, |first| first.max(changed));
        Some(micros(at.since(since)))
    }
}

/// What a rollout waits for.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// The moments at which it does something by itself.
    limits: [Option<Timestamp>; 2],
    /// It goes on only when people say so.
    is_for_people: bool,
    /// Its candidate has requests to be judged by.
    is_judged: bool,
}

impl Pace {
    fn of(rollout: &Rollout) -> Self {
        let held = match rollout.phase {
            Phase::Holding { until, .. } => until,
            _ => None,
        };
        let waiting = rollout.waiting();
        Self {
            limits: [held, waiting.as_ref().and_then(|waiting| waiting.until)],
            is_for_people: waiting.is_some_and(|waiting| waiting.until.is_none()),
            is_judged: rollout.audience().is_some_and(plan::Step::has_audience),
        }
    }
}

fn end_of(rollout: &Rollout) -> End {
    match &rollout.phase {
        Phase::Done { outcome: Outcome::Promoted, .. } | Phase::Retiring { .. } => End::Promoted,
        Phase::Done { .. } | Phase::RollingBack { .. } | Phase::Stopping { .. } => End::RolledBack,
        Phase::Stuck { .. } => End::Stuck,
        _ if rollout.waiting().is_some_and(|waiting| waiting.until.is_none()) => End::Paused,
        _ => End::Open,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What was counted, for the next tick and for a picture.
struct Points {
    keeps: bool,
    kept: Vec<Point>,
    /// How long a point is at least; doubled whenever there are too many.
    span_us: u64,
    from: Timestamp,
    counted: BTreeMap<Revision, Tally>,
}

impl Points {
    fn new(keeps: bool) -> Self {
        Self { keeps, kept: Vec::new(), span_us: 1_000_000, from: Timestamp(0), counted: BTreeMap::new() }
    }

    fn take_counted(&mut self) -> (Timestamp, BTreeMap<Revision, Tally>) {
        (self.from, std::mem::take(&mut self.counted))
    }

    fn add(
        &mut self,
        at: Duration,
        share: BasisPoints,
        candidate: Revision,
        from: Timestamp,
        counted: BTreeMap<Revision, Tally>,
    ) {
        if self.keeps {
            self.keep(micros(at), share, candidate, &counted);
        }
        if self.counted.is_empty() {
            (self.from, self.counted) = (from, counted);
        } else {
            for (revision, tally) in counted {
                self.counted.entry(revision).or_default().merge(&tally);
            }
        }
    }

    fn keep(&mut self, at_us: u64, share: BasisPoints, candidate: Revision, counted: &BTreeMap<Revision, Tally>) {
        let slot = |at_us: u64, span_us: u64| at_us.saturating_sub(1) / span_us;
        let is_same =
            |last: &Point| last.share == share.get() && slot(last.at_us, self.span_us) == slot(at_us, self.span_us);
        if !self.kept.last().is_some_and(is_same) {
            self.kept.push(Point { share: share.get(), ..Point::default() });
        }
        let Some(point) = self.kept.last_mut() else { return };
        point.at_us = at_us;
        for (revision, tally) in counted {
            let into = if *revision == candidate { &mut point.candidate } else { &mut point.stable };
            *into = (into.0 + tally.counts.requests(), into.1 + tally.counts.errors());
        }
        if self.kept.len() > POINTS_MAX {
            self.span_us *= 2;
            let span_us = self.span_us;
            self.kept = self.kept.drain(..).fold(Vec::new(), |mut kept: Vec<Point>, point| {
                match kept.last_mut() {
                    Some(last)
                        if last.share == point.share && slot(last.at_us, span_us) == slot(point.at_us, span_us) =>
                    {
                        last.merge(&point);
                    }
                    _ => kept.push(point),
                }
                kept
            });
        }
    }
}

impl Point {
    fn merge(&mut self, later: &Self) {
        self.at_us = later.at_us;
        for (mine, theirs) in [(&mut self.candidate, later.candidate), (&mut self.stable, later.stable)] {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
    }
}
