//! Keeps the proxy alive and holds the sockets it serves.
//!
//! The agent keeps a copy of every listening socket, so a proxy may die at any moment: the kernel goes on taking
//! connections, and the next proxy finds them waiting. One thread attends to the proxy; requests leave what they want
//! on the desk, ring, and wait until the thread has carried it out.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::running::{Part, Running, Sockets};
use crate::sockets::{self, CannotListen};
use crate::{process, sync};

/// A proxy that dies younger than this is not replaced at once.
const YOUNG: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a proxy that does not answer may be dying rather than disagreeing.
const DYING: Duration = Duration::from_millis(100);
/// When to hand over again what a living proxy has not taken.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait of a request until the proxy has taken its sockets.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// Longest wait of a request until a successor of the proxy serves.
const REPLACE_MAX: Duration = Duration::from_secs(20);
/// Longest wait of a shutdown until the proxy has gone; it is killed well before.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The proxy's keeper.
pub(crate) struct Keeper {
    part: Part,
    state: PathBuf,
    command: Mutex<Vec<String>>,
    workers: usize,
    desk: Mutex<Desk>,
    changed: Condvar,
    /// Readable when the thread is to look at the desk.
    bell: OwnedFd,
}

/// What is wanted, and what has become of it.
#[derive(Default)]
struct Desk {
    sockets: Sockets,
    /// Counts changes of `sockets`.
    revision: u64,
    /// The revision the proxy was last told of, and what went wrong with it.
    told: u64,
    fault: Option<String>,
    order: Order,
    /// A successor for the proxy that runs.
    succession: Option<Succession>,
    /// What became of the last one; `None` while it is under way.
    succeeded: Option<Result<(), String>>,
}

/// Who is to take over from the proxy that runs.
#[derive(Clone)]
struct Succession {
    command: Vec<String>,
    drain: Duration,
}

/// What the thread is to do.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Nothing: nobody has asked for a proxy yet.
    #[default]
    Idle,
    /// Keep a proxy running.
    Keep,
    /// Stop it.
    Stop,
    /// Nothing any more.
    Stopped,
}

/// What was asked of the proxy last, by somebody who waits for it.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Of the desk.
    revision: u64,
    /// Addresses that cannot be had.
    not_had: Vec<CannotListen>,
}

/// Why the proxy does not listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotListening {
    /// Some addresses cannot be had. The others are held and served.
    #[error("{}", in_words(.0))]
    Addresses(Vec<CannotListen>),
    /// The sockets are held, but the proxy has not taken them. Asking again is fine.
    #[error("the proxy does not listen yet: {0}")]
    Proxy(String),
    /// A shutdown has begun.
    #[error("the agent is shutting down")]
    Stopped,
}

