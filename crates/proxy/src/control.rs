//! Carries out what the controller and the agent ask, one ask at a time.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};
use evenkeel_core::table::RoutingTable;
use evenkeel_core::trial::Heard;
use evenkeel_wire::proxy::{Answer, InFlight, ReleaseReport, Report};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::doors::Doors;
use crate::elder::Elder;
use crate::fittings::{self, Fittings};
use crate::limits::{ADDRESSES_MAX, DISK_TIME, REVEAL_ALONE, WORKER_TIME};
use crate::saved::{self, Desk};
use crate::trial::Logs;
use crate::worker::{Command, WorkerReport};

/// The proxy, as its operator's side sees it.
pub(crate) struct Control {
    workers: Vec<UnboundedSender<Command>>,
    boot: u64,
    state: Mutex<State>,
    desk: Arc<Desk>,
    /// A successor serves.
    retired: AtomicBool,
    elder: Elder,
}

/// Held by whoever carries out an ask: asks never overlap.
struct State {
    table: Arc<RoutingTable>,
    doors: Doors,
    fittings: Arc<Fittings>,
    /// The sockets as the agent sent them.
    sockets: BTreeMap<SocketAddr, Vec<TcpListener>>,
    /// What has become final of trials.
    logs: Logs,
}

impl Control {
    /// Puts the saved table in force at all workers.
    ///
    /// # Errors
    /// A worker has gone, or the machine gives no thread.
    pub(crate) fn new(directory: PathBuf, workers: Vec<UnboundedSender<Command>>) -> io::Result<Self> {
        let table = Arc::new(saved::load(&directory));
        let boot = RandomState::new().build_hasher().finish();
        let mut doors = Doors::new()?;
        let ciphers = doors.fit(&table);
        let limiters = fittings::limiters(&Default::default(), &table);
        let fittings = Arc::new(Fittings { ciphers, limiters });
        let (sockets, logs) = (BTreeMap::new(), Logs::default());
        let state = Mutex::new(State { table: table.clone(), doors, fittings: fittings.clone(), sockets, logs });
        let desk = Arc::new(Desk::new(table.clone()));
        let (retired, elder) = (AtomicBool::new(false), Elder::default());
        let control = Self { workers, boot, state, desk: desk.clone(), retired, elder };
        let work = move || desk.work(|table| saved::store(&directory, table));
        std::thread::Builder::new().name("disk".into()).spawn(work)?;
        control.tell_all(|done| Command::Apply(table.clone(), fittings.clone(), done))?;
        Ok(control)
    }

    /// Puts a table in force: everywhere first, then on disk.
    ///
    /// Users are spared first: a disk that is slow, hangs or fails does not keep them on a bad release. It holds up
    /// this answer for a moment, and no other ask.
    pub(crate) fn apply(&self, table: RoutingTable) -> Answer {
        let mut state = self.lock();
        if let Err(why) = table.may_replace(state.table.generation, state.table.token) {
            return Answer::Refused { why };
        }
        let generation = table.generation;
        let in_force = Arc::new(table);
        state.table = in_force.clone();
        let ciphers = state.doors.fit(&in_force);
        let limiters = fittings::limiters(&state.fittings.limiters, &in_force);
        state.fittings = Arc::new(Fittings { ciphers, limiters });
        let told = self.tell_all(|done| Command::Apply(state.table.clone(), state.fittings.clone(), done));
        self.desk.put(state.table.clone());
        drop(state);
        if !self.desk.wait(generation, DISK_TIME) {
            warn!(%generation, "routing table is in force, but the disk hangs");
        }
        match told {
            Ok(()) => Answer::Applied { generation },
            Err(error) => failed(&error),
        }
    }

    /// The table in force.
    pub(crate) fn table(&self) -> Answer {
        let table = self.lock().table.clone();
        Answer::Table { table: Box::new((*table).clone()) }
    }

    /// Adds up what the workers have counted, and tells what has become final of trials beyond what was heard of them.
    pub(crate) fn report(&self, heard: &[Heard]) -> Answer {
        let mut state = self.lock();
        // All workers answer for the same slots.
        let at = Instant::now();
        match self.ask_all(|reply| Command::Report(at, reply)) {
            Ok(mut reports) => {
                state.logs.add(self.boot, at, reports.iter_mut().map(|report| std::mem::take(&mut report.found)));
                let (generation, trials) = (state.table.generation, state.logs.report(self.boot, heard));
                let (boot, pid) = (self.boot, std::process::id());
                let warnings = state.doors.troubles();
                let limited = fittings::limited(&state.fittings.limiters);
                let empty = Report { boot, pid, generation, trials, warnings, limited, ..Report::default() };
                let mut whole = merge(empty, reports);
                drop(state);
                self.elder.add_to(&mut whole);
                Answer::Report(Box::new(whole))
            }
            Err(error) => failed(&error),
        }
    }

    /// Takes what has become final from the workers where no controller has asked for a while.
    pub(crate) fn reveal_alone(&self) {
        let mut state = self.lock();
        let at = Instant::now();
        let has_trial = state.table.services.iter().any(|service| service.trial.is_some());
        if (has_trial || !state.logs.is_empty())
            && state.logs.is_stale(at, REVEAL_ALONE)
            && let Ok(found) = self.ask_all(|reply| Command::Reveal(at, reply))
        {
            state.logs.add(self.boot, at, found);
        }
    }

    /// Takes note that a successor serves.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Tells whether a successor serves.
    pub(crate) fn has_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Takes a connection to the proxy that was here before.
    pub(crate) fn take_elder(&self, stream: Option<UnixStream>) {
        self.elder.meet(stream);
    }

