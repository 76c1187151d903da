//! One worker: a thread with a runtime, connections and counters of its own.
//!
//! Nothing on the way of a request is shared with other workers. The control side speaks to a worker through a channel,
//! and a worker carries out one command after the other between requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_core::table::RoutingTable;
use evenkeel_wire::proxy::{InFlight, PassedOver, ReleaseReport};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::accept::Acceptor;
use crate::admission;
use crate::clock::Clock;
use crate::fittings::Fittings;
use crate::limits::{FAREWELL_LONGEST, FAREWELL_TIME, TICK};
use crate::mirror::Copies;
use crate::routes::Switchboard;
use crate::seats::{Seat, Seats};
use crate::trial::Found;
use crate::vital::Vital;

/// What a worker is told. It answers on the channel in the command when it is done.
pub(crate) enum Command {
    /// Choose by this table from here on.
    Apply(Arc<RoutingTable>, Arc<Fittings>, Sender<()>),
    /// Accept on these sockets; earlier ones of this address are emptied and closed. Where one of these is no good, the
    /// earlier ones stay.
    Listen(SocketAddr, Vec<TcpListener>, Sender<io::Result<()>>),
    /// Empty and close the sockets of an address.
    Unlisten(SocketAddr, Sender<()>),
    /// Say what was counted, and what has become final of trials at a moment.
    Report(Instant, Sender<WorkerReport>),
    /// Say what has become final of trials at a moment.
    Reveal(Instant, Sender<Vec<Found>>),
    /// Accept nothing more; done when all requests have ended, or at the deadline. Reports are still given.
    Stop(Instant, Sender<()>),
    /// Give up the thread.
    End,
}

/// What one worker has counted.
pub(crate) struct WorkerReport {
    pub(crate) releases: Vec<ReleaseReport>,
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) passed_over: Vec<PassedOver>,
    pub(crate) refused: u64,
    pub(crate) connections: usize,
    pub(crate) found: Vec<Found>,
}

/// A started worker, seen from the control side.
pub(crate) struct Handle {
    pub(crate) commands: UnboundedSender<Command>,
    pub(crate) thread: JoinHandle<()>,
}

/// What a worker's connections share.
pub(crate) struct Worker {
    pub(crate) clock: Clock,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) switchboard: RefCell<Switchboard>,
    /// Copies of requests that are under way.
    pub(crate) copies: Rc<Copies>,
    seats: Rc<Seats>,
    stops_by: Cell<Option<Instant>>,
    refused: Cell<u64>,
}

/// Starts a worker's thread.
///
/// # Errors
/// The machine gives no thread or no runtime.
pub(crate) fn start(index: usize, workers: usize, seed: u64) -> io::Result<Handle> {
    // One command at a time is under way, so the channel holds a handful.
    let (commands, inbox) = unbounded_channel();
    // hyper polls many small tasks; looking for events after 200 of them measured best (61 is the default).
    let runtime =
        move || Builder::new_current_thread().enable_all().event_interval(200).build_local(LocalOptions::default());
    let (started, ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || match runtime() {
        Ok(runtime) => {
            let _vital = Vital("a worker");
            let _ = started.send(Ok(()));
            runtime.block_on(Worker::run(Worker::new(seed, admission::places(index, workers)), inbox));
        }
        Err(error) => drop(started.send(Err(error))),
    })?;
    ready.recv().map_err(io::Error::other)??;
    Ok(Handle { commands, thread })
}

