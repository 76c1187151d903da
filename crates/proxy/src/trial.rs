//! Requests of rollouts in flight, counted by the moment of their assignment, and what has become final of them.
//!
//! Each worker has counters of its own for each epoch ([`Trying`]): the time in which shares and questions stand as they
//! are. Whoever reveals asks all workers with the same moment, so that they answer for the same slots; [`Logs`] adds them
//! up and keeps them until the controller has them in its store.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use evenkeel_analysis::slots::{Answers, Ended, Failure, Group, Reveal, SLOT_US, Shares, Side, Slots, Split};
use evenkeel_core::ids::{Generation, Revision, RolloutId, ServiceName};
use evenkeel_core::table::{ServiceRoutes, Trial};
use evenkeel_core::trial::{Heard, TrialReport};
use http::HeaderValue;
use tokio::time::Instant;

use crate::admission::{Admission, COLD};
use crate::limits::{FIRST_FAILURES_MAX, REVEALS_AT_ONCE, REVEALS_KEPT, TRIAL_REMEMBERED};
use crate::marks::{Marks, User};
use crate::tally::Audience;

/// Where slots are counted from: the same moment for all threads of this process.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn micros_since(origin: Instant, now: Instant) -> u64 {
    let since = now.saturating_duration_since(origin);
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

/// One worker's counters of one epoch of a trial.
pub(crate) struct Trying {
    trial: Trial,
    epoch: u64,
    shares: Shares,
    split: Split,
    origin: Instant,
    slots: RefCell<Slots>,
    /// Of users who stick to their release.
    marks: Option<Marks>,
    /// Present where a coin decides: what it gives to the candidate may have to wait.
    admission: Option<Rc<Admission>>,
    /// The epoch before, as long as the admission is cold: a smaller share that the candidate begins with.
    cold: Option<Rc<Self>>,
    /// When another epoch took its place, or none, in microseconds.
    ended: Cell<Option<u64>>,
}

/// A request that is counted in a trial, and owes its end.
#[derive(Clone)]
pub(crate) struct Assigned {
    trying: Rc<Trying>,
    slot: u64,
    side: Side,
    user: Option<User>,
    started: Instant,
}

impl std::fmt::Debug for Assigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assigned").field("slot", &self.slot).field("side", &self.side).finish_non_exhaustive()
    }
}

impl Trying {
    /// How users show that they are counted.
    pub(crate) fn marks(&self) -> Option<&Marks> {
        self.marks.as_ref()
    }

    /// Tells whether no coin is to be thrown now, since the candidate has as much as it may have.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.admission.as_ref().is_some_and(|admission| admission.is_full(micros_since(self.origin, now)))
    }

    /// The part of the candidate's requests that it is to have now, of so many; `None`: all of them.
    pub(crate) fn cold(&self) -> Option<(u16, u16)> {
        Some((self.while_cold()?.shares.candidate, self.shares.candidate))
    }

    fn while_cold(&self) -> Option<&Rc<Self>> {
        self.cold.as_ref().filter(|cold| cold.admission.as_ref().is_some_and(|admission| admission.is_cold()))
    }

    /// The arm that a release is.
    pub(crate) fn side(&self, revision: Revision) -> Option<Side> {
        match revision {
            candidate if candidate == self.trial.candidate => Some(Side::Candidate),
            stable if Some(stable) == self.trial.stable => Some(Side::Stable),
            _ => None,
        }
    }

    /// Counts a request that is given to a release now, where it is part of the trial: one that chance gave to it, or to
    /// a candidate without a share any that reaches it. `is_cold`: the coin was the one of a cold candidate, where it is one.
    pub(crate) fn assign(
        self: &Rc<Self>,
        side: Side,
        audience: Audience,
        user: Option<User>,
        is_cold: bool,
        now: Instant,
    ) -> Option<Assigned> {
        let is_part = match audience {
            // One without a key was given its release by a coin of its own.
            Audience::Users => self.split != Split::Sticky || user.is_some(),
            Audience::Pinned => side == Side::Candidate && self.shares.candidate == 0,
            Audience::Preview => false,
        };
        if !is_part {
            return None;
        }
        let trying = self.while_cold().filter(|_| is_cold && audience == Audience::Users).unwrap_or(self);
        let slot = trying.slots.borrow_mut().assign(side, micros_since(trying.origin, now));
        if let (Side::Candidate, Audience::Users, Some(admission)) = (side, audience, &trying.admission) {
            admission.enter(slot);
        }
        Some(Assigned { trying: trying.clone(), slot, side, user, started: now })
    }
}

impl Assigned {
    /// Counts how the request has ended.
    pub(crate) fn settle(&self, ended: Ended, now: Instant) {
        let age_us = micros_since(self.started, now);
        self.trying.slots.borrow_mut().settle(self.slot, self.side, ended, age_us, self.fresh());
        if let (Side::Candidate, Some(admission)) = (self.side, &self.trying.admission) {
            admission.leave(self.slot, ended, age_us);
        }
    }

