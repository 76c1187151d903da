//! Several services at once: `deploy --group`, `rollback --group`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_api::routes::DeployBody;
use evenkeel_controller::GroupMember;
use evenkeel_controller::status::{Overview, RolloutStatus, ServiceStatus};
use evenkeel_core::Outcome;
use evenkeel_core::ids::{RolloutId, ServiceName};
use evenkeel_core::rollout::Why;
use serde_json::json;
use tokio::time::Instant;

use crate::args::DeployArgs;
use crate::client::Client;
use crate::commands::{read_spec, say};
use crate::exit::{Exit, Failure};
use crate::follow::over;
use crate::paint::Paint;
use crate::place::Place;
use crate::render;
use crate::screen::Screen;
use crate::{follow, gates};

/// How often the controller is asked.
const LOOK: Duration = Duration::from_millis(100);
/// A controller that does not answer is waited for this long: it may be starting anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// The beginning of the state of a rollout that waits for its fellows, and not for people.
const WAITS_FOR_FELLOWS: &str = "waiting for its group";

/// `evenkeel deploy --group`
///
/// # Errors
/// The spec has mistakes, the controller refuses or does not answer.
pub(crate) async fn deploy(
    named: Option<&Path>,
    args: &DeployArgs,
    group: &str,
    is_json: bool,
) -> Result<Exit, Failure> {
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from("evenkeel.yaml"));
    let file = read_spec(&path)?;
    let client = Client::new(Place::beside(named, &path)?);
    let version = args.version.clone().ok_or_else(|| Failure::Usage("which version? add --version V".into()))?;
    let body = DeployBody {
        version: version.clone(),
        spec: file.text,
        directory: file.folder,
        again: args.again,
        from: None,
        start_at_us: args.at.as_deref().map(gates::parse_time).transpose()?,
        skip_gates: args.skip_gates.clone(),
    };
    let path = match &args.env {
        Some(env) => format!("{group}@{env}"),
        None => group.to_owned(),
    };
    let members = client.deploy_group(&path, &body).await?.services;
    let names: Vec<&str> = members.iter().map(|member| member.service.as_str()).collect();
    if args.detach {
        match is_json {
            true => say(json!({"event": "started", "group": group, "version": version, "services": members})),
            false => say(format!("{} ({version}) are on their way\n  next: evenkeel status --watch", names.join(", "))),
        }
        return Ok(Exit::Done);
    }
    follow_all(&client, &members, is_json, args.timeout.map(Duration::from_secs), false).await
}

/// `evenkeel rollback --group`
///
/// # Errors
/// The controller refuses or does not answer.
pub(crate) async fn rollback(client: &Client, group: &str, is_json: bool) -> Result<Exit, Failure> {
    let members = client.rollback_group(group).await?;
    follow_all(client, &members, is_json, None, true).await
}

