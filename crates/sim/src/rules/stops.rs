//! Who may be started and stopped.

use std::time::Duration;

use evenkeel_core::ids::ReplicaId;
use evenkeel_core::ports::LiveRelease;

use crate::world::{Life, State};

/// 3: nobody is started of a release that no decision in the store wants; no id is given to two processes.
pub(crate) fn may_be_started(state: &mut State, life: Life, id: &ReplicaId) {
    let Some(log) = state.book.logs.get(&id.service).filter(|log| id.revision < log.service.next_revision) else {
        state.broken(format!("controller {life} starts {id}, and no such release is in the store"));
        return;
    };
    if !log.wanted.iter().any(|wanted| wanted.replicas.contains_key(&id.revision)) {
        state.broken(format!("controller {life} starts {id}, which nothing in the store wants"));
    }
    if state.proxy.names(id) && !state.platform.processes.contains_key(id) && !state.proxy.ghosts.contains(id) {
        state.broken(format!("controller {life} gives the id {id} again while it is routed to"));
    }
}

/// 1: nobody is stopped who is routed to, or has requests before the drain deadline; failed probes excepted.
pub(crate) fn may_be_terminated(state: &mut State, life: Life, id: &ReplicaId) {
    let now = state.now;
    state.platform.told_to_end.entry((life, id.clone())).or_insert(now);
    let Some(process) = state.platform.processes.get_mut(id).filter(|process| process.runs()) else { return };
    process.stopped = process.stopped.or(Some((life, now)));
    may_be_stopped(state, life, id, "terminates");
}

/// 1: the same of SIGKILL, which comes after SIGTERM and the time of grace.
pub(crate) fn may_be_killed(state: &mut State, life: Life, id: &ReplicaId) {
    let Some(process) = state.platform.processes.get(id).filter(|process| process.runs()) else { return };
    let grace = process.stop.grace;
    // A start that comes late brings one back that was ended: nobody waits for it.
    let told = state.platform.told_to_end.get(&(life, id.clone()));
    let is_late = told.is_some_and(|told| *told < process.started);
    if !is_late && process.stopped.is_none_or(|(_, at)| state.now.since(at) + Duration::from_millis(1) < grace) {
        state.broken(format!("controller {life} kills {id} before its time of grace is over"));
    }
    may_be_stopped(state, life, id, "kills");
}

fn may_be_stopped(state: &mut State, life: Life, id: &ReplicaId, what: &str) {
    let Some(process) = state.platform.processes.get(id).filter(|process| !process.has_failed()) else { return };
    let drain = process.stop.drain;
    if state.proxy.names(id) && !state.proxy.ghosts.contains(id) {
        state.broken(format!("controller {life} {what} {id}, which is routed to"));
    }
    let out = state.proxy.unnamed_since.get(id).copied();
    let drained = out.is_none_or(|since| state.now.since(since) >= drain);
    if state.proxy.is_busy(id) && !drained && !state.proxy.haunted.contains(id) {
        state.broken(format!("controller {life} {what} {id}, which has requests in flight"));
    }
}

/// What is kept of a release that a rollout or the way back needs is not dropped.
pub(crate) fn may_be_dropped(state: &mut State, life: Life, live: &[LiveRelease]) {
    let needed = |service: &evenkeel_core::Service| {
        let candidate = service.in_flight().map(|rollout| rollout.candidate);
        service.stable.into_iter().chain(candidate).collect::<Vec<_>>()
    };
    let lacks = |(name, log): (&evenkeel_core::ids::ServiceName, &crate::store::Log)| {
        let known = state.book.known.get(&(life, name.clone())).copied();
        // A release that was deployed since it was looked is kept for its youth.
        let newest = live.iter().filter(|live| live.service == *name).map(|live| live.revision).max();
        let is_live = |revision| live.iter().any(|live| live.service == *name && live.revision == revision);
        let mut old = needed(&log.service).into_iter().filter(|revision| Some(*revision) < newest);
        let lacks = old.find(|revision| !is_live(*revision));
        lacks.filter(|_| known == Some(log.length())).map(|revision| format!("{name} {revision}"))
    };
    let lacking = state.book.logs.iter().find_map(lacks);
    if let Some(lacking) = lacking {
        let kept: Vec<String> = live.iter().map(|live| format!("{} {}", live.service, live.revision)).collect();
        let kept = kept.join(", ");
        state.broken(format!("controller {life} has what is kept of {lacking} dropped, and only {kept} stays"));
    }
}
