//! Connections: how many at once, and for how long without a request.
//!
//! Whoever is on this machine can connect to loopback. Connections in which nobody has shown the token give way to
//! newer ones, so they take neither the controller's descriptors nor the places of those who may ask.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Response};
use axum::serve::Listener;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Longest wait for the head of a request, the first one and every further one.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Who is served on a listener.
#[derive(Clone)]
pub(crate) struct Door<T> {
    /// Connections at once. Beyond it the one that has rested longest is closed for a new one.
    pub(crate) most: usize,
    /// Tells from its head whether a request may hold its connection until it is answered.
    pub(crate) trusts: T,
}

/// Serves `routes` until `stop` is true and the requests at that moment are answered.
pub(crate) async fn serve<L, T>(mut listener: L, routes: Router, door: Door<T>, mut stop: watch::Receiver<bool>)
where
    L: Listener,
    T: Fn(&HeaderMap) -> bool + Clone + Send + Sync + 'static,
{
    // Dropped with this future, and every connection with it.
    let mut tasks = JoinSet::new();
    let mut seats: Vec<(AbortHandle, Arc<Seat>)> = Vec::new();
    loop {
        let (io, _) = tokio::select! {
            () = told(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        while tasks.try_join_next().is_some() {}
        seats.retain(|(task, _)| !task.is_finished());
        if seats.len() >= door.most {
            let rested = seats.iter().enumerate().filter_map(|(at, (_, seat))| Some((seat.rests_since()?, at)));
            let Some((_, longest)) = rested.min() else {
                warn!(open = seats.len(), "too many connections, closing one");
                continue;
            };
            seats.swap_remove(longest).0.abort();
        }
        let seat = Arc::new(Seat::new());
        let task = tasks.spawn(converse(io, routes.clone(), door.trusts.clone(), seat.clone(), stop.clone()));
        seats.push((task, seat));
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn converse(
    io: impl AsyncRead + AsyncWrite + Send + Unpin,
    routes: Router,
    trusts: impl Fn(&HeaderMap) -> bool,
    seat: Arc<Seat>,
    mut stop: watch::Receiver<bool>,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        seat.asked.store(true, Ordering::Relaxed);
        let hold = trusts(request.headers()).then(|| Hold::of(&seat));
        let answer = routes.call(request);
        async move { answer.await.map(|answer: Response<Body>| answer.map(|body| Held { body, _hold: hold })) }
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended: Result<(), hyper::Error> = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stop) => {
            // hyper would wait for the first request of a connection that has sent none.
            if !seat.asked.load(Ordering::Relaxed) {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// Waits for the end; whoever was to tell it and is gone has told it.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One connection.
struct Seat {
    /// A first request has come.
    asked: AtomicBool,
    /// `None` while a trusted request is answered.
    rests_since: Mutex<Option<Instant>>,
}

impl Seat {
    fn new() -> Self {
        Self { asked: AtomicBool::new(false), rests_since: Mutex::new(Some(Instant::now())) }
    }

    fn rests_since(&self) -> Option<Instant> {
        *self.rests_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<Instant>) {
        *self.rests_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// A trusted request under way: from its head until its answer is complete.
struct Hold(Arc<Seat>);

impl Hold {
    fn of(seat: &Arc<Seat>) -> Self {
        seat.set(None);
        Self(seat.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}

/// The body of an answer, which holds the connection while there is more of it.
struct Held {
    body: Body,
    _hold: Option<Hold>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "all of it is test code")]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use axum::response::sse::{Event, Sse};
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;

    const FEW: usize = 8;

    /// One answer, and a stream of events that never ends; whoever says `token` is trusted.
    async fn served() -> (SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
        let events = async || {
            let once = async |first: bool| match first {
                true => Some((Ok::<_, Infallible>(Event::default().data("first")), false)),
                false => std::future::pending().await,
            };
            Sse::new(futures_util::stream::unfold(true, once))
        };
        let routes = Router::new().route("/", get(async || "here")).route("/events", get(events));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let door = Door { most: FEW, trusts: |headers: &HeaderMap| headers.contains_key("token") };
        (address, stop, tokio::spawn(serve(listener, routes, door, stopped)))
    }

    async fn ask(address: SocketAddr, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {head}\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).ends_with(end) {
            text.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn connections_at_rest_give_way_to_a_new_one_and_those_of_the_trusted_stay() {
        let (address, _stop, _server) = served().await;
        let mut followed = ask(address, "/events HTTP/1.1\r\ntoken: yes").await;
        read_until(&mut followed, "data: first\n\n\r\n").await;
        let mut idle = Vec::new();
        for turn in 0..200 {
            // Half of them send the beginning of a head, or ask without the token and do not read.
            idle.push(match turn % 4 {
                0 => ask(address, "/ HTTP/1.1").await,
                1 => ask(address, "/events HTTP/1.1").await,
                _ => TcpStream::connect(address).await.unwrap(),
            });
        }
        let mut asking = ask(address, "/ HTTP/1.1\r\ntoken: yes").await;
        assert!(read_until(&mut asking, "here").await.starts_with("HTTP/1.1 200"));
        let still = tokio::time::timeout(Duration::from_millis(50), followed.read_u8()).await;
        assert!(still.is_err(), "{still:?}");
    }

    #[tokio::test]
    async fn where_all_are_held_by_the_trusted_a_new_one_is_closed() {
        let (address, _stop, _server) = served().await;
        let mut held = Vec::new();
        for _ in 0..FEW {
            let mut stream = ask(address, "/events HTTP/1.1\r\ntoken: yes").await;
            read_until(&mut stream, "data: first\n\n\r\n").await;
            held.push(stream);
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
        drop(held);
        // Those who left make room.
        loop {
            let mut asking = ask(address, "/ HTTP/1.1\r\ntoken: yes").await;
            if asking.read(&mut [0]).await.is_ok_and(|read| read > 0) {
                break;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_closed() {
        let (address, _stop, _server) = served().await;
        let begun = Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        let mut rested = ask(address, "/ HTTP/1.1").await;
        read_until(&mut rested, "here").await;
        assert_eq!(rested.read(&mut [0]).await.unwrap(), 0);
        assert!(begun.elapsed() >= 2 * HEAD_TIME);
    }

    #[tokio::test]
    async fn it_ends_when_told_to_and_silent_connections_do_not_keep_it() {
        let (address, stop, server) = served().await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut rested = ask(address, "/ HTTP/1.1").await;
        read_until(&mut rested, "here").await;
        stop.send_replace(true);
        tokio::time::timeout(HEAD_TIME / 2, server).await.unwrap().unwrap();
    }
}
