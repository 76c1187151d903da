//! The way to the agent, which is started when nobody answers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_core::ids::FencingToken;
use evenkeel_core::ports::PlatformError;
use evenkeel_wire::Client;
use evenkeel_wire::agent::{Answer, Ask, Request};
use tokio::process::Command;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::{limits, logs};

/// The agent's socket in the state directory.
const SOCKET: &str = "agent.sock";
/// Longest wait for an answer to anything but a watch.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the answer of an agent that waits for the proxy, which it does for 10 s.
const LISTEN_LIMIT: Duration = Duration::from_secs(12);
/// Longest wait for a Hello: the agent answers it at once, whatever else it does.
const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for an agent that was just started.
const START_LIMIT: Duration = Duration::from_secs(5);
/// An agent that has ended may have left the field to another one that is about to answer: the wait for that one.
const ENDED_LIMIT: Duration = Duration::from_secs(1);
/// Time between two looks for its answer.
const HELLO_PERIOD: Duration = Duration::from_millis(10);
/// Time between the end of one attempt and the next, where calls find no agent.
const START_PERIOD: Duration = Duration::from_secs(1);
/// Beyond this size the agent's log begins anew, and the old part is kept beside it.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Lines of it shown when the agent does not come up.
const LOG_LINES: usize = 5;

/// The agent of one state directory, as one controller sees it.
#[derive(Debug)]
pub struct Agent {
    state: PathBuf,
    command: Vec<String>,
    token: AtomicU64,
    /// For what is answered soon.
    calls: Client,
    /// For listening, which waits for the proxy and would hold up what is to be started or stopped meanwhile.
    listens: Client,
    /// For endpoints, which waits for the egress process.
    depends: Client,
    /// For watches, which wait for something to happen and would hold up the rest.
    watches: Client,
    /// Locked while an agent is being started; when the last attempt was over.
    started: Mutex<Option<Instant>>,
}

impl Agent {
    /// Talks to the agent whose socket is in `state`; `command` starts one. Nothing happens until the first call.
    #[must_use]
    pub fn new(state: PathBuf, command: Vec<String>) -> Self {
        Self {
            calls: Client::new(&state, SOCKET),
            listens: Client::new(&state, SOCKET),
            depends: Client::new(&state, SOCKET),
            watches: Client::new(&state, SOCKET),
            state,
            command,
            token: AtomicU64::new(0),
            started: Mutex::new(None),
        }
    }

    /// Sends this token from here on.
    pub fn set_token(&self, token: FencingToken) {
        self.token.store(token.0, Ordering::Relaxed);
    }

    /// Makes sure that an agent answers, and starts one when nobody does.
    ///
    /// # Errors
    /// [`PlatformError::Unavailable`] with the agent's last words when it does not answer within 5 s;
    /// [`PlatformError::Superseded`] when it knows a newer controller.
    pub async fn ensure(&self) -> Result<(), PlatformError> {
        let mut started = self.started.lock().await;
        self.ensure_alone(&mut started).await
    }

    /// Asks for something that is done at once.
    ///
    /// # Errors
    /// [`PlatformError`], after an attempt to start the agent where none was.
    pub async fn call(&self, ask: Ask) -> Result<(), PlatformError> {
        done(self.exchange(&self.calls, ask, ANSWER_LIMIT).await?)
    }

