//! Who deploys and commands, and what: good releases, bad ones, the same again, at any moment.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_controller::{AskError, DeployRequest, Handle};
use evenkeel_core::alert::{Action, Alert, AlertKey};
use evenkeel_core::gate::Passage;
use evenkeel_core::ids::{BasisPoints, Revision, ServiceName, Timestamp};
use evenkeel_core::spec::Spec;
use evenkeel_core::{Phase, Verb};

use crate::weather::Fault;
use crate::wishes::{APPROVERS, GROUP, SERVICES, group, spec};
use crate::world::{State, Yard};

/// How a version is, whatever its replicas do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Badness {
    Good,
    /// Half of its answers are errors.
    Errors,
    /// Its replicas do not get ready, or die.
    Broken,
    /// It is well but for what the smoke checks look at.
    Smoke,
}

/// The versions that are deployed; their last letter says how they are.
const VERSIONS: [&str; 8] = ["1", "2", "3", "4e", "5", "6x", "7", "8s"];

pub(crate) fn badness_of(version: &str) -> Badness {
    match version.as_bytes().last() {
        Some(b'e') => Badness::Errors,
        Some(b'x') => Badness::Broken,
        Some(b's') => Badness::Smoke,
        _ => Badness::Good,
    }
}

pub(crate) fn errors_in_a_thousand(version: &str) -> u32 {
    if badness_of(version) == Badness::Errors { 500 } else { 0 }
}

/// So many wishes in a million are for several services at once.
const OF_GROUPS: u32 = 200_000;
/// So many of those in a million are told by two people at once.
const GROUP_TWICE: u32 = 100_000;
/// So many of what is asked in a million are alerts.
const OF_ALERTS: u32 = 100_000;

/// A tenth of a second of everybody.
pub(crate) fn act(yard: &Arc<Yard>) {
    let (deploys, commands) = yard.with(|state| (state.happens(Fault::Deploys), state.happens(Fault::Commands)));
    let for_all = yard.with(|state| state.services_max > 1 && state.dice.chance(OF_GROUPS));
    let ask = |yours: fn(Arc<Yard>, Handle, ServiceName)| {
        if let Some((handle, service)) = yard.with(somebody) {
            yours(yard.clone(), handle, service);
        }
    };
    if deploys {
        ask(if for_all { deploy_group } else { deploy });
    }
    if commands {
        let tells = yard.with(|state| state.dice.chance(OF_ALERTS));
        ask(if tells {
            tell
        } else if for_all {
            back_group
        } else {
            command
        });
    }
}

/// A controller to talk to, and the service that it is about.
fn somebody(state: &mut State) -> Option<(Handle, ServiceName)> {
    let handles: Vec<Handle> = state.handles.values().cloned().collect();
    let (name, _) = *state.dice.pick(&SERVICES[..state.services_max]);
    let service = ServiceName::new(name).ok()?;
    (!handles.is_empty()).then(|| (state.dice.pick(&handles).clone(), service))
}

fn deploy(yard: Arc<Yard>, handle: Handle, service: ServiceName) {
    let request = yard.with(|state| {
        let spec = spec(&mut state.dice, &service);
        request(state, &handle, spec)
    });
    tokio::spawn(async move {
        let version = request.version.clone();
        let answer = handle.deploy(request).await;
        yard.with(|state| {
            state.tell(|| format!("people hear of {service} {version}: {}", in_words(&answer)));
            if let Ok(deployed) = answer {
                is_in_store(state, &service, deployed.revision);
            }
        });
    });
}

fn request(state: &mut State, handle: &Handle, spec: Spec) -> DeployRequest {
    let version = *state.dice.pick(&VERSIONS);
    let again = state.dice.chance(200_000);
    let starts = state.dice.chance(100_000).then(|| state.dice.millis(0, 8_000));
    let how = Passage { start_at: starts.map(|wait| handle.overview().at.after(wait)), ..Passage::default() };
    let (service, words) = (&spec.service, if again { " again" } else { "" });
    let when = how.start_at.map_or_else(String::new, |_| format!(" in {starts:?}"));
    state.tell(|| format!("people deploy {service} {version}{words}{when}"));
    DeployRequest { version: version.into(), spec, directory: "/srv".into(), by: "ann".into(), again, how, from: None }
}

fn is_in_store(state: &mut State, service: &ServiceName, revision: Revision) {
    if state.book.logs.get(service).is_none_or(|log| log.service.next_revision <= revision) {
        state.broken(format!("{service} {revision} is said to be deployed and is not in the store"));
    }
}

/// Sometimes two people do so at the same moment.
fn deploy_group(yard: Arc<Yard>, handle: Handle, _: ServiceName) {
    let is_twice = yard.with(|state| state.dice.chance(GROUP_TWICE));
    if is_twice {
        deploy_group_once(yard.clone(), handle.clone());
    }
    deploy_group_once(yard, handle);
}

