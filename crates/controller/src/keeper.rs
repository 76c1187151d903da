//! One service: its log, its fleet, its evidence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

use evenkeel_analysis::{Counts, Verdict};
use evenkeel_core::check::Call;
use evenkeel_core::dependency::{Endpoint, EndpointStatus};
use evenkeel_core::edge::Edge;
use evenkeel_core::evidence::{History, Standing};
use evenkeel_core::fleet::{Action, Fleet, World};
use evenkeel_core::group::Fellows;
use evenkeel_core::guard::{Cut, CutName, cut_routes};
use evenkeel_core::ids::{BasisPoints, FencingToken, ReplicaId, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::outage::outages;
use evenkeel_core::ports::{CheckedFor, Limited, Replica, StoreError};
use evenkeel_core::record::{Record, What};
use evenkeel_core::release::Release;
use evenkeel_core::rollout::Health;
use evenkeel_core::service::Refused;
use evenkeel_core::spec::Shield;
use evenkeel_core::table::{Mirror, Pin, ServiceRoutes, Trial};
use evenkeel_core::watch::{Failures, Watch, Watched};
use evenkeel_core::{Event, Evidence, Observation, Phase, Rollout, Service, Tick};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::budgets::Budgets;
use crate::checks::Measuring;
use crate::gates::Gatekeeper;
use crate::hearing::Hearing;
use crate::meter::Meter;
use crate::recorder::Recorder;
use crate::run::checked_for;
use crate::status::{ShownService, Told};

mod log;
mod show;

/// A snapshot is stored after this many events.
const SNAPSHOT_EVERY: u64 = 50;
/// Alerts of a service that its status shows.
const ALERTS_SHOWN: usize = 10;
/// Records read at once of a rollout in flight.
const RECORDS_AT_ONCE: u32 = 2_000;
/// Events read at once of a log that holds more than was known.
const MISSED_AT_ONCE: u32 = 100;
/// So often it is remembered where the evidence of a rollout in flight stands. A new controller counts anew what came since.
const STANDING_EVERY: Duration = Duration::from_secs(10);

/// One service as the controller keeps it.
pub(crate) struct Keeper {
    pub(crate) service: Service,
    pub(crate) fleet: Fleet,
    /// Releases of which a replica ends again and again, as of the last look.
    looping: BTreeMap<Revision, u32>,
    /// What became of what its releases depend on.
    dependencies: Vec<EndpointStatus>,
    pub(crate) meter: Meter,
    evidence: Evidence,
    /// What was counted before has yet to be read from the store.
    has_forgotten: bool,
    /// The rollout of which it is recorded what its stable release was like before.
    history_of: Option<RolloutId>,
    pub(crate) recorder: Recorder,
    /// Where the evidence stood when that was last remembered, and when it was.
    stood: (Option<Standing>, Timestamp),
    pub(crate) hearing: Hearing,
    /// Requests that its limits kept out, as the proxy told last.
    limited: Option<Limited>,
    /// Releases of it that the proxy has cut off, as it told last.
    pub(crate) cuts: Vec<Cut>,
    /// Events in the store.
    version: u64,
    /// When the newest of them was decided.
    newest: Timestamp,
    /// Decided and acted on, but not durable yet: ways back to stable while the store did not answer.
    unsaved: VecDeque<Unsaved>,
    /// The service without what is unsaved; `None` when nothing is.
    durable: Option<Box<Service>>,
    /// The store failed to answer, so that its log may hold more than is known of it.
    is_unsure: bool,
    /// Until when the replicas may take to be there again after the machine was started anew.
    starting_until: Option<Timestamp>,
    /// How the smoke checks of a rollout ended.
    pub(crate) smoked: Option<(RolloutId, Result<(), String>)>,
    /// The rollout whose smoke checks are under way.
    pub(crate) smoking: Option<RolloutId>,
    /// What is known of the gates that a deploy waits for.
    pub(crate) gates: Gatekeeper,
    /// What is measured for the checks of the rollout in flight.
    pub(crate) measuring: Measuring,
    /// What is to be asked of rollouts that have ended, each with the release that it was about.
    pub(crate) calls: Vec<(CheckedFor, Call)>,
    /// What is to be called with what has happened, one after the other; `None` before the first.
    pub(crate) events: Option<mpsc::Sender<(CheckedFor, Call)>>,
    /// The same, as long as nobody calls.
    pub(crate) fresh_events: Vec<(CheckedFor, Call)>,
    /// What the stable release does once its rollout is over.
    watch: Watch,
    /// What is left of what is promised of it.
    pub(crate) budgets: Budgets,
    /// What the proxy shall have, as of the last look; `None` before the first deploy.
    pub(crate) routes: Option<ServiceRoutes>,
    /// It need not be looked at before.
    look_at: Timestamp,
    /// As people are shown it; `None` before the first deploy.
    pub(crate) shown: Option<ShownService>,
    pub(crate) shown_at: Timestamp,
    /// Something about it has changed since.
    is_outdated: bool,
}

/// A way back that is not in the log yet.
#[derive(Debug)]
struct Unsaved {
    at: Timestamp,
    event: Event,
    /// Of the record of what became of it.
    sequence: u64,
}

/// What the world looks like to one service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) replicas: Option<&'a [Replica]>,
    pub(crate) in_force: Option<&'a ServiceRoutes>,
    pub(crate) in_flight: Option<&'a BTreeMap<ReplicaId, u64>>,
    /// Whether the proxy has confirmed any table to this controller.
    pub(crate) table_known: bool,
}

