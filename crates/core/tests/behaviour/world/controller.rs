//! The loop that drives the core: look, decide, make durable, act. It crashes, and its actions get lost or repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::Verdict;
use evenkeel_core::fleet::{self, Action, Fleet};
use evenkeel_core::ids::{BasisPoints, FencingToken, Generation, ReplicaId, Revision, RolloutId, Timestamp};
use evenkeel_core::ports::{Answered, Replica};
use evenkeel_core::probe::ProbeKind;
use evenkeel_core::rollout::Health;
use evenkeel_core::spec::{Probe, ProbeCheck, Spec};
use evenkeel_core::table::{RoutingTable, ServiceRoutes};
use evenkeel_core::{Effect, Event, Observation, Service, Verb, Wanted};

use crate::fixtures::{blue_green, canary, deploy, fail, few, manual, name, pass, seconds, shared, strict};
use crate::world::dice::Dice;
use crate::world::proxy::Applied;
use crate::world::{World, rules};

/// Age at which the counts of requests in flight are read anew.
const REPORT_EVERY: Duration = Duration::from_millis(300);
/// Time after which a table that was sent cannot come into force any more.
const TABLE_LOST: Duration = Duration::from_secs(3);

pub(crate) struct Controller {
    pub(crate) service: Service,
    /// What is durable: each event as it would be stored.
    log: Vec<String>,
    pub(crate) fleet: Fleet,
    /// The table in force, as far as this controller knows.
    known: Option<ServiceRoutes>,
    /// Nothing is known of the table in force before then.
    blind_until: Timestamp,
    report: Option<BTreeMap<ReplicaId, u64>>,
    report_at: Timestamp,
    late_answers: Vec<(ReplicaId, ProbeKind, Answered)>,
    smoke: Option<(RolloutId, Timestamp, Result<(), String>)>,
    /// The fleet has met the platform's list and a table.
    has_looked: bool,
    verdict: Verdict,
    /// Since when a release waits for its turn.
    pub(crate) next_since: Option<Timestamp>,
    /// Operators' wishes for a rollout that has yet to begin.
    pub(crate) asked_for: Option<Revision>,
}

impl Controller {
    pub(crate) fn new() -> Self {
        Self {
            service: Service::new(name()),
            log: Vec::new(),
            fleet: Fleet::new(name()),
            known: None,
            blind_until: Timestamp(0),
            report: None,
            report_at: Timestamp(0),
            late_answers: Vec::new(),
            smoke: None,
            has_looked: false,
            verdict: pass(),
            next_since: None,
            asked_for: None,
        }
    }

    /// Replaying the log gives the very same service, and so does reading a snapshot of it.
    pub(crate) fn check_replay(&self) {
        let mut replayed = Service::new(name());
        for line in &self.log {
            let (at, event): (Timestamp, Event) = serde_json::from_str(line).unwrap();
            replayed = replayed.step(&event, at).unwrap().expect("what was recorded changed something").next;
        }
        assert_eq!(replayed, self.service, "a replay differs");
        let snapshot = serde_json::to_string(&self.service).unwrap();
        assert_eq!(serde_json::from_str::<Service>(&snapshot).unwrap(), self.service, "a snapshot differs");
    }

    /// Everything that is not durable is gone.
    fn crash(&mut self, now: Timestamp) {
        self.check_replay();
        let Self { service, log, next_since, asked_for, .. } = std::mem::replace(self, Self::new());
        *self = Self { service, log, next_since, asked_for, blind_until: now.after(TABLE_LOST), ..Self::new() };
        let effects = self.service.effects();
        self.smoke_if_asked(&effects, now, Ok(()));
    }

    fn smoke_if_asked(&mut self, effects: &[Effect], now: Timestamp, result: Result<(), String>) {
        for effect in effects {
            if let Effect::Smoke { rollout, .. } = effect {
                self.smoke = Some((*rollout, now.after(seconds(2)), result.clone()));
            }
        }
    }

    fn health(&self, revision: Option<Revision>) -> Health {
        revision.map(|revision| self.fleet.health(revision)).unwrap_or_default()
    }

