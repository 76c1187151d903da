//! What releases depend on: has it served, and knows what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::breaker::{Change, State};
use evenkeel_core::dependency::{EgressReport, Endpoint, EndpointStatus};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::ports::{PlatformError, Workloads};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::run::Found;
use crate::status::BreakerTold;

/// How often it is asked what became of them.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of dependencies.
#[derive(Debug, Default)]
pub(crate) struct Depending {
    report: EgressReport,
    by_service: BTreeMap<ServiceName, Vec<EndpointStatus>>,
    is_new: bool,
}

impl Depending {
    /// Takes what was told: whether it is news, and what breakers have done meanwhile.
    pub(crate) fn take(&mut self, report: Option<EgressReport>) -> (bool, Vec<BreakerTold>) {
        let report = report.unwrap_or_default();
        if report == self.report {
            return (false, Vec::new());
        }
        let before = |endpoint: &EndpointStatus| self.report.endpoints.iter().find(|known| known.key == endpoint.key);
        let told: Vec<BreakerTold> =
            report.endpoints.iter().flat_map(|endpoint| changes(endpoint, before(endpoint))).collect();
        told.iter().for_each(log);
        self.by_service.clear();
        for endpoint in &report.endpoints {
            self.by_service.entry(endpoint.key.service.clone()).or_default().push(endpoint.clone());
        }
        self.report = report;
        self.is_new = true;
        (true, told)
    }

    /// What became of what a service's releases depend on.
    pub(crate) fn of(&self, service: &ServiceName) -> &[EndpointStatus] {
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    /// What people should see to.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &String> {
        self.report.warnings.iter()
    }

    /// What became of them, when that differs from what was shown.
    pub(crate) fn news(&mut self) -> Option<Arc<[EndpointStatus]>> {
        std::mem::take(&mut self.is_new).then(|| self.report.endpoints.clone().into())
    }
}

/// What the breakers of an endpoint have done since it was looked at. Of one that is seen for the first time, how it came not
/// to be closed: what was before that, somebody else has told.
fn changes(endpoint: &EndpointStatus, before: Option<&EndpointStatus>) -> Vec<BreakerTold> {
    let mut told = Vec::new();
    for (place, breaker) in endpoint.breakers.iter().enumerate() {
        let news = match before.and_then(|before| before.breakers.get(place)) {
            Some(known) => newer(&breaker.changes, known.changes.last()),
            None if breaker.state != State::Closed => breaker.changes.last().map_or(&[][..], std::slice::from_ref),
            None => &[],
        };
        let (key, at) = (&endpoint.key, &breaker.at);
        told.extend(news.iter().map(|change| BreakerTold {
            key: key.clone(),
            at: at.clone(),
            place,
            change: change.clone(),
        }));
    }
    told
}

/// Those behind the one that is known; all of them where that is among those no more.
fn newer<'a>(changes: &'a [Change], known: Option<&Change>) -> &'a [Change] {
    let from = known.and_then(|known| changes.iter().rposition(|change| change == known)).map_or(0, |at| at + 1);
    &changes[from..]
}

fn log(told: &BreakerTold) {
    let (dependency, at, why, state) = (&told.key, &told.at, &told.change.why, &told.change.to);
    match told.change.to {
        State::Open { .. } => warn!(%dependency, at, %why, "breaker opened"),
        State::HalfOpen { .. } | State::Closed => info!(%dependency, at, %why, %state, "breaker"),
    }
}

/// Has what is wanted served, whenever that changes and again and again, and tells what became of it.
pub(crate) async fn keep<W: Workloads>(
    workloads: Arc<W>,
    mut endpoints: watch::Receiver<Vec<Endpoint>>,
    found: mpsc::UnboundedSender<Found>,
) {
    let mut is_served = false;
    loop {
        let wanted = endpoints.borrow_and_update().clone();
        if wanted.is_empty() && !is_served {
            match endpoints.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        let is_nothing = wanted.is_empty();
        let answer = workloads.depend(wanted).await;
        is_served = !is_nothing || answer.is_err();
        let superseded = matches!(answer, Err(PlatformError::Superseded(_)));
        let _ = match answer {
            Err(gone) if superseded => found.send(Found::Superseded(gone)),
            answer => found.send(Found::Depending(answer)),
        };
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, endpoints.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::breaker::{Breaker, Outcome, Policy};
    use evenkeel_core::dependency::{BreakerStatus, EndpointKey, Kind};
    use evenkeel_core::ids::{Revision, Timestamp};

    /// A report about one breaker with these changes.
    fn report(breaker: &Breaker, changes: &[Change]) -> Option<EgressReport> {
        let breaker = BreakerStatus::of(breaker, "api.example.com".into(), changes.to_vec(), Timestamp(0));
        let service = ServiceName::new("web").expect("a name");
        let key = EndpointKey { service, revision: Revision(1), name: "api".into() };
        let endpoint = EndpointStatus::new(key, Kind::Http, Timestamp(0), vec![breaker]);
        Some(EgressReport { endpoints: vec![endpoint], ..EgressReport::default() })
    }

    #[test]
    fn each_change_of_a_breaker_is_told_once_also_of_one_that_opens_and_closes_between_two_looks() {
        let mut breaker = Breaker::new(Policy::api(), 1);
        let mut known = Depending::default();
        assert_eq!(known.take(report(&breaker, &[])).1, []);
        let (mut now, mut changes) = (Timestamp(1_000_000), Vec::new());
        for _ in 0..5 {
            let permit = breaker.admit(now).unwrap();
            breaker.settle(permit, Outcome::Failure { took: Duration::ZERO }, now);
        }
        now = now.after(Duration::from_secs(100));
        for _ in 0..2 {
            let permit = breaker.admit(now).unwrap();
            breaker.settle(permit, Outcome::Success { took: Duration::ZERO }, now);
        }
        changes.extend(breaker.take_changes());
        let (is_news, told) = known.take(report(&breaker, &changes));
        let states: Vec<String> = told.iter().map(|told| told.change.to.to_string()).collect();
        assert_eq!((is_news, states.join(" ").as_str()), (true, "open half-open closed"));
        assert_eq!(known.take(report(&breaker, &changes)), (false, vec![]));
        // Those that are shown are bounded: the oldest are gone, and what is new is still told once.
        breaker.set_mode(evenkeel_core::breaker::Mode::Automatic, now);
        changes.drain(..2);
        assert_eq!(known.take(report(&breaker, &changes)).1, []);
    }

    #[test]
    fn of_a_breaker_that_was_open_before_the_controller_came_its_opening_alone_is_told() {
        let mut breaker = Breaker::new(Policy::api(), 1);
        for _ in 0..5 {
            let permit = breaker.admit(Timestamp(7)).unwrap();
            breaker.settle(permit, Outcome::Failure { took: Duration::ZERO }, Timestamp(7));
        }
        let changes = breaker.take_changes();
        let (_, told) = Depending::default().take(report(&breaker, &changes));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].place, &told[0].change), (0, &changes[0]));
    }
}
