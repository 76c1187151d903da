//! Who deploys and commands, and what: good releases, bad ones, the same again, at any moment.

use std::sync::Arc;

use evenkeel_controller::{AskError, DeployRequest, Handle};
use evenkeel_core::Verb;
use evenkeel_core::ids::{Revision, ServiceName};

use crate::weather::Fault;
use crate::wishes::{APPROVERS, SERVICES, spec};
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

/// A tenth of a second of everybody.
pub(crate) fn act(yard: &Arc<Yard>) {
    let (deploys, commands) = yard.with(|state| (state.happens(Fault::Deploys), state.happens(Fault::Commands)));
    if deploys {
        yard.with(somebody).into_iter().for_each(|(handle, who)| deploy(yard.clone(), handle, who));
    }
    if commands {
        yard.with(somebody).into_iter().for_each(|(handle, who)| command(yard.clone(), handle, who));
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
        let version = *state.dice.pick(&VERSIONS);
        let spec = spec(&mut state.dice, &service);
        let again = state.dice.chance(200_000);
        state.tell(|| format!("people deploy {service} {version}{}", if again { " again" } else { "" }));
        DeployRequest {
            version: version.into(),
            spec,
            directory: "/srv".into(),
            by: "ann".into(),
            again,
            how: Default::default(),
            from: None,
        }
    });
    tokio::spawn(async move {
        let version = request.version.clone();
        let answer = handle.deploy(request).await;
        yard.with(|state| {
            state.tell(|| format!("people hear of {service} {version}: {}", in_words(&answer)));
            let Ok(deployed) = answer else { return };
            let known = state.book.logs.get(&service);
            if known.is_none_or(|log| log.service.next_revision <= deployed.revision) {
                state.broken(format!("{service} {version} is said to be deployed and is not in the store"));
            }
        });
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
    let verbs = [
        Verb::Pause,
        Verb::Resume,
        Verb::Resume,
        Verb::Promote { full: false },
        Verb::Promote { full: false },
        Verb::Promote { full: true },
        Verb::Abort,
        Verb::Retry,
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
