//! A proxy: hangs, dies, finds an older table on its disk; counts what users get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_analysis::{Counts, Outcome};
use evenkeel_core::guard::{Cut, CutName, Guard, cut_off, honours};
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::ports::{InFlight, ReleaseReport, Report, Traffic, TrafficError};
use evenkeel_core::table::{Backend, ReleaseRoutes, RoutingTable, ServiceRoutes};
use evenkeel_core::trial::Heard;

use crate::calls::Caller;
use crate::coverage::{Group, OLD_TABLE};
use crate::dice::Dice;
use crate::people::errors_in_a_thousand;
use crate::platform::{Platform, Process};
use crate::rules::tables;
use crate::trials::Trials;
use crate::weather::Fault;
use crate::world::{Server, State, short};

/// As the real adapter's.
const APPLY_LIMIT: Duration = Duration::from_secs(2);
const REPORT_LIMIT: Duration = Duration::from_secs(1);
/// The first report of a step may bring so much from before it.
const COUNTED_LATE: Duration = Duration::from_millis(600);
/// Requests of users in a second, to each service; and those that match what is pinned.
const REQUESTS: u64 = 80;
const PINNED: u64 = 10;

type Of = (ServiceName, Revision);

/// What is counted of one release.
#[derive(Default)]
struct Counted {
    by_share: Counts,
    pinned: Counts,
    mirrored: Counts,
}

/// Why a request meets a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Share,
    Pin,
    Copy,
}

/// Requests that a release gets.
struct Stream<'a> {
    routes: &'a ServiceRoutes,
    release: &'a ReleaseRoutes,
    reason: Reason,
    /// In a second, in units of 0.01 %.
    rate: u64,
}

/// What the proxy does, and what is true of its requests.
#[derive(Default)]
pub(crate) struct Proxy {
    pub(crate) boot: u64,
    /// The table in force, whoever knows of it.
    pub(crate) table: RoutingTable,
    /// The table in force before it.
    previous: RoutingTable,
    /// The newest table that ever was in force.
    pub(crate) newest: RoutingTable,
    counters: BTreeMap<Of, Counted>,
    trials: Trials,
    guard: Guard,
    /// Whom it has cut off, until that is acknowledged; on its disk.
    pub(crate) cuts: Vec<Cut>,
    /// Requests since a release first got a share, for each that its rollout gave it, and those of a moment before.
    pub(crate) since_share: BTreeMap<Of, BTreeMap<BasisPoints, u64>>,
    /// The rollout that gave them.
    given_in: BTreeMap<Of, RolloutId>,
    /// Requests of the last moment, oldest first.
    recent: VecDeque<(Timestamp, Of, u64)>,
    /// Requests due, in thousandths.
    due: BTreeMap<(Of, Reason), u64>,
    /// Errors due, in thousandths.
    failing: BTreeMap<Of, u32>,
    /// When the requests in flight end.
    requests: BTreeMap<ReplicaId, Vec<Timestamp>>,
    /// Since when the table in force does not name a replica that it named.
    pub(crate) unnamed_since: BTreeMap<ReplicaId, Timestamp>,
    /// Replicas that are routed to only because an old table came back.
    pub(crate) ghosts: BTreeSet<ReplicaId>,
    /// Replicas that an old table brought back: it may have been decided before that they end.
    pub(crate) haunted: BTreeSet<ReplicaId>,
    pub(crate) silent_until: Timestamp,
    pub(crate) hangs: bool,
    /// It is dead, and whether it will find an old table.
    dead: Option<bool>,
    pub(crate) unreported_until: Timestamp,
    pub(crate) takes_none_until: Timestamp,
    pub(crate) storm_until: Timestamp,
    pub(crate) lull_until: Timestamp,
}

impl Proxy {
    pub(crate) fn hang(&mut self, until: Timestamp) {
        if self.dead.is_none() {
            (self.hangs, self.silent_until) = (true, self.silent_until.max(until));
        }
    }

    pub(crate) fn die(&mut self, until: Timestamp, finds_old: bool) {
        (self.hangs, self.silent_until, self.dead) = (false, until, Some(finds_old));
        self.boot += 1;
        self.requests.clear();
        self.counters.clear();
        self.trials.die();
        self.guard = Guard::default();
    }

