//! One breaker that many tasks share, and the right to make one call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::breaker::{Breaker, Change, Mode, Outcome, Permit, Policy, Refused, State};
use evenkeel_core::dependency::BreakerStatus;
use evenkeel_core::ids::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::Clock;

/// Changes that are kept to be shown.
const CHANGES_KEPT: usize = 16;

/// The breaker of one place.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Whose it is and which place it guards, for people.
    name: String,
    at: String,
    clock: Clock,
    inner: Mutex<Inner>,
    /// Whether calls are refused, for those that wait for a change.
    open: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    changes: VecDeque<Change>,
}

impl Guard {
    pub(crate) fn new(name: String, at: String, policy: Policy, clock: Clock) -> Arc<Self> {
        let breaker = Breaker::new(policy, fastrand::u64(..));
        let inner = Mutex::new(Inner { breaker, changes: VecDeque::new() });
        Arc::new(Self { name, at, clock, inner, open: watch::Sender::new(false) })
    }

    /// Asks for one call.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Ticket, Refused> {
        let began = self.clock.now();
        let permit = self.with(|breaker| breaker.admit(began))?;
        Ok(Ticket { guard: self.clone(), permit: Some(permit), last: permit, began })
    }

    /// Asks for one call that shall not be a probe.
    pub(crate) fn admit_while_well(self: &Arc<Self>) -> Result<Ticket, Refused> {
        let state = { self.lock().breaker.state() };
        match state {
            State::HalfOpen { .. } => Err(Refused::Probing { until: self.clock.now() }),
            State::Open { until } if self.clock.now() >= until => Err(Refused::Open { until }),
            State::Closed | State::Open { .. } => self.admit(),
        }
    }

    /// Whether probes are to be sent.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.lock().breaker.state(), State::HalfOpen { .. })
    }

    /// Does what an operator wants.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.with(|breaker| breaker.set_mode(mode, self.clock.now()));
    }

    /// Whether calls are refused at this moment.
    #[cfg(test)]
    fn is_refusing(&self) -> bool {
        self.lock().breaker.is_refusing(self.clock.now())
    }

    /// How long a caller should wait, where that can be told.
    pub(crate) fn retry_after(&self, refused: Refused) -> Option<Duration> {
        refused.retry_after(self.clock.now())
    }

    /// The moment from which an open breaker lets probes through; `None` while it is not open.
    pub(crate) fn opens_until(&self) -> Option<Duration> {
        match self.lock().breaker.state() {
            State::Open { until } => Some(until.since(self.clock.now())),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Tells when it opens and when it closes.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    /// Everything there is to show.
    pub(crate) fn status(&self) -> BreakerStatus {
        let now = self.clock.now();
        let inner = self.lock();
        let changes = inner.changes.iter().cloned().collect();
        BreakerStatus::of(&inner.breaker, self.at.clone(), changes, now)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut inner = self.lock();
        let answer = ask(&mut inner.breaker);
        let changes = inner.breaker.take_changes();
        if !changes.is_empty() {
            self.tell(&mut inner, changes);
        }
        answer
    }

    fn tell(&self, inner: &mut Inner, changes: Vec<Change>) {
        for change in changes {
            let (dependency, at, why) = (&self.name, &self.at, change.why.to_string());
            match change.to {
                State::Open { .. } => warn!(dependency, at, why, "breaker opened"),
                State::HalfOpen { .. } => info!(dependency, at, why, "breaker half-open"),
                State::Closed => info!(dependency, at, why, "breaker closed"),
            }
            if inner.changes.len() == CHANGES_KEPT {
                inner.changes.pop_front();
            }
            inner.changes.push_back(change);
        }
        let is_open = matches!(inner.breaker.state(), State::Open { .. });
        self.open.send_if_modified(|known| std::mem::replace(known, is_open) != is_open);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one call. Dropped without a word it says nothing about the dependency.
#[derive(Debug)]
pub(crate) struct Ticket {
    guard: Arc<Guard>,
    /// `None` once it was settled.
    permit: Option<Permit>,
    last: Permit,
    began: Timestamp,
}

impl Ticket {
    /// How long the call has taken so far.
    pub(crate) fn took(&self) -> Duration {
        self.guard.clock.now().since(self.began)
    }

    /// An answer has begun that may go on for long. A probe is not kept waiting for its end; any other call is settled
    /// when it is over.
    pub(crate) fn has_begun(&mut self, took: Duration) {
        let is_probe = matches!(self.guard.lock().breaker.state(), State::HalfOpen { .. });
        if is_probe {
            self.settle(Outcome::Success { took });
        }
    }

    /// It did what it was asked to; `took` is the time until its answer began.
    pub(crate) fn succeeded(mut self, took: Duration) {
        if self.permit.is_some() {
            self.settle(Outcome::Success { took });
        }
    }

    /// It says nothing so far; it may fail yet.
    pub(crate) fn goes_on(&mut self) {
        self.settle(Outcome::Neutral { cooldown: None });
    }

    /// It failed, also when it seemed well at first.
    pub(crate) fn failed(mut self) {
        let took = self.took();
        self.permit.get_or_insert(self.last);
        self.settle(Outcome::Failure { took });
    }

    /// It says nothing about the dependency, which may ask to be left alone.
    pub(crate) fn neutral(mut self, cooldown: Option<Duration>) {
        self.settle(Outcome::Neutral { cooldown });
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            let now = self.guard.clock.now();
            self.guard.with(|breaker| breaker.settle(permit, outcome, now));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle(Outcome::Neutral { cooldown: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Arc<Guard> {
        Guard::new("web/r1/api".into(), "api".into(), Policy::api(), Clock::new())
    }

    #[test]
    fn a_call_that_is_given_up_says_nothing_and_one_that_fails_late_counts() {
        let guard = guard();
        for _ in 0..20 {
            drop(guard.admit().unwrap());
        }
        assert!(!guard.is_refusing());
        for _ in 0..5 {
            let mut ticket = guard.admit().unwrap();
            ticket.has_begun(Duration::ZERO);
            ticket.failed();
        }
        assert!(guard.is_refusing() && *guard.watch().borrow());
        let counted = guard.status().counted;
        assert_eq!((counted.neutral, counted.failures, counted.opened), (20, 5, 1));
    }
}