    /// The user, unless they were counted already.
    fn fresh(&self) -> Option<u64> {
        self.user.filter(|user| !user.is_counted).map(|user| user.hash)
    }

    /// What `Set-Cookie` says to a user whose failure is counted now, where they bring cookies.
    pub(crate) fn mark(&self) -> Option<HeaderValue> {
        let (hash, jar) = (self.fresh()?, self.user?.jar?);
        self.trying.marks.as_ref()?.cookie(hash, jar)
    }

    /// The same when its end is seen only now.
    pub(crate) fn left(&self) {
        self.settle(Ended::Left, Instant::now());
    }
}

/// One worker's counters of all trials.
#[derive(Default)]
pub(crate) struct Trials {
    epochs: BTreeMap<ServiceName, Vec<Rc<Trying>>>,
    /// This worker's part of the first places at a fresh candidate.
    places: u64,
}

/// What one worker found to be final of an epoch.
pub(crate) struct Found {
    service: ServiceName,
    rollout: RolloutId,
    group: Group,
    failures: Vec<Failure>,
}

impl Trials {
    /// Those of a worker with so many of the first places at a fresh candidate.
    pub(crate) fn new(places: u64) -> Self {
        Self { epochs: BTreeMap::new(), places }
    }

    /// The counters for a service as a table has it: those of the table before, when nothing of it has changed.
    pub(crate) fn of(&mut self, service: &ServiceRoutes, generation: Generation) -> Option<Rc<Trying>> {
        let trial = service.trial.as_ref()?;
        let weight = |revision: Option<Revision>| revision.map_or(0, |revision| service.weight_of(revision).get());
        let shares = Shares { candidate: weight(Some(trial.candidate)), stable: weight(trial.stable) };
        let split = match (shares.weight(), &service.sticky) {
            (None, _) => Split::Alone,
            (Some(_), None) => Split::Coin,
            (Some(_), Some(_)) => Split::Sticky,
        };
        let epochs = self.epochs.entry(service.service.clone()).or_default();
        let is_same = |known: &&Rc<Trying>| known.trial == *trial && known.shares == shares && known.split == split;
        if let Some(known) = epochs.last().filter(|known| known.ended.get().is_none()).filter(is_same) {
            return Some(known.clone());
        }
        let (origin, now) = (*ORIGIN, Instant::now());
        let now_us = micros_since(origin, now);
        epochs.iter().for_each(|epoch| epoch.end(now_us));
        let slots = || RefCell::new(Slots::new(trial.inquiry.clone(), now_us));
        let marks = (split == Split::Sticky).then(|| Marks::new(service.service.clone(), trial.rollout));
        // A step that leaves the shares as they are lets in as many as the one before.
        let is_same_share = |known: &&Rc<Trying>| known.trial.rollout == trial.rollout && known.shares == shares;
        let known = epochs.last().filter(is_same_share).and_then(|known| known.admission.clone());
        let fresh = || Rc::new(Admission::new(self.places, &trial.inquiry, now_us));
        let admission = (split == Split::Coin).then(|| known.unwrap_or_else(fresh));
        let begins_cold = shares.candidate > COLD && admission.as_ref().is_some_and(|admission| admission.is_cold());
        let cold = begins_cold.then(|| {
            let shares = Shares { candidate: COLD, stable: shares.stable + shares.candidate - COLD };
            let (trial, admission, ended) = (trial.clone(), admission.clone(), Cell::new(None));
            let (epoch, slots) = (2 * generation.0, slots());
            Rc::new(Trying { trial, epoch, shares, split, origin, slots, marks: None, admission, cold: None, ended })
        });
        epochs.extend(cold.clone());
        let (trial, slots, ended) = (trial.clone(), slots(), Cell::new(None));
        let epoch = 2 * generation.0 + 1;
        let fresh = Rc::new(Trying { trial, epoch, shares, split, origin, slots, marks, admission, cold, ended });
        epochs.push(fresh.clone());
        Some(fresh)
    }

    /// Takes note that only these services have a trial.
    pub(crate) fn keep(&mut self, is_tried: impl Fn(&ServiceName) -> bool) {
        let now_us = micros_since(*ORIGIN, Instant::now());
        for (_, epochs) in self.epochs.iter().filter(|(service, _)| !is_tried(service)) {
            epochs.iter().for_each(|epoch| epoch.end(now_us));
        }
    }

