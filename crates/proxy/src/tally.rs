//! What is counted, per worker and without locks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_analysis::slots::Ended;
use evenkeel_analysis::{Answers, Counts, Histogram, Method, Outcome};
use evenkeel_core::ids::{Revision, ServiceName};
use evenkeel_wire::proxy::ReleaseReport;
use http::HeaderValue;
use tokio::time::Instant;

use crate::limits::RELEASES_KEPT;
use crate::trial::Assigned;

/// One worker's counters of one release.
#[derive(Debug, Default)]
pub(crate) struct ReleaseCounts {
    users: RefCell<Counts>,
    /// What `users` has counted, by method and exact status.
    answers: RefCell<Answers>,
    preview: RefCell<Counts>,
    shielded: Cell<u64>,
    pinned: RefCell<Counts>,
    mirrored: RefCell<Counts>,
    mirror_dropped: Cell<u64>,
    /// Copies to it that are under way.
    pub(crate) copies: Cell<usize>,
}

impl ReleaseCounts {
    /// Counts how a copy went.
    pub(crate) fn count_copy(&self, outcome: Outcome, took: Duration) {
        self.mirrored.borrow_mut().record(outcome, micros(took));
    }

    /// Counts a copy that was not sent.
    pub(crate) fn drop_copy(&self) {
        self.mirror_dropped.set(self.mirror_dropped.get() + 1);
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A user; the coin chose the release, or what their share sticks to.
    Users,
    /// A user whom a pin sent there: no chance decided.
    Pinned,
    /// Somebody who asked for this release; says nothing about users.
    Preview,
}

/// One worker's counters of all releases; they outlive their release's place in the table.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<ServiceName, BTreeMap<Revision, Rc<ReleaseCounts>>>);

impl Ledger {
    /// The counters of a release, begun at zero the first time.
    pub(crate) fn release(&mut self, service: &ServiceName, revision: Revision) -> Rc<ReleaseCounts> {
        self.0.entry(service.clone()).or_default().entry(revision).or_default().clone()
    }

    /// Looks at how long a release's answers to users took, where any were counted.
    pub(crate) fn with_latency(&self, service: &ServiceName, revision: Revision, look: impl FnOnce(&Histogram)) {
        if let Some(counts) = self.0.get(service).and_then(|releases| releases.get(&revision)) {
            look(&counts.users.borrow().latency);
        }
    }

    /// Forgets the oldest releases that nobody holds, where a service has too many.
    pub(crate) fn forget_old(&mut self) {
        for releases in self.0.values_mut() {
            let mut surplus = releases.len().saturating_sub(RELEASES_KEPT);
            releases.retain(|_, counts| {
                let drop = surplus > 0 && Rc::strong_count(counts) == 1;
                surplus -= usize::from(drop);
                !drop
            });
        }
    }

    /// Every release that had a request.
    pub(crate) fn report(&self) -> Vec<ReleaseReport> {
        let all = self.0.iter().flat_map(|(service, releases)| releases.iter().map(move |(r, c)| (service, *r, c)));
        let reports = all.map(|(service, revision, counts)| ReleaseReport {
            counts: counts.users.borrow().clone(),
            answers: counts.answers.borrow().clone(),
            preview: counts.preview.borrow().clone(),
            shielded: counts.shielded.get(),
            pinned: counts.pinned.borrow().clone(),
            mirrored: counts.mirrored.borrow().clone(),
            mirror_dropped: counts.mirror_dropped.get(),
            service: service.clone(),
            revision,
        });
        reports.filter(|release| !release.is_empty()).collect()
    }
}

/// Owes its release the outcome of one request. Dropped without one, the client has gone.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: Rc<ReleaseCounts>,
    audience: Audience,
    method: Method,
    started: Instant,
    settled: Cell<Option<Outcome>>,
    /// Present where it is part of a trial.
    assigned: Option<Assigned>,
}

impl Tally {
    pub(crate) fn begin(counts: Rc<ReleaseCounts>, audience: Audience, method: Method, started: Instant) -> Self {
        Self { counts, audience, method, started, settled: Cell::new(None), assigned: None }
    }

    /// The same, where the request is counted in a trial as well.
    pub(crate) fn on_trial(mut self, assigned: Option<Assigned>) -> Self {
        self.assigned = assigned;
        self
    }

    /// Counts the outcome, seen at `now`; only the first one counts.
    pub(crate) fn settle(&self, outcome: Outcome, now: Instant) {
        if self.settled.get().is_none() {
            self.settled.set(Some(outcome));
            self.record(outcome, now.saturating_duration_since(self.started));
            if let Some(assigned) = &self.assigned {
                assigned.settle(ended(outcome), now);
            }
        }
    }

    /// What `Set-Cookie` says to a user whose first failure this is.
    pub(crate) fn mark(&self) -> Option<HeaderValue> {
        let outcome = self.settled.get().map(ended)?;
        let has_failed = matches!(outcome, Ended::Failed | Ended::Unanswered);
        self.assigned.as_ref().filter(|_| has_failed)?.mark()
    }

    /// Takes note that the stable release has answered what the one that owes the outcome failed.
    pub(crate) fn shielded(&self) {
        // What this machine lacked was no failure.
        if self.settled.get() != Some(Outcome::ClientGone) {
            self.counts.shielded.set(self.counts.shielded.get() + 1);
        }
    }

    fn record(&self, outcome: Outcome, took: Duration) {
        let counts = match self.audience {
            Audience::Users => {
                self.counts.answers.borrow_mut().record(self.method, outcome);
                &self.counts.users
            }
            Audience::Pinned => &self.counts.pinned,
            Audience::Preview => &self.counts.preview,
        };
        counts.borrow_mut().record(outcome, micros(took));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.settled.get().is_none() {
            self.record(Outcome::ClientGone, Duration::ZERO);
            if let Some(assigned) = &self.assigned {
                assigned.left();
            }
        }
    }
}

/// What an outcome that was seen says on trial. A client that went away is not seen: the request is dropped.
pub(crate) fn ended(outcome: Outcome) -> Ended {
    match outcome {
        Outcome::Answered(status) if status < 500 => Ended::Well,
        Outcome::Answered(_) => Ended::Failed,
        Outcome::NoAnswer => Ended::Unanswered,
        Outcome::ClientGone => Ended::Void,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_releases_are_forgotten_only_when_nobody_holds_them() {
        let mut ledger = Ledger::default();
        let web = ServiceName::new("web").unwrap();
        let held = ledger.release(&web, Revision(1));
        for revision in 2..100 {
            Tally::begin(ledger.release(&web, Revision(revision)), Audience::Users, Method::Get, Instant::now());
        }
        Tally::begin(held.clone(), Audience::Preview, Method::Get, Instant::now());
        ledger.forget_old();
        let kept: Vec<u32> = ledger.report().iter().map(|r| r.revision.0).collect();
        assert_eq!((kept.len(), kept[0], kept[1]), (RELEASES_KEPT, 1, 37));
    }

    #[test]
    fn a_request_counts_once() {
        let counts = Rc::new(ReleaseCounts::default());
        let tally = Tally::begin(counts.clone(), Audience::Users, Method::Get, Instant::now());
        tally.settle(Outcome::NoAnswer, Instant::now());
        tally.settle(Outcome::Answered(200), Instant::now());
        drop(tally);
        assert_eq!(counts.answers.borrow().iter().collect::<Vec<_>>(), [("none".to_owned(), Method::Get, 1)]);
        let counts = counts.users.borrow();
        assert_eq!((counts.requests(), counts.no_answer, counts.client_gone), (1, 1, 0));
    }
}
