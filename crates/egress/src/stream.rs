//! Connections to a place, encrypted where it asks for that.

use std::io;
use std::sync::Arc;

use evenkeel_core::dependency::Kind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::postgres;

/// Bytes in both directions.
pub(crate) trait Both: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// A connection, encrypted or not.
pub(crate) type Stream = Box<dyn Both>;

/// Where connections lead.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Nothing is said there that is not encrypted.
    pub(crate) is_tls: bool,
}

/// A connection to a place.
///
/// # Errors
/// Nobody takes it, whoever does is not to be trusted, or it must be encrypted and there is no `tls`.
pub(crate) async fn reach(address: &Address, tls: Option<&Arc<ClientConfig>>) -> io::Result<Stream> {
    let mut stream = connect(&address.host, address.port).await?;
    if !address.is_tls {
        return Ok(Box::new(stream));
    }
    let config = tls.ok_or_else(|| io::Error::other("it is not known whom to trust"))?;
    if address.kind == Kind::Postgres {
        postgres::ask_for_encryption(&mut stream).await?;
    }
    let host = address.host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|_| io::Error::other("its host is no name for TLS"))?;
    Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?))
}

/// A connection, to the first of a name's addresses that takes it.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    // Where nobody listens the kernel may pick the very same port for our end, and connect us to ourselves.
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
