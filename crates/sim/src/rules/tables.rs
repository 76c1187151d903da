//! What the proxy may be told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::Wanted;
use evenkeel_core::guard::{Cut, CutName};
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, ServiceName, Timestamp};
use evenkeel_core::table::{RoutingTable, ServiceRoutes};

use crate::platform::Process;
use crate::proxy::weight_in;
use crate::store::WAITED_FOR;
use crate::world::{Life, State};

/// So long after the store failed a controller may not have tried it again.
const RESTS: Duration = Duration::from_secs(3);

/// A table on its way: who sent it, and what was decided by then.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) life: Life,
    decided: BTreeMap<ServiceName, Vec<Wanted>>,
    /// Services that may be on a way back which is not in the store yet.
    unrecorded: BTreeSet<ServiceName>,
    /// It was made for the table that was in force when it was sent.
    answers_to: bool,
}

/// Takes note of what was decided when a table is sent. 1: nobody sound is taken out of traffic for nothing.
pub(crate) fn may_be_sent(state: &mut State, life: Life, table: &RoutingTable) -> Sent {
    state.tell(|| format!("controller {life} sends table {}: {}", table.generation, in_words(table)));
    if let Err(refused) = table.check() {
        state.broken(format!("controller {life} sends a table that cannot be: {refused}"));
    }
    let names = table.services.iter().map(|routes| routes.service.clone());
    let decided = names.map(|name| (name.clone(), state.book.wanted_by(life, &name))).collect();
    let unrecorded = unrecorded(state, life, table);
    let answers_to = state.proxy.table.generation.0 + 1 == table.generation.0;
    Sent { life, decided, unrecorded, answers_to }
}

/// Services that may be on a way back which is not in the store yet.
fn unrecorded(state: &State, life: Life, table: &RoutingTable) -> BTreeSet<ServiceName> {
    let key = |name: &ServiceName| (life, name.clone());
    // Who was not answered does not know what is in the log by now.
    let is_unheard = |name: &ServiceName| {
        let known = state.book.known.get(&key(name)).copied().unwrap_or(0);
        state.book.holder == life && state.book.logs.get(name).is_some_and(|log| known < log.length())
    };
    // Who is not answered by the store rests a while, and does not even try to record a way back.
    let shaky = state.book.down_until.max(state.book.slow_until);
    let is_late =
        |(of, since): (&(Life, ServiceName), &Timestamp)| of.0 == life && state.now.since(*since) >= WAITED_FOR;
    let is_shaky = shaky > state.now || state.now.since(shaky) < RESTS || state.book.writing.iter().any(is_late);
    let is_unrecorded = |name: &ServiceName| {
        let book = &state.book;
        is_shaky || book.owed.contains_key(&key(name)) || book.writing.contains_key(&key(name)) || is_unheard(name)
    };
    let names = table.services.iter().map(|routes| &routes.service);
    names.filter(|name| is_unrecorded(name)).cloned().collect()
}

/// 1, 2 and 3: shares sum to everything; who gains can carry it, and it was decided or goes back to stable.
pub(crate) fn may_come_into_force(state: &mut State, table: &RoutingTable, mut sent: Sent) {
    // A way back is sent and recorded at once, in either order.
    sent.unrecorded.extend(unrecorded(state, sent.life, table));
    let sent = &sent;
    let in_force = &state.proxy.table;
    if table.generation <= in_force.generation || table.token < in_force.token {
        state.broken(format!("table {} comes into force after {}", table.generation, in_force.generation));
    }
    let returns = |cut: &&Cut| {
        let routes = table.services.iter().find(|routes| routes.service == cut.name.service);
        let is_same = |routes: &&ServiceRoutes| routes.trial.as_ref().is_none_or(|t| t.rollout == cut.name.rollout);
        routes.filter(is_same).is_some_and(|routes| routes.weight_of(cut.name.revision) > BasisPoints::NONE)
    };
    if let Some(cut) = state.proxy.cuts.iter().find(returns) {
        let (CutName { service, revision, .. }, generation) = (cut.name.clone(), table.generation);
        state.broken(format!("{revision} of {service} was cut off, and table {generation} gives it a share again"));
    }
    let broken: Vec<String> = table.services.iter().filter_map(|next| may_be_split(state, next, sent)).collect();
    broken.iter().for_each(|what| state.broken(what));
    // Whoever is being taken over from does not know whom the newer one has started.
    if sent.answers_to && !state.going_down && state.book.holder == sent.life {
        let broken: Vec<String> = table.services.iter().filter_map(|next| keeps_sound(state, next, sent)).collect();
        broken.iter().for_each(|what| state.broken(what));
    }
    let stopped = |state: &State, id: &ReplicaId| {
        state.platform.processes.get(id).is_some_and(|process| {
            process.runs() && process.stopped.is_some_and(|(by, _)| by == sent.life) && !process.has_failed()
        })
    };
    let ended: Vec<ReplicaId> =
        crate::proxy::replicas(table).filter(|id| stopped(state, id) && !state.proxy.haunted.contains(id)).collect();
    ended.iter().for_each(|id| state.broken(format!("{id} is routed to after it was told to end")));
}

