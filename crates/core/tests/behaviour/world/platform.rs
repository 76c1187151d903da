//! A platform whose launches take time, whose replicas die, hang, never get ready or ignore SIGTERM.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::ids::{ReplicaId, Timestamp};
use evenkeel_core::ports::{Answered, Exit, Replica};
use evenkeel_core::probe::ProbeKind;

use crate::world::dice::Dice;

#[derive(Default)]
pub(crate) struct Platform {
    pub(crate) processes: BTreeMap<ReplicaId, Process>,
    /// Exited, and no longer listed.
    forgotten: BTreeSet<ReplicaId>,
    next_port: u16,
    silent_until: Timestamp,
}

pub(crate) struct Process {
    pub(crate) port: u16,
    listed_from: Timestamp,
    ready_from: Option<Timestamp>,
    dies_at: Option<Timestamp>,
    exited: Option<Timestamp>,
    ignores_sigterm: bool,
    /// Answers no liveness probe any more.
    pub(crate) hangs: bool,
    /// Answers no readiness probe until then.
    busy_until: Timestamp,
    pub(crate) liveness_failures: u32,
    /// Some probe was answered badly since it was ready first.
    pub(crate) was_bad: bool,
    was_ready: bool,
    pub(crate) terminated: bool,
}

impl Process {
    pub(crate) fn runs(&self) -> bool {
        self.exited.is_none()
    }

    fn is_ready(&self, now: Timestamp) -> bool {
        self.ready_from.is_some_and(|from| now >= from) && !self.hangs && now >= self.busy_until
    }
}

impl Platform {
    pub(crate) fn tick(&mut self, now: Timestamp, wild: bool, dice: &mut Dice) {
        if wild && dice.once(10) {
            self.silent_until = now.after(Duration::from_millis(dice.between(500, 20_000)));
        }
        for process in self.processes.values_mut().filter(|process| process.exited.is_none()) {
            if process.dies_at.is_some_and(|at| now >= at) || (wild && dice.once(3)) {
                process.exited = Some(now);
                continue;
            }
            if wild {
                process.hangs |= dice.once(1);
                if dice.once(4) {
                    process.busy_until = now.after(Duration::from_secs(dice.between(1, 15)));
                }
            }
        }
    }

    /// What is broken by a fault is well again.
    pub(crate) fn recover(&mut self) {
        self.silent_until = Timestamp(0);
        for process in self.processes.values_mut() {
            process.hangs = false;
            process.busy_until = Timestamp(0);
            process.ready_from = process.ready_from.or(Some(Timestamp(0)));
        }
    }

    pub(crate) fn start(&mut self, id: &ReplicaId, now: Timestamp, wild: bool, bad: bool, dice: &mut Dice) {
        if self.processes.contains_key(id) || self.forgotten.contains(id) {
            return;
        }
        self.next_port += 1;
        let millis = |n: u64| now.after(Duration::from_millis(n));
        let broken = wild && (bad || dice.once(60));
        let crashes = broken && dice.once(500);
        let process = Process {
            port: 10_000 + self.next_port,
            listed_from: millis(dice.between(0, if wild { 3_000 } else { 300 })),
            ready_from: (!broken).then(|| millis(dice.between(200, if wild { 12_000 } else { 2_000 }))),
            dies_at: crashes.then(|| millis(dice.between(0, 8_000))),
            exited: None,
            ignores_sigterm: wild && dice.once(100),
            hangs: false,
            busy_until: Timestamp(0),
            liveness_failures: 0,
            was_bad: false,
            was_ready: false,
            terminated: false,
        };
        self.processes.insert(id.clone(), process);
    }

    pub(crate) fn terminate(&mut self, id: &ReplicaId, now: Timestamp, dice: &mut Dice) {
        if let Some(process) = self.processes.get_mut(id) {
            process.terminated = true;
            if !process.ignores_sigterm {
                let at = now.after(Duration::from_millis(dice.between(0, 4_000)));
                process.dies_at = Some(process.dies_at.map_or(at, |dies_at| dies_at.min(at)));
            }
        }
    }

    pub(crate) fn kill(&mut self, id: &ReplicaId, now: Timestamp) {
        if let Some(process) = self.processes.get_mut(id) {
            process.exited = process.exited.or(Some(now));
        }
    }

    pub(crate) fn forget(&mut self, id: &ReplicaId) {
        if self.processes.get(id).is_some_and(|process| process.exited.is_some()) {
            self.processes.remove(id);
            self.forgotten.insert(id.clone());
        }
    }

    pub(crate) fn probe(&mut self, id: &ReplicaId, kind: ProbeKind, now: Timestamp) -> Answered {
        let Some(process) = self.processes.get_mut(id).filter(|process| process.exited.is_none()) else {
            return Answered { good: false, detail: "connection refused".into() };
        };
        let good = match kind {
            ProbeKind::Liveness => !process.hangs,
            ProbeKind::Startup => process.ready_from.is_some_and(|from| now >= from),
            ProbeKind::Readiness => process.is_ready(now),
        };
        process.was_bad |= !good;
        if good && kind == ProbeKind::Readiness && !process.was_ready {
            (process.was_ready, process.was_bad) = (true, false);
        }
        process.liveness_failures += u32::from(!good && kind != ProbeKind::Readiness);
        Answered { good, detail: if good { String::new() } else { "GET /health: 503".into() } }
    }

    /// What it lists; `None` while it does not answer.
    pub(crate) fn list(&self, now: Timestamp) -> Option<Vec<Replica>> {
        let listed = self.processes.iter().filter(|(_, process)| now >= process.listed_from);
        let replica = |(id, process): (&ReplicaId, &Process)| Replica {
            replica: id.clone(),
            pid: u32::from(process.port),
            port: process.port,
            started: process.listed_from,
            exit: process.exited.map(|at| Exit { at, how: "exit status 1".into() }),
        };
        (now >= self.silent_until).then(|| listed.map(replica).collect())
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (&ReplicaId, &Process)> {
        self.processes.iter().filter(|(_, process)| process.runs())
    }
}
