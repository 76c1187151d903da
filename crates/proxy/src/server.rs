//! The control socket: asks in, answers out.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::control::Control;
use crate::limits::CONTROL_CONNECTIONS_MAX;
use crate::vital::Vital;

/// How long a peer may take for the rest of a message it has begun, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the control socket until it is shut down; `stop` hears of every wish to stop.
pub(crate) fn serve(listener: &UnixListener, control: &Arc<Control>, stop: &UnboundedSender<Duration>) {
    let _vital = Vital("the control socket");
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            // Shut down, as the proxy ends.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                warn!(%error, "cannot accept control connections");
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONTROL_CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            warn!("too many control connections, closing one");
            continue;
        }
        let (control, stop, open) = (control.clone(), stop.clone(), open.clone());
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, &control, &stop) {
                debug!(%error, "control connection ended");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(mut stream: UnixStream, control: &Control, stop: &UnboundedSender<Duration>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut has_retired_it = false;
    while let Some(ask) = frame::read::<Ask>(&mut stream)? {
        if control.has_retired() && !has_retired_it {
            return Ok(());
        }
        let answer = match ask {
            Ask::Apply { table } => control.apply(*table),
            Ask::Report { heard, acknowledged } => control.report(&heard, &acknowledged),
            Ask::Table => control.table(),
            Ask::Listen { address, sockets } => listen(&stream, control, address, sockets)?,
            Ask::Unlisten { address } => control.unlisten(address),
            Ask::Sockets => {
                control.sockets(|answer, descriptors| {
                    frame::write(&mut stream, answer)?;
                    frame::send_descriptors(&stream, descriptors)
                })?;
                continue;
            }
            Ask::Elder => {
                stream.set_read_timeout(Some(PATIENCE))?;
                let elder = frame::receive_descriptors(&stream, 1);
                stream.set_read_timeout(None)?;
                control.take_elder(elder?.into_iter().next().map(UnixStream::from));
                Answer::Done
            }
            Ask::Retire { drain_ms } => {
                has_retired_it = true;
                control.retire();
                frame::write(&mut stream, &Answer::Done)?;
                let _ = stop.send(Duration::from_millis(drain_ms));
                continue;
            }
            Ask::Stop { drain_ms } => {
                // Answered first: the process may be gone the moment it stops.
                frame::write(&mut stream, &Answer::Done)?;
                let _ = stop.send(Duration::from_millis(drain_ms));
                continue;
            }
        };
        frame::write(&mut stream, &answer)?;
    }
    Ok(())
}

fn listen(stream: &UnixStream, control: &Control, address: std::net::SocketAddr, sockets: usize) -> io::Result<Answer> {
    // More than any machine has cores: a lying number must not take the memory away.
    const SOCKETS_MAX: usize = 1024;
    if sockets > SOCKETS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many sockets"));
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let descriptors = frame::receive_descriptors(stream, sockets);
    stream.set_read_timeout(None)?;
    Ok(control.listen(address, descriptors?))
}