    /// Takes what has become final at a moment.
    pub(crate) fn reveal(&mut self, at: Instant) -> Vec<Found> {
        let mut found = Vec::new();
        self.epochs.retain(|service, epochs| {
            epochs.retain(|epoch| {
                epoch.admission.iter().for_each(|admission| admission.look(micros_since(epoch.origin, at)));
                let mut slots = epoch.slots.borrow_mut();
                if let Some((answers, times, failures)) = slots.reveal(micros_since(epoch.origin, at)) {
                    let Trying { epoch: number, shares, split, trial, .. } = &**epoch;
                    let group = Group { epoch: *number, shares: *shares, split: *split, answers, times };
                    found.push(Found { service: service.clone(), rollout: trial.rollout, group, failures });
                }
                epoch.ended.get().is_none_or(|ended_us| !slots.is_empty_after(ended_us))
            });
            !epochs.is_empty()
        });
        found
    }
}

impl Trying {
    fn end(&self, now_us: u64) {
        if self.ended.get().is_none() {
            self.ended.set(Some(now_us));
        }
    }
}

/// What has become final of every rollout, until the controller has it in its store.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    logs: BTreeMap<(ServiceName, RolloutId), Log>,
    /// When it was revealed last.
    revealed: Option<Instant>,
}

#[derive(Debug, Default)]
struct Log {
    sequence: u64,
    reveals: VecDeque<Reveal>,
    /// Users whose first failure was counted.
    users: HashSet<u64>,
    /// When the last of it came.
    newest: Option<Instant>,
}

impl Logs {
    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Whether nobody has revealed for so long.
    pub(crate) fn is_stale(&self, now: Instant, after: Duration) -> bool {
        self.revealed.is_none_or(|revealed| now.saturating_duration_since(revealed) >= after)
    }

    /// Adds what the workers found at one moment, and shows what has come of it; tells whether anything has.
    pub(crate) fn add(
        &mut self,
        boot: u64,
        at: Instant,
        workers: impl IntoIterator<Item = Vec<Found>>,
        mut show: impl FnMut(&ServiceName, RolloutId, &Reveal),
    ) -> bool {
        self.revealed = Some(at);
        let mut sums: BTreeMap<(ServiceName, RolloutId), Vec<Found>> = BTreeMap::new();
        for found in workers.into_iter().flatten() {
            let sums = sums.entry((found.service.clone(), found.rollout)).or_default();
            match sums.iter_mut().find(|known| known.group.epoch == found.group.epoch) {
                Some(known) => {
                    known.group.merge(found.group.answers, found.group.times);
                    known.failures.extend(found.failures);
                }
                None => sums.push(found),
            }
        }
        let slot = micros_since(*ORIGIN, at) / SLOT_US;
        let is_new = !sums.is_empty();
        for (key, mut sums) in sums {
            let (service, rollout) = key.clone();
            let log = self.logs.entry(key).or_default();
            sums.sort_by_key(|found| found.group.epoch);
            log.sequence += 1;
            log.newest = Some(at);
            let groups = sums.into_iter().map(|found| log.with_first_failures(found.group, &found.failures)).collect();
            let reveal = Reveal { boot, sequence: log.sequence, slot, groups };
            show(&service, rollout, &reveal);
            log.reveals.push_back(reveal);
            if log.reveals.len() > REVEALS_KEPT {
                log.reveals.pop_front();
            }
        }
        self.logs
            .retain(|_, log| log.newest.is_some_and(|newest| at.saturating_duration_since(newest) < TRIAL_REMEMBERED));
        is_new
    }

    /// What the controller has not heard of; forgets what it has in its store.
    pub(crate) fn report(&mut self, boot: u64, heard: &[Heard]) -> Vec<TrialReport> {
        let mut reports = Vec::new();
        for ((service, rollout), log) in &mut self.logs {
            let is_ours = |heard: &&Heard| heard.service == *service && heard.rollout == *rollout && heard.boot == boot;
            let (heard, kept) = heard.iter().find(is_ours).map_or((0, 0), |heard| (heard.heard, heard.kept));
            while log.reveals.front().is_some_and(|reveal| reveal.sequence <= kept) {
                log.reveals.pop_front();
            }
            let fresh = log.reveals.iter().filter(|reveal| reveal.sequence > heard);
            let reveals: Vec<Reveal> = fresh.take(REVEALS_AT_ONCE).cloned().collect();
            if !reveals.is_empty() {
                reports.push(TrialReport { service: service.clone(), rollout: *rollout, reveals });
            }
        }
        reports
    }
}

fn is_of(answers: &Answers, failure: &Failure) -> bool {
    answers.question == failure.question && answers.slot == failure.slot
}

impl Log {
    /// Counts each user that failed once, however many requests of theirs do.
    fn with_first_failures(&mut self, mut group: Group, failures: &[Failure]) -> Group {
        for failure in failures {
            let is_first = self.users.len() < FIRST_FAILURES_MAX && self.users.insert(failure.user);
            if !is_first {
                continue;
            }
            if let Some(found) = group.answers.iter_mut().find(|found| is_of(found, failure)) {
                found.firsts[failure.side as usize] += 1;
            }
        }
        group
    }
}
