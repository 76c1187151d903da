//! One replica, as one worker sees it: requests in flight, resting connections, and whether it refuses new ones.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use evenkeel_core::balance::Out;
use evenkeel_core::edge::Protocol;
use evenkeel_core::table::Backend;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::alive;
use crate::balance::Condition;
use crate::body::RequestBody;
use crate::fair::Fair;
use crate::headers::{to_http_1, to_http_2};
use crate::limits::{
    CONNECT_TIME, CONNECTION_WINDOW, HEAD_BYTES_MAX, IDLE_MAX, IDLE_TIME, STREAM_SEND_BYTES_MAX, STREAM_WINDOW,
    STREAMS_PER_LINK,
};
use crate::streams::Here;

/// A way to have one request answered by a replica.
pub(crate) enum Link {
    /// A connection of its own.
    Whole(WholeLink),
    /// A stream of one that it shares with other requests.
    Part(PartLink),
}

/// An open connection that carries one request at a time.
pub(crate) struct WholeLink {
    sender: http1::SendRequest<RequestBody>,
    /// Moves its bytes.
    driver: JoinHandle<()>,
    /// Since when it rests.
    since: Instant,
}

/// A place on a connection that carries many requests.
pub(crate) struct PartLink {
    sender: http2::SendRequest<RequestBody>,
    shared: Rc<SharedLink>,
}

/// An open connection that carries many requests.
struct SharedLink {
    sender: http2::SendRequest<RequestBody>,
    taken: Cell<usize>,
    /// As many as may be taken: what the replica allows.
    places: Rc<Cell<usize>>,
    /// When a place was last given back.
    since: Cell<Instant>,
}

/// What became of a request that was sent.
type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

