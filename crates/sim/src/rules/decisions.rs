//! What may follow on what in a log.

use std::time::Duration;

use evenkeel_analysis::Verdict;
use evenkeel_core::gate::Check;
use evenkeel_core::group::Member;
use evenkeel_core::ids::{ServiceName, Timestamp};
use evenkeel_core::lease::TERM;
use evenkeel_core::ports::{Append, Recorded};
use evenkeel_core::release::Standing;
use evenkeel_core::rollout::{Kind, Rollout, Why};
use evenkeel_core::{Event, Observation, Outcome, Phase, Service, Verb};

use crate::coverage::{GROUP_BEGUN, GROUP_PROMOTED, Group, SET_TIME};
use crate::people::{Badness, badness_of};
use crate::wishes::{APPROVALS, APPROVERS};
use crate::world::{Life, State};

/// Releases of a service: those that are kept, those in use, and some that wait for their turn.
const RELEASES_MOST: usize = 16;
/// Rollouts that ended.
const ROLLOUTS_MOST: usize = 20;
/// A turn of the loop that begins with the lease may take so long.
const LEASE_SLACK: Duration = Duration::from_secs(1);
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
///
/// `is_late`: it was written some time after it was decided, and what is true by now says nothing about that.
pub(crate) fn may_follow(state: &mut State, name: &ServiceName, before: &Service, recorded: &Recorded, is_late: bool) {
    let Recorded { event, at, .. } = recorded;
    let broken = [
        waits(state, name),
        bounded(state, name),
        one_at_a_time(state, name, before, event),
        passes_gates(state, name, before, event, *at),
        group_is_new(state, name, event),
        has_evidence(state, name, before, event, is_late),
        blames_whom_it_may(state, name, before),
    ];
    for what in broken.into_iter().flatten() {
        state.broken(format!("{name}: {what}"));
    }
    if !is_late {
        are_together(state, name, before, event);
    }
}