    /// Asks for these addresses to be listened on.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn listen(&self, addresses: Vec<SocketAddr>) -> Result<(), PlatformError> {
        done(self.exchange(&self.listens, Ask::Listen { addresses }, LISTEN_LIMIT).await?)
    }

    /// Asks for endpoints to be listened on.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn depend(&self, ask: Ask) -> Result<Answer, PlatformError> {
        self.exchange(&self.depends, ask, LISTEN_LIMIT).await
    }

    /// The token that is sent.
    pub fn token(&self) -> FencingToken {
        FencingToken(self.token.load(Ordering::Relaxed))
    }

    /// Asks for something that is answered after up to `wait`.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn watch(&self, ask: Ask, wait: Duration) -> Result<Answer, PlatformError> {
        self.exchange(&self.watches, ask, wait + ANSWER_LIMIT).await
    }

    async fn exchange(&self, client: &Client, ask: Ask, limit: Duration) -> Result<Answer, PlatformError> {
        match client.ask(&self.request(ask), limit).await {
            Ok(answer) => accepted(answer),
            Err(error) if is_gone(&error) => Err(self.revive(&error).await),
            Err(error) => Err(silent(&error)),
        }
    }

    fn request(&self, ask: Ask) -> Request {
        Request { token: self.token(), ask }
    }

    /// Starts an agent in place of one that is gone, unless somebody does or just did; says why this call failed.
    async fn revive(&self, gone: &io::Error) -> PlatformError {
        let Ok(mut started) = self.started.try_lock() else { return silent(gone) };
        if started.is_some_and(|at| at.elapsed() < START_PERIOD) {
            return silent(gone);
        }
        match self.ensure_alone(&mut started).await {
            Ok(()) => PlatformError::Unavailable("the agent was gone and has been started again".into()),
            Err(error) => error,
        }
    }

    async fn ensure_alone(&self, started: &mut Option<Instant>) -> Result<(), PlatformError> {
        match self.hello().await {
            Ok(answer) => done(accepted(answer)?),
            Err(error) if is_gone(&error) => {
                let outcome = self.start().await;
                *started = Some(Instant::now());
                outcome
            }
            // It lives and is stuck. A second one could not take its place.
            Err(error) => Err(silent(&error)),
        }
    }

    async fn hello(&self) -> io::Result<Answer> {
        self.calls.ask(&self.request(Ask::Hello), HELLO_LIMIT).await
    }

    async fn start(&self) -> Result<(), PlatformError> {
        let mut ended = self.spawn().map_err(|error| self.not_started(&error.to_string()))?;
        let begun = Instant::now();
        let mut how = None;
        let mut looks = interval(HELLO_PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.hello().await {
                Ok(answer) => return done(accepted(answer)?),
                Err(error) if !is_gone(&error) => return Err(silent(&error)),
                Err(_) => {}
            }
            if how.is_none() {
                how = ended.try_recv().ok().map(|status| (Instant::now(), status));
            }
            if let Some((_, status)) = how.filter(|(at, _)| at.elapsed() > ENDED_LIMIT) {
                return Err(self.not_started(&status.to_string()));
            }
            if begun.elapsed() > START_LIMIT {
                return Err(self.not_started(&format!("no answer within {} s", START_LIMIT.as_secs())));
            }
        }
    }

    /// Starts the command in a process group of its own: what ends the controller at a terminal leaves it alone.
    fn spawn(&self) -> io::Result<oneshot::Receiver<ExitStatus>> {
        let (program, arguments) = self.command.split_first().ok_or(ErrorKind::InvalidInput)?;
        let log = open_log(&self.log())?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            // Of a replica, when evenkeel is run from within one: they would mark what is started here as its own.
            .env_remove("EVENKEEL_REPLICA")
            .env_remove("EVENKEEL_STATE")
            .env_remove("PORT")
            // It may hold a password, which no replica needs.
            .env_remove("EVENKEEL_STORE")
            .spawn()?;
        if let Some(pid) = child.id() {
            limits::restore_open_files(pid);
            info!(pid, "agent started");
        }
        let (tell, ended) = oneshot::channel();
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                warn!(%status, "agent ended");
                let _ = tell.send(status);
            }
        });
        Ok(ended)
    }

    fn log(&self) -> PathBuf {
        self.state.join("logs").join("agent.log")
    }

    fn not_started(&self, why: &str) -> PlatformError {
        let mut words = format!("the agent cannot be started: {why}");
        for line in logs::tail(&self.log(), LOG_LINES) {
            words.push_str("\n  ");
            words.push_str(&line);
        }
        PlatformError::Unavailable(words)
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(path, logs::earlier_part(path))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn accepted(answer: Answer) -> Result<Answer, PlatformError> {
    match answer {
        Answer::OldToken { highest } => Err(PlatformError::Superseded(highest)),
        Answer::Failed { why } => Err(PlatformError::Refused(why)),
        Answer::Done | Answer::Replicas { .. } | Answer::Ports { .. } => Ok(answer),
    }
}

fn done(answer: Answer) -> Result<(), PlatformError> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Replicas { .. } | Answer::Ports { .. } | Answer::OldToken { .. } | Answer::Failed { .. } => {
            Err(unexpected(&answer))
        }
    }
}

/// For an answer that belongs to another question.
pub(crate) fn unexpected(answer: &Answer) -> PlatformError {
    PlatformError::Unavailable(format!("the agent gave an answer to another question: {answer:?}"))
}

/// Whether nobody is there, or somebody was and closed; not when somebody is late or not understood.
fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof | NotConnected)
}

fn silent(error: &io::Error) -> PlatformError {
    PlatformError::Unavailable(format!("the agent does not answer: {error}"))
}
