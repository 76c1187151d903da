//! Listening sockets, and the connections that come in on them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::dependency::Kind;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::body::Body;
use crate::calls::{self, HEAD_LIMIT};
use crate::control::Served;
use crate::endpoint::Live;
use crate::tcp;

/// Connections of applications at once, of all endpoints together.
const CONNECTIONS_MAX: usize = 10_000;
/// The head of a request, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;
/// Calls at once over one connection of HTTP/2.
const STREAMS_MAX: u32 = 1_000;
/// Wait when the machine has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    served: Served,
    seats: Arc<Semaphore>,
    /// Turns true when the process ends.
    ends: watch::Receiver<bool>,
}

impl Server {
    pub(crate) fn new(served: Served, ends: watch::Receiver<bool>) -> Self {
        Self { served, seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)), ends }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        CONNECTIONS_MAX - self.seats.available_permits()
    }

    /// Serves a listening socket until the task is aborted.
    pub(crate) fn listen(&self, address: SocketAddr, listener: StdListener) -> io::Result<JoinHandle<()>> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(tokio::spawn(self.clone().accept(address, listener)))
    }

    async fn accept(self, address: SocketAddr, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, %address, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(seat) = self.seats.clone().try_acquire_owned() else {
                warn!(most = CONNECTIONS_MAX, "too many connections, one closed");
                continue;
            };
            // Of a release that is no more, or a table that has not come yet.
            let Some(live) = self.served.at(address) else { continue };
            let ends = self.ends.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                match live.dependency.kind {
                    Kind::Http => serve_http(live, stream, ends).await,
                    Kind::Postgres | Kind::Redis | Kind::Tcp => tcp::serve(live, stream).await,
                }
                drop(seat);
            });
        }
    }
}

async fn serve_http(live: Arc<Live>, stream: TcpStream, mut ends: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let live = live.clone();
        async move { Ok::<_, io::Error>(calls::answer(&live, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(BUFFER_BYTES).writev(false);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { drop(ends.wait_for(|ends| *ends).await) } => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    match connection.into_parts().filter(|_| error.is_parse_version_h2()) {
        // On the heap: connections that need none of it do not make room for it.
        Some(parts) => Box::pin(serve_streams(parts.io.into_inner(), parts.read_buf, parts.service, ends)).await,
        None => debug!(%error, "connection ended"),
    }
}

/// Serves a connection over which HTTP/2 is spoken from its first byte; `early` was read of it already.
async fn serve_streams<S>(stream: TcpStream, early: Bytes, service: S, mut ends: watch::Receiver<bool>)
where
    S: HttpService<Incoming, ResBody = Body, Error = io::Error> + Unpin,
    S::Future: Send + 'static,
{
    let (read, write) = stream.into_split();
    let stream = tokio::io::join(io::Cursor::new(early).chain(read), write);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_header_list_size(BUFFER_BYTES as u32).max_concurrent_streams(STREAMS_MAX);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { drop(ends.wait_for(|ends| *ends).await) } => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
