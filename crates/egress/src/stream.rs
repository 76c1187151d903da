//! Connections to a place, encrypted where it asks for that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::dependency::Kind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::postgres;

/// Between the tries of two addresses of one name, while the earlier one does not answer.
const STAGGER: Duration = Duration::from_millis(250);

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
    agree(address, tls).await.map(|(stream, _)| stream)
}

/// The same, and whether both sides have agreed to speak HTTP/2.
///
/// # Errors
/// As [`reach`].
pub(crate) async fn agree(address: &Address, tls: Option<&Arc<ClientConfig>>) -> io::Result<(Stream, bool)> {
    let mut stream = connect(&address.host, address.port).await?;
    if !address.is_tls {
        return Ok((Box::new(stream), false));
    }
    let config = tls.ok_or_else(|| io::Error::other("it is not known whom to trust"))?;
    if address.kind == Kind::Postgres {
        postgres::ask_for_encryption(&mut stream).await?;
    }
    let host = address.host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|_| io::Error::other("its host is no name for TLS"))?;
    let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), is_http2))
}

/// A connection, to the first of a name's addresses that takes it. The name is looked up each time.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((host.trim_matches(['[', ']']), port)).await?.collect();
    let stream = first(in_turns(addresses), TcpStream::connect).await?;
    // Where nobody listens the kernel may pick the very same port for our end, and connect us to ourselves.
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Both families in turns, as the name server ordered them otherwise (RFC 8305, 4).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first = addresses.first().map(SocketAddr::is_ipv6);
    let (ones, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| Some(address.is_ipv6()) == is_first);
    let (mut ones, mut others) = (ones.into_iter(), others.into_iter());
    let mut turns = Vec::new();
    while ones.len() + others.len() > 0 {
        turns.extend(ones.next());
        turns.extend(others.next());
    }
    turns
}

/// The first connection that is made. An address that does not answer delays the next one by a moment, and one that refuses
/// not at all (RFC 8305, 5).
async fn first<T, F>(addresses: Vec<SocketAddr>, reach: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    if let [address] = addresses[..] {
        return reach(address).await;
    }
    let mut left = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    loop {
        match left.next() {
            Some(address) => drop(tries.spawn(reach(address))),
            None if tries.is_empty() => return Err(last),
            None => {}
        }
        tokio::select! {
            Some(tried) = tries.join_next() => match tried {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(error) => last = error.into(),
            },
            () = sleep(STAGGER), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_other_family_is_tried_second() {
        let ordered = in_turns(addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1", "127.0.0.2:1"]));
        assert_eq!(ordered, addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "[::3]:1"]));
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_keep_others_from_being_tried() {
        let reach = |address: SocketAddr| async move {
            match address.port() {
                1 => std::future::pending().await,
                2 => Err(io::ErrorKind::ConnectionRefused.into()),
                port => Ok(port),
            }
        };
        let made = async |texts| first(addresses(texts), reach).await.map_err(|error| error.kind());
        assert_eq!(made(&["[::1]:1", "127.0.0.1:2", "[::1]:3"]).await, Ok(3));
        assert_eq!(made(&["[::1]:2", "127.0.0.1:2"]).await, Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(made(&[]).await, Err(io::ErrorKind::NotFound));
    }
}
