//! What the tests stand on: a state directory, an agent that can be killed and started again, requests to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use evenkeel_core::ids::{FencingToken, ReplicaId, Revision, ServiceName};
use evenkeel_wire::agent::{Answer, Ask, Launch, Replica, Request};
use evenkeel_wire::frame;
use rustix::process::{Pid, Signal};

use crate::stand_in;

/// Longest wait for anything that is to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// An agent and its state directory. Dropping it shuts everything down.
pub(crate) struct World {
    directory: tempfile::TempDir,
    agent: Option<Child>,
}

impl World {
    /// A fresh directory with an agent that answers.
    pub(crate) fn new() -> Self {
        let mut world = Self { directory: tempfile::tempdir().unwrap(), agent: None };
        world.start_agent();
        world
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn start_agent(&mut self) {
        let mut command = stand_in::agent(&self.state());
        command.env("EVENKEEL_TEST_SECRET", "do not tell").stdout(Stdio::null()).stderr(Stdio::null());
        self.agent = Some(command.spawn().unwrap());
        // A request may still reach the accept queue of a killed predecessor's socket, so it must be answered.
        wait_for(
            "the agent to answer",
            || matches!(self.try_ask(1, Ask::Hello), Some(answer) if is_done_or_old(&answer)),
        );
    }

    /// Kills the agent as a crash would.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Waits for the agent's end after a shutdown; whether it ended well.
    pub(crate) fn agent_ends_well(&mut self) -> bool {
        self.agent.take().unwrap().wait().unwrap().success()
    }

    pub(crate) fn ask(&self, ask: Ask) -> Answer {
        self.ask_as(1, ask)
    }

    pub(crate) fn ask_as(&self, token: u64, ask: Ask) -> Answer {
        self.try_ask(token, ask).expect("an answer")
    }

    fn try_ask(&self, token: u64, ask: Ask) -> Option<Answer> {
        let mut stream = frame::connect(&self.state(), "agent.sock").ok()?;
        frame::write(&mut stream, &Request { token: FencingToken(token), ask }).ok()?;
        frame::read(&mut stream).ok()?
    }

    /// Asks for something that must be done.
    pub(crate) fn must(&self, ask: Ask) {
        let answer = self.ask(ask.clone());
        assert!(matches!(answer, Answer::Done), "{ask:?}: {answer:?}");
    }

    /// Asks for something that cannot be done, and returns why.
    pub(crate) fn must_not(&self, ask: Ask) -> String {
        let answer = self.ask(ask);
        let Answer::Failed { why } = answer else { panic!("not refused: {answer:?}") };
        why
    }

    pub(crate) fn watch(&self, seen: u64, wait_ms: u64) -> (u64, Vec<Replica>) {
        let answer = self.ask(Ask::Watch { seen, wait_ms });
        let Answer::Replicas { version, replicas } = answer else { panic!("no list: {answer:?}") };
        (version, replicas)
    }

    pub(crate) fn replica(&self, launch: u32) -> Replica {
        self.watch(0, 0).1.into_iter().find(|replica| replica.replica == id(launch)).expect("a known replica")
    }

    /// How a shell script is started as replica number `launch`.
    pub(crate) fn script(&self, launch: u32, script: &str) -> Launch {
        Launch {
            replica: id(launch),
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            env: [("ADDED".to_owned(), "at {{port}}".to_owned())].into(),
            directory: self.directory.path().to_owned(),
            log: self.log(launch),
            log_bytes_max: 1 << 20,
            endpoints: Vec::new(),
        }
    }

    pub(crate) fn start(&self, launch: u32, script: &str) {
        self.must(start(self.script(launch, script)));
    }

    pub(crate) fn log(&self, launch: u32) -> PathBuf {
        self.directory.path().join(format!("logs/{launch}.log"))
    }

    /// The first line a replica prints.
    pub(crate) fn first_line(&self, launch: u32) -> String {
        let read = || fs::read_to_string(self.log(launch)).unwrap_or_default();
        wait_for("a first line", || read().contains('\n'));
        read().lines().next().unwrap().to_owned()
    }

    /// Waits for a replica's end and tells how it ended.
    pub(crate) fn exit(&self, launch: u32) -> String {
        wait_for("an exit", || self.replica(launch).exit.is_some());
        self.replica(launch).exit.unwrap().how
    }

    pub(crate) fn marker(&self, launch: u32) -> PathBuf {
        self.state().join(format!("replicas/{}.json", id(launch)))
    }

    /// Changes a replica's marker behind the agent's back.
    pub(crate) fn edit_marker(&self, launch: u32, edit: impl FnOnce(&mut serde_json::Value)) {
        let mut marker = serde_json::from_slice(&fs::read(self.marker(launch)).unwrap()).unwrap();
        edit(&mut marker);
        fs::write(self.marker(launch), serde_json::to_vec(&marker).unwrap()).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.state().join("agent.lock").exists() || std::thread::panicking() && self.agent.is_none() {
            return;
        }
        if self.agent.is_none() && self.state().join("agent.sock").exists() {
            self.start_agent();
        }
        if let Some(mut agent) = self.agent.take() {
            if self.try_ask(u64::MAX, Ask::Shutdown).is_none() {
                let _ = agent.kill();
            }
            let _ = agent.wait();
        }
    }
}

pub(crate) fn id(launch: u32) -> ReplicaId {
    ReplicaId { service: ServiceName::new("web").unwrap(), revision: Revision(3), launch }
}

pub(crate) fn start(launch: Launch) -> Ask {
    Ask::Start { launch: Box::new(launch) }
}

pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Whether a process runs; a zombie does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

pub(crate) fn kill_hard(pid: u32) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

/// Stops a process as a debugger would.
pub(crate) fn stop(pid: u32) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::STOP).unwrap();
}

fn is_done_or_old(answer: &Answer) -> bool {
    matches!(answer, Answer::Done | Answer::OldToken { .. })
}
