//! Noticing a peer that vanished without a word.
//!
//! A tunnel, or a stream of events with nothing to say, may be silent for hours, and so may the machine at its other
//! end that lost power. The kernel asks, and closes the connection when no answer comes.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt;

use crate::limits::{ALIVE_ASK_EVERY, ALIVE_ASKS, ALIVE_SILENCE};

/// Has the kernel ask whether the peer is there. Accepted connections have it from their listening socket.
///
/// # Errors
/// The socket is none of TCP.
pub(crate) fn ask(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_keepidle(&socket, ALIVE_SILENCE)?;
    sockopt::set_tcp_keepintvl(&socket, ALIVE_ASK_EVERY)?;
    sockopt::set_tcp_keepcnt(&socket, ALIVE_ASKS)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_accepted_connection_is_asked_as_its_listening_socket_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ask(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), ALIVE_SILENCE);
        assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), ALIVE_ASK_EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap(), ALIVE_ASKS);
    }
}
