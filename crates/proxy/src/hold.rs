//! Requests that wait while their service is in maintenance: a bounded number, each for a bounded time.
//!
//! They wait before a release is chosen, so they are part of no figure that releases are judged by. When they may go they
//! are routed by the table in force at that moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evenkeel_core::ids::{ServiceName, Timestamp};
use evenkeel_core::maintenance::Maintenance;
use evenkeel_core::table::RoutingTable;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::HELD_MAX;
use crate::refusal::Refusal;
use crate::worker::Worker;

/// One service's maintenance, as one worker keeps it.
pub(crate) struct Hold {
    /// When it is over; in the past once it has been ended.
    ends: Cell<Instant>,
    wait: Cell<Duration>,
    waiting: Cell<usize>,
    changed: Notify,
}

/// A request that waits, counted for as long as this lives.
struct Place<'a>(&'a Hold);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Hold {
    fn new(now: Instant) -> Self {
        Self { ends: Cell::new(now), wait: Cell::default(), waiting: Cell::default(), changed: Notify::new() }
    }

    fn set(&self, ends: Instant, wait: Duration) {
        self.ends.set(ends);
        self.wait.set(wait);
        self.changed.notify_waiters();
    }

    /// Tells whether requests wait.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        now < self.ends.get()
    }

    /// Waits until requests may go.
    ///
    /// # Errors
    /// Too many wait, this one has waited as long as it may, or the proxy ends.
    pub(crate) async fn wait(&self, worker: &Worker) -> Result<(), Refusal> {
        if self.waiting.get() >= HELD_MAX {
            return Err(self.refusal());
        }
        self.waiting.set(self.waiting.get() + 1);
        let _place = Place(self);
        let by = worker.clock.exact() + self.wait.get();
        while self.is_on(worker.clock.exact()) {
            if worker.is_stopping() || worker.clock.coarse() >= by {
                return Err(self.refusal());
            }
            // Nothing comes between the look above and this: one thread does both.
            let _ = tokio::time::timeout_at(by.min(self.ends.get()), self.changed.notified()).await;
        }
        Ok(())
    }

    fn refusal(&self) -> Refusal {
        Refusal::maintenance(self.ends.get().saturating_duration_since(Instant::now()))
    }
}

/// What a worker knows of maintenance.
#[derive(Default)]
pub(crate) struct Holds(RefCell<BTreeMap<ServiceName, Rc<Hold>>>);

impl Holds {
    /// Has requests wait as a table says, and lets all others go.
    pub(crate) fn apply(&self, table: &RoutingTable, now: Instant) {
        let mut holds = self.0.borrow_mut();
        for (service, hold) in &*holds {
            if !table.services.iter().any(|routes| routes.service == *service && routes.edge.maintenance.is_some()) {
                hold.set(now, Duration::ZERO);
            }
        }
        holds.retain(|_, hold| hold.is_on(now));
        for routes in &table.services {
            let Some((left, wait)) = routes.edge.maintenance.as_ref().and_then(left) else { continue };
            let hold = holds.entry(routes.service.clone()).or_insert_with(|| Rc::new(Hold::new(now)));
            hold.set(now + left, wait);
        }
    }

    /// The maintenance of a service.
    pub(crate) fn of(&self, service: &ServiceName) -> Option<Rc<Hold>> {
        self.0.borrow().get(service).cloned()
    }

    /// Tells whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    /// Has everyone who waits look again.
    pub(crate) fn wake(&self) {
        self.0.borrow().values().for_each(|hold| hold.changed.notify_waiters());
    }
}

/// How long it goes on, and how long a request waits; `None` when it is over.
fn left(maintenance: &Maintenance) -> Option<(Duration, Duration)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a table says by the wall clock when it is over, also after a restart"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    maintenance.is_on(now).then(|| (maintenance.until.since(now), Duration::from_millis(maintenance.wait_ms)))
}
