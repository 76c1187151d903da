//! Is what a release depends on well? One request, one connection, or one command.
//!
//! What is asked may be slow or hostile: what is read of it is bounded in bytes and time, and made printable.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::gate::{Check, Look};
use evenkeel_core::ports::{Answered, CheckedFor};
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::command::{run_for_output, run_to_end};
use crate::http::{Failure, Got, USER_AGENT, failure, from_io, read_body};
use crate::text::{last_line, printable};

/// Where an answer is looked at for its text.
const BODY_BYTES: usize = 64 << 10;
/// What is read of the output of a program that measures.
const OUTPUT_BYTES: usize = 1 << 20;
/// Programs that measure at the same time, of all services together: each of them is a process of this machine.
static MEASURING: Semaphore = Semaphore::const_new(16);
/// Lines of it that are shown.
const OUTPUT_LINES: usize = 5;
/// Characters of each that are shown.
const LINE_CHARACTERS: usize = 200;

/// Asks a check once, within its time-out. Dropped before its end, it ends what it started.
pub(crate) async fn check(check: &Check, about: &CheckedFor) -> Answered {
    match &check.look {
        Look::Http { url, status, contains } => {
            let asked = timeout(check.timeout, send(url, None)).await.unwrap_or(Err(Failure::Late(check.timeout)));
            match asked {
                Ok(got) => judged(url, *status, contains.as_deref(), &got),
                Err(failure) => bad(format!("GET {url}: {failure}")),
            }
        }
        Look::Webhook { url, body } => {
            let posted = timeout(check.timeout, send(url, Some(told_of(body, about))));
            match posted.await.unwrap_or(Err(Failure::Late(check.timeout))) {
                Ok(got) if (200..=202).contains(&got.status.as_u16()) => {
                    good(format!("POST {url}: {}", status_line(got.status)))
                }
                Ok(got) => bad(format!("POST {url}: {}{}", status_line(got.status), said(&got.body))),
                Err(failure) => bad(format!("POST {url}: {failure}")),
            }
        }
        Look::Tcp { address } => {
            let asked = timeout(check.timeout, connect(address)).await.unwrap_or(Err(Failure::Late(check.timeout)));
            match asked {
                Ok(_) => good(format!("{address}: accepts connections")),
                Err(failure) => bad(format!("{address}: {failure}")),
            }
        }
        Look::Command { command, env } => run(command, env, check.timeout, about).await,
    }
}

fn good(detail: String) -> Answered {
    Answered { good: true, detail }
}

fn bad(detail: String) -> Answered {
    Answered { good: false, detail }
}

async fn connect(address: &str) -> Result<TcpStream, Failure> {
    TcpStream::connect(address).await.map_err(|error| from_io(&error))
}

/// A text with what is known of a deploy in it.
fn told_of(text: &str, about: &CheckedFor) -> String {
    let known = [
        ("{{service}}", about.service.service().to_owned()),
        ("{{namespace}}", about.service.environment().to_owned()),
        ("{{environment}}", about.service.environment().to_owned()),
        ("{{version}}", about.version.clone()),
        ("{{release}}", about.revision.to_string()),
    ];
    known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// What an answer says beside its status, in one line.
fn said(body: &[u8]) -> String {
    let line = printable(&String::from_utf8_lossy(&body[..body.len().min(LINE_CHARACTERS)]));
    if line.trim().is_empty() { String::new() } else { format!(": {}", line.trim()) }
}

/// `GET`, or `POST` of a JSON object.
async fn send(url: &str, json: Option<String>) -> Result<Got, Failure> {
    let wrong = |what: &str| Failure::NoRequest(what.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong("this is no URL"))?;
    let authority = uri.authority().ok_or_else(|| wrong("the URL names no host"))?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = connect(&address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failure)?;
    // Dropped with this future, and the connection with it.
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = match json {
        Some(_) => Request::post(path).header(header::CONTENT_TYPE, "application/json"),
        None => Request::get(path),
    };
    let request = request
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Full::<bytes::Bytes>::from(json.unwrap_or_default()))
        .map_err(|error| Failure::NoRequest(error.to_string()))?;
    let (head, incoming) = sender.send_request(request).await.map_err(failure)?.into_parts();
    let mut got = Got { status: head.status, body: Vec::new(), complete: true };
    got.complete = read_body(incoming, BODY_BYTES, &mut got.body).await.is_ok();
    Ok(got)
}

