//! What becomes of everything once faults stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_controller::Handle;
use evenkeel_core::group::Member;
use evenkeel_core::ids::{BasisPoints, Revision, ServiceName, Timestamp};
use evenkeel_core::plan::Exchange;
use evenkeel_core::{Phase, Rollout, Service};

use crate::world::{BEGINNING, Life, State};

/// 3: traffic goes back within this time although the store fails, when the proxy answers.
const BACK_WITHIN: Duration = Duration::from_secs(4);

/// Time without a fault of those who are called, after which nothing hinders a controller.
const ANSWERED_FOR: Duration = Duration::from_secs(12);
/// So long after its time a wait is too long; a slow store or a late answer takes some of it.
const OVERDUE: Duration = Duration::from_secs(6);

/// A controller that asks everybody every second has been told again by then.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// 3: a way back does not wait for the store.
pub(crate) fn goes_back_without_the_store(state: &mut State) {
    // Whoever was silent a moment ago cannot have been told in time.
    let heard = |since| state.now.since(since) >= BACK_WITHIN;
    let proxy_answers = state.silence_of(crate::world::Server::Proxy).is_none()
        && [state.proxy.silent_until, state.proxy.takes_none_until].into_iter().all(heard);
    let stood_still = |life| state.stalled.get(life).is_some_and(|until| !heard(*until));
    let overdue = state.book.owed.iter().filter(|((life, _), owed)| heard(owed.since) && !stood_still(life));
    let broken = overdue.filter_map(|((_, name), owed)| {
        let service = &state.book.logs.get(name)?.service;
        let rollout = service.in_flight().filter(|rollout| Some(rollout.id) == owed.rollout)?;
        // Where stable gave up replicas it takes as much as it has replicas for.
        if rollout.plan.exchange != Exchange::Beside {
            return None;
        }
        let stable_serves = rollout.stable.is_some_and(|stable| {
            let mut own =
                state.platform.processes.iter().filter(|(id, _)| id.service == *name && id.revision == stable);
            own.any(|(_, process)| process.is_sound() && heard(process.said.ready_at))
        });
        let weight = state.proxy.routes(name)?.weight_of(rollout.candidate);
        (stable_serves && weight > BasisPoints::NONE).then(|| format!("{name} does not go back while the store fails"))
    });
    if let Some(what) = broken.collect::<Vec<_>>().first().filter(|_| proxy_answers) {
        state.broken(what);
    }
}

/// 8: what a rollout waits for comes, or the time it named is not long over, when everybody has answered for a while.
pub(crate) fn is_not_overdue(state: &mut State) {
    let silent = [
        state.platform.silent_until,
        state.proxy.silent_until,
        state.proxy.takes_none_until,
        state.book.down_until,
        state.book.slow_until,
        state.lives_changed,
    ];
    let is_second = state.now.since(BEGINNING).as_millis() % 1_000 < 100;
    if !is_second || silent.into_iter().any(|until| state.now.since(until) < ANSWERED_FOR || until > state.now) {
        return;
    }
    let overview = state.handles.values().next_back().map(Handle::overview);
    let rollouts = overview.iter().flat_map(|shown| shown.services.iter().map(move |service| (shown.at, service)));
    let overdue = rollouts.filter_map(|(at, service)| {
        let waiting = service.rollout.as_ref()?.waiting.as_ref()?;
        let over = waiting.until.is_some_and(|until| at.since(until) >= OVERDUE);
        over.then(|| format!("{} is overdue: waits for {}", service.service, waiting.what))
    });
    if let Some(what) = overdue.collect::<Vec<_>>().first() {
        state.broken(what);
    }
}

/// 11: whoever is told that another one has taken over ends. An answer that is lost has told nobody.
pub(crate) fn ends_when_told(state: &mut State, living: &[Life]) {
    let is_here = |life: &Life| living.contains(life) && !state.is_dead(*life);
    let is_quiet = |life: &Life| state.stalled.get(life).is_some_and(|until| state.now.since(*until) < ENDS_WITHIN);
    let goes_on =
        |(life, told): &(&Life, &Timestamp)| is_here(life) && !is_quiet(life) && state.now.since(**told) >= ENDS_WITHIN;
    if let Some((life, _)) = state.told_of_newer.iter().find(goes_on) {
        state.broken(format!("controller {life} goes on though it was told of a newer one"));
    }
}

/// What is left to be done, if anything.
pub(crate) fn unrest(state: &State) -> Option<String> {
    let alive = state.handles.len();
    if alive != 1 {
        return Some(format!("{alive} controllers run"));
    }
    if state.stalled.values().any(|until| *until > state.now) {
        return Some("a controller stands still".to_owned());
    }
    state.services().iter().find_map(|name| unrest_of(state, name)).or_else(|| addresses(state))
}

