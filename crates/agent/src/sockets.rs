//! Listening sockets on the addresses that users connect to.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

/// Connections that wait to be accepted, per socket: enough for what comes while a dead proxy is replaced.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotListen {
    /// Somebody else listens.
    #[error("{0} is in use by another program")]
    InUse(SocketAddr),
    /// The machine has no such address.
    #[error("{0} is not an address of this machine")]
    NotHere(SocketAddr),
    /// Mostly ports below 1024.
    #[error("{0} needs more rights: use a port from 1024 on, or give evenkeel CAP_NET_BIND_SERVICE")]
    Denied(SocketAddr),
    /// The kernel would choose a port, and a new one every time.
    #[error("{0} names no port")]
    NoPort(SocketAddr),
    /// Anything else.
    #[error("{0}: {1}")]
    Other(SocketAddr, std::io::Error),
}

/// Fails when another program listens on an address. Sockets that share a port with SO_REUSEPORT would get along with
/// those of another evenkeel of the same user and take half of its connections, so this one does not share.
pub(crate) fn check_free(address: SocketAddr) -> Result<(), CannotListen> {
    if address.port() == 0 {
        return Err(CannotListen::NoPort(address));
    }
    open(address, false).map(drop).map_err(|errno| explain(address, errno))
}

/// Opens `count` sockets that share an address; the kernel spreads connections over them.
pub(crate) fn listen_shared(address: SocketAddr, count: usize) -> Result<Vec<OwnedFd>, CannotListen> {
    let listening = || {
        let socket = open(address, true)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    (0..count).map(|_| listening()).collect::<Result<_, Errno>>().map_err(|errno| explain(address, errno))
}

/// With SO_REUSEADDR, so that closed connections in TIME_WAIT do not look like another program.
fn open(address: SocketAddr, shared: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_reuseport(&socket, shared)?;
    bind(&socket, &address)?;
    Ok(socket)
}

fn explain(address: SocketAddr, errno: Errno) -> CannotListen {
    match errno {
        Errno::ADDRINUSE => CannotListen::InUse(address),
        Errno::ADDRNOTAVAIL => CannotListen::NotHere(address),
        Errno::ACCESS | Errno::PERM => CannotListen::Denied(address),
        other => CannotListen::Other(address, other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_address_is_free_until_somebody_listens_even_one_who_shares() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        assert_eq!(check_free(address).unwrap_err().to_string(), format!("{address} is in use by another program"));
        drop(probe);
        assert!(becomes_free(address));
        let sockets = listen_shared(address, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert!(matches!(check_free(address), Err(CannotListen::InUse(_))));
    }

    #[test]
    fn connections_that_linger_after_their_close_are_nobodys_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        drop((client, listener));
        assert!(becomes_free(address));
    }

    /// A child that another test is just starting holds copies of our sockets for a moment.
    fn becomes_free(address: SocketAddr) -> bool {
        crate::sync::until(std::time::Duration::from_secs(1), || check_free(address).is_ok())
    }

    #[test]
    fn an_address_of_another_machine_or_without_a_port_is_named() {
        let other: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert!(matches!(check_free(other), Err(CannotListen::NotHere(_))));
        let portless: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert!(matches!(check_free(portless), Err(CannotListen::NoPort(_))));
    }
}
