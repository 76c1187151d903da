//! The replicas, the proxy and the users around a rollout, as a scenario has them.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::Counts;
use evenkeel_analysis::slots::Side;
use evenkeel_core::evidence::{History, Tally};
use evenkeel_core::fleet::Action;
use evenkeel_core::ids::{ReplicaId, Revision, Timestamp};
use evenkeel_core::ports::{Answered, Exit, Replica};
use evenkeel_core::probe::ProbeKind;
use evenkeel_core::spec::Probe;
use evenkeel_core::table::ServiceRoutes;
use serde::Serialize;

use crate::dice::{Dice, Times};
use crate::scenario::{Arm, Behaviour, Latency, Scenario};
use crate::trial::{Counters, Ends};

/// How long a replica takes to end when it is asked to.
const ENDS_AFTER: Duration = Duration::from_millis(200);
/// How long a replica of the stable release takes to become ready.
const STABLE_STARTS_IN: Duration = Duration::from_secs(1);

/// How long the stable release is remembered from before the deploy, and of how many requests.
const HISTORY: Duration = Duration::from_secs(300);
const HISTORY_REQUESTS_MAX: f64 = 20_000.0;

/// Replicas as a platform lists them.
#[derive(Debug, Default)]
pub(crate) struct Platform {
    processes: BTreeMap<ReplicaId, Process>,
    /// As listed; made anew when something has changed.
    listed: Vec<Replica>,
    next_port: u16,
}

#[derive(Debug)]
struct Process {
    port: u16,
    started: Timestamp,
    /// `None`: never.
    ready_from: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    exit: Option<Exit>,
}

/// What happens to a replica by itself, and when.
type Due = Option<Timestamp>;

impl Platform {
    pub(crate) fn list(&self) -> &[Replica] {
        &self.listed
    }

    /// Does what a fleet asks for.
    pub(crate) fn act(&mut self, action: &Action, starts_in: Option<Duration>, now: Timestamp) {
        match action {
            Action::Start(id) => {
                self.next_port = self.next_port.wrapping_add(1).max(1);
                let ready_from = starts_in.map(|time| now.after(time));
                let process = Process { port: self.next_port, started: now, ready_from, ends_at: None, exit: None };
                self.processes.insert(id.clone(), process);
            }
            Action::Terminate(id) => {
                if let Some(process) = self.processes.get_mut(id).filter(|process| process.ends_at.is_none()) {
                    process.ends_at = Some(now.after(ENDS_AFTER));
                }
            }
            Action::Kill(id) => self.end(id, now, "killed"),
            Action::Forget(id) => drop(self.processes.remove(id)),
            Action::Probe { .. } => return,
        }
        self.relist();
    }

    /// Lets so many running replicas of a release end by themselves.
    pub(crate) fn die(&mut self, revision: Revision, count: u32, now: Timestamp) {
        let runs = self.processes.iter().filter(|(id, process)| id.revision == revision && process.exit.is_none());
        let dying: Vec<ReplicaId> = runs.map(|(id, _)| id.clone()).take(count as usize).collect();
        dying.iter().for_each(|id| self.end(id, now, "exit status 1"));
        self.relist();
    }

    /// Lets time pass; tells whether a replica has ended meanwhile.
    pub(crate) fn pass(&mut self, now: Timestamp) -> bool {
        let is_due = |process: &Process| process.exit.is_none() && process.ends_at.is_some_and(|at| at <= now);
        let due: Vec<ReplicaId> = self.processes.iter().filter(|(_, p)| is_due(p)).map(|(id, _)| id.clone()).collect();
        due.iter().for_each(|id| self.end(id, now, "ended as asked"));
        if !due.is_empty() {
            self.relist();
        }
        !due.is_empty()
    }

    /// When the next replica ends as it was asked to.
    pub(crate) fn next_end(&self) -> Due {
        self.processes.values().filter(|process| process.exit.is_none()).filter_map(|process| process.ends_at).min()
    }

    pub(crate) fn probe(&self, id: &ReplicaId, is_down: bool, now: Timestamp) -> Answered {
        let good = !is_down && self.processes.get(id).is_some_and(|process| process.answers(now));
        let detail = if good { String::new() } else { "connection refused".to_owned() };
        Answered { good, detail }
    }