impl Keeper {
    /// A service that was never deployed.
    pub(crate) fn new(name: ServiceName, token: FencingToken) -> Self {
        Self {
            fleet: Fleet::new(name.clone()),
            looping: BTreeMap::new(),
            dependencies: Vec::new(),
            service: Service::new(name),
            meter: Meter::default(),
            evidence: Evidence::new(),
            has_forgotten: false,
            history_of: None,
            recorder: Recorder::new(token),
            stood: (None, Timestamp::default()),
            hearing: Hearing::default(),
            limited: None,
            cuts: Vec::new(),
            version: 0,
            newest: Timestamp::default(),
            unsaved: VecDeque::new(),
            durable: None,
            is_unsure: false,
            starting_until: None,
            smoked: None,
            smoking: None,
            gates: Gatekeeper::default(),
            measuring: Measuring::default(),
            calls: Vec::new(),
            events: None,
            fresh_events: Vec::new(),
            watch: Watch::default(),
            budgets: Budgets::default(),
            routes: None,
            look_at: Timestamp::default(),
            shown: None,
            shown_at: Timestamp::default(),
            is_outdated: true,
        }
    }

    /// Something about it has changed: it is looked at with the next turn, whatever its time.
    pub(crate) fn touch(&mut self) {
        self.look_at = Timestamp::default();
        self.is_outdated = true;
    }

    /// What people are shown of it has changed, and nothing else.
    pub(crate) fn outdate(&mut self) {
        self.is_outdated = true;
    }

