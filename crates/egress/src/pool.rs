//! Connections to one place, and those that rest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use crate::body::Outgoing;
use crate::stream::{Address, Stream, reach};
use crate::workers;

/// Workers beyond so many share what rests.
const SHARDS: usize = 16;
/// Resting connections of a worker at most, and how long they rest. Servers mostly wait longer.
const RESTING_MAX: usize = 64;
const REST: Duration = Duration::from_secs(30);
/// The head of an answer, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;

/// The connections to one place.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) address: Address,
    /// One for each worker: a connection is driven where it was made, and serves those that are there.
    resting: [Mutex<Resting>; SHARDS],
}

type Resting = Vec<(SendRequest<Outgoing>, Instant)>;

/// One connection for one call. Dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) sender: SendRequest<Outgoing>,
    /// Whether it carried a call before: it may have been closed meanwhile.
    pub(crate) is_used: bool,
    pool: Arc<Pool>,
}

impl Pool {
    pub(crate) fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address, resting: Default::default() })
    }

    /// A connection that rests and can take a call at once.
    pub(crate) fn at_hand(self: &Arc<Self>) -> Option<Lent> {
        let sender = self.rested()?;
        if sender.is_ready() {
            return Some(Lent { sender, is_used: true, pool: self.clone() });
        }
        self.lock().push((sender, Instant::now()));
        None
    }

    /// A connection that rests, or a new one.
    pub(crate) async fn lend(self: &Arc<Self>, tls: Option<&Arc<ClientConfig>>) -> io::Result<Lent> {
        while let Some(mut sender) = self.rested() {
            if sender.ready().await.is_ok() {
                return Ok(Lent { sender, is_used: true, pool: self.clone() });
            }
        }
        self.fresh(tls).await
    }

    /// A new connection.
    pub(crate) async fn fresh(self: &Arc<Self>, tls: Option<&Arc<ClientConfig>>) -> io::Result<Lent> {
        let sender = handshake(reach(&self.address, tls).await?).await?;
        Ok(Lent { sender, is_used: false, pool: self.clone() })
    }

    fn rested(&self) -> Option<SendRequest<Outgoing>> {
        let mut resting = self.lock();
        while let Some((sender, since)) = resting.pop() {
            if since.elapsed() >= REST {
                // Those below rest for longer.
                resting.clear();
            } else if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.resting[workers::index() % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// Its answer was read to the end.
    pub(crate) fn give_back(self) {
        let mut resting = self.pool.lock();
        if !self.sender.is_closed() && resting.len() < RESTING_MAX {
            resting.push((self.sender, Instant::now()));
        }
    }
}

async fn handshake(stream: Stream) -> io::Result<SendRequest<Outgoing>> {
    let builder = Builder::new().max_buf_size(BUFFER_BYTES).writev(false).to_owned();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the sender, or with what was agreed to be spoken in its place.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}
