//! Accepting clients' connections on one socket.

use std::io;
use std::net::TcpListener as PlainListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::routes::Slot;
use crate::vital::Vital;
use crate::worker::Worker;
use crate::{alive, client};

/// Pause after the machine could not give a connection, most likely for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A task that accepts.
pub(crate) struct Acceptor {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Acceptor {
    /// Starts accepting.
    ///
    /// # Errors
    /// The socket is no good.
    pub(crate) fn start(worker: &Rc<Worker>, slot: &Rc<Slot>, socket: PlainListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        alive::ask(&socket)?;
        let listener = TcpListener::from_std(socket)?;
        let (end, ended) = oneshot::channel();
        let task = tokio::task::spawn_local(accept(worker.clone(), slot.clone(), listener, ended));
        Ok(Self { end, task })
    }

    /// Accepts what already waits, then closes the socket. A connection in the queue of a closed socket would be reset.
    pub(crate) async fn end(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

async fn accept(worker: Rc<Worker>, slot: Rc<Slot>, listener: TcpListener, mut ended: oneshot::Receiver<()>) {
    let _vital = Vital("accepting connections");
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut ended => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) if !worker.is_full() => {
                tokio::task::spawn_local(client::serve(worker.clone(), slot.clone(), tcp, peer));
            }
            Ok(_) => warn!("too many connections, closing one"),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if let Err(error) = empty(&worker, &slot, listener) {
        warn!(%error, "cannot empty the queue of a socket");
    }
}

/// Asks the kernel itself: the runtime may not have heard of the last connections yet.
fn empty(worker: &Rc<Worker>, slot: &Rc<Slot>, listener: TcpListener) -> io::Result<()> {
    let listener = listener.into_std()?;
    while !worker.is_full() {
        match listener.accept() {
            Ok((tcp, peer)) => {
                tcp.set_nonblocking(true)?;
                let tcp = TcpStream::from_std(tcp)?;
                tokio::task::spawn_local(client::serve(worker.clone(), slot.clone(), tcp, peer));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The client went away while it waited; the socket is well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionReset, Interrupted].contains(&error.kind())
}
