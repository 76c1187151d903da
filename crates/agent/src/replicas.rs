//! The book of replicas: every one the agent knows, running or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use evenkeel_core::dependency::EndpointKey;
use evenkeel_core::ids::ReplicaId;
use evenkeel_wire::agent::{Exit, Launch, Replica};
use rustix::process::Signal;

use crate::family::Family;
use crate::marker::{Marker, Markers};
use crate::ports::{self, NoFreePort};
use crate::process::Process;
use crate::{clock, life, sync};

/// How long killed replicas may take to go at a shutdown. Longer takes only a process stuck in the kernel.
const DYING: Duration = Duration::from_secs(5);

/// Replicas and what is done with them.
pub(crate) struct Replicas {
    /// How to find what a replica has started.
    pub(crate) family: Family,
    markers: Markers,
    book: Mutex<Book>,
    changed: Condvar,
}

struct Book {
    /// Grows with every change of the list, also from one agent to the next: it begins with the time of day.
    version: u64,
    markers: BTreeMap<ReplicaId, Marker>,
    closed: bool,
}

/// Why a request about a replica is not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody of that name.
    #[error("no replica {0} is known")]
    Unknown(ReplicaId),
    /// Records of running replicas are kept.
    #[error("replica {0} is still running")]
    Running(ReplicaId),
    /// A shutdown has begun.
    #[error("the agent is shutting down")]
    Closed,
    /// All ports are taken.
    #[error(transparent)]
    NoFreePort(#[from] NoFreePort),
    /// Nothing is started without a record on disk.
    #[error("the launch marker could not be written: {0}")]
    Marker(io::Error),
    /// Nothing is started without somebody to reap it.
    #[error("no thread for the replica: {0}")]
    Thread(io::Error),
}

impl Replicas {
    /// An empty book.
    pub(crate) fn new(state: &Path) -> Self {
        let book = Book { version: clock::now().0, markers: BTreeMap::new(), closed: false };
        Self {
            family: Family::new(state),
            markers: Markers::new(state),
            book: Mutex::new(book),
            changed: Condvar::new(),
        }
    }

    /// Starts a replica, unless its id is known; returns once its process is there or could not be started.
    pub(crate) fn start(self: &Arc<Self>, launch: Launch) -> Result<(), Refusal> {
        let id = launch.replica.clone();
        if let Some(marker) = self.enter(launch)?
            && let Err(refusal) = self.begin(marker)
        {
            self.change(|book| book.markers.remove(&id));
            let _ = self.markers.remove(&id);
            return Err(refusal);
        }
        drop(self.settled(&id));
        Ok(())
    }

    /// Sends SIGTERM to a replica's process group; one that has exited is left alone.
    pub(crate) fn terminate(&self, id: &ReplicaId) -> Result<(), Refusal> {
        self.signal(id, Signal::TERM)
    }

    /// Sends SIGKILL to everything a replica has started, also when its first process has exited.
    pub(crate) fn kill(&self, id: &ReplicaId) -> Result<(), Refusal> {
        self.signal(id, Signal::KILL)?;
        self.family.sweep(Some(id));
        Ok(())
    }

    /// Drops the record of a replica that has exited; dropping it again is fine.
    pub(crate) fn forget(&self, id: &ReplicaId) -> Result<(), Refusal> {
        let mut book = self.settled(id);
        match book.markers.get(id) {
            None => return Ok(()),
            Some(marker) if marker.exit.is_none() => return Err(Refusal::Running(id.clone())),
            Some(_) => self.markers.remove(id).map_err(Refusal::Marker)?,
        }
        book.markers.remove(id);
        self.publish(book);
        Ok(())
    }

    /// Lists the replicas once the version is not `seen`, or after `wait`.
    pub(crate) fn watch(&self, seen: u64, wait: Duration) -> (u64, Vec<Replica>) {
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |book| book.version == seen);
        let (book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let started = book.markers.values().filter(|marker| !marker.is_starting());
        (book.version, started.map(Marker::replica).collect())
    }

    /// The logs of all replicas, with the most bytes each may have.
    pub(crate) fn logs(&self) -> BTreeMap<PathBuf, u64> {
        let book = self.lock();
        book.markers.values().map(|marker| (marker.launch.log.clone(), marker.launch.log_bytes_max)).collect()
    }

    /// What the replicas that run depend on.
    pub(crate) fn endpoints(&self) -> BTreeSet<EndpointKey> {
        let book = self.lock();
        let running = book.markers.values().filter(|marker| marker.exit.is_none());
        running.flat_map(|marker| marker.launch.endpoints.iter().cloned()).collect()
    }