impl Keeper {
    /// Adopts the proxy of an earlier agent, if one answers, and starts the thread.
    ///
    /// # Errors
    /// The machine has no thread or descriptor left.
    pub(crate) fn start(part: Part, state: &Path, command: Vec<String>, workers: usize) -> io::Result<Arc<Self>> {
        let adopted = Running::adopt(part, state);
        let desk = adopted.as_ref().map_or_else(Desk::default, |proxy| {
            tracing::info!(part = part.name, pid = proxy.pid(), addresses = ?proxy.handed().keys(), "adopted");
            Desk { sockets: proxy.handed().clone(), order: Order::Keep, ..Desk::default() }
        });
        let keeper = Arc::new(Self {
            part,
            state: state.to_owned(),
            command: Mutex::new(command),
            workers,
            desk: Mutex::new(desk),
            changed: Condvar::new(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let in_thread = Arc::clone(&keeper);
        thread::Builder::new().name(format!("{} keeper", part.name)).spawn(move || in_thread.keep(adopted))?;
        Ok(keeper)
    }

    /// Holds sockets on exactly those of these addresses that can be had, and has them handed to the proxy.
    pub(crate) fn want(&self, addresses: &[SocketAddr]) -> Result<Wish, NotListening> {
        let mut desk = self.lock();
        if matches!(desk.order, Order::Stop | Order::Stopped) {
            return Err(NotListening::Stopped);
        }
        let (sockets, not_had) = bind_all(addresses, &desk.sockets, self.workers);
        desk.sockets = sockets;
        desk.order = Order::Keep;
        desk.revision += 1;
        self.ring();
        Ok(Wish { revision: desk.revision, not_had })
    }

    /// Whether nobody has asked for it yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().order == Order::Idle
    }

    /// Returns once the proxy serves what was wanted, or what was wanted later.
    pub(crate) fn wait(&self, wish: Wish) -> Result<(), NotListening> {
        let untold = |desk: &mut Desk| desk.told < wish.revision && desk.order == Order::Keep;
        let waited = self.changed.wait_timeout_while(self.lock(), LISTEN_MAX, untold);
        let (desk, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if !wish.not_had.is_empty() {
            return Err(NotListening::Addresses(wish.not_had));
        }
        if late.timed_out() {
            return Err(NotListening::Proxy("it does not answer".to_owned()));
        }
        desk.fault.clone().map_or(Ok(()), |why| Err(NotListening::Proxy(why)))
    }

    /// Has another program take over from the proxy that runs, and returns once it serves.
    pub(crate) fn replace(&self, command: Vec<String>, drain: Duration) -> Result<(), NotListening> {
        let mut desk = self.lock();
        match desk.order {
            Order::Keep => {}
            Order::Idle => return Err(NotListening::Proxy("none runs yet".to_owned())),
            Order::Stop | Order::Stopped => return Err(NotListening::Stopped),
        }
        desk.succession = Some(Succession { command, drain });
        desk.succeeded = None;
        self.ring();
        let waiting = |desk: &mut Desk| desk.succeeded.is_none() && desk.order == Order::Keep;
        let waited = self.changed.wait_timeout_while(desk, REPLACE_MAX, waiting);
        let (desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let unheard = || Err("it does not answer".to_owned());
        desk.succeeded.clone().unwrap_or_else(unheard).map_err(NotListening::Proxy)
    }

    /// Stops the proxy, closes the sockets and removes the proxy's files.
    pub(crate) fn stop(&self) {
        let mut desk = self.lock();
        if desk.order != Order::Stopped {
            desk.order = Order::Stop;
        }
        self.ring();
        let waited = self.changed.wait_timeout_while(desk, STOP_MAX, |desk| desk.order != Order::Stopped);
        let (mut desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        desk.sockets.clear();
        for name in [self.part.socket, self.part.marker] {
            let _ = std::fs::remove_file(self.state.join(name));
        }
    }

    /// The thread: one proxy after another.
    fn keep(&self, adopted: Option<Running>) {
        let mut pause = Pause::default();
        let mut next = adopted;
        while let Some(mut proxy) = next.take().or_else(|| self.next(&mut pause)) {
            self.attend(&mut proxy);
            if self.lock().order == Order::Stop {
                proxy.stop();
                break;
            }
            let how = proxy.bury();
            tracing::error!(part = self.part.name, pid = proxy.pid(), how, "died");
            pause.note(proxy.age());
        }
        self.lock().order = Order::Stopped;
        self.changed.notify_all();
    }

    /// Starts a proxy once one is wanted, again and again until it works; `None` when none is wanted any more.
    fn next(&self, pause: &mut Pause) -> Option<Running> {
        loop {
            if !self.wait_for_order(pause.length) {
                return None;
            }
            match Running::start(self.part, &self.state, &sync::lock(&self.command).clone()) {
                Ok(proxy) => {
                    tracing::info!(part = self.part.name, pid = proxy.pid(), "started");
                    return Some(proxy);
                }
                Err(error) => {
                    tracing::error!(part = self.part.name, %error, "could not be started");
                    let mut desk = self.lock();
                    let revision = desk.revision;
                    self.report(&mut desk, revision, Some(error.to_string()));
                    pause.note(Duration::ZERO);
                }
            }
        }
    }

    /// Waits until a proxy is wanted, and in any case for `pause`; `false` when it is to stop.
    fn wait_for_order(&self, pause: Duration) -> bool {
        let stopping = |desk: &mut Desk| desk.order != Order::Stop;
        let paused = self.changed.wait_timeout_while(self.lock(), pause, stopping);
        let (desk, _) = paused.unwrap_or_else(PoisonError::into_inner);
        let woken = self.changed.wait_while(desk, |desk| desk.order == Order::Idle);
        woken.unwrap_or_else(PoisonError::into_inner).order == Order::Keep
    }

    /// Stays with a proxy until it is dead or to be stopped, and hands it what is wanted.
    fn attend(&self, proxy: &mut Running) {
        loop {
            // Silenced before the desk is read: whoever rings later is heard at the next poll.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            let (wanted, revision, order, succession) = {
                let mut desk = self.lock();
                (desk.sockets.clone(), desk.revision, desk.order, desk.succession.take())
            };
            if order == Order::Stop {
                return;
            }
            if let Some(Succession { command, drain }) = succession {
                self.succeed(proxy, &wanted, command, drain);
            }
            let fault = proxy.hand_over(&wanted).err().map(|error| error.to_string());
            if let Some(error) = &fault {
                // A dying process closes its connections a little before it is dead.
                if process::wait_until_dead(proxy.handle(), Some(DYING)) {
                    return;
                }
                tracing::warn!(part = self.part.name, error, "did not take its sockets");
            }
            let again = fault.as_ref().and_then(|_| Timespec::try_from(RETRY).ok());
            self.report(&mut self.lock(), revision, fault);
            let handle = proxy.handle();
            let mut watched = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&handle, PollFlags::IN)];
            // An interrupted wait only means to look once more.
            let _ = poll(&mut watched, again.as_ref());
            if process::wait_until_dead(proxy.handle(), Some(Duration::ZERO)) {
                return;
            }
        }
    }

    /// Has another program take over; it is started from here on when that one dies.
    fn succeed(&self, proxy: &mut Running, wanted: &Sockets, command: Vec<String>, drain: Duration) {
        let replaced = proxy.replace(&command, wanted, drain).map_err(|error| error.to_string());
        match &replaced {
            Ok(()) => *sync::lock(&self.command) = command,
            Err(error) => tracing::error!(error, "the proxy could not be replaced"),
        }
        self.lock().succeeded = Some(replaced);
        self.changed.notify_all();
    }

    fn report(&self, desk: &mut Desk, revision: u64, fault: Option<String>) {
        desk.told = revision;
        desk.fault = fault;
        self.changed.notify_all();
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        sync::lock(&self.desk)
    }
}

/// Keeps the sockets there are, opens the missing ones, and leaves out the rest. An address that somebody else has is
/// no reason to leave the users of the others alone.
fn bind_all(addresses: &[SocketAddr], held: &Sockets, workers: usize) -> (Sockets, Vec<CannotListen>) {
    let mut all = Sockets::new();
    let mut not_had = Vec::new();
    for address in addresses {
        // A port of our own under another address (from 127.0.0.1 to 0.0.0.0, say) is not another program's.
        let is_ours = held.keys().chain(all.keys()).any(|other| other.port() == address.port());
        let sockets = match held.get(address) {
            Some(sockets) => Ok(Arc::clone(sockets)),
            None => bind_new(*address, is_ours, workers).map(Arc::new),
        };
        match sockets {
            Ok(sockets) => drop(all.insert(*address, sockets)),
            Err(why) => not_had.push(why),
        }
    }
    (all, not_had)
}

fn bind_new(address: SocketAddr, is_ours: bool, workers: usize) -> Result<Vec<OwnedFd>, CannotListen> {
    if !is_ours {
        sockets::check_free(address)?;
    }
    sockets::listen_shared(address, workers)
}

fn in_words(not_had: &[CannotListen]) -> String {
    let each: Vec<String> = not_had.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// How long to wait before the next proxy: not at all after one that has lived, longer and longer after young deaths.
#[derive(Default)]
struct Pause {
    length: Duration,
}

impl Pause {
    fn note(&mut self, age: Duration) {
        let young = age < YOUNG;
        self.length = if young { (self.length * 2).clamp(PAUSE_MIN, PAUSE_MAX) } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_with_young_deaths_and_ends_with_a_long_life() {
        let mut pause = Pause::default();
        let mut lengths = Vec::new();
        for _ in 0..8 {
            pause.note(Duration::from_millis(10));
            lengths.push(pause.length.as_millis());
        }
        assert_eq!(lengths, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pause.note(YOUNG);
        assert_eq!(pause.length, Duration::ZERO);
    }

    #[test]
    fn addresses_that_are_taken_are_all_named_and_the_others_are_had() {
        let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [first, second] = taken.each_ref().map(|listener| listener.local_addr().unwrap());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (had, not_had) = bind_all(&[first, free, second], &Sockets::new(), 2);
        assert_eq!(had.keys().collect::<Vec<_>>(), [&free]);
        let words = format!("{first} is in use by another program; {second} is in use by another program");
        assert_eq!(NotListening::Addresses(not_had).to_string(), words);
    }

    #[test]
    fn a_port_of_our_own_can_move_to_all_addresses() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (held, _) = bind_all(&[address], &Sockets::new(), 2);
        let wide = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let (had, not_had) = bind_all(&[wide], &held, 2);
        assert_eq!((had.keys().collect::<Vec<_>>(), not_had.len()), (vec![&wide], 0));
    }
}
