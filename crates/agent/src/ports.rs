//! A port for each replica.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Below Linux's ephemeral range (32768 to 60999), so that no outgoing connection takes a replica's port before it does.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
/// What replicas depend on is found above their own ports, and below the ephemeral range as well.
const FIRST_ENDPOINT: u16 = FIRST + COUNT;
const ENDPOINTS: u16 = 32_768 - FIRST_ENDPOINT;

/// No port is left.
#[derive(Debug, thiserror::Error)]
#[error("no port from {first} to {} is free", first + (count - 1))]
pub(crate) struct NoFreePort {
    first: u16,
    count: u16,
}

/// Finds a port that nobody uses and that is not in `taken`; looks from a random one on, so that a port that was just
/// given back is rarely met again at once.
pub(crate) fn free(taken: &BTreeSet<u16>) -> Result<u16, NoFreePort> {
    free_of(FIRST, COUNT, taken)
}

/// The same for what replicas depend on.
pub(crate) fn free_endpoint(taken: &BTreeSet<u16>) -> Result<u16, NoFreePort> {
    free_of(FIRST_ENDPOINT, ENDPOINTS, taken)
}

fn free_of(first: u16, count: u16, taken: &BTreeSet<u16>) -> Result<u16, NoFreePort> {
    let offset = fastrand::u16(0..count);
    (0..count)
        .map(|step| first + (offset + step) % count)
        .find(|port| !taken.contains(port) && is_free(*port))
        .ok_or(NoFreePort { first, count })
}

/// Binds as the least forgiving replica would: on all addresses, and without SO_REUSEADDR, so that a port with
/// connections in TIME_WAIT is passed over. A replica that cannot bind there would not start.
fn is_free(port: u16) -> bool {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .is_ok_and(|socket| bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_port_is_neither_taken_by_us_nor_by_others() {
        let first = free(&BTreeSet::new()).unwrap();
        let all_but_first = (FIRST..FIRST + COUNT).filter(|port| *port != first).collect();
        assert_eq!(free(&all_but_first).unwrap(), first);
        let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(free(&all_but_first).is_err());
    }

    #[test]
    fn a_port_with_closed_connections_lingering_is_passed_over() {
        let port = free(&BTreeSet::new()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        // The side that closes first lingers in TIME_WAIT.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, listener));
        assert!(!is_free(port));
    }
}
