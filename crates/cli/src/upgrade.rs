//! `evenkeel upgrade`: what runs on this machine becomes this program, one process after the other, and no request is lost.
//!
//! First the controller: one of this program stands by, and takes over as the earlier one ends. It starts what else is
//! needed from this program: an agent once the earlier one has ended (replicas and proxy go on without one, and are adopted).
//! That one starts a proxy on the same sockets, and the earlier proxy finishes what it has.

use std::time::Duration;

use evenkeel_wire::agent::{Answer, Ask, Request};
use evenkeel_wire::{Client as Wire, frame};
use rustix::process::{Pid, Signal};
use serde_json::json;
use tokio::time::Instant;

use crate::args::UpgradeArgs;
use crate::client::Client;
use crate::commands::say;
use crate::exit::{Exit, Failure};
use crate::place::{CONTROL_SOCKET, Place};
use crate::{lead, up};

const AGENT_SOCKET: &str = "agent.sock";
const PROXY_SOCKET: &str = "proxy.sock";
/// Longest wait for a process of this program to be at work.
const WORK_LIMIT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Replaces controller, agent and proxy, or the proxy alone.
///
/// # Errors
/// One of them could not be replaced. Those before it are, and everything is at work.
pub(crate) async fn run(place: Place, args: &UpgradeArgs, is_json: bool) -> Result<Exit, Failure> {
    let client = Client::new(place.clone());
    client.overview().await?;
    let tell = |what: &str, (from, to): (Pid, Pid)| {
        let (from, to) = (from.as_raw_nonzero(), to.as_raw_nonzero());
        if is_json {
            say(json!({"event": "replaced", "what": what, "from": from, "to": to}));
        } else {
            say(format!("{what}: process {from} is replaced by {to}"));
        }
    };
    if !args.proxy_only {
        tell("controller", controller(&place, &client).await?);
        tell("agent", agent(&place, &client).await?);
    }
    tell("proxy", proxy(&place, args.drain).await?);
    if !is_json {
        say(format!("the earlier proxy finishes what it has, for {} s at most", args.drain));
    }
    Ok(Exit::Done)
}

/// Who listens on a socket.
fn listens(place: &Place, name: &str) -> Option<Pid> {
    let stream = frame::connect(place.path(), name).ok()?;
    rustix::net::sockopt::socket_peercred(&stream).ok().map(|peer| peer.pid)
}

/// Waits until somebody else than before listens on a socket.
async fn other_than(before: Pid, place: &Place, name: &str) -> Result<Pid, Failure> {
    let began = Instant::now();
    loop {
        match listens(place, name) {
            Some(pid) if pid != before => return Ok(pid),
            _ if began.elapsed() >= WORK_LIMIT => {
                let waited = WORK_LIMIT.as_secs();
                return Err(Failure::Internal(format!("nobody else answers on {name} after {waited} s")));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Waits until nothing is amiss.
async fn at_work(client: &Client) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        match client.ready().await {
            Ok(troubles) if troubles.is_empty() => return Ok(()),
            told if began.elapsed() >= WORK_LIMIT => {
                let troubles = told.map_or_else(|failure| failure.to_string(), |troubles| troubles.join("; "));
                return Err(Failure::Internal(format!("not ready after {} s: {troubles}", WORK_LIMIT.as_secs())));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

fn end(pid: Pid) -> Result<(), Failure> {
    rustix::process::kill_process(pid, Signal::TERM).map_err(|error| Failure::Internal(error.to_string()))
}

async fn controller(place: &Place, client: &Client) -> Result<(Pid, Pid), Failure> {
    let before = listens(place, CONTROL_SOCKET).ok_or_else(|| unheard("controller"))?;
    // Others that stand by are of the earlier program, and would be as quick.
    for other in lead::living(place).into_iter().filter_map(Pid::from_raw).filter(|pid| *pid != before) {
        end(other)?;
    }
    up::stand_by(place, None).await?;
    end(before)?;
    let after = other_than(before, place, CONTROL_SOCKET).await?;
    at_work(client).await?;
    Ok((before, after))
}

async fn agent(place: &Place, client: &Client) -> Result<(Pid, Pid), Failure> {
    let before = listens(place, AGENT_SOCKET).ok_or_else(|| unheard("agent"))?;
    end(before)?;
    let after = other_than(before, place, AGENT_SOCKET).await?;
    at_work(client).await?;
    Ok((before, after))
}

async fn proxy(place: &Place, drain: u32) -> Result<(Pid, Pid), Failure> {
    let before = listens(place, PROXY_SOCKET).ok_or_else(|| unheard("proxy"))?;
    let fence = std::fs::read_to_string(place.path().join("fence")).unwrap_or_default();
    let token = evenkeel_core::ids::FencingToken(fence.trim().parse().unwrap_or_default());
    let command = up::own_command("proxy", place)?;
    let ask = Ask::Replace { command, drain_ms: u64::from(drain) * 1_000 };
    let answer = Wire::new(place.path(), AGENT_SOCKET).ask(&Request { token, ask }, WORK_LIMIT).await;
    let why = match answer {
        Ok(Answer::Done) => return Ok((before, other_than(before, place, PROXY_SOCKET).await?)),
        Ok(Answer::Failed { why }) => why,
        Ok(Answer::OldToken { .. }) => "another controller has just taken over: once more".to_owned(),
        Ok(Answer::Replicas { .. } | Answer::Ports { .. }) => "an answer to another question".to_owned(),
        Err(error) => format!("the agent does not answer: {error}"),
    };
    Err(Failure::Internal(format!("the proxy was not replaced: {why}")))
}

fn unheard(what: &str) -> Failure {
    Failure::Internal(format!("the {what} does not answer\n  next: evenkeel up"))
}
