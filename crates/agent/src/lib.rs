//! The machine's hands: starts and reaps replicas, holds the listening sockets, keeps the proxy alive.
//!
//! Start at [`run`], which the hidden subcommand `evenkeel agent` calls. The agent decides nothing; it does what the
//! controller with the highest fencing token asks over `<state>/agent.sock` (see [`evenkeel_wire::agent`]). It may die
//! at any moment: replicas and the proxy go on, and its successor adopts them. Threads and blocking calls throughout;
//! there is little to do and it must be easy to see that it is done. Modules, in reading order:
//!
//! - `server`: connections, and which part carries out which request.
//! - `fence`: the highest fencing token met, kept on disk.
//! - `replicas`: the book of replicas; `life` of one from spawn to exit; `adopt` what a dead agent left.
//! - `spawn`, `ports`, `logs`, `marker`: how a process is started, its port, its log, its record on disk.
//! - `process`, `family`: who is that pid really, and everything a replica has started.
//! - `keeper`: a process and the sockets it is handed, the proxy or egress; `running` is one such process; `sockets` binds.
//! - `endpoints`: the ports at which replicas find what they depend on.
//! - `disk`, `clock`, `sync`: files that survive a crash, the time, locks.

mod adopt;
mod clock;
mod disk;
mod endpoints;
mod family;
mod fence;
mod keeper;
mod life;
mod logs;
mod marker;
mod ports;
mod process;
mod replicas;
mod running;
mod server;
mod sockets;
mod spawn;
mod sync;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_wire::frame;
use rustix::fs::FlockOperation;

use crate::endpoints::Endpoints;
use crate::fence::Fence;
use crate::keeper::Keeper;
use crate::replicas::Replicas;
use crate::server::Agent;

/// Under this name in the state directory the agent listens.
const SOCKET: &str = "agent.sock";
/// An agent that was just killed keeps its lock until the kernel has torn it down, and so does a child it had forked
/// but that had not become another program yet.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// Where the agent works and what it keeps running.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds sockets, markers, logs and the fence; made with mode 0700 when missing. One agent per directory.
    pub state_directory: PathBuf,
    /// Program and arguments of the proxy that works on the same state directory.
    pub proxy_command: Vec<String>,
    /// Program and arguments of the process through which replicas reach what they depend on.
    pub egress_command: Vec<String>,
    /// Listening sockets per address, one for each of the proxy's workers; at least 1.
    pub workers: usize,
}

/// Adopts what an earlier agent left, then serves until a controller asks for a shutdown.
///
/// Threads are still about when it returns; the caller ends the process.
///
/// # Errors
/// Another agent works on the state directory, its files cannot be read or written, or the socket cannot be made.
pub fn run(options: Options) -> io::Result<()> {
    let state = prepare(&options.state_directory)?;
    // Refused to the leader of a process group, who is as safe from the terminal's signals as a session's leader.
    let _ = rustix::process::setsid();
    let _lock = lock(&state)?;
    process::check()?;

    let replicas = Arc::new(Replicas::new(&state));
    adopt::adopt(&replicas)?;
    let workers = options.workers.max(1);
    let keeper = Keeper::start(running::PROXY, &state, options.proxy_command, workers)?;
    let egress = Keeper::start(running::EGRESS, &state, options.egress_command, workers)?;
    logs::watch(&state, &replicas)?;
    let agent =
        Arc::new(Agent { fence: Fence::open(&state)?, replicas, keeper, egress, endpoints: Endpoints::open(&state)? });
    let listener = frame::listen(&state, SOCKET)?;
    tracing::info!(state = %state.display(), "agent ready");

    server::serve(listener, &agent)?;
    let _ = fs::remove_file(state.join(SOCKET));
    tracing::info!("agent has shut down");
    Ok(())
}

/// Makes the directories. The canonical path marks our replicas, however the directory is named at the next start.
fn prepare(state: &Path) -> io::Result<PathBuf> {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(state)?;
    let state = state.canonicalize()?;
    private.create(state.join(marker::DIRECTORY))?;
    private.create(state.join(logs::DIRECTORY))?;
    Ok(state)
}

/// Held until the process ends; the file stays, so that two agents never lock two files of one name.
fn lock(state: &Path) -> io::Result<File> {
    let path = state.join("agent.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    let taken = sync::until(LOCK_WAIT, || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
    if taken {
        return Ok(file);
    }
    let why = format!("another agent works on {}: it holds {}", state.display(), path.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
}