fn unrest_of(state: &State, name: &ServiceName) -> Option<String> {
    let service = &state.book.logs.get(name)?.service;
    if let Some(next) = &service.next {
        return Some(format!("{name}: {} never begins", next.revision));
    }
    if service.gated.is_some() {
        return Some(format!("{name} waits at its gates"));
    }
    let goes_on = |rollout: &&Rollout| !for_people(rollout) && !for_fellows(state, rollout);
    if let Some(rollout) = service.in_flight().filter(goes_on) {
        return Some(format!("{name} is {:?}", rollout.phase));
    }
    runs_as_wanted(state, name, service)
        .or_else(|| split_as_wanted(state, name, service))
        .or_else(|| shown_as_stored(state, name, service))
}

fn for_people(rollout: &Rollout) -> bool {
    matches!(rollout.phase, Phase::Paused { .. } | Phase::Holding { until: None, .. })
}

/// Whoever waits for one of its group that waits for people.
fn for_fellows(state: &State, rollout: &Rollout) -> bool {
    let waits = matches!(rollout.phase, Phase::Lining { .. } | Phase::Gathering { .. });
    let group = rollout.group.as_ref().filter(|_| waits);
    group.is_some_and(|group| {
        let of = |member: &Member| state.book.logs.get(&member.service)?.service.of_group(&group.id);
        group.members.iter().filter_map(of).any(for_people)
    })
}

fn runs_as_wanted(state: &State, name: &ServiceName, service: &Service) -> Option<String> {
    let mut running: BTreeMap<Revision, u32> = BTreeMap::new();
    let own = state.platform.running().filter(|(id, _)| id.service == *name);
    own.for_each(|(id, _)| *running.entry(id.revision).or_default() += 1);
    let mut wanted = service.wanted().replicas;
    wanted.retain(|_, count| *count > 0);
    (running != wanted).then(|| format!("{name}: {running:?} run, and {wanted:?} are wanted"))
}

fn split_as_wanted(state: &State, name: &ServiceName, service: &Service) -> Option<String> {
    let mut wanted = service.wanted();
    wanted.replicas.retain(|_, count| *count > 0);
    if service.spec.as_ref().is_some_and(|spec| spec.listen.is_none()) {
        return state.proxy.routes(name).map(|_| format!("{name} is routed to, and has no address"));
    }
    let candidate = wanted.candidate.filter(|(_, share)| *share > BasisPoints::NONE);
    let rest = candidate.map_or(BasisPoints::ALL, |(_, share)| share.rest());
    let stable = wanted.stable.map(|stable| (stable, rest)).filter(|(_, share)| *share > BasisPoints::NONE);
    // Somebody paused a rollout whose old release is gone before the new one comes: nobody has anything meanwhile.
    let all = stable.into_iter().chain(candidate).filter(|_| !wanted.shut);
    let weights: BTreeMap<Revision, BasisPoints> = all.collect();
    let routes = state.proxy.routes(name);
    let releases = || routes.into_iter().flat_map(|routes| &routes.releases);
    let shares = releases().filter(|r| r.weight > BasisPoints::NONE).map(|r| (r.revision, r.weight));
    let in_force: BTreeMap<Revision, BasisPoints> = shares.collect();
    if in_force != weights {
        return Some(format!("{name}: {in_force:?} is in force, and {weights:?} is wanted"));
    }
    let ready: BTreeMap<Revision, u32> = releases().map(|r| (r.revision, r.backends.len() as u32)).collect();
    (ready != wanted.replicas).then(|| format!("{name}: {ready:?} are routed to of {:?}", wanted.replicas))
}

/// What the controller shows is what is in the store: also a way back that was recorded afterwards.
fn shown_as_stored(state: &State, name: &ServiceName, service: &Service) -> Option<String> {
    let shown = state.handles.values().next()?.status(name);
    let Some(shown) = shown else { return Some(format!("{name} is not shown")) };
    let (told, stored) = (shown.rollout.map(|r| (r.id, r.moments)), service.rollout.as_ref());
    let same = told == stored.map(|r| (r.id, r.moments.clone())) && shown.stable == service.stable;
    (!same).then(|| format!("{name} is shown otherwise than it is stored: {told:?}"))
}

fn addresses(state: &State) -> Option<String> {
    let specs = state.book.logs.values().filter_map(|log| log.service.spec.as_ref());
    let wanted: BTreeSet<SocketAddr> = specs.filter_map(|spec| spec.listen).collect();
    let listening = &state.platform.listening;
    (*listening != wanted).then(|| format!("users can connect at {listening:?}, and should at {wanted:?}"))
}

/// What is left after everything was to be stopped. An agent that hung may start one afterwards that it was asked for
/// before; it ends with the agent.
pub(crate) fn leftovers(state: &State, since: Timestamp) -> Option<String> {
    let left = state.platform.running().filter(|(_, process)| process.started < since);
    let running: Vec<String> = left.map(|(id, _)| id.to_string()).collect();
    (!running.is_empty()).then(|| format!("{running:?} run after everything was stopped"))
}
