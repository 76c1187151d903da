//! An agent and its replicas: they start slowly, die, hang, are never ready, or ignore SIGTERM.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_core::ids::{FencingToken, ReplicaId, Timestamp};
use evenkeel_core::ports::{Exit, Replica};
use evenkeel_core::release::Release;
use evenkeel_core::spec::Stop;

use crate::dice::Dice;
use crate::weather::{Fault, Weather};
use crate::world::Life;

/// What the agent knows, and what is true of its replicas.
#[derive(Default)]
pub(crate) struct Platform {
    /// Grows with every change of the list.
    pub(crate) version: u64,
    /// Counts the agent's processes.
    pub(crate) boot: u64,
    pub(crate) highest: FencingToken,
    pub(crate) processes: BTreeMap<ReplicaId, Process>,
    pub(crate) listening: BTreeSet<SocketAddr>,
    /// When each controller first told an id to end.
    pub(crate) told_to_end: BTreeMap<(Life, ReplicaId), Timestamp>,
    next_port: u16,
    pub(crate) silent_until: Timestamp,
    /// While silent it holds calls back; else it refuses them.
    pub(crate) hangs: bool,
}

/// One replica's process.
pub(crate) struct Process {
    pub(crate) port: u16,
    pub(crate) started: Timestamp,
    ready_from: Option<Timestamp>,
    dies_at: Option<Timestamp>,
    pub(crate) exit: Option<Exit>,
    stubborn: bool,
    pub(crate) hangs: bool,
    busy_until: Timestamp,
    /// What its probes have told whoever asked.
    pub(crate) said: Said,
    /// Who has asked it to end first, and when.
    pub(crate) stopped: Option<(Life, Timestamp)>,
    pub(crate) stop: Stop,
    liveness_threshold: u32,
    has_startup: bool,
}

/// What was answered to probes.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) ready_once: bool,
    /// When it was ready first.
    pub(crate) ready_at: Timestamp,
    /// Some probe was answered badly since it was ready first.
    pub(crate) bad_since: bool,
    started: bool,
    /// By who asked: each controller counts its own answers.
    dead_in_a_row: BTreeMap<Life, u32>,
}

/// Which probe a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Startup,
    Liveness,
    Readiness,
}

impl Process {
    pub(crate) fn runs(&self) -> bool {
        self.exit.is_none()
    }

    /// Whether its probes give a reason to restart it.
    pub(crate) fn has_failed(&self) -> bool {
        self.said.dead_in_a_row.values().any(|times| *times >= self.liveness_threshold)
            || (self.has_startup && !self.said.started)
    }

    /// Nothing speaks against it.
    pub(crate) fn is_sound(&self) -> bool {
        self.runs() && self.said.ready_once && !self.said.bad_since && self.stopped.is_none()
    }

    /// Whether it would answer a request of a user.
    pub(crate) fn serves(&self) -> bool {
        self.runs() && !self.hangs
    }

    fn is_good(&self, asked: Asked, now: Timestamp) -> bool {
        let is_up = self.ready_from.is_some_and(|from| now >= from);
        self.runs()
            && match asked {
                Asked::Startup => is_up,
                Asked::Liveness => !self.hangs,
                Asked::Readiness => is_up && !self.hangs && now >= self.busy_until && self.stopped.is_none(),
            }
    }

    fn ends(&mut self, at: Timestamp, how: &str) {
        self.exit = self.exit.take().or(Some(Exit { at, how: how.into() }));
    }
}

impl Platform {
    /// An agent that was just started. Its list differs from what anybody can have seen.
    pub(crate) fn new() -> Self {
        Self { version: 1, ..Self::default() }
    }