    fn answers(&self, id: &ReplicaId, now: Timestamp) -> bool {
        self.processes.get(id).is_some_and(|process| process.answers(now))
    }

    fn end(&mut self, id: &ReplicaId, at: Timestamp, how: &str) {
        if let Some(process) = self.processes.get_mut(id).filter(|process| process.exit.is_none()) {
            process.exit = Some(Exit { at, how: how.to_owned() });
        }
    }

    fn relist(&mut self) {
        let replica = |(id, process): (&ReplicaId, &Process)| Replica {
            replica: id.clone(),
            pid: u32::from(process.port),
            port: process.port,
            started: process.started,
            exit: process.exit.clone(),
        };
        self.listed = self.processes.iter().map(replica).collect();
    }
}

impl Process {
    fn answers(&self, now: Timestamp) -> bool {
        self.exit.is_none() && self.ready_from.is_some_and(|from| from <= now)
    }
}

/// Good answers to probes that nobody need be told of, since the next ones are as good: until something changes they
/// are kept back, and a calm hour costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    probes: BTreeMap<(ReplicaId, ProbeKind), Probed>,
}

#[derive(Debug)]
struct Probed {
    /// Good answers in a row that were given.
    given: u32,
    /// When the one that is kept back was asked for.
    asked: Option<Timestamp>,
    period: Duration,
}

impl Calm {
    /// Takes note of an answer; tells whether it is kept back.
    pub(crate) fn keeps(
        &mut self,
        id: &ReplicaId,
        kind: ProbeKind,
        probe: &Probe,
        answer: &Answered,
        now: Timestamp,
    ) -> bool {
        let fresh = Probed { given: 0, asked: None, period: probe.period };
        let probed = self.probes.entry((id.clone(), kind)).or_insert(fresh);
        let keeps = answer.good && probed.given > probe.success_threshold;
        probed.given = if answer.good { probed.given.saturating_add(1) } else { 0 };
        probed.asked = keeps.then_some(now);
        keeps
    }

    /// Something changes: the newest answers up to this moment, each at the time of its probe.
    pub(crate) fn give_back(&mut self, now: Timestamp) -> Vec<(ReplicaId, ProbeKind, Answered, Timestamp)> {
        let good = || Answered { good: true, detail: String::new() };
        let newest = |((id, kind), probed): (&(ReplicaId, ProbeKind), &mut Probed)| {
            let asked = probed.asked.take()?;
            let periods = now.since(asked).as_micros() / probed.period.as_micros().max(1);
            let at = asked.after(probed.period.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX)));
            Some((id.clone(), *kind, good(), at.min(now)))
        };
        self.probes.iter_mut().filter_map(newest).collect()
    }
}

/// What became of the users' requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Users {
    /// Requests of users since the deploy.
    pub requests: u64,
    /// Those whose user saw an error of the new release.
    pub hurt_by_candidate: u64,
    /// Those that the new release failed and the stable one answered instead.
    pub spared: u64,
    /// Those whose user saw an error of the stable release.
    pub hurt_by_stable: u64,
    /// Those that were answered 503, since no release served.
    pub unserved: u64,
    /// Requests that the new release got while it was on trial, copies not counted.
    pub to_candidate: u64,
    /// Those of them that it failed, whoever answered in its place.
    pub failed_by_candidate: u64,
}

/// Users and their requests.
#[derive(Debug)]
pub(crate) struct Traffic<'a> {
    scenario: &'a Scenario,
    shields: bool,
    times: Vec<(Latency, Times)>,
}

/// A stretch of time in which nothing of the scenario changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    /// Its end, counted from the deploy.
    pub(crate) at: Duration,
    /// How long it is.
    pub(crate) lasts: Duration,
    /// The same end as the platform knows it.
    pub(crate) now: Timestamp,
}

