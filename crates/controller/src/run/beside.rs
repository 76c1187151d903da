//! What goes on beside the loop, and tells it what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_analysis::Value;
use evenkeel_core::Phase;
use evenkeel_core::check::{Call, Sighting};
use evenkeel_core::fleet::Action;
use evenkeel_core::guard::CutName;
use evenkeel_core::ids::{Revision, Timestamp};
use evenkeel_core::lease::RENEW_EVERY;
use evenkeel_core::measure::SourceError;
use evenkeel_core::ports::{
    CheckedFor, Clock, Gauge, PlatformError, Probed, Replicas, Report, Store, StoreError, Traffic, Workloads,
};
use evenkeel_core::probe::ProbeKind;
use evenkeel_core::release::Release;
use evenkeel_core::service::Effect;
use evenkeel_core::spec::{ProbeCheck, Stop};
use evenkeel_core::trial::Heard;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{AGAIN, BYTES_EVERY, Found, LISTEN_AGAIN, MEASURE_SLACK, TICK, WATCH, checked_for};
use crate::hands::Deed;
use crate::keeper::Keeper;

/// Most events that wait to be told; of what comes on top nobody is told.
const EVENTS_WAITING: usize = 100;

/// A probe to be sent.
pub(super) struct Probing {
    whom: Probed,
    kind: ProbeKind,
    probe: evenkeel_core::spec::Probe,
}

impl Probing {
    pub(super) async fn send<W: Workloads>(self, workloads: Arc<W>, found: mpsc::UnboundedSender<Found>) {
        let answer = workloads.probe(&self.whom, &self.probe.check, self.probe.timeout).await;
        let _ = found.send(Found::Probe { replica: self.whom.replica, kind: self.kind, answer });
    }
}

/// What the hands have to do for an action; a probe is sent beside them.
pub(super) fn deed(
    action: Action,
    releases: &BTreeMap<Revision, Release>,
    log_bytes_max: u64,
) -> Result<Option<Deed>, Probing> {
    match action {
        Action::Start(replica) => Ok(releases.get(&replica.revision).map(|release| Deed::Start {
            replica,
            release: Box::new(release.clone()),
            log_bytes_max,
        })),
        Action::Terminate(replica) => Ok(Some(Deed::Terminate(replica))),
        Action::Kill(replica) => {
            let stop = releases.get(&replica.revision).map_or_else(Stop::default, |release| release.content.stop);
            Ok(Some(Deed::Kill { replica, grace: stop.grace }))
        }
        Action::Forget(replica) => Ok(Some(Deed::Forget(replica))),
        Action::Probe { replica, port, kind, probe } => {
            let content = match probe.check {
                ProbeCheck::Exec { .. } => releases.get(&replica.revision).map(|r| Box::new(r.content.clone())),
                ProbeCheck::Http { .. } | ProbeCheck::Tcp { .. } | ProbeCheck::Grpc { .. } => None,
            };
            Err(Probing { whom: Probed { replica, port, content }, kind, probe })
        }
    }
}

/// Begins the smoke checks that a service's rollout asks for, once.
pub(super) fn smoke<W: Workloads + 'static>(
    keeper: &mut Keeper,
    workloads: &Arc<W>,
    found: &mpsc::UnboundedSender<Found>,
    beside: &mut tokio::task::JoinSet<()>,
) {
    let effects = keeper.service.effects();
    let wanted = effects.iter().find_map(|effect| match effect {
        Effect::Smoke { rollout, revision } => Some((*rollout, *revision)),
        Effect::Reconcile(_) => None,
    });
    let Some((rollout, revision)) = wanted.filter(|(rollout, _)| keeper.smoking != Some(*rollout)) else { return };
    let Some(current) = keeper.service.in_flight().filter(|r| matches!(r.phase, Phase::Smoking { .. })) else { return };
    let Some(step) = current.current_step() else { return };
    let (checks, ports) = (step.smoke.clone(), keeper.fleet.ready(revision));
    // A controller that has just started may not know the replicas yet; the phase has a limit of its own.
    if ports.len() < step.replicas as usize {
        return;
    }
    keeper.smoking = Some(rollout);
    let (service, workloads, found) = (keeper.service.name.clone(), workloads.clone(), found.clone());
    beside.spawn(async move {
        let mut result = Ok(());
        'all: for (replica, port) in ports {
            for check in &checks {
                let answer = workloads.smoke(port, check).await;
                if !answer.good {
                    result = Err(format!("{replica}: {}", answer.detail));
                    break 'all;
                }
            }
        }
        info!(%service, %rollout, ?result, "smoke checks ended");
        let _ = found.send(Found::Smoke { service, rollout, result });
    });
}

