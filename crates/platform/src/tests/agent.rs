use std::collections::BTreeMap;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::ids::{FencingToken, ReplicaId, Revision, ServiceName, Timestamp};
use evenkeel_core::ports::{Launch, PlatformError, Replica, Workloads};
use evenkeel_core::release::{Content, Digest, Release, Standing};
use evenkeel_core::spec::{Probes, Stop};
use evenkeel_wire::agent::{Answer, Ask, Request};
use evenkeel_wire::frame;
use tempfile::TempDir;
use tokio::time::timeout;

use super::PATIENCE;
use crate::ProcessPlatform;

/// An agent that writes down what it is asked, and answers from a function.
struct FakeAgent {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeAgent {
    fn start(state: &Path, answer: fn(&Ask) -> Option<Answer>) -> Self {
        let listener = frame::listen(state, "agent.sock").unwrap();
        let agent = Self { requests: Arc::default() };
        let requests = agent.requests.clone();
        std::thread::spawn(move || serve(&listener, &requests, answer));
        agent
    }

    fn asked(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Serves each connection on a thread of its own; one that gets no answer is closed.
fn serve(listener: &StdListener, requests: &Arc<Mutex<Vec<Request>>>, answer: fn(&Ask) -> Option<Answer>) {
    for stream in listener.incoming() {
        let (mut stream, requests) = (stream.unwrap(), requests.clone());
        std::thread::spawn(move || {
            while let Ok(Some(request)) = frame::read::<Request>(&mut stream) {
                requests.lock().unwrap().push(request.clone());
                match answer(&request.ask) {
                    Some(answer) => frame::write(&mut stream, &answer).unwrap(),
                    None => break,
                }
            }
        });
    }
}

fn state() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A platform whose agent cannot be started.
fn platform(state: &TempDir) -> ProcessPlatform {
    ProcessPlatform::new(state.path(), vec!["/nowhere/agent".into()])
}

/// A platform whose agent is a line of shell.
fn platform_with(state: &TempDir, script: &str) -> ProcessPlatform {
    ProcessPlatform::new(state.path(), ["sh", "-c", script].map(Into::into).into())
}

fn replica(launch: u32) -> ReplicaId {
    ReplicaId { service: ServiceName::new("web").unwrap(), revision: Revision(3), launch }
}

fn release(artefact: Option<Digest>) -> Release {
    let content = Content {
        command: vec!["./app".into(), "{{port}}".into()],
        env: BTreeMap::from([("KEY".into(), "value".into())]),
        artefact,
        directory: "/project".into(),
        probes: Probes::default(),
        stop: Stop::default(),
        dependencies: BTreeMap::new(),
    };
    Release {
        revision: Revision(3),
        version: "v3".into(),
        content,
        replicas: 1,
        created: Timestamp(1),
        standing: Standing::Untried,
    }
}

#[tokio::test]
async fn every_request_carries_the_token_of_the_last_hello() {
    let state = state();
    let agent = FakeAgent::start(state.path(), |_| Some(Answer::Done));
    let platform = platform(&state);
    platform.hello(FencingToken(7)).await.unwrap();
    platform.clone().kill(&replica(1)).await.unwrap();
    let asked = agent.asked();
    assert!(matches!(asked[..], [Request { ask: Ask::Hello, .. }, Request { ask: Ask::Kill { .. }, .. }]), "{asked:?}");
    assert!(asked.iter().all(|request| request.token == FencingToken(7)));
}

#[tokio::test]
async fn replicas_are_stopped_while_the_proxy_is_waited_for() {
    let state = state();
    let _agent = FakeAgent::start(state.path(), |ask| match ask {
        Ask::Listen { .. } => loop {
            std::thread::park();
        },
        _ => Some(Answer::Done),
    });
    let platform = platform(&state);
    let listening = tokio::spawn({
        let platform = platform.clone();
        async move { platform.listen(Vec::new()).await }
    });
    tokio::task::yield_now().await;
    timeout(Duration::from_secs(2), platform.kill(&replica(1))).await.unwrap().unwrap();
    assert!(!listening.is_finished());
    listening.abort();
}

#[tokio::test]
async fn a_release_runs_where_it_was_kept_or_else_where_its_spec_lies() {
    let state = state();
    let agent = FakeAgent::start(state.path(), |_| Some(Answer::Done));
    let platform = platform(&state);
    for (launch, artefact) in [(1, None), (2, Some(Digest("d".repeat(64))))] {
        platform.start(&replica(launch), &release(artefact), 99).await.unwrap();
    }
    let launch = |request: &Request| match &request.ask {
        Ask::Start { launch } => Launch::clone(launch),
        other => panic!("{other:?}"),
    };
    let launches: Vec<Launch> = agent.asked().iter().map(launch).collect();
    let directories: Vec<&PathBuf> = launches.iter().map(|launch| &launch.directory).collect();
    assert_eq!(directories, [&PathBuf::from("/project"), &state.path().join("artefacts").join("d".repeat(64))]);
    assert_eq!(launches[0].argv, ["./app", "{{port}}"]);
    assert_eq!(launches[0].env["KEY"], "value");
    assert_eq!(launches[0].log, state.path().join("logs/web/r3/1.log"));
    assert_eq!(launches[0].log_bytes_max, 99);
}

#[tokio::test]
async fn refusals_of_the_agent_are_told_apart() {
    let state = state();
    FakeAgent::start(state.path(), |ask| match ask {
        Ask::Kill { .. } => Some(Answer::OldToken { highest: FencingToken(9) }),
        Ask::Listen { .. } => Some(Answer::Failed { why: "address in use".into() }),
        _ => Some(Answer::Replicas { version: 1, replicas: Vec::new() }),
    });
    let platform = platform(&state);
    assert_eq!(platform.kill(&replica(1)).await, Err(PlatformError::Superseded(FencingToken(9))));
    assert_eq!(platform.listen(Vec::new()).await, Err(PlatformError::Refused("address in use".into())));
    assert!(matches!(platform.terminate(&replica(1)).await, Err(PlatformError::Unavailable(_))));
}

#[tokio::test]
async fn a_watch_does_not_hold_up_other_calls() {
    let state = state();
    let agent = FakeAgent::start(state.path(), |ask| match ask {
        Ask::Watch { .. } => {
            std::thread::park_timeout(PATIENCE);
            None
        }
        _ => Some(Answer::Done),
    });
    let platform = platform(&state);
    let watch = tokio::spawn({
        let platform = platform.clone();
        async move { platform.watch(1, Duration::from_secs(3)).await }
    });
    let seen = async {
        while agent.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap();
    timeout(PATIENCE / 2, platform.kill(&replica(1))).await.unwrap().unwrap();
    watch.abort();
}

#[tokio::test]
async fn forgetting_a_replica_removes_old_logs_of_its_release() {
    let state = state();
    FakeAgent::start(state.path(), |ask| match ask {
        Ask::Watch { .. } => {
            let running = Replica { replica: replica(1), pid: 1, port: 1, started: Timestamp(1), exit: None };
            Some(Answer::Replicas { version: 4, replicas: vec![running] })
        }
        _ => Some(Answer::Done),
    });
    let logs = state.path().join("logs/web/r3");
    std::fs::create_dir_all(&logs).unwrap();
    for launch in 1..=25 {
        std::fs::write(logs.join(format!("{launch}.log")), "x").unwrap();
    }
    let platform = platform(&state);
    assert_eq!(platform.watch(0, Duration::ZERO).await.unwrap().version, 4);
    platform.forget(&replica(25)).await.unwrap();
    assert_eq!(std::fs::read_dir(&logs).unwrap().count(), 21);
    assert!(logs.join("1.log").exists() && !logs.join("2.log").exists());
}

#[tokio::test]
async fn an_agent_that_cannot_be_started_or_ends_at_once_is_shown_with_its_last_words() {
    let state = state();
    let missing = platform(&state).ensure_agent().await.unwrap_err().to_string();
    assert!(missing.contains("cannot be started") && missing.contains("No such file"), "{missing}");
    let ended = platform_with(&state, "echo no room for sockets >&2; exit 3").ensure_agent().await;
    let ended = ended.unwrap_err().to_string();
    assert!(ended.contains("exit status: 3") && ended.contains("no room for sockets"), "{ended}");
}

/// Starts a fake agent as soon as the platform has run its command, which leaves a file as a sign.
fn answer_once_started(state: &TempDir) {
    let (path, sign) = (state.path().to_path_buf(), state.path().join("started"));
    std::thread::spawn(move || {
        while !sign.exists() {
            std::thread::yield_now();
        }
        FakeAgent::start(&path, |_| Some(Answer::Done));
    });
}

/// Writes a line for each start, and stays for as long as an agent would.
fn counting(state: &TempDir) -> ProcessPlatform {
    let started = state.path().join("started");
    platform_with(state, &format!("echo x >> '{}'; exec sleep 20", started.display()))
}

fn starts(state: &TempDir) -> usize {
    std::fs::read_to_string(state.path().join("started")).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_need_the_agent_one_starts_it() {
    let state = state();
    let platform = counting(&state);
    answer_once_started(&state);
    let needs: Vec<_> = (0..8).map(|_| platform.clone()).collect();
    let tasks: Vec<_> =
        needs.into_iter().map(|platform| tokio::spawn(async move { platform.ensure_agent().await })).collect();
    for task in tasks {
        timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(starts(&state), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_finds_no_agent_starts_it_and_the_next_one_works() {
    let state = state();
    let platform = counting(&state);
    answer_once_started(&state);
    let first = platform.kill(&replica(1)).await;
    assert!(matches!(&first, Err(PlatformError::Unavailable(why)) if why.contains("started again")), "{first:?}");
    platform.kill(&replica(1)).await.unwrap();
    assert_eq!(starts(&state), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_keeps_dying_is_not_started_for_every_call() {
    let state = state();
    let started = state.path().join("started");
    let platform = platform_with(&state, &format!("echo x >> '{}'; exit 1", started.display()));
    for _ in 0..5 {
        let failed = platform.kill(&replica(1)).await;
        assert!(matches!(failed, Err(PlatformError::Unavailable(_))), "{failed:?}");
    }
    assert_eq!(starts(&state), 1);
}
