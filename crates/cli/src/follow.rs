//! Follows a rollout to its end: a tree in place on a terminal, a line per decision otherwise.

use std::time::Duration;

use evenkeel_controller::status::{RolloutStatus, ServiceStatus};
use evenkeel_core::Outcome;
use evenkeel_core::ids::{RolloutId, Timestamp};
use evenkeel_core::rollout::{Kind, Why};
use serde_json::json;
use tokio::time::Instant;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::screen::Screen;
use crate::{gates, progress, render};

/// How often the controller is asked.
const LOOK: Duration = Duration::from_millis(100);
/// A controller that does not answer is waited for this long: it may be starting anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of the bad release's log that are shown at the end.
const LOG_LINES: usize = 20;

/// What to follow, and how to show it.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    /// The service.
    pub(crate) service: String,
    /// The rollout.
    pub(crate) rollout: RolloutId,
    /// One JSON object per line.
    pub(crate) json: bool,
    /// Stop after this long.
    pub(crate) timeout: Option<Duration>,
    /// Going back is what was asked for.
    pub(crate) back_is_done: bool,
}

/// Follows a rollout until it has ended, or waits for people.
///
/// # Errors
/// The controller does not answer any more.
pub(crate) async fn follow(client: &Client, follow: &Follow) -> Result<Exit, Failure> {
    let mut screen = Screen::new();
    let mut told = 0;
    let begun = Instant::now();
    let mut answered = begun;
    let mut last = None;
    let mut gates = gates::Shown::default();
    let mut pace = progress::Pace::default();
    loop {
        let left = follow.timeout.map_or(PATIENCE, |limit| limit.saturating_sub(begun.elapsed())).max(LOOK);
        let overview = tokio::time::timeout(left, client.overview()).await;
        let late = |_| Failure::Internal("the controller does not answer".to_owned());
        match overview.map_err(late).flatten() {
            // It may also have died in the middle of its answer.
            Err(failure @ (Failure::NotRunning(_) | Failure::Internal(_))) => {
                if answered.elapsed() >= PATIENCE {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
            Ok(overview) => {
                answered = Instant::now();
                let service = overview.services.iter().find(|service| service.service.as_str() == follow.service);
                let gated =
                    service.and_then(|service| service.gated.as_ref()).filter(|gated| gated.id == follow.rollout);
                if let (Some(service), Some(gated)) = (service, gated) {
                    told = gates.tell(&mut screen, follow, service, gated, overview.at, told);
                }
                let found = service.and_then(|service| find(service, follow).map(|rollout| (service, rollout)));
                if found.is_none()
                    && gated.is_none()
                    && service.is_none_or(|service| service.queued != Some(follow.rollout))
                {
                    let gone =
                        format!("rollout {} of {} was called off before its turn", follow.rollout, follow.service);
                    screen.print(&[if follow.json {
                        json!({"event": "ended", "reason": gone}).to_string()
                    } else {
                        gone
                    }]);
                    return Ok(Exit::Open);
                }
                if let Some((service, rollout)) = found {
                    told = tell(&mut screen, follow, service, rollout, overview.at, told);
                    if let Some(exit) = over(rollout, follow, screen.is_live()) {
                        return close(client, &mut screen, follow, rollout, exit).await;
                    }
                    if (follow.json || !screen.is_live()) && pace.is_due(begun.elapsed()) {
                        screen.print(&[progress::line(service, rollout, overview.at, follow.json)]);
                    }
                    last = Some(rollout.clone());
                }
            }
        }
        if follow.timeout.is_some_and(|limit| begun.elapsed() >= limit) {
            if let Some(rollout) = &last {
                return close(client, &mut screen, follow, rollout, Exit::Open).await;
            }
            let Follow { service, rollout, .. } = follow;
            let what = if gates.is_empty() { "its turn" } else { "its gates" };
            return Err(Failure::Open(format!(
                "rollout {rollout} of {service} waits for {what}\n  next: evenkeel status"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn find<'a>(service: &'a ServiceStatus, follow: &Follow) -> Option<&'a RolloutStatus> {
    service.rollout.iter().chain(&service.history).find(|rollout| rollout.id == follow.rollout)
}

/// Shows what is new; answers how many moments were told.
fn tell(
    screen: &mut Screen,
    follow: &Follow,
    service: &ServiceStatus,
    rollout: &RolloutStatus,
    now: Timestamp,
    told: usize,
) -> usize {
    if screen.is_live() && !follow.json {
        screen.draw(&render::tree(service, now, Paint::stdout()));
        return rollout.moments.len();
    }
    let fresh = rollout.moments.iter().skip(told);
    let lines: Vec<String> = fresh
        .map(|moment| {
            if follow.json {
                let (service, revision) = (&service.service, rollout.candidate);
                json!({"event": "decided", "service": service, "rollout": rollout.id, "revision": revision,
                       "version": rollout.version, "at_us": moment.at, "state": rollout.state, "text": moment.text,
                       "evidence": moment.evidence})
                .to_string()
            } else {
                format!("{:>7.1} s  {}", moment.at.since(render::first(rollout)).as_secs_f64(), moment.text)
            }
        })
        .collect();
    screen.print(&lines);
    rollout.moments.len()
}

/// Whether there is nothing more to follow, and what that means.
pub(crate) fn over(rollout: &RolloutStatus, follow: &Follow, is_live: bool) -> Option<Exit> {
    match &rollout.outcome {
        Some(Outcome::Promoted) => Some(Exit::Done),
        Some(Outcome::Refused { .. }) => Some(Exit::Refused),
        Some(Outcome::RolledBack { why } | Outcome::Stopped { why }) => Some(match why {
            Why::Superseded { .. } => Exit::Open,
            Why::Asked { .. } | Why::Aborted { .. } if follow.back_is_done => Exit::Done,
            _ => Exit::RolledBack,
        }),
        None if rollout.manual_intervention => Some(Exit::PeopleNeeded),
        None if is_live && !follow.json => None,
        // Nobody sits at a terminal: waiting for people is an end of its own.
        None => rollout.waiting.as_ref().filter(|waiting| waiting.until.is_none()).map(|_| Exit::Open),
    }
}

async fn close(
    client: &Client,
    screen: &mut Screen,
    follow: &Follow,
    rollout: &RolloutStatus,
    exit: Exit,
) -> Result<Exit, Failure> {
    screen.leave();
    let bad = matches!(exit, Exit::RolledBack | Exit::PeopleNeeded);
    let log = if bad {
        client.logs(&follow.service, Some(rollout.candidate), LOG_LINES).await.unwrap_or_default()
    } else {
        Vec::new()
    };
    let reason = rollout.moments.last().map_or(String::new(), |moment| moment.text.clone());
    if follow.json {
        let event = if rollout.outcome.is_some() { "ended" } else { "open" };
        let ended = json!({"event": event, "service": follow.service, "rollout": rollout.id,
            "revision": rollout.candidate, "version": rollout.version, "state": rollout.state,
            "outcome": rollout.outcome, "reason": reason, "log": log});
        screen.print(&[ended.to_string()]);
        return Ok(exit);
    }
    let paint = Paint::stdout();
    let mut lines = Vec::new();
    if !log.is_empty() {
        lines.push(paint.dim(format!("last lines of {}:", rollout.candidate)));
        lines.extend(log.iter().map(|line| format!("  {line}")));
    }
    let called = format!("{} {} ({})", follow.service, rollout.candidate, rollout.version);
    let took =
        rollout.ended.map_or_else(String::new, |ended| format!(" in {}", render::span(ended.since(rollout.started))));
    let last = match exit {
        Exit::Done => paint.good(format!("done: {called}: {reason}{took}")),
        Exit::Open => paint.warn(format!("open: {called}: {reason}; next: {}", next_of(rollout))),
        Exit::Refused => paint.bad(format!("{called}: {reason}")),
        _ => paint.bad(format!("{called}: {reason}{took}")),
    };
    lines.push(last);
    // Each of its users met one of the two: that is worth comparing, however it ended.
    if rollout.sticky.is_some() && rollout.kind == Kind::Deploy && exit != Exit::Refused {
        lines.push(format!("  compare the two: evenkeel report {} {}", follow.service, rollout.id.0));
    }
    if exit == Exit::Refused {
        lines.push(format!("  next: evenkeel history {} --rollout {}", follow.service, rollout.id.0));
    }
    if bad {
        let (service, id) = (&follow.service, rollout.id.0);
        lines.push(format!(
            "  next: evenkeel history {service} --rollout {id}, evenkeel logs {service} --release {}",
            rollout.candidate
        ));
    }
    screen.print(&lines);
    Ok(exit)
}

/// What people can do about a rollout that is open.
fn next_of(rollout: &RolloutStatus) -> String {
    let for_people = rollout.waiting.as_ref().filter(|waiting| waiting.until.is_none());
    for_people.map_or_else(|| "evenkeel status --watch".to_owned(), |waiting| waiting.what.clone())
}