fn may_be_split(state: &State, next: &ServiceRoutes, sent: &Sent) -> Option<String> {
    let name = &next.service;
    let sum: u32 = next.releases.iter().map(|routes| u32::from(routes.weight.get())).sum();
    if sum != 0 && sum != 10_000 {
        return Some(format!("the shares of {name} sum to {sum}"));
    }
    let wanted = sent.decided.get(name).map_or(&[][..], Vec::as_slice);
    let before = |revision| {
        let tables = [&state.proxy.table, &state.proxy.newest];
        tables.map(|table| weight_in(table, name, revision)).into_iter().max().unwrap_or_default()
    };
    if sum == 0 && next.releases.is_empty() && state.going_down {
        return None;
    }
    let has_stable = !wanted.is_empty() && wanted.iter().all(|wanted| wanted.stable.is_some());
    // One release goes before the other one comes.
    let is_shut = wanted.iter().any(|wanted| wanted.shut);
    if sum == 0
        && has_stable
        && !is_shut
        && state.proxy.routes(name).is_some_and(|r| r.releases.iter().any(|r| r.weight.get() > 0))
    {
        return Some(format!("{name} loses all its shares"));
    }
    if sent.unrecorded.contains(name) {
        return None;
    }
    let raised = next.releases.iter().filter(|routes| routes.weight > before(routes.revision));
    raised.filter_map(|routes| may_be_raised(state, name, routes.revision, routes.weight, next, wanted)).next()
}

fn may_be_raised(
    state: &State,
    name: &ServiceName,
    revision: Revision,
    weight: BasisPoints,
    next: &ServiceRoutes,
    wanted: &[Wanted],
) -> Option<String> {
    let is_stable = wanted.iter().any(|wanted| wanted.stable == Some(revision));
    if !is_stable && !wanted.iter().any(|wanted| wanted.candidate == Some((revision, weight))) {
        return Some(format!("{name} {revision} gets {weight}, which nothing in the store decides"));
    }
    let decided = wanted.iter().filter(|wanted| wanted.candidate == Some((revision, weight)));
    let needed = if is_stable { 1 } else { decided.map(|wanted| wanted.needs).min().unwrap_or(0).max(1) };
    let backends = next.releases.iter().filter(|routes| routes.revision == revision).flat_map(|r| &r.backends);
    let was_ready = |id: &ReplicaId| state.platform.processes.get(id).is_none_or(|p| p.said.ready_once);
    let ready = backends.filter(|backend| was_ready(&backend.replica)).count();
    (ready < needed as usize).then(|| format!("{name} {revision} is raised to {weight} with {ready} of {needed} ready"))
}

/// Backends that never gave a reason to be taken out stay as long as their release has a share that needs them.
fn keeps_sound(state: &State, next: &ServiceRoutes, sent: &Sent) -> Option<String> {
    let now = state.proxy.routes(&next.service).filter(|_| !sent.unrecorded.contains(&next.service))?;
    let service = &state.book.logs.get(&next.service)?.service;
    for routes in next.releases.iter().filter(|routes| now.weight_of(routes.revision) > BasisPoints::NONE) {
        let in_force = now.releases.iter().filter(|r| r.revision == routes.revision).flat_map(|r| &r.backends);
        // Who was drained already when an old table came back is not taken in again.
        let is_sound = |id: &ReplicaId| {
            let process = state.platform.processes.get(id);
            process.is_some_and(Process::is_sound) && !state.proxy.haunted.contains(id)
        };
        let sound: Vec<&ReplicaId> = in_force.map(|backend| &backend.replica).filter(|id| is_sound(id)).collect();
        let kept = sound.iter().filter(|id| routes.backends.iter().any(|backend| backend.replica == ***id)).count();
        // Where fewer are needed than there are, any of them that is ready will do.
        let needed = routes.weight.of_replicas(service.full_replicas(routes.revision));
        // Where people or batches say that there be fewer, fewer there are.
        let decided = sent.decided.get(&next.service).map_or(&[][..], Vec::as_slice);
        let wanted = decided.iter().filter_map(|wanted| wanted.replicas.get(&routes.revision)).min();
        let needed = wanted.map_or(needed, |wanted| needed.min(*wanted)) as usize;
        if kept < sound.len().min(needed) && routes.backends.len() < needed {
            let of: Vec<u32> = sound.iter().map(|id| id.launch).collect();
            return Some(format!("{} {} keeps {kept} of {of:?}, and needs {needed}", next.service, routes.revision));
        }
    }
    None
}

fn in_words(table: &RoutingTable) -> String {
    let release = |routes: &evenkeel_core::table::ReleaseRoutes| {
        let launches: Vec<u32> = routes.backends.iter().map(|backend| backend.replica.launch).collect();
        format!("{} {} {launches:?}", routes.revision, routes.weight)
    };
    let service = |routes: &ServiceRoutes| {
        format!("{} {}", routes.service, routes.releases.iter().map(release).collect::<Vec<_>>().join(", "))
    };
    table.services.iter().map(service).collect::<Vec<_>>().join("; ")
}
