//! One proxy process: how it is started, found again, handed its sockets and stopped.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::table::RoutingTable;
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::family::Family;
use crate::process::{self, Process};
use crate::spawn::open_log;
use crate::{clock, disk, logs};

/// Which of the processes that are kept alive and handed sockets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Under this name in the state directory it listens.
    pub(crate) socket: &'static str,
    /// Names the process that runs.
    pub(crate) marker: &'static str,
    /// Its log.
    pub(crate) log: &'static str,
}

/// What users connect to.
pub(crate) const PROXY: Part = Part { name: "proxy", socket: "proxy.sock", marker: "proxy.json", log: logs::PROXY };
/// What replicas reach their dependencies through.
pub(crate) const EGRESS: Part = Part { name: "egress", socket: "egress.sock", marker: "egress.pid", log: logs::EGRESS };

/// How long a proxy may take until it can be talked to.
const START_MAX: Duration = Duration::from_secs(5);
/// How long one that already runs may take.
const ADOPT_MAX: Duration = Duration::from_secs(1);
/// How often a connection is tried.
const TRY_EVERY: Duration = Duration::from_millis(2);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a stopping proxy may finish requests, and how much longer it may take to go.
const DRAIN: Duration = Duration::from_millis(1_000);
const GOING: Duration = Duration::from_millis(500);

/// The sockets of each address. Shared, because they are closed only after the proxy has let go of its copies.
pub(crate) type Sockets = BTreeMap<SocketAddr, Arc<Vec<OwnedFd>>>;

/// A proxy process.
pub(crate) struct Running {
    part: Part,
    process: Process,
    handle: OwnedFd,
    /// `None` for one an earlier agent has started.
    child: Option<Child>,
    /// `None` after an error; the next request connects again.
    stream: Option<UnixStream>,
    state: PathBuf,
    /// What it has taken.
    handed: Sockets,
    since: Instant,
}

impl Running {
    /// Starts a proxy and waits until it answers connections.
    pub(crate) fn start(part: Part, state: &Path, command: &[String]) -> io::Result<Self> {
        let mut child = spawn(part, state, command)?;
        let (process, handle) = identify(&child).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let mut proxy = Self::new(part, state, process, handle, Some(child));
        proxy.write_marker();
        match proxy.connect(START_MAX) {
            Ok(stream) => proxy.stream = Some(stream),
            Err(error) => {
                let how = proxy.bury();
                return Err(io::Error::new(error.kind(), format!("{error} ({how})")));
            }
        }
        Ok(proxy)
    }

    /// Finds the proxy of an earlier agent, and takes back its sockets. One that does not answer is killed: as long as
    /// it lives, its addresses cannot be had.
    pub(crate) fn adopt(part: Part, state: &Path) -> Option<Self> {
        let process = marked(part, state).or_else(|| answering(part, state))?;
        let handle = process.hold()?;
        let mut proxy = Self::new(part, state, process, handle, None);
        match proxy.connect(ADOPT_MAX).and_then(|stream| proxy.take_back(stream)) {
            Ok(()) => {
                proxy.write_marker();
                Some(proxy)
            }
            Err(error) => {
                tracing::error!(part = part.name, pid = proxy.process.pid, %error, "an earlier one does not answer; killing it");
                proxy.bury();
                None
            }
        }
    }

    /// The process handle, readable once the proxy is dead.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// How long it has been running under our eyes.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// What it has taken.
    pub(crate) fn handed(&self) -> &Sockets {
        &self.handed
    }

    /// Hands over what it lacks and has it drop what is no longer wanted.
    pub(crate) fn hand_over(&mut self, wanted: &Sockets) -> io::Result<()> {
        let held = |sockets: &Sockets, address: &SocketAddr, those: &Arc<Vec<OwnedFd>>| {
            sockets.get(address).is_some_and(|these| Arc::ptr_eq(these, those))
        };
        let dropped: Vec<SocketAddr> =
            self.handed.iter().filter(|(at, those)| !held(wanted, at, those)).map(|(at, _)| *at).collect();
        for address in dropped {
            self.ask_done(&Ask::Unlisten { address }, &[])?;
            self.handed.remove(&address);
        }
        for (address, sockets) in wanted {
            if !self.handed.contains_key(address) {
                let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
                self.ask_done(&Ask::Listen { address: *address, sockets: sockets.len() }, &descriptors)?;
                self.handed.insert(*address, Arc::clone(sockets));
            }
        }
        Ok(())
    }

    /// Asks it to finish what is in flight and go; kills it when it does not.
    pub(crate) fn stop(mut self) {
        let drain_ms = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
        let asked = self.ask_done(&Ask::Stop { drain_ms }, &[]);
        if asked.is_err() || !process::wait_until_dead(&self.handle, Some(DRAIN + GOING)) {
            tracing::warn!(part = self.part.name, pid = self.process.pid, "did not stop when asked; killing it");
        }
        self.bury();
    }

    /// Makes sure that it is dead, reaps it if it is ours, and tells how it ended.
    pub(crate) fn bury(&mut self) -> String {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        match &mut self.child {
            Some(child) => child.wait().map_or_else(|error| error.to_string(), |status| status.to_string()),
            None => {
                process::wait_until_dead(&self.handle, Some(ANSWER_MAX));
                "exit status unknown".to_owned()
            }
        }
    }

    fn new(part: Part, state: &Path, process: Process, handle: OwnedFd, child: Option<Child>) -> Self {
        let (state, handed, since) = (state.to_owned(), Sockets::new(), clock::instant());
        Self { part, process, handle, child, stream: None, state, handed, since }
    }

    fn write_marker(&self) {
        let written = serde_json::to_vec(&self.process).map_err(io::Error::from);
        if let Err(error) = written.and_then(|text| disk::replace(&self.state.join(self.part.marker), &text)) {
            tracing::warn!(%error, "the marker could not be written; a successor will not find it");
        }
    }

