//! Is a replica well? One request over HTTP or gRPC, one connection, or one command.
//!
//! A replica may be hostile: what is read of it is bounded in bytes and time, and made printable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_core::ports::Answered;
use evenkeel_core::spec::{ProbeCheck, SmokeCheck};
use evenkeel_wire::agent::{INHERITED, env_value};
use http::StatusCode;
use rustix::io::Errno;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::command::run_to_end;
use crate::grpc::{self, Said};
use crate::http::{Failure, Get, Got, Span, connect_within, from_io, unless_local};
use crate::text::{first_line, last_line};

/// What is read of the body of a bad answer, for its first line.
const DETAIL_BYTES: usize = 1 << 10;
/// What is shown of that line.
const DETAIL_CHARACTERS: usize = 120;
/// Where a smoke check looks for its text.
const SMOKE_BYTES: usize = 64 << 10;

/// Commands that probe replicas at the same time, of all services together: each of them is a process of this machine.
const COMMANDS_MAX: usize = 32;
/// A place for each.
static COMMANDS: Semaphore = Semaphore::const_new(COMMANDS_MAX);

/// Where and with what a command runs that probes a replica: as the replica itself.
#[derive(Debug, Clone)]
pub struct Home {
    /// The replica's working directory.
    pub directory: PathBuf,
    /// What the release adds to the environment; `{{port}}` becomes the port.
    pub env: BTreeMap<String, String>,
}

/// Probes the replica on `port` once, within `limit`; a command needs to know its `home`.
///
/// What this machine lacks to send the probe is waited for in addition: that is not the replica's fault.
/// A redirect is good, as any status from 200 to 399, and is not followed. Cancel safe: the connection is closed.
pub async fn probe(port: u16, check: &ProbeCheck, limit: Duration, home: Option<&Home>) -> Answered {
    match check {
        ProbeCheck::Http { path, port: other, headers } => {
            http(Get { port: other.unwrap_or(port), path, headers, limit }).await
        }
        ProbeCheck::Tcp { port: other } => tcp(other.unwrap_or(port), limit).await,
        ProbeCheck::Grpc { port: other, service } => grpc(other.unwrap_or(port), service, limit).await,
        ProbeCheck::Exec { command } => match home {
            Some(home) => exec(command, home, port, limit).await,
            None => bad(format!("{}: its release is not known", shown(command))),
        },
    }
}

/// Smoke-tests the replica on `port` once. Cancel safe: the connection is closed.
pub async fn smoke(port: u16, check: &SmokeCheck) -> Answered {
    let get = Get { port, path: &check.path, headers: &[], limit: check.timeout };
    match unless_local(|| get.send(SMOKE_BYTES, |_| true)).await {
        Ok(got) => smoked(check, &got),
        Err(failure) => bad(format!("GET {}: {failure}", check.path)),
    }
}

async fn http(get: Get<'_>) -> Answered {
    match unless_local(|| get.send(DETAIL_BYTES, |status| !is_good(status))).await {
        Ok(got) if is_good(got.status) => good(format!("GET {}: {}", get.path, status_line(got.status))),
        Ok(got) => bad(format!("GET {}: {}{}", get.path, status_line(got.status), said(&got))),
        Err(failure) => bad(format!("GET {}: {failure}", get.path)),
    }
}

async fn tcp(port: u16, limit: Duration) -> Answered {
    match unless_local(|| connect_within(port, limit)).await {
        Ok(()) => good(format!("port {port}: accepts connections")),
        Err(failure) => bad(format!("port {port}: {failure}")),
    }
}

async fn grpc(port: u16, service: &str, limit: Duration) -> Answered {
    let called = if service.is_empty() { "gRPC health".to_owned() } else { format!("gRPC health of `{service}`") };
    match unless_local(|| grpc::ask(port, service, limit)).await {
        Ok(Said::Serving) => good(format!("{called}: SERVING")),
        Ok(Said::Other(what)) => bad(format!("{called}: {what}")),
        Err(failure) => bad(format!("{called}: {failure}")),
    }
}

/// Runs a command as the replica on `port` runs. Waiting for a place among all commands is not part of its limit: that
/// is not the replica's fault.
async fn exec(command: &[String], home: &Home, port: u16, limit: Duration) -> Answered {
    let fill = |text: &String| text.replace("{{port}}", &port.to_string());
    let Some((program, arguments)) = command.split_first() else { return bad("there is no program to run".into()) };
    let called = shown(command);
    let given = |(name, value): (&String, &String)| Ok((name.clone(), env_value(value, port)?));
    let env = match home.env.iter().map(given).collect::<std::io::Result<BTreeMap<_, _>>>() {
        Ok(env) => env,
        Err(error) => return bad(format!("{called}: a value of its environment cannot be read: {error}")),
    };
    let run = || {
        let mut command = Command::new(fill(program));
        command.args(arguments.iter().map(fill)).current_dir(&home.directory);
        command.env_clear().envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("PORT", port.to_string());
        command.envs(env.iter());
        async move { run_to_end(&mut command, limit).await.map_err(|error| from_spawn(&error)) }
    };
    let _place = COMMANDS.acquire().await;
    match unless_local(run).await {
        Ok(end) if end.is_good => good(format!("{called}: exit status 0")),
        Ok(end) => {
            let said = last_line(&end.output, DETAIL_CHARACTERS).map_or_else(String::new, |line| format!(": {line}"));
            bad(format!("{called}: {}{said}", end.how))
        }
        Err(failure) => bad(format!("{called}: could not be started: {failure}")),
    }
}

/// A machine that has no process left says nothing of a replica.
fn from_spawn(error: &std::io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => Failure::Local(error.to_string()),
        _ => from_io(error),
    }
}

fn shown(command: &[String]) -> String {
    command.join(" ").chars().take(DETAIL_CHARACTERS).collect()
}

fn smoked(check: &SmokeCheck, got: &Got) -> Answered {
    let line = format!("GET {}: {}", check.path, status_line(got.status));
    if got.status.as_u16() != check.status {
        return bad(format!("{line}, not {}{}", check.status, said(got)));
    }
    match &check.contains {
        Some(text) if holds(&got.body, text.as_bytes()) => good(line),
        Some(_) if !got.complete => bad(format!("{line}, body not complete within {}", Span(check.timeout))),
        Some(text) => bad(format!("{line}, without `{text}` in its first 64 KiB")),
        None => good(line),
    }
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

fn is_good(status: StatusCode) -> bool {
    (200..400).contains(&status.as_u16())
}

fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The first line of the body behind a colon, or nothing.
fn said(got: &Got) -> String {
    first_line(&got.body, DETAIL_CHARACTERS).map_or_else(String::new, |line| format!(": {line}"))
}

fn good(detail: String) -> Answered {
    Answered { good: true, detail }
}

fn bad(detail: String) -> Answered {
    Answered { good: false, detail }
}