    /// Whether it is to be looked at.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        now >= self.look_at
    }

    /// It was looked at, and need not be before `until` unless something changes; `shows` what was seen to people.
    pub(crate) fn looked(&mut self, until: Timestamp, shows: bool) {
        self.look_at = until;
        self.is_outdated |= shows;
    }

    /// Whether nothing is under way that has to be followed.
    pub(crate) fn is_settled(&self) -> bool {
        self.service.in_flight().is_none() && self.service.next.is_none() && self.unsaved.is_empty() && !self.is_unsure
    }

    /// Whether it is not shown as it is.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// A controller that finds no replica of a service with a rollout in flight (the machine was started anew) gives
    /// them the time that a start is given: that they are not there yet says nothing about the candidate.
    pub(crate) fn takes_stock(&mut self, replicas: &[Replica], now: Timestamp) {
        let runs = |replica: &Replica| replica.replica.service == self.service.name && replica.exit.is_none();
        if let Some(rollout) = self.service.in_flight().filter(|_| !replicas.iter().any(runs)) {
            self.starting_until = Some(now.after(rollout.plan.startup_limit));
        }
    }

    /// Whether it is too early to decide anything.
    pub(crate) fn is_starting(&mut self, now: Timestamp) -> bool {
        let Some(until) = self.starting_until else { return false };
        let is_there = |(revision, count): (&Revision, &u32)| self.fleet.health(*revision).ready >= *count;
        if now >= until || self.service.wanted().replicas.iter().all(is_there) {
            self.starting_until = None;
        }
        self.starting_until.is_some()
    }

    /// Has whoever wants to know called with what has happened.
    pub(crate) fn note_event(&mut self, news: &Told) {
        let calls = self.service.calls_at(news.rollout, &news.moment);
        let Some(about) = checked_for(&self.service, news.candidate) else { return };
        self.fresh_events.extend(calls.into_iter().map(|call| (about.clone(), call)));
    }

    fn tell(&self, before: &Service) -> Vec<Told> {
        let told = news(before, &self.service);
        for news in &told {
            info!(service = %news.service, rollout = %news.rollout, text = news.moment.text, "decided");
        }
        told
    }

    fn follow(&mut self) {
        self.touch();
        self.gates.follow(self.service.gated.as_ref());
        self.evidence.follow(&self.service);
        self.meter.record(self.service.in_flight().is_some());
        self.meter.keep_only(|revision| self.service.releases.contains_key(&revision));
        let current = self.service.in_flight().filter(|r| matches!(r.phase, Phase::Smoking { .. })).map(|r| r.id);
        if current.is_none() {
            (self.smoking, self.smoked) = (None, None);
        }
    }

    /// Takes note of whom the proxy has cut off.
    pub(crate) fn hear_of_cuts(&mut self, cuts: Vec<Cut>) {
        if self.cuts != cuts {
            self.cuts = cuts;
            self.touch();
        }
    }

    /// Cuts that the log knows of: the rollout goes back, is over, or was promoted before.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = CutName> {
        let is_durable = self.unsaved.is_empty() && !self.is_unsure;
        let in_flight = self.service.in_flight();
        let awaits = in_flight.filter(|rollout| !is_settled(rollout)).map(|rollout| rollout.id);
        let known = self.cuts.iter().filter(move |cut| is_durable && Some(cut.name.rollout) != awaits);
        known.map(|cut| cut.name.clone())
    }

    /// How the proxy has cut the candidate of the rollout in flight off, where that has yet to be decided upon.
    fn cut(&self) -> Option<&Cut> {
        let rollout = self.service.in_flight().filter(|rollout| !is_settled(rollout))?;
        self.cuts.iter().find(|cut| cut.name.rollout == rollout.id && cut.name.revision == rollout.candidate)
    }

    /// The world as the rollout in flight needs to know it; `None` when there is none.
    ///
    /// While the platform does not answer, the fleet's last knowledge stands.
    pub(crate) fn observe(
        &mut self,
        sight: &Sight<'_>,
        fellows: Option<Box<Fellows>>,
        now: Timestamp,
    ) -> Option<Observation> {
        let rollout = self.service.in_flight()?;
        let health = |revision: Option<Revision>| revision.map_or_else(Health::default, |r| self.fleet.health(r));
        // Nothing is to be confirmed of a service without an address.
        let is_worker = self.service.spec.as_ref().is_some_and(|spec| spec.listen.is_none());
        let in_force = || sight.in_force.map_or(BasisPoints::NONE, |routes| routes.weight_of(rollout.candidate));
        let weight = || if is_worker { rollout.weight() } else { in_force() };
        let is_told =
            |cut: &Cut| cut.boot != self.meter.boot() || self.hearing.has_heard(rollout.id, cut.boot, cut.sequence);
        let seen = Observation {
            candidate: health(Some(rollout.candidate)),
            stable: health(rollout.stable),
            weight: (sight.table_known || is_worker).then(weight),
            verdict: Verdict::NotEnough { have: 0, need: 0 },
            is_proven: false,
            alone: None,
            measured: None,
            // What it rests on comes first, where it still can.
            cut: self.cut().filter(|cut| is_told(cut)).map(|cut| Box::new(cut.clone())),
            smoke: self.smoked.as_ref().filter(|(id, _)| *id == rollout.id).map(|(_, result)| result.clone()),
            fellows,
            outages: outages(&self.dependencies, rollout.candidate, rollout.stable, now),
        };
        self.recorder.begin(rollout.id, now, self.version);
        self.recorder.see(rollout.id, now, &seen);
        let counted = self.meter.tick();
        if counted.is_some() || self.hearing.has_fresh() {
            let (from, counted) = counted.unwrap_or_else(|| (now, BTreeMap::new()));
            let sequence = self.recorder.next();
            let reveals = self.hearing.record(rollout.id, sequence);
            let is_first = !reveals.is_empty() && self.history_of != Some(rollout.id);
            let stable = rollout.stable.filter(|_| is_first);
            // The proxy judges by what it was told when the trial began.
            let trial = sight.in_force.or(self.routes.as_ref()).and_then(|routes| routes.trial.as_ref());
            let brief = trial.filter(|trial| trial.rollout == rollout.id).and_then(|trial| trial.brief.as_ref());
            let told = brief.map(|brief| brief.history.clone());
            let history = stable.map(|stable| told.unwrap_or_else(|| self.history(stable)));
            if is_first {
                self.history_of = Some(rollout.id);
            }
            let tick = Tick { sequence, from, at: now, counted, reveals, history };
            self.evidence.take(&tick);
            self.recorder.add(rollout.id, Record { sequence: tick.sequence, at: now, what: What::Counted(tick) });
        }
        self.evidence.look(now);
        let (verdict, is_proven) = (self.evidence.verdict(rollout), self.evidence.is_proven(rollout));
        let alone = self.evidence.alone(rollout);
        Some(Observation { verdict, is_proven, alone, ..seen })
    }

    /// What the stable release has answered in the last minutes.
    pub(crate) fn stable_lately(&self) -> Counts {
        self.service.stable.map_or_else(Counts::default, |stable| self.meter.history(stable))
    }

    /// What a release was like in the last minutes.
    fn history(&self, release: Revision) -> History {
        History::of(&self.meter.history(release), self.meter.clustered(release))
    }

    /// The same with the evidence in numbers, which whoever decides on it keeps.
    pub(crate) fn measured(&self, seen: Observation) -> Observation {
        let measured = self.service.in_flight().map(|rollout| Box::new(self.evidence.measured(rollout)));
        Observation { measured, ..seen }
    }

    /// What there is to tell of the stable release, once its rollout is over.
    pub(crate) fn watch_stable(&mut self, now: Timestamp) -> Option<Event> {
        let service = &self.service;
        let release = service.stable.filter(|_| service.in_flight().is_none());
        let limit = service.spec.as_ref().and_then(|spec| spec.alerts.sustained);
        let whom = Watched { service: &service.name, release, heard: &service.alerts, limit };
        let counted = release.map_or_else(Failures::default, |release| self.meter.failures(release));
        let alert = self.watch.look(whom, counted, now)?;
        Some(Event::Alerts { alerts: vec![alert] })
    }

    /// What there is to tell of its error budgets.
    pub(crate) fn watch_budgets(&mut self, now: Timestamp) -> Option<Event> {
        self.budgets.look(&self.service, &self.meter, now)
    }

    /// What the gates of the deploy that waits for them are seen to be, when that changes anything.
    pub(crate) fn look_at_gates(&self, now: Timestamp) -> Option<Event> {
        let gated = self.service.gated.as_ref()?;
        let event = Event::Gates(Box::new(self.gates.sight(gated, now)));
        matches!(self.service.step(&event, now), Ok(Some(_))).then_some(event)
    }

    /// Takes what became of what its releases depend on; while a rollout goes on that is looked at.
    pub(crate) fn depends(&mut self, endpoints: &[EndpointStatus]) {
        let is_open = |endpoint: &EndpointStatus| endpoint.is_open();
        // How long it lasts says something as well.
        let is_news = *endpoints != self.dependencies[..] || endpoints.iter().any(is_open);
        if is_news && self.service.in_flight().is_some() {
            self.look_at = Timestamp::default();
        }
        if *endpoints != self.dependencies[..] {
            self.dependencies = endpoints.to_vec();
        }
    }

    /// What its releases depend on that run, or are about to.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let has_any = |release: &&Release| !release.content.dependencies.is_empty();
        let depending: Vec<&Release> = self.service.releases.values().filter(has_any).collect();
        if depending.is_empty() {
            return Vec::new();
        }
        let mut live: BTreeSet<Revision> = self.service.wanted().replicas.into_keys().collect();
        live.extend(self.fleet.list().map(|listed| listed.id.revision));
        let is_live = depending.into_iter().filter(|release| live.contains(&release.revision));
        is_live.flat_map(|release| release.endpoints(&self.service.name)).collect()
    }

    /// Lets the fleet look at the world and say what is to be done.
    pub(crate) fn reconcile(&mut self, sight: &Sight<'_>, now: Timestamp) -> Vec<Action> {
        let wanted = self.service.wanted();
        let actions = self.fleet.step(&world(&wanted, &self.service, sight), now);
        let looping = self.fleet.crash_looping();
        for (revision, restarts) in looping.iter().filter(|(revision, _)| !self.looping.contains_key(revision)) {
            let Health { detail, .. } = self.fleet.health(*revision);
            let service = &self.service.name;
            warn!(%service, release = %revision, restarts, why = detail, "a replica ends again and again");
        }
        self.is_outdated |= looping != self.looping;
        self.looping = looping;
        actions
    }

    /// The routes the proxy shall have now; `None` before the first deploy, and for a service without an address.
    pub(crate) fn routes(&self, sight: &Sight<'_>) -> Option<ServiceRoutes> {
        let spec = self.service.spec.as_ref()?;
        let wanted = self.service.wanted();
        let listen = spec.listen?;
        let world = world(&wanted, &self.service, sight);
        let (fallback, idempotent) = match &spec.shield {
            Shield::On { idempotent } => (self.fleet.fallback(&world), idempotent.clone()),
            Shield::Off => (None, Vec::new()),
        };
        let releases = self.fleet.releases(&world);
        let is_there = |revision: &Revision| releases.iter().any(|r| r.revision == *revision && !r.backends.is_empty());
        let candidate = wanted.candidate.map(|(candidate, _)| candidate).filter(is_there);
        let pins = candidate.iter().flat_map(|to| wanted.pins.iter().map(|when| Pin { when: when.clone(), to: *to }));
        let mirror = candidate.filter(|_| wanted.mirror > BasisPoints::NONE);
        let in_force_trial = sight.in_force.and_then(|routes| routes.trial.as_ref());
        let mut routes = ServiceRoutes {
            service: self.service.name.clone(),
            listen,
            preview: spec.preview,
            edge: Edge {
                drain: Some(spec.stop.drain),
                maintenance: self.service.maintenance.clone(),
                ..spec.edge.clone()
            },
            pins: pins.collect(),
            sticky: wanted.sticky.clone(),
            mirror: mirror.map(|to| Mirror { to, share: wanted.mirror }),
            trial: Trial::wanted(
                &self.service,
                in_force_trial,
                |stable| self.meter.p99(stable),
                |stable| self.history(stable),
            ),
            releases,
            first_byte_timeout_ms: u64::try_from(spec.first_byte_timeout.as_millis()).unwrap_or(u64::MAX),
            fallback,
            relief: self.service.in_flight().and_then(|rollout| self.fleet.relief(&world, rollout)),
            idempotent,
        };
        if let Some(cut) = self.cut() {
            let takes_over = |routes: &ServiceRoutes| routes.releases.iter().any(|release| release.revision == cut.to);
            match sight.in_force {
                // Who took over would have to leave by the plan: until the way back is decided, everything stays as it is.
                Some(in_force) if !takes_over(&routes) && takes_over(in_force) => return Some(in_force.clone()),
                _ => cut_routes(&mut routes, cut),
            }
        }
        // No table is sent only to say that a trial is over: the next one says so.
        if let (None, Some(in_force)) = (&routes.trial, sight.in_force) {
            let trial = in_force.trial.clone();
            routes.trial = trial;
            if routes != *in_force {
                routes.trial = None;
            }
        }
        Some(routes)
    }

    /// Takes what the proxy tells of its limits.
    pub(crate) fn take_limited(&mut self, limited: Option<Limited>) {
        self.is_outdated |= self.limited != limited;
        self.limited = limited;
    }

    /// The store has every record up to this sequence.
    pub(crate) fn kept(&mut self, up_to: u64) {
        self.recorder.kept(up_to);
        self.hearing.kept(up_to);
    }
}

