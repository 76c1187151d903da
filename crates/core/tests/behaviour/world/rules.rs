//! What must hold in every world, after every step. The numbers are those of the invariants in the architecture.

use std::collections::BTreeMap;

use evenkeel_analysis::Verdict;
use evenkeel_core::fleet::{self, Action, Fleet};
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, Timestamp};
use evenkeel_core::release::Standing;
use evenkeel_core::table::{ReleaseRoutes, ServiceRoutes};
use evenkeel_core::{Event, Outcome, Phase, Rollout, Service, Verb, Wanted};

use crate::fixtures::{canary, seconds};
use crate::world::World;
use crate::world::controller::Controller;

/// 1: nobody is stopped who is routed to, or who has requests before the drain deadline; a failed probe excepted.
pub(crate) fn may_be_done(world: &World, action: &Action) {
    let World { now, platform, proxy, .. } = world;
    match action {
        Action::Start(id) => {
            assert!(!proxy.routes().is_some_and(|routes| routes.has_backend(id)), "{id} is started under a used id");
        }
        Action::Terminate(id) | Action::Kill(id) => {
            let failed_a_probe = platform.processes.get(id).is_none_or(|process| process.liveness_failures > 0);
            if failed_a_probe || !platform.processes[id].runs() {
                return;
            }
            assert!(!proxy.routes().is_some_and(|routes| routes.has_backend(id)), "{action:?} of one in the table");
            let drained = proxy.unnamed_since.get(id).is_none_or(|since| *now >= since.after(canary().stop.drain));
            assert!(drained || !proxy.is_busy(id), "{action:?} of one with requests before its deadline");
        }
        Action::Forget(_) | Action::Probe { .. } => {}
    }
}

/// A fleet that says until when it rests has nothing to do before, however late it is looked at.
pub(crate) fn rests_as_it_says(fleet: &Fleet, seen: &fleet::World<'_>, now: Timestamp) {
    let rests_until = fleet.rests_until();
    if seen.in_force.is_none() || rests_until <= now {
        return;
    }
    let mut later = fleet.clone();
    let mut actions = later.step(seen, Timestamp(rests_until.0.min(now.after(seconds(3_600)).0) - 1));
    // The platform's list changes when it has done that, and is then shown anew.
    actions.retain(|action| !matches!(action, Action::Forget(_)));
    assert!(actions.is_empty(), "{actions:?} by a fleet that rests until {rests_until:?}, at {now:?}");
    assert_eq!(later.releases(seen), fleet.releases(seen), "a fleet that rests wants another table");
}

/// 1 and 2: no share is raised that cannot be carried or lost by our own doing; shares sum to everything or nothing.
pub(crate) fn may_be_routed(world: &World, wanted: &Wanted, next: &ServiceRoutes) {
    let releases = &world.controller.service.releases;
    let before = |revision| world.proxy.routes().map_or(BasisPoints::NONE, |routes| routes.weight_of(revision));
    let sum: u32 = next.releases.iter().map(|routes| u32::from(routes.weight.get())).sum();
    let had_some = world.proxy.routes().is_some_and(|routes| routes.releases.iter().any(|r| r.weight.get() > 0));
    assert!(sum == 10_000 || sum == 0 && !(had_some && wanted.stable.is_some()), "shares sum to {sum}");
    for routes in &next.releases {
        let ReleaseRoutes { revision, weight, backends, .. } = routes;
        let full = releases.get(revision).map_or(1, |release| release.replicas);
        let needed = if wanted.stable == Some(*revision) { 1 } else { weight.of_replicas(full) };
        let enough = backends.len() as u32 >= needed;
        assert!(*weight <= before(*revision) || enough, "{revision} is raised to {weight} with {}", backends.len());
        if before(*revision) == BasisPoints::NONE {
            continue;
        }
        let sound = sound_backends(world, *revision);
        let kept = sound.iter().filter(|id| backends.iter().any(|backend| backend.replica == **id)).count();
        let enough = weight.of_replicas(full) as usize;
        // Where others that are ready carry the share, as after scaling down, it need not be these.
        let must = if backends.len() >= enough { 0 } else { sound.len().min(enough) };
        assert!(kept >= must, "{revision} at {weight} keeps {kept} of {} sound backends", sound.len());
    }
}

/// Backends in force that never gave a reason to take them out.
fn sound_backends(world: &World, revision: Revision) -> Vec<ReplicaId> {
    let releases = world.proxy.routes().into_iter().flat_map(|routes| &routes.releases);
    let backends = releases.filter(|r| r.revision == revision).flat_map(|r| &r.backends).map(|b| b.replica.clone());
    let is_sound = |id: &ReplicaId| {
        let process = world.platform.processes.get(id);
        process.is_some_and(|process| process.runs() && !process.was_bad && !process.terminated)
    };
    backends.filter(is_sound).collect()
}

