//! How many files a process may have open.
//!
//! Each probe and each client is a connection. What a controller needs is not what its replicas are to inherit by way
//! of the agent: a program that looks at every descriptor it could have takes long where there may be a million.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tracing::warn;

/// The limit this process was started with, where it has been raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Lets this process open as many files as the machine's owner allows; the agents it starts get what it had before.
pub fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, ..before };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => drop(BEFORE.set(before)),
        Err(error) => warn!(%error, "the limit of open files stays as it is"),
    }
}

/// Gives a process that was just started the limit that this one was started with.
pub(crate) fn restore_open_files(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let (Some(before), Some(pid)) = (BEFORE.get(), pid)
        && let Err(error) = prlimit(Some(pid), Resource::Nofile, *before)
    {
        warn!(%error, "the agent's limit of open files stays raised");
    }
}