    pub(crate) fn recover(&mut self, now: Timestamp) {
        self.silent_until = self.silent_until.min(now);
        // One that takes no tables comes to it again by itself: until then everybody else is well.
        (self.unreported_until, self.storm_until, self.lull_until) = (now, now, now);
    }

    pub(crate) fn routes(&self, service: &ServiceName) -> Option<&ServiceRoutes> {
        self.table.services.iter().find(|routes| routes.service == *service)
    }

    /// Whether the table in force routes to a replica.
    pub(crate) fn names(&self, id: &ReplicaId) -> bool {
        self.table.services.iter().any(|routes| routes.has_backend(id))
    }

    pub(crate) fn is_busy(&self, id: &ReplicaId) -> bool {
        self.requests.contains_key(id)
    }

    /// What the passing of time brings.
    pub(crate) fn advance(
        &mut self,
        now: Timestamp,
        passed: Duration,
        platform: &Platform,
        dice: &mut Dice,
    ) -> Option<String> {
        self.end_requests(now, platform);
        let mut told = None;
        if self.dead.is_some() && now >= self.silent_until {
            told = self.restart(now);
        }
        // Nobody is served by a proxy that is not there or stands still.
        if now >= self.silent_until && now >= self.lull_until {
            self.serve(now, passed, platform, dice);
        }
        if self.dead.is_none() {
            let Self { trials, guard, table, .. } = self;
            trials.reveal(self.boot + 1, now, |service, rollout, reveal| guard.take(table, service, rollout, reveal));
            told = self.cut_off_who_is_due(now).or(told);
        }
        told
    }

    fn end_requests(&mut self, now: Timestamp, platform: &Platform) {
        self.requests.retain(|id, ends| {
            ends.retain(|end| *end > now);
            !ends.is_empty() && platform.processes.get(id).is_some_and(Process::runs)
        });
    }

    fn restart(&mut self, now: Timestamp) -> Option<String> {
        let finds_old = self.dead.take()?;
        if finds_old && self.previous.generation < self.table.generation {
            let old = self.previous.clone();
            let routed: BTreeSet<ReplicaId> = replicas(&self.table).collect();
            self.ghosts.extend(replicas(&old).filter(|id| !routed.contains(id)));
            self.haunted.extend(replicas(&old));
            // The cuts are in the same file.
            self.cuts.retain(|cut| honours(&old, &cut.name).is_ok());
            self.put_in_force(old, now);
        }
        Some(format!("the proxy is back with table {}", self.table.generation))
    }

    /// Cuts off whom the evidence shows to be harmful, as the real one does.
    fn cut_off_who_is_due(&mut self, now: Timestamp) -> Option<String> {
        let mut told = None;
        for cut in self.guard.due(&self.table) {
            let table = cut_off(&self.table, &cut);
            told = Some(format!(
                "the proxy cuts {} of {} off with table {}",
                cut.name.revision, cut.name.service, table.generation
            ));
            self.put_in_force(table, now);
            self.cuts.push(cut);
        }
        told
    }

    fn serve(&mut self, now: Timestamp, passed: Duration, platform: &Platform, dice: &mut Dice) {
        let passed_us = u64::try_from(passed.as_micros()).unwrap_or(0);
        let storm = now < self.storm_until;
        while self.recent.front().is_some_and(|(at, ..)| now.since(*at) >= COUNTED_LATE) {
            self.recent.pop_front();
        }
        let Self { table, counters, trials, since_share, recent, due, failing, requests, .. } = self;
        for Stream { routes, release, reason, rate } in streams(table) {
            let of = (routes.service.clone(), release.revision);
            let rest = due.entry((of.clone(), reason)).or_default();
            // In units of a hundred-millionth of a request: share × rate × time.
            *rest += rate * passed_us / 100;
            let count = *rest / 100_000_000;
            *rest %= 100_000_000;
            if release.backends.is_empty() || count == 0 {
                continue;
            }
            // A step without a share is judged by whatever else reaches the release.
            if reason == Reason::Share || release.weight == BasisPoints::NONE {
                since_share.entry(of.clone()).or_default().values_mut().for_each(|since| *since += count);
                recent.push_back((now, of.clone(), count));
            }
            let errors = if storm { 500 } else { errors_in_a_thousand(&release.version) };
            let failing = failing.entry(of.clone()).or_default();
            let counted = counters.entry(of.clone()).or_default();
            let counts = match reason {
                Reason::Share => &mut counted.by_share,
                Reason::Pin => &mut counted.pinned,
                Reason::Copy => &mut counted.mirrored,
            };
            for _ in 0..count {
                let backend = dice.pick(&release.backends);
                let serves = platform.processes.get(&backend.replica).is_some_and(Process::serves);
                // Evenly spread, so that any dozen requests show how a release is.
                *failing += errors;
                let fails = *failing >= 1_000;
                *failing %= 1_000;
                let outcome = match (serves, fails) {
                    (false, _) => Outcome::NoAnswer,
                    (true, true) => Outcome::Answered(500),
                    (true, false) => Outcome::Answered(200),
                };
                counts.record(outcome, 1_000);
                trials.count(&of, reason != Reason::Share, outcome, now);
                if serves && dice.chance(100_000) {
                    let lasts = if dice.chance(200_000) { 6_000 } else { 700 };
                    begin(requests, backend, now.after(dice.millis(5, lasts)));
                }
            }
        }
    }