/// Who serves in a stretch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Serving<'a> {
    pub(crate) table: &'a ServiceRoutes,
    pub(crate) candidate: Revision,
    /// A step has pins, and the candidate a backend.
    pub(crate) has_pins: bool,
    /// Share of stable's requests that is copied to the candidate.
    pub(crate) mirror: f64,
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(scenario: &'a Scenario, shields: bool) -> Self {
        Self { scenario, shields, times: Vec::new() }
    }

    /// What the stable release was like in the minutes before.
    pub(crate) fn history(&mut self, dice: &mut Dice) -> Option<History> {
        let stable = self.scenario.behaviour(Arm::Stable, Duration::ZERO)?;
        let requests = (self.scenario.rate_at(Duration::ZERO) * HISTORY.as_secs_f64()).min(HISTORY_REQUESTS_MAX);
        let times = self.times_of(stable.latency);
        let [good, bad] = [1.0 - stable.errors, stable.errors].map(|share| dice.poisson(requests * share));
        let mut counts = Counts::default();
        dice.answers(&mut counts, 2, good, &self.times[times].1);
        counts.classes[4] = bad;
        Some(History::of(&counts, None))
    }

    /// The requests of a stretch, per release, and what their users saw.
    pub(crate) fn pass(
        &mut self,
        stretch: Stretch,
        serving: &Serving<'_>,
        platform: &Platform,
        dice: &mut Dice,
        users: &mut Users,
        ends: &mut [Ends; 2],
    ) -> BTreeMap<Revision, Tally> {
        let all = self.scenario.rate_at(stretch.at.saturating_sub(stretch.lasts)) * stretch.lasts.as_secs_f64();
        let mut counted = BTreeMap::new();
        if all <= 0.0 {
            return counted;
        }
        let table = serving.table;
        let pinned = if serving.has_pins { all * self.scenario.matching } else { 0.0 };
        let shared_out = all - pinned;
        let stands_in = table.fallback.filter(|_| self.shields).and_then(|stable| {
            let behaviour = self.behaviour(stable, serving, stretch)?;
            self.answers(stable, serving, platform, stretch).then_some((stable, behaviour))
        });
        let mut served = 0.0;
        for release in table.releases.iter().filter(|release| release.weight.get() > 0) {
            let share = f64::from(release.weight.get()) / 10_000.0;
            served += share;
            let revision = release.revision;
            let (mean, fallback) = (shared_out * share, stands_in.filter(|(stable, _)| *stable != revision));
            let tally: &mut Tally = counted.entry(revision).or_default();
            let around = (serving, platform, stretch);
            let (seen, end) = self.serve(mean, revision, fallback.map(|(_, b)| b), around, dice, tally);
            if let Some(side) = Counters::side(table, revision) {
                ends[side as usize].merge(&end);
            }
            users.add(seen, revision == serving.candidate, &tally.counts);
        }
        if served == 0.0 {
            let unserved = dice.poisson(shared_out);
            (users.requests, users.unserved) = (users.requests + unserved, users.unserved + unserved);
        }
        let end = self.apart(pinned, shared_out, (serving, platform, stretch), dice, users, &mut counted);
        // A candidate without a share is known by whatever else reaches it.
        if table.weight_of(serving.candidate).get() == 0 {
            ends[Side::Candidate as usize].merge(&end);
        }
        counted.retain(|_, tally| !tally.is_empty());
        counted
    }

    /// Requests that do not come by a share: matching ones, and copies.
    fn apart(
        &mut self,
        pinned: f64,
        shared_out: f64,
        around: (&Serving<'_>, &Platform, Stretch),
        dice: &mut Dice,
        users: &mut Users,
        counted: &mut BTreeMap<Revision, Tally>,
    ) -> Ends {
        let mut ends = Ends::default();
        let candidate = around.0.candidate;
        if pinned > 0.0 {
            let mut tally = Tally::default();
            let (seen, end) = self.serve(pinned, candidate, None, around, dice, &mut tally);
            ends.merge(&end);
            users.add(seen, true, &tally.counts);
            counted.entry(candidate).or_default().pinned = tally.counts;
        }
        let to_others = around.0.table.releases.iter().filter(|release| release.revision != candidate);
        let of_others: f64 = to_others.map(|release| f64::from(release.weight.get()) / 10_000.0).sum();
        let copies = shared_out * of_others * around.0.mirror * self.scenario.repeatable;
        if copies > 0.0 {
            let mut tally = Tally::default();
            let (_, end) = self.serve(copies, candidate, None, around, dice, &mut tally);
            ends.merge(&end);
            counted.entry(candidate).or_default().mirrored = tally.counts;
        }
        ends
    }

    /// So many requests to a release, in the mean.
    fn serve(
        &mut self,
        mean: f64,
        revision: Revision,
        fallback: Option<Behaviour>,
        around: (&Serving<'_>, &Platform, Stretch),
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> (Seen, Ends) {
        let (serving, platform, stretch) = around;
        let Some(behaviour) = self.behaviour(revision, serving, stretch) else { return Default::default() };
        let spares = fallback.map_or(0.0, |stable| 1.0 - stable.errors);
        if !self.answers(revision, serving, platform, stretch) {
            // Nothing was sent: whatever the method, somebody else may answer.
            let (spared, hurt) = (dice.poisson(mean * spares), dice.poisson(mean * (1.0 - spares)));
            tally.counts.no_answer += spared + hurt;
            tally.shielded += spared;
            return (Seen { spared, hurt }, Ends { refused: spared + hurt, ..Ends::default() });
        }
        let times = self.times_of(behaviour.latency);
        let (good, bad) = (mean * (1.0 - behaviour.errors), mean * behaviour.errors);
        let spares = spares * self.scenario.repeatable;
        // The parts of a Poisson process that are told apart by chance are Poisson processes of their own.
        let (spared, hurt) = (dice.poisson(bad * spares), dice.poisson(bad * (1.0 - spares)));
        let well = dice.poisson(good);
        let times = &self.times[times].1;
        let [mut good, mut failed] = [Counts::default(), Counts::default()];
        dice.answers(&mut good, 2, well, times);
        dice.answers(&mut failed, 5, spared + hurt, times);
        tally.counts.merge(&good);
        tally.counts.merge(&failed);
        tally.shielded += spared;
        (Seen { spared, hurt }, Ends { well: good.latency, failed: failed.latency, refused: 0 })
    }

    fn times_of(&mut self, latency: Latency) -> usize {
        self.times.iter().position(|(known, _)| *known == latency).unwrap_or_else(|| {
            self.times.push((latency, Times::new(latency)));
            self.times.len() - 1
        })
    }

    fn behaviour(&self, revision: Revision, serving: &Serving<'_>, stretch: Stretch) -> Option<Behaviour> {
        self.scenario.behaviour(arm(revision, serving.candidate), stretch.at.saturating_sub(stretch.lasts))
    }

    /// Whether any replica of a release that the proxy knows answers: it passes over those that do not.
    fn answers(&self, revision: Revision, serving: &Serving<'_>, platform: &Platform, stretch: Stretch) -> bool {
        let began = stretch.at.saturating_sub(stretch.lasts);
        let release = serving.table.releases.iter().find(|release| release.revision == revision);
        !self.scenario.is_down(arm(revision, serving.candidate), began)
            && release.is_some_and(|r| r.backends.iter().any(|backend| platform.answers(&backend.replica, stretch.now)))
    }
}

/// What users saw of requests that failed.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    spared: u64,
    hurt: u64,
}

impl Users {
    fn add(&mut self, seen: Seen, is_candidate: bool, counts: &evenkeel_analysis::Counts) {
        self.requests += counts.requests();
        if is_candidate {
            self.to_candidate += counts.requests();
            self.failed_by_candidate += counts.errors();
            self.hurt_by_candidate += seen.hurt;
            self.spared += seen.spared;
        } else {
            self.hurt_by_stable += seen.hurt;
        }
    }
}

/// Which of the two a release is.
pub(crate) fn arm(revision: Revision, candidate: Revision) -> Arm {
    if revision == candidate { Arm::Candidate } else { Arm::Stable }
}

/// How long a replica takes to become ready; `None`: it never does.
pub(crate) fn starts_in(scenario: &Scenario, arm: Arm) -> Option<Duration> {
    match arm {
        Arm::Stable => Some(STABLE_STARTS_IN),
        Arm::Candidate => scenario.startup,
    }
}