    /// Kills every replica, starts no more, and removes the records.
    pub(crate) fn close(&self) {
        self.change(|book| book.closed = true);
        let starting = self.changed.wait_while(self.lock(), |book| book.markers.values().any(Marker::is_starting));
        let book = starting.unwrap_or_else(PoisonError::into_inner);
        book.markers.values().for_each(|marker| signal_if_alive(marker, Signal::KILL));
        let (mut book, late) = self
            .changed
            .wait_timeout_while(book, DYING, |book| book.markers.values().any(|marker| marker.running().is_some()))
            .unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            tracing::error!("replicas outlive SIGKILL; their markers are kept");
        }
        let exited: Vec<ReplicaId> =
            book.markers.values().filter(|marker| marker.exit.is_some()).map(|marker| marker.id().clone()).collect();
        for id in exited {
            book.markers.remove(&id);
            if let Err(error) = self.markers.remove(&id) {
                tracing::warn!(replica = %id, %error, "launch marker could not be removed");
            }
        }
        self.publish(book);
        self.family.sweep(None);
    }

    /// Enters a replica that an earlier agent has started.
    pub(crate) fn adopt(&self, marker: Marker) {
        self.keep(&marker);
        self.change(|book| book.markers.insert(marker.id().clone(), marker));
    }

    /// What earlier agents have written down.
    pub(crate) fn left_by_others(&self) -> io::Result<Vec<Marker>> {
        self.markers.load()
    }

    /// Notes a replica's process.
    pub(crate) fn runs(&self, id: &ReplicaId, process: Process) {
        tracing::info!(replica = %id, pid = process.pid, "replica started");
        self.note(id, |marker| marker.process = Some(process), || {});
    }

    /// Notes how a replica ended. Its leader is to be reaped by `reap` and nowhere else: until the book says that it
    /// has exited, its process group is signalled, whose number is free for others once the leader is reaped.
    pub(crate) fn exited(&self, id: &ReplicaId, how: String, reap: impl FnOnce()) {
        tracing::info!(replica = %id, how, "replica exited");
        let exit = Exit { at: clock::now(), how };
        self.note(id, |marker| marker.exit = Some(exit), reap);
    }

    /// Changes a record, on disk first: nobody is told what a successor would not know.
    fn note(&self, id: &ReplicaId, change: impl FnOnce(&mut Marker), meanwhile: impl FnOnce()) {
        let known = self.lock().markers.get(id).cloned();
        let Some(mut marker) = known else { return meanwhile() };
        change(&mut marker);
        self.keep(&marker);
        self.change(|book| {
            meanwhile();
            book.markers.insert(id.clone(), marker)
        });
    }

    /// Writes a marker as well as may be: a full disk must not keep a replica from being reaped and reported.
    fn keep(&self, marker: &Marker) {
        if let Err(error) = self.markers.write(marker) {
            tracing::warn!(replica = %marker.id(), %error, "launch marker could not be updated");
        }
    }

    /// Takes a new id and a port; `None` when the id is known.
    fn enter(&self, launch: Launch) -> Result<Option<Marker>, Refusal> {
        let mut book = self.lock();
        if book.markers.contains_key(&launch.replica) {
            return Ok(None);
        }
        if book.closed {
            return Err(Refusal::Closed);
        }
        let port = ports::free(&book.ports())?;
        let marker = Marker::new(launch, port, clock::now());
        book.markers.insert(marker.id().clone(), marker.clone());
        Ok(Some(marker))
    }

    /// Writes the marker, then has a thread start the process and stay with it.
    fn begin(self: &Arc<Self>, marker: Marker) -> Result<(), Refusal> {
        self.markers.write(&marker).map_err(Refusal::Marker)?;
        let replicas = Arc::clone(self);
        let live = move || life::live(&replicas, &marker);
        thread::Builder::new().name("replica".to_owned()).spawn(live).map(drop).map_err(Refusal::Thread)
    }

    fn signal(&self, id: &ReplicaId, signal: Signal) -> Result<(), Refusal> {
        let book = self.settled(id);
        let marker = book.markers.get(id).ok_or_else(|| Refusal::Unknown(id.clone()))?;
        signal_if_alive(marker, signal);
        Ok(())
    }

    /// The book once a replica is past its start, so that no signal is lost on one that has no process yet.
    fn settled(&self, id: &ReplicaId) -> MutexGuard<'_, Book> {
        let starting = |book: &mut Book| book.markers.get(id).is_some_and(Marker::is_starting);
        self.changed.wait_while(self.lock(), starting).unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) {
        let mut book = self.lock();
        change(&mut book);
        self.publish(book);
    }

    fn publish(&self, mut book: MutexGuard<'_, Book>) {
        book.version += 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        sync::lock(&self.book)
    }
}

impl Book {
    /// Ports of replicas that run or are about to.
    fn ports(&self) -> BTreeSet<u16> {
        self.markers.values().filter(|marker| marker.exit.is_none()).map(|marker| marker.port).collect()
    }
}

/// A leader that is dead but not noted yet is about to be: whoever waits for it ends its group.
fn signal_if_alive(marker: &Marker, signal: Signal) {
    if let Some(process) = marker.running().filter(|process| process.is_alive()) {
        process.signal_group(signal);
    }
}
