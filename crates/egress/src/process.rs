//! The process: starts the parts, waits for the wish to stop, ends the parts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_wire::egress::SOCKET_NAME;
use evenkeel_wire::frame;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::control::{self, Control, Served};
use crate::endpoint::READ_AGAIN;
use crate::server::Server;
use crate::workers::Workers;

/// How long calls under way may take after a SIGTERM.
const TERM_DRAIN: Duration = Duration::from_secs(10);

/// Where it keeps its state, and how many cores it may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the control socket, the key of which tokens are made, and the saved table.
    pub state_directory: PathBuf,
    /// Worker threads; at least one is started.
    pub workers: usize,
}

/// Serves dependencies until asked to stop, by message or by SIGTERM.
///
/// The saved table is in force at once; calls are served when listening sockets have been sent.
///
/// # Errors
/// The control socket cannot be opened, or the machine gives no threads.
pub fn run(options: Options) -> io::Result<()> {
    raise_descriptor_limit();
    leave_no_core();
    let workers = Workers::start(options.workers)?;
    // What is waited for here is the end.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ends) = watch::channel(false);
    let served = Served::default();
    let server = Server::new(served.clone(), ends);
    let control = Control::new(&options.state_directory, workers, server.clone(), served)?;
    let listener = Arc::new(frame::listen(&options.state_directory, SOCKET_NAME)?);
    let (stop, stops) = unbounded_channel();
    std::thread::Builder::new().name("control".into()).spawn({
        let (listener, control) = (listener.clone(), control.clone());
        move || control::serve(&listener, &control, &stop)
    })?;
    let again = Arc::downgrade(&control);
    std::thread::Builder::new().name("secrets".into()).spawn(move || {
        while let Some(control) = again.upgrade() {
            control.prepare_again();
            drop(control);
            std::thread::sleep(READ_AGAIN);
        }
    })?;
    info!(workers = options.workers, "egress started");
    let drain = runtime.block_on(wish_to_stop(stops))?;
    info!(?drain, "egress stops");
    control.stop_accepting();
    let _ = end.send(true);
    runtime.block_on(drained(&server, drain));
    control.end();
    Ok(())
}

async fn drained(server: &Server, limit: Duration) {
    let end = Instant::now() + limit;
    while server.connections() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Two descriptors per call under way are soon more than the customary 1024. What is allowed at most needs no leave.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// What is in its memory are credentials: a crash shall not write them to a disk.
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        warn!(%error, "a crash may leave secrets on disk");
    }
}

/// How long to drain, once somebody wants the process to stop.
async fn wish_to_stop(mut asked: UnboundedReceiver<Duration>) -> io::Result<Duration> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => Ok(TERM_DRAIN),
        drain = asked.recv() => Ok(drain.unwrap_or(TERM_DRAIN)),
    }
}