    /// Accepts on sockets of an address, dealt out to the workers in turn.
    pub(crate) fn listen(&self, address: SocketAddr, descriptors: Vec<OwnedFd>) -> Answer {
        let mut state = self.lock();
        let sockets: Vec<TcpListener> = descriptors.into_iter().map(TcpListener::from).collect();
        if let Err(why) = fits(&state.sockets, address, sockets.len()) {
            return Answer::Failed { why };
        }
        match self.deal(address, &sockets) {
            Ok(()) => {
                info!(%address, sockets = sockets.len(), "listening");
                state.sockets.insert(address, sockets);
                Answer::Done
            }
            Err(error) => failed(&error),
        }
    }

    /// With fewer sockets than workers, several workers accept on one.
    fn deal(&self, address: SocketAddr, sockets: &[TcpListener]) -> io::Result<()> {
        let mut hands: Vec<Vec<TcpListener>> = self.workers.iter().map(|_| Vec::new()).collect();
        for turn in 0..sockets.len().max(hands.len()) {
            let player = turn % hands.len();
            hands[player].push(sockets[turn % sockets.len()].try_clone()?);
        }
        let (answer, answers) = channel();
        for (worker, hand) in self.workers.iter().zip(hands) {
            send(worker, Command::Listen(address, hand, answer.clone()))?;
        }
        drop(answer);
        collect(&answers, self.workers.len())?.into_iter().collect()
    }

    /// Stops accepting on an address.
    pub(crate) fn unlisten(&self, address: SocketAddr) -> Answer {
        let mut state = self.lock();
        match self.tell_all(|done| Command::Unlisten(address, done)) {
            Ok(()) => {
                state.sockets.remove(&address);
                Answer::Done
            }
            Err(error) => failed(&error),
        }
    }

    /// Lends the listening sockets: `with` gets the answer and the descriptors that belong behind it.
    pub(crate) fn sockets<T>(&self, with: impl FnOnce(&Answer, &[BorrowedFd<'_>]) -> T) -> T {
        let state = self.lock();
        let descriptors: Vec<BorrowedFd<'_>> = state.sockets.values().flatten().map(AsFd::as_fd).collect();
        let answer = Answer::Sockets {
            addresses: state.sockets.keys().copied().collect(),
            sockets: state.sockets.values().next().map_or(0, Vec::len),
        };
        with(&answer, &descriptors)
    }

    /// Has every worker finish what it has, and waits for that or for the end of the time given.
    pub(crate) fn stop(&self, drain: Duration) {
        let deadline = Instant::now() + drain;
        let (done, finished) = channel();
        let mut state = self.lock();
        for worker in &self.workers {
            // One that has gone has stopped.
            let _ = worker.send(Command::Stop(deadline, done.clone()));
        }
        state.sockets.clear();
        // Reports and the like go on during the wait.
        drop((state, done));
        while finished.recv().is_ok() {}
        for worker in &self.workers {
            let _ = worker.send(Command::End);
        }
    }

    fn tell_all(&self, command: impl Fn(Sender<()>) -> Command) -> io::Result<()> {
        self.ask_all(command).map(drop)
    }

    /// Gives every worker a command, and waits for all of them.
    fn ask_all<T>(&self, command: impl Fn(Sender<T>) -> Command) -> io::Result<Vec<T>> {
        let (answer, answers) = channel();
        for worker in &self.workers {
            send(worker, command(answer.clone()))?;
        }
        drop(answer);
        collect(&answers, self.workers.len())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every ask leaves the state whole, so one that panicked does not take the others down.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.desk.close();
    }
}

fn send(worker: &UnboundedSender<Command>, command: Command) -> io::Result<()> {
    worker.send(command).map_err(|_| io::Error::other("a worker has stopped"))
}

fn collect<T>(answers: &Receiver<T>, count: usize) -> io::Result<Vec<T>> {
    let waited = |error| io::Error::other(format!("a worker did not answer: {error}"));
    (0..count).map(|_| answers.recv_timeout(WORKER_TIME).map_err(waited)).collect()
}

fn failed(error: &io::Error) -> Answer {
    Answer::Failed { why: error.to_string() }
}

/// Every address has as many sockets as the others: that is how they are given back.
fn fits(held: &BTreeMap<SocketAddr, Vec<TcpListener>>, address: SocketAddr, count: usize) -> Result<(), String> {
    if count == 0 {
        return Err("no sockets".into());
    }
    if held.len() >= ADDRESSES_MAX {
        return Err(format!("more than {ADDRESSES_MAX} addresses"));
    }
    match held.iter().find(|(other, sockets)| **other != address && sockets.len() != count) {
        Some((other, sockets)) => Err(format!("{count} sockets for {address}, but {} for {other}", sockets.len())),
        None => Ok(()),
    }
}

fn merge(mut whole: Report, workers: Vec<WorkerReport>) -> Report {
    let mut releases: BTreeMap<(ServiceName, Revision), ReleaseReport> = BTreeMap::new();
    let mut in_flight: BTreeMap<ReplicaId, u64> = BTreeMap::new();
    for part in workers {
        whole.refused += part.refused;
        whole.connections += part.connections as u64;
        for busy in part.in_flight {
            *in_flight.entry(busy.replica).or_default() += busy.requests;
        }
        for release in part.releases {
            let key = (release.service.clone(), release.revision);
            match releases.get_mut(&key) {
                Some(sum) => sum.merge(&release),
                None => drop(releases.insert(key, release)),
            }
        }
    }
    whole.releases = releases.into_values().collect();
    whole.in_flight = in_flight.into_iter().map(|(replica, requests)| InFlight { replica, requests }).collect();
    whole
}