/// Asks the checks of a deploy that are due, each beside the loop.
pub(super) fn ask_checks<W: Workloads + 'static>(
    keeper: &mut Keeper,
    now: Timestamp,
    workloads: &Arc<W>,
    found: &mpsc::UnboundedSender<Found>,
    beside: &mut tokio::task::JoinSet<()>,
) {
    let Some(gated) = &keeper.service.gated else { return };
    let Some(release) = keeper.service.releases.get(&gated.revision) else { return };
    let about = CheckedFor {
        service: keeper.service.name.clone(),
        revision: gated.revision,
        version: release.version.clone(),
        directory: release.content.directory.clone().into(),
    };
    for check in keeper.gates.due(gated, now) {
        let (rollout, about, workloads, found) = (gated.id, about.clone(), workloads.clone(), found.clone());
        beside.spawn(async move {
            let answer = workloads.check(&check, &about).await;
            info!(service = %about.service, %rollout, check = check.name, good = answer.good, "a check has answered");
            let (service, name) = (about.service, check.name);
            let _ = found.send(Found::Check { service, rollout, name, asked: now, answer });
        });
    }
}

/// Measures what is due for the checks of the rollout in flight, each beside the loop.
pub(super) fn measure<G: Gauge + 'static, C: Clock + 'static>(
    keeper: &mut Keeper,
    now: Timestamp,
    gauge: &Arc<G>,
    clock: &Arc<C>,
    found: &mpsc::UnboundedSender<Found>,
    beside: &mut tokio::task::JoinSet<()>,
) {
    let candidate = keeper.service.in_flight().map(|rollout| rollout.candidate);
    let Some(about) = candidate.and_then(|candidate| checked_for(&keeper.service, candidate)) else { return };
    for due in keeper.measuring.due(&keeper.service, now) {
        let (about, gauge, clock, found) = (about.clone(), gauge.clone(), clock.clone(), found.clone());
        beside.spawn(async move {
            let asked = clock.now();
            // A source that keeps no time-out of its own holds up nothing but itself.
            let limit = due.check.measure.timeout + MEASURE_SLACK;
            let measured = tokio::time::timeout(limit, gauge.measure(&due.check.measure, &about, asked)).await;
            let measured = measured.unwrap_or(Err(SourceError::TimedOut { within: limit }));
            let sighting = Box::new(Sighting::of(&due, asked, &measured));
            info!(service = %about.service, check = due.check.name, phase = %sighting.said.phase, "measured");
            let _ = found.send(Found::Measured { service: about.service, sighting });
        });
    }
}

/// Asks for the listening addresses whenever they change, and again every second.
pub(super) async fn keep_listening<W: Workloads>(
    workloads: Arc<W>,
    mut addresses: watch::Receiver<BTreeSet<SocketAddr>>,
    found: mpsc::UnboundedSender<Found>,
) {
    loop {
        let wanted: Vec<SocketAddr> = addresses.borrow_and_update().iter().copied().collect();
        let answer = workloads.listen(wanted).await;
        let superseded = matches!(answer, Err(PlatformError::Superseded(_)));
        let _ = match answer {
            Err(gone) if superseded => found.send(Found::Superseded(gone)),
            answer => found.send(Found::Listening(answer)),
        };
        if let Ok(Err(_)) = tokio::time::timeout(LISTEN_AGAIN, addresses.changed()).await {
            return;
        }
    }
}