impl Worker {
    pub(crate) fn new(seed: u64, places: u64) -> Self {
        Self {
            clock: Clock::new(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            switchboard: RefCell::new(Switchboard::new(places)),
            copies: Rc::default(),
            seats: Rc::default(),
            stops_by: Cell::default(),
            refused: Cell::new(0),
        }
    }

    async fn run(worker: Self, mut inbox: UnboundedReceiver<Command>) {
        let worker = Rc::new(worker);
        tokio::task::spawn_local(keep_time(worker.clone()));
        let mut acceptors: BTreeMap<SocketAddr, Vec<Acceptor>> = BTreeMap::new();
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Apply(table, fittings, done) => {
                    worker.switchboard.borrow_mut().apply(&table, &fittings);
                    let _ = done.send(());
                }
                Command::Listen(address, sockets, done) => {
                    let slot = worker.switchboard.borrow_mut().slot(address);
                    let fresh = sockets.into_iter().map(|socket| Acceptor::start(&worker, &slot, socket));
                    let listens = match fresh.collect() {
                        Ok(fresh) => {
                            end_all(acceptors.insert(address, fresh).into_iter().flatten()).await;
                            Ok(())
                        }
                        Err(error) => Err(error),
                    };
                    let _ = done.send(listens);
                }
                Command::Unlisten(address, done) => {
                    end_all(acceptors.remove(&address).into_iter().flatten()).await;
                    let _ = done.send(());
                }
                Command::Report(at, reply) => drop(reply.send(worker.report(at))),
                Command::Reveal(at, reply) => drop(reply.send(worker.switchboard.borrow_mut().trials.reveal(at))),
                Command::Stop(deadline, done) => {
                    worker.stops_by.set(Some(deadline));
                    end_all(std::mem::take(&mut acceptors).into_values().flatten()).await;
                    worker.seats.ask_to_end();
                    worker.switchboard.borrow().holds.wake();
                    tokio::task::spawn_local(drain(worker.seats.clone(), deadline, done));
                }
                Command::End => return,
            }
        }
    }

    fn report(&self, at: Instant) -> WorkerReport {
        let mut switchboard = self.switchboard.borrow_mut();
        let found = switchboard.trials.reveal(at);
        WorkerReport {
            releases: switchboard.ledger.report(),
            in_flight: switchboard.in_flight(),
            passed_over: switchboard.passed_over(at),
            refused: self.refused.get(),
            connections: self.seats.taken(),
            found,
        }
    }

    /// Counts a connection until the seat is dropped.
    pub(crate) fn seat(&self) -> Seat {
        self.seats.take()
    }

    /// Tells whether another connection would be one too many.
    pub(crate) fn is_full(&self) -> bool {
        self.seats.are_full()
    }

    /// When everything must have ended, once the proxy stops.
    pub(crate) fn stops_by(&self) -> Option<Instant> {
        self.stops_by.get()
    }

    /// How long a connection that rests waits for one more request, once the proxy stops: a third of the time there is.
    pub(crate) fn farewell(&self) -> Duration {
        let left = self.stops_by.get().map(|by| by.saturating_duration_since(self.clock.exact())).unwrap_or_default();
        (left / 3).clamp(FAREWELL_TIME, FAREWELL_LONGEST)
    }

    /// Tells whether a service is in maintenance.
    pub(crate) fn is_holding(&self) -> bool {
        self.switchboard.borrow().holds.is_any()
    }

    /// Tells whether connections are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.seats.are_asked_to_end()
    }

    /// Counts a request the proxy answered itself.
    pub(crate) fn count_refused(&self) {
        self.refused.set(self.refused.get() + 1);
    }
}

/// Waits for the last connection.
async fn drain(seats: Rc<Seats>, deadline: Instant, done: Sender<()>) {
    let _ = tokio::time::timeout_at(deadline, seats.emptied()).await;
    let _ = done.send(());
}

async fn end_all(acceptors: impl Iterator<Item = Acceptor>) {
    for acceptor in acceptors {
        acceptor.end().await;
    }
}

/// Moves the coarse clock on, closes what has rested too long, and learns how fast stable releases answer.
async fn keep_time(worker: Rc<Worker>) {
    let _vital = Vital("the clock of a worker");
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = worker.clock.exact();
        let switchboard = worker.switchboard.borrow();
        switchboard.sweep(now);
        switchboard.learn(now);
    }
}
