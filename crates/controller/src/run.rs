//! One turn of the loop, and recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evenkeel_core::check::Sighting;
use evenkeel_core::dependency::{EgressReport, Endpoint};
use evenkeel_core::fleet::Action;
use evenkeel_core::group::Fellows;
use evenkeel_core::guard::CutName;
use evenkeel_core::ids::{FencingToken, Generation, ReplicaId, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::lease::Held;
use evenkeel_core::ports::{
    Answered, CheckedFor, Clock, Gauge, PassedOver, PlatformError, Replica, Replicas, Store, StoreError, TickRecord,
    Traffic, Workloads,
};
use evenkeel_core::probe::ProbeKind;
use evenkeel_core::release::Deploy;
use evenkeel_core::rollout::RolloutEvent;
use evenkeel_core::route::Use;
use evenkeel_core::service::{Service, Verb};
use evenkeel_core::slo::Spent;
use evenkeel_core::spec::Spec;
use evenkeel_core::table::{RoutingTable, ServiceRoutes, TableRefused};
use evenkeel_core::trial::Heard;
use evenkeel_core::{Event, Phase};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::budgets;
use crate::depending::{self, Depending};
use crate::handle::{GroupMember, Handle, Request};
use crate::hands::{self, Deed};
use crate::inbox::{self, Inbox};
use crate::keeper::{self, Keeper, Sight, Unhappened};
use crate::patience::Patient;
use crate::standings::{self, Standings};
use crate::status::{News, Shown, Told};

mod beside;
mod requests;
mod traffic;

use self::beside::{
    ask_checks, ask_once, deed, keep_lease, keep_listening, measure, smoke, tell_events, watch_replicas, watch_traffic,
};

/// The loop turns at least this often; counters come up as often.
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for a change of the replicas before asking again.
const WATCH: Duration = Duration::from_secs(5);
/// Wait before a silent adapter is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// The listening addresses are asked for again this often, which also revives a dead agent or proxy.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// A proxy that misses so many reports in a row is told of.
const REPORTS_MISSED: u32 = 3;
/// A new controller looks this long before it decides: every probe has been sent and answered once by then.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// A service of which nothing is new is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The figures of a rollout in flight are shown anew this often; everything else as soon as it changes.
const SHOW_AGAIN: Duration = Duration::from_millis(200);
/// Records that no decision has taken along go to the store this often.
const KEEP_RECORDS: Duration = Duration::from_secs(1);
/// The room that the store takes is looked at after this many signs of life.
const BYTES_EVERY: u64 = 30;
/// Longest wait for a measurement beyond its own time-out.
const MEASURE_SLACK: Duration = Duration::from_secs(1);
/// Decisions of one service in one turn; more would mean that two of them undo each other.
const DECISIONS_PER_TURN: usize = 8;
/// Rounds of deciding and moving traffic in one turn.
const ROUNDS_PER_TURN: usize = 4;

/// What a controller runs with.
#[derive(Debug)]
pub struct Options<S, W, T, C, G> {
    /// Keeps what was decided.
    pub store: S,
    /// Starts and stops replicas.
    pub workloads: W,
    /// Moves traffic.
    pub traffic: T,
    /// Tells the time.
    pub clock: C,
    /// Measures what checks ask for.
    pub gauge: G,
    /// Leads only when this is the newest token: the one of whom it takes over from. `None`: whoever leads by now.
    pub after: Option<FencingToken>,
}

/// Why a controller could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The platform cannot be used.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// Recovers what the store knows, takes over the machine, and drives every service until told to end.
///
/// Answers a handle, and a future that ends when the controller was told to go down (`Ok`) or another one took over.
///
/// # Errors
/// [`StartError`]: nothing was touched.
pub async fn start<S, W, T, C, G>(
    options: Options<S, W, T, C, G>,
) -> Result<(Handle, impl Future<Output = Result<(), PlatformError>>), StartError>
where
    S: Store + 'static,
    W: Workloads + 'static,
    T: Traffic + 'static,
    C: Clock + 'static,
    G: Gauge + 'static,
{
    let Options { store, workloads, traffic, clock, gauge, after } = options;
    // First nobody else may decide or act any more; then what is read is all there is.
    let asked = clock.now();
    let token = store.next_token(after).await?;
    workloads.hello(token).await?;
    let mut keepers = BTreeMap::new();
    let mut standings = Standings::of(store.notes(standings::KIND).await?);
    for stored in store.load().await? {
        // A snapshot does not say when its last event was decided.
        let last = match (&stored.snapshot, stored.events.is_empty()) {
            (Some((version, _)), true) => store.events(&stored.service, *version, 1).await?.first().map(|last| last.at),
            _ => None,
        };
        let mut keeper = Keeper::recover(stored, token, last);
        keeper.recall(&store, standings.take(&keeper.service.name)).await?;
        clock.not_before(keeper.newest());
        keepers.insert(keeper.service.name.clone(), keeper);
    }

    for note in store.notes(budgets::KIND).await? {
        keepers.values_mut().for_each(|keeper| keeper.budgets.recall(&note, &keeper.service.name));
    }

    let inbox = Inbox::of(store.notes(inbox::KIND).await?);
    let (mailbox, requests) = mpsc::channel(64);
    let (overview_in, overview) = watch::channel(Shown::default());
    let (told, _) = broadcast::channel(1_024);
    let handle = Handle { mailbox, overview, told: told.clone() };
    let (workloads, traffic) = (Arc::new(workloads), Arc::new(traffic));
    let held = Held::since(asked);
    let mut controller = Controller {
        store: Patient::new(store),
        workloads,
        traffic,
        clock: Arc::new(clock),
        gauge: Arc::new(gauge),
        token,
        held,
        keepers,
        groups_begun: 0,
        inbox,
        replicas: None,
        in_flight: None,
        passed_over: BTreeMap::new(),
        table: None,
        overview: overview_in,
        told,
        troubles: BTreeMap::new(),
        warnings: Vec::new(),
        depending: Depending::default(),
        answers: mpsc::unbounded_channel(),
        going_down: None,
        is_settled: false,
        refused_table: None,
        routes_differ: true,
        has_taken_stock: None,
        forgetting: BTreeSet::new(),
        strange_cuts: Vec::new(),
        reports_missed: 0,
        keeping: (Timestamp::default(), false),
        has_looked: false,
        has_news: true,
        store_bytes: None,
    };
    // Whoever asks before the first turn is told what the store knows, not that there is nothing.
    controller.show();
    Ok((handle, controller.run(requests)))
}

struct Controller<S, W, T, C, G> {
    store: Patient<S>,
    workloads: Arc<W>,
    traffic: Arc<T>,
    clock: Arc<C>,
    gauge: Arc<G>,
    token: FencingToken,
    /// The lease that goes with the token.
    held: Held,
    keepers: BTreeMap<ServiceName, Keeper>,
    /// Deploys of groups that it has begun.
    groups_begun: u64,
    /// Alerts that belong to no service.
    inbox: Inbox,
    /// What the platform lists, by service; `None` while it does not answer.
    replicas: Option<BTreeMap<ServiceName, Vec<Replica>>>,
    in_flight: Option<BTreeMap<ReplicaId, u64>>,
    /// Replicas that the proxy passes over.
    passed_over: BTreeMap<ReplicaId, PassedOver>,
    /// The table in force as the proxy confirmed it.
    table: Option<RoutingTable>,
    overview: watch::Sender<Shown>,
    told: broadcast::Sender<News>,
    /// What does not answer, by who it is.
    troubles: BTreeMap<&'static str, String>,
    /// What the proxy has people see to.
    warnings: Vec<String>,
    /// What became of what releases depend on.
    depending: Depending,
    answers: (mpsc::UnboundedSender<Found>, mpsc::UnboundedReceiver<Found>),
    going_down: Option<oneshot::Sender<()>>,
    /// No table that was sent can come into force any more.
    is_settled: bool,
    refused_table: Option<TableRefused>,
    /// What the proxy shall have may be something else than what is in force.
    routes_differ: bool,
    /// Since when the platform has told which replicas run: before, nothing is known that could be acted on.
    has_taken_stock: Option<Timestamp>,
    /// Replicas whose record the platform was asked to drop since its last list.
    forgetting: BTreeSet<ReplicaId>,
    /// Cuts of services that nobody knows.
    strange_cuts: Vec<CutName>,
    /// Reports in a row that did not come.
    reports_missed: u32,
    /// When the store was last asked to keep records, and whether it has yet to answer.
    keeping: (Timestamp, bool),
    /// It has looked long enough to decide.
    has_looked: bool,
    /// Some service may have other settings than before.
    has_news: bool,
    /// The room that the store takes.
    store_bytes: Option<u64>,
}

/// What a task beside the loop has found out.
#[derive(Debug)]
pub(crate) enum Found {
    Probe {
        replica: ReplicaId,
        kind: ProbeKind,
        answer: Answered,
    },
    Smoke {
        service: ServiceName,
        rollout: RolloutId,
        result: Result<(), String>,
    },
    Measured {
        service: ServiceName,
        sighting: Box<Sighting>,
    },
    Check {
        service: ServiceName,
        rollout: RolloutId,
        name: String,
        asked: Timestamp,
        answer: Answered,
    },
    Superseded(PlatformError),
    /// A sign of life that was asked for at this time is confirmed.
    Renewed(Timestamp),
    StoreBytes(u64),
    Listening(Result<(), PlatformError>),
    /// What was counted for the budgets of these services was not kept.
    Unkept(Vec<ServiceName>),
    /// What became of what releases depend on.
    Depending(Result<Option<EgressReport>, PlatformError>),
    /// The store was asked to keep records, up to these sequences.
    Kept(Result<(), StoreError>, Vec<(ServiceName, u64)>),
}

impl<S, W, T, C, G> Controller<S, W, T, C, G>
where
    S: Store + 'static,
    W: Workloads + 'static,
    T: Traffic + 'static,
    C: Clock + 'static,
    G: Gauge + 'static,
{
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> Result<(), PlatformError> {
        let (deeds, deeds_out) = mpsc::unbounded_channel();
        let (hands_told, mut hands_heard) = mpsc::unbounded_channel();
        let (addresses, addresses_out) = watch::channel(self.addresses());
        let (endpoints, endpoints_out) = watch::channel(Vec::new());
        let (reports_in, mut reports) = watch::channel(None);
        let (heard_in, heard_out) = watch::channel((Vec::new(), Vec::new()));
        let (replicas_in, mut replicas) = watch::channel(None);
        // Aborted with the loop: whatever ends it, nothing of it goes on acting.
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(hands::work(self.workloads.clone(), deeds_out, hands_told));
        beside.spawn(keep_listening(self.workloads.clone(), addresses_out, self.answers.0.clone()));
        beside.spawn(depending::keep(self.workloads.clone(), endpoints_out, self.answers.0.clone()));
        beside.spawn(keep_lease(self.store.store.clone(), self.clock.clone(), self.answers.0.clone()));
        beside.spawn(watch_traffic(self.traffic.clone(), self.clock.clone(), heard_out, reports_in));
        beside.spawn(watch_replicas(self.workloads.clone(), replicas_in, self.answers.0.clone()));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(hands::Told::Superseded(gone)) = hands_heard.recv() => return Err(gone),
                Some(request) = requests.recv() => self.take_request(request, &mut beside).await,
                Some(found) = self.answers.1.recv() => {
                    if !self.take_found(found)? {
                        continue;
                    }
                }
                Ok(()) = replicas.changed() => replicas.mark_changed(),
                Ok(()) = reports.changed() => reports.mark_changed(),
                _ = tick.tick() => {}
            }
            // Whatever woke it: each turn rests on everything that is known by now.
            while let Ok(found) = self.answers.1.try_recv() {
                self.take_found(found)?;
            }
            if replicas.has_changed().is_ok_and(|changed| changed) {
                let list = replicas.borrow_and_update().clone();
                self.take_list(list);
            }
            if reports.has_changed().is_ok_and(|changed| changed) {
                let report = reports.borrow_and_update().clone();
                self.take_report(report);
            }
            self.turn(&deeds, &mut beside).await?;
            heard_in.send_replace(self.told_to_the_proxy());
            if std::mem::take(&mut self.has_news) {
                addresses.send_if_modified(|known| {
                    let wanted = self.addresses();
                    let differs = *known != wanted;
                    *known = wanted;
                    differs
                });
            }
            // Before it is known what runs nothing is withdrawn: a breaker would begin anew, and its release be cut off from it.
            endpoints.send_if_modified(|known| {
                let wanted = if self.has_taken_stock.is_some() { self.endpoints() } else { Vec::new() };
                let differs = *known != wanted;
                *known = wanted;
                differs
            });
            if self.is_down() {
                if let Some(reply) = self.going_down.take() {
                    let _ = reply.send(());
                }
                return Ok(());
            }
        }
    }

    /// What the proxy need not tell again, and which cuts it need not keep.
    fn told_to_the_proxy(&self) -> (Vec<Heard>, Vec<CutName>) {
        let heard = self.keepers.iter().flat_map(|(name, keeper)| keeper.hearing.told(name)).collect();
        let known = self.keepers.values().flat_map(Keeper::acknowledged);
        (heard, known.chain(self.strange_cuts.iter().cloned()).collect())
    }

    /// Decides, moves traffic, and has replicas started and stopped, until nothing changes any more.
    ///
    /// Only services are looked at of which something is new, or whose time has come.
    async fn turn(
        &mut self,
        deeds: &mpsc::UnboundedSender<Deed>,
        beside: &mut tokio::task::JoinSet<()>,
    ) -> Result<(), PlatformError> {
        self.learn_table().await?;
        for _ in 0..ROUNDS_PER_TURN {
            self.decide().await;
            if let Some(newer) = self.store.superseded() {
                return Err(PlatformError::Superseded(newer));
            }
            self.act(deeds, beside);
            if !self.move_traffic().await? {
                break;
            }
        }
        self.keep_records(beside);
        self.show();
        Ok(())
    }

    /// Has the store keep what decisions may rest on, all services in one, beside the loop.
    fn keep_records(&mut self, beside: &mut tokio::task::JoinSet<()>) {
        let (asked, is_asked) = self.keeping;
        let now = self.clock.now();
        if is_asked || now.since(asked) < KEEP_RECORDS {
            return;
        }
        self.keep_budgets(beside, now);
        let has_records = |(_, keeper): &(&ServiceName, &Keeper)| !keeper.recorder.is_kept();
        let batches: Vec<_> = self.keepers.iter().filter(has_records).collect();
        let batches: Vec<_> =
            batches.into_iter().map(|(name, keeper)| (name.clone(), keeper.recorder.pending())).collect();
        self.keeping = (now, !batches.is_empty());
        if batches.is_empty() {
            return;
        }
        let stand = self.keepers.iter_mut().filter_map(|(name, keeper)| Some((name, keeper.stands(now)?)));
        let standings: Vec<_> = stand.map(|(name, standing)| standings::note(name, &standing, now)).collect();
        let (store, found) = (self.store.store.clone(), self.answers.0.clone());
        beside.spawn(async move {
            let kept = store.keep_ticks(&batches).await;
            // What they rest on is there by now. Without them a successor only reads more.
            if kept.is_ok() && !standings.is_empty() {
                let _ = store.keep_notes(&standings).await;
            }
            let last = |(name, records): (ServiceName, Vec<TickRecord>)| Some((name, records.last()?.sequence));
            let _ = found.send(Found::Kept(kept, batches.into_iter().filter_map(last).collect()));
        });
    }

    /// Has the store keep what was counted for error budgets, beside the loop; what is not kept is kept with the next.
    fn keep_budgets(&mut self, beside: &mut tokio::task::JoinSet<()>, now: Timestamp) {
        let notes: Vec<_> =
            self.keepers.values_mut().flat_map(|keeper| keeper.budgets.notes(&keeper.service, now)).collect();
        if notes.is_empty() {
            return;
        }
        let (store, found) = (self.store.store.clone(), self.answers.0.clone());
        let services = self.keepers.keys().cloned().collect();
        beside.spawn(async move {
            if let Err(error) = store.keep_notes(&notes).await {
                warn!(%error, "error budgets were not written down");
                let _ = found.send(Found::Unkept(services));
            }
        });
    }

    /// Shows every rollout the world, and makes durable what it decides.
    async fn decide(&mut self) {
        // Time limits may have passed while no controller ran: every replica is probed before any is given up.
        let now = self.clock.now();
        if !self.has_looked && self.has_taken_stock.is_some_and(|since| now.since(since) >= FIRST_LOOK) {
            self.has_looked = true;
            info!(services = self.keepers.len(), "has looked at everything, decides from here on");
            self.touch_all();
        }
        if !self.has_looked || self.going_down.is_some() {
            return;
        }
        // Another one may have taken over: without the lease only traffic goes back, which table and token guard.
        let mut store_failed = false;
        for name in self.due(now) {
            // A store that took its time may have outlasted it.
            store_failed |= !self.leads();
            if self.keepers.get_mut(&name).is_some_and(|keeper| keeper.is_starting(now)) {
                continue;
            }
            store_failed |= self.decide_gates(&name, store_failed).await;
            store_failed |= self.take_measurements(&name, store_failed).await;
            store_failed |= self.watch_stable(&name, store_failed).await;
            store_failed |= self.watch_budgets(&name, store_failed).await;
            for _ in 0..DECISIONS_PER_TURN {
                let (table, replicas, in_flight) =
                    (self.table.as_ref(), self.replicas.as_ref(), self.in_flight.as_ref());
                let (fellows, now) = (self.fellows(&name), self.clock.now());
                store_failed |= !self.leads();
                let Some(keeper) = self.keepers.get_mut(&name) else { break };
                let sight = sight(table, replicas, in_flight, &name);
                let Some(seen) = keeper.observe(&sight, fellows, now) else { break };
                // Most looks at the world change nothing: only those that do are recorded.
                let event = RolloutEvent::Seen(seen);
                let next = keeper.service.in_flight().and_then(|rollout| rollout.step(&event, now).ok().flatten());
                let (Some(next), RolloutEvent::Seen(seen)) = (next, event) else { break };
                // A store that has just failed is not waited for again before others could go back.
                if store_failed && !matches!(next.phase, Phase::RollingBack { .. }) {
                    keeper.note_unwritten(now);
                    break;
                }
                let seen = Box::new(keeper.measured(seen));
                if let Err(unhappened) = self.happen(&name, Event::Seen(seen), now).await {
                    store_failed |= matches!(unhappened, Unhappened::Store(_));
                    break;
                }
            }
            if !store_failed {
                self.make_sure(&name).await;
            }
        }
    }

    /// Whether nobody else can have taken over yet.
    fn leads(&self) -> bool {
        self.held.holds(self.clock.now())
    }

    /// Shows a rollout what was measured for its checks; tells whether the store failed.
    async fn take_measurements(&mut self, name: &ServiceName, store_failed: bool) -> bool {
        for _ in 0..DECISIONS_PER_TURN {
            let now = self.clock.now();
            let next = self.keepers.get_mut(name).filter(|_| !store_failed);
            let next = next.and_then(|keeper| keeper.measuring.next(&keeper.service, now));
            let Some(event) = next else { break };
            if let Err(unhappened) = self.happen(name, event, now).await {
                return matches!(unhappened, Unhappened::Store(_));
            }
            if let Some(keeper) = self.keepers.get_mut(name) {
                keeper.measuring.done();
            }
        }
        false
    }

    /// Has people told of what the stable release does; tells whether the store failed.
    async fn watch_stable(&mut self, name: &ServiceName, store_failed: bool) -> bool {
        let now = self.clock.now();
        let event = self.keepers.get_mut(name).filter(|_| !store_failed).and_then(|keeper| keeper.watch_stable(now));
        let Some(event) = event else { return false };
        // What could not be recorded is told again with the next part of its time.
        matches!(self.happen(name, event, now).await, Err(Unhappened::Store(_)))
    }

    /// Has people told of error budgets; tells whether the store failed.
    async fn watch_budgets(&mut self, name: &ServiceName, store_failed: bool) -> bool {
        let now = self.clock.now();
        let event = self.keepers.get_mut(name).filter(|_| !store_failed).and_then(|keeper| keeper.watch_budgets(now));
        let Some(event) = event else { return false };
        // What could not be recorded is told again with the next look.
        matches!(self.happen(name, event, now).await, Err(Unhappened::Store(_)))
    }

    /// A deploy with the budgets of its service that are spent.
    fn with_budgets(&self, mut deploy: Deploy) -> Deploy {
        let keeper = self.keepers.get(&deploy.spec.service);
        deploy.how.spent =
            keeper.map_or_else(Vec::new, |keeper| keeper.budgets.spent(&deploy.spec.slos, self.clock.now()));
        deploy
    }

    /// The budgets of a service that are spent, by the spec that is in force.
    fn spent_of(&self, name: &ServiceName) -> Vec<Spent> {
        let known = self.keepers.get(name).and_then(|keeper| Some((keeper, keeper.service.spec.as_ref()?)));
        known.map_or_else(Vec::new, |(keeper, spec)| keeper.budgets.spent(&spec.slos, self.clock.now()))
    }

    /// Shows a deploy that waits for its gates how they are; tells whether the store failed.
    async fn decide_gates(&mut self, name: &ServiceName, store_failed: bool) -> bool {
        for _ in 0..DECISIONS_PER_TURN {
            let now = self.clock.now();
            let event = self.keepers.get(name).filter(|_| !store_failed).and_then(|keeper| keeper.look_at_gates(now));
            let Some(event) = event else { break };
            if let Err(unhappened) = self.happen(name, event, now).await {
                return matches!(unhappened, Unhappened::Store(_));
            }
        }
        false
    }

    /// The other services of the group whose rollout a service has in flight.
    ///
    /// `None` while the log of one of them may hold more than is known, unless one goes back anyway: what goes back may
    /// not be taken for one that is through.
    fn fellows(&self, name: &ServiceName) -> Option<Box<Fellows>> {
        let group = self.keepers.get(name)?.service.in_flight()?.group.as_ref()?;
        let fellows = group.look(name, |fellow| self.keepers.get(fellow).map(|keeper| &keeper.service));
        let others = group.members.iter().filter(|member| member.service != *name);
        let is_unsure = others.filter_map(|other| self.keepers.get(&other.service)).any(Keeper::is_unsure);
        (!is_unsure || fellows.failed.is_some()).then(|| Box::new(fellows))
    }

    async fn happen(&mut self, name: &ServiceName, event: Event, now: Timestamp) -> Result<(), Unhappened> {
        let Some(keeper) = self.keepers.get_mut(name) else { return Ok(()) };
        let before = keeper.service.in_flight().map(|rollout| (rollout.id, rollout.candidate));
        let outcome = keeper.happen(&self.store, event, now).await;
        if let Some((rollout, candidate)) = before
            && let Some(about) = checked_for(&keeper.service, candidate)
        {
            let calls = keeper.service.calls_after(rollout).into_iter();
            keeper.calls.extend(calls.map(|call| (about.clone(), call)));
        }
        self.happened(name, outcome)
    }

    /// Looks at what is in the log of a service when an answer of the store was lost.
    async fn make_sure(&mut self, name: &ServiceName) {
        let Some(keeper) = self.keepers.get_mut(name).filter(|keeper| keeper.is_unsure()) else { return };
        let outcome = keeper.make_sure(&self.store).await.map_err(Unhappened::from);
        // A failure is shown, and tried again with the next turn.
        let _ = self.happened(name, outcome);
        self.drop_if_nothing(name);
    }

    /// Drops a service of which the log holds nothing for certain: its first deploy failed.
    fn drop_if_nothing(&mut self, name: &ServiceName) {
        if self.keepers.get(name).is_some_and(|keeper| !keeper.service.is_known() && !keeper.is_unsure()) {
            self.keepers.remove(name);
            self.routes_differ = true;
        }
    }

    fn happened(&mut self, name: &ServiceName, outcome: Result<Vec<Told>, Unhappened>) -> Result<(), Unhappened> {
        self.has_news = true;
        if let Some(keeper) = self.keepers.get(name) {
            self.clock.not_before(keeper.newest());
        }
        match outcome {
            Ok(told) => {
                self.troubles.remove("store");
                if let Some(keeper) = self.keepers.get_mut(name) {
                    told.iter().for_each(|news| keeper.note_event(news));
                }
                for news in told {
                    let _ = self.told.send(News::Decided(news));
                }
                Ok(())
            }
            Err(unhappened) => {
                if let Unhappened::Store(error) = &unhappened {
                    self.trouble("store", error.to_string());
                }
                Err(unhappened)
            }
        }
    }

    /// Lets every fleet look at the world, and passes on what is to be done.
    fn act(&mut self, deeds: &mpsc::UnboundedSender<Deed>, beside: &mut tokio::task::JoinSet<()>) {
        let now = self.clock.now();
        while beside.try_join_next().is_some() {}
        if let (None, Some(list)) = (self.has_taken_stock, &self.replicas) {
            let own = |name| list.get(name).map_or(&[][..], Vec::as_slice);
            self.keepers.iter_mut().for_each(|(name, keeper)| keeper.takes_stock(own(name), now));
            self.has_taken_stock = Some(now);
            self.touch_all();
        }
        for name in self.due(now) {
            let (table, replicas, in_flight) = (self.table.as_ref(), self.replicas.as_ref(), self.in_flight.as_ref());
            let sight = sight(table, replicas, in_flight, &name);
            let Some(keeper) = self.keepers.get_mut(&name) else { continue };
            let actions = if self.going_down.is_some() {
                let world = keeper::world(&NOTHING_WANTED, &keeper.service, &sight);
                keeper.fleet.step(&world, now)
            } else {
                keeper.reconcile(&sight, now)
            };
            let acts = actions.iter().any(|action| !matches!(action, Action::Probe { .. }));
            let releases = &keeper.service.releases;
            let log_bytes_max = keeper.service.spec.as_ref().map_or(10 << 20, |spec| spec.log_bytes_max);
            for action in actions {
                match deed(action, releases, log_bytes_max) {
                    Ok(Some(Deed::Forget(replica))) if !self.forgetting.insert(replica.clone()) => {}
                    Ok(Some(deed)) => drop(deeds.send(deed)),
                    Ok(None) => {}
                    Err(probe) => {
                        beside.spawn(probe.send(self.workloads.clone(), self.answers.0.clone()));
                    }
                }
            }
            smoke(keeper, &self.workloads, &self.answers.0, beside);
            if self.has_looked && self.going_down.is_none() {
                ask_checks(keeper, now, &self.workloads, &self.answers.0, beside);
                measure(keeper, now, &self.gauge, &self.clock, &self.answers.0, beside);
            }
            call(keeper, &self.gauge, &self.clock, beside);
            tell_events(keeper, &self.gauge, &self.clock, beside);
            let mut routes = keeper.routes(&sight);
            if let Some(routes) = routes.as_mut().filter(|_| self.going_down.is_some()) {
                routes.close();
            }
            self.routes_differ |= keeper.routes != routes;
            keeper.routes = routes;
            let is_settled = keeper.routes.as_ref() == sight.in_force && keeper.is_settled();
            let rests = if is_settled { keeper.fleet.rests_until() } else { Timestamp(0) };
            keeper.looked(rests.min(now.after(LOOK_AGAIN)), acts || now.since(keeper.shown_at) >= SHOW_AGAIN);
        }
    }

    /// The services that are to be looked at.
    fn due(&self, now: Timestamp) -> Vec<ServiceName> {
        self.keepers.iter().filter(|(_, keeper)| keeper.is_due(now)).map(|(name, _)| name.clone()).collect()
    }

    /// Has every service looked at: something has changed that concerns them all.
    fn touch_all(&mut self) {
        self.keepers.values_mut().for_each(Keeper::touch);
    }

    /// Takes what the platform lists.
    fn take_list(&mut self, list: Option<Replicas>) {
        let list = list.map(|list| {
            let mut services: BTreeMap<ServiceName, Vec<Replica>> = BTreeMap::new();
            for replica in list.replicas {
                match services.get_mut(&replica.replica.service) {
                    Some(own) => own.push(replica),
                    None => drop(services.insert(replica.replica.service.clone(), vec![replica])),
                }
            }
            services
        });
        self.forgetting.clear();
        let before = std::mem::replace(&mut self.replicas, list);
        let (Some(before), Some(list)) = (before, &self.replicas) else { return self.touch_all() };
        for (name, keeper) in &mut self.keepers {
            if before.get(name) != list.get(name) {
                keeper.touch();
            }
        }
    }

    /// Takes note of what was found; tells whether it is worth a turn. Most probes say what was known already.
    fn take_found(&mut self, found: Found) -> Result<bool, PlatformError> {
        let now = self.clock.now();
        match found {
            Found::Probe { replica, kind, answer } => {
                let Some(keeper) = self.keepers.get_mut(&replica.service) else { return Ok(false) };
                let is_news = keeper.fleet.answered(&replica, kind, &answer, now);
                if is_news {
                    keeper.touch();
                }
                return Ok(is_news);
            }
            Found::Smoke { service, rollout, result } => {
                if let Some(keeper) = self.keepers.get_mut(&service) {
                    keeper.smoked = Some((rollout, result));
                    keeper.touch();
                }
            }
            Found::Check { service, rollout, name, asked, answer } => {
                if let Some(keeper) = self.keepers.get_mut(&service) {
                    keeper.gates.answered(rollout, name, asked, answer, now);
                    keeper.touch();
                }
            }
            Found::Measured { service, sighting } => {
                if let Some(keeper) = self.keepers.get_mut(&service) {
                    keeper.measuring.come(*sighting);
                    keeper.touch();
                }
            }
            Found::Depending(Ok(report)) => {
                self.troubles.remove("dependencies");
                let (is_news, changes) = self.depending.take(report);
                changes.into_iter().for_each(|change| drop(self.told.send(News::Breaker(change))));
                self.keepers.iter_mut().for_each(|(name, keeper)| keeper.depends(self.depending.of(name)));
                return Ok(is_news);
            }
            Found::Depending(Err(error)) => self.trouble("dependencies", error.to_string()),
            Found::Listening(Ok(())) => drop(self.troubles.remove("agent")),
            Found::Listening(Err(error)) => self.trouble("agent", error.to_string()),
            Found::Kept(Ok(()), up_to) => {
                self.keeping.1 = false;
                for (name, sequence) in up_to {
                    if let Some(keeper) = self.keepers.get_mut(&name) {
                        keeper.kept(sequence);
                    }
                }
                return Ok(self.troubles.remove("store").is_some());
            }
            Found::Kept(Err(StoreError::Superseded(newer)), _) => return Err(PlatformError::Superseded(newer)),
            Found::Kept(Err(error), _) => {
                self.keeping.1 = false;
                self.trouble("store", error.to_string());
            }
            Found::Superseded(gone) => return Err(gone),
            Found::Renewed(asked) => {
                let held_before = self.held.holds(now);
                self.held.renewed(asked);
                if !held_before {
                    self.touch_all();
                }
                return Ok(!held_before);
            }
            Found::Unkept(services) => {
                for name in services {
                    if let Some(keeper) = self.keepers.get_mut(&name) {
                        keeper.budgets.unkept();
                    }
                }
                return Ok(false);
            }
            Found::StoreBytes(bytes) => self.store_bytes = Some(bytes),
        }
        Ok(true)
    }

    /// Calls off what members of a group have begun; where even that cannot be recorded, they miss the others and do so.
    async fn call_off(&mut self, begun: &[GroupMember], why: &str) {
        for GroupMember { service, .. } in begun {
            let (verb, by) = (Verb::Abort, format!("evenkeel: {why}"));
            let _ = self.happen(service, Event::Command { verb, by }, self.clock.now()).await;
        }
    }

    /// What releases depend on that run, or are about to.
    fn endpoints(&self) -> Vec<Endpoint> {
        self.keepers.values().flat_map(Keeper::endpoints).collect()
    }

    fn addresses(&self) -> BTreeSet<SocketAddr> {
        let specs = self.keepers.values().filter_map(|keeper| keeper.service.spec.as_deref());
        specs.flat_map(addresses_of).collect()
    }

    /// Whether everything that had to be stopped is gone.
    fn is_down(&self) -> bool {
        let gone = |keeper: &Keeper| keeper.fleet.list().next().is_none();
        self.going_down.is_some() && self.replicas.is_some() && self.keepers.values().all(gone)
    }

    fn trouble(&mut self, who: &'static str, what: String) {
        if self.troubles.get(who) != Some(&what) {
            warn!(who, what, "does not answer");
            self.troubles.insert(who, what);
        }
    }

    /// Shows what has changed.
    fn show(&mut self) {
        let (now, table) = (self.clock.now(), self.table.as_ref());
        let mut services = None;
        for (name, keeper) in self.keepers.iter_mut().filter(|(_, keeper)| keeper.is_outdated()) {
            if keeper.show(in_table(table, name), self.in_flight.as_ref(), &self.passed_over, now) {
                services = Some(());
            }
        }
        let generation = table.map_or(Generation(0), |table| table.generation);
        let services = services.map(|()| self.keepers.values().filter_map(|keeper| keeper.shown.clone()).collect());
        let troubles: Vec<String> = self.troubles.iter().map(|(who, what)| format!("{who}: {what}")).collect();
        let warnings: Vec<String> = self.warnings.iter().chain(self.depending.warnings()).cloned().collect();
        let dependencies = self.depending.news();
        self.overview.send_if_modified(|shown| {
            let told = troubles != shown.troubles || warnings != shown.warnings || dependencies.is_some();
            let differs = services.is_some() || generation != shown.generation || told;
            shown.at = now;
            shown.store_bytes = self.store_bytes;
            shown.generation = generation;
            shown.troubles = troubles;
            shown.warnings = warnings;
            if let Some(dependencies) = dependencies {
                shown.dependencies = dependencies;
            }
            if let Some(services) = services {
                shown.services = services;
            }
            differs
        });
    }
}