fn judged(url: &str, status: Option<u16>, contains: Option<&str>, got: &Got) -> Answered {
    let line = format!("GET {url}: {}", status_line(got.status));
    let is_status = status.map_or(got.status.is_success(), |status| got.status.as_u16() == status);
    if !is_status {
        let wanted = status.map_or_else(|| "200 to 299".to_owned(), |status| status.to_string());
        return bad(format!("{line}, not {wanted}"));
    }
    match contains {
        Some(text) if !got.body.windows(text.len().max(1)).any(|part| part == text.as_bytes()) => {
            let part = if got.complete { "" } else { "; the body broke off" };
            bad(format!("{line} without `{text}` in its body{part}"))
        }
        Some(_) | None => good(line),
    }
}

fn status_line(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("")).trim_end().to_owned()
}

async fn run(command: &[String], env: &BTreeMap<String, String>, limit: Duration, about: &CheckedFor) -> Answered {
    let fill = |text: &str| text.replace("{{version}}", &about.version);
    let words: Vec<String> = command.iter().map(|word| fill(word)).collect();
    let env = env.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
    let Some(mut command) = prepared(&words, &env, about) else { return bad("there is no program to run".into()) };
    let called = words.join(" ");
    match run_to_end(&mut command, limit).await {
        Err(error) => bad(format!("{called}: could not be started: {error}")),
        Ok(end) if end.is_good => good(format!("{called}: exit status 0")),
        Ok(end) => bad(format!("{called}: {}{}", end.how, last_lines(&end.output))),
    }
}

/// A program with its marks in the environment, in the spec's folder; `None` where none is named.
fn prepared(words: &[String], env: &BTreeMap<String, String>, about: &CheckedFor) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&about.directory);
    command.env_remove("EVENKEEL_REPLICA").env_remove("EVENKEEL_STATE").env_remove("PORT");
    command.env("EVENKEEL_SERVICE", about.service.service()).env("EVENKEEL_ENVIRONMENT", about.service.environment());
    command.env("EVENKEEL_VERSION", &about.version).env("EVENKEEL_REVISION", about.revision.to_string());
    command.envs(env);
    Some(command)
}

/// A program that was run for what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Whether it ended by itself with exit status 0.
    pub is_good: bool,
    /// How it ended, in words.
    pub how: String,
    /// What it wrote to standard output; `None`: more than a mebibyte.
    pub output: Option<Vec<u8>>,
    /// The last line that it wrote to standard error; empty: none.
    pub said: String,
}

/// Runs a program to its end, in the spec's folder and with its marks in the environment; it and everything it started
/// is killed after `limit`.
///
/// Waiting for a place among all of them is part of the limit of whoever waits. Dropped before its end, it ends what it
/// started.
///
/// # Errors
/// In words: it cannot be started.
pub async fn ran(
    words: &[String],
    env: &BTreeMap<String, String>,
    about: &CheckedFor,
    limit: Duration,
) -> Result<Ran, String> {
    let mut command = prepared(words, env, about).ok_or("there is no program to run")?;
    let _place = MEASURING.acquire().await;
    let started = run_for_output(&mut command, limit, OUTPUT_BYTES).await;
    let (end, output) = started.map_err(|error| format!("could not be started: {error}"))?;
    let said = last_line(&end.output, LINE_CHARACTERS).unwrap_or_default();
    Ok(Ran { is_good: end.is_good, how: end.how, output, said })
}

fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let short = |line: &str| printable(line).trim_end().chars().take(LINE_CHARACTERS).collect::<String>();
    let lines: Vec<String> = text.lines().map(short).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(OUTPUT_LINES)..];
    if last.is_empty() { String::new() } else { format!("; last lines: {}", last.join(" | ")) }
}