/// Why an event did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhappened {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A service that shall have this, in the world as it is seen.
pub(crate) fn world<'a>(wanted: &'a evenkeel_core::Wanted, service: &'a Service, sight: &Sight<'a>) -> World<'a> {
    /// What is in force for a service that never had an address.
    static NOTHING: LazyLock<ServiceRoutes> = LazyLock::new(ServiceRoutes::nowhere);
    let Sight { replicas, in_force, in_flight, .. } = *sight;
    let is_worker = service.spec.as_ref().is_some_and(|spec| spec.listen.is_none());
    let in_force = in_force.or_else(|| is_worker.then(|| &*NOTHING));
    World { wanted, releases: &service.releases, replicas, in_force, in_flight }
}

/// Whether it is decided what becomes of a rollout: it goes back, or was promoted.
fn is_settled(rollout: &Rollout) -> bool {
    match rollout.phase {
        Phase::Lining { .. }
        | Phase::Clearing { back: None, .. }
        | Phase::Preparing { .. }
        | Phase::Smoking { .. }
        | Phase::Shifting { .. }
        | Phase::Holding { .. }
        | Phase::Paused { .. }
        | Phase::Gathering { .. } => false,
        Phase::Clearing { back: Some(_), .. }
        | Phase::Retiring { .. }
        | Phase::RollingBack { .. }
        | Phase::Stopping { .. }
        | Phase::Stuck { .. }
        | Phase::Done { .. } => true,
    }
}