pin_project! {
    /// A request on its way.
    #[project = SendingProjection]
    pub(crate) enum Sending<F> {
        Whole { #[pin] answer: F },
        // On the heap: requests that need none of it do not make room for it.
        Part { answer: Pin<Box<dyn Future<Output = Sent>>> },
    }
}

impl<F: Future<Output = Sent>> Future for Sending<F> {
    type Output = Sent;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Sent> {
        match self.project() {
            SendingProjection::Whole { answer } => answer.poll(cx),
            SendingProjection::Part { answer } => answer.as_mut().poll(cx),
        }
    }
}

impl Link {
    /// Sends a request.
    ///
    /// # Errors
    /// There is no answer; holds the request where nothing of it was sent.
    pub(crate) fn send(&mut self, mut request: Request<RequestBody>) -> Sending<impl Future<Output = Sent> + use<>> {
        match self {
            Self::Whole(link) => {
                // It was to be sent to a replica that speaks otherwise.
                if request.version() == Version::HTTP_2 {
                    to_http_1(&mut request);
                }
                Sending::Whole { answer: link.sender.try_send_request(request) }
            }
            Self::Part(link) => {
                to_http_2(&mut request);
                Sending::Part { answer: Box::pin(link.sender.try_send_request(request)) }
            }
        }
    }

    /// Gives up what is under way on it.
    pub(crate) fn close(self) {
        if let Self::Whole(link) = self {
            link.driver.abort();
        }
    }
}

impl PartLink {
    fn of(shared: &Rc<SharedLink>) -> Self {
        shared.taken.set(shared.taken.get() + 1);
        Self { sender: shared.sender.clone(), shared: shared.clone() }
    }
}

impl Drop for PartLink {
    fn drop(&mut self) {
        self.shared.taken.set(self.shared.taken.get() - 1);
        self.shared.since.set(Instant::now());
    }
}

impl SharedLink {
    fn has_place(&self) -> bool {
        self.taken.get() < self.places.get() && self.sender.is_ready()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let rests = self.taken.get() == 0 && now.saturating_duration_since(self.since.get()) > IDLE_TIME;
        !rests && !self.sender.is_closed()
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
    speaks: Cell<Protocol>,
    /// Wakes who waits for it to leave the table.
    leaving: Notify,
    /// How it has fared here.
    pub(crate) condition: Condition,
}

/// Connections to a replica that wait for a request.
///
/// The last used is the last; it is taken first, so that a small set stays warm and the others age out.
#[derive(Default)]
struct Resting {
    whole: RefCell<Vec<WholeLink>>,
    /// Those that carry many requests, at rest or not; the oldest with a place is taken, so that the others age out.
    shared: RefCell<Vec<Rc<SharedLink>>>,
}

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
    /// One that a worker has met at a moment.
    pub(crate) fn new(backend: Backend, since: Instant) -> Self {
        Self {
            backend,
            in_flight: Cell::new(0),
            gone: Cell::new(false),
            resting: Default::default(),
            speaks: Cell::default(),
            leaving: Notify::new(),
            condition: Condition::new(since),
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
            self.resting.iter().for_each(|resting| {
                resting.whole.take();
                resting.shared.take();
            });
        }
    }

    /// Wakes who waits for it to leave the table, when it has.
    pub(crate) fn tell_left(&self) {
        if self.gone.get() {
            self.leaving.notify_waiters();
        }
    }

    /// Waits until it has left the table. Cancel safe.
    pub(crate) async fn left(&self) {
        while !self.gone.get() {
            self.leaving.notified().await;
        }
    }

    /// Takes note of what it speaks.
    pub(crate) fn set_speaks(&self, protocol: Protocol) {
        self.speaks.set(protocol);
    }

    /// Why it is passed over, where it is in the table and others come first.
    pub(crate) fn passed_over(&self, now: Instant) -> Option<Out> {
        self.condition.out(now).filter(|_| !self.gone.get())
    }

    fn refused(&self, now: Instant) {
        let pause = self.condition.refused(now);
        warn!(replica = %self.backend.replica, address = %self.backend.address, ?pause, "replica refuses connections");
    }

    /// Takes a resting connection that has rested at most `idle`.
    pub(crate) fn take_resting(&self, lane: Lane, idle: Duration, now: Instant) -> Option<Link> {
        if self.speaks.get() == Protocol::Http2 {
            let shared = self.resting(lane).shared.borrow();
            return shared.iter().find(|link| link.has_place()).map(|link| Link::Part(PartLink::of(link)));
        }
        let mut resting = self.resting(lane).whole.borrow_mut();
        let mut at = resting.len();
        while at > 0 {
            at -= 1;
            let link = &resting[at];
            if now.saturating_duration_since(link.since) > idle {
                return None;
            }
            if link.sender.is_ready() {
                return Some(Link::Whole(resting.remove(at)));
            }
            // Neither ready nor closed: it still sends the end of a request whose answer came early.
            if link.sender.is_closed() {
                resting.remove(at);
            }
        }
        None
    }

    /// Lets a connection rest for the next request.
    pub(crate) fn rest(&self, lane: Lane, link: Link, now: Instant) {
        let Link::Whole(mut link) = link else { return };
        let mut resting = self.resting(lane).whole.borrow_mut();
        if !self.gone.get() && resting.len() < IDLE_MAX {
            link.since = now;
            resting.push(link);
        }
    }

    /// Closes connections that have rested too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_fresh =
            |link: &mut WholeLink| now.saturating_duration_since(link.since) <= IDLE_TIME && !link.sender.is_closed();
        for resting in &self.resting {
            resting.whole.borrow_mut().retain_mut(is_fresh);
            resting.shared.borrow_mut().retain(|link| link.is_fresh(now));
        }
    }

    fn resting(&self, lane: Lane) -> &Resting {
        &self.resting[lane as usize]
    }

    /// Opens a connection; `upgradable` ones can turn into tunnels.
    ///
    /// # Errors
    /// [`NoLink`]; a refusal has been noted.
    pub(crate) async fn connect(&self, lane: Lane, upgradable: bool) -> Result<Link, NoLink> {
        let stream = match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(self.backend.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_local(&error) => return Err(NoLink::Local(error)),
            Ok(Err(_)) | Err(_) => return Err(self.no_link()),
        };
        // Without it the end of a request could wait for the replica's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let _ = alive::ask(&stream);
        let link = match self.speaks.get() {
            Protocol::Http1 => whole(stream, upgradable).await.map(Link::Whole),
            // On the heap: requests that need none of it do not make room for it.
            Protocol::Http2 => Box::pin(shared(stream)).await.map(|link| Link::Part(self.share(lane, link))),
        };
        let link = link.map_err(|error| NoLink::Local(io::Error::other(error)))?;
        self.condition.accepted();
        Ok(link)
    }

    /// Takes a place on a new connection, and lets others have the other ones.
    fn share(&self, lane: Lane, link: SharedLink) -> PartLink {
        let link = Rc::new(link);
        let mut shared = self.resting(lane).shared.borrow_mut();
        if !self.gone.get() && shared.len() < IDLE_MAX {
            shared.push(link.clone());
        }
        PartLink::of(&link)
    }

    fn no_link(&self) -> NoLink {
        self.refused(Instant::now());
        NoLink::Refused
    }
}

async fn whole(stream: TcpStream, upgradable: bool) -> hyper::Result<WholeLink> {
    let (sender, connection) = http1::Builder::new()
        .writev(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(Fair::new(stream)))
        .await?;
    let driver = if upgradable { drive(connection.with_upgrades()) } else { drive(connection) };
    Ok(WholeLink { sender, driver, since: Instant::now() })
}

async fn shared(stream: TcpStream) -> hyper::Result<SharedLink> {
    let (sender, connection) = http2::Builder::new(Here)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW * 16)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(TokioIo::new(Fair::new(stream)))
        .await?;
    let places = Rc::new(Cell::new(STREAMS_PER_LINK));
    let (allowed, mut connection) = (places.clone(), Box::pin(connection));
    drive(poll_fn(move |cx| {
        let polled = connection.as_mut().poll(cx);
        allowed.set(connection.current_max_send_streams().min(STREAMS_PER_LINK));
        polled
    }));
    Ok(SharedLink { sender, taken: Cell::new(0), places, since: Cell::new(Instant::now()) })
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