/// How a service is routed in a table; services are in order there.
fn in_table<'a>(table: Option<&'a RoutingTable>, name: &ServiceName) -> Option<&'a ServiceRoutes> {
    let services = &table?.services;
    services.binary_search_by(|routes| routes.service.cmp(name)).ok().map(|at| &services[at])
}

/// Where a spec's users and previews connect, and those without encryption who are sent on.
fn addresses_of(spec: &Spec) -> Vec<SocketAddr> {
    uses_of(spec).into_iter().map(|(address, _)| address).collect()
}

fn uses_of(spec: &Spec) -> Vec<(SocketAddr, Use<'_>)> {
    let listen = spec.listen.map(|address| (address, Use::Users(&spec.edge)));
    let preview = spec.preview.map(|address| (address, Use::Preview));
    let sent_on = spec.listen.map(|listen| Use::SentOn(listen.port()));
    let redirect = spec.edge.redirect().zip(sent_on);
    [listen, preview, redirect].into_iter().flatten().collect()
}

fn sight<'a>(
    table: Option<&'a RoutingTable>,
    replicas: Option<&'a BTreeMap<ServiceName, Vec<Replica>>>,
    in_flight: Option<&'a BTreeMap<ReplicaId, u64>>,
    name: &ServiceName,
) -> Sight<'a> {
    Sight {
        replicas: replicas.map(|replicas| replicas.get(name).map_or(&[][..], Vec::as_slice)),
        in_force: in_table(table, name),
        in_flight,
        table_known: table.is_some(),
    }
}

/// What a service shall have when everything is stopped.
static NOTHING_WANTED: LazyLock<evenkeel_core::Wanted> = LazyLock::new(evenkeel_core::Wanted::default);

/// What is known of a release that something is measured or asked about.
pub(crate) fn checked_for(service: &Service, revision: Revision) -> Option<CheckedFor> {
    let release = service.releases.get(&revision)?;
    Some(CheckedFor {
        service: service.name.clone(),
        revision,
        version: release.version.clone(),
        directory: release.content.directory.clone().into(),
    })
}

/// Asks what is to be asked of rollouts that have ended, once, beside the loop.
fn call<G: Gauge + 'static, C: Clock + 'static>(
    keeper: &mut Keeper,
    gauge: &Arc<G>,
    clock: &Arc<C>,
    beside: &mut tokio::task::JoinSet<()>,
) {
    for (about, call) in keeper.calls.drain(..) {
        beside.spawn(ask_once(gauge.clone(), clock.clone(), about, call));
    }
}