    /// Puts a table in force. Requests that began a moment before go on at whom it does not name any more.
    fn put_in_force(&mut self, table: RoutingTable, now: Timestamp) {
        self.trials.apply(&table, now);
        let old = std::mem::replace(&mut self.table, table);
        let named: BTreeSet<ReplicaId> = replicas(&self.table).collect();
        for id in replicas(&old).filter(|id| !named.contains(id)) {
            self.unnamed_since.insert(id, now);
        }
        self.unnamed_since.retain(|id, _| !named.contains(id));
        if self.table.generation > self.newest.generation {
            self.ghosts.retain(|id| named.contains(id));
            for (routes, release) in each(&self.table) {
                let of = (routes.service.clone(), release.revision);
                let now_in = routes.trial.as_ref().map(|trial| trial.rollout);
                let shares = self.since_share.entry(of.clone()).or_default();
                let is_another = now_in.is_some() && now_in != self.given_in.get(&of).copied();
                if let Some(rollout) = now_in.filter(|_| is_another) {
                    self.given_in.insert(of.clone(), rollout);
                    shares.clear();
                }
                if is_another || release.weight > BasisPoints::NONE {
                    let recent = &self.recent;
                    shares.entry(release.weight).or_insert_with(|| {
                        let counted =
                            recent.iter().filter(|(at, whose, _)| *whose == of && now.since(*at) < COUNTED_LATE);
                        counted.map(|(.., count)| count).sum()
                    });
                }
            }
            self.newest = self.table.clone();
        }
        self.previous = old;
    }

    fn report(&mut self, heard: &[Heard], acknowledged: &[CutName]) -> Report {
        self.cuts.retain(|cut| !acknowledged.contains(&cut.name));
        let trials = self.trials.report(self.boot + 1, heard);
        let release = |((service, revision), counted): (&Of, &Counted)| ReleaseReport {
            counts: counted.by_share.clone(),
            pinned: counted.pinned.clone(),
            mirrored: counted.mirrored.clone(),
            ..ReleaseReport::new(service.clone(), *revision)
        };
        let busy =
            |(id, ends): (&ReplicaId, &Vec<Timestamp>)| InFlight { replica: id.clone(), requests: ends.len() as u64 };
        Report {
            boot: self.boot + 1,
            pid: 1,
            generation: self.table.generation,
            releases: self.counters.iter().map(release).collect(),
            in_flight: self.requests.iter().map(busy).collect(),
            passed_over: Vec::new(),
            refused: 0,
            connections: 0,
            trials,
            cuts: self.cuts.clone(),
            warnings: Vec::new(),
            limited: BTreeMap::new(),
        }
    }
}

/// A share in a table; nothing where it is not named.
pub(crate) fn weight_in(table: &RoutingTable, service: &ServiceName, revision: Revision) -> BasisPoints {
    let routes = table.services.iter().find(|routes| routes.service == *service);
    routes.map_or(BasisPoints::NONE, |routes| routes.weight_of(revision))
}

/// Every replica that a table routes to.
pub(crate) fn replicas(table: &RoutingTable) -> impl Iterator<Item = ReplicaId> {
    each(table).flat_map(|(_, release)| &release.backends).map(|backend| backend.replica.clone())
}