/// What happened, for the history.
pub(crate) fn in_words(before: &Service, event: &Event, after: &Service) -> String {
    let cause = match event {
        Event::Seen(_) => String::new(),
        Event::Gates(_) => "gates ".to_owned(),
        Event::Alerts { alerts } => format!("{} alert(s) ", alerts.len()),
        Event::Checked(_) => "measured ".to_owned(),
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
    // Whoever waits for its group waits as long as those do, and they say for what.
    let for_group = matches!(rollout.phase, Phase::Lining { .. } | Phase::Gathering { .. });
    let for_people = matches!(rollout.phase, Phase::Paused { .. } | Phase::Stuck { .. })
        || matches!(rollout.phase, Phase::Holding { until: None, .. });
    let has_end = waiting.is_some_and(|waiting| waiting.until.is_some());
    (!says || !(has_end || for_people || for_group))
        .then(|| format!("{:?} does not say what it waits for until when", rollout.phase))
}

fn one_at_a_time(state: &mut State, name: &ServiceName, before: &Service, event: &Event) -> Option<String> {
    let log = state.book.logs.get_mut(name)?;
    let after = &log.service;
    let begun = after.rollout.as_ref().filter(|r| before.rollout.as_ref().is_none_or(|b| b.id != r.id));
    match event {
        Event::Deploy(_) | Event::Command { verb: Verb::Retry { .. } | Verb::Rollback { .. }, .. } => {
            log.asked_for = after.next.as_ref().map(|next| next.revision).or(begun.map(|r| r.candidate));
        }
        Event::Command { verb: Verb::Abort, .. } => log.asked_for = None,
        // Its gates are open: from here on it is as if it were asked for.
        Event::Gates(_) if after.gated.is_none() => {
            let opened = before.gated.as_ref().filter(|gated| after.past.iter().all(|past| past.id != gated.id));
            log.asked_for = opened.map(|gated| gated.revision).or(log.asked_for);
        }
        Event::Gates(_) => {}
        // It may ask for a way back.
        Event::Alerts { .. } => {
            log.asked_for = after.next.as_ref().map(|next| next.revision).or(begun.map(|r| r.candidate))
        }
        Event::Command { .. } | Event::Seen(_) | Event::Checked(_) => {}
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
        Event::Command { .. } | Event::Seen(_) | Event::Gates(_) | Event::Checked(_) | Event::Alerts { .. } => true,
    };
    (matches!(was_bad, Some(Standing::Bad { .. })) && !again)
        .then(|| format!("{} was rolled back and is tried again by itself", begun.candidate))
}

/// 7: each deploy of a group has an id of its own, or services would be promoted together that do not belong together.
fn group_is_new(state: &mut State, name: &ServiceName, event: &Event) -> Option<String> {
    let Event::Deploy(deploy) = event else { return None };
    let id = &deploy.group.as_ref()?.id;
    let is_new = state.book.logs.get_mut(name)?.group_ids.insert(id.clone());
    (!is_new).then(|| format!("two deploys of its group are both called {id}"))
}

/// What waits at its gates begins when enough of those have said yes who may, and every check has answered well; what
/// is refused there has touched nothing.
fn passes_gates(
    state: &mut State,
    name: &ServiceName,
    before: &Service,
    event: &Event,
    at: Timestamp,
) -> Option<String> {
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
    if gated.start_at.is_some() {
        state.coverage.count(Group::Other, SET_TIME);
    }
    if gated.start_at.is_some_and(|start| at < start) {
        return Some(format!("{} begins before its time", gated.id));
    }
    let log = state.book.logs.get(name)?;
    let said_yes = APPROVERS.iter().filter(|who| log.approved.contains(&(gated.id, (**who).to_owned()))).count();
    if !gated.gates.approvals.is_empty() && said_yes < APPROVALS as usize {
        return Some(format!("{} begins with {said_yes} of {APPROVALS} approvals", gated.id));
    }
    let Event::Gates(sight) = event else { return Some(format!("{} begins without a look at its gates", gated.id)) };
    let is_well = |check: &Check| sight.answers.get(&check.name).is_some_and(|answer| answer.good);
    let unwell = gated.gates.checks.iter().find(|check| !is_well(check));
    unwell.map(|check| format!("{} begins, and check {} is not well", gated.id, check.name))
}

/// 7: a service of a group begins when all of them have, after those it comes after; the first one is promoted when all of
/// them are through.
fn are_together(state: &mut State, name: &ServiceName, before: &Service, event: &Event) {
    let of = |service: &ServiceName| state.book.logs.get(service).map(|log| &log.service);
    let found = || {
        let (Event::Seen(_), was, is) = (event, before.in_flight()?, of(name)?.rollout.as_ref()?) else { return None };
        let group = is.group.as_ref().filter(|_| was.id == is.id)?;
        let fellow = |member: &Member| Some((member.service.clone(), of(&member.service)?.of_group(&group.id)));
        let fellows = group.members.iter().filter(|member| member.service != *name);
        let fellows: Vec<_> = fellows.filter_map(fellow).collect();
        let is_through = |phase: &Phase| matches!(phase, Phase::Gathering { .. }) || is_promoted(phase);
        let begins = matches!(was.phase, Phase::Lining { .. })
            && matches!(is.phase, Phase::Preparing { .. } | Phase::Clearing { back: None, .. });
        if begins {
            if fellows.len() + 1 < group.members.len() || fellows.iter().any(|(_, rollout)| rollout.is_none()) {
                return Some(Err(format!("{name} begins before the rest of its group")));
            }
            let after = group.members.iter().find(|member| member.service == *name).map(|member| &member.after)?;
            let is_ahead = |other: &ServiceName, phase: &Phase| after.contains(other) && !is_through(phase);
            let ahead = fellows.iter().find(|(other, rollout)| rollout.is_some_and(|r| is_ahead(other, &r.phase)));
            return Some(
                ahead.map_or(Ok(GROUP_BEGUN), |(other, _)| Err(format!("{name} begins before {other} is through"))),
            );
        }
        if !matches!(was.phase, Phase::Gathering { .. }) || !is_promoted(&is.phase) {
            return None;
        }
        if fellows.iter().any(|(_, rollout)| rollout.is_some_and(|rollout| is_promoted(&rollout.phase))) {
            return None;
        }
        let behind = fellows.iter().find(|(_, rollout)| !rollout.is_some_and(|rollout| is_through(&rollout.phase)));
        Some(
            behind
                .map_or(Ok(GROUP_PROMOTED), |(other, _)| Err(format!("{name} is promoted before {other} is through"))),
        )
    };
    match found() {
        Some(Ok(happened)) => state.coverage.count(Group::Other, happened),
        Some(Err(broken)) => state.broken(broken),
        None => {}
    }
}

fn is_promoted(phase: &Phase) -> bool {
    matches!(phase, Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. })
}