    fn observation(&self, now: Timestamp) -> Option<Observation> {
        let rollout = self.service.in_flight().filter(|_| self.has_looked)?;
        let smoke = self.smoke.iter().find(|(id, at, _)| *id == rollout.id && now >= *at);
        Some(Observation {
            candidate: self.health(Some(rollout.candidate)),
            stable: self.health(rollout.stable),
            weight: self.known.as_ref().map(|routes| routes.weight_of(rollout.candidate)),
            verdict: self.verdict.clone(),
            is_proven: false,
            alone: None,
            measured: None,
            fellows: None,
            outages: Vec::new(),
            cut: None,
            smoke: smoke.map(|(_, _, result)| result.clone()),
        })
    }
}

/// One turn of the loop.
pub(crate) fn tick(world: &mut World) {
    if world.wild && world.dice.once(12) {
        world.tell(|| "controller crashes".into());
        world.controller.crash(world.now);
    }
    look_at_proxy(world);
    if world.wild {
        operators(world);
    }
    let wanted = world.controller.service.wanted();
    let list = world.platform.list(world.now);
    reconcile(world, &wanted, list.as_deref());
    route(world, &wanted, list.as_deref());
    roll_verdict(world);
    if let Some(seen) = world.controller.observation(world.now) {
        event(world, &Event::Seen(Box::new(seen)));
        rules::nothing_is_overdue(&world.controller.service, world.now);
    }
    rules::everybody_gets_a_turn(&mut world.controller, world.now);
}

fn look_at_proxy(world: &mut World) {
    let World { now, controller, proxy, .. } = world;
    let answers = proxy.answers(*now);
    if answers && *now >= controller.blind_until && !proxy.is_table_coming() {
        controller.known = Some(proxy.routes().cloned().unwrap_or_else(|| routes(Vec::new())));
    }
    if !answers {
        controller.report = None;
    } else if now.since(controller.report_at) >= REPORT_EVERY {
        controller.report = Some(proxy.in_flight());
        controller.report_at = *now;
    }
}

fn reconcile(world: &mut World, wanted: &Wanted, list: Option<&[Replica]>) {
    let now = world.now;
    let controller = &mut world.controller;
    for (id, kind, answer) in std::mem::take(&mut controller.late_answers) {
        controller.fleet.answered(&id, kind, &answer, now);
    }
    let seen = fleet::World {
        wanted,
        releases: &controller.service.releases,
        replicas: list,
        in_force: controller.known.as_ref(),
        in_flight: controller.report.as_ref(),
    };
    let actions = controller.fleet.step(&seen, now);
    rules::rests_as_it_says(&controller.fleet, &seen, now);
    controller.has_looked |= list.is_some() && controller.known.is_some();
    for action in actions {
        if !matches!(action, Action::Probe { .. }) {
            world.tell(|| format!("    {action:?}"));
        }
        rules::may_be_done(world, &action);
        let times = if world.wild { *world.dice.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 0]) } else { 1 };
        match action {
            Action::Probe { replica, kind, .. } => probe(world, replica, kind),
            _ => (0..times).for_each(|_| act(world, &action)),
        }
    }
}

fn probe(world: &mut World, replica: ReplicaId, kind: ProbeKind) {
    let answer = world.platform.probe(&replica, kind, world.now);
    if world.dice.once(300) {
        world.controller.late_answers.push((replica, kind, answer));
    } else {
        world.controller.fleet.answered(&replica, kind, &answer, world.now);
    }
}

fn act(world: &mut World, action: &Action) {
    let World { dice, now, controller, platform, wild, .. } = world;
    match action {
        Action::Start(id) => {
            let bad = controller.service.releases[&id.revision].version.ends_with('b') && dice.once(700);
            platform.start(id, *now, *wild, bad, dice);
        }
        Action::Terminate(id) => platform.terminate(id, *now, dice),
        Action::Kill(id) => platform.kill(id, *now),
        Action::Forget(id) => platform.forget(id),
        Action::Probe { .. } => {}
    }
}

/// Sends a table when another one is due than the one that is known to be in force.
fn route(world: &mut World, wanted: &Wanted, list: Option<&[Replica]>) {
    let World { dice, now, controller, proxy, .. } = world;
    let Some(known) = controller.known.as_ref().filter(|_| proxy.answers(*now)) else { return };
    let seen = fleet::World {
        wanted,
        releases: &controller.service.releases,
        replicas: list,
        in_force: Some(known),
        in_flight: controller.report.as_ref(),
    };
    let next = routes(controller.fleet.releases(&seen));
    if next == *known || dice.once(if world.wild { 50 } else { 0 }) {
        return;
    }
    let generation = Generation(proxy.table.generation.0 + 1);
    let table = RoutingTable { generation, token: FencingToken(1), services: vec![next.clone()] };
    rules::may_be_routed(world, wanted, &next);
    world.tell(|| format!("    table {generation}: {}", in_words(&next)));
    match world.proxy.apply(table, world.now, world.wild, &mut world.dice) {
        Applied::Yes => world.controller.known = Some(next),
        Applied::Unknown => {
            world.tell(|| "    the proxy does not say whether it took it".into());
            world.controller.known = None;
            world.controller.blind_until = world.now.after(TABLE_LOST);
        }
    }
}