fn each(table: &RoutingTable) -> impl Iterator<Item = (&ServiceRoutes, &ReleaseRoutes)> {
    table.services.iter().flat_map(|routes| routes.releases.iter().map(move |release| (routes, release)))
}

/// Who gets which requests: by its share, by what is pinned to it, and as copies.
fn streams(table: &RoutingTable) -> impl Iterator<Item = Stream<'_>> {
    each(table).flat_map(|(routes, release)| {
        let pinned = routes.pins.iter().any(|pin| pin.to == release.revision);
        let copies = routes.mirror.as_ref().filter(|mirror| mirror.to == release.revision);
        let of = |reason, rate| Stream { routes, release, reason, rate };
        [
            of(Reason::Share, REQUESTS * u64::from(release.weight.get())),
            of(Reason::Pin, if pinned { PINNED * 10_000 } else { 0 }),
            of(Reason::Copy, copies.map_or(0, |mirror| REQUESTS * u64::from(mirror.share.get()))),
        ]
        .into_iter()
        .filter(|stream| stream.rate > 0)
    })
}

fn begin(requests: &mut BTreeMap<ReplicaId, Vec<Timestamp>>, backend: &Backend, end: Timestamp) {
    requests.entry(backend.replica.clone()).or_default().push(end);
}

impl Traffic for Caller {
    async fn apply(&self, table: &RoutingTable) -> Result<(), TrafficError> {
        let (life, table) = (self.life, table.clone());
        self.point().await;
        let sent = self.yard.with(|state| tables::may_be_sent(state, life, &table));
        if self.yard.with(takes_no_table) {
            return Err(silent());
        }
        let effect = move |state: &mut State| apply(state, table.clone(), &sent);
        let answer = self.reach(Server::Proxy, APPLY_LIMIT, effect).await;
        answer.unwrap_or_else(|| Err(silent()))
    }

    async fn table(&self) -> Result<RoutingTable, TrafficError> {
        self.reach(Server::Proxy, APPLY_LIMIT, |state| state.proxy.table.clone()).await.ok_or_else(silent)
    }

    async fn report(&self, heard: &[Heard], acknowledged: &[CutName]) -> Result<Report, TrafficError> {
        let (heard, acknowledged) = (heard.to_vec(), acknowledged.to_vec());
        let report = move |state: &mut State| {
            let tells = state.now >= state.proxy.unreported_until;
            tells.then(|| state.proxy.report(&heard, &acknowledged))
        };
        self.reach(Server::Proxy, REPORT_LIMIT, report).await.flatten().ok_or_else(silent)
    }
}

fn apply(state: &mut State, table: RoutingTable, sent: &tables::Sent) -> Result<(), TrafficError> {
    let in_force = &state.proxy.table;
    let is_fit = table.may_replace(in_force.generation, in_force.token);
    let is_fit = is_fit.and_then(|()| state.proxy.cuts.iter().try_for_each(|cut| honours(&table, &cut.name)));
    if let Err(refused) = is_fit {
        let (life, generation) = (sent.life, table.generation);
        if table.token < in_force.token {
            state.coverage.count(Group::Other, OLD_TABLE);
        }
        state.tell(|| format!("table {generation} of controller {life} is refused: {refused}"));
        return Err(refused.into());
    }
    tables::may_come_into_force(state, &table, sent.clone());
    // A user's request is under way to some of those who are routed to at that moment.
    let State { proxy: Proxy { table: in_force, requests, .. }, platform, dice, now, .. } = state;
    for backend in
        each(in_force).filter(|(_, release)| release.weight > BasisPoints::NONE).flat_map(|(_, r)| &r.backends)
    {
        let serves = platform.processes.get(&backend.replica).is_some_and(Process::serves);
        if serves && dice.chance(300_000) {
            begin(requests, backend, now.after(dice.millis(100, 6_000)));
        }
    }
    state.proxy.put_in_force(table, state.now);
    Ok(())
}

fn takes_no_table(state: &mut State) -> bool {
    if state.happens(Fault::NoTables) {
        let until = state.now.after(state.dice.millis(31_000, 45_000));
        state.tell(|| format!("the proxy takes no tables until {}", short(until)));
        state.proxy.takes_none_until = until;
    }
    state.now < state.proxy.takes_none_until
}

fn silent() -> TrafficError {
    TrafficError::Unavailable("the proxy does not answer".into())
}