/// 11: without its lease a controller decides nothing but ways back.
pub(crate) fn is_led(state: &mut State, life: Life, append: &Append<'_>) {
    let Append { service: name, after, event, .. } = append;
    let is_old = |asked: &Timestamp| state.now.since(*asked) >= TERM + LEASE_SLACK;
    if !state.book.confirmed.get(&life).is_some_and(is_old) || !matches!(event, Event::Seen(_)) {
        return;
    }
    // Who does not know all of the log may take something else for a way back.
    let log = state.book.logs.get(*name).filter(|log| log.length() as u64 == *after);
    let Some(log) = log else { return };
    let next = log.service.step(event, append.at).ok().flatten().map(|step| step.next);
    let goes_back = |next: &Service| next.in_flight().is_some_and(|r| matches!(r.phase, Phase::RollingBack { .. }));
    if next.is_some_and(|next| !goes_back(&next)) {
        state.broken(format!("controller {life} decides of {name}, and its lease may be another's"));
    }
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

fn has_evidence(state: &State, name: &ServiceName, before: &Service, event: &Event, is_late: bool) -> Option<String> {
    let Event::Seen(seen) = event else { return None };
    let after = state.book.logs.get(name)?.service.rollout.as_ref()?;
    let before = before.rollout.as_ref().filter(|before| before.id == after.id)?;
    if let (Phase::Shifting { step, .. }, Phase::Holding { .. }) = (&before.phase, &after.phase)
        && seen.weight != Some(before.plan.steps[*step].weight)
    {
        return Some("a share is held that is not in force".into());
    }
    let Phase::Holding { step, .. } = before.phase else { return None };
    if passed(after) { may_pass(state, name, before, step, seen, is_late) } else { None }
}

/// 12: what a database does to everybody is held against no release.
fn blames_whom_it_may(state: &State, name: &ServiceName, before: &Service) -> Option<String> {
    let service = &state.book.logs.get(name)?.service;
    let after = service.rollout.as_ref()?;
    let was = before.rollout.as_ref().filter(|was| was.id == after.id)?;
    let is_back = |rollout: &Rollout| matches!(&rollout.phase, Phase::RollingBack { why: Why::Dependency { .. }, .. });
    if is_back(after) && !is_back(was) && !state.egress.is_astray(name, after.candidate) {
        return Some(format!("{} goes back for a database that it finds", after.candidate));
    }
    let is_bad = |service: &Service| {
        service.releases.get(&after.candidate).is_some_and(|release| matches!(release.standing, Standing::Bad { .. }))
    };
    (after.is_excused() && is_bad(service) && !is_bad(before))
        .then(|| format!("{} is taken for bad while the database fails for everybody", after.candidate))
}

fn passed(after: &Rollout) -> bool {
    match &after.phase {
        Phase::Preparing { .. }
        | Phase::Gathering { .. }
        | Phase::Retiring { .. }
        | Phase::Done { outcome: Outcome::Promoted, .. } => true,
        Phase::Lining { .. }
        | Phase::Clearing { .. }
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
fn may_pass(
    state: &State,
    name: &ServiceName,
    rollout: &Rollout,
    step: usize,
    seen: &Observation,
    is_late: bool,
) -> Option<String> {
    let now = &rollout.plan.steps[step];
    if seen.candidate.ready < now.replicas {
        return Some(format!("step {step} passes with {} of {} replicas", seen.candidate.ready, now.replicas));
    }
    if rollout.kind == Kind::Deploy && !seen.outages.is_empty() {
        return Some(format!("step {step} passes while its database does not answer"));
    }
    if now.minimum_requests == 0 {
        return None;
    }
    // A batch has its time, whoever came.
    let few = now.on_time && matches!(seen.verdict, Verdict::NotEnough { .. });
    if few {
        return None;
    }
    // People have let it be.
    if rollout.broken.is_some() {
        return None;
    }
    if !matches!(seen.verdict, Verdict::Pass { .. }) {
        return Some(format!("step {step} passes on {:?}", seen.verdict));
    }
    let shares = state.proxy.since_share.get(&(name.clone(), rollout.candidate));
    let had = shares.and_then(|shares| shares.get(&now.weight)).copied().unwrap_or(0);
    let log = state.book.logs.get(name)?;
    if had < now.minimum_requests && !is_late && !log.weighed.contains(&rollout.id) {
        return Some(format!("step {step} passes on {had} requests of {}: {:?}", now.minimum_requests, seen.verdict));
    }
    let version = &log.service.releases.get(&rollout.candidate)?.version;
    (badness_of(version) == Badness::Errors).then(|| format!("step {step} passes with half of the answers errors"))
}