    /// Tries until somebody listens; the socket of a dead predecessor refuses.
    fn connect(&self, limit: Duration) -> io::Result<UnixStream> {
        let start = clock::instant();
        loop {
            let refused = match frame::connect(&self.state, self.part.socket) {
                Ok(stream) if !self.is_served_by(&stream) => io::Error::other("another proxy answers"),
                Ok(stream) => {
                    stream.set_read_timeout(Some(ANSWER_MAX))?;
                    stream.set_write_timeout(Some(ANSWER_MAX))?;
                    return Ok(stream);
                }
                Err(error) => error,
            };
            if process::wait_until_dead(&self.handle, Some(TRY_EVERY)) {
                return Err(io::Error::other(format!("the {} ended before it could be talked to", self.part.name)));
            }
            if start.elapsed() > limit {
                return Err(io::Error::new(
                    refused.kind(),
                    format!("no connection to the {}: {refused}", self.part.name),
                ));
            }
        }
    }

    /// Whether it is this process that listens: where one takes over from another, the earlier one does for a while.
    fn is_served_by(&self, stream: &UnixStream) -> bool {
        let peer = rustix::net::sockopt::socket_peercred(stream);
        peer.is_ok_and(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(self.process.pid))
    }

    /// Starts a successor with the same table and sockets, and has this one finish what it has.
    ///
    /// # Errors
    /// There is no successor; this one goes on.
    pub(crate) fn replace(&mut self, command: &[String], wanted: &Sockets, drain: Duration) -> io::Result<()> {
        let mut next = Self::start(self.part, &self.state, command).inspect_err(|_| self.write_marker())?;
        let handed_over = self.table().and_then(|table| {
            // One that it read from disk already is refused, and is the same.
            if let Some(table) = table {
                next.ask(&Ask::Apply { table }, &[])?;
            }
            next.hand_over(wanted)
        });
        if let Err(error) = handed_over {
            next.bury();
            self.write_marker();
            return Err(error);
        }
        let mut elder = std::mem::replace(self, next);
        let pid = (elder.pid(), self.pid());
        tracing::info!(from = pid.0, to = pid.1, "proxy replaced");
        let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
        let retired = elder.ask_done(&Ask::Retire { drain_ms }, &[]);
        let met = retired.and_then(|()| match elder.stream.take() {
            Some(stream) => self.ask_done(&Ask::Elder, &[stream.as_fd()]),
            None => Ok(()),
        });
        if let Err(error) = met {
            tracing::warn!(pid = pid.0, %error, "the proxy that was replaced is not heard of");
        }
        let reap = move || {
            if !process::wait_until_dead(&elder.handle, Some(drain + GOING)) {
                tracing::warn!(pid = elder.pid(), "the proxy that was replaced did not go; killing it");
            }
            elder.bury();
        };
        std::thread::Builder::new().name("elder".to_owned()).spawn(reap).map(drop)
    }

    fn table(&mut self) -> io::Result<Option<Box<RoutingTable>>> {
        match self.ask(&Ask::Table, &[])? {
            Answer::Table { table } if table.generation.0 > 0 => Ok(Some(table)),
            Answer::Table { .. } => Ok(None),
            other => Err(io::Error::other(format!("the proxy answered {other:?}"))),
        }
    }

    fn take_back(&mut self, mut stream: UnixStream) -> io::Result<()> {
        frame::write(&mut stream, &Ask::Sockets)?;
        let Some(Answer::Sockets { addresses, sockets }) = frame::read(&mut stream)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy did not give its sockets back"));
        };
        let mut received = frame::receive_descriptors(&stream, addresses.len() * sockets)?.into_iter();
        for address in addresses {
            self.handed.insert(address, Arc::new(received.by_ref().take(sockets).collect()));
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn ask_done(&mut self, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.ask(ask, descriptors)? {
            Answer::Done => Ok(()),
            Answer::Failed { why } => Err(io::Error::other(why)),
            other => Err(io::Error::other(format!("the proxy answered {other:?}"))),
        }
    }

    fn ask(&mut self, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect(Duration::ZERO)?,
        };
        frame::write(&mut stream, ask)?;
        frame::send_descriptors(&stream, descriptors)?;
        let answer = frame::read(&mut stream)?;
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy closed the connection");
        let answer = answer.ok_or_else(closed)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// The living proxy that the marker names.
fn marked(part: Part, state: &Path) -> Option<Process> {
    let marker: Process = serde_json::from_slice(&std::fs::read(state.join(part.marker)).ok()?).ok()?;
    marker.is_alive().then_some(marker)
}

/// Whoever listens on the proxy's socket, which only our user can reach: a proxy whose marker could not be written.
fn answering(part: Part, state: &Path) -> Option<Process> {
    let stream = frame::connect(state, part.socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Process::observe(u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?).ok()
}

/// No check needed: a child of ours keeps its pid until we reap it.
fn identify(child: &Child) -> io::Result<(Process, OwnedFd)> {
    let pid = process::pid(child.id()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((Process::observe(child.id())?, pidfd_open(pid, PidfdFlags::empty())?))
}

/// The proxy is a part of evenkeel: it gets the agent's environment, without the marks of a replica that started it.
fn spawn(part: Part, state: &Path, command: &[String]) -> io::Result<Child> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, format!("no program is given for the {}", part.name));
    let (program, arguments) = command.split_first().ok_or_else(missing)?;
    let log = open_log(&state.join(logs::DIRECTORY).join(part.log))?;
    let mut proxy = Command::new(program);
    proxy.args(arguments).process_group(0);
    Family::unmark(&mut proxy);
    proxy.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    proxy.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))
}
