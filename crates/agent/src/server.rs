//! Connections, and which part of the agent carries out which request.

use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use evenkeel_core::dependency::EndpointKey;
use evenkeel_wire::agent::{Answer, Ask, Request};
use evenkeel_wire::frame;

use crate::endpoints::Endpoints;
use crate::fence::{Fence, Permit, Refused};
use crate::keeper::{Keeper, NotListening};
use crate::replicas::Replicas;

/// Connections served at once; more are closed.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a client that does not read its answer.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Longest wait of a watch.
const WATCH_MAX: Duration = Duration::from_secs(10);
/// Longest time for what a replaced proxy has.
const DRAIN_MAX: Duration = Duration::from_secs(86_400);
/// How long to wait when the machine has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The parts of the agent.
pub(crate) struct Agent {
    pub(crate) fence: Fence,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) egress: Arc<Keeper>,
    pub(crate) endpoints: Endpoints,
}

/// Serves connections until a shutdown has been carried out and answered.
///
/// # Errors
/// The machine has no thread left.
pub(crate) fn serve(listener: UnixListener, agent: &Arc<Agent>) -> io::Result<()> {
    let (ended, end) = mpsc::channel();
    let agent = Arc::clone(agent);
    thread::Builder::new().name("accept".to_owned()).spawn(move || accept(&listener, &agent, &ended))?;
    // An error means that the accepting thread is gone, which is an end as well.
    let _ = end.recv();
    Ok(())
}

fn accept(listener: &UnixListener, agent: &Arc<Agent>, ended: &mpsc::Sender<()>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((stream, _)) => match Seat::take(&open) {
                Some(seat) => attend_in_thread(stream, seat, agent, ended),
                None => tracing::warn!(most = CONNECTIONS_MAX, "too many connections; one closed"),
            },
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn attend_in_thread(stream: UnixStream, seat: Seat, agent: &Arc<Agent>, ended: &mpsc::Sender<()>) {
    let (agent, ended) = (Arc::clone(agent), ended.clone());
    let attend = move || {
        let _seat = seat;
        if let Err(error) = agent.attend(stream, &ended) {
            tracing::warn!(%error, "connection closed");
        }
    };
    if let Err(error) = thread::Builder::new().name("connection".to_owned()).spawn(attend) {
        tracing::warn!(%error, "no thread for a connection");
    }
}

impl Agent {
    /// Answers a client's requests in turn until it closes. An error ends this connection and nothing else.
    fn attend(&self, mut stream: UnixStream, ended: &mpsc::Sender<()>) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_MAX))?;
        while let Some(request) = frame::read::<Request>(&mut stream)? {
            let (answer, next) = self.carry_out(request);
            let written = frame::write(&mut stream, &answer);
            if next == Next::End {
                let _ = ended.send(());
            }
            written?;
        }
        Ok(())
    }

    fn carry_out(&self, request: Request) -> (Answer, Next) {
        let permit = match self.fence.admit(request.token) {
            Ok(permit) => permit,
            Err(Refused::OldToken { highest }) => return (Answer::OldToken { highest }, Next::Go),
            Err(disk @ Refused::Disk(_)) => return (failed(disk), Next::Go),
        };
        let answer = match request.ask {
            Ask::Hello => Answer::Done,
            Ask::Start { launch } => match self.endpoints.fill(*launch) {
                Ok(launch) => done(self.replicas.start(launch)),
                Err(why) => failed(why),
            },
            Ask::Terminate { replica } => done(self.replicas.terminate(&replica)),
            Ask::Kill { replica } => done(self.replicas.kill(&replica)),
            Ask::Forget { replica } => done(self.replicas.forget(&replica)),
            Ask::Watch { seen, wait_ms } => self.watch(seen, wait_ms, permit),
            Ask::Listen { addresses } => done(self.listen(&addresses, permit)),
            Ask::Depend { endpoints } => self.depend(&endpoints, permit),
            Ask::Replace { command, drain_ms } => {
                drop(permit);
                done(self.keeper.replace(command, Duration::from_millis(drain_ms).min(DRAIN_MAX)))
            }
            Ask::Shutdown => {
                self.replicas.close();
                self.keeper.stop();
                self.egress.stop();
                self.endpoints.clear();
                return (Answer::Done, Next::End);
            }
        };
        (answer, Next::Go)
    }

    fn listen(&self, addresses: &[SocketAddr], permit: Permit<'_>) -> Result<(), NotListening> {
        let wish = self.keeper.want(addresses)?;
        // What is waited for is the proxy, and it is handed what was wanted last: a newer controller's wish, once it
        // has one. So that one need not wait for a proxy that does not start.
        drop(permit);
        self.keeper.wait(wish)
    }

    fn depend(&self, endpoints: &[EndpointKey], permit: Permit<'_>) -> Answer {
        let ports = match self.endpoints.want(endpoints, &self.replicas.endpoints()) {
            Ok(ports) => ports,
            Err(why) => return failed(why),
        };
        if ports.is_empty() && self.egress.is_idle() {
            return Answer::Ports { ports };
        }
        let addresses: Vec<SocketAddr> =
            ports.iter().map(|(_, port)| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect();
        let listening = self.egress.want(&addresses).and_then(|wish| {
            // As with the proxy's addresses.
            drop(permit);
            self.egress.wait(wish)
        });
        listening.map_or_else(failed, |()| Answer::Ports { ports })
    }

    fn watch(&self, seen: u64, wait_ms: u64, permit: Permit<'_>) -> Answer {
        // A watch changes nothing, so a newer controller need not wait for its end.
        drop(permit);
        let (version, replicas) = self.replicas.watch(seen, Duration::from_millis(wait_ms).min(WATCH_MAX));
        Answer::Replicas { version, replicas }
    }
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next request.
    Go,
    /// The agent's end.
    End,
}

fn done(result: Result<(), impl Display>) -> Answer {
    result.map_or_else(failed, |()| Answer::Done)
}

fn failed(why: impl Display) -> Answer {
    Answer::Failed { why: why.to_string() }
}

/// One of the places for connections, given back on drop.
struct Seat {
    open: Arc<AtomicUsize>,
}

impl Seat {
    /// `None` when all are taken. Only the accepting thread takes places, so looking first is enough.
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        if open.load(Ordering::Acquire) >= CONNECTIONS_MAX {
            return None;
        }
        open.fetch_add(1, Ordering::AcqRel);
        Some(Self { open: Arc::clone(open) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}