/// Follows the rollouts of a group until all of them have ended, or wait for people.
async fn follow_all(
    client: &Client,
    members: &[GroupMember],
    is_json: bool,
    timeout: Option<Duration>,
    back_is_done: bool,
) -> Result<Exit, Failure> {
    let wanted: Vec<(ServiceName, RolloutId)> =
        members.iter().filter_map(|member| Some((member.service.clone(), member.rollout?))).collect();
    let mut screen = Screen::new();
    let mut told: BTreeMap<ServiceName, usize> = BTreeMap::new();
    let begun = Instant::now();
    let mut answered = begun;
    loop {
        match client.overview().await {
            Err(failure @ (Failure::NotRunning(_) | Failure::Internal(_))) if answered.elapsed() >= PATIENCE => {
                return Err(failure);
            }
            Err(Failure::NotRunning(_) | Failure::Internal(_)) => {}
            Err(failure) => return Err(failure),
            Ok(overview) => {
                answered = Instant::now();
                let found = find(&overview, &wanted);
                show(&mut screen, &overview, &found, &mut told, is_json);
                let ends: Vec<Option<Exit>> = found.iter().map(|(_, rollout)| end(rollout, back_is_done)).collect();
                let is_late = timeout.is_some_and(|limit| begun.elapsed() >= limit);
                if (found.len() == wanted.len() && ends.iter().all(Option::is_some)) || is_late {
                    return Ok(close(&mut screen, &found, &ends, is_json));
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn find<'a>(
    overview: &'a Overview,
    wanted: &[(ServiceName, RolloutId)],
) -> Vec<(&'a ServiceStatus, &'a RolloutStatus)> {
    let of = |(name, id): &(ServiceName, RolloutId)| {
        let service = overview.services.iter().find(|service| service.service == *name)?;
        let rollout = service.rollout.iter().chain(&service.history).find(|rollout| rollout.id == *id)?;
        Some((service, rollout))
    };
    wanted.iter().filter_map(of).collect()
}

/// How a rollout ended, or that it waits for people.
fn end(rollout: &RolloutStatus, back_is_done: bool) -> Option<Exit> {
    let follow =
        follow::Follow { service: String::new(), rollout: rollout.id, json: true, timeout: None, back_is_done };
    over(rollout, &follow, false).filter(|_| !rollout.state.starts_with(WAITS_FOR_FELLOWS))
}

fn show(
    screen: &mut Screen,
    overview: &Overview,
    found: &[(&ServiceStatus, &RolloutStatus)],
    told: &mut BTreeMap<ServiceName, usize>,
    is_json: bool,
) {
    if screen.is_live() && !is_json {
        let trees = found.iter().flat_map(|(service, _)| render::tree(service, overview.at, Paint::stdout()));
        screen.draw(&trees.collect::<Vec<_>>());
        return;
    }
    let mut fresh = Vec::new();
    for (service, rollout) in found {
        let known = told.entry(service.service.clone()).or_default();
        fresh.extend(rollout.moments.iter().skip(*known).map(|moment| (*service, *rollout, moment)));
        *known = rollout.moments.len();
    }
    fresh.sort_by_key(|(.., moment)| moment.at);
    let width = found.iter().map(|(service, _)| service.service.as_str().len()).max().unwrap_or(0);
    let line = |(service, rollout, moment): &(&ServiceStatus, &RolloutStatus, &evenkeel_core::rollout::Moment)| {
        let name = &service.service;
        match is_json {
            true => json!({"event": "decided", "service": name, "rollout": rollout.id, "revision": rollout.candidate,
                "version": rollout.version, "at_us": moment.at, "state": rollout.state, "text": moment.text,
                "evidence": moment.evidence})
            .to_string(),
            false => {
                let after = moment.at.since(rollout.started).as_secs_f64();
                format!("{after:>7.1} s  {:<width$}  {}", name.as_str(), moment.text)
            }
        }
    };
    let lines: Vec<String> = fresh.iter().map(line).collect();
    screen.print(&lines);
}

/// The last line, and the exit code that agrees with it: the worst of all.
fn close(
    screen: &mut Screen,
    found: &[(&ServiceStatus, &RolloutStatus)],
    ends: &[Option<Exit>],
    is_json: bool,
) -> Exit {
    screen.leave();
    let severity = |exit: &Exit| match exit {
        Exit::Done => 0,
        Exit::Open => 1,
        Exit::RolledBack => 2,
        Exit::Refused => 3,
        Exit::PeopleNeeded => 4,
        Exit::Internal => 5,
    };
    let exit = ends.iter().map(|end| end.unwrap_or(Exit::Open)).max_by_key(severity).unwrap_or(Exit::Done);
    let called = |(service, rollout): &(&ServiceStatus, &RolloutStatus)| {
        format!("{} {} ({}): {}", service.service, rollout.candidate, rollout.version, rollout.state)
    };
    let each: Vec<String> = found.iter().map(called).collect();
    if is_json {
        let services: Vec<serde_json::Value> = found
            .iter()
            .map(|(service, rollout)| json!({"service": service.service, "rollout": rollout.id, "state": rollout.state, "outcome": rollout.outcome}))
            .collect();
        screen.print(&[json!({"event": "ended", "services": services}).to_string()]);
        return exit;
    }
    let paint = Paint::stdout();
    let all = each.join("; ");
    screen.print(&[match exit {
        Exit::Done => paint.good(format!("done: {all}")),
        Exit::Open => paint.warn(format!("open: {all}; next: evenkeel status --watch")),
        Exit::Internal | Exit::Refused | Exit::RolledBack | Exit::PeopleNeeded => {
            // The one that the others followed.
            let follows = |rollout: &RolloutStatus| {
                matches!(
                    &rollout.outcome,
                    Some(
                        Outcome::RolledBack { why: Why::Fellow { .. } } | Outcome::Stopped { why: Why::Fellow { .. } }
                    )
                )
            };
            let first =
                found.iter().find(|(_, rollout)| !follows(rollout) && rollout.outcome != Some(Outcome::Promoted));
            let next = first.map(|(service, _)| format!("\n  next: evenkeel explain {}", service.service));
            format!("{}{}", paint.bad(all), next.unwrap_or_default())
        }
    }]);
    exit
}
