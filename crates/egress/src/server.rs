//! Listening sockets, and the connections that come in on them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::dependency::Kind;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::calls::{self, HEAD_LIMIT};
use crate::control::Served;
use crate::endpoint::Live;
use crate::tcp;

/// Connections of applications at once, of all endpoints together.
const CONNECTIONS_MAX: usize = 10_000;
/// The head of a request, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;
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
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(ends.wait_for(|ends| *ends).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