fn deploy_group_once(yard: Arc<Yard>, handle: Handle) {
    let requests = yard.with(|state| {
        let services = state.dice.between(2, state.services_max as u64) as usize;
        let specs = group(&mut state.dice, services);
        specs.into_iter().map(|spec| request(state, &handle, spec)).collect()
    });
    tokio::spawn(async move {
        let answer = handle.deploy_group(GROUP.into(), requests).await;
        yard.with(|state| {
            state.tell(|| format!("people hear of the group: {}", in_words(&answer)));
            let Ok(deployed) = answer else { return };
            deployed.services.iter().for_each(|member| is_in_store(state, &member.service, member.revision));
        });
    });
}

fn back_group(yard: Arc<Yard>, handle: Handle, _: ServiceName) {
    yard.with(|state| state.tell(|| "bob asks the group to go back".to_owned()));
    tokio::spawn(async move {
        let answer = handle.back_group(GROUP.into(), "bob".into()).await;
        yard.with(|state| state.tell(|| format!("bob hears of the group: {}", in_words(&answer))));
    });
}

fn command(yard: Arc<Yard>, handle: Handle, service: ServiceName) {
    let (verb, by) = yard.with(|state| {
        let (verb, by) = wish(state, &service);
        state.tell(|| format!("{by} asks {service} to {verb:?}"));
        (verb, by)
    });
    tokio::spawn(async move {
        let answer = handle.command(service.clone(), verb.clone(), by.into()).await;
        yard.with(|state| state.tell(|| format!("{by} hears of {service} {verb:?}: {}", in_words(&answer))));
    });
}

/// An alert, told once or twice: of the service, of one that nobody can name, now or long since.
fn tell(yard: Arc<Yard>, handle: Handle, service: ServiceName) {
    let (alert, times) = yard.with(|state| {
        let alert = alert(state, &handle, &service);
        state.tell(|| format!("alert {} tells {service}: {:?}", alert.key.fingerprint, alert.action));
        (alert, state.dice.between(1, 2))
    });
    tokio::spawn(async move {
        for _ in 0..times {
            let answer = handle.alerts(vec![alert.clone()], None).await;
            yard.with(|state| {
                state.tell(|| format!("who told {service} of {} hears: {}", alert.key.fingerprint, in_words(&answer)));
                if answer.is_ok() && !state.book.has_heard(&service, &alert.key) {
                    state
                        .broken(format!("{service} is said to have heard {:?}, and it is not in the store", alert.key));
                }
            });
        }
    });
}

fn alert(state: &mut State, handle: &Handle, service: &ServiceName) -> Alert {
    let kind = *state.dice.pick(&["a", "b"]);
    let is_old = state.dice.chance(300_000);
    let ago = if is_old { state.dice.millis(0, 60_000) } else { Duration::ZERO };
    let now = handle.overview().at;
    let starts_at = Timestamp(now.0.saturating_sub(ago.as_micros() as u64));
    let role = *state.dice.pick(&["", "", "canary", "stable"]);
    let named = if state.dice.chance(100_000) { "nobody" } else { service.service() };
    let labels = [("service", named), ("environment", service.environment()), ("role", role)];
    let action = if state.dice.chance(200_000) { Action::Investigate } else { Action::Rollback };
    Alert {
        key: AlertKey { group: "{}".into(), fingerprint: format!("{kind} {named} {role}"), starts_at },
        name: kind.into(),
        action,
        ended: state.dice.chance(100_000).then_some(now),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        summary: String::new(),
    }
}

/// What somebody asks for, and who.
fn wish(state: &mut State, service: &ServiceName) -> (Verb, &'static str) {
    let is_gated = state.book.logs.get(service).is_some_and(|log| log.service.gated.is_some());
    if is_gated && state.dice.chance(600_000) {
        let by = *state.dice.pick(&[APPROVERS[0], APPROVERS[1], "ann", "bob"]);
        let verb = match state.dice.chance(150_000) {
            true => Verb::Reject { comment: None },
            false => Verb::Approve { role: None, comment: None },
        };
        return (verb, by);
    }
    let to = Some(Revision(state.dice.between(1, 8) as u32));
    let replicas = state.dice.between(1, 4) as u32;
    let in_flight = state.book.logs.get(service).and_then(|log| log.service.in_flight());
    let candidate = in_flight.map_or(Revision(1), |rollout| rollout.candidate);
    let weight = BasisPoints::new(state.dice.between(0, 100) as u16 * 100).unwrap_or(BasisPoints::ALL);
    let is_paused = in_flight.is_some_and(|rollout| matches!(rollout.phase, Phase::Paused { .. }));
    if is_paused && state.dice.chance(300_000) {
        return (Verb::Weigh { candidate, weight }, "bob");
    }
    let verbs = [
        Verb::Pause,
        Verb::Resume,
        Verb::Resume,
        Verb::Promote { full: false },
        Verb::Promote { full: false },
        Verb::Promote { full: true },
        Verb::Abort,
        Verb::Retry { spent: Vec::new() },
        Verb::Rollback { to: None },
        Verb::Rollback { to },
        Verb::Scale { replicas },
    ];
    (state.dice.pick(&verbs).clone(), "bob")
}

fn in_words<T: std::fmt::Debug>(answer: &Result<T, AskError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("no, {error}"),
    }
}
