//! The control socket, and what is done for whoever asks there.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use evenkeel_core::breaker::Mode;
use evenkeel_core::dependency::{EgressReport, EgressTable, PlacedEndpoint};
use evenkeel_core::ids::FencingToken;
use evenkeel_secrets::Key;
use evenkeel_wire::egress::{Answer, Ask};
use evenkeel_wire::frame;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::endpoint::Live;
use crate::ping;
use crate::server::Server;
use crate::workers::Workers;

const TABLE: &str = "egress.json";
/// How long a peer may take for the rest of a message it has begun, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 16;
/// More than any machine has cores: a lying number must not take the memory away.
const SOCKETS_MAX: usize = 1_024;

/// Which endpoint is at which address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served(Arc<RwLock<HashMap<SocketAddr, Arc<Live>>>>);

impl Served {
    /// The endpoint at an address.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<Arc<Live>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    fn replace(&self, all: HashMap<SocketAddr, Arc<Live>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// What the process knows.
#[derive(Debug)]
pub(crate) struct Control {
    state: PathBuf,
    key: Key,
    clock: Clock,
    boot: u64,
    workers: Workers,
    server: Server,
    served: Served,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    table: EgressTable,
    live: Vec<(PlacedEndpoint, Arc<Live>, Pings)>,
    listening: BTreeMap<SocketAddr, Listening>,
    warnings: Vec<String>,
}

/// The tasks that ping an endpoint; they end with it.
#[derive(Debug)]
struct Pings(Vec<AbortHandle>);

impl Drop for Pings {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

#[derive(Debug)]
struct Listening {
    /// Copies, for an agent's successor.
    sockets: Vec<TcpListener>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Control {
    /// Serves what an earlier process of this state directory served, as soon as sockets have come.
    pub(crate) fn new(state: &Path, workers: Workers, server: Server, served: Served) -> io::Result<Arc<Self>> {
        let control = Arc::new(Self {
            key: Key::of(state)?,
            state: state.to_owned(),
            clock: Clock::new(),
            boot: fastrand::u64(..),
            workers,
            server,
            served,
            inner: Mutex::default(),
        });
        match load(state) {
            Ok(table) => control.put_in_force(&mut control.lock(), table),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, "the saved table cannot be used, starting empty"),
        }
        Ok(control)
    }

    /// Reads files of secrets and authorities again.
    pub(crate) fn prepare_again(&self) {
        let live: Vec<Arc<Live>> = self.lock().live.iter().map(|(_, live, _)| live.clone()).collect();
        live.iter().for_each(|live| live.prepare());
    }

    /// Stops accepting.
    pub(crate) fn stop_accepting(&self) {
        self.lock().listening.clear();
    }

    /// Ends whatever goes on.
    pub(crate) fn end(&self) {
        self.workers.end();
    }

    fn apply(&self, table: EgressTable) -> Answer {
        let mut inner = self.lock();
        let highest = inner.table.token;
        if table.token < highest {
            return Answer::OldToken { highest };
        }
        if table.token == highest && table.generation < inner.table.generation {
            return Answer::Failed { why: "a newer table is in force".into() };
        }
        self.put_in_force(&mut inner, table);
        // In force although the disk fails: a restart would find an older one, and is sent a newer one soon.
        if let Err(error) = store(&self.state, &inner.table) {
            warn!(%error, "the table is in force but not on disk");
        }
        Answer::Done
    }

    fn put_in_force(&self, inner: &mut Inner, table: EgressTable) {
        let mut before = std::mem::take(&mut inner.live);
        inner.warnings.clear();
        for placed in &table.endpoints {
            if let Some(at) = before.iter().position(|(known, ..)| known == placed) {
                inner.live.push(before.swap_remove(at));
                continue;
            }
            match Live::new(placed.endpoint.clone(), &self.key, self.clock) {
                Ok(live) => {
                    live.prepare();
                    info!(dependency = %live.key, address = %placed.address, "dependency is served");
                    let pings = self.ping(&live);
                    inner.live.push((placed.clone(), live, pings));
                }
                Err(why) => inner.warnings.push(why),
            }
        }
        self.served.replace(inner.live.iter().map(|(placed, live, _)| (placed.address, live.clone())).collect());
        inner.table = table;
    }

    fn ping(&self, live: &Arc<Live>) -> Pings {
        let Some(ping) = live.dependency.ping else { return Pings(Vec::new()) };
        let place = |place| self.workers.of(place).spawn(ping::keep_asking(live.clone(), place, ping)).abort_handle();
        Pings((0..live.places.len()).map(place).collect())
    }

