//! What replicas call: a database that fails for everybody for a while, and that some releases do not find.
//!
//! Each release has a breaker of its own, which is core's; pings are all that is counted, so that it needs no users.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::breaker::{Breaker, Change, Outcome, Policy};
use evenkeel_core::dependency::{BreakerStatus, Dependency, EgressReport, Endpoint, EndpointKey, EndpointStatus, Kind};
use evenkeel_core::ids::{Revision, ServiceName, Timestamp};

/// Between two pings, and between those of a database that does not answer.
const PING: Duration = Duration::from_secs(1);
const SOONER: Duration = Duration::from_millis(200);
/// Changes of a breaker that are shown, as the real process does.
const CHANGES_KEPT: usize = 16;

/// A database, and the breakers before it.
#[derive(Default)]
pub(crate) struct Egress {
    served: BTreeMap<EndpointKey, Served>,
    /// Releases whose address of it is wrong, and those whose address is right.
    astray: BTreeMap<(ServiceName, Revision), bool>,
    pub(crate) down_until: Timestamp,
}

struct Served {
    breaker: Breaker,
    changes: Vec<Change>,
    since: Timestamp,
    next: Timestamp,
    is_astray: bool,
}

/// What a service depends on where it depends on something.
pub(crate) fn database() -> Dependency {
    let (open, open_limit) = (Duration::from_secs(2), Duration::from_secs(4));
    let breaker = Policy { open, open_limit, jitter_percent: 0, ..Policy::database() };
    Dependency { breaker, ..Dependency::new(Kind::Redis, "redis://database") }
}

impl Egress {
    /// Whether it is known where a release looks for its database.
    pub(crate) fn knows(&self, key: &EndpointKey) -> bool {
        self.astray.contains_key(&(key.service.clone(), key.revision))
    }

    /// Says whether a release looks for its database where there is none.
    pub(crate) fn place(&mut self, key: &EndpointKey, is_astray: bool) {
        self.astray.insert((key.service.clone(), key.revision), is_astray);
    }

    /// Whether a release never reaches its database.
    pub(crate) fn is_astray(&self, service: &ServiceName, revision: Revision) -> bool {
        self.astray.get(&(service.clone(), revision)).copied().unwrap_or(false)
    }

    /// Serves these endpoints and no others; what became of them.
    pub(crate) fn serve(&mut self, endpoints: &[Endpoint], now: Timestamp) -> EgressReport {
        self.served.retain(|key, _| endpoints.iter().any(|endpoint| endpoint.key == *key));
        for Endpoint { key, dependency, .. } in endpoints {
            let is_astray = self.is_astray(&key.service, key.revision);
            self.served.entry(key.clone()).or_insert_with(|| Served {
                breaker: Breaker::new(dependency.breaker.clone(), 1),
                changes: Vec::new(),
                since: now,
                next: now,
                is_astray,
            });
        }
        EgressReport {
            endpoints: self.served.iter().map(|served| status(served, now)).collect(),
            ..EgressReport::default()
        }
    }

    /// What the passing of time brings.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        for served in self.served.values_mut() {
            while served.next <= now {
                let at = served.next;
                let is_well = !served.is_astray && at >= self.down_until;
                served.ping(is_well, at);
            }
        }
    }
}

impl Served {
    fn ping(&mut self, is_well: bool, at: Timestamp) {
        if let Ok(permit) = self.breaker.admit(at) {
            let took = Duration::ZERO;
            let outcome = if is_well { Outcome::Success { took } } else { Outcome::Failure { took } };
            self.breaker.settle(permit, outcome, at);
        }
        self.changes.extend(self.breaker.take_changes());
        self.changes.drain(..self.changes.len().saturating_sub(CHANGES_KEPT));
        self.next = at.after(if is_well { PING } else { SOONER });
    }
}

fn status((key, served): (&EndpointKey, &Served), now: Timestamp) -> EndpointStatus {
    let breaker = BreakerStatus::of(&served.breaker, "database".into(), served.changes.clone(), now);
    EndpointStatus::new(key.clone(), Kind::Redis, served.since, vec![breaker])
}