    /// What the passing of time brings.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Vec<String> {
        let mut told = Vec::new();
        for (id, process) in self.processes.iter_mut().filter(|(_, process)| process.runs()) {
            if process.dies_at.is_some_and(|at| now >= at) {
                process.ends(now, "exit status 1");
                told.push(format!("{id} ends"));
                self.version += 1;
            }
        }
        told
    }

    /// Faults of replicas, for a tenth of a second.
    pub(crate) fn suffer(&mut self, now: Timestamp, weather: &Weather, dice: &mut Dice) -> Vec<(Fault, ReplicaId)> {
        let mut told = Vec::new();
        for (id, process) in self.processes.iter_mut().filter(|(_, process)| process.runs()) {
            if dice.chance(weather.chance(Fault::Dies)) {
                process.dies_at = Some(now);
                told.push((Fault::Dies, id.clone()));
            }
            if !process.hangs && dice.chance(weather.chance(Fault::Hangs)) {
                process.hangs = true;
                told.push((Fault::Hangs, id.clone()));
            }
            if dice.chance(weather.chance(Fault::Busy)) {
                process.busy_until = now.after(dice.millis(500, 15_000));
                told.push((Fault::Busy, id.clone()));
            }
        }
        told
    }

    /// No replica of one of the releases that run is ready until then; tells of which.
    pub(crate) fn starve(&mut self, until: Timestamp, dice: &mut Dice) -> Option<String> {
        let releases: BTreeSet<_> = self.running().map(|(id, _)| (id.service.clone(), id.revision)).collect();
        let releases = Vec::from_iter(releases);
        let (service, revision) = dice.pick(releases.get(..).filter(|all| !all.is_empty())?);
        let own = self.processes.iter_mut().filter(|(id, _)| id.service == *service && id.revision == *revision);
        own.for_each(|(_, process)| process.busy_until = until);
        Some(format!("{service} {revision}"))
    }

    /// The agent does not answer until then; one that does not hang is started anew after that.
    pub(crate) fn silence(&mut self, until: Timestamp, hangs: bool) {
        self.silent_until = self.silent_until.max(until);
        self.hangs = hangs;
        if !hangs {
            self.boot += 1;
            self.version += 1_000;
        }
    }

    /// What was broken by a fault is well again.
    pub(crate) fn recover(&mut self, now: Timestamp) {
        self.silent_until = now;
        for process in self.processes.values_mut() {
            (process.hangs, process.stubborn) = (false, false);
            process.busy_until = now;
            process.ready_from = process.ready_from.or(Some(now));
            // Nobody who comes later knows that it was told to end: see the limits in the crate's documentation.
            if process.stopped.is_some() && process.runs() {
                process.dies_at = Some(now);
            }
        }
    }

    /// Starts a process, unless its id was started before.
    pub(crate) fn start(&mut self, id: &ReplicaId, release: &Release, fate: Fate, now: Timestamp, dice: &mut Dice) {
        if self.processes.contains_key(id) {
            return;
        }
        self.next_port += 1;
        let probes = &release.content.probes;
        let process = Process {
            port: 20_000 + self.next_port,
            started: now,
            ready_from: (!fate.never_ready).then(|| now.after(dice.millis(50, fate.slow_ms))),
            dies_at: fate.crashes.then(|| now.after(dice.millis(0, 4_000))),
            exit: None,
            stubborn: fate.stubborn,
            hangs: false,
            busy_until: now,
            said: Said::default(),
            stopped: None,
            stop: release.content.stop,
            liveness_threshold: probes.liveness.as_ref().map_or(u32::MAX, |probe| probe.failure_threshold),
            has_startup: probes.startup.is_some(),
        };
        self.processes.insert(id.clone(), process);
        self.version += 1;
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self, id: &ReplicaId, now: Timestamp, dice: &mut Dice) {
        let Some(process) = self.processes.get_mut(id).filter(|process| process.runs()) else { return };
        if !process.stubborn {
            let at = now.after(dice.millis(0, 1_500));
            process.dies_at = Some(process.dies_at.map_or(at, |dies_at| dies_at.min(at)));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: &ReplicaId, now: Timestamp) {
        if let Some(process) = self.processes.get_mut(id).filter(|process| process.runs()) {
            process.ends(now, "killed by SIGKILL");
            self.version += 1;
        }
    }

    /// Drops a record; tells whether it could.
    pub(crate) fn forget(&mut self, id: &ReplicaId) -> bool {
        if self.processes.get(id).is_some_and(Process::runs) {
            return false;
        }
        if self.processes.remove(id).is_some() {
            self.version += 1;
        }
        true
    }

    /// What a probe of a port finds; none means that nobody listens there.
    pub(crate) fn probed(&mut self, port: u16, asked: Asked, wrong: bool, life: Life, now: Timestamp) -> bool {
        let Some(process) = self.processes.values_mut().find(|process| process.port == port) else { return false };
        let good = process.is_good(asked, now) && !wrong;
        let said = &mut process.said;
        match asked {
            Asked::Startup => said.started |= good,
            Asked::Liveness => {
                let times = said.dead_in_a_row.entry(life).or_default();
                *times = if good { 0 } else { *times + 1 };
            }
            Asked::Readiness if good && !said.ready_once => {
                (said.ready_once, said.bad_since, said.ready_at) = (true, false, now);
            }
            Asked::Readiness => {}
        }
        said.bad_since |= !good;
        good
    }

    /// The list, as the agent tells it.
    pub(crate) fn list(&self) -> Vec<Replica> {
        let replica = |(id, process): (&ReplicaId, &Process)| Replica {
            replica: id.clone(),
            pid: u32::from(process.port),
            port: process.port,
            started: process.started,
            exit: process.exit.clone(),
        };
        self.processes.iter().map(replica).collect()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (&ReplicaId, &Process)> {
        self.processes.iter().filter(|(_, process)| process.runs())
    }
}

/// How a replica will be.
pub(crate) struct Fate {
    pub(crate) never_ready: bool,
    pub(crate) crashes: bool,
    pub(crate) stubborn: bool,
    pub(crate) slow_ms: u64,
}
