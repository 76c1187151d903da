//! The proxy's process: starts the parts, waits for the wish to stop, ends the parts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_wire::frame;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{info, warn};

use crate::control::Control;
use crate::limits::{REVEAL_ALONE, TERM_DRAIN};
use crate::{marks, server, worker};

/// Name of the control socket in the state directory.
pub const SOCKET_NAME: &str = "proxy.sock";

/// Where a proxy keeps its state, and how many cores it may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the control socket `proxy.sock`, the saved table `table.json`, and `marks.key`, with which users' marks are
    /// signed.
    pub state_directory: PathBuf,
    /// Worker threads, one per core; at least one is started.
    pub workers: usize,
}

/// Runs a proxy until it is asked to stop, by message or by SIGTERM, and all requests have ended or the time for that
/// is over.
///
/// The saved table is in force at once; requests are served when listening sockets have been sent.
///
/// # Errors
/// The control socket cannot be opened, or the machine gives no threads.
pub fn run(options: Options) -> io::Result<()> {
    raise_descriptor_limit();
    marks::take_key(&options.state_directory);
    let count = options.workers.max(1);
    let start = |index| worker::start(index, count, random_seed());
    let workers: Vec<worker::Handle> = (0..count).map(start).collect::<io::Result<_>>()?;
    let commands = workers.iter().map(|worker| worker.commands.clone()).collect();
    let control = Arc::new(Control::new(options.state_directory.clone(), commands)?);
    let listener = Arc::new(frame::listen(&options.state_directory, SOCKET_NAME)?);
    reveal_without_controller(&control)?;
    let (stop, stops) = unbounded_channel();
    reopen_when_told(&control)?;
    let server = std::thread::spawn({
        let (listener, control) = (listener.clone(), control.clone());
        move || server::serve(&listener, &control, &stop)
    });
    info!(workers = workers.len(), "proxy started");
    let drain = tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(wish_to_stop(stops))?;
    info!(?drain, "proxy stops");
    control.stop(drain);
    for worker in workers {
        let _ = worker.thread.join();
    }
    control.end_log();
    rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both)?;
    let _ = server.join();
    Ok(())
}

/// What has become final of trials is taken from the workers although no controller asks.
fn reveal_without_controller(control: &Arc<Control>) -> io::Result<()> {
    let control = Arc::downgrade(control);
    let work = move || {
        while let Some(control) = control.upgrade() {
            control.reveal_alone();
            drop(control);
            std::thread::sleep(REVEAL_ALONE / 2);
        }
    };
    std::thread::Builder::new().name("trials".into()).spawn(work).map(drop)
}

/// Whoever rotates logs says so with SIGHUP, once the file has moved.
fn reopen_when_told(control: &Arc<Control>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let control = Arc::downgrade(control);
    let mut told = {
        let _within = runtime.enter();
        signal(SignalKind::hangup())?
    };
    let work = move || {
        runtime.block_on(async {
            while told.recv().await.is_some() {
                let Some(control) = control.upgrade() else { return };
                control.reopen_log();
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(work).map(drop)
}

/// Two descriptors per request in flight are soon more than the customary 1024. What is allowed at most needs no leave.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// How long to drain, once somebody wants the proxy to stop.
async fn wish_to_stop(mut asked: UnboundedReceiver<Duration>) -> io::Result<Duration> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => Ok(TERM_DRAIN),
        drain = asked.recv() => Ok(drain.unwrap_or(TERM_DRAIN)),
    }
}

/// The standard library seeds its hash maps from the operating system.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