/// Gives signs of life in the store, as long as nobody else has taken over.
pub(super) async fn keep_lease<S: Store, C: Clock>(store: Arc<S>, clock: Arc<C>, found: mpsc::UnboundedSender<Found>) {
    let mut tick = tokio::time::interval(RENEW_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for signs in 0_u64.. {
        tick.tick().await;
        let asked = clock.now();
        // A sign that hangs is given up: the next one may come through.
        let given = tokio::time::timeout(2 * RENEW_EVERY, store.renew()).await;
        let news = match given {
            Ok(Ok(())) => Found::Renewed(asked),
            Ok(Err(StoreError::Superseded(newer))) => Found::Superseded(PlatformError::Superseded(newer)),
            // Decisions tell of a store that fails.
            Ok(Err(_)) | Err(_) => continue,
        };
        if found.send(news).is_err() {
            return;
        }
        if signs.is_multiple_of(BYTES_EVERY)
            && let Ok(Ok(bytes)) = tokio::time::timeout(2 * RENEW_EVERY, store.bytes()).await
        {
            let _ = found.send(Found::StoreBytes(bytes));
        }
    }
}

/// Asks the proxy for its counters ten times a second; `None` while it does not answer.
///
/// A report goes with the moment it was asked for: an answer that was long on its way does not hold what was counted
/// meanwhile, and the next one does.
pub(super) async fn watch_traffic<T: Traffic, C: Clock>(
    traffic: Arc<T>,
    clock: Arc<C>,
    told: watch::Receiver<(Vec<Heard>, Vec<CutName>)>,
    reports: watch::Sender<Option<(Timestamp, Report)>>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !reports.is_closed() {
        tick.tick().await;
        let asked = clock.now();
        let (heard, acknowledged) = told.borrow().clone();
        let report = traffic.report(&heard, &acknowledged).await.ok();
        reports.send_replace(report.map(|report| (asked, report)));
    }
}

/// Follows the platform's list of replicas; `None` while it does not answer.
pub(super) async fn watch_replicas<W: Workloads>(
    workloads: Arc<W>,
    replicas: watch::Sender<Option<Replicas>>,
    found: mpsc::UnboundedSender<Found>,
) {
    let mut seen = 0;
    while !replicas.is_closed() {
        match workloads.watch(seen, WATCH).await {
            Ok(list) => {
                if list.version != seen || replicas.borrow().is_none() {
                    seen = list.version;
                    replicas.send_replace(Some(list));
                }
            }
            Err(gone @ PlatformError::Superseded(_)) => {
                let _ = found.send(Found::Superseded(gone));
                return;
            }
            Err(_) => {
                seen = 0;
                replicas.send_replace(None);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Calls whoever wants to be told what has happened, one after the other, beside the loop. Who is too slow is not told all.
pub(super) fn tell_events<G: Gauge + 'static, C: Clock + 'static>(
    keeper: &mut Keeper,
    gauge: &Arc<G>,
    clock: &Arc<C>,
    beside: &mut tokio::task::JoinSet<()>,
) {
    for event in std::mem::take(&mut keeper.fresh_events) {
        let queue = keeper.events.get_or_insert_with(|| {
            let (queue, mut waiting) = mpsc::channel(EVENTS_WAITING);
            let (gauge, clock) = (gauge.clone(), clock.clone());
            beside.spawn(async move {
                while let Some((about, call)) = waiting.recv().await {
                    ask_once(gauge.clone(), clock.clone(), about, call).await;
                }
            });
            queue
        });
        if let Err(lost) = queue.try_send(event) {
            let (about, call) = lost.into_inner();
            warn!(service = %about.service, call = call.name, "it is too slow to be told of everything");
        }
    }
}

/// Asks once; the answer changes nothing.
pub(super) async fn ask_once<G: Gauge, C: Clock>(gauge: Arc<G>, clock: Arc<C>, about: CheckedFor, call: Call) {
    let Call { name, measure } = call;
    let limit = measure.timeout + MEASURE_SLACK;
    let asked = tokio::time::timeout(limit, gauge.measure(&measure, &about, clock.now())).await;
    let service = &about.service;
    match asked.unwrap_or(Err(SourceError::TimedOut { within: limit })) {
        Ok(Value::Bool(false)) => warn!(%service, call = name, "it was answered with a no"),
        Ok(_) => info!(%service, call = name, "called"),
        Err(error) => warn!(%service, call = name, %error, "it could not be called"),
    }
}
