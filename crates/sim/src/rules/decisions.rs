//! What may follow on what in a log.

use evenkeel_analysis::Verdict;
use evenkeel_core::gate::Check;
use evenkeel_core::ids::ServiceName;
use evenkeel_core::release::Standing;
use evenkeel_core::rollout::Rollout;
use evenkeel_core::{Event, Observation, Outcome, Phase, Service, Verb};

use crate::people::{Badness, badness_of};
use crate::wishes::{APPROVALS, APPROVERS};
use crate::world::{Life, State};

/// Releases of a service: those that are kept, those in use, and some that wait for their turn.
const RELEASES_MOST: usize = 16;
/// Rollouts that ended.
const ROLLOUTS_MOST: usize = 20;
/// Entries of what one of them did.
const MOMENTS_MOST: usize = 1_000;

/// 3: a way back that was taken before it could be recorded is recorded before anything else of that service.
pub(crate) fn owed_first(state: &mut State, life: Life, name: &ServiceName, event: &Event) {
    let key = (life, name.clone());
    let Some(owed) = state.book.owed.get(&key) else { return };
    if owed.event != *event {
        state.broken(format!("{name} decides something else before its way back is recorded: {event:?}"));
    } else if state.now >= state.book.down_until {
        state.book.owed.remove(&key);
    }
}

/// 5, 7 and 8: no step passes without evidence, no rollout begins unasked, everything that waits says so.
pub(crate) fn may_follow(state: &mut State, name: &ServiceName, before: &Service, event: &Event) {
    let broken = [
        waits(state, name),
        bounded(state, name),
        one_at_a_time(state, name, before, event),
        passes_gates(state, name, before, event),
        has_evidence(state, name, before, event),
    ];
    for what in broken.into_iter().flatten() {
        state.broken(format!("{name}: {what}"));
    }
}

/// What happened, for the history.
pub(crate) fn in_words(before: &Service, event: &Event, after: &Service) -> String {
    let cause = match event {
        Event::Seen(_) => String::new(),
        Event::Gates(_) => "gates ".to_owned(),
        Event::Deploy(deploy) => format!("deploy {} ", deploy.version),
        Event::Command { verb, .. } => format!("{verb:?} "),
    };
    let of = |service: &Service| {
        service.rollout.as_ref().map_or_else(
            || "nothing".to_owned(),
            |r| format!("{} {} {} {:?}", r.id, r.candidate, r.phase.name(), r.at_step()),
        )
    };
    let waiting = after.next.as_ref().map_or_else(String::new, |next| format!(", then {}", next.revision));
    format!("{cause}{} -> {}{waiting}", of(before), of(after))
}

/// 10: what is remembered has an end.
fn bounded(state: &State, name: &ServiceName) -> Option<String> {
    let Service { releases, past, promoted, .. } = &state.book.logs.get(name)?.service;
    let moments = past.iter().map(|rollout| rollout.moments.len()).max().unwrap_or(0);
    let most = [(releases.len(), RELEASES_MOST), (past.len(), ROLLOUTS_MOST), (promoted.len(), RELEASES_MOST)];
    let over = most.into_iter().chain([(moments, MOMENTS_MOST)]).find(|(count, most)| count > most);
    over.map(|(count, most)| format!("{count} are remembered, and at most {most} of a kind may be"))
}

fn waits(state: &State, name: &ServiceName) -> Option<String> {
    let rollout = state.book.logs.get(name)?.service.in_flight()?;
    let waiting = rollout.waiting();
    let says = waiting.as_ref().is_some_and(|waiting| !waiting.what.is_empty());
    let for_people = matches!(rollout.phase, Phase::Paused { .. } | Phase::Stuck { .. })
        || matches!(rollout.phase, Phase::Holding { until: None, .. });
    let has_end = waiting.is_some_and(|waiting| waiting.until.is_some());
    (!says || !(has_end || for_people))
        .then(|| format!("{:?} does not say what it waits for until when", rollout.phase))
}

fn one_at_a_time(state: &mut State, name: &ServiceName, before: &Service, event: &Event) -> Option<String> {
    let log = state.book.logs.get_mut(name)?;
    let after = &log.service;
    let begun = after.rollout.as_ref().filter(|r| before.rollout.as_ref().is_none_or(|b| b.id != r.id));
    match event {
        Event::Deploy(_) | Event::Command { verb: Verb::Retry | Verb::Rollback { .. }, .. } => {
            log.asked_for = after.next.as_ref().map(|next| next.revision).or(begun.map(|r| r.candidate));
        }
        Event::Command { verb: Verb::Abort, .. } => log.asked_for = None,
        // Its gates are open: from here on it is as if it were asked for.
        Event::Gates(_) if after.gated.is_none() => {
            let opened = before.gated.as_ref().filter(|gated| after.past.iter().all(|past| past.id != gated.id));
            log.asked_for = opened.map(|gated| gated.revision).or(log.asked_for);
        }
        Event::Gates(_) => {}
        Event::Command { .. } | Event::Seen(_) => {}
    }
    let begun = begun?;
    if after.past.iter().any(|rollout| !rollout.is_done()) {
        return Some("two rollouts are in flight".into());
    }
    log.begun += 1;
    if !log.begun_ids.insert(begun.id) {
        return Some(format!("the id of rollout {} is used up", begun.id));
    }
    if begun.is_rescue {
        return rescues(before, begun);
    }
    if log.asked_for.take() != Some(begun.candidate) {
        return Some(format!("nobody asked for rollout {} of {}", begun.id, begun.candidate));
    }
    let was_bad = before.releases.get(&begun.candidate).map(|release| &release.standing);
    let again = match event {
        Event::Deploy(deploy) => deploy.again,
        Event::Command { .. } | Event::Seen(_) | Event::Gates(_) => true,
    };
    (matches!(was_bad, Some(Standing::Bad { .. })) && !again)
        .then(|| format!("{} was rolled back and is tried again by itself", begun.candidate))
}