/// 5, 7 and 8: no step passes without evidence, no rollout begins unasked, everything that waits says so.
pub(crate) fn may_follow(controller: &mut Controller, before: &Service, event: &Event) {
    let after = &controller.service;
    if let Some(rollout) = after.in_flight() {
        assert!(rollout.waiting().is_some(), "{:?} waits for nothing", rollout.phase);
    }
    match event {
        Event::Deploy(_) | Event::Command { verb: Verb::Retry { .. } | Verb::Rollback { .. }, .. } => {
            let begun = after.rollout.as_ref().filter(|r| before.rollout.as_ref().is_none_or(|b| b.id != r.id));
            controller.asked_for = after.next.as_ref().map(|next| next.revision).or(begun.map(|r| r.candidate));
        }
        Event::Command { verb: Verb::Abort, .. } => controller.asked_for = None,
        Event::Gates(_) => controller.asked_for = before.gated.as_ref().map(|gated| gated.revision),
        Event::Command { .. } | Event::Seen(_) | Event::Checked(_) | Event::Alerts { .. } => {}
    }
    match (&before.rollout, &after.rollout) {
        (Some(before), Some(after)) if before.id == after.id => step_has_evidence(before, after, event),
        (before_rollout, Some(begun)) => {
            let number = before_rollout.as_ref().map_or(0, |rollout| rollout.id.0);
            // One that was called off before its turn leaves a gap: an id that was told never means another rollout.
            assert!(begun.id.0 > number, "rollouts are counted up");
            let last = after.past.last().filter(|_| before_rollout.is_some());
            assert!(last.is_none_or(Rollout::is_done), "two rollouts are in flight");
            // Evenkeel itself asks for one thing only: another good release when a rollback has failed.
            let is_rescue =
                begun.is_rescue && before_rollout.as_ref().is_some_and(|r| r.stable != Some(begun.candidate));
            let asked = controller.asked_for.take();
            assert!(is_rescue || asked == Some(begun.candidate), "nobody asked for this rollout");
        }
        (_, None) => {}
    }
    if let (Event::Deploy(deploy), Some(begun)) = (event, &after.rollout)
        && before.rollout.as_ref().is_none_or(|b| b.id != begun.id)
    {
        let was_bad = before.releases.get(&begun.candidate).map(|release| &release.standing);
        let refused = matches!(was_bad, Some(Standing::Bad { .. })) && !deploy.again;
        assert!(!refused, "a release that was rolled back is tried again");
    }
}

fn step_has_evidence(before: &Rollout, after: &Rollout, event: &Event) {
    if let (Phase::Shifting { step, .. }, Phase::Holding { .. }, Event::Seen(seen)) =
        (&before.phase, &after.phase, event)
    {
        assert_eq!(seen.weight, Some(before.plan.steps[*step].weight), "a share is held that is not in force");
    }
    let (Phase::Holding { step, .. }, Event::Seen(seen)) = (&before.phase, event) else { return };
    let passed = match &after.phase {
        Phase::Preparing { .. } | Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. } => true,
        Phase::Lining { .. }
        | Phase::Clearing { .. }
        | Phase::Gathering { .. }
        | Phase::Smoking { .. }
        | Phase::Shifting { .. }
        | Phase::Holding { .. }
        | Phase::Paused { .. }
        | Phase::RollingBack { .. }
        | Phase::Stopping { .. }
        | Phase::Stuck { .. }
        | Phase::Done { .. } => false,
    };
    let has_evidence = matches!(seen.verdict, Verdict::Pass { .. }) || before.plan.steps[*step].minimum_requests == 0;
    assert!(!passed || has_evidence, "step {step} passed on {:?}", seen.verdict);
    assert!(!passed || seen.candidate.ready >= before.plan.steps[*step].replicas, "step {step} passed unready");
}

/// 8: what a rollout waits for comes, or the time it named is not over yet.
pub(crate) fn nothing_is_overdue(service: &Service, now: Timestamp) {
    let Some(rollout) = service.in_flight() else { return };
    let until = rollout.waiting().and_then(|waiting| waiting.until);
    assert!(until.is_none_or(|until| until >= now), "{:?} is overdue at {now:?}", rollout.phase);
}

/// 7: a newer release gets its turn, whatever becomes of the way back.
pub(crate) fn everybody_gets_a_turn(controller: &mut Controller, now: Timestamp) {
    if controller.service.next.is_none() {
        controller.next_since = None;
        return;
    }
    let since = *controller.next_since.get_or_insert(now);
    // Traffic has 30 s to move; a controller without a proxy or a platform after a crash may be blind for longer.
    assert!(now.since(since) < seconds(110), "the next release never gets its turn");
}

/// Whether nothing is left to be done.
pub(crate) fn unrest(world: &World) -> Option<String> {
    let service = &world.controller.service;
    let wanted = service.wanted();
    if let Some(rollout) = service.in_flight() {
        let for_people = rollout.waiting().is_some_and(|waiting| waiting.until.is_none());
        if !for_people || matches!(rollout.phase, Phase::Stuck { .. }) {
            return Some(format!("{:?} does not end", rollout.phase));
        }
    }
    let mut running: BTreeMap<Revision, u32> = BTreeMap::new();
    world.platform.running().for_each(|(id, _)| *running.entry(id.revision).or_default() += 1);
    if running != wanted.replicas {
        return Some(format!("{running:?} run, and {:?} are wanted", wanted.replicas));
    }
    let weight = |revision| world.proxy.routes().map_or(BasisPoints::NONE, |routes| routes.weight_of(revision));
    let candidate = wanted.candidate.filter(|(_, share)| *share > BasisPoints::NONE);
    let as_wanted = candidate.is_none_or(|(revision, share)| weight(revision) == share)
        && wanted.stable.is_none_or(|stable| weight(stable) == candidate.map_or(BasisPoints::ALL, |(_, w)| w.rest()));
    let ready = wanted.replicas.iter().all(|(revision, n)| world.controller.fleet.health(*revision).ready == *n);
    (!as_wanted || !ready).then(|| format!("{wanted:?} is wanted, and {:?} in force", world.proxy.routes()))
}

/// Once faults have stopped every rollout ends or waits for people, and nothing runs that is not wanted.
pub(crate) fn all_is_at_rest(world: &World) {
    let unrest = unrest(world);
    assert!(unrest.is_none(), "no rest: {}", unrest.unwrap_or_default());
}
