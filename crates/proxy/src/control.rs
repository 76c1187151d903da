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

use evenkeel_core::balance::Out;
use evenkeel_core::guard::{CutName, Guard, cut_off, honours};
use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};
use evenkeel_core::table::RoutingTable;
use evenkeel_core::trial::Heard;
use evenkeel_wire::proxy::{Answer, InFlight, PassedOver, ReleaseReport, Report};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::doors::Doors;
use crate::elder::Elder;
use crate::fittings::{self, Fittings};
use crate::journal::Journal;
use crate::limits::{ADDRESSES_MAX, DISK_TIME, REVEAL_ALONE, WORKER_TIME};
use crate::pages::Shelf;
use crate::saved::{self, Desk, Kept};
use crate::trial::{Found, Logs};
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
    journal: Journal,
}

/// Held by whoever carries out an ask: asks never overlap.
struct State {
    kept: Kept,
    doors: Doors,
    shelf: Shelf,
    fittings: Arc<Fittings>,
    /// The sockets as the agent sent them.
    sockets: BTreeMap<SocketAddr, Vec<TcpListener>>,
    /// What has become final of trials.
    logs: Logs,
    /// Judges them.
    guard: Guard,
}

impl Control {
    /// Puts the saved table in force at all workers.
    ///
    /// # Errors
    /// A worker has gone, or the machine gives no thread.
    pub(crate) fn new(directory: PathBuf, workers: Vec<UnboundedSender<Command>>) -> io::Result<Self> {
        let journal = Journal::start(&directory)?;
        let kept = saved::load(&directory);
        let boot = RandomState::new().build_hasher().finish();
        let mut doors = Doors::new()?;
        let ciphers = doors.fit(&kept.table);
        let mut shelf = Shelf::new()?;
        let limiters = fittings::limiters(&Default::default(), &kept.table);
        let fittings =
            Arc::new(Fittings { journal: Some(journal.clone()), ciphers, limiters, pages: shelf.fit(&kept.table) });
        let (sockets, logs, guard) = (BTreeMap::new(), Logs::default(), Guard::default());
        let desk = Arc::new(Desk::new(kept.clone()));
        let table = kept.table.clone();
        let state = Mutex::new(State { kept, doors, shelf, fittings: fittings.clone(), sockets, logs, guard });
        let (retired, elder) = (AtomicBool::new(false), Elder::default());
        let control = Self { workers, boot, state, desk: desk.clone(), retired, elder, journal };
        let work = move || desk.work(|kept| saved::store(&directory, kept));
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
        let in_force = &state.kept.table;
        let is_fit = table.may_replace(in_force.generation, in_force.token);
        let is_fit = is_fit.and_then(|()| state.kept.cuts.iter().try_for_each(|cut| honours(&table, &cut.name)));
        if let Err(why) = is_fit {
            return Answer::Refused { why };
        }
        let generation = table.generation;
        let (told, edition) = self.put_in_force(&mut state, table);
        // Somebody may be harmful for whose place there was nobody before.
        self.cut_off_who_is_due(&mut state);
        drop(state);
        if !self.desk.wait(edition, DISK_TIME) {
            warn!(%generation, "routing table is in force, but the disk hangs");
        }
        match told {
            Ok(()) => Answer::Applied { generation },
            Err(error) => failed(&error),
        }
    }

    /// Every worker routes by a table from here on; answers its edition on disk, which is not waited for.
    fn put_in_force(&self, state: &mut State, table: RoutingTable) -> (io::Result<()>, u64) {
        state.kept.table = Arc::new(table);
        let ciphers = state.doors.fit(&state.kept.table);
        let limiters = fittings::limiters(&state.fittings.limiters, &state.kept.table);
        let pages = state.shelf.fit(&state.kept.table);
        state.fittings = Arc::new(Fittings { journal: Some(self.journal.clone()), ciphers, limiters, pages });
        let told = self.tell_all(|done| Command::Apply(state.kept.table.clone(), state.fittings.clone(), done));
        (told, self.desk.put(state.kept.clone()))
    }