/// What waits at its gates begins when enough of those have said yes who may, and every check has answered well; what
/// is refused there has touched nothing.
fn passes_gates(state: &mut State, name: &ServiceName, before: &Service, event: &Event) -> Option<String> {
    let log = state.book.logs.get_mut(name)?;
    let gated = before.gated.as_ref()?;
    if let Event::Command { verb: Verb::Approve { .. }, by } = event {
        log.approved.insert((gated.id, by.clone()));
    }
    let after = &log.service;
    if after.gated.as_ref().is_some_and(|now| now.id == gated.id) {
        return None;
    }
    if after.past.iter().any(|past| past.id == gated.id) {
        let by_itself = matches!(event, Event::Gates(_) | Event::Command { verb: Verb::Reject { .. }, .. });
        return (by_itself && after.rollout != before.rollout)
            .then(|| format!("{} was refused and has changed something", gated.id));
    }
    let begins = after.next.iter().map(|next| next.id).chain(after.rollout.iter().map(|rollout| rollout.id));
    if !begins.into_iter().any(|id| id == gated.id) {
        return None;
    }
    let said_yes = APPROVERS.iter().filter(|who| log.approved.contains(&(gated.id, (**who).to_owned()))).count();
    if !gated.gates.approvals.is_empty() && said_yes < APPROVALS as usize {
        return Some(format!("{} begins with {said_yes} of {APPROVALS} approvals", gated.id));
    }
    let Event::Gates(sight) = event else { return Some(format!("{} begins without a look at its gates", gated.id)) };
    let is_well = |check: &Check| sight.answers.get(&check.name).is_some_and(|answer| answer.good);
    let unwell = gated.gates.checks.iter().find(|check| !is_well(check));
    unwell.map(|check| format!("{} begins, and check {} is not well", gated.id, check.name))
}

/// Only a way back that there is none of begins a rollout that nobody asked for: once, to a release that was good.
fn rescues(before: &Service, begun: &Rollout) -> Option<String> {
    let failed = before.in_flight().filter(|last| {
        matches!(last.phase, Phase::RollingBack { .. } | Phase::Stuck { .. } | Phase::Clearing { back: Some(_), .. })
    });
    let is_good = before.releases.get(&begun.candidate).is_some_and(|release| release.standing == Standing::Good);
    let is_known = is_good && before.promoted.contains(&begun.candidate) && before.stable != Some(begun.candidate);
    let is_first = failed.is_some_and(|last| !last.is_rescue && last.candidate != begun.candidate);
    (!is_known || !is_first).then(|| format!("rollout {} rescues nobody", begun.id))
}

fn has_evidence(state: &State, name: &ServiceName, before: &Service, event: &Event) -> Option<String> {
    let Event::Seen(seen) = event else { return None };
    let after = state.book.logs.get(name)?.service.rollout.as_ref()?;
    let before = before.rollout.as_ref().filter(|before| before.id == after.id)?;
    if let (Phase::Shifting { step, .. }, Phase::Holding { .. }) = (&before.phase, &after.phase)
        && seen.weight != Some(before.plan.steps[*step].weight)
    {
        return Some("a share is held that is not in force".into());
    }
    let Phase::Holding { step, .. } = before.phase else { return None };
    if passed(after) { may_pass(state, name, before, step, seen) } else { None }
}

fn passed(after: &Rollout) -> bool {
    match &after.phase {
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
    }
}

/// A step that passes by itself was judged, on requests that there were, and of a release that is good.
fn may_pass(state: &State, name: &ServiceName, rollout: &Rollout, step: usize, seen: &Observation) -> Option<String> {
    let now = &rollout.plan.steps[step];
    if seen.candidate.ready < now.replicas {
        return Some(format!("step {step} passes with {} of {} replicas", seen.candidate.ready, now.replicas));
    }
    if now.minimum_requests == 0 {
        return None;
    }
    // A batch has its time, whoever came.
    let few = now.on_time && matches!(seen.verdict, Verdict::NotEnough { .. });
    if few {
        return None;
    }
    if !matches!(seen.verdict, Verdict::Pass { .. }) {
        return Some(format!("step {step} passes on {:?}", seen.verdict));
    }
    let had = state.proxy.since_share.get(&(name.clone(), rollout.candidate)).copied().unwrap_or(0);
    if had < now.minimum_requests {
        return Some(format!("step {step} passes on {had} requests of {}: {:?}", now.minimum_requests, seen.verdict));
    }
    let version = &state.book.logs.get(name)?.service.releases.get(&rollout.candidate)?.version;
    (badness_of(version) == Badness::Errors).then(|| format!("step {step} passes with half of the answers errors"))
}
