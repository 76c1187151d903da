//! One service: its log, its fleet, its evidence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evenkeel_analysis::{Counts, Verdict};
use evenkeel_core::check::Call;
use evenkeel_core::dependency::{Endpoint, EndpointStatus};
use evenkeel_core::edge::Edge;
use evenkeel_core::evidence::{History, Standing};
use evenkeel_core::fleet::{Action, Fleet, Listed, World};
use evenkeel_core::group::Fellows;
use evenkeel_core::guard::{Cut, CutName, cut_routes};
use evenkeel_core::ids::{BasisPoints, FencingToken, ReplicaId, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::outage::outages;
use evenkeel_core::ports::{Append, CheckedFor, Limited, Recorded, Replica, Store, StoreError, Stored, TickRecord};
use evenkeel_core::record::{Decided, Record, What};
use evenkeel_core::release::Release;
use evenkeel_core::rollout::Health;
use evenkeel_core::service::Refused;
use evenkeel_core::spec::Shield;
use evenkeel_core::table::{Mirror, Pin, ServiceRoutes, Trial};
use evenkeel_core::trigger::{Resources, Triggers};
use evenkeel_core::watch::{Failures, Watch, Watched};
use evenkeel_core::{Event, Evidence, Observation, Phase, Rollout, Service, Tick};
use tracing::{info, warn};

use crate::budgets::Budgets;
use crate::checks::Measuring;
use crate::gates::Gatekeeper;
use crate::hearing::Hearing;
use crate::meter::Meter;
use crate::recorder::Recorder;
use crate::status::{
    AlertStatus, GatedStatus, ReleaseStatus, ReplicaStatus, RolloutStatus, ServiceStatus, ShownService, Told,
};

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

    /// Has it shown as it is when that has changed; tells whether it has.
    pub(crate) fn show(
        &mut self,
        in_force: Option<&ServiceRoutes>,
        in_flight: Option<&BTreeMap<ReplicaId, u64>>,
        now: Timestamp,
    ) -> bool {
        if !self.service.is_known() || !self.is_outdated() {
            return false;
        }
        let past = || self.service.past.iter().rev();
        let history = self.shown.take().map(|shown| shown.history);
        let history = history.filter(|known| known.iter().map(|status| status.id).eq(past().map(|rollout| rollout.id)));
        let version = |revision| self.service.releases.get(&revision).map_or("?", |r| &r.version).to_owned();
        let of = |rollout: &Rollout| RolloutStatus::of(rollout, version(rollout.candidate), None);
        let history = history.unwrap_or_else(|| past().map(of).collect());
        self.shown = Some(ShownService { status: Arc::new(self.status(in_force, in_flight, now)), history });
        (self.shown_at, self.is_outdated) = (now, false);
        true
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

    /// A service as its log tells it: the same events through the same step give the same state.
    ///
    /// `last` is when the last event of a snapshot was decided, where no event follows.
    pub(crate) fn recover(stored: Stored, token: FencingToken, last: Option<Timestamp>) -> Self {
        let mut keeper = Self::new(stored.service, token);
        if let Some((version, service)) = stored.snapshot {
            let told = service.rollout.as_ref().and_then(|r| r.moments.last()).map(|moment| moment.at);
            keeper.newest = told.max(last).unwrap_or(keeper.newest);
            (keeper.version, keeper.service) = (version, service);
        }
        stored.events.iter().for_each(|recorded| keeper.replay(recorded));
        keeper.begin_anew();
        keeper
    }

    /// When the newest event of its log was decided, and the newest of its requests were counted: the clock must not be
    /// behind either, or what came before a step would be taken for a part of it.
    pub(crate) fn newest(&self) -> Timestamp {
        self.newest.max(self.evidence.counted_until())
    }

    /// Decides what an event means, makes it durable, and takes it over. Answers what there is to tell.
    ///
    /// # Errors
    /// The core's refusal, or the store's failure: then nothing has changed.
    pub(crate) async fn happen<S: Store>(
        &mut self,
        store: &S,
        event: Event,
        now: Timestamp,
    ) -> Result<Vec<Told>, Unhappened> {
        let before = self.service.clone();
        let mut happened = self.happen_once(store, event.clone(), now).await;
        if let Err(Unhappened::Store(StoreError::Conflict { .. })) = happened {
            self.catch_up(store).await?;
            // What was seen was judged by what was known before: it is looked at anew.
            happened = match event {
                Event::Seen(_) => Ok(()),
                asked => self.happen_once(store, asked, now.max(self.newest)).await,
            };
        }
        happened.map(|()| self.tell(&before))
    }

    /// Whether the store failed to answer, so that its log may hold more than is known of it.
    pub(crate) fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// Looks at what the log holds: what was to be appended may be in it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn make_sure<S: Store>(&mut self, store: &S) -> Result<Vec<Told>, StoreError> {
        let before = self.service.clone();
        self.catch_up(store).await?;
        Ok(self.tell(&before))
    }

    async fn happen_once<S: Store>(&mut self, store: &S, event: Event, now: Timestamp) -> Result<(), Unhappened> {
        let saved = self.save_unsaved(store).await;
        let Some(step) = self.service.step(&event, now)? else { return saved.map_err(Into::into) };
        let written = match saved {
            Ok(()) => self.append(store, &event, now, &step.next).await,
            failed => failed,
        };
        if let Err(error) = written {
            self.note_unwritten(now);
            let may_not_write = matches!(error, StoreError::Conflict { .. } | StoreError::Superseded(_));
            if !is_way_back(&event, &step.next) || may_not_write {
                return Err(error.into());
            }
            // Traffic goes back to stable without anybody's permission, and is recorded afterwards.
            warn!(service = %self.service.name, %error, "going back before it could be recorded");
            self.durable.get_or_insert_with(|| Box::new(self.service.clone()));
            let sequence = self.recorder.next();
            self.unsaved.push_back(Unsaved { at: now, event, sequence });
        }
        self.service = step.next;
        self.follow();
        Ok(())
    }

    /// What has been seen would have been decided upon, had the store answered.
    pub(crate) fn note_unwritten(&mut self, now: Timestamp) {
        if let Some(rollout) = self.service.in_flight() {
            self.recorder.begin(rollout.id, now, self.version);
            self.recorder.unwritten(rollout.id, now);
        }
    }

    async fn save_unsaved<S: Store>(&mut self, store: &S) -> Result<(), StoreError> {
        while let Some(Unsaved { at, event, sequence }) = self.unsaved.front() {
            let (at, event, sequence) = (*at, event.clone(), *sequence);
            let next = self.durable.as_ref().and_then(|durable| Some(durable.step(&event, at).ok()??.next));
            let ticks = self.records(at, sequence, self.durable.as_deref().zip(next.as_ref()));
            self.write(store, at, &event, None, ticks).await?;
            self.saved(at, &event);
        }
        Ok(())
    }

    /// The first of what was unsaved is in the log.
    fn saved(&mut self, at: Timestamp, event: &Event) {
        self.unsaved.pop_front();
        let durable = self.durable.take().filter(|_| !self.unsaved.is_empty());
        self.durable = durable.and_then(|durable| Some(Box::new(durable.step(event, at).ok()??.next)));
    }

    async fn append<S: Store>(
        &mut self,
        store: &S,
        event: &Event,
        at: Timestamp,
        next: &Service,
    ) -> Result<(), StoreError> {
        if let Some(rollout) = self.service.in_flight() {
            self.recorder.begin(rollout.id, at, self.version);
        }
        let sequence = self.recorder.next();
        let ticks = self.records(at, sequence, Some((&self.service, next)));
        let due = (self.version + 1).is_multiple_of(SNAPSHOT_EVERY);
        self.write(store, at, event, due.then_some(next), ticks).await
    }

    /// Everything that a decision rests on, and what becomes of it.
    fn records(&self, at: Timestamp, sequence: u64, decided: Option<(&Service, &Service)>) -> Vec<TickRecord> {
        let decided = decided.map(|(before, next)| Decided::of(self.version + 1, before, next)).unwrap_or_default();
        let decided = decided
            .into_iter()
            .map(|(rollout, decided)| Record { sequence, at, what: What::Decided(Box::new(decided)) }.stored(rollout));
        let mut records = self.recorder.pending();
        records.extend(decided);
        records
    }

    async fn write<S: Store>(
        &mut self,
        store: &S,
        at: Timestamp,
        event: &Event,
        snapshot: Option<&Service>,
        ticks: Vec<TickRecord>,
    ) -> Result<(), StoreError> {
        let (service, after) = (self.service.name.clone(), self.version);
        // Who is not answered does not know whether it was written.
        self.is_unsure = true;
        store.append(Append { service: &service, after, at, event, snapshot, ticks: &ticks }).await?;
        self.is_unsure = false;
        self.recorder.kept_decision();
        self.hearing.kept(u64::MAX);
        self.version += 1;
        self.newest = self.newest.max(at);
        Ok(())
    }

    /// Takes over what the log holds beyond what is known of it: written by another controller, or by this one when the
    /// store's answer was lost.
    async fn catch_up<S: Store>(&mut self, store: &S) -> Result<(), StoreError> {
        loop {
            let missed = store.events(&self.service.name, self.version + 1, MISSED_AT_ONCE).await?;
            if missed.is_empty() {
                if self.has_forgotten {
                    let stood = self.stood.0.take();
                    self.recall(store, stood).await?;
                }
                self.is_unsure = false;
                self.follow();
                return Ok(());
            }
            info!(service = %self.service.name, events = missed.len(), "the log holds more than was known");
            for recorded in &missed {
                let is_ours = |first: &Unsaved| first.at == recorded.at && first.event == recorded.event;
                if self.unsaved.front().is_some_and(is_ours) {
                    (self.version, self.newest) = (recorded.version, self.newest.max(recorded.at));
                    self.saved(recorded.at, &recorded.event);
                    continue;
                }
                // Something else came first: what was unsaved is decided anew by what is seen.
                self.unsaved.clear();
                if let Some(durable) = self.durable.take() {
                    self.service = *durable;
                }
                self.replay(recorded);
                self.begin_anew();
            }
        }
    }

    fn replay(&mut self, recorded: &Recorded) {
        (self.version, self.newest) = (recorded.version, self.newest.max(recorded.at));
        match self.service.step(&recorded.event, recorded.at) {
            Ok(Some(step)) => self.service = step.next,
            Ok(None) => {}
            Err(refused) => {
                warn!(service = %self.service.name, version = recorded.version, %refused, "an event of the log is not legal any more")
            }
        }
    }

    /// Reads what was counted of the rollout in flight, by whomever: what it proves goes on to the same bits. Where it
    /// `stood` saves reading what came before.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn recall<S: Store>(&mut self, store: &S, stood: Option<Standing>) -> Result<(), StoreError> {
        let rollout = self.service.in_flight().map(|rollout| rollout.id);
        if let Some(stood) = stood.filter(|stood| Some(stood.rollout) == rollout) {
            let ticks = self.counted_since(store, stood.rollout, stood.tick + 1).await?;
            if let Some(evidence) = Evidence::resumed(&self.service, stood.clone(), &ticks) {
                self.remember(stood.rollout, evidence, stood.heard(), &ticks);
                self.stood.0 = Some(stood);
                return Ok(());
            }
        }
        if let Some(rollout) = rollout {
            let ticks = self.counted_since(store, rollout, 0).await?;
            self.remember(rollout, Evidence::recalled(&self.service, &ticks), None, &ticks);
        }
        self.has_forgotten = false;
        Ok(())
    }

    fn remember(&mut self, rollout: RolloutId, evidence: Evidence, heard: Option<(u64, u64)>, ticks: &[Tick]) {
        let last = ticks.iter().flat_map(|tick| &tick.reveals).last().map(|last| (last.boot, last.sequence)).or(heard);
        self.hearing.recall(rollout, last);
        self.history_of = last.map(|_| rollout);
        (self.evidence, self.has_forgotten) = (evidence, false);
    }

    /// What was counted of a rollout from a sequence on, as far as the store has it or will have it.
    async fn counted_since<S: Store>(
        &self,
        store: &S,
        rollout: RolloutId,
        mut from: u64,
    ) -> Result<Vec<Tick>, StoreError> {
        let mut records = Vec::new();
        loop {
            let page = store.ticks(&self.service.name, rollout, from, RECORDS_AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            from = last.sequence + 1;
            records.extend(page);
        }
        records.extend(
            self.recorder.pending().into_iter().filter(|record| record.rollout == rollout && record.sequence >= from),
        );
        Ok(records.iter().filter_map(counted).collect())
    }

    /// Where the evidence stands, when it is time to remember that and the store has, or is about to have, all that it
    /// rests on.
    pub(crate) fn stands(&mut self, now: Timestamp) -> Option<Standing> {
        let is_whole = !self.has_forgotten && !self.recorder.has_lost();
        if !is_whole || self.service.in_flight().is_none() || now.since(self.stood.1) < STANDING_EVERY {
            return None;
        }
        let known = self.stood.0.as_ref().map(|stood| (stood.rollout, stood.tick));
        let standing = self.evidence.standing().filter(|now| Some((now.rollout, now.tick)) != known)?;
        self.stood = (Some(standing.clone()), now);
        Some(standing)
    }

    /// Judges by nothing until what was counted is recalled: it may have been counted for another step than was known.
    fn begin_anew(&mut self) {
        self.evidence = Evidence::new();
        self.has_forgotten = true;
        if self.service.in_flight().is_some() {
            self.recorder.refresh();
        }
        self.follow();
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

    /// The service as people are shown it, but for its history.
    fn status(
        &self,
        in_force: Option<&ServiceRoutes>,
        in_flight: Option<&BTreeMap<ReplicaId, u64>>,
        now: Timestamp,
    ) -> ServiceStatus {
        let service = &self.service;
        let version = |revision: Revision| service.releases.get(&revision).map_or("?", |r| &r.version).to_owned();
        let wanted = service.wanted();
        let releases = service.releases.values().rev().map(|release| {
            let revision = release.revision;
            let total = self.meter.total(revision);
            let own = self.fleet.list().filter(|listed| listed.id.revision == revision);
            let replicas = own.map(|Listed { id, port, pid, state, detail }| ReplicaStatus {
                name: id.to_string(),
                port,
                pid,
                state: state.to_owned(),
                detail: detail.to_owned(),
            });
            ReleaseStatus {
                revision,
                version: release.version.clone(),
                standing: release.standing.clone(),
                created: release.created,
                artefact: release.content.artefact.as_ref().map(|digest| digest.short().to_owned()),
                weight: in_force.map_or(BasisPoints::NONE, |routes| routes.weight_of(revision)),
                wanted: wanted.replicas.get(&revision).copied().unwrap_or(0),
                ready: self.fleet.health(revision).ready,
                restarts: self.fleet.restarts(revision),
                crash_looping: self.looping.contains_key(&revision),
                in_flight: self
                    .fleet
                    .list()
                    .filter(|r| r.id.revision == revision)
                    .filter_map(|r| in_flight?.get(r.id))
                    .sum(),
                replicas: replicas.collect(),
                recent: self.meter.recent(revision),
                total: total.counts,
                answers: self.meter.answers(revision),
                shielded: total.shielded,
                pinned: total.pinned,
                mirrored: total.mirrored,
                mirror_dropped: self.meter.mirror_dropped(revision),
            }
        });
        let rollout = service.rollout.as_ref();
        let firing = service.alerts.iter().rev().filter(|heard| heard.fires());
        ServiceStatus {
            service: service.name.clone(),
            environment: service
                .spec
                .as_ref()
                .map_or_else(|| service.name.environment().to_owned(), |spec| spec.environment.clone()),
            listen: service.spec.as_ref().and_then(|spec| spec.listen),
            preview: service.spec.as_ref().and_then(|spec| spec.preview),
            scrape: service.spec.as_ref().and_then(|spec| spec.scrape.clone()),
            rules: service.spec.as_ref().map_or_else(Vec::new, |spec| spec.alerts.rules.clone()),
            triggers: service.spec.as_ref().map_or_else(Triggers::off, |spec| spec.watched()),
            resources: service.spec.as_ref().map_or_else(Resources::default, |spec| spec.resources),
            load: service.spec.as_ref().and_then(|spec| spec.load.clone()),
            slos: self.budgets.status(service, now),
            stable: service.stable,
            releases: releases.collect(),
            queued: service.next.as_ref().map(|next| next.id),
            gated: service.gated.as_ref().map(|gated| GatedStatus::of(gated, version(gated.revision), now)),
            rollout: rollout.map(|r| RolloutStatus {
                judging: self.evidence.judging(r),
                ..RolloutStatus::of(r, version(r.candidate), Some(self.evidence.verdict(r)))
            }),
            history: Vec::new(),
            limited: self.limited,
            maintenance: service.maintenance.clone().filter(|maintenance| maintenance.is_on(now)),
            alerts: firing.take(ALERTS_SHOWN).map(|heard| AlertStatus::of(heard, Some(&service.name))).collect(),
        }
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

/// What a record says was counted.
fn counted(record: &TickRecord) -> Option<Tick> {
    match Record::read(record) {
        Ok(Record { what: What::Counted(tick), .. }) => Some(tick),
        Ok(_) => None,
        Err(error) => {
            warn!(rollout = %record.rollout, sequence = record.sequence, %error, "a record cannot be read");
            None
        }
    }
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

/// Whether a step is the one that waits for nobody: what was seen moves traffic back to stable.
fn is_way_back(event: &Event, next: &Service) -> bool {
    let goes_back = next.in_flight().is_some_and(|rollout| matches!(rollout.phase, Phase::RollingBack { .. }));
    matches!(event, Event::Seen(_)) && goes_back
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