    /// Cuts off whom the evidence shows to be harmful, without waiting for a controller or the disk.
    fn cut_off_who_is_due(&self, state: &mut State) {
        if self.has_retired() {
            // The table, and the file of it, are the successor's.
            return;
        }
        let began = Instant::now();
        for mut cut in state.guard.due(&state.kept.table) {
            let table = cut_off(&state.kept.table, &cut);
            state.kept.cuts.retain(|known| known.name != cut.name);
            state.kept.cuts.push(cut.clone());
            let (told, _) = self.put_in_force(state, table);
            cut.took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let CutName { service, rollout, revision } = &cut.name;
            warn!(%service, %rollout, release = %revision, to = %cut.to, why = %cut.case, took_us = cut.took_us, "cut off");
            if let Err(error) = told {
                error!(%error, "a worker has not heard of a cut");
            }
            if let Some(known) = state.kept.cuts.last_mut() {
                known.took_us = cut.took_us;
            }
        }
    }

    /// The table in force.
    pub(crate) fn table(&self) -> Answer {
        let table = self.lock().kept.table.clone();
        Answer::Table { table: Box::new((*table).clone()) }
    }

    /// Adds up what the workers have counted, and tells what has become final of trials beyond what was heard of them, and
    /// who was cut off. Cuts that are acknowledged are forgotten.
    pub(crate) fn report(&self, heard: &[Heard], acknowledged: &[CutName]) -> Answer {
        let mut state = self.lock();
        self.forget_cuts(&mut state, acknowledged);
        // All workers answer for the same slots.
        let at = Instant::now();
        match self.ask_all(|reply| Command::Report(at, reply)) {
            Ok(mut reports) => {
                self.take_found(&mut state, at, reports.iter_mut().map(|report| std::mem::take(&mut report.found)));
                let (generation, trials) = (state.kept.table.generation, state.logs.report(self.boot, heard));
                let (boot, pid, cuts) = (self.boot, std::process::id(), state.kept.cuts.clone());
                let mut warnings = state.doors.troubles();
                warnings.extend(state.shelf.troubles());
                warnings.extend(self.journal.trouble());
                let limited = fittings::limited(&state.fittings.limiters);
                let empty = Report { boot, pid, generation, trials, cuts, warnings, limited, ..Report::default() };
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
        let has_trial = state.kept.table.services.iter().any(|service| service.trial.is_some());
        if (has_trial || !state.logs.is_empty())
            && state.logs.is_stale(at, REVEAL_ALONE)
            && let Ok(found) = self.ask_all(|reply| Command::Reveal(at, reply))
        {
            self.take_found(&mut state, at, found);
        }
    }

    /// Adds what the workers found to be final at a moment, and judges by it.
    fn take_found(&self, state: &mut State, at: Instant, found: impl IntoIterator<Item = Vec<Found>>) {
        let State { kept, logs, guard, .. } = state;
        let is_judged = logs.add(self.boot, at, found, |service, rollout, reveal| {
            guard.take(&kept.table, service, rollout, reveal);
        });
        if is_judged {
            self.cut_off_who_is_due(state);
        }
    }

    fn forget_cuts(&self, state: &mut State, acknowledged: &[CutName]) {
        let before = state.kept.cuts.len();
        state.kept.cuts.retain(|cut| !acknowledged.contains(&cut.name));
        if state.kept.cuts.len() != before {
            self.desk.put(state.kept.clone());
        }
    }

    /// Opens the access log anew.
    pub(crate) fn reopen_log(&self) {
        self.journal.reopen();
    }

    /// Waits a moment until the access log has every line.
    pub(crate) fn end_log(&self) {
        self.journal.end();
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
    let mut passed_over: BTreeMap<ReplicaId, Vec<Out>> = BTreeMap::new();
    for part in workers {
        whole.refused += part.refused;
        whole.connections += part.connections as u64;
        for busy in part.in_flight {
            *in_flight.entry(busy.replica).or_default() += busy.requests;
        }
        for out in part.passed_over {
            passed_over.entry(out.replica).or_default().push(out.why);
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
    whole.passed_over = passed_over.into_iter().map(|(replica, whys)| told_of(replica, &whys)).collect();
    whole
}

fn told_of(replica: ReplicaId, whys: &[Out]) -> PassedOver {
    let refuse = whys.iter().filter(|why| **why == Out::Refuses).count();
    let why = if refuse * 2 > whys.len() { Out::Refuses } else { Out::Fails };
    PassedOver { replica, why, workers: u32::try_from(whys.len()).unwrap_or(u32::MAX) }
}
