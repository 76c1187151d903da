//! What releases depend on: has it served, and knows what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::breaker::State;
use evenkeel_core::dependency::{EgressReport, Endpoint, EndpointStatus};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::ports::{PlatformError, Workloads};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::run::Found;

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
    /// Takes what was told; whether it is news.
    pub(crate) fn take(&mut self, report: Option<EgressReport>) -> bool {
        let report = report.unwrap_or_default();
        if report == self.report {
            return false;
        }
        for endpoint in &report.endpoints {
            let before = self.report.endpoints.iter().find(|known| known.key == endpoint.key);
            tell(endpoint, before);
        }
        self.by_service.clear();
        for endpoint in &report.endpoints {
            self.by_service.entry(endpoint.key.service.clone()).or_default().push(endpoint.clone());
        }
        self.report = report;
        self.is_new = true;
        true
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

/// Writes into the log which breakers have changed. Those that open and close between two looks are in egress' own log.
fn tell(endpoint: &EndpointStatus, before: Option<&EndpointStatus>) {
    for (index, breaker) in endpoint.breakers.iter().enumerate() {
        let known = before.and_then(|before| before.breakers.get(index)).map(|known| known.state);
        let Some(change) = breaker.changes.last().filter(|_| known != Some(breaker.state)) else { continue };
        let (dependency, at, why) = (&endpoint.key, &breaker.at, &change.why);
        match breaker.state {
            State::Open { .. } => warn!(%dependency, at, %why, "breaker opened"),
            State::HalfOpen { .. } | State::Closed => info!(%dependency, at, %why, state = %breaker.state, "breaker"),
        }
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
