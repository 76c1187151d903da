//! Connections to one place, and those that rest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::body::Outgoing;

/// Resting connections at most, and how long they rest. Servers mostly wait longer.
const RESTING_MAX: usize = 64;
const REST: Duration = Duration::from_secs(30);
/// The head of an answer, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;

/// Where connections lead.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
}

/// The connections to one place.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) address: Address,
    resting: Mutex<Vec<(SendRequest<Outgoing>, Instant)>>,
}

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
        Arc::new(Self { address, resting: Mutex::default() })
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
        let stream = connect(&self.address.host, self.address.port).await?;
        let sender = match tls {
            None => handshake(stream).await?,
            Some(config) => {
                let host = self.address.host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|_| io::Error::other("its host is no name for TLS"))?;
                handshake(TlsConnector::from(config.clone()).connect(name, stream).await?).await?
            }
        };
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

    fn lock(&self) -> MutexGuard<'_, Vec<(SendRequest<Outgoing>, Instant)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A connection, to the first of a name's addresses that takes it.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    // Where nobody listens the kernel may pick the very same port for our end, and connect us to ourselves.
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<SendRequest<Outgoing>> {
    let builder = Builder::new().max_buf_size(BUFFER_BYTES).to_owned();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