fn roll_verdict(world: &mut World) {
    if !world.wild {
        world.controller.verdict = pass();
    } else if world.dice.once(30) {
        world.controller.verdict = world.dice.pick(&[pass(), pass(), pass(), few(), shared(), fail()]).clone();
    }
}

fn operators(world: &mut World) {
    let dice = &mut world.dice;
    if dice.once(20) {
        let spec = probed(dice.pick(&[canary(), canary(), manual(), strict(), blue_green()]).clone(), dice);
        let version = *dice.pick(&["1", "2", "3b", "4", "5b"]);
        let again = dice.once(200);
        event(world, &Event::Deploy(Box::new(deploy(&spec, version, again))));
    } else if dice.once(30) {
        let to = Some(Revision(dice.between(1, 8) as u32));
        let verb = dice
            .pick(&[
                Verb::Pause,
                Verb::Resume,
                Verb::Resume,
                Verb::Promote { full: false },
                Verb::Promote { full: false },
                Verb::Promote { full: true },
                Verb::Abort,
                Verb::Retry { spent: Vec::new() },
                Verb::Rollback { to: None },
                Verb::Rollback { to },
            ])
            .clone();
        event(world, &Event::Command { verb, by: "bob".into() });
    }
}

/// The probes that a spec may have.
fn probed(mut spec: Spec, dice: &mut Dice) -> Spec {
    let probe = |period| Probe { period: seconds(period), ..Probe::new(ProbeCheck::Tcp { port: None }) };
    spec.probes.startup = dice.once(300).then(|| Probe { failure_threshold: 15, ..probe(1) });
    spec.probes.liveness = dice.once(500).then(|| probe(2));
    spec.probes.readiness = dice.once(500).then(|| probe(2));
    spec
}

fn event(world: &mut World, event: &Event) {
    let now = world.now;
    match world.controller.service.step(event, now) {
        Err(refused) => world.tell(|| format!("{event:?} refused: {refused}")),
        Ok(None) => {}
        Ok(Some(step)) => {
            world.controller.log.push(serde_json::to_string(&(now, event)).unwrap());
            let smoke = if world.wild && world.dice.once(200) { Err("GET /: 500".to_owned()) } else { Ok(()) };
            let before = std::mem::replace(&mut world.controller.service, step.next);
            world.tell(|| told(&before, event, &world.controller.service));
            world.controller.smoke_if_asked(&step.effects, now, smoke);
            rules::may_follow(&mut world.controller, &before, event);
        }
    }
}

fn told(before: &Service, event: &Event, after: &Service) -> String {
    let cause =
        if let Event::Seen(_) = event { String::new() } else { format!("{event:?}").chars().take(90).collect() };
    let of = |service: &Service| service.rollout.as_ref().map(|r| (r.id, r.candidate, r.phase.clone()));
    format!("{cause} {:?} -> {:?}", of(before), of(after))
}

fn routes(releases: Vec<evenkeel_core::table::ReleaseRoutes>) -> ServiceRoutes {
    let listen = "127.0.0.1:8080".parse().unwrap();
    ServiceRoutes {
        service: name(),
        listen,
        preview: None,
        releases,
        first_byte_timeout_ms: 30_000,
        fallback: None,
        relief: None,
        idempotent: Vec::new(),
        pins: Vec::new(),
        sticky: None,
        mirror: None,
        trial: None,
        edge: evenkeel_core::edge::Edge::default(),
    }
}

fn in_words(routes: &ServiceRoutes) -> String {
    let share = |weight: BasisPoints| weight.to_string();
    let each = routes.releases.iter().map(|r| {
        let launches: Vec<u32> = r.backends.iter().map(|backend| backend.replica.launch).collect();
        format!("{} {} {launches:?}", r.revision, share(r.weight))
    });
    each.collect::<Vec<_>>().join(", ")
}