/// The moments that `after` has and `before` had not.
fn news(before: &Service, after: &Service) -> Vec<Told> {
    let known = |id: RolloutId| {
        let rollouts = before.past.iter().chain(&before.rollout);
        let gated = before.gated.iter().map(|gated| (gated.id, gated.moments.len()));
        let all = rollouts.map(|rollout| (rollout.id, rollout.moments.len())).chain(gated);
        all.filter(|(known, _)| *known == id).map(|(_, moments)| moments).max().unwrap_or(0)
    };
    let gated = after.gated.iter().flat_map(|gated| {
        gated.moments.iter().skip(known(gated.id)).map(|moment| Told {
            service: after.name.clone(),
            rollout: gated.id,
            candidate: gated.revision,
            state: "waiting for its gates".to_owned(),
            moment: moment.clone(),
        })
    });
    // The last one in flight, and one that never began, may have ended with the same event.
    let rollouts = after.past.iter().rev().take(2).chain(&after.rollout);
    let told = rollouts.flat_map(|rollout| {
        rollout.moments.iter().skip(known(rollout.id)).map(|moment| Told {
            service: after.name.clone(),
            rollout: rollout.id,
            candidate: rollout.candidate,
            state: rollout.phase.name().to_owned(),
            moment: moment.clone(),
        })
    });
    gated.chain(told).collect()
}
