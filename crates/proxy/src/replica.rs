//! One replica, as one worker sees it: requests in flight, resting connections, and whether it refuses new ones.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::table::Backend;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::alive;
use crate::body::RequestBody;
use crate::limits::{CONNECT_TIME, EJECTION_FIRST, EJECTION_LONGEST, IDLE_MAX, IDLE_TIME};

/// An open connection to a replica.
pub(crate) struct Link {
    pub(crate) sender: SendRequest<RequestBody>,
    /// Moves its bytes.
    driver: JoinHandle<()>,
    /// Since when it rests.
    since: Instant,
}

impl Link {
    /// Closes it now, whatever is under way on it.
    pub(crate) fn close(self) {
        self.driver.abort();
    }
}

/// A replica and what a worker knows of it.
pub(crate) struct Replica {
    pub(crate) backend: Backend,
    in_flight: Cell<u64>,
    /// Out of the table: nothing rests any more.
    gone: Cell<bool>,
    /// Those of users' requests, and those of copies: neither waits for the other's.
    resting: [Resting; 2],
    out_until: Cell<Option<Instant>>,
    refusals: Cell<u32>,
}

/// Connections to a replica that wait for a request.
///
/// The last used is the last; it is taken first, so that a small set stays warm and the others age out.
#[derive(Default)]
struct Resting(RefCell<Vec<Link>>);

/// What connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Requests that somebody waits for.
    Users,
    /// Copies of them.
    Copies,
}

/// A connection could not be had.
#[derive(Debug)]
pub(crate) enum NoLink {
    /// The replica does not accept: nothing was sent.
    Refused,
    /// This machine lacks something, such as descriptors or ports.
    Local(io::Error),
}

impl Replica {
    pub(crate) fn new(backend: Backend) -> Self {
        Self {
            backend,
            in_flight: Cell::new(0),
            gone: Cell::new(false),
            resting: Default::default(),
            out_until: Cell::new(None),
            refusals: Cell::new(0),
        }
    }

    /// Requests whose answer is not complete.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Takes note whether the replica is in the table.
    pub(crate) fn set_listed(&self, listed: bool) {
        self.gone.set(!listed);
        if !listed {
            self.resting.iter().for_each(|resting| drop(resting.0.take()));
        }
    }

    /// Tells whether it refused a connection so recently that others come first.
    pub(crate) fn is_out(&self, now: Instant) -> bool {
        self.out_until.get().is_some_and(|until| now < until)
    }

    /// Takes note of a refused connection.
    pub(crate) fn refused(&self, now: Instant) {
        let pause = pause_after(self.refusals.get());
        self.refusals.set(self.refusals.get().saturating_add(1));
        self.out_until.set(Some(now + pause));
        warn!(replica = %self.backend.replica, address = %self.backend.address, ?pause, "replica refuses connections");
    }

    /// Takes a resting connection that has rested at most `idle`.
    pub(crate) fn take_resting(&self, lane: Lane, idle: Duration, now: Instant) -> Option<Link> {
        let mut resting = self.resting(lane).borrow_mut();
        let mut at = resting.len();
        while at > 0 {
            at -= 1;
            let link = &resting[at];
            if now.saturating_duration_since(link.since) > idle {
                return None;
            }
            if link.sender.is_ready() {
                return Some(resting.remove(at));
            }
            // Neither ready nor closed: it still sends the end of a request whose answer came early.
            if link.sender.is_closed() {
                resting.remove(at);
            }
        }
        None
    }

    /// Lets a connection rest for the next request.
    pub(crate) fn rest(&self, lane: Lane, mut link: Link, now: Instant) {
        let mut resting = self.resting(lane).borrow_mut();
        if !self.gone.get() && resting.len() < IDLE_MAX {
            link.since = now;
            resting.push(link);
        }
    }

    /// Closes connections that have rested too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_fresh =
            |link: &mut Link| now.saturating_duration_since(link.since) <= IDLE_TIME && !link.sender.is_closed();
        self.resting.iter().for_each(|resting| resting.0.borrow_mut().retain_mut(is_fresh));
    }

    fn resting(&self, lane: Lane) -> &RefCell<Vec<Link>> {
        &self.resting[lane as usize].0
    }

    /// Opens a connection; `upgradable` ones can turn into tunnels.
    ///
    /// # Errors
    /// [`NoLink`]; a refusal has been noted.
    pub(crate) async fn connect(&self, upgradable: bool) -> Result<Link, NoLink> {
        let stream = match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(self.backend.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_local(&error) => return Err(NoLink::Local(error)),
            Ok(Err(_)) | Err(_) => return Err(self.no_link()),
        };
        // Without it the end of a request could wait for the replica's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let _ = alive::ask(&stream);
        let handshake = Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| NoLink::Local(io::Error::other(error)))?;
        let driver = if upgradable { drive(connection.with_upgrades()) } else { drive(connection) };
        self.out_until.set(None);
        self.refusals.set(0);
        Ok(Link { sender, driver, since: Instant::now() })
    }

    fn no_link(&self) -> NoLink {
        self.refused(Instant::now());
        NoLink::Refused
    }
}

/// Moves bytes between a connection's socket and its [`Link`] until either ends.
fn drive(connection: impl Future<Output = hyper::Result<()>> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            debug!(%error, "connection to a replica ended");
        }
    })
}

/// Out of ports, descriptors or memory says nothing about the replica.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let local = [Errno::ADDRNOTAVAIL, Errno::ADDRINUSE, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| local.contains(&errno))
}

fn pause_after(refusals: u32) -> Duration {
    EJECTION_FIRST.saturating_mul(1 << refusals.min(10)).min(EJECTION_LONGEST)
}

/// A replica with one request in flight for as long as this lives.
pub(crate) struct InFlight(Rc<Replica>);

impl InFlight {
    pub(crate) fn at(replica: &Rc<Replica>) -> Self {
        replica.in_flight.set(replica.in_flight.get() + 1);
        Self(replica.clone())
    }

    pub(crate) fn replica(&self) -> &Rc<Replica> {
        &self.0
    }
}

impl Deref for InFlight {
    type Target = Replica;
    fn deref(&self) -> &Replica {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusing_replica_pauses_from_one_second_to_thirty() {
        let pauses: Vec<u64> = [0, 1, 2, 4, 5, 4_000_000].map(|n| pause_after(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30]);
    }
}