    fn report(&self) -> EgressReport {
        let inner = self.lock();
        let endpoints = inner.live.iter().map(|(_, live, _)| live.status()).collect();
        let own = inner.live.iter().flat_map(|(_, live, _)| live.warnings());
        let warnings = inner.warnings.iter().cloned().chain(own).collect();
        EgressReport { boot: self.boot, pid: std::process::id(), endpoints, warnings }
    }

    fn operate(&self, token: FencingToken, service: &str, name: Option<&str>, mode: Mode) -> Answer {
        let inner = self.lock();
        let highest = inner.table.token;
        if token < highest {
            return Answer::OldToken { highest };
        }
        let is_meant =
            |live: &Live| live.key.service.as_str() == service && name.is_none_or(|name| live.key.name == name);
        let meant: Vec<&Arc<Live>> = inner.live.iter().map(|(_, live, _)| live).filter(|live| is_meant(live)).collect();
        if meant.is_empty() {
            let what = name.map_or_else(|| "no dependency".to_owned(), |name| format!("no dependency `{name}`"));
            return Answer::Failed { why: format!("{service} has {what} that is served") };
        }
        meant.iter().for_each(|live| live.set_mode(mode));
        Answer::Done
    }

    fn listen(&self, address: SocketAddr, descriptors: Vec<OwnedFd>) -> Answer {
        let mut listening = Listening { sockets: Vec::new(), tasks: Vec::new() };
        for (number, descriptor) in descriptors.into_iter().enumerate() {
            // Each worker has a socket of its own, among which the kernel spreads connections.
            let _inside = self.workers.of(number).enter();
            let socket = TcpListener::from(descriptor);
            let begun = socket.try_clone().and_then(|copy| self.server.listen(address, copy));
            match begun {
                Ok(task) => listening.tasks.push(task),
                Err(error) => return Answer::Failed { why: format!("{address} cannot be served: {error}") },
            }
            listening.sockets.push(socket);
        }
        self.lock().listening.insert(address, listening);
        Answer::Done
    }

    fn sockets(&self, give: impl FnOnce(&Answer, &[BorrowedFd<'_>]) -> io::Result<()>) -> io::Result<()> {
        let inner = self.lock();
        let sockets = inner.listening.values().map(|listening| listening.sockets.len()).min().unwrap_or(0);
        let addresses = inner.listening.keys().copied().collect();
        let all = inner.listening.values().flat_map(|listening| listening.sockets.iter().take(sockets));
        let descriptors: Vec<BorrowedFd<'_>> = all.map(AsFd::as_fd).collect();
        give(&Answer::Sockets { addresses, sockets }, &descriptors)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the control socket; `stop` hears of every wish to stop.
pub(crate) fn serve(listener: &UnixListener, control: &Arc<Control>, stop: &UnboundedSender<Duration>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            // Shut down, as the process ends.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                warn!(%error, "cannot accept control connections");
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            warn!("too many control connections, closing one");
            continue;
        }
        let (control, stop, open) = (control.clone(), stop.clone(), open.clone());
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, &control, &stop) {
                debug!(%error, "control connection ended");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(mut stream: UnixStream, control: &Control, stop: &UnboundedSender<Duration>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    while let Some(ask) = frame::read::<Ask>(&mut stream)? {
        let answer = match ask {
            Ask::Apply { table } => control.apply(*table),
            Ask::Report => Answer::Report(Box::new(control.report())),
            Ask::Operate { token, service, name, mode } => control.operate(token, &service, name.as_deref(), mode),
            Ask::Listen { address, sockets } => {
                if sockets > SOCKETS_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "too many sockets"));
                }
                stream.set_read_timeout(Some(PATIENCE))?;
                let descriptors = frame::receive_descriptors(&stream, sockets);
                stream.set_read_timeout(None)?;
                control.listen(address, descriptors?)
            }
            Ask::Unlisten { address } => {
                control.lock().listening.remove(&address);
                Answer::Done
            }
            Ask::Sockets => {
                control.sockets(|answer, descriptors| {
                    frame::write(&mut stream, answer)?;
                    frame::send_descriptors(&stream, descriptors)
                })?;
                continue;
            }
            Ask::Stop { drain_ms } => {
                // Answered first: the process may be gone the moment it stops.
                frame::write(&mut stream, &Answer::Done)?;
                let _ = stop.send(Duration::from_millis(drain_ms));
                continue;
            }
        };
        frame::write(&mut stream, &answer)?;
    }
    Ok(())
}

/// Written so that a crash at any moment leaves the old or the new table, whole. It names secrets and holds none.
fn store(state: &Path, table: &EgressTable) -> io::Result<()> {
    let unfinished = state.join(format!("{TABLE}.new"));
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, state.join(TABLE))
}

fn load(state: &Path) -> io::Result<EgressTable> {
    Ok(serde_json::from_slice(&std::fs::read(state.join(TABLE))?)?)
}
