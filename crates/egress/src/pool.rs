//! Connections to one place, and those that rest.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use crate::body::Outgoing;
use crate::stream::{Address, Stream, agree};
use crate::workers;

/// Workers beyond so many share what rests.
const SHARDS: usize = 16;
/// Resting connections of a worker at most, and how long they rest. Servers mostly wait longer.
const RESTING_MAX: usize = 64;
const REST: Duration = Duration::from_secs(30);
/// The head of an answer, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;
/// What a dependency may send ahead over HTTP/2: of one answer, and of all answers of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls at once over one connection of HTTP/2, where the dependency allows so many.
const STREAMS_MAX: usize = 100;

/// The connections to one place.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) address: Address,
    /// Whether HTTP/2 is spoken without having been agreed on.
    pub(crate) is_http2: bool,
    /// One for each worker: a connection is driven where it was made, and serves those that are there.
    resting: [Mutex<Resting>; SHARDS],
}

#[derive(Debug, Default)]
struct Resting {
    /// Those that carry a call at a time.
    ones: Vec<(http1::SendRequest<Outgoing>, Instant)>,
    /// Those that carry many, also while they do, with when they were given one last.
    shared: Vec<(Arc<Shared>, Instant)>,
}

/// A connection that speaks HTTP/2.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Outgoing>,
    /// Calls under way.
    taken: AtomicUsize,
    /// How many there may be.
    places: Arc<AtomicUsize>,
    /// Whether a call over it has failed: it may be dead without having said so.
    is_left: AtomicBool,
}

/// One connection for one call. Dropped, it is closed, unless others use it.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) sender: Sender,
    /// Whether it carried a call before: it may have been closed meanwhile.
    pub(crate) is_used: bool,
    pool: Arc<Pool>,
}

/// What takes the call.
#[derive(Debug)]
pub(crate) enum Sender {
    /// HTTP/1.1.
    One(http1::SendRequest<Outgoing>),
    /// HTTP/2.
    Many(OnStream),
}

/// A place on a connection that others use as well.
#[derive(Debug)]
pub(crate) struct OnStream(Arc<Shared>);

impl OnStream {
    pub(crate) fn sender(&self) -> http2::SendRequest<Outgoing> {
        self.0.sender.clone()
    }
}

impl Drop for OnStream {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn is_of_use(&self) -> bool {
        !self.is_left.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    fn take(self: &Arc<Self>) -> OnStream {
        self.taken.fetch_add(1, Ordering::Relaxed);
        OnStream(self.clone())
    }
}

impl Pool {
    pub(crate) fn new(address: Address, is_http2: bool) -> Arc<Self> {
        Arc::new(Self { address, is_http2, resting: Default::default() })
    }

    /// A connection that rests and can take a call at once; `alone`: one that carries a single call.
    pub(crate) fn at_hand(self: &Arc<Self>, alone: bool) -> Option<Lent> {
        let lent = |sender| Lent { sender, is_used: true, pool: self.clone() };
        let mut resting = self.lock();
        if !alone && let Some(stream) = resting.on_stream() {
            return Some(lent(Sender::Many(stream)));
        }
        let sender = resting.one()?;
        if sender.is_ready() {
            return Some(lent(Sender::One(sender)));
        }
        resting.ones.push((sender, Instant::now()));
        None
    }

    /// A connection that rests, or a new one.
    pub(crate) async fn lend(self: &Arc<Self>, tls: Option<&Arc<ClientConfig>>) -> io::Result<Lent> {
        while let Some(mut sender) = self.rested() {
            if sender.ready().await.is_ok() {
                return Ok(Lent { sender: Sender::One(sender), is_used: true, pool: self.clone() });
            }
        }
        self.fresh(tls).await
    }

    /// A new connection.
    async fn fresh(self: &Arc<Self>, tls: Option<&Arc<ClientConfig>>) -> io::Result<Lent> {
        let (stream, is_agreed) = agree(&self.address, tls).await?;
        let sender = if is_agreed || self.is_http2 {
            let shared = Arc::new(many(stream).await?);
            self.lock().shared.push((shared.clone(), Instant::now()));
            Sender::Many(shared.take())
        } else {
            Sender::One(one(stream).await?)
        };
        Ok(Lent { sender, is_used: false, pool: self.clone() })
    }

    fn rested(&self) -> Option<http1::SendRequest<Outgoing>> {
        self.lock().one()
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.resting[workers::index() % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
    /// A place on a connection that carries many calls.
    fn on_stream(&mut self) -> Option<OnStream> {
        if self.shared.is_empty() {
            return None;
        }
        let is_tired =
            |shared: &Shared, since: &Instant| shared.taken.load(Ordering::Relaxed) == 0 && since.elapsed() >= REST;
        self.shared.retain(|(shared, since)| shared.is_of_use() && !is_tired(shared, since));
        let has_room = |shared: &Shared| shared.taken.load(Ordering::Relaxed) < shared.places.load(Ordering::Relaxed);
        let (shared, since) = self.shared.iter_mut().find(|(shared, _)| has_room(shared))?;
        *since = Instant::now();
        Some(shared.take())
    }

    /// A connection that carries nothing.
    fn one(&mut self) -> Option<http1::SendRequest<Outgoing>> {
        while let Some((sender, since)) = self.ones.pop() {
            if since.elapsed() >= REST {
                // Those below rest for longer.
                self.ones.clear();
            } else if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }
}

impl Lent {
    /// Whether a request must have the form it has in HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Many(_))
    }

    /// Its answer was read to the end.
    pub(crate) fn give_back(self) {
        let Sender::One(sender) = self.sender else { return };
        let mut resting = self.pool.lock();
        if !sender.is_closed() && resting.ones.len() < RESTING_MAX {
            resting.ones.push((sender, Instant::now()));
        }
    }

    /// Its call has failed: no other is to begin on it. Those that are under way go on.
    pub(crate) fn leave(self) {
        if let Sender::Many(stream) = &self.sender {
            stream.0.is_left.store(true, Ordering::Relaxed);
        }
    }
}

async fn one(stream: Stream) -> io::Result<http1::SendRequest<Outgoing>> {
    let builder = http1::Builder::new().max_buf_size(BUFFER_BYTES).writev(false).to_owned();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the sender, or with what was agreed to be spoken in its place.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}

async fn many(stream: Stream) -> io::Result<Shared> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(BUFFER_BYTES as u32)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let places = Arc::new(AtomicUsize::new(STREAMS_MAX));
    let (allowed, mut connection) = (places.clone(), Box::pin(connection));
    // It ends with the last sender and the last answer.
    tokio::spawn(std::future::poll_fn(move |cx| {
        let polled = connection.as_mut().poll(cx);
        allowed.store(connection.current_max_send_streams().min(STREAMS_MAX), Ordering::Relaxed);
        polled.map(drop)
    }));
    Ok(Shared { sender, taken: AtomicUsize::new(0), places, is_left: AtomicBool::new(false) })
}
